"""What is outstanding is bounded, and nobody waits for each other: slow servers, late ones, talkative ones.

The servers here are spoken to through a Unix socket, whose buffers are small: what they do not
read soon stays with the client.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from modes import IN_A_STREAM, MODES, each_mode, each_protocol, nothing_is_known  # noqa: F401
from slow import Taker, late, slow
from wire import BODY, SENDER, TO, both_loops

from aiosmtpclient import AsyncLMTP, AsyncSMTP, Delivery, Envelope
from aiosmtpclient.protocol import HIGH_WATER
from aiosmtpclient.testing import ScriptedServer

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets")

MANY = 50_000
ALLOWED = HIGH_WATER + 192 * 1024
"""Octets that may wait in the transport: up to its own limit, and what a write or two add to that."""
LONG_REPLY = (
    b"".join(b"250-%d a server with much to say\r\n" % number for number in range(15)) + b"250 ok\r\n"
)


def people(count: int) -> list[str]:
    return [f"{number}@to.test" for number in range(count)]


class Watched:
    """A client, and the most that ever waited in its transport."""

    def __init__(self, smtp: AsyncSMTP) -> None:
        self.smtp = smtp
        self.most = 0

    async def watch(self) -> None:
        """Look in every turn of the loop."""
        while True:
            connection = self.smtp._connection
            if connection is not None and connection.protocol.transport is not None:
                self.most = max(self.most, connection.protocol.transport.get_write_buffer_size())
            await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def watched(server: ScriptedServer, mode: str, *, lmtp: bool = False) -> AsyncIterator[Watched]:
    """A client in this mode, on the server's Unix socket, under observation."""
    kind: Any = AsyncLMTP if lmtp else AsyncSMTP
    async with kind(server.host, **MODES[mode]) as smtp:
        seen = Watched(smtp)
        watching = asyncio.create_task(seen.watch())
        try:
            yield seen
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
    assert seen.most <= ALLOWED


@each_protocol
@pytest.mark.parametrize("mode", ["message", "one write", *IN_A_STREAM])
async def test_fifty_thousand_recipients_of_a_server_that_answers_late(mode, lmtp, tmp_path: Path):
    """It reads nothing before we have stopped writing: then we must have stopped to listen."""
    taker = Taker(lmtp=lmtp)
    async with ScriptedServer(late(taker), unix_path=tmp_path / "s") as server:
        async with watched(server, mode, lmtp=lmtp) as seen:
            result = await seen.smtp.sendmail(SENDER, people(MANY), BODY)

            assert len(result.accepted) == MANY
    assert (taker.recipients, taker.messages) == (MANY, 1)


@pytest.mark.parametrize("mode", ["message", "one write", *IN_A_STREAM])
async def test_a_server_that_reads_slowly_and_says_much_all_the_while(mode, tmp_path: Path):
    """Its replies are read while we write, or neither side could go on."""
    taker = Taker(LONG_REPLY)
    async with ScriptedServer(slow(taker, 500), unix_path=tmp_path / "s") as server:
        async with watched(server, mode) as seen:
            result = await seen.smtp.sendmail(SENDER, people(20_000), BODY)

            assert len(result.accepted) == 20_000
    assert taker.recipients == 20_000


@both_loops
@each_protocol
@each_mode
@pytest.mark.parametrize("content", ["in memory", "iterator", "asynchronous"])
async def test_large_content_to_a_server_that_reads_late(content, mode, lmtp, tmp_path: Path):
    """What it does not take stays where it is, not in the transport."""
    taker, slices = Taker(lmtp=lmtp), [b"." * 50_000 + b"\r\n"] * 80
    body: Any = {"in memory": b"".join(slices), "iterator": iter(slices)}.get(content) or _awaited(slices)
    async with ScriptedServer(late(taker), unix_path=tmp_path / "s") as server:
        async with watched(server, mode, lmtp=lmtp) as seen:
            assert (await seen.smtp.sendmail(SENDER, TO, body)).accepted == (TO,)
            assert seen.most > 0
    assert taker.messages == 1


@both_loops
@pytest.mark.parametrize("mode", IN_A_STREAM)
@pytest.mark.parametrize("script", [late, lambda taker: slow(taker, 5000)], ids=["late", "slow"])
async def test_many_tasks_in_a_stream_do_not_pile_up_in_the_transport(script, mode, tmp_path: Path):
    """Each message leaves in one write, and yet they do not all leave at once."""
    taker, body = Taker(LONG_REPLY), b"x" * 60_000 + b"\r\n"
    async with ScriptedServer(script(taker), unix_path=tmp_path / "s") as server:
        async with watched(server, mode) as seen:
            results = await asyncio.gather(
                *[seen.smtp.sendmail(SENDER, people(20), body) for _ in range(150)]
            )

            assert {len(result.accepted) for result in results} == {20}
    assert (taker.messages, taker.recipients) == (150, 3000)


@both_loops
@each_protocol
@pytest.mark.parametrize("mode", IN_A_STREAM)
async def test_tasks_with_many_recipients_each(mode, lmtp, tmp_path: Path):
    """Groups of a thousand commands in a stream: what waits for replies does not stop the replies."""
    taker = Taker(LONG_REPLY, lmtp=lmtp)
    async with ScriptedServer(late(taker), unix_path=tmp_path / "s") as server:
        async with watched(server, mode, lmtp=lmtp) as seen:
            results = await asyncio.gather(
                *[seen.smtp.sendmail(SENDER, people(700), BODY) for _ in range(20)]
            )

            assert {len(result.accepted) for result in results} == {700}
    assert (taker.messages, taker.recipients) == (20, 14_000)


@both_loops
@pytest.mark.parametrize("mode", IN_A_STREAM)
async def test_a_window_of_many_messages_to_a_late_server(mode, tmp_path: Path):
    """send_messages takes no more from its iterable than it can have under way."""
    taken = 0

    def envelopes():
        nonlocal taken
        for taken in range(1, 301):  # noqa: B007  # read by the test
            yield Envelope(SENDER, people(3), b"x" * 30_000)

    taker = Taker()
    async with ScriptedServer(late(taker), unix_path=tmp_path / "s") as server:
        async with watched(server, mode) as seen:
            done = 0
            async for outcome in seen.smtp.send_messages(envelopes()):
                assert outcome.delivery is Delivery.ACCEPTED
                done += 1
                assert taken - done <= 64
    assert (taker.messages, done) == (300, 300)


async def _awaited(slices: list[bytes]) -> AsyncIterator[bytes]:
    for octets in slices:
        yield octets
        await asyncio.sleep(0)
