"""Each typed option as it goes over the wire, and what becomes of it where it is not offered."""

from __future__ import annotations

import asyncio
import pickle
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from email.message import EmailMessage
from typing import Any

import pytest
from wire import BODY, SENDER, TO, TOO, caught, deliveries

from aiosmtpclient import (
    LMTP,
    SMTP,
    AsyncLMTP,
    AsyncSMTP,
    DeliverBy,
    Delivery,
    Envelope,
    Recipient,
    SMTPNotSupportedError,
    SMTPPool,
    SMTPSenderRefused,
    send,
)
from aiosmtpclient.extensions import Extensions
from aiosmtpclient.parameters import Parameters
from aiosmtpclient.parameters import of as parameters_of
from aiosmtpclient.recipients import events, rcpt
from aiosmtpclient.testing import CertificateAuthority, MailServer

OFFERS = (
    "AUTH PLAIN",
    "DELIVERBY 60",
    "FUTURERELEASE 86400 2030-01-01T00:00:00Z",
    "MT-PRIORITY MIXER",
    "REQUIRETLS",
    "RRVS",
)
SINCE = datetime(2024, 5, 1, 12, 30, tzinfo=UTC)


async def said(*recipients: str, content: Any = BODY, extensions: Any = OFFERS, **options: Any) -> list[str]:
    """MAIL and each RCPT, as the server read them."""
    async with MailServer(extensions=extensions) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            result = await smtp.sendmail(SENDER, recipients or (TO,), content, **options)
            assert result == {}
    return [line for line in server.commands if line.startswith(("MAIL", "RCPT"))]


async def parameters(**options: Any) -> str:
    """What MAIL says besides the address and SIZE."""
    mail = (await said(**options))[0]
    return re.sub(r" ?SIZE=\d+", "", mail.removeprefix(f"MAIL FROM:<{SENDER}>")).strip()


# MAIL


async def test_dsn_ret_and_envid_go_with_mail() -> None:
    assert await parameters(ret="hdrs", envid="order+7=a b") == "RET=HDRS ENVID=order+2B7+3Da+20b"
    assert await parameters(ret="full") == "RET=FULL"


async def test_dsn_notify_goes_with_every_recipient() -> None:
    assert (await said(TO, TOO, notify=["failure", "delay"]))[1:] == [
        f"RCPT TO:<{TO}> NOTIFY=FAILURE,DELAY",
        f"RCPT TO:<{TOO}> NOTIFY=FAILURE,DELAY",
    ]


async def test_dsn_of_one_recipient_overrules_what_holds_for_all() -> None:
    ann = Recipient(TO, notify="never", orcpt="ann+list@old.test")
    assert (await said(ann, TOO, notify="success, failure"))[1:] == [
        f"RCPT TO:<{TO}> NOTIFY=NEVER ORCPT=rfc822;ann+2Blist@old.test",
        f"RCPT TO:<{TOO}> NOTIFY=SUCCESS,FAILURE",
    ]


async def test_a_recipient_without_options_is_an_address_like_another() -> None:
    assert (await said(Recipient(TO), TOO))[1:] == [f"RCPT TO:<{TO}>", f"RCPT TO:<{TOO}>"]


async def test_orcpt_of_an_international_address_is_utf8_addr_xtext() -> None:
    recipient = Recipient(TO, orcpt="jürgen+x@bücher.test")
    assert (await said(recipient))[1].endswith(r" ORCPT=utf-8;j\x{FC}rgen\x{2B}x@b\x{FC}cher.test")


async def test_orcpt_inside_smtputf8_is_utf8_addr_unitext() -> None:
    recipient = Recipient("jürgen@to.test", orcpt="jürgen=1@to.test")
    assert (await said(recipient))[1] == r"RCPT TO:<jürgen@to.test> ORCPT=utf-8;jürgen\x{3D}1@to.test"


async def test_orcpt_may_name_its_own_type() -> None:
    assert (await said(Recipient(TO, orcpt="x400;/S=ann/")))[1].endswith(" ORCPT=x400;/S+3Dann/")


async def test_size_is_declared_for_content_whose_size_nobody_knows() -> None:
    assert (await said(content=iter([BODY]), size=500))[0] == f"MAIL FROM:<{SENDER}> SIZE=500 BODY=8BITMIME"


async def test_size_that_is_known_counts() -> None:
    assert (await said(size=5))[0] == f"MAIL FROM:<{SENDER}> SIZE={len(BODY)}"


async def test_size_that_is_declared_and_too_large_is_refused_before_mail() -> None:
    async with MailServer(size_limit=100) as server, AsyncSMTP(server.host, server.port) as smtp:
        with pytest.raises(SMTPSenderRefused) as raised:
            await smtp.sendmail(SENDER, TO, iter([BODY]), size=101)
        assert raised.value.smtp_code == 552
        assert not any(line.startswith("MAIL") for line in server.commands)


async def test_size_is_left_out_where_it_is_not_offered() -> None:
    async with MailServer(without=["SIZE"]) as server, AsyncSMTP(server.host, server.port) as smtp:
        await smtp.sendmail(SENDER, TO, iter([BODY]), size=101)
        assert "SIZE" not in server.commands[1]


@pytest.mark.parametrize("body", ["7bit", "8bitmime"])
async def test_body_is_said(body: str) -> None:
    assert await parameters(body=body) == f"BODY={body.upper()}"


async def test_body_binarymime_sends_octets_as_they_are() -> None:
    async with MailServer() as server:
        async with AsyncSMTP(server.host, server.port, chunking="eager") as smtp:
            await smtp.sendmail(SENDER, TO, b"\0\n\r", body="binarymime")
        assert server.messages[0].content == b"\0\n\r"
        assert "BODY=BINARYMIME" in server.messages[0].mail_options


async def test_body_7bit_encodes_a_message_object() -> None:
    message = EmailMessage()
    message["From"], message["To"] = SENDER, TO
    message.set_content("Grüße\n", cte="8bit")
    async with MailServer() as server, AsyncSMTP(server.host, server.port) as smtp:
        await smtp.send_message(message, body="7bit")
    assert server.messages[0].content.isascii()
    assert "BODY=7BIT" in server.messages[0].mail_options


@pytest.mark.parametrize("kind", ["octets", "file", "iterator"])
async def test_body_7bit_with_other_octets_delivers_nothing(kind: str, tmp_path: Any) -> None:
    octets = "Grüße\r\n".encode()
    path = tmp_path / "message.eml"
    path.write_bytes(octets)
    body: Any = {"octets": octets, "file": path, "iterator": iter([octets])}[kind]
    async with MailServer() as server, AsyncSMTP(server.host, server.port) as smtp:
        error = await caught(smtp.sendmail(SENDER, TO, body, body="7bit"))
        assert isinstance(error, ValueError if kind != "iterator" else SMTPNotSupportedError)
        assert deliveries(error) == [Delivery.NOT_SENT]
        assert server.messages == []


async def test_body_7bit_is_left_out_where_8bitmime_is_not_offered() -> None:
    async with MailServer(without=["8BITMIME"]) as server, AsyncSMTP(server.host, server.port) as smtp:
        await smtp.sendmail(SENDER, TO, BODY, body="7bit")
        assert "BODY" not in server.commands[1]


async def test_smtputf8_is_said_for_octets_whose_header_needs_it() -> None:
    octets = "Subject: Grüße\r\n\r\n".encode()
    assert await parameters(smtputf8=True) == "BODY=8BITMIME SMTPUTF8"
    async with MailServer() as server, AsyncSMTP(server.host, server.port) as smtp:
        await smtp.sendmail(SENDER, TO, octets, smtputf8=True)
    assert server.messages[0].content == octets


async def test_smtputf8_lets_a_message_object_keep_its_header() -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = SENDER, TO, "Grüße"
    async with MailServer() as server, AsyncSMTP(server.host, server.port) as smtp:
        await smtp.send_message(message, smtputf8=True)
    assert "Subject: Grüße\r\n".encode() in server.messages[0].content


async def test_auth_names_who_submitted_it() -> None:
    assert await parameters(auth="e+mc2@example.com") == "AUTH=e+2Bmc2@example.com"
    assert await parameters(auth="") == "AUTH=<>"


async def test_deliver_by_says_when_it_is_too_late() -> None:
    assert await parameters(deliver_by=DeliverBy(120)) == "BY=120;R"
    assert await parameters(deliver_by=DeliverBy(timedelta(minutes=-1), "notify")) == "BY=-60;N"
    assert await parameters(deliver_by=DeliverBy(3600, "notify", trace=True)) == "BY=3600;NT"


async def test_hold_for_keeps_the_message_for_some_seconds() -> None:
    assert await parameters(hold_for=60) == "HOLDFOR=60"
    assert await parameters(hold_for=timedelta(hours=2)) == "HOLDFOR=7200"


async def test_hold_until_keeps_the_message_until_a_moment() -> None:
    east = timezone(timedelta(hours=2))
    assert (
        await parameters(hold_until=datetime(2029, 7, 1, 1, 0, tzinfo=east))
        == "HOLDUNTIL=2029-06-30T23:00:00Z"
    )


@pytest.mark.parametrize("priority", [-9, 0, 9])
async def test_priority_goes_with_mail(priority: int) -> None:
    assert await parameters(priority=priority) == f"MT-PRIORITY={priority}"


async def test_require_tls_goes_with_mail_inside_tls() -> None:
    authority = CertificateAuthority()
    async with MailServer(starttls=authority.server_context(), extensions=OFFERS) as server:
        async with AsyncSMTP(
            server.host, server.port, tls="starttls", tls_context=authority.client_context()
        ) as smtp:
            await smtp.sendmail(SENDER, TO, BODY, require_tls=True)
    assert "REQUIRETLS" in server.messages[0].mail_options


async def test_require_tls_in_clear_is_not_sent() -> None:
    with pytest.raises(SMTPNotSupportedError, match="inside TLS"):
        await said(require_tls=True)


async def test_rrvs_says_since_when_the_mailbox_is_known() -> None:
    later = Recipient(TOO, rrvs=SINCE, rrvs_else="reject")
    assert (await said(Recipient(TO, rrvs=SINCE), later))[1:] == [
        f"RCPT TO:<{TO}> RRVS=2024-05-01T12:30:00Z",
        f"RCPT TO:<{TOO}> RRVS=2024-05-01T12:30:00Z;R",
    ]


async def test_typed_and_raw_options_go_together() -> None:
    lines = await said(
        Recipient(TO, notify="never"),
        TOO,
        mail_options=["RET=HDRS"],
        rcpt_options=["ORCPT=rfc822;a@b"],
        envid="1",
    )
    assert lines[0] == f"MAIL FROM:<{SENDER}> SIZE={len(BODY)} ENVID=1 RET=HDRS"
    assert lines[1:] == [
        f"RCPT TO:<{TO}> NOTIFY=NEVER ORCPT=rfc822;a@b",
        f"RCPT TO:<{TOO}> ORCPT=rfc822;a@b",
    ]


# Not offered

NEEDS: list[tuple[str, dict[str, Any]]] = [
    ("DSN", {"ret": "full"}),
    ("DSN", {"envid": "1"}),
    ("DSN", {"notify": "never"}),
    ("8BITMIME", {"body": "8bitmime"}),
    ("BINARYMIME", {"body": "binarymime"}),
    ("SMTPUTF8", {"smtputf8": True}),
    ("AUTH", {"auth": "a@b.test"}),
    ("DELIVERBY", {"deliver_by": DeliverBy(99)}),
    ("FUTURERELEASE", {"hold_for": 9}),
    ("FUTURERELEASE", {"hold_until": SINCE}),
    ("MT-PRIORITY", {"priority": 1}),
    ("REQUIRETLS", {"require_tls": True}),
]
RFCS = {
    "DSN": 3461,
    "8BITMIME": 6152,
    "BINARYMIME": 3030,
    "SMTPUTF8": 6531,
    "AUTH": 4954,
    "DELIVERBY": 2852,
    "FUTURERELEASE": 4865,
    "MT-PRIORITY": 6710,
    "REQUIRETLS": 8689,
}


@pytest.mark.parametrize(("extension", "options"), NEEDS, ids=lambda value: str(value))
@pytest.mark.parametrize("hello_only", [False, True], ids=["EHLO", "HELO"])
async def test_an_option_that_is_not_offered_is_an_error_before_mail(
    extension: str, options: dict[str, Any], hello_only: bool
) -> None:
    without = [extension, *(["CHUNKING"] if extension == "BINARYMIME" else [])]
    async with MailServer(without=without, hello_only=hello_only) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            [option] = options
            words = f"the server does not offer {extension} (RFC {RFCS[extension]}), which {option}= needs"
            with pytest.raises(SMTPNotSupportedError, match=re.escape(words)) as raised:
                await smtp.sendmail(SENDER, TO, BODY, **options)
            assert raised.value.delivery is Delivery.NOT_SENT
            assert not any(line.startswith("MAIL") for line in server.commands)
            assert (await smtp.sendmail(SENDER, TO, BODY)).accepted == (TO,)  # on the same connection


@pytest.mark.parametrize(
    ("extension", "recipient"),
    [
        ("DSN", Recipient(TOO, notify="never")),
        ("DSN", Recipient(TOO, orcpt=TO)),
        ("RRVS", Recipient(TOO, rrvs=SINCE)),
    ],
)
async def test_what_a_recipient_asks_for_and_is_not_offered_is_an_error_before_mail(
    extension: str, recipient: Recipient
) -> None:
    async with MailServer(without=["DSN"]) as server, AsyncSMTP(server.host, server.port) as smtp:
        with pytest.raises(SMTPNotSupportedError, match=extension):
            await smtp.sendmail(SENDER, [TO, recipient], BODY)
        assert not any(line.startswith("MAIL") for line in server.commands)


@pytest.mark.parametrize(
    "options",
    [
        {"deliver_by": DeliverBy(59)},
        {"hold_for": 86401},
        {"hold_until": datetime(2030, 1, 1, 0, 0, 1, tzinfo=UTC)},
    ],
    ids=str,
)
async def test_more_than_the_server_offers_is_not_asked_for(options: dict[str, Any]) -> None:
    with pytest.raises(SMTPNotSupportedError, match=r"seconds|until"):
        await said(**options)


LEAST = "the server offers DELIVERBY from 60 seconds on, with mode='return'"
LONGEST = "the server holds a message for 9 seconds at most (FUTURERELEASE)"
LATEST = "the server holds a message until {} at most (FUTURERELEASE)"


@pytest.mark.parametrize(
    ("offered", "options", "refused"),
    [
        ({"deliverby": "60"}, {"deliver_by": DeliverBy(60)}, ""),
        ({"deliverby": "60"}, {"deliver_by": DeliverBy(59)}, LEAST),
        ({"deliverby": "60"}, {"deliver_by": DeliverBy(-1, "notify")}, ""),
        ({"deliverby": ""}, {"deliver_by": DeliverBy(1)}, ""),
        ({"deliverby": "soon"}, {"deliver_by": DeliverBy(1)}, ""),
        ({"deliverby": "1000000000"}, {"deliver_by": DeliverBy(1)}, ""),
        ({"futurerelease": "9"}, {"hold_for": 9}, ""),
        ({"futurerelease": "9"}, {"hold_for": 10}, LONGEST),
        ({"futurerelease": ""}, {"hold_for": 10}, ""),
        ({"futurerelease": "9 2024-05-01T12:30:00Z"}, {"hold_until": SINCE}, ""),
        ({"futurerelease": "9 2024-05-01T12:30:00"}, {"hold_until": SINCE}, ""),
        (
            {"futurerelease": "9 2024-05-01T12:29:59"},
            {"hold_until": SINCE},
            LATEST.format("2024-05-01T12:29:59"),
        ),
        (
            {"futurerelease": "9 2024-05-01T12:30:00+00:01"},
            {"hold_until": SINCE},
            LATEST.format("2024-05-01T12:30:00+00:01"),
        ),
        ({"futurerelease": "9 some-day"}, {"hold_until": SINCE}, ""),
        ({"futurerelease": "9"}, {"hold_until": SINCE}, ""),
    ],
    ids=str,
)
def test_how_far_a_server_goes_is_read_from_what_it_offers(
    offered: dict[str, str], options: Any, refused: str
) -> None:
    asked = parameters_of(options)
    assert asked is not None
    if not refused:
        assert len(asked.mail(Extensions(offered), encrypted=False)) == 1
        return
    with pytest.raises(SMTPNotSupportedError, match=f"^{re.escape(refused)}$"):
        asked.mail(Extensions(offered), encrypted=False)


async def test_the_least_time_counts_only_where_the_message_would_be_returned() -> None:
    assert await parameters(deliver_by=DeliverBy(1, "notify")) == "BY=1;N"


# Wrong input

WHEN = 'notify is "never", or some of success, failure, delay, each once; not '
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"ret": "none"}, "ret is one of full, hdrs, not 'none'"),
    ({"envid": ""}, "envid has 1 to 100 characters, as xtext (RFC 3461 section 4.4): ''"),
    ({"envid": "x" * 101}, "envid has 1 to 100 characters, as xtext (RFC 3461 section 4.4): 'xxx"),
    ({"envid": "x" * 98 + "="}, "envid has 1 to 100 characters, as xtext"),
    ({"envid": "grüße"}, "only ASCII without controls has a form as xtext"),
    ({"envid": "a\r\nRSET"}, "only ASCII without controls has a form as xtext"),
    ({"notify": "never,failure"}, WHEN + "'never,failure'"),
    ({"notify": "failure,failure"}, WHEN + "'failure,failure'"),
    ({"notify": ""}, WHEN + "''"),
    ({"notify": []}, WHEN + "[]"),
    ({"notify": ["never", "never"]}, WHEN),
    ({"notify": ["delay", 1]}, WHEN),
    ({"notify": "sometimes"}, WHEN),
    ({"notify": "XneverX"}, WHEN),
    ({"notify": ["failure\r\n"]}, WHEN),
    ({"size": -1}, "size is a number of octets, not -1"),
    ({"size": 10**20}, "size is a number of octets, not 1000"),
    ({"size": True}, "size is a number of octets, not True"),
    ({"size": 1.0}, "size is a number of octets, not 1.0"),
    ({"body": "9bit"}, "body is one of 7bit, 8bitmime, binarymime, not '9bit'"),
    ({"auth": "a\r\nRSET@b"}, "is no address: it contains CR"),
    ({"auth": "jürgen@b"}, "auth: AUTH= has no form for a local part beyond ASCII: 'jürgen@b'"),
    ({"deliver_by": 60}, "deliver_by is a DeliverBy(seconds, mode), not 60"),
    ({"hold_for": 0}, "hold_for is a whole number of seconds, of up to nine digits, not 0"),
    ({"hold_for": 10**9}, "hold_for is a whole number of seconds, of up to nine digits, not 1000000000"),
    (
        {"hold_for": timedelta(0)},
        "hold_for is a whole number of seconds, of up to nine digits, not datetime.",
    ),
    ({"hold_for": 1, "hold_until": SINCE}, "hold_for and hold_until say the same in two ways: give one"),
    ({"hold_until": datetime(2029, 1, 1)}, "has no time zone: give one"),
    ({"hold_until": "2029-01-01"}, "a moment is a datetime, not '2029-01-01'"),
    ({"priority": 10}, "priority is a number from -9 to 9, not 10"),
    ({"priority": -10}, "priority is a number from -9 to 9, not -10"),
    ({"priority": "high"}, "priority is a number from -9 to 9, not 'high'"),
]


@pytest.mark.parametrize(("options", "words"), WRONG, ids=str)
def test_an_option_that_makes_no_sense_is_found_where_it_is_given(
    options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        Envelope(SENDER, TO, BODY, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"envid": "x"},
        {"envid": "x" * 100},
        {"envid": "x" * 97 + "="},
        {"size": 0},
        {"size": 10**20 - 1},
        {"hold_for": 1},
        {"hold_for": 10**9 - 1},
        {"priority": 9},
        {"priority": -9},
    ],
    ids=str,
)
def test_an_option_may_go_as_far_as_its_rfc_says(options: dict[str, Any]) -> None:
    [(name, value)] = options.items()
    assert getattr(parameters_of(options), name) == value


ELSE = 'rrvs_else must be "continue" or "reject", and goes with rrvs, not '


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"notify": "often"}, WHEN + "'often'"),
        ({"orcpt": ""}, "orcpt without an address: ''"),
        ({"orcpt": "rfc822;"}, "orcpt without an address: 'rfc822;'"),
        ({"orcpt": "a\nb@c"}, "only ASCII without controls"),
        ({"orcpt": "rfc822;a\nb@c"}, "only ASCII without controls"),
        ({"orcpt": "rfc822;jürgen@x"}, "only ASCII without controls"),
        ({"orcpt": "utf-8;jür\ngen@x"}, "an address has no control characters"),
        ({"orcpt": "x" * 494}, "orcpt has at most 500 characters (RFC 3461 section 4.2)"),
        ({"rrvs": datetime(2024, 1, 1)}, "has no time zone"),
        ({"rrvs_else": "reject"}, ELSE + "'reject'"),
        ({"rrvs": SINCE, "rrvs_else": "wait"}, ELSE + "'wait'"),
    ],
    ids=str,
)
def test_a_recipient_that_makes_no_sense_is_found_where_it_is_made(
    options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        Recipient(TO, **options)


def test_a_recipient_is_made_of_text() -> None:
    with pytest.raises(TypeError, match=r"^an address is a str, not bytes$"):
        Recipient(TO.encode())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("orcpt", "smtputf8", "text"),
    [
        ("x" * 493, False, "rfc822;" + "x" * 493),
        ("ann@a.test", True, "rfc822;ann@a.test"),
        ("rfc822;a+b@c", False, "rfc822;a+2Bb@c"),
        ("X400;/S=A;/G=B", False, "X400;/S+3DA;/G+3DB"),
        ("UTF-8;ann@b", False, "UTF-8;ann@b"),
        ("jürgen@x", False, "utf-8;j\\x{FC}rgen@x"),
        ("jürgen@x", True, "utf-8;jürgen@x"),
    ],
    ids=str,
)
def test_orcpt_is_a_type_and_an_address(orcpt: str, smtputf8: bool, text: str) -> None:
    assert Recipient(TO, orcpt=orcpt).parameters(None, smtputf8=smtputf8) == [("DSN", f"ORCPT={text}")]


@pytest.mark.parametrize(
    ("given", "value"),
    [
        (None, None),
        ("never", "never"),
        (" NEVER ", "never"),
        ("Delay, success", "delay,success"),
        (("failure", "delay", "success"), "failure,delay,success"),
        pytest.param((word for word in ["failure"]), "failure", id="a generator"),
    ],
    ids=str,
)
def test_notify_may_be_a_word_or_several(given: Any, value: str | None) -> None:
    assert events(given) == value


def test_what_is_asked_for_one_recipient_goes_before_what_all_are_asked() -> None:
    offered = Extensions({"dsn": "", "rrvs": ""})
    one = Recipient(TO, notify="never", rrvs=SINCE, rrvs_else="continue")
    assert rcpt([TOO, one, TO], ["X=1"], "delay", offered, smtputf8=False) == [
        ("NOTIFY=DELAY", "X=1"),
        ("NOTIFY=NEVER", "RRVS=2024-05-01T12:30:00Z;C", "X=1"),
        ("NOTIFY=DELAY", "X=1"),
    ]
    assert rcpt([TO], ["X=1"], None, Extensions(), smtputf8=False) == [("X=1",)]


@pytest.mark.parametrize(
    ("one", "option", "raw"),
    [
        (Recipient(TO, notify="never"), "notify", "NOTIFY=DELAY"),
        (Recipient(TO, orcpt=TO), "orcpt", "orcpt=rfc822;x"),
        (Recipient(TO, rrvs=SINCE), "rrvs", "RRVS=x"),
    ],
)
def test_the_same_by_a_recipient_and_a_raw_option_names_both(one: Recipient, option: str, raw: str) -> None:
    offered = Extensions({"dsn": "", "rrvs": ""})
    words = f"{option.upper()} is asked for twice: by {option}=, and by the raw {raw!r}"
    with pytest.raises(ValueError, match=f"^{re.escape(words)}$"):
        rcpt([one], ["X=1", raw], None, offered, smtputf8=False)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"notify": "never"},
        {"notify": "delay,failure", "orcpt": "rfc822;x@y", "rrvs": SINCE, "rrvs_else": "reject"},
        {"rrvs": SINCE, "rrvs_else": "continue"},
    ],
    ids=str,
)
def test_a_recipient_crosses_to_another_process_with_all_that_is_asked(options: dict[str, Any]) -> None:
    recipient = Recipient(TO, **options)
    again = pickle.loads(pickle.dumps(recipient))
    assert type(again) is Recipient
    assert repr(again) == repr(recipient)
    assert again.parameters(None, smtputf8=False) == recipient.parameters(None, smtputf8=False)


def test_a_recipient_with_options_does_not_change_either() -> None:
    with pytest.raises(AttributeError, match=r"^a Recipient does not change; make another$"):
        Recipient(TO, notify="never").notify = "delay"


TIME = "deliver_by is a whole number of seconds, of up to nine digits, not "


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0,), "deliver_by: a message can be returned after some seconds, not before (RFC 2852)"),
        ((-5, "return"), "deliver_by: a message can be returned after some seconds, not before (RFC 2852)"),
        ((10**9,), TIME + "1000000000"),
        ((-(10**9), "notify"), TIME + "-1000000000"),
        ((60, "later"), """mode must be "return" or "notify", not 'later'"""),
        ((1.5,), TIME + "1.5"),
        ((True,), TIME + "True"),
    ],
    ids=str,
)
def test_a_time_that_makes_no_sense_is_found_where_it_is_made(arguments: Any, words: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(words)}$"):
        DeliverBy(*arguments)


@pytest.mark.parametrize(
    ("arguments", "parameter"),
    [
        ((1,), "1;R"),
        ((10**9 - 1,), "999999999;R"),
        ((1 - 10**9, "notify"), "-999999999;N"),
        ((0, "notify", True), "0;NT"),
        ((timedelta(minutes=2, milliseconds=900), "return", True), "120;RT"),
    ],
    ids=str,
)
def test_a_time_may_go_as_far_as_the_rfc_says(arguments: Any, parameter: str) -> None:
    assert DeliverBy(*arguments).parameter == parameter


def test_an_option_that_nobody_knows_is_named() -> None:
    options: Any = {"return_receipt": True}
    words = r"^there is no option 'return_receipt'; there are ret, envid, .*, require_tls$"
    with pytest.raises(TypeError, match=words):
        Envelope(SENDER, TO, BODY, **options)


def test_seven_bits_were_asked_for_and_are_not_there() -> None:
    asked = Parameters(body="7bit")
    asked.check_content(False)
    asked.check_content(None)
    Parameters(body="8bitmime").check_content(True)
    words = r"^body='7bit' was asked for, and the content has octets over 127$"
    with pytest.raises(ValueError, match=words):
        asked.check_content(True)


def test_nothing_asked_for_is_nothing() -> None:
    assert parameters_of({}) is None
    assert parameters_of({"ret": None, "size": None}) is None
    assert parameters_of({"priority": 0}) == Parameters(priority=0)


@pytest.mark.parametrize(
    ("raw", "options"),
    [
        ({"mail_options": ["RET=FULL"]}, {"ret": "full"}),
        ({"mail_options": ["envid=1"]}, {"envid": "2"}),
        ({"mail_options": ["SIZE=1"]}, {"size": 2}),
        ({"mail_options": ["body=7BIT"]}, {"body": "7bit"}),
        ({"mail_options": ["SMTPUTF8"]}, {"smtputf8": True}),
        ({"rcpt_options": ["NOTIFY=NEVER"]}, {"notify": "never"}),
    ],
    ids=str,
)
def test_the_same_by_a_typed_and_a_raw_option_is_an_error(raw: Any, options: Any) -> None:
    [[said]], [option] = raw.values(), options
    keyword = said.partition("=")[0].upper()
    words = f"{keyword} is asked for twice: by {option}=, and by the raw {said!r}"
    with pytest.raises(ValueError, match=f"^{re.escape(words)}$"):
        Envelope(SENDER, TO, BODY, **raw, **options)


async def test_the_same_by_a_recipient_and_a_raw_option_is_an_error_before_mail() -> None:
    async with MailServer() as server, AsyncSMTP(server.host, server.port) as smtp:
        with pytest.raises(ValueError, match="twice"):
            await smtp.sendmail(SENDER, [TOO, Recipient(TO, notify="never")], BODY, (), ["NOTIFY=DELAY"])
        assert not any(line.startswith("MAIL") for line in server.commands)


# What a Recipient is


def test_a_recipient_is_its_address() -> None:
    recipient = Recipient(TO, notify=["delay", "failure"], orcpt=TOO, rrvs=SINCE)
    assert recipient == TO
    assert {recipient: 1}[TO] == 1
    assert repr(Recipient(TO, notify="never")) == f"Recipient({TO!r}, notify='never')"
    again = pickle.loads(pickle.dumps(recipient))
    assert (again, repr(again)) == (recipient, repr(recipient))
    with pytest.raises(AttributeError):
        recipient.notify = None  # type: ignore[misc]


async def test_accounts_are_keyed_by_the_address() -> None:
    nobody = Recipient("nobody@to.test", notify="never")
    async with MailServer(refuse={"nobody@to.test": "550 5.1.1 no"}) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            result = await smtp.sendmail(SENDER, [TO, nobody], BODY)
    assert result["nobody@to.test"].code == 550
    assert result.accepted == (TO,)


async def test_what_a_recipient_asks_for_is_said_by_hand_too() -> None:
    async with MailServer() as server, AsyncSMTP(server.host, server.port) as smtp:
        await smtp.mail(SENDER)
        await smtp.rcpt(Recipient(TO, orcpt="jürgen@to.test"), ["NOTIFY=NEVER"])
        assert server.commands[-1] == rf"RCPT TO:<{TO}> ORCPT=utf-8;j\x{{FC}}rgen@to.test NOTIFY=NEVER"
        with pytest.raises(SMTPNotSupportedError, match="RRVS"):
            await smtp.rcpt(Recipient(TO, rrvs=SINCE))


def test_a_changed_envelope_is_checked_again() -> None:
    envelope = Envelope(SENDER, TO, BODY, ret="full")
    assert replace(envelope, sender="").parameters == envelope.parameters
    with pytest.raises(ValueError, match="twice"):
        replace(envelope, mail_options=["RET=HDRS"])


# Every way in


def message() -> EmailMessage:
    made = EmailMessage()
    made["From"], made["To"] = SENDER, TO
    made.set_content("hello\n")
    return made


async def test_every_call_takes_the_same_options() -> None:
    async with MailServer() as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            await smtp.send_message(message(), envid="1", notify="never")
            await smtp.send_message(message(), None, Recipient(TO, notify="never"), envid="1")
            async for outcome in smtp.send_messages([Envelope(SENDER, TO, BODY, envid="1", notify="never")]):
                assert outcome.error is None
        async with SMTPPool(server.host, server.port) as pool:
            await pool.sendmail(SENDER, TO, BODY, envid="1", notify="never")
        await send(message(), host=server.host, port=server.port, envid="1", notify="never")
        await send(
            BODY,
            sender=SENDER,
            recipients=[Recipient(TO, notify="never")],
            host=server.host,
            port=server.port,
            envid="1",
        )
        await asyncio.to_thread(_blocking, server.host, server.port)
    assert len(server.messages) == 8
    for received in server.messages:
        assert "ENVID=1" in received.mail_options
        assert received.rcpt_options == (("NOTIFY=NEVER",),)


def _blocking(host: str, port: int) -> None:
    with SMTP(host, port) as smtp:
        smtp.sendmail(SENDER, [Recipient(TO, notify="never")], BODY, envid="1")
        smtp.send_message(message(), envid="1", notify="never")


async def test_lmtp_takes_them_too() -> None:
    async with MailServer(lmtp=True) as server:
        async with AsyncLMTP(server.host, server.port) as lmtp:
            await lmtp.sendmail(SENDER, [Recipient(TO, notify="never"), TOO], BODY, ret="hdrs")
        await asyncio.to_thread(_blocking_lmtp, server.host, server.port)
    assert [received.rcpt_options for received in server.messages] == [
        (("NOTIFY=NEVER",), ()),
        (("NOTIFY=DELAY",),),
    ]


def _blocking_lmtp(host: str, port: int) -> None:
    with LMTP(host, port) as lmtp:
        lmtp.sendmail(SENDER, TO, BODY, notify="delay")


async def test_send_finds_wrong_options_before_it_connects() -> None:
    with pytest.raises(ValueError, match="priority"):
        await send(BODY, sender=SENDER, recipients=TO, host="127.0.0.1", port=1, priority=99)


@pytest.mark.parametrize("pipelining", ["off", "message", "stream"])
async def test_many_recipients_with_options_leave_in_groups(pipelining: Any) -> None:
    recipients = [Recipient(f"{n}@to.test", notify="never") for n in range(1500)]
    async with MailServer() as server:
        async with AsyncSMTP(server.host, server.port, pipelining=pipelining) as smtp:
            result = await smtp.sendmail(SENDER, recipients, BODY)
            assert len(result.accepted) == 1500
    assert set(server.messages[0].rcpt_options) == {("NOTIFY=NEVER",)}


async def test_a_header_with_the_whole_grammar_reaches_the_server_as_one_word() -> None:
    odd = "".join(map(chr, range(0x20, 0x7F)))[:60]
    line = (await said(envid=odd[:30]))[0]
    [word] = re.findall(r"ENVID=(\S+)", line)
    assert re.sub(r"\+([0-9A-F]{2})", lambda found: chr(int(found[1], 16)), word) == odd[:30]
