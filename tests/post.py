"""A pool without a network: it begins, delivers and ends messages as it is told to.

What it delivered is in `delivered`, a letter box a recipient. A `Crash` ends it as a kill would:
nothing after it is written down by anybody.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable
from email.message import Message

from aiosmtpclient import Delivery, Envelope, Outcome, Reply, SendResult, SMTPRecipientsRefused
from aiosmtpclient.cli.letters import Letter
from aiosmtpclient.cli.runs import Listener
from aiosmtpclient.delivery import Ledger
from aiosmtpclient.errors import SMTPServerDisconnected
from aiosmtpclient.pool import PoolStats

QUEUED = Reply(250, b"2.0.0 queued")
NEVER = Reply(550, b"5.1.1 no such user")
LATER = Reply(450, b"4.2.1 try later")

Fate = Delivery | Reply
"""What becomes of a recipient: a word, or the reply that refuses it."""


class Crash(BaseException):
    """The process is gone."""


class Input:
    """Letters, given one at a time."""

    def __init__(self, letters: Iterable[Letter]) -> None:
        self._letters = iter(letters)
        self.stopped = False

    def __aiter__(self) -> AsyncIterator[Letter]:
        return self

    async def __anext__(self) -> Letter:
        await asyncio.sleep(0)
        letter = None if self.stopped else next(self._letters, None)
        if letter is None:
            raise StopAsyncIteration
        return letter

    def stop(self) -> None:
        self.stopped = True


class Post:
    """Sends by putting into letter boxes.

    Args:
        fate: what becomes of this address, asked each time; accepted if it says nothing.
        window: how many are begun before the first of them ends.
    """

    def __init__(self, fate: Callable[[str], Fate | None] = lambda address: None, window: int = 1) -> None:
        self.delivered: Counter[tuple[str, bytes]] = Counter()
        self.begun = 0
        self._fate = fate
        self._window = window

    async def send_messages(
        self,
        messages: AsyncIterable[Message | Envelope],
        *,
        ordered: bool = False,
        journal: Listener | None = None,
    ) -> AsyncGenerator[Outcome, None]:
        assert journal is not None
        begun: list[tuple[int, Envelope]] = []
        index = 0
        async for message in messages:
            assert isinstance(message, Envelope)
            journal.begin(index, message)
            self.begun += 1
            begun.append((index, message))
            index += 1
            if len(begun) == self._window:
                while begun:
                    yield self._ended(*begun.pop(), journal)
        while begun:
            yield self._ended(*begun.pop(), journal)

    def stats(self) -> PoolStats:
        return PoolStats(*[1] * len(PoolStats._fields))

    def _ended(self, index: int, envelope: Envelope, journal: Listener) -> Outcome:
        outcome = self._carried(index, envelope)
        journal.end(outcome)
        return outcome

    def _carried(self, index: int, envelope: Envelope) -> Outcome:
        ledger = Ledger(envelope.recipients)
        fates = [self._fate(address) or QUEUED for address in envelope.recipients]
        for position, fate in enumerate(fates):
            if isinstance(fate, Reply):
                ledger.decide(position, fate)
            if isinstance(fate, Reply) and fate.positive:
                assert isinstance(envelope.content, bytes)
                self.delivered[envelope.recipients[position], envelope.content] += 1
                ledger.final = fate
        if Delivery.UNKNOWN in fates:
            ledger.end_left()
        if ledger.final is not None and ledger.delivery is Delivery.ACCEPTED:
            return Outcome(index, envelope, Delivery.ACCEPTED, SendResult(ledger, envelope), None, 1, 1)
        error: SMTPRecipientsRefused | SMTPServerDisconnected
        if all(isinstance(fate, Reply) for fate in fates):
            error = SMTPRecipientsRefused(ledger.refused)
        else:
            error = SMTPServerDisconnected("gone")
        ledger.stamp(error)
        return Outcome(index, envelope, ledger.delivery, None, error, 1, 1)
