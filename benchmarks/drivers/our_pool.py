"""aiosmtpclient's pool: the ways of `ours` that end in "-pool".

Rules of this room:

* Every connection that the job asks for is open before the clock starts: what is measured is
  sending, not opening. `max_messages` is None, so that none is renewed meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import aiosmtpclient
from aiosmtpclient import Delivery

from .job import HELLO_NAME, Client, Job, Mail, NotAvailable
from .ours import MODES, messages
from .several import some_at_a_time


class OurPool(Client):
    """One `SMTPPool`, through `send_messages`."""

    def __init__(self, job: Job) -> None:
        if not hasattr(aiosmtpclient, "SMTPPool"):
            raise NotAvailable(f"aiosmtpclient {aiosmtpclient.__version__} has no pool")
        options: dict[str, Any] = dict(MODES[job.way.removesuffix("-pool")])
        self._connections = job.connections
        self._pool = aiosmtpclient.SMTPPool(
            "127.0.0.1",
            job.port,
            HELLO_NAME,
            timeout=30,
            max_connections=job.connections,
            max_messages=None,
            **options,
        )

    async def connect(self) -> None:
        # Past the public door: each `connection()` that is held is a generator as well, and those
        # of ten thousand would leave holes in the memory that is measured next.
        slots: list[Any] = []

        async def one() -> None:
            slots.append(await self._pool._borrow(alone=True, patient=True))

        await some_at_a_time(one() for _ in range(self._connections))
        for slot in slots:
            self._pool._here().give_back(slot, alone=True)
        if self._pool.stats().idle != self._connections:
            raise AssertionError(self._pool)

    async def send(self, mails: Sequence[Mail]) -> None:
        async for outcome in self._pool.send_messages(messages(mails)):
            if outcome.delivery is not Delivery.ACCEPTED:
                raise AssertionError(outcome)

    async def borrow(self, times: int) -> None:
        for _ in range(times):
            async with self._pool.connection():
                pass

    async def quit(self) -> None:
        await self._pool.close()


def make(job: Job) -> Client:
    """A client for this job."""
    return OurPool(job)
