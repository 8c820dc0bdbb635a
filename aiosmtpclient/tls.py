"""TLS: when it is used, whom it must name, and what to say when it fails (RFC 3207, RFC 8314).

What a policy means on which port, in the order in which the rules are asked:

====================================  ==================================
tls= left out, and …                  then
====================================  ==================================
port 465                              `IMPLICIT` (RFC 8314 section 3.3)
port 587                              `STARTTLS`, required
the server is local                   `NONE`
anything else                         `OPPORTUNISTIC`
====================================  ==================================

Rules of this room:

* A certificate is verified, and against the configured name, whenever TLS is used. The only ways
  around it are a context of the caller's own, or a fingerprint (`trust`) that says it all.
* Local is what needs no network and no DNS to be known as local: a Unix socket, `localhost` and
  the names below it (RFC 6761 section 6.3), a literal in 127/8 or ::1. Whatever else a name may
  resolve to, it is not local.
* The error of a failed handshake says why, and which argument to turn.
"""

from __future__ import annotations

import enum
import functools
import ipaddress
import os
import re
import ssl
import warnings
from typing import TypeAlias

from .domains import a_labels
from .errors import SMTPTLSError

StrPath: TypeAlias = str | os.PathLike[str]


class TLSPolicy(enum.Enum):
    """When TLS is used; the values are the names that `tls=` takes."""

    NONE = "none"
    """Never: everything travels in clear."""
    OPPORTUNISTIC = "opportunistic"
    """If the server offers STARTTLS and lets us; otherwise in clear, but then without credentials."""
    STARTTLS = "starttls"
    """Always, by STARTTLS after a greeting in clear; a server without it gets nothing from us."""
    IMPLICIT = "implicit"
    """Always, from the first octet."""

    @classmethod
    def of(cls, value: TLSPolicy | str | None, *, port: int, local: bool) -> TLSPolicy:
        """Resolve what the caller asked for.

        Args:
            value: a policy, its name in lower case, or None to choose by port and place.
            port: the port that is connected to.
            local: the server is local (`is_local`, `is_local_peer`).

        Raises:
            ValueError: no such policy.
        """
        if value is None:
            return _chosen(port, local)
        try:
            return cls(value)
        except ValueError:
            names = ", ".join(repr(policy.value) for policy in cls)
            raise ValueError(f"tls must be one of {names}, not {value!r}") from None


def _chosen(port: int, local: bool) -> TLSPolicy:
    if port == 465:
        return TLSPolicy.IMPLICIT
    if port == 587:
        return TLSPolicy.STARTTLS
    return TLSPolicy.NONE if local else TLSPolicy.OPPORTUNISTIC


@functools.lru_cache(maxsize=64)
def is_local(host: str) -> bool:
    """True if `host`, as configured, can only mean this machine; nothing is looked up."""
    if host.startswith("/"):
        return True
    name = host.lower().removesuffix(".")
    if name == "localhost" or (name.endswith(".localhost") and not name.startswith(".")):
        return True
    # With its dot a literal would be a name after all, so the host is asked as it was given.
    address = _literal(_unbracketed(host))
    return address is not None and _is_loopback(address)


def is_local_peer(peername: object) -> bool:
    """True if a connected socket's peer is on this machine.

    Args:
        peername: what `getpeername()` returned: a tuple for TCP, a path for a Unix socket.
    """
    if isinstance(peername, str | bytes):
        return True
    host = peername[0] if isinstance(peername, tuple) and peername else None
    address = _literal(host) if isinstance(host, str) else None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return _is_loopback(address.ipv4_mapped)
    return address is not None and _is_loopback(address)


_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
_LOOPBACK_4 = ipaddress.IPv4Network("127.0.0.0/8")
_LOOPBACK_6 = ipaddress.IPv6Address("::1")


def _literal(text: str) -> _Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _is_loopback(address: _Address) -> bool:
    # Not `.is_loopback`: what it says of mapped addresses depends on the version of Python.
    return address in _LOOPBACK_4 or address == _LOOPBACK_6


def _unbracketed(host: str) -> str:
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def server_name(host: str) -> str:
    """Return the name that the server's certificate must bear.

    Args:
        host: a domain, perhaps international or with a final dot, or an IP literal, perhaps in
            brackets or with a zone.

    Raises:
        ValueError: neither.
    """
    bare = _unbracketed(host)
    if _literal(bare) is not None:
        return bare.partition("%")[0]  # a certificate knows no zones
    try:
        # Also what is ASCII: `ssl` would do the same, and raise a bare UnicodeError.
        bare = bare.removesuffix(".")
        name = (bare if bare.isascii() else a_labels(bare)).encode("idna").decode("ascii")
    except UnicodeError as error:
        raise ValueError(f"not a host name: {host!r}") from error
    if re.fullmatch(r"[A-Za-z0-9._-]+", name) is None:
        raise ValueError(f"not a host name: {host!r}")
    return name


def default_context() -> ssl.SSLContext:
    """Return a new context that trusts the system's CAs, verifies names, and wants TLS 1.2 or newer.

    A new one a call, so that nobody's changes reach somebody else's connections. Reading the
    system's CAs takes tens of milliseconds: make one a client or a pool, and not on an event loop.
    """
    return at_least_1_2(ssl.create_default_context())


def at_least_1_2(context: ssl.SSLContext) -> ssl.SSLContext:
    """Raise a context's lowest version to TLS 1.2; returns it."""
    # Never lowered: the system's own configuration may ask for more.
    if context.minimum_version < ssl.TLSVersion.TLSv1_2:
        context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def given_context(
    keyfile: StrPath | None, certfile: StrPath | None, context: ssl.SSLContext | None
) -> ssl.SSLContext | None:
    """The context that `smtplib`'s own arguments make, if they make one; for the blocking classes."""
    if keyfile is None and certfile is None:
        return context
    if context is not None:
        raise ValueError("keyfile and certfile go into the context that is given")
    warnings.warn("keyfile and certfile are deprecated: pass a context", DeprecationWarning, stacklevel=3)
    return legacy_context(certfile, keyfile)


def legacy_context(certfile: StrPath | None, keyfile: StrPath | None) -> ssl.SSLContext:
    """Return a default context for smtplib's `certfile` and `keyfile` (documented up to 3.11).

    Args:
        certfile: our certificate, PEM, with the chain behind it.
        keyfile: its private key, PEM, if it is not in `certfile`; it must not need a passphrase.

    Raises:
        ValueError: a key without a certificate.
        SMTPTLSError: they cannot be loaded.
    """
    if certfile is None and keyfile is not None:
        raise ValueError("keyfile needs a certfile")
    context = default_context()
    if certfile is not None:
        load_certificate(context, certfile, keyfile)
    return context


def load_certificate(context: ssl.SSLContext, certfile: StrPath, keyfile: StrPath | None) -> None:
    """Load our certificate and its key into a context.

    Raises:
        SMTPTLSError: they cannot be loaded.
    """
    try:
        # Without a passphrase OpenSSL would ask for one on the terminal, and block there.
        context.load_cert_chain(certfile, keyfile, password="")
    except OSError as error:
        why = error.strerror
        if isinstance(error, ssl.SSLError):
            why = "no PEM, no key to it, or a key with a passphrase (which needs a tls_context=)"
        raise SMTPTLSError(f"cannot load the client certificate {os.fspath(certfile)!r}: {why}") from error


def may_send_credentials(policy: TLSPolicy, *, encrypted: bool, local: bool, allow_cleartext: bool) -> bool:
    """True if credentials may travel on this connection as it is now.

    Inside TLS always; in clear only to a local server with `NONE`, or where the caller said so.
    """
    return allow_cleartext or may_try_another(policy, encrypted=encrypted, local=local)


def may_try_another(policy: TLSPolicy, *, encrypted: bool, local: bool) -> bool:
    """True if another mechanism may be tried after one has failed.

    Somebody on the wire can make a strong mechanism fail, to be sent the password itself next.
    """
    return encrypted or (policy is TLSPolicy.NONE and local)


# X509_V_ERR_* of OpenSSL → what is wrong, and what to do about it.
_TRUST = "to trust it, pass tls_ca= or a tls_context= (context= in the blocking classes) with it or its CA"
_NAME = "if that name is right, pass it as server_hostname="
_CLOCK = "check this machine's clock; only a tls_context= of your own can accept it"
_VERIFY_ERRORS = {
    2: ("its certificate was issued by a CA that is not trusted here", _TRUST),
    9: ("its certificate is not valid yet", _CLOCK),
    10: ("its certificate has expired", _CLOCK),
    18: ("its certificate is self-signed", _TRUST),
    19: ("its certificate was issued by a private CA that is not trusted here", _TRUST),
    20: ("its certificate was issued by a CA that is not trusted here", _TRUST),
    21: ("its certificate came without the CA's that issued it", _TRUST),
    23: ("its certificate was revoked", "only a tls_context= of your own can accept it"),
    62: ("its certificate is for another name", _NAME),
    64: ("its certificate is for another address", _NAME),
}
_OTHER_VERIFY_ERROR = ("its certificate was not accepted", _TRUST)

# Reasons of OpenSSL, by what they contain; the first that fits.
_IN_CLEAR = "on a port that starts in clear, pass tls='starttls' instead of 'implicit'"
_NOT_TLS = ("what it sent is not TLS", _IN_CLEAR)
_OUR_CERTIFICATE = (
    "it did not accept our certificate, or wants one",
    "pass tls_certificate=, or a tls_context= that has loaded a client certificate",
)
_SSL_ERRORS = (
    ("WRONG_VERSION_NUMBER", _NOT_TLS),
    ("PACKET_LENGTH_TOO_LONG", _NOT_TLS),
    ("RECORD_LAYER_FAILURE", _NOT_TLS),
    ("PROTOCOL", ("we have no version of TLS in common", "pass a tls_context= with other versions")),
    ("CERTIFICATE", _OUR_CERTIFICATE),
    ("UNKNOWN_CA", _OUR_CERTIFICATE),
    (
        "HANDSHAKE_FAILURE",
        (
            "it found nothing in common with us, or wants a client certificate",
            "pass tls_certificate=, or a tls_context= with other ciphers",
        ),
    ),
)
_OTHER_SSL_ERROR = ("the handshake failed", "pass a tls_context= with other settings")
_CLOSED = ("the connection was closed in the middle of the handshake", _IN_CLEAR)


def failure(error: Exception, host: str) -> SMTPTLSError:
    """Turn what a handshake raised into our error, to be raised `from` it.

    Args:
        error: an `ssl.SSLError` (a certificate's among them), or the loss of the connection.
        host: the server, as configured.

    Returns:
        An error that says what failed, which argument to turn, and what `ssl` said.
    """
    what, knob = _explained(error)
    said = str(getattr(error, "verify_message", "") or error) or type(error).__name__
    return SMTPTLSError(f"TLS with {host} failed: {what}; {knob} ({said.rstrip('.')})")


def _explained(error: Exception) -> tuple[str, str]:
    if isinstance(error, ssl.SSLCertVerificationError):
        return _VERIFY_ERRORS.get(getattr(error, "verify_code", 0), _OTHER_VERIFY_ERROR)
    if isinstance(error, ConnectionError | EOFError | ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return _CLOSED
    reason = getattr(error, "reason", None) or ""
    return next((said for part, said in _SSL_ERRORS if part in reason), _OTHER_SSL_ERROR)
