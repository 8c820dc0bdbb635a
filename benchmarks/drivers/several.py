"""Several connections of a client that has no pool: a client each, and a task each.

Rules of this room:

* Each connection gets its share of the messages beforehand, and sends one after the other. The
  shares are the same size, so none waits for another at the end.
* They are opened and closed fifty at a time: one at a time takes long over a long line, and all
  at once is more than a server lets wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace

from .job import Client, Job, Mail

_AT_A_TIME = 50


class Several(Client):
    """As many clients as the job says."""

    def __init__(self, job: Job, make: Callable[[Job], Client]) -> None:
        single = replace(job, connections=1)
        self._clients = [make(single) for _ in range(job.connections)]

    async def connect(self) -> None:
        await some_at_a_time(client.connect() for client in self._clients)

    def prepare(self, mails: Sequence[Mail]) -> None:
        for client, share in self._shares(mails):
            client.prepare(share)

    async def send(self, mails: Sequence[Mail]) -> None:
        async with asyncio.TaskGroup() as group:
            for client, share in self._shares(mails):
                group.create_task(client.send(share))

    def _shares(self, mails: Sequence[Mail]) -> Iterable[tuple[Client, Sequence[Mail]]]:
        count = len(self._clients)
        return ((client, mails[number::count]) for number, client in enumerate(self._clients))

    async def quit(self) -> None:
        await some_at_a_time(client.quit() for client in self._clients)


async def some_at_a_time(work: Iterable[Awaitable[None]]) -> None:
    """Await all of it, so many at a time."""
    waiting = iter(work)

    async def lane() -> None:
        for each in waiting:
            await each

    async with asyncio.TaskGroup() as group:
        for _ in range(_AT_A_TIME):
            group.create_task(lane())
