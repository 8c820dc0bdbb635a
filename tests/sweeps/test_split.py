"""The split sweep: it does not matter how what a server says is cut into segments.

Each conversation is carried out as it is said, then octet by octet, then with all that is owed
joined into one segment, then with a pause at each single octet; the accounts must be the same to
the last reply. Left out are the behaviours that mean something else at another time (`timed`): a
reply too many that comes later answers another command.
"""

from __future__ import annotations

import pytest

from .behaviours import BEHAVIOURS
from .cable import Fault
from .figures import Figures, sample
from .judge import Judgement, Problem
from .scenarios import SCENARIOS, Scenario
from .trial import Played, Trial

SHARE = 150
STREAMS = [*(one for one in BEHAVIOURS.values() if not one.timed)]
MANY = [one for one in SCENARIOS if one.recipients == 3]


def account(played: Played) -> list[object]:
    """What was told about each message: recipient, delivery, reply; and which error it was."""
    return [
        (number, told.outcomes, told.delivery, type(told.error), told.reply)
        for number, told in sorted(played.told.items())
    ]


def compare(figures: Figures, whole: Played, trial: Trial) -> None:
    played = figures.run(trial)
    if account(played) != account(whole) and not played.stuck:
        text = f"{account(played)}\n    as said: {account(whole)}"
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
    for behaviour in STREAMS:
        for place in sample(range(replies), SHARE, (scenario, behaviour.name))[-2:]:
            whole = figures.run(Trial(scenario, behaviour=behaviour.name, place=place))
            line = whole.post.connections[0].line
            around = sample(range(1, len(line.spoken) + 1), 12, (scenario, behaviour.name, place))
            for cutting in ("octets", "joined", *around[-4:]):
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
