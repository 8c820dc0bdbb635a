"""Whatever way a message takes, by whatever protocol: the same octets arrive, said in the same words."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from modes import (
    IN_MEMORY,
    KINDS,
    MODES,
    OF_UNKNOWN_SIZE,
    client,
    each_kind,
    each_mode,
    each_protocol,
    normalised,
    nothing_is_known,  # noqa: F401
)
from wire import BODY, SENDER, TO, TOO, deliveries, each_loop

from aiosmtpclient import Delivery, SMTPDataError, SMTPNotSupportedError, SMTPSenderRefused
from aiosmtpclient.testing import MailServer
from aiosmtpclient.testing.received import ReceivedMessage

EDGE = 64 * 1024
HEAD = b"Subject: dots\r\n\r\n"

OCTETS: dict[str, bytes] = {
    "nothing": b"",
    "one dot": b".",
    "dots": b".\r\n..\r\n.leading\r\n. \r\nnot.leading\r\n.\r\n",
    "the end of the content, in every disguise": b"a\n.\nb\r.\rc\r\n.\rd\n.\r\ne\r\n.\r\n",
    "commands": HEAD + b".\r\nMAIL FROM:<evil@x.test>\r\nRCPT TO:<evil@y.test>\r\nDATA\r\nQUIT\r\nRSET\r\n",
    "every line end": HEAD + b"LF\nCR\rCRLF\r\nCRCRLF\r\r\nLFCR\n\rnone",
    "8-bit": HEAD + "Grüße\r\n.ä\r\n".encode(),
    "large, with dots": (b".a line that begins with a dot" + b"x" * 900 + b"\r\n") * 200,
    "large, 8-bit, with LF": ("ä" * 400 + "\n.\n").encode() * 200,
    "large, in one line": HEAD + b"." * 200_000,
}
# Wherever the slices of content may end, something interesting is there.
AT_AN_EDGE = {
    f"{what!r} {before} before an edge": b"x" * (EDGE - before) + what + b"x" * 50
    for what in (b"\r\n.\r\n", b"\n.\n")
    for before in range(6)
}


async def received(server: MailServer, how: str, content: object, *, lmtp: bool) -> ReceivedMessage:
    """Send this to two, another message behind it, and return what arrived of the first."""
    async with client(server, how, lmtp=lmtp) as smtp:
        result = await smtp.sendmail(SENDER, [TO, TOO], content)  # type: ignore[arg-type]
        assert result.accepted == (TO, TOO)
        assert deliveries(result) == [Delivery.ACCEPTED] * 2
        assert (await smtp.sendmail(SENDER, TO, BODY)).accepted == (TO,)
    first, second = server.messages
    assert second.content == BODY
    assert server.connections == 1
    assert first.recipients == (TO, TOO)
    assert first.chunked == (MODES[how]["chunking"] == "eager")
    return first


@each_protocol
@each_mode
@each_kind
async def test_what_arrives_is_what_was_to_be_sent(kind, mode, lmtp, tmp_path: Path):
    """Line ends made right, dots doubled exactly where the wire needs it, nothing run as a command."""
    for octets in OCTETS.values():
        async with MailServer(lmtp=lmtp) as server:
            message = await received(server, mode, KINDS[kind](octets, tmp_path), lmtp=lmtp)
        assert message.content == normalised(octets)


@each_mode
@pytest.mark.parametrize("kind", ["bytes", "file", "iterator", "asynchronous"])
async def test_nothing_is_lost_where_a_slice_ends(kind, mode, tmp_path: Path):
    """A CRLF or a dot that two slices share is seen all the same."""
    async with MailServer() as server, client(server, mode) as smtp:
        for octets in AT_AN_EDGE.values():
            await smtp.sendmail(SENDER, TO, KINDS[kind](octets, tmp_path))

            assert server.messages[-1].content == normalised(octets)


@each_mode
@pytest.mark.parametrize("size", range(EDGE - 2, EDGE + 3))
async def test_content_as_large_as_one_write_and_around_it(size, mode):
    """Where the way changes, nothing else does."""
    octets = b".." + b"x" * (size - 4) + b"\r\n"
    async with MailServer() as server:
        assert (await received(server, mode, octets, lmtp=False)).content == octets
    assert f"SIZE={size}" in server.messages[0].mail_options


@each_loop
@each_protocol
@each_mode
async def test_many_at_a_time_arrive_each_with_its_own_octets(mode, lmtp, tmp_path: Path):
    """Tasks that share a client do not mix what they write, whatever they write."""
    kinds = list(KINDS)
    bodies = [octets + b"\r\n%d" % number for number, octets in enumerate(OCTETS.values())]
    async with MailServer(lmtp=lmtp) as server, client(server, mode, lmtp=lmtp) as smtp:

        async def one(number: int) -> None:
            folder = tmp_path / str(number)
            folder.mkdir()
            body = KINDS[kinds[number % len(kinds)]](bodies[number % len(bodies)], folder)
            assert (await smtp.sendmail(SENDER, f"{number}@to.test", body)).accepted

        await asyncio.gather(*map(one, range(45)))
        arrived = {message.recipients[0]: message.content for message in server.messages}
    assert arrived == {f"{number}@to.test": normalised(bodies[number % len(bodies)]) for number in range(45)}
    assert server.connections == 1


# -- what MAIL says ------------------------------------------------------------------------


@each_protocol
@each_mode
@each_kind
async def test_size_is_declared_where_it_is_known_and_then_exactly(kind, mode, lmtp, tmp_path: Path):
    """After line ends are made right, before dots are doubled (RFC 1870 section 4)."""
    for octets in (OCTETS["every line end"], OCTETS["large, 8-bit, with LF"], b""):
        async with MailServer(lmtp=lmtp) as server:
            message = await received(server, mode, KINDS[kind](octets, tmp_path), lmtp=lmtp)
        declared = [option for option in message.mail_options if option.startswith("SIZE=")]
        assert declared == ([] if kind in OF_UNKNOWN_SIZE else [f"SIZE={len(normalised(octets))}"])


@each_protocol
@each_mode
@each_kind
async def test_8bitmime_is_declared_where_it_is_needed_or_may_be(kind, mode, lmtp, tmp_path: Path):
    """Nobody knows what is in content that was not read yet."""
    for octets, eightbit in ((OCTETS["dots"], False), (OCTETS["8-bit"], True)):
        async with MailServer(lmtp=lmtp) as server:
            message = await received(server, mode, KINDS[kind](octets, tmp_path), lmtp=lmtp)
        assert ("BODY=8BITMIME" in message.mail_options) == (eightbit or kind in OF_UNKNOWN_SIZE)
        assert "SMTPUTF8" not in message.mail_options


@each_protocol
@each_mode
async def test_smtputf8_is_declared_where_an_address_needs_it(mode, lmtp):
    """And then 8BITMIME goes with it (RFC 6531 section 3.6)."""
    async with MailServer(lmtp=lmtp) as server, client(server, mode, lmtp=lmtp) as smtp:
        assert (await smtp.sendmail(SENDER, "käthe@to.test", BODY)).accepted == ("käthe@to.test",)
    [message] = server.messages
    assert {"SMTPUTF8", "BODY=8BITMIME", f"SIZE={len(BODY)}"} == set(message.mail_options)


@each_mode
@each_kind
async def test_without_8bitmime_8bit_octets_do_not_leave(kind, mode, tmp_path: Path):
    """Known before: nothing is written. Found on the way: the content gets no end. Never delivered."""
    octets = OCTETS["8-bit"]
    async with MailServer(without=["8BITMIME", "SMTPUTF8"]) as server, client(server, mode) as smtp:
        with pytest.raises(SMTPNotSupportedError) as caught:
            await smtp.sendmail(SENDER, TO, KINDS[kind](octets, tmp_path))
        assert caught.value.delivery is Delivery.NOT_SENT
        assert (await smtp.sendmail(SENDER, TOO, BODY)).accepted == (TOO,)
    assert [message.recipients for message in server.messages] == [(TOO,)]
    if kind in IN_MEMORY:
        assert server.connections == 1


# -- too large -----------------------------------------------------------------------------


@each_loop
@each_mode
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in OF_UNKNOWN_SIZE])
async def test_too_large_is_refused_here_and_nothing_is_written(kind, mode, tmp_path: Path):
    """552 5.3.4, as the server would say; exactly as large as it takes is taken."""
    async with MailServer(size_limit=1000) as server, client(server, mode) as smtp:
        with pytest.raises(SMTPSenderRefused, match=r"5\.3\.4") as caught:
            await smtp.sendmail(SENDER, [TO, TOO], KINDS[kind](b"x" * 998 + b"\n\n", tmp_path))
        assert not any(line.startswith("MAIL") for line in server.commands)
        assert caught.value.smtp_code == 552
        assert caught.value.permanent
        assert deliveries(caught.value) == [Delivery.REFUSED] * 2
        assert (await smtp.sendmail(SENDER, TO, KINDS[kind](b"." * 998 + b"\n", tmp_path))).accepted == (TO,)
    assert server.connections == 1
    assert server.messages[-1].content == b"." * 998 + b"\r\n"


@each_protocol
@each_mode
@pytest.mark.parametrize("kind", OF_UNKNOWN_SIZE)
async def test_too_large_and_not_known_before_is_the_servers_refusal(kind, mode, lmtp, tmp_path: Path):
    """Whenever it says so: at the end, or behind a chunk in the middle."""
    async with MailServer(size_limit=100_000, lmtp=lmtp) as server:
        async with client(server, mode, lmtp=lmtp) as smtp:
            with pytest.raises(Exception, match="552") as caught:
                await smtp.sendmail(SENDER, [TO, TOO], KINDS[kind](b"x" * 900_000, tmp_path))
            assert deliveries(caught.value) == [Delivery.REFUSED] * 2
            assert not lmtp or caught.value.delivery is Delivery.REFUSED  # type: ignore[attr-defined]
            if not lmtp:
                assert isinstance(caught.value, SMTPDataError)
            assert (await smtp.sendmail(SENDER, TO, BODY)).accepted == (TO,)
    assert [message.content for message in server.messages] == [BODY]
