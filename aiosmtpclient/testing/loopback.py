"""What both test servers share: a listener on the loopback interface that leaves nothing behind.

Rules of this room:

* ``async with`` listens on the running loop, without a thread; ``with`` starts a thread with
  a loop of its own and ends both.
* TLS is always brought up over a plain connection already known here, also where it is
  implicit, so that a handshake nobody finishes cannot survive the server.
* On the way out each conversation is cancelled, each connection aborted and its end awaited,
  and only then the listener's: from Python 3.12 on `Server.wait_closed` waits for connections.
* What goes wrong inside a conversation is kept in `failures` and raised on the way out.
"""

from __future__ import annotations

import abc
import asyncio
import concurrent.futures
import contextlib
import os
import ssl
import threading
from pathlib import Path
from types import TracebackType
from typing import Self, cast


async def read_line(reader: asyncio.StreamReader) -> bytes:
    """One line with its CRLF, of any length; a CR or LF alone does not end it."""
    pieces: list[bytes] = []
    while True:
        try:
            return b"".join([*pieces, await reader.readuntil(b"\r\n")])
        except asyncio.LimitOverrunError as overrun:
            pieces.append(await reader.readexactly(overrun.consumed))


def client_left(error: BaseException) -> bool:
    """True if the error only says that the client went away, or did not want our certificate."""
    return isinstance(error, (ConnectionError, ssl.SSLError, asyncio.IncompleteReadError))


async def bring_up_tls(
    connection: asyncio.BaseProtocol,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    context: ssl.SSLContext,
) -> None:
    """The server's side of a handshake, whose begin may have been read; failing ends the connection."""
    loop = asyncio.get_running_loop()
    transport = cast("asyncio.Transport", writer.transport)
    # uvloop reads a ClientHello before a new conversation has its first turn: it is taken back, and
    # given to the TLS layer right after that is connected, before anything that comes later.
    transport.pause_reading()
    # Nothing public says what a stream reader holds, or empties it.
    early = bytes(reader._buffer)  # type: ignore[attr-defined]  # see above
    reader._buffer.clear()  # type: ignore[attr-defined]  # likewise
    handshake = loop.create_task(writer.start_tls(context))
    if early:
        loop.call_soon(loop.call_soon, _feed, transport, early)
    try:
        await handshake
    except BaseException as error:
        transport.abort()
        # asyncio does not tell a protocol that its connection was lost in the middle of a handshake.
        connection.connection_lost(error if isinstance(error, OSError) else None)
        with contextlib.suppress(OSError):
            await writer.wait_closed()  # looked at: asyncio complains of an error that nobody saw
        raise


def _feed(transport: asyncio.Transport, octets: bytes) -> None:
    layer = cast("asyncio.BufferedProtocol", transport.get_protocol())
    layer.get_buffer(len(octets))[: len(octets)] = octets  # type: ignore[index]  # a writable buffer, typed object
    layer.buffer_updated(len(octets))


async def _turns() -> None:
    """Let the loop carry out what it has scheduled, and what that schedules."""
    for _ in range(3):
        await asyncio.sleep(0)


class LoopbackServer(abc.ABC):
    """A server on 127.0.0.1 and a port that the kernel picks, or on a Unix socket.

    Args:
        host: the loopback address to listen on.
        unix_path: listen on this Unix socket instead.
        implicit_tls: TLS from the first octet, with this context.

    Attributes:
        host: the address to connect to; with `unix_path`, that path, as the clients understand it.
        port: the port to connect to; 0 with `unix_path`.
        connections: how many connections have been accepted so far.
        failures: what went wrong in the conversations; raised when the server is left.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        unix_path: str | os.PathLike[str] | None = None,
        implicit_tls: ssl.SSLContext | None = None,
    ) -> None:
        self.implicit_tls = implicit_tls
        self.unix_path = None if unix_path is None else Path(unix_path)
        self.host = host if self.unix_path is None else str(self.unix_path)
        self.port = 0
        self.connections = 0
        self.failures: list[Exception] = []
        self._server: asyncio.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._open: dict[asyncio.BaseProtocol, asyncio.Transport] = {}
        self._all_lost = asyncio.Event()
        self._leave = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread: threading.Thread | None = None

    @abc.abstractmethod
    def make_connection(self) -> asyncio.Protocol:
        """A protocol for a new connection; it calls `opened` and `lost`."""

    def opened(self, connection: asyncio.BaseProtocol, transport: asyncio.BaseTransport) -> None:
        """A connection was accepted: it is closed with the server."""
        self.connections += 1
        # Transports of uvloop are asyncio's in all but name.
        self._open[connection] = cast("asyncio.Transport", transport)
        self._all_lost.clear()

    def lost(self, connection: asyncio.BaseProtocol) -> None:
        """A connection is gone."""
        # Whoever served it may have gone without closing: asyncio complains of an error that nobody saw.
        closed: asyncio.Future[None] | None = getattr(connection, "_closed", None)
        if closed is not None and closed.done() and not closed.cancelled():
            closed.exception()
        self._open.pop(connection, None)
        if not self._open:
            self._all_lost.set()

    def keep(self, task: asyncio.Task[None]) -> None:
        """Own the task of a conversation: it is cancelled with the server, its failure kept."""
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and isinstance(failure := task.exception(), Exception):
            self.failures.append(failure)

    async def _start(self) -> None:
        loop = self._loop = asyncio.get_running_loop()
        self._all_lost = asyncio.Event()
        self._all_lost.set()
        if self.unix_path is not None:
            self._server = await loop.create_unix_server(self.make_connection, self.unix_path)
        else:
            self._server = await loop.create_server(self.make_connection, self.host, 0)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        if self._server is None:
            raise AssertionError("stopped, but never started")
        # A connection that the loop is just accepting becomes known here in the next turn.
        await _turns()
        self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for transport in list(self._open.values()):
            transport.abort()
        await self._all_lost.wait()
        await self._server.wait_closed()
        await _turns()
        if self.unix_path is not None:
            self.unix_path.unlink(missing_ok=True)

    def _settle(self, error: BaseException | None) -> None:
        """Raise what the conversations suffered, or note it on the error that is already on its way."""
        failures, self.failures = self.failures, []
        if error is not None:
            for failure in failures:
                error.add_note(f"and in the server: {type(failure).__name__}: {failure}")
        elif len(failures) == 1:
            raise failures[0]
        elif failures:
            raise ExceptionGroup("several conversations failed in the server", failures)

    async def __aenter__(self) -> Self:
        await self._start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()
        self._settle(error)

    def __enter__(self) -> Self:
        started: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = threading.Thread(
            target=self._run, args=(started,), name="aiosmtpclient-testing", daemon=True
        )
        self._thread.start()
        try:
            started.result()
        except Exception:
            self._thread.join()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop is None or self._thread is None:
            raise AssertionError("left, but never entered")
        self._loop.call_soon_threadsafe(self._leave.set)
        self._thread.join()
        self._settle(error)

    def _run(self, started: concurrent.futures.Future[None]) -> None:
        try:
            asyncio.run(self._serve(started))
        except Exception as error:
            if started.done():
                self.failures.append(error)
            else:
                started.set_exception(error)

    async def _serve(self, started: concurrent.futures.Future[None]) -> None:
        self._leave = asyncio.Event()
        await self._start()
        started.set_result(None)
        await self._leave.wait()
        await self._stop()
