"""One connection: a transport, its protocol, what is known about the server.

`Connection.open` dials and `run` takes dialogues through it: one at a time, or, where the turn
is lent (`lease`), the next one from the moment on at which the one before has written its last
octet. How a dialogue is driven is in `driver`.

Rules of this room:

* A dialogue that is over leaves the connection at home (outside any transaction, nothing owed)
  or it is dropped. There is no third way; that is what keeps a cancelled send from spoiling the
  next one.
* A dialogue that has given back its turn owes nothing but the reading of its replies, and that
  is done by counting, whether anybody still waits for them or not.
* No bare `OSError` or `ssl.SSLError` leaves this room, but the caller's own exceptions do.
* A connection belongs to the process that made it. In a child that was forked it is over, and nothing
  touches its socket or its loop, which the parent goes on using.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import ssl
import weakref
from collections.abc import Collection
from typing import TypeVar

from . import dialling
from .dialling import Endpoint, TLSSettings
from .dialogues import claim
from .driver import Drive
from .errors import SMTPException, SMTPServerDisconnected
from .protocol import SMTPProtocol
from .reading import protocol_for
from .replies import Reply
from .resumption import Resuming
from .session import Session, Trace
from .steps import Dialogue, Phase, Step
from .timeouts import Timeouts
from .turn import Lease

T = TypeVar("T")

LINGER = 1.0
"""Seconds a closing connection gets to finish, a TLS close_notify say, before it is dropped."""
_HOME = (Phase.READY, Phase.MAIL)

_serial = itertools.count(1)
_living: weakref.WeakValueDictionary[int, Connection] = weakref.WeakValueDictionary()
_inherited: list[object] = []
"""What is a parent process's. Collected in a child it would be closed, through the parent's loop."""


class Connection:
    """A transport, its protocol, its session, and the driver.

    Attributes:
        serial: its number within this process.
        session: what it knows.
        timeouts: how long it waits.
        ehlo: what was said to EHLO or LHLO, if anything.
        helo: what was said to HELO, if anything.
        esmtp: the newest hello was EHLO or LHLO, so parameters may be sent.
        destination: what its server is remembered by; empty for a socket that was given.
        most_recipients: how many recipients its server took at a time, if it refused more; None so far.
        chunking: BDAT may be used towards this server, or not; None if nobody tried.
        inherited: it is a parent process's, and of no use here.
        recipients: those of an envelope that was opened by hand, with RCPT's reply 2yz; None if
            commands of the caller's own may have changed it.
    """

    def __init__(self, protocol: SMTPProtocol, security: TLSSettings | None) -> None:
        self.serial = next(_serial)
        self.protocol = protocol
        self.session = protocol.session
        self.loop = asyncio.get_running_loop()
        self.ehlo: Reply | None = None
        self.helo: Reply | None = None
        self.esmtp = False
        self.recipients: list[str] | None = []
        self.security = security
        self.destination = ""
        self.chunking: bool | None = None
        self.most_recipients: int | None = None
        self.inherited = False
        _living[self.serial] = self

    @classmethod
    async def open(
        cls,
        endpoint: Endpoint,
        timeouts: Timeouts,
        *,
        security: TLSSettings | None = None,
        implicit: bool = False,
        trace: Trace | None = None,
        header: bytes = b"",
    ) -> Connection:
        """Connect; with `implicit`, TLS comes before everything else but a `header` (PROXY protocol).

        Raises:
            SMTPConnectError: no such host, nobody listens, unreachable.
            SMTPTimeoutError: it took too long.
            SMTPTLSError: the handshake or the certificate failed.
        """
        session = Session(endpoint.name, trace)
        # Made before there is a socket, which would be lost if it could not be made.
        made = protocol_for(session, asyncio.get_running_loop(), timeouts)
        at_once = security if implicit and not header else None
        protocol = await dialling.dial(lambda: made, endpoint, at_once, timeouts.connect)
        try:
            connection = cls(protocol, security)
            if at_once is not None and protocol.transport is not None:
                connection._check_certificate(protocol.transport)
            if header:
                session.sent_line(header)
                protocol.write(header)
                if implicit:
                    await connection._secure()
        except BaseException:
            protocol.abort()
            raise
        session.encrypted = implicit
        connection.destination = endpoint.known_as
        return connection

    @property
    def timeouts(self) -> Timeouts:
        """How long it waits."""
        return self.protocol.timeouts

    @timeouts.setter
    def timeouts(self, timeouts: Timeouts) -> None:
        self.protocol.timeouts = timeouts

    # -- the driver --------------------------------------------------------------------

    async def run(
        self, dialogue: Dialogue[T], *, home: Collection[Phase] = _HOME, lease: Lease | None = None
    ) -> T:
        """Take a dialogue through to its result.

        Args:
            home: the phases in which the connection may be left; in any other it is dropped.
            lease: the turn, to be given back as soon as the last octet is written. Replies to
                dialogues before this one may still be owed.
        """
        drive = Drive(self.protocol, dialogue, lease, self._handshake)
        cut_off = False
        try:
            return await drive.run()
        except SMTPException as error:
            error.host = error.host or self.session.peer
            raise
        except asyncio.CancelledError:
            cut_off = True
            raise
        finally:
            dialogue.close()
            self._leave(home, drive.step, lease, cut_off)

    def _leave(self, home: Collection[Phase], step: Step | None, lease: Lease | None, cut_off: bool) -> None:
        session = self.session
        # Cancelled together with the replies: nobody has looked at them. The server may wait for a
        # response to its 334, or for a handshake, and would take the next command for that.
        unheard = cut_off and step is not None and bool(step.received)
        if session.reusable and Phase.READY in home and not unheard:
            return  # what mostly happens
        if session.phase is Phase.CLOSING and session.owing is None:
            self.protocol.leave()
        elif lease is not None and (not lease.held or session.owed_to_others(step)):
            return
        elif unheard or not session.in_step or session.phase not in home:
            self.protocol.abandon(step)

    # -- TLS ---------------------------------------------------------------------------

    async def _handshake(self, step: Step) -> None:
        await self._secure(step)

    async def _secure(self, step: Step | None = None) -> None:
        protocol, security = self.protocol, self.security
        if security is None or protocol.transport is None:
            raise AssertionError("a handshake without settings")
        try:
            context, name = await security.made()
        except BaseException:
            protocol.abort()  # the server waits for a handshake now
            raise
        protocol.check()  # it may have said something in the meantime, or gone away
        if step is not None:
            protocol.session.send(step)  # not behind the least octet that came after the 220
        try:
            async with asyncio.timeout(self.timeouts.connect):
                transport = await self.loop.start_tls(
                    protocol.transport,
                    protocol,
                    context,
                    server_hostname=name,
                    ssl_handshake_timeout=dialling.handshake_timeout(self.timeouts.connect),
                )
        except (OSError, ssl.CertificateError) as error:
            failure = dialling.handshake_error(error, protocol.session.peer, security)
            protocol.abort_handshake(failure)
            raise failure from error
        except BaseException:
            protocol.abort_handshake()
            raise
        if transport is None:
            protocol.check()
            raise AssertionError("no transport after the handshake")
        protocol.upgrade(transport)
        self._check_certificate(transport)

    def _check_certificate(self, transport: asyncio.Transport) -> None:
        """Raise, and drop the connection, if its certificate is none of those pinned."""
        failure = self.security.mismatch(transport) if self.security is not None else None
        if failure is not None:
            self.protocol.abort(failure)
            raise failure

    def keep_session(self) -> None:
        """Let the next connection to this server resume this one's TLS; the server has spoken since."""
        transport = self.protocol.transport
        layer = transport.get_extra_info("ssl_object") if transport is not None else None
        if isinstance(layer, Resuming):
            layer.keep()

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

    def let_go(self) -> None:
        """The same from any thread and any loop, without waiting."""
        with contextlib.suppress(RuntimeError):  # its loop is closed, and took the socket with it
            self.loop.call_soon_threadsafe(self.drop)

    def leave_to_parent(self) -> None:
        """After a fork, in the child: from now on it is one that was never there."""
        session = Session(self.session.peer)
        session.fail(
            SMTPServerDisconnected(
                f"the connection to {session.peer} was made before os.fork(), and is the parent process's: "
                "connect() makes one of its own"
            )
        )
        _inherited.append(self.protocol)
        self.protocol = protocol_for(session, self.loop, self.timeouts)
        self.protocol.closed.set_result(None)
        self.session = session
        self.inherited = True

    async def finish(self) -> None:
        """Close properly and wait until the socket is gone."""
        protocol = self.protocol
        protocol.close()
        if protocol.closed.done():
            return
        impatience = self.loop.call_later(LINGER, protocol.abort)
        try:
            await asyncio.shield(protocol.closed)
        except BaseException:
            protocol.abort()
            raise
        finally:
            impatience.cancel()

    @property
    def ready(self) -> bool:
        """True if a message may be sent here now: it is alive, and a hello was answered."""
        session, transport = self.session, self.protocol.transport
        return (
            session.phase in _HOME
            and (self.ehlo is not None or self.helo is not None)
            and session.unclaimed is None
            and session.failure is None
            and session.condemned is None
            and transport is not None
            and not transport.is_closing()
        )

    @property
    def free(self) -> bool:
        """True if a plain message may begin here now: it is ready, settled, and nobody looks on."""
        transport = self.protocol.transport
        return self.session.free and self.esmtp and transport is not None and not transport.is_closing()

    @property
    def alive(self) -> bool:
        """True if a command written now may be answered, as far as this side knows."""
        session, transport = self.session, self.protocol.transport
        return transport is not None and not transport.is_closing() and not session.closing


def living(loop: asyncio.AbstractEventLoop) -> list[Connection]:
    """The connections of this loop that somebody still holds."""
    return [connection for connection in _all() if connection.loop is loop]


def _all() -> list[Connection]:
    # By way of a list that is made at once: loops in other threads connect meanwhile.
    return [connection for one in _living.valuerefs() if (connection := one()) is not None]


def keep(something: object) -> None:
    """Never let go of what is a parent process's."""
    _inherited.append(something)


def _in_child() -> None:
    for connection in _all():
        connection.leave_to_parent()


with contextlib.suppress(AttributeError):  # Windows knows no fork
    os.register_at_fork(after_in_child=_in_child)
