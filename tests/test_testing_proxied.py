"""`MailServer` behind a load balancer: who the client is stands in the PROXY header."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from aiosmtpclient import SMTP, AsyncSMTP, ProxyHeader
from aiosmtpclient.testing import CertificateAuthority, MailServer

AUTHORITY = CertificateAuthority()
BODY = b"Subject: hi\r\n\r\nthere\r\n"
V4 = (("192.0.2.7", 4711), ("198.51.100.1", 25))
V6 = (("2001:db8::7", 4711), ("2001:db8::1", 25))


async def send(smtp: AsyncSMTP) -> None:
    await smtp.sendmail("a@b.test", "c@d.test", BODY)


@pytest.mark.each_loop
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("places", [V4, V6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("tls", ["none", "starttls", "implicit"])
async def test_the_client_is_who_the_header_says(version, places, tls) -> None:
    context = AUTHORITY.server_context()
    options = {"starttls": tls == "starttls" and context, "implicit_tls": tls == "implicit" and context}
    async with MailServer(proxy_protocol=True, **options) as server:
        header = ProxyHeader(*places, version=version)
        async with AsyncSMTP(
            server.host, server.port, tls=tls, tls_ca=AUTHORITY.ca_pem, proxy_header=header
        ) as smtp:
            await send(smtp)
        [message] = server.messages
    assert message.client == places[0]
    assert message.tls is (tls != "none")


@pytest.mark.parametrize("version", [1, 2])
async def test_a_proxy_that_speaks_for_itself_is_the_client(version) -> None:
    async with MailServer(proxy_protocol=True) as server:
        async with AsyncSMTP(server.host, server.port, proxy_header=ProxyHeader(version=version)) as smtp:
            await send(smtp)
        [message] = server.messages
    assert message.client is not None
    assert message.client[0] == "127.0.0.1"


def test_the_blocking_classes_too() -> None:
    with MailServer(proxy_protocol=True) as server:
        with SMTP(server.host, server.port, proxy_header=ProxyHeader(*V4)) as smtp:
            smtp.sendmail("a@b.test", "c@d.test", BODY)
        assert server.messages[0].client == V4[0]


@pytest.mark.parametrize("said", [b"EHLO me.test\r\n", b"PROXY TCP4 nonsense\r\n", b"PRO"])
async def test_without_a_header_the_connection_is_closed_without_a_word(said: bytes) -> None:
    async with MailServer(proxy_protocol=True) as server:
        reader, writer = await asyncio.open_connection(server.host, server.port)
        writer.write(said)
        writer.write_eof()
        try:
            assert await reader.read() == b""
        except ConnectionError:  # it was closed with something unread
            pass
        finally:
            writer.close()
        assert server.commands == []


async def test_who_the_client_is_without_a_proxy(tmp_path: Path) -> None:
    async with MailServer() as server, MailServer(unix_path=tmp_path / "smtp") as local:
        async with AsyncSMTP(server.host, server.port) as smtp:
            await send(smtp)
            assert server.messages[0].client == smtp._connected().protocol.transport.get_extra_info(
                "sockname"
            )
        async with AsyncSMTP(local.host) as smtp:
            await send(smtp)
        assert local.messages[0].client is None
