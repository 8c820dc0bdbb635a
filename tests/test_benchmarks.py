"""The benchmarks measure what the goals ask for: a goal that nobody measures would pass unseen."""

from __future__ import annotations

import pytest

from benchmarks.drivers.ours import MODES
from benchmarks.findings import find
from benchmarks.goals import GOALS
from benchmarks.runner import Record, Settings
from benchmarks.works import WORKS

BY_KEY = {work.key: work for work in WORKS}


@pytest.mark.parametrize("goal", GOALS, ids=lambda goal: f"{goal.work} {goal.contender.key}")
def test_a_full_run_measures_what_the_goal_asks_for(goal) -> None:
    work = BY_KEY[goal.work]
    contenders = Settings().contenders(work)

    assert goal.contender in contenders
    if goal.at_most:
        assert work.lower_is_better
        assert work.unit == goal.unit
    else:
        assert (goal.against or goal.contender.peer) in contenders


def test_every_way_is_in_words_and_one_that_a_driver_knows() -> None:
    for work in WORKS:
        for contender in Settings().contenders(work):
            work.how(contender)
            if contender.client == "aiosmtpclient" and contender.way:
                mode, _, call = contender.way.rpartition("-")
                assert mode in MODES if call in ("many", "tasks", "pool") else contender.way in MODES


def test_round_trips_are_counted_where_they_are_taken_from() -> None:
    for work in WORKS:
        if work.counted_as:
            assert BY_KEY[work.counted_as].count, work.key


def test_what_was_not_measured_is_not_said_to_be_reached() -> None:
    records = [Record(work, "no sink") for work in WORKS]

    findings = find(records, [], {}, {})

    assert [verdict.reached for verdict in findings.verdicts] == [None] * len(GOALS)
