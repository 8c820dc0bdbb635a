"""The messages of the errors: what failed, where, what the server said, what is known, what to do."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

import pytest

import aiosmtpclient
from aiosmtpclient import Delivery, Reply, SMTPException, SMTPRecipientsRefused

from .messages import HOST, Case, shown, tables, text_of
from .mishaps import CASES, SECTIONS

PAGE = Path(__file__).parent.parent.parent / "docs" / "reliability.md"
BEGIN, END = "<!-- table of messages: begin -->", "<!-- table of messages: end -->"
WRONG = SECTIONS["Wrong input, and wrong use"]
each_case = pytest.mark.parametrize(
    "case", [case for case in CASES if case not in WRONG], ids=lambda case: case.what
)

NAMELESS = {"`run_sync(..., timeout=)` is over"}
"""Nobody knows what server that was about."""
NEVER_RAISED = {"SMTPException"}
"""There is always a class that says more."""


@each_case
def test_the_text_says_where_it_failed_in_one_printable_line(case: Case) -> None:
    error = shown(case)
    text = str(error)
    assert isinstance(error, SMTPException)
    assert HOST in text or case.what in NAMELESS
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
    "the content is refused": ("refused the content", "552 5.0.0"),
    "closed before DATA was answered": ("closed", "DATA"),
    "closed before the content was answered": ("closed", "the content"),
    "silence instead of an answer to RCPT": ("longer than 5 s", "RCPT"),
    "silence behind the content": ("longer than 11 s", "end of content"),
    "what is no reply, in answer to MAIL": ("broke the protocol", "MAIL", "2500"),
    "a 3yz to the content": ("broke the protocol", "the content", "354"),
    "the password is wrong": ("refused the credentials", "AUTH PLAIN", "535 5.0.0"),
    "too large": ("552", "2002 octets", "1000"),
    "STARTTLS is required, and not offered": ("STARTTLS", "tls='implicit'"),
    "STARTTLS is required, and refused": ("refused STARTTLS", "454 4.0.0"),
    "there is no such name": ("cannot connect", "is that its name?"),
    "nobody answers at all": ("no connection", "`timeout`"),
    "closed before a greeting": ("closed", "its greeting"),
    "it is not a mail server": ("in place of the greeting", "HTTP/1.1 400"),
    "nothing listens at the proxy": ("the proxy http://proxy.test:3128", "refused"),
    "the proxy wants a password": ("the proxy http://proxy.test:3128", "407"),
    "the certificate is self-signed": ("self-signed", "tls_ca="),
    "the certificate is for another name": ("another name", "server_hostname="),
    "the certificate has expired": ("expired", "clock"),
    "TLS from the first octet, and the server speaks in clear": ("is not TLS", "tls='starttls'"),
    "the handshake takes too long": ("TLS handshake", "`timeout`"),
    "the access token is not taken": ("AUTH XOAUTH2", "scope: https://mail.test/", "535 5.7.8"),
    "the password would travel in clear": ("in clear", "tls='starttls'", "allow_cleartext_auth=True"),
    "a login is offered perhaps after STARTTLS": ("does not offer AUTH", "STARTTLS"),
    "no mechanism in common": ("NTLM", "mechanisms="),
    "a token, and the server wants passwords": ("PLAIN LOGIN", "access token"),
    "8-bit content, and no 8BITMIME": ("8BITMIME", "encode it"),
    "an option that the server lacks": ("DSN", "RFC 3461", "notify="),
    "closed by another task meanwhile": ("closed",),
    "not connected any more": ("not connected", "connect()"),
    "after `os.fork()`, in the child": ("os.fork()", "connect()"),
    "every connection is lent for too long": ("acquire_timeout=2", "1 in use", "max_connections"),
    "more wait than may": ("max_waiting", "1 waiting"),
    "the pool is closed": ("the pool is closed",),
    "no connection can be opened": ("connection refused",),
    "`run_sync(..., timeout=)` is over": ("0.01 s",),
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


WRONG_WORDS = {
    "a line break in an address": ("is no address", "CR"),
    "nobody to send to": ("no recipients",),
    "a parameter that is two": ("not one ESMTP parameter", "RET=FULL X=Y"),
    "a NUL in the content": ("NUL", "BINARYMIME"),
    "text beyond ASCII as `str`": ("bytes", "message object"),
    "a message without a sender": ("Sender", "From"),
    "a user without a password": ("password", "token"),
    "an unknown mechanism": ("'PLAN'", "PLAIN"),
    "an unknown policy": ("'ssl'", "'implicit'"),
    "a timeout of nothing": ("more than 0", "None"),
    "a fingerprint that is none": ("tls_fingerprint=", "64"),
    "a client in a second event loop": ("another event loop", "close it there"),
    "a pool in a second event loop": ("another event loop", "one pool for each loop", "run_sync()"),
    "a blocking call in the loop's own thread": ("own thread", "await"),
    "a command in the middle of content by hand": ("docmd()", "more of that"),
}


@pytest.mark.parametrize("case", WRONG, ids=lambda case: case.what)
def test_what_is_wrong_on_our_side_says_what_would_be_right_in_one_printable_line(case: Case) -> None:
    error = shown(case)
    assert type(error) in (ValueError, RuntimeError)
    text = str(error)
    assert all(words in text for words in WRONG_WORDS[case.what]), text
    assert text.isprintable()
    assert len(text) < 400


def test_a_refusal_of_thousands_is_a_text_that_can_be_read() -> None:
    refused = {f"r{number}@x.test": Reply(550, b"5.1.1 no such user") for number in range(50_000)}
    error = SMTPRecipientsRefused(refused)
    text = str(error)
    assert text.endswith("r9@x.test: 550 5.1.1 no such user; and 49990 more, see .recipients")
    assert len(text) < 600
    assert len(error.recipients) == 50_000


def tree(kind: type[SMTPException]) -> set[str]:
    """The names of a class and of all of ours below it; tests have some of their own."""
    ours = [one for one in kind.__subclasses__() if one.__module__.startswith("aiosmtpclient.")]
    return {kind.__name__}.union(*map(tree, ours))


def test_each_class_of_error_is_shown() -> None:
    assert tree(SMTPException) - NEVER_RAISED == {
        type(error).__name__ for case in CASES if isinstance(error := shown(case), SMTPException)
    }


def test_each_class_of_error_is_public() -> None:
    assert tree(SMTPException) <= set(aiosmtpclient.__all__)


def test_no_case_is_without_its_words() -> None:
    assert {case.what for case in WRONG} == set(WRONG_WORDS)
    assert len({text_of(shown(case)) for case in CASES}) > len(CASES) - 12  # few say the same


def test_the_table_in_the_docs_is_up_to_date() -> None:
    """UPDATE_DOCS=1 writes it."""
    page = PAGE.read_text("utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, behind = rest.partition(END)
    wanted = f"{before}{BEGIN}\n\n{tables(SECTIONS)}\n\n{END}{behind}"
    if os.environ.get("UPDATE_DOCS"):
        PAGE.write_text(wanted, "utf-8")
    assert PAGE.read_text("utf-8") == wanted
