"""OpenSMTPD: its queue, in a mount namespace of its own because the place of it is fixed."""

from __future__ import annotations

import re
from collections.abc import Iterable

from interop.letters import LIMIT
from interop.packages import Software, unpacked
from interop.processes import Process, as_if_installed, free_port
from interop.stored import Stored, stored

from .accounts import with_accounts
from .real import RealServer

_SETTINGS = """
pki interop cert "{folder}/cert.pem"
pki interop key "{folder}/key.pem"
table bad {{ "^reject" }}
smtp max-message-size "{limit}"
listen on 127.0.0.1 port {port} tls pki interop hostname opensmtpd.test
action "keep" relay host "smtp://127.0.0.1:{nobody}"
match from any for any rcpt-to regex <bad> reject
match from any for any action "keep"
"""
_PLACES = """
mount -t tmpfs tmpfs /run
mount --bind "{folder}/spool" /var/spool
mount --bind "{folder}/lib" /var/lib
"""


class OpenSMTPD(RealServer):
    """OpenSMTPD that relays to where nobody listens, and so keeps everything in its queue."""

    name = "OpenSMTPD"
    no_handshake = "offers STARTTLS, and ends the connection in the handshake (this build of Debian's)."

    def find(self) -> Software:
        as_if_installed(unpacked("libnss-wrapper").root)
        return unpacked("opensmtpd")

    def prepare(self) -> None:
        for name in ("spool/smtpd", "lib/opensmtpd/empty"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "spool/smtpd").chmod(0o711)
        text = _SETTINGS.format(folder=self.folder, port=self.port, limit=LIMIT, nobody=free_port())
        (self.folder / "smtpd.conf").write_text(text)
        self._environment = with_accounts(self.folder, "opensmtpd", "opensmtpq", uid=990, gid=990)

    def launch(self) -> Process:
        places = _PLACES.format(folder=self.folder)
        argv = [*as_if_installed(self.software.root, before=places), "env"]
        argv += [f"{name}={value}" for name, value in (self._environment | self.software.environment).items()]
        argv += ["/usr/sbin/smtpd", "-d", "-f", str(self.folder / "smtpd.conf")]
        return Process(argv, self.folder, self.port, as_root=True)

    def kept(self) -> Iterable[Stored]:
        for file in sorted(self.folder.glob("spool/smtpd/queue/*/*/message")):
            envelopes = [one.read_text() for one in file.parent.iterdir() if one != file]
            names = [re.search(r"^rcpt: (\S+)$", text, re.MULTILINE) for text in envelopes]
            yield from stored(file.read_bytes(), tuple(match[1] for match in names if match is not None))
