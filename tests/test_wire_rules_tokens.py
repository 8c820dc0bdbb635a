"""The wire rules: proofs that the server owes, tokens, certificates, and when nobody is asked again."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import pickle
import ssl
import threading

import pytest
import scramp
from leaks import told
from wire import bye, caught, each_loop, hello, send, verbs

from aiosmtpclient import (
    SMTP,
    AsyncSMTP,
    SMTPAuthenticationError,
    SMTPNotSupportedError,
    SMTPServerDisconnected,
    SMTPTLSError,
)
from aiosmtpclient.secret import Secret
from aiosmtpclient.testing import CertificateAuthority, MailServer, ScriptedServer
from aiosmtpclient.testing.scripted import close, expect_eof

USER, PASSWORD, TOKEN = "alice", "correct horse battery staple", "ya29.a0AfB_byC-this.is.no.real.token"
FRESH = "ya29.a0AfB_byC-this.is.a.fresh.one"
SCRAMS = ["SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512"]


def b64(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


def xoauth2(token: str = TOKEN) -> str:
    return f"AUTH XOAUTH2 {b64(f'user={USER}' + chr(1) + f'auth=Bearer {token}' + 2 * chr(1))}"


def auths(server: MailServer) -> list[str]:
    return [command.split()[1] for command in server.commands if command.startswith("AUTH")]


# -- SCRAM -----------------------------------------------------------------------------------


@each_loop
@pytest.mark.parametrize("initial_response_ok", [True, False])
@pytest.mark.parametrize("mechanism", SCRAMS)
async def test_scram_logs_in(mechanism, initial_response_ok):
    """Against a server of scramp; the server's last word comes as a challenge."""
    async with MailServer(users={USER: PASSWORD}, mechanisms=[mechanism]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            await smtp.login(USER, PASSWORD, initial_response_ok=initial_response_ok)
            await send(smtp)
        assert server.messages[0].user == USER


@each_loop
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("policy", ["starttls", "implicit"])
async def test_scram_is_bound_to_the_tls_below(policy, version):
    """tls-unique up to TLS 1.2, the certificate's hash above it, on every loop."""
    authority = CertificateAuthority()
    tls = {"starttls" if policy == "starttls" else "implicit_tls": authority.server_context()}
    context = authority.client_context()
    context.minimum_version = context.maximum_version = version
    async with MailServer(users={USER: PASSWORD}, mechanisms=["SCRAM-SHA-256-PLUS"], **tls) as server:
        async with AsyncSMTP(
            "localhost", server.port, tls=policy, tls_context=context, username=USER, password=PASSWORD
        ) as smtp:
            await send(smtp)
        assert server.messages[0].user == USER
        assert auths(server) == ["SCRAM-SHA-256-PLUS"]


async def test_the_binding_comes_first_where_every_server_knows_it():
    """Strongest first."""
    authority = CertificateAuthority()
    context = authority.client_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    mechanisms = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-1-PLUS"]
    async with MailServer(
        users={USER: PASSWORD}, mechanisms=mechanisms, implicit_tls=authority.server_context()
    ) as server:
        async with AsyncSMTP(
            "localhost", server.port, tls="implicit", tls_context=context, username=USER, password=PASSWORD
        ):
            pass
        assert auths(server) == ["SCRAM-SHA-1-PLUS"]


async def test_another_channel_is_refused(monkeypatch):
    """What the binding is for: somebody in the middle has another channel to each side."""
    authority = CertificateAuthority()
    monkeypatch.setattr("aiosmtpclient.scram._end_point", lambda certificate: b"somebody else's")
    async with MailServer(
        users={USER: PASSWORD}, mechanisms=["SCRAM-SHA-256-PLUS"], implicit_tls=authority.server_context()
    ) as server:
        context = authority.client_context()
        smtp = AsyncSMTP("localhost", server.port, tls="implicit", tls_context=context)
        async with smtp:
            with pytest.raises(SMTPAuthenticationError):
                await smtp.login(USER, PASSWORD)


async def test_plus_without_tls_says_what_is_missing():
    """Nothing to bind to."""
    async with ScriptedServer([*hello("AUTH SCRAM-SHA-256-PLUS"), *bye()]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            with pytest.raises(SMTPNotSupportedError, match="-PLUS mechanisms need TLS"):
                await smtp.login(USER, PASSWORD, mechanisms=["SCRAM-SHA-256-PLUS"])


class Impostor(MailServer):
    """Does not know the password, and lets everybody in."""

    def scram_proof(self, proof: bytes) -> bytes:
        return b"v=" + base64.b64encode(bytes(32))


@each_loop
async def test_a_server_with_a_wrong_proof_is_not_believed_and_gets_no_password():
    """No weaker mechanism is tried with it, not even inside TLS: it would be sent the password next."""
    async with Impostor(users={USER: PASSWORD}, mechanisms=["PLAIN", "SCRAM-SHA-256"]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            with pytest.raises(SMTPAuthenticationError, match="does not know the password") as caught_error:
                await smtp.login(USER, PASSWORD)
            assert caught_error.value.smtp_code == -1
            assert not smtp.is_connected
        assert auths(server) == ["SCRAM-SHA-256"]


@pytest.mark.parametrize("mechanism", SCRAMS)
async def test_success_without_the_servers_proof_is_an_error(mechanism):
    """A 235 in place of a challenge."""
    script = [*hello(f"AUTH PLAIN {mechanism}"), f"AUTH {mechanism}", b"235 welcome\r\n", expect_eof()]
    async with ScriptedServer(script) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            with pytest.raises(SMTPAuthenticationError, match="without a proof"):
                await smtp.login(USER, PASSWORD)
            assert not smtp.is_connected
        assert verbs(server.received[0])[:2] == ["EHLO", "AUTH"]
        assert len(verbs(server.received[0])) == 2


async def test_a_scram_challenge_that_makes_no_sense_is_cancelled():
    """`*`, and the error says what was wrong; then the next mechanism is tried."""
    script = [
        *hello("AUTH SCRAM-SHA-256 PLAIN"),
        "AUTH SCRAM-SHA-256",
        f"334 {b64('r=x,s=AA==,i=1')}\r\n".encode(),
    ]
    script += ["*", b"501 cancelled\r\n", "AUTH PLAIN", b"235 in\r\n", *bye()]
    async with ScriptedServer(script) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            await smtp.login(USER, PASSWORD)
    async with ScriptedServer([*script[:6], *bye()]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            with pytest.raises(SMTPAuthenticationError, match=r"first message.*cancelled"):
                await smtp.login(USER, PASSWORD, mechanisms=["SCRAM-SHA-256"])


async def test_many_iterations_do_not_hold_up_the_loop(monkeypatch):
    """The keys are computed in a thread: everybody else on this loop goes on."""
    where = []
    compute = scramp.ScramClient.get_client_final

    def noted(client):
        where.append(threading.current_thread() is threading.main_thread())
        return compute(client)

    monkeypatch.setattr(scramp.ScramClient, "get_client_final", noted)
    async with MailServer(users={USER: PASSWORD}, mechanisms=["SCRAM-SHA-256"]) as server:
        async with AsyncSMTP(server.host, server.port, username=USER, password=PASSWORD):
            pass
    assert where == [False]


async def test_what_saslprep_forbids_writes_nothing():
    """ValueError before a byte is written."""
    async with ScriptedServer([*hello("AUTH SCRAM-SHA-256"), *bye()]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            with pytest.raises(ValueError, match="SASLprep") as caught_error:
                await smtp.login(USER, "\U0001f511", mechanisms=["SCRAM-SHA-256"])
        assert "\U0001f511" not in told(caught_error.value)
        assert verbs(server.received[0]) == ["EHLO", "QUIT"]


# -- tokens ----------------------------------------------------------------------------------


@each_loop
@pytest.mark.parametrize("given", [TOKEN, Secret(TOKEN), lambda: TOKEN], ids=["text", "secret", "provider"])
@pytest.mark.parametrize("mechanism", ["XOAUTH2", "OAUTHBEARER"])
async def test_a_token_logs_in(mechanism, given):
    """In the constructor, by either mechanism."""
    async with MailServer(tokens={TOKEN: USER}, mechanisms=[mechanism]) as server:
        async with AsyncSMTP(server.host, server.port, username=USER, token=given) as smtp:
            await send(smtp)
        assert server.messages[0].user == USER
        assert auths(server) == [mechanism]


async def test_the_standard_mechanism_is_preferred_and_no_password_is_sent():
    """`token=` overrides the password."""
    async with MailServer(users={USER: PASSWORD}, tokens={TOKEN: USER}) as server:
        async with AsyncSMTP(server.host, server.port, username=USER, password=PASSWORD, token=TOKEN):
            pass
        assert auths(server) == ["OAUTHBEARER"]


async def test_a_token_by_login():
    """`login(user, token=…)`."""
    async with MailServer(tokens={TOKEN: USER}) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            assert (await smtp.login(USER, token=TOKEN)).code == 235


def test_a_token_in_the_blocking_classes():
    """Also there; a provider may block."""
    with MailServer(tokens={TOKEN: USER}) as server:
        with SMTP(server.host, server.port) as smtp:
            assert smtp.login(USER, "", token=lambda: TOKEN)[0] == 235


async def test_without_a_user_name_oauthbearer_is_used():
    """The token says who we are."""
    async with MailServer(tokens={TOKEN: USER}) as server:
        async with AsyncSMTP(server.host, server.port, token=TOKEN) as smtp:
            await send(smtp)
        assert server.messages[0].user == USER


async def test_a_server_that_takes_no_tokens():
    """SMTPNotSupportedError, before the token is asked for."""
    asked = []
    async with MailServer(users={USER: PASSWORD}) as server:
        with pytest.raises(SMTPNotSupportedError, match="no mechanism in common"):
            async with AsyncSMTP(server.host, server.port, username=USER, token=lambda: asked.append(1)):
                pass
    assert asked == []


@each_loop
@pytest.mark.parametrize("mechanism", ["XOAUTH2", "OAUTHBEARER"])
async def test_an_expired_token_is_renewed_once_on_the_same_connection(mechanism):
    """Called once more with `force_refresh=True`."""
    asked = []

    async def provider(*, force_refresh: bool = False) -> str:
        asked.append(force_refresh)
        return FRESH if force_refresh else TOKEN

    async with MailServer(tokens={FRESH: USER}, mechanisms=[mechanism]) as server:
        async with AsyncSMTP(server.host, server.port, username=USER, token=provider) as smtp:
            await send(smtp)
        assert asked == [False, True]
        assert server.connections == 1


async def test_a_token_that_is_never_taken_is_asked_for_twice_and_no_more():
    """Then the refusal is the caller's."""
    asked = []

    def provider() -> str:
        asked.append(1)
        return TOKEN

    async with MailServer(tokens={FRESH: USER}) as server:
        with pytest.raises(SMTPAuthenticationError) as caught_error:
            await AsyncSMTP(server.host, server.port, username=USER, token=provider).connect()
        assert len(asked) == 2
        assert server.connections == 1
        assert caught_error.value.oauth == {"status": "invalid_token", "scope": "mail"}


@each_loop
@pytest.mark.parametrize("how", ["closed with the refusal", "closed before the second try", "421"])
async def test_a_server_that_hangs_up_on_a_token_gets_the_fresh_one_on_another_connection(how):
    """On the same connection if the server still takes it, else on a new one."""
    asked = []

    def provider(force_refresh: bool = False) -> str:
        asked.append(force_refresh)
        return FRESH if force_refresh else TOKEN

    refusal = [*hello("AUTH XOAUTH2"), xoauth2(), b"535 5.7.8 no\r\n"]
    if how == "closed with the refusal":
        refusal += [close()]
    elif how == "421":
        refusal += [b"421 bye\r\n", close()]
    else:
        refusal += [xoauth2(FRESH), close()]
    second = [*hello("AUTH XOAUTH2"), xoauth2(FRESH), b"235 in\r\n", *bye()]
    async with ScriptedServer(refusal, second) as server:
        async with AsyncSMTP(server.host, server.port, username=USER, token=provider):
            pass
    assert asked == [False, True]


async def test_there_is_no_third_connection():
    """A fresh token is tried on one more connection, not on every one."""
    refusal = [*hello("AUTH XOAUTH2"), xoauth2(), b"535 5.7.8 no\r\n", close()]
    async with ScriptedServer(refusal, refusal) as server:
        with pytest.raises((SMTPAuthenticationError, SMTPServerDisconnected)):
            await AsyncSMTP(server.host, server.port, username=USER, token=lambda: TOKEN).connect()
        assert len(server.received) == 2


async def test_a_connection_lost_before_any_verdict_is_not_tried_again():
    """A close in answer to the first token says nothing about it."""
    async with ScriptedServer([*hello("AUTH XOAUTH2"), xoauth2(), close()]) as server:
        with pytest.raises(SMTPServerDisconnected):
            await AsyncSMTP(server.host, server.port, username=USER, token=lambda: TOKEN).connect()


async def test_a_temporary_refusal_does_not_renew_the_token():
    """454: try later, with the same."""
    script = [*hello("AUTH XOAUTH2"), xoauth2(), b"454 4.7.0 later\r\n", *bye()]
    asked = []
    async with ScriptedServer(script) as server:
        with pytest.raises(SMTPAuthenticationError) as caught_error:
            await AsyncSMTP(
                server.host, server.port, username=USER, token=lambda: asked.append(1) or TOKEN
            ).connect()
    assert caught_error.value.temporary
    assert len(asked) == 1


async def test_each_connection_asks_anew():
    """A token that was good an hour ago may not be now, and a provider knows."""
    tokens = iter([TOKEN, FRESH])
    async with MailServer(tokens={TOKEN: USER, FRESH: USER}) as server:
        smtp = AsyncSMTP(server.host, server.port, username=USER, token=lambda: next(tokens))
        for _ in range(2):
            async with smtp:
                pass
    assert next(tokens, None) is None


SAID = {"status": "401", "schemes": "bearer", "scope": "https://mail.google.com/"}


@each_loop
@pytest.mark.parametrize(("mechanism", "answer"), [("XOAUTH2", ""), ("OAUTHBEARER", b64(b"\x01"))])
async def test_what_the_server_says_about_a_token_is_in_the_error(mechanism, answer):
    """The JSON in the 334 is decoded; the answer it wants is sent; the reply is read."""
    challenge = f"334 {b64(json.dumps(SAID))}\r\n".encode()
    script = [
        *hello(f"AUTH {mechanism}"),
        f"AUTH {mechanism}",
        challenge,
        answer,
        b"535 5.7.8 no\r\n",
        *bye(),
    ]
    async with ScriptedServer(script) as server:
        error = await caught(AsyncSMTP(server.host, server.port, username=USER, token=TOKEN).connect())
    assert isinstance(error, SMTPAuthenticationError)
    assert error.oauth == SAID
    assert "status: 401" in str(error)
    assert str(error).endswith("535 5.7.8 no")
    assert pickle.loads(pickle.dumps(error)).oauth == SAID
    if mechanism == "XOAUTH2":
        assert b"\r\n\r\nQUIT" in server.received[0], "an empty line, not nothing"


async def test_a_refusal_without_reasons_has_none():
    """None, not an empty dict."""
    async with ScriptedServer([*hello("AUTH XOAUTH2"), xoauth2(), b"535 no\r\n", *bye()]) as server:
        error = await caught(AsyncSMTP(server.host, server.port, username=USER, token=TOKEN).connect())
    assert error.oauth is None


async def test_a_first_challenge_that_carries_nothing_is_ignored():
    """XOAUTH2 without initial response: position decides, whatever the 334 says."""
    response = xoauth2().split()[2]
    script = [*hello("AUTH XOAUTH2"), "AUTH XOAUTH2", b"334 what?\r\n", response, b"235 in\r\n", *bye()]
    async with ScriptedServer(script) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            await smtp.login(USER, token=TOKEN, initial_response_ok=False)


async def test_a_long_token_waits_for_the_334():
    """Most tokens are longer than a command may be."""
    long = "e" * 2000
    response = b64(f"user={USER}\x01auth=Bearer {long}\x01\x01")
    script = [*hello("AUTH XOAUTH2"), "AUTH XOAUTH2", b"334 \r\n", response, b"235 in\r\n", *bye()]
    async with ScriptedServer(script) as server:
        async with AsyncSMTP(server.host, server.port, username=USER, token=long):
            pass


async def test_what_a_provider_raises_is_the_callers_and_nothing_is_written():
    """Awaited before AUTH; the connection is left properly."""

    async def fails() -> str:
        await asyncio.sleep(0)
        raise ZeroDivisionError

    async with ScriptedServer([*hello("AUTH XOAUTH2"), *bye()]) as server:
        with pytest.raises(ZeroDivisionError):
            await AsyncSMTP(server.host, server.port, username=USER, token=fails).connect()
        assert verbs(server.received[0]) == ["EHLO", "QUIT"]


async def test_a_token_does_not_travel_in_clear():
    """As with any credential: only inside TLS, or where the caller says so."""
    async with ScriptedServer([*hello("AUTH XOAUTH2"), *bye()]) as server:
        with pytest.raises(SMTPTLSError, match="clear"):
            await AsyncSMTP(
                server.host, server.port, tls="opportunistic", username=USER, token=TOKEN
            ).connect()


@pytest.mark.parametrize("options", [{"username": USER}, {"username": USER, "mechanisms": ["PLAIN"]}])
def test_a_user_name_without_anything_is_most_likely_a_forgotten_password(options):
    """It would lock the account."""
    with pytest.raises(ValueError, match="password, or a token"):
        AsyncSMTP("mail.test", **options)


# -- EXTERNAL, ANONYMOUS ---------------------------------------------------------------------


@each_loop
@pytest.mark.parametrize("named", ["", USER])
async def test_a_certificate_logs_in(named):
    """EXTERNAL: an empty initial response is `=`."""
    authority = CertificateAuthority()
    context = authority.server_context(client_certificates=True)
    async with MailServer(starttls=context, mechanisms=["EXTERNAL"]) as server:
        async with AsyncSMTP(
            "localhost",
            server.port,
            tls="starttls",
            tls_context=authority.client_context(user=USER),
            username=named,
            mechanisms=["EXTERNAL"],
        ) as smtp:
            await send(smtp)
        assert server.messages[0].user == USER


async def test_without_a_certificate_external_is_refused():
    """The server knows nobody."""
    authority = CertificateAuthority()
    context = authority.server_context(client_certificates=True)
    async with MailServer(implicit_tls=context, mechanisms=["EXTERNAL"]) as server:
        client = AsyncSMTP("localhost", server.port, tls="implicit", tls_context=authority.client_context())
        async with client as smtp:
            with pytest.raises(SMTPAuthenticationError):
                await smtp.login("", mechanisms=["EXTERNAL"])


async def test_anonymous_logs_in_where_it_is_asked_for():
    """And never by itself."""
    async with MailServer(mechanisms=["ANONYMOUS"]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            with pytest.raises(SMTPNotSupportedError, match="ANONYMOUS is used only if it is named"):
                await smtp.login("guest", "x")
            assert (await smtp.login("guest", mechanisms=["ANONYMOUS"])).code == 235


async def test_mechanisms_in_the_constructor_are_the_only_ones():
    """`mechanisms=` overrides strength."""
    async with MailServer(users={USER: PASSWORD}) as server:
        async with AsyncSMTP(
            server.host, server.port, username=USER, password=PASSWORD, mechanisms=["login"]
        ):
            pass
        assert auths(server) == ["LOGIN"]
    with pytest.raises(ValueError, match="unknown mechanism"):
        AsyncSMTP("mail.test", mechanisms=["XYZZY"])


# -- secrets ---------------------------------------------------------------------------------


@each_loop
@pytest.mark.parametrize("echo", ["334", "535", "rubbish", "closed"])
@pytest.mark.parametrize("mechanism", ["XOAUTH2", "OAUTHBEARER", "SCRAM-SHA-256", "NTLM"])
async def test_tokens_and_payloads_show_up_nowhere(mechanism, echo, caplog):
    """In no log, exception, traceback with locals or trace, also where a server echoes them."""
    caplog.set_level(logging.DEBUG)
    traced: list[bytes] = []
    secret = TOKEN.encode()
    echoes = b" ".join([secret, *(base64.b64encode(b"x" * n + secret) for n in range(3))])
    script = [*hello(f"AUTH {mechanism}"), f"AUTH {mechanism}"]
    if echo == "334":
        said = json.dumps({"status": echoes.decode()})
        script += [f"334 {b64(said)}\r\n".encode(), "", close()]
    elif echo == "closed":
        script += [close()]
    else:
        script += [(b"535 no: " if echo == "535" else b"rubbish ") + echoes + b"\r\n", close()]
    secrets = {} if mechanism not in ("XOAUTH2", "OAUTHBEARER") else {"token": TOKEN}
    password = secrets or {"password": TOKEN}
    async with ScriptedServer(script) as server:
        smtp = AsyncSMTP(
            server.host,
            server.port,
            username=USER,
            mechanisms=[mechanism],
            trace=lambda _, octets: traced.append(octets),
            **password,
        )
        error = await caught(smtp.connect())
    texts = "\n".join([repr(smtp), caplog.text, told(error), *map(repr, traced)])
    cores = [b64("x" * n + TOKEN)[4 : (n + len(TOKEN)) * 8 // 6 - 4] for n in range(3)]
    assert not [one for one in (TOKEN, *cores) if one in texts], texts
