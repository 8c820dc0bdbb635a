"""The sweeps bite: a client that is wrong in one of these ways is found out by a few trials."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from unittest import mock

import pytest

from aiosmtpclient.delivery import Ledger
from aiosmtpclient.protocol import SMTPProtocol
from aiosmtpclient.session import Session

from .behaviours import BEHAVIOURS, IDLE
from .cable import Fault
from .figures import Figures
from .scenarios import Scenario
from .trial import Trial

DATA, BDAT = Scenario("message", "off"), Scenario("message", "eager")
STREAM = Scenario("stream", "eager")


def _trials() -> Iterator[Trial]:
    for scenario in (DATA, BDAT, STREAM):
        for octets in (150, 220, 320, 400):
            yield Trial(scenario, Fault("stop", received=octets))
            yield Trial(scenario, Fault("close", sent=octets))
        for behaviour in ("answers twice", "says no instead", "says nothing"):
            for place in (3, 6, 7):
                yield Trial(scenario, behaviour=behaviour, place=place)
        yield Trial(scenario, idle="yes", behind=3)


def found() -> dict[str, int]:
    """The kinds of problems, and how many of each."""
    figures = Figures("oracle")
    try:
        for trial in _trials():
            figures.run(trial)
    finally:
        figures.close()
    return {kind: count for kind, count in figures.counts.items() if kind not in ("trials", "by count")}


def _nothing(*_: object, **__: object) -> None:
    return None


def forgets_that_the_end_left() -> AbstractContextManager[object]:
    return mock.patch.object(Ledger, "end_left", _nothing)


def takes_every_end_for_unknown() -> AbstractContextManager[object]:
    begin = Ledger.__init__

    def begin_gone(self: Ledger, addresses: Iterable[str]) -> None:
        begin(self, addresses)
        self._left = True

    return mock.patch.object(Ledger, "__init__", begin_gone)


def believes_a_reply_that_nobody_asked_for() -> AbstractContextManager[object]:
    return mock.patch.object(Session, "_unexpected", _nothing)


def decides_about_everybody() -> AbstractContextManager[object]:
    def decide(self: Ledger, position: int, reply: object) -> None:
        self.decide_open(reply)  # type: ignore[arg-type]

    return mock.patch.object(Ledger, "decide", decide)


def waits_for_ever() -> AbstractContextManager[object]:
    return mock.patch.object(SMTPProtocol, "_patience", _nothing)


def keeps_timers() -> AbstractContextManager[object]:
    end = SMTPProtocol._end

    def _end(self: SMTPProtocol) -> None:
        self._timer = None
        end(self)

    return mock.patch.object(SMTPProtocol, "_end", _end)


def mixes_up_recipients() -> AbstractContextManager[object]:
    def decide(self: Ledger, position: int, reply: object) -> None:
        self._replies[position - 1] = reply  # type: ignore[call-overload]

    return mock.patch.object(Ledger, "decide", decide)


# Who is stuck is thrown away as it is.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("mistake", "kinds"),
    [
        (forgets_that_the_end_left, {"wrong class"}),
        (takes_every_end_for_unknown, {"wrong class"}),
        (believes_a_reply_that_nobody_asked_for, {"mispaired"}),
        (decides_about_everybody, {"mispaired", "wrong class"}),
        (waits_for_ever, {"hang"}),
        (keeps_timers, {"leak"}),
        (mixes_up_recipients, {"mispaired", "wrong class"}),
    ],
)
def test_a_client_with_this_mistake_is_found_out(
    mistake: Callable[[], AbstractContextManager[object]], kinds: set[str]
) -> None:
    with mistake():
        assert kinds <= set(found())


def test_without_a_mistake_nothing_is_found() -> None:
    assert not found()


def test_a_trial_repeats_itself() -> None:
    trial = Trial(DATA, behaviour="says no instead", place=5)
    accounts = []
    for _ in range(2):
        figures = Figures("oracle")
        accounts.append(figures.run(trial).told)
        figures.close()
    first, second = ([(n, one.outcomes) for n, one in told.items()] for told in accounts)
    assert first == second


def test_behaviours_are_named_and_many() -> None:
    assert len(BEHAVIOURS) + len(IDLE) >= 40
    assert all(behaviour.name == name for name, behaviour in BEHAVIOURS.items())
