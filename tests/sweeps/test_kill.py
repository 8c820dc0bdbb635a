"""The kill sweep: the line ends after each octet, either way, in each mode.

A conversation of three messages is carried out once to learn how many octets go either way, and
then once for each of them: behind it the server closes, resets, shuts its side, or stops. For
each recipient the account must be exactly what the outcome table says; the two messages behind
it go through, on a connection of their own if need be.
"""

from __future__ import annotations

import pytest

from .cable import KINDS, Fault
from .figures import Figures, sample
from .scenarios import SCENARIOS, Scenario
from .trial import Trial

SHARE = 200


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_wherever_the_line_ends_the_account_is_exact(scenario: Scenario, record_property) -> None:
    figures = Figures("kill")
    whole = figures.run(Trial(scenario))
    assert len(whole.post.connections) == 1
    heard, spoken, _ = whole.marks
    for kind in KINDS:
        for received in sample(range(heard + 1), SHARE, (scenario, kind)):
            figures.run(Trial(scenario, Fault(kind, received=received)))
        for sent in sample(range(spoken + 1), SHARE, (scenario, kind)):
            figures.run(Trial(scenario, Fault(kind, sent=sent)))
    figures.settle(record_property)
