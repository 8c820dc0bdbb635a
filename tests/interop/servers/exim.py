"""Exim, unprivileged: what it accepts stays in its spool, where it is read."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from interop.letters import LIMIT
from interop.packages import Software, debian, unpacked
from interop.processes import Process, free_port, give_away, group, user
from interop.stored import Stored, stored

from .accounts import with_accounts
from .real import RealServer

_SETTINGS = r"""
exim_user = {user}
exim_group = {group}
never_users =
primary_hostname = exim.test
spool_directory = {folder}/spool
log_file_path = {folder}/log/%s
pid_file_path = {folder}/exim.pid
local_interfaces = <; [127.0.0.1]:{port} ; [127.0.0.1]:{tls_port}
daemon_smtp_ports = {port} : {tls_port}
tls_on_connect_ports = {tls_port}
tls_advertise_hosts = *
tls_certificate = {folder}/cert.pem
tls_privatekey = {folder}/key.pem
disable_ipv6 = true
host_lookup =
rfc1413_query_timeout = 0s
queue_only = true
message_size_limit = {limit}
smtp_accept_max = 100
smtp_accept_max_per_connection = 0
smtp_max_unknown_commands = 100
smtputf8_advertise_hosts = *
dsn_advertise_hosts = *
chunking_advertise_hosts = *
pipelining_connect_advertise_hosts = *
prdr_enable = true
auth_advertise_hosts = *
keep_environment = ^LD_ : ^NSS_
acl_smtp_mail = sender
acl_smtp_rcpt = recipient
acl_smtp_data = content

begin acl
sender:
  deny senders = ^reject
       message = 5.7.1 not from you
  accept
recipient:
  deny local_parts = ^reject
       message = 5.1.1 no such user
  accept
content:
  accept

begin routers
nowhere:
  driver = accept
  transport = nowhere

begin transports
nowhere:
  driver = appendfile
  file = /dev/null

begin retry
begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${{if and{{{{eq{{$auth2}}{{user}}}}{{eq{{$auth3}}{{pass}}}}}}}}
  server_set_id = $auth2
login:
  driver = plaintext
  public_name = LOGIN
  server_prompts = name : secret
  server_condition = ${{if and{{{{eq{{$auth1}}{{user}}}}{{eq{{$auth2}}{{pass}}}}}}}}
  server_set_id = $auth1
cram:
  driver = cram_md5
  public_name = CRAM-MD5
  server_secret = ${{if eq{{$auth1}}{{user}}{{pass}}fail}}
  server_set_id = $auth1
"""


class Exim(RealServer):
    """Exim that queues and never delivers."""

    name = "Exim"
    has_users = True
    refuses_senders = True
    proves = (True, True)

    def find(self) -> Software:
        unpacked("libnss-wrapper")
        return debian("exim4-daemon-light", program="usr/sbin/exim4")

    def prepare(self) -> None:
        self.tls_port = free_port()
        for name in ("spool", "log"):
            (self.folder / name).mkdir()
        text = _SETTINGS.format(
            folder=self.folder,
            port=self.port,
            tls_port=self.tls_port,
            limit=LIMIT,
            user=user(),
            group=group(),
        )
        (self.folder / "exim.conf").write_text(text)
        # A copy of its own has no set-user-id bit, and so keeps the privileges it is given.
        shutil.copyfile(self.software.path("usr/sbin/exim4"), self.folder / "exim")
        (self.folder / "exim").chmod(0o755)
        self._environment = with_accounts(self.folder, "Debian-exim") | self.software.environment
        give_away(self.folder)

    def launch(self) -> Process:
        argv = [self.folder / "exim", "-C", self.folder / "exim.conf", "-bdf"]
        return Process(argv, self.folder, self.port, environment=self._environment)

    def kept(self) -> Iterable[Stored]:
        for file in sorted(self.folder.glob("spool/input/**/*-H")):
            body = file.with_name(file.name[:-1] + "D").read_bytes().partition(b"\n")[2]
            recipients, header = _spooled(file)
            yield from stored(b"".join(header) + b"\n" + body, recipients)


def _spooled(file: Path) -> tuple[tuple[str, ...], Iterator[bytes]]:
    """The recipients and the header fields in a file of Exim's spool."""
    envelope, _, header = file.read_bytes().partition(b"\n\n")
    lines = envelope.decode("utf-8", "surrogateescape").split("\n")
    count = max(index for index, line in enumerate(lines) if re.fullmatch(r"\d+", line))
    return tuple(line.split(" ")[0] for line in lines[count + 1 :]), _header(header)


def _header(octets: bytes) -> Iterator[bytes]:
    """Each field is kept as its length, a letter ("*": it was taken out), a blank, the field."""
    while match := re.match(rb"(\d+)(.) ", octets):
        end = match.end() + int(match[1])
        if match[2] != b"*":
            yield octets[match.end() : end]
        octets = octets[end:]
