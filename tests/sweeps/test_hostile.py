"""Hostile replies: whatever a server says, there is an error of ours, in time, printable, and no heap.

At each place of the first message's conversation the server says something without end, or
something that is hard to show. Measured: what is held of a reply that is not complete, how long
after the reply was due the error came, and that each line which a user may read, in the error or
in the log, is printable.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from aiosmtpclient import AsyncSMTP, SMTPException, SMTPTimeoutError
from aiosmtpclient.protocol import SMTPProtocol
from aiosmtpclient.replies import MAX_REPLY

from .behaviours import ENDLESS, IDLE, MALFORMED, ODD, Behaviour
from .clock import VirtualLoop
from .figures import Figures, sample
from .judge import PATIENCE, Judgement, Problem
from .post import Network, Post
from .scenarios import SCENARIOS, TIMEOUTS, Scenario
from .trial import Played, Trial

HELD = 64 * 1024
"""Octets of an unfinished reply that a connection may hold."""
SMALL = [one for one in SCENARIOS if one.size == "small" and one.recipients == 3 and not one.many]
each_scenario = pytest.mark.parametrize("scenario", SMALL, ids=str)


class _Shown(logging.Handler):
    """Lines of the log that must not be shown to anybody."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.bad: list[str] = []
        self.seen = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.seen += 1
        text = record.getMessage()
        if not text.isprintable():
            self.bad.append(repr(text[:100]))


@pytest.fixture
def shown(nobody_looks_on: None) -> Iterator[_Shown]:
    """What is logged at DEBUG, everything."""
    logger, handler = logging.getLogger("aiosmtpclient.session"), _Shown()
    level, propagates = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)
    logger.propagate = propagates


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The most octets of an unfinished reply that a connection held, after each read."""
    most = [0]
    read = SMTPProtocol.data_received

    def data_received(self: SMTPProtocol, data: bytes) -> None:
        read(self, data)
        parser = self.session._parser
        most[0] = max(most[0], len(parser._buffer) + len(parser._text))

    monkeypatch.setattr(SMTPProtocol, "data_received", data_received)
    return most


def errors_of(played: Played) -> list[BaseException]:
    told = [one.error for one in played.told.values() if one.error is not None]
    return [*played.opening, *told]


def look(figures: Figures, played: Played, trial: Trial) -> None:
    """What the judge does not look at."""
    problems = [
        Problem("foreign", f"not printable: {str(error)[:100]!r}")
        for error in errors_of(played)
        if not str(error).isprintable() or len(str(error)) > HELD
    ]
    due = played.post.connections[0].placed if played.post.connections else 0.0
    times = [(told.at, told.error) for told in played.told.values() if told.error is not None]
    if played.opening:
        times.append((played.opened, played.opening[0]))
    first = min((time for time in times if time[0] >= due), key=lambda time: time[0], default=None)
    if first is not None:
        slot = played.post.connections[0].slots[trial.place]
        waited_for = getattr(first[1], "phase", "")
        most = (
            TIMEOUTS.final if "end of content" in (slot.verb + " of content", waited_for) else TIMEOUTS.reply
        )
        if slot.message == 0 and slot.verb in ("end", "RSET"):
            most = 10.0  # the trial of CHUNKING has its own
        if first[0] - due > (most or 0.0) + PATIENCE:
            problems.append(Problem("late", f"{first[0] - due:g} s after it was due: {first[1]!r}"))
    if problems:
        figures.counts["trials"] -= 1
        figures.note(trial, Judgement(problems, 0))


def sweep(figures: Figures, scenario: Scenario, behaviours: list[Behaviour], share: int) -> None:
    replies = figures.run(Trial(scenario)).marks[2]
    for behaviour in sample(behaviours, 4, scenario):
        for place in sample(range(replies), share, (scenario, behaviour.name)):
            trial = Trial(scenario, behaviour=behaviour.name, place=place)
            look(figures, figures.run(trial), trial)


@pytest.mark.timeout(1800)
@each_scenario
def test_what_never_ends_is_left_in_time_and_not_kept(
    scenario: Scenario, held: list[int], record_property
) -> None:
    figures = Figures("hostile")
    sweep(figures, scenario, ENDLESS, 20)
    figures.settle(record_property)
    assert 0 < held[0] <= HELD


@pytest.mark.timeout(1800)
@each_scenario
def test_what_cannot_be_shown_is_not_shown(scenario: Scenario, shown: _Shown, record_property) -> None:
    figures = Figures("hostile")
    sweep(figures, scenario, [*MALFORMED, *ODD], 20)
    figures.settle(record_property)
    assert shown.seen
    assert not shown.bad


@each_scenario
def test_octets_nobody_asked_for_are_not_kept(
    scenario: Scenario, held: list[int], shown: _Shown, record_property
) -> None:
    figures = Figures("hostile")
    for idle in sample(IDLE, 4, scenario):
        trial = Trial(scenario, idle=idle, behind=3)
        played = figures.run(trial)
        assert all(str(error).isprintable() for error in errors_of(played))
    figures.settle(record_property)
    assert held[0] <= HELD
    assert not shown.bad


# What EHLO may say

KEYWORDS = {
    "500 keywords": [f"X-NUMBER-{number} {'y' * 60}" for number in range(500)],
    "500 times PIPELINING": ["PIPELINING"] * 500,
    "junk SIZE": ["PIPELINING", "SIZE", "SIZE -1", "SIZE 0x10", "SIZE 9" + "9" * 400, "SIZE ten", "SIZE 1e9"],
    "junk LIMITS": [
        "PIPELINING",
        "LIMITS",
        "LIMITS =",
        "LIMITS RCPTMAX=-1 MAILMAX=x",
        "LIMITS RCPTMAX=" + "9" * 99,
    ],
    "junk AUTH": ["AUTH", "AUTH=", "AUTH " + "A" * 300, "AUTH \x1b[2J LOGIN", "AUTH=LOGIN PLAIN"],
    "controls": ["\x1b[2J", "PIPELINING\x00", "\x7f", "CHUNKING\tx", "8BITMIME\r", "é" * 20],
    "nothing": ["", " ", "-", "250 250"],
}


@pytest.mark.parametrize("keywords", KEYWORDS)
@pytest.mark.parametrize("scenario", [SMALL[2], SMALL[-1]], ids=str)
def test_whatever_ehlo_offers_the_message_goes_through(
    scenario: Scenario, keywords: str, shown: _Shown
) -> None:
    loop = VirtualLoop()
    try:
        post = Post({1: scenario.content(1)}, lmtp=scenario.lmtp, offers=KEYWORDS[keywords])
        loop.network = Network(loop, post)
        loop.run_until_complete(_one_message(scenario.client(), scenario))
        assert post.taken[1, "ann"] == 1
        assert not post.wrong
        assert not shown.bad
    finally:
        loop.close()


async def _one_message(smtp: AsyncSMTP, scenario: Scenario) -> None:
    async with smtp:
        envelope = scenario.envelope(1)
        await smtp.sendmail(envelope.sender, envelope.recipients, envelope.content)


@pytest.mark.parametrize("chunking", ["off", "eager"])
def test_a_server_that_reads_nothing_holds_up_no_more_than_the_buffers_hold(chunking: str) -> None:
    """Megabytes of content, of which the server reads not one."""
    loop = VirtualLoop()
    post = Post({}, offers=["PIPELINING", "CHUNKING"])
    network = loop.network = Network(loop, post)
    most = 0

    async def body() -> object:
        nonlocal most
        for _ in range(100):
            yield b"x" * 65534 + b"\r\n"
            most = max(most, post.connections[0].line.end.get_write_buffer_size())

    async def run() -> SMTPException:
        smtp = AsyncSMTP("127.0.0.1", 25, tls="none", timeout=TIMEOUTS, chunking=chunking)  # type: ignore[arg-type]
        await smtp.connect()
        started = loop.time()
        post.connections[0].line.window = 500  # and then no more
        with pytest.raises(SMTPTimeoutError) as caught:
            await smtp.sendmail("a@m1.test", ["ann@m1.test"], body())  # type: ignore[arg-type]
        assert loop.time() - started <= (TIMEOUTS.write or 0.0) + PATIENCE
        return caught.value

    try:
        post.connections = []
        network.acts, network.place = (), -1
        original = network.connect

        def connect(factory: object) -> tuple[object, object]:
            made = original(factory)
            line = post.connections[0].line
            read = line.reader

            def stop_at_content(octets: bytes) -> None:
                read(octets)
                if b"RCPT" in octets:
                    line.state = "deaf"

            line.reader = stop_at_content
            return made

        network.connect = connect  # type: ignore[method-assign]
        error = loop.run_until_complete(run())
        assert error.phase == "content"
        assert 0 < most <= 64 * 1024 + 64 * 1024
    finally:
        loop.close()


def test_the_cap_on_a_reply_is_what_is_held() -> None:
    assert MAX_REPLY <= HELD
