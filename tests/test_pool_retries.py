"""What a pool tries again by itself: only what cannot arrive twice, and octet for octet the same."""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import AsyncIterator, Callable, Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from wire import BODY, GO, OK, SENDER, TO, TOO, bye, envelope, hello, take

from aiosmtpclient import (
    Delivery,
    Envelope,
    Retries,
    SMTPDataError,
    SMTPException,
    SMTPPool,
    SMTPRecipientsRefused,
    SMTPSenderRefused,
    SMTPServerDisconnected,
)
from aiosmtpclient.delivery import Ledger
from aiosmtpclient.errors import SMTPPoolError
from aiosmtpclient.replies import Reply
from aiosmtpclient.retrying import STALE, Course, crowded
from aiosmtpclient.testing import ScriptedServer
from aiosmtpclient.testing.scripted import Step, close, drop, expect_content, read_all, read_exactly, reset

LARGE = b"".join(b"line %d\r\n" % number for number in range(40_000))


def pool_of(server: ScriptedServer, **options: Any) -> SMTPPool:
    return SMTPPool(server.host, server.port, **{"max_connections": 1, **options})


def contents(server: ScriptedServer) -> list[bytes]:
    """What each connection read behind its first DATA."""
    return [octets.partition(b"DATA\r\n")[2].partition(b"\r\n.\r\n")[0] for octets in server.received]


# The rules, without a connection


def said(code: int, text: bytes = b"no") -> Reply:
    return Reply(code, text)


def refused(code: int, text: bytes = b"no") -> SMTPSenderRefused:
    return SMTPSenderRefused(code, text, SENDER, reply=Reply(code, text))


def pauses(error: Exception, delivery: Delivery, *, used: bool = False, **rules: Any) -> list[float | None]:
    """What a course says to this failure again and again, up to the first None."""
    unknown = rules.pop("unknown", False)
    course = Course(Retries(**rules), unknown=unknown, chance=lambda: 1.0)
    ledger = Ledger((TO,))
    found: list[float | None] = []
    while None not in found and len(found) < 50:
        found.append(course.pause(error, delivery, ledger.outcomes, used=used))
    return found


LOST = SMTPServerDisconnected("gone")


def test_what_was_not_sent_is_tried_again_so_often() -> None:
    assert pauses(LOST, Delivery.NOT_SENT, not_sent=2) == [0.0, 0.0, None]
    assert pauses(LOST, Delivery.NOT_SENT, not_sent=0) == [None]


def test_a_connection_that_had_gone_stale_is_nobodys_failure() -> None:
    assert pauses(LOST, Delivery.NOT_SENT, not_sent=0, used=True) == [0.0] * STALE + [None]


def test_what_is_unknown_is_never_tried_again_unless_asked_for() -> None:
    assert pauses(LOST, Delivery.UNKNOWN, not_sent=5) == [None]
    assert pauses(LOST, Delivery.UNKNOWN, not_sent=1, unknown=True) == [0.0, None]


def test_too_many_at_mail_is_tried_again_later_and_later() -> None:
    found = pauses(refused(421), Delivery.REFUSED)
    assert found[:3] == [0.5, 1.0, 2.0]
    assert max(pause for pause in found if pause is not None) == 60.0
    assert len(found) == 11


def test_what_was_refused_for_now_is_tried_again_if_asked_for() -> None:
    error = SMTPDataError(451, b"later", reply=said(451))
    assert pauses(error, Delivery.REFUSED) == [None]
    assert pauses(error, Delivery.REFUSED, refused=2, delay=3.0) == [3.0, 6.0, None]


@pytest.mark.parametrize(
    "error",
    [
        SMTPDataError(554, b"no", reply=said(554)),
        refused(550),
        SMTPRecipientsRefused({TO: said(450), TOO: said(550)}),
    ],
)
def test_what_was_refused_for_good_is_not(error: SMTPException) -> None:
    assert pauses(error, Delivery.REFUSED, refused=5) == [None]


@pytest.mark.parametrize("error", [ValueError(), OSError(), SMTPPoolError("closed", closed=True)])
def test_what_is_no_failure_of_the_server_is_not(error: Exception) -> None:
    assert pauses(error, Delivery.NOT_SENT, not_sent=5) == [None]


@pytest.mark.parametrize(
    ("error", "yes"),
    [
        (refused(421), True),
        (refused(432), True),
        (refused(454, b"4.7.0 too many"), True),
        (refused(451, b"4.7.1 slow down"), True),
        (refused(451, b"4.3.0 trouble"), False),
        (refused(550, b"5.7.1 no"), False),
        (SMTPDataError(451, b"4.7.1 x", reply=said(451, b"4.7.1 spam filter is away")), False),
        (SMTPDataError(421, b"x", reply=said(421)), True),
        (SMTPServerDisconnected("gone", last_reply=said(421)), True),
        (SMTPServerDisconnected("gone", last_reply=said(450, b"4.7.1 greylisted")), False),
        (LOST, False),
        (ValueError(), False),
    ],
)
def test_too_many_is_what_is_said_about_us_and_not_about_a_message(error: Exception, yes: bool) -> None:
    assert crowded(error) is yes


# On the wire


@pytest.mark.each_loop
@pytest.mark.parametrize(
    "first",
    [
        [*hello(), "MAIL", drop()],
        [*hello(), *envelope(TO), "DATA", drop()],
        [*hello(), *envelope(TO), "DATA", reset()],
        [*hello(), close()],
    ],
)
async def test_what_was_not_sent_goes_over_another_connection(first: list[Step]) -> None:
    async with ScriptedServer(first, [*hello(), *take(TO), *bye()]) as server, pool_of(server) as pool:
        result = await pool.sendmail(SENDER, TO, BODY)
        assert result.accepted == (TO,)
        assert pool.stats().retried <= 1


async def test_what_is_unknown_stays_unknown() -> None:
    lost = [*hello(), *envelope(TO), "DATA", GO, expect_content(), drop()]
    async with ScriptedServer(lost) as server, pool_of(server) as pool:
        with pytest.raises(SMTPServerDisconnected) as caught:
            await pool.sendmail(SENDER, TO, BODY)
        assert caught.value.delivery is Delivery.UNKNOWN
        assert server.connections == 1


async def test_what_is_unknown_goes_again_if_asked_for_in_so_many_words() -> None:
    lost = [*hello(), *envelope(TO), "DATA", GO, expect_content(), drop()]
    async with ScriptedServer(lost, [*hello(), *take(TO), *bye()]) as server:
        async with pool_of(server, retry_unknown=True) as pool:
            assert (await pool.sendmail(SENDER, TO, BODY)).accepted == (TO,)
        assert contents(server)[0] == contents(server)[1]


async def test_attempts_are_bounded_and_the_error_is_the_last_one() -> None:
    async with ScriptedServer([*hello(), "MAIL", drop()]) as server, pool_of(server, retries=2) as pool:
        with pytest.raises(SMTPServerDisconnected) as caught:
            await pool.sendmail(SENDER, TO, BODY)
        assert caught.value.delivery is Delivery.NOT_SENT
        assert server.connections == 3
        assert pool.stats().retried == 2


async def test_what_one_recipient_got_is_never_sent_again() -> None:
    lmtp = [*hello(verb="LHLO"), *envelope(TO, TOO), "DATA", GO, expect_content(), OK, drop()]
    async with ScriptedServer(lmtp) as server:
        async with pool_of(server, lmtp=True, retry_unknown=True) as pool:
            with pytest.raises(SMTPServerDisconnected) as caught:
                await pool.sendmail(SENDER, (TO, TOO), BODY)
            assert [one.delivery for one in caught.value.outcomes] == [Delivery.ACCEPTED, Delivery.UNKNOWN]
        assert server.connections == 1


async def test_refused_for_now_is_tried_again_if_asked_for() -> None:
    script = [*hello(), "MAIL", b"451 4.3.0 later\r\n", "RSET", OK, *take(TO), *bye()]
    async with ScriptedServer(script) as server:
        async with pool_of(server, retries=Retries(refused=1, delay=0.01)) as pool:
            assert (await pool.sendmail(SENDER, TO, BODY)).accepted == (TO,)


async def test_when_there_is_no_other_connection_what_was_said_to_the_message_is_the_news() -> None:
    first = [*hello(), "MAIL", b"451 4.3.0 later\r\n", "RSET", OK, drop()]
    async with ScriptedServer(first, [b"554 no\r\n", read_all()]) as server:
        async with pool_of(server, retries=Retries(refused=3, delay=0.2)) as pool:
            with pytest.raises(SMTPSenderRefused, match="later") as caught:
                await pool.sendmail(SENDER, TO, BODY)
        assert caught.value.delivery is Delivery.REFUSED
        assert "554" in str(caught.value.__cause__)


# The same octets


def multipart() -> EmailMessage:
    made = EmailMessage()
    made["From"], made["To"], made["Bcc"] = SENDER, TO, TOO
    made.set_content("hello\n")
    made.add_attachment(LARGE, maintype="application", subtype="octet-stream")
    return made


class Again:
    """An asynchronous iterable that can be iterated again."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(LARGE), 50_000):
            yield LARGE[start : start + 50_000]


def parts() -> list[bytes]:
    return [LARGE[start : start + 50_000] for start in range(0, len(LARGE), 50_000)]


def half_read_file() -> io.BytesIO:
    file = io.BytesIO(b"not to be sent\r\n" + LARGE)
    file.readline()
    return file


def half_way(*extensions: str) -> list[Step]:
    """A connection that is lost in the middle of the content."""
    return [*hello(*extensions), *envelope(TO), "DATA", GO, read_exactly(100_000), reset()]


BODIES: dict[str, Callable[[], Any]] = {
    "bytes": lambda: LARGE,
    "file": half_read_file,
    "list": parts,
    "asynchronous": Again,
}


@pytest.mark.parametrize("body", BODIES)
async def test_content_that_was_sent_half_is_sent_whole_the_next_time(body: str) -> None:
    async with ScriptedServer(half_way(), [*hello(), *take(TO), *bye()]) as server:
        async with pool_of(server) as pool:
            await pool.sendmail(SENDER, TO, BODIES[body]())
        assert contents(server)[1] + b"\r\n" == LARGE


async def test_a_path_is_read_from_its_beginning_each_time(tmp_path: Path) -> None:
    path = tmp_path / "message"
    path.write_bytes(LARGE)
    async with ScriptedServer(half_way(), [*hello(), *take(TO), *bye()]) as server:
        async with pool_of(server) as pool:
            await pool.sendmail(SENDER, TO, path)
        assert contents(server)[1] + b"\r\n" == LARGE


@pytest.mark.parametrize("body", BODIES)
async def test_content_is_whole_also_where_the_next_server_offers_less(body: str) -> None:
    first = half_way("8BITMIME", "SIZE 0")
    async with ScriptedServer(first, [*hello("SIZE 0"), *take(TO), *bye()]) as server:
        async with pool_of(server) as pool:
            await pool.sendmail(SENDER, TO, BODIES[body]())
        assert contents(server)[1] + b"\r\n" == LARGE
        declared = re.findall(rb"SIZE=(\d+)", server.received[1])
        assert declared in ([], [b"%d" % len(LARGE)])


async def test_a_boundary_is_made_up_once() -> None:
    first = [*hello(), *envelope(TO, TOO), "DATA", GO, read_exactly(100_000), reset()]
    async with ScriptedServer(first, [*hello(), *take(TO, TOO), *bye()]) as server:
        async with pool_of(server) as pool:
            await pool.send_message(multipart())
        once, again = contents(server)
        assert again.startswith(once[:100_000])


async def test_blind_copies_stay_blind_where_the_next_server_offers_less() -> None:
    to_both = envelope(TO, TOO)
    first = [*hello("8BITMIME"), *to_both, "DATA", GO, read_exactly(100_000), reset()]
    async with ScriptedServer(first, [*hello(), *take(TO, TOO), *bye()]) as server:
        async with pool_of(server) as pool:
            result = await pool.send_message(multipart())
        assert result.accepted == (TO, TOO)
        assert b"bcc" not in server.received[1].lower()


def generator() -> Iterator[bytes]:
    yield from parts()


async def asynchronous() -> AsyncIterator[bytes]:
    for part in parts():
        yield part


@pytest.mark.parametrize("source", [generator, asynchronous])
async def test_what_can_be_read_once_is_never_sent_half(source: Callable[[], Any]) -> None:
    async with ScriptedServer(half_way()) as server, pool_of(server, retries=5) as pool:
        with pytest.raises(SMTPServerDisconnected) as caught:
            await pool.sendmail(SENDER, TO, source())
        assert caught.value.delivery is Delivery.NOT_SENT
        assert server.connections == 1


@pytest.mark.parametrize("source", [generator, asynchronous])
async def test_what_can_be_read_once_and_was_not_is_sent_whole(source: Callable[[], Any]) -> None:
    async with ScriptedServer([*hello(), "MAIL", drop()], [*hello(), *take(TO), *bye()]) as server:
        async with pool_of(server) as pool:
            await pool.sendmail(SENDER, TO, source())
        assert contents(server)[1] + b"\r\n" == LARGE


async def test_an_outcome_says_how_often_it_was_tried() -> None:
    async with ScriptedServer([*hello(), "MAIL", drop()], [*hello(), *take(TO), *bye()]) as server:
        async with pool_of(server, chunking="off") as pool:
            [outcome] = [one async for one in pool.send_messages([Envelope(SENDER, TO, BODY)])]
    assert (outcome.attempts, outcome.delivery) == (2, Delivery.ACCEPTED)
    assert outcome.error is None
    assert outcome.connection is not None


async def test_a_cancellation_between_two_attempts_says_what_is_known() -> None:
    script = [*hello(), "MAIL", b"451 4.3.0 later\r\n", "RSET", OK, "QUIT", b"221 bye\r\n"]
    async with ScriptedServer(script) as server:
        async with pool_of(server, retries=Retries(refused=1, delay=60)) as pool:
            known: list[BaseException] = []

            async def send() -> None:
                try:
                    await pool.sendmail(SENDER, TO, BODY)
                except asyncio.CancelledError as error:
                    known.append(error)
                    raise

            task = asyncio.create_task(send())
            while not (pool.stats().idle and pool.stats().opened):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert known[0].delivery is Delivery.REFUSED  # type: ignore[attr-defined]  # stamped on it
