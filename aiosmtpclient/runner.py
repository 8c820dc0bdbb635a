"""The blocking side's event loop: one thread, one loop a process, and `run_sync` to use it.

The thread is started by the first `run_sync` and ends with the interpreter. It is a daemon, so
that a program which forgets about us can end.

Rules of this room:

* Nothing starts at import. What the standard library is told here (an exit handler, a fork
  handler) costs nothing until the thread exists.
* Whatever interrupts the waiting, Ctrl-C or a time limit, cancels the task, and its end is
  waited for: when the caller goes on, nothing of his is running any more.
* What is known about a delivery is handed on: the exception that interrupted a send has its
  `delivery` and `outcomes`.
* Until the interpreter has run its exit handlers everything works; after that nothing hangs.
* A loop does not survive a fork: its thread is the parent's, and its selector is shared with the
  parent. A child never touches it, and starts its own.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import inspect
import os
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar, cast

from .delivery import SendResult
from .errors import Delivery, SMTPTimeoutError

T = TypeVar("T")

THREAD_NAME = "aiosmtpclient-loop"
GRACE = 5.0
"""Seconds a cancelled task gets to end; one that takes longer is left behind."""

_OWN_THREAD = "this is the event loop's own thread, which cannot wait for itself: use await"
_TOO_LATE = (
    "the interpreter is at its end, and no event loop can be started any more: send before that; "
    "in exit handlers that were registered behind the first call, the loop still runs"
)


def _at_exit() -> bool:
    """The program has ended, and its exit handlers run."""
    return not threading.main_thread().is_alive()


class LoopThread:
    """A loop, and the thread that runs it.

    Args:
        factory: makes the loop.
    """

    def __init__(self, factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self.loop = factory()
        self.thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
        try:
            self.thread.start()
        except RuntimeError as error:  # CPython 3.12 begins no thread in exit handlers any more
            self.loop.close()
            raise RuntimeError(_TOO_LATE if _at_exit() else str(error)) from error

    def _run(self) -> None:
        try:
            self.loop.run_forever()
            self.loop.run_until_complete(self._wind_up())
        finally:
            self.loop.close()

    async def _wind_up(self) -> None:
        """End what still runs or is open, so that nothing is destroyed in the middle of something."""
        for farewell in _farewells:
            await farewell()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=GRACE)
        await self.loop.shutdown_asyncgens()

    def do_without_threads(self) -> None:
        """The interpreter exits, and begins no thread any more: what would run in one runs in the loop's own.

        Looking up a name is one such thing, so that nothing could be sent by an exit handler.
        """
        with contextlib.suppress(AttributeError):  # uvloop's cannot be changed, and looks up names by itself
            # For this loop alone; the types of typeshed cannot be written down here.
            self.loop.run_in_executor = self._run_here  # type: ignore[method-assign,assignment]  # see above

    def _run_here(
        self, executor: object, function: Callable[..., T], *arguments: object
    ) -> asyncio.Future[T]:
        future: asyncio.Future[T] = self.loop.create_future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future

    def end(self) -> None:
        """Stop the loop and wait for its thread."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(2 * GRACE)


_lock = threading.RLock()  # a signal handler may come in while this very thread has it
_current: LoopThread | None = None
_factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
_farewells: list[Callable[[], Awaitable[None]]] = []
_inherited: list[LoopThread] = []
"""The parents' loops. Collected they would be closed, and with them what the parents wait for."""


def configure(loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Choose the kind of event loop: `configure(uvloop.new_event_loop)`, say.

    Args:
        loop_factory: called once, when the loop is first needed.

    Raises:
        RuntimeError: the loop is running already.
    """
    global _factory
    with _lock:
        if _current is not None:
            raise RuntimeError("the event loop is running already: configure it before it is first used")
        _factory = loop_factory


def before_end(farewell: Callable[[], Awaitable[None]]) -> None:
    """Have this awaited on the loop before it ends."""
    _farewells.append(farewell)


def stop() -> None:
    """End the loop and its thread, if they run; connections on it are lost.

    What still runs there is cancelled. The next `run_sync` starts anew. At interpreter exit this
    happens by itself.

    Raises:
        RuntimeError: called in the loop's own thread.
    """
    global _current
    with _lock:
        _refuse_own_thread()
        ending, _current = _current, None
    if ending is not None:
        ending.end()


def _refuse_own_thread() -> None:
    if _current is not None and _current.thread is threading.current_thread():
        raise RuntimeError(_OWN_THREAD)


def _the_loop() -> LoopThread:
    """The loop, which is started if need be; the caller has the lock."""
    global _current
    if sys.is_finalizing():
        raise RuntimeError(_TOO_LATE)
    here = _current
    if here is None:
        here = LoopThread(_factory)
        if (faster := _from_a_signal_handler()) is not None:
            here.end()
            return faster
        _current = here
    return here


def _from_a_signal_handler() -> LoopThread | None:
    """The loop that was started while another was being made, by a handler in this very thread."""
    return _current


def _in_child() -> None:
    """After a fork: there is one thread, and no loop; a lock may be held by a thread that is not here."""
    global _lock, _current
    _lock = threading.RLock()
    if _current is not None:
        _inherited.append(_current)
        _current = None


atexit.register(stop)
with contextlib.suppress(AttributeError):  # Windows knows no fork
    os.register_at_fork(after_in_child=_in_child)


class _Call(Generic[T]):
    """One awaitable on its way through the loop.

    Attributes:
        ended: set when it has a result or an error.
        result: what it returned, if it returned.
        error: what it raised, if it raised.
    """

    def __init__(self, awaitable: Awaitable[T]) -> None:
        self.ended = threading.Event()
        self.result: T | None = None
        self.error: BaseException | None = None
        self._awaitable = awaitable
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Hand it to the loop, which is started if need be."""
        with _lock:  # under the lock: a loop that is being stopped takes nothing more
            _refuse_own_thread()
            here = _the_loop()
            if _at_exit():
                here.do_without_threads()
            self._loop = here.loop
            self._loop.call_soon_threadsafe(self._begin, self._loop)

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self._task = loop.create_task(self._settle())
        self._task.add_done_callback(self._end)

    async def _settle(self) -> None:
        try:
            self.result = await self._awaitable
        except BaseException as error:  # SystemExit too: it is the caller's, not the loop's
            self.error = error

    def _end(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():  # before its first step: nothing was awaited
            self.error = asyncio.CancelledError()
            self.forget()
        self.ended.set()

    def forget(self) -> None:
        """Close a coroutine that was never awaited, which would complain about it."""
        if inspect.iscoroutine(self._awaitable):
            self._awaitable.close()

    def cancel(self) -> None:
        """Cancel it, and wait until it has ended, or for so long as it may take."""
        if self._loop is None:
            self.forget()
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed, so it has ended
            self._loop.call_soon_threadsafe(self._cancel)
        self.ended.wait(GRACE)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def outcome(self) -> T:
        """Return the result or raise the error."""
        if self.error is None:
            return cast(T, self.result)
        try:
            raise self.error
        finally:
            self.error = None  # it has us in its traceback: no cycle, so that all is freed at once
            del self

    def hand_on(self, interruption: BaseException) -> None:
        """Write what is known about a delivery on what interrupted it."""
        known: object = self.error if self.error is not None else self.result
        delivery = Delivery.ACCEPTED if isinstance(known, SendResult) else getattr(known, "delivery", None)
        if isinstance(delivery, Delivery):
            # Any exception has room for attributes, only no type says so.
            interruption.delivery = delivery  # type: ignore[attr-defined]  # see above
            interruption.outcomes = getattr(known, "outcomes", ())  # type: ignore[attr-defined]  # likewise
        self.error = None


def run_sync(awaitable: Awaitable[T], timeout: float | None = None) -> T:
    """Run an awaitable on the blocking side's event loop, and wait for it.

    It may be called from any thread but the loop's own, also where another event loop is running,
    which it blocks.

    Args:
        awaitable: a coroutine, or anything else that can be awaited on that loop.
        timeout: seconds to wait; None waits for ever. A result that came in time is returned
            even if it is learnt late.

    Returns:
        What the awaitable returns.

    Raises:
        SMTPTimeoutError: it took longer, and was cancelled. In a send, `.delivery` says what is known.
        RuntimeError: called in the loop's own thread, or when the interpreter is all but gone.
        BaseException: whatever the awaitable raises, or interrupts the waiting (Ctrl-C): then it
            was cancelled, and a connection that was in the middle of something is closed.
    """
    call = _Call(awaitable)
    try:
        call.start()
        in_time = call.ended.wait(timeout)
    except BaseException as interruption:
        call.cancel()
        call.hand_on(interruption)
        raise
    try:
        return call.outcome() if in_time else _too_late(call, timeout)
    finally:
        del call


def _too_late(call: _Call[T], timeout: float | None) -> T:
    call.cancel()
    if call.ended.is_set() and not isinstance(call.error, asyncio.CancelledError):
        return call.outcome()  # it was on its way: a verdict must not be lost, or a message is sent twice
    error = SMTPTimeoutError(f"not done within {timeout} s, and cancelled", phase="run_sync")
    call.hand_on(error)
    raise error
