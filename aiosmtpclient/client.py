"""The desk: `AsyncSMTP` and `AsyncLMTP`, and `send()` for one message.

A client is the face of one connection at a time. Here it connects and sends; its other verbs
are in `verbs`, how a connection is opened, secured and logged in is in `opening`, how a
dialogue is driven is in `connection`.

Rules of this room:

* What is known about a delivery is stamped on whatever passes through a send: our errors, a
  caller's own exception, a cancellation.
* A client that is thrown away unclosed warns, and its socket goes with it.
"""

from __future__ import annotations

import contextlib
import ssl
import warnings
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Sequence
from dataclasses import replace
from email.message import Message
from smtplib import LMTP_PORT, SMTP_PORT
from socket import socket
from types import TracebackType
from typing import ClassVar, Literal, Self, TypedDict, Unpack

from . import commands, dialogues, opening, transactions
from .bodies import opened
from .connection import Connection
from .delivery import Ledger, Outcome, SendResult
from .errors import Delivery, SMTPServerDisconnected
from .message import Body, Envelope, Prepared, prepare, prepare_message
from .opening import Plan
from .replies import Reply
from .sasl import Credentials
from .secret import Secret
from .session import Trace
from .steps import Phase
from .timeouts import Timeouts
from .tls import TLSPolicy
from .verbs import Verbs, stamped

DEFAULT_TIMEOUTS = Timeouts()


def seal(password: str | Secret | None) -> Secret | None:
    """The password in a wrapper that no traceback with locals shows."""
    return Secret(password) if isinstance(password, str) else password


def _credentials(username: str | None, password: Secret | None) -> Credentials | None:
    """No user name, no login. No password is most likely a forgotten one, and would lock the account."""
    if not username:
        return None
    credentials = Credentials(username, password or Secret(""))
    if password is None:
        raise ValueError("a username needs a password")
    return credentials


class Options(TypedDict, total=False):
    """The keyword-only options of `AsyncSMTP`, for whoever passes them on."""

    tls: TLSPolicy | str | None
    tls_context: ssl.SSLContext | None
    server_hostname: str | None
    username: str | None
    password: str | Secret | None
    sock: socket | None
    pipelining: Literal["off", "message"]
    allow_cleartext_auth: bool
    trace: Trace | None


def sealed(options: Options) -> Options:
    """The same options with the password sealed, also for whoever holds this very dict."""
    if "password" in options:
        options["password"] = seal(options["password"])
    return options


class AsyncSMTP(Verbs):
    """An SMTP client: `smtplib.SMTP`, awaitable, with an exact account of each delivery.

    `async with` connects (greeting, EHLO, TLS by policy, login if a user name is given) and
    quits; `connect()` and `quit()` do the same by hand. One client may be shared by many tasks:
    what they send takes turns. A connection that was lost since, to an idle limit of the server
    or to a cancelled send, is made anew by the next send.

    Args:
        host: a name, an address, `"host:port"`, or a path that starts with "/" (a Unix socket).
        port: TCP port; 0 for the one in `host`, else 25, or 465 with `tls="implicit"`.
        local_hostname: what to say EHLO with; this host's name if it has a domain, else its
            address as a literal. No DNS is asked.
        timeout: `Timeouts`, or one number of seconds for all of them, or None to wait for ever.
        source_address: local host and port to connect from.
        tls: a `TLSPolicy` or its name in lower case. Left out: port 465 "implicit", port 587
            "starttls", a local server "none", anything else "opportunistic".
        tls_context: instead of one that verifies against the system's authorities.
        server_hostname: the name the certificate must have, if it is not `host`.
        username: log in as this user; empty or None for no login.
        password: the password that goes with it.
        sock: a connected socket to use; `host` then only names the server.
        pipelining: "message" writes MAIL, every RCPT and DATA at once where the server offers
            PIPELINING (RFC 2920), "off" waits for each reply.
        allow_cleartext_auth: let credentials travel in clear. Normally they travel inside TLS,
            or with `tls="none"` to a local server.
        trace: called with ("send" | "content" | "reply", octets) for everything on the wire,
            secrets masked.

    Raises:
        ValueError: an argument makes no sense.
    """

    default_port: ClassVar[int] = SMTP_PORT
    _lmtp: ClassVar[bool] = False

    def __init__(
        self,
        host: str = "",
        port: int = 0,
        local_hostname: str | None = None,
        timeout: Timeouts | float | None = DEFAULT_TIMEOUTS,
        source_address: tuple[str, int] | None = None,
        *,
        tls: TLSPolicy | str | None = None,
        tls_context: ssl.SSLContext | None = None,
        server_hostname: str | None = None,
        username: str | None = None,
        password: str | Secret | None = None,
        sock: socket | None = None,
        pipelining: Literal["off", "message"] = "message",
        allow_cleartext_auth: bool = False,
        trace: Trace | None = None,
    ) -> None:
        password = seal(password)  # first of all: what fails below must not show it
        if pipelining not in ("off", "message"):
            raise ValueError(f'pipelining must be "off" or "message", not {pipelining!r}')
        if local_hostname is not None:
            commands.hello("EHLO", local_hostname)  # a bad name is found here, not at the first EHLO
        self._pipelining = pipelining
        self.source_address = source_address
        self._plan = Plan(
            host=host,
            port=port,
            default_port=self.default_port,
            lmtp=self._lmtp,
            sock=sock,
            tls=tls,
            tls_context=tls_context,
            server_hostname=server_hostname,
            timeouts=Timeouts.of(timeout),
            local_hostname=local_hostname,
            credentials=_credentials(username, password),
            allow_cleartext_auth=allow_cleartext_auth,
            trace=trace,
        )
        self._entered = 0
        self._closings = 0
        super().__init__(self._plan.settings(source_address=source_address))

    # -- connecting --------------------------------------------------------------------

    async def connect(
        self, host: str = "", port: int = 0, source_address: tuple[str, int] | None = None
    ) -> Reply:
        """Connect, say hello, bring up TLS by policy, log in; returns the greeting.

        An open connection is quit first. A closed client connects anew, so a client can be used
        again after `quit()` or a lost connection.

        Args:
            host: where to; left out, the constructor's host and port, or localhost.
            port: TCP port, as in the constructor.
            source_address: local host and port; left out, the constructor's.

        Raises:
            SMTPConnectError: no connection, or a greeting other than 220.
            SMTPHeloError: EHLO (or LHLO) was refused, and HELO too where that may be tried.
            SMTPTLSError: TLS could not be had as the policy asks.
            SMTPAuthenticationError: the login was refused.
            SMTPTimeoutError: the server took too long.
        """
        async with self._my_turn():
            self._settings = self._plan.settings(host, port, source_address or self.source_address)
            return await self._open()

    async def _open(self) -> Reply:
        """Connect and make ready, by the settings; the caller holds the turn."""
        self._connected_by_settings = False
        if self._connection is not None:
            old, self._connection = self._connection, None
            await opening.farewell(old)
        closings = self._closings
        connection, greeting = await opening.dial(self._settings)
        await opening.make_ready(connection, self._settings)
        if self._closings != closings:
            connection.drop()
            raise SMTPServerDisconnected("the client was closed while it connected")
        self._connection, self._connected_by_settings = connection, True
        return greeting

    async def _ready(self) -> Connection:
        """The connection for a send, made anew if it was lost: nothing of this message was sent.

        Not if it was brought up by hand, with `starttls`, `login` or a socket that was given: a
        new one would lack what was done to the old.
        """
        if self._connected_by_settings and not self.is_connected and self._plan.sock is None:
            await self._open()
        return await self._greet_if_needed()

    async def __aenter__(self) -> Self:
        self._entered += 1
        try:
            async with self._my_turn():
                if not self.is_connected:
                    self._settings = self._plan.settings(source_address=self.source_address)
                    await self._open()
        except BaseException:
            self._entered -= 1
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered -= 1
        if self._entered > 0:  # entered by several tasks: the last one to leave quits
            return
        if kind is None:
            try:
                async with self._my_turn():  # what other tasks have under way comes to its end first
                    await self._part()
            except BaseException:
                self.close()  # cancelled while it waited for them
                raise
        elif issubclass(kind, Exception):
            await self._part()
        else:
            self.close()  # cancelled: nobody wants to wait for an answer

    async def _part(self) -> None:
        """QUIT and close. Whatever the server makes of it, what it accepted before stays accepted."""
        self._connected_by_settings = False
        self._closings += 1
        connection, self._connection = self._connection, None
        if connection is not None:
            await opening.farewell(connection)

    async def quit(self) -> Reply:
        """Say QUIT and close; returns the reply.

        Raises:
            SMTPServerDisconnected: not connected, or the server went before it answered.
        """
        async with self._my_turn():
            connection = self._connected()
            self._connected_by_settings = False
            try:
                reply = await self._converse(dialogues.quit_())
                await connection.finish()
                return reply
            finally:
                self._connection = None
                connection.drop()

    def close(self) -> None:
        """Close the connection at once, without QUIT; one that is being made is closed when it is there."""
        self._connected_by_settings = False
        self._closings += 1
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.drop()

    def __del__(self) -> None:
        connection = self.__dict__.get("_connection")  # a constructor may fail before there is one
        if connection is None or not connection.alive:
            return
        warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
        with contextlib.suppress(RuntimeError):  # its loop is closed, and took the socket with it
            connection.loop.call_soon_threadsafe(connection.drop)

    def __repr__(self) -> str:
        if "_settings" not in self.__dict__:  # the constructor failed, and somebody shows its locals
            return f"<{type(self).__name__} not connected>"
        state = "connected to" if self.is_connected else "not connected to"
        return f"<{type(self).__name__} {state} {self._settings.endpoint.name}>"

    # -- sending -----------------------------------------------------------------------

    async def sendmail(
        self,
        from_addr: str,
        to_addrs: str | Iterable[str],
        msg: Body,
        mail_options: Iterable[str] = (),
        rcpt_options: Iterable[str] = (),
        *,
        all_or_nothing: bool = False,
    ) -> SendResult:
        """Send one message to the recipients that the server accepts.

        Args:
            from_addr: the reverse-path; empty for a bounce.
            to_addrs: one address or any iterable of them.
            msg: octets, a message object, a `pathlib.Path`, a binary file, or an iterable or
                asynchronous iterable of bytes; the last four are streamed. A `str` is the content
                itself, in ASCII, never a file's name. Line ends are made CRLF and leading dots are
                doubled on the way.
            mail_options: parameters for MAIL, such as "BODY=8BITMIME" (RFC 5321 section 4.1.2).
            rcpt_options: parameters for each RCPT, such as "NOTIFY=NEVER" (RFC 3461).
            all_or_nothing: one refused recipient refuses all, and nothing is delivered.

        Returns:
            The refused recipients, address → `Reply`, empty if there are none; `.accepted`,
            `.reply` and `.outcomes` say the rest.

        Raises:
            SMTPRecipientsRefused: nobody was accepted.
            SMTPSenderRefused: MAIL was refused, or the message is larger than the server takes.
            SMTPDataError: the content was refused.
            SMTPNotSupportedError: it needs an extension that the server lacks.
            SMTPServerDisconnected, SMTPTimeoutError: `.delivery` says whether it may be sent again.
            ValueError: an address, option or content that must not go on the wire.
        """
        envelope = Envelope(
            from_addr,
            to_addrs,
            msg,
            mail_options=mail_options,
            rcpt_options=rcpt_options,
            all_or_nothing=all_or_nothing,
        )
        return await self._send(envelope)

    async def send_message(
        self,
        msg: Message,
        from_addr: str | None = None,
        to_addrs: str | Iterable[str] | None = None,
        mail_options: Iterable[str] = (),
        rcpt_options: Iterable[str] = (),
        *,
        all_or_nothing: bool = False,
    ) -> SendResult:
        """Send a message object, with the envelope taken from its headers where none is given.

        Sender or From make the reverse-path; every To, Cc and Bcc the recipients (the Resent-
        fields in a message that was resent). Bcc does not leave, and `msg` is not changed.
        Arguments, result and errors are otherwise those of `sendmail`.
        """
        if not isinstance(msg, Message):
            raise TypeError(f"send_message takes message objects; for {type(msg).__name__} there is sendmail")
        to_addrs = (to_addrs,) if isinstance(to_addrs, str) else to_addrs
        to_addrs = tuple(to_addrs) if to_addrs is not None else None
        options = Envelope(
            from_addr or "",
            to_addrs or (),
            msg,
            mail_options=mail_options,
            rcpt_options=rcpt_options,
            all_or_nothing=all_or_nothing,
        )

        return await self._send(options, _from_headers(msg, from_addr, to_addrs))

    async def _send(
        self,
        envelope: Envelope,
        make: Callable[[bool, bool], Prepared] | None = None,
        ledger: Ledger | None = None,
    ) -> SendResult:
        def prepare_envelope(eightbitmime: bool, smtputf8: bool) -> Prepared:
            return prepare(
                envelope.sender,
                envelope.recipients,
                envelope.content,
                eightbitmime=eightbitmime,
                smtputf8=smtputf8,
            )

        ledger = ledger if ledger is not None else Ledger(())
        ledger.begin(envelope.recipients)
        with stamped(ledger):
            async with self._my_turn():
                connection = await self._ready()
                extensions = connection.session.extensions
                prepared = (make or prepare_envelope)("8bitmime" in extensions, "smtputf8" in extensions)
                ledger.begin(recipient.text for recipient in prepared.recipients)
                async with opened(prepared.content) as content:
                    transaction = transactions.Transaction(
                        prepared=replace(prepared, content=content),
                        extensions=extensions,
                        ledger=ledger,
                        lmtp=self._lmtp,
                        pipelined=self._pipelining != "off",
                        all_or_nothing=envelope.all_or_nothing,
                        esmtp=connection.esmtp,
                        mail_options=envelope.mail_options,
                        rcpt_options=envelope.rcpt_options,
                    )
                    ledger.carrier = connection.serial
                    await self._converse(transactions.deliver(transaction), home=(Phase.READY,))
        return SendResult(ledger, replace(envelope, sender=prepared.sender.text, recipients=ledger.addresses))

    async def send_messages(
        self,
        messages: Iterable[Message | Envelope] | AsyncIterable[Message | Envelope],
        *,
        ordered: bool = False,
    ) -> AsyncGenerator[Outcome, None]:
        """Send many messages; yields one `Outcome` a message as each becomes known.

        A message that cannot be sent, for whatever reason, is an outcome, not the end. What the
        iterable itself raises ends the run. Messages are taken from it one at a time.

        Args:
            messages: message objects (sent as by `send_message`) or `Envelope`s.
            ordered: yield in the order of the messages. One connection always does.
        """
        if isinstance(messages, Message | Envelope):
            raise TypeError("send_messages takes an iterable of messages; for one there is send_message")
        index = 0
        async with contextlib.aclosing(_each(messages)) as each:
            async for message in each:
                yield await self._outcome(index, message)
                index += 1

    async def _outcome(self, index: int, message: Message | Envelope) -> Outcome:
        ledger, result, failure = Ledger(()), None, None
        try:
            if isinstance(message, Envelope):
                result = await self._send(message, None, ledger)
            elif isinstance(message, Message):
                result = await self._send(Envelope("", (), message), _from_headers(message), ledger)
            else:
                raise TypeError(f"send_messages takes messages and Envelopes, not {type(message).__name__}")
        except Exception as error:
            failure = error
        delivery = ledger.delivery if result is None else Delivery.ACCEPTED
        attempts = 0 if ledger.carrier is None else 1
        return Outcome(index, message, delivery, result, failure, attempts, ledger.carrier)


def _from_headers(
    message: Message, from_addr: str | None = None, to_addrs: Sequence[str] | None = None
) -> Callable[[bool, bool], Prepared]:
    """What prepares a message object once it is known what the server offers."""

    def make(eightbitmime: bool, smtputf8: bool) -> Prepared:
        return prepare_message(message, from_addr, to_addrs, eightbitmime=eightbitmime, smtputf8=smtputf8)

    return make


async def _each(
    messages: Iterable[Message | Envelope] | AsyncIterable[Message | Envelope],
) -> AsyncGenerator[Message | Envelope, None]:
    if isinstance(messages, AsyncIterable):
        async for message in messages:
            yield message
    else:
        for message in messages:
            yield message


class AsyncLMTP(AsyncSMTP):
    """An LMTP client (RFC 2033): as `AsyncSMTP`, with one reply a recipient after the content.

    The order of the arguments is `smtplib.LMTP`'s. A host that starts with "/" is a Unix socket.
    """

    default_port: ClassVar[int] = LMTP_PORT
    _lmtp: ClassVar[bool] = True

    def __init__(
        self,
        host: str = "",
        port: int = 0,
        local_hostname: str | None = None,
        source_address: tuple[str, int] | None = None,
        timeout: Timeouts | float | None = DEFAULT_TIMEOUTS,
        **options: Unpack[Options],
    ) -> None:
        sealed(options)
        super().__init__(host, port, local_hostname, timeout, source_address, **options)
