"""Parameters: what MAIL says besides an address, from typed options to ESMTP's words.

What is asked for one recipient alone is in `recipients`.

======================  =============  ==================================================
option                  parameter      extension
======================  =============  ==================================================
`ret`, `envid`          RET, ENVID     DSN (RFC 3461)
`notify`                NOTIFY         DSN, for every recipient that does not say it itself
`size`                  SIZE           SIZE (RFC 1870)
`body`                  BODY           8BITMIME (RFC 6152), BINARYMIME (RFC 3030)
`smtputf8`              SMTPUTF8       SMTPUTF8 (RFC 6531)
`auth`                  AUTH           AUTH (RFC 4954 section 5)
`deliver_by`            BY             DELIVERBY (RFC 2852)
`hold_for`              HOLDFOR        FUTURERELEASE (RFC 4865)
`hold_until`            HOLDUNTIL      FUTURERELEASE
`priority`              MT-PRIORITY    MT-PRIORITY (RFC 6710)
`require_tls`           REQUIRETLS     REQUIRETLS (RFC 8689)
======================  =============  ==================================================

Rules of this room:

* What makes no sense is a `ValueError` where the option is given, long before anything is sent.
* What the server does not offer is an `SMTPNotSupportedError` that names the extension. Two say
  no more than what holds without them, and are left out then: SIZE, and BODY=7BIT.
* What the server says it would refuse, a hold that is too long say, is not asked for.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Literal, TypedDict

from . import addresses
from .errors import SMTPNotSupportedError
from .extensions import Extensions
from .recipients import Notify, events, not_offered, refuse_doubles
from .xtext import utc, xtext

_LONGEST_ENVID = 100  # RFC 3461 section 4.4
_NINE_DIGITS = 999_999_999  # of seconds: RFC 2852 section 4, RFC 4865 section 4.2


class MailOptions(TypedDict, total=False):
    """The typed options of a message, for whoever passes them on.

    `sendmail`, `send_message`, `send` and `Envelope` take each as a keyword. Left out, or None, is
    not asked for. What the server does not offer is an `SMTPNotSupportedError` before MAIL.

    Keys:
        ret: "full" or "hdrs": how much of the message a report of its failure returns.
        envid: a name for this message, of up to 100 characters, that reports about it carry.
        notify: when a report is wanted, for recipients that do not say it themselves: "never", or
            one or more of "success", "failure" and "delay".
        size: octets of content whose size nobody can know, such as an iterator's; an estimate.
        body: "7bit", "8bitmime" or "binarymime"; left out, what the content needs. With "7bit" a
            message object is encoded so, and other content must be.
        smtputf8: True to say SMTPUTF8 where the addresses alone do not need it: for octets whose
            header is in UTF-8.
        auth: who submitted the message, for a server that trusts us; empty for nobody that we know.
        deliver_by: a `DeliverBy`: when it is too late, and what is to be done then.
        hold_for: seconds that the server keeps the message before it sends it.
        hold_until: the moment until which it does.
        priority: from -9 to 9; 0 is normal, and more is more urgent.
        require_tls: True: from here on it travels inside TLS with a verified certificate, or not at all.
    """

    ret: Literal["full", "hdrs"] | None
    envid: str | None
    notify: Notify | None
    size: int | None
    body: Literal["7bit", "8bitmime", "binarymime"] | None
    smtputf8: bool | None
    auth: str | None
    deliver_by: DeliverBy | None
    hold_for: int | timedelta | None
    hold_until: datetime | None
    priority: int | None
    require_tls: bool | None


# -- values ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DeliverBy:
    """When a message is too late, and what is to be done about it (RFC 2852).

    Args:
        seconds: from now, or a timedelta. Negative says that the time is over, which "notify" allows.
        mode: "return" sends it back, "notify" tells the sender and goes on.
        trace: True asks every relay on the way for a report.

    Raises:
        ValueError: no such mode, too long, or nothing to wait for with "return".
    """

    seconds: int | timedelta
    mode: Literal["return", "notify"] = "return"
    trace: bool = False

    def __post_init__(self) -> None:
        if self.mode not in ("return", "notify"):
            raise ValueError(f'mode must be "return" or "notify", not {self.mode!r}')
        seconds = _seconds(self.seconds, "deliver_by")
        if self.mode == "return" and seconds <= 0:
            raise ValueError(
                "deliver_by: a message can be returned after some seconds, not before (RFC 2852)"
            )
        object.__setattr__(self, "seconds", seconds)

    @property
    def parameter(self) -> str:
        """The value of BY."""
        return f"{self.seconds};{'R' if self.mode == 'return' else 'N'}{'T' if self.trace else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """The typed options of a message, checked. The attributes are the keys of `MailOptions`."""

    ret: Literal["full", "hdrs"] | None = None
    envid: str | None = None
    notify: Notify | None = None
    size: int | None = None
    body: Literal["7bit", "8bitmime", "binarymime"] | None = None
    smtputf8: bool | None = None
    auth: str | None = None
    deliver_by: DeliverBy | None = None
    hold_for: int | timedelta | None = None
    hold_until: datetime | None = None
    priority: int | None = None
    require_tls: bool | None = None

    def __post_init__(self) -> None:
        _one_of("ret", self.ret, ("full", "hdrs"))
        _one_of("body", self.body, ("7bit", "8bitmime", "binarymime"))
        if self.size is not None and not _is_number(self.size, 0, 10**20 - 1):
            raise ValueError(f"size is a number of octets, not {self.size!r}")
        if self.priority is not None and not _is_number(self.priority, -9, 9):
            raise ValueError(f"priority is a number from -9 to 9, not {self.priority!r}")
        if self.deliver_by is not None and not isinstance(self.deliver_by, DeliverBy):
            raise ValueError(f"deliver_by is a DeliverBy(seconds, mode), not {self.deliver_by!r}")
        if self.hold_for is not None and self.hold_until is not None:
            raise ValueError("hold_for and hold_until say the same in two ways: give one")
        if self.hold_for is not None:
            object.__setattr__(self, "hold_for", _seconds(self.hold_for, "hold_for", least=1))
        object.__setattr__(self, "notify", events(self.notify))
        for _ in self._mail():  # what has no form is found now
            pass

    def _mail(self) -> Iterator[tuple[str, str, str]]:
        """Which extension, which option, and what MAIL says for it."""
        if self.ret is not None:
            yield "DSN", "ret", f"RET={self.ret.upper()}"
        if self.envid is not None:
            yield "DSN", "envid", f"ENVID={_envid(self.envid)}"
        if self.body is not None:
            yield (
                "BINARYMIME" if self.body == "binarymime" else "8BITMIME",
                "body",
                f"BODY={self.body.upper()}",
            )
        if self.smtputf8:
            yield "SMTPUTF8", "smtputf8", "SMTPUTF8"
        if self.auth is not None:
            yield "AUTH", "auth", f"AUTH={_submitter(self.auth)}"
        if self.deliver_by is not None:
            yield "DELIVERBY", "deliver_by", f"BY={self.deliver_by.parameter}"
        if self.hold_for is not None:
            yield "FUTURERELEASE", "hold_for", f"HOLDFOR={self.hold_for}"
        if self.hold_until is not None:
            yield "FUTURERELEASE", "hold_until", f"HOLDUNTIL={utc(self.hold_until)}"
        if self.priority is not None:
            yield "MT-PRIORITY", "priority", f"MT-PRIORITY={self.priority}"
        if self.require_tls:
            yield "REQUIRETLS", "require_tls", "REQUIRETLS"

    def refuse_doubles(self, mail_options: Iterable[str], rcpt_options: Iterable[str]) -> None:
        """Raise if the same is asked for by a typed option and by a raw one.

        Raises:
            ValueError: it is.
        """
        mail = {text.partition("=")[0]: option for _, option, text in self._mail()}
        if self.size is not None:
            mail["SIZE"] = "size"
        refuse_doubles(mail, mail_options)
        if self.notify is not None:
            refuse_doubles({"NOTIFY": "notify"}, rcpt_options)

    def check_content(self, eightbit: bool | None) -> None:
        """Raise for content that is not what `body` says.

        Raises:
            ValueError: it has octets over 127, though it is to have 7 bits.
        """
        if self.body == "7bit" and eightbit:
            raise ValueError("body='7bit' was asked for, and the content has octets over 127")

    def mail(self, extensions: Extensions, *, encrypted: bool) -> list[str]:
        """What MAIL says, but for SIZE.

        Raises:
            SMTPNotSupportedError: the server does not offer it, or not so much of it.
        """
        found: list[str] = []
        for extension, option, text in self._mail():
            if extension in extensions:
                found.append(text)
            elif self.body != "7bit" or option != "body":
                raise not_offered(extension, f"{option}=")
        if self.require_tls and not encrypted:
            raise SMTPNotSupportedError(
                "require_tls= needs a connection inside TLS (RFC 8689), which this is not"
            )
        if self.deliver_by is not None:
            self._check_deliver_by(self.deliver_by, extensions["DELIVERBY"])
        if self.hold_for is not None or self.hold_until is not None:
            self._check_hold(extensions["FUTURERELEASE"].split())
        return found

    def _check_deliver_by(self, deliver_by: DeliverBy, offered: str) -> None:
        # The least that the server takes with "return" (RFC 2852 section 3).
        least = int(offered) if re.fullmatch(r"[0-9]{1,9}", offered) else 0
        if deliver_by.mode == "return" and _seconds(deliver_by.seconds, "deliver_by") < least:
            raise SMTPNotSupportedError(
                f"the server offers DELIVERBY from {least} seconds on, with mode='return'"
            )

    def _check_hold(self, offered: Sequence[str]) -> None:
        # How long, and until when, the server holds at most (RFC 4865 section 4).
        interval, until = [*offered, "", ""][:2]
        hold_for = _seconds(self.hold_for, "hold_for") if self.hold_for is not None else 0
        if re.fullmatch(r"[0-9]{1,9}", interval) and hold_for > int(interval):
            raise SMTPNotSupportedError(
                f"the server holds a message for {interval} seconds at most (FUTURERELEASE)"
            )
        if (
            self.hold_until is not None
            and (latest := _moment(until)) is not None
            and self.hold_until > latest
        ):
            raise SMTPNotSupportedError(f"the server holds a message until {until} at most (FUTURERELEASE)")


def of(options: MailOptions) -> Parameters | None:
    """The options, checked; None if nothing is asked for.

    Raises:
        ValueError: one of them makes no sense.
        TypeError: there is no such option.
    """
    known = [field.name for field in fields(Parameters)]
    if unknown := [name for name in options if name not in known]:
        raise TypeError(f"there is no option {unknown[0]!r}; there are {', '.join(known)}")
    made = Parameters(**options)
    return made if made != Parameters() else None


# -- the grammar -------------------------------------------------------------------------------


def _envid(envid: str) -> str:
    text = xtext(envid)
    if not 0 < len(text) <= _LONGEST_ENVID:
        raise ValueError(
            f"envid has 1 to {_LONGEST_ENVID} characters, as xtext (RFC 3461 section 4.4): {envid!r}"
        )
    return text


def _submitter(address: str) -> str:
    """The value of AUTH (RFC 4954 section 5)."""
    if not address:
        return "<>"
    parsed = addresses.recipient(address)
    if parsed.needs_smtputf8:
        raise ValueError(f"auth: AUTH= has no form for a local part beyond ASCII: {address!r}")
    return xtext(parsed.path.decode("ascii"))


def _seconds(given: int | timedelta, what: str, *, least: int = -_NINE_DIGITS) -> int:
    seconds = int(given.total_seconds()) if isinstance(given, timedelta) else given
    if not _is_number(seconds, least, _NINE_DIGITS):
        raise ValueError(f"{what} is a whole number of seconds, of up to nine digits, not {given!r}")
    return seconds


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _is_number(given: object, least: int, most: int) -> bool:
    return isinstance(given, int) and not isinstance(given, bool) and least <= given <= most


def _one_of(what: str, given: object, words: Collection[str]) -> None:
    if given is not None and given not in words:
        raise ValueError(f"{what} is one of {', '.join(words)}, not {given!r}")
