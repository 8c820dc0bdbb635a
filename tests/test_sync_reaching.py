"""The blocking classes reach servers as `AsyncSMTP` does: whose certificate is taken, and by which way."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path

import pytest
from leaks import told
from way_through import ProxyServer, in_a_thread

from aiosmtpclient import LMTP, SMTP, SMTP_SSL, SMTPConnectError, SMTPTimeoutError, SMTPTLSError, run_sync
from aiosmtpclient.testing import CertificateAuthority, MailServer
from aiosmtpclient.testing.certificates import _authority, certificate_of

AUTHORITY = CertificateAuthority()
PASSWORD = "correct horse battery"
BODY = b"Subject: hello\r\n\r\nHello.\r\n"


@pytest.fixture(autouse=True)
def system_authorities_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading them takes long, and no test here depends on them."""
    monkeypatch.setattr("aiosmtpclient.tls.default_context", lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))


@pytest.fixture
def server() -> Iterator[MailServer]:
    with MailServer() as running:
        yield running


def send(smtp: SMTP) -> None:
    assert smtp.sendmail("a@b.test", "c@d.test", BODY) == {}


def pin_of(context: ssl.SSLContext) -> str:
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate_of(context) or "")).hexdigest()


def by_starttls(server: MailServer, **options: object) -> SMTP:
    smtp = SMTP("localhost", server.port)
    try:
        smtp.starttls(**options)  # type: ignore[arg-type]
    except BaseException:
        smtp.close()
        raise
    return smtp


def from_the_first_octet(server: MailServer, **options: object) -> SMTP:
    return SMTP_SSL("localhost", server.port, **options)  # type: ignore[arg-type]


WAYS = {"starttls": by_starttls, "implicit_tls": from_the_first_octet}
Way = Callable[..., SMTP]
each_way = pytest.mark.parametrize(("how", "connect"), WAYS.items(), ids=WAYS)


# -- certificates ----------------------------------------------------------------------------------


@each_way
def test_a_private_authority_is_trusted(how: str, connect: Way) -> None:
    with MailServer(**{how: AUTHORITY.server_context()}) as server:
        with connect(server, tls_ca=AUTHORITY.ca_pem) as smtp:
            send(smtp)
        assert server.messages[0].tls


@each_way
def test_a_private_authority_does_not_make_up_for_a_wrong_name(how: str, connect: Way) -> None:
    with MailServer(**{how: AUTHORITY.server_context()}) as server:
        with pytest.raises(SMTPTLSError, match="is for another name"):
            connect(server, tls_ca=AUTHORITY.ca_pem, server_hostname="other.test")


@each_way
def test_the_name_that_the_certificate_must_have_can_be_given(how: str, connect: Way) -> None:
    with MailServer(**{how: AUTHORITY.server_context("mail.test")}) as server:
        with connect(server, tls_ca=AUTHORITY.ca_pem, server_hostname="mail.test") as smtp:
            send(smtp)


@each_way
def test_only_the_pinned_certificate_is_taken(how: str, connect: Way) -> None:
    context = AUTHORITY.untrusted_context()
    with MailServer(**{how: context}) as server:
        with connect(server, tls_fingerprint=pin_of(context)) as smtp:
            send(smtp)
        with pytest.raises(SMTPTLSError, match="tls_fingerprint= names"):
            connect(server, tls_fingerprint="00" * 32)
        assert len(server.messages) == 1


@each_way
def test_our_certificate_is_shown(how: str, connect: Way, tmp_path: Path) -> None:
    leaf = _authority("trusted").issue_cert("user.test", common_name="me")
    (tmp_path / "me.pem").write_bytes(leaf.private_key_and_cert_chain_pem.bytes())
    context = AUTHORITY.server_context(client_certificates=True)
    with MailServer(**{how: context}, users={"me": "p"}, mechanisms=["EXTERNAL"]) as server:
        with connect(server, tls_ca=AUTHORITY.ca_pem, tls_certificate=tmp_path / "me.pem") as smtp:
            smtp.login("", "", mechanisms=["EXTERNAL"])
            send(smtp)
        assert server.messages[0].user == "me"


@each_way
def test_what_goes_into_a_context_does_not_go_beside_one(how: str, connect: Way) -> None:
    with MailServer(**{how: AUTHORITY.server_context()}) as server:
        with pytest.raises(ValueError, match="go into the context that is given"):
            connect(server, tls_ca=AUTHORITY.ca_pem, context=AUTHORITY.client_context())


def test_what_was_said_in_one_starttls_says_nothing_about_the_next() -> None:
    with MailServer(starttls=AUTHORITY.server_context()) as server:
        with SMTP("localhost", server.port) as smtp:
            smtp.starttls(tls_ca=AUTHORITY.ca_pem)
            smtp.connect("localhost", server.port)
            with pytest.raises(SMTPTLSError, match="not trusted here"):
                smtp.starttls()


# -- by a proxy ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["socks5", "http"])
def test_every_connection_goes_by_the_proxy(kind: str, server: MailServer) -> None:
    pytest.importorskip("python_socks")
    with in_a_thread(ProxyServer(kind)) as proxy:
        with SMTP(server.host, server.port, proxy=proxy.url()) as smtp:
            send(smtp)
            smtp.connect(server.host, server.port)
            send(smtp)
    assert len(server.messages) == 2
    assert proxy.asked == [(server.host, server.port)] * 2


@pytest.mark.parametrize("cls", [SMTP, SMTP_SSL, LMTP])
def test_the_password_of_a_proxy_that_is_not_there_is_not_shown(cls: type[SMTP]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        login = PASSWORD.replace(" ", "%20")
        with pytest.raises(SMTPConnectError, match=r"the proxy http:.* made no connection") as caught:
            cls("mail.test", 25, proxy=f"http://user:{login}@127.0.0.1:{port}")
    text = told(caught.value)
    assert PASSWORD not in text
    assert login not in text


# -- by a dialer -----------------------------------------------------------------------------------


def test_a_dialer_may_block_without_holding_anybody_up(server: MailServer) -> None:
    dialled: list[object] = []

    def dial(host: str, port: int, seconds: float | None) -> socket.socket:
        with SMTP(server.host, server.port) as another:  # which needs the loop
            another.noop()
        dialled.append((host, port, seconds, threading.current_thread()))
        return socket.create_connection((server.host, server.port))

    with SMTP("mail.test", 2525, timeout=20, dialer=dial) as smtp:
        send(smtp)
    [(*place, thread)] = dialled
    assert place == ["mail.test", 2525, 20]
    assert thread not in (threading.main_thread(), threading.current_thread())


def test_a_dialer_may_be_asynchronous(server: MailServer) -> None:
    async def dial(host: str, port: int, seconds: float | None) -> socket.socket:
        return socket.create_connection((server.host, server.port))

    with LMTP("mail.test", dialer=dial) as smtp:
        assert smtp.noop().code == 250


def test_what_a_dialer_raises_is_an_error_that_names_the_server() -> None:
    def dial(host: str, port: int, seconds: float | None) -> socket.socket:
        raise OSError("no way there")

    with pytest.raises(SMTPConnectError, match=r"cannot connect to mail\.test:25: no way there"):
        SMTP("mail.test", 25, dialer=dial)


def test_a_socket_that_comes_too_late_is_closed() -> None:
    made: list[socket.socket] = []
    go_on = threading.Event()

    def dial(host: str, port: int, seconds: float | None) -> socket.socket:
        go_on.wait(10)
        made.append(socket.socket())
        return made[0]

    with pytest.raises(SMTPTimeoutError):
        SMTP("mail.test", 25, timeout=0.01, dialer=dial)
    go_on.set()
    deadline = time.monotonic() + 10
    while not (made and made[0].fileno() == -1):
        assert time.monotonic() < deadline, "the socket was left open"


def test_a_coroutine_that_comes_too_late_is_closed() -> None:
    """Nobody would await it, and it would complain about that."""
    go_on, made = threading.Event(), threading.Event()

    class Slow:
        def __call__(
            self, host: str, port: int, seconds: float | None
        ) -> Coroutine[object, object, socket.socket]:
            go_on.wait(10)
            made.set()
            return self.never()

        async def never(self) -> socket.socket:
            raise AssertionError("nobody waits for this")

    with pytest.raises(SMTPTimeoutError):
        SMTP("mail.test", 25, timeout=0.01, dialer=Slow())
    go_on.set()
    assert made.wait(10)
    run_sync(asyncio.sleep(0.0))  # behind what the thread told the loop
    gc.collect()


# -- chunks ----------------------------------------------------------------------------------------


def test_content_goes_in_chunks_if_that_is_asked_for(server: MailServer) -> None:
    with SMTP(server.host, server.port, chunking="eager") as smtp:
        send(smtp)
    assert any(command.startswith("BDAT") for command in server.commands)
    assert "DATA" not in server.commands
