"""The counter: a client of the package on one side, a strict server on the other, no time between.

Rules of this room:

* One virtual loop serves every run, and is thrown away when something is stuck in it.
* After each run nothing may be left: no task, no timer, no open connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import traceback
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from sweeps.cable import Line
from sweeps.clock import Stuck, VirtualLoop
from sweeps.trial import left_behind

from aiosmtpclient import SMTPException, Timeouts
from aiosmtpclient.chunking import VERDICTS

from .strict import Strict

T = TypeVar("T")

TIMEOUTS = Timeouts(connect=3.0, reply=5.0, write=7.0, final=11.0)
DOCUMENTED = (SMTPException, ValueError, TypeError)
"""What may be raised where a caller gave something."""


class _Loop(VirtualLoop):
    """No TLS is to be had here: each handshake fails."""

    async def start_tls(self, *args: Any, **options: Any) -> Any:
        await asyncio.sleep(0)
        raise ssl.SSLError(1, "[SSL] no handshake here")


_loop: VirtualLoop | None = None


class Counter:
    """Makes connections to servers.

    Args:
        open_for: makes the server of each connection, in order; the last serves all that follow.
        cut: cuts what is said.

    Attributes:
        servers: one a connection.
        lines: the cables to them.
    """

    def __init__(
        self,
        *open_for: Callable[[], Strict],
        cut: Callable[[bytes], Sequence[bytes]] = lambda octets: [octets],
    ) -> None:
        self._open_for = open_for
        self._cut = cut
        self.servers: list[Strict] = []
        self.lines: list[Line] = []

    def connect(self, factory: Callable[[], Any]) -> tuple[Any, Any]:
        """A connection; the greeting comes in a turn of its own."""
        loop = the_loop()
        server = self._open_for[min(len(self.servers), len(self._open_for) - 1)]()
        line = Line(loop)
        self.servers.append(server)
        self.lines.append(line)
        line.reader = lambda octets: self._say(line, server, server.hear(octets))
        protocol = factory()
        line.end.protocol = protocol
        protocol.connection_made(line.end)
        loop.call_soon(lambda: self._say(line, server, server.greeting()))
        return line.end, protocol

    def _say(self, line: Line, server: Strict, octets: bytes) -> None:
        for piece in self._cut(octets) if octets else ():
            line.say(piece)
        if server.closed:
            line.finish("close")

    @property
    def wrong(self) -> list[str]:
        """What no client may write, on any connection."""
        return [text for server in self.servers for text in server.wrong]


def the_loop() -> VirtualLoop:
    """The loop."""
    global _loop
    if _loop is None or _loop.is_closed():
        _loop = _Loop()
    return _loop


def close() -> None:
    """Nothing more is played."""
    global _loop
    loop, _loop = _loop, None
    if loop is None or loop.is_closed():
        return
    for task in asyncio.all_tasks(loop):
        task.cancel()
        with contextlib.suppress(BaseException):
            loop.wind()
            loop.run_until_complete(task)
    loop.close()


def play(counter: Counter, conversation: Awaitable[T]) -> T:
    """Carry a conversation out, and see that nothing is left of it."""
    VERDICTS.forget()
    loop = the_loop()
    loop.network = counter
    loop.wind()
    complaints: list[str] = []
    loop.set_exception_handler(lambda loop, context: complaints.append(_described(context)))
    try:
        result = loop.run_until_complete(conversation)
    except Stuck as stuck:
        _hang_up(counter)
        raise AssertionError(f"hang: {stuck}") from stuck
    except BaseException as error:
        _hang_up(counter)
        assert not counter.wrong, counter.wrong
        raise error
    assert not complaints, complaints[0]
    left = left_behind(loop) + [f"open: {line.state}" for line in counter.lines if not line.end.gone]
    if left:
        close()
        raise AssertionError(f"left behind: {left}")
    return result


def _hang_up(counter: Counter) -> None:
    """Nothing of a run that failed goes on."""
    loop = the_loop()
    loop.wind()
    for line in counter.lines:
        line.finish("reset")
    with contextlib.suppress(Exception):
        loop.run_until_complete(settle())
    close()


def _described(context: dict[str, Any]) -> str:
    """What asyncio complains about: an exception in a callback, or one that nobody looked at."""
    error = context.get("exception")
    trace = "".join(traceback.format_exception(error)) if error is not None else ""
    return f"{context.get('message')}\n{trace}"


async def settle() -> None:
    """Let everything happen that can happen at once."""
    for _ in range(4):
        await asyncio.sleep(0)


def documented(error: BaseException) -> bool:
    """True for what may be raised; a codec's error is a ValueError, but not one of ours."""
    return isinstance(error, DOCUMENTED) and not isinstance(error, UnicodeError)
