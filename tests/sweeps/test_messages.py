"""The messages of the errors: what failed, where, what the server said, what is known, what to do."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

import pytest

import aiosmtpclient
from aiosmtpclient import Delivery, SMTPException

from .messages import CASES, HOST, Case, shown, table

PAGE = Path(__file__).parent.parent.parent / "docs" / "reliability.md"
BEGIN, END = "<!-- table of messages: begin -->", "<!-- table of messages: end -->"
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.what)

# The base class is never raised, and the pool's own errors belong to its page.
ELSEWHERE = {"SMTPException", "SMTPPoolError"}


@each_case
def test_the_text_says_where_it_failed_in_one_printable_line(case: Case) -> None:
    text = str(shown(case))
    assert HOST in text
    assert text.isprintable()
    assert len(text) < 400


PHASES = {
    "the greeting says no": ("cannot connect", "554 5.0.0"),
    "no greeting comes": ("greeting", "3 s", "5 s"),
    "EHLO is refused": ("refused EHLO", "450 4.0.0"),
    "nobody listens": ("connection refused", "is a server running there?"),
    "MAIL is refused for good": ("refused MAIL FROM:<sender@m1.test>", "550 5.0.0"),
    "nobody is accepted": ("bob@m1.test", "550 5.0.0"),
    "DATA is refused": ("refused DATA", "451 4.0.0"),
    "the content is refused": ("refused end of content", "552 5.0.0"),
    "closed before DATA was answered": ("closed", "DATA"),
    "closed before the content was answered": ("closed", "end of content"),
    "silence instead of an answer to RCPT": ("longer than 5 s", "RCPT"),
    "silence behind the content": ("longer than 11 s", "end of content"),
    "what is no reply, in answer to MAIL": ("broke the protocol", "MAIL", "2500"),
    "a 3yz to the content": ("broke the protocol", "end of content", "354"),
    "the password is wrong": ("refused the credentials", "AUTH PLAIN", "535 5.0.0"),
    "too large": ("552", "2002 octets", "1000"),
    "STARTTLS is required, and not offered": ("STARTTLS", "tls='implicit'"),
}


@pytest.mark.parametrize("what", PHASES)
def test_the_text_says_at_which_phase_and_what_the_server_said(what: str) -> None:
    text = str(shown(next(case for case in CASES if case.what == what)))
    missing = [words for words in PHASES[what] if words not in text]
    assert not missing or (what == "no greeting comes" and len(missing) == 1), text


@each_case
def test_what_is_known_and_what_to_do_is_said(case: Case) -> None:
    error = shown(case)
    words = {
        Delivery.NOT_SENT: "not sent",
        Delivery.REFUSED: "refused for",
        Delivery.UNKNOWN: "delivery unknown",
    }
    assert error.advice.startswith(words[error.delivery])
    assert error.advice.isprintable()


@each_case
def test_a_traceback_of_a_send_ends_with_it(case: Case) -> None:
    error = shown(case)
    if not error.outcomes:
        return  # nothing was being sent
    lines = "".join(traceback.format_exception_only(error)).splitlines()
    assert lines[-1] == error.advice


def test_each_class_of_error_is_shown() -> None:
    ours = {
        name
        for name in aiosmtpclient.__all__
        if isinstance(kind := getattr(aiosmtpclient, name), type) and issubclass(kind, SMTPException)
    }
    assert ours - ELSEWHERE == {type(shown(case)).__name__ for case in CASES}


def test_the_table_in_the_docs_is_up_to_date() -> None:
    """UPDATE_DOCS=1 writes it."""
    page = PAGE.read_text("utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, behind = rest.partition(END)
    wanted = f"{before}{BEGIN}\n\n{table()}\n\n{END}{behind}"
    if os.environ.get("UPDATE_DOCS"):
        PAGE.write_text(wanted, "utf-8")
    assert PAGE.read_text("utf-8") == wanted
