"""`Conversation`: what a script can say, expect and do on one connection of the `ScriptedServer`.

There are no delays: `split` gives the loop a turn between octets, `stall` waits for an end.
That the client goes away while something is said to it is not an error: the next `expect` is.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
import struct
from collections.abc import Awaitable
from typing import TypeAlias

from aiosmtpclient.testing.loopback import bring_up_tls, read_line

Expected: TypeAlias = str | re.Pattern[str]
"""How a line begins, in any case of letters, or a pattern that is matched at its begin."""


class Conversation:
    """The server's side of one connection.

    Attributes:
        number: 0 for the server's first connection, and so on.
        received: every octet the client wrote so far, decrypted.
        gone: set when the client has closed, or its connection is lost.
        waiting_for: what is expected just now.
    """

    def __init__(
        self,
        connection: asyncio.BaseProtocol,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        number: int,
    ) -> None:
        self.number = number
        self._connection = connection
        self.received = bytearray()
        self.gone = asyncio.Event()
        self.waiting_for = ""
        self._reader = reader
        self._writer = writer

    async def say(self, data: bytes) -> None:
        """Write these octets at once."""
        self._writer.write(data)
        try:
            await self._writer.drain()
        except ConnectionError:
            self.gone.set()

    async def split(self, data: bytes) -> None:
        """Write these octets one by one, each in a segment of its own (on TCP)."""
        for position in range(len(data)):
            if position:
                # The client reads in between: its socket is ready before the loop looks again.
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            await self.say(data[position : position + 1])

    async def expect(self, expected: Expected) -> str:
        """Read one line, check how it begins, and return it without its CRLF.

        Args:
            expected: how the line begins, in any case of letters, or a pattern matched at its begin.

        Raises:
            AssertionError: it is another line, or none.
        """
        shown = expected if isinstance(expected, str) else expected.pattern
        octets = await self._from_client(read_line(self._reader), repr(shown))
        line = octets.decode("utf-8", "surrogateescape").removesuffix("\r\n")
        fits = line.lower().startswith(shown.lower()) if isinstance(expected, str) else expected.match(line)
        if not fits:
            raise AssertionError(f"expected {shown!r}, the client sent {line!r}")
        return line

    async def expect_content(self) -> bytes:
        """Read up to the lone dot; returns what came before it, as it was on the wire.

        Raises:
            AssertionError: the client left before the lone dot.
        """
        lines: list[bytes] = []
        while (line := await self._from_client(read_line(self._reader), "the lone dot")) != b".\r\n":
            lines.append(line)
        return b"".join(lines)

    async def read_exactly(self, octets: int) -> bytes:
        """Read that many octets.

        Raises:
            AssertionError: the client left before.
        """
        return await self._from_client(self._reader.readexactly(octets), f"{octets} octets")

    async def read_all(self) -> bytes:
        """Read until the client closes or goes away."""
        pieces: list[bytes] = []
        try:
            while piece := await self._reader.read(65536):
                pieces.append(piece)
        except OSError:
            pass
        return b"".join(pieces)

    async def expect_eof(self) -> None:
        """Wait until the client closes; it may not write anything before.

        Raises:
            AssertionError: it did write.
        """
        try:
            data = await self._waited(self._reader.read(65536), "the client to close")
        except OSError:
            return
        if data:
            raise AssertionError(f"expected the client to close, it sent {data!r}")

    async def stall(self) -> None:
        """Neither read nor write until the client goes away, or the server is left.

        What the kernel and one read-ahead buffer hold still fits; then the client's writes block.
        """
        await self.gone.wait()

    async def close(self) -> None:
        """Write what is left, then close properly: close_notify inside TLS, then FIN."""
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:
            self.gone.set()

    async def drop(self) -> None:
        """Close at once with a FIN; inside TLS without a close_notify, as after a cut."""
        self._writer.transport.abort()

    async def reset(self) -> None:
        """Close at once with a RST. A Unix socket knows no RST: there it is a close."""
        linger = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
        self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._writer.transport.abort()

    async def half_close(self) -> None:
        """Say nothing more (FIN), go on reading. TLS cannot do that."""
        self._writer.write_eof()

    async def starttls(self, context: ssl.SSLContext) -> None:
        """Do the server's side of a handshake; that STARTTLS is answered is for the script to say.

        Raises:
            ssl.SSLError: the client broke it off. Uncaught, it ends the script without a failure.
        """
        await bring_up_tls(self._connection, self._reader, self._writer, context)

    async def _from_client(self, reading: Awaitable[bytes], what: str) -> bytes:
        try:
            return await self._waited(reading, what)
        except (asyncio.IncompleteReadError, OSError) as error:
            partial = error.partial if isinstance(error, asyncio.IncompleteReadError) else b""
            raise AssertionError(f"expected {what}, the client closed after {partial!r}") from error

    async def _waited(self, reading: Awaitable[bytes], what: str) -> bytes:
        self.waiting_for = what
        try:
            return await reading
        finally:
            self.waiting_for = ""
