"""Where a task is cut short, and how: the instrument of the cancel sweep.

`Counted` stands between a task and a coroutine that it awaits, and counts how often that is
suspended. At the one that was asked for, it strikes. Nothing of asyncio is bent for that: what
strikes is `Task.cancel`, or a deadline of `asyncio.timeout`, or a server that falls silent.

=========  =====================================================================================
moment     when it strikes
=========  =====================================================================================
"waits"    as soon as the task waits
"wakes"    when what it waits for is there, and the task does not know it yet
"turn"     in the so-manieth turn of the loop, whatever the task does
=========  =====================================================================================

==========  ====================================================================================
how         with what
==========  ====================================================================================
"cancel"    `Task.cancel`
"twice"     the same, and once more at whatever the task waits for next
"deadline"  `asyncio.timeout` around the call
"silence"   no cancellation: the server says and reads nothing any more, and the client's own
            time limits end it
==========  ====================================================================================

Rules of this room:

* A strike is written down with time and turn, so is the end of what was struck.
* What is over is not struck any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass
from typing import Any

from .clock import VirtualLoop

NEVER = 1 << 30


@dataclass(frozen=True)
class Cut:
    """Where and how.

    Attributes:
        at: at which suspension, or in which turn of the loop, counted from 1.
        moment: see above.
        how: see above.
        then: at which suspension of the caller's clean-up behind it he is cancelled again; 0 for none.
    """

    at: int = NEVER
    moment: str = "waits"
    how: str = "cancel"
    then: int = 0


class Blade:
    """Strikes one task, once or twice.

    Args:
        loop: the loop it lives on.
        cut: where and how.
        silence: makes the server fall silent.

    Attributes:
        deadline: the one around the call.
        count: how often the call was suspended.
        strikes: how often it was struck.
        struck: (time, turn) of the first time.
        left: the same of the end of the call.
        begun: the turn in which it began.
    """

    def __init__(self, loop: VirtualLoop, cut: Cut, silence: Callable[[], None]) -> None:
        self.loop, self.cut = loop, cut
        self.deadline: asyncio.Timeout | None = None
        self.count = self.strikes = 0
        self.struck: tuple[float, int] | None = None
        self.left: tuple[float, int] | None = None
        self.begun = loop.turns
        self._silence = silence
        self._task: asyncio.Task[Any] | None = None

    def begin(self) -> None:
        """The call begins, in this task."""
        self._task = asyncio.current_task()
        self.begun = self.loop.turns
        if self.cut.moment == "turn" and self.cut.at < NEVER:
            self.loop.alarm = (self.begun + self.cut.at, self.strike)

    def end(self) -> None:
        """The call is over."""
        self.left = self.now
        self.loop.alarm = None

    @property
    def now(self) -> tuple[float, int]:
        return self.loop.time(), self.loop.turns

    def suspended(self, waits_for: Any) -> None:
        """It waits."""
        self.count += 1
        again = self.cut.how == "twice" and self.strikes == 1
        if self.left is not None or not (again or (self.cut.moment != "turn" and self.count == self.cut.at)):
            return
        if self.cut.moment == "wakes" and asyncio.isfuture(waits_for):
            waits_for.add_done_callback(lambda _: self.strike())
        else:
            self.loop.call_soon(self.strike)

    def strike(self) -> None:
        """Now."""
        task = self._task
        if self.left is not None or task is None or self.strikes >= (2 if self.cut.how == "twice" else 1):
            return
        self.strikes += 1
        self.struck = self.struck or self.now
        if self.cut.how == "silence":
            self._silence()
        elif self.cut.how == "deadline":
            assert self.deadline is not None
            self.deadline._on_timeout()  # type: ignore[attr-defined]  # its timer, at this very moment
        else:
            task.cancel()


class Counted:
    """Awaits a coroutine, and tells a blade of each suspension."""

    def __init__(self, call: Coroutine[Any, Any, Any], suspended: Callable[[Any], None]) -> None:
        self._call = call
        self._suspended = suspended

    def __await__(self) -> Generator[Any, Any, Any]:
        call, thrown = self._call, None
        try:
            while True:
                try:
                    waits_for = call.send(None) if thrown is None else call.throw(thrown)
                except StopIteration as over:
                    return over.value
                self._suspended(waits_for)
                thrown = None
                try:
                    yield waits_for
                except GeneratorExit:
                    raise
                except BaseException as error:
                    thrown = error
        finally:
            thrown = None  # its traceback has this frame: no cycle
            call.close()
