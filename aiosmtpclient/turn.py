"""The turn: who may write on a connection now.

Rules of this room:

* First come, first served, which `asyncio.Lock` sees to: nobody who comes later is let in between.
* A turn is given back once. Whoever holds a `Lease` may give it back early, as soon as nothing
  of his own is left to write, and the next one writes behind it before the replies are in.
"""

from __future__ import annotations

import asyncio


class Lease:
    """One turn, held until it is given back, early or at the end.

    Attributes:
        held: it was not given back yet.
    """

    __slots__ = ("_lock", "held")

    def __init__(self, lock: asyncio.Lock) -> None:
        self._lock = lock
        self.held = True

    def give_back(self) -> None:
        """Let the next one write. The second time nothing happens."""
        if self.held:
            self.held = False
            self._lock.release()


class Turn:
    """A queue for something that one at a time may have."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    @property
    def taken(self) -> bool:
        """Somebody has it now."""
        return self._lock.locked()

    async def take(self) -> Lease:
        """Wait for the turn."""
        await self._lock.acquire()
        return Lease(self._lock)
