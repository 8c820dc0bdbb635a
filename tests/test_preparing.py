"""Preparing: what is large is prepared beside the loop, what is small at once, and nothing is lost."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Callable
from email.header import Header
from email.message import EmailMessage, Message
from email.mime.multipart import MIMEMultipart
from pathlib import Path

import pytest
from letters import legacy, modern, parsed, paths

from aiosmtpclient.message import Body, Prepared, prepare, prepare_message
from aiosmtpclient.preparing import LIGHT, is_light, prepared


def with_attachment(size: int) -> EmailMessage:
    message = modern()
    message.add_attachment(b"\xff" * size, maintype="application", subtype="octet-stream")
    return message


def with_parts(count: int) -> Message:
    message = MIMEMultipart()
    for _ in range(count):
        message.attach(legacy(("X-Short", "yes")))
    return message


def looping() -> Message:
    message = MIMEMultipart()
    message.attach(message)
    return message


def wrapped(message: Message) -> Message:
    outer = modern()
    outer.add_attachment(message)
    return outer


LARGE: list[Body] = [
    b"x" * (LIGHT + 1),
    bytearray(LIGHT + 1),
    memoryview(bytearray(LIGHT + 1)),
    memoryview(bytearray(LIGHT + 8)).cast("Q"),
    "x" * (LIGHT + 1),
    with_attachment(LIGHT),
    wrapped(with_attachment(LIGHT)),
    parsed(b"Subject: x\n\n" + b"x" * LIGHT),
    with_parts(1000),
    modern(To=", ".join(f"user{number}@example.org" for number in range(200))),
    modern(To=", ".join(f"Jörg {number} <j{number}@example.org>" for number in range(20))),
    legacy(*((f"X-{number}", Header("Grüße", "utf-8")) for number in range(40))),
    looping(),
]
SMALL: list[Body] = [
    b"x" * LIGHT,
    bytearray(LIGHT),
    memoryview(bytearray(LIGHT)),
    "x" * LIGHT,
    modern(),
    modern(To="a@example.org, b@example.org", Subject="Grüße"),
    modern(To=", ".join(f"user{number}@example.org" for number in range(50))),
    with_attachment(LIGHT // 2),
    with_parts(100),
    legacy(("Subject", Header("Grüße", "utf-8"))),
    Message(),
    Path("/no/such/file/anywhere"),
    io.BytesIO(b"x" * (LIGHT + 1)),
    [b"x" * (LIGHT + 1)],
]


@pytest.mark.parametrize("content", LARGE, ids=lambda content: type(content).__name__)
async def test_what_is_large_is_prepared_in_a_thread(content: Body) -> None:
    assert not is_light(content)
    threads = []

    def make(eightbitmime: bool, smtputf8: bool) -> Prepared:
        threads.append(threading.get_ident())
        return prepare("a@x", "b@y", b"", eightbitmime=eightbitmime, smtputf8=smtputf8)

    await prepared(make, content, eightbitmime=True, smtputf8=True)
    assert len(threads) == 1
    assert threading.get_ident() not in threads


@pytest.mark.parametrize("content", SMALL, ids=lambda content: type(content).__name__)
async def test_what_is_small_or_read_later_is_prepared_at_once(content: Body) -> None:
    assert is_light(content)
    threads = []

    def make(eightbitmime: bool, smtputf8: bool) -> Prepared:
        threads.append(threading.get_ident())
        return prepare("a@x", "b@y", b"", eightbitmime=eightbitmime, smtputf8=smtputf8)

    await prepared(make, content, eightbitmime=True, smtputf8=True)
    assert threads == [threading.get_ident()]


async def test_no_octet_of_a_large_message_object_is_written_on_the_loop() -> None:
    threads = set()

    class Watched(EmailMessage):
        def get_content_maintype(self) -> str:
            threads.add(threading.get_ident())
            return super().get_content_maintype()

    message = Watched()
    message["From"], message["To"] = "a@x", "b@y"
    message.set_content("x\n" * LIGHT)
    threads.clear()

    def make(eightbitmime: bool, smtputf8: bool) -> Prepared:
        return prepare_message(message, None, None, eightbitmime=eightbitmime, smtputf8=smtputf8)

    ready = await prepared(make, message, eightbitmime=True, smtputf8=True)
    assert paths(ready) == [b"b@y"]
    assert ready.content.size is not None
    assert ready.content.size > 3 * LIGHT
    assert len(threads) == 1
    assert threading.get_ident() not in threads


@pytest.mark.parametrize("content", [b"small", b"x" * (LIGHT + 1)])
@pytest.mark.parametrize(("eightbitmime", "smtputf8"), [(True, False), (False, True)])
async def test_what_the_server_offers_is_handed_on(
    content: bytes, eightbitmime: bool, smtputf8: bool
) -> None:
    told = []

    def make(*offered: bool) -> Prepared:
        told.append(offered)
        return prepare("a@x", "b@y", b"", eightbitmime=True, smtputf8=True)

    await prepared(make, content, eightbitmime=eightbitmime, smtputf8=smtputf8)
    assert told == [(eightbitmime, smtputf8)]


class Wrong(Exception):
    """An error of the caller's."""


@pytest.mark.parametrize("content", [b"small", b"x" * (LIGHT + 1)])
async def test_errors_pass_through_unchanged(content: bytes) -> None:
    error = Wrong()

    def make(eightbitmime: bool, smtputf8: bool) -> Prepared:
        raise error

    with pytest.raises(Wrong) as caught:
        await prepared(make, content, eightbitmime=True, smtputf8=True)
    assert caught.value is error


def late(go_on: threading.Event, begun: threading.Event, error: bool) -> Callable[[bool, bool], Prepared]:
    def make(eightbitmime: bool, smtputf8: bool) -> Prepared:
        begun.set()
        go_on.wait()
        if error:
            raise Wrong
        return prepare("a@x", "b@y", b"", eightbitmime=eightbitmime, smtputf8=smtputf8)

    return make


@pytest.mark.parametrize("error", [False, True])
async def test_a_cancelled_caller_does_not_wait_for_the_thread(error: bool) -> None:
    begun, go_on = threading.Event(), threading.Event()
    make = late(go_on, begun, error)
    sending = asyncio.create_task(prepared(make, b"x" * (LIGHT + 1), eightbitmime=True, smtputf8=True))
    await asyncio.to_thread(begun.wait)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert not go_on.is_set()
    go_on.set()
    await asyncio.get_running_loop().shutdown_default_executor()
