"""smtp-sink, which comes with Postfix for tests: it takes everything and can be told to fail."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from interop.packages import Software, debian
from interop.processes import Process, give_away
from interop.stored import Stored, stored

from .real import RealServer

_RECIPIENT = re.compile(rb"^X-Rcpt-Args: <([^>]*)>", re.MULTILINE)


class Sink(RealServer):
    """smtp-sink that writes a file for each message.

    Attributes:
        flags: faults, and in what manner it speaks.
    """

    name = "smtp-sink"
    refuses_by_name = False
    flags: tuple[str, ...] = ()

    def find(self) -> Software:
        return debian("postfix", program="usr/sbin/smtp-sink")

    def prepare(self) -> None:
        self._starts = 0
        (self.folder / "dump").mkdir()
        give_away(self.folder)

    def launch(self) -> Process:
        # Names are made of the same random numbers after each start.
        self._starts += 1
        program = self.software.path("usr/sbin/smtp-sink")
        argv = [program, *self.flags, "-d", f"dump/{self._starts}-", f"127.0.0.1:{self.port}", "1000"]
        environment = {**self.software.environment, "MAIL_CONFIG": str(self.folder)}
        (self.folder / "main.cf").touch()
        return Process(argv, self.folder, self.port, environment=environment)

    def kept(self) -> Iterable[Stored]:
        for file in sorted(Path(self.folder, "dump").iterdir()):
            octets = file.read_bytes().removesuffix(b"\n")  # it ends each with an empty line
            yield from stored(octets, tuple(name.decode() for name in _RECIPIENT.findall(octets)))


class SinkLMTP(Sink):
    """The same, speaking LMTP."""

    name = "smtp-sink -L"
    lmtp = True
    flags = ("-L",)
