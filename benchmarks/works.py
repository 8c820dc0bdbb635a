"""What is measured: each work, and the contenders that do it.

Rules of this room:

* A contender is one client, asked in one way, on one loop. All contenders of a work do the same
  work: the same envelopes, the same octets, the same number of connections.
* `core` is what a quick run measures; a full run measures `extra` too, and more rounds.
"""

from __future__ import annotations

from dataclasses import dataclass

from .drivers.job import IN_FLIGHT, Kind, Style

KIB, MIB = 1 << 10, 1 << 20
LOOPS = ("asyncio", "uvloop")

# Way → what it means, for the report.
WAYS = {
    "": "one command a round trip",
    "off": '`pipelining="off"`',
    "message": '`pipelining="message"`, DATA',
    "message-many": '`pipelining="message"`, `send_messages`',
    "auto-many": '`chunking="auto"`, `send_messages`',
    "one-write": "one write with BDAT",
    "one-write-many": "one write with BDAT, `send_messages`",
    "stream-data-tasks": f"stream, DATA, {IN_FLIGHT} tasks",
    "stream-bdat-tasks": f"stream, BDAT, {IN_FLIGHT} tasks",
    "message-pool": '`SMTPPool`, `pipelining="message"`',
    "one-write-pool": "`SMTPPool`, one write with BDAT",
    "stream-data-many": "stream, DATA, `send_messages`",
    "stream-bdat-many": "stream, BDAT, `send_messages`",
}
LIMIT_WAYS = {
    "message": "envelope and DATA in one write, then the content",
    "one-write": "one write with BDAT",
    "stream-data": "next envelope behind this content",
    "stream-bdat": f"{IN_FLIGHT} messages in one write with BDAT",
    "parallel": f"{IN_FLIGHT} at a time",
}


@dataclass(frozen=True, slots=True)
class Contender:
    """One client, asked in one way, on one loop; "" for a client that has none."""

    client: str
    way: str = ""
    loop: str = ""

    @property
    def key(self) -> str:
        """A name for it in JSON."""
        return " ".join(word for word in (self.client, self.way, self.loop) if word)

    @property
    def how(self) -> str:
        """The way, in words."""
        return LIMIT_WAYS[self.way] if self.client == "limit" else WAYS[self.way]

    @property
    def peer(self) -> Contender:
        """Whom it is compared with: aiosmtplib on the same loop."""
        return Contender("aiosmtplib", loop=self.loop or "asyncio")


def _ours(*ways: str, loops: tuple[str, ...] = LOOPS) -> tuple[Contender, ...]:
    return tuple(Contender("aiosmtpclient", way, loop) for way in ways for loop in loops)


def _limit(*ways: str, loops: tuple[str, ...] = LOOPS) -> tuple[Contender, ...]:
    return tuple(Contender("limit", way, loop) for way in ways for loop in loops)


STDLIB = Contender("smtplib")
SOURCE = Contender("smtp-source")
PEER, PEER_UV = (Contender("aiosmtplib", loop=loop) for loop in LOOPS)
STOCK = ("asyncio",)
UV = ("uvloop",)
# Contenders of the works that are the points of a plot.
LINE = (STDLIB, PEER, *_ours("message", "one-write", "stream-bdat-tasks", loops=STOCK))


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One work.

    Attributes:
        key: its name on the command line.
        title: what is done, in words.
        unit: of the values in the report.
        core: who does it in any run.
        extra: who does it only in a full run.
        rtt: round trip of the line in milliseconds, 0 for bare loopback.
        sink: "sink" is ours; "smtp-sink" is Postfix's, which counts nothing for us.
        rounds: how often each contender is run, in a full run.
        seconds: how long each run measures, in a full run.
        count: messages sent to count round trips, more in stream; 0 to take them from the work
            `counted_as`.
        hold: milliseconds of silence that end a turn while round trips are counted.
        plots: the plots that it is a point of.
        connections: at a time. A client without a pool has a task for each, which sends one
            message after the other.
    """

    key: str
    title: str
    core: tuple[Contender, ...]
    kind: Kind = "send"
    unit: str = "messages/s"
    extra: tuple[Contender, ...] = ()
    size: int = KIB
    recipients: int = 1
    style: Style = "bytes"
    rtt: float = 0
    sink: str = "sink"
    rounds: int = 3
    seconds: float = 0.3
    count: int = 0
    counted_as: str = ""
    hold: int = 6
    plots: tuple[str, ...] = ()
    connections: int = 1

    def how(self, contender: Contender) -> str:
        """How this contender does it, in words; "" where there is but one way."""
        if self.kind in ("idle", "borrow") and contender.way.endswith("-pool"):
            return "`SMTPPool`"
        if self.kind in ("connect", "idle", "import") and contender.way != "parallel":
            return ""
        return contender.how

    @property
    def lower_is_better(self) -> bool:
        """True for times and memory."""
        return self.unit in ("ms", "µs", "MiB", "KiB")


_MAIN = (
    Work(
        key="small",
        title="1 KiB of bytes, 1 recipient",
        core=(
            STDLIB,
            PEER,
            PEER_UV,
            SOURCE,
            *_ours("message", "one-write-many", "stream-data-tasks", "stream-bdat-tasks"),
            *_ours("one-write", loops=STOCK),
            *_limit("message", "stream-bdat", loops=STOCK),
        ),
        extra=(
            *_ours("stream-data-many", "stream-bdat-many"),
            *_ours("off", "message-many", "auto-many", loops=STOCK),
            *_ours("one-write", loops=UV),
            *_limit("one-write"),
            *_limit("message", "stream-bdat", loops=UV),
            *_limit("stream-data", loops=STOCK),
        ),
        count=12,
        plots=("rtt", "size", "recipients"),
    ),
    Work(
        key="recipients-50",
        title="1 KiB of bytes, 50 recipients",
        core=(
            STDLIB,
            PEER,
            PEER_UV,
            *_ours("message", "stream-bdat-tasks"),
            *_ours("one-write", loops=STOCK),
            *_limit("message", "stream-bdat", loops=STOCK),
        ),
        extra=(SOURCE, *_limit("message", "stream-bdat", loops=UV)),
        recipients=50,
        count=4,
        hold=5,
        plots=("recipients",),
    ),
    Work(
        key="bulk",
        title="10 MiB of bytes, 1 recipient",
        core=(STDLIB, PEER, *_ours("message", "one-write", loops=STOCK), *_limit("one-write", loops=STOCK)),
        extra=(
            PEER_UV,
            *_ours("message", "one-write", loops=UV),
            *_ours("stream-bdat-tasks", loops=STOCK),
            *_limit("one-write", loops=UV),
            *_limit("message"),
        ),
        unit="MB/s",
        size=10 * MIB,
        count=1,
        hold=150,
        plots=("size",),
    ),
    Work(
        key="attachment",
        title="`EmailMessage` with an attachment of 10 MiB, end to end",
        core=(PEER, *_ours("message", "one-write", loops=STOCK)),
        extra=(STDLIB, PEER_UV, *_ours("message", "one-write", loops=UV)),
        unit="MB/s",
        size=10 * MIB,
        style="attachment",
        rounds=2,
        counted_as="bulk",
    ),
    Work(
        key="text",
        title="`EmailMessage` of plain text, 1 kB, 1 recipient",
        core=(STDLIB, PEER, *_ours("message", loops=STOCK)),
        extra=(PEER_UV, *_ours("message", loops=UV), *_ours("one-write-many")),
        style="text",
        size=1000,
        rounds=2,
        counted_as="small",
    ),
    Work(
        key="connect",
        title="connect, EHLO, QUIT",
        kind="connect",
        core=(
            STDLIB,
            PEER,
            PEER_UV,
            *_ours("message"),
            *_limit("message", loops=STOCK),
            *_limit("parallel", loops=UV),
        ),
        extra=_limit("message", loops=UV),
        unit="connections/s",
    ),
)

_FAR = tuple(
    Work(
        key=f"rtt-{rtt}",
        title=f"1 KiB of bytes, 1 recipient, over a line with a round trip of {rtt} ms",
        core=LINE if rtt in (20, 100) else (),
        extra=_ours("stream-data-tasks", loops=STOCK) if rtt in (20, 100) else LINE,
        rtt=rtt,
        rounds=1,
        seconds=0.8 if rtt < 100 else 1.2,
        counted_as="small",
        plots=("rtt",),
    )
    for rtt in (5, 20, 50, 100)
)

_SIZES = tuple(
    Work(
        key=f"size-{name.replace(' ', '-')}",
        title=f"{name} of bytes, 1 recipient",
        core=(),
        extra=(*LINE, *_limit("one-write", loops=STOCK)),
        unit="MB/s",
        size=size,
        rounds=1,
        counted_as="small",
        plots=("size",),
    )
    for name, size in (("10 KiB", 10 * KIB), ("100 KiB", 100 * KIB), ("1 MiB", MIB))
)

_RECIPIENTS = tuple(
    Work(
        key=f"recipients-{count}",
        title=f"1 KiB of bytes, {count} recipients",
        core=(),
        extra=LINE,
        recipients=count,
        rounds=1,
        plots=("recipients",),
    )
    for count in (3, 10, 200)
)

_STALLS: tuple[tuple[Style, str], ...] = (("bytes", "bytes"), ("attachment", "an attachment"))

# The same number of connections on both sides. Round trips are counted with ten of them.
_POOL = (
    Work(
        key="pool-10",
        title="1 KiB of bytes, 1 recipient, over 10 connections",
        core=(PEER, *_ours("message-pool", "one-write-pool", loops=STOCK)),
        extra=(
            PEER_UV,
            *_ours("message-pool", "one-write-pool", loops=UV),
            *_limit("message", "one-write", "stream-bdat", loops=STOCK),
        ),
        connections=10,
        count=3,
    ),
    Work(
        key="pool-50",
        title="1 KiB of bytes, 1 recipient, over 50 connections",
        core=(),
        extra=(
            PEER,
            PEER_UV,
            *_ours("message-pool", "one-write-pool"),
            *_limit("message", "one-write", "stream-bdat", loops=STOCK),
        ),
        connections=50,
        counted_as="pool-10",
    ),
    *(
        Work(
            key=f"pool-{connections}-rtt-20",
            title=f"1 KiB of bytes, 1 recipient, {connections} connections with a round trip of 20 ms",
            core=(),
            extra=(PEER, *_ours("message-pool", "one-write-pool", loops=STOCK)),
            rtt=20,
            rounds=2,
            seconds=0.8,
            connections=connections,
            counted_as="pool-10",
        )
        for connections in (10, 50)
    ),
    Work(
        key="pool-borrow",
        title="borrow an idle connection from a pool and give it back",
        kind="borrow",
        core=_ours("message-pool", loops=STOCK),
        extra=_ours("message-pool", loops=UV),
        unit="µs",
        connections=10,
    ),
)

_REST = (
    Work(
        key="smtp-sink",
        title="1 KiB of bytes, 1 recipient, to Postfix's smtp-sink",
        core=(),
        extra=(STDLIB, PEER, PEER_UV, SOURCE, *_ours("message", "stream-data-tasks")),
        sink="smtp-sink",
        rounds=2,
        counted_as="small",
    ),
    Work(
        key="memory",
        title="extra memory for one message of 50 MiB",
        kind="memory",
        core=(STDLIB, PEER, *_ours("message", "one-write", loops=STOCK)),
        extra=(PEER_UV, *_ours("message", loops=UV)),
        unit="MiB",
        size=50 * MIB,
        rounds=2,
        counted_as="bulk",
        plots=("memory",),
    ),
    Work(
        key="memory-file",
        title="extra memory for a file of 100 MiB (who cannot stream it reads it whole)",
        kind="file",
        core=(),
        extra=(STDLIB, PEER, *_ours("message", "one-write", loops=STOCK)),
        unit="MiB",
        size=100 * MIB,
        rounds=1,
        plots=("memory",),
    ),
    *(
        Work(
            key=f"stall-{style}",
            title=f"longest stall of the loop while 25 MiB are sent as {what}",
            kind="stall",
            core=(),
            extra=(PEER, PEER_UV, *_ours("message")),
            unit="ms",
            size=25 * MIB,
            style=style,
            rounds=1,
        )
        for style, what in _STALLS
    ),
    Work(
        key="idle",
        title="memory of an idle connection, one of 10,000",
        kind="idle",
        core=(PEER, *_ours("message-pool", loops=STOCK)),
        extra=(*_ours("message", loops=STOCK), *_ours("message-pool", loops=UV)),
        unit="KiB",
        rounds=1,
        connections=10_000,
    ),
    Work(
        key="import",
        title="import, over `import asyncio` alone",
        kind="import",
        core=tuple(Contender(name) for name in ("aiosmtpclient", "aiosmtplib", "smtplib")),
        unit="ms",
    ),
)

WORKS = (*_MAIN, *_POOL, *_FAR, *_SIZES, *_RECIPIENTS, *_REST)
