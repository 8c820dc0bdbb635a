"""Dialling: from where a server is said to be to a transport, in clear or inside TLS.

TCP, a Unix socket, a socket that somebody made, or one that a dialer makes each time. What a
greeting is, is not known here.

Rules of this room:

* No bare `OSError` or `ssl.SSLError` leaves it: each becomes the error of our tree that says
  what to do.
* Nothing blocks the loop: a context that verifies is made in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ssl
from collections.abc import Awaitable, Callable
from socket import gaierror, socket
from typing import NamedTuple, TypeAlias, TypeVar

from . import tls
from .domains import a_labels
from .errors import (
    SMTPConnectError,
    SMTPConnectionRefusedError,
    SMTPException,
    SMTPTimeoutError,
    SMTPTLSError,
)
from .resumption import resuming
from .trust import Trust

P = TypeVar("P", bound=asyncio.BaseProtocol)


Dialer: TypeAlias = Callable[[str, int, float | None], Awaitable[socket]]
"""Makes each connection: host, port and seconds (or None for any time) → a connected socket."""


class Endpoint(NamedTuple):
    """Where a server is.

    Attributes:
        host: a name, an address, or a path that starts with "/" (a Unix socket).
        port: TCP port.
        source_address: local host and port to bind, or None.
        sock: a connected socket to use in place of all that.
        dialer: who makes the socket, if somebody else does.
    """

    host: str
    port: int
    source_address: tuple[str, int] | None = None
    sock: socket | None = None
    dialer: Dialer | None = None

    @property
    def known_as(self) -> str:
        """What the server is remembered by; empty if that cannot be told. The way to it counts."""
        if self.sock is not None:
            return ""
        return self.name if self.dialer is None else f"{self.name} by {id(self.dialer):x}"

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
        if self.dialer is not None:
            return False  # "localhost" is then whatever that means at the other end
        if self.sock is None or (self.host and not tls.is_local(self.host)):
            return tls.is_local(self.host)  # a socket to a proxy here does not make its target local
        with contextlib.suppress(OSError):
            # By name: Windows has no socket.AF_UNIX to compare with.
            family = getattr(self.sock.family, "name", "")
            return family == "AF_UNIX" or tls.is_local_peer(self.sock.getpeername())
        return False


class TLSSettings(NamedTuple):
    """What a handshake needs.

    Attributes:
        context: None for one that verifies; it is made when it is needed, for that takes a while.
        server_hostname: the name that the certificate must have.
        trust: which certificates fit, and which one is ours, if that was said without a context.
    """

    context: ssl.SSLContext | None
    server_hostname: str
    trust: Trust | None = None

    async def made(self) -> tuple[ssl.SSLContext, str]:
        """Context and name as `ssl` wants them."""
        context = self.context
        if context is None and self.trust is not None:
            context = await asyncio.to_thread(self.trust.context)
        return context or await _shared_context(), tls.server_name(self.server_hostname)

    def mismatch(self, transport: asyncio.BaseTransport) -> SMTPTLSError | None:
        """The error to raise if the handshake was made with another certificate than a pinned one."""
        if self.trust is None:
            return None
        layer = transport.get_extra_info("ssl_object")
        return self.trust.mismatch(
            layer.getpeercert(True) if layer is not None else None, self.server_hostname
        )


_default_context: ssl.SSLContext | None = None


async def _shared_context() -> ssl.SSLContext:
    """One verifying context for everybody who brings none; nobody else can reach and change it.

    It is made in a thread: reading the system's authorities takes tens of milliseconds.
    """
    global _default_context
    if _default_context is None:
        _default_context = resuming(await asyncio.to_thread(tls.default_context))
    return _default_context


async def dial(
    factory: Callable[[], P], endpoint: Endpoint, security: TLSSettings | None, seconds: float | None
) -> P:
    """Connect; with `security`, TLS comes before everything else.

    Args:
        factory: makes the protocol.
        endpoint: where to.
        security: for TLS from the first octet.
        seconds: how long it may take.

    Raises:
        SMTPConnectError: no such host, nobody listens, unreachable.
        SMTPTimeoutError: it took too long.
        SMTPTLSError: the handshake or the certificate failed.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(seconds):
            return await _dial(loop, factory, endpoint, security, seconds)
    except SMTPException:
        raise
    except (OSError, ssl.CertificateError, UnicodeError) as error:
        raise _connect_error(error, endpoint, security) from error


async def _dial(
    loop: asyncio.AbstractEventLoop,
    factory: Callable[[], P],
    endpoint: Endpoint,
    security: TLSSettings | None,
    seconds: float | None,
) -> P:
    context, name = await security.made() if security is not None else (None, None)
    patience = handshake_timeout(seconds) if security is not None else None
    if endpoint.sock is not None:
        if endpoint.sock.fileno() < 0:
            raise OSError(errno.EBADF, "it was closed: a socket that is given can be used once")
        endpoint.sock.setblocking(False)
        _, protocol = await loop.create_connection(
            factory, sock=endpoint.sock, ssl=context, server_hostname=name, ssl_handshake_timeout=patience
        )
    elif endpoint.dialer is not None:
        sock = await _dialled(endpoint.dialer, endpoint, seconds)
        try:
            _, protocol = await loop.create_connection(
                factory, sock=sock, ssl=context, server_hostname=name, ssl_handshake_timeout=patience
            )
        except BaseException:
            sock.close()
            raise
    elif endpoint.unix:
        _, protocol = await loop.create_unix_connection(
            factory, endpoint.host, ssl=context, server_hostname=name, ssl_handshake_timeout=patience
        )
    else:
        _, protocol = await loop.create_connection(
            factory,
            endpoint.host if endpoint.host.isascii() else a_labels(endpoint.host),
            endpoint.port,
            ssl=context,
            server_hostname=name,
            ssl_handshake_timeout=patience,
            local_addr=_local_address(endpoint.source_address),
        )
    return protocol


async def _dialled(dialer: Dialer, endpoint: Endpoint, seconds: float | None) -> socket:
    host = endpoint.host if endpoint.host.isascii() else a_labels(endpoint.host)
    try:
        sock = await dialer(host, endpoint.port, seconds)
    except SMTPException:
        raise
    except OSError as error:
        raise _connect_error(error, endpoint, None) from error  # no fault of TLS, whatever it is
    if not isinstance(sock, socket):
        raise TypeError(f"a dialer returns a connected socket.socket, not {type(sock).__name__}")
    sock.setblocking(False)
    return sock


def _local_address(source: tuple[str, int] | None) -> tuple[str, int] | None:
    """None for smtplib's way of saying "any": an empty host and port 0."""
    if source is None or source == ("", 0):
        return None
    return (source[0] or "0.0.0.0", source[1])


def handshake_timeout(seconds: float | None) -> float:
    """Past our own deadline, so that ours is the one that fires; asyncio wants some number."""
    return 86400.0 if seconds is None else seconds + 1.0


def _connect_error(error: Exception, endpoint: Endpoint, security: TLSSettings | None) -> SMTPException:
    if isinstance(error, TimeoutError):
        text = f"no connection to {endpoint.name} in time; the `timeout` argument sets how long to wait"
        return SMTPTimeoutError(text, phase="connect")
    if security is not None and isinstance(error, ssl.SSLError | ssl.CertificateError | ConnectionResetError):
        return tls.failure(error, endpoint.name)
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if isinstance(error, gaierror):
        reason += "; is that its name?"
    if isinstance(error, ConnectionRefusedError):
        reason = "connection refused; is a server running there?"
    kind = SMTPConnectionRefusedError if isinstance(error, ConnectionRefusedError) else SMTPConnectError
    failure = kind(-1, reason.encode("utf-8", "backslashreplace"))
    failure.host = endpoint.name
    failure.errno = getattr(error, "errno", None)
    return failure


def handshake_error(error: Exception, peer: str, security: TLSSettings) -> SMTPException:
    if isinstance(error, TimeoutError):
        return SMTPTimeoutError(
            f"no TLS handshake with {peer} in time; the `timeout` argument sets how long to wait",
            phase="TLS handshake",
        )
    return tls.failure(error, security.server_hostname)
