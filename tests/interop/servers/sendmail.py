"""Sendmail: it queues and never delivers; header and body are two files in its queue."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable

from interop.letters import LIMIT
from interop.packages import Software, unpacked
from interop.processes import Process, give_away, need_root, user
from interop.stored import Stored, stored

from .cyrus import add_sasl_user
from .real import RealServer

_SETTINGS = """divert(0)dnl
VERSIONID(`interop')dnl
OSTYPE(`linux')dnl
define(`confDOMAIN_NAME', `sendmail.test')dnl
define(`confRUN_AS_USER', `{user}')dnl
define(`confTRUSTED_USER', `{user}')dnl
define(`confDONT_BLAME_SENDMAIL', `{blameless}')dnl
define(`QUEUE_DIR', `{folder}/queue')dnl
define(`confPID_FILE', `{folder}/pid')dnl
define(`STATUS_FILE', `{folder}/status')dnl
define(`HELP_FILE', `{folder}/help')dnl
define(`ALIAS_FILE', `')dnl
define(`confDELIVERY_MODE', `queue')dnl
define(`confMAX_MESSAGE_SIZE', `{limit}')dnl
define(`confPRIVACY_FLAGS', `')dnl
define(`confTO_IDENT', `0')dnl
define(`confREFUSE_LA', `1000')dnl
define(`confQUEUE_LA', `1000')dnl
define(`confDELAY_LA', `1000')dnl
define(`confBAD_RCPT_THROTTLE', `0')dnl
define(`confAUTH_MECHANISMS', `CRAM-MD5 DIGEST-MD5 PLAIN LOGIN')dnl
define(`confAUTH_REALM', `sendmail.test')dnl
define(`confSERVER_CERT', `{folder}/cert.pem')dnl
define(`confSERVER_KEY', `{folder}/key.pem')dnl
define(`confCACERT', `{folder}/ca.pem')dnl
define(`confCACERT_PATH', `{folder}')dnl
FEATURE(`no_default_msa')dnl
FEATURE(`nocanonify')dnl
FEATURE(`promiscuous_relay')dnl
FEATURE(`accept_unresolvable_domains')dnl
FEATURE(`accept_unqualified_senders')dnl
DAEMON_OPTIONS(`Port={port}, Addr=127.0.0.1, Name=MTA')dnl
MAILER(`smtp')dnl
LOCAL_CONFIG
Kbad regex -a@BAD ^<?reject
LOCAL_RULESETS
SLocal_check_mail
R$*	$: $(bad $1 $)
R@BAD	$#error $@ 5.7.1 $: "550 not from you"
SLocal_check_rcpt
R$*	$: $(bad $1 $)
R@BAD	$#error $@ 5.1.1 $: "550 no such user"
"""
_BLAMELESS = (
    "GroupWritableDirPathSafe,GroupReadableKeyFile,GroupWritableForwardFileSafe,GroupWritableIncludeFileSafe,"
    "GroupReadableSASLDBFile,AssumeSafeChown,RunProgramInUnsafeDirPath,RunWritableProgram"
)


class Sendmail(RealServer):
    """Sendmail without a separate submission queue."""

    name = "Sendmail"
    has_users = True
    body_only = True
    refuses_senders = True

    def find(self) -> Software:
        need_root("it changes who it is, and the name of its machine, before it serves")
        return unpacked("sendmail-bin", "sendmail-cf", "m4")

    def prepare(self) -> None:
        (self.folder / "queue").mkdir(mode=0o700)
        for name in ("status", "help"):
            (self.folder / name).touch()
        text = _SETTINGS.format(
            folder=self.folder, port=self.port, limit=LIMIT, user=user(), blameless=_BLAMELESS
        )
        (self.folder / "sendmail.mc").write_text(text)
        macros = self.software.path("usr/share/sendmail/cf")
        made = subprocess.run(
            [
                self.software.path("usr/bin/m4"),
                f"-D_CF_DIR_={macros}/",
                macros / "m4/cf.m4",
                self.folder / "sendmail.mc",
            ],
            env={**os.environ, **self.software.environment},
            capture_output=True,
            check=True,
        )
        (self.folder / "sendmail.cf").write_bytes(made.stdout)
        add_sasl_user(self, "sendmail.test")
        (self.folder / "etc").mkdir()
        (self.folder / "sasldb2").rename(self.folder / "etc/sasldb2")
        give_away(self.folder)

    def launch(self) -> Process:
        program = self.software.path("usr/libexec/sendmail/sendmail")
        # It waits a minute for a machine whose name has no dot: it gets a name in a namespace of its own.
        # And where SASL has its users is fixed.
        script = (
            "mount --make-rprivate / && mount -t overlay overlay -o lowerdir=etc:/etc /etc\n"
            'hostname sendmail.test && exec "$0" -bD -C "$1"'
        )
        argv = ["unshare", "--mount", "--uts", "sh", "-c", script, program, self.folder / "sendmail.cf"]
        return Process(argv, self.folder, self.port, environment=self.software.environment, as_root=True)

    def kept(self) -> Iterable[Stored]:
        for file in sorted(self.folder.glob("queue/qf*")):
            lines = file.read_text(errors="surrogateescape").split("\n")
            recipients = tuple(
                match[1] for line in lines if (match := re.fullmatch(r"R[A-Z]*:<?([^>]*)>?", line))
            )
            header = "\n".join(
                re.sub(r"^H\?[^?]*\?", "", line) for line in lines if line[:1] in ("H", "\t", " ")
            )
            body = file.with_name("df" + file.name[2:])
            octets = body.read_bytes() if body.exists() else b""
            yield from stored(header.encode(errors="surrogateescape") + b"\n\n" + octets, recipients)
