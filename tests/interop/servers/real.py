"""What every server of these tests is: a folder, some ports, a process, and a place where mail ends up."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

from aiosmtpclient import AsyncLMTP, AsyncSMTP
from aiosmtpclient.testing import CertificateAuthority
from interop.packages import Software
from interop.processes import Process, free_port
from interop.stored import Stored

USER, PASSWORD = "user", "pass"
PATIENCE = 60.0
"""Seconds that a server may take until everything it accepted is where it belongs."""
_BLINK = 0.02


class RealServer:
    """One server, as set up for these tests.

    Attributes:
        name: what people call it.
        lmtp: it speaks LMTP.
        must_log_in: it takes no mail before AUTH.
        has_users: it knows USER with PASSWORD.
        makes_mailboxes: a mailbox comes into being with the first message to it.
        refuses_by_name: it refuses recipients that begin with "reject".
        refuses_senders: it refuses senders that begin with "reject".
        proves: the verdict of the trial of BDAT, before AUTH and after it; None without BDAT or AUTH.
        no_stream: why it does not take `pipelining="stream"`.
        no_handshake: why its STARTTLS comes to nothing.
        body_only: header and body are kept apart, so that only the body is compared.
        software: its programs.
        folder: everything that is its own.
        port: in clear, or STARTTLS.
        tls_port: TLS from the first octet; 0 if it has no such port.
        unix_path: a Unix socket it listens on besides.
        process: None while it does not run.
    """

    name: ClassVar[str]
    lmtp: ClassVar[bool] = False
    must_log_in: ClassVar[bool] = False
    has_users: bool = False
    makes_mailboxes: ClassVar[bool] = False
    refuses_by_name: ClassVar[bool] = True
    refuses_senders: ClassVar[bool] = False
    proves: ClassVar[tuple[bool | None, bool | None]] = (None, None)
    no_stream: ClassVar[str] = ""
    no_handshake: ClassVar[str] = ""
    body_only: ClassVar[bool] = False

    def __init__(self) -> None:
        self.software = self.find()
        self.folder = Path(tempfile.mkdtemp(prefix="interop-"))
        self.folder.chmod(0o755)
        self.port = free_port()
        self.tls_port = 0
        self.unix_path: Path | None = None
        self.process: Process | None = None
        try:
            CertificateAuthority().write_to(self.folder).key.chmod(0o600)
            self.prepare()
            self.start()
        except BaseException:
            self.stop()
            raise

    # -- what each one says for itself -----------------------------------------------------

    def find(self) -> Software:
        """Its programs.

        Raises:
            NotToBeHad: it cannot take part.
        """
        raise NotImplementedError

    def prepare(self) -> None:
        """Write its settings."""
        raise NotImplementedError

    def launch(self) -> Process:
        """Start it; called again after it was killed."""
        raise NotImplementedError

    def kept(self) -> Iterable[Stored]:
        """The messages it keeps now."""
        raise NotImplementedError

    def busy(self) -> bool:
        """True while something it accepted is still on its way to where it is kept."""
        return False

    # -- what is the same for all ----------------------------------------------------------

    def start(self) -> None:
        """Start it; it is up when this returns."""
        self.process = self.launch()

    def kill(self) -> None:
        """End it without a word, and leave its files as they are."""
        if self.process is not None:
            self.process.kill()
            self.process = None

    def stop(self) -> None:
        """End it and take its files away."""
        if self.process is not None:
            self.process.stop()
            self.process = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def stored(self, *keys: str) -> list[Stored]:
        """The messages with these keys that it took, once all it took is where it belongs."""
        deadline = time.monotonic() + PATIENCE
        while self.busy():
            assert time.monotonic() < deadline, f"{self.name} does not come to an end with what it took"
            time.sleep(_BLINK)
        return [one for one in self.kept() if one.key in keys]

    def client(self, **options: Any) -> AsyncSMTP:
        """A client for it, in clear and logged in where it takes no mail otherwise."""
        kind = AsyncLMTP if self.lmtp else AsyncSMTP
        return kind(**self.options(**options))

    def options(self, **options: Any) -> dict[str, Any]:
        """How to reach it: arguments by keyword for every kind of client."""
        reach: dict[str, Any] = {"host": "localhost", "port": self.port, "tls": "none"}
        if self.must_log_in:
            reach |= {"username": USER, "password": PASSWORD}
        return reach | options
