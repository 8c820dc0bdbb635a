"""Sessions: replies find their steps however the octets were cut, and nothing uninvited gets by."""

from __future__ import annotations

import base64
import itertools
import logging
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiosmtpclient.content import InMemory
from aiosmtpclient.errors import (
    SMTPException,
    SMTPProtocolError,
    SMTPServerDisconnected,
    SMTPTimeoutError,
    SMTPTLSError,
)
from aiosmtpclient.extensions import Extensions
from aiosmtpclient.replies import MAX_CHALLENGE_LINE, MAX_LINE, MAX_REPLY, Reply
from aiosmtpclient.session import MASK, MAX_UNCLAIMED, Session, Trace
from aiosmtpclient.steps import Phase, Step, give_up, handshake

PEER = "mail.test:25"
OK = b"250 ok\r\n"
BYE = Reply(421, b"bye")


def ready(trace: Trace | None = None) -> Session:
    """A session after the greeting."""
    session = Session(PEER, trace)
    session.receive_data(b"220 hello\r\n")
    return session


def command(verb: str = "NOOP", **options: object) -> Step:
    return Step(f"{verb}\r\n".encode(), verb, **options)  # type: ignore[arg-type]


def asked(*steps: Step) -> Session:
    """A session in which these steps were written, one behind the other."""
    session = ready()
    for step in steps:
        session.send(step)
    return session


def whole(data: bytes) -> list[bytes]:
    return [data]


def by_line(data: bytes) -> list[bytes]:
    return data.splitlines(keepends=True)


def octet_by_octet(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


CUTS = [whole, by_line, octet_by_octet]


# What is owed


def test_the_greeting_is_owed_before_there_is_a_transport() -> None:
    session = Session(PEER)
    assert session.owing is session.greeting
    assert (session.phase, session.in_step, session.reusable) == (Phase.GREETING, False, False)
    assert session.receive_data(b"220 hello\r\n") == [session.greeting]
    assert session.greeting.received == [Reply(220, b"hello")]
    assert (session.phase, session.in_step, session.reusable) == (Phase.READY, True, True)


def test_replies_belong_to_the_oldest_step_whatever_they_say() -> None:
    first, second = command("MAIL"), command("NOOP")
    session = asked(first, second)
    assert session.owing is first
    assert session.receive_data(b"221 not yours\r\n") == [first]
    assert session.owing is second
    assert session.receive_data(b"550 MAIL refused\r\n") == [second]
    assert (first.received, second.received) == ([Reply(221, b"not yours")], [Reply(550, b"MAIL refused")])
    assert session.owing is None


def test_a_step_is_complete_with_as_many_replies_as_it_earns() -> None:
    group = Step(b"", "MAIL", "RCPT", "DATA", owed=3, during=Phase.MAIL, then=Phase.CONTENT)
    session = asked(group)
    assert session.phase is Phase.MAIL
    assert session.receive_data(OK + OK) == []
    assert (session.phase, session.in_step, len(group.received)) == (Phase.MAIL, False, 2)
    assert session.receive_data(b"354 go\r\n") == [group]
    assert session.phase is Phase.CONTENT
    assert session.in_step
    assert not session.reusable  # in the middle of a message


def test_a_step_that_earns_nothing_is_over_at_once() -> None:
    session = asked(Step(owed=0, during=Phase.MAIL, then=Phase.CONTENT))
    assert session.owing is None
    assert session.phase is Phase.CONTENT


def test_half_a_reply_is_not_in_step() -> None:
    session = asked(command())
    session.receive_data(b"250-o")
    assert not session.in_step
    session.receive_data(b"ne\r\n")
    assert not session.in_step
    session.receive_data(b"250 two\r\n")
    assert session.in_step


def test_the_newest_reply_and_their_number_are_kept() -> None:
    session = asked(command(), command())
    assert (session.last_reply, session.replies_read) == (Reply(220, b"hello"), 1)
    session.receive_data(OK + b"550 no\r\n")
    assert (session.last_reply, session.replies_read) == (Reply(550, b"no"), 3)


def test_what_is_announced_is_what_is_to_be_written() -> None:
    assert ready().send(command("AUTH", masked=b"AUTH ***\r\n")) == b"AUTH\r\n"


def test_tls_forgets_what_was_learnt_in_clear() -> None:
    session = ready()
    session.extensions = Extensions.parse(b"mail.test\nAUTH PLAIN")
    session.forget()
    assert session.encrypted
    assert dict(session.extensions) == {}


def owed(session: Session, **attributes: Any) -> Step:
    step = Step(b"NOOP\r\n", "NOOP", **attributes)
    session.send(step)
    return step


# The same result however the octets were cut


def outcome(steps: Callable[[], list[Step]], pieces: Iterable[bytes]) -> object:
    """What came of these octets, in everything that others ask for."""
    session = ready()
    asked_for = steps()
    for step in asked_for:
        session.send(step)
    complete = [asked_for.index(step) for piece in pieces for step in session.receive_data(piece)]
    failure = session.failure
    code = getattr(failure, "smtp_code", None)
    replies = [step.received for step in asked_for]
    return complete, replies, session.phase, session.reusable, type(failure), code, session.owing is None


def envelope() -> list[Step]:
    group = Step(b"", "MAIL", "RCPT", "DATA", owed=3, during=Phase.MAIL, then=Phase.CONTENT)
    return [group, Step(b"", "end of content", during=Phase.CONTENT)]


def nothing() -> list[Step]:
    return []


def login() -> list[Step]:
    return [command("AUTH", masked=b"AUTH\r\n")]


SCRIPTS = {
    "a transaction": (envelope, b"250 a\r\n250-b\r\n250 c\r\n354 d\r\n250 e\r\n"),
    "bare line feeds": (envelope, b"250 a\n250\n354 d\n250-e\n250\n"),
    "half of it": (envelope, b"250 a\r\n250-b\r\n25"),
    "a refusal": (envelope, b"550 a\r\n503 b\r\n503 c\r\n250 e\r\n"),
    "421 in a group": (envelope, b"250 a\r\n421-b\r\n421 c\r\n250 never\r\n"),
    "421 at the end": (envelope, b"250 a\r\n250 b\r\n354 c\r\n421 d\r\n"),
    "broken": (envelope, b"250 a\r\n2500\r\n250 never\r\n"),
    "two codes": (envelope, b"250-a\r\n251 b\r\n"),
    "a challenge": (login, b"334 " + b"QUFB" * 3072 + b"\r\n"),
    "one reply too many": (envelope, b"250 a\r\n250 b\r\n354 c\r\n250 d\r\n250 e\r\n"),
    "a stray reply": (nothing, b"250 hello?\r\n"),
    "a stray 421": (nothing, b"421 bye\r\n"),
    "a stray 421 of two lines": (nothing, b"421-bye\r\n421 now\r\n"),
    "a stray 421 and more": (nothing, b"421 bye\r\n250 x\r\n"),
    "half a stray 421": (nothing, b"421-b"),
    "a stray half line": (nothing, b"25"),
    "a stray line end": (nothing, b"\r\n"),
    "a stray CR": (nothing, b"\r"),
    "a stray 42": (nothing, b"429 x\r\n"),
    "nearly a stray 421": (nothing, b"421x\r\n"),
    "silence": (envelope, b""),
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_result_does_not_depend_on_how_the_octets_arrive(script: str) -> None:
    steps, data = SCRIPTS[script]
    expected = outcome(steps, [data])
    for cut in CUTS:
        assert outcome(steps, cut(data)) == expected
    randomly = random.Random(script)
    for _ in range(50):
        places = sorted(randomly.choices(range(len(data) + 1), k=randomly.randrange(6)))
        pieces = [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]
        assert outcome(steps, pieces) == expected


LINES = st.sampled_from(
    [
        b"250 ok\r\n",
        b"250-ok\r\n",
        b"354\r\n",
        b"421 bye\n",
        b"421-bye\r\n",
        b"550 no\r\n",
        b"\r\n",
        b"x",
        b"4",
        b"25",
    ]
)


@given(
    st.sampled_from([envelope, nothing, login]),
    st.lists(LINES, max_size=8).map(b"".join),
    st.lists(st.integers(0, 80), max_size=8),
)
def test_no_stream_of_replies_has_two_meanings(
    steps: Callable[[], list[Step]], data: bytes, places: list[int]
) -> None:
    edges = [0, *sorted(min(place, len(data)) for place in places), len(data)]
    pieces = [data[a:b] for a, b in itertools.pairwise(edges)]
    assert outcome(steps, pieces) == outcome(steps, [data]) == outcome(steps, octet_by_octet(data))


# 421


def test_a_421_ends_its_step_at_once_and_the_connection_with_it() -> None:
    group = Step(b"", "MAIL", "RCPT", owed=3, during=Phase.MAIL, then=Phase.MAIL)
    behind = command()
    session = asked(group, behind)
    assert session.receive_data(OK + b"421 bye\r\n" + OK + OK) == [group]
    assert group.received == [Reply(250, b"ok"), BYE]
    assert (session.phase, session.failure, behind.received) == (Phase.CLOSING, None, [])
    assert not session.reusable
    with pytest.raises(SMTPServerDisconnected) as caught:
        session.send(command())
    assert caught.value.last_reply == BYE


@pytest.mark.parametrize("cut", CUTS)
def test_the_text_of_a_stray_421_is_kept_as_the_reason_of_the_close(
    cut: Callable[[bytes], list[bytes]],
) -> None:
    session = ready()
    for piece in cut(b"421 bye\r\n"):
        assert session.receive_data(piece) == []
    assert session.phase is Phase.CLOSING
    session.lost()
    assert str(session.why()) == f"{PEER} closed the connection; the server last said: 421 bye"


def test_after_a_421_nothing_that_comes_counts() -> None:
    session = ready()
    session.receive_data(b"421 bye\r\n")
    assert session.receive_data(OK + b"garbage\r\n\r\n") == []
    assert (session.failure, session.replies_read, session.last_reply) == (None, 2, BYE)


def test_a_command_never_gets_the_rest_of_a_stray_421_as_its_reply() -> None:
    session = ready()
    session.receive_data(b"421 by")
    assert session.failure is None
    assert not session.reusable
    with pytest.raises(SMTPProtocolError, match="octets that nobody asked for"):
        session.send(command("MAIL"))


# Nothing may arrive when nothing is owed


@pytest.mark.parametrize(
    "stray", [b"250 hello?\r\n", b"2", b"\r", b"\n", b"\r\n", b" ", b"25", b"250-x\r\n", b"4 "]
)
def test_octets_that_nobody_asked_for_break_the_connection(stray: bytes) -> None:
    session = ready()
    assert session.receive_data(stray) == []
    assert isinstance(session.failure, SMTPProtocolError)
    assert session.failure.smtp_code == -1
    assert session.phase is Phase.CLOSED


INJECTED = [
    b"250 injected\r\n",
    b"250-PIPELINING\r\n",
    b"250-AUTH",
    b"2",
    b"\r\n",
    b"\r",
    b"\n",
    b"421 injected\r\n",
    b"421 inj",
    b"4",
]


@pytest.mark.parametrize("injected", INJECTED)
@pytest.mark.parametrize("later", [False, True], ids=["in the same segment", "later"])
def test_nothing_injected_behind_the_answer_to_starttls_survives_until_the_handshake(
    injected: bytes, later: bool
) -> None:
    step = command("STARTTLS")
    session = asked(step)
    for piece in [b"220 go\r\n", injected] if later else [b"220 go\r\n" + injected]:
        session.receive_data(piece)
    assert step.received == [Reply(220, b"go")]
    assert not session.reusable
    with pytest.raises((SMTPProtocolError, SMTPServerDisconnected)):
        session.send(handshake())


def test_a_handshake_follows_a_220_with_nothing_behind_it() -> None:
    session = asked(command("STARTTLS"))
    session.receive_data(b"220 go\r\n")
    assert session.send(handshake()) == b""
    assert session.reusable


# Broken replies


@pytest.mark.parametrize(
    "broken",
    [b"250ok\r\n", b"2500\r\n", b"2_5 x\r\n", b"\r\n", b"199 x\r\n", b"600 x\r\n", b"250-a\r\n251 b\r\n"],
)
def test_what_is_no_reply_breaks_the_connection_and_names_what_was_owed(broken: bytes) -> None:
    session = asked(command("RCPT"))
    assert session.receive_data(broken) == []
    assert isinstance(session.failure, SMTPProtocolError)
    assert session.failure.command == "RCPT"
    assert PEER in str(session.failure)
    assert (session.phase, session.owing) == (Phase.CLOSED, None)


def test_what_came_before_the_break_is_still_given_back() -> None:
    first, second = command(), command()
    session = asked(first, second)
    assert session.receive_data(OK + b"what?\r\n") == [first]
    assert isinstance(session.failure, SMTPProtocolError)
    assert second.received == []


def test_replies_behind_a_broken_one_do_not_count() -> None:
    session = asked(command(), command())
    session.receive_data(b"what?\r\n")
    assert session.receive_data(OK + OK) == []
    assert session.replies_read == 1


# Answers to content that is still on its way


@pytest.mark.parametrize(("ended", "phase"), [(False, Phase.CLOSING), (True, Phase.READY)])
@pytest.mark.parametrize("answer", [OK, b"552 too much\r\n"])
def test_an_answer_before_the_end_of_the_content_leaves_no_connection_to_be_used(
    answer: bytes, ended: bool, phase: Phase
) -> None:
    # The server is still reading: whatever is written now would be content to it.
    step = Step(b"", "end of content", during=Phase.CONTENT, content=InMemory.of(b"x"))
    session = asked(step)
    if ended:
        step.end_left()
    assert session.receive_data(answer) == [step]
    assert session.phase is phase
    assert session.reusable is ended


# The failure, and why


def test_a_lost_connection_says_what_was_owed_and_what_was_said_last() -> None:
    session = asked(Step(b"", "MAIL", "RCPT", owed=3))
    session.receive_data(b"451 busy\r\n")
    cause = ConnectionResetError(104, "reset by peer")
    session.lost(cause)
    error = session.why()
    assert isinstance(error, SMTPServerDisconnected)
    assert error.__cause__ is cause
    assert str(error) == (
        f"{PEER} closed the connection ([Errno 104] reset by peer) while its reply to RCPT was owed; "
        "the server last said: 451 busy"
    )
    assert (session.phase, session.owing) == (Phase.CLOSED, None)


def test_a_connection_lost_before_the_greeting_says_so() -> None:
    session = Session(PEER)
    session.lost()
    assert str(session.why()) == f"{PEER} closed the connection while its greeting was owed"


def test_the_first_failure_stays_for_it_is_the_reason_of_the_others() -> None:
    session = ready()
    late = SMTPTimeoutError("late", phase="MAIL")
    session.fail(late)
    session.lost()
    session.fail(SMTPTLSError("no"))
    session.receive_data(b"what?\r\n")
    assert session.failure is late
    assert session.phase is Phase.CLOSED


@pytest.mark.parametrize(
    "failure",
    [
        SMTPTimeoutError("late", phase="MAIL"),
        SMTPProtocolError(-1, b"hm", command="MAIL"),
        SMTPTLSError("no"),
    ],
)
def test_whoever_asks_why_gets_an_error_of_his_own(failure: SMTPException) -> None:
    session = ready()
    failure.__cause__ = ValueError("the cause")
    session.fail(failure)
    one, other = session.why(), session.why()
    assert one is not other
    assert one is not failure
    assert (type(one), str(one), one.args, vars(one)) == (
        type(failure),
        str(failure),
        failure.args,
        vars(failure),
    )
    assert one.__cause__ is failure.__cause__
    one.outcomes = ("stamped",)  # type: ignore[assignment]
    assert session.why().outcomes == ()


def test_a_failed_session_lets_nothing_out_and_nothing_in() -> None:
    session = asked(command())
    session.fail(SMTPTimeoutError("late"))
    with pytest.raises(SMTPTimeoutError, match="late"):
        session.send(command())
    assert session.receive_data(OK) == []
    assert (session.replies_read, session.in_step, session.reusable) == (1, False, False)


def test_a_session_that_was_given_up_lets_nothing_out() -> None:
    session = asked(give_up())
    assert session.phase is Phase.CLOSING
    with pytest.raises(SMTPServerDisconnected, match="not connected to"):
        session.send(command())


# A caller who writes raw octets himself


def test_replies_to_raw_octets_are_kept_until_they_are_asked_for() -> None:
    session = ready()
    session.expect_anything()
    session.sent_raw(b"NOOP\r\n")
    assert session.unanswered
    assert session.receive_data(b"250 one\r\n550 t") == []
    assert session.failure is None
    assert not session.unanswered
    session.receive_data(b"wo\r\n")
    assert session.unclaimed is not None
    assert list(session.unclaimed) == [Reply(250, b"one"), Reply(550, b"two")]
    session.expect_anything()
    assert len(session.unclaimed) == 2


def test_a_step_that_waits_gets_its_reply_before_it_is_kept() -> None:
    session, step = ready(), command()
    session.expect_anything()
    session.send(step)
    assert session.receive_data(OK + OK) == [step]
    assert session.unclaimed is not None
    assert list(session.unclaimed) == [Reply(250, b"ok")]


def test_half_a_reply_to_raw_octets_is_no_reason_to_refuse_the_next_step() -> None:
    session = ready()
    session.expect_anything()
    session.receive_data(b"250 o")
    assert session.send(command()) == b"NOOP\r\n"


def test_a_server_that_babbles_is_not_listened_to_for_ever() -> None:
    session = ready()
    session.expect_anything()
    for _ in range(3):
        session.receive_data(OK * MAX_UNCLAIMED)
    assert session.unclaimed is not None
    assert len(session.unclaimed) == MAX_UNCLAIMED
    assert isinstance(session.failure, SMTPProtocolError)


def test_a_421_to_raw_octets_can_be_read_and_closes() -> None:
    session = ready()
    session.expect_anything()
    session.receive_data(b"421 bye\r\n")
    assert session.unclaimed is not None
    assert list(session.unclaimed) == [BYE]
    assert session.phase is Phase.CLOSING


# Memory


@pytest.mark.parametrize("owed", [True, False])
@pytest.mark.parametrize(
    "flood", [b"x" * 4096, b"250-" + b"x" * 4000 + b"\r\n", b"250 ok\r\n" * 500, b"421-x\r\n" * 500]
)
def test_memory_is_bounded_whatever_the_server_streams(flood: bytes, owed: bool) -> None:
    session = asked(*[command()] * owed)
    for _ in range(200):
        session.receive_data(flood)
    assert isinstance(session.failure, SMTPProtocolError)
    parser = session._parser
    held = len(parser._buffer) + len(parser._text)
    assert held <= MAX_REPLY + MAX_LINE
    assert len(session._owing) == 0


def test_only_what_answers_auth_may_be_long() -> None:
    long = b"334 " + b"A" * MAX_LINE + b"\r\n"
    session, step = ready(), command("AUTH", masked=b"AUTH\r\n")
    session.send(step)
    assert session.receive_data(long) == [step]
    session.send(command())
    session.receive_data(long)
    assert isinstance(session.failure, SMTPProtocolError)
    session = asked(command("AUTH", masked=b"AUTH\r\n"))
    session.receive_data(b"334 " + b"A" * MAX_CHALLENGE_LINE + b"\r\n")
    assert isinstance(session.failure, SMTPProtocolError)


def test_secrets_told_again_at_each_login_do_not_pile_up() -> None:
    session = ready()
    for _ in range(100):
        session.keep_secret([b"sesame", b"c2VzYW1l"])
    assert len(session._secrets) == 2


# What must not be seen


class Seen:
    """Everything that a trace is told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, bytes]] = []

    def __call__(self, event: str, octets: bytes) -> None:
        self.events.append((event, octets))


SECRET = b"sesame"
OF_LOGIN = [SECRET, base64.b64encode(SECRET), base64.b64encode(b"\0tim\0" + SECRET)]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.DEBUG, logger="aiosmtpclient.session"):
        yield caplog


def test_a_trace_is_told_everything_as_it_went_over_the_wire() -> None:
    seen = Seen()
    session = ready(seen)
    session.send(command("EHLO me"))
    session.receive_data(b"250-mail.test\r\n250-\r\n250 SIZE\r\n")
    session.send(command("BDAT", masked=b"BDAT\r\n"))
    session.sent_content(b"a\r\n.\r\n")
    session.sent_raw(b"XRAW\r\n")
    assert seen.events == [
        ("reply", b"220 hello\r\n"),
        ("send", b"EHLO me\r\n"),
        ("reply", b"250-mail.test\r\n250-\r\n250 SIZE\r\n"),
        ("send", b"BDAT\r\n"),
        ("content", b"a\r\n.\r\n"),
        ("send", b"XRAW\r\n"),
    ]


def test_a_step_without_octets_is_not_told() -> None:
    seen = Seen()
    ready(seen).send(Step(owed=0))
    assert seen.events == [("reply", b"220 hello\r\n")]


def test_the_log_has_the_wire_but_not_the_content(log: pytest.LogCaptureFixture) -> None:
    session = ready()
    session.send(Step(b"MAIL FROM:<a@b>\r\nDATA\r\n", "MAIL", "DATA", owed=2))
    session.receive_data(b"250 caf\xc3\xa9 \x1b[31m\r\n")
    session.sent_content(b"private\r\n")
    assert [record.getMessage() for record in log.records] == [
        f"{PEER} S: 220 hello",
        f"{PEER} C: MAIL FROM:<a@b>",
        f"{PEER} C: DATA",
        f"{PEER} S: 250 caf\u00e9 \\x1b[31m",
    ]
    assert {record.levelno for record in log.records} == {logging.DEBUG}


def test_a_secret_that_the_server_echoes_is_cut_out_of_everything(log: pytest.LogCaptureFixture) -> None:
    seen, step = Seen(), command("AUTH", masked=b"AUTH ***\r\n")
    session = ready(seen)
    session.keep_secret(iter(OF_LOGIN))
    session.send(step)
    session.receive_data(
        b"".join(b"535-you said %b!\r\n" % secret for secret in OF_LOGIN) + b"535 " + SECRET + b"\r\n"
    )
    assert step.received == [Reply(535, b"you said ***!\nyou said ***!\nyou said ***!\n***")]
    assert session.last_reply == step.received[0]
    for secret in OF_LOGIN:
        assert secret.decode() not in log.text
        assert all(secret not in octets for _, octets in seen.events)


def test_a_secret_that_begins_another_one_leaves_no_rest_of_it_standing() -> None:
    session = asked(command())
    session.keep_secret([b"sesame"])
    session.keep_secret([b"sesame-seed-oil"])
    session.receive_data(b"250 sesame-seed-oil, sesame\r\n")
    assert session.last_reply == Reply(250, b"***, ***")


def test_an_empty_secret_is_none() -> None:
    session = asked(command())
    session.keep_secret([b""])
    session.receive_data(OK)
    assert session.last_reply == Reply(250, b"ok")


@pytest.mark.parametrize(
    "stray",
    [
        SECRET + b"\r\n",
        b"x" * 78 + SECRET + b"\r\n",  # where the text of the error is cut
        b"250 " + SECRET + b"\r\n",
        b"250 \xe9" + SECRET + b"'\r\n",
    ],
)
@pytest.mark.parametrize("owed", [True, False])
def test_a_secret_in_what_is_no_reply_is_not_in_the_error_either(stray: bytes, owed: bool) -> None:
    session = asked(*[command()] * owed)
    session.keep_secret(OF_LOGIN)
    session.receive_data(stray)
    session.receive_data(b"what?\r\n")
    assert session.failure is not None
    for begun in ("sesa", "xs"):
        assert begun not in str(session.failure)


def test_a_challenge_is_handed_over_as_it_is_and_shown_to_nobody(log: pytest.LogCaptureFixture) -> None:
    seen, step = Seen(), command("AUTH", masked=b"AUTH XTEST\r\n")
    session = ready(seen)
    session.send(step)
    session.receive_data(b"334-Y2hhbGxlbmdl\r\n334 c2Vjb25k\r\n")
    assert step.received == [Reply(334, b"Y2hhbGxlbmdl\nc2Vjb25k")]
    assert seen.events[-1] == ("reply", b"334 ***\r\n")
    session.lost()
    for shown in (log.text, str(session.why()), repr(session.why().__dict__), repr(step.received)):
        assert "Y2hh" not in shown
        assert "c2Vj" not in shown
    assert session.last_reply == Reply(334, MASK)


def test_a_334_that_no_auth_asked_for_is_a_reply_like_any_other() -> None:
    seen, step = Seen(), command("XTEST")
    session = ready(seen)
    session.send(step)
    session.receive_data(b"334 hm\r\n")
    assert seen.events[-1] == ("reply", b"334 hm\r\n")


@pytest.mark.parametrize("line", [b"AUTH PLAIN dGltc2VzYW1l\r\n", b"dGltc2VzYW1l\r\n"])
def test_what_travels_in_an_auth_exchange_is_a_secret_though_nobody_told_it(line: bytes) -> None:
    session = asked(Step(line, "AUTH", masked=b"***\r\n"))
    session.receive_data(b"535 dGltc2VzYW1l is wrong\r\n")
    assert session.last_reply == Reply(535, MASK + b" is wrong")


@pytest.mark.parametrize(
    "line", [b"AUTH PLAIN\r\n", b"AUTH PLAIN =\r\n", b"\r\n", b"=\r\n", b"a line of content\r\n"]
)
def test_what_is_no_payload_is_not_cut_out_of_replies(line: bytes) -> None:
    session = asked(Step(line, "AUTH", masked=b"***\r\n"))
    session.receive_data(b"250 AUTH PLAIN = a line of content\r\n")
    assert session.last_reply == Reply(250, b"AUTH PLAIN = a line of content")


@pytest.mark.parametrize("line", [b"AUTH PLAIN dGlt\r\n", b"auth login\r\n"])
def test_an_auth_in_raw_octets_is_not_shown(line: bytes) -> None:
    seen = Seen()
    session = ready(seen)
    session.expect_anything()
    session.sent_raw(line)
    session.receive_data(b"334 \r\n")
    session.sent_raw(b"dGlt\r\n")
    session.receive_data(b"235 in\r\n")
    session.sent_raw(b"NOOP\r\n")
    assert [octets for event, octets in seen.events if event == "send"] == [
        b"***\r\n",
        b"***\r\n",
        b"NOOP\r\n",
    ]
