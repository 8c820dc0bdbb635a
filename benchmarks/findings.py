"""What the runs say: medians with their spread, paired ratios, goals reached, sinks trusted.

Everything that the report and the plots show is computed here, once.

Rules of this room:

* A ratio is taken within a round, then the median of the ratios: never of two medians.
* The spread is the lowest and the highest, not a deviation: there are few rounds.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from .goals import GOALS, Goal
from .runner import Record, Run
from .works import Contender, Work

# How many times faster than the fastest client the limit has to be for the sink to be trusted.
ENOUGH = 3.0
_ORDER = ("smtplib", "aiosmtplib", "smtp-source", "aiosmtpclient", "limit")


@dataclass(frozen=True, slots=True)
class Summary:
    """A median, and how far the rounds lie apart."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Summary | None:
        """The summary of some values; None if there are none."""
        return cls(statistics.median(values), min(values), max(values)) if values else None


@dataclass(frozen=True, slots=True)
class Row:
    """One contender of one work.

    Attributes:
        value: in the unit of the work.
        ratio: to aiosmtplib on the same loop; None where that makes no sense.
        round_trips: a message; None if they were not counted.
        cpu: microseconds of the client's CPU a message.
        sink_cpu: microseconds of the sink's CPU a message.
        count: messages or connections that were measured in a round, at least.
    """

    contender: Contender
    value: Summary
    ratio: Summary | None
    round_trips: float | None
    cpu: float
    sink_cpu: float | None
    rounds: int
    count: int


@dataclass(frozen=True, slots=True)
class SinkCheck:
    """Whether the sink was fast enough for one work.

    Attributes:
        fastest: the fastest real client.
        limit: the fastest way of the limit client.
        times: how many times faster the limit is.
        busy: the share of its time that the sink worked for the fastest real client.
    """

    fastest: Contender
    limit: Contender
    times: float
    busy: float

    @property
    def trusted(self) -> bool:
        """False if the sink may be what was measured."""
        return self.times >= ENOUGH


@dataclass(frozen=True, slots=True)
class Table:
    """One work, summed up."""

    work: Work
    sink: str
    line: float
    rows: tuple[Row, ...]
    check: SinkCheck | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """A goal and what was measured; None if it was not."""

    goal: Goal
    how: str
    measured: Summary | None
    limit: float | None

    @property
    def reached(self) -> bool | None:
        """True if the median reaches the goal; None if it was not measured."""
        if self.measured is None:
            return None
        if self.goal.at_most:
            return self.measured.median <= self.goal.at_most
        return self.measured.median >= self.goal.at_least


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything that a report says."""

    tables: tuple[Table, ...]
    verdicts: tuple[Verdict, ...]
    notes: tuple[str, ...]
    machine: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)


def find(
    records: Sequence[Record], notes: Sequence[str], machine: dict[str, str], settings: dict[str, str]
) -> Findings:
    """Sum up what was recorded."""
    by_key = {record.work.key: record for record in records}
    tables = tuple(_table(record, by_key) for record in records)
    verdicts = tuple(_verdict(goal, by_key[goal.work]) for goal in GOALS if goal.work in by_key)
    return Findings(tables, verdicts, tuple(notes), machine, settings)


# -- one work ------------------------------------------------------------------------------


def _table(record: Record, by_key: dict[str, Record]) -> Table:
    counted = by_key.get(record.work.counted_as or record.work.key)
    trips = counted.round_trips if counted is not None else {}
    rows = []
    for contender, runs in record.rounds.items():
        row = _row(record, contender, runs, trips)
        if row is not None:
            rows.append(row)
    rows.sort(key=lambda row: _ORDER.index(row.contender.client))
    return Table(record.work, record.sink, record.line, tuple(rows), _sink_check(record.work, rows))


def _row(
    record: Record, contender: Contender, runs: list[Run | None], trips: dict[Contender, float]
) -> Row | None:
    done = [run for run in runs if run is not None]
    value = Summary.of([_value(record.work, run) for run in done])
    if value is None:
        return None
    of_sink = [_sink_cpu(run) for run in done]
    return Row(
        contender=contender,
        value=value,
        ratio=_ratio(record, contender, contender.peer),
        round_trips=_round_trips(contender, trips),
        cpu=statistics.median(run.result.cpu_seconds / run.result.messages * 1e6 for run in done),
        sink_cpu=statistics.median(each for each in of_sink if each is not None)
        if None not in of_sink
        else None,
        rounds=len(done),
        count=min(run.result.messages for run in done),
    )


def _value(work: Work, run: Run) -> float:
    """The value of a run in the unit of the work."""
    if work.unit == "MB/s" and run.seen is not None:
        return run.result.value * run.seen.octets / run.seen.messages / 1e6
    return run.result.value / 1024 if work.unit == "MiB" else run.result.value


def _ratio(record: Record, contender: Contender, other: Contender) -> Summary | None:
    if record.work.lower_is_better or other not in record.rounds or contender not in record.rounds:
        return None
    pairs = zip(record.rounds[contender], record.rounds[other], strict=False)
    return Summary.of([one.result.value / two.result.value for one, two in pairs if one and two])


def _round_trips(contender: Contender, trips: dict[Contender, float]) -> float | None:
    ways = (trips[each] for each in trips if (each.client, each.way) == (contender.client, contender.way))
    return next(ways, None)


def _sink_cpu(run: Run) -> float | None:
    if run.seen is None:
        return None
    return run.seen.cpu_seconds / (run.seen.messages or run.seen.connections or 1) * 1e6


def _sink_check(work: Work, rows: Sequence[Row]) -> SinkCheck | None:
    """Compare the limit with the fastest client. A long line is no test of the sink."""
    limits = [row for row in rows if row.contender.client == "limit"]
    others = [row for row in rows if row.contender.client != "limit"]
    if work.lower_is_better or work.rtt or not limits or not others:
        return None
    limit = max(limits, key=lambda row: row.value.median)
    fastest = max(others, key=lambda row: row.value.median)
    seconds = _seconds_each(work, fastest)
    busy = (fastest.sink_cpu or 0.0) / 1e6 / seconds
    return SinkCheck(fastest.contender, limit.contender, limit.value.median / fastest.value.median, busy)


def _seconds_each(work: Work, row: Row) -> float:
    if work.unit == "MB/s":
        return work.size / 1e6 / row.value.median
    return 1 / row.value.median


# -- goals ---------------------------------------------------------------------------------


def _verdict(goal: Goal, record: Record) -> Verdict:
    how = record.work.how(goal.contender)
    if goal.at_most:
        runs = record.rounds.get(goal.contender, [])
        return Verdict(goal, how, Summary.of([_value(record.work, run) for run in runs if run]), None)
    against = goal.against or goal.contender.peer
    measured = _ratio(record, goal.contender, against)
    return Verdict(goal, how, measured, _best_limit(record, goal.contender, against))


def _best_limit(record: Record, contender: Contender, against: Contender) -> float | None:
    """What the limit client shows for the same way on the same loop, as a ratio."""
    way = contender.way.removesuffix("-tasks").removesuffix("-many").removesuffix("-pool")
    ratio = _ratio(record, Contender("limit", way, contender.loop), against)
    return ratio.median if ratio is not None else None
