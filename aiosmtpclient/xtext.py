"""xtext: how text stands in the value of an ESMTP parameter, where "=" and blanks may not.

============================  ====================================================================
`xtext`                       RFC 3461 section 4: "+" and two hexadecimal digits
`utf8_address`                RFC 6533 section 3: ``\\x{…}`` with the character's number, or, inside
                              SMTPUTF8, the character itself
`utc`                         RFC 3339 section 5.6: a moment, in UTC
============================  ====================================================================

Rules of this room:

* What has no form is a `ValueError`: nothing is left out, nothing is put in its place.
* What comes out is one word. `commands` looks at every octet of it once more all the same.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

# xchar: visible, and neither "+" nor "=" (RFC 3461 section 4).
_NO_XCHAR = re.compile("[^!-*,-<>-~]")
# QCHAR: the same without the backslash (RFC 6533 section 3).
_NO_QCHAR = re.compile(r"[^!-*,-<>-\[\]-~]")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def xtext(text: str) -> str:
    """Write text with "+" and two digits for what may not stand there.

    Raises:
        ValueError: a character that is not ASCII, or a control character.
    """
    if not text.isascii() or _CONTROL.search(text) is not None:
        raise ValueError(f"only ASCII without controls has a form as xtext (RFC 3461): {text!a}")
    return _NO_XCHAR.sub(lambda found: f"+{ord(found[0]):02X}", text)


def utf8_address(text: str, *, smtputf8: bool) -> str:
    """Write an international address as utf-8-addr-xtext, or with `smtputf8` as utf-8-addr-unitext.

    Raises:
        ValueError: a control character, or half of a surrogate pair.
    """
    if _CONTROL.search(text) is not None:
        raise ValueError(f"an address has no control characters: {text!a}")

    def embedded(found: re.Match[str]) -> str:
        character = found[0]
        keep = smtputf8 and not character.isascii()
        return character if keep else f"\\x{{{ord(character):02X}}}"

    return _NO_QCHAR.sub(embedded, text)


def utc(moment: datetime) -> str:
    """Write a moment, to the second, as RFC 3339 does.

    Raises:
        ValueError: it does not say its time zone.
    """
    if not isinstance(moment, datetime):
        raise ValueError(f"a moment is a datetime, not {moment!r}")
    if moment.utcoffset() is None:
        raise ValueError(f"{moment!r} has no time zone: give one, such as tzinfo=datetime.UTC")
    return moment.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat() + "Z"
