"""Where it was measured: without that a figure means nothing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

from .servers import HERE, postfix_version


def describe() -> dict[str, str]:
    """Machine and versions, name → value, in the order to print them in."""
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.release()}, {' '.join(platform.libc_ver())}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "aiosmtpclient": _ours(),
        "aiosmtplib": _version("aiosmtplib"),
        "uvloop": _version("uvloop"),
        "postfix": postfix_version() or "not installed",
    }


def load() -> str:
    """How busy the machine was in the last minute."""
    try:
        return f"{os.getloadavg()[0]:.1f}"
    except OSError:
        return "unknown"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _ours() -> str:
    """The version that will be imported, and the commit of the checkout around this folder."""
    try:
        import aiosmtpclient
    except ModuleNotFoundError:
        return "not installed"
    checkout = Path(aiosmtpclient.__file__).parents[1]
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty"]
    try:
        commit = subprocess.run(command, capture_output=True, text=True, cwd=HERE).stdout.strip()
    except OSError:
        commit = ""
    return f"{aiosmtpclient.__version__} ({commit})" if commit else aiosmtpclient.__version__
