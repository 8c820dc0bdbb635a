"""What is sent: messages that servers are known to stumble over, and what must arrive of them."""

from __future__ import annotations

import functools
import itertools
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8

from .stored import MARK

SENDER = "sender@interop.test"
RECIPIENT = "ok@interop.test"
LIMIT = 20_000_000
"""Octets that every server here takes, where it can be told a limit."""

_numbers = itertools.count(1)


def key(what: str) -> str:
    """A name for one message that no other has."""
    return f"{what}-{next(_numbers)}"


def plain(name: str, lines: int = 3) -> bytes:
    """A short message in ASCII."""
    body = b"".join(b"line %d of a message\r\n" % number for number in range(1, lines + 1))
    return MARK + name.encode() + b"\r\n" + _fields(name) + b"\r\n" + body


def _fields(name: str) -> bytes:
    # All that a server may otherwise add by itself, and so move the rest.
    return (
        b"From: <sender@interop.test>\r\nTo: <ok@interop.test>\r\nSubject: interop\r\n"
        b"Date: Thu, 01 Jan 2026 00:00:00 +0000\r\nMessage-ID: <" + name.encode() + b"@interop.test>\r\n"
        b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n"
    )


def eight_bit(name: str) -> bytes:
    """A message with octets over 127, among them some that are no UTF-8."""
    return plain(name) + "Grüße, żółć, 日本語\r\n".encode() + bytes(range(0xA0, 0x100)) + b"\r\n"


def odd_lines(name: str) -> bytes:
    """Leading dots, lone dots, bare CR, bare LF, and no line end at the end."""
    return (
        plain(name)
        + b".\r\n..\r\n...\n.x\r\n\r\n.\n\r.\r\rbare\rcr\n\nfake end\n.\nMAIL FROM:<x>\r\n.\r\n.last"
    )


def on_the_wire(content: bytes) -> bytes:
    """What must arrive of octets: CR, LF and CRLF each are one line end, and the last line has one."""
    content = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return content if content.endswith(b"\n") else content + b"\n"


@functools.cache
def _attachment(octets: int) -> tuple[EmailMessage, bytes]:
    message = _object("@")
    message.set_content("See below.\n")
    data = bytes(range(256)) * (octets // 256)
    message.add_attachment(data, maintype="application", subtype="octet-stream", filename="data.bin")
    message.set_boundary("a-boundary-that-is-written-twice-the-same")
    return message, message.as_bytes()


def attachment(name: str, octets: int = 10 * 1024 * 1024) -> tuple[EmailMessage, bytes]:
    """A message object with this much attached, and its octets as the standard library writes them."""
    message, written = _attachment(octets)  # making it takes a second
    message.replace_header("X-Interop", name)
    return message, written.replace(b"X-Interop: @", MARK + name.encode(), 1)


def international(name: str, recipient: str) -> EmailMessage:
    """A message object with names and a subject that are not ASCII, to somebody."""
    message = _object(name, recipient)
    message.replace_header("Subject", "Zażółć gęślą jaźń, 日本語")
    message.set_content("Grüße an 日本.\n", cte="8bit")
    return message


def _object(name: str, recipient: str = RECIPIENT) -> EmailMessage:
    message = EmailMessage(policy=SMTPUTF8 if not recipient.isascii() else SMTP)
    message["X-Interop"] = name
    message["From"] = SENDER
    message["To"] = recipient
    message["Subject"] = "interop"
    message["Date"] = "Thu, 01 Jan 2026 00:00:00 +0000"
    message["Message-ID"] = f"<{name.strip('@') or 'an-attachment'}@interop.test>"
    return message


def many_recipients(count: int = 200) -> tuple[list[str], list[str]]:
    """So many addresses, every third of them one that servers here refuse; and those."""
    everybody = [
        f"reject{number}@interop.test" if number % 3 == 2 else f"ok{number}@interop.test"
        for number in range(count)
    ]
    return everybody, [address for address in everybody if address.startswith("reject")]
