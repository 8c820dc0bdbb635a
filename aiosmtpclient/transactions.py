"""A message's transaction: from MAIL to the reply that decides, as a dialogue.

RFC 5321 section 3.3 is the sequence, RFC 2920 what may leave in one write, RFC 2033 section 4.2
the replies in LMTP. `deliver` sends one message; `content` sends what DATA introduces after
somebody sent MAIL and RCPT by hand.

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
from collections.abc import Generator, Sequence
from dataclasses import dataclass

from . import commands
from .delivery import Ledger
from .dialogues import broken, reset
from .errors import (
    Delivery,
    SMTPDataError,
    SMTPNotSupportedError,
    SMTPProtocolError,
    SMTPRecipientsRefused,
    SMTPSenderRefused,
    SMTPServerDisconnected,
    SMTPTimeoutError,
)
from .extensions import Extensions
from .message import Prepared
from .replies import Reply
from .steps import Dialogue, Phase, Step, give_up

# The connection is gone; the refusal before it is still the news.
_GONE = (SMTPServerDisconnected, SMTPProtocolError, SMTPTimeoutError)


@dataclass(frozen=True, slots=True)
class Transaction:
    """One message, ready to go: what `deliver` needs to know.

    Attributes:
        prepared: sender, recipients and content, checked.
        extensions: what this server offers, after HELO nothing.
        ledger: where the account is written.
        lmtp: one reply a recipient after the content (RFC 2033).
        pipelined: MAIL, every RCPT and DATA leave in one write, if the server offers it.
        all_or_nothing: one refused recipient refuses all.
        esmtp: parameters may be sent: the server answered EHLO or LHLO.
        mail_options: parameters for MAIL, as they go out.
        rcpt_options: parameters for each RCPT.
    """

    prepared: Prepared
    extensions: Extensions
    ledger: Ledger
    lmtp: bool = False
    pipelined: bool = True
    all_or_nothing: bool = False
    esmtp: bool = True
    mail_options: Sequence[str] = ()
    rcpt_options: Sequence[str] = ()


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
    mail, rcpts = _envelope_lines(transaction)
    ledger = transaction.ledger
    grouped = transaction.pipelined and "pipelining" in transaction.extensions
    if grouped:
        data = yield from _grouped(transaction, mail, rcpts)
    else:
        data = yield from _lock_step(transaction, mail, rcpts)
    if data.temporary or data.permanent:
        ledger.decide_open(data)
        yield from _reset_after_refusal(data)
        raise SMTPDataError(data.code, data.message, reply=data, command="DATA")
    if not data.intermediate:
        yield from broken(data, "DATA")  # a 2yz to DATA: the content must never follow
    seven_bit = "8bitmime" not in transaction.extensions
    return (yield from _content(transaction.prepared, ledger, lmtp=transaction.lmtp, seven_bit=seven_bit))


def _envelope_lines(transaction: Transaction) -> tuple[bytes, list[bytes]]:
    """MAIL and every RCPT, all checked before the first octet leaves."""
    prepared = transaction.prepared
    options = _mail_options(transaction)
    utf8 = "SMTPUTF8" in options or any(option.upper() == "SMTPUTF8" for option in options)
    mail = commands.mail(prepared.sender.path, options, utf8=utf8)
    rcpt_options = transaction.rcpt_options if transaction.esmtp else ()
    return mail, [commands.rcpt(r.path, rcpt_options, utf8=utf8) for r in prepared.recipients]


def _mail_options(transaction: Transaction) -> list[str]:
    prepared, extensions = transaction.prepared, transaction.extensions
    given = [commands.option(option) for option in transaction.mail_options]
    names = {option.partition("=")[0].upper() for option in given}
    if "SMTPUTF8" in names and "smtputf8" not in extensions:
        raise SMTPNotSupportedError("the server does not offer SMTPUTF8, which mail_options ask for")
    size = prepared.content.size
    limit = extensions.size_limit
    if size is not None and limit is not None and size > limit:
        # What the server would say (RFC 1870 section 6.1), without the trip.
        text = f"5.3.4 the message has {size} octets, the server takes {limit}".encode()
        transaction.ledger.decide_open(Reply(552, text))
        raise SMTPSenderRefused(552, text, prepared.sender.text, reply=Reply(552, text))
    if not transaction.esmtp:
        return []
    added = []
    if size is not None and "size" in extensions and "SIZE" not in names:
        added.append(f"SIZE={size}")
    eightbit = prepared.content.eightbit is not False or prepared.smtputf8
    if eightbit and "8bitmime" in extensions and "BODY" not in names:
        added.append("BODY=8BITMIME")
    if prepared.smtputf8 and "SMTPUTF8" not in names:
        added.append("SMTPUTF8")
    return added + given


def _grouped(transaction: Transaction, mail: bytes, rcpts: list[bytes]) -> Dialogue[Reply]:
    """MAIL, every RCPT and DATA in one write (RFC 2920 section 3.1); returns the reply to DATA."""
    ledger = transaction.ledger
    # After a 354 a lone dot would deliver an empty message to those accepted: then DATA waits.
    with_data = not transaction.all_or_nothing
    lines = [mail, *rcpts, commands.DATA] if with_data else [mail, *rcpts]
    verbs = ["MAIL", *["RCPT"] * len(rcpts), "DATA"]
    then = Phase.CONTENT if with_data else Phase.MAIL
    step = Step(b"".join(lines), *verbs, owed=len(lines), during=Phase.MAIL, then=then)
    try:
        yield step
    finally:
        envelope, answer = step.received[: len(rcpts) + 1], step.received[len(rcpts) + 1 :]
        for position, reply in enumerate(envelope[1:]):
            if (reply.temporary or reply.permanent) and envelope[0].positive:
                ledger.decide(position, reply)
        if envelope and (envelope[0].temporary or envelope[0].permanent):
            ledger.decide_open(envelope[0])
    data = answer[0] if answer else None
    yield from _judge_classes(envelope)
    yield from _judge_envelope(transaction, envelope, data)
    return data if data is not None else (yield from _data())


def _lock_step(transaction: Transaction, mail: bytes, rcpts: list[bytes]) -> Dialogue[Reply]:
    """One command, one reply; returns the reply to DATA."""
    envelope: list[Reply] = []
    for position, line in enumerate([mail, *rcpts]):
        verb = "RCPT" if position else "MAIL"
        step = Step(line, verb, during=Phase.MAIL, then=Phase.MAIL)
        [reply] = yield step
        envelope.append(reply)
        if position and (reply.temporary or reply.permanent):
            transaction.ledger.decide(position - 1, reply)
        if reply.code == 421 or reply.intermediate or not envelope[0].positive:
            break
    yield from _judge_classes(envelope)
    yield from _judge_envelope(transaction, envelope, None)
    return (yield from _data())


def _data() -> Dialogue[Reply]:
    [reply] = yield Step(commands.DATA, "DATA", during=Phase.MAIL, then=Phase.CONTENT)
    return reply


def _judge_classes(envelope: Sequence[Reply]) -> Generator[Step, list[Reply], None]:
    """MAIL and RCPT are answered with 2yz, 4yz or 5yz, and with nothing else."""
    for position, reply in enumerate(envelope):
        if reply.intermediate:
            yield from broken(reply, "RCPT" if position else "MAIL")


def _judge_envelope(
    transaction: Transaction, envelope: Sequence[Reply], data: Reply | None
) -> Generator[Step, list[Reply], None]:
    """Raise if MAIL was refused, or if nobody is left to send the message to.

    Args:
        data: the reply to DATA, if that left in the same write.
    """
    ledger, mail = transaction.ledger, envelope[0]
    if not mail.positive:
        ledger.decide_open(mail)
        # Somebody accepted after a refused MAIL, and a 354: a dot would send him an empty message.
        accepted = any(reply.positive for reply in envelope[1:])
        yield from _leave_envelope(mail, data, dot=not accepted and not transaction.lmtp)
        raise SMTPSenderRefused(mail.code, mail.message, transaction.prepared.sender.text, reply=mail)
    refusals = [reply for reply in envelope[1:] if not reply.positive]
    closing = refusals[-1] if refusals and refusals[-1].code == 421 else None
    if closing is not None:
        # The transaction ends with the connection: who was accepted before is refused for now.
        ledger.decide_open(closing)
    elif refusals and transaction.all_or_nothing:
        ledger.as_a_whole = Delivery.REFUSED
    elif ledger.open:
        return
    refused = ledger.refused
    yield from _leave_envelope(closing or refusals[0], data, dot=not transaction.lmtp)
    raise SMTPRecipientsRefused(refused)


def _leave_envelope(refusal: Reply, data: Reply | None, *, dot: bool) -> Generator[Step, list[Reply], None]:
    """Get out of an envelope that leads nowhere, or give the connection up."""
    if data is not None and data.intermediate:
        if not dot:
            yield give_up()
            return
        with contextlib.suppress(*_GONE):
            yield from _lone_dot()
        return
    if data is not None and data.positive:
        yield give_up()
        return
    yield from _reset_after_refusal(refusal)


def _lone_dot() -> Generator[Step, list[Reply], None]:
    """End content that was never begun: the server went on though nobody was accepted (RFC 2920 3.1)."""
    step = Step(commands.END_OF_CONTENT, "end of content", during=Phase.CONTENT, then=Phase.READY)
    [reply] = yield step
    if reply.intermediate:
        yield give_up()


def _reset_after_refusal(refusal: Reply) -> Generator[Step, list[Reply], None]:
    if refusal.code != 421:
        with contextlib.suppress(*_GONE):
            yield from reset()


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
        accepted = yield from _content(prepared, ledger, lmtp=lmtp, seven_bit=False)
    except SMTPDataError as error:
        return Reply(error.smtp_code, error.smtp_error)
    except SMTPRecipientsRefused as error:
        return next(iter(error.recipients.values()))
    return next(iter(ledger.refused.values()), accepted)


def _content(prepared: Prepared, ledger: Ledger, *, lmtp: bool, seven_bit: bool) -> Dialogue[Reply]:
    """The content, its end, and the reply, or in LMTP the replies, that decide."""
    positions = ledger.open
    step = Step(
        b"",
        "end of content",
        owed=len(positions) if lmtp else 1,
        during=Phase.CONTENT,
        content=prepared.content,
        seven_bit=seven_bit,
        on_end=ledger.end_left,
        last=True,
    )
    try:
        yield step
    finally:
        # Whatever ends this, what the server said in time counts. Before the end has left that can
        # be no 2yz, and a refusal is one of the transaction, so of everybody, in LMTP too.
        early = not step.ended
        for index, reply in enumerate(step.received):
            if not (reply.intermediate or (early and reply.positive)):
                for position in positions[index : index + 1 if lmtp and not early else None]:
                    ledger.decide(position, reply)
    replies = step.received
    bad = next((r for r in replies if r.intermediate or (early and r.positive)), None)
    if bad is not None:
        yield from broken(bad, "end of content")
    if len(replies) < step.owed and not early:
        text = f"the server answered for {len(replies)} of {step.owed} recipients, then ended the session"
        raise SMTPServerDisconnected(text, last_reply=replies[-1])
    good = next((reply for reply in replies if reply.positive), None)
    if good is None and lmtp:
        raise SMTPRecipientsRefused(ledger.refused)
    if good is None:
        raise SMTPDataError(replies[0].code, replies[0].message, reply=replies[0], command="end of content")
    ledger.final = good
    return good
