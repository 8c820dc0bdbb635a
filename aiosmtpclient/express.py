"""Express: the short way for a message with which nothing happens, as with nearly all of them.

A plain message, small and in memory, takes one write or two. They are done here, with nothing in
between, and if every reply says yes, that is all. Whatever else happens, a refusal, an odd reply, an
error, a cancellation, is judged by the dialogue in `transactions`: it is given the steps that were
performed here, as if it had asked for them itself, and goes on from there.

Rules of this room:

* Nothing is judged here but "everybody was accepted". There is one authority on all the rest.
* What is written is to the octet what the dialogue would write, and earns the same replies.
"""

from __future__ import annotations

from . import commands, transactions
from .connection import Connection
from .content import InMemory
from .delivery import Ledger
from .message import Prepared
from .replies import Reply
from .steps import Phase, Step
from .transactions import END

MOST = 100
"""Recipients of a plain message."""
_ONE = ("MAIL", "RCPT", "DATA"), ("MAIL", "RCPT", END)


def envelope_of(connection: Connection, prepared: Prepared) -> bytes | None:
    """MAIL and every RCPT, if the message is plain, and the connection free for it; else None."""
    content, recipients, session = prepared.content, prepared.recipients, connection.session
    extensions = session.extensions
    limit = extensions.size_limit
    if (
        type(content) is not InMemory
        or content.size > transactions.ONE_WRITE
        or (limit is not None and content.size > limit)
        or prepared.smtputf8
        or recipients.special
        or len(recipients.paths) > MOST
        or not (connection.esmtp and extensions.pipelining and session.reusable)
        or extensions.limited
        or connection.most_recipients is not None
        or session.unsettled
    ):
        return None
    return commands.envelope(
        prepared.sender.path,
        recipients.paths,
        size=content.size if extensions.size else None,
        eightbit=content.eightbit and extensions.eightbitmime,
    )


async def carry(
    connection: Connection, envelope: bytes, prepared: Prepared, ledger: Ledger, *, chunked: bool
) -> list[Step]:
    """Send a plain message; if `ledger.final` is set behind this, everybody was accepted.

    Args:
        connection: what `envelope_of` was asked about.
        envelope: what it said.
        prepared: the message.
        ledger: where the account is written.
        chunked: BDAT may be used, if the server offers it.

    Returns:
        The steps that were performed.
    """
    content, recipients, session = prepared.content, len(prepared.recipients.paths), connection.session
    if not isinstance(content, InMemory):
        raise AssertionError(content)
    if chunked and session.extensions.chunking:
        steps, whole = one_write(envelope, recipients, content, ledger), content.data
    else:
        steps, whole = two_writes(envelope, recipients, content, ledger), None
        steps[0].next = steps[1], content.stuffed() + commands.END_OF_CONTENT
    steps[0].performed = True
    replies: list[Reply] = []
    failure: BaseException | None = None
    try:
        replies = await connection.protocol.send(steps[0], whole)
    except BaseException as error:
        failure = error
    if not steps[-1].performed:
        del steps[-1]
    last = steps[-1]
    if failure is not None:
        last.failed, failure = failure, None
    elif last.ended and len(replies) == last.owed and max(replies)[0] < 300 and session.reusable:
        ledger.accept(replies[-1])
    return steps


def one_write(envelope: bytes, recipients: int, content: InMemory, ledger: Ledger) -> list[Step]:
    """Envelope, BDAT and content at once."""
    lines = recipients + 1
    step = Step(
        envelope + commands.bdat(content.size, last=True),
        owed=lines + 1,
        lines=lines,
        during=Phase.CONTENT,
        content=content,
        chunked=True,
        on_end=ledger.end_left,
        last=True,
    )
    step.verbs = _ONE[1] if recipients == 1 else ("MAIL", *["RCPT"] * recipients, END)
    return [step]


def two_writes(envelope: bytes, recipients: int, content: InMemory, ledger: Ledger) -> list[Step]:
    """Envelope and DATA, then the content."""
    begin = Step(envelope + commands.DATA, owed=recipients + 2, during=Phase.MAIL, then=Phase.CONTENT)
    begin.verbs = _ONE[0] if recipients == 1 else ("MAIL", *["RCPT"] * recipients, "DATA")
    end = Step(b"", END, during=Phase.CONTENT, content=content, on_end=ledger.end_left, last=True)
    return [begin, end]
