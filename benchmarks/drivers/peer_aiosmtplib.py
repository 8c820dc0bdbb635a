"""aiosmtplib: the peer that all ratios are given to."""

from __future__ import annotations

from collections.abc import Sequence
from email.message import EmailMessage

import aiosmtplib

from .job import HELLO_NAME, Client, Job, Mail


class Aiosmtplib(Client):
    """One `aiosmtplib.SMTP`, one message after the other: it has no other way."""

    def __init__(self, job: Job) -> None:
        self._smtp = aiosmtplib.SMTP(hostname="127.0.0.1", port=job.port, local_hostname=HELLO_NAME)

    async def connect(self) -> None:
        await self._smtp.connect()  # says EHLO too, to learn whether STARTTLS is offered

    async def send(self, mails: Sequence[Mail]) -> None:
        for mail in mails:
            if isinstance(mail.content, EmailMessage):
                refused, _ = await self._smtp.send_message(
                    mail.content, sender=mail.sender, recipients=mail.recipients
                )
            else:
                refused, _ = await self._smtp.sendmail(mail.sender, mail.recipients, mail.octets())
            if refused:
                raise AssertionError(refused)

    async def quit(self) -> None:
        await self._smtp.quit()


def make(job: Job) -> Client:
    """A client for this job."""
    return Aiosmtplib(job)
