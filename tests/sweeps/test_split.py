"""The split sweep: it does not matter how what a server says is cut into segments.

Each conversation is carried out as it is said, then octet by octet, then with all that is owed
joined into one segment, then with a pause at each single octet; the accounts must be the same to
the last reply. Not compared, but judged each by itself, are those in which how much is written by
then goes by time: content in pieces, and a stream behind a wrong reply. Left out are the behaviours
that mean something else at another time: a reply too many, or a 421 behind the right reply, that
comes a moment later answers another command.
"""

from __future__ import annotations

import pytest

from aiosmtpclient import Delivery

from .behaviours import BEHAVIOURS, CLASSES, MALFORMED, ODD
from .cable import Fault
from .figures import TORTURE, Figures, sample
from .judge import Judgement, Problem
from .scenarios import SCENARIOS, Scenario
from .trial import Played, Trial

SHARE = 300
MOST = 5000
"""Octets that are worth being said one by one."""
AROUND = 12
"""Octets before the end of what is said, which is where the wrong reply is."""
STREAMS = [
    *CLASSES,
    *MALFORMED,
    *ODD,
    BEHAVIOURS["says 421 and goes"],
    BEHAVIOURS["goes instead of answering"],
    BEHAVIOURS["goes in the middle of the answer"],
    BEHAVIOURS["stops in the middle of the answer"],
    BEHAVIOURS["says nothing"],
]
MANY = [one for one in SCENARIOS if one.recipients == 3][:: 1 if TORTURE else 2]


def account(played: Played) -> list[object]:
    """What was told about each message: recipient, delivery, reply; and which error it was.

    Where the line ends, how much the client writes before it sees that is a matter of time: then
    it is compared what was decided, and what was not. Which of not sent and unknown is right was
    judged for each.
    """
    if played.trial.fault is not None:
        return [
            (
                number,
                outcome.address,
                outcome.delivery if outcome.reply is not None else "undecided",
                outcome.reply,
            )
            for number, told in sorted(played.told.items())
            for outcome in told.outcomes
        ]
    return [
        (number, told.outcomes, told.delivery, type(told.error), told.reply)
        for number, told in sorted(played.told.items())
    ]


def compare(figures: Figures, whole: Played, trial: Trial) -> None:
    played = figures.run(trial)
    told, as_said = account(played), account(whole)
    if trial.scenario.at_once and trial.behaviour:
        # A broken reply to one message ends the connection for those behind it: what came in the
        # same segment counts, what would have come later is unknown. Both were judged as they are.
        told, as_said = [], []
    if trial.scenario.size == "pieces":
        told, as_said = [], []  # how much was written by then goes by time, as above
    if told != as_said and not played.stuck:
        text = f"{told}\n    as said: {as_said}"
        figures.counts["trials"] -= 1
        figures.note(trial, Judgement([Problem("wrong class", text)], 0))


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("scenario", MANY, ids=str)
def test_a_conversation_cut_anywhere_is_the_same(scenario: Scenario, record_property) -> None:
    figures = Figures("split")
    whole = figures.run(Trial(scenario))
    for cutting in ("octets", "joined", *sample(range(1, whole.marks[1]), SHARE, scenario)):
        compare(figures, whole, Trial(scenario, cutting=cutting))
    figures.settle(record_property)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("scenario", MANY, ids=str)
def test_a_wrong_reply_cut_anywhere_is_the_same(scenario: Scenario, record_property) -> None:
    figures = Figures("split")
    replies = figures.run(Trial(scenario)).marks[2]
    for behaviour in sample(STREAMS, 25, scenario):
        for number, place in enumerate(sample(range(replies), SHARE, (scenario, behaviour.name))[1:], 1):
            whole = figures.run(Trial(scenario, behaviour=behaviour.name, place=place))
            ends = len(whole.post.connections[0].line.spoken)
            ways = ("octets", "joined") if ends < MOST else ("joined",)
            near = number in (0, replies // 2, replies - 1)  # a cut at each octet for some, two ways for all
            cuts = (
                ()
                if TORTURE and not near
                else sample(range(max(ends - AROUND, 1), ends), SHARE, (scenario, behaviour.name, place))
            )
            for cutting in (*ways, *cuts):
                compare(figures, whole, Trial(scenario, None, behaviour.name, place, cutting=cutting))
    figures.settle(record_property)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("scenario", MANY, ids=str)
def test_a_line_that_ends_is_the_same_however_its_last_words_are_cut(
    scenario: Scenario, record_property
) -> None:
    figures = Figures("split")
    spoken = figures.run(Trial(scenario)).marks[1]
    for sent in sample(range(spoken + 1), SHARE, scenario):
        for kind in ("close", "stop"):
            fault = Fault(kind, sent=sent)
            whole = figures.run(Trial(scenario, fault))
            compare(figures, whole, Trial(scenario, fault, cutting="octets"))
    figures.settle(record_property)


def test_behind_a_refused_chunk_in_lmtp_no_reply_is_taken_for_another_messages() -> None:
    """Nobody knows how many replies the last chunk then earns, and all came in one segment."""
    scenario = Scenario("stream", "eager", lmtp=True, size="pieces")
    figures = Figures("chunks")
    trial = Trial(scenario, behaviour="refuses with C1 controls in the text", place=8, cutting="joined")
    played = figures.run(trial)
    assert {outcome.delivery for outcome in played.told[1].outcomes} == {Delivery.REFUSED}
    assert [(outcome.delivery, outcome.reply) for outcome in played.told[2].outcomes] == [
        (Delivery.NOT_SENT, None)
    ] * 3
    assert "nobody knows whom its next reply is for" in str(played.told[2].error)
    assert {outcome.delivery for number in (3, 4, 5) for outcome in played.told[number].outcomes} == {
        Delivery.ACCEPTED,
        Delivery.REFUSED,
    }
    figures.close()
    assert not figures.found
