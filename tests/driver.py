"""A driver without a loop: takes a dialogue through a session, with a server that says what it is told.

`talk()` plays the part of the connection: it announces each step to a real `Session`, feeds the
octets of the server's answer through it, and resumes the dialogue with what came of that.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from aiosmtpclient.commands import END_OF_CONTENT, bdat
from aiosmtpclient.content import InMemory, Stream
from aiosmtpclient.errors import SMTPException, SMTPServerDisconnected
from aiosmtpclient.replies import Reply
from aiosmtpclient.session import Session
from aiosmtpclient.steps import Dialogue, Phase, Step

T = TypeVar("T")


@dataclass(frozen=True)
class Then:
    """The server says this, and after that something else happens."""

    octets: bytes
    error: BaseException


@dataclass(frozen=True)
class Early:
    """The server says this before the end of the content has left; then perhaps something happens."""

    octets: bytes
    error: BaseException | None = None


Answer = bytes | BaseException | Then | Early


class Disconnected(SMTPServerDisconnected):
    """The server is gone."""

    def __init__(self) -> None:
        super().__init__("gone")


@dataclass
class Talk(Generic[T]):
    """A conversation that is over.

    Attributes:
        wrote: what was written, one item a step; a TLS handshake is b"<TLS>".
        steps: the steps behind it.
        in_vain: steps that were asked for when nothing could be written any more.
        gave_up: the dialogue itself dropped the connection.
    """

    session: Session
    answers: list[Answer]
    wrote: list[bytes] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    in_vain: list[Step] = field(default_factory=list)
    gave_up: bool = False
    result: T | None = None
    error: BaseException | None = None

    @property
    def kept(self) -> bool:
        """True if the next message may use this connection."""
        return self.session.reusable

    def perform(self, step: Step) -> list[Reply]:
        if step is not self.session.greeting:
            if step.during is Phase.CLOSING:
                assert step.data == b""
                self.gave_up = True
                self.session.fail(Disconnected())
                return []
            if step.handshake:
                self.wrote.append(self.announce(step) + b"<TLS>")
                return []
            if step.ask is not None:
                given = step.ask() if step.challenge is None else step.ask(step.challenge)
                step.answer = given  # type: ignore[assignment]
                return []
            octets = self.announce(step)
            if not step.owed:
                assert octets == b""
                return []
            self.wrote.append(octets)
        self.steps.append(step)
        return self.exchange(step)

    def announce(self, step: Step) -> bytes:
        try:
            return self.session.send(step)
        except SMTPException:
            self.in_vain.append(step)
            raise

    def write_content(self, step: Step, content: InMemory | Stream) -> bytes:
        """Content to its end; a `Stream` is a list of what leaves in a chunk each."""
        if isinstance(content, InMemory):
            step.end_left()
            return content.data if step.chunked else content.stuffed() + END_OF_CONTENT
        assert step.chunked
        assert isinstance(content.source, list)
        *before, last = content.source
        step.owed += len(before)
        step.lines += len(before)
        step.end_left()
        chunks = [bdat(len(chunk), last=False) + chunk for chunk in before]
        return b"".join([*chunks, bdat(len(last), last=True), last])

    def exchange(self, step: Step) -> list[Reply]:
        answer = self.answers.pop(0)
        if isinstance(answer, Early):
            assert step.content is not None
            self.session.receive_data(answer.octets)
        else:
            if step.content is not None:
                self.wrote[-1] += self.write_content(step, step.content)
            if isinstance(answer, (bytes, Then)):
                self.session.receive_data(answer if isinstance(answer, bytes) else answer.octets)
        error = answer if isinstance(answer, BaseException) else getattr(answer, "error", None)
        if error is not None:
            if isinstance(error, SMTPException):
                self.session.fail(error)
            raise error
        if self.session.failure is not None and not step.complete:
            raise self.session.why()
        assert isinstance(answer, Early) or step.complete, f"{answer!r} is no answer to {step!r}"
        return step.received


def ready() -> Session:
    """A session after the greeting."""
    session = Session("mail.test:25")
    session.receive_data(b"220 hello\r\n")
    return session


def talk(dialogue: Dialogue[T], *answers: Answer, session: Session | None = None) -> Talk[T]:
    """Take a dialogue to its end; every answer must be used."""
    over: Talk[T] = Talk(session or ready(), list(answers))
    try:
        step = next(dialogue)
        while True:
            try:
                replies = over.perform(step)
            except BaseException as error:
                if isinstance(error, (AssertionError, IndexError)):
                    raise
                step = dialogue.throw(error)
            else:
                step = dialogue.send(replies)
    except StopIteration as done:
        over.result = done.value
    except (AssertionError, IndexError):
        raise
    except BaseException as error:
        over.error = error
    finally:
        dialogue.close()
    assert over.answers == [], f"the server was not asked for {over.answers!r}"
    return over
