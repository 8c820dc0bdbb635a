"""Texts that must not be seen: what every password and token is held in, and who it belongs to.

Passwords leak by accident: through a `repr` in a log, a traceback with locals, a debugger's
report, a pickle in a queue. A `Secret` shows none of it unless `reveal()` is called.

Rules of this room:

* `reveal()` is called inside an expression, never assigned to a name: a name is a local
  variable, and local variables are what error reporters collect.
* A secret is not pickled; a copy of it is itself.
* NUL is refused when credentials are made, before anything is written: it separates the parts of
  PLAIN.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple, NoReturn, Self

# A lone surrogate has no UTF-8 form.
_FORBIDDEN = "[\0\ud800-\udfff]"
_TELLING = 6
"""Characters of base64 that must be the secret's own before they are looked for elsewhere."""


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


class _Fields(NamedTuple):
    user: str
    password: Secret
    authorization_id: str


class Credentials(_Fields):
    """Who we are, and the proof of it.

    Attributes:
        user: the name to log in with (the authentication identity).
        password: held as a `Secret`; for mechanisms that take a token it is that.
        authorization_id: whom to act as, if not `user`; few mechanisms know it (PLAIN does).

    Raises:
        ValueError: NUL, or a character that has no UTF-8 form, in any of them.
        TypeError: one of them is not text.
    """

    __slots__ = ()

    def __new__(cls, user: str, password: Secret | str, authorization_id: str = "") -> Self:
        # First of all, and under the same name: what fails below must not show it.
        password = password if isinstance(password, Secret) else Secret(password)
        _check("user", Secret(user))
        _check("password", password)
        _check("authorization_id", Secret(authorization_id))
        return super().__new__(cls, user, password, authorization_id)

    def with_secret(self, secret: Secret) -> Credentials:
        """The same person with another proof."""
        return Credentials(self.user, secret, self.authorization_id)


def _check(what: str, text: Secret) -> None:
    if not isinstance(text.reveal(), str):
        raise TypeError(f"{what} must be a str")
    if re.compile(_FORBIDDEN).search(text.reveal()) is not None:
        raise ValueError(f"{what}: NUL, or a character that has no UTF-8 form")


def traces_of(secret: Secret) -> tuple[bytes, ...]:
    """Return what a secret looks like wherever it shows up.

    Returns:
        Its UTF-8, the base64 of that, and what of its base64 stays the same where it stands
        behind one, two or three octets of something else; nothing for an empty secret. Do not
        keep the tuple in a local variable of a function that may raise.
    """
    return tuple(dict.fromkeys(_traces(secret))) if secret else ()


def _traces(secret: Secret) -> Iterator[bytes]:
    yield secret.reveal().encode()
    yield base64.b64encode(secret.reveal().encode())
    for before in range(3):
        # A character of base64 is 6 bits: those that share bits with what stands before or behind go.
        first, end = -(-before * 8 // 6), (before + len(secret.reveal().encode())) * 8 // 6
        if end - first >= _TELLING:
            yield base64.b64encode(b"\0" * before + secret.reveal().encode())[first:end]


def redacted(text: str, secrets: Iterable[Secret]) -> str:
    """Return the text with every trace of these cut out."""
    for secret in secrets:
        for trace in sorted(traces_of(secret), key=len, reverse=True):
            text = text.replace(trace.decode(), "***")
    return text
