"""What a server does, found out by trying: BDAT with a chunk that does no harm, a stream with three messages.

Rules of this room:

* The trial of BDAT takes place outside any transaction, on a connection of its own, which a
  server that gets it wrong may lose.
* Messages are sent only to an address that was named, and only if that was asked for.
* A trial whose messages are all refused in good order says nothing about streams.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import formatdate, make_msgid

from aiosmtpclient.chunking import prove
from aiosmtpclient.client import AsyncLMTP, AsyncSMTP, Options
from aiosmtpclient.delivery import Outcome
from aiosmtpclient.errors import Delivery, SMTPException
from aiosmtpclient.plans import Settings

MESSAGES = 3
"""How many one right behind the other show whether a server takes a stream."""


@dataclass(frozen=True, slots=True)
class Streamed:
    """What came of a stream.

    Attributes:
        taken: True if all were accepted on one connection; None if that shows nothing.
        deliveries: what is known about each message.
        error: the first that a message ended with.
    """

    taken: bool | None
    deliveries: tuple[Delivery, ...] = ()
    error: BaseException | None = None


async def prove_bdat(client: AsyncSMTP) -> bool | None:
    """Find out whether BDAT may be used: None if it is not offered, or the server ended the session.

    Args:
        client: not connected.

    Raises:
        SMTPException: it did not come to the trial.
    """
    await client.connect()
    try:
        if not client.extensions.chunking:
            return None
        connection = client._connected()
        try:
            verdict = await connection.run(prove())
            if verdict:  # whoever ran the chunk as commands owes more replies than this
                await client.noop()
        except SMTPException:
            verdict = False
        return verdict
    finally:
        with contextlib.suppress(SMTPException):
            await client.quit()


async def try_stream(client: AsyncSMTP, sender: str, recipient: str) -> Streamed:
    """Send three small messages one right behind the other.

    Args:
        client: with `pipelining="stream"`, not connected.
        sender: the reverse-path.
        recipient: who gets them.

    Raises:
        SMTPException: it did not come to the trial.
    """
    async with client:
        if not client.extensions.pipelining:
            return Streamed(None)
        outcomes = [one async for one in client.send_messages(_messages(sender, recipient), ordered=True)]
    return _judged(outcomes)


def _judged(outcomes: list[Outcome]) -> Streamed:
    deliveries = tuple(outcome.delivery for outcome in outcomes)
    errors = [outcome.error for outcome in outcomes if outcome.error is not None]
    one_connection = len({outcome.connection for outcome in outcomes}) == 1
    taken: bool | None = not errors and one_connection
    if set(deliveries) == {Delivery.REFUSED} and one_connection:
        taken = None
    return Streamed(taken, deliveries, errors[0] if errors else None)


def _messages(sender: str, recipient: str) -> Iterator[EmailMessage]:
    for number in range(1, MESSAGES + 1):
        message = EmailMessage()
        message["From"] = sender
        message["To"] = recipient
        message["Subject"] = f"aiosmtpclient check: message {number} of {MESSAGES}"
        message["Date"] = formatdate(time.time())
        message["Message-ID"] = make_msgid(domain="aiosmtpclient.invalid")
        message.set_content(f"Message {number} of {MESSAGES}, to see whether the server takes a stream.\n")
        yield message


def client_for(settings: Settings, options: Options) -> AsyncSMTP:
    """A client for the trials.

    Args:
        settings: how the server was looked at.
        options: what was asked for besides, logins among them.

    Raises:
        ValueError: an argument makes no sense.
    """
    endpoint = settings.endpoint
    kind: type[AsyncSMTP] = AsyncLMTP if settings.lmtp else AsyncSMTP
    reach: Options = {
        "tls": settings.policy,
        "tls_context": settings.security.context,
        "server_hostname": settings.security.server_hostname,
    }
    return kind(
        endpoint.host,
        endpoint.port,
        settings.local_hostname,
        timeout=settings.timeouts,
        **(options | reach),
    )


# -- what is printed -----------------------------------------------------------------------


def bdat_line(verdict: bool | None) -> str:
    """What came of the trial of BDAT, for people."""
    words = {
        True: "proven: a chunk that is refused is discarded",
        False: "NOT PROVEN: messages are sent by DATA",
        None: "no verdict: the server ended the session",
    }
    return f"  BDAT         {words[verdict]}"


def stream_line(streamed: Streamed) -> str:
    """What came of the stream, for people."""
    counted = Counter(streamed.deliveries)
    account = ", ".join(f"{count} {delivery.value}" for delivery, count in counted.items())
    why = f": {streamed.error}" if streamed.error is not None else ""
    if streamed.taken:
        return f"  stream       taken: {account}"
    if streamed.taken is False:
        return f"  stream       NOT TAKEN: {account}{why}"
    if not streamed.deliveries:
        return "  stream       no verdict: PIPELINING is not offered"
    return f"  stream       no verdict: {account}{why}"


def stream_as_json(streamed: Streamed | None) -> dict[str, object] | None:
    """What came of the stream, for programs."""
    if streamed is None:
        return None
    return {
        "taken": streamed.taken,
        "deliveries": [delivery.value for delivery in streamed.deliveries],
        "error": str(streamed.error) if streamed.error is not None else None,
    }
