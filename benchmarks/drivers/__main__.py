"""Does one job: ``python -m benchmarks.drivers JOB`` prints one line of JSON.

The line is a `Result`, or ``{"not_available": why}`` where this client cannot do it here.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable

from . import importing, smtp_source
from .job import Job, NotAvailable, Result


def _new_loop(name: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if name != "uvloop":
        return None
    try:
        import uvloop
    except ModuleNotFoundError as error:
        raise NotAvailable("uvloop is not installed") from error
    return uvloop.new_event_loop


def perform(job: Job) -> Result:
    """Do the job in this process."""
    if job.kind == "import":
        return importing.measure(job)
    if job.client == "smtp-source":
        return smtp_source.measure(job)
    from .measure import measure
    from .registry import factory

    with asyncio.Runner(loop_factory=_new_loop(job.loop)) as runner:
        return runner.run(measure(job, factory(job)))


def main() -> None:
    """Read the job, print the result."""
    try:
        print(perform(Job(**json.loads(sys.argv[1]))).dumps())
    except NotAvailable as error:
        print(json.dumps({"not_available": str(error)}))


if __name__ == "__main__":
    main()
