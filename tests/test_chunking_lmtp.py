"""BDAT in several chunks, and BDAT in LMTP: which replies there are, and whom each of them decides about."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from driver import Answer, Disconnected, Talk, Then, talk

from aiosmtpclient import transactions
from aiosmtpclient.content import SourceKind, Stream
from aiosmtpclient.delivery import Ledger
from aiosmtpclient.envelopes import Transaction
from aiosmtpclient.errors import (
    Delivery,
    SMTPDataError,
    SMTPException,
    SMTPProtocolError,
    SMTPRecipientsRefused,
    SMTPServerDisconnected,
)
from aiosmtpclient.extensions import Extensions
from aiosmtpclient.message import Prepared, prepare
from aiosmtpclient.replies import Reply

ACCEPTED, REFUSED, UNKNOWN = Delivery.ACCEPTED, Delivery.REFUSED, Delivery.UNKNOWN
A, B, C = "a@d.test", "b@d.test", "c@d.test"
OK, GO, QUEUED = b"250 ok\r\n", b"354 go\r\n", b"250 2.0.0 queued\r\n"
NO, BYE, WHAT = b"550 5.1.1 no\r\n", b"421 4.3.2 bye\r\n", b"500 5.5.1 what?\r\n"
RSET, FULL = b"RSET\r\n", b"552 5.3.4 full\r\n"
CHUNKS = [b"Subject: hi\r\n\r\n", b"one\r\n", b"two\r\n"]
SMALL, LARGE, SLICED = b"hi\r\n", b"x" * 70_000 + b"\r\n", CHUNKS
Over = tuple[Talk[Reply], Transaction, list[Delivery]]


def transaction(*recipients: str, body: object, lmtp: bool = False, shared: bool = False) -> Transaction:
    given = SMALL if isinstance(body, list) else body
    prepared = prepare("me@d.test", recipients, given, eightbitmime=True, smtputf8=False)  # type: ignore[arg-type]
    if isinstance(body, list):
        stream = Stream(body, SourceKind.ITERABLE)
        prepared = Prepared(prepared.sender, prepared.recipients, stream, smtputf8=False)
    extensions = Extensions.parse(b"mail.test\nPIPELINING\nCHUNKING")
    return Transaction(prepared, extensions, Ledger(recipients), chunked=True, lmtp=lmtp, shared=shared)


def send(*recipients: str, answers: Iterable[Answer], body: object, **options: bool) -> Over:
    given = transaction(*recipients, body=body, **options)
    over = talk(transactions.deliver(given), *answers)
    return over, given, [outcome.delivery for outcome in given.ledger.outcomes]


def lmtp(
    *recipients: str, envelope: bytes, content: bytes, body: object, more: Iterable[Answer] = ()
) -> Over:
    """Deliver by LMTP; small content leaves with the envelope, so its replies come with that one's."""
    answers = [envelope + content] if body is SMALL else [envelope, content]
    return send(*recipients, answers=[*answers, *more], body=body, lmtp=True)


# Several chunks


def test_a_stream_leaves_in_chunks_of_which_the_last_decides() -> None:
    over, _, known = send(A, answers=[OK + OK, OK + OK + QUEUED], body=SLICED)
    assert over.wrote[1] == b"BDAT 15\r\n" + CHUNKS[0] + b"BDAT 5\r\none\r\nBDAT 5 LAST\r\ntwo\r\n"
    assert over.result == Reply(250, b"2.0.0 queued")
    assert known == [ACCEPTED]


def test_a_chunk_that_was_taken_accepts_nothing() -> None:
    _, _, known = send(A, answers=[OK + OK, Then(OK + OK, Disconnected())], body=SLICED)
    assert known == [UNKNOWN]


@pytest.mark.parametrize("verdict", [b"503 5.5.1 bad sequence\r\n", WHAT])
def test_the_refusal_of_a_chunk_is_the_news_and_not_what_is_said_to_those_behind_it(verdict: bytes) -> None:
    over, given, known = send(A, answers=[OK + OK, OK + FULL + verdict, OK], body=SLICED)
    assert isinstance(over.error, SMTPDataError)
    assert over.error.smtp_code == 552
    assert over.wrote[2:] == [RSET]
    assert (known, given.unchunkable, over.kept) == ([REFUSED], False, True)


def test_a_message_with_a_piece_missing_is_not_accepted_though_its_last_chunk_was() -> None:
    over, _, known = send(A, answers=[OK + OK, OK + FULL + QUEUED], body=SLICED)
    assert isinstance(over.error, SMTPProtocolError)
    assert over.gave_up
    assert known == [UNKNOWN]


def test_a_3yz_to_a_chunk_ends_the_connection() -> None:
    over, _, known = send(A, answers=[OK + OK, OK + GO + QUEUED], body=SLICED)
    assert isinstance(over.error, SMTPProtocolError)
    assert over.gave_up
    assert known == [UNKNOWN]


@pytest.mark.parametrize("octets", [WHAT * 3, b"502 no\r\n" * 3, b"503 no\r\n" * 3])
def test_bdat_unknown_at_the_first_chunk_is_remembered_though_a_stream_cannot_be_sent_again(
    octets: bytes,
) -> None:
    over, given, known = send(A, answers=[OK + OK, octets, OK], body=SLICED)
    assert isinstance(over.error, SMTPDataError)
    assert over.wrote[2:] == [RSET]
    assert (known, given.unchunkable, over.kept) == ([REFUSED], True, True)


def test_large_content_with_bdat_unknown_is_sent_again_by_data() -> None:
    over, given, known = send(A, answers=[OK + OK, WHAT, OK, OK + OK + GO, QUEUED], body=LARGE)
    assert [octets[:5] for octets in over.wrote] == [b"MAIL ", b"BDAT ", b"RSET\r", b"MAIL ", b"xxxxx"]
    assert (known, given.unchunkable) == ([ACCEPTED], True)


def test_large_content_waits_for_a_recipient() -> None:
    over, _, known = send(A, B, answers=[OK + NO + NO, OK], body=LARGE)
    assert isinstance(over.error, SMTPRecipientsRefused)
    assert over.wrote[1:] == [RSET]
    assert known == [REFUSED] * 2


# LMTP: as many replies as there are recipients who were accepted


@pytest.mark.parametrize("body", [SMALL, LARGE, SLICED], ids=["small", "large", "sliced"])
@pytest.mark.parametrize(
    ("envelope", "content", "expected"),
    [
        (OK + OK + OK + OK, QUEUED * 3, [ACCEPTED] * 3),
        (OK + OK + NO + OK, QUEUED + FULL, [ACCEPTED, REFUSED, REFUSED]),
        (OK + NO + NO + OK, QUEUED, [REFUSED, REFUSED, ACCEPTED]),
        (OK + OK + OK + OK, FULL + QUEUED + BYE, [REFUSED, ACCEPTED, REFUSED]),
    ],
    ids=["all", "two", "one", "421 last"],
)
def test_each_reply_decides_about_a_recipient_who_was_accepted(
    envelope: bytes, content: bytes, expected: list[Delivery], body: object
) -> None:
    chunks = OK * 2 if body is SLICED else b""
    over, _, known = lmtp(A, B, C, envelope=envelope, content=chunks + content, body=body)
    assert over.error is None
    assert known == expected
    assert over.kept is (BYE not in content)


def test_with_nobody_accepted_there_is_one_reply_to_the_chunk() -> None:
    over, given, known = lmtp(A, B, envelope=OK + NO + NO, content=b"503 none\r\n", body=SMALL, more=[OK])
    assert isinstance(over.error, SMTPRecipientsRefused)
    assert over.wrote[1:] == [RSET]
    assert (known, given.unchunkable, over.kept) == ([REFUSED] * 2, False, True)


@pytest.mark.parametrize("body", [SMALL, LARGE, SLICED], ids=["small", "large", "sliced"])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", [UNKNOWN] * 3),
        (QUEUED, [ACCEPTED, UNKNOWN, UNKNOWN]),
        (FULL + QUEUED, [REFUSED, ACCEPTED, UNKNOWN]),
    ],
    ids=["none", "one", "two"],
)
def test_a_close_among_the_replies_leaves_the_rest_unknown(
    content: bytes, expected: list[Delivery], body: object
) -> None:
    envelope, chunks = OK * 4, OK * 2 if body is SLICED else b""
    end = Then(chunks + content, Disconnected())
    answers = [Then(envelope + content, Disconnected())] if body is SMALL else [envelope, end]
    over, _, known = send(A, B, C, answers=answers, body=body, lmtp=True)
    assert isinstance(over.error, SMTPServerDisconnected)
    assert known == expected


@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["small", "large"])
def test_a_421_among_the_replies_decides_about_one_and_leaves_the_rest_unknown(body: object) -> None:
    over, _, known = lmtp(A, B, C, envelope=OK * 4, content=QUEUED + BYE, body=body)
    assert isinstance(over.error, SMTPServerDisconnected)
    assert known == [ACCEPTED, REFUSED, UNKNOWN]


@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["small", "large"])
def test_a_server_that_does_not_know_bdat_gets_the_message_by_data(body: object) -> None:
    """With one recipient there is one reply, whatever it is the answer to."""
    more = [OK, OK * 2 + GO, QUEUED]
    over, given, known = lmtp(A, envelope=OK * 2, content=WHAT, body=body, more=more)
    assert over.error is None
    assert (known, given.unchunkable) == ([ACCEPTED], True)


@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("shared", [False, True])
def test_a_503_to_the_first_of_several_is_not_taken_for_the_answer_to_bdat(
    body: object, shared: bool
) -> None:
    """Others may follow it: waiting for them may be to hang, and sending again to send twice."""
    answers = [OK * 3 + WHAT] if body is SMALL else [OK * 3, WHAT]
    over, given, known = send(A, B, answers=answers, body=body, lmtp=True, shared=shared)
    assert isinstance(over.error, SMTPDataError)
    assert over.gave_up
    assert (known, given.unchunkable) == ([REFUSED, UNKNOWN], True)


@pytest.mark.parametrize("ran", [OK, OK + OK, WHAT + OK])
def test_a_line_of_the_content_that_ran_as_a_command_accepts_nobody(ran: bytes) -> None:
    over, given, known = lmtp(A, B, envelope=OK * 3, content=WHAT + ran, body=SMALL)
    assert isinstance(over.error, SMTPException)
    assert (known, given.unchunkable, over.kept) == ([REFUSED, UNKNOWN], True, False)


def test_in_a_stream_bdat_unknown_is_a_refusal() -> None:
    over, given, known = send(A, answers=[OK * 2 + WHAT], body=SMALL, lmtp=True, shared=True)
    assert isinstance(over.error, SMTPRecipientsRefused)
    assert (known, given.unchunkable) == ([REFUSED], True)
    assert over.session.unsettled


@pytest.mark.parametrize("shared", [False, True])
def test_behind_a_refused_chunk_nobody_knows_how_many_replies_lmtp_has(shared: bool) -> None:
    answers = [OK * 3, OK + FULL]
    over, _, known = send(A, B, answers=answers, body=SLICED, lmtp=True, shared=shared)
    assert isinstance(over.error, SMTPException)
    assert over.gave_up
    assert known == [REFUSED] * 2


def test_who_was_accepted_before_a_3yz_stays_accepted() -> None:
    over, _, known = lmtp(A, B, C, envelope=OK * 4, content=QUEUED + GO + FULL, body=SMALL)
    assert isinstance(over.error, SMTPProtocolError)
    assert over.gave_up
    assert known == [ACCEPTED, UNKNOWN, REFUSED]
