"""One room a server: how it is set up, started, and where it keeps what it took."""

from __future__ import annotations

from .aiosmtpd import Aiosmtpd
from .cyrus import CyrusLMTP
from .dovecot import DovecotLMTP, DovecotSubmission
from .exim import Exim
from .haraka import Haraka
from .opensmtpd import OpenSMTPD
from .postfix import Postfix
from .real import RealServer
from .sendmail import Sendmail
from .sink import Sink, SinkLMTP
from .smtp_server import SmtpServer, SmtpServerLMTP

EVERY: tuple[type[RealServer], ...] = (
    Postfix,
    Sink,
    SinkLMTP,
    Exim,
    Sendmail,
    OpenSMTPD,
    DovecotSubmission,
    DovecotLMTP,
    CyrusLMTP,
    Aiosmtpd,
    Haraka,
    SmtpServer,
    SmtpServerLMTP,
)

__all__ = ["EVERY", "RealServer"]
