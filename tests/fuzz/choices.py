"""Choices: decisions read out of octets, one after the other.

Rules of this room:

* When the octets are used up every choice is the first one, so whatever is first in a list should
  be the plain thing, and a list that is built up ends there.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Choices:
    """What a target asks to be told.

    Args:
        octets: that tell it.
    """

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self._place = 0

    @property
    def left(self) -> int:
        """Octets that were not used yet."""
        return len(self._octets) - self._place

    def number(self, most: int) -> int:
        """From 0 to `most`."""
        if most < 256:  # nearly always, and many times a run
            place = self._place
            if place >= len(self._octets):
                return 0
            self._place = place + 1
            return self._octets[place] % (most + 1)
        width = 2 if most < 65536 else 4
        return int.from_bytes(self.take(width), "big") % (most + 1)

    def flag(self) -> bool:
        """Yes or no; no at the end."""
        return self.number(1) == 1

    def rarely(self, one_in: int = 8) -> bool:
        """Yes, once in so many times; no at the end."""
        return self.number(one_in - 1) == 1

    def pick(self, things: Sequence[T]) -> T:
        """One of them; the first at the end."""
        return things[self.number(len(things) - 1)]

    def several(self, things: Sequence[T], most: int) -> list[T]:
        """Some of them, in any order, any of them more than once; none at the end."""
        return [self.pick(things) for _ in range(self.number(most))]

    def take(self, length: int) -> bytes:
        """The next octets as they are, as far as there are any."""
        octets = self._octets[self._place : self._place + length]
        self._place += len(octets)
        return octets

    def octets(self, most: int) -> bytes:
        """Up to so many."""
        return self.take(self.number(most))

    def rest(self) -> bytes:
        """All that are left."""
        return self.take(self.left)

    def text(self, fragments: Sequence[str], most: int) -> str:
        """Up to so many fragments in a row, and now and then a character of any kind."""
        words = [
            chr(self.number(0x10FFFF)) if self.rarely(16) else self.pick(fragments)
            for _ in range(self.number(most))
        ]
        return "".join(words)

    def cut(self, octets: bytes, most: int = 6) -> list[bytes]:
        """The octets in pieces, none of them empty."""
        if not octets:
            return []
        places = sorted({self.number(len(octets)) for _ in range(self.number(most))} - {0, len(octets)})
        edges = [0, *places, len(octets)]
        return [octets[start:end] for start, end in itertools.pairwise(edges)]
