"""Transactions: from MAIL to the reply that decides, and what each recipient can be told at any point."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from driver import Answer, Disconnected, Early, Talk, Then, ready, talk

from aiosmtpclient import transactions
from aiosmtpclient.content import Stream
from aiosmtpclient.delivery import Ledger
from aiosmtpclient.errors import (
    Delivery,
    SMTPDataError,
    SMTPException,
    SMTPNotSupportedError,
    SMTPProtocolError,
    SMTPRecipientsRefused,
    SMTPSenderRefused,
    SMTPServerDisconnected,
    SMTPTimeoutError,
)
from aiosmtpclient.extensions import Extensions
from aiosmtpclient.message import Prepared, prepare
from aiosmtpclient.replies import Reply
from aiosmtpclient.steps import Phase, Step
from aiosmtpclient.transactions import Transaction

ACCEPTED, REFUSED, NOT_SENT, UNKNOWN = (
    Delivery.ACCEPTED,
    Delivery.REFUSED,
    Delivery.NOT_SENT,
    Delivery.UNKNOWN,
)
A, B, C = "a@d.test", "b@d.test", "c@d.test"
BODY = b"Subject: hi\n\n.dot\n"
CONTENT = b"Subject: hi\r\n\r\n..dot\r\n.\r\n"
MAIL, DATA, RSET, DOT = b"MAIL FROM:<me@d.test>\r\n", b"DATA\r\n", b"RSET\r\n", b".\r\n"
OK, GO = b"250 ok\r\n", b"354 go\r\n"
QUEUED = b"250 2.0.0 queued as 1A2B\r\n"
NO, LATER, BYE = b"550 5.1.1 no\r\n", b"450 4.2.0 later\r\n", b"421 4.3.2 bye\r\n"
MODES = [pytest.param(True, id="grouped"), pytest.param(False, id="lock-step")]
STOP = KeyboardInterrupt()
"""Stands for a cancellation, which this floor does not know by name."""


def rcpt(*addresses: str) -> bytes:
    return b"".join(f"RCPT TO:<{address}>\r\n".encode() for address in addresses)


def prepared(*recipients: str, body: object = BODY, utf8: bool = False) -> Prepared:
    return prepare("me@d.test", recipients, body, eightbitmime=True, smtputf8=utf8)  # type: ignore[arg-type]


def transaction(*recipients: str, grouped: bool = True, offers: str = "", **options: object) -> Transaction:
    keywords = f"mail.test\n{offers}\nPIPELINING" if grouped else f"mail.test\n{offers}"
    ready_to_go = prepared(*recipients, body=options.pop("body", BODY))
    return Transaction(
        ready_to_go,
        Extensions.parse(keywords.encode()),
        Ledger(recipients),
        **options,  # type: ignore[arg-type]
    )


def send(
    *recipients: str, answers: Iterable[Answer], grouped: bool = True, **options: object
) -> tuple[Talk[Reply], Ledger]:
    """Deliver to these recipients; the answers are one a step."""
    given = transaction(*recipients, grouped=grouped, **options)
    return talk(transactions.deliver(given), *answers), given.ledger


def envelope(
    *answers: bytes, grouped: bool, data: bytes | None = None, then: BaseException | None = None
) -> list[Answer]:
    """The answers to MAIL and each RCPT (and DATA, in a group), as the mode wants them."""
    if grouped:
        octets = b"".join([*answers, data or b""])
        return [octets if then is None else Then(octets, then)]
    return [*answers, *([data] if data is not None else []), *([then] if then is not None else [])]


def deliveries(ledger: Ledger) -> list[Delivery]:
    return [outcome.delivery for outcome in ledger.outcomes]


def replies(ledger: Ledger) -> list[int | None]:
    return [outcome.reply and outcome.reply.code for outcome in ledger.outcomes]


# Transcripts


def test_a_group_leaves_in_one_write_and_the_content_behind_the_354() -> None:
    over, ledger = send(A, B, answers=[OK * 3 + GO, QUEUED])
    assert over.wrote == [MAIL + rcpt(A, B) + DATA, CONTENT]
    assert over.result == ledger.final == Reply(250, b"2.0.0 queued as 1A2B")
    assert deliveries(ledger) == [ACCEPTED, ACCEPTED]
    assert [step.last for step in over.steps] == [False, True]
    assert over.kept


@pytest.mark.parametrize("options", [{"grouped": False}, {"pipelined": False}])
def test_each_command_waits_for_its_reply_unless_both_sides_pipeline(options: dict[str, bool]) -> None:
    over, ledger = send(A, B, answers=[OK, OK, OK, GO, QUEUED], **options)  # type: ignore[arg-type]
    assert over.wrote == [MAIL, rcpt(A), rcpt(B), DATA, CONTENT]
    assert deliveries(ledger) == [ACCEPTED, ACCEPTED]
    assert over.kept


def test_the_verbs_of_a_group_name_what_is_owed() -> None:
    session = ready()
    step = next(transactions.deliver(transaction(A, B)))
    session.send(step)
    verbs = [step.verb]
    for _ in range(3):
        session.receive_data(OK)
        verbs.append(step.verb)
    assert verbs == ["MAIL", "RCPT", "RCPT", "DATA"]


def test_lmtp_has_a_reply_for_each_recipient_it_accepted_duplicates_included() -> None:
    over, ledger = send(A, B, A, C, answers=[OK * 2 + NO + OK * 2 + GO, OK + LATER + QUEUED], lmtp=True)
    assert over.wrote == [MAIL + rcpt(A, B, A, C) + DATA, CONTENT]
    assert deliveries(ledger) == [ACCEPTED, REFUSED, REFUSED, ACCEPTED]
    assert replies(ledger) == [250, 550, 450, 250]
    assert over.result == ledger.final == Reply(250, b"ok")
    assert over.kept


@pytest.mark.parametrize("grouped", MODES)
def test_those_who_were_refused_do_not_stop_the_others(grouped: bool) -> None:
    over, ledger = send(
        A, B, C, grouped=grouped, answers=[*envelope(OK, NO, OK, LATER, grouped=grouped, data=GO), QUEUED]
    )
    assert over.result is not None
    assert deliveries(ledger) == [REFUSED, ACCEPTED, REFUSED]
    assert replies(ledger) == [550, 250, 450]
    assert over.kept


@pytest.mark.parametrize("code", [b"200", b"251", b"252", b"299"])
@pytest.mark.parametrize("grouped", MODES)
def test_the_first_digit_decides(grouped: bool, code: bytes) -> None:
    yes, go = code + b" ok\r\n", b"399 go\r\n"
    over, ledger = send(A, grouped=grouped, answers=[*envelope(yes, yes, grouped=grouped, data=go), yes])
    assert over.result == Reply(int(code), b"ok")
    assert deliveries(ledger) == [ACCEPTED]


# What goes with MAIL and RCPT


@pytest.mark.parametrize(
    ("offers", "options", "body", "parameters"),
    [
        ("", {}, BODY, ""),
        ("SIZE", {}, BODY, " SIZE=21"),
        ("SIZE 21", {}, BODY, " SIZE=21"),
        ("SIZE 0", {}, BODY, " SIZE=21"),
        ("SIZE", {"mail_options": ["size=5"]}, BODY, " size=5"),
        ("SIZE\n8BITMIME", {}, b"caf\xc3\xa9", " SIZE=7 BODY=8BITMIME"),
        ("8BITMIME", {}, BODY, ""),
        ("", {}, b"caf\xc3\xa9", ""),
        ("8BITMIME", {"mail_options": ["BODY=7BIT"]}, b"caf\xc3\xa9", " BODY=7BIT"),
        ("SIZE\n8BITMIME", {}, [b"a stream"], " BODY=8BITMIME"),
        ("SIZE", {"mail_options": ["RET=HDRS", "ENVID=x"]}, BODY, " SIZE=21 RET=HDRS ENVID=x"),
        ("SIZE\n8BITMIME", {"esmtp": False, "mail_options": ["RET=HDRS"]}, b"caf\xc3\xa9", ""),
    ],
)
def test_parameters_are_those_that_are_offered_and_needed(
    offers: str, options: dict[str, object], body: object, parameters: str
) -> None:
    step = next(transactions.deliver(transaction(A, grouped=False, offers=offers, body=body, **options)))
    assert step.data == f"MAIL FROM:<me@d.test>{parameters}\r\n".encode()


@pytest.mark.parametrize(
    ("given", "parameters"),
    [((), " BODY=8BITMIME SMTPUTF8"), (("SMTPUTF8",), " BODY=8BITMIME SMTPUTF8")],
)
def test_smtputf8_is_said_once_where_an_address_needs_it(given: tuple[str, ...], parameters: str) -> None:
    address = "\u00fc@d.test"
    extensions = Extensions.parse(b"mail.test\nSMTPUTF8\n8BITMIME")
    needs_it = Transaction(prepared(address, utf8=True), extensions, Ledger([address]), mail_options=given)
    over = talk(transactions.deliver(needs_it), OK, OK, GO, QUEUED)
    assert over.wrote[0] == f"MAIL FROM:<me@d.test>{parameters}\r\n".encode()
    assert over.wrote[1] == "RCPT TO:<\u00fc@d.test>\r\n".encode()


def test_an_smtputf8_of_the_callers_lets_utf8_into_the_parameters() -> None:
    given = transaction(
        A, offers="SMTPUTF8", grouped=False, mail_options=["smtputf8"], rcpt_options=["X=\u00fc"]
    )
    over = talk(transactions.deliver(given), OK, NO, OK)
    assert over.wrote == [
        b"MAIL FROM:<me@d.test> smtputf8\r\n",
        "RCPT TO:<a@d.test> X=\u00fc\r\n".encode(),
        RSET,
    ]


@pytest.mark.parametrize("esmtp", [True, False])
def test_parameters_of_rcpt_go_out_as_given_and_none_after_helo(esmtp: bool) -> None:
    over, _ = send(A, B, answers=[OK * 3 + GO, QUEUED], rcpt_options=["NOTIFY=NEVER"], esmtp=esmtp)
    parameters = b" NOTIFY=NEVER" if esmtp else b""
    assert (
        over.wrote[0]
        == MAIL + b"".join(b"RCPT TO:<%b@d.test>%b\r\n" % (name, parameters) for name in (b"a", b"b")) + DATA
    )


@pytest.mark.parametrize(
    "options",
    [
        {"mail_options": ["A B"]},
        {"mail_options": ["A\r\nRSET"]},
        {"rcpt_options": ["A\r\nRSET"]},
        {"rcpt_options": ["X=\u00fc"]},
        {"esmtp": False, "mail_options": ["A B"]},
    ],
)
@pytest.mark.parametrize("grouped", MODES)
def test_a_bad_parameter_of_the_second_command_leaves_no_envelope_open(
    options: dict[str, object], grouped: bool
) -> None:
    over, ledger = send(A, B, grouped=grouped, answers=[], **options)
    assert isinstance(over.error, ValueError)
    assert over.wrote == []
    assert deliveries(ledger) == [NOT_SENT, NOT_SENT]
    assert over.kept


def test_smtputf8_by_hand_where_it_is_not_offered_is_found_before_mail() -> None:
    over, ledger = send(A, answers=[], mail_options=["SMTPUTF8"])
    assert isinstance(over.error, SMTPNotSupportedError)
    assert (over.wrote, deliveries(ledger), over.kept) == ([], [NOT_SENT], True)


@pytest.mark.parametrize("esmtp", [True, False])
def test_a_message_larger_than_the_server_takes_is_refused_here_as_it_would_be_there(esmtp: bool) -> None:
    over, ledger = send(A, B, answers=[], offers="SIZE 20", esmtp=esmtp)
    assert isinstance(over.error, SMTPSenderRefused)
    assert (over.error.smtp_code, over.error.sender) == (552, "me@d.test")
    assert over.error.reply is not None
    assert str(over.error.reply.enhanced_code) == "5.3.4"
    assert over.error.permanent
    assert (over.wrote, deliveries(ledger), over.kept) == ([], [REFUSED, REFUSED], True)


def test_a_stream_is_not_measured() -> None:
    step = next(transactions.deliver(transaction(A, grouped=False, offers="SIZE 1", body=[b"long"])))
    assert step.data == MAIL


# MAIL refused


@pytest.mark.parametrize("answer", [NO, LATER])
@pytest.mark.parametrize("grouped", MODES)
def test_a_refused_sender_is_everybodys_refusal_and_the_connection_is_kept(
    grouped: bool, answer: bytes
) -> None:
    rest = [b"503 what?\r\n"] * 2 if grouped else []
    data = b"503 what?\r\n" if grouped else None
    over, ledger = send(
        A, B, grouped=grouped, answers=[*envelope(answer, *rest, grouped=grouped, data=data), OK]
    )
    assert over.wrote[1:] == [RSET]
    assert isinstance(over.error, SMTPSenderRefused)
    assert (over.error.smtp_code, over.error.sender) == (int(answer[:3]), "me@d.test")
    assert over.error.reply == Reply(int(answer[:3]), answer[4:-2])
    assert deliveries(ledger) == [REFUSED, REFUSED]
    assert replies(ledger) == [int(answer[:3])] * 2
    assert over.kept


def test_a_dot_after_a_refused_mail_would_send_an_empty_message_to_those_accepted_all_the_same() -> None:
    over, ledger = send(A, B, answers=[NO + OK + NO + GO])
    assert over.wrote == [MAIL + rcpt(A, B) + DATA]
    assert over.gave_up
    assert isinstance(over.error, SMTPSenderRefused)
    assert deliveries(ledger) == [REFUSED, REFUSED]
    assert replies(ledger) == [550, 550]


def test_a_refused_mail_and_nobody_accepted_but_a_354_gets_the_lone_dot() -> None:
    over, ledger = send(A, B, answers=[LATER + NO + NO + GO, b"554 no\r\n"])
    assert over.wrote[1:] == [DOT]
    assert isinstance(over.error, SMTPSenderRefused)
    assert replies(ledger) == [450, 450]
    assert over.kept


@pytest.mark.parametrize("first", [OK + NO, NO + NO])
def test_in_lmtp_nobody_knows_what_a_lone_dot_would_earn(first: bytes) -> None:
    over, ledger = send(A, answers=[first + GO], lmtp=True)
    assert over.wrote == [MAIL + rcpt(A) + DATA]
    assert over.gave_up
    assert isinstance(over.error, (SMTPSenderRefused, SMTPRecipientsRefused))
    assert deliveries(ledger) == [REFUSED]


# Every recipient refused


@pytest.mark.parametrize("grouped", MODES)
def test_nobody_left_to_send_it_to(grouped: bool) -> None:
    data = b"503 nobody\r\n" if grouped else None
    over, ledger = send(
        A, B, grouped=grouped, answers=[*envelope(OK, NO, LATER, grouped=grouped, data=data), OK]
    )
    assert over.wrote[-1] == RSET
    assert DATA not in over.wrote
    assert isinstance(over.error, SMTPRecipientsRefused)
    assert over.error.recipients == {A: (550, b"5.1.1 no"), B: (450, b"4.2.0 later")}
    assert deliveries(ledger) == [REFUSED, REFUSED]
    assert over.kept


@pytest.mark.parametrize("answer", [OK, b"554 5.5.1 nobody\r\n", b"451 later\r\n"])
def test_a_354_though_nobody_was_accepted_gets_the_lone_dot_and_its_answer_is_read(answer: bytes) -> None:
    over, ledger = send(A, B, answers=[OK + NO + NO + GO, answer])
    assert over.wrote == [MAIL + rcpt(A, B) + DATA, DOT]
    assert isinstance(over.error, SMTPRecipientsRefused)
    assert deliveries(ledger) == [REFUSED, REFUSED]
    assert over.kept


@pytest.mark.parametrize(
    "answer", [GO, BYE, b"what?\r\n", Disconnected(), SMTPTimeoutError("late")], ids=repr
)
def test_whatever_becomes_of_the_lone_dot_the_refusals_are_the_news(answer: Answer) -> None:
    over, ledger = send(A, answers=[OK + NO + GO, answer])
    assert over.wrote[1:] == [DOT]
    assert isinstance(over.error, SMTPRecipientsRefused)
    assert replies(ledger) == [550]
    assert not over.kept


def test_a_2yz_to_data_with_nobody_accepted_is_no_ground_to_stand_on() -> None:
    over, ledger = send(A, answers=[OK + NO + OK])
    assert over.gave_up
    assert isinstance(over.error, SMTPRecipientsRefused)
    assert deliveries(ledger) == [REFUSED]


# Getting out of a refusal


REFUSALS: list[tuple[list[Answer], type[SMTPException]]] = [
    ([NO + b"503 what?\r\n" * 2], SMTPSenderRefused),
    ([OK + NO + b"503 nobody\r\n"], SMTPRecipientsRefused),
    ([OK + OK + NO], SMTPDataError),
]


@pytest.mark.parametrize(("answers", "error"), REFUSALS, ids=["MAIL", "RCPT", "DATA"])
@pytest.mark.parametrize(
    "answer", [NO, LATER, BYE, GO, b"what?\r\n", Disconnected(), SMTPTimeoutError("late")], ids=repr
)
def test_without_a_2yz_to_rset_the_connection_is_not_used_again_but_the_refusal_is_the_news(
    answers: list[Answer], error: type[SMTPException], answer: Answer
) -> None:
    over, ledger = send(A, answers=[*answers, answer])
    assert over.wrote[1:] == [RSET]
    assert type(over.error) is error
    assert deliveries(ledger) == [REFUSED]
    assert not over.kept


@pytest.mark.parametrize(("answers", "error"), REFUSALS, ids=["MAIL", "RCPT", "DATA"])
def test_a_cancellation_behind_a_refusal_passes_through_and_the_account_stands(
    answers: list[Answer], error: type[SMTPException]
) -> None:
    over, ledger = send(A, answers=[*answers, STOP])
    assert over.error is STOP
    assert deliveries(ledger) == [REFUSED]
    assert not over.kept


# A class of reply that cannot be the answer


@pytest.mark.parametrize("grouped", MODES)
@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_3yz_in_the_envelope_ends_the_connection_and_nothing_more_is_written(
    position: int, grouped: bool
) -> None:
    answers = [OK, OK, OK]
    answers[position] = GO
    if not grouped:
        del answers[position + 1 :]
    over, ledger = send(
        A, B, grouped=grouped, answers=envelope(*answers, grouped=grouped, data=GO if grouped else None)
    )
    assert over.gave_up
    assert len(over.wrote) == (1 if grouped else position + 1)
    assert isinstance(over.error, SMTPProtocolError)
    assert (over.error.smtp_code, over.error.command) == (354, "RCPT" if position else "MAIL")
    assert deliveries(ledger) == [NOT_SENT, NOT_SENT]


def test_a_3yz_in_a_group_does_not_hide_what_others_were_told() -> None:
    over, ledger = send(A, B, answers=[OK + NO + GO + GO])
    assert isinstance(over.error, SMTPProtocolError)
    assert deliveries(ledger) == [REFUSED, NOT_SENT]


@pytest.mark.parametrize("grouped", MODES)
def test_the_content_never_follows_a_2yz_to_data(grouped: bool) -> None:
    over, ledger = send(A, grouped=grouped, answers=envelope(OK, OK, grouped=grouped, data=OK))
    assert CONTENT not in over.wrote
    assert over.gave_up
    assert isinstance(over.error, SMTPProtocolError)
    assert (over.error.smtp_code, over.error.command) == (250, "DATA")
    assert deliveries(ledger) == [NOT_SENT]


@pytest.mark.parametrize("grouped", MODES)
@pytest.mark.parametrize("answer", [NO, LATER])
def test_a_refused_data_is_everybodys_refusal(answer: bytes, grouped: bool) -> None:
    over, ledger = send(
        A, B, grouped=grouped, answers=[*envelope(OK, NO, OK, grouped=grouped, data=answer), OK]
    )
    assert over.wrote[-1] == RSET
    assert isinstance(over.error, SMTPDataError)
    assert (over.error.smtp_code, over.error.command) == (int(answer[:3]), "DATA")
    assert replies(ledger) == [550, int(answer[:3])]
    assert over.kept


# 421


@pytest.mark.parametrize("grouped", MODES)
@pytest.mark.parametrize(
    ("answers", "error", "codes"),
    [
        ([BYE], SMTPSenderRefused, [421, 421]),
        ([OK, BYE], SMTPRecipientsRefused, [421, 421]),
        ([OK, OK, BYE], SMTPRecipientsRefused, [421, 421]),
        ([OK, NO, BYE], SMTPRecipientsRefused, [550, 421]),
        ([OK, OK, OK, BYE], SMTPDataError, [421, 421]),
        ([OK, NO, OK, BYE], SMTPDataError, [550, 421]),
        ([OK, OK, OK, GO, BYE], SMTPDataError, [421, 421]),
        ([OK, NO, OK, GO, BYE], SMTPDataError, [550, 421]),
    ],
)
def test_a_421_refuses_the_open_transaction_for_now_wherever_it_comes(
    answers: list[bytes], error: type[SMTPException], codes: list[int], grouped: bool
) -> None:
    steps: list[Answer] = list(answers)
    if grouped:
        steps = [b"".join(answers[:4]), *answers[4:]]
    over, ledger = send(A, B, grouped=grouped, answers=steps)
    assert type(over.error) is error
    assert over.in_vain == []  # no RSET is even tried
    assert deliveries(ledger) == [REFUSED, REFUSED]
    assert replies(ledger) == codes
    assert isinstance(over.error, SMTPException)
    assert over.error.temporary
    assert not over.kept


def test_a_421_in_a_group_names_every_recipient_also_those_it_never_answered_for() -> None:
    over, _ = send(A, B, C, answers=[OK + NO + BYE])
    assert isinstance(over.error, SMTPRecipientsRefused)
    assert {address: reply.code for address, reply in over.error.recipients.items()} == {
        A: 550,
        B: 421,
        C: 421,
    }


# The content


@pytest.mark.parametrize("answer", [NO, LATER])
def test_a_refused_content_leaves_the_connection_in_step(answer: bytes) -> None:
    over, ledger = send(A, B, answers=[OK * 3 + GO, answer])
    assert isinstance(over.error, SMTPDataError)
    assert (over.error.smtp_code, over.error.command) == (int(answer[:3]), "end of content")
    assert over.error.reply == Reply(int(answer[:3]), answer[4:-2])
    assert replies(ledger) == [int(answer[:3])] * 2
    assert over.kept


def test_a_3yz_to_the_end_of_the_content_tells_nothing() -> None:
    over, ledger = send(A, answers=[OK * 2 + GO, GO])
    assert over.gave_up
    assert isinstance(over.error, SMTPProtocolError)
    assert over.error.command == "end of content"
    assert deliveries(ledger) == [UNKNOWN]


@pytest.mark.parametrize("lmtp", [False, True])
@pytest.mark.parametrize("answer", [b"552 5.3.4 too much\r\n", b"452 4.3.1 full\r\n", BYE])
def test_a_refusal_in_the_middle_of_the_content_is_everybodys(answer: bytes, lmtp: bool) -> None:
    over, ledger = send(A, B, answers=[OK * 3 + GO, Early(answer)], lmtp=lmtp)
    assert type(over.error) is (SMTPRecipientsRefused if lmtp else SMTPDataError)
    assert deliveries(ledger) == [REFUSED, REFUSED]
    assert replies(ledger) == [int(answer[:3])] * 2
    assert not over.kept


@pytest.mark.parametrize("lmtp", [False, True])
@pytest.mark.parametrize("answer", [OK, GO])
def test_a_2yz_before_the_end_of_the_content_accepts_nothing(answer: bytes, lmtp: bool) -> None:
    over, ledger = send(A, B, answers=[OK * 3 + GO, Early(answer)], lmtp=lmtp)
    assert isinstance(over.error, SMTPProtocolError)
    assert over.error.command == "end of content"
    assert deliveries(ledger) == [NOT_SENT, NOT_SENT]
    assert over.gave_up


@pytest.mark.parametrize(
    "error", [Disconnected(), SMTPTimeoutError("late"), STOP, ValueError("a NUL")], ids=repr
)
@pytest.mark.parametrize(
    ("octets", "delivery"), [(b"", NOT_SENT), (OK, NOT_SENT), (GO, NOT_SENT), (NO, REFUSED), (BYE, REFUSED)]
)
@pytest.mark.parametrize("lmtp", [False, True])
def test_what_ends_the_content_half_way_makes_no_acceptance_of_an_early_2yz(
    octets: bytes, delivery: Delivery, error: BaseException, lmtp: bool
) -> None:
    over, ledger = send(A, B, answers=[OK * 3 + GO, Early(octets, error)], lmtp=lmtp)
    assert over.error is error
    assert deliveries(ledger) == [delivery, delivery]
    assert not over.kept


@pytest.mark.parametrize(
    "error", [Disconnected(), SMTPTimeoutError("late"), STOP, SMTPProtocolError(-1, b"hm")], ids=repr
)
def test_an_end_without_an_answer_is_unknown(error: BaseException) -> None:
    over, ledger = send(A, B, answers=[OK + NO + OK + GO, error])
    assert over.error is error
    assert deliveries(ledger) == [REFUSED, UNKNOWN]


@pytest.mark.parametrize(("octets", "delivery"), [(QUEUED, ACCEPTED), (NO, REFUSED), (GO, UNKNOWN)])
def test_an_answer_that_came_in_time_is_not_lost_with_the_connection(
    octets: bytes, delivery: Delivery
) -> None:
    over, ledger = send(A, answers=[OK * 2 + GO, Then(octets, STOP)])
    assert over.error is STOP
    assert deliveries(ledger) == [delivery]


# What ends the envelope half-way


ENDS = [Disconnected(), SMTPTimeoutError("late"), STOP, SMTPProtocolError(-1, b"hm")]


@pytest.mark.parametrize("error", ENDS, ids=repr)
@pytest.mark.parametrize("grouped", MODES)
@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ([], [NOT_SENT, NOT_SENT]),
        ([OK], [NOT_SENT, NOT_SENT]),
        ([OK, OK], [NOT_SENT, NOT_SENT]),
        ([OK, NO], [REFUSED, NOT_SENT]),
        ([OK, NO, OK], [REFUSED, NOT_SENT]),
        ([OK, OK, LATER], [NOT_SENT, REFUSED]),
    ],
)
def test_what_was_learnt_before_the_connection_was_lost_stays_learnt(
    before: list[bytes], expected: list[Delivery], grouped: bool, error: BaseException
) -> None:
    over, ledger = send(A, B, grouped=grouped, answers=envelope(*before, grouped=grouped, then=error))
    assert over.error is error
    assert deliveries(ledger) == expected
    assert not over.kept


@pytest.mark.parametrize("error", ENDS, ids=repr)
@pytest.mark.parametrize("octets", [NO, NO + OK, NO + OK + NO])
def test_a_refused_mail_is_not_forgotten_when_the_rest_of_its_group_never_comes(
    octets: bytes, error: BaseException
) -> None:
    over, ledger = send(A, B, answers=[Then(octets, error)])
    assert over.error is error
    assert deliveries(ledger) == [REFUSED, REFUSED]
    assert replies(ledger) == [550, 550]


# All or nothing


def test_all_or_nothing_does_not_pipeline_data_for_a_dot_would_deliver_an_empty_message() -> None:
    over, ledger = send(A, B, answers=[OK * 3, GO, QUEUED], all_or_nothing=True)
    assert over.wrote == [MAIL + rcpt(A, B), DATA, CONTENT]
    assert deliveries(ledger) == [ACCEPTED, ACCEPTED]
    assert over.kept


@pytest.mark.parametrize("grouped", MODES)
def test_one_refused_recipient_refuses_all_and_everybody_was_asked(grouped: bool) -> None:
    over, ledger = send(
        A,
        B,
        C,
        grouped=grouped,
        all_or_nothing=True,
        answers=[*envelope(OK, OK, NO, OK, grouped=grouped), OK],
    )
    assert over.wrote == (
        [MAIL + rcpt(A, B, C), RSET] if grouped else [MAIL, rcpt(A), rcpt(B), rcpt(C), RSET]
    )
    assert isinstance(over.error, SMTPRecipientsRefused)
    assert over.error.recipients == {B: (550, b"5.1.1 no")}
    assert deliveries(ledger) == [NOT_SENT, REFUSED, NOT_SENT]
    assert ledger.delivery is REFUSED
    assert over.kept


@pytest.mark.parametrize("grouped", MODES)
@pytest.mark.parametrize("answer", [NO, BYE, Disconnected()], ids=repr)
def test_all_or_nothing_gives_the_connection_up_without_a_2yz_to_rset(answer: Answer, grouped: bool) -> None:
    over, ledger = send(
        A, B, grouped=grouped, all_or_nothing=True, answers=[*envelope(OK, OK, NO, grouped=grouped), answer]
    )
    assert isinstance(over.error, SMTPRecipientsRefused)
    assert ledger.delivery is REFUSED
    assert not over.kept


def test_all_or_nothing_and_a_421_is_a_421_for_all() -> None:
    over, ledger = send(A, B, answers=[OK + OK + BYE], all_or_nothing=True)
    assert isinstance(over.error, SMTPRecipientsRefused)
    assert replies(ledger) == [421, 421]
    assert over.error.temporary


@pytest.mark.parametrize("grouped", MODES)
def test_all_or_nothing_with_data_refused(grouped: bool) -> None:
    over, ledger = send(
        A, grouped=grouped, all_or_nothing=True, answers=[*envelope(OK, OK, grouped=grouped), NO, OK]
    )
    assert isinstance(over.error, SMTPDataError)
    assert deliveries(ledger) == [REFUSED]
    assert over.kept


# LMTP


def lmtp(*recipients: str, final: Answer) -> tuple[Talk[Reply], Ledger]:
    return send(*recipients, answers=[OK * (1 + len(recipients)) + GO, final], lmtp=True)


def test_in_lmtp_the_first_acceptance_is_the_final_reply() -> None:
    over, ledger = lmtp(A, B, C, final=NO + QUEUED + OK)
    assert over.result == ledger.final == Reply(250, b"2.0.0 queued as 1A2B")
    assert deliveries(ledger) == [REFUSED, ACCEPTED, ACCEPTED]


def test_in_lmtp_nobody_accepted_is_recipients_refused() -> None:
    over, _ = lmtp(A, B, final=NO + LATER)
    assert isinstance(over.error, SMTPRecipientsRefused)
    assert {address: reply.code for address, reply in over.error.recipients.items()} == {A: 550, B: 450}
    assert over.kept


@pytest.mark.parametrize("error", ENDS, ids=repr)
@pytest.mark.parametrize(
    ("octets", "expected"),
    [(b"", [UNKNOWN] * 3), (OK, [ACCEPTED, UNKNOWN, UNKNOWN]), (NO + OK, [REFUSED, ACCEPTED, UNKNOWN])],
)
def test_in_lmtp_those_whose_reply_never_came_are_unknown(
    octets: bytes, expected: list[Delivery], error: BaseException
) -> None:
    over, ledger = lmtp(A, B, C, final=Then(octets, error))
    assert over.error is error
    assert deliveries(ledger) == expected
    assert not over.kept


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (BYE, [REFUSED, UNKNOWN, UNKNOWN]),
        (OK + BYE, [ACCEPTED, REFUSED, UNKNOWN]),
    ],
)
def test_in_lmtp_a_421_half_way_says_nothing_about_those_behind_it(
    octets: bytes, expected: list[Delivery]
) -> None:
    over, ledger = lmtp(A, B, C, final=octets)
    assert isinstance(over.error, SMTPServerDisconnected)
    assert over.error.last_reply is not None
    assert over.error.last_reply.code == 421
    assert deliveries(ledger) == expected


def test_in_lmtp_a_421_for_the_last_recipient_is_a_refusal_like_any_other() -> None:
    over, ledger = lmtp(A, B, final=OK + BYE)
    assert over.result == Reply(250, b"ok")
    assert replies(ledger) == [250, 421]
    assert not over.kept


def test_in_lmtp_a_3yz_among_the_replies_ends_the_connection_but_not_what_is_known() -> None:
    over, ledger = lmtp(A, B, C, final=OK + GO + NO)
    assert over.gave_up
    assert isinstance(over.error, SMTPProtocolError)
    assert deliveries(ledger) == [ACCEPTED, UNKNOWN, REFUSED]


# The content behind an envelope by hand


def by_hand(*recipients: str, answers: Iterable[Answer], lmtp: bool = False) -> tuple[Talk[Reply], Ledger]:
    ledger, session = Ledger(recipients), ready()
    session.phase = Phase.MAIL
    dialogue = transactions.content(prepared(A), ledger, lmtp=lmtp)
    return talk(dialogue, *answers, session=session), ledger


def test_content_by_hand_returns_what_was_said_to_it() -> None:
    over, ledger = by_hand(A, B, answers=[GO, QUEUED])
    assert over.wrote == [DATA, CONTENT]
    assert over.result == Reply(250, b"2.0.0 queued as 1A2B")
    assert deliveries(ledger) == [ACCEPTED, ACCEPTED]
    assert over.kept


@pytest.mark.parametrize("answer", [NO, LATER, BYE])
def test_a_refused_content_by_hand_is_returned_as_in_smtplib(answer: bytes) -> None:
    over, ledger = by_hand(A, answers=[GO, answer])
    assert over.result == Reply(int(answer[:3]), answer[4:-2])
    assert deliveries(ledger) == [REFUSED]
    assert over.kept is (answer != BYE)


@pytest.mark.parametrize("answer", [NO, LATER])
def test_a_refused_data_by_hand_leaves_the_envelope_open(answer: bytes) -> None:
    over, ledger = by_hand(A, answers=[answer])
    assert isinstance(over.error, SMTPDataError)
    assert (over.error.smtp_code, over.error.command) == (int(answer[:3]), "DATA")
    assert deliveries(ledger) == [REFUSED]
    assert over.session.phase is Phase.MAIL
    assert over.session.in_step


def test_a_421_to_data_by_hand_is_a_refused_data_and_no_lost_connection() -> None:
    over, ledger = by_hand(A, answers=[BYE])
    assert type(over.error) is SMTPDataError
    assert replies(ledger) == [421]
    assert over.session.phase is Phase.CLOSING


def test_the_content_by_hand_never_follows_a_2yz_either() -> None:
    over, ledger = by_hand(A, answers=[OK])
    assert over.wrote == [DATA]
    assert over.gave_up
    assert isinstance(over.error, SMTPProtocolError)
    assert deliveries(ledger) == [NOT_SENT]


@pytest.mark.parametrize(
    ("octets", "code"), [(OK + QUEUED, 250), (OK + NO, 550), (LATER + OK, 450), (NO + LATER, 550)]
)
def test_half_a_success_in_lmtp_by_hand_does_not_look_like_a_whole(octets: bytes, code: int) -> None:
    over, _ = by_hand(A, B, answers=[GO, octets], lmtp=True)
    assert over.result is not None
    assert over.result.code == code


def test_recipients_that_nobody_counted_are_no_reason_to_leave_the_server_waiting_for_content() -> None:
    # In LMTP they say how many replies there will be. In SMTP there is one.
    over, _ = by_hand(answers=[GO], lmtp=True)
    assert over.gave_up
    assert isinstance(over.error, SMTPProtocolError)
    over, _ = by_hand(answers=[GO, QUEUED])
    assert over.result == Reply(250, b"2.0.0 queued as 1A2B")


def test_the_content_is_handed_over_as_it_is_for_whoever_streams_it() -> None:
    source = [b"a stream"]
    dialogue = transactions.deliver(transaction(A, body=source))
    group = next(dialogue)
    group.received += [Reply(250, b""), Reply(250, b""), Reply(354, b"")]
    step: Step = dialogue.send(group.received)
    assert isinstance(step.content, Stream)
    assert step.content.source is source
    assert (step.data, step.during, step.verb) == (b"", Phase.CONTENT, "end of content")
    dialogue.close()
