"""Connecting: what is offered, TLS in both ways, and every login that a server offers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

import pytest

from aiosmtpclient import AsyncSMTP, SMTPAuthenticationError, SMTPTLSError, sasl
from aiosmtpclient.testing import CertificateAuthority

from . import letters
from .conftest import Found
from .servers import RealServer
from .servers.real import USER
from .tokens import proof

TRUST = CertificateAuthority().client_context()
ELSEWHERE = ("EXTERNAL", "GSSAPI", "ANONYMOUS")
"""Logins that take certificates, tickets or nothing: they have tests of their own."""


async def said(server: RealServer) -> list[bytes]:
    """The lines it answers to EHLO or LHLO, read by hand."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        greeting = await reader.readline()
        while greeting[3:4] == b"-":
            greeting = await reader.readline()
        writer.write(b"%s client.test\r\n" % (b"LHLO" if server.lmtp else b"EHLO"))
        lines = [await reader.readline()]
        while lines[-1][3:4] == b"-":
            lines.append(await reader.readline())
        writer.write(b"QUIT\r\n")
        await reader.read()
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return [line.rstrip(b"\r\n")[4:] for line in lines]


def shown(extensions: Mapping[str, str]) -> str:
    """What is offered, as Markdown; without what differs each time."""
    words = [f"{word.upper()} {extensions[word]}".strip() for word in sorted(extensions)]
    return ", ".join(f"`{word}`" for word in words if "SESSIONID=" not in word)


async def test_what_it_offers_is_read_exactly_as_it_was_said(server: RealServer, found: Found) -> None:
    _, *offered = await said(server)
    expected: dict[str, str] = {}
    for line in offered:
        keyword, _, parameters = line.decode().partition(" ")
        if keyword:
            expected[keyword.lower()] = parameters
    async with server.client(username=None, local_hostname="client.test") as smtp:
        read = dict(smtp.extensions)
    volatile = {word for word in expected if "SESSIONID=" in expected[word]}
    assert set(read) == set(expected)
    assert all(read[word] == expected[word] for word in set(read) - volatile)
    found.offers("before TLS", shown(expected))
    found("EHLO or LHLO read exactly", "yes")
    if b"" in offered:
        found.surprise("EHLO or LHLO read exactly", "the last line of its answer to EHLO is empty.")
    if volatile:
        text = "its answer to LHLO ends with `Ok SESSIONID=…`, which reads as an extension named OK."
        found.surprise("EHLO or LHLO read exactly", text)


async def test_starttls_against_its_certificate(server: RealServer, found: Found) -> None:
    async with server.client(username=None) as smtp:
        offered = "starttls" in smtp.extensions
    if not offered:
        found("STARTTLS", "–")
        return
    if server.no_handshake:
        with pytest.raises(SMTPTLSError):
            await server.client(tls="starttls", tls_context=TRUST).connect()
        found("STARTTLS", "no")
        found.surprise("STARTTLS", server.no_handshake)
        return
    async with server.client(tls="starttls", tls_context=TRUST) as smtp:
        await send_plain(server, smtp)
        found.offers("inside TLS", shown(smtp.extensions))
    with pytest.raises(SMTPTLSError):  # nobody trusts this authority
        await server.client(tls="starttls").connect()
    found("STARTTLS", "yes")


async def test_tls_from_the_first_octet(server: RealServer, found: Found) -> None:
    if not server.tls_port:
        found("TLS from the first octet", "–")
        return
    options = {"port": server.tls_port, "tls": "implicit"}
    async with server.client(**options, tls_context=TRUST) as smtp:
        await send_plain(server, smtp)
    with pytest.raises(SMTPTLSError):
        await server.client(**options).connect()
    found("TLS from the first octet", "yes")


async def send_plain(server: RealServer, smtp: AsyncSMTP) -> None:
    """Send a message and see it arrive."""
    name = letters.key("plain")
    await smtp.sendmail(letters.SENDER, letters.RECIPIENT, letters.plain(name))
    assert [one.key for one in server.stored(name)] == [name]


def inside(server: RealServer) -> dict[str, object]:
    """Options for the safest way into a server that has one."""
    if server.tls_port:
        return {"port": server.tls_port, "tls": "implicit", "tls_context": TRUST}
    return {}


async def test_every_login_it_offers_that_we_speak(server: RealServer, found: Found) -> None:
    async with server.client(**inside(server), username=None) as smtp:
        offered = smtp.extensions.auth_mechanisms
    spoken = [name for name in sasl.MECHANISMS if name in offered and sasl.available(name)]
    spoken = [name for name in spoken if name not in ELSEWHERE]
    if not server.has_users or not spoken:
        found("AUTH", "–")
        return
    for name in spoken:
        async with server.client(**inside(server), username=None) as smtp:
            await smtp.login(USER, mechanisms=[name], **proof(server, name))
        async with server.client(**inside(server), username=None) as smtp:
            with pytest.raises(SMTPAuthenticationError):
                await smtp.login(USER, mechanisms=[name], **proof(server, name, wrong="x"))
    found("AUTH", ", ".join(spoken))


async def test_over_a_unix_socket(server: RealServer, found: Found) -> None:
    if server.unix_path is None:
        found("Unix socket", "")
        return
    async with server.client(host=str(server.unix_path), port=0, username=None) as smtp:
        await send_plain(server, smtp)
    found("Unix socket", "yes")
