"""Whatever way a message takes: who was refused, by which reply, and what the connection is good for then."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from modes import (
    KINDS,
    MODES,
    Leaving,
    client,
    each_mode,
    each_protocol,
    nothing_is_known,  # noqa: F401
)
from wire import BODY, NEXT, SENDER, TO, TOO, deliveries, each_loop, send

from aiosmtpclient import (
    Delivery,
    SMTPDataError,
    SMTPException,
    SMTPRecipientsRefused,
    SMTPSenderRefused,
    SMTPServerDisconnected,
)
from aiosmtpclient.testing import MailServer

ACCEPTED, REFUSED, UNKNOWN, NOT_SENT = (
    Delivery.ACCEPTED,
    Delivery.REFUSED,
    Delivery.UNKNOWN,
    Delivery.NOT_SENT,
)
NOBODY = "550 5.1.1 no such user"
THIRD = "third@to.test"
LARGE = b"Subject: large\r\n\r\n" + (b".and dotted" + b"x" * 900 + b"\r\n") * 250

each_kind = pytest.mark.parametrize("kind", ["bytes", "large", "file", "iterator", "asynchronous"])


def body_of(kind: str, path: Path) -> Any:
    return LARGE if kind == "large" else KINDS[kind](BODY, path)


async def still_good(smtp: Any, server: MailServer, connections: int = 1) -> None:
    """The next message goes through, over as many connections as this."""
    assert (await send(smtp, NEXT)).accepted == (NEXT,)
    assert server.messages[-1].recipients == (NEXT,)
    assert server.messages[-1].content == BODY
    assert server.connections == connections


# -- refusals ------------------------------------------------------------------------------


@each_protocol
@each_mode
@each_kind
async def test_one_refused_of_three(kind, mode, lmtp, tmp_path: Path):
    """The others get it, and the account names all three."""
    async with MailServer(lmtp=lmtp, refuse={TOO: NOBODY}) as server:
        async with client(server, mode, lmtp=lmtp) as smtp:
            result = await smtp.sendmail(SENDER, [TO, TOO, THIRD], body_of(kind, tmp_path))

            assert deliveries(result) == [ACCEPTED, REFUSED, ACCEPTED]
            assert {who: reply.code for who, reply in result.items()} == {TOO: 550}
            assert server.messages[-1].recipients == (TO, THIRD)
            await still_good(smtp, server)
    assert len(server.messages) == 2


@each_protocol
@each_mode
@each_kind
async def test_all_refused(kind, mode, lmtp, tmp_path: Path):
    """Nothing of the content is taken for a command, and no empty message is left behind."""
    async with MailServer(lmtp=lmtp, refuse={TO: NOBODY, TOO: "450 4.2.1 later"}) as server:
        async with client(server, mode, lmtp=lmtp) as smtp:
            with pytest.raises(SMTPRecipientsRefused) as error:
                await smtp.sendmail(SENDER, [TO, TOO], body_of(kind, tmp_path))

            assert {who: reply.code for who, reply in error.value.recipients.items()} == {TO: 550, TOO: 450}
            assert deliveries(error.value) == [REFUSED, REFUSED]
            assert error.value.delivery is REFUSED
            await still_good(smtp, server)
    assert len(server.messages) == 1


@each_protocol
@each_mode
@each_kind
async def test_a_refused_sender(kind, mode, lmtp, tmp_path: Path):
    """Everybody is refused with that reply."""
    async with MailServer(lmtp=lmtp, refuse_sender={"bad@x.test": "451 4.7.1 greylisted"}) as server:
        async with client(server, mode, lmtp=lmtp) as smtp:
            with pytest.raises(SMTPSenderRefused, match="greylisted") as error:
                await smtp.sendmail("bad@x.test", [TO, TOO], body_of(kind, tmp_path))

            assert deliveries(error.value) == [REFUSED, REFUSED]
            assert error.value.temporary
            await still_good(smtp, server)
    assert len(server.messages) == 1


@each_protocol
@each_mode
@each_kind
async def test_refused_content(kind, mode, lmtp, tmp_path: Path):
    """The reply to the end of the content decides, about those who were not refused before."""

    def no(message: Any) -> str | None:
        return "554 5.6.0 not that" if TO in message.recipients else None

    async with MailServer(lmtp=lmtp, refuse={TOO: NOBODY}, refuse_content=no) as server:
        async with client(server, mode, lmtp=lmtp) as smtp:
            with pytest.raises((SMTPDataError, SMTPRecipientsRefused)) as error:
                await smtp.sendmail(SENDER, [TO, TOO, THIRD], body_of(kind, tmp_path))

            assert isinstance(error.value, SMTPRecipientsRefused if lmtp else SMTPDataError)
            assert [outcome.reply.code for outcome in error.value.outcomes] == [554, 550, 554]
            assert deliveries(error.value) == [REFUSED] * 3
            await still_good(smtp, server)
    assert len(server.messages) == 1


@each_mode
@each_kind
async def test_in_lmtp_each_recipient_has_a_reply_of_its_own(kind, mode, tmp_path: Path):
    """Refused at RCPT, after the content, or not at all; named twice, answered twice."""
    later = {TO: "452 4.2.2 mailbox full"}
    async with MailServer(lmtp=True, refuse={TOO: NOBODY}, refuse_after_content=later) as server:
        async with client(server, mode, lmtp=True) as lmtp:
            result = await lmtp.sendmail(SENDER, [TO, TOO, THIRD, NEXT, THIRD], body_of(kind, tmp_path))

            assert deliveries(result) == [REFUSED, REFUSED, ACCEPTED, ACCEPTED, ACCEPTED]
            assert {who: reply.code for who, reply in result.items()} == {TO: 452, TOO: 550}
            await still_good(lmtp, server)


@each_protocol
@each_mode
async def test_one_refused_of_three_refuses_all_where_that_is_asked_for(mode, lmtp):
    """And nobody gets an empty message."""
    async with MailServer(lmtp=lmtp, refuse={TOO: NOBODY}) as server:
        async with client(server, mode, lmtp=lmtp) as smtp:
            with pytest.raises(SMTPRecipientsRefused) as error:
                await smtp.sendmail(SENDER, [TO, TOO, THIRD], BODY, all_or_nothing=True)

            assert error.value.delivery is REFUSED
            await still_good(smtp, server)
    assert len(server.messages) == 1


@each_loop
@each_protocol
@each_mode
async def test_many_at_a_time_are_each_told_their_own(mode, lmtp):
    """Whatever is refused of one message is nothing to those before and behind it."""
    kinds = ("fine", "sender", "one", "all", "content", "large", "stream")

    def refusal(address: str) -> str | None:
        return NOBODY if address.startswith("bad") else None

    def no(message: Any) -> str | None:
        return "554 5.6.0 not that" if message.recipients[0].startswith("content") else None

    async with MailServer(lmtp=lmtp, refuse=refusal, refuse_sender=refusal, refuse_content=no) as server:
        async with client(server, mode, lmtp=lmtp) as smtp:

            async def one(number: int) -> tuple[str, str]:
                kind = kinds[number % len(kinds)]
                sender = "bad@x.test" if kind == "sender" else SENDER
                people = ["bad@y.test" if kind in ("one", "all") else f"{kind}@y.test", f"{number}@y.test"]
                body = {"large": LARGE, "stream": iter([BODY, BODY])}.get(kind, BODY)
                try:
                    result = await smtp.sendmail(sender, people[: 1 if kind == "all" else 2], body)  # type: ignore[arg-type]
                except SMTPException as error:
                    return kind, f"{type(error).__name__}, {error.delivery.name}"
                return kind, "one refused" if result else "accepted"

            results = await asyncio.gather(*map(one, range(70)))
    refused = "SMTPRecipientsRefused, REFUSED"
    assert Counter(results) == dict.fromkeys(
        [
            ("fine", "accepted"),
            ("sender", "SMTPSenderRefused, REFUSED"),
            ("one", "one refused"),
            ("all", refused),
            ("content", refused if lmtp else "SMTPDataError, REFUSED"),
            ("large", "accepted"),
            ("stream", "accepted"),
        ],
        10,
    )
    assert server.connections == 1
    assert len(server.messages) == 40


# -- 421 -----------------------------------------------------------------------------------


@each_protocol
@each_mode
@pytest.mark.parametrize("kind", ["bytes", "large", "iterator"])
@pytest.mark.parametrize("at", ["MAIL", "RCPT 1", "RCPT 2", "RCPT 3"])
async def test_a_421_in_the_envelope_refuses_all_for_now(at, kind, mode, lmtp, tmp_path: Path):
    """It is about the connection: the transaction ends with it, and the next message has a new one."""
    async with Leaving(at, lmtp=lmtp) as server, client(server, mode, lmtp=lmtp) as smtp:
        wanted = SMTPSenderRefused if at == "MAIL" else SMTPRecipientsRefused
        with pytest.raises(wanted) as error:
            await smtp.sendmail(SENDER, [TO, TOO, THIRD], body_of(kind, tmp_path))

        assert deliveries(error.value) == [REFUSED] * 3
        assert {outcome.reply.code for outcome in error.value.outcomes} == {421}
        assert error.value.temporary
        await still_good(smtp, server, 2)
    assert len(server.messages) == 1


@each_loop
@each_protocol
@each_mode
@pytest.mark.parametrize("kind", ["bytes", "large", "iterator"])
async def test_a_421_before_the_content_refuses_all_for_now(kind, mode, lmtp, tmp_path: Path):
    """In place of the 354, or of any other answer to BDAT."""
    at = "BDAT" if MODES[mode]["chunking"] == "eager" else "DATA"
    async with Leaving(at, lmtp=lmtp) as server, client(server, mode, lmtp=lmtp) as smtp:
        with pytest.raises(SMTPException) as error:
            await smtp.sendmail(SENDER, [TO, TOO, THIRD], body_of(kind, tmp_path))

        codes = [outcome.reply and outcome.reply.code for outcome in error.value.outcomes]
        assert codes in ([421, 421, 421], [421, None, None] if lmtp else None)
        await still_good(smtp, server, 2)
    assert len(server.messages) == 1


@each_loop
@each_mode
@pytest.mark.parametrize("kind", ["bytes", "large", "iterator"])
async def test_a_421_to_the_end_of_the_content_refuses_all_for_now(kind, mode, tmp_path: Path):
    """That reply is the verdict, too."""
    no: list[str | None] = ["421 4.3.2 going down"]
    async with MailServer(refuse_content=lambda _: no.pop() if no else None) as server:
        async with client(server, mode) as smtp:
            with pytest.raises(SMTPDataError) as error:
                await smtp.sendmail(SENDER, [TO, TOO], body_of(kind, tmp_path))

            assert error.value.smtp_code == 421
            assert deliveries(error.value) == [REFUSED, REFUSED]
            await still_good(smtp, server, 2)


@each_mode
@pytest.mark.parametrize("kind", ["bytes", "large", "iterator"])
async def test_in_lmtp_a_421_after_the_content_is_the_answer_for_one(kind, mode, tmp_path: Path):
    """Nobody knows about those behind him."""
    no: list[str | None] = ["421 4.3.2 going down"]

    def refusal(address: str) -> str | None:
        return no.pop() if address == TOO and no else None

    async with MailServer(lmtp=True, refuse_after_content=refusal) as server:
        async with client(server, mode, lmtp=True) as lmtp:
            with pytest.raises(SMTPServerDisconnected) as error:
                await lmtp.sendmail(SENDER, [TO, TOO, THIRD], body_of(kind, tmp_path))

            assert deliveries(error.value) == [ACCEPTED, REFUSED, UNKNOWN]
            await still_good(lmtp, server, 2)
