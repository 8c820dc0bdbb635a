"""Recipients with wishes of their own: what RCPT says besides an address.

======================  =============  ==================================================
option                  parameter      extension
======================  =============  ==================================================
`notify`                NOTIFY         DSN (RFC 3461 section 4.1)
`orcpt`                 ORCPT          DSN (RFC 3461 section 4.2, RFC 6533 section 3)
`rrvs`, `rrvs_else`     RRVS           RRVS (RFC 7293)
======================  =============  ==================================================

Rules of this room:

* A `Recipient` is its address, so it may stand wherever one may, and accounts are keyed by it.
* What makes no sense is a `ValueError` where it is given; what the server does not offer is an
  `SMTPNotSupportedError` that names the extension.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Literal, NoReturn, TypeAlias

from .errors import SMTPNotSupportedError
from .xtext import utc, utf8_address, xtext

if TYPE_CHECKING:
    from .extensions import Extensions

Notify: TypeAlias = str | Iterable[str]
"""When a report is wanted: "never", or one or more of "success", "failure", "delay"."""

_EVENTS = ("success", "failure", "delay")
_LONGEST_ORCPT = 500  # RFC 3461 section 4.2
_WITH_TYPE = r"([A-Za-z0-9][A-Za-z0-9-]*);(.*)"
_RFC = {
    "DSN": "RFC 3461",
    "8BITMIME": "RFC 6152",
    "BINARYMIME": "RFC 3030",
    "SMTPUTF8": "RFC 6531",
    "AUTH": "RFC 4954",
    "DELIVERBY": "RFC 2852",
    "FUTURERELEASE": "RFC 4865",
    "MT-PRIORITY": "RFC 6710",
    "REQUIRETLS": "RFC 8689",
    "RRVS": "RFC 7293",
}


class Recipient(str):
    """An address with what is asked for this recipient alone. It may stand wherever an address may.

    It is the address, a `str`, and equal to it; results are keyed by it.

    Args:
        address: as anywhere else.
        notify: when a report is wanted: "never", or one or more of "success", "failure", "delay"
            (RFC 3461).
        orcpt: the address that the message was for at first, to be named in reports (RFC 3461, RFC
            6533). Its type may stand before it: "rfc822;ann@example.org".
        rrvs: not to be delivered if the mailbox has changed hands since then (RFC 7293).
        rrvs_else: where the next server does not know of RRVS: "continue" or "reject".

    Raises:
        ValueError: one of them makes no sense.
    """

    __slots__ = ("notify", "orcpt", "rrvs", "rrvs_else")

    notify: str | None
    orcpt: str | None
    rrvs: datetime | None
    rrvs_else: Literal["continue", "reject"] | None

    def __new__(
        cls,
        address: str,
        *,
        notify: Notify | None = None,
        orcpt: str | None = None,
        rrvs: datetime | None = None,
        rrvs_else: Literal["continue", "reject"] | None = None,
    ) -> Recipient:
        if not isinstance(address, str):
            raise TypeError(f"an address is a str, not {type(address).__name__}")
        if rrvs_else not in (None, "continue", "reject") or (rrvs_else is not None and rrvs is None):
            raise ValueError(
                f'rrvs_else must be "continue" or "reject", and goes with rrvs, not {rrvs_else!r}'
            )
        self = super().__new__(cls, address)
        put = super(Recipient, self).__setattr__
        put("notify", events(notify))
        put("orcpt", orcpt)
        put("rrvs", rrvs)
        put("rrvs_else", rrvs_else)
        for smtputf8 in (True, False):  # what has no form is found now
            self.parameters(None, smtputf8=smtputf8)
        return self

    def parameters(self, notify: str | None, *, smtputf8: bool) -> list[tuple[str, str]]:
        """Which extension, and what RCPT says.

        Args:
            notify: where nothing is asked for this recipient.
            smtputf8: the transaction is one with SMTPUTF8.
        """
        found: list[tuple[str, str]] = []
        if wanted := self.notify or notify:
            found.append(("DSN", f"NOTIFY={wanted.upper()}"))
        if self.orcpt is not None:
            found.append(("DSN", f"ORCPT={_original(self.orcpt, smtputf8=smtputf8)}"))
        if self.rrvs is not None:
            end = f";{self.rrvs_else[0].upper()}" if self.rrvs_else else ""
            found.append(("RRVS", f"RRVS={utc(self.rrvs)}{end}"))
        return found

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("a Recipient does not change; make another")

    def __reduce__(self) -> tuple[object, ...]:
        return _again, (str(self), self.notify, self.orcpt, self.rrvs, self.rrvs_else)

    def __repr__(self) -> str:
        asked = [f"{name}={value!r}" for name in self.__slots__ if (value := getattr(self, name)) is not None]
        return f"Recipient({', '.join([str.__repr__(self), *asked])})"


def _again(
    address: str,
    notify: str | None,
    orcpt: str | None,
    rrvs: datetime | None,
    rrvs_else: Literal["continue", "reject"] | None,
) -> Recipient:
    return Recipient(address, notify=notify, orcpt=orcpt, rrvs=rrvs, rrvs_else=rrvs_else)


def rcpt(
    recipients: Sequence[str],
    raw: Sequence[str],
    notify: Notify | None,
    extensions: Extensions,
    *,
    smtputf8: bool,
) -> list[tuple[str, ...]]:
    """What RCPT says for each recipient.

    Args:
        recipients: the addresses, some of them `Recipient`s.
        raw: what is said for each of them anyway.
        notify: for those that do not say it themselves.
        extensions: what the server offers.
        smtputf8: the transaction is one with SMTPUTF8.

    Raises:
        SMTPNotSupportedError: the server does not offer it.
        ValueError: the same is asked for by a raw option.
    """
    anybody = Recipient("", notify=notify)

    def said(one: Recipient) -> tuple[str, ...]:
        asked = one.parameters(anybody.notify, smtputf8=smtputf8)
        for extension, text in asked:
            keyword = text.partition("=")[0]
            if extension not in extensions:
                raise not_offered(extension, f"{keyword.lower()}=")
            refuse_doubles({keyword: keyword.lower()}, raw)
        return (*[text for _, text in asked], *raw)

    usual = said(anybody) if any(not isinstance(one, Recipient) for one in recipients) else ()
    return [said(one) if isinstance(one, Recipient) else usual for one in recipients]


# -- what may be asked ---------------------------------------------------------------------------


def events(notify: Notify | None) -> str | None:
    """The value of NOTIFY, in lower case.

    Raises:
        ValueError: no such event, one twice, or "never" among others.
    """
    if notify is None:
        return None
    words = notify.split(",") if isinstance(notify, str) else [*notify]
    wanted = [word.strip(" ").lower() for word in words if isinstance(word, str)]
    right = len(wanted) == len(words) and (
        wanted == ["never"] or (wanted and len({*wanted} & {*_EVENTS}) == len(wanted))
    )
    if not right:
        raise ValueError(f'notify is "never", or some of {", ".join(_EVENTS)}, each once; not {notify!r}')
    return ",".join(wanted)


def _original(orcpt: str, *, smtputf8: bool) -> str:
    """The value of ORCPT (RFC 3461 section 4.2): the type of an address, and the address."""
    found = re.fullmatch(_WITH_TYPE, orcpt, re.DOTALL)
    kind = found[1] if found else "rfc822" if orcpt.isascii() else "utf-8"
    address = found[2] if found else orcpt
    if not address:
        raise ValueError(f"orcpt without an address: {orcpt!r}")
    # RFC 6533 section 3: this type has an encoding of its own, and xtext is not put on top of it.
    international = kind.lower() == "utf-8"
    text = f"{kind};{utf8_address(address, smtputf8=smtputf8) if international else xtext(address)}"
    if len(text) > _LONGEST_ORCPT:
        raise ValueError(f"orcpt has at most {_LONGEST_ORCPT} characters (RFC 3461 section 4.2)")
    return text


def refuse_doubles(typed: Mapping[str, str], raw: Iterable[str]) -> None:
    """Raise if a raw option says what a typed one says.

    Args:
        typed: parameter → the option that says it.
        raw: options as they go out.
    """
    for option in raw:
        keyword = str(option).partition("=")[0].upper()
        if keyword in typed:
            raise ValueError(f"{keyword} is asked for twice: by {typed[keyword]}=, and by the raw {option!r}")


def not_offered(extension: str, option: str) -> SMTPNotSupportedError:
    """Return the error for an option whose extension the server lacks."""
    return SMTPNotSupportedError(
        f"the server does not offer {extension} ({_RFC[extension]}), which {option} needs"
    )
