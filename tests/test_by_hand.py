"""Envelopes made by hand: what `mail`, `rcpt`, `rset`, `docmd` and `data` know of each other."""

from __future__ import annotations

import asyncio
import socket
import traceback
from collections.abc import Callable

import pytest

from aiosmtpclient import (
    AsyncLMTP,
    AsyncSMTP,
    Delivery,
    SMTPAuthenticationError,
    SMTPConnectError,
    SMTPDataError,
    SMTPProtocolError,
    SMTPServerDisconnected,
    SMTPTLSError,
    TLSPolicy,
    run_sync,
    send,
)
from aiosmtpclient.testing import MailServer, ScriptedServer
from aiosmtpclient.testing.scripted import close, ehlo, expect, expect_content, greeting, say

BODY = b"Subject: hi\r\n\r\nhi\r\n"
PASSWORD = "tr0ub4dor-s3cret"


# What is known about a delivery


async def test_an_end_that_left_is_unknown_though_the_recipients_were_named_by_docmd() -> None:
    script = [
        greeting(),
        ehlo(),
        expect("MAIL"),
        say(b"250 ok\r\n"),
        expect("RCPT"),
        say(b"250 ok\r\n"),
        expect("DATA"),
        say(b"354 go\r\n"),
        expect_content(),
        close(),
    ]
    async with ScriptedServer(script) as server, AsyncSMTP(server.host, server.port) as smtp:
        await smtp.mail("a@x.test")
        await smtp.docmd("RCPT TO:<b@x.test>")

        with pytest.raises(SMTPServerDisconnected) as caught:
            await smtp.data(BODY)

    assert caught.value.delivery is Delivery.UNKNOWN


async def test_a_refused_end_is_refused_though_the_recipients_were_named_by_docmd() -> None:
    async with MailServer(refuse_content="554 5.6.0 no") as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            await smtp.docmd("MAIL FROM:<a@x.test>")
            await smtp.docmd("RCPT TO:<b@x.test>")

            assert (await smtp.data(BODY)).code == 554


async def test_recipients_of_an_envelope_that_was_reset_get_no_replies_of_the_next() -> None:
    async with MailServer(lmtp=True) as server, AsyncLMTP(server.host, server.port) as lmtp:
        await lmtp.mail("a@x.test")
        await lmtp.rcpt("x@x.test")
        await lmtp.rset()
        await lmtp.mail("a@x.test")
        await lmtp.rcpt("z@x.test")

        assert (await lmtp.data(BODY)).positive

    [message] = server.messages
    assert message.recipients == ("z@x.test",)


async def test_lmtp_sends_no_content_to_recipients_it_does_not_know() -> None:
    async with MailServer(lmtp=True) as server, AsyncLMTP(server.host, server.port) as lmtp:
        await lmtp.mail("a@x.test")
        await lmtp.docmd("RCPT TO:<x@x.test>")

        with pytest.raises(RuntimeError, match=r"name the recipients by rcpt\(\)"):
            await lmtp.data(BODY)

        assert (await lmtp.noop()).positive
    assert server.messages == []


# What is answered


@pytest.mark.parametrize("verb", ["mail", "rcpt", "rset", "noop"])
async def test_a_server_that_asks_for_more_after_a_verb_would_take_the_next_one_as_content(verb: str) -> None:
    calls: dict[str, Callable[[AsyncSMTP], object]] = {
        "mail": lambda smtp: smtp.mail("a@x.test"),
        "rcpt": lambda smtp: smtp.rcpt("a@x.test"),
        "rset": lambda smtp: smtp.rset(),
        "noop": lambda smtp: smtp.noop(),
    }
    script = [greeting(), ehlo(), expect(verb.upper()), say(b"354 go on\r\n")]
    async with ScriptedServer(script) as server, AsyncSMTP(server.host, server.port) as smtp:
        with pytest.raises(SMTPProtocolError):
            await calls[verb](smtp)  # type: ignore[misc]

        assert not smtp.is_connected


async def test_after_an_explicit_helo_no_options_go_out() -> None:
    async with MailServer() as server, AsyncSMTP(server.host, server.port) as smtp:
        await smtp.helo()

        await smtp.sendmail("a@x.test", "b@x.test", BODY, ["RET=HDRS"], ["NOTIFY=NEVER"])

    assert "MAIL FROM:<a@x.test>" in server.commands
    assert "RCPT TO:<b@x.test>" in server.commands


@pytest.mark.parametrize("content", [b"\xe9\r\n", [b"\xe9\r\n"]], ids=["octets", "iterable"])
async def test_8bit_content_by_hand_is_the_callers_business_whatever_it_comes_in(content: object) -> None:
    async with MailServer(without={"8BITMIME", "SMTPUTF8"}) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            await smtp.mail("a@x.test")
            await smtp.rcpt("b@x.test")

            assert (await smtp.data(content)).positive  # type: ignore[arg-type]

    assert server.messages[0].content == b"\xe9\r\n"


async def test_a_password_that_spells_a_keyword_takes_no_extension_away() -> None:
    async with MailServer(users={"me": "SIZE"}, size_limit=1000) as server:
        async with AsyncSMTP(server.host, server.port, username="me", password="SIZE") as smtp:
            await smtp.ehlo()

            assert smtp.extensions.size_limit == 1000


# What is found before anybody connects


async def test_send_finds_wrong_input_before_it_connects() -> None:
    async with MailServer() as server:
        for sender, recipients in ((None, ["b@x.test"]), ("a@x.test", []), ("a\r\nb@x.test", ["b@x.test"])):
            with pytest.raises(ValueError) as caught:
                await send(BODY, sender=sender, recipients=recipients, host=server.host, port=server.port)
            assert caught.value.delivery is Delivery.NOT_SENT  # type: ignore[attr-defined]

    assert server.connections == 0


@pytest.mark.parametrize("port", ["587", 587])
def test_a_port_from_the_environment_keeps_its_policy(port: int) -> None:
    assert AsyncSMTP("smtp.example.org", port)._settings.policy is TLSPolicy.STARTTLS


@pytest.mark.parametrize("port", ["x", -5, 99999, 2.5])
def test_a_port_that_is_none_is_refused_by_the_constructor(port: object) -> None:
    with pytest.raises(SMTPConnectError, match="no port number"):
        AsyncSMTP("localhost", port)  # type: ignore[arg-type]


def test_a_source_port_that_is_none_is_refused_by_the_constructor() -> None:
    with pytest.raises(SMTPConnectError, match="no port number"):
        AsyncSMTP("localhost", source_address=("127.0.0.1", 70000))


@pytest.mark.parametrize("host", ["a\0b", "a\r\nb", "two words"])
def test_a_host_that_is_none_is_refused_by_the_constructor(host: str) -> None:
    with pytest.raises(ValueError, match="not a host"):
        AsyncSMTP(host)


def test_a_user_name_without_a_password_is_refused_before_it_locks_an_account() -> None:
    with pytest.raises(ValueError, match="needs a password"):
        AsyncSMTP("localhost", username="me")


@pytest.mark.parametrize(("port", "policy"), [(587, "starttls"), (465, "implicit"), (25, "opportunistic")])
def test_a_socket_through_a_proxy_keeps_the_policy_of_its_target(port: int, policy: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()) as sock:
            settings = AsyncSMTP("smtp.example.org", port, sock=sock)._settings

    assert settings.policy.value == policy
    assert not settings.endpoint.local


async def test_a_given_socket_that_was_closed_says_that_it_can_be_used_once() -> None:
    sock = socket.socket()
    sock.close()
    with pytest.raises(SMTPConnectError, match="can be used once"):
        await AsyncSMTP(sock=sock, tls="none").connect()


# Secrets


@pytest.mark.parametrize("client", [AsyncSMTP, AsyncLMTP])
def test_a_constructor_that_fails_shows_no_password_in_a_traceback_with_locals(
    client: type[AsyncSMTP],
) -> None:
    with pytest.raises(ValueError) as caught:
        client("localhost", tls="bogus", username="me", password=_password())

    assert PASSWORD not in _with_locals(caught.value)


async def test_a_send_that_cannot_connect_shows_no_password_in_a_traceback_with_locals() -> None:
    async with MailServer() as server:
        gone = server.port
    with pytest.raises(SMTPConnectError) as caught:
        await send(
            BODY,
            sender="a@x.test",
            recipients="b@x.test",
            host="127.0.0.1",
            port=gone,
            username="me",
            password=_password(),
        )

    assert PASSWORD not in _with_locals(caught.value)


def test_the_blocking_side_shows_no_password_either() -> None:
    async def refused() -> None:
        async with MailServer(users={"me": "another"}) as server:
            async with AsyncSMTP(server.host, server.port, username="me", password=_password()):
                raise AssertionError("logged in")

    with pytest.raises(SMTPAuthenticationError) as caught:
        run_sync(refused())

    assert PASSWORD not in _with_locals(caught.value)


async def test_credentials_do_not_travel_in_clear_through_a_proxy_on_this_machine() -> None:
    async with MailServer(users={"me": PASSWORD}) as server:
        sock = socket.create_connection((server.host, server.port))
        client = AsyncSMTP("smtp.example.org", 2525, sock=sock, username="me", password=_password())
        with pytest.raises(SMTPTLSError, match="in clear"):
            await client.connect()

    assert not any(command.startswith("AUTH") for command in server.commands)


def _password() -> str:
    """The secret, without a trace of it in the frame of the test."""
    return "".join(reversed("terc3s-rod4bu0rt"))


def _with_locals(error: BaseException) -> str:
    """The traceback with locals, but for this file's own constant and frames."""
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    return "".join(line for line in shown.format() if "PASSWORD" not in line)


def test_refused_data_by_hand_is_smtplibs_error() -> None:
    async def conversation() -> None:
        script = [greeting(), ehlo(), expect("DATA"), say(b"503 5.5.1 no recipients\r\n"), expect("QUIT")]
        async with ScriptedServer([*script, say(b"221 bye\r\n")]) as server:
            async with AsyncSMTP(server.host, server.port) as smtp:
                with pytest.raises(SMTPDataError):
                    await smtp.data(BODY)

    asyncio.run(conversation())
