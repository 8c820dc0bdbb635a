"""What the tests of streams share: scripts of messages that follow one another, and tasks that send them."""

from __future__ import annotations

import asyncio

from wire import BODY, GO, OK, SENDER, hello

from aiosmtpclient import AsyncSMTP, Delivery, SendResult
from aiosmtpclient.testing import Conversation, ScriptedServer
from aiosmtpclient.testing.scripted import Action, Step, expect_content, read_exactly

OFFERS = ("PIPELINING", "CHUNKING")
ONE, TWO, THREE, FOUR = (f"{name}@to.test" for name in ("one", "two", "three", "four"))
ENVELOPE = OK + OK
WHOLE = ENVELOPE + OK
"""The answers to a message by BDAT."""
GROUP = ENVELOPE + GO
"""The answers to MAIL, RCPT, DATA."""


def begin() -> list[Step]:
    return hello(*OFFERS)


def bdat(recipient: str, *, behind: bool = False) -> list[Step]:
    """One message by BDAT, unanswered; `behind` another one there is an RSET before it."""
    lines: list[Step] = ["RSET"] if behind else []
    return [*lines, "MAIL", f"RCPT TO:<{recipient}>", "BDAT", read_exactly(len(BODY))]


def group(recipient: str) -> list[Step]:
    """MAIL, RCPT and DATA, unanswered."""
    return ["MAIL", f"RCPT TO:<{recipient}>", "DATA"]


def data(recipient: str, reply: bytes = OK) -> list[Step]:
    """One message by DATA, with its answers."""
    return [*group(recipient), GROUP, expect_content(), reply]


def stream(server: ScriptedServer, **options: object) -> AsyncSMTP:
    """A client for streams, with BDAT unless `chunking` says otherwise."""
    given = {"pipelining": "stream", "chunking": "eager", **options}
    return AsyncSMTP(server.host, server.port, **given)  # type: ignore[arg-type]


Sending = asyncio.Task[SendResult | BaseException]


async def _outcome(
    smtp: AsyncSMTP, recipient: str, body: object, **options: bool
) -> SendResult | BaseException:
    try:
        return await smtp.sendmail(SENDER, recipient, body, **options)  # type: ignore[arg-type]
    except BaseException as error:
        return error


def sending(smtp: AsyncSMTP, recipient: str, body: object = BODY, **options: bool) -> Sending:
    """A task that sends one message, and ends with its result or its error."""
    return asyncio.create_task(_outcome(smtp, recipient, body, **options))


async def known(*tasks: Sending) -> list[Delivery]:
    """What became of each message, in one word."""
    results = await asyncio.gather(*tasks, return_exceptions=True)
    return [
        # Who was cancelled before he began has no account.
        Delivery.ACCEPTED
        if isinstance(result, SendResult)
        else getattr(result, "delivery", Delivery.NOT_SENT)
        for result in results
    ]


async def settled() -> None:
    """What can happen by itself has happened."""
    for _ in range(20):
        await asyncio.sleep(0)


def nothing_more() -> Action:
    """A step that fails if the client writes anything before it gets an answer."""

    async def step(conversation: Conversation) -> None:
        before = len(conversation.received)
        await settled()
        assert len(conversation.received) == before, bytes(conversation.received[before:])

    return step
