"""The conversations, each a generator that reads like its RFC.

A dialogue yields steps and is sent their replies. It is tested with `next()` and `send()`: no
socket, no loop, no mock. The conversation about a message is in `transactions`.

=====================  ==========================================================
`greet`                RFC 5321 section 3.1, the 220 that opens the session
`hello`                RFC 5321 section 4.1.1.1, RFC 2033 section 4.1
`starttls`             RFC 3207
`authenticate`         RFC 4954
`reset`, `quit_`       RFC 5321 section 4.1.1.5 and 4.1.1.10
`command`              anything else with one reply
=====================  ==========================================================

Rules of this room:

* The first digit decides, except where the RFC names one code (the greeting, EHLO, STARTTLS,
  AUTH). A reply of a class that cannot answer its command is a protocol error: the dialogue
  gives the connection up before it raises.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections.abc import Awaitable, Callable, Generator
from typing import NamedTuple, NoReturn

from . import commands, sasl
from .errors import (
    SMTPAuthenticationError,
    SMTPConnectError,
    SMTPException,
    SMTPHeloError,
    SMTPProtocolError,
)
from .extensions import Extensions
from .replies import Reply
from .steps import AuthObject, Dialogue, Phase, Step, ask, give_up, handshake

MAX_CHALLENGE = 12288
"""Octets of base64 a challenge may have (RFC 4954 section 4)."""
MAX_CHALLENGES = 5
"""Challenges an authobject answers before the server is thought to be looping, as in smtplib."""


class Hello(NamedTuple):
    """What came of saying hello: the verb that was answered, the reply, and what it offers."""

    verb: str
    reply: Reply
    extensions: Extensions


# -- opening -------------------------------------------------------------------------------


def greet(greeting: Step) -> Dialogue[Reply]:
    """Read the greeting.

    Raises:
        SMTPConnectError: the server does not want to talk (RFC 5321 section 3.1: 220 or no service).
    """
    [reply] = yield greeting
    if reply.code != 220:
        raise SMTPConnectError(reply.code, reply.message, reply=reply)
    return reply


def hello(verb: str, name: str, *, fallback: bool = False) -> Dialogue[Hello]:
    """Say EHLO, LHLO or HELO; with `fallback`, HELO when EHLO is refused for good.

    Raises:
        SMTPHeloError: refused (RFC 5321 section 4.1.1.1 knows one good answer, 250).
    """
    [reply] = yield Step(commands.hello(verb, name), verb)
    if reply.code == 250:
        return Hello(verb, reply, Extensions() if verb == "HELO" else Extensions.parse(reply.message))
    if fallback and verb == "EHLO" and reply.permanent:
        return (yield from hello("HELO", name))
    if not (reply.temporary or reply.permanent):
        yield from broken(reply, verb)
    raise SMTPHeloError(reply.code, reply.message, reply=reply, command=verb)


def starttls() -> Dialogue[Reply]:
    """Ask for TLS and bring it up; returns the reply, which is 220 if TLS is up now.

    Raises:
        SMTPProtocolError: neither 220 nor a refusal (RFC 3207 section 4): who knows what it did.
    """
    [reply] = yield Step(commands.STARTTLS, "STARTTLS")
    if reply.code == 220:
        yield handshake()
    elif not (reply.temporary or reply.permanent):
        yield from broken(reply, "STARTTLS")
    return reply


# -- letting us in -------------------------------------------------------------------------

_Responder = Generator[Step, list[Reply], bytes | None]

Aside = Callable[[Callable[[], None]], Awaitable[None]]
"""Runs a function elsewhere than on the event loop."""

_NO_SENSE = "the server's challenge makes no sense"


class _Mechanism:
    """One of ours: a generator of responses.

    Attributes:
        reason: why there is no response, once there is none.
        unproven: the server did not prove who it is.
        oauth: what it said about a token, if it did.
    """

    def __init__(self, name: str, mechanism: sasl.Mechanism, aside: Aside | None) -> None:
        self._mechanism = mechanism
        self._mutual = name in sasl.MUTUAL
        self._aside = aside
        self._response: bytes | None = None
        self.reason = _NO_SENSE
        self.unproven = False
        self.oauth: dict[str, str] | None = None
        # PLAIN's and LOGIN's challenges carry nothing but a prompt: position decides.
        self.ignores_text = name in sasl.PROMPT_ONLY

    @property
    def failed(self) -> bool:
        """It is over before anything was said."""
        return self.reason is not _NO_SENSE

    def first(self) -> _Responder:
        return (yield from self._advanced(lambda: next(self._mechanism)))

    def next(self, challenge: bytes) -> _Responder:
        return (yield from self._advanced(lambda: self._mechanism.send(challenge)))

    def doubt(self) -> str:
        """The server says that the login succeeded: why that is not believed, or nothing."""
        if self._mutual:
            self._advance(lambda: self._mechanism.send(None))
        return self.reason if self.unproven else ""

    def _advanced(self, advance: Callable[[], bytes | sasl.Complaint | None]) -> _Responder:
        if self._aside is None:
            self._advance(advance)
        else:
            aside = self._aside
            # The response comes by way of an attribute: asyncio's debug mode shows what futures hold.
            yield ask(lambda: aside(lambda: self._advance(advance)), None)
        return self._response

    def _advance(self, advance: Callable[[], bytes | sasl.Complaint | None]) -> None:
        self._response = None
        try:
            self._take(advance())
        except StopIteration as over:
            self.reason = over.value or _NO_SENSE
        except sasl.Unproven as unproven:
            self.reason, self.unproven = str(unproven), True

    def _take(self, answer: bytes | sasl.Complaint | None) -> None:
        if isinstance(answer, sasl.Complaint):
            self.oauth = dict(answer.details)
            self._response = answer.response
        else:
            self._response = answer


class _Callable:
    """smtplib's kind: an authobject that the caller wrote."""

    ignores_text = failed = unproven = False
    reason = _NO_SENSE
    oauth: dict[str, str] | None = None

    def __init__(self, authobject: AuthObject, initial_response_ok: bool) -> None:
        self._authobject = authobject
        self._initial_response_ok = initial_response_ok
        self._challenges = 0

    def _ask(self, challenge: bytes | None) -> _Responder:
        step = ask(self._authobject, challenge)
        yield step
        return _octets_of(step)

    def doubt(self) -> str:
        return ""

    def first(self) -> _Responder:
        return (yield from self._ask(None)) if self._initial_response_ok else None

    def next(self, challenge: bytes) -> _Responder:
        self._challenges += 1
        return (yield from self._ask(challenge)) if self._challenges <= MAX_CHALLENGES else None


def _octets_of(step: Step) -> bytes | None:
    if not isinstance(step.answer, str):
        return step.answer
    try:
        return step.answer.encode()
    except UnicodeEncodeError:
        pass  # it holds the whole text: it must not become the context of ours
    raise ValueError("the authobject's response has no UTF-8 form")


def authenticate(
    name: str, mechanism: sasl.Mechanism, *, initial_response_ok: bool = True, aside: Aside | None = None
) -> Dialogue[Reply]:
    """Log in with one of the mechanisms of `sasl` (RFC 4954).

    Args:
        name: the mechanism's.
        mechanism: its generator.
        initial_response_ok: False to wait for a challenge first.
        aside: where to let it compute, if that takes long.

    Raises:
        SMTPAuthenticationError: refused, or the server's challenges make no sense, or it did not
            prove who it is.
    """
    return (yield from _authenticate(name, _Mechanism(name, mechanism, aside), initial_response_ok))


def authenticate_with(name: str, authobject: AuthObject, *, initial_response_ok: bool) -> Dialogue[Reply]:
    """Log in with responses made by the caller's own authobject, as `smtplib.SMTP.auth` does."""
    return (yield from _authenticate(name, _Callable(authobject, initial_response_ok), True))


def _authenticate(name: str, responder: _Mechanism | _Callable, initial_response_ok: bool) -> Dialogue[Reply]:
    commands.auth(name)  # a bad name is found before anybody is asked for a secret
    opening, held = _auth_steps(name, (yield from responder.first()), initial_response_ok)
    if responder.failed:
        raise SMTPAuthenticationError(-1, responder.reason.encode(), command=f"AUTH {name}")
    [reply] = yield opening
    while reply.code == 334:
        # The server waits for a response: a connection that is left now is of no use to anybody.
        yield Step(owed=0, during=Phase.CONTENT, then=Phase.CONTENT)
        answer, held = held, None
        try:
            answer = answer or (yield from _answer(responder, reply))
        except Exception:
            # The caller's own code failed: leave the exchange, then let it through, whatever comes.
            with contextlib.suppress(SMTPException):
                yield from _leave_exchange()
            raise
        if answer is None:
            return (yield from _cancel(name, responder))
        [reply] = yield answer
    if reply.code == 235:
        return (yield from _believed(name, responder, reply))
    if not (reply.temporary or reply.permanent):
        yield from broken(reply, "AUTH")
    refused = SMTPAuthenticationError(reply.code, reply.message, reply=reply, command=f"AUTH {name}")
    refused.oauth = responder.oauth
    raise refused


def _believed(name: str, responder: _Mechanism | _Callable, reply: Reply) -> Dialogue[Reply]:
    """The 235, if it comes from where it should (RFC 5802 section 3: the server proves itself too)."""
    if doubt := responder.doubt():
        yield give_up()
        raise SMTPAuthenticationError(-1, doubt.encode(), command=f"AUTH {name}")
    return reply


def _auth_steps(name: str, initial: bytes | None, initial_response_ok: bool) -> tuple[Step, Step | None]:
    """AUTH, and the initial response if that is not to go with it.

    They are steps, here and below, because a step shows nothing: no local variable of a
    dialogue that may raise holds a response.
    """
    shown = b"AUTH " + name.encode("ascii")
    alone = Step(commands.auth(name), "AUTH", masked=shown + b"\r\n")
    if initial is None:
        return alone, None
    line = commands.auth(name, initial)
    if initial_response_ok and commands.fits(line):
        return Step(line, "AUTH", masked=shown + b" ***\r\n"), None
    return alone, _response(initial)  # not wanted, or too long for a command: after the 334


def _response(response: bytes) -> Step:
    return Step(commands.auth_response(response), "AUTH", masked=b"***\r\n")


def _answer(responder: _Mechanism | _Callable, reply: Reply) -> Generator[Step, list[Reply], Step | None]:
    """The step that answers a challenge, or None if it makes no sense."""
    response = yield from _respond(responder, reply)
    return None if response is None else _response(response)


def _respond(responder: _Mechanism | _Callable, reply: Reply) -> _Responder:
    """The response to a challenge, or None if it makes no sense."""
    if len(reply.message) > MAX_CHALLENGE or not (_is_base64(reply.message) or responder.ignores_text):
        return None
    # No name for what it says: a server may echo a secret there.
    return (yield from responder.next(_decoded(reply.message)))


def _is_base64(text: bytes) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except binascii.Error:
        return False
    return True


def _decoded(text: bytes) -> bytes:
    return base64.b64decode(text, validate=True) if _is_base64(text) else b""


def _leave_exchange() -> Dialogue[Reply]:
    """Say `*` and read the refusal it earns (RFC 4954 section 4)."""
    [reply] = yield Step(commands.AUTH_CANCEL, "AUTH")
    if not (reply.temporary or reply.permanent):
        yield from broken(reply, "AUTH")
    return reply


def _cancel(name: str, responder: _Mechanism | _Callable) -> Dialogue[Reply]:
    """Leave the exchange, and fail. To a server that is not the right one nothing more is said."""
    reply = yield from _leave_exchange()
    text = f"{responder.reason}, so the exchange was cancelled; it said: ".encode() + reply.message
    code = reply.code
    if responder.unproven:
        yield give_up()
        code = -1
    raise SMTPAuthenticationError(code, text, command=f"AUTH {name}")


# -- single commands -----------------------------------------------------------------------


def command(
    line: bytes, verb: str, *, during: Phase = Phase.READY, then: Phase | None = None
) -> Dialogue[Reply]:
    """Anything that is one line and has one reply. What it says is the caller's to judge.

    Raises:
        SMTPProtocolError: a 3yz, which asks for more where there is no more (RFC 5321 section 4.3.2).
    """
    [reply] = yield Step(line, verb, during=during, then=during if then is None else then)
    if reply.intermediate:
        yield from broken(reply, verb)
    return reply


def claim(during: Phase) -> Dialogue[Reply]:
    """Read the reply to octets that the caller wrote himself."""
    [reply] = yield Step(b"", "the caller's command", during=during)
    return reply


def raw(line: bytes, verb: str, phase: Phase) -> Dialogue[Reply]:
    """A line of the caller's own. After a 3yz the next one belongs to it, whatever it looks like."""
    masked = None
    if phase is Phase.CONTENT or verb.upper().startswith("AUTH"):
        masked = b"***\r\n"  # an AUTH exchange by hand: nobody can tell what is secret in it
    outside = Phase.MAIL if phase is Phase.MAIL else Phase.READY
    [reply] = yield Step(line, verb, during=outside, then=outside, masked=masked)
    if reply.intermediate:
        yield Step(owed=0, during=Phase.CONTENT, then=Phase.CONTENT)
    return reply


def reset() -> Dialogue[Reply]:
    """Abort the transaction (RFC 5321 section 4.1.1.5); without a 2yz nobody knows where we are."""
    [reply] = yield Step(commands.RSET, "RSET", during=Phase.MAIL)
    if not reply.positive:
        yield give_up()
    return reply


def quit_(patience: float | None = None) -> Dialogue[Reply]:
    """Say QUIT (RFC 5321 section 4.1.1.10). The connection is to be closed, whatever comes.

    Args:
        patience: seconds to wait for the reply, if less than for others.
    """
    [reply] = yield Step(commands.QUIT, "QUIT", then=Phase.CLOSING, patience=patience, last=True)
    return reply


def broken(reply: Reply, verb: str) -> Generator[Step, list[Reply], NoReturn]:
    """Give the connection up and say that this reply cannot be an answer to that command."""
    yield give_up()
    raise SMTPProtocolError(reply.code, reply.message, reply=reply, command=verb)
