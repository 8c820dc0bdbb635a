"""Sending: one message, or many of them, over one connection that tasks may share.

`Sending` is what `AsyncSMTP` and `AsyncLMTP` are made of besides connecting (`client`) and the
single verbs (`verbs`, `by_hand`). Which way a message takes, DATA or BDAT, how much of it in one write, and
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

from collections.abc import Awaitable, Callable
from email.message import Message
from typing import ClassVar, Literal, TypeAlias

from . import express
from .bodies import opened
from .bulk import Carry, in_window, one_by_one
from .by_hand import ByHand
from .chunking import VERDICTS, prove
from .connection import Connection
from .content import InMemory
from .delivery import Journal, Ledger, SendResult
from .envelopes import Transaction, lines_of
from .errors import (
    SMTPException,
    SMTPNotSupportedError,
    SMTPProtocolError,
    SMTPRecipientsRefused,
    SMTPServerDisconnected,
)
from .express import Begun, Terms
from .mailing import Mailing, Messages, Run
from .message import Envelope
from .parcels import Parcel
from .parts import REFUSALS, USUAL, Division, division, over_limit, rest
from .plain import Octets, Plain
from .plans import Settings
from .steps import Phase, Step
from .transactions import deliver
from .turn import Lease

Pipelining: TypeAlias = Literal["off", "message", "stream"]
Chunking: TypeAlias = Literal["off", "auto", "eager"]

WINDOW = 32
"""Messages that `send_messages` has under way at a time in a stream."""
_READY = (Phase.READY,)


class Sending(Mailing, ByHand):
    """What sends messages, on top of the verbs."""

    _lmtp: ClassVar[bool] = False

    def __init__(self, settings: Settings, pipelining: Pipelining, chunking: Chunking) -> None:
        self._pipelining: Pipelining = pipelining
        self._chunking: Chunking = chunking
        # No new connection could be made: the rest of a run does not wait for that again.
        self._unreachable = False
        super().__init__(settings)

    # -- one message ------------------------------------------------------------------------

    async def _send(self, parcel: Parcel, begun: Begun | None = None) -> SendResult:
        """Send one message; the account is in the parcel's ledger, whatever comes of it.

        Args:
            parcel: the message.
            begun: it has left, and what came of it is to be judged.
        """
        ledger = parcel.ledger
        lease: Lease | None = None
        try:
            lease = begun.lease if begun is not None else None
            lease = lease or self._turn_at_once() or await self._take_turn()
            if begun is None and (plain := self._plain(parcel)) is not None:
                begun = await self._send_plain(parcel, *plain)
                if begun is None:
                    return SendResult(ledger, parcel.envelope)
            transaction = await self._at_length(parcel, lease, begun)
        except BaseException as error:
            if isinstance(error, SMTPException):
                error.host = error.host or self._settings.endpoint.name
            ledger.stamp(error)
            raise
        finally:
            if lease is not None:
                lease.give_back()
        result = SendResult(ledger, parcel.envelope)
        if result and transaction is not None and over_limit(ledger):
            return await self._send_rest(parcel, transaction)
        return result

    def _plain(self, parcel: Parcel) -> tuple[Connection, Terms, Octets] | None:
        """Where a message may begin at once, and its octets, if it is plain; else None.

        Raises:
            ValueError, SMTPNotSupportedError: it cannot be sent as it is.
        """
        connection = self._connection
        if connection is None or not parcel.plain or not connection.free:
            return None
        terms = self.terms(connection, of_many=parcel.of_many)
        if terms is None:
            return None
        envelope, octets = parcel.envelope, None
        if type(envelope.content) is bytes:
            octets = express.octets_of(envelope.sender, envelope.recipients, envelope.content, terms)
        if octets is None and (prepared := parcel.light(connection.session.extensions)) is not None:
            octets = express.octets_of_prepared(prepared, terms)
        return (connection, terms, octets) if octets is not None else None

    def terms(self, connection: Connection, *, of_many: bool) -> Terms | None:
        """What plain messages are to be like there now; None if they take the long way.

        Args:
            connection: this client's.
            of_many: many messages may follow.
        """
        if self._pipelining != "message" or self._lmtp:
            return None
        if of_many and (self._unreachable or self._untried(connection)):
            return None
        return express.terms_of(connection, chunked=self._may_chunk(connection))

    async def _send_plain(
        self, parcel: Parcel, connection: Connection, terms: Terms, octets: Octets
    ) -> Begun | None:
        """Send a plain message; None if everybody was accepted, else what there is to judge."""
        if parcel.before is not None:
            await self._before(parcel.before, connection)
        over = connection.loop.create_future()
        plain = Plain(over, connection.session.secrets, chunked=terms.chunked)
        first = plain.start(octets)
        error: BaseException | None = None
        try:
            connection.protocol.begin(plain, first, connection.loop.time())
            if await over:
                parcel.attempts += 1
                parcel.ledger.carrier = connection.serial
                parcel.ledger.accept(plain.replies[-1])
                return None
        except BaseException as failure:
            error = failure
        try:
            return Begun(connection, plain, error)
        except BaseException:
            connection.drop()  # nobody is left to read what the server says
            if plain.ended:
                parcel.ledger.end_left()
            raise
        finally:
            del error, plain, over  # no cycle: an error has this frame in its traceback

    async def _at_length(self, parcel: Parcel, lease: Lease, begun: Begun | None) -> Transaction | None:
        """Send whatever there may be, or go on with what was begun; None if it went in parts.

        Args:
            parcel: the message.
            lease: the turn.
            begun: the message has left, and what came of it is to be judged.
        """
        steps: list[Step] = []
        if begun is not None:
            connection, chunked, steps = begun.connection, begun.chunked, begun.steps
            prepared = begun.settle(parcel)
            pipelining: Pipelining = "message"  # a pool may have changed its mind meanwhile
        else:
            pipelining = self._pipelining
            connection = await self._for(parcel)
            prepared = await parcel.prepared(connection.session.extensions)
            chunked = self._may_chunk(connection)
        session, envelope, parameters = connection.session, parcel.envelope, parcel.envelope.parameters
        transaction = Transaction(
            prepared,
            session.extensions,
            parcel.ledger,
            lmtp=self._lmtp,
            pipelined=pipelining != "off",
            chunked=chunked,
            shared=pipelining == "stream" and session.extensions.pipelining,
            unsettled=session.unsettled and not steps,
            all_or_nothing=envelope.all_or_nothing,
            esmtp=connection.esmtp,
            mail_options=envelope.mail_options,
            rcpt_options=envelope.rcpt_options,
            progress=parcel.progress,
        )
        transaction.begun = steps
        if parameters is not None or prepared.recipients.special:
            transaction.ask(parameters, encrypted=session.encrypted)
        if parcel.binary and not (transaction.chunked and "binarymime" in session.extensions):
            raise SMTPNotSupportedError(_why_not_binary(self._chunking))
        if session.extensions.limited or connection.most_recipients is not None:
            divided = self._divided(parcel, transaction, connection.most_recipients)
            if divided is not None:
                await self._deliver_in_parts(transaction, parcel, connection, divided)
                return None
        if type(prepared.content) is InMemory:
            await self._deliver(transaction, parcel, connection, lease)
            return transaction
        async with opened(prepared.content) as content:
            if parameters is not None:
                parameters.check_content(content.eightbit)
            prepared.content = content
            await self._deliver(transaction, parcel, connection, lease)
        return transaction

    async def _for(self, parcel: Parcel) -> Connection:
        """The connection that this message is to take."""
        if parcel.binary:
            parcel.check()
        if parcel.of_many and self._unreachable:
            raise SMTPServerDisconnected("not connected: no new connection could be made")
        trial = parcel.of_many or self._pipelining == "stream" or parcel.binary
        return self._at_hand(trial) or await self._ready(trial)

    # -- to more recipients than a server takes at a time ------------------------------------

    def _divided(self, parcel: Parcel, transaction: Transaction, learnt: int | None) -> Division | None:
        """How a message is to be divided, if it must be."""
        if not parcel.divisible:
            learnt = None  # those who are too many will hear it themselves
        divided = division(transaction, learnt)
        if divided is not None and not parcel.divisible:
            raise SMTPNotSupportedError(
                "the message has more recipients than the server takes at a time (LIMITS), and its content "
                "can be read only once: pass octets, a file or a path"
            )
        if divided is not None:
            lines_of(transaction)  # what is wrong with the last recipient is found before the first part
        return divided

    async def _deliver_in_parts(
        self, transaction: Transaction, parcel: Parcel, connection: Connection, divided: Division
    ) -> None:
        """The same, a transaction for each part."""
        await self._begin(parcel, connection)
        parcel.further = -1  # each part counts itself
        await self._send_in_parts(parcel, connection, transaction, divided)

    async def _send_in_parts(
        self, parcel: Parcel, connection: Connection, transaction: Transaction, divided: Division
    ) -> None:
        """Send to some, then to some more; the account of all is in the parcel's ledger."""
        ledger, first = parcel.ledger, None
        await connection.protocol.idle()  # it ends between two parts, so nobody else may be under way
        while positions := divided.next():
            prepared = await parcel.prepared(transaction.extensions)
            refusal: SMTPException | None = None
            part = transaction.part(positions, prepared, Ledger([ledger.addresses[p] for p in positions]))
            part.unsettled = connection.session.unsettled
            try:
                async with opened(prepared.content) as part.prepared.content:
                    if parcel.envelope.parameters is not None:
                        parcel.envelope.parameters.check_content(part.prepared.content.eightbit)
                    await connection.run(deliver(part), home=_READY)
            except REFUSALS as error:
                refusal = error
            finally:
                ledger.absorb(positions, part.ledger)
                divided.settle(positions, ledger)
                if part.unchunkable:
                    self._note_verdict(connection, False)
            parcel.further += 1
            transaction.chunked = part.chunked
            first = first or refusal
            if (reply := divided.judge(positions, part.ledger, refusal)) is not None:
                for position in divided.left:
                    ledger.decide(position, reply)
                break
        if divided.learnt is not None and divided.learnt >= USUAL:
            connection.most_recipients = divided.learnt
        if ledger.final is None and first is not None:
            raise SMTPRecipientsRefused(ledger.refused) if isinstance(first, SMTPRecipientsRefused) else first

    async def _send_rest(self, parcel: Parcel, transaction: Transaction) -> SendResult:
        """Send to those who were too many, in further transactions on the same connection."""
        ledger = parcel.ledger
        lease: Lease | None = None
        try:
            lease = await self._take_turn()
            connection = self._at_hand(False)
            if connection is not None and connection.serial == ledger.carrier and parcel.divisible:
                try:
                    await self._send_in_parts(parcel, connection, transaction, rest(transaction))
                except (SMTPException, OSError):
                    if ledger.open:
                        raise  # else they stay refused for now, which says it all
        except BaseException as error:
            ledger.stamp(error)
            raise
        finally:
            if lease is not None:
                lease.give_back()
        return SendResult(ledger, parcel.envelope)

    async def _before(self, before: Callable[[], Awaitable[None]], connection: Connection) -> None:
        await before()
        connection.protocol.check()  # it may have gone in the meantime
        connection.session.check()

    async def _begin(self, parcel: Parcel, connection: Connection) -> None:
        """Everything is ready: the next octet is the first."""
        if parcel.before is not None:
            await self._before(parcel.before, connection)
        parcel.attempts += 1
        parcel.ledger.carrier = connection.serial

    async def _deliver(
        self, transaction: Transaction, parcel: Parcel, connection: Connection, lease: Lease
    ) -> None:
        if not transaction.begun:
            await self._begin(parcel, connection)
            transaction.unsettled = connection.session.unsettled
        lent = lease if transaction.shared else None
        try:
            await connection.run(deliver(transaction), home=_READY, lease=lent)
        finally:
            if transaction.unchunkable:
                self._note_verdict(connection, False)

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

    def _run(
        self, messages: Messages, carry: Carry[Message | Envelope], ordered: bool, journal: Journal | None
    ) -> Run:
        if self._pipelining == "stream":
            return in_window(messages, carry, WINDOW, ordered=ordered, begin=self._begin_run)
        return one_by_one(messages, carry, begin=self._begin_run)

    def _begin_run(self) -> None:
        self._unreachable = False


def _known_as(connection: Connection) -> str:
    """What a verdict goes by. Servers are known that discard a refused chunk only after a login."""
    name = connection.destination
    return f"{name}, logged in" if name and connection.session.authenticated else name


def _why_not_binary(chunking: Chunking) -> str:
    text = "BODY=BINARYMIME needs BDAT, "
    if chunking == "off":
        return text + "which chunking='off' forbids"
    return text + "which the server does not offer, or has not been shown to get right"
