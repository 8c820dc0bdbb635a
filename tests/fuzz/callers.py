"""Target: what a caller gives to a send: addresses, options, headers; by `sendmail` and `send_message`.

What must hold: the server reads one transaction and nothing outside it; not an octet is outside
the grammar; the recipients on the wire are those asked for, in order, none rewritten; parameters
are the client's own, the typed ones and the raw ones; the fields of the header block are those of
the object without Bcc. What cannot be sent is a ValueError, a TypeError or one of our errors, and
then not an octet of it was written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from email import policy as policies
from email.message import EmailMessage, Message
from typing import Any

from aiosmtpclient import (
    AsyncLMTP,
    AsyncSMTP,
    DeliverBy,
    Delivery,
    Envelope,
    Recipient,
    SendResult,
    SMTPException,
    SMTPSenderRefused,
    commands,
)
from aiosmtpclient.content import InMemory
from aiosmtpclient.delivery import Ledger
from aiosmtpclient.envelopes import Transaction as Conversation
from aiosmtpclient.envelopes import lines_of
from aiosmtpclient.extensions import Extensions
from aiosmtpclient.message import Prepared, prepare, prepare_message

from .choices import Choices
from .counter import TIMEOUTS, Counter, documented, play, settle
from .strict import Strict, Transaction

FRAGMENTS = (
    "a", "@", "b.test", ".", "<", ">", '"', "\\", " ", "\r\n", "\n", "\r", "\0", "\t", ",", ";", ":", "(",
    ")", "[", "]", "[127.0.0.1]", "[IPv6:::1]", "ü", "münchen.test", "日本", "＠", "＜", "＞", "\u3000",
    "\u2028", "\x85", "\udce9", "\ud800", "RCPT TO:<x@x>", "DATA", "\r\nDATA\r\n", "\r\n.\r\n", "> SIZE=1",
    "=", "+", "-", "_", "x" * 70, "SMTPUTF8", "\x7f", "\xad", "。", "％", "\u200d", "ß", "xn--", "'", "*",
    "/", "?", "=?utf-8?q?=0d=0aBcc:_x?=", "\\\"", "\\ ",
)  # fmt: skip
PLAIN = ("ann@a.test", "bob@b.test", "cat@c.test", "postmaster")
RAW = (
    "SIZE=5", "BODY=8BITMIME", "BODY=7BIT", "SMTPUTF8", "X-WORD", "X=1", "NOTIFY=NEVER", "RET=FULL",
    "x-lower=a", "X=", "=X", "", "X Y", "X\r\nRSET", "X=\xfc", "X=a=b", "X=<>", "X>", "X\0", "smtputf8",
    "ENVID=q", "X=\u2028", "X=\ud800", "AUTH=<>",
)  # fmt: skip
OFFERS: Sequence[Sequence[bytes]] = (
    (b"PIPELINING", b"SIZE", b"8BITMIME", b"SMTPUTF8", b"DSN", b"DELIVERBY", b"MT-PRIORITY", b"REQUIRETLS",
     b"RRVS", b"AUTH PLAIN", b"CHUNKING", b"FUTURERELEASE 999999999 9999-12-31T23:59:59Z"),
    (b"PIPELINING", b"SIZE 1000000", b"8BITMIME", b"DSN"),
    (b"8BITMIME", b"SMTPUTF8"),
    (b"PIPELINING", b"LIMITS RCPTMAX=2", b"8BITMIME"),
    (),
)  # fmt: skip
NAMES = (
    "Subject", "To", "Cc", "Bcc", "From", "Sender", "Reply-To", "X-Thing", "Resent-To", "Resent-From",
    "Resent-Date", "Resent-Bcc", "bcc ", "BCC", "X\r\nBcc", "X:", "", "Sub ject", "Date", "Content-Type",
    "MIME-Version", "ü", "X-Ü",
)  # fmt: skip
VALUES = (
    "hello", "ann@a.test", "Bob <bob@b.test>, cat@c.test", "ü <ann@a.test>", "jörg@b.test",
    "ann@münchen.test", "group: ann@a.test, bob@b.test;", "\r\nBcc: x@x.test", "\n\nbody", "a\n b",
    "a\r\n\tb", "=?utf-8?b?w7w=?=", "x" * 120, "<>", "a b", '"a b"@b.test', "\udcfc",
    "undisclosed-recipients:;", "ann@a.test (comment)", "text/plain; charset=x",
    "multipart/mixed; boundary=b", ".", "..", "From x", "\x85", "\u2028",
)  # fmt: skip
NAMED = {
    "ann@a.test": ["ann@a.test"],
    "Bob <bob@b.test>, cat@c.test": ["bob@b.test", "cat@c.test"],
    "ü <ann@a.test>": ["ann@a.test"],
    "group: ann@a.test, bob@b.test;": ["ann@a.test", "bob@b.test"],
    '"a b"@b.test': ['"a b"@b.test'],
    "undisclosed-recipients:;": [],
    "ann@a.test (comment)": ["ann@a.test"],
}
"""Whom the values name of which that is beyond doubt."""
SEEDS = (
    b"",
    bytes(range(120)),
    b"\0\0\0\0\x02\x01\x04\x01\x05\x02\x01\x01\x01\x04\0\x01\x02" * 4,
    b"\x01" * 80,
    b"\x02\x01\0\x01\x03" * 30,
    b"\x03\x02\x03\x04\x05\x06\x07\x08\x09" * 12,
)
_MOMENT = datetime(2030, 1, 1, tzinfo=UTC)


def check(octets: bytes) -> None:
    """Send what they say; mostly by the way that a message takes before it comes to a connection."""
    choices = Choices(octets)
    whole = choices.number(7) == 0
    way = choices.pick(WAYS)
    offers, lmtp = choices.pick(OFFERS), choices.rarely()
    pipelining, chunking = choices.pick(("message", "off", "stream")), choices.pick(("off", "eager"))
    asked = Asked(choices)
    if not whole and b"LIMITS RCPTMAX=2" not in offers:
        server = _server(offers, lmtp, asked)
        _judge(server, asked, _at_the_gate(way, asked, choices, server, chunked=chunking == "eager"))
        return
    counter = Counter(lambda: _server(offers, lmtp, asked))
    smtp = (AsyncLMTP if lmtp else AsyncSMTP)(
        "strict.test",
        25,
        tls="none",
        timeout=TIMEOUTS,
        local_hostname="me",
        pipelining=pipelining,
        chunking=chunking,
    )
    result = play(counter, _send(smtp, way, asked, choices))
    assert not counter.wrong, f"{counter.wrong} by {vars(asked)}"
    [server] = counter.servers
    if not isinstance(result, Exception):
        assert all(outcome.delivery is Delivery.ACCEPTED for outcome in result.outcomes)
        _judge(server, asked, [outcome.address for outcome in result.outcomes])
    else:
        _judge(server, asked, result)


def _server(offers: Iterable[bytes], lmtp: bool, asked: Asked) -> Strict:
    server = Strict([*offers], lmtp=lmtp)
    server.raw = {
        option.encode("utf-8", "surrogatepass") for option in [*asked.mail_options, *asked.rcpt_options]
    }
    return server


class NoMessage(Exception):
    """The standard library makes no message object of this."""


class Asked:
    """What a caller wants.

    Attributes:
        sender: of the envelope.
        recipients: of the envelope; those of a message, where it is sent by its headers.
        message: what is sent; its fields are in `fields` if it is an object.
    """

    def __init__(self, choices: Choices) -> None:
        self.sender = _address(choices)
        self.recipients: list[Any] = [_recipient(choices) for _ in range(choices.number(4))] or ["ann@a.test"]
        self.mail_options = choices.several(RAW, 2) if choices.rarely(6) else []
        self.rcpt_options = choices.several(RAW, 2) if choices.rarely(8) else []
        self.fields: list[tuple[str, str]] | None = None
        self.message: Any = b"Subject: x\r\n\r\n.\r\nhello\r\n"
        self.by_header = False

    def compose(self, choices: Choices) -> None:
        """Make a message object; what it does not take is left out, or raised."""
        modern = choices.flag()
        message: Message = (
            EmailMessage(policy=choices.pick((policies.default, policies.SMTP))) if modern else Message()
        )
        self.message = message
        fields = [(_name(choices), _value(choices)) for _ in range(choices.number(4))]
        if not choices.rarely():
            fields[:0] = [("From", "me@a.test"), ("To", "ann@a.test")]
        by_hand = choices.flag()
        for name, value in fields:
            if by_hand:
                message.set_raw(name, value)  # type: ignore[attr-defined]  # what parsers call
            else:
                message[name] = value
        text = choices.pick(("hello\n", ".\n", "x\r\n.\r\ny\n", "ü\n", "", "From x\n", "\0"))
        if modern:
            message.set_content(text)  # type: ignore[attr-defined]
        else:
            message.set_payload(text, choices.pick((None, "utf-8")))
        self.fields = [(name, str(value)) for name, value in message.raw_items()]  # type: ignore[attr-defined]


def _address(choices: Choices) -> str:
    if choices.rarely(10):
        return choices.text(FRAGMENTS, 8)
    if choices.rarely(7):
        return f"{choices.text(FRAGMENTS, 3)}@{choices.text(FRAGMENTS, 3)}"
    if choices.rarely(6):
        return f"{choices.text(FRAGMENTS, 3)} <{choices.pick(PLAIN)}>"
    return choices.pick(PLAIN)


def _recipient(choices: Choices) -> Any:
    address = _address(choices)
    if choices.rarely(40):
        return choices.pick((b"ann@a.test", None, 7, ("ann@a.test",)))
    if not choices.rarely(5):
        return address
    try:
        return Recipient(
            address,
            notify=choices.pick((None, "never", "success,delay", "x")),
            orcpt=choices.text(FRAGMENTS, 3) if choices.flag() else None,
            rrvs=_MOMENT if choices.rarely(4) else None,
        )
    except ValueError as error:
        assert documented(error), repr(error)
        return address


def _name(choices: Choices) -> str:
    return choices.text(FRAGMENTS, 3) if choices.rarely(10) else choices.pick(NAMES)


def _value(choices: Choices) -> str:
    return choices.text(FRAGMENTS, 6) if choices.rarely(4) else choices.pick(VALUES)


def _typed(choices: Choices) -> dict[str, Any]:
    if not choices.rarely(3):
        return {}
    text = choices.text(FRAGMENTS, 4)
    every: dict[str, Callable[[], object]] = {
        "ret": lambda: choices.pick(("full", "hdrs", text)),
        "envid": lambda: text,
        "notify": lambda: choices.pick(("never", "success", ["delay", "failure"], text)),
        "size": lambda: choices.number(3000),
        "body": lambda: choices.pick(("7bit", "8bitmime", text)),
        "smtputf8": lambda: True,
        "auth": lambda: choices.pick(("", "ann@a.test", text)),
        "deliver_by": lambda: DeliverBy(
            choices.number(3000) - 5, choices.pick(("return", "notify")), choices.flag()
        ),
        "hold_for": lambda: choices.number(3000),
        "hold_until": lambda: _MOMENT + timedelta(seconds=choices.number(10**6)),
        "priority": lambda: choices.number(24) - 12,
        "require_tls": lambda: False,
    }
    return {name: every[name]() for name in choices.several(list(every), 3)}


# -- ways to send ----------------------------------------------------------------------------------


Way = Callable[[AsyncSMTP, Asked, Choices], Any]


async def _sendmail(smtp: AsyncSMTP, asked: Asked, choices: Choices) -> SendResult:
    return await smtp.sendmail(
        asked.sender,
        asked.recipients,
        asked.message,
        asked.mail_options,
        asked.rcpt_options,
        **_typed(choices),
    )


def _compose(asked: Asked, choices: Choices) -> None:
    try:
        asked.compose(choices)
    except Exception as error:
        raise NoMessage from error


async def _object(smtp: AsyncSMTP, asked: Asked, choices: Choices) -> SendResult:
    _compose(asked, choices)
    return await _sendmail(smtp, asked, choices)


async def _by_header(smtp: AsyncSMTP, asked: Asked, choices: Choices) -> SendResult:
    _compose(asked, choices)
    asked.by_header = True
    return await smtp.send_message(
        asked.message, mail_options=asked.mail_options, rcpt_options=asked.rcpt_options, **_typed(choices)
    )


async def _many(smtp: AsyncSMTP, asked: Asked, choices: Choices) -> SendResult:
    envelope = Envelope(
        asked.sender, asked.recipients, asked.message,
        mail_options=asked.mail_options, rcpt_options=asked.rcpt_options, **_typed(choices),
    )  # fmt: skip
    [outcome] = [outcome async for outcome in smtp.send_messages([envelope])]
    if outcome.error is not None:
        raise outcome.error
    assert outcome.result is not None
    return outcome.result


WAYS: Sequence[Way] = (_sendmail, _by_header, _object, _many)


async def _send(smtp: AsyncSMTP, way: Way, asked: Asked, choices: Choices) -> SendResult | Exception:
    await smtp.connect()
    outcome: SendResult | Exception
    try:
        outcome = await way(smtp, asked, choices)
    except Exception as error:
        outcome = error
    try:
        await smtp.quit()
    except SMTPException as error:
        raise AssertionError(f"QUIT ended in {error!r}, behind {outcome!r}") from error
    await settle()
    return outcome


def _at_the_gate(
    way: Way, asked: Asked, choices: Choices, server: Strict, *, chunked: bool
) -> list[str] | Exception:
    """The same without a connection: prepared, put into commands, and these read at once."""
    server.greeting()
    server.hear(b"LHLO me\r\n" if server.lmtp else b"EHLO me\r\n")
    extensions = Extensions.parse(b"\n".join([b"strict.test", *server.offers]))
    try:
        prepared, transaction = _prepared(way, asked, choices, extensions)
        transaction.chunked = chunked and extensions.chunking
        lines = lines_of(transaction)
    except Exception as error:
        server.hear(commands.QUIT)
        return error
    content = prepared.content
    assert isinstance(content, InMemory)
    writes = [lines.mail, *lines.rcpts]
    if extensions.pipelining:
        writes = [b"".join(writes)]
    if transaction.chunked:
        writes.append(commands.bdat(content.size, last=True) + content.data)
    else:
        writes += [commands.DATA, content.stuffed() + commands.END_OF_CONTENT]
    for octets in (*writes, commands.QUIT):
        server.hear(octets)
    return [*prepared.recipients.texts]


def _prepared(
    way: Way, asked: Asked, choices: Choices, extensions: Extensions
) -> tuple[Prepared, Conversation]:
    """What a send makes of it (see `parcels` and `sending`)."""
    if way in (_object, _by_header):
        _compose(asked, choices)
    options = _typed(choices)
    asked.by_header = way is _by_header
    envelope = Envelope(
        "" if asked.by_header else asked.sender,
        ["nobody"] if asked.by_header else asked.recipients,
        asked.message, mail_options=asked.mail_options, rcpt_options=asked.rcpt_options, **options,
    )  # fmt: skip
    parameters = envelope.parameters
    form = {
        "eightbitmime": extensions.eightbitmime and (parameters is None or parameters.body != "7bit"),
        "smtputf8": extensions.smtputf8,
        "utf8": parameters is not None and bool(parameters.smtputf8),
    }
    if asked.by_header:
        prepared = prepare_message(asked.message, None, None, **form)
    else:
        prepared = prepare(envelope.sender, envelope.recipients, envelope.content, **form)
    transaction = Conversation(
        prepared, extensions, Ledger(prepared.recipients.texts), lmtp=False,
        mail_options=envelope.mail_options, rcpt_options=envelope.rcpt_options,
    )  # fmt: skip
    transaction.ask(parameters, encrypted=False)
    return prepared, transaction


# -- what was read ----------------------------------------------------------------------------------


def _judge(server: Strict, asked: Asked, result: list[str] | Exception) -> None:
    assert not server.wrong, f"{server.wrong} by {vars(asked)}"
    assert not server.disorder, server.commands
    assert not server.unread
    if isinstance(result, Exception):
        _refused(server, asked, result)
        return
    verbs = [line[:4].strip() for line in server.commands]
    recipients = [path for one in server.transactions for path, _ in one.recipients]
    wanted = [b"LHLO" if server.lmtp else b"EHLO"]
    for one in server.transactions:
        assert one.content is not None
        wanted += [b"MAIL", *[b"RCPT"] * len(one.recipients), *([b"BDAT"] * one.chunks or [b"DATA"])]
    assert verbs == [*wanted, b"QUIT"], server.commands
    texts = result
    if asked.by_header:
        named = _named(asked.fields or [])
        assert named is None or texts == named, f"{texts} for {asked.fields}"
    else:
        assert texts == asked.recipients, f"{texts}, not {asked.recipients}"
        assert _is_of(server.transactions[0].sender, asked.sender), f"{server.transactions[0].sender!r}"
    if b"LIMITS" in server.keywords:
        texts = _each_once(texts, recipients)
    assert len(recipients) == len(texts), f"{recipients} for {texts}"
    for path, text in zip(recipients, texts, strict=True):
        assert _is_of(path, text), f"{path!r} for {text!r}"
    for one in server.transactions:
        _look_at_options(one, asked)
        _look_at_content(one, asked)


def _named(fields: list[tuple[str, str]]) -> list[str] | None:
    """The recipients that a header block names, if that is beyond doubt."""
    keys = [name.strip().lower() for name, _ in fields]
    prefix = "resent-" if "resent-date" in keys else ""
    values = [
        NAMED.get(value) for name in ("to", "cc", "bcc") for key, (_, value) in zip(keys, fields, strict=True)
        if key == prefix + name
    ]  # fmt: skip
    if None in values:
        return None
    return [address for addresses in values if addresses is not None for address in addresses]


def _each_once(texts: list[str], paths: list[bytes]) -> list[str]:
    """In several transactions nobody is named twice: leave out those who were named before."""
    kept: list[str] = []
    for text in texts:
        known = any(_is_of(path, text) for path in paths[: len(kept)])
        if len(kept) < len(paths) and (not known or _is_of(paths[len(kept)], text)):
            kept.append(text)
        else:
            assert known, f"{text!r} is missing in {paths}"
    return kept


def _refused(server: Strict, asked: Asked, error: Exception) -> None:
    """It cannot be sent: not an octet of it was written."""
    assert [line[:4] for line in server.commands[1:]] == [b"QUIT"], f"{error!r} after {server.commands}"
    assert documented(error) or isinstance(error, NoMessage), f"{error!r} by {vars(asked)}"
    word = Delivery.REFUSED if isinstance(error, SMTPSenderRefused) else Delivery.NOT_SENT  # too large, say
    assert getattr(error, "delivery", word) is word
    if isinstance(error, SMTPException):
        assert str(error).isprintable()


def _is_of(path: bytes, text: str) -> bool:
    """The path is what stands in the text: as it is, or with a domain as A-labels."""
    said = path.decode()
    if said in text:
        return True
    local, at, domain = said.rpartition("@")
    return bool(at) and f"{local}@" in text and domain.isascii() and not text.isascii()


def _look_at_options(one: Transaction, asked: Asked) -> None:
    """Every raw option is there as it was given; each keyword of our own at most once."""
    raw = [option.encode("utf-8") for option in asked.mail_options]
    assert one.options[len(one.options) - len(raw) :] == raw
    own = [option.partition(b"=")[0] for option in one.options[: len(one.options) - len(raw)]]
    assert len(own) == len(set(own)), one.options
    for _, options in one.recipients:
        wanted = [option.encode("utf-8") for option in asked.rcpt_options]
        assert options[len(options) - len(wanted) :] == wanted


def _look_at_content(one: Transaction, asked: Asked) -> None:
    assert one.content is not None
    if asked.fields is None:
        assert one.content == asked.message
        return
    head = one.content[: one.content.index(b"\r\n\r\n") + 2] if not one.content.startswith(b"\r\n") else b""
    names = [match[1] for match in re.finditer(rb"(?m)^([^ \t\r\n][^:\r\n]*):", head)]
    wanted = [
        name.encode("latin-1", "replace") for name, _ in asked.fields if name.strip().lower() not in BLIND
    ]
    assert [name.lower() for name in names] == [name.lower() for name in wanted], (
        f"{head!r} for {asked.fields}"
    )
    lines = head.split(b"\r\n")[:-1]
    assert all(line[:1] in (b" ", b"\t") or b":" in line for line in lines), head
    assert b"SMTPUTF8" in [option.upper() for option in one.options] or head.isascii()


BLIND = frozenset({"bcc", "resent-bcc"})
