"""`ClassicSMTP`: an `AsyncSMTP` with the manners of `smtplib`, for the blocking classes.

It connects and reads the greeting, no more; TLS and login come when they are called for. What
`smtplib`'s users read and write besides its methods is here too: octets of their own, replies to
them, the socket, the features they edit.

Rules of this room:

* Octets of the caller's own are written as they are. Until their reply is read nothing else is
  written, or the one would be taken for the other's.
* What blocks, an iterable that makes content, an authobject or a dialer, runs in a thread of its
  own: other clients live on this loop.
* Everything but `let_go` and reading attributes happens in the loop's thread.
"""

from __future__ import annotations

import asyncio
import inspect
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from email.message import Message
from smtplib import LMTP_PORT
from socket import AddressFamily, socket
from typing import ClassVar, Literal, TypeAlias, TypedDict, Unpack, cast

from . import opening
from .client import AsyncSMTP
from .connection import Connection, living
from .content import SourceKind, Stream
from .dialling import Dialer
from .extensions import Extensions
from .message import Body
from .origin import ProxyHeader
from .replies import Reply
from .sasl import Credentials
from .secret import Secret
from .sending import Chunking
from .session import Trace
from .steps import AuthObject, Dialogue, Step
from .timeouts import Timeouts
from .tls import TLSPolicy
from .trust import Trust

Address: TypeAlias = "tuple[str, int] | tuple[str, int, int, int] | str"
"""A socket's address: IPv4, IPv6, or the path of a Unix socket."""

BlockingDialer: TypeAlias = Callable[[str, int, float | None], socket | Awaitable[socket]]
"""Makes each connection, in a thread where it may block; or a coroutine function, as for `AsyncSMTP`."""


class SharedOptions(TypedDict, total=False):
    """The keyword-only options that mean for a blocking class what they mean for `AsyncSMTP`."""

    pipelining: Literal["off", "message"]
    chunking: Chunking
    proxy_header: ProxyHeader | None
    proxy: str | Secret | None


class BlockingOptions(SharedOptions, total=False):
    """The keyword-only options that the blocking classes have in common."""

    dialer: BlockingDialer | None


class SocketView:
    """What `sock` is: a look at the connection's socket, which belongs to the event loop.

    It answers what a socket, or inside TLS an `ssl.SSLSocket`, is asked about a connection.
    Nothing can be read from it or written to it.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def _extra(self, name: str) -> object:
        transport = self._connection.protocol.transport
        return transport.get_extra_info(name) if transport is not None else None

    def _tls(self) -> ssl.SSLObject | None:
        return cast("ssl.SSLObject | None", self._extra("ssl_object"))

    def _socket(self) -> socket:
        return cast(socket, self._extra("socket"))  # asyncio's stand-in, which answers the same

    def getpeername(self) -> Address:
        """The server's address."""
        return cast(Address, self._extra("peername"))

    def getsockname(self) -> Address:
        """Our own address."""
        return cast(Address, self._extra("sockname"))

    @property
    def family(self) -> AddressFamily:
        """AF_INET, AF_INET6 or AF_UNIX."""
        return AddressFamily(self._socket().family)

    def fileno(self) -> int:
        """The file descriptor."""
        return self._socket().fileno()

    def setsockopt(self, level: int, optname: int, value: int | bytes) -> None:
        """Set an option of the socket, such as SO_KEEPALIVE."""
        self._socket().setsockopt(level, optname, value)

    def gettimeout(self) -> float | None:
        """Seconds that a reply may take."""
        return self._connection.timeouts.reply

    def settimeout(self, value: float | None) -> None:
        """Set every time limit of this connection."""
        self._connection.timeouts = Timeouts.of(value)

    def version(self) -> str | None:
        """TLS's version, "TLSv1.3" say; None outside TLS."""
        tls = self._tls()
        return tls.version() if tls is not None else None

    def cipher(self) -> tuple[str, str, int] | None:
        """Name, protocol and secret bits of the cipher in use; None outside TLS."""
        tls = self._tls()
        return tls.cipher() if tls is not None else None

    def getpeercert(self, binary_form: bool = False) -> Mapping[str, object] | bytes | None:
        """The server's certificate, as `ssl.SSLSocket` gives it; None outside TLS."""
        tls = self._tls()
        return tls.getpeercert(binary_form) if tls is not None else None

    def __repr__(self) -> str:
        return f"<SocketView of {self._connection.session.peer}>"


class ClassicSMTP(AsyncSMTP):
    """An `AsyncSMTP` that does what it is told, and no more.

    Args:
        implicit: TLS from the first octet.
        local_hostname: what to say hello with.
        trace: as for `AsyncSMTP`.
        server_hostname: as for `AsyncSMTP`.
        trust: which certificates fit.
        dialer: makes each connection; it may block.
        options: as for `AsyncSMTP`.
    """

    def __init__(
        self,
        *,
        implicit: bool,
        local_hostname: str | None,
        trace: Trace,
        server_hostname: str | None = None,
        trust: Trust | None = None,
        dialer: BlockingDialer | None = None,
        **options: Unpack[SharedOptions],
    ) -> None:
        super().__init__(
            local_hostname=local_hostname,
            tls=TLSPolicy.IMPLICIT if implicit else TLSPolicy.NONE,
            allow_cleartext_auth=True,
            trace=trace,
            server_hostname=server_hostname,
            dialer=_dialling_in_thread(dialer) if dialer is not None else None,
            **options,
        )
        self._plan = self._plan._replace(trust=trust)

    # -- connecting --------------------------------------------------------------------

    async def greet(
        self,
        host: str,
        port: int,
        source_address: tuple[str, int] | None,
        timeouts: Timeouts,
        context: ssl.SSLContext | None,
    ) -> Reply:
        """Connect and read the greeting; returns it, whatever it is. An open connection is quit first."""
        async with self._my_turn():
            self._plan = self._plan._replace(timeouts=timeouts, tls_context=context)
            self._settings = self._plan.settings(host, port, source_address)
            if self._connection is not None:
                old, self._connection = self._connection, None
                await opening.farewell(old)
            connection = await opening.reach(self._settings)
            self._connection = connection
            return await connection.run(_first(connection.session.greeting))

    async def secure(
        self, context: ssl.SSLContext | None, server_hostname: str | None, trust: Trust | None
    ) -> Reply:
        """STARTTLS, with what was said about certificates in that very call."""
        self._settings = self._settings._replace(security=self._settings.security._replace(trust=trust))
        return await self.starttls(context=context, server_hostname=server_hostname)

    async def hang_up(self) -> None:
        """Close the connection at once, and wait until its socket is gone."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.drop()
            await connection.finish()

    def let_go(self) -> None:
        """The same from any thread, without waiting."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.let_go()

    def __del__(self) -> None:
        """Nothing: its owner warns, and lets go."""

    # -- octets of the caller's own ------------------------------------------------------

    async def write(self, octets: bytes) -> None:
        """Write these octets as they are."""
        async with self._my_turn():
            connection = self._connected()
            connection.write_raw(octets)
            try:
                await connection.protocol.drain()
            except BaseException:
                connection.drop()
                raise

    async def read(self) -> Reply:
        """The oldest reply that nobody has read."""
        async with self._my_turn():
            return await self._connected().read_reply()

    # -- what blocks -------------------------------------------------------------------

    async def auth(
        self, mechanism: str, authobject: AuthObject, *, initial_response_ok: bool = True
    ) -> Reply:
        """As in `AsyncSMTP`; the authobject is called in a thread, where it may block."""

        async def called(*challenge: bytes) -> str | bytes | None:
            # By way of a list: asyncio's debug mode shows what futures hold.
            answers: list[str | bytes | None] = []
            await asyncio.to_thread(
                lambda: answers.append(cast("str | bytes | None", authobject(*challenge)))
            )
            return answers.pop()

        return await super().auth(mechanism, called, initial_response_ok=initial_response_ok)

    # -- what the caller reads and changes -----------------------------------------------

    def view(self) -> SocketView | None:
        """A look at the socket, if there is one."""
        return SocketView(self._connection) if self._connection is not None and self.is_connected else None

    def offer(self, features: Mapping[str, str]) -> None:
        """Take these for what the server offers, until it is asked again."""
        if self._connection is not None:
            lines = [f"{keyword} {parameters}" for keyword, parameters in features.items()]
            self._connection.session.extensions = Extensions.parse("\n".join(["", *lines]).encode("latin-1"))

    def forget_hello(self) -> None:
        """Say hello again before the next message."""
        if self._connection is not None:
            opening.forget(self._connection)

    def set_local_hostname(self, name: str | None) -> None:
        """Say hello with this name from now on."""
        self._plan = self._plan._replace(local_hostname=name)
        self._settings = self._settings._replace(local_hostname=name)

    def set_credentials(self, user: str, password: Secret) -> None:
        """Let the authobjects answer with these."""
        self._credentials = Credentials(user, password)


class ClassicLMTP(ClassicSMTP):
    """The same for LMTP."""

    default_port: ClassVar[int] = LMTP_PORT
    _lmtp: ClassVar[bool] = True


def _first(greeting: Step) -> Dialogue[Reply]:
    """Read the greeting, whatever it is."""
    [reply] = yield greeting
    return reply


def _dialling_in_thread(dialer: BlockingDialer) -> Dialer:
    async def dialled(host: str, port: int, seconds: float | None) -> socket:
        loop = asyncio.get_running_loop()
        thread = loop.run_in_executor(None, dialer, host, port, seconds)
        try:
            made = await asyncio.shield(thread)
        except asyncio.CancelledError:
            thread.add_done_callback(_close_late)  # a thread cannot be stopped, and nobody waits for it
            raise
        return await made if inspect.isawaitable(made) else made

    return dialled


def _close_late(thread: asyncio.Future[socket | Awaitable[socket]]) -> None:
    if not thread.cancelled() and thread.exception() is None:
        made = thread.result()
        if isinstance(made, socket | Coroutine):
            made.close()


async def hang_up_all() -> None:
    """The event loop ends: drop every connection on it that somebody forgot."""
    for connection in living(asyncio.get_running_loop()):
        connection.drop()
        await connection.finish()


def in_thread(content: Body) -> Body:
    """Content that an iterable makes, made in threads; any other content as it is.

    Raises:
        TypeError: it cannot be content.
    """
    if isinstance(content, str | bytes | bytearray | memoryview | Message):
        return content
    iterable = Stream.of(content).kind is SourceKind.ITERABLE
    return _pieces(iter(cast("Iterable[bytes]", content))) if iterable else content


async def _pieces(iterator: Iterator[bytes]) -> AsyncIterator[bytes]:
    while (piece := await asyncio.to_thread(next, iterator, None)) is not None:
        yield piece
