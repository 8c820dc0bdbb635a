"""Who waits for a connection, or uses one, may be cancelled at any moment: nothing is lost by it."""

from __future__ import annotations

import asyncio
import random

import pytest
from ledger import FailingServer
from wire import GO, SENDER, TO, bye, envelope, hello, mark, take

from aiosmtpclient import Delivery, SMTPPool
from aiosmtpclient.testing import MailServer, ScriptedServer
from aiosmtpclient.testing.scripted import expect_content, stall

BODY = b"Subject: 0\r\n\r\nhello\r\n"


async def settled(turns: int = 20) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


@pytest.mark.timeout(120)
async def test_ten_thousand_tasks_and_as_many_cancellations_lose_no_slot() -> None:
    chance = random.Random(1)
    entered: list[int] = []
    most = 0

    async with FailingServer(1, chance, faults=0.0) as server:
        pool = SMTPPool(
            "127.0.0.1", server.port, local_hostname="client.test", max_connections=16, acquire_timeout=None
        )

        async def one(number: int) -> None:
            async with pool.connection() as smtp:
                entered.append(number)
                await smtp.sendmail(SENDER, TO, BODY)

        tasks = [asyncio.create_task(one(number)) for number in range(10_000)]
        await asyncio.sleep(0)
        for _ in range(10_000):
            chance.choice(tasks).cancel()
            for _ in range(chance.randrange(3)):
                await asyncio.sleep(0)
            most = max(most, len(pool._here().slots.all))
        results = await asyncio.gather(*tasks, return_exceptions=True)
        odd = [r for r in results if r is not None and not isinstance(r, asyncio.CancelledError)]
        assert not odd
        assert entered == sorted(entered), "not first come, first served"
        assert len(entered) > 1000
        assert most <= 16

        stats = pool.stats()
        assert (stats.in_use, stats.waiting) == (0, 0)
        async with asyncio.TaskGroup() as group:  # every slot is still there to be had
            together = asyncio.Barrier(16)

            async def meet() -> None:
                async with pool.connection() as smtp:
                    await together.wait()
                    assert (await smtp.noop()).positive

            for _ in range(16):
                group.create_task(meet())
        begun = asyncio.get_running_loop().time()
        await pool.close()
        assert asyncio.get_running_loop().time() - begun < 1.0
        assert pool.stats()[:5] == (0, 0, 0, 0, 0)


@pytest.mark.each_loop
async def test_a_cancellation_at_the_moment_of_handing_over_gives_the_slot_to_the_next() -> None:
    async with MailServer() as server, SMTPPool(server.host, server.port, max_connections=1) as pool:
        order: list[str] = []

        async def borrow(name: str) -> None:
            async with pool.connection():
                order.append(name)

        async with pool.connection():
            first, second = asyncio.create_task(borrow("first")), asyncio.create_task(borrow("second"))
            await settled()
        # Here the slot is first's, and he does not know it yet.
        assert pool.stats().in_use == 1
        first.cancel()
        await asyncio.wait([first, second])
        assert first.cancelled()
        assert order == ["second"]
        assert pool.stats().in_use == 0
        assert server.connections == 1


@pytest.mark.each_loop
async def test_a_cancellation_before_the_hand_over_is_heard_of_first() -> None:
    async with MailServer() as server, SMTPPool(server.host, server.port, max_connections=1) as pool:
        order: list[str] = []

        async def borrow(name: str) -> None:
            async with pool.connection():
                order.append(name)

        async with pool.connection():
            first, second = asyncio.create_task(borrow("first")), asyncio.create_task(borrow("second"))
            await settled()
            first.cancel()  # and in the same turn of the loop the connection comes back
        await asyncio.wait([first, second])
        assert order == ["second"]
        assert pool.stats()[:5] == (1, 0, 0, 0, 0)


async def test_what_was_granted_too_late_does_not_count_as_a_message() -> None:
    options = {"max_connections": 1, "max_messages": 2}
    async with MailServer() as server, SMTPPool(server.host, server.port, **options) as pool:
        async with pool.connection():
            waiting = asyncio.create_task(pool.sendmail(SENDER, TO, BODY))
            await settled()
        waiting.cancel()
        await asyncio.wait([waiting])
        await pool.sendmail(SENDER, TO, BODY)
        assert server.connections == 1


@pytest.mark.each_loop
async def test_a_cancelled_send_says_what_is_known_and_its_connection_is_not_used_again() -> None:
    begun = asyncio.Event()
    first = [*hello(), *envelope(TO), "DATA", GO, expect_content(), mark(begun), stall()]
    async with ScriptedServer(first, [*hello(), *take(TO), *bye()]) as server:
        async with SMTPPool(server.host, server.port, max_connections=1) as pool:
            errors: list[BaseException] = []

            async def send() -> None:
                try:
                    await pool.sendmail(SENDER, TO, BODY)
                except BaseException as error:
                    errors.append(error)
                    raise

            task = asyncio.create_task(send())
            await begun.wait()
            task.cancel()
            await asyncio.wait([task])
            assert errors[0].delivery is Delivery.UNKNOWN  # type: ignore[attr-defined]  # stamped on it
            assert pool.stats().unknown == 1
            await pool.sendmail(SENDER, TO, BODY)
            assert server.connections == 2


async def test_a_cancellation_while_it_waits_for_a_connection_is_not_sent() -> None:
    async with MailServer() as server, SMTPPool(server.host, server.port, max_connections=1) as pool:
        errors: list[BaseException] = []

        async def send() -> None:
            try:
                await pool.sendmail(SENDER, TO, BODY)
            except BaseException as error:
                errors.append(error)

        async with pool.connection():
            task = asyncio.create_task(send())
            await settled()
            task.cancel()
            await asyncio.wait([task])
        assert errors[0].delivery is Delivery.NOT_SENT  # type: ignore[attr-defined]  # stamped on it
        assert [outcome.address for outcome in errors[0].outcomes] == [TO]  # type: ignore[attr-defined]
