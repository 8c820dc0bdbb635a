"""Dialogues: what is written, in which order, and what each answer makes of it."""

from __future__ import annotations

import base64
import hmac
import io
import traceback
from collections.abc import Callable

import pytest
from driver import Disconnected, Talk, Then, ready, talk

from aiosmtpclient import dialogues, sasl
from aiosmtpclient.dialogues import MAX_CHALLENGE, MAX_CHALLENGES
from aiosmtpclient.errors import (
    SMTPAuthenticationError,
    SMTPConnectError,
    SMTPException,
    SMTPHeloError,
    SMTPProtocolError,
    SMTPServerDisconnected,
    SMTPTimeoutError,
)
from aiosmtpclient.extensions import Extensions
from aiosmtpclient.replies import Reply
from aiosmtpclient.session import Session
from aiosmtpclient.steps import Dialogue, Phase

USER, PASSWORD = "tim", "open sesame"
LATE: list[BaseException] = [Disconnected(), SMTPTimeoutError("late"), KeyboardInterrupt()]


def b64(text: str | bytes) -> bytes:
    return base64.b64encode(text.encode() if isinstance(text, str) else text)


PLAIN = b64(f"\0{USER}\0{PASSWORD}")


def refused_by_protocol(over: Talk[object], code: int, command: str) -> None:
    """The connection was given up, and the error says what cannot be an answer to what."""
    assert over.gave_up
    assert isinstance(over.error, SMTPProtocolError)
    assert (over.error.smtp_code, over.error.command) == (code, command)
    assert over.error.reply is not None


# The greeting


def greeted(*answers: bytes | BaseException) -> Talk[Reply]:
    session = Session("mail.test:25")
    return talk(dialogues.greet(session.greeting), *answers, session=session)


def test_the_greeting_is_read_before_anything_is_written() -> None:
    over = greeted(b"220-hello\r\n220 there\r\n")
    assert over.result == Reply(220, b"hello\nthere")
    assert over.wrote == []
    assert over.kept


@pytest.mark.parametrize("code", [221, 250, 354, 421, 450, 554])
def test_any_greeting_but_220_is_no_service(code: int) -> None:
    over = greeted(b"%d no\r\n" % code)
    assert isinstance(over.error, SMTPConnectError)
    assert (over.error.smtp_code, over.error.reply) == (code, Reply(code, b"no"))


def test_a_server_that_hangs_up_instead_of_greeting() -> None:
    gone = Disconnected()
    assert greeted(gone).error is gone


# EHLO, LHLO, HELO


@pytest.mark.parametrize("verb", ["EHLO", "LHLO"])
def test_what_is_offered_is_read_from_the_answer(verb: str) -> None:
    over = talk(dialogues.hello(verb, "me.test"), b"250-mail.test\r\n250-PIPELINING\r\n250 SIZE 100\r\n")
    assert over.wrote == [f"{verb} me.test\r\n".encode()]
    assert over.result is not None
    assert over.result.verb == verb
    assert over.result.reply == Reply(250, b"mail.test\nPIPELINING\nSIZE 100")
    assert dict(over.result.extensions) == {"pipelining": "", "size": "100"}


def test_helo_offers_nothing_whatever_its_answer_says() -> None:
    over = talk(dialogues.hello("HELO", "me.test"), b"250-mail.test\r\n250 PIPELINING\r\n")
    assert over.result is not None
    assert (over.result.verb, dict(over.result.extensions)) == ("HELO", {})


def test_helo_follows_an_ehlo_that_is_refused_for_good() -> None:
    over = talk(dialogues.hello("EHLO", "me.test", fallback=True), b"502 what?\r\n", b"250 hi\r\n")
    assert over.wrote == [b"EHLO me.test\r\n", b"HELO me.test\r\n"]
    assert over.result == dialogues.Hello("HELO", Reply(250, b"hi"), Extensions())


def test_both_refused_is_the_last_refusal() -> None:
    over = talk(dialogues.hello("EHLO", "me.test", fallback=True), b"502 what?\r\n", b"550 go\r\n")
    assert isinstance(over.error, SMTPHeloError)
    assert (over.error.smtp_code, over.error.command) == (550, "HELO")
    assert over.kept


@pytest.mark.parametrize(
    ("verb", "fallback", "answer"),
    [
        ("EHLO", True, b"421 closing\r\n"),
        ("EHLO", True, b"450 later\r\n"),
        ("EHLO", False, b"502 what?\r\n"),
        ("LHLO", True, b"502 what?\r\n"),
        ("HELO", True, b"502 what?\r\n"),
    ],
)
def test_helo_is_not_tried_after_a_421_a_4yz_or_in_lmtp(verb: str, fallback: bool, answer: bytes) -> None:
    over = talk(dialogues.hello(verb, "me.test", fallback=fallback), answer)
    assert isinstance(over.error, SMTPHeloError)
    assert (over.error.smtp_code, over.error.command) == (int(answer[:3]), verb)
    assert over.error.reply is not None
    assert over.wrote == [f"{verb} me.test\r\n".encode()]


def test_helo_is_not_tried_after_a_close() -> None:
    gone = Disconnected()
    over = talk(dialogues.hello("EHLO", "me.test", fallback=True), gone)
    assert over.error is gone


@pytest.mark.parametrize("code", [220, 251, 354])
@pytest.mark.parametrize("verb", ["EHLO", "LHLO", "HELO"])
def test_a_hello_has_one_good_answer(verb: str, code: int) -> None:
    refused_by_protocol(
        talk(dialogues.hello(verb, "me.test", fallback=True), b"%d hm\r\n" % code), code, verb
    )


def test_the_helo_behind_an_ehlo_has_one_good_answer_too() -> None:
    over = talk(dialogues.hello("EHLO", "me.test", fallback=True), b"500 what?\r\n", b"354 go\r\n")
    refused_by_protocol(over, 354, "HELO")


def test_a_name_that_cannot_be_said_is_found_before_anything_is_written() -> None:
    over = talk(dialogues.hello("EHLO", "me\r\nRSET"))
    assert isinstance(over.error, ValueError)
    assert over.wrote == []


# STARTTLS


def test_tls_comes_behind_the_220() -> None:
    over = talk(dialogues.starttls(), b"220 go\r\n")
    assert over.wrote == [b"STARTTLS\r\n", b"<TLS>"]
    assert over.result == Reply(220, b"go")


@pytest.mark.parametrize("code", [421, 454, 501, 554])
def test_a_refused_starttls_brings_up_nothing_and_leaves_the_rest_to_the_policy(code: int) -> None:
    over = talk(dialogues.starttls(), b"%d no\r\n" % code)
    assert over.wrote == [b"STARTTLS\r\n"]
    assert over.result == Reply(code, b"no")
    assert not over.gave_up


@pytest.mark.parametrize("code", [200, 221, 250, 334, 354])
def test_an_answer_to_starttls_that_is_neither_yes_nor_no_ends_the_connection(code: int) -> None:
    over = talk(dialogues.starttls(), b"%d hm\r\n" % code)
    refused_by_protocol(over, code, "STARTTLS")
    assert over.wrote == [b"STARTTLS\r\n"]


@pytest.mark.parametrize("error", LATE, ids=repr)
def test_what_ends_starttls_passes_through(error: BaseException) -> None:
    assert talk(dialogues.starttls(), error).error is error


# AUTH, with our own mechanisms


def login(name: str, *, password: str = PASSWORD, initial_response_ok: bool = True) -> Dialogue[Reply]:
    mechanism = sasl.MECHANISMS[name](sasl.Credentials(USER, password))
    return dialogues.authenticate(name, mechanism, initial_response_ok=initial_response_ok)


IN = b"235 2.7.0 welcome\r\n"
DIGEST = hmac.new(PASSWORD.encode(), b"<1@mail.test>", "md5").hexdigest()
CHALLENGE = b"334 " + b64("<1@mail.test>") + b"\r\n"


@pytest.mark.parametrize(
    ("name", "initial_response_ok", "answers", "wrote"),
    [
        ("PLAIN", True, [IN], [b"AUTH PLAIN " + PLAIN]),
        ("PLAIN", False, [b"334 \r\n", IN], [b"AUTH PLAIN", PLAIN]),
        ("LOGIN", True, [b"334 UGFzc3dvcmQ6\r\n", IN], [b"AUTH LOGIN " + b64(USER), b64(PASSWORD)]),
        (
            "LOGIN",
            False,
            [b"334 VXNlcm5hbWU6\r\n", b"334 UGFzc3dvcmQ6\r\n", IN],
            [b"AUTH LOGIN", b64(USER), b64(PASSWORD)],
        ),
        ("CRAM-MD5", True, [CHALLENGE, IN], [b"AUTH CRAM-MD5", b64(f"{USER} {DIGEST}")]),
        ("CRAM-MD5", False, [CHALLENGE, IN], [b"AUTH CRAM-MD5", b64(f"{USER} {DIGEST}")]),
    ],
)
def test_the_transcript_of_each_mechanism(
    name: str, initial_response_ok: bool, answers: list[bytes], wrote: list[bytes]
) -> None:
    over = talk(login(name, initial_response_ok=initial_response_ok), *answers)
    assert over.wrote == [line + b"\r\n" for line in wrote]
    assert over.result == Reply(235, b"2.7.0 welcome")
    assert over.kept


@pytest.mark.parametrize("prompt", [b"", b"Username:", b"not base64!", b"\xff", b"=", b"a" * 5])
def test_the_text_of_a_prompt_is_ignored_for_position_decides(prompt: bytes) -> None:
    asks = b"334 " + prompt + b"\r\n"
    over = talk(login("LOGIN", initial_response_ok=False), asks, asks, IN)
    assert over.wrote[1:] == [b64(USER) + b"\r\n", b64(PASSWORD) + b"\r\n"]
    over = talk(login("PLAIN", initial_response_ok=False), asks, IN)
    assert over.wrote[1:] == [PLAIN + b"\r\n"]


def test_an_initial_response_that_makes_the_line_too_long_waits_for_the_334() -> None:
    room = 512 - len(b"AUTH PLAIN \r\n")
    fitting = "p" * (room // 4 * 3 - len(f"\0{USER}\0"))
    over = talk(login("PLAIN", password=fitting), IN)
    assert over.wrote == [b"AUTH PLAIN " + b64(f"\0{USER}\0{fitting}") + b"\r\n"]
    over = talk(login("PLAIN", password=fitting + "ppp"), b"334 \r\n", IN)
    assert over.wrote == [b"AUTH PLAIN\r\n", b64(f"\0{USER}\0{fitting}ppp") + b"\r\n"]
    assert over.kept


@pytest.mark.parametrize(
    ("name", "challenges"), [("PLAIN", []), ("LOGIN", [b"334 \r\n"]), ("CRAM-MD5", [CHALLENGE])]
)
def test_one_challenge_too_many_ends_the_exchange_with_a_star(name: str, challenges: list[bytes]) -> None:
    over = talk(login(name), *challenges, b"334 more\r\n", b"501 cancelled\r\n")
    assert over.wrote[-1] == b"*\r\n"
    assert isinstance(over.error, SMTPAuthenticationError)
    assert (over.error.smtp_code, over.error.command) == (501, f"AUTH {name}")
    assert over.error.smtp_error.endswith(b"cancelled; it said: cancelled")
    assert over.kept


@pytest.mark.parametrize(
    "challenge", [b"not base64!", b"abc", b"=", b"QQ==QQ==", b"\xff\xff\xff\xff"], ids=repr
)
def test_a_challenge_that_is_bad_base64_is_answered_with_a_star(challenge: bytes) -> None:
    over = talk(login("CRAM-MD5"), b"334 " + challenge + b"\r\n", b"535 no\r\n")
    assert over.wrote == [b"AUTH CRAM-MD5\r\n", b"*\r\n"]
    assert isinstance(over.error, SMTPAuthenticationError)
    assert over.kept


def test_a_challenge_of_several_lines_is_no_base64() -> None:
    over = talk(login("CRAM-MD5"), b"334-QUFB\r\n334 QUFB\r\n", b"535 no\r\n")
    assert over.wrote == [b"AUTH CRAM-MD5\r\n", b"*\r\n"]


@pytest.mark.parametrize("name", ["PLAIN", "LOGIN", "CRAM-MD5"])
def test_a_challenge_longer_than_the_rfc_allows_is_answered_with_a_star(name: str) -> None:
    fits, too_long = b"334 " + b"A" * MAX_CHALLENGE, b"334 " + b"A" * (MAX_CHALLENGE + 1)
    prompts = [] if name == "CRAM-MD5" else [b"334 \r\n"]
    dialogue = login(name, initial_response_ok=False)
    over = talk(dialogue, *prompts, too_long + b"\r\n", b"501 cancelled\r\n")
    assert over.wrote[-1] == b"*\r\n"
    assert talk(login("CRAM-MD5"), fits + b"\r\n", IN).result is not None


@pytest.mark.parametrize("name", ["PLAIN", "LOGIN", "CRAM-MD5"])
def test_a_235_that_comes_early_is_taken(name: str) -> None:
    over = talk(login(name), IN)
    assert over.result == Reply(235, b"2.7.0 welcome")
    assert len(over.wrote) == 1


@pytest.mark.parametrize("code", [421, 432, 454, 503, 535])
def test_a_refused_login_says_what_the_server_said(code: int) -> None:
    over = talk(login("PLAIN"), b"%d 5.7.8 no\r\n" % code)
    assert isinstance(over.error, SMTPAuthenticationError)
    assert (over.error.smtp_code, over.error.command) == (code, "AUTH PLAIN")
    assert over.error.reply == Reply(code, b"5.7.8 no")
    assert over.kept is (code != 421)


@pytest.mark.parametrize("code", [220, 250, 354])
@pytest.mark.parametrize("challenges", [[], [b"334 \r\n"]])
def test_an_answer_to_auth_that_makes_no_sense_ends_the_connection(
    code: int, challenges: list[bytes]
) -> None:
    over = talk(login("PLAIN", initial_response_ok=not challenges), *challenges, b"%d hm\r\n" % code)
    refused_by_protocol(over, code, "AUTH")


@pytest.mark.parametrize("code", [235, 250, 334, 354])
def test_a_star_can_only_be_refused(code: int) -> None:
    refused_by_protocol(talk(login("CRAM-MD5"), b"334 !\r\n", b"%d hm\r\n" % code), code, "AUTH")


@pytest.mark.parametrize("error", LATE, ids=repr)
@pytest.mark.parametrize("challenges", [[], [b"334 \r\n"], [b"334 \r\n", b"334 \r\n"]])
def test_what_ends_an_exchange_passes_through_at_every_step(
    error: BaseException, challenges: list[bytes]
) -> None:
    over = talk(login("LOGIN", initial_response_ok=False), *challenges, error)
    assert over.error is error
    assert not over.kept


def test_a_421_in_place_of_the_answer_to_a_star_is_a_refusal() -> None:
    over = talk(login("CRAM-MD5"), b"334 !\r\n", b"421 closing\r\n")
    assert isinstance(over.error, SMTPAuthenticationError)
    assert over.error.temporary


# AUTH, with an authobject of the caller's


class Authobject:
    """Gives these answers, and remembers what it was asked."""

    def __init__(self, *answers: str | bytes | BaseException | None) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[bytes, ...]] = []

    def __call__(self, *challenge: bytes) -> str | bytes | None:
        self.asked.append(challenge)
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer


def auth(authobject: Callable[..., object], *, initial_response_ok: bool = True) -> Dialogue[Reply]:
    return dialogues.authenticate_with("XTEST", authobject, initial_response_ok=initial_response_ok)  # type: ignore[arg-type]


def test_an_authobject_is_asked_without_an_argument_first_and_then_with_each_challenge() -> None:
    authobject = Authobject(b"first", "second \u00fc", b"")
    over = talk(auth(authobject), b"334 " + b64("one") + b"\r\n", b"334\r\n", IN)
    assert over.wrote == [
        b"AUTH XTEST " + b64("first") + b"\r\n",
        b64("second \u00fc") + b"\r\n",
        b"\r\n",
    ]
    assert authobject.asked == [(), (b"one",), (b"",)]
    assert over.kept


@pytest.mark.parametrize("empty", ["", b""])
def test_an_empty_initial_response_is_an_equals_sign(empty: str | bytes) -> None:
    assert talk(auth(Authobject(empty)), IN).wrote == [b"AUTH XTEST =\r\n"]


def test_an_authobject_may_have_no_initial_response() -> None:
    over = talk(auth(Authobject(None, b"then")), b"334 \r\n", IN)
    assert over.wrote == [b"AUTH XTEST\r\n", b64("then") + b"\r\n"]


def test_an_authobject_is_not_asked_for_an_initial_response_that_is_not_wanted() -> None:
    authobject = Authobject(b"then")
    over = talk(auth(authobject, initial_response_ok=False), b"334 \r\n", IN)
    assert over.wrote == [b"AUTH XTEST\r\n", b64("then") + b"\r\n"]
    assert authobject.asked == [(b"",)]


def test_an_initial_response_that_is_too_long_is_kept_for_the_334() -> None:
    authobject = Authobject(b"x" * 400)
    over = talk(auth(authobject), b"334 \r\n", IN)
    assert over.wrote == [b"AUTH XTEST\r\n", b64(b"x" * 400) + b"\r\n"]
    assert authobject.asked == [()]


def test_an_authobject_that_gives_up_cancels_the_exchange() -> None:
    over = talk(auth(Authobject(b"first", None)), b"334 QQ==\r\n", b"501 cancelled\r\n")
    assert over.wrote[-1] == b"*\r\n"
    assert isinstance(over.error, SMTPAuthenticationError)
    assert over.kept


def test_an_authobject_is_not_shown_a_challenge_that_is_no_base64() -> None:
    authobject = Authobject(b"first")
    talk(auth(authobject), b"334 !\r\n", b"501 cancelled\r\n")
    assert authobject.asked == [()]


def test_a_server_that_asks_for_ever_is_left_after_the_fifth_challenge_as_in_smtplib() -> None:
    authobject = Authobject(*[b"x"] * 6)
    over = talk(auth(authobject), *[b"334 \r\n"] * (MAX_CHALLENGES + 1), b"501 cancelled\r\n")
    assert MAX_CHALLENGES == 5
    assert len(authobject.asked) == 1 + MAX_CHALLENGES
    assert over.wrote[-2:] == [b64("x") + b"\r\n", b"*\r\n"]
    assert isinstance(over.error, SMTPAuthenticationError)


def test_five_challenges_are_not_too_many() -> None:
    over = talk(auth(Authobject(*[b"x"] * 6)), *[b"334 \r\n"] * MAX_CHALLENGES, IN)
    assert over.result is not None


def test_an_authobject_that_fails_at_first_has_written_nothing() -> None:
    error = LookupError("no such user")
    over = talk(auth(Authobject(error)))
    assert over.error is error
    assert over.wrote == []
    assert over.kept


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        (b"501 cancelled\r\n", True),
        (b"421 closing\r\n", False),
        (b"334 more\r\n", False),
        (b"235 welcome\r\n", False),
        (Disconnected(), False),
        (SMTPTimeoutError("late"), False),
    ],
    ids=repr,
)
def test_what_an_authobject_raises_comes_out_whatever_the_server_makes_of_the_star(
    answer: bytes | BaseException, kept: bool
) -> None:
    error = LookupError("no such user")
    over = talk(auth(Authobject(b"first", error)), b"334 QQ==\r\n", answer)
    assert over.wrote[-1] == b"*\r\n"
    assert over.error is error
    assert over.kept is kept


def test_a_cancellation_behind_an_authobject_that_failed_is_not_swallowed() -> None:
    stop = KeyboardInterrupt()
    over = talk(auth(Authobject(b"first", LookupError())), b"334 QQ==\r\n", stop)
    assert over.error is stop


def test_a_connection_that_is_left_while_an_authobject_thinks_is_not_used_again() -> None:
    # The server waits for a response: it would take the next MAIL for one.
    stop = KeyboardInterrupt()
    over = talk(auth(Authobject(b"first", stop)), b"334 QQ==\r\n")
    assert over.error is stop
    assert over.wrote == [b"AUTH XTEST " + b64("first") + b"\r\n"]
    assert over.session.phase is Phase.CONTENT
    assert not over.kept


def test_an_authobject_is_not_asked_when_the_server_is_gone_already() -> None:
    session = ready()
    dialogue = auth(Authobject(b"first"))
    next(dialogue)
    dialogue.send([])  # the initial response is there: AUTH
    step = dialogue.send([Reply(334, b"")])
    session.lost()
    with pytest.raises(SMTPServerDisconnected):
        session.send(step)
    with pytest.raises(Disconnected):
        dialogue.throw(Disconnected())


@pytest.mark.parametrize("name", ["", "X TEST", "X\r\nRSET", "\u00dc"])
def test_a_mechanism_without_a_proper_name_is_found_before_anybody_is_asked(name: str) -> None:
    authobject = Authobject()
    over = talk(dialogues.authenticate_with(name, authobject, initial_response_ok=True))
    assert isinstance(over.error, ValueError)
    assert (over.wrote, authobject.asked) == ([], [])


@pytest.mark.parametrize("secret", ["open sesame\ud800", 5], ids=repr)
def test_a_response_that_has_no_octets_is_an_error_of_the_callers(secret: object) -> None:
    over = talk(auth(Authobject(b"first", secret)), b"334 \r\n", b"501 cancelled\r\n")  # type: ignore[arg-type]
    assert isinstance(over.error, (ValueError, TypeError))
    assert not isinstance(over.error, UnicodeError)  # it would hold the text
    assert "sesame" not in told(over.error)
    assert over.kept


# What must not be seen


def told(error: BaseException) -> str:
    """Everything that an error reporter would collect in our own frames."""
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    text = io.StringIO()
    while shown is not None:
        for frame in shown.stack:
            if "aiosmtpclient" in frame.filename:
                print(frame.name, frame.locals, file=text)
        print(*shown.format_exception_only(), file=text)
        shown = shown.__context__  # type: ignore[assignment]
    return text.getvalue()


@pytest.mark.parametrize("initial_response_ok", [True, False])
@pytest.mark.parametrize("end", [b"535 no\r\n", b"250 hm\r\n", b"334 !\r\n", Disconnected()], ids=repr)
@pytest.mark.parametrize("name", ["PLAIN", "LOGIN", "CRAM-MD5"])
def test_no_secret_stands_in_a_traceback_with_locals(
    name: str, end: bytes | BaseException, initial_response_ok: bool
) -> None:
    dialogue = login(name, initial_response_ok=initial_response_ok)
    challenges = {"PLAIN": 1, "LOGIN": 2, "CRAM-MD5": 1}[name] - (initial_response_ok and name != "CRAM-MD5")
    star = [b"501 cancelled\r\n"] if end == b"334 !\r\n" else []
    over = talk(dialogue, *[CHALLENGE] * challenges, end, *star)
    assert over.error is not None
    seen = told(over.error)
    assert name in seen
    for secret in (
        PASSWORD,
        b64(PASSWORD).decode(),
        PLAIN.decode(),
        DIGEST,
        b64(f"{USER} {DIGEST}").decode(),
    ):
        assert secret not in seen


def test_a_trace_sees_no_response_and_no_challenge() -> None:
    seen: list[tuple[str, bytes]] = []
    session = Session("mail.test", trace=lambda event, octets: seen.append((event, octets)))
    session.receive_data(b"220 hi\r\n")
    talk(login("PLAIN"), IN, session=session)
    talk(login("LOGIN", initial_response_ok=False), b"334 VXNlcg==\r\n", b"334 \r\n", IN, session=session)
    talk(auth(Authobject("secret", "secret")), b"334 c2VjcmV0\r\n", b"235 c2VjcmV0\r\n", session=session)
    assert seen[1:] == [
        ("send", b"AUTH PLAIN ***\r\n"),
        ("reply", b"235 2.7.0 welcome\r\n"),
        ("send", b"AUTH LOGIN\r\n"),
        ("reply", b"334 ***\r\n"),
        ("send", b"***\r\n"),
        ("reply", b"334 ***\r\n"),
        ("send", b"***\r\n"),
        ("reply", b"235 2.7.0 welcome\r\n"),
        ("send", b"AUTH XTEST ***\r\n"),
        ("reply", b"334 ***\r\n"),
        ("send", b"***\r\n"),
        ("reply", b"235 ***\r\n"),
    ]


# Single commands


def test_a_command_is_one_line_and_one_reply_whatever_it_says() -> None:
    for answer in (b"250 ok\r\n", b"450 later\r\n", b"550 no\r\n"):
        over = talk(dialogues.command(b"NOOP\r\n", "NOOP"), answer)
        assert over.wrote == [b"NOOP\r\n"]
        assert over.result == Reply(int(answer[:3]), answer[4:-2])
        assert over.kept


def test_a_command_that_is_answered_as_if_more_would_follow_ends_the_connection() -> None:
    over = talk(dialogues.command(b"NOOP\r\n", "NOOP"), b"354 hm\r\n")
    assert isinstance(over.error, SMTPProtocolError)
    assert not over.kept


@pytest.mark.parametrize(
    ("during", "then", "after"),
    [(Phase.READY, None, Phase.READY), (Phase.MAIL, None, Phase.MAIL), (Phase.READY, Phase.MAIL, Phase.MAIL)],
)
def test_a_command_leaves_the_phase_as_it_was_unless_it_changes_it(
    during: Phase, then: Phase | None, after: Phase
) -> None:
    over = talk(dialogues.command(b"X\r\n", "X", during=during, then=then), b"250 ok\r\n")
    assert over.steps[0].during is during
    assert over.session.phase is after


@pytest.mark.parametrize("answer", [b"250 ok\r\n", b"354 go\r\n", b"550 no\r\n"])
def test_a_reply_to_the_callers_own_octets_is_read_and_nothing_is_written(answer: bytes) -> None:
    over = talk(dialogues.claim(Phase.MAIL), answer)
    assert over.wrote == [b""]
    assert over.steps[0].during is Phase.MAIL
    assert over.result == Reply(int(answer[:3]), answer[4:-2])


@pytest.mark.parametrize(
    ("phase", "answer", "after"),
    [
        (Phase.READY, b"250 ok\r\n", Phase.READY),
        (Phase.READY, b"334 \r\n", Phase.CONTENT),
        (Phase.MAIL, b"250 ok\r\n", Phase.MAIL),
        (Phase.MAIL, b"354 go\r\n", Phase.CONTENT),
        (Phase.CONTENT, b"250 ok\r\n", Phase.READY),
        (Phase.MAIL, b"421 bye\r\n", Phase.CLOSING),
    ],
)
def test_after_a_3yz_the_callers_next_line_belongs_to_it(phase: Phase, answer: bytes, after: Phase) -> None:
    over = talk(dialogues.raw(b"XTEST\r\n", "XTEST", phase), answer)
    assert over.wrote == [b"XTEST\r\n"]
    assert over.session.phase is after


@pytest.mark.parametrize(
    ("verb", "phase", "masked"),
    [
        ("XTEST", Phase.READY, None),
        ("AUTH", Phase.READY, b"***\r\n"),
        ("auth plain", Phase.READY, b"***\r\n"),
        ("c2VjcmV0", Phase.CONTENT, b"***\r\n"),
    ],
)
def test_an_exchange_by_hand_is_not_shown(verb: str, phase: Phase, masked: bytes | None) -> None:
    over = talk(dialogues.raw(verb.encode() + b"\r\n", verb, phase), b"250 ok\r\n")
    assert over.steps[0].masked == masked


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        (b"250 ok\r\n", True),
        (b"200 ok\r\n", True),
        (b"354 go\r\n", False),
        (b"450 no\r\n", False),
        (b"550 no\r\n", False),
        (b"421 bye\r\n", False),
    ],
)
def test_only_a_2yz_to_rset_proves_where_we_are(answer: bytes, kept: bool) -> None:
    over = talk(dialogues.reset(), answer)
    assert over.wrote == [b"RSET\r\n"]
    assert over.result == Reply(int(answer[:3]), answer[4:-2])
    assert over.kept is kept
    assert over.gave_up is not kept


@pytest.mark.parametrize("answer", [b"221 bye\r\n", b"500 what?\r\n", b"421 bye\r\n"])
def test_after_quit_nothing_follows_whatever_the_answer_is(answer: bytes) -> None:
    over = talk(dialogues.quit_(), answer)
    assert over.wrote == [b"QUIT\r\n"]
    assert over.steps[0].last
    assert over.result is not None
    assert over.session.phase is Phase.CLOSING
    with pytest.raises(SMTPException):
        over.session.send(next(dialogues.reset()))


@pytest.mark.parametrize("error", [*LATE, Then(b"", Disconnected())], ids=repr)
@pytest.mark.parametrize(
    "dialogue",
    [
        lambda: dialogues.command(b"NOOP\r\n", "NOOP"),
        lambda: dialogues.raw(b"NOOP\r\n", "NOOP", Phase.READY),
        dialogues.reset,
        dialogues.quit_,
    ],
    ids=["command", "raw", "reset", "quit"],
)
def test_what_ends_a_single_command_passes_through(
    dialogue: Callable[[], Dialogue[Reply]], error: BaseException | Then
) -> None:
    over = talk(dialogue(), error)
    assert over.error is (error.error if isinstance(error, Then) else error)
    assert not over.kept
