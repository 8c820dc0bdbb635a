"""NTLM and GSSAPI: logins that Windows and Kerberos know ([MS-SMTPNTLM], RFC 4752).

The tokens are the library pyspnego's (extra `spnego`): NTLM in Python, Kerberos by the system's
library through `gssapi`, or SSPI on Windows. Here is what SASL puts around them.

Rules of this room:

* What pyspnego raises stays inside, for its frames hold the password, and what it logs of the
  tokens is not let through.
* No security layer is negotiated: TLS is there for that (RFC 4752 section 3.1).
* Kerberos asks its servers over the network: whoever drives these mechanisms does so off the loop.
* The service is "smtp" (RFC 4954 section 4) or "lmtp", on the host whose certificate would be wanted.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import hashlib
import importlib.util
import logging
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .exchange import NOBODY, Channel, Mechanism, Peer, Unproven
from .secret import Credentials

if TYPE_CHECKING:
    from spnego import ContextProxy
    from spnego.channel_bindings import GssChannelBindings

_quiet: contextvars.ContextVar[bool] = contextvars.ContextVar("quiet", default=False)
_TALKATIVE = ("spnego._gss", "spnego._negotiate", "spnego._ntlm", "spnego._sspi")
_NO_LAYER = 1
"""The security layers of RFC 4752 section 3.3: a bit mask, of which we want "none"."""


class _Discretion(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not _quiet.get()


@functools.cache
def _hush() -> None:
    """Keep what pyspnego logs for us, every token at DEBUG, from whoever listens."""
    for name in _TALKATIVE:
        logging.getLogger(name).addFilter(_Discretion())


@functools.cache
def available() -> bool:
    """True if pyspnego is installed."""
    return importlib.util.find_spec("spnego") is not None


def kerberos_available() -> bool:
    """True if there is a Kerberos that pyspnego can speak through: `gssapi` and `krb5`, or Windows' own."""
    needed = () if sys.platform == "win32" else ("gssapi", "krb5")
    return available() and all(importlib.util.find_spec(name) is not None for name in needed)


class _Failed(Exception):
    """The exchange cannot go on; the text says why, and nothing that is secret."""


def ntlm(credentials: Credentials, peer: Peer = NOBODY) -> Mechanism:
    """NTLM: two messages of ours, the second of which signs the server's challenge."""
    if credentials.authorization_id:
        raise ValueError("NTLM cannot carry an authorization identity")
    try:
        context = _context("ntlm", credentials, peer, _bindings(peer.channel))
        yield _step(context, (yield _step(context, None)))
    except _Failed as failed:
        return f"NTLM: {failed}"
    return None


def gssapi(credentials: Credentials, peer: Peer = NOBODY) -> Mechanism:
    """GSSAPI (RFC 4752): Kerberos tokens, then the choice of no security layer, both ways signed."""
    try:
        context = _context("kerberos", credentials, peer, None)  # section 3.1: without channel bindings
        challenge = yield _step(context, None)
        while not context.complete:
            challenge = yield _step(context, _given(challenge))
        yield _chosen(context, _given(challenge), credentials)
    except _Failed as failed:
        return f"GSSAPI: {failed}"
    return None


def _given(challenge: bytes | None) -> bytes:
    if challenge is None:
        raise Unproven("the server let us in without a proof that it is the one we mean")
    return challenge


def _context(
    protocol: str, credentials: Credentials, peer: Peer, bindings: GssChannelBindings | None
) -> ContextProxy:
    import spnego

    with _discreet():
        return spnego.client(
            credentials.user or None,
            credentials.password.reveal() or None,
            hostname=peer.hostname or "localhost",
            service=peer.service,
            channel_bindings=bindings,
            protocol=protocol,
        )


def _step(context: ContextProxy, challenge: bytes | None) -> bytes:
    with _discreet():
        return context.step(challenge) or b""


def _chosen(context: ContextProxy, offer: bytes, credentials: Credentials) -> bytes:
    """What is said to the layers on offer: none, and whom to act as (RFC 4752 section 3.1)."""
    with _discreet():
        layers = context.unwrap(offer).data
        if len(layers) != 4 or not layers[0] & _NO_LAYER:
            raise _Failed("the server insists on a security layer, which we leave to TLS")
        answer = bytes([_NO_LAYER, 0, 0, 0]) + credentials.authorization_id.encode()
        return context.wrap(answer, encrypt=False).data


@contextlib.contextmanager
def _discreet() -> Iterator[None]:
    """Let nothing out that pyspnego logs or raises, except for what its errors say."""
    from spnego.exceptions import SpnegoError

    _hush()
    said = "the token makes no sense, or no credentials fit"
    silence = _quiet.set(True)
    try:
        yield
        return
    except _Failed as failed:
        said = str(failed)
    except SpnegoError as error:
        said = str(error)
    except Exception as error:  # what is wrong with a token shows in many ways
        said = f"{said} ({type(error).__name__})"
    finally:
        _quiet.reset(silence)
    raise _Failed(said)


def _bindings(channel: Channel | None) -> GssChannelBindings | None:
    """Extended protection: the hash of the server's certificate (RFC 5929 section 4)."""
    if channel is None or channel.certificate is None:
        return None
    from cryptography import x509  # which pyspnego brings
    from cryptography.exceptions import UnsupportedAlgorithm
    from spnego.channel_bindings import GssChannelBindings

    try:
        algorithm = x509.load_der_x509_certificate(channel.certificate).signature_hash_algorithm
    except (ValueError, UnsupportedAlgorithm):
        return None
    if algorithm is None:
        return None
    name = "sha256" if algorithm.name in ("md5", "sha1") else algorithm.name
    digest = hashlib.new(name, channel.certificate).digest()
    return GssChannelBindings(application_data=b"tls-server-end-point:" + digest)
