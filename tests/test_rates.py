"""How fast: what a limit may be, and that a bucket lets through so much and no more."""

from __future__ import annotations

import math
from typing import Any

import pytest

from aiosmtpclient.rates import Bucket, RateLimit


@pytest.mark.parametrize(
    ("given", "limit"),
    [
        (5, RateLimit(5, 1)),
        (0.1, RateLimit(0.1, 1)),
        ((2, 10), RateLimit(2, 10)),
        (RateLimit(3, 4), RateLimit(3, 4)),
    ],
)
def test_a_limit_is_a_number_or_a_pair(given: Any, limit: RateLimit) -> None:
    assert RateLimit.of(given) == limit


@pytest.mark.parametrize("given", [0, -1, math.inf, math.nan, (1, 0), (0, 1), (1, 0.5)])
def test_a_limit_that_lets_nothing_through_or_everything_is_an_error(given: Any) -> None:
    with pytest.raises(ValueError) as caught:
        RateLimit.of(given)
    words = f"a rate limit needs a positive rate and a burst of at least 1, not {given!r}"
    assert str(caught.value) == words


def test_one_after_the_other_passes_at_the_rate() -> None:
    bucket = Bucket(RateLimit(4))
    assert bucket.wait(100.0) == 0.0
    bucket.take(100.0)
    assert bucket.wait(100.0) == 0.25
    assert bucket.wait(100.2) == pytest.approx(0.05)
    assert bucket.wait(100.25) == 0.0
    bucket.take(100.25)
    assert bucket.wait(100.25) == 0.25


def test_after_a_pause_a_burst_passes_at_once_and_no_more() -> None:
    bucket = Bucket(RateLimit(2, 3))
    for pause in (0.0, 1000.0):
        now = 100.0 + pause
        for _ in range(3):
            assert bucket.wait(now) == 0.0
            bucket.take(now)
        assert bucket.wait(now) == 0.5
        assert bucket.wait(now + 0.5) == 0.0
