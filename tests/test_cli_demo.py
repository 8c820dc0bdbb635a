"""`aiosmtpclient demo`: the examples go through, and what goes wrong is named."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from aiosmtpclient.__main__ import main
from aiosmtpclient.cli import demo, rehearsal
from aiosmtpclient.cli.meant import Meant, read
from aiosmtpclient.testing import MailServer, ReceivedMessage
from aiosmtpclient.testing.transactions import MailConnection

EXAMPLES = Path(__file__).parents[1] / "examples" / "messages"
CLIENTS = {"AsyncSMTP", "AsyncLMTP", "SMTP"}


def folder(tmp_path: Path, **letters: bytes) -> Path:
    for name, octets in letters.items():
        (tmp_path / f"{name}.eml").write_bytes(octets)
    return tmp_path


def letter(to: str = "bob@example.org", more: str = "", body: str = "hello\r\n") -> bytes:
    return f"From: ann@example.org\r\nTo: {to}\r\n{more}Subject: hello\r\n\r\n{body}".encode()


def run(where: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str], list[str]]:
    code = main(["demo", str(where)])
    captured = capsys.readouterr()
    return code, captured.out.splitlines(), captured.err.splitlines()


def test_every_example_arrives_as_meant_through_every_client(capsys: pytest.CaptureFixture[str]) -> None:
    begun = time.monotonic()
    code, out, err = run(EXAMPLES, capsys)
    assert (code, err) == (0, [])
    rows = [line.split() for line in out if "as meant" in line and ".eml" in line]
    names = {path.name for path in EXAMPLES.glob("*.eml")}
    assert {(row[0], row[1]) for row in rows} == {(name, client) for name in names for client in CLIENTS}
    assert {row[2] for row in rows} == {"sendmail", "send_message"}
    assert f"{len(names)} messages, {len(rows)} transmissions: " in out[-1]
    assert "every octet and every answer as meant" in out[-1]
    assert time.monotonic() - begun < 25


def test_bulk_is_killed_and_gone_on_with(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(EXAMPLES, capsys)
    [start] = [number for number, line in enumerate(out) if "in bulk" in line]
    killed, resumed, *_, arrived = out[start + 1 : -2]
    assert out[start] == "300 messages in bulk over 4 connections, killed on the way (SIGKILL):"
    assert 140 <= int(killed.split()[2]) < 300
    assert "0 not sent" in resumed
    assert 290 <= int(arrived.split()[0]) <= 300


@pytest.mark.parametrize(
    ("times", "unknown", "problem"),
    [
        (0, False, "got 0 messages"),
        (0, True, ""),
        (1, False, ""),
        (1, True, ""),
        (2, False, "got 2 messages"),
        (2, True, "got 2 messages"),
    ],
)
def test_bulk_must_lose_nothing_and_send_nothing_twice(
    times: int, unknown: bool, problem: str, tmp_path: Path
) -> None:
    [meant] = demo.letters_of(folder(tmp_path, one=letter()))
    received = ReceivedMessage(
        "1", meant.sender, ("reader@example.net",), meant.content, (), ((),), "", None, False, False, False
    )
    problems = list(
        rehearsal._problems(
            {"reader@example.net": meant}, [received] * times, {"reader@example.net"} if unknown else set()
        )
    )
    assert problems == ([f"reader@example.net {problem}"] if problem else [])


def test_what_arrives_in_bulk_otherwise_than_meant_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(message: ReceivedMessage) -> None:
        if message.recipients == ("reader-3@example.net",):
            object.__setattr__(message, "content", b"")

    monkeypatch.setattr("aiosmtpclient.testing.MailServer", tampering(change), raising=False)
    code, _, err = run(folder(tmp_path, one=letter()), capsys)
    assert code == 1
    assert err == ["aiosmtpclient: demo: in bulk: reader-3@example.net got one.eml other than it was meant"]


def test_one_conversation_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(EXAMPLES, capsys)
    assert out[0].endswith("to an SMTP server:")
    assert out[1] == "  S: 220 mail.test ESMTP ready for tests"
    assert "  S: 550 5.1.1 no such mailbox here" in out
    assert "  C: ." in out
    assert "  S: 221 2.0.0 Bye" in out


def test_the_refused_are_named_with_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(EXAMPLES, capsys)
    [row] = [line.split() for line in out if line.startswith("  bcc.eml") and " AsyncLMTP " in line]
    assert row[3:8] == ["8", "1", "619", "as", "meant"]
    assert " ".join(row[8:]) == "refused refuses@example.org: 550 5.1.1 no such mailbox here"


@pytest.mark.parametrize("inside", [EXAMPLES.parents[1], EXAMPLES])
def test_the_examples_are_found_from_the_checkout_and_from_elsewhere(
    inside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(inside)
    assert demo.examples().resolve() == EXAMPLES.resolve()
    assert len(demo.letters_of(None)) == len(list(EXAMPLES.glob("*.eml")))


def test_without_a_checkout_the_current_folder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        demo, "__file__", str(tmp_path / "site-packages" / "aiosmtpclient" / "cli" / "demo.py")
    )
    assert main(["demo"]) == 66
    assert str(Path("examples", "messages")) in capsys.readouterr().err


def test_a_folder_of_ones_own_goes_through_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = folder(
        tmp_path,
        refused=letter("refuses@example.org"),
        resent=letter(
            more="Resent-From: r@example.org\r\nResent-To: s@example.org\r\nResent-Bcc: t@example.org\r\n"
            "Resent-Date: Tue, 1 Jul 2025 18:22:10 +0200\r\n"
        ),
        unfaithful=letter(more="X-Odd:no blank\r\n"),
        headless=b"From: a@example.org\nTo: b@example.org\n",
    )
    code, out, err = run(own, capsys)
    assert (code, err) == (0, [])
    assert "4 messages, 12 transmissions: 12 recipients accepted, 3 refused" in out[-1]


@pytest.mark.parametrize(
    ("octets", "what"),
    [
        (b"Subject: to nobody\r\n\r\n", "no sender or no recipient"),
        (b"From: a@example.org\r\n\r\n", "no sender or no recipient"),
    ],
)
def test_a_message_without_an_envelope_is_65(
    octets: bytes, what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(folder(tmp_path, bad=octets), capsys)
    assert (code, out) == (65, [])
    assert what in err[0]


def test_an_empty_folder_is_66(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(tmp_path, capsys)
    assert code == 66
    assert err == [f"aiosmtpclient: {tmp_path}: no messages (*.eml) there"]


def test_a_message_that_cannot_be_read_is_66(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "folder.eml").mkdir()
    code, _, err = run(tmp_path, capsys)
    assert code == 66
    assert err == [f"aiosmtpclient: {tmp_path / 'folder.eml'}: Is a directory"]


def test_without_aiosmtpd_it_is_said_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "aiosmtpclient.testing.server", None)
    code, out, err = run(EXAMPLES, capsys)
    assert (code, out, len(err)) == (69, [], 1)


# What goes wrong is named


def tampering(change: Callable[[ReceivedMessage], None]) -> Callable[..., MailServer]:
    """A server that takes something else than it was sent."""

    class Tampering(MailServer):
        def deliver(self, message: ReceivedMessage, refused: str | None) -> list[str]:
            change(message)
            return super().deliver(message, refused)

    return Tampering


@pytest.mark.parametrize(
    ("field", "value", "what"),
    [
        ("content", b"Frim", "from octet 2 on b'om: "),
        ("content", b"", "from octet 0 on b'From: "),
        ("sender", "eve@example.org", "the envelope arrived as eve@example.org → bob@example.org"),
        ("recipients", ("eve@example.org",), "the envelope arrived as ann@example.org → eve@example.org"),
    ],
)
def test_what_arrives_otherwise_than_meant_is_named(
    field: str,
    value: object,
    what: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def change(message: ReceivedMessage) -> None:
        object.__setattr__(message, field, value)

    monkeypatch.setattr("aiosmtpclient.testing.MailServer", tampering(change), raising=False)
    code, out, err = run(folder(tmp_path, one=letter()), capsys)
    assert code == 1
    for line, client in zip(err, ("AsyncSMTP", "AsyncLMTP", "SMTP"), strict=True):
        assert line.startswith(f"aiosmtpclient: demo: one.eml through {client}: ")
        assert what in line
    assert "3 NOT as meant" in out[-1]


def test_a_message_that_does_not_arrive_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(MailServer, "_take", lambda self, message: None)
    code, _, err = run(folder(tmp_path, one=letter()), capsys)
    assert code == 1
    assert "aiosmtpclient: demo: one.eml through SMTP: 0 messages arrived" in err


@pytest.mark.parametrize("verb", ["MAIL", "RCPT"])
def test_a_refusal_that_was_not_meant_is_named(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def refuse(self: MailConnection, arg: str | None) -> None:
        await self.push("451 4.3.0 not today")

    monkeypatch.setattr(MailConnection, f"smtp_{verb}", refuse)
    code, out, err = run(folder(tmp_path, one=letter()), capsys)
    assert code == 1
    assert any("through SMTP: " in line and "451 4.3.0 not today" in line for line in err)
    assert [line.split()[6:9] for line in out if line.startswith("  one.eml")] == [["NOT", "as", "meant"]] * 3


def test_a_refusal_in_other_words_is_named(tmp_path: Path) -> None:
    own = folder(tmp_path, one=letter("bob@example.org, refuses@example.org"))
    [meant] = demo.letters_of(own)
    with MailServer(refuse={demo.REFUSED: "553 5.1.3 in other words"}) as server:
        [row] = demo._through_blocking([meant], server)
    assert row.problems[0].startswith("refuses@example.org was refused with other words: ")


def test_an_acceptance_that_was_not_meant_is_named(tmp_path: Path) -> None:
    [meant] = demo.letters_of(folder(tmp_path, one=letter("bob@example.org, refuses@example.org")))
    with MailServer() as server:
        [row] = demo._through_blocking([meant], server)
    assert row.problems[0].startswith("an unexpected account: <SendResult accepted=")


def test_a_recipient_without_a_reply_is_shown_as_such(tmp_path: Path) -> None:
    meant = read(folder(tmp_path, one=letter()) / "one.eml")
    with MailServer(without=["8BITMIME", "SMTPUTF8"]) as server:
        jorg = Meant("x.eml", meant.octets, "jörg@example.org", ("bob@example.org",), meant.content, None)
        [row] = demo._through_blocking([jorg], server)
    assert "8BITMIME" in row.problems[0] or "SMTPUTF8" in row.problems[0]
    assert row.line.endswith("NOT as meant  not sent bob@example.org: no reply")


def test_a_blocking_client_that_refuses_the_message_is_named_not_raised(tmp_path: Path) -> None:
    meant = read(folder(tmp_path, one=letter()) / "one.eml")
    bad = Meant("x.eml", b"\0", meant.sender, meant.recipients, meant.content, None)
    with MailServer() as server:
        [row] = demo._through_blocking([bad], server)
    assert "NUL" in row.problems[0]


# What is meant


def test_what_is_meant_has_no_bcc_and_right_line_ends(tmp_path: Path) -> None:
    path = folder(
        tmp_path, one=b"From: a@example.org\nTO: b@example.org\nbCC: c@example.org,\n\td@example.org\n\nx"
    )
    meant = read(path / "one.eml")
    assert meant.content == b"From: a@example.org\r\nTO: b@example.org\r\n\r\nx\r\n"
    assert meant.recipients == ("b@example.org", "c@example.org", "d@example.org")
    assert meant.call == "sendmail"


def test_domains_that_are_not_ascii_are_meant_as_a_labels(tmp_path: Path) -> None:
    meant = read(EXAMPLES / "idn-domain.eml")
    assert meant.sender == "info@xn--bcher-kva.test"
    assert b"From: Buchladen <info@xn--bcher-kva.test>\r\n" in meant.content
    assert meant.content.isascii()
