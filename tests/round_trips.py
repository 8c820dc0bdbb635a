"""A server that counts round trips without a clock: it answers only who has stopped talking.

A round trip is what a client cannot avoid by talking on. So no reply leaves before the client
has gone quiet: the loop came round many times, everything there was to read was read, and
nothing more came. Then all that is owed leaves at once, and counts as one round trip. The server
lives in the client's own loop, where what one side writes is there to be read in the next turn,
so a client that has anything left to write has written it by then. (Only content that is read in
a thread may come later: that is no content to count with.)
"""

from __future__ import annotations

import asyncio
from typing import Any

from aiosmtpclient.testing import MailServer
from aiosmtpclient.testing.transactions import MailConnection

QUIET = 30
"""Turns of the loop without an octet, after which a client is taken to wait."""


class PatientConnection(MailConnection):
    """A connection whose replies wait until the client does."""

    owner: RoundTrips

    def __init__(self, owner: RoundTrips) -> None:
        super().__init__(owner)
        self._held: list[bytes] = []
        self._turns = 0
        self._listening = False

    def data_received(self, data: bytes) -> None:
        """The client still talks."""
        self._turns = 0
        super().data_received(data)

    async def push(self, status: str | bytes) -> None:
        """Hold a reply back."""
        self._held.append((status if isinstance(status, bytes) else status.encode()) + b"\r\n")
        self._turns = 0
        if not self._listening:
            self._listening = True
            self.owner.listen(self._listen)
        if self._held[-1].startswith(b"221"):
            self._release()  # who closes has no time to wait

    def _listen(self) -> None:
        self._turns += 1
        if self._turns > QUIET:
            self._listening = False
            self._release()
        else:
            self.owner.listen(self._listen)

    def _release(self) -> None:
        if self._held and not self._writer.is_closing():
            self.owner.trips += 1
            self._writer.write(b"".join(self._held))
        self._held.clear()


class RoundTrips(MailServer):
    """A `MailServer` whose replies leave only when the client has gone quiet.

    Attributes:
        trips: how often it had to answer before the client went on.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.trips = 0

    def make_connection(self) -> PatientConnection:
        return PatientConnection(self)

    def listen(self, again: Any) -> None:
        """Call this in the next turn of the loop."""
        asyncio.get_running_loop().call_soon(again)
