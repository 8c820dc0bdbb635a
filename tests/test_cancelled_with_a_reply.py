"""A cancellation that comes in the same turn of the loop as a reply which nobody then looks at.

What the reply meant for the connection, a response that is wanted now or a handshake, is then
known to nobody, so the connection must go: the next command would be taken for what the server
waits for. `trace` is called just when a reply comes, so it is there that these tests cancel.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from flight import begin, settled
from wire import NEXT, OK, SENDER, TO, bye, hello, mark, send, take, wait_for

from aiosmtpclient import AsyncSMTP
from aiosmtpclient.testing import ScriptedServer
from aiosmtpclient.testing.scripted import Step, greeting, read_all, read_exactly

pytestmark = pytest.mark.each_loop

AGAIN = [*hello(), *take(NEXT), *bye()]
Call = Callable[[AsyncSMTP], Coroutine[Any, Any, object]]


def cancelling(server: ScriptedServer, reply: bytes, **options: Any) -> tuple[AsyncSMTP, list[Any]]:
    """A client, and the task that is cancelled when this reply comes, once it is put there."""
    tasks: list[asyncio.Task[object]] = []

    def trace(event: str, octets: bytes) -> None:
        if tasks and event == "reply" and octets.startswith(reply):
            tasks.pop().cancel()

    return AsyncSMTP(server.host, server.port, trace=trace, **options), tasks


async def cancelled(tasks: list[Any], call: Coroutine[Any, Any, object]) -> None:
    task = asyncio.create_task(call)
    tasks.append(task)
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_connect_that_is_cancelled_with_the_greeting_leaves_no_socket_open() -> None:
    async with ScriptedServer([greeting(), read_all()], AGAIN) as server:
        smtp, tasks = cancelling(server, b"220")
        await cancelled(tasks, smtp.connect())
        await server.conversations[0].gone.wait()
        await smtp.connect()
        await send(smtp, NEXT)
        await smtp.quit()


async def _log_in(smtp: AsyncSMTP) -> object:
    return await smtp.login("me", "secret", mechanisms=["LOGIN"], initial_response_ok=False)


async def _start_tls(smtp: AsyncSMTP) -> object:
    return await smtp.starttls()


async def _mail(smtp: AsyncSMTP) -> object:
    return await smtp.mail(SENDER)


@pytest.mark.parametrize(
    ("offer", "reply", "script", "call"),
    [
        ("AUTH LOGIN", b"334", ["AUTH LOGIN", b"334 VXNlcm5hbWU6\r\n"], _log_in),
        ("AUTH LOGIN", b"235", ["AUTH LOGIN", b"235 welcome\r\n"], _log_in),
        ("STARTTLS", b"220", ["STARTTLS", b"220 go\r\n"], _start_tls),
        ("SIZE", b"250 2.1.0", ["MAIL", b"250 2.1.0 ok\r\n"], _mail),
    ],
    ids=["a challenge", "a login", "the word for TLS", "an envelope that was begun"],
)
async def test_what_is_sent_next_is_not_taken_for_what_the_server_waits_for(
    offer: str, reply: bytes, script: list[Step], call: Call
) -> None:
    async with ScriptedServer([*hello(offer), *script, read_all()], AGAIN) as server:
        smtp, tasks = cancelling(server, reply)
        await smtp.connect()
        await cancelled(tasks, call(smtp))
        assert not smtp.is_connected
        await server.conversations[0].gone.wait()
        await smtp.connect()
        await send(smtp, NEXT)
        await smtp.quit()
        assert NEXT.encode() not in server.received[0]


async def test_a_farewell_in_answer_to_a_message_that_was_given_up_closes_its_connection() -> None:
    """In a stream its replies are read by counting, and nobody but us is there to close."""
    reached, go = asyncio.Event(), asyncio.Event()
    body = b"Subject: hello\r\n\r\nHello.\r\n"
    script = [*begin(), "MAIL", "RCPT", "BDAT", read_exactly(len(body)), mark(reached), wait_for(go)]
    async with ScriptedServer([*script, OK, OK, b"421 4.3.2 bye\r\n", read_all()]) as server:
        smtp = AsyncSMTP(server.host, server.port, pipelining="stream", chunking="eager")
        await smtp.connect()
        task = asyncio.create_task(send(smtp, TO, body=body))
        await reached.wait()
        task.cancel()
        await settled()
        assert task.cancelled()
        go.set()
        await server.conversations[0].gone.wait()
