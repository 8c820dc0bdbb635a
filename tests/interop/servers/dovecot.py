"""Dovecot: LMTP into maildirs, submission that relays, and the login service that Postfix asks."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import ClassVar

from interop.packages import Software, debian
from interop.processes import GID, UID, Process, as_if_installed, free_port, give_away, group, user
from interop.stored import Stored, in_maildir

from .aiosmtpd import Behind
from .real import PASSWORD, USER, RealServer

MAILBOXES = 200
"""Users that exist, ok0 and on, besides USER."""

_COMMON = """
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/dovecot.log
listen = 127.0.0.1
protocols = {protocols}
default_internal_user = {user}
default_internal_group = {group}
default_login_user = {user}
default_process_limit = 50
default_client_limit = 500
first_valid_uid = 1
auth_mechanisms = {mechanisms}
auth_failure_delay = 0
auth_username_format = %Ln
disable_plaintext_auth = no
import_environment = TZ LD_LIBRARY_PATH
mail_location = maildir:{folder}/mail/%n
ssl = yes
ssl_cert = <{folder}/cert.pem
ssl_key = <{folder}/key.pem
passdb {{
  driver = passwd-file
  args = scheme=PLAIN username_format=%n {folder}/users
}}
passdb {{
  driver = oauth2
  mechanisms = xoauth2 oauthbearer
  args = {folder}/oauth2.conf
}}
userdb {{
  driver = passwd-file
  args = username_format=%n {folder}/users
  default_fields = uid={uid} gid={gid} home={folder}/mail/%n
}}
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service stats {{
  unix_listener stats-reader {{
    user = {user}
  }}
  unix_listener stats-writer {{
    user = {user}
  }}
}}
"""
# Only root can give these the folder, or the user, that they ask for by default.
_CHROOTED = (
    *("anvil", "lmtp", "submission", "submission-login", "stats", "old-stats", "dns-client"),
    *("imap-urlauth", "imap-urlauth-login", "imap-urlauth-worker", "replicator"),
)
_OTHER_USERS = ("auth", "auth-worker", "dict", "old-stats", "director", "ipc", "replicator")
_LOGINS = """
service auth {{
  inet_listener {{
    port = {port}
  }}
}}
"""
_LMTP = """
service lmtp {{
  user = {user}
  process_min_avail = 1
  inet_listener lmtp {{
    port = {port}
  }}
  unix_listener {folder}/lmtp.sock {{
    mode = 0666
  }}
}}
"""
_SUBMISSION = """
submission_relay_host = 127.0.0.1
submission_relay_port = {relay}
submission_relay_trusted = no
submission_max_mail_size = {limit}
service submission-login {{
  inet_listener submission {{
    port = {port}
  }}
  inet_listener submissions {{
    port = {tls_port}
    ssl = yes
  }}
}}
"""
_OAUTH2 = """
introspection_mode = local
local_validation_key_dict = fs:posix:prefix={folder}/keys/
username_attribute = sub
"""
TOKEN_KEY = b"interop-test" * 3
"""Signs the bearer tokens (HS256) that are right."""


class _Dovecot(RealServer):
    """What every instance has."""

    protocols: ClassVar[str]
    package: ClassVar[str]
    more: ClassVar[str] = ""
    tls_too: ClassVar[bool] = False
    mechanisms: ClassVar[str] = (
        "plain login cram-md5 digest-md5 scram-sha-1 scram-sha-256 xoauth2 oauthbearer external"
    )
    relay_port = 0
    environment: Mapping[str, str] = MappingProxyType({})

    def find(self) -> Software:
        packages = ("dovecot-core", self.package) if self.package else ("dovecot-core",)
        library = f"usr/lib/dovecot/{self.protocols}" if self.package else "usr/sbin/dovecot"
        return debian(*packages, program=library)

    def prepare(self) -> None:
        self.tls_port = free_port() if self.tls_too else 0
        for name in ("mail", "run", "state", "keys/default/HS256"):
            (self.folder / name).mkdir(parents=True)
        known = {
            "folder": self.folder,
            "protocols": self.protocols,
            "user": user(),
            "group": group(),
            "uid": UID,
            "gid": GID,
            "port": self.port,
            "tls_port": self.tls_port,
            "relay": self.relay_port,
            "limit": 0,
            "mechanisms": self.mechanisms,
        }
        text = (_COMMON + self.more).format(**known)
        text += "".join(f"service {name} {{\n  chroot =\n}}\n" for name in _CHROOTED)
        text += "".join(f"service {name} {{\n  user = {user()}\n}}\n" for name in _OTHER_USERS)
        (self.folder / "dovecot.conf").write_text(text)
        (self.folder / "oauth2.conf").write_text(_OAUTH2.format(**known))
        (self.folder / "keys/default/HS256/default").write_bytes(base64.b64encode(TOKEN_KEY))
        names = [USER, "ok", *(f"ok{number}" for number in range(MAILBOXES))]
        (self.folder / "users").write_text("".join(f"{name}:{{PLAIN}}{PASSWORD}::::::\n" for name in names))
        give_away(self.folder)

    def launch(self) -> Process:
        argv = ["/usr/sbin/dovecot", "-F", "-c", str(self.folder / "dovecot.conf")]
        if self.software.unpacked:
            argv = [*as_if_installed(self.software.root, drop=True), *argv]
        return Process(
            argv,
            self.folder,
            self.port,
            environment={**self.software.environment, **self.environment},
            as_root=self.software.unpacked,  # dropped once its files are in /usr
        )

    def kept(self) -> Iterable[Stored]:
        for folder in sorted(self.folder.glob("mail/*")):
            yield from in_maildir(folder, f"{folder.name}@interop.test")


class DovecotLMTP(_Dovecot):
    """Dovecot's LMTP server: one reply a recipient, and a mailbox for each."""

    name = "Dovecot LMTP"
    lmtp = True
    protocols = "lmtp"
    package = "dovecot-lmtpd"
    more = _LMTP
    proves = (True, None)

    def prepare(self) -> None:
        super().prepare()
        self.unix_path = self.folder / "lmtp.sock"


class DovecotSubmission(_Dovecot):
    """Dovecot's submission proxy, in front of a server that keeps what it relays."""

    name = "Dovecot submission"
    protocols = "submission"
    package = "dovecot-submissiond"
    more = _SUBMISSION
    tls_too = True
    has_users = True
    must_log_in = True
    refuses_senders = True
    no_stream = (
        "offers PIPELINING, and dies of an assertion when the next message comes right behind the end "
        "of one; the first is relayed by then."
    )
    proves = (False, True)

    def prepare(self) -> None:
        self._behind = Behind()
        self.relay_port = self._behind.port
        super().prepare()

    def stop(self) -> None:
        super().stop()
        if hasattr(self, "_behind"):
            self._behind.stop()

    def kept(self) -> Iterable[Stored]:
        return self._behind.kept()


class LoginService(_Dovecot):
    """No mail at all: it only knows who may log in."""

    name = "Dovecot logins"
    protocols = "none"
    package = ""
    more = _LOGINS
    mechanisms = "plain login cram-md5 digest-md5 scram-sha-1 scram-sha-256 xoauth2 oauthbearer"
