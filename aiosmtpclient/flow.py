"""Flow: messages of a run through a pool that follow one another on a connection.

Whoever sends many messages mostly has the next one at hand when the last was accepted, and the
connection is there already. So the next one is begun right there, by what reads the replies, without
waking up the task that waits for them. It is woken when the flow ends: there is no message at hand or
no room for an outcome, somebody else waits for a connection, or something has happened. What cannot be
begun at once, and what was begun and came to anything but "everybody was accepted", then goes the way
of a single message.

Rules of this room:

* A flow that has nothing to send ends, and holds no connection.
* A connection is kept only where giving it back and taking it again would change nothing. Where its end
  may have been read together with the reply (inside TLS), that is looked at first.
* At every moment it is known whether a message was begun, and whether its outcome was laid down: so
  whatever fails in between, it has one outcome, and is sent once.
* The caller's own iterable is asked in the context of the run's task, though not from within it.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from email.message import Message
from functools import partial
from typing import ParamSpec, Protocol

from . import express
from .bulk import Desk
from .connection import Connection
from .delivery import Journal, Outcome, SendResult, Tally, accepted_by_all
from .errors import Delivery
from .express import Begun, Terms
from .lending import Lender, client_of
from .message import Envelope
from .parcels import Parcel, account
from .plain import Octets, Plain
from .slots import Slot
from .turn import Lease

P = ParamSpec("P")


class Send(Protocol):
    """Sends a message through a pool, or judges what was begun."""

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


async def carry(
    lender: Lender,
    send: Send,
    tally: Tally,
    journal: Journal | None,
    desk: Desk[Message | Envelope],
    index: int,
    message: Message | Envelope,
) -> Outcome | None:
    """Send a message, and those behind it that are at hand.

    Args:
        lender: lends connections.
        send: sends what does not flow.
        tally: counts what `send` was not given.
        journal: told what leaves before it leaves, and what became of it.
        desk: where outcomes are laid down, and the next message is taken from.
        index: the message's position in the run.
        message: what was given.

    Returns:
        The outcome of the last of them; None if that lies on the desk too.
    """
    flow: Flow | None = None
    failure: BaseException | None = None
    try:
        try:
            flow = _flow(lender, tally, journal, desk, index, message)
            if flow is not None and flow.begin():
                await flow.over
        except BaseException as error:
            failure = error  # if it is the message's own, it is met again below, where it is said
        if flow is not None and flow.begun:
            judged = flow.judged(send, failure)
            return await judged if judged is not None else flow.given_up()
        parcel: Parcel | None = None
        done = False
        if isinstance(failure, Exception):
            failure = None
        if flow is not None:
            index, message, parcel, done = flow.index, flow.message, flow.parcel, flow.done_with
            failure = flow.unwritten or failure
            flow.leave()
        if failure is not None and not done:
            tally.failed[Delivery.NOT_SENT] += 1
            if journal is not None:
                journal.end(Outcome(index, message, Delivery.NOT_SENT, None, failure, 0))
        if failure is not None:
            raise failure
        return None if done else await account(index, message, send, journal, parcel)
    finally:
        # Not in this frame, which the traceback of an error has: no cycle.
        flow = failure = None


def _flow(
    lender: Lender,
    tally: Tally,
    journal: Journal | None,
    desk: Desk[Message | Envelope],
    index: int,
    message: Message | Envelope,
) -> Flow | None:
    """A flow over a connection that is free now, if there is one for plain messages."""
    slot = lender.take(alone=False)
    if slot is None:
        return None
    flow: Flow | None = None
    lease: Lease | None = None
    try:
        client = client_of(slot)
        connection, lease = client.connection, client.turn_at_once()
        if connection is not None and lease is not None:
            terms = client.terms(connection, of_many=True)
            if terms is not None:
                flow = Flow(slot, connection, terms, lease, lender, tally, journal, desk)
                flow.index, flow.message = index, message
    finally:
        if flow is None:
            if lease is not None:
                lease.give_back()
            lender.give_back(slot, alone=False, unused=True)
    return flow


class Flow(Plain):
    """Messages on their way over one connection, each behind the one before.

    Args:
        slot: the connection's place in the pool.
        connection: the connection.
        terms: what plain messages are to be like there.
        lease: the turn there.
        lender: who has lent it.
        tally: counts what was accepted.
        journal: told of each message.
        desk: where outcomes are laid down, and messages are taken from.

    Attributes:
        index, message: the newest message.
        parcel: the same, if it had to be looked at more closely.
        begun: its first octets have left, and it has no outcome yet.
        done_with: it has its outcome.
        unwritten: what the journal raised, which ends the run.
        over: completed when the flow has ended, or something has happened; no matter with what.
    """

    __slots__ = (
        "_at_once", "_connection", "_context", "_desk", "_envelope", "_journal", "_lease", "_lender", "_loop",
        "_session", "_slot", "_slots", "_tally", "_terms", "_unused", "begun", "done_with", "index",
        "message", "parcel", "unwritten",
    )  # fmt: skip

    over: asyncio.Future[bool]
    index: int
    message: Message | Envelope
    _envelope: Envelope  # what it says of itself when it was accepted

    def __init__(
        self,
        slot: Slot,
        connection: Connection,
        terms: Terms,
        lease: Lease,
        lender: Lender,
        tally: Tally,
        journal: Journal | None,
        desk: Desk[Message | Envelope],
    ) -> None:
        self._session = session = connection.session
        self._loop, self._slots = lender.loop, lender.slots
        super().__init__(self._loop.create_future(), session.secrets, chunked=terms.chunked)
        self._at_once = not session.encrypted  # else an end may have come with the reply
        self._slot = slot
        self._connection = connection
        self._terms = terms
        self._lease = lease
        self._lender = lender
        self._tally = tally
        self._journal = journal
        self._desk = desk
        self._context = contextvars.copy_context()
        self._unused = True  # the slot counts the newest message, even if that was not begun
        self.parcel: Parcel | None = None
        self.unwritten: BaseException | None = None
        self.begun = self.done_with = False

    def begin(self) -> bool:
        """Begin the first message, if it is plain and nothing has to be waited for; True if it was begun.

        Raises:
            TypeError, ValueError, SMTPNotSupportedError: it cannot be sent as it is.
        """
        return self._connection.free and not self._lender.lock_step and self._begin(self._loop.time())

    def _begin(self, now: float) -> bool:
        message, connection, terms = self.message, self._connection, self._terms
        octets: Octets | None = None
        if type(message) is Envelope and message.plain and type(content := message.content) is bytes:
            self._envelope = message
            octets = express.octets_of(message.sender, message.recipients, content, terms)
        if octets is None:
            self.parcel = parcel = Parcel.of(message)
            prepared = parcel.light(connection.session.extensions)
            if prepared is None or (octets := express.octets_of_prepared(prepared, terms)) is None:
                return False
            self._envelope = parcel.envelope
        first = self.start(octets)
        if self._journal is not None and not self._written(self._journal.begin, self.index, message):
            return False
        self.begun = True
        connection.protocol.begin(self, first, now)
        return True

    def accepted(self) -> None:
        """Everybody was accepted. Called by the protocol."""
        if self._at_once:
            self._context.run(self._go_on)
        else:
            self._loop.call_soon(self._go_on_later, context=self._context)

    def _go_on_later(self) -> None:
        if not self.over.done():  # else it was cancelled; who judges it sees that it was accepted
            self._go_on()

    def _go_on(self) -> None:
        """Lay the outcome down, and begin the next message, if it can be begun at once."""
        over, laid = self.over, False
        failure: BaseException | None = None
        try:
            reply, serial = self.replies[-1], self._connection.serial
            outcome = accepted_by_all(self.index, self.message, self._envelope, reply, serial)
            if self._journal is None or self._written(self._journal.end, outcome):
                self._desk.lay(outcome)
            self.done_with = laid = True
            self.begun, self.parcel = False, None
            self._tally.accepted += 1
            if self.unwritten is None and (taken := self._desk.take()) is not None:
                self.index, self.message = taken
                self.done_with = False
                now = self._loop.time()
                self._unused = (
                    not over.done()
                    and not self._lender.lock_step
                    and self._session.still_free()
                    and self._slots.keep(self._slot, now)
                )
                if self._unused and self._begin(now):
                    return
        except Exception as error:
            # What is wrong with a message that was not begun is met again below, where it is said.
            failure = error if laid and self.begun else None
        except BaseException as error:
            failure = error
        if over.done():
            return
        if failure is None:
            over.set_result(False)
        else:
            over.set_exception(failure)

    def _written(self, tell: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> bool:
        """Tell the journal. What that raises ends the run."""
        try:
            tell(*args, **kwargs)
        except BaseException as error:
            self.unwritten = error
        return self.unwritten is None

    # -- how it ends ---------------------------------------------------------------------------

    def leave(self) -> None:
        """Nothing is under way: give the connection back."""
        self._lease.give_back()
        unused = self._unused and not (self.begun or self.done_with)
        self._lender.give_back(self._slot, alone=False, unused=unused)

    def judged(self, send: Send, failure: BaseException | None) -> Awaitable[Outcome] | None:
        """Let what was begun be judged, which takes the connection over; None if that cannot be done."""
        try:
            parcel = self.parcel or Parcel.of(self.message)
            begun = Begun(self._connection, self, failure, self._lease)
            judge = partial(send, slot=self._slot, begun=begun)
            return account(self.index, self.message, judge, self._journal, parcel)
        except Exception as error:
            self.unwritten = error
            return None

    def given_up(self) -> Outcome:
        """The outcome of a message that could not be judged: nobody is left to read what the server says."""
        delivery = Delivery.UNKNOWN if self.ended else Delivery.NOT_SENT
        if self.ended and not self.missing:
            delivery = Delivery.ACCEPTED
        serial, error = self._connection.serial, self.unwritten
        self._connection.drop()
        self.leave()
        self._tally.failed[delivery] += 1
        outcome = Outcome(self.index, self.message, delivery, None, error, 1, serial)
        if self._journal is not None:
            self._journal.end(outcome)
        return outcome
