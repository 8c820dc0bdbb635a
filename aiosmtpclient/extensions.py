"""Extensions: what the server said in its answer to EHLO or LHLO (RFC 5321 section 4.1.1.1).

`Extensions.parse()` takes the message of the 250 reply; the result is asked like a mapping from
keyword to parameters, in any case: ``"PIPELINING" in ext``, ``ext["size"]``.

Rules of this room:

* Keywords come from lines 2..n only: the first line is the server's greeting text, and a name
  in it promises nothing.
* A line is read exactly: a keyword (RFC 5321 section 4.1.1.1), then its end or a blank and the
  parameters. ``STARTTLS_LATER`` is not STARTTLS. Any other line is ignored, and so is a
  parameter that makes no sense; neither is an error.
* Nothing is carried over: a new EHLO makes a new `Extensions`.

`as_dict()` is smtplib's `esmtp_features`, with one difference: smtplib takes the longest prefix
of a line that looks like a keyword, so that ``SIZE=10`` becomes ``{"size": "=10"}`` and ``A_B``
becomes ``{"a": "_B"}``; such lines are ignored here. Old-style ``AUTH=LOGIN PLAIN`` is
understood, as there.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import NoReturn

_USUAL = 4096  # octets of an answer that is kept, for the next connection
MAX_LINES = 500
"""Lines of keywords that are read; what follows is ignored."""

# RFC 1870 section 4: up to 20 digits.
_SIZE = r"0*([1-9][0-9]{0,19})"
# RFC 9422 section 4: a name, and up to six digits that do not begin with a zero.
_ONE_LIMIT = r"([A-Za-z0-9][A-Za-z0-9-]*)=([1-9][0-9]{0,5})"
# RFC 4422 section 3.1.
_MECHANISM = r"[A-Za-z0-9_-]{1,20}"


_BY_RECIPIENTS = frozenset({"RCPTMAX", "RCPTDOMAINMAX"})


class Extensions(Mapping[str, str]):
    """What one server offers: an immutable mapping from lower-case keyword to parameters.

    `Extensions()` offers nothing, as after HELO.

    Attributes:
        pipelining: commands may be grouped (RFC 2920). This and those below are asked for each
            message, so they are found once.
        chunking: there is BDAT (RFC 3030).
        eightbitmime: octets over 127 may be sent (RFC 6152).
        smtputf8: addresses and headers may be international (RFC 6531).
        size: SIZE may be declared (RFC 1870).
        size_limit: octets a message may have, or None if the server names no limit.
        limited: the server says how many recipients a message may have (RFC 9422); see `limits`.
    """

    __slots__ = (
        "_features", "chunking", "eightbitmime", "limited", "pipelining", "size", "size_limit", "smtputf8",
    )  # fmt: skip

    def __init__(self, features: Mapping[str, str] | None = None) -> None:
        features = features or {}
        put = functools.partial(object.__setattr__, self)
        put("_features", features)
        put("pipelining", "pipelining" in features)
        put("chunking", "chunking" in features)
        put("eightbitmime", "8bitmime" in features)
        put("smtputf8", "smtputf8" in features)
        put("size", "size" in features)
        put("size_limit", _limit(features.get("size", "")))
        put("limited", "limits" in features and not _BY_RECIPIENTS.isdisjoint(self.limits))

    _features: Mapping[str, str]
    pipelining: bool
    chunking: bool
    eightbitmime: bool
    smtputf8: bool
    size: bool
    size_limit: int | None
    limited: bool

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("what a server offers does not change; say EHLO again")

    @classmethod
    def parse(cls, reply_message: bytes) -> Extensions:
        """Read the message of a 250 reply to EHLO or LHLO.

        Args:
            reply_message: the reply's octets without codes, lines joined by LF.
        """
        return _parsed(bytes(reply_message)) if len(reply_message) <= _USUAL else cls._parse(reply_message)

    @classmethod
    def _parse(cls, reply_message: bytes) -> Extensions:
        # Latin-1 never fails and is what smtplib shows.
        lines = reply_message.decode("latin-1").split("\n")[1 : MAX_LINES + 1]
        features: dict[str, str] = {}
        for keyword, parameters, old_style in _lines()("\n".join(lines)):
            keyword, parameters = keyword.lower() or "auth", parameters.strip() or old_style
            if keyword == "auth":
                parameters = f"{features.get('auth', '')} {parameters}"
            features[keyword] = parameters
        return cls(features)

    @property
    def auth_mechanisms(self) -> tuple[str, ...]:
        """The SASL mechanisms offered (RFC 4954 section 3), in upper case, in the server's order."""
        words = self.get("auth", "").split()
        return tuple(dict.fromkeys(word.upper() for word in words if re.fullmatch(_MECHANISM, word)))

    @property
    def limits(self) -> dict[str, int]:
        """What LIMITS says (RFC 9422): MAILMAX, RCPTMAX, RCPTDOMAINMAX, as far as they make sense."""
        found = (re.fullmatch(_ONE_LIMIT, word) for word in self.get("limits", "").split())
        return {match[1].upper(): int(match[2]) for match in found if match is not None}

    def as_dict(self) -> dict[str, str]:
        """Return a new dict as smtplib's `esmtp_features`: "auth" starts with a blank there."""
        return dict(self._features)

    def __contains__(self, keyword: object) -> bool:
        return isinstance(keyword, str) and keyword.lower() in self._features

    def __getitem__(self, keyword: str) -> str:
        return self._features[keyword.lower()].strip()

    def __iter__(self) -> Iterator[str]:
        return iter(self._features)

    def __len__(self) -> int:
        return len(self._features)

    def __repr__(self) -> str:
        return f"<Extensions: {' '.join(self._features).upper() or 'none'}>"


@functools.lru_cache(maxsize=32)
def _parsed(reply_message: bytes) -> Extensions:
    # A server says the same on each connection, and nobody can change what he is given.
    return Extensions._parse(reply_message)


@functools.cache
def _lines() -> Callable[[str], list[tuple[str, str, str]]]:
    # RFC 5321 section 4.1.1.1: ehlo-keyword = (ALPHA / DIGIT) *(ALPHA / DIGIT / "-"). A tab is
    # taken for a blank. All lines in one go: every connection pays for this.
    keyword = r"([A-Za-z0-9][A-Za-z0-9-]*)(?:[ \t]([^\n]*))?"
    return re.compile(rf"^(?:{keyword}|(?i:AUTH)=([^\n]*))$", re.MULTILINE).findall


def _limit(parameters: str) -> int | None:
    """What SIZE says (RFC 1870 section 4): nothing or zero is no limit."""
    words = parameters.split()
    match = re.fullmatch(_SIZE, words[0]) if words else None
    return int(match[1]) if match is not None else None
