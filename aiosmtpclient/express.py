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

from typing import NamedTuple

from . import commands, transactions
from .connection import Connection
from .content import InMemory
from .delivery import Ledger
from .message import Prepared
from .protocol import Replies
from .replies import Reply
from .steps import Phase, Step
from .transactions import END
from .turn import Lease

MOST = 100
"""Recipients of a plain message."""
_NOTHING: list[Reply] = []
_ONE = ("MAIL", "RCPT", "DATA"), ("MAIL", "RCPT", END)


def envelope_of(connection: Connection, prepared: Prepared) -> bytes | None:
    """MAIL and every RCPT, if the message is plain, and so is what the server asks for; else None.

    The connection is free for it.
    """
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
        or not extensions.pipelining
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


class Plain(NamedTuple):
    """A plain message that is ready to be begun.

    Attributes:
        connection: what `envelope_of` was asked about.
        prepared: the message.
        envelope: what that said.
    """

    connection: Connection
    prepared: Prepared
    envelope: bytes


class Begun:
    """A plain message that was begun: what was performed, and what it is judged by.

    Args:
        connection, prepared, envelope: as in `Plain`.
        ledger: where the account is written.
        chunked: BDAT may be used, if the server offers it.

    Attributes:
        steps: what was performed. What it failed with is in the last.
        lease: the turn, if whoever began it has not got that himself.
    """

    __slots__ = ("_ledger", "_waiter", "chunked", "connection", "lease", "prepared", "steps")

    def __init__(
        self, connection: Connection, prepared: Prepared, envelope: bytes, ledger: Ledger, *, chunked: bool
    ) -> None:
        self.connection = connection
        self.prepared = prepared
        self.chunked = chunked
        self.lease: Lease | None = None
        self._waiter: Replies | None = None  # the replies; None if it failed at once
        self._ledger = ledger
        content, recipients = prepared.content, len(prepared.recipients.paths)
        if not isinstance(content, InMemory):
            raise AssertionError(content)
        self.steps: list[Step]
        whole: bytes | None = None
        if chunked and connection.session.extensions.chunking:
            whole = content.data
            self.steps = [OneWrite(envelope, recipients, content, ledger)]
        else:
            begin, end = Begin(envelope, recipients), End(content, ledger)
            begin.next = end, content.stuffed() + commands.END_OF_CONTENT
            self.steps = [begin, end]
        try:
            self._waiter = connection.protocol.send(self.steps[0], whole)
        except BaseException as error:
            self.steps[0].failed = error

    async def accepted(self) -> bool:
        """Wait for the replies; True if everybody was accepted, which is written down then.

        If not, `steps` has what is to be judged by the dialogue, an error or a cancellation too.
        """
        steps, replies = self.steps, _NOTHING
        waiter, self._waiter = self._waiter, None
        try:
            if waiter is not None:
                replies = await waiter
        except BaseException as error:
            steps[-1 if steps[-1].performed else 0].failed = error
        finally:
            waiter = None  # an error in it has this frame in its traceback: no cycle
        if not steps[-1].performed:
            del steps[-1]
        last = steps[-1]
        yes = last.ended and len(replies) == last.owed and max(replies)[0] < 300
        if not yes or not self.connection.session.reusable:
            return False
        self._ledger.accept(replies[-1])
        if self.lease is not None:
            self.lease.give_back()
        return True


class OneWrite(Step):
    """Envelope, BDAT and content at once."""

    during, then = Phase.CONTENT, Phase.READY
    chunked = last = performed = True

    def __init__(self, envelope: bytes, recipients: int, content: InMemory, ledger: Ledger) -> None:
        self.data = envelope + commands.bdat(content.size, last=True)
        self.verbs = _ONE[1] if recipients == 1 else ("MAIL", *["RCPT"] * recipients, END)
        self.lines = recipients + 1
        self.owed = recipients + 2
        self.received = []
        self.content = content
        self.on_end = ledger.end_left


class Begin(Step):
    """Envelope and DATA."""

    during, then = Phase.MAIL, Phase.CONTENT
    content = None
    performed = True

    def __init__(self, envelope: bytes, recipients: int) -> None:
        self.data = envelope + commands.DATA
        self.verbs = _ONE[0] if recipients == 1 else ("MAIL", *["RCPT"] * recipients, "DATA")
        self.owed = self.lines = recipients + 2
        self.received = []


class End(Step):
    """The content, and its end."""

    data = b""
    verbs = (END,)
    owed, lines = 1, 0
    during, then = Phase.CONTENT, Phase.READY
    last = True

    def __init__(self, content: InMemory, ledger: Ledger) -> None:
        self.received = []
        self.content = content
        self.on_end = ledger.end_left
