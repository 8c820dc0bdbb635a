"""A proxy for tests, on loopback: SOCKS5 (RFC 1928, RFC 1929) or HTTP CONNECT, with its misdeeds."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Self


class ProxyServer:
    """A proxy that says which servers it was asked for.

    Args:
        kind: "socks5" or "http".
        users: user → password; nobody else gets through.
        leads_to: where every connection goes in truth; left out, where it was asked to go.
        refuses: every connection, with the protocol's own words.
        glued: the answer and the server's first words leave in one segment (CONNECT only).
        silent: after the request nothing is said.

    Attributes:
        asked: (host, port) of each connection.
        open: connections under way.
    """

    def __init__(
        self,
        kind: str,
        *,
        users: dict[str, str] | None = None,
        leads_to: tuple[str, int] | None = None,
        refuses: bool = False,
        glued: bool = False,
        silent: bool = False,
    ) -> None:
        self.kind = kind
        self.users = users
        self.leads_to = leads_to
        self.refuses = refuses
        self.glued = glued
        self.silent = silent
        self.asked: list[tuple[str, int]] = []
        self.reached = asyncio.Event()
        self.gone = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def url(self, login: str = "") -> str:
        """Its URL, perhaps with user and password."""
        return f"{self.kind}://{login}127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await (self._socks5 if self.kind == "socks5" else self._http)(reader, writer)
        finally:
            self.gone.set()
            writer.transport.abort()

    async def _socks5(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, methods = await reader.readexactly(2)
        offered = await reader.readexactly(methods)
        method = 2 if self.users is not None else 0
        if method not in offered:
            writer.write(b"\x05\xff")
            return await writer.drain()
        writer.write(bytes([5, method]))
        if method == 2:
            words = []
            await reader.readexactly(1)
            for _ in range(2):
                words.append((await reader.readexactly((await reader.readexactly(1))[0])).decode())
            fits = (self.users or {}).get(words[0]) == words[1]
            writer.write(b"\x01\x00" if fits else b"\x01\x01")
            if not fits:
                return await writer.drain()
        kind = (await reader.readexactly(4))[3]
        if kind == 3:
            host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        else:
            octets = await reader.readexactly(4 if kind == 1 else 16)
            host = ".".join(map(str, octets)) if kind == 1 else "::1"
        port = int.from_bytes(await reader.readexactly(2), "big")
        bound = b"\x00\x01\x7f\x00\x00\x01\x00\x00"
        if await self._stopped_at(host, port, reader):
            return None
        if self.refuses:
            writer.write(b"\x05\x05" + bound)
            return await writer.drain()
        await self._lead(reader, writer, b"\x05\x00" + bound, host, port)

    async def _http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        place = head.split()[1]
        host, _, port = place.rpartition(":")
        if self.users is not None:
            logins = {
                base64.b64encode(f"{user}:{password}".encode()).decode()
                for user, password in self.users.items()
            }
            if not any(f"Proxy-Authorization: Basic {login}\r\n" in head for login in logins):
                writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
                return await writer.drain()
        if await self._stopped_at(host.strip("[]"), int(port), reader):
            return None
        if self.refuses:
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
            return await writer.drain()
        answer = b"HTTP/1.1 200 Connection established\r\nVia: 1.1 here\r\n\r\n"
        await self._lead(reader, writer, answer, host, int(port))

    async def _stopped_at(self, host: str, port: int, reader: asyncio.StreamReader) -> bool:
        self.asked.append((host, port))
        self.reached.set()
        if self.silent:
            await reader.read()
        return self.silent

    async def _lead(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        answer: bytes,
        host: str,
        port: int,
    ) -> None:
        theirs, to_them = await asyncio.open_connection(*(self.leads_to or (host, port)))
        try:
            if self.glued:
                answer += await theirs.readuntil(b"\r\n")
            writer.write(answer)
            await asyncio.gather(_copy(reader, to_them), _copy(theirs, writer))
        finally:
            to_them.transport.abort()


@contextlib.contextmanager
def in_a_thread(proxy: ProxyServer) -> Iterator[ProxyServer]:
    """The proxy in an event loop of its own, for code in other processes."""

    async def run(running: Future[None], stop: asyncio.Event) -> None:
        async with proxy:
            running.set_result(None)
            await stop.wait()

    loop, running = asyncio.new_event_loop(), Future[None]()
    stop = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=[run(running, stop)])
    thread.start()
    try:
        running.result(10)
        yield proxy
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while octets := await reader.read(65536):
        writer.write(octets)
        await writer.drain()
    with contextlib.suppress(OSError, RuntimeError):
        writer.write_eof()
