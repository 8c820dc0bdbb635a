"""The driver: takes a dialogue through a connection, step by step.

A step without content, or with little, leaves in one write. Other content leaves slice by slice,
while what the server says is already read. Whatever has to be awaited is awaited here: replies,
room in the transport, a TLS handshake, the caller's own iterators and callables.

Rules of this room:

* The end of the content counts as gone before it is handed to the transport, never after: once
  `write` was called, nobody can prove that it did not leave.
* A verdict that is in is not lost to a cancellation that comes with it, or the message would be
  sent twice.
* The turn, where it is lent, is given back with the last octet.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Generic, TypeVar

from . import commands
from .bodies import wire_slices
from .content import InMemory, Stream
from .errors import SMTPProtocolError, SMTPServerDisconnected
from .protocol import SMTPProtocol
from .replies import Reply
from .steps import Dialogue, Phase, Step
from .transactions import ONE_WRITE
from .turn import Lease

T = TypeVar("T")


class Drive(Generic[T]):
    """One dialogue on its way through a connection.

    Args:
        protocol: the connection's.
        dialogue: what is taken through it.
        lease: the turn, to be given back as soon as the last octet is written. Replies to
            dialogues before this one may still be owed.
        handshake: brings up TLS.

    Attributes:
        step: the step that was asked for last.
    """

    __slots__ = ("_dialogue", "_handshake", "_lease", "_protocol", "step")

    def __init__(
        self,
        protocol: SMTPProtocol,
        dialogue: Dialogue[T],
        lease: Lease | None,
        handshake: Callable[[Step], Awaitable[None]],
    ) -> None:
        self._protocol = protocol
        self._dialogue = dialogue
        self._lease = lease
        self._handshake = handshake
        self.step: Step | None = None

    async def run(self) -> T:
        """Take it to its end; what it returns or raises is returned or raised."""
        try:
            self.step = next(self._dialogue)
            while True:
                try:
                    replies = await self._perform(self.step)
                except BaseException as error:
                    self.step = self._dialogue.throw(error)
                else:
                    self.step = self._dialogue.send(replies)
        except StopIteration as done:
            result: T = done.value
            return result

    async def _perform(self, step: Step) -> list[Reply]:
        """Do what a step asks for; returns its replies."""
        if not step.owed:
            await self._act(step)
            return []
        protocol = self._protocol
        if self._lease is not None and protocol.crowded and not step.performed:
            await protocol.room()
        try:
            return step.outcome() if step.performed else await self._exchange(step)
        except (SMTPServerDisconnected, SMTPProtocolError):
            if step.ended or not step.cut_short:
                raise
            return step.received  # refused in the middle of the content, and hung up on
        except asyncio.CancelledError:
            protocol.flush()
            if not (step.ended and step.complete):
                raise
            # The verdict is in, and must not be lost for a cancellation, or the message is sent twice.
            cancel_later(asyncio.get_running_loop())
            return step.received

    async def _act(self, step: Step) -> None:
        """Do what earns no reply."""
        if step.handshake:
            await self._handshake(step)
        elif step.ask is not None:
            answer = step.ask() if step.challenge is None else step.ask(step.challenge)
            step.answer = await answer if inspect.isawaitable(answer) else answer
        elif step.during is Phase.CLOSING:
            self._protocol.abort()
        else:
            self._protocol.send(step)

    async def _exchange(self, step: Step) -> list[Reply]:
        """Write a step with its content, and wait for what it earns."""
        content, protocol = step.content, self._protocol
        if content is None:
            waiter = protocol.send(step)
        elif isinstance(content, InMemory) and content.size <= ONE_WRITE:
            if step.progress is not None:
                step.progress(content.size, content.size)
            whole = content.data if step.chunked else content.stuffed() + commands.END_OF_CONTENT
            waiter = protocol.send(step, whole)
        else:
            waiter = protocol.send(step)
            await self._write_content(step, content)
            if not step.ended and step.cut_short:
                return step.received
        if self._lease is not None and step.last:
            protocol.session.release(step)
            self._lease.give_back()
        try:
            return await waiter
        finally:
            del waiter  # no cycle: the traceback of an error in it has this frame

    # -- content that takes more than one write ------------------------------------------

    async def _write_content(self, step: Step, content: InMemory | Stream) -> None:
        """Content in slices, then its end, unless the server answers before that."""
        protocol, left = self._protocol, _Left(step)
        async with contextlib.aclosing(_pieces(step, content)) as pieces:
            held: bytes | memoryview = b""
            async for piece in pieces:
                if held and not step.cut_short:
                    self._write_slice(step, held)
                    left.add(held)
                    await protocol.drain(step)
                    left.tell()
                if step.cut_short:
                    protocol.abort()  # answered before the end: there is no way on from here
                    return
                held = piece
        left.add(held)
        self._write_end(step, held, left)

    def _write_slice(self, step: Step, piece: bytes | memoryview) -> None:
        self._protocol.check()
        self._protocol.session.sent_content(piece)
        if step.chunked and isinstance(step.content, Stream):
            step.owed += 1
            step.lines += 1
            chunk = commands.bdat(len(piece), last=False)
            self._protocol.session.sent_line(chunk)
            self._protocol.write(chunk)
        self._protocol.write(piece)

    def _write_end(self, step: Step, piece: bytes | memoryview, left: _Left) -> None:
        self._protocol.check()
        if step.cut_short:
            self._protocol.abort()
            return
        left.tell()
        if not step.chunked:
            self._protocol.write_end(step, bytes(piece) + commands.END_OF_CONTENT)
        elif isinstance(step.content, Stream):
            chunk = commands.bdat(len(piece), last=True)
            self._protocol.session.sent_line(chunk)
            self._protocol.write_end(step, bytes(piece), chunk)
        else:
            self._protocol.write_end(step, bytes(piece))


def _pieces(step: Step, content: InMemory | Stream) -> AsyncGenerator[bytes | memoryview, None]:
    return wire_slices(content, seven_bit=step.seven_bit, stuff=not step.chunked)


class _Left:
    """How much of the content has left, as SIZE counts it: dots that were doubled do not count."""

    def __init__(self, step: Step) -> None:
        self._progress = step.progress
        self._total = step.content.size if step.content is not None else None
        self._stuffed = not step.chunked
        self._before = b"\r\n"
        self._octets = 0

    def add(self, piece: bytes | memoryview) -> None:
        """Count a slice, if somebody wants to know."""
        if self._progress is None:
            return
        self._octets += len(piece)
        if self._stuffed:
            text = self._before + piece
            self._octets -= text.count(b"\r\n..")
            self._before = text[-2:]

    def tell(self) -> None:
        """Report what was counted so far."""
        if self._progress is not None:
            self._progress(self._octets, self._total)


def cancel_later(loop: asyncio.AbstractEventLoop) -> None:
    """Let the result of this call through, and cancel the task again right after it.

    A cancellation that arrives together with the final reply, or behind it, must neither hide
    that reply nor get lost. If whoever cancelled takes it back by then, as `asyncio.timeout` does
    when its block is left, nothing happens.
    """
    task = asyncio.current_task()

    def again() -> None:
        if task is not None and not task.done() and task.cancelling() > 0:
            task.uncancel()
            task.cancel()

    loop.call_soon(again)
