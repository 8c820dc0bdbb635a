"""Messages: from any kind of message to a checked envelope and the content for the wire.

`prepare()` is for callers that name the envelope (`sendmail`, `Envelope`), `prepare_message()`
for those that leave it to the headers (`send_message`). Both check everything and change
nothing: what they return can be sent, or they raise, and nothing was written yet.

Rules of this room:

* The caller's message object is never changed. What must be different on the wire is made
  different in a copy of that node alone, or only as it is written.
* `Bcc` and `Resent-Bcc` never leave, in no spelling; their addresses do get the mail.
* The header block that leaves has the fields of the object, in their order, and no others: a
  line break in a header is an error, never a second header.
* Octets over 127 stand in the header block only under SMTPUTF8 (RFC 6531), which is asked for
  only when an address has a non-ASCII local part.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import operator
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from email import policy as policies
from email.errors import InvalidHeaderDefect, MessageError, MissingHeaderBodySeparatorDefect
from email.message import Message
from email.policy import EmailPolicy, Policy
from typing import Any, TypeAlias

from .addresses import (
    Address,
    header_needs_smtputf8,
    header_with_ascii_domains,
    mailboxes,
    recipient,
)
from .addresses import sender as reverse_path
from .content import InMemory, Source, Stream, content_of, needs_8bitmime
from .errors import SMTPNotSupportedError
from .serialiser import Field, refuse_broken_field, twin_of, write

Body: TypeAlias = Message | bytes | bytearray | memoryview | str | Source
"""Everything that can be sent. A `str` is always text, never a file's name."""
Content: TypeAlias = Body

_SMTP_POLICY = policies.SMTP
_UNFOLDED = policies.SMTPUTF8.clone(max_line_length=0)
_BLIND = frozenset({"bcc", "resent-bcc"})
_ADDRESS_FIELDS = frozenset(
    prefix + name for prefix in ("", "resent-") for name in ("from", "sender", "reply-to", "to", "cc")
)
_FIELD = re.compile(rb"([!-9;-~]+):[^\r\n]*+(?:\r\n[ \t][^\r\n]*+)*+\r\n")
_LINE_BREAK = re.compile(r"\r\n|\r|\n")
_BLIND_LINE = re.compile(r"[ \t]*(?:resent-)?bcc[ \t]*:", re.IGNORECASE)
# What the standard library's generator raises for objects that it cannot write.
_UNWRITABLE = (ValueError, LookupError, TypeError, AttributeError, RecursionError, MessageError)


@dataclass(frozen=True, slots=True, init=False)
class Envelope:
    """A message with the envelope it is to travel in, which its headers do not decide.

    Args:
        sender: the reverse-path; empty for a bounce.
        recipients: one address, or any iterable of them.
        content: the message, of any kind that can be sent.
        mail_options: raw parameters for MAIL, sent as they are.
        rcpt_options: raw parameters for each RCPT, sent as they are.
        all_or_nothing: True if one refused recipient refuses all.
    """

    sender: str
    recipients: tuple[str, ...]
    content: Body = field(repr=False)
    mail_options: tuple[str, ...] = ()
    rcpt_options: tuple[str, ...] = ()
    all_or_nothing: bool = False

    def __init__(
        self,
        sender: str,
        recipients: str | Iterable[str],
        content: Body,
        *,
        mail_options: str | Iterable[str] = (),
        rcpt_options: str | Iterable[str] = (),
        all_or_nothing: bool = False,
    ) -> None:
        # The class is frozen: this is how its own initialiser would do it.
        object.__setattr__(self, "sender", sender)
        object.__setattr__(self, "recipients", _tuple(recipients))
        object.__setattr__(self, "content", content)
        object.__setattr__(self, "mail_options", _tuple(mail_options))
        object.__setattr__(self, "rcpt_options", _tuple(rcpt_options))
        object.__setattr__(self, "all_or_nothing", all_or_nothing)


@dataclass(frozen=True, slots=True)
class Prepared:
    """What can be sent: every address checked, the content in wire form or ready to be read.

    Attributes:
        sender: the reverse-path.
        recipients: the forward-paths, in the order asked for, duplicates included.
        content: the octets, or where to read them.
        smtputf8: True if MAIL must say SMTPUTF8, for the envelope's sake or for a header's.
    """

    sender: Address
    recipients: tuple[Address, ...]
    content: InMemory | Stream
    smtputf8: bool


def _tuple(values: str | Iterable[str]) -> tuple[str, ...]:
    return (values,) if isinstance(values, str) else tuple(values)


def prepare(
    sender: str, recipients: str | Iterable[str], content: Body, *, eightbitmime: bool, smtputf8: bool
) -> Prepared:
    """Check an explicit envelope, and bring the content into wire form.

    Args:
        sender: the reverse-path; empty for a bounce.
        recipients: one address, or any iterable of them.
        content: what to send. A message object is serialised; its address headers do not count.
        eightbitmime: True if the server offers 8BITMIME (RFC 6152).
        smtputf8: True if the server offers SMTPUTF8 (RFC 6531).

    Raises:
        ValueError: an address, the headers or the content cannot be sent as they are.
        SMTPNotSupportedError: it can be sent, only not to this server.
    """
    reverse = reverse_path(sender)
    forward = tuple(map(recipient, _tuple(recipients)))
    if not forward:
        raise ValueError("there are no recipients")
    utf8 = _needs_smtputf8((reverse, *forward), content, smtputf8)
    eightbitmime = eightbitmime or utf8
    if isinstance(content, Message):
        body: InMemory | Stream = InMemory(serialise(content, eightbitmime=eightbitmime, utf8=utf8))
    else:
        body = content_of(content)
    if not eightbitmime and body.eightbit:
        raise needs_8bitmime()
    return Prepared(reverse, forward, body, utf8)


def prepare_message(
    message: Message,
    from_addr: str | None,
    to_addrs: str | Iterable[str] | None,
    *,
    eightbitmime: bool,
    smtputf8: bool,
) -> Prepared:
    """Check a message object and the envelope that its headers ask for.

    Args:
        message: what to send; it is not changed.
        from_addr: the reverse-path, instead of the first address of Sender, else of From.
        to_addrs: the recipients, instead of the addresses of all To, Cc and Bcc headers.
        eightbitmime: True if the server offers 8BITMIME; if not, the content is re-encoded.
        smtputf8: True if the server offers SMTPUTF8.

    A message with a Resent-Date is sent by its Resent-* headers (RFC 5322 section 3.6.6).

    Raises:
        ValueError: no sender, no recipient, or something that cannot be sent as it is.
        SMTPNotSupportedError: it can be sent, only not to this server.
    """
    headers: dict[str, list[object]] = {}
    for name, value in message.raw_items():
        headers.setdefault(name.strip().lower(), []).append(value)
    resent = headers.get("resent-date", ())
    if len(resent) > 1:
        raise ValueError("the message has more than one block of Resent- headers")
    prefix = "resent-" if resent else ""
    if from_addr is None:
        from_addr = _author(headers, prefix)
    if to_addrs is None:
        to_addrs = [found for name in ("to", "cc", "bcc") for found in _addresses(headers, prefix + name)]
    return prepare(from_addr, to_addrs, message, eightbitmime=eightbitmime, smtputf8=smtputf8)


def _author(headers: Mapping[str, Iterable[object]], prefix: str) -> str:
    for name in ("sender", "from"):
        if found := _addresses(headers, prefix + name):
            return found[0]
    raise ValueError(f"the message has no {prefix.title()}Sender or {prefix.title()}From to send it from")


def _addresses(headers: Mapping[str, Iterable[object]], name: str) -> list[str]:
    return [address for value in headers.get(name, ()) for address in _mailboxes(name, value)]


def _mailboxes(name: str, value: object) -> list[str]:
    parsed = getattr(value, "addresses", None)
    if parsed is None:
        return mailboxes(_text(value))
    addresses = [address.addr_spec for address in parsed]
    # The standard library's parser leaves out, or quotes, what it does not understand, and notes a defect.
    doubtful = any(isinstance(defect, InvalidHeaderDefect) for defect in getattr(value, "defects", ()))
    if "<>" in addresses or (doubtful and mailboxes(_written(value)) != addresses):
        raise ValueError(f"cannot read the addresses in the header {name.title()}: {str(value)[:100]!a}")
    return addresses


def _text(value: object) -> str:
    """Return a header's value as text; octets that a parser could not decode are read as UTF-8."""
    text = str(value)
    if not text.isascii():
        with contextlib.suppress(UnicodeError):
            text = text.encode("ascii", "surrogateescape").decode()
    return text


def _needs_smtputf8(envelope: Iterable[Address], content: Body, offered: bool) -> bool:
    what = next((f"the address {one.text!r}" for one in envelope if one.needs_smtputf8), "")
    if not what and isinstance(content, Message):
        what = _header_for_smtputf8(content)
    if what and not offered:
        raise SMTPNotSupportedError(
            f"{what} has a non-ASCII local part, and the server does not offer SMTPUTF8"
        )
    return bool(what)


def _header_for_smtputf8(message: Message) -> str:
    for name, value in message.raw_items():
        if name.lower() in _ADDRESS_FIELDS and header_needs_smtputf8(_text(value)):
            return f"an address in the header {name}"
    return ""


# --- Message objects ---


def serialise(message: Message, *, eightbitmime: bool, utf8: bool) -> bytes:
    """Return the message as octets, with CRLF at all line ends, without blind recipients.

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
        octets, clean = write(outgoing, _wire_policy(message, eightbitmime, utf8), fields)
    except _UNWRITABLE as error:
        raise ValueError(f"the message cannot be written: {error}") from error
    data = InMemory.of(octets, clean=clean).data
    _check_header_block(data, [name for name, _ in fields])
    if not eightbitmime and not data.isascii():
        raise needs_8bitmime()
    return data


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
        raise needs_8bitmime()
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
        if name.strip().lower() not in _BLIND:
            fields.append((name, _outgoing_value(message.policy, name, value, utf8)))
    return fields


def _outgoing_value(policy: Policy[Message], name: str, value: object, utf8: bool) -> object:
    """Return the value in a form from which the generator makes ASCII, or UTF-8 under SMTPUTF8."""
    if isinstance(value, str) and value.isascii():
        return value
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


def _wire_policy(message: Message, eightbitmime: bool, utf8: bool) -> Policy[Message]:
    cte_type = "8bit" if eightbitmime else "7bit"
    policy = message.policy.clone(linesep="\r\n", cte_type=cte_type, mangle_from_=False)
    return policy.clone(utf8=utf8) if isinstance(policy, EmailPolicy) else policy


def _check_header_block(octets: bytes, names: Iterable[str]) -> None:
    """Raise unless the octets start with exactly these fields and a blank line (RFC 5322 section 2.2)."""
    position = 0
    for name in names:
        match = _FIELD.match(octets, position)
        # A header object taken from another message keeps the name that it had there.
        if match is None or match[1].lower() != name.lower().encode("ascii"):
            raise ValueError(
                f"header injection: the header block does not have {name} where the message has it"
            )
        position = match.end()
    if not octets.startswith(b"\r\n", position):
        raise ValueError("header injection: the header block has more fields than the message")
