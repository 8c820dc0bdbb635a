"""Message objects: what of them leaves, in which octets, and that they stay what they were."""

from __future__ import annotations

import copy
import email
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
from letters import POLICIES, data, legacy, modern, parsed, paths, ready, sent

from aiosmtpclient.errors import SMTPNotSupportedError

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


@pytest.mark.parametrize("eightbitmime", [True, False])
def test_what_is_fit_for_the_wire_is_not_copied(monkeypatch: pytest.MonkeyPatch, eightbitmime: bool) -> None:
    def no_copy(*given: object) -> None:
        raise AssertionError("a node was copied")

    message = modern(Bcc="hidden@z")
    message.add_attachment(b"\0\xff", maintype="application", subtype="octet-stream")
    monkeypatch.setattr("aiosmtpclient.serialiser.copy.copy", no_copy)
    assert b"hidden" not in sent(message, eightbitmime=eightbitmime)


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


@pytest.mark.parametrize("label", [b"8bit", b"binary", b"BINARY"])
def test_every_part_is_reencoded_and_the_containers_say_so(label: bytes) -> None:
    octets = (
        b'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="b"\r\n'
        b"Content-Transfer-Encoding: 8bit\r\n\r\n"
        b"--b\r\nContent-Type: text/plain; charset=utf-8\r\n"
        b"Content-Transfer-Encoding: 8bit\r\n\r\ncaf\xc3\xa9\r\n"
        b"--b\r\nContent-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
        b"Subject: inner\r\n\r\ncaf\xc3\xa9\r\n\r\n--b--\r\n"
    ).replace(b"8bit", label)
    for by in POLICIES:
        message = parsed(octets, by)
        assert sent(message) == octets
        wire = sent(message, eightbitmime=False)
        assert wire.isascii()
        assert label not in wire
        assert wire.count(b"Content-Transfer-Encoding: quoted-printable\r\n") == 2
        assert wire.count(b"Content-Transfer-Encoding: 7bit\r\n") == 2
        assert wire.count(b"caf=C3=A9\r\n") == 2


def test_parts_are_reencoded_in_a_container_that_says_nothing_too() -> None:
    octets = (
        b'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\n'
        b"--b\r\nContent-Type: text/plain; charset=utf-8\r\n"
        b"Content-Transfer-Encoding: 8bit\r\n\r\ncaf\xc3\xa9\r\n--b--\r\n"
    )
    for by in POLICIES:
        message = parsed(octets, by)
        assert sent(message) == octets
        wire = sent(message, eightbitmime=False)
        assert wire.startswith(octets.partition(b"--b\r\n")[0])
        assert wire.count(b"Content-Transfer-Encoding: quoted-printable\r\n") == 1
        assert wire.count(b"caf=C3=A9\r\n") == 1


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
    with pytest.raises(
        SMTPNotSupportedError,
        match=r"^a signed part has 8-bit octets, and the server does not offer 8BITMIME$",
    ):
        sent(message, eightbitmime=False)


def test_a_policy_of_somebodys_own_need_not_be_hashable() -> None:
    class Own(policy.EmailPolicy):
        __hash__ = None  # type: ignore[assignment]

    message = parsed(b"From: a@x\r\nTo: b@y\r\n\r\nhi\r\n", Own())
    assert sent(message) == b"From: a@x\r\nTo: b@y\r\n\r\nhi\r\n"


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
    message.set_payload(parsed("\r\nGrüße\r\n".encode()))
    message["Content-Transfer-Encoding"] = "8bit"
    wire = sent(message, eightbitmime=False)
    assert b"Gr=C3=BC=C3=9Fe\r\n" in wire
    assert b"8bit" not in wire
    assert message["Content-Transfer-Encoding"] == "8bit"


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
