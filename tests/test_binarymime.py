"""BINARYMIME (RFC 3030 section 3): content that has no lines arrives octet for octet, or not at all."""

from __future__ import annotations

from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from modes import KINDS, OF_UNKNOWN_SIZE, each_kind, each_protocol, nothing_is_known  # noqa: F401
from wire import BODY, NEXT, SENDER, TO, TOO, bye, deliveries, each_loop, send

from aiosmtpclient import AsyncLMTP, AsyncSMTP, Delivery, Envelope, SMTPDataError, SMTPNotSupportedError
from aiosmtpclient import chunking as trial
from aiosmtpclient.chunking import VERDICTS
from aiosmtpclient.testing import MailServer, ScriptedServer
from aiosmtpclient.testing.scripted import close, ehlo, expect, expect_content, greeting, stall

ASKED = ["BODY=BINARYMIME"]
OFFERS = ("PIPELINING", "CHUNKING", "BINARYMIME")
OCTETS = b"Subject: binary\r\n\r\n\x00\x01bare CR\rbare LF\nNUL\x00\xff\r\n.\r\n..\n\r.no end of line"
LARGE = bytes(range(256)) * 2000

each_way = pytest.mark.parametrize("pipelining", ["off", "message", "stream"])


def client(server: Any, *, lmtp: bool = False, **options: Any) -> AsyncSMTP:
    return (AsyncLMTP if lmtp else AsyncSMTP)(server.host, server.port, **options)


@each_protocol
@each_way
@each_kind
@pytest.mark.parametrize("chunking", ["auto", "eager"])
async def test_what_arrives_is_what_was_given_to_the_octet(chunking, kind, pipelining, lmtp, tmp_path: Path):
    """Neither line ends nor dots are touched, and NUL is an octet like any other."""
    async with MailServer(lmtp=lmtp) as server:
        async with client(server, lmtp=lmtp, pipelining=pipelining, chunking=chunking) as smtp:
            for octets in (OCTETS, LARGE, b"\x00", b""):
                result = await smtp.sendmail(SENDER, [TO, TOO], KINDS[kind](octets, tmp_path), ASKED)

                assert result.accepted == (TO, TOO)
                message = server.messages[-1]
                assert message.content == octets
                assert message.chunked
                size = [option for option in message.mail_options if option.startswith("SIZE")]
                assert size == ([] if kind in OF_UNKNOWN_SIZE else [f"SIZE={len(octets)}"])
                assert [o for o in message.mail_options if o.startswith("BODY")] == ASKED
            assert (await send(smtp, NEXT)).accepted == (NEXT,)
    assert "DATA" not in server.commands
    assert server.connections == 1


@each_loop
@each_way
async def test_the_trial_is_made_for_one_binary_message_too(pipelining):
    """There is no other way for it, so it is found out whether there is this one."""
    async with MailServer() as server:
        for _ in range(2):
            async with client(server, pipelining=pipelining) as smtp:
                await smtp.sendmail(SENDER, TO, OCTETS, ASKED)
        assert server.commands.count("BDAT 8 LAST") == 1
    assert [message.content for message in server.messages] == [OCTETS, OCTETS]


async def test_among_many_messages():
    """An envelope may ask for it; the others are lines as ever."""
    async with MailServer() as server, client(server, pipelining="stream") as smtp:
        binary = Envelope(SENDER, TO, OCTETS, mail_options=ASKED)
        lines = Envelope(SENDER, TOO, b"line\n")
        outcomes = [outcome async for outcome in smtp.send_messages([binary, lines] * 10, ordered=True)]

    assert {outcome.delivery for outcome in outcomes} == {Delivery.ACCEPTED}
    assert [message.content for message in server.messages] == [OCTETS, b"line\r\n"] * 10


@pytest.mark.parametrize("spelt", ["BODY=BINARYMIME", "body=binarymime", "Body=BinaryMime"])
async def test_however_it_is_spelt(spelt):
    """Parameters of MAIL are known in any case of letters (RFC 5321 section 2.4)."""
    async with MailServer() as server, client(server) as smtp:
        await smtp.sendmail(SENDER, TO, OCTETS, [spelt])
    assert server.messages[0].content == OCTETS


async def test_without_being_asked_for_a_nul_is_wrong_input():
    """BINARYMIME is nobody's guess."""
    async with MailServer() as server, client(server, chunking="eager") as smtp:
        with pytest.raises(ValueError, match="NUL"):
            await smtp.sendmail(SENDER, TO, OCTETS)
        with pytest.raises(ValueError, match="NUL"):
            await smtp.sendmail(SENDER, TO, OCTETS, ["BODY=8BITMIME"])
    assert server.messages == []


async def test_text_and_message_objects_have_lines():
    """What is made of lines cannot be meant to have none."""
    message = EmailMessage()
    message.set_content("hello\n")
    async with MailServer() as server, client(server) as smtp:
        with pytest.raises(ValueError, match="has lines"):
            await smtp.sendmail(SENDER, TO, message, ASKED)
        with pytest.raises(ValueError, match="has lines"):
            await smtp.send_message(message, SENDER, TO, ASKED)
        assert (await send(smtp, NEXT)).accepted == (NEXT,)
    assert server.connections == 1


# -- where it cannot be ----------------------------------------------------------------------


@each_protocol
@each_way
@pytest.mark.parametrize("kind", ["bytes", "path", "asynchronous"])
@pytest.mark.parametrize(
    ("without", "chunking"),
    [(what, how) for what in ("CHUNKING", "BINARYMIME") for how in ("auto", "eager")] + [("nothing", "off")],
)
async def test_not_offered_or_not_wanted_it_is_found_before_mail(
    without, chunking, kind, pipelining, lmtp, tmp_path: Path
):
    """Nothing is written, and the connection is as good as before."""
    async with MailServer(lmtp=lmtp, without=[without]) as server:
        async with client(server, lmtp=lmtp, pipelining=pipelining, chunking=chunking) as smtp:
            with pytest.raises(SMTPNotSupportedError, match="BINARYMIME") as error:
                await smtp.sendmail(SENDER, [TO, TOO], KINDS[kind](OCTETS, tmp_path), ASKED)

            assert deliveries(error.value) == [Delivery.NOT_SENT] * 2
            assert not any(line.startswith("MAIL") for line in server.commands)
            assert (await send(smtp, NEXT)).accepted == (NEXT,)
    assert server.connections == 1


FAILED_TRIALS = {
    "the chunk runs": [
        expect("BDAT"),
        expect("XPROBE"),
        expect("RSET"),
        b"500 a\r\n500 b\r\n250 c\r\n",
        stall(),
    ],
    "the chunk is taken": [expect("BDAT"), expect("XPROBE"), expect("RSET"), b"250 a\r\n250 c\r\n", stall()],
    "the server hangs": [expect("BDAT"), stall()],
    "the server closes": [expect("BDAT"), close()],
}


@each_loop
@each_way
@pytest.mark.parametrize("why", FAILED_TRIALS)
async def test_a_failed_trial_is_found_before_mail(why, pipelining, monkeypatch):
    """The connection of the trial is given up; the next one is for messages that have lines."""
    monkeypatch.setattr(trial, "PATIENCE", 0.1)
    first = [greeting(), ehlo(*OFFERS), *FAILED_TRIALS[why]]
    data = [expect("MAIL"), b"250 ok\r\n", expect("RCPT"), b"250 ok\r\n", expect("DATA"), b"354 go\r\n"]
    second = [greeting(), ehlo(*OFFERS), *data, expect_content(), b"250 queued\r\n", *bye()]
    async with ScriptedServer(first, second) as server, client(server, pipelining=pipelining) as smtp:
        for _ in range(2):  # and it is not tried again
            with pytest.raises(SMTPNotSupportedError, match="has not been shown to get right") as error:
                await smtp.sendmail(SENDER, [TO, TOO], OCTETS, ASKED)
            assert deliveries(error.value) == [Delivery.NOT_SENT] * 2

        assert (await send(smtp, NEXT)).accepted == (NEXT,)
    assert b"MAIL" not in server.received[0]
    assert VERDICTS.of(f"{server.host}:{server.port}") is False
    assert len(server.received) == 2


async def test_bdat_unknown_after_all_is_no_reason_to_send_octets_as_lines(monkeypatch):
    """Trusted, and not implemented: refused once, and then known not to be supported."""
    monkeypatch.setattr(
        "aiosmtpclient.testing.transactions.MailConnection._chunk_refusal", lambda _: "502 what?"
    )
    async with MailServer() as server, client(server, chunking="eager") as smtp:
        with pytest.raises(SMTPDataError) as refused:
            await smtp.sendmail(SENDER, TO, OCTETS, ASKED)
        assert refused.value.delivery is Delivery.REFUSED
        with pytest.raises(SMTPNotSupportedError):
            await smtp.sendmail(SENDER, TO, OCTETS, ASKED)
        assert (await send(smtp, NEXT)).accepted == (NEXT,)
    assert [message.content for message in server.messages] == [BODY]
    assert server.connections == 1
