"""Target: content over {CR, LF, ".", NUL, x} of every kind, in any slices, by DATA and by BDAT.

What must hold: what arrives is what was given, with its line ends made CRLF and the last one added,
or octet for octet by BINARYMIME; SIZE is right to the octet; a NUL, or an octet over 127 where
nobody may send one, is an error, and nothing is delivered then; the next message arrives either way.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

from aiosmtpclient import (
    AsyncLMTP,
    AsyncSMTP,
    Delivery,
    SMTPNotSupportedError,
    bodies,
    commands,
    content,
    driver,
    protocol,
    transactions,
)
from aiosmtpclient.bodies import wire_slices
from aiosmtpclient.content import InMemory, Stream
from aiosmtpclient.delivery import Ledger
from aiosmtpclient.envelopes import Transaction, lines_of
from aiosmtpclient.extensions import Extensions
from aiosmtpclient.message import prepare

from .choices import Choices
from .counter import TIMEOUTS, Counter, play, settle
from .strict import Strict

LETTERS = b"x\r\n.\r\n.x.\n\rxx\r\n."
NEXT = b"Subject: next\r\n\r\n.\r\n"
GAUGES = (0, 3, 5, 8, 64)
"""Octets of a slice; 0 for what it is."""
SEEDS = (
    b"",
    b"\0" * 20,
    bytes(range(60)),
    *(
        bytes([kind, 0, 1, mode, gauge]) + bytes(range(40))
        for kind in range(12)
        for mode, gauge in ((0, 0), (1, 1), (4, 2))
    ),
)


def check(octets: bytes) -> None:
    """Send them; mostly by the way that content takes before it comes to a connection."""
    choices = Choices(octets)
    whole = choices.number(7) == 0
    kind, eight, lmtp = choices.pick(KINDS if whole else NO_FILES), choices.flag(), choices.rarely()
    pipelining, chunking = choices.pick(WAYS)
    gauge = choices.pick(GAUGES)
    binary = chunking == "eager" and choices.rarely(6)
    offers = (
        [b"CHUNKING", b"BINARYMIME", b"SIZE"]
        + [b"8BITMIME"] * eight
        + [b"PIPELINING"] * (not choices.rarely())
    )
    places = choices.take(choices.number(8))
    another, body = choices.rarely(4), _body(choices.take(80))
    if not whole:
        server = _server([*offers, b"PIPELINING"], lmtp, binary)
        with _gauge(gauge):
            failure = _at_the_gate(server, kind(body, places), chunked=chunking == "eager", binary=binary)
        _judge([server], body, failure, eight=eight, binary=binary, another=False)
        return
    counter = Counter(lambda: _server(offers, lmtp, binary))
    smtp = (AsyncLMTP if lmtp else AsyncSMTP)(
        "strict.test",
        25,
        tls="none",
        timeout=TIMEOUTS,
        local_hostname="me",
        pipelining=pipelining,
        chunking=chunking,
    )
    with _gauge(gauge):
        error = play(counter, _send(smtp, kind(body, places), binary, another))
    another = another or error is not None
    _judge(counter.servers, body, error, eight=eight, binary=binary, another=another)


WAYS: Sequence[tuple[Any, Any]] = (
    ("message", "off"),
    ("message", "eager"),
    ("off", "off"),
    ("off", "eager"),
    ("stream", "off"),
    ("stream", "eager"),
)


def _server(offers: list[bytes], lmtp: bool, binary: bool) -> Strict:
    server = Strict(offers, lmtp=lmtp)
    server.raw = {b"BODY=BINARYMIME"} if binary else set()
    return server


def _body(octets: bytes) -> bytes:
    """Mostly of the letters; NUL and an octet over 127 are rare, for they end everything."""
    return bytes(
        0 if octet == 250 else 0xE9 if octet == 251 else LETTERS[octet % len(LETTERS)] for octet in octets
    )


@contextlib.contextmanager
def _gauge(size: int) -> Iterator[None]:
    """What the client takes for large is as large as this."""
    if not size:
        yield
        return
    places: list[tuple[Any, str]] = [
        (driver, "ONE_WRITE"), (transactions, "ONE_WRITE"), (bodies, "SLICE"), (bodies, "READ"),
        (content, "SLICE"), (protocol, "HIGH_WATER"), (protocol, "MUCH"),
    ]  # fmt: skip
    before = [(room, name, getattr(room, name)) for room, name in places]
    for room, name in places:
        setattr(room, name, size)
    try:
        yield
    finally:
        for room, name, value in before:
            setattr(room, name, value)


async def _send(smtp: AsyncSMTP, given: Any, binary: bool, another: bool) -> Exception | None:
    failure: Exception | None = None
    options = ["BODY=BINARYMIME"] if binary else []
    await smtp.connect()
    try:
        result = await smtp.sendmail("me@a.test", ["ann@a.test", "bob@a.test"], given, mail_options=options)
        assert not result
    except (ValueError, SMTPNotSupportedError) as error:
        failure = error
        assert error.delivery is Delivery.NOT_SENT  # type: ignore[union-attr]  # it is stamped
    if failure is not None or another:
        await smtp.sendmail("me@a.test", "cat@a.test", NEXT)
    await smtp.quit()
    await settle()
    return failure


def _at_the_gate(server: Strict, given: Any, *, chunked: bool, binary: bool) -> Exception | None:
    """The same without a connection: prepared, put into commands and slices, and these read at once."""
    server.greeting()
    server.hear(b"LHLO me\r\n" if server.lmtp else b"EHLO me\r\n")
    offered = Extensions.parse(b"\n".join([b"strict.test", *server.offers]))
    to = ["ann@a.test", "bob@a.test"]
    try:
        prepared = prepare(
            "me@a.test", to, given, eightbitmime=offered.eightbitmime, smtputf8=False, binary=binary
        )
        transaction = Transaction(prepared, offered, Ledger(to))
        transaction.mail_options = ["BODY=BINARYMIME"] if binary else []
        lines = lines_of(transaction)
        server.hear(b"".join([lines.mail, *lines.rcpts]) + (b"" if chunked else commands.DATA))
        for octets in _written(prepared.content, chunked=chunked, seven_bit=not offered.eightbitmime):
            server.hear(octets)
    except (ValueError, SMTPNotSupportedError) as error:
        return error
    server.hear(commands.QUIT)
    return None


def _written(content: InMemory | Stream, *, chunked: bool, seven_bit: bool) -> Iterator[bytes]:
    """What leaves, with its end (see `driver`)."""
    if isinstance(content, InMemory) and chunked:
        yield commands.bdat(content.size, last=True) + b"".join(content.slices(stuff=False))
        return
    pieces, held = wire_slices(content, seven_bit=seven_bit, stuff=not chunked), b""
    while (piece := _driven(anext(pieces, None))) is not None:
        if held:
            yield commands.bdat(len(held), last=False) + held if chunked else held
        held = piece
    yield commands.bdat(len(held), last=True) + held if chunked else held + commands.END_OF_CONTENT


def _driven(awaitable: Any) -> Any:
    """What it comes to; it awaits nothing that would need a loop."""
    steps = awaitable.__await__()
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return done.value


# -- what is given -----------------------------------------------------------------------------


def _pieces(body: bytes, places: bytes) -> list[bytes]:
    edges = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    return [body[start:end] for start, end in itertools.pairwise(edges)]


def _of_some_kind(body: bytes, places: bytes) -> list[bytes | bytearray | memoryview]:
    make = (bytes, bytearray, memoryview)
    return [make[number % 3](piece) for number, piece in enumerate(_pieces(body, places))]


async def _awaited(body: bytes, places: bytes) -> AsyncIterator[bytes]:
    for piece in _pieces(body, places):
        yield piece


class _OnlyOnce:
    """A file that can be read and nothing else, as much at a time as it likes."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = [piece for piece in pieces if piece]

    def read(self, size: int = -1, /) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""


def _in_the_middle(body: bytes) -> io.BytesIO:
    """A file that was read up to somewhere: what is before that is not to be sent."""
    file = io.BytesIO(b"before\r\n" + body)
    file.seek(8)
    return file


KINDS: Sequence[Callable[[bytes, bytes], Any]] = (
    lambda body, places: body,
    lambda body, places: bytearray(body),
    lambda body, places: memoryview(b"x" + body)[1:],
    lambda body, places: memoryview(b"".join(b"%c-" % octet for octet in body))[::2],
    lambda body, places: body.decode("latin-1"),
    lambda body, places: _pieces(body, places),
    lambda body, places: iter(_of_some_kind(body, places)),
    lambda body, places: (piece for piece in _pieces(body, places)),
    lambda body, places: _awaited(body, places),
    lambda body, places: io.BytesIO(body),
    lambda body, places: _OnlyOnce(_pieces(body, places)),
    lambda body, places: _in_the_middle(body),
)


NO_FILES = KINDS[:9]
"""Those that need no thread to be read."""


# -- what arrived ---------------------------------------------------------------------------------


def _judge(
    servers: Sequence[Strict],
    body: bytes,
    error: Exception | None,
    *,
    eight: bool,
    binary: bool,
    another: bool,
) -> None:
    wrong = [text for server in servers for text in (*server.wrong, *server.disorder)]
    assert not wrong, wrong
    arrived = [one for server in servers for one in server.transactions if one.content is not None]
    before = [one for one in arrived if one.accepted != [b"cat@a.test"]]
    last = arrived[len(before) :]
    assert [one.content for one in last] == [NEXT][: len(last)]
    assert bool(last) == another, "the next message did not arrive"
    assert (error is None) == bool(before), f"{error!r}, and {before} arrived"
    if error is not None:
        _is_right(error, body, eight=eight, binary=binary)
        return
    [one] = before
    wanted = body if binary else _lines(body)
    assert one.content == wanted, f"{one.content!r} arrived, not {wanted!r}"
    assert one.accepted == [b"ann@a.test", b"bob@a.test"]
    sizes = [option for option in one.options if option.startswith(b"SIZE=")]
    assert sizes in ([], [b"SIZE=%d" % len(wanted)]), f"{sizes} for {len(wanted)} octets"
    assert b"\0" not in body or binary
    assert body.isascii() or eight or binary


def _is_right(error: Exception, body: bytes, *, eight: bool, binary: bool) -> None:
    """Why nothing arrived: a NUL, or an octet over 127 that the server does not take."""
    assert not isinstance(error, UnicodeError)
    if isinstance(error, SMTPNotSupportedError):
        assert not body.isascii()
        assert not eight
    else:
        assert b"\0" in body or not body.isascii(), f"{error!r} for {body!r}"
    assert not binary or not body.isascii()  # a text as content knows no octets over 127


def _lines(body: bytes) -> bytes:
    """With CRLF for each line end, and one at the end."""
    made = re.sub(rb"\r\n|\r|\n", b"\r\n", body)
    return made if not made or made.endswith(b"\r\n") else made + b"\r\n"
