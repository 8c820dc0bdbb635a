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

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

MAX_LINES = 500
"""Lines of keywords that are read; what follows is ignored."""

# RFC 5321 section 4.1.1.1: ehlo-keyword = (ALPHA / DIGIT) *(ALPHA / DIGIT / "-"). A tab is
# taken for a blank.
_LINE = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:[ \t](.*))?", re.DOTALL)
_OLD_STYLE_AUTH = re.compile(r"(AUTH)=(.*)", re.DOTALL | re.IGNORECASE | re.ASCII)
# RFC 1870 section 4: up to 20 digits.
_SIZE = re.compile(r"0*([1-9][0-9]{0,19})")
# RFC 4422 section 3.1.
_MECHANISM = re.compile(r"[A-Za-z0-9_-]{1,20}")


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Extensions(Mapping[str, str]):
    """What one server offers: an immutable mapping from lower-case keyword to parameters.

    `Extensions()` offers nothing, as after HELO.
    """

    _features: Mapping[str, str] = field(default_factory=dict, init=False)

    @classmethod
    def parse(cls, reply_message: bytes) -> Extensions:
        """Read the message of a 250 reply to EHLO or LHLO.

        Args:
            reply_message: the reply's octets without codes, lines joined by LF.
        """
        features: dict[str, str] = {}
        # Latin-1 never fails and is what smtplib shows.
        for line in reply_message.decode("latin-1").split("\n")[1 : MAX_LINES + 1]:
            match = _OLD_STYLE_AUTH.fullmatch(line)
            if match is not None:
                features["auth"] = f"{features.get('auth', '')} {match[2]}"
            elif (match := _LINE.fullmatch(line)) is not None:
                keyword, parameters = match[1].lower(), (match[2] or "").strip()
                if keyword == "auth":
                    parameters = f"{features.get('auth', '')} {parameters}"
                features[keyword] = parameters
        extensions = cls()
        object.__setattr__(extensions, "_features", features)
        return extensions

    @property
    def size_limit(self) -> int | None:
        """Octets a message may have, or None if the server names no limit (RFC 1870 section 4)."""
        words = self.get("size", "").split()
        match = _SIZE.fullmatch(words[0]) if words else None
        return int(match[1]) if match is not None else None

    @property
    def auth_mechanisms(self) -> tuple[str, ...]:
        """The SASL mechanisms offered (RFC 4954 section 3), in upper case, in the server's order."""
        words = self.get("auth", "").split()
        return tuple(dict.fromkeys(word.upper() for word in words if _MECHANISM.fullmatch(word)))

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


NONE = Extensions()
"""A server that offers nothing, or of which nothing is known yet."""
