"""What the torture of calls found (`sweeps/test_torture`), each as the test of its symptom."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest import mock

import pytest
from test_gathering import BODY, Gathering, message
from wire import SENDER, TO, caught, deliveries

from aiosmtpclient import AsyncSMTP, Delivery, SMTPPool, SMTPServerDisconnected, connection
from aiosmtpclient.lending import Lender
from aiosmtpclient.protocol import SMTPProtocol
from aiosmtpclient.testing import CertificateAuthority, MailServer

GONE = "unable to perform operation on <TCPTransport closed=True>; the handler is closed"
"""What uvloop says."""


def no_memory(*_: object, **__: object) -> Any:
    raise MemoryError


@pytest.mark.parametrize("error", [RuntimeError(GONE), OSError(32, "Broken pipe")], ids=["uvloop", "system"])
async def test_a_transport_that_takes_nothing_is_a_lost_connection_and_no_error_of_its_own(
    error: Exception,
) -> None:
    async with MailServer() as server, AsyncSMTP(server.host, server.port) as smtp:
        assert smtp._connection is not None
        with mock.patch.object(smtp._connection.protocol.transport, "write", side_effect=error):
            raised = await caught(smtp.sendmail(SENDER, TO, BODY))
        assert isinstance(raised, SMTPServerDisconnected)
        assert raised.__cause__ is error
        assert deliveries(raised) == [Delivery.NOT_SENT]
        assert (await smtp.sendmail(SENDER, TO, BODY)).accepted == (TO,)


@pytest.mark.parametrize("how", ["abort", "close"])
async def test_a_transport_that_is_gone_can_be_closed_all_the_same(how: str) -> None:
    wire = Gathering()
    waiter = wire.protocol.send(*message())
    with mock.patch.object(wire.transport, how, side_effect=RuntimeError(GONE)):
        getattr(wire.protocol, how)()
    assert isinstance(await caught(as_coroutine(waiter)), SMTPServerDisconnected)


async def as_coroutine(waiter: asyncio.Future[Any]) -> Any:
    return await waiter


@pytest.mark.parametrize("error", [RuntimeError(GONE), MemoryError()], ids=["uvloop", "memory"])
@pytest.mark.parametrize("what", ["write", "is_closing"])
async def test_what_was_gathered_and_cannot_be_written_leaves_nobody_waiting_for_ever(
    what: str, error: Exception
) -> None:
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: complaints.append(context["exception"])
    )
    wire = Gathering()
    waiters = [wire.protocol.send(*message(number)) for number in range(3)]
    with mock.patch.object(wire.transport, what, side_effect=error):
        for _ in range(3):
            await asyncio.sleep(0)
    assert all(waiter.done() for waiter in waiters)
    for waiter in waiters:
        assert isinstance(waiter.exception(), SMTPServerDisconnected)
    known = isinstance(error, RuntimeError) and what == "write"
    assert complaints == ([] if known else [error])


async def test_a_pool_that_cannot_begin_a_task_loses_no_slot_over_it() -> None:
    async with MailServer() as server, SMTPPool(server.host, server.port, max_connections=1) as pool:
        with mock.patch.object(asyncio.get_running_loop(), "create_task", no_memory):
            assert isinstance(await caught(pool.sendmail(SENDER, TO, BODY)), MemoryError)
        assert (await pool.sendmail(SENDER, TO, BODY)).accepted == (TO,)
        assert pool.stats().cap == 1


async def test_a_pool_that_cannot_set_its_timer_loses_no_slot_over_it() -> None:
    async with MailServer() as server, SMTPPool(server.host, server.port, max_connections=1) as pool:
        await pool.sendmail(SENDER, TO, BODY)
        lender = pool._lender
        assert lender is not None
        assert lender._timer is not None
        lender._timer.cancel()
        lender._timer = None
        loop = mock.Mock(wraps=lender.loop)
        loop.call_at = no_memory
        with (
            mock.patch.object(lender, "loop", loop),
            mock.patch.object(type(pool), "_here", return_value=lender),
        ):
            assert (await pool.sendmail(SENDER, TO, BODY)).accepted == (TO,)
        for _ in range(3):
            assert (await pool.sendmail(SENDER, TO, BODY)).accepted == (TO,)
        assert server.connections == 1


async def test_what_fails_behind_an_accepted_message_says_that_it_was_accepted() -> None:
    async with MailServer() as server, SMTPPool(server.host, server.port) as pool:
        give_back = Lender.give_back

        def late(*arguments: Any, **options: Any) -> None:
            give_back(*arguments, **options)
            raise MemoryError

        with mock.patch.object(Lender, "give_back", late):
            error = await caught(pool.sendmail(SENDER, TO, BODY))
        assert isinstance(error, MemoryError)
        assert deliveries(error) == [Delivery.ACCEPTED]
        assert len(server.messages) == 1


async def test_a_certificate_that_cannot_be_looked_at_drops_the_connection() -> None:
    authority = CertificateAuthority()
    async with MailServer(implicit_tls=authority.server_context()) as server:
        smtp = AsyncSMTP("localhost", server.port, tls="implicit", tls_ca=authority.ca_pem)
        with mock.patch.object(connection.Connection, "_check_certificate", no_memory):
            assert isinstance(await caught(smtp.connect()), MemoryError)
        while server._open:  # else it would stay there for ever
            await asyncio.sleep(0)


async def test_no_socket_is_made_before_there_is_somebody_to_hold_it() -> None:
    async with MailServer() as server:
        smtp = AsyncSMTP(server.host, server.port)
        with mock.patch.object(SMTPProtocol, "__init__", no_memory):
            assert isinstance(await caught(smtp.connect()), MemoryError)
        assert server.connections == 0
