"""The account of many messages to a server that fails at random is exact, whichever way they take."""

from __future__ import annotations

import pytest
from ledger import MODES, By, sail

each_mode = pytest.mark.parametrize("mode", MODES)
each_way = pytest.mark.parametrize("by", ["tasks", "bulk"])


@each_mode
@each_way
@pytest.mark.timeout(120)
async def test_each_message_is_in_one_class_and_the_server_agrees(mode: str, by: By) -> None:
    """The eight together are 20,000 messages. With 1 % of faults chance would leave some without any."""
    figures = await sail(2500, mode, 7, by=by, max_messages=5, faults=0.03, cancels=0.001)
    assert figures.right, figures
    assert figures.messages == figures.accepted + figures.refused + figures.not_sent + figures.unknown
    assert figures.accepted > 2300
    assert figures.cut, "nothing was tested"


@each_mode
@each_way
@pytest.mark.timeout(120)
async def test_the_account_is_as_exact_where_every_second_connection_breaks(mode: str, by: By) -> None:
    figures = await sail(600, mode, 8, by=by, max_messages=20, faults=0.5, cancels=0.1)
    assert figures.right, figures
    assert figures.unknown
    assert figures.cut > 5


async def test_who_asks_to_retry_the_unknown_gets_it_and_some_of_it_twice() -> None:
    """That is also how we know that a message which arrives twice is seen."""
    figures = await sail(600, "one write", 9, faults=0.5, cancels=0, retry_unknown=True)
    assert figures.duplicated
    assert not figures.unknown
    assert not figures.lost
