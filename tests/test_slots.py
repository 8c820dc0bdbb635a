"""Slots without a loop: each event is one call, and the repr after it says where the pool stands."""

from __future__ import annotations

import pytest

from aiosmtpclient.slots import (
    CROWDS,
    LONGEST_DELAY,
    LOWERED,
    RAISED,
    Action,
    Do,
    Limits,
    Slot,
    Slots,
    State,
    Ticket,
)

SEVERAL = Limits(connections=3)


class Desk:
    """Slots with a clock and servers: carries out what is asked for in its head.

    Attributes:
        now: the time.
        dead: slots whose connection is gone, though nobody reported it.
        todo: what has to be done and was not yet reported.
        granted: who got what.
        failed: who got nothing.
    """

    def __init__(self, limits: Limits = SEVERAL, chance: float = 1.0) -> None:
        self.now = 1000.0
        self.dead: set[Slot] = set()
        self.slots = Slots(limits, lambda slot, idle: slot not in self.dead, lambda: chance)
        self.todo: list[Action] = []
        self.granted: dict[Ticket, Slot] = {}
        self.failed: list[Ticket] = []

    def __repr__(self) -> str:
        return repr(self.slots)[1:-1]

    def carry_out(self, actions: list[Action]) -> list[Do]:
        for action in actions:
            if action.do is Do.GRANT:
                assert action.ticket is not None
                assert action.slot is not None
                self.granted[action.ticket] = action.slot
            elif action.do is Do.FAIL:
                assert action.ticket is not None
                self.failed.append(action.ticket)
            elif action.do is Do.DROP:
                self.todo = [left for left in self.todo if left.slot is not action.slot]
            else:
                self.todo.append(action)
        return [action.do for action in actions]

    def next(self, do: Do) -> Slot:
        """The oldest of what has to be done, of this kind."""
        action = next(action for action in self.todo if action.do is do)
        self.todo.remove(action)
        assert action.slot is not None
        return action.slot

    def ask(self, *, alone: bool = True, patience: int = 0) -> Ticket:
        ticket = Ticket(alone=alone, patience=patience)
        self.carry_out(self.slots.ask(ticket, self.now))
        return ticket

    def opened(self, most: float = 1e9) -> Slot:
        slot = self.next(Do.OPEN)
        self.carry_out(self.slots.opened(slot, "a client", self.now, most))
        return slot

    def open_for(self, ticket: Ticket) -> Slot:
        self.opened()
        return self.granted[ticket]

    def refuse(self, **why: bool) -> list[Do]:
        return self.carry_out(self.slots.failed(self.next(Do.OPEN), self.now, **why))

    def back(self, slot: Slot, *, alone: bool = True) -> list[Do]:
        return self.carry_out(self.slots.give_back(slot, self.now, alone=alone) or ())

    def closed(self) -> list[Do]:
        return self.carry_out(self.slots.closed(self.next(Do.CLOSE), self.now))

    def later(self, seconds: float) -> list[Do]:
        self.now += seconds
        return self.carry_out(self.slots.tick(self.now))

    def warm(self, count: int = 1) -> list[Slot]:
        """So many connections, each used once and given back."""
        tickets = [self.ask() for _ in range(count)]
        slots = [self.open_for(ticket) for ticket in tickets]
        for slot in slots:
            assert self.back(slot) == []
        return slots


# A life


def test_a_connection_is_opened_lent_given_back_and_closed_when_nobody_wants_it() -> None:
    desk = Desk()
    assert repr(desk) == "0/3 connections: 0 idle, 0 in use, 0 opening, 0 closing; 0 waiting"
    ticket = desk.ask()
    assert repr(desk) == "1/3 connections: 0 idle, 0 in use, 1 opening, 0 closing; 1 waiting"
    slot = desk.opened()
    assert desk.granted == {ticket: slot}
    assert repr(desk) == "1/3 connections: 0 idle, 1 in use, 0 opening, 0 closing; 0 waiting"
    desk.back(slot)
    assert repr(desk) == "1/3 connections: 1 idle, 0 in use, 0 opening, 0 closing; 0 waiting"
    assert desk.slots.due == desk.now + SEVERAL.idle
    assert desk.later(SEVERAL.idle) == [Do.CLOSE]
    assert repr(desk) == "1/3 connections: 0 idle, 0 in use, 0 opening, 1 closing; 0 waiting"
    desk.closed()
    assert repr(desk) == "0/3 connections: 0 idle, 0 in use, 0 opening, 0 closing; 0 waiting"
    assert desk.slots.empty
    assert slot.state is State.GONE


def test_what_is_free_is_taken_without_a_ticket() -> None:
    desk = Desk()
    [slot] = desk.warm()
    assert desk.slots.take(desk.now, alone=True) is slot
    assert repr(desk) == "1/3 connections: 0 idle, 1 in use, 0 opening, 0 closing; 0 waiting"
    assert desk.slots.take(desk.now, alone=True) is None


def test_who_says_nothing_else_wants_one_for_himself_and_waits_through_no_failure() -> None:
    ticket = Ticket()
    desk = Desk(Limits(connections=1, depth=2))
    desk.carry_out(desk.slots.ask(ticket, desk.now))
    desk.ask(alone=False)
    assert desk.open_for(ticket).load > desk.slots.limits.depth
    other = Desk()
    other.carry_out(other.slots.ask(Ticket(), other.now))
    other.refuse()
    assert len(other.failed) == 1


def test_the_one_used_last_is_taken_so_that_the_others_grow_old() -> None:
    desk = Desk()
    _, _, last = desk.warm(3)
    assert desk.slots.take(desk.now, alone=True) is last


# The cap


def test_the_cap_counts_connections_that_are_being_opened() -> None:
    desk = Desk()
    for _ in range(5):
        desk.ask()
    assert [action.do for action in desk.todo] == [Do.OPEN] * 3
    assert repr(desk) == "3/3 connections: 0 idle, 0 in use, 3 opening, 0 closing; 5 waiting"


def test_nobody_waits_behind_a_connection_that_is_being_closed() -> None:
    desk = Desk(Limits(connections=1))
    slot = desk.open_for(desk.ask())
    desk.slots.spoil(slot)
    assert desk.back(slot) == [Do.CLOSE]
    assert repr(desk) == "1/1 connections: 0 idle, 0 in use, 0 opening, 1 closing; 0 waiting"
    ticket = desk.ask()
    assert repr(desk) == "1/1 connections: 0 idle, 0 in use, 1 opening, 0 closing; 1 waiting"
    assert slot not in desk.slots.all
    desk.opened()
    assert ticket in desk.granted


def test_the_close_of_one_that_was_dropped_meanwhile_is_no_news() -> None:
    desk = Desk(Limits(connections=1))
    slot = desk.open_for(desk.ask())
    desk.slots.spoil(slot)
    desk.back(slot)
    desk.ask()
    assert desk.carry_out(desk.slots.closed(slot, desk.now)) == []
    assert repr(desk) == "1/1 connections: 0 idle, 0 in use, 1 opening, 0 closing; 1 waiting"


def test_several_closing_connections_do_not_lift_a_lowered_cap() -> None:
    desk = Desk()
    slots = [desk.open_for(ticket) for ticket in [desk.ask() for _ in range(3)]]
    desk.carry_out(desk.slots.crowded(slots[0], desk.now))
    for slot in slots:
        desk.slots.spoil(slot)
        desk.back(slot)
    assert repr(desk) == "3/2 connections, lowered from 3: 0 idle, 0 in use, 0 opening, 3 closing; 0 waiting"
    desk.now += 1
    desk.ask()
    assert len(desk.slots.all) == 2


# First come, first served


def test_who_came_first_is_served_first() -> None:
    desk = Desk(Limits(connections=1))
    tickets = [desk.ask() for _ in range(3)]
    slot = desk.opened()
    assert list(desk.granted) == tickets[:1]
    desk.back(slot)
    assert list(desk.granted) == tickets[:2]
    desk.back(slot)
    assert list(desk.granted) == tickets


def test_nobody_takes_what_is_free_past_those_who_wait() -> None:
    desk = Desk(Limits(connections=1))
    slot = desk.open_for(desk.ask())
    desk.ask()
    desk.dead.add(slot)
    desk.back(slot)
    assert desk.slots.take(desk.now, alone=True) is None


def test_who_goes_away_leaves_his_place_to_the_next() -> None:
    desk = Desk(Limits(connections=1))
    slot = desk.open_for(desk.ask())
    second, third = desk.ask(), desk.ask()
    desk.carry_out(desk.slots.withdraw(second, desk.now))
    assert repr(desk) == "1/1 connections: 0 idle, 1 in use, 0 opening, 0 closing; 1 waiting"
    desk.back(slot)
    assert third in desk.granted
    assert second not in desk.granted


def test_who_was_served_or_went_away_already_may_go_away_again() -> None:
    desk = Desk(Limits(connections=1))
    served, gone = desk.ask(), desk.ask()
    desk.opened()
    for ticket in (gone, gone, served):
        assert desk.carry_out(desk.slots.withdraw(ticket, desk.now)) == []
    assert repr(desk) == "1/1 connections: 0 idle, 1 in use, 0 opening, 0 closing; 0 waiting"


def test_what_was_opened_for_somebody_who_went_away_is_kept() -> None:
    desk = Desk()
    desk.carry_out(desk.slots.withdraw(desk.ask(), desk.now))
    desk.opened()
    assert repr(desk) == "1/3 connections: 1 idle, 0 in use, 0 opening, 0 closing; 0 waiting"


# Age, use, and a server's own limits


def test_a_connection_carries_no_more_messages_than_it_may() -> None:
    desk = Desk(Limits(connections=1, messages=2))
    slot = desk.open_for(desk.ask())
    assert desk.back(slot) == []
    assert desk.slots.take(desk.now, alone=True) is slot
    assert desk.back(slot) == [Do.CLOSE]


def test_who_did_nothing_with_a_connection_used_up_nothing() -> None:
    desk = Desk(Limits(connections=1, messages=2))
    slot = desk.open_for(desk.ask())
    assert desk.carry_out(desk.slots.give_back(slot, desk.now, unused=True) or ()) == []
    for do in ([], [Do.CLOSE]):
        assert desk.slots.take(desk.now, alone=True) is slot
        assert desk.back(slot) == do


def test_the_servers_own_limit_counts_if_it_is_lower() -> None:
    desk = Desk(Limits(connections=1, messages=100))
    desk.ask()
    assert desk.back(desk.opened(most=1)) == [Do.CLOSE]


@pytest.mark.parametrize(("chance", "age"), [(0.0, 100.0), (1.0, 90.0)])
def test_a_connection_ends_when_it_is_old_or_up_to_a_tenth_before(chance: float, age: float) -> None:
    desk = Desk(Limits(age=100.0), chance)
    slot = desk.open_for(desk.ask())
    desk.now += age - 1
    assert desk.back(slot) == []
    assert desk.slots.take(desk.now, alone=True) is slot
    desk.now += 1
    assert desk.back(slot) == [Do.CLOSE]


def test_an_old_connection_is_not_taken_but_replaced() -> None:
    desk = Desk(Limits(age=10.0, check_after=100.0))
    desk.warm()
    desk.now += 10
    assert desk.slots.take(desk.now, alone=True) is None
    desk.ask()
    assert repr(desk) == "2/10 connections: 0 idle, 0 in use, 1 opening, 1 closing; 1 waiting"


# Parked connections


def test_a_dead_one_is_replaced_and_who_asked_waits_for_the_new_one() -> None:
    desk = Desk()
    [slot] = desk.warm()
    desk.dead.add(slot)
    assert desk.slots.take(desk.now, alone=True) is None
    ticket = desk.ask()
    assert repr(desk) == "2/3 connections: 0 idle, 0 in use, 1 opening, 1 closing; 1 waiting"
    assert desk.open_for(ticket) is not slot


def test_behind_a_dead_one_there_may_be_one_that_lives() -> None:
    desk = Desk()
    alive, dead = desk.warm(2)
    desk.dead.add(dead)
    assert desk.granted[desk.ask()] is alive


def test_one_that_was_not_used_for_long_is_asked_before_it_is_lent() -> None:
    desk = Desk(Limits(check_after=30.0, idle=100.0))
    [slot] = desk.warm()
    desk.now += 30
    assert desk.slots.take(desk.now, alone=True) is None
    ticket = desk.ask()
    assert repr(desk) == "1/10 connections: 0 idle, 0 in use, 1 opening, 0 closing; 1 waiting"
    desk.carry_out(desk.slots.opened(desk.next(Do.CHECK), slot.tenant, desk.now))
    assert desk.granted[ticket] is slot
    assert not desk.todo


def test_one_that_does_not_answer_is_replaced() -> None:
    desk = Desk(Limits(check_after=30.0, idle=100.0))
    desk.warm()
    desk.now += 30
    ticket = desk.ask()
    desk.carry_out(desk.slots.lost(desk.next(Do.CHECK), desk.now))
    assert repr(desk) == "1/10 connections: 0 idle, 0 in use, 1 opening, 0 closing; 1 waiting"
    desk.opened()
    assert ticket in desk.granted


def test_one_that_is_lost_while_it_is_asked_and_answers_all_the_same_does_not_come_back() -> None:
    desk = Desk(Limits(check_after=30.0, idle=100.0))
    [slot] = desk.warm()
    desk.now += 30
    desk.ask()
    asked = desk.next(Do.CHECK)
    desk.carry_out(desk.slots.lost(asked, desk.now))
    assert desk.carry_out(desk.slots.opened(asked, slot.tenant, desk.now)) == [Do.DROP]
    assert repr(desk) == "1/10 connections: 0 idle, 0 in use, 1 opening, 0 closing; 1 waiting"


def test_a_parked_connection_that_is_lost_is_gone_at_once() -> None:
    desk = Desk()
    [slot] = desk.warm()
    assert desk.carry_out(desk.slots.lost(slot, desk.now)) == []
    assert desk.slots.empty


def test_a_connection_that_is_lost_in_use_counts_until_it_is_given_back() -> None:
    desk = Desk(Limits(connections=1))
    slot = desk.open_for(desk.ask())
    desk.carry_out(desk.slots.lost(slot, desk.now))
    waiting = desk.ask()
    assert repr(desk) == "1/1 connections: 0 idle, 1 in use, 0 opening, 0 closing; 1 waiting"
    desk.back(slot)
    desk.open_for(waiting)
    assert repr(desk) == "1/1 connections: 0 idle, 1 in use, 0 opening, 0 closing; 0 waiting"


# Failures


def test_after_a_failure_one_is_tried_later_and_later() -> None:
    desk = Desk()
    for _ in range(3):
        desk.ask(patience=100)
    delays = []
    for _ in range(3):
        desk.refuse()
    assert repr(desk) == "0/3 connections: 0 idle, 0 in use, 0 opening, 0 closing; 3 waiting"
    for _ in range(12):
        due = desk.slots.due
        assert due is not None
        delays.append(round(due - desk.now, 3))
        assert desk.later(due - desk.now - 0.001) == []
        assert desk.later(0.001) == [Do.OPEN]
        desk.refuse()
    assert delays[:4] == [0.1, 0.2, 0.4, 0.8]
    assert max(delays) == delays[-1] == LONGEST_DELAY


def test_who_waits_for_the_end_of_a_back_off_is_not_forgotten_if_the_clock_moved_on_meanwhile() -> None:
    desk = Desk()
    desk.ask(patience=100)
    desk.refuse()
    desk.now += 1
    assert desk.slots.due == desk.now - 0.9


def test_who_has_waited_through_more_failures_than_he_cares_for_gets_the_last() -> None:
    desk = Desk(Limits(connections=1))
    hasty, patient = desk.ask(patience=0), desk.ask(patience=1)
    assert desk.refuse() == [Do.FAIL]
    assert desk.failed == [hasty]
    desk.later(1.0)
    assert desk.refuse() == [Do.FAIL]
    assert desk.failed == [hasty, patient]


def test_nobody_waits_for_what_would_fail_again() -> None:
    desk = Desk(Limits(connections=1))
    tickets = [desk.ask(patience=100) for _ in range(2)]
    assert desk.refuse(hopeless=True) == [Do.FAIL] * 2
    assert desk.failed == tickets


def test_while_a_connection_is_in_use_nobody_gives_up() -> None:
    desk = Desk(Limits(connections=2))
    slot = desk.open_for(desk.ask())
    ticket = desk.ask()
    assert desk.refuse(hopeless=True) == []
    desk.back(slot)
    assert desk.granted[ticket] is slot


def test_a_server_that_works_again_is_believed_after_its_first_message() -> None:
    desk = Desk()
    for _ in range(3):
        desk.ask(patience=100)
    for _ in range(3):
        desk.refuse()
    assert desk.later(1.0) == [Do.OPEN]
    slot = desk.opened()
    assert repr(desk) == "2/3 connections: 0 idle, 1 in use, 1 opening, 0 closing; 2 waiting"
    for _ in range(2):
        desk.ask(patience=100)
    assert repr(desk) == "2/3 connections: 0 idle, 1 in use, 1 opening, 0 closing; 4 waiting"
    desk.back(slot)
    assert repr(desk) == "3/3 connections: 0 idle, 1 in use, 2 opening, 0 closing; 3 waiting"


def test_a_server_that_greets_and_hangs_up_is_no_storm_of_connections() -> None:
    desk = Desk(Limits(connections=1))
    desk.ask(patience=100)
    attempts = 0
    end = desk.now + 10
    while desk.now < end:
        while any(action.do is Do.OPEN for action in desk.todo):
            attempts += 1
            desk.dead.update(action.slot for action in desk.todo if action.slot is not None)
            desk.opened()
        due = desk.slots.due
        assert due is not None
        desk.later(due - desk.now)
    assert attempts < 10


def test_a_server_that_says_it_takes_no_message_at_all_is_no_storm_of_connections() -> None:
    desk = Desk(Limits(connections=1))
    desk.ask(patience=100)
    desk.opened(most=0)
    assert [action.do for action in desk.todo] == [Do.CLOSE]
    assert desk.slots.due == desk.now + 0.1


def test_a_server_that_hangs_up_at_each_first_message_is_no_storm_of_connections() -> None:
    desk = Desk(Limits(connections=2))
    attempts = 0
    end = desk.now + 10
    for _ in range(4):
        desk.ask(patience=100)
    while desk.now < end:
        while any(action.do is Do.OPEN for action in desk.todo):
            attempts += 1
            slot = desk.opened()
            ticket = next(ticket for ticket in desk.granted if desk.granted[ticket] is slot)
            del desk.granted[ticket]
            desk.slots.spoil(slot)
            desk.slots.broken(slot, desk.now)
            desk.back(slot)
            desk.ask(patience=100)
        due = desk.slots.due
        assert due is not None
        desk.later(due - desk.now)
    assert attempts < 20  # two each time: the second is on its way when the first breaks


@pytest.mark.parametrize(("chance", "first"), [(0.0, 0.05), (0.5, 0.075), (1.0, 0.1)])
def test_the_wait_after_a_failure_is_cut_by_half_at_most(chance: float, first: float) -> None:
    desk = Desk(chance=chance)
    desk.ask(patience=1)
    desk.refuse()
    assert desk.slots.due == pytest.approx(desk.now + first)


def wait_after(use: str) -> float | None:
    """How long until the next attempt, after a failure and a connection that was used so and is over."""
    desk = Desk(Limits(connections=1))
    desk.ask(patience=100)
    for _ in range(3):
        desk.refuse()
        assert desk.slots.due is not None
        desk.later(desk.slots.due - desk.now)
    slot = desk.opened()
    if use == "spoilt":
        desk.slots.spoil(slot)
    desk.carry_out(desk.slots.give_back(slot, desk.now, unused=use == "unused") or ())
    if use != "spoilt":
        desk.carry_out(desk.slots.lost(slot, desk.now))
    desk.ask(patience=100)
    desk.refuse()
    return desk.slots.due and round(desk.slots.due - desk.now, 3)


def test_only_a_connection_that_carried_something_makes_up_for_the_failures_before_it() -> None:
    assert wait_after("used") == 0.1
    assert wait_after("unused") == 0.8
    assert wait_after("spoilt") == 0.8


def test_a_connection_that_breaks_after_it_carried_a_message_holds_up_nobody() -> None:
    desk = Desk(Limits(connections=1))
    [slot] = desk.warm()
    assert desk.slots.take(desk.now, alone=True) is slot
    waiting = desk.ask()
    desk.slots.spoil(slot)
    desk.slots.broken(slot, desk.now)
    desk.back(slot)
    desk.opened()
    assert waiting in desk.granted


# Too many


def test_too_many_lowers_the_cap_and_it_rises_again_one_by_one() -> None:
    desk = Desk(Limits(connections=5, idle=1e9, check_after=1e9))
    slots = [desk.open_for(ticket) for ticket in [desk.ask() for _ in range(4)]]
    desk.carry_out(desk.slots.crowded(slots[0], desk.now))
    assert repr(desk) == "4/3 connections, lowered from 5: 0 idle, 4 in use, 0 opening, 0 closing; 0 waiting"
    assert desk.back(slots[0]) == [Do.CLOSE]
    desk.closed()
    caps = []
    for _ in range(3):
        due = desk.slots.due
        caps.append((desk.slots.cap, due and due - desk.now))
        desk.later((due or desk.now) - desk.now)
    assert caps == [(3, LOWERED), (4, RAISED), (5, None)]


def test_one_farewell_to_many_messages_of_one_connection_is_one_too_many() -> None:
    desk = Desk(Limits(connections=5, depth=16))
    first = desk.ask(alone=False)
    slot = desk.open_for(first)
    for _ in range(6):
        desk.ask(alone=False)
    for _ in range(7):
        desk.carry_out(desk.slots.crowded(slot, desk.now))
        desk.slots.spoil(slot)
        desk.back(slot, alone=False)
    ticket = desk.ask(alone=True)
    assert desk.slots.due == desk.now + 0.1
    assert ticket not in desk.failed


def test_many_farewells_at_once_are_one_reason_to_wait() -> None:
    desk = Desk(Limits(connections=10))
    slots = [desk.open_for(ticket) for ticket in [desk.ask() for _ in range(10)]]
    for slot in slots:
        desk.carry_out(desk.slots.crowded(slot, desk.now))
        desk.slots.spoil(slot)
        desk.back(slot)
    ticket = desk.ask()
    assert (
        repr(desk) == "10/9 connections, lowered from 10: 0 idle, 0 in use, 0 opening, 10 closing; 1 waiting"
    )
    assert desk.later(0.1) == [Do.DROP, Do.DROP, Do.OPEN]
    desk.opened()
    assert ticket in desk.granted


def test_too_many_at_the_greeting_lowers_the_cap_to_what_is_there() -> None:
    desk = Desk(Limits(connections=3))
    for _ in range(3):
        desk.ask()
    desk.opened()
    desk.refuse(crowded=True)
    desk.refuse(crowded=True)
    assert repr(desk) == "1/1 connections, lowered from 3: 0 idle, 1 in use, 0 opening, 0 closing; 2 waiting"
    assert not desk.failed


def test_too_many_although_nobody_else_is_there_is_believed_for_so_long() -> None:
    desk = Desk(Limits(connections=1))
    ticket = desk.ask(patience=0)
    for _ in range(CROWDS):
        desk.refuse(crowded=True)
        assert not desk.failed
        desk.later(LONGEST_DELAY)
    desk.refuse(crowded=True)
    assert desk.failed == [ticket]


def test_what_is_idle_and_too_many_now_is_closed() -> None:
    desk = Desk()
    slots = desk.warm(3)
    assert desk.slots.take(desk.now, alone=True) is slots[-1]
    desk.carry_out(desk.slots.crowded(slots[-1], desk.now))
    assert repr(desk) == "3/2 connections, lowered from 3: 1 idle, 1 in use, 0 opening, 1 closing; 0 waiting"


# Several at a time on one connection


def test_in_a_stream_a_connection_is_lent_to_several_up_to_its_depth() -> None:
    desk = Desk(Limits(connections=1, depth=2))
    tickets = [desk.ask(alone=False) for _ in range(3)]
    slot = desk.opened()
    assert list(desk.granted) == tickets[:2]
    desk.back(slot, alone=False)
    assert desk.granted[tickets[2]] is slot
    assert slot.load == 2


def test_in_a_stream_the_connection_with_the_least_under_way_is_lent() -> None:
    desk = Desk(Limits(connections=2, depth=3))
    tickets = [desk.ask(alone=False) for _ in range(6)]
    first, second = desk.opened(), desk.opened()
    assert (first.load, second.load) == (3, 3)
    assert set(desk.granted) == set(tickets)
    desk.back(first, alone=False)
    desk.back(second, alone=False)
    desk.back(second, alone=False)
    assert desk.granted[desk.ask(alone=False)] is second


def test_in_a_stream_the_next_connection_is_opened_when_half_the_depth_is_in_use() -> None:
    desk = Desk(Limits(connections=2, depth=5))
    slot = desk.open_for(desk.ask(alone=False))
    assert not desk.todo
    desk.ask(alone=False)
    assert slot.load == 2
    assert [action.do for action in desk.todo] == [Do.OPEN]


def test_without_a_stream_nothing_is_opened_before_somebody_waits() -> None:
    desk = Desk(Limits(connections=2, depth=1))
    desk.open_for(desk.ask(alone=False))
    desk.later(1)
    assert repr(desk) == "1/2 connections: 0 idle, 1 in use, 0 opening, 0 closing; 0 waiting"


def test_after_close_a_stream_opens_no_further_connection() -> None:
    desk = Desk(Limits(connections=2, depth=2))
    desk.ask(alone=False)
    desk.ask(alone=False)
    slot = desk.opened()
    assert slot.load == 2
    desk.opened()  # in advance, for those who may come
    assert repr(desk) == "2/2 connections: 1 idle, 1 in use, 0 opening, 0 closing; 0 waiting"
    assert desk.carry_out(desk.slots.close(desk.now)) == [Do.CLOSE]
    assert desk.later(1) == []


def test_who_wants_a_connection_for_himself_gets_an_empty_one_and_nobody_else_gets_it() -> None:
    desk = Desk(Limits(connections=1, depth=2))
    slot = desk.open_for(desk.ask(alone=False))
    alone, shared = desk.ask(alone=True), desk.ask(alone=False)
    assert alone not in desk.granted
    desk.back(slot, alone=False)
    assert alone in desk.granted
    assert shared not in desk.granted
    desk.back(slot)
    assert shared in desk.granted


def test_a_connection_that_ends_is_lent_to_nobody_new_and_closed_after_the_last() -> None:
    desk = Desk(Limits(connections=2, depth=4))
    slot = desk.open_for(desk.ask(alone=False))
    desk.ask(alone=False)
    desk.slots.spoil(slot)
    third = desk.ask(alone=False)
    assert third not in desk.granted
    assert desk.back(slot, alone=False) == []
    assert desk.back(slot, alone=False) == [Do.CLOSE]


# The end


def test_after_close_who_waits_gets_nothing_and_everything_ends() -> None:
    desk = Desk()
    [used, idle] = desk.warm(2)
    assert desk.slots.take(desk.now, alone=True) is idle
    desk.slots.take(desk.now, alone=True)
    [waiting, also] = desk.ask(), desk.ask()
    desk.back(idle)
    assert desk.granted[waiting] is idle
    desk.back(used)
    assert also in desk.granted
    last = desk.ask()
    desk.carry_out(desk.slots.close(desk.now))
    assert desk.failed in ([last], [])
    while desk.todo or not desk.slots.empty:
        if any(action.do is Do.OPEN for action in desk.todo):
            desk.opened()
        elif any(action.do is Do.CLOSE for action in desk.todo):
            desk.closed()
        else:
            desk.back(next(slot for slot in desk.slots.open if slot.load))
    assert repr(desk) == "0/3 connections: 0 idle, 0 in use, 0 opening, 0 closing; 0 waiting"


def test_after_close_nothing_is_to_be_had() -> None:
    desk = Desk()
    desk.warm()
    desk.carry_out(desk.slots.close(desk.now))
    assert desk.slots.take(desk.now, alone=True) is None
    ticket = desk.ask()
    assert desk.failed == [ticket]
    assert desk.slots.due is None


def test_what_is_opened_after_close_is_closed_again() -> None:
    desk = Desk()
    desk.ask()
    desk.carry_out(desk.slots.close(desk.now))
    desk.opened()
    assert [action.do for action in desk.todo] == [Do.CLOSE]


def lent(limits: Limits = SEVERAL) -> tuple[Desk, Slot]:
    """A connection that is in use, and has carried something before."""
    desk = Desk(limits)
    ticket = Ticket(alone=False)
    desk.carry_out(desk.slots.ask(ticket, desk.now))
    slot = desk.todo.pop().slot
    assert slot is not None
    desk.carry_out(desk.slots.opened(slot, "tenant", desk.now))
    desk.slots.give_back(slot, desk.now, alone=False)
    assert desk.slots.take(desk.now, alone=False) is slot
    return desk, slot


def test_what_is_kept_has_begun_another_message() -> None:
    desk, slot = lent()
    before = slot.messages
    assert desk.slots.keep(slot, desk.now)
    assert (slot.messages, slot.load, repr(desk)) == (before + 1, 1, repr(desk))


@pytest.mark.parametrize(
    "why",
    ["young", "spoilt", "worn", "old", "somebody waits", "too many", "closed"],
)
def test_what_has_to_be_looked_at_is_not_kept_but_given_back(why: str) -> None:
    desk, slot = lent(Limits(connections=1, age=100.0))
    now, slots = desk.now, desk.slots
    if why == "young":
        slot.young = True
    elif why == "spoilt":
        slots.spoil(slot)
    elif why == "worn":
        slot.most = slot.messages
    elif why == "old":
        now = slot.expires
    elif why == "somebody waits":
        desk.carry_out(slots.ask(Ticket(), now))
    elif why == "too many":
        slots.cap = 0
        desk.carry_out(slots.tick(now))
    else:
        desk.carry_out(slots.close(now))
    before = slot.messages
    assert not slots.keep(slot, now)
    assert (slot.messages, slot.load) == (before, 1)
