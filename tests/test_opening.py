"""From a host name to a connection that is ready for mail, seen from the public face."""

from __future__ import annotations

import asyncio
import base64

import pytest
from wire import (
    BODY,
    NEXT,
    SENDER,
    SHORT,
    TO,
    bye,
    caught,
    each_loop,
    hello,
    mark,
    send,
    suffer,
    take,
)

from aiosmtpclient import (
    AsyncLMTP,
    AsyncSMTP,
    SMTPAuthenticationError,
    SMTPConnectError,
    SMTPHeloError,
    SMTPNotSupportedError,
    SMTPProtocolError,
    SMTPServerDisconnected,
    SMTPTLSError,
    TLSPolicy,
)
from aiosmtpclient.opening import own_name
from aiosmtpclient.plans import Plan, split_port
from aiosmtpclient.testing import CertificateAuthority, MailServer, ScriptedServer
from aiosmtpclient.testing.scripted import close, expect_eof, greeting, read_all, stall, starttls
from aiosmtpclient.timeouts import Timeouts

AUTHORITY = CertificateAuthority()
TRUSTING = AUTHORITY.client_context()


def plan(**given: object) -> Plan:
    values = {
        "host": "mail.test",
        "port": 0,
        "default_port": 25,
        "lmtp": False,
        "sock": None,
        "tls": None,
        "tls_context": None,
        "server_hostname": None,
        "timeouts": Timeouts(),
        "local_hostname": None,
        "credentials": None,
        "allow_cleartext_auth": False,
        "trace": None,
    }
    return Plan(**(values | given))


# -- where, and by which policy --------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "host", "port", "policy"),
    [
        ({}, "mail.test", 25, TLSPolicy.OPPORTUNISTIC),
        ({"host": ""}, "localhost", 25, TLSPolicy.NONE),
        ({"port": 465}, "mail.test", 465, TLSPolicy.IMPLICIT),
        ({"port": 587}, "mail.test", 587, TLSPolicy.STARTTLS),
        ({"host": "mail.test:587"}, "mail.test", 587, TLSPolicy.STARTTLS),
        ({"host": "localhost", "port": 587}, "localhost", 587, TLSPolicy.STARTTLS),
        ({"host": "localhost:2525"}, "localhost", 2525, TLSPolicy.NONE),
        ({"host": "app.localhost"}, "app.localhost", 25, TLSPolicy.NONE),
        ({"host": "127.3.2.1"}, "127.3.2.1", 25, TLSPolicy.NONE),
        ({"host": "::1"}, "::1", 25, TLSPolicy.NONE),
        ({"host": "2001:db8::1"}, "2001:db8::1", 25, TLSPolicy.OPPORTUNISTIC),
        ({"host": "/run/lmtp", "port": 587}, "/run/lmtp", 587, TLSPolicy.NONE),
        ({"tls": "implicit"}, "mail.test", 465, TLSPolicy.IMPLICIT),
        ({"tls": TLSPolicy.IMPLICIT}, "mail.test", 465, TLSPolicy.IMPLICIT),
        ({"tls": "implicit", "lmtp": True, "default_port": 2003}, "mail.test", 2003, TLSPolicy.IMPLICIT),
        ({"tls": "none"}, "mail.test", 25, TLSPolicy.NONE),
        ({"tls": TLSPolicy.STARTTLS}, "mail.test", 25, TLSPolicy.STARTTLS),
    ],
    ids=str,
)
def test_host_port_and_policy_follow_from_what_is_given(given, host, port, policy):
    settings = plan(**given).settings()
    assert (settings.endpoint.host, settings.endpoint.port, settings.policy) == (host, port, policy)


def test_what_connect_is_given_comes_before_what_the_constructor_was_given():
    settings = plan(port=587).settings("other.test", 2525, ("127.0.0.1", 7))
    assert settings.endpoint.name == "other.test:2525"
    assert settings.endpoint.source_address == ("127.0.0.1", 7)
    assert settings.policy is TLSPolicy.OPPORTUNISTIC
    assert settings.security.server_hostname == "other.test"
    assert plan(server_hostname="name.test").settings("other.test").security.server_hostname == "name.test"


@pytest.mark.parametrize("host", ["a b", "a\n", "a\0", "\udcff"], ids=ascii)
def test_a_host_that_cannot_be_one_is_refused_at_once(host):
    with pytest.raises(ValueError, match="not a host"):
        plan(host=host).settings()


def test_the_verb_to_say_hello_with():
    assert plan().settings().hello_verb == "EHLO"
    assert plan(lmtp=True).settings().hello_verb == "LHLO"


@pytest.mark.parametrize(
    ("host", "port", "expected"),
    [
        ("h:25", 0, ("h", 25)),
        ("h:25", 26, ("h:25", 26)),
        ("::1", 0, ("::1", 0)),
        ("/a:b", 0, ("/a:b", 0)),
        ("h", 0, ("h", 0)),
    ],
)
def test_a_port_in_the_host_is_understood_as_smtplib_does(host, port, expected):
    assert split_port(host, port) == expected


@pytest.mark.parametrize("bad", ["h:", "h:x", "h:65536", "h:\u00b2", "h:-1", "h: 25"])
def test_a_port_that_is_none_is_an_error(bad):
    with pytest.raises(SMTPConnectError, match="no port number"):
        split_port(bad, 0)


@pytest.mark.parametrize(
    ("name", "own"),
    [("a.b", "a.b"), ("a", None), ("", None), ("a_b.c", None), ("a.b.", None), ("\u00fc.b", None)],
)
def test_only_a_domain_is_a_name_to_say_hello_with(name, own, monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: name)
    assert own_name() == own


@each_loop
async def test_without_a_name_of_our_own_the_address_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr("socket.gethostname", lambda: "box")
    async with MailServer() as server, MailServer(unix_path=tmp_path / "socket") as unix:
        async with AsyncSMTP(server.host, server.port) as smtp:
            await send(smtp)
            await smtp.ehlo("given.example")
            await send(smtp)
        assert [one.helo for one in server.messages] == ["[127.0.0.1]", "given.example"]
        async with AsyncSMTP(unix.host) as smtp:
            await send(smtp)
        assert unix.messages[0].helo == "[127.0.0.1]"


# -- dialling --------------------------------------------------------------------------------


@each_loop
async def test_a_greeting_other_than_220_is_a_connect_error_and_says_quit():
    async with ScriptedServer([b"554-no\r\n554 service\r\n", *bye()]) as server:
        error = await caught(AsyncSMTP(server.host, server.port).connect())
        assert isinstance(error, SMTPConnectError)
        assert (error.smtp_code, error.smtp_error, error.permanent) == (554, b"no\nservice", True)


@each_loop
async def test_a_server_that_does_not_answer_our_farewell_is_left_after_a_while(monkeypatch):
    monkeypatch.setattr("aiosmtpclient.opening.FAREWELL", SHORT)
    async with ScriptedServer([b"554 no\r\n", "QUIT", stall()], [*hello(), "QUIT", stall()]) as server:
        smtp = AsyncSMTP(server.host, server.port)
        assert isinstance(await caught(smtp.connect()), SMTPConnectError)
        async with smtp:
            pass
        assert not smtp.is_connected


@each_loop
@pytest.mark.parametrize("at", ["QUIT", "EHLO"])
async def test_a_cancelled_opening_or_farewell_drops_the_connection(at):
    reached = asyncio.Event()
    script = (
        [greeting(), "EHLO", mark(reached), stall()]
        if at == "EHLO"
        else [b"554 no\r\n", "QUIT", mark(reached), stall()]
    )
    async with ScriptedServer(script) as server:
        smtp = AsyncSMTP(server.host, server.port)
        error = await suffer(smtp.connect(), "cancel", reached)
        assert isinstance(error, asyncio.CancelledError)
        assert not smtp.is_connected
        await server.conversations[0].gone.wait()


@each_loop
async def test_implicit_tls():
    async with MailServer(implicit_tls=True) as server:
        async with AsyncSMTP(server.host, server.port, tls="implicit", tls_context=TRUSTING) as smtp:
            await send(smtp)
        assert server.messages[0].tls


# -- hello -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options", "falls_back"),
    [
        (AsyncSMTP, {}, True),
        (AsyncSMTP, {"tls": "opportunistic"}, True),
        (AsyncSMTP, {"tls": "starttls"}, False),
        (AsyncSMTP, {"username": "u", "password": "p"}, False),
        (AsyncLMTP, {}, False),
    ],
)
async def test_helo_is_said_only_where_it_costs_nothing(kind, options, falls_back):
    verb = "LHLO" if kind is AsyncLMTP else "EHLO"
    rest = ["HELO", b"250 hi\r\n", *bye()] if falls_back else bye()
    async with ScriptedServer([greeting(), verb, b"500 what?\r\n", *rest]) as server:
        client = kind(server.host, server.port, **options)
        if falls_back:
            async with client:
                assert client.helo_resp == b"hi"
        else:
            assert isinstance(await caught(client.connect()), SMTPHeloError)


# -- TLS by policy ---------------------------------------------------------------------------


@each_loop
@pytest.mark.parametrize("policy", ["starttls", "opportunistic"])
async def test_starttls_by_policy_says_hello_twice(policy):
    async with MailServer(starttls=True) as server:
        async with AsyncSMTP(server.host, server.port, tls=policy, tls_context=TRUSTING) as smtp:
            assert not smtp.has_extn("starttls")
            await send(smtp)
        assert server.messages[0].tls
        assert [one.split()[0] for one in server.commands][:3] == ["EHLO", "STARTTLS", "EHLO"]


@pytest.mark.parametrize(
    ("offered", "answer", "policy", "kind", "match"),
    [
        ((), None, "starttls", SMTPTLSError, "tls='opportunistic'"),
        (("STARTTLS",), b"454 no\r\n", "starttls", SMTPTLSError, "454 no"),
        (("STARTTLS",), b"421 no\r\n", "starttls", SMTPTLSError, "421 no"),
        (("STARTTLS",), b"421 no\r\n", "opportunistic", SMTPServerDisconnected, "421 no"),
        (("STARTTLS",), b"250 no\r\n", "opportunistic", SMTPProtocolError, "250 no"),
        ((), None, "opportunistic", None, ""),
        (("STARTTLS",), b"502 no\r\n", "opportunistic", None, ""),
    ],
)
async def test_tls_that_is_not_to_be_had(offered, answer, policy, kind, match):
    script = [*hello(*offered), *(["STARTTLS", answer] if answer else [])]
    ends = answer is not None and answer[:3] in (b"421", b"250")
    script += [read_all()] if ends else bye()
    async with ScriptedServer(script) as server:
        smtp = AsyncSMTP(server.host, server.port, tls=policy)
        if kind is None:
            async with smtp:
                assert smtp.is_connected
        else:
            with pytest.raises(kind, match=match):
                await smtp.connect()
            assert not smtp.is_connected


@each_loop
async def test_a_hello_that_is_refused_inside_tls_may_fall_back_to_helo():
    script = [*hello("STARTTLS"), "STARTTLS", b"220 go\r\n", starttls(AUTHORITY.server_context())]
    script += ["EHLO", b"500 no\r\n", "HELO", b"250 hi\r\n", *take(TO), *bye()]
    async with ScriptedServer(script) as server:
        async with AsyncSMTP(server.host, server.port, tls="opportunistic", tls_context=TRUSTING) as smtp:
            await send(smtp)


# -- login -----------------------------------------------------------------------------------


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@each_loop
@pytest.mark.parametrize("mechanisms", [["CRAM-MD5", "PLAIN", "LOGIN"], ["PLAIN"], ["LOGIN"]], ids=str)
async def test_login_by_the_constructors_credentials(mechanisms):
    async with MailServer(users={"u": "p"}, mechanisms=mechanisms, require_auth=True) as server:
        async with AsyncSMTP(server.host, server.port, username="u", password="p") as smtp:
            await send(smtp)
        assert server.messages[0].user == "u"
        async with AsyncSMTP(server.host, server.port) as smtp:
            assert (await smtp.mail(SENDER)).code == 530


async def test_a_refused_login_says_quit_and_what_the_server_said():
    async with MailServer(users={"u": "p"}) as server:
        with pytest.raises(SMTPAuthenticationError) as caught_error:
            await AsyncSMTP(server.host, server.port, username="u", password="wrong").connect()
        assert caught_error.value.smtp_code == 535
        assert server.commands[-1] == "QUIT"


@pytest.mark.parametrize(
    ("offered", "match"),
    [((), "does not offer AUTH$"), (("STARTTLS",), "may offer AUTH after that"), (("AUTH XYZZY",), "XYZZY")],
)
async def test_a_login_that_cannot_be_tried_says_why(offered, match):
    async with ScriptedServer([*hello(*offered), *bye()]) as server:
        smtp = AsyncSMTP(server.host, server.port, tls="none", username="u", password="p")
        with pytest.raises(SMTPNotSupportedError, match=match):
            await smtp.connect()


@pytest.mark.parametrize(
    ("allow", "tried"),
    [(False, ["AUTH CRAM-MD5", "AUTH PLAIN"]), (True, ["AUTH CRAM-MD5"])],
    ids=["local", "wire"],
)
async def test_the_next_mechanism_is_tried_only_where_nobody_can_have_forced_the_failure(allow, tried):
    exchange = ["AUTH CRAM-MD5", b"504 no\r\n"]
    if not allow:
        exchange += [f"AUTH PLAIN {b64(chr(0) + 'u' + chr(0) + 'p')}", b"535 no\r\n"]
    options = {"allow_cleartext_auth": True, "tls": "opportunistic"} if allow else {}
    async with ScriptedServer([*hello("AUTH PLAIN CRAM-MD5"), *exchange, *bye()]) as server:
        smtp = AsyncSMTP(server.host, server.port, username="u", password="p", **options)
        with pytest.raises(SMTPAuthenticationError):
            await smtp.connect()
        lines = server.received[0].decode().split("\r\n")
        assert [" ".join(line.split()[:2]) for line in lines if line.startswith("AUTH")] == tried


async def test_a_login_that_ends_the_connection_is_the_last():
    async with ScriptedServer(
        [*hello("AUTH PLAIN CRAM-MD5"), "AUTH CRAM-MD5", b"421 bye\r\n", expect_eof()]
    ) as server:
        with pytest.raises(SMTPAuthenticationError):
            await AsyncSMTP(server.host, server.port, username="u", password="p").connect()


async def test_credentials_in_clear_name_the_knob_to_turn():
    async with ScriptedServer([*hello("AUTH PLAIN"), *bye()]) as server:
        smtp = AsyncSMTP(server.host, server.port, tls="opportunistic", username="u", password="p")
        with pytest.raises(SMTPTLSError, match="allow_cleartext_auth=True"):
            await smtp.connect()


async def test_an_authobject_and_a_second_login():
    script = [*hello("AUTH XAMPLE"), "AUTH XAMPLE eA==", b"235 in\r\n", "AUTH XAMPLE", b"503 already\r\n"]
    async with ScriptedServer([*script, *bye()]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            assert (await smtp.auth("xample", lambda: "x")).code == 235
            assert (await smtp.auth("xample", lambda: "x")).code == 503


async def test_a_503_is_a_refusal_where_nobody_has_logged_in_on_this_side_of_tls():
    """What was agreed on in clear is forgotten with TLS (RFC 3207 section 4.2)."""
    script = [*hello("AUTH XAMPLE", "STARTTLS"), "AUTH", b"235 in\r\n", "STARTTLS", b"220 go\r\n"]
    script += [
        starttls(AUTHORITY.server_context()),
        "EHLO",
        b"250-x\r\n250 AUTH XAMPLE\r\n",
        "AUTH",
        b"503 no\r\n",
    ]
    async with ScriptedServer([*script, *bye()]) as server:
        async with AsyncSMTP(server.host, server.port, tls_context=TRUSTING) as smtp:
            await smtp.auth("XAMPLE", lambda: "x")
            await smtp.starttls()
            await smtp.ehlo()
            with pytest.raises(SMTPAuthenticationError):
                await smtp.auth("XAMPLE", lambda: "x")


# -- parting ---------------------------------------------------------------------------------


@each_loop
async def test_parting_from_a_server_that_went_already_is_quiet():
    async with ScriptedServer([*hello(), close()], [*hello(), "QUIT", b"221-bye\r\n", close()]) as server:
        for _ in range(2):
            async with AsyncSMTP(server.host, server.port) as smtp:
                pass
            assert not smtp.is_connected


async def test_a_host_that_needs_looking_up_is_looked_up_by_the_loop(monkeypatch):
    """Never by a blocking call."""
    asked = []
    loop = asyncio.get_running_loop()
    look_up = loop.getaddrinfo

    async def getaddrinfo(host, port, **options):
        asked.append(host)
        return await look_up("127.0.0.1", port, **options)

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
    async with MailServer() as server:
        async with AsyncSMTP("mail.test", server.port, tls="none") as smtp:
            await smtp.sendmail(SENDER, NEXT, BODY)
    assert asked == ["mail.test"]
