"""Express: the short way for a message with which nothing happens, as with nearly all of them.

A plain message, small and in memory, takes one write or two. They are done here, with nothing in
between, and if every reply says yes, that is all. Whatever else happens, a refusal, an odd reply, an
error, a cancellation, is judged by the dialogue in `transactions`: it is given the steps that were
performed here, as if it had asked for them itself, and goes on from there.

Rules of this room:

* Nothing is judged here but "everybody was accepted". There is one authority on all the rest.
* What is written is to the octet what the dialogue would write, and earns the same replies.
* What only that authority needs, a `Prepared` and a ledger that knows what has left, is made when it
  is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from . import commands, transactions
from .addresses import plain_text
from .connection import Connection
from .content import InMemory, in_lines
from .message import Prepared
from .parcels import Parcel
from .plain import Octets, Plain
from .turn import Lease

MOST = 100
"""Recipients of a plain message."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What plain messages are to be like on a connection, as long as nothing but those is sent there.

    Attributes:
        most: octets of the largest.
        size: SIZE is to be declared (RFC 1870).
        eightbit: octets over 127 may be sent, and are declared (RFC 6152).
        chunked: by BDAT (RFC 3030).
    """

    most: int
    size: bool
    eightbit: bool
    chunked: bool


def terms_of(connection: Connection, *, chunked: bool) -> Terms | None:
    """What plain messages are to be like there; None if none may be sent.

    Args:
        connection: whoever asks has seen that it is `free`, or does so before he begins.
        chunked: BDAT may be used, if the server offers it.
    """
    extensions = connection.session.extensions
    if not extensions.pipelining or extensions.limited or connection.most_recipients is not None:
        return None
    limit, most = extensions.size_limit, transactions.ONE_WRITE
    return Terms(
        most if limit is None else min(most, limit),
        extensions.size,
        extensions.eightbitmime,
        chunked and extensions.chunking,
    )


def octets_of(
    sender: str, recipients: Sequence[str], content: bytes, terms: Terms, *, clean: bool = False
) -> Octets | None:
    """The octets of a message, if its addresses are plain and its content fits the terms; else None.

    Args:
        sender, recipients, content: the message.
        terms: what it has to be like.
        clean: its lines certainly end as they should.

    Raises:
        ValueError: the content cannot be sent as it is.
    """
    paths = plain_text((sender, *recipients)) if len(content) <= terms.most else None
    count = len(recipients)
    if paths is None or not 0 < count <= MOST:
        return None
    content = in_lines(content, clean=clean)
    size, ascii_only = len(content), content.isascii()
    if size > terms.most or not (ascii_only or terms.eightbit):
        return None
    head = commands.envelope(paths, count, size if terms.size else None, eightbit=not ascii_only)
    return (head, count, content) if head is not None else None


def octets_of_prepared(prepared: Prepared, terms: Terms) -> Octets | None:
    """The same for whatever was prepared."""
    content, recipients = prepared.content, prepared.recipients
    if type(content) is not InMemory or content.size > terms.most or prepared.smtputf8:
        return None
    return octets_of(prepared.sender.text, recipients.texts, content.data, terms, clean=True)


class Begun:
    """A plain message that was begun and came to something else, for the dialogue to judge.

    Args:
        connection: where it was begun.
        plain: the message.
        error: what ended the waiting for replies, if they did not.
        lease: the turn, if whoever judges it has not got that himself.

    Attributes:
        steps: what was performed. What it failed with is in the last.
        chunked: BDAT may be used there.
    """

    __slots__ = ("chunked", "connection", "lease", "steps")

    def __init__(
        self,
        connection: Connection,
        plain: Plain,
        error: BaseException | None,
        lease: Lease | None = None,
    ) -> None:
        connection.protocol.unfold()
        self.connection = connection
        self.chunked = plain.chunked
        self.lease = lease
        if not plain.steps:
            plain.unfold()  # it was accepted, and that could not be written down at once
        self.steps = plain.steps
        if error is not None:
            self.steps[-1].failed = error

    def settle(self, parcel: Parcel) -> Prepared:
        """Put down in the account of the message what has left; returns what it is judged by."""
        ledger, connection = parcel.ledger, self.connection
        if self.steps[-1].ended:  # first, whatever fails then
            ledger.end_left()
        try:
            parcel.attempts += 1
            ledger.carrier = connection.serial
            prepared = parcel.light(connection.session.extensions)
            if prepared is None or not isinstance(prepared.content, InMemory):
                raise AssertionError(prepared)
        except BaseException:
            connection.drop()  # nobody is left to read what the server says
            raise
        for step in self.steps:
            if step.content is not None:
                step.content = prepared.content
        return prepared
