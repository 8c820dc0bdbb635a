"""Sessions with several steps in flight: whose reply it is, who was given up, and what must come first."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from aiosmtpclient.content import InMemory
from aiosmtpclient.errors import SMTPServerDisconnected
from aiosmtpclient.replies import Reply
from aiosmtpclient.session import Session
from aiosmtpclient.steps import Phase, Step, give_up

OK, NO, FULL = b"250 ok\r\n", b"550 no\r\n", b"552 full\r\n"
CUTS: list[Callable[[bytes], list[bytes]]] = [
    lambda data: [data],
    lambda data: data.splitlines(keepends=True),
    lambda data: [data[i : i + 1] for i in range(len(data))],
]


def ready() -> Session:
    session = Session("mail.test:25")
    session.receive_data(b"220 hello\r\n")
    return session


def command(verb: str = "NOOP", **options: object) -> Step:
    return Step(f"{verb}\r\n".encode(), verb, **options)  # type: ignore[arg-type]


def group(recipients: int = 1) -> Step:
    verbs = ["MAIL", *["RCPT"] * recipients, "DATA"]
    return Step(b"", *verbs, owed=len(verbs), during=Phase.MAIL, then=Phase.CONTENT)


def chunk(*verbs: str, count: Callable[[Sequence[Reply]], int] | None = None, verdicts: int = 1) -> Step:
    """A message by BDAT that has left."""
    lines = verbs or ("MAIL", "RCPT")
    step = Step(
        b"",
        *lines,
        "end of content",
        owed=len(lines) + verdicts,
        lines=len(lines),
        count=count,
        during=Phase.CONTENT,
        content=InMemory.of(b"hi"),
        chunked=True,
        last=True,
    )
    step.ended = True
    return step


def asked(*steps: Step) -> Session:
    session = ready()
    for step in steps:
        session.send(step)
        if step.last:
            session.release(step)
    return session


# How many are in flight


def test_those_in_flight_are_counted_until_they_are_complete() -> None:
    first, second = chunk(), command()
    session = asked(first, second)
    assert session.in_flight == 2
    session.receive_data(OK + OK)
    assert session.in_flight == 2
    session.receive_data(OK)
    assert (session.in_flight, session.owing) == (1, second)
    session.receive_data(OK)
    assert (session.in_flight, session.owing) == (0, None)


def test_what_is_owed_to_others_is_not_owed_to_oneself() -> None:
    mine, other = command(), command()
    session = asked(mine)
    assert session.owed_to_others(other)
    assert session.owed_to_others(None)
    assert not session.owed_to_others(mine)
    session.receive_data(OK)
    assert not session.owed_to_others(other)


@pytest.mark.parametrize("cut", CUTS)
def test_each_of_many_in_flight_gets_its_own_replies_however_they_arrive(
    cut: Callable[[bytes], list[bytes]],
) -> None:
    steps = [chunk() for _ in range(5)]
    session = asked(*steps)
    octets = b"".join(b"250 m%d\r\n250-r%d\r\n250 r\r\n552 e%d\r\n" % (n, n, n) for n in range(5))
    complete = [step for piece in cut(octets) for step in session.receive_data(piece)]
    assert complete == steps
    assert [[reply.lines[0] for reply in step.received] for step in steps] == [
        [f"m{n}", f"r{n}", f"e{n}"] for n in range(5)
    ]


# Replies whose number only shows as they come


@pytest.mark.parametrize("cut", CUTS)
def test_a_count_that_shrinks_leaves_the_rest_to_the_next(cut: Callable[[bytes], list[bytes]]) -> None:
    def count(received: Sequence[Reply]) -> int:
        return 3 + max(1, 2 - sum(reply.code >= 400 for reply in received[1:3]))

    first, second = chunk("MAIL", "RCPT", "RCPT", count=count, verdicts=2), command()
    session = asked(first, second)
    complete = [
        step for piece in cut(OK + OK + NO + OK + b"250 noop\r\n") for step in session.receive_data(piece)
    ]
    assert complete == [first, second]
    assert (len(first.received), first.verdicts) == (4, [Reply(250, b"ok")])
    assert second.received == [Reply(250, b"noop")]


# The turn is given back before the replies are in


def test_behind_content_that_has_left_another_transaction_may_begin() -> None:
    step = chunk()
    session = ready()
    session.send(step)
    assert session.phase is Phase.CONTENT
    session.release(step)
    assert session.phase is Phase.READY
    assert not session.reusable  # for whoever needs to know that nothing is owed


def test_the_phase_is_that_of_what_was_written_last() -> None:
    first, second = chunk(), group()
    session = asked(first, second)
    session.receive_data(OK * 3)
    assert session.phase is Phase.MAIL
    session.receive_data(OK + OK + b"354 go\r\n")
    assert session.phase is Phase.CONTENT


def test_a_connection_that_closes_is_not_opened_again_by_who_has_written_his_last() -> None:
    step = chunk()
    session = ready()
    session.send(step)
    session.receive_data(b"421 bye\r\n")
    session.release(step)
    assert session.phase is Phase.CLOSING


# A step that is given up


def test_who_is_given_up_leaves_those_before_him_their_replies() -> None:
    first, second = chunk(), group()
    session = asked(first, second)
    assert session.condemn(second)
    assert (session.condemned, session.closing, session.failure) == (second, True, None)
    assert session.receive_data(OK * 3) == [first]
    assert session.owing is second


def test_nothing_is_written_behind_who_was_given_up() -> None:
    first, second = chunk(), group()
    session = asked(first, second)
    session.condemn(second)
    with pytest.raises(SMTPServerDisconnected, match="given up half-way"):
        session.send(command())
    assert session.in_flight == 2


@pytest.mark.parametrize("which", ["the oldest", "one that is complete", "one never sent"])
def test_with_nobody_to_wait_for_there_is_nothing_to_wait_for(which: str) -> None:
    first, second = command(), command()
    session = asked(first, second)
    if which == "one that is complete":
        session.receive_data(OK)
    assert not session.condemn(command() if which == "one never sent" else first)
    assert session.condemned is None


@pytest.mark.parametrize("end", ["421", "lost", "give up", "condemned"])
def test_a_connection_that_ends_anyhow_is_not_condemned_besides(end: str) -> None:
    first, second, third = command(), command(), command()
    session = asked(first, second, third)
    if end == "421":
        session.receive_data(b"421 bye\r\n")
    elif end == "lost":
        session.lost()
    elif end == "condemned":
        session.condemn(second)
    else:
        session.send(give_up())
    assert not session.condemn(third)


# A chunk that may have been refused


def test_a_chunk_in_flight_may_be_refused() -> None:
    session = asked(chunk())
    assert session.unsettled
    session.receive_data(OK + OK)
    assert session.unsettled  # those were for the envelope
    session.receive_data(OK)
    assert not session.unsettled


def test_a_refused_chunk_stays_unsettled_until_rset() -> None:
    session = asked(chunk())
    session.receive_data(OK + OK + FULL)
    assert session.unsettled
    session.send(command("NOOP"))
    session.receive_data(OK)
    assert session.unsettled
    session.send(command("RSET"))
    assert not session.unsettled


def test_a_chunk_behind_an_rset_is_as_open_as_any() -> None:
    session = asked(chunk(), chunk("RSET", "MAIL", "RCPT"))
    assert session.unsettled
    session.receive_data(OK * 3 + OK * 3 + FULL)
    assert session.unsettled


def test_a_group_by_data_behind_an_rset_settles_it() -> None:
    session = asked(chunk())
    session.receive_data(OK + OK + FULL)
    session.send(Step(b"", "RSET", "MAIL", "RCPT", "DATA", owed=4, during=Phase.MAIL, then=Phase.CONTENT))
    assert not session.unsettled


def test_content_by_data_is_never_unsettled() -> None:
    step = Step(b"", "end of content", during=Phase.CONTENT, content=InMemory.of(b"hi"), last=True)
    step.ended = True
    session = asked(step)
    assert not session.unsettled
    session.receive_data(FULL)
    assert not session.unsettled


def test_in_lmtp_a_chunk_that_anybody_got_was_taken() -> None:
    session = asked(chunk("MAIL", "RCPT", "RCPT", verdicts=2))
    session.receive_data(OK * 3 + FULL)
    assert session.unsettled
    session.receive_data(OK)
    assert not session.unsettled


# What cuts content short


@pytest.mark.parametrize(
    ("replies", "short"),
    [([], False), ([250], False), ([250, 250], True), ([552], True), ([354], True)],
)
def test_a_yes_to_a_chunk_that_has_left_is_no_reason_to_stop_and_one_too_many_is(
    replies: list[int], short: bool
) -> None:
    step = Step(b"", "end of content", owed=2, lines=1, content=InMemory.of(b"hi"), chunked=True)
    step.received += [Reply(code, b"") for code in replies]
    assert step.cut_short is short


# A trace that raises


def test_a_step_that_a_trace_forbids_was_never_begun() -> None:
    def trace(event: str, octets: bytes) -> None:
        if b"MAIL" in octets:
            raise LookupError("forbidden")

    session = Session("mail.test:25", trace)
    session.receive_data(b"220 hello\r\n")
    with pytest.raises(LookupError):
        session.send(command("MAIL", during=Phase.MAIL, then=Phase.MAIL))
    assert (session.phase, session.in_flight, session.reusable) == (Phase.READY, 0, True)
