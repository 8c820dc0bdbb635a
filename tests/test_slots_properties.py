"""Slots under any order of events: what must hold after each of them, whoever asks, dies or is cancelled."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from aiosmtpclient.slots import ALONE, Action, Do, Limits, Slot, Slots, State, Ticket

CHANCES = st.sampled_from([0.0, 0.5, 1.0])


class AnyOrder(RuleBasedStateMachine):
    """A model of who has what, beside the real one."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.waiting: list[Ticket] = []
        self.holders: dict[Slot, list[Ticket]] = {}
        self.busy: dict[Do, list[Slot]] = {Do.OPEN: [], Do.CHECK: [], Do.CLOSE: []}
        self.dead: set[Slot] = set()
        self.shut = False

    @initialize(
        connections=st.integers(1, 4),
        messages=st.sampled_from([1, 3, 1000]),
        depth=st.sampled_from([1, 1, 3]),
        chance=CHANCES,
    )
    def begin(self, connections: int, messages: int, depth: int, chance: float) -> None:
        self.limits = Limits(
            connections, messages=messages, age=50.0, idle=20.0, check_after=5.0, depth=depth
        )
        self.slots = Slots(self.limits, lambda slot, idle: slot not in self.dead, lambda: chance)

    def carry_out(self, actions: list[Action]) -> None:
        for do, slot, ticket in actions:
            if do is Do.FAIL:
                assert ticket is not None
                self.waiting.remove(ticket)
                continue
            assert slot is not None
            if do is Do.GRANT:
                assert ticket is not None
                assert self.waiting.pop(0) is ticket, "not the one who came first"
                self.lend(slot, ticket)
            elif do is Do.DROP:
                for slots in self.busy.values():
                    if slot in slots:
                        slots.remove(slot)
            else:
                assert slot not in self.holders, "somebody has it"
                self.busy[do].append(slot)

    def lend(self, slot: Slot, ticket: Ticket) -> None:
        holders = self.holders.setdefault(slot, [])
        assert not self.shut
        assert slot.state is State.OPEN
        assert slot not in self.busy[Do.CLOSE]
        assert not any(holder.alone for holder in holders), "he wanted it for himself"
        assert not holders or not ticket.alone
        holders.append(ticket)
        assert len(holders) <= self.limits.depth

    # -- events ----------------------------------------------------------------------------

    @rule(alone=st.booleans(), patience=st.integers(0, 2))
    def ask(self, alone: bool, patience: int) -> None:
        alone = alone or self.limits.depth == 1
        ticket = Ticket(alone=alone, patience=patience)
        slot = self.slots.take(self.now, alone=alone)
        if slot is not None:
            assert not self.waiting, "past those who wait"
            self.lend(slot, ticket)
        else:
            self.waiting.append(ticket)
            self.carry_out(self.slots.ask(ticket, self.now))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.waiting))
        self.waiting.remove(ticket)
        self.carry_out(self.slots.withdraw(ticket, self.now))

    @precondition(lambda self: self.holders)
    @rule(
        data=st.data(), end=st.sampled_from(["good", "good", "good", "unused", "spoilt", "broken", "crowded"])
    )
    def give_back(self, data: st.DataObject, end: str) -> None:
        slot = data.draw(st.sampled_from(list(self.holders)))
        holders = self.holders[slot]
        ticket = holders.pop(data.draw(st.integers(0, len(holders) - 1)))
        if not holders:
            del self.holders[slot]
        if end == "broken":
            self.slots.broken(slot, self.now)
        if end in ("broken", "spoilt"):
            self.slots.spoil(slot)
        if end == "crowded":
            self.carry_out(self.slots.crowded(slot, self.now))
        unused = end == "unused"
        self.carry_out(self.slots.give_back(slot, self.now, alone=ticket.alone, unused=unused) or ())

    @precondition(lambda self: self.busy[Do.OPEN])
    @rule(data=st.data(), most=st.sampled_from([0, 1, 2, 100]), stillborn=st.booleans())
    def opened(self, data: st.DataObject, most: int, stillborn: bool) -> None:
        slot = self.done(data, Do.OPEN)
        if stillborn and most == 1:
            self.dead.add(slot)
        self.carry_out(self.slots.opened(slot, "a client", self.now, most))

    @precondition(lambda self: self.busy[Do.OPEN])
    @rule(data=st.data(), hopeless=st.booleans(), crowded=st.booleans())
    def failed(self, data: st.DataObject, hopeless: bool, crowded: bool) -> None:
        slot = self.done(data, Do.OPEN)
        self.carry_out(self.slots.failed(slot, self.now, hopeless=hopeless, crowded=crowded))

    @precondition(lambda self: self.busy[Do.CHECK])
    @rule(data=st.data(), answers=st.booleans())
    def checked(self, data: st.DataObject, answers: bool) -> None:
        slot = self.done(data, Do.CHECK)
        if answers:
            self.carry_out(self.slots.opened(slot, "a client", self.now))
        else:
            self.carry_out(self.slots.lost(slot, self.now))

    @precondition(lambda self: self.busy[Do.CLOSE])
    @rule(data=st.data())
    def closed(self, data: st.DataObject) -> None:
        self.carry_out(self.slots.closed(self.done(data, Do.CLOSE), self.now))

    @precondition(lambda self: [slot for slot in self.slots.all if slot.tenant is not None])
    @rule(data=st.data(), reported=st.booleans())
    def lost(self, data: st.DataObject, reported: bool) -> None:
        there = [slot for slot in self.slots.all if slot.tenant is not None]
        slot = data.draw(st.sampled_from(there))
        self.dead.add(slot)
        if reported:
            self.carry_out(self.slots.lost(slot, self.now))

    @rule(seconds=st.sampled_from([0.01, 0.1, 1.0, 6.0, 25.0]))
    def later(self, seconds: float) -> None:
        self.now += seconds
        self.carry_out(self.slots.tick(self.now))

    @rule()
    def until_something_is_due(self) -> None:
        due = self.slots.due
        if due is not None:
            self.now = max(due, self.now)
            self.carry_out(self.slots.tick(self.now))

    @rule(really=st.sampled_from([False, False, False, True]))
    def close(self, really: bool) -> None:
        if really:
            self.shut = True
            self.carry_out(self.slots.close(self.now))

    def done(self, data: st.DataObject, do: Do) -> Slot:
        slot = data.draw(st.sampled_from(self.busy[do]))
        self.busy[do].remove(slot)
        return slot

    # -- what holds ------------------------------------------------------------------------

    @invariant()
    def the_cap_is_never_exceeded(self) -> None:
        assert len(self.slots.all) <= self.limits.connections
        assert 1 <= self.slots.cap <= self.limits.connections

    @invariant()
    def the_counts_are_those_of_the_model(self) -> None:
        idle, busy, opening, closing, waiting = self.slots.counts
        live = set(self.slots.all)
        assert busy == len(self.holders)
        assert opening == len(live & {*self.busy[Do.OPEN], *self.busy[Do.CHECK]})
        assert closing == len(live & set(self.busy[Do.CLOSE]))
        assert waiting == len(self.waiting)
        assert idle + busy + opening + closing == len(live), "a slot was lost"
        assert min(idle, busy, opening, closing, waiting) >= 0

    @invariant()
    def the_load_is_what_is_lent(self) -> None:
        for slot, holders in self.holders.items():
            assert slot.load == sum(ALONE if ticket.alone else 1 for ticket in holders)

    @invariant()
    def nobody_waits_while_there_is_room_and_no_back_off(self) -> None:
        if not self.waiting:
            return
        assert not self.shut
        idle, busy, opening, _, waiting = self.slots.counts
        assert not idle, "what is free is not lent"
        due = self.slots.due
        backing_off = due is not None and self.now < self.slots._not_before
        room = self.slots.cap - (busy + opening)
        tried = opening >= (1 if self.slots._failures else waiting)
        assert backing_off or room <= 0 or tried
        assert opening or busy or due is not None, "nothing will ever happen"

    @invariant()
    def after_the_end_nothing_is_parked_and_nobody_waits(self) -> None:
        if self.shut:
            assert self.slots.counts[0] == 0
            assert not self.waiting

    def teardown(self) -> None:
        if not hasattr(self, "slots"):
            return
        self.carry_out(self.slots.close(self.now))
        lent = [(slot, ticket) for slot, holders in self.holders.items() for ticket in holders]
        self.holders.clear()
        for slot, ticket in lent:
            self.carry_out(self.slots.give_back(slot, self.now, alone=ticket.alone))
        while any(self.busy.values()):
            do = next(do for do, slots in self.busy.items() if slots)
            slot = self.busy[do].pop(0)
            if do is Do.CLOSE:
                self.carry_out(self.slots.closed(slot, self.now))
            else:
                self.carry_out(self.slots.opened(slot, "a client", self.now))
        assert self.slots.empty, "something is left"
        assert self.slots.counts == (0, 0, 0, 0, 0)
        assert self.slots.due is None


TestAnyOrder = pytest.mark.timeout(120)(AnyOrder.TestCase)
TestAnyOrder.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
