"""A sample of the sweeps over real sockets, where kernels buffer and resets overtake; and inside TLS.

What the client handed to whom is not known here. So the account is held against what the server
took and said: never accepted what it did not take, never refused what it did not refuse, never
not sent what it did take; and the messages behind the fault arrive.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator
from typing import Any

import pytest

from aiosmtpclient import Delivery, SMTPException
from aiosmtpclient.chunking import VERDICTS
from aiosmtpclient.testing import CertificateAuthority

from .behaviours import BEHAVIOURS, ENDINGS, FAREWELLS
from .cable import Fault
from .clock import HastyLoop, Stuck
from .figures import Figures, sample
from .judge import Judgement, Problem
from .post import BAD, Post
from .scenarios import Scenario
from .sockets import SocketServer
from .trial import AFTER, FIRST, Played, Trial, left_behind, messages, one, pause

SHARE = 20
STEP = 23
"""Octets from one place to the next: every one of them has its turn over the cable."""
MODES = [
    Scenario(pipelining, chunking, lmtp)
    for pipelining in ("off", "message", "stream")
    for chunking in ("off", "eager")
    for lmtp in (False, True)
]
SURE = [one for one in (*ENDINGS, *FAREWELLS) if one.in_step]


@pytest.fixture(scope="module")
def authority() -> CertificateAuthority:
    return CertificateAuthority()


@pytest.fixture
def loop() -> Iterator[HastyLoop]:
    made = HastyLoop()
    yield made
    made.run_until_complete(made.shutdown_default_executor())
    made.close()


async def converse(
    trial: Trial, loop: HastyLoop, server_side: ssl.SSLContext | None, options: dict[str, Any]
) -> tuple[Played, int, int]:
    """One conversation; returns what was told, and how many octets went either way."""
    scenario = trial.scenario
    VERDICTS.forget()
    contents = {number: scenario.content(number) for number in (*FIRST, *AFTER)}
    post = Post(contents, lmtp=scenario.lmtp)
    played = Played(trial, post)
    acts = BEHAVIOURS[trial.behaviour].acts if trial.behaviour else (BEHAVIOURS["answers and goes"].acts[0],)
    async with SocketServer(
        post, acts=acts, place=trial.place, fault=trial.fault, context=server_side
    ) as server:
        smtp = scenario.client("127.0.0.1", server.port, **options)
        for _ in range(2):
            try:
                await smtp.connect()
                break
            except SMTPException as error:
                played.opening.append(error)
        await messages(smtp, scenario, played, loop)
        heard, spoken = server.lines[0].read, len(server.lines[0].spoken)
        for number in AFTER:
            await pause()
            await one(smtp, scenario, number, played, loop)
        with contextlib.suppress(SMTPException):
            await smtp.quit()
        smtp.close()
        await pause()
    return played, heard, spoken


def look(played: Played) -> Judgement:
    problems = [Problem("foreign", what) for what in played.foreign]
    problems += [Problem("harm", what) for what in played.post.wrong]
    for number in (*FIRST, *AFTER):
        told = played.told.get(number)
        names = played.trial.scenario.names()
        if told is None or len(told.outcomes) != len(names):
            problems.append(Problem("hang", f"message {number}: {told}"))
            continue
        for name, outcome in zip(names, told.outcomes, strict=True):
            taken = played.post.taken[number, name]
            wrong = {
                Delivery.ACCEPTED: taken != 1,
                Delivery.NOT_SENT: taken != 0,
                Delivery.REFUSED: taken != 0 or not said_no(played, number, name),
                Delivery.UNKNOWN: False,
            }[outcome.delivery]
            wrong = wrong or taken > 1
            last = Delivery.REFUSED if name == BAD else Delivery.ACCEPTED
            wrong = wrong or (number == AFTER[-1] and outcome.delivery is not last)
            if wrong:
                problems.append(Problem("wrong class", f"message {number}, {name}: {outcome}, taken {taken}"))
    return Judgement(problems, 0)


def said_no(played: Played, number: int, name: str) -> bool:
    for conversation in played.post.connections:
        for said in conversation.said:
            slot = said.slot
            if said.code == 421:
                return True
            mine = slot is not None and slot.message == number and (not slot.names or name in slot.names)
            if mine and said.code >= 400:
                return True
    return False


class Real(Figures):
    """Figures of trials over sockets."""

    def carry_out(
        self, trial: Trial, loop: HastyLoop, server_side: ssl.SSLContext | None, options: dict[str, Any]
    ) -> tuple[int, int]:
        loop.wind()
        try:
            played, heard, spoken = loop.run_until_complete(converse(trial, loop, server_side, options))
        except Stuck as error:
            self.note(trial, Judgement([Problem("hang", str(error))], 0))
            raise
        judgement = look(played)
        judgement.problems.extend(Problem("leak", what) for what in left_behind(loop))
        self.note(trial, judgement)
        return heard, spoken


def sweep(figures: Real, scenario: Scenario, loop: HastyLoop, *security: Any) -> None:
    heard, spoken = figures.carry_out(Trial(scenario), loop, *security)
    for kind in ("close", "reset", "half-close", "stop"):
        for received in sample(range(0, heard + 1, STEP), SHARE, (scenario, kind)):
            figures.carry_out(Trial(scenario, Fault(kind, received=received)), loop, *security)
        for sent in sample(range(0, spoken + 1, STEP), SHARE, (scenario, kind)):
            figures.carry_out(Trial(scenario, Fault(kind, sent=sent)), loop, *security)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("scenario", MODES, ids=str)
def test_a_line_that_ends_over_real_sockets(scenario: Scenario, loop: HastyLoop, record_property) -> None:
    figures = Real("real")
    sweep(figures, scenario, loop, None, {})
    figures.settle(record_property)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("scenario", MODES, ids=str)
def test_a_line_that_ends_inside_tls(
    scenario: Scenario, loop: HastyLoop, authority: CertificateAuthority, record_property
) -> None:
    figures = Real("tls")
    options = {"tls": "implicit", "tls_context": authority.client_context()}
    sweep(figures, scenario, loop, authority.server_context(), options)
    figures.settle(record_property)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("scenario", MODES, ids=str)
def test_a_server_that_takes_its_leave_over_real_sockets(
    scenario: Scenario, loop: HastyLoop, record_property
) -> None:
    figures = Real("real")
    for behaviour in sample(SURE, 6, scenario):
        for place in sample(range(18), 8, (scenario, behaviour.name)):
            figures.carry_out(Trial(scenario, behaviour=behaviour.name, place=place), loop, None, {})
    figures.settle(record_property)
