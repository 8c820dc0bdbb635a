"""The serialiser: the same octets as the standard library's generator, and nothing touched."""

from __future__ import annotations

import copy
import email
import email.headerregistry
import io
import pathlib
import random
import re
import test
from collections.abc import Callable
from email import policy
from email.generator import BytesGenerator
from email.header import Header
from email.headerregistry import BaseHeader, HeaderRegistry
from email.message import EmailMessage, Message
from email.mime.application import MIMEApplication
from email.mime.base import MIMEBase
from email.mime.message import MIMEMessage
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from email.parser import BytesHeaderParser
from email.policy import EmailPolicy, Policy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiosmtpclient.serialiser import Written, twin_of, write

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples" / "messages"
STANDARD = pathlib.Path(test.__file__).parent / "test_email" / "data"
"""The sample messages of the interpreter's own tests; not all installations have them."""


def wire(by: Policy, **changes: object) -> Policy:
    return by.clone(linesep="\r\n", mangle_from_=False, **changes)


MODERN = wire(policy.default)
LEGACY = wire(policy.compat32)
POLICIES = [
    MODERN,
    wire(policy.default, cte_type="7bit"),
    wire(policy.default, utf8=True),
    LEGACY,
    wire(policy.compat32, cte_type="7bit"),
]
ODD_POLICIES = [
    wire(policy.default, max_line_length=40),
    wire(policy.default, max_line_length=0),
    wire(policy.default, max_line_length=None, refold_source="none"),
    wire(policy.default, refold_source="all"),
    wire(policy.compat32, max_line_length=40),
    wire(policy.compat32, max_line_length=0),
    wire(policy.compat32, max_line_length=None),
]


def by_library(message: Message, by: Policy) -> bytes:
    buffer = io.BytesIO()
    BytesGenerator(buffer, policy=by).flatten(copy.deepcopy(message))
    return buffer.getvalue()


def with_crlf(octets: bytes) -> bytes:
    lines = re.sub(rb"\r\n|\r|\n", b"\r\n", octets)
    return lines if lines.endswith(b"\r\n") else lines + b"\r\n"


def state(message: Message) -> object:
    """Everything in a message object, deep down, values by identity."""
    inner = message.__dict__["_payload"]
    parts = [state(each) for each in inner] if isinstance(inner, list) else id(inner)
    rest = {key: id(value) for key, value in vars(message).items() if key != "_headers"}
    return [(name, id(value)) for name, value in message.raw_items()], parts, rest


def broken(message: Message) -> bool:
    """True if there is a header that may be refused, though the standard library writes it."""
    payload = message.__dict__["_payload"]
    inner = [each for each in (payload if isinstance(payload, list) else [payload])]
    return any(
        re.search(r"(\r\n|\r|\n)(?![ \t])", str(value)) or not re.fullmatch(r"[!-9;-~]+", name)
        for name, value in message.raw_items()
    ) or any(broken(each) for each in inner if isinstance(each, Message))


def agree(message: Message, by: Policy) -> Written | None:
    """Assert that both write the same, or neither; return what was written."""
    before = state(message)
    random.seed(7)
    try:
        expected = by_library(message, by)
    except Exception:
        with pytest.raises(Exception):  # noqa: B017 - whatever the library raised
            write(message, by)
        return None
    random.seed(7)
    try:
        written = write(message, by)
    except ValueError:
        assert broken(message)
        return None
    assert with_crlf(written.octets) == with_crlf(expected)
    assert not written.clean or written.octets == with_crlf(expected)
    assert state(message) == before
    return written


def agree_under_all(message: Message) -> None:
    for by in POLICIES:
        agree(message, by)


# --- Whatever can be generated ---

WORDS = st.sampled_from(
    [
        *(
            "a",
            "bc",
            "the",
            "Grüße",
            "日本語",
            "=?utf-8?q?caf=C3=A9?=",
            "(comment)",
            '"quoted, text"',
            "\\",
            "=",
        ),
        *(
            "x" * 30,
            "y" * 90,
            "a@example.org",
            "<1234.5678@example.org>",
            ",",
            ";",
            ":",
            "\t",
            " ",
            "",
            "[x]",
        ),
    ]
)
TEXTS = st.lists(WORDS, max_size=9).map(" ".join)
ADDRESSES = st.sampled_from(
    [
        "a@example.org",
        "Al <a@example.org>",
        '"Bundy, Al" <a@example.org>',
        "Jörg <j@example.org>",
        "Al  Bundy   <a@example.org> (home)",
        "Team: a@example.org, b@example.org;",
        "undisclosed-recipients:;",
        "A long display name of many words <somebody@a.rather.long.domain.example.org>",
    ]
)
RECIPIENTS = st.lists(ADDRESSES, min_size=1, max_size=4).map(", ".join)
LINE_ENDS = st.sampled_from(["\n", "\r\n", "\r"])
BODIES = st.lists(
    st.sampled_from(["line", "", "From me", ".", "Grüße", "x" * 1100, "--b", "--b--"]), max_size=6
)
TYPES = st.sampled_from(
    [
        "text/plain",
        'text/html; charset="utf-8"',
        "TEXT/Plain; Charset=latin-1; format=flowed",
        'application/octet-stream; name="Grüße.bin"',
        "application/pdf; name*=utf-8''%C3%BC.pdf",
        "image/png",
        "nonsense",
        "text",
        "text/plain/x",
        "text /plain",
        "multipart/mixed",
        'multipart/mixed; boundary="b"',
        "multipart/alternative; boundary=b",
        'multipart/related; type="text/html"; boundary="a long boundary of words"',
        'multipart/mixed; boundary="b"; boundary="c"',
        "multipart/mixed; boundary*0=b; boundary*1=c",
        'multipart/signed; protocol="application/pgp-signature"; micalg=pgp-sha256; boundary="b"',
        'multipart/digest; boundary="b"',
        "multipart/report; report-type=delivery-status; boundary=b",
        "message/rfc822",
        "message/delivery-status",
        "message/partial; number=1",
        "message_delivery/status",
        "multipart_mixed/x",
        "",
    ]
)
FIELDS = st.one_of(
    st.tuples(
        st.sampled_from(["Subject", "X-Note", "Comments", "Date", "Message-ID", "MIME-Version"]), TEXTS
    ),
    st.tuples(st.sampled_from(["From", "To", "Cc", "Reply-To", "Sender"]), RECIPIENTS),
    st.tuples(st.just("Content-Type"), TYPES),
    st.tuples(
        st.just("Content-Transfer-Encoding"), st.sampled_from(["7bit", "8bit", "base64", "quoted-printable"])
    ),
    st.just(("Content-Disposition", "attachment; filename=a.txt")),
    st.just(("Date", "Mon, 01 Jan 2024 00:00:00 +0000")),
)


@st.composite
def composed(draw: st.DrawFn, depth: int = 2) -> EmailMessage:
    """What the standard library's own methods build."""
    message = EmailMessage(draw(st.sampled_from([policy.default, policy.SMTP, policy.SMTPUTF8])))
    message["Subject"] = draw(TEXTS)
    message["To"] = draw(RECIPIENTS)
    message["Date"] = "Mon, 01 Jan 2024 00:00:00 +0000"
    body = "".join(f"{line}\n" for line in draw(BODIES))
    message.set_content(body, cte=draw(st.sampled_from([None, "base64", "quoted-printable"])))
    if draw(st.booleans()):
        message.add_alternative(f"<p>{body}</p>\n", subtype="html")
    if draw(st.booleans()):
        name = draw(st.sampled_from(["a.pdf", "Grüße.pdf", "n" * 80 + ".pdf"]))
        octets = draw(st.binary(max_size=200))
        message.add_attachment(octets, maintype="application", subtype="pdf", filename=name)
    if depth and draw(st.booleans()):
        message.add_attachment(draw(composed(depth - 1)))
    if draw(st.booleans()):
        if message.get_content_subtype() != "mixed":
            message.make_mixed()
        message.preamble = draw(st.sampled_from([None, "", "see below", "one\ntwo\n", "caf\udce9\r\n"]))
        message.epilogue = draw(st.sampled_from([None, "", "\n", "end", "end\r"]))
    if message.is_multipart() and draw(st.booleans()):
        message.set_boundary(draw(st.sampled_from(["b", "with blanks ", "bücher"])))
    return message


@st.composite
def handmade(draw: st.DrawFn, depth: int = 2) -> Message:
    """What is put together field by field, sensible or not, under either policy."""
    message = draw(st.sampled_from([Message, EmailMessage]))(draw(st.sampled_from([MODERN, LEGACY])))
    for name, value in draw(st.lists(FIELDS, max_size=4)):
        if draw(st.booleans()):
            message.set_raw(name, MODERN.header_factory(name, value))
        else:
            fold = draw(st.sampled_from(["\r\n ", "\n\t", " ", "\r ", " \n ", "\x0b", "\n"]))
            message.set_raw(name, value.replace(" ", fold, 1))
    kind = draw(st.sampled_from(["text", "parts", "part", "none"])) if depth else "text"
    if kind == "text":
        text = draw(LINE_ENDS).join(draw(BODIES))
        disguise = draw(
            st.sampled_from([text.encode(), text.encode("latin-1"), text.encode("ascii", "replace")])
        )
        message.set_payload(disguise.decode("ascii", "surrogateescape"))
    elif kind == "parts":
        message.set_payload(draw(st.lists(handmade(depth - 1), max_size=3)))
    elif kind == "part":
        message.set_payload(draw(handmade(depth - 1)))
    return message


@st.composite
def octets_of_any_message(draw: st.DrawFn) -> bytes:
    """Lines that are often enough a message, and seldom a sound one."""
    end = draw(st.sampled_from(["\n", "\r\n"]))
    lines: list[str] = []
    for _ in range(draw(st.integers(1, 4))):
        for name, value in draw(st.lists(FIELDS, max_size=4)):
            fold = draw(st.sampled_from([end + " ", end + "\t", " ", "\x0c", "\x85"]))
            lines.append(f"{name}: {value}".replace(" ", fold, draw(st.integers(0, 3))))
        lines += ["", *draw(BODIES)]
        lines += draw(st.sampled_from([[], ["--b"], ["--b--"], ["broken header", ""], [": x"], ["--b", ""]]))
    return end.join(lines).encode(draw(st.sampled_from(["utf-8", "latin-1"])), "replace")


@given(composed(), st.sampled_from(POLICIES + ODD_POLICIES))
def test_composed_messages_are_written_as_by_the_library(message: EmailMessage, by: Policy) -> None:
    agree(message, by)


@settings(max_examples=300)
@given(handmade(), st.sampled_from(POLICIES + ODD_POLICIES))
def test_handmade_messages_are_written_as_by_the_library(message: Message, by: Policy) -> None:
    agree(message, by)


@settings(max_examples=300)
@given(octets_of_any_message(), st.sampled_from(POLICIES + ODD_POLICIES))
def test_parsed_messages_are_written_as_by_the_library(octets: bytes, by: Policy) -> None:
    agree(email.message_from_bytes(octets, policy=by), by)
    agree(email.message_from_bytes(octets, policy=MODERN if by is LEGACY else LEGACY), by)
