"""Standings: what a journal knows about each message, and to whom it may still be sent.

A message is known by its *place*, where in the input it stands, and by a *digest* of its
envelope and content. What is known about it is one letter a recipient, by position.

Rules of this room:

* A recipient that was begun and has no outcome is unknown: the message may have left.
* Nobody who has a message, or may have it, gets it again: neither from the same place with
  another content, nor from another place with the same content, unless that is plainly a second
  copy. What cannot be told is reported, not decided.
* What only the journal of a million messages needs is kept small: some 400 octets a message.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from aiosmtpclient.errors import Delivery

NOT_SENT, ACCEPTED, REFUSED, REFUSED_FOR_NOW, UNKNOWN = map(ord, "narfu")

_LETTERS = {Delivery.NOT_SENT: NOT_SENT, Delivery.ACCEPTED: ACCEPTED, Delivery.UNKNOWN: UNKNOWN}
_WORDS = {
    NOT_SENT: Delivery.NOT_SENT,
    ACCEPTED: Delivery.ACCEPTED,
    REFUSED: Delivery.REFUSED,
    REFUSED_FOR_NOW: Delivery.REFUSED,
    UNKNOWN: Delivery.UNKNOWN,
}
# The account of several recipients in one word, as in `delivery.Ledger`.
_ORDER = (UNKNOWN, ACCEPTED, NOT_SENT, REFUSED_FOR_NOW, REFUSED)


def delivery_of(letter: int) -> Delivery:
    """Return the word for a letter."""
    return _WORDS[letter]


def letter_of_word(word: str, said: str) -> int:
    """Return the letter for what a line of the journal says.

    Raises:
        ValueError: it is no word for a delivery.
    """
    delivery = Delivery(word)
    if delivery is not Delivery.REFUSED:
        return _LETTERS[delivery]
    return REFUSED_FOR_NOW if said.startswith("4") else REFUSED


@dataclass(slots=True)
class Standing:
    """What is known about one message.

    Attributes:
        number: of the message in this journal.
        digest: of its envelope and content; empty if it could not be read.
        letters: what is known about each recipient.
        where: the octet at which the line that names it begins.
        seen: it turned up in this run's input, at its place and unchanged.
    """

    number: int
    digest: bytes
    letters: bytes
    where: int
    seen: bool = False

    @property
    def delivery(self) -> Delivery:
        """What is known in one word: the one that most forbids sending everything again."""
        return _WORDS[min(self.letters, key=_ORDER.index, default=NOT_SENT)]

    def mark(self, positions: Sequence[int], letters: Sequence[int]) -> None:
        """Write down what is known about these recipients now."""
        known = bytearray(self.letters)
        for position, letter in zip(positions, letters, strict=True):
            known[position] = letter
        self.letters = bytes(known)

    @property
    def refused(self) -> bool:
        """True if it was refused for anybody."""
        return REFUSED in self.letters or REFUSED_FOR_NOW in self.letters

    @property
    def free(self) -> bool:
        """True if nobody has it and nobody may have it."""
        return ACCEPTED not in self.letters and UNKNOWN not in self.letters


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to become of a message that turned up.

    Attributes:
        standing: what the journal knows; None for a message that is new to it.
        positions: the recipients to send it to now.
        problem: why it is not sent, although the journal does not say that it is done.
    """

    standing: Standing | None = None
    positions: tuple[int, ...] = ()
    problem: str = ""


@dataclass(slots=True)
class Standings:
    """All that a journal knows.

    Args:
        resend_unknown: send again to whom it may have reached.
        retry_refused: send again to whom it was refused for now.
        place_at: reads the place out of the line that begins at this octet.
    """

    resend_unknown: bool = False
    retry_refused: bool = False
    place_at: Callable[[int], str] = str
    _by_number: list[Standing | None] = field(default_factory=list)
    _by_place: dict[bytes, Standing] = field(default_factory=dict)
    # How often a content was tried, and how often it did not turn up yet where it was.
    _missing: Counter[bytes] = field(default_factory=Counter)
    # Filled when somebody has to be told where a content was; most runs never do.
    _tried: dict[bytes, Standing] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._by_number)

    def __iter__(self) -> Iterator[Standing]:
        return (standing for standing in self._by_number if standing is not None)

    def __getitem__(self, number: int) -> Standing:
        standing = self._by_number[number - 1] if 0 < number <= len(self._by_number) else None
        if standing is None:
            raise LookupError(number)
        return standing

    def add(self, place: str, digest: bytes, recipients: int, where: int) -> Standing:
        """Note a message from the journal; one that stood at this place before is superseded."""
        standing = Standing(len(self._by_number) + 1, digest, bytes([NOT_SENT]) * recipients, where)
        key = _short(place)
        superseded = self._by_place.get(key)
        if superseded is not None:
            self._by_number[superseded.number - 1] = None
        self._by_place[key] = standing
        self._by_number.append(standing)
        return standing

    def settle(self) -> None:
        """All lines were read: from here on only what turns up counts."""
        self._missing = Counter(standing.digest for standing in self if _was_tried(standing))

    def judge(self, place: str, digest: bytes, recipients: int) -> Verdict:
        """Decide about a message that turned up in the input."""
        standing = self._by_place.get(_short(place))
        if standing is not None and standing.digest == digest:
            if not standing.seen and _was_tried(standing):
                self._missing[digest] -= 1
            standing.seen = True
            return Verdict(standing, tuple(self._to_send(standing)))
        if standing is not None:
            standing.seen = True  # it is another one now, and not lost
        if standing is not None and not standing.free:
            return Verdict(
                standing,
                problem="it has changed since it was sent: a journal of its own sends what it is now",
            )
        if digest and self._missing[digest] > 0:
            return Verdict(problem=f"not sent twice: {self._elsewhere(digest)}")
        return Verdict(None, tuple(range(recipients)))

    def judge_unreadable(self, place: str) -> Verdict:
        """Decide about a message that cannot be read: it may have been sent before, and be gone since."""
        standing = self._by_place.get(_short(place))
        if standing is None:
            return Verdict()
        standing.seen = True
        return Verdict(standing, tuple(self._to_send(standing)))

    def _to_send(self, standing: Standing) -> Iterator[int]:
        again = {NOT_SENT}
        if self.resend_unknown:
            again.add(UNKNOWN)
        if self.retry_refused:
            again.add(REFUSED_FOR_NOW)
        return (position for position, letter in enumerate(standing.letters) if letter in again)

    def _elsewhere(self, digest: bytes) -> str:
        if not self._tried:
            self._tried = {one.digest: one for one in self if _was_tried(one)}
        where = self.place_at(self._tried[digest].where)
        return f"the journal has the same message at {where}, and that did not turn up"

    def unseen(self) -> Iterator[Standing]:
        """What did not turn up, and is not done."""
        for standing in self:
            if not standing.seen and (UNKNOWN in standing.letters or [*self._to_send(standing)]):
                yield standing


def _was_tried(standing: Standing) -> bool:
    return any(letter != NOT_SENT for letter in standing.letters)


def _short(place: str) -> bytes:
    return hashlib.blake2b(place.encode("utf-8", "surrogatepass"), digest_size=16).digest()
