"""The wire rules: what is known about a message, and what the connection is worth then.

Each row of that table with each way in which it can fail. In every test the next message, on the
same connection or after a reconnect, must reach its own recipients and nobody else.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from wire import (
    BODY,
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

import aiosmtpclient
from aiosmtpclient import (
    AsyncSMTP,
    Delivery,
    SMTPAuthenticationError,
    SMTPConnectError,
    SMTPDataError,
    SMTPException,
    SMTPHeloError,
    SMTPNotSupportedError,
    SMTPProtocolError,
    SMTPRecipientsRefused,
    SMTPSenderRefused,
    SMTPServerDisconnected,
    SMTPTimeoutError,
    SMTPTLSError,
)
from aiosmtpclient.testing import CertificateAuthority, MailServer, ScriptedServer
from aiosmtpclient.testing.scripted import (
    close,
    drop,
    expect_content,
    expect_eof,
    greeting,
    read_all,
    read_exactly,
    reset,
    stall,
    starttls,
)

KINDS = {
    "close": SMTPServerDisconnected,
    "reset": SMTPServerDisconnected,
    "timeout": SMTPTimeoutError,
    "cancel": asyncio.CancelledError,
    "garbage": SMTPProtocolError,
    "half line": SMTPServerDisconnected,
}
PIPELINING = {"off": (), "message": ("PIPELINING",)}
BIG = b"x" * 998 + b"\r\n"
BIG = BIG * (20 * 1024 * 1024 // len(BIG))


async def assert_next_is_its_own(smtp: AsyncSMTP, server: ScriptedServer, *, connect: bool = False) -> None:
    """After a drop: send somebody else something else, on the connection that is made for it.

    Args:
        connect: it never was connected, or was closed by its user, who then has to connect it.
    """
    assert not smtp.is_connected
    connections = server.connections
    if connect:
        await smtp.connect()
    result = await send(smtp, NEXT, body=b"the next one")
    assert result.accepted == (NEXT,)
    assert server.connections == connections + 1
    assert TO.encode() not in server.received[-1]
    await smtp.quit()


NEXT_CONNECTION = [*hello(), *take(NEXT), *bye()]


# -- our own input check, an extension the server lacks --------------------------------------


@each_loop
@pytest.mark.parametrize(
    ("recipients", "body", "options"),
    [
        pytest.param([TO, "bad\r\nRCPT TO:<evil@to.test>"], BODY, (), id="an address"),
        pytest.param([], BODY, (), id="nobody to send it to"),
        pytest.param([TO], b"a\0b", (), id="a NUL in the content"),
        pytest.param([TO], "caf\u00e9", (), id="text beyond ASCII"),
        pytest.param([TO], BODY, ("BODY=8BITMIME RET=HDRS",), id="an option"),
    ],
)
async def test_wrong_input_leaves_the_connection_as_it_was(recipients, body, options):
    """Our own check says no, so nothing was written, and the connection is kept."""
    async with ScriptedServer([*hello("PIPELINING"), *take(NEXT), *bye()]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            before = len(server.received[0])
            with pytest.raises(ValueError) as caught_error:
                await smtp.sendmail(SENDER, recipients, body, options)
            assert caught_error.value.delivery is Delivery.NOT_SENT
            assert deliveries(caught_error.value) == [Delivery.NOT_SENT] * len(recipients)
            assert smtp.is_connected
            await send(smtp, NEXT)
        assert server.received[0][before:].startswith(f"MAIL FROM:<{SENDER}>\r\nRCPT TO:<{NEXT}>".encode())


@pytest.mark.parametrize(
    ("sender", "body"),
    [("\u00fc@from.test", BODY), (SENDER, "caf\u00e9".encode())],
    ids=["SMTPUTF8", "8BITMIME"],
)
async def test_a_missing_extension_leaves_the_connection_as_it_was(sender, body):
    """It needs what the server lacks: SMTPNotSupportedError before MAIL."""
    async with ScriptedServer([*hello(), *take(NEXT), *bye()]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            with pytest.raises(SMTPNotSupportedError) as caught_error:
                await smtp.sendmail(sender, TO, body)
            assert caught_error.value.delivery is Delivery.NOT_SENT
            await send(smtp, NEXT)
        assert verbs(server.received[0])[:2] == ["EHLO", "MAIL"]


# -- larger than the server's SIZE -----------------------------------------------------------


@each_loop
async def test_a_message_over_the_size_limit_is_refused_without_a_trip():
    """Refused here, as the server would, and nothing was written."""
    async with ScriptedServer([*hello("SIZE 100"), *take(NEXT), *bye()]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            with pytest.raises(SMTPSenderRefused) as caught_error:
                await send(smtp, TO, TOO, body=b"x" * 99)
            error = caught_error.value
            assert (error.smtp_code, error.smtp_error[:5], error.sender) == (552, b"5.3.4", SENDER)
            assert error.permanent
            assert error.delivery is Delivery.REFUSED
            assert deliveries(error) == [Delivery.REFUSED] * 2
            assert [outcome.reply.code for outcome in error.outcomes] == [552, 552]
            await send(smtp, NEXT)
        assert verbs(server.received[0])[:2] == ["EHLO", "MAIL"]


# -- DNS, connect, greeting, EHLO, STARTTLS, TLS, AUTH ---------------------------------------


async def test_an_unknown_host_is_not_sent(monkeypatch):
    """DNS."""

    async def no_such_host(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", no_such_host)
    with pytest.raises(SMTPConnectError, match="Name or service not known") as caught_error:
        await aiosmtpclient.send(BODY, sender=SENDER, recipients=TO, host="no.such.host.test")
    assert caught_error.value.delivery is Delivery.NOT_SENT
    assert caught_error.value.errno == socket.EAI_NONAME


@each_loop
async def test_a_port_where_nobody_listens_is_not_sent():
    """Connect."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionRefusedError) as caught_error:
            await aiosmtpclient.send(
                BODY, sender=SENDER, recipients=TO, host="127.0.0.1", port=taken.getsockname()[1]
            )
    assert isinstance(caught_error.value, SMTPConnectError)
    assert caught_error.value.delivery is Delivery.NOT_SENT


@each_loop
@pytest.mark.parametrize(
    ("script", "options", "kind", "quits"),
    [
        pytest.param([b"554 no service\r\n", *bye()], {}, SMTPConnectError, True, id="greeting"),
        pytest.param([b"421 too busy\r\n", expect_eof()], {}, SMTPConnectError, False, id="greeting 421"),
        pytest.param([close()], {}, SMTPServerDisconnected, False, id="no greeting"),
        pytest.param([b"HTTP/1.1 400 Bad Request\r\n", read_all()], {}, SMTPProtocolError, False, id="HTTP"),
        pytest.param(
            [greeting(), "EHLO", b"550 no\r\n", "HELO", b"550 no\r\n", *bye()],
            {},
            SMTPHeloError,
            True,
            id="EHLO and HELO",
        ),
        pytest.param(
            [greeting(), "EHLO", b"421 go away\r\n", expect_eof()], {}, SMTPHeloError, False, id="EHLO 421"
        ),
        pytest.param([greeting(), "EHLO", close()], {}, SMTPServerDisconnected, False, id="EHLO closed"),
        pytest.param([*hello(), *bye()], {"tls": "starttls"}, SMTPTLSError, True, id="no STARTTLS"),
        pytest.param(
            [*hello("STARTTLS"), "STARTTLS", b"454 no\r\n", *bye()],
            {"tls": "starttls"},
            SMTPTLSError,
            True,
            id="STARTTLS refused",
        ),
        pytest.param(
            [*hello("STARTTLS"), "STARTTLS", b"220 go\r\n", read_exactly(5), close()],
            {"tls": "starttls"},
            SMTPTLSError,
            False,
            id="handshake",
        ),
        pytest.param(
            [*hello("AUTH PLAIN"), "AUTH PLAIN", b"535 no\r\n", *bye()],
            {"username": "u", "password": "p"},
            SMTPAuthenticationError,
            True,
            id="AUTH",
        ),
        pytest.param(
            [*hello("AUTH PLAIN"), "AUTH PLAIN", close()],
            {"username": "u", "password": "p"},
            SMTPServerDisconnected,
            False,
            id="AUTH closed",
        ),
    ],
)
async def test_what_fails_before_mail_is_not_sent(script, options, kind, quits):
    """Greeting, EHLO, STARTTLS, TLS, AUTH: nothing was sent; QUIT if in step, else dropped."""
    async with ScriptedServer(script) as server:
        with pytest.raises(kind) as caught_error:
            await aiosmtpclient.send(
                BODY, sender=SENDER, recipients=TO, host=server.host, port=server.port, **options
            )
        assert caught_error.value.delivery is Delivery.NOT_SENT
        assert (b"QUIT" in server.received[0]) is quits
        assert b"MAIL" not in server.received[0]


@each_loop
@pytest.mark.parametrize("kind", ["timeout", "cancel"])
@pytest.mark.parametrize(
    "script",
    [
        pytest.param([], id="greeting"),
        pytest.param([greeting(), "EHLO"], id="EHLO"),
        pytest.param([*hello("STARTTLS"), "STARTTLS"], id="STARTTLS"),
        pytest.param([*hello("STARTTLS"), "STARTTLS", b"220 go\r\n"], id="handshake"),
    ],
)
async def test_waiting_in_vain_before_mail_is_not_sent(kind, script):
    """Dropped, without a QUIT."""
    reached = asyncio.Event()
    async with ScriptedServer([*script, *fault(kind, reached)], NEXT_CONNECTION) as server:
        smtp = AsyncSMTP(server.host, server.port, tls="opportunistic", timeout=patience(kind))
        error = await suffer(smtp.connect(), kind, reached)
        assert isinstance(error, KINDS[kind])
        assert b"QUIT" not in server.received[0]
        await assert_next_is_its_own(smtp, server, connect=True)


@each_loop
async def test_a_certificate_nobody_vouches_for_is_not_sent():
    """TLS."""
    authority = CertificateAuthority()
    script = [*hello("STARTTLS"), "STARTTLS", b"220 go\r\n", starttls(authority.server_context())]
    async with ScriptedServer(script) as server:
        with pytest.raises(SMTPTLSError) as caught_error:
            await aiosmtpclient.send(
                BODY, sender=SENDER, recipients=TO, host=server.host, port=server.port, tls="starttls"
            )
        assert caught_error.value.delivery is Delivery.NOT_SENT
        await server.finished()


# -- MAIL or RCPT refused --------------------------------------------------------------------


@each_loop
@pytest.mark.parametrize("pipelining", PIPELINING)
@pytest.mark.parametrize("code", [450, 550])
async def test_a_refused_sender_does_not_spoil_the_next_message(pipelining, code):
    """MAIL refused: all are refused, and the connection is kept after RSET got a 2yz."""
    refusal = b"%d no\r\n" % code
    group = [] if pipelining == "off" else ["RCPT", b"503 MAIL first\r\n", "DATA", b"503 MAIL first\r\n"]
    script = [*hello(*PIPELINING[pipelining]), "MAIL", refusal, *group, "RSET", OK, *take(NEXT), *bye()]
    async with ScriptedServer(script) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            with pytest.raises(SMTPSenderRefused) as caught_error:
                await send(smtp, TO)
            error = caught_error.value
            assert error.delivery is Delivery.REFUSED
            assert deliveries(error) == [Delivery.REFUSED]
            assert error.outcomes[0].reply == (code, b"no")
            assert (error.temporary, error.permanent) == (code == 450, code == 550)
            assert (await send(smtp, NEXT)).accepted == (NEXT,)
        assert server.connections == 1


@each_loop
@pytest.mark.parametrize("pipelining", PIPELINING)
async def test_a_refused_recipient_is_refused_alone(pipelining):
    """One RCPT refused: that recipient is, the others get it, and nothing is reset."""
    refusals = {TOO: "550 5.1.1 no such user"}
    async with MailServer(refuse=refusals) as server:
        async with AsyncSMTP(server.host, server.port, pipelining=pipelining) as smtp:
            result = await send(smtp, TO, TOO, NEXT)
            assert result == {TOO: (550, b"5.1.1 no such user")}
            assert deliveries(result) == [Delivery.ACCEPTED, Delivery.REFUSED, Delivery.ACCEPTED]
            await send(smtp, NEXT)
        assert [message.recipients for message in server.messages] == [(TO, NEXT), (NEXT,)]
        assert "RSET" not in server.commands


@each_loop
@pytest.mark.parametrize("pipelining", PIPELINING)
async def test_nobody_accepted_leaves_no_envelope_open(pipelining):
    """All RCPT refused: RSET, and the next message has only its own recipients."""
    refusals = {TO: "550 no", TOO: "450 not now"}
    async with MailServer(refuse=refusals) as server:
        async with AsyncSMTP(server.host, server.port, pipelining=pipelining) as smtp:
            with pytest.raises(SMTPRecipientsRefused) as caught_error:
                await send(smtp, TO, TOO)
            assert caught_error.value.delivery is Delivery.REFUSED
            assert {a: r.code for a, r in caught_error.value.recipients.items()} == {TO: 550, TOO: 450}
            await send(smtp, NEXT)
        assert [message.recipients for message in server.messages] == [(NEXT,)]
        assert server.connections == 1


@each_loop
@pytest.mark.parametrize(
    "after",
    [[b"500 no\r\n"], [b"354 go\r\n"], [close()], [b"421 bye\r\n"], [b"what?\r\n"]],
    ids=["500", "354", "close", "421", "junk"],
)
async def test_a_reset_that_fails_is_no_news_but_the_connection_is_dropped(after):
    """Kept after RSET got 2yz; without it the refusal is still the news, but the connection goes."""
    script = [*hello(), "MAIL", b"550 no\r\n", "RSET", *after, read_all()]
    async with ScriptedServer(script, NEXT_CONNECTION) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        error = await caught(send(smtp))
        assert isinstance(error, SMTPSenderRefused)
        assert error.delivery is Delivery.REFUSED
        await assert_next_is_its_own(smtp, server)


# -- close, timeout, cancel before the 354 was read ------------------------------------------


@each_loop
@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("pipelining", PIPELINING)
@pytest.mark.parametrize("at", ["MAIL", "RCPT", "DATA"])
async def test_what_happens_before_the_354_is_not_sent(kind, pipelining, at):
    """Closed, timed out, cancelled before the 354 was read: NOT_SENT, and dropped.

    And so there is no RSET, no QUIT, no dot after replies that are still owed.
    """
    reached = asyncio.Event()
    steps = [*envelope(TO), "DATA", GO]
    cut = {"MAIL": 1, "RCPT": 3, "DATA": 5}[at]
    script = [*hello(*PIPELINING[pipelining]), *steps[:cut], *fault(kind, reached)]
    async with ScriptedServer(script, NEXT_CONNECTION) as server:
        smtp = AsyncSMTP(server.host, server.port, timeout=patience(kind))
        await smtp.connect()
        error = await suffer(send(smtp, TO), kind, reached)
        assert isinstance(error, KINDS[kind])
        assert error.delivery is Delivery.NOT_SENT
        assert deliveries(error) == [Delivery.NOT_SENT]
        await server.conversations[0].gone.wait()
        last = at if pipelining == "off" else "DATA"
        assert verbs(server.received[0])[-1] == last
        await assert_next_is_its_own(smtp, server)


@pytest.mark.parametrize("pipelining", PIPELINING)
async def test_a_recipient_refused_before_the_connection_went_stays_refused(pipelining):
    """What was learnt about a recipient stays learnt."""
    script = [*hello(*PIPELINING[pipelining]), "MAIL", OK, "RCPT", b"550 no\r\n", "RCPT", close()]
    async with ScriptedServer(script) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        error = await caught(send(smtp, TO, TOO))
        assert isinstance(error, SMTPServerDisconnected)
        assert deliveries(error) == [Delivery.REFUSED, Delivery.NOT_SENT]
        assert error.delivery is Delivery.NOT_SENT


# -- DATA refused ----------------------------------------------------------------------------


@each_loop
@pytest.mark.parametrize("pipelining", PIPELINING)
async def test_a_refused_data_does_not_spoil_the_next_message(pipelining):
    """DATA refused: REFUSED, kept after RSET."""
    script = [
        *hello(*PIPELINING[pipelining]),
        *envelope(TO, TOO),
        *("DATA", b"451 not now\r\n", "RSET", OK),
        *take(NEXT),
        *bye(),
    ]
    async with ScriptedServer(script) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            with pytest.raises(SMTPDataError) as caught_error:
                await send(smtp, TO, TOO)
            error = caught_error.value
            assert (error.smtp_code, error.command, error.temporary) == (451, "DATA", True)
            assert deliveries(error) == [Delivery.REFUSED] * 2
            assert (await send(smtp, NEXT)).accepted == (NEXT,)
        assert server.connections == 1


# -- inside the content, end not written -----------------------------------------------------


@each_loop
@pytest.mark.parametrize("kind", ["close", "reset", "timeout", "cancel", "garbage"])
async def test_a_content_that_did_not_end_is_not_sent_and_gets_no_dot(kind):
    """Closed, timed out, cancelled inside the content: NOT_SENT, dropped without the final dot."""
    reached, over = asyncio.Event(), asyncio.Event()
    script = [*hello(), *envelope(TO), "DATA", GO, read_exactly(100_000), *fault(kind, reached, over)]
    async with ScriptedServer(script, NEXT_CONNECTION) as server:
        smtp = AsyncSMTP(server.host, server.port, timeout=patience(kind))
        await smtp.connect()
        error = await suffer(send(smtp, TO, body=BIG), kind, reached)
        assert isinstance(error, KINDS[kind])
        assert error.delivery is Delivery.NOT_SENT
        assert deliveries(error) == [Delivery.NOT_SENT]
        over.set()
        await server.conversations[0].gone.wait()
        assert not server.received[0].endswith(b"\r\n.\r\n")
        assert b"QUIT" not in server.received[0]
        await assert_next_is_its_own(smtp, server)


class MyError(Exception):
    """The caller's own."""


@each_loop
@pytest.mark.parametrize("asynchronous", [True, False])
async def test_a_body_that_raises_is_not_sent_and_gets_no_dot(asynchronous):
    """The caller's own exception passes through, the message is NOT_SENT."""

    def body() -> Iterator[bytes]:
        yield b"Subject: half\r\n\r\n"
        yield b"of it\r\n"
        raise MyError

    async def async_body() -> AsyncIterator[bytes]:
        for piece in body():
            yield piece

    script = [*hello(), *envelope(TO), "DATA", GO, read_all()]
    async with ScriptedServer(script, NEXT_CONNECTION) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        with pytest.raises(MyError) as caught_error:
            await smtp.sendmail(SENDER, TO, async_body() if asynchronous else body())
        assert caught_error.value.delivery is Delivery.NOT_SENT
        assert deliveries(caught_error.value) == [Delivery.NOT_SENT]
        await server.conversations[0].gone.wait()
        assert not server.received[0].endswith(b"\r\n.\r\n")
        await assert_next_is_its_own(smtp, server)


@each_loop
async def test_cancelled_while_the_body_is_awaited_is_not_sent():
    """A body that did not end, with one that never comes."""
    reached, never = asyncio.Event(), asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"Subject: half\r\n\r\n"
        reached.set()
        await never.wait()

    script = [*hello(), *envelope(TO), "DATA", GO, read_all()]
    async with ScriptedServer(script, NEXT_CONNECTION) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        error = await suffer(smtp.sendmail(SENDER, TO, body()), "cancel", reached)
        assert isinstance(error, asyncio.CancelledError)
        assert error.delivery is Delivery.NOT_SENT
        await server.conversations[0].gone.wait()
        assert not server.received[0].endswith(b".\r\n")
        await assert_next_is_its_own(smtp, server)


async def test_a_file_that_is_not_there_opens_no_envelope(tmp_path: Path):
    """It is opened before MAIL."""
    async with ScriptedServer([*hello(), *take(NEXT), *bye()]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            with pytest.raises(FileNotFoundError) as caught_error:
                await smtp.sendmail(SENDER, TO, tmp_path / "no such file")
            assert caught_error.value.delivery is Delivery.NOT_SENT
            await send(smtp, NEXT)


# -- a 4yz/5yz while we still write ----------------------------------------------------------


@each_loop
@pytest.mark.parametrize("code", [421, 452, 552])
async def test_a_refusal_in_the_middle_of_the_content_is_a_refusal_with_that_reply(code):
    """Read while we still write: REFUSED with that reply, dropped, and no dot."""
    refusal = b"%d enough\r\n" % code
    over = asyncio.Event()
    script = [
        *hello(),
        *envelope(TO, TOO),
        "DATA",
        GO,
        read_exactly(100_000),
        refusal,
        wait_for(over),
        read_all(),
    ]
    async with ScriptedServer(script, NEXT_CONNECTION) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        error = await caught(send(smtp, TO, TOO, body=BIG))
        assert isinstance(error, SMTPDataError)
        assert (error.smtp_code, error.delivery) == (code, Delivery.REFUSED)
        assert [outcome.reply for outcome in error.outcomes] == [(code, b"enough")] * 2
        assert error.temporary is (code < 500)
        over.set()
        await server.conversations[0].gone.wait()
        assert not server.received[0].endswith(b"\r\n.\r\n")
        assert len(server.received[0]) < len(BIG)
        await assert_next_is_its_own(smtp, server)


@each_loop
async def test_a_yes_in_the_middle_of_the_content_is_no_yes():
    """A 250 before the end was written accepts nothing; the connection is dropped."""
    script = [*hello(), *envelope(TO), "DATA", GO, read_exactly(100_000), OK, stall()]
    async with ScriptedServer(script, NEXT_CONNECTION) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        error = await caught(send(smtp, TO, body=BIG))
        assert isinstance(error, SMTPProtocolError)
        assert error.delivery is Delivery.NOT_SENT
        assert deliveries(error) == [Delivery.NOT_SENT]
        await assert_next_is_its_own(smtp, server)


@each_loop
@pytest.mark.parametrize("code", [250, 552])
async def test_a_cancellation_together_with_an_early_reply_never_counts_as_accepted(code):
    """The end never left, so nothing was accepted."""
    early, answered = asyncio.Event(), asyncio.Event()
    reply = b"%d early\r\n" % code
    script = [*hello(), *envelope(TO), "DATA", GO, read_exactly(100_000), mark(early), wait_for(answered)]
    async with ScriptedServer([*script, stall()], NEXT_CONNECTION) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        task = asyncio.create_task(caught(send(smtp, TO, body=BIG)))
        await early.wait()
        # In one turn: the reply is read, and the task is cancelled before it can look at it.
        smtp._connection.protocol.data_received(reply)
        task.cancel()
        error = await task
        assert error.delivery is (Delivery.NOT_SENT if code == 250 else Delivery.REFUSED)
        answered.set()
        await assert_next_is_its_own(smtp, server)


async def test_a_failing_body_after_an_early_yes_never_counts_as_accepted():
    """The caller's body fails, and the 250 that came too early is no acceptance."""
    reached, early = asyncio.Event(), asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"Subject: half\r\n\r\n"
        yield b"of it\r\n"
        reached.set()
        await early.wait()
        raise MyError

    script = [*hello(), *envelope(TO), "DATA", GO, read_all()]
    async with ScriptedServer(script, NEXT_CONNECTION) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        task = asyncio.create_task(caught(smtp.sendmail(SENDER, TO, body())))
        await reached.wait()
        smtp._connection.protocol.data_received(OK)
        early.set()
        error = await task
        assert isinstance(error, MyError)
        assert error.delivery is Delivery.NOT_SENT
        await assert_next_is_its_own(smtp, server)


# -- the end was handed over, and no trustworthy reply came ----------------------------------


@each_loop
@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("size", ["small", "big"])
async def test_an_end_without_a_reply_is_unknown(kind, size):
    """The end was handed over, then closed, reset, timed out, cancelled, or answered with nonsense."""
    reached = asyncio.Event()
    body = BODY if size == "small" else BIG[: 1024 * 1024]
    script = [*hello(), "MAIL", OK, "RCPT", OK, "RCPT", b"550 no\r\n", "DATA", GO, expect_content()]
    async with ScriptedServer([*script, *fault(kind, reached)], NEXT_CONNECTION) as server:
        smtp = AsyncSMTP(server.host, server.port, timeout=patience(kind))
        await smtp.connect()
        error = await suffer(send(smtp, TO, TOO, body=body), kind, reached)
        assert isinstance(error, KINDS[kind])
        assert error.delivery is Delivery.UNKNOWN
        assert deliveries(error) == [Delivery.UNKNOWN, Delivery.REFUSED]
        await server.conversations[0].gone.wait()
        assert server.received[0].endswith(b"\r\n.\r\n")
        await assert_next_is_its_own(smtp, server)


@each_loop
async def test_a_3yz_to_the_end_is_unknown():
    """A reply of a class that cannot be an answer is not trustworthy."""
    script = [*hello(), *envelope(TO), "DATA", GO, expect_content(), b"354 more\r\n", read_all()]
    async with ScriptedServer(script, NEXT_CONNECTION) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        error = await caught(send(smtp))
        assert isinstance(error, SMTPProtocolError)
        assert error.delivery is Delivery.UNKNOWN
        await assert_next_is_its_own(smtp, server)


@pytest.mark.parametrize("more", [True, False], ids=["more to write", "only the end to write"])
async def test_a_reset_that_nobody_noticed_yet_is_not_unknown(more):
    """After a reset a transport swallows what is written, so it is asked first."""
    broken = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"Subject: half\r\n\r\n"
        await broken.wait()
        if more:
            yield b"of it\r\n"

    script = [*hello(), *envelope(TO), "DATA", GO, mark(reached := asyncio.Event()), reset()]
    async with ScriptedServer(script, NEXT_CONNECTION) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        task = asyncio.create_task(caught(smtp.sendmail(SENDER, TO, body())))
        await reached.wait()
        await smtp._connection.protocol.closed
        broken.set()
        error = await task
        assert isinstance(error, SMTPServerDisconnected)
        assert error.delivery is Delivery.NOT_SENT
        await assert_next_is_its_own(smtp, server)


# -- 4yz/5yz to the end ----------------------------------------------------------------------


@each_loop
@pytest.mark.parametrize("code", [451, 554])
async def test_a_refused_content_does_not_spoil_the_next_message(code):
    """REFUSED, and the connection is kept, without a RSET."""
    script = [*hello("PIPELINING"), *take(TO, TOO, reply=b"%d no\r\n" % code), *take(NEXT), *bye()]
    async with ScriptedServer(script) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            with pytest.raises(SMTPDataError) as caught_error:
                await send(smtp, TO, TOO)
            error = caught_error.value
            assert (error.smtp_code, error.temporary, error.permanent) == (code, code == 451, code == 554)
            assert deliveries(error) == [Delivery.REFUSED] * 2
            assert (await send(smtp, NEXT)).accepted == (NEXT,)
        assert server.connections == 1


# -- 2yz to the end, then anything -----------------------------------------------------------


@each_loop
@pytest.mark.parametrize(
    "after",
    [
        pytest.param(["QUIT", b"500 what?\r\n", read_all()], id="QUIT 500"),
        pytest.param(["QUIT", stall()], id="silent QUIT"),
        pytest.param(["QUIT", close()], id="QUIT closed"),
        pytest.param(["QUIT", reset()], id="QUIT reset"),
        pytest.param(["QUIT", b"bye!\r\n", read_all()], id="QUIT garbage"),
        pytest.param([close()], id="closed"),
        pytest.param([reset()], id="reset"),
        pytest.param([b"421 bye\r\n", close()], id="421"),
        pytest.param([b"250 and\r\n250 more\r\n", read_all()], id="babble"),
    ],
)
async def test_an_accepted_message_stays_accepted_whatever_happens_then(after):
    """ACCEPTED, the call returns normally, and so does leaving."""
    async with ScriptedServer([*hello(), *take(TO), *after]) as server:
        async with AsyncSMTP(server.host, server.port, timeout=SHORT) as smtp:
            result = await send(smtp)
            assert deliveries(result) == [Delivery.ACCEPTED]
        assert not smtp.is_connected
        result = await aiosmtpclient.send(
            BODY, sender=SENDER, recipients=TO, host=server.host, port=server.port, timeout=SHORT
        )
        assert result.accepted == (TO,)


@each_loop
async def test_an_accepted_message_stays_accepted_when_the_close_comes_in_the_same_segment():
    """The 250 and the end of the connection arrive together."""
    async with ScriptedServer([*hello(), *take(TO), drop()], NEXT_CONNECTION) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        assert (await send(smtp)).accepted == (TO,)
        await smtp._connection.protocol.closed
        await assert_next_is_its_own(smtp, server)


@each_loop
async def test_garbage_behind_the_final_reply_takes_the_connection_but_not_the_result():
    """In the same segment as the 250."""
    async with ScriptedServer(
        [*hello(), *take(TO, reply=b"250 ok\r\njunk\r\n"), read_all()], NEXT_CONNECTION
    ) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        assert (await send(smtp)).accepted == (TO,)
        await assert_next_is_its_own(smtp, server)


@each_loop
async def test_a_tls_connection_cut_after_the_final_reply_takes_nothing_back():
    """TLS ends without a close_notify."""
    authority = CertificateAuthority()
    script = [*hello(), *take(TO), "QUIT", drop()]
    async with ScriptedServer(script, implicit_tls=authority.server_context()) as server:
        result = await aiosmtpclient.send(
            BODY,
            sender=SENDER,
            recipients=TO,
            host=server.host,
            port=server.port,
            tls="implicit",
            tls_context=authority.client_context(),
        )
        assert result.accepted == (TO,)


@each_loop
async def test_cancelled_during_the_quit_of_send_the_result_still_comes():
    """`send()` is cancelled when the message is accepted: the result, then the cancellation."""
    reached = asyncio.Event()
    async with ScriptedServer([*hello(), *take(TO), "QUIT", mark(reached), stall()]) as server:
        results = []

        async def work() -> None:
            results.append(
                await aiosmtpclient.send(
                    BODY, sender=SENDER, recipients=TO, host=server.host, port=server.port
                )
            )
            await asyncio.Event().wait()

        task = asyncio.create_task(work())
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert results[0].accepted == (TO,)
        await server.conversations[0].gone.wait()


# -- a cancellation in the same turn of the loop as the final reply --------------------------


async def final_reply(server: ScriptedServer, smtp: AsyncSMTP, ended: asyncio.Event) -> None:
    """Let the final reply be read in this very turn of the loop."""
    await ended.wait()
    # What the transport would do; no test can make the kernel and a cancellation meet.
    smtp._connection.protocol.data_received(b"250 2.0.0 queued\r\n")


@each_loop
@pytest.mark.parametrize("first", ["reply", "cancellation"])
async def test_a_cancellation_in_the_same_turn_as_the_final_reply_hides_nothing(first):
    """The result comes through, and the cancellation is not lost either."""
    ended = asyncio.Event()
    script = [*hello(), *envelope(TO), "DATA", GO, expect_content(), mark(ended), stall()]
    async with ScriptedServer(script) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        results = []

        async def work() -> None:
            results.append(await send(smtp))
            await asyncio.Event().wait()

        task = asyncio.create_task(work())
        await ended.wait()
        if first == "cancellation":
            task.cancel()
        smtp._connection.protocol.data_received(b"250 2.0.0 queued\r\n")
        if first == "reply":
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert results[0].accepted == (TO,)
        assert task.cancelling() == 1
        smtp.close()


@each_loop
async def test_a_deadline_in_the_same_turn_as_the_final_reply_hides_nothing():
    """The result comes through; the block's next await is where it ends."""
    ended = asyncio.Event()
    script = [*hello(), *envelope(TO), "DATA", GO, expect_content(), mark(ended), stall()]
    async with ScriptedServer(script) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        results = []
        deadline = asyncio.timeout(None)

        async def work(more: bool) -> str:
            try:
                async with deadline:
                    results.append(await send(smtp))
                    if more:
                        await asyncio.Event().wait()
            except TimeoutError:
                return "timeout"
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            return "no timeout"

        task = asyncio.create_task(work(True))
        await ended.wait()
        deadline.reschedule(asyncio.get_running_loop().time())
        await deadline_fires(deadline)
        smtp._connection.protocol.data_received(b"250 2.0.0 queued\r\n")
        assert await task == "timeout"
        assert results[0].accepted == (TO,)
        assert task.cancelling() == 0
        smtp.close()


async def deadline_fires(deadline: asyncio.Timeout) -> None:
    """Return in the very turn in which the deadline cancels its task."""
    fired = asyncio.get_running_loop().create_future()
    # Timers of the same moment fire in the order in which they were made.
    asyncio.get_running_loop().call_at(deadline.when(), fired.set_result, None)
    while not deadline.expired() and not fired.done():
        await asyncio.sleep(0)


@each_loop
async def test_a_deadline_that_is_left_with_the_result_leaves_no_cancellation_behind():
    """Who leaves the block with the result is not cancelled later."""
    ended = asyncio.Event()
    script = [*hello(), *envelope(TO), "DATA", GO, expect_content(), mark(ended), stall()]
    async with ScriptedServer(script) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        deadline = asyncio.timeout(None)

        async def work() -> tuple[str, ...]:
            async with deadline:
                result = await send(smtp)
            for _ in range(5):
                await asyncio.sleep(0)
            return result.accepted

        task = asyncio.create_task(work())
        await ended.wait()
        deadline.reschedule(asyncio.get_running_loop().time())
        await deadline_fires(deadline)
        smtp._connection.protocol.data_received(b"250 2.0.0 queued\r\n")
        assert await task == (TO,)
        assert task.cancelling() == 0
        smtp.close()


@each_loop
async def test_a_task_group_that_is_aborted_in_the_turn_of_the_final_reply_keeps_the_result():
    """A sibling fails in the turn in which the reply is read."""
    ended = asyncio.Event()
    script = [*hello(), *envelope(TO), "DATA", GO, expect_content(), mark(ended), stall()]
    async with ScriptedServer(script) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        results = []

        async def work() -> None:
            results.append(await send(smtp))
            await asyncio.Event().wait()  # only a cancellation ends this

        async def sibling() -> None:
            await ended.wait()
            smtp._connection.protocol.data_received(b"250 2.0.0 queued\r\n")
            raise MyError

        async def both() -> None:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(work())
                tasks.create_task(sibling())

        group = await caught(both())
        assert isinstance(group, ExceptionGroup)
        assert [type(error) for error in group.exceptions] == [MyError]
        assert results[0].accepted == (TO,)
        smtp.close()


async def test_a_cancellation_after_the_final_reply_spoils_neither_result_nor_connection():
    """The reply came, the task was cancelled in its turn, and the connection is still good."""
    ended, go_on = asyncio.Event(), asyncio.Event()
    script = [*hello(), *envelope(TO), "DATA", GO, expect_content(), mark(ended), wait_for(go_on)]
    async with ScriptedServer([*script, *take(NEXT), *bye()]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            task = asyncio.create_task(send(smtp))
            await ended.wait()
            smtp._connection.protocol.data_received(b"250 2.0.0 queued\r\n")
            task.cancel()
            assert (await task).accepted == (TO,)
            go_on.set()
            assert (await send(smtp, NEXT)).accepted == (NEXT,)
        assert server.connections == 1


# -- who may be told what --------------------------------------------------------------------


@each_loop
async def test_a_client_closed_in_the_middle_of_a_send_says_what_it_knows():
    """`close()` of our own, before and after the end of the content left."""
    ended = asyncio.Event()
    script = [*hello(), *envelope(TO), "DATA", GO, expect_content(), mark(ended), stall()]
    async with ScriptedServer(script, NEXT_CONNECTION) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        sending = asyncio.create_task(caught(send(smtp)))
        waiting = asyncio.create_task(caught(send(smtp, NEXT)))
        await ended.wait()
        smtp.close()
        first, second = await sending, await waiting
        assert isinstance(first, SMTPServerDisconnected)
        assert first.delivery is Delivery.UNKNOWN
        assert isinstance(second, SMTPServerDisconnected)
        assert second.delivery is Delivery.NOT_SENT
        await assert_next_is_its_own(smtp, server, connect=True)


@each_loop
async def test_cancelled_while_waiting_for_the_turn_is_not_sent_and_disturbs_nobody():
    """The same for somebody who never had his turn."""
    ended, answer = asyncio.Event(), asyncio.Event()
    script = [
        *hello(),
        *envelope(TO),
        "DATA",
        GO,
        expect_content(),
        mark(ended),
        wait_for(answer),
        OK,
        *bye(),
    ]
    async with ScriptedServer(script) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            sending = asyncio.create_task(send(smtp))
            await ended.wait()
            waiting = asyncio.create_task(caught(send(smtp, NEXT)))
            await asyncio.sleep(0)
            waiting.cancel()
            error = await waiting
            assert isinstance(error, asyncio.CancelledError)
            assert deliveries(error) == [Delivery.NOT_SENT]
            answer.set()
            assert (await sending).accepted == (TO,)
        assert NEXT.encode() not in server.received[0]


async def test_every_error_of_a_send_carries_the_account():
    """`.delivery` and `.outcomes` are set on whatever passes through, whoever raised it."""
    for kind in (SMTPException, ssl.SSLError, MyError):

        def body(kind: type[Exception] = kind) -> Iterator[bytes]:
            yield b"a\r\n"
            yield b"b\r\n"
            raise kind("mine")

        async with ScriptedServer([*hello(), *envelope(TO), "DATA", GO, read_all()]) as server:
            async with AsyncSMTP(server.host, server.port, timeout=LONG) as smtp:
                error = await caught(smtp.sendmail(SENDER, TO, body()))
            assert type(error) is kind
            assert error.outcomes == ((TO, Delivery.NOT_SENT, None),)
