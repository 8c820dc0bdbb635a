"""aiosmtpclient, in each of its ways.

A way is a word for the mode and, where it is not one awaited call after the other, a word for
how it is called: "stream-bdat-many" is `pipelining="stream"` with BDAT, through `send_messages`.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator, Sequence
from email.message import EmailMessage, Message
from typing import Any

import aiosmtpclient
from aiosmtpclient import AsyncSMTP, Delivery, Envelope

from .job import HELLO_NAME, IN_FLIGHT, Client, Job, Mail, NotAvailable

# Mode → the options that ask for it.
MODES: dict[str, dict[str, str]] = {
    "off": {"pipelining": "off", "chunking": "off"},
    "message": {"pipelining": "message", "chunking": "off"},
    "auto": {"pipelining": "message", "chunking": "auto"},
    "one-write": {"pipelining": "message", "chunking": "eager"},
    "stream-data": {"pipelining": "stream", "chunking": "off"},
    "stream-bdat": {"pipelining": "stream", "chunking": "eager"},
}
_CALLS = ("many", "tasks")


class Ours(Client):
    """One `AsyncSMTP`: awaited one at a time, through `send_messages`, or shared by tasks."""

    def __init__(self, job: Job) -> None:
        mode, _, call = job.way.rpartition("-")
        if call not in _CALLS:
            mode, call = job.way, ""
        self._smtp = _client(job.port, MODES[mode])
        self._call = {"": self._one_by_one, "many": self._many, "tasks": self._tasks}[call]

    async def connect(self) -> None:
        await self._smtp.connect()

    async def send(self, mails: Sequence[Mail]) -> None:
        await self._call(mails)

    async def quit(self) -> None:
        await self._smtp.quit()

    async def _one(self, mail: Mail) -> None:
        if isinstance(mail.content, EmailMessage):
            refused = await self._smtp.send_message(mail.content, mail.sender, mail.recipients)
        else:
            refused = await self._smtp.sendmail(mail.sender, mail.recipients, mail.content)
        if refused:
            raise AssertionError(refused)

    async def _one_by_one(self, mails: Sequence[Mail]) -> None:
        for mail in mails:
            await self._one(mail)

    async def _many(self, mails: Sequence[Mail]) -> None:
        async for outcome in self._smtp.send_messages(messages(mails)):
            if outcome.delivery is not Delivery.ACCEPTED:
                raise AssertionError(outcome)

    async def _tasks(self, mails: Sequence[Mail]) -> None:
        waiting = iter(mails)

        async def work() -> None:
            for mail in waiting:
                await self._one(mail)

        async with asyncio.TaskGroup() as group:
            for _ in range(IN_FLIGHT):
                group.create_task(work())


def messages(mails: Sequence[Mail]) -> Iterator[Message | Envelope]:
    """What `send_messages` takes."""
    # Made here, while it is measured: a user would have to make them too.
    for mail in mails:
        if isinstance(mail.content, EmailMessage):
            yield mail.content
        else:
            yield Envelope(mail.sender, mail.recipients, mail.content)


def _client(port: int, options: dict[str, str]) -> AsyncSMTP:
    wanted: dict[str, Any] = dict(options)
    if options["chunking"] == "off" and "chunking" not in inspect.signature(AsyncSMTP).parameters:
        del wanted["chunking"]  # a version that has no BDAT at all sends DATA without being asked
    try:
        return AsyncSMTP("127.0.0.1", port, HELLO_NAME, timeout=30, **wanted)
    except (ValueError, TypeError) as error:
        version = aiosmtpclient.__version__
        raise NotAvailable(f"aiosmtpclient {version} does not take it: {error}") from error


def make(job: Job) -> Client:
    """A client for this job."""
    return Ours(job)
