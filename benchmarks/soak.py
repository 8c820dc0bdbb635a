"""The soak: a long run through one pool, and what it does to memory.

``python -m benchmarks.soak`` sends 200,000 messages, no two the same, and prints by how much the
resident memory grew meanwhile: as the slope of a line through many samples, so that neither a
buffer that comes and goes nor the first or last sample decides. It exits with 1 if that is too
much, or if the sink did not see every message once.

Rules of this room:

* What is measured was warmed up by doing it: connections were opened, used up and renewed, the
  heap has the size that the work needs.
* Messages are made one at a time, and nothing is kept of an outcome.
* The collector runs before each sample: what it would still find is no leak.
* A hole in the heap hides what leaks into it: no block is freed beforehand here, as it is for the
  other benchmarks, and the number of blocks that the interpreter has in use is shown as well.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import sys
import time
from collections.abc import Iterator
from email.message import Message
from typing import Any

from aiosmtpclient import Delivery, Envelope, SMTPPool

from .drivers.job import HELLO_NAME, Job
from .drivers.mails import MailSource
from .drivers.measure import resident
from .drivers.ours import MODES, messages
from .servers import sink

MOST = 1.0
"""MiB by which memory may grow in the whole run."""
_SAMPLES = 100


class Samples:
    """Resident memory and blocks in use, by how many messages were sent."""

    def __init__(self) -> None:
        self._sent: list[int] = []
        self._kib: list[int] = []
        self._blocks: list[int] = []

    def take(self, sent: int) -> None:
        """Look now."""
        gc.collect()
        self._sent.append(sent)
        self._kib.append(resident())
        self._blocks.append(sys.getallocatedblocks())

    @property
    def growth(self) -> float:
        """MiB over the whole run, by the slope."""
        return self._grown(self._kib) / 1024

    @property
    def blocks(self) -> float:
        """Blocks over the whole run, by the slope."""
        return self._grown(self._blocks)

    def _grown(self, values: list[int]) -> float:
        slope = statistics.linear_regression(self._sent, values).slope
        return slope * (self._sent[-1] - self._sent[0])

    @property
    def last(self) -> float:
        """MiB at the end."""
        return self._kib[-1] / 1024


def _envelopes(source: MailSource, count: int) -> Iterator[Message | Envelope]:
    for _ in range(count):
        yield from messages(source.take(1))


async def _send(pool: SMTPPool, source: MailSource, count: int, samples: Samples | None = None) -> None:
    sent, step = 0, max(1, count // _SAMPLES)
    async for outcome in pool.send_messages(_envelopes(source, count)):
        if outcome.delivery is not Delivery.ACCEPTED:
            raise AssertionError(outcome)
        sent += 1
        if samples is not None and sent % step == 0:
            samples.take(sent)


async def soak(arguments: argparse.Namespace, port: int) -> bool:
    """Warm up, send, print the figure; True if memory stayed where it was."""
    source = MailSource(Job("send", "aiosmtpclient", arguments.way, "asyncio", port, size=arguments.size))
    samples = Samples()
    options: dict[str, Any] = dict(MODES[arguments.way])
    pool = SMTPPool("127.0.0.1", port, HELLO_NAME, max_connections=arguments.connections, **options)
    async with pool:
        await _send(pool, source, arguments.warm_up)
        begin = time.perf_counter()
        await _send(pool, source, arguments.messages, samples)
        seconds = time.perf_counter() - begin
        opened = pool.stats().opened
    good = samples.growth < MOST
    print(
        f"resident memory: {samples.growth:+.2f} MiB over {arguments.messages:,} messages, by the slope "
        f"(wanted: less than {MOST:g}{'' if good else ', MISSED'}); {samples.last:.1f} MiB at the end; "
        f"{samples.blocks:+,.0f} blocks in use; "
        f"{arguments.messages / seconds:,.0f} messages/s; {opened} connections opened"
    )
    return good


def main() -> int:
    """Read the command line, run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description="A long run, and memory.")
    parser.add_argument("--messages", type=int, default=200_000)
    parser.add_argument("--warm-up", type=int, default=40_000, help="messages sent before it is measured")
    parser.add_argument("--connections", type=int, default=10)
    parser.add_argument("--size", type=int, default=1024, help="octets of a message")
    parser.add_argument("--way", choices=sorted(MODES), default="message")
    arguments = parser.parse_args()
    with sink() as server:
        good = asyncio.run(soak(arguments, server.port))
        seen, sent = server.take().messages, arguments.warm_up + arguments.messages
    if seen != sent:
        print(f"{sent:,} messages were accepted, and the sink saw {seen:,}")
    return 0 if good and seen == sent else 1


if __name__ == "__main__":
    sys.exit(main())
