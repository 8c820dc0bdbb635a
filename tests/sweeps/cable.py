"""A cable without sockets: the client's transport, and the server's end of the line.

What is written is there to be read in the next turn of the loop, as over loopback. Between the
two are the kernels' buffers, which are small here, so that a server that does not read is soon
noticed.

Rules of this room:

* The transport does what asyncio's does: `write` after a reset is a silent no-op, `abort` forgets
  what did not leave, `connection_lost` comes in a turn of its own, and once.
* The line counts octets both ways, and can end the conversation at any of them (`Fault`).
* What was handed to the transport, and what was handed to the client, is written down: that is
  what an account is measured by.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

WINDOW = 32 * 1024
"""Octets that two kernels hold for a server that does not read."""
QUIET = 12
"""Turns of the loop without an octet, after which a client is taken to wait."""
LATE = 3
"""Turns of the loop in which a client does not see yet that the line is dead."""

END = "end"
RESET = "reset"


@dataclass(frozen=True)
class Fault:
    """How and where a line ends.

    Attributes:
        kind: "close", "reset", "half-close" or "stop"; with " late" behind it, seen late.
        received: after so many octets from the client.
        sent: after so many octets to it.
    """

    kind: str
    received: int | None = None
    sent: int | None = None


KINDS = ("close", "reset", "half-close", "stop", "close late", "reset late")


class Line:
    """The server's end.

    Args:
        loop: the loop both ends live on.
        fault: how it ends, if it does.
        cutting: how what the server says is cut: "" as it is said, "octets" one by one, "joined"
            together with all that is owed, or the octet behind which there is a pause.
        window: octets that the kernels hold.

    Attributes:
        written: what the client handed to its transport.
        spoken: what the server said, as far as it left.
        delivered: how many octets of that the client was handed.
        read: how many octets of the client the server took.
        moved: when an octet last moved, or the end was seen.
        state: "open", "silent" (reads, says nothing), "stopped" (neither), "closed" or "reset".
        surplus_at: what the client had written when it was handed a reply too many.
        reader: told what was read.
        balance: replies that were handed over, less the commands that were read.
    """

    def __init__(
        self, loop: Any, fault: Fault | None = None, cutting: str | int = "", window: int = WINDOW
    ) -> None:
        self.loop = loop
        self.fault = fault
        self.cutting = cutting
        self.window = window
        self.written = bytearray()
        self.spoken = bytearray()
        self.delivered = 0
        self.read = 0
        self.state = "open"
        self.moved = loop.time()
        self.end = ClientEnd(self)
        self.surplus_at: int | None = None
        self.ticking: asyncio.Handle | None = None
        self.reader: Callable[[bytes], None] = lambda octets: None
        self.balance: Callable[[], int] = lambda: 0
        self._kernel = bytearray()
        self._waking = False
        self._held = bytearray()
        self._quiet = 0

    # -- what the server does ----------------------------------------------------------

    def begin(self) -> None:
        """The connection stands."""
        if self.fault is not None and 0 in (self.fault.received, self.fault.sent):
            self.finish(self.fault.kind)

    def say(self, octets: bytes) -> None:
        """Send to the client."""
        if self.state != "open":
            return
        fault = self.fault
        if fault is not None and fault.sent is not None and len(self.spoken) + len(octets) >= fault.sent:
            octets = octets[: fault.sent - len(self.spoken)]
            self._send(octets)
            self.finish(fault.kind)
        else:
            self._send(octets)

    def _send(self, octets: bytes) -> None:
        start = len(self.spoken)
        self.spoken += octets
        if self.cutting == "octets":
            for number in range(len(octets)):
                self.end.arrive(octets[number : number + 1])
        elif self.cutting == "joined":
            if not self._held:
                self.loop.call_soon(self._listen)
            self._held += octets
            self._quiet = 0
        elif isinstance(self.cutting, int) and start < self.cutting < start + len(octets):
            self.end.arrive(octets[: self.cutting - start])
            self.end.arrive("pause")
            self.end.arrive(octets[self.cutting - start :])
        elif octets:
            self.end.arrive(octets)

    def _listen(self) -> None:
        """What is held leaves when the client has gone quiet."""
        self._quiet += 1
        if self._quiet <= QUIET:
            self.loop.call_soon(self._listen)
        else:
            self._release()

    def _release(self) -> None:
        if self._held:
            octets, self._held = bytes(self._held), bytearray()
            self.end.arrive(octets)

    def finish(self, kind: str) -> None:
        """End it."""
        kind, _, late = kind.partition(" ")
        if self.state in ("closed", "reset"):
            return
        self._release()
        if late:
            self.end.arrive("pause")
        if kind == "close":
            self.state = "closed"
            self.end.arrive(END)
        elif kind == "reset":
            self.state = "reset"
            self.end.arrive(RESET)
        elif kind == "half-close":
            self.state = "silent"
            self.end.arrive(END)
        elif kind == "stop":
            self.state = "stopped"
        else:
            raise AssertionError(kind)

    @property
    def refuses(self) -> bool:
        """A write fails at once, and the client can see it."""
        return self.state == "reset" and "late" not in (self.fault.kind if self.fault else "")

    # -- what comes from the client ------------------------------------------------------

    def take(self, octets: bytes) -> int:
        """As many of these as there is room for; how many that is."""
        if self.state in ("closed", "reset"):
            return len(octets)
        some = min(len(octets), self.window - len(self._kernel))
        self._kernel += octets[:some]
        self._wake()
        return some

    def look(self) -> None:
        """Something was handed over: was it more than is owed?"""
        unread = self._kernel or self.end.get_write_buffer_size()
        if self.surplus_at is None and not unread and self.balance() > 0:
            self.surplus_at = len(self.written)

    def _wake(self) -> None:
        if self._kernel and not self._waking:
            self._waking = True
            self.loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._waking = False
        if self.state not in ("open", "silent") or not self._kernel:
            return
        most, fault = len(self._kernel), self.fault
        if self.state == "open" and fault is not None and fault.received is not None:
            most = min(most, max(fault.received - self.read, 0))
        octets = bytes(self._kernel[:most])
        del self._kernel[:most]
        self.read += most
        self._quiet = 0
        if octets:
            self.moved = self.loop.time()
            self.reader(octets)
        due = fault is not None and fault.received is not None and self.read >= fault.received
        if due and fault is not None and self.state == "open":
            self.finish(fault.kind)
        self.end.room()
        self._wake()


class ClientEnd(asyncio.Transport):
    """The client's transport."""

    _start_tls_compatible = True

    def __init__(self, line: Line) -> None:
        super().__init__()
        self._line = line
        self._loop = line.loop
        self._buffer = bytearray()
        self._inbox: deque[bytes | str] = deque()
        self._reading = False
        self._held_up = False
        self._closing = False
        self._lost = False
        self._paused = False
        self._high, self._low = 65536, 16384
        self._pause = 0
        self.protocol: Any = None
        self.gone = False

    # -- what the line does --------------------------------------------------------------

    def connect(self, factory: Callable[[], Any], then: Callable[[], None]) -> Any:
        """Make a protocol for this end; the server begins in a turn of its own."""
        try:
            self.protocol = factory()
        except BaseException:
            self.gone = True  # the socket goes with whoever held it
            raise
        try:
            self.protocol.connection_made(self)
        except Exception as error:
            self._complain("protocol.connection_made() failed", error)
        self._loop.call_soon(then)
        return self.protocol

    def arrive(self, item: bytes | str) -> None:
        """Octets, or what ends them."""
        self._inbox.append(item)
        self._wake()

    def _wake(self) -> None:
        if self._inbox and not (self._reading or self._closing or self._held_up):
            self._reading = True
            self._loop.call_soon(self._read)

    def _read(self) -> None:
        self._reading = False
        if self._closing or self._held_up:
            return
        item = self._inbox[0]
        if item == "pause":
            self._pause += 1
            if self._pause > LATE:
                self._pause = 0
                self._inbox.popleft()
        else:
            self._inbox.popleft()
            self._line.moved = self._loop.time()
            self._hand_over(item)
        self._wake()

    def _hand_over(self, item: bytes | str) -> None:
        try:
            self._deliver(item)
        except Exception as error:  # a protocol that fails is cut off
            self._complain("protocol.data_received() call failed", error)
            self._force_close(error)

    def _complain(self, what: str, error: Exception) -> None:
        self._loop.call_exception_handler({"message": what, "exception": error})

    def _deliver(self, item: bytes | str) -> None:
        if item == END:
            if not self.protocol.eof_received():
                self.close()
        elif item == RESET:
            self._force_close(ConnectionResetError(104, "Connection reset by peer"))
        elif isinstance(item, bytes):
            while item:
                buffer = self.protocol.get_buffer(-1)
                some = min(len(buffer), len(item))
                buffer[:some] = item[:some]
                self._line.delivered += some
                if len(item) == some:
                    self._line.look()
                self.protocol.buffer_updated(some)
                item = item[some:]

    def room(self) -> None:
        """The server took something."""
        if not self._buffer:
            return
        some = self._line.take(bytes(self._buffer))
        del self._buffer[:some]
        if self._paused and len(self._buffer) <= self._low:
            self._paused = False
            try:
                self.protocol.resume_writing()
            except Exception as error:
                self._complain("protocol.resume_writing() failed", error)
        if self._closing and not self._buffer:
            self._lose(None)

    # -- what the protocol calls -----------------------------------------------------------

    def write(self, data: Any) -> None:
        if self._closing or not data:
            return
        octets = bytes(data)
        line = self._line
        line.written += octets
        if line.refuses:
            self._force_close(BrokenPipeError(32, "Broken pipe"))
            return
        some = 0 if self._buffer else line.take(octets)
        if some:
            line.moved = self._loop.time()
        self._buffer += octets[some:]
        if len(self._buffer) > self._high and not self._paused:
            self._paused = True
            try:
                self.protocol.pause_writing()
            except Exception as error:
                self._complain("protocol.pause_writing() failed", error)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = 65536 if high is None else high
        self._low = self._high // 4 if low is None else low

    def get_write_buffer_size(self) -> int:
        return len(self._buffer)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        known = {"sockname": ("127.0.0.1", 40000), "peername": ("127.0.0.1", 25), "line": self._line}
        return known.get(name, default)

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def get_protocol(self) -> Any:
        return self.protocol

    def pause_reading(self) -> None:
        self._held_up = True

    def resume_reading(self) -> None:
        self._held_up = False
        self._wake()

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            if not self._buffer:
                self._lose(None)

    def abort(self) -> None:
        self._force_close(None)

    def _force_close(self, error: Exception | None) -> None:
        self._buffer.clear()
        self._closing = True
        self._lose(error)

    def _lose(self, error: Exception | None) -> None:
        if not self._lost:
            self._lost = True
            self._loop.call_soon(self._tell, error)

    def _tell(self, error: Exception | None) -> None:
        self.gone = True
        if self._line.ticking is not None:
            self._line.ticking.cancel()
        self.protocol.connection_lost(error)
