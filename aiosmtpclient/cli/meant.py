"""What should arrive: the envelope and the octets of a message, worked out from its file.

This is what the demo compares with, so it shares no code with what sends: octets are cut with
regular expressions, addresses are read and names converted by the standard library.
"""

from __future__ import annotations

import email
import email.policy
import re
from dataclasses import dataclass
from email.headerregistry import AddressHeader
from email.message import EmailMessage
from pathlib import Path

from .exits import Exit, Failure

_LINE_END = re.compile(rb"\r\n|\r|\n")
_FIELD = re.compile(rb"[^\r\n]+\r\n(?:[ \t][^\r\n]*\r\n)*")
_BLIND = re.compile(rb"(?:resent-)?bcc[ \t]*:", re.IGNORECASE)
_ADDRESSES = re.compile(rb"(?:resent-)?(?:from|sender|reply-to|to|cc)[ \t]*:", re.IGNORECASE)
_DOMAIN = re.compile(r"(?<=@)[^\s<>,;@]+")
_AS_IT_STANDS = email.policy.SMTP.clone(refold_source="none")


@dataclass(frozen=True, slots=True)
class Meant:
    """One message, and what is to become of it.

    Attributes:
        name: of the file.
        octets: of the file.
        sender: the reverse-path, as a server should see it.
        recipients: the forward-paths, likewise.
        content: the octets that should arrive.
        parsed: the message object to send; None if the octets are to be sent as they are.
    """

    name: str
    octets: bytes
    sender: str
    recipients: tuple[str, ...]
    content: bytes
    parsed: EmailMessage | None

    @property
    def call(self) -> str:
        """The method that sends it."""
        return "sendmail" if self.parsed is None else "send_message"


def read(path: Path) -> Meant:
    """Work out what is meant by a file.

    Raises:
        Failure: it cannot be read, or has no sender or no recipient in its headers.
    """
    try:
        octets = path.read_bytes()
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}", Exit.NOINPUT) from error
    sender, recipients = _envelope(octets)
    if not sender or not recipients:
        raise Failure(f"{path}: no sender or no recipient in the headers", Exit.DATAERR)
    as_message = _without_bcc(_right_lines(octets), a_labels=True)
    if _must_stay(octets) or not _survives_parsing(as_message):
        return Meant(path.name, octets, sender, recipients, _without_bcc(_right_lines(octets)), None)
    parsed = email.message_from_bytes(octets, policy=_AS_IT_STANDS)
    return Meant(path.name, octets, sender, recipients, as_message, parsed)


def _right_lines(octets: bytes) -> bytes:
    octets = _LINE_END.sub(b"\r\n", octets)
    return octets if octets.endswith(b"\r\n") else octets + b"\r\n"


def _without_bcc(octets: bytes, *, a_labels: bool = False) -> bytes:
    head, blank, body = octets.partition(b"\r\n\r\n")
    fields = [field for field in _FIELD.findall(head + b"\r\n") if not _BLIND.match(field)]
    if a_labels:
        fields = [_with_a_labels(field) if _ADDRESSES.match(field) else field for field in fields]
    return b"".join(fields) + blank[2:] + body


def _with_a_labels(field: bytes) -> bytes:
    return _ascii_domains(field.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")


def _ascii_domains(text: str) -> str:
    return _DOMAIN.sub(lambda match: match[0].encode("idna").decode("ascii"), text)


def _must_stay(octets: bytes) -> bool:
    """True for what an object might not give back octet by octet, so that no program should try."""
    signed = b"multipart/signed" in octets
    long = any(len(line) > 998 for line in _LINE_END.split(octets))
    return signed or long or _right_lines(octets).rstrip() != octets.rstrip()


def _survives_parsing(octets: bytes) -> bool:
    return email.message_from_bytes(octets, policy=_AS_IT_STANDS).as_bytes() == octets


def _envelope(octets: bytes) -> tuple[str, tuple[str, ...]]:
    head = _right_lines(octets).partition(b"\r\n\r\n")[0].decode("utf-8", "surrogateescape")
    headers = email.message_from_string(head, policy=email.policy.default)
    prefix = "Resent-" if "Resent-Date" in headers else ""
    authors = [*_named(headers, f"{prefix}Sender"), *_named(headers, f"{prefix}From")]
    recipients = [address for name in ("To", "Cc", "Bcc") for address in _named(headers, prefix + name)]
    return (authors or [""])[0], tuple(recipients)


def _named(headers: EmailMessage, name: str) -> list[str]:
    found: list[str] = []
    for header in headers.get_all(name, []):
        assert isinstance(header, AddressHeader)
        found += [_ascii_domains(address.addr_spec) for address in header.addresses]
    return found
