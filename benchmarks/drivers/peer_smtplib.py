"""The standard library's smtplib: blocking, one command a round trip."""

from __future__ import annotations

import smtplib
from collections.abc import Sequence
from email.message import EmailMessage

from .job import HELLO_NAME, Client, Job, Mail


class Smtplib(Client):
    """Coroutines that never suspend: the interface is asynchronous, the client is not."""

    def __init__(self, job: Job) -> None:
        self._smtp = smtplib.SMTP(local_hostname=HELLO_NAME, timeout=60)
        self._port = job.port

    async def connect(self) -> None:
        self._smtp.connect("127.0.0.1", self._port)
        self._smtp.ehlo()

    async def send(self, mails: Sequence[Mail]) -> None:
        for mail in mails:
            if isinstance(mail.content, EmailMessage):
                refused = self._smtp.send_message(mail.content, mail.sender, mail.recipients)
            else:
                refused = self._smtp.sendmail(mail.sender, mail.recipients, mail.octets())
            if refused:
                raise AssertionError(refused)

    async def quit(self) -> None:
        self._smtp.quit()


def make(job: Job) -> Client:
    """A client for this job."""
    return Smtplib(job)
