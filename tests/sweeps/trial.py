"""One conversation with one fault: three messages, then two more, and what was told about each.

Rules of this room:

* The client is the real one, with everything it stands on; only the cable is not.
* A trial says how it is repeated: its `repr` is the call.
* Whatever the fault was, the server is right afterwards. So the client is asked to go on, and
  must be able to.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from aiosmtpclient import AsyncSMTP, Delivery, RecipientOutcome, SMTPException, SMTPPool
from aiosmtpclient.chunking import VERDICTS

from .behaviours import BEHAVIOURS, IDLE
from .cable import Fault
from .clock import Stuck, VirtualLoop
from .post import Network, Post
from .scenarios import Scenario

FIRST = (1, 2, 3)
"""The messages in whose conversation something happens."""
AFTER = (4, 5)
"""The messages behind it."""
BEFORE = (6, 7)
"""What goes first over the connections of a pool, which nobody trusts before that."""
PAUSE = 8
"""Turns of the loop in which nobody says anything."""


@dataclass
class Told:
    """What the client said about a message.

    Attributes:
        outcomes: about each recipient.
        delivery: in one word.
        error: what was raised.
        reply: the reply that decided, if it was sent.
        at: when, on the loop's clock.
        idle: how long nothing had moved on any line.
        heard: octets that the client had been handed by then, on each connection; None if what
            came later was for this message too.
    """

    outcomes: Sequence[RecipientOutcome]
    delivery: Delivery | None
    error: BaseException | None
    reply: Any = None
    at: float = 0.0
    idle: float = 0.0
    heard: list[int] | None = None


@dataclass(frozen=True)
class Trial:
    """What happens in a conversation, and where.

    Attributes:
        scenario: how the messages are sent.
        fault: how and where the first connection ends.
        behaviour: the name of what the server does instead of a right reply.
        place: which reply of the first connection that is.
        idle: the name of what it says while nothing is owed.
        behind: behind which message that is.
        cutting: how what it says is cut.
    """

    scenario: Scenario
    fault: Fault | None = None
    behaviour: str = ""
    place: int = -1
    idle: str = ""
    behind: int = 0
    cutting: str | int = ""


@dataclass
class Played:
    """What came of a trial.

    Attributes:
        told: message → what was told about it.
        stuck: it did not come to its end.
        left: what was left behind.
        opening: what was raised by connecting.
        opened: when that was.
        foreign: errors that are not of our tree.
        marks: octets read and said, and replies earned, on the first connection by the first three.
        numbers: the messages about which something has to be told.
    """

    trial: Trial
    post: Post
    told: dict[int, Told] = field(default_factory=dict)
    opening: list[BaseException] = field(default_factory=list)
    opened: float = 0.0
    stuck: str = ""
    left: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    marks: tuple[int, int, int] = (0, 0, 0)
    numbers: tuple[int, ...] = (*FIRST, *AFTER)


def play(trial: Trial, loop: VirtualLoop) -> Played:
    """Carry it out."""
    scenario = trial.scenario
    VERDICTS.forget()
    contents = {number: scenario.content(number) for number in (*BEFORE, *FIRST, *AFTER)}
    post = Post(contents, lmtp=scenario.lmtp, refuse_content=scenario.refused)
    acts = BEHAVIOURS[trial.behaviour].acts if trial.behaviour else ()
    window = 48 if scenario.size != "small" else 32 * 1024
    loop.network = Network(
        loop, post, acts=acts, place=trial.place, fault=trial.fault, cutting=trial.cutting, window=window
    )
    loop.wind()
    played = Played(trial, post)
    with scenario.gauge():
        try:
            loop.run_until_complete(_converse(played, loop))
        except Stuck as error:
            played.stuck = str(error)
            return played
    played.left += left_behind(loop)
    played.left += [
        f"connection {number} is open"
        for number, conversation in enumerate(post.connections)
        if not conversation.line.end.gone
    ]
    return played


def left_behind(loop: Any) -> list[str]:
    """Tasks and timers of a loop that nobody uses."""
    return [f"task {task}" for task in asyncio.all_tasks(loop)] + [
        f"timer {timer}" for timer in loop.timers()
    ]


async def _converse(played: Played, loop: Any) -> None:
    scenario = played.trial.scenario
    if scenario.pooled:
        await _converse_in_flow(played, loop)
        return
    smtp = scenario.client()
    for _ in range(2):  # the second server is right
        try:
            await smtp.connect()
            break
        except Exception as error:
            played.opening.append(error)
            played.opened = loop.time()
    await _messages_and_after(smtp, played, loop)
    with contextlib.suppress(SMTPException):
        await smtp.quit()
    smtp.close()
    await pause()


async def _converse_in_flow(played: Played, loop: Any) -> None:
    scenario = played.trial.scenario
    pool = scenario.pool()
    played.numbers = (*BEFORE, *played.numbers)
    await asyncio.gather(*(one(pool, scenario, number, played, loop) for number in BEFORE))
    await _messages_and_after(pool, played, loop)
    await pool.close()
    await pause()


async def _messages_and_after(smtp: AsyncSMTP | SMTPPool, played: Played, loop: Any) -> None:
    scenario = played.trial.scenario
    await messages(smtp, scenario, played, loop)
    first = played.post.connections[0]
    played.marks = (first.line.read, len(first.line.spoken), len(first.slots))
    for number in AFTER:
        await pause()
        await one(smtp, scenario, number, played, loop)


async def messages(smtp: AsyncSMTP | SMTPPool, scenario: Scenario, played: Played, loop: Any) -> None:
    """The three."""
    if scenario.many:
        found: list[int] = []
        async with contextlib.aclosing(
            smtp.send_messages(scenario.envelope(number) for number in FIRST)
        ) as outcomes:
            async for outcome in outcomes:
                told = Told(outcome.outcomes, outcome.delivery, outcome.error)
                told.reply = outcome.result.reply if outcome.result is not None else None
                note(played, outcome.index + 1, told, loop)
                found.append(outcome.index + 1)
        if sorted(found) != [*FIRST]:
            played.foreign.append(f"outcomes for {found}")
    elif scenario.at_once:
        await asyncio.gather(*(one(smtp, scenario, number, played, loop) for number in FIRST))
    else:
        for number in FIRST:
            await one(smtp, scenario, number, played, loop)
            await _idle(played, number)
    if scenario.at_once or scenario.many:
        await _idle(played, FIRST[-1])


async def _idle(played: Played, number: int) -> None:
    if played.trial.idle and played.trial.behind == number:
        await pause()
        first = played.post.connections[0]
        first.line.surplus_at = len(first.line.written)
        first.unasked(IDLE[played.trial.idle])
        await pause()


async def one(smtp: AsyncSMTP | SMTPPool, scenario: Scenario, number: int, played: Played, loop: Any) -> None:
    """One message, by itself."""
    envelope = scenario.envelope(number)
    try:
        result = await smtp.sendmail(envelope.sender, envelope.recipients, envelope.content)
    except Exception as error:
        told = Told(getattr(error, "outcomes", ()), getattr(error, "delivery", None), error)
    else:
        told = Told(result.outcomes, Delivery.ACCEPTED, None, result.reply)
    note(played, number, told, loop)


def note(played: Played, number: int, told: Told, loop: Any) -> None:
    """Write down what was told."""
    told.at = loop.time()
    lines = [conversation.line for conversation in played.post.connections]
    told.idle = told.at - max((line.moved for line in lines), default=told.at)
    played.told[number] = told
    if told.error is not None and not isinstance(told.error, SMTPException):
        played.foreign.append(f"message {number}: {told.error!r}")


async def pause() -> None:
    """Let everything happen that can happen at once."""
    for _ in range(PAUSE):
        await asyncio.sleep(0)
