"""The kill sweep: the line ends after each octet, either way, in each mode.

A conversation of three messages is carried out once to learn how many octets go either way, and
then once for each of them: behind it the server closes, resets, shuts its side, or stops. For
each recipient the account must be exactly what the outcome table says; the two messages behind
it go through, on a connection of their own if need be. Content that takes several writes is in
small gauge (see `scenarios`), so that there, too, every octet has its turn.
"""

from __future__ import annotations

import pytest

from .cable import KINDS, Fault
from .figures import Figures, sample
from .scenarios import FLOWS, SCENARIOS, Scenario
from .trial import Trial

SHARE = 400


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("scenario", SCENARIOS + FLOWS, ids=str)
def test_wherever_the_line_ends_the_account_is_exact(scenario: Scenario, record_property) -> None:
    figures = Figures("kill")
    whole = figures.run(Trial(scenario))
    assert len(whole.post.connections) == 1 + scenario.pooled
    heard, spoken, _ = whole.marks
    for kind in KINDS:
        step = 7 if "late" in kind else 1  # the same ends, seen a few turns later
        for received in sample(range(0, heard + 1, step), SHARE, (scenario, kind)):
            figures.run(Trial(scenario, Fault(kind, received=received)))
        for sent in sample(range(0, spoken + 1, step), SHARE, (scenario, kind)):
            figures.run(Trial(scenario, Fault(kind, sent=sent)))
    figures.settle(record_property)
