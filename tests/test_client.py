"""The desk: connecting, sending, many messages, and a client's life from its birth to its end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import socket
import tempfile
import threading
import warnings
from collections.abc import AsyncIterator, Iterator
from email.message import EmailMessage, Message
from pathlib import Path

import pytest
from wire import (
    BODY,
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
    hello,
    mark,
    send,
    take,
    verbs,
    wait_for,
)

from aiosmtpclient import (
    AsyncLMTP,
    AsyncSMTP,
    Delivery,
    Envelope,
    SendResult,
    SMTPAuthenticationError,
    SMTPConnectError,
    SMTPException,
    SMTPRecipientsRefused,
    SMTPServerDisconnected,
    SMTPTLSError,
    Timeouts,
)
from aiosmtpclient.testing import CertificateAuthority, MailServer, ScriptedServer
from aiosmtpclient.testing.scripted import (
    close,
    drop,
    expect_content,
    expect_eof,
    greeting,
    read_all,
    reset,
    say,
    stall,
    starttls,
)

OVER = [*hello(), *take(TO), *bye()]


def message(kind: type[Message] = EmailMessage, **headers: str) -> Message:
    one = kind()
    for name, value in ({"From": SENDER, "To": TO, "Subject": "hello"} | headers).items():
        one[name] = value
    one.set_payload("Hello.\n")
    return one


# -- connecting ------------------------------------------------------------------------------


@each_loop
async def test_a_block_connects_and_quits():
    async with MailServer() as server:
        smtp = AsyncSMTP(server.host, server.port)
        assert not smtp.is_connected
        assert repr(smtp) == f"<AsyncSMTP not connected to {server.host}:{server.port}>"
        async with smtp as entered:
            assert entered is smtp
            assert smtp.is_connected
            assert repr(smtp) == f"<AsyncSMTP connected to {server.host}:{server.port}>"
            await send(smtp)
        assert not smtp.is_connected
        assert server.commands[-1] == "QUIT"


async def test_a_block_takes_a_client_that_is_connected_already():
    async with MailServer() as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        async with smtp:
            await send(smtp)
        assert server.connections == 1


async def test_a_block_in_which_the_client_was_closed_is_left_in_peace():
    async with MailServer() as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            assert (await smtp.quit()).code == 221
        async with AsyncSMTP(server.host, server.port) as smtp:
            smtp.close()
            smtp.close()
        assert server.commands.count("QUIT") == 1


@each_loop
async def test_an_exception_in_a_block_still_says_quit():
    async with MailServer() as server:
        with pytest.raises(ZeroDivisionError):
            async with AsyncSMTP(server.host, server.port):
                raise ZeroDivisionError
        assert server.commands[-1] == "QUIT"


@each_loop
async def test_a_block_that_is_cancelled_asks_nobody():
    entered = asyncio.Event()
    async with ScriptedServer([*hello(), read_all()]) as server:

        async def block() -> None:
            async with AsyncSMTP(server.host, server.port):
                entered.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(caught(block()))
        await entered.wait()
        task.cancel()
        assert isinstance(await task, asyncio.CancelledError)
        await server.conversations[0].gone.wait()
        assert b"QUIT" not in server.received[0]


async def test_an_envelope_begun_by_hand_is_left_with_a_quit():
    """Nothing is owed, so QUIT is safe; the server forgets the envelope by itself."""
    async with ScriptedServer([*hello(), "MAIL", OK, *bye()]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            await smtp.mail(SENDER)


@each_loop
async def test_a_client_is_used_again_after_quit():
    async with ScriptedServer(OVER) as server:
        smtp = AsyncSMTP(server.host, server.port)
        for _ in range(2):
            assert await smtp.connect() == (220, b"mail.test ESMTP")
            await send(smtp)
            await smtp.quit()
            assert not smtp.is_connected
            assert (await caught(send(smtp))).delivery is Delivery.NOT_SENT
        assert server.connections == 2


@each_loop
@pytest.mark.parametrize(
    "end", [close, reset, lambda: say(b"421 idle for too long\r\n"), lambda: say(b"junk\r\n")]
)
async def test_a_connection_that_was_lost_is_made_anew_by_the_next_send(end):
    """Nothing of the message was sent, so nothing can be sent twice; verbs say what happened."""
    idle = asyncio.Event()
    async with ScriptedServer([*hello(), *take(TO), wait_for(idle), end()], OVER) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            await send(smtp)
            first = smtp._connection
            idle.set()
            await first.protocol.closed
            assert isinstance(await caught(smtp.noop()), SMTPException)
            assert server.connections == 1
            assert (await send(smtp)).accepted == (TO,)
            assert smtp._connection is not first
        assert server.connections == 2


@each_loop
async def test_a_send_that_failed_is_never_tried_again_by_itself():
    async with ScriptedServer([*hello(), "MAIL", close()], OVER) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            error = await caught(send(smtp))
            assert isinstance(error, SMTPServerDisconnected)
            assert error.delivery is Delivery.NOT_SENT
            assert server.connections == 1
            await send(smtp)


@each_loop
async def test_a_connection_that_cannot_be_made_anew_is_an_error_of_the_send():
    async with ScriptedServer([*hello(), close()], [b"554 no\r\n", *bye()], OVER) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            await smtp._connection.protocol.closed
            error = await caught(send(smtp))
            assert isinstance(error, SMTPConnectError)
            assert error.delivery is Delivery.NOT_SENT
            assert deliveries(error) == [Delivery.NOT_SENT]
            await smtp.connect()
            await send(smtp)


@each_loop
@pytest.mark.parametrize(
    "trouble", [close(), b"421 starting up\r\n", b"554 no\r\n"], ids=["close", "421", "554"]
)
async def test_a_server_that_restarts_is_not_the_end_of_a_client(trouble):
    """While it is down each send fails; once it is up again, the next one gets through."""
    down = [trouble] if callable(trouble) else [trouble, close()]
    async with ScriptedServer([*hello(), close()], down, down, OVER) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            await smtp._connection.protocol.closed
            for _ in range(2):
                error = await caught(send(smtp))
                assert isinstance(error, SMTPException)
                assert error.delivery is Delivery.NOT_SENT
            assert (await send(smtp)).accepted == (TO,)
        assert server.connections == 4


@each_loop
@pytest.mark.parametrize("pipelining", ["message", "stream"])
async def test_a_run_made_while_the_server_is_there_but_begun_later_does_not_take_it_for_gone(pipelining):
    messages = [Envelope(SENDER, TO, BODY)]
    async with ScriptedServer([*hello(), close()], [close()], OVER) as server:
        async with AsyncSMTP(server.host, server.port, pipelining=pipelining) as smtp:
            await smtp._connection.protocol.closed
            later = smtp.send_messages(messages)
            assert isinstance(await caught(send(smtp)), SMTPException)
            [outcome] = [outcome async for outcome in later]
            assert outcome.delivery is Delivery.ACCEPTED, outcome.error


async def test_credentials_that_are_refused_at_a_new_connection_are_not_shown_again_and_again():
    first = [*hello("AUTH PLAIN"), "AUTH PLAIN", b"235 in\r\n", close()]
    second = [*hello("AUTH PLAIN"), "AUTH PLAIN", b"535 no\r\n", *bye()]
    async with ScriptedServer(first, second, repeat_last=False) as server:
        async with AsyncSMTP(server.host, server.port, tls="none", username="u", password="p") as smtp:
            await smtp._connection.protocol.closed
            assert isinstance(await caught(send(smtp)), SMTPAuthenticationError)
            assert isinstance(await caught(send(smtp)), SMTPServerDisconnected)
        assert server.connections == 2


@pytest.mark.parametrize("by_hand", ["login", "auth", "starttls", "sock"])
async def test_a_connection_brought_up_by_hand_is_not_made_anew(by_hand):
    """A new one would lack what was done to the old: it might send in clear, or as nobody."""
    authority = CertificateAuthority()
    exchange = ["AUTH", b"235 in\r\n"]
    if by_hand == "starttls":
        exchange = ["STARTTLS", b"220 go\r\n", starttls(authority.server_context())]
    script = [*hello("AUTH PLAIN", "STARTTLS"), *([] if by_hand == "sock" else exchange), close()]
    async with ScriptedServer(script) as server:
        given = socket.create_connection((server.host, server.port)) if by_hand == "sock" else None
        async with AsyncSMTP(server.host, server.port, sock=given, tls="none") as smtp:
            if by_hand == "login":
                await smtp.login("u", "p")
            elif by_hand == "auth":
                await smtp.auth("PLAIN", lambda challenge=None: "x")
            elif by_hand == "starttls":
                await smtp.starttls(context=authority.client_context())
            await smtp._connection.protocol.closed
            error = await caught(send(smtp))
            assert isinstance(error, SMTPServerDisconnected)
            assert error.delivery is Delivery.NOT_SENT
        assert server.connections == 1


@each_loop
@pytest.mark.parametrize("how", ["close", "fail"])
async def test_a_client_closed_while_it_connects_is_not_connected_afterwards(how):
    """Closed by hand, or by a block that another task leaves with an exception."""
    reached, go_on = asyncio.Event(), asyncio.Event()
    script = [mark(reached), wait_for(go_on), greeting(), "EHLO", b"250 hi\r\n", expect_eof()]
    async with ScriptedServer([*hello(), close()], script) as server:
        with contextlib.suppress(ZeroDivisionError):
            async with AsyncSMTP(server.host, server.port) as smtp:
                await smtp._connection.protocol.closed
                sending = asyncio.create_task(caught(send(smtp)))
                await reached.wait()
                if how == "fail":
                    raise ZeroDivisionError
                smtp.close()
                go_on.set()
        go_on.set()
        error = await sending
        assert isinstance(error, SMTPServerDisconnected)
        assert "closed while it connected" in str(error)
        assert error.delivery is Delivery.NOT_SENT
        assert not smtp.is_connected
        await server.conversations[1].gone.wait()


@each_loop
async def test_a_block_is_left_when_what_others_have_under_way_is_done():
    """A reconnect and the sends behind it too; what is asked for later finds the client closed."""
    go_on = asyncio.Event()
    script = [wait_for(go_on), *hello(), *take(TO), *take(TOO), *bye()]
    async with ScriptedServer([*hello(), close()], script) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            await smtp._connection.protocol.closed
            tasks = [asyncio.create_task(send(smtp, one)) for one in (TO, TOO)]
            await asyncio.sleep(0)
            asyncio.get_running_loop().call_soon(go_on.set)
        assert [(await task).accepted for task in tasks] == [(TO,), (TOO,)]
        assert isinstance(await caught(send(smtp)), SMTPServerDisconnected)
        assert not smtp.is_connected


@each_loop
async def test_a_block_whose_leaving_is_cancelled_closes_all_the_same():
    """It waits for a send of another task, which waits for a server that says nothing."""
    reached = asyncio.Event()
    async with ScriptedServer([*hello(), "MAIL", mark(reached), stall()]) as server:
        smtp = AsyncSMTP(server.host, server.port)
        sends = []

        async def block() -> None:
            async with smtp:
                sends.append(asyncio.create_task(caught(send(smtp))))
                await reached.wait()

        task = asyncio.create_task(caught(block()))
        await reached.wait()
        for _ in range(3):
            await asyncio.sleep(0)
        assert not task.done()
        task.cancel()
        assert isinstance(await task, asyncio.CancelledError)
        assert isinstance(await sends[0], SMTPServerDisconnected)
        assert not smtp.is_connected


@each_loop
async def test_a_client_entered_by_many_tasks_quits_when_the_last_one_leaves():
    async with MailServer() as server:
        smtp = AsyncSMTP(server.host, server.port)

        async def one(number: int) -> None:
            async with smtp:
                await send(smtp, f"r{number}@to.test")

        await asyncio.gather(*map(one, range(5)))
        assert not smtp.is_connected
        assert (server.connections, server.commands.count("QUIT"), len(server.messages)) == (1, 1, 5)


async def test_a_block_that_could_not_be_entered_does_not_count():
    async with ScriptedServer([b"554 no\r\n", *bye()], OVER) as server:
        smtp = AsyncSMTP(server.host, server.port)
        with pytest.raises(SMTPConnectError):
            async with smtp:
                raise AssertionError("entered")
        async with smtp:
            await send(smtp)
        assert not smtp.is_connected


async def test_connecting_again_quits_what_was_open():
    async with MailServer() as server, MailServer() as other:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        await smtp.connect(other.host, other.port)
        assert server.commands[-1] == "QUIT"
        await send(smtp)
        assert len(other.messages) == 1
        await smtp.connect()  # the constructor's again
        assert server.connections == 2
        await smtp.quit()


@pytest.mark.parametrize("how", ["host", "connect"])
async def test_host_and_port_may_come_in_one(how):
    async with MailServer() as server:
        both = f"{server.host}:{server.port}"
        smtp = AsyncSMTP(both if how == "host" else "")
        await (smtp.connect() if how == "host" else smtp.connect(both))
        await send(smtp)
        await smtp.quit()
        assert len(server.messages) == 1


@pytest.mark.parametrize("bad", ["localhost:smtp", "localhost:", "localhost:99999", "localhost:\u0662\u0665"])
def test_a_port_that_is_no_number_is_told_at_once(bad):
    with pytest.raises(SMTPConnectError, match="port"):
        AsyncSMTP(bad)


@pytest.mark.parametrize(
    "bad",
    [
        {"pipelining": "steam"},
        {"chunking": "on"},
        {"tls": "ssl"},
        {"local_hostname": "a b"},
        {"timeout": 0},
        {"username": "\0"},
    ],
    ids=str,
)
def test_a_constructor_that_fails_leaves_nothing_that_complains(bad):
    """A half-made object is collected, and its `__del__` is called all the same."""
    with pytest.raises(ValueError) as caught_error:
        AsyncSMTP("mail.test", **bad)
    half_made = caught_error.traceback[1].frame.f_locals["self"]
    assert repr(half_made) == "<AsyncSMTP not connected>"
    del half_made, caught_error
    gc.collect()


@each_loop
async def test_a_connection_that_fails_leaves_the_client_closed():
    async with ScriptedServer([greeting(), "EHLO", close()], OVER) as server:
        smtp = AsyncSMTP(server.host, server.port)
        with pytest.raises(SMTPServerDisconnected):
            await smtp.connect()
        assert not smtp.is_connected
        async with smtp:
            await send(smtp)


@each_loop
async def test_quit_returns_what_the_server_said_and_raises_if_it_said_nothing():
    async with ScriptedServer([*hello(), *bye()], [*hello(), "QUIT", close()]) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        assert await smtp.quit() == (221, b"bye")
        with pytest.raises(SMTPServerDisconnected, match="connect"):
            await smtp.quit()
        await smtp.connect()
        with pytest.raises(SMTPServerDisconnected):
            await smtp.quit()
        assert not smtp.is_connected


# -- what can be sent ------------------------------------------------------------------------

TEXT = "Subject: hello\n\nHello.\n.\nBye.\n"
WIRE = TEXT.replace("\n", "\r\n").encode()


async def pieces(octets: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(octets), 5):
        yield octets[start : start + 5]


def in_file(folder: Path) -> Path:
    path = folder / "message.eml"
    path.write_bytes(TEXT.encode())
    return path


def old_message() -> Message:
    one = Message()
    one["Subject"] = "hello"
    one.set_payload("Hello.\n.\nBye.\n")
    return one


def new_message() -> EmailMessage:
    one = EmailMessage()
    one["Subject"] = "hello"
    one.set_payload("Hello.\n.\nBye.\n")
    return one


CONTENT = {
    "bytes": lambda folder: TEXT.encode(),
    "bytearray": lambda folder: bytearray(TEXT.encode()),
    "memoryview": lambda folder: memoryview(TEXT.encode()),
    "str": lambda folder: TEXT,
    "path": in_file,
    "file": lambda folder: io.BytesIO(TEXT.encode()),
    "real file": lambda folder: tempfile_with(TEXT.encode()),
    "list": lambda folder: [TEXT[:9].encode(), b"", TEXT[9:].encode()],
    "generator": lambda folder: (TEXT[at : at + 3].encode() for at in range(0, len(TEXT), 3)),
    "async generator": lambda folder: pieces(TEXT.encode()),
    "EmailMessage": lambda folder: new_message(),
    "Message": lambda folder: old_message(),
}


def tempfile_with(octets: bytes) -> io.IOBase:
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the test that gets it closes it
    file.write(octets)
    file.seek(0)
    return file


@each_loop
@pytest.mark.parametrize("kind", CONTENT)
@pytest.mark.parametrize("how", ["sendmail", "Envelope"])
async def test_content_of_every_kind_arrives_with_the_same_octets(kind, how, tmp_path):
    content = CONTENT[kind](tmp_path)
    async with MailServer() as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            if how == "sendmail":
                result = await smtp.sendmail(SENDER, [TO], content)
            else:
                [outcome] = [one async for one in smtp.send_messages([Envelope(SENDER, [TO], content)])]
                result = outcome.result
        assert isinstance(result, SendResult)
        assert server.messages[0].content == WIRE
        assert result.reply.text.endswith(server.messages[0].queue_id)
    with contextlib.suppress(AttributeError):
        content.close()


@pytest.mark.parametrize("bad", ["text", BODY, None], ids=["str", "bytes", "None"])
async def test_send_message_takes_message_objects_only(bad):
    with pytest.raises(TypeError, match="sendmail"):
        await AsyncSMTP("mail.test").send_message(bad)


@pytest.mark.parametrize("one", [message(), Envelope(SENDER, TO, BODY)], ids=["message", "Envelope"])
async def test_send_messages_takes_an_iterable_of_messages(one):
    """A message object is iterable itself, over the names of its headers."""
    with pytest.raises(TypeError, match="iterable"):
        await anext(AsyncSMTP("mail.test").send_messages(one))


@pytest.mark.parametrize("given", [{"username": "u"}, {"username": "u", "password": None}], ids=str)
def test_a_user_name_without_a_password_is_most_likely_a_mistake(given):
    with pytest.raises(ValueError, match="password"):
        AsyncSMTP("mail.test", **given)


async def test_a_str_is_always_text_and_never_the_name_of_a_file():
    async with MailServer() as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            await smtp.sendmail(SENDER, TO, __file__)
        assert server.messages[0].content == __file__.encode() + b"\r\n"


@pytest.mark.parametrize(
    "bad", [None, 42, object(), io.StringIO("text"), ["text"]], ids=lambda bad: type(bad).__name__
)
async def test_what_cannot_be_content_is_a_typeerror(bad):
    async with MailServer() as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            with pytest.raises(TypeError) as caught_error:
                await smtp.sendmail(SENDER, TO, bad)
            assert caught_error.value.delivery is Delivery.NOT_SENT
        assert server.messages == []


@each_loop
async def test_the_envelope_of_a_message_object_comes_from_its_headers():
    one = message(Cc=TOO, Bcc=NEXT, Sender="the.sender@from.test")
    async with MailServer(refuse={TOO: "550 no"}) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            result = await smtp.send_message(one)
            assert deliveries(result) == [Delivery.ACCEPTED, Delivery.REFUSED, Delivery.ACCEPTED]
            assert result.envelope == Envelope("the.sender@from.test", [TO, TOO, NEXT], one)
            await smtp.send_message(one, SENDER, NEXT)
            await smtp.send_message(one, "", [NEXT])
        assert [(taken.sender, taken.recipients) for taken in server.messages] == [
            ("the.sender@from.test", (TO, NEXT)),
            (SENDER, (NEXT,)),
            ("", (NEXT,)),
        ]


async def test_options_go_with_mail_and_with_each_recipient():
    async with MailServer() as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            await smtp.sendmail(SENDER, [TO, TOO], BODY, ["RET=HDRS", "ENVID=x"], ["NOTIFY=FAILURE"])
            await smtp.send_message(
                message(), mail_options=("RET=FULL",), rcpt_options=iter(["NOTIFY=NEVER"])
            )
            envelope = Envelope(SENDER, TO, BODY, mail_options="RET=FULL", rcpt_options="NOTIFY=NEVER")
            assert [one.delivery async for one in smtp.send_messages([envelope])] == [Delivery.ACCEPTED]
        first, second, third = server.messages
        assert {"RET=HDRS", "ENVID=x"} <= set(first.mail_options)
        assert first.rcpt_options == (("NOTIFY=FAILURE",), ("NOTIFY=FAILURE",))
        for one in (second, third):
            assert "RET=FULL" in one.mail_options
            assert one.rcpt_options == (("NOTIFY=NEVER",),)


@pytest.mark.parametrize("how", ["send_message", "Envelope"])
async def test_all_or_nothing_is_understood_everywhere(how):
    async with MailServer(refuse={TOO: "550 no"}) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            if how == "send_message":
                error = await caught(smtp.send_message(message(Cc=TOO), all_or_nothing=True))
            else:
                both = Envelope(SENDER, [TO, TOO], BODY, all_or_nothing=True)
                [outcome] = [one async for one in smtp.send_messages([both])]
                error = outcome.error
        assert isinstance(error, SMTPRecipientsRefused)
        assert server.messages == []


async def test_a_result_is_the_dict_that_smtplib_returns():
    async with MailServer(refuse={TOO: "550 5.1.1 no"}) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            result = await send(smtp, TO, TOO)
        assert result == {TOO: (550, b"5.1.1 no")}
        code, text = result[TOO]
        assert (code, text) == (550, b"5.1.1 no")
        assert result.accepted == (TO,)
        assert result.envelope == Envelope(SENDER, [TO, TOO], BODY)
        assert "accepted=['first@to.test']" in repr(result)


# -- many messages ---------------------------------------------------------------------------


async def envelopes(*recipients: str) -> AsyncIterator[Envelope]:
    for recipient in recipients:
        yield Envelope(SENDER, recipient, BODY)


@each_loop
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_each_of_many_messages_has_an_outcome(asynchronous):
    many = [
        message(),
        Envelope(SENDER, [TO, TOO], BODY),
        Envelope(SENDER, TOO, BODY),
        "no message",
        message(To=""),
    ]

    async def one_by_one() -> AsyncIterator[object]:
        for one in many:
            yield one

    async with MailServer(refuse={TOO: "550 no"}) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            source = one_by_one() if asynchronous else iter(many)
            outcomes = [outcome async for outcome in smtp.send_messages(source, ordered=True)]
        assert [one.index for one in outcomes] == [0, 1, 2, 3, 4]
        assert [one.message for one in outcomes] == many
        assert [one.delivery for one in outcomes] == [
            Delivery.ACCEPTED,
            Delivery.ACCEPTED,
            Delivery.REFUSED,
            Delivery.NOT_SENT,
            Delivery.NOT_SENT,
        ]
        assert [type(one.error) for one in outcomes] == [
            type(None),
            type(None),
            SMTPRecipientsRefused,
            TypeError,
            ValueError,
        ]
        assert outcomes[0].result.accepted == (TO,)
        assert deliveries(outcomes[1]) == [Delivery.ACCEPTED, Delivery.REFUSED]
        assert deliveries(outcomes[2]) == [Delivery.REFUSED]
        assert outcomes[3].outcomes == ()
        carrier = outcomes[0].connection
        assert isinstance(carrier, int)
        assert [one.connection for one in outcomes] == [carrier, carrier, carrier, None, None]
        assert [one.attempts for one in outcomes] == [1, 1, 1, 0, 0]


@each_loop
async def test_a_connection_lost_in_the_middle_of_many_messages_costs_one_of_them():
    rest = [*hello(), *take(NEXT), *bye()]
    async with ScriptedServer(
        [*hello(), *take(TO), *envelope(TOO), "DATA", GO, expect_content(), close()], rest
    ) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            outcomes = [one async for one in smtp.send_messages(envelopes(TO, TOO, NEXT))]
        assert [one.delivery for one in outcomes] == [Delivery.ACCEPTED, Delivery.UNKNOWN, Delivery.ACCEPTED]
        assert isinstance(outcomes[1].error, SMTPServerDisconnected)
        assert outcomes[0].connection == outcomes[1].connection != outcomes[2].connection


@each_loop
async def test_a_server_that_is_gone_for_good_is_the_outcome_of_all_that_follow():
    async with ScriptedServer([*hello(), *take(TO), "MAIL", close()], [b"554 no\r\n", *bye()]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            outcomes = [one async for one in smtp.send_messages(envelopes(TO, TOO, NEXT, NEXT))]
        assert [one.delivery for one in outcomes] == [Delivery.ACCEPTED] + [Delivery.NOT_SENT] * 3
        assert [type(one.error) for one in outcomes[1:]] == [
            SMTPServerDisconnected,
            SMTPConnectError,
            SMTPServerDisconnected,
        ]
        assert server.connections == 2  # a server that does not answer takes its time for each attempt


@each_loop
async def test_a_run_that_lost_its_server_is_not_the_end_of_the_client():
    down = [b"554 no\r\n", *bye()]
    again = [*hello(), *take(NEXT), *take(TO), *bye()]
    async with ScriptedServer([*hello(), *take(TO), "MAIL", close()], down, again) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            outcomes = [one async for one in smtp.send_messages(envelopes(TO, TOO, NEXT, NEXT))]
            assert [one.delivery for one in outcomes] == [Delivery.ACCEPTED] + [Delivery.NOT_SENT] * 3
            outcomes = [one async for one in smtp.send_messages(envelopes(NEXT))]
            assert [one.delivery for one in outcomes] == [Delivery.ACCEPTED]
            await send(smtp)


async def test_many_messages_without_a_connection_are_not_sent():
    outcomes = [one async for one in AsyncSMTP("mail.test").send_messages(envelopes(TO))]
    assert [(one.delivery, one.connection) for one in outcomes] == [(Delivery.NOT_SENT, None)]


@each_loop
async def test_what_the_iterable_itself_raises_ends_the_run():
    def broken() -> Iterator[Envelope]:
        yield Envelope(SENDER, TO, BODY)
        raise ZeroDivisionError

    async with MailServer() as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            outcomes = smtp.send_messages(broken())
            assert (await anext(outcomes)).delivery is Delivery.ACCEPTED
            with pytest.raises(ZeroDivisionError):
                await anext(outcomes)
            await send(smtp, NEXT)


async def test_messages_are_taken_one_at_a_time():
    taken = []

    def source() -> Iterator[Envelope]:
        for number in range(3):
            taken.append(number)
            yield Envelope(SENDER, TO, BODY)

    async with MailServer() as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            async with contextlib.aclosing(smtp.send_messages(source())) as outcomes:
                async for outcome in outcomes:
                    assert taken == [0]
                    assert outcome.index == 0
                    break
        assert len(server.messages) == 1


@each_loop
async def test_a_cancelled_run_says_what_is_known_of_the_message_it_was_at():
    reached = asyncio.Event()
    script = [*hello(), *take(TO), *envelope(TOO), "DATA", GO, expect_content(), mark(reached), stall()]
    async with ScriptedServer(script) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            done = []

            async def run() -> None:
                async for one in smtp.send_messages(envelopes(TO, TOO, NEXT)):
                    done.append(one.delivery)

            task = asyncio.create_task(caught(run()))
            await reached.wait()
            task.cancel()
            error = await task
        assert done == [Delivery.ACCEPTED]
        assert isinstance(error, asyncio.CancelledError)
        assert error.outcomes == ((TOO, Delivery.UNKNOWN, None),)


# -- many tasks ------------------------------------------------------------------------------


@each_loop
async def test_a_client_closed_by_one_task_fails_the_others_at_once():
    reached = asyncio.Event()
    async with ScriptedServer([*hello(), "NOOP", mark(reached), stall()]) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        tasks = [asyncio.create_task(caught(smtp.noop())) for _ in range(3)]
        await reached.wait()
        smtp.close()
        for error in await asyncio.gather(*tasks):
            assert isinstance(error, SMTPServerDisconnected)


@each_loop
async def test_a_block_that_fails_while_others_still_send_ends_their_sends():
    reached = asyncio.Event()
    script = [*hello(), *envelope(TO), "DATA", GO, expect_content(), mark(reached), read_all()]
    async with ScriptedServer(script) as server:
        tasks = []

        async def block() -> None:
            async with AsyncSMTP(server.host, server.port) as smtp:
                tasks.append(asyncio.create_task(caught(send(smtp))))
                await reached.wait()
                raise ZeroDivisionError

        assert isinstance(await caught(block()), ZeroDivisionError)
        error = await tasks[0]
        assert isinstance(error, SMTPServerDisconnected)
        assert error.delivery is Delivery.UNKNOWN
        assert b"QUIT" not in server.received[0]


@each_loop
async def test_a_connect_in_one_task_is_waited_for_by_the_sends_of_others():
    go_on = asyncio.Event()
    script = [greeting(), "EHLO", wait_for(go_on), b"250-x\r\n250 PIPELINING\r\n", *take(TO), *bye()]
    async with ScriptedServer(script) as server:
        smtp = AsyncSMTP(server.host, server.port)
        connecting = asyncio.create_task(smtp.connect())
        await asyncio.sleep(0)
        sending = asyncio.create_task(send(smtp))
        await asyncio.sleep(0)
        go_on.set()
        await connecting
        assert (await sending).accepted == (TO,)
        await smtp.quit()


def test_a_client_connected_in_one_loop_is_not_used_in_another():
    """Two loops: RuntimeError, and nothing is written; closed, it may go on elsewhere."""
    smtp = AsyncSMTP("localhost")
    with MailServer() as server:
        first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
        first.run_until_complete(smtp.connect(server.host, server.port))
        with pytest.raises(RuntimeError, match="another event loop"):
            second.run_until_complete(send(smtp))
        first.run_until_complete(send(smtp))
        first.run_until_complete(smtp.quit())
        second.run_until_complete(smtp.connect(server.host, server.port))
        second.run_until_complete(send(smtp, NEXT))
        second.run_until_complete(smtp.quit())
        first.close()
        second.close()
        assert [one.recipients for one in server.messages] == [(TO,), (NEXT,)]


def test_a_client_whose_loop_is_gone_connects_anew():
    """`asyncio.run` twice with one client that nobody closed."""
    with MailServer() as server:
        smtp = AsyncSMTP(server.host, server.port)

        async def left_open() -> None:
            await smtp.connect()
            await send(smtp)

        async def again() -> None:
            assert isinstance(await caught(smtp.noop()), SMTPServerDisconnected)
            async with smtp:
                await send(smtp, NEXT)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # asyncio's, about the transport that was left
            asyncio.run(left_open())
            asyncio.run(again())
            gc.collect()
        assert [one.recipients for one in server.messages] == [(TO,), (NEXT,)]


# -- the end of a client ---------------------------------------------------------------------


@each_loop
async def test_a_client_thrown_away_warns_once_and_takes_its_socket_along():
    async with ScriptedServer([*hello(), expect_eof()]) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        with warnings.catch_warnings(record=True) as caught_warnings:
            warnings.simplefilter("always")
            del smtp
            gc.collect()
            await server.conversations[0].gone.wait()
            gc.collect()
        [warning] = caught_warnings
        assert warning.category is ResourceWarning
        assert f"unclosed <AsyncSMTP connected to {server.host}" in str(warning.message)


@each_loop
async def test_a_client_thrown_away_inside_tls_takes_its_socket_along():
    authority = CertificateAuthority()
    async with ScriptedServer([*hello(), read_all()], implicit_tls=authority.server_context()) as server:
        smtp = AsyncSMTP(server.host, server.port, tls="implicit", tls_context=authority.client_context())
        await smtp.connect()
        with warnings.catch_warnings(record=True) as caught_warnings:
            warnings.simplefilter("always")
            del smtp
            gc.collect()
            await server.conversations[0].gone.wait()
        assert [warning.category for warning in caught_warnings] == [ResourceWarning]


async def test_a_client_thrown_away_in_another_thread_takes_its_socket_along():
    async with ScriptedServer([*hello(), expect_eof()]) as server:
        held = [AsyncSMTP(server.host, server.port)]
        await held[0].connect()

        def throw_away() -> None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                held.clear()
                gc.collect()

        thread = threading.Thread(target=throw_away)
        thread.start()
        await server.conversations[0].gone.wait()
        thread.join()


def test_a_client_thrown_away_after_its_loop_only_warns():
    with MailServer() as server:
        loop = asyncio.new_event_loop()
        smtp = AsyncSMTP(server.host, server.port)
        loop.run_until_complete(smtp.connect())
        loop.close()
        with warnings.catch_warnings(record=True) as caught_warnings:
            warnings.simplefilter("always")
            del smtp
            gc.collect()
            texts = [str(warning.message) for warning in caught_warnings]
            caught_warnings.clear()  # it held the client, and with it the transport of a loop that is gone
            gc.collect()
        assert [text for text in texts if text.startswith("unclosed <AsyncSMTP")] == texts


@each_loop
async def test_a_client_thrown_away_after_the_server_went_does_not_warn():
    async with ScriptedServer([*hello(), drop()]) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        while smtp.is_connected:
            await asyncio.sleep(0)
        del smtp
        gc.collect()


def test_a_client_that_never_connected_does_not_warn():
    AsyncSMTP("mail.test")
    gc.collect()


# -- LMTP ------------------------------------------------------------------------------------


@each_loop
async def test_an_lmtp_client_on_tcp_and_on_a_unix_socket(tmp_path):
    for place in ({}, {"unix_path": tmp_path / "socket"}):
        async with MailServer(lmtp=True, **place) as server:
            async with AsyncLMTP(server.host, server.port, "me.example", ("127.0.0.1", 0), LONG) as lmtp:
                assert lmtp.timeout == Timeouts.of(LONG)
                assert repr(lmtp).startswith("<AsyncLMTP connected to ")
                await send(lmtp)
            assert server.messages[0].helo == "me.example"
            assert server.messages[0].lmtp


@pytest.mark.parametrize("kind", [AsyncSMTP, AsyncLMTP])
async def test_a_client_logs_in_with_the_credentials_of_its_constructor(kind):
    async with MailServer(lmtp=kind is AsyncLMTP, users={"u": "p"}) as server:
        async with kind(server.host, server.port, username="u", password="p") as client:
            await send(client)
        assert server.messages[0].user == "u"


def test_the_default_ports_are_smtplibs():
    assert (AsyncSMTP.default_port, AsyncLMTP.default_port) == (25, 2003)
    assert repr(AsyncSMTP("mail.test")) == "<AsyncSMTP not connected to mail.test:25>"
    assert repr(AsyncSMTP("mail.test", tls="implicit")) == "<AsyncSMTP not connected to mail.test:465>"
    assert repr(AsyncLMTP("mail.test")) == "<AsyncLMTP not connected to mail.test:2003>"
    assert repr(AsyncLMTP("mail.test", tls="implicit")) == "<AsyncLMTP not connected to mail.test:2003>"
    assert repr(AsyncSMTP("/run/smtp")) == "<AsyncSMTP not connected to /run/smtp>"
    assert repr(AsyncSMTP()) == "<AsyncSMTP not connected to localhost:25>"


# -- sockets given ---------------------------------------------------------------------------


@each_loop
async def test_a_given_socket_is_used(tmp_path):
    async with MailServer() as server, MailServer(unix_path=tmp_path / "socket") as unix:
        tcp = socket.create_connection((server.host, server.port))
        local = socket.socket(socket.AF_UNIX)
        local.connect(unix.host)
        for given, place in ((tcp, server), (local, unix)):
            async with AsyncSMTP(sock=given, username=None) as smtp:
                assert repr(smtp) == "<AsyncSMTP connected to the given socket>"
                await send(smtp)
            assert len(place.messages) == 1
            assert given.fileno() == -1


@each_loop
async def test_one_end_of_a_socket_pair_is_used():
    ours, theirs = socket.socketpair()

    async def serve() -> None:
        reader, writer = await asyncio.open_connection(sock=theirs)
        writer.write(b"220 hi\r\n")
        for reply in (b"250 hi\r\n", OK, OK, GO, OK, b"221 bye\r\n"):
            line = await reader.readline()
            if reply is OK and b"DATA" not in line and b"Subject" in line:
                await reader.readuntil(b"\r\n.\r\n")
            writer.write(reply)
        writer.close()
        await writer.wait_closed()

    serving = asyncio.create_task(serve())
    async with AsyncSMTP(sock=ours) as smtp:
        assert (await send(smtp)).accepted == (TO,)
    await serving


@each_loop
async def test_a_given_socket_that_is_spent_is_a_connect_error():
    async with MailServer() as server:
        given = socket.create_connection((server.host, server.port))
        smtp = AsyncSMTP(sock=given)
        await smtp.connect()
        await smtp.quit()
        error = await caught(smtp.connect())
        assert isinstance(error, SMTPException | ValueError)
        assert not smtp.is_connected


async def test_the_trace_of_a_whole_session():
    events = []
    async with ScriptedServer(OVER) as server:
        trace = lambda event, octets: events.append((event, octets))  # noqa: E731
        async with AsyncSMTP(server.host, server.port, "me.example", trace=trace) as smtp:
            await send(smtp)
    assert events[:3] == [
        ("reply", b"220 mail.test ESMTP\r\n"),
        ("send", b"EHLO me.example\r\n"),
        ("reply", b"250 mail.test\r\n"),
    ]
    assert ("content", BODY + b".\r\n") in events
    assert events[-2:] == [("send", b"QUIT\r\n"), ("reply", b"221 bye\r\n")]
    assert verbs(b"".join(octets for event, octets in events if event == "send")) == [
        "EHLO",
        "MAIL",
        "RCPT",
        "DATA",
        "QUIT",
    ]


async def test_implicit_tls_on_a_server_in_clear_says_what_to_turn():
    async with MailServer() as server:
        error = await caught(
            AsyncSMTP(server.host, server.port, tls="implicit", timeout=SHORT * 10).connect()
        )
        assert isinstance(error, SMTPTLSError)
        assert "tls='starttls'" in str(error)
