"""Rates: how many messages a second may be begun, over any stretch of time.

`Bucket` is the generic cell rate algorithm: it keeps the one moment at which, at an even rate, the
next message would be due. Within any `w` seconds no more than `burst + rate × w` are let through,
wherever that window is laid, for what was not used is kept only up to `burst`.

Rules of this room:

* Nothing is promised ahead: whoever comes asks again when his time has come. A reservation that
  is used late would let two come closer together than the rate allows.
"""

from __future__ import annotations

import math
from typing import NamedTuple


class RateLimit(NamedTuple):
    """So many messages a second, and so many at once after a pause.

    Attributes:
        rate: messages a second.
        burst: messages that may be begun at once.
    """

    rate: float
    burst: int = 1

    @classmethod
    def of(cls, limit: RateLimit | tuple[float, int] | float) -> RateLimit:
        """Understand a limit, a pair, or a bare number of messages a second.

        Raises:
            ValueError: it lets nothing through, or makes no sense.
        """
        made = cls(*limit) if isinstance(limit, tuple) else cls(limit)
        if not (math.isfinite(made.rate) and made.rate > 0 and made.burst >= 1):
            raise ValueError(f"a rate limit needs a positive rate and a burst of at least 1, not {limit!r}")
        return made


class Bucket:
    """Lets through what the limit allows.

    Args:
        limit: what is allowed.
    """

    __slots__ = ("_due", "_slack", "_step")

    def __init__(self, limit: RateLimit) -> None:
        self._step = 1 / limit.rate
        self._slack = (limit.burst - 1) * self._step
        self._due = -math.inf

    def wait(self, now: float) -> float:
        """Seconds until the next one may pass; 0 if it may now."""
        return max(0.0, self._due - self._slack - now)

    def take(self, now: float) -> None:
        """Let one pass; only after `wait` said 0."""
        self._due = max(self._due, now) + self._step
