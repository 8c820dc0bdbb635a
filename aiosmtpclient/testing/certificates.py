"""Certificates for tests: one authority, made by trustme, and contexts for both sides.

Making keys takes a moment, so a process has one authority; every `CertificateAuthority` is
that one, and a client that trusts one of them trusts the servers of all.
"""

from __future__ import annotations

import datetime
import functools
import os
import ssl
import weakref
from pathlib import Path
from typing import NamedTuple

try:
    import trustme
except ImportError as missing:
    raise ImportError(
        'aiosmtpclient.testing makes certificates with trustme: pip install "aiosmtpclient[testing]"'
    ) from missing

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
"""The names in a server's certificate unless others are asked for."""


class CertificateFiles(NamedTuple):
    """Where `CertificateAuthority.write_to` wrote: PEM files, for servers that read files."""

    certificate: Path
    key: Path
    ca: Path


@functools.cache
def _authority(purpose: str) -> trustme.CA:
    return trustme.CA(organization_name=f"aiosmtpclient tests ({purpose})")


@functools.cache
def _leaf(purpose: str, names: tuple[str, ...], expired: bool) -> trustme.LeafCert:
    if not expired:
        return _authority(purpose).issue_cert(*names)
    now = datetime.datetime.now(datetime.UTC)
    return _authority(purpose).issue_cert(
        *names, not_before=now - datetime.timedelta(days=30), not_after=now - datetime.timedelta(days=1)
    )


_certificates: weakref.WeakKeyDictionary[ssl.SSLContext, str] = weakref.WeakKeyDictionary()


def _server_context(leaf: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf.configure_cert(context)
    _certificates[context] = leaf.cert_chain_pems[0].bytes().decode()
    return context


def certificate_of(context: ssl.SSLContext) -> str | None:
    """The certificate in a server's context, PEM, if it was made here: `ssl` does not tell."""
    return _certificates.get(context)


class CertificateAuthority:
    """A certificate authority that only tests trust."""

    def server_context(
        self, *names: str, expired: bool = False, client_certificates: bool = False
    ) -> ssl.SSLContext:
        """A context for a server.

        Args:
            names: host names and addresses in the certificate; localhost, 127.0.0.1 and ::1
                if none are given.
            expired: make it a certificate whose time ended yesterday.
            client_certificates: ask clients for a certificate of this authority; they need not
                show one.
        """
        context = _server_context(_leaf("trusted", names or LOCAL_NAMES, expired))
        if client_certificates:
            context.verify_mode = ssl.CERT_OPTIONAL
            _authority("trusted").configure_trust(context)
        return context

    def expired_context(self) -> ssl.SSLContext:
        """A server's context whose certificate is no longer valid."""
        return self.server_context(expired=True)

    def wrong_name_context(self) -> ssl.SSLContext:
        """A server's context whose certificate is for another host."""
        return self.server_context("another-host.test")

    def untrusted_context(self) -> ssl.SSLContext:
        """A server's context whose certificate comes from an authority that nobody trusts."""
        return _server_context(_leaf("untrusted", LOCAL_NAMES, False))

    def client_context(self, *, user: str | None = None) -> ssl.SSLContext:
        """A context for a client: verifies host names, and trusts this authority only.

        Args:
            user: show the server a certificate with this common name.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        _authority("trusted").configure_trust(context)
        if user is not None:
            _authority("trusted").issue_cert("user.test", common_name=user).configure_cert(context)
        return context

    @property
    def ca_pem(self) -> bytes:
        """The authority's own certificate, PEM."""
        return _authority("trusted").cert_pem.bytes()

    def write_to(self, folder: str | os.PathLike[str], *names: str) -> CertificateFiles:
        """Write cert.pem (with its chain), key.pem and ca.pem into a folder that exists."""
        leaf = _leaf("trusted", names or LOCAL_NAMES, False)
        files = CertificateFiles(Path(folder, "cert.pem"), Path(folder, "key.pem"), Path(folder, "ca.pem"))
        files.certificate.write_bytes(b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
        files.key.write_bytes(leaf.private_key_pem.bytes())
        files.ca.write_bytes(self.ca_pem)
        return files
