"""The reply sweep: one wrong reply at each position of a conversation of three messages.

One too many, one too few, twice, in another order, of another class, 421 in every way, no reply
at all, none that is one; and octets while nothing is owed. Nobody may be reported as accepted
whom the server did not accept, nor as refused whom it did not refuse, but for the one thing that
cannot be known, see `judge`: a reply too many while several are owed. Those accounts are counted
by themselves ("by count"), and each is shown to be what the server said in that place.
"""

from __future__ import annotations

import pytest

from .behaviours import IDLE, REPLIES
from .figures import TORTURE, Figures, sample
from .scenarios import FLOWS, SCENARIOS, Scenario, refusing
from .trial import FIRST, Trial

SHARE = 40
EVERY = (SCENARIOS + FLOWS + refusing(SCENARIOS + FLOWS))[:: 1 if TORTURE else 2]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("scenario", EVERY, ids=str)
def test_one_wrong_reply_makes_no_false_account(scenario: Scenario, record_property) -> None:
    figures = Figures("reply")
    replies = figures.run(Trial(scenario)).marks[2]
    for behaviour in sample(REPLIES, 14, scenario):
        for place in sample(range(replies), SHARE, (scenario, behaviour.name)):
            figures.run(Trial(scenario, behaviour=behaviour.name, place=place))
    figures.settle(record_property)


@pytest.mark.parametrize("scenario", EVERY, ids=str)
def test_octets_while_nothing_is_owed_are_nobodys_answer(scenario: Scenario, record_property) -> None:
    figures = Figures("reply")
    for idle in sample(IDLE, 8, scenario):
        for behind in FIRST if not (scenario.at_once or scenario.many) else FIRST[-1:]:
            figures.run(Trial(scenario, idle=idle, behind=behind))
    figures.settle(record_property)
