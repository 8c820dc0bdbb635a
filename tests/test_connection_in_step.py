"""What must never be left behind on a connection: half an exchange, or content that was not ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from wire import GO, NEXT, OK, SENDER, TO, TOO, bye, caught, envelope, hello, mark, send, take

from aiosmtpclient import AsyncSMTP, Delivery, SMTPDataError, SMTPServerDisconnected
from aiosmtpclient.testing import ScriptedServer
from aiosmtpclient.testing.scripted import close, read_all, stall

pytestmark = pytest.mark.each_loop

AGAIN = [*hello(), *take(NEXT), *bye()]
AUTH = [*hello("AUTH XTEST"), "AUTH XTEST", b"334 eA==\r\n"]


async def next_is_its_own(smtp: AsyncSMTP, server: ScriptedServer) -> None:
    """The connection was dropped; the next message travels on another, alone."""
    assert not smtp.is_connected
    await smtp.connect()
    await send(smtp, NEXT)
    await smtp.quit()
    assert NEXT.encode() not in server.received[0]


async def test_a_refusal_with_the_close_right_behind_it_is_a_refusal_and_no_lost_connection() -> None:
    reached, gone = asyncio.Event(), asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"first\r\n"
        yield b"second\r\n"
        reached.set()
        await gone.wait()
        yield b"third\r\n"
        yield b"fourth\r\n"

    script = [*hello(), *envelope(TO, TOO), "DATA", GO, "first", mark(reached), b"552 5.3.4 no\r\n", close()]
    async with ScriptedServer(script, AGAIN) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        task = asyncio.create_task(caught(smtp.sendmail(SENDER, [TO, TOO], body())))
        await reached.wait()
        await smtp._connection.protocol.closed  # type: ignore[union-attr]
        gone.set()
        error = await task
        assert isinstance(error, SMTPDataError)
        assert (error.smtp_code, error.delivery) == (552, Delivery.REFUSED)
        assert [outcome.reply for outcome in error.outcomes] == [(552, b"5.3.4 no")] * 2
        await next_is_its_own(smtp, server)


async def test_a_cancelled_token_is_not_followed_by_commands_that_would_be_taken_for_it() -> None:
    asked = asyncio.Event()

    async def token(challenge: bytes | None = None) -> bytes | None:
        if challenge is not None:
            asked.set()
            await asyncio.Event().wait()
        return None

    async with ScriptedServer([*AUTH, read_all()], AGAIN) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        task = asyncio.create_task(smtp.auth("XTEST", token))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await next_is_its_own(smtp, server)
        assert server.received[0].endswith(b"AUTH XTEST\r\n")


async def test_what_an_authobject_raises_is_not_hidden_by_a_server_that_went_in_the_meantime() -> None:
    async def token(challenge: bytes | None = None) -> bytes | None:
        if challenge is not None:
            await smtp._connection.protocol.closed  # type: ignore[union-attr]
            raise LookupError("no token")
        return None

    async with ScriptedServer([*AUTH, close()], AGAIN) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        with pytest.raises(LookupError, match="no token"):
            await smtp.auth("XTEST", token)
        await next_is_its_own(smtp, server)


@pytest.mark.parametrize("behind", [b"421 injected\r\n", b"421-inj", b"4"])
async def test_a_421_behind_the_220_is_no_less_injected_than_anything_else(behind: bytes) -> None:
    script = [*hello("STARTTLS"), "STARTTLS", b"220 go\r\n" + behind, read_all()]
    async with ScriptedServer(script, AGAIN) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        error = await caught(smtp.starttls())
        assert isinstance(error, Exception)
        await server.conversations[0].gone.wait()
        assert server.received[0].endswith(b"STARTTLS\r\n")  # and no ClientHello
        await next_is_its_own(smtp, server)


async def test_a_421_to_data_by_hand_is_a_refused_data_with_every_recipient_named() -> None:
    script = [*hello(), *envelope(TO, TOO), "DATA", b"421 4.3.2 bye\r\n", stall()]
    async with ScriptedServer(script, AGAIN) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        await smtp.mail(SENDER)
        await smtp.rcpt(TO)
        await smtp.rcpt(TOO)
        error = await caught(smtp.data(b"Hello.\r\n"))
        assert type(error) is SMTPDataError
        assert [outcome.delivery for outcome in error.outcomes] == [Delivery.REFUSED] * 2
        await next_is_its_own(smtp, server)


async def test_half_a_421_behind_a_reply_is_not_the_answer_to_the_next_message() -> None:
    script = [*hello(), "NOOP", OK + b"421 by", read_all()]
    async with ScriptedServer(script, AGAIN) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        await smtp.noop()
        await server.conversations[0].gone.wait()
        assert server.received[0].endswith(b"NOOP\r\n")
        await next_is_its_own(smtp, server)


async def test_cancelled_in_the_moment_of_a_354_by_hand_the_next_command_is_no_content() -> None:
    async with ScriptedServer([*hello(), "DATA", read_all()]) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        task = asyncio.create_task(smtp.docmd("DATA"))
        while not server.received[0].endswith(b"DATA\r\n"):
            await asyncio.sleep(0)

        task.cancel()
        smtp._connection.protocol.data_received(b"354 go\r\n")

        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(SMTPServerDisconnected, match="ended half-way"):
            await smtp.noop()
    assert server.received[0].endswith(b"DATA\r\n")
