"""Blows: the n-th call that the client makes of its transport, its loop or `ssl` fails.

Only calls from our own rooms are counted, for what asyncio calls of itself is its own affair; of
`ssl`, whose objects asyncio works, every call on the client's side. What a call raises is what it
could raise: a transport whose handle or loop is gone a `RuntimeError`, a system call an `OSError`,
a handshake an `ssl.SSLError`, and whatever takes memory a `MemoryError`.

Rules of this room:

* A blow falls once. Before it and after it everything is right.
* "late" means that the call does its work and fails then, so that nobody may believe it did nothing.
* What would mean that nothing can be closed any more (a `close` that does nothing) is not played.
"""

from __future__ import annotations

import contextlib
import errno
import ssl
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple
from unittest import mock

MARK = "a blow"
"""In the text of what is raised."""

_NOT_OURS = ("aiosmtpclient.testing",)


def _no_memory() -> Exception:
    return MemoryError(MARK)


def _gone() -> Exception:
    return RuntimeError(f"Event loop is closed: {MARK}")


def _no_thread() -> Exception:
    return RuntimeError(f"can't start new thread: {MARK}")


def _no_file() -> Exception:
    return OSError(errno.EMFILE, f"Too many open files: {MARK}")


def _bad_tls() -> Exception:
    error = ssl.SSLError(1, f"[SSL: INTERNAL_ERROR] {MARK}")
    error.reason = "INTERNAL_ERROR"
    return error


class Way(NamedTuple):
    """How a call fails.

    Attributes:
        raises: what it raises.
        late: it does its work first.
    """

    raises: Callable[[], Exception]
    late: bool = False


WAYS: dict[str, tuple[Way, ...]] = {
    "write": (Way(_no_memory), Way(_gone), Way(_no_memory, True), Way(_gone, True)),
    "close": (Way(_gone, True),),
    "abort": (Way(_gone, True),),
    "set_write_buffer_limits": (Way(_no_memory),),
    "get_write_buffer_size": (Way(_no_memory),),
    "get_extra_info": (Way(_no_memory),),
    "is_closing": (Way(_no_memory),),
    "call_soon": (Way(_no_memory),),
    "call_at": (Way(_no_memory),),
    "call_later": (Way(_no_memory),),
    "create_future": (Way(_no_memory),),
    "create_task": (Way(_no_memory),),
    "run_in_executor": (Way(_no_thread),),
    "create_connection": (Way(_no_file), Way(_no_memory)),
    "start_tls": (Way(_no_file), Way(_bad_tls), Way(_no_memory)),
    "do_handshake": (Way(_bad_tls), Way(_no_memory)),
    "read": (Way(_bad_tls), Way(_no_memory)),
    "unwrap": (Way(_bad_tls), Way(_no_memory)),
    "getpeercert": (Way(_no_memory),),
    "version": (Way(_no_memory),),
    "context": (Way(_bad_tls), Way(_no_memory)),
}
TRANSPORT = ("write", "close", "abort", "set_write_buffer_limits", "get_write_buffer_size", "get_extra_info")
TRANSPORT = (*TRANSPORT, "is_closing")
LOOP = ("call_soon", "call_at", "call_later", "create_future", "create_task", "create_connection")
OF_SSL = ("do_handshake", "read", "unwrap", "getpeercert", "version")


@dataclass(frozen=True)
class Blow:
    """Where and how it falls.

    Attributes:
        nth: on which of the calls, counted from 1; 0 for none.
        way: which of the ways in which that call may fail; taken in turn if there are fewer.
    """

    nth: int = 0
    way: int = 0


class Anvil:
    """Counts the calls, and lets one of them fail.

    Attributes:
        calls: how many there were so far.
        struck: the call that failed.
        raised: what it raised.
        by_name: how often each was called.
        resting: nothing is counted now.
    """

    def __init__(self, blow: Blow) -> None:
        self.calls = 0
        self.struck = ""
        self.raised: Exception | None = None
        self.by_name: Counter[str] = Counter()
        self.resting = False
        self._blow = blow

    def way(self, name: str) -> Way | None:
        """How this call is to fail, if it is."""
        if self.resting:
            return None
        self.calls += 1
        self.by_name[name] += 1
        if self.calls != self._blow.nth:
            return None
        ways = WAYS[name]
        self.struck = name
        way = ways[self._blow.way % len(ways)]
        self.raised = way.raises()
        return way

    def shows_as_it_is(self, error: BaseException | None) -> bool:
        """A lack of memory or of threads is the machine's, and no error of mail: it passes through."""
        return MARK in str(error) and (isinstance(error, MemoryError) or "thread" in str(error))

    def fall(self) -> Exception:
        """What is raised, once."""
        assert self.raised is not None
        return self.raised


def most_ways() -> int:
    """In how many ways a call may fail at most."""
    return max(len(ways) for ways in WAYS.values())


def _ours(method: str) -> bool:
    """One of our rooms calls this method, by its name: a future that is set calls the loop on its own."""
    frame = sys._getframe(2)
    name = str(frame.f_globals.get("__name__", ""))
    ours = name.startswith("aiosmtpclient.") and not name.startswith(_NOT_OURS)
    return ours and method in frame.f_code.co_names


def _wrapped(anvil: Anvil, name: str, method: Any, *, every: bool, lost: Callable[[Any, Any], None]) -> Any:
    def call(self: Any, *arguments: Any, **options: Any) -> Any:
        counted = not self.server_side if every else _ours(name)
        way = anvil.way(name) if counted else None
        if way is None:
            return method(self, *arguments, **options)
        if way.late:
            method(self, *arguments, **options)
        elif name == "write":
            lost(self, arguments[0])
        raise anvil.fall()

    return call


def _nothing(transport: Any, octets: Any) -> None:
    """Nobody has to be told."""


@contextlib.contextmanager
def falling(
    anvil: Anvil,
    owners: Iterable[tuple[Any, Iterable[str]]],
    *,
    of_ssl: bool = False,
    lost: Callable[[Any, Any], None] = _nothing,
) -> Iterator[None]:
    """Let the calls of these methods count.

    Args:
        owners: classes, and the names of their methods.
        of_ssl: count those of `ssl`, too.
        lost: told what was to be written by a call that fails: nobody can prove that it did not leave.
    """
    with contextlib.ExitStack() as stack:
        for owner, names in owners:
            for name in names:
                wrapped = _wrapped(anvil, name, getattr(owner, name), every=False, lost=lost)
                stack.enter_context(mock.patch.object(owner, name, wrapped))
        for name in OF_SSL if of_ssl else ():
            wrapped = _wrapped(anvil, name, getattr(ssl.SSLObject, name), every=True, lost=lost)
            stack.enter_context(mock.patch.object(ssl.SSLObject, name, wrapped))
        yield
