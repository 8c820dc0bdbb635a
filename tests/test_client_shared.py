"""One client for many tasks: connections that are lost, entered twice, left while others send."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from aiosmtpclient import AsyncSMTP, Delivery, Envelope, SMTPServerDisconnected
from aiosmtpclient.testing import CertificateAuthority, MailServer, ScriptedServer
from aiosmtpclient.testing.scripted import ehlo, expect, expect_content, greeting, say

pytestmark = pytest.mark.each_loop

BODY = b"Subject: hi\r\n\r\nhi\r\n"


async def never_ends(started: asyncio.Event) -> AsyncIterator[bytes]:
    yield b"Subject: slow\r\n"
    started.set()
    await asyncio.Event().wait()


async def test_a_cancelled_send_does_not_spoil_the_one_that_waits_behind_it() -> None:
    async with MailServer() as server, AsyncSMTP(server.host, server.port) as smtp:
        started = asyncio.Event()
        first = asyncio.create_task(smtp.sendmail("a@x.test", "first@x.test", never_ends(started)))
        await started.wait()
        second = asyncio.create_task(smtp.sendmail("a@x.test", "second@x.test", BODY))
        await asyncio.sleep(0)

        first.cancel()

        result = await second
        with pytest.raises(asyncio.CancelledError) as caught:
            await first
    assert result.accepted == ("second@x.test",)
    assert caught.value.delivery is Delivery.NOT_SENT  # type: ignore[attr-defined]
    assert [message.recipients for message in server.messages] == [("second@x.test",)]


async def test_a_connection_closed_while_idle_is_made_anew_by_the_next_send() -> None:
    bye = [greeting(), ehlo("PIPELINING"), say(b"421 4.4.2 idle too long\r\n")]
    again = [greeting(), ehlo("PIPELINING"), *_one_message(), expect("QUIT"), say(b"221 bye\r\n")]
    async with ScriptedServer(bye, again) as server, AsyncSMTP(server.host, server.port) as smtp:
        while smtp.is_connected:
            await asyncio.sleep(0)

        result = await smtp.sendmail("a@x.test", "b@x.test", BODY)

        assert result.accepted == ("b@x.test",)
    assert server.connections == 2


async def test_one_421_does_not_make_the_rest_of_many_messages_not_sent() -> None:
    def busy(recipient: str) -> str | None:
        return "421 4.7.0 too many messages" if recipient == "third@x.test" else None

    names = ["first", "second", "third", "fourth", "fifth"]
    async with MailServer(refuse=busy) as server, AsyncSMTP(server.host, server.port) as smtp:
        envelopes = [Envelope("a@x.test", f"{name}@x.test", BODY) for name in names]

        outcomes = [outcome async for outcome in smtp.send_messages(envelopes)]

    assert [outcome.delivery.name for outcome in outcomes] == [
        "ACCEPTED",
        "ACCEPTED",
        "REFUSED",
        "ACCEPTED",
        "ACCEPTED",
    ]
    assert outcomes[2].temporary
    assert not outcomes[2].permanent
    assert outcomes[0].connection != outcomes[4].connection
    assert server.connections == 2


async def test_a_message_that_is_itself_bad_was_carried_by_no_connection() -> None:
    async with MailServer() as server, AsyncSMTP(server.host, server.port) as smtp:
        bad = Envelope("a@x.test", "b\r\nRSET@x.test", BODY)

        [outcome] = [outcome async for outcome in smtp.send_messages([bad])]

    assert isinstance(outcome.error, ValueError)
    assert (outcome.attempts, outcome.connection, outcome.delivery) == (0, None, Delivery.NOT_SENT)


async def test_what_was_done_by_hand_is_not_lost_by_connecting_anew() -> None:
    authority = CertificateAuthority()
    async with MailServer(starttls=authority.server_context()) as server:
        context = authority.client_context()
        async with AsyncSMTP(server.host, server.port, tls="none", tls_context=context) as smtp:
            await smtp.starttls()
            assert smtp._connection is not None
            smtp._connection.drop()

            with pytest.raises(SMTPServerDisconnected):
                await smtp.sendmail("a@x.test", "b@x.test", BODY)
    assert server.messages == []


async def test_a_client_that_was_quit_does_not_connect_by_itself() -> None:
    async with MailServer() as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        await smtp.quit()

        with pytest.raises(SMTPServerDisconnected, match=r"call connect\(\) first"):
            await smtp.sendmail("a@x.test", "b@x.test", BODY)
    assert server.connections == 1


async def test_tasks_that_each_enter_one_client_share_its_connection() -> None:
    async with MailServer() as server:
        smtp = AsyncSMTP(server.host, server.port)

        async def one(number: int) -> None:
            async with smtp:
                await smtp.sendmail("a@x.test", f"{number}@x.test", BODY)

        async with smtp:
            await asyncio.gather(*map(one, range(20)))
            assert smtp.is_connected

        assert not smtp.is_connected
    assert len(server.messages) == 20
    assert server.connections == 1


async def test_leaving_the_block_does_not_make_another_tasks_message_unknown() -> None:
    asked, answer = asyncio.Event(), asyncio.Event()
    async with MailServer() as server:
        smtp = AsyncSMTP(server.host, server.port)

        async def body() -> AsyncIterator[bytes]:
            asked.set()
            await answer.wait()
            yield BODY

        async with smtp:
            sending = asyncio.create_task(smtp.sendmail("a@x.test", "b@x.test", body()))
            await asked.wait()
            asyncio.get_running_loop().call_soon(answer.set)

        assert (await sending).accepted == ("b@x.test",)
    assert server.commands[-1] == "QUIT"


def _one_message() -> list[object]:
    return [
        expect("MAIL"),
        expect("RCPT"),
        expect("DATA"),
        say(b"250 ok\r\n250 ok\r\n354 go\r\n"),
        expect_content(),
        say(b"250 2.0.0 queued\r\n"),
    ]
