"""Reading: where a loop puts what it reads, which makes more of a difference than it should.

For a `Protocol` asyncio's own loop reads into fresh 256 KiB each time, which costs system calls for
memory until the process has once freed a larger block: 23 % of the CPU for a small message (CPython
3.11). So there the connections of a loop share one buffer, for nothing stays in it between two calls.
uvloop does that by itself, and a `BufferedProtocol` would only be called twice as often.
"""

from __future__ import annotations

import asyncio
import weakref

from .protocol import SMTPProtocol
from .session import Session
from .timeouts import Timeouts

_BUFFER = 64 * 1024
_buffers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, memoryview] = weakref.WeakKeyDictionary()


def protocol_for(
    session: Session, loop: asyncio.AbstractEventLoop, timeouts: Timeouts | None = None
) -> SMTPProtocol:
    """A protocol of the kind that suits this loop; arguments as for `SMTPProtocol`."""
    kind = SMTPBufferedProtocol if isinstance(loop, asyncio.BaseEventLoop) else SMTPProtocol
    return kind(session, loop, timeouts)


class SMTPBufferedProtocol(SMTPProtocol, asyncio.BufferedProtocol):
    """The same as `SMTPProtocol`, with a buffer."""

    def __init__(
        self, session: Session, loop: asyncio.AbstractEventLoop, timeouts: Timeouts | None = None
    ) -> None:
        super().__init__(session, loop, timeouts)
        self._buffer = _buffer_of(loop)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the loop may read to."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """The loop has read so much."""
        self.data_received(self._buffer[:nbytes].tobytes())


def _buffer_of(loop: asyncio.AbstractEventLoop) -> memoryview:
    """One a loop and not one for all: loops in other threads may read at the same moment."""
    buffer = _buffers.get(loop)
    if buffer is None:
        buffer = _buffers[loop] = memoryview(bytearray(_BUFFER))
    return buffer
