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
from aiosmtpclient.extensions import Extensions
from aiosmtpclient.origin import attributes
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


OFFERED = Extensions({"xclient": "name Addr DESTADDR HELO PORT", "xforward": "NAME"})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": "a+b c"}, "NAME=a+2Bb+20c"),
        ({"port": 25, "helo": "h"}, "PORT=25 HELO=h"),
        ({"addr": "2001:db8::7"}, "ADDR=IPV6:2001:db8::7"),
        ({"destaddr": "::1"}, "DESTADDR=IPV6:::1"),
        ({"addr": "ipv6:::1"}, "ADDR=ipv6:::1"),
        ({"addr": "192.0.2.1"}, "ADDR=192.0.2.1"),
        ({"name": "a:b"}, "NAME=a:b"),
    ],
    ids=str,
)
def test_attributes_are_words_and_ipv6_is_marked(given: Any, said: str) -> None:
    assert attributes("XCLIENT", given, OFFERED) == said


@pytest.mark.parametrize(
    ("verb", "given", "kind", "words"),
    [
        ("XCLIENT", {}, ValueError, "XCLIENT without an attribute says nothing"),
        ("XCLIENT", {"name": ""}, ValueError, 'name= is empty; what is not known is "[UNAVAILABLE]"'),
        ("XPROXY", {"name": "a"}, SMTPNotSupportedError, "the server does not offer XPROXY, or not to us"),
        (
            "XCLIENT",
            {"name": "a", "login": "b"},
            SMTPNotSupportedError,
            "the server takes XCLIENT with NAME ADDR DESTADDR HELO PORT, not with login=",
        ),
        (
            "XFORWARD",
            {"port": 1},
            SMTPNotSupportedError,
            "the server takes XFORWARD with NAME, not with port=",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_said_of_a_client_is_told_why(
    verb: str, given: Any, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind) as caught:
        attributes(verb, given, OFFERED)
    assert str(caught.value) == words


# PROXY


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((CLIENT,), "a source has a destination, and the other way round"),
        ((None, RELAY), "a source has a destination, and the other way round"),
        ((CLIENT, RELAY, 3), "the PROXY protocol has versions 1 and 2, not 3"),
        ((CLIENT, ("::1", 25)), "192.0.2.7 and ::1: one is IPv4 and the other IPv6"),
        (
            (("192.0.2.7", 65536), RELAY),
            "ports are from 0 to 65535, not (65536, 25)",
        ),
        ((CLIENT, ("198.51.100.1", -1)), "ports are from 0 to 65535, not (4711, -1)"),
        ((CLIENT, ("198.51.100.1", "25")), "ports are from 0 to 65535, not (4711, '25')"),
        (
            (("192.0.2.7\r\nQUIT", 1), RELAY),
            r"'192.0.2.7\r\nQUIT' does not appear to be an IPv4 or IPv6 address",
        ),
        ((("mail.test", 1), RELAY), "'mail.test' does not appear to be an IPv4 or IPv6 address"),
    ],
    ids=str,
)
def test_a_header_that_makes_no_sense_is_found_where_it_is_made(arguments: Any, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        ProxyHeader(*arguments)
    assert str(caught.value) == words


@pytest.mark.parametrize(
    ("port", "octets"), [(0, b"\0\0"), (1, b"\0\1"), (256, b"\1\0"), (65535, b"\xff\xff")]
)
def test_a_port_is_two_octets_or_a_number(port: int, octets: bytes) -> None:
    place = ("192.0.2.1", port)
    assert ProxyHeader(place, place).encode().endswith(octets * 2)
    assert (
        ProxyHeader(place, place, 1).encode() == f"PROXY TCP4 192.0.2.1 192.0.2.1 {port} {port}\r\n".encode()
    )


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
