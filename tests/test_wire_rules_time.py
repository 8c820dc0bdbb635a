"""The wire rules: time. Seconds are short here, and what is compared has room."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from wire import (
    GO,
    LONG,
    NEXT,
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
    take,
    wait_for,
)

from aiosmtpclient import AsyncSMTP, Delivery, SMTPTimeoutError, Timeouts
from aiosmtpclient.testing import CertificateAuthority, Conversation, MailServer, ScriptedServer
from aiosmtpclient.testing.scripted import expect_content, greeting, read_all, read_exactly, stall

LINE = b"x" * 998 + b"\r\n"
BIG = LINE * (24 * 1024 * 1024 // len(LINE))
NEXT_CONNECTION = [*hello(), *take(NEXT), *bye()]
PROMPT = 0.05
"""Seconds in which a cancelled call returns; measured generously, for machines are shared."""


def now() -> float:
    return asyncio.get_running_loop().time()


# -- defaults --------------------------------------------------------------------------------


def test_the_defaults_are_those_of_the_rfc():
    """Connect 30 s, each reply 60 s, each slice 60 s, the last reply 600 s; a number sets all of them."""
    assert Timeouts() == Timeouts(connect=30, reply=60, write=60, final=600)
    assert AsyncSMTP("mail.test").timeout == Timeouts()
    assert AsyncSMTP("mail.test", timeout=7).timeout == Timeouts(7, 7, 7, 7)
    assert AsyncSMTP("mail.test", timeout=None).timeout == Timeouts(None, None, None, None)


@pytest.mark.parametrize("bad", [0, -1, Timeouts])
def test_a_timeout_of_nothing_is_a_valueerror(bad):
    """As in smtplib: 0 is no timeout."""
    with pytest.raises((ValueError, TypeError)):
        AsyncSMTP("mail.test", timeout=bad)


# -- each wait has its own clock -------------------------------------------------------------

IN_VAIN = {
    "greeting": ([], Timeouts(reply=SHORT)),
    "EHLO": ([greeting(), "EHLO"], Timeouts(reply=SHORT)),
    "MAIL": ([*hello(), "MAIL"], Timeouts(reply=SHORT)),
    "RCPT": ([*hello(), "MAIL", OK, "RCPT"], Timeouts(reply=SHORT)),
    "DATA": ([*hello(), *envelope(TO), "DATA"], Timeouts(reply=SHORT)),
    "end of content": ([*hello(), *envelope(TO), "DATA", GO, expect_content()], Timeouts(final=SHORT)),
}


@each_loop
@pytest.mark.parametrize("phase", IN_VAIN)
async def test_each_wait_ends_by_its_own_deadline_and_says_which(phase):
    """The clock that fires is the one of that phase; the error names it."""
    script, timeouts = IN_VAIN[phase]
    async with ScriptedServer([*script, stall()]) as server:
        smtp = AsyncSMTP(server.host, server.port, timeout=timeouts)
        started = now()

        async def all_of_it() -> None:
            await smtp.connect()
            await send(smtp)

        error = await caught(all_of_it())
        assert isinstance(error, SMTPTimeoutError)
        assert isinstance(error, TimeoutError)
        assert error.phase == phase
        assert error.temporary
        assert SHORT * 0.9 <= now() - started < SHORT * 10
        assert not smtp.is_connected


@each_loop
async def test_leaving_waits_for_quit_no_longer_than_for_any_other_reply():
    """`timeout=` holds for QUIT as well: leaving the block once took five seconds whatever it said."""
    async with ScriptedServer([*hello(), "QUIT", stall()]) as server:
        async with AsyncSMTP(server.host, server.port, timeout=SHORT):
            started = now()
        assert now() - started < SHORT * 20


@each_loop
async def test_a_connection_nobody_accepts_ends_by_the_connect_deadline(monkeypatch):
    """Connect has its own clock."""

    async def nobody(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(type(asyncio.get_running_loop()), "create_connection", nobody)
    smtp = AsyncSMTP("127.0.0.1", 2525, timeout=Timeouts(connect=SHORT))
    error = await caught(smtp.connect())
    assert isinstance(error, SMTPTimeoutError)
    assert error.phase == "connect"
    assert "timeout" in str(error)


@each_loop
async def test_each_reply_of_a_group_has_its_own_time():
    """Each reply: a server that takes its time for each recipient is not too slow as a whole."""
    replies = 8

    async def slowly(conversation: Conversation) -> None:
        for _ in range(replies):
            await asyncio.sleep(SHORT / 2)
            await conversation.say(OK)

    recipients = [f"r{number}@to.test" for number in range(replies - 1)]
    script = [*hello("PIPELINING"), slowly, GO, *[""] * (replies + 1), expect_content(), OK, *bye()]
    async with ScriptedServer(script) as server:
        async with AsyncSMTP(server.host, server.port, timeout=Timeouts(reply=SHORT)) as smtp:
            started = now()
            assert len((await send(smtp, *recipients)).accepted) == replies - 1
            assert now() - started > SHORT * 3


# -- content ---------------------------------------------------------------------------------


async def slowly_read(conversation: Conversation, octets: int, seconds: float) -> None:
    """Read that much over that time, a piece now and then."""
    pieces = 20
    for _ in range(pieces):
        await asyncio.sleep(seconds / pieces)
        await conversation.read_exactly(octets // pieces)


@pytest.mark.parametrize("tls", [False, True], ids=["clear", "TLS"])
async def test_an_upload_that_makes_progress_never_times_out(tls):
    """Each slice has its time *since the last progress*, so a slow link is not a dead one."""
    script = [
        *hello(),
        *envelope(TO),
        *("DATA", GO),
        lambda conversation: slowly_read(conversation, len(BIG) - len(BIG) % 20, SHORT * 6),
        *(expect_content(), OK, *bye()),
    ]
    authority = CertificateAuthority()
    context = authority.server_context() if tls else None
    options = {"tls": "implicit", "tls_context": authority.client_context()} if tls else {}
    async with ScriptedServer(script, implicit_tls=context) as server:
        smtp = AsyncSMTP(server.host, server.port, timeout=Timeouts(write=SHORT * 2, final=LONG), **options)
        async with smtp:
            started = now()
            assert (await send(smtp, body=BIG)).accepted == (TO,)
            assert now() - started > SHORT * 4


@each_loop
async def test_a_slice_that_leaves_octet_by_octet_never_times_out():
    """Progress is what the kernel takes: with small buffers a slice takes longer than its time."""
    loop = asyncio.get_running_loop()
    taken = bytearray()

    async def serve(listener: socket.socket) -> None:
        connection, _ = await loop.sock_accept(listener)
        with connection:
            for reply in (b"220 hi\r\n", b"250 hi\r\n", OK, OK, GO):
                await loop.sock_sendall(connection, reply)
                await loop.sock_recv(connection, 4096)
            while not taken.endswith(b"\r\n.\r\n"):
                await asyncio.sleep(SHORT / 10)
                taken.extend(await loop.sock_recv(connection, 4096))
            await loop.sock_sendall(connection, OK)
            await loop.sock_recv(connection, 4096)

    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as ours:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        listener.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        ours.connect(listener.getsockname())
        serving = asyncio.create_task(serve(listener))
        timeouts = Timeouts(write=SHORT, final=LONG)
        async with AsyncSMTP(sock=ours, timeout=timeouts, local_hostname="me.example") as smtp:
            assert (await send(smtp, body=BIG[: 256 * 1024])).accepted == (TO,)
        await serving


@each_loop
async def test_a_server_that_stops_reading_is_a_timeout_of_the_content():
    """Nothing leaves any more: the write clock fires, the end was not written: NOT_SENT."""
    script = [*hello(), *envelope(TO), "DATA", GO, read_exactly(100_000), stall()]
    async with ScriptedServer(script, NEXT_CONNECTION) as server:
        smtp = AsyncSMTP(server.host, server.port, timeout=Timeouts(write=SHORT))
        await smtp.connect()
        error = await caught(send(smtp, body=BIG))
        assert isinstance(error, SMTPTimeoutError)
        assert (error.phase, error.delivery) == ("content", Delivery.NOT_SENT)
        await smtp.connect()
        assert (await send(smtp, NEXT)).accepted == (NEXT,)
        await smtp.quit()


@each_loop
async def test_the_final_clock_starts_when_the_last_octet_was_handed_over():
    """A body that takes longer than the final deadline to be made does not use that deadline up."""

    async def body() -> AsyncIterator[bytes]:
        for _ in range(6):
            await asyncio.sleep(SHORT / 2)
            yield LINE

    async def slowly(_: Conversation) -> None:
        await asyncio.sleep(SHORT / 2)

    script = [*hello(), *envelope(TO), "DATA", GO, expect_content(), slowly, OK, *bye()]
    timeouts = Timeouts(reply=SHORT, write=SHORT, final=SHORT)
    async with ScriptedServer(script) as server:
        async with AsyncSMTP(server.host, server.port, timeout=timeouts) as smtp:
            assert (await smtp.sendmail(SENDER, TO, body())).accepted == (TO,)


@each_loop
async def test_what_the_callers_body_takes_is_the_callers_time():
    """No clock runs while the caller's own iterator is awaited."""

    async def body() -> AsyncIterator[bytes]:
        yield LINE
        yield LINE
        await asyncio.sleep(SHORT * 3)
        yield LINE

    async with MailServer() as server:
        async with AsyncSMTP(server.host, server.port, timeout=SHORT) as smtp:
            assert (await smtp.sendmail(SENDER, TO, body())).accepted == (TO,)


async def test_a_body_that_never_waits_does_not_stall_the_loop():
    """A synchronous iterable, however long, leaves the loop its turns."""
    turns = 0
    over = False

    def turn() -> None:
        nonlocal turns
        turns += 1
        if not over:
            asyncio.get_running_loop().call_soon(turn)

    def body() -> Iterator[bytes]:
        for _ in range(16):
            yield LINE * 1_000  # about a megabyte

    with MailServer() as server:  # in a thread: it takes what comes as fast as it comes
        async with AsyncSMTP(server.host, server.port) as smtp:
            await smtp.noop()
            before = turns
            turn()
            task = asyncio.create_task(smtp.sendmail(SENDER, TO, body()))
            await task
            over = True
            assert turns - before > 16
        assert len(server.messages[0].content) == 16 * 1_000 * len(LINE)


async def test_a_body_of_many_small_pieces_leaves_in_few_writes():
    """A synchronous iterable of lines is gathered: a system call a line would take for ever."""
    writes = []
    async with MailServer() as server:
        async with AsyncSMTP(server.host, server.port, trace=lambda event, _: writes.append(event)) as smtp:
            await smtp.sendmail(SENDER, TO, (LINE for _ in range(10_000)))
        assert server.messages[0].content == LINE * 10_000
    assert writes.count("content") < 500


# -- cancelling ------------------------------------------------------------------------------


async def assert_cancels_promptly(awaitable, reached: asyncio.Event) -> BaseException:
    task = asyncio.create_task(caught(awaitable))
    await reached.wait()
    started = now()
    task.cancel()
    error = await task
    assert now() - started < PROMPT * 4
    assert isinstance(error, asyncio.CancelledError)
    return error


@each_loop
@pytest.mark.parametrize("phase", IN_VAIN)
async def test_cancelling_returns_at_once_in_every_phase(phase):
    """Cancelling returns within 50 ms."""
    reached = asyncio.Event()
    async with ScriptedServer([*IN_VAIN[phase][0], mark(reached), stall()]) as server:
        smtp = AsyncSMTP(server.host, server.port)

        async def all_of_it() -> None:
            await smtp.connect()
            await send(smtp)

        await assert_cancels_promptly(all_of_it(), reached)
        assert not smtp.is_connected


@each_loop
async def test_cancelling_a_big_upload_returns_at_once():
    """Cancelled while the server does not read."""
    reached = asyncio.Event()
    script = [*hello(), *envelope(TO), "DATA", GO, read_exactly(100_000), mark(reached), stall()]
    async with ScriptedServer(script) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        error = await assert_cancels_promptly(send(smtp, body=BIG), reached)
        assert error.delivery is Delivery.NOT_SENT


@each_loop
async def test_cancelling_a_quit_returns_at_once():
    """Also on the way out of `async with`."""
    reached = asyncio.Event()
    async with ScriptedServer([*hello(), "QUIT", mark(reached), stall()]) as server:

        async def block() -> None:
            async with AsyncSMTP(server.host, server.port):
                pass

        await assert_cancels_promptly(block(), reached)


@each_loop
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
async def test_cancelling_while_a_file_is_read_does_not_wait_for_the_disk(tmp_path: Path):
    """A read that hangs in its thread (a pipe, a dead file server) does not hold the loop."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = os.open(pipe, os.O_RDWR)
    try:
        reached = asyncio.Event()
        async with ScriptedServer([*hello(), *envelope(TO), "DATA", GO, mark(reached), read_all()]) as server:
            smtp = AsyncSMTP(server.host, server.port)
            await smtp.connect()
            error = await assert_cancels_promptly(smtp.sendmail(SENDER, TO, pipe), reached)
            assert error.delivery is Delivery.NOT_SENT
    finally:
        os.write(writer, b"x")
        os.close(writer)


@each_loop
async def test_leaving_a_block_that_was_cancelled_asks_nobody():
    """A cancelled body of `async with`: dropped, without a QUIT that somebody would have to answer."""
    entered = asyncio.Event()
    async with ScriptedServer([*hello(), read_all()]) as server:

        async def block() -> None:
            async with AsyncSMTP(server.host, server.port):
                entered.set()
                await asyncio.Event().wait()

        await assert_cancels_promptly(block(), entered)
        await server.conversations[0].gone.wait()
        assert b"QUIT" not in server.received[0]


@each_loop
async def test_a_callers_deadline_works_and_says_what_is_known():
    """`asyncio.timeout` around a send: TimeoutError at once, with the account in its cause."""
    async with ScriptedServer([*hello(), *envelope(TO), "DATA", GO, expect_content(), stall()]) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        with pytest.raises(TimeoutError) as caught_error:
            async with asyncio.timeout(SHORT):
                await send(smtp)
        assert not isinstance(caught_error.value, SMTPTimeoutError)
        assert caught_error.value.__cause__.delivery is Delivery.UNKNOWN


# -- no DNS for our own name -----------------------------------------------------------------


@each_loop
@pytest.mark.parametrize("name", ["box", "box.example.org", "localhost", "under_score.example.org", "", "-"])
async def test_our_own_name_is_never_looked_up(name, monkeypatch):
    """EHLO's name needs no blocking DNS: never stall the loop for it."""

    def never(*_: object) -> str:
        raise AssertionError("a look-up")

    for function in ("getfqdn", "gethostbyname", "gethostbyname_ex", "gethostbyaddr", "getnameinfo"):
        monkeypatch.setattr(socket, function, never)
    asked = []
    look_up = socket.getaddrinfo

    def getaddrinfo(host, *rest, **options):
        asked.append(host)
        return look_up(host, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(socket, "gethostname", lambda: name)
    async with MailServer() as server:
        smtp = AsyncSMTP(server.host, server.port)
        assert smtp.local_hostname
        async with smtp:
            expected = "box.example.org" if name == "box.example.org" else "[127.0.0.1]"
            assert smtp.local_hostname == expected
            await send(smtp)
        assert server.messages[0].helo == expected
    assert name not in asked or not name


async def test_over_ipv6_our_own_address_says_so(monkeypatch):
    """RFC 5321 section 4.1.3: an address literal of IPv6 has a tag."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("no IPv6 here")
    monkeypatch.setattr(socket, "gethostname", lambda: "box")
    async with MailServer(host="::1") as server:
        async with AsyncSMTP("::1", server.port) as smtp:
            await send(smtp)
        assert server.messages[0].helo == "[IPv6:::1]"


@each_loop
async def test_no_timeout_means_no_clock():
    """None waits for ever."""
    answer, reached = asyncio.Event(), asyncio.Event()
    script = [
        *hello(),
        *envelope(TO),
        "DATA",
        GO,
        expect_content(),
        mark(reached),
        wait_for(answer),
        OK,
        *bye(),
    ]
    async with ScriptedServer(script) as server:
        async with AsyncSMTP(server.host, server.port, timeout=None) as smtp:
            task = asyncio.create_task(send(smtp))
            await reached.wait()
            assert smtp._connection.protocol._timer is None
            answer.set()
            assert (await task).accepted == (TO,)


@each_loop
async def test_a_timer_does_not_outlive_its_connection():
    """The timer goes with the connection: ten minutes are a long time to hold a socket's memory."""
    async with ScriptedServer([*hello(), *take(TO), *bye()]) as server:
        smtp = AsyncSMTP(server.host, server.port, timeout=LONG)
        await smtp.connect()
        await send(smtp)
        connection = smtp._connection
        await smtp.quit()
        assert connection.protocol._timer is None
