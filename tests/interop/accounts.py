"""Is the account right? What the client says about each message, against what the server keeps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from aiosmtpclient import Delivery, Envelope, Outcome

from . import letters
from .servers import RealServer

_COPIES = {
    Delivery.ACCEPTED: (1, 1),
    Delivery.REFUSED: (0, 0),
    Delivery.NOT_SENT: (0, 0),
    Delivery.UNKNOWN: (0, 1),
}
"""How often a message may have arrived."""


def envelopes(what: str, count: int, recipient: str = letters.RECIPIENT) -> dict[str, Envelope]:
    """Key → message, of so many short ones, each of its own content."""
    keys = [letters.key(what) for _ in range(count)]
    return {name: Envelope(letters.SENDER, recipient, letters.plain(name)) for name in keys}


def copies(server: RealServer, keys: Iterable[str]) -> Counter[str]:
    """Key → how often it arrived; whatever arrived must be what was sent."""
    arrived: Counter[str] = Counter()
    for one in server.stored(*keys):
        arrived[one.key] += 1
        assert one.content == letters.on_the_wire(letters.plain(one.key)), "it arrived changed"
    return arrived


def check(server: RealServer, account: dict[str, Delivery]) -> None:
    """Hold what is known about each message, by key, against what the server keeps."""
    arrived = copies(server, account)
    for name, delivery in account.items():
        least, most = _COPIES[delivery]
        assert least <= arrived[name] <= most, f"{name} is {delivery}, and arrived {arrived[name]} times"


def account_of(sent: dict[str, Envelope], outcomes: Iterable[Outcome]) -> dict[str, Delivery]:
    """Key → what is known, of a run over these messages; each has one outcome."""
    names = list(sent)
    account = {names[outcome.index]: outcome.delivery for outcome in outcomes}
    assert len(account) == len(sent), "a message has no outcome"
    return account
