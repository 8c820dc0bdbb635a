"""Postfix: smtpd in front, virtual(8) behind, which writes one file a recipient."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from interop.letters import LIMIT
from interop.packages import NotToBeHad, Software, debian
from interop.processes import GID, UID, Process, as_if_installed, free_port, need_root
from interop.stored import Stored, in_maildir

from .dovecot import LoginService
from .real import RealServer

_MAIN = """
compatibility_level = 3.6
maillog_file = {folder}/mail.log
maillog_file_prefixes = {folder}
queue_directory = {folder}/queue
data_directory = {folder}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
shlib_directory = /usr/lib/postfix
meta_directory = {folder}/conf
mail_owner = {owner}
setgid_group = {group}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = postfix.test
mynetworks = 127.0.0.0/8
mydestination =
alias_maps =
alias_database =
virtual_mailbox_domains = static:all
virtual_mailbox_base = {folder}/mail
virtual_mailbox_maps = static:box/
virtual_mailbox_limit = 0
virtual_minimum_uid = 1
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
virtual_destination_concurrency_limit = 10
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_recipient_restrictions = check_recipient_access regexp:{folder}/recipients, permit_mynetworks, reject
smtpd_delay_reject = no
smtpd_sender_restrictions = check_sender_access regexp:{folder}/senders
smtpd_error_sleep_time = 0
smtpd_soft_error_limit = 1000
smtpd_hard_error_limit = 1000
smtpd_client_connection_rate_limit = 0
smtpd_client_connection_count_limit = 0
smtpd_peername_lookup = no
disable_dns_lookups = yes
smtputf8_enable = yes
message_size_limit = {limit}
mailbox_size_limit = 0
in_flow_delay = 0
queue_run_delay = 1s
minimal_backoff_time = 1s
maximal_backoff_time = 1s
smtpd_tls_security_level = may
smtpd_tls_cert_file = {folder}/cert.pem
smtpd_tls_key_file = {folder}/key.pem
"""
_LOGIN = """
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = inet:127.0.0.1:{logins}
smtpd_sasl_security_options = noanonymous
"""
_MASTER = """
127.0.0.1:{port} inet n - n - 100 smtpd
127.0.0.1:{tls_port} inet n - n - 100 smtpd -o smtpd_tls_wrappermode=yes
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 discard
defer unix - - n - 0 discard
trace unix - - n - 0 discard
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
virtual unix - n n - 20 virtual
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""

_QUEUES = (
    *("active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming"),
    *("maildrop", "private", "public", "saved", "trace"),
)


class Postfix(RealServer):
    """Postfix that takes mail for everybody, and knows a user where Dovecot's login service is there."""

    name = "Postfix"
    refuses_senders = True
    proves = (True, True)

    def find(self) -> Software:
        need_root("its master does")
        return debian("postfix", program="usr/sbin/postfix")

    def prepare(self) -> None:
        self.tls_port = free_port()
        try:
            self._logins: LoginService | None = LoginService()
        except NotToBeHad:
            self._logins = None
        self.has_users = self._logins is not None
        owner, group = _first(pwd.getpwnam, "postfix", "uucp"), _first(grp.getgrnam, "postdrop", "news")
        known = {
            "folder": self.folder,
            "port": self.port,
            "tls_port": self.tls_port,
            "limit": LIMIT,
            "uid": UID,
            "gid": GID,
            "owner": owner,
            "group": group,
        }
        text = _MAIN.format(**known)
        if self._logins is not None:
            text += _LOGIN.format(logins=self._logins.port)
        (self.folder / "conf").mkdir()
        (self.folder / "conf/main.cf").write_text(text)
        (self.folder / "conf/master.cf").write_text(_MASTER.format(**known))
        (self.folder / "recipients").write_text("/^reject/ 550 5.1.1 no such user\n")
        (self.folder / "senders").write_text("/^reject/ 550 5.7.1 not from you\n")
        for name in ("queue", "queue/pid", "mail"):
            (self.folder / name).mkdir()
        for name in ("data", *(f"queue/{name}" for name in _QUEUES)):
            (self.folder / name).mkdir(mode=0o755 if name == "queue/public" else 0o700)
            shutil.chown(self.folder / name, owner)
        os.chown(self.folder / "mail", UID, GID)

    def launch(self) -> Process:
        # Its own `postfix start` would compare the permissions of what is installed with a list.
        argv = ["/usr/lib/postfix/sbin/master", "-s", "-c", str(self.folder / "conf")]
        if self.software.unpacked:
            argv = [*as_if_installed(self.software.root), *argv]
        return Process(argv, self.folder, self.port, as_root=True)

    def stop(self) -> None:
        super().stop()
        if getattr(self, "_logins", None) is not None:
            self._logins.stop()

    def busy(self) -> bool:
        folders = (self.folder / "queue" / name for name in ("maildrop", "incoming", "active", "deferred"))
        return any(_complete(path) for folder in folders for path in folder.rglob("*"))

    def kept(self) -> Iterable[Stored]:
        # Killed behind a delivery it delivers once more: one queue file, and so one message taken.
        return in_maildir(self.folder / "mail/box", taken_as=re.compile(rb"\sid ([0-9A-F]+)\b"))


def _complete(path: Path) -> bool:
    """A queue file that may be executed is a whole message; any other was never accepted."""
    with contextlib.suppress(FileNotFoundError):
        return path.is_file() and bool(path.stat().st_mode & 0o100)
    return False


def _first(look_up: Callable[[str], object], *names: str) -> str:
    """The first of these accounts that exists; each Debian has the last."""
    for name in names:
        with contextlib.suppress(KeyError):
            look_up(name)
            return name
    raise NotToBeHad(f"it needs one of the accounts {', '.join(names)}")
