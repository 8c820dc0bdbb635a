"""The turn: who may write on a connection now.

Rules of this room:

* First come, first served: the turn is handed from one to the next, so nobody who comes later
  can take it in between.
* A turn is given back once. Whoever holds a `Lease` may give it back early, as soon as nothing
  of his own is left to write, and the next one writes behind it before the replies are in.
* Whoever is cancelled while he waits loses nothing but his place; a turn that was just handed
  to him goes on to the next.
"""

from __future__ import annotations

import asyncio
from collections import deque


class Lease:
    """One turn, held until it is given back, early or at the end.

    Attributes:
        held: it was not given back yet.
    """

    __slots__ = ("_turn", "held")

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self.held = True

    def give_back(self) -> None:
        """Let the next one write. The second time nothing happens."""
        if self.held:
            self.held = False
            self._turn.pass_on()


class Turn:
    """A queue for something that one at a time may have.

    `asyncio.Lock` does the same; that one cannot be taken without a coroutine or two of its own,
    which is a tenth of what a small message costs.
    """

    __slots__ = ("_taken", "_waiting")

    def __init__(self) -> None:
        self._taken = False
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def take(self) -> Lease:
        """Wait for the turn."""
        if not self._taken:
            self._taken = True
            return Lease(self)
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled():
                self.pass_on()  # it was ours already
            raise
        return Lease(self)

    def pass_on(self) -> None:
        """Hand the turn to the one who has waited longest, if anybody waits."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._taken = False
