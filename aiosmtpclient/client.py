"""The desk: `AsyncSMTP` and `AsyncLMTP`.

A client is the face of one connection at a time. Here it connects and parts; how it sends is in
`sending`, its other verbs are in `verbs`, how a connection is opened, secured and logged in is
in `opening`, how a dialogue is driven is in `connection`.

Rules of this room:

* A connection that was lost is made anew for the next message, unless it was brought up by
  hand: a new one would lack what was done to the old.
* A client that is thrown away unclosed warns, and its socket goes with it.
"""

from __future__ import annotations

import asyncio
import ssl
import warnings
from collections.abc import Sequence
from smtplib import LMTP_PORT, SMTP_PORT
from socket import socket
from types import TracebackType
from typing import Any, ClassVar, Self, TypedDict, TypeVar, Unpack, cast

from . import commands, dialogues, environment, opening, sasl, urls
from .connection import Connection
from .dialling import Dialer
from .errors import SMTPAuthenticationError, SMTPServerDisconnected
from .origin import ProxyHeader
from .plans import Plan
from .proxies import Proxy
from .replies import Reply
from .sasl import Credentials
from .secret import Secret
from .sending import Chunking, Pipelining, Sending
from .session import Trace
from .timeouts import Timeouts
from .tls import StrPath, TLSPolicy
from .tokens import Token, sealed_token
from .trust import CertificateFiles, Fingerprints, trust_of

DEFAULT_TIMEOUTS = Timeouts()


def seal(password: str | Secret | None) -> Secret | None:
    """The password in a wrapper that no traceback with locals shows."""
    return Secret(password) if isinstance(password, str) else password


def _credentials(
    username: str | None, password: Secret | None, token: bool, mechanisms: Sequence[str] | None
) -> Credentials | None:
    """Nobody to log in as, no login. No password is most likely a forgotten one, and would lock accounts."""
    enough = token or sasl.need_no_password(mechanisms)
    if not username and not enough:
        return None
    credentials = Credentials(username or "", password or Secret(""))
    if password is None and not enough:
        raise ValueError("a username needs a password, or a token")
    return credentials


def _dialer(proxy: Secret | None, dialer: Dialer | None) -> Dialer | None:
    if proxy is None:
        return dialer
    if dialer is not None:
        raise ValueError("proxy= or dialer=, not both: a dialer goes its own way")
    return Proxy(proxy)


class Options(TypedDict, total=False):
    """The keyword-only options of `AsyncSMTP`, for whoever passes them on."""

    tls: TLSPolicy | str | None
    tls_context: ssl.SSLContext | None
    tls_ca: StrPath | bytes | None
    tls_certificate: CertificateFiles | None
    tls_fingerprint: Fingerprints | None
    server_hostname: str | None
    username: str | None
    password: str | Secret | None
    token: Token | None
    mechanisms: Sequence[str] | None
    sock: socket | None
    pipelining: Pipelining
    chunking: Chunking
    allow_cleartext_auth: bool
    trace: Trace | None
    proxy_header: ProxyHeader | None
    proxy: str | Secret | None
    dialer: Dialer | None


class Besides(Options, total=False):
    """What may be given besides a URL: every option, and the arguments that are no host or port."""

    local_hostname: str | None
    timeout: Timeouts | float | None
    source_address: tuple[str, int] | None


AnyOptions = TypeVar("AnyOptions", bound=Options)


def sealed(options: AnyOptions) -> AnyOptions:
    """The same options with password and token sealed, also for whoever holds this very dict."""
    if "password" in options:
        options["password"] = seal(options["password"])
    if "token" in options:
        options["token"] = sealed_token(options["token"])
    if "proxy" in options:
        options["proxy"] = seal(options["proxy"])
    return options


class AsyncSMTP(Sending):
    """An SMTP client: `smtplib.SMTP`, awaitable, with an exact account of each delivery.

    `async with` connects (greeting, EHLO, TLS by policy, login if a user name is given) and
    quits; `connect()` and `quit()` do the same by hand. One client may be shared by many tasks:
    what they send takes turns. A connection that was lost since, to an idle limit of the server
    or to a cancelled send, is made anew by the next send.

    Args:
        host: a name, an address, `"host:port"`, or a path that starts with "/" (a Unix socket).
        port: TCP port; 0 for the one in `host`, else 25, or 465 with `tls="implicit"`.
        local_hostname: what to say EHLO with; this host's name if it has a domain, else its
            address as a literal. No DNS is asked.
        timeout: `Timeouts`, or one number of seconds for all of them, or None to wait for ever.
        source_address: local host and port to connect from.
        tls: a `TLSPolicy` or its name in lower case. Left out: port 465 "implicit", port 587
            "starttls", a local server "none", anything else "opportunistic".
        tls_context: instead of one that verifies against the system's authorities.
        tls_ca: trust these authorities in place of the system's: the path of a file or a directory
            (PEM), or the octets of such a file.
        tls_certificate: our own certificate, for servers that ask for one: the path of a file
            (PEM) with the key in it, or a pair of paths, certificate and key.
        tls_fingerprint: the SHA-256 of the only certificate that the server may have, in
            hexadecimal digits with or without colons, or several. Without `tls_ca` or
            `tls_context` nothing else is asked of it, neither issuer nor name nor dates. `tls`
            left out is then "starttls" where it would be less.
        server_hostname: the name the certificate must have, if it is not `host`.
        username: log in as this user; empty or None for no login.
        password: the password that goes with it.
        token: an OAuth 2.0 access token in place of a password, or a function that gives one, plain
            or asynchronous. It is asked at each login, and once more with `force_refresh=True`
            (if it takes that) where the server does not take what it gave.
        mechanisms: the only login mechanisms to use, in this order; left out, the strongest that
            fits. "EXTERNAL", "ANONYMOUS", "GSSAPI" and "NTLM" are used only if they are named.
        sock: a connected socket to use; `host` then only names the server.
        pipelining: "message" writes MAIL, every RCPT and DATA at once where the server offers
            PIPELINING (RFC 2920), "off" waits for each reply. "stream" does not even wait for
            the reply to a message before it begins the next, which many servers get wrong: ask
            for it only where you know the server.
        chunking: "auto" sends by BDAT (RFC 3030), in one write with the envelope, where the
            server offers it and has shown that it gets it right, which is tried when many
            messages are sent; "eager" trusts what it offers; "off" sends by DATA.
        allow_cleartext_auth: let credentials travel in clear. Normally they travel inside TLS,
            or with `tls="none"` to a local server.
        trace: called with ("send" | "content" | "reply", octets) for everything on the wire,
            secrets masked.
        proxy_header: a `ProxyHeader`, written before everything else, TLS included, for a server
            that stands behind a proxy.
        proxy: the URL of a proxy, `socks5://user:password@host:port`, `socks4://` or `http://`
            (CONNECT). Whether a server counts as local, and its certificate, never go by the proxy.
        dialer: makes each connection, those made anew included: a coroutine function that is
            called with host, port and seconds, and returns a connected `socket.socket`.

    Raises:
        ValueError: an argument makes no sense.
    """

    default_port: ClassVar[int] = SMTP_PORT

    def __init__(
        self,
        host: str = "",
        port: int = 0,
        local_hostname: str | None = None,
        timeout: Timeouts | float | None = DEFAULT_TIMEOUTS,
        source_address: tuple[str, int] | None = None,
        *,
        tls: TLSPolicy | str | None = None,
        tls_context: ssl.SSLContext | None = None,
        tls_ca: StrPath | bytes | None = None,
        tls_certificate: CertificateFiles | None = None,
        tls_fingerprint: Fingerprints | None = None,
        server_hostname: str | None = None,
        username: str | None = None,
        password: str | Secret | None = None,
        token: Token | None = None,
        mechanisms: Sequence[str] | None = None,
        sock: socket | None = None,
        pipelining: Pipelining = "message",
        chunking: Chunking = "auto",
        allow_cleartext_auth: bool = False,
        trace: Trace | None = None,
        proxy_header: ProxyHeader | None = None,
        proxy: str | Secret | None = None,
        dialer: Dialer | None = None,
    ) -> None:
        password, token, proxy = (
            seal(password),
            sealed_token(token),
            seal(proxy),
        )  # first: what fails below must not show them
        if pipelining not in ("off", "message", "stream"):
            raise ValueError(f'pipelining must be "off", "message" or "stream", not {pipelining!r}')
        if chunking not in ("off", "auto", "eager"):
            raise ValueError(f'chunking must be "off", "auto" or "eager", not {chunking!r}')
        if local_hostname is not None:
            commands.hello("EHLO", local_hostname)  # a bad name is found here, not at the first EHLO
        self.source_address = source_address
        self._plan = Plan(
            host=host,
            port=port,
            default_port=self.default_port,
            lmtp=self._lmtp,
            sock=sock,
            tls=tls,
            tls_context=tls_context,
            server_hostname=server_hostname,
            timeouts=Timeouts.of(timeout),
            local_hostname=local_hostname,
            credentials=_credentials(username, password, token is not None, mechanisms),
            allow_cleartext_auth=allow_cleartext_auth,
            trace=trace,
            token=token,
            mechanisms=tuple(sasl.spoken(mechanisms)) if mechanisms is not None else None,
            proxy_header=proxy_header,
            trust=trust_of(tls_context, tls_ca, tls_certificate, tls_fingerprint),
            dialer=_dialer(proxy, dialer),
        )
        self._entered = 0
        self._closings = 0
        self._place = ("", 0, source_address)
        super().__init__(self._plan.settings(*self._place), pipelining, chunking)

    # -- by configuration ----------------------------------------------------------------

    @classmethod
    def from_url(cls, url: str | Secret, **options: Unpack[Besides]) -> Self:
        """A client for the server of a URL, as `submission://user:password@host?timeout=10`.

        `docs/configuration.md` has the schemes and options. With a user, TLS is required unless
        the URL or `tls` says otherwise.

        Args:
            url: user and password in it are percent-encoded.
            options: as for the constructor; they come before those of the URL.

        Raises:
            ValueError: the URL is none, is for another protocol, or has an unknown option.
        """
        url = urls.sealed(url)  # first: what fails below must not show it
        sealed(options)
        target = urls.read(url)
        if target.lmtp is not cls._lmtp:
            right = "AsyncLMTP" if target.lmtp else "AsyncSMTP"
            raise ValueError(f"{target.scheme}:// is for {right}.from_url, not for {cls.__name__}")
        return cls(target.host, target.port, **cast(Any, target.with_options(options)))

    @classmethod
    def from_env(cls, name: str = "SMTP_URL", **options: Unpack[Besides]) -> Self:
        """A client for the server of the URL in an environment variable.

        If the URL has a user and no password, that is read from the file that
        `SMTP_PASSWORD_FILE` names, or from `SMTP_PASSWORD`; for another variable, `NEWS_URL`
        say, from `NEWS_PASSWORD_FILE` or `NEWS_PASSWORD`.

        Args:
            name: the variable.
            options: as for `from_url`.

        Raises:
            ValueError: as `from_url`; there is no such variable, or the file cannot be read.
        """
        sealed(options)
        url = environment.url_of(name)
        password = environment.password_for(name, url, options, pool=False)
        if password is not None:
            options["password"] = password
        return cls.from_url(url, **options)

    # -- connecting --------------------------------------------------------------------

    async def connect(
        self, host: str = "", port: int = 0, source_address: tuple[str, int] | None = None
    ) -> Reply:
        """Connect, say hello, bring up TLS by policy, log in; returns the greeting.

        An open connection is quit first. A closed client connects anew, so a client can be used
        again after `quit()` or a lost connection.

        Args:
            host: where to; left out, the constructor's host and port, or localhost.
            port: TCP port, as in the constructor.
            source_address: local host and port; left out, the constructor's.

        Raises:
            SMTPConnectError: no connection, or a greeting other than 220.
            SMTPHeloError: EHLO (or LHLO) was refused, and HELO too where that may be tried.
            SMTPTLSError: TLS could not be had as the policy asks.
            SMTPAuthenticationError: the login was refused.
            SMTPTimeoutError: the server took too long.
        """
        async with self._my_turn():
            self._settle(host, port, source_address)
            return await self._open()

    def _settle(self, host: str = "", port: int = 0, source_address: tuple[str, int] | None = None) -> None:
        """Make the settings for this place, if they are not those that were made last."""
        place = (host, port, source_address or self.source_address)
        if place != self._place:
            self._settings = self._plan.settings(*place)
            self._place = place

    async def _open(self) -> Reply:
        """Connect and make ready, by the settings; the caller holds the turn."""
        self._connected_by_settings = False
        if self._connection is not None:
            old, self._connection = self._connection, None
            await opening.farewell(old)
        closings = self._closings
        connection, greeting = await opening.connect(self._settings)
        if self._closings != closings:
            connection.drop()
            raise SMTPServerDisconnected(
                f"the client was closed while it connected to {self._settings.endpoint.name}"
            )
        self._connection, self._connected_by_settings = connection, True
        self._unreachable = False
        self._take_over(connection)
        return greeting

    async def _ready(self, trial: bool) -> Connection:
        if self._connection is not None and self._connection.session.condemned is not None:
            # What others wait for there comes first. They wait for this future too, so shield it.
            await asyncio.shield(self._connection.protocol.closed)
        if self._renewable and not self.is_connected:
            await self._open_again()
        connection = await self._greet_if_needed()
        if trial and self._renewable and self._untried(connection) and await self._failed_trial(connection):
            await self._open_again()
            connection = self._connected()
            if connection.chunking is None:
                connection.chunking = False  # no verdict, and not another connection for each message
        return self._connected()

    async def _open_again(self) -> None:
        """Make the connection anew. If that fails, a later send may try again.

        A server that restarts must not be the end of a client that serves a whole application.
        Credentials that were refused are another matter: accounts are locked over repetitions.
        """
        self._unreachable = True
        closings = self._closings
        try:
            await self._open()
        except SMTPAuthenticationError:
            raise
        except BaseException:
            self._connected_by_settings = self._closings == closings
            raise

    @property
    def _renewable(self) -> bool:
        """A lost connection may be made anew.

        Not if it was brought up by hand, with `starttls`, `login` or a socket that was given: a
        new one would lack what was done to the old.
        """
        return self._connected_by_settings and self._plan.sock is None

    async def __aenter__(self) -> Self:
        self._entered += 1
        try:
            async with self._my_turn():
                if not self.is_connected:
                    self._settle()
                    await self._open()
        except BaseException:
            self._entered -= 1
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered -= 1
        if self._entered > 0:  # entered by several tasks: the last one to leave quits
            return
        if kind is None:
            try:
                async with self._my_turn():  # what other tasks have under way comes to its end first
                    await self._part()
            except BaseException:
                self.close()  # cancelled while it waited for them
                raise
        elif issubclass(kind, Exception):
            await self._part()
        else:
            self.close()  # cancelled: nobody wants to wait for an answer

    async def _part(self) -> None:
        """QUIT and close. Whatever the server makes of it, what it accepted before stays accepted."""
        self._connected_by_settings = False
        self._closings += 1
        connection, self._connection = self._connection, None
        if connection is not None:
            await opening.farewell(connection)

    async def quit(self) -> Reply:
        """Say QUIT and close; returns the reply.

        Raises:
            SMTPServerDisconnected: not connected, or the server went before it answered.
        """
        async with self._my_turn():
            connection = self._connected()
            self._connected_by_settings = False
            try:
                reply = await self._converse(dialogues.quit_())
                await connection.finish()
                return reply
            finally:
                self._connection = None
                connection.drop()

    def close(self) -> None:
        """Close the connection at once, without QUIT; one that is being made is closed when it is there.

        From another thread than its event loop's, or where that is closed, it may be called too.
        """
        self._connected_by_settings = False
        self._closings += 1
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:  # no loop runs in this thread
            here = None
        if here is connection.loop:
            connection.drop()
        else:
            connection.let_go()

    def __del__(self) -> None:
        connection = self.__dict__.get("_connection")  # a constructor may fail before there is one
        if connection is None or not connection.alive:
            return
        warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
        connection.let_go()

    def __repr__(self) -> str:
        if "_settings" not in self.__dict__:  # the constructor failed, and somebody shows its locals
            return f"<{type(self).__name__} not connected>"
        state = "connected to" if self.is_connected else "not connected to"
        return f"<{type(self).__name__} {state} {self._settings.endpoint.name}>"


class AsyncLMTP(AsyncSMTP):
    """An LMTP client (RFC 2033): as `AsyncSMTP`, with one reply a recipient after the content.

    The order of the arguments is `smtplib.LMTP`'s. A host that starts with "/" is a Unix socket.
    """

    default_port: ClassVar[int] = LMTP_PORT
    _lmtp: ClassVar[bool] = True

    def __init__(
        self,
        host: str = "",
        port: int = 0,
        local_hostname: str | None = None,
        source_address: tuple[str, int] | None = None,
        timeout: Timeouts | float | None = DEFAULT_TIMEOUTS,
        **options: Unpack[Options],
    ) -> None:
        sealed(options)
        super().__init__(host, port, local_hostname, timeout, source_address, **options)
