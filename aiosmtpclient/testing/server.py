"""`MailServer`: a real ESMTP and LMTP server for tests, on aiosmtpd, on the loopback interface.

It offers what a modern relay offers, keeps every message it took, and counts round trips. What
it refuses is said in keyword arguments. The conversation itself is in `esmtp.py` and
`transactions.py`; this room holds the options, what was received, and what every connection shares.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from importlib.util import find_spec
from typing import TypeAlias, TypeVar

try:
    from aiosmtpclient.testing.transactions import MailConnection, accepts
except ImportError as missing:
    raise ImportError(
        'aiosmtpclient.testing.MailServer is built on aiosmtpd: pip install "aiosmtpclient[testing]"'
    ) from missing
from aiosmtpclient.testing.loopback import LoopbackServer
from aiosmtpclient.testing.received import ReceivedMessage

_Asked = TypeVar("_Asked")

AddressRefusal: TypeAlias = str | Mapping[str, str] | Callable[[str], str | None] | None
"""Who is refused: nobody, everybody with this reply line, these with theirs, or ask this function."""
ContentRefusal: TypeAlias = str | Callable[[ReceivedMessage], str | None] | None
"""Which content is refused: none, every one with this reply line, or ask this function."""

OFFERED = (
    "PIPELINING",
    "CHUNKING",
    "BINARYMIME",
    "8BITMIME",
    "SMTPUTF8",
    "DSN",
    "ENHANCEDSTATUSCODES",
    "VRFY",
    "EXPN",
    "HELP",
)
WITH_PASSWORD = ("CRAM-MD5", "PLAIN", "LOGIN")
WITH_TOKEN = ("OAUTHBEARER", "XOAUTH2")


class MailServer(LoopbackServer):
    """An ESMTP or LMTP server that keeps what it receives.

    ``async with MailServer() as server:`` runs it in the running loop, without a thread.
    ``with MailServer() as server:`` runs it in a thread, for blocking code. A message is in
    `messages` before its client reads the reply, so there is nothing to wait for in between.

    Args:
        lmtp: speak LMTP (RFC 2033): LHLO, and one reply a recipient after the content.
        starttls: offer STARTTLS with this context; True makes one with `CertificateAuthority`.
        implicit_tls: TLS from the first octet, with this context, or True.
        users: user name → password; AUTH is offered if there are any.
        tokens: OAuth 2.0 access token → the user it lets in; AUTH is offered if there are any.
        mechanisms: the AUTH mechanisms offered. Left out: CRAM-MD5, PLAIN and LOGIN if there are
            users, OAUTHBEARER and XOAUTH2 if there are tokens. Others are SCRAM-SHA-1, -256 and
            -512 (by scramp, extra `scram`), the same with -PLUS, which are offered inside TLS;
            EXTERNAL, which lets in the common name of a client's certificate (see
            `CertificateAuthority`), and ANONYMOUS.
        auth_requires_tls: offer AUTH inside TLS only.
        require_auth: refuse MAIL with 530 before a login.
        size_limit: octets of the largest message taken; None takes any size.
        extensions: EHLO lines to offer besides, as "LIMITS RCPTMAX=100", or instead of the one
            with the same keyword. The parameters of
            REQUIRETLS, MT-PRIORITY, DELIVERBY, FUTURERELEASE and RRVS are then accepted; any
            other extension accepts a parameter that has its own name.
        without: keywords of extensions not to offer; what they allow is then refused.
        hello_only: answer EHLO with 500, as a server before ESMTP does.
        refuse: recipients to refuse. A reply line ("550 5.1.1 no such user") refuses all; a
            mapping those it names; a function is asked, and answers with a line or None. A line
            with a 2yz code ("251 2.1.5 will forward") accepts in other words.
        refuse_sender: the same for senders.
        refuse_content: the reply to the end of the content, if it is not to be taken.
        refuse_after_content: LMTP only: the same as `refuse`, in the replies after the content.
        proxy_protocol: expect a PROXY header, version 1 or 2, in front of each connection, as a
            server behind a load balancer does; one without it is closed without a word.
        host: the loopback address to listen on.
        unix_path: listen on this Unix socket instead.

    Attributes:
        users, tokens: as given; may be changed while it runs.
        messages: what was taken so far. May be read, copied and cleared from any thread.
        commands: every command line received, without its line end; AUTH payloads are "***".
        round_trips: how often a client's octets came after a reply of ours: one for EHLO, one
            for each group of commands, one for the content. The handshake of TLS is not counted.
    """

    def __init__(
        self,
        *,
        lmtp: bool = False,
        starttls: ssl.SSLContext | bool = False,
        implicit_tls: ssl.SSLContext | bool = False,
        users: Mapping[str, str] | None = None,
        tokens: Mapping[str, str] | None = None,
        mechanisms: Iterable[str] | None = None,
        auth_requires_tls: bool = False,
        require_auth: bool = False,
        size_limit: int | None = None,
        extensions: Iterable[str] = (),
        without: Iterable[str] = (),
        hello_only: bool = False,
        refuse: AddressRefusal = None,
        refuse_sender: AddressRefusal = None,
        refuse_content: ContentRefusal = None,
        refuse_after_content: AddressRefusal = None,
        proxy_protocol: bool = False,
        host: str = "127.0.0.1",
        unix_path: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__(host=host, unix_path=unix_path, implicit_tls=_context(implicit_tls))
        self.lmtp = lmtp
        self.starttls = _context(starttls)
        self.users = dict(users or {})
        self.tokens = dict(tokens or {})
        if mechanisms is None:
            mechanisms = (WITH_PASSWORD if self.users else ()) + (WITH_TOKEN if self.tokens else ())
        self.mechanisms = tuple(name.upper() for name in _several(mechanisms))
        if any(name.startswith("SCRAM-") for name in self.mechanisms) and find_spec("scramp") is None:
            raise ImportError('SCRAM needs scramp: pip install "aiosmtpclient[scram]"')
        self.auth_requires_tls = auth_requires_tls
        self.require_auth = require_auth
        self.size_limit = size_limit
        self.hello_only = hello_only
        self.refuse = refuse
        self.refuse_sender = refuse_sender
        self.refuse_content = refuse_content
        self.refuse_after_content = refuse_after_content
        self.proxy_protocol = proxy_protocol
        self.messages: list[ReceivedMessage] = []
        self.commands: list[str] = []
        self.round_trips = 0
        self._without = {keyword.upper() for keyword in _several(without)}
        if "CHUNKING" in self._without:
            self._without.add("BINARYMIME")
        self._extensions = tuple(_several(extensions))
        self._queue_ids = (f"{number:08X}" for number in itertools.count(0x4A000001))
        self._waiting: list[asyncio.Future[None]] = []

    def make_connection(self) -> MailConnection:
        """A connection of its own, for the listener."""
        return MailConnection(self)

    def offered(self, *, tls: bool) -> list[str]:
        """The lines that EHLO answers with, inside TLS or outside."""
        # A SIZE of 0 says that there is no limit (RFC 1870 section 4).
        lines = [*OFFERED, f"SIZE {self.size_limit or 0}"]
        if self.starttls is not None and not tls:
            lines.append("STARTTLS")
        if self.mechanisms and (tls or not self.auth_requires_tls):
            lines.append(f"AUTH {' '.join(self.mechanisms_offered(tls=tls))}".rstrip())
        offered = {line.split()[0].upper(): line for line in [*lines, *self._extensions]}
        return [line for keyword, line in offered.items() if keyword not in self._without]

    def mechanisms_offered(self, *, tls: bool) -> list[str]:
        """The login mechanisms offered, inside TLS or outside, where there is nothing to bind to."""
        return [name for name in self.mechanisms if tls or not name.endswith("-PLUS")]

    def scram_proof(self, proof: bytes) -> bytes:
        """The proof that a client of SCRAM is sent. A subclass may send another, to see it refused."""
        return proof

    @property
    def verbs(self) -> set[str]:
        """The commands that are known at all."""
        verbs = {"MAIL", "RCPT", "DATA", "RSET", "NOOP", "QUIT", "HELP", "VRFY", "EXPN"}
        verbs |= {"LHLO"} if self.lmtp else {"HELO"} if self.hello_only else {"HELO", "EHLO"}
        extra = {"CHUNKING": "BDAT"}
        if self.starttls is not None:
            extra["STARTTLS"] = "STARTTLS"
        if self.mechanisms:
            extra["AUTH"] = "AUTH"
        return verbs | {verb for keyword, verb in extra.items() if keyword not in self._without}

    @property
    def gives_enhanced_codes(self) -> bool:
        """True if replies carry enhanced status codes (RFC 2034)."""
        return "ENHANCEDSTATUSCODES" not in self._without

    def refusal(self, rule: AddressRefusal, address: str) -> str | None:
        """The reply line that refuses this address, or None."""
        if isinstance(rule, Mapping):
            return rule.get(address)
        return self._ask(rule, address)

    def _ask(self, rule: str | Callable[[_Asked], str | None] | None, about: _Asked) -> str | None:
        if rule is None or isinstance(rule, str):
            return rule
        try:
            return rule(about)
        except Exception as error:
            self.failures.append(error)
            return "451 4.3.0 The test's own function failed"

    def next_queue_id(self) -> str:
        """An id for the next message."""
        return next(self._queue_ids)

    def deliver(self, message: ReceivedMessage, refused: str | None) -> list[str]:
        """Keep the message for whom it is taken; returns the replies to the end of its content."""
        verdict = refused or self._ask(self.refuse_content, message)
        if not self.lmtp:
            reply = verdict or f"250 2.0.0 Ok: queued as {message.queue_id}"
            if accepts(reply):
                self._take(message)
            return [reply]
        replies = [verdict or self._verdict_for(address, message) for address in message.recipients]
        pairs = list(zip(message.recipients, message.rcpt_options, replies, strict=True))
        taken = [(address, options) for address, options, reply in pairs if accepts(reply)]
        if taken:
            recipients, options = zip(*taken, strict=True)
            self._take(replace(message, recipients=recipients, rcpt_options=options))
        return replies

    def _verdict_for(self, address: str, message: ReceivedMessage) -> str:
        refused = self.refusal(self.refuse_after_content, address)
        return refused or f"250 2.1.5 <{address}> Ok: queued as {message.queue_id}"

    def _take(self, message: ReceivedMessage) -> None:
        self.messages.append(message)
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    async def wait_for(self, count: int = 1) -> list[ReceivedMessage]:
        """Wait until that many messages are there; returns them all."""
        while len(self.messages) < count:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter
        return list(self.messages)

    def wait(self, count: int = 1, timeout: float = 10.0) -> list[ReceivedMessage]:
        """`wait_for` for blocking code, where the server runs in its thread.

        Raises:
            TimeoutError: they did not come within `timeout` seconds.
        """
        if self._loop is None or self._thread is None:
            raise RuntimeError('wait() is for "with MailServer()"; use "await server.wait_for()" here')
        asked = asyncio.run_coroutine_threadsafe(self.wait_for(count), self._loop)
        try:
            return asked.result(timeout)
        except BaseException:
            asked.cancel()
            raise


def _several(words: Iterable[str]) -> Iterable[str]:
    if isinstance(words, str):
        raise TypeError(f"not one str but several: [{words!r}]")
    return words


def _context(asked: ssl.SSLContext | bool) -> ssl.SSLContext | None:
    if isinstance(asked, ssl.SSLContext):
        return asked
    if not asked:
        return None
    from aiosmtpclient.testing.certificates import CertificateAuthority

    return CertificateAuthority().server_context()
