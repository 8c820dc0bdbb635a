"""One connection and its driver: dialling, slices of content, handshakes, raw octets, the end."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Generator

import pytest
from wire import (
    BODY,
    GO,
    LONG,
    OK,
    SENDER,
    SHORT,
    TO,
    bye,
    caught,
    each_loop,
    envelope,
    hello,
    mark,
    send,
    suffer,
    take,
    wait_for,
)

from aiosmtpclient import (
    AsyncSMTP,
    Delivery,
    SMTPConnectError,
    SMTPConnectionRefusedError,
    SMTPDataError,
    SMTPProtocolError,
    SMTPServerDisconnected,
    SMTPTimeoutError,
    SMTPTLSError,
    Timeouts,
)
from aiosmtpclient.commands import END_OF_CONTENT
from aiosmtpclient.dialling import Endpoint, TLSSettings
from aiosmtpclient.replies import Reply
from aiosmtpclient.steps import Phase, Step, handshake
from aiosmtpclient.testing import CertificateAuthority, MailServer, ScriptedServer
from aiosmtpclient.testing.scripted import (
    close,
    expect_content,
    read_all,
    read_exactly,
    reset,
    stall,
)

AUTHORITY = CertificateAuthority()
TRUSTING = AUTHORITY.client_context()
SECURITY = TLSSettings(TRUSTING, "localhost")
BIG = (b"x" * 998 + b"\r\n") * 12_000


# -- where a server is -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("endpoint", "name", "unix", "local"),
    [
        (Endpoint("mail.test", 25), "mail.test:25", False, False),
        (Endpoint("localhost", 2525), "localhost:2525", False, True),
        (Endpoint("/run/smtp", 0), "/run/smtp", True, True),
    ],
)
def test_an_endpoint_knows_its_name_and_whether_it_is_local(endpoint, name, unix, local):
    assert (endpoint.name, endpoint.unix, endpoint.local) == (name, unix, local)


def test_a_given_socket_is_local_if_its_peer_is():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert Endpoint("", 25, sock=ours).local
        assert Endpoint("", 25, sock=ours).name == "the given socket"
        assert Endpoint("mail.test", 25, sock=ours).name == "mail.test:25"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()) as tcp:
            assert Endpoint("", 25, sock=tcp).local
            assert Endpoint("localhost", 25, sock=tcp).local
            assert not Endpoint("mail.test", 25, sock=tcp).local  # perhaps through a proxy
        assert not Endpoint("localhost", 25, sock=tcp).local  # closed: nobody knows


# -- dialling --------------------------------------------------------------------------------


@each_loop
@pytest.mark.parametrize("source", [None, ("", 0), ("127.0.0.1", 0), ("127.0.0.2", 0)])
async def test_a_connection_comes_from_the_source_address(source):
    async with MailServer() as server:
        smtp = AsyncSMTP(server.host, server.port, source_address=source)
        async with smtp:
            ours = smtp._connection.protocol.transport.get_extra_info("sockname")
            await send(smtp)
        assert ours[0] == (source[0] if source and source[0] else "127.0.0.1")
        assert smtp.source_address == source
        await smtp.connect(source_address=("127.0.0.3", 0))
        assert smtp._connection.protocol.transport.get_extra_info("sockname")[0] == "127.0.0.3"
        await smtp.quit()


@each_loop
async def test_a_source_port_without_a_host_is_bound():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    async with MailServer() as server:
        async with AsyncSMTP(server.host, server.port, source_address=("", port)) as smtp:
            assert smtp._connection.protocol.transport.get_extra_info("sockname")[1] == port


@each_loop
async def test_a_connection_over_ipv6():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    async with MailServer(host="::1") as server:
        async with AsyncSMTP("::1", server.port) as smtp:
            await send(smtp)
        assert len(server.messages) == 1


@each_loop
@pytest.mark.parametrize("tls", [False, True])
async def test_a_connection_over_a_unix_socket(tls, tmp_path):
    options = {"tls": "implicit", "tls_context": TRUSTING} if tls else {}
    async with MailServer(unix_path=tmp_path / "socket", implicit_tls=tls) as server:
        async with AsyncSMTP(server.host, **options) as smtp:
            await send(smtp)
        assert server.messages[0].tls is tls


@each_loop
@pytest.mark.parametrize("tls", [False, True])
async def test_a_connection_over_a_given_socket(tls):
    options = {"tls": "implicit", "tls_context": TRUSTING} if tls else {}
    async with MailServer(implicit_tls=tls) as server:
        given = socket.create_connection((server.host, server.port))
        async with AsyncSMTP(sock=given, **options) as smtp:
            await send(smtp)
        assert server.messages[0].tls is tls


@each_loop
async def test_a_given_socket_that_was_closed_is_a_connect_error():
    given, other = socket.socketpair()
    given.close()
    other.close()
    error = await caught(AsyncSMTP(sock=given).connect())
    assert isinstance(error, SMTPConnectError)
    assert "used once" in str(error)


@each_loop
async def test_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    error = await caught(AsyncSMTP("127.0.0.1", port).connect())
    assert isinstance(error, SMTPConnectionRefusedError)
    assert isinstance(error, ConnectionRefusedError)
    assert error.errno == 111
    assert f"127.0.0.1:{port}" in str(error)
    assert isinstance(error.__cause__, OSError)


@each_loop
async def test_no_such_unix_socket(tmp_path):
    error = await caught(AsyncSMTP(str(tmp_path / "none")).connect())
    assert isinstance(error, SMTPConnectError)
    assert "No such file" in str(error)


@pytest.mark.parametrize("host", ["x" * 64 + ".test", "a..b", "\u00fc" * 64])
async def test_an_impossible_name_is_no_bare_error_of_python(host):
    error = await caught(AsyncSMTP(host, 25, tls="none").connect())
    assert isinstance(error, SMTPConnectError)


@each_loop
async def test_dialling_takes_only_so_long(monkeypatch):
    async def never(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(type(asyncio.get_running_loop()), "create_connection", never)
    error = await caught(AsyncSMTP("127.0.0.1", 25, timeout=Timeouts(connect=SHORT)).connect())
    assert isinstance(error, SMTPTimeoutError)
    assert error.phase == "connect"


@each_loop
@pytest.mark.parametrize("end", [close, reset])
async def test_implicit_tls_that_is_cut_off(end):
    async with ScriptedServer([read_exactly(20), end()]) as server:
        error = await caught(
            AsyncSMTP(server.host, server.port, tls="implicit", tls_context=TRUSTING).connect()
        )
        assert isinstance(error, SMTPTLSError)


# -- handshakes ------------------------------------------------------------------------------


@each_loop
@pytest.mark.parametrize("wait", [True, False], ids=["a deadline", "no deadline"])
async def test_a_handshake_in_the_middle(wait):
    async with MailServer(starttls=True) as server:
        options = {"tls": "starttls", "tls_context": TRUSTING, "timeout": LONG if wait else None}
        async with AsyncSMTP(server.host, server.port, **options) as smtp:
            await send(smtp)
        assert server.messages[0].tls


@each_loop
@pytest.mark.parametrize("kind", ["timeout", "cancel"])
async def test_a_handshake_in_the_middle_that_hangs(kind):
    reached = asyncio.Event()
    script = [*hello("STARTTLS"), "STARTTLS", b"220 go\r\n", read_exactly(20), mark(reached), read_all()]
    async with ScriptedServer(script) as server:
        options = {
            "tls": "starttls",
            "tls_context": TRUSTING,
            "timeout": SHORT if kind == "timeout" else LONG,
        }
        started = asyncio.get_running_loop().time()
        error = await suffer(AsyncSMTP(server.host, server.port, **options).connect(), kind, reached)
        assert isinstance(error, SMTPTimeoutError if kind == "timeout" else asyncio.CancelledError)
        assert asyncio.get_running_loop().time() - started < 0.9  # no second for a close that nobody tells
        await server.conversations[0].gone.wait()


@each_loop
async def test_a_handshake_in_the_middle_that_fails():
    async with MailServer(starttls=AUTHORITY.expired_context()) as server:
        started = asyncio.get_running_loop().time()
        error = await caught(
            AsyncSMTP(server.host, server.port, tls="starttls", tls_context=TRUSTING).connect()
        )
        assert isinstance(error, SMTPTLSError)
        assert isinstance(error.__cause__, ssl.SSLCertVerificationError)
        assert asyncio.get_running_loop().time() - started < 0.9


@each_loop
async def test_cancelled_while_the_context_is_made_drops_a_server_that_waits_for_a_handshake(monkeypatch):
    reached, never = asyncio.Event(), asyncio.Event()

    async def made(self: TLSSettings) -> None:
        reached.set()
        await never.wait()

    monkeypatch.setattr(TLSSettings, "made", made)
    script = [*hello("STARTTLS"), "STARTTLS", b"220 go\r\n", read_all()]
    async with ScriptedServer(script) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            error = await suffer(smtp.starttls(), "cancel", reached)
            assert isinstance(error, asyncio.CancelledError)
            assert not smtp.is_connected
        await server.conversations[0].gone.wait()
        assert server.received[0].endswith(b"STARTTLS\r\n")


@each_loop
async def test_a_server_that_goes_while_the_context_is_made_gets_no_handshake(monkeypatch):
    gone = asyncio.Event()

    async def made(self: TLSSettings) -> tuple[ssl.SSLContext, str]:
        await smtp._connection.protocol.closed
        gone.set()
        return TRUSTING, "localhost"

    monkeypatch.setattr(TLSSettings, "made", made)
    async with ScriptedServer([*hello("STARTTLS"), "STARTTLS", b"220 go\r\n", close()]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            error = await caught(smtp.starttls())
            assert isinstance(error, SMTPServerDisconnected)
            assert gone.is_set()


async def test_the_context_of_those_who_bring_none_is_made_once_and_off_the_loop(monkeypatch):
    made = []

    def default_context() -> ssl.SSLContext:
        made.append(asyncio._get_running_loop())
        return TRUSTING

    monkeypatch.setattr("aiosmtpclient.tls.default_context", default_context)
    monkeypatch.setattr("aiosmtpclient.dialling._default_context", None)
    settings = TLSSettings(None, "localhost")
    assert await settings.made() == (TRUSTING, "localhost")
    assert await settings.made() == (TRUSTING, "localhost")
    assert made == [None]
    assert await SECURITY.made() == (TRUSTING, "localhost")


def only(step: Step) -> Generator[Step, list[Reply], None]:
    """A dialogue of one step."""
    yield step


async def test_a_handshake_without_settings_is_a_mistake_of_ours():
    async with ScriptedServer([*hello(), *bye()]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            smtp._connection.security = None
            with pytest.raises(AssertionError):
                await smtp._connection.run(only(handshake()))


@each_loop
async def test_a_handshake_that_ends_without_a_transport_is_a_lost_connection(monkeypatch):
    """What asyncio gives when the connection was lost in the moment in which the handshake was done."""

    async def start_tls(self: object, transport: asyncio.Transport, *_: object, **__: object) -> None:
        transport.abort()

    monkeypatch.setattr(type(asyncio.get_running_loop()), "start_tls", start_tls)
    async with ScriptedServer([*hello("STARTTLS"), "STARTTLS", b"220 go\r\n", read_all()]) as server:
        error = await caught(
            AsyncSMTP(server.host, server.port, tls="starttls", tls_context=TRUSTING).connect()
        )
        assert isinstance(error, SMTPServerDisconnected)


# -- content ---------------------------------------------------------------------------------


@each_loop
@pytest.mark.parametrize("size", [0, 1, 64 * 1024, 64 * 1024 + 1, len(BIG)])
async def test_content_of_any_size_arrives_whole(size):
    async with MailServer() as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            await send(smtp, body=BIG[:size])
        content = server.messages[0].content
        assert content == BIG[:size] if BIG[:size].endswith(b"\r\n") or not size else BIG[:size] + b"\r\n"


async def test_an_end_that_could_not_be_written_counts_as_gone(monkeypatch):
    """Once `write` was called, nobody can prove that it did not leave."""

    async with ScriptedServer([*hello(), *envelope(TO), "DATA", GO, read_all()]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            protocol = smtp._connection.protocol
            hand_over = protocol._hand_over

            def breaks(octets: bytes) -> None:
                if octets.endswith(END_OF_CONTENT):
                    raise ZeroDivisionError
                hand_over(octets)

            monkeypatch.setattr(protocol, "_hand_over", breaks)
            error = await caught(send(smtp))
            assert isinstance(error, ZeroDivisionError)
            assert error.delivery is Delivery.UNKNOWN
            assert not smtp.is_connected


@each_loop
async def test_a_refusal_while_the_last_piece_is_held_is_seen_before_the_end_is_written():
    refused, over = asyncio.Event(), asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"first\r\n"
        yield b"last\r\n"
        await refused.wait()
        while not smtp._connection.session.last_reply.permanent:
            await asyncio.sleep(0)

    script = [
        *hello(),
        *envelope(TO),
        "DATA",
        GO,
        "first",
        b"552 no\r\n",
        mark(refused),
        wait_for(over),
        read_all(),
    ]
    async with ScriptedServer(script) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            with pytest.raises(SMTPDataError) as caught_error:
                await smtp.sendmail(SENDER, TO, body())
            assert caught_error.value.delivery is Delivery.REFUSED
            assert not smtp.is_connected
        over.set()
        await server.conversations[0].gone.wait()
        assert b"last" not in server.received[0]


@each_loop
@pytest.mark.parametrize("more", [b"", b"and another thing\r\n"])
async def test_a_refusal_in_the_middle_stays_one_when_the_server_hangs_up_behind_it(more):
    script = [*hello(), *envelope(TO), "DATA", GO, read_exactly(100_000), b"552 enough\r\n" + more, close()]
    async with ScriptedServer(script) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            with pytest.raises(SMTPDataError) as caught_error:
                await send(smtp, body=BIG)
            assert caught_error.value.smtp_code == 552
            assert caught_error.value.delivery is Delivery.REFUSED
            assert not smtp.is_connected


@each_loop
async def test_a_refusal_stays_one_though_the_connection_is_gone_when_the_body_goes_on():
    async def body() -> AsyncIterator[bytes]:
        yield b"first\r\n"
        yield b"second\r\n"
        await smtp._connection.protocol.closed
        yield b"third\r\n"

    script = [*hello(), *envelope(TO), "DATA", GO, "first", b"452 full\r\n", close()]
    async with ScriptedServer(script) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            with pytest.raises(SMTPDataError) as caught_error:
                await smtp.sendmail(SENDER, TO, body())
            assert caught_error.value.delivery is Delivery.REFUSED
            assert caught_error.value.temporary


@each_loop
async def test_a_refusal_between_two_pieces_stops_the_content():
    refused, over = asyncio.Event(), asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"first\r\n"
        yield b"second\r\n"
        await refused.wait()
        while not smtp._connection.session.last_reply.permanent:
            await asyncio.sleep(0)
        yield b"third\r\n"
        raise AssertionError("asked for more than could be of use")

    script = [
        *hello(),
        *envelope(TO),
        "DATA",
        GO,
        "first",
        b"552 no\r\n",
        mark(refused),
        wait_for(over),
        read_all(),
    ]
    async with ScriptedServer(script) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            with pytest.raises(SMTPDataError):
                await smtp.sendmail(SENDER, TO, body())
        over.set()
        await server.conversations[0].gone.wait()
        assert b"third" not in server.received[0]


@each_loop
async def test_the_loss_of_the_connection_while_a_piece_is_awaited_is_noticed_at_the_next():
    gone = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"first\r\n"
        await gone.wait()
        await smtp._connection.protocol.closed
        yield b"second\r\n"

    async with ScriptedServer([*hello(), *envelope(TO), "DATA", GO, mark(gone), close()]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            error = await caught(smtp.sendmail(SENDER, TO, body()))
            assert isinstance(error, SMTPServerDisconnected)
            assert error.delivery is Delivery.NOT_SENT


@each_loop
async def test_cancelled_after_the_verdict_the_result_comes_and_the_cancellation_follows():
    ended = asyncio.Event()
    script = [*hello(), *envelope(TO), "DATA", GO, expect_content(), mark(ended), stall()]
    async with ScriptedServer(script) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        results = []

        async def work(again: bool) -> None:
            results.append(await send(smtp))
            if again:
                await asyncio.Event().wait()

        task = asyncio.create_task(work(True))
        await ended.wait()
        smtp._connection.protocol.data_received(OK)
        task.cancel()
        assert isinstance(await caught(asyncio.wait_for(task, LONG)), asyncio.CancelledError)
        assert results[0].accepted == (TO,)
        smtp.close()


@each_loop
async def test_a_cancellation_that_somebody_takes_back_does_not_come_again():
    ended = asyncio.Event()
    script = [*hello(), *envelope(TO), "DATA", GO, expect_content(), mark(ended), stall()]
    async with ScriptedServer(script) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()

        async def work() -> str:
            await send(smtp)
            asyncio.current_task().uncancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            return "done"

        task = asyncio.create_task(work())
        await ended.wait()
        smtp._connection.protocol.data_received(OK)
        task.cancel()
        assert await task == "done"
        smtp.close()


@each_loop
async def test_a_cancelled_verb_is_never_answered_by_its_result():
    """Only the verdict on content is worth more than a cancellation."""
    reached = asyncio.Event()
    async with ScriptedServer([*hello(), "NOOP", mark(reached), stall()]) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        task = asyncio.create_task(caught(smtp.noop()))
        await reached.wait()
        smtp._connection.protocol.data_received(OK)
        task.cancel()
        assert isinstance(await task, asyncio.CancelledError)
        smtp.close()


@each_loop
async def test_a_2yz_to_data_gives_the_connection_up_and_an_authobject_is_asked():
    script = [*hello("AUTH XAMPLE"), "AUTH XAMPLE", b"334 eA==\r\n", "eA==", b"235 in\r\n"]
    script += [*envelope(TO), "DATA", OK, read_all()]

    async def authobject(challenge: bytes | None = None) -> bytes | None:
        return challenge

    async with ScriptedServer(script) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            await smtp.auth("XAMPLE", authobject)
            assert isinstance(await caught(send(smtp)), SMTPProtocolError)
            assert not smtp.is_connected


# -- raw octets ------------------------------------------------------------------------------


@each_loop
async def test_raw_octets_and_the_replies_to_them():
    script = [
        *hello(),
        "NOOP",
        "NOOP",
        b"250 one\r\n250 two\r\n",
        "RSET",
        b"250 three\r\n",
        *take(TO),
        *bye(),
    ]
    async with ScriptedServer(script) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            connection = smtp._connection
            connection.write_raw(b"NOOP\r\n")
            connection.write_raw(b"NOOP\r\n")
            assert (await connection.read_reply()).message == b"one"
            with pytest.raises(RuntimeError, match="unread"):
                connection.leave_raw()
            with pytest.raises(RuntimeError, match="unread"):
                await smtp.noop()
            assert (await connection.read_reply()).message == b"two"
            connection.write_raw(b"RSET\r\n")
            assert (await connection.read_reply()).message == b"three"
            await send(smtp)


@each_loop
async def test_content_by_raw_octets_is_a_phase_of_its_own():
    script = [*hello(), "MAIL", OK, "RCPT", OK, "DATA", GO, expect_content(), b"250 taken\r\n", *bye()]
    async with ScriptedServer(script) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            await smtp.mail(SENDER)
            await smtp.rcpt(TO)
            connection = smtp._connection
            connection.write_raw(b"DATA\r\n")
            assert (await connection.read_reply()).code == 354
            assert connection.session.phase is Phase.CONTENT
            connection.write_raw(BODY + b".\r\n")
            assert (await connection.read_reply()).message == b"taken"
            assert connection.session.phase is not Phase.CONTENT


@each_loop
async def test_raw_octets_to_a_server_that_went_are_an_error():
    async with ScriptedServer([*hello(), "NOOP", b"421 bye\r\n", close()]) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        connection = smtp._connection
        connection.write_raw(b"NOOP\r\n")
        assert (await connection.read_reply()).code == 421
        with pytest.raises(SMTPServerDisconnected):
            connection.write_raw(b"NOOP\r\n")
        with pytest.raises(SMTPServerDisconnected):
            await connection.read_reply()
        smtp.close()


# -- the end ---------------------------------------------------------------------------------


@each_loop
async def test_a_server_that_does_not_close_its_side_is_given_a_moment_and_no_more(monkeypatch):
    monkeypatch.setattr("aiosmtpclient.connection.LINGER", SHORT)
    script = [*hello(), "QUIT", b"221 bye\r\n", stall()]
    async with ScriptedServer(script, implicit_tls=AUTHORITY.server_context()) as server:
        smtp = AsyncSMTP(server.host, server.port, tls="implicit", tls_context=TRUSTING)
        await smtp.connect()
        connection = smtp._connection
        assert (await smtp.quit()).code == 221
        await connection.protocol.closed


@each_loop
async def test_what_is_not_written_when_a_connection_ends_is_not_waited_for(monkeypatch):
    """A close would wait until the server reads; after a moment it is an abort."""
    monkeypatch.setattr("aiosmtpclient.connection.LINGER", SHORT)
    async with ScriptedServer([*hello(), stall()]) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        connection = smtp._connection
        connection.protocol.write(BIG)
        started = asyncio.get_running_loop().time()
        await connection.finish()
        assert SHORT * 0.9 < asyncio.get_running_loop().time() - started < SHORT * 10
        await connection.protocol.closed


@each_loop
async def test_a_connection_whose_end_is_cancelled_is_dropped():
    reached = asyncio.Event()
    async with ScriptedServer([*hello(), stall()]) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        connection = smtp._connection
        connection.protocol.write(BIG)
        task = asyncio.create_task(caught(connection.finish()))
        await asyncio.sleep(0)
        reached.set()
        task.cancel()
        assert isinstance(await task, asyncio.CancelledError)
        await connection.protocol.closed


@each_loop
async def test_each_connection_has_a_number_of_its_own():
    async with MailServer() as server:
        numbers = []
        for _ in range(2):
            async with AsyncSMTP(server.host, server.port) as smtp:
                numbers.append(smtp._connection.serial)
        assert numbers[0] < numbers[1]


@each_loop
async def test_a_step_that_writes_and_waits_for_nothing():
    """Silent steps move the phase only."""
    async with ScriptedServer([*hello(), *bye()]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            await smtp._connection.run(only(Step(owed=0, then=Phase.MAIL)))
            assert smtp._connection.session.phase is Phase.MAIL
