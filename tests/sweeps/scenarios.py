"""In which ways messages are sent: every mode, both protocols, one recipient or three.

Rules of this room:

* A scenario is data. The same ones serve every sweep; each takes those that matter to it.
* Small gauge: what is large for the client (content that takes more than one write) is made
  small, so that every octet of it can be a place where something happens.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

from aiosmtpclient import (
    AsyncLMTP,
    AsyncSMTP,
    Envelope,
    SMTPPool,
    Timeouts,
    bodies,
    driver,
    protocol,
    transactions,
)

from .post import BAD, SENDER, address

TIMEOUTS = Timeouts(connect=3.0, reply=5.0, write=7.0, final=11.0)
"""Each another, so that it shows which one was waited for."""
NAMES = ("ann", BAD, "cat")
GAUGE = 64
"""Octets of a slice in small gauge."""


@dataclass(frozen=True)
class Scenario:
    """How the messages are sent.

    Attributes:
        pipelining, chunking: the client's options.
        lmtp: by LMTP.
        recipients: 1, or 3 of which one is refused.
        size: "small" (one write), "large" (several) or "pieces" (an iterable).
        many: by `send_messages`; else each by its own `sendmail`.
        refused: messages whose content the server refuses.
        pooled: through a pool of two connections, of which one was used before, so that messages flow there.
    """

    pipelining: str
    chunking: str
    lmtp: bool = False
    recipients: int = 3
    size: str = "small"
    many: bool = False
    refused: tuple[int, ...] = ()
    pooled: bool = False

    def __str__(self) -> str:
        words = [
            self.pipelining,
            {"off": "DATA", "eager": "BDAT", "auto": "auto"}[self.chunking],
            "LMTP" if self.lmtp else "SMTP",
            f"to {self.recipients}",
        ]
        words += [self.size] * (self.size != "small") + ["send_messages"] * self.many
        words += ["pool"] * self.pooled
        words += [f"{number} refused" for number in self.refused]
        return " ".join(words)

    @property
    def at_once(self) -> bool:
        """The messages are in flight together."""
        return self.pipelining == "stream"

    @property
    def lock_step(self) -> bool:
        """Never more than one reply is owed (but for LMTP's behind the content)."""
        return self.pipelining == "off"

    def names(self) -> tuple[str, ...]:
        return NAMES if self.recipients == 3 else NAMES[:1]

    def content(self, number: int) -> bytes:
        """What message `number` must look like when it arrives."""
        lines = [f"Subject: m{number}", "", ".", "..dots", f"END-m{number}", ""]
        if self.size != "small":
            lines[4:4] = ["." + "x" * 40] * 4
        return "\r\n".join(lines).encode()

    def body(self, number: int) -> Any:
        content = self.content(number)
        return [content[:30], content[30:31], content[31:]] if self.size == "pieces" else content

    def envelope(self, number: int) -> Envelope:
        to = [address(name, number) for name in self.names()]
        return Envelope(SENDER.format(number), to, self.body(number))

    def client(self, host: str = "127.0.0.1", port: int = 25, **options: Any) -> AsyncSMTP:
        kind = AsyncLMTP if self.lmtp else AsyncSMTP
        options = {"tls": "none", "timeout": TIMEOUTS, "local_hostname": "client.test"} | options
        return kind(host, port, pipelining=self.pipelining, chunking=self.chunking, **options)

    def pool(self) -> SMTPPool:
        return SMTPPool(
            "127.0.0.1",
            25,
            local_hostname="client.test",
            timeout=TIMEOUTS,
            tls="none",
            max_connections=2,
            retries=0,
            pipelining=self.pipelining,  # type: ignore[arg-type]  # a scenario is data
            chunking=self.chunking,  # type: ignore[arg-type]  # likewise
        )

    def gauge(self) -> contextlib.AbstractContextManager[None]:
        """What the client takes for large is as large as these messages."""
        return contextlib.nullcontext() if self.size == "small" else small_gauge()


@contextlib.contextmanager
def small_gauge() -> Iterator[None]:
    with (
        mock.patch.object(driver, "ONE_WRITE", GAUGE),
        mock.patch.object(transactions, "ONE_WRITE", GAUGE),
        mock.patch.object(bodies, "SLICE", GAUGE),
        mock.patch.object(protocol, "HIGH_WATER", GAUGE),
        mock.patch.object(protocol, "MUCH", GAUGE),
    ):
        yield


def _matrix() -> list[Scenario]:
    found = []
    for lmtp in (False, True):
        for recipients in (1, 3):
            for pipelining in ("off", "message", "stream"):
                for chunking in ("off", "eager"):
                    found.append(Scenario(pipelining, chunking, lmtp, recipients))
            found += [
                Scenario("message", "off", lmtp, recipients, "large"),
                Scenario("off", "eager", lmtp, recipients, "large"),
                Scenario("message", "eager", lmtp, recipients, "large"),
                Scenario("message", "eager", lmtp, recipients, "pieces"),
                Scenario("stream", "off", lmtp, recipients, "large"),
                Scenario("stream", "eager", lmtp, recipients, "large"),
                Scenario("stream", "eager", lmtp, recipients, "pieces"),
                Scenario("message", "auto", lmtp, recipients, many=True),
                Scenario("stream", "off", lmtp, recipients, many=True),
                Scenario("stream", "eager", lmtp, recipients, many=True),
                Scenario("stream", "auto", lmtp, recipients, many=True),
            ]
    return found


SCENARIOS = _matrix()
"""What every sweep goes through."""
FLOWS = [
    Scenario("message", chunking, recipients=recipients, many=True, pooled=True)
    for chunking in ("off", "eager")
    for recipients in (1, 3)
]
"""Messages of a run that follow one another where the last reply was read."""


def refusing(scenarios: list[Scenario]) -> list[Scenario]:
    """The same small ones, with the second message's content refused: there a yes can be false."""
    plain = [one for one in scenarios if one.size == "small" and one.recipients == 3]
    return [replace(one, refused=(2,)) for one in plain]
