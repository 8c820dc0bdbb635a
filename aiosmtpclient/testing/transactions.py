"""A connection of the `MailServer` from MAIL on: the envelope, the content, and the verdict.

What aiosmtpd 1.4 does not speak is here: BDAT (RFC 3030), the parameters of DSN (RFC 3461) and
of every other extension offered, and LMTP's replies (RFC 2033).

Rules of this room:

* A chunk is read even when it is refused: the octets of a message never run as commands.
* Content is kept as it came. Only dot-stuffing is undone, and a CR or LF alone ends nothing.
* A message is kept before its reply is written, so that whoever read the reply finds it.
"""

from __future__ import annotations

from aiosmtpd.smtp import Envelope

from aiosmtpclient.testing.arguments import (
    Refused,
    check_address,
    read_chunk_size,
    read_parameters,
    read_path,
)
from aiosmtpclient.testing.esmtp import ESMTPConnection
from aiosmtpclient.testing.loopback import read_line
from aiosmtpclient.testing.received import ReceivedMessage

_TOO_LARGE = "552 5.3.4 Message size exceeds fixed limit"


class Transaction(Envelope):
    """aiosmtpd's envelope, with each recipient's parameters and the chunks so far."""

    def __init__(self) -> None:
        super().__init__()
        self.rcpt_parameters: list[tuple[str, ...]] = []
        self.binary = False
        self.chunks: bytearray | None = None
        self.chunk_refused = False


class MailConnection(ESMTPConnection):
    """A protocol that takes mail."""

    transaction: Transaction

    def _create_envelope(self) -> Transaction:
        self.transaction = Transaction()
        return self.transaction

    # The envelope

    async def smtp_MAIL(self, arg: str | None) -> None:
        """MAIL (RFC 5321 section 4.1.1.2)."""
        self._require_hello()
        if self.owner.require_auth and self.user is None:
            raise Refused("530 5.7.0 Authentication required")
        if self.transaction.mail_from is not None:
            raise Refused("503 5.5.1 Error: nested MAIL command")
        sender, options = read_path("FROM:", arg or "")
        parameters = read_parameters(options, self.extensions, of_mail=True)
        if self._too_large(int(parameters.get("SIZE", "0"))):
            raise Refused(_TOO_LARGE)
        body = parameters.get("BODY", "7BIT").upper()
        if body != "7BIT" and body not in self.extensions:
            raise Refused(f"555 5.5.4 Unsupported option: BODY={body}")
        utf8 = "SMTPUTF8" in parameters
        check_address(sender, utf8=utf8)
        reply = self.owner.refusal(self.owner.refuse_sender, sender) or "250 2.1.0 Ok"
        if not accepts(reply):
            raise Refused(reply)
        self.transaction.mail_from = sender
        self.transaction.mail_options = options
        self.transaction.smtp_utf8 = utf8
        self.transaction.binary = body == "BINARYMIME"
        await self.push(reply)

    async def smtp_RCPT(self, arg: str | None) -> None:
        """RCPT (RFC 5321 section 4.1.1.3)."""
        if self.transaction.mail_from is None:
            raise Refused("503 5.5.1 Error: need MAIL command")
        if self.transaction.chunks is not None:
            raise Refused("503 5.5.1 Error: the content has begun")
        recipient, options = read_path("TO:", arg or "")
        if not recipient:
            raise Refused("501 5.1.3 Error: a recipient is missing")
        read_parameters(options, self.extensions, of_mail=False)
        check_address(recipient, utf8=self.transaction.smtp_utf8)
        reply = self.owner.refusal(self.owner.refuse, recipient) or "250 2.1.5 Ok"
        if not accepts(reply):
            raise Refused(reply)
        self.transaction.rcpt_tos.append(recipient)
        self.transaction.rcpt_parameters.append(tuple(options))
        await self.push(reply)

    def _too_large(self, octets: int) -> bool:
        return 0 < (self.owner.size_limit or 0) < octets

    # The content

    async def smtp_DATA(self, arg: str | None) -> None:
        """DATA (RFC 5321 section 4.1.1.4)."""
        if arg:
            raise Refused("501 5.5.4 Error: DATA takes no parameters")
        if not self.transaction.rcpt_tos:
            raise Refused("503 5.5.1 Error: need RCPT command")
        if self.transaction.chunks is not None or self.transaction.binary:
            raise Refused("503 5.5.1 Error: this content comes in chunks")
        await self.push("354 End data with <CR><LF>.<CR><LF>")
        await self._finish(await self._read_content(), chunked=False)

    async def _read_content(self) -> bytes | None:
        """What comes before the lone dot, un-stuffed; None if it is larger than we take."""
        lines: list[bytes] = []
        octets = 0
        while (line := await read_line(self._reader)) != b".\r\n":
            lines.append(line.removeprefix(b"."))
            octets += len(lines[-1])
            if self._too_large(octets):
                lines.clear()
        return None if self._too_large(octets) else b"".join(lines)

    async def smtp_BDAT(self, arg: str | None) -> None:
        """BDAT (RFC 3030 section 2): the chunk is read first, and only then judged."""
        octets, last = read_chunk_size(arg or "")
        refused = self._chunk_refusal()
        chunk = await self._read_chunk(octets, keep=not refused)
        if refused:
            raise Refused(refused)
        if self.transaction.chunks is None:
            self.transaction.chunks = bytearray()
        self.transaction.chunks += chunk
        too_large = self._too_large(len(self.transaction.chunks))
        if last:
            await self._finish(None if too_large else bytes(self.transaction.chunks), chunked=True)
        elif too_large:
            self.transaction.chunk_refused = True
            raise Refused(_TOO_LARGE)
        else:
            await self.push(f"250 2.0.0 {octets} octets received")

    def _chunk_refusal(self) -> str | None:
        if "CHUNKING" not in self.extensions:
            return "503 5.5.1 Error: CHUNKING was not offered"
        if self.transaction.chunk_refused:
            return "503 5.5.1 Error: a chunk was refused, send RSET"
        return None if self.transaction.rcpt_tos else "503 5.5.1 Error: need RCPT command"

    async def _read_chunk(self, octets: int, *, keep: bool) -> bytes:
        chunk = bytearray()
        while octets:
            piece = await self._reader.readexactly(min(octets, self.line_length_limit))
            octets -= len(piece)
            if keep:
                chunk += piece
        return bytes(chunk)

    async def _finish(self, content: bytes | None, *, chunked: bool) -> None:
        """Take the content or refuse it: one reply, in LMTP one a recipient (RFC 2033 section 4.2)."""
        envelope = self.transaction
        assert self.session is not None
        message = ReceivedMessage(
            queue_id=self.owner.next_queue_id(),
            sender=envelope.mail_from or "",
            recipients=tuple(envelope.rcpt_tos),
            content=content or b"",
            mail_options=tuple(envelope.mail_options),
            rcpt_options=tuple(envelope.rcpt_parameters),
            helo=self.session.host_name or "",
            user=self.user,
            tls=self.tls,
            lmtp=self.owner.lmtp,
            chunked=chunked,
            client=self.client,
        )
        self._set_post_data_state()  # type: ignore[no-untyped-call]  # aiosmtpd's
        await self.push("\r\n".join(self.owner.deliver(message, _TOO_LARGE if content is None else None)))

    # Questions about an address

    async def smtp_VRFY(self, arg: str | None) -> None:
        """VRFY: who would be refused is refused here too."""
        self._check_word(arg)
        await self.push("252 2.5.2 Cannot VRFY user, but will take mail for it")

    async def smtp_EXPN(self, arg: str | None) -> None:
        """EXPN: everybody is a list with one member."""
        await self.push(f"250 2.1.5 <{self._check_word(arg)}>")

    def _check_word(self, arg: str | None) -> str:
        word = (arg or "").removesuffix(" SMTPUTF8").strip("<>")
        if not word:
            raise Refused("501 5.5.4 Error: an address is missing")
        reply = self.owner.refusal(self.owner.refuse, word)
        if reply is not None and not accepts(reply):
            raise Refused(reply)
        return word


def accepts(reply: str) -> bool:
    """True if a reply line says yes."""
    return reply.startswith("2")
