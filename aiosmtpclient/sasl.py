"""SASL: how we prove who we are, challenge in, response out (RFC 4422, RFC 4954).

A mechanism is a generator. The first thing it yields is the initial response, or None if the
server speaks first; each `send(challenge)` then gives the next response. If it returns instead,
that challenge was one too many. Base64, line lengths and the verdict are the caller's business.

Rules of this room:

* A secret is revealed inside the expression that uses it: no local variable of ours ever holds
  a password or a response, so that a traceback with locals shows none.
* NUL is refused when the credentials are made, before anything is written: it separates the
  parts of PLAIN. Text goes out as UTF-8, exactly as given.
* Where the protocol gives a challenge no meaning (the prompts of LOGIN, anything sent to
  PLAIN), its text is ignored and position decides: servers write what they like there.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Self, TypeAlias

from .secret import Secret

Mechanism: TypeAlias = Generator[bytes | None, bytes, None]
MechanismFactory: TypeAlias = "Callable[[Credentials], Mechanism]"

# A lone surrogate has no UTF-8 form.
_FORBIDDEN = "[\0\ud800-\udfff]"


class _Fields(NamedTuple):
    user: str
    password: Secret
    authorization_id: str


class Credentials(_Fields):
    """Who we are, and the proof of it.

    Attributes:
        user: the name to log in with (the authentication identity).
        password: held as a `Secret`.
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


def _check(what: str, text: Secret) -> None:
    if not isinstance(text.reveal(), str):
        raise TypeError(f"{what} must be a str")
    if re.compile(_FORBIDDEN).search(text.reveal()) is not None:
        raise ValueError(f"{what}: NUL, or a character that has no UTF-8 form")


def plain(credentials: Credentials) -> Mechanism:
    """PLAIN (RFC 4616): everything in one response."""
    yield _plain_message(credentials)


def _plain_message(credentials: Credentials) -> bytes:
    return "\0".join((credentials.authorization_id, credentials.user, credentials.password.reveal())).encode()


def login(credentials: Credentials) -> Mechanism:
    """LOGIN (never standardised): the user first, then the password, whatever the prompts say."""
    _refuse_authorization_id("LOGIN", credentials)
    yield credentials.user.encode()
    yield credentials.password.reveal().encode()


def cram_md5(credentials: Credentials) -> Mechanism:
    """CRAM-MD5 (RFC 2195): the server's challenge, signed with the password."""
    _refuse_authorization_id("CRAM-MD5", credentials)
    challenge = yield None
    yield _signed(credentials, challenge)


def _signed(credentials: Credentials, challenge: bytes) -> bytes:
    try:
        return (
            f"{credentials.user} "
            f"{hmac.new(credentials.password.reveal().encode(), challenge, 'md5').hexdigest()}"
        ).encode()
    except ValueError:
        pass  # hmac's own frames hold the key: its error must not become the context of ours
    raise ValueError("CRAM-MD5 needs MD5, which this Python refuses (FIPS mode)")


def _refuse_authorization_id(mechanism: str, credentials: Credentials) -> None:
    if credentials.authorization_id:
        raise ValueError(f"{mechanism} cannot carry an authorization identity; PLAIN can")


MECHANISMS: Mapping[str, MechanismFactory] = MappingProxyType(
    {"CRAM-MD5": cram_md5, "PLAIN": plain, "LOGIN": login}
)
"""What we speak, in the order in which we would try: a proof first, then the password itself."""

PROMPT_ONLY = frozenset({"PLAIN", "LOGIN"})
"""Mechanisms whose challenges carry nothing: their text, even bad base64, is to be ignored."""

_WITH_AUTHORIZATION_ID = frozenset({"PLAIN"})


def available(name: str) -> bool:
    """True if we speak the mechanism and this Python lets us: FIPS mode takes MD5 away."""
    if name != "CRAM-MD5":
        return name in MECHANISMS
    try:
        hmac.new(b"key", b"", "md5")
    except ValueError:
        return False
    return True


def choose(
    offered: Iterable[str], wanted: Sequence[str] | None = None, *, authorization_id: str = ""
) -> list[str]:
    """Choose which mechanisms to try, and in which order.

    Args:
        offered: the server's, in upper case (`Extensions.auth_mechanisms`).
        wanted: the only ones to consider, in the caller's order and any case; None for all we
            speak, strongest first.
        authorization_id: whom to act as; mechanisms that cannot carry it are left out.

    Returns:
        Names out of `MECHANISMS`; none if nothing fits.

    Raises:
        ValueError: `wanted` names a mechanism that we do not speak.
    """
    there = set(offered)
    return [
        name
        for name in (MECHANISMS if wanted is None else _spoken(wanted))
        if name in there and available(name) and (not authorization_id or name in _WITH_AUTHORIZATION_ID)
    ]


def _spoken(wanted: Sequence[str]) -> list[str]:
    """The names in upper case, each once; an unknown one is an error."""
    if isinstance(wanted, str):
        raise ValueError(f"mechanisms: pass a list of names, not {wanted!r}")
    names = list(dict.fromkeys(name.upper() for name in wanted))
    if unknown := [name for name in names if name not in MECHANISMS]:
        raise ValueError(f"unknown mechanism {unknown[0]!r}; we speak {', '.join(MECHANISMS)}")
    return names


def secrets_of(credentials: Credentials) -> tuple[bytes, ...]:
    """Return what must be masked wherever it shows up: the password as it is, and as it travels.

    Returns:
        The password in UTF-8, its base64 (LOGIN) and the base64 of PLAIN's response; nothing for
        an empty password. Do not keep the tuple in a local variable of a function that may raise.
    """
    if not credentials.password:
        return ()
    return (
        credentials.password.reveal().encode(),
        base64.b64encode(credentials.password.reveal().encode()),
        base64.b64encode(_plain_message(credentials)),
    )
