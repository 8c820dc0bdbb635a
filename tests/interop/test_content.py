"""What arrives: messages that servers stumble over, recipients that are refused, sizes and notices."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

import pytest

from aiosmtpclient import (
    AsyncSMTP,
    Delivery,
    SMTPDataError,
    SMTPException,
    SMTPNotSupportedError,
    SMTPRecipientsRefused,
    SMTPSenderRefused,
)

from . import letters
from .conftest import Found
from .servers import RealServer
from .stored import MARK


def arrived(server: RealServer, name: str) -> bytes:
    """The content of the one message with this key."""
    one, *more = server.stored(name)
    assert not more, f"{name} arrived {len(more) + 1} times"
    return one.content


def same(server: RealServer, got: bytes, sent: bytes) -> bool:
    """Did it arrive as it was meant?"""
    meant = letters.on_the_wire(sent)
    if server.body_only:  # the header is kept in another form
        got, meant = (octets.partition(b"\n\n")[2] for octets in (got, meant))
    return got == meant


async def deliver(server: RealServer, content: bytes, name: str) -> None:
    """Send octets, and compare what arrives."""
    async with server.client() as smtp:
        await smtp.sendmail(letters.SENDER, letters.RECIPIENT, content)
    assert same(server, arrived(server, name), content)


async def test_a_plain_message(server: RealServer, found: Found) -> None:
    name = letters.key("plain")
    await deliver(server, letters.plain(name), name)
    found("a plain message", "the same")


async def test_octets_over_127(server: RealServer, found: Found) -> None:
    name = letters.key("eight-bit")
    await deliver(server, letters.eight_bit(name), name)
    found("8-bit octets", "the same")


async def test_leading_dots_and_odd_line_ends(server: RealServer, found: Found) -> None:
    name = letters.key("dots")
    await deliver(server, letters.odd_lines(name), name)
    found("dots, bare CR and LF", "as CRLF")


async def test_header_fields_in_other_languages(server: RealServer, found: Found) -> None:
    name = letters.key("international")
    message = letters.international(name, letters.RECIPIENT)
    async with server.client() as smtp:
        await smtp.send_message(message)
    content = arrived(server, name)
    assert b"=?utf-8?" in content
    assert content.rstrip().endswith("Grüße an 日本.".encode())
    found("encoded header fields", "yes")


async def test_an_address_in_another_script(server: RealServer, found: Found) -> None:
    name = letters.key("international-address")
    message = letters.international(name, "ok-żółć@interop.test")
    async with server.client() as smtp:
        if not smtp.extensions.smtputf8:
            with pytest.raises(SMTPNotSupportedError) as error:
                await smtp.send_message(message)
            assert error.value.delivery is Delivery.NOT_SENT
            assert (await smtp.noop()).code == 250  # nothing was written: the connection is as it was
            found("an address that is not ASCII", "–")
            return
        result = await smtp.send_message(message)
    assert result.accepted == ("ok-żółć@interop.test",)
    content = arrived(server, name)
    assert "Zażółć gęślą jaźń, 日本語".encode() in content
    assert "To: ok-żółć@interop.test".encode() in content
    found("an address that is not ASCII", "yes")


async def test_a_domain_in_another_script(server: RealServer, found: Found) -> None:
    name = letters.key("international-domain")
    async with server.client() as smtp:
        result = await smtp.sendmail(letters.SENDER, "ok@bücher.test", letters.plain(name))
    assert result.accepted == ("ok@bücher.test",)
    arrived(server, name)
    found("a domain that is not ASCII", "as A-label")


async def test_ten_mebibytes_attached(server: RealServer, found: Found) -> None:
    name = letters.key("attachment")
    message, written = letters.attachment(name)
    async with server.client() as smtp:
        await smtp.send_message(message)
    assert same(server, arrived(server, name), written)
    found("10 MiB attached", "the same")


async def test_lines_longer_than_allowed(server: RealServer, found: Found) -> None:
    name = letters.key("long-lines")
    content = letters.plain(name) + b"x" * 3000 + b"\r\n" + b"word " * 600 + b"\r\n"
    async with server.client() as smtp:
        refusal: SMTPException | None = None
        try:
            await smtp.sendmail(letters.SENDER, letters.RECIPIENT, content)
        except SMTPException as error:
            refusal = error
    if refusal is not None:
        assert refusal.delivery is Delivery.REFUSED, repr(refusal)
        said = refusal.outcomes[0].reply
        assert said is not None
        assert not server.stored(name)
        found("a line of 3000 octets", "refused")
        found.surprise(
            "a line of 3000 octets", f"refuses lines of more than 998 octets: {said.code} {said.text}."
        )
        return
    if same(server, arrived(server, name), content):
        found("a line of 3000 octets", "the same")
        return
    found("a line of 3000 octets", "changed")
    text = "accepts a line that is longer than 998 octets, and breaks it: a signature over it would not hold."
    found.surprise("a line of 3000 octets", text)


def names(stored: Iterable[str]) -> set[str]:
    return {name.lower() for name in stored}


async def test_two_hundred_recipients_with_every_third_refused(server: RealServer, found: Found) -> None:
    name = letters.key("recipients")
    everybody, bad = letters.many_recipients()
    if not server.refuses_by_name:
        bad = []
    async with server.client() as smtp:
        result = await smtp.sendmail(letters.SENDER, everybody, letters.plain(name))
        assert set(result) == set(bad)
        assert all(reply.code == 550 for reply in result.values())
        assert [address for address in everybody if address not in bad] == list(result.accepted)
        again = letters.key("after-recipients")
        await smtp.sendmail(letters.SENDER, letters.RECIPIENT, letters.plain(again))
    kept = [recipient for one in server.stored(name) for recipient in one.recipients]
    assert sorted(kept) == sorted(result.accepted)
    arrived(server, again)
    found("200 recipients, every third refused", "yes" if bad else "takes all")


async def test_a_refused_sender_and_the_next_message(server: RealServer, found: Found) -> None:
    if not server.refuses_senders:
        found("a refused sender, then the next message", "")
        return
    name, again = letters.key("refused"), letters.key("after-refused")
    async with server.client() as smtp:
        with pytest.raises(SMTPSenderRefused) as error:
            await smtp.sendmail("reject@interop.test", letters.RECIPIENT, letters.plain(name))
        assert error.value.delivery is Delivery.REFUSED
        kept = smtp.is_connected
        await smtp.sendmail(letters.SENDER, letters.RECIPIENT, letters.plain(again))
    assert [one.key for one in server.stored(name, again)] == [again]
    found("a refused sender, then the next message", "yes" if kept else "on a new connection")
    if not kept:
        text = "hangs up when a sender is refused and RSET follows; the next message needs a new connection."
        found.surprise("a refused sender, then the next message", text)


async def endless(name: str, octets: int) -> AsyncIterator[bytes]:
    """Content whose size nobody knows beforehand."""
    yield letters.plain(name)
    line = b"0123456789" * 7 + b"\r\n"
    for _ in range(octets // (len(line) * 100) + 1):
        yield line * 100


async def test_a_message_larger_than_its_limit(server: RealServer, found: Found) -> None:
    async with server.client() as smtp:
        limit = smtp.extensions.size_limit
        if limit is None:
            found("SIZE exceeded, known before", "–")
            found("SIZE exceeded, found by the server", "–")
            return
        name, streamed, again = letters.key("large"), letters.key("large-stream"), letters.key("after-large")
        with pytest.raises(SMTPSenderRefused) as known:
            await smtp.sendmail(letters.SENDER, letters.RECIPIENT, letters.plain(name) + b"x" * limit)
        assert (known.value.smtp_code, known.value.delivery) == (552, Delivery.REFUSED)
        assert smtp.is_connected
        found("SIZE exceeded, known before", "refused here")
        code = await refused(smtp, streamed, limit)
        found("SIZE exceeded, found by the server", str(code))
        if code != 552:
            found.surprise(
                "SIZE exceeded, found by the server", f"answers {code}, not 552, to a message over its SIZE."
            )
        await smtp.sendmail(letters.SENDER, letters.RECIPIENT, letters.plain(again))
    assert [one.key for one in server.stored(name, streamed, again)] == [again]


async def refused(smtp: AsyncSMTP, name: str, limit: int) -> int:
    """Stream more than the server takes; what it says to that."""
    with pytest.raises(
        (SMTPDataError, SMTPRecipientsRefused)
    ) as found_out:  # in LMTP each recipient is refused
        await smtp.sendmail(letters.SENDER, letters.RECIPIENT, endless(name, limit + 1_000_000))
    [outcome] = found_out.value.outcomes
    assert outcome.delivery is Delivery.REFUSED
    assert outcome.reply is not None
    return outcome.reply.code


async def test_delivery_status_notices_are_asked_for(server: RealServer, found: Found) -> None:
    name = letters.key("dsn")
    async with server.client() as smtp:
        offered = "dsn" in smtp.extensions
        if not offered:
            found("DSN parameters", "–")
            return
        await smtp.sendmail(
            letters.SENDER,
            letters.RECIPIENT,
            letters.plain(name),
            mail_options=["RET=HDRS", "ENVID=interop+2B1"],
            rcpt_options=["NOTIFY=FAILURE,DELAY", f"ORCPT=rfc822;{letters.RECIPIENT}"],
        )
    assert MARK in arrived(server, name)
    found("DSN parameters", "yes")
