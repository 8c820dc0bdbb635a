"""The wire: an `asyncio.Protocol` that reads replies into futures.

One object a connection. It owns the transport, the futures that replies complete, flow control
and the one clock; what the octets mean is `session`'s business. Whoever drives a dialogue calls
`send`, awaits the future, and `drain`s between slices of content.

Rules of this room:

* A plain message is under way instead of all others, and as `plain` takes it. It is unfolded as soon
  as anything else comes, or the connection ends. Nobody sends meanwhile: he would have to have the turn.
* Futures and the session's steps are two queues of the same order: the oldest step that is
  complete completes the oldest future.
* The greeting's future exists before the transport does: on uvloop the greeting can arrive
  before `create_connection` returns.
* One timer a connection, none a reply. What is waited for is always the next reply to the oldest step;
  each reply starts its time anew, and so does every octet that the kernel takes. Inside TLS that shows
  only now and then, so little is buffered there. The timer looks at all that when it fires.
* With `gathering`, what several tasks write in one turn of the loop leaves in one `send`. Until
  then none of it counts as written.
* While more replies are owed, those that come are acknowledged at once. A server that does not turn off
  Nagle's algorithm holds each one back until the one before is acknowledged, and a kernel takes up
  to 40 ms for that. smtp-server, Haraka and Sendmail do; it made a message take ten times as long.
* When the connection fails, every future fails, each with an error of its own.
* The protocol knows no client, so an unclosed client can be collected while the transport
  still holds the protocol, and can warn.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
from typing import cast

from .errors import SMTPException, SMTPServerDisconnected, SMTPTimeoutError
from .plain import Plain
from .replies import Reply
from .session import GREETED, OVER, Session
from .steps import Phase, Step, Waiter
from .timeouts import Timeouts

Replies = asyncio.Future[list[Reply]]

HIGH_WATER = 64 * 1024
"""Octets the transport may hold before it says stop; asyncio's own limit inside TLS is 512 KiB."""
MUCH = 16 * 1024
"""Octets that are not worth holding back."""
MOST_IN_FLIGHT = 100
"""Writes whose replies may be outstanding before the next transaction waits with its first octet."""


def _acknowledging(sock: socket.socket | None) -> socket.socket | None:
    """The socket, if it is one of TCP and this system (Linux) can be told when to acknowledge."""
    internet = sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6)
    return sock if internet and hasattr(socket, "TCP_QUICKACK") else None


class SMTPProtocol(asyncio.Protocol):
    """Reads replies into futures.

    Args:
        session: the memory of this connection.
        loop: the loop it lives on.
        timeouts: how long to wait.

    Attributes:
        closed: completed (with None) when the transport is gone.
        gathering: hold what is written until the next turn of the loop.
    """

    def __init__(
        self, session: Session, loop: asyncio.AbstractEventLoop, timeouts: Timeouts | None = None
    ) -> None:
        self.session = session
        self.transport: asyncio.Transport | None = None
        self.closed: asyncio.Future[None] = loop.create_future()
        self.gathering = False
        self._loop = loop
        self._greeting: Replies | None = loop.create_future()
        self._waiters: list[Waiter] = [self._greeting]
        self._gathered: list[bytes | memoryview] = []
        self._ending: tuple[Step, ...] = ()  # no lists: an idle connection would keep them empty
        self._unsent: Step | None = None
        self._paused = False
        self._plain: Plain | None = None
        self._moved: tuple[asyncio.Future[None], ...] = ()
        self._socket: socket.socket | None = None
        self._unwritten, self._since = 0, 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._fires = math.inf
        self.timeouts = timeouts or Timeouts()

    @property
    def timeouts(self) -> Timeouts:
        """How long to wait."""
        return self._timeouts

    @timeouts.setter
    def timeouts(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        waits = (timeouts.reply, timeouts.write, timeouts.final)
        self._shortest = float(min((wait for wait in waits if wait is not None), default=0.0))

    # -- what the transport calls ------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        # No isinstance(): uvloop's transports are no subclasses, and it swallows what fails here.
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(HIGH_WATER)
        self._socket = _acknowledging(self.transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        """Hand the octets to the session, and the replies to whoever waits for them."""
        plain = self._plain
        if plain is None or plain.over.done() or not plain.takes(data):
            self.unfold()
            self._receive(data)
        elif plain.missing:
            self._restart()
            if self._socket is not None:
                self._acknowledge(self._socket)
        elif plain.behind is None:
            self._plain = None
            try:
                self.session.accepted(plain.replies[-1])
                plain.accepted()
            except Exception as error:
                self._fail(plain, error)
        else:
            self._write_plain(plain.go_on(), self._loop.time())

    def _receive(self, data: bytes) -> None:
        """The same for whatever may come."""
        session = self.session
        before = session.replies_read
        complete = session.receive_data(data)
        if self._unsent is not None and self._unsent.received:
            session.refuse_early(self._unsent, complete)
        waiters, heard = self._waiters, False
        for step in complete:
            waiter = waiters.pop(0)
            if waiter.done():
                continue
            heard = True
            waiter.set_result(step.received)
        if session.phase is Phase.CLOSING and (waiters or not heard):
            session.lost()  # a 421, and behind it nothing comes for the others, or nobody is here to close
        given_up = session.condemned
        if session.failure is not None or (given_up is not None and session.owing in (given_up, None)):
            self.abort()
        elif session.replies_read != before:
            if waiters and self._socket is not None:
                self._acknowledge(self._socket)
            if waiters or self._paused:
                self._restart()
            if self._moved:
                self._wake()

    def _acknowledge(self, sock: socket.socket) -> None:
        """Let the server send what else it owes. The kernel forgets this again, so it is told each time."""
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        except OSError:  # it is gone, and who writes next will see that
            self._socket = None

    def eof_received(self) -> None:
        """The server will say no more, so what it owes will not come."""
        self.unfold()
        self.session.lost()
        self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is gone: nothing waits any more."""
        self.unfold()
        self.session.lost(exc)
        self._end()
        if not self.closed.done():
            self.closed.set_result(None)

    def pause_writing(self) -> None:
        """The transport's buffer is full."""
        self._paused = True
        self._restart()

    def resume_writing(self) -> None:
        """It has room again."""
        self._paused = False
        self._restart()
        self._wake()

    # -- what a driver calls -----------------------------------------------------------

    def send(self, step: Step, whole: bytes | None = None) -> Replies:
        """Write a step's lines; return the future of its replies.

        Args:
            step: what to announce.
            whole: its content as it goes out, with its end, to leave in the same write.

        Raises:
            SMTPException: the connection is of no further use. Nothing was written.
        """
        session = self.session
        if self._greeting is not None and step is session.greeting:
            self._restart()
            # There is one, and a connection that lies idle need not keep what became of it.
            greeting, self._greeting, session.greeting = self._greeting, None, GREETED
            return greeting
        if self.transport is None or self.transport.is_closing() or session.failure is not None:
            self.check()
        data = session.send(step)
        waiter: Replies = self._loop.create_future()
        if step.owed:
            self._waiters.append(waiter)
        else:
            waiter.set_result([])
        if self.gathering and not self._gathered and (data or whole is not None):
            self._unsent = step
        if whole is not None:
            self.write_end(step, whole, data)
            return waiter
        if data:
            (self.write if self.gathering else self._hand_over)(data)
        if len(self._waiters) == 1:
            self._begin(step)
        return waiter

    def begin(self, plain: Plain, octets: bytes, now: float) -> None:
        """Write the first octets of a plain message, where the session is `free`; it hears if that fails."""
        self._plain = plain
        self.session.begin()
        plain.ended = plain.chunked
        self._write_plain(octets, now)

    def _write_plain(self, octets: bytes, now: float) -> None:
        try:
            try:  # as `_hand_over`
                self.transport.write(octets)  # type: ignore[union-attr]  # there after a greeting
            except (OSError, RuntimeError) as error:
                raise self._cut_off(error) from error
            self._since = now
            if self._paused or self._fires > now + self._shortest:
                self._restart()
        except Exception as error:
            self._fail(self._plain, error)

    def unfold(self) -> None:
        """From now on a plain message, if one is under way, is like any other."""
        if (plain := self._plain) is None:
            return
        try:
            self.session.unfold(plain.unfold(), plain.last_reply)
            self._waiters.append(plain)
        except Exception as error:
            self._fail(plain, error)
        self._plain = None

    def _fail(self, plain: Plain | None, error: Exception) -> None:
        """For want of memory, say: it is told at once, for nobody else could, and the connection ends."""
        self._plain = None
        if plain is not None and not plain.done():
            plain.set_exception(error)
            plain.exception()
        self.abort()

    def write_end(self, step: Step, octets: bytes, lines: bytes = b"") -> None:
        """Hand the last of a step's content to the transport; it counts as gone before it goes."""
        if self.session.told:
            self.session.sent_content(octets)  # first: a trace may forbid it
        if lines:
            octets = lines + octets
        if self.gathering:
            self._ending += (step,)
            self.write(octets)
        else:
            step.end_left()
            self._hand_over(octets)
        if len(self._waiters) == 1:
            self._begin(step)

    def write(self, octets: bytes | memoryview) -> None:
        """Hand octets to the transport, now or together with what others write in this turn."""
        if not self.gathering:
            self._hand_over(octets)
            return
        if not self._gathered:
            self._loop.call_soon(self._flush_alone)
        self._gathered.append(octets)
        if len(octets) >= MUCH:
            self.flush()

    def flush(self) -> None:
        """Write what was gathered."""
        if not self._gathered:
            return
        gathered, self._gathered = self._gathered, []
        ending, self._ending = self._ending, ()
        self._unsent = None
        try:
            if self.transport is None or self.transport.is_closing() or self.session.phase in OVER:
                return  # none of it has left, and the end is on its way
            # Not writelines(): in CPython 3.12.0 to 3.12.8 and 3.13.0 to 3.13.1 it never says stop.
            whole = gathered[0] if len(gathered) == 1 else b"".join(gathered)
            for step in ending:
                step.end_left()
            self._hand_over(whole)
            if ending and self.session.owing is ending[0]:
                self._restart()
        except BaseException:
            self.abort()  # those who gathered it wait for replies, and are not here
            raise

    def _flush_alone(self) -> None:
        """The same, called by the loop: whoever waits has been told."""
        with contextlib.suppress(SMTPException):
            self.flush()

    def _hand_over(self, octets: bytes | memoryview) -> None:
        """Give octets to the transport. If that fails nobody knows what left, and nothing may follow."""
        if self.transport is None:
            raise AssertionError("a step before the transport")
        try:
            self.transport.write(octets)
        except (OSError, RuntimeError) as error:  # uvloop's, where its handle is gone
            raise self._cut_off(error) from error

    def _cut_off(self, error: Exception) -> SMTPException:
        failure = SMTPServerDisconnected(f"cannot write to {self.session.peer}: {error}")
        failure.__cause__ = error
        self.abort(failure)
        return self.session.why()

    def check(self) -> None:
        """Raise if nothing that is written now can arrive: after a reset asyncio's `write` does nothing."""
        if self.transport is None or self.transport.is_closing():
            self.session.lost()
        if self.session.failure is not None:
            raise self.session.why()

    async def drain(self, step: Step | None = None) -> None:
        """Wait until the transport takes more, this step was answered, or the connection is gone."""
        self.flush()
        if not self._paused:
            await asyncio.sleep(0)  # a fast server must not keep everybody else from the loop
        while self._paused and self.session.failure is None and not (step is not None and step.cut_short):
            await self._movement()
        if self.session.failure is not None:
            raise self.session.why()

    @property
    def crowded(self) -> bool:
        """True if the next transaction has to wait: what is outstanding, both ways, is bounded."""
        return (self._paused or self.session.in_flight >= MOST_IN_FLIGHT) and not self.session.closing

    async def room(self) -> None:
        """Wait until the next transaction may leave, or the connection is gone."""
        while self.crowded:
            await self._movement()

    async def idle(self) -> None:
        """Wait until nothing is owed to anybody, or the connection is gone."""
        while self.session.owing is not None and self.session.failure is None:
            await self._movement()

    def upgrade(self, transport: asyncio.Transport) -> None:
        """TLS is up: from now on everything goes through this transport."""
        self.connection_made(transport)
        self.session.forget()

    def abandon(self, step: Step | None) -> None:
        """Give this step up, and the connection with it, once those before it have their replies."""
        if step is None or not self.session.condemn(step):
            self.abort()

    def abort(self, error: SMTPException | None = None) -> None:
        """Drop the connection at once: nothing more is written, everything that waits fails."""
        self.unfold()
        self.session.fail(error or self.session.closed_here())
        self._gathered, self._ending, self._unsent = [], (), None
        self._end()
        if self.transport is not None:
            with contextlib.suppress(RuntimeError):  # its loop or its handle is gone, and so is it
                self.transport.abort()

    def abort_handshake(self, error: SMTPException | None = None) -> None:
        """Drop the connection in the middle of a TLS handshake, which asyncio tells no protocol of."""
        self.abort(error)
        self.connection_lost(None)

    def leave(self) -> None:
        """Close the connection. What has not left by now nobody wants, and perhaps nobody ever reads."""
        if self._buffered():
            self.abort()
        else:
            self.close()

    def close(self) -> None:
        """Close the connection once what was written has left."""
        self.flush()
        self.unfold()
        self.session.fail(self.session.closed_here())
        self._end()
        # Once only: asyncio's TLS transport forgets its socket at the second time, and does nothing more.
        if self.transport is not None and not self.transport.is_closing():
            with contextlib.suppress(RuntimeError):  # as above
                self.transport.close()

    # -- the clock ---------------------------------------------------------------------

    def _begin(self, step: Step) -> None:
        """This step is what is waited for from now on."""
        now = self._loop.time()
        if self._fires <= now + self._shortest and step.patience is None and not self._paused:
            self._since = now  # the timer looks again before anything can be due
        else:
            self._restart()

    def _restart(self) -> None:
        """Something moved, so what is waited for has all its time again."""
        self._since = now = self._loop.time()
        if self._paused:
            self._unwritten = self._buffered()
        step = self.session.owing
        if (step is None or step.patience is None) and self._fires <= now + self._shortest:
            return  # as above
        seconds = self._patience()
        if seconds is not None and self._fires > now + seconds:
            if self._timer is not None:
                self._timer.cancel()
            self._look_at(now + seconds)

    def _look_at(self, when: float) -> None:
        self._timer = self._loop.call_at(when, self._tick)
        self._fires = when

    def _patience(self) -> float | None:
        """Seconds until something must happen; None while there is nothing to wait for."""
        step, timeouts, plain = self.session.owing, self._timeouts, self._plain
        seconds: float | None = None
        if self.session.failure is not None:
            return None
        if plain is not None:
            seconds = timeouts.final if plain.decided_next else timeouts.reply
        if step is not None and (step.content is None or step.ended):  # else it is the caller's time
            verdict = step.content is not None and len(step.received) >= step.lines
            seconds = timeouts.final if verdict else timeouts.reply
            if step.patience is not None:
                seconds = step.patience if seconds is None else min(seconds, step.patience)
        if self._paused and timeouts.write is not None:
            seconds = timeouts.write if seconds is None else min(seconds, timeouts.write)
        return seconds

    def _tick(self) -> None:
        self._timer, self._fires = None, math.inf
        seconds = self._patience()
        if seconds is None:
            return
        if self._paused and self._buffered() < self._unwritten:
            self._restart()  # the kernel took something: an upload that moves never times out
        elif self._loop.time() < self._since + seconds:
            self._look_at(self._since + seconds)
        else:
            self.unfold()
            step = self.session.owing
            phase = step.verb if step is not None and (step.content is None or step.ended) else "content"
            text = f"{self.session.peer} took longer than {seconds:g} s ({phase})"
            if phase == "greeting" and not self.session.encrypted:
                text += "; if it speaks TLS from the first octet, use tls='implicit' or SMTP_SSL"
            self.abort(SMTPTimeoutError(text, phase=phase))

    def _buffered(self) -> int:
        return self.transport.get_write_buffer_size() if self.transport is not None else 0

    # -- inside ------------------------------------------------------------------------

    async def _movement(self) -> None:
        """Wait until a reply came, there is room, or the connection is gone."""
        moved = self._loop.create_future()
        self._moved += (moved,)
        await moved

    def _wake(self) -> None:
        moved, self._moved = self._moved, ()
        for waiter in moved:
            if not waiter.done():
                waiter.set_result(None)

    def _end(self) -> None:
        """Nothing will come any more: stop the clock, and let everybody who waits know."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._fires = None, math.inf
        while self._waiters:
            waiter = self._waiters.pop(0)
            if not waiter.done():
                waiter.set_exception(self.session.why())
                waiter.exception()  # looked at: nobody may be left to await it
        self._wake()
