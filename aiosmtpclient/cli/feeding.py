"""Feeding: from a thread that reads to the event loop that sends, a few messages ahead.

Rules of this room:

* So many messages, and so many octets of them, are read ahead, and no more.
* What the reading raises is raised where the messages are taken, after those that came before.
* Whoever stops it waits for the thread, but not for ever: it may sit in a read that never returns.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")

AHEAD = 64
"""Messages that are read ahead."""
OCTETS_AHEAD = 16 * 1024 * 1024
"""Octets after which no more are, whatever their number."""
_PATIENCE = 5.0


class Feed(Generic[T]):
    """What an iterable gives, read in a thread of its own.

    Args:
        items: what is read; asked in that thread only.
        weight: octets of one.
        stop: set when no more is wanted; whoever reads may look at it too.
    """

    def __init__(self, items: Iterable[T], weight: Callable[[T], int], stop: threading.Event) -> None:
        self._items: Iterable[T] = items
        self._weight = weight
        self._stop = stop
        self._ready: deque[T] = deque()
        self._octets = 0
        self._over = False
        self._error: BaseException | None = None
        self._room = threading.Condition()
        self._news = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._read, name="aiosmtpclient-bulk-input", daemon=True)
        self._thread.start()

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        while not self._stop.is_set():
            self._news.clear()
            over = self._over  # asked first: the last message may come in between
            taken = self._take()
            if taken is not None:
                return taken[0]
            if over:
                break
            await self._news.wait()
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration

    def stop(self) -> None:
        """Give no more, and read no more."""
        self._stop.set()
        self._news.set()
        with self._room:
            self._room.notify()

    async def close(self) -> None:
        """Stop, and wait for the thread."""
        self.stop()
        await self._loop.run_in_executor(None, self._thread.join, _PATIENCE)

    def _take(self) -> tuple[T] | None:
        with self._room:
            if not self._ready:
                return None
            item = self._ready.popleft()
            self._octets -= self._weight(item)
            self._room.notify()
        return (item,)

    def _read(self) -> None:
        try:
            for item in self._items:
                if not self._put(item):
                    break
        except BaseException as error:  # it belongs to whoever takes the messages
            self._error = error
        self._items = ()  # closes what it was reading
        self._over = True
        self._tell()

    def _put(self, item: T) -> bool:
        with self._room:
            while self._is_full and not self._stop.is_set():
                self._room.wait()
            if self._stop.is_set():
                return False
            self._ready.append(item)
            self._octets += self._weight(item)
            first = len(self._ready) == 1
        if first:
            self._tell()
        return True

    @property
    def _is_full(self) -> bool:
        return len(self._ready) >= AHEAD or self._octets >= OCTETS_AHEAD

    def _tell(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._news.set)
        except RuntimeError:  # the loop is closed: nobody waits
            return
