"""The witness of the ledger sees what left and what was read, or the ledger would prove nothing."""

from __future__ import annotations

import asyncio

import pytest
from ledger import ANSWERS, ANSWERS_TO_BDAT
from witness import Witness, _Line

QUEUED = b"250 2.0.0 queued\r\n"


class Sent(asyncio.Transport):
    """Takes what is written."""

    def write(self, data: object) -> None:
        pass


def content(number: int) -> bytes:
    return b"Subject: %d\r\n\r\n.dot\r\n\r\n" % number


def chunk(number: int) -> bytes:
    octets = content(number)
    return b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT %d LAST\r\n%b" % (len(octets), octets)


@pytest.mark.parametrize("bdat", [False, True])
def test_what_left_and_was_not_answered_may_be_unknown_and_nothing_else(bdat: bool) -> None:
    witness = Witness(3, ANSWERS_TO_BDAT if bdat else ANSWERS, bdat=bdat)
    line = _Line(witness, Sent())
    whole = [chunk(number) if bdat else content(number) + b".\r\n" for number in range(3)]

    line.write(whole[0] + whole[1])
    line.write(whole[2][:-4])
    line.read(b"250 ok\r\n250 ok\r\n" + QUEUED + QUEUED[:-1])

    assert [witness.confirms_a_reply(number) for number in range(3)] == [True, False, False]
    assert [witness.confirms_unknown(number) for number in range(3)] == [False, True, False]

    line.read(QUEUED[-1:])

    assert witness.confirms_a_reply(1)
    assert not witness.confirms_unknown(1)


def test_a_message_that_leaves_again_is_unanswered_again() -> None:
    witness = Witness(1, ANSWERS, bdat=False)
    first, second = _Line(witness, Sent()), _Line(witness, Sent())
    first.write(content(0) + b".\r\n")
    first.read(b"451 4.3.0 not now\r\n")

    second.write(content(0) + b".\r\n")

    assert witness.confirms_unknown(0)
