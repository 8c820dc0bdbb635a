"""Target: a whole client, and a server that says anything at all, in pieces of any length.

What must hold: nothing but our errors, each with an account of every recipient; nobody hangs, and
nothing is left behind; the password is in no error; the client works with the next server. As long
as the server answers each command with one reply, whichever: nothing is written that a strict
server would not take, what is told about each recipient agrees with what the server knows, and all
of it is the same however the answers are split.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import Any

from aiosmtpclient import (
    AsyncLMTP,
    AsyncSMTP,
    Delivery,
    Envelope,
    RecipientOutcome,
    SMTPException,
)
from aiosmtpclient.replies import ReplyParser

from . import spoken
from .choices import Choices
from .counter import TIMEOUTS, Counter, play, settle
from .strict import Strict

PASSWORD = "s3cret-word"
PATIENCE = 2 * max(seconds or 0.0 for seconds in TIMEOUTS)
"""Seconds that a call may take where what comes, comes at once: one timeout, and one for a farewell."""
MOST_ANSWERS = 400
"""Answers of one server; none of these conversations needs so many."""
OFFERS: Sequence[Sequence[bytes]] = (
    (b"PIPELINING", b"SIZE", b"8BITMIME", b"CHUNKING", b"AUTH PLAIN LOGIN", b"STARTTLS"),
    (b"SIZE 1000", b"AUTH LOGIN"),
    (b"PIPELINING", b"LIMITS RCPTMAX=1", b"AUTH PLAIN"),
    (b"PIPELINING", b"CHUNKING", b"BINARYMIME"),
)
OPENING = ("greeting", "EHLO", "LHLO")
"""What is mostly answered rightly, or there is no conversation."""
SEEDS = (
    b"",
    bytes(range(200)),
    b"\0" * 10 + b"\x03\0" * 60,
    b"\x01\x02\x03" * 70,
    *(bytes([number]) * 3 + b"\0\0\x01\x02\0\0" * 20 for number in range(12)),
)


Told = tuple[int, type[SMTPException] | None, str, Delivery | None, Sequence[RecipientOutcome]]
"""Which call, which error and its text, or the result; what became of the message."""


def check(octets: bytes) -> None:
    """Converse; if the server was in step, once more with everything it said in pieces."""
    choices = Choices(octets)
    plan = Plan(choices)
    server = Babbler(choices)
    told, servers = _converse(plan, server)
    if not server.in_step:
        return
    assert not server.wrong, f"{server.wrong}; said {server.answers}"
    _agrees(told, plan, servers, server)
    if plan.options["pipelining"] != "stream" and plan.cut:
        cuts = Choices(octets[::-1])
        again = Babbler(cuts, server.answers)
        retold, _ = _converse(plan, again, cut=lambda said: _pieces(cuts, said))
        assert retold == told, f"the split matters: {server.answers}\n{told}\n{retold}"


def _pieces(cuts: Choices, said: bytes) -> list[bytes]:
    if cuts.flag():
        return [said[place : place + 1] for place in range(len(said))]
    return cuts.cut(said)


class Plan:
    """What the client is to do."""

    def __init__(self, choices: Choices) -> None:
        self.lmtp = choices.rarely(4)
        self.offers = choices.pick(OFFERS)
        self.options: dict[str, Any] = {
            "tls": choices.pick(("none", "none", "opportunistic")),
            "pipelining": choices.pick(("message", "off", "stream")),
            "chunking": choices.pick(("off", "eager", "auto")),
        }
        if choices.rarely(4):
            self.options |= {
                "tls": "none",
                "username": "ann",
                "password": PASSWORD,
                "allow_cleartext_auth": True,
            }
        self.verbs = [choices.pick(VERBS) for _ in range(choices.number(3) + 1)]
        self.recipients = choices.number(2) + 1
        self.as_stream = choices.flag()
        self.cut = choices.flag()
        self.once_more = choices.rarely(4)

    def envelope(self, number: int) -> Envelope:
        """Message number so and so."""
        recipients = [f"r{place}@m{number}.test" for place in range(self.recipients)]
        content: Any = body(number)
        return Envelope(f"me@m{number}.test", recipients, [content] if self.as_stream else content)


def body(number: int) -> bytes:
    """What it says."""
    return f"Subject: m{number}\r\n\r\n.\r\nEHLO m{number}\r\n".encode()


class Babbler:
    """What the first server says, and what it knows in the end.

    Args:
        choices: that decide it.
        answers: what is said again, if it was said before.

    Attributes:
        answers: what was said, one each, and whether it was the last.
        in_step: each answer was one whole reply.
    """

    def __init__(self, choices: Choices, answers: Sequence[tuple[bytes, bool]] | None = None) -> None:
        self._choices = choices
        self._script = None if answers is None else [*answers]
        self.answers: list[tuple[bytes, bool]] = []
        self.in_step = True
        self.server: Strict | None = None

    def open(self, offers: Sequence[bytes], lmtp: bool) -> Strict:
        """The server."""
        self.server = Strict(offers, lmtp=lmtp, speak=self._speak)
        return self.server

    @property
    def wrong(self) -> list[str]:
        """What it complains about."""
        return self.server.wrong if self.server is not None else []

    def _speak(self, verb: str, right: bytes) -> bytes:
        if self._script is None:
            said, closes = self._answer(verb, right)
        else:
            assert self._script, f"one answer more is wanted: to {verb}"
            said, closes = self._script.pop(0)
        self.answers.append((said, closes))
        if self.server is not None:
            self.server.closed = closes
        assert len(self.answers) < MOST_ANSWERS, "it does not end"
        parser = ReplyParser()
        replies = parser.feed(said)
        self.in_step = self.in_step and len(replies) == 1 and not parser.pending and parser.error is None
        if self.server is not None and verb in ("EHLO", "LHLO") and replies:
            # What it offers is what it said last, not what it was to say.
            lines = replies[0].message.upper().split(b"\n")[1:]
            self.server.keywords = {re.split(rb"[ \t=]", line)[0] for line in lines}
        return said

    def _answer(self, verb: str, right: bytes) -> tuple[bytes, bool]:
        choices = self._choices
        kind = choices.number(199 if verb in OPENING else 55)
        if not 18 <= kind < 32:
            return right, False
        if kind < 26:
            octets = choices.pick(spoken.CODES) + b" " + spoken.text(choices).replace(b"\n", b"") + b"\r\n"
            return octets, choices.rarely(6)
        if kind < 28:
            return spoken.one(choices), False
        if kind == 28:
            return right + spoken.one(choices), False
        if kind == 29:
            return b"", False
        if kind == 30:
            return choices.octets(30), False
        return right[: len(right) - choices.number(len(right))], True


# -- what the client does ------------------------------------------------------------------------------


def _converse(
    plan: Plan, babbler: Babbler, cut: Callable[[bytes], Sequence[bytes]] = lambda octets: [octets]
) -> tuple[list[Told], list[Strict]]:
    """Play it; returns what was told, in order, and by whom."""
    counter = Counter(
        lambda: babbler.open(plan.offers, plan.lmtp), lambda: Strict(OFFERS[0], lmtp=plan.lmtp), cut=cut
    )
    smtp = (AsyncLMTP if plan.lmtp else AsyncSMTP)(
        "strict.test", 25, timeout=TIMEOUTS, local_hostname="me", **plan.options
    )
    told: list[Told] = []
    play(counter, _do(smtp, plan, told))
    for server in counter.servers[1:]:
        assert not server.wrong, server.wrong
        assert not server.disorder, server.commands
    return told, counter.servers


async def _do(smtp: AsyncSMTP, plan: Plan, told: list[Told]) -> None:
    await _one(told, 0, smtp.connect())
    for number, verb in enumerate(plan.verbs, 1):
        await _one(told, number, verb(smtp, plan, number))
        if not smtp.is_connected:
            break
    await _one([], 0, smtp.quit())  # of a connection that is over, whoever looks first says why
    smtp.close()
    if plan.once_more:
        await smtp.connect()
        result = await smtp.sendmail("me@last.test", ["ann@last.test"], body(0))
        assert [outcome.delivery for outcome in result.outcomes] == [Delivery.ACCEPTED]
        await smtp.quit()
    await settle()


async def _one(told: list[Told], number: int, verb: Any) -> None:
    """One call; what came of it."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    try:
        result = await verb
    except SMTPException as error:
        text = str(error)
        assert text.isprintable(), text
        assert PASSWORD not in text + repr(error) + repr(error.__context__)
        assert isinstance(error.delivery, Delivery)
        told.append((number, type(error), text, error.delivery, error.outcomes))
    else:
        told.append((number, None, str(result), None, getattr(result, "outcomes", ())))
    assert loop.time() - started <= PATIENCE, f"call {number} took {loop.time() - started} s"


async def _sendmail(smtp: AsyncSMTP, plan: Plan, number: int) -> object:
    envelope = plan.envelope(number)
    try:
        return await smtp.sendmail(envelope.sender, envelope.recipients, envelope.content)
    except SMTPException as error:
        assert [outcome.address for outcome in error.outcomes] == [*envelope.recipients], error.outcomes
        raise


async def _send_messages(smtp: AsyncSMTP, plan: Plan, number: int) -> object:
    envelopes = [plan.envelope(number * 10 + place) for place in range(2)]
    outcomes = [outcome async for outcome in smtp.send_messages(envelopes)]
    assert sorted(outcome.index for outcome in outcomes) == [0, 1]
    every: list[RecipientOutcome] = []
    for outcome in sorted(outcomes, key=lambda one: one.index):
        assert outcome.error is None or isinstance(outcome.error, SMTPException), repr(outcome.error)
        assert [one.address for one in outcome.outcomes] == [*envelopes[outcome.index].recipients]
        every += outcome.outcomes
    return _Many(every)


class _Many:
    def __init__(self, outcomes: list[RecipientOutcome]) -> None:
        self.outcomes = tuple(outcomes)

    def __str__(self) -> str:
        return f"{self.outcomes}"


async def _noop(smtp: AsyncSMTP, plan: Plan, number: int) -> object:
    return await smtp.noop()


async def _vrfy(smtp: AsyncSMTP, plan: Plan, number: int) -> object:
    return await smtp.vrfy("ann@a.test")


async def _rset(smtp: AsyncSMTP, plan: Plan, number: int) -> object:
    return await smtp.rset()


async def _ehlo(smtp: AsyncSMTP, plan: Plan, number: int) -> object:
    return await smtp.ehlo()


async def _login(smtp: AsyncSMTP, plan: Plan, number: int) -> object:
    return await smtp.login("ann", PASSWORD, mechanisms=["LOGIN", "PLAIN"])


async def _starttls(smtp: AsyncSMTP, plan: Plan, number: int) -> object:
    return await smtp.starttls()


VERBS: Sequence[Callable[[AsyncSMTP, Plan, int], Any]] = (
    _sendmail, _send_messages, _sendmail, _noop, _vrfy, _rset, _ehlo, _login, _starttls,
)  # fmt: skip


# -- what the server knows --------------------------------------------------------------------------------


def _agrees(told: list[Told], plan: Plan, servers: list[Strict], babbler: Babbler) -> None:
    """No false word: accepted is what it took, and what it took is accepted, or unknown."""
    taken: dict[str, bool] = {}
    for transaction in [one for server in servers for one in server.transactions]:
        found = re.fullmatch(rb"me@m([0-9]+)\.test", transaction.sender)
        if transaction.content is None or found is None:
            continue
        codes = transaction.verdicts if plan.lmtp else transaction.verdicts[:1] * len(transaction.accepted)
        for path, code in zip(transaction.accepted, codes, strict=False):
            if 200 <= code <= 299:
                assert transaction.content == body(int(found[1])), transaction
                taken[path.decode()] = True
    for *_, outcomes in told:
        for outcome in outcomes:
            if outcome.delivery is Delivery.ACCEPTED:
                assert taken.get(outcome.address), f"{outcome} is not so: {babbler.answers}"
            elif outcome.delivery is not Delivery.UNKNOWN:
                assert not taken.get(outcome.address), f"{outcome} is not so: {babbler.answers}"
