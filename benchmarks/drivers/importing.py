"""What an import costs over `import asyncio` alone, in a fresh interpreter."""

from __future__ import annotations

import resource
import subprocess
import sys

from .job import Job, NotAvailable, Result

# The interpreter that runs this has imported nothing else: a driver would have.
_CODE = """
import asyncio, sys, time
begin = time.perf_counter()
try:
    __import__(sys.argv[1])
except ModuleNotFoundError:
    sys.exit(3)
print(time.perf_counter() - begin)
"""


def measure(job: Job) -> Result:
    """Import it four times: once to have it compiled, then the fastest of three counts.

    Raises:
        NotAvailable: it is not installed.
    """
    times = []
    for _ in range(4):
        # -P: the folder this is started in is not where modules are looked for first.
        ran = subprocess.run([sys.executable, "-P", "-c", _CODE, job.client], capture_output=True, text=True)
        if ran.returncode == 3:
            raise NotAvailable(f"{job.client} is not installed")
        ran.check_returncode()
        times.append(float(ran.stdout))
    seconds = min(times[1:])
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return Result(seconds * 1000, seconds, 1, 0, 0, seconds, peak)
