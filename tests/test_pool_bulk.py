"""`send_messages` of a pool: each message once, whatever dies, stops or raises."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from email.message import EmailMessage
from typing import Any

import pytest
from ledger import FailingServer
from wire import BODY, GO, OK, SENDER, TO, bye, envelope, hello, mark, take, wait_for

from aiosmtpclient import AsyncSMTP, Delivery, Envelope, Outcome, SMTPPool
from aiosmtpclient.testing import MailServer, ScriptedServer
from aiosmtpclient.testing.scripted import expect_content, stall

pytestmark = pytest.mark.both_loops
each_mode = pytest.mark.parametrize("mode", ["message", "stream"])


def pool_of(server: Any, **options: Any) -> SMTPPool:
    return SMTPPool(server.host, server.port, **{"max_connections": 4, **options})


def numbered(number: int, body: bytes = b"") -> Envelope:
    return Envelope(SENDER, TO, b"Subject: %d\r\n\r\n%s\r\n" % (number, body))


def subjects(server: MailServer) -> list[int]:
    return [int(taken.message["Subject"]) for taken in server.messages]


async def indices(run: AsyncIterator[Outcome], found: list[int]) -> None:
    async for one in run:
        found.append(one.index)


class Notes:
    """A journal that keeps everything, and notices what must not be.

    Attributes:
        lines: ("begin" or "end", index), in order.
    """

    def __init__(self) -> None:
        self.lines: list[tuple[str, int]] = []
        self.outcomes: dict[int, Outcome] = {}

    def begin(self, index: int, message: object) -> None:
        self.lines.append(("begin", index))

    def end(self, outcome: Outcome) -> None:
        assert outcome.index not in self.outcomes, "ended twice"
        self.lines.append(("end", outcome.index))
        self.outcomes[outcome.index] = outcome


@each_mode
async def test_every_message_has_one_outcome_and_all_connections_carry_some(mode: Any) -> None:
    async with MailServer() as server, pool_of(server, pipelining=mode) as pool:
        found = [one async for one in pool.send_messages(numbered(n) for n in range(200))]
        assert sorted(one.index for one in found) == list(range(200))
        assert {one.delivery for one in found} == {Delivery.ACCEPTED}
        assert sorted(subjects(server)) == list(range(200))
        assert len({one.connection for one in found}) == server.connections <= 4
        assert pool.stats().accepted == 200


async def test_messages_spread_over_the_connections() -> None:
    async with MailServer() as server, pool_of(server) as pool:
        found = [one async for one in pool.send_messages(numbered(n) for n in range(400))]
        carriers = Counter(one.connection for one in found)
        assert len(carriers) == 4


@each_mode
async def test_in_order_means_the_order_of_the_messages(mode: Any) -> None:
    async with MailServer() as server, pool_of(server, pipelining=mode) as pool:
        run = pool.send_messages((numbered(n) for n in range(100)), ordered=True)
        assert [one.index async for one in run] == list(range(100))


@each_mode
async def test_a_slow_consumer_stops_the_producer(mode: Any) -> None:
    taken = 0

    def messages() -> Iterator[Envelope]:
        nonlocal taken
        for number in range(100_000):
            taken += 1
            yield numbered(number)

    async with MailServer() as server, pool_of(server, pipelining=mode) as pool:
        window = 4 if mode == "message" else 64
        run = pool.send_messages(messages())
        for seen in range(1, 11):
            await anext(run)
            for _ in range(300):
                await asyncio.sleep(0)
            assert taken - seen <= 2 * window
        await run.aclose()
        assert pool.stats()[1] == 0
    assert len(server.messages) <= 10 + 2 * window


async def test_an_asynchronous_iterable_is_pulled_as_well() -> None:
    async def messages() -> AsyncIterator[Envelope]:
        for number in range(20):
            await asyncio.sleep(0)
            yield numbered(number)

    async with MailServer() as server, pool_of(server) as pool:
        assert len([one async for one in pool.send_messages(messages())]) == 20


async def test_a_message_that_is_bad_itself_is_an_outcome() -> None:
    bad = EmailMessage()
    messages = [
        numbered(0),
        Envelope("a\r\nb", TO, BODY),
        bad,
        Envelope(SENDER, TO, b"\0"),
        "text",
        numbered(5),
    ]
    async with MailServer() as server, pool_of(server) as pool:
        run = pool.send_messages(messages, ordered=True)  # type: ignore[arg-type]  # that is the point
        found = [one async for one in run]
    kinds = [type(one.error).__name__ for one in found]
    assert kinds == ["NoneType", "ValueError", "ValueError", "ValueError", "TypeError", "NoneType"]
    assert [one.delivery for one in found][1:5] == [Delivery.NOT_SENT] * 4


@each_mode
async def test_what_the_iterable_raises_comes_behind_the_outcomes(mode: Any) -> None:
    def messages() -> Iterator[Envelope]:
        for number in range(10):
            yield numbered(number)
        raise LookupError("no more")

    found: list[int] = []
    async with MailServer() as server, pool_of(server, pipelining=mode) as pool:
        with pytest.raises(LookupError):
            await indices(pool.send_messages(messages()), found)
    assert sorted(found) == list(range(10))


@each_mode
@pytest.mark.parametrize("how", ["aclose", "cancel"])
async def test_who_stops_early_leaves_nothing_running_and_each_message_is_accounted_for(
    mode: Any, how: str
) -> None:
    notes = Notes()
    async with MailServer() as server, pool_of(server, pipelining=mode) as pool:
        run = pool.send_messages((numbered(n) for n in range(1000)), journal=notes)
        seen: list[int] = []

        async def consume() -> None:
            async for one in run:
                seen.append(one.index)
                if len(seen) == 20:
                    if how == "aclose":
                        return
                    await asyncio.Event().wait()

        task = asyncio.create_task(consume())
        while len(seen) < 20:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await run.aclose()
        assert pool.stats().in_use == 0
        begun = {index for what, index in notes.lines if what == "begin"}
        assert begun <= set(notes.outcomes)
        assert set(seen) <= set(notes.outcomes)
    accepted = {index for index, one in notes.outcomes.items() if one.delivery is Delivery.ACCEPTED}
    unknown = {index for index, one in notes.outcomes.items() if one.delivery is Delivery.UNKNOWN}
    assert accepted <= set(subjects(server)) <= accepted | unknown
    assert max(Counter(subjects(server)).values()) == 1


async def test_connections_that_die_lose_no_message() -> None:
    import random

    async with FailingServer(300, random.Random(3), faults=0.5) as server:
        pool = SMTPPool("127.0.0.1", server.port, chunking="off", retries=10, max_messages=10)
        async with pool:
            found = [one async for one in pool.send_messages(numbered(n) for n in range(300))]
        assert sorted(one.index for one in found) == list(range(300))
        assert server.cut


# The journal


async def test_the_journal_knows_of_a_message_before_the_server_does() -> None:
    notes = Notes()
    known: list[bool] = []

    def asked(_: str) -> None:
        known.append(bool(notes.lines) and notes.lines[-1][0] == "begin")

    async with MailServer(refuse_sender=asked) as server, pool_of(server, max_connections=1) as pool:
        async for _ in pool.send_messages((numbered(n) for n in range(5)), journal=notes):
            pass
    assert known == [True] * 5
    assert notes.lines == [(what, n) for n in range(5) for what in ("begin", "end")]


async def test_the_journal_hears_of_each_attempt() -> None:
    script = [*hello(), "MAIL", stall()]
    notes = Notes()
    reached = asyncio.Event()
    script = [*hello(), "MAIL", mark(reached)]
    async with ScriptedServer(script, [*hello(), *take(TO), *bye()]) as server:
        async with pool_of(server, max_connections=1) as pool:
            [one] = [one async for one in pool.send_messages([numbered(0)], journal=notes)]
    assert notes.lines == [("begin", 0), ("begin", 0), ("end", 0)]
    assert one.attempts == 2


async def test_the_journal_hears_of_what_was_cancelled_before_anything_else_begins_there() -> None:
    reached = asyncio.Event()
    first = [*hello(), *envelope(TO), "DATA", GO, expect_content(), mark(reached), stall()]
    notes = Notes()
    async with ScriptedServer(first, [*hello(), *take(TO), *bye()]) as server:
        async with pool_of(server, max_connections=1) as pool:
            run = pool.send_messages([numbered(0)], journal=notes)
            task = asyncio.create_task(anext(run))  # type: ignore[arg-type]  # any awaitable
            await reached.wait()
            task.cancel()
            await asyncio.wait([task])
            assert notes.lines == [("begin", 0), ("end", 0)]
            assert notes.outcomes[0].delivery is Delivery.UNKNOWN
            assert isinstance(notes.outcomes[0].error, asyncio.CancelledError)
            await pool.sendmail(SENDER, TO, BODY)
            await run.aclose()


@each_mode
@pytest.mark.parametrize("where", ["begin", "end"])
@pytest.mark.parametrize("of", ["pool", "client"])
async def test_a_journal_that_raises_ends_the_run_with_its_error(mode: Any, where: str, of: str) -> None:
    class Full(Notes):
        def begin(self, index: int, message: object) -> None:
            super().begin(index, message)
            if where == "begin" and index == 3:
                raise OSError("disk full")

        def end(self, outcome: Outcome) -> None:
            super().end(outcome)
            if where == "end" and outcome.index == 3:
                raise OSError("disk full")

    notes = Full()
    found: list[int] = []
    async with MailServer() as server:
        options: dict[str, Any] = {"pipelining": mode}
        sender = (
            pool_of(server, **options) if of == "pool" else AsyncSMTP(server.host, server.port, **options)
        )
        async with sender:
            with pytest.raises(OSError, match="disk full"):
                await indices(sender.send_messages(map(numbered, range(10_000)), journal=notes), found)
            assert 3 not in found
            assert len(server.messages) < 1000
            # And nobody is harmed by it.
            await sender.sendmail(SENDER, TO, BODY)
    began = [index for what, index in notes.lines if what == "begin"]
    assert set(began) - {3} <= set(notes.outcomes)


async def test_what_was_begun_when_the_pool_is_closed_is_accounted_for() -> None:
    reached, never = asyncio.Event(), asyncio.Event()
    script = [*hello(), *envelope(TO), "DATA", GO, expect_content(), mark(reached), wait_for(never), OK]
    notes = Notes()
    async with ScriptedServer(script) as server:
        pool = pool_of(server, max_connections=1)
        found: list[Outcome] = []

        async def consume() -> None:
            async for one in pool.send_messages((numbered(n) for n in range(3)), journal=notes):
                found.append(one)

        task = asyncio.create_task(consume())
        await reached.wait()
        await pool.close(0.02)
        await task
        assert [one.delivery for one in sorted(found, key=lambda one: one.index)] == [
            Delivery.UNKNOWN,
            Delivery.NOT_SENT,
            Delivery.NOT_SENT,
        ]
        never.set()
