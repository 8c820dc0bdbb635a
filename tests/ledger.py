"""The ledger: many distinct messages through a pool to a server that fails at random, and the account of it.

The server keeps which message it took, and how often. It closes, resets or says 421 on some of its
connections at a random octet, coming or going; callers are cancelled at random moments. At the end
each message must be in exactly one class, and what the client claims must be what the server has.

Rules of this room:

* One seed, one run, as far as the kernel allows it.
* A million messages need no more memory than a few octets each.
* Nothing here needs pytest: `run` may be called from a script.
"""

from __future__ import annotations

import asyncio
import random
import re
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from witness import Witness

from aiosmtpclient import Delivery, Envelope, Outcome, SMTPPool

MODES: dict[str, dict[str, Any]] = {
    "message": {"pipelining": "message", "chunking": "off"},
    "one write": {"pipelining": "message", "chunking": "eager"},
    "stream, DATA": {"pipelining": "stream", "chunking": "off"},
    "stream, BDAT": {"pipelining": "stream", "chunking": "eager"},
}
"""The ways a message may take."""
By = Literal["tasks", "bulk"]
"""`sendmail` from many tasks, some of them cancelled; or one `send_messages` for all."""

SENDER, TO = "sender@from.test", "to@to.test"
FAULTS = ("close", "reset", "421")
REFUSED = {17: b"550 5.1.1 no such user\r\n", 18: b"554 5.7.1 no\r\n", 19: b"451 4.3.0 not now\r\n"}
"""Of each hundred messages these are refused: the first at RCPT, the others at the end of the content."""
ANSWERS = (b"250 2.0.0 queued", REFUSED[18], REFUSED[19])
"""What is said to a content, and to nothing else."""
ANSWERS_TO_BDAT = (*ANSWERS, b"503 5.5.1 no recipients")
"""A chunk leaves also when nobody is to get it, and is answered; DATA would have been refused."""
_ID = re.compile(rb"Subject: (\d+)")


class Figures(NamedTuple):
    """What came of a run.

    Attributes:
        messages: how many there were.
        accepted: the client says that the server has it. So with the other classes.
        lost: accepted, and the server does not have it.
        duplicated: the server has it more than once.
        stray: refused or not sent, and the server has it.
        unexplained: unknown, though its end had not left, or though a reply to it was read; or
            accepted without one. See `witness`.
        unclassified: in no class, or in two.
        cancelled: callers that were cancelled.
        connections: how many the server saw.
        cut: how many of them it cut.
        most_at_once: how many were open at the same time.
        retried: further attempts.
        seconds: how long it took.
    """

    messages: int
    accepted: int
    refused: int
    not_sent: int
    unknown: int
    lost: int
    duplicated: int
    stray: int
    unexplained: int
    unclassified: int
    cancelled: int
    connections: int
    cut: int
    most_at_once: int
    retried: int
    seconds: float

    @property
    def right(self) -> bool:
        """True if every claim of the client is true."""
        return not (self.lost or self.duplicated or self.stray or self.unexplained or self.unclassified)


class FailingServer:
    """Takes mail, notes which, and cuts some of its connections.

    Args:
        messages: numbers of messages are below this.
        chance: decides everything that is left to chance.
        faults: which part of the connections is cut.
    """

    def __init__(self, messages: int, chance: random.Random, faults: float) -> None:
        self.taken = bytearray(messages)
        self.chance = chance
        self.faults = faults
        self.connections = self.cut = self.open = self.most_at_once = 0
        self._all: set[_Connection] = set()

    async def __aenter__(self) -> FailingServer:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", 0, backlog=1000)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for connection in list(self._all):
            connection.transport.abort()
        while self._all:
            await asyncio.sleep(0)
        await self._server.wait_closed()


class _Connection(asyncio.Protocol):
    """One connection of the failing server: a state machine over a buffer."""

    transport: asyncio.Transport

    def __init__(self, owner: FailingServer) -> None:
        self._owner = owner
        self._buffer = bytearray()
        self._content = False
        self._chunk: int | None = None
        self._recipients = 0
        self._over = False
        chance = owner.chance
        doomed = chance.random() < owner.faults
        self._fault = chance.choice(FAULTS) if doomed else ""
        # A connection carries a few messages of some 200 octets, and says some 100 to each.
        self._until_read = chance.randrange(1, 3000) if doomed and chance.random() < 0.6 else None
        self._until_said = chance.randrange(1, 1500) if doomed and self._until_read is None else None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # uvloop's are no subclasses
        owner = self._owner
        owner._all.add(self)
        owner.connections += 1
        owner.open += 1
        owner.most_at_once = max(owner.most_at_once, owner.open)
        self._say(b"220 ledger ESMTP\r\n")

    def connection_lost(self, error: Exception | None) -> None:
        self._owner._all.discard(self)
        self._owner.open -= 1

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        cut = False
        if self._until_read is not None:
            cut = len(data) >= self._until_read
            data = data[: self._until_read]
            self._until_read -= len(data)
        self._buffer += data
        replies: list[bytes] = []
        while (reply := self._next()) is not None:
            replies.append(reply)
        self._say(b"".join(replies))
        if cut and not self._over:
            self._cut()

    def _say(self, octets: bytes) -> None:
        if self._until_said is not None and len(octets) >= self._until_said:
            if self._fault != "421":  # a 421 comes behind whole replies
                octets = octets[: self._until_said]
            self.transport.write(octets)
            self._cut()
            return
        if self._until_said is not None:
            self._until_said -= len(octets)
        if octets:
            self.transport.write(octets)

    def _cut(self) -> None:
        self._over = True
        self._owner.cut += 1
        if self._fault == "421":
            self.transport.write(b"421 4.3.2 going down\r\n")
        if self._fault == "reset":
            linger = struct.pack("ii", 1, 0)
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.transport.abort()
        else:
            self.transport.close()

    def _next(self) -> bytes | None:
        buffer = self._buffer
        if self._chunk is not None:
            if len(buffer) < self._chunk:
                return None
            octets, self._chunk, size = bytes(buffer[: self._chunk]), None, self._chunk
            del buffer[:size]
            return self._take(octets) if self._recipients else b"503 5.5.1 no recipients\r\n"
        if self._content:
            end = buffer.find(b"\r\n.\r\n")
            if end < 0:
                return None
            octets = bytes(buffer[:end])
            del buffer[: end + 5]
            self._content = False
            return self._take(octets)
        end = buffer.find(b"\r\n")
        if end < 0:
            return None
        line = bytes(buffer[:end])
        del buffer[: end + 2]
        return self._answer(line)

    def _answer(self, line: bytes) -> bytes:
        verb = line[:4].upper()
        if verb == b"EHLO":
            return b"250-ledger\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 CHUNKING\r\n"
        if verb in (b"MAIL", b"RSET"):
            self._recipients = 0
        elif verb == b"RCPT":
            if b"<refused" in line:
                return REFUSED[17]
            self._recipients += 1
        elif verb == b"DATA":
            if not self._recipients:
                return b"503 5.5.1 no recipients\r\n"
            self._content = True
            return b"354 go\r\n"
        elif verb == b"BDAT":
            self._chunk = int(line.split()[1])
            return b""
        elif verb == b"QUIT":
            return b"221 bye\r\n"
        return b"250 ok\r\n"

    def _take(self, octets: bytes) -> bytes:
        self._recipients = 0
        found = _ID.match(octets)
        assert found is not None, octets
        number = int(found[1])
        if number % 100 in REFUSED:
            return REFUSED[number % 100]
        self._owner.taken[number] = min(255, self._owner.taken[number] + 1)
        return b"250 2.0.0 queued\r\n"


CLASSES = list(Delivery)


class _Account:
    """Who said what of which message."""

    def __init__(self, messages: int, witness: Witness) -> None:
        self.classes = bytearray(messages)
        self.witness = witness
        self.twice = self.cancelled = self.unexplained = 0

    def note(self, number: int, delivery: Delivery | None) -> None:
        if self.classes[number]:
            self.twice += 1
        if delivery is not None:
            self.classes[number] = 1 + CLASSES.index(delivery)
        if delivery is Delivery.ACCEPTED:
            self.unexplained += not self.witness.confirms_a_reply(number)
        elif delivery is Delivery.UNKNOWN:
            self.unexplained += not self.witness.confirms_unknown(number)


def envelope(number: int) -> Envelope:
    """The message with this number."""
    to = "refused@to.test" if number % 100 == 17 else TO
    body = b"x" * (number * 7919 % 400)
    return Envelope(SENDER, to, b"Subject: %d\r\n\r\n.dot\r\n%s\r\n" % (number, body))


async def _by_tasks(
    pool: SMTPPool, account: _Account, numbers: Iterator[int], chance: random.Random, cancels: float
) -> None:
    async def one(number: int) -> None:
        message = envelope(number)
        try:
            await pool.sendmail(message.sender, message.recipients, message.content)
        except BaseException as error:
            account.note(number, getattr(error, "delivery", None))
        else:
            account.note(number, Delivery.ACCEPTED)

    async def worker() -> None:
        loop = asyncio.get_running_loop()
        for number in numbers:
            if chance.random() >= cancels:
                await one(number)
                continue
            account.cancelled += 1
            task = loop.create_task(one(number))
            await asyncio.sleep(0)
            loop.call_later(chance.random() * 0.005, task.cancel)
            await asyncio.wait([task])

    limits = pool._limits
    async with asyncio.TaskGroup() as group:
        for _ in range(2 * limits.connections * limits.depth):
            group.create_task(worker())


class _Journal:
    """Notes what is begun and not ended."""

    def __init__(self) -> None:
        self.under_way: set[int] = set()

    def begin(self, index: int, message: object) -> None:
        self.under_way.add(index)

    def end(self, outcome: Outcome) -> None:
        self.under_way.discard(outcome.index)


async def _in_bulk(pool: SMTPPool, account: _Account, numbers: Iterator[int]) -> None:
    journal = _Journal()
    run = pool.send_messages((envelope(number) for number in numbers), journal=journal)
    async for outcome in run:
        account.note(outcome.index, outcome.delivery)
    assert not journal.under_way, journal.under_way


async def sail(
    messages: int,
    mode: str,
    seed: int,
    *,
    by: By = "tasks",
    connections: int = 8,
    max_messages: int = 10,
    faults: float = 0.01,
    cancels: float = 0.001,
    **options: Any,
) -> Figures:
    """Send so many messages, and take stock. For use in a loop that runs; see `run`."""
    chance = random.Random(seed)
    bdat = MODES[mode]["chunking"] == "eager"
    witness = Witness(messages, ANSWERS_TO_BDAT if bdat else ANSWERS, bdat=bdat)
    account = _Account(messages, witness)
    options = {"max_connections": connections, "max_messages": max_messages, **MODES[mode], **options}
    with witness.watching():
        async with FailingServer(messages, chance, faults) as server:
            begun = time.perf_counter()
            retried = await _send(messages, server, account, chance, by, cancels, options)
            return _figures(messages, account, server, retried, time.perf_counter() - begun)


async def _send(
    messages: int,
    server: FailingServer,
    account: _Account,
    chance: random.Random,
    by: By,
    cancels: float,
    options: dict[str, Any],
) -> int:
    """Send them all, and wait until the server has read all that left; returns the further attempts."""
    options = {"retries": 5, "acquire_timeout": None, "timeout": 30, **options}
    async with SMTPPool("127.0.0.1", server.port, local_hostname="client.test", **options) as pool:
        numbers = iter(range(messages))
        if by == "tasks":
            await _by_tasks(pool, account, numbers, chance, cancels)
        else:
            await _in_bulk(pool, account, numbers)
        retried = pool.stats().retried
    for _ in range(1000):
        if not server.open:
            break
        await asyncio.sleep(0.001)
    return retried


def _figures(
    messages: int, account: _Account, server: FailingServer, retried: int, seconds: float
) -> Figures:
    classes = Counter(account.classes)
    of = {delivery: 1 + place for place, delivery in enumerate(CLASSES)}
    untrue = (of[Delivery.REFUSED], of[Delivery.NOT_SENT])
    lost = sum(not server.taken[n] for n, c in enumerate(account.classes) if c == of[Delivery.ACCEPTED])
    stray = sum(server.taken[n] > 0 for n, c in enumerate(account.classes) if c in untrue)
    return Figures(
        messages,
        *(classes[of[delivery]] for delivery in CLASSES),
        lost=lost,
        duplicated=sum(count > 1 for count in server.taken),
        stray=stray,
        unexplained=account.unexplained,
        unclassified=classes[0] + account.twice,
        cancelled=account.cancelled,
        connections=server.connections,
        cut=server.cut,
        most_at_once=server.most_at_once,
        retried=retried,
        seconds=seconds,
    )


def run(messages: int, mode: str, seed: int = 0, **options: Any) -> Figures:
    """Send so many messages in a loop of its own, and take stock.

    Args:
        messages: how many.
        mode: one of `MODES`.
        seed: another one, another run.
        options: those of `sail`: by, connections, max_messages, faults, cancels; and every other
            option of the pool.
    """
    return asyncio.run(sail(messages, mode, seed, **options))
