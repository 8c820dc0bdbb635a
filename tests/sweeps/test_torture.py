"""Torture: the n-th call of transport, loop or `ssl` fails, for every n, in the main dialogues.

A conversation is carried out once to count the calls, and then once for each of them, in each way
in which that call may fail. Then these hold: what is raised is an error of our tree (but a lack of
memory or of threads, which passes through as it is, with what is known of the message on it); the
word for each recipient is right; no task, timer or connection is left; the next messages arrive.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any
from unittest import mock

import pytest

from aiosmtpclient import SMTPException, SMTPPool, dialling
from aiosmtpclient.chunking import VERDICTS
from aiosmtpclient.connection import Connection
from aiosmtpclient.delivery import Ledger

from .blows import LOOP, TRANSPORT, Anvil, Blow, falling, most_ways
from .cable import ClientEnd
from .clock import Stuck, VirtualLoop
from .figures import Figures, sample
from .judge import Problem, judge
from .post import Network, Post
from .scenarios import TIMEOUTS, Scenario
from .trial import AFTER, FIRST, Played, Trial, left_behind, messages, one, pause

SHARE = 24
DIALOGUES = [
    Scenario("message", "off"),
    Scenario("off", "off"),
    Scenario("message", "eager"),
    Scenario("stream", "off"),
    Scenario("stream", "eager"),
    Scenario("message", "off", size="large"),
    Scenario("message", "eager", size="pieces"),
    Scenario("stream", "eager", size="pieces"),
    Scenario("message", "off", lmtp=True),
    Scenario("stream", "eager", lmtp=True),
]


POOLED = [Scenario("message", "off"), Scenario("stream", "eager"), Scenario("message", "off", lmtp=True)]


def pool_of(scenario: Scenario) -> SMTPPool:
    """Two connections, and nothing is tried again that is not."""
    options: dict[str, Any] = {"tls": "none", "timeout": TIMEOUTS, "local_hostname": "client.test"}
    options |= {"pipelining": scenario.pipelining, "chunking": scenario.chunking}
    return SMTPPool("127.0.0.1", 25, lmtp=scenario.lmtp, max_connections=2, retries=0, **options)


async def converse_by_pool(played: Played, loop: VirtualLoop, anvil: Anvil) -> None:
    scenario = played.trial.scenario
    pool = pool_of(scenario)
    await asyncio.gather(*(one(pool, scenario, number, played, loop) for number in FIRST))
    for number in AFTER:
        await pause()
        anvil.resting = number == AFTER[-1]
        if anvil.resting:
            await asyncio.sleep(60)  # after a failure it tries again later
        await one(pool, scenario, number, played, loop)
    anvil.resting = False
    try:
        await pool.close()
    except Exception as error:
        if not isinstance(error, SMTPException) and not anvil.shows_as_it_is(error):
            played.foreign.append(f"leaving: {error!r}")
        await pool.close(0)
    await pause()


async def converse(played: Played, loop: VirtualLoop, anvil: Anvil) -> None:
    smtp = played.trial.scenario.client()
    for _ in range(2):
        try:
            await smtp.connect()
            break
        except Exception as error:
            if not isinstance(error, SMTPException) and not anvil.shows_as_it_is(error):
                played.foreign.append(f"connecting: {error!r}")
    await messages(smtp, played.trial.scenario, played, loop)
    for number in AFTER:
        await pause()
        anvil.resting = number == AFTER[-1]  # which arrives, whatever was before
        await one(smtp, played.trial.scenario, number, played, loop)
    anvil.resting = False
    try:
        await smtp.quit()
    except Exception as error:
        if not isinstance(error, SMTPException) and not anvil.shows_as_it_is(error):
            played.foreign.append(f"leaving: {error!r}")
    smtp.close()
    await pause()


Talk = Callable[[Played, VirtualLoop, Anvil], Coroutine[Any, Any, None]]


class Torture(Figures):
    """Figures of trials with a blow."""

    def strike(self, scenario: Scenario, blow: Blow, talk: Talk = converse) -> Anvil:
        """One conversation with one blow."""
        anvil = Anvil(blow)
        VERDICTS.forget()
        loop = self._loop
        contents = {number: scenario.content(number) for number in (*FIRST, *AFTER)}
        post = Post(contents, lmtp=scenario.lmtp)
        loop.network = Network(loop, post, window=48 if scenario.size != "small" else 32 * 1024)
        loop.wind()
        complaints: list[str] = []
        loop.set_exception_handler(lambda _, context: complaints.append(complaint(context, anvil)))
        played = Played(Trial(scenario), post)
        owners = ((ClientEnd, TRANSPORT), (VirtualLoop, LOOP))
        with scenario.gauge(), falling(anvil, owners, lost=as_good_as_written):
            try:
                loop.run_until_complete(talk(played, loop, anvil))
            except Stuck as error:
                played.stuck = str(error)
        played.left += left_behind(loop)
        played.left += [
            f"connection {number} is open"
            for number, conversation in enumerate(post.connections)
            if not conversation.line.end.gone
        ]
        played.foreign = [text for text in played.foreign if not known(text, played, anvil)]
        judgement = judge(played)
        judgement.problems.extend(Problem("leak", text) for text in complaints if text)
        self.note((scenario, blow, anvil.struck), judgement)
        if played.stuck or played.left:
            self._abandon()
        return anvil


def as_good_as_written(end: ClientEnd, octets: Any) -> None:
    """Nobody can prove that it did not leave."""
    end._line.written += bytes(octets)


def complaint(context: dict[str, Any], anvil: Anvil) -> str:
    """What asyncio complains of, if it is more than the blow itself, where it fell into a callback."""
    error = context.get("exception")
    return "" if error is anvil.raised else f"{context.get('message')}: {error!r}"


def known(text: str, played: Played, anvil: Anvil) -> bool:
    """An error that is none of ours, and is the blow itself."""
    return any(
        text == f"message {number}: {told.error!r}" and anvil.shows_as_it_is(told.error)
        for number, told in played.told.items()
        if told.error is not None
    )


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("scenario", DIALOGUES, ids=str)
def test_whichever_call_fails_the_account_is_right_and_nothing_is_left(
    scenario: Scenario, record_property
) -> None:
    figures = Torture("torture")
    calls = figures.strike(scenario, Blow()).calls
    assert calls > 30
    for way in range(most_ways()):
        for nth in sample(range(1, calls + 1), SHARE, (scenario, way)):
            figures.strike(scenario, Blow(nth, way))
    figures.settle(record_property)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("scenario", POOLED, ids=str)
def test_whichever_call_fails_a_pool_goes_on(scenario: Scenario, record_property) -> None:
    figures = Torture("torture")
    calls = figures.strike(scenario, Blow(), converse_by_pool).calls
    for way in range(most_ways()):
        for nth in sample(range(1, calls + 1), SHARE, (scenario, way)):
            figures.strike(scenario, Blow(nth, way), converse_by_pool)
    figures.settle(record_property)


# -- it bites --------------------------------------------------------------------------------


def shows_what_the_system_says() -> Any:
    return mock.patch.object(dialling, "_connect_error", lambda error, *_: error)


def says_nothing_of_the_message() -> Any:
    return mock.patch.object(Ledger, "stamp", return_value=None)


def keeps_what_it_could_not_finish() -> Any:
    return mock.patch.object(Connection, "_leave", return_value=None)


# Who is stuck is thrown away as it is.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("mistake", "kinds"),
    [
        (shows_what_the_system_says, {"foreign"}),
        (says_nothing_of_the_message, {"mispaired"}),
        (keeps_what_it_could_not_finish, {"hang"}),
    ],
)
def test_a_client_with_this_mistake_is_found_out(mistake: Callable[[], Any], kinds: set[str]) -> None:
    figures = Torture("torture")
    with mistake():
        for nth in range(1, 60):
            figures.strike(DIALOGUES[0], Blow(nth))
    figures.close()
    assert kinds <= set(figures.counts)
