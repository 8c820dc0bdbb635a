"""The report: Markdown for people, JSON for everything else."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from .findings import ENOUGH, Findings, Row, SinkCheck, Summary, Table, Verdict
from .goals import Goal
from .runner import Record

_CLIENTS = {"limit": "*limit*", "aiosmtpclient": "**aiosmtpclient**"}


def write_json(path: Path, findings: Findings, records: Sequence[Record]) -> None:
    """Write everything: what is in the report, and each run that it comes from."""
    runs = [
        {
            "work": record.work.key,
            "contender": contender.key,
            "rounds": [asdict(run) if run is not None else None for run in rounds],
        }
        for record in records
        for contender, rounds in record.rounds.items()
    ]
    path.write_text(json.dumps({**asdict(findings), "runs": runs}, indent=1) + "\n")


def write_markdown(path: Path, findings: Findings, plots: Iterable[str]) -> None:
    """Write the report; `plots` are the files beside it to show."""
    parts = ["# How fast", _head(findings)]
    if findings.verdicts:
        parts += ["## Goals", _goals(findings)]
    parts += ["## Is the sink fast enough?", _checks(findings.tables)]
    parts += [f"![{name.removesuffix('.svg')}]({name})" for name in plots]
    parts.append("## Everything measured")
    for table in findings.tables:
        parts += [f"### {table.work.title} (`{table.work.key}`)", _table(table), _caption(table, findings)]
    if findings.notes:
        parts += ["## Notes", "\n".join(f"* {note}" for note in findings.notes)]
    path.write_text("\n\n".join(parts) + "\n")


def _head(findings: Findings) -> str:
    lines = [f"* {name}: {value}" for name, value in (findings.machine | findings.settings).items()]
    lines.append("* every figure: median (lowest–highest) of the rounds; ratios: paired within a round")
    lines.append("* every process on a warm heap (one block of 4 MiB freed before it begins)")
    return "\n".join(lines)


# -- goals ---------------------------------------------------------------------------------


def _goals(findings: Findings) -> str:
    rows = [_goal(verdict) for verdict in findings.verdicts]
    head = ("work", "how", "loop", "against", "wanted", "measured", "limit", "")
    return _grid(head, rows)


def _goal(verdict: Verdict) -> tuple[str, ...]:
    goal = verdict.goal
    word = {True: "reached", False: "**missed**", None: "not measured"}[verdict.reached]
    measured = _spread(verdict.measured) if verdict.measured is not None else "–"
    limit = _figure(verdict.limit) if verdict.limit is not None else "–"
    against = "–" if goal.at_most else (goal.against or goal.contender.peer).client
    how = verdict.how or "–"
    return goal.title, how, goal.contender.loop or "–", against, _wanted(goal), measured, limit, word


def _wanted(goal: Goal) -> str:
    return f"≤ {goal.at_most:g} {goal.unit}" if goal.at_most else f"≥ {goal.at_least:g}"


# -- the sink ------------------------------------------------------------------------------


def _checks(tables: Iterable[Table]) -> str:
    checked = [(table.work.key, table.check) for table in tables if table.check is not None]
    if not checked:
        return "Not checked: no work was done by the limit client and by another."
    text = (
        f"The limit client should be at least {ENOUGH:g} times as fast as the fastest real client: "
        "else the sink may be what was measured."
    )
    head = ("work", "fastest client", "limit", "times as fast", "the sink was busy", "")
    return f"{text}\n\n{_grid(head, [_check(key, check) for key, check in checked])}"


def _check(key: str, check: SinkCheck) -> tuple[str, ...]:
    word = "fast enough"
    if not check.trusted:
        word = "**the sink may be what was measured**"
        # The limit client has a loop to pay for too: see how much of the time the sink worked.
        if check.busy < 1 / ENOUGH:
            word += f", though it was idle {1 - check.busy:.0%} of the time"
    return (
        f"`{key}`",
        check.fastest.key,
        check.limit.key,
        _figure(check.times),
        f"{check.busy:.0%} of the time",
        word,
    )


# -- one work ------------------------------------------------------------------------------


def _table(table: Table) -> str:
    if not table.rows:
        return "Nothing could be measured."
    head = ["client", "how", "loop", table.work.unit]
    if not table.work.lower_is_better:
        head += ["× aiosmtplib", "round trips a message", "client CPU, µs each"]
    return _grid(head, [_row(table, row) for row in table.rows])


def _row(table: Table, row: Row) -> tuple[str, ...]:
    contender = row.contender
    cells = [_CLIENTS.get(contender.client, contender.client), table.work.how(contender) or "–"]
    cells += [contender.loop or "–", _spread(row.value)]
    if not table.work.lower_is_better:
        cells.append(_spread(row.ratio) if row.ratio is not None else "–")
        cells.append(f"{row.round_trips:.3g}" if row.round_trips is not None else "–")
        cells.append(_figure(row.cpu))
    return tuple(cells)


def _caption(table: Table, findings: Findings) -> str:
    """What each table states: machine, versions, sink, rounds, line."""
    machine = findings.machine
    rounds = max((row.rounds for row in table.rows), default=0)
    words = [machine["processor"], machine["python"]]
    words += [f"{name} {machine[name]}" for name in ("aiosmtpclient", "aiosmtplib", "uvloop")]
    words += [f"sink: {table.sink}", f"rounds: {rounds}"]
    connections = table.work.connections
    if table.work.kind == "idle":
        connections = min((row.count for row in table.rows), default=0)  # as many as were allowed
    if connections > 1:
        words.append(f"connections: {connections:,}")
    if table.line:
        words.append(f"round trip measured: {table.line:.1f} ms")
    return f"*{'; '.join(words)}*"


# -- cells ---------------------------------------------------------------------------------


def _grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _spread(summary: Summary) -> str:
    if summary.low == summary.high:
        return _figure(summary.median)
    return f"{_figure(summary.median)} ({_figure(summary.low)}–{_figure(summary.high)})"


def _figure(value: float) -> str:
    """Three figures that mean something, without an exponent."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
