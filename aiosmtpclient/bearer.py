"""OAuth 2.0 at the mail server: OAUTHBEARER (RFC 7628) and XOAUTH2 (Google's and Microsoft's).

The secret is an access token, short-lived and got elsewhere. Both mechanisms say everything in
one response. A server that does not like the token says why in a challenge, as a JSON object,
and wants that answered before it says its 535.

Rules of this room:

* A token is one word of visible ASCII: the octet 1 separates the parts of the message.
* What the server said about its refusal is kept as text, short, and without the token.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from .exchange import NOBODY, Complaint, Mechanism, Peer
from .secret import Credentials, redacted

_TOKEN = "[!-~]+"
_MOST = 500
"""Characters kept of each thing that a server says about a refusal."""


def xoauth2(credentials: Credentials, peer: Peer = NOBODY) -> Mechanism:
    """XOAUTH2: user and token; a refusal is answered with an empty line."""
    _check(credentials)
    if not credentials.user:
        raise ValueError("XOAUTH2 needs a user name")
    yield Complaint(b"", _details((yield _xoauth2_message(credentials)), credentials))
    return None


def _xoauth2_message(credentials: Credentials) -> bytes:
    return f"user={credentials.user}\x01auth=Bearer {credentials.password.reveal()}\x01\x01".encode()


def oauthbearer(credentials: Credentials, peer: Peer = NOBODY) -> Mechanism:
    """OAUTHBEARER: the token, and perhaps for whom; a refusal is answered with the octet 1."""
    _check(credentials)
    yield Complaint(b"\x01", _details((yield _oauthbearer_message(credentials, peer)), credentials))
    return None


def _oauthbearer_message(credentials: Credentials, peer: Peer) -> bytes:
    # gs2-header of RFC 5801 section 4, then pairs that each end in the octet 1 (RFC 7628 section 3.1).
    whom = (credentials.authorization_id or credentials.user).replace("=", "=3D").replace(",", "=2C")
    place = f"host={peer.hostname}\x01port={peer.port}\x01" if peer.hostname and peer.port else ""
    return (
        f"n,{f'a={whom}' if whom else ''},\x01{place}auth=Bearer {credentials.password.reveal()}\x01\x01"
    ).encode()


def _check(credentials: Credentials) -> None:
    if re.compile(_TOKEN).fullmatch(credentials.password.reveal()) is None:
        raise ValueError('a token is one word of visible ASCII, without "Bearer" before it')
    if re.search("[\x01-\x1f\x7f]", credentials.user + credentials.authorization_id):
        raise ValueError("a control character in the user name")


def _details(challenge: bytes | None, credentials: Credentials) -> Mapping[str, str]:
    """What the server said, as far as it can be read."""
    try:
        said = json.loads(challenge or b"")
    except (ValueError, RecursionError):
        return {}
    if not isinstance(said, dict):
        return {}
    return {_text(name, credentials): _text(value, credentials) for name, value in said.items()}


def _text(value: object, credentials: Credentials) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    text = redacted(text, [credentials.password])
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:_MOST])
