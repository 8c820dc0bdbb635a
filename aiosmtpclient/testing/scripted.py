"""`ScriptedServer`: a server that says and does exactly what a test writes down, faults included.

A script is a list of steps, or an async function that takes a `Conversation`. In a list, octets
are said, text is expected, and every other step is one of the functions of this room::

    [greeting(), ehlo("PIPELINING"), "MAIL FROM:<a@b.test>", b"250 ok\\r\\n", expect("RCPT"), reset()]

Rules of this room:

* An expectation that fails is kept in `failures`, and raised when the server is left.
* That the client goes away while something is said to it is not a failure: the next `expect` is.
* There are no delays: `split` gives the loop a turn between octets, `stall` waits for an end.
* Nothing here needs anything installed.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeAlias

from aiosmtpclient.testing.conversation import Conversation, Expected
from aiosmtpclient.testing.loopback import LoopbackServer, client_left

Action: TypeAlias = Callable[[Conversation], Awaitable[object]]
Step: TypeAlias = Action | bytes | str
Script: TypeAlias = Step | Iterable[Step]

# Turns of the loop without anything happening, after which a conversation is taken to have stopped.
_IDLE_TURNS = 20
# Turns after which even a client that never stops writing is left.
_MOST_TURNS = 1000


class _Connection(asyncio.StreamReaderProtocol):
    """A connection that tells its server what happens to it."""

    def __init__(self, owner: ScriptedServer) -> None:
        self._owner = owner
        self._kept_reader = asyncio.StreamReader()
        super().__init__(self._kept_reader, self._begin)

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._owner.opened(self, writer.transport)
        self._conversation = self._owner.begin(self, reader, writer)

    def data_received(self, data: bytes) -> None:
        self._conversation.received += data
        super().data_received(data)

    def eof_received(self) -> bool | None:
        self._conversation.gone.set()
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._conversation.gone.set()
        super().connection_lost(exc)
        self._owner.lost(self)


class ScriptedServer(LoopbackServer):
    """A server that plays a script on each connection.

    ``async with ScriptedServer(script) as server:`` plays it in the running loop;
    ``with ScriptedServer(script) as server:`` in a thread, for blocking code. When a script
    ends, its connection is closed. An expectation that failed, or that nothing had met when the
    server was left, raises its AssertionError there.

    Args:
        scripts: the first connection's script, the second's, and so on.
        repeat_last: play the last script on all later connections; False makes one more
            connection than there are scripts a failure.
        implicit_tls: TLS from the first octet, with this context.
        host: the loopback address to listen on.
        unix_path: listen on this Unix socket instead.

    Attributes:
        conversations: one for each connection so far.
    """

    def __init__(
        self,
        *scripts: Script,
        repeat_last: bool = True,
        implicit_tls: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
        unix_path: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__(host=host, unix_path=unix_path, implicit_tls=implicit_tls)
        self.scripts = tuple(_steps(script) for script in scripts)
        self.repeat_last = repeat_last
        self.conversations: list[Conversation] = []

    @property
    def received(self) -> list[bytes]:
        """Everything the client wrote, one entry a connection."""
        return [bytes(conversation.received) for conversation in self.conversations]

    def make_connection(self) -> _Connection:
        """A connection of its own, for the listener."""
        return _Connection(self)

    def begin(
        self, connection: _Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Conversation:
        """Start the next script."""
        conversation = Conversation(connection, reader, writer, len(self.conversations))
        self.conversations.append(conversation)
        self.keep(asyncio.get_running_loop().create_task(self._play(conversation, writer)))
        return conversation

    async def _play(self, conversation: Conversation, writer: asyncio.StreamWriter) -> None:
        try:
            if self.implicit_tls is not None:
                await conversation.starttls(self.implicit_tls)
            for step in self._script(conversation.number):
                await _perform(step, conversation)
        except Exception as error:
            if not client_left(error):
                raise
        finally:
            writer.close()

    def _script(self, number: int) -> tuple[Step, ...]:
        if number < len(self.scripts):
            return self.scripts[number]
        if self.repeat_last and self.scripts:
            return self.scripts[-1]
        raise AssertionError(f"there is no script for connection {number + 1}")

    async def finished(self) -> None:
        """Wait until the scripts of all connections so far have ended."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _stop(self) -> None:
        await self._let_finish()
        unmet = [conversation.waiting_for for conversation in self.conversations if conversation.waiting_for]
        await super()._stop()
        self.failures += [AssertionError(f"the server was left while it waited for {what}") for what in unmet]

    async def _let_finish(self) -> None:
        """Let the scripts take what is already on its way; those that wait for more are left."""
        idle, before = 0, (0, 0)
        for _ in range(_MOST_TURNS):
            if not self._tasks or idle == _IDLE_TURNS:
                return
            await asyncio.sleep(0)
            now = len(self._tasks), sum(len(conversation.received) for conversation in self.conversations)
            idle, before = (idle + 1 if now == before else 0), now


def _steps(script: Script) -> tuple[Step, ...]:
    if isinstance(script, (bytes, str)) or callable(script):
        return (script,)
    return tuple(script)


async def _perform(step: Step, conversation: Conversation) -> None:
    if isinstance(step, bytes):
        await conversation.say(step)
    elif isinstance(step, str):
        await conversation.expect(step)
    else:
        await step(conversation)


def say(data: bytes) -> Action:
    """See `Conversation.say`."""
    return lambda conversation: conversation.say(data)


def split(data: bytes) -> Action:
    """See `Conversation.split`."""
    return lambda conversation: conversation.split(data)


def expect(expected: Expected) -> Action:
    """See `Conversation.expect`."""
    return lambda conversation: conversation.expect(expected)


def expect_content() -> Action:
    """See `Conversation.expect_content`."""
    return Conversation.expect_content


def expect_eof() -> Action:
    """See `Conversation.expect_eof`."""
    return Conversation.expect_eof


def read_exactly(octets: int) -> Action:
    """See `Conversation.read_exactly`."""
    return lambda conversation: conversation.read_exactly(octets)


def read_all() -> Action:
    """See `Conversation.read_all`."""
    return Conversation.read_all


def stall() -> Action:
    """See `Conversation.stall`."""
    return Conversation.stall


def close() -> Action:
    """See `Conversation.close`."""
    return Conversation.close


def drop() -> Action:
    """See `Conversation.drop`."""
    return Conversation.drop


def reset() -> Action:
    """See `Conversation.reset`."""
    return Conversation.reset


def half_close() -> Action:
    """See `Conversation.half_close`."""
    return Conversation.half_close


def starttls(context: ssl.SSLContext) -> Action:
    """See `Conversation.starttls`."""
    return lambda conversation: conversation.starttls(context)


def greeting(text: str = "mail.test ESMTP") -> Action:
    """Say 220 and this text."""
    return say(f"220 {text}\r\n".encode())


def ehlo(*extensions: str, verb: str = "EHLO") -> Action:
    """Expect EHLO (or another verb, as LHLO), and answer it with these extensions."""

    async def answer(conversation: Conversation) -> None:
        await conversation.expect(f"{verb} ")
        *before, last = ["mail.test", *extensions]
        lines = [f"250-{line}\r\n" for line in before] + [f"250 {last}\r\n"]
        await conversation.say("".join(lines).encode())

    return answer
