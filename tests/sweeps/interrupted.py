"""One call that is cut short, what was told about it, and what is wrong with that.

A client connects, a call begins, it is cut, and behind it one or two more messages go the same
way. What was said about each message is held against what the server knows by `judge`, as in
every sweep. What only this one asks is here:

* who was cancelled is back in no time, and within a few turns of the loop;
* a cancellation is heard of once for each time it was asked for, but for one that is taken back;
* nothing is held by whom is gone: no turn, no slot, no socket, no task, no timer;
* the next message needs nothing but a `connect()`, and not even that where a send was cut.

Rules of this room:

* A trial says how it is repeated: its `repr` is the call.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import dataclass, field

from aiosmtpclient import Delivery, SMTPException, SMTPPoolError
from aiosmtpclient.chunking import VERDICTS

from .behaviours import BEHAVIOURS, right
from .calls import Call, Desk
from .clock import Stuck, VirtualLoop
from .cuts import Blade, Counted, Cut
from .judge import Problem
from .post import Post
from .scenarios import TIMEOUTS, Scenario
from .secured import SecuredNetwork
from .trial import AFTER, Played, left_behind, pause

MOST_TURNS = 12
"""Turns of the loop within which somebody who was cancelled is back."""
LEAVING = 31.0
"""Seconds in which a farewell inside of TLS is over; asyncio gives the other side 30."""
LATER = 6
"""Turns in which a cancellation that is still owed comes."""
MOST_SECONDS = max(seconds for seconds in TIMEOUTS if seconds is not None) + 1.0
"""In which a client notices that a server has fallen silent."""

_RIGHT = [Delivery.ACCEPTED, Delivery.REFUSED, Delivery.ACCEPTED]
"""What a server that is right makes of a message."""


@dataclass(frozen=True)
class Interruption:
    """What is cut, where, and what the server does besides.

    Attributes:
        scenario: how messages are sent.
        security: in clear or inside TLS.
        call: what is cut.
        cut: where and how.
        behaviour, place: what the server does wrong, and in place of which reply.
        handshake: what it does in place of a handshake.
    """

    scenario: Scenario
    security: str
    call: Call
    cut: Cut = field(default_factory=Cut)
    behaviour: str = ""
    place: int = -1
    handshake: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "scenario", self.call.scenario(self.scenario))


@dataclass
class Interrupted(Played):
    """What came of it.

    Attributes:
        problems: what is wrong that `judge` does not look for.
        suspensions, turns: how often the call was suspended, and how many turns of the loop it took.
        struck: whether it was.
        cleaned: how often the clean-up was suspended.
        places: which replies were earned by the call.
    """

    problems: list[Problem] = field(default_factory=list)
    suspensions: int = 0
    turns: int = 0
    struck: bool = False
    cleaned: int = 0
    places: range = range(0)

    def add(self, kind: str, text: str) -> None:
        self.problems.append(Problem(kind, text))


def play(trial: Interruption, loop: VirtualLoop) -> Interrupted:
    """Carry it out."""
    scenario = trial.scenario
    VERDICTS.forget()
    random.seed(1)  # a pool rolls dice
    contents = {number: scenario.content(number) for number in range(1, 10)}
    post = Post(contents, lmtp=scenario.lmtp)
    acts = BEHAVIOURS[trial.behaviour].acts if trial.behaviour else right
    loop.network = SecuredNetwork(
        loop,
        post,
        security=trial.security,
        handshake=trial.handshake,
        which=trial.call.which,
        acts=acts,
        place=trial.place,
        window=48 if scenario.size != "small" else 32 * 1024,
    )
    played = Interrupted(trial, post)  # type: ignore[arg-type]  # it has what a judge asks for
    loop.set_exception_handler(lambda _, context: played.foreign.append(f"the loop was told: {context}"))
    loop.wind()
    with scenario.gauge():
        try:
            loop.run_until_complete(
                _converse(played, trial, Desk(scenario, trial.security, post, played, loop))
            )
        except Stuck as error:
            played.stuck = str(error)
            return played
    played.left += left_behind(loop)
    played.left += [f"an asynchronous generator: {one}" for one in loop._asyncgens if one.ag_frame]
    played.left += _open_lines(post)
    return played


def _open_lines(post: Post) -> list[str]:
    lines = enumerate(conversation.line for conversation in post.connections)
    return [f"connection {number} is open" for number, line in lines if not line.end.gone]


async def _converse(played: Interrupted, trial: Interruption, desk: Desk) -> None:
    call = trial.call
    if call.pool:
        desk.found(call.pool)
    if call.before is not None:
        await call.before(desk)
    first = _replies(desk, call)
    await _cut(played, trial, desk)
    for task in desk.tasks:
        await task
    played.places = range(first, _replies(desk, call))
    for number in (*call.numbers, *call.front, *call.behind):
        desk.not_begun(number)
    await pause()
    if (trial.behaviour or trial.handshake) and len(_open_lines(desk.post)) > desk.connections:
        # Who takes his leave of TLS waits for the other side's; asyncio has a limit for that.
        await asyncio.sleep(LEAVING)
    _look_around(played, desk)
    played.numbers = (*call.front, *call.numbers, *call.behind)
    if not desk.closed:
        await _go_on(played, trial, desk)
    if desk.smtp is not None:
        try:
            await desk.smtp.quit()
        except SMTPException:
            pass
        except Exception as error:
            played.foreign.append(f"at the end: {error!r}")
        desk.smtp.close()
    if desk.pool is not None:
        await desk.pool.close()
        lender = desk.pool._lender
        if desk.pool.stats()[:5] != (0, 0, 0, 0, 0) or (lender is not None and lender._trial.locked()):
            played.left.append(f"in the pool: {desk.pool.stats()}, {lender and lender._trial}")
    await pause()


def _replies(desk: Desk, call: Call) -> int:
    connections = desk.post.connections
    return len(connections[call.which].slots) if len(connections) > call.which else 0


# -- the cut ---------------------------------------------------------------------------------


async def _cut(played: Interrupted, trial: Interruption, desk: Desk) -> None:
    """The call, and those besides it."""
    call, loop = trial.call, desk.loop
    silence = _Silence(desk)
    blade = Blade(loop, trial.cut, silence)
    desk.careful = bool(trial.cut.then)
    for number in call.front:
        desk.beside(number)
    task = loop.create_task(_victim(played, trial, desk, blade))
    for number in call.behind:
        desk.beside(number)
    await asyncio.wait([task])
    assert blade.left is not None
    played.suspensions, played.turns = blade.count, blade.left[1] - blade.begun
    if blade.struck is None:
        return
    played.struck = True
    seconds, turns = (end - begin for end, begin in zip(blade.left, blade.struck, strict=True))
    if trial.cut.how == "silence":
        if seconds > MOST_SECONDS * max(1, len(call.numbers)):
            played.add("late", f"{seconds:g} s after the server fell silent")
    elif seconds or turns > MOST_TURNS:
        played.add("late", f"{seconds:g} s and {turns} turns after it was cancelled")


class _Silence:
    """Every server that is connected says and reads nothing any more."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def __call__(self) -> None:
        for conversation in self._desk.post.connections:
            conversation.line.finish("stop")


async def _victim(played: Interrupted, trial: Interruption, desk: Desk, blade: Blade) -> None:
    """Whoever is cut."""
    cut, clean = trial.cut, trial.call.clean
    task = asyncio.current_task()
    assert task is not None
    cancelled = 0
    blade.begin()
    try:
        await _through(played, trial.call, desk, blade)
    except asyncio.CancelledError:
        cancelled += 1
    if cut.then and clean is not None and blade.strikes:
        second = Blade(desk.loop, Cut(cut.then, cut.moment), lambda: None)
        second.begin()
        try:
            await Counted(clean(desk), second.suspended)
        except asyncio.CancelledError:
            cancelled += 1
        second.end()
        played.cleaned = second.count
        _look_at_second(played, second)
        if second.strikes and cancelled < 2:
            cancelled += await _owed()
    if cut.how == "deadline":
        if await _owed() or task.cancelling():
            played.add("wrong class", "a deadline that was left cancels somebody later")
        return
    if blade.strikes and not cancelled and cut.how != "silence" and not await _owed():
        played.add("wrong class", "a cancellation was swallowed")
    if cancelled and not blade.strikes:
        played.add("wrong class", "cancelled by nobody")


def _look_at_second(played: Interrupted, second: Blade) -> None:
    if second.struck is None or second.left is None:
        return
    seconds, turns = (end - begin for end, begin in zip(second.left, second.struck, strict=True))
    if seconds or turns > MOST_TURNS:
        played.add("late", f"{seconds:g} s and {turns} turns after its clean-up was cancelled")


async def _through(played: Interrupted, call: Call, desk: Desk, blade: Blade) -> None:
    """The call, with a deadline around it where that is what strikes."""
    try:
        if blade.cut.how != "deadline":
            await Counted(call.work(desk), blade.suspended)
            return
        try:
            async with asyncio.timeout(None) as blade.deadline:
                await Counted(call.work(desk), blade.suspended)
        except TimeoutError as error:
            if not blade.strikes and not isinstance(error, SMTPException):
                raise
        except asyncio.CancelledError:
            played.add("wrong class", "a deadline ended in a cancellation")
    except SMTPException as error:
        if not isinstance(error, SMTPPoolError):
            played.opening.append(error)
    except Exception as error:
        played.foreign.append(f"{call.name}: {error!r}")
    finally:
        blade.end()


async def _owed() -> bool:
    """Whether a cancellation comes that is still owed."""
    try:
        for _ in range(LATER):
            await asyncio.sleep(0)
    except asyncio.CancelledError:
        return True
    return False


# -- afterwards ------------------------------------------------------------------------------


def _look_around(played: Interrupted, desk: Desk) -> None:
    """Nothing is held by whom is gone."""
    lines = _open_lines(desk.post)
    if desk.smtp is not None:
        if desk.smtp._turn.taken:
            played.add("leak", "the turn was not given back")
        if len(lines) > desk.connections:
            played.add("leak", f"{lines}, and the client says {desk.smtp!r}")
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            played.add("leak", f"{others}")
    if desk.pool is not None:
        stats = desk.pool.stats()
        if stats.in_use or stats.waiting:
            played.add("leak", f"{stats}")
        if len(lines) > desk.connections:
            played.add("leak", f"{lines}, and the pool says {stats}")


async def _go_on(played: Interrupted, trial: Interruption, desk: Desk) -> None:
    """The next message, by the same client or pool; another one if the server was still to be odd."""
    if desk.smtp is None and desk.pool is None:
        desk.hire()
    for number in (*AFTER, 7)[: 3 if desk.pool is not None else 2]:  # each connection may be odd
        smtp = desk.smtp
        by_hand = number != AFTER[0] or trial.cut.then or not trial.call.renews
        if smtp is not None and not smtp.is_connected and by_hand:
            with contextlib.suppress(SMTPException):
                await smtp.connect()
        await desk.send(number)
        await pause()
        played.numbers += (number,)
        told = played.told[number]
        if [outcome.delivery for outcome in told.outcomes] == _RIGHT[: len(trial.scenario.names())]:
            return
        if not (trial.behaviour or trial.handshake or trial.cut.how == "silence"):
            played.add("wrong class", f"message {number}, the next one: {told.error!r}")
