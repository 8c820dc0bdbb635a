"""What a dialogue asks for: one write and the replies it earns.

A dialogue is a plain generator. It yields a `Step`, is sent the list of replies that came for
it, and in the end returns a result or raises one of our errors. Nobody in it knows of sockets
or clocks. `Phase` answers "is it safe to write this, is this connection reusable?", and never
"what would the server allow?": a list of legal reply codes turns a 421 into a crash.

Rules of this room:

* A step is used once. The session writes the replies into `received` as they come, so a
  dialogue that is interrupted (an error or a cancellation is thrown into it) still sees those
  that came in time.
* `then` is the phase once every reply is in. A dialogue that does not trust the connection any
  more yields `give_up()` before it raises.
* What must not be seen is described, not shown: `masked` stands in for `data` in every log.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import Protocol, TypeVar

from .content import InMemory, Stream
from .replies import Reply

T = TypeVar("T")

END = "end of content"
"""What the replies behind all commands answer."""


class Phase(enum.Enum):
    """Where a connection stands."""

    GREETING = "waiting for the greeting"
    READY = "outside any transaction"
    MAIL = "inside an envelope"
    CONTENT = "inside a message's content"
    CLOSING = "to be closed"
    CLOSED = "closed"


AuthObject = Callable[..., "str | bytes | Awaitable[str | bytes | None] | None"]
"""What smtplib calls an authobject: called without an argument at first, then with each challenge."""


Progress = Callable[[int, "int | None"], object]
"""Called with the octets of a message's content written so far, and how many there are if that is known."""


class Step:
    """One write, and the replies it earns.

    Attributes:
        data: the command lines to write.
        owed: how many replies they earn, and the content behind them.
        received: those that came so far.
        verbs: what is being answered, by position; the last stands for all that follow.
        during: the phase while replies are owed.
        then: the phase once they are in.
        content: a message's content to write behind `data`, with its end.
        chunked: the content leaves by BDAT, as it is: a size before it, and no dot behind it.
        lines: how many of the replies answer commands. Those behind them answer the content.
        count: called with the replies so far; says how many are owed after all. If those are all that
            came, though more could be, nobody knows: what comes behind them is nobody's answer.
        seven_bit: octets over 127 in content that is read while it is sent are an error.
        on_end: call this just before that end is handed to the transport.
        ended: it was: what comes from now on answers the content. What came before ends the
            connection, for the server is still reading.
        progress: called with (octets written, octets in all or None) as the content leaves.
        masked: what logs show in place of `data`.
        patience: seconds to wait for each reply, if less than usual.
        handshake: bring up TLS now.
        ask: call (and await) this with `challenge`; the driver puts what it gives into `answer`.
        last: nothing more will be written by this dialogue.
        performed: it was taken through the connection already; the dialogue only has to judge it.
        failed: what that ended with, if not with replies.
    """

    # Defaults of the class: each message needs two steps, and few of them need any of this.
    chunked = False
    count: Callable[[Sequence[Reply]], int] | None = None
    seven_bit = False
    on_end: Callable[[], None] | None = None
    progress: Progress | None = None
    ended = False
    masked: bytes | None = None
    patience: float | None = None
    last = False
    performed = False
    failed: BaseException | None = None
    handshake = False
    ask: AuthObject | None = None
    challenge: bytes | None = None
    answer: str | bytes | None = None

    def __init__(
        self,
        data: bytes = b"",
        *verbs: str,
        owed: int = 1,
        during: Phase = Phase.READY,
        then: Phase = Phase.READY,
        content: InMemory | Stream | None = None,
        chunked: bool = False,
        lines: int | None = None,
        count: Callable[[Sequence[Reply]], int] | None = None,
        seven_bit: bool = False,
        on_end: Callable[[], None] | None = None,
        progress: Progress | None = None,
        masked: bytes | None = None,
        patience: float | None = None,
        last: bool = False,
    ) -> None:
        self.data = data
        self.verbs: Sequence[str] = verbs
        self.owed = owed
        self.received: list[Reply] = []
        self.during = during
        self.then = then
        self.content = content
        self.lines = (owed if content is None else 0) if lines is None else lines
        if masked is not None:
            self.masked = masked
        if patience is not None:
            self.patience = patience
        if last:
            self.last = True
        if content is not None:
            self.chunked = chunked
            self.count = count
            self.seven_bit = seven_bit
            self.on_end = on_end
            self.progress = progress

    @property
    def verb(self) -> str:
        """What the next reply answers."""
        return self.verbs[min(len(self.received), len(self.verbs) - 1)] if self.verbs else ""

    @property
    def complete(self) -> bool:
        """Every reply is in, or a 421, behind which none comes."""
        return len(self.received) == self.owed or (bool(self.received) and self.received[-1].code == 421)

    @property
    def verdicts(self) -> list[Reply]:
        """The replies to the content that came so far."""
        return self.received[self.lines :]

    @property
    def cut_short(self) -> bool:
        """The server said no, or something out of place, before the content had ended."""
        if self.chunked:
            too_many = len(self.received) > self.lines
            return too_many or any(not reply.positive for reply in self.received)
        return bool(self.received)

    def outcome(self) -> list[Reply]:
        """The replies, or the error, of a step that was performed already; the error only once."""
        failed, self.failed = self.failed, None
        try:
            if failed is not None:
                raise failed
            return self.received
        finally:
            del failed  # no cycle: its traceback has this frame

    def end_left(self) -> None:
        """The end of the content is about to be handed to the transport."""
        self.ended = True
        if self.on_end is not None:
            self.on_end()

    def __repr__(self) -> str:
        # Never the data: it may hold a secret, and a repr ends up in logs and tracebacks.
        return f"<Step {self.verb or 'silent'} {len(self.received)}/{self.owed} replies>"


class Waiter(Protocol):
    """Who is told of the replies to a step: as much of a future as is needed for that."""

    def done(self) -> bool:
        """Nobody wants to know any more."""
        raise NotImplementedError

    def set_result(self, replies: list[Reply], /) -> None:
        """These are they."""
        raise NotImplementedError

    def set_exception(self, error: BaseException, /) -> None:
        """There will be none."""
        raise NotImplementedError

    def exception(self) -> BaseException | None:
        """What was set, if it was; from then on nobody has to look at it."""
        raise NotImplementedError


Dialogue = Generator[Step, list[Reply], T]
"""A conversation: yields steps, is sent their replies, returns a T."""


def give_up() -> Step:
    """A step that writes nothing and gives the connection up: it is out of step, or may be."""
    return Step(owed=0, during=Phase.CLOSING, then=Phase.CLOSING)


def handshake() -> Step:
    """A step that brings up TLS; everything known about the server is forgotten."""
    step = Step(owed=0)
    step.handshake = True
    return step


def ask(authobject: AuthObject, challenge: bytes | None) -> Step:
    """A step that lets the caller's own code answer a challenge."""
    step = Step(owed=0)
    step.ask, step.challenge = authobject, challenge
    return step
