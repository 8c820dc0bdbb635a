"""Certificates: what a server shows, also when it is not accepted.

`ssl` gives the fields of a certificate only once it was verified. So one that was not accepted is
fetched without verification, and then accepted as its own authority, whatever the date, on a
connection made only to read its fields. Nothing of value travels on either.
"""

from __future__ import annotations

import datetime
import hashlib
import ssl
from dataclasses import dataclass, field

# X509_V_FLAG_NO_CHECK_TIME of OpenSSL, which `ssl` has no name for.
_WHATEVER_THE_DATE = ssl.VerifyFlags(0x200000)


@dataclass(frozen=True, slots=True)
class Certificate:
    """What stands in a certificate.

    Attributes:
        octets: the certificate itself, DER.
        subject: whose it is, as "commonName=mail.example.org, …".
        issuer: who says so.
        names: the host names and addresses it is for.
        not_before: from when it is valid (ISO 8601, UTC); empty if the fields could not be read.
        not_after: until when.
    """

    octets: bytes = field(repr=False)
    subject: str = ""
    issuer: str = ""
    names: tuple[str, ...] = ()
    not_before: str = ""
    not_after: str = ""

    @classmethod
    def of(cls, connection: ssl.SSLObject) -> Certificate | None:
        """The certificate of the other side; None if it has none."""
        octets = connection.getpeercert(binary_form=True)
        if octets is None:
            return None
        fields = connection.getpeercert()
        if not fields:  # it was not verified
            return cls(octets)
        return cls(
            octets=octets,
            subject=_name(fields.get("subject", ())),
            issuer=_name(fields.get("issuer", ())),
            names=tuple(str(pair[1]) for pair in fields.get("subjectAltName", ())),
            not_before=_when(str(fields["notBefore"])),
            not_after=_when(str(fields["notAfter"])),
        )

    @property
    def sha256(self) -> str:
        """Its fingerprint, in hexadecimal."""
        return hashlib.sha256(self.octets).hexdigest()


def _name(parts: object) -> str:
    assert isinstance(parts, tuple)
    return ", ".join(f"{key}={value}" for group in parts for key, value in group)


def _when(text: str) -> str:
    seconds = ssl.cert_time_to_seconds(text)
    return (datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=seconds)).isoformat() + "Z"


def unverified() -> ssl.SSLContext:
    """Return a context that accepts any certificate. Only for looking at one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def pinned(octets: bytes) -> ssl.SSLContext:
    """Return a context that accepts exactly this certificate (DER), whatever its name and date."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=octets)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _WHATEVER_THE_DATE
    return context
