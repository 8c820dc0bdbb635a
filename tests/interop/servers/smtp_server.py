"""smtp-server, the server half of Nodemailer, in SMTP and in LMTP."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from interop.letters import LIMIT
from interop.packages import Software, npm
from interop.processes import Process, free_port, give_away
from interop.stored import Stored, in_envelopes

from .real import RealServer

PROGRAM = Path(__file__).with_name("smtp_server.js")


class SmtpServer(RealServer):
    """smtp-server with a handler that refuses by name and keeps what it takes."""

    name = "smtp-server"
    has_users = True
    refuses_senders = True

    def find(self) -> Software:
        return npm("smtp-server", "3.13.8")

    def prepare(self) -> None:
        self.tls_port = free_port()
        give_away(self.folder)

    def launch(self) -> Process:
        # Read by a server that may not enter where this file is, so it is handed over as text.
        numbers = (self.port, self.tls_port, LIMIT)
        argv = ["node", "-e", PROGRAM.read_text(), "--", str(self.folder), *map(str, numbers), *self._manner]
        modules = os.fspath(self.software.path("node_modules"))
        return Process(argv, self.folder, self.port, environment={"NODE_PATH": modules})

    @property
    def _manner(self) -> list[str]:
        return ["lmtp"] if self.lmtp else []

    def kept(self) -> Iterable[Stored]:
        return in_envelopes(self.folder)


class SmtpServerLMTP(SmtpServer):
    """The same, speaking LMTP."""

    name = "smtp-server LMTP"
    lmtp = True
