"""How many round trips a message takes: what the wire costs, whatever the clock says."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from round_trips import RoundTrips
from wire import BODY, SENDER, both_loops

from aiosmtpclient import AsyncLMTP, AsyncSMTP, Delivery, Envelope
from aiosmtpclient.chunking import VERDICTS

pytestmark = both_loops

COUNTS = (1, 3, 50)
TASKS = 16
MANY = 64
LARGE = b"Subject: large\r\n\r\n" + b"A line, and another one.\r\n" * 20_000


@pytest.fixture(autouse=True)
def nothing_is_known() -> Iterator[None]:
    """Whatever is remembered about a port is forgotten: the next server may get the same one."""
    VERDICTS.forget()
    yield
    VERDICTS.forget()


def people(count: int) -> list[str]:
    return [f"user{number}@to.test" for number in range(count)]


async def cost(smtp: AsyncSMTP, server: RoundTrips, count: int, body: bytes = BODY) -> int:
    """Send one message to so many; returns the round trips it took."""
    before = server.trips
    result = await smtp.sendmail(SENDER, people(count), body)
    assert len(result.accepted) == count
    assert server.messages[-1].recipients == tuple(people(count))
    assert server.messages[-1].content == body
    return server.trips - before


async def shared(smtp: AsyncSMTP, server: RoundTrips, messages: int) -> int:
    """Send many messages by some tasks that share the client; returns the round trips they took."""
    before, numbers = server.trips, iter(range(messages))

    async def some() -> None:
        for number in numbers:
            result = await smtp.sendmail(SENDER, f"{number}@to.test", BODY)
            assert result.accepted == (f"{number}@to.test",)

    await asyncio.gather(*[some() for _ in range(TASKS)])
    assert len(server.messages) == messages
    return server.trips - before


async def bulk(smtp: AsyncSMTP, server: RoundTrips, messages: int) -> int:
    """The same by send_messages."""
    before = server.trips
    envelopes = [Envelope(SENDER, f"{number}@to.test", BODY) for number in range(messages)]
    async for outcome in smtp.send_messages(envelopes):
        assert outcome.delivery is Delivery.ACCEPTED
    assert len(server.messages) == messages
    return server.trips - before


# -- one message ---------------------------------------------------------------------------


@pytest.mark.parametrize("count", COUNTS)
async def test_off_waits_for_each_reply_to_data(count):
    """MAIL, each RCPT, DATA, the content: r + 3."""
    async with RoundTrips() as server:
        async with AsyncSMTP(server.host, server.port, pipelining="off", chunking="off") as smtp:
            assert await cost(smtp, server, count) == count + 3


@pytest.mark.parametrize("count", COUNTS)
async def test_off_with_bdat_saves_the_wait_for_354(count):
    """MAIL, each RCPT, BDAT with the content: r + 2."""
    async with RoundTrips() as server:
        async with AsyncSMTP(server.host, server.port, pipelining="off", chunking="eager") as smtp:
            assert await cost(smtp, server, count) == count + 2


@pytest.mark.parametrize("pipelining", ["message", "stream"])
@pytest.mark.parametrize("count", COUNTS)
async def test_a_server_without_pipelining_is_asked_one_by_one(count, pipelining):
    """Whatever the caller wants."""
    async with RoundTrips(without=["PIPELINING"]) as server:
        async with AsyncSMTP(server.host, server.port, pipelining=pipelining, chunking="off") as smtp:
            assert await cost(smtp, server, count) == count + 3


@pytest.mark.parametrize("chunking", ["off", "auto"])
@pytest.mark.parametrize("count", COUNTS)
async def test_a_message_takes_two(count, chunking):
    """MAIL, every RCPT and DATA; then the content. A single send tries nothing out."""
    async with RoundTrips() as server:
        async with AsyncSMTP(server.host, server.port, chunking=chunking) as smtp:
            assert await cost(smtp, server, count) == 2
            assert await cost(smtp, server, count) == 2
    assert not any(line.startswith("BDAT") for line in server.commands)


@pytest.mark.parametrize("pipelining", ["message", "stream"])
@pytest.mark.parametrize("count", COUNTS)
async def test_one_write_takes_one(count, pipelining):
    """MAIL, every RCPT, BDAT and the content leave at once where the caller vouches for BDAT."""
    async with RoundTrips() as server:
        async with AsyncSMTP(server.host, server.port, pipelining=pipelining, chunking="eager") as smtp:
            assert await cost(smtp, server, count) == 1
            assert await cost(smtp, server, count) == 1
    assert server.messages[-1].chunked


@pytest.mark.parametrize("chunking", ["eager", "auto"])
@pytest.mark.parametrize("pipelining", ["message", "stream"])
async def test_without_chunking_there_is_data(pipelining, chunking):
    """Not offered: not tried, and not used."""
    async with RoundTrips(without=["CHUNKING"]) as server:
        async with AsyncSMTP(server.host, server.port, pipelining=pipelining, chunking=chunking) as smtp:
            assert await cost(smtp, server, 3) == 2


@pytest.mark.parametrize("count", COUNTS)
async def test_large_content_takes_two_by_bdat(count):
    """It waits for somebody to be accepted, and is then one chunk."""
    async with RoundTrips() as server:
        async with AsyncSMTP(server.host, server.port, chunking="eager") as smtp:
            assert await cost(smtp, server, count, LARGE) == 2
    assert f"BDAT {len(LARGE)} LAST" in server.commands
    assert "DATA" not in server.commands


async def test_more_than_a_thousand_commands_take_one_more_for_each_thousand():
    """What is outstanding is bounded (RFC 2920 section 3.1)."""
    async with RoundTrips() as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            assert await cost(smtp, server, 2500) == 4
        async with AsyncSMTP(server.host, server.port, chunking="eager") as smtp:
            assert await cost(smtp, server, 2500) == 4


async def test_all_or_nothing_waits_for_the_recipients():
    """Neither DATA nor the content leaves before all are accepted."""
    async with RoundTrips() as server:
        for chunking, wanted in (("off", 3), ("eager", 2)):
            async with AsyncSMTP(server.host, server.port, chunking=chunking) as smtp:
                before = server.trips
                await smtp.sendmail(SENDER, people(3), BODY, all_or_nothing=True)
                assert server.trips - before == wanted


# -- LMTP ----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize(
    ("pipelining", "chunking", "wanted"),
    [("message", "off", 2), ("message", "eager", 1), ("stream", "eager", 1)],
)
async def test_lmtp_takes_as_many_as_smtp(pipelining, chunking, wanted, count):
    """One reply a recipient, in the same round trip."""
    async with RoundTrips(lmtp=True) as server:
        options = {"pipelining": pipelining, "chunking": chunking}
        async with AsyncLMTP(server.host, server.port, **options) as lmtp:
            assert await cost(lmtp, server, count) == wanted


@pytest.mark.parametrize("count", COUNTS)
async def test_lmtp_off_waits_for_each_reply(count):
    """MAIL, each RCPT, DATA, the content."""
    async with RoundTrips(lmtp=True) as server:
        async with AsyncLMTP(server.host, server.port, pipelining="off", chunking="off") as lmtp:
            assert await cost(lmtp, server, count) == count + 3


# -- many messages -------------------------------------------------------------------------


async def test_the_proof_costs_exactly_one():
    """Tried once for a destination, by whoever sends many; remembered by the next client."""
    async with RoundTrips() as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            assert await bulk(smtp, server, 1) == 1 + 1
            assert await cost(smtp, server, 3) == 1
        async with AsyncSMTP(server.host, server.port) as smtp:
            assert await cost(smtp, server, 3) == 1
    assert server.commands.count("BDAT 8 LAST") == 1


async def test_many_messages_take_one_each_after_the_proof():
    """In `pipelining="message"` each waits for the reply to the one before."""
    async with RoundTrips() as server, AsyncSMTP(server.host, server.port) as smtp:
        assert await bulk(smtp, server, 20) == 1 + 20


async def test_without_pipelining_the_proof_costs_one_too():
    """BDAT is right there as well."""
    async with RoundTrips(without=["PIPELINING"]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            assert await bulk(smtp, server, 3) == 1 + 3 * 3


@pytest.mark.parametrize("send", [shared, bulk])
@pytest.mark.parametrize("lmtp", [False, True])
async def test_in_a_stream_data_takes_one_a_message(send, lmtp):
    """The next message's commands leave right behind the content."""
    kind = AsyncLMTP if lmtp else AsyncSMTP
    async with RoundTrips(lmtp=lmtp) as server:
        async with kind(server.host, server.port, pipelining="stream", chunking="off") as smtp:
            assert await send(smtp, server, MANY) <= MANY + 1


@pytest.mark.parametrize("send", [shared, bulk])
@pytest.mark.parametrize("lmtp", [False, True])
@pytest.mark.parametrize("chunking", ["eager", "auto"])
async def test_in_a_stream_bdat_takes_next_to_none(send, lmtp, chunking):
    """Whole messages leave behind one another, as many as there are tasks."""
    kind = AsyncLMTP if lmtp else AsyncSMTP
    async with RoundTrips(lmtp=lmtp) as server:
        async with kind(server.host, server.port, pipelining="stream", chunking=chunking) as smtp:
            assert await send(smtp, server, MANY) <= MANY // TASKS + 2
    assert server.commands.count("BDAT 8 LAST") == (chunking == "auto")


async def test_a_refused_message_costs_the_others_in_the_stream_nothing():
    """RSET leaves with what comes next."""

    def refusal(message: object) -> str | None:
        return "554 5.6.0 not this one" if "7@to.test" in message.recipients[0] else None  # type: ignore[attr-defined]

    async with RoundTrips(refuse_content=refusal) as server:
        async with AsyncSMTP(server.host, server.port, pipelining="stream", chunking="eager") as smtp:
            before = server.trips
            envelopes = [Envelope(SENDER, f"{number}@to.test", BODY) for number in range(MANY)]
            names = [outcome.delivery.name async for outcome in smtp.send_messages(envelopes, ordered=True)]
            assert server.trips - before <= MANY // TASKS + 2
    assert names == ["REFUSED" if number % 10 == 7 else "ACCEPTED" for number in range(MANY)]
