"""ETRN, XCLIENT, XFORWARD and the PROXY protocol, as they go over the wire."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from wire import BODY, OK, SENDER, TO, bye, hello, take

from aiosmtpclient import (
    SMTP,
    SMTP_SSL,
    AsyncLMTP,
    AsyncSMTP,
    ProxyHeader,
    SMTPNotSupportedError,
    SMTPPool,
    send,
)
from aiosmtpclient.commands import etrn
from aiosmtpclient.testing import CertificateAuthority, Conversation, MailServer, ScriptedServer
from aiosmtpclient.testing.scripted import Action, ehlo, greeting

CLIENT = ("192.0.2.7", 4711)
RELAY = ("198.51.100.1", 25)
V1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 25\r\n"
V2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\xc6\x33\x64\x01\x12\x67\0\x19"


# ETRN


async def test_etrn_asks_for_what_waits() -> None:
    script = [*hello("ETRN"), "ETRN example.org", b"250 2.0.0 queuing started\r\n"]
    script += ["ETRN @example.org", b"458 4.3.0 later\r\n", "ETRN xn--bcher-kva.example", OK, *bye()]
    async with ScriptedServer(script) as server, AsyncSMTP(server.host, server.port) as smtp:
        assert (await smtp.etrn("example.org")).code == 250
        assert (await smtp.etrn("@example.org")).code == 458
        await smtp.etrn("bücher.example")


async def test_etrn_that_is_not_offered_is_not_said() -> None:
    async with MailServer() as server, AsyncSMTP(server.host, server.port) as smtp:
        with pytest.raises(SMTPNotSupportedError, match="ETRN"):
            await smtp.etrn("example.org")
        assert len(server.commands) == 1


@pytest.mark.parametrize("node", ["", "@", "#", "a b", "a\r\nRSET", "a\tb", "b\u2028c", "a\0"])
def test_etrn_of_something_that_is_no_node_is_an_error(node: str) -> None:
    with pytest.raises(ValueError):
        etrn(node)


# XCLIENT


async def test_xclient_begins_the_session_anew() -> None:
    script = hello("XCLIENT NAME ADDR HELO LOGIN", "AUTH PLAIN")
    script += ["XCLIENT NAME=spike.example ADDR=IPV6:2001:db8::7 HELO=a+2Bb LOGIN=[UNAVAILABLE]"]
    script += [greeting(), ehlo("SIZE"), *take(TO), *bye()]
    async with ScriptedServer(script) as server, AsyncSMTP(server.host, server.port) as smtp:
        reply = await smtp.xclient(
            name="spike.example", addr="2001:db8::7", helo="a+b", login="[UNAVAILABLE]"
        )
        assert reply.code == 220
        assert smtp.has_extn("size")
        assert not smtp.has_extn("xclient")
        await smtp.sendmail(SENDER, TO, BODY)


async def test_xclient_that_is_refused_changes_nothing() -> None:
    script = [*hello("XCLIENT NAME"), "XCLIENT NAME=a", b"550 5.7.0 not you\r\n", *take(TO), *bye()]
    async with ScriptedServer(script) as server, AsyncSMTP(server.host, server.port) as smtp:
        assert (await smtp.xclient(name="a")).code == 550
        await smtp.sendmail(SENDER, TO, BODY)


async def test_a_connection_that_is_somebody_elses_is_not_made_anew() -> None:
    script = [*hello("XCLIENT NAME"), "XCLIENT", greeting(), ehlo()]
    async with ScriptedServer(script) as server, AsyncSMTP(server.host, server.port) as smtp:
        await smtp.xclient(name="a")
        assert not smtp._renewable


async def test_a_pool_gives_such_a_connection_to_nobody_else() -> None:
    first = [*hello("XCLIENT NAME"), "XCLIENT", greeting(), ehlo()]
    async with ScriptedServer(first, [*hello(), *take(TO), *bye()]) as server:
        async with SMTPPool(server.host, server.port, max_connections=1) as pool:
            async with pool.connection() as smtp:
                await smtp.xclient(name="a")
            await pool.sendmail(SENDER, TO, BODY)
            assert pool.stats().opened == 2


@pytest.mark.parametrize(
    ("offered", "attributes"),
    [((), {"name": "a"}), (("XCLIENT NAME",), {"addr": "192.0.2.1"}), (("XFORWARD NAME",), {"name": "a"})],
)
async def test_xclient_that_is_not_offered_is_not_said(offered: tuple[str, ...], attributes: Any) -> None:
    async with MailServer(extensions=offered) as server, AsyncSMTP(server.host, server.port) as smtp:
        with pytest.raises(SMTPNotSupportedError, match="XCLIENT"):
            await smtp.xclient(**attributes)
        assert len(server.commands) == 1


@pytest.mark.parametrize(
    "attributes", [{}, {"name": ""}, {"name": "a\r\nRSET"}, {"name": "ü"}, {"name": "x" * 600}], ids=str
)
async def test_xclient_with_what_has_no_form_is_an_error(attributes: Any) -> None:
    async with MailServer(extensions=["XCLIENT NAME"]) as server, AsyncSMTP(server.host, server.port) as smtp:
        with pytest.raises(ValueError):
            await smtp.xclient(**attributes)
        assert len(server.commands) == 1


# XFORWARD


async def test_xforward_tells_whose_mail_comes_next() -> None:
    said = (
        "XFORWARD NAME=spike.example ADDR=192.0.2.7 PORT=4711 PROTO=ESMTP HELO=spike IDENT=4A01 SOURCE=REMOTE"
    )
    script = [*hello("XFORWARD NAME ADDR PROTO HELO IDENT PORT SOURCE"), said, OK, *take(TO), *bye()]
    async with ScriptedServer(script) as server, AsyncSMTP(server.host, server.port) as smtp:
        reply = await smtp.xforward(
            name="spike.example",
            addr="192.0.2.7",
            port=4711,
            proto="ESMTP",
            helo="spike",
            ident="4A01",
            source="REMOTE",
        )
        assert reply.code == 250
        await smtp.sendmail(SENDER, TO, BODY)


async def test_xforward_that_is_not_offered_is_not_said() -> None:
    async with MailServer() as server, AsyncSMTP(server.host, server.port) as smtp:
        with pytest.raises(SMTPNotSupportedError, match="XFORWARD"):
            await smtp.xforward(name="a")


# PROXY


def proxied(header: bytes) -> Action:
    """Read what must come before everything else."""

    async def step(conversation: Conversation) -> None:
        octets = await conversation.read_exactly(len(header))
        assert octets == header

    return step


@pytest.mark.parametrize(
    ("header", "octets"),
    [
        (ProxyHeader(CLIENT, RELAY, version=1), V1),
        (ProxyHeader(CLIENT, RELAY), V2),
        (ProxyHeader(version=1), b"PROXY UNKNOWN\r\n"),
        (ProxyHeader(), b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"),
        (
            ProxyHeader(("2001:db8::7", 4711), ("::1", 25), version=1),
            b"PROXY TCP6 2001:db8::7 ::1 4711 25\r\n",
        ),
        (
            ProxyHeader(("2001:db8::7", 4711), ("::1", 25)),
            b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24\x20\x01\x0d\xb8"
            + b"\0" * 11
            + b"\x07"
            + b"\0" * 15
            + b"\x01\x12\x67\0\x19",
        ),
    ],
)
async def test_proxy_header_comes_before_the_greeting(header: ProxyHeader, octets: bytes) -> None:
    assert header.encode() == octets
    async with ScriptedServer([proxied(octets), *hello(), *take(TO), *bye()]) as server:
        async with AsyncSMTP(server.host, server.port, proxy_header=header) as smtp:
            await smtp.sendmail(SENDER, TO, BODY)


@pytest.mark.each_loop
async def test_proxy_header_comes_before_implicit_tls() -> None:
    authority = CertificateAuthority()
    seen: list[bytes] = []

    async def up(conversation: Conversation) -> None:
        await conversation.starttls(authority.server_context())

    async with ScriptedServer([proxied(V2), up, *hello(), *take(TO), *bye()]) as server:
        async with AsyncSMTP(
            server.host,
            server.port,
            tls="implicit",
            tls_context=authority.client_context(),
            proxy_header=ProxyHeader(CLIENT, RELAY),
            trace=lambda event, sent: seen.append(sent),
        ) as smtp:
            await smtp.sendmail(SENDER, TO, BODY)
            assert smtp._connected().session.encrypted
    assert seen[0] == V2


async def test_proxy_header_comes_on_each_connection_and_in_every_class() -> None:
    header = ProxyHeader(CLIENT, RELAY, version=1)
    script = [proxied(V1), *hello(), *take(TO), *bye()]
    async with ScriptedServer(script, script, script) as server:
        async with SMTPPool(server.host, server.port, proxy_header=header) as pool:
            await pool.sendmail(SENDER, TO, BODY)
        options: Any = {"host": server.host, "port": server.port, "proxy_header": header}
        await send(BODY, sender=SENDER, recipients=TO, **options)

        def blocking() -> None:
            with SMTP(**options) as smtp:
                smtp.sendmail(SENDER, TO, BODY)

        await asyncio.to_thread(blocking)
    lmtp = [proxied(V1), *hello(verb="LHLO"), *bye()]
    async with ScriptedServer(lmtp) as server:
        async with AsyncLMTP(server.host, server.port, proxy_header=header):
            pass


async def test_proxy_header_before_tls_in_the_blocking_class() -> None:
    authority = CertificateAuthority()

    async def up(conversation: Conversation) -> None:
        await conversation.starttls(authority.server_context())

    def blocking(port: int) -> None:
        with SMTP_SSL(
            "localhost", port, context=authority.client_context(), proxy_header=ProxyHeader(CLIENT, RELAY)
        ) as smtp:
            smtp.sendmail(SENDER, TO, BODY)

    async with ScriptedServer([proxied(V2), up, *hello(), *take(TO), *bye()]) as server:
        await asyncio.to_thread(blocking, server.port)


async def test_blocking_classes_have_the_verbs_too() -> None:
    script = [*hello("ETRN", "XCLIENT NAME", "XFORWARD NAME"), "ETRN a.test", OK, "XFORWARD NAME=b", OK]
    script += ["XCLIENT NAME=c", greeting(), ehlo(), *bye()]

    def blocking(host: str, port: int) -> None:
        with SMTP(host, port) as smtp:
            smtp.ehlo()
            assert smtp.etrn("a.test").code == 250
            assert smtp.xforward(name="b").code == 250
            assert smtp.xclient(name="c").code == 220

    async with ScriptedServer(script) as server:
        await asyncio.to_thread(blocking, server.host, server.port)


@pytest.mark.parametrize(
    "arguments",
    [
        (CLIENT, None),
        (None, RELAY),
        (CLIENT, ("::1", 25)),
        (("mail.example", 1), RELAY),
        (("192.0.2.7", 65536), RELAY),
        (("192.0.2.7\r\nQUIT", 1), RELAY),
        (CLIENT, RELAY, 3),
    ],
    ids=str,
)
def test_a_proxy_header_that_makes_no_sense_is_an_error(arguments: Any) -> None:
    with pytest.raises(ValueError):
        ProxyHeader(*arguments)
