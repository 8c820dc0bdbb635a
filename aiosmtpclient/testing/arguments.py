"""What stands behind MAIL, RCPT and BDAT: paths and parameters, read strictly.

Each function gives the value, or raises `Refused` with the reply that says what is wrong. An
extension that was not offered, or not greeted for, allows none of its parameters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# extension → the parameters it adds to MAIL, and to RCPT. One that is not listed adds a
# parameter with its own name to both.
_PARAMETERS: dict[str, tuple[str, str]] = {
    "PIPELINING": ("", ""),
    "CHUNKING": ("", ""),
    "ENHANCEDSTATUSCODES": ("", ""),
    "VRFY": ("", ""),
    "EXPN": ("", ""),
    "HELP": ("", ""),
    "STARTTLS": ("", ""),
    "LIMITS": ("", ""),
    "SIZE": ("SIZE", ""),
    "8BITMIME": ("BODY", ""),
    "BINARYMIME": ("BODY", ""),
    "SMTPUTF8": ("SMTPUTF8", ""),
    "AUTH": ("AUTH", ""),
    "DSN": ("RET ENVID", "NOTIFY ORCPT"),
    "REQUIRETLS": ("REQUIRETLS", ""),
    "MT-PRIORITY": ("MT-PRIORITY", ""),
    "DELIVERBY": ("BY", ""),
    "FUTURERELEASE": ("HOLDFOR HOLDUNTIL", ""),
    "RRVS": ("", "RRVS"),
}
# esmtp-param = keyword ["=" value], the value without "=" (RFC 5321 section 4.1.2).
_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([^=]+))?")
# xtext (RFC 3461 section 4); with SMTPUTF8 what is not ASCII stands for itself (RFC 6533 section 3).
_XTEXT = r"(?:[!-*,-<>-~\x80-\U0010ffff]|\+[0-9A-F]{2})"
_VALUES = {
    "SIZE": "[0-9]{1,20}",
    "BODY": "7BIT|8BITMIME|BINARYMIME",
    "SMTPUTF8": "",
    "REQUIRETLS": "",
    "RET": "FULL|HDRS",
    "ENVID": f"{_XTEXT}{{1,100}}",
    "NOTIFY": "NEVER|(?:SUCCESS|FAILURE|DELAY)(?:,(?:SUCCESS|FAILURE|DELAY))*",
    "ORCPT": f"[A-Za-z0-9-]+;{_XTEXT}+",
    "AUTH": f"<>|{_XTEXT}+",
}
# Reverse-path and forward-path: the ">" that ends one may also stand inside a quoted string.
_PATH = re.compile(r'<((?:[^<>"\\]|"(?:[^"\\]|\\.)*"|\\.)*)>(?: +(.*))?')
_CHUNK = re.compile(r"([0-9]{1,20})( +LAST)?", re.IGNORECASE)


class Refused(Exception):
    """A command is not carried out; the reply says why."""

    def __init__(self, reply: str) -> None:
        super().__init__(reply)
        self.reply = reply


def read_path(keyword: str, argument: str) -> tuple[str, list[str]]:
    """The address between the angle brackets, and the parameters behind them."""
    begin, rest = argument[: len(keyword)], argument[len(keyword) :]
    match = _PATH.fullmatch(rest) if begin.upper() == keyword else None
    if match is None:
        raise Refused(f"501 5.5.4 Syntax: {keyword}<address> [parameters]")
    # A source route is accepted and ignored (RFC 5321 section 4.1.1.3).
    return re.sub(r"^@[^:]+:", "", match[1]), (match[2] or "").split()


def check_address(address: str, *, utf8: bool) -> None:
    """Refuse an address with half of it missing, and a non-ASCII one without SMTPUTF8 (RFC 6531)."""
    if not address.isascii() and not utf8:
        raise Refused("553 5.6.7 Error: a non-ASCII address needs SMTPUTF8")
    local, at, domain = address.rpartition("@")
    if at and not (local and domain):
        raise Refused("501 5.1.3 Error: malformed address")


def read_parameters(options: list[str], extensions: Iterable[str], *, of_mail: bool) -> dict[str, str]:
    """The parameters by their upper-case keyword; each must be allowed by an extension in use."""
    names = [_PARAMETERS.get(extension, (extension, extension)) for extension in extensions]
    allowed = {name for for_mail, for_rcpt in names for name in (for_mail if of_mail else for_rcpt).split()}
    parameters: dict[str, str] = {}
    for option in options:
        match = _PARAMETER.fullmatch(option)
        keyword, value = (match[1].upper(), match[2] or "") if match else ("", "")
        if match is None or keyword in parameters:
            raise Refused(f"501 5.5.4 Error: bad parameter: {option}")
        if keyword not in allowed:
            raise Refused(f"555 5.5.4 Unsupported option: {option}")
        if keyword in _VALUES and not re.fullmatch(_VALUES[keyword], value, re.IGNORECASE):
            raise Refused(f"501 5.5.4 Error: bad value: {option}")
        parameters[keyword] = value
    return parameters


def read_chunk_size(argument: str) -> tuple[int, bool]:
    """The octets of a chunk, and whether it is the last (RFC 3030 section 2)."""
    match = _CHUNK.fullmatch(argument)
    if match is None:
        raise Refused("501 5.5.4 Syntax: BDAT size [LAST]")
    return int(match[1]), match[2] is not None
