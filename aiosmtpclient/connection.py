"""One connection, and the driver that takes a dialogue through it.

`Connection.open` dials (TCP, a Unix socket, a socket somebody made, TLS from the first octet)
and `run` drives dialogues, one at a time: whoever calls it holds the client's turn. Clocks,
slices of content, the caller's own callables: everything that is awaited is awaited here.

Rules of this room:

* A dialogue that is over leaves the connection at home (outside any transaction, nothing owed)
  or it is dropped. There is no third way; that is what keeps a cancelled send from spoiling the
  next one.
* The end of the content counts as gone before it is handed to the transport, never after: once
  `write` was called, nobody can prove that it did not leave.
* No bare `OSError` or `ssl.SSLError` leaves this room, but the caller's own exceptions do.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import inspect
import itertools
import ssl
from collections.abc import Callable, Collection
from dataclasses import dataclass
from socket import socket
from typing import TypeVar

from . import tls
from .bodies import wire_slices
from .commands import END_OF_CONTENT
from .content import InMemory
from .dialogues import claim
from .errors import (
    SMTPConnectError,
    SMTPConnectionRefusedError,
    SMTPException,
    SMTPProtocolError,
    SMTPServerDisconnected,
    SMTPTimeoutError,
)
from .protocol import Replies, SMTPProtocol
from .replies import Reply
from .session import Session, Trace
from .steps import Dialogue, Phase, Step
from .timeouts import Timeouts

T = TypeVar("T")

SLICE = 64 * 1024
"""Octets of content up to which everything leaves in one write."""
LINGER = 1.0
"""Seconds a closing connection gets to finish, a TLS close_notify say, before it is dropped."""

_serial = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a server is.

    Attributes:
        host: a name, an address, or a path that starts with "/" (a Unix socket).
        port: TCP port.
        source_address: local host and port to bind, or None.
        sock: a connected socket to use in place of all that.
    """

    host: str
    port: int
    source_address: tuple[str, int] | None = None
    sock: socket | None = None

    @property
    def name(self) -> str:
        """How messages name it."""
        if self.sock is not None and not self.host:
            return "the given socket"
        return self.host if self.unix else f"{self.host}:{self.port}"

    @property
    def unix(self) -> bool:
        """A Unix socket by its path."""
        return self.host.startswith("/")

    @property
    def local(self) -> bool:
        """On this machine, as far as can be told without asking anybody (for TLS and credentials)."""
        if self.sock is None or (self.host and not tls.is_local(self.host)):
            return tls.is_local(self.host)  # a socket to a proxy here does not make its target local
        with contextlib.suppress(OSError):
            # By name: Windows has no socket.AF_UNIX to compare with.
            family = getattr(self.sock.family, "name", "")
            return family == "AF_UNIX" or tls.is_local_peer(self.sock.getpeername())
        return False


@dataclass(frozen=True, slots=True)
class TLSSettings:
    """What a handshake needs.

    Attributes:
        context: None for one that verifies; it is made when it is needed, for that takes a while.
        server_hostname: the name that the certificate must have.
    """

    context: ssl.SSLContext | None
    server_hostname: str

    async def made(self) -> tuple[ssl.SSLContext, str]:
        """Context and name as `ssl` wants them."""
        return self.context or await _shared_context(), tls.server_name(self.server_hostname)


_default_context: ssl.SSLContext | None = None


async def _shared_context() -> ssl.SSLContext:
    """One verifying context for everybody who brings none; nobody else can reach and change it.

    It is made in a thread: reading the system's authorities takes tens of milliseconds.
    """
    global _default_context
    if _default_context is None:
        _default_context = await asyncio.to_thread(tls.default_context)
    return _default_context


class Connection:
    """A transport, its protocol, its session, and the driver.

    Attributes:
        serial: its number within this process.
        session: what it knows.
        timeouts: how long it waits.
        ehlo: what was said to EHLO or LHLO, if anything.
        helo: what was said to HELO, if anything.
        esmtp: the newest hello was EHLO or LHLO, so parameters may be sent.
        recipients: those of an envelope that was opened by hand, with RCPT's reply 2yz; None if
            commands of the caller's own may have changed it.
    """

    def __init__(self, protocol: SMTPProtocol, timeouts: Timeouts, security: TLSSettings | None) -> None:
        self.serial = next(_serial)
        self.protocol = protocol
        self.session = protocol.session
        self.timeouts = timeouts
        self.loop = asyncio.get_running_loop()
        self.ehlo: Reply | None = None
        self.helo: Reply | None = None
        self.esmtp = False
        self.recipients: list[str] | None = []
        self.security = security

    @classmethod
    async def open(
        cls,
        endpoint: Endpoint,
        timeouts: Timeouts,
        *,
        security: TLSSettings | None = None,
        implicit: bool = False,
        trace: Trace | None = None,
    ) -> Connection:
        """Connect; with `implicit`, TLS comes before everything else.

        Raises:
            SMTPConnectError: no such host, nobody listens, unreachable.
            SMTPTimeoutError: it took too long.
            SMTPTLSError: the handshake or the certificate failed.
        """
        loop = asyncio.get_running_loop()
        session = Session(endpoint.name, trace)
        factory = _factory(session, loop)
        at_once = security if implicit else None
        try:
            async with asyncio.timeout(timeouts.connect):
                protocol = await _dial(loop, factory, endpoint, at_once, timeouts.connect)
        except (OSError, ssl.CertificateError, UnicodeError) as error:
            raise _connect_error(error, endpoint, at_once) from error
        session.encrypted = at_once is not None
        return cls(protocol, timeouts, security)

    # -- the driver --------------------------------------------------------------------

    async def run(self, dialogue: Dialogue[T], *, home: Collection[Phase] = (Phase.READY, Phase.MAIL)) -> T:
        """Take a dialogue through to its result.

        Args:
            home: the phases in which the connection may be left; in any other it is dropped.
        """
        try:
            step = next(dialogue)
            while True:
                try:
                    replies = await self._perform(step)
                except BaseException as error:
                    step = dialogue.throw(error)
                else:
                    step = dialogue.send(replies)
        except StopIteration as done:
            result: T = done.value
            return result
        finally:
            dialogue.close()
            self._leave(home)

    def _leave(self, home: Collection[Phase]) -> None:
        session = self.session
        if session.phase is Phase.CLOSING and session.owing is None:
            self.protocol.close()
        elif not session.in_step or session.phase not in home:
            self.protocol.abort()

    async def _perform(self, step: Step) -> list[Reply]:
        if step.handshake:
            await self._handshake(step)
        elif step.ask is not None:
            answer = step.ask() if step.challenge is None else step.ask(step.challenge)
            step.answer = await answer if inspect.isawaitable(answer) else answer
        elif step.during is Phase.CLOSING:
            self.protocol.abort()
        else:
            return await self._exchange(step)
        return []

    async def _exchange(self, step: Step) -> list[Reply]:
        """Write what a step has to write and wait for what it earns."""
        waiter = self.protocol.send(step)
        if waiter is None:
            return []
        try:
            if step.content is not None:
                await self._write_content(step, waiter)
                if not step.ended:
                    return step.received
            self.protocol.watch(
                self.timeouts.reply if step.content is None else self.timeouts.final, step.verb
            )
            return await waiter
        except (SMTPServerDisconnected, SMTPProtocolError):
            if step.ended or not step.received:
                raise
            return step.received  # refused in the middle of the content, and hung up on
        except asyncio.CancelledError:
            if not (step.ended and step.complete):
                raise
            # The verdict is in, and must not be lost for a cancellation, or the message is sent twice.
            cancel_later(self.loop)
            return step.received
        finally:
            self.protocol.unwatch()

    async def _write_content(self, step: Step, waiter: Replies) -> None:
        """Content in slices, then its end, unless the server answers before that."""
        content, protocol = step.content, self.protocol
        if isinstance(content, InMemory) and content.size <= SLICE:
            self._write_end(step, content.stuffed())
            return
        assert content is not None
        async with contextlib.aclosing(wire_slices(content, seven_bit=step.seven_bit)) as slices:
            held = b""
            async for piece in slices:
                if held:
                    protocol.check()
                    self.session.sent_content(held)
                    protocol.write(held)
                    protocol.watch(self.timeouts.write, "content")
                    await protocol.drain(waiter)
                    protocol.unwatch()  # what the caller's iterator takes is the caller's time
                if step.received:
                    protocol.abort()  # answered before the end: there is no way on from here
                    return
                held = piece
        self._write_end(step, held)

    def _write_end(self, step: Step, last: bytes) -> None:
        self.protocol.check()
        if step.received:
            self.protocol.abort()
            return
        self.session.sent_content(last + END_OF_CONTENT)  # first: a trace may forbid it
        step.end_left()
        self.protocol.write(last + END_OF_CONTENT)

    # -- TLS ---------------------------------------------------------------------------

    async def _handshake(self, step: Step) -> None:
        protocol, security = self.protocol, self.security
        if security is None or protocol.transport is None:
            raise AssertionError("a handshake without settings")
        try:
            context, name = await security.made()
        except BaseException:
            protocol.abort()  # the server waits for a handshake now
            raise
        protocol.check()  # it may have said something in the meantime, or gone away
        protocol.session.send(step)  # not behind the least octet that came after the 220
        try:
            async with asyncio.timeout(self.timeouts.connect):
                transport = await self.loop.start_tls(
                    protocol.transport,
                    protocol,
                    context,
                    server_hostname=name,
                    ssl_handshake_timeout=_handshake_timeout(self.timeouts.connect),
                )
        except (OSError, ssl.CertificateError) as error:
            failure = _handshake_error(error, protocol.session.peer, security)
            protocol.abort_handshake(failure)
            raise failure from error
        except BaseException:
            protocol.abort_handshake()
            raise
        if transport is None:
            protocol.check()
            raise AssertionError("no transport after the handshake")
        protocol.upgrade(transport)

    # -- raw access, for the blocking classes --------------------------------------------

    def write_raw(self, octets: bytes) -> None:
        """Write octets as they are; replies to them are kept for `read_reply`."""
        self.protocol.check()
        self.recipients = None
        self.session.expect_anything()
        self.session.sent_raw(octets)
        self.protocol.write(octets)

    async def read_reply(self) -> Reply:
        """The oldest reply that nobody claimed, or the next one that comes."""
        session = self.session
        outside = Phase.MAIL if session.phase is Phase.MAIL else Phase.READY
        if session.unclaimed:
            reply = session.unclaimed.popleft()
        else:
            reply = await self.run(claim(outside), home=tuple(Phase))
        if session.phase in (Phase.READY, Phase.MAIL, Phase.CONTENT):
            session.phase = Phase.CONTENT if reply.intermediate else outside
        return reply

    def leave_raw(self) -> None:
        """From now on whoever writes waits for his own reply.

        Raises:
            RuntimeError: replies to raw octets are still unread, and would be taken for others.
        """
        if self.session.unclaimed or self.session.unanswered:
            raise RuntimeError("replies to raw octets are unread: call getreply() first")
        self.session.unclaimed = None

    # -- the end -----------------------------------------------------------------------

    def drop(self) -> None:
        """Close at once. What was not yet written is lost."""
        self.protocol.abort()

    async def finish(self) -> None:
        """Close properly and wait until the socket is gone."""
        self.protocol.close()
        try:
            async with asyncio.timeout(LINGER):
                await asyncio.shield(self.protocol.closed)
        except TimeoutError:
            self.protocol.abort()
        except BaseException:
            self.protocol.abort()
            raise

    @property
    def alive(self) -> bool:
        """True if a command written now may be answered, as far as this side knows."""
        transport, session = self.protocol.transport, self.session
        leaving = session.failure is not None or session.phase in (Phase.CLOSING, Phase.CLOSED)
        return transport is not None and not transport.is_closing() and not leaving


# -- dialling ------------------------------------------------------------------------------


def _factory(session: Session, loop: asyncio.AbstractEventLoop) -> Callable[[], SMTPProtocol]:
    return lambda: SMTPProtocol(session, loop)


async def _dial(
    loop: asyncio.AbstractEventLoop,
    factory: Callable[[], SMTPProtocol],
    endpoint: Endpoint,
    security: TLSSettings | None,
    seconds: float | None,
) -> SMTPProtocol:
    context, name = await security.made() if security is not None else (None, None)
    patience = _handshake_timeout(seconds) if security is not None else None
    if endpoint.sock is not None:
        if endpoint.sock.fileno() < 0:
            raise OSError(errno.EBADF, "it was closed: a socket that is given can be used once")
        endpoint.sock.setblocking(False)
        _, protocol = await loop.create_connection(
            factory, sock=endpoint.sock, ssl=context, server_hostname=name, ssl_handshake_timeout=patience
        )
    elif endpoint.unix:
        _, protocol = await loop.create_unix_connection(
            factory, endpoint.host, ssl=context, server_hostname=name, ssl_handshake_timeout=patience
        )
    else:
        _, protocol = await loop.create_connection(
            factory,
            endpoint.host,
            endpoint.port,
            ssl=context,
            server_hostname=name,
            ssl_handshake_timeout=patience,
            local_addr=_local_address(endpoint.source_address),
        )
    return protocol


def _local_address(source: tuple[str, int] | None) -> tuple[str, int] | None:
    """None for smtplib's way of saying "any": an empty host and port 0."""
    if source is None or source == ("", 0):
        return None
    return (source[0] or "0.0.0.0", source[1])


def _handshake_timeout(seconds: float | None) -> float:
    """Past our own deadline, so that ours is the one that fires; asyncio wants some number."""
    return 86400.0 if seconds is None else seconds + 1.0


def _connect_error(error: Exception, endpoint: Endpoint, security: TLSSettings | None) -> SMTPException:
    if isinstance(error, TimeoutError):
        text = f"no connection to {endpoint.name} in time; the `timeout` argument sets how long to wait"
        return SMTPTimeoutError(text, phase="connect")
    if security is not None and isinstance(error, ssl.SSLError | ssl.CertificateError | ConnectionResetError):
        return tls.failure(error, endpoint.name)
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if isinstance(error, ConnectionRefusedError):
        reason = "connection refused; is a server running there?"
    kind = SMTPConnectionRefusedError if isinstance(error, ConnectionRefusedError) else SMTPConnectError
    failure = kind(-1, f"no connection to {endpoint.name}: {reason}".encode("utf-8", "backslashreplace"))
    failure.errno = getattr(error, "errno", None)
    return failure


def _handshake_error(error: Exception, peer: str, security: TLSSettings) -> SMTPException:
    if isinstance(error, TimeoutError):
        return SMTPTimeoutError(f"no TLS handshake with {peer} in time", phase="TLS handshake")
    return tls.failure(error, security.server_hostname)


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
