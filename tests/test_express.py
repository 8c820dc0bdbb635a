"""The short way: to the octet what the dialogue would write, and everything but "yes" judged by that."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_protocol import Socket, Wire
from wire import (
    BODY,
    GO,
    NEXT,
    SENDER,
    TO,
    TOO,
    bye,
    caught,
    deliveries,
    each_loop,
    envelope,
    hello,
    send,
    take,
)

from aiosmtpclient import AsyncSMTP, Delivery, Envelope, SMTPPool, express
from aiosmtpclient.commands import END_OF_CONTENT
from aiosmtpclient.connection import Connection
from aiosmtpclient.content import InMemory
from aiosmtpclient.delivery import Ledger
from aiosmtpclient.driver import Drive
from aiosmtpclient.envelopes import Transaction
from aiosmtpclient.errors import SMTPServerDisconnected, SMTPTimeoutError
from aiosmtpclient.extensions import Extensions
from aiosmtpclient.message import Prepared, prepare
from aiosmtpclient.parcels import Parcel
from aiosmtpclient.plain import Plain
from aiosmtpclient.protocol import SMTPProtocol
from aiosmtpclient.recipients import Recipient
from aiosmtpclient.replies import Reply, ReplyParser
from aiosmtpclient.session import Session
from aiosmtpclient.steps import Phase, Step
from aiosmtpclient.testing import MailServer, ScriptedServer
from aiosmtpclient.testing.conversation import Conversation
from aiosmtpclient.testing.scripted import close, expect_content
from aiosmtpclient.transactions import deliver

KEYWORDS = ("SIZE", "SIZE 300", "8BITMIME", "SMTPUTF8", "CHUNKING", "LIMITS RCPTMAX=1", "PIPELINING")
ADDRESSES = ("", "a@a.test", "o'neil+x@b.test", '"a b"@c.test', "ä@d.test", "x@bücher.test", "postmaster")
BODIES = (b"", b"x", b".", b"..\r\n.\r\n", b"Subject: x\n\n.dot\r\rend", b"\xe4\r\n", b"y" * 301)
COMPARED = (
    "data", "owed", "lines", "during", "then", "chunked", "content", "last", "masked", "patience", "count",
)  # fmt: skip
YES = b"250 ok\r\n"
"""What MAIL and RCPT are told, each."""


def offering(*keywords: str) -> Extensions:
    return Extensions.parse("\n".join(["mail.test", *keywords]).encode())


def connection(extensions: Extensions, **attributes: object) -> Connection:
    """As much of one as the short way looks at."""
    session = Session()
    session.receive_data(b"220 hi\r\n")
    session.extensions = extensions
    return cast(Connection, SimpleNamespace(session=session, esmtp=True, most_recipients=None, **attributes))


def asked_for(dialogue: Any, *answers: bytes) -> list[Step]:
    """The steps of a dialogue to which the server says this."""
    steps = []
    with contextlib.suppress(StopIteration):
        step = next(dialogue)
        for answer in answers:
            steps.append(step)
            step.received += [Reply(int(code), b"ok") for code in answer.split()]
            if step.content is not None:
                step.end_left()
            step = dialogue.send(step.received)
    dialogue.close()
    return steps


@given(
    st.sets(st.sampled_from(KEYWORDS)),
    st.sampled_from(ADDRESSES),
    st.lists(st.sampled_from(ADDRESSES[1:]), min_size=1, max_size=3),
    st.sampled_from(BODIES),
    st.booleans(),
)
def test_both_ways_write_the_same_and_are_owed_the_same(
    keywords: set[str], sender: str, recipients: list[str], body: bytes, chunked: bool
) -> None:
    extensions = offering(*sorted(keywords))
    prepared = prepare(sender, tuple(recipients), body, eightbitmime=True, smtputf8=True)
    terms = express.terms_of(connection(extensions), chunked=chunked)
    octets = terms and express.octets_of_prepared(prepared, terms)
    if terms is not None and (same := express.octets_of(sender, recipients, body, terms)):
        assert same == octets
    if terms is None or octets is None:
        return
    chunked = terms.chunked
    plain = Plain(cast(Any, Future()), (), chunked=chunked)
    written = [plain.start(octets)]
    plain.ended = plain.chunked
    yes = b"250 ok\r\n" * (len(recipients) + 1)
    if not chunked:
        assert plain.takes(yes + GO)
        written.append(plain.go_on())
    assert plain.takes(yes + b"250 ok\r\n" if chunked else b"250 ok\r\n")
    plain.unfold()
    for step in plain.steps:
        step.content = prepared.content if step.content is not None else None
    codes = b"250 " * (len(recipients) + 1)
    answers = [codes + b"250"] if chunked else [codes + b"354", b"250"]
    transaction = Transaction(prepared, extensions, Ledger(recipients), chunked=chunked)
    theirs = asked_for(deliver(transaction), *answers)
    assert [[getattr(step, name) for name in COMPARED] for step in plain.steps] == [
        [getattr(step, name) for name in COMPARED] for step in theirs
    ]
    assert [list(step.verbs) for step in plain.steps] == [list(step.verbs) for step in theirs]
    assert written == [step.data + whole(step) for step in theirs]


def whole(step: Step) -> bytes:
    """Its content as the driver writes it."""
    content = step.content
    if not isinstance(content, InMemory):
        return b""
    return content.data if step.chunked else content.stuffed() + END_OF_CONTENT


def made(*recipients: str, content: Any = BODY) -> Prepared:
    return prepare(SENDER, recipients, content, eightbitmime=True, smtputf8=True)


def offers(*keywords: str) -> Callable[[Connection], None]:
    return lambda link: setattr(link.session, "extensions", offering(*keywords))


CHANGED: dict[str, Callable[[Connection], None]] = {
    "no PIPELINING": offers("SIZE"),
    "LIMITS": offers("PIPELINING", "LIMITS RCPTMAX=5"),
    "too large": offers("PIPELINING", "SIZE 10"),
    "takes few recipients": lambda link: setattr(link, "most_recipients", 3),
}
NOT_FREE: dict[str, Callable[[Connection], object]] = {
    "after HELO": lambda link: setattr(link, "esmtp", False),
    "an envelope is open": lambda link: setattr(link.session, "phase", Phase.MAIL),
    "a reply is owed": lambda link: link.session.send(Step(b"NOOP\r\n", "NOOP")),
    "half a reply is there": lambda link: link.session._parser.feed(b"42"),
    "octets by hand": lambda link: link.session.expect_anything(),
    "given up": lambda link: setattr(link.session, "condemned", Step()),
    "failed": lambda link: link.session.lost(),
    "no transport": lambda link: setattr(link.protocol, "transport", None),
    "closing": lambda link: cast(Any, link.protocol.transport).close(),
}
NOT_PLAIN: dict[str, Callable[[], Prepared]] = {
    "no octets": lambda: made(TO, content=iter([b"x"])),
    "large": lambda: made(TO, content=b"x" * 65_535),
    "wishes": lambda: made(Recipient(TO, notify="never")),
    "a quoted address": lambda: made('"a b"@c.test'),
    "an international one": lambda: made("\u00e4@c.test"),
    "many recipients": lambda: made(*[TO] * 101),
}


def octets(link: Connection, prepared: Prepared) -> object:
    terms = express.terms_of(link, chunked=False)
    return terms and express.octets_of_prepared(prepared, terms)


@pytest.mark.parametrize("change", CHANGED)
def test_a_connection_that_is_not_plain_takes_the_long_way(change: str) -> None:
    link = connection(offering("PIPELINING", "SIZE"))
    assert octets(link, made(TO)) is not None
    CHANGED[change](link)
    assert octets(link, made(TO)) is None


@pytest.mark.parametrize("change", NOT_FREE)
def test_a_connection_on_which_something_is_going_on_is_not_free(change: str) -> None:
    closing: list[bool] = []
    transport = SimpleNamespace(is_closing=lambda: bool(closing), close=lambda: closing.append(True))
    link = connection(offering("PIPELINING"), protocol=SimpleNamespace(transport=transport))
    free = cast(Any, Connection.free).fget
    assert free(link)
    NOT_FREE[change](link)
    assert not free(link)


@pytest.mark.parametrize("kind", NOT_PLAIN)
def test_a_message_that_is_not_plain_takes_the_long_way(kind: str) -> None:
    link = connection(offering("PIPELINING", "SIZE"))
    assert octets(link, NOT_PLAIN[kind]()) is None


NO_PLAIN_OCTETS: dict[str, tuple[str, list[str], bytes]] = {
    "large": (SENDER, [TO], b"x" * 65_537),
    "large with its line end": (SENDER, [TO], b"x" * 65_535),
    "wishes": (SENDER, [Recipient(TO, notify="never")], BODY),
    "a bounce": ("", [TO], BODY),
    "an international sender": ("\u00e4@c.test", [TO], BODY),
    "two addresses in one": (SENDER, [f"{TO}\n{NEXT}"], BODY),
    "an address with a line end": (SENDER, [f"{TO}>\r\nRCPT TO:<{NEXT}"], BODY),
    "no address": (SENDER, [""], BODY),
    "nobody": (SENDER, [], BODY),
    "many recipients": (SENDER, [TO] * 101, BODY),
    "octets over 127": (SENDER, [TO], b"\xe4"),
}


@pytest.mark.parametrize("kind", NO_PLAIN_OCTETS)
def test_what_is_not_plain_is_looked_at_more_closely(kind: str) -> None:
    terms = express.terms_of(connection(offering("PIPELINING", "SIZE")), chunked=False)
    assert terms is not None
    assert express.octets_of(SENDER, [TO], BODY, terms) is not None
    assert express.octets_of(*NO_PLAIN_OCTETS[kind], terms) is None


NO_PLAIN_ENVELOPE: dict[str, Callable[[], Envelope]] = {
    "text": lambda: Envelope(SENDER, TO, "Subject: x\n\ny"),
    "wishes": lambda: Envelope(SENDER, Recipient(TO, notify="never"), BODY),
    "options": lambda: Envelope(SENDER, TO, BODY, ret="hdrs"),
    "raw options": lambda: Envelope(SENDER, TO, BODY, mail_options=["BODY=8BITMIME"]),
    "raw options for each": lambda: Envelope(SENDER, TO, BODY, rcpt_options=["NOTIFY=NEVER"]),
    "all or nothing": lambda: Envelope(SENDER, TO, BODY, all_or_nothing=True),
}


@each_loop
@pytest.mark.parametrize("by", ["sendmail", "a run"])
@pytest.mark.parametrize("kind", NO_PLAIN_ENVELOPE)
async def test_whoever_asks_for_more_takes_the_long_way(
    kind: str, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with MailServer(extensions=["DSN"]) as server, SMTPPool(server.host, server.port) as pool:
        await pool.sendmail(SENDER, TO, BODY)
        monkeypatch.setattr(SMTPProtocol, "begin", None)
        envelope = NO_PLAIN_ENVELOPE[kind]()
        if by == "a run":
            found = [one async for one in pool.send_messages([envelope] * 2)]
            assert [one.delivery for one in found] == [Delivery.ACCEPTED] * 2
        else:
            assert (await pool._send(Parcel(envelope))).accepted == (TO,)


def test_content_with_a_nul_is_found_out_before_anything_is_written() -> None:
    terms = express.terms_of(connection(offering("PIPELINING", "SIZE")), chunked=False)
    assert terms is not None
    with pytest.raises(ValueError, match="NUL"):
        express.octets_of(SENDER, [TO], b"a\0b", terms)


def test_a_refused_chunk_sends_the_next_message_the_long_way() -> None:
    session = connection(offering("PIPELINING", "CHUNKING")).session
    assert session.free
    plain = Plain(cast(Any, Future()), (), chunked=True)
    plain.start((b"MAIL\r\nRCPT\r\n", 1, BODY))
    plain.ended = plain.chunked
    session.unfold(plain.unfold(), None)
    session.receive_data(b"250 ok\r\n250 ok\r\n550 no\r\n")
    assert session.unsettled
    assert not session.free


def test_a_chunk_that_was_accepted_by_and_by_leaves_the_connection_free() -> None:
    session = connection(offering("PIPELINING", "CHUNKING")).session
    plain = Plain(cast(Any, Future()), (), chunked=True)
    plain.start((b"MAIL\r\nRCPT\r\n", 1, BODY))
    plain.ended = plain.chunked
    session.unfold(plain.unfold(), None)
    session.receive_data(b"250 ok\r\n250 ok\r\n250-more\r\n")
    assert not session.free
    session.receive_data(b"250 queued\r\n")
    assert session.free


# The content leaves as soon as it may


FIRST = b"MAIL\r\nRCPT\r\nDATA\r\n"
CONTENT = BODY + END_OF_CONTENT


def under_way(wire: Wire) -> Any:
    """A message whose envelope was written, and whose content waits for the 354."""
    plain = Plain(wire.clock.create_future(), (), chunked=False)
    wire.protocol.begin(plain, plain.start((b"MAIL\r\nRCPT\r\n", 1, BODY)), wire.clock.time())
    assert wire.transport.wrote == [FIRST]
    assert not wire.session.reusable
    return plain


def test_a_loop_that_was_closed_does_not_complain_out_of_a_write_that_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wire = Wire()
    told: list[BaseException] = []
    plain = Plain(wire.clock.create_future(), (), chunked=False)
    monkeypatch.setattr(wire.transport, "write", mock.Mock(side_effect=RuntimeError("the handle is gone")))

    def tell(plain: Plain, error: BaseException) -> None:
        told.append(error)
        raise RuntimeError("Event loop is closed")

    monkeypatch.setattr(Plain, "set_exception", tell)
    wire.protocol.begin(plain, plain.start((b"MAIL\r\nRCPT\r\n", 1, BODY)), wire.clock.time())
    assert [type(error) for error in told] == [SMTPServerDisconnected]
    assert "the handle is gone" in str(wire.session.failure)


def test_the_content_leaves_with_the_354_and_the_task_waits_on() -> None:
    wire = Wire()
    plain = under_way(wire)
    wire.receive(b"250 ok\r\n250 ok\r\n")
    assert wire.transport.wrote == [FIRST]
    wire.receive(GO)
    assert wire.transport.wrote == [FIRST, CONTENT]
    assert (plain.ended, plain.over.done()) == (True, False)
    wire.receive(b"250 queued\r\n")
    assert plain.over.result() is True
    assert plain.replies == (Reply(250, b"queued"),)
    assert plain.steps == []
    assert wire.session.reusable
    assert wire.session.last_reply == Reply(250, b"queued")


@pytest.mark.parametrize(
    "said",
    [b"250 ok\r\n550 no\r\n354 go\r\n", b"250 ok\r\n250 ok\r\n250 no\r\n", b"450 no\r\n550 no\r\n503 no\r\n"],
)
@pytest.mark.parametrize("cut", [0, 8, 12])
def test_after_anything_but_yes_no_content_leaves_by_itself(said: bytes, cut: int) -> None:
    wire = Wire()
    plain = under_way(wire)
    for part in (said[:cut], said[cut:]):
        if part:
            wire.receive(part)
    assert plain.over.result() is False
    [step] = plain.steps
    assert step.received == ReplyParser().feed(said)
    assert wire.transport.wrote == [FIRST]


def test_after_a_cancellation_no_content_leaves() -> None:
    wire = Wire()
    plain = under_way(wire)
    plain.over.cancel()
    wire.receive(b"250 ok\r\n250 ok\r\n354 go\r\n")
    assert wire.transport.wrote == [FIRST]
    [step] = plain.steps
    assert len(step.received) == 3


def test_a_verdict_that_comes_behind_a_cancellation_is_not_lost() -> None:
    wire = Wire()
    plain = under_way(wire)
    wire.receive(b"250 ok\r\n250 ok\r\n354 go\r\n")
    plain.over.cancel()
    wire.receive(b"250 queued\r\n")
    assert plain.steps[-1].received == [Reply(250, b"queued")]
    assert plain.steps[-1].complete


def test_a_reply_to_content_that_was_not_written_breaks_the_connection() -> None:
    wire = Wire()
    plain = under_way(wire)
    wire.receive(b"250 ok\r\n250 ok\r\n354 go\r\n250 queued\r\n")
    assert wire.transport.wrote == [FIRST]
    assert plain.over.done()
    assert len(plain.steps) == 1
    assert wire.session.failure is not None


@pytest.mark.parametrize("behind", [b"250 once more\r\n", b"25", b"421 bye\r\n"])
def test_what_comes_behind_the_verdict_is_not_taken_with_it(behind: bytes) -> None:
    wire = Wire()
    plain = under_way(wire)
    wire.receive(b"250 ok\r\n250 ok\r\n354 go\r\n")
    wire.receive(b"250 queued\r\n" + behind)
    assert plain.over.result() is False
    assert plain.steps[-1].received == [Reply(250, b"queued")]
    assert not wire.session.reusable


def test_the_time_for_the_verdict_begins_when_the_content_leaves() -> None:
    wire = Wire()
    plain = under_way(wire)
    wire.clock.advance(wire.protocol.timeouts.reply - 1)  # type: ignore[operator]  # there is one
    wire.receive(b"250 ok\r\n250 ok\r\n354 go\r\n")
    wire.clock.advance(wire.protocol.timeouts.final - 1)  # type: ignore[operator]  # likewise
    assert not plain.over.done()
    wire.clock.advance(2)
    assert isinstance(plain.over.exception(), SMTPTimeoutError)
    assert plain.ended


def test_every_reply_to_the_envelope_has_its_own_time() -> None:
    wire = Wire()
    plain = under_way(wire)
    for _ in range(2):
        wire.clock.advance(wire.protocol.timeouts.reply - 1)  # type: ignore[operator]  # there is one
        wire.receive(b"250 ok\r\n")
    wire.clock.advance(wire.protocol.timeouts.reply - 1)  # type: ignore[operator]  # likewise
    assert not plain.over.done()
    wire.clock.advance(2)
    error = plain.over.exception()
    assert isinstance(error, SMTPTimeoutError)
    assert error.phase == "DATA"


def test_a_server_that_holds_a_reply_back_until_the_one_before_is_acknowledged_is_told_at_once() -> None:
    wire = Wire(sock=(sock := Socket()))
    under_way(wire)
    wire.receive(b"250 ok\r\n")
    wire.receive(b"250 ok\r\n")
    assert sock.set == [(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)] * 2
    wire.receive(GO)
    assert len(sock.set) == 2


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize("end", ["eof", "lost", "abort", "close"])
def test_however_the_connection_ends_the_message_is_told_and_unfolded(end: str, ended: bool) -> None:
    wire = Wire()
    plain = under_way(wire)
    if ended:
        wire.receive(b"250 ok\r\n250 ok\r\n354 go\r\n")
    protocol = wire.protocol
    {
        "eof": protocol.eof_received,
        "lost": lambda: protocol.connection_lost(None),
        "abort": protocol.abort,
        "close": protocol.close,
    }[end]()
    error = plain.over.exception()
    assert isinstance(error, SMTPServerDisconnected)
    assert len(plain.steps) == 1 + ended
    if end in ("eof", "lost"):
        assert "while its reply to" in str(error)
    assert not wire.session.reusable


@pytest.mark.parametrize("error", [OSError("broken"), RuntimeError("no handle"), ZeroDivisionError()])
@pytest.mark.parametrize("content", [False, True])
def test_what_could_not_be_written_counts_as_gone(error: Exception, content: bool) -> None:
    wire = Wire()
    plain = under_way(wire) if content else None

    def breaks(octets: bytes) -> None:
        raise error

    wire.transport.write = breaks  # type: ignore[method-assign,assignment]
    if plain is not None:
        wire.receive(b"250 ok\r\n250 ok\r\n354 go\r\n")
    else:
        plain = Plain(wire.clock.create_future(), (), chunked=True)
        wire.protocol.begin(plain, plain.start((b"MAIL\r\nRCPT\r\n", 1, BODY)), wire.clock.time())
    failure = plain.over.exception()
    assert isinstance(
        failure, type(error) if isinstance(error, ZeroDivisionError) else SMTPServerDisconnected
    )
    assert plain.ended
    assert wire.session.failure is not None


# Whatever else happens is judged by the dialogue


@each_loop
async def test_nothing_special_takes_no_dialogue(monkeypatch: pytest.MonkeyPatch) -> None:
    async with MailServer() as server, AsyncSMTP(server.host, server.port) as smtp:
        with monkeypatch.context() as patch:
            patch.setattr(Drive, "run", None)
            for chunked in (False, True):
                connection = smtp._connection
                assert connection is not None
                connection.chunking = chunked
                assert (await send(smtp, TO, TOO)).accepted == (TO, TOO)
    assert [message.recipients for message in server.messages] == [(TO, TOO)] * 2


@each_loop
async def test_one_who_looks_on_sees_every_line() -> None:
    seen: list[tuple[str, bytes]] = []
    async with MailServer() as server:
        smtp = AsyncSMTP(server.host, server.port, trace=lambda event, octets: seen.append((event, octets)))
        async with smtp:
            await send(smtp, TO)
    kinds = [kind for kind, _ in seen]
    assert kinds.count("content") == 1
    assert ("reply", b"354 Start mail input\r\n") in seen or any(
        octets.startswith(b"354") for _, octets in seen
    )
    content = kinds.index("content")
    assert any(octets.startswith(b"354") for _, octets in seen[:content])


@each_loop
@pytest.mark.parametrize(
    ("last", "known"),
    [
        ([b"550 no\r\n"], Delivery.REFUSED),
        ([b"350 what\r\n"], Delivery.UNKNOWN),
        ([close()], Delivery.UNKNOWN),
        ([b"421 bye\r\n"], Delivery.REFUSED),
    ],
    ids=["refused", "odd", "lost", "421"],
)
async def test_what_is_said_to_the_content_is_judged_as_ever(last: list[Any], known: Delivery) -> None:
    script = [*hello("PIPELINING"), *envelope(TO), "DATA", GO, expect_content(), *last]
    async with ScriptedServer(script) as server, AsyncSMTP(server.host, server.port) as smtp:
        error = await caught(send(smtp))
    assert deliveries(error) == [known]
    assert error.__context__ is None


@each_loop
async def test_a_server_that_leaves_with_its_354_is_not_said_to_have_been_left() -> None:
    script = [*hello("PIPELINING"), *envelope(TO), "DATA", b"354 go\r\n421 bye\r\n", close()]
    async with ScriptedServer(script) as server, AsyncSMTP(server.host, server.port) as smtp:
        error = await caught(send(smtp))
    assert deliveries(error) == [Delivery.NOT_SENT]
    assert "421 bye" in str(error)
    assert "on this side" not in str(error)


@each_loop
async def test_a_part_of_the_recipients_is_reported_as_ever() -> None:
    script = [*hello("PIPELINING"), *envelope(TO), f"RCPT TO:<{NEXT}>", b"550 no\r\n"]
    script += ["DATA", GO, expect_content(), b"250 ok\r\n"]
    async with ScriptedServer(script) as server, AsyncSMTP(server.host, server.port) as smtp:
        result = await send(smtp, TO, NEXT)
    assert list(result) == [NEXT]
    assert result.accepted == (TO,)


@each_loop
async def test_a_pool_takes_the_short_way_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async with MailServer() as server, SMTPPool(server.host, server.port) as pool:
        await pool.sendmail(SENDER, TO, BODY)
        with monkeypatch.context() as patch:
            patch.setattr(Drive, "run", None)
            assert (await pool.sendmail(SENDER, TO, BODY)).accepted == (TO,)
    assert len(server.messages) == 2


@each_loop
async def test_a_message_that_is_half_way_goes_on_as_it_began_when_a_pool_turns_to_lock_step() -> None:
    """MAIL was written once more, behind the 354, so that the server took it for content."""
    half_way = asyncio.Event()

    async def wait(conversation: Conversation) -> None:
        await half_way.wait()

    async def reached(conversation: Conversation) -> None:
        half_way.set()
        await server.conversations[0].gone.wait()

    odd = [*hello("PIPELINING"), f"MAIL FROM:<{SENDER}>", wait, b"\0\0\r\n"]
    slow = [*hello("PIPELINING"), *envelope(TO), f"RCPT TO:<{NEXT}>", b"550 no\r\n"]
    slow += ["DATA", reached, GO, expect_content(), b"250 ok\r\n"]
    async with ScriptedServer(odd, slow, [*hello("PIPELINING"), *take(TO)]) as server:
        async with SMTPPool(server.host, server.port, max_connections=2) as pool:
            first = asyncio.create_task(pool.sendmail(SENDER, TO, BODY))
            while not server.received or b"MAIL" not in server.received[0]:
                await asyncio.sleep(0)
            result = await pool.sendmail(SENDER, (TO, NEXT), BODY)
            assert (list(result), result.accepted) == ([NEXT], (TO,))
            assert (await first).accepted == (TO,)
            await pool.close(timeout=0)


@each_loop
@pytest.mark.parametrize("behind", [b"42", b"421 bye\r\n", b"250 another\r\n"])
async def test_what_comes_right_behind_the_verdict_ends_the_connection_and_no_other_message(
    behind: bytes,
) -> None:
    """It stayed open, and the next message paid for it; or nobody closed it."""
    odd = [*hello("PIPELINING"), *take(TO, reply=b"250 queued\r\n" + behind), gone]
    async with ScriptedServer(odd, [*hello("PIPELINING"), *take(TO), *bye()]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            assert (await send(smtp, TO)).accepted == (TO,)
            await server.conversations[0].gone.wait()
            assert (await send(smtp, TO)).accepted == (TO,)


async def gone(conversation: Conversation) -> None:
    await conversation.gone.wait()
