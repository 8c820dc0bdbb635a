"""What proves who we are, for mechanisms that take something else than a password."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

from .servers import RealServer
from .servers.dovecot import TOKEN_KEY
from .servers.real import PASSWORD, USER

BY_TOKEN = ("XOAUTH2", "OAUTHBEARER")


def token_for(server: RealServer, mechanism: str) -> tuple[dict[str, Any], str]:
    """Options for the client, and the password for `login`."""
    if mechanism not in BY_TOKEN:
        return {}, PASSWORD

    async def token() -> str:
        return "token" if server.name.startswith("smtp-server") else signed({"sub": USER})

    return {"token": token}, ""


def signed(claims: dict[str, str]) -> str:
    """A JSON web token, signed with the key that Dovecot was given."""
    parts = [_encoded(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims)]
    text = ".".join(parts)
    return f"{text}.{_encoded(hmac.digest(TOKEN_KEY, text.encode(), hashlib.sha256))}"


def _encoded(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).decode().rstrip("=")
