"""The account of a message: what is known about each of its recipients.

`Ledger` is kept while one message is being sent. Whoever learns something writes it down at
once: the dialogue when a reply is in, the driver just before the end of the content is handed
to the transport. So whatever ends the send, a reply or a cancellation, the answer to "may this
be sent again?" is already there. `SendResult` and `Outcome` are what the caller gets.

Rules of this room:

* A recipient starts as NOT_SENT and is *open* until something decides about it.
* When the end of the content leaves, the open ones become UNKNOWN; only a reply changes that.
* One entry a position: an address asked for twice has two entries.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from .errors import Delivery, RecipientOutcome, SMTPException
from .replies import Reply

if TYPE_CHECKING:
    from .message import Body, Envelope


_NOBODY: frozenset[int] = frozenset()
_ACCEPTED = Delivery.ACCEPTED


class Ledger:
    """What is known about each recipient of one message, while it is being sent.

    Attributes:
        addresses: the recipients as the caller wrote them, by position.
        final: the reply to the end of the content, once it is in.
        as_a_whole: the account in one word where it is not that of the recipients: one refused
            all, or nobody but the caller knows who they are.
        carrier: serial number of the connection that carried it, once something was written.
    """

    # Defaults of the class: of most messages nothing more than the last reply is learnt.
    final: Reply | None = None
    as_a_whole: Delivery | None = None
    carrier: int | None = None
    _left = False
    _astray = _NOBODY

    def __init__(self, addresses: Iterable[str]) -> None:
        self.addresses = tuple(addresses)
        self._replies: list[Reply | None] = [None] * len(self.addresses)

    def begin(self, addresses: Iterable[str]) -> None:
        """Start over with these recipients: nothing is known about anybody."""
        self.addresses = tuple(addresses)
        self.carrier = None
        self.begin_again()

    def begin_again(self) -> None:
        """Start over on the same connection: the server has forgotten this message."""
        self.final = None
        self.as_a_whole = None
        self._left = False
        self._astray = _NOBODY
        self._replies = [None] * len(self.addresses)

    @property
    def open(self) -> list[int]:
        """Positions about which no reply has decided."""
        return [position for position, reply in enumerate(self._replies) if reply is None]

    def accept(self, final: Reply, each: Sequence[Reply] | None = None) -> Reply:
        """Write down that everybody was accepted; in LMTP, by `each` of these replies."""
        self._replies = list(each) if each is not None else [final] * len(self.addresses)
        self.final = final if each is None else each[0]
        return self.final

    def decide(self, position: int, reply: Reply) -> None:
        """Write down the reply that accepts (2yz) or refuses (4yz, 5yz) this recipient."""
        self._replies[position] = reply

    def decide_open(self, reply: Reply) -> None:
        """Write down the reply that decides about everybody who is still open."""
        if not self.addresses:
            self.as_a_whole = Delivery.ACCEPTED if reply.positive else Delivery.REFUSED
        self._replies = [reply if known is None else known for known in self._replies]

    def end_left(self) -> None:
        """The end of the content is about to be handed to the transport."""
        self._left = True
        if not self.addresses:
            self.as_a_whole = Delivery.UNKNOWN

    def absorb(self, positions: Sequence[int], part: Ledger) -> None:
        """Take over what a transaction of its own decided about some of the recipients.

        What it did not come to decide stays as it was.

        Args:
            positions: whose account it is, by position here.
            part: the account, by position there.
        """
        for position, reply in zip(positions, part._replies, strict=True):
            if reply is not None:
                self._replies[position] = reply
            elif part._left:
                self._replies[position] = None
                self._astray |= {position}
        self.final = self.final or part.final

    def same(self, position: int, others: Iterable[int]) -> None:
        """Write down for others what is known about one: they are the same recipient."""
        for other in others:
            self._replies[other] = self._replies[position]
            if position in self._astray:
                self._astray |= {other}

    @property
    def _deliveries(self) -> list[Delivery]:
        undecided = Delivery.UNKNOWN if self._left else Delivery.NOT_SENT
        known = [
            undecided if reply is None else Delivery.ACCEPTED if reply.positive else Delivery.REFUSED
            for reply in self._replies
        ]
        for position in self._astray:
            known[position] = Delivery.UNKNOWN
        return known

    @property
    def outcomes(self) -> tuple[RecipientOutcome, ...]:
        """The account so far, by position."""
        return tuple(map(RecipientOutcome, self.addresses, self._deliveries, self._replies))

    @property
    def delivery(self) -> Delivery:
        """The account in one word: the one that most forbids sending everything again.

        UNKNOWN if it is for anybody, else ACCEPTED if anybody was, else NOT_SENT if anybody was
        not refused, else REFUSED.
        """
        if self.as_a_whole is not None:
            return self.as_a_whole
        if not self.addresses:
            return Delivery.NOT_SENT
        order = (Delivery.UNKNOWN, Delivery.ACCEPTED, Delivery.NOT_SENT, Delivery.REFUSED)
        return min(self._deliveries, key=order.index)

    @property
    def refused(self) -> dict[str, Reply]:
        """Address → reply, of the refused."""
        return {
            address: reply
            for address, reply in zip(self.addresses, self._replies, strict=True)
            if reply is not None and reply.code >= 400
        }

    @property
    def accepted(self) -> tuple[str, ...]:
        """The addresses for which the server took responsibility, by position."""
        return tuple(
            address
            for address, reply in zip(self.addresses, self._replies, strict=True)
            if reply is not None and reply.code < 400
        )

    def stamp(self, error: BaseException) -> None:
        """Set `delivery` and `outcomes` on an error that passes through a send, whoever raised it."""
        with contextlib.suppress(AttributeError):  # an exception class with __slots__ and no room for us
            # Any other has room for attributes, only no type says so.
            error.delivery = self.delivery  # type: ignore[attr-defined]  # see above
            error.outcomes = self.outcomes  # type: ignore[attr-defined]  # likewise
        if isinstance(error, SMTPException):
            error.__notes__ = [error.advice]


@contextlib.contextmanager
def stamped(ledger: Ledger) -> Iterator[None]:
    """Write what is known about the delivery on whatever passes through, whoever raised it."""
    try:
        yield
    except BaseException as error:
        ledger.stamp(error)
        raise


class SendResult(dict[str, Reply]):
    """What became of a message that at least one recipient gets.

    A dict of the refused recipients, address → `Reply`, exactly as `smtplib` returns it: empty
    when everybody was accepted.

    Attributes:
        accepted: the addresses that the server took responsibility for, by position.
        reply: the reply to the end of the content, with the queue id the server gave. In LMTP
            the first that accepted.
        envelope: sender, recipients and content as they were asked for.
        outcomes: one `(address, delivery, reply)` a position, accepted or not.
    """

    __slots__ = ("_ledger", "envelope", "reply")

    reply: Reply
    envelope: Envelope

    def __init__(self, ledger: Ledger, envelope: Envelope) -> None:
        if ledger.final is None:
            raise AssertionError(ledger.outcomes)
        if ledger._replies.count(ledger.final) != len(ledger._replies):
            self.update(ledger.refused)
        self._ledger: Ledger | None = ledger  # nobody writes into it any more
        self.reply = ledger.final
        self.envelope = envelope

    @property
    def accepted(self) -> tuple[str, ...]:
        """The addresses that the server took responsibility for, by position."""
        return self._ledger.accepted if self._ledger is not None else self.envelope.recipients

    @property
    def outcomes(self) -> tuple[RecipientOutcome, ...]:
        """One `(address, delivery, reply)` a position, accepted or not."""
        if self._ledger is not None:
            return self._ledger.outcomes
        return tuple(
            RecipientOutcome(each, Delivery.ACCEPTED, self.reply) for each in self.envelope.recipients
        )

    def __repr__(self) -> str:
        return (
            f"<SendResult accepted={list(self.accepted)} refused={dict(self)} reply={self.reply.display!r}>"
        )


@dataclass(slots=True, unsafe_hash=True)
class Outcome:
    """What became of one message of many.

    Attributes:
        index: its position in what `send_messages` was given, from 0.
        message: the message or `Envelope` as it was given.
        delivery: what is known, in one word.
        result: the `SendResult` if anybody was accepted.
        error: the exception otherwise; its `outcomes` has the account of each recipient. A
            cancellation, if the run ended before the message did: only a `Journal` sees those.
        attempts: how many times it was started on a connection.
        connection: serial number, within this process, of the connection that carried it last.
    """

    index: int
    message: Body | Envelope
    delivery: Delivery
    result: SendResult | None = None
    error: BaseException | None = None
    attempts: int = 1
    connection: int | None = None

    @property
    def temporary(self) -> bool:
        """True if the same attempt may succeed later."""
        return isinstance(self.error, SMTPException) and self.error.temporary

    @property
    def permanent(self) -> bool:
        """True if the same attempt would fail again."""
        return isinstance(self.error, SMTPException) and self.error.permanent

    @property
    def outcomes(self) -> Sequence[RecipientOutcome]:
        """One `(address, delivery, reply)` a recipient, if it came to that."""
        return self.result.outcomes if self.result is not None else getattr(self.error, "outcomes", ())


_new_result: Callable[[type[SendResult]], SendResult] = SendResult.__new__
_new_outcome: Callable[[type[Outcome]], Outcome] = Outcome.__new__


def accepted_by_all(
    index: int, message: Body | Envelope, envelope: Envelope, reply: Reply, connection: int
) -> Outcome:
    """The outcome of a message that everybody gets; arguments as for `SendResult` and `Outcome`."""
    # By hand: this is made for nearly every message, and a constructor takes twice as long.
    result = _new_result(SendResult)
    result._ledger = None
    result.reply = reply
    result.envelope = envelope
    outcome = _new_outcome(Outcome)
    outcome.index = index
    outcome.message = message
    outcome.delivery = _ACCEPTED
    outcome.result = result
    outcome.error = None
    outcome.attempts = 1
    outcome.connection = connection
    return outcome


class Tally:
    """How many messages came to what.

    Attributes:
        accepted: by at least one recipient's account.
        failed: the others, by what is known of them.
        retried: attempts beyond the first.
    """

    __slots__ = ("accepted", "failed", "retried")

    def __init__(self) -> None:
        self.accepted = self.retried = 0
        self.failed: Counter[Delivery] = Counter()


class Journal(Protocol):
    """What `send_messages` tells somebody who writes down what happens, to the message.

    Both are called at once and are not waited for. What they raise ends the run.
    """

    def begin(self, index: int, message: Body | Envelope) -> None:
        """The next octet of this message is its first. Called again for another attempt."""

    def end(self, outcome: Outcome) -> None:
        """What became of it. Nothing else was begun on its connection since, unless that is a stream."""
