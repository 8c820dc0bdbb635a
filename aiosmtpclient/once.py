"""`send()`: connect, send one message, quit.

Rules of this room:

* Wrong input is found before anybody connects: nothing is written for a message that cannot be.
* Once the server has accepted the message, nothing that happens at QUIT takes that back.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from email.message import Message
from typing import Unpack, cast

from .client import DEFAULT_TIMEOUTS, AsyncSMTP, Options, sealed
from .delivery import Ledger, SendResult, stamped
from .driver import cancel_later
from .message import Body, prepare, prepare_message
from .parameters import MailOptions
from .parameters import of as parameters_of
from .timeouts import Timeouts


class SendOptions(Options, MailOptions, total=False):
    """What `send` takes besides: every option of `AsyncSMTP` and every one of `sendmail`."""


async def send(
    message: Body,
    *,
    sender: str | None = None,
    recipients: str | Iterable[str] | None = None,
    host: str = "",
    port: int = 0,
    local_hostname: str | None = None,
    timeout: Timeouts | float | None = DEFAULT_TIMEOUTS,
    source_address: tuple[str, int] | None = None,
    **options: Unpack[SendOptions],
) -> SendResult:
    """Connect, send one message, quit.

    Args:
        message: a message object, or anything else that `AsyncSMTP.sendmail` takes.
        sender: the reverse-path; for a message object left out, its Sender or From.
        recipients: one address or several; for a message object left out, its To, Cc and Bcc.
        host: and everything else: as for `AsyncSMTP`; `ret`, `envid` and the others of
            `MailOptions` as for `sendmail`.

    Raises:
        ValueError: no sender or recipients for something that has no headers to take them from.
    """
    sealed(options)
    about_mail, about_server = _sorted(options)
    if recipients is not None:
        recipients = (recipients,) if isinstance(recipients, str) else tuple(recipients)
    ledger = Ledger(recipients or ())
    with stamped(ledger):
        ledger.begin(_check(message, sender, recipients))
        parameters_of(about_mail)
    result: SendResult | None = None
    known: tuple[object, object] = (None, ())
    try:
        async with contextlib.AsyncExitStack() as stack:
            with stamped(ledger):
                smtp = AsyncSMTP(host, port, local_hostname, timeout, source_address, **about_server)
                await stack.enter_async_context(smtp)
            try:
                if isinstance(message, Message):
                    result = await smtp.send_message(message, sender, recipients, **about_mail)
                else:
                    result = await smtp.sendmail(sender or "", recipients or (), message, **about_mail)
            except BaseException as error:
                known = getattr(error, "delivery", None), getattr(error, "outcomes", ())
                raise
    except asyncio.CancelledError as error:
        if result is None:
            if known[0] is not None:  # cancelled at the QUIT behind an error: what that said still holds
                error.delivery, error.outcomes = known  # type: ignore[attr-defined]  # any exception has room, as in `stamp`
            raise
        cancel_later(asyncio.get_running_loop())  # cancelled at QUIT: the message was accepted all the same
    return result


def _sorted(options: SendOptions) -> tuple[MailOptions, Options]:
    """What is about the message, and what is about the server."""
    names = MailOptions.__annotations__
    about_mail = {name: value for name, value in options.items() if name in names}
    about_server = {name: value for name, value in options.items() if name not in names}
    return cast(MailOptions, about_mail), cast(Options, about_server)


def _check(message: Body, sender: str | None, recipients: tuple[str, ...] | None) -> tuple[str, ...]:
    """Find wrong input before anybody connects, and who gets it; what the server offers is not known yet."""
    if isinstance(message, Message):
        found = prepare_message(message, sender, recipients, eightbitmime=True, smtputf8=True)
    elif sender is None or recipients is None:
        raise ValueError("sender and recipients are needed with anything but a message object")
    else:
        found = prepare(sender, recipients, message, eightbitmime=True, smtputf8=True)
    return tuple(found.recipients.texts)
