"""`SMTP`, `SMTP_SSL` and `LMTP` for code that blocks: `smtplib`'s methods over `AsyncSMTP`.

Names, arguments, defaults, results and exceptions are those of `smtplib`; what is added is
keyword-only. Certificates are verified, and a send gives an exact account; otherwise it does what
`smtplib` does: `connect` reads the greeting and no more, STARTTLS is used when it is called, and
`login` logs in, in clear if need be.

Rules of this room:

* One crossing to the event loop a call, and nothing clever on this side of it.
* What a caller gives to be iterated or called is not iterated or called on the event loop.
* Contexts are made on this side: reading the system's authorities takes a while.
"""

from __future__ import annotations

import asyncio
import inspect
import socket
import ssl
import sys
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import replace
from email.message import Message
from smtplib import LMTP_PORT, SMTP_SSL_PORT
from types import TracebackType
from typing import ClassVar, Literal, Self, TypeAlias, TypeVar, Unpack, cast

from . import commands, debug, plans, runner, tls
from .attributes import Attributes
from .classic import ClassicLMTP, ClassicSMTP, hang_up_all, in_thread
from .client import DEFAULT_TIMEOUTS
from .delivery import SendResult
from .errors import Delivery, SMTPConnectError, SMTPServerDisconnected
from .message import Body
from .origin import ProxyHeader, XClient, XForward
from .parameters import MailOptions
from .replies import Reply
from .runner import run_sync
from .timeouts import Timeouts
from .tls import StrPath
from .tokens import Token, sealed_token

T = TypeVar("T")

BlockingAuthObject: TypeAlias = Callable[..., "str | bytes | None"]
"""What `auth` calls, in a thread: without an argument at first, then with each challenge."""

runner.before_end(hang_up_all)

SourceAddress: TypeAlias = tuple[str, int]

_DEFAULT_TIMEOUT = cast(float, getattr(socket, "_GLOBAL_DEFAULT_TIMEOUT"))  # noqa: B009 - no stub names it
"""smtplib's way to say "as `socket.setdefaulttimeout` says"; where that says nothing, our own defaults."""


class SMTP(Attributes):
    """A blocking SMTP client, as `smtplib.SMTP`.

    With a `host` it connects at once. It may be shared by threads, which take turns.

    Args:
        host: a name, an address, `"host:port"`, or a path that starts with "/" (a Unix socket).
        port: TCP port; 0 for the one in `host`, else `default_port`.
        local_hostname: what to say EHLO with; this host's name if it has a domain, else its
            address as a literal. No DNS is asked.
        timeout: one number of seconds for each wait, `Timeouts`, or None to wait for ever. Left
            out: `socket.getdefaulttimeout()`, else the defaults of `Timeouts`.
        source_address: local host and port to connect from.
        pipelining: "message" writes MAIL, every RCPT and DATA at once where the server offers
            PIPELINING (RFC 2920), "off" waits for each reply.
        proxy_header: a `ProxyHeader`, written before everything else, TLS included, for a server
            that stands behind a proxy.

    Attributes:
        timeout: as given; it counts from the next `connect` on.
        source_address: as given, here or to `connect`.

    Raises:
        SMTPConnectError: no connection, or a greeting other than 220.
        SMTPTimeoutError: the server took too long.
    """

    _client_class: ClassVar[type[ClassicSMTP]] = ClassicSMTP
    _implicit: ClassVar[bool] = False

    def __init__(
        self,
        host: str = "",
        port: int = 0,
        local_hostname: str | None = None,
        timeout: Timeouts | float | None = _DEFAULT_TIMEOUT,
        source_address: SourceAddress | None = None,
        *,
        pipelining: Literal["off", "message"] = "message",
        proxy_header: ProxyHeader | None = None,
    ) -> None:
        self.timeout = timeout
        self.source_address = source_address
        self._watcher = debug.Watcher(self)
        client = self._client_class(
            implicit=self._implicit,
            local_hostname=local_hostname,
            pipelining=pipelining,
            trace=self._watcher,
            proxy_header=proxy_header,
        )
        super().__init__(client)
        if host:
            greeting = self.connect(host, port)
            if greeting.code != 220:
                self.close()
                raise SMTPConnectError(greeting.code, greeting.message, reply=greeting)

    # -- the crossing ------------------------------------------------------------------

    def _run(self, coroutine: Coroutine[object, object, T]) -> T:
        try:
            return run_sync(self._across(coroutine))
        except asyncio.CancelledError as cancelled:
            raise _stopped(cancelled) from cancelled
        finally:
            if inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:
                coroutine.close()  # it never got there, and would complain about that

    async def _across(self, coroutine: Coroutine[object, object, T]) -> T:
        self._tell()
        try:
            return await coroutine
        finally:
            self._learn()

    # -- connecting --------------------------------------------------------------------

    def connect(
        self, host: str = "localhost", port: int = 0, source_address: SourceAddress | None = None
    ) -> Reply:
        """Connect and read the greeting; returns it, whatever it is. An open connection is quit first.

        Args:
            host: as in the constructor.
            port: as in the constructor.
            source_address: local host and port to connect from, now and later.

        Raises:
            SMTPConnectError: no connection.
            SMTPTimeoutError: it took too long.
            SMTPTLSError: the handshake or the certificate failed.
            ValueError: a timeout of 0.
        """
        if source_address:
            self.source_address = source_address
        host, port = plans.split_port(host, port)
        port = port or self.default_port
        sys.audit("smtplib.connect", self, host, port)
        timeouts = self._timeouts()
        if self._implicit:
            debug.show(self.debuglevel, "connect:", (host, port))
        debug.show(self.debuglevel, "connect: to", (host, port), self.source_address)
        self._watcher.begin()
        self.command_encoding = "ascii"
        reply = self._run(self._client.greet(host, port, self.source_address, timeouts, self._tls_context()))
        debug.show(self.debuglevel, "connect:", repr(reply.message))
        return reply

    def _tls_context(self) -> ssl.SSLContext | None:
        return None

    def _timeouts(self) -> Timeouts:
        given = self.timeout
        if given is _DEFAULT_TIMEOUT:
            given = socket.getdefaulttimeout()
            if given is None:
                return DEFAULT_TIMEOUTS
        if given is not None and not given:
            raise ValueError("timeout=0 would never wait for a reply; None waits for ever")
        return Timeouts.of(given)

    def quit(self) -> Reply:
        """Say QUIT and close; returns the reply.

        Raises:
            SMTPServerDisconnected: not connected, or the server went before it answered.
        """
        return self._run(self._client.quit())

    def close(self) -> None:
        """Close the connection at once, without QUIT."""
        if self._client.is_connected:
            self._run(self._client.hang_up())
        else:
            self._learn()  # it is gone already, with the loop perhaps, or it is a parent process's

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Whatever the server makes of QUIT, what it accepted before stays accepted.
        if self._client.is_connected:
            self._run(self._client.__aexit__(kind, error, trace))
        else:
            self._learn()

    # -- octets of your own --------------------------------------------------------------

    def send(self, s: str | bytes) -> None:
        """Write octets as they are; the reply is read with `getreply`.

        Raises:
            SMTPServerDisconnected: not connected.
        """
        octets = s.encode(self.command_encoding) if isinstance(s, str) else bytes(s)
        self._run(self._client.write(octets))

    def putcmd(self, cmd: str, args: str = "") -> None:
        """Write one command; its reply is read with `getreply`.

        Raises:
            ValueError: a CR, LF or another control character in it.
        """
        line = commands.raw(cmd, args, utf8=self.command_encoding.lower() in ("utf-8", "utf8"))
        self._run(self._client.write(line))

    def getreply(self) -> Reply:
        """Read the oldest reply that nobody has read.

        Raises:
            SMTPServerDisconnected: the server went.
            SMTPProtocolError: what it sent is no reply.
        """
        return self._run(self._client.read())

    def docmd(self, cmd: str, args: str = "") -> Reply:
        """Send a command of your own; returns the reply, whatever it is."""
        return self._run(self._client.docmd(cmd, args))

    # -- hello, TLS, login -------------------------------------------------------------

    def helo(self, name: str = "") -> Reply:
        """Say HELO; returns the reply, whatever it is."""
        return self._run(self._client.helo(name))

    def ehlo(self, name: str = "") -> Reply:
        """Say EHLO (LHLO in LMTP) and remember what is offered; returns the reply, whatever it is."""
        return self._run(self._client.ehlo(name))

    def ehlo_or_helo_if_needed(self) -> None:
        """Say EHLO, or HELO if that is refused, unless that was done.

        Raises:
            SMTPHeloError: both were refused.
        """
        self._run(self._client.ehlo_or_helo_if_needed())

    def starttls(
        self,
        keyfile: StrPath | None = None,
        certfile: StrPath | None = None,
        context: ssl.SSLContext | None = None,
        *,
        server_hostname: str | None = None,
    ) -> Reply:
        """Bring up TLS (RFC 3207); returns the 220. What was known about the server is forgotten.

        Args:
            keyfile: as in Python 3.11, in place of a context; deprecated, as there.
            certfile: likewise.
            context: instead of one that verifies against the system's authorities.
            server_hostname: the name the certificate must have, if it is not the host connected to.

        Raises:
            SMTPNotSupportedError: not offered.
            SMTPResponseException: refused.
            SMTPTLSError: the handshake or the certificate failed; the connection is closed.
        """
        context = tls.context_of(keyfile, certfile, context)
        return self._run(self._client.starttls(context=context, server_hostname=server_hostname))

    def login(
        self,
        user: str,
        password: str,
        *,
        initial_response_ok: bool = True,
        mechanisms: Sequence[str] | None = None,
        authorization_id: str = "",
        token: Token | None = None,
    ) -> Reply:
        """Log in (RFC 4954), with the strongest mechanism that both sides have.

        Args:
            user: the user name.
            password: the password, in any characters: it travels as UTF-8.
            initial_response_ok: False to wait for a challenge first; some servers insist.
            mechanisms: the only ones to try, in this order; some are used only if they are named.
            authorization_id: whom to act as, if not `user`.
            token: an OAuth 2.0 access token in place of the password, or a function that gives one.

        Raises:
            SMTPNotSupportedError: no AUTH, or no mechanism in common.
            SMTPAuthenticationError: refused.
            ValueError: a NUL in one of them, an unknown mechanism, or one that needs a library
                which is not installed.
        """
        token = sealed_token(token)
        login = self._client.login(
            user,
            password,
            initial_response_ok=initial_response_ok,
            mechanisms=mechanisms,
            authorization_id=authorization_id,
            token=token,
        )
        password = ""  # what fails below must not show it
        return self._run(login)

    def auth(
        self, mechanism: str, authobject: BlockingAuthObject, *, initial_response_ok: bool = True
    ) -> Reply:
        """Log in with an authobject: called with a challenge, it returns the response.

        Args:
            mechanism: its name.
            authobject: called without an argument for the initial response (None: wait for a
                challenge), then with each challenge. It returns str or bytes, or None to give up.
            initial_response_ok: False to wait for a challenge first.

        Raises:
            SMTPAuthenticationError: refused.
        """
        return self._run(self._client.auth(mechanism, authobject, initial_response_ok=initial_response_ok))

    # -- single commands ---------------------------------------------------------------

    def help(self, args: str = "") -> bytes:
        """HELP: returns the text."""
        return self._run(self._client.help(args))

    def rset(self) -> Reply:
        """RSET: forget the envelope that was begun."""
        self.command_encoding = "ascii"
        return self._run(self._client.rset())

    def noop(self) -> Reply:
        """NOOP: is anybody there?"""
        return self._run(self._client.noop())

    def verify(self, address: str) -> Reply:
        """VRFY: is this an address? Most servers do not tell (252)."""
        return self._run(self._client.verify(address))

    vrfy = verify

    def expn(self, address: str) -> Reply:
        """EXPN: who is on this list? Most servers do not tell."""
        return self._run(self._client.expn(address))

    def etrn(self, node: str) -> Reply:
        """ETRN: send what waits for this node; as `AsyncSMTP.etrn`."""
        return self._run(self._client.etrn(node))

    def xclient(self, **attributes: Unpack[XClient]) -> Reply:
        """XCLIENT: be taken for another client; as `AsyncSMTP.xclient`."""
        return self._run(self._client.xclient(**attributes))

    def xforward(self, **attributes: Unpack[XForward]) -> Reply:
        """XFORWARD: tell whose mail comes next; as `AsyncSMTP.xforward`."""
        return self._run(self._client.xforward(**attributes))

    def mail(self, sender: str, options: Sequence[str] = ()) -> Reply:
        """MAIL: begin an envelope; returns the reply, whatever it is.

        Raises:
            SMTPNotSupportedError: SMTPUTF8 is needed or asked for, and not offered.
        """
        reply = self._run(self._client.mail(sender, options))
        if any(option.upper() == "SMTPUTF8" for option in options):
            self.command_encoding = "utf-8"
        return reply

    def rcpt(self, recip: str, options: Sequence[str] = ()) -> Reply:
        """RCPT: add a recipient; returns the reply, whatever it is."""
        return self._run(self._client.rcpt(recip, options))

    def data(self, msg: Body) -> Reply:
        """DATA and the content, after `mail` and `rcpt`; returns what was said to the content.

        Raises:
            SMTPDataError: DATA itself was refused.
        """
        return self._run(self._client.data(in_thread(msg)))

    # -- sending -----------------------------------------------------------------------

    def sendmail(
        self,
        from_addr: str,
        to_addrs: str | Iterable[str],
        msg: Body,
        mail_options: Iterable[str] = (),
        rcpt_options: Iterable[str] = (),
        *,
        all_or_nothing: bool = False,
        **options: Unpack[MailOptions],
    ) -> SendResult:
        """Send one message to the recipients that the server accepts.

        Arguments, result and errors are those of `AsyncSMTP.sendmail`. An iterable `msg` is
        iterated in a thread, where it may block.
        """
        to_addrs = to_addrs if isinstance(to_addrs, str) else tuple(to_addrs)
        result = self._run(
            self._client.sendmail(
                from_addr,
                to_addrs,
                in_thread(msg),
                mail_options,
                rcpt_options,
                all_or_nothing=all_or_nothing,
                **options,
            )
        )
        result.envelope = replace(result.envelope, content=msg)
        return result

    def send_message(
        self,
        msg: Message,
        from_addr: str | None = None,
        to_addrs: str | Iterable[str] | None = None,
        mail_options: Iterable[str] = (),
        rcpt_options: Iterable[str] = (),
        *,
        all_or_nothing: bool = False,
        **options: Unpack[MailOptions],
    ) -> SendResult:
        """Send a message object, with the envelope taken from its headers where none is given.

        Arguments, result and errors are those of `AsyncSMTP.send_message`.
        """
        if to_addrs is not None and not isinstance(to_addrs, str):
            to_addrs = tuple(to_addrs)
        return self._run(
            self._client.send_message(
                msg,
                from_addr,
                to_addrs,
                mail_options,
                rcpt_options,
                all_or_nothing=all_or_nothing,
                **options,
            )
        )


def _stopped(cancelled: asyncio.CancelledError) -> SMTPServerDisconnected:
    """What a caller hears whose loop was stopped under him: he knows nothing of tasks."""
    error = SMTPServerDisconnected("the event loop was stopped in the middle of this, or the program ends")
    error.delivery = getattr(cancelled, "delivery", Delivery.NOT_SENT)
    error.outcomes = getattr(cancelled, "outcomes", ())
    return error


class SMTP_SSL(SMTP):
    """A blocking SMTP client with TLS from the first octet, as `smtplib.SMTP_SSL`.

    Args:
        host: and everything not named here: as for `SMTP`.
        keyfile: as in Python 3.11, in place of a context; deprecated, as there.
        certfile: likewise.
        context: instead of one that verifies against the system's authorities.

    Attributes:
        context: the one in use.
    """

    default_port: int = SMTP_SSL_PORT
    _implicit: ClassVar[bool] = True

    def __init__(
        self,
        host: str = "",
        port: int = 0,
        local_hostname: str | None = None,
        keyfile: StrPath | None = None,
        certfile: StrPath | None = None,
        timeout: Timeouts | float | None = _DEFAULT_TIMEOUT,
        source_address: SourceAddress | None = None,
        context: ssl.SSLContext | None = None,
        *,
        pipelining: Literal["off", "message"] = "message",
        proxy_header: ProxyHeader | None = None,
    ) -> None:
        self.context = tls.context_of(keyfile, certfile, context)
        place = (host, port, local_hostname, timeout, source_address)
        super().__init__(*place, pipelining=pipelining, proxy_header=proxy_header)

    def _tls_context(self) -> ssl.SSLContext | None:
        return self.context


class LMTP(SMTP):
    """A blocking LMTP client (RFC 2033), as `smtplib.LMTP`; the order of the arguments differs from SMTP's.

    Args:
        host: and everything else: as for `SMTP`.
    """

    ehlo_msg: str = "lhlo"
    default_port: int = LMTP_PORT
    _client_class: ClassVar[type[ClassicSMTP]] = ClassicLMTP

    def __init__(
        self,
        host: str = "",
        port: int = LMTP_PORT,
        local_hostname: str | None = None,
        source_address: SourceAddress | None = None,
        timeout: Timeouts | float | None = _DEFAULT_TIMEOUT,
        *,
        pipelining: Literal["off", "message"] = "message",
        proxy_header: ProxyHeader | None = None,
    ) -> None:
        place = (host, port, local_hostname, timeout, source_address)
        super().__init__(*place, pipelining=pipelining, proxy_header=proxy_header)
