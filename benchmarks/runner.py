"""The run: every contender in turn, round after round.

In each round every contender of a work runs once, in a process of its own: A B C, A B C, … so
that whatever the machine does besides falls on all of them, and a ratio is taken between two
runs of one round.

Rules of this room:

* A run counts only if our sink saw every message the driver says it sent and, where they are
  known, every octet. A run that does not count is a note in the report.
* A contender that is not available here is asked once, and left out with the reason. One that
  failed in a work is left out of the rest of it, and after two works of everything: a hang costs
  more time than it teaches.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from .drivers.job import IN_FLIGHT, Job, Result
from .servers import HERE, Counters, Server, Sink, long_line, round_trip, sink, smtp_sink
from .works import KIB, Contender, Work

_TIME_LIMIT = 45
_SMALL = 100 * KIB


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one contender: what the driver found, and what the sink saw meanwhile."""

    result: Result
    seen: Counters | None


@dataclass(slots=True)
class Record:
    """What was found out about one work.

    Attributes:
        rounds: contender → its runs, None for a round in which it failed.
        round_trips: contender → how many a message, as counted by the sink.
        line: the round trip of the line in milliseconds, as measured; 0 for bare loopback.
    """

    work: Work
    sink: str
    line: float = 0.0
    rounds: dict[Contender, list[Run | None]] = field(default_factory=dict)
    round_trips: dict[Contender, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is done.

    Attributes:
        quick: one round of the contenders in `core`, and short ones.
        rounds: instead of what each work says; 0 to leave it.
        seconds: the same for how long a run measures.
        python_sink: use the sink that needs no compiler.
    """

    quick: bool = False
    rounds: int = 0
    seconds: float = 0.0
    python_sink: bool = False

    def contenders(self, work: Work) -> tuple[Contender, ...]:
        """Who does this work."""
        return work.core if self.quick else work.core + work.extra

    def counts(self, work: Work) -> bool:
        """True if round trips are counted in this work, and not taken from another."""
        return bool(work.count) and (work.size <= _SMALL or not self.quick)

    def rounds_of(self, work: Work) -> int:
        """How often each of them does it."""
        return self.rounds or (1 if self.quick else work.rounds)

    def connections_of(self, work: Work) -> int:
        """How many there are: a quick run opens a tenth of those that only lie idle."""
        return work.connections // 10 if self.quick and work.kind == "idle" else work.connections

    def seconds_of(self, work: Work) -> float:
        """How long it is measured each time."""
        return self.seconds or (work.seconds * 0.4 if self.quick else work.seconds)


class _Failed(Exception):
    """This run gave nothing; the text says why."""


class _NotAvailable(_Failed):
    """No run of this contender will give anything."""


class Runner:
    """Runs works.

    Args:
        settings: how much is done.
        say: takes a line about what happens now.
    """

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self._notes: list[str] = []
        self._settings = settings
        self._say = say
        self._seed = 0
        self._failures: dict[Contender, int] = {}
        self._not_available: dict[Contender, str] = {}

    @property
    def notes(self) -> list[str]:
        """What could not be run, and why."""
        reasons = dict.fromkeys(self._not_available.values())
        who = {
            reason: [each.key for each, why in self._not_available.items() if why == reason]
            for reason in reasons
        }
        return [*self._notes, *(f"left out: {', '.join(keys)}: {reason}" for reason, keys in who.items())]

    def run(self, works: Iterable[Work]) -> list[Record]:
        """Run them all; what could not be run is in `notes`."""
        records = []
        with _compiled_once(), sink(python=self._settings.python_sink) as ours, smtp_sink() as postfix:
            for work in works:
                server = ours if work.sink == "sink" else postfix
                if server is None:
                    self._note(f"`{work.key}`: Postfix's smtp-sink is not installed, or did not start")
                elif self._settings.contenders(work):
                    records.append(self._work(work, server))
        return records

    def _work(self, work: Work, server: Server) -> Record:
        record = Record(work, server.name)
        fit = [each for each in self._settings.contenders(work) if self._fit(each)]
        if self._settings.counts(work) and isinstance(server, Sink):
            self._say(f"{work.key}: counting round trips")
            fit = self._count(work, server, fit, record)
        with _line(server.port, work) as port:
            record.line = round_trip(port) if work.rtt else 0.0
            server.take()
            for number in range(self._settings.rounds_of(work)):
                self._say(f"{work.key}: round {number + 1}, {len(fit)} contenders")
                fit = self._round(work, server, port, fit, record)
        return record

    def _fit(self, contender: Contender) -> bool:
        return contender not in self._not_available and self._failures.get(contender, 0) < 2

    def _round(
        self, work: Work, server: Server, port: int, fit: list[Contender], record: Record
    ) -> list[Contender]:
        """Let everybody run once; returns who may run again."""
        able = []
        for contender in fit:
            job = self._job(work, contender, port)
            runs = record.rounds.setdefault(contender, [])
            try:
                runs.append(self._once(job, server))
                able.append(contender)
            except _Failed as reason:
                runs.append(None)
                self._leave_out(work, contender, reason)
        return able

    def _count(self, work: Work, server: Sink, fit: list[Contender], record: Record) -> list[Contender]:
        """Count the round trips of each client and way once: the loop is no part of them."""
        able = []
        for contender in fit:
            twin = next((each for each in record.round_trips if _same_way(each, contender)), None)
            if twin is not None:
                record.round_trips[contender] = record.round_trips[twin]
                able.append(contender)
                continue
            count = work.count
            if contender.way.startswith("stream"):
                if work.size > _SMALL:
                    able.append(contender)
                    continue
                count = max(count, 2 * IN_FLIGHT)  # fewer would say nothing about the rest
            job = replace(self._job(work, contender, server.port), count=count * work.connections)
            server.hold(work.hold)
            try:
                run = self._once(job, server)
                able.append(contender)
            except _Failed as reason:
                self._leave_out(work, contender, reason)
                continue
            finally:
                server.hold(0)
            if run.seen is not None and run.seen.connections == work.connections:
                record.round_trips[contender] = run.seen.waits / run.seen.messages
        return able

    def _job(self, work: Work, contender: Contender, port: int) -> Job:
        self._seed += 1
        return Job(
            kind=work.kind,
            client=contender.client,
            way=contender.way,
            loop=contender.loop,
            port=port,
            size=work.size,
            recipients=work.recipients,
            style=work.style,
            # The limit sends so much in that time that making it would take longest.
            seconds=self._settings.seconds_of(work) * (0.5 if contender.client == "limit" else 1),
            seed=self._seed,
            connections=self._settings.connections_of(work),
        )

    def _once(self, job: Job, server: Server) -> Run:
        server.take()
        run = Run(_drive(job), server.take())
        if run.seen is not None:
            _check(job, run.result, run.seen)
        return run

    def _leave_out(self, work: Work, contender: Contender, reason: _Failed) -> None:
        if isinstance(reason, _NotAvailable):
            self._say(f"note: {contender.key} left out: {reason}")
            self._not_available[contender] = str(reason)
        else:
            self._failures[contender] = self._failures.get(contender, 0) + 1
            self._note(f"`{work.key}`: {contender.key} left out: {reason}")

    def _note(self, text: str) -> None:
        self._say(f"note: {text}")
        self._notes.append(text)


def _drive(job: Job) -> Result:
    """Start a driver for this job, and read its result."""
    command = [sys.executable, "-m", f"{__package__}.drivers", job.dumps()]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parent, timeout=_TIME_LIMIT)
    except subprocess.TimeoutExpired as error:
        raise _Failed(f"not done after {_TIME_LIMIT} s") from error
    lines = ran.stdout.splitlines()
    if ran.returncode or not lines:
        raise _Failed(f"failed: {(ran.stderr.strip().splitlines() or ['without a word'])[-1]}")
    answer = json.loads(lines[-1])
    if "not_available" in answer:
        raise _NotAvailable(answer["not_available"])
    return Result(**answer)


def _check(job: Job, result: Result, seen: Counters) -> None:
    """Make sure that what was said to be sent arrived."""
    if job.kind in ("connect", "import", "idle", "borrow"):
        return
    if seen.messages != result.sent:
        raise _Failed(f"sent {result.sent} messages, the sink saw {seen.messages}")
    if seen.recipients != result.sent * job.recipients:
        raise _Failed(f"the sink saw {seen.recipients} recipients in {seen.messages} messages")
    exact = job.kind == "send" and job.style == "bytes" and job.client != "smtp-source"
    if exact and seen.octets != result.sent * job.size:
        raise _Failed(f"the sink saw {seen.octets} octets, not {result.sent * job.size}")


@contextlib.contextmanager
def _compiled_once() -> Iterator[None]:
    """Let drivers find compiled modules, also where none may be written beside the source."""
    if not sys.dont_write_bytecode:
        yield
        return
    before = dict(os.environ)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PYTHONPYCACHEPREFIX"] = folder
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


@contextlib.contextmanager
def _line(port: int, work: Work) -> Iterator[int]:
    if not work.rtt:
        yield port
        return
    with long_line(port, work.rtt) as near:
        yield near


def _same_way(one: Contender, other: Contender) -> bool:
    return (one.client, one.way) == (other.client, other.way)
