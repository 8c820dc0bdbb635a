"""`SMTP`, `SMTP_SSL` and `LMTP` for code that blocks: `smtplib`'s methods over `AsyncSMTP`.

Names, arguments, defaults, results and exceptions are those of `smtplib`; what is added is
keyword-only. Certificates are verified, and a send gives an exact account; otherwise it does what
`smtplib` does: `connect` reads the greeting and no more, STARTTLS is used when it is called, and
`login` logs in, in clear if need be. The single words are in `vocabulary`, the attributes in
`attributes`.

Rules of this room:

* What a caller gives to be iterated or called is not iterated or called on the event loop.
* Contexts are made on this side: reading the system's authorities takes a while.
"""

from __future__ import annotations

import socket
import ssl
import sys
from collections.abc import Iterable
from dataclasses import replace
from email.message import Message
from smtplib import LMTP_PORT, SMTP_SSL_PORT
from types import TracebackType
from typing import ClassVar, Literal, Self, TypeAlias, Unpack, cast

from . import debug, plans, runner, tls
from .classic import (
    BlockingDialer,
    BlockingOptions,
    ClassicLMTP,
    ClassicSMTP,
    hang_up_all,
    in_thread,
)
from .client import DEFAULT_TIMEOUTS, seal
from .delivery import SendResult
from .errors import SMTPConnectError
from .message import Body
from .origin import ProxyHeader
from .parameters import MailOptions
from .replies import Reply
from .secret import Secret
from .sending import Chunking
from .timeouts import Timeouts
from .tls import StrPath
from .trust import CertificateFiles, Fingerprints, Trust, context_by, trust_of
from .vocabulary import Vocabulary

runner.before_end(hang_up_all)

SourceAddress: TypeAlias = tuple[str, int]

_DEFAULT_TIMEOUT = cast(float, getattr(socket, "_GLOBAL_DEFAULT_TIMEOUT"))  # noqa: B009 - no stub names it
"""smtplib's way to say "as `socket.setdefaulttimeout` says"; where that says nothing, our own defaults."""


class SMTP(Vocabulary):
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
        chunking: as for `AsyncSMTP`, except that nothing is tried here: "auto" sends by BDAT only
            where an asynchronous client of this process has found it right.
        proxy_header: a `ProxyHeader`, written before everything else, TLS included, for a server
            that stands behind a proxy.
        proxy: the URL of a proxy, as for `AsyncSMTP`.
        dialer: makes each connection: a function that is called in a thread with host, port and
            seconds, and returns a connected `socket.socket`; a coroutine function will do too.

    Attributes:
        timeout: as given; it counts from the next `connect` on.
        source_address: as given, here or to `connect`.

    Raises:
        SMTPConnectError: no connection, or a greeting other than 220.
        SMTPTimeoutError: the server took too long.
    """

    _client_class: ClassVar[type[ClassicSMTP]] = ClassicSMTP
    _implicit: ClassVar[bool] = False
    _server_hostname: str | None = None
    _trust: Trust | None = None

    def __init__(
        self,
        host: str = "",
        port: int = 0,
        local_hostname: str | None = None,
        timeout: Timeouts | float | None = _DEFAULT_TIMEOUT,
        source_address: SourceAddress | None = None,
        *,
        pipelining: Literal["off", "message"] = "message",
        chunking: Chunking = "auto",
        proxy_header: ProxyHeader | None = None,
        proxy: str | Secret | None = None,
        dialer: BlockingDialer | None = None,
    ) -> None:
        proxy = seal(proxy)  # first: what fails below must not show it
        self.timeout = timeout
        self.source_address = source_address
        self._watcher = debug.Watcher(self)
        client = self._client_class(
            implicit=self._implicit,
            local_hostname=local_hostname,
            trace=self._watcher,
            server_hostname=self._server_hostname,
            trust=self._trust,
            pipelining=pipelining,
            chunking=chunking,
            proxy_header=proxy_header,
            proxy=proxy,
            dialer=dialer,
        )
        super().__init__(client)
        if host:
            greeting = self.connect(host, port)
            if greeting.code != 220:
                self.close()
                raise SMTPConnectError(greeting.code, greeting.message, reply=greeting)

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


class SMTP_SSL(SMTP):
    """A blocking SMTP client with TLS from the first octet, as `smtplib.SMTP_SSL`.

    Args:
        host: and everything not named here: as for `SMTP`.
        keyfile: as in Python 3.11, in place of a context; deprecated, as there.
        certfile: likewise.
        context: instead of one that verifies against the system's authorities.
        server_hostname: the name the certificate must have, if it is not `host`.
        tls_ca: in place of a context: trust these authorities, as for `AsyncSMTP`.
        tls_certificate: in place of a context: our own certificate, as for `AsyncSMTP`.
        tls_fingerprint: the only certificate that the server may have, as for `AsyncSMTP`.

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
        server_hostname: str | None = None,
        tls_ca: StrPath | bytes | None = None,
        tls_certificate: CertificateFiles | None = None,
        tls_fingerprint: Fingerprints | None = None,
        **options: Unpack[BlockingOptions],
    ) -> None:
        _sealed(options)
        given = tls.given_context(keyfile, certfile, context)
        self._server_hostname = server_hostname
        self._trust = trust_of(given, tls_ca, tls_certificate, tls_fingerprint)
        self.context = context_by(given, self._trust)
        super().__init__(host, port, local_hostname, timeout, source_address, **options)

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
        **options: Unpack[BlockingOptions],
    ) -> None:
        _sealed(options)
        super().__init__(host, port, local_hostname, timeout, source_address, **options)


def _sealed(options: BlockingOptions) -> None:
    """Seal the proxy's URL, also for whoever holds this very dict."""
    options["proxy"] = seal(options.get("proxy"))
