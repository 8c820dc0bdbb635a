"""Haraka, with a plugin of our own that refuses and keeps."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from interop.letters import LIMIT
from interop.packages import Software, npm
from interop.processes import Process, free_port, give_away
from interop.stored import Stored, in_envelopes

from .real import PASSWORD, USER, RealServer

PLUGIN = Path(__file__).with_name("haraka_keep.js")
# Newer ones of these do not load, or are gone.
_OVERRIDES = {"encoding-japanese": "2.2.0", "libqp": "2.1.1", "libbase64": "1.3.0"}


class Haraka(RealServer):
    """Haraka, which does not take anything that comes too early."""

    name = "Haraka"
    has_users = True
    refuses_senders = True
    no_stream = (
        "offers PIPELINING, and answers 503 and hangs up when the next message comes right behind the "
        "end of one."
    )

    def find(self) -> Software:
        return npm("Haraka", "3.3.4", _OVERRIDES)

    def prepare(self) -> None:
        self.tls_port = free_port()
        config = self.folder / "config"
        shutil.copytree(self.software.path("node_modules/Haraka/config"), config)
        (self.folder / "plugins").mkdir()
        shutil.copy(PLUGIN, self.folder / "plugins/keep.js")
        shutil.copy(self.folder / "cert.pem", config / "tls_cert.pem")
        shutil.copy(self.folder / "key.pem", config / "tls_key.pem")
        listen = (
            f"listen=127.0.0.1:{self.port},127.0.0.1:{self.tls_port}\nsmtps_port={self.tls_port}\nnodes=0\n"
        )
        files = {
            "smtp.ini": listen,
            "me": "haraka.test\n",
            "plugins": "tls\nauth/flat_file\nkeep\n",
            "tls.ini": "key=tls_key.pem\ncert=tls_cert.pem\n",
            "auth_flat_file.ini": f"[core]\nmethods=PLAIN,LOGIN,CRAM-MD5\n[users]\n{USER}={PASSWORD}\n",
            "keep.folder": f"{self.folder}\n",
        }
        for name, text in files.items():
            (config / name).write_text(text)
        limits = (config / "connection.ini").read_text()
        (config / "connection.ini").write_text(re.sub(r"(?m)^bytes=\d+$", f"bytes={LIMIT}", limits))
        give_away(self.folder)

    def launch(self) -> Process:
        program = self.software.path("node_modules/Haraka/bin/haraka")
        return Process(["node", program, "-c", self.folder], self.folder, self.port)

    def kept(self) -> Iterable[Stored]:
        return in_envelopes(self.folder)
