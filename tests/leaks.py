"""What leaks look like: what an error reporter would show, and a secret in each of its spellings.

An error reporter shows tracebacks with locals, of the whole chain. The tests' own frames do not
count, nor those of the servers of `aiosmtpclient.testing`, which know the passwords by right.
"""

from __future__ import annotations

import base64
import os
import reprlib
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path

TESTS = str(Path(__file__).parent)
SERVERS = os.sep + os.path.join("aiosmtpclient", "testing") + os.sep
LEAKING = """
def local(password):
    raise ValueError("no")


def text(password):
    try:
        raise ValueError(password)
    finally:
        password = ""


def hidden(password):
    try:
        raise ValueError(password)
    except ValueError:
        password = ""
        raise KeyError("no") from None
"""
"""A module `leaking`, which is not of the tests: what leaks from it is found, or the search is none."""


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it was raised from, also where Python would not show that."""
    seen: list[BaseException] = []
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and one not in seen:
            seen.append(one)
            waiting += [one.__cause__, one.__context__]
    yield from seen


def told(error: BaseException) -> str:
    """Texts, attributes and every local variable of every frame that is neither a test's nor a server's."""
    lines = []
    for one in chain(error):
        lines += [str(one), repr(one), repr(vars(one))]
        found = traceback.TracebackException.from_exception(one, capture_locals=True)
        for frame in found.stack:
            if not frame.filename.startswith(TESTS) and SERVERS not in frame.filename:
                lines += [f"{frame.name}: {name}={value}" for name, value in (frame.locals or {}).items()]
    return "\n".join(lines)


def spelled(secret: str) -> list[str]:
    """A secret as it may show itself: as it is, in base64, and inside other base64 at any alignment."""
    octets = secret.encode("utf-8", "surrogatepass")
    bits = ["".join(f"{octet:08b}" for octet in octets)[skip:] for skip in (0, 4, 2)]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    inside = ["".join(alphabet[int(b[i : i + 6], 2)] for i in range(0, len(b) - 5, 6)) for b in bits]
    encoded = base64.b64encode(octets).decode()
    # asyncio's debug mode shortens what it shows, and what is left is enough to be ashamed of.
    shortened = [reprlib.repr(text)[1:-1] for text in (secret, encoded)]
    return [secret, repr(secret)[1:-1], encoded, *shortened, *inside]


def leaks(text: str, secrets: Iterable[str]) -> list[str]:
    """The lines that hold a secret in any spelling."""
    spellings = [one for secret in secrets for one in spelled(secret)]
    return [line[:2000] for line in text.splitlines() if any(one in line for one in spellings)]
