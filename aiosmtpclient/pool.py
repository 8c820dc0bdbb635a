"""The pool: connections to one server, kept for as long as an application lives.

Here is what happens to a message: it waits for a connection, for its turn in the rate, and is
tried again where that is right. Which connection does what is decided in `slots` and carried out
in `lending`; what may be tried again is in `retrying`, how fast in `rates`.

Rules of this room:

* A message that waits for a connection holds none.
* The rate is taken when everything is ready, right before MAIL, by all connections from one bucket.
* A server that answered a group of commands with what is no answer is not sent groups any more.
* A pool lives in the event loop that used it first, until that is closed; after a fork the child's
  has connections of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import warnings
from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager
from email.message import Message
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple, Self, Unpack, cast

from . import environment, flow, urls
from .bulk import Carry, Desk, in_window
from .client import DEFAULT_TIMEOUTS, AsyncSMTP, Besides, Options, sealed
from .connection import keep
from .delivery import Journal, Outcome, SendResult, Tally
from .errors import (
    Delivery,
    SMTPException,
    SMTPProtocolError,
    SMTPServerDisconnected,
    SMTPTimeoutError,
)
from .express import Begun
from .lending import Lender, client_of
from .mailing import Mailing, Messages, Run
from .message import Envelope
from .parcels import Parcel
from .pooled import Pace, PooledLMTP, PooledSMTP
from .rates import RateLimit
from .retrying import Course, Retries, crowded
from .secret import Secret
from .slots import Limits, Slot, Slots
from .timeouts import Timeouts

DEPTH = 16
"""Messages that are under way on one connection at a time, with `pipelining="stream"`."""


class PoolStats(NamedTuple):
    """What a pool is doing, and what it has done.

    Attributes:
        idle: connections that wait for something to do.
        in_use: connections that are lent.
        opening: connections that are being opened, or asked whether they are still there.
        closing: connections that are being closed.
        waiting: callers that wait for a connection.
        cap: connections that may be open now; lower than `max_connections` after "too many".
        opened: connections opened so far.
        failed: attempts to open one that failed.
        accepted: messages that somebody was accepted for.
        refused: messages that were refused for everybody.
        not_sent: messages that were not sent.
        unknown: messages of which that is not known.
        retried: further attempts.
    """

    idle: int
    in_use: int
    opening: int
    closing: int
    waiting: int
    cap: int
    opened: int
    failed: int
    accepted: int
    refused: int
    not_sent: int
    unknown: int
    retried: int


class PoolOptions(Besides, total=False):
    """What may be given to a pool besides a URL."""

    max_connections: int
    max_messages: int | None
    max_age: float | None
    max_idle: float | None
    check_after: float | None
    max_waiting: int | None
    acquire_timeout: float | None
    rate_limit: RateLimit | tuple[float, int] | float | None
    retries: Retries | int
    retry_unknown: bool


class SMTPPool(Mailing):
    """Connections to one server, shared by everybody in an application.

    `async with` closes it at its end; nothing is connected before somebody sends. What differs in
    TLS settings, credentials or server is another pool.

    Args:
        host: and `port`, `local_hostname`, `timeout`, `source_address` and every option: as for
            `AsyncSMTP`. A socket that is connected already (`sock`) cannot be shared.
        lmtp: speak LMTP (RFC 2033).
        max_connections: connections at a time, those that are being opened included.
        max_messages: messages on one connection; fewer if the server says so (LIMITS MAILMAX, RFC
            9422).
        max_age: seconds after which a connection is not used any more, less up to a tenth.
        max_idle: seconds after which a connection that nobody used is closed.
        check_after: a connection that was not used for so many seconds is asked with NOOP before
            it is.
        max_waiting: callers that may wait for a connection; None for any number.
        acquire_timeout: seconds that a caller waits for a connection; None for any time. What
            `send_messages` sends waits for as long as it takes.
        rate_limit: messages a second, by all connections together: a number, or a `RateLimit`
            with a burst. Over any stretch of time no more are begun.
        retries: further attempts at what was certainly not sent; a `Retries` says more.
        retry_unknown: try again what may have been sent. Somebody may get it twice.

    Raises:
        ValueError: an argument makes no sense.
    """

    def __init__(
        self,
        host: str = "",
        port: int = 0,
        local_hostname: str | None = None,
        timeout: Timeouts | float | None = DEFAULT_TIMEOUTS,
        source_address: tuple[str, int] | None = None,
        *,
        lmtp: bool = False,
        max_connections: int = 10,
        max_messages: int | None = 1000,
        max_age: float | None = 600.0,
        max_idle: float | None = 60.0,
        check_after: float | None = 30.0,
        max_waiting: int | None = None,
        acquire_timeout: float | None = 30.0,
        rate_limit: RateLimit | tuple[float, int] | float | None = None,
        retries: Retries | int = 2,
        retry_unknown: bool = False,
        **options: Unpack[Options],
    ) -> None:
        sealed(options)
        if options.get("sock") is not None:
            raise ValueError("a pool opens its own connections: it cannot share sock=")
        kind = PooledLMTP if lmtp else PooledSMTP
        pattern = kind(
            host,
            port,
            local_hostname=local_hostname,
            timeout=timeout,
            source_address=source_address,
            **options,
        )
        self._new_client = pattern.twin
        self._name = pattern.name
        if not isinstance(max_connections, int) or max_connections < 1:
            raise ValueError(f"max_connections must be a whole number from 1 on, not {max_connections!r}")
        stream = options.get("pipelining") == "stream"
        self._short = options.get("pipelining", "message") == "message" and not lmtp
        limits = Limits(
            connections=max_connections,
            messages=_positive(max_messages, "max_messages"),
            age=_positive(max_age, "max_age"),
            idle=_positive(max_idle, "max_idle"),
            check_after=_positive(check_after, "check_after"),
            depth=DEPTH if stream else 1,
        )
        self._limits = limits
        self._max_waiting = _not_negative(max_waiting, "max_waiting")
        _not_negative(acquire_timeout, "acquire_timeout")
        self._acquire_timeout = acquire_timeout
        self._rate = RateLimit.of(rate_limit) if rate_limit is not None else None
        self._retries = Retries.of(retries)
        self._retry_unknown = retry_unknown
        self._closed = False
        self._tally = Tally()
        self._lender: Lender | None = None

    @classmethod
    def from_url(cls, url: str | Secret, **options: Unpack[PoolOptions]) -> Self:
        """A pool for the server of a URL; the scheme says whether it speaks SMTP or LMTP.

        As `AsyncSMTP.from_url`; a pool's own options may stand in the URL as well.

        Raises:
            ValueError: the URL is none, or has an unknown option.
        """
        url = urls.sealed(url)  # first: what fails below must not show it
        sealed(options)
        target = urls.read(url, pool=True)
        return cls(target.host, target.port, lmtp=target.lmtp, **cast(Any, target.with_options(options)))

    @classmethod
    def from_env(cls, name: str = "SMTP_URL", **options: Unpack[PoolOptions]) -> Self:
        """A pool for the server of the URL in an environment variable, as `AsyncSMTP.from_env`.

        Raises:
            ValueError: as `from_url`; there is no such variable, or the password's file cannot be read.
        """
        sealed(options)
        url = environment.url_of(name)
        password = environment.password_for(name, url, options, pool=True)
        if password is not None:
            options["password"] = password
        return cls.from_url(url, **options)

    def _here(self) -> Lender:
        """What lends connections in this loop."""
        loop, lender = asyncio.get_running_loop(), self._lender
        if lender is None or lender.loop is not loop:
            if lender is not None and lender.pid != os.getpid():
                keep(lender)  # its connections are the parent process's, and so is who waits there
            elif lender is not None and not lender.loop.is_closed():
                raise RuntimeError(
                    "this pool is in use in another event loop: make one pool for each loop, "
                    "or, from threads, use run_sync()"
                )
            lender = self._lender = Lender(
                loop,
                self._limits,
                self._new_client,
                patience=self._retries.not_sent,
                name=self._name,
                pace=Pace(self._rate) if self._rate is not None else None,
            )
        return lender

    # -- one message ---------------------------------------------------------------------------

    async def _send(self, parcel: Parcel, slot: Slot | None = None, begun: Begun | None = None) -> SendResult:
        course: Course | None = None
        failure: Exception | None = None
        try:
            while True:
                try:
                    lender = self._here()
                    if slot is None and not self._closed:
                        slot = lender.take(alone=False)
                    slot = slot or await self._borrow(patient=parcel.of_many)
                except BaseException as error:
                    if failure is not None and isinstance(error, SMTPException):
                        raise failure from error  # what was said to the message is the news
                    parcel.ledger.stamp(error)
                    raise
                if failure is not None:
                    parcel.again()
                    self._tally.retried += 1
                used, attempts = slot.messages > 1, parcel.attempts
                failure = None
                try:
                    result = await client_of(slot).carry(parcel, begun)
                except BaseException as error:
                    self._give_back(lender, slot, parcel, error)
                    if not isinstance(error, Exception):
                        raise
                    failure = error
                else:
                    slot.messages += parcel.further  # a server counts transactions (MAILMAX, RFC 9422)
                    lender.give_back(slot, alone=False)
                    self._tally.accepted += 1
                    return result
                slot = begun = None
                course = course or Course(self._retries, unknown=self._retry_unknown)
                ledger = parcel.ledger
                used = used or attempts == parcel.attempts  # it went while something else was awaited
                pause = course.pause(failure, ledger.delivery, ledger.outcomes, used=used)
                if pause is None or not parcel.repeatable or self._closed:
                    raise failure
                if pause:
                    try:
                        await asyncio.sleep(pause)
                    except asyncio.CancelledError as cancelled:
                        ledger.stamp(cancelled)  # as the last attempt left it
                        raise
        except BaseException as error:
            self._tally.failed[parcel.ledger.delivery] += 1
            if not getattr(error, "outcomes", ()):
                parcel.ledger.stamp(error)  # it was not the send that failed, but what comes behind it
            raise
        finally:
            # Its traceback has this frame: no cycle, so that a pool nobody closed goes at once.
            failure = None

    def _run(
        self, messages: Messages, carry: Carry[Message | Envelope], ordered: bool, journal: Journal | None
    ) -> Run:
        window = self._limits.connections * self._limits.depth
        # Nothing flows that waits for the rate.
        in_flow = partial(self._in_flow, journal) if self._short and self._rate is None else None
        return in_window(messages, carry, window, ordered=ordered, begin=self._here, flow=in_flow)

    def _in_flow(
        self,
        journal: Journal | None,
        desk: Desk[Message | Envelope],
        index: int,
        message: Message | Envelope,
    ) -> Awaitable[Outcome | None]:
        return flow.carry(self._here(), self._send, self._tally, journal, desk, index, message)

    # -- lending ---------------------------------------------------------------------------------

    def connection(self) -> AbstractAsyncContextManager[AsyncSMTP]:
        """A connection for yourself, for as long as the block runs.

        What the block leaves open is reset. If it logs in, starts TLS or closes the connection,
        nobody else gets that one.

        Raises:
            SMTPPoolError: none became free in time.
            SMTPException: none could be opened.
        """
        return _Loan(self)

    async def _borrow(self, *, alone: bool = False, patient: bool = False) -> Slot:
        lender = self._here()
        if self._closed:
            raise lender.closed_error()
        if (slot := lender.take(alone=alone)) is not None:
            return slot
        if patient:
            return await lender.borrow(alone=alone)
        return await lender.borrow(alone=alone, timeout=self._acquire_timeout, max_waiting=self._max_waiting)

    def _give_back(self, lender: Lender, slot: Slot, parcel: Parcel, failure: BaseException) -> None:
        slot.messages += parcel.further
        if isinstance(failure, SMTPProtocolError) and not lender.lock_step:
            lender.write_in_lock_step()
        if crowded(failure):
            lender.too_many(slot)
        elif isinstance(failure, SMTPServerDisconnected | SMTPTimeoutError | SMTPProtocolError):
            lender.broken(slot)
        lender.give_back(slot, alone=False)

    # -- what is known, and the end ------------------------------------------------------------------

    def stats(self) -> PoolStats:
        """What it is doing now, and what it has done so far."""
        lender, tally = self._lender, self._tally
        failed = tally.failed
        slots = lender.slots if lender is not None else Slots(self._limits)
        return PoolStats(
            *slots.counts,
            slots.cap,
            lender.opened if lender is not None else 0,
            lender.failed if lender is not None else 0,
            tally.accepted + failed[Delivery.ACCEPTED],
            failed[Delivery.REFUSED],
            failed[Delivery.NOT_SENT],
            failed[Delivery.UNKNOWN],
            tally.retried,
        )

    async def close(self, timeout: float | None = 10.0) -> None:
        """Close every connection. Nobody can send any more; who waits gets an `SMTPPoolError`.

        Args:
            timeout: seconds that what is under way has to end; then it is dropped, and each
                message says what is known of it. None waits for as long as it takes.
        """
        if self._lender is not None and self._lender.loop.is_closed():
            self._lender = None  # what was open there went with its loop
        lender = self._here() if self._lender is not None else None
        self._closed = True
        if lender is not None:
            await lender.close(timeout)

    async def __aenter__(self) -> Self:
        lender = self._here()
        if self._closed:
            raise lender.closed_error()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close(10.0 if kind is None or issubclass(kind, Exception) else 0.0)

    def __repr__(self) -> str:
        if "_lender" not in self.__dict__:  # the constructor failed, and somebody shows its locals
            return "<SMTPPool>"
        slots = self._lender.slots if self._lender is not None else Slots(self._limits)
        state = "closed " if self._closed else ""
        return f"<SMTPPool {state}{self._name} {repr(slots)[1:-1]}>"

    def __del__(self) -> None:
        lender: Lender | None = self.__dict__.get("_lender")  # a constructor may fail before there is one
        connected = lender.connected if lender is not None else []
        if lender is None or not connected:
            return
        warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
        with contextlib.suppress(RuntimeError):  # its loop is closed, and took the sockets with it
            for client in connected:
                lender.loop.call_soon_threadsafe(client.drop)


class _Loan(AbstractAsyncContextManager[AsyncSMTP]):
    """`async with` borrows a connection. No generator, which would be a good part of the price."""

    __slots__ = ("_client", "_lender", "_pool", "_slot")

    def __init__(self, pool: SMTPPool) -> None:
        self._pool = pool

    async def __aenter__(self) -> AsyncSMTP:
        pool = self._pool
        self._lender = lender = pool._here()
        slot = None if pool._closed else lender.take(alone=True)
        self._slot = slot or await pool._borrow(alone=True)
        self._client = client = client_of(self._slot)
        client.lend()
        return client

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        client = self._client
        try:
            if kind is None:
                if not client.untouched:
                    await client.take_back()
            else:
                client.give_up()
        except BaseException:
            client.give_up()
            raise
        finally:
            if client.carried > 1:
                self._slot.messages += client.carried - 1
            self._lender.give_back(self._slot, alone=True)


def _positive(value: float | None, name: str) -> float:
    if value is not None and not value > 0:
        raise ValueError(f"{name} must be more than 0, not {value!r}")
    return math.inf if value is None else value


def _not_negative(value: float | None, name: str) -> float:
    if value is not None and not value >= 0:
        raise ValueError(f"{name} must not be negative: {value!r}")
    return math.inf if value is None else value
