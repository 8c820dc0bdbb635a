"""What a caller may be in the middle of when he is cut short.

A `Call` is a coroutine function that gets a `Desk`: the client or the pool it is about, the
messages, and somebody who writes down what was told about each.

Rules of this room:

* A call does what a caller would do, with public names only.
* Errors of ours are told and end the call quietly; a cancellation is told, and passes through.
* Whoever sends besides him is a task of its own: nothing of what happens to him may happen to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from email.message import EmailMessage
from email.policy import SMTP
from typing import Any

import aiosmtpclient
from aiosmtpclient import AsyncSMTP, Delivery, Envelope, Outcome, RecipientOutcome, SMTPException, SMTPPool

from .post import SENDER, Post, address
from .scenarios import TIMEOUTS, Scenario
from .secured import PASSWORD, USER, options
from .trial import Played, Told

Work = Callable[["Desk"], Coroutine[Any, Any, None]]
ACQUIRE = 8.0
"""Seconds somebody waits for a connection of a pool."""


class BodyError(Exception):
    """What a caller's own content raises."""


class Pieces:
    """Content that has to be awaited, piece by piece. No generator: those want to be closed."""

    def __init__(self, content: bytes, fails: bool = False) -> None:
        self._pieces = [content[:30], content[30:31], content[31:]]
        self._fails = fails

    def __aiter__(self) -> Pieces:
        return self

    async def __anext__(self) -> bytes:
        await asyncio.sleep(0)
        if self._fails and len(self._pieces) == 1:
            raise BodyError
        if not self._pieces:
            raise StopAsyncIteration
        return self._pieces.pop(0)


@functools.cache
def message_object(number: int, names: tuple[str, ...]) -> EmailMessage:
    """The same message as an object; nobody changes it."""
    message = EmailMessage(policy=SMTP)
    message["From"] = SENDER.format(number)
    message["To"] = ", ".join(address(name, number) for name in names)
    message["Subject"] = f"m{number}"
    message.set_content(f".\n..dots\nEND-m{number}\n")
    return message


class Desk:
    """Who sends, and what he is told.

    Attributes:
        smtp: the client, where the call is about one.
        pool: the pool, where it is about that.
        run: the outcomes of `send_messages`, if they are still to be closed.
        careful: the caller cleans up by himself, afterwards.
    """

    def __init__(self, scenario: Scenario, security: str, post: Post, played: Played, loop: Any) -> None:
        self.scenario, self.security, self.post = scenario, security, post
        self.played, self.loop = played, loop
        self.smtp: AsyncSMTP | None = None
        self.pool: SMTPPool | None = None
        self.run: Any = None
        self.careful = False
        self.closed = False
        self.tasks: list[asyncio.Task[None]] = []

    # -- who sends ---------------------------------------------------------------------------

    @property
    def client(self) -> AsyncSMTP:
        assert self.smtp is not None
        return self.smtp

    def hire(self, **more: Any) -> AsyncSMTP:
        """A client."""
        self.smtp = self.scenario.client(**options(self.security) | more)
        return self.smtp

    def found(self, connections: int) -> SMTPPool:
        """A pool."""
        scenario = self.scenario
        self.pool = SMTPPool(
            "127.0.0.1",
            25,
            local_hostname="client.test",
            timeout=TIMEOUTS,
            lmtp=scenario.lmtp,
            max_connections=connections,
            acquire_timeout=ACQUIRE,
            pipelining=scenario.pipelining,  # type: ignore[arg-type]  # a scenario is data
            chunking=scenario.chunking,  # type: ignore[arg-type]  # likewise
            **options(self.security),
        )
        return self.pool

    @property
    def sender(self) -> AsyncSMTP | SMTPPool:
        return self.pool if self.pool is not None else self.client

    @property
    def connections(self) -> int:
        """Those that somebody may still use."""
        if self.pool is not None:
            return sum(self.pool.stats()[:4])
        return int(self.smtp is not None and self.smtp.is_connected)

    # -- what is sent ------------------------------------------------------------------------

    def envelope(self, number: int) -> Envelope:
        to = [address(name, number) for name in self.scenario.names()]
        return Envelope(SENDER.format(number), to, self.scenario.content(number))

    async def send(self, number: int, content: Any = None, sender: Any = None) -> None:
        """One message by `sendmail`."""
        envelope = self.envelope(number)
        sender = sender or self.sender
        call = sender.sendmail(envelope.sender, envelope.recipients, content or envelope.content)
        await self.tell(number, call)

    async def tell(self, number: int, call: Coroutine[Any, Any, Any]) -> None:
        """Carry a send out, and note what was told about it."""
        try:
            result = await call
        except BaseException as error:
            # A send says so on whatever passes through it, so this has to be there.
            self.note(number, Told(error.outcomes, error.delivery, error))  # type: ignore[attr-defined]
            if not self.played.told[number].outcomes:
                self.not_begun(number)  # it came not so far that the headers were read
            if not isinstance(error, Exception):
                raise
        else:
            self.note(number, Told(result.outcomes, Delivery.ACCEPTED, None, result.reply))

    def note(self, number: int, told: Told) -> None:
        told.at = self.loop.time()
        lines = [conversation.line for conversation in self.post.connections]
        told.idle = told.at - max((line.moved for line in lines), default=told.at)
        if isinstance(told.error, asyncio.CancelledError):
            told.heard = [line.delivered for line in lines]  # in a stream replies come all the same
        self.played.told[number] = told
        fine = SMTPException | asyncio.CancelledError | BodyError | None
        if not isinstance(told.error, fine):
            self.played.foreign.append(f"message {number}: {told.error!r}")

    def not_begun(self, number: int) -> None:
        """Nobody said anything about it, so nothing of it may have left."""
        told = self.played.told.setdefault(number, Told((), Delivery.NOT_SENT, SMTPException()))
        if not told.outcomes and told.delivery is Delivery.NOT_SENT:
            told.outcomes = [
                RecipientOutcome(address(name, number), Delivery.NOT_SENT, None)
                for name in self.scenario.names()
            ]

    def beside(self, number: int) -> None:
        """Somebody else sends this one."""
        self.tasks.append(self.loop.create_task(self.send(number)))

    # -- what `send_messages` tells, see `Journal` ----------------------------------------------

    def begin(self, index: int, message: object) -> None:
        """It leaves now."""

    def end(self, outcome: Outcome) -> None:
        """What became of it."""
        reply = outcome.result.reply if outcome.result is not None else None
        self.note(outcome.index + 1, Told(outcome.outcomes, outcome.delivery, outcome.error, reply))


@dataclass(frozen=True)
class Call:
    """Something that takes a while.

    Attributes:
        name: what it is.
        work: it.
        before: what has to be done before; never cut.
        front, behind: messages that others send at the same time, begun before and after it.
        numbers: the messages that it sends itself.
        pool: connections of a pool; 0 for a client.
        renews: whatever became of it, the next message needs no `connect()`.
        clean: what a careful caller does in his `finally`.
        stream: its content takes several writes.
        which: the connection that it goes over.
        plain: each message has one recipient, who gets it: nothing happens to it but what the trial does.
    """

    name: str
    work: Work
    before: Work | None = None
    front: tuple[int, ...] = ()
    behind: tuple[int, ...] = ()
    numbers: tuple[int, ...] = (1,)
    pool: int = 0
    renews: bool = True
    clean: Work | None = None
    stream: bool = False
    which: int = 0
    plain: bool = False

    def __repr__(self) -> str:
        return f"CALLS[{self.name!r}]"

    def scenario(self, mode: Scenario) -> Scenario:
        """What the mode means for it."""
        if self.plain:
            return replace(mode, recipients=1)
        return replace(mode, size="large") if self.stream else mode


# -- before ----------------------------------------------------------------------------------


async def _connected(desk: Desk) -> None:
    await desk.hire().connect()


async def _lost(desk: Desk) -> None:
    await desk.hire().connect()
    desk.post.connections[0].line.finish("close")
    for _ in range(20):
        await asyncio.sleep(0)


async def _warm(desk: Desk) -> None:
    await desk.send(6)


async def _all_warm(desk: Desk) -> None:
    await asyncio.gather(desk.send(8), desk.send(9))


async def _in_clear(desk: Desk) -> None:
    await desk.hire(tls="none").connect()


async def _hired(desk: Desk) -> None:
    desk.hire(username=USER, password=PASSWORD)


# -- calls -----------------------------------------------------------------------------------


async def _connect(desk: Desk) -> None:
    await desk.client.connect()


async def _login(desk: Desk) -> None:
    await desk.client.login(USER, PASSWORD, mechanisms=["LOGIN"], initial_response_ok=False)


async def _sendmail(desk: Desk) -> None:
    await desk.send(1)


async def _message(desk: Desk) -> None:
    message = message_object(1, desk.scenario.names())
    desk.post.contents[1] = message.as_bytes()
    await desk.tell(1, desk.sender.send_message(message))


async def _stream(desk: Desk) -> None:
    await desk.send(1, Pieces(desk.scenario.content(1)))


async def _failing(desk: Desk) -> None:
    await desk.send(1, Pieces(desk.scenario.content(1), fails=True))


async def _messages(desk: Desk) -> None:
    desk.run = desk.sender.send_messages((desk.envelope(number) for number in (1, 2, 3)), journal=desk)
    try:
        async for _ in desk.run:
            pass
    finally:
        if not desk.careful:
            await desk.run.aclose()


async def _starttls(desk: Desk) -> None:
    await desk.client.starttls()


async def _by_hand(desk: Desk) -> None:
    smtp, envelope = desk.client, desk.envelope(1)
    await smtp.mail(envelope.sender)
    for recipient in envelope.recipients:
        await smtp.rcpt(recipient)
    await smtp.rset()
    await smtp.noop()


async def _quit(desk: Desk) -> None:
    await desk.client.quit()


async def _block(desk: Desk) -> None:
    async with desk.hire(username=USER, password=PASSWORD):
        await desk.send(1)


async def _once(desk: Desk) -> None:
    scenario, envelope = desk.scenario, desk.envelope(1)
    call = aiosmtpclient.send(
        envelope.content,
        sender=envelope.sender,
        recipients=envelope.recipients,
        host="127.0.0.1",
        port=25,
        timeout=TIMEOUTS,
        local_hostname="client.test",
        pipelining=scenario.pipelining,  # type: ignore[arg-type]  # a scenario is data
        chunking=scenario.chunking,  # type: ignore[arg-type]  # likewise
        **options(desk.security),
    )
    await desk.tell(1, call)


async def _lent(desk: Desk) -> None:
    assert desk.pool is not None
    async with desk.pool.connection() as smtp:
        await desk.send(1, sender=smtp)
        await smtp.mail(SENDER.format(2))  # left open


async def _close(desk: Desk) -> None:
    assert desk.pool is not None
    desk.closed = True
    await desk.pool.close()


# -- clean-up --------------------------------------------------------------------------------


async def _part(desk: Desk) -> None:
    if desk.smtp is not None:
        with contextlib.suppress(SMTPException):
            await desk.smtp.quit()


async def _stop(desk: Desk) -> None:
    await desk.run.aclose()


_EVERY = [
    Call("connect", _connect, _hired, numbers=(), renews=False, clean=_part),
    Call("login", _login, _connected, numbers=(), renews=False, clean=_part),
    Call("sendmail", _sendmail, _connected, clean=_part),
    Call("send_message", _message, _connected),
    Call("stream body", _stream, _connected, stream=True, clean=_part),
    Call("stream body that fails", _failing, _connected, stream=True),
    Call("sendmail, first of three", _sendmail, _connected, behind=(2, 3), clean=_part),
    Call("sendmail, second of three", _sendmail, _connected, (2,), (3,), clean=_part),
    Call("sendmail, anew", _sendmail, _lost, which=1),
    Call("send_messages", _messages, _connected, numbers=(1, 2, 3), clean=_stop),
    Call("quit", _quit, _connected, numbers=(), renews=False),
    Call("async with", _block, renews=False),
    Call("pool send", _sendmail, pool=2, clean=_close),
    Call("pool send, warm", _sendmail, _warm, pool=2),
    Call("pool send, second of three", _sendmail, None, (2,), (3,), pool=1, clean=_close),
    Call("pool connection", _lent, pool=1),
    Call("pool send_messages", _messages, numbers=(1, 2, 3), pool=2, clean=_stop),
    Call("pool, flow", _messages, _all_warm, numbers=(1, 2, 3), pool=2, clean=_stop, plain=True),
    Call("pool close", _close, _warm, (2,), (3,), numbers=(), pool=1),
]
CALLS = {call.name: call for call in _EVERY}
ELSEWHERE = [
    Call("send", _once, renews=False),
    Call("starttls", _starttls, _in_clear, numbers=(), renews=False),
    Call("by hand", _by_hand, _connected, numbers=(), renews=False),
]
"""Not everywhere: `send` knows no LMTP, only one kind of server offers STARTTLS."""
CALLS |= {call.name: call for call in ELSEWHERE}


def fits(call: Call, scenario: Scenario, security: str) -> bool:
    """Whether there is such a thing there."""
    return not (call.name == "send" and scenario.lmtp) and (call.name != "starttls" or security == "starttls")
