"""The pool as an application sees it: what it says of itself, its options, loops, threads, and its end."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import warnings
import weakref
from collections.abc import AsyncIterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from wire import BODY, GO, SENDER, TO, bye, envelope, hello, mark, take, wait_for

from aiosmtpclient import (
    Delivery,
    Outcome,
    SMTPException,
    SMTPPool,
    SMTPPoolError,
    SMTPRecipientsRefused,
    SMTPServerDisconnected,
    run_sync,
)
from aiosmtpclient.testing import MailServer, ScriptedServer
from aiosmtpclient.testing.scripted import drop, expect_content, read_all, stall


def state(pool: SMTPPool) -> str:
    return repr(pool).partition("connections: ")[2].rstrip(">")


def message(subject: str = "hello") -> EmailMessage:
    made = EmailMessage()
    made["From"], made["To"], made["Subject"] = SENDER, TO, subject
    made.set_content("hello\n")
    return made


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


# What it says of itself


@pytest.mark.each_loop
async def test_the_repr_says_after_each_event_where_the_pool_stands() -> None:
    async with MailServer() as server:
        pool = SMTPPool(server.host, server.port, max_connections=2)
        where = f"{server.host}:{server.port}"
        assert repr(pool) == (
            f"<SMTPPool {where} 0/2 connections: 0 idle, 0 in use, 0 opening, 0 closing; 0 waiting>"
        )
        async with pool:
            assert state(pool) == "0 idle, 0 in use, 0 opening, 0 closing; 0 waiting"
            sending = asyncio.create_task(pool.sendmail(SENDER, TO, BODY))
            await asyncio.sleep(0)
            assert state(pool) == "0 idle, 0 in use, 1 opening, 0 closing; 1 waiting"
            await sending
            assert state(pool) == "1 idle, 0 in use, 0 opening, 0 closing; 0 waiting"
            async with pool.connection():
                assert state(pool) == "0 idle, 1 in use, 0 opening, 0 closing; 0 waiting"
            assert state(pool) == "1 idle, 0 in use, 0 opening, 0 closing; 0 waiting"
        assert repr(pool) == (
            f"<SMTPPool closed {where} 0/2 connections: 0 idle, 0 in use, 0 opening, 0 closing; 0 waiting>"
        )


def test_a_unix_socket_is_named_by_its_path() -> None:
    assert repr(SMTPPool("/run/lmtp", lmtp=True)).startswith("<SMTPPool /run/lmtp 0/10 connections: 0 idle")


async def test_the_statistics_count_what_became_of_messages() -> None:
    async with MailServer(refuse={"no@to.test": "550 5.1.1 no"}) as server:
        async with SMTPPool(server.host, server.port) as pool:
            await pool.send_message(message())
            with pytest.raises(SMTPRecipientsRefused):
                await pool.sendmail(SENDER, "no@to.test", BODY)
            with pytest.raises(ValueError):
                await pool.sendmail(SENDER, "no\r\n@to.test", BODY)
            stats = pool.stats()
    assert (stats.accepted, stats.refused, stats.not_sent, stats.unknown) == (1, 1, 1, 0)
    assert (stats.opened, stats.failed, stats.retried, stats.idle, stats.cap) == (1, 0, 0, 1, 10)


# Options


@pytest.mark.parametrize(
    "options",
    [
        {"max_connections": 0},
        {"max_connections": None},
        {"max_connections": 0.5},
        {"max_messages": 0},
        {"max_age": 0},
        {"max_idle": -1},
        {"check_after": 0},
        {"max_waiting": -1},
        {"acquire_timeout": -1},
        {"rate_limit": 0},
        {"rate_limit": (1, 0)},
        {"rate_limit": float("nan")},
        {"retries": -1},
        {"pipelining": "yes"},
        {"tls": "maybe"},
        {"username": "me"},
    ],
)
def test_an_option_that_makes_no_sense_is_said_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError) as caught:
        SMTPPool("localhost", 2525, **options)
    name = next(iter(options))
    if name.startswith(("max", "check", "acquire")):
        assert name in str(caught.value)


def test_a_connected_socket_cannot_be_shared() -> None:
    import socket

    with socket.socket() as sock, pytest.raises(ValueError, match="sock="):
        SMTPPool("localhost", 2525, sock=sock)


def test_a_password_is_in_no_repr_of_the_pool_or_its_parts() -> None:
    pool = SMTPPool("localhost", 2525, username="me", password="open sesame")
    assert "sesame" not in repr(pool)
    assert "sesame" not in repr(pool._new_client)


async def test_two_pools_with_other_credentials_share_no_connection() -> None:
    users = {"ann": "a", "bob": "b"}
    async with MailServer(users=users) as server:
        ann = SMTPPool(server.host, server.port, username="ann", password="a")
        bob = SMTPPool(server.host, server.port, username="bob", password="b")
        async with ann, bob:
            for pool in (ann, bob, ann, bob):
                await pool.sendmail(SENDER, TO, BODY)
        assert [taken.user for taken in server.messages] == ["ann", "bob", "ann", "bob"]
        assert server.connections == 2


# The end


async def test_a_closed_pool_says_so() -> None:
    pool = SMTPPool("localhost", 2525)
    await pool.close()
    await pool.close()
    with pytest.raises(SMTPPoolError, match="the pool is closed") as caught:
        await pool.sendmail(SENDER, TO, BODY)
    assert caught.value.delivery is Delivery.NOT_SENT
    assert caught.value.permanent
    with pytest.raises(SMTPPoolError):
        async with pool:
            pass
    with pytest.raises(SMTPPoolError):
        async with pool.connection():
            pass


@pytest.mark.each_loop
async def test_close_waits_for_what_is_under_way() -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()
    script = [*hello(), *envelope(TO), "DATA", GO, expect_content(), mark(reached), wait_for(go_on)]
    async with ScriptedServer([*script, b"250 ok\r\n", *bye()]) as server:
        pool = SMTPPool(server.host, server.port)
        sending = asyncio.create_task(pool.sendmail(SENDER, TO, BODY))
        await reached.wait()
        closing = asyncio.create_task(pool.close())
        await asyncio.sleep(0)
        assert not closing.done()
        go_on.set()
        await closing
        assert (await sending).accepted == (TO,)
        assert pool.stats()[:5] == (0, 0, 0, 0, 0)


@pytest.mark.each_loop
async def test_what_is_in_flight_after_the_time_limit_is_dropped_and_classified() -> None:
    reached, half = asyncio.Event(), asyncio.Event()
    whole = [*hello(), *envelope(TO), "DATA", GO, expect_content(), mark(reached), stall()]
    started = [*hello(), "MAIL", mark(half), stall()]
    async with ScriptedServer(whole, started) as server:
        pool = SMTPPool(server.host, server.port, max_connections=2)
        first = asyncio.create_task(pool.sendmail(SENDER, TO, BODY))
        await reached.wait()
        second = asyncio.create_task(pool.sendmail(SENDER, TO, BODY))
        await half.wait()
        third = asyncio.create_task(pool.sendmail(SENDER, TO, BODY))
        await asyncio.sleep(0)
        await pool.close(0.05)
        known = await asyncio.gather(first, second, third, return_exceptions=True)
        assert [error.delivery for error in known] == [  # type: ignore[union-attr]
            Delivery.UNKNOWN,
            Delivery.NOT_SENT,
            Delivery.NOT_SENT,
        ]
        assert isinstance(known[2], SMTPPoolError)
        assert pool.stats()[:5] == (0, 0, 0, 0, 0)


@pytest.mark.each_loop
async def test_a_close_that_is_cancelled_drops_everything() -> None:
    reached = asyncio.Event()
    script = [*hello(), *envelope(TO), "DATA", GO, expect_content(), mark(reached), stall()]
    async with ScriptedServer(script) as server:
        pool = SMTPPool(server.host, server.port)
        sending = asyncio.create_task(pool.sendmail(SENDER, TO, BODY))
        await reached.wait()
        closing = asyncio.create_task(pool.close(None))
        await asyncio.sleep(0.01)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        with pytest.raises(SMTPServerDisconnected) as caught:
            await sending
        assert caught.value.delivery is Delivery.UNKNOWN
        await until(lambda: pool.stats()[:5] == (0, 0, 0, 0, 0))


@pytest.mark.each_loop
async def test_closing_twice_at_the_same_time_waits_for_the_same() -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()
    script = [*hello(), *envelope(TO), "DATA", GO, expect_content(), mark(reached), wait_for(go_on)]
    async with ScriptedServer([*script, b"250 ok\r\n", *bye()]) as server:
        pool = SMTPPool(server.host, server.port)
        sending = asyncio.create_task(pool.sendmail(SENDER, TO, BODY))
        await reached.wait()
        closings = [asyncio.create_task(pool.close()) for _ in range(2)]
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.gather(*closings)
        assert (await sending).accepted == (TO,)


async def test_close_while_it_connects_gives_up_and_says_so() -> None:
    reached = asyncio.Event()
    async with ScriptedServer([mark(reached), stall()]) as server:
        pool = SMTPPool(server.host, server.port)
        sending = asyncio.create_task(pool.sendmail(SENDER, TO, BODY))
        await reached.wait()
        begun = asyncio.get_running_loop().time()
        await pool.close(0.05)
        with pytest.raises(SMTPPoolError, match="closed") as caught:
            await sending
        assert caught.value.delivery is Delivery.NOT_SENT
        assert asyncio.get_running_loop().time() - begun < 2


async def test_each_who_waits_gets_an_error_of_his_own() -> None:
    async with ScriptedServer([b"554 no\r\n", read_all()]) as server:
        async with SMTPPool(server.host, server.port, max_connections=1) as pool:
            sends = [pool.sendmail(SENDER, (TO, str(n) + TO), BODY) for n in range(3)]
            errors = await asyncio.gather(*sends, return_exceptions=True)
    assert len({id(error) for error in errors}) == 3
    assert [error.outcomes[1].address for error in errors] == [f"{n}{TO}" for n in range(3)]  # type: ignore[union-attr]


async def test_each_who_waits_gets_a_copy_of_an_error_that_is_not_ours_too() -> None:
    def trace(event: str, octets: bytes) -> None:
        if event == "send":
            raise LookupError("the caller's own")

    async with ScriptedServer([b"220 hi\r\n", read_all()]) as server:
        async with SMTPPool(server.host, server.port, max_connections=1, trace=trace) as pool:
            sends = [pool.sendmail(SENDER, (TO, str(n) + TO), BODY) for n in range(3)]
            errors = await asyncio.gather(*sends, return_exceptions=True)
    assert [type(error) for error in errors] == [LookupError] * 3
    assert [error.outcomes[1].address for error in errors] == [f"{n}{TO}" for n in range(3)]  # type: ignore[union-attr]


# Loops


def test_in_a_second_loop_the_error_says_what_to_do() -> None:
    async def first() -> None:
        async with MailServer() as server, SMTPPool(server.host, server.port) as pool:
            await pool.sendmail(SENDER, TO, BODY)

            def elsewhere() -> None:
                async def second() -> None:
                    with pytest.raises(RuntimeError, match=r"one pool for each loop.*run_sync"):
                        await pool.sendmail(SENDER, TO, BODY)
                    with pytest.raises(RuntimeError, match="one pool for each loop"):
                        async with pool.connection():
                            pass
                    with pytest.raises(RuntimeError, match="one pool for each loop"):
                        async for _ in pool.send_messages([message()]):
                            pass
                    with pytest.raises(RuntimeError, match="one pool for each loop"):
                        await pool.close()

                asyncio.run(second())

            await asyncio.to_thread(elsewhere)
            await pool.sendmail(SENDER, TO, BODY)  # which hurt nobody
            assert server.connections == 1

    asyncio.run(first())


def test_a_run_may_be_made_before_there_is_a_loop_to_run_in() -> None:
    async def all_of(run: AsyncIterator[Outcome]) -> list[Delivery]:
        return [outcome.delivery async for outcome in run]

    with MailServer() as server:
        pool = SMTPPool(server.host, server.port)
        run = pool.send_messages([message()])

        async def later() -> list[Delivery]:
            async with pool:
                return await all_of(run)

        assert asyncio.run(later()) == [Delivery.ACCEPTED]


def test_a_pool_whose_loop_was_closed_works_in_a_new_one() -> None:
    with MailServer() as server:
        pool = SMTPPool(server.host, server.port, max_connections=2)

        async def use() -> None:
            await asyncio.gather(*(pool.sendmail(SENDER, TO, BODY) for _ in range(4)))

        async def last() -> None:
            await use()
            await pool.close()

        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            asyncio.run(use())
            asyncio.run(last())
            gc.collect()
        assert len(server.messages) == 8
        ours = [str(warning.message) for warning in seen if "SMTP" in str(warning.message)]
        assert not any("PooledSMTP" in text for text in ours), ours


def test_a_task_that_waits_when_its_loop_is_closed_does_not_harm_the_next_loop() -> None:
    with MailServer() as server:
        pool = SMTPPool(server.host, server.port, max_connections=1)

        async def first() -> None:
            holding = asyncio.Event()

            async def hold() -> None:
                async with pool.connection():
                    holding.set()
                    await asyncio.Event().wait()

            tasks = [asyncio.create_task(hold())]
            await holding.wait()
            tasks.append(asyncio.create_task(pool.sendmail(SENDER, TO, BODY)))
            await asyncio.sleep(0)

        async def second() -> None:
            async with pool:
                await pool.sendmail(SENDER, TO, BODY)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            asyncio.run(first())
            asyncio.run(second())
            gc.collect()
        assert len(server.messages) == 1


# Unclosed


async def test_an_unclosed_pool_warns_once_and_leaks_nothing() -> None:
    async with MailServer() as server:
        pool: SMTPPool | None = SMTPPool(server.host, server.port, max_connections=3)
        await asyncio.gather(*(pool.sendmail(SENDER, TO, BODY) for _ in range(3)))
        assert pool.stats().idle == 3
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            pool = None
            gc.collect()
            await until(lambda: not server._open)
            gc.collect()
        texts = [str(warning.message) for warning in seen]
        assert len(texts) == 1, texts
        assert texts[0].startswith("unclosed <SMTPPool 127.0.0.1:")
        assert seen[0].category is ResourceWarning


FAILING = {
    "refused": [*hello(), "MAIL", b"550 no\r\n", "RSET", b"250 ok\r\n", read_all()],
    "not there": [b"554 no\r\n", read_all()],
    "disconnected": [*hello(), "MAIL", drop()],
}


@pytest.mark.parametrize("how", FAILING)
async def test_a_pool_that_nobody_closed_is_kept_by_no_cycle_after_a_failed_send(how: str) -> None:
    async with ScriptedServer(FAILING[how]) as server:
        pool = SMTPPool(server.host, server.port, retries=0)
        gone = weakref.ref(pool)
        gc.collect()
        gc.disable()
        try:
            try:
                await pool.sendmail(SENDER, TO, BODY)
            except SMTPException:
                pass  # not pytest.raises, which would keep it for a while
            else:
                raise AssertionError("it did not fail")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                del pool
            await until(lambda: gone() is None)
        finally:
            gc.enable()


def test_a_pool_that_failed_to_be_made_does_not_complain_when_it_goes() -> None:
    with pytest.raises(ValueError):
        SMTPPool("localhost", 2525, max_connections=-1)
    gc.collect()


# Threads


def test_twenty_threads_share_one_pool() -> None:
    with MailServer() as server:
        pool = SMTPPool(server.host, server.port, max_connections=3)
        errors: list[BaseException] = []

        def work(number: int) -> None:
            try:
                for part in range(5):
                    run_sync(pool.send_message(message(f"{number} {part}")))
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        run_sync(pool.close())
        assert not errors
        assert len({taken.message["Subject"] for taken in server.messages}) == 100
        assert server.connections <= 3


def test_a_pool_of_the_blocking_side_lives_on_when_its_loop_was_stopped() -> None:
    from aiosmtpclient import runner

    with MailServer() as server:
        pool = SMTPPool(server.host, server.port)
        run_sync(pool.sendmail(SENDER, TO, BODY))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            runner.stop()
            run_sync(pool.sendmail(SENDER, TO, BODY))
            gc.collect()
        run_sync(pool.close())
        assert len(server.messages) == 2


# What breaks


@pytest.mark.each_loop
async def test_a_server_that_is_not_there_is_said_after_few_attempts() -> None:
    async with ScriptedServer([drop()]) as server:
        host, port = server.host, server.port
    pool = SMTPPool(host, port, retries=2)
    with pytest.raises(SMTPException) as caught:
        await pool.sendmail(SENDER, TO, BODY)
    assert str(port) in str(caught.value)
    assert caught.value.delivery is Delivery.NOT_SENT
    assert pool.stats().failed == 3
    await pool.close()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="there are no eager tasks")
async def test_where_tasks_begin_eagerly_a_socket_that_is_not_there_is_said(tmp_path: Path) -> None:
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]
    async with SMTPPool(str(tmp_path / "nobody"), lmtp=True, retries=0) as pool:
        with pytest.raises(SMTPException, match="nobody"):
            await pool.sendmail(SENDER, TO, BODY)
    async with MailServer() as server, SMTPPool(server.host, server.port, max_connections=2) as pool:
        await asyncio.gather(*(pool.sendmail(SENDER, TO, BODY) for _ in range(10)))
        assert server.connections <= 2


async def test_no_group_is_sent_any_more_where_one_was_answered_with_nonsense() -> None:
    nonsense = [*hello("PIPELINING"), "MAIL", b"what?\r\n", read_all()]
    async with ScriptedServer(nonsense, [*hello("PIPELINING"), *take(TO), *take(TO), *bye()]) as server:
        async with SMTPPool(server.host, server.port, max_connections=1) as pool:
            await pool.sendmail(SENDER, TO, BODY)
            await pool.sendmail(SENDER, TO, BODY)
