"""Target: what a server says while we log in (RFC 4954), for every mechanism that is to be had here.

What must hold: the dialogue ends, with a 235 or with one of our errors; what is written is AUTH,
and responses in base64 or `*`, all of them of use; a server is believed by a mechanism that asks
for a proof only if it gave the right one; the secret is in no error, no `oauth`, no trace.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import hmac
import json
import re
from collections.abc import Callable
from unittest import mock

from scramp import core as scramp_core

from aiosmtpclient import SMTPAuthenticationError, SMTPException, SMTPServerDisconnected, dialogues, sasl
from aiosmtpclient.replies import Reply
from aiosmtpclient.secret import Credentials
from aiosmtpclient.session import Session
from aiosmtpclient.steps import Dialogue, Phase, Step

from . import spoken
from .choices import Choices

USERS = ("user", "ann@a.test", "a,b=c", "ü", "", "u" * 400, "user\u2126", "\u00ad")
PASSWORDS = ("s3cret-word", "pässwörd-ß", "w" * 300, "\u2168-s3cret", "s3cret\ud83d\ude00"[:6], "a b-s3cret")
MECHANISMS = ("CALLER", *(name for name in sasl.MECHANISMS if sasl.available(name)))
MOST_EXCHANGES = 8
"""Replies that any exchange may take: 5 challenges that an authobject answers, and what is around them."""
SEEDS = tuple(
    bytes([number, 0, 0, 0, 0, 0]) + rest
    for number in range(len(MECHANISMS))
    for rest in (b"\x01" * 30, b"\0\x01" * 20, b"\x01\0" * 30 + b"\x02" * 20)
)

_PIECES = (
    b"r=", b",s=", b",i=4096", b",i=1", b",i=99999999999", b",i=x", b"v=", b"e=other-error", b"m=x", b",",
    b"=", b"c2l4dGVlbiBvY3RldHMuLg==", b"nonce", b"{", b"}", b'"status":"401"', b'"scope":', b"[" * 600,
    b"1" * 5000, b"null", b"NaN", b"\xff", b"NTLMSSP\0", b"\x02\0\0\0", b"\0" * 8,
    b"<1896.697170952@postoffice.example.test>", b"s3cret-word", b"\x1b[2J", b"x" * 2000,
)  # fmt: skip
_LINE = re.compile(rb"AUTH [A-Z0-9_-]{1,20}(?: (?:=|[A-Za-z0-9+/]+={0,2}))?\r\n")
_RESPONSE = re.compile(rb"(?:[A-Za-z0-9+/]+={0,2})?\r\n|\*\r\n")


class Unreasonable(Exception):
    """What a caller's authobject raises."""


def check(octets: bytes) -> None:
    """Log in once."""
    choices = Choices(octets)
    name = choices.pick(MECHANISMS)
    credentials = Credentials(choices.pick(USERS), choices.pick(PASSWORDS), choices.pick(("", "", "boss")))
    if name in sasl.WITH_TOKEN and not choices.rarely():
        credentials = Credentials(credentials.user, "s3cret-word", credentials.authorization_id)
    server = Server(name, choices, credentials)
    initial = not choices.flag()
    with mock.patch.multiple(scramp_core, hi=_salted, token_hex=lambda *size: "n" * 24, saslprep=_prepared):
        try:
            dialogue = _dialogue(name, choices, credentials, initial)
        except ValueError as error:
            _look_at(error, credentials)
            return
        _drive(dialogue, server, credentials)


def _dialogue(name: str, choices: Choices, credentials: Credentials, initial: bool) -> Dialogue[Reply]:
    if name == "CALLER":
        answers = [choices.pick(_ANSWERS) for _ in range(8)]
        return dialogues.authenticate_with("X-OURS", _authobject(answers), initial_response_ok=initial)
    channel = sasl.Channel(b"u" * 12, None) if name.endswith("-PLUS") or choices.flag() else None
    peer = sasl.Peer("mail.test", choices.pick((25, 0)), channel=channel, plus=choices.flag())
    return dialogues.authenticate(name, sasl.MECHANISMS[name](credentials, peer), initial_response_ok=initial)


_ANSWERS: tuple[object, ...] = ("s3cret-word", b"s3cret-word", "", b"", None, "\ud800", Unreasonable())


def _authobject(answers: list[object]) -> Callable[..., str | bytes | None]:
    def answer(*challenge: bytes) -> str | bytes | None:
        given = answers.pop()
        if isinstance(given, Unreasonable):
            raise given
        assert given is None or isinstance(given, str | bytes)
        return given

    return answer


# -- the exchange --------------------------------------------------------------------------------


def _drive(dialogue: Dialogue[Reply], server: Server, credentials: Credentials) -> None:
    traced: list[bytes] = []
    session = Session("mail.test:25", lambda event, octets: traced.append(octets))
    session.receive_data(b"220 hi\r\n")
    session.keep_secret(sasl.secrets_of(credentials))
    try:
        reply = _run(dialogue, session, server)
    except SMTPException as error:
        _look_at(error, credentials)
        if isinstance(error, SMTPAuthenticationError):
            told = error.oauth or {}
            assert all(text.isprintable() for pair in told.items() for text in pair), told
            _hides(repr(told), credentials)
    except ValueError as error:
        assert not isinstance(error, UnicodeError)
        assert not server.heard or server.name == "CALLER", f"a ValueError in the middle: {error}"
        _look_at(error, credentials)
    except Unreasonable:
        assert server.name == "CALLER"
    else:
        assert reply.code == 235
        assert server.proven or server.name not in sasl.MUTUAL, "believed without a proof"
    finally:
        dialogue.close()
    for octets in traced:
        _hides(octets.decode("latin-1"), credentials)


def _run(dialogue: Dialogue[Reply], session: Session, server: Server) -> Reply:
    try:
        step = next(dialogue)
        while True:
            try:
                replies = _perform(step, session, server)
            except Exception as error:
                step = dialogue.throw(error)
            else:
                step = dialogue.send(replies)
    except StopIteration as done:
        reply: Reply = done.value
        return reply


def _perform(step: Step, session: Session, server: Server) -> list[Reply]:
    if step.ask is not None:
        given = step.ask() if step.challenge is None else step.ask(step.challenge)
        assert given is None or isinstance(given, str | bytes)
        step.answer = given
        return []
    if step.during is Phase.CLOSING:
        session.fail(SMTPServerDisconnected("given up"))
        return []
    octets = session.send(step)
    if not step.owed:
        assert octets == b""
        return []
    server.hear(octets)
    for piece in server.say():
        session.receive_data(piece)
    if not step.complete:
        session.lost()
        raise session.why()
    return step.received


def _look_at(error: Exception, credentials: Credentials) -> None:
    assert str(error).isprintable(), str(error)
    for text in (str(error), repr(error), repr(error.args), repr(error.__context__), repr(error.__cause__)):
        _hides(text, credentials)


def _hides(text: str, credentials: Credentials) -> None:
    secret = credentials.password.reveal()
    assert secret not in text, f"the password is shown: {text!r}"
    assert base64.b64encode(secret.encode()).decode() not in text, (
        f"the password is shown in base64: {text!r}"
    )


# -- the server -------------------------------------------------------------------------------------


class Server:
    """What is on the other side: it knows the password, and what it says is up to the choices.

    Attributes:
        heard: what came, decoded.
        proven: it has given the proof that SCRAM asks for.
    """

    def __init__(self, name: str, choices: Choices, credentials: Credentials) -> None:
        self.name = name
        self.heard: list[bytes] = []
        self.proven = False
        self._choices = choices
        self._credentials = credentials
        self._lines: list[bytes] = []
        self._challenges: list[bytes] = []
        self._over = False

    def hear(self, line: bytes) -> None:
        """Take a line of the client."""
        assert not self._over, f"written after the end: {line!r}"
        assert (_RESPONSE if self._lines else _LINE).fullmatch(line), f"no line of AUTH: {line!r}"
        assert self._lines or len(line) <= 512
        self._lines.append(line)
        assert len(self._lines) <= MOST_EXCHANGES, "it does not end"
        word = line[:-2].rpartition(b" ")[2] if len(self._lines) > 1 or line.count(b" ") > 1 else None
        if word is not None and word != b"*":
            octets = b"" if word == b"=" else base64.b64decode(word, validate=True)
            self.heard.append(octets)
            if self.name == "CRAM-MD5" and self._challenges:
                self._check_cram(octets)

    def _check_cram(self, response: bytes) -> None:
        key = self._credentials.password.reveal().encode()
        digest = hmac.new(key, self._challenges[-1], "md5").hexdigest()
        assert response == f"{self._credentials.user} {digest}".encode()

    def say(self) -> list[bytes]:
        """Say something, in pieces."""
        choices = self._choices
        kind = choices.number(9)
        if self._lines[-1] == b"*\r\n" and not choices.rarely():
            octets = b"501 5.7.0 cancelled\r\n"
        elif kind < 6:
            octets = self._challenged()
        else:
            code = (b"235", b"535", b"", b"454")[kind - 6]
            octets = spoken.one(choices, code)
        self._over = octets[:1] != b"3"
        return choices.cut(octets, 3)

    def _challenged(self) -> bytes:
        choices = self._choices
        if choices.rarely(12):
            return b"334 " + spoken.text(choices) + b"\r\n"
        if choices.rarely(60):
            return b"334 " + b"QUFB" * choices.pick((3071, 3072, 3073, 4100)) + b"\r\n"
        challenge = self._challenge()
        self._challenges.append(challenge)
        self.proven = self.proven or self._proves(challenge)
        return b"334 " + base64.b64encode(challenge) + b"\r\n"

    def _challenge(self) -> bytes:
        choices = self._choices
        right = b""
        if self.name in sasl.WITH_TOKEN:
            right = json.dumps(
                {"status": "401", "schemes": "bearer", "scope": choices.text(("s3cret-word", "é", "\0"), 3)}
            ).encode()
        elif self.name.startswith("SCRAM"):
            right = self._scram()
        elif self.name == "NTLM":
            right = self._ntlm()
        elif self.name == "CRAM-MD5":
            right = b"<1896.697170952@postoffice.example.test>"
        if choices.rarely(5):
            return b"".join(choices.several(_PIECES, 8)) + choices.octets(40)
        if choices.rarely(5) and right:
            place = choices.number(len(right))
            return right[:place] + choices.octets(4) + right[place + choices.number(3) :]
        return right

    # -- SCRAM (RFC 5802) ---------------------------------------------------------------------------

    def _scram(self) -> bytes:
        if len(self.heard) == 1:
            nonce = self.heard[0].rpartition(b",r=")[2]
            return b"r=" + nonce + b"srv,s=" + base64.b64encode(b"sixteen octets..") + b",i=4096"
        if len(self.heard) == 2:
            return b"v=" + base64.b64encode(self._signature() or b"?")
        return b""

    def _proves(self, challenge: bytes) -> bool:
        given = re.match(rb"v=([^,]*)", challenge)
        if given is None or len(self.heard) != 2 or not self.name.startswith("SCRAM"):
            return False
        try:
            return base64.b64decode(given[1]) == self._signature()
        except binascii.Error:
            return False

    def _signature(self) -> bytes | None:
        """The proof that whoever knows the password can give."""
        first, final = self.heard[0], self.heard[1]
        server_first = next((said for said in self._challenges if said), b"")
        made = re.match(rb"(?:m=[^,]*,)?r=[^,]*,s=([^,]*),i=([0-9]+)", server_first)
        if made is None:
            return None
        digest = self.name.removesuffix("-PLUS").removeprefix("SCRAM-").replace("-", "").lower()
        try:
            salt = base64.b64decode(made[1])
        except binascii.Error:
            return None
        bare = first.split(b",", 2)[2]
        message = b",".join((bare, server_first, final.rpartition(b",p=")[0]))
        prepared = _prepared(self._credentials.password.reveal()).encode()
        salted = _salted(functools.partial(hashlib.new, digest), prepared, salt, int(made[2]))
        key = hmac.new(salted, b"Server Key", digest).digest()
        return hmac.new(key, message, digest).digest()

    def _ntlm(self) -> bytes:
        choices = self._choices
        info = b"\x02\0\x08\0T\0E\0S\0T\0\x01\0\x08\0M\0A\0I\0L\0\0\0\0\0"
        flags = choices.pick((0xA2898205, 0xE2898215, 0, 0xFFFFFFFF, 0x62828205)).to_bytes(4, "little")
        head = (
            b"NTLMSSP\0\x02\0\0\0\x08\0\x08\0\x38\0\0\0"
            + flags
            + b"\x01\x23\x45\x67\x89\xab\xcd\xef"
            + b"\0" * 8
        )
        sizes = len(info).to_bytes(2, "little") * 2 + (0x40).to_bytes(4, "little")
        return head + sizes + b"\x0a\0\x61\x4a\0\0\0\x0f" + b"T\0E\0S\0T\0" + info


_prepared = functools.cache(scramp_core.saslprep)


def _salted(make: Callable[..., object], password: bytes, salt: bytes, iterations: int) -> bytes:
    """In place of thousands of rounds one: who knows the password knows this too."""
    return hmac.new(bytes(password), bytes(salt) + b"%d" % int(iterations), "sha1").digest()
