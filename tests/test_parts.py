"""More recipients than the server takes at a time: several transactions, and one account of all."""

from __future__ import annotations

import asyncio
from email.message import EmailMessage
from io import BytesIO
from typing import Any

import pytest
from modes import MODES, each_mode, each_protocol, nothing_is_known  # noqa: F401
from wire import BODY, GO, OK, SENDER, bye, caught, deliveries, every, hello, mark

from aiosmtpclient import (
    AsyncLMTP,
    AsyncSMTP,
    Delivery,
    Recipient,
    SMTPDataError,
    SMTPNotSupportedError,
    SMTPPool,
    SMTPRecipientsRefused,
    SMTPSenderRefused,
    SMTPServerDisconnected,
)
from aiosmtpclient.delivery import Ledger
from aiosmtpclient.errors import SMTPException
from aiosmtpclient.parts import Division
from aiosmtpclient.replies import Reply
from aiosmtpclient.testing import MailServer, ScriptedServer
from aiosmtpclient.testing.scripted import Step, close, expect_content, stall

ACCEPTED, REFUSED, NOT_SENT, UNKNOWN = (
    Delivery.ACCEPTED,
    Delivery.REFUSED,
    Delivery.NOT_SENT,
    Delivery.UNKNOWN,
)
TOO_MANY = b"452 4.5.3 too many recipients\r\n"


def people(count: int, domain: str = "to.test") -> list[str]:
    return [f"{number}@{domain}" for number in range(count)]


def names(*numbers: int) -> tuple[str, ...]:
    return tuple(f"{number}@to.test" for number in numbers)


class Taker(MailServer):
    """A server that refuses recipients from a number on, which it does not tell before."""

    def __init__(self, most: int, **options: Any) -> None:
        super().__init__(refuse=self._count, **options)
        self.most = most
        self.named: list[str] = []

    def _count(self, address: str) -> str | None:
        begun = max(n for n, line in enumerate(self.commands) if line.startswith("MAIL"))
        taken = sum(line.startswith("RCPT") for line in self.commands[begun:]) - 1
        self.named.append(address)
        if address.startswith("nobody"):
            return "550 5.1.1 no such user"
        return "452 4.5.3 too many recipients" if taken >= self.most else None


def client(server: MailServer | ScriptedServer, mode: str = "message", lmtp: bool = False) -> AsyncSMTP:
    kind: Any = AsyncLMTP if lmtp else AsyncSMTP
    made: AsyncSMTP = kind(server.host, server.port, **MODES[mode])
    return made


# What the server says before (RFC 9422)


@each_protocol
@each_mode
async def test_rcptmax_splits_the_recipients_and_merges_the_account(mode: str, lmtp: bool) -> None:
    everybody = [*people(5), "nobody@to.test", "5@to.test"]
    async with MailServer(
        lmtp=lmtp, extensions=["LIMITS RCPTMAX=3"], refuse={"nobody@to.test": "550 5.1.1 no such user"}
    ) as server:
        async with client(server, mode, lmtp) as smtp:
            result = await smtp.sendmail(SENDER, everybody, BODY)
    assert [received.recipients for received in server.messages] == [
        names(0, 1, 2),
        names(3, 4),
        names(5),
    ]
    assert {received.content for received in server.messages} == {BODY}
    assert dict(result) == {"nobody@to.test": Reply(550, b"5.1.1 no such user")}
    assert result.accepted == names(0, 1, 2, 3, 4, 5)
    assert deliveries(result) == [*[ACCEPTED] * 5, REFUSED, ACCEPTED]
    queue_ids = [received.queue_id for received in server.messages]
    replies = [outcome.reply.text for outcome in result.outcomes if outcome.reply and outcome.reply.positive]
    assert [queue_ids.index(reply.split()[-1]) for reply in replies] == [0, 0, 0, 1, 1, 2]
    assert result.reply.text.endswith(queue_ids[0])


async def test_recipients_from_the_headers_are_split_too_and_the_message_is_the_same() -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Bcc"] = SENDER, "0@to.test, 1@to.test", "2@to.test"
    message.set_content("Grüße\n")
    message.add_attachment(b"octets", maintype="application", subtype="pdf")  # makes up a boundary
    async with MailServer(extensions=["LIMITS RCPTMAX=1"]) as server, client(server) as smtp:
        result = await smtp.send_message(message, notify="never")
    assert result.accepted == names(0, 1, 2)
    assert [received.recipients for received in server.messages] == [names(0), names(1), names(2)]
    assert len({received.content for received in server.messages}) == 1
    assert b"2@to.test" not in server.messages[0].content


async def test_a_message_within_the_limit_is_one_transaction() -> None:
    async with MailServer(extensions=["LIMITS RCPTMAX=3 RCPTDOMAINMAX=1"]) as server:
        async with client(server) as smtp:
            await smtp.sendmail(SENDER, people(3), BODY)
    assert [line.split()[0] for line in server.commands] == ["EHLO", "MAIL", *["RCPT"] * 3, "DATA", "QUIT"]


async def test_rcptdomainmax_puts_so_many_domains_into_one_transaction() -> None:
    recipients = ["1@a.test", "1@b.test", "2@A.test", "1@c.test", "2@b.test"]
    async with MailServer(extensions=["LIMITS RCPTDOMAINMAX=2"]) as server, client(server) as smtp:
        result = await smtp.sendmail(SENDER, recipients, BODY)
    assert [received.recipients for received in server.messages] == [
        ("1@a.test", "2@A.test", "1@b.test", "2@b.test"),
        ("1@c.test",),
    ]
    assert result.accepted == tuple(recipients)


async def test_both_limits_hold_at_once() -> None:
    async with MailServer(extensions=["LIMITS RCPTMAX=2 RCPTDOMAINMAX=1"]) as server, client(server) as smtp:
        await smtp.sendmail(SENDER, [*people(3, "a.test"), *people(1, "b.test")], BODY)
    assert [len(received.recipients) for received in server.messages] == [2, 1, 1]


async def test_each_recipient_keeps_its_own_options_in_whichever_part_it_is() -> None:
    recipients = [Recipient(address, orcpt=f"x{address}") for address in people(3)]
    async with MailServer(extensions=["LIMITS RCPTMAX=2"]) as server, client(server) as smtp:
        await smtp.sendmail(SENDER, recipients, BODY, envid="1")
    said = [pair for one in server.messages for pair in zip(one.recipients, one.rcpt_options, strict=True)]
    assert said == [(address, (f"ORCPT=rfc822;x{address}",)) for address in people(3)]
    assert all("ENVID=1" in one.mail_options for one in server.messages)


@pytest.mark.parametrize("kind", ["path", "file", "iterable", "long octets"])
async def test_content_that_can_be_read_again_leaves_the_same_each_time(kind: str, tmp_path: Any) -> None:
    octets = BODY * 8000
    path = tmp_path / "message.eml"
    path.write_bytes(octets)
    file = BytesIO(b"skipped" + octets)
    file.seek(7)
    body: Any = {"path": path, "file": file, "iterable": [octets], "long octets": octets}[kind]
    async with MailServer(extensions=["LIMITS RCPTMAX=1"]) as server, client(server) as smtp:
        await smtp.sendmail(SENDER, people(3), body)
    assert [received.content for received in server.messages] == [octets] * 3


async def test_content_that_can_be_read_once_is_not_sent_to_more_than_fit() -> None:
    async with MailServer(extensions=["LIMITS RCPTMAX=2"]) as server, client(server) as smtp:
        with pytest.raises(SMTPNotSupportedError, match="read only once") as raised:
            await smtp.sendmail(SENDER, people(3), iter([BODY]))
        assert deliveries(raised.value) == [NOT_SENT] * 3
        await smtp.sendmail(SENDER, people(2), iter([BODY]))
    assert [len(received.recipients) for received in server.messages] == [2]


@each_mode
async def test_all_or_nothing_with_too_many_is_refused_before_mail(mode: str) -> None:
    async with MailServer(extensions=["LIMITS RCPTMAX=2"]) as server, client(server, mode) as smtp:
        with pytest.raises(SMTPRecipientsRefused, match="RCPTMAX=2") as raised:
            await smtp.sendmail(SENDER, people(3), BODY, all_or_nothing=True)
        assert raised.value.permanent
        assert deliveries(raised.value) == [REFUSED] * 3
        assert not any(line.startswith("MAIL") for line in server.commands)


async def test_what_is_wrong_with_the_last_recipient_is_found_before_the_first_part() -> None:
    recipients = [*people(2), Recipient("2@to.test", notify="never")]
    async with MailServer(extensions=["LIMITS RCPTMAX=1"]) as server, client(server) as smtp:
        with pytest.raises(ValueError, match="twice"):
            await smtp.sendmail(SENDER, recipients, BODY, (), ["NOTIFY=DELAY"])
        assert not any(line.startswith("MAIL") for line in server.commands)


@each_mode
async def test_many_tasks_each_in_parts_on_one_connection(mode: str) -> None:
    async with MailServer(extensions=["LIMITS RCPTMAX=2"]) as server, client(server, mode) as smtp:
        results = await asyncio.gather(*[smtp.sendmail(SENDER, people(5), BODY) for _ in range(8)])
        assert [result.accepted for result in results] == [names(0, 1, 2, 3, 4)] * 8
    assert len(server.messages) == 24


# What it says when it is too late (RFC 5321 section 4.5.3.1.10)


@each_protocol
@each_mode
async def test_those_who_were_too_many_go_into_a_further_transaction(mode: str, lmtp: bool) -> None:
    everybody = ["0@to.test", "nobody@to.test", *people(8)[1:]]
    async with Taker(3, lmtp=lmtp) as server, client(server, mode, lmtp) as smtp:
        result = await smtp.sendmail(SENDER, everybody, BODY)
        assert dict(result) == {"nobody@to.test": Reply(550, b"5.1.1 no such user")}
        assert result.accepted == names(0, 1, 2, 3, 4, 5, 6, 7)
    taken = [address for received in server.messages for address in received.recipients]
    assert sorted(taken) == people(8)  # nobody twice
    assert server.named.count("nobody@to.test") == 1


async def test_what_was_learnt_bounds_the_parts_to_come() -> None:
    async with Taker(2) as server, client(server) as smtp:
        assert (await smtp.sendmail(SENDER, people(200), BODY)).accepted == tuple(people(200))
    assert len(server.messages) == 100
    assert len(server.named) == 200 + 198  # not all that are left each time


async def test_a_large_limit_that_was_learnt_is_remembered_and_a_small_one_is_not() -> None:
    async with Taker(100) as server, client(server) as smtp:
        for _ in range(2):
            await smtp.sendmail(SENDER, people(250), BODY)
        assert len(server.named) == (250 + 150) + 250
    async with Taker(1) as server, client(server) as smtp:
        await smtp.sendmail(SENDER, people(2), BODY)
        server.most = 10
        await smtp.sendmail(SENDER, people(2), BODY)
    assert [len(received.recipients) for received in server.messages] == [1, 1, 2]


async def test_a_server_that_takes_nobody_else_is_not_asked_for_ever() -> None:
    """It takes one the first time, and after that says "too many" to the very first."""

    class Stubborn(Taker):
        def _count(self, address: str) -> str | None:
            self.named.append(address)
            return None if len(self.named) == 1 else "452 4.5.3 too many recipients"

    async with Stubborn(0) as server, client(server) as smtp:
        result = await smtp.sendmail(SENDER, people(4), BODY)
    assert result.accepted == names(0)
    assert list(result) == list(names(1, 2, 3))
    assert all(reply.code == 452 for reply in result.values())
    assert len(server.named) == 4 + 3


@pytest.mark.parametrize(
    "reply", ["452 4.3.1 no space", "452 too many", "451 4.5.3 later", "552 5.5.3 too many"]
)
async def test_another_refusal_is_a_refusal(reply: str) -> None:
    async with MailServer(refuse={"1@to.test": reply}) as server, client(server) as smtp:
        result = await smtp.sendmail(SENDER, people(2), BODY)
    assert list(result) == ["1@to.test"]
    assert len(server.messages) == 1


@each_mode
async def test_all_or_nothing_stays_nothing(mode: str) -> None:
    async with Taker(1) as server, client(server, mode) as smtp:
        error = await caught(smtp.sendmail(SENDER, people(2), BODY, all_or_nothing=True))
    assert isinstance(error, SMTPRecipientsRefused)
    assert server.messages == []


async def test_nobody_taken_because_there_are_too_many_is_a_refusal_of_all() -> None:
    async with Taker(0) as server, client(server) as smtp:
        error = await caught(smtp.sendmail(SENDER, people(2), BODY))
    assert isinstance(error, SMTPRecipientsRefused)
    assert error.temporary
    assert len(server.named) == 2


async def test_content_that_was_read_up_leaves_the_others_refused_for_now() -> None:
    async with Taker(1) as server, client(server) as smtp:
        result = await smtp.sendmail(SENDER, people(2), iter([BODY]))
    assert list(result) == ["1@to.test"]
    assert result["1@to.test"].temporary


@each_mode
async def test_tasks_whose_messages_do_not_fit_do_not_disturb_each_other(mode: str) -> None:
    async with Taker(2) as server, client(server, mode) as smtp:
        results = await asyncio.gather(*[smtp.sendmail(SENDER, people(5), BODY) for _ in range(6)])
        assert [result.accepted for result in results] == [names(0, 1, 2, 3, 4)] * 6


# Who was asked for twice

TWICE = ["0@to.test", "1@to.test", "0@TO.test", "2@to.test", "0@to.test"]


@each_protocol
@each_mode
async def test_an_address_asked_for_twice_gets_the_message_once(mode: str, lmtp: bool) -> None:
    async with MailServer(lmtp=lmtp, extensions=["LIMITS RCPTMAX=2"]) as server:
        async with client(server, mode, lmtp) as smtp:
            result = await smtp.sendmail(SENDER, TWICE, BODY)
    assert [received.recipients for received in server.messages] == [names(0, 1), names(2)]
    assert result.accepted == tuple(TWICE)
    assert result.outcomes[0].reply == result.outcomes[4].reply


@each_mode
async def test_who_was_too_many_and_was_accepted_before_is_not_sent_to_again(mode: str) -> None:
    async with Taker(2) as server, client(server, mode) as smtp:
        result = await smtp.sendmail(SENDER, TWICE, BODY)
        assert result == {}
        assert len(result.accepted) == 5
    assert [received.recipients for received in server.messages] == [names(0, 1), names(2)]


async def test_who_was_asked_for_twice_is_unknown_twice() -> None:
    script: list[Step] = [
        *hello(*LIMITED),
        *taken(1),
        "MAIL",
        "RCPT",
        "DATA",
        OK + OK + GO,
        expect_content(),
        close(),
    ]
    async with ScriptedServer(script) as server, client(server) as smtp:
        error = await caught(
            smtp.sendmail(SENDER, ["1@to.test", "0@to.test", "2@to.test", "0@to.test"], BODY)
        )
    assert deliveries(error) == [ACCEPTED, UNKNOWN, NOT_SENT, UNKNOWN]


async def test_who_was_asked_for_twice_and_is_left_is_refused_twice() -> None:
    script: list[Step] = [*hello(*LIMITED), *taken(1), *taken(0, b"451 4.7.1 later\r\n"), *bye()]
    async with ScriptedServer(script) as server, client(server) as smtp:
        result = await smtp.sendmail(SENDER, ["1@to.test", "0@to.test", "2@to.test", "2@to.test"], BODY)
    assert deliveries(result) == [ACCEPTED, REFUSED, REFUSED, REFUSED]


# A part that fails

LIMITED = ("LIMITS RCPTMAX=1", "PIPELINING")


def taken(number: int, verdict: bytes = OK) -> list[Step]:
    return ["MAIL", f"RCPT TO:<{number}@to.test>", "DATA", OK + OK + GO, expect_content(), verdict]


async def outcome(script: list[Step], count: int = 3) -> object:
    """What comes of a message in parts, one recipient each."""
    async with ScriptedServer(script) as server, client(server) as smtp:
        try:
            return await smtp.sendmail(SENDER, people(count), BODY)
        except SMTPException as error:
            return error


async def test_a_part_that_is_lost_hides_nobody_who_was_accepted() -> None:
    lost = [*hello(*LIMITED), *taken(0), "MAIL", "RCPT", "DATA", OK + OK + GO, expect_content(), close()]
    error = await outcome(lost)
    assert isinstance(error, SMTPServerDisconnected)
    assert deliveries(error) == [ACCEPTED, UNKNOWN, NOT_SENT]
    assert error.delivery is UNKNOWN


async def test_a_part_that_never_began_is_not_sent() -> None:
    error = await outcome([*hello(*LIMITED), *taken(0), close()])
    assert isinstance(error, SMTPServerDisconnected)
    assert deliveries(error) == [ACCEPTED, NOT_SENT, NOT_SENT]
    assert error.delivery is ACCEPTED


async def test_a_sender_that_is_refused_in_between_is_refused_for_all_who_are_left() -> None:
    refused: list[Step] = [
        "MAIL",
        "RCPT",
        "DATA",
        b"452 4.5.3 too many messages\r\n" + b"503 no\r\n" * 2,
        "RSET",
        OK,
    ]
    result: Any = await outcome([*hello(*LIMITED), *taken(0), *refused, *bye()])
    assert result.accepted == names(0)
    assert [reply.code for reply in result.values()] == [452, 452]


async def test_content_that_is_refused_is_not_offered_to_the_others() -> None:
    error = await outcome([*hello(*LIMITED), *taken(0, b"554 5.7.1 spam\r\n"), *bye()])
    assert isinstance(error, SMTPDataError)
    assert deliveries(error) == [REFUSED] * 3


async def test_content_that_is_refused_the_second_time_is_refused_for_the_rest() -> None:
    result: Any = await outcome([*hello(*LIMITED), *taken(0), *taken(1, b"451 4.7.1 later\r\n"), *bye()])
    assert deliveries(result) == [ACCEPTED, REFUSED, REFUSED]
    assert [reply.code for reply in result.values()] == [451, 451]


async def test_a_sender_that_is_refused_at_once_is_refused() -> None:
    refused: list[Step] = ["MAIL", "RCPT", "DATA", b"550 no\r\n" + b"503 no\r\n" * 2, "RSET", OK]
    error = await outcome([*hello(*LIMITED), *refused, *bye()])
    assert isinstance(error, SMTPSenderRefused)
    assert deliveries(error) == [REFUSED] * 3


async def test_a_recipient_that_is_refused_alone_does_not_stop_the_others() -> None:
    refused: list[Step] = ["MAIL", "RCPT", "DATA", OK + b"550 no\r\n" + b"503 no\r\n", "RSET", OK]
    result: Any = await outcome([*hello(*LIMITED), *refused, *taken(1), *taken(2), *bye()])
    assert deliveries(result) == [REFUSED, ACCEPTED, ACCEPTED]


async def test_a_421_in_between_refuses_those_who_are_left_for_now() -> None:
    going: list[Step] = ["MAIL", "RCPT", "DATA", OK + b"421 4.3.2 going down\r\n", close()]
    result: Any = await outcome([*hello(*LIMITED), *taken(0), *going])
    assert deliveries(result) == [ACCEPTED, REFUSED, REFUSED]
    assert [reply.code for reply in result.values()] == [421, 421]


async def test_all_refused_one_by_one_is_a_refusal_of_all() -> None:
    refused: list[Step] = ["MAIL", "RCPT", "DATA", OK + b"550 no\r\n" + b"503 no\r\n", "RSET", OK]
    error = await outcome([*hello(*LIMITED), *refused, *refused, *refused, *bye()])
    assert isinstance(error, SMTPRecipientsRefused)
    assert list(error.recipients) == list(names(0, 1, 2))


async def test_a_lost_further_transaction_leaves_the_others_refused_for_now() -> None:
    first: list[Step] = ["MAIL", "RCPT", "RCPT", "DATA", OK + OK + TOO_MANY + GO, expect_content(), OK]
    script = every(hello("PIPELINING"), first, ["MAIL", "RCPT", "DATA", close()])
    result: Any = await outcome(script, 2)
    assert result.accepted == names(0)
    assert [reply.code for reply in result.values()] == [452]


async def test_a_further_transaction_whose_end_is_unknown_is_an_error() -> None:
    first: list[Step] = ["MAIL", "RCPT", "RCPT", "DATA", OK + OK + TOO_MANY + GO, expect_content(), OK]
    rest: list[Step] = ["MAIL", "RCPT", "DATA", OK + OK + GO, expect_content(), close()]
    error = await outcome(every(hello("PIPELINING"), first, rest), 2)
    assert isinstance(error, SMTPServerDisconnected)
    assert deliveries(error) == [ACCEPTED, UNKNOWN]


async def test_a_cancellation_between_parts_says_who_got_it() -> None:
    reached = asyncio.Event()
    script = [*hello(*LIMITED), *taken(0), "MAIL", mark(reached), stall()]
    async with ScriptedServer(script) as server, client(server) as smtp:
        task = asyncio.create_task(caught(smtp.sendmail(SENDER, people(3), BODY)))
        await reached.wait()
        task.cancel()
        error = await task
    assert isinstance(error, asyncio.CancelledError)
    assert deliveries(error) == [ACCEPTED, NOT_SENT, NOT_SENT]


async def test_a_pool_sends_nobody_twice_and_counts_every_transaction() -> None:
    script = [*hello(*LIMITED), *taken(0), close()]
    async with ScriptedServer([*script], [*hello(*LIMITED)]) as server:
        async with SMTPPool(server.host, server.port, max_connections=1) as pool:
            error = await caught(pool.sendmail(SENDER, people(2), BODY))
    assert deliveries(error) == [ACCEPTED, NOT_SENT]

    async with MailServer(extensions=["LIMITS RCPTMAX=1 MAILMAX=4"]) as relay:
        async with SMTPPool(relay.host, relay.port, max_connections=1) as pool:
            for _ in range(3):
                await pool.sendmail(SENDER, people(3), BODY)
    hellos = [number for number, line in enumerate(relay.commands) if line.startswith("EHLO")]
    assert len(hellos) == 2


# The division itself


def test_the_division_takes_everybody_once_and_in_order() -> None:
    division = Division([address.encode() for address in people(7)], range(7), 3)
    assert [division.next() for _ in range(4)] == [[0, 1, 2], [3, 4, 5], [6], []]


def test_those_who_come_back_are_next() -> None:
    division = Division([address.encode() for address in people(5)], range(5), 4)
    part = division.next()
    account = Ledger(names(*part))
    account.decide(0, Reply(250, b"ok"))
    account.decide(1, Reply(250, b"ok"))
    account.decide(2, Reply(452, b"4.5.3 too many"))
    account.decide(3, Reply(452, b"4.5.3 too many"))
    assert division.judge(part, account, None) is None
    assert (division.learnt, division.left) == (2, [2, 3, 4])
    assert [division.next(), division.next()] == [[2, 3], [4]]


def test_an_account_takes_over_what_a_part_decided_and_nothing_else() -> None:
    whole, part = Ledger(people(3)), Ledger(names(2, 0))
    whole.decide(0, Reply(452, b"4.5.3 too many"))
    part.decide(0, Reply(250, b"ok"))
    whole.absorb([2, 0], part)
    assert deliveries(whole) == [REFUSED, NOT_SENT, ACCEPTED]
    part.end_left()
    whole.absorb([2, 0], part)
    assert deliveries(whole) == [UNKNOWN, NOT_SENT, ACCEPTED]
    whole.begin_again()
    assert deliveries(whole) == [NOT_SENT] * 3
