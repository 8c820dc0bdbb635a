"""What is wished for: for each goal a work, a way, and the ratio that it should reach.

A goal is no result. The report sets what was measured beside it, and says which were missed.
"""

from __future__ import annotations

from dataclasses import dataclass

from .works import SOURCE, Contender


@dataclass(frozen=True, slots=True)
class Goal:
    """At least so many times as fast as another client in the same round.

    Attributes:
        title: what is asked for, in words.
        work: the key of the work.
        contender: who should reach it.
        at_least: the ratio; with `at_most`, nothing.
        at_most: a value in this unit, that of the work, instead of a ratio.
        against: the other client; left out, aiosmtplib on the same loop.
    """

    title: str
    work: str
    contender: Contender
    at_least: float = 0.0
    at_most: float = 0.0
    against: Contender | None = None
    unit: str = "ms"


def _both(title: str, work: str, way: str, stock: float, uvloop: float) -> tuple[Goal, ...]:
    return (
        Goal(title, work, Contender("aiosmtpclient", way, "asyncio"), stock),
        Goal(title, work, Contender("aiosmtpclient", way, "uvloop"), uvloop),
    )


def _stock(title: str, work: str, way: str, ratio: float) -> tuple[Goal, ...]:
    return _both(title, work, way, ratio, ratio)[:1]


def _than_source(way: str) -> tuple[Goal, ...]:
    title = "1 KiB, against smtp-source, in C"
    return tuple(
        Goal(title, "small", Contender("aiosmtpclient", way, loop), 1.0, against=SOURCE)
        for loop in ("asyncio", "uvloop")
    )


GOALS = (
    *_both("1 KiB, one at a time", "small", "message", 5.5, 4.5),
    *_both("1 KiB, `send_messages`, one write", "small", "one-write-many", 10, 8),
    *_both("1 KiB, stream, DATA, 16 in flight", "small", "stream-data-tasks", 11, 8),
    *_both("1 KiB, stream, BDAT, 16 in flight", "small", "stream-bdat-tasks", 22, 18),
    *_both("50 recipients", "recipients-50", "message", 40, 25),
    *_both("50 recipients, stream, BDAT", "recipients-50", "stream-bdat-tasks", 65, 45),
    *_both("10 MiB, DATA", "bulk", "message", 13, 13),
    *_both("10 MiB, BDAT", "bulk", "one-write", 25, 25),
    *_both("attachment of 10 MiB, DATA", "attachment", "message", 9, 9),
    *_both("attachment of 10 MiB, BDAT", "attachment", "one-write", 20, 20),
    *_both("`EmailMessage`, text, 1 kB", "text", "message", 3, 3),
    *(
        goal
        for rtt in (20, 100)
        for goal in (
            *_stock(f"round trip of {rtt} ms", f"rtt-{rtt}", "message", 1.9),
            *_stock(f"round trip of {rtt} ms, one write", f"rtt-{rtt}", "one-write", 3.7),
            *_stock(f"round trip of {rtt} ms, stream, BDAT", f"rtt-{rtt}", "stream-bdat-tasks", 50),
        )
    ),
    *_both("connect, EHLO, QUIT", "connect", "message", 1.4, 1.7),
    *_both("10 connections", "pool-10", "message-pool", 4.5, 4.5),
    *_both("10 connections, one write", "pool-10", "one-write-pool", 7, 6.5),
    *_both("50 connections", "pool-50", "message-pool", 6, 6),
    *_both("50 connections, one write", "pool-50", "one-write-pool", 9, 8),
    *(
        goal
        for connections in (10, 50)
        for goal in (
            *_stock(
                f"{connections} connections, round trip of 20 ms",
                f"pool-{connections}-rtt-20",
                "message-pool",
                1.9,
            ),
            *_stock(
                f"{connections} connections, round trip of 20 ms, one write",
                f"pool-{connections}-rtt-20",
                "one-write-pool",
                3.7,
            ),
        )
    ),
    *_than_source("stream-bdat-tasks"),
    Goal(
        "borrow an idle connection, and give it back",
        "pool-borrow",
        Contender("aiosmtpclient", "message-pool", "asyncio"),
        at_most=10,
        unit="µs",
    ),
    Goal(
        "memory of an idle connection",
        "idle",
        Contender("aiosmtpclient", "message-pool", "asyncio"),
        at_most=5,
        unit="KiB",
    ),
    Goal("import over `import asyncio`", "import", Contender("aiosmtpclient"), at_most=15),
)
