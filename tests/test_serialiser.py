"""The serialiser: the same octets as the standard library's generator, and nothing touched."""

from __future__ import annotations

import copy
import email
import io
import pathlib
import random
import re
import sysconfig
from email import policy
from email.generator import BytesGenerator
from email.header import Header
from email.headerregistry import BaseHeader, UnstructuredHeader
from email.message import EmailMessage, Message
from email.mime.application import MIMEApplication
from email.mime.message import MIMEMessage
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from email.parser import BytesHeaderParser
from email.policy import EmailPolicy, Policy
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiosmtpclient.serialiser import _SLICE as SLICE
from aiosmtpclient.serialiser import Field, twin_of, write

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples" / "messages"
STANDARD = pathlib.Path(sysconfig.get_path("stdlib")) / "test" / "test_email" / "data"
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


def copied(node: object) -> object:
    """A copy of all nodes; the header objects stay the same, for not all can be copied."""
    if isinstance(node, list):
        return [copied(each) for each in node]
    if not isinstance(node, Message):
        return node
    twin = copy.copy(node)
    twin.__dict__.update(_headers=list(node.raw_items()), _payload=copied(node.__dict__["_payload"]))
    return twin


def by_library(message: Message, by: Policy) -> bytes:
    buffer = io.BytesIO()
    BytesGenerator(buffer, policy=by).flatten(copied(message))  # type: ignore[arg-type]
    return buffer.getvalue()


class Whole(NamedTuple):
    """A message as octets, its long texts too."""

    octets: bytes
    clean: bool


def whole(message: Message, by: Policy, fields: list[Field] | None = None) -> Whole:
    pieces, clean = write(message, by, fields)
    assert all(pieces)
    octets = [piece.encode().replace(b"\n", b"\r\n") if isinstance(piece, str) else piece for piece in pieces]
    return Whole(b"".join(octets), clean)


def with_crlf(octets: bytes) -> bytes:
    lines = re.sub(rb"\r\n|\r|\n", b"\r\n", octets)
    return lines if lines.endswith(b"\r\n") else lines + b"\r\n"


def state(node: object) -> object:
    """Everything in a message object, deep down, values by identity."""
    if isinstance(node, list):
        return [state(each) for each in node]
    if not isinstance(node, Message):
        return id(node)
    headers = [(name, id(value)) for name, value in node.raw_items()]
    rest = {key: id(value) for key, value in vars(node).items() if key != "_headers"}
    return headers, state(node.__dict__["_payload"]), rest


def broken(message: Message) -> bool:
    """True if there is a header that may be refused, though the standard library writes it."""
    payload = message.__dict__["_payload"]
    inner = payload if isinstance(payload, list) else [payload]
    return any(
        re.search(r"(\r\n|\r|\n)(?![ \t])", str(value)) or not re.fullmatch(r"[!-9;-~]+", name)
        for name, value in message.raw_items()
    ) or any(broken(each) for each in inner if isinstance(each, Message))


def agree(message: Message, by: Policy) -> Whole | None:
    """Assert that both write the same, or neither; return what was written."""
    before = state(message)
    random.seed(7)
    try:
        expected = by_library(message, by)
    except Exception:
        with pytest.raises(Exception):  # noqa: B017 - whatever the library raised
            whole(message, by)
        return None
    random.seed(7)
    try:
        written = whole(message, by)
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

# A deadline would measure the load of the machine.
SEVERAL = settings(max_examples=120, deadline=None)

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


@SEVERAL
@given(composed(), st.sampled_from(POLICIES + ODD_POLICIES))
def test_composed_messages_are_written_as_by_the_library(message: EmailMessage, by: Policy) -> None:
    agree(message, by)


@SEVERAL
@given(handmade(), st.sampled_from(POLICIES + ODD_POLICIES))
def test_handmade_messages_are_written_as_by_the_library(message: Message, by: Policy) -> None:
    agree(message, by)


@SEVERAL
@given(octets_of_any_message(), st.sampled_from(POLICIES + ODD_POLICIES))
def test_parsed_messages_are_written_as_by_the_library(octets: bytes, by: Policy) -> None:
    agree(email.message_from_bytes(octets, policy=by), by)
    agree(email.message_from_bytes(octets, policy=MODERN if by is LEGACY else LEGACY), by)


# --- Real messages ---


@pytest.mark.parametrize("by", POLICIES, ids=repr)
@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.eml")), ids=lambda path: path.stem)
def test_the_example_messages_are_written_as_by_the_library(path: pathlib.Path, by: Policy) -> None:
    octets = path.read_bytes()
    for end in (b"\n", b"\r\n"):
        agree(email.message_from_bytes(octets.replace(b"\r\n", b"\n").replace(b"\n", end), policy=by), by)


def test_the_example_messages_are_found() -> None:
    assert len(list(EXAMPLES.glob("*.eml"))) > 5


@pytest.mark.skipif(not STANDARD.is_dir(), reason="this interpreter came without its own tests")
@pytest.mark.parametrize("parsed_by", [policy.compat32, policy.default], ids=["compat32", "default"])
def test_the_standard_library_s_own_messages_are_written_as_by_the_library(parsed_by: Policy) -> None:
    paths = sorted(STANDARD.glob("msg_*.txt"))
    assert paths
    for path in paths:
        agree_under_all(email.message_from_bytes(path.read_bytes(), policy=parsed_by))


# --- What is written without the library ---


@pytest.fixture
def no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def flattened(message: Message, by: Policy) -> bytes:
        raise AssertionError("the library was asked")

    monkeypatch.setattr("aiosmtpclient.serialiser._flattened", flattened)


def letter() -> EmailMessage:
    message = EmailMessage()
    message["From"] = "Al Bundy <al@example.org>"
    message["To"] = "a@example.org, Bob <b@example.org>"
    message["Subject"] = "A subject that fits on a line"
    message["Date"] = "Mon, 01 Jan 2024 00:00:00 +0000"
    message["Message-ID"] = "<1234.5678@example.org>"
    message.set_content("Hello\n")
    return message


@pytest.mark.usefixtures("no_library")
def test_a_usual_message_is_written_without_the_library() -> None:
    message = letter()
    message.add_alternative("<p>Grüße</p>\n", subtype="html")
    message.add_attachment(b"\0\xff" * 400, maintype="application", subtype="pdf", filename="a.pdf")
    inner = letter()
    inner.set_content("Grüße\n", cte="8bit")
    message.add_attachment(inner)
    octets, clean = whole(message, MODERN)
    assert clean
    assert octets.endswith(b"==--\r\n")
    assert b"\r\n\r\nGr\xc3\xbc\xc3\x9fe\r\n" in octets


@pytest.mark.usefixtures("no_library")
def test_a_usual_message_of_the_old_kind_is_written_without_the_library() -> None:
    message = MIMEMultipart()
    message["Subject"] = "A subject that fits on a line"
    message.attach(MIMEText("Grüße\n", "plain", "utf-8"))
    message.attach(MIMEApplication(b"\0\xff" * 400))
    message.attach(MIMEMessage(letter()))
    assert whole(message, LEGACY).clean


@pytest.mark.usefixtures("no_library")
@pytest.mark.parametrize("by", [MODERN, LEGACY])
def test_folded_headers_that_were_parsed_are_written_without_the_library(by: Policy) -> None:
    octets = b"Received: from a\r\n\tby b;\r\n  Mon, 01 Jan 2024 00:00:00 +0000\r\nSubject: \r\n\r\nbody\r\n"
    assert whole(email.message_from_bytes(octets, policy=by), by).octets == octets
    assert whole(email.message_from_bytes(octets.replace(b"\r", b""), policy=by), by) == (octets, True)


@pytest.mark.usefixtures("no_library")
def test_a_large_attachment_is_written_without_the_library() -> None:
    message = letter()
    content = random.Random(1).randbytes(300_000)
    message.add_attachment(content, maintype="application", subtype="zip", filename="a.zip")
    octets, clean = whole(message, MODERN)
    assert clean
    assert email.message_from_bytes(octets).get_payload(1).get_payload(decode=True) == content  # type: ignore[union-attr]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\n\r"])
def test_large_texts_are_the_same_wherever_they_are_cut(end: str) -> None:
    for length in (60, 65535, 65536, 65537, 70000):
        message = letter()
        message.set_payload((("x" * length) + end) * 3 + "y")
        agree_under_all(message)


def test_a_final_line_end_is_added() -> None:
    message = Message()
    message.set_payload("a\nb")
    assert whole(message, LEGACY) == (b"\r\na\r\nb\r\n", True)
    assert whole(Message(), LEGACY) == (b"\r\n", True)


def test_line_ends_that_are_not_right_are_not_called_clean() -> None:
    message = Message()
    message.set_payload("a\rb\n")
    assert not whole(message, LEGACY).clean
    # Octets over 127 in a parsed header keep the line ends that they came with.
    parsed = email.message_from_bytes(b"Subject: a\n caf\xe9\n\nbody\n")
    assert whole(parsed, LEGACY) == (b"Subject: a\n caf\xe9\r\n\r\nbody\r\n", False)
    assert whole(email.message_from_bytes(b"Subject: caf\xe9\n\nbody\n"), LEGACY).clean


def test_other_fields_can_be_written_than_the_message_has() -> None:
    message = letter()
    for by in (MODERN, wire(Strict())):
        octets = whole(message, by, [("Subject", "other")]).octets
        assert octets == b"Subject: other\r\n\r\nHello\r\n"
    assert message["To"] is not None


# --- Boundaries ---


def parts(subtype: str, **parameters: str) -> Message:
    return MIMEMultipart(subtype, **parameters)


@pytest.mark.parametrize("subtype", ["mixed", "alternative", "x" * 40, "x" * 70])
def test_a_missing_boundary_is_made_up_and_not_kept(subtype: str) -> None:
    message = parts(subtype)
    message.attach(MIMEText("one"))
    for by in POLICIES + ODD_POLICIES:
        written = agree(message, by)
        assert written is not None
        assert written.octets.count(b"\r\n--=====") == 2
    assert message.get_boundary() is None


@pytest.mark.parametrize("by", [MODERN, LEGACY])
def test_a_missing_boundary_goes_to_a_line_of_its_own_as_by_the_library(by: Policy) -> None:
    for limit in range(20, 90):
        for subtype in ("mixed", "related"):
            assert agree(parts(subtype), by.clone(max_line_length=limit)) is not None


def test_a_missing_boundary_joins_the_other_parameters() -> None:
    for message in (parts("related", type="text/html"), parts("mixed", charset="utf-8", x="y" * 80)):
        agree_under_all(message)
    message = parts("mixed")
    message["Content-Type"] = "multipart/alternative"
    agree_under_all(message)


def test_a_made_up_boundary_stands_in_no_part(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter([7, 7, 8])
    monkeypatch.setattr("aiosmtpclient.serialiser.random.randrange", lambda limit: next(drawn))
    inner = parts("mixed")
    inner.attach(MIMEText("deep"))
    outer = parts("mixed")
    outer.attach(inner)
    octets = whole(outer, LEGACY).octets
    assert octets.count(b"--===============0000000000000000007==") == 2
    assert octets.count(b"--===============0000000000000000008==") == 2


@pytest.mark.parametrize("before", [0, 1, SLICE - 20, SLICE - 1, SLICE, 3 * SLICE])
def test_a_boundary_that_stands_somewhere_in_a_long_text_is_not_made_up(
    before: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = iter([7, 8])
    monkeypatch.setattr("aiosmtpclient.serialiser.random.randrange", lambda limit: next(drawn))
    message = parts("mixed")
    inside = MIMEText("")
    start = "x" * before + "\n" if before else ""
    inside.set_payload(
        start + "--===============0000000000000000007==\n" + "y" * (2 * SLICE if before < 2 else 10)
    )
    message.attach(inside)
    assert b'boundary="===============0000000000000000008=="' in whole(message, LEGACY).octets


def test_what_is_signed_is_not_folded_anew() -> None:
    signed = parts("signed")
    text = MIMEText("signed")
    text["X-Long"] = "word " * 40 + "end"
    signed.attach(text)
    signed["X-Long"] = "word " * 40 + "end"
    for by in (MODERN, LEGACY):
        written = agree(signed, by)
        assert written is not None
        assert written.octets.count(b"X-Long: " + b"word " * 40 + b"end\r\n") == 1


# --- What the library is asked for ---


class Strict(EmailPolicy):
    """A policy of somebody's own."""

    def fold_binary(self, name: str, value: object) -> bytes:
        return super().fold_binary(name, value).replace(b"Hello", b"HELLO")


class Shouting(UnstructuredHeader, BaseHeader):
    """A header that is not folded as others are."""

    def fold(self, *, policy: Policy) -> str:
        return f"{self.name}: {self.upper()}\r\n"


class Reworded(UnstructuredHeader, BaseHeader):
    """A header whose text is not what it folds."""

    @classmethod
    def parse(cls, value: str, kwds: dict[str, object]) -> None:
        super().parse(value, kwds)  # type: ignore[misc]
        kwds["decoded"] = "reworded"


def test_a_policy_of_somebody_s_own_is_asked() -> None:
    message = letter()
    message["X-Note"] = "Hello"
    written = agree(message, wire(Strict()))
    assert written is not None
    assert b"X-Note: HELLO\r\n" in written.octets


def test_lines_that_start_with_from_are_marked_where_the_policy_says_so() -> None:
    message = letter()
    message.set_content("From me\n")
    written = agree(message, LEGACY.clone(mangle_from_=True))
    assert written is not None
    assert written.octets.endswith(b"\r\n>From me\r\n")


def test_line_ends_are_those_of_the_policy() -> None:
    assert whole(letter(), policy.default) == (by_library(letter(), policy.default), False)


def test_headers_are_folded_anew_where_the_policy_says_so() -> None:
    parsed = email.message_from_bytes(b"Date: mon, 1 jan 2024 00:00:00 +0000\n\nbody\n")
    written = agree(parsed, MODERN.clone(refold_source="all"))
    assert written is not None
    assert written.octets.startswith(b"Date: Mon, 01 Jan 2024")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("value", ["a | b", "a|  | b", "| b", "a| b ", "a|\tb|\t c", "a|b", "a|", " a | |b"])
def test_blanks_where_a_header_was_folded_are_kept_as_by_the_library(value: str, end: str) -> None:
    message = Message()
    message.set_raw("Subject", value.replace("|", end))
    for by in POLICIES + ODD_POLICIES:
        agree(message, by)


@pytest.mark.parametrize("kind", [Shouting, Reworded])
def test_a_header_of_somebody_s_own_is_asked(kind: type) -> None:
    message = letter()
    message.set_raw("X-Note", kind("X-Note", "some words"))
    written = agree(message, MODERN)
    assert written is not None
    assert b"X-Note: some words\r\n" in written.octets or b"X-Note: SOME WORDS\r\n" in written.octets
    agree_under_all(message)


def test_a_header_object_without_what_it_was_parsed_to_is_asked() -> None:
    class Bare(str):
        name = "Subject"

        def fold(self, *, policy: Policy) -> str:
            return "Subject: folded\r\n"

    message = Message(MODERN)
    message.set_raw("Subject", Bare("bare"))
    written = agree(message, MODERN)
    assert written is not None
    assert written.octets == b"Subject: folded\r\n\r\n"


def test_a_header_object_of_another_name_keeps_its_name() -> None:
    message = letter()
    message.set_raw("X-Note", message["Subject"])
    message.set_raw("TO", message["To"])
    written = agree(message, MODERN)
    assert written is not None
    assert written.octets.count(b"Subject: A subject") == 2
    assert written.octets.count(b"To: a@example.org") == 2


def test_a_part_of_somebody_s_own_class_is_asked() -> None:
    class Disguised(Message):
        def get_content_type(self) -> str:
            return "multipart/mixed"

    class Header(Message):
        def _write_headers(self, generator: BytesGenerator) -> None:
            generator.write("X-Mine: 1\r\n\r\n")

    outer = parts("mixed")
    for kind in (Disguised, Header):
        part = kind()
        part["Content-Type"] = 'text/plain; boundary="b"'
        outer.attach(part)
    written = agree(outer, LEGACY)
    assert written is not None
    assert b"X-Mine: 1\r\n\r\n" in written.octets
    assert b"--b--" in written.octets


def test_a_part_that_answers_in_its_own_way_is_asked() -> None:
    message = letter()
    message.get_payload = lambda *given: "other\n"  # type: ignore[assignment, method-assign]
    written = whole(message, MODERN)
    assert (written.octets.endswith(b"\r\n\r\nother\r\n"), written.clean) == (True, False)


@pytest.mark.parametrize("attribute", ["preamble", "epilogue"])
def test_a_preamble_that_is_no_text_is_the_library_s_error(attribute: str) -> None:
    message = parts("mixed")
    setattr(message, attribute, 7)
    with pytest.raises(TypeError):
        whole(message, LEGACY)


def _with(payload: object, kind: str) -> Message:
    message = Message()
    message["Content-Type"] = kind
    message.__dict__["_payload"] = payload
    return message


@pytest.mark.parametrize(
    "message",
    [
        _with(7, "text/plain"),
        _with(b"octets", "text/plain"),
        _with([Message()], "text/plain"),
        _with(Message(), "text/plain"),
        _with("Grüße", "text/plain"),
        _with("Grüße", "multipart/mixed"),
        _with("text\n", "multipart/mixed"),
        _with(["no message"], "multipart/mixed"),
        _with(Message(), "multipart/mixed"),
        _with(None, "multipart/mixed"),
        _with([], "multipart/mixed"),
        _with(None, "text/plain"),
        _with(None, "message/rfc822"),
        _with([], "message/rfc822"),
        _with("Subject: x\n\nbody\n", "message/rfc822"),
        _with(Message(), "message/rfc822"),
        _with([letter(), letter()], "message/rfc822"),
        _with([letter(), letter()], "message/delivery-status"),
        _with([letter(), letter()], "message/delivery_status"),
        _with([letter()], "message_delivery/status"),
        _with("text\n", "message-delivery/status"),
        _with(None, "multipart_signed/x"),
        _with([letter()], "multipart-signed/x"),
        _with("text\n", "x-y/z"),
    ],
    ids=lambda message: f"{type(message.__dict__['_payload']).__name__} {message['Content-Type']}",
)
def test_payloads_that_do_not_fit_their_type_are_the_library_s(message: Message) -> None:
    agree_under_all(message)


@pytest.mark.parametrize("value", [Header("text/html"), Header("multipart/mixed"), Header("Grüße", "utf-8")])
def test_a_content_type_that_is_an_object_is_asked(value: Header) -> None:
    message = Message()
    message.set_raw("Content-Type", value)
    message.set_payload("text\n")
    agree_under_all(message)
    message.set_payload([letter()])
    agree_under_all(message)


@pytest.mark.usefixtures("no_library")
@pytest.mark.parametrize("by", [MODERN, LEGACY])
def test_the_parts_of_a_digest_are_messages(by: Policy) -> None:
    octets = b'Content-Type: multipart/digest; boundary="b"\n\n--b\n\nSubject: x\n\nbody\n\n--b--\n'
    assert whole(email.message_from_bytes(octets, policy=by), by) == (octets.replace(b"\n", b"\r\n"), True)


def test_8_bit_text_in_7_bits_is_encoded_by_the_library() -> None:
    octets = b"Content-Type: text/plain; charset=latin-1\n\ncaf\xe9\n"
    written = agree(email.message_from_bytes(octets), POLICIES[-1])
    assert written is not None
    assert written.octets.isascii()
    agree_under_all(BytesHeaderParser().parsebytes(octets))


# --- Headers that would be others ---


@pytest.mark.parametrize("value", ["a\nBcc: x@y", "a\r\n\r\nbody", "a\n"])
@pytest.mark.parametrize("by", [MODERN, LEGACY, wire(Strict())])
def test_a_line_break_in_a_header_is_an_error_in_every_part(value: str, by: Policy) -> None:
    message = parts("mixed")
    part = Message()
    part.set_raw("Subject", value)
    message.attach(part)
    with pytest.raises(ValueError, match="'Subject' has a line break"):
        whole(message, by)


@pytest.mark.parametrize("name", ["X\nBcc", "X: a\nBcc", "", "X Y", "Ünicode"])
@pytest.mark.parametrize("by", [MODERN, LEGACY, wire(Strict())])
def test_what_is_no_header_name_is_an_error_in_every_part(name: str, by: Policy) -> None:
    message = parts("mixed")
    part = Message()
    part.set_raw(name, "a")
    message.attach(part)
    with pytest.raises(ValueError, match="cannot be the name of a header"):
        whole(message, by)


# --- Copies ---


def test_a_twin_has_headers_of_its_own_and_shares_the_text() -> None:
    message = letter()
    twin = twin_of(message)
    del twin["To"]
    assert message["To"] is not None
    assert twin.get_payload() is message.get_payload()
    assert twin_of(message, [("X", "1")]).items() == [("X", "1")]


def test_not_even_the_library_writes_on_the_caller_s_object() -> None:
    message = parts("mixed")
    message.attach(parts("alternative"))
    message.attach(_with(parts("related"), "multipart/mixed"))
    before = state(message)
    assert whole(message, wire(Strict())).octets.count(b"boundary=") == 4
    assert state(message) == before
