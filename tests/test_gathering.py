"""What several tasks write in one turn of the loop leaves at once, and until then it has not left at all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from test_protocol import Transport, command

from aiosmtpclient import protocol as protocol_room
from aiosmtpclient.content import InMemory
from aiosmtpclient.errors import SMTPException, SMTPProtocolError, SMTPServerDisconnected
from aiosmtpclient.protocol import MOST_IN_FLIGHT, MUCH, SMTPProtocol
from aiosmtpclient.replies import Reply
from aiosmtpclient.session import Session
from aiosmtpclient.steps import Phase, Step
from aiosmtpclient.timeouts import Timeouts

OK = b"250 ok\r\n"
BODY = b"hi\r\n"


class Gathering:
    """A protocol that gathers, on a fake transport, after the greeting."""

    def __init__(self, timeouts: Timeouts | None = None) -> None:
        self.session = Session("mail.test:25")
        self.transport = Transport()
        self.protocol = SMTPProtocol(self.session, asyncio.get_running_loop(), timeouts)
        self.protocol.connection_made(self.transport)
        self.protocol.data_received(b"220 hi\r\n")
        self.protocol.gathering = True

    @property
    def wrote(self) -> list[bytes]:
        return self.transport.wrote


def message(number: int = 0) -> tuple[Step, bytes]:
    """A message by BDAT, which leaves in one write, and its content."""
    lines = b"MAIL%d\r\nRCPT\r\nBDAT\r\n" % number
    content = InMemory.of(BODY)
    step = Step(
        lines,
        "MAIL",
        "RCPT",
        "end",
        owed=3,
        lines=2,
        during=Phase.CONTENT,
        content=content,
        chunked=True,
        last=True,
    )
    return step, BODY


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


# Together, and not before


async def test_several_messages_leave_in_one_write() -> None:
    wire = Gathering()
    for number in range(3):
        wire.protocol.send(*message(number))
    assert wire.wrote == []
    await turns()
    assert wire.wrote == [b"".join(message(number)[0].data + BODY for number in range(3))]


async def test_what_has_not_left_is_not_counted_as_gone() -> None:
    wire, (step, content) = Gathering(), message()
    gone: list[str] = []
    step.on_end = lambda: gone.append("before the write" if not wire.wrote else "after it")
    wire.protocol.send(step, content)
    assert (step.ended, gone) == (False, [])
    wire.protocol.flush()
    assert (step.ended, gone) == (True, ["before the write"])


async def test_whoever_flushes_first_leaves_nothing_for_the_others() -> None:
    wire = Gathering()
    wire.protocol.send(command("NOOP"))
    wire.protocol.flush()
    wire.protocol.flush()
    await turns()
    assert wire.wrote == [b"NOOP\r\n"]


async def test_what_is_large_is_not_held_back_and_keeps_its_place() -> None:
    wire = Gathering()
    wire.protocol.write(b"BDAT\r\n")
    wire.protocol.write(memoryview(b"x" * MUCH))
    assert wire.wrote == [b"BDAT\r\n" + b"x" * MUCH]
    await turns()
    assert len(wire.wrote) == 1


async def test_without_gathering_everything_leaves_at_once() -> None:
    wire, (step, content) = Gathering(), message()
    wire.protocol.gathering = False
    wire.protocol.send(step, content)
    assert wire.wrote == [step.data + BODY]
    assert step.ended


async def test_what_was_gathered_leaves_before_a_proper_close() -> None:
    wire, (step, content) = Gathering(), message()
    wire.protocol.send(step, content)
    wire.protocol.close()
    assert wire.wrote == [step.data + BODY]
    assert step.ended
    assert wire.transport.ends == ["close"]


# Lost before it left


def cut(wire: Gathering) -> None:
    wire.transport.ends.append("cut")


@pytest.mark.parametrize(
    "end",
    [
        lambda wire: wire.protocol.abort(),
        lambda wire: wire.protocol.eof_received(),
        lambda wire: wire.protocol.data_received(b"what?\r\n"),
        lambda wire: wire.protocol.data_received(b"421 bye\r\n"),
        cut,
    ],
    ids=["abort", "eof", "garbage", "421", "cut"],
)
async def test_what_was_gathered_when_the_connection_ended_has_not_left(
    end: Callable[[Gathering], None],
) -> None:
    wire, (step, content) = Gathering(), message()
    waiter = wire.protocol.send(step, content)
    end(wire)
    await turns()
    assert wire.wrote == []
    assert not step.ended
    wire.protocol.connection_lost(None)
    assert waiter.done()
    assert wire.session.failure is not None


@pytest.mark.parametrize("owed", [1, 2])
async def test_a_reply_that_was_there_before_the_command_answers_nothing(owed: int) -> None:
    wire = Gathering()
    first, second = command("NOOP"), Step(b"MAIL\r\nRCPT\r\n", "MAIL", "RCPT", owed=owed)
    answered = wire.protocol.send(first)
    wire.protocol.flush()
    early = wire.protocol.send(second)
    wire.protocol.data_received(b"250 mine\r\n250 whose?\r\n")
    assert await answered == [Reply(250, b"mine")]
    with pytest.raises(SMTPProtocolError, match="whose"):
        await early
    await turns()
    assert wire.wrote == [b"NOOP\r\n"]
    assert second.received == []
    assert wire.transport.ends == ["abort"]


async def test_a_421_that_was_there_before_the_command_is_the_reason_and_no_answer() -> None:
    wire = Gathering()
    waiter = wire.protocol.send(command("NOOP"))
    wire.protocol.data_received(b"421 idle too long\r\n")
    with pytest.raises(SMTPServerDisconnected, match="421 idle too long"):
        await waiter
    await turns()
    assert wire.wrote == []


async def test_a_reply_to_what_has_left_is_no_early_one_though_more_is_gathered() -> None:
    wire = Gathering()
    first, second = command("NOOP"), command("RSET")
    waiters = [wire.protocol.send(first)]
    wire.protocol.flush()
    waiters.append(wire.protocol.send(second))
    wire.protocol.data_received(b"250 one\r\n")
    wire.protocol.flush()
    wire.protocol.data_received(b"250 two\r\n")
    assert [await waiter for waiter in waiters] == [[Reply(250, b"one")], [Reply(250, b"two")]]


# The clock


async def test_the_time_of_a_gathered_message_starts_when_it_leaves() -> None:
    wire, (step, content) = Gathering(Timeouts(reply=30.0)), message()
    wire.protocol.send(step, content)
    assert wire.protocol._patience() is None  # the server cannot answer what it has not got
    wire.protocol.flush()
    assert wire.protocol._patience() == 30.0
    assert wire.protocol._timer is not None
    wire.protocol.abort()


# Room, and rest


async def waits(coroutine: Awaitable[None]) -> asyncio.Future[None]:
    task = asyncio.ensure_future(coroutine)
    await turns()
    assert not task.done()
    return task


async def test_the_next_transaction_waits_while_as_much_as_may_be_is_in_flight() -> None:
    wire = Gathering()
    for _ in range(MOST_IN_FLIGHT):
        assert not wire.protocol.crowded
        wire.protocol.send(command())
    wire.protocol.flush()
    assert wire.protocol.crowded
    task = await waits(wire.protocol.room())
    wire.protocol.data_received(OK)
    await task
    assert not wire.protocol.crowded
    wire.protocol.abort()


async def test_the_next_transaction_waits_while_the_transport_is_full() -> None:
    wire = Gathering()
    wire.protocol.pause_writing()
    task = await waits(wire.protocol.room())
    wire.protocol.resume_writing()
    await task


@pytest.mark.parametrize("end", ["abort", "connection_lost", "condemned"])
async def test_nobody_waits_for_room_where_nothing_may_be_written_any_more(
    end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol_room, "MOST_IN_FLIGHT", 2)
    wire, second = Gathering(), command()
    wire.protocol.send(command())
    wire.protocol.send(second)
    wire.protocol.flush()
    task = await waits(wire.protocol.room())
    if end == "condemned":
        wire.protocol.abandon(second)
        wire.protocol.data_received(OK)
    elif end == "abort":
        wire.protocol.abort()
    else:
        wire.protocol.connection_lost(None)
    await task
    with pytest.raises(SMTPException):
        wire.protocol.send(command())
    wire.protocol.abort()


async def test_who_waits_for_rest_is_woken_by_the_last_reply_and_not_before() -> None:
    wire = Gathering()
    for _ in range(2):
        wire.protocol.send(command())
    wire.protocol.flush()
    task = await waits(wire.protocol.idle())
    wire.protocol.data_received(OK)
    await turns()
    assert not task.done()
    wire.protocol.data_received(OK)
    await task
    await wire.protocol.idle()


async def test_who_waits_for_rest_is_woken_when_it_will_never_come() -> None:
    wire = Gathering()
    wire.protocol.send(command())
    task = await waits(wire.protocol.idle())
    wire.protocol.abort()
    await task


async def test_who_is_cancelled_while_he_waits_leaves_the_others_waiting() -> None:
    wire = Gathering()
    wire.protocol.send(command())
    wire.protocol.flush()
    first, second = await waits(wire.protocol.idle()), await waits(wire.protocol.idle())
    first.cancel()
    await turns()
    wire.protocol.data_received(OK)
    await second
    assert first.cancelled()


# Given up half-way


async def flight() -> tuple[Gathering, list[Step], list[asyncio.Future[list[Reply] | None]]]:
    wire = Gathering()
    steps = [command("ONE"), command("TWO"), Step(b"MAIL\r\nDATA\r\n", "MAIL", "DATA", owed=2)]
    waiters = [wire.protocol.send(step) for step in steps]
    wire.protocol.flush()
    return wire, steps, waiters  # type: ignore[return-value]


@pytest.mark.parametrize("pieces", [[OK, OK], [OK + OK], [OK + OK + OK], [OK + OK + OK + b"354 go\r\n"]])
async def test_those_before_it_still_get_their_replies_and_then_the_connection_is_dropped(
    pieces: list[bytes],
) -> None:
    wire, steps, waiters = await flight()
    wire.protocol.abandon(steps[2])
    assert wire.transport.ends == []
    for piece in pieces:
        wire.protocol.data_received(piece)
    assert [await waiter for waiter in waiters[:2]] == [[Reply(250, b"ok")]] * 2
    assert wire.transport.ends == ["abort"]


async def test_the_oldest_that_is_given_up_takes_the_connection_with_it_at_once() -> None:
    wire, steps, _ = await flight()
    wire.protocol.abandon(steps[0])
    assert wire.transport.ends == ["abort"]


async def test_where_those_before_it_get_no_replies_either_they_are_told() -> None:
    wire, steps, waiters = await flight()
    wire.protocol.abandon(steps[2])
    wire.protocol.connection_lost(None)
    for waiter in waiters:
        with pytest.raises(SMTPException):
            await waiter
