"""A client that lives in a pool: it is opened, lent, looked at and closed by the pool.

Rules of this room:

* A connection that was lost is not made anew here. The pool has to know, for it counts them.
* Whether a parked connection is still there is seen without a round trip: what the server said
  meanwhile, or its close, has arrived, though the event loop may not have read it yet.
* Who borrowed a connection may have logged in, or changed what it is, by hand. Nobody else gets
  such a one.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Self, cast

from . import opening
from .client import AsyncLMTP, AsyncSMTP
from .connection import Connection
from .delivery import SendResult
from .dialogues import quit_
from .errors import SMTPException
from .express import Begun
from .parcels import Parcel
from .rates import Bucket, RateLimit
from .replies import Reply
from .steps import Phase
from .turn import Lease, Turn

SEEN = 0.5
"""Seconds after its last use for which a connection is believed to be there without a look."""
PATIENCE = 5.0
"""Seconds a server gets to show that it is still there."""


class Pace:
    """Lets messages pass one by one, from whichever connection, as fast as a limit allows.

    Args:
        limit: what is allowed.
    """

    def __init__(self, limit: RateLimit) -> None:
        self._bucket = Bucket(limit)
        self._turn = asyncio.Lock()  # first come, first served

    @property
    def holds(self) -> bool:
        """Some message waits here now."""
        return self._turn.locked()

    async def wait(self) -> None:
        """Wait until the next message may leave. It must leave now."""
        async with self._turn:
            # Not the loop's clock, which on uvloop stands still for as long as something runs.
            while (seconds := self._bucket.wait(time.monotonic())) > 0:
                await asyncio.sleep(seconds)
            self._bucket.take(time.monotonic())


class PooledSMTP(AsyncSMTP):
    """A client in a pool.

    Attributes:
        pace: what each message waits for before MAIL, if there is a limit.
        carried: how many messages were begun since it was lent.
    """

    pace: Pace | None = None
    carried = 0
    _borrowed_as: tuple[object, ...] | None = None
    _leaving: Connection | None = None

    async def _send(self, parcel: Parcel, begun: Begun | None = None) -> SendResult:
        self.carried += 1
        before = parcel.before
        if self.pace is not None:
            parcel.before = partial(self._paced, self.pace, before)
        try:
            return await super()._send(parcel, begun)
        finally:
            parcel.before = before
            self.carried += parcel.further

    def carry(self, parcel: Parcel, begun: Begun | None = None) -> Coroutine[object, object, SendResult]:
        """Send one message for the pool, which counts by itself; or go on with what was begun."""
        return AsyncSMTP._send(self, parcel, begun) if self.pace is None else self._send(parcel, begun)

    @property
    def connection(self) -> Connection | None:
        """Its connection."""
        return self._connection

    def turn_at_once(self) -> Lease | None:
        """The turn, if nobody has it."""
        return self._turn_at_once()

    async def _paced(self, pace: Pace, then: Callable[[], Awaitable[None]] | None) -> None:
        await pace.wait()
        if then is not None:
            await then()

    async def mail(self, sender: str, options: Sequence[str] = ()) -> Reply:
        """MAIL by hand, which begins a message as well."""
        self.carried += 1
        if self.pace is not None:
            await self.pace.wait()
        return await super().mail(sender, options)

    @property
    def _renewable(self) -> bool:
        return False

    def twin(self) -> Self:
        """Another client with the same settings. Nothing that they share ever changes."""
        other = object.__new__(type(self))
        for name, value in vars(self).items():
            setattr(other, name, value)
        other._turn = Turn()
        return other

    async def open(self, one_at_a_time: asyncio.Lock) -> Connection:
        """Connect, and find out whether BDAT may be used, if that is not known.

        Args:
            one_at_a_time: for the trial; what one finds out holds for all.
        """
        await self.connect()
        if self._untried(self._connected()):
            async with one_at_a_time:
                self._take_over(self._connected())  # another may have found out in the meantime
                if self._untried(self._connected()) and await self._failed_trial(self._connected()):
                    await self.connect()
                    connection = self._connected()
                    if connection.chunking is None:
                        connection.chunking = False  # no verdict, and not another connection for each message
        return self._connected()

    def usable(self, idle: float) -> bool:
        """Tell whether a message may be begun here, without asking the server.

        Args:
            idle: seconds since it was used.
        """
        connection = self._connection
        if connection is None:
            return False
        session, transport = connection.session, connection.protocol.transport
        # It was greeted when it was opened, so this is all that `ready` asks.
        fit = session.reusable and session.unclaimed is None
        if not fit or transport is None or transport.is_closing():
            return False
        return idle < SEEN or not _has_news(connection)

    @property
    def name(self) -> str:
        """What to call its server."""
        return self._settings.endpoint.name

    @property
    def unfit(self) -> bool:
        """Nothing new may be begun here, though others may still wait for their replies."""
        return self._connection is None or self._connection.session.closing

    async def answers(self) -> bool:
        """Ask with NOOP."""
        try:
            async with asyncio.timeout(PATIENCE):
                return (await self.noop()).positive
        except (SMTPException, TimeoutError):
            return False

    def lend(self) -> None:
        """Remember what it was when somebody got it for himself."""
        self._borrowed_as = self._state()
        self.carried = 0

    @property
    def untouched(self) -> bool:
        """It is what it was when it was lent, and nothing is open there."""
        connection = self._connection
        return (
            connection is not None
            and connection.session.reusable
            and connection.session.unclaimed is None
            and self._borrowed_as == self._state()
        )

    async def take_back(self) -> None:
        """End what he left open; if it is not what it was, nobody else gets it."""
        connection = self._connection
        if connection is None:
            return
        if self._borrowed_as != self._state() or connection.session.unclaimed is not None:
            self.close()
        elif connection.session.phase is Phase.MAIL and connection.session.in_step:
            try:
                if not (await self.rset()).positive:
                    self.close()
            except SMTPException:
                self.close()
        elif not connection.session.reusable:
            self.close()

    def give_up(self) -> None:
        """The block failed: what cannot be used as it is goes."""
        if self._borrowed_as != self._state() or not self.usable(0.0):
            self.close()

    def _state(self) -> tuple[object, ...]:
        connection = self._connection
        session = connection.session if connection is not None else None
        return (
            connection,
            self._credentials,
            self._connected_by_settings,
            session and (session.encrypted, session.authenticated),
            connection and connection.esmtp,
        )

    async def leave(self) -> None:
        """QUIT and close."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._leaving = connection
            try:
                await opening.farewell(connection)
            finally:
                self._leaving = None

    def __del__(self) -> None:
        # No warning: that is the pool's to give, and once for all of them.
        connection = self.__dict__.get("_connection")
        if connection is not None and connection.alive:
            connection.let_go()

    def dismiss(self) -> None:
        """Close at once, but not without a word: QUIT, whose answer nobody waits for."""
        connection = self._connection
        if connection is not None and connection.alive and connection.session.reusable:
            with contextlib.suppress(SMTPException):
                connection.protocol.send(next(quit_()))
                connection.protocol.close()
        self.drop()

    def drop(self) -> None:
        """Close at once, also while it takes its leave."""
        if self._leaving is not None:
            self._leaving.drop()
        self.close()

    def write_in_lock_step(self) -> None:
        """Send no more groups of commands here."""
        self._pipelining = "off"


class PooledLMTP(PooledSMTP, AsyncLMTP):
    """An LMTP client in a pool."""


def _has_news(connection: Connection) -> bool:
    """True if there is something to read: when nothing is owed that is a farewell, or the end."""
    transport = connection.protocol.transport
    sock = cast("socket.socket | None", transport.get_extra_info("socket")) if transport else None
    if sock is None:
        return False
    number = sock.fileno()
    if number < 0:
        return True
    if not hasattr(select, "poll"):
        return bool(select.select([number], [], [], 0)[0])
    look = select.poll()
    look.register(number, select.POLLIN)
    return bool(look.poll(0))
