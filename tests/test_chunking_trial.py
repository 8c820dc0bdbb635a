"""The trial of BDAT, and BDAT in use: servers that run a refused chunk, hang, close, or babble."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Iterator

import pytest
from wire import BODY, GO, LONG, NEXT, OK, SENDER, TO, TOO, bye, caught, deliveries, each_loop, hello, send

from aiosmtpclient import (
    AsyncLMTP,
    AsyncSMTP,
    Delivery,
    Envelope,
    Outcome,
    SMTPDataError,
    SMTPException,
    SMTPNotSupportedError,
    chunking,
)
from aiosmtpclient.chunking import VERDICTS
from aiosmtpclient.testing import MailServer, ScriptedServer
from aiosmtpclient.testing.scripted import (
    Step,
    close,
    expect,
    expect_content,
    expect_eof,
    read_all,
    read_exactly,
    stall,
)

OFFERS = ("PIPELINING", "CHUNKING")
TRIAL = ["BDAT 8 LAST", "XPROBE", "RSET"]
RIGHT = b"503 5.5.1 no\r\n250 ok\r\n"
SHORT = 0.2
ONE_BDAT = ["MAIL", "RCPT", re.compile("BDAT .* LAST")]


@pytest.fixture(autouse=True)
def nothing_is_known() -> Iterator[None]:
    VERDICTS.forget()
    yield
    VERDICTS.forget()


def envelopes(*recipients: str) -> list[Envelope]:
    return [Envelope(SENDER, recipient, BODY) for recipient in recipients]


async def sent(smtp: AsyncSMTP, *recipients: str) -> list[Outcome]:
    return [outcome async for outcome in smtp.send_messages(envelopes(*recipients))]


def by_data(*, pipelined: bool = True) -> list[Step]:
    """One message, by DATA."""
    answers: list[Step] = [OK + OK + GO] if pipelined else []
    return ["MAIL", "RCPT", "DATA", *answers, expect_content(), OK]


def by_bdat(answer: bytes = OK + OK + OK, *recipients: str) -> list[Step]:
    """One message, by BDAT."""
    return [*map(expect, ONE_BDAT), read_exactly(len(BODY)), answer]


def name(server: ScriptedServer | MailServer) -> str:
    return f"{server.host}:{server.port}"


# The verdict


@each_loop
async def test_a_server_that_gets_it_right_is_tried_once_and_sent_to_by_bdat() -> None:
    script = [*hello(*OFFERS), *TRIAL, RIGHT, *by_bdat(), *by_bdat(), *bye()]
    async with ScriptedServer(script, repeat_last=False) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            outcomes = await sent(smtp, TO, NEXT)
        assert [outcome.delivery for outcome in outcomes] == [Delivery.ACCEPTED] * 2
        assert VERDICTS.of(name(server)) is True


WRONG: dict[str, list[Step]] = {
    "runs the chunk": [b"500 what?\r\n500 what?\r\n250 ok\r\n", expect_eof()],
    "runs the chunk and takes any command": [b"500 what?\r\n250 ok\r\n250 ok\r\n", expect_eof()],
    "takes the chunk": [b"250 taken\r\n250 ok\r\n", expect_eof()],
    "asks for more": [b"354 go on\r\n250 ok\r\n", expect_eof()],
    "refuses RSET": [b"503 no\r\n503 no\r\n", expect_eof()],
    "closes": [close()],
    "closes after the first reply": [b"503 no\r\n", close()],
    "hangs": [stall()],
    "hangs after the first reply": [b"503 no\r\n", stall()],
    "babbles": [b"what?\r\n", expect_eof()],
}


@each_loop
@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize("pipelining", ["message", "stream"])
async def test_a_server_that_gets_it_wrong_is_left_and_sent_to_by_data_ever_after(
    what: str, pipelining: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunking, "PATIENCE", SHORT if "hangs" in what else LONG)
    first = [*hello(*OFFERS), *TRIAL, *WRONG[what]]
    again = [*hello(*OFFERS), *by_data(), *by_data(), *bye()]
    later = [*hello(*OFFERS), *by_data(), *bye()]
    async with ScriptedServer(first, again, later, repeat_last=False) as server:
        for recipients in ([TO, NEXT], [TOO]):
            async with AsyncSMTP(server.host, server.port, pipelining=pipelining) as smtp:  # type: ignore[arg-type]
                async for outcome in smtp.send_messages(envelopes(*recipients), ordered=True):
                    assert (outcome.delivery, outcome.attempts) == (Delivery.ACCEPTED, 1)
        assert VERDICTS.of(name(server)) is False


@each_loop
@pytest.mark.parametrize("answer", [b"421 4.3.2 bye\r\n", b"503 no\r\n421 4.3.2 bye\r\n"])
async def test_a_421_is_no_verdict_and_not_the_end_of_a_connection_for_each_message(answer: bytes) -> None:
    first = [*hello(*OFFERS), *TRIAL, answer, close()]
    again = [*hello(*OFFERS), *by_data(), *by_data(), *bye()]
    later = [*hello(*OFFERS), *TRIAL, RIGHT, *by_bdat(), *bye()]
    async with ScriptedServer(first, again, later, repeat_last=False) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            outcomes = await sent(smtp, TO, NEXT)
            assert [outcome.delivery for outcome in outcomes] == [Delivery.ACCEPTED] * 2
        assert VERDICTS.of(name(server)) is None
        async with AsyncSMTP(server.host, server.port) as smtp:
            assert [outcome.delivery for outcome in await sent(smtp, TOO)] == [Delivery.ACCEPTED]


async def test_a_cancelled_trial_is_no_verdict() -> None:
    reached = asyncio.Event()

    async def mark(_: object) -> None:
        reached.set()

    again = [*hello(*OFFERS), *TRIAL, RIGHT, *by_bdat(), *bye()]
    async with ScriptedServer([*hello(*OFFERS), *TRIAL, mark, read_all()], again) as server:
        async with AsyncSMTP(server.host, server.port, pipelining="stream") as smtp:
            task = asyncio.create_task(caught(send(smtp)))
            await reached.wait()
            task.cancel()
            error = await task
            assert (type(error), error.delivery) == (asyncio.CancelledError, Delivery.NOT_SENT)  # type: ignore[attr-defined]
            assert VERDICTS.of(name(server)) is None
            assert (await send(smtp)).accepted == (TO,)


async def test_a_verdict_won_after_a_login_says_nothing_about_a_connection_without() -> None:
    async with MailServer(users={"me": "secret"}) as server:
        address = (server.host, server.port)
        async with AsyncSMTP(*address, username="me", password="secret", pipelining="stream") as smtp:
            await send(smtp)
        async with AsyncSMTP(*address) as smtp:
            await send(smtp)
    assert [message.chunked for message in server.messages] == [True, False]


# When it takes place, and when it does not


@each_loop
async def test_a_single_message_is_sent_by_data_and_nothing_is_tried() -> None:
    async with MailServer() as server, AsyncSMTP(server.host, server.port) as smtp:
        await send(smtp)
        await send(smtp)
    assert not any(command.startswith("BDAT") for command in server.commands)


async def test_what_is_known_already_is_used_by_a_single_message_too() -> None:
    async with MailServer() as server:
        VERDICTS.remember(name(server), True)
        async with AsyncSMTP(server.host, server.port) as smtp:
            await send(smtp)
    assert [message.chunked for message in server.messages] == [True]
    assert "BDAT 8 LAST" not in server.commands


@pytest.mark.parametrize("chunk", ["off", "eager"])
@pytest.mark.parametrize("pipelining", ["off", "message", "stream"])
async def test_nothing_is_tried_where_the_caller_has_decided(chunk: str, pipelining: str) -> None:
    async with MailServer() as server:
        options = {"chunking": chunk, "pipelining": pipelining}
        async with AsyncSMTP(server.host, server.port, **options) as smtp:  # type: ignore[arg-type]
            await sent(smtp, TO, NEXT)
    assert "BDAT 8 LAST" not in server.commands
    assert [message.chunked for message in server.messages] == [chunk == "eager"] * 2


async def test_nothing_is_tried_where_bdat_is_not_offered() -> None:
    async with MailServer(without=["CHUNKING"]) as server:
        async with AsyncSMTP(server.host, server.port, pipelining="stream") as smtp:
            await sent(smtp, TO, NEXT)
        assert VERDICTS.of(name(server)) is None
    assert not any(command.startswith("BDAT") for command in server.commands)


async def test_a_connection_that_could_not_be_made_anew_is_not_risked() -> None:
    async with MailServer() as server:
        sock = socket.create_connection((server.host, server.port))
        sock.setblocking(False)
        async with AsyncSMTP("mail.test", sock=sock, tls="none", pipelining="stream") as smtp:
            await sent(smtp, TO, NEXT)
        async with AsyncSMTP(server.host, server.port, pipelining="stream") as smtp:
            smtp._connected_by_settings = False  # what login() and starttls() by hand do
            await sent(smtp, TO)
    assert not any(command.startswith("BDAT") for command in server.commands)
    assert [message.chunked for message in server.messages] == [False] * 3


@pytest.mark.parametrize("how", ["verbs", "docmd"])
async def test_the_chunk_of_the_trial_is_never_delivered_to_a_recipient_named_by_hand(how: str) -> None:
    async with MailServer() as server, AsyncSMTP(server.host, server.port, pipelining="stream") as smtp:
        if how == "verbs":
            await smtp.mail(SENDER)
            await smtp.rcpt(TO)
        else:
            await smtp.docmd("MAIL", f"FROM:<{SENDER}>")
            await smtp.docmd("RCPT", f"TO:<{TO}>")
        error = await caught(send(smtp, NEXT))
        assert isinstance(error, SMTPException)  # a nested MAIL
        await send(smtp, NEXT)
    assert [message.recipients for message in server.messages] == [(NEXT,)]
    assert server.messages[0].content == BODY


async def test_binary_content_is_tried_for_and_refused_where_that_failed() -> None:
    async with MailServer() as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            await smtp.sendmail(SENDER, TO, b"\0\n", ["BODY=BINARYMIME"])
            assert VERDICTS.of(name(server)) is True
        VERDICTS.remember(name(server), False)
        async with AsyncSMTP(server.host, server.port) as smtp:
            with pytest.raises(SMTPNotSupportedError):
                await smtp.sendmail(SENDER, TO, b"\0\n", ["BODY=BINARYMIME"])
    assert [message.content for message in server.messages] == [b"\0\n"]


# Eager: the caller vouches for it


@each_loop
async def test_a_server_whose_bdat_is_no_command_gets_data_in_the_same_call_and_ever_after() -> None:
    first = [
        *hello(*OFFERS),
        *by_bdat(OK + OK + b"500 what?\r\n"),
        "RSET",
        OK,
        *by_data(),
        *by_data(),
        *bye(),
    ]
    async with ScriptedServer(first, [*hello(*OFFERS), *by_data(), *bye()], repeat_last=False) as server:
        async with AsyncSMTP(server.host, server.port, chunking="eager") as smtp:
            assert (await send(smtp)).accepted == (TO,)
            assert (await send(smtp)).accepted == (TO,)
        async with AsyncSMTP(server.host, server.port, chunking="eager") as smtp:
            assert (await send(smtp)).accepted == (TO,)


@each_loop
async def test_in_a_stream_it_is_the_messages_refusal_and_still_remembered() -> None:
    script = [*hello(*OFFERS), *by_bdat(OK + OK + b"502 what?\r\n"), "RSET", "MAIL", "RCPT", "DATA"]
    async with ScriptedServer([*script, OK * 3 + GO, expect_content(), OK, *bye()]) as server:
        async with AsyncSMTP(server.host, server.port, chunking="eager", pipelining="stream") as smtp:
            error = await caught(send(smtp))
            assert isinstance(error, SMTPDataError)
            assert deliveries(error) == [Delivery.REFUSED]
            assert VERDICTS.of(name(server)) is False
            assert (await send(smtp)).accepted == (TO,)


RAN: dict[str, list[Step]] = {
    "at once": [OK + OK + b"500 what?\r\n" + b"500 what?\r\n" * 3, read_all()],
    "later": [OK + OK + b"500 what?\r\n", "RSET", b"500 what?\r\n" * 3, read_all()],
    "one line was a command": [OK + OK + b"500 what?\r\n", "RSET", OK + b"500 what?\r\n", read_all()],
    "all lines were commands": [OK + OK + b"500 what?\r\n" + OK * 5, read_all()],
}


@each_loop
@pytest.mark.parametrize("how", RAN)
@pytest.mark.parametrize("pipelining", ["message", "stream"])
@pytest.mark.parametrize("kind", [AsyncSMTP, AsyncLMTP])
async def test_content_that_ran_as_commands_never_looks_accepted(
    how: str, pipelining: str, kind: type[AsyncSMTP]
) -> None:
    steps = RAN[how] if pipelining == "message" else [step for step in RAN[how] if step != "RSET"]
    verb = "LHLO" if kind is AsyncLMTP else "EHLO"
    script = [*hello(*OFFERS, verb=verb), *map(expect, ONE_BDAT), read_exactly(len(BODY)), *steps]
    async with ScriptedServer(script) as server:
        smtp = kind(server.host, server.port, chunking="eager", pipelining=pipelining)  # type: ignore[call-arg, arg-type]
        await smtp.connect()
        error = await caught(send(smtp))
        assert isinstance(error, SMTPException)
        assert Delivery.ACCEPTED not in deliveries(error)
        assert VERDICTS.of(name(server)) is False
        smtp.close()
