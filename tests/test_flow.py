"""Flow: messages of a run follow one another on a connection while nobody else waits for one."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import gc
import logging
import weakref
from collections.abc import AsyncIterator, Iterator
from email.message import EmailMessage
from typing import Any, cast

import pytest
from test_pool_bulk import numbered, pool_of
from wire import BODY, NEXT, SENDER, TO, bye, envelope, hello, take

from aiosmtpclient import (
    AsyncSMTP,
    Delivery,
    Envelope,
    Outcome,
    SMTPPool,
    SMTPServerDisconnected,
    flow,
)
from aiosmtpclient.bulk import _Run
from aiosmtpclient.driver import Drive
from aiosmtpclient.flow import Flow
from aiosmtpclient.lending import Lender
from aiosmtpclient.pooled import PooledSMTP
from aiosmtpclient.protocol import SMTPProtocol
from aiosmtpclient.slots import Slots
from aiosmtpclient.testing import MailServer, ScriptedServer
from aiosmtpclient.testing.scripted import close, stall

pytestmark = pytest.mark.both_loops


async def used(pool: SMTPPool, *, connections: int) -> None:
    """Open so many connections, and use each of them: none is young any more."""
    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(pool.sendmail(SENDER, TO, BODY))


async def test_a_run_seldom_takes_a_connection_and_needs_no_dialogue(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[object] = []
    take_slot = Lender.take

    def counted(lender: Lender, *, alone: bool) -> Any:
        taken.append(slot := take_slot(lender, alone=alone))
        return slot

    async with MailServer() as server, pool_of(server, max_connections=4) as pool:
        await used(pool, connections=4)
        with monkeypatch.context() as patch:
            patch.setattr(Drive, "run", None)
            patch.setattr(Lender, "take", counted)
            found = [one async for one in pool.send_messages(map(numbered, range(200)), ordered=True)]
        assert [(one.index, one.delivery, one.attempts, one.error) for one in found] == [
            (number, Delivery.ACCEPTED, 1, None) for number in range(200)
        ]
        assert all(one.result is not None and one.result.accepted == (TO,) for one in found)
        assert len(taken) < 100
        stats = pool.stats()
        assert (stats.idle, stats.in_use, stats.accepted) == (4, 0, 204)
        assert server.connections == 4


async def test_whoever_waits_gets_the_connection_between_two_messages() -> None:
    # Two, for a run over one connection gives it back after each message: there is no room for outcomes.
    async with MailServer() as server, pool_of(server, max_connections=2) as pool:
        await used(pool, connections=2)
        run = pool.send_messages(map(numbered, range(100)))
        await anext(run)
        other = asyncio.create_task(pool.sendmail(SENDER, NEXT, BODY))
        found = [one.index async for one in run if not other.done()]
        assert (await other).accepted == (NEXT,)
        assert len(found) < 80


async def test_a_connection_carries_no_more_of_a_run_than_it_may() -> None:
    async with MailServer() as server, pool_of(server, max_connections=2, max_messages=3) as pool:
        found = [one async for one in pool.send_messages(map(numbered, range(30)))]
        carriers = [one.connection for one in found]
        assert server.connections >= len(set(carriers)) >= 10
        assert max(map(carriers.count, carriers)) == 3


async def test_a_run_that_waits_for_its_next_message_holds_no_connection() -> None:
    more = asyncio.Event()

    async def slow() -> AsyncIterator[Envelope]:
        yield numbered(0)
        await more.wait()
        yield numbered(1)

    async with MailServer() as server, pool_of(server, max_connections=1) as pool:
        await used(pool, connections=1)
        run = pool.send_messages(slow())
        assert (await anext(run)).index == 0
        assert pool.stats().in_use == 0
        more.set()
        assert [one.index async for one in run] == [1]


async def test_a_run_whose_outcomes_nobody_takes_holds_no_connection() -> None:
    async with MailServer() as server, pool_of(server, max_connections=2) as pool:
        await used(pool, connections=2)
        run = pool.send_messages(map(numbered, range(20)))
        first = await anext(run)
        while len(server.messages) < 2 + 3:
            await asyncio.sleep(0)
        async with asyncio.timeout(5):
            while pool.stats().in_use:
                await asyncio.sleep(0)
        rest = [one.index async for one in run]
        assert sorted([first.index, *rest]) == list(range(20))


async def test_a_run_that_is_left_early_gives_everything_back() -> None:
    async with MailServer() as server, pool_of(server, max_connections=2) as pool:
        await used(pool, connections=2)
        run = pool.send_messages(map(numbered, range(1000)))
        await anext(run)
        await run.aclose()
        assert pool.stats().in_use == 0
        assert (await pool.sendmail(SENDER, TO, BODY)).accepted == (TO,)


async def test_what_cannot_be_sent_costs_no_connection() -> None:
    def mixed() -> Iterator[Any]:
        yield numbered(0)
        yield "no message at all"
        yield Envelope(SENDER, "no@address@at.all", BODY)
        yield Envelope(SENDER, TO, b"a NUL \0 in it")
        yield Envelope(SENDER, TO, BODY, mail_options=cast(Any, [5]))
        yield numbered(1)

    async with MailServer() as server, pool_of(server, max_connections=1) as pool:
        await used(pool, connections=1)
        found: list[Outcome] = [one async for one in pool.send_messages(mixed())]
        assert [(one.delivery, type(one.error)) for one in found] == [
            (Delivery.ACCEPTED, type(None)),
            (Delivery.NOT_SENT, TypeError),
            (Delivery.NOT_SENT, ValueError),
            (Delivery.NOT_SENT, ValueError),
            (Delivery.NOT_SENT, AttributeError),
            (Delivery.ACCEPTED, type(None)),
        ]
        assert server.connections == 1
        assert pool.stats()[:5] == (1, 0, 0, 0, 0)


async def test_a_refused_recipient_is_told_and_the_connection_goes_on() -> None:
    script = [*hello("PIPELINING"), *take(TO), *envelope(TO), f"RCPT TO:<{NEXT}>", b"550 no\r\n"]
    script += [*take(TO)[len(envelope(TO)) :], *take(TO), *bye()]
    messages = [Envelope(SENDER, (TO, NEXT), BODY), Envelope(SENDER, TO, BODY)]
    async with ScriptedServer(script) as server, pool_of(server, max_connections=1) as pool:
        await used(pool, connections=1)
        first, second = [one async for one in pool.send_messages(messages)]
        assert first.result is not None
        assert (list(first.result), first.result.accepted, first.attempts) == ([NEXT], (TO,), 1)
        assert second.delivery is Delivery.ACCEPTED


async def test_a_message_whose_connection_dies_goes_over_another() -> None:
    dying = [*hello("PIPELINING"), *take(TO), *take(TO), *envelope(TO), close()]
    async with ScriptedServer(dying, [*hello("PIPELINING"), *take(TO), *bye()]) as server:
        async with pool_of(server, max_connections=1) as pool:
            await used(pool, connections=1)
            found = [one async for one in pool.send_messages(Envelope(SENDER, TO, BODY) for _ in range(2))]
            assert [(one.delivery, one.attempts) for one in found] == [
                (Delivery.ACCEPTED, 1),
                (Delivery.ACCEPTED, 2),
            ]
            assert pool.stats().retried == 1
            assert pool.stats().accepted == 3


async def test_in_clear_the_next_message_is_begun_where_the_reply_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours, inside, began = SMTPProtocol.data_received, [False], []

    def read(self: SMTPProtocol, data: bytes) -> None:
        inside[0] = True
        ours(self, data)
        inside[0] = False

    begin = SMTPProtocol.begin

    def note(self: SMTPProtocol, *arguments: Any) -> None:
        began.append(inside[0])
        begin(self, *arguments)

    monkeypatch.setattr(SMTPProtocol, "data_received", read)
    monkeypatch.setattr(SMTPProtocol, "begin", note)
    async with MailServer() as server, pool_of(server, max_connections=2) as pool:
        await used(pool, connections=2)
        began.clear()
        found = [one.delivery async for one in pool.send_messages(map(numbered, range(40)))]
    assert found == [Delivery.ACCEPTED] * 40
    assert sum(began) >= 5  # the others found no room for their outcome before them


FAILING = [
    (Slots, "take"),
    (Slots, "keep"),
    (PooledSMTP, "terms"),
    (Flow, "__init__"),
    (Flow, "begin"),
    (Flow, "start"),
    (flow, "accepted_by_all"),
    (_Run, "lay"),
    (_Run, "take"),
]
"""What may fail in a flow for want of memory."""


@pytest.mark.parametrize(("owner", "method"), FAILING)
async def test_what_fails_for_want_of_memory_is_an_outcome_and_leaves_no_slot_behind(
    monkeypatch: pytest.MonkeyPatch, owner: object, method: str
) -> None:
    calls: list[None] = []
    ours = getattr(owner, method)

    def fail(*args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        if len(calls) == 3:
            raise MemoryError
        return ours(*args, **kwargs)

    async with MailServer() as server, pool_of(server, max_connections=2) as pool:
        await used(pool, connections=2)
        with monkeypatch.context() as patch:
            patch.setattr(owner, method, fail)
            found = [one async for one in pool.send_messages(map(numbered, range(20)))]
        assert len(calls) >= 3
        assert sorted(one.index for one in found) == list(range(20))
        assert {one.delivery for one in found} == {Delivery.ACCEPTED}
        assert {one.attempts for one in found} == {1}
        assert len(server.messages) == 22
        assert pool.stats()[:5] == (2, 0, 0, 0, 0)


async def test_who_kept_a_connection_that_he_gave_back_does_not_write_into_a_run() -> None:
    async with MailServer(without=["CHUNKING"]) as server, pool_of(server, max_connections=1) as pool:
        async with pool.connection() as kept:
            pass
        run = pool.send_messages(map(numbered, range(3)))
        first: Any = asyncio.ensure_future(anext(run))
        while not pool.stats().in_use:
            await asyncio.sleep(0)
        stray = asyncio.create_task(kept.sendmail(SENDER, NEXT, BODY))
        found = [await first, *[one async for one in run]]
        assert {one.delivery for one in found} == {Delivery.ACCEPTED}
        assert [message.recipients for message in server.messages].count((TO,)) == 3
        stray.cancel()
        await asyncio.wait([stray])


async def test_a_run_that_is_left_takes_no_further_message() -> None:
    taken: list[int] = []

    def source() -> Iterator[Envelope]:
        for number in range(200):
            taken.append(number)
            yield numbered(number)

    async with MailServer() as server, pool_of(server, max_connections=4) as pool:
        await used(pool, connections=4)
        run = pool.send_messages(source())
        for _ in range(40):
            await anext(run)
        before = len(taken)
        await run.aclose()
        assert len(taken) == before


@pytest.mark.parametrize("way", ["client", "pool", "run"])
async def test_the_error_of_a_message_goes_with_whoever_looked_at_it(way: str) -> None:
    """Its traceback has the frames that held the future of its replies: a cycle, left to the collector."""
    script = [*hello("PIPELINING"), *envelope(TO), close()]
    async with ScriptedServer(script) as server:
        sender = pool_of(server, retries=0) if way != "client" else AsyncSMTP(server.host, server.port)
        async with sender:
            gc.disable()
            try:
                error = weakref.ref(await failed(sender, way))
                for _ in range(5):
                    await asyncio.sleep(0)
                assert error() is None
            finally:
                gc.enable()


async def failed(sender: AsyncSMTP | SMTPPool, way: str) -> BaseException:
    if way == "run":
        [outcome] = [one async for one in sender.send_messages([Envelope(SENDER, TO, BODY)])]
        assert outcome.error is not None
        return outcome.error
    # Not by pytest.raises, which would hold it in this frame.
    try:
        await sender.sendmail(SENDER, TO, BODY)
    except SMTPServerDisconnected as error:
        return error
    raise AssertionError


async def test_who_is_cancelled_half_way_loses_no_slot_and_knows_what_is_known() -> None:
    silent = [*hello("PIPELINING"), *take(TO), *envelope(TO), stall()]
    async with ScriptedServer(silent, [*hello("PIPELINING"), *take(TO), *bye()]) as server:
        async with pool_of(server, max_connections=1) as pool:
            await used(pool, connections=1)
            run = pool.send_messages(Envelope(SENDER, TO, BODY) for _ in range(3))
            reader = asyncio.create_task(anext(run))  # type: ignore[arg-type]  # it is a coroutine here
            while server.received[0].count(b"MAIL") < 2:
                await asyncio.sleep(0)
            reader.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reader
            stats = pool.stats()
            assert (stats.in_use, stats.accepted, stats.not_sent, stats.unknown) == (0, 1, 1, 0)
            assert (await pool.sendmail(SENDER, TO, BODY)).accepted == (TO,)


@pytest.mark.parametrize("options", [{"pipelining": "stream"}, {"pipelining": "off"}])
async def test_in_other_modes_nothing_is_begun_at_once(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    monkeypatch.setattr(SMTPProtocol, "begin", None)
    async with MailServer() as server, pool_of(server, **options) as pool:
        found = [one async for one in pool.send_messages(map(numbered, range(5)))]
        assert {one.delivery for one in found} == {Delivery.ACCEPTED}


WHO: contextvars.ContextVar[str] = contextvars.ContextVar("WHO", default="nobody")


async def test_a_source_is_asked_in_the_context_of_the_run() -> None:
    seen: list[str] = []

    def source() -> Iterator[Envelope]:
        for number in range(50):
            seen.append(WHO.get())
            yield numbered(number)

    async with MailServer() as server, pool_of(server, max_connections=4) as pool:
        await used(pool, connections=4)
        WHO.set("me")
        assert len([one async for one in pool.send_messages(source())]) == 50
    assert set(seen) == {"me"}


async def collect(run: AsyncIterator[Outcome], found: list[int]) -> None:
    async for outcome in run:
        assert outcome.delivery is Delivery.ACCEPTED
        found.append(outcome.index)


@pytest.mark.parametrize("error", [ZeroDivisionError, asyncio.CancelledError, SystemExit])
async def test_what_a_source_raises_in_the_middle_comes_behind_the_outcomes(
    error: type[BaseException],
) -> None:
    def source() -> Iterator[Envelope]:
        for number in range(60):
            yield numbered(number)
        raise error

    found: list[int] = []
    async with MailServer() as server, pool_of(server, max_connections=4) as pool:
        await used(pool, connections=4)
        with pytest.raises(error):
            await collect(pool.send_messages(source()), found)
        assert sorted(found) == list(range(60))
        assert pool.stats()[:5] == (4, 0, 0, 0, 0)
        assert (await pool.sendmail(SENDER, TO, BODY)).accepted == (TO,)


async def test_a_source_that_cancels_everything_is_asked_no_more_and_nothing_is_begun() -> None:
    """The task that waited had been cancelled, and its connection wrote the next message all the same."""
    asked: list[int] = []

    def source() -> Iterator[Envelope]:
        for number in range(100):
            asked.append(number)
            if number == 50:
                for task in asyncio.all_tasks():
                    if task is not mine:
                        task.cancel()
            yield numbered(number)

    mine = asyncio.current_task()
    async with MailServer() as server:
        pool = pool_of(server, max_connections=2)
        await used(pool, connections=2)
        with pytest.raises(asyncio.CancelledError):
            async for _ in pool.send_messages(source()):
                pass
        stats = pool.stats()
        assert len(asked) <= 52  # the other one may have heard yes to its message
        assert stats.accepted + stats.not_sent + stats.unknown == 2 + len(asked)
        assert stats.not_sent >= 1
        assert stats.in_use == 0
        assert len(server.messages) <= stats.accepted + stats.unknown
        await pool.close()


async def test_who_begins_to_look_on_sees_the_next_message(caplog: pytest.LogCaptureFixture) -> None:
    def source() -> Iterator[Envelope]:
        for number in range(60):
            if number == 40:
                caplog.set_level(logging.DEBUG, "aiosmtpclient")
            yield numbered(number)

    async with MailServer() as server, pool_of(server, max_connections=1) as pool:
        await used(pool, connections=1)
        assert len([one async for one in pool.send_messages(source())]) == 60
    lines = [line for line in caplog.messages if "C: MAIL" in line]
    assert len(lines) == 20


async def test_message_objects_flow_too_and_say_who_got_them() -> None:
    def source() -> Iterator[EmailMessage]:
        for number in range(40):
            message = EmailMessage()
            message["From"], message["To"], message["Cc"] = SENDER, TO, NEXT
            message["Subject"] = f"{number}"
            message.set_content("hello\n.\n")
            yield message

    async with MailServer() as server, pool_of(server, max_connections=2) as pool:
        await used(pool, connections=2)
        found = [one async for one in pool.send_messages(source(), ordered=True)]
    for outcome in found:
        result = outcome.result
        assert result is not None
        assert (result.accepted, dict(result), result.envelope.sender) == ((TO, NEXT), {}, SENDER)
        assert [each.delivery for each in result.outcomes] == [Delivery.ACCEPTED] * 2
        assert {each.reply for each in result.outcomes} == {result.reply}
        assert copy.copy(result).outcomes == result.outcomes
    assert [one.index for one in found] == list(range(40))
    assert {message.recipients for message in server.messages[2:]} == {(TO, NEXT)}


async def test_a_pool_that_is_closed_in_the_middle_of_a_run_loses_no_outcome() -> None:
    closing: list[asyncio.Task[None]] = []

    def source() -> Iterator[Envelope]:
        for number in range(100):
            if number == 50:
                closing.append(asyncio.ensure_future(pool.close()))
            yield numbered(number)

    async with MailServer() as server:
        pool = pool_of(server, max_connections=3)
        await used(pool, connections=3)
        found = [one async for one in pool.send_messages(source())]
        await closing[0]
        assert sorted(one.index for one in found) == list(range(100))
        assert {one.delivery for one in found} == {Delivery.ACCEPTED, Delivery.NOT_SENT}
        accepted = [one for one in found if one.delivery is Delivery.ACCEPTED]
        assert len(server.messages) == 3 + len(accepted)


@pytest.mark.parametrize("said", [b"250 ok\r\n", b"250-ok\r\n250 ok\r\n", b"250\r\n", b"250 ok\n"])
@pytest.mark.parametrize("chunked", [False, True])
async def test_however_a_server_says_yes_every_message_is_accepted_once(said: bytes, chunked: bool) -> None:
    taken = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        writer.write(b"220 hi\r\n")
        while line := await reader.readline():
            verb = line[:4].upper()
            if verb == b"EHLO":
                writer.write(b"250-hi\r\n250-CHUNKING\r\n250 PIPELINING\r\n")
            elif verb == b"DATA":
                writer.write(b"354 go\r\n")
                await reader.readuntil(b"\r\n.\r\n")
                writer.write(said)
                taken += 1
            elif verb == b"BDAT":
                await reader.readexactly(int(line.split()[1]))
                writer.write(said)
                taken += 1
            else:
                writer.write(said)
            await writer.drain()
            if verb == b"QUIT":
                break
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        chunking = "eager" if chunked else "off"
        async with SMTPPool("127.0.0.1", port, max_connections=2, chunking=chunking) as pool:
            found = [one async for one in pool.send_messages(map(numbered, range(30)))]
    assert [(one.delivery, one.attempts) for one in found] == [(Delivery.ACCEPTED, 1)] * 30
    assert taken == 30


class Notes:
    """A journal in memory, which may fail."""

    def __init__(self, failing: str = "", error: type[BaseException] = OSError) -> None:
        self.lines: list[tuple[str, int]] = []
        self.outcomes: dict[int, Outcome] = {}
        self._failing, self._error = failing, error

    def begin(self, index: int, message: object) -> None:
        self.lines.append(("begin", index))
        if self._failing == "begin" and index == 30:
            raise self._error

    def end(self, outcome: Outcome) -> None:
        self.lines.append(("end", outcome.index))
        assert outcome.index not in self.outcomes
        self.outcomes[outcome.index] = outcome
        if self._failing == "end" and outcome.index == 30:
            raise self._error


async def test_a_journal_hears_of_each_message_that_flows(monkeypatch: pytest.MonkeyPatch) -> None:
    notes = Notes()
    async with MailServer() as server, pool_of(server, max_connections=2) as pool:
        await used(pool, connections=2)
        with monkeypatch.context() as patch:
            patch.setattr(Drive, "run", None)
            run = pool.send_messages(map(numbered, range(60)), journal=notes)
            assert len([one async for one in run]) == 60
    assert [index for what, index in notes.lines if what == "begin"] == list(range(60))
    assert sorted(notes.outcomes) == list(range(60))
    under_way: set[int] = set()
    for what, index in notes.lines:
        if what == "begin":
            under_way.add(index)
        else:
            under_way.remove(index)
        assert len(under_way) <= 2  # on each connection, one ends before the next begins
    assert {one.delivery for one in notes.outcomes.values()} == {Delivery.ACCEPTED}


@pytest.mark.parametrize("error", [OSError, KeyError, asyncio.CancelledError])
@pytest.mark.parametrize("where", ["begin", "end"])
async def test_a_journal_that_fails_in_a_flow_ends_the_run_with_its_error(
    where: str, error: type[BaseException]
) -> None:
    notes, found = Notes(where, error), list[int]()
    async with MailServer() as server, pool_of(server, max_connections=2) as pool:
        await used(pool, connections=2)
        with pytest.raises(error):
            await collect(pool.send_messages(map(numbered, range(60)), journal=notes), found)
        stats = pool.stats()
        assert (stats.in_use, stats.waiting) == (0, 0)
        assert stats.accepted + stats.not_sent == 2 + len(notes.outcomes)
        delivery = notes.outcomes[30].delivery
        assert delivery is (Delivery.NOT_SENT if where == "begin" else Delivery.ACCEPTED)
        assert {index for what, index in notes.lines if what == "begin"} == set(notes.outcomes)
        assert set(found) <= set(notes.outcomes) - {30}
        assert len(server.messages) == stats.accepted
        assert (await pool.sendmail(SENDER, TO, BODY)).accepted == (TO,)
