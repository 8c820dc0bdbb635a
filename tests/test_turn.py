"""The turn: handed on in the order of arrival, never lost, and never held by two."""

from __future__ import annotations

import asyncio

import pytest

from aiosmtpclient import turn as room
from aiosmtpclient.turn import Lease, Turn

pytestmark = pytest.mark.each_loop


async def queue_up(turn: Turn, *names: str) -> tuple[list[str], dict[str, asyncio.Task[Lease]]]:
    """Tasks that wait for the turn, in this order; who had it is written down."""
    had: list[str] = []

    async def wait(name: str) -> Lease:
        lease = await turn.take()
        had.append(name)
        return lease

    tasks = {name: asyncio.create_task(wait(name)) for name in names}
    await settled()
    return had, tasks


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_turn_that_nobody_has_is_taken_at_once() -> None:
    turn = Turn()
    coroutine = turn.take()
    with pytest.raises(StopIteration):
        coroutine.send(None)


async def test_who_waits_longest_is_next() -> None:
    turn = Turn()
    lease = await turn.take()
    had, tasks = await queue_up(turn, "first", "second", "third")
    assert had == []
    for name in ("first", "second", "third"):
        lease.give_back()
        await settled()
        assert had[-1] == name
        lease = tasks[name].result()
    assert had == ["first", "second", "third"]


async def test_who_comes_between_the_handing_over_and_its_taking_waits_like_anybody() -> None:
    turn = Turn()
    lease = await turn.take()
    had, tasks = await queue_up(turn, "first")
    lease.give_back()
    late = asyncio.create_task(turn.take())
    await settled()
    assert had == ["first"]
    assert not late.done()
    tasks["first"].result().give_back()
    assert (await late).held


async def test_a_turn_is_given_back_once_however_often_one_says_so() -> None:
    turn = Turn()
    lease = await turn.take()
    had, tasks = await queue_up(turn, "first", "second")
    lease.give_back()
    lease.give_back()
    await settled()
    assert had == ["first"]
    assert not lease.held
    tasks["first"].result().give_back()
    await tasks["second"]


async def test_who_is_cancelled_while_waiting_is_passed_over() -> None:
    turn = Turn()
    lease = await turn.take()
    had, tasks = await queue_up(turn, "first", "second", "third")
    tasks["second"].cancel()
    lease.give_back()
    await settled()
    tasks["first"].result().give_back()
    await settled()
    assert had == ["first", "third"]


async def test_a_turn_handed_to_somebody_who_is_cancelled_goes_on_to_the_next() -> None:
    turn = Turn()
    lease = await turn.take()
    had, tasks = await queue_up(turn, "first", "second")
    lease.give_back()
    tasks["first"].cancel()  # it is his already, and he has not run yet
    await settled()
    assert tasks["first"].cancelled()
    assert had == ["second"]


async def test_a_turn_handed_to_the_only_one_who_is_cancelled_is_free_again() -> None:
    turn = Turn()
    lease = await turn.take()
    _, tasks = await queue_up(turn, "only")
    lease.give_back()
    tasks["only"].cancel()
    await settled()
    async with asyncio.timeout(1):
        assert (await turn.take()).held


async def test_who_cancels_himself_before_he_waits_blocks_nobody() -> None:
    turn = Turn()
    lease = await turn.take()

    async def hasty() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await turn.take()

    task = asyncio.create_task(hasty())
    await settled()
    assert task.cancelled()
    had, _ = await queue_up(turn, "next")
    lease.give_back()
    await settled()
    assert had == ["next"]


async def test_all_who_wait_may_be_cancelled_at_once() -> None:
    turn = Turn()
    lease = await turn.take()
    had, tasks = await queue_up(turn, *map(str, range(100)))
    lease.give_back()
    for task in tasks.values():
        task.cancel()
    await settled()
    assert had == []
    async with asyncio.timeout(1):
        assert (await turn.take()).held


@pytest.mark.parametrize("waits", [False, True])
async def test_a_turn_that_there_was_no_memory_to_give_is_not_lost(
    monkeypatch: pytest.MonkeyPatch, waits: bool
) -> None:
    def no_memory(turn: Turn) -> Lease:
        raise MemoryError

    turn = Turn()
    lease = await turn.take() if waits else None
    with monkeypatch.context() as patch:
        patch.setattr(room, "Lease", no_memory)
        if lease is None:
            with pytest.raises(MemoryError):
                turn.at_once()
        unlucky = asyncio.create_task(turn.take())
        await settled()
        if lease is not None:
            lease.give_back()
        with pytest.raises(MemoryError):
            async with asyncio.timeout(1):
                await unlucky
    async with asyncio.timeout(1):
        assert (await turn.take()).held
