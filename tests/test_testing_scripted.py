"""The scripted server: each step, each fault, and that a failing expectation fails the test."""

# ruff: noqa: PT012 — what fails is the leaving of a server, around everything that led to it

from __future__ import annotations

import asyncio
import gc
import os
import re
import smtplib
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from aiosmtpclient.testing import CertificateAuthority, Conversation, ScriptedServer
from aiosmtpclient.testing.scripted import (
    Script,
    close,
    drop,
    ehlo,
    expect,
    expect_content,
    expect_eof,
    greeting,
    half_close,
    read_all,
    read_exactly,
    reset,
    say,
    split,
    stall,
    starttls,
)

AUTHORITY = CertificateAuthority()
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _connect(server: ScriptedServer) -> Streams:
    if server.unix_path is not None:
        return await asyncio.open_unix_connection(server.host)
    if server.implicit_tls is not None:
        context = AUTHORITY.client_context()
        return await asyncio.open_connection(
            server.host, server.port, ssl=context, server_hostname="localhost"
        )
    return await asyncio.open_connection(server.host, server.port)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


@asynccontextmanager
async def connected(server: ScriptedServer) -> AsyncIterator[Streams]:
    reader, writer = await _connect(server)
    try:
        yield reader, writer
    finally:
        await _close(writer)


# Saying and expecting


async def test_a_script_is_played_from_top_to_bottom_and_then_closes() -> None:
    script: Script = [
        greeting(),
        ehlo("PIPELINING", "SIZE 1000"),
        "MAIL FROM:<a@b.test>",
        b"250 ok\r\n",
        expect(re.compile("RCPT TO:<(.*)>$")),
        say(b"250 ok\r\n"),
        "DATA",
        b"354 go\r\n",
        expect_content(),
        b"250 ok\r\n",
    ]
    said = b"EHLO me.test\r\nmail from:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\nhi\r\n..\r\n.\r\n"
    async with ScriptedServer(script) as server, connected(server) as (reader, writer):
        writer.write(said)
        heard = await reader.read()
        await server.finished()
        await server.finished()
    hello = b"250-mail.test\r\n250-PIPELINING\r\n250 SIZE 1000\r\n"
    assert heard == b"220 mail.test ESMTP\r\n" + hello + b"250 ok\r\n250 ok\r\n354 go\r\n250 ok\r\n"
    assert server.received == [said]
    assert server.connections == 1


async def test_a_function_sees_what_it_reads() -> None:
    seen: list[object] = []

    async def script(conversation: Conversation) -> None:
        seen.append(await conversation.expect("LHLO"))
        seen.append(await conversation.read_exactly(4))
        seen.append(await conversation.expect_content())
        seen.append(await conversation.read_all())
        seen.append(conversation.number)

    async with ScriptedServer(script) as server, connected(server) as (_, writer):
        writer.write(b"LHLO \xff\r\nabcd.x\r\n" + b"y" * 100_000 + b"\r\n.\r\nrest")
        writer.write_eof()
        await server.finished()
    assert seen == ["LHLO \udcff", b"abcd", b".x\r\n" + b"y" * 100_000 + b"\r\n", b"rest", 0]


async def test_a_single_step_is_a_script_too() -> None:
    async with ScriptedServer(b"421 no\r\n", "QUIT") as server:
        async with connected(server) as (reader, _):
            assert await reader.read() == b"421 no\r\n"
        async with connected(server) as (reader, writer):
            writer.write(b"QUIT\r\n")
            assert await reader.read() == b""


async def test_lhlo_is_expected_where_it_is_asked_for() -> None:
    async with ScriptedServer([ehlo(verb="LHLO")]) as server, connected(server) as (reader, writer):
        writer.write(b"LHLO me.test\r\n")
        assert await reader.read() == b"250 mail.test\r\n"


async def test_split_octets_arrive_one_by_one() -> None:
    class Pieces(asyncio.Protocol):
        def __init__(self) -> None:
            self.pieces: list[bytes] = []
            self.lost = asyncio.get_running_loop().create_future()

        def data_received(self, data: bytes) -> None:
            self.pieces.append(data)

        def connection_lost(self, exc: Exception | None) -> None:
            self.lost.set_result(exc)

    async with ScriptedServer([split(b"250 ok\r\n")]) as server:
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.create_connection(Pieces, server.host, server.port)
        assert await protocol.lost is None
        transport.close()
    assert protocol.pieces == [bytes([octet]) for octet in b"250 ok\r\n"]


# Several connections


async def test_each_connection_has_its_script_and_the_last_is_repeated() -> None:
    async with ScriptedServer([b"1"], [b"2"]) as server:
        heard = []
        for _ in range(3):
            async with connected(server) as (reader, _):
                heard.append(await reader.read())
    assert heard == [b"1", b"2", b"2"]
    assert server.received == [b"", b"", b""]


async def test_a_connection_without_a_script_fails_the_test() -> None:
    with pytest.raises(AssertionError, match="no script for connection 2"):
        async with ScriptedServer([b"1"], repeat_last=False) as server:
            for heard in (b"1", b""):
                async with connected(server) as (reader, _):
                    assert await reader.read() == heard


# Expectations that fail


@pytest.mark.parametrize(
    ("step", "said", "why"),
    [
        ("EHLO", b"HELO x\r\n", "expected 'EHLO', the client sent 'HELO x'"),
        (expect(re.compile("A|B")), b"C\r\n", "expected 'A|B', the client sent 'C'"),
        ("EHLO", b"EHL", "expected 'EHLO', the client closed after b'EHL'"),
        (expect_content(), b"x\r\n", "expected the lone dot, the client closed after b''"),
        (read_exactly(4), b"xyz", "expected 4 octets, the client closed after b'xyz'"),
        (expect_eof(), b"x", "expected the client to close, it sent b'x'"),
    ],
)
async def test_an_expectation_that_fails_is_raised_when_the_server_is_left(
    step: Script, said: bytes, why: str
) -> None:
    with pytest.raises(AssertionError) as caught:
        async with ScriptedServer(step) as server, connected(server) as (reader, writer):
            writer.write(said)
            writer.write_eof()
            assert await reader.read() == b""
    assert str(caught.value) == why


async def test_an_expectation_is_not_met_by_a_client_that_resets() -> None:
    with pytest.raises(AssertionError, match="expected 'EHLO', the client closed after b''"):
        async with ScriptedServer("EHLO") as server:
            async with connected(server) as (_, writer):
                _reset(writer)
                await server.finished()


async def test_what_is_still_expected_when_the_server_is_left_fails_the_test() -> None:
    with pytest.raises(AssertionError, match="was left while it waited for 'QUIT'"):
        async with ScriptedServer([greeting(), "QUIT"]) as server:
            reader, writer = await _connect(server)
            await reader.readline()
    await _close(writer)


async def test_what_is_on_its_way_when_the_server_is_left_is_still_read() -> None:
    async with ScriptedServer([greeting(), "QUIT", b"221 bye\r\n"]) as server:
        reader, writer = await _connect(server)
        await reader.readline()
        writer.write(b"QUIT\r\n")
    await _close(writer)
    assert server.received == [b"QUIT\r\n"]


async def test_a_client_that_never_stops_writing_cannot_keep_the_server() -> None:
    async def write_on(writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"x")
            await asyncio.sleep(0)

    async with ScriptedServer([read_all()]) as server:
        _, writer = await _connect(server)
        writing = asyncio.create_task(write_on(writer))
    writing.cancel()
    await asyncio.wait([writing])
    await _close(writer)


async def test_a_mistake_in_a_script_fails_the_test() -> None:
    async def script(conversation: Conversation) -> None:
        raise LookupError("mistake")

    with pytest.raises(LookupError, match="mistake"):
        async with ScriptedServer(script) as server, connected(server) as (reader, _):
            assert await reader.read() == b""


async def test_the_error_of_the_test_goes_before_the_failure_of_the_script() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        async with ScriptedServer("EHLO") as server, connected(server) as (reader, writer):
            writer.write(b"HELO\r\n")
            await reader.read()
            raise ZeroDivisionError
    assert caught.value.__notes__ == [
        "and in the server: AssertionError: expected 'EHLO', the client sent 'HELO'"
    ]


# Faults


async def test_a_stalled_server_neither_answers_nor_closes() -> None:
    async with ScriptedServer([greeting(), stall()]) as server, connected(server) as (reader, writer):
        await reader.readline()
        writer.write(b"NOOP\r\n")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await reader.read()


async def test_a_stalled_server_lets_the_writes_of_its_client_block() -> None:
    async with ScriptedServer([stall()]) as server, connected(server) as (_, writer):
        writer.write(b"x" * 50_000_000)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await writer.drain()
        writer.transport.abort()


async def test_a_stall_ends_when_the_client_goes_away() -> None:
    async with ScriptedServer([greeting(), stall(), b"too late"]) as server:
        async with connected(server) as (reader, _):
            await reader.readline()
        await server.finished()


async def test_close_is_a_fin() -> None:
    async with ScriptedServer([b"bye", close(), b"ignored"]) as server, connected(server) as (reader, _):
        assert await reader.read() == b"bye"


async def test_reset_is_a_rst() -> None:
    async with ScriptedServer([greeting(), reset()]) as server, connected(server) as (reader, _):
        with pytest.raises(ConnectionResetError):
            await reader.read()


async def test_half_close_lets_the_client_go_on_writing() -> None:
    script: Script = [b"bye", half_close(), "QUIT", expect_eof()]
    async with ScriptedServer(script) as server, connected(server) as (reader, writer):
        assert await reader.read() == b"bye"
        writer.write(b"QUIT\r\n")
    assert server.received == [b"QUIT\r\n"]


async def test_a_reset_of_the_client_counts_as_its_end() -> None:
    ends: list[object] = []

    async def script(conversation: Conversation) -> None:
        ends.append(await conversation.read_all())
        await conversation.expect_eof()
        await conversation.say(b"nobody hears")
        await conversation.close()
        ends.append(conversation.gone.is_set())

    async with ScriptedServer(script) as server, connected(server) as (_, writer):
        writer.write(b"x")
        await _until(lambda: server.received == [b"x"])
        _reset(writer)
        await server.finished()
    assert ends == [b"x", True]


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0)


def _reset(writer: asyncio.StreamWriter) -> None:
    linger = b"\x01\0\0\0\0\0\0\0"
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


# TLS


async def test_starttls_is_a_step() -> None:
    script: Script = ["STARTTLS", b"220 go\r\n", starttls(AUTHORITY.server_context()), "EHLO", b"250 ok\r\n"]
    async with ScriptedServer(script) as server, connected(server) as (reader, writer):
        writer.write(b"STARTTLS\r\n")
        await reader.readline()
        await writer.start_tls(AUTHORITY.client_context(), server_hostname="localhost")
        writer.write(b"EHLO x\r\n")
        assert await reader.read() == b"250 ok\r\n"
    assert server.received == [b"STARTTLS\r\nEHLO x\r\n"]


async def test_a_handshake_that_begins_before_its_step_is_not_lost() -> None:
    early = asyncio.Event()

    async def script(conversation: Conversation) -> None:
        await conversation.say(b"220 go\r\n")
        await _until(lambda: bool(conversation.received))
        early.set()
        await conversation.starttls(AUTHORITY.server_context())
        await conversation.expect("EHLO")

    async with ScriptedServer(script) as server, connected(server) as (reader, writer):
        await reader.readline()
        await writer.start_tls(AUTHORITY.client_context(), server_hostname="localhost")
        writer.write(b"EHLO x\r\n")
        assert await reader.read() == b""
    assert early.is_set()


async def test_a_client_that_refuses_the_certificate_ends_the_script_without_a_failure() -> None:
    script: Script = [b"220 go\r\n", starttls(AUTHORITY.expired_context()), "never expected"]
    async with ScriptedServer(script) as server, connected(server) as (reader, writer):
        await reader.readline()
        with pytest.raises(ssl.SSLCertVerificationError):
            await writer.start_tls(AUTHORITY.client_context(), server_hostname="localhost")
        await server.finished()


async def test_implicit_tls_is_there_from_the_first_octet() -> None:
    async with ScriptedServer([b"hi", "BYE"], implicit_tls=AUTHORITY.server_context()) as server:
        async with connected(server) as (reader, writer):
            assert await reader.readexactly(2) == b"hi"
            writer.write(b"BYE\r\n")
            assert await reader.read() == b""
    assert server.received == [b"BYE\r\n"]


def test_a_dropped_tls_connection_sends_no_close_notify() -> None:
    assert _tls_end(close()) == "close_notify"
    assert _tls_end(drop()) == "cut"


def _tls_end(step: Script) -> str:
    with ScriptedServer([step], implicit_tls=AUTHORITY.server_context()) as server:
        with socket.create_connection((server.host, server.port), timeout=10) as plain:
            context = AUTHORITY.client_context()
            with context.wrap_socket(
                plain, server_hostname="localhost", suppress_ragged_eofs=False
            ) as secure:
                try:
                    return "close_notify" if secure.recv(1) == b"" else "data"
                except (ssl.SSLEOFError, ConnectionResetError):
                    return "cut"


# Where it listens, and what it leaves behind


async def test_a_unix_socket_is_listened_on_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "smtp.sock"
    async with ScriptedServer([greeting(), "QUIT", reset()], unix_path=path) as server:
        async with connected(server) as (reader, writer):
            await reader.readline()
            writer.write(b"QUIT\r\n")
            assert await reader.read() == b""
    assert not path.exists()


def test_blocking_code_is_served_by_a_thread() -> None:
    script: Script = [greeting(), ehlo("SIZE 10"), "QUIT", b"221 bye\r\n"]
    with ScriptedServer(script) as server:
        with smtplib.SMTP(server.host, server.port, timeout=10) as client:
            client.ehlo("me.test")
            assert client.esmtp_features == {"size": "10"}
    assert server.received == [b"ehlo me.test\r\nQUIT\r\n"]


def test_a_failing_expectation_reaches_blocking_code() -> None:
    with pytest.raises(AssertionError, match="expected 'EHLO', the client sent 'noop'"):
        with ScriptedServer([greeting(), "EHLO"]) as server:
            with smtplib.SMTP(server.host, server.port, timeout=10) as client:
                with pytest.raises(smtplib.SMTPServerDisconnected):
                    client.noop()


async def _scenario(tmp_path: Path) -> None:
    """Each way to be connected when the server is left."""
    tls = AUTHORITY.server_context()
    for server in (
        ScriptedServer([split(b"220 hi\r\n"), stall()]),
        ScriptedServer([greeting(), stall()], implicit_tls=tls),
        ScriptedServer([greeting(), stall()], unix_path=tmp_path / "smtp.sock"),
    ):
        async with server:
            reader, writer = await _connect(server)
            assert await reader.readline() != b""
        await _close(writer)
    for step in (close(), drop(), reset(), starttls(tls)):
        async with ScriptedServer([greeting(), step]) as server, connected(server) as (reader, _):
            await reader.readline()
    async with ScriptedServer([greeting(), starttls(tls)]) as server:
        reader, writer = await _connect(server)
        await reader.readline()
        writer.write(b"\x16\x03\x01")
        await _until(lambda: len(server.received[0]) in (0, 3))
    await _close(writer)


def _loops() -> list[Callable[[], asyncio.AbstractEventLoop] | None]:
    try:
        import uvloop
    except ImportError:
        return [None]
    return [None, uvloop.new_event_loop]


@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
@pytest.mark.parametrize("factory", _loops(), ids=["asyncio", "uvloop"][: len(_loops())])
def test_no_task_socket_or_warning_is_left_behind(
    factory: Callable[[], asyncio.AbstractEventLoop] | None, debug: bool, tmp_path: Path
) -> None:
    async def scenario() -> None:
        await _scenario(tmp_path)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with asyncio.Runner(loop_factory=factory) as runner:  # uvloop keeps what its first loop opens
        runner.run(asyncio.sleep(0))
    gc.collect()
    before = len(os.listdir("/dev/fd"))
    with asyncio.Runner(loop_factory=factory, debug=debug) as runner:
        runner.run(scenario())
    gc.collect()
    assert len(os.listdir("/dev/fd")) == before


def test_scripts_need_nothing_installed() -> None:
    blocked = "import sys; sys.modules.update(aiosmtpd=None, trustme=None)"
    use = "from aiosmtpclient.testing import ScriptedServer; from aiosmtpclient.testing.scripted import say"
    subprocess.run([sys.executable, "-c", f"{blocked}\n{use}"], check=True, timeout=30)
