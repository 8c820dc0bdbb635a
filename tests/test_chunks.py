"""Content in chunks: what is said to one of them, and what that says about the message."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from modes import client, each_protocol, nothing_is_known  # noqa: F401
from wire import BODY, NEXT, OK, SENDER, TO, TOO, bye, caught, deliveries, each_loop, send

from aiosmtpclient import (
    Delivery,
    SMTPDataError,
    SMTPProtocolError,
    SMTPServerDisconnected,
)
from aiosmtpclient.chunking import VERDICTS
from aiosmtpclient.testing import Conversation, MailServer, ScriptedServer
from aiosmtpclient.testing.scripted import Step, close, ehlo, expect, expect_eof, greeting, read_exactly
from aiosmtpclient.testing.transactions import MailConnection

OFFERS = ("PIPELINING", "CHUNKING", "8BITMIME")
HUGE = b"x" * 20_000_000 + b"\r\n"
FIRST, SECOND = b"x" * 99_998 + b"\r\n", b"second chunk\r\n"
ENVELOPE = b"250 ok\r\n250 ok\r\n250 ok\r\n"


def begun(*, lmtp: bool = False) -> list[Step]:
    """A message that two were accepted for; its chunks come next."""
    hello: list[Step] = [greeting(), ehlo(*OFFERS, verb="LHLO" if lmtp else "EHLO")]
    return [*hello, expect("MAIL"), expect("RCPT"), expect("RCPT"), ENVELOPE]


def again(*, lmtp: bool = False) -> list[Step]:
    """The next connection, which takes a message in one write."""
    hello: list[Step] = [greeting(), ehlo(*OFFERS, verb="LHLO" if lmtp else "EHLO")]
    return [*hello, expect("MAIL"), expect("RCPT"), *taken(), *bye()]


def taken() -> list[Step]:
    return [expect("BDAT"), read_exactly(len(BODY)), b"250 ok\r\n250 ok\r\n250 queued\r\n"]


def chunk(*replies: bytes) -> list[Step]:
    """A chunk is read, and then answered."""

    async def read(conversation: Conversation) -> None:
        line = await conversation.expect("BDAT")
        await conversation.read_exactly(int(line.split()[1]))

    return [read, *replies]


class Parts:
    """Content in two parts; the second waits until the test says so."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield FIRST[:60_000]
        yield FIRST[60_000:]
        await self.go_on.wait()
        yield SECOND


async def refused_half_way(smtp: Any, server: ScriptedServer) -> BaseException:
    """Send the parts, the last only after the server had its say about the first; returns the error."""
    parts = Parts()
    sending = asyncio.create_task(caught(smtp.sendmail(SENDER, [TO, TOO], parts)))
    while b"BDAT 60000" not in b"".join(server.received) and not sending.done():
        await asyncio.sleep(0)
    for _ in range(50):  # let everything that is on its way arrive
        await asyncio.sleep(0)
    parts.go_on.set()
    return await sending


# -- refused ---------------------------------------------------------------------------------


@each_loop
@each_protocol
@pytest.mark.parametrize("mode", ["off, BDAT", "one write", "stream, BDAT"])
async def test_what_is_said_to_the_chunks_behind_a_refused_one_is_no_news(mode, lmtp):
    """452 refuses for now; the 503 behind it, "a chunk was refused", says nothing about the message."""

    class Full(MailConnection):
        async def push(self, status: str | bytes) -> None:
            await super().push("452 4.3.1 disk full" if "5.3.4" in str(status) else status)

    class Server(MailServer):
        def make_connection(self) -> MailConnection:
            return Full(self)

    async with Server(lmtp=lmtp, extensions=["SIZE"]) as server:
        async with client(server, mode, lmtp=lmtp) as smtp:
            server.size_limit = 50_000
            with pytest.raises(SMTPDataError, match="disk full") as error:
                await smtp.sendmail(SENDER, [TO, TOO], [b"x" * 60_000, b"y" * 60_000, b"z\r\n"])

            assert error.value.temporary
            assert deliveries(error.value) == [Delivery.REFUSED] * 2
            assert (await send(smtp, NEXT)).accepted == (NEXT,)
    assert [message.recipients for message in server.messages] == [(NEXT,)]


@each_loop
@pytest.mark.parametrize("refusal", [b"452 4.3.1 disk full\r\n", b"552 5.2.2 quota\r\n"])
async def test_refused_while_more_was_to_come_nothing_more_is_written(refusal):
    """The connection is given up: its state is undefined, and the rest would cost time for nothing."""
    script = [*begun(), *chunk(refusal), expect_eof()]
    async with ScriptedServer(script, again()) as server, client(server, "one write") as smtp:
        error = await refused_half_way(smtp, server)

        assert isinstance(error, SMTPDataError)
        assert error.reply.code == int(refusal[:3])
        assert deliveries(error) == [Delivery.REFUSED] * 2
        assert (await send(smtp, NEXT)).accepted == (NEXT,)
    assert SECOND not in server.received[0]


@each_loop
async def test_in_a_stream_a_chunk_refused_half_way_spares_those_before():
    """Their replies are in, or still to come; only what was not begun goes to the next connection."""
    hello = [greeting(), ehlo(*OFFERS), expect("MAIL"), expect("RCPT"), expect("BDAT")]
    second = [expect("RSET"), expect("MAIL"), expect("RCPT"), expect("RCPT")]
    replies = b"250 ok\r\n250 ok\r\n250 queued\r\n" + OK + ENVELOPE
    refused = [*chunk(b"452 full\r\n"), expect_eof()]
    script = [*hello, read_exactly(len(BODY)), *second, replies, *refused]
    async with ScriptedServer(script, again()) as server, client(server, "stream, BDAT") as smtp:
        before = asyncio.create_task(send(smtp, TO))
        await asyncio.sleep(0)
        error = await refused_half_way(smtp, server)

        assert isinstance(error, SMTPDataError)
        assert (await before).accepted == (TO,)
        assert (await send(smtp, NEXT)).accepted == (NEXT,)


@pytest.mark.parametrize("mode", ["off, BDAT", "one write", "stream, BDAT"])
async def test_bdat_unknown_to_the_server_is_found_out_once_by_a_stream(mode, monkeypatch):
    """It cannot be read again, so it is refused; the next message takes DATA."""
    monkeypatch.setattr(MailConnection, "_chunk_refusal", lambda _: "502 5.5.1 what?")
    async with MailServer() as server, client(server, mode) as smtp:
        with pytest.raises(SMTPDataError, match="502"):
            await smtp.sendmail(SENDER, TO, iter([BODY]))
        assert (await smtp.sendmail(SENDER, TO, iter([BODY]))).accepted == (TO,)
    assert VERDICTS.of(f"{server.host}:{server.port}") is False
    assert [message.chunked for message in server.messages] == [False]


# -- answered too early, or not at all -------------------------------------------------------


@each_loop
@pytest.mark.parametrize("early", [b"250 queued\r\n", b"354 go\r\n"])
async def test_a_yes_to_a_chunk_that_was_not_read_is_no_yes(early):
    """Octets that the server cannot have seen yet were accepted by nobody."""
    script = [*begun(), expect("BDAT"), early, close()]
    async with ScriptedServer(script, again()) as server, client(server, "one write") as smtp:
        error = await caught(smtp.sendmail(SENDER, [TO, TOO], HUGE))

        assert isinstance(error, SMTPProtocolError)
        assert deliveries(error) == [Delivery.NOT_SENT] * 2
        assert (await send(smtp, NEXT)).accepted == (NEXT,)


@each_loop
async def test_a_server_gone_between_two_chunks_is_a_lost_connection_and_nothing_was_sent():
    """The chunk before was taken, which is no reason to speak of a broken protocol."""
    script = [*begun(), *chunk(b"250 ok\r\n"), close()]
    async with ScriptedServer(script, again()) as server, client(server, "one write") as smtp:
        error = await refused_half_way(smtp, server)

        assert isinstance(error, SMTPServerDisconnected)
        assert not isinstance(error, SMTPProtocolError)
        assert deliveries(error) == [Delivery.NOT_SENT] * 2
        assert (await send(smtp, NEXT)).accepted == (NEXT,)


@each_loop
async def test_a_server_gone_after_the_last_chunk_leaves_the_message_unknown():
    """Whatever it said to the chunks before."""
    script = [*begun(), *chunk(b"250 ok\r\n"), *chunk(b"250 ok\r\n"), *chunk(), close()]
    async with ScriptedServer(script, again()) as server, client(server, "one write") as smtp:
        error = await caught(smtp.sendmail(SENDER, [TO, TOO], [FIRST[:65_000], FIRST]))

        assert isinstance(error, SMTPServerDisconnected)
        assert deliveries(error) == [Delivery.UNKNOWN] * 2
        assert (await send(smtp, NEXT)).accepted == (NEXT,)
