"""Target: a stream of replies, and what is owed while it comes (RFC 5321 section 4.2).

What must hold: the parser reads what a model of the grammar reads; a session comes to the same
end however the octets are split, with whatever it owes, and nothing but our errors ends it; what
is held stays bounded; what is shown can be printed.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from unittest import mock

from aiosmtpclient import SMTPException, replies
from aiosmtpclient.content import InMemory
from aiosmtpclient.replies import Reply, ReplyParser
from aiosmtpclient.session import MAX_UNCLAIMED, Session
from aiosmtpclient.steps import Phase, Step

from . import spoken
from .choices import Choices

SEEDS = (
    bytes(range(256)),
    b"\0\x01\x05\x03250 ok\r\n354 go\r\n250-a\r\n250 b\r\n",
    b"\0\x02\x01421-bye\r\n421 now\r\n250 never\r\n",
    b"\0\x03\x01\x01334 VXNlcm5hbWU6\r\n235 2.7.0 in\r\n",
)

_LINE = re.compile(rb"([2-5][0-9]{2})(?:([ -])(.*))?", re.DOTALL)
_SMALL_LINE, _SMALL_REPLY = 40, 90


def check(octets: bytes) -> None:
    """Read them as a whole, and in pieces."""
    choices = Choices(octets)
    small, kinds = choices.flag(), [choices.number(len(_KINDS) - 1) for _ in range(choices.number(5))]
    secret = choices.pick((b"", b"s3cret", b"ok", b"250"))
    raw, raised = choices.rarely(10), choices.flag()
    edges = choices.octets(6)  # none: octet by octet
    stream = spoken.stream(choices, 6)
    pieces = _split(stream, edges) if edges else [stream[place : place + 1] for place in range(len(stream))]
    with _small_caps() if small else contextlib.nullcontext():
        line, reply = (_SMALL_LINE, _SMALL_REPLY) if small else (replies.MAX_LINE, replies.MAX_REPLY)
        wanted = _by_the_grammar(stream, line, reply)
        for split in ([stream], pieces):
            _parse(split, line, reply, wanted)
        whole, in_pieces = (
            _end(kinds, split, secret, raw=raw, traced=raised) for split in ([stream], pieces)
        )
    assert whole == in_pieces, f"the split matters: {stream!r} {pieces!r}\n{whole}\n{in_pieces}"
    for octets in (stream, *pieces):
        _read_at_once(octets)


@contextlib.contextmanager
def _small_caps() -> Iterator[None]:
    # What is known by heart was read with the caps that there are.
    with mock.patch.object(replies, "MAX_REPLY", _SMALL_REPLY), mock.patch.dict(replies._known, clear=True):
        yield


def _split(stream: bytes, edges: bytes) -> list[bytes]:
    places = sorted({edge % (len(stream) + 1) for edge in edges})
    return [stream[a:b] for a, b in itertools.pairwise([0, *places, len(stream)])]


# -- the parser --------------------------------------------------------------------------------


def _parse(pieces: Sequence[bytes], line: int, reply: int, wanted: tuple[list[Reply], bool, bool]) -> None:
    parser = ReplyParser()
    parser.max_line = line
    found: list[Reply] = []
    for piece in pieces:
        found += parser.feed(piece)
        held = len(parser._buffer) + len(parser._text)
        assert held <= line + reply + 1, f"{held} octets are held"
    unfinished = parser.error is None and parser.pending
    assert (found, parser.error is None, unfinished) == wanted, f"{found} {parser.error}, not {wanted}"
    assert parser.error is None or parser.error.isprintable()
    if len(pieces) > 1:
        return
    for one in found:
        assert one.display.isprintable()
        assert all(text.isprintable() for text in one.lines)
        assert one.enhanced_code is None or one.enhanced_code.class_ == one.code // 100
        assert [one.positive, one.intermediate, one.temporary, one.permanent].index(
            True
        ) == one.code // 100 - 2


def _by_the_grammar(stream: bytes, max_line: int, max_reply: int) -> tuple[list[Reply], bool, bool]:
    """The replies, whether everything was one, and whether the last one is still to end."""
    read: list[Reply] = []
    held: list[re.Match[bytes]] = []
    *lines, rest = stream.split(b"\n")
    for line in lines:
        match = _LINE.fullmatch(line.removesuffix(b"\r"))
        if match is None or len(match[0]) > max_line or (held and match[1] != held[0][1]):
            return read, False, False
        held.append(match)
        if match[2] != b"-" and len(held) == 1:
            pass  # one line of the right length is never too long a reply
        elif sum(len(each[0]) for each in held) > max_reply:
            return read, False, False
        if match[2] != b"-":
            read.append(Reply(int(match[1]), b"\n".join((each[3] or b"").strip(b" \t\r") for each in held)))
            held = []
    if len(rest) > max_line + 1:
        return read, False, False
    return read, True, bool(rest or held)


# -- the session -------------------------------------------------------------------------------


def _group() -> Step:
    return Step(b"", "MAIL", "RCPT", "DATA", owed=3, during=Phase.MAIL, then=Phase.CONTENT)


def _noop() -> Step:
    return Step(b"NOOP\r\n", "NOOP")


def _ehlo() -> Step:
    return Step(b"EHLO me\r\n", "EHLO")


def _auth() -> Step:
    return Step(b"AUTH PLAIN AHMzY3JldA==\r\n", "AUTH", masked=b"AUTH PLAIN ***\r\n")


def _end_of_content() -> Step:
    step = Step(b"", "end of content", during=Phase.CONTENT, content=InMemory(b"x\r\n"))
    step.end_left()
    return step


def _early_content() -> Step:
    return Step(b"", "end of content", during=Phase.CONTENT, content=InMemory(b"x\r\n"))


def _lmtp() -> Step:
    step = Step(
        b"", "MAIL", "RCPT", "RCPT", "end of content", owed=5, lines=3, during=Phase.CONTENT, chunked=True,
        content=InMemory(b"x\r\n"),
    )  # fmt: skip

    def count(received: Sequence[Reply]) -> int:
        return 3 + max(1, 2 - sum(reply.code >= 400 for reply in received[1:3])) if len(received) >= 3 else 5

    step.count = count
    step.end_left()
    return step


def _quit() -> Step:
    return Step(b"QUIT\r\n", "QUIT", then=Phase.CLOSING, last=True)


_KINDS: tuple[Callable[[], Step], ...] = (
    _noop, _group, _end_of_content, _auth, _ehlo, _lmtp, _early_content, _quit,
)  # fmt: skip


def _read_at_once(octets: bytes) -> None:
    """The quick way, whether it knows this by heart or not, says the same as the slow one, or nothing."""
    for _ in range(2):
        at_once, parser = replies.at_once(octets), replies.ReplyParser()
        slowly = parser.feed(octets)
        if at_once is not None:
            answers, others_positive, last = at_once
            assert (list(answers), None, False) == (slowly, parser.error, parser.pending), octets
            *others, code = (reply.code for reply in slowly)
            assert (others_positive, last) == (all(other < 300 for other in others), code), octets


def _end(kinds: Sequence[int], pieces: Iterable[bytes], secret: bytes, *, raw: bool, traced: bool) -> object:
    """What came of it, in everything that others ask for."""
    told: list[tuple[str, bytes]] = []
    session = Session(
        "mail.test:25", (lambda event, octets: told.append((event, octets))) if traced else None
    )
    steps = [session.greeting]
    session.keep_secret([secret])
    if raw:
        session.expect_anything()
    for kind in kinds:
        step = _KINDS[kind]()
        try:
            session.send(step)
        except SMTPException:
            break
        steps.append(step)
    complete: list[int] = []
    for piece in pieces:
        complete += [steps.index(step) for step in session.receive_data(piece)]
    _look_at(session)
    failure = session.failure
    main = (
        complete,
        [(list(step.received), step.owed) for step in steps],
        session.phase,
        session.reusable,
        session.closing,
        session.in_flight,
        list(session.unclaimed or ()),
        type(failure),
    )
    if failure is not None and len(complete) == len(steps) and not raw:
        return main  # nothing was owed: the first octet tells that, or the reply if it came as a whole
    return (
        *main,
        session.replies_read,
        session.last_reply,
        str(failure),
        [event for event in told if event[0] == "reply"],
    )


def _look_at(session: Session) -> None:
    assert session.unclaimed is None or len(session.unclaimed) <= MAX_UNCLAIMED
    if session.failure is not None:
        assert isinstance(session.failure, SMTPException)
        assert str(session.failure).isprintable()
        assert str(session.why()) == str(session.failure)
        assert not session.in_flight
