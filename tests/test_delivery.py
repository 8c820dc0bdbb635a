"""The account of a message: each recipient is in it once, and no reply can be lost or counted twice."""

from __future__ import annotations

import itertools

import pytest

from aiosmtpclient.delivery import Ledger, Outcome, SendResult
from aiosmtpclient.errors import Delivery, RecipientOutcome, SMTPRecipientsRefused
from aiosmtpclient.message import Envelope
from aiosmtpclient.replies import Reply

ACCEPTED, REFUSED, NOT_SENT, UNKNOWN = (
    Delivery.ACCEPTED,
    Delivery.REFUSED,
    Delivery.NOT_SENT,
    Delivery.UNKNOWN,
)
OK = Reply(250, b"2.0.0 queued as 1A2B")
GONE = Reply(550, b"5.1.1 no such user")
FULL = Reply(452, b"4.2.2 full")
A, B, C = "a@d.test", "b@d.test", "c@d.test"
ENVELOPE = Envelope("me@d.test", [A, B], b"Hello.\r\n")


def deliveries(ledger: Ledger) -> list[Delivery]:
    return [outcome.delivery for outcome in ledger.outcomes]


# The ledger


def test_at_first_nothing_was_sent_to_anybody() -> None:
    ledger = Ledger(address for address in (A, B))
    assert ledger.outcomes == (RecipientOutcome(A, NOT_SENT, None), RecipientOutcome(B, NOT_SENT, None))
    assert (ledger.addresses, ledger.open, ledger.final) == ((A, B), [0, 1], None)
    assert (ledger.delivery, ledger.refused, ledger.accepted) == (NOT_SENT, {}, ())


@pytest.mark.parametrize(("reply", "delivery"), [(OK, ACCEPTED), (GONE, REFUSED), (FULL, REFUSED)])
def test_a_reply_decides_about_one_recipient(reply: Reply, delivery: Delivery) -> None:
    ledger = Ledger([A, B])
    ledger.decide(1, reply)
    assert ledger.outcomes == (RecipientOutcome(A, NOT_SENT, None), RecipientOutcome(B, delivery, reply))
    assert ledger.open == [0]


def test_a_reply_to_everybody_leaves_those_alone_about_whom_was_decided() -> None:
    ledger = Ledger([A, B, C])
    ledger.decide(1, GONE)
    ledger.decide_open(OK)
    assert deliveries(ledger) == [ACCEPTED, REFUSED, ACCEPTED]
    assert [outcome.reply for outcome in ledger.outcomes] == [OK, GONE, OK]
    assert ledger.open == []


def test_once_the_end_left_only_a_reply_makes_the_unknown_known() -> None:
    ledger = Ledger([A, B, C])
    ledger.decide(0, GONE)
    ledger.end_left()
    assert deliveries(ledger) == [REFUSED, UNKNOWN, UNKNOWN]
    assert ledger.open == [1, 2]
    ledger.decide(1, OK)
    assert deliveries(ledger) == [REFUSED, ACCEPTED, UNKNOWN]


def test_an_address_asked_for_twice_has_two_entries() -> None:
    ledger = Ledger([A, A, B])
    ledger.decide(0, OK)
    ledger.decide(1, GONE)
    ledger.decide(2, OK)
    assert deliveries(ledger) == [ACCEPTED, REFUSED, ACCEPTED]
    assert ledger.accepted == (A, B)
    assert ledger.refused == {A: GONE}


def test_starting_over_forgets_everything() -> None:
    ledger = Ledger([A, B])
    ledger.decide(0, OK)
    ledger.final, ledger.as_a_whole = OK, REFUSED
    ledger.end_left()
    ledger.begin(iter([C]))
    assert ledger.outcomes == (RecipientOutcome(C, NOT_SENT, None),)
    assert (ledger.open, ledger.final, ledger.delivery) == ([0], None, NOT_SENT)


ORDER = (UNKNOWN, ACCEPTED, NOT_SENT, REFUSED)


# Before the end of the content has left nobody is unknown, and afterwards nobody is not sent.
PAIRS = [
    pair
    for pair in itertools.combinations_with_replacement(ORDER, 2)
    if not {UNKNOWN, NOT_SENT}.issubset(pair)
]


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("turned", [False, True])
def test_the_word_for_all_is_the_one_that_most_forbids_sending_again(
    pair: tuple[Delivery, Delivery], turned: bool
) -> None:
    ledger = Ledger([A, B])
    if UNKNOWN in pair:
        ledger.end_left()
    for position, delivery in enumerate(reversed(pair) if turned else pair):
        if delivery in (ACCEPTED, REFUSED):
            ledger.decide(position, OK if delivery is ACCEPTED else GONE)
    assert ledger.delivery is pair[0]


def test_the_word_for_nobody_is_not_sent() -> None:
    assert Ledger([]).delivery is NOT_SENT


def test_all_or_nothing_is_one_word_whatever_each_recipient_heard() -> None:
    ledger = Ledger([A, B])
    ledger.decide(0, GONE)
    ledger.as_a_whole = REFUSED
    assert ledger.delivery is REFUSED
    assert deliveries(ledger) == [REFUSED, NOT_SENT]


@pytest.mark.parametrize(("reply", "delivery"), [(OK, ACCEPTED), (GONE, REFUSED)])
def test_a_message_whose_recipients_nobody_named_here_still_has_its_word(
    reply: Reply, delivery: Delivery
) -> None:
    ledger = Ledger([])
    ledger.end_left()
    assert ledger.delivery is UNKNOWN
    ledger.decide_open(reply)
    assert ledger.delivery is delivery
    assert ledger.outcomes == ()


# Stamped on what passes through a send


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SMTPRecipientsRefused])
def test_whatever_ends_a_send_says_what_is_known(kind: type[BaseException]) -> None:
    ledger = Ledger([A, B])
    ledger.end_left()
    ledger.decide(0, GONE)
    error = kind({})
    ledger.stamp(error)
    assert error.delivery is UNKNOWN  # type: ignore[attr-defined]
    assert error.outcomes == ledger.outcomes  # type: ignore[attr-defined]


def test_an_error_that_takes_no_attributes_is_not_replaced_by_an_attribute_error() -> None:
    class Closed(Exception):
        __slots__ = ()

        def __setattr__(self, name: str, value: object) -> None:
            raise AttributeError(name)

    error = Closed()
    Ledger([A]).stamp(error)
    assert not hasattr(error, "delivery")


# The result of one send


def result_of(*replies: Reply) -> SendResult:
    ledger = Ledger(ENVELOPE.recipients)
    for position, reply in enumerate(replies):
        ledger.decide(position, reply)
    ledger.final = OK
    return SendResult(ledger, ENVELOPE)


def test_a_result_is_empty_when_everybody_was_accepted_as_in_smtplib() -> None:
    result = result_of(OK, OK)
    assert result == {}
    assert not result
    assert result.accepted == (A, B)


def test_a_result_has_the_refused_as_smtplib_gives_them_and_the_rest_besides() -> None:
    result = result_of(OK, GONE)
    assert result == {B: (550, b"5.1.1 no such user")}
    assert (result.accepted, result.reply, result.envelope) == ((A,), OK, ENVELOPE)
    assert result.outcomes == (RecipientOutcome(A, ACCEPTED, OK), RecipientOutcome(B, REFUSED, GONE))


def test_the_repr_of_a_result_has_the_queue_id() -> None:
    assert repr(result_of(OK, GONE)) == (
        "<SendResult accepted=['a@d.test'] "
        "refused={'b@d.test': Reply(code=550, message=b'5.1.1 no such user')} "
        "reply='250 2.0.0 queued as 1A2B'>"
    )


def test_there_is_no_result_without_a_final_reply() -> None:
    with pytest.raises(AssertionError):
        SendResult(Ledger([A]), ENVELOPE)


# The outcome of one message of many


def test_an_outcome_has_the_account_of_its_result() -> None:
    result = result_of(OK, GONE)
    outcome = Outcome(3, ENVELOPE, ACCEPTED, result=result)
    assert outcome.outcomes == result.outcomes
    assert (outcome.index, outcome.message, outcome.attempts, outcome.connection) == (3, ENVELOPE, 1, None)


def test_outcomes_of_failures_can_be_kept_in_a_set() -> None:
    error = ValueError("no")
    assert len({Outcome(0, b"x", NOT_SENT, error=error), Outcome(0, b"x", NOT_SENT, error=error)}) == 1


def test_an_outcome_has_the_account_of_its_error() -> None:
    ledger = Ledger([A])
    ledger.decide(0, GONE)
    error = SMTPRecipientsRefused(ledger.refused)
    ledger.stamp(error)
    assert Outcome(0, ENVELOPE, REFUSED, error=error).outcomes == ledger.outcomes


@pytest.mark.parametrize(
    ("error", "temporary", "permanent"),
    [
        (None, False, False),
        (ValueError(), False, False),
        (SMTPRecipientsRefused({A: GONE}), False, True),
        (SMTPRecipientsRefused({A: FULL}), True, False),
    ],
)
def test_an_outcome_says_whether_another_attempt_may_help(
    error: Exception | None, temporary: bool, permanent: bool
) -> None:
    outcome = Outcome(0, ENVELOPE, REFUSED, error=error)
    assert (outcome.temporary, outcome.permanent) == (temporary, permanent)


@pytest.mark.parametrize("error", [None, ValueError()])
def test_an_outcome_without_an_account_is_empty_instead_of_an_error(error: Exception | None) -> None:
    assert Outcome(0, ENVELOPE, NOT_SENT, error=error).outcomes == ()
