"""The front door, and what every command shares: exit codes, printing, options."""

from __future__ import annotations

import argparse
import io
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import aiosmtpclient
from aiosmtpclient import (
    Delivery,
    RecipientOutcome,
    Reply,
    SMTPAuthenticationError,
    SMTPConnectError,
    SMTPDataError,
    SMTPProtocolError,
    SMTPRecipientsRefused,
    SMTPServerDisconnected,
    SMTPTimeoutError,
    SMTPTLSError,
)
from aiosmtpclient.__main__ import main
from aiosmtpclient.cli.exits import Exit, Failure, exit_of, exit_of_outcomes, worst
from aiosmtpclient.cli.options import in_options, place
from aiosmtpclient.cli.printing import Transcript, complain, escaped, say
from aiosmtpclient.testing import Conversation, ScriptedServer
from aiosmtpclient.testing.scripted import Step, expect_content, expect_eof

HOUSE = Path(aiosmtpclient.__file__).parents[1]
MESSAGE = b"From: ann@example.org\r\nTo: bob@example.org\r\nSubject: hello\r\n\r\nhello\r\n"


def command(arguments: Sequence[str], stdout: int) -> subprocess.Popen[bytes]:
    """The command in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(HOUSE)}
    line = [sys.executable, "-m", "aiosmtpclient", *arguments]
    return subprocess.Popen(line, env=environment, stdout=stdout, stderr=subprocess.PIPE)


# The front door


@pytest.mark.parametrize(
    "arguments", [["--help"], *([name, "--help"] for name in ("send", "bulk", "check", "demo"))]
)
def test_help_tells_the_exit_codes(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    out = capsys.readouterr().out
    for code in Exit:
        if code is not Exit.FAILED:
            assert f"\n  {int(code):<4} " in out


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"aiosmtpclient {aiosmtpclient.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["fly"], "invalid choice: 'fly'"),
        (["send", "--flags"], "unrecognized arguments: --flags"),
        (["send", "--port", "0"], "send: argument --port: invalid port value: '0'"),
        (["send", "--port", "65536"], "invalid port value"),
        (["send", "--port", "²"], "invalid port value"),
        (["send", "--timeout", "soon"], "invalid float value"),
        (["check"], "check: the following arguments are required: HOST[:PORT]"),
        (["send", "--tls", "perhaps"], "invalid choice: 'perhaps'"),
    ],
)
def test_wrong_arguments_are_one_line_and_64(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 64
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("aiosmtpclient: ")
    assert captured.err.count("\n") == 1
    assert complaint in captured.err


@pytest.mark.parametrize("arguments", [["--password", "hunter2"], ["--password=hunter2"], ["--password"]])
def test_a_password_among_the_arguments_is_refused_and_not_repeated(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["send", *arguments]) == 64
    err = capsys.readouterr().err
    assert "--password-file" in err
    assert "hunter2" not in err


def test_without_arguments_those_of_the_process_count(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["aiosmtpclient", "--version"])
    assert main() == 0
    assert capsys.readouterr().out.startswith("aiosmtpclient ")


def test_the_package_is_a_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "aiosmtpclient.__main__")
    monkeypatch.setattr(sys, "argv", ["", "--version"])
    with pytest.raises(SystemExit, match=r"^0$"):
        runpy.run_module("aiosmtpclient", run_name="__main__")
    assert capsys.readouterr().out.startswith("aiosmtpclient ")


def test_ctrl_c_is_130_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(arguments: argparse.Namespace) -> Exit:
        raise KeyboardInterrupt

    monkeypatch.setattr("aiosmtpclient.cli.check.run", interrupted)
    assert main(["check", "localhost"]) == 130
    assert capsys.readouterr().err == "aiosmtpclient: interrupted\n"


@pytest.mark.parametrize("debug", [False, True])
def test_an_expected_failure_has_a_traceback_only_if_asked_for(
    debug: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "localhost:x", *["--debug"] * debug]) == Exit.TEMPFAIL
    err = capsys.readouterr().err
    assert err.endswith("aiosmtpclient: cannot connect: no port number: 'x'; one is from 0 to 65535\n")
    assert ("Traceback" in err) is debug
    assert debug or err.count("\n") == 1


def test_a_bug_shows_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(arguments: argparse.Namespace) -> Exit:
        raise ZeroDivisionError

    monkeypatch.setattr("aiosmtpclient.cli.check.run", broken)
    with pytest.raises(ZeroDivisionError):
        main(["check", "localhost"])


def test_a_reader_that_goes_away_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def piped(arguments: argparse.Namespace) -> Exit:
        raise BrokenPipeError

    monkeypatch.setattr("aiosmtpclient.cli.check.run", piped)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert main(["check", "localhost"]) == 74
    assert capsys.readouterr().err == ""


def test_what_is_still_buffered_for_a_reader_that_is_gone_goes_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def piped(arguments: argparse.Namespace) -> Exit:
        raise BrokenPipeError

    monkeypatch.setattr("aiosmtpclient.cli.check.run", piped)
    with (tmp_path / "out").open("w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        assert main(["check", "localhost"]) == 74
        out.write("too late")
    assert (tmp_path / "out").read_text() == ""


def test_a_disk_that_is_full_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(arguments: argparse.Namespace) -> Exit:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("aiosmtpclient.cli.check.run", full)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert main(["check", "localhost"]) == 74
    assert "No space left on device" in capsys.readouterr().err


def test_a_pipe_that_is_closed_ends_the_process_quietly() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with ScriptedServer([b"220 hi\r\n", "EHLO", b"250 hi\r\n", "QUIT", b"221 bye\r\n"]) as server:
        arguments = ["check", f"127.0.0.1:{server.port}", "--tls", "none"]
        with command(arguments, stdout=writing) as process:
            os.close(writing)
            _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (74, b"")


def test_ctrl_c_ends_the_process_with_an_account(tmp_path: Path) -> None:
    letter = tmp_path / "letter.eml"
    letter.write_bytes(MESSAGE)
    running: list[subprocess.Popen[bytes]] = []

    async def interrupt(conversation: Conversation) -> None:
        running[0].send_signal(signal.SIGINT)

    script: list[Step] = [b"220 hi\r\n", "EHLO", b"250 hi\r\n", "MAIL", b"250 ok\r\n", "RCPT", b"250 ok\r\n"]
    script += ["DATA", b"354 go\r\n", expect_content(), interrupt, expect_eof()]
    with ScriptedServer(script) as server:
        arguments = ["send", "--port", str(server.port), str(letter)]
        with command(arguments, stdout=subprocess.PIPE) as process:
            running.append(process)
            out, err = process.communicate(timeout=20)
    assert process.returncode == 74
    assert f"{letter}: unknown\n  unknown   bob@example.org" in out.decode()
    assert err == b"aiosmtpclient: interrupted\n"


# Exit codes


def refused(*codes: int) -> SMTPRecipientsRefused:
    return SMTPRecipientsRefused({f"r{code}@x": Reply(code, b"no") for code in codes})


def unknown(error: aiosmtpclient.SMTPException) -> aiosmtpclient.SMTPException:
    error.delivery = Delivery.UNKNOWN
    return error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Failure("", Exit.USAGE), 64),
        (ValueError("a NUL"), 65),
        (OSError("disk"), 74),
        (refused(550), 67),
        (refused(450), 75),
        (refused(450, 550), 67),
        (refused(), 69),
        (SMTPDataError(554, b"spam"), 69),
        (SMTPDataError(451, b"later"), 75),
        (SMTPServerDisconnected("gone"), 75),
        (unknown(SMTPServerDisconnected("gone")), 74),
        (SMTPTimeoutError("late"), 75),
        (unknown(SMTPTimeoutError("late")), 74),
        (SMTPProtocolError(-1, b"junk"), 76),
        (SMTPAuthenticationError(535, b"no"), 77),
        (SMTPAuthenticationError(454, b"later"), 75),
        (SMTPTLSError("certificate"), 78),
        (SMTPConnectError(554, b"go away"), 69),
        (SMTPConnectError(421, b"busy"), 75),
        (SMTPConnectError(-1, b"nobody listens"), 75),
    ],
)
def test_each_failure_has_its_exit_code(error: Exception, code: int) -> None:
    assert exit_of(error) == code


def test_only_the_refused_recipients_of_an_accepted_message_count() -> None:
    accepted = RecipientOutcome("a@x", Delivery.ACCEPTED, Reply(250, b"ok"))
    later = RecipientOutcome("b@x", Delivery.REFUSED, Reply(450, b"later"))
    never = RecipientOutcome("c@x", Delivery.REFUSED, Reply(550, b"never"))
    assert exit_of_outcomes([accepted]) == 0
    assert exit_of_outcomes([accepted, later]) == 75
    assert exit_of_outcomes([later, never, accepted]) == 67


def test_the_worst_code_counts_and_a_temporary_failure_is_the_least() -> None:
    assert worst([]) == 0
    assert worst([Exit.OK, Exit.TEMPFAIL]) == 75
    assert worst([Exit.NOUSER, Exit.TEMPFAIL]) == 67
    assert worst([Exit.NOUSER, Exit.CONFIG, Exit.DATAERR]) == 78


# Printing


def test_text_is_printed_without_anything_a_terminal_could_obey(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\x1b]0;owned\x07\r\nb\u202e\udcff ü")
    complain("\x9b31m")
    captured = capsys.readouterr()
    assert captured.out == "a\\x1b]0;owned\\x07\\r\\nb\\u202e\\udcff ü\n"
    assert captured.err == "aiosmtpclient: \\x9b31m\n"


def test_a_terminal_that_knows_only_ascii_gets_the_account_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    octets = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(octets, encoding="ascii", write_through=True))
    say("jörg@example.org")
    assert octets.getvalue() == b"j\\xf6rg@example.org\n"


def test_printable_text_stays_as_it_is() -> None:
    assert escaped("smørrebrød €") == "smørrebrød €"


def transcribed(*events: tuple[str, bytes]) -> list[str]:
    lines: list[str] = []
    transcript = Transcript(lines.append)
    for event, octets in events:
        transcript(event, octets)
    transcript.end()
    return lines


def test_a_transcript_says_who_says_what() -> None:
    assert transcribed(
        ("reply", b"220 hi\r\n"), ("send", b"A\r\nB\r\n"), ("reply", b"250-a\r\n250 \x1b\r\n")
    ) == [*["S: 220 hi", "C: A", "C: B", "S: 250-a", r"S: 250 \x1b"]]


def test_a_transcript_shows_short_content_whole_however_it_is_cut() -> None:
    whole = b"Subject: x\r\n\r\n..\r\n.\r\n"
    expected = ["C: Subject: x", "C: ", "C: ..", "C: .", "S: 250 ok"]
    reply = ("reply", b"250 ok\r\n")
    assert transcribed(("content", whole), reply) == expected
    assert transcribed(*(("content", bytes([octet])) for octet in whole), reply) == expected


def test_a_transcript_hides_most_of_long_content_but_not_its_end() -> None:
    lines = transcribed(("content", b"0123\r\n" * 20 + b".\r\n"), ("reply", b"250 ok\r\n"))
    assert lines == [*["C: 0123"] * 16, "C: [4 more lines, 24 octets]", "C: .", "S: 250 ok"]


def test_a_transcript_of_content_that_was_cut_off_shows_the_cut() -> None:
    assert transcribed(("content", b"a\r\n" * 17 + b"half a li")) == [
        *["C: a"] * 16,
        "C: [1 more line, 3 octets]",
        "C: half a li",
    ]


def test_a_transcript_cuts_long_lines() -> None:
    [line] = transcribed(("content", b"x" * 170 + b"\r\n"))
    assert line == f"C: {'x' * 160} [10 more octets]"


# Options


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mail.test", ("mail.test", 0)),
        ("mail.test:25", ("mail.test:25", 0)),
        ("::1", ("::1", 0)),
        ("[::1]", ("::1", 0)),
        ("[::1]:2525", ("::1", 2525)),
        ("/run/lmtp", ("/run/lmtp", 0)),
    ],
)
def test_an_ipv6_address_is_taken_out_of_its_brackets(text: str, expected: tuple[str, int]) -> None:
    assert place(text) == expected


def test_a_port_behind_brackets_must_be_one() -> None:
    with pytest.raises(ValueError, match="no port number: '99999'"):
        place("[::1]:99999")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("use tls='starttls' or 'implicit', or", "use --tls starttls or implicit, or"),
        ("requires; pass tls='implicit', then", "requires; pass --tls implicit, then"),
        (
            "pass tls_ca= or a tls_context= (context= in the blocking classes) with it or its CA (x)",
            "pass --ca-file with it or its CA in it (x)",
        ),
        ("pass it as server_hostname= (x)", "pass it as --server-hostname (x)"),
        ("or pass allow_cleartext_auth=True if", "or pass --allow-cleartext-auth if"),
        ("the `timeout` argument sets", "the --timeout option sets"),
    ],
)
def test_advice_is_given_in_options_of_the_command(text: str, expected: str) -> None:
    assert in_options(text) == expected
