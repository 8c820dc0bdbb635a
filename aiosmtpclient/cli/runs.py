"""A bulk run: from letters to accounts, by way of a pool and, if there is one, a journal.

Rules of this room:

* The journal hears of everything before anybody else does: that a message is about to leave
  before it does, and its outcome before the next one leaves on that connection.
* Each letter that was taken gets an account, whatever ends the run. What was begun and has no
  outcome is unknown.
* Where no connection can be had nothing more is taken: a wrong password that is repeated gets
  accounts locked, and a server that is away is not asked a million times. So the first message
  goes ahead alone, until there is a connection for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from email.message import Message
from typing import TYPE_CHECKING, Protocol

from aiosmtpclient.delivery import Outcome
from aiosmtpclient.errors import Delivery, RecipientOutcome, SMTPException
from aiosmtpclient.message import Body, Envelope

from .account import Account
from .counting import Counts
from .exits import Exit, Failure
from .journal import Journal
from .letters import Letter
from .standings import Standing, delivery_of

if TYPE_CHECKING:
    from aiosmtpclient.pool import PoolStats


class Listener(Protocol):
    """Whom a pool tells what it is about to do, and what came of it."""

    def begin(self, index: int, message: Body | Envelope) -> None:
        """The first octet of this message is about to be written."""
        ...

    def end(self, outcome: Outcome) -> None:
        """The outcome of this message is known."""
        ...


class Carrier(Protocol):
    """What sends the messages: an `SMTPPool`."""

    def send_messages(
        self,
        messages: AsyncIterable[Message | Envelope],
        *,
        ordered: bool = False,
        journal: Listener | None = None,
    ) -> AsyncGenerator[Outcome, None]:
        """Send many messages."""
        ...

    def stats(self) -> PoolStats:
        """Return what it is doing."""
        ...


class Letters(Protocol):
    """What is to be sent: a `Feed`."""

    def __aiter__(self) -> AsyncIterator[Letter]:
        """Give the letters, one at a time."""
        ...

    def stop(self) -> None:
        """Give no more."""
        ...


@dataclass(slots=True)
class _UnderWay:
    """A letter that was handed to the pool.

    Attributes:
        letter: what it is.
        number: of it in the journal; 0 without one.
        positions: of its recipients that it is sent to; None for all.
        begun: when it was begun, if it was.
    """

    letter: Letter
    number: int
    positions: tuple[int, ...] | None
    begun: float | None = None

    @property
    def recipients(self) -> tuple[str, ...]:
        """To whom it is sent now."""
        if self.positions is None:
            return self.letter.recipients
        return tuple(self.letter.recipients[position] for position in self.positions)


class Run:
    """One run.

    Args:
        letters: what is to be sent.
        journal: where it is written down, if anywhere.
        counts: what is counted.
        report: told of each account, with the code to exit with if there were no other.
        clock: seconds, from any point on.

    Attributes:
        stopped: why nothing more is taken, before the input is at its end.
    """

    def __init__(
        self,
        letters: Letters,
        journal: Journal | None,
        counts: Counts,
        report: Callable[[Account], None],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.stopped: str = ""
        self._letters = letters
        self._journal = journal
        self._counts = counts
        self._report = report
        self._clock = clock
        self._under_way: dict[int, _UnderWay] = {}
        self._handed_over = 0
        self._led = asyncio.Event()  # it is known whether there is a connection for the first message
        self._news: deque[Account] = deque()
        self._pool: Carrier

    def stop(self, why: str) -> None:
        """Take nothing more; what is under way goes on."""
        self.stopped = self.stopped or why
        self._letters.stop()

    async def carry_out(self, pool: Carrier) -> None:
        """Send everything.

        Raises:
            Failure: the journal cannot be written.
            asyncio.CancelledError: the run was cancelled; everything that was taken has its account.
        """
        self._pool = pool
        try:
            async with contextlib.aclosing(pool.send_messages(self._envelopes(), journal=self)) as outcomes:
                async for outcome in outcomes:
                    self.end(outcome)
                    self._tell()
            self._tell()
        finally:
            self._give_up()
            self._tell()
        if not self.stopped:
            self._account_for_the_unseen()
            self._tell()

    # -- what goes to the pool ---------------------------------------------------------

    async def _envelopes(self) -> AsyncIterator[Envelope]:
        async for letter in self._letters:
            if self.stopped:
                return
            if letter.problem is not None:
                self._unsendable(letter, letter.problem)
            elif (under_way := self._admitted(letter)) is not None:
                self._under_way[self._handed_over] = under_way
                self._handed_over += 1
                yield Envelope(letter.sender, under_way.recipients, letter.content)
                await self._led.wait()

    def _admitted(self, letter: Letter) -> _UnderWay | None:
        """The letter, if the journal has nothing against its being sent."""
        if self._journal is None:
            return _UnderWay(letter, 0, None)
        verdict = self._journal.standings.judge(letter.place, letter.digest, len(letter.recipients))
        if verdict.problem:
            error = Failure(verdict.problem, Exit.DATAERR)
            self._account(Account.of_error(letter.label, error, letter.recipients))
        elif verdict.standing is None:
            number = self._journal.take(letter.place, letter.digest, letter.sender, letter.recipients)
            return _UnderWay(letter, number, None)
        elif verdict.positions:
            whole = len(verdict.positions) == len(letter.recipients)
            return _UnderWay(letter, verdict.standing.number, None if whole else verdict.positions)
        else:
            self._known(verdict.standing, letter.label, letter.recipients)
        return None

    def _unsendable(self, letter: Letter, problem: Exception) -> None:
        if self._journal is not None:
            verdict = self._journal.standings.judge_unreadable(letter.place)
            if verdict.standing is not None and verdict.standing.letters and not verdict.positions:
                self._known(verdict.standing, letter.label, self._journal.named(verdict.standing).recipients)
                return
            if verdict.standing is None:
                number = self._journal.take(letter.place, b"", "", ())
                self._journal.end(number, letter.place, Delivery.NOT_SENT, (), error=problem)
        self._account(Account.of_error(letter.label, problem))

    def _known(self, standing: Standing, label: str, recipients: Sequence[str]) -> None:
        """The journal says what became of it, and that nothing more is to be done."""
        if standing.delivery is Delivery.UNKNOWN:
            self._account(_from_journal(standing, label, recipients))
        else:
            self._counts.before[standing.delivery] += 1
            self._counts.refused_before |= standing.refused

    # -- what the pool says ------------------------------------------------------------

    def begin(self, index: int, message: Body | Envelope) -> None:
        """The first octet of this message is about to be written, perhaps not for the first time."""
        self._led.set()
        under_way = self._under_way[index]
        if under_way.begun is not None:
            return
        if self._journal is not None:
            self._journal.begin(under_way.number, under_way.positions)
        under_way.begun = self._clock()

    def end(self, outcome: Outcome) -> None:
        """The outcome of this message is known; a second time it is no news."""
        self._led.set()
        under_way = self._under_way.pop(outcome.index, None)
        if under_way is None:
            return
        account = _account_of(outcome, under_way)
        if self._is_cut_off(outcome):
            self.stop("no connection can be had")
            if not isinstance(outcome.error, SMTPException):  # a host that is no name, say
                account = replace(account, error=Failure(str(outcome.error), Exit.USAGE))
        try:
            if self._journal is not None:
                self._journal.end(
                    under_way.number,
                    under_way.letter.place,
                    outcome.delivery,
                    account.outcomes,
                    positions=under_way.positions,
                    error=outcome.error,
                )
        finally:
            self._account(account, under_way.begun)

    def _is_cut_off(self, outcome: Outcome) -> bool:
        """True if it failed because there is no connection: one that is bad itself fails on one."""
        if outcome.attempts or not isinstance(outcome.error, Exception):
            return False
        stats = self._pool.stats()
        return not (stats.idle or stats.in_use)

    def _give_up(self) -> None:
        """The run is over: what still has no outcome gets none."""
        for under_way in self._under_way.values():
            begun = under_way.begun is not None
            delivery = Delivery.UNKNOWN if begun else Delivery.NOT_SENT
            outcomes = tuple(RecipientOutcome(address, delivery, None) for address in under_way.recipients)
            error = Failure("the run ended before there was an answer" if begun else "not tried", Exit.IOERR)
            self._account(Account(under_way.letter.label, delivery, outcomes, error=error), under_way.begun)
        self._under_way.clear()

    def _account_for_the_unseen(self) -> None:
        if self._journal is None:
            return
        for standing, named in self._journal.unfinished():
            if standing.delivery is Delivery.UNKNOWN:
                self._account(_from_journal(standing, named.place, named.recipients))
            else:
                why = Failure(
                    "the journal says that it is to be sent, and it is in the input no more", Exit.NOINPUT
                )
                self._account(Account.of_error(named.place, why, named.recipients))

    # -- accounts ----------------------------------------------------------------------

    def _account(self, account: Account, begun: float | None = None) -> None:
        self._counts.add(account.delivery, self._clock() - begun if begun is not None else None)
        self._news.append(account)

    def _tell(self) -> None:
        while self._news:
            self._report(self._news.popleft())


def _account_of(outcome: Outcome, under_way: _UnderWay) -> Account:
    label, recipients = under_way.letter.label, under_way.recipients
    outcomes = tuple(outcome.outcomes)
    if len(outcomes) != len(recipients):
        outcomes = tuple(RecipientOutcome(address, outcome.delivery, None) for address in recipients)
    reply = outcome.result.reply if outcome.result is not None else None
    return Account(label, outcome.delivery, outcomes, reply, outcome.error)


def _from_journal(standing: Standing, label: str, recipients: Sequence[str]) -> Account:
    outcomes = tuple(
        RecipientOutcome(address, delivery_of(letter), None)
        for address, letter in zip(recipients, standing.letters, strict=True)
    )
    error = Failure(
        "since an earlier run nobody knows whether it arrived; --resend-unknown sends it again", Exit.IOERR
    )
    return Account(label, Delivery.UNKNOWN, outcomes, error=error)
