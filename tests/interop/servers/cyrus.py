"""Cyrus LMTP: users from a SASL database, mailboxes that come into being with their first message."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable

from aiosmtpclient import LMTP
from interop import letters
from interop.packages import NotToBeHad, Software, unpacked
from interop.processes import Process, give_away
from interop.stored import Stored, stored

from .accounts import with_accounts
from .real import PASSWORD, USER, RealServer

_IMAPD = """
configdirectory: {folder}/conf
defaultpartition: default
partition-default: {folder}/mail
proc_path: {folder}/proc
mboxname_lockpath: {folder}/lock
servername: cyrus.test
admins: cyrus
lmtp_admins: {user}
allowplaintext: yes
sasl_pwcheck_method: auxprop
sasl_auxprop_plugin: sasldb
sasl_sasldb_path: {folder}/sasldb2
sasl_mech_list: PLAIN LOGIN NTLM CRAM-MD5 DIGEST-MD5 SCRAM-SHA-1 SCRAM-SHA-256 SCRAM-SHA-512
tls_server_cert: {folder}/cert.pem
tls_server_key: {folder}/key.pem
tls_client_ca_file: {folder}/ca.pem
tls_sessions_db_path: {folder}/conf/tls_sessions.db
lmtpsocket: {folder}/socket/lmtp
idlesocket: {folder}/socket/idle
notifysocket: {folder}/socket/notify
autocreate_users: {users}
autocreate_quota: 0
autocreate_post: yes
lmtp_downcase_rcpt: yes
duplicatesuppression: no
virtdomains: off
mailbox_legacy_dirs: yes
syslog_prefix: interop
"""
_MASTER = """
START {{
}}
SERVICES {{
  lmtp cmd="{binaries}/lmtpd -C {folder}/imapd.conf" listen="127.0.0.1:{port}" prefork=1 maxchild=20
  lmtpunix cmd="{binaries}/lmtpd -C {folder}/imapd.conf" listen="{folder}/socket/lmtp" prefork=0 maxchild=20
}}
EVENTS {{
}}
"""


class CyrusLMTP(RealServer):
    """Cyrus' lmtpd: one reply a recipient; over TCP only for who has logged in."""

    name = "Cyrus LMTP"
    lmtp = True
    must_log_in = True
    has_users = True
    makes_mailboxes = True

    def find(self) -> Software:
        unpacked("libnss-wrapper")
        unpacked("sasl2-bin")
        # Installed, it would want to run as its own user.
        return unpacked("cyrus-common")

    def prepare(self) -> None:
        for name in ("conf", "mail", "proc", "lock", "socket", "conf/socket", "conf/db"):
            (self.folder / name).mkdir()
        known = {
            "folder": self.folder,
            "port": self.port,
            "user": USER,
            "users": " ".join([USER, "ok", *(f"ok{number}" for number in range(200))]),
            "binaries": self.software.path("usr/lib/cyrus/bin"),
        }
        (self.folder / "imapd.conf").write_text(_IMAPD.format(**known))
        (self.folder / "cyrus.conf").write_text(_MASTER.format(**known))
        add_sasl_user(self, "cyrus.test")
        self._environment = with_accounts(self.folder, "cyrus") | self.software.environment
        self.unix_path = self.folder / "socket/lmtp"
        give_away(self.folder)

    def launch(self) -> Process:
        binary = self.software.path("usr/lib/cyrus/bin/master")
        files = ("-C", "imapd.conf", "-M", "cyrus.conf", "-p", "master.pid")
        argv = [binary, *(part if part[0] == "-" else self.folder / part for part in files), "-D"]
        return Process(argv, self.folder, self.port, environment=self._environment)

    def start(self) -> None:
        super().start()
        # Of messages side by side to a mailbox that is not there yet, all but one are refused.
        with LMTP("localhost", self.port) as smtp:
            smtp.ehlo_or_helo_if_needed()
            smtp.login(USER, PASSWORD)
            smtp.sendmail(letters.SENDER, letters.RECIPIENT, b"Subject: the first one\r\n\r\n")

    def kept(self) -> Iterable[Stored]:
        for file in sorted(self.folder.glob("mail/**/[0-9]*.")):
            yield from stored(file.read_bytes(), (f"{file.parent.name}@interop.test",))


def add_sasl_user(server: RealServer, realm: str) -> None:
    """Write USER into the SASL database in a server's folder."""
    program = unpacked("sasl2-bin")
    done = subprocess.run(
        [
            program.path("usr/sbin/saslpasswd2"),
            "-p",
            "-c",
            "-f",
            server.folder / "sasldb2",
            "-u",
            realm,
            USER,
        ],
        input=PASSWORD.encode(),
        env=program.environment,
        capture_output=True,
    )
    if done.returncode != 0:
        raise NotToBeHad(f"saslpasswd2: {done.stderr.decode(errors='replace').strip()}")
