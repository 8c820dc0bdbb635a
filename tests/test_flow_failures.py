"""A flow in which something fails, or ends, between two messages."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import ssl
import weakref
from typing import Any

import pytest
from test_flow import used
from test_pool_bulk import numbered, pool_of
from wire import BODY, SENDER, TO

from aiosmtpclient import Delivery, Envelope, SMTPPool, express, flow, plain
from aiosmtpclient.express import Begun
from aiosmtpclient.flow import Flow
from aiosmtpclient.parcels import Parcel
from aiosmtpclient.plain import Plain
from aiosmtpclient.protocol import SMTPProtocol
from aiosmtpclient.session import Session
from aiosmtpclient.testing import MailServer
from aiosmtpclient.testing.certificates import CertificateAuthority

pytestmark = pytest.mark.both_loops


class Closing:
    """A server that closes right behind its third yes; by BDAT, whatever is written then is unknown."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self._context = context
        self.taken = 0

    async def __aenter__(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hi\r\n")
        taken = 0
        with contextlib.suppress(ConnectionError):
            while taken < 3 and (line := await reader.readline()):
                if line[:4] == b"EHLO":
                    writer.write(b"250-hi\r\n250-CHUNKING\r\n250 PIPELINING\r\n")
                elif line[:4] == b"BDAT":
                    await reader.readexactly(int(line.split()[1]))
                    taken += 1
                    writer.write(b"250 queued\r\n")
                else:
                    writer.write(b"250 ok\r\n")
        self.taken += taken
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def test_inside_tls_an_end_that_comes_with_the_reply_is_seen_before_the_next_message() -> None:
    """It was begun all the same: what had been written into the closing connection was unknown."""
    authority = CertificateAuthority()
    closing = Closing(authority.server_context())
    async with closing as port:
        pool = SMTPPool(
            "127.0.0.1",
            port,
            tls="implicit",
            tls_context=authority.client_context(),
            max_connections=2,
            chunking="eager",
        )
        async with pool:
            found = [one.delivery async for one in pool.send_messages(map(numbered, range(60)))]
        assert (found, closing.taken) == ([Delivery.ACCEPTED] * 60, 60)


ONCE: list[tuple[str, Any, str]] = [
    ("the octets", plain, "stuffed"),
    ("the first write", SMTPProtocol, "begin"),
    ("the steps", Plain, "unfold"),
    ("a step", plain, "End"),
    ("the parcel", Parcel, "of"),
    ("what there is to judge", flow, "Begun"),
    ("the settling", Begun, "settle"),
    ("the session's word", Session, "accepted"),
    ("the flow's", Flow, "accepted"),
    ("the unfolding", Session, "unfold"),
]


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(("owner", "method"), [one[1:] for one in ONCE], ids=[one[0] for one in ONCE])
async def test_what_fails_once_for_want_of_memory_loses_no_outcome_and_says_nothing_false(
    monkeypatch: pytest.MonkeyPatch, owner: Any, method: str, after: bool, chunked: bool
) -> None:
    """A recipient and a content are refused in the middle, so that two messages have to be judged, too."""
    if chunked and method in ("stuffed", "End"):
        owner, method = (express, "in_lines") if method == "stuffed" else (plain, "OneWrite")
    ours, left = (
        inspect.getattr_static(owner, method),
        [2 if method in ("begin", "accepted", "stuffed") else 1],
    )

    def fails(*args: Any, **kwargs: Any) -> Any:
        left[0] -= 1
        if left[0]:
            return call(*args, **kwargs)
        monkeypatch.setattr(owner, method, ours)
        if after:
            call(*args, **kwargs)
        raise MemoryError

    without = [] if chunked else ["CHUNKING"]
    refusing = MailServer(
        without=without,
        refuse=lambda to: "550 no such user" if to == "refused@to.test" else None,
        refuse_content=lambda message: "550 no" if message.content == b"9\r\n" else None,
    )
    async with refusing as server, pool_of(server, max_connections=2, retries=3, timeout=5) as pool:
        await used(pool, connections=2)
        call = getattr(owner, method)
        bound = isinstance(ours, classmethod)
        monkeypatch.setattr(
            owner, method, staticmethod(fails) if bound or not inspect.isclass(owner) else fails
        )
        who = ["refused@to.test" if number == 7 else TO for number in range(20)]
        messages = [Envelope(SENDER, one, f"{number}\r\n".encode()) for number, one in enumerate(who)]
        found = [one async for one in pool.send_messages(messages)]
        assert not left[0]
        assert sorted(one.index for one in found) == list(range(20))
        stats = pool.stats()
        assert (stats.in_use, stats.waiting) == (0, 0)
        assert stats.accepted + stats.refused + stats.not_sent + stats.unknown == 22
        contents = [message.content for message in server.messages]
        for one in found:
            taken = contents.count(f"{one.index}\r\n".encode())
            assert taken <= 1
            if one.delivery is Delivery.ACCEPTED:
                assert taken == 1
            elif one.delivery is not Delivery.UNKNOWN:
                assert taken == 0
            if one.index not in (7, 9):
                assert one.delivery is not Delivery.REFUSED
        assert sum(one.delivery is Delivery.ACCEPTED for one in found) >= 16
        assert (await pool.sendmail(SENDER, TO, BODY)).accepted == (TO,)


async def test_a_run_that_is_left_early_holds_nothing() -> None:
    """Its own way to send led back to it: what nobody had looked at waited for the collector."""

    async with MailServer() as server, pool_of(server, max_connections=3) as pool:
        await used(pool, connections=3)
        messages = [Envelope(SENDER, TO, BODY) for _ in range(40)]
        kept = [weakref.ref(message) for message in messages]
        gc.disable()
        try:
            run = pool.send_messages(messages)
            await anext(run)
            for _ in range(50):
                await asyncio.sleep(0)
            await run.aclose()
            del run, messages
            for _ in range(5):
                await asyncio.sleep(0)
            assert [one for one in kept if one() is not None] == []
        finally:
            gc.enable()
