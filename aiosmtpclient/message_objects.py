"""Message objects: whom their headers name, and what of them leaves, in which octets.

Rules of this room:

* The caller's message object is never changed. What must be different on the wire is made
  different in a copy of that node alone, or only as it is written.
* `Bcc` and `Resent-Bcc` never leave, in no spelling; their addresses do get the mail.
* The header block that leaves has the fields of the object, in their order, and no others: a
  line break in a header is an error, never a second header.
* Octets over 127 stand in the header block only under SMTPUTF8 (RFC 6531).
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import functools
import itertools
import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from email import policy as policies
from email.errors import InvalidHeaderDefect, MessageError, MissingHeaderBodySeparatorDefect
from email.message import Message
from email.policy import Compat32, EmailPolicy, Policy
from typing import Any

from .addresses import header_needs_smtputf8, header_with_ascii_domains, mailboxes
from .content import InMemory, needs_8bitmime, with_crlf
from .errors import SMTPNotSupportedError
from .serialiser import Field, refuse_broken_field, twin_of, write

_SMTP_POLICY = policies.SMTP
_UNFOLDED = policies.SMTPUTF8.clone(max_line_length=0)
_BLIND = frozenset({"bcc", "resent-bcc"})
_ADDRESS_FIELDS = frozenset(
    prefix + name for prefix in ("", "resent-") for name in ("from", "sender", "reply-to", "to", "cc")
)
# Which fields make the envelope.
_ENVELOPE_FIELDS = frozenset({*_ADDRESS_FIELDS, *_BLIND, "resent-date"})
_LINE_BREAK = re.compile(r"\r\n|\r|\n")
_BLIND_LINE = re.compile(r"[ \t]*(?:resent-)?bcc[ \t]*:", re.IGNORECASE)
# What the standard library's generator raises for objects that it cannot write.
_UNWRITABLE = (ValueError, LookupError, TypeError, AttributeError, RecursionError, MessageError)


@functools.lru_cache(maxsize=256)
def _key(name: str) -> str:
    """Under which name a field counts: one that is built by hand may have blanks around it."""
    return name.strip().lower()


# --- The envelope ---


def envelope_of(
    message: Message, sender: str | None, recipients: str | Iterable[str] | None
) -> tuple[str, str | Iterable[str]]:
    """Return the sender and the recipients: those given, else those that the headers name.

    A message with a Resent-Date is sent by its Resent-* headers (RFC 5322 section 3.6.6).

    Raises:
        ValueError: no sender, or something that is no address.
    """
    headers: dict[str, list[object]] = {}
    for name, value in message.raw_items():
        if (key := _key(name)) in _ENVELOPE_FIELDS:
            headers.setdefault(key, []).append(value)
    resent = headers.get("resent-date", ())
    if len(resent) > 1:
        raise ValueError("the message has more than one block of Resent- headers")
    prefix = "resent-" if resent else ""
    if sender is None:
        sender = _author(headers, prefix)
    if recipients is None:
        recipients = []
        for name in ("to", "cc", "bcc"):
            recipients += _addresses(headers, prefix + name)
    return sender, recipients


def _author(headers: Mapping[str, Sequence[object]], prefix: str) -> str:
    for name in ("sender", "from"):
        if found := _addresses(headers, prefix + name):
            return found[0]
    raise ValueError(f"the message has no {prefix.title()}Sender or {prefix.title()}From to send it from")


def _addresses(headers: Mapping[str, Sequence[object]], name: str) -> list[str]:
    found: list[str] = []
    for value in headers.get(name, ()):
        found += _mailboxes(name, value)
    return found


def _mailboxes(name: str, value: object) -> list[str]:
    parsed = getattr(value, "addresses", None)
    if parsed is None:
        return mailboxes(_text(value))
    addresses = [address.addr_spec for address in parsed]
    # The standard library's parser leaves out, or quotes, what it does not understand, and notes a defect.
    defects = getattr(value, "defects", ())
    doubtful = defects and any(isinstance(defect, InvalidHeaderDefect) for defect in defects)
    if "<>" in addresses or (doubtful and _read_again(name, value) != addresses):
        raise _unreadable(name, value)
    return addresses


def _read_again(name: str, value: object) -> list[str]:
    """The addresses in what the standard library would write."""
    try:
        written = _written(value)
    except _UNWRITABLE as error:
        raise _unreadable(name, value) from error
    return mailboxes(written)


def _unreadable(name: str, value: object) -> ValueError:
    return ValueError(f"cannot read the addresses in the header {name.title()}: {str(value)[:100]!a}")


def _text(value: object) -> str:
    """Return a header's value as text; octets that a parser could not decode are read as UTF-8."""
    text = str(value)
    if not text.isascii():
        with contextlib.suppress(UnicodeError):
            text = text.encode("ascii", "surrogateescape").decode()
    return text


def header_for_smtputf8(message: Message) -> str:
    """Return which header has an address that needs SMTPUTF8, in words; empty if none."""
    for name, value in message.raw_items():
        if isinstance(value, str) and value.isascii():
            continue
        if name.lower() in _ADDRESS_FIELDS and header_needs_smtputf8(_text(value)):
            return f"an address in the header {name}"
    return ""


# --- Message objects ---


def as_content(message: Message, *, eightbitmime: bool, utf8: bool) -> InMemory:
    """Bring the message into wire form, with CRLF at all line ends, without blind recipients.

    Args:
        message: an `EmailMessage`, or a `Message` of any policy; it is not changed.
        eightbitmime: octets over 127 may leave; if not, parts that have them are re-encoded.
        utf8: headers may leave as UTF-8, for the message is sent under SMTPUTF8.

    Raises:
        ValueError: the object cannot be written, or not without changing what it says.
        SMTPNotSupportedError: octets over 127 remain, and may not leave.
    """
    eightbitmime = eightbitmime or utf8
    _refuse_cut_header_block(message)
    try:
        outgoing = message if eightbitmime else _in_seven_bits(message)
        fields = _outgoing_fields(outgoing, utf8)
        pieces, clean = write(outgoing, _wire_policy(message.policy, eightbitmime, utf8), fields)
    except _UNWRITABLE as error:
        raise ValueError(f"the message cannot be written: {error}") from error
    first = pieces[0]
    if not isinstance(first, bytes):
        raise AssertionError(first[:100])
    _check_header_block(first if clean else with_crlf(first), [f"{name}:" for name, _ in fields])
    content = InMemory.of_pieces(pieces, clean=clean)
    if content.eightbit and not eightbitmime:
        raise needs_8bitmime()
    return content


def _refuse_cut_header_block(message: Message) -> None:
    """Raise if the parser took a Bcc header, and what follows it, for the start of the body."""
    if not any(isinstance(defect, MissingHeaderBodySeparatorDefect) for defect in message.defects):
        return
    payload = getattr(message, "_payload", None)
    for start in (message.preamble, payload):
        for line in _LINE_BREAK.split(start) if isinstance(start, str) else ():
            if not line:
                break
            if _BLIND_LINE.match(line):
                raise ValueError("the message was parsed from a broken header block: it would disclose a Bcc")
    # What the parser took for an inner message starts with what it cut off.
    if isinstance(payload, list) and message.get_content_maintype() == "message":
        _refuse_cut_header_block(payload[0])


def _in_seven_bits(part: Message, signed: bool = False) -> Message:
    """Return the part itself, or a copy as far down as octets over 127 must get another form."""
    payload = getattr(part, "_payload", None)
    if isinstance(payload, str) and not payload.isascii():
        twin = twin_of(part)
        _encode_payload(twin, payload, signed)
        return twin
    if not isinstance(payload, list | Message):
        return part
    signed = signed or part.get_content_type() == "multipart/signed"
    inner = payload if isinstance(payload, list) else [payload]
    recoded: list[Message | str] = [_in_seven_bits(each, signed) for each in inner]
    labelled = _encoding(part) in ("8bit", "binary")
    if not labelled and all(map(operator.is_, inner, recoded)):
        return part
    twin = twin_of(part)
    if isinstance(payload, list):
        twin.set_payload(recoded)
    else:
        twin.set_payload(recoded[0])
    if labelled:
        _set_encoding(twin, "7bit")
    return twin


def _encoding(part: Message) -> str:
    return str(part.get("Content-Transfer-Encoding", "7bit")).strip().lower()


def _set_encoding(part: Message, encoding: str) -> None:
    name = "Content-Transfer-Encoding"
    if name in part:
        part.replace_header(name, encoding)
    else:
        part[name] = encoding


def _encode_payload(part: Message, payload: str, signed: bool) -> None:
    """Give a part with octets over 127 an encoding of 7 bits (RFC 2045 section 6)."""
    if signed:
        raise SMTPNotSupportedError("a signed part has 8-bit octets, and the server does not offer 8BITMIME")
    main = part.get_content_maintype()
    # RFC 2045 section 6.4: composite types are never encoded as a whole, nothing is encoded twice.
    if main in ("message", "multipart") or _encoding(part) not in ("7bit", "8bit", "binary"):
        raise SMTPNotSupportedError(
            "a part that cannot be encoded anew has 8-bit octets, and the server does not offer 8BITMIME"
        )
    octets = payload.encode("ascii", "surrogateescape")
    if main == "text" and b"\0" not in octets:
        text = binascii.b2a_qp(InMemory.of(octets).data, istext=True)
        _set_encoding(part, "quoted-printable")
    else:
        text = base64.encodebytes(octets)
        _set_encoding(part, "base64")
    part.set_payload(text.decode("ascii"))


def _outgoing_fields(message: Message, utf8: bool) -> list[Field]:
    fields: list[Field] = []
    for name, value in message.raw_items():
        if _key(name) in _BLIND:
            continue
        if isinstance(value, str) and value.isascii():
            fields.append((name, value))
        else:
            fields.append((name, _outgoing_value(message.policy, name, value, utf8)))
    return fields


def _outgoing_value(policy: Policy[Message], name: str, value: object, utf8: bool) -> object:
    """Return the value in a form from which the generator makes ASCII, or UTF-8 under SMTPUTF8."""
    refuse_broken_field(name, value)
    given, text = str(value), _text(value)
    in_address = name.lower() in _ADDRESS_FIELDS
    if in_address:
        text = header_with_ascii_domains(text)
    if isinstance(policy, EmailPolicy):
        return value if text == given and hasattr(value, "name") else policy.header_fetch_parse(name, text)
    if in_address and not given.isascii():
        return _folded(name, text, utf8)
    return policy.header_fetch_parse(name, text) if isinstance(value, str) else value


def _folded(name: str, text: str, utf8: bool) -> str:
    """Write an address header for a compat32 message, whose way would put addresses into encoded words."""
    value = _written(_SMTP_POLICY.header_fetch_parse(name, text), _SMTP_POLICY.clone(utf8=utf8))
    # Octets in this disguise are written as they are.
    return value.encode().decode("ascii", "surrogateescape")


def _written(header: Any, policy: EmailPolicy[Any] = _UNFOLDED) -> str:
    """Return the value of a parsed header as it would be written, the parts that were not understood too."""
    folded: str = header.fold(policy=policy)
    return folded.partition(":")[2].strip()


def _wire_policy(policy: Policy[Message], eightbitmime: bool, utf8: bool) -> Policy[Message]:
    # Those of somebody's own need not be hashable.
    make = _cloned_once if type(policy) in (EmailPolicy, Compat32) else _cloned
    return make(policy, eightbitmime, utf8)


def _cloned(policy: Policy[Message], eightbitmime: bool, utf8: bool) -> Policy[Message]:
    cte_type = "8bit" if eightbitmime else "7bit"
    policy = policy.clone(linesep="\r\n", cte_type=cte_type, mangle_from_=False)
    return policy.clone(utf8=utf8) if isinstance(policy, EmailPolicy) else policy


_cloned_once = functools.lru_cache(maxsize=32)(_cloned)


def _check_header_block(octets: bytes, names: Sequence[str]) -> None:
    """Raise unless the octets start with exactly these fields and a blank line (RFC 5322 section 2.2).

    Args:
        octets: what leaves, the whole header block at least.
        names: of the fields, each with its colon.
    """
    end = 0 if octets.startswith(b"\r\n") else octets.find(b"\r\n\r\n") + 2
    lines = octets[:end].decode("latin-1").split("\r\n")[:-1]
    starts = lines[:1] + [line for line in lines[1:] if line[0] not in " \t"]
    found = [line[: line.find(":") + 1] for line in starts]
    if found != names:
        _refuse_other_fields(found, names)
    block = "".join(lines)
    if end == 1 or "\r" in block or "\n" in block:
        raise ValueError("header injection: the header block does not end where that of the message does")


def _refuse_other_fields(found: Sequence[str], names: Sequence[str]) -> None:
    for name, written in itertools.zip_longest(names, found[: len(names)], fillvalue=""):
        # A header object taken from another message keeps the name that it had there.
        if written.lower() != name.lower():
            field = name.removesuffix(":")
            raise ValueError(
                f"header injection: the header block does not have {field} where the message has it"
            )
    if len(found) > len(names):
        raise ValueError("header injection: the header block has more fields than the message")
