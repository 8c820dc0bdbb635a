"""What proves who we are, for mechanisms that take something else than a password."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

from .servers import RealServer
from .servers.dovecot import TOKEN_KEY
from .servers.real import PASSWORD, USER

BY_TOKEN = ("XOAUTH2", "OAUTHBEARER")
NEVER = 4102444800
"""When tokens expire: Dovecot takes none that do not."""


def proof(server: RealServer, mechanism: str, wrong: str = "") -> dict[str, str]:
    """Arguments for `login`: a password or a token; with something at its end it is wrong."""
    if mechanism not in BY_TOKEN:
        return {"password": PASSWORD + wrong}
    token = "token" if server.name.startswith("smtp-server") else signed({"sub": USER, "exp": NEVER})
    return {"token": token + wrong}


def signed(claims: dict[str, object]) -> str:
    """A JSON web token, signed with the key that Dovecot was given."""
    parts = [_encoded(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims)]
    text = ".".join(parts)
    return f"{text}.{_encoded(hmac.digest(TOKEN_KEY, text.encode(), hashlib.sha256))}"


def _encoded(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).decode().rstrip("=")
