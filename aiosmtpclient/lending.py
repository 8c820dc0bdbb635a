"""Lending: connections to one server, opened, checked, lent and closed in one event loop.

`slots` decides; here that is carried out. What takes time runs in tasks of its own, and reports
when it is done; whoever waits for a connection waits for a future.

Rules of this room:

* What happens is reported to `slots` in one call, and what that asks for is begun before anything
  else happens. Giving back never waits, so no cancellation can come in between.
* Whoever is cancelled at the moment at which he gets a connection gives it back.
* Each who waits gets an error of his own.
* What outlives a lender that nobody closed knows it only weakly, so that it can be collected.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import math
import os
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import cast

from .errors import SMTPPoolError
from .pooled import Pace, PooledSMTP
from .retrying import crowded, hopeless
from .slots import Action, Do, Limits, Slot, Slots, State, Ticket

LINGER = 1.0
"""Seconds for what was dropped to notice."""


class Lender:
    """What lends connections in one event loop.

    Args:
        loop: the one it runs in.
        limits: what it may do.
        new_client: makes a client for another connection.
        patience: failed attempts to connect that somebody who waits does not mind.
        name: what to call it in errors.
        pace: how fast messages may follow one another, on all connections together.

    Attributes:
        pid: the process that made it.
        slots: who has what.
        shared: a connection may be lent to several at a time.
        lock_step: no groups of commands are written.
        opened: connections opened so far.
        failed: attempts to open one that failed.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        limits: Limits,
        new_client: Callable[[], PooledSMTP],
        *,
        patience: int,
        name: str,
        pace: Pace | None = None,
    ) -> None:
        self.loop = loop
        self.pid = os.getpid()
        self.slots = Slots(limits, _usable)
        self.shared = limits.depth > 1
        self.opened = self.failed = 0
        self._new_client = new_client
        self._patience = patience
        self._name = name
        self._pace = pace
        self.lock_step = False
        self._trial = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._last_error: BaseException | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._fires = math.inf
        self._emptied = asyncio.Event()

    # -- lending -----------------------------------------------------------------------------

    def take(self, *, alone: bool) -> Slot | None:
        """A connection that is free, if nobody waits for one."""
        return self.slots.take(self.loop.time(), alone=alone or not self.shared)

    async def borrow(
        self, *, alone: bool, timeout: float | None = None, max_waiting: float = math.inf
    ) -> Slot:
        """Wait for a connection.

        Args:
            alone: nobody else is to have it.
            timeout: seconds to wait for it.
            max_waiting: give up at once if more wait already.

        Raises:
            SMTPPoolError: there was none in time.
            SMTPException: none could be opened.
        """
        # The future is there before anybody can be told: a task that is begun eagerly may end at once.
        ticket = Ticket(self.loop.create_future(), alone=alone or not self.shared, patience=self._patience)
        granted = self._carry_out(self.slots.ask(ticket, self.loop.time()), ticket)
        if granted is not None:
            return granted
        _, _, opening, _, waiting = self.slots.counts
        if waiting - opening > max_waiting:
            self._carry_out(self.slots.withdraw(ticket, self.loop.time()))
            raise SMTPPoolError(
                f"as many callers as max_waiting allows wait already: {self._name} {self.slots!r}; "
                "come again later, or raise that"
            )
        return await self._granted(ticket, timeout)

    async def _granted(self, ticket: Ticket, timeout: float | None) -> Slot:
        future = cast("asyncio.Future[Slot]", ticket.tenant)
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                return await future
        except BaseException as error:
            if future.done() and not future.cancelled() and future.exception() is None:
                self.give_back(future.result(), alone=ticket.alone, unused=True)  # it came too late
            else:
                self._carry_out(self.slots.withdraw(ticket, self.loop.time()))
            if limit.expired() and isinstance(error, TimeoutError):
                raise self._too_late(timeout) from self._last_error
            raise
        finally:
            ticket.tenant = None
            del future  # an error in it has this frame in its traceback: no cycle

    def _too_late(self, timeout: float | None) -> SMTPPoolError:
        text = (
            f"no connection became free within acquire_timeout={timeout:g}, for {self._name} {self.slots!r}"
        )
        if self._last_error is not None:
            return SMTPPoolError(f"{text}; the last attempt to make one ended like this: {self._last_error}")
        if self._pace is not None and self._pace.holds:
            return SMTPPoolError(f"{text}; rate_limit holds the messages that have them")
        return SMTPPoolError(f"{text}; raise that, or max_connections")

    def give_back(self, slot: Slot, *, alone: bool, unused: bool = False) -> None:
        """Say that a connection is not needed any more."""
        if self.shared and client_of(slot).unfit:
            self.slots.spoil(slot)  # else it is idle now, and looked at as a whole
        alone, now = alone or not self.shared, self.loop.time()
        actions = self.slots.give_back(slot, now, alone=alone, unused=unused)
        if actions:
            self._carry_out(actions)
        elif actions is not None or self._fires > now + self.slots.limits.idle:
            self._set_timer()  # mostly it is set to something that comes first

    def too_many(self, slot: Slot) -> None:
        """A server said so on an open connection."""
        self._carry_out(self.slots.crowded(slot, self.loop.time()))

    def broken(self, slot: Slot) -> None:
        """A server ended a connection in the middle of something."""
        self.slots.broken(slot, self.loop.time())

    def write_in_lock_step(self) -> None:
        """From now on no groups of commands are written."""
        self.lock_step = True
        for slot in self.slots.open:
            client_of(slot).write_in_lock_step()

    # -- what the slots ask for ----------------------------------------------------------------

    def _carry_out(self, actions: Iterable[Action], mine: Ticket | None = None) -> Slot | None:
        """Do what has to be done; returns the slot that `mine` was granted, if it was."""
        granted: Slot | None = None
        todo = deque(actions)
        while todo:
            do, slot, ticket = todo.popleft()
            if do is Do.GRANT and slot is not None and ticket is not None:
                if ticket is mine:
                    granted = slot
                    continue
                future = cast("asyncio.Future[Slot]", ticket.tenant)
                if future.done():  # cancelled, and does not know it yet
                    now = self.loop.time()
                    todo += self.slots.give_back(slot, now, alone=ticket.alone, unused=True) or ()
                else:
                    future.set_result(slot)
            elif do is Do.FAIL and ticket is not None:
                future = cast("asyncio.Future[Slot]", ticket.tenant)
                if not future.done():
                    future.set_exception(self._why(closed=slot is None))
            elif do is Do.DROP and slot is not None:
                client_of(slot).dismiss()
            elif slot is not None:
                todo += self._begin(do, slot)
        self._set_timer()
        if self.slots.empty:
            self._emptied.set()
        return granted

    def closed_error(self) -> SMTPPoolError:
        """What whoever comes too late gets."""
        return SMTPPoolError(f"the pool is closed, and lends no connection to {self._name}", closed=True)

    def _why(self, closed: bool) -> BaseException:
        """Why there is no connection, in a new error for each who waits."""
        error = self._last_error
        if closed or error is None:
            return self.closed_error()
        try:
            anew = copy.copy(error)
        except Exception:  # the caller's own, from what traces, say, and of a class that cannot be copied
            return error
        anew.__cause__ = error.__cause__
        return anew

    def _begin(self, do: Do, slot: Slot) -> Iterable[Action]:
        """Begin what takes time. If even that fails, for want of memory say, no slot is lost over it."""
        work = _WORK[do](self, slot)
        try:
            task = self.loop.create_task(work)
        except Exception as error:
            work.close()
            return self._not_begun(do, slot, error)
        self._tasks.add(task)
        task.add_done_callback(partial(self._ended, slot))
        return ()

    def _not_begun(self, do: Do, slot: Slot, error: Exception) -> Iterable[Action]:
        now = self.loop.time()
        if do is Do.OPEN:
            self.failed += 1
            self._last_error = error
            return self.slots.failed(slot, now, hopeless=hopeless(error), crowded=False)
        client_of(slot).drop()
        return self.slots.lost(slot, now) if do is Do.CHECK else self.slots.closed(slot, now)

    def _ended(self, slot: Slot, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() and slot.state in (State.OPENING, State.CLOSING):
            self._carry_out(self.slots.closed(slot, self.loop.time()))  # before it had begun

    async def _open(self, slot: Slot) -> None:
        client = self._new_client()
        client.pace = self._pace
        slot.tenant = client
        try:
            connection = await client.open(self._trial)
        except BaseException as error:
            client.close()
            slot.tenant = None
            self.failed += 1
            failure: BaseException = error
            if isinstance(error, asyncio.CancelledError):
                failure = SMTPPoolError(
                    f"the pool was closed while it connected to {self._name}", closed=True
                )
            self._last_error = failure
            now, many = self.loop.time(), crowded(failure)
            self._carry_out(self.slots.failed(slot, now, hopeless=hopeless(failure), crowded=many))
            if not isinstance(error, Exception):
                raise
            return
        self.opened += 1
        self._last_error = None
        if self.lock_step:
            client.write_in_lock_step()
        connection.protocol.closed.add_done_callback(partial(_report_loss, weakref.ref(self), slot))
        slot.tenant = None  # so that the slots take it for a new one
        most = connection.session.extensions.limits.get("MAILMAX", math.inf)
        self._carry_out(self.slots.opened(slot, client, self.loop.time(), most))

    async def _check(self, slot: Slot) -> None:
        client = client_of(slot)
        answers = False
        try:
            answers = await client.answers()
        finally:
            if answers:
                if self.lock_step:
                    client.write_in_lock_step()  # decided while it was asked
                actions = self.slots.opened(slot, client, self.loop.time())
            else:
                client.close()
                actions = self.slots.lost(slot, self.loop.time())
            self._carry_out(actions)

    async def _leave(self, slot: Slot) -> None:
        try:
            await client_of(slot).leave()
        finally:
            self._carry_out(self.slots.closed(slot, self.loop.time()))

    # -- time --------------------------------------------------------------------------------

    def _set_timer(self) -> None:
        """See to it that `slots` looks again when something is due by itself."""
        if self.slots.empty:
            self._stop_timer()
        due = self.slots.due
        if due is None or self._fires <= due:
            return
        self._stop_timer()
        here: weakref.ref[Lender] = weakref.ref(self)
        with contextlib.suppress(MemoryError):  # whoever calls next sets it: no slot is lost over this
            self._timer = self.loop.call_at(due, _tick, here)
            self._fires = due

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._fires = None, math.inf

    def tick(self) -> None:
        """Time has passed. Called by itself."""
        self._timer, self._fires = None, math.inf
        self._carry_out(self.slots.tick(self.loop.time()))

    def lost(self, slot: Slot) -> None:
        """A connection is gone. Called by itself."""
        self._carry_out(self.slots.lost(slot, self.loop.time()))

    # -- the end -----------------------------------------------------------------------------

    async def close(self, timeout: float | None) -> None:
        """Close everything; what is under way has so many seconds to end."""
        self._emptied.clear()
        try:
            self._carry_out(self.slots.close(self.loop.time()))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._emptied.wait()
        finally:
            self.drop_all()
        with contextlib.suppress(TimeoutError):  # a caller's own iterator may wait for ever
            async with asyncio.timeout(LINGER):
                await self._emptied.wait()

    def drop_all(self) -> None:
        """Close every connection at once."""
        for task in self._tasks:
            task.cancel()
        for slot in self.slots.all:
            if slot.tenant is not None:
                client_of(slot).drop()
        self._stop_timer()

    @property
    def connected(self) -> list[PooledSMTP]:
        """The clients that are connected now."""
        tenants = [slot.tenant for slot in self.slots.all]
        return [tenant for tenant in tenants if isinstance(tenant, PooledSMTP) and tenant.is_connected]


_WORK = {Do.OPEN: Lender._open, Do.CHECK: Lender._check, Do.CLOSE: Lender._leave}
"""What takes time."""


def client_of(slot: Slot) -> PooledSMTP:
    """The client that lives there."""
    client: PooledSMTP = slot.tenant  # no cast(): this is called for each message, several times
    return client


def _usable(slot: Slot, idle: float) -> bool:
    try:
        usable: bool = slot.tenant.usable(idle)
        return usable
    except Exception:  # what cannot even be looked at is of no use, and no slot is lost over it
        return False


def _tick(lender: weakref.ref[Lender]) -> None:
    if (there := lender()) is not None:
        there.tick()


def _report_loss(lender: weakref.ref[Lender], slot: Slot, closed: object) -> None:
    if (there := lender()) is not None:
        there.lost(slot)
