"""The bulk part of the demo: `bulk` is killed in the middle of its work, and gone on with.

It runs as a process of its own, which gets a SIGKILL from outside when half of the messages have
arrived. What the next run, with `--resume`, makes of it is compared with what arrived.

Rules of this room:

* Everybody gets his message exactly once, unless the second run lists it as unknown: then once
  or not at all.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from .exits import Exit
from .meant import Meant

if TYPE_CHECKING:
    from aiosmtpclient.testing import MailServer, ReceivedMessage

READERS = 300
CONNECTIONS = 4
_HOUSE = Path(__file__).resolve().parents[2]
_PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What came of it.

    Attributes:
        lines: what there is to be said.
        problems: what is not as it was meant.
    """

    lines: tuple[str, ...]
    problems: tuple[str, ...]


def rehearse(letters: Sequence[Meant], folder: Path, smtp: MailServer) -> Rehearsal:
    """Send the messages of a folder to many readers, with a kill in between.

    Args:
        letters: of the folder; those that no program should parse are left out.
        folder: where they are.
        smtp: a server that takes them.
    """
    letters = [letter for letter in letters if letter.parsed is not None]
    if not letters:
        return Rehearsal((), ())
    meant = {_reader(number): letters[number % len(letters)] for number in range(READERS)}
    smtp.messages.clear()
    with TemporaryDirectory() as desk:
        source = Path(desk, "readers.jsonl")
        source.write_bytes(b"".join(_line(reader, letter, folder) for reader, letter in meant.items()))
        command = _command(source, Path(desk, "journal"), smtp)
        _run_and_kill(command, smtp)
        arrived_before = len(smtp.messages)
        resumed = subprocess.run(
            [*command, "--resume"], env=_environment(), capture_output=True, text=True, timeout=_PATIENCE
        )
    unknown = _unknown(resumed.stdout)
    lines = (
        f"{READERS} messages in bulk over {CONNECTIONS} connections, killed on the way (SIGKILL):",
        f"  killed when {arrived_before} had arrived",
        *(f"  resumed: {line}" for line in resumed.stderr.splitlines()),
        f"  {len(smtp.messages)} arrived; {len(unknown)} are listed as unknown, arrived or not",
    )
    problems = list(_problems(meant, smtp.messages, unknown))
    if resumed.returncode != (Exit.IOERR if unknown else Exit.OK):
        problems.append(f"it ended with {resumed.returncode}: {resumed.stderr.strip()}")
    return Rehearsal(lines, tuple(problems))


def _reader(number: int) -> str:
    return f"reader-{number}@example.net"


def _line(reader: str, letter: Meant, folder: Path) -> bytes:
    fields = {"from": letter.sender, "to": [reader], "file": str(Path(folder, letter.name).resolve())}
    return json.dumps(fields).encode() + b"\n"


def _command(source: Path, journal: Path, smtp: MailServer) -> list[str]:
    place = ["--host", smtp.host, "--port", str(smtp.port), "--connections", str(CONNECTIONS)]
    options = ["--journal", str(journal), "--json", "--progress", "off"]
    return [sys.executable, "-m", "aiosmtpclient", "bulk", str(source), *place, *options]


def _environment() -> dict[str, str]:
    inherited = [path] if (path := os.environ.get("PYTHONPATH")) else []
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(_HOUSE), *inherited])}


def _run_and_kill(command: Sequence[str], smtp: MailServer) -> None:
    process = subprocess.Popen(
        command, env=_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    taken = 0

    def kill_at_half(message: ReceivedMessage) -> None:
        nonlocal taken
        taken += 1
        if taken == READERS // 2:
            process.kill()

    refused, smtp.refuse_content = smtp.refuse_content, kill_at_half
    try:
        process.wait(_PATIENCE)
    finally:
        process.kill()
        process.wait()
        smtp.refuse_content = refused


def _unknown(accounts: str) -> set[str]:
    outcomes = [outcome for line in accounts.splitlines() for outcome in json.loads(line)["outcomes"]]
    return {outcome["address"] for outcome in outcomes if outcome["delivery"] == "unknown"}


def _problems(
    meant: dict[str, Meant], arrived: Sequence[ReceivedMessage], unknown: set[str]
) -> Iterator[str]:
    times = Counter(recipient for message in arrived for recipient in message.recipients)
    for reader in meant:
        if times[reader] > 1 or (not times[reader] and reader not in unknown):
            yield f"{reader} got {times[reader]} messages"
    for message in arrived:
        [reader] = message.recipients
        letter = meant[reader]
        if (message.sender, message.content) != (letter.sender, letter.content):
            yield f"{reader} got {letter.name} other than it was meant"
