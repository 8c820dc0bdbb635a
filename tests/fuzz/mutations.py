"""Mutations: octets for a target where no fuzzer is installed, from a seed that repeats them.

Rules of this room:

* No coverage guides it: what it lacks in cunning it has in being there on every Python.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

LONGEST = 400


def octets_for(seeds: Sequence[bytes], seed: int) -> Iterator[bytes]:
    """Without end: the seeds, then octets by chance, and seeds of which something is changed."""
    yield from seeds
    chance = random.Random(seed)
    while True:
        if chance.random() < 0.6:
            yield chance.randbytes(chance.randrange(LONGEST))
        else:
            yield changed(chance.choice(seeds), chance)


def changed(octets: bytes, chance: random.Random) -> bytes:
    """The same but for some places."""
    made = bytearray(octets)
    for _ in range(chance.randrange(1, 8)):
        place = chance.randrange(len(made) + 1)
        kind = chance.randrange(5)
        if kind == 0:
            made[place:place] = chance.randbytes(chance.randrange(1, 9))
        elif kind == 1:
            del made[place : place + chance.randrange(1, 9)]
        elif kind == 2:
            made[place:place] = made[chance.randrange(len(made) + 1) :][: chance.randrange(20)]
        elif place < len(made):
            made[place] = chance.randrange(256) if kind == 3 else made[place] ^ (1 << chance.randrange(8))
    return bytes(made[:LONGEST])
