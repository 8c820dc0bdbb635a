"""Every way in which messages may follow one another, and the trial of BDAT, at every server."""

from __future__ import annotations

import pytest

from aiosmtpclient import Delivery, Extensions, Outcome
from aiosmtpclient.chunking import VERDICTS

from . import accounts
from .conftest import Found
from .matrix import CHUNKS, MODES
from .servers import RealServer
from .servers.real import PASSWORD, USER

COUNT = 12
LONG = 110
ON_ONE = f"{LONG} messages on one connection"
TRIED = "BDAT proven, before and after AUTH"


async def run(server: RealServer, what: str, **options: object) -> tuple[list[Outcome], dict[str, Delivery]]:
    """Send some messages, and hold the account against what arrived."""
    sent = accounts.envelopes(what, COUNT)
    async with server.client(timeout=60, **options) as smtp:
        outcomes = [outcome async for outcome in smtp.send_messages(sent.values())]
    account = accounts.account_of(sent, outcomes)
    accounts.check(server, account)
    return outcomes, account


async def test_the_defaults_upset_nobody(server: RealServer, found: Found) -> None:
    outcomes, account = await run(server, "defaults")
    assert set(account.values()) == {Delivery.ACCEPTED}
    assert {outcome.attempts for outcome in outcomes} == {1}
    assert len({outcome.connection for outcome in outcomes}) == 1, "the connection was lost on the way"
    found("the defaults", "yes")


async def test_many_messages_on_one_connection(server: RealServer, found: Found) -> None:
    sent = accounts.envelopes("long", LONG)
    async with server.client(timeout=60) as smtp:
        outcomes = [outcome async for outcome in smtp.send_messages(sent.values())]
    account = accounts.account_of(sent, outcomes)
    accounts.check(server, account)
    accepted = list(account.values()).count(Delivery.ACCEPTED)
    found(ON_ONE, "yes" if accepted == LONG else str(accepted))
    if accepted == LONG:
        return
    assert set(account.values()) == {Delivery.ACCEPTED, Delivery.REFUSED}
    refusals = [outcome for outcome in outcomes if outcome.error is not None]
    assert all(outcome.temporary for outcome in refusals)
    code = refusals[0].outcomes[0].reply.code
    text = (
        f"takes {accepted} messages on a connection, and answers {code} to the next ones: all of them are "
        "refused for now. A pool with `max_messages` does not come so far."
    )
    found.surprise(ON_ONE, text)


@pytest.mark.parametrize("chunking", CHUNKS)
@pytest.mark.parametrize("pipelining", MODES)
async def test_each_mode(server: RealServer, found: Found, pipelining: str, chunking: str) -> None:
    feature = f'`pipelining="{pipelining}"`, `chunking="{chunking}"`'
    outcomes, account = await run(
        server, f"{pipelining}-{chunking}", pipelining=pipelining, chunking=chunking
    )
    if pipelining == "stream" and server.no_stream:
        # What happens depends on how its octets arrive: the account is right whatever it is.
        found(feature, "no")
        found.surprise(feature, server.no_stream)
        return
    assert set(account.values()) == {Delivery.ACCEPTED}, next(each.error for each in outcomes if each.error)
    async with server.client() as smtp:
        found(feature, in_fact(smtp.extensions, pipelining, chunking))


def in_fact(extensions: Extensions, pipelining: str, chunking: str) -> str:
    """What a mode comes to where the server does not offer what it takes."""
    if pipelining != "off" and not extensions.pipelining:
        return "one by one"
    if chunking != "off" and not extensions.chunking:
        return "by DATA"
    return "yes"


async def test_the_trial_of_bdat(server: RealServer, found: Found) -> None:
    if server.lmtp and server.must_log_in:  # without AUTH it takes nothing
        found(TRIED, "–")
        return
    verdicts = [await verdict(server, logged_in=False)]
    if server.has_users:
        verdicts.append(await verdict(server, logged_in=True))
    assert tuple(verdicts) == server.proves[: len(verdicts)]
    words = [{True: "yes", False: "no", None: "–"}[one] for one in verdicts]
    found(TRIED, "–" if set(words) == {"–"} else ", ".join(words))
    if False in verdicts:
        found.surprise(TRIED, "refuses BDAT before AUTH, and runs the chunk as commands: the trial shows it.")


async def verdict(server: RealServer, *, logged_in: bool) -> bool | None:
    """What the trial says, as a run of many messages makes it."""
    VERDICTS.forget()
    who = {"username": USER, "password": PASSWORD} if logged_in else {"username": None}
    sent = accounts.envelopes("trial", 2)
    async with server.client(**who) as smtp:
        outcomes = [outcome async for outcome in smtp.send_messages(sent.values())]
    takes_mail = logged_in or not server.must_log_in
    expected = Delivery.ACCEPTED if takes_mail else Delivery.REFUSED
    assert {outcome.delivery for outcome in outcomes} == {expected}
    accounts.check(server, accounts.account_of(sent, outcomes))
    known_as = f"localhost:{server.port}"
    return VERDICTS.of(f"{known_as}, logged in" if logged_in else known_as)
