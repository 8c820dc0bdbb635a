"""`progress`: what a caller is told about how much has left, and what happens if he raises."""

from __future__ import annotations

from email.message import EmailMessage
from pathlib import Path

import pytest
from modes import (
    KINDS,
    OF_UNKNOWN_SIZE,
    client,
    each_kind,
    each_mode,
    each_protocol,
    normalised,
    nothing_is_known,  # noqa: F401
)
from wire import BODY, NEXT, SENDER, TO, TOO, deliveries, each_loop, send

from aiosmtpclient import Delivery, SMTPDataError, SMTPRecipientsRefused
from aiosmtpclient.testing import MailServer

SMALL = b".\n..\nand done"
LARGE = (b".begins with a dot, which is doubled on the way" + b"." * 900 + b"\n") * 200 + b".\n" * 200

each_size = pytest.mark.parametrize("octets", [SMALL, LARGE, b""], ids=["small", "large", "empty"])


class Told:
    """What progress was told; raises at the so manieth call, if that is wanted."""

    def __init__(self, raises_at: int = 0) -> None:
        self.calls: list[tuple[int, int | None]] = []
        self._raises_at = raises_at

    def __call__(self, done: int, total: int | None) -> None:
        self.calls.append((done, total))
        if len(self.calls) == self._raises_at:
            raise ZeroDivisionError("the caller's own")

    @property
    def done(self) -> list[int]:
        return [done for done, _ in self.calls]

    @property
    def totals(self) -> set[int | None]:
        return {total for _, total in self.calls}


@each_protocol
@each_mode
@each_kind
@each_size
async def test_the_numbers_grow_up_to_the_size(octets, kind, mode, lmtp, tmp_path: Path):
    """The octets of the content, after line ends are made right and before dots are doubled."""
    told, size = Told(), len(normalised(octets))
    async with MailServer(lmtp=lmtp) as server, client(server, mode, lmtp=lmtp) as smtp:
        await smtp.sendmail(SENDER, [TO, TOO], KINDS[kind](octets, tmp_path), progress=told)
    assert server.messages[0].content == normalised(octets)
    assert told.done == sorted(set(told.done))
    assert told.totals == {None if kind in OF_UNKNOWN_SIZE else size}
    assert told.done[-1] == size
    assert len(told.calls) > 1 or octets is not LARGE


@each_mode
async def test_send_message_tells_too(mode):
    """A message object is content that is all here."""
    message = EmailMessage()
    message["From"], message["To"] = SENDER, TO
    message.set_content("Grüße\n" * 50_000)
    told = Told()
    async with MailServer() as server, client(server, mode) as smtp:
        await smtp.send_message(message, progress=told)
    size = len(server.messages[0].content)
    assert told.done == sorted(set(told.done))
    assert told.calls[-1] == (size, size)


@each_protocol
@each_mode
async def test_nothing_is_told_before_anything_leaves(mode, lmtp):
    """Everybody refused: in lock-step and behind DATA no content leaves."""
    told = Told()
    async with MailServer(lmtp=lmtp, refuse="550 5.1.1 nobody") as server:
        async with client(server, mode, lmtp=lmtp) as smtp:
            with pytest.raises(SMTPRecipientsRefused):
                await smtp.sendmail(SENDER, [TO, TOO], LARGE, progress=told)
    assert told.calls == []


async def test_refused_content_was_told_all_the_same():
    """What left has left."""
    told = Told()
    async with MailServer(refuse_content="554 5.6.0 no") as server, client(server, "message") as smtp:
        with pytest.raises(SMTPDataError):
            await smtp.sendmail(SENDER, TO, BODY, progress=told)
    assert told.calls == [(len(BODY), len(BODY))]


@each_loop
@each_mode
@pytest.mark.parametrize("kind", ["bytes", "file", "asynchronous"])
@pytest.mark.parametrize("at", ["the first call", "the second call", "the last call"])
async def test_what_it_raises_passes_through_and_nothing_is_sent(at, kind, mode, tmp_path: Path):
    """The end of the content has not left, so nobody gets the message; the next one goes through."""
    async with MailServer() as server, client(server, mode) as smtp:
        last = Told()
        await smtp.sendmail(SENDER, TO, KINDS[kind](LARGE, tmp_path), progress=last)
        number = {"the first call": 1, "the second call": 2}.get(at, len(last.calls))
        server.messages.clear()
        for octets in (LARGE, SMALL):
            told = Told(number if octets is LARGE else 1)
            with pytest.raises(ZeroDivisionError, match="the caller's own") as error:
                await smtp.sendmail(SENDER, [TO, TOO], KINDS[kind](octets, tmp_path), progress=told)

            assert error.value.delivery is Delivery.NOT_SENT  # type: ignore[attr-defined]
            assert deliveries(error.value) == [Delivery.NOT_SENT] * 2
            assert (await send(smtp, NEXT)).accepted == (NEXT,)
    assert [message.recipients for message in server.messages] == [(NEXT,), (NEXT,)]
