"""The ways a message may take, and the kinds of content that may take them."""

from __future__ import annotations

import io
import re
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aiosmtpclient import AsyncLMTP, AsyncSMTP
from aiosmtpclient.chunking import VERDICTS
from aiosmtpclient.testing import MailServer
from aiosmtpclient.testing.transactions import MailConnection

MODES: dict[str, dict[str, Any]] = {
    "off": {"pipelining": "off", "chunking": "off"},
    "off, BDAT": {"pipelining": "off", "chunking": "eager"},
    "message": {"pipelining": "message", "chunking": "off"},
    "one write": {"pipelining": "message", "chunking": "eager"},
    "stream, DATA": {"pipelining": "stream", "chunking": "off"},
    "stream, BDAT": {"pipelining": "stream", "chunking": "eager"},
}
IN_A_STREAM = ("stream, DATA", "stream, BDAT")

each_mode = pytest.mark.parametrize("mode", MODES)
each_protocol = pytest.mark.parametrize("lmtp", [False, True], ids=["SMTP", "LMTP"])


def client(server: Any, mode: str, *, lmtp: bool = False, **options: Any) -> AsyncSMTP:
    """A client that sends in this mode."""
    kind = AsyncLMTP if lmtp else AsyncSMTP
    return kind(server.host, server.port, **MODES[mode], **options)


@pytest.fixture(autouse=True)
def nothing_is_known() -> Iterator[None]:
    """Whatever is remembered about a port is forgotten: the next server may get the same one."""
    VERDICTS.forget()
    yield
    VERDICTS.forget()


# -- content -------------------------------------------------------------------------------


def normalised(octets: bytes) -> bytes:
    """What has to arrive, found in another way than the client's: CRLF for each line end, the last too."""
    lines = re.sub(rb"\r\n|\r|\n", b"\r\n", octets)
    return lines if not lines or lines.endswith(b"\r\n") else lines + b"\r\n"


def pieces(octets: bytes) -> list[bytes]:
    """The octets in uneven pieces, cut between CR and LF too, some of them empty."""
    cut, start, length = [b""], 0, 1
    while start < len(octets):
        cut.append(octets[start : start + length])
        start, length = start + length, length * 3 % 70_001
    return [*cut, b""]


async def awaited(octets: bytes) -> AsyncIterator[bytes]:
    for piece in pieces(octets):
        yield piece


class Pipe(io.RawIOBase):
    """A file that can be read once."""

    def __init__(self, octets: bytes) -> None:
        self._file = io.BytesIO(octets)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._file.read(min(size, 10_000))


KINDS: dict[str, Callable[[bytes, Path], Any]] = {
    "bytes": lambda octets, _: octets,
    "bytearray": lambda octets, _: bytearray(octets),
    "memoryview": lambda octets, _: memoryview(octets),
    "path": lambda octets, path: _written(octets, path / "message"),
    "file": lambda octets, path: io.BytesIO(octets),
    "pipe": lambda octets, path: Pipe(octets),
    "iterable": lambda octets, _: pieces(octets),
    "iterator": lambda octets, _: iter(pieces(octets)),
    "asynchronous": lambda octets, _: awaited(octets),
}
OF_UNKNOWN_SIZE = ("pipe", "iterable", "iterator", "asynchronous")
IN_MEMORY = ("bytes", "bytearray", "memoryview")

each_kind = pytest.mark.parametrize("kind", KINDS)


def _written(octets: bytes, path: Path) -> Path:
    path.write_bytes(octets)
    return path


# -- a server that takes its leave ---------------------------------------------------------


class Leaving(MailServer):
    """A `MailServer` that says 421 instead of carrying out one command, and closes; once.

    Args:
        at: the command: its verb, and after a blank the how manieth of its kind it is.
    """

    def __init__(self, at: str, **options: Any) -> None:
        super().__init__(**options)
        verb, _, number = at.partition(" ")
        self.verb, self.number = verb, int(number or 1)

    def make_connection(self) -> MailConnection:
        return _LeavingConnection(self)


class _LeavingConnection(MailConnection):
    owner: Leaving

    async def _command(self, line: bytes) -> None:
        owner = self.owner
        if line.upper().startswith(owner.verb.encode()):
            owner.number -= 1
            if not owner.number:
                await self.push("421 4.3.2 going down")
                self._writer.write_eof()
                while await self._reader.read(65536):
                    pass  # a close with octets unread would be a RST, which takes the 421 with it
                self._writer.close()
                return
        await super()._command(line)
