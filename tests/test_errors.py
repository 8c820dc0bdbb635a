"""The error tree: who catches whom, what an error remembers, and what it says."""

from __future__ import annotations

import copy
import inspect
import pickle
import smtplib
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiosmtpclient import errors
from aiosmtpclient.errors import (
    Delivery,
    RecipientOutcome,
    SMTPAuthenticationError,
    SMTPConnectError,
    SMTPConnectionRefusedError,
    SMTPDataError,
    SMTPException,
    SMTPHeloError,
    SMTPNotSupportedError,
    SMTPPoolError,
    SMTPProtocolError,
    SMTPRecipientsRefused,
    SMTPResponseException,
    SMTPSenderRefused,
    SMTPServerDisconnected,
    SMTPTimeoutError,
    SMTPTLSError,
)
from aiosmtpclient.replies import Reply

LATER = Reply(451, b"4.3.0 come back later")
NEVER = Reply(550, b"5.1.1 nobody of that name")
BYE = Reply(421, b"4.3.2 closing down")

# One of each class, with every field that it knows of.
SAMPLES = [
    SMTPException("something broke"),
    SMTPServerDisconnected("the connection was lost", last_reply=BYE),
    SMTPTimeoutError("no answer within 60 s", phase="end of content"),
    SMTPTLSError("the server does not offer STARTTLS"),
    SMTPNotSupportedError("the server does not offer SMTPUTF8"),
    SMTPRecipientsRefused({"a@example.org": NEVER, "b@example.org": LATER}),
    SMTPPoolError("the pool is closed", closed=True),
    SMTPResponseException(*NEVER, reply=NEVER, command="VRFY"),
    SMTPProtocolError(-1, b"not a reply line", command="RCPT"),
    SMTPConnectError(*BYE, reply=BYE),
    SMTPConnectionRefusedError(-1, b"nothing listens there"),
    SMTPHeloError(*LATER, reply=LATER, command="EHLO"),
    SMTPAuthenticationError(535, b"5.7.8 no", reply=Reply(535, b"5.7.8 no"), command="PLAIN"),
    SMTPSenderRefused(*NEVER, "me@example.com", reply=NEVER),
    SMTPDataError(*LATER, reply=LATER, command="end of content"),
]
OURS = {type(error).__name__: type(error) for error in SAMPLES}

RESPONSES = {
    "SMTPResponseException",
    "SMTPProtocolError",
    "SMTPConnectError",
    "SMTPConnectionRefusedError",
    "SMTPHeloError",
    "SMTPAuthenticationError",
    "SMTPSenderRefused",
    "SMTPDataError",
}
CONNECT = {"SMTPConnectError", "SMTPConnectionRefusedError"}

# What an `except` clause with the class on the left catches of ours: these, and no others.
CATCHES: list[tuple[type[BaseException], set[str]]] = [
    (smtplib.SMTPException, set(OURS)),
    (smtplib.SMTPServerDisconnected, {"SMTPServerDisconnected"}),
    (smtplib.SMTPNotSupportedError, {"SMTPNotSupportedError"}),
    (smtplib.SMTPRecipientsRefused, {"SMTPRecipientsRefused"}),
    (smtplib.SMTPResponseException, RESPONSES),
    (smtplib.SMTPConnectError, CONNECT),
    (smtplib.SMTPHeloError, {"SMTPHeloError"}),
    (smtplib.SMTPAuthenticationError, {"SMTPAuthenticationError"}),
    (smtplib.SMTPSenderRefused, {"SMTPSenderRefused"}),
    (smtplib.SMTPDataError, {"SMTPDataError"}),
    (SMTPException, set(OURS)),
    (SMTPResponseException, RESPONSES),
    (SMTPConnectError, CONNECT),
    (OSError, set(OURS)),
    (ConnectionError, {"SMTPServerDisconnected", "SMTPConnectionRefusedError"}),
    (ConnectionRefusedError, {"SMTPConnectionRefusedError"}),
    (TimeoutError, {"SMTPTimeoutError"}),
    (ssl.SSLError, {"SMTPTLSError"}),
    (ValueError, set()),
]

CLAUSES = [f"{clause.__module__}.{clause.__name__}" for clause, _ in CATCHES]

# Built with positional arguments as smtplib builds its own.
POSITIONAL: list[tuple[str, tuple[object, ...]]] = [
    ("SMTPException", ()),
    ("SMTPException", ("one",)),
    ("SMTPServerDisconnected", ("Server not connected",)),
    ("SMTPNotSupportedError", ("SMTP AUTH extension not supported by server.",)),
    ("SMTPRecipientsRefused", ({"a@example.org": NEVER},)),
    ("SMTPResponseException", (550, b"no")),
    ("SMTPConnectError", (554, b"no service here")),
    ("SMTPHeloError", (502, b"what?")),
    ("SMTPAuthenticationError", (535, b"no")),
    ("SMTPSenderRefused", (550, b"no", "me@example.com")),
    ("SMTPDataError", (554, b"no")),
]


def name_of(value: object) -> str:
    return type(value).__name__ if isinstance(value, BaseException) else getattr(value, "__name__", "")


each_sample = pytest.mark.parametrize("error", SAMPLES, ids=name_of)


def remade(cls: type[SMTPException], *args: object, **fields: object) -> SMTPException:
    """Any class of the tree, built the way its own signature does not let mypy see."""
    return cls(*args, **fields)


# The tree


def test_the_samples_are_the_whole_tree() -> None:
    defined = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, Exception) and value.__module__ == errors.__name__
    }
    assert defined == set(OURS)


def test_every_class_of_smtplib_has_its_namesake_here() -> None:
    theirs = {
        name
        for name, value in vars(smtplib).items()
        if inspect.isclass(value) and issubclass(value, smtplib.SMTPException)
    }
    assert theirs <= set(OURS)


@each_sample
def test_an_except_clause_written_for_smtplib_keeps_catching(error: SMTPException) -> None:
    namesake = getattr(smtplib, type(error).__name__, smtplib.SMTPException)
    with pytest.raises(namesake) as caught:
        raise error
    assert caught.value is error


@pytest.mark.parametrize(
    ("clause", "caught"), CATCHES, ids=[f"{c.__module__}.{c.__name__}" for c, _ in CATCHES]
)
def test_a_clause_catches_these_of_our_classes_and_no_others(
    clause: type[BaseException], caught: set[str]
) -> None:
    assert {name for name, cls in OURS.items() if issubclass(cls, clause)} == caught


def test_the_table_of_clauses_names_every_class_of_smtplib() -> None:
    theirs = {value for value in vars(smtplib).values() if inspect.isclass(value)}
    errors_of_smtplib = {value for value in theirs if issubclass(value, smtplib.SMTPException)}
    assert errors_of_smtplib <= {clause for clause, _ in CATCHES}


# Side by side with smtplib


@pytest.mark.parametrize(("name", "args"), POSITIONAL)
def test_an_error_looks_like_the_one_that_smtplib_raises(name: str, args: tuple[object, ...]) -> None:
    theirs = getattr(smtplib, name)(*args)
    ours = remade(OURS[name], *args)
    assert ours.args == theirs.args
    assert repr(ours) == repr(theirs)
    assert (ours.errno, ours.strerror, ours.filename) == (theirs.errno, theirs.strerror, theirs.filename)
    # smtp_code, smtp_error, sender, recipients: what smtplib sets, we set to the same.
    assert vars(theirs).items() <= vars(ours).items()


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("SMTPRecipientsRefused", {"recipients": {"a@example.org": NEVER}}),
        ("SMTPDataError", {"code": 554, "msg": b"no"}),
        ("SMTPSenderRefused", {"code": 550, "msg": b"no", "sender": "me@example.com"}),
    ],
)
def test_the_parameters_have_the_names_that_smtplib_gave_them(name: str, fields: dict[str, object]) -> None:
    theirs = getattr(smtplib, name)(**fields)
    ours = remade(OURS[name], **fields)
    assert ours.args == theirs.args
    assert vars(theirs).items() <= vars(ours).items()


def test_our_own_fields_have_their_defaults_when_built_as_smtplib_builds() -> None:
    refused = SMTPSenderRefused(550, b"no", "me@example.com")
    assert (refused.reply, refused.command) == (None, "MAIL")
    other = SMTPDataError(554, b"no")
    assert (other.reply, other.command) == (None, "")
    assert SMTPServerDisconnected("gone").last_reply is None
    assert SMTPTimeoutError("late").phase == ""


def test_our_own_fields_are_kept() -> None:
    error = SMTPResponseException(*NEVER, reply=NEVER, command="VRFY")
    assert (error.smtp_code, error.smtp_error) == NEVER
    assert (error.reply, error.command) == (NEVER, "VRFY")
    assert SMTPServerDisconnected("gone", last_reply=BYE).last_reply == BYE
    assert SMTPTimeoutError("late", phase="greeting").phase == "greeting"


# What is known about the delivery


@each_sample
def test_nothing_was_delivered_unless_somebody_knows_better(error: SMTPException) -> None:
    refusals = SMTPRecipientsRefused | SMTPSenderRefused | SMTPDataError
    assert error.delivery is (Delivery.REFUSED if isinstance(error, refusals) else Delivery.NOT_SENT)
    assert error.outcomes == ()


def test_what_is_known_of_one_error_is_not_said_of_the_next() -> None:
    error = SMTPServerDisconnected("gone")
    error.delivery = Delivery.UNKNOWN
    error.outcomes = (RecipientOutcome("a@example.org", Delivery.UNKNOWN, None),)
    assert SMTPServerDisconnected("gone").delivery is Delivery.NOT_SENT
    assert SMTPServerDisconnected("gone").outcomes == ()


def test_a_delivery_prints_as_a_word() -> None:
    assert [str(delivery) for delivery in Delivery] == ["accepted", "refused", "not sent", "unknown"]


def test_a_recipient_outcome_unpacks_into_address_delivery_and_reply() -> None:
    address, delivery, reply = RecipientOutcome("a@example.org", Delivery.REFUSED, NEVER)
    assert (address, delivery, reply) == ("a@example.org", Delivery.REFUSED, NEVER)


# Temporary or permanent


@pytest.mark.parametrize(
    ("error", "temporary", "permanent"),
    [
        (SMTPException("x"), False, False),
        (SMTPServerDisconnected("x"), True, False),
        (SMTPTimeoutError("x"), True, False),
        (SMTPTLSError("x"), False, False),
        (SMTPNotSupportedError("x"), False, True),
        (SMTPPoolError("x"), True, False),
        (SMTPPoolError("x", closed=True), False, True),
        (SMTPRecipientsRefused({"a": NEVER}), False, True),
        (SMTPRecipientsRefused({"a": LATER}), True, False),
        (SMTPRecipientsRefused({"a": NEVER, "b": LATER}), True, False),
        (SMTPRecipientsRefused({}), False, False),
        (SMTPConnectError(-1, b"unreachable"), True, False),
        (SMTPConnectError(421, b"busy"), True, False),
        (SMTPConnectError(554, b"no"), False, True),
        (SMTPConnectionRefusedError(-1, b"refused"), True, False),
        (SMTPSenderRefused(*LATER, "a"), True, False),
        (SMTPSenderRefused(*NEVER, "a"), False, True),
    ],
)
def test_an_error_says_whether_to_try_again(error: SMTPException, temporary: bool, permanent: bool) -> None:
    assert (error.temporary, error.permanent) == (temporary, permanent)


@pytest.mark.parametrize(
    "cls", [SMTPResponseException, SMTPProtocolError, SMTPHeloError, SMTPAuthenticationError, SMTPDataError]
)
@pytest.mark.parametrize(
    ("code", "temporary", "permanent"),
    [
        (-1, False, False),
        (250, False, False),
        (354, False, False),
        (399, False, False),
        (400, True, False),
        (499, True, False),
        (500, False, True),
        (599, False, True),
    ],
)
def test_the_first_digit_of_the_reply_says_whether_to_try_again(
    cls: type[SMTPResponseException], code: int, temporary: bool, permanent: bool
) -> None:
    error = cls(code, b"")
    assert (error.temporary, error.permanent) == (temporary, permanent)


# The text


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (SMTPException(), ""),
        (SMTPException("something broke"), "something broke"),
        (SMTPException("something", "broke", 3), "something broke 3"),
        (SMTPServerDisconnected("the connection was lost"), "the connection was lost"),
        (
            SMTPServerDisconnected("the connection was lost", last_reply=BYE),
            "the connection was lost; the server last said: 421 4.3.2 closing down",
        ),
        (SMTPTimeoutError("no answer within 60 s", phase="MAIL"), "no answer within 60 s"),
        (SMTPTLSError("no STARTTLS"), "no STARTTLS"),
        (SMTPTLSError(1, "no STARTTLS"), "1 no STARTTLS"),
        (SMTPNotSupportedError("no SMTPUTF8"), "no SMTPUTF8"),
        (SMTPPoolError("the pool is closed"), "the pool is closed"),
        (
            SMTPRecipientsRefused({"a@x": NEVER, "b@x": LATER}),
            "all recipients were refused: a@x: 550 5.1.1 nobody of that name; b@x: 451 4.3.0 come back later",
        ),
        (SMTPResponseException(550, b"no"), "the server refused: 550 no"),
        (SMTPResponseException(550, b""), "the server refused: 550"),
        (
            SMTPResponseException(*NEVER, command="VRFY"),
            "the server refused VRFY: 550 5.1.1 nobody of that name",
        ),
        (SMTPResponseException(-1, b"nothing came"), "the server refused: nothing came"),
        (
            SMTPProtocolError(-1, b"not a reply line", command="RCPT"),
            "the server broke the protocol (in answer to RCPT): not a reply line",
        ),
        (SMTPProtocolError(250, b"ok"), "the server broke the protocol: 250 ok"),
        (SMTPConnectError(*BYE, reply=BYE), "cannot connect: 421 4.3.2 closing down"),
        (SMTPConnectionRefusedError(-1, b"nothing listens there"), "cannot connect: nothing listens there"),
        (SMTPHeloError(502, b"what?", command="EHLO"), "the server refused EHLO: 502 what?"),
        (SMTPAuthenticationError(535, b"no"), "the server refused the credentials: 535 no"),
        (
            SMTPAuthenticationError(535, b"no", command="PLAIN"),
            "the server refused the credentials (PLAIN): 535 no",
        ),
        (SMTPSenderRefused(550, b"no", "me@x"), "the server refused MAIL FROM:<me@x>: 550 no"),
        (SMTPSenderRefused(550, b"no", ""), "the server refused MAIL FROM:<>: 550 no"),
        (
            SMTPDataError(554, b"one\ntwo", reply=Reply(554, b"one\ntwo"), command="end of content"),
            "the server refused the content: 554 one / two",
        ),
    ],
)
def test_the_text_starts_with_what_failed_and_ends_with_what_the_server_said(
    error: SMTPException, text: str
) -> None:
    assert str(error) == text


HOST = "mail.test:25"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (SMTPException("it broke"), f"{HOST}: it broke"),
        (SMTPException("it", "broke"), f"{HOST}: it broke"),
        (SMTPException(f"TLS with {HOST} broke"), f"TLS with {HOST} broke"),
        (SMTPException(3), f"{HOST}: 3"),
        (
            SMTPServerDisconnected("gone", last_reply=BYE),
            f"{HOST}: gone; the server last said: 421 4.3.2 closing down",
        ),
        (SMTPPoolError("it is closed"), f"{HOST}: it is closed"),
        (
            SMTPRecipientsRefused({"a@x": NEVER}),
            f"all recipients were refused by {HOST}: a@x: {NEVER.display}",
        ),
        (SMTPResponseException(550, b"no", command="VRFY"), f"{HOST} refused VRFY: 550 no"),
        (
            SMTPProtocolError(250, b"ok", command="DATA"),
            f"{HOST} broke the protocol (in answer to DATA): 250 ok",
        ),
        (SMTPConnectError(*BYE, reply=BYE), f"cannot connect to {HOST}: 421 4.3.2 closing down"),
        (SMTPConnectError(-1, b"is not to be had"), f"cannot connect to {HOST}: is not to be had"),
        (SMTPAuthenticationError(535, b"no"), f"{HOST} refused the credentials: 535 no"),
        (SMTPSenderRefused(550, b"no", "me@x"), f"{HOST} refused MAIL FROM:<me@x>: 550 no"),
        (SMTPDataError(554, b"no", command="DATA"), f"{HOST} refused DATA: 554 no"),
    ],
)
def test_the_text_names_the_server_once_where_it_is_known(error: SMTPException, text: str) -> None:
    known = copy.copy(error)
    known.host = HOST
    assert str(known) == text


def test_what_was_said_about_a_token_stands_behind_the_mechanism() -> None:
    error = SMTPAuthenticationError(535, b"no", command="XOAUTH2")
    error.oauth = {"status": "401", "scope": "mail"}
    assert str(error) == "the server refused the credentials (XOAUTH2; status: 401, scope: mail): 535 no"
    error.command = ""
    assert str(error) == "the server refused the credentials (status: 401, scope: mail): 535 no"


@pytest.mark.parametrize(
    ("code", "told"), [(250, False), (399, False), (400, True), (401, True), (599, True)]
)
def test_the_last_reply_is_shown_if_it_may_be_the_reason(code: int, told: bool) -> None:
    error = SMTPServerDisconnected("gone", last_reply=Reply(code, b"x"))
    assert str(error) == (f"gone; the server last said: {code} x" if told else "gone")


@pytest.mark.parametrize(("code", "shown"), [(-1, "x"), (0, "0 x"), (1, "1 x")])
def test_a_code_that_is_none_is_not_shown(code: int, shown: str) -> None:
    assert str(SMTPResponseException(code, b"x")) == f"the server refused: {shown}"


def test_a_pool_error_that_says_nothing_is_not_for_ever() -> None:
    error = SMTPPoolError()
    assert str(error) == ""
    assert (error.closed, error.temporary, error.permanent) == (False, True, False)


@pytest.mark.parametrize(
    ("error", "delivery", "advice"),
    [
        (
            SMTPDataError(*LATER),
            Delivery.UNKNOWN,
            "delivery unknown: it may have been delivered; sent again, it may arrive twice",
        ),
        (
            SMTPDataError(*LATER),
            Delivery.ACCEPTED,
            "accepted for some: send it again only to the others, see .outcomes",
        ),
        (SMTPDataError(*LATER), Delivery.REFUSED, "refused for now: send it again later"),
        (
            SMTPDataError(*NEVER),
            Delivery.REFUSED,
            "refused for good: sent again as it is, it will be again",
        ),
        (SMTPDataError(*NEVER), Delivery.NOT_SENT, "not sent: it would fail again as it is"),
        (SMTPDataError(*LATER), Delivery.NOT_SENT, "not sent: to send it again is safe"),
    ],
)
def test_the_advice_follows_from_what_is_known(error: SMTPException, delivery: Delivery, advice: str) -> None:
    known = copy.copy(error)
    known.delivery = delivery
    assert known.advice == advice


# Clear screen, a C1 control sequence, a bidi override, a forged log line, an octet that is no UTF-8.
HOSTILE = b"\x1b[2J \xc2\x9b31m \xe2\x80\xae \r\nERROR forged \xff\x00"


def spoken(message: bytes) -> list[SMTPException]:
    """Each class that repeats what a server said, repeating this."""
    reply = Reply(554, message)
    with_reply = [remade(cls, *reply, reply=reply) for cls in OURS.values() if is_plain_response(cls)]
    without = [remade(cls, *reply) for cls in OURS.values() if is_plain_response(cls)]
    return [
        *with_reply,
        *without,
        SMTPSenderRefused(*reply, "me@example.com", reply=reply),
        SMTPSenderRefused(*reply, "me@example.com"),
        SMTPResponseException(-1, message),
        SMTPRecipientsRefused({"a@example.org": reply}),
        SMTPServerDisconnected("gone", last_reply=reply),
    ]


def is_plain_response(cls: type[SMTPException]) -> bool:
    return issubclass(cls, SMTPResponseException) and cls is not SMTPSenderRefused


def test_escape_sequences_of_the_server_never_reach_the_terminal() -> None:
    for error in spoken(HOSTILE):
        assert str(error).isprintable(), repr(error)
        assert str(error).endswith(r"\x1b[2J \x9b31m \u202e \r / ERROR forged \xff\x00"), repr(error)


@given(st.binary())
def test_whatever_the_server_says_the_text_is_one_printable_line(message: bytes) -> None:
    for error in spoken(message):
        assert str(error).isprintable()


@given(st.binary())
def test_the_text_is_the_same_with_and_without_the_whole_reply(message: bytes) -> None:
    with_reply = SMTPDataError(554, message, reply=Reply(554, message))
    assert str(SMTPDataError(554, message)) == str(with_reply)


# Copies


def told(error: SMTPException) -> SMTPException:
    """A copy of the error that also knows what became of the message."""
    known = copy.copy(error)
    known.delivery = Delivery.UNKNOWN
    known.outcomes = (
        RecipientOutcome("a@example.org", Delivery.UNKNOWN, None),
        RecipientOutcome("b@example.org", Delivery.REFUSED, NEVER),
    )
    return known


def assert_same(one: SMTPException, other: SMTPException) -> None:
    assert one is not other
    assert type(one) is type(other)
    assert one.args == other.args
    assert vars(one) == vars(other)
    assert (one.delivery, one.outcomes) == (other.delivery, other.outcomes)
    assert str(one) == str(other)


@each_sample
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_error_crosses_to_another_process_with_all_it_knows(error: SMTPException, protocol: int) -> None:
    assert_same(pickle.loads(pickle.dumps(error, protocol)), error)
    known = told(error)
    assert_same(pickle.loads(pickle.dumps(known, protocol)), known)


@each_sample
@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy], ids=["copy", "deepcopy"])
def test_a_copy_knows_what_the_error_knows(error: SMTPException, copied: type) -> None:
    known = told(error)
    assert_same(copied(known), known)


def test_what_is_learnt_by_a_copy_is_not_told_to_the_original() -> None:
    error = SMTPServerDisconnected("gone")
    told(error)
    assert (error.delivery, error.outcomes) == (Delivery.NOT_SENT, ())


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_replies_are_still_replies_after_pickling(protocol: int) -> None:
    response = pickle.loads(pickle.dumps(SMTPDataError(*LATER, reply=LATER), protocol))
    refused = pickle.loads(pickle.dumps(told(SMTPRecipientsRefused({"a": NEVER})), protocol))
    assert response.reply.temporary
    assert refused.recipients["a"].enhanced_code == (5, 1, 1)
    assert refused.outcomes[1].reply.permanent
    assert refused.outcomes[0].delivery is Delivery.UNKNOWN
