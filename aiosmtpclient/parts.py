"""Parts: a message to more recipients than the server takes in one transaction.

How many that are, LIMITS says before (RFC 9422 section 4: RCPTMAX recipients, RCPTDOMAINMAX
different domains), or a `452 4.5.3` to RCPT says when it is too late; then those whom it refused
go into a further transaction (RFC 5321 section 4.5.3.1.10). The same octets leave each time.

=================================================  =============================================
what a part ends with                              the recipients that are left
=================================================  =============================================
somebody was accepted                              go into the next part
everybody in it was refused, by RCPT               go into the next part
MAIL or the content was refused, or a 421 came     are refused with that reply: it is the message's
the connection was lost, a cancellation            are not sent; the error passes through
=================================================  =============================================

Rules of this room:

* Nobody is named again who was accepted, or refused for another reason. An address that was asked
  for twice is named once: in two transactions it would get the message twice.
* A part that nobody was accepted in brings nobody back, and any other settles at least one
  recipient, so there are never more parts than recipients.
* What is learnt from a refusal is how many were accepted before: the parts to come are no larger.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .delivery import Ledger
from .envelopes import Transaction
from .errors import Delivery, SMTPDataError, SMTPException, SMTPRecipientsRefused, SMTPSenderRefused
from .replies import Reply

USUAL = 100
"""Recipients that every server takes (RFC 5321 section 4.5.3.1.8).

A `452 4.5.3` to fewer is about these recipients, their domains say, and nothing to be remembered."""
_TOO_MANY = (4, 5, 3)

REFUSALS = (SMTPRecipientsRefused, SMTPSenderRefused, SMTPDataError)
"""What a part may end with without ending the others."""


class Division:
    """Which recipients go into which transaction.

    Args:
        paths: all recipients of the message.
        positions: those that are to be sent to.
        most: recipients that a transaction may have; None for any number.
        most_domains: different domains that it may have.

    Attributes:
        learnt: how many recipients a transaction may have, if the server showed it.
    """

    def __init__(
        self,
        paths: Sequence[bytes],
        positions: Iterable[int],
        most: int | None = None,
        most_domains: int | None = None,
    ) -> None:
        self._paths = paths
        self._most = most
        self._most_domains = most_domains
        twins: dict[bytes, list[int]] = {}
        for position in positions:
            twins.setdefault(_mailbox(paths[position]), []).append(position)
        self._twins = {first: others for first, *others in twins.values()}
        # The next one is the last: what comes back is put behind it.
        self._left = [*self._twins]
        if most_domains is not None:
            first: dict[bytes, int] = {}
            for position in self._left:
                first.setdefault(_domain(paths[position]), position)
            self._left.sort(key=lambda position: (first[_domain(paths[position])], position))
        self._left.reverse()
        self.learnt: int | None = None

    @property
    def left(self) -> Sequence[int]:
        """The recipients that are in no transaction yet."""
        return [one for first in reversed(self._left) for one in (first, *self._twins[first])]

    def next(self) -> list[int]:
        """The recipients of the next transaction; none if all are done."""
        part: list[int] = []
        domains: set[bytes] = set()
        while self._left and len(part) != self._most:
            domain = _domain(self._paths[self._left[-1]]) if self._most_domains is not None else b""
            if domain not in domains and len(domains) == self._most_domains:
                break
            domains.add(domain)
            part.append(self._left.pop())
        return part

    def settle(self, part: Sequence[int], account: Ledger) -> None:
        """Write down for those who were asked for again what is known about them."""
        for position in part:
            if others := self._twins[position]:
                account.same(position, others)

    def judge(self, part: Sequence[int], account: Ledger, refusal: SMTPException | None) -> Reply | None:
        """Learn from what came of a part.

        Args:
            part: its recipients.
            account: what became of them.
            refusal: what it ended with, if not well.

        Returns:
            The reply that refuses all who are left.
        """
        if refusal is not None:
            return _for_all(refusal)
        again = over_limit(account)
        if accepted := len(account.accepted):
            self._left += [part[place] for place in reversed(again)]
            if again:
                self.learnt = self._most = min(accepted, self._most or accepted)
        return None


def division(transaction: Transaction, learnt: int | None) -> Division | None:
    """How to send a message to a server that has limits; None if it may leave as it is.

    Args:
        transaction: for everybody.
        learnt: how many recipients the server took at a time.

    Raises:
        SMTPRecipientsRefused: all or nothing was asked for, and all are too many.
    """
    limits = transaction.extensions.limits if transaction.extensions.limited else {}
    most, most_domains = limits.get("RCPTMAX"), limits.get("RCPTDOMAINMAX")
    if learnt is not None and not transaction.all_or_nothing:
        most = min(learnt, most or learnt)
    paths = transaction.prepared.recipients.paths
    domains = len({_domain(path) for path in paths}) if most_domains is not None else 0
    if (most is None or len(paths) <= most) and (most_domains is None or domains <= most_domains):
        return None
    if transaction.all_or_nothing:
        # What the server would say to the first that is too many, only not that it will pass.
        text = f"5.5.3 all_or_nothing with {len(paths)} recipients, and the server takes {_words(limits)}"
        transaction.ledger.decide_open(Reply(550, text.encode()))
        raise SMTPRecipientsRefused(transaction.ledger.refused)
    return Division(paths, range(len(paths)), most, most_domains)


def rest(transaction: Transaction) -> Division:
    """Those who were too many in a transaction, to be sent to in the next."""
    account, paths = transaction.ledger, transaction.prepared.recipients.paths
    most = len(account.accepted)
    accepted: dict[bytes, int] = {}
    for position, outcome in enumerate(account.outcomes):
        if outcome.delivery is Delivery.ACCEPTED:
            accepted.setdefault(_mailbox(paths[position]), position)
    left = []
    for position in over_limit(account):
        if (twin := accepted.get(_mailbox(paths[position]))) is None:
            left.append(position)
        else:
            account.same(twin, [position])
    further = Division(paths, left, most)
    further.learnt = most
    return further


def over_limit(account: Ledger) -> list[int]:
    """Who was refused because there were too many before, and only for that."""
    return [
        position
        for position, outcome in enumerate(account.outcomes)
        if outcome.reply is not None
        and outcome.reply.code == 452
        and outcome.reply.enhanced_code == _TOO_MANY
    ]


def _for_all(refusal: SMTPException) -> Reply | None:
    if isinstance(refusal, SMTPSenderRefused | SMTPDataError):
        return refusal.reply
    if isinstance(refusal, SMTPRecipientsRefused):
        return next((reply for reply in refusal.recipients.values() if reply.code == 421), None)
    return None


def _mailbox(path: bytes) -> bytes:
    """The same for the same mailbox: a domain may be written in any case, a local part may not."""
    local, at, domain = path.rpartition(b"@")
    return local + at + domain.lower() if at else path


def _domain(path: bytes) -> bytes:
    return path.rpartition(b"@")[2].lower()


def _words(limits: dict[str, int]) -> str:
    return ", ".join(f"{name}={limit}" for name, limit in limits.items() if name.startswith("RCPT"))
