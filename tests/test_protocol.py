"""The wire: futures and replies in one order, a clock that is fair, and nothing that waits for ever.

With a fake transport and a fake clock first; the same with real sockets is in `test_protocol_loops`.
"""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from aiosmtpclient.content import InMemory
from aiosmtpclient.errors import SMTPException, SMTPProtocolError, SMTPServerDisconnected, SMTPTimeoutError
from aiosmtpclient.extensions import Extensions
from aiosmtpclient.protocol import HIGH_WATER, SMTPProtocol
from aiosmtpclient.replies import Reply
from aiosmtpclient.session import Session
from aiosmtpclient.steps import Phase, Step
from aiosmtpclient.timeouts import Timeouts

PEER = "mail.test:25"
OK = b"250 ok\r\n"


class Timer:
    """What `call_at` returns."""

    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.deadline, self.callback, self.live = when, callback, True

    def when(self) -> float:
        return self.deadline

    def cancel(self) -> None:
        self.live = False


class Clock:
    """A loop with a clock that only moves when it is told to, and that counts its timers."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.timers: list[Timer] = []
        self.complaints: list[dict[str, object]] = []

    def time(self) -> float:
        return self.now

    def get_debug(self) -> bool:
        return False

    def call_soon(self, *args: object, **kwargs: object) -> None:
        raise AssertionError("nobody awaits anything here")

    def call_exception_handler(self, context: dict[str, object]) -> None:
        self.complaints.append(context)

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)  # type: ignore[arg-type]

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        self.timers.append(Timer(when, callback))
        assert len(self.live) == 1, "one timer a connection"
        return self.timers[-1]

    @property
    def live(self) -> list[Timer]:
        return [timer for timer in self.timers if timer.live]

    def advance(self, seconds: float, *, early: float = 0.0) -> None:
        """Let time pass; timers go off when they are due (a loop's own clock may be a bit `early`)."""
        end = self.now + seconds
        while due := [timer for timer in self.live if timer.deadline <= end]:
            timer = min(due, key=Timer.when)
            timer.live = False
            self.now = max(self.now, timer.deadline - early)
            timer.callback()
        self.now = end


class Socket:
    """Keeps which options are set."""

    def __init__(self, family: socket.AddressFamily = socket.AF_INET, error: OSError | None = None) -> None:
        self.family = family
        self.error = error
        self.set: list[tuple[int, int, int]] = []

    def setsockopt(self, level: int, option: int, value: int) -> None:
        if self.error is not None:
            raise self.error
        self.set.append((level, option, value))


class Transport(asyncio.Transport):
    """Keeps what is written; tells nobody of its end until it is asked to."""

    def __init__(self) -> None:
        super().__init__()
        self.wrote: list[bytes] = []
        self.buffered = 0
        self.high: int | None = None
        self.ends: list[str] = []
        self.socket: Socket | None = None

    def get_extra_info(self, name: str, default: object = None) -> object:
        return self.socket if name == "socket" else default

    def write(self, data: bytes) -> None:  # type: ignore[override]
        self.wrote.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        return self.buffered

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.high = high

    def is_closing(self) -> bool:
        return bool(self.ends)

    def close(self) -> None:
        self.ends.append("close")

    def abort(self) -> None:
        self.ends.append("abort")


class Wire:
    """A protocol on a fake transport, after the greeting."""

    def __init__(
        self,
        *,
        greeting: bool = True,
        loop: object = None,
        timeouts: Timeouts | None = None,
        sock: Socket | None = None,
    ) -> None:
        self.clock = Clock()
        self.session = Session(PEER)
        self.transport = Transport()
        self.transport.socket = sock
        self.protocol = SMTPProtocol(self.session, loop or self.clock, timeouts)  # type: ignore[arg-type]
        self.protocol.connection_made(self.transport)
        if greeting:
            self.receive(b"220 hi\r\n")

    def receive(self, data: bytes) -> None:
        self.protocol.data_received(data)

    def send(self, step: Step) -> asyncio.Future[list[Reply]]:
        waiter = self.protocol.send(step)
        assert waiter is not None
        return waiter


def command(verb: str = "NOOP", **options: object) -> Step:
    return Step(f"{verb}\r\n".encode(), verb, **options)  # type: ignore[arg-type]


def upload() -> Step:
    return Step(b"", "end of content", content=InMemory.of(b"x"), during=Phase.CONTENT)


def failure_of(waiter: asyncio.Future[list[Reply]]) -> SMTPException:
    error = waiter.exception()
    assert isinstance(error, SMTPException)
    return error


# A server that holds its next reply back until the one before is acknowledged


@pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="only Linux can be told")
def test_what_comes_is_acknowledged_at_once_while_more_is_owed() -> None:
    wire = Wire(sock=(sock := Socket()))
    waiter = wire.send(command("MAIL", owed=3))
    at_once = (socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
    wire.receive(b"250 ok\r\n")
    assert sock.set == [at_once]
    wire.receive(b"250 o")
    wire.receive(b"k\r\n")
    assert sock.set == [at_once] * 2
    wire.receive(b"354 go\r\n")
    assert sock.set == [at_once] * 2  # nothing is owed: what we write next acknowledges it
    assert len(waiter.result()) == 3


@pytest.mark.parametrize("family", [socket.AF_UNIX, socket.AF_INET])
def test_a_socket_that_cannot_acknowledge_at_once_is_left_alone(family: socket.AddressFamily) -> None:
    wire = Wire(sock=(sock := Socket(family, OSError("no such option"))))
    waiter = wire.send(command("MAIL", owed=2))
    wire.receive(b"250 ok\r\n")
    sock.error = None
    wire.receive(b"250 ok\r\n")
    assert sock.set == []
    assert len(waiter.result()) == 2


def test_a_connection_that_was_closed_twice_can_still_be_dropped() -> None:
    """asyncio's TLS transport (Debian 12's Python) fails in abort() once it was closed twice."""
    wire = Wire()
    wire.protocol.close()
    wire.protocol.close()
    assert wire.transport.ends == ["close"]
    wire.protocol.eof_received()
    assert wire.transport.ends == ["close", "abort"]


# Replies and futures


def test_a_greeting_that_comes_before_anybody_waits_for_it_is_not_lost() -> None:
    wire = Wire(greeting=False)
    wire.receive(b"220 hi\r\n")
    assert wire.send(wire.session.greeting).result() == [Reply(220, b"hi")]
    assert wire.transport.wrote == []


def test_a_greeting_that_comes_late_completes_the_same_future() -> None:
    wire = Wire(greeting=False)
    waiter = wire.send(wire.session.greeting)
    assert not waiter.done()
    wire.receive(b"220 h")
    assert not waiter.done()
    wire.receive(b"i\r\n")
    assert waiter.result() == [Reply(220, b"hi")]


def test_the_oldest_future_gets_the_first_reply_whatever_it_says() -> None:
    wire = Wire()
    first, group, last = (
        wire.send(command("MAIL")),
        wire.send(command("RCPT", owed=2)),
        wire.send(command("QUIT")),
    )
    assert wire.transport.wrote == [b"MAIL\r\n", b"RCPT\r\n", b"QUIT\r\n"]
    wire.receive(b"221 bye\r\n250 one\r\n")
    assert first.result() == [Reply(221, b"bye")]
    assert not group.done()
    wire.receive(b"550 two\r\n354 three\r\n")
    assert group.result() == [Reply(250, b"one"), Reply(550, b"two")]
    assert last.result() == [Reply(354, b"three")]


def test_a_future_that_nobody_waits_for_any_more_still_takes_its_reply() -> None:
    wire = Wire()
    given_up, next_one = wire.send(command("MAIL")), wire.send(command("RSET"))
    given_up.cancel()
    wire.receive(b"250 not yours\r\n250 yours\r\n")
    assert next_one.result() == [Reply(250, b"yours")]


def test_a_step_that_earns_nothing_is_not_waited_for_and_a_step_without_octets_writes_nothing() -> None:
    wire = Wire()
    assert wire.send(Step(b"*\r\n", owed=0)).result() == []
    wire.send(Step(b"", "the caller's command"))
    assert wire.transport.wrote == [b"*\r\n"]


def test_content_goes_out_as_it_is() -> None:
    wire = Wire()
    wire.protocol.write(b"a\r\n")
    assert wire.transport.wrote == [b"a\r\n"]


def test_a_step_before_the_transport_is_a_mistake_of_ours() -> None:
    protocol = SMTPProtocol(Session(PEER), Clock())  # type: ignore[arg-type]
    with pytest.raises(AssertionError):
        protocol.write(b"x")


def test_little_is_buffered_for_inside_tls_progress_shows_only_when_the_buffer_moves() -> None:
    wire = Wire()
    assert wire.transport.high == HIGH_WATER
    inside = Transport()
    wire.protocol.upgrade(inside)
    assert inside.high == HIGH_WATER


def test_after_the_upgrade_everything_goes_through_tls_and_nothing_is_known() -> None:
    wire, inside = Wire(), Transport()
    wire.session.extensions = Extensions.parse(b"mail.test\nSIZE")
    wire.protocol.upgrade(inside)
    wire.send(command())
    assert (wire.transport.wrote, inside.wrote) == ([], [b"NOOP\r\n"])
    assert wire.session.encrypted
    assert "size" not in wire.session.extensions


# How it ends


def ends(wire: Wire, how: str) -> None:
    """Bring the connection to an end in one of the ways there are."""
    if how == "eof":
        wire.protocol.eof_received()
    elif how == "lost":
        wire.protocol.connection_lost(None)
    elif how == "reset":
        wire.protocol.connection_lost(ConnectionResetError("reset by peer"))
    elif how == "garbage":
        wire.receive(b"what?\r\n")
    elif how == "abort":
        wire.protocol.abort()
    elif how == "handshake":
        wire.protocol.abort_handshake()
    else:
        wire.protocol.close()


ENDS = ["eof", "lost", "reset", "garbage", "abort", "handshake", "close"]


@pytest.mark.parametrize("how", ENDS)
def test_every_future_fails_with_an_error_of_its_own(how: str) -> None:
    wire = Wire()
    waiters = [wire.send(command("MAIL")), wire.send(command("RCPT")), wire.send(command("DATA"))]
    ends(wire, how)
    errors = [failure_of(waiter) for waiter in waiters]
    assert len({id(error) for error in errors}) == 3
    expected = SMTPProtocolError if how == "garbage" else SMTPServerDisconnected
    assert {type(error) for error in errors} == {expected}
    assert len({str(error) for error in errors}) == 1


@pytest.mark.parametrize("how", ENDS)
def test_a_failure_that_nobody_awaits_is_no_noise_when_it_is_collected(how: str) -> None:
    wire = Wire()
    wire.send(command())
    ends(wire, how)
    complaints = wire.clock.complaints
    del wire
    gc.collect()
    assert complaints == []


@pytest.mark.parametrize("how", ENDS)
def test_a_cancelled_future_is_left_alone(how: str) -> None:
    wire = Wire()
    waiter = wire.send(command())
    waiter.cancel()
    ends(wire, how)
    assert waiter.cancelled()


@pytest.mark.parametrize("how", ENDS)
def test_after_the_end_nothing_is_written(how: str) -> None:
    wire = Wire()
    ends(wire, how)
    with pytest.raises(SMTPException):
        wire.protocol.send(command())
    with pytest.raises(SMTPException):
        wire.protocol.check()
    assert wire.transport.wrote == []


@pytest.mark.parametrize("how", ENDS)
def test_the_end_may_come_more_than_once(how: str) -> None:
    wire = Wire()
    waiter = wire.send(command())
    ends(wire, how)
    said = str(failure_of(waiter))
    for again in ENDS:
        ends(wire, again)
    assert wire.session.failure is not None
    assert str(wire.session.failure) == said
    assert wire.protocol.closed.done()


@pytest.mark.parametrize(
    ("how", "transport"),
    [("eof", ["abort"]), ("garbage", ["abort"]), ("abort", ["abort"]), ("close", ["close"]), ("lost", [])],
)
def test_a_broken_connection_is_dropped_and_a_good_one_may_finish_writing(
    how: str, transport: list[str]
) -> None:
    wire = Wire()
    ends(wire, how)
    assert wire.transport.ends == transport


@pytest.mark.parametrize("how", ["eof", "garbage", "abort", "close"])
def test_closed_is_told_when_the_transport_is_gone_and_not_before(how: str) -> None:
    wire = Wire()
    ends(wire, how)
    assert not wire.protocol.closed.done()
    wire.protocol.connection_lost(None)
    assert wire.protocol.closed.result() is None


def test_a_handshake_that_is_dropped_counts_as_gone_for_asyncio_does_not_tell() -> None:
    wire = Wire()
    wire.protocol.abort_handshake(SMTPTimeoutError("no handshake in time"))
    assert wire.transport.ends == ["abort"]
    assert wire.protocol.closed.done()
    with pytest.raises(SMTPTimeoutError, match="no handshake in time"):
        wire.protocol.check()


def test_the_end_before_there_is_a_transport() -> None:
    for how in ("abort", "close", "lost", "handshake"):
        wire = Wire(greeting=False)
        wire.protocol.transport = None
        ends(wire, how)
        assert isinstance(failure_of(wire.send(wire.session.greeting)), SMTPServerDisconnected)


def test_replies_that_came_before_the_garbage_still_count() -> None:
    wire = Wire()
    first, second = wire.send(command()), wire.send(command())
    wire.receive(OK + b"what?\r\n")
    assert first.result() == [Reply(250, b"ok")]
    assert isinstance(failure_of(second), SMTPProtocolError)
    assert wire.transport.ends == ["abort"]


def test_octets_that_nobody_asked_for_drop_the_connection() -> None:
    wire = Wire()
    wire.receive(b"250 hello?\r\n")
    assert wire.transport.ends == ["abort"]
    with pytest.raises(SMTPProtocolError):
        wire.protocol.check()


@pytest.mark.parametrize("pieces", [[b"421 bye\r\n"], [b"4", b"21 b", b"ye\r\n"]])
def test_a_421_to_nothing_drops_the_connection_and_is_the_reason(pieces: list[bytes]) -> None:
    wire = Wire()
    for piece in pieces:
        wire.receive(piece)
    assert wire.transport.ends == ["abort"]
    with pytest.raises(SMTPServerDisconnected) as caught:
        wire.protocol.check()
    assert caught.value.last_reply == Reply(421, b"bye")


def test_a_421_that_answers_something_leaves_the_closing_to_the_driver() -> None:
    wire = Wire()
    waiter = wire.send(command())
    wire.receive(b"421 bye\r\n")
    assert waiter.result() == [Reply(421, b"bye")]
    assert wire.transport.ends == []


@pytest.mark.parametrize(("buffered", "ends"), [(0, ["close"]), (1, ["abort"])])
def test_what_a_server_that_took_its_leave_did_not_read_keeps_no_socket_open(
    buffered: int, ends: list[str]
) -> None:
    wire = Wire()
    wire.send(command())
    wire.receive(b"421 bye\r\n")
    wire.transport.buffered = buffered
    wire.protocol.leave()
    assert wire.transport.ends == ends


def test_a_421_that_nobody_waits_for_any_more_closes_the_connection() -> None:
    wire = Wire()
    wire.send(command()).cancel()
    wire.receive(b"421 bye\r\n")
    assert wire.transport.ends == ["abort"]


def test_after_a_reset_write_would_be_a_silent_no_op_so_it_is_asked_first() -> None:
    wire = Wire()
    wire.transport.ends.append("reset by the peer")
    with pytest.raises(SMTPServerDisconnected):
        wire.protocol.check()
    with pytest.raises(SMTPServerDisconnected):
        wire.protocol.send(command())
    assert wire.transport.wrote == []


def test_a_reset_is_the_cause_of_the_error() -> None:
    wire = Wire()
    waiter = wire.send(command("MAIL"))
    reset = ConnectionResetError("reset by peer")
    wire.protocol.connection_lost(reset)
    error = failure_of(waiter)
    assert error.__cause__ is reset
    assert "while its reply to MAIL was owed" in str(error)


# The clock


def watched(
    timeouts: Timeouts | float | None = 60.0, *steps: Step
) -> tuple[Wire, list[asyncio.Future[list[Reply]]]]:
    wire = Wire(timeouts=Timeouts.of(timeouts))
    return wire, [wire.send(step) for step in steps or [command("MAIL")]]


def filled(wire: Wire, octets: int = 1000) -> None:
    """The transport took as much as it takes, and says so."""
    wire.transport.buffered = octets
    wire.protocol.pause_writing()


def test_a_server_that_does_not_answer_in_time_is_left() -> None:
    wire, [waiter] = watched(60.0)
    wire.clock.advance(59.9)
    assert not waiter.done()
    wire.clock.advance(0.1)
    error = failure_of(waiter)
    assert isinstance(error, SMTPTimeoutError)
    assert error.phase == "MAIL"
    assert str(error) == f"{PEER} took longer than 60 s (MAIL)"
    assert wire.transport.ends == ["abort"]


def test_each_reply_of_a_group_has_its_own_deadline() -> None:
    wire, [waiter] = watched(60.0, Step(b"", "MAIL", "RCPT", "RCPT", "DATA", owed=4))
    for _ in range(3):
        wire.clock.advance(59.0)
        wire.receive(OK)
    assert not waiter.done()
    wire.clock.advance(60.0)
    error = failure_of(waiter)
    assert isinstance(error, SMTPTimeoutError)
    assert error.phase == "DATA"  # the verb that was not answered


def test_an_octet_every_second_does_not_keep_the_connection_alive() -> None:
    wire, [waiter] = watched(60.0)
    seconds = 0
    for octet in b"250-" + b"x" * 100:
        if waiter.done():
            break
        wire.clock.advance(1.0)
        if not waiter.done():
            wire.receive(bytes([octet]))
            seconds += 1
    assert seconds == 59
    assert isinstance(failure_of(waiter), SMTPTimeoutError)


def test_lines_of_one_long_reply_do_not_keep_it_alive_either() -> None:
    wire, [waiter] = watched(60.0)
    for _ in range(2):
        wire.clock.advance(29.0)
        wire.receive(b"250-more\r\n")
    wire.clock.advance(2.0)
    assert isinstance(failure_of(waiter), SMTPTimeoutError)


def test_a_step_may_have_a_patience_of_its_own() -> None:
    wire, [waiter] = watched(60.0, Step(b"", "BDAT", patience=10.0))
    wire.clock.advance(10.0)
    assert str(failure_of(waiter)) == f"{PEER} took longer than 10 s (BDAT)"


def test_the_reply_to_the_content_has_more_time_than_those_to_commands() -> None:
    step = Step(b"MAIL\r\n", "MAIL", "end of content", owed=2, lines=1, content=InMemory.of(b"x"))
    wire = Wire(timeouts=Timeouts(reply=60.0, final=600.0))
    waiter = wire.protocol.send(step, b"x\r\n.\r\n")
    assert waiter is not None
    wire.clock.advance(59.0)
    wire.receive(OK)
    wire.clock.advance(599.0)
    assert not waiter.done()
    wire.clock.advance(1.0)
    assert str(failure_of(waiter)) == f"{PEER} took longer than 600 s (end of content)"


def test_what_is_written_behind_others_has_its_time_from_when_it_is_next() -> None:
    wire, waiters = watched(60.0, command("MAIL"), command("NOOP"))
    wire.clock.advance(59.0)
    wire.receive(OK)
    wire.clock.advance(59.0)
    assert [waiter.done() for waiter in waiters] == [True, False]
    wire.clock.advance(1.0)
    assert str(failure_of(waiters[1])) == f"{PEER} took longer than 60 s (NOOP)"


def test_an_upload_that_moves_never_times_out_however_long_it_takes() -> None:
    wire, [waiter] = watched(60.0, upload())
    filled(wire)
    for _ in range(100):
        wire.clock.advance(59.0)
        wire.transport.buffered -= 1
    assert not waiter.done()
    wire.clock.advance(121.0)
    error = failure_of(waiter)
    assert isinstance(error, SMTPTimeoutError)
    assert error.phase == "content"


def test_an_upload_that_stands_still_times_out() -> None:
    wire, [waiter] = watched(60.0, upload())
    filled(wire)
    wire.clock.advance(60.0)
    assert isinstance(failure_of(waiter), SMTPTimeoutError)


def test_an_upload_that_stands_still_times_out_though_the_reply_to_another_has_more_time() -> None:
    before = Step(b"", "end of content", content=InMemory.of(b"x"), during=Phase.CONTENT)
    wire = Wire(timeouts=Timeouts(write=60.0, final=600.0))
    waiter = wire.protocol.send(before, b"x\r\n.\r\n")
    assert waiter is not None
    wire.send(upload())
    filled(wire)
    wire.clock.advance(60.0)
    assert isinstance(failure_of(waiter), SMTPTimeoutError)


def test_room_in_the_buffer_is_progress() -> None:
    wire, [waiter] = watched(60.0, upload())
    wire.protocol.pause_writing()
    wire.clock.advance(59.0)
    wire.protocol.resume_writing()
    wire.protocol.pause_writing()
    wire.clock.advance(59.0)
    assert not waiter.done()
    wire.clock.advance(1.0)
    assert isinstance(failure_of(waiter), SMTPTimeoutError)


def test_content_that_does_not_leave_has_a_time_of_its_own() -> None:
    wire, [waiter] = watched(Timeouts(reply=5.0, write=0.5, final=5.0), upload())
    filled(wire)
    wire.clock.advance(0.5)
    assert str(failure_of(waiter)) == f"{PEER} took longer than 0.5 s (content)"


def test_none_waits_for_ever() -> None:
    wire, [waiter] = watched(None)
    filled(wire)
    wire.clock.advance(1e9)
    assert not waiter.done()
    assert wire.clock.timers == []


def test_the_time_of_the_caller_is_not_the_servers() -> None:
    step = upload()
    wire, [waiter] = watched(60.0, step)
    wire.clock.advance(1000.0)  # the caller's iterator takes that long
    assert not waiter.done()
    wire.protocol.write_end(step, b"x\r\n.\r\n")
    wire.clock.advance(59.0)
    assert not waiter.done()
    wire.clock.advance(1.0)
    assert isinstance(failure_of(waiter), SMTPTimeoutError)


def test_there_is_one_timer_a_connection_and_not_one_a_reply() -> None:
    wire, _ = watched(60.0)
    for _ in range(1000):
        wire.receive(OK)
        wire.clock.advance(0.01)
        wire.send(command())
    assert len(wire.clock.timers) == 1


def test_a_connection_that_owes_nothing_needs_no_timer() -> None:
    wire, [waiter] = watched(60.0)
    wire.receive(OK)
    wire.clock.advance(60.0)
    assert waiter.done()
    assert wire.clock.live == []


def test_a_shorter_wait_behind_a_longer_one_is_kept() -> None:
    wire, [_, waiter] = watched(600.0, command(), Step(b"", "BDAT", patience=1.0))
    wire.receive(OK)
    wire.clock.advance(1.0)
    assert isinstance(failure_of(waiter), SMTPTimeoutError)
    assert wire.clock.live == []


def test_a_longer_wait_behind_a_shorter_one_is_kept() -> None:
    wire, [_, waiter] = watched(600.0, Step(b"", "BDAT", patience=1.0), command())
    wire.receive(OK)
    wire.clock.advance(599.0)
    assert not waiter.done()
    wire.clock.advance(1.0)
    assert isinstance(failure_of(waiter), SMTPTimeoutError)


def test_a_timer_that_goes_off_a_little_early_looks_again() -> None:
    wire, [waiter] = watched(60.0)
    wire.clock.advance(60.0 - 1e-9)
    timer = wire.clock.live[0]
    timer.live = False
    timer.callback()  # loops do that: their clocks have a resolution
    assert not waiter.done()
    wire.clock.advance(1e-6)
    assert isinstance(failure_of(waiter), SMTPTimeoutError)


@pytest.mark.parametrize("how", ["lost", "reset", "handshake"])
def test_no_timer_outlives_its_connection(how: str) -> None:
    wire, _ = watched(60.0)
    ends(wire, how)
    assert wire.clock.live == []


@pytest.mark.parametrize("how", ENDS)
def test_a_connection_that_ended_does_not_time_out_besides(how: str) -> None:
    wire, [waiter] = watched(60.0)
    ends(wire, how)
    wire.clock.advance(1000.0)
    assert not isinstance(failure_of(waiter), SMTPTimeoutError)
    wire.protocol.pause_writing()
    wire.protocol.resume_writing()
    assert wire.clock.live == []


def test_the_clock_may_run_before_there_is_a_transport() -> None:
    wire = Wire(greeting=False)
    wire.protocol.transport = None
    waiter = wire.send(wire.session.greeting)
    wire.clock.advance(60.0)
    assert str(failure_of(waiter)).startswith(f"{PEER} took longer than 60 s (greeting)")


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_server_that_waits_for_a_handshake_in_place_of_greeting_is_thought_of(encrypted: bool) -> None:
    wire = Wire(greeting=False)
    wire.session.encrypted = encrypted
    waiter = wire.send(wire.session.greeting)
    wire.clock.advance(60.0)
    assert ("use tls='implicit'" in str(failure_of(waiter))) is not encrypted


# Flow control


async def draining(wire: Wire, step: Step | None = None) -> asyncio.Task[None]:
    """A task that waits for room, and has begun to."""
    drain: Coroutine[Any, Any, None] = wire.protocol.drain(step)
    task = asyncio.create_task(drain)
    await asyncio.sleep(0)
    return task


async def test_there_is_nothing_to_wait_for_while_the_transport_takes_more() -> None:
    wire = Wire(loop=asyncio.get_running_loop())
    await wire.protocol.drain()


async def test_a_writer_to_a_fast_server_lets_others_have_their_turn() -> None:
    wire, turns = Wire(loop=asyncio.get_running_loop()), []
    asyncio.get_running_loop().call_soon(turns.append, "another")
    await wire.protocol.drain()
    assert turns == ["another"]


async def test_a_full_transport_is_waited_for() -> None:
    wire = Wire(loop=asyncio.get_running_loop())
    wire.protocol.pause_writing()
    task = await draining(wire)
    assert not task.done()
    wire.protocol.resume_writing()
    await task


async def test_a_reply_that_does_not_concern_the_writer_does_not_end_the_wait() -> None:
    wire = Wire(loop=asyncio.get_running_loop())
    wire.send(command())
    wire.protocol.pause_writing()
    task = await draining(wire)
    wire.receive(OK)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not task.done()
    wire.protocol.resume_writing()
    await task


@pytest.mark.parametrize("owed", [1, 2])
async def test_an_answer_in_the_middle_of_the_content_is_noticed_while_the_transport_is_full(
    owed: int,
) -> None:
    wire = Wire(loop=asyncio.get_running_loop())
    step = upload()
    step.owed = owed
    waiter = wire.send(step)
    wire.protocol.pause_writing()
    task = await draining(wire, step)
    assert not task.done()
    wire.receive(b"552 too much\r\n")
    await task
    assert step.received == [Reply(552, b"too much")]
    await wire.protocol.drain(step)  # not waited for again
    waiter.cancel()


@pytest.mark.parametrize("how", ENDS)
async def test_a_writer_does_not_wait_for_a_connection_that_ended(how: str) -> None:
    wire = Wire(loop=asyncio.get_running_loop())
    wire.protocol.pause_writing()
    task = await draining(wire)
    ends(wire, how)
    with pytest.raises(SMTPException):
        await task
    with pytest.raises(SMTPException):
        await wire.protocol.drain()


async def test_a_writer_who_gave_up_is_not_woken() -> None:
    wire = Wire(loop=asyncio.get_running_loop())
    wire.protocol.pause_writing()
    task = await draining(wire)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    wire.protocol.resume_writing()
    await wire.protocol.drain()
