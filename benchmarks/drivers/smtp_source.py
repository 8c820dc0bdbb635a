"""Postfix's smtp-source: a load generator in C, one command a round trip.

It makes its own messages, of the size asked for, and prefixes a number to each recipient. Its
start is not part of the measurement: the time of a run of one message is taken off.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
import time

from .job import Job, NotAvailable, Result


def measure(job: Job) -> Result:
    """Run it as long as the job says.

    Raises:
        NotAvailable: it is not installed.
    """
    program = shutil.which("smtp-source", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        raise NotAvailable("Postfix's smtp-source is not installed")
    if job.count:
        return _result(job, job.count, _run(program, job, job.count), 0.0, 0)
    start = min(_run(program, job, 1) for _ in range(3))
    count, sent = 0, 3
    spent = 0.0
    while spent < job.seconds / 5:
        count = count * 4 or 50
        spent = _run(program, job, count) - start
        sent += count
    count = max(1, int(count / spent * job.seconds))
    cpu = _cpu_seconds()
    seconds = _run(program, job, count) - start
    return _result(job, count, seconds, _cpu_seconds() - cpu, sent)


def _result(job: Job, count: int, seconds: float, cpu: float, before: int) -> Result:
    return Result(
        value=count / seconds,
        seconds=seconds,
        messages=count,
        octets=count * job.size,
        sent=before + count,
        cpu_seconds=cpu,
        maxrss_kib=resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss,
    )


def _run(program: str, job: Job, count: int) -> float:
    # -d: all messages over one connection. -N: no two recipients the same.
    command = [program, "-4", "-d", "-N", "-m", str(count), "-r", str(job.recipients), "-l", str(job.size)]
    command += ["-M", "client.example", "-f", "sender@client.example", "-t", "user@example.org"]
    begin = time.perf_counter()
    subprocess.run([*command, f"127.0.0.1:{job.port}"], check=True, capture_output=True, timeout=60)
    return time.perf_counter() - begin


def _cpu_seconds() -> float:
    use = resource.getrusage(resource.RUSAGE_CHILDREN)
    return use.ru_utime + use.ru_stime
