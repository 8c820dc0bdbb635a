"""Timeouts: one number or four, and none that would mean something else than it says."""

from __future__ import annotations

import math

import pytest

from aiosmtpclient.timeouts import Timeouts


def test_the_final_reply_gets_ten_minutes_for_a_short_wait_makes_duplicates() -> None:
    assert Timeouts() == Timeouts(connect=30.0, reply=60.0, write=60.0, final=600.0)


@pytest.mark.parametrize("seconds", [5, 0.25, None])
def test_one_number_sets_them_all(seconds: float | None) -> None:
    assert Timeouts.of(seconds) == Timeouts(seconds, seconds, seconds, seconds)


def test_timeouts_are_taken_as_they_are() -> None:
    timeouts = Timeouts(connect=1, final=None)
    assert Timeouts.of(timeouts) is timeouts


@pytest.mark.parametrize("which", ["connect", "reply", "write", "final"])
@pytest.mark.parametrize("seconds", [0, 0.0, -1, math.nan, -math.inf, "5", (5, 5)])
def test_a_timeout_that_is_no_time_is_refused_instead_of_failing_at_once(which: str, seconds: object) -> None:
    with pytest.raises(ValueError) as caught:
        Timeouts(**{which: seconds})  # type: ignore[arg-type]
    words = f"a timeout must be more than 0 seconds, not {seconds!r}; None waits for ever"
    assert str(caught.value) == words


@pytest.mark.parametrize("which", ["connect", "reply", "write", "final"])
def test_a_short_time_is_a_time(which: str) -> None:
    assert getattr(Timeouts(**{which: 1e-9}), which) == 1e-9


@pytest.mark.parametrize("seconds", [0, -0.5])
def test_a_number_for_all_of_them_is_checked_too(seconds: float) -> None:
    with pytest.raises(ValueError, match="more than 0 seconds"):
        Timeouts.of(seconds)


def test_timeouts_that_many_clients_share_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Timeouts().final = 1.0  # type: ignore[misc]
