"""The limit: replays octets made beforehand and only counts line ends, on the same loop.

What no client can beat without leaving the loop, and, in its fastest way, what the sink can
take. It checks nothing and knows nothing: it is a measuring stick, not a client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import cast

from .job import HELLO_NAME, IN_FLIGHT, Client, Job, Mail

_SLICE = 256 * 1024
# One for all connections: nothing stays in it from one read to the next.
_BUFFER = bytearray(_SLICE)
_VIEW = memoryview(_BUFFER)
Step = tuple[list[memoryview], int]
"""Octets to write, in slices, and how many replies to await then."""


class Counter(asyncio.BufferedProtocol):
    """Counts replies: the sink's are one line each, but for the one to EHLO."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport | None = None
        self._owed = 0
        self._waiter: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name

    def get_buffer(self, sizehint: int) -> memoryview:
        return _VIEW

    def buffer_updated(self, nbytes: int) -> None:
        self._owed -= _BUFFER.count(b"\n", 0, nbytes)
        if self._owed <= 0 and self._waiter is not None:
            self._waiter.set_result(None)
            self._waiter = None

    def pause_writing(self) -> None:
        self._room = self._loop.create_future()

    def resume_writing(self) -> None:
        if self._room is not None:
            self._room.set_result(None)
            self._room = None

    async def replay(self, step: Step) -> None:
        """Write, then wait for the replies."""
        assert self.transport is not None
        slices, replies = step
        self._owed += replies
        for octets in slices:
            self.transport.write(octets)
            if self._room is not None:
                await self._room
        await self.replies(0)

    async def replies(self, lines: int) -> None:
        """Wait for so many lines more."""
        self._owed += lines
        if self._owed > 0:
            self._waiter = self._loop.create_future()
            await self._waiter


class Limit(Client):
    """Replays mails in one of four ways: the first two in lock-step, the others not."""

    def __init__(self, job: Job) -> None:
        self._port = job.port
        self._plan = _PLANS.get(job.way, _message)
        self._line: Counter | None = None
        self._steps: list[Step] = []

    async def connect(self) -> None:
        loop = asyncio.get_running_loop()
        _, self._line = await loop.create_connection(Counter, "127.0.0.1", self._port)
        await self._line.replies(1)
        await self._line.replay(_step(f"EHLO {HELLO_NAME}\r\n".encode(), 7))

    def prepare(self, mails: Sequence[Mail]) -> None:
        self._steps = self._plan(mails)

    async def send(self, mails: Sequence[Mail]) -> None:
        assert self._line is not None
        for step in self._steps:
            await self._line.replay(step)

    async def quit(self) -> None:
        assert self._line is not None
        assert self._line.transport is not None
        await self._line.replay(_step(b"QUIT\r\n", 1))
        self._line.transport.close()


def _step(octets: bytes, replies: int) -> Step:
    view = memoryview(octets)
    return [view[start : start + _SLICE] for start in range(0, len(view), _SLICE)], replies


def _envelope(mail: Mail) -> bytes:
    recipients = "".join(f"RCPT TO:<{each}>\r\n" for each in mail.recipients)
    return f"MAIL FROM:<{mail.sender}> SIZE={len(mail.octets())}\r\n{recipients}".encode()


def _bdat(mail: Mail) -> bytes:
    content = mail.octets()
    return b"%bBDAT %d LAST\r\n%b" % (_envelope(mail), len(content), content)


def _message(mails: Sequence[Mail]) -> list[Step]:
    """MAIL RCPT DATA in one write, then the content: two round trips."""
    steps = []
    for mail in mails:
        steps.append(_step(_envelope(mail) + b"DATA\r\n", len(mail.recipients) + 2))
        steps.append(_step(mail.octets() + b".\r\n", 1))
    return steps


def _one_write(mails: Sequence[Mail]) -> list[Step]:
    """Everything in one write, with BDAT: one round trip."""
    return [_step(_bdat(mail), len(mail.recipients) + 2) for mail in mails]


def _stream_data(mails: Sequence[Mail]) -> list[Step]:
    """The next envelope right behind this content: one round trip."""
    steps, before, owed = [], b"", 0
    for mail in mails:
        steps.append(_step(before + _envelope(mail) + b"DATA\r\n", owed + len(mail.recipients) + 2))
        before, owed = mail.octets() + b".\r\n", 1
    return [*steps, _step(before, owed)]


def _stream_bdat(mails: Sequence[Mail]) -> list[Step]:
    """Many messages in one write."""
    steps = []
    for start in range(0, len(mails), IN_FLIGHT):
        flight = mails[start : start + IN_FLIGHT]
        replies = sum(len(mail.recipients) + 2 for mail in flight)
        steps.append(_step(b"".join(_bdat(mail) for mail in flight), replies))
    return steps


_PLANS: dict[str, Callable[[Sequence[Mail]], list[Step]]] = {
    "message": _message,
    "one-write": _one_write,
    "stream-data": _stream_data,
    "stream-bdat": _stream_bdat,
}


def make(job: Job) -> Client:
    """A client for this job."""
    return Limit(job)
