"""The wire with real sockets, on each loop: what the fake transport of `test_protocol` stands for."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from aiosmtpclient.content import InMemory
from aiosmtpclient.errors import SMTPProtocolError, SMTPServerDisconnected, SMTPTimeoutError
from aiosmtpclient.protocol import SMTPProtocol
from aiosmtpclient.replies import Reply
from aiosmtpclient.session import Session
from aiosmtpclient.steps import Phase, Step
from aiosmtpclient.testing import CertificateAuthority
from aiosmtpclient.timeouts import Timeouts

pytestmark = pytest.mark.each_loop

AUTHORITY = CertificateAuthority()
OK = b"250 ok\r\n"
SMALL = 16 * 1024
"""Octets of a socket's buffer, so that little hides in the kernel."""

Play = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def connected(play: Play, *, tls: bool = False, starttls: bool = False) -> AsyncIterator[SMTPProtocol]:
    """A protocol connected to a server that plays this; both are gone afterwards."""
    loop, over = asyncio.get_running_loop(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await play(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            over.set()

    listening = socket.create_server(("127.0.0.1", 0))
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
    certificate = AUTHORITY.server_context() if tls else None
    async with await asyncio.start_server(serve, sock=listening, ssl=certificate, limit=SMALL):
        address = listening.getsockname()
        sock = socket.create_connection(address)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
        sock.setblocking(False)
        session = Session("mail.test:25")
        transport, protocol = await loop.create_connection(
            lambda: SMTPProtocol(session, loop),
            sock=sock,
            ssl=AUTHORITY.client_context() if tls and not starttls else None,
            server_hostname="127.0.0.1" if tls and not starttls else None,
        )
        if starttls:
            context = AUTHORITY.client_context()
            inside = await loop.start_tls(transport, protocol, context, server_hostname="127.0.0.1")
            assert inside is not None
            protocol.upgrade(inside)
        try:
            yield protocol
        finally:
            protocol.abort()
            await protocol.closed
            await over.wait()


async def say(protocol: SMTPProtocol, step: Step) -> list[Reply]:
    waiter = protocol.send(step)
    assert waiter is not None
    return await waiter


async def greeted(protocol: SMTPProtocol) -> list[Reply]:
    return await say(protocol, protocol.session.greeting)


def command(verb: str = "NOOP", **options: object) -> Step:
    return Step(f"{verb}\r\n".encode(), verb, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("tls", [False, True], ids=["clear", "TLS"])
async def test_a_greeting_in_the_first_segment_is_not_lost(tls: bool) -> None:
    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hi\r\n")
        await reader.read()

    async with connected(play, tls=tls) as protocol:
        assert await greeted(protocol) == [Reply(220, b"hi")]
        assert protocol.session.reusable


@pytest.mark.parametrize("tls", [False, True], ids=["clear", "TLS"])
async def test_replies_find_their_futures_however_they_are_cut(tls: bool) -> None:
    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for octet in b"220 hi\r\n":
            writer.write(bytes([octet]))
            await writer.drain()
        assert await reader.readexactly(18) == b"MAIL\r\nRCPT\r\nDATA\r\n"
        writer.write(b"250 one\r\n250-t")
        await writer.drain()
        writer.write(b"wo\r\n250 \r\n354 three\r\n")
        await reader.read()

    async with connected(play, tls=tls) as protocol:
        await greeted(protocol)
        waiters = [protocol.send(command(verb)) for verb in ("MAIL", "RCPT", "DATA")]
        replies = [await waiter for waiter in waiters if waiter is not None]
        assert replies == [[Reply(250, b"one")], [Reply(250, b"two\n")], [Reply(354, b"three")]]


@pytest.mark.parametrize("tls", [False, True], ids=["clear", "TLS"])
async def test_a_server_that_hangs_up_fails_everything_that_is_owed(tls: bool) -> None:
    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hi\r\n")
        await reader.readline()
        writer.write(b"250 one\r\n")

    async with connected(play, tls=tls) as protocol:
        await greeted(protocol)
        first, second = protocol.send(command("MAIL")), protocol.send(command("RCPT"))
        assert first is not None
        assert second is not None
        assert await first == [Reply(250, b"one")]
        with pytest.raises(SMTPServerDisconnected) as caught:
            await second
        assert caught.value.last_reply == Reply(250, b"one")
        await protocol.closed
        with pytest.raises(SMTPServerDisconnected):
            protocol.send(command())


async def test_a_reset_fails_everything_that_is_owed() -> None:
    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hi\r\n")
        await reader.readline()
        writer.transport.abort()  # what was sent and not read makes it a reset

    async with connected(play) as protocol:
        await greeted(protocol)
        with pytest.raises(SMTPServerDisconnected):
            await say(protocol, command("MAIL"))
        with pytest.raises(SMTPServerDisconnected):
            protocol.check()


async def test_garbage_drops_the_connection() -> None:
    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hi\r\n")
        await reader.readline()
        writer.write(b"what?\r\n")
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""  # it was dropped, though nothing was said

    async with connected(play) as protocol:
        await greeted(protocol)
        with pytest.raises(SMTPProtocolError):
            await say(protocol, command("MAIL"))
        await protocol.closed


async def test_a_server_that_says_nothing_is_left_in_time() -> None:
    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with connected(play) as protocol:
        loop = asyncio.get_running_loop()
        started = loop.time()
        protocol.timeouts = Timeouts.of(0.1)
        with pytest.raises(SMTPTimeoutError, match=r"longer than 0\.1 s \(greeting\)"):
            await greeted(protocol)
        assert 0.09 <= loop.time() - started < 5
        await protocol.closed


async def test_what_was_written_leaves_before_a_close() -> None:
    read = []

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hi\r\n")
        read.append(await reader.read())

    async with connected(play) as protocol:
        await greeted(protocol)
        protocol.send(command("QUIT"))
        protocol.close()
        await protocol.closed
    assert read == [b"QUIT\r\n"]


async def test_nothing_leaves_behind_an_abort() -> None:
    read = []

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hi\r\n")
        with contextlib.suppress(ConnectionError):
            read.append(await reader.read())

    async with connected(play) as protocol:
        await greeted(protocol)
        protocol.abort()
        with pytest.raises(SMTPServerDisconnected):
            protocol.send(command("MAIL"))
        await protocol.closed
    assert read in ([], [b""])


# Flow control


async def fill(protocol: SMTPProtocol) -> int:
    """Write content until the transport says stop; returns how much that was."""
    wrote = 0
    while not protocol._paused:
        protocol.write(b"x" * SMALL)
        wrote += SMALL
        await asyncio.sleep(0)
    return wrote


@pytest.mark.parametrize("security", ["clear", "TLS", "STARTTLS"])
async def test_a_slow_reader_holds_the_writer_up_and_memory_stays_bounded(security: str) -> None:
    go_on, expected = asyncio.Event(), asyncio.get_running_loop().create_future()

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hi\r\n")
        await go_on.wait()
        await reader.readexactly(await expected)
        writer.write(OK)
        await reader.read()

    if security == "STARTTLS":
        play = after_starttls(play)
    async with connected(play, tls=security == "TLS", starttls=security == "STARTTLS") as protocol:
        await greeted(protocol)
        step = Step(b"", "end of content", content=InMemory.of(b"x"), during=Phase.CONTENT)
        waiter = protocol.send(step)
        wrote = await fill(protocol)
        assert protocol._buffered() < 4 * 64 * 1024
        drain = asyncio.create_task(protocol.drain(step))
        await asyncio.sleep(0)
        assert not drain.done()
        expected.set_result(wrote)
        go_on.set()
        await drain
        assert waiter is not None
        assert await waiter == [Reply(250, b"ok")]


@pytest.mark.parametrize("security", ["clear", "TLS", "STARTTLS"])
async def test_progress_shows_before_much_has_left_or_a_slow_upload_would_time_out(security: str) -> None:
    more: asyncio.Queue[int] = asyncio.Queue()
    read = asyncio.Semaphore(0)

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hi\r\n")
        while octets := await more.get():
            await reader.readexactly(octets)
            read.release()
        writer.transport.abort()  # the rest is not read, and no close_notify is waited for

    if security == "STARTTLS":
        play = after_starttls(play)
    async with connected(play, tls=security == "TLS", starttls=security == "STARTTLS") as protocol:
        await greeted(protocol)
        await fill(protocol)
        before, took = protocol._unwritten, 0
        assert before > 0
        while protocol._buffered() >= before and protocol._paused:
            more.put_nowait(SMALL // 4)
            await read.acquire()
            took += SMALL // 4
            assert took < 400 * 1024, "much has left, and none of it shows"
        more.put_nowait(0)


def after_starttls(play: Play) -> Play:
    """The same, behind a handshake on a connection that began in clear."""

    async def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await writer.start_tls(AUTHORITY.server_context())
        await play(reader, writer)

    return begin


async def test_a_server_that_refuses_in_the_middle_of_the_content_is_heard_though_it_reads_nothing() -> None:
    full = asyncio.Event()

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hi\r\n")
        await full.wait()
        writer.write(b"552 too much\r\n")
        await full.wait()

    async with connected(play) as protocol:
        await greeted(protocol)
        step = Step(b"", "end of content", content=InMemory.of(b"x"), during=Phase.CONTENT)
        protocol.send(step)
        await fill(protocol)
        full.set()
        with contextlib.suppress(SMTPServerDisconnected):
            await protocol.drain(step)
        assert step.received == [Reply(552, b"too much")]
        assert not protocol.session.reusable
