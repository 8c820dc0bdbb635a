"""`send()`: connect, send one message, quit."""

from __future__ import annotations

import asyncio
import io
from email.message import EmailMessage

import pytest
from wire import BODY, LONG, NEXT, SENDER, TO, bye, caught, deliveries, each_loop, envelope, hello, mark, take

import aiosmtpclient
from aiosmtpclient import Delivery, SMTPConnectError, SMTPRecipientsRefused, Timeouts
from aiosmtpclient.testing import CertificateAuthority, MailServer, ScriptedServer
from aiosmtpclient.testing.scripted import stall


def message() -> EmailMessage:
    one = EmailMessage()
    one["From"], one["To"], one["Subject"] = SENDER, TO, "hello"
    one.set_content("Hello.\n")
    return one


@each_loop
async def test_send_takes_a_message_object_with_or_without_an_envelope():
    async with MailServer() as server:
        where = {"host": server.host, "port": server.port}
        await aiosmtpclient.send(message(), **where)
        await aiosmtpclient.send(message(), sender="", recipients=NEXT, **where)
        assert [(one.sender, one.recipients) for one in server.messages] == [(SENDER, (TO,)), ("", (NEXT,))]
        assert server.commands.count("QUIT") == 2


async def test_send_takes_every_option_of_a_client():
    traced = []
    authority = CertificateAuthority()
    async with MailServer(starttls=True, users={"u": "p"}) as server:
        result = await aiosmtpclient.send(
            BODY,
            sender=SENDER,
            recipients=[TO],
            host=server.host,
            port=server.port,
            local_hostname="me.example",
            timeout=Timeouts(final=LONG),
            source_address=("127.0.0.1", 0),
            tls="starttls",
            tls_context=authority.client_context(),
            server_hostname="localhost",
            username="u",
            password="p",
            pipelining="off",
            trace=lambda event, octets: traced.append(event),
        )
        assert result.accepted == (TO,)
        [taken] = server.messages
        assert (taken.helo, taken.tls, taken.user) == ("me.example", True, "u")
        assert {"send", "content", "reply"} == set(traced)


@pytest.mark.parametrize("given", [{}, {"sender": SENDER}, {"recipients": TO}])
async def test_send_needs_an_envelope_for_what_has_no_headers(given):
    async with MailServer() as server:
        with pytest.raises(ValueError, match="sender and recipients"):
            await aiosmtpclient.send(BODY, host=server.host, port=server.port, **given)
        assert server.messages == []


@each_loop
async def test_send_cancelled_before_the_end_raises_the_cancellation():
    reached = asyncio.Event()
    async with ScriptedServer([*hello(), *envelope(TO), "DATA", mark(reached), stall()]) as server:
        options = {"sender": SENDER, "recipients": TO, "host": server.host, "port": server.port}
        task = asyncio.create_task(caught(aiosmtpclient.send(BODY, **options)))
        await reached.wait()
        task.cancel()
        error = await task
        assert isinstance(error, asyncio.CancelledError)
        assert error.delivery is Delivery.NOT_SENT


@each_loop
async def test_send_cancelled_while_it_connects_says_that_nothing_was_sent():
    reached = asyncio.Event()
    async with ScriptedServer([mark(reached), stall()]) as server:
        task = asyncio.create_task(caught(aiosmtpclient.send(message(), host=server.host, port=server.port)))
        await reached.wait()
        task.cancel()
        error = await task
        assert isinstance(error, asyncio.CancelledError)
        assert error.delivery is Delivery.NOT_SENT
        assert error.outcomes == ((TO, Delivery.NOT_SENT, None),)


@each_loop
async def test_send_cancelled_at_its_quit_behind_a_refusal_says_who_was_refused():
    reached = asyncio.Event()
    script = [*hello(), "MAIL", b"250 ok\r\n", "RCPT", b"550 no\r\n", "RSET", b"250 ok\r\n", "QUIT"]
    async with ScriptedServer([*script, mark(reached), stall()]) as server:
        options = {"sender": SENDER, "recipients": TO, "host": server.host, "port": server.port}
        task = asyncio.create_task(caught(aiosmtpclient.send(BODY, **options)))
        await reached.wait()
        task.cancel()
        error = await task
        assert isinstance(error, asyncio.CancelledError)
        assert error.delivery is Delivery.REFUSED
        assert deliveries(error) == [Delivery.REFUSED]


@each_loop
async def test_send_cancelled_at_its_quit_returns_the_result_and_the_cancellation_follows():
    reached = asyncio.Event()
    async with ScriptedServer([*hello(), *take(TO), "QUIT", mark(reached), stall()]) as server:
        options = {"sender": SENDER, "recipients": TO, "host": server.host, "port": server.port}
        results = []

        async def work() -> None:
            results.append(await aiosmtpclient.send(BODY, **options))
            await asyncio.Event().wait()

        task = asyncio.create_task(caught(work()))
        await reached.wait()
        task.cancel()
        assert isinstance(await task, asyncio.CancelledError)
        assert results[0].accepted == (TO,)


@pytest.mark.parametrize(
    "content", [BODY, BODY.decode(), io.BytesIO(BODY), iter([BODY])], ids=lambda one: type(one).__name__
)
async def test_send_takes_what_sendmail_takes(content):
    async with MailServer() as server:
        options = {
            "sender": SENDER,
            "recipients": (one for one in [TO]),
            "host": server.host,
            "port": server.port,
        }
        assert (await aiosmtpclient.send(content, **options)).accepted == (TO,)
        assert server.messages[0].content == BODY


@pytest.mark.parametrize(
    ("content", "sender", "recipients"),
    [(BODY, "a b", [TO]), (BODY, SENDER, [TO, "\r\n"]), (BODY, SENDER, []), (b"\0", SENDER, [TO])],
)
async def test_wrong_input_is_found_before_anybody_connects(content, sender, recipients):
    async with MailServer() as server:
        with pytest.raises(ValueError) as caught_error:
            await aiosmtpclient.send(
                content, sender=sender, recipients=recipients, host=server.host, port=server.port
            )
        assert caught_error.value.delivery is Delivery.NOT_SENT
        assert deliveries(caught_error.value) == [Delivery.NOT_SENT] * len(recipients)
        assert server.connections == 0


@each_loop
async def test_what_goes_wrong_on_the_way_says_what_is_known():
    async with ScriptedServer([b"554 no\r\n", *bye()]) as server:
        options = {"sender": SENDER, "recipients": TO, "host": server.host, "port": server.port}
        error = await caught(aiosmtpclient.send(BODY, **options))
        assert isinstance(error, SMTPConnectError)
        assert error.delivery is Delivery.NOT_SENT
        assert deliveries(error) == [Delivery.NOT_SENT]
    async with MailServer(refuse="550 no") as server:
        error = await caught(aiosmtpclient.send(message(), host=server.host, port=server.port))
        assert isinstance(error, SMTPRecipientsRefused)
        assert deliveries(error) == [Delivery.REFUSED]
        assert server.commands[-1] == "QUIT"
