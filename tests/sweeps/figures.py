"""How many trials there were, and what was wrong with them.

Rules of this room:

* A place is left out only where the short run takes a sample, chosen by `SEED`: every run of it
  takes the same.
* A failure shows the first few trials as what repeats them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from .clock import VirtualLoop
from .judge import Judgement, judge
from .trial import Played, Trial, play

T = TypeVar("T")

TORTURE = bool(os.environ.get("TORTURE"))
"""Every place, not a sample of them."""
ONE_IN = int(os.environ.get("TORTURE") or 1)
"""With TORTURE=10, one place in ten: what takes an hour takes minutes."""
SEED = int(os.environ.get("SWEEP_SEED", "5321"))
KINDS = ("hang", "leak", "mispaired", "wrong class", "twice", "harm", "late", "foreign")
SHOWN = 5


class Figures:
    """What a sweep, or a part of it, came to.

    Args:
        sweep: its name.
    """

    def __init__(self, sweep: str) -> None:
        self.sweep = sweep
        self.counts: Counter[str] = Counter()
        self.found: list[str] = []
        self._loop = VirtualLoop()

    def run(self, trial: Trial) -> Played:
        """Carry a trial out, and look at it."""
        played = play(trial, self._loop)
        self.note(trial, judge(played))
        if played.stuck or played.left:
            self._abandon()
        return played

    def note(self, trial: object, judgement: Judgement) -> None:
        """Count it."""
        self.counts["trials"] += 1
        self.counts["by count"] += judgement.by_count
        for problem in judgement.problems:
            self.counts[problem.kind] += 1
            self.found.append(f"{trial!r}\n    {problem.kind}: {problem.text}")

    def _abandon(self) -> None:
        """What was stuck is thrown away, with its loop."""
        self.close()
        self._loop = VirtualLoop()

    def close(self) -> None:
        """Nothing more is played."""
        loop = self._loop
        for task in asyncio.all_tasks(loop):
            task.cancel()
            with contextlib.suppress(BaseException):
                loop.wind()
                loop.run_until_complete(task)
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()

    def settle(self, record: Callable[[str, object], None]) -> None:
        """The sweep is over: hand the figures on, and fail if anything was wrong."""
        self.close()
        record("sweep", {"sweep": self.sweep, **self.counts})
        shown = "\n".join(self.found[:SHOWN])
        bad = {kind: self.counts[kind] for kind in KINDS if self.counts[kind]}
        assert not bad, f"{self.counts['trials']} trials (seed {SEED}), of which {bad}:\n{shown}"
        assert self.counts["trials"], "a sweep without a trial"


def sample(places: Iterable[T], share: int, key: object) -> list[T]:
    """Every place, or one in so many of them; the first and the last are always there."""
    every: Sequence[T] = list(places)
    if TORTURE:
        share = ONE_IN
    if share == 1 or len(every) <= 2:
        return list(every)
    chosen = random.Random(f"{SEED} {key}").sample(every[1:-1], max((len(every) - 2) // share, 1))
    return [every[0], *chosen, every[-1]]


def line_of(sweep: str, counts: Counter[str]) -> str:
    """One line a sweep."""
    words = [f"{counts['trials']:>8} trials"]
    words += [f"{counts[kind]} {kind}" for kind in KINDS]
    if counts["by count"]:
        words.append(f"({counts['by count']} accounts by count)")
    return f"{sweep:<8}" + ", ".join(words)
