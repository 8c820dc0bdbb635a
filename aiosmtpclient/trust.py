"""Trust: which certificate a server must have, and which one we show, by simple arguments.

==================  ===================================================================
argument            what it does
==================  ===================================================================
`tls_ca`            trust these authorities in place of the system's
`tls_certificate`   show this certificate if the server asks for one
`tls_fingerprint`   the server's certificate must be this one, or one of these
==================  ===================================================================

Rules of this room:

* A pin alone says all there is to say about a certificate: issuer, name and dates are not looked
  at then. With `tls_ca` or a context of the caller's own, that is verified first.
* A pin is looked at right after the handshake, before anything else is sent.
* Files that cannot be loaded are found when the arguments are given, not at the first connection.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import ssl
from collections.abc import Iterable
from typing import TypeAlias

from . import tls
from .errors import SMTPTLSError
from .resumption import resuming
from .tls import StrPath

CertificateFiles: TypeAlias = StrPath | tuple[StrPath, StrPath]
"""One file with certificate and key, or two: our certificate with its chain, and its key (PEM)."""
Fingerprints: TypeAlias = str | Iterable[str]
"""SHA-256 of a certificate in DER, in hexadecimal digits, with or without colons; or several."""


class Trust:
    """What simple arguments say about certificates.

    Args:
        ca: a file or a directory of authorities (PEM), or what stands in such a file.
        certificate: ours.
        fingerprint: the server's.

    Attributes:
        pins: the fingerprints, as octets.

    Raises:
        ValueError: what is no fingerprint, or an empty `ca`.
        SMTPTLSError: a file that cannot be loaded.
    """

    def __init__(
        self,
        ca: StrPath | bytes | None = None,
        certificate: CertificateFiles | None = None,
        fingerprint: Fingerprints | None = None,
    ) -> None:
        self.pins = _pins(fingerprint)
        self._ca = ca
        self._certificate = certificate
        self._context: ssl.SSLContext | None = None
        if ca is not None or (self.pins and certificate is None):
            self._context = self._make()  # takes no time: it reads none of the system's authorities
        elif certificate is not None:
            _load(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), certificate)

    def context(self) -> ssl.SSLContext:
        """The context that follows, always the same one. It may have to read the system's authorities."""
        if self._context is None:
            self._context = self._make()
        return self._context

    def _make(self) -> ssl.SSLContext:
        if self._ca is not None:
            context = _trusting(self._ca)
        elif self.pins:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE  # the pin is the verification
        else:
            context = tls.default_context()
        if self._certificate is not None:
            _load(context, self._certificate)
        return resuming(tls.at_least_1_2(context))

    def mismatch(self, certificate: bytes | None, host: str) -> SMTPTLSError | None:
        """The error to raise about a certificate (DER) that is none of those pinned."""
        if not self.pins:
            return None
        shown = hashlib.sha256(certificate or b"").digest()
        if True in [hmac.compare_digest(shown, pin) for pin in self.pins]:  # each of them is looked at
            return None
        return SMTPTLSError(
            f"TLS with {host} failed: its certificate is none that tls_fingerprint= names; if whoever runs "
            f"it says that it is the right one, pass tls_fingerprint={shown.hex(':').upper()!r}"
        )


def trust_of(
    context: ssl.SSLContext | None,
    ca: StrPath | bytes | None,
    certificate: CertificateFiles | None,
    fingerprint: Fingerprints | None,
) -> Trust | None:
    """What these arguments say; None if they say nothing, or only a context does.

    Raises:
        ValueError: they contradict each other, or one makes no sense.
        SMTPTLSError: a file that cannot be loaded.
    """
    if context is not None and not (ca is None and certificate is None):
        raise ValueError("tls_ca= and tls_certificate= go into the context that is given")
    if ca is None and certificate is None and fingerprint is None:
        return None
    return Trust(ca, certificate, fingerprint)


def context_by(context: ssl.SSLContext | None, trust: Trust | None) -> ssl.SSLContext:
    """The context to use: as given, as it follows from the trust, or for the system's authorities."""
    if context is not None:
        return context
    return trust.context() if trust is not None else tls.default_context()


def _pins(fingerprint: Fingerprints | None) -> tuple[bytes, ...]:
    if fingerprint is None:
        return ()
    given = (fingerprint,) if isinstance(fingerprint, str) else tuple(fingerprint)
    if not given:
        raise ValueError("tls_fingerprint= names no certificate: leave it out, or pass at least one")
    return tuple(_octets(one) for one in given)


def _octets(fingerprint: str) -> bytes:
    if not isinstance(fingerprint, str) or not re.fullmatch(
        r"[0-9A-Fa-f]{64}|(?:[0-9A-Fa-f]{2}:){31}[0-9A-Fa-f]{2}", fingerprint
    ):
        raise ValueError(
            "tls_fingerprint= takes the SHA-256 of a certificate, 64 hexadecimal digits with or without "
            f"colons, or several of them, not {fingerprint!r}"
        )
    return bytes.fromhex(fingerprint.replace(":", ""))


def _trusting(ca: StrPath | bytes) -> ssl.SSLContext:
    if not ca:  # which `ssl` takes for the system's own
        raise ValueError("tls_ca= is empty: leave it out to trust the system's authorities")
    try:
        if isinstance(ca, bytes):
            return ssl.create_default_context(cadata=ca.decode("ascii"))
        if os.path.isdir(ca):
            return ssl.create_default_context(capath=os.fspath(ca))
        return ssl.create_default_context(cafile=os.fspath(ca))
    except (OSError, UnicodeError) as error:
        named = "the given octets" if isinstance(ca, bytes) else repr(os.fspath(ca))
        why = "no certificates in PEM form"
        if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
            why = error.strerror or type(error).__name__
        raise SMTPTLSError(f"cannot load tls_ca= from {named}: {why}") from error


def _load(context: ssl.SSLContext, certificate: CertificateFiles) -> None:
    files, key = certificate if isinstance(certificate, tuple) else (certificate, None)
    tls.load_certificate(context, files, key)
