"""The same server where it can do more: TLS, from the first octet or by STARTTLS, and a login.

TLS is the real one on both ends: asyncio's on the client's, on the server's an `SSLObject` that
is fed by hand. So a handshake takes turns of the loop, and no time.

Rules of this room:

* `Inside` has the face of `cable.Line`, and counts what is inside of TLS: `post` and `judge` do
  not know the difference.
* What the client handed over, and was handed, is seen at the two places where asyncio's TLS meets
  its protocol.
"""

from __future__ import annotations

import contextlib
import functools
import ssl
from asyncio import sslproto
from collections.abc import Callable
from typing import Any

from aiosmtpclient.testing import CertificateAuthority

from .cable import Line
from .post import Conversation, Network

SECURITIES = ("plain", "starttls", "implicit")
POLICIES = {"plain": "none", "starttls": "starttls", "implicit": "implicit"}
HANDSHAKES = ("goes", "resets", "shuts its side", "stops", "answers in clear")
"""What a server may do in place of its half of a handshake."""
_ENDS = {"goes": "close", "resets": "reset", "shuts its side": "half-close", "stops": "stop"}
USER, PASSWORD = "me", "s3cret"


@functools.cache
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The server's and the client's: keys take a moment, so they are made once."""
    authority = CertificateAuthority()
    return authority.server_context(), authority.client_context()


def options(security: str) -> dict[str, Any]:
    """What a client is told."""
    return {"tls": POLICIES[security]} | ({"tls_context": contexts()[1]} if security != "plain" else {})


class Inside:
    """The server's end of a line, with or without TLS.

    Args:
        line: the cable.
        handshake: what becomes of the handshake, if it is not made.

    Attributes:
        written, spoken, delivered, surplus_at: as in `Line`, but of what is inside.
        secure: TLS was begun.
    """

    def __init__(self, line: Line, handshake: str = "") -> None:
        self.line = line
        self.loop, self.end, self.fault, self.window = line.loop, line.end, line.fault, line.window
        self.handshake = handshake
        self.written = bytearray()
        self.spoken = bytearray()
        self.delivered = 0
        self.surplus_at: int | None = None
        self.reader: Callable[[bytes], None] = lambda octets: None
        self.balance: Callable[[], int] = lambda: 0
        self.secure = False
        self._begun: Callable[[], None] | None = None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._layer: ssl.SSLObject | None = None
        self._shaken = False
        line.reader = self._read

    @property
    def state(self) -> str:
        return self.line.state

    @state.setter
    def state(self, state: str) -> None:
        self.line.state = state

    @property
    def moved(self) -> float:
        return self.line.moved

    @property
    def read(self) -> int:
        return self.line.read

    @property
    def ticking(self) -> Any:
        return self.line.ticking

    @ticking.setter
    def ticking(self, timer: Any) -> None:
        self.line.ticking = timer

    # -- what the server does ----------------------------------------------------------------

    def begin(self) -> None:
        self.line.begin()

    def begin_tls(self, then: Callable[[], None] | None = None) -> None:
        """What comes now is a handshake; `then` when it was made."""
        self.secure, self._begun = True, then
        self._layer = contexts()[0].wrap_bio(self._incoming, self._outgoing, server_side=True)

    def say(self, octets: bytes) -> None:
        if self.state != "open" or not octets:
            return
        self.spoken += octets
        if self._layer is None:
            self.line.say(octets)
        else:
            self._layer.write(octets)
            self._flush()

    def finish(self, kind: str) -> None:
        """End it; a close says so inside of TLS first, a half-close forgets to."""
        if self._layer is not None and self._shaken and kind == "close" and self.state == "open":
            with contextlib.suppress(ssl.SSLError):  # the other side did not say so yet
                self._layer.unwrap()
            self._flush()
        self.line.finish(kind)

    def _flush(self) -> None:
        self.line.say(self._outgoing.read())

    # -- what comes --------------------------------------------------------------------------

    def _read(self, octets: bytes) -> None:
        if self._layer is None:
            self.reader(octets)
            return
        self._incoming.write(octets)
        if self._shaken or self._shake(self._layer):
            self._decrypt(self._layer)

    def _shake(self, layer: ssl.SSLObject) -> bool:
        if self.handshake:
            if self.handshake == "answers in clear":
                self.line.say(b"554 5.0.0 no TLS here\r\n")
            else:
                self.line.finish(_ENDS[self.handshake])
            self.handshake = ""
        if self.state != "open":
            return False
        try:
            layer.do_handshake()
            self._shaken = True
        except ssl.SSLWantReadError:
            self._shaken = False
        except ssl.SSLError:
            self._flush()
            self.line.finish("close")
        self._flush()
        if self._shaken and self._begun is not None:
            self._begun()
        return self._shaken

    def _decrypt(self, layer: ssl.SSLObject) -> None:
        while self.state in ("open", "silent"):
            try:
                octets = layer.read(65536)
            except ssl.SSLWantReadError:
                return
            except ssl.SSLError:
                octets = b""
            if not octets:
                self.finish("close")  # the client takes its leave of TLS
                return
            self.reader(octets)

    # -- what the client sees ----------------------------------------------------------------

    def watch(self, protocol: Any) -> None:
        """Note what it is handed, and what it hands over."""
        made, received = protocol.connection_made, protocol.data_received

        def connection_made(transport: Any) -> None:
            write = transport.write

            def watched(octets: Any) -> None:
                # Around TLS the same transport carries what nobody here can read.
                if not transport.is_closing() and (
                    transport is not self.end or self.end.protocol is protocol
                ):
                    self.written += octets
                write(octets)

            transport.write = watched
            made(transport)

        def data_received(octets: bytes) -> None:
            self.delivered += len(octets)
            unread = self.line._kernel or self.end.get_write_buffer_size()
            if self.surplus_at is None and not unread and self.balance() > 0:
                self.surplus_at = len(self.written)
            received(octets)

        protocol.connection_made, protocol.data_received = connection_made, data_received


class SecuredConversation(Conversation):
    """One connection, with STARTTLS and AUTH (PLAIN and LOGIN)."""

    def __init__(self, network: SecuredNetwork, line: Inside, first: bool) -> None:
        super().__init__(network.post, line, network.acts, network.place if first else -1)
        self._inside = line
        self._offers_tls = network.security == "starttls"
        self._prompts = 0

    def _command(self, line: bytes) -> None:
        verb = line.split(b" ")[0].upper()
        if self._prompts:
            self._prompts -= 1
            self._ask_on(333 if line == b"*" else 334)
        elif verb == b"STARTTLS" and self._offers_tls and not self._inside.secure:
            if self._answer("STARTTLS", 220) == 220:
                self._buffer.clear()
                self._forget()
                self._inside.begin_tls()
        elif verb == b"AUTH":
            self._prompts = 2 if line.upper() == b"AUTH LOGIN" else 0
            self._ask_on(334)
        elif verb in (b"EHLO", b"LHLO"):
            mine, self.post.offers = self.post.offers, self._offers()
            super()._command(line)
            self.post.offers = mine
        else:
            super()._command(line)

    def _offers(self) -> list[str]:
        tls = ["STARTTLS"] * (self._offers_tls and not self._inside.secure)
        return [*self.post.offers, *tls, "AUTH PLAIN LOGIN"]

    def _ask_on(self, code: int) -> None:
        if code != 334:
            self._prompts = 0
            self._answer("AUTH", 501)
        elif not self._prompts:
            self._answer("AUTH", 235)
        elif self._answer("AUTH", 334) != 334:
            self._prompts = 0


class SecuredNetwork(Network):
    """Makes connections to such a post.

    Args:
        security: "plain", "starttls" or "implicit".
        handshake: what becomes of the first handshake, if it is not made.
        which: the connection on which the server does wrong.
    """

    def __init__(
        self, loop: Any, post: Any, *, security: str, handshake: str = "", which: int = 0, **options: Any
    ) -> None:
        super().__init__(loop, post, **options)
        self.security, self.handshake, self.which = security, handshake, which

    def connect(self, factory: Any) -> tuple[Any, Any]:
        """A connection; inside TLS `factory` makes what stands between it and the client."""
        first = len(self.post.connections) == self.which
        inside = Inside(Line(self.loop, window=self.window), self.handshake if first else "")
        conversation = SecuredConversation(self, inside, first)
        inside.reader, inside.balance = conversation.feed, conversation.balance
        protocol = factory()
        layered = isinstance(protocol, sslproto.SSLProtocol)
        inside.watch(protocol._app_protocol if layered else protocol)
        inside.end.protocol = protocol
        if layered:
            inside.begin_tls(conversation.begin)
        else:
            self.loop.call_soon(conversation.begin)
        protocol.connection_made(inside.end)
        return inside.end, protocol
