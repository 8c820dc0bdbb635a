"""What a server may say: replies by the grammar, and what becomes of them when it slips.

Rules of this room:

* `one` is mostly a whole reply; how often it is not, the choices decide.
"""

from __future__ import annotations

from .choices import Choices

CODES = (b"250", b"550", b"354", b"421", b"450", b"220", b"334", b"235", b"535", b"503", b"221", b"552")
NO_CODES = (
    b"199",
    b"600",
    b"25",
    b"2500",
    b"2_5",
    b"",
    b" 250",
    b"-250",
    "２５０".encode(),
    b"000",
    b"\0",
    b"HTTP/1.1",
)
TEXTS = (
    b"ok", b"", b"2.1.0 fine", b"5.1.1 no", b"4.3.2 later", b"STARTTLS", b"AUTH PLAIN LOGIN", b"SIZE 1000",
    b"PIPELINING", b"CHUNKING", b"\0", b"\x1b[2J", b"\xff\xfe", b"\r", b"a\rb", b"-", b" ", b"\t", b"250 ok",
    b"UGFzc3dvcmQ6", b"e30=", b"=", b"s3cret", b"x" * 37, b"y" * 81, b"\xc2\x85", "é".encode(), b"250-ok",
)  # fmt: skip
ENDS = (b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r\r\n", b"\r", b"")


def one(choices: Choices, code: bytes = b"") -> bytes:
    """One reply, or what looks a little like it.

    Args:
        code: its code, unless the choices want another.
    """
    if choices.rarely(24):
        return choices.octets(60)
    code = code or choices.pick(CODES)
    said = b""
    for _ in range(choices.number(3) if choices.rarely(4) else 0):
        said += _line(choices, code, b"-")
    return said + _line(choices, code, b" ")


def _line(choices: Choices, code: bytes, separator: bytes) -> bytes:
    if choices.rarely(20):
        code = choices.pick(NO_CODES + CODES)
    if choices.rarely(20):
        separator = choices.pick((b"", b" ", b"-", b"\t", b"  ", b"--"))
    return code + separator + text(choices) + choices.pick(ENDS if choices.rarely(6) else ENDS[:1])


def text(choices: Choices) -> bytes:
    """What stands behind a code."""
    words = choices.several(TEXTS, 3)
    if choices.rarely(12):
        words.append(choices.octets(50))
    return b"".join(words)


def stream(choices: Choices, most: int = 12) -> bytes:
    """Replies in a row, or octets of any kind."""
    if choices.rarely(6):
        return choices.rest()
    return b"".join(one(choices) for _ in range(choices.number(most)))
