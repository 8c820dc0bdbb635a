"""The mail that is sent: no two messages the same, none of them special.

Senders, recipients, headers and bodies differ from message to message and from run to run, so
that no client's cache can have seen them. Bodies are lines as base64 has them, clean: CRLF, no
dot at the start of a line. That is what large mail looks like, and it makes the octets on the
wire the same for every client.
"""

from __future__ import annotations

import base64
import itertools
import random
from email.message import EmailMessage
from pathlib import Path

from .job import Job, Mail

HOST = "client.example"
_LINE = 78  # octets of a body line, CRLF included
_RING = 13_000  # lines to take bodies from: about 1 MB
_RUN = 10_000_000  # numbers that one run may use up


class MailSource:
    """Makes the mails of one job.

    Args:
        job: says what they look like.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._numbers = itertools.count((job.seed + 1) * _RUN)
        chance = random.Random(job.seed)
        encoded = base64.b64encode(chance.randbytes(_RING * 57))
        lines = [encoded[start : start + 76] for start in range(0, len(encoded), 76)]
        self._ring = b"\r\n".join(lines) + b"\r\n"

    def take(self, count: int) -> list[Mail]:
        """The next mails."""
        return [self.mail(next(self._numbers)) for _ in range(count)]

    def small(self) -> Mail:
        """A small message, to warm up with."""
        number = next(self._numbers)
        return Mail(_sender(number), _recipients(number, 1), self._octets(number, 1024))

    def mail(self, number: int) -> Mail:
        """The mail of this number."""
        sender, recipients = _sender(number), _recipients(number, self._job.recipients)
        content: bytes | EmailMessage
        if self._job.style == "bytes":
            content = self._octets(number, self._job.size)
        else:
            content = self._message(number, sender, recipients)
        return Mail(sender, recipients, content)

    def file(self, path: Path) -> Mail:
        """A mail whose content is a file, written here piece by piece."""
        number = next(self._numbers)
        with path.open("wb") as file:
            file.write(_headers(number))
            for _ in range(self._job.size // len(self._ring)):
                file.write(self._ring)
        return Mail(_sender(number), _recipients(number, self._job.recipients), path)

    def _octets(self, number: int, size: int) -> bytes:
        headers = _headers(number)
        lines, rest = divmod(size - len(headers) - 2, _LINE)
        start = number * 7919 % _RING * _LINE
        turns, end = divmod(start + lines * _LINE, len(self._ring))
        # The ring is entered anywhere and left anywhere, at the start of a line.
        if turns:
            body = [self._ring[start:], *[self._ring] * (turns - 1), self._ring[:end]]
        else:
            body = [self._ring[start:end]]
        return b"".join([headers, *body, b"x" * rest, b"\r\n"])

    def _message(self, number: int, sender: str, recipients: list[str]) -> EmailMessage:
        message = EmailMessage()
        message["From"] = f"Sender {number} <{sender}>"
        message["To"] = ", ".join(recipients)
        message["Subject"] = f"Report {number} of the benchmark"
        message["Date"] = "Sat, 21 Nov 2026 12:00:00 +0000"
        message["Message-ID"] = f"<{number}@{HOST}>"
        if self._job.style == "text":
            message.set_content(self._octets(number, self._job.size).decode().replace("\r\n", "\n"))
            return message
        message.set_content(f"The report {number} is attached.\n")
        data = random.Random(number).randbytes(self._job.size)
        message.add_attachment(data, "application", "octet-stream", filename=f"report-{number}.bin")
        return message


def _sender(number: int) -> str:
    return f"sender{number}@{HOST}"


def _recipients(number: int, count: int) -> list[str]:
    return [f"user{number}.{each}@example{(number + each) % 997}.org" for each in range(count)]


def _headers(number: int) -> bytes:
    return b"From: sender@%b\r\nTo: user@example.org\r\nSubject: %d\r\nMessage-ID: <%d@%b>\r\n\r\n" % (
        HOST.encode(),
        number,
        number,
        HOST.encode(),
    )
