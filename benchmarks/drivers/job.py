"""What runner and drivers have in common: the job, the result, the mail, the client's face."""

from __future__ import annotations

import abc
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["send", "connect", "memory", "file", "stall", "idle", "borrow", "import"]
Style: TypeAlias = Literal["bytes", "text", "attachment"]

# What all clients say EHLO with: some would otherwise ask the DNS for it while the clock runs.
HELLO_NAME = "client.example"
IN_FLIGHT = 16


class NotAvailable(Exception):
    """This client is not installed here, or does not know this way. Its row is left out."""


@dataclass(frozen=True, slots=True)
class Job:
    """One run of one client.

    Attributes:
        kind: what is done: "send" messages; "connect", say hello and quit; "memory" for one
            large message, for one "file"; "stall" of the loop by one large message; "idle"
            connections; "borrow" one from a pool and give it back; "import".
        client: which client, a key of the registry in `drivers.registry`.
        way: how it is asked to send; each client knows its own ways.
        loop: "asyncio" or "uvloop"; nothing to a client without a loop.
        size: octets of a message, or of an attachment.
        recipients: for each message.
        style: ready bytes, an `EmailMessage` of plain text, or one with an attachment.
        seconds: how long to measure.
        count: send exactly so many messages, without warming up; 0 to measure.
        seed: different in each run, so that no two runs send the same messages.
        connections: how many there are; each sends one message after the other.
    """

    kind: Kind
    client: str
    way: str
    loop: str
    port: int
    size: int = 1024
    recipients: int = 1
    style: Style = "bytes"
    seconds: float = 0.5
    count: int = 0
    seed: int = 0
    connections: int = 1

    def dumps(self) -> str:
        """This job on a command line."""
        return json.dumps(asdict(self))


@dataclass(frozen=True, slots=True)
class Result:
    """What a driver found out.

    Attributes:
        value: in the base unit of the kind: messages a second, connections a second, KiB of
            extra memory, KiB a connection, milliseconds, microseconds.
        seconds: of the time that was measured.
        messages: sent while it was measured (or connections made, or borrowed).
        octets: of their contents, as far as the driver knows; 0 if it does not.
        sent: messages sent altogether, which is what the sink must have seen.
        cpu_seconds: of this process while it was measured.
        maxrss_kib: the most memory this process ever had.
    """

    value: float
    seconds: float
    messages: int
    octets: int
    sent: int
    cpu_seconds: float
    maxrss_kib: int

    def dumps(self) -> str:
        """This result as one line."""
        return json.dumps(asdict(self))


@dataclass(frozen=True, slots=True)
class Mail:
    """One message and its envelope. Its recipients are a list because some peers insist."""

    sender: str
    recipients: list[str]
    content: bytes | EmailMessage | Path

    def octets(self) -> bytes:
        """The content for a client that takes nothing but bytes: a file is read whole."""
        if isinstance(self.content, EmailMessage):
            raise AssertionError(self.content)
        return self.content.read_bytes() if isinstance(self.content, Path) else self.content


class Client(abc.ABC):
    """One connection of one client, or as many as the job says, driven the way its user would.

    A client raises `NotAvailable` when it is made if it cannot do the job, and whatever it likes
    if a message was not accepted: a run with a lost message is no measurement.
    """

    @abc.abstractmethod
    async def connect(self) -> None:
        """Connect and say EHLO."""

    def prepare(self, mails: Sequence[Mail]) -> None:  # noqa: B027 - most have nothing to do
        """See what will be sent next. Not measured: only the limit client may use it."""

    @abc.abstractmethod
    async def send(self, mails: Sequence[Mail]) -> None:
        """Send all of them; back when each was accepted. This is what is measured."""

    async def borrow(self, times: int) -> None:
        """Borrow a connection and give it back, so many times."""
        raise NotAvailable("this way lends nothing")

    @abc.abstractmethod
    async def quit(self) -> None:
        """Say QUIT and close."""
