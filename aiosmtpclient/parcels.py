"""A parcel: one message on its way, with its account and all that another attempt needs.

What was asked for does not change from attempt to attempt, nor do the octets: a message that was
brought into wire form once is kept, so that a header or a boundary that is made up on the way is
made up once. Only a server that offers less than the one before gets another form.

Rules of this room:

* Preparing waits until it is known what the server offers. A large message is prepared in a thread.
* What can be read only once is sent only once: as soon as the first octet was asked for,
  `repeatable` is False. A file is read again from where it stood.
* `before` is called when everything is ready and nothing was written: the last moment to wait, to
  write down that the message leaves now, or to say no.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from email.message import Message
from typing import TypeAlias, cast

from . import preparing
from .content import InMemory, SourceKind, Stream
from .delivery import Journal, Ledger, Outcome, SendResult
from .errors import Delivery
from .extensions import Extensions
from .message import Envelope, Prepared, of_octets, prepare, prepare_message
from .steps import Progress

FromHeaders: TypeAlias = tuple[str | None, Sequence[str] | None]
"""Sender and recipients that were given besides a message object; None for those in its headers."""


class Parcel:
    """One message on its way.

    Args:
        envelope: what was asked for.
        headers: the envelope is that of the message's headers, but for the sender and the
            recipients given here.
        ledger: where the account is written; a new one if left out.
        progress: told how much of the content has left.
        before: awaited right before the first octet is written.

    Attributes:
        envelope: what was asked for; once it was prepared, with the addresses from the headers.
        ledger: the account of the newest attempt.
        attempts: how many times it was started on a connection.
        plain: nothing is asked for but to be sent.
        binary: BINARYMIME was asked for (RFC 3030 section 3).
        further: transactions that the newest attempt took beyond one.
        of_many: many messages may follow, so it is worth to find out whether BDAT may be used.
    """

    # Defaults of the class: most messages are plain, and are sent once.
    before: Callable[[], Awaitable[None]] | None = None
    progress: Progress | None = None
    of_many = binary = False
    plain = True
    attempts = further = 0
    _headers: FromHeaders | None = None
    _form: tuple[bool, bool] | None = None
    _prepared: Prepared | None = None
    _read = False
    _start: int | None = None

    def __init__(
        self,
        envelope: Envelope,
        *,
        headers: FromHeaders | None = None,
        ledger: Ledger | None = None,
        progress: Progress | None = None,
        before: Callable[[], Awaitable[None]] | None = None,
        of_many: bool = False,
    ) -> None:
        self.envelope = envelope
        if headers is not None:
            self._headers = headers
        if progress is not None:
            self.plain = False
            self.progress = progress
        if before is not None:
            self.before = before
        if of_many:
            self.of_many = True
        if not envelope.plain:
            self.plain = False
            self.binary = _is_binary(envelope)
        if ledger is None:
            self.ledger = Ledger(envelope.recipients)
        else:
            self.ledger = ledger
            ledger.begin(envelope.recipients)

    @classmethod
    def of(cls, message: Message | Envelope) -> Parcel:
        """What bulk calls take: an envelope, or a message whose headers say who gets it.

        Raises:
            TypeError: it is neither.
        """
        if isinstance(message, Envelope):
            return cls(message, of_many=True)
        if isinstance(message, Message):
            return cls(Envelope("", (), message), headers=(None, None), of_many=True)
        raise TypeError(f"send_messages takes messages and Envelopes, not {type(message).__name__}")

    def check(self) -> None:
        """Raise for what no server could take.

        Raises:
            ValueError: it is to leave octet for octet, and has none of its own.
        """
        if self.binary and isinstance(self.envelope.content, Message):
            raise ValueError("a message object has lines, and BINARYMIME is for octets that have none")

    def again(self) -> None:
        """Start the account over, for another attempt."""
        self.ledger.begin(self.envelope.recipients)
        self.further = 0

    @property
    def repeatable(self) -> bool:
        """The same octets can be sent again."""
        return not self._read

    def light(self, extensions: Extensions) -> Prepared | None:
        """The same as `prepared`, at once, if it is plain, light and in memory; else None."""
        envelope, prepared = self.envelope, self._prepared
        content, form = envelope.content, (extensions.eightbitmime, extensions.smtputf8)
        if not self.plain:
            return None
        if type(content) is bytes:
            if len(content) > preparing.LIGHT:
                return None
            if prepared is None or form != self._form:
                prepared = self._prepared = of_octets(envelope.sender, envelope.recipients, content, *form)
                self._form = form
            return prepared
        if not isinstance(content, Message) or not preparing.is_light(content):
            return None
        if prepared is None or form != self._form:
            prepared = self._make(*form)
            self._keep(prepared, form)
        return prepared

    async def prepared(self, extensions: Extensions) -> Prepared:
        """The message in the form for a server that offers this.

        Raises:
            ValueError: it cannot be sent as it is.
            SMTPNotSupportedError: it can be sent, only not to this server.
        """
        parameters, prepared = self.envelope.parameters, self._prepared
        form = (extensions.eightbitmime, extensions.smtputf8)
        if parameters is not None and parameters.body == "7bit":
            form = (False, form[1])
        if prepared is None or form != self._form:
            prepared = await preparing.prepared(
                self._make, self.envelope.content, eightbitmime=form[0], smtputf8=form[1]
            )
            self._keep(prepared, form)
        if isinstance(prepared.content, InMemory):
            return prepared
        return replace(prepared, content=self._source(prepared.content))

    def _keep(self, prepared: Prepared, form: tuple[bool, bool]) -> None:
        self._prepared, self._form = prepared, form
        if self._headers is not None:
            texts = tuple(prepared.recipients.texts)
            self.envelope = replace(self.envelope, sender=prepared.sender.text, recipients=texts)
            self.ledger.begin(texts)
            self._headers = None

    def _make(self, eightbitmime: bool, smtputf8: bool) -> Prepared:
        envelope, content = self.envelope, self.envelope.content
        parameters = envelope.parameters
        utf8 = parameters is not None and bool(parameters.smtputf8)
        if self._headers is not None and isinstance(content, Message):
            return prepare_message(
                content, *self._headers, eightbitmime=eightbitmime, smtputf8=smtputf8, utf8=utf8
            )
        seven_bit = parameters is not None and parameters.body == "7bit"
        made = prepare(
            envelope.sender,
            envelope.recipients,
            content,
            # A message object can be encoded; of anything else it is only asked below.
            eightbitmime=eightbitmime or (seven_bit and not isinstance(content, Message)),
            smtputf8=smtputf8,
            binary=self.binary,
            utf8=utf8,
        )
        if parameters is not None:
            parameters.check_content(made.content.eightbit)
        return made

    @property
    def divisible(self) -> bool:
        """The same octets can leave several times: they are here, or can be read again."""
        if self._prepared is None or self._read:
            return False
        content = self._prepared.content
        if isinstance(content, InMemory) or content.kind in (SourceKind.FILE, SourceKind.PATH):
            return True
        return not isinstance(content.source, Iterator | AsyncIterator)  # which is gone when it was read

    # -- what is read while it is sent ---------------------------------------------------

    def _source(self, content: Stream) -> Stream:
        """The same content, to be read from its beginning; notes when that cannot be done again."""
        source = content.source
        if content.kind is SourceKind.FILE:
            self._rewind(source)
        elif content.kind is SourceKind.ITERABLE:
            lines = iter(cast("Iterable[bytes]", source))
            if lines is source:
                return Stream(_Once(self, lines), content.kind, binary=content.binary)
        elif content.kind is SourceKind.ASYNC_ITERABLE:
            pieces = aiter(cast("AsyncIterable[bytes]", source))
            if pieces is source:
                return Stream(_OnceAwaited(self, pieces), content.kind, binary=content.binary)
        return content

    def _rewind(self, file: object) -> None:
        tell, seek = getattr(file, "tell", None), getattr(file, "seek", None)
        try:
            if tell is None or seek is None:
                raise OSError("it cannot be read twice")
            if self._start is None:
                self._start = tell()
            else:
                seek(self._start)
        except OSError:  # a pipe, say
            self._read = True

    def note_read(self) -> None:
        """What can be read only once is being read."""
        self._read = True


class _Once:
    """An iterator that says when it is read. No generator: those want to be closed."""

    def __init__(self, parcel: Parcel, source: Iterator[bytes]) -> None:
        self._parcel = parcel
        self._source = source

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self._parcel.note_read()
        return next(self._source)


class _OnceAwaited:
    """The same for what is awaited."""

    def __init__(self, parcel: Parcel, source: AsyncIterator[bytes]) -> None:
        self._parcel = parcel
        self._source = source

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    def __anext__(self) -> Awaitable[bytes]:
        self._parcel.note_read()
        return anext(self._source)


async def account(
    index: int,
    message: Message | Envelope,
    send: Callable[[Parcel], Awaitable[SendResult]],
    journal: Journal | None = None,
    parcel: Parcel | None = None,
) -> Outcome:
    """Send one message of many; whatever comes of it, a cancellation excepted, is its outcome.

    Args:
        index: its position among them.
        message: what was given.
        send: sends it.
        journal: told before it leaves, and what became of it, also when this is cancelled.
        parcel: the message on its way, if it is already.
    """
    result: SendResult | None = None
    failure: BaseException | None = None
    entry: _Entry | None = None
    outcome: Outcome | None = None
    try:
        try:
            parcel = parcel or Parcel.of(message)
            if journal is not None:
                entry = _Entry(journal, index, message)
                parcel.before = entry.begin
            result = await send(parcel)
        except BaseException as error:
            failure = error
        if parcel is None:
            outcome = Outcome(index, message, Delivery.NOT_SENT, None, failure, 0)
        else:
            ledger = parcel.ledger
            delivery = ledger.delivery if result is None else Delivery.ACCEPTED
            outcome = Outcome(index, message, delivery, result, failure, parcel.attempts, ledger.carrier)
        if journal is not None:
            journal.end(outcome)
        if failure is not None:
            unwritten = entry is not None and failure is entry.failure
            if unwritten or not isinstance(failure, Exception):
                raise failure
        return outcome
    finally:
        failure = entry = outcome = None  # its traceback has this frame: no cycle


class _Entry:
    """What a journal is told before a message leaves, and whether it could write that down."""

    __slots__ = ("_entry", "_journal", "failure")

    def __init__(self, journal: Journal, index: int, message: Message | Envelope) -> None:
        self._journal = journal
        self._entry = index, message
        self.failure: BaseException | None = None

    async def begin(self) -> None:
        try:
            self._journal.begin(*self._entry)
        except BaseException as error:
            self.failure = error
            raise


def _is_binary(envelope: Envelope) -> bool:
    """True if the caller asks for BINARYMIME (RFC 3030 section 3)."""
    parameters = envelope.parameters
    if parameters is not None and parameters.body == "binarymime":
        return True
    return any(option.upper() == "BODY=BINARYMIME" for option in envelope.mail_options)
