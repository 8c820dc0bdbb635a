"""Messages: what leaves, for whom, and that the caller's object stays what it was."""

from __future__ import annotations

import contextlib
import copy
import email
import io
import pathlib
import pickle
from collections.abc import Iterator
from email import policy
from email.header import Header
from email.headerregistry import Address, Group
from email.message import EmailMessage, Message
from email.mime.application import MIMEApplication
from email.mime.base import MIMEBase
from email.mime.message import MIMEMessage
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from email.parser import BytesHeaderParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiosmtpclient.content import InMemory, Stream
from aiosmtpclient.errors import Delivery, SMTPNotSupportedError
from aiosmtpclient.message import Envelope, Prepared, prepare, prepare_message, serialise

POLICIES = [policy.compat32, policy.default, policy.SMTP, policy.SMTPUTF8]


def modern(**headers: str) -> EmailMessage:
    """An EmailMessage with From and To; other headers by name, with _ for the hyphen."""
    message = EmailMessage()
    for name, value in ({"From": "a@x", "To": "b@y"} | headers).items():
        message[name.replace("_", "-")] = value
    message.set_content("hello\n")
    return message


def legacy(*headers: tuple[str, object], body: str = "hello\n") -> Message:
    """A compat32 message with just these headers."""
    message = Message()
    for name, value in headers:
        message[name] = value  # type: ignore[assignment]
    message.set_payload(body)
    return message


def parsed(octets: bytes, by: policy.Policy = policy.compat32) -> Message:
    return email.message_from_bytes(octets, policy=by)


def sent(message: Message, *, eightbitmime: bool = True, utf8: bool = False) -> bytes:
    return serialise(message, eightbitmime=eightbitmime, utf8=utf8)


def ready(
    message: Message,
    from_addr: str | None = None,
    to_addrs: str | list[str] | None = None,
    *,
    eightbitmime: bool = True,
    smtputf8: bool = False,
) -> Prepared:
    return prepare_message(message, from_addr, to_addrs, eightbitmime=eightbitmime, smtputf8=smtputf8)


def paths(prepared: Prepared) -> list[bytes]:
    return [address.path for address in prepared.recipients]


def data(prepared: Prepared) -> bytes:
    assert isinstance(prepared.content, InMemory)
    return prepared.content.data


def head(octets: bytes) -> bytes:
    return octets.partition(b"\r\n\r\n")[0]


# Envelope


def test_an_envelope_counts_a_string_as_one_recipient() -> None:
    envelope = Envelope("a@x", "b@y", b"hi", mail_options="RET=HDRS")
    assert envelope.recipients == ("b@y",)
    assert envelope.mail_options == ("RET=HDRS",)
    assert envelope.rcpt_options == ()
    assert envelope.all_or_nothing is False


def test_an_envelope_takes_its_recipients_from_a_generator() -> None:
    envelope = Envelope(
        "a@x", (f"{name}@y" for name in "bc"), b"hi", rcpt_options=["A", "B"], all_or_nothing=True
    )
    assert envelope.recipients == ("b@y", "c@y")
    assert envelope.rcpt_options == ("A", "B")
    assert envelope.all_or_nothing is True
    assert "b'hi'" not in repr(envelope)
    assert pickle.loads(pickle.dumps(envelope)) == envelope
    assert envelope == Envelope("a@x", ["b@y", "c@y"], b"hi", rcpt_options=("A", "B"), all_or_nothing=True)


# An explicit envelope


def plain(
    sender: str,
    recipients: object,
    content: object = b"hi",
    *,
    eightbitmime: bool = False,
    smtputf8: bool = False,
) -> Prepared:
    return prepare(sender, recipients, content, eightbitmime=eightbitmime, smtputf8=smtputf8)  # type: ignore[arg-type]


def test_octets_are_prepared_as_they_are_but_for_the_line_ends() -> None:
    prepared = plain("Al <a@x>", ["b@y", "B <b@y>"], b"Subject: x\nBcc: c@z\n\n.\nend")
    assert prepared.sender.path == b"a@x"
    assert [address.text for address in prepared.recipients] == ["b@y", "B <b@y>"]
    # The header of raw octets is the caller's business, in smtplib as well.
    assert data(prepared) == b"Subject: x\r\nBcc: c@z\r\n\r\n.\r\nend\r\n"
    assert not prepared.smtputf8


def test_one_string_is_one_recipient_and_a_generator_gives_many() -> None:
    assert paths(plain("a@x", "b@y")) == [b"b@y"]
    assert paths(plain("", (name for name in ("b@y", "c@y", "b@y")))) == [b"b@y", b"c@y", b"b@y"]


@pytest.mark.parametrize("recipients", [[], (), iter([]), "", ["b@y", ""], ["<>"]])
def test_no_recipient_or_an_empty_one_is_an_error(recipients: object) -> None:
    with pytest.raises(ValueError, match="recipient"):
        plain("a@x", recipients)


@pytest.mark.parametrize("bad", ["a\r\nDATA@x", '"a\r\nDATA\r\n"@x', "a@x>\nb"])
def test_an_address_with_a_line_break_is_an_error_and_is_not_shortened(bad: str) -> None:
    with pytest.raises(ValueError):
        plain(bad, "b@y")
    with pytest.raises(ValueError):
        plain("a@x", ["b@y", bad])


def test_long_lines_of_octets_go_out_unchanged() -> None:
    body = b"x" * 5000 + b"\r\n"
    assert data(plain("a@x", "b@y", body)) == body


def test_8_bit_octets_need_8bitmime() -> None:
    with pytest.raises(SMTPNotSupportedError, match="8BITMIME") as caught:
        plain("a@x", "b@y", b"caf\xe9")
    assert caught.value.delivery is Delivery.NOT_SENT
    assert plain("a@x", "b@y", b"caf\xe9", eightbitmime=True).content.eightbit


def test_nul_and_international_text_are_errors() -> None:
    with pytest.raises(ValueError, match="NUL"):
        plain("a@x", "b@y", b"\0")
    with pytest.raises(ValueError, match="non-ASCII"):
        plain("a@x", "b@y", "café", eightbitmime=True, smtputf8=True)
    assert data(plain("a@x", "b@y", "text")) == b"text\r\n"


@pytest.mark.parametrize("source", [pathlib.Path("x.eml"), io.BytesIO(b"x"), [b"x"], iter([b"x"])])
def test_what_must_be_read_first_stays_unread(source: object) -> None:
    content = plain("a@x", "b@y", source).content
    assert isinstance(content, Stream)
    assert content.source is source


@pytest.mark.parametrize(("sender", "recipients"), [("jörg@x", ["b@y"]), ("a@x", ["b@y", "jörg@x"])])
def test_a_local_part_that_is_not_ascii_needs_smtputf8(sender: str, recipients: list[str]) -> None:
    with pytest.raises(
        SMTPNotSupportedError, match=r"'jörg@x' has a non-ASCII local part.*SMTPUTF8"
    ) as caught:
        plain(sender, recipients, eightbitmime=True)
    assert caught.value.delivery is Delivery.NOT_SENT
    # SMTPUTF8 implies 8BITMIME.
    assert plain(sender, recipients, b"caf\xe9", smtputf8=True).smtputf8


def test_a_domain_that_is_not_ascii_does_not_need_smtputf8() -> None:
    prepared = plain("a@bücher.example", ["b@bücher.example"], smtputf8=True)
    assert prepared.sender.path == b"a@xn--bcher-kva.example"
    assert paths(prepared) == [b"b@xn--bcher-kva.example"]
    assert not prepared.smtputf8


def test_an_explicit_envelope_leaves_the_message_only_its_bcc_to_lose() -> None:
    prepared = plain("s@x", ["r@y"], modern(Bcc="hidden@z"))
    assert prepared.sender.path == b"s@x"
    assert paths(prepared) == [b"r@y"]
    assert b"hidden" not in data(prepared)
    assert b"To: b@y\r\n" in data(prepared)


def test_an_explicit_envelope_does_not_read_the_address_headers() -> None:
    assert paths(plain("s@x", ["r@y"], legacy(("To", "this is (no list")))) == [b"r@y"]


# The envelope that the headers ask for


def test_the_first_address_of_from_sends() -> None:
    assert ready(modern(From="Al <a@x>, Bo <b@x>")).sender.path == b"a@x"
    assert ready(legacy(("From", "Al <a@x>, Bo <b@x>"), ("To", "b@y"))).sender.path == b"a@x"


def test_sender_goes_before_from_unless_it_is_empty() -> None:
    assert ready(modern(Sender="s@x")).sender.path == b"s@x"
    assert ready(legacy(("From", "a@x"), ("Sender", ""), ("To", "b@y"))).sender.path == b"a@x"


@pytest.mark.parametrize("message", [legacy(("To", "b@y")), legacy(("From", ""), ("To", "b@y")), Message()])
def test_a_message_from_nobody_is_an_error(message: Message) -> None:
    with pytest.raises(ValueError, match="no Sender or From"):
        ready(message)


def test_a_message_to_nobody_is_an_error() -> None:
    with pytest.raises(ValueError, match="no recipients"):
        ready(legacy(("From", "a@x")))
    with pytest.raises(ValueError, match="no recipients"):
        ready(modern(To="undisclosed-recipients:;"))


def test_the_arguments_override_the_headers() -> None:
    prepared = ready(modern(Bcc="hidden@z"), "s@x", ["r@y"])
    assert (prepared.sender.path, paths(prepared)) == (b"s@x", [b"r@y"])
    assert ready(modern(), "").sender.path == b""
    assert paths(ready(modern(), None, "r@y")) == [b"r@y"]
    with pytest.raises(ValueError, match="no recipients"):
        ready(modern(), None, [])


def test_every_to_cc_and_bcc_header_counts() -> None:
    message = legacy(
        ("From", "a@x"),
        ("To", "b@y"),
        ("To", "c@y, d@y"),
        ("Cc", "e@y"),
        ("Bcc", "f@y"),
        ("bcc", "g@y"),
        ("CC", "h@y"),
    )
    assert paths(ready(message)) == [b"b@y", b"c@y", b"d@y", b"e@y", b"h@y", b"f@y", b"g@y"]


def test_groups_are_opened() -> None:
    message = modern()
    message["Cc"] = [Group("Team", [Address("Cy", "c", "y"), Address("", "d", "y")]), Address("", "e", "y")]
    assert paths(ready(message)) == [b"b@y", b"c@y", b"d@y", b"e@y"]
    assert paths(ready(legacy(("From", "a@x"), ("To", "Team: c@y, d@y;, e@y")))) == [b"c@y", b"d@y", b"e@y"]


@pytest.mark.parametrize("by", POLICIES)
def test_a_parsed_message_has_the_same_envelope_under_every_policy(by: policy.Policy) -> None:
    message = parsed(
        b'From: =?utf-8?q?J=C3=B6rg?= <a@x>\r\nTo: "B, C" <b@y>,\r\n\tc@[127.0.0.1]\r\n'
        b"Cc: undisclosed-recipients:;\r\nBcc: d@y (hidden)\r\n\r\nhi\r\n",
        by,
    )
    prepared = ready(message)
    assert prepared.sender.path == b"a@x"
    assert paths(prepared) == [b"b@y", b"c@[127.0.0.1]", b"d@y"]
    assert b"hidden" not in data(prepared)


@pytest.mark.parametrize("build", ["modern", "legacy"])
def test_a_resent_message_goes_where_the_resent_headers_say(build: str) -> None:
    headers = {
        "From": "a@x",
        "To": "b@y",
        "Resent-Date": "Mon, 01 Jan 2024 00:00:00 +0000",
        "Resent-From": "r@x",
        "Resent-To": "s@y",
        "Resent-Cc": "t@y",
        "Resent-Bcc": "u@y",
    }
    message: Message = EmailMessage() if build == "modern" else Message()
    for name, value in headers.items():
        message[name] = value
    prepared = ready(message)
    assert prepared.sender.path == b"r@x"
    assert paths(prepared) == [b"s@y", b"t@y", b"u@y"]
    assert b"u@y" not in data(prepared)
    message["Resent-Sender"] = "q@x"
    assert ready(message).sender.path == b"q@x"


def test_resent_twice_cannot_be_told_apart() -> None:
    message = legacy(("From", "a@x"), ("To", "b@y"), ("Resent-Date", "1"), ("Resent-Date", "2"))
    with pytest.raises(ValueError, match="more than one block of Resent-"):
        ready(message)


def test_a_resent_message_without_resent_from_is_an_error() -> None:
    with pytest.raises(ValueError, match="no Resent-Sender or Resent-From"):
        ready(legacy(("From", "a@x"), ("To", "b@y"), ("Resent-Date", "1"), ("Resent-To", "c@y")))


@pytest.mark.parametrize(
    "text",
    [
        "just words here",
        "b@y c@z",
        "<b@y> <c@z>",
        "b@y, <>",
        "b@y)c@z",
        "Bob <b@y> c@z",
        "b@y: c@z",
    ],
)
def test_an_unreadable_recipient_is_not_silently_left_out(text: str) -> None:
    with pytest.raises(ValueError):
        ready(legacy(("From", "a@x"), ("To", text)))
    with pytest.raises(ValueError):
        ready(modern(To=text))


@pytest.mark.parametrize("text", ["root", "b..y@z", "b@y <b@y>", '"b c"@y', "b@y,, c@z"])
def test_an_odd_recipient_is_the_same_for_every_kind_of_message(text: str) -> None:
    assert paths(ready(modern(To=text))) == paths(ready(legacy(("From", "a@x"), ("To", text))))


# Bcc never leaves


@pytest.mark.parametrize("name", ["Bcc", "BCC", "bcc", "Resent-Bcc", "RESENT-BCC"])
@pytest.mark.parametrize("build", [EmailMessage, Message])
def test_bcc_never_leaves_in_any_spelling(name: str, build: type[Message]) -> None:
    message = build()
    message["From"] = "a@x"
    message[name] = "hidden@z"
    assert sent(message) == b"From: a@x\r\n\r\n"


@pytest.mark.parametrize("name", ["Bcc ", "Bcc\t", " bcc", "Resent-Bcc  "])
def test_bcc_with_blanks_built_by_hand_never_leaves_and_gets_the_mail(name: str) -> None:
    prefix = "Resent-" if "Resent" in name else ""
    message = legacy((prefix + "From", "a@x"), (name, "hidden@z"))
    if prefix:
        message["Resent-Date"] = "1"
    prepared = ready(message)
    assert paths(prepared) == [b"hidden@z"]
    assert b"hidden" not in data(prepared)


@pytest.mark.parametrize("by", POLICIES)
@pytest.mark.parametrize(
    "octets",
    [
        b"From: a@x\r\nTo: b@y\r\nBcc : hidden@z\r\nSubject: hi\r\n\r\nbody\r\n",
        b"From: a@x\nTo: b@y\nBCC\t: hidden@z\n\nbody\n",
        b"From: a@x\rTo: b@y\rBcc : hidden@z\r\rbody\r",
        b"From: a@x\r\nSubject : hi\r\nBcc: hidden@z\r\n\r\nbody\r\n",
        b"From: a@x\r\nContent-Type: text/plain\r\nbroken\r\nResent-Bcc: hidden@z\r\n\r\nbody\r\n",
        b"From: a@x\r\nContent-Type: multipart/mixed; boundary=b\r\nBcc : hidden@z\r\n\r\n--b\r\n\r\nx\r\n",
        b"From: a@x\r\nContent-Type: message/rfc822\r\nBcc : hidden@z\r\n\r\nSubject: inner\r\n\r\nbody\r\n",
    ],
)
def test_a_bcc_that_the_parser_took_for_the_body_is_an_error(octets: bytes, by: policy.Policy) -> None:
    with pytest.raises(ValueError, match="disclose a Bcc"):
        ready(parsed(octets, by), "a@x", ["b@y"])


def test_a_broken_header_block_without_bcc_still_leaves() -> None:
    message = parsed(b"From: a@x\r\nno header\r\n\r\nBcc: is explained here\r\n")
    assert sent(message) == b"From: a@x\r\n\r\nno header\r\n\r\nBcc: is explained here\r\n"
    message = parsed(b"From: a@x\r\nContent-Type: message/rfc822\r\nno header\r\n")
    assert sent(message).endswith(b"\r\n\r\nno header\r\n")


def test_the_bcc_of_an_attached_message_is_content() -> None:
    outer = modern()
    outer.add_attachment(modern(Bcc="inner@z"))
    assert b"Bcc: inner@z\r\n" in sent(outer)


# Header injection


@pytest.mark.parametrize(
    "value",
    [
        "a\nBcc: x@y",
        "a\rBcc: x@y",
        "a\r\nBcc: x@y",
        "a\n\nbody",
        "a\r\n\r\nbody",
        "a\n",
        "a\r",
        "\na",
        "a\n\x0bb",
        "a\0",
    ],
)
def test_a_line_break_in_a_compat32_header_is_an_error(value: str) -> None:
    with pytest.raises(ValueError):
        sent(legacy(("From", "a@x"), ("Subject", value), ("X-Last", "1")))


@pytest.mark.parametrize(
    "name", ["X\nBcc", "X\r\nBcc", "X: a\nBcc", "X:", "", "X Y", "Ünicode", "X\x7f", "Subject "]
)
def test_what_is_no_header_name_is_an_error(name: str) -> None:
    message = legacy(("From", "a@x"))
    # set_raw, for newer versions of the standard library check names in other ways in.
    message.set_raw(name, "a")
    with pytest.raises(ValueError, match="cannot be the name of a header"):
        sent(message)


@pytest.mark.parametrize("value", ["a\nBcc: x@y", "a\rBcc: x@y", "a\n\nbody", "a\n"])
@pytest.mark.parametrize("by", [policy.default, policy.SMTP])
def test_a_raw_value_with_a_line_break_is_an_error_in_an_email_message(value: str, by: policy.Policy) -> None:
    message = EmailMessage(by)
    message["From"] = "a@x"
    message.set_raw("Subject", value)
    with pytest.raises(ValueError, match="line break"):
        sent(message)


@pytest.mark.parametrize("separator", ["\x0b", "\x0c", "\x1c", "\x1d", "\x1e"])
def test_a_form_feed_in_a_parsed_header_makes_no_second_header(separator: str) -> None:
    octets = f"From: a@x\r\nSubject: a{separator}Bcc: hidden@z\r\n\r\nbody\r\n".encode()
    message = parsed(octets, policy.default)
    # Some versions of the standard library take these for line ends when they write, others do not.
    with contextlib.suppress(ValueError):
        assert sent(message) == octets


def test_a_header_that_ends_the_block_early_is_an_error() -> None:
    class Sneaky(Header):
        def encode(self, *args: object, **kwargs: object) -> str:
            return "a\r\n\r\nX-Never: 1"

    with pytest.raises(ValueError, match="header"):
        sent(legacy(("Subject", Sneaky("a")), ("X-Never", "1")))


def test_a_header_object_cannot_add_a_header_either() -> None:
    class Sneaky(Header):
        def encode(self, *args: object, **kwargs: object) -> str:
            return "a\r\nBcc: hidden@z"

    lenient = policy.compat32
    if hasattr(lenient, "verify_generated_headers"):
        lenient = lenient.clone(verify_generated_headers=False)
    message = Message(lenient)
    message["Subject"] = Sneaky("a")  # type: ignore[assignment]
    with pytest.raises(ValueError, match="header injection: the header block has more fields"):
        sent(message)
    message["To"] = "b@y"
    with pytest.raises(ValueError, match="header injection: the header block does not have To"):
        sent(message)


def test_a_line_break_in_a_part_is_an_error_too() -> None:
    message = MIMEMultipart()
    part = MIMEText("x")
    part["Content-Disposition"] = "attachment\r\n\r\nbody"
    message.attach(part)
    with pytest.raises(ValueError, match="line break"):
        sent(message)


def test_folded_headers_are_no_injection() -> None:
    octets = b"From: a@x\r\nReferences: <1@x>\r\n\t<2@x>\r\n  <3@x>\r\n\r\nhi\r\n"
    for by in POLICIES:
        assert sent(parsed(octets, by)) == octets
        assert sent(parsed(octets.replace(b"\r\n", b"\n"), by)) == octets


@given(st.text(alphabet="ab:\r\n\t \x0b\x0c\x85ü", max_size=12), st.sampled_from([Message, EmailMessage]))
def test_no_subject_whatsoever_adds_or_hides_a_header(value: str, build: type[Message]) -> None:
    message = build()
    message["From"] = "a@x"
    message.set_raw("Subject", value)
    message["To"] = "b@y"
    message.set_payload("body\n")
    try:
        octets = sent(message)
    except ValueError:
        return
    fields = [line for line in head(octets).split(b"\r\n") if not line.startswith((b" ", b"\t"))]
    assert [field.partition(b":")[0] for field in fields] == [b"From", b"Subject", b"To"]
    assert octets.endswith(b"\r\n\r\nbody\r\n")


# The caller's object


def _samples() -> Iterator[tuple[str, Message]]:
    yield "plain", modern(Bcc="hidden@z")
    rich = modern(From="Jörg <a@bücher.example>", Subject="Grüße", Bcc="hidden@z")
    rich.add_alternative("<p>Grüße</p>\n", subtype="html")
    rich.add_attachment(b"\0\xff", maintype="application", subtype="octet-stream", filename="ü.bin")
    rich.add_attachment(modern(Subject="inner"))
    yield "rich", rich
    multi = MIMEMultipart()
    multi["From"], multi["To"], multi["Bcc"] = "a@bücher.example", "b@y", "hidden@z"
    multi.attach(MIMEText("Grüße\n", "plain", "utf-8"))
    inner = MIMEMultipart("alternative")
    inner.attach(MIMEText("one\n"))
    multi.attach(inner)
    multi.attach(MIMEMessage(legacy(("Subject", "inner"))))
    yield "legacy multipart without boundaries", multi
    raw = b"From: a@x\r\nTo: b@y\r\nBcc: h@z\r\nSubject: caf\xc3\xa9\r\n\r\ncaf\xc3\xa9\r\n"
    yield "parsed 8-bit", parsed(raw)
    yield "parsed 8-bit modern", parsed(raw, policy.default)


def _state(message: Message) -> object:
    """Everything in a message object, deep down, texts by identity."""
    payload = message.__dict__["_payload"]
    inner = [_state(part) for part in payload] if isinstance(payload, list) else id(payload)
    headers = [(name, id(value)) for name, value in message.raw_items()]
    rest = {key: value for key, value in vars(message).items() if key not in ("_payload", "_headers")}
    return id(message), headers, inner, copy.copy(rest)


@pytest.mark.parametrize("eightbitmime", [True, False])
@pytest.mark.parametrize(("name", "message"), list(_samples()))
def test_sending_leaves_the_message_as_it_was(name: str, message: Message, eightbitmime: bool) -> None:
    before = _state(message)
    ready(message, eightbitmime=eightbitmime, smtputf8=eightbitmime)
    assert _state(message) == before


def test_a_failed_send_leaves_the_message_as_it_was() -> None:
    message = MIMEMultipart()
    message["Bcc"] = "hidden@z"
    message.attach(MIMEText("fine"))
    broken = MIMEBase("text", "plain")
    broken.set_payload(7)
    message.attach(broken)
    before = _state(message)
    with pytest.raises(ValueError, match="cannot be written"):
        sent(message)
    assert _state(message) == before


def test_no_node_of_the_message_is_touched_even_while_it_is_written() -> None:
    class Watched(MIMEText):
        def __setattr__(self, name: str, value: object) -> None:
            if "sealed" in self.__dict__ and self.__dict__["sealed"] is self:
                raise AssertionError(f"{name} was set")
            super().__setattr__(name, value)

    message = MIMEMultipart()
    part = Watched("caf\xe9", "plain", "latin-1")
    part.__dict__["sealed"] = part
    message.attach(part)
    assert b"boundary=" in sent(message, eightbitmime=False)
    with pytest.raises(AssertionError):
        part.policy = policy.default


def test_the_same_message_can_be_sent_twice() -> None:
    message = modern(Bcc="hidden@z")
    assert data(ready(message)) == data(ready(message))


# 8-bit content


def body_of(octets: bytes) -> bytes:
    part = parsed(octets)
    payload = part.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload


@pytest.mark.parametrize("by", POLICIES)
@pytest.mark.parametrize("encoding", [b"Content-Transfer-Encoding: 8bit\r\n", b""])
@pytest.mark.parametrize(
    "kind", [b"Content-Type: text/plain; charset=utf-8\r\n", b"Content-Type: text/plain\r\n", b""]
)
def test_parsed_8_bit_text_leaves_as_it_is_or_in_7_bits(
    by: policy.Policy, encoding: bytes, kind: bytes
) -> None:
    body = "Grüße,\r\n.\r\nFrom here \r\n".encode()
    octets = b"From: a@x\r\nTo: b@y\r\nMIME-Version: 1.0\r\n" + kind + encoding + b"\r\n" + body
    message = parsed(octets, by)
    assert data(ready(message)) == octets
    wire = data(ready(message, eightbitmime=False))
    assert wire.isascii()
    assert body_of(wire) == body
    assert wire.count(b"Content-Transfer-Encoding: quoted-printable\r\n") == 1


def test_text_in_a_charset_that_nobody_knows_is_reencoded_all_the_same() -> None:
    message = parsed(b"Content-Type: text/plain; charset=no-such\r\n\r\ncaf\xe9\r\n")
    wire = sent(message, eightbitmime=False)
    assert body_of(wire) == b"caf\xe9\r\n"
    assert b"charset=no-such" in wire


def test_8_bit_octets_that_are_no_text_become_base64() -> None:
    message = parsed(b"Content-Type: image/png\r\nContent-Transfer-Encoding: binary\r\n\r\n\x89PNG\n\xff")
    wire = sent(message, eightbitmime=False)
    assert b"Content-Transfer-Encoding: base64\r\n" in wire
    assert body_of(wire) == b"\x89PNG\n\xff"


def test_text_with_a_nul_becomes_base64_too() -> None:
    message = parsed(b"Content-Type: text/plain; charset=utf-16\r\n\r\n\xff\xfea\0")
    assert body_of(sent(message, eightbitmime=False)) == b"\xff\xfea\0"
    with pytest.raises(ValueError, match="NUL"):
        sent(message)


def test_every_part_is_reencoded_and_the_containers_say_so() -> None:
    octets = (
        b'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="b"\r\n'
        b"Content-Transfer-Encoding: 8bit\r\n\r\n"
        b"--b\r\nContent-Type: text/plain; charset=utf-8\r\n"
        b"Content-Transfer-Encoding: 8bit\r\n\r\ncaf\xc3\xa9\r\n"
        b"--b\r\nContent-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
        b"Subject: inner\r\n\r\ncaf\xc3\xa9\r\n\r\n--b--\r\n"
    )
    for by in POLICIES:
        message = parsed(octets, by)
        assert sent(message) == octets
        wire = sent(message, eightbitmime=False)
        assert wire.isascii()
        assert b"8bit" not in wire
        assert wire.count(b"Content-Transfer-Encoding: quoted-printable\r\n") == 2
        assert wire.count(b"caf=C3=A9\r\n") == 2


@pytest.mark.parametrize(
    "octets",
    [
        # Octets where only the parts may have them.
        b'Content-Type: multipart/mixed; boundary="b"\r\n\r\ncaf\xe9\r\n--b\r\n\r\nx\r\n--b--\r\n',
        # What claims to be encoded already.
        b"Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\ncaf\xe9\r\n",
        # A forwarded message, as a part of which only the header was parsed.
        b"Content-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\ncaf\xe9\r\n",
    ],
)
def test_8_bit_octets_that_cannot_be_reencoded_need_8bitmime(octets: bytes) -> None:
    read = BytesHeaderParser().parsebytes if b"rfc822" in octets else email.message_from_bytes
    message = read(octets)
    with pytest.raises(SMTPNotSupportedError, match="8BITMIME"):
        sent(message, eightbitmime=False)
    if read is email.message_from_bytes:
        assert sent(message) == octets


@pytest.mark.parametrize("build", ["modern", "legacy"])
def test_composed_text_leaves_as_8_bit_only_where_it_may(build: str) -> None:
    message: Message
    if build == "modern":
        message = modern()
        message.set_content("Grüße\n", cte="8bit")
    else:
        message = legacy(("From", "a@x"), ("To", "b@y"))
        message.set_payload("Grüße\n".encode().decode("ascii", "surrogateescape"))
        message["Content-Type"] = "text/plain; charset=utf-8"
    assert data(ready(message)).endswith("\r\n\r\nGrüße\r\n".encode())
    assert data(ready(message, eightbitmime=False)).endswith(b"\r\n\r\nGr=C3=BC=C3=9Fe\r\n")


# Signed messages

SIGNED = (
    b"From: a@x\r\nTo: b@y\r\nMIME-Version: 1.0\r\n"
    b'Content-Type: multipart/signed; protocol="application/pgp-signature"; boundary="sig"\r\n\r\n'
    b"This is signed.\r\n"
    b"--sig\r\nContent-Type: text/plain; charset=utf-8; format=flowed;\r\n  x-long-parameter="
    + b"p"
    * 120
    + b"\r\n"
    b"X-Long: " + b"word " * 40 + b"end\r\n\r\n"
    b"From now on \r\n\ttrailing blanks \r\n.\r\n" + b"long" * 400 + b"\r\n\r\n"
    b"\r\n--sig\r\nContent-Type: application/pgp-signature\r\n\r\n"
    b"-----BEGIN-----\r\n-----END-----\r\n\r\n--sig--\r\n"
)


@pytest.mark.parametrize("by", POLICIES)
def test_signed_parts_leave_octet_for_octet(by: policy.Policy) -> None:
    wire = data(ready(parsed(SIGNED, by)))
    signed = SIGNED.partition(b"--sig\r\n")[2].partition(b"\r\n--sig\r\n")[0]
    assert signed in wire
    assert wire.partition(b"\r\n\r\n")[2] == SIGNED.partition(b"\r\n\r\n")[2]


def test_8_bit_signed_parts_are_not_broken_by_reencoding() -> None:
    message = parsed(SIGNED.replace(b"trailing", b"caf\xc3\xa9"), policy.default)
    assert b"caf\xc3\xa9" in sent(message)
    with pytest.raises(SMTPNotSupportedError, match="signed part"):
        sent(message, eightbitmime=False)


# International headers


def test_a_display_name_becomes_an_encoded_word_and_needs_no_extension() -> None:
    for message in (
        modern(From="Jörg <a@x>", Subject="Grüße"),
        legacy(("From", "Jörg <a@x>"), ("To", "b@y"), ("Subject", "Grüße")),
        legacy(("From", Header("Jörg <a@x>", "utf-8")), ("To", "b@y"), ("Subject", "Grüße")),
    ):
        prepared = ready(message, eightbitmime=False, smtputf8=True)
        assert not prepared.smtputf8
        assert prepared.sender.path == b"a@x"
        assert b"From: =?utf-8?q?J=C3=B6rg?= <a@x>\r\n" in data(prepared)
        assert data(prepared).isascii()


@pytest.mark.parametrize("by", POLICIES)
def test_a_domain_that_is_not_ascii_becomes_a_labels_in_address_headers(by: policy.Policy) -> None:
    message = EmailMessage(by) if by is not policy.compat32 else Message()
    for name in ("From", "Sender", "Reply-To", "To", "Cc", "Resent-From", "Resent-To"):
        message[name] = "Bob <bob@bücher.example>"
    message["Subject"] = "bob@bücher.example"
    prepared = ready(message, eightbitmime=False)
    assert not prepared.smtputf8
    assert data(prepared).count(b": Bob <bob@xn--bcher-kva.example>\r\n") == 7
    assert data(prepared).isascii()
    assert paths(prepared) == [b"bob@xn--bcher-kva.example"] * 2


def test_groups_and_names_survive_the_rewriting_of_a_domain() -> None:
    message = modern()
    message["Cc"] = [Group("Team", [Address("Müller, Jörg", "j", "bücher.example"), Address("", "d", "y")])]
    wire = data(ready(message))
    again = email.message_from_bytes(wire, policy=policy.default)
    assert [str(group) for group in again["Cc"].groups] == [
        'Team: "Müller, Jörg" <j@xn--bcher-kva.example>, d@y;'
    ]


@pytest.mark.parametrize("build", ["modern", "legacy"])
@pytest.mark.parametrize("name", ["From", "To", "Cc", "Reply-To"])
def test_a_local_part_that_is_not_ascii_in_a_header_needs_smtputf8(build: str, name: str) -> None:
    value = "Jörg <jörg@bücher.example>"
    headers = {"From": "a@x", "To": "b@y"} | {name: value}
    message: Message = modern(**headers) if build == "modern" else legacy(*headers.items())
    with pytest.raises(SMTPNotSupportedError, match=f"header {name} has a non-ASCII local part"):
        ready(message, "a@x", ["b@y"], eightbitmime=True)
    prepared = ready(message, "a@x", ["b@y"], eightbitmime=False, smtputf8=True)
    assert prepared.smtputf8
    assert f"{name}: {value}\r\n".encode() in data(prepared)


def test_bcc_alone_needs_smtputf8_for_the_envelope_only() -> None:
    message = modern(Bcc="jörg@x")
    with pytest.raises(SMTPNotSupportedError, match="the address 'jörg@x'"):
        ready(message)
    assert not ready(message, None, ["b@y"]).smtputf8


def test_many_international_recipients_are_folded_under_smtputf8() -> None:
    many = [f"Jörg {number} <jörg{number}@example.org>" for number in range(60)]
    for message in (modern(To=", ".join(many)), legacy(("From", "a@x"), ("To", ", ".join(many)))):
        prepared = ready(message, smtputf8=True)
        assert len(prepared.recipients) == 60
        assert max(map(len, data(prepared).split(b"\r\n"))) < 200
        assert data(prepared).count("jörg".encode()) == 60


@pytest.mark.parametrize("by", POLICIES)
def test_a_parsed_international_message_leaves_as_it_came_or_not_at_all(by: policy.Policy) -> None:
    octets = "From: Jörg <jörg@example.org>\r\nTo: b@y\r\nSubject: Grüße\r\n\r\nhi\r\n".encode()
    with pytest.raises(SMTPNotSupportedError, match="SMTPUTF8"):
        ready(parsed(octets, by))
    prepared = ready(parsed(octets, by), smtputf8=True)
    assert prepared.sender.path == "jörg@example.org".encode()
    assert "From: Jörg <jörg@example.org>\r\n".encode() in data(prepared)


@pytest.mark.parametrize("by", POLICIES)
def test_raw_octets_in_parsed_headers_do_not_leave_without_smtputf8(by: policy.Policy) -> None:
    octets = "From: Jörg <a@bücher.example>\r\nTo: b@y\r\nSubject: Grüße\r\n\r\nhi\r\n".encode()
    prepared = ready(parsed(octets, by))
    assert data(prepared).isascii()
    again = email.message_from_bytes(data(prepared), policy=policy.default)
    assert again["From"] == "Jörg <a@xn--bcher-kva.example>"
    assert again["Subject"] == "Grüße"


@pytest.mark.parametrize("by", POLICIES)
def test_headers_in_another_charset_leave_as_encoded_words(by: policy.Policy) -> None:
    prepared = ready(parsed(b"From: J\xf6rg <a@x>\r\nTo: b@y\r\nSubject: Gr\xfc\xdfe\r\n\r\nhi\r\n", by))
    assert prepared.sender.path == b"a@x"
    assert b"<a@x>\r\n" in data(prepared)
    assert b"unknown-8bit" in data(prepared)
    assert data(prepared).isascii()


def test_an_undecodable_address_is_an_error() -> None:
    with pytest.raises(ValueError, match="could not be decoded"):
        ready(parsed(b"From: j\xf6rg@x\r\nTo: b@y\r\n\r\nhi\r\n"))


def test_an_impossible_domain_in_a_header_is_an_error() -> None:
    with pytest.raises(ValueError, match="no ASCII form"):
        ready(legacy(("From", "a@ä..x")), "a@x", "b@y")


# What composes a message


def test_lines_that_start_with_from_are_not_quoted() -> None:
    for message in (legacy(("From", "a@x"), body="From me\n>From you\n"), modern()):
        if isinstance(message, EmailMessage):
            message.set_content("From me\n>From you\n")
        assert sent(message).endswith(b"\r\n\r\nFrom me\r\n>From you\r\n")
        assert b"From nobody" not in sent(message)


def test_an_mbox_separator_does_not_leave() -> None:
    message = parsed(b"From someone Mon Jan  1 00:00:00 2024\nFrom: a@x\n\nhi\n")
    assert sent(message) == b"From: a@x\r\n\r\nhi\r\n"


@pytest.mark.parametrize("body", ["a\nb", "a\r\nb\r\n", "a\rb\r", "a\r\nb"])
@pytest.mark.parametrize("build", [EmailMessage, Message])
def test_all_line_ends_become_crlf(body: str, build: type[Message]) -> None:
    message = build()
    message["From"] = "a@x"
    message.set_payload(body)
    assert sent(message) == b"From: a@x\r\n\r\na\r\nb\r\n"


def test_a_message_without_a_body_or_without_headers_leaves() -> None:
    assert sent(Message()) == b"\r\n"
    assert sent(EmailMessage()) == b"\r\n"
    assert sent(legacy(body="Bcc: this is text\n")) == b"\r\nBcc: this is text\r\n"
    assert sent(legacy(("From", "a@x"), body="")) == b"From: a@x\r\n\r\n"


def test_attachments_of_every_kind_leave() -> None:
    message = MIMEMultipart()
    message["Subject"] = "all"
    message.attach(MIMEText("Grüße\n", "plain", "utf-8"))
    message.attach(MIMEApplication(b"\0\xff"))
    message.attach(MIMEMessage(modern(Subject="inner")))
    # What a header-only parser makes of a forwarded message.
    message.attach(BytesHeaderParser().parsebytes(b"Content-Type: message/rfc822\n\nSubject: text\n\nbody\n"))
    wire = sent(message, eightbitmime=False)
    again = email.message_from_bytes(wire)
    assert [part.get_content_type() for part in again.get_payload()] == [  # type: ignore[union-attr]
        "text/plain",
        "application/octet-stream",
        "message/rfc822",
        "message/rfc822",
    ]
    assert b"Subject: inner\r\n" in wire
    assert b"Subject: text\r\n\r\nbody\r\n" in wire


def test_a_multipart_may_hold_a_single_message_without_a_list() -> None:
    inner = MIMEMultipart()
    message = MIMEMultipart()
    message.set_payload(inner)
    assert sent(message).count(b"boundary=") == 2
    assert inner.get_boundary() is None
    assert message.get_boundary() is None


def _looping() -> Message:
    message = MIMEMultipart()
    message.attach(message)
    return message


def _with_payload(payload: object, kind: str = "text/plain") -> Message:
    message = legacy(("Content-Type", kind))
    message.__dict__["_payload"] = payload
    return message


@pytest.mark.parametrize(
    "message",
    [
        _with_payload(7),
        _with_payload(b"octets"),
        _with_payload(["no message"], "multipart/mixed"),
        _with_payload("Grüße"),
        _with_payload("Grüße", "image/png"),
        legacy(("X", 5)),
        _looping(),
    ],
    ids=[
        "int",
        "bytes",
        "list of str",
        "text without charset",
        "image as text",
        "int header",
        "loop",
    ],
)
@pytest.mark.parametrize("eightbitmime", [True, False])
def test_what_cannot_be_written_is_a_value_error_with_its_cause(message: Message, eightbitmime: bool) -> None:
    with pytest.raises(ValueError, match="the message cannot be written") as caught:
        sent(message, eightbitmime=eightbitmime)
    assert caught.value.__cause__ is not None
    assert type(caught.value) is ValueError
