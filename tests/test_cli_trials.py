"""`aiosmtpclient check`: BDAT proven or not, and whether a relay takes a stream."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import pytest
from wire import GO, OK, bye, hello

from aiosmtpclient.__main__ import main
from aiosmtpclient.testing import CertificateAuthority, MailServer, ScriptedServer
from aiosmtpclient.testing.scripted import Script, close, ehlo, expect_content, read_all

ME = "me@here.test"
LOOK = [*hello("PIPELINING", "CHUNKING"), ehlo("PIPELINING", "CHUNKING"), *bye()]
TRIAL = [*hello("PIPELINING", "CHUNKING"), "BDAT 8 LAST", "XPROBE", "RSET"]
STREAM = ("--stream", "--to", ME)


class Ran(NamedTuple):
    code: int
    out: list[str]
    err: str


def check(server: MailServer | ScriptedServer, capsys: pytest.CaptureFixture[str], *arguments: object) -> Ran:
    """Run the command on a server."""
    code = main(["check", f"localhost:{server.port}", *map(str, arguments)])
    out, err = capsys.readouterr()
    return Ran(code, out.splitlines(), err)


def test_a_server_that_discards_a_refused_chunk_is_shown_as_proven(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with MailServer() as server:
        ran = check(server, capsys)
    assert (ran.code, ran.out[-1]) == (0, "  BDAT         proven: a chunk that is refused is discarded")
    assert server.messages == []


WRONG: dict[str, Script] = {
    "runs the chunk": [*TRIAL, b"503 no\r\n500 what?\r\n250 ok\r\n", read_all()],
    "says too much": [*TRIAL, b"503 no\r\n250 ok\r\n250 ok\r\n", read_all()],
    "says too much later": [*TRIAL, b"503 no\r\n250 ok\r\n", "NOOP", b"250 a\r\n250 b\r\n", read_all()],
    "closes": [*TRIAL, close()],
}


@pytest.mark.parametrize("what", WRONG)
def test_a_server_that_gets_it_wrong_is_shown_as_not_proven(
    what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with ScriptedServer(LOOK, WRONG[what]) as server:
        ran = check(server, capsys)
    if what != "says too much later":  # which of the two is the reply to QUIT, nobody can tell
        assert ran.out[-1] == "  BDAT         NOT PROVEN: messages are sent by DATA"
    assert ran.code == 0


def test_a_server_that_ends_the_session_has_no_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    with ScriptedServer(LOOK, [*TRIAL, b"421 not now\r\n", close()]) as server:
        ran = check(server, capsys)
    assert ran.out[-1] == "  BDAT         no verdict: the server ended the session"


def test_nothing_is_tried_where_bdat_is_not_offered(capsys: pytest.CaptureFixture[str]) -> None:
    with MailServer(without=["CHUNKING"]) as server:
        ran = check(server, capsys)
    assert not any("BDAT" in line for line in ran.out)
    assert server.connections == 1


def test_nothing_is_tried_where_the_certificate_is_not_accepted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with MailServer(starttls=True) as server:
        ran = check(server, capsys, *STREAM)
    assert ran.code == 78
    assert not any(line.startswith(("  BDAT", "  stream")) for line in ran.out)
    assert server.messages == []


def test_the_trials_take_place_inside_tls_and_logged_in(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "password").write_text("secret\n")
    trust = ("--ca-file", CertificateAuthority().write_to(tmp_path).ca)
    login = ("--user", "ann", "--password-file", tmp_path / "password")
    with MailServer(starttls=True, users={"ann": "secret"}, auth_requires_tls=True) as server:
        ran = check(server, capsys, *trust, *login, *STREAM)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out[-2:] == [
        "  BDAT         proven: a chunk that is refused is discarded",
        "  stream       taken: 3 accepted",
    ]
    assert [message.recipients for message in server.messages] == [(ME,)] * 3


def test_a_stream_sends_three_small_messages_to_whom_was_named(capsys: pytest.CaptureFixture[str]) -> None:
    with MailServer() as server:
        ran = check(server, capsys, *STREAM, "--from", "you@there.test", "--json")
    assert json.loads(ran.out[0])["stream"] == {
        "taken": True,
        "deliveries": ["accepted"] * 3,
        "error": None,
    }
    assert json.loads(ran.out[0])["bdat_proven"] is True
    assert {message.sender for message in server.messages} == {"you@there.test"}
    assert sorted(message.message["Subject"] for message in server.messages) == [
        f"aiosmtpclient check: message {number} of 3" for number in (1, 2, 3)
    ]


def test_a_relay_that_upsets_itself_over_a_stream_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    look = [*hello("PIPELINING"), ehlo("PIPELINING"), *bye()]
    first = [*hello("PIPELINING"), "MAIL", "RCPT", "DATA", OK + OK + GO, expect_content()]
    too_early = b"503 pipelined after end of DATA\r\n"
    gone = [b"554 not now\r\n", *bye()]
    with ScriptedServer(look, [*first, OK + too_early, close()], gone) as server:
        ran = check(server, capsys, *STREAM)
    assert ran.code == 0
    assert ran.out[-1].startswith("  stream       NOT TAKEN: 1 accepted, ")


def test_a_recipient_that_is_refused_shows_nothing_about_streams(capsys: pytest.CaptureFixture[str]) -> None:
    with MailServer(refuse={ME: "550 5.1.1 no such user"}, without=["CHUNKING"]) as server:
        ran = check(server, capsys, *STREAM)
    assert ran.code == 67
    assert ran.out[-1].startswith("  stream       no verdict: 3 refused: ")
    assert "no such user" in ran.out[-1]


def test_a_stream_needs_pipelining(capsys: pytest.CaptureFixture[str]) -> None:
    with MailServer(without=["PIPELINING", "CHUNKING"]) as server:
        ran = check(server, capsys, *STREAM)
    assert ran.out[-1] == "  stream       no verdict: PIPELINING is not offered"
    assert server.messages == []


@pytest.mark.parametrize(
    "arguments",
    [["--stream"], ["--to", ME], ["--stream", "--to", "a\r\nb"], [*STREAM, "--from", "a b"]],
)
def test_arguments_that_do_not_go_together_are_refused_before_anything_is_sent(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with MailServer() as server:
        ran = check(server, capsys, *arguments)
    assert ran.code == 64
    assert server.connections == 0
