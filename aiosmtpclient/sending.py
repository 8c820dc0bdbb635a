"""Sending: one message, or many of them, over one connection that tasks may share.

`Sending` is what `AsyncSMTP` and `AsyncLMTP` are made of besides connecting (`client`) and the
single verbs (`verbs`). Which way a message takes, DATA or BDAT, how much of it in one write, and
when the next one may follow, is decided here and nowhere else.

=============  ===========================================================================
`pipelining`   the turn is given back
=============  ===========================================================================
"off"          with the reply to the content
"message"      with the reply to the content
"stream"       with the last octet of the content; the next message leaves right behind it
=============  ===========================================================================

Rules of this room:

* A message is prepared when it has the turn: what waits in line takes no memory.
* BDAT is used only where the server has shown that it reads a chunk which it refuses, or where
  the caller vouches for it. The trial takes place only where many messages may follow.
* What is known about a delivery is stamped on whatever passes through a send: our errors, a
  caller's own exception, a cancellation.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Sequence
from dataclasses import replace
from email.message import Message
from typing import ClassVar, Literal, TypeAlias

from . import preparing
from .bodies import opened
from .bulk import in_window, one_by_one
from .chunking import VERDICTS, prove
from .connection import Connection
from .content import InMemory
from .delivery import Ledger, Outcome, SendResult
from .envelopes import Transaction
from .errors import Delivery, SMTPException, SMTPNotSupportedError, SMTPProtocolError
from .message import Body, Envelope, Prepared, prepare, prepare_message
from .opening import Settings
from .steps import Phase, Progress
from .transactions import deliver
from .turn import Lease
from .verbs import Verbs

Pipelining: TypeAlias = Literal["off", "message", "stream"]
Chunking: TypeAlias = Literal["off", "auto", "eager"]

WINDOW = 32
"""Messages that `send_messages` has under way at a time in a stream."""
_READY = (Phase.READY,)


class Sending(Verbs):
    """What sends messages, on top of the verbs."""

    _lmtp: ClassVar[bool] = False

    def __init__(self, settings: Settings, pipelining: Pipelining, chunking: Chunking) -> None:
        self._pipelining: Pipelining = pipelining
        self._chunking: Chunking = chunking
        super().__init__(settings)

    # -- one ---------------------------------------------------------------------------

    async def sendmail(
        self,
        from_addr: str,
        to_addrs: str | Iterable[str],
        msg: Body,
        mail_options: Iterable[str] = (),
        rcpt_options: Iterable[str] = (),
        *,
        all_or_nothing: bool = False,
        progress: Progress | None = None,
    ) -> SendResult:
        """Send one message to the recipients that the server accepts.

        Args:
            from_addr: the reverse-path; empty for a bounce.
            to_addrs: one address or any iterable of them.
            msg: octets, a message object, a `pathlib.Path`, a binary file, or an iterable or
                asynchronous iterable of bytes; the last four are streamed. A `str` is the content
                itself, in ASCII, never a file's name. Line ends are made CRLF and leading dots are
                doubled on the way.
            mail_options: parameters for MAIL, such as "BODY=8BITMIME" (RFC 5321 section 4.1.2).
            rcpt_options: parameters for each RCPT, such as "NOTIFY=NEVER" (RFC 3461).
            all_or_nothing: one refused recipient refuses all, and nothing is delivered.
            progress: called as the content leaves, with the octets written so far and the
                octets in all, or None where that is not known before the end.

        Returns:
            The refused recipients, address → `Reply`, empty if there are none; `.accepted`,
            `.reply` and `.outcomes` say the rest.

        Raises:
            SMTPRecipientsRefused: nobody was accepted.
            SMTPSenderRefused: MAIL was refused, or the message is larger than the server takes.
            SMTPDataError: the content was refused.
            SMTPNotSupportedError: it needs an extension that the server lacks.
            SMTPServerDisconnected, SMTPTimeoutError: `.delivery` says whether it may be sent again.
            ValueError: an address, option or content that must not go on the wire.
        """
        envelope = Envelope(
            from_addr,
            to_addrs,
            msg,
            mail_options=mail_options,
            rcpt_options=rcpt_options,
            all_or_nothing=all_or_nothing,
        )
        return await self._send(envelope, progress=progress)

    async def send_message(
        self,
        msg: Message,
        from_addr: str | None = None,
        to_addrs: str | Iterable[str] | None = None,
        mail_options: Iterable[str] = (),
        rcpt_options: Iterable[str] = (),
        *,
        all_or_nothing: bool = False,
        progress: Progress | None = None,
    ) -> SendResult:
        """Send a message object, with the envelope taken from its headers where none is given.

        Sender or From make the reverse-path; every To, Cc and Bcc the recipients (the Resent-
        fields in a message that was resent). Bcc does not leave, and `msg` is not changed.
        Arguments, result and errors are otherwise those of `sendmail`.
        """
        if not isinstance(msg, Message):
            raise TypeError(f"send_message takes message objects; for {type(msg).__name__} there is sendmail")
        to_addrs = (to_addrs,) if isinstance(to_addrs, str) else to_addrs
        to_addrs = tuple(to_addrs) if to_addrs is not None else None
        options = Envelope(
            from_addr or "",
            to_addrs or (),
            msg,
            mail_options=mail_options,
            rcpt_options=rcpt_options,
            all_or_nothing=all_or_nothing,
        )
        make = _from_headers(msg, from_addr, to_addrs)
        return await self._send(options, make, progress=progress)

    async def _send(
        self,
        envelope: Envelope,
        make: Callable[[bool, bool], Prepared] | None = None,
        ledger: Ledger | None = None,
        *,
        progress: Progress | None = None,
        trial: bool = False,
    ) -> SendResult:
        """Send one message.

        Args:
            envelope: what was asked for.
            make: prepares it once it is known what the server offers, if the envelope does not say all.
            ledger: where the account is written.
            progress: told how much of the content has left.
            trial: find out whether BDAT may be used, if that is not known: many messages follow.
        """
        if ledger is None:
            ledger = Ledger(envelope.recipients)
        else:
            ledger.begin(envelope.recipients)
        lease: Lease | None = None
        try:
            lease = await self._take_turn()
            stream = self._pipelining == "stream"
            binary = bool(envelope.mail_options) and _is_binary(envelope)
            if binary and isinstance(envelope.content, Message):
                raise ValueError("a message object has lines, and BINARYMIME is for octets that have none")
            trial = trial or stream or binary
            connection = self._at_hand(trial) or await self._ready(trial)
            extensions = connection.session.extensions
            prepared = await preparing.prepared(
                make or _as_given(envelope, binary),
                envelope.content,
                eightbitmime=extensions.eightbitmime,
                smtputf8=extensions.smtputf8,
            )
            if make is not None:
                ledger.begin(prepared.recipients.texts)
                envelope = replace(envelope, sender=prepared.sender.text, recipients=ledger.addresses)
            transaction = Transaction(
                prepared,
                extensions,
                ledger,
                lmtp=self._lmtp,
                pipelined=self._pipelining != "off",
                chunked=self._may_chunk(connection),
                shared=stream and extensions.pipelining,
                unsettled=connection.session.unsettled,
                all_or_nothing=envelope.all_or_nothing,
                esmtp=connection.esmtp,
                mail_options=envelope.mail_options,
                rcpt_options=envelope.rcpt_options,
                progress=progress,
            )
            if binary and not (transaction.chunked and "binarymime" in extensions):
                raise SMTPNotSupportedError(_why_not_binary(self._chunking))
            ledger.carrier = connection.serial
            lent = lease if transaction.shared else None
            try:
                if isinstance(prepared.content, InMemory):
                    await connection.run(deliver(transaction), home=_READY, lease=lent)
                else:
                    async with opened(prepared.content) as content:
                        prepared.content = content
                        await connection.run(deliver(transaction), home=_READY, lease=lent)
            finally:
                if transaction.unchunkable:
                    self._note_verdict(connection, False)
        except BaseException as error:
            if isinstance(error, SMTPException):
                error.host = error.host or self._settings.endpoint.name
            ledger.stamp(error)
            raise
        finally:
            if lease is not None:
                lease.give_back()
        return SendResult(ledger, envelope)

    # -- BDAT or DATA ------------------------------------------------------------------

    def _may_chunk(self, connection: Connection) -> bool:
        if self._chunking == "off" or connection.chunking is False:
            return False
        return self._chunking == "eager" or connection.chunking is True

    def _untried(self, connection: Connection) -> bool:
        """True if a trial would tell whether BDAT may be used, and may take place now."""
        session = connection.session
        if self._chunking != "auto" or connection.chunking is not None or not session.extensions.chunking:
            return False
        # In an envelope that was begun by hand the chunk of the trial would be a message.
        return session.phase is Phase.READY and connection.recipients is not None

    async def _failed_trial(self, connection: Connection) -> bool:
        """Find out whether BDAT may be used; True if the connection was lost over it."""
        session = connection.session
        await connection.protocol.idle()
        if connection.alive:
            try:
                verdict = await connection.run(prove())
            except SMTPException:
                verdict = False
            if isinstance(session.failure, SMTPProtocolError):
                verdict = False  # it said more than the two replies
            if verdict is not None:
                self._note_verdict(connection, verdict)
        return not connection.alive

    def _note_verdict(self, connection: Connection, verdict: bool) -> None:
        connection.chunking = verdict
        VERDICTS.remember(_known_as(connection), verdict)

    def _take_over(self, connection: Connection) -> None:
        """A new connection: what is known about its server, and how it is to be written to."""
        connection.chunking = VERDICTS.of(_known_as(connection))
        connection.protocol.gathering = self._pipelining == "stream"

    def _at_hand(self, trial: bool) -> Connection | None:
        """The connection, if a message may go over it as it is."""
        connection = self._connection
        if connection is None or not connection.ready or (trial and self._untried(connection)):
            return None
        return connection

    async def _ready(self, trial: bool) -> Connection:
        """The connection for a send, made anew if it was lost: nothing of this message was sent."""
        raise NotImplementedError("only a client knows how it connects")

    # -- many --------------------------------------------------------------------------

    async def send_messages(
        self,
        messages: Iterable[Message | Envelope] | AsyncIterable[Message | Envelope],
        *,
        ordered: bool = False,
    ) -> AsyncGenerator[Outcome, None]:
        """Send many messages; yields one `Outcome` a message as each becomes known.

        A message that cannot be sent, for whatever reason, is an outcome, not the end. What the
        iterable itself raises ends the run. Messages are taken from it one at a time; with
        `pipelining="stream"` a bounded number of them is under way. A caller who stops early
        cancels what is under way.

        Args:
            messages: message objects (sent as by `send_message`) or `Envelope`s.
            ordered: yield in the order of the messages, not as they become known.
        """
        if isinstance(messages, Message | Envelope):
            raise TypeError("send_messages takes an iterable of messages; for one there is send_message")
        if self._pipelining == "stream":
            run = in_window(messages, self._outcome, WINDOW, ordered=ordered)
        else:
            run = one_by_one(messages, self._outcome)
        async with contextlib.aclosing(run) as outcomes:
            async for outcome in outcomes:
                yield outcome

    async def _outcome(self, index: int, message: Message | Envelope) -> Outcome:
        ledger, result, failure = Ledger(()), None, None
        try:
            if isinstance(message, Envelope):
                result = await self._send(message, None, ledger, trial=True)
            elif isinstance(message, Message):
                result = await self._send(
                    Envelope("", (), message), _from_headers(message), ledger, trial=True
                )
            else:
                raise TypeError(f"send_messages takes messages and Envelopes, not {type(message).__name__}")
        except Exception as error:
            failure = error
        delivery = ledger.delivery if result is None else Delivery.ACCEPTED
        attempts = 0 if ledger.carrier is None else 1
        return Outcome(index, message, delivery, result, failure, attempts, ledger.carrier)


def _as_given(envelope: Envelope, binary: bool) -> Callable[[bool, bool], Prepared]:
    """What prepares an envelope that says who sends and who receives."""

    def make(eightbitmime: bool, smtputf8: bool) -> Prepared:
        return prepare(
            envelope.sender,
            envelope.recipients,
            envelope.content,
            eightbitmime=eightbitmime,
            smtputf8=smtputf8,
            binary=binary,
        )

    return make


def _known_as(connection: Connection) -> str:
    """What a verdict goes by. Servers are known that discard a refused chunk only after a login."""
    name = connection.destination
    return f"{name}, logged in" if name and connection.session.authenticated else name


def _is_binary(envelope: Envelope) -> bool:
    """True if the caller asks for BINARYMIME (RFC 3030 section 3)."""
    return any(option.upper() == "BODY=BINARYMIME" for option in envelope.mail_options)


def _why_not_binary(chunking: Chunking) -> str:
    text = "BODY=BINARYMIME needs BDAT, "
    if chunking == "off":
        return text + "which chunking='off' forbids"
    return text + "which the server does not offer, or has not been shown to get right"


def _from_headers(
    message: Message, from_addr: str | None = None, to_addrs: Sequence[str] | None = None
) -> Callable[[bool, bool], Prepared]:
    """What prepares a message object once it is known what the server offers."""

    def make(eightbitmime: bool, smtputf8: bool) -> Prepared:
        return prepare_message(message, from_addr, to_addrs, eightbitmime=eightbitmime, smtputf8=smtputf8)

    return make
