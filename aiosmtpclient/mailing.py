"""Mailing: the calls that send, for whatever has a way to send a parcel.

One connection has them, and so has a pool of connections: the same names, the same arguments, the
same results and errors.

Rules of this room:

* What was asked for is made a parcel here. Which way it takes is decided by whoever sends it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from email.message import Message
from functools import partial
from typing import TypeAlias, Unpack

from .bulk import Carry
from .delivery import Journal, Outcome, SendResult
from .message import Body, Envelope
from .parameters import MailOptions
from .parcels import Parcel, account
from .steps import Progress

Messages: TypeAlias = Iterable[Message | Envelope] | AsyncIterable[Message | Envelope]
Run: TypeAlias = AsyncGenerator[Outcome, None]


class Mailing:
    """`sendmail`, `send_message` and `send_messages`."""

    async def _send(self, parcel: Parcel) -> SendResult:
        """Send one message; the account is in the parcel's ledger, whatever comes of it."""
        raise NotImplementedError("only who has a connection can send")

    def _run(
        self, messages: Messages, carry: Carry[Message | Envelope], ordered: bool, journal: Journal | None
    ) -> Run:
        """Send many, so many at a time as makes sense."""
        raise NotImplementedError("only who has a connection can send")

    # -- one ---------------------------------------------------------------------------

    async def sendmail(
        self,
        from_addr: str,
        to_addrs: str | Iterable[str],
        msg: Body,
        mail_options: Iterable[str] = (),
        rcpt_options: Iterable[str] = (),
        *,
        all_or_nothing: bool = False,
        progress: Progress | None = None,
        **options: Unpack[MailOptions],
    ) -> SendResult:
        """Send one message to the recipients that the server accepts.

        Args:
            from_addr: the reverse-path; empty for a bounce.
            to_addrs: one address or any iterable of them; a `Recipient` has options of its own.
            msg: octets, a message object, a `pathlib.Path`, a binary file, or an iterable or
                asynchronous iterable of bytes; the last four are streamed. A `str` is the content
                itself, in ASCII, never a file's name. Line ends are made CRLF and leading dots are
                doubled on the way.
            mail_options: parameters for MAIL, such as "BODY=8BITMIME" (RFC 5321 section 4.1.2).
            rcpt_options: parameters for each RCPT, such as "NOTIFY=NEVER" (RFC 3461).
            all_or_nothing: one refused recipient refuses all, and nothing is delivered.
            progress: called as the content leaves, with the octets written so far and the
                octets in all, or None where that is not known before the end.
            options: `ret`, `envid`, `notify`, `body`, `smtputf8`, `size`, `auth`, `deliver_by`,
                `hold_for`, `hold_until`, `priority`, `require_tls`: see `MailOptions`.

        Returns:
            The refused recipients, address → `Reply`, empty if there are none; `.accepted`,
            `.reply` and `.outcomes` say the rest. Where there were more recipients than the server
            takes at a time, several transactions are in it; `.reply` is the first that accepted.

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
            **options,
        )
        return await self._send(Parcel(envelope, progress=progress))

    async def send_message(
        self,
        msg: Message,
        from_addr: str | None = None,
        to_addrs: str | Iterable[str] | None = None,
        mail_options: Iterable[str] = (),
        rcpt_options: Iterable[str] = (),
        *,
        all_or_nothing: bool = False,
        progress: Progress | None = None,
        **options: Unpack[MailOptions],
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
        envelope = Envelope(
            from_addr or "",
            to_addrs or (),
            msg,
            mail_options=mail_options,
            rcpt_options=rcpt_options,
            all_or_nothing=all_or_nothing,
            **options,
        )
        return await self._send(Parcel(envelope, headers=(from_addr, to_addrs), progress=progress))

    # -- many --------------------------------------------------------------------------

    def send_messages(
        self,
        messages: Messages,
        *,
        ordered: bool = False,
        journal: Journal | None = None,
    ) -> AsyncGenerator[Outcome, None]:
        """Send many messages; yields one `Outcome` a message as each becomes known.

        A message that cannot be sent, for whatever reason, is an outcome, not the end. What the
        iterable itself raises ends the run. Messages are taken from it one at a time; with
        `pipelining="stream"` a bounded number of them is under way. A caller who stops early
        cancels what is under way.

        Args:
            messages: message objects (sent as by `send_message`) or `Envelope`s. A plain iterable is asked
                for the next on the loop's thread, but not always from within a task.
            ordered: yield in the order of the messages, not as they become known.
            journal: told what leaves before it leaves, and what became of it; see `Journal`.
        """
        if isinstance(messages, Message | Envelope):
            raise TypeError("send_messages takes an iterable of messages; for one there is send_message")

        carry: Carry[Message | Envelope] = partial(account, send=self._send, journal=journal)
        return self._run(messages, carry, ordered, journal)
