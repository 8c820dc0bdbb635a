"""The logins of the `MailServer` beyond passwords in clear: what each mechanism asks and believes.

Each is a coroutine function that is given the connection and the initial response, if there was
one, and returns the user who was let in, or None. An exchange that the client gives up, or in
which it sends what is no base64, has had its reply: that is `Over`.
"""

from __future__ import annotations

import hmac
import json
import re
import secrets
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias, cast

from aiosmtpclient.testing.arguments import Refused
from aiosmtpclient.testing.certificates import certificate_of

if TYPE_CHECKING:
    from aiosmtpclient.testing.esmtp import ESMTPConnection

Login: TypeAlias = "Callable[[ESMTPConnection, bytes | None], Awaitable[str | None]]"

_SCRAM = tuple(f"SCRAM-SHA-{size}{plus}" for size in (512, 256, 1) for plus in ("-PLUS", ""))
_XOAUTH2 = re.compile(rb"user=([^\x01]*)\x01auth=Bearer ([^\x01]*)\x01\x01")
_OAUTHBEARER = re.compile(rb"n,(?:a=([^,]*))?,\x01(?:[a-z]+=[^\x01]*\x01)*?auth=Bearer ([^\x01]*)\x01\x01")


class Over(Exception):
    """The exchange has ended, and its reply was sent."""


async def _response(connection: ESMTPConnection, challenge: bytes) -> bytes:
    response = await connection.challenge_auth(challenge)
    if not isinstance(response, bytes):
        raise Over
    return response


async def _first(connection: ESMTPConnection, initial: bytes | None) -> bytes:
    return await _response(connection, b"") if initial is None else initial


async def cram_md5(connection: ESMTPConnection, initial: bytes | None) -> str | None:
    """CRAM-MD5 (RFC 2195)."""
    if initial is not None:
        raise Refused("501 5.7.0 CRAM-MD5 has no initial response")
    challenge = f"<{secrets.token_hex(8)}@{connection.hostname}>".encode()
    login, _, digest = (await _response(connection, challenge)).rpartition(b" ")
    user = login.decode("utf-8", "replace")
    password = connection.owner.users.get(user)
    right = password is not None and hmac.compare_digest(
        hmac.new(password.encode(), challenge, "md5").hexdigest().encode(), digest
    )
    return user if right else None


def scram(name: str) -> Login:
    """A SCRAM mechanism (RFC 5802), by scramp."""

    async def exchange(connection: ESMTPConnection, initial: bytes | None) -> str | None:
        import scramp

        users, known = connection.owner.users, []
        mechanism = scramp.ScramMechanism(name)

        def keys(user: str) -> tuple[bytes, bytes, bytes, int] | None:
            known.append(user)
            password = users.get(user)
            # Any other mechanism has a user's password as it is; here it was prepared beforehand.
            return mechanism.make_auth_info(password) if password is not None else None

        server = mechanism.make_server(keys, channel_binding=_binding(connection))
        try:
            server.set_client_first((await _first(connection, initial)).decode("utf-8", "replace"))
            final = await _response(connection, server.get_server_first().encode())
            server.set_client_final(final.decode("utf-8", "replace"))
        except scramp.ScramException:
            return None
        proof = server.get_server_final().encode()
        await _response(connection, connection.owner.scram_proof(proof))
        return known[0]

    return exchange


def _binding(connection: ESMTPConnection) -> tuple[str, bytes | str] | None:
    """What a login is bound to, if mechanisms that bind are offered at all."""
    layer = _layer(connection)
    if layer is None or not any(name.endswith("-PLUS") for name in connection.owner.mechanisms):
        return None
    unique = None if layer.version() == "TLSv1.3" else layer.get_channel_binding("tls-unique")
    if unique is not None:
        return "tls-unique", unique
    certificate = certificate_of(layer.context)
    return ("tls-server-end-point", certificate) if certificate is not None else None


def _layer(connection: ESMTPConnection) -> ssl.SSLObject | None:
    return connection.transport.get_extra_info("ssl_object") if connection.transport is not None else None


async def xoauth2(connection: ESMTPConnection, initial: bytes | None) -> str | None:
    """XOAUTH2: a refusal is a challenge with reasons, and an empty line answers it."""
    match = _XOAUTH2.fullmatch(await _first(connection, initial))
    user = _token_user(connection, match)
    if user is None or match is None or user.encode() != match[1]:
        await _complain(connection, {"status": "401", "schemes": "bearer", "scope": "mail"}, b"")
        return None
    return user


async def oauthbearer(connection: ESMTPConnection, initial: bytes | None) -> str | None:
    """OAUTHBEARER (RFC 7628): the octet 1 answers a refusal."""
    match = _OAUTHBEARER.fullmatch(await _first(connection, initial))
    user = _token_user(connection, match)
    asked = match[1].replace(b"=2C", b",").replace(b"=3D", b"=") if match and match[1] else b""
    if user is None or (asked and user.encode() != asked):
        await _complain(connection, {"status": "invalid_token", "scope": "mail"}, b"\x01")
        return None
    return user


def _token_user(connection: ESMTPConnection, match: re.Match[bytes] | None) -> str | None:
    return connection.owner.tokens.get(match[2].decode("utf-8", "replace")) if match else None


async def _complain(connection: ESMTPConnection, said: Mapping[str, str], answer: bytes) -> None:
    if await _response(connection, json.dumps(said).encode()) != answer:
        raise Refused("501 5.5.2 Error: not the answer to a refused token")


async def external(connection: ESMTPConnection, initial: bytes | None) -> str | None:
    """EXTERNAL: the user is the common name of the certificate that the client showed."""
    asked = (await _first(connection, initial)).decode("utf-8", "replace")
    user = _common_name(connection)
    return user if user is not None and asked in ("", user) else None


def _common_name(connection: ESMTPConnection) -> str | None:
    layer = _layer(connection)
    certificate = layer.getpeercert() if layer is not None else None
    subject = cast("tuple[tuple[tuple[str, str], ...], ...]", (certificate or {}).get("subject", ()))
    return dict(pair for pairs in subject for pair in pairs).get("commonName")


async def anonymous(connection: ESMTPConnection, initial: bytes | None) -> str | None:
    """ANONYMOUS (RFC 4505): everybody is let in."""
    await _first(connection, initial)
    return "anonymous"


LOGINS: Mapping[str, Login] = {
    **{name: scram(name) for name in _SCRAM},
    "CRAM-MD5": cram_md5,
    "XOAUTH2": xoauth2,
    "OAUTHBEARER": oauthbearer,
    "EXTERNAL": external,
    "ANONYMOUS": anonymous,
}
"""By name; the exchanges of PLAIN and LOGIN are aiosmtpd's."""
