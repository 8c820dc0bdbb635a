"""What the tests of the wire rules share: pieces of scripts, faults, and whoever suffers them."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Coroutine, Iterable
from typing import Any

import pytest

from aiosmtpclient import AsyncSMTP, Delivery, SendResult
from aiosmtpclient.testing import Conversation
from aiosmtpclient.testing.scripted import (
    Action,
    Step,
    close,
    ehlo,
    expect_content,
    greeting,
    read_all,
    reset,
    stall,
)

each_loop = pytest.mark.each_loop
both_loops = pytest.mark.both_loops

SENDER = "sender@from.test"
TO = "first@to.test"
TOO = "second@to.test"
NEXT = "next@to.test"
BODY = b"Subject: hello\r\n\r\nHello.\r\n"
GO = b"354 go\r\n"
OK = b"250 ok\r\n"
SHORT = 0.15
"""Seconds that a client waits in tests in which the server never answers."""
LONG = 20.0
"""Seconds that nothing here should ever take."""


def hello(*extensions: str, verb: str = "EHLO") -> list[Step]:
    """Greeting and EHLO."""
    return [greeting(), ehlo(*extensions, verb=verb)]


def envelope(*recipients: str, sender: str = SENDER) -> list[Step]:
    """MAIL and each RCPT, accepted."""
    steps: list[Step] = [f"MAIL FROM:<{sender}>", b"250 2.1.0 ok\r\n"]
    for recipient in recipients:
        steps += [f"RCPT TO:<{recipient}>", b"250 2.1.5 ok\r\n"]
    return steps


def take(*recipients: str, sender: str = SENDER, reply: bytes = b"250 2.0.0 queued as 1\r\n") -> list[Step]:
    """A whole message, accepted."""
    return [*envelope(*recipients, sender=sender), "DATA", GO, expect_content(), reply]


def bye() -> list[Step]:
    """QUIT and its answer."""
    return ["QUIT", b"221 bye\r\n"]


def mark(event: asyncio.Event) -> Action:
    """A step that says that the script came this far."""

    async def step(_: Conversation) -> None:
        event.set()

    return step


def wait_for(event: asyncio.Event) -> Action:
    """A step that waits until the test says so."""

    async def step(_: Conversation) -> None:
        await event.wait()

    return step


FAULTS = ("close", "reset", "timeout", "cancel", "garbage", "half line")
"""What may happen in place of an answer."""


def fault(kind: str, reached: asyncio.Event, over: asyncio.Event | None = None) -> list[Step]:
    """The server's part in a fault.

    A server that does not read does not see that its client went away either: with `over` it
    reads on, as soon as that is set, and so takes what was already on its way.
    """
    hang: list[Step] = [stall()] if over is None else [wait_for(over), read_all()]
    steps: dict[str, list[Step]] = {
        "close": [close()],
        "reset": [reset()],
        "timeout": hang,
        "cancel": [mark(reached), *hang],
        "garbage": [b"what?\r\n", *hang],
        "half line": [b"25", close()],
    }
    return steps[kind]


def patience(kind: str) -> float:
    """How long the client waits: only where it waits in vain is the time short."""
    return SHORT if kind == "timeout" else LONG


async def caught(awaitable: Coroutine[Any, Any, object]) -> BaseException:
    """The error that this ends with; the very object, which a cancelled task would not give."""
    try:
        result = await awaitable
    except BaseException as error:
        return error
    raise AssertionError(f"no error, but {result!r}")


async def suffer(awaitable: Coroutine[Any, Any, object], kind: str, reached: asyncio.Event) -> BaseException:
    """Await this until it fails; if the fault is a cancellation, cancel it when the script says so."""
    task = asyncio.create_task(caught(awaitable))
    if kind == "cancel":
        await reached.wait()
        started = asyncio.get_running_loop().time()
        task.cancel()
        error = await task
        assert asyncio.get_running_loop().time() - started < 0.5, "a cancellation waited for the server"
        return error
    return await task


def deliveries(source: object) -> list[Delivery]:
    """What is known about each recipient, by position."""
    return [outcome.delivery for outcome in source.outcomes]  # type: ignore[attr-defined]


async def send(smtp: AsyncSMTP, *recipients: str, body: bytes = BODY) -> SendResult:
    """Send the usual message."""
    return await smtp.sendmail(SENDER, recipients or (TO,), body)


def said(octets: bytes) -> list[bytes]:
    """The lines that a client wrote."""
    return octets.split(b"\r\n")[:-1]


def verbs(octets: bytes) -> list[str]:
    """The first words of the lines that a client wrote (content must not be among them)."""
    return [line.split(b" ")[0].decode() for line in said(octets)]


def every(*groups: Iterable[Step]) -> list[Step]:
    """One script out of several."""
    return [step for group in groups for step in group]


def press_ctrl_c(_: Conversation) -> asyncio.Future[None]:
    """A step of a script: the client's user loses patience."""
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    return asyncio.sleep(0)  # type: ignore[return-value]


class Left:
    """A step of a script: wait until the client closes, which says nothing more, and tell the test so.

    Args:
        whatever: it may say more.
    """

    def __init__(self, *, whatever: bool = False) -> None:
        self._event = threading.Event()
        self._whatever = whatever

    async def __call__(self, conversation: Conversation) -> None:
        await (conversation.read_all() if self._whatever else conversation.expect_eof())
        self._event.set()

    def wait(self) -> bool:
        return self._event.wait(10)
