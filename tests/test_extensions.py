"""What EHLO said: read as smtplib reads it, only exactly."""

import smtplib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiosmtpclient.extensions import MAX_LINES, Extensions

POSTFIX = b"""mail.example.com
PIPELINING
SIZE 10240000
VRFY
ETRN
STARTTLS
AUTH PLAIN LOGIN
AUTH=PLAIN LOGIN
ENHANCEDSTATUSCODES
8BITMIME
DSN
SMTPUTF8
CHUNKING"""
EXCHANGE = b"""mail.example.com Hello [192.0.2.1]
SIZE 37748736
PIPELINING
DSN
ENHANCEDSTATUSCODES
STARTTLS
X-ANONYMOUSTLS
AUTH NTLM
X-EXPS GSSAPI NTLM
8BITMIME
BINARYMIME
CHUNKING
XRDST"""


def of(*lines: bytes) -> Extensions:
    return Extensions.parse(b"\n".join((b"mail.example.com", *lines)))


def smtplib_features(message: bytes) -> dict[str, str]:
    """What smtplib makes of the same reply."""
    smtp = smtplib.SMTP(local_hostname="client.example")
    smtp.putcmd = lambda cmd, args="": None  # type: ignore[assignment, misc]
    smtp.getreply = lambda: (250, message)  # type: ignore[method-assign]
    smtp.ehlo()
    return smtp.esmtp_features


def test_a_keyword_is_found_in_any_case() -> None:
    extensions = Extensions.parse(POSTFIX)

    assert "pipelining" in extensions
    assert "PipeLining" in extensions
    assert "xclient" not in extensions
    assert 8 not in extensions


def test_parameters_are_asked_for_like_a_mapping() -> None:
    extensions = Extensions.parse(POSTFIX)

    assert extensions["size"] == extensions["SIZE"] == "10240000"
    assert extensions["dsn"] == ""
    assert extensions.get("xclient") is None
    assert extensions.get("xclient", "no") == "no"
    with pytest.raises(KeyError, match="xclient"):
        extensions["XCLIENT"]


def test_iteration_gives_lower_case_keywords_in_the_servers_order() -> None:
    extensions = of(b"SIZE 1", b"Pipelining", b"8BITMIME")

    assert list(extensions) == ["size", "pipelining", "8bitmime"]
    assert len(extensions) == 3


def test_the_greeting_line_promises_nothing() -> None:
    assert "starttls" not in Extensions.parse(b"STARTTLS")
    assert "starttls" not in Extensions.parse(b"STARTTLS\nSIZE")


@pytest.mark.parametrize(
    "line",
    [b"", b"-", b" STARTTLS", b"STARTTLS_LATER", b"STARTTLS=1", b"STARTTLS\x00", b"STARTTLS\xa0x", b"\xff"],
)
def test_a_line_that_only_looks_like_a_keyword_is_ignored(line: bytes) -> None:
    extensions = of(line, b"DSN")

    assert list(extensions) == ["dsn"]


def test_a_tab_may_stand_for_the_blank() -> None:
    assert of(b"SIZE\t1000").size_limit == 1000


@pytest.mark.parametrize(
    ("line", "limit"),
    [
        (b"SIZE 1000", 1000),
        (b"size 0001000", 1000),
        (b"SIZE  1000 ", 1000),
        (b"SIZE 1000 junk", 1000),
        (b"SIZE", None),
        (b"SIZE 0", None),
        (b"SIZE 000", None),
        (b"SIZE -1", None),
        (b"SIZE +1", None),
        (b"SIZE 1_000", None),
        (b"SIZE 10MB", None),
        (b"SIZE \xb2", None),
        (b"SIZE 99999999999999999999", 99999999999999999999),
        (b"SIZE " + b"9" * 21, None),
        (b"SIZE " + b"9" * 5000, None),
        (b"SIZE " + b"0" * 5000 + b"7", 7),
        (b"DSN", None),
    ],
)
def test_size_limit_is_a_number_or_no_limit(line: bytes, limit: int | None) -> None:
    assert of(line).size_limit == limit


@pytest.mark.parametrize(
    ("lines", "mechanisms"),
    [
        ([b"AUTH PLAIN LOGIN"], ("PLAIN", "LOGIN")),
        ([b"AUTH=LOGIN PLAIN"], ("LOGIN", "PLAIN")),
        ([b"auth=login"], ("LOGIN",)),
        (
            [b"AUTH plain CRAM-MD5", b"AUTH=PLAIN LOGIN", b"AUTH XOAUTH2"],
            ("PLAIN", "CRAM-MD5", "LOGIN", "XOAUTH2"),
        ),
        ([b"AUTH PLAIN =LOGIN \xb5 " + b"X" * 21], ("PLAIN",)),
        ([b"AUTH"], ()),
        ([b"DSN"], ()),
    ],
)
def test_mechanisms_are_gathered_from_new_and_old_style_lines(
    lines: list[bytes], mechanisms: tuple[str, ...]
) -> None:
    assert of(*lines).auth_mechanisms == mechanisms


def test_auth_has_no_leading_blank_unless_asked_for_smtplibs_dict() -> None:
    extensions = of(b"AUTH PLAIN", b"AUTH=LOGIN")

    assert extensions["auth"] == "PLAIN LOGIN"
    assert extensions.as_dict() == {"auth": " PLAIN LOGIN"}


def test_a_server_with_too_much_to_say_is_not_listened_to_for_ever() -> None:
    extensions = of(*(b"X%d" % number for number in range(MAX_LINES + 1)))

    assert len(extensions) == MAX_LINES
    assert f"x{MAX_LINES}" not in extensions


def test_an_answer_that_is_too_long_to_be_kept_is_read_as_well() -> None:
    extensions = of(b"PIPELINING", b"X" + b"y" * 5000, b"SIZE 10")

    assert extensions.pipelining
    assert extensions.size_limit == 10
    assert of(b"PIPELINING", b"X" + b"y" * 5000, b"SIZE 10") is not extensions


def test_the_same_short_answer_is_read_once() -> None:
    assert Extensions.parse(POSTFIX) is Extensions.parse(bytearray(POSTFIX))


@pytest.mark.parametrize(
    ("line", "limits", "limited"),
    [
        (b"LIMITS RCPTMAX=5 MAILMAX=20", {"RCPTMAX": 5, "MAILMAX": 20}, True),
        (b"limits rcptdomainmax=1", {"RCPTDOMAINMAX": 1}, True),
        (b"LIMITS MAILMAX=20", {"MAILMAX": 20}, False),
        (b"LIMITS", {}, False),
        (b"LIMITS RCPTMAX=0 MAILMAX=x =5 RCPTMAX", {}, False),
        (b"LIMITS RCPTMAX=999999 MAILMAX=1000000", {"RCPTMAX": 999999}, True),
        (b"XLIMITS RCPTMAX=5", {}, False),
    ],
)
def test_what_limits_says_and_whether_it_is_about_recipients(
    line: bytes, limits: dict[str, int], limited: bool
) -> None:
    extensions = of(line)
    assert extensions.limits == limits
    assert extensions.limited is limited


def test_nothing_is_offered_by_none() -> None:
    assert len(Extensions()) == 0
    assert Extensions() == Extensions.parse(b"")
    assert Extensions().size_limit is None
    assert Extensions().auth_mechanisms == ()


def test_extensions_do_not_change() -> None:
    extensions = of(b"DSN")

    extensions.as_dict()["starttls"] = ""

    assert "starttls" not in extensions
    with pytest.raises(TypeError):
        extensions["starttls"] = ""  # type: ignore[index]
    with pytest.raises(AttributeError):
        extensions.size_limit = 1  # type: ignore[misc]


def test_repr_shows_the_keywords() -> None:
    assert repr(of(b"Size 1", b"DSN")) == "<Extensions: SIZE DSN>"
    assert repr(Extensions()) == "<Extensions: none>"


@pytest.mark.parametrize(
    "message",
    [
        POSTFIX,
        EXCHANGE,
        b"",
        b"mail.example.com",
        b"mail.example.com\nAUTH=LOGIN PLAIN",
        b"mail.example.com\nAUTH\nAUTH= PLAIN\nAUTH  LOGIN ",
        b"mail.example.com\nSIZE 1\nsize 2\nSIZE\t3",
        b"mail.example.com\nX-NAME j\xc3\xb6rg \xa0",
        b"mail.example.com\n\n-\n 8BITMIME",
    ],
)
def test_as_dict_is_smtplibs_esmtp_features(message: bytes) -> None:
    assert Extensions.parse(message).as_dict() == smtplib_features(message)


def test_as_dict_leaves_out_what_smtplib_takes_for_a_keyword() -> None:
    message = b"mail.example.com\nSIZE=10\nA_B"

    assert smtplib_features(message) == {"size": "=10", "a": "_B"}
    assert Extensions.parse(message).as_dict() == {}


KEYWORDS = st.sampled_from(["SIZE", "auth", "AUTH", "AUTH=", "Auth=", "X-Y", "8BITMIME", "DSN"])
PARAMETERS = st.text("aZ09=+-_ \t\xb2\xe4\xff", max_size=12)


@given(st.lists(st.tuples(KEYWORDS, PARAMETERS).map(lambda line: f"{line[0]} {line[1]}".encode("latin-1"))))
def test_as_dict_agrees_with_smtplib_on_every_well_formed_reply(lines: list[bytes]) -> None:
    message = b"\n".join((b"mail.example.com", *lines))

    assert Extensions.parse(message).as_dict() == smtplib_features(message)


@given(st.binary())
def test_no_reply_makes_the_parser_fail(message: bytes) -> None:
    extensions = Extensions.parse(b"mail.example.com\n" + message)

    assert all(keyword == keyword.lower() and keyword.isascii() for keyword in extensions)
    assert extensions.size_limit is None or extensions.size_limit > 0
