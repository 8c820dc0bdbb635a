"""What an error reporter would show: tracebacks with locals, of the chain, outside the tests' own frames."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from pathlib import Path

_TESTS = str(Path(__file__).parent)


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
    """Texts, attributes and every local variable of every frame that is not a test's."""
    lines = []
    for one in chain(error):
        lines += [str(one), repr(one), repr(vars(one))]
        found = traceback.TracebackException.from_exception(one, capture_locals=True)
        for frame in found.stack:
            if not frame.filename.startswith(_TESTS):
                lines += [f"{frame.name}: {name}={value}" for name, value in (frame.locals or {}).items()]
    return "\n".join(lines)
