"""The blocking classes: what they add to smtplib's manners, and what goes wrong around them."""

from __future__ import annotations

import asyncio
import base64
import gc
import io
import logging
import os
import smtplib
import socket
import ssl
import subprocess
import sys
import threading
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from email.message import EmailMessage
from pathlib import Path

import pytest
from wire import Left, press_ctrl_c

from aiosmtpclient import (
    LMTP,
    SMTP,
    SMTP_SSL,
    Delivery,
    SMTPAuthenticationError,
    SMTPConnectError,
    SMTPDataError,
    SMTPProtocolError,
    SMTPServerDisconnected,
    SMTPTimeoutError,
    SMTPTLSError,
    Timeouts,
    run_sync,
    runner,
)
from aiosmtpclient.classic import SocketView
from aiosmtpclient.debug import Watcher
from aiosmtpclient.message import Body
from aiosmtpclient.testing import CertificateAuthority, MailServer, ScriptedServer
from aiosmtpclient.testing.scripted import Step, ehlo, expect_content, greeting, read_all, stall

BODY = b"Subject: hello\r\n\r\nHello.\r\n"
ROOT = Path(__file__).parent.parent


@pytest.fixture
def server() -> Iterator[MailServer]:
    with MailServer(users={"user": "secret-word"}) as running:
        yield running


@pytest.fixture
def smtp(server: MailServer) -> Iterator[SMTP]:
    with SMTP(server.host, server.port, local_hostname="me.test") as connected:
        yield connected


def send(smtp: SMTP, body: bytes = BODY) -> None:
    assert smtp.sendmail("a@b.test", "c@d.test", body) == {}


# -- connecting


def test_nothing_happens_before_connect() -> None:
    with SMTP() as smtp:
        assert smtp.sock is None
        assert repr(smtp) == "<SMTP not connected to localhost:25>"


def test_connecting_reads_the_greeting_and_no_more(server: MailServer) -> None:
    smtp = SMTP(server.host, server.port)
    assert repr(smtp) == f"<SMTP connected to {server.host}:{server.port}>"
    smtp.close()
    assert server.commands == []


def test_a_greeting_that_refuses_is_an_error_of_the_constructor() -> None:
    with ScriptedServer([b"554 no service\r\n"]) as server:
        with pytest.raises(SMTPConnectError) as caught:
            SMTP(server.host, server.port)
    assert caught.value.args == (554, b"no service")
    assert caught.value.reply is not None


def test_every_verb_goes_out(smtp: SMTP, server: MailServer) -> None:
    smtp.helo()
    smtp.help("MAIL")
    smtp.vrfy("a@b.test")
    smtp.expn("list")
    smtp.docmd("NOOP", "now")
    assert server.commands == ["HELO me.test", "HELP MAIL", "VRFY a@b.test", "EXPN list", "NOOP now"]
    assert smtp.helo_resp is not None
    assert smtp.auth_plain() == "\0\0"
    assert smtp.auth_cram_md5() is None


def test_where_there_is_no_connection_there_is_nothing_to_let_go() -> None:
    client = SMTP()._client
    run_sync(client.hang_up())
    client.let_go()
    client.forget_hello()
    assert client.view() is None


def test_the_with_block_quits(server: MailServer) -> None:
    with SMTP(server.host, server.port):
        pass
    assert server.commands == ["QUIT"]


def test_the_with_block_quits_also_when_its_body_fails(server: MailServer) -> None:
    with pytest.raises(LookupError), SMTP(server.host, server.port):
        raise LookupError
    assert server.commands == ["QUIT"]


def test_a_refused_quit_does_not_turn_an_accepted_message_into_an_error() -> None:
    take: list[Step] = [
        greeting(),
        ehlo(),
        "MAIL",
        b"250 ok\r\n",
        "RCPT",
        b"250 ok\r\n",
        "DATA",
        b"354 go\r\n",
    ]
    with ScriptedServer([*take, expect_content(), b"250 queued\r\n", "QUIT", b"500 never\r\n"]) as server:
        with SMTP(server.host, server.port) as smtp:
            send(smtp)
        assert smtp.sock is None


def test_a_second_connect_quits_the_first_connection(server: MailServer) -> None:
    with SMTP(server.host, server.port) as smtp:
        smtp.ehlo()
        smtp.connect(server.host, server.port)
        assert smtp.esmtp_features == {}
    assert server.commands == [f"EHLO {smtp.local_hostname}", "QUIT", "QUIT"]


def test_the_default_port_can_be_changed_in_a_subclass(server: MailServer) -> None:
    class Ours(SMTP):
        default_port = server.port

    with Ours(server.host) as smtp:
        assert smtp.noop().code == 250


def test_the_source_address_is_used(server: MailServer) -> None:
    with SMTP() as smtp:
        smtp.connect(server.host, server.port, source_address=("127.0.0.2", 0))
        assert smtp.source_address == ("127.0.0.2", 0)
        assert smtp.sock is not None
        assert smtp.sock.getsockname()[0] == "127.0.0.2"


def test_a_constructor_that_fails_leaves_an_object_that_can_be_shown() -> None:
    class Failing(SMTP):
        def __repr__(self) -> str:
            shown.append(super().__repr__())
            return shown[-1]

    shown: list[str] = []
    with pytest.raises(ValueError, match="not a name") as caught:
        Failing(local_hostname="two words")
    "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert "<Failing not connected>" in shown


# -- timeouts


@pytest.mark.parametrize(
    ("given", "default", "expected"),
    [
        ((), None, 60.0),
        ((), 7.0, 7.0),
        ((5,), 7.0, 5.0),
        ((None,), 7.0, None),
        ((Timeouts(reply=3.0),), 7.0, 3.0),
    ],
)
def test_a_timeout_is_the_given_one_or_the_sockets_or_ours(
    server: MailServer, given: tuple[float], default: float | None, expected: float | None
) -> None:
    socket.setdefaulttimeout(default)
    try:
        with SMTP(server.host, server.port, None, *given) as smtp:
            assert smtp.sock is not None
            assert smtp.sock.gettimeout() == expected
    finally:
        socket.setdefaulttimeout(None)


def test_a_default_timeout_of_zero_is_refused() -> None:
    socket.setdefaulttimeout(0)
    try:
        with pytest.raises(ValueError, match="timeout=0"):
            SMTP("127.0.0.1", 1)
    finally:
        socket.setdefaulttimeout(None)


def test_a_silent_server_is_a_timeout() -> None:
    with ScriptedServer([greeting(), "NOOP", stall()]) as server:
        smtp = SMTP(server.host, server.port, timeout=0.05)
        with pytest.raises(TimeoutError) as caught:
            smtp.noop()
        assert isinstance(caught.value, SMTPTimeoutError)
        assert smtp.sock is None


def test_a_timeout_set_on_the_socket_counts_at_once() -> None:
    with ScriptedServer([greeting(), "NOOP", stall()]) as server:
        smtp = SMTP(server.host, server.port)
        assert smtp.sock is not None
        smtp.sock.settimeout(0.05)
        with pytest.raises(SMTPTimeoutError):
            smtp.noop()


def test_a_timeout_set_on_the_client_counts_at_the_next_connect(server: MailServer) -> None:
    with SMTP(timeout=5) as smtp:
        smtp.timeout = 6
        smtp.connect(server.host, server.port)
        assert smtp.sock is not None
        assert smtp.sock.gettimeout() == 6


# -- attributes


def test_the_socket_can_be_asked_but_not_used(smtp: SMTP, server: MailServer) -> None:
    sock = smtp.sock
    assert isinstance(sock, SocketView)
    assert sock.getpeername() == (server.host, server.port)
    assert sock.family is socket.AF_INET
    assert sock.fileno() > 0
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    assert (sock.version(), sock.cipher(), sock.getpeercert()) == (None, None, None)
    assert repr(sock) == f"<SocketView of {server.host}:{server.port}>"
    assert not hasattr(sock, "sendall")


def test_the_name_in_ehlo_can_be_changed(server: MailServer) -> None:
    with SMTP(server.host, server.port, local_hostname="one.test") as smtp:
        smtp.local_hostname = "two.test"
        assert smtp.local_hostname == "two.test"
        smtp.ehlo()
        with pytest.raises(ValueError, match="not a name"):
            smtp.local_hostname = "x\r\nDATA"
        smtp.ehlo("three.test")
    assert server.commands[:2] == ["EHLO two.test", "EHLO three.test"]


def test_features_can_be_edited_to_force_a_mechanism(smtp: SMTP, server: MailServer) -> None:
    smtp.ehlo()
    smtp.esmtp_features["auth"] = "PLAIN"
    assert smtp.login("user", "secret-word").code == 235
    assert server.commands[1] == "AUTH PLAIN ***"


def test_edited_features_last_until_the_next_ehlo(smtp: SMTP) -> None:
    smtp.ehlo()
    smtp.esmtp_features = {"size": "10"}
    assert smtp.has_extn("SIZE")
    with pytest.raises(smtplib.SMTPSenderRefused):
        send(smtp)
    assert smtp.esmtp_features == {"size": "10"}
    smtp.ehlo()
    send(smtp)


def test_features_edited_without_a_connection_change_nothing() -> None:
    smtp = SMTP()
    smtp.esmtp_features["size"] = "10"
    with pytest.raises(SMTPServerDisconnected):
        smtp.noop()


def test_hello_is_said_again_when_its_answer_is_taken_away(smtp: SMTP, server: MailServer) -> None:
    smtp.ehlo()
    smtp.ehlo_resp = None
    smtp.ehlo_or_helo_if_needed()
    assert server.commands == ["EHLO me.test", "EHLO me.test"]
    assert smtp.ehlo_resp is not None


# -- login


def test_user_and_password_are_what_the_authobjects_use(smtp: SMTP) -> None:
    smtp.user = "user"
    smtp.password = "secret-word"
    smtp.ehlo()
    assert smtp.auth("login", smtp.auth_login).code == 235
    assert (smtp.user, smtp.password) == ("user", "secret-word")


def test_an_authobject_may_block_without_holding_anybody_up(smtp: SMTP) -> None:
    def authobject(challenge: bytes | None = None) -> str:
        async def elsewhere() -> str:
            return "\0user\0secret-word"

        return run_sync(elsewhere())  # on the loop's own thread this would be refused

    smtp.ehlo()
    assert smtp.auth("PLAIN", authobject).code == 235


def secret() -> str:
    return "secret" + "-" + "phrase"


def shown_by(error: BaseException) -> str:
    """What an error reporter shows that prints locals too, but for the test's own."""
    below = error.__traceback__.tb_next if error.__traceback__ is not None else None
    shown = traceback.TracebackException(type(error), error, below, capture_locals=True)
    return "".join(shown.format())


def test_no_traceback_with_locals_shows_a_password(smtp: SMTP) -> None:
    with pytest.raises(SMTPAuthenticationError) as caught:
        smtp.login("user", secret())
    assert secret() not in shown_by(caught.value)


@pytest.mark.parametrize(
    ("mechanism", "at_once", "challenges"),
    [("PLAIN", True, 0), ("PLAIN", False, 1), ("LOGIN", True, 1), ("LOGIN", False, 2), ("CRAM-MD5", True, 1)],
)
def test_no_traceback_with_locals_shows_a_password_when_the_server_falls_silent(
    mechanism: str, at_once: bool, challenges: int
) -> None:
    asked: list[Step] = ["", b"334 PGE+\r\n"] * challenges
    with ScriptedServer([greeting(), ehlo(f"AUTH {mechanism}"), *asked, "", stall()]) as server:
        smtp = SMTP(server.host, server.port, timeout=0.1)
        with pytest.raises(SMTPTimeoutError) as caught:
            smtp.login("user", secret(), initial_response_ok=at_once)
    shown = shown_by(caught.value)
    for leak in (secret(), f"\0user\0{secret()}"):
        assert leak not in shown
        assert base64.b64encode(leak.encode()).decode() not in shown


@pytest.mark.parametrize("flaw", ["\0", "\ud800"])
def test_no_traceback_with_locals_shows_a_password_that_cannot_be_sent(smtp: SMTP, flaw: str) -> None:
    with pytest.raises(ValueError, match="NUL") as caught:
        smtp.password = secret() + flaw
    assert secret() not in shown_by(caught.value)


def test_login_goes_through_in_clear_as_in_smtplib_and_the_server_decides(server: MailServer) -> None:
    with SMTP(server.host, server.port) as smtp:
        assert smtp.login("user", "secret-word", mechanisms=["PLAIN"]).code == 235


# -- octets of your own


def test_a_verb_does_not_take_the_reply_to_octets_of_your_own(smtp: SMTP) -> None:
    smtp.ehlo()
    smtp.putcmd("HELP")
    for act in (
        smtp.noop,
        lambda: send(smtp),
        lambda: smtp.login("user", "x"),
        lambda: smtp.auth("PLAIN", str),
    ):
        with pytest.raises(RuntimeError, match="call getreply"):
            act()
    assert smtp.getreply().message.startswith(b"2.0.0")
    assert smtp.noop().code == 250


def test_an_intermediate_reply_to_octets_of_your_own_is_not_followed_by_a_verb(smtp: SMTP) -> None:
    smtp.ehlo()
    smtp.mail("a@b.test")
    smtp.rcpt("c@d.test")
    smtp.putcmd("DATA")
    assert smtp.getreply().code == 354
    with pytest.raises(RuntimeError, match="would take this as more of that"):
        smtp.noop()
    smtp.send(BODY + b".\r\n")
    assert smtp.getreply().code == 250
    assert smtp.noop().code == 250


def test_a_huge_send_ends_when_the_server_never_reads() -> None:
    with ScriptedServer([greeting(), stall()]) as server:
        smtp = SMTP(server.host, server.port, timeout=0.05)
        with pytest.raises(SMTPTimeoutError):
            smtp.send(b"x" * 50_000_000)
        assert smtp.sock is None


def test_text_is_encoded_as_the_transaction_wants(smtp: SMTP, server: MailServer) -> None:
    with pytest.raises(UnicodeEncodeError):
        smtp.send("NOOP ő\r\n")
    with pytest.raises(ValueError, match="SMTPUTF8"):
        smtp.putcmd("NOOP", "ő")
    smtp.ehlo()
    smtp.mail("ő@b.test", ["SMTPUTF8"])
    assert smtp.command_encoding == "utf-8"
    smtp.send("NOOP ő\r\n")
    assert smtp.getreply().code == 250
    smtp.putcmd("NOOP", "ő")
    assert smtp.getreply().code == 250
    smtp.rset()
    assert smtp.command_encoding == "ascii"
    assert "NOOP ő" in server.commands


def test_a_reply_that_is_none_breaks_the_connection() -> None:
    with ScriptedServer([greeting(), "NOOP", b"what?\r\n", read_all()]) as server:
        smtp = SMTP(server.host, server.port)
        smtp.putcmd("NOOP")
        with pytest.raises(SMTPProtocolError):
            smtp.getreply()
        assert smtp.sock is None


def test_a_login_by_hand_is_in_no_log(smtp: SMTP, caplog: pytest.LogCaptureFixture) -> None:
    smtp.ehlo()
    with caplog.at_level(logging.DEBUG, logger="aiosmtpclient"):
        smtp.putcmd("AUTH", "LOGIN")
        smtp.getreply()
        smtp.putcmd("dXNlcg==")
        smtp.getreply()
        smtp.putcmd("c2VjcmV0LXdvcmQ=")
        assert smtp.getreply().code == 235
    assert "C: ***" in caplog.text
    assert "dXNlcg" not in caplog.text
    assert "c2VjcmV0" not in caplog.text


# -- sending


def test_a_send_gives_an_account(smtp: SMTP, server: MailServer) -> None:
    server.refuse = {"bad@d.test": "550 5.1.1 who?"}
    result = smtp.sendmail("a@b.test", (a for a in ["good@d.test", "bad@d.test"]), BODY)
    assert result == {"bad@d.test": (550, b"5.1.1 who?")}
    assert result.accepted == ("good@d.test",)
    assert result.envelope.content is BODY


def test_all_or_nothing_delivers_nothing(smtp: SMTP, server: MailServer) -> None:
    server.refuse = {"bad@d.test": "550 5.1.1 who?"}
    message = EmailMessage()
    message["From"], message["To"] = "a@b.test", "good@d.test, bad@d.test"
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        smtp.send_message(message, all_or_nothing=True)
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        smtp.sendmail("a@b.test", ["good@d.test", "bad@d.test"], BODY, all_or_nothing=True)
    assert server.messages == []


def test_recipients_of_a_message_may_come_from_a_generator(smtp: SMTP, server: MailServer) -> None:
    message = EmailMessage()
    message["From"] = "a@b.test"
    threads: list[threading.Thread] = []

    def recipients() -> Iterator[str]:
        threads.append(threading.current_thread())
        yield "c@d.test"

    smtp.send_message(message, to_addrs=recipients())
    smtp.send_message(message, to_addrs="e@f.test")
    assert threads == [threading.current_thread()]
    assert [m.recipients for m in server.messages] == [("c@d.test",), ("e@f.test",)]


class Chunks:
    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path,
        lambda path: io.BytesIO(BODY),
        lambda path: Chunks(b"Subject: hello\r\n", b"\r\nHello.\r\n"),
        lambda path: bytearray(BODY),
        lambda path: BODY.decode(),
    ],
    ids=["path", "file", "async iterable", "bytearray", "text"],
)
def test_content_may_come_from_anywhere(
    smtp: SMTP, server: MailServer, tmp_path: Path, make: Callable[[Path], Body]
) -> None:
    path = tmp_path / "message.eml"
    path.write_bytes(BODY)
    smtp.sendmail("a@b.test", ["c@d.test"], make(path))
    assert [m.content for m in server.messages] == [BODY]


def test_content_may_come_from_a_generator_that_uses_another_client(smtp: SMTP, server: MailServer) -> None:
    """Iterated on the loop's thread, the other client would be refused."""

    def pieces() -> Iterator[bytes]:
        yield b"Subject: hello\r\n\r\n"
        with SMTP(server.host, server.port) as other:
            yield other.noop().message + b"\r\n"

    smtp.sendmail("a@b.test", ["c@d.test"], pieces())
    assert server.messages[0].content == b"Subject: hello\r\n\r\n2.0.0 Ok\r\n"
    smtp.mail("a@b.test")
    smtp.rcpt("c@d.test")
    assert smtp.data(iter([b"Hel", b"lo"])).code == 250
    assert server.messages[1].content == b"Hello\r\n"


def test_what_is_no_content_is_a_type_error(smtp: SMTP) -> None:
    with pytest.raises(TypeError, match="content cannot be"):
        smtp.sendmail("a@b.test", ["c@d.test"], 5)  # type: ignore[arg-type]


def test_threads_may_share_a_client(smtp: SMTP, server: MailServer) -> None:
    together = threading.Barrier(20)

    def work() -> None:
        together.wait()
        for _ in range(5):
            send(smtp)

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.messages) == 100
    assert server.commands.count("EHLO me.test") == 1


def test_it_may_be_used_inside_a_running_loop(server: MailServer) -> None:
    async def blocking_inside() -> None:
        with SMTP(server.host, server.port) as smtp:
            send(smtp)

    asyncio.run(blocking_inside())
    assert len(server.messages) == 1


def test_it_is_refused_on_its_own_loop() -> None:
    async def blocking_there() -> None:
        SMTP("127.0.0.1", 1)

    with pytest.raises(RuntimeError, match="own thread"):
        run_sync(blocking_there())


# -- TLS


@pytest.fixture
def trusting() -> ssl.SSLContext:
    return CertificateAuthority().client_context()


def test_implicit_tls_verifies_and_tells(trusting: ssl.SSLContext) -> None:
    with MailServer(implicit_tls=True) as server:
        with SMTP_SSL("localhost", server.port, context=trusting) as smtp:
            assert smtp.context is trusting
            send(smtp)
            assert smtp.sock is not None
            assert (smtp.sock.version() or "").startswith("TLSv1")
            assert smtp.sock.cipher() is not None
            assert isinstance(smtp.sock.getpeercert(), dict)
            assert isinstance(smtp.sock.getpeercert(True), bytes)
        assert server.messages[0].tls


def test_implicit_tls_without_a_context_trusts_no_stranger() -> None:
    with MailServer(implicit_tls=True) as server:
        with pytest.raises(SMTPTLSError, match="certificate"):
            SMTP_SSL("localhost", server.port)


def test_starttls_is_for_the_host_that_was_connected_to(trusting: ssl.SSLContext) -> None:
    with MailServer(starttls=True) as server:
        with SMTP() as smtp:
            smtp.connect("localhost", server.port)
            assert smtp.starttls(context=trusting).code == 220
            assert (smtp.ehlo_resp, smtp.esmtp_features, smtp.does_esmtp) == (None, {}, False)
            send(smtp)
        assert server.messages[0].tls


def test_starttls_verifies() -> None:
    with MailServer(starttls=True) as server:
        smtp = SMTP("localhost", server.port)
        with pytest.raises(ssl.SSLError, match="certificate"):
            smtp.starttls()
        assert smtp.sock is None


def test_starttls_takes_the_name_that_the_certificate_must_have(trusting: ssl.SSLContext) -> None:
    with MailServer(starttls=True) as server:
        smtp = SMTP("localhost", server.port)
        with pytest.raises(SMTPTLSError, match="certificate"):
            smtp.starttls(context=trusting, server_hostname="else.test")


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    written = CertificateAuthority().write_to(tmp_path)
    return written.key, written.certificate


def test_key_and_certificate_files_are_taken_with_a_warning(files: tuple[Path, Path]) -> None:
    with pytest.warns(DeprecationWarning, match="pass a context") as warned:
        smtp = SMTP_SSL("", 0, None, *files)
    assert smtp.context.verify_mode is ssl.CERT_REQUIRED
    with MailServer(starttls=True) as server:
        plain = SMTP("localhost", server.port)
        with pytest.warns(DeprecationWarning, match="pass a context") as warned_too:
            with pytest.raises(SMTPTLSError):
                plain.starttls(*files)
    assert {one.filename for one in [*warned, *warned_too]} == {__file__}


def test_key_and_certificate_files_do_not_go_with_a_context(
    files: tuple[Path, Path], trusting: ssl.SSLContext, smtp: SMTP
) -> None:
    for refused in (
        lambda: SMTP_SSL(keyfile=files[0], context=trusting),
        lambda: SMTP_SSL(certfile=files[1], context=trusting),
        lambda: smtp.starttls(*files, trusting),
    ):
        with pytest.raises(ValueError, match="into the context"):
            refused()


# -- LMTP


def test_lmtp_over_a_unix_socket_gives_each_recipients_answer(tmp_path: Path) -> None:
    path = tmp_path / "lmtp"
    with MailServer(
        lmtp=True, unix_path=path, refuse_after_content={"bad@d.test": "552 5.2.2 full"}
    ) as server:
        with LMTP(str(path), local_hostname="me.test") as lmtp:
            refused = lmtp.sendmail("a@b.test", ["good@d.test", "bad@d.test"], BODY)
            assert lmtp.sock is not None
            assert lmtp.sock.family is socket.AF_UNIX
    assert refused == {"bad@d.test": (552, b"5.2.2 full")}
    assert server.commands[0] == "LHLO me.test"


def test_lmtp_has_a_port_of_its_own() -> None:
    lmtp = LMTP()
    assert (lmtp.default_port, LMTP.ehlo_msg) == (2003, "lhlo")


# -- what is shown


class Recorder:
    """Audit hooks cannot be taken off again, so one is kept and told when to listen."""

    def __init__(self) -> None:
        self.events: list[tuple[str, tuple[object, ...]]] | None = None
        self.forbidden = b"\xff"
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.events is not None and event.startswith("smtplib."):
            if self.forbidden in bytes(arguments[-1] if isinstance(arguments[-1], bytes) else b""):
                raise PermissionError("not that")
            self.events.append((event, arguments))


RECORDER = Recorder()


@pytest.fixture
def audit() -> Iterator[Recorder]:
    RECORDER.events = []
    yield RECORDER
    RECORDER.events, RECORDER.forbidden = None, b"\xff"


def test_connecting_and_sending_are_audited_without_secrets(server: MailServer, audit: Recorder) -> None:
    with SMTP(server.host, server.port, local_hostname="me.test") as smtp:
        smtp.login("user", "secret-word", mechanisms=["PLAIN"])
        send(smtp)
    assert audit.events is not None
    assert audit.events[0] == ("smtplib.connect", (smtp, server.host, server.port))
    assert audit.events[1:] == [
        ("smtplib.send", (smtp, data))
        for data in (
            b"EHLO me.test\r\n",
            b"AUTH PLAIN ***\r\n",
            b"MAIL FROM:<a@b.test> SIZE=26\r\nRCPT TO:<c@d.test>\r\nDATA\r\n",
            BODY + b".\r\n",
            b"QUIT\r\n",
        )
    ]


@pytest.mark.parametrize("large", [False, True])
def test_what_an_audit_hook_forbids_does_not_leave(
    smtp: SMTP, server: MailServer, audit: Recorder, large: bool
) -> None:
    audit.forbidden = b"confidential"
    body = b"confidential\r\n" * (30_000 if large else 1)
    with pytest.raises(PermissionError) as caught:
        smtp.sendmail("a@b.test", "c@d.test", body)
    assert caught.value.delivery is Delivery.NOT_SENT  # type: ignore[attr-defined]
    assert server.messages == []


def test_the_conversation_is_printed_as_smtplib_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    script: list[Step] = [
        greeting("hi"),
        ehlo("PIPELINING"),
        "MAIL",
        "RCPT",
        "DATA",
        b"250 ok\r\n250 ok\r\n354 go\r\n",
    ]
    with ScriptedServer(
        [*script, expect_content(), b"250-all\r\n250 taken\r\n", "QUIT", b"221 bye\r\n"]
    ) as server:
        smtp = SMTP(local_hostname="me.test")
        smtp.set_debuglevel(1)
        smtp.connect(server.host, server.port)
        smtp.sendmail("a@b.test", "c@d.test", b".\r\n")
        smtp.quit()
    assert capsys.readouterr().err.splitlines() == [
        f"connect: to ('127.0.0.1', {server.port}) None",
        r"reply: b'220 hi\r\n'",
        "reply: retcode (220); Msg: b'hi'",
        "connect: b'hi'",
        r"send: 'EHLO me.test\r\n'",
        r"reply: b'250-mail.test\r\n'",
        r"reply: b'250 PIPELINING\r\n'",
        r"reply: retcode (250); Msg: b'mail.test\nPIPELINING'",
        r"send: 'MAIL FROM:<a@b.test>\r\n'",
        r"send: 'RCPT TO:<c@d.test>\r\n'",
        r"send: 'DATA\r\n'",
        r"reply: b'250 ok\r\n'",
        "reply: retcode (250); Msg: b'ok'",
        r"reply: b'250 ok\r\n'",
        "reply: retcode (250); Msg: b'ok'",
        r"reply: b'354 go\r\n'",
        "reply: retcode (354); Msg: b'go'",
        "data: (354, b'go')",
        r"send: b'..\r\n.\r\n'",
        r"reply: b'250-all\r\n'",
        r"reply: b'250 taken\r\n'",
        r"reply: retcode (250); Msg: b'all\ntaken'",
        r"data: (250, b'all\ntaken')",
        r"send: 'QUIT\r\n'",
        r"reply: b'221 bye\r\n'",
        "reply: retcode (221); Msg: b'bye'",
    ]


def test_what_is_printed_is_smtplibs_but_for_the_case_of_commands(
    server: MailServer, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = []
    for cls in (smtplib.SMTP, SMTP):
        smtp = cls(local_hostname="me.test")
        smtp.set_debuglevel(1)
        smtp.connect(server.host, server.port)
        smtp.ehlo()
        smtp.mail("a@b.test")
        smtp.rcpt("c@d.test")
        smtp.data(BODY)
        smtp.docmd("VRFY", "x@y.test")
        smtp.quit()
        printed.append(capsys.readouterr().err.lower().replace("4a000002", "4a000001").splitlines())
    assert printed[0] == printed[1]


def test_content_in_pieces_is_printed_in_pieces(
    server: MailServer, capsys: pytest.CaptureFixture[str]
) -> None:
    with SMTP(server.host, server.port, local_hostname="me.test") as smtp:
        smtp.set_debuglevel(1)
        smtp.sendmail("a@b.test", "c@d.test", iter([b"one\r\n", b"two"]))
    shown = capsys.readouterr().err
    assert r"send: b'one\r\n'" in shown
    assert shown.count("data: (250") == 1


def test_level_two_prints_the_time_of_day(server: MailServer, capsys: pytest.CaptureFixture[str]) -> None:
    with SMTP() as smtp:
        smtp.set_debuglevel(2)
        smtp.connect(server.host, server.port)
    hours, minutes, _ = capsys.readouterr().err.split(" connect: to")[0].split(":")
    assert int(hours) < 24
    assert int(minutes) < 60


def test_implicit_tls_prints_one_line_more(capsys: pytest.CaptureFixture[str]) -> None:
    with MailServer(implicit_tls=True) as server:
        smtp = SMTP_SSL(context=CertificateAuthority().client_context())
        smtp.set_debuglevel(1)
        smtp.connect("localhost", server.port)
        smtp.close()
    assert capsys.readouterr().err.startswith(f"connect: ('localhost', {server.port})\nconnect: to (")


def test_a_watcher_whose_client_is_gone_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    watch = Watcher(SMTP())
    watch("reply", b"250 ok\r\n")
    assert capsys.readouterr().err == ""


def test_no_secret_is_printed(server: MailServer, capsys: pytest.CaptureFixture[str]) -> None:
    with SMTP(server.host, server.port) as smtp:
        smtp.set_debuglevel(1)
        smtp.login("user", "secret-word", mechanisms=["LOGIN"])
    shown = capsys.readouterr().err
    assert r"send: '***\r\n'" in shown
    assert "c2VjcmV0" not in shown


# -- interruptions and ends


def test_ctrl_c_in_a_stalled_send_closes_the_connection_and_knows_that_nothing_is_known() -> None:
    take: list[Step] = [
        greeting(),
        ehlo(),
        "MAIL",
        b"250 ok\r\n",
        "RCPT",
        b"250 ok\r\n",
        "DATA",
        b"354 go\r\n",
    ]
    left = Left()
    with ScriptedServer([*take, expect_content(), press_ctrl_c, left]) as server:
        smtp = SMTP(server.host, server.port)
        with pytest.raises(KeyboardInterrupt) as caught:
            send(smtp)
        assert caught.value.delivery is Delivery.UNKNOWN  # type: ignore[attr-defined]
        assert [o.delivery for o in caught.value.outcomes] == [Delivery.UNKNOWN]  # type: ignore[attr-defined]
        assert smtp.sock is None
        with pytest.raises(SMTPServerDisconnected):
            smtp.noop()
        assert left.wait()


def test_ctrl_c_before_the_content_says_not_sent() -> None:
    left = Left()
    with ScriptedServer([greeting(), ehlo(), "MAIL", press_ctrl_c, left]) as server:
        smtp = SMTP(server.host, server.port)
        with pytest.raises(KeyboardInterrupt) as caught:
            send(smtp)
        assert caught.value.delivery is Delivery.NOT_SENT  # type: ignore[attr-defined]
        assert left.wait()


def test_ctrl_c_inside_the_with_block_does_not_wait_for_quit() -> None:
    left = Left()
    with ScriptedServer([greeting(), left]) as server:
        with pytest.raises(KeyboardInterrupt), SMTP(server.host, server.port):
            raise KeyboardInterrupt
        assert left.wait()


def test_a_close_from_another_thread_ends_a_call() -> None:
    with ScriptedServer([greeting(), "NOOP", stall()]) as server:
        smtp = SMTP(server.host, server.port)
        closer = threading.Thread(target=close_when_asked, args=(server, smtp))
        closer.start()
        with pytest.raises(SMTPServerDisconnected):
            smtp.noop()
        closer.join()


def close_when_asked(server: ScriptedServer, smtp: SMTP) -> None:
    while server.received != [b"NOOP\r\n"]:
        os.sched_yield()
    smtp.close()


def test_an_error_leaves_the_connection_usable(smtp: SMTP, server: MailServer) -> None:
    server.refuse_content = "554 5.7.1 no"
    with pytest.raises(SMTPDataError):
        send(smtp)
    server.refuse_content = None
    send(smtp)


def test_an_unclosed_client_warns_and_lets_go_when_it_is_collected() -> None:
    left = Left()
    with ScriptedServer([greeting(), left]) as server:
        kept = [SMTP(server.host, server.port)]
        with pytest.warns(ResourceWarning, match=r"unclosed <SMTP connected to 127\.0\.0\.1"):
            kept.clear()
        assert left.wait()


def test_a_closed_client_does_not_warn(server: MailServer) -> None:
    smtp = SMTP(server.host, server.port)
    smtp.close()
    smtp.close()
    del smtp
    gc.collect()


def test_a_client_whose_loop_has_ended_is_not_connected_and_connects_anew(server: MailServer) -> None:
    smtp = SMTP(server.host, server.port)
    runner.stop()
    with pytest.raises(SMTPServerDisconnected):
        smtp.noop()
    smtp.connect(server.host, server.port)
    assert smtp.quit().code == 221


def test_an_exit_with_an_unclosed_client_is_clean(server: MailServer) -> None:
    script = f"from aiosmtpclient import SMTP; kept = SMTP({server.host!r}, {server.port})"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_failed_connection_is_an_error_once(server: MailServer) -> None:
    with SMTP(server.host, server.port) as smtp:
        with pytest.raises(SMTPConnectError):
            smtp.connect("127.0.0.1", 1)
        assert smtp.sock is None


# -- forks


FORK = """if True:
    import gc, os, sys
    from aiosmtpclient import SMTP, SMTPServerDisconnected
    host, port, how = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    smtp = SMTP(host, port)
    smtp.noop()
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        smtp.noop()
        print("parent", smtp.quit().code)
    else:
        if how == "use":
            try:
                smtp.noop()
            except SMTPServerDisconnected as error:
                print("child", error)
        elif how == "close":
            smtp.close()
        elif how == "leave":
            smtp.__exit__(None, None, None)
        elif how == "drop":
            del smtp
            gc.collect()
        elif how == "connect":
            smtp.connect(host, port)
            print("child", smtp.help().split()[0].decode())
            smtp.close()
        elif how == "exit":
            sys.exit()
        sys.stdout.flush()
        os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("use", "the connection to 127.0.0.1"),
        ("close", ""),
        ("leave", ""),
        ("drop", ""),
        ("exit", ""),
        ("connect", "2.0.0"),
    ],
)
def test_a_child_does_not_write_into_its_parents_socket(server: MailServer, how: str, said: str) -> None:
    options = ["-W", "error", "-W", "ignore::DeprecationWarning"]
    done = subprocess.run(
        [sys.executable, *options, "-c", FORK, server.host, str(server.port), how],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert "parent 221\n" in done.stdout
    assert f"child {said}" in done.stdout or not said
    assert ("was made before os.fork()" in done.stdout) is (how == "use")
    assert [command for command in server.commands if command != "HELP"] == ["NOOP", "NOOP", "QUIT"]


# -- the example


def test_the_classic_example_sends_what_is_typed(server: MailServer) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", ROOT / "examples" / "classic.py", f"{server.host}:{server.port}"],
        input="a@b.test\nc@d.test, e@f.test\nHello,\n.\nthere.\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    [message] = server.messages
    assert (message.sender, message.recipients) == ("a@b.test", ("c@d.test", "e@f.test"))
    assert message.content.endswith(b"\r\n\r\nHello,\r\n.\r\nthere.\r\n")
    assert "send: 'MAIL FROM:<a@b.test>" in done.stderr
