"""A pool and its server: parked connections, limits of the server, too many, storms, and the rate."""

from __future__ import annotations

import asyncio
import io
import select
import threading
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slow import Taker
from wire import BODY, OK, SENDER, TO, bye, hello, mark, take, wait_for

from aiosmtpclient import Envelope, RateLimit, SMTPException, SMTPPool, pooled
from aiosmtpclient.rates import Bucket
from aiosmtpclient.testing import Conversation, MailServer, ScriptedServer
from aiosmtpclient.testing.scripted import Step, close, drop, greeting, read_all, stall

LATE = b"421 4.4.2 idle for too long\r\n"
AGAIN = [*hello(), *take(TO), *bye()]


def pool_of(server: Any, **options: Any) -> SMTPPool:
    return SMTPPool(server.host, server.port, **{"max_connections": 1, "chunking": "off", **options})


async def send(pool: SMTPPool) -> None:
    assert (await pool.sendmail(SENDER, TO, BODY)).accepted == (TO,)


# Parked connections


@pytest.mark.each_loop
@pytest.mark.parametrize("farewell", [[close()], [LATE, close()], [LATE, stall()], [drop()]])
async def test_a_parked_connection_that_the_server_ended_is_replaced_unseen(farewell: list[Step]) -> None:
    go_on = asyncio.Event()
    first = [*hello(), *take(TO), wait_for(go_on), *farewell]
    async with ScriptedServer(first, AGAIN) as server, pool_of(server) as pool:
        await send(pool)
        go_on.set()
        for _ in range(20):  # the loop has read it by then
            await asyncio.sleep(0)
        await send(pool)
        assert server.received[0].count(b"MAIL") == 1
        assert b"NOOP" not in server.received[0]
        assert pool.stats().retried == 0
        assert pool.stats().opened == 2
        assert pool.stats().cap == 1


@pytest.mark.parametrize("farewell", [[close()], [LATE, close()], [LATE, stall()]])
async def test_a_farewell_that_the_loop_has_not_read_yet_is_seen(
    farewell: list[Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pooled, "SEEN", 0.0)
    go_on = threading.Event()

    async def wait(_: Conversation) -> None:
        await asyncio.to_thread(go_on.wait)

    with ScriptedServer([*hello(), *take(TO), wait, *farewell], AGAIN) as server:
        async with pool_of(server) as pool:
            await send(pool)
            [slot] = pool._here().slots.all
            transport = slot.tenant._connection.protocol.transport  # type: ignore[attr-defined]
            number = transport.get_extra_info("socket").fileno()
            go_on.set()
            assert select.select([number], [], [], 5)[0]  # the loop stands still meanwhile
            await send(pool)
            assert server.received[0].count(b"MAIL") == 1
            assert pool.stats().retried == 0


async def test_noop_is_said_only_after_so_long_without_use() -> None:
    script = [*hello(), *take(TO), "NOOP", OK, *take(TO), *bye()]
    async with ScriptedServer(script) as server, pool_of(server, check_after=1e-9) as pool:
        await send(pool)
        await send(pool)
        assert pool.stats().opened == 1


@pytest.mark.parametrize(
    "answer", [[LATE, close()], [b"500 what?\r\n", read_all()], [drop()], [b"nonsense\r\n"]]
)
async def test_one_that_gives_no_good_answer_to_noop_is_replaced_unseen(answer: list[Step]) -> None:
    first = [*hello(), *take(TO), "NOOP", *answer]
    async with ScriptedServer(first, AGAIN) as server, pool_of(server, check_after=1e-9) as pool:
        await send(pool)
        await send(pool)
        assert pool.stats().retried == 0


async def test_a_pool_that_turns_to_lock_step_while_one_is_being_asked_does_not_forget_that_one() -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()
    first = [*hello("PIPELINING"), *take(TO), "NOOP", mark(asked), wait_for(go_on), OK, *take(TO), *bye()]
    async with ScriptedServer(first) as server, pool_of(server, check_after=1e-9) as pool:
        await send(pool)
        sending = asyncio.create_task(send(pool))
        await asked.wait()
        pool._here().write_in_lock_step()
        go_on.set()
        await sending
        assert [slot.tenant._pipelining for slot in pool._here().slots.all] == ["off"]


async def test_one_that_does_not_answer_noop_in_time_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pooled, "PATIENCE", 0.05)
    async with ScriptedServer([*hello(), *take(TO), "NOOP", stall()], AGAIN) as server:
        async with pool_of(server, check_after=1e-9) as pool:
            await send(pool)
            await send(pool)


@pytest.mark.each_loop
async def test_a_connection_that_nobody_uses_is_closed() -> None:
    gone = asyncio.Event()
    async with ScriptedServer([*hello(), *take(TO), *bye(), mark(gone)]) as server:
        async with pool_of(server, max_idle=0.02) as pool:
            await send(pool)
            await gone.wait()
            async with asyncio.timeout(5):
                while pool.stats()[:5] != (0, 0, 0, 0, 0):
                    await asyncio.sleep(0)


async def test_a_connection_that_nobody_uses_is_closed_in_time_also_while_the_cap_is_lowered() -> None:
    gone = asyncio.Event()
    script = [*hello(), "MAIL", b"451 4.7.0 slow\r\n", "RSET", OK, *take(TO), *bye(), mark(gone)]
    async with ScriptedServer(script) as server:
        async with pool_of(server, max_connections=3, max_idle=0.8) as pool:
            await send(pool)
            assert pool.stats().cap == 1
            async with asyncio.timeout(5):
                await gone.wait()


# What the server wants


@pytest.mark.parametrize("options", [{"max_messages": 2}, {}])
async def test_no_more_messages_on_a_connection_than_may_be(options: dict[str, Any]) -> None:
    offers = () if options else ("LIMITS MAILMAX=2",)
    two = [*hello(*offers), *take(TO), *take(TO), *bye()]
    async with ScriptedServer(two, two, repeat_last=False) as server, pool_of(server, **options) as pool:
        for _ in range(4):
            await send(pool)
        assert server.connections == 2


async def test_what_a_borrower_sends_counts_for_the_servers_limit() -> None:
    three = [*hello("LIMITS MAILMAX=3"), *take(TO), *take(TO), *take(TO), *bye()]
    async with ScriptedServer(three, AGAIN) as server, pool_of(server) as pool:
        async with pool.connection() as smtp:
            await smtp.sendmail(SENDER, TO, BODY)
            await smtp.mail(SENDER)
            await smtp.rcpt(TO)
            await smtp.data(BODY)
        await send(pool)
        await send(pool)


# Too many


class Crowd:
    """A script for servers that take so many connections at a time, and say so to the others."""

    def __init__(self, most: int, says: bytes) -> None:
        self.most, self.says = most, says
        self.open = self.refused = 0

    async def __call__(self, conversation: Conversation) -> None:
        if self.open >= self.most:
            self.refused += 1
            await conversation.say(self.says)
            return
        self.open += 1
        taker = Taker()
        try:
            await conversation.say(b"220 hi\r\n")
            read = 0
            while not taker.over and not conversation.gone.is_set():
                octets = await conversation.read_exactly(1)
                octets += await conversation.read_exactly(len(conversation.received) - read - 1)
                read += len(octets)
                await conversation.say(taker.feed(octets))
        except AssertionError:
            pass  # the client left
        finally:
            self.open -= 1


@pytest.mark.parametrize(
    "says",
    [b"421 4.7.0 too many\r\n", b"454 4.7.0 many\r\n", b"432 4.7.12 wait\r\n", b"450 4.7.1 no\r\n"],
)
async def test_too_many_at_the_greeting_lowers_the_cap_and_fails_no_message(says: bytes) -> None:
    crowd = Crowd(3, says)
    async with ScriptedServer(crowd) as server, pool_of(server, max_connections=10) as pool:
        await asyncio.gather(*(send(pool) for _ in range(100)))
        assert 1 <= pool.stats().cap <= 3
        assert "lowered from 10" in repr(pool)
        assert crowd.refused <= 10


async def test_too_many_at_auth_is_waited_for() -> None:
    first = [*hello("AUTH PLAIN"), "AUTH", b"454 4.7.0 too many logins\r\n", *bye()]
    again = [*hello("AUTH PLAIN"), "AUTH", b"235 in\r\n", *take(TO), *bye()]
    async with ScriptedServer(first, again) as server:
        async with pool_of(server, username="me", password="secret", retries=0) as pool:
            await send(pool)


async def test_a_wrong_password_is_said_at_once() -> None:
    async with MailServer(users={"me": "right"}) as server:
        async with pool_of(server, username="me", password="wrong") as pool:
            with pytest.raises(SMTPException, match="credentials"):
                await pool.sendmail(SENDER, TO, BODY)
        assert server.connections == 1


@pytest.mark.parametrize("says", [b"451 4.7.1 slow down\r\n", b"421 4.7.0 bye\r\n"])
async def test_too_many_at_mail_retries_the_message(says: bytes) -> None:
    leaves = says.startswith(b"421")
    first = [*hello(), "MAIL", says] + ([close()] if leaves else ["RSET", OK, *take(TO), *bye()])
    async with ScriptedServer(first, AGAIN) as server, pool_of(server, retries=0) as pool:
        await send(pool)
        assert pool.stats().retried == 1


# Storms


@pytest.mark.parametrize(
    "script",
    [[drop()], [greeting(), drop()], [*hello(), drop()], [*hello(), "MAIL", drop()]],
    ids=["accepts", "greets", "says what it offers", "takes MAIL"],
)
async def test_a_broken_server_is_no_storm_of_connections(script: list[Step]) -> None:
    async def endless() -> Any:
        while True:
            yield Envelope(SENDER, TO, BODY)

    async with ScriptedServer(script) as server:
        async with pool_of(server, max_connections=4) as pool:
            try:
                async with asyncio.timeout(2.0):
                    async for _ in pool.send_messages(endless()):
                        pass
            except TimeoutError:
                pass
        # Peers have opened 53 in eight seconds.
        assert server.connections <= 20


async def test_when_the_server_is_back_everybody_is_served_soon() -> None:
    down = [drop()]
    up = Crowd(10, b"")
    async with ScriptedServer(*[down] * 6, up) as server:
        async with pool_of(server, max_connections=4, retries=6) as pool:
            await asyncio.gather(*(send(pool) for _ in range(40)))
        assert 7 <= server.connections <= 10


# The rate


@given(
    rate=st.floats(0.1, 1000),
    burst=st.integers(1, 20),
    waits=st.lists(st.floats(0, 3), min_size=1, max_size=60),
)
def test_over_no_stretch_of_time_is_a_bucket_more_generous_than_its_limit(
    rate: float, burst: int, waits: list[float]
) -> None:
    bucket, now, taken = Bucket(RateLimit(rate, burst)), 0.0, []
    for wait in waits:
        now += wait / rate
        while (seconds := bucket.wait(now)) > 0:
            now += seconds + 1e-9
        bucket.take(now)
        taken.append(now)
    for first, begin in enumerate(taken):
        for last in range(first, len(taken)):
            assert last - first + 1 <= burst + rate * (taken[last] - begin) + 1e-6


def test_a_bucket_lets_through_as_much_as_its_limit_says() -> None:
    bucket, now, taken = Bucket(RateLimit(10, 5)), 0.0, 0
    while now < 10:
        if not bucket.wait(now):
            bucket.take(now)
            taken += 1
        else:
            now += bucket.wait(now)
    assert 100 <= taken <= 106


@pytest.mark.each_loop
@pytest.mark.parametrize("mode", ["message", "stream"])
async def test_the_rate_is_never_exceeded_by_all_connections_and_borrowers_together(mode: Any) -> None:
    moments: list[float] = []

    def trace(event: str, octets: bytes) -> None:
        if event == "send" and octets.startswith(b"MAIL"):
            moments.append(time.monotonic())

    async with MailServer() as server:
        options = {"max_connections": 4, "rate_limit": (100, 3), "trace": trace, "pipelining": mode}
        async with pool_of(server, **options) as pool:

            async def borrow() -> None:
                async with pool.connection() as smtp:
                    for _ in range(5):
                        await smtp.sendmail(SENDER, TO, BODY)
                    await smtp.mail(SENDER)

            async def of_a_file() -> None:
                await pool.sendmail(SENDER, TO, io.BytesIO(BODY * 1000))

            sends = [send(pool) for _ in range(15)] + [of_a_file() for _ in range(5)]
            await asyncio.gather(*sends, borrow(), borrow())
    assert len(moments) == 32
    for first, begin in enumerate(moments):
        for last in range(first, len(moments)):
            # A moment may pass between the bucket and the wire: less than one message's time.
            assert last - first + 1 <= 3 + 100 * (moments[last] - begin) + 0.99


async def test_who_waits_for_the_rate_can_be_cancelled_and_takes_nothing() -> None:
    async with MailServer() as server, pool_of(server, rate_limit=0.001) as pool:
        await send(pool)
        task = asyncio.create_task(send(pool))
        for _ in range(20):
            await asyncio.sleep(0)
        assert pool.stats().in_use == 1
        task.cancel()
        await asyncio.wait([task])
        assert pool.stats()[:5] == (1, 0, 0, 0, 0)
        assert len(server.messages) == 1


# TLS


async def test_a_farewell_inside_tls_is_seen_before_use() -> None:
    from aiosmtpclient.testing import CertificateAuthority

    authority = CertificateAuthority()
    go_on = asyncio.Event()
    first = [*hello(), *take(TO), wait_for(go_on), LATE, close()]
    async with ScriptedServer(first, AGAIN, implicit_tls=authority.server_context()) as server:
        options = {"tls": "implicit", "tls_context": authority.client_context()}
        async with pool_of(server, **options) as pool:
            await send(pool)
            go_on.set()
            for _ in range(20):
                await asyncio.sleep(0)
            await send(pool)
            assert pool.stats().retried == 0
