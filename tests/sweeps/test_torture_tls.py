"""Torture, with real sockets: the n-th call of transport, loop or `ssl` fails, from dialling to QUIT.

STARTTLS and a login, and TLS from the first octet with a pool: what is raised is an error of our
tree, what was told of each message is what the server knows, and after the blow the next message
arrives. How the calls are counted, and how they fail, is in `blows`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from asyncio import selector_events, sslproto
from collections.abc import Callable, Coroutine, Iterator
from typing import Any
from unittest import mock

import pytest

from aiosmtpclient import AsyncSMTP, Delivery, SMTPException, SMTPPool, dialling
from aiosmtpclient.chunking import VERDICTS
from aiosmtpclient.testing import CertificateAuthority, MailServer

from .blows import LOOP, TRANSPORT, Anvil, Blow, falling, most_ways
from .clock import HastyLoop, Stuck
from .figures import Figures, sample
from .judge import Judgement, Problem
from .trial import left_behind, pause

SHARE = 24
LAST = 4
PATIENCE = 1.0
"""Seconds in which a thread has made a context, on however slow a machine."""
OPTIONS = {"username": "me", "password": "s3cret", "timeout": 60.0}
OWNERS = (
    (
        selector_events._SelectorSocketTransport,
        set(TRANSPORT) - {"set_write_buffer_limits", "get_extra_info"},
    ),
    (sslproto._SSLProtocolTransport, set(TRANSPORT)),
    (HastyLoop, {*LOOP, "start_tls"}),
)


class Course:
    """What was told of each message, in one conversation.

    Attributes:
        told: message → the word.
        foreign: errors that are none of ours.
    """

    def __init__(self, server: MailServer, ca: bytes, anvil: Anvil) -> None:
        self.server, self.anvil = server, anvil
        self.options: dict[str, Any] = {**OPTIONS, "tls_ca": ca, "server_hostname": "localhost"}
        self.told: dict[int, Delivery] = {}
        self.foreign: list[str] = []

    async def attempt(self, what: str, work: Coroutine[Any, Any, Any]) -> None:
        """Do something that may fail, by an error of ours or by the blow itself."""
        try:
            await work
        except Exception as error:
            if not isinstance(error, SMTPException) and not self.anvil.shows_as_it_is(error):
                self.foreign.append(f"{what}: {error!r}")

    async def send(self, smtp: AsyncSMTP | SMTPPool, number: int) -> None:
        """Send one message, and note what is told of it."""
        await pause()  # what the blow did is seen by now
        self.anvil.resting = number == LAST

        async def sending() -> None:
            self.told[number] = Delivery.NOT_SENT
            try:
                content = f"Subject: m{number}\r\n\r\nHello.\r\n".encode()
                await smtp.sendmail("a@b.test", f"{number}@d.test", content)
            except Exception as error:
                self.told[number] = getattr(error, "delivery", None) or Delivery.NOT_SENT
                raise
            self.told[number] = Delivery.ACCEPTED

        await self.attempt(f"message {number}", sending())
        self.anvil.resting = False

    def connected(self, smtp: AsyncSMTP) -> bool:
        """Ask, which is no part of the conversation."""
        self.anvil.resting = True
        try:
            return smtp.is_connected
        finally:
            self.anvil.resting = False

    def made(self, kind: Callable[..., Any], **options: Any) -> Any:
        """A client or a pool; the second attempt meets no blow."""
        for _ in range(2):
            with contextlib.suppress(SMTPException, ValueError, MemoryError):
                return kind(self.server.host, self.server.port, **options, **self.options)
        raise AssertionError("a second blow")

    def judged(self) -> list[Problem]:
        """What is wrong with it."""
        problems = [Problem("foreign", text) for text in self.foreign]
        arrived = [message.recipients for message in self.server.messages]
        for number, word in self.told.items():
            taken = arrived.count((f"{number}@d.test",))
            wrong = {Delivery.ACCEPTED: taken != 1, Delivery.NOT_SENT: taken != 0, Delivery.REFUSED: True}
            if wrong.get(word, False) or (number == LAST and word is not Delivery.ACCEPTED):
                problems.append(Problem("wrong class", f"message {number}: {word}, taken {taken} times"))
            if taken > 1:
                problems.append(Problem("twice", f"message {number}"))
        if len(self.told) != LAST:
            problems.append(Problem("hang", f"told of {sorted(self.told)}"))
        return problems


async def starttls_and_login(course: Course) -> None:
    smtp = course.made(AsyncSMTP, tls="starttls")
    await course.attempt("connecting", smtp.connect())
    for number in (1, 2, 3, LAST):
        if number > 1 and not course.connected(smtp):
            await course.attempt("connecting again", smtp.connect())
        await course.send(smtp, number)
    await course.attempt("leaving", smtp.quit())
    smtp.close()


async def pool_inside_tls(course: Course) -> None:
    pool = course.made(SMTPPool, tls="implicit", max_connections=1, retries=0)
    for number in (1, 2, 3, LAST):
        await course.send(pool, number)
    await course.attempt("leaving", pool.close())
    await pool.close(0)


TALKS: dict[str, tuple[Callable[[Course], Coroutine[Any, Any, None]], dict[str, bool]]] = {
    "STARTTLS and login": (starttls_and_login, {"starttls": True}),
    "a pool inside TLS": (pool_inside_tls, {"implicit_tls": True}),
}


class Torture(Figures):
    """Figures of conversations with a blow, over real sockets."""

    def strike_at(self, loop: HastyLoop, name: str, authority: CertificateAuthority, blow: Blow) -> Anvil:
        """One conversation with one blow."""
        anvil = Anvil(blow)
        loop.wind()
        VERDICTS.forget()
        complaints: list[str] = []

        def handler(_: Any, context: dict[str, Any]) -> None:
            error = context.get("exception")
            if error is None or not str(error).endswith(str(anvil.raised)):
                complaints.append(f"{context.get('message')}: {error!r}")

        loop.set_exception_handler(handler)
        problems: list[Problem] = []
        try:
            problems += loop.run_until_complete(self._conversation(name, authority, anvil))
        except Stuck as error:
            self.note((name, blow, anvil.struck), Judgement([Problem("hang", str(error))], 0))
            raise
        problems += [Problem("leak", text) for text in (*complaints, *left_behind(loop))]
        self.note((name, blow, anvil.struck), Judgement(problems, 0))
        return anvil

    async def _conversation(self, name: str, authority: CertificateAuthority, anvil: Anvil) -> list[Problem]:
        talk, security = TALKS[name]
        inside: dict[str, Any] = {key: authority.server_context() for key in security}
        async with MailServer(users={"me": "s3cret"}, **inside) as server:
            course = Course(server, authority.ca_pem, anvil)
            with falling(anvil, OWNERS, of_ssl=True), failing_functions(anvil):
                await talk(course)
            anvil.resting = True
            for _ in range(50):
                await asyncio.sleep(0)
            left = len(server._open)
            return course.judged() + [Problem("leak", f"{left} connections are open")] * (left > 0)


@contextlib.contextmanager
def failing_functions(anvil: Anvil) -> Iterator[None]:
    """The two that are functions, and no methods: contexts are made by one, threads begun by the other."""
    create, to_thread = ssl.create_default_context, asyncio.to_thread

    def made(*arguments: Any, **options: Any) -> ssl.SSLContext:
        if anvil.way("context") is not None:
            raise anvil.fall()
        return create(*arguments, **options)

    async def threaded(*arguments: Any, **options: Any) -> Any:
        if anvil.way("run_in_executor") is not None:
            raise anvil.fall()
        return await to_thread(*arguments, **options)

    with (
        mock.patch.object(ssl, "create_default_context", made),
        mock.patch.object(asyncio, "to_thread", threaded),
        mock.patch.object(dialling, "_default_context", None),
    ):
        yield


@pytest.fixture(scope="module")
def authority() -> CertificateAuthority:
    return CertificateAuthority()


@pytest.fixture
def loop() -> Iterator[HastyLoop]:
    made = HastyLoop(PATIENCE)
    yield made
    made.run_until_complete(made.shutdown_default_executor())
    made.close()


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", TALKS)
def test_whichever_call_fails_on_the_way_through_tls(
    name: str, loop: HastyLoop, authority: CertificateAuthority, record_property
) -> None:
    figures = Torture("torture")
    calls = figures.strike_at(loop, name, authority, Blow()).calls
    for way in range(most_ways()):
        for nth in sample(range(1, calls + 1), SHARE, (name, way)):
            figures.strike_at(loop, name, authority, Blow(nth, way))
    figures.settle(record_property)
