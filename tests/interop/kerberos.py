"""A Kerberos realm of our own on loopback: a key server, one user, and the keys of some services.

Rules of this room:

* Nobody's own Kerberos is touched: settings, tickets and keys are files in a folder of the realm,
  and only who gets `environment` sees them.
* What the client needs of Python's packages is built once into a folder of its own.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from interop.packages import NotToBeHad, debian, pypi
from interop.processes import Process, free_port, give_away
from interop.servers.real import PASSWORD, USER

NAME = "INTEROP.TEST"
_KRB5 = """
[libdefaults]
  default_realm = {name}
  dns_lookup_kdc = false
  dns_lookup_realm = false
  dns_canonicalize_hostname = false
  rdns = false
  udp_preference_limit = 1
[realms]
  {name} = {{
    kdc = 127.0.0.1:{port}
  }}
[domain_realm]
  localhost = {name}
  .test = {name}
[dbmodules]
  db_module_dir = {plugins}
"""
_KDC = """
[kdcdefaults]
  kdc_listen = 127.0.0.1:{port}
  kdc_tcp_listen = 127.0.0.1:{port}
[realms]
  {name} = {{
    database_name = {folder}/principal
    key_stash_file = {folder}/stash
    acl_file = {folder}/acl
    max_life = 1h
  }}
[logging]
  kdc = FILE:{folder}/kdc.log
"""


class Realm:
    """A realm with USER, who has PASSWORD, and services such as "smtp/localhost".

    Attributes:
        environment: what makes a program use it.
        keytab: the keys of the services.
        folder: everything that is its own.

    Raises:
        NotToBeHad: there is no key server.
    """

    def __init__(self, *services: str) -> None:
        self._software = debian(
            "krb5-kdc", "krb5-admin-server", "krb5-user", "libkrb5-3", program="usr/sbin/krb5kdc"
        )
        self.folder = Path(tempfile.mkdtemp(prefix="interop-realm-"))
        self.folder.chmod(0o755)
        self.keytab = self.folder / "keytab"
        self.environment: Mapping[str, str] = {"KRB5_CONFIG": str(self.folder / "krb5.conf")}
        self._process: Process | None = None
        try:
            self._start(services)
        except BaseException:
            self.stop()
            raise

    def _start(self, services: tuple[str, ...]) -> None:
        port = free_port()
        plugins = next(self._software.root.glob("usr/lib/*/krb5/plugins/kdb"), None)
        if plugins is None:
            raise NotToBeHad("the key server has no place to keep its keys")
        known = {"name": NAME, "port": port, "folder": self.folder, "plugins": plugins}
        (self.folder / "krb5.conf").write_text(_KRB5.format(**known))
        (self.folder / "kdc.conf").write_text(_KDC.format(**known))
        own = {
            **self._software.environment,
            **self.environment,
            "KRB5_KDC_PROFILE": str(self.folder / "kdc.conf"),
        }
        self._run(own, "kdb5_util", "create", "-s", "-r", NAME, "-P", "master")
        self._run(own, "kadmin.local", "-q", f"addprinc -pw {PASSWORD} {USER}")
        for service in services:
            self._run(own, "kadmin.local", "-q", f"addprinc -randkey {service}")
            self._run(own, "kadmin.local", "-q", f"ktadd -k {self.keytab} {service}")
        give_away(self.folder)
        binary = self._software.path("usr/sbin/krb5kdc")
        self._process = Process([binary, "-n", "-r", NAME], self.folder, port, environment=own)

    def ticket(self) -> Mapping[str, str]:
        """Log USER in, as at a terminal; returns what makes a program find the ticket."""
        cache = self.folder / "ticket"
        self._run({**self._software.environment, **self.environment}, "kinit", "-c", str(cache), USER)
        return {"KRB5CCNAME": f"FILE:{cache}"}

    def _run(self, environment: Mapping[str, str], program: str, *arguments: str) -> None:
        places = [self._software.path(f"usr/{place}/{program}") for place in ("sbin", "bin")]
        found = next((place for place in places if place.exists()), None)
        if found is None:
            raise NotToBeHad(f"there is no {program}")
        done = subprocess.run(
            [found, *arguments],
            input=f"{PASSWORD}\n",
            env={"PATH": "/usr/bin:/bin", **environment},
            capture_output=True,
            text=True,
            timeout=60,
        )
        if done.returncode != 0:
            raise NotToBeHad(f"{program}: {done.stderr.strip()}")

    def stop(self) -> None:
        """End it, and take its files away."""
        if self._process is not None:
            self._process.stop()
            self._process = None
        shutil.rmtree(self.folder, ignore_errors=True)


def python_packages() -> Path:
    """The folder with what pyspnego needs for Kerberos, built once."""
    return pypi("gssapi", "krb5")
