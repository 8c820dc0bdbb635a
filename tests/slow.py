"""Servers that take all mail, but read it, or answer it, in their own time; without a clock."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiosmtpclient.testing import Conversation

QUIET = 30
"""Turns of the loop in which nothing comes, after which a client is taken to have stopped."""


class Taker:
    """Octets in, replies out: everything is taken.

    Args:
        reply: what is said each time.
        lmtp: one reply a recipient behind the content.
    """

    def __init__(self, reply: bytes = b"250 ok\r\n", *, lmtp: bool = False) -> None:
        self._reply, self._lmtp = reply, lmtp
        self._buffer = bytearray()
        self._chunk = 0
        self._content = self._last = False
        self._open = 0
        self.recipients = self.messages = 0
        self.over = False

    def feed(self, octets: bytes) -> bytes:
        """Take these octets; return what they earn."""
        self._buffer += octets
        replies: list[bytes] = []
        while (reply := self._next()) is not None:
            replies.append(reply)
        return b"".join(replies)

    def _next(self) -> bytes | None:
        if self._chunk or self._last:
            return self._in_chunk()
        if self._content:
            if self._buffer.startswith(b".\r\n"):
                self._content = False
                del self._buffer[:3]
                return self._taken()
            end = self._buffer.find(b"\r\n.\r\n")
            if end >= 0:
                del self._buffer[: end + 2]
                return self._next()
            del self._buffer[:-4]
            return None
        end = self._buffer.find(b"\r\n")
        if end < 0:
            return None
        line = bytes(self._buffer[:end]).upper()
        del self._buffer[: end + 2]
        return self._answer(line)

    def _in_chunk(self) -> bytes | None:
        some = min(self._chunk, len(self._buffer))
        del self._buffer[:some]
        self._chunk -= some
        if self._chunk:
            return None
        if not self._last:
            return self._reply
        self._last = False
        return self._taken()

    def _answer(self, line: bytes) -> bytes | None:
        verb, *words = line.split()
        if verb in (b"EHLO", b"LHLO"):
            return b"250-slow\r\n250-PIPELINING\r\n250 CHUNKING\r\n"
        if verb == b"DATA":
            self._content = True
            return b"354 go\r\n"
        if verb == b"BDAT":
            self._chunk, self._last = int(words[0]), words[-1] == b"LAST"
            return self._next() if self._chunk == 0 else self._in_chunk() or b""
        self._open = {b"MAIL": 0, b"RCPT": self._open + 1}.get(verb, self._open)
        self.recipients += verb == b"RCPT"
        self.over = verb == b"QUIT"
        return self._reply

    def _taken(self) -> bytes:
        self.messages += 1
        return self._reply * (self._open if self._lmtp else 1)


Script = Callable[[Conversation], Awaitable[None]]


def late(taker: Taker) -> Script:
    """Read nothing, and so answer nothing, before the client has stopped writing."""

    async def script(conversation: Conversation) -> None:
        read = 0
        await conversation.say(b"220 late\r\n")
        while not taker.over:
            idle, before = 0, -1
            while idle < QUIET and not conversation.gone.is_set():
                await asyncio.sleep(0)
                now = len(conversation.received)
                idle, before = (idle + 1 if now == before and now > read else 0), now
            octets = await conversation.read_exactly(len(conversation.received) - read)
            read += len(octets)
            await conversation.say(taker.feed(octets))

    return script


def slow(taker: Taker, octets: int) -> Script:
    """Read at most so many octets in a turn of the loop, and answer at once what they hold."""

    async def script(conversation: Conversation) -> None:
        read = 0
        await conversation.say(b"220 slow\r\n")
        while not taker.over:
            there = len(conversation.received) - read
            if there:
                piece = await conversation.read_exactly(min(there, octets))
                read += len(piece)
                await conversation.say(taker.feed(piece))
            elif conversation.gone.is_set():
                return
            await asyncio.sleep(0)

    return script
