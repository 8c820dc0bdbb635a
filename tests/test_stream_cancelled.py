"""Streams in which tasks are cancelled, or fail while they still write: the innocent keep their verdicts."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest
from flight import (
    ENVELOPE,
    FOUR,
    GROUP,
    ONE,
    THREE,
    TWO,
    WHOLE,
    bdat,
    begin,
    data,
    group,
    known,
    sending,
    settled,
    stream,
)
from wire import BODY, OK, bye, each_loop, mark, wait_for

from aiosmtpclient import AsyncSMTP, Delivery, SendResult, protocol
from aiosmtpclient.testing import MailServer, ScriptedServer
from aiosmtpclient.testing.scripted import expect_content, expect_eof

pytestmark = each_loop

ACCEPTED, REFUSED, NOT_SENT, UNKNOWN = (
    Delivery.ACCEPTED,
    Delivery.REFUSED,
    Delivery.NOT_SENT,
    Delivery.UNKNOWN,
)
AGAIN = [*begin(), *data(THREE), *data(FOUR), *bye()]
"""The next connection, on which nobody else's message is left over."""


# Nothing of it is on the wire


async def test_cancelled_while_it_waits_for_the_turn() -> None:
    reached, go = asyncio.Event(), asyncio.Event()
    script = [*begin(), *group(ONE), mark(reached), wait_for(go), GROUP, expect_content(), OK]
    async with ScriptedServer([*script, *data(THREE), *bye()]) as server:
        async with stream(server, chunking="off") as smtp:
            tasks = [sending(smtp, to) for to in (ONE, TWO, THREE)]
            await reached.wait()
            tasks[1].cancel()
            await settled()
            assert tasks[1].done()
            go.set()
            assert await known(*tasks) == [ACCEPTED, NOT_SENT, ACCEPTED]
    assert server.connections == 1


async def test_cancelled_while_too_much_is_outstanding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "MOST_IN_FLIGHT", 2)
    reached, go = asyncio.Event(), asyncio.Event()
    script = [*begin(), *bdat(ONE), *bdat(TWO, behind=True), mark(reached), wait_for(go), WHOLE + OK + WHOLE]
    async with ScriptedServer([*script, "RSET", *bdat(FOUR), OK + WHOLE, *bye()]) as server:
        async with stream(server) as smtp:
            tasks = [sending(smtp, to) for to in (ONE, TWO, THREE, FOUR)]
            await reached.wait()
            tasks[2].cancel()
            await settled()
            assert tasks[2].done()
            go.set()
            assert await known(*tasks) == [ACCEPTED, ACCEPTED, NOT_SENT, ACCEPTED]
    assert server.connections == 1


# All of it is on the wire


@pytest.mark.parametrize("turns", [1, 2, 3])
async def test_cancelled_in_the_turn_of_the_loop_in_which_it_writes(turns: int) -> None:
    """Whether it had left or not, the account says what may be said, and the others do not notice."""
    async with MailServer() as server, AsyncSMTP(server.host, server.port, pipelining="stream") as smtp:
        await sending(smtp, FOUR)  # what is to be known about the server is known
        server.messages.clear()
        tasks = [sending(smtp, to) for to in (ONE, TWO, THREE)]
        for _ in range(turns):
            await asyncio.sleep(0)
        tasks[1].cancel()
        first, second, third = await known(*tasks)
        await smtp.noop()
        arrived = [message.recipients[0] for message in server.messages]
    assert (first, third) == (ACCEPTED, ACCEPTED)
    assert second in ((UNKNOWN, ACCEPTED) if TWO in arrived else (UNKNOWN, NOT_SENT))
    assert {ONE, THREE} <= set(arrived)


@pytest.mark.parametrize("chunk", [True, False], ids=["BDAT", "DATA"])
@pytest.mark.parametrize("which", [0, 1, 2])
async def test_cancelled_in_flight_is_unknown_and_its_replies_are_nobody_elses(
    which: int, chunk: bool
) -> None:
    reached, go = asyncio.Event(), asyncio.Event()
    names = [ONE, TWO, THREE]
    verdicts = [b"250 2.0.0 queued as %d\r\n" % number for number in range(3)]
    if chunk:
        steps = [*bdat(ONE), *bdat(TWO, behind=True), *bdat(THREE, behind=True), mark(reached), wait_for(go)]
        steps += [ENVELOPE + (OK + ENVELOPE).join(verdicts), *bdat(FOUR), WHOLE]
    else:  # only the last is still in flight when the one behind it could follow
        steps = [*data(ONE, b""), *group(TWO), verdicts[0] + GROUP, expect_content(), *group(THREE)]
        steps += [
            verdicts[1] + GROUP,
            expect_content(),
            mark(reached),
            wait_for(go),
            verdicts[2],
            *data(FOUR),
        ]
        which = 2
    async with ScriptedServer([*begin(), *steps, *bye()]) as server:
        async with stream(server, chunking="eager" if chunk else "off") as smtp:
            tasks = [sending(smtp, to) for to in names]
            await reached.wait()
            tasks[which].cancel()
            await settled()
            assert tasks[which].done()
            go.set()
            expected = [UNKNOWN if number == which else ACCEPTED for number in range(3)]
            assert await known(*tasks) == expected
            for number, task in enumerate(tasks):
                result = await task
                if isinstance(result, SendResult):
                    assert result.reply.text == f"2.0.0 queued as {number}"
            assert await known(sending(smtp, FOUR)) == [ACCEPTED]
    assert server.connections == 1


async def test_cancelled_in_flight_and_refused_still_has_an_rset_behind_it() -> None:
    reached, go = asyncio.Event(), asyncio.Event()
    script = [*begin(), *bdat(ONE), mark(reached), wait_for(go), ENVELOPE + b"552 full\r\n"]
    async with ScriptedServer([*script, "RSET", *bdat(TWO), OK + WHOLE, *bye()]) as server:
        async with stream(server) as smtp:
            task = sending(smtp, ONE)
            await reached.wait()
            task.cancel()
            assert await known(task) == [UNKNOWN]
            go.set()
            assert await known(sending(smtp, TWO)) == [ACCEPTED]


async def test_all_cancelled_in_flight_leave_a_connection_in_step() -> None:
    reached, go = asyncio.Event(), asyncio.Event()
    script = [*begin(), *bdat(ONE), *bdat(TWO, behind=True), mark(reached), wait_for(go), WHOLE + OK + WHOLE]
    async with ScriptedServer([*script, "NOOP", OK, *bye()]) as server, stream(server) as smtp:
        tasks = [sending(smtp, ONE), sending(smtp, TWO)]
        await reached.wait()
        for task in tasks:
            task.cancel()
        assert await known(*tasks) == [UNKNOWN] * 2
        go.set()
        assert (await smtp.noop()).code == 250
    assert server.connections == 1


# Half of it is on the wire


async def test_cancelled_between_mail_and_354_spares_those_before_and_those_behind() -> None:
    reached, go = asyncio.Event(), asyncio.Event()
    script = [*begin(), *group(ONE), GROUP, expect_content(), *group(TWO), mark(reached), wait_for(go), OK]
    async with ScriptedServer([*script, expect_eof()], AGAIN) as server:
        async with stream(server, chunking="off") as smtp:
            tasks = [sending(smtp, to) for to in (ONE, TWO, THREE, FOUR)]
            await reached.wait()
            tasks[1].cancel()
            await settled()
            assert tasks[1].done()
            assert not tasks[0].done()
            go.set()
            assert await known(*tasks) == [ACCEPTED, NOT_SENT, ACCEPTED, ACCEPTED]
    assert b"RSET" not in server.received[0]
    assert server.received[0].count(b"\r\n.\r\n") == 1


async def test_who_is_cancelled_while_the_connection_ends_does_not_take_another_with_him() -> None:
    reached, go = asyncio.Event(), asyncio.Event()
    script = [*begin(), *group(ONE), GROUP, expect_content(), *group(TWO), mark(reached), wait_for(go), OK]
    again = [*begin(), *data(FOUR), *bye()]
    async with ScriptedServer([*script, expect_eof()], again) as server:
        async with stream(server, chunking="off") as smtp:
            tasks = [sending(smtp, to) for to in (ONE, TWO, THREE, FOUR)]
            await reached.wait()
            for number in (1, 2):
                tasks[number].cancel()
                await settled()
                assert tasks[number].done()
            go.set()
            assert await known(*tasks) == [ACCEPTED, NOT_SENT, NOT_SENT, ACCEPTED]


async def test_replies_to_a_message_that_was_given_up_may_come_together_with_those_before_it() -> None:
    reached, go = asyncio.Event(), asyncio.Event()
    script = [
        *begin(),
        *group(ONE),
        GROUP,
        expect_content(),
        *group(TWO),
        mark(reached),
        wait_for(go),
        OK + GROUP,
    ]
    async with ScriptedServer([*script, expect_eof()], AGAIN) as server:
        async with stream(server, chunking="off") as smtp:
            tasks = [sending(smtp, to) for to in (ONE, TWO, THREE, FOUR)]
            await reached.wait()
            tasks[1].cancel()
            await settled()
            go.set()
            assert await known(*tasks) == [ACCEPTED, NOT_SENT, ACCEPTED, ACCEPTED]
    assert server.received[0].count(b"\r\n.\r\n") == 1


async def test_a_verb_behind_a_message_that_was_given_up_is_told_so_and_does_not_hang() -> None:
    reached, go = asyncio.Event(), asyncio.Event()
    script = [*begin(), *group(ONE), GROUP, expect_content(), *group(TWO), mark(reached), wait_for(go), OK]
    async with ScriptedServer([*script, expect_eof()]) as server:
        smtp = stream(server, chunking="off")
        await smtp.connect()
        tasks = [sending(smtp, to) for to in (ONE, TWO)]
        await reached.wait()
        tasks[1].cancel()
        noop = asyncio.create_task(smtp.noop())
        await settled()
        assert not noop.done()
        go.set()
        assert await known(*tasks) == [ACCEPTED, NOT_SENT]
        with pytest.raises(ConnectionError):
            await noop


@pytest.mark.parametrize("chunking", ["off", "eager"])
@pytest.mark.parametrize("how", ["cancel", "raise"])
async def test_a_body_that_breaks_off_half_way_ends_with_its_connection_alone(
    how: str, chunking: str
) -> None:
    begun = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x" * 1000 + b"\r\n"
        begun.set()
        if how == "raise":
            raise LookupError("no more")
        await asyncio.Event().wait()

    async with MailServer() as server:
        smtp = AsyncSMTP(server.host, server.port, pipelining="stream", chunking=chunking)  # type: ignore[arg-type]
        async with smtp:
            tasks = [sending(smtp, ONE), sending(smtp, TWO, body()), sending(smtp, THREE)]
            await begun.wait()
            if how == "cancel":
                tasks[1].cancel()
            assert await known(*tasks) == [ACCEPTED, NOT_SENT, ACCEPTED]
            assert isinstance(await tasks[1], asyncio.CancelledError if how == "cancel" else LookupError)
    assert [message.recipients for message in server.messages] == [(ONE,), (THREE,)]
    assert server.connections == 2


@pytest.mark.parametrize("chunking", ["off", "eager"])
async def test_what_a_progress_report_raises_harms_no_message_before_it(chunking: str) -> None:
    def report(done: int, total: int | None) -> None:
        raise LookupError("no more")

    async with MailServer() as server:
        smtp = AsyncSMTP(server.host, server.port, pipelining="stream", chunking=chunking)  # type: ignore[arg-type]
        async with smtp:
            first, third = sending(smtp, ONE), sending(smtp, THREE)
            second = asyncio.create_task(smtp.sendmail("a@x.test", TWO, BODY, progress=report))
            assert await known(first, third) == [ACCEPTED] * 2
            with pytest.raises(LookupError) as caught:
                await second
            assert caught.value.delivery is NOT_SENT  # type: ignore[attr-defined]
            assert await known(sending(smtp, FOUR)) == [ACCEPTED]
    assert [message.recipients for message in server.messages] == [(ONE,), (THREE,), (FOUR,)]


# By chance


KINDS = ["bad", "bye", *[""] * 6]


def refusal(name: str) -> str | None:
    """One recipient is refused, with another the server ends the session."""
    return "550 5.1.1 no" if "bad" in name else "421 4.3.2 bye" if "bye" in name else None


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("chunking", ["off", "eager"])
async def test_whoever_is_cancelled_whenever_no_account_claims_too_much(chunking: str, seed: int) -> None:
    """Accepted has arrived once, not sent has not arrived, refused was refused; and nothing hangs."""
    chance = random.Random(seed)

    async def dribble(body: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(body), 7):
            yield body[start : start + 7]
            await asyncio.sleep(0)

    async with MailServer(refuse=refusal) as server:
        smtp = AsyncSMTP(server.host, server.port, pipelining="stream", chunking=chunking)  # type: ignore[arg-type]
        async with smtp:
            names, tasks = [], []
            for number in range(60):
                names.append(f"{number}{chance.choice(KINDS)}@to.test")
                body: object = dribble(BODY) if chance.random() < 0.2 else BODY
                tasks.append(sending(smtp, names[-1], body))
                for _ in range(chance.choice([0, 0, 1, 5])):
                    await asyncio.sleep(0)
                if chance.random() < 0.3:
                    chance.choice(tasks).cancel()
            found = dict(zip(names, await known(*tasks), strict=True))
            assert await known(sending(smtp, ONE)) == [ACCEPTED]
    arrived = [message.recipients[0] for message in server.messages]
    assert len(arrived) == len(set(arrived))
    for name, delivery in found.items():
        if delivery is not UNKNOWN:
            assert (delivery is ACCEPTED) == (name in arrived), (name, delivery)
        if delivery is REFUSED:
            assert refusal(name)
