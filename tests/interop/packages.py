"""Where the servers come from: this machine, Debian's packages, npm, or for one library PyPI.

Rules of this room:

* Nothing is installed: a package is unpacked into a folder of our own, where mail servers that
  exclude one another live side by side and no script of a package runs. What the machine has
  installed itself is used as it is, with other settings in another place.
* What cannot be had is `NotToBeHad`, with the reason in words that go into the report.
* What was fetched is kept for the next run, in a folder that a server without privileges can
  reach too. `INTEROP_CACHE` names another one, and `INTEROP_UNPACKED` lets what is installed alone.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

PATIENCE = 300
"""Seconds that fetching one package may take."""
_DOWNLOADED = "[0-9A-Za-z.+-]+_(?:[0-9]+%3a)?(?P<version>[0-9A-Za-z.]+)"


class NotToBeHad(Exception):
    """A server that cannot take part here, and why."""


class Software(NamedTuple):
    """A server's programs, where they are on this machine.

    Attributes:
        root: the folder that stands for "/".
        version: of the server, as Debian or npm numbers it.
    """

    root: Path
    version: str

    @property
    def unpacked(self) -> bool:
        """It is not installed: programs that look for their files in /usr find none."""
        return self.root != Path("/")

    def path(self, name: str) -> Path:
        """Where this file of it is."""
        return self.root / name

    @property
    def environment(self) -> dict[str, str]:
        """What its programs need to find their libraries."""
        if not self.unpacked:
            return {}
        names = {file.parent for place in ("lib", "usr/lib") for file in self.root.glob(f"{place}/**/*.so*")}
        return {"LD_LIBRARY_PATH": ":".join(map(str, sorted(names)))}


@functools.cache
def cache() -> Path:
    """The folder for what was fetched."""
    given = os.environ.get("INTEROP_CACHE")
    # Not under a home, which other users (as whom servers run) may not enter.
    folder = Path(given or f"/var/tmp/aiosmtpclient-interop-{os.geteuid()}")
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    status = folder.lstat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o022 or folder.is_symlink():
        raise NotToBeHad(f"{folder} belongs to somebody else, or others may write to it")
    return folder


def debian(*packages: str, program: str) -> Software:
    """Software out of Debian's packages: as installed, or unpacked for us.

    Args:
        packages: their names; the first one's version counts.
        program: the file without "/" in front that is there if they are installed.
    """
    if Path("/", program).exists() and not os.environ.get("INTEROP_UNPACKED"):
        version = _run("dpkg-query", "-W", "-f", "${Version}", packages[0], may_fail=True)
        return Software(Path("/"), _upstream(version) if version else "of this machine")
    return unpacked(*packages)


@functools.cache
def unpacked(*packages: str) -> Software:
    """The same, always unpacked, with the libraries that this machine lacks."""
    folder = cache() / packages[0]
    ready = folder / ".ready"
    if not ready.exists():
        if shutil.which("apt-get") is None:
            raise NotToBeHad("this is no Debian, and it is not installed")
        shutil.rmtree(folder, ignore_errors=True)
        debs = folder / "debs"
        debs.mkdir(parents=True)
        wanted = [*packages, *_lacking(packages)]
        _apt("download", *dict.fromkeys(wanted), cwd=debs)
        for deb in debs.iterdir():
            _run("dpkg", "-x", str(deb), str(folder))
        match = next(filter(None, (re.match(_DOWNLOADED, deb.name) for deb in debs.glob(f"{packages[0]}_*"))))
        shutil.rmtree(debs)
        ready.write_text(match["version"])
    return Software(folder, ready.read_text())


def _lacking(packages: tuple[str, ...]) -> list[str]:
    """Libraries that installing these would bring along."""
    said = _apt("--simulate", "--no-install-recommends", "install", *packages)
    names = re.findall(r"^Inst (\S+)", said, re.MULTILINE)
    return [name for name in names if name.startswith("lib")]


def _apt(*arguments: str, cwd: Path | None = None) -> str:
    try:
        return _run("apt-get", "--quiet", *arguments, cwd=cwd)
    except NotToBeHad:
        return _run("apt-get", "--quiet", *_own_lists(), *arguments, cwd=cwd)


@functools.cache
def _own_lists() -> tuple[str, ...]:
    """Options for package lists of our own: the machine has none, or they are out of date."""
    lists = cache() / "lists"
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    options = ("--option", f"Dir::State::lists={lists}", "--option", f"Dir::Cache={cache() / 'apt'}")
    _run("apt-get", "--quiet", *options, "--option", "APT::Sandbox::User=", "update")
    return options


def npm(name: str, version: str, overrides: Mapping[str, str] | None = None) -> Software:
    """A package of npm, with what it needs, for the node that is here."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise NotToBeHad("there is no node, or no npm")
    folder = cache() / name.lower()
    ready = folder / ".ready"
    if not ready.exists() or ready.read_text() != version:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        wanted = {"private": True, "dependencies": {name: version}, "overrides": dict(overrides or {})}
        (folder / "package.json").write_text(json.dumps(wanted))
        quietly = ("--omit=optional", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error")
        _run("npm", "install", *quietly, cwd=folder)
        ready.write_text(version)
    return Software(folder, version)


def pypi(*packages: str) -> Path:
    """A folder with packages of PyPI, for `sys.path`.

    They may have to be compiled, which takes minutes, so that is done only if it is asked for.
    """
    folder = cache() / "-".join(("python", *packages, sys.implementation.cache_tag or ""))
    ready = folder / ".ready"
    if not ready.exists():
        if not os.environ.get("INTEROP_COMPILE"):
            raise NotToBeHad(f"{', '.join(packages)}: not here, and INTEROP_COMPILE=1 would compile them")
        shutil.rmtree(folder, ignore_errors=True)
        pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        _run(*pip, "--target", str(folder), *packages, patience=1800)
        ready.touch()
    return folder


def _upstream(version: str) -> str:
    """`1:2.3.19.1+dfsg1-2.1` → `2.3.19.1`"""
    match = re.match(r"(?:\d+:)?([0-9A-Za-z.]+)", version)
    return match[1] if match is not None else version


def _run(*command: str, cwd: Path | None = None, may_fail: bool = False, patience: float = PATIENCE) -> str:
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=patience,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )
    except FileNotFoundError:
        raise NotToBeHad(f"there is no {command[0]}") from None
    except subprocess.TimeoutExpired:
        raise NotToBeHad(f"{command[0]} took too long") from None
    if done.returncode == 0:
        return done.stdout
    if may_fail:
        return ""
    lines = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("W:")]
    raise NotToBeHad(f"{command[0]}: {lines[-1] if lines else f'exit code {done.returncode}'}")
