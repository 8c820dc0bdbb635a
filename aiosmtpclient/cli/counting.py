"""Counting: what became of how many messages, how fast, and how long each took.

Rules of this room:

* Memory does not grow with the number of messages: durations are counted in classes, each two
  per cent wider than the one before, so that a percentile is right to one per cent.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable

from aiosmtpclient.errors import Delivery

_SHORTEST = 1e-5
"""Seconds: all that is shorter is one class."""
_GROWTH = math.log(1.02)
_CLASSES = math.ceil(math.log(1e10) / _GROWTH)
"""Up to a day."""
_RECENT = 10.0
"""Seconds that count for the present rate."""


class Durations:
    """How long each message took, in bounded memory."""

    def __init__(self) -> None:
        self.count = 0
        self._classes = [0] * (_CLASSES + 1)

    def add(self, seconds: float) -> None:
        """Count one."""
        number = math.ceil(math.log(seconds / _SHORTEST) / _GROWTH) if seconds > _SHORTEST else 0
        self._classes[min(number, _CLASSES)] += 1
        self.count += 1

    def percentile(self, percent: float) -> float:
        """Return the seconds within which so many per cent were done; 0 if there are none."""
        wanted, sum_so_far = self.count * percent / 100, 0
        if not self.count:
            return 0.0
        for number, count in enumerate(self._classes):
            sum_so_far += count
            if count and sum_so_far >= wanted:
                # The middle of the class, in the measure in which its borders are set.
                return _SHORTEST * math.exp((number - 0.5) * _GROWTH)
        raise AssertionError((sum_so_far, wanted))


class Counts:
    """The counts of a run.

    Args:
        clock: seconds, from any point on.

    Attributes:
        deliveries: how many messages ended in each word in this run.
        before: how many the journal knew to be done, by word.
        refused_before: the journal knew somebody who was refused, and is not asked again.
        durations: from begin to end, of those that were begun.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.deliveries: Counter[Delivery] = Counter()
        self.before: Counter[Delivery] = Counter()
        self.refused_before = False
        self.durations = Durations()
        self._clock = clock
        self._begun = clock()
        self._marks: deque[tuple[float, int]] = deque([(self._begun, 0)])

    def add(self, delivery: Delivery, seconds: float | None = None) -> None:
        """Count a message, and how long it took from begin to end if it was begun."""
        self.deliveries[delivery] += 1
        if seconds is not None:
            self.durations.add(seconds)

    @property
    def total(self) -> int:
        """Messages with an outcome in this run."""
        return self.deliveries.total()

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return self._clock() - self._begun

    @property
    def rate(self) -> float:
        """Messages begun and ended a second, over the whole run."""
        return self.durations.count / self.seconds if self.seconds > 0 else 0.0

    def present_rate(self) -> float:
        """Return the same over the last seconds; whoever shows it asks now and then."""
        now, count = self._clock(), self.durations.count
        while len(self._marks) > 1 and self._marks[1][0] <= now - _RECENT:
            self._marks.popleft()
        then, before = self._marks[0]
        if now - self._marks[-1][0] >= _RECENT / 20:  # so there are twenty-odd of them, however often
            self._marks.append((now, count))
        return (count - before) / (now - then) if now > then else 0.0

    def words(self) -> str:
        """What became of the messages, in words."""
        return ", ".join(f"{self.deliveries[delivery]:,} {delivery}" for delivery in Delivery)

    def latencies(self) -> str:
        """The percentiles in words; empty without any."""
        if not self.durations.count:
            return ""
        return ", ".join(f"p{percent} {span(self.durations.percentile(percent))}" for percent in (50, 95, 99))


def span(seconds: float) -> str:
    """Return a duration with two or three digits that matter."""
    if seconds < 1:
        return f"{seconds * 1000:.{0 if seconds >= 0.01 else 1}f} ms"
    if seconds < 100:
        return f"{seconds:.{1 if seconds >= 10 else 2}f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
