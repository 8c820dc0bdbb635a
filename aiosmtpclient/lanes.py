"""Lanes: how each worker of a run through a pool goes from one message to the next.

Whoever sends many messages mostly has the next one at hand when the last is accepted, and the
connection is there already. So a lane keeps it and begins a plain message there and then, as long as
nobody else waits for one, and it waits for nothing itself: the next message, or room for an outcome.
Everything else goes the way of a single message: what cannot be begun at once, and what was begun and
came to anything but "everybody was accepted".

Rules of this room:

* A lane that has nothing to send holds no connection.
* A connection is kept only where giving it back and taking it again would change nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from email.message import Message
from functools import partial
from typing import Protocol

from .delivery import Outcome, SendResult
from .errors import Delivery
from .express import Begun
from .lending import Lender, client_of
from .message import Envelope
from .parcels import Parcel, account
from .slots import Slot


class Send(Protocol):
    """Sends a message through a pool, or goes on with what was begun."""

    def __call__(
        self, parcel: Parcel, slot: Slot | None = None, begun: Begun | None = None
    ) -> Awaitable[SendResult]:
        """Send it.

        Args:
            parcel: the message.
            slot: the connection that it has already.
            begun: what was begun there.
        """
        raise NotImplementedError


class Lane:
    """One worker's way.

    Args:
        lender: lends connections.
        send: sends whatever a lane does not.
        count: called for each message that was accepted here.
    """

    __slots__ = ("_count", "_lender", "_send", "_slot")

    def __init__(self, lender: Lender, send: Send, count: Callable[[], None]) -> None:
        self._lender = lender
        self._send = send
        self._count = count
        self._slot: Slot | None = None

    async def carry(self, index: int, message: Message | Envelope) -> Outcome:
        """Send one message; whatever comes of it, a cancellation excepted, is its outcome."""
        parcel: Parcel | None = None
        slot: Slot | None = None
        begun: Begun | None = None
        try:
            parcel = Parcel.of(message)
            if (slot := self._next_slot()) is not None:
                begun = client_of(slot).begin(parcel)
            if begun is not None and await begun.accepted():
                ledger = parcel.ledger
                result = SendResult(ledger, parcel.envelope)
                outcome = Outcome(index, message, Delivery.ACCEPTED, result, None, 1, ledger.carrier)
                self._count()
                return outcome
        except Exception:  # what is wrong is met again below, where it is said and what was begun is judged
            parcel = parcel if begun is not None else None
        if begun is None:
            self.rest(unused=True)
            slot = None
        self._slot = None
        return await account(index, message, partial(self._send, slot=slot, begun=begun), parcel=parcel)

    def _next_slot(self) -> Slot | None:
        """A connection, if there is one for the next message at once."""
        slot = self._slot
        if slot is not None:
            if self._lender.keep(slot):
                return slot
            self.rest()
        self._slot = slot = self._lender.take(alone=False)
        return slot

    def rest(self, *, unused: bool = False) -> None:
        """There is nothing to send for now; or not here, where nothing was begun."""
        slot, self._slot = self._slot, None
        if slot is not None:
            self._lender.give_back(slot, alone=False, unused=unused)
