"""Two servers that take Kerberos tickets besides: Dovecot's submission and Cyrus' lmtpd."""

from __future__ import annotations

from typing import TYPE_CHECKING

from interop.packages import Software, debian, unpacked

from .cyrus import CyrusLMTP
from .dovecot import DovecotSubmission

if TYPE_CHECKING:
    from interop.kerberos import Realm


class KerberizedDovecot(DovecotSubmission):
    """Dovecot submission. Its own idea of its service is "submission"; told "$ALL" it takes any."""

    name = "Dovecot submission with Kerberos"
    service = "smtp/localhost"
    hostname = "localhost"
    lets_act_for_others = False
    mechanisms = f"{DovecotSubmission.mechanisms} gssapi"

    def __init__(self, realm: Realm) -> None:
        self.realm = realm
        super().__init__()

    def find(self) -> Software:
        packages = ("dovecot-core", "dovecot-submissiond", "dovecot-gssapi")
        return debian(*packages, program="usr/lib/dovecot/modules/auth/libmech_gssapi.so")

    def prepare(self) -> None:
        super().prepare()
        settings = self.folder / "dovecot.conf"
        with settings.open("a") as file:
            file.write(f'auth_krb5_keytab = {self.realm.keytab}\nauth_gssapi_hostname = "$ALL"\n')
            file.write("import_environment = TZ LD_LIBRARY_PATH KRB5_CONFIG\n")
        self.environment = self.realm.environment


class KerberizedCyrus(CyrusLMTP):
    """Cyrus LMTP, which knows itself by another name than it is connected to by."""

    name = "Cyrus LMTP with Kerberos"
    service = "lmtp/cyrus.test"
    hostname = "cyrus.test"
    lets_act_for_others = True  # whom it has as its administrator

    def __init__(self, realm: Realm) -> None:
        self.realm = realm
        super().__init__()

    def find(self) -> Software:
        self._plugin = unpacked("libsasl2-modules-gssapi-mit", "libsasl2-modules")
        return super().find()

    def prepare(self) -> None:
        super().prepare()
        settings = self.folder / "imapd.conf"
        text = settings.read_text().replace("SCRAM-SHA-512\n", "SCRAM-SHA-512 GSSAPI\n")
        settings.write_text(f"{text}sasl_keytab: {self.realm.keytab}\n")
        plugins = {file.parent for file in self._plugin.root.glob("usr/lib/*/sasl2/*.so")}
        self._environment = {
            **self._environment,
            **self.realm.environment,
            "KRB5_KTNAME": str(self.realm.keytab),
            "SASL_PATH": ":".join(map(str, sorted(plugins))),
        }
