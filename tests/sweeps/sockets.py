"""The same server behind a real socket, on loopback, in clear or inside TLS.

Rules of this room:

* It has the face of `cable.Line`, so that a `post.Conversation` does not know the difference.
* What the kernel does is left to the kernel: who handed what to whom when is not known here, so
  accounts are judged by what the server took and said (`test_real`).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from typing import Any

from .behaviours import Act, right
from .cable import Fault
from .post import Conversation, Post


class SocketLine(asyncio.Protocol):
    """The server's end of one connection."""

    def __init__(self, server: SocketServer) -> None:
        self.server = server
        self.loop = asyncio.get_running_loop()
        self.fault: Fault | None = None
        self.state = "open"
        self.read = 0
        self.spoken = bytearray()
        self.ticking: asyncio.Handle | None = None
        self.end = self
        self.gone = False
        self.moved = self.loop.time()
        self.surplus_at: int | None = None
        self.transport: Any = None
        self.conversation: Conversation | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        server = self.server
        first = not server.post.connections
        self.fault = server.fault if first else None
        server.lines.append(self)
        self.conversation = Conversation(server.post, self, server.acts, server.place if first else -1)
        self.conversation.begin()

    def begin(self) -> None:
        """The connection stands."""
        if self.fault is not None and 0 in (self.fault.received, self.fault.sent):
            self.finish(self.fault.kind)

    def data_received(self, data: bytes) -> None:
        fault = self.fault
        if self.state not in ("open", "silent"):
            return
        if self.state == "open" and fault is not None and fault.received is not None:
            data = data[: max(fault.received - self.read, 0)]
        self.read += len(data)
        self.moved = self.loop.time()
        if data and self.conversation is not None:
            self.conversation.feed(data)
        due = fault is not None and fault.received is not None and self.read >= fault.received
        if due and fault is not None and self.state == "open":
            self.finish(fault.kind)

    def say(self, octets: bytes) -> None:
        """Send to the client."""
        if self.state != "open":
            return
        fault = self.fault
        if fault is not None and fault.sent is not None and len(self.spoken) + len(octets) >= fault.sent:
            octets = octets[: fault.sent - len(self.spoken)]
            self._write(octets)
            self.finish(fault.kind)
        else:
            self._write(octets)

    def _write(self, octets: bytes) -> None:
        self.spoken += octets
        self.moved = self.loop.time()
        if octets:
            self.transport.write(octets)

    def finish(self, kind: str) -> None:
        """End it."""
        if self.state in ("closed", "reset"):
            return
        if kind == "close" or (kind == "half-close" and not self.transport.can_write_eof()):
            self.state = "closed"
            self.transport.close()
        elif kind == "reset":
            self.state = "reset"
            sock = self.transport.get_extra_info("socket")
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
        elif kind == "half-close":
            self.state = "silent"
            self.transport.write_eof()
        else:
            self.state = "stopped"
            self.transport.pause_reading()

    def eof_received(self) -> None:
        """The client will say no more."""

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True


class SocketServer:
    """A post on a port of the loopback interface."""

    def __init__(
        self,
        post: Post,
        *,
        acts: tuple[Act, ...] = right,
        place: int = -1,
        fault: Fault | None = None,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.post, self.acts, self.place, self.fault = post, acts, place, fault
        self.lines: list[SocketLine] = []
        self._context = context
        self._server: asyncio.Server | None = None
        self.port = 0

    async def __aenter__(self) -> SocketServer:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: SocketLine(self), "127.0.0.1", 0, ssl=self._context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for line in self.lines:
            if not line.gone:
                line.transport.abort()
        for _ in range(5):
            await asyncio.sleep(0)
