"""A message's transaction: from MAIL to the reply that decides, as a dialogue.

`deliver` sends one message; `content` sends what DATA introduces after somebody sent MAIL and
RCPT by hand. The envelope is in `envelopes`. How many round trips it takes, for r recipients:

===================================================  ==========================================
MAIL, each RCPT and DATA by themselves               r + 3
MAIL RCPT… DATA, then the content                    2 (RFC 2920 section 3.1)
MAIL RCPT… BDAT LAST and the content in one write    1 (RFC 3030 section 4.2)
===================================================  ==========================================

Rules of this room:

* BDAT and DATA never mix in one transaction. Where BDAT turns out not to be implemented, the
  transaction is done again with DATA, behind an RSET.
* Content larger than one write waits for a recipient's 2yz.
* Once others may write behind the end of the content, nothing more is written here: a refused
  chunk is left to the RSET before whatever comes next.
* In LMTP there is one reply for each recipient that was accepted (RFC 2033 section 4.2).
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from functools import partial

from . import commands
from .content import InMemory
from .delivery import Ledger
from .dialogues import broken, reset
from .envelopes import (
    Lines,
    Transaction,
    grouped,
    judge_classes,
    judged,
    lines_of,
    lock_step,
    note,
    opening_verbs,
    reset_after,
    without_reset,
)
from .errors import SMTPDataError, SMTPRecipientsRefused, SMTPServerDisconnected
from .message import Prepared
from .replies import Reply
from .steps import END, Dialogue, Phase, Progress, Step, give_up

ONE_WRITE = 64 * 1024
"""Octets of content up to which all of it leaves in one write."""
_NOT_IMPLEMENTED = frozenset({500, 502, 503})


def deliver(transaction: Transaction) -> Dialogue[Reply]:
    """Send one message; returns the reply to its content.

    Who got it stands in the ledger, also when this raises.

    Raises:
        SMTPSenderRefused: MAIL was refused, or SIZE says it would be.
        SMTPRecipientsRefused: nobody is left to send it to.
        SMTPDataError: DATA or the content was refused.
        SMTPServerDisconnected: in LMTP, replies for some recipients never came.
        SMTPNotSupportedError: an option needs an extension the server lacks; nothing was written.
    """
    lines = lines_of(transaction)
    begun = transaction.begun
    if begun[0].chunked if begun else len(lines.rcpts) == 1 and _fits_one_write(transaction):
        accepted = yield from _in_one_write(transaction, lines)
        return accepted or (yield from _once_more(transaction))
    data: Reply | None = None
    if transaction.pipelined:
        data = yield from grouped(transaction, lines)
    else:
        yield from lock_step(transaction, lines)
    if transaction.chunked:
        accepted = yield from _in_chunks(transaction)
        return accepted or (yield from _once_more(transaction))
    data = data or (yield from _data())
    if data.temporary or data.permanent:
        transaction.ledger.decide_open(data)
        yield from reset_after(data)
        raise SMTPDataError(data.code, data.message, reply=data, command="DATA")
    if not data.intermediate:
        yield from broken(data, "DATA")  # a 2yz to DATA: the content must never follow
    step = transaction.begun.pop(0) if transaction.begun else content_of(transaction)
    return (yield from _content(step, transaction.ledger, lmtp=transaction.lmtp))


def _fits_one_write(transaction: Transaction) -> bool:
    content = transaction.prepared.content
    return (
        transaction.chunked
        and transaction.pipelined
        and not transaction.all_or_nothing
        and isinstance(content, InMemory)
        and content.size <= ONE_WRITE
    )


def _once_more(transaction: Transaction) -> Dialogue[Reply]:
    """The same with DATA, after BDAT was refused as nothing the server knows, and RSET was not."""
    transaction.chunked, transaction.unchunkable = False, True
    transaction.ledger.begin_again()
    return (yield from deliver(transaction))


def _data() -> Dialogue[Reply]:
    [reply] = yield Step(commands.DATA, "DATA", during=Phase.MAIL, then=Phase.CONTENT)
    return reply


# -- with BDAT -----------------------------------------------------------------------------


def _in_one_write(transaction: Transaction, lines: Lines) -> Dialogue[Reply | None]:
    """Envelope, BDAT and content at once; None if the same is to be done with DATA."""
    step = transaction.begun.pop(0) if transaction.begun else one_write(transaction, lines)
    before = step.lines
    try:
        yield step
    except BaseException:
        _note_one_write(transaction, step, before)
        raise
    if len(step.received) == step.owed and max(step.received).code < 300:  # what mostly happens
        return transaction.ledger.accept(step.received[-1], step.verdicts if transaction.lmtp else None)
    return (yield from _judged_one_write(transaction, step, before))


def one_write(transaction: Transaction, lines: Lines) -> Step:
    """The step that has all of a message in it: envelope, BDAT and content."""
    ledger, content, [recipients] = transaction.ledger, transaction.prepared.content, lines.counts
    verbs = [*opening_verbs(transaction), *["RCPT"] * recipients]
    before = len(verbs)
    step = Step(
        lines.mail + lines.rcpts[0] + commands.bdat(content.size or 0, last=True),
        *verbs,
        END,
        owed=before + (recipients if transaction.lmtp else 1),
        lines=before,
        during=Phase.CONTENT,
        content=content,
        chunked=True,
        on_end=ledger.end_left,
        progress=transaction.progress,
        last=True,
    )
    if transaction.lmtp:
        step.count = partial(_owed_by_lmtp, step, recipients)
    return step


def _note_one_write(transaction: Transaction, step: Step, before: int) -> list[Reply]:
    """Write down what the replies so far decide; returns those to the envelope."""
    envelope = without_reset(transaction, step.received[:before])
    verdicts = step.verdicts
    if any(reply.intermediate for reply in envelope):
        return envelope  # it has lost its place: whom a yes or a no behind that is for, nobody knows
    # Who takes the content of a refused sender's message is not to be believed in either.
    if not verdicts or verdicts[0].code >= 300 or envelope[0].positive:
        note(transaction.ledger, envelope)
        _note_verdicts(transaction.ledger, verdicts, lmtp=transaction.lmtp)
    return envelope


def _judged_one_write(transaction: Transaction, step: Step, before: int) -> Dialogue[Reply | None]:
    envelope = _note_one_write(transaction, step, before)
    yield from judge_classes(envelope)
    if not envelope[0].positive and any(reply.positive for reply in step.verdicts):
        yield from broken(step.verdicts[0], END)
    if (refusal := judged(transaction, envelope)) is not None:
        if not transaction.shared:
            yield from reset_after(refusal.reply)
        try:
            raise refusal.error
        finally:
            del refusal  # no cycle: the traceback of its error has this frame
    return (yield from _after_chunk(transaction, step))


def _owed_by_lmtp(step: Step, recipients: int, received: Sequence[Reply]) -> int:
    """How many replies there will be: one for each recipient accepted, one if there is none."""
    lines, known = step.lines, len(received)
    if known < lines:
        return step.owed
    mail, *rcpts = received[lines - recipients - 1 : lines]
    if known == lines:  # asked at every reply, so it is counted once
        if mail.intermediate or any(reply.intermediate for reply in rcpts):
            return known  # it lost its place: whom it takes for accepted, nobody knows
        return lines + max(1, sum(reply.code < 400 for reply in rcpts))
    if known == lines + 1:
        first = received[lines]
        if first.code in _NOT_IMPLEMENTED or not mail.positive:
            return known  # that is the command's, and there is no content which others could answer
    return step.owed


def _in_chunks(transaction: Transaction) -> Dialogue[Reply | None]:
    """BDAT and content behind an envelope that stands; None if the same is to be done with DATA."""
    content, ledger = transaction.prepared.content, transaction.ledger
    whole = isinstance(content, InMemory)
    step = Step(
        commands.bdat(content.size or 0, last=True) if whole else b"",
        END,
        owed=len(ledger.open) if transaction.lmtp else 1,
        lines=0,
        during=Phase.CONTENT,
        content=content,
        chunked=True,
        seven_bit=transaction.seven_bit,
        on_end=ledger.end_left,
        progress=transaction.progress,
        last=True,
    )
    if transaction.lmtp:
        step.count = partial(_owed_by_chunks, step)
    bad: Reply | None = None
    try:
        yield step
    finally:
        bad = _bad_chunk(step)
        if bad is None and step.ended:
            _note_verdicts(ledger, step.verdicts, lmtp=transaction.lmtp)
        elif bad is not None and bad.code >= 400 and not any(reply.positive for reply in step.verdicts):
            ledger.decide_open(bad)  # it was not the last: the transaction is over
    if bad is None:
        return (yield from _after_chunk(transaction, step))
    transaction.unchunkable = step.received[0].code in _NOT_IMPLEMENTED
    yield from _leave_chunks(transaction, step, bad)
    raise SMTPDataError(bad.code, bad.message, reply=bad, command=END)


def _bad_chunk(step: Step) -> Reply | None:
    """The first no before the last chunk was answered; what is said to those behind it is no news."""
    early = step.received[: step.lines] if step.ended else step.received
    return next((reply for reply in early if not reply.positive), None)


def _owed_by_chunks(step: Step, received: Sequence[Reply]) -> int:
    """In LMTP nobody knows how many replies the last chunk earns behind a refused one: none is awaited."""
    known = len(received)
    if known > step.lines + 1:  # asked at every reply, and what is behind this one changes nothing
        return step.owed
    if _bad_chunk(step) is not None:
        return known
    unknown = known > step.lines and received[-1].code in _NOT_IMPLEMENTED
    return known if unknown else step.owed


def _leave_chunks(transaction: Transaction, step: Step, bad: Reply) -> Generator[Step, list[Reply], None]:
    """Get out of content of which a chunk was refused."""
    taken = next((reply for reply in step.verdicts if reply.positive), None)
    if bad.intermediate or taken is not None:
        yield from broken(taken or bad, END)
    if not step.ended:
        return  # the driver has dropped the connection
    if transaction.lmtp:
        yield give_up()
    elif not transaction.shared:
        yield from reset_after(bad)


def _after_chunk(transaction: Transaction, step: Step) -> Dialogue[Reply | None]:
    """Judge what was said to the last chunk. What state a refused one leaves is undefined, hence RSET."""
    ledger, verdicts = transaction.ledger, step.verdicts
    if transaction.lmtp and ledger.open and verdicts[0].code in _NOT_IMPLEMENTED:
        # Said to BDAT, it is the only reply; said to the first recipient, others follow. Who guesses
        # wrong sends the message once more to those who have it.
        transaction.unchunkable = True
        yield give_up()
        raise SMTPDataError(verdicts[0].code, verdicts[0].message, reply=verdicts[0], command=END)
    try:
        return (yield from _judged_verdicts(ledger, step, lmtp=transaction.lmtp))
    except (SMTPDataError, SMTPRecipientsRefused):
        refused = step.verdicts[0]
        transaction.unchunkable = refused.code in _NOT_IMPLEMENTED
        if transaction.shared:
            raise
        if refused.code not in _NOT_IMPLEMENTED or not isinstance(step.content, InMemory):
            yield from reset_after(refused)
            raise
        answer = yield from reset()
        if not answer.positive or step.content.binary:
            raise
        return None


# -- with DATA -----------------------------------------------------------------------------


def content(prepared: Prepared, ledger: Ledger, *, lmtp: bool = False) -> Dialogue[Reply]:
    """DATA and the content, after MAIL and RCPT were sent by hand; returns what was said to it.

    In LMTP that is the first refusal, if there is one: half a success must not look like a whole.

    Raises:
        SMTPDataError: DATA was refused, as in `smtplib`. A refusal of the content is returned.
    """
    data = yield from _data()
    if data.temporary or data.permanent:
        ledger.decide_open(data)
        if data.code != 421:
            yield Step(owed=0, during=Phase.MAIL, then=Phase.MAIL)  # the envelope is still open
        raise SMTPDataError(data.code, data.message, reply=data, command="DATA")
    if not data.intermediate or (lmtp and not ledger.open):
        # No recipient that we know of, in LMTP: then nobody knows how many replies there will be.
        yield from broken(data, "DATA")
    try:
        accepted = yield from _content(_content_step(prepared, ledger, lmtp=lmtp), ledger, lmtp=lmtp)
    except SMTPDataError as error:
        return Reply(error.smtp_code, error.smtp_error)
    except SMTPRecipientsRefused as error:
        return next(iter(error.recipients.values()))
    return next(iter(ledger.refused.values()), accepted)


def content_of(transaction: Transaction) -> Step:
    """The step behind the 354: the content, and its end."""
    return _content_step(
        transaction.prepared,
        transaction.ledger,
        lmtp=transaction.lmtp,
        seven_bit=transaction.seven_bit,
        progress=transaction.progress,
    )


def _content_step(
    prepared: Prepared,
    ledger: Ledger,
    *,
    lmtp: bool,
    seven_bit: bool = False,
    progress: Progress | None = None,
) -> Step:
    return Step(
        b"",
        END,
        owed=len(ledger.open) if lmtp else 1,
        during=Phase.CONTENT,
        content=prepared.content,
        seven_bit=seven_bit,
        on_end=ledger.end_left,
        progress=progress,
        last=True,
    )


def _content(step: Step, ledger: Ledger, *, lmtp: bool) -> Dialogue[Reply]:
    """The content, its end, and the reply, or in LMTP the replies, that decide."""
    try:
        yield step
    finally:
        # Whatever ends this, what the server said in time counts. Before the end has left that can
        # be no 2yz, and a refusal is one of the transaction, so of everybody, in LMTP too.
        if step.ended:
            _note_verdicts(ledger, step.received, lmtp=lmtp)
        else:
            for reply in step.received:
                if reply.code >= 400:
                    ledger.decide_open(reply)
    return (yield from _judged_verdicts(ledger, step, lmtp=lmtp))


# -- the reply that decides ----------------------------------------------------------------


def _note_verdicts(ledger: Ledger, replies: Sequence[Reply], *, lmtp: bool) -> None:
    """Write down what the replies to the end of the content decide: for one each in LMTP, else for all."""
    if not lmtp:
        if replies and not replies[0].intermediate:
            ledger.decide_open(replies[0])
        return
    for position, reply in zip(ledger.open, replies, strict=False):
        if not reply.intermediate:
            ledger.decide(position, reply)


def _judged_verdicts(ledger: Ledger, step: Step, *, lmtp: bool) -> Dialogue[Reply]:
    """The reply that accepted the content.

    Raises:
        SMTPDataError: it was refused; in LMTP, `SMTPRecipientsRefused`, for each has a reply.
        SMTPServerDisconnected: in LMTP, some replies never came.
        SMTPProtocolError: what came cannot be an answer to content.
    """
    replies, early = step.verdicts, not step.ended
    bad = next((r for r in replies if r.intermediate or (early and r.positive)), None)
    if bad is not None:
        yield from broken(bad, END)
    if len(step.received) < step.owed and not early:
        wanted = step.owed - step.lines
        text = f"the server answered for {len(replies)} of {wanted} recipients, then ended the session"
        raise SMTPServerDisconnected(text, last_reply=step.received[-1])
    good = next((reply for reply in replies if reply.positive), None)
    if good is None and lmtp:
        raise SMTPRecipientsRefused(ledger.refused)
    if good is None:
        raise SMTPDataError(replies[0].code, replies[0].message, reply=replies[0], command=END)
    ledger.final = good
    return good
