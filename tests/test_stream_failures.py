"""Streams that break: each message in flight keeps an honest account, and the next one finds a way."""

from __future__ import annotations

import asyncio

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
    sending,
    stream,
)
from wire import BODY, LONG, OK, SHORT, bye, each_loop, hello, mark, send, take

from aiosmtpclient import (
    AsyncLMTP,
    AsyncSMTP,
    Delivery,
    SMTPException,
    SMTPServerDisconnected,
    SMTPTimeoutError,
)
from aiosmtpclient.testing import ScriptedServer
from aiosmtpclient.testing.scripted import close, expect_content, read_all, read_exactly, reset, stall

pytestmark = each_loop

ACCEPTED, REFUSED, NOT_SENT, UNKNOWN = (
    Delivery.ACCEPTED,
    Delivery.REFUSED,
    Delivery.NOT_SENT,
    Delivery.UNKNOWN,
)
LARGE = b"x" * 70_000 + b"\r\n"
BYE = b"421 4.3.2 bye\r\n"
AGAIN = [*hello(), *take(FOUR), *bye()]
"""The next connection."""


async def next_is_its_own(smtp: AsyncSMTP, server: ScriptedServer) -> None:
    """The connection is of no use any more; the next message travels on another, alone."""
    assert (await send(smtp, FOUR)).accepted == (FOUR,)
    assert FOUR.encode() not in server.received[0]


ENDS = {
    "close": [close()],
    "reset": [reset()],
    "garbage": [b"what?\r\n", read_all()],
    "half a line": [b"25", close()],
    "timeout": [stall()],
}


def patience(how: str) -> float:
    return SHORT if how == "timeout" else LONG


# The connection is lost


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (b"", [UNKNOWN] * 3),
        (ENVELOPE, [UNKNOWN] * 3),
        (WHOLE, [ACCEPTED, UNKNOWN, UNKNOWN]),
        (WHOLE + OK + OK + b"550 no\r\n", [ACCEPTED, REFUSED, UNKNOWN]),
        (ENVELOPE + b"552 full\r\n" + OK + WHOLE + OK + OK, [REFUSED, ACCEPTED, UNKNOWN]),
    ],
    ids=["nothing", "an envelope", "the first", "a recipient", "two"],
)
async def test_what_was_answered_counts_and_what_left_without_an_answer_is_unknown(
    how: str, answers: bytes, expected: list[Delivery]
) -> None:
    script = [*begin(), *bdat(ONE), *bdat(TWO, behind=True), *bdat(THREE, behind=True), answers]
    async with ScriptedServer([*script, *ENDS[how]], AGAIN) as server:
        async with stream(server, timeout=patience(how)) as smtp:
            assert await known(*(sending(smtp, to) for to in (ONE, TWO, THREE))) == expected
            smtp._chunking = "off"
            await next_is_its_own(smtp, server)


@pytest.mark.parametrize("how", ENDS)
async def test_whose_content_had_not_left_is_not_sent_and_who_waited_for_the_turn_is_not_harmed(
    how: str,
) -> None:
    script = [*begin(), *group(ONE), GROUP, expect_content(), *group(TWO), *ENDS[how]]
    again = [*hello(), *take(THREE), *take(FOUR), *bye()]
    async with ScriptedServer(script, again) as server:
        async with stream(server, chunking="off", timeout=patience(how)) as smtp:
            tasks = [sending(smtp, to) for to in (ONE, TWO, THREE)]
            assert await known(*tasks) == [UNKNOWN, NOT_SENT, ACCEPTED]
            await next_is_its_own(smtp, server)


@pytest.mark.parametrize("answers", [WHOLE + OK, WHOLE + OK + OK])
async def test_a_connection_lost_at_the_rset_of_a_large_message_is_no_mistake_of_the_caller(
    answers: bytes,
) -> None:
    script = [*begin(), *bdat(ONE), "RSET", "MAIL", "RCPT", answers, close()]
    async with ScriptedServer(script, AGAIN) as server, stream(server) as smtp:
        first, second = sending(smtp, ONE), sending(smtp, TWO, LARGE)
        assert await known(first, second) == [ACCEPTED, NOT_SENT]
        assert isinstance(await second, SMTPServerDisconnected)
        smtp._chunking = "off"
        await next_is_its_own(smtp, server)


async def test_the_oldest_that_is_not_answered_in_time_is_named_and_ends_it_for_all() -> None:
    script = [*begin(), *bdat(ONE), *bdat(TWO, behind=True), WHOLE + OK, stall()]
    async with ScriptedServer(script) as server:
        smtp = stream(server, timeout=SHORT)
        await smtp.connect()
        first, second = sending(smtp, ONE), sending(smtp, TWO)
        assert await known(first, second) == [ACCEPTED, UNKNOWN]
        error = await second
        assert isinstance(error, SMTPTimeoutError)
        assert error.phase == "MAIL"
        assert not smtp.is_connected


# 421, and replies too many


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (BYE, [REFUSED, UNKNOWN, UNKNOWN]),
        (ENVELOPE + BYE, [REFUSED, UNKNOWN, UNKNOWN]),
        (WHOLE + BYE, [ACCEPTED, REFUSED, UNKNOWN]),
        (WHOLE + OK + OK + BYE, [ACCEPTED, REFUSED, UNKNOWN]),
        (WHOLE + OK + WHOLE + OK + ENVELOPE + BYE, [ACCEPTED, ACCEPTED, REFUSED]),
    ],
)
async def test_a_421_refuses_the_message_it_answers_and_leaves_those_behind_it_unknown(
    answers: bytes, expected: list[Delivery]
) -> None:
    script = [*begin(), *bdat(ONE), *bdat(TWO, behind=True), *bdat(THREE, behind=True), answers, close()]
    async with ScriptedServer(script, AGAIN) as server, stream(server) as smtp:
        tasks = [sending(smtp, to) for to in (ONE, TWO, THREE)]
        assert await known(*tasks) == expected
        refused = await tasks[expected.index(REFUSED)]
        assert isinstance(refused, SMTPException)
        assert refused.temporary
        smtp._chunking = "off"
        await next_is_its_own(smtp, server)


@pytest.mark.parametrize("stray", [OK, b"550 no\r\n", b"2"])
async def test_a_reply_too_many_behind_a_stream_spoils_nothing_that_comes_later(stray: bytes) -> None:
    script = [*begin(), *bdat(ONE), *bdat(TWO, behind=True), WHOLE + OK + WHOLE + stray, read_all()]
    async with ScriptedServer(script, AGAIN) as server, stream(server) as smtp:
        assert await known(sending(smtp, ONE), sending(smtp, TWO)) == [ACCEPTED] * 2
        smtp._chunking = "off"
        await next_is_its_own(smtp, server)


@pytest.mark.parametrize("body", [BODY, LARGE], ids=["small", "large"])
async def test_a_yes_that_was_there_before_the_message_is_no_yes_to_it(body: bytes) -> None:
    """What is gathered has not left yet, so what arrives meanwhile answers none of it."""
    script = [*begin(), "NOOP", OK, read_all()]
    async with ScriptedServer(script, AGAIN) as server, stream(server) as smtp:
        await smtp.noop()
        task = sending(smtp, ONE, body)
        asyncio.get_running_loop().call_soon(smtp._connection.protocol.data_received, OK * 3)  # type: ignore[union-attr]
        assert await known(task) == [NOT_SENT]
        assert ONE.encode() not in server.received[0]
        smtp._chunking = "off"
        await next_is_its_own(smtp, server)


async def test_a_3yz_among_the_replies_ends_it_for_all_and_accepts_nothing() -> None:
    script = [*begin(), *bdat(ONE), *bdat(TWO, behind=True), ENVELOPE + b"354 go\r\n", read_all()]
    async with ScriptedServer(script, AGAIN) as server, stream(server) as smtp:
        assert await known(sending(smtp, ONE), sending(smtp, TWO)) == [UNKNOWN] * 2
        smtp._chunking = "off"
        await next_is_its_own(smtp, server)


async def test_lmtp_in_flight_knows_each_recipient_when_the_connection_is_lost() -> None:
    reached = asyncio.Event()
    one = ["MAIL", "RCPT", "RCPT", "BDAT", read_exactly(len(BODY))]
    answers = OK * 3 + OK + b"452 full\r\n" + OK + OK * 3 + OK
    script = [
        *hello("PIPELINING", "CHUNKING", verb="LHLO"),
        *one,
        "RSET",
        *one,
        answers,
        mark(reached),
        close(),
    ]
    async with ScriptedServer(script) as server:
        smtp = AsyncLMTP(server.host, server.port, pipelining="stream", chunking="eager")
        await smtp.connect()
        first, second = (asyncio.create_task(send(smtp, ONE, TWO)) for _ in range(2))
        assert (await first).accepted == (ONE,)
        with pytest.raises(SMTPServerDisconnected) as caught:
            await second
        assert [outcome.delivery for outcome in caught.value.outcomes] == [ACCEPTED, UNKNOWN]
        smtp.close()


# close()


async def test_close_in_flight_leaves_those_unknown_whose_end_left_and_the_others_not_sent() -> None:
    reached = asyncio.Event()
    script = [*begin(), *group(ONE), GROUP, expect_content(), *group(TWO), mark(reached), read_all()]
    async with ScriptedServer(script) as server:
        smtp = stream(server, chunking="off")
        await smtp.connect()
        tasks = [sending(smtp, to) for to in (ONE, TWO, THREE)]
        await reached.wait()
        smtp.close()
        assert await known(*tasks) == [UNKNOWN, NOT_SENT, NOT_SENT]
        assert not smtp.is_connected


async def test_what_was_gathered_when_the_client_is_closed_has_not_left() -> None:
    async with ScriptedServer([*begin(), read_all()]) as server:
        smtp = stream(server)
        await smtp.connect()
        tasks = [sending(smtp, to) for to in (ONE, TWO)]
        asyncio.get_running_loop().call_soon(smtp.close)
        assert await known(*tasks) == [NOT_SENT] * 2
        await server.conversations[0].gone.wait()
        assert b"MAIL" not in server.received[0]
