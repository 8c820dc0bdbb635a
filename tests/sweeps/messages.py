"""What a user reads when something fails: each class of error, as it comes about.

The texts are not written here: a client meets a server that does what a `Case` says, and what it
raises is shown. `tables` makes the page in docs/reliability.md of it, which a test keeps true.

=================  ======================================================================
`messages`         how a case comes about, and the tables
`mishaps`          the cases
=================  ======================================================================
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from aiosmtpclient import AsyncLMTP, AsyncSMTP, SMTPException, SMTPPool

from .behaviours import RIGHT, Act
from .cable import Line
from .clock import VirtualLoop
from .post import Network, Post
from .scenarios import TIMEOUTS

HOST = "mail.test"
SENDER, ANN, BOB, CAT = (f"{name}@m1.test" for name in ("sender", "ann", "bob", "cat"))
BODY = b"Subject: m1\r\n\r\nHello.\r\n"

Call = Callable[[Any], Awaitable[object]]
"""What the caller does with a client, or a pool, in place of sending a message."""


@dataclass(frozen=True)
class Case:
    """Something that fails.

    Attributes:
        what: in words.
        acts: what the server does in place of its reply number `place`; 0 is the greeting.
        offers: what EHLO offers.
        lines: instead of all that, what the server says to each line, the greeting first.
        refused: the content is refused.
        recipients: whom the message is for; bob is refused.
        body: its content.
        options: of the client.
        lmtp: by LMTP.
        call: what the caller does instead of sending a message.
        dialling: what the system says to the attempt to connect.
        handshake: what the system says to the handshake.
        pool: options of a pool, which is used in place of a client.
        connected: the client connects before anything else.
    """

    what: str
    acts: tuple[Act, ...] = (RIGHT,)
    place: int = -1
    offers: tuple[str, ...] = ("PIPELINING", "SIZE 1000")
    lines: tuple[bytes, ...] = ()
    refused: bool = False
    recipients: tuple[str, ...] = (ANN,)
    body: Any = BODY
    options: dict[str, Any] = field(default_factory=dict)
    lmtp: bool = False
    call: Call | None = None
    dialling: Exception | None = None
    handshake: Exception | None = None
    pool: dict[str, Any] | None = None
    connected: bool = True


class _Answers(Network):
    """A server that has its answers ready, one for each line."""

    def __init__(self, loop: VirtualLoop, answers: Iterable[bytes]) -> None:
        super().__init__(loop, Post({}))
        self._answers = list(answers)

    def connect(self, factory: Any) -> tuple[Any, Any]:
        line = Line(self.loop)
        answers = iter(self._answers)

        def answer(octets: bytes) -> None:
            for _ in range(octets.count(b"\n")):
                line.say(next(answers, b"500 what?\r\n"))

        line.reader = answer
        return line.end, line.end.connect(factory, partial(line.say, next(answers)))


class _Nobody(Network):
    """Nobody is reached."""

    def __init__(self, loop: VirtualLoop, why: Exception) -> None:
        super().__init__(loop, Post({}))
        self._why = why

    def connect(self, factory: Any) -> tuple[Any, Any]:
        raise self._why


def shown(case: Case) -> Exception:
    """Let it happen; returns the error."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(_happens(case, loop))
    finally:
        loop.close()


async def _happens(case: Case, loop: VirtualLoop) -> Exception:
    post = Post({1: BODY}, lmtp=case.lmtp, offers=case.offers, refuse_content=[1] * case.refused)
    if case.dialling is not None:
        loop.network = _Nobody(loop, case.dialling)
    elif case.lines:
        loop.network = _Answers(loop, case.lines)
    else:
        loop.network = Network(loop, post, acts=case.acts, place=case.place)

    async def handshake(*_: object, **__: object) -> None:
        raise case.handshake or AssertionError("no handshake was to be expected")

    loop.start_tls = handshake  # type: ignore[method-assign,assignment]
    try:
        await _use(case)
    except Exception as error:
        return error
    finally:
        for _ in range(10):
            await asyncio.sleep(0)
    raise AssertionError(f"{case.what}: nothing was raised")


async def _use(case: Case) -> None:
    options = {"tls": "none", "timeout": TIMEOUTS, "local_hostname": "client.test", "port": 25}
    options |= {"tls_context": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)} | case.options
    if case.pool is not None:
        pool = SMTPPool(HOST, **({"retries": 0} | options | case.pool))  # type: ignore[arg-type]
        try:
            assert case.call is not None
            await case.call(pool)
        finally:
            await pool.close(0)
        return
    smtp = (AsyncLMTP if case.lmtp else AsyncSMTP)(HOST, **options)  # type: ignore[arg-type]
    try:
        if case.connected:
            await smtp.connect()
        if case.call is not None:
            await case.call(smtp)
        else:
            await smtp.sendmail(SENDER, case.recipients, case.body)
    finally:
        smtp.close()


# -- the page --------------------------------------------------------------------------------


def text_of(error: Exception) -> str:
    """What it says, without what is different from system to system, or belongs to these servers alone."""
    text = re.sub(r"(?<=\s)#\d+ (m\d )?", "", str(error))
    return re.sub(r" 0x[0-9a-f]+", "", text)


def tables(sections: dict[str, list[Case]]) -> str:
    """The page's tables, one a section."""
    return "\n\n".join(f"### {title}\n\n{_table(cases)}" for title, cases in sections.items())


def _table(cases: list[Case]) -> str:
    rows = ["| what happens | error | what it says | `.advice` |", "| --- | --- | --- | --- |"]
    for case in cases:
        error = shown(case)
        advice = error.advice if isinstance(error, SMTPException) else "(not sent: nothing was written)"
        text = text_of(error).replace("|", r"\|")
        rows.append(f"| {case.what} | `{type(error).__name__}` | {text} | {advice} |")
    return "\n".join(rows)
