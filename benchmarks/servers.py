"""The processes that a run needs besides the drivers: the sink, the long line, Postfix's sink.

Rules of this room:

* Each is a process of its own on 127.0.0.1, so that what it costs is not the client's time.
* Each ends with the run that started it: at the end of its standard input, or by its own id.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

HERE = Path(__file__).parent
_POSTFIX = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin"


@dataclass(frozen=True, slots=True)
class Counters:
    """What the sink saw since it was last asked."""

    messages: int
    recipients: int
    octets: int
    waits: int
    connections: int
    commands: int
    cpu_seconds: float


class Server(Protocol):
    """Something to send to."""

    port: int
    name: str

    def take(self) -> Counters | None:
        """What it saw since it was last asked; None if it does not count."""


class Sink:
    """Our sink, in C where a compiler is, else in Python."""

    def __init__(self, process: subprocess.Popen[str], name: str) -> None:
        self._process = process
        self.name = name
        self.port = _ready(process)

    def take(self) -> Counters:
        """What it saw since it was last asked."""
        return Counters(**json.loads(self._ask("take")))

    def hold(self, milliseconds: int) -> None:
        """Let replies wait for silence; 0 ends that."""
        self._ask(f"hold {milliseconds}")

    def _ask(self, line: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the sink ended with {self._process.wait()}")
        return answer


@contextlib.contextmanager
def sink(*, python: bool = False) -> Iterator[Sink]:
    """Start our sink; `python` for the one that needs no compiler."""
    with tempfile.TemporaryDirectory() as folder:
        program, name = Path(folder, "sink"), "sink.py"
        command = [sys.executable, str(HERE / "sink.py")]
        if not python and (version := _compiled(program)):
            command, name = [str(program)], f"sink.c ({version})"
        with _started(command) as process:
            yield Sink(process, name)


@contextlib.contextmanager
def long_line(port: int, milliseconds: float) -> Iterator[int]:
    """Start the proxy that delays; gives the port of its near end."""
    command = [sys.executable, "-m", f"{__package__}.proxy", str(port), str(milliseconds)]
    with _started(command) as process:
        yield _ready(process)


class SmtpSink:
    """Postfix's smtp-sink: somebody else's idea of a fast sink."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.name = f"smtp-sink (Postfix {postfix_version()})"

    def take(self) -> None:
        """It tells nothing."""


@contextlib.contextmanager
def smtp_sink() -> Iterator[SmtpSink | None]:
    """Start Postfix's smtp-sink; None where it is not installed or does not start."""
    program = shutil.which("smtp-sink", path=_POSTFIX)
    if program is None:
        yield None
        return
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    # It insists on dropping what rights it has.
    rights = ["-u", "nobody"] if os.geteuid() == 0 else []
    command = [program, *rights, f"127.0.0.1:{port}", "1000"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield SmtpSink(port) if _answers(port, process) else None
    finally:
        process.terminate()
        process.wait()


def round_trip(port: int) -> float:
    """The milliseconds that a NOOP takes, as a median of some."""
    times = []
    with socket.create_connection(("127.0.0.1", port), timeout=10) as line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        line.recv(1024)
        for _ in range(7):
            begin = time.perf_counter()
            line.sendall(b"NOOP\r\n")
            line.recv(1024)
            times.append(time.perf_counter() - begin)
    return statistics.median(times) * 1000


def postfix_version() -> str:
    """The version of the Postfix that is installed; "" if none is."""
    program = shutil.which("postconf", path=_POSTFIX)
    if program is None:
        return ""
    ran = subprocess.run([program, "-dh", "mail_version"], capture_output=True, text=True)
    return ran.stdout.strip()


def _compiled(program: Path) -> str:
    """Compile the sink; returns the compiler's name and version, "" if there is none."""
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        return ""
    command = [compiler, "-O2", "-o", str(program), str(HERE / "sink.c")]
    if subprocess.run(command, capture_output=True).returncode:
        return ""
    ran = subprocess.run([compiler, "--version"], capture_output=True, text=True)
    return ran.stdout.partition("\n")[0].strip()


@contextlib.contextmanager
def _started(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=HERE.parent
    )
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _ready(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    word, _, port = process.stdout.readline().partition(" ")
    if word != "ready":
        raise RuntimeError(f"{process.args!r} did not start")
    return int(port)


def _answers(port: int, process: subprocess.Popen[bytes]) -> bool:
    until = time.monotonic() + 5
    while time.monotonic() < until and process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as line:
                return line.recv(64).startswith(b"220")
        except OSError:
            time.sleep(0.02)
    return False
