"""What a user reads when something fails: each class of error, as it comes about.

The texts are not written here: a client meets a server that does what `acts` say, and what it
raises is shown. `table` makes the page in docs/reliability.md of it, which a test keeps true.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiosmtpclient import AsyncLMTP, AsyncSMTP, SMTPException

from .behaviours import CLOSE, RIGHT, STOP, Act, Instead, Raw
from .clock import VirtualLoop
from .post import Network, Post
from .scenarios import TIMEOUTS

HOST = "mail.test"
SENDER, ANN, BOB, CAT = (f"{name}@m1.test" for name in ("sender", "ann", "bob", "cat"))
BODY = b"Subject: m1\r\n\r\nHello.\r\n"


@dataclass(frozen=True)
class Case:
    """Something that fails.

    Attributes:
        what: in words.
        acts: what the server does in place of its reply number `place`; 0 is the greeting.
        offers: what EHLO offers.
        refused: the content is refused.
        recipients: whom the message is for; bob is refused.
        body: its content.
        options: of the client.
        lmtp: by LMTP.
        call: what the caller does instead of sending a message.
        silent: nobody listens at all.
    """

    what: str
    acts: tuple[Act, ...] = (RIGHT,)
    place: int = -1
    offers: tuple[str, ...] = ("PIPELINING", "SIZE 1000")
    refused: bool = False
    recipients: tuple[str, ...] = (ANN,)
    body: bytes = BODY
    options: dict[str, Any] = field(default_factory=dict)
    lmtp: bool = False
    call: Callable[[AsyncSMTP], Awaitable[object]] | None = None
    silent: bool = False


def _starttls(smtp: AsyncSMTP) -> Awaitable[object]:
    return smtp.starttls()


PASSWORD = {"username": "me", "password": "s3cret", "allow_cleartext_auth": True}

CASES = [
    Case("nobody listens", silent=True),
    Case("the greeting says no", (Instead(code=554), CLOSE), 0),
    Case("no greeting comes", (STOP,), 0),
    Case("EHLO is refused", (Instead(code=450),), 1),
    Case("STARTTLS is required, and not offered", options={"tls": "starttls"}),
    Case("`starttls()` is refused", offers=("STARTTLS",), call=_starttls),
    Case("the password is wrong", (Instead(code=535),), 2, offers=("AUTH PLAIN",), options=PASSWORD),
    Case("8-bit content, and no 8BITMIME", body=b"Subject: m1\r\n\r\n\xc3\xa9\r\n"),
    Case("too large", body=b"x" * 2000),
    Case("MAIL is refused for good", (Instead(code=550),), 2),
    Case("MAIL is refused for now", (Instead(code=451),), 2),
    Case("nobody is accepted", recipients=(BOB,)),
    Case("421 instead of an answer to RCPT", (Instead(code=421), CLOSE), 3),
    Case("DATA is refused", (Instead(code=451),), 4),
    Case("the content is refused", refused=True),
    Case("closed before DATA was answered", (CLOSE,), 4),
    Case("closed before the content was answered", (CLOSE,), 5),
    Case("silence instead of an answer to RCPT", (STOP,), 3),
    Case("silence behind the content", (STOP,), 5),
    Case("what is no reply, in answer to MAIL", (Raw(octets=b"2500 \x1b[2Jok\r\n"),), 2),
    Case("a 2yz to DATA", (Instead(code=250),), 4),
    Case("a 3yz to the content", (Instead(code=354),), 5),
    Case("LMTP: closed between two answers", (RIGHT, CLOSE), 6, recipients=(ANN, CAT), lmtp=True),
]


def shown(case: Case) -> SMTPException:
    """Let it happen; returns the error."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(_happens(case, loop))
    finally:
        loop.close()


async def _happens(case: Case, loop: VirtualLoop) -> SMTPException:
    post = Post({1: BODY}, lmtp=case.lmtp, offers=case.offers, refuse_content=[1] * case.refused)
    loop.network = None if case.silent else Network(loop, post, acts=case.acts, place=case.place)
    kind = AsyncLMTP if case.lmtp else AsyncSMTP
    options = {"tls": "none", "timeout": TIMEOUTS, "local_hostname": "client.test", "port": 25} | case.options
    smtp = kind(HOST, **options)
    try:
        await smtp.connect()
        if case.call is not None:
            await case.call(smtp)
        else:
            await smtp.sendmail(SENDER, case.recipients, case.body)
    except SMTPException as error:
        return error
    finally:
        smtp.close()
        for _ in range(10):
            await asyncio.sleep(0)
    raise AssertionError(f"{case.what}: nothing was raised")


def table() -> str:
    """The page's table."""
    rows = ["| what happens | error | what it says | `.advice` |", "| --- | --- | --- | --- |"]
    for case in CASES:
        error = shown(case)
        text = re.sub(r"(?<=\s)#\d+ (m\d )?", "", str(error)).replace("|", r"\|")
        rows.append(f"| {case.what} | `{type(error).__name__}` | {text} | {error.advice} |")
    return "\n".join(rows)
