"""The verbs: each command of `smtplib`'s vocabulary, awaitable, on one connection.

`Verbs` is what `AsyncSMTP` and `AsyncLMTP` are made of besides connecting and sending: the turn,
what is known about the server, hello, TLS, login, the single commands; an envelope by hand is `by_hand`.

Rules of this room:

* One dialogue at a time: the turn is a FIFO lock, so many tasks may share a client.
* Verbs return what the server said, as in smtplib; only `starttls`, `login`, `auth` and `data`
  raise for a refusal.
* A client belongs to the event loop in which it connected, until it is closed.
"""

from __future__ import annotations

import asyncio
import hmac
import ssl
from collections.abc import Awaitable, Collection, Coroutine, Sequence
from typing import Unpack

from . import addresses, commands, dialogues, opening
from .connection import Connection, keep
from .dialling import TLSSettings
from .errors import SMTPHeloError, SMTPNotSupportedError, SMTPResponseException, SMTPServerDisconnected
from .extensions import Extensions
from .origin import XClient, XForward, attributes
from .plans import Settings
from .replies import Reply
from .sasl import Credentials
from .secret import Secret
from .steps import AuthObject, Dialogue, Phase, T
from .timeouts import Timeouts
from .tokens import Asking, Token, sealed_token
from .turn import Lease, Turn

_ENVELOPE_VERBS = frozenset({"MAIL", "RCPT", "RSET", "EHLO", "HELO", "LHLO", "DATA", "BDAT"})
"""After one of these by hand, who is in the envelope is the caller's own knowledge."""


class _MyTurn:
    """`async with` holds the turn. No generator: every verb and every connection pays for this."""

    __slots__ = ("_lease", "_verbs")

    def __init__(self, verbs: Verbs) -> None:
        self._verbs = verbs

    async def __aenter__(self) -> None:
        self._lease = await self._verbs._take_idle_turn()

    async def __aexit__(self, *error: object) -> None:
        self._lease.give_back()


class Verbs:
    """One connection, the turn, and a method for each command."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._credentials = settings.credentials
        self._connection: Connection | None = None
        self._connected_by_settings = False
        self._turn = Turn()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._auth_answers = 0

    # -- the turn ----------------------------------------------------------------------

    def _take_turn(self) -> Coroutine[object, object, Lease]:
        """Wait for the turn. Replies to what others wrote before may still be owed."""
        self._settle_in()
        return self._turn.take()

    def _turn_at_once(self) -> Lease | None:
        """The turn, if nobody has it."""
        if self._loop is not asyncio.get_running_loop():
            self._settle_in()
        return self._turn.at_once()

    def _settle_in(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._move_to(loop)

    @property
    def _needed(self) -> bool:
        """Somebody uses it, or may."""
        return self.is_connected or self._turn.taken

    def _move_to(self, loop: asyncio.AbstractEventLoop) -> None:
        """Be used in this loop from now on, where the one before does not need it."""
        connection = self._connection
        if connection is not None and connection.inherited:
            keep(self._turn)  # somebody in the parent may wait for it; the connection says what to do
        elif self._needed and self._loop is not None and not self._loop.is_closed():
            raise RuntimeError(
                "this client is in use in another event loop: close it there, or make one for each loop"
            )
        else:
            self._connection = None
        self._loop, self._turn = loop, Turn()

    def _my_turn(self) -> _MyTurn:
        """The turn, on a connection that owes nothing."""
        return _MyTurn(self)

    async def _take_idle_turn(self) -> Lease:
        lease = await self._take_turn()
        try:
            if self._connection is not None:
                await self._connection.protocol.idle()
        except BaseException:
            lease.give_back()
            raise
        return lease

    def _connected(self) -> Connection:
        if self._connection is None:
            raise SMTPServerDisconnected("not connected: call connect() first")
        return self._connection

    async def _converse(self, dialogue: Dialogue[T], *, home: Collection[Phase] = ()) -> T:
        """Drive a dialogue; the caller holds the turn. Without `home` it may not go on with content."""
        connection = self._connected() if home else self._at_rest()
        connection.leave_raw()
        return await connection.run(dialogue, home=home or (Phase.READY, Phase.MAIL))

    def _at_rest(self) -> Connection:
        """The connection, if a command written now would be taken for one."""
        connection = self._connected()
        connection.leave_raw()
        if connection.session.phase is Phase.CONTENT:
            raise RuntimeError("the server waits for what docmd() began: it would take this as more of that")
        return connection

    async def _command(self, line: bytes, verb: str, *, then: Phase | None = None) -> Reply:
        async with self._my_turn():
            session = self._connected().session
            if verb == "MAIL" and session.unsettled:
                await self._converse(dialogues.reset())
            phase = session.phase
            during = phase if phase in (Phase.READY, Phase.MAIL) else Phase.READY
            return await self._converse(dialogues.command(line, verb, during=during, then=then))

    # -- what is known about the server ------------------------------------------------

    @property
    def is_connected(self) -> bool:
        """True if, as far as this side knows, the server is there."""
        return self._connection is not None and self._connection.alive

    @property
    def extensions(self) -> Extensions:
        """What the newest EHLO or LHLO said; empty before it, and after HELO."""
        return self._connection.session.extensions if self._connection is not None else Extensions()

    @property
    def esmtp_features(self) -> dict[str, str]:
        """The same as smtplib gives it: keyword in lower case → parameters."""
        return self.extensions.as_dict()

    @property
    def does_esmtp(self) -> bool:
        """True if EHLO or LHLO was answered with 250."""
        reply = self._connection.ehlo if self._connection is not None else None
        return reply is not None and reply.code == 250

    @property
    def ehlo_resp(self) -> bytes | None:
        """The text of the reply to EHLO or LHLO, if there was one."""
        reply = self._connection.ehlo if self._connection is not None else None
        return reply.message if reply is not None else None

    @property
    def helo_resp(self) -> bytes | None:
        """The text of the reply to HELO, if there was one."""
        reply = self._connection.helo if self._connection is not None else None
        return reply.message if reply is not None else None

    @property
    def timeout(self) -> Timeouts:
        """How long each wait may take."""
        return self._settings.timeouts

    @property
    def local_hostname(self) -> str:
        """What EHLO is said with."""
        if self._connection is not None:
            return opening.hello_name(self._connection, self._settings)
        return self._settings.local_hostname or opening.own_name() or "[127.0.0.1]"

    @property
    def user(self) -> str:
        """The user name of the newest login, or the constructor's."""
        return self._credentials.user if self._credentials is not None else ""

    @property
    def password(self) -> str:
        """The password that goes with it."""
        return self._credentials.password.reveal() if self._credentials is not None else ""

    def has_extn(self, opt: str) -> bool:
        """True if the server offers this extension."""
        return opt in self.extensions

    # -- hello, TLS, login -------------------------------------------------------------

    async def ehlo(self, name: str = "") -> Reply:
        """Say EHLO (LHLO in LMTP) and remember what is offered; returns the reply, whatever it is."""
        return await self._hello(self._settings.hello_verb, name)

    async def helo(self, name: str = "") -> Reply:
        """Say HELO; returns the reply, whatever it is."""
        return await self._hello("HELO", name)

    async def _hello(self, verb: str, name: str) -> Reply:
        async with self._my_turn():
            connection = self._connected()
            said = opening.hello_name(connection, self._settings, name)
            try:
                hello = await self._converse(dialogues.hello(verb, said))
            except SMTPHeloError as error:
                hello = dialogues.Hello(verb, Reply(error.smtp_code, error.smtp_error), Extensions())
            opening.remember(connection, hello)
            return hello.reply

    async def ehlo_or_helo_if_needed(self) -> None:
        """Say EHLO, or HELO if that is refused, unless that was done.

        Raises:
            SMTPHeloError: both were refused.
        """
        async with self._my_turn():
            await self._greet_if_needed()

    async def _greet_if_needed(self) -> Connection:
        connection = self._at_rest()
        if connection.ehlo is None and connection.helo is None:
            await opening.say_hello(connection, self._settings)
        return connection

    async def starttls(
        self, *, context: ssl.SSLContext | None = None, server_hostname: str | None = None
    ) -> Reply:
        """Bring up TLS (RFC 3207); returns the 220. What was known about the server is forgotten.

        Raises:
            SMTPNotSupportedError: not offered.
            SMTPResponseException: refused.
            SMTPTLSError: the handshake or the certificate failed; the connection is closed.
        """
        async with self._my_turn():
            connection = await self._greet_if_needed()
            if not self.has_extn("starttls"):
                raise SMTPNotSupportedError(f"{connection.session.peer} does not offer STARTTLS")
            self._connected_by_settings = False
            known = self._settings.security
            name = server_hostname or known.server_hostname
            connection.security = TLSSettings(context or known.context, name, known.trust)
            reply = await self._converse(dialogues.starttls())
            if reply.code != 220:
                refusal = SMTPResponseException(reply.code, reply.message, reply=reply, command="STARTTLS")
                refusal.host = connection.session.peer
                raise refusal
            opening.forget(connection)
            return reply

    async def login(
        self,
        user: str,
        password: str | Secret = "",
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
            mechanisms: the only ones to try, in this order. "EXTERNAL", "ANONYMOUS", "GSSAPI" and
                "NTLM" are used only if they are named.
            authorization_id: whom to act as, if not `user`.
            token: an OAuth 2.0 access token in place of the password, or a function that gives
                one, as for the constructor.

        Raises:
            SMTPNotSupportedError: no AUTH, or no mechanism in common.
            SMTPTLSError: the credentials would travel in clear.
            SMTPAuthenticationError: refused; `.oauth` holds what was said about a token.
            ValueError: a NUL in one of them, an unknown mechanism, or one that needs a library
                which is not installed.
        """
        # First of all, and under the same names: what fails below must not show them.
        password = password if isinstance(password, Secret) else Secret(password)
        token = sealed_token(token)
        credentials = Credentials(user, password, authorization_id)
        async with self._my_turn():
            connection = await self._greet_if_needed()
            self._connected_by_settings = False
            self._credentials = credentials
            return await opening.login(
                connection,
                self._settings,
                credentials,
                mechanisms,
                initial_response_ok=initial_response_ok,
                asking=Asking(token) if token is not None else None,
            )

    async def auth(
        self, mechanism: str, authobject: AuthObject, *, initial_response_ok: bool = True
    ) -> Reply:
        """Log in with an authobject as in smtplib: called with a challenge, it returns the response.

        Args:
            mechanism: its name.
            authobject: a function or coroutine function. It is called without an argument for
                the initial response (None: wait for a challenge), then with each challenge. It
                returns str or bytes, or None to give up.
            initial_response_ok: False to wait for a challenge first.

        Raises:
            SMTPTLSError: the credentials would travel in clear.
            SMTPAuthenticationError: refused.
        """
        async with self._my_turn():
            connection = self._at_rest()
            opening.check_cleartext(connection, self._settings)
            self._auth_answers = 0
            self._connected_by_settings = False

            def counted(*challenge: bytes) -> str | bytes | Awaitable[str | bytes | None] | None:
                self._auth_answers += 1
                return authobject(*challenge)

            return await opening.auth(
                connection, mechanism.upper(), counted, initial_response_ok=initial_response_ok
            )

    def auth_plain(self, challenge: bytes | None = None) -> str:
        """Authobject for PLAIN (RFC 4616), from `user` and `password`."""
        return f"\0{self.user}\0{self.password}"

    def auth_login(self, challenge: bytes | None = None) -> str:
        """Authobject for LOGIN: the user name first, then the password."""
        return self.user if challenge is None or self._auth_answers < 2 else self.password

    def auth_cram_md5(self, challenge: bytes | None = None) -> str | None:
        """Authobject for CRAM-MD5 (RFC 2195): nothing before the challenge, then the proof."""
        if challenge is None:
            return None
        return f"{self.user} {hmac.new(self.password.encode(), challenge, 'md5').hexdigest()}"

    # -- single commands ---------------------------------------------------------------

    async def docmd(self, cmd: str, args: str = "") -> Reply:
        """Send a command of your own; returns the reply, whatever it is."""
        line = commands.raw(cmd, args, utf8="smtputf8" in self.extensions)
        return await self._docmd(line, cmd)

    async def _docmd(self, line: bytes, cmd: str) -> Reply:
        async with self._my_turn():
            connection = self._connected()
            if cmd[:4].upper() in _ENVELOPE_VERBS:
                connection.recipients = None
            dialogue = dialogues.raw(line, cmd, connection.session.phase)
            return await self._converse(dialogue, home=tuple(Phase))

    async def noop(self) -> Reply:
        """NOOP: is anybody there?"""
        return await self._command(commands.noop(), "NOOP")

    async def rset(self) -> Reply:
        """RSET: forget the envelope that was begun."""
        reply = await self._command(commands.RSET, "RSET", then=Phase.READY)
        if self._connection is not None:
            self._connection.recipients = []
        return reply

    async def help(self, args: str = "") -> bytes:
        """HELP: returns the text."""
        return (await self._command(commands.help(args), "HELP")).message

    async def verify(self, address: str) -> Reply:
        """VRFY: is this an address? Most servers do not tell (252)."""
        path = addresses.recipient(address).path
        return await self._command(commands.vrfy(path, utf8=self._may_use_utf8(path)), "VRFY")

    vrfy = verify

    async def expn(self, address: str) -> Reply:
        """EXPN: who is on this list? Most servers do not tell."""
        path = addresses.recipient(address).path
        return await self._command(commands.expn(path, utf8=self._may_use_utf8(path)), "EXPN")

    async def etrn(self, node: str) -> Reply:
        """ETRN: send what waits for this node (RFC 1985); "@" before a domain for those below it too.

        Raises:
            SMTPNotSupportedError: not offered.
        """
        line = commands.etrn(node)
        if "etrn" not in self.extensions:
            raise SMTPNotSupportedError("the server does not offer ETRN (RFC 1985)")
        return await self._command(line, "ETRN")

    async def xclient(self, **attributes: Unpack[XClient]) -> Reply:
        """XCLIENT: be taken for another client, by a Postfix that lets us; returns the reply, whatever it is.

        With 220 the session begins anew: EHLO is said again, and a login counts no more.

        Raises:
            SMTPNotSupportedError: not offered, or not with these attributes; see `XClient`.
        """
        async with self._my_turn():
            connection = await self._greet_if_needed()
            reply = await self._tell_origin("XCLIENT", attributes)
            if reply.code == 220:
                self._connected_by_settings = False  # a new connection would be ours again
                opening.forget(connection)
                connection.session.authenticated = False
                await opening.say_hello(connection, self._settings)
            return reply

    async def xforward(self, **attributes: Unpack[XForward]) -> Reply:
        """XFORWARD: tell a Postfix that lets us whose mail comes next; returns the reply, whatever it is.

        Raises:
            SMTPNotSupportedError: not offered, or not with these attributes; see `XForward`.
        """
        async with self._my_turn():
            await self._greet_if_needed()
            return await self._tell_origin("XFORWARD", attributes)

    async def _tell_origin(self, verb: str, given: XClient | XForward) -> Reply:
        line = commands.raw(verb, attributes(verb, given, self.extensions))
        if not commands.fits(line):
            raise ValueError(f"{verb}: that is more than fits on a line of {commands.MAX_COMMAND} octets")
        phase = self._connected().session.phase
        during = phase if phase is Phase.MAIL else Phase.READY  # where it is refused, and changes nothing
        return await self._converse(dialogues.command(line, verb, during=during))

    def _may_use_utf8(self, path: bytes) -> bool:
        if path.isascii():
            return False
        if "smtputf8" not in self.extensions:
            raise SMTPNotSupportedError("the address needs SMTPUTF8, which the server does not offer")
        return True
