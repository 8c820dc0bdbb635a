"""Many messages: a pool, the blocking classes, and a server that dies in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from aiosmtpclient import LMTP, SMTP, SMTP_SSL, Delivery, Envelope, Outcome, Retries, SMTPPool
from aiosmtpclient.testing import CertificateAuthority

from . import accounts, letters
from .conftest import Found
from .matrix import MODES
from .servers import RealServer
from .servers.real import PASSWORD, USER

MANY = 300
THROUGH_A_POOL = "300 messages through a pool of 5"


async def test_300_messages_through_a_pool_of_five(server: RealServer, found: Found) -> None:
    sent = accounts.envelopes("pool", MANY)
    async with SMTPPool(**server.options(), lmtp=server.lmtp, max_connections=5) as pool:
        outcomes = [outcome async for outcome in pool.send_messages(sent.values())]
    account = accounts.account_of(sent, outcomes)
    assert set(account.values()) == {Delivery.ACCEPTED}, next(each.error for each in outcomes if each.error)
    accounts.check(server, account)
    found(THROUGH_A_POOL, "each once")


async def test_mailboxes_that_come_into_being_with_their_first_messages(
    server: RealServer, found: Found
) -> None:
    if not server.makes_mailboxes:
        return
    sent: dict[str, Envelope] = {}
    for number in range(100, 120):
        sent |= accounts.envelopes("mailbox", 5, f"ok{number}@interop.test")
    # Each attempt that finds the mailbox half made is refused again.
    again = Retries(refused=10, delay=0.02)
    async with SMTPPool(**server.options(), lmtp=server.lmtp, max_connections=5, retries=again) as pool:
        outcomes = [outcome async for outcome in pool.send_messages(sent.values())]
    account = accounts.account_of(sent, outcomes)
    assert set(account.values()) == {Delivery.ACCEPTED}, next(each.error for each in outcomes if each.error)
    accounts.check(server, account)
    if any(outcome.attempts > 1 for outcome in outcomes):
        text = (
            "makes a mailbox at its first message, and refuses for now (451 4.3.0 Mailbox already exists) "
            "those that come beside it; with `retries=Retries(refused=…)` a pool delivers them."
        )
        found.surprise(THROUGH_A_POOL, text)


def test_the_blocking_classes(server: RealServer, found: Found) -> None:
    name, secretly = letters.key("blocking"), letters.key("blocking-tls")
    kind = LMTP if server.lmtp else SMTP
    with kind("localhost", server.port) as smtp:
        if server.must_log_in:
            smtp.ehlo_or_helo_if_needed()
            smtp.login(USER, PASSWORD)
        assert smtp.sendmail(letters.SENDER, [letters.RECIPIENT], letters.plain(name)) == {}
    expected = [name]
    if server.tls_port and not server.lmtp:
        context = CertificateAuthority().client_context()
        with SMTP_SSL("localhost", server.tls_port, context=context) as smtp:
            if server.must_log_in:
                smtp.login(USER, PASSWORD)
            assert smtp.sendmail(letters.SENDER, [letters.RECIPIENT], letters.plain(secretly)) == {}
        expected.append(secretly)
    assert sorted(one.key for one in server.stored(name, secretly)) == sorted(expected)
    found("the blocking classes", "yes")


@pytest.mark.parametrize("pipelining", MODES[1:])
async def test_killed_in_the_middle_and_resumed(server: RealServer, found: Found, pipelining: str) -> None:
    if pipelining == "stream" and server.no_stream:
        return
    count, enough, late = 90, 40, 10
    sent = accounts.envelopes(f"killed-{pipelining}", count)
    outcomes: list[Outcome] = []
    killed = asyncio.Event()

    async def kill() -> None:
        await asyncio.to_thread(server.kill)  # strikes wherever the run has come to meanwhile
        killed.set()

    async def messages() -> AsyncIterator[Envelope]:
        for number, envelope in enumerate(sent.values()):
            if number == count - late:
                await killed.wait()
                while smtp.is_connected:  # what leaves before that is seen is unknown
                    await asyncio.sleep(0)
            yield envelope

    async with server.client(pipelining=pipelining, timeout=60) as smtp, asyncio.TaskGroup() as tasks:
        async for outcome in smtp.send_messages(messages()):
            outcomes.append(outcome)
            if len(outcomes) == enough:
                tasks.create_task(kill())
    account = accounts.account_of(sent, outcomes)
    assert list(account.values()).count(Delivery.ACCEPTED) >= enough
    await asyncio.to_thread(server.start)
    again = {name: sent[name] for name, delivery in account.items() if delivery is Delivery.NOT_SENT}
    assert len(again) >= late
    async with server.client(timeout=60) as smtp:
        resumed = [outcome async for outcome in smtp.send_messages(again.values())]
    account |= accounts.account_of(again, resumed)
    assert set(account.values()) <= {Delivery.ACCEPTED, Delivery.UNKNOWN}
    accounts.check(server, account)
    found(f'killed and resumed, `pipelining="{pipelining}"`', "none lost, none twice")
