"""`aiosmtpclient bulk`: everything once, whatever ends a run, and an account of all of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

import aiosmtpclient
from aiosmtpclient.__main__ import main
from aiosmtpclient.cli import bulk
from aiosmtpclient.cli.exits import Exit, Failure
from aiosmtpclient.cli.journal import Journal
from aiosmtpclient.testing import MailServer, ReceivedMessage, ScriptedServer
from aiosmtpclient.testing.scripted import ehlo, expect_content, greeting, stall

HOUSE = Path(aiosmtpclient.__file__).parents[1]
NEVER = "550 5.1.1 no such user"
LATER = "450 4.2.1 try later"

Server = MailServer | ScriptedServer

pytest_posix = pytest.mark.skipif(os.name != "posix", reason="signals are those of POSIX")


class Ran(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def accounts(self) -> dict[str, str]:
        """Address → word, of everybody who has an account; with `--json`."""
        lines = [json.loads(line) for line in self.out.splitlines()]
        return {each["address"]: each["delivery"] for line in lines for each in line["outcomes"]}


Bulk = Callable[..., Ran]


def where(server: Server | None) -> list[str]:
    return [] if server is None else ["--host", server.host, "--port", str(server.port)]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Bulk:
    """Run the command, to a server if one is given."""

    def run(*arguments: object, to: Server | None = None) -> Ran:
        code = main(["bulk", *where(to), *map(str, arguments)])
        return Ran(code, *capsys.readouterr())

    return run


def lines(tmp_path: Path, count: int, **more: object) -> Path:
    path = tmp_path / "in.jsonl"
    each = (
        {"from": "ann@example.org", "to": [address(n)], "content": letter(address(n)), **more}
        for n in range(count)
    )
    path.write_text("".join(json.dumps(line) + "\n" for line in each))
    return path


def address(number: int) -> str:
    return f"u{number}@example.net"


def letter(to: str = "bob@example.net") -> str:
    return f"From: ann@example.org\nTo: {to}\nSubject: hello\n\nhello\n"


def arrived(*servers: MailServer) -> Counter[str]:
    return Counter(one for server in servers for message in server.messages for one in message.recipients)


# What is sent


def test_every_source_goes_through_one_pool(run: Bulk, tmp_path: Path) -> None:
    (tmp_path / "a.eml").write_text(letter("a@example.net"))
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "b.eml").write_text(letter("b@example.net"))
    (tmp_path / "c.mbox").write_text(f"From x\n{letter('c@example.net')}\n")
    with MailServer() as server:
        ran = run(tmp_path / "a.eml", folder, tmp_path / "c.mbox", lines(tmp_path, 3), to=server)
    assert (ran.code, ran.err) == (0, "")
    assert sorted(arrived(server)) == [
        *(f"{name}@example.net" for name in "abc"),
        *(address(number) for number in range(3)),
    ]
    assert ran.out.startswith("6 messages: 6 accepted, 0 refused, 0 not sent, 0 unknown; ")
    assert "messages/s; p50 " in ran.out


def test_bcc_gets_the_message_and_does_not_travel(run: Bulk, tmp_path: Path) -> None:
    (tmp_path / "a.eml").write_text(f"Bcc: silent@example.net\n{letter()}")
    with MailServer() as server:
        assert run(tmp_path / "a.eml", to=server).code == 0
    [message] = server.messages
    assert message.recipients == ("bob@example.net", "silent@example.net")
    assert b"silent" not in message.content


def test_raw_octets_travel_as_they_are(run: Bulk, tmp_path: Path) -> None:
    (tmp_path / "a.eml").write_bytes(b"Bcc : silent@example.net\r\nbroken\r\n\r\nx\r\n")
    with MailServer() as server:
        ran = run("--raw", "--from", "", "--to", "b@example.net", tmp_path / "a.eml", to=server)
    assert ran.code == 0
    assert server.messages[0].content == b"Bcc : silent@example.net\r\nbroken\r\n\r\nx\r\n"


@pytest.mark.parametrize("pipelining", ["off", "message", "stream"])
@pytest.mark.parametrize("chunking", ["off", "eager"])
def test_the_way_to_send_can_be_chosen(pipelining: str, chunking: str, run: Bulk, tmp_path: Path) -> None:
    with MailServer() as server:
        ran = run(
            lines(tmp_path, 30),
            "--pipelining",
            pipelining,
            "--chunking",
            chunking,
            "--connections",
            2,
            to=server,
        )
    assert ran.code == 0
    assert arrived(server) == {address(number): 1 for number in range(30)}
    assert server.connections <= 2
    assert {message.chunked for message in server.messages} == {chunking == "eager"}


def test_lmtp_has_an_account_of_each_recipient(run: Bulk, tmp_path: Path) -> None:
    path = lines(tmp_path, 1, to=["a@example.net", "b@example.net"])
    with MailServer(lmtp=True, refuse_after_content={"b@example.net": NEVER}) as server:
        ran = run(path, "--lmtp", to=server)
    assert ran.code == 67
    assert ran.out.splitlines()[:3] == [
        f"{path}:1: accepted: 250 2.1.5 <a@example.net> Ok: queued as 4A000001",
        "  accepted  a@example.net",
        f"  refused   b@example.net: {NEVER}",
    ]


def test_json_has_a_line_for_every_message(run: Bulk, tmp_path: Path) -> None:
    with MailServer(refuse={address(1): NEVER}) as server:
        ran = run(lines(tmp_path, 3), "--json", to=server)
    assert ran.code == 67
    assert ran.accounts == {address(0): "accepted", address(1): "refused", address(2): "accepted"}
    assert "3 messages: 2 accepted, 1 refused" in ran.err
    assert json.loads(ran.out.splitlines()[0])["reply"]["code"] == 250


def test_the_rate_is_kept(run: Bulk, tmp_path: Path) -> None:
    with MailServer() as server:
        ran = run(lines(tmp_path, 12), "--rate", 100, "--burst", 2, "--json", to=server)
    assert ran.code == 0
    seconds = ran.err.split("; ")[1]
    assert float(seconds.split()[0]) >= (100 if " ms" in seconds else 0.1)


def test_a_login_is_done_once_a_connection(
    run: Bulk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMTP_PASSWORD", "s3cret")
    with MailServer(users={"me": "s3cret"}, require_auth=True) as server:
        ran = run(lines(tmp_path, 5), "--user", "me", "--tls", "none", "--connections", 1, to=server)
    assert ran.code == 0
    assert [message.user for message in server.messages] == ["me"] * 5
    assert len([line for line in server.commands if line.startswith("AUTH")]) == 1


def test_one_conversation_can_be_watched(run: Bulk, tmp_path: Path) -> None:
    with MailServer() as server:
        ran = run(lines(tmp_path, 1), "--trace", "--connections", 1, to=server)
    assert ran.code == 0
    assert f"C: RCPT TO:<{address(0)}>" in ran.err


# Exit codes


@pytest.mark.parametrize(
    "arguments",
    [
        ["-", "-"],
        ["x", "--resume"],
        ["x", "--journal", "j", "--resend-unknown"],
        ["x", "--retry-refused"],
        ["x", "--durable"],
        ["x", "--burst", "3"],
        ["x", "--trace"],
        ["x", "--connections", "0"],
        ["x", "--connections", "²"],
        ["x", "--rate", "0"],
        ["x", "--rate", "nan"],
        ["x", "--retries", "-1"],
        ["x", "--progress-every", "0"],
        ["x", "--format", "zip"],
        ["x", "--local-hostname", "a b"],
        [],
    ],
)
def test_wrong_arguments_are_64_and_nothing_is_opened(
    arguments: list[str], run: Bulk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = run(*arguments)
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (64, "", 1)
    assert list(tmp_path.iterdir()) == []


def test_a_bad_line_is_65_and_the_others_are_sent(run: Bulk, tmp_path: Path) -> None:
    path = lines(tmp_path, 2)
    path.write_text("{}\n" + path.read_text())
    with MailServer() as server:
        ran = run(path, to=server)
    assert ran.code == 65
    assert arrived(server) == {address(0): 1, address(1): 1}
    assert ran.out.startswith(f'{path}:1: not sent: either "file" or "content" says what to send\n')


def test_a_missing_file_is_66(run: Bulk, tmp_path: Path) -> None:
    with MailServer() as server:
        ran = run(tmp_path / "no.eml", lines(tmp_path, 1), to=server)
    assert (ran.code, len(server.messages)) == (66, 1)


def test_a_message_that_no_server_takes_is_65(run: Bulk, tmp_path: Path) -> None:
    with MailServer() as server:
        ran = run(lines(tmp_path, 1, to=["a b"]), to=server)
    assert (ran.code, server.messages) == (65, [])


@pytest.mark.parametrize(
    ("journal", "retry", "code"), [(True, False, 69), (True, True, 75), (False, False, 69)]
)
def test_refused_for_now_is_75_only_if_the_same_command_sends_it_again(
    journal: bool, retry: bool, code: int, run: Bulk, tmp_path: Path
) -> None:
    options = [
        *(["--journal", str(tmp_path / "j")] if journal else []),
        *(["--retry-refused"] if retry else []),
    ]
    with MailServer(refuse={address(0): LATER}) as server:
        assert run(lines(tmp_path, 2), *options, to=server).code == code
        server.refuse = None
        if journal:
            again = run(lines(tmp_path, 2), *options, "--resume", to=server)
            assert again.code == (0 if retry else 69)
            assert arrived(server) == ({address(0): 1, address(1): 1} if retry else {address(1): 1})


def nobody() -> str:
    """A port where nobody listens."""
    with MailServer() as server:
        return str(server.port)


def test_without_a_server_it_is_75_and_the_input_is_not_read_to_its_end(run: Bulk, tmp_path: Path) -> None:
    journal = tmp_path / "j"
    arguments = (lines(tmp_path, 1000), "--journal", journal, "--retries", 0)
    ran = run(*arguments, "--host", "127.0.0.1", "--port", nobody())
    assert ran.code == 75
    assert "no connection can be had; the rest of the input was not taken: --resume goes on" in ran.out
    assert ran.out.count(": not sent: cannot connect") == 1
    with MailServer() as server:
        assert run(*arguments, "--resume", to=server).code == 0
    assert arrived(server) == {address(number): 1 for number in range(1000)}


def test_a_wrong_password_is_tried_once_and_is_77(
    run: Bulk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMTP_PASSWORD", "wrong")
    with MailServer(users={"me": "s3cret"}, mechanisms=["PLAIN"]) as server:
        ran = run(lines(tmp_path, 500), "--user", "me", "--tls", "none", to=server)
    assert ran.code == 77
    assert len([line for line in server.commands if line.startswith("AUTH")]) == 1


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--host", "x" * 70, "--retries", "3"], 68),
        (["--host", "127.0.0.1", "--tls", "starttls"], 78),
        (["--host", "127.0.0.1", "--tls", "starttls", "--server-hostname", "a b"], 64),
        (["--host", "127.0.0.1", "--user", "me", "--tls", "none"], 69),
    ],
)
def test_a_server_that_cannot_be_used_is_not_tried_for_each_message(
    options: list[str], code: int, run: Bulk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMTP_PASSWORD", "s3cret")
    with MailServer(starttls=True) as server:
        port = ["--port", str(server.port)]
        ran = run(lines(tmp_path, 500), "--json", *options, *port)
    assert ran.code == code
    assert server.connections <= 3
    assert len(ran.out.splitlines()) == 1
    assert "no connection can be had" in ran.err


def test_a_message_that_this_server_does_not_take_stops_nothing(run: Bulk, tmp_path: Path) -> None:
    path = lines(tmp_path, 3)
    path.write_text(
        '{"from":"","to":"jörg@example.net","content":"A: b\\n\\n"}\n' + path.read_text(), "utf-8"
    )
    with MailServer(without=["SMTPUTF8"]) as server:
        ran = run(path, "--connections", 1, to=server)
    assert ran.code == 69
    assert arrived(server) == {address(number): 1 for number in range(3)}


@pytest_posix
def test_a_full_disk_ends_the_run_and_what_is_known_is_told(
    run: Bulk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = (lines(tmp_path, 100), "--journal", tmp_path / "j", "--connections", 2)
    append, left = Journal._append, 60

    def full(self: Journal, line: bytes) -> None:
        nonlocal left
        left -= 1
        if left <= 0:
            raise Failure("j: No space left on device", Exit.IOERR)
        append(self, line)

    with MailServer() as server:
        with monkeypatch.context() as patch:
            patch.setattr(Journal, "_append", full)
            ran = run(*arguments, to=server)
        assert ran.code == 74
        assert ran.err.endswith("aiosmtpclient: j: No space left on device\n")
        assert (
            "the journal cannot be written; the rest of the input was not taken: --resume goes on" in ran.out
        )
        ran = run(*arguments, "--resume", "--json", to=server)
        unknown = {one for one, delivery in ran.accounts.items() if delivery == "unknown"}
        assert len(unknown) <= 2
        assert max(arrived(server).values()) == 1
        assert set(arrived(server)) | unknown == {address(number) for number in range(100)}


def test_a_journal_that_is_there_is_64_before_anything_is_sent(run: Bulk, tmp_path: Path) -> None:
    arguments = (lines(tmp_path, 1), "--journal", tmp_path / "j")
    with MailServer() as server:
        assert run(*arguments, to=server).code == 0
        ran = run(*arguments, to=server)
    assert (ran.code, len(server.messages)) == (64, 1)
    assert "--resume" in ran.err


def test_what_was_done_before_is_counted(run: Bulk, tmp_path: Path) -> None:
    arguments = (lines(tmp_path, 3), "--journal", tmp_path / "j")
    with MailServer(refuse={address(1): NEVER}) as server:
        assert run(*arguments, to=server).code == 67
        ran = run(*arguments, "--resume", to=server)
    assert ran.code == 69
    assert ran.out.startswith(
        "0 messages: 0 accepted, 0 refused, 0 not sent, 0 unknown; 2 accepted, 1 refused before;"
    )
    assert len(server.messages) == 2


# Output that nobody reads


class Closed:
    """Standard output whose reader went away after so many lines."""

    encoding = "utf-8"

    def __init__(self, lines: int) -> None:
        self.left = lines

    def isatty(self) -> bool:
        return False

    def write(self, text: str) -> None:
        if not self.left:
            raise BrokenPipeError
        self.left -= 1

    def flush(self) -> None:
        pass

    def fileno(self) -> int:
        raise OSError


def test_output_that_nobody_reads_makes_nothing_unknown(
    run: Bulk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = (lines(tmp_path, 500), "--journal", tmp_path / "j", "--connections", 2)
    with MailServer() as server:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", Closed(3))
            ran = run(*arguments, "--json", to=server)
        assert ran.code == 74
        assert "0 unknown" in ran.err
        assert len(server.messages) < 500
        assert run(*arguments, "--resume", to=server).code == 0
    assert arrived(server) == {address(number): 1 for number in range(500)}


# Killed


def command(*arguments: object, to: Server) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "aiosmtpclient", "bulk", *where(to), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(HOUSE)}
    return subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


class Striking:
    """Sends a signal to a process when a server has read the content of the n-th message."""

    def __init__(self, number: int, blow: int) -> None:
        self.process: subprocess.Popen[str] | None = None
        self._left = number
        self._blow = blow

    def __call__(self, message: ReceivedMessage) -> None:
        self._left -= 1
        if not self._left:
            assert self.process is not None
            self.process.send_signal(self._blow)


def struck(number: int, blow: int, server: MailServer, arguments: Sequence[object]) -> Ran:
    """Run the command until it is struck."""
    striking = Striking(number, blow)
    server.refuse_content = striking
    # The first message waits until the process is known here: it goes through the same function.
    with command(*arguments, to=server) as process:
        striking.process = process
        out, err = process.communicate(timeout=25)
    server.refuse_content = None
    return Ran(process.returncode, out, err)


@pytest_posix
@pytest.mark.parametrize(
    ("connections", "options"), [(1, []), (5, []), (3, ["--pipelining", "stream"]), (2, ["--durable"])]
)
@pytest.mark.timeout(60)
def test_after_kill_9_resume_sends_the_rest_and_nothing_twice(
    connections: int, options: list[str], run: Bulk, tmp_path: Path
) -> None:
    count = 150
    arguments = [lines(tmp_path, count), "--journal", tmp_path / "j", "--connections", connections, *options]
    with MailServer() as server:
        assert struck(40, signal.SIGKILL, server, arguments).code == -signal.SIGKILL
        assert len(server.messages) < count
        ran = run(*arguments, "--resume", "--json", to=server)
        unknown = {one for one, delivery in ran.accounts.items() if delivery == "unknown"}
        assert ran.code == 74
        assert 1 <= len(unknown) <= connections * 16
        got = arrived(server)
        assert max(got.values()) == 1
        assert set(got) | unknown == {address(number) for number in range(count)}

        asked = run(*arguments, "--resume", "--resend-unknown", to=server)
        assert asked.code == 0
        assert set(arrived(server)) == {address(number) for number in range(count)}
        assert {one for one, times in arrived(server).items() if times > 1} <= unknown


@pytest_posix
@pytest.mark.timeout(60)
def test_killed_again_and_again_it_comes_to_an_end(run: Bulk, tmp_path: Path) -> None:
    count = 120
    arguments = [lines(tmp_path, count), "--journal", tmp_path / "j", "--connections", 3]
    with MailServer() as server:
        struck(25, signal.SIGKILL, server, arguments)
        for _ in range(3):
            struck(20, signal.SIGKILL, server, [*arguments, "--resume"])
        ran = run(*arguments, "--resume", "--json", to=server)
        unknown = {one for one, delivery in ran.accounts.items() if delivery == "unknown"}
        got = arrived(server)
    assert max(got.values()) == 1
    assert set(got) | unknown == {address(number) for number in range(count)}
    assert len(unknown) <= 4 * 3


# Interrupted


@pytest_posix
@pytest.mark.parametrize("blow", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_lets_what_is_under_way_finish(blow: int, run: Bulk, tmp_path: Path) -> None:
    count = 150
    arguments = [lines(tmp_path, count), "--journal", tmp_path / "j", "--connections", 3]
    with MailServer() as server:
        ran = struck(30, blow, server, arguments)
        assert ran.code == 130
        assert "interrupted: finishing what is under way" in ran.err
        assert ", 0 not sent, 0 unknown; " in ran.out
        assert "interrupted; the rest of the input was not taken: --resume goes on" in ran.out
        assert 30 <= len(server.messages) < count
        assert run(*arguments, "--resume", to=server).code == 0
    assert arrived(server) == {address(number): 1 for number in range(count)}


def silent() -> ScriptedServer:
    """A server that takes the first message, and says nothing about it."""
    script = [greeting(), ehlo("PIPELINING")]
    for verb, reply in (("MAIL", b"250 ok\r\n"), ("RCPT", b"250 ok\r\n"), ("DATA", b"354 go\r\n")):
        script += [verb, reply]
    return ScriptedServer([*script, expect_content(), stall()])


def interrupting(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Press Ctrl-C so often when the first message was begun."""
    begin = bulk.Run.begin

    def begun(self: bulk.Run, index: int, message: object) -> None:
        begin(self, index, message)  # type: ignore[arg-type]
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(bulk.Run, "begin", begun)


@pytest_posix
def test_what_takes_too_long_after_ctrl_c_is_cancelled(
    run: Bulk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "GRACE", 0.2)
    arguments = (lines(tmp_path, 50), "--journal", tmp_path / "j", "--connections", 1)
    with monkeypatch.context() as patch, silent() as server:
        interrupting(patch, 1)
        ran = run(*arguments, to=server)
    assert ran.code == 74
    assert ran.out.startswith(f"{arguments[0]}:1: unknown")
    assert "1 unknown" in ran.out
    with MailServer() as server:
        ran = run(*arguments, "--resume", "--json", to=server)
        assert ran.accounts[address(0)] == "unknown"
        assert arrived(server) == {address(number): 1 for number in range(1, 50)}


@pytest_posix
def test_a_second_ctrl_c_stops_at_once(run: Bulk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = (lines(tmp_path, 50), "--journal", tmp_path / "j", "--connections", 1)
    began = time.monotonic()
    with monkeypatch.context() as patch, ScriptedServer([greeting(), ehlo(), stall()]) as server:
        interrupting(patch, 2)
        ran = run(*arguments, to=server)
    assert ran.code == 130
    assert time.monotonic() - began < bulk.GRACE
    assert ran.out.startswith(f"{arguments[0]}:1: not sent: interrupted\n")
    assert "1 not sent, 0 unknown" in ran.out  # the server never heard of the content
    with MailServer() as server:
        assert run(*arguments, "--resume", to=server).code == 0
    assert arrived(server) == {address(number): 1 for number in range(50)}


@pytest_posix
def test_ctrl_c_while_waiting_for_standard_input_ends_it(tmp_path: Path) -> None:
    with MailServer() as server:
        line = [sys.executable, "-m", "aiosmtpclient", "bulk", "-", *where(server)]
        environment = {**os.environ, "PYTHONPATH": str(HOUSE)}
        with subprocess.Popen(
            line, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdin is not None
            process.stdin.write(lines(tmp_path, 1).read_bytes())
            process.stdin.flush()
            server.wait(1)
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 130
            assert process.stderr is not None
            assert b"Fatal" not in process.stderr.read()


# What it costs others


def test_rich_is_imported_by_nobody_who_draws_no_bar(tmp_path: Path) -> None:
    path = lines(tmp_path, 1)
    code = (
        "import sys; from aiosmtpclient.__main__ import main; import aiosmtpclient; "
        f"main(['bulk', {str(path)!r}, *sys.argv[1:]]); print('rich' in sys.modules)"
    )
    with MailServer() as server:
        done = subprocess.run(
            [sys.executable, "-c", code, *where(server)],
            env={**os.environ, "PYTHONPATH": str(HOUSE)},
            capture_output=True,
            text=True,
            timeout=20,
        )
    assert done.stdout.splitlines()[-1] == "False", done.stderr
