"""The turn: who may write on a connection now.

Rules of this room:

* First come, first served: nobody who comes later is let in between. While the turn is on its way
  to somebody who waited it counts as taken.
* A turn is given back once. Whoever holds a `Lease` may give it back early, as soon as nothing
  of his own is left to write, and the next one writes behind it before the replies are in.
* Who is cancelled at the moment at which the turn comes to him passes it on.

No `asyncio.Lock`: that one has to be awaited also when it is free, which is what mostly happens, and
each idle connection would keep some 250 octets more.
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
            self._turn._hand_on()


class Turn:
    """A queue for something that one at a time may have.

    Attributes:
        taken: somebody has it now, or will in a moment.
    """

    __slots__ = ("_waiting", "taken")

    def __init__(self) -> None:
        self.taken = False
        self._waiting: deque[asyncio.Future[None]] | None = None

    def at_once(self) -> Lease | None:
        """The turn, if nobody has it."""
        if self.taken:
            return None
        lease = Lease(self)  # first: what fails for want of memory must not leave a turn that nobody has
        self.taken = True
        return lease

    async def take(self) -> Lease:
        """Wait for the turn."""
        if (at_once := self.at_once()) is not None:
            return at_once
        if self._waiting is None:
            self._waiting = deque()
        lease, mine = Lease(self), asyncio.get_running_loop().create_future()
        self._waiting.append(mine)
        try:
            await mine
        except BaseException:
            if mine.done() and not mine.cancelled():
                self._hand_on()
            elif mine in self._waiting:
                self._waiting.remove(mine)
            raise
        return lease

    def _hand_on(self) -> None:
        while self._waiting:
            mine = self._waiting.popleft()
            if not mine.done():  # else he was cancelled, and does not know it yet
                mine.set_result(None)
                return
        self.taken = False
