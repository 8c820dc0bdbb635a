"""Target: the answer to EHLO, from octets to what is asked for because of it.

What must hold: no answer is an error, and each line means what a model of RFC 5321 section 4.1.1.1
says; it means the same however the octets are split; whatever is offered, a message with typed
options gives commands that a strict server takes, or one of our errors.
"""

from __future__ import annotations

import re
import smtplib
from datetime import UTC, datetime, timedelta

from aiosmtpclient import DeliverBy, Recipient, SMTPException, parameters, sasl
from aiosmtpclient.addresses import Recipients, sender
from aiosmtpclient.content import InMemory
from aiosmtpclient.delivery import Ledger
from aiosmtpclient.dialogues import hello
from aiosmtpclient.envelopes import Transaction, lines_of
from aiosmtpclient.extensions import MAX_LINES, Extensions
from aiosmtpclient.message import Prepared
from aiosmtpclient.origin import attributes
from aiosmtpclient.parts import division
from aiosmtpclient.session import Session
from aiosmtpclient.steps import Dialogue

from .choices import Choices
from .strict import Strict

KEYWORDS = (
    b"PIPELINING", b"SIZE", b"8BITMIME", b"SMTPUTF8", b"CHUNKING", b"BINARYMIME", b"AUTH", b"AUTH=LOGIN",
    b"STARTTLS", b"DSN", b"DELIVERBY", b"FUTURERELEASE", b"MT-PRIORITY", b"REQUIRETLS", b"RRVS", b"LIMITS",
    b"ENHANCEDSTATUSCODES", b"XCLIENT", b"XFORWARD", b"ETRN", b"VRFY", b"HELP", b"size", b"Auth", b"A_B",
    b"-X", b"", b" SIZE", b"SIZE=10", b"STARTTLS_LATER", b"X\xff",
)  # fmt: skip
PARAMETERS = (
    b" ", b"1000", b"0", b"00010", b"99999999999999999999", b"999999999999999999999", b"-1", b"1e3", b"\t",
    b"PLAIN", b"LOGIN", b"plain", b"SCRAM-SHA-256", b"SCRAM-SHA-256-PLUS", b"X" * 21, b"RCPTMAX=1",
    b"RCPTMAX=0", b"RCPTMAX=999999", b"MAILMAX=7", b"RCPTDOMAINMAX=1", b"2026-01-01T00:00:00Z",
    b"9999-12-31T23:59:59Z", b"0001-01-01T00:00:00+23:59", b"2026-01-01", b"864000", b"MIXER", b"NAME",
    b"ADDR PORT", b"\xb2\xb3", b"=", b"\r", b"\x85", b"\0", "１２".encode(),
)  # fmt: skip
SEEDS = (
    b"\x06" + b"\0\x01\x01\x02\x01\0\x01\x01" * 6,
    bytes(range(200)),
    b"\x02\x09\0\x0a\0" + b"\x01" * 40,
    b"\xff" * 60,
)

_LINE = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:[ \t](.*))?|(?:[Aa][Uu][Tt][Hh])=(.*)", re.DOTALL)
_MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


def check(octets: bytes) -> None:
    """Read them as what stands behind 250."""
    choices = Choices(octets)
    lines = [b"strict.test", *_lines(choices)]
    way = choices.number(2)
    if way == 0:
        _ask(choices, Extensions.parse(b"\n".join(lines)))
    elif way == 1:
        _over_the_wire(choices, lines)
    else:
        _read(lines)


def _lines(choices: Choices) -> list[bytes]:
    if choices.rarely():
        return choices.octets(200).replace(b"\n", b"").split(b"\0")
    if choices.rarely(4000):
        return [b"X%d" % number for number in range(MAX_LINES - 2)] + choices.several(KEYWORDS, 6)
    return [_line(choices) for _ in range(choices.number(14))]


def _line(choices: Choices) -> bytes:
    words = [b"".join(choices.several(PARAMETERS, 2)) for _ in range(choices.number(3))]
    return b" ".join([choices.pick(KEYWORDS), *words])


# -- what it means -------------------------------------------------------------------------------


def _read(lines: list[bytes]) -> None:
    message = b"\n".join(lines)
    read = Extensions.parse(message)
    wanted = _by_the_grammar(lines)
    assert read.as_dict() == wanted == Extensions._parse(message).as_dict(), f"{read.as_dict()}, not {wanted}"
    assert list(read) == list(wanted)
    assert len(read) == len(wanted)
    assert [name in read for name in wanted] == [name.upper() in read for name in wanted]
    assert {name: read[name] for name in read} == {name: value.strip() for name, value in wanted.items()}
    assert read.size_limit is None or 0 < read.size_limit < 10**20
    assert all(re.fullmatch(r"[A-Z0-9_-]{1,20}", name) for name in read.auth_mechanisms)
    assert all(0 < number < 10**6 for number in read.limits.values())
    assert (read.size, read.pipelining, read.chunking) == (
        "size" in wanted,
        "pipelining" in wanted,
        "chunking" in wanted,
    )
    assert (read.smtputf8, read.eightbitmime) == ("smtputf8" in wanted, "8bitmime" in wanted)
    assert repr(read).isascii()


def _by_the_grammar(lines: list[bytes]) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in lines[1 : MAX_LINES + 1]:
        match = _LINE.fullmatch(line.decode("latin-1"))
        if match is None:
            continue
        name = (match[1] or "auth").lower()
        value = (match[2] or "").strip() or match[3] or ""
        found[name] = f"{found.get('auth', '')} {value}" if name == "auth" else value
    return found


def _over_the_wire(choices: Choices, lines: list[bytes]) -> None:
    """Say it to the dialogue, whole and in pieces."""
    said = b"".join(
        b"250" + (b" " if number == len(lines) - 1 else b"-") + line + b"\r\n"
        for number, line in enumerate(lines)
    )
    cuts = choices.cut(said)
    whole, pieces = _said([said]), _said(cuts)
    assert whole == pieces, f"{whole} and {pieces} by {cuts!r}"
    fits = not any(b"\n" in line for line in lines) and len(said) < 8000
    assert not fits or whole == Extensions.parse(b"\n".join(line.strip(b" \t\r") for line in lines)), whole


def _said(pieces: list[bytes]) -> Extensions | str:
    session = Session("mail.test:25")
    session.receive_data(b"220 hi\r\n")
    dialogue: Dialogue[object] = hello("EHLO", "me")
    step = next(dialogue)
    session.send(step)
    for piece in pieces:
        session.receive_data(piece)
    if not step.complete:
        return str(session.failure) if session.failure else "more is to come"
    try:
        dialogue.send(step.received)
    except StopIteration as done:
        return done.value.extensions  # type: ignore[no-any-return]
    except SMTPException as error:
        return str(error)
    raise AssertionError("the dialogue goes on")


# -- what is asked for because of it -----------------------------------------------------------------


def _ask(choices: Choices, offered: Extensions) -> None:
    """What a caller may want: each is there, or is one of our errors."""
    for name in sasl.choose(offered.auth_mechanisms, None):
        assert name in offered.auth_mechanisms
    sasl.advice(offered.auth_mechanisms, None, token=choices.flag(), channel=None)
    for verb in ("XCLIENT", "XFORWARD"):
        try:
            assert re.fullmatch("NAME=x", attributes(verb, {"name": "x"}, offered))
        except SMTPException:
            assert "NAME" not in offered.get(verb, "").upper().split()
    try:
        asked_for = parameters.of(_typed(choices))  # type: ignore[arg-type]
    except ValueError:
        return
    recipients = ["ann@a.test", Recipient("bob@b.test", notify="never") if choices.rarely() else "bob@b.test"]
    utf8 = choices.flag() and offered.smtputf8
    content = InMemory(b"x" * choices.number(2000) + b"\r\n")
    prepared = Prepared(sender("me@a.test"), Recipients.of(recipients), content, utf8)
    transaction = Transaction(prepared, offered, Ledger(recipients), pipelined=choices.flag())
    try:
        transaction.ask(asked_for, encrypted=choices.flag())
        lines = lines_of(transaction)
        division(transaction, choices.pick((None, 1, 100)))
    except SMTPException as error:
        assert isinstance(error, smtplib.SMTPNotSupportedError | smtplib.SMTPSenderRefused)
        return
    server = Strict([b"PIPELINING", *(keyword.upper().encode() for keyword in offered)])
    server.greeted = True
    server.hear(lines.mail + b"".join(lines.rcpts))
    assert not server.wrong, f"{server.wrong} in answer to {dict(offered)}"
    [asked] = server.transactions
    assert asked.accepted == [b"ann@a.test", b"bob@b.test"]
    assert not server.unread


def _typed(choices: Choices) -> dict[str, object]:
    every: dict[str, object] = {
        "ret": "hdrs",
        "envid": "a b+c",
        "notify": "failure,delay",
        "size": choices.number(5000),
        "body": choices.pick(("7bit", "8bitmime", "binarymime")),
        "smtputf8": True,
        "auth": choices.pick(("", "ann+x@a.test", '"a b"@x')),
        "deliver_by": DeliverBy(choices.number(2000) + 1, choices.pick(("return", "notify")), choices.flag()),
        "hold_for": choices.number(10**6),
        "hold_until": _MOMENT + timedelta(days=choices.number(2000)),
        "priority": choices.number(18) - 9,
        "require_tls": True,
    }
    return {name: every[name] for name in choices.several(list(every), 3)}
