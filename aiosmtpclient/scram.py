"""SCRAM: a proof of the password that never travels, and the server's own (RFC 5802, RFC 7677).

The exchange is the library scramp's (extra `scram`): messages, SASLprep, keys, and the check of
what the server sends. What it cannot do is left out here too, and said: an authorization
identity, which RFC 5802 knows, and the channel binding tls-exporter, which Python's `ssl` does not
give either.

========================  ====================================================================
channel binding           where
========================  ====================================================================
tls-unique                up to TLS 1.2, where every server knows it (RFC 5802 section 6.1)
tls-server-end-point      TLS 1.3; the hash of the server's certificate (RFC 5929 section 4), for
                          which few servers ask: only where a -PLUS mechanism is asked for by name
tls-exporter              nowhere: Python's `ssl` has no way to export keying material
========================  ====================================================================

Rules of this room:

* The server's proof is checked to the end. One that is wrong or missing is `Unproven`: whoever
  is there does not know the password and must not be sent it.
* What scramp raises stays inside: its frames hold the password.
* A server cannot make us compute for ever, nor so little that the proof gives the password away
  (4096 iterations at least, RFC 7677 section 4).
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
from typing import TYPE_CHECKING

from .exchange import NOBODY, Channel, Mechanism, MechanismFactory, Peer, Unproven
from .secret import Credentials

if TYPE_CHECKING:
    from scramp import ScramClient

NAMES = (
    "SCRAM-SHA-512-PLUS",
    "SCRAM-SHA-256-PLUS",
    "SCRAM-SHA-1-PLUS",
    "SCRAM-SHA-512",
    "SCRAM-SHA-256",
    "SCRAM-SHA-1",
)
"""The strongest first."""

MOST_ITERATIONS = 2_000_000
"""What a server may make us compute: a few seconds. scramp would take five times as many."""

_WITHOUT_PROOF = "the server let us in without a proof that it knows the password"
_WRONG_PROOF = "the server does not know the password: what it sent as its proof is wrong"


@functools.cache
def available() -> bool:
    """True if scramp is installed."""
    return importlib.util.find_spec("scramp") is not None


def factory(name: str) -> MechanismFactory:
    """The mechanism of this name."""
    return functools.partial(_exchange, name)


def _exchange(name: str, credentials: Credentials, peer: Peer = NOBODY) -> Mechanism:
    client = _client(name, credentials, peer)
    if trouble := _take_first(client, (yield client.get_client_first().encode())):
        return trouble
    if trouble := _take_final(client, (yield client.get_client_final().encode())):
        return trouble
    yield b""  # RFC 4954 section 4: the server's last word came as a challenge, so it wants an answer
    return None


def fits(credentials: Credentials) -> bool:
    """True if the credentials can go this way: a user name, and nothing that SASLprep forbids."""
    return available() and _made("SCRAM-SHA-256", credentials, None) is not None


def binding(channel: Channel | None) -> tuple[str, bytes] | None:
    """The type and the octets that a login is bound to; None where there are none."""
    if channel is None:
        return None
    if channel.unique:
        return "tls-unique", channel.unique
    end_point = _end_point(channel.certificate) if channel.certificate else None
    return ("tls-server-end-point", end_point) if end_point else None


def is_common(channel: Channel | None) -> bool:
    """True if what there is to bind to is what every server knows."""
    return channel is not None and bool(channel.unique)


def _end_point(certificate: bytes) -> bytes | None:
    """The certificate's hash; None where its signature names no hash, as Ed25519's does not."""
    from asn1crypto.x509 import Certificate  # which scramp brings

    try:
        parsed = Certificate.load(certificate, strict=True)
        name = parsed.hash_algo
        if parsed.signature_algo.startswith("ed"):
            return None
        return hashlib.new("sha256" if name in ("md5", "sha1") else name, certificate).digest()
    except ValueError:
        return None


def _client(name: str, credentials: Credentials, peer: Peer) -> ScramClient:
    if credentials.authorization_id:
        raise ValueError(f"{name} cannot carry an authorization identity here; PLAIN can")
    bound = binding(peer.channel)
    if name.endswith("-PLUS"):
        if bound is None:
            raise ValueError(f"{name} needs channel binding, and there is nothing to bind to")
    elif peer.plus:
        # The server can bind and we do not: saying "y", that it cannot, would be taken for an attack.
        bound = None
    client = _made(name, credentials, bound)
    if client is None:
        raise ValueError(f"{name}: an empty user name, or a character that SASLprep forbids (RFC 4013)")
    return client


def _made(name: str, credentials: Credentials, bound: tuple[str, bytes] | None) -> ScramClient | None:
    import scramp

    try:
        return scramp.ScramClient([name], credentials.user, credentials.password.reveal(), bound)
    except scramp.ScramException:
        return None


def _take_first(client: ScramClient, challenge: bytes | None) -> str | None:
    """Take salt, iterations and nonce; returns what is wrong with them."""
    import scramp

    if challenge is None:
        raise Unproven(_WITHOUT_PROOF)
    try:
        client.set_server_first(challenge.decode())
    except UnicodeDecodeError:
        return "the server's first message is not UTF-8"
    except scramp.ScramException as error:
        return f"the server's first message: {error}"
    if int(client.iterations) > MOST_ITERATIONS:
        return f"the server's first message: more than {MOST_ITERATIONS} iterations"
    return None


def _take_final(client: ScramClient, challenge: bytes | None) -> str | None:
    """Check the server's proof; returns why it gives none."""
    import scramp

    if challenge is None:
        raise Unproven(_WITHOUT_PROOF)
    try:
        client.set_server_final(challenge.decode("utf-8", "replace"))
    except scramp.ScramException as error:
        if challenge.startswith(b"e="):
            return f"the server refuses: {error}"
    else:
        return None
    raise Unproven(_WRONG_PROOF)
