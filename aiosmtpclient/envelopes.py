"""The envelope of a transaction: MAIL and every RCPT, written, read and judged, as dialogues.

RFC 5321 section 3.3 is the sequence, RFC 2920 what may leave in one write. What comes behind
the envelope, the content and the reply that decides, is in `transactions`.

Rules of this room:

* Everything is checked before the first octet leaves: a local failure at the second recipient
  must not leave an envelope open at the server.
* All replies of a group are read, and every one is looked at, before anything is judged.
* What is learnt about a recipient goes into the ledger before anything else happens, also when
  an error or a cancellation ends the dialogue half-way.
* A refusal leaves the connection usable: RSET, and if that gets no 2yz, the connection is given
  up. The refusal is the news in any case, whatever becomes of the connection.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Container, Generator, Sequence
from typing import NamedTuple

from . import commands
from .delivery import Ledger
from .dialogues import broken, reset
from .errors import (
    Delivery,
    SMTPException,
    SMTPNotSupportedError,
    SMTPProtocolError,
    SMTPRecipientsRefused,
    SMTPSenderRefused,
    SMTPServerDisconnected,
    SMTPTimeoutError,
)
from .extensions import Extensions
from .message import Prepared
from .parameters import Parameters
from .recipients import Notify, rcpt
from .replies import Reply
from .steps import Dialogue, Phase, Progress, Step, give_up

GROUP = 1000
"""Commands that leave in one write: what is outstanding stays bounded, however many recipients."""

# The connection is gone; the refusal before it is still the news.
_GONE = (SMTPServerDisconnected, SMTPProtocolError, SMTPTimeoutError)


class Transaction:
    """One message, ready to go: what `transactions.deliver` needs to know.

    Attributes:
        prepared: sender, recipients and content, checked.
        extensions: what this server offers, after HELO nothing.
        ledger: where the account is written.
        lmtp: one reply a recipient after the content (RFC 2033).
        pipelined: MAIL, every RCPT and DATA leave in one write, if the server offers it.
        chunked: BDAT may be used, if the server offers it.
        shared: others write behind the end of this content, before its reply is in.
        unsettled: a chunk before this may have been refused, so RSET comes first.
        all_or_nothing: one refused recipient refuses all.
        esmtp: parameters may be sent: the server answered EHLO or LHLO.
        mail_options: parameters for MAIL, as they go out.
        rcpt_options: parameters for each RCPT.
        each: parameters for the RCPT at each position, in place of those, where they differ.
        size: octets that the caller says there are, where nobody can know it.
        seven_bit: octets over 127 in content that is read while it is sent are an error.
        progress: told how much of the content has left.
        unchunkable: BDAT turned out not to be implemented.
        begun: the first steps, if they were performed already, see `express`.
    """

    __slots__ = (
        "all_or_nothing", "begun", "chunked", "each", "esmtp", "extensions", "ledger", "lmtp", "mail_options",
        "pipelined", "prepared", "progress", "rcpt_options", "seven_bit", "shared", "size", "unchunkable",
        "unsettled",
    )  # fmt: skip

    def __init__(
        self,
        prepared: Prepared,
        extensions: Extensions,
        ledger: Ledger,
        *,
        lmtp: bool = False,
        pipelined: bool = True,
        chunked: bool = False,
        shared: bool = False,
        unsettled: bool = False,
        all_or_nothing: bool = False,
        esmtp: bool = True,
        mail_options: Sequence[str] = (),
        rcpt_options: Sequence[str] = (),
        progress: Progress | None = None,
    ) -> None:
        self.prepared = prepared
        self.extensions = extensions
        self.ledger = ledger
        self.lmtp = lmtp
        self.pipelined = pipelined and extensions.pipelining
        self.chunked = chunked and extensions.chunking
        self.shared = shared
        self.unsettled = unsettled
        self.all_or_nothing = all_or_nothing
        self.esmtp = esmtp
        self.mail_options = mail_options
        self.rcpt_options = rcpt_options
        self.each: Sequence[Sequence[str]] | None = None
        self.size: int | None = None
        self.seven_bit = not extensions.eightbitmime
        self.progress = progress
        self.unchunkable = False
        self.begun: list[Step] = []

    def ask(self, parameters: Parameters | None, *, encrypted: bool) -> None:
        """Put typed options into the words that this server understands.

        Args:
            parameters: those of the message.
            encrypted: the connection is inside TLS.

        Raises:
            SMTPNotSupportedError: the server does not offer what they need.
            ValueError: the same is asked for by a raw option.
        """
        notify: Notify | None = None
        if parameters is not None:
            notify, self.size = parameters.notify, parameters.size
            asked = parameters.mail(self.extensions, encrypted=encrypted)
            self.mail_options = (*asked, *self.mail_options)
            self.seven_bit = self.seven_bit or parameters.body == "7bit"
        if notify is None and not self.prepared.recipients.special:
            return
        texts, smtputf8 = self.prepared.recipients.texts, self.prepared.smtputf8
        self.each = rcpt(texts, self.rcpt_options, notify, self.extensions, smtputf8=smtputf8)

    def part(self, positions: Sequence[int], prepared: Prepared, ledger: Ledger) -> Transaction:
        """The same for some of the recipients alone.

        Args:
            positions: theirs.
            prepared: the message, for everybody.
            ledger: where the account is written.
        """
        some = copy.copy(self)
        some.prepared = Prepared(
            prepared.sender, prepared.recipients.some(positions), prepared.content, prepared.smtputf8
        )
        some.ledger = ledger
        some.each = [self.each[position] for position in positions] if self.each is not None else None
        some.shared = False
        return some


# -- what is written -----------------------------------------------------------------------


class Lines(NamedTuple):
    """An envelope as it goes out, all of it checked.

    Attributes:
        mail: the MAIL command, in a group with RSET before it where that is needed.
        rcpts: the RCPT commands, in groups of so many that leave in one write.
        counts: how many recipients are in each group.
    """

    mail: bytes
    rcpts: list[bytes]
    counts: list[int]


def lines_of(transaction: Transaction) -> Lines:
    """MAIL and every RCPT, all checked before the first octet leaves.

    Raises:
        SMTPSenderRefused: the content is larger than the server takes.
        SMTPNotSupportedError: an option needs an extension the server lacks.
        ValueError: an address or option that must not go on the wire.
    """
    prepared, given = transaction.prepared, transaction.mail_options
    names = {commands.option(option).partition("=")[0].upper() for option in given} if given else ()
    if "SMTPUTF8" in names and not transaction.extensions.smtputf8:
        raise SMTPNotSupportedError("the server does not offer SMTPUTF8, which mail_options ask for")
    _refuse_too_large(transaction)
    options = [*_own_options(transaction, names), *given] if transaction.esmtp else []
    utf8 = bool(options) and (prepared.smtputf8 or "SMTPUTF8" in names)
    mail = commands.mail(prepared.sender.path, options, utf8=utf8)
    if transaction.unsettled and transaction.pipelined:
        mail = commands.RSET + mail
    paths, most = prepared.recipients.paths, GROUP if transaction.pipelined else 1
    rcpt_options = transaction.rcpt_options if transaction.esmtp else ()
    if transaction.each is not None:
        one_by_one = [
            commands.rcpt(path, options, utf8=utf8)
            for path, options in zip(paths, transaction.each, strict=True)
        ]
        parts = [one_by_one[start : start + most] for start in range(0, len(paths), most)]
        return Lines(mail, [b"".join(part) for part in parts], [len(part) for part in parts])
    if len(paths) < most:
        return Lines(mail, [commands.rcpts(paths, rcpt_options, utf8=utf8)], [len(paths)])
    groups = [paths[start : start + most] for start in range(0, len(paths), most)]
    rcpts = [commands.rcpts(group, rcpt_options, utf8=utf8) for group in groups]
    return Lines(mail, rcpts, [len(group) for group in groups])


def _own_options(transaction: Transaction, names: Container[str]) -> list[str]:
    prepared, extensions = transaction.prepared, transaction.extensions
    content, options = prepared.content, []
    size = transaction.size if content.size is None else content.size
    if extensions.size and size is not None and "SIZE" not in names:
        options.append(f"SIZE={size}")
    eightbit = prepared.smtputf8 or content.eightbit is not False
    if eightbit and extensions.eightbitmime and "BODY" not in names:
        options.append("BODY=8BITMIME")
    if prepared.smtputf8 and "SMTPUTF8" not in names:
        options.append("SMTPUTF8")
    return options


def _refuse_too_large(transaction: Transaction) -> None:
    size, limit = transaction.prepared.content.size, transaction.extensions.size_limit
    if size is None:
        size = transaction.size
    if size is None or limit is None or size <= limit:
        return
    # What the server would say (RFC 1870 section 6.1), without the trip.
    text = f"5.3.4 the message has {size} octets, the server takes {limit}".encode()
    transaction.ledger.decide_open(Reply(552, text))
    sender = transaction.prepared.sender.text
    raise SMTPSenderRefused(552, text, sender, reply=Reply(552, text))


# -- how it is written ---------------------------------------------------------------------


def grouped(transaction: Transaction, lines: Lines) -> Dialogue[Reply | None]:
    """MAIL and every RCPT in as few writes as may be (RFC 2920 section 3.1), DATA with the last.

    Returns:
        The reply to DATA; None if that was not sent, for BDAT is to follow, or because after a
        354 a lone dot would deliver an empty message to those who were accepted.
    """
    with_data = not (transaction.all_or_nothing or transaction.chunked)
    recipients = len(transaction.prepared.recipients)
    received: list[Reply] = []
    try:
        for number, (rcpts, count) in enumerate(zip(lines.rcpts, lines.counts, strict=True)):
            last = with_data and number == len(lines.rcpts) - 1
            mail = b"" if number else lines.mail
            verbs = [] if number else opening_verbs(transaction)
            begun = transaction.begun
            step = begun.pop(0) if begun else group(mail + rcpts, [*verbs, *["RCPT"] * count], with_data=last)
            try:
                yield step
            finally:
                received += step.received
            if len(step.received) < step.owed or received[-1].code == 421:
                break
    finally:
        replies = without_reset(transaction, received)
        envelope, answer = replies[: recipients + 1], replies[recipients + 1 :]
        if envelope and max(envelope).code >= 300 and not _out_of_step(envelope, answer):
            note(transaction.ledger, envelope)
    data = answer[0] if answer else None
    if not envelope or max(envelope).code < 300:  # what mostly happens
        return data
    yield from judge_classes(envelope)
    if (refusal := judged(transaction, envelope)) is not None:
        yield from _leave_envelope(transaction, envelope, refusal.reply, data)
        try:
            raise refusal.error
        finally:
            del refusal  # no cycle: the traceback of its error has this frame
    return data


def _out_of_step(envelope: Sequence[Reply], answer: Sequence[Reply]) -> bool:
    """True if what answers DATA stands where MAIL or RCPT is answered: whom a no is for nobody knows."""
    return any(reply.intermediate for reply in envelope) and not any(reply.intermediate for reply in answer)


def group(octets: bytes, verbs: list[str], *, with_data: bool) -> Step:
    """Commands that leave in one write; after DATA the content follows."""
    if not with_data:
        return Step(octets, *verbs, owed=len(verbs), during=Phase.MAIL, then=Phase.MAIL)
    verbs.append("DATA")
    return Step(octets + commands.DATA, *verbs, owed=len(verbs), during=Phase.MAIL, then=Phase.CONTENT)


def lock_step(transaction: Transaction, lines: Lines) -> Dialogue[None]:
    """One command, one reply."""
    envelope: list[Reply] = []
    if transaction.unsettled:
        yield from reset()
    for position, line in enumerate([lines.mail, *lines.rcpts]):
        verb = "RCPT" if position else "MAIL"
        step = Step(line, verb, during=Phase.MAIL, then=Phase.MAIL)
        [reply] = yield step
        envelope.append(reply)
        if position and (reply.temporary or reply.permanent):
            transaction.ledger.decide(position - 1, reply)
        if reply.code == 421 or reply.intermediate or not envelope[0].positive:
            break
    yield from judge_classes(envelope)
    if (refusal := judged(transaction, envelope)) is not None:
        yield from reset_after(refusal.reply)
        try:
            raise refusal.error
        finally:
            del refusal  # no cycle: the traceback of its error has this frame


def opening_verbs(transaction: Transaction) -> list[str]:
    """What the first lines of an envelope are called."""
    return ["RSET", "MAIL"] if transaction.unsettled else ["MAIL"]


def without_reset(transaction: Transaction, received: list[Reply]) -> list[Reply]:
    """The replies to what is behind RSET. Whether that worked shows in MAIL's own; only a 421 ends all."""
    if not transaction.unsettled or (received and received[0].code == 421):
        return received
    return received[1:]


# -- how it is judged ----------------------------------------------------------------------


class Refusal(NamedTuple):
    """Why an envelope leads nowhere: the reply, and the error that says so."""

    reply: Reply
    error: SMTPException


def note(ledger: Ledger, envelope: Sequence[Reply]) -> None:
    """Write down what the replies to MAIL and each RCPT decide."""
    if not envelope:
        return
    mail = envelope[0]
    if mail.code >= 400:
        ledger.decide_open(mail)
    elif mail.positive:
        for position, reply in enumerate(envelope[1:]):
            if reply.code >= 400:
                ledger.decide(position, reply)


def judge_classes(envelope: Sequence[Reply]) -> Generator[Step, list[Reply], None]:
    """MAIL and RCPT are answered with 2yz, 4yz or 5yz, and with nothing else."""
    for position, reply in enumerate(envelope):
        if reply.intermediate:
            yield from broken(reply, "RCPT" if position else "MAIL")


def judged(transaction: Transaction, envelope: Sequence[Reply]) -> Refusal | None:
    """What is wrong with an envelope: MAIL was refused, or nobody is left to send the message to."""
    ledger, mail = transaction.ledger, envelope[0]
    if not mail.positive:
        ledger.decide_open(mail)
        sender = transaction.prepared.sender.text
        return Refusal(mail, SMTPSenderRefused(mail.code, mail.message, sender, reply=mail))
    refusals = [reply for reply in envelope[1:] if reply.code >= 400]
    if not refusals:
        return None
    if refusals[-1].code == 421:
        # The transaction ends with the connection: who was accepted before is refused for now.
        ledger.decide_open(refusals[-1])
        return Refusal(refusals[-1], SMTPRecipientsRefused(ledger.refused))
    if transaction.all_or_nothing:
        ledger.as_a_whole = Delivery.REFUSED
    elif any(reply.positive for reply in envelope[1:]) or len(envelope) <= len(ledger.addresses):
        return None
    return Refusal(refusals[0], SMTPRecipientsRefused(ledger.refused))


# -- how it is left ------------------------------------------------------------------------


def _leave_envelope(
    transaction: Transaction, envelope: Sequence[Reply], refusal: Reply, data: Reply | None
) -> Generator[Step, list[Reply], None]:
    """Get out of an envelope that leads nowhere, or give the connection up.

    Args:
        data: the reply to DATA, if that left in the same write.
    """
    if data is not None and data.intermediate:
        # Somebody accepted after a refused MAIL, and a 354: a dot would send him an empty message.
        if transaction.lmtp or any(reply.positive for reply in envelope[1:]):
            yield give_up()
            return
        with contextlib.suppress(*_GONE):
            yield from _lone_dot()
        return
    if data is not None and data.positive:
        yield give_up()
        return
    yield from reset_after(refusal)


def _lone_dot() -> Generator[Step, list[Reply], None]:
    """End content that was never begun: the server went on though nobody was accepted (RFC 2920 3.1)."""
    step = Step(commands.END_OF_CONTENT, "end of content", during=Phase.CONTENT, then=Phase.READY)
    [reply] = yield step
    if reply.intermediate:
        yield give_up()


def reset_after(refusal: Reply) -> Generator[Step, list[Reply], None]:
    """RSET, unless the server has taken its leave; the refusal stays the news."""
    if refusal.code != 421:
        with contextlib.suppress(*_GONE):
            yield from reset()
