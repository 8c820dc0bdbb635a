"""Slots: which connection of a pool does what, decided in one place, without waiting.

Whatever happens to a pool is one call here: somebody asks for a connection, gives it back, goes
away; one was opened, failed to open, was lost, has closed; time has passed. Each call changes the
state and ends in `_settle`, which hands out what there is and returns what has to be done. The
pool does it, and reports. So the state is never half-way, and can be tested without a loop.

::

    opening ──opened──▶ open ──over, idle too long, nobody wants it──▶ closing ──▶ (gone)
       └──failed──▶ (gone)    └──lost──▶ (gone)

Rules of this room:

* The cap counts connections from the moment at which somebody begins to open them until they are
  closed. It is never exceeded, and nobody waits for one that is being closed: it is dropped.
* First come, first served. Of several connections that are free the one used last is taken, so
  that those which are not needed grow old.
* A connection that was checked long ago is checked again before it is used; what is found dead
  is replaced, and whoever asked does not see it.
* "Too many" lowers the cap for a while; then it rises again, one by one.
* After a failure one connection at a time is tried, later and later, until one has carried
  something: a server that greets and hangs up is as broken as one that does not greet. Whoever has
  waited through more failures than he cares for gets the last of them; and everybody does at once
  if it makes no sense to try again.
"""

from __future__ import annotations

import enum
import math
import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple


class State(enum.Enum):
    """Where a slot stands."""

    OPENING = "opening"
    OPEN = "open"
    CLOSING = "closing"
    GONE = "gone"


class Slot:
    """One connection, or the place for one.

    Attributes:
        tenant: what the pool keeps there.
        state: where it stands.
        load: how much is under way on it.
        messages: how many were begun on it.
        most: how many may be.
        expires: when it is too old.
        since: when it became idle, or was last found alive.
        over: nothing new is begun here.
        young: nobody knows yet whether it is good for anything.
    """

    __slots__ = ("expires", "load", "messages", "most", "over", "since", "state", "tenant", "young")

    def __init__(self) -> None:
        self.tenant: Any = None
        self.state = State.OPENING
        self.load = 0
        self.messages = 0
        self.most = math.inf
        self.expires = math.inf
        self.since = 0.0
        self.over = False
        self.young = True


class Ticket:
    """Somebody who wants a connection.

    Attributes:
        alone: he wants it for himself.
        patience: failed attempts to open one that he waits through; `CROWDS` if the server only
            says that there are too many.
        failures: those that he has seen.
        crowds: those of them that were of that kind.
    """

    __slots__ = ("alone", "crowds", "failures", "patience", "tenant")

    def __init__(self, tenant: object = None, *, alone: bool = True, patience: int = 0) -> None:
        self.tenant = tenant
        self.alone = alone
        self.patience = patience
        self.failures = 0
        self.crowds = 0


class Do(enum.Enum):
    """What the pool has to do."""

    OPEN = "open"
    """Open a connection, then report `opened` or `failed`."""
    CHECK = "check"
    """Find out whether this one answers, then report `opened` or `lost`."""
    CLOSE = "close"
    """Take leave of this one, then report `closed`."""
    DROP = "drop"
    """Close it at once; it does not count any more."""
    GRANT = "grant"
    """Tell this one that the slot is his."""
    FAIL = "fail"
    """Tell this one that there will be none."""


class Action(NamedTuple):
    """One thing to do, to a slot, a ticket or both."""

    do: Do
    slot: Slot | None = None
    ticket: Ticket | None = None


class Limits(NamedTuple):
    """What a pool may do. Times are seconds.

    Attributes:
        connections: at most so many at a time.
        messages: at most so many on one connection.
        age: a connection is closed when it is so old, or up to a tenth younger: they should not
            all end at once.
        idle: closed after so long without use.
        check_after: asked with NOOP before it is used, after so long without use.
        depth: so much may be under way on a connection at a time.
    """

    connections: int = 10
    messages: float = 1000
    age: float = 600.0
    idle: float = 60.0
    check_after: float = 30.0
    depth: int = 1


FIRST_DELAY, LONGEST_DELAY = 0.1, 5.0
"""Seconds before a connection is tried again: doubled after each failure, up to the second."""
ALONE = 1 << 20
"""What somebody who wants a connection for himself has under way on it: more than anybody may."""
CROWDS = 10
"""So often "too many", with nobody else there, is no reason to give up."""
LOWERED, RAISED = 30.0, 5.0
"""Seconds for which a cap that was "too many" stays lowered, and between the steps back up."""
STILLBORN = 1.0
"""Seconds after it was opened within which a connection that is of no use is a failure."""


class Slots:
    """The state of a pool.

    Args:
        limits: what it may do.
        alive: tells whether a tenant is still there, as far as can be seen without asking it.
        chance: a number from 0 to 1, for jitter.
    """

    def __init__(
        self,
        limits: Limits,
        alive: Callable[[Slot, float], bool] = lambda slot, idle: True,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.limits = limits
        self.cap = limits.connections
        self.shut = False
        self._alive = alive
        self._chance = chance
        self._slots: dict[Slot, None] = {}
        self._idle: dict[Slot, None] = {}
        self._busy: dict[Slot, None] = {}
        self._waiting: dict[Ticket, None] = {}
        self._opening = 0
        self._closing = 0
        self._failures = 0
        self._not_before = -math.inf
        self._held_back = False
        self._raise_at = math.inf
        self._actions: list[Action] = []
        self._pressed = False  # something is to be done as soon as a connection is given back

    # -- what is asked --------------------------------------------------------------------

    @property
    def counts(self) -> tuple[int, int, int, int, int]:
        """Connections that are idle, in use, being opened, being closed; and how many wait for one."""
        return len(self._idle), len(self._busy), self._opening, self._closing, len(self._waiting)

    def __repr__(self) -> str:
        idle, busy, opening, closing, waiting = self.counts
        most = self.limits.connections
        lowered = f", lowered from {most}" if self.cap < most else ""
        return (
            f"<{len(self._slots)}/{self.cap} connections{lowered}: {idle} idle, {busy} in use, "
            f"{opening} opening, {closing} closing; {waiting} waiting>"
        )

    @property
    def open(self) -> list[Slot]:
        """The connections that are open, those in use first."""
        return [*self._busy, *self._idle]

    @property
    def all(self) -> list[Slot]:
        """Every connection that counts."""
        return list(self._slots)

    @property
    def wanted(self) -> bool:
        """Somebody waits for a connection."""
        return bool(self._waiting)

    @property
    def empty(self) -> bool:
        """There is no connection, nor is one on its way."""
        return not self._slots

    @property
    def due(self) -> float | None:
        """When something changes by itself, which may be past by now; None if nothing does."""
        if self.shut:
            return None
        moments = []
        if self._waiting and self._held_back:
            moments.append(self._not_before)
        if self.cap < self.limits.connections:
            moments.append(self._raise_at)
        if self._idle:
            oldest = next(iter(self._idle))
            moments.append(oldest.since + self.limits.idle)
        moments = [moment for moment in moments if moment < math.inf]
        return min(moments, default=None)

    # -- what happens ----------------------------------------------------------------------

    def ask(self, ticket: Ticket, now: float) -> list[Action]:
        """Somebody wants a connection."""
        self._waiting[ticket] = None
        return self._settle(now)

    def take(self, now: float, *, alone: bool) -> Slot | None:
        """A connection that is free, if nobody waits: what mostly happens, without a ticket."""
        if self._pressed or not self._idle:
            return None
        slot = next(reversed(self._idle))
        idle = now - slot.since
        if idle >= self.limits.check_after or self._worn(slot, now) or not self._alive(slot, idle):
            return None  # `ask` does something about it
        self._load(slot, alone)
        return slot

    def keep(self, slot: Slot, now: float) -> bool:
        """Begin something else where something has just ended; False if the slot must be given back first.

        As `give_back` and `take` where these would change nothing else, but nobody looks whether it lives.
        """
        if self._pressed or slot.young or slot.over or slot.messages >= slot.most or now >= slot.expires:
            return False
        slot.messages += 1
        return True

    def withdraw(self, ticket: Ticket, now: float) -> list[Action]:
        """He does not want it any more, and was not given one."""
        self._waiting.pop(ticket, None)
        return self._settle(now)

    def give_back(
        self, slot: Slot, now: float, *, alone: bool = True, unused: bool = False
    ) -> Sequence[Action] | None:
        """Somebody is done with it; None if that changes nothing for anybody else. See also `spoil`.

        Args:
            alone: he had it for himself.
            unused: he did nothing with it.
        """
        slot.load -= ALONE if alone else 1
        slot.messages -= unused
        if slot.state is State.OPEN:
            slot.since = now
            fit = not slot.over and (slot.load > 0 or self._alive(slot, 0.0))
            if slot.young and fit and not unused:
                slot.young, self._failures, self._not_before = False, 0, -math.inf
            if not slot.load:
                del self._busy[slot]
                self._idle[slot] = None
                if not fit or self._worn(slot, now):
                    self._close(slot)
        if not (self._pressed or self._actions):
            return None  # what mostly happens
        return self._settle(now)

    def spoil(self, slot: Slot) -> None:
        """Nothing more is to be begun on this connection."""
        slot.over = True

    def opened(self, slot: Slot, tenant: object, now: float, most: float = math.inf) -> list[Action]:
        """A connection is there, or answered when it was asked."""
        if slot.state is not State.OPENING:
            return [Action(Do.DROP, slot)]  # its loss was reported first
        self._opening -= 1
        if slot.tenant is None:
            slot.expires = now + self.limits.age * (1 - self._chance() / 10)
            slot.most = min(self.limits.messages, most)
        slot.tenant, slot.state, slot.since = tenant, State.OPEN, now
        self._idle[slot] = None
        return self._settle(now)

    def failed(
        self, slot: Slot, now: float, *, hopeless: bool = False, crowded: bool = False
    ) -> list[Action]:
        """A connection could not be opened.

        Args:
            hopeless: the next attempt would end in the same way.
            crowded: the server said that there are too many.
        """
        self._forget(slot)
        if crowded:
            self._lower(now, 0)
        self._back_off(now)
        if not self._idle and not self._busy and not self._opening:
            for ticket in list(self._waiting):
                ticket.failures += not crowded
                ticket.crowds += crowded
                if hopeless or ticket.failures > ticket.patience or ticket.crowds > CROWDS:
                    del self._waiting[ticket]
                    self._actions.append(Action(Do.FAIL, slot, ticket))
        return self._settle(now)

    def lost(self, slot: Slot, now: float) -> list[Action]:
        """A connection is gone."""
        if slot.state is State.GONE or (slot.state is State.OPEN and slot.load):
            slot.over = True  # whoever uses it notices, and gives it back
            return []
        self._forget(slot)
        return self._settle(now)

    def closed(self, slot: Slot, now: float) -> list[Action]:
        """A connection was closed."""
        self._forget(slot)
        return self._settle(now)

    def crowded(self, slot: Slot, now: float) -> list[Action]:
        """The server said on an open connection that there are too many."""
        slot.young = False
        if now >= self._not_before:  # said to several at the same time it is said once
            self._lower(now, 1)
            self._back_off(now)
        return self._settle(now)

    def broken(self, slot: Slot, now: float) -> None:
        """The server ended a connection in the middle of something. It is still to be given back."""
        if slot.young:
            slot.young = False
            self._back_off(now)

    def tick(self, now: float) -> list[Action]:
        """Time has passed."""
        return self._settle(now)

    def close(self, now: float) -> list[Action]:
        """No more: who waits gets nothing, what is idle is closed."""
        self.shut = True
        return self._settle(now)

    # -- how it is decided -----------------------------------------------------------------

    def _settle(self, now: float) -> list[Action]:
        """Hand out what there is; return what has to be done."""
        self._pressed = True  # until it is known, also if this fails
        self._raise(now)
        if self.shut:
            for ticket in self._waiting:
                self._actions.append(Action(Do.FAIL, None, ticket))
            self._waiting.clear()
        self._retire(now)
        while self._waiting:
            ticket = next(iter(self._waiting))
            slot = self._free(ticket, now)
            if slot is None:
                break
            del self._waiting[ticket]
            self._load(slot, ticket.alone)
            self._actions.append(Action(Do.GRANT, slot, ticket))
        self._grow(now)
        self._pressed = bool(self._waiting) or self.shut or len(self._slots) > self.cap
        actions, self._actions = self._actions, []
        return actions

    def _free(self, ticket: Ticket, now: float) -> Slot | None:
        """A connection for him, if there is one."""
        while self._idle:
            slot = next(reversed(self._idle))
            idle = now - slot.since
            if self._worn(slot, now) or not self._alive(slot, idle):
                if slot.young and idle < STILLBORN:
                    self._back_off(now)
                self._close(slot)
            elif idle >= self.limits.check_after:
                del self._idle[slot]
                slot.state = State.OPENING
                self._opening += 1
                self._actions.append(Action(Do.CHECK, slot))
                return None
            else:
                return slot
        if ticket.alone:
            return None
        free = [slot for slot in self._busy if slot.load < self.limits.depth and not self._worn(slot, now)]
        return min(free, key=_load_of, default=None)

    def _load(self, slot: Slot, alone: bool) -> None:
        if not slot.load:
            del self._idle[slot]
            self._busy[slot] = None
        slot.load += ALONE if alone else 1
        slot.messages += 1

    def _worn(self, slot: Slot, now: float) -> bool:
        return slot.over or slot.messages >= slot.most or now >= slot.expires

    def _grow(self, now: float) -> None:
        """Open as many as are wanted and allowed."""
        wanted = len(self._waiting) - self._opening
        if not wanted and not self._opening and self._busy and self.limits.depth > 1 and not self._idle:
            # Before it is too late.
            wanted = self.limits.depth // 2 <= min(map(_load_of, self._busy)) <= self.limits.depth
        self._held_back = wanted > 0 and now < self._not_before
        if wanted <= 0 or self.shut or self._held_back:
            return
        if self._failures:
            wanted = min(wanted, 1 - self._opening)
        for _ in range(min(wanted, self.cap - self._staying)):
            while len(self._slots) >= self.cap:
                self._drop_one()
            slot = Slot()
            self._slots[slot] = None
            self._opening += 1
            self._actions.append(Action(Do.OPEN, slot))

    @property
    def _staying(self) -> int:
        """Connections without those that are being closed."""
        return len(self._slots) - self._closing

    def _drop_one(self) -> None:
        """Nobody waits for a connection that is being closed: it has said all that it had to say."""
        slot = next(slot for slot in self._slots if slot.state is State.CLOSING)
        self._forget(slot)
        self._actions.append(Action(Do.DROP, slot))

    def _retire(self, now: float) -> None:
        """Close what nobody wants any more."""
        while self._idle:
            slot = next(iter(self._idle))
            surplus = self._staying > self.cap
            if not (self.shut or surplus or now - slot.since >= self.limits.idle):
                return
            self._close(slot)

    def _close(self, slot: Slot) -> None:
        """Close an idle connection."""
        del self._idle[slot]
        slot.state = State.CLOSING
        self._closing += 1
        self._actions.append(Action(Do.CLOSE, slot))

    def _forget(self, slot: Slot) -> None:
        self._opening -= slot.state is State.OPENING
        self._closing -= slot.state is State.CLOSING
        slot.state = State.GONE
        self._slots.pop(slot, None)
        self._idle.pop(slot, None)  # never one in use: that one is given back first

    def _lower(self, now: float, too_many: int) -> None:
        """As many as there are now, without the one that was too many."""
        self.cap = max(1, min(self.cap, len(self._idle) + len(self._busy) - too_many))
        self._raise_at = now + LOWERED

    def _raise(self, now: float) -> None:
        while self.cap < self.limits.connections and now >= self._raise_at:
            self.cap += 1
            self._raise_at += RAISED

    def _back_off(self, now: float) -> None:
        if now < self._not_before:  # those tried at the same time are one failure
            return
        delay = min(LONGEST_DELAY, FIRST_DELAY * 2**self._failures)
        self._failures = min(self._failures + 1, 20)
        self._not_before = now + delay * (0.5 + self._chance() / 2)


def _load_of(slot: Slot) -> int:
    return slot.load
