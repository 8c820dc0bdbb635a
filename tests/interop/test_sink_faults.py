"""smtp-sink told to fail: each fault at each command, and what is known about the message then."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from aiosmtpclient import AsyncSMTP, Delivery, SMTPException

from . import letters
from .packages import NotToBeHad
from .servers.sink import Sink

REFUSED, NOT_SENT, UNKNOWN, ACCEPTED = (
    Delivery.REFUSED,
    Delivery.NOT_SENT,
    Delivery.UNKNOWN,
    Delivery.ACCEPTED,
)
HARD, SOFT, HANGS_UP, SAYS_421 = "-f", "-r", "-q", "-Q"
FAULTS: dict[tuple[str, ...], Delivery] = {
    (HARD, "CONNECT"): NOT_SENT,
    (SOFT, "CONNECT"): NOT_SENT,
    (HANGS_UP, "CONNECT"): NOT_SENT,
    (SAYS_421, "CONNECT"): NOT_SENT,
    (HARD, "EHLO"): ACCEPTED,  # HELO does
    (SOFT, "EHLO"): NOT_SENT,
    (HANGS_UP, "EHLO"): NOT_SENT,
    (SAYS_421, "EHLO"): NOT_SENT,
    (HARD, "EHLO,HELO"): NOT_SENT,
    (HARD, "MAIL"): REFUSED,
    (SOFT, "MAIL"): REFUSED,
    (HANGS_UP, "MAIL"): NOT_SENT,
    (SAYS_421, "MAIL"): REFUSED,
    (HARD, "RCPT"): REFUSED,
    (SOFT, "RCPT"): REFUSED,
    (HANGS_UP, "RCPT"): NOT_SENT,
    (SAYS_421, "RCPT"): REFUSED,
    (HARD, "DATA"): REFUSED,
    (SOFT, "DATA"): REFUSED,
    (HANGS_UP, "DATA"): NOT_SENT,
    (SAYS_421, "DATA"): REFUSED,
    (HARD, "."): REFUSED,
    (SOFT, "."): REFUSED,
    (HANGS_UP, "."): UNKNOWN,
    (SAYS_421, "."): REFUSED,
    (HARD, "QUIT"): ACCEPTED,
    (HANGS_UP, "QUIT"): ACCEPTED,
    (SAYS_421, "QUIT"): ACCEPTED,
    ("-8",): ACCEPTED,
    ("-e",): ACCEPTED,
    ("-p",): ACCEPTED,
    ("-P",): ACCEPTED,
    ("-N",): ACCEPTED,
    ("-w", "1"): ACCEPTED,
}


TOO_EARLY = ("-A", "0")
"""550 right behind the 354: whatever is known depends on which octets meet, but nobody has accepted."""


@pytest.fixture(params=[*FAULTS, TOO_EARLY], ids=" ".join)
def sink(request: pytest.FixtureRequest) -> Iterator[Sink]:
    """A sink with one fault."""

    class Faulty(Sink):
        flags = request.param

    try:
        one = Faulty()
    except NotToBeHad as why:
        pytest.skip(str(why))
    yield one
    one.stop()


async def test_what_is_known_after_a_fault(sink: Sink) -> None:
    name = letters.key("fault")
    known = ACCEPTED
    try:
        async with AsyncSMTP("localhost", sink.port, tls="none", timeout=20) as smtp:
            await smtp.sendmail(letters.SENDER, letters.RECIPIENT, letters.plain(name))
    except SMTPException as error:
        known = error.delivery
    if sink.flags == TOO_EARLY:
        assert known is not ACCEPTED
        return
    assert known is FAULTS[sink.flags]
    if known is ACCEPTED:
        assert [one.key for one in sink.stored(name)] == [name]
