"""The blocking side's event loop: what crosses to it, and what interrupts the waiting."""

import asyncio
import contextvars
import gc
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Awaitable, Callable, Generator, Iterator

import pytest

from aiosmtpclient import Delivery, RecipientOutcome, SMTPTimeoutError, run_sync, runner
from aiosmtpclient.errors import SMTPDataError


@pytest.fixture
def fresh() -> Iterator[None]:
    """No loop before, none afterwards, and the usual kind of loop again."""
    runner.stop()
    yield
    runner.stop()
    runner.configure(asyncio.new_event_loop)


async def running_loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def press_ctrl_c() -> None:
    """What the terminal does: a signal, and the main thread is who gets it."""
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


# -- crossing


def test_the_result_comes_back() -> None:
    async def answer() -> int:
        await asyncio.sleep(0)
        return 42

    assert run_sync(answer()) == 42


def test_the_error_comes_back() -> None:
    async def fail() -> None:
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        run_sync(fail())


class Answer:
    """Something to await that is no coroutine."""

    def __await__(self) -> Generator[None, None, str]:
        yield
        return "here"


def test_anything_that_can_be_awaited_will_do() -> None:
    assert run_sync(Answer()) == "here"


def test_a_coroutine_that_wants_to_exit_ends_its_caller_and_not_the_loop() -> None:
    async def leave() -> None:
        raise SystemExit(3)

    before = run_sync(running_loop())
    with pytest.raises(SystemExit):
        run_sync(leave())
    assert run_sync(running_loop()) is before


def test_the_callers_context_goes_along() -> None:
    name = contextvars.ContextVar("name", default="nobody")

    async def look() -> str:
        return name.get()

    name.set("somebody")
    assert run_sync(look()) == "somebody"


def test_it_can_be_used_inside_a_running_loop() -> None:
    async def outside() -> bool:
        return run_sync(running_loop()) is not asyncio.get_running_loop()

    assert asyncio.run(outside())


def test_its_own_thread_is_refused_instead_of_waiting_for_itself() -> None:
    async def inner() -> None:
        raise AssertionError("never awaited")

    async def outer() -> None:
        run_sync(inner())

    with pytest.raises(RuntimeError, match="own thread"):
        run_sync(outer())


def test_twenty_threads_share_one_loop() -> None:
    loops: set[asyncio.AbstractEventLoop] = set()
    together = threading.Barrier(20)

    def work() -> None:
        together.wait()
        loops.update(run_sync(running_loop()) for _ in range(20))

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loops == {run_sync(running_loop())}
    assert [thread.name for thread in threading.enumerate()].count("aiosmtpclient-loop") == 1


def test_a_failure_keeps_nothing_alive() -> None:
    class Marker:
        pass

    markers: list[weakref.ref[Marker]] = []

    async def fail() -> None:
        marker = Marker()
        markers.append(weakref.ref(marker))
        raise LookupError

    gc.disable()
    try:
        with pytest.raises(LookupError) as caught:
            run_sync(fail())
        del caught
        run_sync(running_loop())  # the loop has dropped the task
        assert markers[0]() is None
    finally:
        gc.enable()


# -- the thread


def run_script(script: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", *options, "-c", script],
        capture_output=True,
        text=True,
        check=False,
    )


def test_importing_starts_nothing() -> None:
    done = run_script("import aiosmtpclient, threading; print(threading.active_count())")
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_the_thread_has_a_name_and_keeps_no_process_alive() -> None:
    async def look() -> threading.Thread:
        return threading.current_thread()

    thread = run_sync(look())
    assert thread.name == "aiosmtpclient-loop"
    assert thread.daemon


def test_an_exit_with_something_pending_is_clean() -> None:
    done = run_script("""if True:
        import asyncio, sys
        from aiosmtpclient import run_sync
        kept = []
        async def forever():
            try:
                await asyncio.Event().wait()
            finally:
                print("ended")
        async def begin():
            kept.append(asyncio.ensure_future(forever()))
            await asyncio.sleep(0)
        run_sync(begin())
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ended\n", "")


@pytest.mark.usefixtures("fresh")
def test_the_kind_of_loop_can_be_chosen_until_it_runs() -> None:
    uvloop = pytest.importorskip("uvloop")
    runner.configure(uvloop.new_event_loop)
    assert isinstance(run_sync(running_loop()), uvloop.Loop)
    with pytest.raises(RuntimeError, match="before it is first used"):
        runner.configure(asyncio.new_event_loop)


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("make", [running_loop, Answer])
def test_a_loop_that_cannot_be_made_is_an_error_and_nothing_else(
    make: Callable[[], Awaitable[object]],
) -> None:
    def no_loop() -> asyncio.AbstractEventLoop:
        raise OSError("too many open files")

    runner.configure(no_loop)
    with pytest.raises(OSError, match="too many open files"):
        run_sync(make())


@pytest.mark.usefixtures("fresh")
def test_after_a_stop_it_starts_anew() -> None:
    first = run_sync(running_loop())
    runner.stop()
    assert first.is_closed()
    assert run_sync(running_loop()) is not first


@pytest.mark.usefixtures("fresh")
def test_a_stop_cancels_what_is_waited_for() -> None:
    begun = threading.Event()
    ended: list[type[BaseException]] = []

    async def wait() -> None:
        begun.set()
        await asyncio.Event().wait()

    def work() -> None:
        try:
            run_sync(wait())
        except BaseException as error:
            ended.append(type(error))

    thread = threading.Thread(target=work)
    thread.start()
    begun.wait()
    runner.stop()
    thread.join()
    assert ended == [asyncio.CancelledError]


def test_a_stop_in_its_own_thread_is_refused() -> None:
    async def stop() -> None:
        runner.stop()

    with pytest.raises(RuntimeError, match="own thread"):
        run_sync(stop())


# -- forks


def test_a_child_starts_a_loop_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    parents = run_sync(running_loop())
    monkeypatch.setattr(runner, "_current", runner._current)
    monkeypatch.setattr(runner, "_lock", runner._lock)
    with runner._lock:  # held by a thread that the child does not have
        runner._in_child()
        childs = run_sync(running_loop())
    assert childs is not parents
    runner.stop()
    assert not parents.is_closed()
    runner._in_child()  # nothing to forget: it had none


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_parent_and_child_both_go_on_after_a_fork() -> None:
    # Since 3.12 Python warns of any fork beside a thread.
    done = run_script(
        """if True:
        import os, sys
        from aiosmtpclient import run_sync
        async def answer(text):
            return text
        run_sync(answer(""))
        child = os.fork()
        print(run_sync(answer("parent" if child else "child")), flush=True)
        if child:
            os.waitpid(child, 0)
        """,
        "-W",
        "ignore::DeprecationWarning",
    )
    assert (sorted(done.stdout.split()), done.stderr) == (["child", "parent"], "")


# -- what interrupts the waiting


class Stalled:
    """A coroutine that waits for ever, and what it saw."""

    def __init__(self, then: Callable[[], object] = lambda: None) -> None:
        self.cancelled = False
        self.then = then

    async def wait(self, begin: Callable[[], None] = lambda: None) -> object:
        begin()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            return self.then()
        raise AssertionError("nobody sets it")


def raise_cancelled(**known: object) -> Callable[[], object]:
    def then() -> object:
        error = asyncio.CancelledError()
        for name, value in known.items():
            setattr(error, name, value)
        raise error

    return then


def test_ctrl_c_cancels_and_waits_for_the_end() -> None:
    stalled = Stalled(raise_cancelled())
    with pytest.raises(KeyboardInterrupt):
        run_sync(stalled.wait(press_ctrl_c))
    assert stalled.cancelled


def test_ctrl_c_knows_what_became_of_the_message() -> None:
    outcomes = (RecipientOutcome("a@b.test", Delivery.UNKNOWN, None),)
    stalled = Stalled(raise_cancelled(delivery=Delivery.UNKNOWN, outcomes=outcomes))
    with pytest.raises(KeyboardInterrupt) as caught:
        run_sync(stalled.wait(press_ctrl_c))
    assert (caught.value.delivery, caught.value.outcomes) == (Delivery.UNKNOWN, outcomes)  # type: ignore[attr-defined]


def test_ctrl_c_does_not_wait_for_ever_for_a_task_that_will_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "GRACE", 0.01)
    release = asyncio.Event()
    ended = threading.Event()

    async def stubborn() -> None:
        press_ctrl_c()
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        ended.set()

    with pytest.raises(KeyboardInterrupt):
        run_sync(stubborn())
    assert not ended.is_set()

    async def let_go() -> None:
        release.set()

    run_sync(let_go())
    assert ended.wait(10)


def test_a_time_limit_cancels() -> None:
    stalled = Stalled(raise_cancelled(delivery=Delivery.UNKNOWN))
    with pytest.raises(TimeoutError, match=r"not done within 0\.01 s") as caught:
        run_sync(stalled.wait(), timeout=0.01)
    assert isinstance(caught.value, SMTPTimeoutError)
    assert caught.value.delivery is Delivery.UNKNOWN
    assert stalled.cancelled


def test_a_time_limit_says_nothing_of_a_delivery_where_there_was_none() -> None:
    with pytest.raises(SMTPTimeoutError) as caught:
        run_sync(Stalled(raise_cancelled()).wait(), timeout=0.01)
    assert caught.value.delivery is Delivery.NOT_SENT


def test_a_result_that_was_on_its_way_is_not_lost_to_the_time_limit() -> None:
    assert run_sync(Stalled(lambda: "accepted").wait(), timeout=0.01) == "accepted"


def test_a_refusal_that_was_on_its_way_is_not_lost_to_the_time_limit() -> None:
    def refuse() -> object:
        raise SMTPDataError(554, b"no")

    with pytest.raises(SMTPDataError):
        run_sync(Stalled(refuse).wait(), timeout=0.01)


def test_what_is_cancelled_before_it_began_does_not_complain() -> None:
    """A coroutine that was never awaited would warn."""
    release = threading.Event()
    blocker = threading.Thread(target=run_sync, args=(hold(release),))
    blocker.start()
    call = runner._Call(running_loop())
    call.start()
    assert call._loop is not None
    call._loop.call_soon_threadsafe(call._cancel)
    release.set()
    assert call.ended.wait(10)
    with pytest.raises(asyncio.CancelledError):
        call.outcome()
    blocker.join()


async def hold(release: threading.Event) -> None:
    release.wait()


def test_a_cancellation_before_the_task_exists_has_nothing_to_cancel() -> None:
    call = runner._Call(Stalled().wait())
    call._cancel()
    call.forget()


@pytest.mark.usefixtures("fresh")
def test_what_a_stopped_loop_ran_has_ended() -> None:
    call = runner._Call(running_loop())
    call.start()
    assert call.ended.wait(10)
    runner.stop()
    call.cancel()
    assert call.outcome().is_closed()


# -- the end of the interpreter; as it is, it is in test_lifecycle_blocking


@pytest.mark.parametrize("at_exit", [False, True])
@pytest.mark.usefixtures("fresh")
def test_a_thread_that_cannot_be_begun_is_an_error_and_leaves_no_loop_open(
    at_exit: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[asyncio.AbstractEventLoop] = []

    def factory() -> asyncio.AbstractEventLoop:
        made.append(asyncio.new_event_loop())
        return made[-1]

    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    runner.configure(factory)
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    monkeypatch.setattr(runner, "_at_exit", lambda: at_exit)
    with pytest.raises(RuntimeError, match="at its end" if at_exit else "can't start new thread"):
        run_sync(running_loop())
    assert made[0].is_closed()
    assert runner._current is None


def test_when_the_interpreter_is_all_but_gone_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "is_finalizing", lambda: True)
    with pytest.raises(RuntimeError, match="at its end"):
        run_sync(running_loop())


@pytest.mark.usefixtures("fresh")
def test_at_exit_what_would_run_in_a_thread_runs_on_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_at_exit", lambda: True)

    def fail() -> None:
        raise LookupError("here")

    async def work() -> tuple[str, str]:
        name = await asyncio.to_thread(lambda: threading.current_thread().name)
        try:
            await asyncio.to_thread(fail)
        except LookupError as error:
            return name, str(error)
        raise AssertionError("it did not fail")

    assert run_sync(work()) == (runner.THREAD_NAME, "here")


@pytest.mark.usefixtures("fresh")
def test_at_exit_uvloop_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    uvloop = pytest.importorskip("uvloop")
    runner.configure(uvloop.new_event_loop)
    monkeypatch.setattr(runner, "_at_exit", lambda: True)
    assert isinstance(run_sync(running_loop()), uvloop.Loop)
