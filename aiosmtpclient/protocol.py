"""The wire: an `asyncio.Protocol` that reads replies into futures.

One object a connection. It owns the transport, the futures that replies complete, flow control
and the one clock; what the octets mean is `session`'s business. Whoever drives a dialogue calls
`send`, awaits the future, and `drain`s between slices of content.

Rules of this room:

* Futures and the session's steps are two queues of the same order: the oldest step that is
  complete completes the oldest future.
* The greeting's future exists before the transport does: on uvloop the greeting can arrive
  before `create_connection` returns.
* One timer a connection, none a reply. `watch` moves a deadline; the timer looks at it when it
  fires. Each reply moves the deadline on, and so does every octet that the kernel takes. Inside
  TLS that shows only now and then, so little is buffered there.
* When the connection fails, every future fails, each with an error of its own.
* The protocol knows no client, so an unclosed client can be collected while the transport
  still holds the protocol, and can warn.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import cast

from .errors import SMTPException, SMTPServerDisconnected, SMTPTimeoutError
from .replies import Reply
from .session import Session
from .steps import Phase, Step

Replies = asyncio.Future[list[Reply]]

HIGH_WATER = 64 * 1024
"""Octets the transport may hold before it says stop; asyncio's own limit inside TLS is 512 KiB."""


class SMTPProtocol(asyncio.Protocol):
    """Reads replies into futures.

    Args:
        session: the memory of this connection.
        loop: the loop it lives on.

    Attributes:
        closed: completed (with None) when the transport is gone.
    """

    def __init__(self, session: Session, loop: asyncio.AbstractEventLoop) -> None:
        self.session = session
        self.transport: asyncio.Transport | None = None
        self.closed: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._greeting: Replies = loop.create_future()
        self._waiters: deque[Replies] = deque([self._greeting])
        self._paused = False
        self._drain: asyncio.Future[None] | None = None
        self._deadline: float | None = None
        self._seconds: float | None = None
        self._doing = ""
        self._unwritten = 0
        self._timer: asyncio.TimerHandle | None = None

    # -- what the transport calls ------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        # No isinstance(): uvloop's transports are no subclasses, and it swallows what fails here.
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(HIGH_WATER)

    def data_received(self, data: bytes) -> None:
        """Hand the octets to the session, and the replies to whoever waits for them."""
        before = self.session.replies_read
        complete = self.session.receive_data(data)
        for step in complete:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(step.received)
        if self.session.phase is Phase.CLOSING and not complete:
            self.session.lost()  # a 421 that answers nothing: no driver is here to close
        if self.session.failure is not None:
            self.abort()
        elif self.session.replies_read != before:
            self._restart()
            self._wake()

    def eof_received(self) -> None:
        """The server will say no more, so what it owes will not come."""
        self.session.lost()
        self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is gone: nothing waits any more."""
        self.session.lost(exc)
        self._fail_waiters()
        self.unwatch()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wake()
        if not self.closed.done():
            self.closed.set_result(None)

    def pause_writing(self) -> None:
        """The transport's buffer is full."""
        self._paused = True

    def resume_writing(self) -> None:
        """The transport's buffer has room again."""
        self._paused = False
        self._restart()
        self._wake()

    # -- what a driver calls -----------------------------------------------------------

    def send(self, step: Step) -> Replies | None:
        """Write a step's lines; return the future of its replies, None if it earns none.

        Raises:
            SMTPException: the connection is of no further use. Nothing was written.
        """
        if step is self.session.greeting:
            return self._greeting
        self.check()
        data = self.session.send(step)
        waiter: Replies | None = None
        if step.owed:
            waiter = self._loop.create_future()
            self._waiters.append(waiter)
        if data:
            self._open().write(data)
        return waiter

    def write(self, octets: bytes) -> None:
        """Hand content, or a caller's raw octets, to the transport."""
        self._open().write(octets)

    def check(self) -> None:
        """Raise if nothing that is written now can arrive.

        After a reset asyncio's `write` is a silent no-op, so it has to be asked first.
        """
        if self.transport is None or self.transport.is_closing():
            self.session.lost()
        if self.session.failure is not None:
            raise self.session.why()

    async def drain(self, waiter: Replies | None = None) -> None:
        """Wait until the transport takes more, a reply came, or the connection is gone."""
        if not self._paused:
            await asyncio.sleep(0)  # a fast server must not keep everybody else from the loop
        while self._paused and self.session.failure is None and not self._answered(waiter):
            self._drain = self._loop.create_future()
            await self._drain
        if self.session.failure is not None:
            raise self.session.why()

    def _answered(self, waiter: Replies | None) -> bool:
        if waiter is None:
            return False
        owing = self.session.owing
        return waiter.done() or (owing is not None and bool(owing.received))

    def upgrade(self, transport: asyncio.Transport) -> None:
        """TLS is up: from now on everything goes through this transport."""
        self.connection_made(transport)
        self.session.forget()

    def abort(self, error: SMTPException | None = None) -> None:
        """Drop the connection at once: nothing more is written, everything that waits fails."""
        self.session.fail(error or self._closed_here())
        self._fail_waiters()
        self._wake()
        self.unwatch()
        if self.transport is not None:
            self.transport.abort()

    def abort_handshake(self, error: SMTPException | None = None) -> None:
        """Drop the connection in the middle of a TLS handshake.

        asyncio does not tell a protocol that its connection was lost there.
        """
        self.abort(error)
        self.connection_lost(None)

    def close(self) -> None:
        """Close the connection once what was written has left."""
        self.session.fail(self._closed_here())
        self._fail_waiters()
        self._wake()
        self.unwatch()
        if self.transport is not None:
            self.transport.close()

    def _closed_here(self) -> SMTPException:
        text = (
            f"the connection to {self.session.peer} was closed on this side, "
            "by close() or because what was under way there ended half-way"
        )
        return SMTPServerDisconnected(text, last_reply=self.session.last_reply)

    # -- the clock ---------------------------------------------------------------------

    def watch(self, seconds: float | None, doing: str) -> None:
        """From now on something must happen every so many seconds; None waits for ever."""
        self._seconds, self._doing = seconds, doing
        self._restart()

    def unwatch(self) -> None:
        """Nothing is waited for."""
        self._seconds = self._deadline = None

    def _restart(self) -> None:
        if self._seconds is None:
            self._deadline = None
            return
        self._deadline = self._loop.time() + self._seconds
        self._unwritten = self._buffered()
        if self._timer is None or self._timer.when() > self._deadline:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(self._deadline, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if self._deadline is None or self._seconds is None:
            return
        if self._buffered() < self._unwritten:
            self._restart()  # the kernel took something: an upload that moves never times out
        elif self._loop.time() < self._deadline:
            self._timer = self._loop.call_at(self._deadline, self._tick)
        else:
            owing = self.session.owing
            phase = owing.verb if owing is not None and owing.content is None else self._doing
            text = f"{self.session.peer} took longer than {self._seconds:g} s ({phase})"
            if phase == "greeting" and not self.session.encrypted:
                text += "; if it speaks TLS from the first octet, use tls='implicit' or SMTP_SSL"
            self.abort(SMTPTimeoutError(text, phase=phase))

    def _buffered(self) -> int:
        return self.transport.get_write_buffer_size() if self.transport is not None else 0

    # -- inside ------------------------------------------------------------------------

    def _open(self) -> asyncio.Transport:
        if self.transport is None:
            raise AssertionError("a step before the transport")
        return self.transport

    def _wake(self) -> None:
        if self._drain is not None and not self._drain.done():
            self._drain.set_result(None)
        self._drain = None

    def _fail_waiters(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_exception(self.session.why())
                waiter.exception()  # looked at: nobody may be left to await it
