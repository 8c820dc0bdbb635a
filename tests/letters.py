"""Messages to test with, and short ways to prepare them."""

from __future__ import annotations

import email
from email import policy
from email.message import EmailMessage, Message

from aiosmtpclient.content import InMemory
from aiosmtpclient.message import Prepared, prepare_message
from aiosmtpclient.message_objects import as_content

POLICIES = [policy.compat32, policy.default, policy.SMTP, policy.SMTPUTF8]


def modern(**headers: str) -> EmailMessage:
    """An EmailMessage with From and To; other headers by name, with _ for the hyphen."""
    message = EmailMessage()
    for name, value in ({"From": "a@x", "To": "b@y"} | headers).items():
        message[name.replace("_", "-")] = value
    message.set_content("hello\n")
    return message


def legacy(*headers: tuple[str, object], body: str = "hello\n") -> Message:
    """A compat32 message with just these headers."""
    message = Message()
    for name, value in headers:
        message[name] = value  # type: ignore[assignment]
    message.set_payload(body)
    return message


def parsed(octets: bytes, by: policy.Policy = policy.compat32) -> Message:
    return email.message_from_bytes(octets, policy=by)


def sent(message: Message, *, eightbitmime: bool = True, utf8: bool = False) -> bytes:
    return as_content(message, eightbitmime=eightbitmime, utf8=utf8).data


def ready(
    message: Message,
    from_addr: str | None = None,
    to_addrs: str | list[str] | None = None,
    *,
    eightbitmime: bool = True,
    smtputf8: bool = False,
) -> Prepared:
    return prepare_message(message, from_addr, to_addrs, eightbitmime=eightbitmime, smtputf8=smtputf8)


def paths(prepared: Prepared) -> list[bytes]:
    return list(prepared.recipients.paths)


def data(prepared: Prepared) -> bytes:
    assert isinstance(prepared.content, InMemory)
    return prepared.content.data


def head(octets: bytes) -> bytes:
    return octets.partition(b"\r\n\r\n")[0]
