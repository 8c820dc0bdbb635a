"""Messages: from whom and for whom, that no Bcc leaves and no header is smuggled in."""

from __future__ import annotations

import contextlib
import io
import pathlib
import pickle
import subprocess
import sys
from email import policy
from email.header import Header
from email.headerregistry import Address, Group
from email.message import EmailMessage, Message
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from letters import POLICIES, data, head, legacy, modern, parsed, paths, ready, sent

from aiosmtpclient.content import Stream
from aiosmtpclient.errors import Delivery, SMTPNotSupportedError
from aiosmtpclient.message import Envelope, Prepared, prepare

# Envelope


def test_an_envelope_counts_a_string_as_one_recipient() -> None:
    envelope = Envelope("a@x", "b@y", b"hi", mail_options="RET=HDRS")
    assert envelope.recipients == ("b@y",)
    assert envelope.mail_options == ("RET=HDRS",)
    assert envelope.rcpt_options == ()
    assert envelope.all_or_nothing is False


def test_a_class_of_your_own_keeps_what_it_put_into_an_envelope() -> None:
    class Numbered(Envelope):
        number: int
        plain = False

        def __init__(self, number: int, *arguments: Any) -> None:
            object.__setattr__(self, "number", number)
            super().__init__(*arguments)

    made = Numbered(7, "a@b.c", "d@e.f", b"")
    assert (made.number, made.plain, made.recipients) == (7, False, ("d@e.f",))


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
    assert list(prepared.recipients.texts) == ["b@y", "B <b@y>"]
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


@pytest.mark.parametrize("content", [b"\0\r.\n\xff", [b"\0"], pathlib.Path("x.bin")])
def test_binary_content_is_neither_checked_nor_changed(content: object) -> None:
    prepared = prepare("a@x", "b@y", content, eightbitmime=False, smtputf8=False, binary=True)  # type: ignore[arg-type]
    assert prepared.content.binary
    if isinstance(content, bytes):
        assert data(prepared) == content


def test_a_message_object_is_not_binary() -> None:
    with pytest.raises(ValueError, match="BINARYMIME"):
        prepare("a@x", "b@y", modern(), eightbitmime=True, smtputf8=True, binary=True)


def test_what_message_objects_need_is_not_imported_before_one_is_sent() -> None:
    script = (
        "import sys, aiosmtpclient.message as m\n"
        "m.prepare('a@x', 'b@y', b'octets', eightbitmime=True, smtputf8=True)\n"
        "print([name for name in sys.modules if name.endswith(('message_objects', 'headerregistry'))])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


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
    with pytest.raises(ValueError, match=r"^the message has more than one block of Resent- headers$"):
        ready(message)


def test_a_resent_message_without_resent_from_is_an_error() -> None:
    with pytest.raises(
        ValueError, match=r"^the message has no Resent-Sender or Resent-From to send it from$"
    ):
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


@pytest.mark.parametrize("length", [100, 101])
def test_what_cannot_be_read_is_shown_up_to_a_hundred_characters(length: int) -> None:
    text = "a@x, <>, b@".ljust(length, "y")
    with pytest.raises(ValueError) as caught:
        ready(modern(To=text))
    assert str(caught.value) == f"cannot read the addresses in the header To: {text[:100]!r}"


@pytest.mark.parametrize("text", ["ann . lee@x", "ann@x . y"])
def test_an_address_in_an_obsolete_form_is_read_where_the_library_does(text: str) -> None:
    [path] = paths(ready(modern(To=text)))
    assert path == text.replace(" ", "").encode()


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


@pytest.mark.parametrize("name", ["To", "Subject"])
@pytest.mark.parametrize("build", [Message, EmailMessage])
@pytest.mark.parametrize("end", ["\r\n", "\n", "\r"])
def test_a_line_break_in_an_international_header_is_refused_and_not_taken_out(
    name: str, build: type[Message], end: str
) -> None:
    message = build()
    message["From"] = "a@x"
    message.set_raw(name, f"Jörg <j@y>{end}Bcc: hidden@z")
    with pytest.raises(ValueError, match=f"the header '{name}' has a line break in its value"):
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
    with pytest.raises(
        ValueError, match=r"^header injection: the header block has more fields than the message$"
    ):
        sent(message)
    message["To"] = "b@y"
    words = r"^header injection: the header block does not have To where the message has it$"
    with pytest.raises(ValueError, match=words):
        sent(message)


@pytest.mark.parametrize(
    "block",
    [
        b"\r\n",
        b"From: a@x\r\n",
        b" From: a@x\r\n\r\n",
        b"From: a@x\r\n\r\nTo: b@y\r\n\r\n",
        b"From: a@x\r\nTo: b@y\r\nBcc: hidden@z\r\n\r\n",
        b"From: a@x\r\nBcc: hidden@z\r\nTo: b@y\r\n\r\n",
        b"From: a@x\r\nTo: b@y\nBcc: hidden@z\r\n\r\n",
        b"From: a@x\r\nTo: b@y\rBcc: hidden@z\r\n\r\n",
        b"From: a@x\r\nTo: b@y\r\n",
        b"From : a@x\r\nTo: b@y\r\n\r\n",
        b"From\r\nTo: b@y\r\n\r\n",
        b"",
    ],
)
def test_whatever_was_written_must_have_the_fields_of_the_message(
    block: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aiosmtpclient.message_objects.write", lambda *given: ([block], True))
    with pytest.raises(ValueError, match="header injection"):
        sent(legacy(("From", "a@x"), ("To", "b@y")))


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


def test_an_address_header_taken_from_another_message_in_other_letters_is_no_injection() -> None:
    given, message = modern(), EmailMessage()
    message["FROM"], message["TO"] = given["From"], given["To"]
    assert sent(message) == b"From: a@x\r\nTo: b@y\r\n\r\n"
    message.set_raw("Subject", modern(Bcc="hidden@z")["Bcc"])
    with pytest.raises(ValueError, match="header injection"):
        sent(message)
