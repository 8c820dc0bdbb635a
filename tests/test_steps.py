"""Steps: what a dialogue asks for, and what it must never show."""

from __future__ import annotations

import pytest

from aiosmtpclient.commands import END_OF_CONTENT
from aiosmtpclient.content import InMemory
from aiosmtpclient.replies import Reply
from aiosmtpclient.steps import Phase, Step, ask, give_up, handshake

OK = Reply(250, b"ok")
CLOSING = Reply(421, b"bye")


def test_a_step_starts_with_nothing_received_and_nothing_decided() -> None:
    step = Step(b"NOOP\r\n", "NOOP")
    assert (step.data, step.verbs, step.owed, step.received) == (b"NOOP\r\n", ("NOOP",), 1, [])
    assert (step.during, step.then) == (Phase.READY, Phase.READY)
    assert (step.content, step.on_end, step.ended, step.masked, step.last) == (None, None, False, None, False)
    assert (step.handshake, step.ask, step.challenge, step.answer) == (False, None, None, None)


def test_a_step_starts_without_limits_of_its_own() -> None:
    step = Step(b"NOOP\r\n", "NOOP")
    assert (step.chunked, step.seven_bit, step.count, step.progress, step.patience) == (
        False,
        False,
        None,
        None,
        None,
    )


def test_a_step_says_what_it_was_told() -> None:
    def progress(written: int, of: int | None) -> None:
        raise AssertionError("nothing is written here")

    step = Step(
        b"",
        "end of content",
        content=InMemory.of(b"a"),
        progress=progress,
        patience=5.0,
        seven_bit=True,
        chunked=True,
        count=len,
    )
    assert (step.progress, step.patience, step.seven_bit) == (progress, 5.0, True)
    assert (step.chunked, step.count) == (True, len)


def test_content_has_eight_bits_and_leaves_by_data_unless_something_else_is_said() -> None:
    step = Step(b"", "end of content", content=InMemory.of(b"a"))
    assert (step.seven_bit, step.chunked, step.count) == (False, False, None)


def test_what_a_performed_step_failed_with_is_raised_once() -> None:
    step = Step(b"", "MAIL")
    step.received.append(OK)
    step.failed = OSError("gone")
    with pytest.raises(OSError, match="gone"):
        step.outcome()
    assert step.outcome() == [OK]


def test_replies_answer_commands_unless_there_is_content_behind_them() -> None:
    content = InMemory.of(b"a")
    assert Step(b"", "MAIL", "RCPT", owed=2).lines == 2
    assert Step(b"", "end of content", content=content).lines == 0
    assert Step(b"", "MAIL", "RCPT", "BDAT", owed=3, lines=2, content=content).lines == 2


def test_no_two_steps_share_their_replies() -> None:
    one, other = Step(), Step()
    one.received.append(OK)
    assert other.received == []


def test_each_reply_answers_the_verb_at_its_place_and_the_last_verb_stands_for_the_rest() -> None:
    step = Step(b"", "MAIL", "RCPT", owed=4)
    verbs = []
    for _ in range(4):
        verbs.append(step.verb)
        step.received.append(OK)
    assert verbs == ["MAIL", "RCPT", "RCPT", "RCPT"]


def test_a_step_without_verbs_answers_nothing() -> None:
    assert Step(owed=0).verb == ""


@pytest.mark.parametrize(
    ("received", "complete"),
    [([], False), ([OK], False), ([OK, OK], True), ([CLOSING], True), ([OK, CLOSING], True)],
)
def test_a_step_is_complete_with_its_last_reply_or_with_a_421(received: list[Reply], complete: bool) -> None:
    step = Step(b"", "MAIL", "RCPT", owed=2)
    step.received += received
    assert step.complete is complete


def test_a_step_that_earns_nothing_is_complete() -> None:
    assert Step(owed=0).complete


def test_whoever_keeps_the_account_is_told_before_the_end_leaves() -> None:
    told = []
    step = Step(content=InMemory.of(b"a"), on_end=lambda: told.append(step.ended))
    step.end_left()
    assert told == [True]


def test_the_end_can_leave_without_anybody_who_keeps_an_account() -> None:
    step = Step(END_OF_CONTENT, content=InMemory.of(b""))
    step.end_left()
    assert step.ended


@pytest.mark.parametrize(
    ("step", "shown"),
    [
        (Step(b"AUTH PLAIN c2VjcmV0\r\n", "AUTH", masked=b"AUTH PLAIN ***\r\n"), "<Step AUTH 0/1 replies>"),
        (Step(b"secret", "MAIL", "RCPT", owed=3), "<Step MAIL 0/3 replies>"),
        (ask(lambda: "secret", b"secret"), "<Step silent 0/0 replies>"),
    ],
)
def test_the_repr_in_a_log_or_a_traceback_shows_no_data(step: Step, shown: str) -> None:
    step.answer = "secret"
    assert repr(step) == shown


def test_giving_up_writes_nothing_and_leads_nowhere() -> None:
    step = give_up()
    assert (step.data, step.owed, step.during, step.then) == (b"", 0, Phase.CLOSING, Phase.CLOSING)


def test_a_handshake_writes_nothing_itself() -> None:
    step = handshake()
    assert (step.data, step.owed, step.handshake, step.ask) == (b"", 0, True, None)


def test_asking_writes_nothing_and_hands_the_challenge_over() -> None:
    def authobject(challenge: bytes) -> bytes:
        return challenge

    step = ask(authobject, b"who?")
    assert (step.data, step.owed, step.ask, step.challenge) == (b"", 0, authobject, b"who?")
    assert not step.handshake


def test_the_phases_are_few_and_say_what_they_are() -> None:
    assert [phase.name for phase in Phase] == ["GREETING", "READY", "MAIL", "CONTENT", "CLOSING", "CLOSED"]
    assert str(Phase.MAIL.value) == "inside an envelope"
