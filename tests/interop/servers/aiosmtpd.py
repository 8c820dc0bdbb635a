"""aiosmtpd, of the environment that the tests run in."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from interop.letters import LIMIT
from interop.packages import NotToBeHad, Software
from interop.processes import Process, free_port
from interop.stored import Stored, in_envelopes

from .real import RealServer

PROGRAM = Path(__file__).with_name("store.py")


class Aiosmtpd(RealServer):
    """A server of aiosmtpd's SMTP class, which advertises little and takes more than it advertises."""

    name = "aiosmtpd"
    has_users = True
    refuses_senders = True
    arguments: ClassVar[tuple[str, ...]] = ()

    def find(self) -> Software:
        try:
            version = importlib.metadata.version("aiosmtpd")
        except importlib.metadata.PackageNotFoundError:
            raise NotToBeHad("aiosmtpd is not in this environment") from None
        return Software(Path("/"), version)

    def prepare(self) -> None:
        self.tls_port = free_port()

    def launch(self) -> Process:
        numbers = (self.port, self.tls_port, LIMIT)
        argv = [
            sys.executable,
            "-P",
            "-W",
            "ignore",
            str(PROGRAM),
            str(self.folder),
            *map(str, numbers),
            *self.arguments,
        ]
        return Process(argv, self.folder, self.port, as_root=True)

    def kept(self) -> Iterable[Stored]:
        return in_envelopes(self.folder)


class Behind(Aiosmtpd):
    """What stands behind a server that only relays."""

    name = "the server behind"
    arguments = ("bare",)
