"""What can go wrong, as one tree, and what is then known about the delivery.

Every class also inherits its namesake in `smtplib`, so clauses written for smtplib keep
catching::

    smtplib.SMTPException
    └ SMTPException
      ├ SMTPServerDisconnected      (also ConnectionError)        .last_reply
      ├ SMTPTimeoutError            (also TimeoutError)           .phase
      ├ SMTPTLSError                (also ssl.SSLError)           policy, handshake, certificate
      ├ SMTPNotSupportedError       needs an extension that the server lacks
      ├ SMTPRecipientsRefused       every recipient was refused   .recipients
      ├ SMTPPoolError               no slot in time, or the pool is closed
      └ SMTPResponseException       .smtp_code .smtp_error .reply .command
        ├ SMTPProtocolError         the server broke the protocol; the connection is closed
        ├ SMTPConnectError          no connection, or a greeting other than 220
        │ └ SMTPConnectionRefusedError  (also ConnectionRefusedError)
        ├ SMTPHeloError             EHLO, LHLO or HELO refused
        ├ SMTPAuthenticationError   AUTH refused                  .oauth
        ├ SMTPSenderRefused         MAIL refused                  .sender
        └ SMTPDataError             DATA, or the content, refused

Wrong input is a plain `ValueError`, raised before an octet is written.

Rules of this room:

* `delivery` says what is known about the message of which the error speaks, and `outcomes`
  says it for each recipient. NOT_SENT unless somebody knows better.
* Positional arguments are smtplib's, in its order, and stay in `args`; our own fields are
  keyword-only and live in the instance's `__dict__`. That is also what makes errors
  picklable.
* The text starts with what failed, and where, and ends with what the server said. What is known
  about the message, and what to do, is `advice`; a send adds it as a note (PEP 678), so that a
  traceback has all of it.
"""

# pyright: reportIncompatibleVariableOverride=false
# smtplib's stubs declare looser types (bytes | str, plain tuples) than what is ever stored here.

from __future__ import annotations

import enum
import smtplib
import ssl
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .replies import Reply


_SHOWN = 10
"""Recipients that a text names; a message may have thousands."""


_IN_WORDS = {"greeting": "the greeting", "end of content": "the content"}


def spoken_of(command: str) -> str:
    """How a text speaks of what was being answered."""
    return _IN_WORDS.get(command, command)


class Delivery(enum.Enum):
    """What is known about a message, or about one recipient of it."""

    ACCEPTED = "accepted"
    """The server took responsibility (RFC 5321 section 6.1)."""
    REFUSED = "refused"
    """The server said no: the reply says whether for now (4yz) or for good (5yz)."""
    NOT_SENT = "not sent"
    """The end of the content never left: sending again cannot make a duplicate."""
    UNKNOWN = "unknown"
    """The end of the content left and no trustworthy reply came: sending again may make a duplicate."""

    def __str__(self) -> str:
        return self.value


class RecipientOutcome(NamedTuple):
    """What is known about one recipient of one message, at its position in the list that was asked."""

    address: str
    delivery: Delivery
    reply: Reply | None


class SMTPException(smtplib.SMTPException):
    """Base class of everything this library raises about a server or a connection.

    Attributes:
        delivery: what is known about the message this error speaks of.
        outcomes: the same for each recipient, by position; empty if no message was being sent.
        host: the server, as messages name it ("mail.example.org:25"); empty if there was none yet.
    """

    delivery: Delivery = Delivery.NOT_SENT
    outcomes: tuple[RecipientOutcome, ...] = ()
    host: str = ""

    def __init__(self, *args: object) -> None:
        # No super(): smtplib's own __init__ methods, next in the order, each want other arguments.
        self.args = args

    @property
    def temporary(self) -> bool:
        """True if the same attempt may succeed later (a 4yz reply, a lost connection, a timeout)."""
        return False

    @property
    def permanent(self) -> bool:
        """True if the same attempt will fail again (a 5yz reply)."""
        return False

    @property
    def advice(self) -> str:
        """What is known about the message, and what to do, in one line; tracebacks show it too."""
        if self.delivery is Delivery.UNKNOWN:
            return "delivery unknown: it may have been delivered; sent again, it may arrive twice"
        if self.delivery is Delivery.ACCEPTED:
            return "accepted for some: send it again only to the others, see .outcomes"
        if self.delivery is Delivery.REFUSED:
            again = (
                "now: send it again later"
                if self.temporary
                else "good: sent again as it is, it will be again"
            )
            return f"refused for {again}"
        return "not sent: " + (
            "it would fail again as it is" if self.permanent else "to send it again is safe"
        )

    def __str__(self) -> str:
        text = str(self.args[0]) if len(self.args) == 1 else " ".join(map(str, self.args))
        return text if not self.host or self.host in text else f"{self.host}: {text}"


class SMTPServerDisconnected(SMTPException, smtplib.SMTPServerDisconnected, ConnectionError):
    """The connection is gone, or was never there.

    Attributes:
        last_reply: the last reply read before it went, which often says why (a 421, say).
    """

    last_reply: Reply | None = None

    def __init__(self, *args: object, last_reply: Reply | None = None) -> None:
        super().__init__(*args)
        self.last_reply = last_reply

    @property
    def temporary(self) -> bool:
        """A lost connection says nothing against another attempt."""
        return True

    def __str__(self) -> str:
        # Only what may be the reason: an answer to EHLO, say, is none.
        telling = self.last_reply is not None and self.last_reply.code >= 400
        said = f"; the server last said: {self.last_reply.display}" if self.last_reply and telling else ""
        return super().__str__() + said


class SMTPTimeoutError(SMTPException, TimeoutError):
    """A deadline passed. The connection was closed, for nobody knows where the conversation stands.

    Attributes:
        phase: what was being waited for ("connect", "greeting", "MAIL", "end of content", …).
    """

    phase: str = ""

    def __init__(self, *args: object, phase: str = "") -> None:
        super().__init__(*args)
        self.phase = phase

    @property
    def temporary(self) -> bool:
        """A timeout says nothing against another attempt."""
        return True


class SMTPTLSError(SMTPException, ssl.SSLError):
    """TLS could not be had as the policy asks: not offered, refused, handshake or certificate failed."""

    @property
    def advice(self) -> str:
        """As for others, but that the same attempt fails again until somebody does what the text says."""
        text = super().advice
        return text + ", once this is put right" if self.delivery is Delivery.NOT_SENT else text


class SMTPNotSupportedError(SMTPException, smtplib.SMTPNotSupportedError):
    """The message or the call needs an extension that the server does not offer."""

    @property
    def permanent(self) -> bool:
        """The same server will not offer it at the next attempt either."""
        return True


class SMTPRecipientsRefused(SMTPException, smtplib.SMTPRecipientsRefused):
    """Every recipient was refused, so nothing was delivered.

    Attributes:
        recipients: address → the reply it got, as in smtplib.
    """

    delivery = Delivery.REFUSED
    # A Reply is the tuple that smtplib documents, only a dict's value type may not be narrowed.
    recipients: dict[str, Reply]  # type: ignore[assignment]  # see above

    def __init__(self, recipients: dict[str, Reply]) -> None:
        super().__init__(recipients)
        self.recipients = recipients

    @property
    def temporary(self) -> bool:
        """True if at least one refusal was temporary: a later attempt can reach somebody."""
        return any(400 <= code <= 499 for code, _ in self.recipients.values())

    @property
    def permanent(self) -> bool:
        """True if every refusal was permanent."""
        return bool(self.recipients) and all(code >= 500 for code, _ in self.recipients.values())

    def __str__(self) -> str:
        said = "; ".join(
            f"{address}: {reply.display}" for address, reply in islice(self.recipients.items(), _SHOWN)
        )
        if len(self.recipients) > _SHOWN:
            said += f"; and {len(self.recipients) - _SHOWN} more, see .recipients"
        by = f" by {self.host}" if self.host else ""
        return f"all recipients were refused{by}: {said}"


class SMTPPoolError(SMTPException):
    """The pool could not lend a connection: none became free in time, too many wait, or it is closed.

    Args:
        text: what happened, and what to do.
        closed: the pool is closed, so another attempt will end in the same way.
    """

    closed: bool = False

    def __init__(self, text: str = "", *, closed: bool = False) -> None:
        self.args = (text,)
        self.closed = closed

    @property
    def temporary(self) -> bool:
        """A connection may be free later, but not in a pool that is closed."""
        return not self.closed

    @property
    def permanent(self) -> bool:
        """A pool that is closed stays so."""
        return self.closed


def _one_line(octets: bytes) -> str:
    """What `Reply.display` shows of a text, for errors built without a reply, as smtplib builds them."""
    text = octets.decode("utf-8", "backslashreplace").replace("\n", " / ")
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class SMTPResponseException(SMTPException, smtplib.SMTPResponseException):
    """The server answered with an error.

    Args:
        code: the reply code; -1 if there was no trustworthy reply.
        msg: the reply's text, as the octets read, lines joined by LF as in smtplib.
        reply: the whole reply, if there was one.
        command: the verb that it answers ("MAIL", "end of content", …).
    """

    smtp_code: int
    smtp_error: bytes
    reply: Reply | None = None
    command: str = ""
    _failed = "refused"

    def __init__(self, code: int, msg: bytes, *, reply: Reply | None = None, command: str = "") -> None:
        self.args = (code, msg)
        self.smtp_code = code
        self.smtp_error = msg
        self.reply = reply
        self.command = command

    @property
    def temporary(self) -> bool:
        """True for a 4yz reply (RFC 5321 section 4.2.1)."""
        return 400 <= self.smtp_code <= 499

    @property
    def permanent(self) -> bool:
        """True for a 5yz reply."""
        return 500 <= self.smtp_code <= 599

    @property
    def _server(self) -> str:
        return self.host or "the server"

    def _what(self) -> str:
        return f"{self._server} {self._failed} {self.command}".rstrip()

    def __str__(self) -> str:
        if self.reply is not None:
            return f"{self._what()}: {self.reply.display}"
        shown = _one_line(self.smtp_error)
        said = shown if self.smtp_code < 0 else f"{self.smtp_code} {shown}".rstrip()
        return f"{self._what()}: {said}"


class SMTPProtocolError(SMTPResponseException):
    """The server broke the protocol, so no later reply can be trusted. The connection is closed."""

    _failed = "broke the protocol"

    def _what(self) -> str:
        answering = f" (in answer to {spoken_of(self.command)})" if self.command else ""
        answering = answering.replace("answer to the greeting", "place of the greeting")
        return f"{self._server} {self._failed}{answering}"


class SMTPConnectError(SMTPResponseException, smtplib.SMTPConnectError):
    """No connection could be made (code -1), or the greeting was not 220 (RFC 5321 section 4.2)."""

    def _what(self) -> str:
        return f"cannot connect to {self.host}" if self.host else "cannot connect"

    @property
    def temporary(self) -> bool:
        """A refused or unreachable server may be back later; a 5yz greeting says it will not."""
        return self.smtp_code < 500


class SMTPConnectionRefusedError(SMTPConnectError, ConnectionRefusedError):
    """Nothing listens at that address, or it refuses us."""


class SMTPHeloError(SMTPResponseException, smtplib.SMTPHeloError):
    """The server refused our EHLO, LHLO or HELO."""


class SMTPAuthenticationError(SMTPResponseException, smtplib.SMTPAuthenticationError):
    """The server did not let us in (RFC 4954 section 6).

    Attributes:
        oauth: what the server said about an access token that it refused, as text: "status",
            "scope", … (RFC 7628 section 3.2.2); empty if that could not be read, None if it
            said nothing of the kind.
    """

    oauth: dict[str, str] | None = None
    _failed = "refused the credentials"

    def _what(self) -> str:
        about = ", ".join(f"{name}: {value}" for name, value in (self.oauth or {}).items())
        more = "; ".join(filter(None, (self.command, about)))
        how = f" ({more})" if more else ""
        return f"{self._server} {self._failed}{how}"


class SMTPSenderRefused(SMTPResponseException, smtplib.SMTPSenderRefused):
    """MAIL was refused, or the message is larger than the server takes.

    Attributes:
        sender: the reverse-path as it was asked for.
    """

    sender: str
    delivery = Delivery.REFUSED

    def __init__(
        self, code: int, msg: bytes, sender: str, *, reply: Reply | None = None, command: str = "MAIL"
    ) -> None:
        SMTPResponseException.__init__(self, code, msg, reply=reply, command=command)
        self.args = (code, msg, sender)
        self.sender = sender

    def _what(self) -> str:
        return f"{self._server} refused MAIL FROM:<{self.sender}>"


class SMTPDataError(SMTPResponseException, smtplib.SMTPDataError):
    """DATA was refused, or the content after it."""

    delivery = Delivery.REFUSED

    def _what(self) -> str:
        return f"{self._server} {self._failed} {spoken_of(self.command)}".rstrip()
