"""Proxies and dialers: how a connection comes about when others make it, and what never goes by them."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from urllib.parse import quote

import pytest
from leaks import told
from way_through import ProxyServer
from wire import LONG, SHORT, caught, each_loop, read_all, send, suffer

from aiosmtpclient import (
    AsyncLMTP,
    AsyncSMTP,
    SMTPConnectError,
    SMTPPool,
    SMTPTimeoutError,
    SMTPTLSError,
    TLSPolicy,
)
from aiosmtpclient.proxies import Proxy
from aiosmtpclient.secret import Secret
from aiosmtpclient.testing import CertificateAuthority, MailServer, ScriptedServer
from aiosmtpclient.testing.scripted import close

AUTHORITY = CertificateAuthority()
PASSWORD = "correct horse: battery%st@ple"
TELLING = ("horse", "battery", "st@ple", "Y29ycmVjdCBob3JzZTo")
KINDS = ("socks5", "http")

pytest.importorskip("python_socks")


# -- through a proxy -------------------------------------------------------------------------------


@each_loop
@pytest.mark.parametrize("kind", KINDS)
async def test_mail_goes_through_a_proxy(kind):
    async with MailServer() as server, ProxyServer(kind) as proxy:
        async with AsyncSMTP(server.host, server.port, proxy=proxy.url(), tls="none") as smtp:
            await send(smtp)
        assert len(server.messages) == 1
        assert proxy.asked == [(server.host, server.port)]


@each_loop
@pytest.mark.parametrize("kind", KINDS)
async def test_the_proxy_looks_up_the_name(kind):
    async with MailServer() as server:
        async with ProxyServer(kind, leads_to=(server.host, server.port)) as proxy:
            async with AsyncSMTP("bücher.invalid", 2525, proxy=proxy.url(), tls="none") as smtp:
                await send(smtp)
            assert proxy.asked == [("xn--bcher-kva.invalid", 2525)]


@each_loop
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("policy", ["starttls", "implicit"])
async def test_certificates_go_by_the_server_and_not_by_the_proxy(kind, policy):
    context = AUTHORITY.server_context("mail.invalid")
    options = {"implicit_tls": context} if policy == "implicit" else {"starttls": context}
    async with MailServer(**options) as server:
        async with ProxyServer(kind, leads_to=(server.host, server.port)) as proxy:
            given = {"proxy": proxy.url(), "tls": policy, "tls_ca": AUTHORITY.ca_pem}
            async with AsyncSMTP("mail.invalid", 25, **given) as smtp:
                await send(smtp)
            error = await caught(AsyncSMTP("other.invalid", 25, **given).connect())
        assert server.messages[0].tls
        assert isinstance(error, SMTPTLSError)
        assert "is for another name" in str(error)


@each_loop
@pytest.mark.parametrize("kind", KINDS)
async def test_a_proxy_may_want_a_password(kind):
    login = f"us%C3%A9r:{quote(PASSWORD)}@" if kind == "http" else f"user:{quote(PASSWORD)}@"
    users = {"usér" if kind == "http" else "user": PASSWORD}
    async with MailServer() as server, ProxyServer(kind, users=users) as proxy:
        async with AsyncSMTP(server.host, server.port, proxy=proxy.url(login), tls="none") as smtp:
            await send(smtp)
        assert len(server.messages) == 1


@each_loop
@pytest.mark.parametrize("kind", KINDS)
async def test_a_connection_that_is_made_anew_goes_through_the_proxy_too(kind):
    async with MailServer() as server, ProxyServer(kind) as proxy:
        async with AsyncSMTP(server.host, server.port, proxy=proxy.url(), tls="none") as smtp:
            await send(smtp)
            smtp._connection.drop()
            await smtp._connection.protocol.closed
            await send(smtp)
        assert proxy.asked == [(server.host, server.port)] * 2


@each_loop
@pytest.mark.parametrize("kind", KINDS)
async def test_every_connection_of_a_pool_goes_through_the_proxy(kind):
    async with MailServer() as server, ProxyServer(kind) as proxy:
        way = quote(proxy.url(), safe="")
        url = f"smtp://{server.host}:{server.port}?tls=none&max_connections=3&proxy={way}"
        async with SMTPPool.from_url(url) as pool:
            await asyncio.gather(*(pool.sendmail("a@b.test", "c@d.test", b"") for _ in range(9)))
        assert len(server.messages) == 9
        assert len(proxy.asked) == pool.stats().opened


@each_loop
async def test_a_greeting_right_behind_the_proxys_answer_is_not_swallowed():
    """In SMTP the server speaks first."""
    async with MailServer() as server, ProxyServer("http", glued=True) as proxy:
        async with AsyncSMTP(server.host, server.port, proxy=proxy.url(), tls="none", timeout=LONG) as smtp:
            await send(smtp)
        assert len(server.messages) == 1


@each_loop
async def test_lmtp_goes_through_a_proxy():
    async with MailServer(lmtp=True) as server, ProxyServer("socks5") as proxy:
        async with AsyncLMTP(server.host, server.port, proxy=proxy.url(), tls="none") as lmtp:
            await send(lmtp)
        assert server.messages[0].lmtp


# -- what is local ---------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [{"proxy": "socks5://127.0.0.1:1080"}, {"dialer": lambda *_: None}])
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "mail.test"])
def test_by_way_of_somebody_else_no_server_is_local(way, host):
    """ "localhost" is then whatever that means at the other end."""
    settings = AsyncSMTP(host, **way)._settings

    assert settings.policy is TLSPolicy.OPPORTUNISTIC
    assert not settings.endpoint.local


async def test_a_password_does_not_travel_in_clear_to_a_local_server_by_way_of_a_proxy():
    async with MailServer(users={"u": "p"}) as server, ProxyServer("socks5") as proxy:
        smtp = AsyncSMTP("localhost", server.port, tls="none", username="u", password="p", proxy=proxy.url())
        error = await caught(smtp.connect())
        assert isinstance(error, SMTPTLSError)
        assert "in clear" in str(error)
        assert not any(command.startswith("AUTH") for command in server.commands)


# -- proxies that fail -----------------------------------------------------------------------------


def _login(kind: str) -> str:
    return f"user:{quote(PASSWORD)}@"


@each_loop
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", ["refuses", "wrong password", "nobody there", "closes", "no proxy"])
async def test_a_proxy_that_does_not_connect_is_named_and_its_password_is_not(kind, fault):
    users = {"user": "another"} if fault == "wrong password" else None
    async with (
        ProxyServer(kind, users=users, refuses=fault == "refuses") as proxy,
        ScriptedServer([close()] if fault == "closes" else [b"220 mail.test\r\n", close()]) as other,
    ):
        port = {"closes": other.port, "no proxy": other.port}.get(fault, proxy.port)
        if fault == "nobody there":
            with socket.socket() as unused:
                unused.bind(("127.0.0.1", 0))
                port = unused.getsockname()[1]
        url = f"{kind}://{_login(kind)}127.0.0.1:{port}"
        error = await caught(AsyncSMTP("mail.invalid", 25, proxy=url, timeout=LONG).connect())
    assert isinstance(error, SMTPConnectError)
    assert (
        f"cannot connect to mail.invalid:25: the proxy {kind}://127.0.0.1:{port} made no connection: "
        in str(error)
    )
    assert not [piece for piece in TELLING if piece in told(error)]


@each_loop
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", ["timeout", "cancel"])
async def test_a_proxy_that_says_nothing_is_waited_for_as_long_as_a_server(kind, end):
    async with ProxyServer(kind, silent=True) as proxy:
        url = proxy.url(_login(kind))
        smtp = AsyncSMTP("mail.invalid", 25, proxy=url, timeout=SHORT if end == "timeout" else LONG)
        error = await suffer(smtp.connect(), end, proxy.reached)
        assert isinstance(error, SMTPTimeoutError if end == "timeout" else asyncio.CancelledError)
        assert not [piece for piece in TELLING if piece in told(error)]
        await proxy.gone.wait()


async def test_an_answer_without_end_is_not_read_for_ever():
    async with ScriptedServer([b"HTTP/1.1 200 ok\r\n" + b"x: y\r\n" * 4000, read_all()]) as server:
        proxy = f"http://127.0.0.1:{server.port}"
        error = await caught(AsyncSMTP("mail.invalid", 25, proxy=proxy, timeout=LONG).connect())
        assert isinstance(error, SMTPConnectError)
        assert "its answer does not end" in str(error)


async def test_a_proxy_that_repeats_the_password_is_redacted():
    async with ScriptedServer([b"HTTP/1.1 407 for " + PASSWORD.encode() + b"\r\n\r\n", read_all()]) as server:
        proxy = f"http://user:{quote(PASSWORD)}@127.0.0.1:{server.port}"
        error = await caught(AsyncSMTP("mail.invalid", 25, proxy=proxy, timeout=LONG).connect())
        assert "407 for ***" in str(error)


# -- wrong arguments -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("socks5://127.0.0.1", "needs a host and a port"),
        ("socks5://:1080", "needs a host and a port"),
        ("socks5://127.0.0.1:horse", "needs a host and a port"),
        (f"socks5://user:{PASSWORD}@127.0.0.1:1080", "the URL of a proxy looks like"),
        (
            "socks5://user:battery%st@127.0.0.1:1080",
            "password of the proxy in the URL is not percent-encoded",
        ),
        ("https://127.0.0.1:8080", "known are socks5://, socks5h://, socks4://, http://"),
        ("127.0.0.1:1080", "the URL of a proxy looks like"),
        ("socks5://127.0.0.1:1080/path", "the URL of a proxy looks like"),
        ("socks5://127.0.0.1:1080?rdns=horse", "the URL of a proxy looks like"),
        (f"socks5://user:{quote('hörse battery')}@127.0.0.1:1080", "255 ASCII characters"),
        (f"socks5://user:{'horse' * 52}@127.0.0.1:1080", "255 ASCII characters"),
        (f"http://us%3Aer:{quote(PASSWORD)}@127.0.0.1:1080", "no colon"),
    ],
)
@pytest.mark.parametrize("kind", [AsyncSMTP, SMTPPool])
def test_a_wrong_url_of_a_proxy_is_explained_and_not_shown(kind, url, why):
    with pytest.raises(ValueError, match=why) as error:
        kind("mail.test", proxy=url)

    assert not [piece for piece in TELLING if piece in told(error.value)]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"dialer": lambda *_: None, "proxy": "http://127.0.0.1:1"}, "proxy= or dialer=, not both"),
        ({"host": "/run/lmtp", "proxy": "http://127.0.0.1:1"}, "a Unix socket is on this machine"),
        ({"sock": socket.socket, "proxy": "http://127.0.0.1:1"}, "sock= is connected already"),
        ({"sock": socket.socket, "dialer": lambda *_: None}, "sock= is connected already"),
        ({"source_address": ("", 99), "proxy": "http://127.0.0.1:1"}, "source_address= is for connections"),
    ],
)
def test_what_does_not_go_together_is_an_error(options, why):
    given = {"host": "mail.test"} | options
    if "sock" in given:
        with socket.socket() as sock, pytest.raises(ValueError, match=why):
            AsyncSMTP(**given | {"sock": sock})
        return
    with pytest.raises(ValueError, match=why):
        AsyncSMTP(**given)


def test_without_the_library_a_socks_proxy_says_what_to_install(monkeypatch):
    monkeypatch.setattr("aiosmtpclient.proxies.find_spec", lambda name: None)

    with pytest.raises(ValueError, match=r'pip install "aiosmtpclient\[proxy\]"'):
        AsyncSMTP("mail.test", proxy="socks5://127.0.0.1:1080")
    AsyncSMTP("mail.test", proxy="http://127.0.0.1:8080")  # needs none


def test_the_library_is_not_imported_for_those_who_have_no_proxy():
    code = "import sys, aiosmtpclient; aiosmtpclient.AsyncSMTP('h'); assert 'python_socks' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=20)


def test_a_proxy_shows_where_it_is_and_not_its_password():
    proxy = Proxy(Secret(f"socks5h://user:{quote(PASSWORD)}@[::1]:1080"))

    assert repr(proxy) == "<Proxy socks5://::1:1080>"


# -- dialers ---------------------------------------------------------------------------------------


class Dialed:
    """A dialer that connects to one place, and remembers what it was asked for."""

    def __init__(self, host: str, port: int) -> None:
        self.place = (host, port)
        self.asked: list[tuple[str, int, float | None]] = []

    async def __call__(self, host: str, port: int, timeout: float | None) -> socket.socket:
        self.asked.append((host, port, timeout))
        sock = socket.socket()
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, self.place)
        return sock


@each_loop
async def test_a_dialer_makes_each_connection():
    async with MailServer(starttls=AUTHORITY.server_context("mail.invalid")) as server:
        dialer = Dialed(server.host, server.port)
        options = {"tls": "starttls", "tls_ca": AUTHORITY.ca_pem, "dialer": dialer, "timeout": LONG}
        async with AsyncSMTP("mail.invalid", 26, **options) as smtp:
            await send(smtp)
            smtp._connection.drop()
            await smtp._connection.protocol.closed
            await send(smtp)
        async with SMTPPool("mail.invalid", 26, max_messages=1, **options) as pool:
            await pool.sendmail("a@b.test", "c@d.test", b"")
            await pool.sendmail("a@b.test", "c@d.test", b"")
        assert [message.tls for message in server.messages] == [True] * 4
        assert dialer.asked == [("mail.invalid", 26, LONG)] * 4


@each_loop
@pytest.mark.parametrize(
    ("error", "kind", "why"),
    [
        (ConnectionRefusedError(), SMTPConnectError, "connection refused"),
        (ConnectionResetError("by my tunnel"), SMTPConnectError, "by my tunnel"),
        (OSError(113, "No route to host"), SMTPConnectError, "No route to host"),
        (TimeoutError(), SMTPTimeoutError, "no connection to mail.invalid:465 in time"),
        (KeyError("mine"), KeyError, "mine"),
    ],
)
async def test_what_a_dialer_raises_is_our_error_or_its_own(error, kind, why):
    async def dialer(host: str, port: int, timeout: float | None) -> socket.socket:
        raise error

    raised = await caught(AsyncSMTP("mail.invalid", 465, dialer=dialer, tls_fingerprint="00" * 32).connect())
    assert isinstance(raised, kind)
    assert not isinstance(raised, SMTPTLSError)
    assert why in str(raised)


async def test_a_dialer_that_returns_something_else_is_told():
    async def dialer(host: str, port: int, timeout: float | None) -> str:
        return "a socket"

    error = await caught(AsyncSMTP("mail.invalid", 25, dialer=dialer).connect())
    assert isinstance(error, TypeError)
    assert "a connected socket.socket, not str" in str(error)


@each_loop
async def test_the_socket_of_a_dialer_is_closed_when_the_handshake_fails():
    kept = []
    async with ScriptedServer([b"220 mail.test\r\n", read_all()]) as server:
        dial = Dialed(server.host, server.port)

        async def dialer(host: str, port: int, timeout: float | None) -> socket.socket:
            kept.append(await dial(host, port, timeout))
            return kept[0]

        error = await caught(AsyncSMTP("mail.invalid", 465, dialer=dialer, timeout=LONG).connect())
        assert isinstance(error, SMTPTLSError)
        await server.conversations[0].gone.wait()
    assert kept[0].fileno() == -1


async def test_what_a_server_proved_by_one_way_is_not_believed_by_another():
    """Behind a name may be another server, by way of somebody else."""
    async with MailServer() as server:
        direct = AsyncSMTP(server.host, server.port)
        dialled = AsyncSMTP(server.host, server.port, dialer=Dialed(server.host, server.port), tls="none")
        names = set()
        for smtp in (direct, dialled):
            async with smtp:
                names.add(smtp._connection.destination)
        assert len(names) == 2
