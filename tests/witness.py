"""A witness: what left and what was read, seen between the client and its transport.

Whoever says UNKNOWN says that the end of a message had left and that no reply to it was read. What
the server has cannot show that: a reply may have left it and never have come. So both directions are
read here once more, by other code: which contents were handed to the transport with their end, and how
many replies to contents were read since, on each connection in their order.

Rules of this room:

* It belongs to `ledger`: contents begin with a subject that is a number, they are small enough to
  leave in one write, and the replies to them are known.
* Two octets of memory a message would be too many: one is enough.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import deque
from collections.abc import Iterator
from typing import Any, cast

from aiosmtpclient.protocol import SMTPProtocol

LEFT, ANSWERED = 1, 2
_DATA = re.compile(rb"(?:^|(?<=\r\n))Subject: (\d+)\r\n.*?\r\n\.\r\n", re.DOTALL)
_BDAT = re.compile(rb"(?:^|(?<=\r\n))BDAT (\d+) LAST\r\n(?=Subject: (\d+)\r\n)")


class Witness:
    """Watches every connection that is opened while `watching`.

    Args:
        messages: numbers are below this.
        answers: the replies to a content, as the server writes them.
        bdat: contents leave in chunks, not behind DATA.
    """

    def __init__(self, messages: int, answers: tuple[bytes, ...], *, bdat: bool) -> None:
        self._seen = bytearray(messages)
        self._answer = re.compile(rb"^(?:%b)" % b"|".join(map(re.escape, answers)), re.MULTILINE)
        self._ends = self._ends_of_chunks if bdat else self._ends_of_data

    def confirms_unknown(self, number: int) -> bool:
        """True if its end had left, and no reply to it was read."""
        return self._seen[number] == LEFT

    def confirms_a_reply(self, number: int) -> bool:
        """True if a reply to its content was read."""
        return self._seen[number] == ANSWERED

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Sit between protocols and transports."""
        made, received = SMTPProtocol.connection_made, SMTPProtocol.data_received
        witness, name = self, "line_of_the_witness"

        def connection_made(protocol: SMTPProtocol, transport: asyncio.BaseTransport) -> None:
            line = _Line(witness, transport)
            setattr(protocol, name, line)
            made(protocol, cast(asyncio.Transport, line))

        def data_received(protocol: SMTPProtocol, data: bytes) -> None:
            getattr(protocol, name).read(data)  # before the client knows
            received(protocol, data)

        patched = cast(Any, SMTPProtocol)
        patched.connection_made, patched.data_received = connection_made, data_received
        try:
            yield
        finally:
            patched.connection_made, patched.data_received = made, received

    def _ends_of_data(self, octets: bytes) -> list[int]:
        return list(map(int, _DATA.findall(octets)))

    def _ends_of_chunks(self, octets: bytes) -> list[int]:
        whole = (found for found in _BDAT.finditer(octets) if found.end() + int(found[1]) <= len(octets))
        return [int(found[2]) for found in whole]


class _Line:
    """A transport with somebody on the line."""

    def __init__(self, witness: Witness, transport: asyncio.BaseTransport) -> None:
        self._witness = witness
        self._transport = cast(asyncio.Transport, transport)
        self._owed: deque[int] = deque()
        self._rest = b""

    def write(self, octets: bytes) -> None:
        for number in self._witness._ends(bytes(octets)):
            self._owed.append(number)
            self._witness._seen[number] = LEFT
        self._transport.write(octets)

    def read(self, data: bytes) -> None:
        octets = self._rest + data
        end = octets.rfind(b"\n") + 1
        self._rest = octets[end:]
        for _ in range(min(len(self._owed), len(self._witness._answer.findall(octets, 0, end)))):
            self._witness._seen[self._owed.popleft()] = ANSWERED

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
