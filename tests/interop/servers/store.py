"""A small server on aiosmtpd that keeps what it takes: one file a message, the recipients in its first line.

    python store.py FOLDER PORT TLS_PORT LIMIT [bare]

It stands behind servers that only relay, and for aiosmtpd itself. FOLDER holds cert.pem and
key.pem and gets a file `N.eml` for each message, complete or not there at all. LIMIT is the
octets of a message. Addresses that begin with "reject" are refused. With "bare" it knows no
TLS and no AUTH, as a relay behind a proxy that has both.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import ssl
import sys
from pathlib import Path

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

FOLDER, PORT, TLS_PORT, LIMIT = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])


BARE = "bare" in sys.argv


class Keeper:
    """What aiosmtpd asks about each command."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address.startswith("reject"):
            return "550 5.7.1 not from you"
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 ok"

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address.startswith("reject"):
            return "550 5.1.1 no such user"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 ok"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        name = f"{os.getpid()}-{next(self._numbers)}"
        content = envelope.original_content or b""
        part = FOLDER / f"{name}.part"
        part.write_bytes(json.dumps(envelope.rcpt_tos).encode() + b"\n" + content)
        part.rename(FOLDER / f"{name}.eml")
        return f"250 2.0.0 kept as {name}"


def known(
    server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: LoginPassword
) -> AuthResult:
    """Is it the user that every server here knows?"""
    right = isinstance(data, LoginPassword) and (data.login, data.password) == (b"user", b"pass")
    return AuthResult(success=right, handled=False)


async def main() -> None:
    """Serve until SIGTERM."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(FOLDER / "cert.pem", FOLDER / "key.pem")
    keeper = Keeper()

    def connection() -> SMTP:
        return SMTP(
            keeper,
            data_size_limit=LIMIT,
            enable_SMTPUTF8=True,
            hostname="store.test",
            tls_context=None if BARE else context,
            authenticator=known,
            auth_require_tls=BARE,
            command_call_limit={"*": 1_000_000},
        )

    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    await loop.create_server(connection, "127.0.0.1", PORT)
    await loop.create_server(connection, "127.0.0.1", TLS_PORT, ssl=context)
    await ended.wait()


asyncio.run(main())
