"""The wire rules: logging in, and keeping secrets (RFC 4954)."""

from __future__ import annotations

import asyncio
import base64
import hmac
import logging
import pickle
import sys
import traceback
from types import TracebackType

import pytest
from wire import LONG, OK, bye, caught, each_loop, hello, send, take, verbs

from aiosmtpclient import (
    AsyncSMTP,
    SMTPAuthenticationError,
    SMTPException,
    SMTPNotSupportedError,
    SMTPProtocolError,
    SMTPTLSError,
)
from aiosmtpclient.testing import CertificateAuthority, MailServer, ScriptedServer
from aiosmtpclient.testing.scripted import close, expect_eof, read_all, starttls

USER, PASSWORD = "alice", "correct horse battery staple"


def b64(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


PLAIN = b64(f"\0{USER}\0{PASSWORD}")


# -- 1: mechanisms, and where credentials may travel -----------------------------------------


@each_loop
@pytest.mark.parametrize("mechanism", ["CRAM-MD5", "PLAIN", "LOGIN"])
async def test_each_mechanism_logs_in(mechanism):
    """Against a real server."""
    async with MailServer(users={USER: PASSWORD}, mechanisms=[mechanism]) as server:
        async with AsyncSMTP(server.host, server.port, username=USER, password=PASSWORD) as smtp:
            await send(smtp)
        assert server.messages[0].user == USER


async def test_the_strongest_mechanism_is_tried_first_whatever_the_servers_order():
    """Strongest first."""
    async with MailServer(users={USER: PASSWORD}, mechanisms=["LOGIN", "PLAIN", "CRAM-MD5"]) as server:
        async with AsyncSMTP(server.host, server.port, username=USER, password=PASSWORD):
            pass
        assert [command for command in server.commands if command.startswith("AUTH")] == ["AUTH CRAM-MD5"]


@each_loop
async def test_another_mechanism_is_tried_after_a_failure_on_a_local_connection():
    """On a local connection with `tls=NONE` nobody can have forced the failure."""
    script = [*hello("AUTH CRAM-MD5 PLAIN"), "AUTH CRAM-MD5", b"334 PDE+\r\n", "", b"535 no\r\n"]
    script += [f"AUTH PLAIN {PLAIN}", b"235 in\r\n", *bye()]
    async with ScriptedServer(script) as server:
        async with AsyncSMTP(server.host, server.port, username=USER, password=PASSWORD):
            pass


async def test_another_mechanism_is_not_tried_where_somebody_may_have_forced_the_failure():
    """In clear, only because the caller allowed it: the first failure is the last."""
    script = [*hello("AUTH CRAM-MD5 PLAIN"), "AUTH CRAM-MD5", b"334 PDE+\r\n", "", b"535 no\r\n", *bye()]
    options = {"username": USER, "password": PASSWORD, "allow_cleartext_auth": True, "tls": "opportunistic"}
    async with ScriptedServer(script) as server:
        with pytest.raises(SMTPAuthenticationError):
            await AsyncSMTP(server.host, server.port, **options).connect()


@each_loop
async def test_another_mechanism_is_tried_inside_tls():
    """Inside TLS too."""
    authority = CertificateAuthority()
    script = [*hello("AUTH CRAM-MD5 PLAIN"), "AUTH CRAM-MD5", b"334 PDE+\r\n", "", b"535 no\r\n"]
    script += [f"AUTH PLAIN {PLAIN}", b"235 in\r\n", *bye()]
    async with ScriptedServer(script, implicit_tls=authority.server_context()) as server:
        options = {"tls": "implicit", "tls_context": authority.client_context()}
        async with AsyncSMTP(server.host, server.port, username=USER, password=PASSWORD, **options):
            pass


async def test_a_dropped_connection_ends_the_attempts():
    """After a 421 no other mechanism is tried."""
    script = [*hello("AUTH CRAM-MD5 PLAIN"), "AUTH CRAM-MD5", b"421 bye\r\n", expect_eof()]
    async with ScriptedServer(script) as server:
        error = await caught(AsyncSMTP(server.host, server.port, username=USER, password=PASSWORD).connect())
        assert isinstance(error, SMTPAuthenticationError)
        assert error.smtp_code == 421


@each_loop
@pytest.mark.parametrize("policy", ["opportunistic", "none"])
@pytest.mark.parametrize("verb", ["constructor", "login", "auth"])
async def test_credentials_do_not_travel_in_clear(policy, verb, monkeypatch):
    """OPPORTUNISTIC: only inside TLS, wherever the server is; NONE: only to a local server."""
    if policy == "none":  # a server that is elsewhere, as far as names tell
        loop = asyncio.get_running_loop()
        connect = loop.create_connection

        async def elsewhere(factory, host, port, **options):
            return await connect(factory, "127.0.0.1", port, **options)

        monkeypatch.setattr(type(loop), "create_connection", lambda self, *a, **k: elsewhere(*a, **k))
    host = "mail.test" if policy == "none" else "127.0.0.1"
    async with ScriptedServer([*hello("AUTH PLAIN LOGIN"), *bye()]) as server:
        if verb == "constructor":
            smtp = AsyncSMTP(host, server.port, tls=policy, username=USER, password=PASSWORD)
            error = await caught(smtp.connect())
        else:
            async with AsyncSMTP(host, server.port, tls=policy) as smtp:
                if verb == "login":
                    error = await caught(smtp.login(USER, PASSWORD))
                else:
                    error = await caught(smtp.auth("PLAIN", smtp.auth_plain))
        assert isinstance(error, SMTPTLSError)
        assert "clear" in str(error)
        assert verbs(server.received[0]) == ["EHLO", "QUIT"]


async def test_credentials_travel_in_clear_where_the_caller_says_so():
    """Unless `allow_cleartext_auth=True`."""
    async with MailServer(users={USER: PASSWORD}) as server:
        options = {"tls": "opportunistic", "allow_cleartext_auth": True}
        async with AsyncSMTP(server.host, server.port, username=USER, password=PASSWORD, **options) as smtp:
            await send(smtp)
        assert server.messages[0].user == USER


@pytest.mark.parametrize("username", ["", None])
async def test_no_user_name_means_no_login(username):
    """`username=""` or None means no login."""
    async with MailServer(users={USER: PASSWORD}) as server:
        async with AsyncSMTP(server.host, server.port, username=username, password=PASSWORD):
            pass
        assert not any(command.startswith("AUTH") for command in server.commands)


@pytest.mark.parametrize(
    ("offered", "mechanisms", "error", "match"),
    [
        ([], None, SMTPNotSupportedError, "does not offer AUTH"),
        (["AUTH GSSAPI NTLM"], None, SMTPNotSupportedError, "GSSAPI NTLM"),
        (["AUTH PLAIN"], ["LOGIN"], SMTPNotSupportedError, "PLAIN"),
        (["AUTH PLAIN"], ["XYZZY"], ValueError, "XYZZY"),
        (["AUTH PLAIN"], "PLAIN", ValueError, "list"),
        (["AUTH"], None, SMTPNotSupportedError, "none"),
    ],
)
async def test_no_mechanism_in_common_writes_nothing(offered, mechanisms, error, match):
    """An error before AUTH, and the connection is kept."""
    async with ScriptedServer([*hello(*offered), *bye()]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            with pytest.raises(error, match=match):
                await smtp.login(USER, PASSWORD, mechanisms=mechanisms)
            assert smtp.is_connected
        assert verbs(server.received[0]) == ["EHLO", "QUIT"]


async def test_old_style_auth_is_understood():
    """The strongest first, with `AUTH=LOGIN PLAIN`, as old servers offer it."""
    script = [*hello("AUTH=LOGIN PLAIN"), f"AUTH PLAIN {PLAIN}", b"235 in\r\n", *bye()]
    async with ScriptedServer(script) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            assert (await smtp.login(USER, PASSWORD)).code == 235


async def test_the_callers_mechanisms_are_tried_in_the_callers_order():
    """`mechanisms=` decides."""
    script = [
        *hello("AUTH CRAM-MD5 PLAIN LOGIN"),
        "AUTH LOGIN",
        b"535 no\r\n",
        "AUTH PLAIN",
        b"235 in\r\n",
        *bye(),
    ]
    async with ScriptedServer(script) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            await smtp.login(USER, PASSWORD, mechanisms=["login", "plain"])


async def test_a_second_login_on_one_connection_is_no_failure():
    """RFC 4954 section 4 says 503, and smtplib calls that success; before any login 503 is a refusal."""
    script = [
        *hello("AUTH PLAIN"),
        "AUTH",
        b"503 what?\r\n",
        "AUTH",
        b"235 in\r\n",
        "AUTH",
        b"503 already\r\n",
    ]
    async with ScriptedServer([*script, *bye()]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            with pytest.raises(SMTPAuthenticationError):
                await smtp.login(USER, PASSWORD)
            await smtp.login(USER, PASSWORD)
            assert (await smtp.login(USER, PASSWORD)).code == 503


# -- 2: challenges ---------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", [b"334\r\n", b"334 go on!\r\n", b"334 VXNlcm5hbWU6\r\n"])
async def test_a_prompt_that_carries_nothing_is_ignored(prompt):
    """PLAIN's challenge and LOGIN's prompts: position decides, whatever they say."""
    script = [
        *hello("AUTH LOGIN PLAIN"),
        "AUTH LOGIN",
        prompt,
        b64(USER),
        prompt,
        b64(PASSWORD),
        b"535 no\r\n",
    ]
    script += ["AUTH PLAIN", prompt, PLAIN, b"235 in\r\n", *bye()]
    async with ScriptedServer(script) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            await smtp.login(USER, PASSWORD, initial_response_ok=False, mechanisms=["LOGIN", "PLAIN"])


@each_loop
@pytest.mark.parametrize(
    ("mechanism", "before", "challenge"),
    [
        ("CRAM-MD5", [], b"334 %%%\r\n"),
        ("CRAM-MD5", [], b"334 PDE\r\n"),
        ("CRAM-MD5", [], b"334 " + b"QUFB" * 3073 + b"\r\n"),
        ("CRAM-MD5", [b"334 PDE+\r\n", ""], b"334 PDE+\r\n"),
        ("PLAIN", [], b"334 \r\n"),
        ("LOGIN", [b"334 x\r\n", ""], b"334 x\r\n"),
    ],
    ids=["not base64", "cut base64", "too long", "one too many", "PLAIN again", "LOGIN again"],
)
async def test_a_challenge_that_makes_no_sense_is_cancelled(mechanism, before, challenge):
    """Send `*`, read the reply, fail; and the connection is still good."""
    script = [*hello(f"AUTH {mechanism}"), f"AUTH {mechanism}", *before, challenge, "*", b"501 cancelled\r\n"]
    async with ScriptedServer([*script, "NOOP", OK, *bye()]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            with pytest.raises(SMTPAuthenticationError, match="challenge makes no sense") as caught_error:
                await smtp.login(USER, PASSWORD, mechanisms=[mechanism])
            assert caught_error.value.smtp_code == 501
            assert (await smtp.noop()).code == 250


@pytest.mark.parametrize("reply", [b"235 in all the same\r\n", b"334 more\r\n", b"250 ok\r\n"])
async def test_a_cancelled_exchange_that_is_not_refused_ends_the_connection(reply):
    """What follows `*` can only be a refusal."""
    script = [*hello("AUTH CRAM-MD5"), "AUTH CRAM-MD5", b"334 %%%\r\n", "*", reply, expect_eof()]
    async with ScriptedServer(script) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            with pytest.raises(SMTPProtocolError):
                await smtp.login(USER, PASSWORD)
            assert not smtp.is_connected


@pytest.mark.parametrize(("length", "with_auth"), [(372, True), (373, False)])
async def test_a_long_initial_response_waits_for_the_334(length, with_auth):
    """An initial response that makes the line longer than 512 octets goes after the 334."""
    long = "x" * (length - len(f"\0{USER}\0"))
    response = b64(f"\0{USER}\0{long}")
    assert (len(f"AUTH PLAIN {response}\r\n") <= 512) is with_auth
    exchange = [f"AUTH PLAIN {response}"] if with_auth else ["AUTH PLAIN", b"334 \r\n", response]
    async with ScriptedServer([*hello("AUTH PLAIN"), *exchange, b"235 in\r\n", *bye()]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            await smtp.login(USER, long)
        assert all(len(line) <= 512 for line in server.received[0].split(b"\r\n")[:2])


async def test_an_empty_initial_response_is_an_equals_sign():
    """An empty one is `=`; an empty response to a challenge is an empty line."""
    script = [*hello("AUTH XAMPLE"), "AUTH XAMPLE =", b"334 \r\n", "", b"235 in\r\n", *bye()]
    async with ScriptedServer(script) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            await smtp.auth("XAMPLE", lambda challenge=None: b"")
        assert b"AUTH XAMPLE =\r\n\r\nQUIT" in server.received[0]


# -- authobjects -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plain", "login", "cram_md5"])
async def test_the_authobjects_of_smtplib_log_in(name):
    """`auth(mechanism, smtp.auth_…)` as with smtplib, from `user` and `password`."""
    mechanism = name.upper().replace("_", "-")
    async with MailServer(users={USER: PASSWORD}, mechanisms=[mechanism]) as server:
        smtp = AsyncSMTP(server.host, server.port)
        async with smtp:
            await caught(smtp.login(USER, PASSWORD, mechanisms=[]))
            assert (smtp.user, smtp.password) == (USER, PASSWORD)
            for initial_response_ok in (True, False):
                if initial_response_ok is False:
                    await smtp.quit()
                    await smtp.connect()
                authobject = getattr(smtp, f"auth_{name}")
                reply = await smtp.auth(
                    mechanism.lower(), authobject, initial_response_ok=initial_response_ok
                )
                assert reply.code == 235


async def test_an_authobject_may_be_asynchronous():
    """An authobject may be a coroutine function, and give str or bytes."""
    script = [*hello("AUTH XAMPLE"), "AUTH XAMPLE dG9rZW4=", b"334 eA==\r\n", "eHg=", b"235 in\r\n", *bye()]

    async def authobject(challenge: bytes | None = None) -> str | bytes:
        await asyncio.sleep(0)
        return "token" if challenge is None else challenge * 2

    async with ScriptedServer(script) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            assert (await smtp.auth("XAMPLE", authobject)).code == 235


@each_loop
async def test_an_authobject_that_gives_up_or_fails_leaves_the_exchange_properly():
    """None means: give up; an exception of the caller's passes through; both say `*` first."""
    exchange = ["AUTH XAMPLE", b"334 eA==\r\n", "*", b"501 cancelled\r\n"]
    async with ScriptedServer([*hello("AUTH XAMPLE"), *exchange, *exchange, "NOOP", OK, *bye()]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            with pytest.raises(SMTPAuthenticationError):
                await smtp.auth("XAMPLE", lambda challenge=None: None)

            def fails(challenge: bytes | None = None) -> None:
                if challenge is not None:
                    raise ZeroDivisionError

            with pytest.raises(ZeroDivisionError):
                await smtp.auth("XAMPLE", fails)
            assert (await smtp.noop()).code == 250


async def test_an_authobject_that_fails_at_once_writes_nothing():
    """A failure before the initial response: nothing is written, and the connection is kept."""
    async with ScriptedServer([*hello("AUTH XAMPLE"), "NOOP", OK, *bye()]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            with pytest.raises(ZeroDivisionError):
                await smtp.auth("XAMPLE", lambda: 1 / 0)
            assert (await smtp.noop()).code == 250
        assert verbs(server.received[0]) == ["EHLO", "NOOP", "QUIT"]


async def test_a_server_that_never_stops_asking_is_stopped():
    """An authobject answers as many challenges as smtplib's, and no more."""
    asked = ["AUTH XAMPLE", *[b"334 eA==\r\n", "eA=="] * 5, b"334 eA==\r\n", "*", b"501 ok\r\n"]
    async with ScriptedServer([*hello("AUTH XAMPLE"), *asked, *bye()]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            with pytest.raises(SMTPAuthenticationError):
                await smtp.auth("XAMPLE", lambda challenge=None: challenge)


# -- 3: what is in a credential --------------------------------------------------------------


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
async def test_credentials_travel_as_utf8(mechanism):
    """Credentials are UTF-8."""
    user, password = "j\u00f6rg", "pa\u00df\u20ac \U0001f511"
    async with MailServer(users={user: password}, mechanisms=[mechanism]) as server:
        async with AsyncSMTP(server.host, server.port, username=user, password=password) as smtp:
            await send(smtp)
        assert server.messages[0].user == user


async def test_acting_as_somebody_else_is_said_in_plain():
    """An authorization identity travels in PLAIN, and in nothing that cannot carry it."""
    response = b64(f"bob\0{USER}\0{PASSWORD}")
    script = [*hello("AUTH CRAM-MD5 LOGIN PLAIN"), f"AUTH PLAIN {response}", b"235 in\r\n", *bye()]
    async with ScriptedServer(script) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            await smtp.login(USER, PASSWORD, authorization_id="bob")


@pytest.mark.parametrize("mechanisms", [None, ["SCRAM-SHA-256"]])
async def test_acting_as_somebody_else_where_nothing_can_say_so_is_explained(mechanisms):
    async with ScriptedServer([*hello("AUTH SCRAM-SHA-256 LOGIN"), *bye()]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            with pytest.raises(SMTPNotSupportedError, match=r"authorization identity .*: .*PLAIN.* can"):
                await smtp.login(USER, PASSWORD, authorization_id="bob", mechanisms=mechanisms)


@pytest.mark.parametrize(
    "bad", [{"username": "a\0b"}, {"username": "u", "password": "\0"}, {"username": "\ud800"}]
)
async def test_a_nul_in_the_constructors_credentials_is_a_valueerror(bad):
    """NUL in user or password: ValueError."""
    with pytest.raises(ValueError, match="NUL"):
        AsyncSMTP("mail.test", **bad)


# -- 4: secrets ------------------------------------------------------------------------------

SECRETS = [PASSWORD, b64(PASSWORD), PLAIN]


def locals_of(trace: TracebackType | None) -> list[str]:
    """What an error reporter that shows locals would print."""
    shown = []
    while trace is not None:
        frame = trace.tb_frame
        if "aiosmtpclient" in frame.f_code.co_filename and "tests" not in frame.f_code.co_filename:
            shown += [f"{name}={value!r}" for name, value in frame.f_locals.items()]
        trace = trace.tb_next
    return shown


def chain(error: BaseException | None) -> list[BaseException]:
    found = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


@pytest.fixture
def audited():
    """The audit events of this process, until the test is over."""
    events: list[str] = []
    on = True

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if on and not event.startswith(("object.", "import", "compile", "exec", "code.", "sys._getframe")):
            events.append(f"{event} {arguments!r}")

    sys.addaudithook(hook)
    yield events
    on = False


ECHO = f"535 no: {PASSWORD} {b64(PASSWORD)} {PLAIN}\r\n".encode()


@pytest.mark.parametrize(
    "exchange",
    [
        pytest.param([f"AUTH PLAIN {PLAIN}", ECHO], id="PLAIN"),
        pytest.param(["AUTH PLAIN", b"334 " + PLAIN.encode() + b"\r\n", "*", ECHO], id="PLAIN challenged"),
        pytest.param(["AUTH LOGIN", b"334 x\r\n", b64(PASSWORD), ECHO], id="LOGIN"),
        pytest.param(["AUTH CRAM-MD5", b"334 PDE+\r\n", "", ECHO], id="CRAM-MD5"),
        pytest.param(["AUTH PLAIN", b"rubbish " + PLAIN.encode() + b"\r\n", read_all()], id="rubbish"),
        pytest.param(["AUTH PLAIN", close()], id="closed"),
    ],
)
@pytest.mark.parametrize("how", ["login", "constructor"])
async def test_a_password_shows_up_nowhere(exchange, how, caplog, audited):
    """In no log, no repr, no exception, no traceback with locals, no audit event; no trace either."""
    mechanism = exchange[0].split()[1]
    traced: list[bytes] = []
    caplog.set_level(logging.DEBUG)
    script = [*hello(f"AUTH {mechanism}"), *exchange]
    if exchange[-1] is ECHO:
        script += bye()
    async with ScriptedServer(script) as server:

        def trace(event: str, octets: bytes) -> None:
            traced.append(octets)

        if how == "constructor":
            smtp = AsyncSMTP(server.host, server.port, username=USER, password=PASSWORD, trace=trace)
            error = await caught(smtp.connect())
        else:
            async with AsyncSMTP(server.host, server.port, trace=trace) as smtp:
                error = await caught(smtp.login(USER, PASSWORD))
        assert isinstance(error, SMTPException)
        assert server.received[0].count(b"AUTH") == 1
    texts = [repr(smtp), caplog.text, repr(smtp._credentials), *map(repr, traced), *audited]
    for one in chain(error):
        texts += [str(one), repr(one), repr(vars(one)), *locals_of(one.__traceback__)]
        texts += ["".join(traceback.format_exception(one)), repr(pickle.loads(pickle.dumps(one)).args)]
    for text in texts:
        assert not [secret for secret in SECRETS if secret in text], text


async def test_an_auth_command_by_hand_is_masked_too(caplog):
    """`docmd("AUTH", …)` and what follows a 334."""
    caplog.set_level(logging.DEBUG)
    traced: list[bytes] = []
    script = [*hello("AUTH LOGIN"), "AUTH LOGIN", b"334 x\r\n", b64(PASSWORD), b"235 in\r\n", *bye()]
    async with ScriptedServer(script) as server:
        async with AsyncSMTP(server.host, server.port, trace=lambda _, octets: traced.append(octets)) as smtp:
            await smtp.docmd("AUTH", f"LOGIN {b64(USER)}")
            await smtp.docmd(b64(PASSWORD))
    for secret in (b64(USER), b64(PASSWORD)):
        assert secret not in caplog.text
        assert secret.encode() not in b"".join(traced)


async def test_a_cancelled_login_shows_no_password_either():
    """A CancelledError's traceback with locals."""
    reached = asyncio.Event()
    script = [*hello("AUTH PLAIN"), "AUTH PLAIN", lambda _: asyncio.sleep(0, reached.set()), read_all()]
    async with ScriptedServer(script) as server:
        smtp = AsyncSMTP(server.host, server.port, timeout=LONG)
        await smtp.connect()
        task = asyncio.create_task(caught(smtp.login(USER, PASSWORD)))
        await reached.wait()
        task.cancel()
        error = await task
        assert isinstance(error, asyncio.CancelledError)
        for text in locals_of(error.__traceback__):
            assert not [secret for secret in SECRETS if secret in text], text


async def test_cram_md5_proves_what_the_server_asked_for():
    """The response is what RFC 2195 says."""
    challenge = b"<1896.697170952@postoffice.reston.mci.net>"
    digest = hmac.new(PASSWORD.encode(), challenge, "md5").hexdigest()
    script = [*hello("AUTH CRAM-MD5"), "AUTH CRAM-MD5", f"334 {b64(challenge)}\r\n".encode()]
    async with ScriptedServer([*script, b64(f"{USER} {digest}"), b"235 in\r\n", *bye()]) as server:
        async with AsyncSMTP(server.host, server.port, username=USER, password=PASSWORD):
            pass


async def test_login_after_starttls_by_hand():
    """AUTH is offered inside TLS only, and EHLO is said again by itself."""
    authority = CertificateAuthority()
    script = [*hello("STARTTLS"), "STARTTLS", b"220 go\r\n", starttls(authority.server_context())]
    script += [
        "EHLO",
        b"250-x\r\n250 AUTH PLAIN\r\n",
        f"AUTH PLAIN {PLAIN}",
        b"235 in\r\n",
        *take("a@b.test"),
        *bye(),
    ]
    async with ScriptedServer(script) as server:
        async with AsyncSMTP(server.host, server.port, tls_context=authority.client_context()) as smtp:
            with pytest.raises(SMTPNotSupportedError, match="offers STARTTLS"):
                await smtp.login(USER, PASSWORD)
            await smtp.starttls()
            await smtp.login(USER, PASSWORD)
            await send(smtp, "a@b.test")
