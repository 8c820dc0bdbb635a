"""xtext and its international sister: one word, and the same text when it is read again."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiosmtpclient.commands import option
from aiosmtpclient.xtext import utc, utf8_address, xtext

VISIBLE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E))
ANY = st.text(st.characters(min_codepoint=0x20, exclude_categories=["Cs", "Cc", "Zl", "Zp"]))


def read(text: str) -> str:
    return re.sub(r"\+([0-9A-F]{2})", lambda found: chr(int(found[1], 16)), text)


def read_utf8(text: str) -> str:
    return re.sub(r"\\x\{([0-9A-F]+)\}", lambda found: chr(int(found[1], 16)), text)


@given(VISIBLE)
def test_xtext_is_one_word_and_says_the_same(text: str) -> None:
    encoded = xtext(text)
    assert re.fullmatch(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*", encoded)
    assert read(encoded) == text
    option(f"ENVID={encoded or 'x'}")


@given(ANY)
def test_an_international_address_is_ascii_and_says_the_same(text: str) -> None:
    encoded = utf8_address(text, smtputf8=False)
    assert encoded.isascii()
    assert read_utf8(encoded) == text
    option(f"ORCPT=utf-8;{encoded}")


@given(ANY)
def test_inside_smtputf8_only_what_may_not_stand_there_is_encoded(text: str) -> None:
    encoded = utf8_address(text, smtputf8=True)
    assert read_utf8(encoded) == text
    assert not re.search(r"\\x\{[0-9A-F]{3,}\}|\\x\{[89A-F][0-9A-F]\}", encoded)
    option(f"ORCPT=utf-8;{encoded}", utf8=True)


@pytest.mark.parametrize(
    ("text", "encoded"), [("a+b", "a+2Bb"), ("a=b", "a+3Db"), ("a b", "a+20b"), ("", ""), ("~!<>", "~!<>")]
)
def test_xtext_as_in_the_rfc(text: str, encoded: str) -> None:
    assert xtext(text) == encoded


@pytest.mark.parametrize("text", ["ü", "a\r\nRSET", "a\0", "\x7f", "\t", "\ud800"])
def test_what_has_no_form_as_xtext_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"only ASCII without controls has a form as xtext"):
        xtext(text)


@pytest.mark.parametrize("text", ["a\r\nRSET", "ü\0", "\x85", "\u2028", "\udcff"])
@pytest.mark.parametrize("smtputf8", [False, True])
def test_what_has_no_form_in_an_address_is_an_error(text: str, smtputf8: bool) -> None:
    with pytest.raises(ValueError, match=r"an address has no control characters: '"):
        utf8_address(text, smtputf8=smtputf8)


def test_a_moment_is_said_in_utc_to_the_second() -> None:
    east = timezone(timedelta(hours=5, minutes=30))
    assert utc(datetime(2024, 2, 29, 1, 2, 3, 999, tzinfo=east)) == "2024-02-28T19:32:03Z"
    assert utc(datetime(999, 1, 1, tzinfo=UTC)) == "0999-01-01T00:00:00Z"


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the zone of a process is fixed here")
def test_a_moment_is_said_in_utc_wherever_the_machine_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as somewhere:
        somewhere.setenv("TZ", "XYZ-5:30")
        time.tzset()
        said = utc(datetime(2024, 2, 29, 1, 2, 3, tzinfo=UTC))
    time.tzset()
    assert said == "2024-02-29T01:02:03Z"


@pytest.mark.parametrize(
    ("moment", "why"),
    [
        (datetime(2024, 1, 1), "has no time zone: give one"),
        ("2024-01-01", "a moment is a datetime, not '2024-01-01'"),
        (None, "a moment is a datetime, not None"),
    ],
)
def test_a_moment_without_a_place_is_none(moment: object, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        utc(moment)  # type: ignore[arg-type]
