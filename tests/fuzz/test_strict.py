"""The strict server is strict: what it must not take, and what it must."""

from __future__ import annotations

import pytest

from .strict import Strict

OFFERS = (b"PIPELINING", b"SIZE", b"8BITMIME", b"CHUNKING", b"DSN")
ENVELOPE = b"MAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\n"


def told(*writes: bytes, offers: tuple[bytes, ...] = OFFERS, lmtp: bool = False) -> Strict:
    """A server that has heard these, one after the other."""
    server = Strict(offers, lmtp=lmtp)
    server.greeting()
    for octets in (b"LHLO me\r\n" if lmtp else b"EHLO me\r\n", *writes):
        server.hear(octets)
    return server


RIGHT: dict[str, tuple[bytes, ...]] = {
    "a message": (ENVELOPE + b"DATA\r\n", b"Subject: x\r\n\r\n..\r\n.\r\n", b"QUIT\r\n"),
    "an empty one": (ENVELOPE + b"DATA\r\n", b".\r\n"),
    "in chunks": (ENVELOPE + b"BDAT 3\r\nx\r\nBDAT 3 LAST\r\n.\r\n",),
    "the null sender": (b"MAIL FROM:<>\r\n",),
    "a quoted local part": (b'MAIL FROM:<"a b\\"@<>"@a.test>\r\n',),
    "a literal": (b"MAIL FROM:<a@[IPv6:::1]> SIZE=10 BODY=8BITMIME\r\n",),
    "a login": (b"AUTH LOGIN\r\n", b"dXNlcg==\r\n"),
    "words": (b"NOOP\r\n", b"VRFY ann\r\n", b"HELP MAIL\r\n", b"RSET\r\n"),
}
WRONG: dict[str, tuple[bytes, ...]] = {
    "a bare line feed": (b"NOOP\n",),
    "a bare carriage return": (b"NO\rOP\r\n",),
    "a NUL": (b"HELP a\0b\r\n",),
    "a C1 control": (b"HELP \xc2\x85\r\n",),
    "what is no text": (b"MAIL FROM:<\xff@a.test>\r\n",),
    "two blanks": (b"MAIL FROM: <a@a.test>\r\n",),
    "an address that ends early": (b"MAIL FROM:<a>SIZE=1@a.test>\r\n",),
    "a space in it": (b"RCPT TO:<a b@a.test>\r\n",),
    "an empty recipient": (b"MAIL FROM:<>\r\nRCPT TO:<>\r\n",),
    "a source route": (b"MAIL FROM:<@x.test:a@a.test>\r\n",),
    "an address beyond ASCII": (b"MAIL FROM:<\xc3\xbc@a.test>\r\n",),
    "a domain beyond ASCII": (b"MAIL FROM:<a@\xc3\xbc.test> SMTPUTF8\r\n",),
    "a parameter that is none": (b"MAIL FROM:<a@a.test> SIZE=x\r\n",),
    "an unknown parameter": (b"MAIL FROM:<a@a.test> X=1\r\n",),
    "SMTPUTF8 not offered": (b"MAIL FROM:<a@a.test> SMTPUTF8\r\n",),
    "an unknown verb": (b"XYZZY\r\n",),
    "a verb with too much": (b"RSET now\r\n",),
    "content as commands": (ENVELOPE, b"Subject: x\r\n"),
    "behind DATA": (ENVELOPE + b"DATA\r\nSubject: x\r\n.\r\n",),
    "a single dot": (ENVELOPE + b"DATA\r\n", b".x\r\n.\r\n"),
    "a bare line feed in content": (ENVELOPE + b"DATA\r\n", b"a\nb\r\n.\r\n"),
    "a bare carriage return in content": (ENVELOPE + b"DATA\r\n", b"a\rb\r\n.\r\n"),
    "a NUL in content": (ENVELOPE + b"DATA\r\n", b"\0\r\n.\r\n"),
    "8-bit octets unannounced": (ENVELOPE + b"DATA\r\n", b"\xe9\r\n.\r\n"),
    "a chunk without a line end": (ENVELOPE + b"BDAT 1 LAST\r\nx",),
    "DATA behind a chunk": (ENVELOPE + b"BDAT 3\r\nx\r\n", b"DATA\r\n"),
    "a response that is no base64": (b"AUTH LOGIN\r\n", b"d\r\n"),
    "two commands behind EHLO": (b"EHLO me\r\nRSET\r\n",),
    "LHLO": (b"LHLO me\r\n",),
}


@pytest.mark.parametrize("what", RIGHT)
def test_what_is_right_is_taken(what: str) -> None:
    server = told(*RIGHT[what])
    assert server.wrong == []
    assert server.disorder == []
    assert server.unread == b""


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_not(what: str) -> None:
    assert told(*WRONG[what]).wrong


def test_a_group_needs_pipelining() -> None:
    assert told(ENVELOPE, offers=()).wrong
    assert not told(*ENVELOPE.splitlines(keepends=True), offers=()).wrong


def test_what_was_delivered_is_known_octet_for_octet() -> None:
    [one] = told(ENVELOPE + b"DATA\r\n", b"..\r\n\r\n", b"...x\r\n.\r\n").transactions
    assert (one.sender, one.accepted, one.content) == (b"a@a.test", [b"b@b.test"], b".\r\n\r\n..x\r\n")
    [one] = told(ENVELOPE + b"BDAT 4\r\n..\r\nBDAT 0 LAST\r\n").transactions
    assert (one.content, one.chunks) == (b"..\r\n", 2)


def test_in_lmtp_there_is_a_verdict_for_each() -> None:
    server = told(ENVELOPE + b"RCPT TO:<c@b.test>\r\nDATA\r\n", b".\r\n", lmtp=True)
    assert server.transactions[0].verdicts == [250, 250]
    assert server.wrong == []


def test_a_command_out_of_its_place_is_noted() -> None:
    assert told(b"RCPT TO:<b@b.test>\r\n").disorder == ["RCPT"]
    assert told(b"MAIL FROM:<>\r\n", b"MAIL FROM:<>\r\n").disorder == ["MAIL"]


def test_what_was_said_decides_what_comes_next() -> None:
    server = Strict(OFFERS, speak=lambda verb, right: b"250 fine\r\n" if verb == "DATA" else right)
    server.greeting()
    for octets in (b"EHLO me\r\n", ENVELOPE + b"DATA\r\n", b"Subject: x\r\n"):
        server.hear(octets)
    assert server.wrong == ["no command: b'Subject: x\\r\\n'"]
