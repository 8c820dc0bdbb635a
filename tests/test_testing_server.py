"""The real test server, spoken to with octets: what it offers, refuses, keeps and leaves behind."""

# ruff: noqa: PT012 — what fails is the leaving of a server, around everything that led to it

from __future__ import annotations

import asyncio
import base64
import gc
import hashlib
import hmac
import importlib
import os
import smtplib
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from unittest.mock import ANY

import pytest

import aiosmtpclient.testing
from aiosmtpclient.testing import CertificateAuthority, MailServer, ReceivedMessage

AUTHORITY = CertificateAuthority()
NAMES = [f"r{number}@d.test" for number in range(5)]


class Client:
    """Octets out, replies in."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def reply(self) -> str:
        lines = [(await self.reader.readuntil(b"\r\n")).decode()]
        while lines[-1][3] == "-":
            lines.append((await self.reader.readuntil(b"\r\n")).decode())
        return "".join(lines).removesuffix("\r\n")

    async def replies(self, count: int) -> list[str]:
        return [await self.reply() for _ in range(count)]

    async def ask(self, octets: bytes) -> str:
        self.writer.write(octets)
        return await self.reply()

    async def codes(self, octets: bytes, count: int) -> list[str]:
        self.writer.write(octets)
        return [reply[:3] for reply in await self.replies(count)]


@asynccontextmanager
async def connected(server: MailServer, *, hello: bytes = b"EHLO me.test\r\n") -> AsyncIterator[Client]:
    context = AUTHORITY.client_context() if server.implicit_tls else None
    if server.unix_path is not None:
        reader, writer = await asyncio.open_unix_connection(str(server.unix_path))
    else:
        reader, writer = await asyncio.open_connection(
            server.host, server.port, ssl=context, server_hostname="localhost" if context else None
        )
    client = Client(reader, writer)
    assert (await client.reply()).startswith("220 mail.test")
    if hello:
        assert (await client.ask(hello)).startswith("250")
    try:
        yield client
    finally:
        await _close(writer)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


ENVELOPE = b"MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\n"


# What is received


async def test_a_message_is_kept_with_everything_that_is_known_about_it() -> None:
    async with MailServer() as server, connected(server) as client:
        await client.codes(
            b"MAIL FROM:<a@b.test> SIZE=9 BODY=8BITMIME RET=HDRS ENVID=x+2By\r\n"
            b"RCPT TO:<c@d.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;c@d.test\r\n"
            b"RCPT TO:<e@f.test>\r\nDATA\r\n",
            4,
        )
        reply = await client.ask(b"Subject: hi\r\n\r\nthere\r\n.\r\n")
        (message,) = server.messages
    assert reply == f"250 2.0.0 Ok: queued as {message.queue_id}"
    assert message == ReceivedMessage(
        queue_id=message.queue_id,
        sender="a@b.test",
        recipients=("c@d.test", "e@f.test"),
        content=b"Subject: hi\r\n\r\nthere\r\n",
        mail_options=("SIZE=9", "BODY=8BITMIME", "RET=HDRS", "ENVID=x+2By"),
        rcpt_options=(("NOTIFY=SUCCESS,DELAY", "ORCPT=rfc822;c@d.test"), ()),
        helo="me.test",
        user=None,
        tls=False,
        lmtp=False,
        chunked=False,
        client=("127.0.0.1", ANY),
    )
    assert message.message["Subject"] == "hi"
    assert message.message.get_content() == "there\r\n"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"a\rb\nc\n\r\n", id="lone CR and LF"),
        pytest.param(b"a\n.\nb\r.\rc\n.\r\nd\r\n", id="fake ends of data"),
        pytest.param(b".\r\n..\r\n.x\r\n", id="dots"),
        pytest.param(b"x" * 300_000 + b"\r\n", id="a very long line"),
        pytest.param(b"x" * 65535 + b"\r\n" + b"y" * 65536 + b"\r\n", id="lines as long as the buffer"),
        pytest.param(bytes(range(256)) * 3 + b"\r\n", id="every octet"),
    ],
)
@pytest.mark.parametrize("chunked", [False, True], ids=["DATA", "BDAT"])
async def test_content_is_kept_as_it_came_with_only_the_stuffing_undone(
    content: bytes, chunked: bool
) -> None:
    stuffed = b"".join(b"." + line if line.startswith(b".") else line for line in _lines(content))
    async with MailServer() as server, connected(server) as client:
        await client.codes(ENVELOPE, 2)
        if chunked:
            await client.ask(b"BDAT %d LAST\r\n%s" % (len(content), content))
        else:
            await client.ask(b"DATA\r\n")
            await client.ask(stuffed + b".\r\n")
        assert [message.content for message in server.messages] == [content]
        assert await client.ask(b"NOOP\r\n") == "250 2.0.0 Ok"


def _lines(content: bytes) -> list[bytes]:
    pieces = content.split(b"\r\n")
    return [piece + b"\r\n" for piece in pieces[:-1]]


async def test_a_message_in_memory_before_its_reply_means_that_nobody_needs_to_wait() -> None:
    async with MailServer() as server, connected(server) as client:
        waiting = asyncio.create_task(server.wait_for(2))
        given_up = asyncio.create_task(server.wait_for(1))
        await asyncio.sleep(0)
        given_up.cancel()
        for _ in range(2):
            await client.codes(ENVELOPE + b"BDAT 0 LAST\r\n", 3)
        assert await waiting == server.messages
        assert await server.wait_for() == server.messages


# Groups


async def test_a_group_is_answered_in_order_and_counts_as_one_round_trip() -> None:
    async with MailServer(refuse={"no@d.test": "550 5.1.1 no such user"}) as server:
        async with connected(server) as client:
            before = server.round_trips
            group = ENVELOPE + b"RCPT TO:<no@d.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\n"
            assert await client.codes(group, 5) == ["250", "250", "550", "250", "354"]
            content = b"x" * 300_000 + b"\r\n.\r\n"
            assert await client.codes(content, 1) == ["250"]
            assert server.round_trips - before == 2
            assert server.messages[0].recipients == ("c@d.test", "c@d.test")


async def test_lock_step_costs_a_round_trip_a_command() -> None:
    async with MailServer() as server, connected(server) as client:
        assert server.round_trips == 1
        for command in (*ENVELOPE.splitlines(True), b"DATA\r\n", b".\r\n"):
            await client.ask(command)
        assert server.round_trips == 5
    assert server.connections == 1


async def test_commands_are_kept_as_they_were_written() -> None:
    async with MailServer() as server, connected(server, hello=b"ehlo Me.test\r\n") as client:
        await client.ask(b"mail from:<a@b.test> \r\n")
        await client.ask(b"what is this\r\n")
        assert server.commands == ["ehlo Me.test", "mail from:<a@b.test> ", "what is this"]


async def test_what_was_said_before_a_close_is_still_carried_out() -> None:
    async with MailServer() as server, connected(server) as client:
        client.writer.write(ENVELOPE + b"BDAT 3 LAST\r\nabcQUIT\r\n")
        client.writer.write_eof()
        assert [reply[:3] for reply in await client.replies(4)] == ["250", "250", "250", "221"]
        assert await client.reader.read() == b""
        assert server.messages[0].content == b"abc"


# What is offered


async def test_ehlo_offers_what_a_modern_relay_offers() -> None:
    async with MailServer() as server, connected(server, hello=b"") as client:
        lines = (await client.ask(b"EHLO me.test\r\n")).split("\r\n")
    assert [line[4:] for line in lines] == [
        "mail.test",
        *("PIPELINING", "CHUNKING", "BINARYMIME", "8BITMIME", "SMTPUTF8", "DSN"),
        *("ENHANCEDSTATUSCODES", "VRFY", "EXPN", "HELP", "SIZE 0"),
    ]


async def test_extensions_can_be_added_replaced_and_taken_away() -> None:
    options = {"extensions": ["LIMITS RCPTMAX=5", "SIZE", "XFOO bar"], "without": {"pipelining", "CHUNKING"}}
    async with MailServer(**options) as server, connected(server, hello=b"") as client:
        offered = await client.ask(b"EHLO me.test\r\n")
        assert {line[4:] for line in offered.split("\r\n")} >= {"LIMITS RCPTMAX=5", "SIZE", "XFOO bar"}
        assert not {"PIPELINING", "CHUNKING", "BINARYMIME"} & {line[4:] for line in offered.split("\r\n")}
        assert await client.ask(b"BDAT 1 LAST\r\n") == "500 5.5.1 Error: command not recognized"
        assert await client.ask(b"MAIL FROM:<a@b.test> XFOO=1\r\n") == "250 2.1.0 Ok"
        assert (await client.ask(b"RCPT TO:<c@d.test> LIMITS\r\n")).startswith("555 5.5.4")


@pytest.mark.parametrize("option", ["extensions", "without"])
def test_one_word_in_place_of_several_is_not_taken_for_its_letters(option: str) -> None:
    with pytest.raises(TypeError, match="not one str but several"):
        MailServer(**{option: "PIPELINING"})  # type: ignore[arg-type]


async def test_without_binarymime_its_body_is_refused() -> None:
    async with MailServer(without={"BINARYMIME"}) as server, connected(server) as client:
        assert (await client.ask(b"MAIL FROM:<a@b.test> BODY=BINARYMIME\r\n")).startswith("555 5.5.4")


async def test_without_enhanced_codes_no_reply_has_one() -> None:
    async with MailServer(without={"ENHANCEDSTATUSCODES"}) as server, connected(server) as client:
        assert await client.ask(b"NOOP\r\n") == "250 Ok"
        assert await client.ask(b"XYZ\r\n") == "500 Error: command not recognized"


async def test_a_server_that_only_knows_helo_offers_nothing() -> None:
    async with MailServer(hello_only=True) as server, connected(server, hello=b"") as client:
        assert (await client.ask(b"EHLO me.test\r\n")).startswith("500")
        assert await client.ask(b"HELO me.test\r\n") == "250 mail.test"
        assert (await client.ask(b"MAIL FROM:<a@b.test> SIZE=1\r\n")).startswith("555")
        assert await client.codes(ENVELOPE + b"DATA\r\n", 3) == ["250", "250", "354"]
        await client.ask(b".\r\n")
        assert server.messages[0].helo == "me.test"


async def test_helo_after_ehlo_takes_the_extensions_back() -> None:
    async with MailServer() as server, connected(server) as client:
        await client.ask(b"HELO me.test\r\n")
        assert (await client.ask(b"MAIL FROM:<a@b.test> BODY=8BITMIME\r\n")).startswith("555")
        client.writer.write(b"BDAT 4 LAST\r\nQUIT")
        assert (await client.reply()).startswith("503")
        assert await client.ask(b"NOOP anything\r\n") == "250 2.0.0 Ok"


async def test_help_vrfy_and_expn_are_answered() -> None:
    async with MailServer(refuse={"no@d.test": "550 5.1.1 who?"}) as server, connected(server) as client:
        assert (await client.ask(b"HELP\r\n")).startswith("214 2.0.0 Commands: BDAT DATA EHLO")
        assert (await client.ask(b"VRFY c@d.test\r\n")).startswith("252 2.5.2")
        assert await client.ask(b"VRFY <no@d.test>\r\n") == "550 5.1.1 who?"
        assert await client.ask(b"EXPN list SMTPUTF8\r\n") == "250 2.1.5 <list>"
        assert (await client.ask(b"EXPN\r\n")).startswith("501")


# Order and syntax


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (b"EHLO\r\n", "501"),
        (b"MAIL FROM:<a@b.test>\r\n", "503"),
        (b"RCPT TO:<a@b.test>\r\n", "503"),
        (b"DATA\r\n", "503"),
        (b"BDAT 4 LAST\r\nDATA", "503"),
        (b"STARTTLS\r\n", "500"),
        (b"AUTH PLAIN AAA=\r\n", "500"),
        (b"LHLO me.test\r\n", "500"),
        (b"\r\n", "500"),
        (b"NO\xffOP\r\n", "500"),
        (b"NOOP a\rb\r\n", "500"),
        (b"NOOP\n", "500"),
        (b"NOOP " + b"x" * 100_000 + b"\r\n", "500"),
        (b"RSET now\r\n", "501"),
        (b"QUIT now\r\n", "501"),
    ],
)
async def test_before_ehlo_a_command_out_of_order_or_shape_is_refused(said: bytes, code: str) -> None:
    async with MailServer() as server, connected(server, hello=b"") as client:
        assert (await client.ask(said))[:3] == code
        assert await client.ask(b"NOOP\r\n") == "250 2.0.0 Ok"


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (b"MAIL\r\n", "501"),
        (b"MAIL FROM:a@b.test\r\n", "501"),
        (b"MAIL FROM: <a@b.test>\r\n", "501"),
        (b"MAIL TO:<a@b.test>\r\n", "501"),
        (b"MAIL FROM:<a@>\r\n", "501"),
        (b"MAIL FROM:<\xc3\xa9@b.test>\r\n", "553"),
        (b"MAIL FROM:<\xc3\xa9@b.test> SMTPUTF8\r\n", "250"),
        (b"MAIL FROM:<>\r\n", "250"),
        (b"MAIL FROM:<local>\r\n", "250"),
        (b'MAIL FROM:<"a> b"@c.test> BODY=7bit\r\n', "250"),
        (b"MAIL FROM:<a@b.test> BODY=BINARYMIME\r\n", "250"),
        (b"MAIL FROM:<a@b.test> BODY=16BIT\r\n", "501"),
        (b"MAIL FROM:<a@b.test> SIZE=x\r\n", "501"),
        (b"MAIL FROM:<a@b.test> SIZE\r\n", "501"),
        (b"MAIL FROM:<a@b.test> SIZE=1 SIZE=1\r\n", "501"),
        (b"MAIL FROM:<a@b.test> SMTPUTF8=yes\r\n", "501"),
        (b"MAIL FROM:<a@b.test> RET=SOME\r\n", "501"),
        (b"MAIL FROM:<a@b.test> ENVID=a+b\r\n", "501"),
        (b"MAIL FROM:<a@b.test> =\r\n", "501"),
        (b"MAIL FROM:<a@b.test> REQUIRETLS\r\n", "555"),
        (b"MAIL FROM:<a@b.test> PIPELINING\r\n", "555"),
        (b"MAIL FROM:<a@b.test> NOTIFY=NEVER\r\n", "555"),
    ],
)
async def test_mail_is_read_strictly(said: bytes, code: str) -> None:
    async with MailServer() as server, connected(server) as client:
        assert (await client.ask(said))[:3] == code


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (b"RCPT TO:<>\r\n", "501"),
        (b"RCPT TO:c@d.test\r\n", "501"),
        (b"RCPT TO:<@relay.test:c@d.test>\r\n", "250"),
        (b"RCPT TO:<\xc3\xa9@d.test>\r\n", "553"),
        (b"RCPT TO:<c@d.test> NOTIFY=NEVER\r\n", "250"),
        (b"RCPT TO:<c@d.test> NOTIFY=NEVER,DELAY\r\n", "501"),
        (b"RCPT TO:<c@d.test> ORCPT=c@d.test\r\n", "501"),
        (b"RCPT TO:<c@d.test> SIZE=1\r\n", "555"),
        (b"MAIL FROM:<a@b.test>\r\n", "503"),
        (b"DATA now\r\n", "501"),
        (b"DATA\r\n", "503"),
        (b"BDAT many\r\n", "501"),
        (b"BDAT 4 FIRST\r\n", "501"),
    ],
)
async def test_rcpt_and_the_content_are_read_strictly(said: bytes, code: str) -> None:
    async with MailServer() as server, connected(server) as client:
        await client.ask(b"MAIL FROM:<a@b.test>\r\n")
        assert (await client.ask(said))[:3] == code


async def test_a_source_route_is_left_out_of_the_address() -> None:
    async with MailServer() as server, connected(server) as client:
        group = b"MAIL FROM:<@x.test,@y.test:a@b.test>\r\nRCPT TO:<c@d.test>\r\nBDAT 0 LAST\r\n"
        await client.codes(group, 3)
        assert server.messages[0].sender == "a@b.test"


async def test_rset_ends_a_transaction_but_not_the_session() -> None:
    async with MailServer() as server, connected(server) as client:
        assert await client.codes(ENVELOPE + b"RSET\r\n" + ENVELOPE, 5) == ["250"] * 5


# Refusals


async def test_a_function_decides_who_is_refused() -> None:
    async with MailServer(refuse=lambda address: "450 4.2.1 later" if "x" in address else None) as server:
        async with connected(server) as client:
            await client.ask(b"MAIL FROM:<a@b.test>\r\n")
            assert await client.ask(b"RCPT TO:<x@d.test>\r\n") == "450 4.2.1 later"
            assert await client.ask(b"RCPT TO:<c@d.test>\r\n") == "250 2.1.5 Ok"


async def test_a_reply_that_says_yes_in_other_words_accepts() -> None:
    async with MailServer(refuse="251 2.1.5 will forward") as server, connected(server) as client:
        assert await client.codes(ENVELOPE + b"BDAT 0 LAST\r\n", 3) == ["250", "251", "250"]
        assert (await client.ask(b"VRFY c@d.test\r\n")).startswith("252")


async def test_a_refused_sender_leaves_no_transaction_open() -> None:
    async with MailServer(refuse_sender={"a@b.test": "550 5.7.1 not you"}) as server:
        async with connected(server) as client:
            assert await client.codes(ENVELOPE, 2) == ["550", "503"]


async def test_refused_content_is_not_kept() -> None:
    async with MailServer(refuse_content="554 5.7.1 spam") as server, connected(server) as client:
        await client.codes(ENVELOPE + b"DATA\r\n", 3)
        assert await client.ask(b"hello\r\n.\r\n") == "554 5.7.1 spam"
        assert server.messages == []


async def test_a_function_that_judges_content_sees_the_whole_message() -> None:
    def judge(message: ReceivedMessage) -> str | None:
        return "554 5.7.1 spam" if b"spam" in message.content else None

    async with MailServer(refuse_content=judge) as server, connected(server) as client:
        assert await client.codes(ENVELOPE + b"BDAT 4 LAST\r\nspam", 3) == ["250", "250", "554"]
        assert await client.codes(ENVELOPE + b"BDAT 4 LAST\r\nmeat", 3) == ["250", "250", "250"]
        assert [message.content for message in server.messages] == [b"meat"]


async def test_a_function_that_fails_is_answered_with_451_and_fails_the_test() -> None:
    def broken(address: str) -> str | None:
        raise LookupError(address)

    with pytest.raises(LookupError, match=r"c@d\.test"):
        async with MailServer(refuse=broken) as server, connected(server) as client:
            assert await client.codes(ENVELOPE, 2) == ["250", "451"]


async def test_a_failure_in_the_server_is_noted_on_the_error_that_is_already_raised() -> None:
    def broken(address: str) -> str | None:
        raise LookupError(address)

    with pytest.raises(ZeroDivisionError) as caught:
        async with MailServer(refuse=broken) as server, connected(server) as client:
            await client.codes(ENVELOPE, 2)
            raise ZeroDivisionError
    assert caught.value.__notes__ == ["and in the server: LookupError: c@d.test"]


async def test_a_failure_of_the_server_itself_closes_the_connection_and_fails_the_test() -> None:
    class Failing(MailServer):
        def next_queue_id(self) -> str:
            raise LookupError("no id")

    with pytest.raises(LookupError, match="no id"):
        async with Failing() as server, connected(server) as client:
            assert await client.codes(ENVELOPE + b"BDAT 0 LAST\r\n", 2) == ["250", "250"]
            assert await client.reader.read() == b""


# Size


async def test_an_announced_size_over_the_limit_is_refused_at_mail() -> None:
    async with MailServer(size_limit=10) as server, connected(server, hello=b"") as client:
        assert "SIZE 10" in await client.ask(b"EHLO me.test\r\n")
        assert (await client.ask(b"MAIL FROM:<a@b.test> SIZE=11\r\n")).startswith("552 5.3.4")
        assert (await client.ask(b"MAIL FROM:<a@b.test> SIZE=10\r\n")).startswith("250")


async def test_a_message_of_exactly_the_limit_is_taken_and_one_octet_more_is_not() -> None:
    async with MailServer(size_limit=10) as server, connected(server) as client:
        await client.codes(ENVELOPE + b"DATA\r\n", 3)
        assert (await client.ask(b"12345678\r\n.\r\n")).startswith("250")
        await client.codes(ENVELOPE + b"DATA\r\n", 3)
        assert (await client.ask(b"123456789\r\nand more\r\n.\r\n")).startswith("552 5.3.4")
        assert [message.content for message in server.messages] == [b"12345678\r\n"]


# BDAT


async def test_chunks_make_one_message() -> None:
    async with MailServer() as server, connected(server) as client:
        group = ENVELOPE + b"BDAT 3\r\n.\r\nBDAT 4\r\nQUIT" + b"BDAT 0 LAST\r\nNOOP\r\n"
        assert await client.codes(group, 6) == ["250"] * 6
        assert server.messages[0].content == b".\r\nQUIT"
        assert server.messages[0].chunked


async def test_a_refused_chunk_never_runs_as_commands() -> None:
    async with MailServer() as server, connected(server) as client:
        assert await client.codes(b"BDAT 8 LAST\r\nXPROBE\r\nRSET\r\n", 2) == ["503", "250"]
        assert server.commands[1:] == ["BDAT 8 LAST", "RSET"]


async def test_after_a_chunk_over_the_limit_every_other_is_read_and_refused_until_rset() -> None:
    async with MailServer(size_limit=5) as server, connected(server) as client:
        group = ENVELOPE + b"BDAT 6\r\nabcdefBDAT 1 LAST\r\ngRSET\r\n"
        assert await client.codes(group, 5) == ["250", "250", "552", "503", "250"]
        assert await client.codes(ENVELOPE + b"BDAT 6 LAST\r\nabcdef", 3) == ["250", "250", "552"]
        assert server.messages == []


async def test_data_and_chunks_do_not_mix() -> None:
    async with MailServer() as server, connected(server) as client:
        assert await client.codes(ENVELOPE + b"BDAT 1\r\nxDATA\r\n", 4) == ["250", "250", "250", "503"]
        assert await client.codes(b"RCPT TO:<x@d.test>\r\n", 1) == ["503"]
        await client.ask(b"RSET\r\n")
        binary = b"MAIL FROM:<a@b.test> BODY=BINARYMIME\r\nRCPT TO:<c@d.test>\r\nDATA\r\n"
        assert await client.codes(binary, 3) == ["250", "250", "503"]


# LMTP


LHLO = b"LHLO me.test\r\n"


async def test_lmtp_says_lhlo_and_answers_once_a_recipient_after_the_content() -> None:
    refusals = {NAMES[1]: "450 4.2.2 full", NAMES[3]: "550 5.2.1 gone"}
    async with MailServer(lmtp=True, refuse_after_content=refusals) as server:
        async with connected(server, hello=LHLO) as client:
            recipients = "".join(f"RCPT TO:<{name}>\r\n" for name in NAMES).encode()
            await client.codes(b"MAIL FROM:<a@b.test>\r\n" + recipients + b"DATA\r\n", 7)
            client.writer.write(b"hi\r\n.\r\n")
            replies = await client.replies(5)
    (message,) = server.messages
    assert [reply[:3] for reply in replies] == ["250", "450", "250", "550", "250"]
    assert replies[0] == f"250 2.1.5 <{NAMES[0]}> Ok: queued as {message.queue_id}"
    assert message.recipients == (NAMES[0], NAMES[2], NAMES[4])
    assert message.lmtp


async def test_lmtp_answers_once_a_recipient_after_the_last_chunk_too() -> None:
    async with MailServer(lmtp=True, refuse_after_content="450 4.2.2 full") as server:
        async with connected(server, hello=LHLO) as client:
            group = ENVELOPE + b"RCPT TO:<c@d.test>\r\nBDAT 1\r\nxBDAT 1 LAST\r\ny"
            assert await client.codes(group, 6) == ["250", "250", "250", "250", "450", "450"]
            assert server.messages == []


async def test_lmtp_refuses_too_large_content_for_each_recipient() -> None:
    async with MailServer(lmtp=True, size_limit=5) as server, connected(server, hello=LHLO) as client:
        await client.codes(ENVELOPE + b"RCPT TO:<e@f.test>\r\nDATA\r\n", 4)
        assert await client.codes(b"123456\r\n.\r\n", 2) == ["552", "552"]


async def test_lmtp_knows_neither_helo_nor_ehlo() -> None:
    async with MailServer(lmtp=True) as server, connected(server, hello=b"") as client:
        assert await client.codes(b"EHLO me.test\r\nHELO me.test\r\n", 2) == ["500", "500"]
        assert await client.ask(b"MAIL FROM:<a@b.test>\r\n") == "503 5.5.1 Error: send LHLO first"


# AUTH

USERS = {"jörg": "gehëim"}
USER, PASSWORD = "jörg".encode(), "gehëim".encode()
LOGIN = base64.b64encode(b"\0" + USER + b"\0" + PASSWORD)


async def test_plain_login_names_the_user_and_leaves_no_secret_in_the_commands() -> None:
    async with MailServer(users=USERS, require_auth=True) as server, connected(server) as client:
        assert (await client.ask(b"MAIL FROM:<a@b.test>\r\n")).startswith("530 5.7.0")
        assert (await client.ask(b"auth plain " + LOGIN + b"\r\n")).startswith("235 2.7.0")
        await client.codes(ENVELOPE + b"BDAT 0 LAST\r\n", 3)
        assert server.messages[0].user == "jörg"
        assert server.commands[2] == "auth plain ***"
        assert (await client.ask(b"AUTH PLAIN " + LOGIN + b"\r\n")).startswith("503")


async def test_login_exchanges_are_kept_masked() -> None:
    async with MailServer(users=USERS) as server, connected(server) as client:
        assert await client.ask(b"AUTH LOGIN\r\n") == "334 VXNlcm5hbWU6"
        assert await client.ask(base64.b64encode(USER) + b"\r\n") == "334 UGFzc3dvcmQ6"
        assert (await client.ask(base64.b64encode(PASSWORD) + b"\r\n")).startswith("235")
        assert server.commands == ["EHLO me.test", "AUTH LOGIN", "***", "***"]


@pytest.mark.parametrize(("password", "code"), [(PASSWORD, "235"), (b"wrong", "535")])
async def test_cram_md5_checks_the_digest(password: bytes, code: str) -> None:
    async with MailServer(users=USERS) as server, connected(server) as client:
        challenge = base64.b64decode((await client.ask(b"AUTH CRAM-MD5\r\n"))[4:])
        digest = hmac.new(password, challenge, hashlib.md5).hexdigest().encode()
        response = base64.b64encode(USER + b" " + digest)
        assert (await client.ask(response + b"\r\n"))[:3] == code


@pytest.mark.parametrize(
    ("said", "codes"),
    [
        (b"AUTH\r\n", ["504"]),
        (b"AUTH XOAUTH2 abc\r\n", ["504"]),
        (b"AUTH PLAIN a b\r\n", ["501"]),
        (b"AUTH PLAIN %%%\r\n", ["501"]),
        (b"AUTH PLAIN " + base64.b64encode(b"\0x\0y") + b"\r\n", ["535"]),
        (b"AUTH CRAM-MD5 abc\r\n", ["501"]),
        (b"AUTH CRAM-MD5\r\n*\r\n", ["334", "501"]),
        (b"AUTH PLAIN\r\n" + b"A" * 100_000 + b"\r\n", ["334", "500"]),
        (b"MAIL FROM:<a@b.test>\r\nAUTH PLAIN " + LOGIN + b"\r\n", ["250", "503"]),
        (b"HELO me.test\r\nAUTH PLAIN " + LOGIN + b"\r\n", ["250", "503"]),
    ],
)
async def test_auth_that_cannot_be_is_refused_and_the_session_goes_on(said: bytes, codes: list[str]) -> None:
    async with MailServer(users=USERS) as server, connected(server) as client:
        assert await client.codes(said, len(codes)) == codes
        assert await client.ask(b"NOOP\r\n") == "250 2.0.0 Ok"


async def test_only_the_mechanisms_asked_for_are_offered() -> None:
    options = {"users": USERS, "mechanisms": ["plain"]}
    async with MailServer(**options) as server, connected(server, hello=b"") as client:
        assert "AUTH PLAIN\r\n" in await client.ask(b"EHLO me.test\r\n") + "\r\n"
        assert (await client.ask(b"AUTH LOGIN\r\n")).startswith("504")


# TLS


async def _upgrade(client: Client, context: ssl.SSLContext) -> str:
    reply = await client.ask(b"STARTTLS\r\n")
    await client.writer.start_tls(context, server_hostname="localhost")
    return reply


async def test_starttls_protects_the_message_and_forgets_what_was_before() -> None:
    async with MailServer(starttls=True, users=USERS, auth_requires_tls=True) as server:
        async with connected(server, hello=b"") as client:
            offered = await client.ask(b"EHLO clear.test\r\n")
            assert "STARTTLS" in offered
            assert "AUTH" not in offered
            assert (await client.ask(b"AUTH PLAIN " + LOGIN + b"\r\n")).startswith("538 5.7.11")
            assert (await client.ask(b"STARTTLS now\r\n")).startswith("501")
            assert await _upgrade(client, AUTHORITY.client_context()) == "220 2.0.0 Ready to start TLS"
            assert (await client.ask(b"MAIL FROM:<a@b.test>\r\n")).startswith("503")
            offered = await client.ask(b"EHLO me.test\r\n")
            assert "STARTTLS" not in offered
            assert "AUTH CRAM-MD5 PLAIN LOGIN" in offered
            assert (await client.ask(b"STARTTLS\r\n")).startswith("503")
            assert (await client.ask(b"AUTH PLAIN " + LOGIN + b"\r\n")).startswith("235")
            await client.codes(ENVELOPE + b"BDAT 0 LAST\r\n", 3)
            message = server.messages[0]
            assert (message.tls, message.helo, message.user) == (True, "me.test", "jörg")


async def test_commands_injected_behind_starttls_are_thrown_away() -> None:
    async with MailServer(starttls=True) as server, connected(server) as client:
        client.writer.write(b"STARTTLS\r\nMAIL FROM:<injected@b.test>\r\n")
        await client.reply()
        await client.writer.start_tls(AUTHORITY.client_context(), server_hostname="localhost")
        assert (await client.ask(b"EHLO me.test\r\n")).startswith("250")
        assert server.commands == ["EHLO me.test", "STARTTLS", "EHLO me.test"]


async def test_implicit_tls_with_a_context_of_ones_own() -> None:
    async with MailServer(implicit_tls=AUTHORITY.server_context("localhost")) as server:
        async with connected(server) as client:
            await client.codes(ENVELOPE + b"BDAT 0 LAST\r\nQUIT\r\n", 4)
            assert server.messages[0].tls


@pytest.mark.parametrize("make", ["expired_context", "wrong_name_context", "untrusted_context"])
async def test_a_client_that_verifies_refuses_a_certificate_that_is_not_right(make: str) -> None:
    async with MailServer(starttls=getattr(AUTHORITY, make)()) as server, connected(server) as client:
        with pytest.raises(ssl.SSLCertVerificationError):
            await _upgrade(client, AUTHORITY.client_context())


def test_certificate_files_are_what_the_contexts_use(tmp_path: Path) -> None:
    files = AUTHORITY.write_to(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    assert files.ca.read_bytes() == AUTHORITY.ca_pem
    trusting = ssl.create_default_context(cafile=files.ca)
    with MailServer(implicit_tls=context) as server:
        with smtplib.SMTP_SSL(server.host, server.port, context=trusting, timeout=10) as client:
            assert client.noop()[0] == 250


# Where it listens, and what it leaves behind


async def test_a_unix_socket_is_listened_on_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "lmtp.sock"
    async with MailServer(lmtp=True, unix_path=path) as server, connected(server, hello=LHLO) as client:
        assert (server.host, server.port) == (str(path), 0)
        assert await client.codes(ENVELOPE + b"BDAT 0 LAST\r\n", 3) == ["250"] * 3
    assert not path.exists()


async def _scenario(tmp_path: Path) -> None:
    """Each way to be connected when the server is left."""
    for options in ({}, {"starttls": True}, {"implicit_tls": True}, {"unix_path": tmp_path / "smtp.sock"}):
        async with MailServer(**options) as server:
            async with connected(server) as client:
                if "starttls" in options:
                    await _upgrade(client, AUTHORITY.client_context())
                    await client.ask(b"EHLO me.test\r\n")
                assert await client.codes(ENVELOPE + b"DATA\r\n", 3) == ["250", "250", "354"]
                assert await client.codes(b"hi\r\n.\r\n", 1) == ["250"]
            assert len(await server.wait_for(1)) == 1
    await _left_open()
    await _left_open_inside_tls()
    await _left_in_a_handshake()


async def _left_open() -> None:
    async with MailServer() as server:
        idle = await asyncio.open_connection(server.host, server.port)
        await idle[0].readline()
        sending = await asyncio.open_connection(server.host, server.port)
        sending[1].write(b"EHLO me.test\r\n" + ENVELOPE + b"DATA\r\nhalf a message")
        await sending[0].readuntil(b"354 End data with <CR><LF>.<CR><LF>\r\n")
    for reader, writer in (idle, sending):
        await _end(reader, writer)
    assert server.messages == []


async def _left_open_inside_tls() -> None:
    """A client that does not answer the server's close_notify."""
    async with MailServer(implicit_tls=True) as server:
        reader, writer = await asyncio.open_connection(
            server.host, server.port, ssl=AUTHORITY.client_context(), server_hostname="localhost"
        )
        await reader.readline()
        writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.transport.resume_reading()  # type: ignore[attr-defined]
    await _end(reader, writer)


async def _left_in_a_handshake() -> None:
    async with MailServer(implicit_tls=True) as server:
        reader, writer = await asyncio.open_connection(server.host, server.port)
        writer.write(b"\x16\x03\x01")
        while not server.connections:
            await asyncio.sleep(0)
    await _end(reader, writer)


async def _end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        await reader.read()
    await _close(writer)


def _loops() -> list[Callable[[], asyncio.AbstractEventLoop] | None]:
    try:
        import uvloop
    except ImportError:
        return [None]
    return [None, uvloop.new_event_loop]


@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
@pytest.mark.parametrize("factory", _loops(), ids=["asyncio", "uvloop"][: len(_loops())])
def test_no_task_socket_or_warning_is_left_behind(
    factory: Callable[[], asyncio.AbstractEventLoop] | None, debug: bool, tmp_path: Path
) -> None:
    async def scenario() -> None:
        await _scenario(tmp_path)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with asyncio.Runner(loop_factory=factory) as runner:  # uvloop keeps what its first loop opens
        runner.run(asyncio.sleep(0))
    gc.collect()
    before = len(os.listdir("/dev/fd"))
    with asyncio.Runner(loop_factory=factory, debug=debug) as runner:
        runner.run(scenario())
    gc.collect()
    assert len(os.listdir("/dev/fd")) == before


async def test_a_client_that_resets_is_no_failure_of_the_server() -> None:
    async with MailServer() as server:
        async with connected(server) as client:
            raw = client.writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            client.writer.transport.abort()
    assert server.failures == []


async def test_leaving_a_server_that_never_started_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(AssertionError, match="never started"):
        await MailServer().__aexit__(None, None, None)
    with pytest.raises(AssertionError, match="never entered"):
        MailServer().__exit__(None, None, None)


# In a thread


def test_blocking_code_is_served_by_a_thread_that_ends_with_the_server() -> None:
    with MailServer(users={"u": "p"}) as server:
        with smtplib.SMTP(server.host, server.port, timeout=10) as client:
            client.login("u", "p")
            assert client.sendmail("a@b.test", ["c@d.test"], b"Subject: x\r\n\r\n.dot\r\n") == {}
        (message,) = server.wait(1)
        thread = server._thread
    assert message.content == b"Subject: x\r\n\r\n.dot\r\n"
    assert message.user == "u"
    assert thread is not None
    assert not thread.is_alive()


def test_blocking_code_does_not_wait_for_ever() -> None:
    with MailServer() as server:
        with pytest.raises(TimeoutError):
            server.wait(1, timeout=0.01)


async def test_waiting_as_blocking_code_does_is_refused_without_a_thread() -> None:
    async with MailServer() as server:
        with pytest.raises(RuntimeError, match="wait_for"):
            server.wait(1)


def test_an_address_that_cannot_be_listened_on_is_told_to_the_blocking_caller(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        with MailServer(unix_path=tmp_path / "no folder" / "socket"):
            pass


def test_a_failure_while_the_thread_ends_reaches_the_blocking_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(MailServer):
        async def _stop(self) -> None:
            await super()._stop()
            raise LookupError("late")

    with pytest.raises(LookupError, match="late"):
        with Failing():
            pass


def test_several_failures_are_raised_together() -> None:
    def broken(address: str) -> str | None:
        raise LookupError(address)

    with pytest.raises(ExceptionGroup) as caught:
        with MailServer(refuse=broken) as server:
            with smtplib.SMTP(server.host, server.port, timeout=10) as client:
                client.ehlo()
                client.mail("a@b.test")
                assert [client.rcpt(name)[0] for name in NAMES[:2]] == [451, 451]
    assert [str(error) for error in caught.value.exceptions] == NAMES[:2]


# The package


@pytest.mark.parametrize(
    ("module", "missing", "others"),
    [
        ("server", "aiosmtpd.smtp", ["transactions", "esmtp"]),
        ("certificates", "trustme", []),
    ],
)
def test_a_missing_package_names_the_extra_that_brings_it(
    module: str, missing: str, others: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [module, *others]:
        monkeypatch.delitem(sys.modules, f"aiosmtpclient.testing.{name}")
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=r'pip install "aiosmtpclient\[testing\]"'):
        importlib.import_module(f"aiosmtpclient.testing.{module}")


def test_the_package_names_what_it_has() -> None:
    assert set(aiosmtpclient.testing.__all__) <= set(dir(aiosmtpclient.testing))
    assert all(getattr(aiosmtpclient.testing, name) for name in aiosmtpclient.testing.__all__)
    with pytest.raises(AttributeError, match="NoSuchServer"):
        _ = aiosmtpclient.testing.NoSuchServer  # type: ignore[attr-defined]
