"""The wire rules: TLS (RFC 3207), with real handshakes and certificates made for them."""

from __future__ import annotations

import asyncio
import ssl

import pytest
from wire import (
    BODY,
    GO,
    LONG,
    SENDER,
    SHORT,
    TO,
    bye,
    caught,
    deliveries,
    each_loop,
    envelope,
    hello,
    send,
    suffer,
    take,
    verbs,
)

import aiosmtpclient
from aiosmtpclient import (
    LMTP,
    SMTP,
    SMTP_SSL,
    AsyncLMTP,
    AsyncSMTP,
    Delivery,
    SMTPException,
    SMTPNotSupportedError,
    SMTPPool,
    SMTPProtocolError,
    SMTPResponseException,
    SMTPServerDisconnected,
    SMTPTimeoutError,
    SMTPTLSError,
    TLSPolicy,
    dialling,
    tls,
)
from aiosmtpclient.testing import CertificateAuthority, Conversation, MailServer, ScriptedServer
from aiosmtpclient.testing.scripted import (
    close,
    drop,
    expect_content,
    read_all,
    read_exactly,
    reset,
    stall,
    starttls,
)

AUTHORITY = CertificateAuthority()
TRUSTING = AUTHORITY.client_context()
UPGRADE = [*hello("STARTTLS", "PIPELINING"), "STARTTLS", b"220 go\r\n", starttls(AUTHORITY.server_context())]


@pytest.fixture(scope="module", autouse=True)
def system_authorities_are_few():
    """Reading the system's CAs takes long; no test here depends on them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("aiosmtpclient.tls.default_context", ssl.create_default_context)
        yield


# -- 1: nothing may hide behind the 220 ------------------------------------------------------


@each_loop
@pytest.mark.parametrize(
    "behind", [b"250 injected\r\n", b"250 in", b"\r\n", b"\n", b"2", b"\x16\x03\x01"], ids=repr
)
@pytest.mark.parametrize("how", ["policy", "starttls()"])
async def test_octets_behind_the_220_stop_the_handshake_before_it_begins(behind, how):
    """Octets behind the 220, even half a line: error and drop before a ClientHello."""
    script = [*hello("STARTTLS"), "STARTTLS", b"220 go\r\n" + behind, read_all()]
    async with ScriptedServer(script) as server:
        smtp = AsyncSMTP(
            server.host, server.port, tls="starttls" if how == "policy" else None, tls_context=TRUSTING
        )
        if how == "policy":
            error = await caught(smtp.connect())
        else:
            await smtp.connect()
            error = await caught(smtp.starttls())
        assert isinstance(error, SMTPProtocolError)
        assert not smtp.is_connected
        await server.conversations[0].gone.wait()
        assert server.received[0].endswith(b"STARTTLS\r\n")


@each_loop
@pytest.mark.parametrize("how", ["policy", "starttls()"])
async def test_what_was_offered_in_clear_is_forgotten(how):
    """All earlier knowledge is forgotten; EHLO again."""
    script = [*UPGRADE, "EHLO", b"250-mail.test\r\n250 SIZE 1000\r\n", *take(TO), *bye()]
    async with ScriptedServer(script) as server:
        smtp = AsyncSMTP(
            server.host, server.port, tls="starttls" if how == "policy" else None, tls_context=TRUSTING
        )
        async with smtp:
            if how == "starttls()":
                assert (await smtp.starttls()).code == 220
                assert (dict(smtp.extensions), smtp.ehlo_resp, smtp.does_esmtp) == ({}, None, False)
            result = await send(smtp)
            assert set(smtp.extensions) == {"size"}
        assert deliveries(result) == [Delivery.ACCEPTED]
        assert verbs(server.received[0].partition(b"DATA")[0]) == ["EHLO", "STARTTLS", "EHLO", "MAIL", "RCPT"]


# -- 2: policies that cannot be kept ---------------------------------------------------------


@each_loop
@pytest.mark.parametrize(
    ("script", "quits"),
    [
        ([*hello("PIPELINING"), *bye()], True),
        ([*hello("STARTTLS_LATER"), *bye()], True),
        ([*hello("STARTTLS"), "STARTTLS", b"454 not now\r\n", *bye()], True),
        ([*hello("STARTTLS"), "STARTTLS", b"502 no\r\n", *bye()], True),
        ([*hello("STARTTLS"), "STARTTLS", b"421 bye\r\n", read_all()], False),
    ],
    ids=["missing", "something like it", "454", "502", "421"],
)
async def test_required_tls_that_is_not_to_be_had_sends_nothing(script, quits):
    """STARTTLS required and missing or refused: SMTPTLSError, nothing sent, no fallback."""
    options = {"tls": "starttls", "username": "u", "password": "p"}
    async with ScriptedServer(script) as server:
        error = await caught(
            aiosmtpclient.send(
                BODY, sender=SENDER, recipients=TO, host=server.host, port=server.port, **options
            )
        )
        assert isinstance(error, SMTPTLSError)
        assert error.delivery is Delivery.NOT_SENT
        await server.conversations[0].gone.wait()
        assert (b"QUIT" in server.received[0]) is quits
        assert not {"MAIL", "AUTH", "HELO"} & set(verbs(server.received[0]))


@each_loop
@pytest.mark.parametrize("code", [454, 502])
async def test_opportunistic_tls_goes_on_in_clear_after_a_refusal(code):
    """OPPORTUNISTIC without credentials goes on in clear after a 4yz/5yz."""
    script = [*hello("STARTTLS"), "STARTTLS", b"%d no\r\n" % code, *take(TO), *bye()]
    async with ScriptedServer(script) as server:
        async with AsyncSMTP(server.host, server.port, tls="opportunistic") as smtp:
            assert (await send(smtp)).accepted == (TO,)


@each_loop
@pytest.mark.parametrize("reply", [b"421 bye\r\n", b"250 ok\r\n", b"334 x\r\n"])
async def test_opportunistic_tls_does_not_go_on_after_anything_else(reply):
    """Never after 421, another 2yz or a 3yz."""
    async with ScriptedServer([*hello("STARTTLS"), "STARTTLS", reply, read_all()]) as server:
        smtp = AsyncSMTP(server.host, server.port, tls="opportunistic")
        error = await caught(smtp.connect())
        assert isinstance(error, SMTPException)
        assert not smtp.is_connected
        await server.conversations[0].gone.wait()
        assert verbs(server.received[0]) == ["EHLO", "STARTTLS"]


async def test_opportunistic_tls_with_credentials_never_goes_on_in_clear():
    """Required TLS that is not to be had, with credentials waiting."""
    script = [*hello("STARTTLS", "AUTH PLAIN"), "STARTTLS", b"454 no\r\n", *bye()]
    async with ScriptedServer(script) as server:
        smtp = AsyncSMTP(server.host, server.port, tls="opportunistic", username="u", password="p")
        assert isinstance(await caught(smtp.connect()), SMTPTLSError)
        assert b"AUTH" not in server.received[0]


@each_loop
@pytest.mark.parametrize("policy", ["opportunistic", "starttls", TLSPolicy.STARTTLS])
async def test_tls_by_policy_against_a_real_server(policy):
    """Required TLS where all is well."""
    async with MailServer(starttls=True, users={"u": "p"}, auth_requires_tls=True) as server:
        options = {"tls": policy, "tls_context": TRUSTING, "username": "u", "password": "p"}
        async with AsyncSMTP(server.host, server.port, **options) as smtp:
            await send(smtp)
        assert (server.messages[0].tls, server.messages[0].user) == (True, "u")


@each_loop
async def test_implicit_tls_against_a_real_server():
    """TLS from the first octet, for SMTP and LMTP."""
    for kind, lmtp in ((AsyncSMTP, False), (AsyncLMTP, True)):
        async with MailServer(implicit_tls=True, lmtp=lmtp) as server:
            async with kind(server.host, server.port, tls="implicit", tls_context=TRUSTING) as client:
                await send(client)
            assert server.messages[0].tls


async def test_a_local_server_is_spoken_to_in_clear_by_itself():
    """`tls` left out, a local server → NONE, also where it offers STARTTLS."""
    async with MailServer(starttls=True) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            await send(smtp)
        assert not server.messages[0].tls
        assert "STARTTLS" not in server.commands


# -- 3: verification -------------------------------------------------------------------------

FAILURES = {
    "untrusted": (AUTHORITY.untrusted_context(), TRUSTING, "127.0.0.1", "not trusted"),
    "self-made": (AUTHORITY.server_context(), None, "127.0.0.1", "tls_context="),
    "expired": (AUTHORITY.expired_context(), TRUSTING, "127.0.0.1", "expired"),
    "wrong name": (AUTHORITY.wrong_name_context(), TRUSTING, "127.0.0.1", "another"),
    "other name asked for": (AUTHORITY.server_context(), TRUSTING, "mail.example", "server_hostname="),
}


@each_loop
@pytest.mark.parametrize("why", FAILURES)
@pytest.mark.parametrize("policy", ["opportunistic", "starttls", "implicit"])
async def test_a_certificate_that_does_not_fit_is_an_smtptlserror(why, policy):
    """Verified by default, against the configured name; the error says why and what to turn."""
    theirs, ours, name, match = FAILURES[why]
    options = {"implicit_tls": theirs} if policy == "implicit" else {"starttls": theirs}
    async with MailServer(**options) as server:
        smtp = AsyncSMTP(server.host, server.port, tls=policy, tls_context=ours, server_hostname=name)
        error = await caught(smtp.connect())
        assert isinstance(error, SMTPTLSError)
        assert isinstance(error, ssl.SSLError)
        assert match in str(error)
        assert not smtp.is_connected
        assert not any(command.startswith("MAIL") for command in server.commands)


def _blocking(kind, **options):
    def use(host, port):
        with kind(host, port, **options) as smtp:
            if kind is not SMTP_SSL:
                smtp.starttls()
            smtp.sendmail(SENDER, TO, BODY)

    return lambda host, port: asyncio.to_thread(use, host, port)


def _asynchronous(kind, **options):
    async def use(host, port):
        async with kind(host, port, timeout=LONG, **options) as smtp:
            await smtp.sendmail(SENDER, TO, BODY)

    return use


async def _by_hand(host, port):
    async with AsyncSMTP(host, port, tls="none") as smtp:
        await smtp.starttls()
        await send(smtp)


async def _once(host, port):
    await aiosmtpclient.send(BODY, sender=SENDER, recipients=TO, host=host, port=port, tls="starttls")


EVERY_CLASS = {
    "AsyncSMTP": _asynchronous(AsyncSMTP, tls="starttls"),
    "AsyncSMTP, implicit": _asynchronous(AsyncSMTP, tls="implicit"),
    "AsyncSMTP.starttls": _by_hand,
    "AsyncLMTP": _asynchronous(AsyncLMTP, tls="starttls"),
    "SMTPPool": _asynchronous(SMTPPool, tls="starttls", retries=0),
    "SMTPPool, LMTP": _asynchronous(SMTPPool, tls="implicit", lmtp=True, retries=0),
    "send": _once,
    "SMTP.starttls": _blocking(SMTP),
    "SMTP_SSL": _blocking(SMTP_SSL),
    "LMTP.starttls": _blocking(LMTP),
}


@pytest.mark.parametrize("certificate", ["of a stranger", "for another name"])
@pytest.mark.parametrize("name", EVERY_CLASS)
async def test_every_class_verifies_by_default_and_sends_nothing_to_whom_it_cannot(
    name, certificate, monkeypatch
):
    """Without a word about TLS from the caller but that it is wanted."""
    theirs = AUTHORITY.untrusted_context()
    if certificate == "for another name":
        # As if our authority were one of the system's.
        theirs = AUTHORITY.wrong_name_context()
        monkeypatch.setattr(tls, "default_context", AUTHORITY.client_context)
        monkeypatch.setattr(dialling, "_default_context", None)
    implicit = "implicit" in name or name in ("SMTP_SSL", "SMTPPool, LMTP")
    options = {"implicit_tls": theirs} if implicit else {"starttls": theirs}
    async with MailServer(lmtp="LMTP" in name, **options) as server:
        error = await caught(EVERY_CLASS[name](server.host, server.port))
        assert isinstance(error, SMTPTLSError), error
        assert ("another" if certificate == "for another name" else "trusted") in str(error)
        assert not any(command.startswith("MAIL") for command in server.commands)
        assert server.messages == []


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
async def test_the_name_to_verify_is_the_one_that_was_asked_for(name):
    """`server_hostname` if given."""
    async with MailServer(implicit_tls=AUTHORITY.server_context(name)) as server:
        options = {"tls": "implicit", "tls_context": TRUSTING, "server_hostname": name}
        async with AsyncSMTP(server.host, server.port, **options) as smtp:
            await send(smtp)
        assert server.messages[0].tls


@each_loop
@pytest.mark.parametrize("end", [close, drop, reset])
@pytest.mark.parametrize("policy", ["starttls", "implicit"])
async def test_a_handshake_that_is_cut_off_is_an_error_at_once(policy, end):
    """Every handshake failure is an SMTPTLSError, and nobody waits for a server that is gone."""
    begin = [*hello("STARTTLS"), "STARTTLS", b"220 go\r\n"] if policy == "starttls" else []
    async with ScriptedServer([*begin, read_exactly(20), end()]) as server:
        smtp = AsyncSMTP(server.host, server.port, tls=policy, tls_context=TRUSTING)
        started = asyncio.get_running_loop().time()
        error = await caught(smtp.connect())
        assert isinstance(error, SMTPTLSError)
        assert asyncio.get_running_loop().time() - started < 0.8
        assert not smtp.is_connected


@each_loop
async def test_a_server_that_goes_right_after_the_220_is_not_waited_for():
    """The end arrives together with the 220, while the context is still being made."""
    async with ScriptedServer([*hello("STARTTLS"), "STARTTLS", b"220 go\r\n", close()]) as server:
        smtp = AsyncSMTP(server.host, server.port, tls="starttls", timeout=LONG)
        started = asyncio.get_running_loop().time()
        error = await caught(smtp.connect())
        assert isinstance(error, SMTPTLSError | SMTPServerDisconnected)
        assert asyncio.get_running_loop().time() - started < 0.8


@each_loop
@pytest.mark.parametrize("policy", ["starttls", "implicit"])
async def test_what_is_not_tls_is_an_smtptlserror(policy):
    """A server that goes on in clear."""
    begin = [*hello("STARTTLS"), "STARTTLS", b"220 go\r\n"] if policy == "starttls" else []
    async with ScriptedServer(
        [*begin, read_exactly(20), b"220 mail.test ESMTP\r\n" * 3, read_all()]
    ) as server:
        error = await caught(AsyncSMTP(server.host, server.port, tls=policy, tls_context=TRUSTING).connect())
        assert isinstance(error, SMTPTLSError)
        assert "not TLS" in str(error)


@each_loop
@pytest.mark.parametrize("kind", ["timeout", "cancel"])
@pytest.mark.parametrize("policy", ["starttls", "implicit"])
async def test_a_handshake_without_an_answer_is_a_timeout_and_may_be_cancelled(policy, kind):
    """A timeout in a handshake is an SMTPTimeoutError; nothing is left behind."""
    reached = asyncio.Event()

    async def hang(conversation: Conversation) -> None:
        await conversation.read_exactly(20)
        reached.set()
        await conversation.read_all()

    begin = [*hello("STARTTLS"), "STARTTLS", b"220 go\r\n"] if policy == "starttls" else []
    async with ScriptedServer([*begin, hang]) as server:
        timeout = SHORT if kind == "timeout" else LONG
        smtp = AsyncSMTP(server.host, server.port, tls=policy, tls_context=TRUSTING, timeout=timeout)
        error = await suffer(smtp.connect(), kind, reached)
        assert isinstance(error, SMTPTimeoutError if kind == "timeout" else asyncio.CancelledError)
        assert not smtp.is_connected
        await server.conversations[0].gone.wait()


@each_loop
async def test_starttls_by_hand_raises_smtplibs_classes():
    """Not offered: SMTPNotSupportedError; refused: SMTPResponseException; the connection is kept."""
    async with ScriptedServer([*hello(), *bye()]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            with pytest.raises(SMTPNotSupportedError):
                await smtp.starttls()
        assert b"STARTTLS" not in server.received[0]
    async with ScriptedServer([*hello("STARTTLS"), "STARTTLS", b"454 no\r\n", *take(TO), *bye()]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            with pytest.raises(SMTPResponseException) as caught_error:
                await smtp.starttls()
            assert type(caught_error.value) is SMTPResponseException
            assert (caught_error.value.smtp_code, caught_error.value.command) == (454, "STARTTLS")
            await send(smtp)


@pytest.mark.parametrize("how", ["argument", "constructor"])
async def test_starttls_by_hand_takes_a_context_and_a_name(how):
    """`starttls(context=…, server_hostname=…)`, else the constructor's."""
    options = {"server_hostname": "mail.example"}
    async with MailServer(starttls=AUTHORITY.server_context("mail.example")) as server:
        of_constructor = options | {"tls_context": TRUSTING} if how == "constructor" else {}
        async with AsyncSMTP(server.host, server.port, **of_constructor) as smtp:
            await (smtp.starttls(context=TRUSTING, **options) if how == "argument" else smtp.starttls())
            await send(smtp)
        assert server.messages[0].tls


@pytest.mark.parametrize("wanted", ["starttls", "implicit"])
async def test_a_context_is_made_where_none_is_given(wanted, monkeypatch):
    """In every class; without a context one that verifies is made, off the loop."""
    made = []

    def default_context() -> ssl.SSLContext:
        made.append(TRUSTING)
        return TRUSTING

    monkeypatch.setattr("aiosmtpclient.tls.default_context", default_context)
    monkeypatch.setattr("aiosmtpclient.dialling._default_context", None)
    server = MailServer(starttls=True) if wanted == "starttls" else MailServer(implicit_tls=True)
    async with server:
        for _ in range(2):
            async with AsyncSMTP(server.host, server.port, tls=wanted) as smtp:
                await send(smtp)
    assert made == [TRUSTING]
    assert [message.tls for message in server.messages] == [True, True]


# -- 4: a close without close_notify ---------------------------------------------------------


@each_loop
@pytest.mark.parametrize("policy", ["starttls", "implicit"])
async def test_a_cut_inside_tls_is_told_by_where_it_happens(policy):
    """Idle → closed; while the final reply is owed → UNKNOWN; after QUIT → success."""
    implicit = AUTHORITY.server_context() if policy == "implicit" else None
    begin = [*UPGRADE, *hello()[1:]] if policy == "starttls" else hello()
    scripts = [
        [*begin, *take(TO), drop()],
        [*begin, *envelope(TO), "DATA", GO, expect_content(), drop()],
        [*begin, "QUIT", b"221 bye\r\n", drop()],
    ]
    async with ScriptedServer(*scripts, implicit_tls=implicit) as server:
        smtp = AsyncSMTP(server.host, server.port, tls=policy, tls_context=TRUSTING)
        await smtp.connect()
        assert (await send(smtp)).accepted == (TO,)
        await smtp._connection.protocol.closed
        assert not smtp.is_connected
        assert isinstance(await caught(smtp.noop()), SMTPServerDisconnected)
        error = await caught(send(smtp))
        assert isinstance(error, SMTPServerDisconnected)
        assert error.delivery is Delivery.UNKNOWN
        await smtp.connect()
        assert (await smtp.quit()).code == 221


@each_loop
async def test_a_server_that_never_closes_its_side_is_not_waited_for_long():
    """After QUIT the close_notify of a silent server is waited for a second at most."""
    script = [*hello(), "QUIT", b"221 bye\r\n", stall()]
    async with ScriptedServer(script, implicit_tls=AUTHORITY.server_context()) as server:
        smtp = AsyncSMTP(server.host, server.port, tls="implicit", tls_context=TRUSTING)
        await smtp.connect()
        started = asyncio.get_running_loop().time()
        assert (await smtp.quit()).code == 221
        assert asyncio.get_running_loop().time() - started < 3.0
        assert not smtp.is_connected


@each_loop
async def test_content_larger_than_every_buffer_goes_through_tls():
    """Flow control inside TLS, and an early refusal there."""
    line = b"x" * 78 + b"\r\n"
    script = [
        *hello(),
        *take(TO),
        *envelope(TO),
        "DATA",
        GO,
        read_exactly(100_000),
        b"552 enough\r\n",
        stall(),
    ]
    async with ScriptedServer(script, implicit_tls=AUTHORITY.server_context()) as server:
        async with AsyncSMTP(server.host, server.port, tls="implicit", tls_context=TRUSTING) as smtp:
            assert (await send(smtp, body=line * 10_000)).accepted == (TO,)
            error = await caught(send(smtp, body=line * 400_000))
            assert error.delivery is Delivery.REFUSED
