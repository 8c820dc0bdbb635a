"""The long line: a loopback proxy that delays what passes, and limits nothing.

``python -m benchmarks.proxy PORT MS`` says "ready PORT" and forwards to that port of 127.0.0.1,
each octet half of MS milliseconds after it came, in both directions. However much is under way,
the next octet is late by no more than that: the round trip grows, the throughput does not
shrink. It exits when its standard input ends.
"""

from __future__ import annotations

import asyncio
import os
import selectors
import sys
from collections import deque
from typing import cast


class End(asyncio.Protocol):
    """One end of a line. What comes in here leaves at the other end, later.

    Args:
        delay: seconds from here to there.
    """

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport | None = None
        self.peer: End | None = None
        # None stands for the end of the stream.
        self.late: deque[tuple[float, bytes | None]] = deque()
        self.timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport. What the other end has for it may have waited for it."""
        self.transport = cast(asyncio.Transport, transport)
        # Never pause: bounded memory would be a limit.
        self.transport.set_write_buffer_limits(high=1 << 30)

    def data_received(self, data: bytes) -> None:
        """Send it on its way."""
        self.enqueue(data)

    def eof_received(self) -> bool:
        """The end of the stream travels as slowly as the rest."""
        self.enqueue(None)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """This end is gone: the other end learns it in its turn."""
        self.transport = None
        self.enqueue(None)

    def enqueue(self, item: bytes | None) -> None:
        """Let something arrive at the other end when its time has come."""
        due = self.loop.time() + self.delay
        self.late.append((due, item))
        if self.timer is None:
            self.timer = self.loop.call_at(due, self.deliver)

    def deliver(self) -> None:
        """Hand over whatever is due."""
        self.timer = None
        now = self.loop.time()
        there = self.peer.transport if self.peer is not None else None
        while self.late and self.late[0][0] <= now:
            _, item = self.late.popleft()
            if there is None or there.is_closing():
                continue
            if item is None:
                there.close()
            else:
                there.write(item)
        if self.late:
            self.timer = self.loop.call_at(self.late[0][0], self.deliver)


class Entrance(End):
    """The end that a client connects to: it brings up the other one."""

    def __init__(self, delay: float, port: int) -> None:
        super().__init__(delay)
        self.port = port
        self.dialling: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Dial the other side."""
        super().connection_made(transport)
        self.dialling = self.loop.create_task(self.dial())

    async def dial(self) -> None:
        """Connect the far end."""
        far = End(self.delay)
        far.peer, self.peer = self, far
        try:
            await self.loop.create_connection(lambda: far, "127.0.0.1", self.port)
        except OSError:
            if self.transport is not None:
                self.transport.abort()


async def serve(port: int, round_trip: float) -> None:
    """Forward to `port` until standard input ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Entrance(round_trip / 2, port), "127.0.0.1", 0)
    print("ready", server.sockets[0].getsockname()[1], flush=True)
    ended = asyncio.Event()
    loop.add_reader(0, lambda: None if os.read(0, 64) else ended.set())
    await ended.wait()
    server.close()


def precise_loop() -> asyncio.AbstractEventLoop:
    """A loop whose timers fire on time: epoll rounds them up to whole milliseconds."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=precise_loop) as runner:
        runner.run(serve(int(sys.argv[1]), float(sys.argv[2]) / 1000))
