"""What a server may do wrong, as data.

A behaviour is a name and the acts that stand in place of one right reply. Which reply that is,
the sweep decides: most of them it tries at every place.

    Behaviour("goes instead of answering", (Finish("close"),))

Rules of this room:

* Nothing here knows of messages or connections: `post` carries it out.
* A behaviour says what it does to the count of replies, for that is what a client goes by.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Act:
    """Something a server does."""

    name: str = ""


RIGHT = Act("the right reply")
AGAIN = Act("the right reply, once more")
HOLD = Act("the right reply, behind the next one")
HALF = Act("the first half of the right reply")


@dataclass(frozen=True)
class Instead(Act):
    """Another reply in the place of the right one; the server then does what it said."""

    code: int = 0


@dataclass(frozen=True)
class Extra(Act):
    """A reply that nobody asked for."""

    code: int = 0


@dataclass(frozen=True)
class Later(Act):
    """The same, once the client has written something more."""

    code: int = 0


@dataclass(frozen=True)
class Raw(Act):
    """Octets that are no reply; nothing behind them is one."""

    octets: bytes = b""


@dataclass(frozen=True)
class Odd(Act):
    """A refusal as octets: one whole reply, in the place of the right one."""

    octets: bytes = b""


@dataclass(frozen=True)
class Endless(Act):
    """Octets again and again, until the client has gone.

    Attributes:
        octets: what is said.
        every: seconds between two times.
        singly: one octet at a time.
    """

    octets: bytes = b""
    every: float = 0.0
    singly: bool = False


@dataclass(frozen=True)
class Finish(Act):
    """The end of the line, as in `cable`."""

    kind: str = ""


right = (RIGHT,)

CLOSE, RESET, SHUT, STOP = (
    Finish(kind="close"),
    Finish(kind="reset"),
    Finish(kind="half-close"),
    Finish(kind="stop"),
)


@dataclass(frozen=True)
class Behaviour:
    """One way to be wrong.

    Attributes:
        name: what it does, in words.
        acts: what takes the place of the right reply.
        count: what it does to the count of replies: "kept" (one for one), "more", "fewer",
            "swapped" (kept, but two of them in the wrong order), "over" (none comes after it), or
            "broken" (what comes is no reply at all).
        timed: it means something else if a pause falls into it, so it is not cut into pieces.
    """

    name: str
    acts: tuple[Act, ...]
    count: str = "kept"
    timed: bool = False

    @property
    def in_step(self) -> bool:
        """Each reply that comes answers the command it seems to answer."""
        return self.count in ("kept", "over", "broken")


def _octets(name: str, octets: bytes) -> Behaviour:
    return Behaviour(name, (Raw(octets=octets),), "broken")


CODES = (250, 354, 450, 550)
_CLASS = {250: "yes", 354: "go on", 450: "not now", 550: "no", 421: "farewell"}

ENDINGS = [
    Behaviour("goes instead of answering", (CLOSE,), "over"),
    Behaviour("resets instead of answering", (RESET,), "over"),
    Behaviour("shuts its side instead of answering", (SHUT,), "over"),
    Behaviour("stops instead of answering", (STOP,), "over"),
    Behaviour("answers and goes", (RIGHT, CLOSE), "over"),
    Behaviour("answers and resets", (RIGHT, RESET), "over"),
    Behaviour("answers and shuts its side", (RIGHT, SHUT), "over"),
    Behaviour("answers and stops", (RIGHT, STOP), "over"),
    Behaviour("goes in the middle of the answer", (HALF, CLOSE), "over"),
    Behaviour("resets in the middle of the answer", (HALF, RESET), "over"),
    Behaviour("stops in the middle of the answer", (HALF, STOP), "over"),
]

FAREWELLS = [
    Behaviour("says 421 and goes", (Instead(code=421), CLOSE), "over"),
    Behaviour("says 421 and resets", (Instead(code=421), RESET), "over"),
    Behaviour("says 421 and stays", (Instead(code=421),)),
    Behaviour("says 421 and stops", (Instead(code=421), STOP), "over"),
    Behaviour("answers, says 421 and goes", (RIGHT, Extra(code=421), CLOSE), "over"),
    Behaviour("answers, says 421 and stays", (RIGHT, Extra(code=421)), "over"),
]

CLASSES = [Behaviour(f"says {_CLASS[code]} instead", (Instead(code=code),)) for code in CODES]
CLASSES += [
    Behaviour("says 503 instead", (Instead(code=503),)),
    Behaviour("says 299 instead", (Instead(code=299),)),
    Behaviour("says 599 instead", (Instead(code=599),)),
]

COUNTS = [
    Behaviour("says nothing", (), "fewer"),
    Behaviour("answers twice", (RIGHT, AGAIN), "more", timed=True),
    Behaviour("answers behind the next answer", (HOLD,), "swapped", timed=True),
    *[
        Behaviour(f"says {_CLASS[code]} too many, before", (Extra(code=code), RIGHT), "more", timed=True)
        for code in CODES
    ],
    *[
        Behaviour(f"says {_CLASS[code]} too many, behind", (RIGHT, Extra(code=code)), "more", timed=True)
        for code in CODES
    ],
    *[
        Behaviour(f"says {_CLASS[code]} too many, later", (RIGHT, Later(code=code)), "more", timed=True)
        for code in CODES
    ],
]

MALFORMED = [
    _octets("puts no blank behind the code", b"250ok\r\n"),
    _octets("has four digits", b"2500 ok\r\n"),
    _octets("has an underscore in the code", b"2_5 ok\r\n"),
    _octets("says an empty line", b"\r\n"),
    _octets("begins with a blank", b" 250 ok\r\n"),
    _octets("says 199", b"199 early\r\n"),
    _octets("says 600", b"600 late\r\n"),
    _octets("says 000", b"000 nothing\r\n"),
    _octets("says 99", b"99 short\r\n"),
    _octets("says -250", b"-250 minus\r\n"),
    _octets("says digits of another script", "２５０ ok\r\n".encode()),
    _octets("speaks another protocol", b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    _octets("speaks TLS", b"\x15\x03\x01\x00\x02\x02\x46\r\n"),
    _octets("mixes codes in one reply", b"250-one\r\n354 two\r\n"),
    _octets("mixes yes and no in one reply", b"250-one\r\n550 two\r\n"),
    _octets("begins a reply inside a reply", b"250-one\r\n250ok\r\n"),
    _octets("says NULs", b"\0\0\0\0\r\n"),
    _octets("says escapes", b"\x1b[2J\x1b]0;owned\x07\r\n"),
    _octets("says 8-bit octets", b"\xff\xfe\x80\x81\r\n"),
]

ODD_TEXTS = [
    Odd("NULs in the text", b"550 5.0.0 a\0b\0c\r\n"),
    Odd("escapes in the text", b"550 5.0.0 \x1b[2J\x1b[31mred\x1b]0;title\x07\r\n"),
    Odd("8-bit in the text", b"550 5.0.0 \xff\xfe \xc3\xa9 \xe2\x80\xae\r\n"),
    Odd("a bare CR in the text", b"550 5.0.0 one\rtwo\r\n"),
    Odd("a forged log line in the text", b"550-5.0.0 one\r\n550 2026-01-01 ERROR forged\r\n"),
    Odd("C1 controls in the text", b"550 5.0.0 \xc2\x9b31m\xc2\x85next\r\n"),
    Odd("an enhanced code of another class", b"550 2.0.0 fine\r\n"),
    Odd("an enhanced code that is none", b"550 5.9999.1 what\r\n"),
    Odd("no text", b"550\r\n"),
    Odd("a bare LF", b"550 5.0.0 ok\n"),
    Odd("8 KiB of text", b"550 " + b"x" * 8000 + b"\r\n"),
    Odd(
        "60 KiB in lines",
        b"550-" + b"y" * 1000 + b"\r\n" + (b"550-" + b"y" * 1000 + b"\r\n") * 58 + b"550 z\r\n",
    ),
]
"""A refusal, with a text that is hard to show."""
ODD = [Behaviour(f"refuses with {act.name}", (act,)) for act in ODD_TEXTS]

SLOWLY = 4.5
"""Seconds: nine tenths of what a client waits for a reply in `scenarios`."""
ENDLESS = [
    # Whole lines with a hyphen swallow the right reply behind them.
    Behaviour(f"says {act.name}", (act,), "fewer" if b"-" in act.octets and not act.singly else "broken")
    for act in [
        Endless("a line without end", b"x" * 4096),
        Endless("a reply without end", b"250-" + b"y" * 100 + b"\r\n"),
        Endless("a reply of empty lines without end", b"250-\r\n" * 100),
        Endless("a reply of short lines without end", b"250-ab\r\n" * 100),
        Endless("a no without end", b"550-5.0.0 no\r\n" * 50),
        Endless("NULs without end", b"\0" * 4096),
        Endless("escapes without end", b"\x1b[2J" * 1000),
        Endless("8-bit without end", b"\xff\xfe" * 2000),
        Endless("a reply octet by octet, slowly", b"250-slow\r\n", SLOWLY, singly=True),
        Endless("a reply line by line, slowly", b"250-slow\r\n", SLOWLY),
        Endless("a line octet by octet, slowly", b"2", SLOWLY),
        Endless("a no octet by octet, slowly", b"550-slow\r\n", SLOWLY, singly=True),
    ]
]
"""What never comes to its end."""

IDLE = {
    "yes": b"250 2.0.0 stray\r\n",
    "no": b"550 5.0.0 stray\r\n",
    "not now": b"450 4.0.0 stray\r\n",
    "go on": b"354 stray\r\n",
    "farewell": b"421 4.3.2 stray\r\n",
    "half a yes": b"250 2.0",
    "half a farewell": b"421 4.3",
    "one octet": b"2",
    "an empty line": b"\r\n",
    "garbage": b"what?\r\n",
    "a whole conversation": b"250 ok\r\n250 ok\r\n354 go\r\n250 2.0.0 queued as STRAY\r\n",
    "a thousand replies": b"250 2.0.0 ok\r\n" * 1000,
    "a megabyte": b"z" * 1_000_000,
    "a megabyte of a farewell": b"421-4.3.2 going\r\n" * 60_000,
    "two farewells": b"421 4.3.2 stray\r\n421 4.3.2 stray\r\n",
}
"""What may be said while nothing is owed."""

REPLIES = [*ENDINGS, *FAREWELLS, *CLASSES, *COUNTS, *MALFORMED]
"""Everything that may be done in place of one reply."""
BEHAVIOURS = {behaviour.name: behaviour for behaviour in [*REPLIES, *ODD, *ENDLESS]}
