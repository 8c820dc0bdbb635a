"""The blocking classes beside smtplib's: the same signatures, and the same results side by side.

Signatures are compared with the smtplib of the interpreter that runs. Results are compared by
letting both talk to a server that gives the same answers: return values, exception classes
(ours inherit theirs) and their arguments.
"""

from __future__ import annotations

import inspect
import smtplib
from collections.abc import Callable, Mapping
from email.message import EmailMessage
from typing import Any

import pytest

import aiosmtpclient
from aiosmtpclient.testing import Conversation, ScriptedServer

CLASSES = ("SMTP", "SMTP_SSL", "LMTP")

# Parameters of ours that smtplib does not have on every version, and where they are.
ADDED = {
    "__init__": {"pipelining", "chunking", "proxy_header", "proxy", "dialer", "options"},
    "starttls": {"server_hostname", "keyfile", "certfile", "tls_ca", "tls_certificate", "tls_fingerprint"},
    "login": {"mechanisms", "authorization_id", "token"},
    "sendmail": {"all_or_nothing", "options"},
    "send_message": {"all_or_nothing", "options"},
}
ADDED_SSL = {"keyfile", "certfile", "server_hostname", "tls_ca", "tls_certificate", "tls_fingerprint"}
# What smtplib keeps for itself, though it has no underscore.
INTERNAL = {"file"}

POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


# Names


def test_every_public_name_of_smtplib_is_ours_too() -> None:
    assert [name for name in smtplib.__all__ if not hasattr(aiosmtpclient, name)] == []


@pytest.mark.parametrize("name", ["CRLF", "SMTP_PORT", "SMTP_SSL_PORT", "LMTP_PORT"])
def test_the_constants_are_the_same(name: str) -> None:
    assert getattr(aiosmtpclient, name) == getattr(smtplib, name)


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, value in vars(smtplib).items()
        if inspect.isclass(value) and name.endswith(("Error", "ed"))
    ]
    + ["SMTPException", "SMTPResponseException", "SMTPRecipientsRefused"],
)
def test_every_exception_is_caught_by_clauses_for_smtplibs(name: str) -> None:
    assert issubclass(getattr(aiosmtpclient, name), getattr(smtplib, name))


@pytest.mark.parametrize("name", CLASSES)
def test_the_classes_are_related_as_there(name: str) -> None:
    assert issubclass(getattr(aiosmtpclient, name), aiosmtpclient.SMTP)


# Signatures


def methods(cls: type) -> list[str]:
    found = {name for one in cls.__mro__[:-1] for name, value in vars(one).items() if callable(value)}
    return sorted(name for name in found if not name.startswith("_") or name == "__init__")


METHODS = [(cls, name) for cls in CLASSES for name in methods(getattr(smtplib, cls))]


def parameters(module: Any, cls: str, method: str) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(getattr(getattr(module, cls), method)).parameters)


def test_there_is_much_to_compare() -> None:
    assert len(METHODS) > 80


@pytest.mark.parametrize(("cls", "method"), METHODS)
def test_positional_parameters_have_the_same_order(cls: str, method: str) -> None:
    theirs = [name for name, one in parameters(smtplib, cls, method).items() if one.kind in POSITIONAL]
    ours = [name for name, one in parameters(aiosmtpclient, cls, method).items() if one.kind in POSITIONAL]
    assert ours[: len(theirs)] == theirs


@pytest.mark.parametrize(("cls", "method"), METHODS)
def test_every_parameter_is_there_with_the_same_default(cls: str, method: str) -> None:
    ours = parameters(aiosmtpclient, cls, method)
    for name, theirs in parameters(smtplib, cls, method).items():
        assert ours[name].default == theirs.default, name
        assert ours[name].kind in (theirs.kind, inspect.Parameter.POSITIONAL_OR_KEYWORD), name


@pytest.mark.parametrize(("cls", "method"), METHODS)
def test_what_is_added_is_optional_and_known(cls: str, method: str) -> None:
    theirs = parameters(smtplib, cls, method)
    added = {name: one for name, one in parameters(aiosmtpclient, cls, method).items() if name not in theirs}
    known = ADDED.get(method, set()) | (ADDED_SSL if cls == "SMTP_SSL" and method == "__init__" else set())
    assert added.keys() <= known
    keywords = inspect.Parameter.VAR_KEYWORD
    assert all(one.default is not inspect.Parameter.empty or one.kind is keywords for one in added.values())


@pytest.mark.parametrize("cls", CLASSES)
def test_class_attributes_have_the_same_values(cls: str) -> None:
    theirs = {
        name: value
        for name, value in inspect.getmembers(getattr(smtplib, cls))
        if not name.startswith("_") and not callable(value) and name not in INTERNAL
    }
    assert {"debuglevel", "sock", "ehlo_msg", "default_port"} <= theirs.keys()
    if cls == "LMTP":
        theirs["default_port"] = smtplib.LMTP_PORT  # theirs is 25, where RFC 2033 section 5 forbids LMTP
    assert {name: getattr(getattr(aiosmtpclient, cls), name) for name in theirs} == theirs


@pytest.mark.parametrize("cls", CLASSES)
def test_objects_have_the_same_attributes(cls: str) -> None:
    theirs = vars(getattr(smtplib, cls)(local_hostname="a.test", timeout=5))
    ours = getattr(aiosmtpclient, cls)(local_hostname="a.test", timeout=5)
    keys = {name for name in theirs if not name.startswith("_")} - {"context", "keyfile", "certfile"}
    assert {name: getattr(ours, name) for name in keys} == {name: theirs[name] for name in keys}


# Side by side

EHLO = b"250-mail.test at your service\r\n250-SIZE 1000\r\n250-8BITMIME\r\n250 HELP\r\n"
LOGIN = b"250-mail.test\r\n250 AUTH PLAIN\r\n"
STARTTLS = b"250-mail.test\r\n250 STARTTLS\r\n"

ANSWERS = {
    "greeting": b"220 mail.test ESMTP\r\n",
    "EHLO": EHLO,
    "LHLO": EHLO,
    "HELO": b"250 mail.test\r\n",
    "MAIL": b"250 2.1.0 ok\r\n",
    "RCPT": b"250 2.1.5 ok\r\n",
    "DATA": b"354 go\r\n",
    "content": b"250 2.0.0 queued\r\n",
    "RSET": b"250 reset\r\n",
    "NOOP": b"250 still here\r\n",
    "HELP": b"214-first\r\n214 second\r\n",
    "VRFY": b"252 perhaps\r\n",
    "EXPN": b"250-<a@b.test>\r\n250 <c@d.test>\r\n",
    "XTRA": b"299 whatever\r\n",
    "AUTH": b"235 welcome\r\n",
    "STARTTLS": b"454 not now\r\n",
    "QUIT": b"221 bye\r\n",
}


def answering(answers: Mapping[str, bytes]) -> Callable[[Conversation], Any]:
    """A script that gives each verb its answer; an empty one closes. "RCPT bad" is RCPT with "bad" in it."""

    async def script(conversation: Conversation) -> None:
        await conversation.say(answers["greeting"])
        while True:
            try:
                line = await conversation.expect("")
            except AssertionError:  # the client closed, which is its right
                return
            verb = line.split(" ")[0].upper()
            special = next(
                (a for key, a in answers.items() if key.startswith(f"{verb} ") and key[5:] in line), None
            )
            answer = answers[verb] if special is None else special
            if not answer:
                return
            await conversation.say(answer)
            if verb == "DATA" and answer.startswith(b"354"):
                await conversation.expect_content()
                await conversation.say(answers["content"])
            if verb == "QUIT" or answer.startswith(b"421"):
                return

    return script


def message() -> EmailMessage:
    made = EmailMessage()
    made["From"] = "Sender <a@b.test>"
    made["To"] = "good@d.test, bad@d.test"
    made["Subject"] = "Parity"
    made.set_content("Hello.\n")
    return made


def send(smtp: Any) -> object:
    return smtp.sendmail("a@b.test", ["good@d.test", "bad@d.test"], b"Subject: x\r\n\r\nHello.\r\n")


def by_hand(smtp: Any) -> object:
    steps = [smtp.ehlo("me.test"), smtp.mail("a@b.test", ["BODY=8BITMIME"]), smtp.rcpt("good@d.test")]
    return [*steps, smtp.rcpt("bad@d.test", ["X=Y"]), smtp.data(b"Hello.\r\n"), smtp.rset()]


def raw(smtp: Any) -> object:
    smtp.putcmd("NOOP")
    first = smtp.getreply()
    smtp.putcmd("VRFY", "somebody")
    second = smtp.getreply()
    smtp.send(b"NOOP\r\n")
    third = smtp.getreply()
    smtp.send("NOOP\r\n")
    return first, second, third, smtp.getreply()


def classic_data(smtp: Any) -> object:
    replies = [smtp.docmd("MAIL", "FROM:<a@b.test>"), smtp.docmd("RCPT", "TO:<c@d.test>"), smtp.docmd("DATA")]
    smtp.send("Hello.\r\n.\r\n")
    return [*replies, smtp.getreply(), smtp.noop()]


def hello(smtp: Any) -> object:
    before = smtp.helo_resp, smtp.ehlo_resp, smtp.does_esmtp, smtp.esmtp_features
    reply = smtp.ehlo()
    said = smtp.ehlo_resp, smtp.does_esmtp, smtp.esmtp_features, smtp.has_extn("SIZE"), smtp.has_extn("DSN")
    return before, reply, said


def old_hello(smtp: Any) -> object:
    return smtp.helo("me.test"), smtp.helo_resp, smtp.does_esmtp


def if_needed(smtp: Any) -> object:
    first = smtp.ehlo_or_helo_if_needed()
    return first, smtp.ehlo_or_helo_if_needed(), smtp.helo_resp


def asked(smtp: Any) -> object:
    return (
        smtp.noop(),
        smtp.help(),
        smtp.help("MAIL"),
        smtp.verify("a@b.test"),
        smtp.vrfy("a@b.test"),
        smtp.expn("list"),
        smtp.rset(),
        smtp.docmd("XTRA", "one two"),
    )


def login(smtp: Any) -> object:
    return smtp.login("user", "password"), smtp.user, smtp.password


def auth(smtp: Any) -> object:
    smtp.user, smtp.password = "user", "password"
    smtp.ehlo()
    return smtp.auth("PLAIN", smtp.auth_plain), smtp.auth("plain", smtp.auth_plain, initial_response_ok=True)


def authobjects(smtp: Any) -> object:
    smtp.user, smtp.password = "user", "password"
    answers = [smtp.auth_plain(), smtp.auth_plain(b"x"), smtp.auth_login(), smtp.auth_cram_md5()]
    return [*answers, smtp.auth_cram_md5(b"<challenge>")]


def after_quit(smtp: Any) -> object:
    smtp.ehlo()
    return smtp.quit(), smtp.sock, smtp.ehlo_resp, smtp.helo_resp, smtp.esmtp_features, smtp.does_esmtp


def after_close(smtp: Any) -> object:
    smtp.close()
    smtp.close()
    return smtp.noop()


def reconnected(smtp: Any) -> object:
    smtp.quit()
    return smtp.noop()


def without_auth(smtp: Any) -> object:
    smtp.ehlo()
    del smtp.esmtp_features["auth"]
    return smtp.login("user", "password")


def hello_again(smtp: Any) -> object:
    smtp.ehlo()
    smtp.ehlo_resp = smtp.helo_resp = None
    smtp.ehlo_or_helo_if_needed()
    return smtp.ehlo_resp


def many_envelopes(smtp: Any) -> object:
    return [send(smtp), smtp.noop(), smtp.send_message(message()), smtp.rset(), send(smtp)]


SCENES: list[tuple[str, Callable[[Any], object], dict[str, bytes]]] = [
    ("ehlo", hello, {}),
    ("ehlo refused", hello, {"EHLO": b"502 what?\r\n"}),
    ("ehlo, old-style auth", hello, {"EHLO": b"250-mail.test\r\n250-AUTH LOGIN\r\n250 AUTH=PLAIN\r\n"}),
    ("helo", old_hello, {}),
    ("helo refused", old_hello, {"HELO": b"550 no\r\n"}),
    ("hello if needed", if_needed, {}),
    ("hello, old server", if_needed, {"EHLO": b"500 what?\r\n"}),
    ("hello refused", if_needed, {"EHLO": b"500 what?\r\n", "HELO": b"550 no\r\n"}),
    ("hello again", hello_again, {}),
    ("single commands", asked, {}),
    (
        "single commands refused",
        asked,
        dict.fromkeys(["NOOP", "VRFY", "EXPN", "RSET", "HELP"], b"500 no\r\n"),
    ),
    ("a close in between", asked, {"VRFY": b""}),
    ("by hand", by_hand, {}),
    ("by hand, recipient refused", by_hand, {"RCPT bad": b"550 5.1.1 who?\r\n"}),
    ("by hand, all refused", by_hand, {"MAIL": b"550 no\r\n", "RCPT": b"503 no\r\n", "DATA": b"503 no\r\n"}),
    ("by hand, content refused", by_hand, {"content": b"554 spam\r\n"}),
    ("raw", raw, {}),
    ("raw data", classic_data, {}),
    ("sendmail", send, {}),
    ("sendmail, one refused", send, {"RCPT bad": b"550-5.1.1 who\r\n550 5.1.1 is that?\r\n"}),
    ("sendmail, all refused", send, {"RCPT": b"550 who?\r\n"}),
    ("sendmail, for now", send, {"RCPT": b"451 later\r\n"}),
    ("sendmail, forwarded", send, {"RCPT": b"251 will forward\r\n"}),
    ("sendmail, sender refused", send, {"MAIL": b"550 not you\r\n"}),
    ("sendmail, sender refused, 421", send, {"MAIL": b"421 closing\r\n"}),
    ("sendmail, data refused", send, {"DATA": b"554 no\r\n"}),
    ("sendmail, content refused", send, {"content": b"554 spam\r\n"}),
    ("sendmail, content refused for now", send, {"content": b"451 greylisted\r\n"}),
    ("sendmail, close at RCPT", send, {"RCPT": b""}),
    ("sendmail, close at DATA", send, {"DATA": b""}),
    ("send_message", lambda smtp: smtp.send_message(message()), {}),
    ("send_message, one refused", lambda smtp: smtp.send_message(message()), {"RCPT bad": b"550 who?\r\n"}),
    ("one message after the other", many_envelopes, {"RCPT bad": b"550 who?\r\n"}),
    ("starttls not offered", lambda smtp: smtp.starttls(), {}),
    ("starttls refused", lambda smtp: smtp.starttls(), {"EHLO": STARTTLS}),
    ("login", login, {"EHLO": LOGIN}),
    ("login refused", login, {"EHLO": LOGIN, "AUTH": b"535 5.7.8 no\r\n"}),
    ("login not offered", login, {}),
    ("login, offer struck out", without_auth, {"EHLO": LOGIN}),
    ("login, no mechanism in common", login, {"EHLO": b"250-mail.test\r\n250 AUTH BOGUS\r\n"}),
    ("auth", auth, {"EHLO": LOGIN}),
    ("auth refused", auth, {"EHLO": LOGIN, "AUTH": b"535 no\r\n"}),
    ("authobjects", authobjects, {}),
    ("quit", after_quit, {}),
    ("quit refused", after_quit, {"QUIT": b"500 stay\r\n"}),
    ("use after quit", reconnected, {}),
    ("use after close", after_close, {}),
]


def outcome(module: Any, act: Callable[[Any], object], answers: Mapping[str, bytes]) -> object:
    with ScriptedServer(answering({**ANSWERS, **answers})) as server:
        smtp = module.SMTP(server.host, server.port, local_hostname="me.test", timeout=20)
        try:
            return act(smtp)
        except smtplib.SMTPException as error:
            return error
        finally:
            smtp.close()


@pytest.mark.parametrize(
    ("act", "answers"), [scene[1:] for scene in SCENES], ids=[scene[0] for scene in SCENES]
)
def test_the_result_is_smtplibs(act: Callable[[Any], object], answers: dict[str, bytes]) -> None:
    theirs, ours = outcome(smtplib, act, answers), outcome(aiosmtpclient, act, answers)
    if not isinstance(theirs, smtplib.SMTPException):
        assert ours == theirs
        return
    assert isinstance(ours, type(theirs))
    if isinstance(theirs, smtplib.SMTPResponseException | smtplib.SMTPRecipientsRefused):
        assert ours.args == theirs.args
        fields = ("smtp_code", "smtp_error", "sender", "recipients")
        assert [getattr(ours, f, None) for f in fields] == [getattr(theirs, f, None) for f in fields]


@pytest.fixture(params=[smtplib, aiosmtpclient], ids=["smtplib", "ours"])
def module(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_connect_returns_the_greeting(module: Any) -> None:
    with ScriptedServer(answering(ANSWERS)) as server:
        smtp = module.SMTP()
        assert smtp.sock is None
        assert smtp.connect(f"{server.host}:{server.port}") == (220, b"mail.test ESMTP")
        assert smtp.sock is not None
        assert smtp.quit() == (221, b"bye")


def test_connect_returns_a_greeting_that_refuses(module: Any) -> None:
    with ScriptedServer(answering({**ANSWERS, "greeting": b"554-no\r\n554 service\r\n"})) as server:
        smtp = module.SMTP()
        assert smtp.connect(server.host, server.port) == (554, b"no\nservice")
        assert smtp.quit() == (221, b"bye")


def test_the_constructor_raises_for_a_greeting_that_refuses(module: Any) -> None:
    with ScriptedServer([b"554 no service\r\n"]) as server:
        with pytest.raises(smtplib.SMTPConnectError) as caught:
            module.SMTP(server.host, server.port)
    assert caught.value.args == (554, b"no service")


def test_a_connection_refused_is_an_oserror(module: Any) -> None:
    with ScriptedServer() as server:
        port = server.port
    with pytest.raises(ConnectionRefusedError):
        module.SMTP("127.0.0.1", port)


@pytest.mark.parametrize("arguments", [("localhost:smtp",), ("localhost", "no-such-service")])
def test_a_port_that_is_no_number_is_an_oserror(module: Any, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(OSError):
        module.SMTP(*arguments)


@pytest.mark.parametrize("cls", ["SMTP", "LMTP"])
def test_a_timeout_of_nothing_is_refused(module: Any, cls: str) -> None:
    with pytest.raises(ValueError, match="timeout=0"):
        getattr(module, cls)("127.0.0.1", 1, timeout=0)


def test_a_client_that_never_connected_says_so(module: Any) -> None:
    smtp = module.SMTP()
    for act in (
        smtp.ehlo,
        smtp.noop,
        smtp.quit,
        lambda: smtp.send("x"),
        lambda: smtp.sendmail("a", "b", "c"),
    ):
        with pytest.raises(smtplib.SMTPServerDisconnected):
            act()


@pytest.mark.parametrize("command", ["NOOP\r\nQUIT", "NOOP\rQUIT", "NOOP\nQUIT"])
def test_a_line_break_in_a_command_is_refused(module: Any, command: str) -> None:
    with ScriptedServer(answering(ANSWERS)) as server:
        smtp = module.SMTP(server.host, server.port)
        with pytest.raises(ValueError):
            smtp.putcmd(command)
        with pytest.raises(ValueError):
            smtp.docmd("NOOP", command)
        smtp.quit()
    assert server.received == [b"quit\r\n" if module is smtplib else b"QUIT\r\n"]


@pytest.mark.parametrize("text", ["", ".", "a\n.b\r.c\r\n..d", "a\r\n\r.b\n\n", "\n.\r\n"])
def test_quotedata_is_smtplibs(text: str) -> None:
    assert aiosmtpclient.quotedata(text) == smtplib.quotedata(text)
