"""Messages: from any kind of message to a checked envelope and the content for the wire.

`prepare()` is for callers that name the envelope (`sendmail`, `Envelope`), `prepare_message()`
for those that leave it to the headers (`send_message`). Both check everything and change
nothing: what they return can be sent, or they raise, and nothing was written yet.

Rules of this room:

* What message objects need is in `message_objects`, which is imported when the first one is
  sent: it needs most of the standard library's email package.
* SMTPUTF8 (RFC 6531) is asked for only when an address has a non-ASCII local part.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from email.message import Message
from typing import ClassVar, TypeAlias, Unpack

from .addresses import Address, Recipients
from .addresses import sender as reverse_path
from .content import InMemory, Source, Stream, content_of, needs_8bitmime
from .errors import SMTPNotSupportedError
from .parameters import MailOptions, Parameters
from .parameters import of as parameters_of

Body: TypeAlias = Message | bytes | bytearray | memoryview | str | Source
"""Everything that can be sent. A `str` is always text, never a file's name."""


@dataclass(frozen=True, init=False)
class Envelope:
    """A message with the envelope it is to travel in, which its headers do not decide.

    Args:
        sender: the reverse-path; empty for a bounce.
        recipients: one address, or any iterable of them; a `Recipient` has options of its own.
        content: the message, of any kind that can be sent.
        mail_options: raw parameters for MAIL, sent as they are.
        rcpt_options: raw parameters for each RCPT, sent as they are.
        all_or_nothing: True if one refused recipient refuses all.
        options: `ret`, `envid`, `notify` and the others of `MailOptions`.

    Attributes:
        parameters: those options, checked; None if there are none.
        plain: nothing is asked for but to be sent.

    Raises:
        ValueError: an option makes no sense, or the same is asked for by a raw one.
        TypeError: there is no such option.
    """

    sender: str
    recipients: tuple[str, ...]
    content: Body = field(repr=False)
    mail_options: tuple[str, ...] = ()
    rcpt_options: tuple[str, ...] = ()
    all_or_nothing: bool = False
    parameters: Parameters | None = None
    plain: ClassVar[bool] = True

    def __init__(
        self,
        sender: str,
        recipients: str | Iterable[str],
        content: Body,
        *,
        mail_options: str | Iterable[str] = (),
        rcpt_options: str | Iterable[str] = (),
        all_or_nothing: bool = False,
        parameters: Parameters | None = None,
        **options: Unpack[MailOptions],
    ) -> None:
        # The class is frozen, though not its instances' dicts. What is not given is the class's.
        own = self.__dict__
        own["sender"] = sender
        own["recipients"] = (recipients,) if isinstance(recipients, str) else tuple(recipients)
        own["content"] = content
        if not (mail_options or rcpt_options or all_or_nothing or options or parameters is not None):
            return
        own.update(
            plain=False,
            mail_options=_tuple(mail_options),
            rcpt_options=_tuple(rcpt_options),
            all_or_nothing=bool(all_or_nothing),
        )
        if options:
            parameters = parameters_of(options)
        if parameters is not None:
            parameters.refuse_doubles(self.mail_options, self.rcpt_options)
            own["parameters"] = parameters


@dataclass(slots=True)
class Prepared:
    """What can be sent: every address checked, the content in wire form or ready to be read.

    Attributes:
        sender: the reverse-path.
        recipients: the forward-paths, in the order asked for, duplicates included.
        content: the octets, or where to read them.
        smtputf8: True if MAIL must say SMTPUTF8, for the envelope's sake or for a header's.
    """

    sender: Address
    recipients: Recipients
    content: InMemory | Stream
    smtputf8: bool


def _tuple(values: str | Iterable[str]) -> tuple[str, ...]:
    return (values,) if isinstance(values, str) else tuple(values)


def prepare(
    sender: str,
    recipients: str | Iterable[str],
    content: Body,
    *,
    eightbitmime: bool,
    smtputf8: bool,
    binary: bool = False,
    utf8: bool = False,
) -> Prepared:
    """Check an explicit envelope, and bring the content into wire form.

    Args:
        sender: the reverse-path; empty for a bounce.
        recipients: one address, or any iterable of them.
        content: what to send. A message object is serialised; its address headers do not count.
        eightbitmime: True if the server offers 8BITMIME (RFC 6152).
        smtputf8: True if the server offers SMTPUTF8 (RFC 6531).
        binary: the content leaves octet for octet, by BINARYMIME (RFC 3030 section 3).
        utf8: SMTPUTF8 was asked for, whether the addresses need it or not.

    Raises:
        ValueError: an address, the headers or the content cannot be sent as they are.
        SMTPNotSupportedError: it can be sent, only not to this server.
    """
    recipients = recipients if type(recipients) is tuple else _tuple(recipients)
    if type(content) is bytes and not binary:
        return of_octets(sender, recipients, content, eightbitmime, smtputf8, utf8)
    reverse, forward = reverse_path(sender), Recipients.of(recipients)
    if not recipients:
        raise ValueError("there are no recipients")
    body: InMemory | Stream
    if isinstance(content, Message):
        from .message_objects import as_content, header_for_smtputf8

        if binary:
            raise ValueError("a message object has lines, and BINARYMIME is for octets that have none")
        utf8 = _needs_smtputf8(reverse, forward, header_for_smtputf8(content), smtputf8) or utf8
        body = as_content(content, eightbitmime=eightbitmime, utf8=utf8)
    else:
        utf8 = _needs_smtputf8(reverse, forward, "", smtputf8) or utf8
        body = content_of(content, binary=binary)
        if body.eightbit and not (eightbitmime or utf8 or binary):
            raise needs_8bitmime()
    return Prepared(reverse, forward, body, utf8)


def of_octets(
    sender: str,
    recipients: tuple[str, ...],
    content: bytes,
    eightbitmime: bool,
    smtputf8: bool,
    utf8: bool = False,
) -> Prepared:
    """The same as `prepare` for octets, which most messages are by then."""
    reverse, forward = reverse_path(sender), Recipients.of(recipients)
    if not recipients:
        raise ValueError("there are no recipients")
    if reverse.needs_smtputf8 or forward.international:
        utf8 = _needs_smtputf8(reverse, forward, "", smtputf8) or utf8
    body = InMemory.of(content)
    if body.eightbit and not (eightbitmime or utf8):
        raise needs_8bitmime()
    return Prepared(reverse, forward, body, utf8)


def _needs_smtputf8(reverse: Address, forward: Recipients, what: str, offered: bool) -> bool:
    international = reverse.text if reverse.needs_smtputf8 else forward.international
    if international:
        what = f"the address {international!r}"
    if what and not offered:
        raise SMTPNotSupportedError(
            f"{what} has a non-ASCII local part, and the server does not offer SMTPUTF8"
        )
    return bool(what)


def prepare_message(
    message: Message,
    from_addr: str | None,
    to_addrs: str | Iterable[str] | None,
    *,
    eightbitmime: bool,
    smtputf8: bool,
    utf8: bool = False,
) -> Prepared:
    """Check a message object and the envelope that its headers ask for.

    Args:
        message: what to send; it is not changed.
        from_addr: the reverse-path, instead of the first address of Sender, else of From.
        to_addrs: the recipients, instead of the addresses of all To, Cc and Bcc headers.
        eightbitmime: True if the server offers 8BITMIME; if not, the content is re-encoded.
        smtputf8: True if the server offers SMTPUTF8.
        utf8: SMTPUTF8 was asked for, whether the addresses need it or not.

    A message with a Resent-Date is sent by its Resent-* headers (RFC 5322 section 3.6.6).

    Raises:
        ValueError: no sender, no recipient, or something that cannot be sent as it is.
        SMTPNotSupportedError: it can be sent, only not to this server.
    """
    from .message_objects import envelope_of

    from_addr, to_addrs = envelope_of(message, from_addr, to_addrs)
    return prepare(from_addr, to_addrs, message, eightbitmime=eightbitmime, smtputf8=smtputf8, utf8=utf8)
