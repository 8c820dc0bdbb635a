"""Exit codes: what a script that calls the command learns without reading its output.

The numbers are those of sysexits.h, which `os` lacks on some systems. What every caller relies
on is the difference between 75 and all the others: after 75, and only after 75, running the same
command again is the right thing to do.

Rules of this room:

* 75 (temporary failure) is never given where the end of a message left and no answer came:
  whoever runs the command again would send it twice. That is 74.
* Of several codes the worst counts: anything is worse than 0, anything else is worse than 75,
  and among the others the higher number.
"""

from __future__ import annotations

import enum
import socket
from collections.abc import Iterable

from aiosmtpclient.errors import (
    Delivery,
    RecipientOutcome,
    SMTPAuthenticationError,
    SMTPConnectError,
    SMTPException,
    SMTPProtocolError,
    SMTPRecipientsRefused,
    SMTPTLSError,
)
from aiosmtpclient.replies import Reply


class Exit(enum.IntEnum):
    """What a command ends with."""

    OK = 0
    FAILED = 1
    USAGE = 64
    DATAERR = 65
    NOINPUT = 66
    NOUSER = 67
    NOHOST = 68
    UNAVAILABLE = 69
    IOERR = 74
    TEMPFAIL = 75
    PROTOCOL = 76
    NOPERM = 77
    CONFIG = 78
    INTERRUPTED = 130


EPILOG = """\
exit codes:
  0    everything was accepted, by everybody
  64   wrong arguments
  65   a message that cannot be sent as it is
  66   a file that is missing or cannot be read
  67   recipients were refused for good
  68   no such host
  69   refused for good, otherwise
  74   reading or writing failed, or what became of a message is unknown
  75   a temporary failure, a timeout or a lost connection: may be run again
  76   the server broke the protocol
  77   the server refused the credentials
  78   TLS could not be had as asked, or a certificate was not accepted
  130  interrupted, and nothing is unknown
With several messages the worst: everything is worse than 0, then 75, then by number.
"""


class Failure(Exception):
    """The command cannot be carried out, for a reason on this side.

    Attributes:
        code: what to exit with.
    """

    def __init__(self, text: str, code: Exit) -> None:
        super().__init__(text)
        self.code = code


def worst(codes: Iterable[Exit]) -> Exit:
    """Return the code that counts; OK if there are none."""
    return max(codes, key=_rank, default=Exit.OK)


def _rank(code: Exit) -> int:
    return 1 if code is Exit.TEMPFAIL else int(code)


def exit_of(error: BaseException) -> Exit:
    """Return what to exit with after this error."""
    if isinstance(error, Failure):
        return error.code
    if not isinstance(error, SMTPException):
        return Exit.DATAERR if isinstance(error, ValueError) else Exit.IOERR
    code = _of_conversation(error)
    return Exit.IOERR if code is Exit.TEMPFAIL and error.delivery is Delivery.UNKNOWN else code


def _of_conversation(error: SMTPException) -> Exit:
    if isinstance(error, SMTPTLSError):
        return Exit.CONFIG
    if isinstance(error, SMTPProtocolError):
        return Exit.PROTOCOL
    if isinstance(error, SMTPConnectError):
        return _of_connecting(error)
    if isinstance(error, SMTPRecipientsRefused):
        return worst(map(_of_refusal, error.recipients.values())) or Exit.UNAVAILABLE
    if error.temporary:
        return Exit.TEMPFAIL
    return Exit.NOPERM if isinstance(error, SMTPAuthenticationError) else Exit.UNAVAILABLE


def _of_connecting(error: SMTPConnectError) -> Exit:
    cause = error.__cause__
    if isinstance(cause, socket.gaierror) and cause.errno != socket.EAI_AGAIN:
        return Exit.NOHOST
    if isinstance(cause, UnicodeError):  # no domain name looks like that
        return Exit.NOHOST
    return Exit.TEMPFAIL if error.temporary else Exit.UNAVAILABLE


def _of_refusal(reply: Reply) -> Exit:
    return Exit.TEMPFAIL if reply.temporary else Exit.NOUSER


def exit_of_outcomes(outcomes: Iterable[RecipientOutcome]) -> Exit:
    """Return what to exit with after a message that somebody accepted."""
    return worst(
        _of_refusal(reply)
        for _, delivery, reply in outcomes
        if delivery is Delivery.REFUSED and reply is not None
    )
