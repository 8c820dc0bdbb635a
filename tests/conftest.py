"""What every test stands on: three event loops, and nothing left behind.

`@pytest.mark.each_loop` (or `pytestmark = pytest.mark.each_loop` for a file) runs an
asynchronous test, with its fixtures, once on asyncio's loop, once on the same in debug mode and
once on uvloop. With `both_loops`, for what takes long in debug mode, it is the first and the last.
Every other asynchronous test runs on asyncio's. `LOOPS=uvloop` in the environment leaves the others out.

After each test nothing of it may be left: no task, no thread, no open socket, no unclosed thing
that warns when it is collected, and no exception that nobody looked at. Nor may it have let out a
secret: `eavesdropper` listens to each of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib.util
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator

import eavesdropper
import pytest

from aiosmtpclient.chunking import VERDICTS

Factory = Callable[[], asyncio.AbstractEventLoop]

PATIENCE = 2.0
"""Seconds in which what is about to end may end by itself."""
RUNNER_THREAD = "aiosmtpclient-loop"
"""The one thread that outlives a test on purpose, with its loop's wake-up sockets."""


# The loops


class DebugLoop(asyncio.SelectorEventLoop):
    """asyncio's loop in debug mode, whatever the runner around it says."""

    def set_debug(self, enabled: bool) -> None:
        super().set_debug(True)


def loop_factories() -> dict[str, Factory]:
    """Name → factory, of every loop that is to be had here."""
    factories: dict[str, Factory] = {"asyncio": asyncio.new_event_loop, "debug": DebugLoop}
    if importlib.util.find_spec("uvloop") is not None:
        import uvloop

        factories["uvloop"] = uvloop.new_event_loop
    return factories


def pytest_configure(config: pytest.Config) -> None:
    # A shell that runs us in the background has Ctrl-C ignored, and so would have whoever we start.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "each_loop: run on asyncio, on asyncio in debug mode and on uvloop")
    config.addinivalue_line("markers", "both_loops: the same without debug mode, for what takes long there")
    if not config.pluginmanager.is_registered(eavesdropper):
        config.pluginmanager.register(eavesdropper, "eavesdropper")


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Factory]:
    factories = loop_factories()
    everywhere = item.get_closest_marker("each_loop") is not None
    if not everywhere:
        del factories["debug"]
    if not (everywhere or item.get_closest_marker("both_loops") is not None):
        factories.pop("uvloop", None)
    wanted = os.environ.get("LOOPS", "").split(",")
    return {name: factories[name] for name in wanted if name in factories} or factories


# Nothing is known from the test before


@pytest.fixture(autouse=True)
def nothing_is_known_about_servers() -> None:
    """A port is used again and again, each time by another server."""
    VERDICTS.forget()


# Nothing is left behind


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Right behind the one that looks at everything else: torn down after the test's own fixtures,
    # and before the runner, which would cancel the tasks and so hide them.
    for item in items:
        names: list[str] = getattr(item, "fixturenames", [])
        if item.get_closest_marker("asyncio") is not None and "no_task_is_left" not in names:
            names.insert(names.index("nothing_is_left") + 1, "no_task_is_left")


def pytest_collection_finish() -> None:
    # What is here now stays: not walking through it again makes a collection after each test cheap.
    gc.collect()
    gc.freeze()


@pytest.fixture
async def no_task_is_left() -> AsyncIterator[None]:
    """Fail a test that leaves tasks behind."""
    yield
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:
        _, left = await asyncio.wait(left, timeout=PATIENCE)
    assert not left, f"tasks left behind: {left}"


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Fail a test that leaves threads, sockets, unclosed things or unseen exceptions behind."""
    threads, sockets = set(threading.enumerate()), open_sockets()
    with asyncio_errors() as errors:
        yield
        gc.collect()  # what is unclosed warns now, and a warning is an error
        gc.freeze()  # what is still here stays, so that collections do not take longer and longer
    started = [thread for thread in threading.enumerate() if thread not in threads]
    left = [thread for thread in started if still_there(thread)]
    assert not left, f"threads left behind: {left}"
    with_runner = any(thread.name == RUNNER_THREAD for thread in started)
    open_still = new_sockets(sockets, with_runner)
    assert not open_still, f"sockets left open: {open_still}"
    assert not errors, f"asyncio complained: {errors}"


def still_there(thread: threading.Thread) -> bool:
    """True for a thread that keeps the process alive, once it had its time to end."""
    if thread.daemon or thread.name.startswith(("asyncio_", "ThreadPoolExecutor")):
        return False
    thread.join(PATIENCE)
    return thread.is_alive()


def open_sockets() -> set[str]:
    """The sockets of this process, as Linux names them; elsewhere nobody can tell."""
    links = set()
    with contextlib.suppress(FileNotFoundError):
        for number in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):  # the listing's own descriptor is closed by now
                links.add(os.readlink(f"/proc/self/fd/{number}"))
    return {link for link in links if link.startswith("socket:")}


def new_sockets(before: set[str], with_runner: bool) -> list[str]:
    """Those that are new and stay: a server in a thread may need a moment to close its own."""
    deadline = time.monotonic() + PATIENCE
    while True:
        left = [describe(link) for link in open_sockets() - before]
        # The runner's loop wakes itself through a pair of nameless local sockets.
        left = [what for what in left if what and not (with_runner and what == "a local pair")]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.01)


def describe(link: str) -> str:
    """What kind of socket this is, between whom; empty if it is gone."""
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{number}") == link:
                with socket.socket(fileno=os.dup(int(number))) as one:
                    names = [_name(one.getsockname), _name(one.getpeername)]
                    pair = one.family == socket.AF_UNIX and not any(names)
                    return "a local pair" if pair else f"{names[0]} → {names[1]}"
    return ""


def _name(ask: Callable[[], object]) -> object:
    try:
        return ask()
    except OSError:
        return "nobody"


class _Errors(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


@contextlib.contextmanager
def asyncio_errors() -> Iterator[list[str]]:
    """What asyncio logs as an error: exceptions that were never retrieved, or raised in a callback."""
    handler = _Errors()
    logging.getLogger("asyncio").addHandler(handler)
    try:
        yield handler.texts
    finally:
        logging.getLogger("asyncio").removeHandler(handler)
