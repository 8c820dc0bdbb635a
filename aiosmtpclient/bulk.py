"""Many messages: a window of them under way, and one outcome for each as it becomes known.

Rules of this room:

* Messages are taken from the caller's iterable one at a time, and no more of them than fit the
  window: neither what is under way nor what is finished and not yet looked at grows without end,
  nor what is finished and waits for its place in the order.
* What the iterable raises ends the run, after the outcomes of what was taken before. A message
  whose sending was cancelled from elsewhere does the same: it must not be missing in silence.
* A caller who stops early cancels what is under way; nothing is left running.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
)
from typing import Generic, Protocol, TypeVar

from .delivery import Outcome

M = TypeVar("M")
M_co = TypeVar("M_co", covariant=True)
Carry = Callable[[int, M], Awaitable[Outcome]]
"""Sends the message with this index, and says what became of it; raises nothing but cancellations."""


class Desk(Protocol[M_co]):
    """Where outcomes are laid down, and messages are taken from, by whoever sends several in a row."""

    def lay(self, outcome: Outcome, /) -> None:
        """Lay one down. If that fails it does not lie there."""
        raise NotImplementedError

    def take(self) -> tuple[int, M_co] | None:
        """The next message with its index, if it is at hand and there is room for what becomes of it."""
        raise NotImplementedError


CarryOn = Callable[[Desk[M], int, M], Awaitable[Outcome | None]]
"""As `Carry`, and whatever messages are at hand behind this one. None if all outcomes lie on the desk."""


async def one_by_one(
    messages: Iterable[M] | AsyncIterable[M], carry: Carry[M], *, begin: Callable[[], object] | None = None
) -> AsyncGenerator[Outcome, None]:
    """Send each message after the outcome of the one before was taken; `begin` as for `in_window`."""
    if begin is not None:
        begin()
    index = 0
    async with contextlib.aclosing(_feed(messages)) as each:
        async for message in each:
            yield await carry(index, message)
            index += 1


async def in_window(
    messages: Iterable[M] | AsyncIterable[M],
    carry: Carry[M],
    window: int,
    *,
    ordered: bool = False,
    begin: Callable[[], object] | None = None,
    flow: CarryOn[M] | None = None,
) -> AsyncGenerator[Outcome, None]:
    """Send with so many messages under way.

    Args:
        messages: what to send.
        carry: sends one.
        window: how many are under way at most.
        ordered: yield the outcomes in the order of the messages, not as they become known.
        begin: called when somebody asks for the first outcome, which may be long after this call.
        flow: sends several in a row, where they can be had without waiting.
    """
    if begin is not None:
        begin()
    run = _Run(messages, carry, window, ordered, flow)
    try:
        while True:
            # First: where tasks begin eagerly some may have ended already, and that is no news any more.
            while (outcome := run.oldest()) is not None:
                yield outcome
                if run.cramped:
                    run.make_room()
            if run.over:
                break
            await run.news()
    finally:
        await run.stop()


class _Run(Generic[M]):
    """Workers that take messages, and the outcomes that nobody has looked at yet."""

    def __init__(
        self,
        messages: Iterable[M] | AsyncIterable[M],
        carry: Carry[M],
        window: int,
        ordered: bool,
        flow: CarryOn[M] | None = None,
    ) -> None:
        # Only one of them: an asynchronous generator cannot be asked twice at a time, and to see to
        # that has its price.
        self._each: AsyncGenerator[M, None] | None = None
        self._at_hand: Iterator[M] = iter(())
        self._carry = carry
        self._flow: CarryOn[M] | None = None
        if isinstance(messages, AsyncIterable):
            self._each = _feed(messages)
        else:
            self._at_hand = iter(messages)
            if flow is not None and window > 1:  # else there is never room for another outcome
                self._flow = flow
        self._window = window
        self._ordered = ordered
        self._next = 0
        self._index = 0
        self._turn = asyncio.Lock()
        self._over = False
        self._error: BaseException | None = None
        self._done: OrderedDict[int, Outcome] = OrderedDict()
        self._loop = asyncio.get_running_loop()
        self._reader: asyncio.Future[None] | None = None  # whoever looks at the outcomes, while he waits
        self._room = asyncio.Event()
        self.cramped = False  # somebody waits for room
        self._workers = {asyncio.create_task(self._work()) for _ in range(window)}
        for worker in self._workers:
            worker.add_done_callback(self._left)

    def _left(self, worker: asyncio.Task[None]) -> None:
        self._workers.discard(worker)
        error = asyncio.CancelledError() if worker.cancelled() else worker.exception()
        if error is not None:  # its message has no outcome, and nobody is to wait for that
            self._error = self._error or error
            self._over, self._ordered = True, False
        self._tell()

    async def _work(self) -> None:
        while True:
            taken = self.take() if self._each is None else await self._await(self._each)
            if taken is None:
                return
            flow = self._flow
            outcome = await (flow(self, *taken) if flow is not None else self._carry(*taken))
            if outcome is not None:
                self.lay(outcome)
            del outcome  # no cycle: the traceback of its error may lead back to this frame
            while len(self._done) >= self._window:
                self.cramped = True
                self._room.clear()
                await self._room.wait()

    def lay(self, outcome: Outcome, /) -> None:
        """Whoever looks at the outcomes finds this one among them."""
        if self._reader is not None:
            self._tell()
        self._done[outcome.index] = outcome

    def take(self) -> tuple[int, M] | None:
        """The next message and its index, if there is one and room for what becomes of it."""
        if self._over or len(self._done) >= self._window:
            return None
        try:
            for message in self._at_hand:
                index, self._index = self._index, self._index + 1
                return index, message
        except BaseException as error:
            self._fail(error)
        self._over = True
        return None

    async def _await(self, each: AsyncIterator[M]) -> tuple[int, M] | None:
        """The same, where messages have to be waited for."""
        async with self._turn:
            if self._over:
                return None
            try:
                message = await anext(each)
            except StopAsyncIteration:
                self._over = True
                return None
            except BaseException as error:
                self._fail(error)
                return None
            index, self._index = self._index, self._index + 1
            return index, message

    def _fail(self, error: BaseException) -> None:
        self._over, self._error = True, error
        if isinstance(error, asyncio.CancelledError):
            raise error

    @property
    def over(self) -> bool:
        """True if every outcome was looked at, and there will be no more.

        Raises:
            BaseException: what ended the run.
        """
        if self._workers or self._done:
            return False
        if self._error is not None:
            raise self._error
        return True

    def _tell(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
        self._reader = None

    async def news(self) -> None:
        """Wait until there may be something new."""
        self._reader = self._loop.create_future()
        await self._reader

    def make_room(self) -> None:
        """An outcome was looked at: another may become known."""
        self.cramped = False
        self._room.set()

    def oldest(self) -> Outcome | None:
        """The next outcome to look at, if it is there."""
        if not self._ordered:
            return self._done.popitem(last=False)[1] if self._done else None
        outcome = self._done.pop(self._next, None)
        self._next += outcome is not None
        return outcome

    async def stop(self) -> None:
        """Cancel what is under way, and wait for it."""
        self._over = True  # whoever has an answer to give before the cancellation takes no further message
        workers = list(self._workers)
        for worker in workers:
            worker.cancel()
        try:
            await asyncio.gather(*workers, return_exceptions=True)
        finally:
            # Also if cancelled again: nobody may take from what has been closed.
            self._at_hand = iter(())
            if self._each is not None:
                await self._each.aclose()


async def _feed(messages: Iterable[M] | AsyncIterable[M]) -> AsyncGenerator[M, None]:
    if isinstance(messages, AsyncIterable):
        async for message in messages:
            yield message
    else:
        for message in messages:
            yield message
