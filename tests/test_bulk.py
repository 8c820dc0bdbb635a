"""Many messages: a bounded window, an outcome for each, and nothing left running."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from aiosmtpclient.bulk import _Run, in_window, one_by_one
from aiosmtpclient.delivery import Delivery, Outcome

pytestmark = pytest.mark.each_loop

WINDOW = 4


class Carrier:
    """Carries messages, which are numbers; those in `held` wait until they are let go."""

    def __init__(self, *held: int) -> None:
        self.held = {number: asyncio.Event() for number in held}
        self.under_way: set[int] = set()
        self.most = 0
        self.order: list[int] = []
        self.cancelled: list[int] = []

    async def __call__(self, index: int, message: int) -> Outcome:
        self.order.append(message)
        self.under_way.add(message)
        self.most = max(self.most, len(self.under_way))
        try:
            await asyncio.sleep(0)
            if message in self.held:
                await self.held[message].wait()
        except asyncio.CancelledError:
            self.cancelled.append(message)
            raise
        finally:
            self.under_way.discard(message)
        return Outcome(index, str(message).encode(), Delivery.ACCEPTED)


class Source:
    """Gives numbers, and notes how many were taken."""

    def __init__(self, count: int, error: BaseException | None = None) -> None:
        self.count, self.error, self.taken = count, error, 0

    def __iter__(self) -> Iterator[int]:
        for number in range(self.count):
            self.taken += 1
            yield number
        if self.error is not None:
            raise self.error


class AsyncSource(Source):
    """The same, asynchronously, and angry when it is asked twice at a time."""

    asked = False

    async def __aiter__(self) -> AsyncIterator[int]:
        for number in super().__iter__():
            assert not self.asked
            self.asked = True
            await asyncio.sleep(0)
            self.asked = False
            yield number


SOURCES = [Source, AsyncSource]


async def settled() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


async def indices(outcomes: AsyncIterator[Outcome], found: list[int] | None = None) -> list[int]:
    found = [] if found is None else found
    async for outcome in outcomes:
        found.append(outcome.index)
    return found


@pytest.mark.parametrize("source", SOURCES)
async def test_each_message_has_one_outcome(source: Callable[[int], Source]) -> None:
    carrier = Carrier()
    found = await indices(in_window(source(50), carrier, WINDOW))
    assert sorted(found) == list(range(50))
    assert carrier.order == list(range(50))
    assert carrier.most <= WINDOW


@pytest.mark.parametrize("source", SOURCES)
async def test_no_more_messages_are_taken_than_are_sent_at_a_time(source: Callable[[int], Source]) -> None:
    given, carrier = source(50), Carrier(*range(50))
    run = in_window(given, carrier, WINDOW)
    first = asyncio.ensure_future(anext(run))
    await settled()
    assert carrier.under_way == set(range(WINDOW))
    assert given.taken == WINDOW
    carrier.held[2].set()
    assert (await first).index == 2
    await run.aclose()


@pytest.mark.parametrize("source", SOURCES)
async def test_no_message_is_no_outcome(source: Callable[[int], Source]) -> None:
    assert await indices(in_window(source(0), Carrier(), WINDOW)) == []
    assert await indices(one_by_one(source(0), Carrier())) == []


@pytest.mark.parametrize("source", SOURCES)
async def test_one_by_one_takes_the_next_when_the_outcome_before_it_was_taken(
    source: Callable[[int], Source],
) -> None:
    given = source(3)
    run = one_by_one(given, Carrier())
    assert (await anext(run)).index == 0
    await settled()
    assert given.taken == 1
    assert await indices(run) == [1, 2]


@pytest.mark.parametrize("source", SOURCES)
async def test_what_is_slow_holds_up_nobody_else(source: Callable[[int], Source]) -> None:
    carrier = Carrier(0)
    run = in_window(source(20), carrier, WINDOW)
    first = [(await anext(run)).index for _ in range(19)]
    assert sorted(first) == list(range(1, 20))
    carrier.held[0].set()
    assert await indices(run) == [0]


async def test_in_order_means_the_order_of_the_messages() -> None:
    carrier = Carrier(0, 5)
    run = in_window(Source(10), carrier, WINDOW, ordered=True)
    task = asyncio.create_task(indices(run))
    await settled()
    carrier.held[0].set()
    await settled()
    carrier.held[5].set()
    assert await task == list(range(10))


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("source", SOURCES)
async def test_a_slow_consumer_is_not_drowned(source: Callable[[int], Source], ordered: bool) -> None:
    given = source(1000)
    run = in_window(given, Carrier(), WINDOW, ordered=ordered)
    for seen in range(1, 20):
        await anext(run)
        await settled()
        assert given.taken - seen <= 2 * WINDOW
    await run.aclose()


async def test_those_behind_a_slow_one_do_not_pile_up_while_their_order_waits_for_it() -> None:
    given, carrier = Source(1000), Carrier(0)
    run = in_window(given, carrier, WINDOW, ordered=True)
    first = asyncio.ensure_future(anext(run))
    await settled()
    assert given.taken <= 2 * WINDOW
    carrier.held[0].set()
    assert (await first).index == 0
    await run.aclose()


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("source", SOURCES)
async def test_what_the_iterable_raises_comes_behind_the_outcomes_of_what_was_taken(
    source: Callable[[int, BaseException], Source], ordered: bool
) -> None:
    found: list[int] = []
    run = in_window(source(10, LookupError("no more")), Carrier(), WINDOW, ordered=ordered)
    with pytest.raises(LookupError, match="no more"):
        await indices(run, found)
    assert sorted(found) == list(range(10))


@pytest.mark.parametrize("source", SOURCES)
async def test_one_by_one_lets_through_what_the_iterable_raises(
    source: Callable[[int, BaseException], Source],
) -> None:
    found: list[int] = []
    with pytest.raises(LookupError):
        await indices(one_by_one(source(2, LookupError("no more")), Carrier()), found)
    assert found == [0, 1]


async def test_what_is_no_iterable_is_said_at_once() -> None:
    with pytest.raises(TypeError):
        await indices(in_window(5, Carrier(), WINDOW))  # type: ignore[arg-type]


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("where", ["iterable", "carrier"])
async def test_a_message_does_not_go_missing_in_silence_when_something_inside_is_cancelled(
    where: str, ordered: bool
) -> None:
    async def carry(index: int, message: int) -> Outcome:
        if where == "carrier" and message == 2:
            raise asyncio.CancelledError
        return await Carrier()(index, message)

    given = Source(5, asyncio.CancelledError() if where == "iterable" else None)
    found: list[int] = []
    with pytest.raises(asyncio.CancelledError):
        await indices(in_window(given, carry, WINDOW, ordered=ordered), found)
    assert {0, 1} <= set(found)


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("source", SOURCES)
async def test_who_stops_early_leaves_nothing_running(source: Callable[[int], Source], ordered: bool) -> None:
    given, carrier = source(1000), Carrier(1, 2, 3)
    run = in_window(given, carrier, WINDOW, ordered=ordered)
    await anext(run)
    await settled()
    await run.aclose()
    assert sorted(carrier.cancelled)[:3] == [1, 2, 3]
    assert not carrier.under_way
    taken = given.taken
    await settled()
    assert given.taken == taken
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_consumer_who_is_cancelled_takes_those_under_way_with_him() -> None:
    carrier = Carrier(0)
    task = asyncio.create_task(indices(in_window(Source(1), carrier, WINDOW)))
    await settled()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert carrier.cancelled == [0]
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("awaited", [False, True])
async def test_who_is_cancelled_again_while_he_stops_still_closes_the_iterable(awaited: bool) -> None:
    closed: list[str] = []

    def given() -> Iterator[int]:
        try:
            yield from range(1000)
        finally:
            closed.append("given")

    run = _Run(AsyncSource(1000) if awaited else given(), Carrier(*range(1000)), WINDOW, False)
    await settled()
    stopping = asyncio.create_task(run.stop())
    await asyncio.sleep(0)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    if run._each is not None:
        assert run._each.ag_frame is None
    else:
        assert closed == ["given"]
    await settled()  # the loop closes what the other was given
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_an_iterable_that_waits_is_not_waited_for_by_who_stops() -> None:
    async def never() -> AsyncIterator[int]:
        yield 0
        await asyncio.Event().wait()

    run = in_window(never(), Carrier(), WINDOW)
    assert (await anext(run)).index == 0
    async with asyncio.timeout(1):
        await run.aclose()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="there are no eager tasks")
@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("count", [1, WINDOW, 50])
async def test_outcomes_known_at_once_where_tasks_begin_eagerly_are_not_waited_for_in_vain(
    count: int, ordered: bool
) -> None:
    async def carry(index: int, message: int) -> Outcome:
        return Outcome(index, str(message).encode(), Delivery.NOT_SENT)

    loop = asyncio.get_running_loop()
    if not isinstance(loop, asyncio.SelectorEventLoop):
        pytest.skip("uvloop hands eager_task_factory what it does not take")
    loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]
    async with asyncio.timeout(5):
        found = await indices(in_window(Source(count), carry, WINDOW, ordered=ordered))
    assert sorted(found) == list(range(count))
