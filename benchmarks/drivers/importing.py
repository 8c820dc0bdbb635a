"""What an import costs over `import asyncio` alone, in a fresh interpreter."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile

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
    """Import it six times: once to have it compiled, then the fastest of five counts.

    Raises:
        NotAvailable: it is not installed.
    """
    with tempfile.TemporaryDirectory(prefix="bytecode-") as folder:
        seconds = min([_seconds(job.client, folder) for _ in range(6)][1:])
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return Result(seconds * 1000, seconds, 1, 0, 0, seconds, peak)


def _seconds(module: str, bytecode: str) -> float:
    # Whatever is set here, what was compiled is kept, as it is for users, and not beside the sources.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = bytecode
    # -P: the folder this is started in is not where modules are looked for first.
    command = [sys.executable, "-P", "-c", _CODE, module]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    if ran.returncode == 3:
        raise NotAvailable(f"{module} is not installed")
    ran.check_returncode()
    return float(ran.stdout)
