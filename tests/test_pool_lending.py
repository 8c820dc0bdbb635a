"""A connection for yourself, who waits for one, and what comes back."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from wire import BODY, GO, OK, SENDER, TO, bye, envelope, hello, mark, take, wait_for

from aiosmtpclient import AsyncSMTP, SMTPException, SMTPPool, SMTPPoolError
from aiosmtpclient.testing import CertificateAuthority, MailServer, ScriptedServer
from aiosmtpclient.testing.scripted import close, expect_content, greeting, read_all, stall

pytestmark = pytest.mark.each_loop

AGAIN = [*hello(), *take(TO), *bye()]


def pool_of(server: Any, **options: Any) -> SMTPPool:
    return SMTPPool(server.host, server.port, **{"max_connections": 1, "chunking": "off", **options})


async def send(pool: SMTPPool) -> None:
    assert (await pool.sendmail(SENDER, TO, BODY)).accepted == (TO,)


# What comes back


async def test_a_borrowed_connection_is_used_on() -> None:
    async with MailServer() as server, pool_of(server) as pool:
        async with pool.connection() as smtp:
            assert isinstance(smtp, AsyncSMTP)
            await smtp.sendmail(SENDER, TO, BODY)
            assert (await smtp.noop()).positive
        await send(pool)
        assert server.connections == 1


async def test_what_a_borrower_leaves_open_is_reset() -> None:
    script = [*hello(), "MAIL", OK, "RCPT", OK, "RSET", OK, *take(TO), *bye()]
    async with ScriptedServer(script) as server, pool_of(server) as pool:
        async with pool.connection() as smtp:
            await smtp.mail(SENDER)
            await smtp.rcpt(TO)
        await send(pool)


@pytest.mark.parametrize("answer", [[b"500 no\r\n", read_all()], [close()]])
async def test_a_connection_that_cannot_be_reset_is_replaced(answer: list[Any]) -> None:
    async with ScriptedServer([*hello(), "MAIL", OK, "RSET", *answer], AGAIN) as server:
        async with pool_of(server) as pool:
            async with pool.connection() as smtp:
                await smtp.mail(SENDER)
            await send(pool)


async def test_nobody_else_gets_a_connection_on_which_a_borrower_logged_in() -> None:
    async with MailServer(users={"me": "secret"}) as server, pool_of(server) as pool:
        async with pool.connection() as smtp:
            await smtp.login("me", "secret")
            await smtp.sendmail(SENDER, TO, BODY)
        await send(pool)
        assert [taken.user for taken in server.messages] == ["me", None]


async def test_nobody_else_gets_a_connection_on_which_a_login_failed() -> None:
    async with MailServer(users={"me": "secret"}) as server, pool_of(server) as pool:
        async with pool.connection() as smtp:
            with pytest.raises(SMTPException):
                await smtp.login("me", "wrong")
        await send(pool)
        assert server.connections == 2


async def test_nobody_else_gets_a_connection_on_which_tls_was_begun_by_hand() -> None:
    authority = CertificateAuthority()
    async with MailServer(starttls=authority.server_context()) as server, pool_of(server) as pool:
        async with pool.connection() as smtp:
            await smtp.starttls(context=authority.client_context())
            await smtp.ehlo()
        await send(pool)
        assert [taken.tls for taken in server.messages] == [False]


async def test_nobody_else_gets_a_connection_on_which_helo_was_said_by_hand() -> None:
    async with MailServer() as server, pool_of(server) as pool:
        async with pool.connection() as smtp:
            await smtp.helo()
        await pool.sendmail(SENDER, TO, "Subject: ü\r\n\r\nü\r\n".encode())
        assert server.messages[0].mail_options


@pytest.mark.parametrize("how", ["quit", "close", "reconnect"])
async def test_a_borrower_may_end_the_connection(how: str) -> None:
    async with MailServer() as server, pool_of(server) as pool:
        async with pool.connection() as smtp:
            if how == "reconnect":
                await smtp.quit()
                await smtp.connect()
            elif how == "quit":
                await smtp.quit()
            else:
                smtp.close()
        await send(pool)
        assert pool.stats()[:5] == (1, 0, 0, 0, 0)


# Bodies that fail


async def test_a_block_that_raises_gives_the_connection_back() -> None:
    async with MailServer() as server, pool_of(server) as pool:
        with pytest.raises(LookupError):
            async with pool.connection():
                raise LookupError
        await send(pool)
        assert server.connections == 1


async def test_a_block_that_raises_in_the_middle_of_an_envelope_leaves_nothing_of_it() -> None:
    async with MailServer() as server, pool_of(server) as pool:

        async def borrow() -> None:
            async with pool.connection() as smtp:
                await smtp.mail("somebody@else.test")
                await smtp.rcpt("other@to.test")
                raise LookupError

        with pytest.raises(LookupError):
            await borrow()
        await send(pool)
        assert [(taken.sender, taken.recipients) for taken in server.messages] == [(SENDER, (TO,))]


async def test_a_block_that_is_cancelled_gives_the_connection_back() -> None:
    async with MailServer() as server, pool_of(server) as pool:
        inside = asyncio.Event()

        async def borrow() -> None:
            async with pool.connection() as smtp:
                await smtp.mail(SENDER)
                inside.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(borrow())
        await inside.wait()
        task.cancel()
        await asyncio.wait([task])
        await send(pool)
        assert len(server.messages) == 1


async def test_a_block_that_is_cancelled_while_it_is_taken_back_loses_no_slot() -> None:
    resetting = asyncio.Event()
    async with ScriptedServer([*hello(), "MAIL", OK, "RSET", mark(resetting), stall()], AGAIN) as server:
        async with pool_of(server) as pool:

            async def borrow() -> None:
                async with pool.connection() as smtp:
                    await smtp.mail(SENDER)

            task = asyncio.create_task(borrow())
            await resetting.wait()
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            await send(pool)


async def test_a_block_that_never_ends_is_ended_by_close() -> None:
    async with MailServer() as server:
        pool = pool_of(server)
        lent = pool.connection()
        smtp = await lent.__aenter__()
        await pool.close(0.05)
        with pytest.raises(SMTPException):
            await smtp.noop()
        await lent.__aexit__(None, None, None)
        async with asyncio.timeout(5):
            while pool.stats()[:5] != (0, 0, 0, 0, 0):
                await asyncio.sleep(0)


# Who waits


async def test_who_waits_too_long_is_told_how_long_and_what_the_pool_is_doing() -> None:
    async with MailServer() as server, pool_of(server, acquire_timeout=0.5) as pool:
        async with pool.connection():
            with pytest.raises(SMTPPoolError) as caught:
                await pool.sendmail(SENDER, TO, BODY)
        text = str(caught.value)
        assert "acquire_timeout=0.5," in text
        assert f"{server.host}:{server.port}" in text
        assert "1 in use" in text
        assert caught.value.temporary
        assert pool.stats()[:5] == (1, 0, 0, 0, 0)


async def test_who_waits_in_vain_is_told_why_nothing_could_be_opened() -> None:
    async with ScriptedServer([greeting(), close()]) as server:
        async with pool_of(server, acquire_timeout=0.3, retries=100) as pool:
            with pytest.raises(SMTPPoolError) as caught:
                await pool.sendmail(SENDER, TO, BODY)
            assert isinstance(caught.value.__cause__, SMTPException)
            assert str(caught.value).endswith(
                f"the last attempt to make one ended like this: {caught.value.__cause__}"
            )
            assert "max_connections" not in str(caught.value)  # which would not help


async def test_who_waits_in_vain_for_those_that_the_rate_holds_is_told_so() -> None:
    async with MailServer() as server:
        async with pool_of(server, acquire_timeout=0.3, rate_limit=0.01) as pool:
            await send(pool)
            held = asyncio.create_task(send(pool))
            await asyncio.sleep(0)  # it has the connection now
            with pytest.raises(SMTPPoolError, match="; rate_limit holds the messages that have them"):
                await pool.sendmail(SENDER, TO, BODY)
            held.cancel()
            await asyncio.gather(held, return_exceptions=True)


async def test_no_more_wait_than_may() -> None:
    async with MailServer() as server, pool_of(server, max_waiting=2) as pool:
        async with pool.connection():
            waiting = [asyncio.create_task(send(pool)) for _ in range(2)]
            await asyncio.sleep(0)
            with pytest.raises(SMTPPoolError, match="max_waiting"):
                await pool.sendmail(SENDER, TO, BODY)
            assert pool.stats().waiting == 2
        await asyncio.gather(*waiting)


async def test_with_nobody_to_wait_a_connection_is_opened_all_the_same() -> None:
    async with MailServer() as server, pool_of(server, max_waiting=0, max_connections=2) as pool:
        await asyncio.gather(send(pool), send(pool))
        async with pool.connection(), pool.connection():
            with pytest.raises(SMTPPoolError, match="max_waiting"):
                async with pool.connection():
                    pass


async def test_what_is_sent_in_bulk_waits_for_as_long_as_it_takes() -> None:
    from aiosmtpclient import Envelope

    async with MailServer() as server:
        async with pool_of(server, acquire_timeout=0.5, max_waiting=0) as pool:
            go_on = asyncio.Event()

            async def borrow() -> None:
                async with pool.connection():
                    await go_on.wait()

            task = asyncio.create_task(borrow())
            while not (pool.stats().in_use or task.done()):
                await asyncio.sleep(0)
            run = pool.send_messages([Envelope(SENDER, TO, BODY)])
            first = asyncio.ensure_future(anext(run))
            asyncio.get_running_loop().call_later(0.6, go_on.set)
            assert (await first).error is None
            await run.aclose()
            await task


async def test_a_long_message_holds_up_no_short_one() -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()
    slow = [*hello(), *envelope(TO), "DATA", GO, expect_content(), mark(reached), wait_for(go_on), OK, *bye()]
    fast = [*hello(), *[step for _ in range(20) for step in take(TO)], *bye()]
    async with ScriptedServer(slow, fast) as server, pool_of(server, max_connections=2) as pool:
        long = asyncio.create_task(send(pool))
        await reached.wait()
        await asyncio.gather(*(send(pool) for _ in range(20)))
        assert not long.done()
        go_on.set()
        await long


async def test_who_borrows_a_stream_has_it_for_himself() -> None:
    async with MailServer() as server, pool_of(server, pipelining="stream") as pool:
        sends = [asyncio.create_task(send(pool)) for _ in range(20)]
        order: list[str] = []

        async def borrow() -> None:
            async with pool.connection() as smtp:
                order.append("in")
                await smtp.sendmail(SENDER, TO, BODY)
                assert pool.stats().in_use == 1
                order.append("out")

        await asyncio.gather(borrow(), borrow(), *sends)
        assert order == ["in", "out"] * 2
        assert server.connections == 1
    gc.collect()
