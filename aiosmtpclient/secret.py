"""A text that must not be seen: what every password and token is held in.

Passwords leak by accident: through a `repr` in a log, a traceback with locals, a debugger's
report, a pickle in a queue. A `Secret` shows none of it unless `reveal()` is called.

Rules of this room:

* `reveal()` is called inside an expression, never assigned to a name: a name is a local
  variable, and local variables are what error reporters collect.
* A secret is not pickled; a copy of it is itself.
"""

from __future__ import annotations

from typing import NoReturn


class Secret:
    """A text that shows itself only on request.

    Two secrets are equal if their texts are; a secret never equals a plain string.

    Args:
        text: what to keep.
    """

    # No dataclass: `dataclasses.asdict()` would walk into it and take the text out.
    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(***)"

    def __eq__(self, other: object) -> bool:
        return self._text == other._text if isinstance(other, Secret) else NotImplemented

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __bool__(self) -> bool:
        return bool(self._text)

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> Secret:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled: its text would stand there in clear")
