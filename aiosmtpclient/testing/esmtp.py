"""A connection of the `MailServer` up to its first MAIL: PROXY, greeting, EHLO, STARTTLS, AUTH.

It is aiosmtpd's SMTP with the command loop replaced; aiosmtpd gives the protocol, the session
and the exchanges of PLAIN and LOGIN. The other logins are in `logins.py`, what comes after MAIL is
in `transactions.py`.

Rules of this room:

* Commands are answered one by one, in order, whatever way they were grouped.
* What a client said before it closed is still carried out.
* A client is not helped out: where its line breaks a rule, a reply says which.
* A command that is not carried out raises `Refused`; the loop answers with its reply.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import re
import ssl
from typing import TYPE_CHECKING

from aiosmtpd.proxy_protocol import get_proxy
from aiosmtpd.smtp import SMTP

from aiosmtpclient.testing.arguments import Refused
from aiosmtpclient.testing.logins import LOGINS, Over
from aiosmtpclient.testing.loopback import bring_up_tls, client_left, read_line

if TYPE_CHECKING:
    from aiosmtpd.smtp import _Missing

    from aiosmtpclient.testing.server import MailServer

_CONTROL = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_ENHANCED = re.compile(r"^([245][0-9]{2}[ -])[245]\.[0-9]{1,3}\.[0-9]{1,3} ", re.MULTILINE)


class ESMTPConnection(SMTP):
    """A protocol: aiosmtpd's connection with its conversation replaced, transactions left out."""

    # aiosmtpd makes this the limit of its reader: it bounds what is read ahead, not a line.
    line_length_limit = 64 * 1024
    AuthLoginUsernameChallenge = "Username:"
    AuthLoginPasswordChallenge = "Password:"

    def __init__(self, owner: MailServer) -> None:
        self.owner = owner
        self.extensions: dict[str, str] = {}
        self.tls = False
        self.user: str | None = None
        self.client: tuple[str, int] | None = None
        self._replied = False
        super().__init__(
            object(),
            hostname="mail.test",
            enable_SMTPUTF8=True,
            timeout=24 * 3600,
            auth_callback=self._knows,
            loop=asyncio.get_running_loop(),
        )
        self._verbs = owner.verbs

    # The connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the conversation."""
        super().connection_made(transport)
        assert self._handler_coroutine is not None
        peer = transport.get_extra_info("peername")
        self.client = peer[:2] if isinstance(peer, tuple) else None
        self.owner.opened(self, transport)
        self.owner.keep(self._handler_coroutine)

    def connection_lost(self, error: Exception | None) -> None:
        """End the conversation."""
        assert self._timeout_handle is not None
        self._timeout_handle.cancel()
        # Not aiosmtpd's own: it cancels the conversation, and with it what was read but not yet carried out.
        asyncio.StreamReaderProtocol.connection_lost(self, error)
        self.owner.lost(self)

    def data_received(self, data: bytes) -> None:
        """Octets came; the first ones after a reply end a round trip."""
        self.owner.round_trips += self._replied
        self._replied = False
        super().data_received(data)

    def eof_received(self) -> bool | None:
        """The client says no more. What it said before is still answered, unlike in aiosmtpd."""
        return asyncio.StreamReaderProtocol.eof_received(self)

    async def push(self, status: str | bytes) -> None:
        """Write a reply, without its enhanced codes where the server does not offer them."""
        self._replied = True
        text = status if isinstance(status, str) else status.decode()
        await super().push(text if self.owner.gives_enhanced_codes else _ENHANCED.sub(r"\1", text))

    async def _handle_client(self) -> None:
        try:
            if self.owner.proxy_protocol and not await self._read_proxy_header():
                return
            if self.owner.implicit_tls is not None:
                await self._bring_up_tls(self.owner.implicit_tls)
            await self.push(f"220 {self.hostname} {'LMTP' if self.owner.lmtp else 'ESMTP'} ready for tests")
            while not self._writer.is_closing():
                await self._command(await self._read_command())
        except Exception as error:
            if not client_left(error):
                raise
        finally:
            self._writer.close()

    async def _read_proxy_header(self) -> bool:
        """What a load balancer writes in front of everything; without it nothing may be said at all."""
        header = await get_proxy(self._reader)
        if header.src_addr is not None and header.src_port is not None:
            self.client = str(header.src_addr), header.src_port
        return bool(header.valid)

    async def _read_command(self) -> bytes:
        try:
            return await self._reader.readuntil(b"\n")
        except asyncio.LimitOverrunError:
            return await read_line(self._reader)

    async def _command(self, line: bytes) -> None:
        text = line.decode("utf-8", "surrogateescape").rstrip("\r\n")
        verb, _, argument = text.partition(" ")
        verb, argument = verb.upper(), argument.strip(" ")
        self.owner.commands.append(_masked(text))
        try:
            if len(line) > self.line_length_limit:
                raise Refused("500 5.5.2 Error: line too long")
            if not line.endswith(b"\r\n") or _CONTROL.search(text):
                raise Refused("500 5.5.2 Error: a line is UTF-8 without controls, and ends in CRLF")
            if verb not in self._verbs:
                raise Refused("500 5.5.1 Error: command not recognized")
            await self._smtp_methods[verb](argument)
        except Refused as refused:
            await self.push(refused.reply)

    # Greetings

    async def smtp_EHLO(self, hostname: str) -> None:
        """EHLO (RFC 5321 section 4.1.1.1)."""
        self._hello(hostname)
        lines = self.owner.offered(tls=self.tls)
        self.extensions = {line.split()[0].upper(): line for line in lines}
        *before, last = [self.hostname, *lines]
        await self.push("".join(f"250-{line}\r\n" for line in before) + f"250 {last}")

    async def smtp_LHLO(self, hostname: str) -> None:
        """LHLO (RFC 2033 section 4.1)."""
        await self.smtp_EHLO(hostname)

    async def smtp_HELO(self, hostname: str) -> None:
        """HELO: nothing is offered, so nothing may be used."""
        self._hello(hostname)
        self.extensions = {}
        await self.push(f"250 {self.hostname}")

    def _hello(self, hostname: str) -> None:
        if not hostname:
            raise Refused("501 5.5.4 Error: a host name is missing")
        assert self.session is not None
        self._set_rset_state()  # type: ignore[no-untyped-call]  # aiosmtpd's
        self.session.host_name = hostname

    async def smtp_STARTTLS(self, arg: str) -> None:
        """STARTTLS (RFC 3207). What was sent behind it in clear is thrown away, as section 4.2 asks."""
        if arg:
            raise Refused("501 5.5.4 Error: STARTTLS takes no parameters")
        if self.tls or self.owner.starttls is None:
            raise Refused("503 5.5.1 Error: TLS is already active")
        await self.push("220 2.0.0 Ready to start TLS")
        self._reader._buffer.clear()  # type: ignore[attr-defined]  # nothing public empties it
        await self._bring_up_tls(self.owner.starttls)

    async def _bring_up_tls(self, context: ssl.SSLContext) -> None:
        await bring_up_tls(self, self._reader, self._writer, context)
        self.transport = self._writer.transport
        self.tls = True
        self.user = None
        self.extensions = {}
        self.session = self._create_session()
        self._set_rset_state()  # type: ignore[no-untyped-call]  # aiosmtpd's

    # AUTH

    async def smtp_AUTH(self, arg: str) -> None:
        """AUTH (RFC 4954 section 4)."""
        if "AUTH" not in self.extensions:
            if self.owner.auth_requires_tls and not self.tls:
                raise Refused("538 5.7.11 Encryption required for requested authentication mechanism")
            raise Refused("503 5.5.1 Error: AUTH was not offered")
        assert self.envelope is not None
        if self.user is not None or self.envelope.mail_from is not None:
            raise Refused("503 5.5.1 Error: already logged in, or inside a transaction")
        mechanism, *initial = arg.split() or [""]
        mechanism = mechanism.upper()
        if mechanism not in self.owner.mechanisms_offered(tls=self.tls):
            raise Refused("504 5.5.4 Unrecognized authentication type")
        if len(initial) > 1:
            raise Refused("501 5.5.4 Error: too many words")
        try:
            self.user = await self._logged_in(mechanism, initial)
        except Over:
            return
        if self.user is None:
            await self.push("535 5.7.8 Authentication credentials invalid")
        else:
            await self.push("235 2.7.0 Authentication successful")

    async def _logged_in(self, mechanism: str, initial: list[str]) -> str | None:
        """The user who was let in, or None."""
        if mechanism in LOGINS:
            return await LOGINS[mechanism](self, _decoded(initial[0]) if initial else None)
        result = await self._auth_methods[mechanism].method(self, [mechanism, *initial])
        if result.success:
            return str(result.auth_data.login.decode())
        if result.handled:
            raise Over
        return None

    async def challenge_auth(
        self, challenge: str | bytes, encode_to_b64: bool = True, log_client_response: bool = False
    ) -> _Missing | bytes:
        """A challenge and its response, which counts as a line received."""
        self.owner.commands.append("***")
        try:
            return await super().challenge_auth(challenge, encode_to_b64, log_client_response)
        except ValueError as overrun:
            raise Refused("500 5.5.6 Authentication exchange line is too long") from overrun

    def _knows(self, mechanism: str, login: bytes, password: bytes) -> bool:
        known = self.owner.users.get(login.decode("utf-8", "replace"))
        return known is not None and hmac.compare_digest(known.encode(), password)

    def _require_hello(self) -> None:
        assert self.session is not None
        if not self.session.host_name:
            raise Refused(f"503 5.5.1 Error: send {'LHLO' if self.owner.lmtp else 'EHLO'} first")

    # What may come at any time

    async def smtp_RSET(self, arg: str | None) -> None:
        """RSET (RFC 5321 section 4.1.1.5)."""
        if arg:
            raise Refused("501 5.5.4 Error: RSET takes no parameters")
        self._set_rset_state()  # type: ignore[no-untyped-call]  # aiosmtpd's
        await self.push("250 2.0.0 Ok")

    async def smtp_NOOP(self, arg: str | None) -> None:
        """NOOP, whose parameter means nothing."""
        await self.push("250 2.0.0 Ok")

    async def smtp_QUIT(self, arg: str | None) -> None:
        """QUIT: the reply, then the end."""
        if arg:
            raise Refused("501 5.5.4 Error: QUIT takes no parameters")
        await self.push("221 2.0.0 Bye")
        self._writer.close()

    async def smtp_HELP(self, arg: str | None) -> None:
        """HELP (RFC 5321 section 4.1.1.8)."""
        await self.push(f"214 2.0.0 Commands: {' '.join(sorted(self._verbs))}")


def _decoded(initial: str) -> bytes:
    try:
        return b"" if initial == "=" else base64.b64decode(initial, validate=True)
    except ValueError:
        raise Refused("501 5.5.2 Error: the initial response is not base64") from None


def _masked(line: str) -> str:
    return re.sub(r"^(\s*AUTH\s+\S+)\s+.*", r"\1 ***", line, flags=re.IGNORECASE)
