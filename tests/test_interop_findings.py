"""What real servers were found to do (docs/interop.md), played by a script: it stays right without them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import pytest
from wire import (
    BODY,
    GO,
    LONG,
    NEXT,
    OK,
    SENDER,
    TO,
    TOO,
    bye,
    caught,
    deliveries,
    each_loop,
    hello,
    send,
    take,
)

from aiosmtpclient import (
    AsyncLMTP,
    AsyncSMTP,
    Delivery,
    Envelope,
    Outcome,
    Retries,
    SMTPDataError,
    SMTPPool,
    SMTPProtocolError,
    SMTPRecipientsRefused,
    SMTPSenderRefused,
    SMTPTLSError,
)
from aiosmtpclient.chunking import VERDICTS
from aiosmtpclient.testing import CertificateAuthority, Conversation, ScriptedServer
from aiosmtpclient.testing.scripted import (
    Step,
    close,
    expect,
    expect_content,
    expect_eof,
    greeting,
    read_exactly,
)

GROUP = ["MAIL", "RCPT", "DATA"]


def envelopes(*recipients: str) -> list[Envelope]:
    return [Envelope(SENDER, recipient, BODY) for recipient in recipients]


async def sent(smtp: AsyncSMTP, *recipients: str) -> list[Outcome]:
    return [outcome async for outcome in smtp.send_messages(envelopes(*recipients), ordered=True)]


# What they say to EHLO


@each_loop
async def test_smtp_sink_an_empty_last_line_is_no_extension() -> None:
    async with ScriptedServer(
        [greeting(), "EHLO ", b"250-smtp-sink\r\n250-PIPELINING\r\n250 \r\n", *bye()]
    ) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            assert dict(smtp.extensions) == {"pipelining": ""}


async def test_cyrus_a_last_line_of_another_kind_does_no_harm() -> None:
    said = b"250-cyrus.test\r\n250-PIPELINING\r\n250 Ok SESSIONID=<cyrus.test-1-1>\r\n"
    group = [*GROUP, OK * 2 + GO, expect_content(), OK]
    async with ScriptedServer([greeting(), "LHLO ", said, *group, *bye()]) as server:
        async with AsyncLMTP(server.host, server.port) as smtp:
            assert set(smtp.extensions) == {"pipelining", "ok"}
            assert (await send(smtp)).accepted == (TO,)


# Refusals


@each_loop
async def test_cyrus_a_mailbox_that_is_being_made_refuses_for_now_and_a_pool_tries_again() -> None:
    said = b"250-cyrus.test\r\n250 PIPELINING\r\n"
    group = [*GROUP, OK * 2 + GO, expect_content()]
    refusal = b"451 4.3.0 Mailbox already exists\r\n"
    async with ScriptedServer([greeting(), "LHLO ", said, *group, refusal, *group, OK, *bye()]) as server:
        again = Retries(refused=1, delay=0.01)
        async with SMTPPool(server.host, server.port, lmtp=True, tls="none", retries=again) as pool:
            outcomes = [outcome async for outcome in pool.send_messages(envelopes(TO))]
    assert [(one.delivery, one.attempts) for one in outcomes] == [(Delivery.ACCEPTED, 2)]


@each_loop
@pytest.mark.parametrize("offers", [("PIPELINING",), ()])
async def test_dovecot_submission_hangs_up_over_rset_and_the_refusal_stands(offers: tuple[str, ...]) -> None:
    """The relay behind it refuses MAIL; then it dies of an assertion when RSET comes."""
    refusal = b"555 5.0.0 MAIL FROM parameters not recognized or not implemented\r\n"
    answered = [*GROUP, refusal + b"503 5.5.0 MAIL needed first\r\n" * 2] if offers else ["MAIL", refusal]
    first: list[Step] = [*hello(*offers), *answered, "RSET", close()]
    async with ScriptedServer(first, [*hello(), *take(NEXT), *bye()], repeat_last=False) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            error = await caught(send(smtp))
            assert isinstance(error, SMTPSenderRefused)
            assert (error.smtp_code, error.delivery) == (555, Delivery.REFUSED)
            assert (await send(smtp, NEXT)).accepted == (NEXT,)


@each_loop
async def test_opensmtpd_takes_so_many_messages_on_a_connection_and_the_rest_is_refused_for_now() -> None:
    refusal = b"452 4.5.3 Too many recipients: Too many messages sent\r\n"
    more: list[Step] = ["MAIL", refusal, "RSET", OK]
    async with ScriptedServer([*hello(), *take(TO), *more, *more, *bye()]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            first, second, third = await sent(smtp, TO, TOO, NEXT)
    assert first.delivery is Delivery.ACCEPTED
    for outcome in (second, third):
        assert (outcome.delivery, outcome.temporary) == (Delivery.REFUSED, True)


@each_loop
async def test_opensmtpd_commands_are_not_grouped_where_pipelining_is_not_offered() -> None:
    """It answers a group with 500, and hangs up."""

    async def nothing_more(conversation: Conversation) -> None:
        before = len(conversation.received)
        for _ in range(5):
            await asyncio.sleep(0)
        assert len(conversation.received) == before

    lock_step: list[Step] = ["MAIL", nothing_more, OK, "RCPT", nothing_more, OK, "DATA", nothing_more, GO]
    message: list[Step] = [*lock_step, expect_content(), nothing_more, OK]
    async with ScriptedServer([*hello("SIZE"), *message, *message, *bye()]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            assert {outcome.delivery for outcome in await sent(smtp, TO, NEXT)} == {Delivery.ACCEPTED}


async def too_much() -> AsyncIterator[bytes]:
    for _ in range(20):
        yield b"0123456789\r\n" * 1000


@each_loop
@pytest.mark.parametrize(
    "refusal",
    [
        b"554 Transaction failed\r\n",  # OpenSMTPD
        b"550 Message too big!\r\n",  # Haraka
        b"500 Line too long (see RFC5321 4.5.3.1.6)\r\n",  # aiosmtpd, and Dovecot in front of it
    ],
)
async def test_content_that_is_refused_with_any_code_is_refused_and_the_connection_stays(
    refusal: bytes,
) -> None:
    script = [*hello("PIPELINING"), *GROUP, OK * 2 + GO, expect_content(), refusal]
    async with ScriptedServer([*script, *GROUP, OK * 2 + GO, expect_content(), OK, *bye()]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            error = await caught(smtp.sendmail(SENDER, TO, too_much()))
            assert isinstance(error, SMTPDataError)
            assert deliveries(error) == [Delivery.REFUSED]
            assert smtp.is_connected
            await send(smtp, NEXT)
        assert server.connections == 1


async def test_smtp_server_in_lmtp_refuses_what_is_too_large_for_each_recipient() -> None:
    script = [*hello(verb="LHLO"), "MAIL", OK, "RCPT", OK, "RCPT", OK, "DATA", GO, expect_content()]
    async with ScriptedServer([*script, b"552 5.3.4 too large\r\n" * 2, *bye()]) as server:
        async with AsyncLMTP(server.host, server.port) as smtp:
            error = await caught(smtp.sendmail(SENDER, [TO, TOO], too_much()))
    assert isinstance(error, SMTPRecipientsRefused)
    assert deliveries(error) == [Delivery.REFUSED] * 2


@each_loop
async def test_smtp_sink_a_refusal_before_there_is_content_breaks_the_protocol_and_nothing_is_sent() -> None:
    refusal = b"354 go\r\n550 This violates SMTP\r\n"
    async with ScriptedServer([*hello("PIPELINING"), *GROUP, OK * 2 + refusal, expect_eof()]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            error = await caught(send(smtp))
            assert isinstance(error, SMTPProtocolError)
            assert "This violates SMTP" in str(error)
            assert deliveries(error) == [Delivery.NOT_SENT]
        assert BODY not in server.received[0]


# What follows the end of a message


STREAMED: dict[str, list[Step]] = {
    "Haraka": [OK + b"503 Bad sequence: pipelined after end of DATA\r\n", close()],
    "Dovecot submission": [OK, close()],
    "Dovecot submission, MAIL alone": [OK + b"503 5.5.0 MAIL needed first\r\n", close()],
}


@each_loop
@pytest.mark.parametrize("who", STREAMED)
async def test_a_server_that_breaks_over_a_stream_has_the_first_message_and_no_other(who: str) -> None:
    first = [*hello("PIPELINING"), *GROUP, OK * 2 + GO, expect_content(), "MAIL", *STREAMED[who]]
    later = [*hello(), *take(NEXT), *bye()]
    async with ScriptedServer(first, [b"421 not now\r\n", close()], later) as server:
        async with AsyncSMTP(server.host, server.port, pipelining="stream", timeout=LONG) as smtp:
            outcomes = await sent(smtp, TO, TOO, NEXT)
            assert outcomes[0].delivery is Delivery.ACCEPTED
            assert {outcome.delivery for outcome in outcomes[1:]} <= {Delivery.NOT_SENT, Delivery.REFUSED}
            assert (await send(smtp, NEXT)).accepted == (NEXT,)


@each_loop
async def test_nothing_follows_the_end_of_a_message_unless_it_was_asked_for() -> None:
    async def nothing_follows(conversation: Conversation) -> None:
        before = len(conversation.received)
        for _ in range(5):
            await asyncio.sleep(0)
        assert len(conversation.received) == before

    message: list[Step] = [*GROUP, OK * 2 + GO, expect_content(), nothing_follows, OK]
    async with ScriptedServer([*hello("PIPELINING"), *message, *message, *message, *bye()]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            await asyncio.gather(send(smtp), send(smtp, TOO), send(smtp, NEXT))


# BDAT before and after AUTH


async def test_dovecot_submission_runs_a_chunk_before_auth_and_discards_it_afterwards() -> None:
    offers = ("PIPELINING", "CHUNKING", "AUTH PLAIN")
    trial = ["BDAT 8 LAST", "XPROBE", "RSET"]
    ran = b"530 5.7.0 Authentication required.\r\n500 5.5.1 Unknown command\r\n250 2.0.0 OK\r\n"
    refusal = b"530 5.7.0 Authentication required.\r\n"
    nobody = [*hello(*offers), *trial, ran, expect_eof()]
    by_data = [*hello(*offers), *GROUP, refusal * 3, "RSET", OK, *bye()]
    logged_in = [*hello(*offers), "AUTH PLAIN", b"235 in\r\n", *trial, b"503 no\r\n250 ok\r\n"]
    by_bdat = ["MAIL", "RCPT", expect(re.compile("BDAT .* LAST")), read_exactly(len(BODY)), OK * 3, *bye()]
    async with ScriptedServer(nobody, by_data, [*logged_in, *by_bdat], repeat_last=False) as server:
        where = (server.host, server.port)
        async with AsyncSMTP(*where) as smtp:
            [outcome] = await sent(smtp, TO)
            assert outcome.delivery is Delivery.REFUSED
        async with AsyncSMTP(*where, username="user", password="pass", tls="none") as smtp:
            [outcome] = await sent(smtp, TO)
            assert outcome.delivery is Delivery.ACCEPTED
        name = f"{server.host}:{server.port}"
        assert (VERDICTS.of(name), VERDICTS.of(f"{name}, logged in")) == (False, True)


# TLS


@each_loop
@pytest.mark.parametrize(
    "end", [[close()], [b"not TLS at all", close()], [b"\x15\x03\x03\0\2\2\x28", close()]]
)
async def test_opensmtpd_ends_the_connection_in_the_handshake_and_nothing_is_sent(end: list[Step]) -> None:
    async def client_hello(conversation: Conversation) -> None:
        await conversation.read_exactly(5)

    script = [*hello("STARTTLS"), "STARTTLS", b"220 go\r\n", client_hello, *end]
    async with ScriptedServer(script) as server:
        trust = CertificateAuthority().client_context()
        with pytest.raises(SMTPTLSError) as error:
            await AsyncSMTP(server.host, server.port, tls="starttls", tls_context=trust).connect()
    assert error.value.delivery is Delivery.NOT_SENT
