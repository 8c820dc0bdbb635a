"""The wire rules: what a caller may put on the wire, and what never gets there."""

from __future__ import annotations

import asyncio
import copy
import email
import email.message
import email.policy
import io
import re
from collections.abc import AsyncIterator, Iterator
from email.message import EmailMessage, Message
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
    hello,
    send,
    take,
    verbs,
)

from aiosmtpclient import (
    AsyncSMTP,
    Delivery,
    Envelope,
    SMTPException,
    SMTPNotSupportedError,
    SMTPSenderRefused,
)
from aiosmtpclient.testing import MailServer, ScriptedServer
from aiosmtpclient.testing.scripted import read_all

EVERYTHING = ("PIPELINING", "8BITMIME", "SMTPUTF8", "DSN", "SIZE", "AUTH PLAIN")
EVIL = "RCPT TO:<evil@evil.test>"


# -- 1: injection ----------------------------------------------------------------------------

BAD_ADDRESSES = [
    f"a@b.test\r\n{EVIL}",
    f"a@b.test\n{EVIL}",
    f"a@b.test\r{EVIL}",
    f"a@b.test>\r\n{EVIL}",
    "a\0@b.test",
    "a\x07@b.test",
    "a\x7f@b.test",
    "a\x85@b.test",
    "a\u2028@b.test",
    "a b@c.test",
    "a@b.test> SIZE=1",
    "a@b.test SIZE=1",
    "<a@b.test> SIZE=1",
    "<a@b.test><c@d.test>",
    "a@b>c.test",
    "a@b.test,c@d.test",
    "a@b.test; c@d.test",
    f'"a\r\n{EVIL}\r\n"@b.test',
    '"a\n"@b.test',
    '"a\0"@b.test',
    f'"Bob\r\n{EVIL}" <a@b.test>',
    "@relay.test:a@b.test",
    "a@b.test\uff1e\uff20c.test",
    "a@\uff1cb.test",
    "a@b\u3000c.test",
    "a@[1.2.3.4]>",
    "a@[1.2.3.4\r\n]",
    '"a@b.test',
    "a@",
    "@b.test",
]

BAD_OPTIONS = [
    f"SIZE=1\r\n{EVIL}",
    f"SIZE=1\n{EVIL}",
    "SIZE=1 BODY=8BITMIME",
    "SIZE=1=2",
    "SIZE=",
    "=1",
    "",
    " SIZE=1",
    "SIZE=1\0",
    "ENVID=caf\u00e9",
    "A>B",
    "-A=1",
]

CALLS = {
    "sendmail to": lambda smtp, bad: smtp.sendmail(SENDER, [TO, bad], BODY),
    "sendmail from": lambda smtp, bad: smtp.sendmail(bad, TO, BODY),
    "send_message to": lambda smtp, bad: smtp.send_message(message(), SENDER, [TO, bad]),
    "send_message from": lambda smtp, bad: smtp.send_message(message(), bad, TO),
    "mail": lambda smtp, bad: smtp.mail(bad),
    "rcpt": lambda smtp, bad: smtp.rcpt(bad),
    "verify": lambda smtp, bad: smtp.verify(bad),
    "expn": lambda smtp, bad: smtp.expn(bad),
}

OPTION_CALLS = {
    "sendmail mail_options": lambda smtp, bad: smtp.sendmail(SENDER, TO, BODY, [bad]),
    "sendmail rcpt_options": lambda smtp, bad: smtp.sendmail(SENDER, TO, BODY, (), [bad]),
    "send_message mail_options": lambda smtp, bad: smtp.send_message(message(), SENDER, TO, [bad]),
    "send_message rcpt_options": lambda smtp, bad: smtp.send_message(message(), SENDER, TO, (), [bad]),
    "mail": lambda smtp, bad: smtp.mail(SENDER, [bad]),
    "rcpt": lambda smtp, bad: smtp.rcpt(TO, [bad]),
}


def message() -> EmailMessage:
    one = EmailMessage()
    one["From"], one["To"], one["Subject"] = SENDER, TO, "hello"
    one.set_content("Hello.\n")
    return one


async def assert_nothing_is_written(call, bad) -> None:
    """ValueError; the server sees nothing of it, and the same connection takes the next message."""
    async with ScriptedServer([*hello(*EVERYTHING), *take(NEXT), *bye()]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            before = bytes(server.received[0])
            error = await caught(call(smtp, bad))
            assert isinstance(error, ValueError), repr(error)
            assert not isinstance(error, UnicodeError)
            assert server.received[0] == before
            assert (await send(smtp, NEXT)).accepted == (NEXT,)
        assert b"evil" not in server.received[0]
        assert server.connections == 1


@pytest.mark.parametrize("bad", BAD_ADDRESSES, ids=ascii)
@pytest.mark.parametrize("call", CALLS)
async def test_an_address_cannot_carry_a_command(call, bad):
    """CR, LF, controls, a space or an angle bracket outside quotes: ValueError, nothing written."""
    await assert_nothing_is_written(CALLS[call], bad)


@pytest.mark.parametrize("bad", BAD_OPTIONS, ids=ascii)
@pytest.mark.parametrize("call", OPTION_CALLS)
async def test_an_option_cannot_carry_a_command(call, bad):
    """Anything that is not one `esmtp-param`: ValueError, nothing written."""
    await assert_nothing_is_written(OPTION_CALLS[call], bad)


@pytest.mark.parametrize("bad", [f"me\r\n{EVIL}", "me\n", "me\0", "me you", "\u2028me", ""], ids=ascii)
async def test_a_hello_name_cannot_carry_a_command(bad):
    """Controls in an EHLO name, also in the constructor's."""
    if bad:
        await assert_nothing_is_written(lambda smtp, bad: smtp.ehlo(bad), bad)
        await assert_nothing_is_written(lambda smtp, bad: smtp.helo(bad), bad)
    with pytest.raises(ValueError):
        AsyncSMTP("mail.test", local_hostname=bad)


@pytest.mark.parametrize(
    "call",
    [
        lambda smtp, bad: smtp.docmd(bad),
        lambda smtp, bad: smtp.docmd("XYZZY", bad),
        lambda smtp, bad: smtp.help(bad),
        lambda smtp, bad: smtp.auth(bad, lambda challenge=None: "x"),
    ],
    ids=["docmd", "docmd arguments", "help", "auth"],
)
@pytest.mark.parametrize(
    "bad", [f"NOOP\r\n{EVIL}", "NOOP\n", "NOOP\r", "NOOP\0", "NOOP\t", "NOOP\x85"], ids=ascii
)
async def test_a_raw_command_is_one_command(call, bad):
    """Controls in a raw command."""
    await assert_nothing_is_written(call, bad)


@pytest.mark.parametrize("what", ["user", "password", "authorization_id"])
async def test_a_nul_in_a_credential_is_found_before_anything_is_written(what):
    """NUL in credentials, as in addresses."""
    given = {"user": "u", "password": "p", "authorization_id": ""} | {what: "a\0b"}
    await assert_nothing_is_written(
        lambda smtp, bad: smtp.login(
            given["user"], given["password"], authorization_id=given["authorization_id"]
        ),
        None,
    )


@each_loop
async def test_a_quoted_local_part_is_never_rewritten_to_make_it_fit():
    """What can be sent goes out exactly as it was given."""
    odd = ['"a b"@x.test', '"a\\"b>"@x.test', "a..b@x.test", "a.@x.test", "o'hara+tag=1@X.Test", "postmaster"]
    async with ScriptedServer([*hello(*EVERYTHING), *take(*odd), *bye()]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            result = await send(smtp, *odd)
            assert result.accepted == tuple(odd)
        for one in odd:
            assert f"RCPT TO:<{one}>\r\n".encode() in server.received[0]


# -- 2: names, null senders, recipients ------------------------------------------------------


async def test_a_display_name_is_stripped():
    """`Bob <b@x>` → `b@x`, as in smtplib; the result is keyed by what was given."""
    async with MailServer(refuse={TOO: "550 no"}) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            result = await smtp.sendmail(f"Alice <{SENDER}>", [f"Bob <{TO}>", f'"B, ob" <{TOO}>'], BODY)
        assert result.accepted == (f"Bob <{TO}>",)
        assert list(result) == [f'"B, ob" <{TOO}>']
        assert (server.messages[0].sender, server.messages[0].recipients) == (SENDER, (TO,))


@pytest.mark.parametrize("sender", ["", "<>"])
async def test_a_bounce_has_an_empty_sender(sender):
    """`""` and `"<>"` are senders."""
    async with MailServer() as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            await smtp.sendmail(sender, TO, BODY)
        assert server.messages[0].sender == ""
        assert any(command.startswith("MAIL FROM:<>") for command in server.commands)


@pytest.mark.parametrize("recipients", [[], "", [""], ["<>"], [TO, ""], [" "]], ids=str)
async def test_nobody_is_no_recipient(recipients):
    """No recipients, or an empty one: ValueError before MAIL."""
    await assert_nothing_is_written(lambda smtp, bad: smtp.sendmail(SENDER, bad, BODY), recipients)
    await assert_nothing_is_written(lambda smtp, bad: smtp.send_message(message(), SENDER, bad), recipients)


async def test_a_message_without_recipients_is_not_sent():
    """The same where the headers were to tell."""
    bare = EmailMessage()
    bare["From"] = SENDER
    await assert_nothing_is_written(lambda smtp, bad: smtp.send_message(bad), bare)


@each_loop
async def test_recipients_may_be_a_generator_and_repeat_themselves():
    """Recipients may be a generator; duplicates keep one outcome a position."""
    async with MailServer() as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            result = await smtp.sendmail(SENDER, (one for one in [TO, TOO, TO]), BODY)
            assert result.accepted == (TO, TOO, TO)
            assert [outcome.address for outcome in result.outcomes] == [TO, TOO, TO]
            await smtp.send_message(message(), SENDER, (one for one in [TO, TO]))
        assert [message.recipients for message in server.messages] == [(TO, TOO, TO), (TO, TO)]


async def test_text_beyond_ascii_is_refused_before_mail():
    """Text with non-ASCII characters given as `str`."""
    await assert_nothing_is_written(lambda smtp, bad: smtp.sendmail(SENDER, TO, bad), "caf\u00e9")


# -- 3: content ------------------------------------------------------------------------------

SMUGGLED = [
    b"\n.\n",
    b"\n.\r\n",
    b"\r\n.\n",
    b"\r.\r",
    b"\r.\r\n",
    b"\r\n.\r",
    b"\r\n.\r\n",
    b"\n.\r",
    b"\r.\n",
    b"\r\n\r.\n",
]


def as_bytes(octets: bytes) -> object:
    return octets


def as_file(octets: bytes) -> object:
    return io.BytesIO(octets)


def by_octet(octets: bytes) -> Iterator[bytes]:
    return (octets[at : at + 1] for at in range(len(octets)))


async def by_octet_async(octets: bytes) -> AsyncIterator[bytes]:
    for piece in by_octet(octets):
        yield piece


def in_halves(octets: bytes) -> Iterator[bytes]:
    middle = octets.index(b".")
    return iter([octets[:middle], octets[middle : middle + 1], b"", octets[middle + 1 :]])


WAYS = [as_bytes, bytearray, memoryview, as_file, by_octet, by_octet_async, in_halves]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("end", SMUGGLED, ids=repr)
async def test_no_form_of_an_early_end_reaches_the_server(way, end):
    """No bare CR, no bare LF on the wire, and each line's first dot is doubled."""
    body = b"Subject: x\r\n\r\nbefore" + end + b"MAIL FROM:<evil@evil.test>\r\n" + EVIL.encode()
    async with ScriptedServer([*hello("PIPELINING"), *take(TO), *bye()]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            await smtp.sendmail(SENDER, TO, way(body))
        wire = server.received[0].partition(b"DATA\r\n")[2]
        assert wire.endswith(b"evil@evil.test>\r\n.\r\nQUIT\r\n")
        assert re.search(rb"(?<!\r)\n|\r(?!\n)", wire) is None
        assert wire.count(b"\r\n.\r\n") == 1
        content = wire.removesuffix(b".\r\nQUIT\r\n")
        stuffed = b"before" + end.replace(b".", b"..") + b"MAIL FROM:<evil@evil.test>"
        assert content.splitlines()[2:] == [*stuffed.splitlines(), EVIL.encode()]


@pytest.mark.parametrize("way", WAYS[:-1])
async def test_a_dot_first_of_all_is_doubled(way):
    """The first line is a line too."""
    async with MailServer() as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            await smtp.sendmail(SENDER, TO, way(b".\r\n..\r\n.x"))
        assert server.messages[0].content == b".\r\n..\r\n.x\r\n"


@pytest.mark.parametrize("way", WAYS[:-1])
async def test_a_nul_never_leaves(way):
    """A NUL is a ValueError; where it is only found on the way: no end of content, and dropped."""
    streamed = way not in (as_bytes, bytearray, memoryview, as_file)
    script = [*hello(), *envelope(TO), "DATA", GO, read_all()] if streamed else [*hello(), *bye()]
    async with ScriptedServer(script) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            with pytest.raises(ValueError, match="NUL") as caught_error:
                await smtp.sendmail(SENDER, TO, way(b"a\r\n" + b"\0" + b"b\r\n"))
            assert caught_error.value.delivery is Delivery.NOT_SENT
            assert smtp.is_connected is not streamed
        await server.conversations[0].gone.wait()
        assert b"\0" not in server.received[0]
        assert not server.received[0].endswith(b".\r\n")


@pytest.mark.parametrize("way", [as_bytes, as_file, by_octet, by_octet_async])
async def test_an_empty_body_is_the_terminator_alone(way):
    """An empty body is the terminator alone."""
    async with ScriptedServer([*hello(), *take(TO), *bye()]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            await smtp.sendmail(SENDER, TO, way(b""))
        assert b"DATA\r\n.\r\nQUIT\r\n" in server.received[0]


@pytest.mark.parametrize("way", [as_bytes, as_file, by_octet])
@pytest.mark.parametrize("end", [b"", b"\r", b"\n", b"\r\n"])
async def test_a_missing_final_line_end_is_added_and_no_other(way, end):
    """Missing final CRLF is added."""
    async with MailServer() as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            await smtp.sendmail(SENDER, TO, way(b"last" + end))
        assert server.messages[0].content == b"last\r\n"


# -- 4: 8 bits, UTF-8 ------------------------------------------------------------------------


async def test_8bit_content_says_so_where_it_may():
    """`BODY=8BITMIME` when offered."""
    async with MailServer() as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            await smtp.sendmail(SENDER, TO, "caf\u00e9".encode())
            await smtp.sendmail(SENDER, TO, b"plain")
        assert ["BODY=8BITMIME" in message.mail_options for message in server.messages] == [True, False]


async def test_8bit_content_is_refused_or_encoded_where_it_may_not():
    """Not offered: `send_message` re-encodes to 7-bit, `sendmail` raises."""
    eightbit = message()
    eightbit.set_content("caf\u00e9\n", cte="8bit")
    async with MailServer(without=["8BITMIME", "SMTPUTF8", "BINARYMIME"]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            with pytest.raises(SMTPNotSupportedError, match="8BITMIME"):
                await smtp.sendmail(SENDER, TO, "caf\u00e9".encode())
            await smtp.send_message(eightbit)
        assert server.messages[0].content.isascii()
        assert server.messages[0].message.get_content().rstrip() == "caf\u00e9"
        assert eightbit["Content-Transfer-Encoding"] == "8bit"


async def test_8bit_octets_found_in_a_stream_where_they_may_not_go_end_it_without_the_dot():
    """8-bit octets in content that nobody could look at before."""
    async with ScriptedServer([*hello(), *envelope(TO), "DATA", GO, read_all()]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            with pytest.raises(SMTPNotSupportedError) as caught_error:
                await smtp.sendmail(SENDER, TO, iter([b"a\r\n", b"caf\xe9\r\n"]))
            assert caught_error.value.delivery is Delivery.NOT_SENT
            assert not smtp.is_connected
        await server.conversations[0].gone.wait()
        assert b"\xe9" not in server.received[0]
        assert not server.received[0].endswith(b"\r\n.\r\n")


@each_loop
async def test_smtputf8_is_used_only_where_it_is_needed():
    """Only when an address or header needs it; it implies 8BITMIME; domains never need it."""
    async with MailServer() as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            await smtp.sendmail(SENDER, "j\u00f6rg@to.test", BODY)
            await smtp.sendmail(SENDER, "joerg@b\u00fccher.test", BODY)
            await send(smtp)
        utf8 = ["SMTPUTF8" in message.mail_options for message in server.messages]
        assert utf8 == [True, False, False]
        assert "BODY=8BITMIME" in server.messages[0].mail_options
        assert server.messages[0].recipients == ("j\u00f6rg@to.test",)
        assert server.messages[1].recipients == ("joerg@xn--bcher-kva.test",)


async def test_a_header_that_needs_smtputf8_asks_for_it():
    """A header's address needs it, though the envelope does not; a subject does not."""
    one, other = message(), message()
    one["Cc"] = "j\u00f6rg@to.test"
    other.replace_header("Subject", "Gr\u00fc\u00dfe")
    other["Cc"] = "joerg@b\u00fccher.test"
    async with MailServer() as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            await smtp.send_message(one, SENDER, TO)
            await smtp.send_message(other)
        assert ["SMTPUTF8" in message.mail_options for message in server.messages] == [True, False]
        assert "j\u00f6rg@to.test".encode() in server.messages[0].content
        assert b"joerg@xn--bcher-kva.test" in server.messages[1].content
        assert server.messages[1].content.isascii()


@pytest.mark.parametrize(
    "call",
    [
        lambda smtp: smtp.sendmail("j\u00f6rg@from.test", TO, BODY),
        lambda smtp: smtp.sendmail(SENDER, [TO, "j\u00f6rg@to.test"], BODY),
        lambda smtp: smtp.send_message(message(), "j\u00f6rg@from.test", TO),
        lambda smtp: smtp.mail("j\u00f6rg@from.test"),
        lambda smtp: smtp.mail(SENDER, ["SMTPUTF8"]),
        lambda smtp: smtp.sendmail(SENDER, TO, BODY, ["SMTPUTF8"]),
        lambda smtp: smtp.rcpt("j\u00f6rg@to.test"),
        lambda smtp: smtp.verify("j\u00f6rg@to.test"),
        lambda smtp: smtp.expn("j\u00f6rg"),
    ],
)
async def test_without_smtputf8_a_local_part_beyond_ascii_is_refused_before_mail(call):
    """SMTPNotSupportedError before MAIL, in every call."""
    async with ScriptedServer([*hello("8BITMIME"), *take(NEXT), *bye()]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            error = await caught(call(smtp))
            assert isinstance(error, SMTPNotSupportedError)
            assert "SMTPUTF8" in str(error)
            await send(smtp, NEXT)
        assert verbs(server.received[0])[:2] == ["EHLO", "MAIL"]
        assert server.received[0].isascii()


async def test_an_international_address_by_hand_says_smtputf8():
    """The keyword goes with the address that needs it."""
    script = [*hello("SMTPUTF8"), "MAIL", OK, "VRFY", b"252 ok\r\n", "EXPN", OK, "MAIL", OK, *bye()]
    async with ScriptedServer(script) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            await smtp.mail("j\u00f6rg@from.test")
            await smtp.verify("j\u00f6rg@to.test")
            await smtp.expn("joerg@b\u00fccher.test")
            await smtp.mail("j\u00f6rg@from.test", ["SMTPUTF8"])
            await smtp.quit()
        lines = server.received[0].decode().split("\r\n")
        assert lines[1] == "MAIL FROM:<j\u00f6rg@from.test> SMTPUTF8"
        assert lines[2:4] == ["VRFY j\u00f6rg@to.test SMTPUTF8", "EXPN joerg@xn--bcher-kva.test"]
        assert lines[4] == lines[1]


# -- 5: SIZE ---------------------------------------------------------------------------------


async def test_size_is_the_octets_after_line_ends_and_before_stuffing():
    """`SIZE=` is the exact octet count after CRLF normalisation, before stuffing."""
    async with MailServer() as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            await smtp.sendmail(SENDER, TO, b".a\n.b\rc")
        assert "SIZE=11" in server.messages[0].mail_options
        assert len(server.messages[0].content) == 11


@pytest.mark.parametrize("octets", [100, 101])
async def test_the_size_limit_counts_what_the_server_counts(octets):
    """Larger than the limit: refused with the server's own code, before MAIL."""
    async with MailServer(size_limit=100) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            if octets == 100:
                await smtp.sendmail(SENDER, TO, b"." + b"x" * (octets - 3))
                assert len(server.messages[0].content) == 100
                return
            with pytest.raises(SMTPSenderRefused) as caught_error:
                await smtp.sendmail(SENDER, TO, b"." + b"x" * (octets - 3))
            assert caught_error.value.smtp_error.startswith(b"5.3.4")
        assert not any(command.startswith("MAIL") for command in server.commands)


async def test_a_size_given_by_hand_is_not_given_twice():
    """Raw options go out as given, and ours stand back."""
    async with ScriptedServer([*hello("SIZE", "8BITMIME"), *take(TO), *bye()]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            await smtp.sendmail(SENDER, TO, b"caf\xc3\xa9", ["size=99", "Body=8BITMIME"])
        assert f"MAIL FROM:<{SENDER}> size=99 Body=8BITMIME\r\n".encode() in server.received[0]


# -- 6: the header block ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Subject", "hello\r\nBcc: evil@evil.test"),
        ("Subject", "hello\nBcc: evil@evil.test"),
        ("Subject", "hello\rBcc: evil@evil.test"),
        ("Subject", "hello\r\n\r\nbody"),
        ("Subject\r\nBcc", "evil@evil.test"),
        ("Subject: x\nBcc", "evil@evil.test"),
        ("", "x"),
        ("X Y", "x"),
    ],
    ids=ascii,
)
async def test_a_header_cannot_carry_another_header(name, value):
    """A CR or LF in a header's name or value of a compat32 message is a ValueError, not a `Bcc`."""
    old = Message()
    old["From"], old["To"] = SENDER, TO
    old.set_payload("Hello.\n")
    old[name] = value
    await assert_nothing_is_written(lambda smtp, bad: smtp.send_message(bad), old)


# -- 7: Bcc ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [EmailMessage, Message])
@pytest.mark.parametrize("name", ["Bcc", "BCC", "bcc", "Bcc "])
async def test_blind_recipients_get_the_mail_and_nobody_sees_them(kind, name):
    """Bcc never leaves, its addresses get the mail, all headers count, nothing is changed."""
    one = kind()
    one["From"], one["To"], one["Cc"] = SENDER, TO, "c@to.test"
    one._headers.append((name, "blind@to.test"))
    if kind is Message:
        one["To"] = TOO
        one["Cc"] = "d@to.test"
        one["bcc"] = "second blind <blind2@to.test>"
    one.set_payload("Hello.\n")
    before = copy.deepcopy(list(one.raw_items())), one.get_payload()
    async with MailServer(
        refuse_content=lambda message: None if len(server.messages) else "451 later"
    ) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            server.messages.append(None)  # the first time it is taken, the second time refused
            await smtp.send_message(one)
            server.messages.pop(0)
            assert (list(one.raw_items()), one.get_payload()) == before
            taken = server.messages.pop()
            with pytest.raises(SMTPException):
                await smtp.send_message(one)
        assert (list(one.raw_items()), one.get_payload()) == before
        more = ("d@to.test", "blind2@to.test") if kind is Message else ()
        assert set(taken.recipients) >= {TO, "c@to.test", "blind@to.test", *more}
        assert b"bcc" not in taken.content.lower()
        assert b"blind" not in taken.content


async def test_a_resent_message_goes_to_whom_it_is_resent():
    """Resent-Bcc never leaves either, and its addresses get the mail."""
    one = message()
    one["Bcc"] = "old-blind@to.test"
    one["Resent-Date"] = "Mon, 1 Jan 2024 00:00:00 +0000"
    one["Resent-From"], one["Resent-To"], one["Resent-Bcc"] = "r@from.test", "r@to.test", "blind@to.test"
    async with MailServer() as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            await smtp.send_message(one)
        [taken] = server.messages
        assert taken.sender == "r@from.test"
        assert taken.recipients == ("r@to.test", "blind@to.test")
        assert b"bcc" not in taken.content.lower()


async def test_a_parsed_message_that_was_cut_short_at_a_bcc_is_not_sent():
    """A *parsed* message whose header block was cut short at `Bcc :` is a ValueError."""
    parsed = email.message_from_bytes(
        f"From: {SENDER}\r\nTo: {TO}\r\nBcc : blind@to.test\r\nSubject: x\r\n\r\nHello\r\n".encode(),
        policy=email.policy.default,
    )
    await assert_nothing_is_written(lambda smtp, bad: smtp.send_message(bad), parsed)


async def test_sendmail_changes_no_header():
    """Raw bytes are the caller's: a Bcc in them stays."""
    raw = f"Bcc: blind@to.test\r\nTo: {TO}\r\n\r\nHello\r\n".encode()
    async with MailServer() as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            await smtp.sendmail(SENDER, TO, raw)
        assert server.messages[0].content == raw
        assert server.messages[0].recipients == (TO,)


# -- 8: options and long lines ---------------------------------------------------------------


async def test_raw_options_go_out_as_given():
    """Raw `mail_options` and `rcpt_options` are the caller's business."""
    script = [*hello(), *take(TO, TOO), *bye()]
    async with ScriptedServer(script) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            await smtp.sendmail(SENDER, [TO, TOO], b"x", ["X-ODD=1", "RET=HDRS"], ["NOTIFY=NEVER"])
        lines = server.received[0].split(b"\r\n")
        assert lines[1] == f"MAIL FROM:<{SENDER}> X-ODD=1 RET=HDRS".encode()
        assert lines[2:4] == [f"RCPT TO:<{one}> NOTIFY=NEVER".encode() for one in (TO, TOO)]


@pytest.mark.parametrize("way", [as_bytes, as_file, bytes.decode])
async def test_long_lines_go_out_unchanged(way):
    """Lines over 998 octets may be signed, and are not touched."""
    body = b"x" * 5000 + b"\r\n" + b"y" * 999 + b"\r\n"
    async with MailServer() as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            await smtp.sendmail(SENDER, TO, way(body))
        assert server.messages[0].content == body


# -- 9: see test_wire_rules_delivery: bodies that raise ---------------------------------------


@each_loop
async def test_a_body_of_the_wrong_kind_ends_without_the_dot():
    """The same for an iterable that gives something else than octets."""
    async with ScriptedServer([*hello(), *envelope(TO), "DATA", GO, read_all()]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            error = await caught(smtp.sendmail(SENDER, TO, iter([b"a\r\n", "text"])))
            assert isinstance(error, TypeError)
            assert error.delivery is Delivery.NOT_SENT
        await server.conversations[0].gone.wait()
        assert not server.received[0].endswith(b"\r\n.\r\n")


# -- 10: no envelope is left open ------------------------------------------------------------


@each_loop
@pytest.mark.parametrize("pipelining", ["off", "message"])
@pytest.mark.parametrize(
    "bad",
    [
        Envelope(SENDER, [TO, "bad address"], BODY),
        Envelope(SENDER, [TO, "j\u00f6rg@to.test"], BODY),
        Envelope(SENDER, [TO], b"\0"),
        Envelope(SENDER, [TO], BODY, rcpt_options=["A B"]),
        Envelope(SENDER, [TO], "caf\u00e9"),
        Envelope(SENDER, [TO], Path("/no/such/file/anywhere")),
        Envelope(SENDER, [TO], object()),
    ],
    ids=["address", "SMTPUTF8", "NUL", "option", "text", "path", "kind"],
)
async def test_a_local_failure_leaves_no_envelope_open(bad, pipelining):
    """Everything is checked before MAIL, so nobody gets the next message besides its recipients."""
    async with ScriptedServer([*hello("PIPELINING"), *take(NEXT), *bye()]) as server:
        async with AsyncSMTP(server.host, server.port, pipelining=pipelining) as smtp:
            outcomes = [outcome async for outcome in smtp.send_messages([bad, Envelope(SENDER, NEXT, BODY)])]
        assert [outcome.delivery for outcome in outcomes] == [Delivery.NOT_SENT, Delivery.ACCEPTED]
        assert deliveries(outcomes[0]) in ([], [Delivery.NOT_SENT] * len(bad.recipients))
        assert TO.encode() not in server.received[0]


async def test_content_that_takes_long_to_open_opens_no_envelope_meanwhile(tmp_path: Path):
    """A path is opened before MAIL."""
    path = tmp_path / "message.eml"
    path.write_bytes(BODY)
    async with ScriptedServer([*hello(), *take(TO), *bye()]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            task = asyncio.create_task(smtp.sendmail(SENDER, TO, path))
            await asyncio.sleep(0)
            assert b"MAIL" not in server.received[0]
            assert (await task).accepted == (TO,)
        assert BODY in server.received[0]
