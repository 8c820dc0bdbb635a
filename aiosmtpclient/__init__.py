"""An asyncio-native SMTP and LMTP client with the whole vocabulary of `smtplib`.

::

    async with AsyncSMTP("localhost") as smtp:
        result = await smtp.send_message(message)

This module holds the public names and nothing else. The errors' tree is at the top of
`aiosmtpclient.errors`, what is known about a delivery in `aiosmtpclient.delivery`.
"""

from smtplib import CRLF, LMTP_PORT, SMTP_PORT, SMTP_SSL_PORT

from .addresses import quoteaddr
from .client import AsyncLMTP, AsyncSMTP
from .content import quotedata
from .delivery import Journal, Outcome, SendResult
from .errors import (
    Delivery,
    RecipientOutcome,
    SMTPAuthenticationError,
    SMTPConnectError,
    SMTPConnectionRefusedError,
    SMTPDataError,
    SMTPException,
    SMTPHeloError,
    SMTPNotSupportedError,
    SMTPPoolError,
    SMTPProtocolError,
    SMTPRecipientsRefused,
    SMTPResponseException,
    SMTPSenderRefused,
    SMTPServerDisconnected,
    SMTPTimeoutError,
    SMTPTLSError,
)
from .extensions import Extensions
from .message import Envelope
from .once import send
from .origin import ProxyHeader
from .parameters import DeliverBy, MailOptions
from .pool import PoolStats, SMTPPool
from .rates import RateLimit
from .recipients import Recipient
from .replies import EnhancedCode, Reply
from .retrying import Retries
from .runner import run_sync
from .sync import LMTP, SMTP, SMTP_SSL
from .timeouts import Timeouts
from .tls import TLSPolicy

__version__ = "0.1.0"

__all__ = [
    "CRLF",
    "LMTP",
    "LMTP_PORT",
    "SMTP",
    "SMTP_PORT",
    "SMTP_SSL",
    "SMTP_SSL_PORT",
    "AsyncLMTP",
    "AsyncSMTP",
    "DeliverBy",
    "Delivery",
    "EnhancedCode",
    "Envelope",
    "Extensions",
    "Journal",
    "MailOptions",
    "Outcome",
    "PoolStats",
    "ProxyHeader",
    "RateLimit",
    "Recipient",
    "RecipientOutcome",
    "Reply",
    "Retries",
    "SMTPAuthenticationError",
    "SMTPConnectError",
    "SMTPConnectionRefusedError",
    "SMTPDataError",
    "SMTPException",
    "SMTPHeloError",
    "SMTPNotSupportedError",
    "SMTPPool",
    "SMTPPoolError",
    "SMTPProtocolError",
    "SMTPRecipientsRefused",
    "SMTPResponseException",
    "SMTPSenderRefused",
    "SMTPServerDisconnected",
    "SMTPTLSError",
    "SMTPTimeoutError",
    "SendResult",
    "TLSPolicy",
    "Timeouts",
    "quoteaddr",
    "quotedata",
    "run_sync",
    "send",
]
