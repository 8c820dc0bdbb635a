"""The verbs: each command of smtplib's vocabulary, awaitable."""

from __future__ import annotations

import asyncio
import smtplib

import pytest
from wire import BODY, GO, NEXT, OK, SENDER, SHORT, TO, TOO, bye, caught, each_loop, hello, send, take, verbs

from aiosmtpclient import (
    AsyncLMTP,
    AsyncSMTP,
    Delivery,
    Reply,
    SMTPDataError,
    SMTPHeloError,
    SMTPNotSupportedError,
    SMTPProtocolError,
    SMTPResponseException,
    SMTPServerDisconnected,
    SMTPTLSError,
    Timeouts,
)
from aiosmtpclient.testing import CertificateAuthority, MailServer, ScriptedServer
from aiosmtpclient.testing.scripted import expect_content, expect_eof, greeting, read_all, starttls

ALL_VERBS = {
    "noop": lambda smtp: smtp.noop(),
    "rset": lambda smtp: smtp.rset(),
    "ehlo": lambda smtp: smtp.ehlo("me.example"),
    "helo": lambda smtp: smtp.helo("me.example"),
    "help": lambda smtp: smtp.help(),
    "verify": lambda smtp: smtp.verify(TO),
    "vrfy": lambda smtp: smtp.vrfy(TO),
    "expn": lambda smtp: smtp.expn("list"),
    "mail": lambda smtp: smtp.mail(SENDER),
    "rcpt": lambda smtp: smtp.rcpt(TO),
    "docmd": lambda smtp: smtp.docmd("XYZZY", "plugh"),
    "data": lambda smtp: smtp.data(BODY),
    "login": lambda smtp: smtp.login("u", "p"),
    "auth": lambda smtp: smtp.auth("PLAIN", smtp.auth_plain),
    "starttls": lambda smtp: smtp.starttls(),
    "ehlo_or_helo_if_needed": lambda smtp: smtp.ehlo_or_helo_if_needed(),
    "quit": lambda smtp: smtp.quit(),
    "sendmail": lambda smtp: smtp.sendmail(SENDER, TO, BODY),
}

LINES = {
    "noop": "NOOP",
    "rset": "RSET",
    "ehlo": "EHLO me.example",
    "helo": "HELO me.example",
    "help": "HELP",
    "verify": f"VRFY {TO}",
    "vrfy": f"VRFY {TO}",
    "expn": "EXPN list",
    "mail": f"MAIL FROM:<{SENDER}>",
    "rcpt": f"RCPT TO:<{TO}>",
    "docmd": "XYZZY plugh",
}


@each_loop
@pytest.mark.parametrize("code", [250, 252, 450, 550])
@pytest.mark.parametrize("verb", LINES)
async def test_a_verb_returns_what_the_server_said_whatever_it_is(verb, code):
    """As in smtplib: no verb of these raises for a refusal; `help` returns the text."""
    script = [*hello(), LINES[verb], b"%d-first\r\n%d second\r\n" % (code, code)]
    if verb in ("ehlo", "helo") and code == 252:
        script += [expect_eof()]
    else:
        script += ["NOOP", b"250 still in step\r\n", *bye()]
    async with ScriptedServer(script) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            if verb in ("ehlo", "helo") and code == 252:
                assert isinstance(await caught(ALL_VERBS[verb](smtp)), SMTPProtocolError)
                return
            answer = await ALL_VERBS[verb](smtp)
            if verb == "help":
                assert answer == b"first\nsecond"
            else:
                assert isinstance(answer, Reply)
                assert answer == (code, b"first\nsecond")
            assert (await smtp.noop()).message == b"still in step"
        assert server.received[0].decode().split("\r\n")[1] == LINES[verb]


@pytest.mark.parametrize("verb", ALL_VERBS)
async def test_a_verb_without_a_connection_says_connect_first(verb):
    error = await caught(ALL_VERBS[verb](AsyncSMTP("mail.test")))
    assert isinstance(error, SMTPServerDisconnected)
    assert isinstance(error, smtplib.SMTPServerDisconnected)
    assert "connect()" in str(error)


async def test_a_reply_unpacks_as_in_smtplib():
    async with MailServer() as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            code, message = await smtp.noop()
            assert (code, message) == (250, b"2.0.0 Ok")


# -- what is known about the server ----------------------------------------------------------


async def test_what_the_server_said_is_remembered_as_smtplib_remembers_it():
    script = [*hello("SIZE 1000", "AUTH PLAIN", "X-Odd"), "HELO", b"250 hi\r\n", *bye()]
    smtp = AsyncSMTP("mail.test", username="u", password="p", timeout=7)
    assert (smtp.ehlo_resp, smtp.helo_resp, smtp.does_esmtp) == (None, None, False)
    assert (smtp.esmtp_features, smtp.has_extn("size"), smtp.is_connected) == ({}, False, False)
    assert (smtp.user, smtp.password) == ("u", "p")
    assert smtp.timeout == Timeouts(7, 7, 7, 7)
    async with ScriptedServer(script) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            assert smtp.does_esmtp
            assert smtp.ehlo_resp == b"mail.test\nSIZE 1000\nAUTH PLAIN\nX-Odd"
            assert smtp.esmtp_features == {"size": "1000", "auth": " PLAIN", "x-odd": ""}
            assert smtp.has_extn("SIZE")
            assert smtp.extensions.size_limit == 1000
            assert (smtp.user, smtp.password) == ("", "")
            await smtp.helo()
            assert smtp.helo_resp == b"hi"
            assert smtp.esmtp_features == {}


@pytest.mark.parametrize(
    ("given", "own", "expected"), [("me.example", "x.y", "me.example"), (None, "x.y", "x.y")]
)
async def test_the_name_that_ehlo_is_said_with(given, own, expected, monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: own)
    async with MailServer() as server:
        smtp = AsyncSMTP(server.host, server.port, given)
        assert smtp.local_hostname == expected
        async with smtp:
            assert smtp.local_hostname == expected
            await send(smtp)
        assert server.messages[0].helo == expected


def test_a_host_without_a_domain_says_hello_with_an_address(monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "box")
    assert AsyncSMTP("mail.test").local_hostname == "[127.0.0.1]"


# -- hello -----------------------------------------------------------------------------------


@each_loop
async def test_hello_is_said_again_only_where_it_was_forgotten():
    script = [*hello(), "EHLO", b"502 no\r\n", *bye()]
    async with ScriptedServer(script) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            await smtp.ehlo_or_helo_if_needed()
            await smtp.ehlo()
            assert smtp.ehlo_resp == b"no"
            await smtp.ehlo_or_helo_if_needed()
        assert verbs(server.received[0]) == ["EHLO", "EHLO", "QUIT"]


async def test_hello_that_is_refused_by_ehlo_and_helo_raises():
    authority = CertificateAuthority()
    script = [*hello("STARTTLS"), "STARTTLS", b"220 go\r\n", starttls(authority.server_context())]
    script += ["EHLO", b"502 no\r\n", "HELO", b"550 no\r\n", *bye()]
    async with ScriptedServer(script) as server:
        async with AsyncSMTP(server.host, server.port, tls_context=authority.client_context()) as smtp:
            await smtp.starttls()
            with pytest.raises(SMTPHeloError) as caught_error:
                await smtp.ehlo_or_helo_if_needed()
            assert caught_error.value.smtp_code == 550


async def test_lmtp_says_lhlo_by_hand_too():
    async with MailServer(lmtp=True) as server:
        async with AsyncLMTP(server.host, server.port) as lmtp:
            assert (await lmtp.ehlo("me.example")).code == 250
        assert server.commands[1] == "LHLO me.example"


# -- TLS and login ---------------------------------------------------------------------------


@each_loop
async def test_starttls_and_login_by_hand():
    authority = CertificateAuthority()
    async with MailServer(starttls=True, users={"u": "p"}, auth_requires_tls=True) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            reply = await smtp.starttls(context=authority.client_context(), server_hostname="localhost")
            assert reply.code == 220
            assert (await smtp.login("u", "p")).code == 235
            assert (smtp.user, smtp.password) == ("u", "p")
            await send(smtp)
        assert (server.messages[0].tls, server.messages[0].user) == (True, "u")


async def test_starttls_that_is_not_to_be_had_keeps_the_connection():
    async with ScriptedServer(
        [*hello(), "EHLO", b"250-x\r\n250 STARTTLS\r\n", "STARTTLS", b"454 no\r\n", *bye()]
    ) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            with pytest.raises(SMTPNotSupportedError):
                await smtp.starttls()
            await smtp.ehlo()
            with pytest.raises(SMTPResponseException):
                await smtp.starttls()


async def test_starttls_with_a_certificate_for_somebody_else_closes():
    authority = CertificateAuthority()
    async with MailServer(starttls=authority.wrong_name_context()) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            with pytest.raises(SMTPTLSError):
                await smtp.starttls(context=authority.client_context())
            assert not smtp.is_connected


@pytest.mark.parametrize("name", ["plain", "login", "cram_md5"])
@pytest.mark.parametrize("initial_response_ok", [True, False])
async def test_smtplibs_authobjects(name, initial_response_ok):
    mechanism = name.upper().replace("_", "-")
    async with MailServer(users={"u": "p"}, mechanisms=[mechanism]) as server:
        async with AsyncSMTP(server.host, server.port, username="", password="") as smtp:
            await caught(smtp.login("u", "p", mechanisms=[]))  # only to be remembered, as in smtplib
            authobject = getattr(smtp, f"auth_{name}")
            assert (
                await smtp.auth(mechanism, authobject, initial_response_ok=initial_response_ok)
            ).code == 235
            await send(smtp)
        assert server.messages[0].user == "u"


def test_authobjects_answer_as_smtplibs_do():
    smtp, theirs = AsyncSMTP("mail.test", username="u", password="p"), smtplib.SMTP()
    theirs.user, theirs.password = "u", "p"
    assert smtp.auth_plain() == theirs.auth_plain()
    assert smtp.auth_login() == theirs.auth_login()
    assert smtp.auth_cram_md5() == theirs.auth_cram_md5()
    assert smtp.auth_cram_md5(b"<1@x>") == theirs.auth_cram_md5(b"<1@x>")


# -- an envelope by hand ---------------------------------------------------------------------


@each_loop
@pytest.mark.parametrize("content", [BODY, BODY.decode(), iter([BODY])], ids=["bytes", "str", "iterable"])
async def test_an_envelope_by_hand(content):
    async with MailServer(refuse={TOO: "550 no"}) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            assert (await smtp.mail(SENDER, ["BODY=8BITMIME"])).code == 250
            assert (await smtp.rcpt(TO, ["NOTIFY=NEVER"])).code == 250
            assert (await smtp.rcpt(TOO)).code == 550
            assert (
                await smtp.data(
                    iter([BODY]) if content is not BODY and not isinstance(content, str) else content
                )
            ).code == 250
            await send(smtp, NEXT)
        assert [one.recipients for one in server.messages] == [(TO,), (NEXT,)]
        assert server.messages[0].content == BODY
        assert server.messages[0].rcpt_options == (("NOTIFY=NEVER",),)


async def test_after_helo_no_parameters_go_out_by_hand():
    script = [greeting(), "EHLO", b"500 no\r\n", "HELO", b"250 hi\r\n", "MAIL", OK, "RCPT", OK, *bye()]
    async with ScriptedServer(script) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            await smtp.mail(SENDER, ["SIZE=1", "SMTPUTF8"])
            await smtp.rcpt(TO, ["NOTIFY=NEVER"])
        assert f"MAIL FROM:<{SENDER}>\r\nRCPT TO:<{TO}>\r\n".encode() in server.received[0]


@each_loop
@pytest.mark.parametrize("kind", [AsyncSMTP, AsyncLMTP])
async def test_an_envelope_by_hand_may_be_asked_for_all_at_once(kind):
    """The verbs wait for their turns; who was accepted is known when it is the content's."""
    async with MailServer(lmtp=kind is AsyncLMTP) as server:
        async with kind(server.host, server.port) as client:
            calls = client.mail(SENDER), client.rcpt(TO), client.rcpt(TOO), client.data(BODY), client.noop()
            assert [reply.code for reply in await asyncio.gather(*calls)] == [250] * 5
        assert server.messages[0].recipients == (TO, TOO)


@each_loop
async def test_refused_content_by_hand_is_returned_and_refused_data_raises():
    script = [*hello(), "MAIL", OK, "RCPT", OK, "DATA", b"451 not now\r\n", "DATA", GO, expect_content()]
    script += [b"554 no\r\n", "NOOP", OK, *bye()]
    async with ScriptedServer(script) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            await smtp.mail(SENDER)
            await smtp.rcpt(TO)
            with pytest.raises(SMTPDataError) as caught_error:
                await smtp.data(BODY)
            assert caught_error.value.outcomes == ((TO, Delivery.REFUSED, (451, b"not now")),)
            assert await smtp.data(BODY) == (554, b"no")
            await smtp.noop()


@each_loop
async def test_content_by_hand_that_is_cancelled_says_what_is_known():
    reached = asyncio.Event()

    async def mark(_: object) -> None:
        reached.set()

    async with ScriptedServer(
        [*hello(), "MAIL", OK, "RCPT", OK, "DATA", GO, expect_content(), mark, read_all()]
    ) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            await smtp.mail(SENDER)
            await smtp.rcpt(TO)
            task = asyncio.create_task(caught(smtp.data(BODY)))
            await reached.wait()
            task.cancel()
            error = await task
            assert error.outcomes == ((TO, Delivery.UNKNOWN, None),)
            assert not smtp.is_connected


async def test_recipients_of_an_envelope_that_was_reset_are_forgotten():
    async with MailServer(lmtp=True) as server:
        async with AsyncLMTP(server.host, server.port) as lmtp:
            for recipient in (TOO, TO):
                await lmtp.mail(SENDER)
                await lmtp.rcpt(recipient)
                if recipient is TOO:
                    await lmtp.rset()
            assert (await lmtp.data(BODY)).code == 250
            assert (await lmtp.noop()).code == 250
        assert server.messages[0].recipients == (TO,)


async def test_a_reset_without_an_answer_is_an_error_like_any_other():
    reached = asyncio.Event()

    async def mark(_: object) -> None:
        reached.set()

    async with ScriptedServer([*hello(), "RSET", mark, read_all()], [*hello(), "RSET", OK, *bye()]) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        task = asyncio.create_task(caught(smtp.rset()))
        await reached.wait()
        smtp.close()
        assert isinstance(await task, SMTPServerDisconnected)
        async with smtp:
            assert (await smtp.rset()).code == 250


async def test_a_client_closed_in_the_turn_of_an_answer_still_gives_the_answer():
    reached = asyncio.Event()

    async def mark(_: object) -> None:
        reached.set()

    async with ScriptedServer([*hello(), "RSET", mark, read_all()]) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        task = asyncio.create_task(smtp.rset())
        await reached.wait()
        smtp._connection.protocol.data_received(OK)
        smtp.close()
        assert (await task).code == 250


async def test_in_lmtp_recipients_that_were_not_named_by_rcpt_cannot_be_answered_for():
    async with ScriptedServer([*hello(verb="LHLO"), "MAIL", OK, "RCPT", OK, *bye()]) as server:
        async with AsyncLMTP(server.host, server.port) as lmtp:
            await lmtp.docmd("MAIL", f"FROM:<{SENDER}>")
            await lmtp.docmd("RCPT", f"TO:<{TO}>")
            with pytest.raises(RuntimeError, match=r"rcpt\(\)"):
                await lmtp.data(BODY)


async def test_a_wrong_address_by_hand_writes_nothing():
    async with ScriptedServer([*hello(), *bye()]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            for call in (smtp.mail, smtp.rcpt, smtp.verify, smtp.expn):
                with pytest.raises(ValueError):
                    await call("a b")
            with pytest.raises(ValueError):
                await smtp.data(b"\0")
        assert verbs(server.received[0]) == ["EHLO", "QUIT"]


async def test_international_addresses_by_hand():
    script = [*hello("SMTPUTF8"), "MAIL", OK, "RCPT", OK, "VRFY", b"252 x\r\n", "EXPN", OK, "XYZZY", OK]
    script += ["MAIL", OK, *bye()]
    async with ScriptedServer(script) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            await smtp.mail("j\u00f6rg@from.test", ["SMTPUTF8"])
            await smtp.rcpt("j\u00f6rg@to.test")
            await smtp.verify("j\u00f6rg@to.test")
            await smtp.expn("j\u00f6rg")
            await smtp.docmd("XYZZY", "\u00fc")
            await smtp.mail("j\u00f6rg@from.test", ["BODY=8BITMIME"])
        lines = server.received[0].decode().split("\r\n")[1:7]
        assert lines == [
            "MAIL FROM:<j\u00f6rg@from.test> SMTPUTF8",
            "RCPT TO:<j\u00f6rg@to.test>",
            "VRFY j\u00f6rg@to.test SMTPUTF8",
            "EXPN j\u00f6rg SMTPUTF8",
            "XYZZY \u00fc",
            "MAIL FROM:<j\u00f6rg@from.test> BODY=8BITMIME SMTPUTF8",
        ]


@pytest.mark.parametrize("call", [lambda s: s.mail(SENDER, ["smtputf8"]), lambda s: s.rcpt("\u00fc@x.test")])
async def test_smtputf8_that_is_not_offered_is_not_asked_for(call):
    async with ScriptedServer([*hello(), *bye()]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            with pytest.raises(SMTPNotSupportedError):
                await call(smtp)


# -- the turn, and what docmd begins ---------------------------------------------------------


@each_loop
async def test_a_verb_after_docmd_data_does_not_become_message_text():
    """The server waits for content: whatever is written now would be taken for it."""
    script = [*hello(), "MAIL", OK, "RCPT", OK, "DATA", GO, ".", b"250 empty\r\n", *take(TO), *bye()]
    async with ScriptedServer(script) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            await smtp.mail(SENDER)
            await smtp.rcpt(TO)
            assert (await smtp.docmd("DATA")).code == 354
            for verb in (
                "noop",
                "rset",
                "ehlo",
                "mail",
                "verify",
                "login",
                "auth",
                "starttls",
                "sendmail",
                "data",
            ):
                error = await caught(ALL_VERBS[verb](smtp))
                assert isinstance(error, RuntimeError | SMTPNotSupportedError), verb
            assert smtp.is_connected
            assert (await smtp.docmd(".")).message == b"empty"
            await send(smtp)
        assert b"DATA\r\n.\r\nMAIL" in server.received[0]


async def test_quit_in_the_middle_of_content_by_hand_closes_without_writing_it():
    async with ScriptedServer([*hello(), "MAIL", OK, "RCPT", OK, "DATA", GO, expect_eof()]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            await smtp.mail(SENDER)
            await smtp.rcpt(TO)
            await smtp.docmd("DATA")
            with pytest.raises(RuntimeError):
                await smtp.quit()
            assert not smtp.is_connected
        assert b"QUIT" not in server.received[0]


async def test_a_block_left_in_the_middle_of_content_by_hand_writes_no_quit_into_it():
    async with ScriptedServer([*hello(), "MAIL", OK, "RCPT", OK, "DATA", GO, expect_eof()]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            await smtp.mail(SENDER)
            await smtp.rcpt(TO)
            await smtp.docmd("DATA")
        assert b"QUIT" not in server.received[0]


@each_loop
async def test_verbs_of_many_tasks_take_turns():
    async with MailServer() as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            replies = await asyncio.gather(
                smtp.noop(), smtp.verify(TO), smtp.rset(), smtp.expn("x"), smtp.noop()
            )
        assert [reply.code for reply in replies] == [250, 252, 250, 250, 250]
        assert server.commands[1:6] == ["NOOP", f"VRFY {TO}", "RSET", "EXPN x", "NOOP"]


def test_a_verb_in_another_loop_than_the_clients_is_refused():
    with MailServer() as server:
        smtp = AsyncSMTP(server.host, server.port, timeout=SHORT * 20)
        first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
        try:
            first.run_until_complete(smtp.connect())
            with pytest.raises(RuntimeError, match="another event loop"):
                second.run_until_complete(smtp.noop())
            first.run_until_complete(smtp.quit())
        finally:
            first.close()
            second.close()
