"""The conversations, each a generator that reads like its RFC.

A dialogue yields steps and is sent their replies. It is tested with `next()` and `send()`: no
socket, no loop, no mock.

=====================  ==========================================================
`greet`                RFC 5321 section 3.1, the 220 that opens the session
`hello`                RFC 5321 section 4.1.1.1, RFC 2033 section 4.1
`starttls`             RFC 3207
`authenticate`         RFC 4954
`deliver`              RFC 5321 section 3.3, RFC 2920, RFC 2033 section 4.2
`content`              the same after somebody sent MAIL and RCPT by hand
`reset`, `quit_`       RFC 5321 section 4.1.1.5 and 4.1.1.10
`command`              anything else with one reply
=====================  ==========================================================

Rules of this room:

* The first digit decides, except where the RFC names one code (the greeting, EHLO, STARTTLS,
  AUTH). A reply of a class that cannot answer its command is a protocol error: the dialogue
  gives the connection up before it raises.
* What is learnt about a recipient goes into the ledger before anything else happens.
* A refusal leaves the connection usable: RSET, and if that gets no 2yz, `give_up()`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import NoReturn

from . import commands, sasl
from .delivery import Ledger
from .errors import (
    Delivery,
    SMTPAuthenticationError,
    SMTPConnectError,
    SMTPDataError,
    SMTPHeloError,
    SMTPNotSupportedError,
    SMTPProtocolError,
    SMTPRecipientsRefused,
    SMTPSenderRefused,
    SMTPServerDisconnected,
)
from .extensions import Extensions
from .message import Prepared
from .replies import Reply
from .steps import AuthObject, Dialogue, Phase, Step, ask, give_up, handshake

MAX_CHALLENGE = 12288
"""Octets of base64 a challenge may have (RFC 4954 section 4)."""
MAX_CHALLENGES = 5
"""Challenges an authobject answers before the server is thought to be looping, as in smtplib."""


@dataclass(frozen=True, slots=True)
class Hello:
    """What came of saying hello: the verb that was answered, the reply, and what it offers."""

    verb: str
    reply: Reply
    extensions: Extensions


# -- opening -------------------------------------------------------------------------------


def greet(greeting: Step) -> Dialogue[Reply]:
    """Read the greeting.

    Raises:
        SMTPConnectError: the server does not want to talk (RFC 5321 section 3.1: 220 or no service).
    """
    [reply] = yield greeting
    if reply.code != 220:
        raise SMTPConnectError(reply.code, reply.message, reply=reply)
    return reply


def hello(verb: str, name: str, *, fallback: bool = False) -> Dialogue[Hello]:
    """Say EHLO, LHLO or HELO; with `fallback`, HELO when EHLO is refused for good.

    Raises:
        SMTPHeloError: refused (RFC 5321 section 4.1.1.1 knows one good answer, 250).
    """
    [reply] = yield Step(commands.hello(verb, name), verb)
    if reply.code == 250:
        return Hello(verb, reply, Extensions() if verb == "HELO" else Extensions.parse(reply.message))
    if fallback and verb == "EHLO" and reply.permanent:
        return (yield from hello("HELO", name))
    if not (reply.temporary or reply.permanent):
        yield from _broken(reply, verb)
    raise SMTPHeloError(reply.code, reply.message, reply=reply, command=verb)


def starttls() -> Dialogue[Reply]:
    """Ask for TLS and bring it up; returns the reply, which is 220 if TLS is up now.

    Raises:
        SMTPProtocolError: neither 220 nor a refusal (RFC 3207 section 4): who knows what it did.
    """
    [reply] = yield Step(commands.STARTTLS, "STARTTLS")
    if reply.code == 220:
        yield handshake()
    elif not (reply.temporary or reply.permanent):
        yield from _broken(reply, "STARTTLS")
    return reply


# -- letting us in -------------------------------------------------------------------------

_Responder = Generator[Step, list[Reply], bytes | None]


class _Mechanism:
    """One of ours: a generator of responses."""

    def __init__(self, name: str, mechanism: sasl.Mechanism) -> None:
        self._mechanism = mechanism
        # PLAIN's and LOGIN's challenges carry nothing but a prompt: position decides.
        self.ignores_text = name in sasl.PROMPT_ONLY

    def first(self) -> _Responder:
        yield from ()  # nobody to ask, but a responder is a generator
        return next(self._mechanism)

    def next(self, challenge: bytes) -> _Responder:
        yield from ()
        try:
            return self._mechanism.send(challenge)
        except StopIteration:
            return None  # one challenge too many


class _Callable:
    """smtplib's kind: an authobject that the caller wrote."""

    ignores_text = False

    def __init__(self, authobject: AuthObject, initial_response_ok: bool) -> None:
        self._authobject = authobject
        self._initial_response_ok = initial_response_ok
        self._challenges = 0

    def _ask(self, challenge: bytes | None) -> _Responder:
        step = ask(self._authobject, challenge)
        yield step
        return step.answer.encode() if isinstance(step.answer, str) else step.answer

    def first(self) -> _Responder:
        return (yield from self._ask(None)) if self._initial_response_ok else None

    def next(self, challenge: bytes) -> _Responder:
        self._challenges += 1
        return (yield from self._ask(challenge)) if self._challenges <= MAX_CHALLENGES else None


def authenticate(
    name: str, mechanism: sasl.Mechanism, *, initial_response_ok: bool = True
) -> Dialogue[Reply]:
    """Log in with one of the mechanisms of `sasl` (RFC 4954).

    Raises:
        SMTPAuthenticationError: refused, or the server's challenges make no sense.
    """
    return (yield from _authenticate(name, _Mechanism(name, mechanism), initial_response_ok))


def authenticate_with(name: str, authobject: AuthObject, *, initial_response_ok: bool) -> Dialogue[Reply]:
    """Log in with responses made by the caller's own authobject, as `smtplib.SMTP.auth` does."""
    return (yield from _authenticate(name, _Callable(authobject, initial_response_ok), True))


def _authenticate(name: str, responder: _Mechanism | _Callable, initial_response_ok: bool) -> Dialogue[Reply]:
    initial = yield from responder.first()
    line = commands.auth(name, initial)
    shown = b"AUTH " + name.encode("ascii")
    if initial is not None and not (initial_response_ok and commands.fits(line)):
        line = commands.auth(
            name
        )  # not wanted, or too long for a command: after the 334 (RFC 4954 section 4)
    elif initial is not None:
        shown, initial = shown + b" ***", None
    [reply] = yield Step(line, "AUTH", masked=shown + b"\r\n")
    while reply.code == 334:
        try:
            response = initial if initial is not None else (yield from _respond(responder, reply))
        except Exception:
            # The caller's own code failed: leave the exchange (RFC 4954 section 4), then let it through.
            yield Step(commands.AUTH_CANCEL, "AUTH")
            raise
        initial = None
        if response is None:
            return (yield from _cancel(name))
        [reply] = yield Step(commands.auth_response(response), "AUTH", masked=b"***\r\n")
    if reply.code == 235:
        return reply
    if not (reply.temporary or reply.permanent):
        yield from _broken(reply, "AUTH")
    raise SMTPAuthenticationError(reply.code, reply.message, reply=reply, command=f"AUTH {name}")


def _respond(responder: _Mechanism | _Callable, reply: Reply) -> _Responder:
    """The response to a challenge, or None if it makes no sense."""
    text = reply.message
    try:
        if len(text) > MAX_CHALLENGE:
            return None
        challenge = base64.b64decode(text, validate=True)
    except binascii.Error:
        if not responder.ignores_text:
            return None
        challenge = b""
    return (yield from responder.next(challenge))


def _cancel(name: str) -> Dialogue[Reply]:
    """Say `*`, read the refusal it earns (RFC 4954 section 4), and fail."""
    [reply] = yield Step(commands.AUTH_CANCEL, "AUTH")
    if not (reply.temporary or reply.permanent):
        yield from _broken(reply, "AUTH")
    text = b"the server's challenge makes no sense, so the exchange was cancelled; it said: " + reply.message
    raise SMTPAuthenticationError(reply.code, text, command=f"AUTH {name}")


# -- single commands -----------------------------------------------------------------------


def command(
    line: bytes, verb: str, *, during: Phase = Phase.READY, then: Phase | None = None
) -> Dialogue[Reply]:
    """Anything that is one line and has one reply. What it says is the caller's to judge."""
    [reply] = yield Step(line, verb, during=during, then=during if then is None else then)
    return reply


def raw(line: bytes, verb: str, phase: Phase) -> Dialogue[Reply]:
    """A line of the caller's own. After a 3yz the next one belongs to it, whatever it looks like."""
    masked = None
    if phase is Phase.CONTENT or verb.upper().startswith("AUTH"):
        masked = b"***\r\n"  # an AUTH exchange by hand: nobody can tell what is secret in it
    outside = Phase.MAIL if phase is Phase.MAIL else Phase.READY
    [reply] = yield Step(line, verb, during=outside, then=outside, masked=masked)
    if reply.intermediate:
        yield Step(owed=0, during=Phase.CONTENT, then=Phase.CONTENT)
    return reply


def reset() -> Dialogue[Reply]:
    """Abort the transaction (RFC 5321 section 4.1.1.5); without a 2yz nobody knows where we are."""
    [reply] = yield Step(commands.RSET, "RSET", during=Phase.MAIL)
    if not reply.positive:
        yield give_up()
    return reply


def quit_() -> Dialogue[Reply]:
    """Say QUIT (RFC 5321 section 4.1.1.10). The connection is to be closed, whatever comes."""
    [reply] = yield Step(commands.QUIT, "QUIT", then=Phase.CLOSING, last=True)
    return reply


def _broken(reply: Reply, verb: str) -> Generator[Step, list[Reply], NoReturn]:
    """Give the connection up and say that this reply cannot be an answer to that command."""
    yield give_up()
    raise SMTPProtocolError(reply.code, reply.message, reply=reply, command=verb)


# -- a message -----------------------------------------------------------------------------


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
        yield from _broken(data, "DATA")  # a 2yz to DATA: the content must never follow
    return (yield from _content(transaction.prepared, ledger, lmtp=transaction.lmtp))


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
        if reply.code == 421 or not envelope[0].positive:
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
            yield from _broken(reply, "RCPT" if position else "MAIL")


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
    yield from _leave_envelope(refusals[0], data, dot=not transaction.lmtp)
    raise SMTPRecipientsRefused(refused)


def _leave_envelope(refusal: Reply, data: Reply | None, *, dot: bool) -> Generator[Step, list[Reply], None]:
    """Get out of an envelope that leads nowhere, or give the connection up."""
    if data is not None and data.intermediate:
        if not dot:
            yield give_up()
            return
        # RFC 2920 section 3.1: the server went on though nobody was accepted; a lone dot ends it.
        step = Step(commands.END_OF_CONTENT, "end of content", during=Phase.CONTENT, then=Phase.READY)
        [reply] = yield step
        if reply.intermediate:
            yield give_up()
        return
    if data is not None and data.positive:
        yield give_up()
        return
    yield from _reset_after_refusal(refusal)


def _reset_after_refusal(refusal: Reply) -> Generator[Step, list[Reply], None]:
    if refusal.code == 421:
        return
    try:
        yield from reset()
    except (SMTPServerDisconnected, SMTPProtocolError, TimeoutError):
        return  # the connection is gone; the refusal is still the news


def content(prepared: Prepared, ledger: Ledger, *, lmtp: bool = False) -> Dialogue[Reply]:
    """DATA and the content, after MAIL and RCPT were sent by hand; returns what was said to it.

    In LMTP that is the first refusal, if there is one: half a success must not look like a whole.

    Raises:
        SMTPDataError: DATA was refused, as in `smtplib`. A refusal of the content is returned.
    """
    data = yield from _data()
    if data.temporary or data.permanent:
        ledger.decide_open(data)
        yield Step(owed=0, during=Phase.MAIL, then=Phase.MAIL)  # the envelope is still open
        raise SMTPDataError(data.code, data.message, reply=data, command="DATA")
    if not data.intermediate:
        yield from _broken(data, "DATA")
    try:
        accepted = yield from _content(prepared, ledger, lmtp=lmtp)
    except SMTPDataError as error:
        return Reply(error.smtp_code, error.smtp_error)
    except SMTPRecipientsRefused as error:
        return next(iter(error.recipients.values()))
    return next(iter(ledger.refused.values()), accepted)


def _content(prepared: Prepared, ledger: Ledger, *, lmtp: bool) -> Dialogue[Reply]:
    """The content, its end, and the reply, or in LMTP the replies, that decide."""
    positions = ledger.open
    step = Step(
        b"",
        "end of content",
        owed=len(positions) if lmtp else 1,
        during=Phase.CONTENT,
        content=prepared.content,
        on_end=ledger.end_left,
        last=True,
    )
    try:
        yield step
    finally:
        # Whatever ends this, what the server said in time counts.
        for index, reply in enumerate(step.received):
            if reply.positive and step.interrupted:
                continue
            if not reply.intermediate:
                for position in positions[index : index + 1] if lmtp else positions:
                    ledger.decide(position, reply)
    replies = step.received
    bad = next((r for r in replies if r.intermediate or (step.interrupted and r.positive)), None)
    if bad is not None:
        yield from _broken(bad, "end of content")
    if len(replies) < step.owed and not step.interrupted:
        text = f"the server answered for {len(replies)} of {step.owed} recipients, then ended the session"
        raise SMTPServerDisconnected(text, last_reply=replies[-1])
    good = next((reply for reply in replies if reply.positive), None)
    if good is None and lmtp:
        raise SMTPRecipientsRefused(ledger.refused)
    if good is None:
        raise SMTPDataError(replies[0].code, replies[0].message, reply=replies[0], command="end of content")
    ledger.final = good
    return good
