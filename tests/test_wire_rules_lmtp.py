"""The wire rules: LMTP (RFC 2033)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from wire import (
    BODY,
    GO,
    NEXT,
    OK,
    SENDER,
    TO,
    TOO,
    bye,
    caught,
    deliveries,
    each_loop,
    envelope,
    fault,
    hello,
    mark,
    patience,
    send,
    suffer,
    wait_for,
)

from aiosmtpclient import (
    AsyncLMTP,
    Delivery,
    SMTPDataError,
    SMTPException,
    SMTPProtocolError,
    SMTPRecipientsRefused,
    SMTPSenderRefused,
    SMTPServerDisconnected,
)
from aiosmtpclient.testing import MailServer, ScriptedServer
from aiosmtpclient.testing.scripted import expect_content, expect_eof, read_all, read_exactly, stall

THIRD = "third@to.test"


def lhlo(*extensions: str):
    return hello(*extensions, verb="LHLO")


def answers(*codes: int) -> bytes:
    return b"".join(b"%d %d\r\n" % (code, number) for number, code in enumerate(codes))


NEXT_CONNECTION = [*lhlo(), *envelope(NEXT), "DATA", GO, expect_content(), OK, *bye()]


async def assert_reconnects(lmtp: AsyncLMTP) -> None:
    assert not lmtp.is_connected
    assert (await send(lmtp, NEXT)).accepted == (NEXT,)
    await lmtp.quit()


@each_loop
@pytest.mark.parametrize("extensions", [(), ("PIPELINING",)], ids=["lock-step", "pipelined"])
async def test_each_accepted_recipient_has_its_own_reply(extensions):
    """One reply for each *accepted* recipient, in order, duplicates included; the refused have none."""
    script = [*lhlo(*extensions), "MAIL", OK, "RCPT", OK, "RCPT", b"550 no\r\n", "RCPT", OK, "RCPT", OK]
    script += ["DATA", GO, expect_content(), answers(250, 452, 250)]
    next_one = [*envelope(NEXT), "DATA", GO, expect_content(), OK, *bye()]
    async with ScriptedServer([*script, *next_one]) as server:
        async with AsyncLMTP(server.host, server.port) as lmtp:
            result = await send(lmtp, TO, TOO, THIRD, TO)
            assert [(o.address, o.delivery, o.reply.code) for o in result.outcomes] == [
                (TO, Delivery.ACCEPTED, 250),
                (TOO, Delivery.REFUSED, 550),
                (THIRD, Delivery.REFUSED, 452),
                (TO, Delivery.ACCEPTED, 250),
            ]
            assert dict(result) == {TOO: (550, b"no"), THIRD: (452, b"1")}
            assert result.accepted == (TO, TO)
            assert result.reply == (250, b"0")
            assert (await send(lmtp, NEXT)).accepted == (NEXT,)
        assert server.connections == 1


@each_loop
async def test_a_real_lmtp_server_on_a_unix_socket(tmp_path: Path):
    """TCP or Unix socket, and each recipient's own verdict."""
    async with MailServer(
        lmtp=True,
        unix_path=tmp_path / "lmtp",
        refuse={TOO: "550 5.1.1 no"},
        refuse_after_content={THIRD: "452 full"},
    ) as server:
        async with AsyncLMTP(server.host) as lmtp:
            result = await send(lmtp, TO, TOO, THIRD, NEXT)
            assert deliveries(result) == [
                Delivery.ACCEPTED,
                Delivery.REFUSED,
                Delivery.REFUSED,
                Delivery.ACCEPTED,
            ]
            await send(lmtp, NEXT)
        assert [message.recipients for message in server.messages] == [(TO, NEXT), (NEXT,)]
        assert server.connections == 1


@each_loop
async def test_refused_by_all_after_the_content_is_refused():
    """Nobody took it: all are refused, each with its own reply, and the connection is kept."""
    script = [*lhlo(), *envelope(TO, TOO), "DATA", GO, expect_content(), answers(550, 451)]
    next_one = [*envelope(NEXT), "DATA", GO, expect_content(), OK, *bye()]
    async with ScriptedServer([*script, *next_one]) as server:
        async with AsyncLMTP(server.host, server.port) as lmtp:
            with pytest.raises(SMTPRecipientsRefused) as caught_error:
                await send(lmtp, TO, TOO)
            error = caught_error.value
            assert {address: reply.code for address, reply in error.recipients.items()} == {TO: 550, TOO: 451}
            assert (error.delivery, error.temporary, error.permanent) == (Delivery.REFUSED, True, False)
            await send(lmtp, NEXT)


@each_loop
@pytest.mark.parametrize("kind", ["close", "reset", "timeout", "cancel", "garbage", "half line"])
async def test_recipients_without_a_reply_are_unknown(kind):
    """Replies that never came make those recipients UNKNOWN; those that came count."""
    reached = asyncio.Event()
    script = [*lhlo(), *envelope(TO, TOO, THIRD), "DATA", GO, expect_content(), answers(250, 550)]

    async def both_read(_: object) -> None:
        while lmtp._connection.session.replies_read < 8:
            await asyncio.sleep(0)

    async with ScriptedServer([*script, both_read, *fault(kind, reached)], NEXT_CONNECTION) as server:
        lmtp = AsyncLMTP(server.host, server.port, timeout=patience(kind))
        await lmtp.connect()
        error = await suffer(send(lmtp, TO, TOO, THIRD), kind, reached)
        assert isinstance(error, asyncio.CancelledError if kind == "cancel" else SMTPException)
        assert error.delivery is Delivery.UNKNOWN
        assert deliveries(error) == [Delivery.ACCEPTED, Delivery.REFUSED, Delivery.UNKNOWN]
        await assert_reconnects(lmtp)


@each_loop
async def test_a_421_among_the_replies_leaves_the_rest_unknown():
    """A 421 in the place of a recipient's reply refuses that one, and no more replies come."""
    script = [*lhlo(), *envelope(TO, TOO, THIRD), "DATA", GO, expect_content(), answers(250, 421), read_all()]
    async with ScriptedServer(script, NEXT_CONNECTION) as server:
        lmtp = AsyncLMTP(server.host, server.port)
        await lmtp.connect()
        error = await caught(send(lmtp, TO, TOO, THIRD))
        assert isinstance(error, SMTPServerDisconnected)
        assert deliveries(error) == [Delivery.ACCEPTED, Delivery.REFUSED, Delivery.UNKNOWN]
        await assert_reconnects(lmtp)


@each_loop
async def test_one_reply_too_many_takes_the_connection_but_no_result():
    """A server that answers once for a refused recipient too: the results stand, the connection does not."""
    script = [*lhlo(), *envelope(TO), "DATA", GO, expect_content(), answers(250, 250), read_all()]
    async with ScriptedServer(script, NEXT_CONNECTION) as server:
        lmtp = AsyncLMTP(server.host, server.port)
        await lmtp.connect()
        assert (await send(lmtp)).accepted == (TO,)
        await assert_reconnects(lmtp)


@each_loop
async def test_a_3yz_among_the_replies_makes_that_recipient_unknown():
    """A reply of a class that cannot be an answer is not trustworthy."""
    script = [*lhlo(), *envelope(TO, TOO), "DATA", GO, expect_content(), answers(250, 354), read_all()]
    async with ScriptedServer(script, NEXT_CONNECTION) as server:
        lmtp = AsyncLMTP(server.host, server.port)
        await lmtp.connect()
        error = await caught(send(lmtp, TO, TOO))
        assert isinstance(error, SMTPProtocolError)
        assert deliveries(error) == [Delivery.ACCEPTED, Delivery.UNKNOWN]
        await assert_reconnects(lmtp)


@each_loop
@pytest.mark.parametrize("code", [552, 250])
async def test_a_reply_before_the_end_of_the_content_is_everybodys(code):
    """A refusal in the middle of the content refuses everybody; a 250 there accepts nobody."""
    over = asyncio.Event()
    script = [*lhlo(), *envelope(TO, TOO), "DATA", GO, read_exactly(100_000), answers(code)]
    big = (b"x" * 998 + b"\r\n") * 16_000
    async with ScriptedServer([*script, wait_for(over), read_all()], NEXT_CONNECTION) as server:
        lmtp = AsyncLMTP(server.host, server.port)
        await lmtp.connect()
        error = await caught(send(lmtp, TO, TOO, body=big))
        expected = Delivery.REFUSED if code == 552 else Delivery.NOT_SENT
        assert deliveries(error) == [expected] * 2
        over.set()
        await server.conversations[0].gone.wait()
        assert not server.received[0].endswith(b"\r\n.\r\n")
        await assert_reconnects(lmtp)


@each_loop
@pytest.mark.parametrize("at", ["MAIL", "RCPT", "DATA"])
async def test_refused_before_the_content_is_refused_as_in_smtp(at):
    """Up to DATA LMTP is SMTP: RSET, and the next message on the same connection."""
    steps = {
        "MAIL": (["MAIL", b"550 no\r\n"], SMTPSenderRefused),
        "RCPT": (["MAIL", OK, "RCPT", b"550 no\r\n"], SMTPRecipientsRefused),
        "DATA": ([*envelope(TO), "DATA", b"451 no\r\n"], SMTPDataError),
    }
    refused, kind = steps[at]
    next_one = [*envelope(NEXT), "DATA", GO, expect_content(), OK, *bye()]
    async with ScriptedServer([*lhlo(), *refused, "RSET", OK, *next_one]) as server:
        async with AsyncLMTP(server.host, server.port) as lmtp:
            error = await caught(send(lmtp))
            assert isinstance(error, kind)
            assert deliveries(error) == [Delivery.REFUSED]
            await send(lmtp, NEXT)


@each_loop
async def test_nobody_accepted_and_a_354_is_left_without_a_dot():
    """No recipient, so no reply would follow the dot: nothing to stay in step by."""
    script = [*lhlo("PIPELINING"), "MAIL", OK, "RCPT", b"550 no\r\n", "DATA", GO, expect_eof()]
    async with ScriptedServer(script, NEXT_CONNECTION) as server:
        lmtp = AsyncLMTP(server.host, server.port)
        await lmtp.connect()
        assert isinstance(await caught(send(lmtp)), SMTPRecipientsRefused)
        await assert_reconnects(lmtp)


@each_loop
async def test_content_by_hand_reads_one_reply_a_recipient():
    """`mail`, `rcpt`, `data` by hand: the first refusal is returned, and nothing is left unread."""
    script = [*lhlo(), "MAIL", OK, "RCPT", OK, "RCPT", b"550 no\r\n", "RCPT", OK]
    script += ["DATA", GO, expect_content(), answers(250, 452), "NOOP", b"250 still in step\r\n", *bye()]
    async with ScriptedServer(script) as server:
        async with AsyncLMTP(server.host, server.port) as lmtp:
            await lmtp.mail(SENDER)
            for one in (TO, TOO, THIRD):
                await lmtp.rcpt(one)
            assert await lmtp.data(BODY) == (452, b"1")
            assert (await lmtp.noop()).message == b"still in step"


@each_loop
async def test_content_by_hand_for_recipients_nobody_counted_is_not_sent():
    """RCPT through `docmd`: nobody knows how many replies would come, so nothing is written."""
    next_one = [*envelope(NEXT), "DATA", GO, expect_content(), OK, *bye()]
    async with ScriptedServer([*lhlo(), "MAIL", OK, "RCPT", OK, "RSET", OK, *next_one]) as server:
        async with AsyncLMTP(server.host, server.port) as lmtp:
            await lmtp.docmd("MAIL", f"FROM:<{SENDER}>")
            await lmtp.docmd("RCPT", f"TO:<{TO}>")
            error = await caught(lmtp.data(BODY))
            assert isinstance(error, RuntimeError)
            assert error.delivery is Delivery.NOT_SENT
            await lmtp.rset()
            assert (await send(lmtp, NEXT)).accepted == (NEXT,)


async def test_lmtp_says_lhlo_and_offers_no_helo():
    """LHLO, no fallback; `ehlo()` says LHLO too."""
    script = [*lhlo("PIPELINING"), "LHLO", b"250 hi\r\n", *bye()]
    async with ScriptedServer(script) as server:
        async with AsyncLMTP(server.host, server.port) as lmtp:
            assert lmtp.has_extn("pipelining")
            assert (await lmtp.ehlo()).code == 250
            assert lmtp.ehlo_resp == b"hi"


@each_loop
async def test_a_cancellation_with_the_last_reply_hides_no_result():
    """Accepted stays accepted, with several replies."""
    ended = asyncio.Event()
    script = [*lhlo(), *envelope(TO, TOO), "DATA", GO, expect_content(), mark(ended), stall()]
    async with ScriptedServer(script) as server:
        lmtp = AsyncLMTP(server.host, server.port)
        await lmtp.connect()
        task = asyncio.create_task(send(lmtp, TO, TOO))
        await ended.wait()
        lmtp._connection.protocol.data_received(answers(250, 550))
        task.cancel()
        result = await task
        assert deliveries(result) == [Delivery.ACCEPTED, Delivery.REFUSED]
        lmtp.close()
