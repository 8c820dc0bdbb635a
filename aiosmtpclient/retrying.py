"""Retrying: which failures may be tried again, and when.

==================================================  =============================================
what is known                                       what is done
==================================================  =============================================
ACCEPTED by anybody                                 never again
UNKNOWN                                             only with `retry_unknown`
NOT_SENT, the connection had been used before       again at once: it had gone stale
NOT_SENT otherwise                                  again, `not_sent` times
REFUSED, "too many" in answer to MAIL               again, later and later
REFUSED for now (4yz)                               again, `refused` times, later and later
REFUSED for good, cannot be sent, wrong input       never again
==================================================  =============================================

Rules of this room:

* "Too many" is about us, not about the message: 421, 432, 454 4.7.0 and 4.7.x, to the greeting,
  AUTH or MAIL (RFC 5321 section 3.8, RFC 4954 section 6, RFC 3463 section 3.8).
* What is tried again is the message as a whole, so nothing is where somebody got it already.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import NamedTuple

from .errors import (
    Delivery,
    RecipientOutcome,
    SMTPDataError,
    SMTPException,
    SMTPPoolError,
    SMTPRecipientsRefused,
    SMTPResponseException,
    SMTPSenderRefused,
    SMTPServerDisconnected,
)
from .replies import Reply

LONGEST = 60.0
"""Seconds between two attempts at most."""
CROWDS = 10
"""So often "too many" is believed to end soon."""
STALE = 10
"""So many connections in a row that had gone stale are no reason to give up."""


class Retries(NamedTuple):
    """How often a pool tries again by itself.

    Attributes:
        not_sent: further attempts at what was certainly not sent.
        refused: further attempts at what was refused for now, as a whole (4yz).
        delay: seconds before what was refused is tried again; doubled each time.
    """

    not_sent: int = 2
    refused: int = 0
    delay: float = 1.0

    @classmethod
    def of(cls, retries: Retries | int) -> Retries:
        """Understand a number of further attempts at what was not sent.

        Raises:
            ValueError: it is negative.
        """
        made = retries if isinstance(retries, Retries) else cls(retries)
        if made.not_sent < 0 or made.refused < 0 or made.delay < 0:
            raise ValueError(f"not a number of further attempts: {retries!r}")
        return made


def crowded(error: BaseException) -> bool:
    """True if a server says that there are too many of us, or that we are too fast.

    What it says to a recipient or to content is about the message, unless it takes its leave.
    """
    if isinstance(error, SMTPResponseException):
        reply = error.reply
        about_us = not isinstance(error, SMTPDataError)
    else:
        reply = error.last_reply if isinstance(error, SMTPServerDisconnected) else None
        about_us = False
    return reply is not None and (reply.code == 421 or (about_us and _too_many(reply)))


def _too_many(reply: Reply) -> bool:
    if reply.code in (421, 432):
        return True
    enhanced = reply.enhanced_code
    return reply.temporary and enhanced is not None and enhanced[:2] == (4, 7)


def hopeless(error: BaseException) -> bool:
    """True if another attempt to connect would end in the same way."""
    return not (isinstance(error, SMTPException) and (error.temporary or crowded(error)))


class Course:
    """What was tried with one message so far.

    Args:
        retries: how often it may be.
        unknown: what may have been sent is tried again too.
        chance: a number from 0 to 1, for jitter.
    """

    __slots__ = ("_chance", "_crowds", "_not_sent", "_refused", "_retries", "_stale", "_unknown")

    def __init__(
        self, retries: Retries, *, unknown: bool = False, chance: Callable[[], float] = random.random
    ) -> None:
        self._retries = retries
        self._unknown = unknown
        self._chance = chance
        self._not_sent = self._refused = self._crowds = self._stale = 0

    def pause(
        self,
        error: Exception,
        delivery: Delivery,
        outcomes: Iterable[RecipientOutcome],
        *,
        used: bool,
    ) -> float | None:
        """Seconds until the next attempt; None if there is to be none.

        Args:
            error: what the last one ended with.
            delivery: what is known of the message after it.
            outcomes: the same for each recipient.
            used: the connection had carried messages before.
        """
        if not isinstance(error, SMTPException) or isinstance(error, SMTPPoolError):
            return None
        if any(outcome.delivery is Delivery.ACCEPTED for outcome in outcomes):
            return None
        if delivery is Delivery.REFUSED:
            return self._after_refusal(error)
        if (delivery is Delivery.UNKNOWN and not self._unknown) or error.permanent:
            return None
        if delivery is Delivery.NOT_SENT and used and isinstance(error, SMTPServerDisconnected):
            self._stale += 1
            return 0.0 if self._stale <= STALE else None
        self._not_sent += 1
        return 0.0 if self._not_sent <= self._retries.not_sent else None

    def _after_refusal(self, error: SMTPException) -> float | None:
        if isinstance(error, SMTPSenderRefused) and crowded(error):
            self._crowds += 1
            return self._later(0.5, self._crowds) if self._crowds <= CROWDS else None
        if not _for_now(error):
            return None
        self._refused += 1
        return (
            self._later(self._retries.delay, self._refused)
            if self._refused <= self._retries.refused
            else None
        )

    def _later(self, first: float, times: int) -> float:
        return float(min(LONGEST, first * 2 ** (times - 1)) * (0.5 + self._chance() / 2))


def _for_now(error: SMTPException) -> bool:
    """True if everybody was refused only for now: the message goes to all of them again."""
    if isinstance(error, SMTPRecipientsRefused):
        return all(reply.temporary for reply in error.recipients.values())
    return error.temporary
