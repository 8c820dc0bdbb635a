"""How each kind of job is measured, the same for every client.

Rules of this room:

* Before anything else one block of 4 MiB is freed. asyncio's `Protocol` reads into 256 KiB
  blocks, and until the process has once freed a larger one, the allocator gives each of them
  back to the system at once: three system calls a read, for some clients and not for others.
  Every client is measured on such a warm heap, as in a process that has worked for a while.
* Messages are made before the clock starts, sent while it runs, and never sent twice.
* What is measured was warmed up by doing it: at least a fifth of the time that is measured.
"""

from __future__ import annotations

import asyncio
import gc
import resource
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from .job import IN_FLIGHT, Client, Job, Kind, Mail, Result
from .mails import MailSource

_HEAP_BLOCK = 4 << 20
_BATCH_OCTETS = 96 << 20
_BATCH_COUNT = 20_000
_WARM = 20  # connections that are open before memory is looked at
_SPARE = 100  # files that a process needs for other things
_BORROWED = 200  # times in a row, as one sample
_STALLS = 3
Make = Callable[[Job], Client]


class Stopwatch:
    """Adds up the time and the CPU time of what is done under it."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.cpu_seconds = 0.0

    def __enter__(self) -> None:
        gc.collect()
        gc.freeze()  # the mails that wait are no work for the collector
        self._cpu = time.process_time()
        self._begin = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._begin
        self.cpu_seconds += time.process_time() - self._cpu


def warm_heap() -> None:
    """Free one large block: see the head of this module."""
    block = bytearray(_HEAP_BLOCK)
    del block


async def measure(job: Job, make: Make) -> Result:
    """Do the job."""
    warm_heap()
    return await _KINDS[job.kind](job, make)


# -- sending -------------------------------------------------------------------------------


async def _send(job: Job, make: Make) -> Result:
    source, client = MailSource(job), make(job)
    await client.connect()
    watch = Stopwatch()
    if job.count:
        sent = measured = job.count
        octets = await _batch(client, source.take(job.count), watch)
    else:
        rate, sent = await _warm_up(client, source, job)
        measured = octets = 0
        while watch.seconds < job.seconds * 0.9:
            left = job.seconds - watch.seconds
            count = min(max(1, int(rate * left)), _BATCH_COUNT, max(1, _BATCH_OCTETS // job.size))
            count = _for_all(count, job)
            octets += await _batch(client, source.take(count), watch)
            measured += count
        sent += measured
    await client.quit()
    return _result(measured / watch.seconds, watch, measured, octets, sent)


async def _batch(client: Client, mails: Sequence[Mail], watch: Stopwatch) -> int:
    client.prepare(mails)
    with watch:
        await client.send(mails)
    return sum(len(mail.content) for mail in mails if isinstance(mail.content, bytes))


def _for_all(count: int, job: Job) -> int:
    """As many for each connection as for the others: none waits at the end for another."""
    return -(-count // job.connections) * job.connections


async def _warm_up(client: Client, source: MailSource, job: Job) -> tuple[float, int]:
    """Send for a fifth of the time; returns messages a second, and how many there were."""
    seconds, count, sent = job.seconds / 5, job.connections, 0
    while True:
        watch = Stopwatch()
        await _batch(client, source.take(count), watch)
        sent += count
        if watch.seconds >= seconds or count >= _BATCH_COUNT:
            return count / watch.seconds, sent
        # Four times as many, or fewer if they would take longer than wanted.
        count = max(count + 1, min(count * 4, int(count * seconds * 1.2 / watch.seconds) + 1))
        count = _for_all(count, job)


# -- connecting ----------------------------------------------------------------------------


async def _connect(job: Job, make: Make) -> Result:
    """Connect, EHLO, QUIT, one after the other; the limit client may do several at a time."""
    lanes = IN_FLIGHT if job.way == "parallel" else 1

    async def lane(numbers: Iterator[int]) -> None:
        for _ in numbers:
            client = make(job)
            await client.connect()
            await client.quit()

    async def times(count: int) -> None:
        numbers = iter(range(count))
        await asyncio.gather(*(lane(numbers) for _ in range(lanes)))

    rate = await _warm_up_by(times, job.seconds / 5)
    count, watch = max(1, int(rate * job.seconds)), Stopwatch()
    with watch:
        await times(count)
    return _result(count / watch.seconds, watch, count, 0, 0)


async def _warm_up_by(times: Callable[[int], Awaitable[None]], seconds: float) -> float:
    count = 1
    while True:
        begin = time.perf_counter()
        await times(count)
        spent = time.perf_counter() - begin
        if spent >= seconds:
            return count / spent
        count *= 2


async def _borrow(job: Job, make: Make) -> Result:
    """Microseconds to borrow a connection that is idle and to give it back: a median."""
    client = make(job)
    await client.connect()
    await _warm_up_by(client.borrow, job.seconds / 5)
    samples: list[float] = []
    watch = Stopwatch()
    with watch:
        end = time.perf_counter() + job.seconds
        while (begin := time.perf_counter()) < end:
            await client.borrow(_BORROWED)
            samples.append(time.perf_counter() - begin)
    await client.quit()
    each = statistics.median(samples) / _BORROWED
    return _result(each * 1e6, watch, len(samples) * _BORROWED, 0, 0)


# -- the loop ------------------------------------------------------------------------------


async def _stall(job: Job, make: Make) -> Result:
    """For how many milliseconds nothing else ran on the loop while one large message was sent.

    It is the longest such time in a send, and the best of three sends: what the machine had
    to do besides is no stall of the client's.
    """
    source, client, gaps = MailSource(job), make(job), []
    await client.connect()
    watch = Stopwatch()
    for _ in range(_STALLS):
        mails = source.take(1)
        client.prepare(mails)
        with watch:
            gaps.append(await _longest_gap(client.send(mails)))
        del mails
    await client.quit()
    return _result(min(gaps) * 1000, watch, _STALLS, 0, _STALLS)


async def _longest_gap(work: Awaitable[None]) -> float:
    gap, last = 0.0, time.perf_counter()

    async def tick() -> None:
        nonlocal gap, last
        while True:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            gap, last = max(gap, now - last), now

    ticking = asyncio.create_task(tick())
    await asyncio.sleep(0)
    await work
    gap = max(gap, time.perf_counter() - last)
    ticking.cancel()
    return gap


# -- memory --------------------------------------------------------------------------------


async def _memory(job: Job, make: Make) -> Result:
    """How much more memory one large message needs, beyond the message itself."""
    source = MailSource(job)
    return await _peak(make(job), source, source.take(1))


async def _file(job: Job, make: Make) -> Result:
    """The same for a message that lies in a file: who cannot read it in pieces reads it whole."""
    source = MailSource(job)
    with tempfile.TemporaryDirectory() as folder:
        return await _peak(make(job), source, [source.file(Path(folder, "message"))])


async def _peak(client: Client, source: MailSource, mails: Sequence[Mail]) -> Result:
    await client.connect()
    small, watch = [source.small() for _ in range(20)], Stopwatch()
    client.prepare(small)
    await client.send(small)
    gc.collect()
    before = _start_peak()
    with watch:
        await client.send(mails)
    extra = max(0, _peak_since() - before)
    await client.quit()
    return _result(extra, watch, len(mails), 0, len(small) + len(mails))


async def _idle(job: Job, make: Make) -> Result:
    """What a connection costs while nothing happens on it."""
    count = min(job.connections, _most_files() - _WARM - _SPARE)
    first = make(replace(job, connections=_WARM))
    await first.connect()
    gc.collect()
    before, watch = resident(), Stopwatch()
    with watch:
        client = make(replace(job, connections=count))
        await client.connect()
    gc.collect()
    each = (resident() - before) / count
    await client.quit()
    await first.quit()
    return _result(each, watch, count, 0, 0)


def _most_files() -> int:
    """As many files as this process may have open, after asking for as many as it may have."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard if hard != resource.RLIM_INFINITY else 1 << 30


def _start_peak() -> int:
    """Forget the highest memory so far, where Linux lets us; returns the present one, in KiB."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return _max_resident()
    return resident()


def _peak_since() -> int:
    return _proc("status", "VmHWM") or _max_resident()


def resident() -> int:
    """Present memory in KiB. Not from `status`: what stands there is only about right."""
    return _proc("smaps_rollup", "Rss") or _max_resident()


def _max_resident() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _proc(file: str, name: str) -> int:
    """A figure of this process in KiB; 0 where there is no such file."""
    try:
        lines = Path("/proc/self", file).read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(name + ":")), 0)


def _result(value: float, watch: Stopwatch, messages: int, octets: int, sent: int) -> Result:
    return Result(
        value=value,
        seconds=watch.seconds,
        messages=messages,
        octets=octets,
        sent=sent,
        cpu_seconds=watch.cpu_seconds,
        maxrss_kib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    )


_KINDS: dict[Kind, Callable[[Job, Make], Awaitable[Result]]] = {
    "send": _send,
    "connect": _connect,
    "memory": _memory,
    "file": _file,
    "stall": _stall,
    "idle": _idle,
    "borrow": _borrow,
}
