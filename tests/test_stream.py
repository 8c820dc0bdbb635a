"""Streams: many tasks on one connection, whose messages follow one another without waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from flight import (
    ENVELOPE,
    FOUR,
    GROUP,
    ONE,
    THREE,
    TWO,
    WHOLE,
    bdat,
    begin,
    group,
    known,
    nothing_more,
    sending,
    settled,
    stream,
)
from wire import BODY, OK, SENDER, bye, each_loop, mark, send, wait_for

from aiosmtpclient import (
    AsyncLMTP,
    AsyncSMTP,
    Delivery,
    Envelope,
    SMTPDataError,
    SMTPRecipientsRefused,
    SMTPSenderRefused,
)
from aiosmtpclient.protocol import MOST_IN_FLIGHT
from aiosmtpclient.testing import CertificateAuthority, Conversation, MailServer, ScriptedServer
from aiosmtpclient.testing.scripted import expect_content, read_exactly

ACCEPTED, REFUSED, NOT_SENT = Delivery.ACCEPTED, Delivery.REFUSED, Delivery.NOT_SENT
CHUNKING = ["off", "eager"]


# Who follows whom


@each_loop
async def test_messages_by_bdat_all_leave_before_the_first_is_answered() -> None:
    script = [*begin(), *bdat(ONE), *bdat(TWO, behind=True), *bdat(THREE, behind=True)]
    answers = WHOLE + OK + WHOLE + OK + WHOLE
    async with ScriptedServer([*script, answers, *bye()]) as server, stream(server) as smtp:
        assert await known(*(sending(smtp, to) for to in (ONE, TWO, THREE))) == [ACCEPTED] * 3


@each_loop
async def test_a_message_by_data_leaves_right_behind_the_content_before_it_and_without_rset() -> None:
    script = [*begin(), *group(ONE), nothing_more(), GROUP, expect_content(), *group(TWO), nothing_more()]
    script += [OK + GROUP, expect_content(), *group(THREE), OK, GROUP, expect_content(), OK, *bye()]
    async with ScriptedServer(script) as server, stream(server, chunking="off") as smtp:
        assert await known(*(sending(smtp, to) for to in (ONE, TWO, THREE))) == [ACCEPTED] * 3
    assert b"RSET" not in server.received[0]


@each_loop
async def test_behind_a_chunk_that_was_taken_there_is_nothing_to_reset() -> None:
    script = [*begin(), *bdat(ONE), WHOLE, *bdat(TWO), WHOLE, *bye()]
    async with ScriptedServer(script) as server, stream(server) as smtp:
        await send(smtp, ONE)
        await send(smtp, TWO)


@each_loop
async def test_behind_a_refused_chunk_there_is_an_rset_once() -> None:
    script = [*begin(), *bdat(ONE), ENVELOPE + b"552 full\r\n", *bdat(TWO, behind=True), OK + WHOLE]
    async with ScriptedServer([*script, *bdat(THREE), WHOLE, *bye()]) as server, stream(server) as smtp:
        assert await known(sending(smtp, ONE)) == [REFUSED]
        assert await known(sending(smtp, TWO)) == [ACCEPTED]
        assert await known(sending(smtp, THREE)) == [ACCEPTED]


async def test_an_envelope_by_hand_behind_a_refused_chunk_has_an_rset_before_it_too() -> None:
    script = [
        *begin(),
        *bdat(ONE),
        ENVELOPE + b"552 full\r\n",
        "RSET",
        OK,
        "MAIL",
        OK,
        "RCPT",
        OK,
        "RSET",
        OK,
    ]
    async with ScriptedServer([*script, *bye()]) as server, stream(server) as smtp:
        assert await known(sending(smtp, ONE)) == [REFUSED]
        assert (await smtp.mail(SENDER)).positive
        assert (await smtp.rcpt(TWO)).positive
        await smtp.rset()


@each_loop
async def test_what_is_outstanding_is_bounded_and_yet_everything_arrives() -> None:
    go, full = asyncio.Event(), asyncio.Event()
    seen: list[int] = []

    async def count(conversation: Conversation) -> None:
        await full.wait()
        seen.append(bytes(conversation.received).count(b"MAIL"))
        go.set()

    messages = MOST_IN_FLIGHT + 50
    last = f"RCPT TO:<{MOST_IN_FLIGHT - 1}@to.test>"
    first = [
        *bdat("0@to.test"),
        *(step for n in range(1, MOST_IN_FLIGHT - 1) for step in bdat(f"{n}@to.test", behind=True)),
    ]
    first += ["RSET", "MAIL", last, "BDAT", read_exactly(len(BODY)), mark(full), nothing_more(), count]
    rest = [step for n in range(MOST_IN_FLIGHT, messages) for step in bdat(f"{n}@to.test", behind=True)]
    answers = WHOLE + (OK + WHOLE) * (MOST_IN_FLIGHT - 1)
    script = [*begin(), *first, wait_for(go), answers, *rest, (OK + WHOLE) * 50, *bye()]
    async with ScriptedServer(script) as server, stream(server) as smtp:
        tasks = [sending(smtp, f"{n}@to.test") for n in range(messages)]
        assert await known(*tasks) == [ACCEPTED] * messages
    assert seen == [MOST_IN_FLIGHT]


# Refusals are nobody else's


@each_loop
@pytest.mark.parametrize("chunking", CHUNKING)
@pytest.mark.parametrize(
    ("refusal", "error"),
    [("sender", SMTPSenderRefused), ("recipient", SMTPRecipientsRefused), ("content", SMTPDataError)],
)
async def test_a_refusal_in_flight_is_its_own_messages_alone(
    refusal: str, error: type[Exception], chunking: str
) -> None:
    async with MailServer(
        refuse_sender={"bad@from.test": "550 5.7.1 no"},
        refuse={"bad@to.test": "550 5.1.1 no"},
        refuse_content=lambda message: "554 5.6.0 no" if b"bad" in message.content else None,
    ) as server:
        smtp = AsyncSMTP(server.host, server.port, pipelining="stream", chunking=chunking)  # type: ignore[arg-type]
        async with smtp:

            async def one(number: int) -> object:
                bad = number % 3 == 1
                sender = "bad@from.test" if bad and refusal == "sender" else SENDER
                recipient = "bad@to.test" if bad and refusal == "recipient" else f"{number}@to.test"
                body = b"bad\r\n" if bad and refusal == "content" else BODY
                return await smtp.sendmail(sender, recipient, body)

            results = await asyncio.gather(*map(one, range(12)), return_exceptions=True)
    assert [type(result) is error for result in results] == [number % 3 == 1 for number in range(12)]
    assert [result.delivery is REFUSED for result in results if isinstance(result, error)] == [True] * 4  # type: ignore[attr-defined]
    good = [f"{number}@to.test" for number in range(12) if number % 3 != 1]
    assert [message.recipients for message in server.messages] == [(name,) for name in good]
    assert server.connections == 1


@each_loop
@pytest.mark.parametrize("chunking", CHUNKING)
async def test_one_refused_recipient_does_not_keep_the_message_from_the_others(chunking: str) -> None:
    async with MailServer(refuse={"bad@to.test": "550 5.1.1 no"}) as server:
        smtp = AsyncSMTP(server.host, server.port, pipelining="stream", chunking=chunking)  # type: ignore[arg-type]
        async with smtp:
            tasks = [send(smtp, f"{number}@to.test", "bad@to.test") for number in range(6)]
            results = await asyncio.gather(*tasks)
    assert [result.accepted for result in results] == [(f"{number}@to.test",) for number in range(6)]
    assert [list(result) for result in results] == [["bad@to.test"]] * 6


@each_loop
@pytest.mark.parametrize("chunking", CHUNKING)
async def test_all_or_nothing_is_kept_in_a_stream(chunking: str) -> None:
    async with MailServer(refuse={"bad@to.test": "550 5.1.1 no"}) as server:
        smtp = AsyncSMTP(server.host, server.port, pipelining="stream", chunking=chunking)  # type: ignore[arg-type]
        async with smtp:

            async def whole(*recipients: str) -> object:
                return await smtp.sendmail(SENDER, recipients, BODY, all_or_nothing=True)

            tasks = [send(smtp, ONE), whole(TWO, "bad@to.test"), send(smtp, THREE), whole(FOUR, ONE)]
            first, second, third, fourth = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(second, SMTPRecipientsRefused)
    assert second.delivery is REFUSED
    assert [isinstance(result, dict) for result in (first, third, fourth)] == [True] * 3
    assert [message.recipients for message in server.messages] == [(ONE,), (THREE,), (FOUR, ONE)]


@each_loop
@pytest.mark.parametrize("chunking", CHUNKING)
async def test_without_pipelining_nobody_writes_before_the_one_before_has_his_reply(chunking: str) -> None:
    async with MailServer(without=["PIPELINING"]) as server:
        smtp = AsyncSMTP(server.host, server.port, pipelining="stream", chunking=chunking)  # type: ignore[arg-type]
        async with smtp:
            before = server.round_trips
            tasks = [sending(smtp, f"{number}@to.test") for number in range(4)]
            assert await known(*tasks) == [ACCEPTED] * 4
            await smtp.noop()
            assert server.round_trips - before == 4 * (4 if chunking == "off" else 3) + 1


@each_loop
@pytest.mark.parametrize("chunking", CHUNKING)
async def test_lmtp_in_a_stream_gives_each_recipient_of_each_message_his_own_reply(chunking: str) -> None:
    refusals = {"full@to.test": "452 4.2.2 full"}
    async with MailServer(
        lmtp=True, refuse={"bad@to.test": "550 no"}, refuse_after_content=refusals
    ) as server:
        smtp = AsyncLMTP(server.host, server.port, pipelining="stream", chunking=chunking)  # type: ignore[arg-type]
        async with smtp:
            lists = [
                [ONE, TWO],
                ["bad@to.test", ONE],
                ["full@to.test", TWO],
                [ONE, "full@to.test", "bad@to.test"],
            ]
            results = await asyncio.gather(*(send(smtp, *recipients) for recipients in lists))
    assert [result.accepted for result in results] == [(ONE, TWO), (ONE,), (TWO,), (ONE,)]


# Whoever changes the session waits


@each_loop
@pytest.mark.parametrize("verb", ["NOOP", "RSET", "EHLO", "QUIT"])
async def test_a_verb_waits_until_nothing_is_owed_to_anybody(verb: str) -> None:
    script = [*begin(), *bdat(ONE), *bdat(TWO, behind=True), nothing_more(), WHOLE + OK + WHOLE, verb]
    ends = [b"221 bye\r\n"] if verb == "QUIT" else [OK, *bye()]
    async with ScriptedServer([*script, *ends]) as server:
        smtp = stream(server)
        await smtp.connect()
        tasks = [sending(smtp, ONE), sending(smtp, TWO)]
        await settled()
        reply = await getattr(smtp, verb.lower())()
        assert reply.positive
        assert [task.done() for task in tasks] == [True, True]
        assert await known(*tasks) == [ACCEPTED] * 2
        if verb != "QUIT":
            await smtp.quit()


@each_loop
async def test_starttls_waits_and_what_is_sent_behind_it_is_encrypted() -> None:
    authority = CertificateAuthority()
    async with MailServer(starttls=authority.server_context()) as server:
        smtp = AsyncSMTP(
            server.host,
            server.port,
            tls="none",
            tls_context=authority.client_context(),
            pipelining="stream",
            chunking="eager",
        )
        async with smtp:
            before = [sending(smtp, ONE), sending(smtp, TWO)]
            await asyncio.sleep(0)
            upgrade = asyncio.create_task(smtp.starttls())
            await asyncio.sleep(0)
            after = sending(smtp, THREE)
            assert await known(*before, after) == [ACCEPTED] * 3
            assert (await upgrade).code == 220
    assert [message.tls for message in server.messages] == [False, False, True]


@each_loop
async def test_leaving_the_block_waits_for_what_is_under_way() -> None:
    answer = asyncio.Event()
    script = [*begin(), *bdat(ONE), *bdat(TWO, behind=True), wait_for(answer), WHOLE + OK + WHOLE, *bye()]
    async with ScriptedServer(script) as server:
        async with stream(server) as smtp:
            tasks = [sending(smtp, ONE), sending(smtp, TWO)]
            await settled()
            asyncio.get_running_loop().call_soon(answer.set)
        assert await known(*tasks) == [ACCEPTED] * 2


# Many


@each_loop
@pytest.mark.parametrize("chunking", CHUNKING)
@pytest.mark.parametrize("ordered", [False, True])
async def test_failing_messages_among_many_are_outcomes_of_their_own(chunking: str, ordered: bool) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"Subject: x\r\n"
        raise LookupError("no more")

    def message(number: int) -> Envelope:
        kinds = {1: "bad@to.test", 2: "a\r\nb@to.test"}
        body = broken() if number % 10 == 3 else b"bad\r\n" if number % 10 == 4 else BODY
        return Envelope(SENDER, kinds.get(number % 10, f"{number}@to.test"), body)

    async with MailServer(
        refuse={"bad@to.test": "550 5.1.1 no"},
        refuse_content=lambda message: "554 5.6.0 no" if b"bad" in message.content else None,
    ) as server:
        smtp = AsyncSMTP(server.host, server.port, pipelining="stream", chunking=chunking)  # type: ignore[arg-type]
        async with smtp:
            run = smtp.send_messages(map(message, range(100)), ordered=ordered)
            outcomes = [outcome async for outcome in run]
    if ordered:
        assert [outcome.index for outcome in outcomes] == list(range(100))
    expected = {1: REFUSED, 2: NOT_SENT, 3: NOT_SENT, 4: REFUSED}
    found = {outcome.index: outcome.delivery for outcome in outcomes}
    assert found == {number: expected.get(number % 10, ACCEPTED) for number in range(100)}
    assert len(server.messages) == 60


async def test_who_stops_early_can_go_on_with_the_same_client() -> None:
    async with MailServer() as server:
        async with AsyncSMTP(server.host, server.port, pipelining="stream", chunking="eager") as smtp:
            run = smtp.send_messages(Envelope(SENDER, f"{n}@to.test", BODY) for n in range(1000))
            await anext(run)
            await run.aclose()
            assert (await send(smtp, ONE)).accepted == (ONE,)
    assert len(server.messages) < 200


def test_a_client_in_another_loop_is_refused_before_it_spoils_a_stream() -> None:
    with MailServer() as server:
        smtp = AsyncSMTP(server.host, server.port, pipelining="stream", chunking="eager")
        with asyncio.Runner() as first, asyncio.Runner() as second:
            first.run(smtp.connect())
            first.run(send(smtp, ONE))
            with pytest.raises(RuntimeError, match="another event loop") as caught:
                second.run(send(smtp, TWO))
            assert caught.value.delivery is NOT_SENT  # type: ignore[attr-defined]
            first.run(send(smtp, THREE))
            first.run(smtp.quit())
            second.run(smtp.connect())
            second.run(send(smtp, FOUR))
            second.run(smtp.quit())
    assert [message.recipients for message in server.messages] == [(ONE,), (THREE,), (FOUR,)]
