"""Accounts that were false once: each was found by a sweep, and has its own test since."""

from __future__ import annotations

import asyncio

import pytest
from flight import OFFERS, ONE, TWO, begin, known, sending, stream
from wire import BODY, GO, OK, SENDER, hello

from aiosmtpclient import (
    AsyncLMTP,
    AsyncSMTP,
    Delivery,
    SMTPProtocolError,
    SMTPRecipientsRefused,
    SMTPServerDisconnected,
)
from aiosmtpclient.testing import ScriptedServer
from aiosmtpclient.testing.scripted import read_all, read_exactly

ACCEPTED, REFUSED, NOT_SENT, UNKNOWN = (
    Delivery.ACCEPTED,
    Delivery.REFUSED,
    Delivery.NOT_SENT,
    Delivery.UNKNOWN,
)
NO = b"550 5.1.1 no\r\n"
WHOLE = ["MAIL", "RCPT", "RCPT", "BDAT", read_exactly(len(BODY))]


async def account(smtp: AsyncSMTP) -> list[Delivery]:
    """What is said about ONE and TWO by the error that the message to them ends with."""
    with pytest.raises(SMTPProtocolError) as caught:
        await smtp.sendmail(SENDER, [ONE, TWO], BODY)
    return [outcome.delivery for outcome in caught.value.outcomes]


@pytest.mark.parametrize("pipelining", ["message", "stream"])
@pytest.mark.parametrize("answers", [OK + OK + GO + OK, OK + GO + OK + OK, GO + OK + OK + OK])
async def test_a_recipient_answered_with_a_3yz_is_not_accepted_by_the_yes_to_the_content(
    pipelining: str, answers: bytes
) -> None:
    """The server lost its place, so whom its yes is for nobody knows."""
    async with ScriptedServer([*hello(*OFFERS), *WHOLE, answers, read_all()]) as server:
        smtp = stream(server, pipelining=pipelining)
        await smtp.connect()
        assert await account(smtp) == [UNKNOWN, UNKNOWN]
        smtp.close()


@pytest.mark.parametrize("answers", [OK + NO + GO, NO + OK + GO, OK + NO + GO + OK])
async def test_one_reply_too_few_in_a_group_refuses_nobody(answers: bytes) -> None:
    """A 354 in the place of RCPT's answer shows it: the no before it may be anybody's."""
    script = [*hello(*OFFERS), "MAIL", "RCPT", "RCPT", "DATA", answers, read_all()]
    async with ScriptedServer(script) as server:
        smtp = AsyncSMTP(server.host, server.port, chunking="off", timeout=0.15)
        await smtp.connect()
        with pytest.raises(Exception) as caught:
            await smtp.sendmail(SENDER, [ONE, TWO], BODY)
        assert [outcome.delivery for outcome in caught.value.outcomes] == [NOT_SENT, NOT_SENT]
        smtp.close()


@pytest.mark.parametrize("answers", [OK + OK + GO, OK + GO + OK, GO + OK + OK, OK + GO + NO])
async def test_behind_a_3yz_to_an_lmtp_envelope_the_next_message_is_not_refused_by_a_reply_to_this_one(
    answers: bytes,
) -> None:
    """How many replies the content earns there nobody knows, so none behind it is anybody's."""
    script = [*hello(*OFFERS, verb="LHLO"), *WHOLE, "RSET", *WHOLE]
    script += [answers + OK + OK + OK + OK + OK + OK + NO + NO, read_all()]
    async with ScriptedServer(script) as server:
        smtp = AsyncLMTP(server.host, server.port, pipelining="stream", chunking="eager")
        await smtp.connect()
        tasks = [asyncio.create_task(smtp.sendmail(SENDER, [ONE, TWO], BODY)) for _ in range(2)]
        errors = await asyncio.gather(*tasks, return_exceptions=True)
        assert [[one.delivery for one in error.outcomes] for error in errors] == [[UNKNOWN] * 2] * 2
        smtp.close()


async def test_a_3yz_to_the_reset_before_an_lmtp_message_is_no_index_error() -> None:
    """Whether the RSET worked shows in the reply to MAIL."""
    refused, taken = OK + OK + OK + b"554 5.6.0 no\r\n" * 2, GO + OK * 5
    async with ScriptedServer(
        [*hello(*OFFERS, verb="LHLO"), *WHOLE, refused, "RSET", *WHOLE, taken]
    ) as server:
        smtp = AsyncLMTP(server.host, server.port, pipelining="stream", chunking="eager")
        await smtp.connect()
        with pytest.raises(SMTPRecipientsRefused):
            await smtp.sendmail(SENDER, [ONE, TWO], BODY)
        assert (await smtp.sendmail(SENDER, [ONE, TWO], BODY)).accepted == (ONE, TWO)
        smtp.close()


async def test_behind_a_refused_lmtp_sender_nobody_is_told_what_was_said_to_another() -> None:
    """Without a sender there is no message, and one reply to its chunk; with two recipients there are two."""
    script = [*hello(*OFFERS, verb="LHLO"), *WHOLE, "RSET", *WHOLE]
    script += [NO + OK + OK + b"554 5.5.1 no\r\n", OK + OK + OK + OK + OK + NO, read_all()]
    async with ScriptedServer(script) as server:
        smtp = AsyncLMTP(server.host, server.port, pipelining="stream", chunking="eager")
        await smtp.connect()
        tasks = [asyncio.create_task(smtp.sendmail(SENDER, [ONE, TWO], BODY)) for _ in range(2)]
        errors = await asyncio.gather(*tasks, return_exceptions=True)
        states = [[one.delivery for one in error.outcomes] for error in errors]
        assert states == [[REFUSED] * 2, [UNKNOWN] * 2]
        smtp.close()


async def test_a_421_that_was_there_before_the_message_does_not_refuse_it() -> None:
    """What is gathered has not left yet: the server ended the session, and never saw the message."""
    bye = b"421 4.3.2 bye\r\n"
    async with ScriptedServer([*begin(), "NOOP", OK, read_all()]) as server:
        smtp = stream(server)
        await smtp.connect()
        await smtp.noop()
        task = sending(smtp, ONE)
        asyncio.get_running_loop().call_soon(smtp._connection.protocol.data_received, bye)  # type: ignore[union-attr]
        assert await known(task) == [NOT_SENT]
        error = await task
        assert isinstance(error, SMTPServerDisconnected)
        assert "421 4.3.2 bye" in str(error)
        assert ONE.encode() not in server.received[0]
        smtp.close()
