"""BDAT: the trial, what is remembered of it, and transactions whose chunks are refused or run as commands."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from driver import Answer, Disconnected, Talk, Then, talk

from aiosmtpclient import chunking, transactions
from aiosmtpclient.chunking import PROBE, Verdicts, prove
from aiosmtpclient.delivery import Ledger
from aiosmtpclient.envelopes import Transaction
from aiosmtpclient.errors import (
    Delivery,
    SMTPDataError,
    SMTPException,
    SMTPProtocolError,
    SMTPRecipientsRefused,
    SMTPSenderRefused,
    SMTPServerDisconnected,
    SMTPTimeoutError,
)
from aiosmtpclient.extensions import Extensions
from aiosmtpclient.message import prepare
from aiosmtpclient.replies import Reply
from aiosmtpclient.steps import Phase

ACCEPTED, REFUSED, NOT_SENT, UNKNOWN = (
    Delivery.ACCEPTED,
    Delivery.REFUSED,
    Delivery.NOT_SENT,
    Delivery.UNKNOWN,
)
A, B, C = "a@d.test", "b@d.test", "c@d.test"
BODY = b"Subject: hi\r\n\r\n.dot\r\n"
MAIL, RSET = b"MAIL FROM:<me@d.test> SIZE=21\r\n", b"RSET\r\n"
BDAT = b"BDAT 21 LAST\r\n" + BODY
OK, GO, QUEUED = b"250 ok\r\n", b"354 go\r\n", b"250 2.0.0 queued as 1A2B\r\n"
NO, LATER, BYE = b"550 5.1.1 no\r\n", b"450 4.2.0 later\r\n", b"421 4.3.2 bye\r\n"
WHAT, SEQUENCE = b"500 5.5.1 what?\r\n", b"503 5.5.1 no valid recipients\r\n"
NOT_IMPLEMENTED = [WHAT, b"502 5.5.1 not implemented\r\n", b"503 5.5.1 bad sequence\r\n"]


def rcpt(*addresses: str) -> bytes:
    return b"".join(f"RCPT TO:<{address}>\r\n".encode() for address in addresses)


def transaction(
    *recipients: str, body: object = BODY, binary: bool = False, **options: object
) -> Transaction:
    offered = b"mail.test\nPIPELINING\nCHUNKING\nBINARYMIME\nSIZE"
    prepared = prepare(
        "me@d.test",
        recipients,
        body,
        eightbitmime=True,
        smtputf8=False,
        binary=binary,  # type: ignore[arg-type]
    )
    return Transaction(
        prepared,
        Extensions.parse(offered),
        Ledger(recipients),
        chunked=True,
        **options,  # type: ignore[arg-type]
    )


def send(
    *recipients: str, answers: Iterable[Answer], **options: object
) -> tuple[Talk[Reply], Transaction, list[Delivery]]:
    """Deliver to these recipients; the answers are one a step."""
    given = transaction(*recipients, **options)
    over = talk(transactions.deliver(given), *answers)
    return over, given, [outcome.delivery for outcome in given.ledger.outcomes]


# The trial


def test_a_server_that_discards_what_it_refuses_is_trusted_after_one_round_trip() -> None:
    over = talk(prove(), b"503 5.5.1 no\r\n250 ok\r\n")
    assert over.result is True
    assert over.wrote == [PROBE]
    assert over.kept


@pytest.mark.parametrize("chunk", [b"250 taken\r\n", GO])
def test_a_chunk_taken_outside_any_transaction_is_no_way_to_treat_a_message(chunk: bytes) -> None:
    over = talk(prove(), chunk + OK)
    assert over.result is False
    assert over.gave_up


@pytest.mark.parametrize("reset", [b"500 what?\r\n", LATER, GO])
def test_a_server_that_lost_its_place_answers_something_else_to_rset(reset: bytes) -> None:
    over = talk(prove(), b"503 no\r\n" + reset)
    assert over.result is False
    assert over.gave_up


def test_a_third_reply_tells_that_the_chunk_ran_as_a_command() -> None:
    over = talk(prove(), WHAT + WHAT + OK)
    assert over.result is False
    assert not over.kept


@pytest.mark.parametrize("octets", [BYE, b"503 no\r\n" + BYE])
def test_a_server_that_ends_the_session_said_nothing_about_chunks(octets: bytes) -> None:
    over = talk(prove(), octets)
    assert over.result is None
    assert over.error is None
    assert not over.kept


@pytest.mark.parametrize("octets", [b"", b"503 no\r\n"])
@pytest.mark.parametrize("error", [Disconnected(), SMTPTimeoutError("too long", phase="BDAT")], ids=repr)
def test_a_server_that_hangs_or_goes_instead_of_answering_is_not_trusted(
    octets: bytes, error: SMTPException
) -> None:
    over = talk(prove(), Then(octets, error))
    assert over.result is None
    assert over.error is error


def test_replies_to_the_trial_that_never_came_are_not_taken_for_granted() -> None:
    dialogue = prove()
    next(dialogue)
    step = dialogue.send([Reply(503, b"no")])
    assert step.during is Phase.CLOSING
    with pytest.raises(StopIteration) as over:
        dialogue.send([])
    assert over.value.value is False


def test_the_trial_has_a_patience_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunking, "PATIENCE", 0.5)
    assert next(prove()).patience == 0.5


# What is remembered


def test_a_verdict_is_kept_for_its_destination_alone_until_it_is_forgotten() -> None:
    verdicts = Verdicts()
    verdicts.remember("mail.test:25", True)
    verdicts.remember("mail.test:587", False)
    assert [verdicts.of(f"mail.test:{port}") for port in (25, 587, 2525)] == [True, False, None]
    verdicts.forget()
    assert verdicts.of("mail.test:25") is None


def test_nothing_is_remembered_about_a_server_without_a_name() -> None:
    verdicts = Verdicts()
    verdicts.remember("", True)
    assert verdicts.of("") is None


def test_what_is_remembered_does_not_grow_without_end() -> None:
    verdicts = Verdicts(most=2)
    for name in ("one", "two", "one", "three"):
        verdicts.remember(name, True)
    assert [verdicts.of(name) for name in ("one", "two", "three")] == [True, None, True]


# One write


def test_envelope_and_content_leave_in_one_write_as_they_are() -> None:
    over, _, known = send(A, B, answers=[OK * 3 + QUEUED])
    assert over.wrote == [MAIL + rcpt(A, B) + BDAT]
    assert over.result == Reply(250, b"2.0.0 queued as 1A2B")
    assert (known, over.kept) == ([ACCEPTED] * 2, True)


def test_only_a_2yz_to_the_content_is_an_acceptance() -> None:
    over, _, known = send(A, answers=[Then(OK + OK, Disconnected())])
    assert known == [UNKNOWN]
    assert not over.kept


@pytest.mark.parametrize("envelope", [b"", OK, OK + OK, OK + NO])
def test_a_close_behind_a_chunk_leaves_those_unknown_who_were_not_refused(envelope: bytes) -> None:
    _, _, known = send(A, B, answers=[Then(envelope, Disconnected())])
    assert known == [REFUSED if NO in envelope else UNKNOWN, UNKNOWN]


def test_a_refused_chunk_is_followed_by_rset_and_not_by_the_next_message() -> None:
    over, given, known = send(A, answers=[OK + OK + b"552 5.3.4 too much\r\n", OK])
    assert isinstance(over.error, SMTPDataError)
    assert over.wrote[1:] == [RSET]
    assert (known, given.unchunkable, over.kept) == ([REFUSED], False, True)


def test_nobody_accepted_and_a_chunk_out_of_sequence_is_no_verdict_about_bdat() -> None:
    over, given, known = send(A, B, answers=[OK + NO + LATER + SEQUENCE, OK])
    assert isinstance(over.error, SMTPRecipientsRefused)
    assert [reply.code for reply in over.error.recipients.values()] == [550, 450]
    assert (over.wrote[1:], known, given.unchunkable) == ([RSET], [REFUSED] * 2, False)


def test_a_sender_refused_refuses_all_whatever_is_said_behind_it() -> None:
    over, given, known = send(A, answers=[NO + SEQUENCE + SEQUENCE, OK])
    assert isinstance(over.error, SMTPSenderRefused)
    assert (known, given.unchunkable, over.kept) == ([REFUSED], False, True)


def test_content_taken_from_a_sender_who_was_refused_is_unknown_and_the_connection_is_dropped() -> None:
    over, _, known = send(A, answers=[NO + OK + QUEUED])
    assert isinstance(over.error, SMTPProtocolError)
    assert over.gave_up
    assert known == [UNKNOWN]


@pytest.mark.parametrize("verdict", [GO, b"334 more\r\n"])
def test_a_3yz_to_a_chunk_accepts_nothing(verdict: bytes) -> None:
    over, _, known = send(A, answers=[OK + OK + verdict])
    assert isinstance(over.error, SMTPProtocolError)
    assert over.gave_up
    assert known == [UNKNOWN]


@pytest.mark.parametrize(("octets", "code"), [(BYE, 421), (OK + BYE, 421), (OK + OK + BYE, 421)])
def test_a_421_refuses_for_now_wherever_it_comes(octets: bytes, code: int) -> None:
    over, given, known = send(A, answers=[octets])
    assert isinstance(over.error, SMTPException)
    assert over.error.temporary
    assert [outcome.reply and outcome.reply.code for outcome in given.ledger.outcomes] == [code]
    assert (known, over.kept) == ([REFUSED], False)


# BDAT that turns out not to be implemented


@pytest.mark.parametrize("refusal", NOT_IMPLEMENTED)
def test_a_server_that_does_not_know_bdat_gets_the_message_by_data_in_the_same_call(refusal: bytes) -> None:
    over, given, known = send(A, B, answers=[OK + OK + NO + refusal, OK, OK + OK + NO + GO, QUEUED])
    assert over.wrote[1:] == [RSET, MAIL + rcpt(A, B) + b"DATA\r\n", b"Subject: hi\r\n\r\n..dot\r\n.\r\n"]
    assert over.result == Reply(250, b"2.0.0 queued as 1A2B")
    assert (known, given.unchunkable, over.kept) == ([ACCEPTED, REFUSED], True, True)


def test_what_the_second_attempt_learns_is_the_account_and_not_the_first_refusal() -> None:
    _, given, known = send(A, answers=[OK + OK + WHAT, OK, OK + OK + GO, Then(b"", Disconnected())])
    assert (known, given.unchunkable) == ([UNKNOWN], True)


@pytest.mark.parametrize("reset", [NO, GO])
def test_without_a_2yz_to_rset_nothing_is_tried_again_but_the_verdict_stands(reset: bytes) -> None:
    over, given, known = send(A, answers=[OK + OK + WHAT, reset])
    assert isinstance(over.error, SMTPDataError)
    assert over.gave_up
    assert (known, given.unchunkable) == ([REFUSED], True)


def test_binary_content_is_not_sent_by_data() -> None:
    over, given, known = send(A, answers=[OK + OK + WHAT, OK], body=b"\x00\n", binary=True)
    assert isinstance(over.error, SMTPDataError)
    assert (known, given.unchunkable, over.kept) == ([REFUSED], True, True)


def test_in_a_stream_nothing_is_written_behind_a_refused_chunk_for_the_turn_is_anothers() -> None:
    over, given, known = send(A, answers=[OK + OK + WHAT], shared=True)
    assert isinstance(over.error, SMTPDataError)
    assert len(over.wrote) == 1
    assert (known, given.unchunkable) == ([REFUSED], True)
    assert over.session.unsettled


@pytest.mark.parametrize("more", [WHAT, OK, WHAT + OK, GO])
def test_a_chunk_that_ran_as_commands_never_looks_accepted(more: bytes) -> None:
    over, _, known = send(A, answers=[OK + OK + WHAT + more])
    assert isinstance(over.error, SMTPException)
    assert not over.kept
    assert known != [ACCEPTED]


def test_the_reply_to_a_line_of_the_content_is_no_reply_to_rset() -> None:
    over, given, known = send(A, answers=[OK + OK + WHAT, WHAT])
    assert isinstance(over.error, SMTPDataError)
    assert over.gave_up
    assert (known, given.unchunkable) == ([REFUSED], True)


# Behind a chunk of others


def test_rset_stands_before_a_transaction_behind_a_chunk_that_may_be_refused() -> None:
    over, _, known = send(A, answers=[OK + OK + OK + QUEUED], unsettled=True, shared=True)
    assert over.wrote == [RSET + MAIL + rcpt(A) + BDAT]
    assert known == [ACCEPTED]


@pytest.mark.parametrize("body", [BODY, b"x" * 70_000 + b"\r\n"])
@pytest.mark.parametrize("octets", [b"", OK])
def test_a_connection_lost_at_rset_is_a_lost_connection(octets: bytes, body: bytes) -> None:
    over, _, known = send(A, answers=[Then(octets, Disconnected())], unsettled=True, shared=True, body=body)
    assert isinstance(over.error, SMTPServerDisconnected)
    assert known == [UNKNOWN if body is BODY else NOT_SENT]


def test_a_421_to_rset_refuses_for_now() -> None:
    over, _, known = send(A, answers=[BYE], unsettled=True, shared=True)
    assert isinstance(over.error, SMTPSenderRefused)
    assert over.error.temporary
    assert known == [REFUSED]


def test_a_server_that_pipelines_no_more_still_gets_the_rset_and_that_has_a_reply_of_its_own() -> None:
    given = transaction(A, unsettled=True, pipelined=False)
    over = talk(transactions.deliver(given), OK, OK, OK, QUEUED)
    assert over.wrote == [RSET, MAIL, rcpt(A), BDAT]
    assert given.ledger.delivery is ACCEPTED
