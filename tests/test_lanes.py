"""Lanes: a worker of a run keeps its connection while it has something to send and nobody else waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from test_pool_bulk import indices, numbered, pool_of
from wire import BODY, NEXT, SENDER, TO, bye, envelope, hello, take

from aiosmtpclient import Delivery, Envelope, Outcome, SMTPPool, express
from aiosmtpclient.driver import Drive
from aiosmtpclient.lending import Lender
from aiosmtpclient.pooled import PooledSMTP
from aiosmtpclient.testing import MailServer, ScriptedServer
from aiosmtpclient.testing.scripted import close, stall

pytestmark = pytest.mark.both_loops


async def used(pool: SMTPPool, *, connections: int) -> None:
    """Open so many connections, and use each of them: none is young any more."""
    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(pool.sendmail(SENDER, TO, BODY))


async def test_a_run_seldom_takes_a_connection_and_needs_no_dialogue(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[object] = []
    take_slot = Lender.take

    def counted(lender: Lender, *, alone: bool) -> Any:
        taken.append(slot := take_slot(lender, alone=alone))
        return slot

    async with MailServer() as server, pool_of(server, max_connections=4) as pool:
        await used(pool, connections=4)
        with monkeypatch.context() as patch:
            patch.setattr(Drive, "run", None)
            patch.setattr(Lender, "take", counted)
            found = [one async for one in pool.send_messages(map(numbered, range(200)), ordered=True)]
        assert [(one.index, one.delivery, one.attempts, one.error) for one in found] == [
            (number, Delivery.ACCEPTED, 1, None) for number in range(200)
        ]
        assert all(one.result is not None and one.result.accepted == (TO,) for one in found)
        assert len(taken) < 100
        stats = pool.stats()
        assert (stats.idle, stats.in_use, stats.accepted) == (4, 0, 204)
        assert server.connections == 4


async def test_whoever_waits_gets_the_connection_between_two_messages() -> None:
    async with MailServer() as server, pool_of(server, max_connections=1) as pool:
        await used(pool, connections=1)
        run = pool.send_messages(map(numbered, range(50)))
        await anext(run)
        other = asyncio.create_task(pool.sendmail(SENDER, NEXT, BODY))
        found = [one.index async for one in run if not other.done()]
        assert (await other).accepted == (NEXT,)
        assert len(found) < 40


async def test_a_connection_carries_no_more_of_a_run_than_it_may() -> None:
    async with MailServer() as server, pool_of(server, max_connections=1, max_messages=3) as pool:
        found = [one async for one in pool.send_messages(map(numbered, range(10)))]
        carriers = [one.connection for one in found]
        assert server.connections == len(set(carriers)) == 4
        assert max(map(carriers.count, carriers)) == 3


async def test_a_run_that_waits_for_its_next_message_holds_no_connection() -> None:
    more = asyncio.Event()

    async def slow() -> AsyncIterator[Envelope]:
        yield numbered(0)
        await more.wait()
        yield numbered(1)

    async with MailServer() as server, pool_of(server, max_connections=1) as pool:
        await used(pool, connections=1)
        run = pool.send_messages(slow())
        assert (await anext(run)).index == 0
        assert pool.stats().in_use == 0
        more.set()
        assert [one.index async for one in run] == [1]


async def test_a_run_whose_outcomes_nobody_takes_holds_no_connection() -> None:
    async with MailServer() as server, pool_of(server, max_connections=2) as pool:
        await used(pool, connections=2)
        run = pool.send_messages(map(numbered, range(20)))
        first = await anext(run)
        while len(server.messages) < 2 + 3:
            await asyncio.sleep(0)
        async with asyncio.timeout(5):
            while pool.stats().in_use:
                await asyncio.sleep(0)
        rest = [one.index async for one in run]
        assert sorted([first.index, *rest]) == list(range(20))


async def test_a_run_that_is_left_early_gives_everything_back() -> None:
    async with MailServer() as server, pool_of(server, max_connections=2) as pool:
        await used(pool, connections=2)
        run = pool.send_messages(map(numbered, range(1000)))
        await anext(run)
        await run.aclose()
        assert pool.stats().in_use == 0
        assert (await pool.sendmail(SENDER, TO, BODY)).accepted == (TO,)


async def test_what_cannot_be_sent_costs_no_connection() -> None:
    def mixed() -> Iterator[Any]:
        yield numbered(0)
        yield "no message at all"
        yield Envelope(SENDER, "no@address@at.all", BODY)
        yield Envelope(SENDER, TO, b"a NUL \0 in it")
        yield numbered(1)

    async with MailServer() as server, pool_of(server, max_connections=1) as pool:
        await used(pool, connections=1)
        found: list[Outcome] = [one async for one in pool.send_messages(mixed())]
        assert [(one.delivery, type(one.error)) for one in found] == [
            (Delivery.ACCEPTED, type(None)),
            (Delivery.NOT_SENT, TypeError),
            (Delivery.NOT_SENT, ValueError),
            (Delivery.NOT_SENT, ValueError),
            (Delivery.ACCEPTED, type(None)),
        ]
        assert server.connections == 1
        assert pool.stats()[:5] == (1, 0, 0, 0, 0)


async def test_a_refused_recipient_is_told_and_the_connection_goes_on() -> None:
    script = [*hello("PIPELINING"), *take(TO), *envelope(TO), f"RCPT TO:<{NEXT}>", b"550 no\r\n"]
    script += [*take(TO)[len(envelope(TO)) :], *take(TO), *bye()]
    messages = [Envelope(SENDER, (TO, NEXT), BODY), Envelope(SENDER, TO, BODY)]
    async with ScriptedServer(script) as server, pool_of(server, max_connections=1) as pool:
        await used(pool, connections=1)
        first, second = [one async for one in pool.send_messages(messages)]
        assert first.result is not None
        assert (list(first.result), first.result.accepted, first.attempts) == ([NEXT], (TO,), 1)
        assert second.delivery is Delivery.ACCEPTED


async def test_a_message_whose_connection_dies_goes_over_another() -> None:
    dying = [*hello("PIPELINING"), *take(TO), *take(TO), *envelope(TO), close()]
    async with ScriptedServer(dying, [*hello("PIPELINING"), *take(TO), *bye()]) as server:
        async with pool_of(server, max_connections=1) as pool:
            await used(pool, connections=1)
            found = [one async for one in pool.send_messages(Envelope(SENDER, TO, BODY) for _ in range(2))]
            assert [(one.delivery, one.attempts) for one in found] == [
                (Delivery.ACCEPTED, 1),
                (Delivery.ACCEPTED, 2),
            ]
            assert pool.stats().retried == 1
            assert pool.stats().accepted == 3


@pytest.mark.parametrize("where", ["begin", "account"])
async def test_what_fails_for_want_of_memory_leaves_no_slot_behind(
    monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise MemoryError

    async with MailServer() as server, pool_of(server, max_connections=1) as pool:
        await used(pool, connections=1)
        run, found = pool.send_messages(map(numbered, range(3))), []
        with monkeypatch.context() as patch:
            if where == "begin":
                patch.setattr(PooledSMTP, "begin", fail)
                await indices(run, found)
                assert found == [0, 1, 2]  # it was tried, and went the long way
            else:
                patch.setattr("aiosmtpclient.lanes.SendResult", fail)
                with pytest.raises(MemoryError):
                    await indices(run, found)
        assert pool.stats()[:5] == (1, 0, 0, 0, 0)
        assert (await pool.sendmail(SENDER, TO, BODY)).accepted == (TO,)


async def test_who_is_cancelled_half_way_loses_no_slot_and_knows_what_is_known() -> None:
    silent = [*hello("PIPELINING"), *take(TO), *envelope(TO), stall()]
    async with ScriptedServer(silent, [*hello("PIPELINING"), *take(TO), *bye()]) as server:
        async with pool_of(server, max_connections=1) as pool:
            await used(pool, connections=1)
            run = pool.send_messages(Envelope(SENDER, TO, BODY) for _ in range(3))
            reader = asyncio.create_task(anext(run))  # type: ignore[arg-type]  # it is a coroutine here
            while server.received[0].count(b"MAIL") < 2:
                await asyncio.sleep(0)
            reader.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reader
            stats = pool.stats()
            assert (stats.in_use, stats.accepted, stats.not_sent, stats.unknown) == (0, 1, 1, 0)
            assert (await pool.sendmail(SENDER, TO, BODY)).accepted == (TO,)


@pytest.mark.parametrize("options", [{"rate_limit": 1e6}, {"pipelining": "stream"}, {"pipelining": "off"}])
async def test_where_something_has_to_be_waited_for_nothing_is_begun_at_once(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    monkeypatch.setattr(express.Begun, "accepted", None)
    async with MailServer() as server, pool_of(server, **options) as pool:
        found = [one async for one in pool.send_messages(map(numbered, range(5)))]
        assert {one.delivery for one in found} == {Delivery.ACCEPTED}
