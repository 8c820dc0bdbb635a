"""`Vocabulary`: smtplib's single words, each a call that blocks until it is answered.

Hello, TLS, login, the single commands, an envelope by hand, and octets of the caller's own. How a
connection begins and ends, and how a message is sent in one call, is in `sync`.

Rules of this room:

* One crossing to the event loop a call, and nothing clever on this side of it.
* Words are those of `smtplib`, with its arguments in its order; what is added is keyword-only.
"""

from __future__ import annotations

import asyncio
import inspect
import ssl
from collections.abc import Callable, Coroutine, Sequence
from typing import TypeAlias, TypeVar, Unpack

from . import commands, tls
from .attributes import Attributes
from .classic import in_thread
from .errors import Delivery, SMTPServerDisconnected
from .message import Body
from .origin import XClient, XForward
from .replies import Reply
from .runner import run_sync
from .tls import StrPath
from .tokens import Token, sealed_token
from .trust import CertificateFiles, Fingerprints, context_by, trust_of

T = TypeVar("T")

BlockingAuthObject: TypeAlias = Callable[..., "str | bytes | None"]
"""What `auth` calls, in a thread: without an argument at first, then with each challenge."""


class Vocabulary(Attributes):
    """Each command of `smtplib`'s vocabulary, blocking."""

    # -- the crossing ------------------------------------------------------------------

    def _run(self, coroutine: Coroutine[object, object, T]) -> T:
        try:
            return run_sync(self._across(coroutine))
        except asyncio.CancelledError as cancelled:
            raise _stopped(cancelled) from cancelled
        finally:
            if inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:
                coroutine.close()  # it never got there, and would complain about that

    async def _across(self, coroutine: Coroutine[object, object, T]) -> T:
        self._tell()
        try:
            return await coroutine
        finally:
            self._learn()

    # -- octets of your own --------------------------------------------------------------

    def send(self, s: str | bytes) -> None:
        """Write octets as they are; the reply is read with `getreply`.

        Raises:
            SMTPServerDisconnected: not connected.
        """
        octets = s.encode(self.command_encoding) if isinstance(s, str) else bytes(s)
        self._run(self._client.write(octets))

    def putcmd(self, cmd: str, args: str = "") -> None:
        """Write one command; its reply is read with `getreply`.

        Raises:
            ValueError: a CR, LF or another control character in it.
        """
        line = commands.raw(cmd, args, utf8=self.command_encoding.lower() in ("utf-8", "utf8"))
        self._run(self._client.write(line))

    def getreply(self) -> Reply:
        """Read the oldest reply that nobody has read.

        Raises:
            SMTPServerDisconnected: the server went.
            SMTPProtocolError: what it sent is no reply.
        """
        return self._run(self._client.read())

    def docmd(self, cmd: str, args: str = "") -> Reply:
        """Send a command of your own; returns the reply, whatever it is."""
        return self._run(self._client.docmd(cmd, args))

    # -- hello, TLS, login -------------------------------------------------------------

    def helo(self, name: str = "") -> Reply:
        """Say HELO; returns the reply, whatever it is."""
        return self._run(self._client.helo(name))

    def ehlo(self, name: str = "") -> Reply:
        """Say EHLO (LHLO in LMTP) and remember what is offered; returns the reply, whatever it is."""
        return self._run(self._client.ehlo(name))

    def ehlo_or_helo_if_needed(self) -> None:
        """Say EHLO, or HELO if that is refused, unless that was done.

        Raises:
            SMTPHeloError: both were refused.
        """
        self._run(self._client.ehlo_or_helo_if_needed())

    def starttls(
        self,
        keyfile: StrPath | None = None,
        certfile: StrPath | None = None,
        context: ssl.SSLContext | None = None,
        *,
        server_hostname: str | None = None,
        tls_ca: StrPath | bytes | None = None,
        tls_certificate: CertificateFiles | None = None,
        tls_fingerprint: Fingerprints | None = None,
    ) -> Reply:
        """Bring up TLS (RFC 3207); returns the 220. What was known about the server is forgotten.

        Args:
            keyfile: as in Python 3.11, in place of a context; deprecated, as there.
            certfile: likewise.
            context: instead of one that verifies against the system's authorities.
            server_hostname: the name the certificate must have, if it is not the host connected to.
            tls_ca: in place of a context: trust these authorities, as for `AsyncSMTP`.
            tls_certificate: in place of a context: our own certificate, as for `AsyncSMTP`.
            tls_fingerprint: the only certificate that the server may have, as for `AsyncSMTP`.

        Raises:
            SMTPNotSupportedError: not offered.
            SMTPResponseException: refused.
            SMTPTLSError: the handshake or the certificate failed; the connection is closed.
        """
        given = tls.given_context(keyfile, certfile, context)
        trust = trust_of(given, tls_ca, tls_certificate, tls_fingerprint)
        context = context_by(given, trust)
        return self._run(self._client.secure(context, server_hostname, trust))

    def login(
        self,
        user: str,
        password: str,
        *,
        initial_response_ok: bool = True,
        mechanisms: Sequence[str] | None = None,
        authorization_id: str = "",
        token: Token | None = None,
    ) -> Reply:
        """Log in (RFC 4954), with the strongest mechanism that both sides have.

        Args:
            user: the user name.
            password: the password, in any characters: it travels as UTF-8.
            initial_response_ok: False to wait for a challenge first; some servers insist.
            mechanisms: the only ones to try, in this order; some are used only if they are named.
            authorization_id: whom to act as, if not `user`.
            token: an OAuth 2.0 access token in place of the password, or a function that gives one.

        Raises:
            SMTPNotSupportedError: no AUTH, or no mechanism in common.
            SMTPAuthenticationError: refused.
            ValueError: a NUL in one of them, an unknown mechanism, or one that needs a library
                which is not installed.
        """
        token = sealed_token(token)
        login = self._client.login(
            user,
            password,
            initial_response_ok=initial_response_ok,
            mechanisms=mechanisms,
            authorization_id=authorization_id,
            token=token,
        )
        password = ""  # what fails below must not show it
        return self._run(login)

    def auth(
        self, mechanism: str, authobject: BlockingAuthObject, *, initial_response_ok: bool = True
    ) -> Reply:
        """Log in with an authobject: called with a challenge, it returns the response.

        Args:
            mechanism: its name.
            authobject: called without an argument for the initial response (None: wait for a
                challenge), then with each challenge. It returns str or bytes, or None to give up.
            initial_response_ok: False to wait for a challenge first.

        Raises:
            SMTPAuthenticationError: refused.
        """
        return self._run(self._client.auth(mechanism, authobject, initial_response_ok=initial_response_ok))

    # -- single commands ---------------------------------------------------------------

    def help(self, args: str = "") -> bytes:
        """HELP: returns the text."""
        return self._run(self._client.help(args))

    def rset(self) -> Reply:
        """RSET: forget the envelope that was begun."""
        self.command_encoding = "ascii"
        return self._run(self._client.rset())

    def noop(self) -> Reply:
        """NOOP: is anybody there?"""
        return self._run(self._client.noop())

    def verify(self, address: str) -> Reply:
        """VRFY: is this an address? Most servers do not tell (252)."""
        return self._run(self._client.verify(address))

    vrfy = verify

    def expn(self, address: str) -> Reply:
        """EXPN: who is on this list? Most servers do not tell."""
        return self._run(self._client.expn(address))

    def etrn(self, node: str) -> Reply:
        """ETRN: send what waits for this node; as `AsyncSMTP.etrn`."""
        return self._run(self._client.etrn(node))

    def xclient(self, **attributes: Unpack[XClient]) -> Reply:
        """XCLIENT: be taken for another client; as `AsyncSMTP.xclient`."""
        return self._run(self._client.xclient(**attributes))

    def xforward(self, **attributes: Unpack[XForward]) -> Reply:
        """XFORWARD: tell whose mail comes next; as `AsyncSMTP.xforward`."""
        return self._run(self._client.xforward(**attributes))

    def mail(self, sender: str, options: Sequence[str] = ()) -> Reply:
        """MAIL: begin an envelope; returns the reply, whatever it is.

        Raises:
            SMTPNotSupportedError: SMTPUTF8 is needed or asked for, and not offered.
        """
        reply = self._run(self._client.mail(sender, options))
        if any(option.upper() == "SMTPUTF8" for option in options):
            self.command_encoding = "utf-8"
        return reply

    def rcpt(self, recip: str, options: Sequence[str] = ()) -> Reply:
        """RCPT: add a recipient; returns the reply, whatever it is."""
        return self._run(self._client.rcpt(recip, options))

    def data(self, msg: Body) -> Reply:
        """DATA and the content, after `mail` and `rcpt`; returns what was said to the content.

        Raises:
            SMTPDataError: DATA itself was refused.
        """
        return self._run(self._client.data(in_thread(msg)))


def _stopped(cancelled: asyncio.CancelledError) -> SMTPServerDisconnected:
    """What a caller hears whose loop was stopped under him: he knows nothing of tasks."""
    error = SMTPServerDisconnected("the event loop was stopped in the middle of this, or the program ends")
    error.delivery = getattr(cancelled, "delivery", Delivery.NOT_SENT)
    error.outcomes = getattr(cancelled, "outcomes", ())
    return error
