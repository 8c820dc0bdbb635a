"""The cancel sweep: every call is cut short wherever it waits, and the next message is its own.

A task is cancelled at its k-th suspension, for every k until it completes: as soon as it waits,
together with what it waits for, and in each turn of the loop; once, twice, by a deadline around
the call, and again while it cleans up. In place of a cancellation the server falls silent there,
so that the client's own time limits end it. All that in clear, behind STARTTLS and inside TLS, by
DATA, BDAT, as a stream and by LMTP, towards servers that are right and towards others. Virtual
time is the measure: none may pass before who was cancelled is back (see `interrupted`).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

import pytest

from aiosmtpclient.bulk import _Run
from aiosmtpclient.connection import Connection
from aiosmtpclient.driver import Drive
from aiosmtpclient.turn import Lease

from .behaviours import BEHAVIOURS, ODD, REPLIES
from .calls import CALLS, Call, fits
from .cuts import Cut
from .figures import SEED, TORTURE, Figures, sample
from .interrupted import Interrupted, Interruption, play
from .judge import Judgement, judge
from .scenarios import Scenario
from .secured import HANDSHAKES, SECURITIES

MODES = {
    "DATA": Scenario("message", "off"),
    "BDAT": Scenario("message", "eager"),
    "stream": Scenario("stream", "eager"),
    "stream DATA": Scenario("stream", "off"),
    "stream, BDAT if tried": Scenario("stream", "auto"),
    "LMTP": Scenario("message", "off", lmtp=True),
    "LMTP BDAT": Scenario("message", "eager", lmtp=True),
}
MOMENTS = ("waits", "wakes", "turn")
WAYS = [(how, moment) for how in ("cancel", "twice", "deadline", "silence") for moment in MOMENTS]
CLEANING = [("cancel then", "waits"), ("cancel then", "wakes")]
SERVERS = [one for one in [*REPLIES, *ODD] if one.in_step]
"""What a server may do wrong; those that say a reply too many, or none, are the reply sweep's."""
SHAKERS = ("connect", "async with", "send", "starttls", "pool send", "sendmail, anew")
"""Calls in which a handshake is made."""
each_security = pytest.mark.parametrize("security", SECURITIES)
each_mode = pytest.mark.parametrize("mode", MODES)


class Cuts(Figures):
    """Figures of calls that were cut."""

    def cut(self, trial: Interruption) -> Interrupted:
        """Carry it out, and look at it."""
        played = play(trial, self._loop)
        judgement = judge(played)
        if trial.cut.how == "silence" or trial.call.stream:
            # How long that lasts is looked at for the call as a whole. And a writer who is held up
            # looks only when his time is over whether something left since, so he may wait twice.
            judgement.problems[:] = [one for one in judgement.problems if one.kind != "late"]
        self.note(trial, Judgement(played.problems + judgement.problems, judgement.by_count))
        if played.stuck or played.left:
            self._abandon()
        return played

    def everywhere(self, whole: Interrupted, how: str, moment: str, share: int, **server: Any) -> None:
        """Cut at every k, or at some of them."""
        trial: Any = whole.trial
        what = (trial.scenario, trial.security, trial.call)
        last = whole.turns if moment == "turn" else whole.suspensions
        for at in sample(range(1, last + 1), share, (what, how, moment, server)):
            if how != "cancel then":
                self.cut(Interruption(*what, Cut(at, moment, how), **server))
                continue
            again = 1
            while self.cut(Interruption(*what, Cut(at, moment, "cancel", again), **server)).cleaned >= again:
                again += 1


def ways(call: Call) -> list[tuple[str, str]]:
    """How it may be cut."""
    return WAYS + CLEANING * (call.clean is not None)


def calls(mode: str, security: str) -> list[Call]:
    return [call for call in CALLS.values() if fits(call, MODES[mode], security)]


@pytest.mark.timeout(1800)
@each_mode
@each_security
def test_whoever_is_cut_short_anywhere_leaves_nothing_behind(
    security: str, mode: str, record_property: Callable[[str, object], None]
) -> None:
    figures, chance = Cuts("cancel"), random.Random(f"{SEED} {security} {mode}")
    for call in calls(mode, security):
        whole = figures.cut(Interruption(MODES[mode], security, call))
        some = ways(call)
        for how, moment in some if TORTURE else chance.sample(some, 2 if security == "plain" else 1):
            figures.everywhere(whole, how, moment, 1000)
    figures.settle(record_property)


@pytest.mark.timeout(1800)
@each_mode
@each_security
def test_nor_towards_a_server_that_does_something_wrong(
    security: str, mode: str, record_property: Callable[[str, object], None]
) -> None:
    figures, chance = Cuts("cancel"), random.Random(f"{SEED} {security} {mode}")
    clear, every = security == "plain", calls(mode, security)
    # Inside TLS it is the same once more, at three times the price; every call and mode takes others.
    servers = (len(SERVERS) if clear else 14) if TORTURE else 2
    for call in every if TORTURE else chance.sample(every, 6 if clear else 3):
        whole = figures.cut(Interruption(MODES[mode], security, call))
        for behaviour in chance.sample(SERVERS, servers):
            place = chance.choice(whole.places) if whole.places else 0
            against(figures, call, chance, whole, behaviour=behaviour.name, place=place)
    figures.settle(record_property)


@pytest.mark.timeout(1800)
@each_mode
@pytest.mark.parametrize("security", SECURITIES[1:])
def test_nor_towards_one_that_makes_no_handshake(
    security: str, mode: str, record_property: Callable[[str, object], None]
) -> None:
    figures, chance = Cuts("cancel"), random.Random(f"{SEED} {security} {mode}")
    every = [call for call in calls(mode, security) if call.name in SHAKERS]
    for call in every if TORTURE else chance.sample(every, 1):
        whole = figures.cut(Interruption(MODES[mode], security, call))
        for handshake in HANDSHAKES if TORTURE else chance.sample(HANDSHAKES, 1):
            against(figures, call, chance, whole, handshake=handshake)
    figures.settle(record_property)


def against(figures: Cuts, call: Call, chance: random.Random, right: Interrupted, **server: Any) -> None:
    """The same call towards a server that does something wrong, cut in one of the ways."""
    trial: Any = right.trial
    whole = figures.cut(Interruption(trial.scenario, trial.security, call, **server))
    how, moment = chance.choice(ways(call))
    figures.everywhere(whole, how, moment, 8, **server)


# The sweep bites


def keeps_what_nobody_looked_at() -> AbstractContextManager[object]:
    """Whoever is cancelled just when a reply comes keeps a connection that nobody else has."""
    leave = Connection._leave

    def _leave(self: Connection, home: Any, step: Any, lease: Any, cut_off: bool) -> None:
        leave(self, home, step, lease, False)

    return mock.patch.object(Connection, "_leave", _leave)


def keeps_what_is_half_done() -> AbstractContextManager[object]:
    return mock.patch.object(Connection, "_leave", return_value=None)


def loses_the_turn() -> AbstractContextManager[object]:
    return mock.patch.object(Lease, "give_back", return_value=None)


def swallows_a_cancellation() -> AbstractContextManager[object]:
    return mock.patch("aiosmtpclient.driver.cancel_later", return_value=None)


def leaves_workers() -> AbstractContextManager[object]:
    async def stop(self: Any) -> None:
        await self._each.aclose()

    return mock.patch.object(_Run, "stop", stop)


def takes_its_time() -> AbstractContextManager[object]:
    run = Drive.run

    async def slowly(self: Drive[Any]) -> Any:
        try:
            return await run(self)
        except asyncio.CancelledError:
            await asyncio.sleep(0.05)
            raise

    return mock.patch.object(Drive, "run", slowly)


def goes_on_in_the_background() -> AbstractContextManager[object]:
    run = Drive.run

    async def shielded(self: Drive[Any]) -> Any:
        return await asyncio.shield(run(self))

    return mock.patch.object(Drive, "run", shielded)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("mistake", "call", "moment", "kind"),
    [
        (keeps_what_nobody_looked_at, "connect", "wakes", "leak"),
        (keeps_what_nobody_looked_at, "by hand", "wakes", "harm"),
        (keeps_what_is_half_done, "sendmail", "waits", "wrong class"),
        (loses_the_turn, "sendmail", "waits", "hang"),
        (swallows_a_cancellation, "sendmail", "wakes", "wrong class"),
        (leaves_workers, "pool send_messages", "waits", "leak"),
        (takes_its_time, "sendmail", "turn", "late"),
        (goes_on_in_the_background, "sendmail", "waits", "foreign"),
    ],
)
def test_a_client_with_this_mistake_is_found_out(
    mistake: Callable[[], AbstractContextManager[object]], call: str, moment: str, kind: str
) -> None:
    figures = Cuts("bites")
    trial = Interruption(MODES["DATA"], "plain", CALLS[call])
    whole = figures.cut(trial)
    with mistake():
        try:
            figures.everywhere(whole, "cancel", moment, 1000)
        finally:
            figures.close()
    assert figures.counts[kind], figures.found


def test_servers_are_many() -> None:
    assert len(SERVERS) >= 40
    assert all(BEHAVIOURS[one.name] is one for one in SERVERS)
