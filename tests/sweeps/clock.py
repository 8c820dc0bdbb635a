"""An event loop whose time passes when nothing else happens.

A timeout of ten minutes takes no time: when nobody is ready to run, the clock jumps to the next
timer. Nothing is skipped, and the order is that of asyncio's own loop, for it is that loop; only
where it would sleep it does not.

Rules of this room:

* `VirtualLoop` has no sockets: connections are made by its `network`. What would run in a thread
  runs at once. TLS is asyncio's own, on top of what the network made.
* `HastyLoop` has real sockets, on loopback. The clock jumps only after a moment in which the
  kernel had nothing to say.
* Who waits for something that cannot come is `Stuck`, at once. So is who never stops.
"""

from __future__ import annotations

import asyncio
import selectors
import ssl as tls
from asyncio import sslproto
from collections.abc import Callable
from typing import Any, Protocol

MOST_TURNS = 60_000
"""Turns of the loop in one trial; none of a few messages takes a tenth of that."""
MOMENT = 0.002
"""Seconds in which what was sent over loopback is there."""


class Stuck(Exception):
    """Nothing can happen any more, or it never ends."""


class Network(Protocol):
    """Whatever makes connections."""

    def connect(self, factory: Callable[[], asyncio.BaseProtocol]) -> tuple[Any, Any]: ...


class _Sleepless(selectors.BaseSelector):
    """What a loop sleeps in; this one does not."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        self._loop.turn(timeout)
        return []

    def register(self, fileobj: Any, events: int, data: Any = None) -> Any:
        raise AssertionError("a real socket in virtual time")

    def unregister(self, fileobj: Any) -> Any:
        raise AssertionError("a real socket in virtual time")

    def get_map(self) -> Any:
        return {}


class VirtualLoop(asyncio.BaseEventLoop):
    """No sockets, and no time but that which timers ask for.

    Attributes:
        network: makes the connections.
        turns: how often the loop came round since the last `wind`.
        alarm: called when it has come round so many times.
    """

    def __init__(self) -> None:
        super().__init__()
        self._selector = _Sleepless(self)
        self._clock_resolution = 1e-6
        self._now = 0.0
        self.turns = 0
        self.network: Network | None = None
        self.alarm: tuple[int, Callable[[], None]] | None = None

    def time(self) -> float:
        return self._now

    def wind(self) -> None:
        """Begin to count turns anew."""
        self.turns = 0
        self.alarm = None

    def turn(self, timeout: float | None) -> None:
        """The loop came round, and would wait for so long."""
        self.turns += 1
        if self.alarm is not None and self.turns >= self.alarm[0]:
            _, call = self.alarm
            self.alarm = None
            self.call_soon(call)
            return
        if timeout is None:
            raise Stuck("everybody waits, and nothing will come")
        if self.turns > MOST_TURNS:
            raise Stuck(f"more than {MOST_TURNS} turns of the loop")
        self._now += timeout

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody sleeps, so nobody has to be woken."""

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        """Run it here and now."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    async def create_connection(
        self,
        protocol_factory: Any,
        *args: Any,
        ssl: tls.SSLContext | None = None,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        **options: Any,
    ) -> Any:
        """Let the network make it. Who is cancelled has it closed, as by asyncio's own loop."""
        await asyncio.sleep(0)
        if self.network is None:
            raise ConnectionRefusedError("no network")
        if ssl is None:
            transport, protocol = self.network.connect(protocol_factory)
            ready: Any = asyncio.sleep(0)
        else:
            protocol, ready = protocol_factory(), self.create_future()
            patience = {"ssl_handshake_timeout": ssl_handshake_timeout}
            layer = sslproto.SSLProtocol(self, protocol, ssl, ready, False, server_hostname, **patience)
            transport = layer._app_transport
            self.network.connect(lambda: layer)
        try:
            await ready
        except BaseException:
            transport.close()
            raise
        return transport, protocol

    def timers(self) -> list[asyncio.TimerHandle]:
        """Those that are still to go off."""
        return [timer for timer in self._scheduled if not timer.cancelled()]


class _Hasty(selectors.DefaultSelector):  # type: ignore[valid-type,misc]  # chosen by the system
    """Looks at the sockets, and lets the clock jump if there is nothing to see."""

    loop: HastyLoop

    def select(self, timeout: float | None = None) -> list[Any]:
        self.loop.turns += 1
        if self.loop.turns > MOST_TURNS:
            raise Stuck(f"more than {MOST_TURNS} turns of the loop")
        if timeout is None or timeout <= 0:
            # Threads are waited for, so for ever is for ever; a test's own limit ends that.
            return super().select(timeout)
        moment = self.loop.moment
        events = super().select(min(timeout, moment))
        if not events and timeout > moment:
            self.loop.ahead += timeout
        return events


class HastyLoop(asyncio.SelectorEventLoop):
    """Real sockets, and a clock that jumps when they are silent.

    Args:
        moment: seconds after which silence is believed; longer where threads have something to do.

    Attributes:
        ahead: how many seconds the clock is ahead of the machine's.
        turns: how often the loop came round since the last `wind`.
    """

    def __init__(self, moment: float = MOMENT) -> None:
        self.moment = moment
        self.ahead = 0.0
        self.turns = 0
        selector = _Hasty()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return super().time() + self.ahead

    def wind(self) -> None:
        """Begin to count turns anew."""
        self.turns = 0

    def timers(self) -> list[asyncio.TimerHandle]:
        """Those that are still to go off."""
        return [timer for timer in self._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]
