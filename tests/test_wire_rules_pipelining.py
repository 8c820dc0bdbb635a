"""The wire rules: pipelining within a transaction (RFC 2920)."""

from __future__ import annotations

import asyncio

import pytest
from wire import (
    BODY,
    GO,
    NEXT,
    OK,
    SENDER,
    SHORT,
    TO,
    TOO,
    bye,
    caught,
    deliveries,
    each_loop,
    envelope,
    hello,
    mark,
    send,
    suffer,
    take,
    verbs,
)

from aiosmtpclient import AsyncSMTP, Delivery, SMTPRecipientsRefused, SMTPSenderRefused
from aiosmtpclient.envelopes import GROUP as MOST
from aiosmtpclient.testing import Conversation, MailServer, ScriptedServer
from aiosmtpclient.testing.scripted import close, expect_content, expect_eof, greeting, read_exactly, stall

NEXT_CONNECTION = [*hello(), *take(NEXT), *bye()]
GROUP = b"".join(
    [f"MAIL FROM:<{SENDER}>\r\n".encode(), f"RCPT TO:<{TO}>\r\nRCPT TO:<{TOO}>\r\n".encode(), b"DATA\r\n"]
)


@each_loop
@pytest.mark.parametrize(("pipelining", "trips"), [("message", 2), ("off", 6)])
async def test_a_message_to_three_takes_two_round_trips(pipelining, trips):
    """MAIL, every RCPT and DATA leave at once where PIPELINING is offered, and only there."""
    async with MailServer() as server:
        async with AsyncSMTP(server.host, server.port, pipelining=pipelining) as smtp:
            before = server.round_trips
            await send(smtp, TO, TOO, NEXT)
            await smtp.noop()
            assert server.round_trips - before == trips + 1


async def test_without_the_offer_each_command_waits_for_its_reply():
    """Not offered: lock-step."""
    async with MailServer(without=["PIPELINING"]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            before = server.round_trips
            await send(smtp, TO, TOO)
            await smtp.noop()
            assert server.round_trips - before == 6


async def test_the_offer_of_an_older_ehlo_does_not_count():
    """Only if offered in the newest EHLO."""

    async def nothing_more(conversation: Conversation) -> None:
        assert conversation.received.endswith(f"MAIL FROM:<{SENDER}>\r\n".encode())

    script = [*hello("PIPELINING"), "EHLO", b"250 mail.test\r\n", "MAIL", nothing_more, OK]
    script += ["RCPT", OK, "DATA", GO, expect_content(), OK, *bye()]
    async with ScriptedServer(script) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            await smtp.ehlo()
            await send(smtp)


@each_loop
async def test_data_ends_a_group_and_the_content_waits_for_its_reply():
    """DATA is the last of its group; every status is read and checked before the content leaves."""

    async def nothing_more(conversation: Conversation) -> None:
        for _ in range(10):
            await asyncio.sleep(0)
        assert conversation.received.endswith(GROUP)

    script = [
        *hello("PIPELINING"),
        read_exactly(len(GROUP)),
        nothing_more,
        OK,
        OK,
        nothing_more,
        b"550 no\r\n",
    ]
    async with ScriptedServer([*script, nothing_more, GO, expect_content(), OK, *bye()]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            result = await send(smtp, TO, TOO)
        assert deliveries(result) == [Delivery.ACCEPTED, Delivery.REFUSED]


@each_loop
@pytest.mark.parametrize("to_the_dot", [b"554 no valid recipients\r\n", b"250 ok\r\n", b"451 no\r\n"])
async def test_nobody_accepted_and_a_354_all_the_same(to_the_dot):
    """Send the lone dot, read its reply, all are refused, and the connection is good."""
    refusals = ["RCPT", b"550 no\r\n", "RCPT", b"450 no\r\n"]
    script = [*hello("PIPELINING"), "MAIL", OK, *refusals, "DATA", GO, expect_content(), to_the_dot]
    async with ScriptedServer([*script, *take(NEXT), *bye()]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            with pytest.raises(SMTPRecipientsRefused) as caught_error:
                await send(smtp, TO, TOO)
            assert deliveries(caught_error.value) == [Delivery.REFUSED] * 2
            assert (await send(smtp, NEXT)).accepted == (NEXT,)
        assert b"DATA\r\n.\r\nMAIL" in server.received[0]


@each_loop
@pytest.mark.parametrize("kind", ["close", "timeout", "garbage", "354", "cancel"])
async def test_a_lone_dot_without_an_answer_leaves_the_refusal_and_drops_the_connection(kind):
    """The refusal is still the news."""
    reached = asyncio.Event()
    after = {
        "close": [close()],
        "timeout": [stall()],
        "garbage": [b"what?\r\n", stall()],
        "354": [GO, stall()],
        "cancel": [mark(reached), stall()],
    }
    script = [*hello("PIPELINING"), "MAIL", OK, "RCPT", b"550 no\r\n", "DATA", GO, expect_content()]
    async with ScriptedServer([*script, *after[kind]], NEXT_CONNECTION) as server:
        smtp = AsyncSMTP(server.host, server.port, timeout=SHORT if kind == "timeout" else None)
        await smtp.connect()
        error = await suffer(send(smtp), kind, reached)
        assert isinstance(error, asyncio.CancelledError if kind == "cancel" else SMTPRecipientsRefused)
        assert error.delivery is Delivery.REFUSED
        assert not smtp.is_connected
        assert (await send(smtp, NEXT)).accepted == (NEXT,)
        await smtp.quit()


@each_loop
async def test_no_dot_where_it_would_send_somebody_an_empty_message():
    """MAIL refused, a recipient accepted all the same, and a 354: drop, without a dot."""
    script = [*hello("PIPELINING"), "MAIL", b"550 no\r\n", "RCPT", OK, "DATA", GO, expect_eof()]
    async with ScriptedServer(script, NEXT_CONNECTION) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        error = await caught(send(smtp))
        assert isinstance(error, SMTPSenderRefused)
        assert error.delivery is Delivery.REFUSED
        assert not smtp.is_connected
        await server.conversations[0].gone.wait()
        assert server.received[0].endswith(b"DATA\r\n")


@each_loop
async def test_nobody_accepted_and_a_2yz_to_data_drops_the_connection():
    """Who knows what the server is doing."""
    script = [*hello("PIPELINING"), "MAIL", OK, "RCPT", b"550 no\r\n", "DATA", OK, expect_eof()]
    async with ScriptedServer(script, NEXT_CONNECTION) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        assert isinstance(await caught(send(smtp)), SMTPRecipientsRefused)
        assert not smtp.is_connected


@each_loop
async def test_all_or_nothing_sends_nobody_an_empty_message():
    """DATA waits until every recipient is accepted; one refusal, and nothing is delivered."""
    async with MailServer(refuse={TOO: "550 no"}) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            with pytest.raises(SMTPRecipientsRefused) as caught_error:
                await smtp.sendmail(SENDER, [TO, TOO], BODY, all_or_nothing=True)
            error = caught_error.value
            assert error.delivery is Delivery.REFUSED
            assert deliveries(error) == [Delivery.NOT_SENT, Delivery.REFUSED]
            assert list(error.recipients) == [TOO]
            assert "DATA" not in server.commands
            before = server.round_trips
            result = await smtp.sendmail(SENDER, [TO, NEXT], BODY, all_or_nothing=True)
            assert deliveries(result) == [Delivery.ACCEPTED] * 2
            await smtp.noop()
            assert server.round_trips - before == 4
        assert [message.recipients for message in server.messages] == [(TO, NEXT)]


@each_loop
@pytest.mark.parametrize("extensions", [(), ("PIPELINING",)], ids=["lock-step", "pipelined"])
async def test_all_or_nothing_ends_a_refused_envelope_with_rset(extensions):
    """The envelope with those who were accepted is taken back."""
    script = [*hello(*extensions), "MAIL", OK, "RCPT", OK, "RCPT", b"550 no\r\n", "RSET", OK]
    async with ScriptedServer([*script, *take(NEXT), *bye()]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            await caught(smtp.sendmail(SENDER, [TO, TOO], BODY, all_or_nothing=True))
            assert (await send(smtp, NEXT)).accepted == (NEXT,)
        assert verbs(server.received[0])[:6] == ["EHLO", "MAIL", "RCPT", "RCPT", "RSET", "MAIL"]


MANY = 50_000
LONG = b"250 " + b"x" * 500 + b"\r\n"


def groups(recipients: list[str]) -> list[list[bytes]]:
    """The lines of the envelope, as many in each group as leave before a reply is awaited."""
    rcpts = [f"RCPT TO:<{one}>\r\n".encode() for one in recipients]
    found = [rcpts[start : start + MOST] for start in range(0, len(rcpts), MOST)]
    found[0].insert(0, f"MAIL FROM:<{SENDER}>\r\n".encode())
    found[-1].append(b"DATA\r\n")
    return found


async def test_fifty_thousand_recipients_and_a_server_that_answers_late():
    """Read while writing: no deadlock where the server reads everything it gets before it answers."""
    recipients = [f"r{number}@to.test" for number in range(MANY)]
    *most, last = groups(recipients)
    script = [step for group in most for step in (read_exactly(len(b"".join(group))), OK * len(group))]
    script += [read_exactly(len(b"".join(last))), OK * (len(last) - 1), GO, expect_content(), OK, *bye()]
    async with ScriptedServer([*hello("PIPELINING"), *script]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            result = await smtp.sendmail(SENDER, recipients, BODY)
        assert len(result.accepted) == MANY


async def test_ten_thousand_recipients_and_a_server_that_answers_before_it_reads():
    """No deadlock where the server's answers fill its own side of the connection."""
    recipients = [f"r{number}@to.test" for number in range(10_000)]
    script = []
    for group in groups(recipients):
        owed = len(group) - group.count(b"DATA\r\n")
        script += [read_exactly(10), LONG * (owed // 2), read_exactly(len(b"".join(group)) - 10)]
        script.append(LONG * (owed - owed // 2))
    script += [GO, expect_content(), OK, *bye()]
    async with ScriptedServer([*hello("PIPELINING"), *script]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            result = await smtp.sendmail(SENDER, recipients, BODY)
        assert len(result.accepted) == len(recipients)


async def test_after_helo_nothing_is_pipelined():
    """HELO offers nothing."""
    script = [greeting(), "EHLO", b"500 no\r\n", "HELO", b"250-hi\r\n250 PIPELINING\r\n", *envelope(TO)]
    async with ScriptedServer([*script, "DATA", GO, expect_content(), OK, *bye()]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            assert not smtp.has_extn("pipelining")
            await send(smtp)
