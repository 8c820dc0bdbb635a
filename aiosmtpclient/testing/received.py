"""What the `MailServer` received, as values that any thread may keep."""

from __future__ import annotations

import email
import email.policy
from dataclasses import dataclass
from email.message import EmailMessage


@dataclass(frozen=True, slots=True)
class ReceivedMessage:
    """A message that the server took.

    Attributes:
        queue_id: the id in the reply to the end of the content.
        sender: the reverse-path, without its angle brackets.
        recipients: those who get it, in the order in which they were named, duplicates included.
        content: the octets as they came, dot-stuffing undone and nothing else.
        mail_options: the parameters of MAIL, as they were written.
        rcpt_options: for each of `recipients`, the parameters of its RCPT.
        helo: the name the client gave in EHLO, LHLO or HELO.
        user: who logged in, or None.
        tls: whether it came through TLS.
        lmtp: whether it came by LMTP.
        chunked: whether it came in BDAT chunks instead of DATA.
        client: address and port of the client, with `proxy_protocol` those that stood in the header;
            None on a Unix socket.
    """

    queue_id: str
    sender: str
    recipients: tuple[str, ...]
    content: bytes
    mail_options: tuple[str, ...]
    rcpt_options: tuple[tuple[str, ...], ...]
    helo: str
    user: str | None
    tls: bool
    lmtp: bool
    chunked: bool
    client: tuple[str, int] | None = None

    @property
    def message(self) -> EmailMessage:
        """The content, parsed anew each time."""
        return email.message_from_bytes(self.content, policy=email.policy.default)
