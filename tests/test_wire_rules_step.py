"""The wire rules: staying in step with the server, or leaving it."""

from __future__ import annotations

import asyncio
import gc

import pytest
from wire import (
    FAULTS,
    GO,
    LONG,
    NEXT,
    OK,
    SENDER,
    SHORT,
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
    take,
    verbs,
    wait_for,
)

from aiosmtpclient import (
    AsyncLMTP,
    AsyncSMTP,
    Delivery,
    SMTPAuthenticationError,
    SMTPConnectError,
    SMTPDataError,
    SMTPException,
    SMTPHeloError,
    SMTPProtocolError,
    SMTPRecipientsRefused,
    SMTPSenderRefused,
    SMTPServerDisconnected,
    SMTPTimeoutError,
    SMTPTLSError,
)
from aiosmtpclient.testing import Conversation, ScriptedServer
from aiosmtpclient.testing.scripted import close, expect_content, greeting, read_all, say, split, stall

NEXT_CONNECTION = [*hello(), *take(NEXT), *bye()]


async def until_lost(smtp: AsyncSMTP) -> None:
    """Let the loop turn until the client knows that its connection is of no use."""
    while smtp.is_connected:
        await asyncio.sleep(0)


async def assert_reconnects(smtp: AsyncSMTP, *, connect: bool = False) -> None:
    """The next message is sent on a new connection, made by itself unless its user did something by hand."""
    assert not smtp.is_connected
    if connect:
        await smtp.connect()
    assert (await send(smtp, NEXT)).accepted == (NEXT,)
    await smtp.quit()


# -- 1: nothing owed, nothing read -----------------------------------------------------------


@each_loop
async def test_a_stray_421_closes_the_connection_and_explains_the_next_error():
    """A stray 421 marks the connection closed, and its text is kept for the error."""
    idle = asyncio.Event()
    script = [*hello(), wait_for(idle), b"421 4.3.2 shutting down\r\n", read_all()]
    async with ScriptedServer(script, NEXT_CONNECTION) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        idle.set()
        await until_lost(smtp)
        error = await caught(smtp.noop())
        assert isinstance(error, SMTPServerDisconnected)
        assert error.last_reply == (421, b"4.3.2 shutting down")
        assert "shutting down" in str(error)
        await server.conversations[0].gone.wait()
        assert verbs(server.received[0]) == ["EHLO"]
        await assert_reconnects(smtp)


async def test_a_client_thrown_away_after_a_stray_421_leaves_no_socket_behind():
    """Closed means closed, though the server keeps its end open."""
    idle = asyncio.Event()
    async with ScriptedServer([*hello(), wait_for(idle), b"421 bye\r\n", read_all()]) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        idle.set()
        await until_lost(smtp)
        del smtp
        gc.collect()
        await server.conversations[0].gone.wait()


@each_loop
@pytest.mark.parametrize("stray", [b"250 hi\r\n", b"25", b"\r\n", b"hello\r\n", b"\0"])
async def test_octets_that_nobody_asked_for_are_never_taken_for_a_reply(stray):
    """Any other octet when nothing is owed is a protocol error, and the connection is dropped."""
    idle = asyncio.Event()
    async with ScriptedServer([*hello(), wait_for(idle), stray, read_all()], NEXT_CONNECTION) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        idle.set()
        await until_lost(smtp)
        error = await caught(smtp.noop())
        assert isinstance(error, SMTPProtocolError)
        assert error.smtp_code == -1
        await server.conversations[0].gone.wait()
        assert verbs(server.received[0]) == ["EHLO"]
        await assert_reconnects(smtp)


# -- 2: pairing ------------------------------------------------------------------------------


@each_loop
@pytest.mark.parametrize("extensions", [(), ("PIPELINING",)], ids=["lock-step", "pipelined"])
async def test_replies_go_to_the_recipients_by_position_whatever_they_say(extensions):
    """Pairing is by count, never by code or text."""
    script = [
        *hello(*extensions),
        *("MAIL", b"250 2.1.5 <%s> ok\r\n" % TOO.encode()),
        *("RCPT", b"250 550 <%s> no such user\r\n" % TOO.encode()),
        *("RCPT", b"550-250 ok\r\n550 <%s> 250 ok\r\n" % TO.encode()),
        *("RCPT", b"251 354 go\r\n"),
        *("DATA", GO, expect_content(), OK),
        *bye(),
    ]
    async with ScriptedServer(script) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            result = await send(smtp, TO, TOO, NEXT)
        assert deliveries(result) == [Delivery.ACCEPTED, Delivery.REFUSED, Delivery.ACCEPTED]
        assert list(result) == [TOO]


@each_loop
async def test_a_reply_that_comes_before_its_command_is_not_its_reply():
    """A reply pairs with a command written before the reply's first octet."""
    script = [greeting(), "EHLO", b"250 mail.test\r\n250 MAIL is fine already\r\n", read_all()]
    async with ScriptedServer(script) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        error = await caught(smtp.mail(SENDER))
        assert isinstance(error, SMTPProtocolError)
        await server.conversations[0].gone.wait()
        assert verbs(server.received[0]) == ["EHLO"]


@each_loop
async def test_an_extra_reply_in_a_group_does_not_reach_the_next_message():
    """What is one too many breaks the connection at the moment when nothing is owed."""
    script = [
        *hello("PIPELINING"),
        *("MAIL", b"250 ok\r\n250 one too many\r\n", "RCPT", OK, "DATA", GO),
        read_all(),
    ]
    async with ScriptedServer(script, NEXT_CONNECTION) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        error = await caught(send(smtp))
        assert isinstance(error, SMTPProtocolError)
        assert error.delivery is Delivery.NOT_SENT
        await server.conversations[0].gone.wait()
        assert b"Subject" not in server.received[0]
        await assert_reconnects(smtp)


# -- 3: never reused without proof -----------------------------------------------------------

VERBS = {
    "noop": lambda smtp: smtp.noop(),
    "rset": lambda smtp: smtp.rset(),
    "ehlo": lambda smtp: smtp.ehlo(),
    "helo": lambda smtp: smtp.helo(),
    "help": lambda smtp: smtp.help(),
    "verify": lambda smtp: smtp.verify(TO),
    "expn": lambda smtp: smtp.expn(TO),
    "mail": lambda smtp: smtp.mail(SENDER),
    "docmd": lambda smtp: smtp.docmd("XYZZY"),
    "login": lambda smtp: smtp.login("user", "open sesame"),
    "auth": lambda smtp: smtp.auth("PLAIN", lambda challenge=None: "x"),
    "starttls": lambda smtp: smtp.starttls(),
    "quit": lambda smtp: smtp.quit(),
}


@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("verb", VERBS)
async def test_a_late_reply_is_never_taken_for_the_next_command(verb, kind):
    """After a timeout, a malformed reply, a cancel with a reply owed: dropped."""
    reached = asyncio.Event()
    script = [*hello("AUTH PLAIN", "STARTTLS"), "", *fault(kind, reached)]
    async with ScriptedServer(script, NEXT_CONNECTION) as server:
        smtp = AsyncSMTP(server.host, server.port, timeout=patience(kind))
        await smtp.connect()
        error = await suffer(VERBS[verb](smtp), kind, reached)
        assert isinstance(error, asyncio.CancelledError if kind == "cancel" else SMTPException)
        await assert_reconnects(smtp, connect=verb in ("login", "auth", "starttls", "quit"))


@each_loop
async def test_an_error_of_the_callers_own_code_inside_a_transaction_drops_the_connection():
    """An error raised in the middle of a transaction, here by a trace."""

    def trace(event: str, octets: bytes) -> None:
        if octets.startswith(b"RCPT"):
            raise ZeroDivisionError

    script = [*hello(), "MAIL", OK, read_all()]
    async with ScriptedServer(script, NEXT_CONNECTION) as server:
        smtp = AsyncSMTP(server.host, server.port, trace=trace)
        await smtp.connect()
        error = await caught(send(smtp))
        assert isinstance(error, ZeroDivisionError)
        assert error.delivery is Delivery.NOT_SENT
        assert not smtp.is_connected
        await server.conversations[0].gone.wait()


# -- 4: see the rows of section 1; here what they do not show --------------------------------


@each_loop
async def test_cancelled_between_the_354_and_the_content_sends_neither_dot_nor_rset():
    """Cancelled after DATA was written: what we said next would be message text."""
    script = [*hello(), *envelope(TO), "DATA", GO, read_all()]
    async with ScriptedServer(script) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        task = asyncio.create_task(caught(send(smtp)))

        def cancel_at(event: str, octets: bytes) -> None:
            if octets == GO:
                task.cancel()

        smtp._connection.session._trace = cancel_at
        error = await task
        assert isinstance(error, asyncio.CancelledError)
        assert error.delivery is Delivery.NOT_SENT
        await server.conversations[0].gone.wait()
        assert server.received[0].endswith(b"DATA\r\n")


# -- 5: the grammar of replies ---------------------------------------------------------------


@each_loop
@pytest.mark.parametrize(
    "reply",
    [
        b"250ok\r\n",
        b"2500 ok\r\n",
        b"2_5 ok\r\n",
        b"+25 ok\r\n",
        b"\r\n",
        b" 250 ok\r\n",
        b"199 ok\r\n",
        b"600 ok\r\n",
        b"250-ok\r\n251 ok\r\n",
        b"250-ok\r\nok\r\n",
        b"\xd9\xa2\xd9\xa5\xd9\xa0 ok\r\n",
    ],
)
async def test_what_is_no_reply_is_no_answer(reply):
    """Anything but `[2-5]` digit digit and a space, `-` or the end breaks the protocol: dropped."""
    async with ScriptedServer([*hello(), "NOOP", split(reply), read_all()], NEXT_CONNECTION) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        error = await caught(smtp.noop())
        assert isinstance(error, SMTPProtocolError)
        assert error.command == "NOOP"
        await assert_reconnects(smtp)


@each_loop
@pytest.mark.parametrize("how", [say, split])
@pytest.mark.parametrize(
    ("reply", "understood"),
    [
        (b"250\r\n", (250, b"")),
        (b"250 \r\n", (250, b"")),
        (b"250 ok\n", (250, b"ok")),
        (b"250-a\n250-\r\n250 c\r\n", (250, b"a\n\nc")),
        (b"250-a\r\n250\r\n", (250, b"a\n")),
    ],
)
async def test_a_reply_is_the_same_in_one_piece_and_byte_by_byte(how, reply, understood):
    """A reply without text is fine, CRLF or bare LF may end a line, wherever segments end."""
    async with ScriptedServer([*hello(), "NOOP", how(reply), *bye()]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            assert await smtp.noop() == understood


@each_loop
async def test_a_server_that_writes_byte_by_byte_delivers_all_the_same():
    """A whole session in segments of one octet."""
    script = [split(b"220 hi\r\n"), "EHLO", split(b"250-mail.test\r\n250 PIPELINING\r\n")]
    replies = b"250 ok\r\n550 no\r\n250 ok\r\n354 go\r\n"
    script += ["MAIL", "RCPT", "RCPT", "DATA", split(replies), expect_content(), split(OK)]
    script += ["QUIT", split(b"221 bye\r\n")]
    async with ScriptedServer(script) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            result = await send(smtp, TO, TOO)
        assert deliveries(result) == [Delivery.REFUSED, Delivery.ACCEPTED]


# -- 6: caps ---------------------------------------------------------------------------------


@each_loop
@pytest.mark.parametrize("endless", [b"250-" + b"x" * 1000 + b"\r\n", b"x" * 1000], ids=["lines", "one line"])
async def test_a_server_that_never_stops_talking_is_left(endless):
    """The octets of a line and of a whole reply are capped, so memory stays bounded."""
    said = 0

    async def babble(conversation: Conversation) -> None:
        nonlocal said
        await conversation.say(b"250-")
        while not conversation.gone.is_set():
            await conversation.say(endless * 16)
            said += len(endless) * 16
            await asyncio.sleep(0)

    async with ScriptedServer([*hello(), "NOOP", babble], NEXT_CONNECTION) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        error = await caught(smtp.noop())
        assert isinstance(error, SMTPProtocolError)
        assert "more than" in str(error)
        assert len(str(error)) < 500
        await server.conversations[0].gone.wait()
        assert said < 20_000_000
        await assert_reconnects(smtp)


@pytest.mark.parametrize("line", [8192, 8193])
async def test_a_reply_line_may_have_8_kib_and_no_more(line):
    """The caps at their edge."""
    reply = b"250 " + b"x" * (line - 4) + b"\r\n"
    async with ScriptedServer(
        [*hello(), "NOOP", reply, *(bye() if line == 8192 else [read_all()])]
    ) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            if line == 8192:
                assert (await smtp.noop()).code == 250
            else:
                with pytest.raises(SMTPProtocolError):
                    await smtp.noop()


async def test_a_challenge_may_be_longer_than_any_other_reply():
    """16 KiB while a SASL challenge is owed (and 12288 octets of it are read)."""
    challenge = b"334 " + b"QUFB" * 3072 + b"\r\n"
    script = [*hello("AUTH XAMPLE"), "AUTH XAMPLE", challenge, "T0s=", b"235 in\r\n", *bye()]
    async with ScriptedServer(script) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            seen = []

            def answer(challenge: bytes | None = None) -> str | None:
                seen.append(challenge)
                return None if challenge is None else "OK"

            assert (await smtp.auth("XAMPLE", answer)).code == 235
        assert seen == [None, b"AAA" * 3072]


@each_loop
@pytest.mark.parametrize("piece", [b"2", b"250-still here\r\n"], ids=["octets", "lines"])
async def test_a_byte_now_and_then_does_not_keep_a_reply_alive(piece):
    """One absolute deadline a reply."""

    async def dribble(conversation: Conversation) -> None:
        if piece == b"2":
            await conversation.say(b"250 ")
        while not conversation.gone.is_set():
            await conversation.say(piece)
            await asyncio.sleep(SHORT / 10)  # time is what this is about

    async with ScriptedServer([*hello(), "NOOP", dribble]) as server:
        smtp = AsyncSMTP(server.host, server.port, timeout=SHORT)
        await smtp.connect()
        started = asyncio.get_running_loop().time()
        error = await caught(smtp.noop())
        assert isinstance(error, SMTPTimeoutError)
        assert error.phase == "NOOP"
        assert asyncio.get_running_loop().time() - started < SHORT * 5
        assert not smtp.is_connected
        await server.conversations[0].gone.wait()


# -- 7: the first digit decides --------------------------------------------------------------


@each_loop
@pytest.mark.parametrize("extensions", [(), ("PIPELINING",)], ids=["lock-step", "pipelined"])
async def test_the_body_never_follows_a_2yz_to_data(extensions):
    """2yz to DATA is a protocol error, and the body is never sent."""
    script = [*hello(*extensions), *envelope(TO), "DATA", b"250 go on\r\n", read_all()]
    async with ScriptedServer(script, NEXT_CONNECTION) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        error = await caught(send(smtp))
        assert isinstance(error, SMTPProtocolError)
        assert (error.smtp_code, error.command, error.delivery) == (250, "DATA", Delivery.NOT_SENT)
        await server.conversations[0].gone.wait()
        assert server.received[0].endswith(b"DATA\r\n")
        await assert_reconnects(smtp)


@each_loop
@pytest.mark.parametrize("at", ["MAIL", "RCPT"])
@pytest.mark.parametrize("extensions", [(), ("PIPELINING",)], ids=["lock-step", "pipelined"])
async def test_a_3yz_to_mail_or_rcpt_is_no_yes(extensions, at):
    """3yz to MAIL or RCPT is a protocol error, and dropped."""
    odd = {at: b"354 go on\r\n"}
    script = [*hello(*extensions), "MAIL", odd.get("MAIL", OK)]
    if at == "RCPT" or extensions:
        script += ["RCPT", odd.get("RCPT", OK)]
    if extensions:
        script += ["DATA", GO]
    async with ScriptedServer([*script, read_all()], NEXT_CONNECTION) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        error = await caught(send(smtp))
        assert isinstance(error, SMTPProtocolError)
        assert (error.smtp_code, error.command, error.delivery) == (354, at, Delivery.NOT_SENT)
        await server.conversations[0].gone.wait()
        assert b"Subject" not in server.received[0]
        assert b".\r\n" not in server.received[0].replace(b"test>\r\n", b"")
        await assert_reconnects(smtp)


async def test_any_2yz_and_any_3yz_will_do():
    """The first digit decides where the RFC does not name one code."""
    script = [*hello(), "MAIL", b"200 ok\r\n", "RCPT", b"259 ok\r\n", "DATA", b"399 go\r\n"]
    script += [expect_content(), b"299 ok\r\n", "RSET", b"251 ok\r\n", "QUIT", b"250 bye\r\n"]
    async with ScriptedServer(script) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            assert (await send(smtp)).reply.code == 299
            assert (await smtp.rset()).code == 251


@pytest.mark.parametrize(
    ("script", "kind", "code"),
    [
        pytest.param([b"250 hi\r\n", *bye()], SMTPConnectError, 250, id="greeting"),
        pytest.param([greeting(), "EHLO", b"251 hi\r\n", read_all()], SMTPProtocolError, 251, id="EHLO 2yz"),
        pytest.param([greeting(), "EHLO", b"354 hi\r\n", read_all()], SMTPProtocolError, 354, id="EHLO 3yz"),
        pytest.param(
            [greeting(), "EHLO", b"502 no\r\n", "HELO", b"220 hi\r\n", read_all()],
            SMTPProtocolError,
            220,
            id="HELO",
        ),
        pytest.param(
            [*hello("STARTTLS"), "STARTTLS", b"250 go\r\n", read_all()],
            SMTPProtocolError,
            250,
            id="STARTTLS 2yz",
        ),
        pytest.param(
            [*hello("STARTTLS"), "STARTTLS", b"334 go\r\n", read_all()],
            SMTPProtocolError,
            334,
            id="STARTTLS 3yz",
        ),
    ],
)
async def test_where_one_code_is_named_another_will_not_do(script, kind, code):
    """Exact are the greeting, EHLO, HELO and STARTTLS."""
    async with ScriptedServer(script) as server:
        smtp = AsyncSMTP(server.host, server.port, tls="opportunistic")
        error = await caught(smtp.connect())
        assert isinstance(error, kind)
        assert error.smtp_code == code
        assert not smtp.is_connected


@pytest.mark.parametrize("code", [220, 250, 354])
async def test_only_235_lets_us_in(code):
    """AUTH has two good answers, 334 and 235."""
    script = [*hello("AUTH PLAIN"), "AUTH PLAIN", b"%d fine\r\n" % code, read_all()]
    async with ScriptedServer(script) as server:
        smtp = AsyncSMTP(server.host, server.port, username="u", password="p")
        error = await caught(smtp.connect())
        assert isinstance(error, SMTPProtocolError)
        assert not isinstance(error, SMTPAuthenticationError)
        assert error.smtp_code == code


# -- 8: 421 anywhere -------------------------------------------------------------------------

WITH_421 = {
    "MAIL": (SMTPSenderRefused, 1),
    "first RCPT": (SMTPRecipientsRefused, 3),
    "second RCPT": (SMTPRecipientsRefused, 5),
    "DATA": (SMTPDataError, 7),
    "end": (SMTPDataError, 10),
}


@each_loop
@pytest.mark.parametrize("at", WITH_421)
@pytest.mark.parametrize("extensions", [(), ("PIPELINING",)], ids=["lock-step", "pipelined"])
async def test_a_421_refuses_the_open_transaction_for_now(extensions, at):
    """Temporarily refused with that reply, every recipient named, the connection closed."""
    kind, cut = WITH_421[at]
    steps = [*envelope(TO, TOO), "DATA", GO, expect_content()]
    script = [*hello(*extensions), *steps[:cut], b"421 4.3.0 going down\r\n", read_all()]
    async with ScriptedServer(script, NEXT_CONNECTION) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        error = await caught(send(smtp, TO, TOO))
        assert type(error) is kind
        assert error.temporary
        assert error.delivery is Delivery.REFUSED
        assert [(o.address, o.delivery, o.reply.code) for o in error.outcomes] == [
            (TO, Delivery.REFUSED, 421),
            (TOO, Delivery.REFUSED, 421),
        ]
        await server.conversations[0].gone.wait()
        assert b"QUIT" not in server.received[0]
        assert b"RSET" not in server.received[0]
        await assert_reconnects(smtp)


@each_loop
async def test_a_421_keeps_what_was_refused_before_it():
    """Results so far are kept."""
    script = [*hello("PIPELINING"), "MAIL", OK, "RCPT", b"550 no\r\n", "RCPT", b"421 bye\r\n", read_all()]
    async with ScriptedServer(script) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        error = await caught(send(smtp, TO, TOO))
        assert isinstance(error, SMTPRecipientsRefused)
        assert {address: reply.code for address, reply in error.recipients.items()} == {TO: 550, TOO: 421}


@each_loop
@pytest.mark.parametrize("verb", ["noop", "rset", "mail", "verify", "docmd", "help", "quit"])
async def test_a_421_to_a_verb_is_returned_and_closes(verb):
    """A verb returns what the server said, and the connection is closed."""
    async with ScriptedServer([*hello(), "", b"421 bye\r\n", read_all()], NEXT_CONNECTION) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        reply = await VERBS[verb](smtp)
        assert reply == (b"bye" if verb == "help" else (421, b"bye"))
        await server.conversations[0].gone.wait()
        await assert_reconnects(smtp, connect=verb == "quit")


# -- 9: enhanced codes -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "code"),
    [(b"5.7.1 no", (5, 7, 1)), (b"2.0.0 ok", None), (b"4.7.1 later", None), (b"5.7 no", None)],
)
async def test_an_enhanced_code_of_another_class_is_only_text(text, code):
    """An enhanced code only if its class matches the first digit."""
    async with ScriptedServer([*hello(), "NOOP", b"550 " + text + b"\r\n", *bye()]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            assert (await smtp.noop()).enhanced_code == code


# -- 10: hello -------------------------------------------------------------------------------


@each_loop
async def test_a_server_before_esmtp_is_greeted_with_helo():
    """EHLO refused with 5yz → HELO."""
    script = [greeting(), "EHLO", b"502 what?\r\n", "HELO", b"250 hi\r\n", *take(TO), *bye()]
    async with ScriptedServer(script) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            assert (smtp.does_esmtp, smtp.helo_resp, dict(smtp.extensions)) == (False, b"hi", {})
            await smtp.sendmail(SENDER, TO, b"x", ["BODY=8BITMIME"], ["NOTIFY=NEVER"])
        assert f"MAIL FROM:<{SENDER}>\r\n".encode() in server.received[0]
        assert f"RCPT TO:<{TO}>\r\n".encode() in server.received[0]


@each_loop
@pytest.mark.parametrize(
    ("after_ehlo", "options", "kind"),
    [
        pytest.param([b"421 bye\r\n"], {}, SMTPHeloError, id="421"),
        pytest.param([b"450 later\r\n", *bye()], {}, SMTPHeloError, id="4yz"),
        pytest.param([close()], {}, SMTPServerDisconnected, id="closed"),
        pytest.param([b"502 what?\r\n", *bye()], {"tls": "starttls"}, SMTPException, id="TLS by policy"),
        pytest.param(
            [b"502 what?\r\n", *bye()], {"username": "u", "password": "p"}, SMTPException, id="credentials"
        ),
    ],
)
async def test_helo_is_never_said_where_it_would_cost_something(after_ehlo, options, kind):
    """No HELO after 421 or a close, none where TLS or credentials wait."""
    async with ScriptedServer([greeting(), "EHLO", *after_ehlo, read_all()]) as server:
        error = await caught(AsyncSMTP(server.host, server.port, **options).connect())
        assert isinstance(error, kind)
        await server.conversations[0].gone.wait()
        assert b"HELO" not in server.received[0]


@pytest.mark.parametrize("code", [500, 502, 421])
async def test_lmtp_never_says_ehlo_or_helo(code):
    """Never in LMTP."""
    async with ScriptedServer(
        [greeting(), "LHLO", b"%d no\r\n" % code, *([read_all()] if code == 421 else bye())]
    ) as server:
        error = await caught(AsyncLMTP(server.host, server.port).connect())
        assert isinstance(error, SMTPHeloError)
        await server.conversations[0].gone.wait()
        assert not {"EHLO", "HELO"} & set(verbs(server.received[0]))


async def test_keywords_are_read_exactly_and_from_the_second_line_on():
    """The greeting's text promises nothing; `STARTTLS_LATER` is not STARTTLS; junk is ignored."""
    lines = (
        b"250-PIPELINING at your service\r\n250-STARTTLS_LATER\r\n250-SIZE lots\r\n250-8bitmime\r\n250 =\r\n"
    )
    async with ScriptedServer([greeting(), "EHLO", lines, *bye()]) as server:
        async with AsyncSMTP(server.host, server.port, tls="opportunistic") as smtp:
            assert set(smtp.extensions) == {"size", "8bitmime"}
            assert smtp.extensions.size_limit is None
            assert smtp.has_extn("8BITMIME")


async def test_the_newest_ehlo_replaces_everything():
    """What an earlier EHLO offered is gone, also when the newest was refused."""
    script = [*hello("PIPELINING", "SIZE 10"), "EHLO", b"250-x\r\n250 DSN\r\n", "EHLO", b"502 no\r\n", *bye()]
    async with ScriptedServer(script) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            await smtp.ehlo()
            assert set(smtp.esmtp_features) == {"dsn"}
            assert (await smtp.ehlo()).code == 502
            assert smtp.esmtp_features == {}
            assert not smtp.does_esmtp


@pytest.mark.parametrize("policy", ["starttls", "implicit"])
async def test_a_tls_policy_that_waits_for_a_server_in_vain_says_what_it_waited_for(policy):
    """The timeout names the phase."""
    reached = asyncio.Event()
    script = [*(hello("STARTTLS") if policy == "starttls" else []), mark(reached), stall()]
    async with ScriptedServer(script) as server:
        error = await caught(AsyncSMTP(server.host, server.port, tls=policy, timeout=SHORT).connect())
        assert isinstance(error, SMTPTimeoutError)
        assert not isinstance(error, SMTPTLSError)
        assert error.phase == ("STARTTLS" if policy == "starttls" else "connect")


@each_loop
async def test_two_hundred_tasks_on_one_client_get_each_their_own_result():
    """Each message to its own recipients, each result to its own caller."""
    from aiosmtpclient.testing import MailServer

    refused = {f"r{number}@to.test": f"550 no {number}" for number in range(0, 200, 7)}
    async with MailServer(refuse=refused) as server:
        async with AsyncSMTP(server.host, server.port, timeout=LONG) as smtp:

            async def one(number: int) -> object:
                mine = f"r{number}@to.test"
                try:
                    result = await smtp.sendmail(f"s{number}@from.test", [mine], f"Subject: {number}\r\n\r\n")
                except SMTPRecipientsRefused as error:
                    return (mine, error.recipients[mine].message)
                assert result.accepted == (mine,)
                return (mine, result.reply)

            async def other(number: int) -> object:
                verb = (smtp.noop, smtp.rset, smtp.help)[number % 3]
                return await verb()

            results = await asyncio.gather(*map(one, range(200)), *map(other, range(60)))
        for number, (mine, said) in enumerate(results[:200]):
            assert mine == f"r{number}@to.test"
            if mine in refused:
                assert said == b"no %d" % number
        assert len(server.messages) == 200 - len(refused)
        for message in server.messages:
            number = message.message["Subject"]
            assert (message.sender, message.recipients) == (f"s{number}@from.test", (f"r{number}@to.test",))
        for number, (mine, said) in enumerate(results[:200]):
            if mine not in refused:
                queue_id = said.text.rpartition(" ")[2]
                [message] = [one for one in server.messages if one.queue_id == queue_id]
                assert message.message["Subject"] == str(number)
        assert server.connections == 1


@each_loop
async def test_tasks_cancelled_at_random_moments_never_hand_a_reply_to_somebody_else():
    """Every other task is cancelled, at another point each; those that remain are right."""
    from aiosmtpclient.testing import MailServer

    async with MailServer() as server:
        smtp = AsyncSMTP(server.host, server.port, timeout=LONG)
        for number in range(40):
            if not smtp.is_connected:
                await smtp.connect()
            task = asyncio.create_task(
                smtp.sendmail(SENDER, f"r{number}@to.test", f"Subject: {number}\r\n\r\n")
            )
            for _ in range(number):
                await asyncio.sleep(0)
            task.cancel()
            try:
                result = await task
            except asyncio.CancelledError:
                continue
            assert result.accepted == (f"r{number}@to.test",)
        if not smtp.is_connected:
            await smtp.connect()
        assert (await send(smtp, NEXT)).accepted == (NEXT,)
        await smtp.quit()
        for message in server.messages[:-1]:
            assert message.recipients == (f"r{message.message['Subject']}@to.test",)
        assert server.messages[-1].recipients == (NEXT,)


@each_loop
async def test_login_and_quit_wait_until_the_sends_before_them_are_through():
    """Verbs that change the session have the turn like everybody else."""
    from aiosmtpclient.testing import MailServer

    async with MailServer(users={"u": "p"}) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        sends = [asyncio.create_task(send(smtp, f"r{number}@to.test")) for number in range(3)]
        login = asyncio.create_task(smtp.login("u", "p"))
        more = asyncio.create_task(send(smtp, NEXT))
        quitting = asyncio.create_task(smtp.quit())
        late = asyncio.create_task(caught(send(smtp, TOO)))
        await asyncio.gather(*sends, login, more, quitting)
        assert (await late).delivery is Delivery.NOT_SENT
        assert isinstance(await late, SMTPServerDisconnected)
        assert [message.user for message in server.messages] == [None, None, None, "u"]
        assert (await login).code == 235


async def test_a_slow_answer_is_waited_for_by_its_own_caller_only():
    """Who is next in turn is not woken by somebody else's reply."""
    answer = asyncio.Event()
    script = [*hello(), "NOOP", wait_for(answer), b"250 first\r\n", "NOOP", b"250 second\r\n", *bye()]
    async with ScriptedServer(script) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            first, second = asyncio.create_task(smtp.noop()), asyncio.create_task(smtp.noop())
            await asyncio.sleep(0)
            answer.set()
            assert (await second).message == b"second"
            assert (await first).message == b"first"
