"""Plain: a message with which nothing happens, between its first octet and the yes to its last.

While a plain message is under way nothing else is, so what is owed for it is a number, and what is
read only has to be yes. Here that is known, and nothing more. As soon as anything else happens the
message is unfolded into the steps that the dialogue would have asked for, and goes on as those.

Rules of this room:

* Nothing is taken that is not yes to what it answers, in whole lines. Of anything else nothing is
  taken, and nothing is said about it.
* To whoever looks at the steps it makes no difference when they were made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias

from . import commands
from .content import InMemory, stuffed
from .replies import Reply, at_once
from .steps import END, Phase, Step

_NOT_YET = InMemory(b"")
Octets: TypeAlias = tuple[bytes, int, bytes]
"""MAIL and every RCPT of a plain message; how many of those there are; its content, in lines with CRLF."""


class Over(Protocol):
    """As much of a future as is needed here."""

    def done(self) -> bool:
        """It was completed, or cancelled."""
        raise NotImplementedError

    def set_result(self, accepted: bool, /) -> None:
        """Complete it."""
        raise NotImplementedError

    def set_exception(self, error: BaseException, /) -> None:
        """Let it fail."""
        raise NotImplementedError

    def exception(self) -> BaseException | None:
        """What it failed with."""
        raise NotImplementedError


class Plain:
    """One plain message after the other, each begun when the one before was accepted.

    It is also what the steps' replies are told to once a message was unfolded: see `steps.Waiter`.

    Args:
        over: a future: completed with True when everybody was accepted, with False when there is
            something to judge.
        secrets: what the server may not repeat without being looked at.
        chunked: by BDAT (RFC 3030), so in one write; else DATA, and the content behind its 354.

    Attributes:
        missing: how many replies are owed before there is anything to do.
        ended: the end of the content has left, or is about to: whoever writes it says so before.
        behind: what is to be written behind the 354, until it is.
        replies: those that came last.
        steps: what was performed, once it was unfolded.
    """

    __slots__ = (
        "_answers", "_octets", "_opening", "_secrets", "behind", "chunked", "ended", "missing", "over",
        "replies", "steps",
    )  # fmt: skip

    replies: tuple[Reply, ...]

    def __init__(self, over: Over, secrets: Sequence[bytes], *, chunked: bool) -> None:
        self.over = over
        self._secrets = secrets
        self.chunked = chunked
        self.steps: list[Step] = []
        self.behind: bytes | None = None
        self._answers: tuple[Reply, ...] = ()
        self._opening: tuple[Reply, ...] = ()

    def start(self, octets: Octets) -> bytes:
        """Begin with a message; returns what is to be written now."""
        self._octets = head, recipients, content = octets
        self.missing, self.ended, self._answers = recipients + 2, False, ()
        if self.chunked:
            return head + b"BDAT %d LAST\r\n" % len(content) + content
        self.behind = stuffed(content) + commands.END_OF_CONTENT
        return head + commands.DATA

    def takes(self, data: bytes) -> bool:
        """Read what the server says; False if that is anything but yes, and was not taken."""
        answers = at_once(data)
        if answers is None:
            return False
        replies, others_positive, code = answers
        left = self.missing - len(replies)
        if left < 0 or not others_positive or (self._secrets and self._repeats_secret(data)):
            return False
        if left or self.behind is None:
            if code >= 300:
                return False
            if left:
                self._answers += replies
        elif 300 <= code < 400:
            self._opening = self._answers + replies
        else:
            return False
        self.missing, self.replies = left, replies
        return True

    def _repeats_secret(self, data: bytes) -> bool:
        return any(secret in data for secret in self._secrets)

    def go_on(self) -> bytes:
        """What is to be written behind the 354; now is the last moment before that."""
        octets, self.behind = self.behind, None
        if octets is None:
            raise AssertionError(self.steps)
        self.missing, self.ended, self._answers = 1, True, ()
        return octets

    @property
    def decided_next(self) -> bool:
        """The next reply is the one to the content."""
        return self.ended and self.missing == 1

    @property
    def last_reply(self) -> Reply | None:
        """The newest reply to this message."""
        before = self._opening if self.ended and not self.chunked else ()
        return next(reversed(self._answers or before), None)

    def unfold(self) -> Step:
        """Make the steps of what was performed; returns the last, which is owed the rest of its replies."""
        head, recipients, content = self._octets
        if self.chunked:
            self.steps = [OneWrite(head, recipients, len(content))]
        elif not self.ended:
            self.steps = [Begin(head, recipients)]
        else:
            self.steps = [Begin(head, recipients), End()]
            self.steps[0].received = [*self._opening]
        last = self.steps[-1]
        last.received, last.ended = [*self._answers], self.ended
        if not self.missing:
            last.received += self.replies  # all is in, and only has to be judged
        return last

    # -- what a protocol calls ---------------------------------------------------------------

    def done(self) -> bool:
        """Nobody wants to know any more."""
        return self.over.done()

    def accepted(self) -> None:
        """Everybody was accepted, and nothing is owed any more."""
        self.over.set_result(True)

    def set_result(self, replies: list[Reply], /) -> None:
        """These are the replies to the last step: it was unfolded."""
        self.over.set_result(False)

    def set_exception(self, error: BaseException, /) -> None:
        """There will be none."""
        self.over.set_exception(error)

    def exception(self) -> BaseException | None:
        """What was set, if it was; from then on nobody has to look at it."""
        return self.over.exception()


class OneWrite(Step):
    """Envelope, BDAT and content at once."""

    during, then = Phase.CONTENT, Phase.READY
    chunked = last = performed = True
    content = _NOT_YET

    def __init__(self, head: bytes, recipients: int, size: int) -> None:
        self.data = head + commands.bdat(size, last=True)
        self.verbs = _verbs(recipients, END)
        self.lines = recipients + 1
        self.owed = recipients + 2
        self.received = []


class Begin(Step):
    """Envelope and DATA."""

    during, then = Phase.MAIL, Phase.CONTENT
    content = None
    performed = True

    def __init__(self, head: bytes, recipients: int) -> None:
        self.data = head + commands.DATA
        self.verbs = _verbs(recipients, "DATA")
        self.owed = self.lines = recipients + 2
        self.received = []


class End(Step):
    """The content, and its end."""

    data = b""
    verbs = (END,)
    owed, lines = 1, 0
    during, then = Phase.CONTENT, Phase.READY
    last = performed = True
    content = _NOT_YET

    def __init__(self) -> None:
        self.received = []


def _verbs(recipients: int, last: str) -> Sequence[str]:
    return ("MAIL", *["RCPT"] * recipients, last)
