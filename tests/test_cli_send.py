"""`aiosmtpclient send`: each option, each exit code, and what must never be printed."""

from __future__ import annotations

import base64
import errno
import getpass
import io
import json
import os
import signal
import socket
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from aiosmtpclient.__main__ import main
from aiosmtpclient.testing import CertificateAuthority, Conversation, MailServer, ScriptedServer
from aiosmtpclient.testing.scripted import Step, drop, ehlo, expect_content, expect_eof, greeting, say, stall

PASSWORD = "correct horse"
NEVER = "550 5.1.1 no such user"
LATER = "450 4.2.1 try later"


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Send = Callable[..., Ran]


@pytest.fixture
def send(capsys: pytest.CaptureFixture[str]) -> Send:
    """Run the command, to a server if one is given."""

    def run(*arguments: object, to: MailServer | ScriptedServer | None = None) -> Ran:
        where = [] if to is None else ["--host", to.host, *(["--port", str(to.port)] if to.port else [])]
        code = main(["send", *where, *map(str, arguments)])
        return Ran(code, *capsys.readouterr())

    return run


@pytest.fixture
def letter(tmp_path: Path) -> Path:
    path = tmp_path / "letter.eml"
    path.write_bytes(message())
    return path


def message(*, to: str = "bob@example.org", more: bytes = b"") -> bytes:
    head = f"From: Ann <ann@example.org>\r\nTo: {to}\r\nSubject: hello\r\n".encode()
    return head + more + b"\r\nhello Bob\r\n"


def to_content(*extensions: str) -> list[Step]:
    """A script up to the 354."""
    steps: list[Step] = [greeting(), ehlo(*extensions)]
    for verb in ("MAIL", "RCPT"):
        steps += [verb, b"250 ok\r\n"]
    return [*steps, "DATA", b"354 go\r\n"]


def accepting(*extensions: str) -> list[Step]:
    return [*to_content(*extensions), expect_content(), b"250 2.0.0 queued\r\n"]


# What is sent


def test_a_message_goes_to_whom_its_headers_name(send: Send, letter: Path) -> None:
    with MailServer() as server:
        ran = send(letter, to=server)
    [received] = server.messages
    assert (received.sender, received.recipients) == ("ann@example.org", ("bob@example.org",))
    assert received.content == letter.read_bytes()
    assert ran == (
        0,
        f"{letter}: accepted: 250 2.0.0 Ok: queued as 4A000001\n  accepted  bob@example.org\n",
        "",
    )


def test_bcc_gets_the_message_but_does_not_travel(send: Send, letter: Path) -> None:
    letter.write_bytes(message(more=b"Bcc: silent@example.org\r\n"))
    with MailServer() as server:
        assert send(letter, to=server).code == 0
    assert server.messages[0].recipients == ("bob@example.org", "silent@example.org")
    assert server.messages[0].content == message()


def test_long_header_lines_travel_as_they_stand_in_the_file(send: Send, letter: Path) -> None:
    long = b"X-Signed: " + b"word " * 60 + b"end\r\n\tfolded  by hand\r\n"
    letter.write_bytes(message(more=long))
    with MailServer() as server:
        assert send(letter, to=server).code == 0
    assert server.messages[0].content == message(more=long)


def test_the_envelope_can_be_given(send: Send, letter: Path) -> None:
    with MailServer() as server:
        ran = send("--from", "", "--to", "carol@example.org", "--to", "dan@example.org", letter, to=server)
    assert ran.code == 0
    [received] = server.messages
    assert (received.sender, received.recipients) == ("", ("carol@example.org", "dan@example.org"))


def test_raw_octets_travel_untouched_bcc_and_all(send: Send, letter: Path) -> None:
    octets = message(more=b"Bcc : silent@example.org\r\nbroken header line\r\n")
    letter.write_bytes(octets)
    with MailServer() as server:
        ran = send("--raw", "--from", "a@example.org", "--to", "b@example.org", letter, to=server)
    assert ran.code == 0
    assert server.messages[0].content == octets
    assert server.messages[0].recipients == ("b@example.org",)


@pytest.mark.parametrize("envelope", [[], ["--from", "a@example.org"], ["--to", "b@example.org"]])
def test_raw_octets_need_an_envelope(envelope: list[str], send: Send, letter: Path) -> None:
    ran = send("--raw", *envelope, letter)
    assert (ran.code, ran.out) == (64, "")
    assert "--raw" in ran.err


@pytest.mark.parametrize("files", [[], ["-"]])
def test_standard_input_is_a_message(files: list[str], send: Send, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(message())))
    with MailServer() as server:
        ran = send(*files, to=server)
    assert ran.code == 0
    assert ran.out.startswith("-: accepted")
    assert server.messages[0].content == message()


def test_standard_input_is_read_once(send: Send) -> None:
    assert send("-", "-").code == 64


def test_many_messages_go_through_one_connection(send: Send, letter: Path) -> None:
    with MailServer() as server:
        ran = send(letter, letter, letter, to=server)
    assert (ran.code, len(server.messages), server.connections) == (0, 3, 1)
    assert ran.out.count("accepted: 250") == 3


def test_lmtp_accounts_for_each_recipient(send: Send, letter: Path) -> None:
    letter.write_bytes(message(to="bob@example.org, carol@example.org"))
    with MailServer(
        lmtp=True, refuse_after_content={"carol@example.org": "552 5.2.2 mailbox full"}
    ) as server:
        ran = send("--lmtp", letter, to=server)
    assert ran.code == 67
    assert ran.out.splitlines()[1:] == [
        "  accepted  bob@example.org",
        "  refused   carol@example.org: 552 5.2.2 mailbox full",
    ]


def test_a_unix_socket_is_a_host(send: Send, letter: Path, tmp_path: Path) -> None:
    with MailServer(lmtp=True, unix_path=tmp_path / "lmtp") as server:
        assert send("--lmtp", letter, to=server).code == 0
    assert len(server.messages) == 1


def test_all_or_nothing_delivers_nothing_if_one_is_refused(send: Send, letter: Path) -> None:
    letter.write_bytes(message(to="bob@example.org, carol@example.org"))
    with MailServer(refuse={"carol@example.org": NEVER}) as server:
        ran = send("--all-or-nothing", letter, to=server)
    assert (ran.code, server.messages) == (67, [])
    assert ran.out.splitlines() == [
        f"{letter}: refused",
        "  not sent  bob@example.org",
        f"  refused   carol@example.org: {NEVER}",
    ]


def test_pipelining_can_be_turned_off(send: Send, letter: Path) -> None:
    with MailServer() as off, MailServer() as on:
        assert send("--pipelining", "off", letter, to=off).code == 0
        assert send("--pipelining", "message", letter, to=on).code == 0
    assert off.round_trips == on.round_trips + 2


def test_the_name_for_ehlo_can_be_given(send: Send, letter: Path) -> None:
    with MailServer() as server:
        assert send("--local-hostname", "client.example.org", letter, to=server).code == 0
    assert server.messages[0].helo == "client.example.org"


# What is wrong with the arguments


@pytest.mark.parametrize(
    "arguments",
    [
        ["--local-hostname", "two words"],
        ["--timeout", "0"],
        ["--host", "localhost:99999"],
        ["--host", "[::1]:99999"],
        ["--password-file", "/dev/null"],
    ],
)
def test_arguments_that_make_no_sense_are_64(arguments: list[str], send: Send, letter: Path) -> None:
    ran = send(*arguments, letter)
    assert (ran.code, ran.out) == (64, "")
    assert ran.err.count("\n") == 1


def test_a_name_no_certificate_can_have_is_64(send: Send, letter: Path) -> None:
    with MailServer(starttls=True) as server:
        ran = send("--tls", "starttls", "--server-hostname", "no name", letter, to=server)
    assert ran.code == 64
    assert "not a host name: 'no name'" in ran.err


# What is wrong with the messages


def test_a_missing_file_is_66_and_the_others_are_sent(send: Send, letter: Path, tmp_path: Path) -> None:
    with MailServer() as server:
        ran = send(tmp_path / "nothing.eml", letter, tmp_path, to=server)
    assert (ran.code, len(server.messages)) == (66, 1)
    assert ran.out.splitlines()[0] == f"{tmp_path / 'nothing.eml'}: not sent"
    assert ran.err.splitlines() == [
        f"aiosmtpclient: {tmp_path / 'nothing.eml'}: No such file or directory",
        f"aiosmtpclient: {tmp_path}: Is a directory",
    ]


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        (b"", "no Sender or From"),
        (b"From: a@example.org\r\n\r\nx", "no recipients"),
        (message(more=b"Cc: <no\x01body@example.org>\r\n"), "address"),
        (message() + b"\0", "NUL"),
    ],
)
def test_a_message_that_cannot_be_sent_is_65_without_a_connection(
    octets: bytes, why: str, send: Send, letter: Path
) -> None:
    letter.write_bytes(octets)
    with MailServer() as server:
        ran = send(letter, to=server)
    assert (ran.code, server.connections) == (65, 0)
    assert why in ran.err


# What the server says


@pytest.mark.parametrize(("reply", "code"), [(NEVER, 67), (LATER, 75)])
def test_refused_recipients_are_named_with_the_servers_words(
    reply: str, code: int, send: Send, letter: Path
) -> None:
    with MailServer(refuse=reply) as server:
        ran = send(letter, to=server)
    assert ran.code == code
    assert ran.out == f"{letter}: refused\n  refused   bob@example.org: {reply}\n"
    where = f"{server.host}:{server.port}"
    assert (
        ran.err
        == f"aiosmtpclient: {letter}: all recipients were refused by {where}: bob@example.org: {reply}\n"
    )


def test_one_refused_recipient_of_two_is_seen_in_the_exit_code(send: Send, letter: Path) -> None:
    letter.write_bytes(message(to="bob@example.org, carol@example.org"))
    with MailServer(refuse={"bob@example.org": LATER}) as server:
        ran = send(letter, to=server)
    assert (ran.code, ran.err) == (75, "")
    assert f"  refused   bob@example.org: {LATER}\n  accepted  carol@example.org\n" in ran.out


@pytest.mark.parametrize(("reply", "code"), [("550 5.7.1 not you", 69), ("451 4.7.1 later", 75)])
def test_a_refused_sender_or_content_is_69_or_75(reply: str, code: int, send: Send, letter: Path) -> None:
    with MailServer(refuse_sender=reply) as by_sender, MailServer(refuse_content=reply) as by_content:
        assert send(letter, to=by_sender).code == code
        assert send(letter, to=by_content).code == code


def test_a_server_without_a_needed_extension_is_69(send: Send, letter: Path) -> None:
    letter.write_bytes(message(to="jörg@example.org"))
    with MailServer(without=["SMTPUTF8"]) as server:
        ran = send(letter, to=server)
    assert ran.code == 69
    assert ran.out == f"{letter}: not sent\n  not sent  jörg@example.org\n"


def test_the_worst_of_several_messages_is_the_exit_code(send: Send, letter: Path, tmp_path: Path) -> None:
    later = tmp_path / "later.eml"
    later.write_bytes(message(to="later@example.org"))
    with MailServer(refuse={"later@example.org": LATER, "bob@example.org": NEVER}) as server:
        assert send(letter, later, to=server).code == 67


def test_no_such_host_is_68(send: Send, letter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    ran = send("--host", "nowhere.example.org", letter)
    assert ran.code == 68
    assert ran.out == f"{letter}: not sent\n  not sent  bob@example.org\n"
    assert "nowhere.example.org" in ran.err


def test_a_name_server_that_does_not_answer_is_75(
    send: Send, letter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    assert send("--host", "nowhere.example.org", letter).code == 75


def test_a_host_that_no_domain_can_be_is_68(send: Send, letter: Path) -> None:
    assert send("--host", f"{'x' * 64}.example.org", "--tls", "none", letter).code == 68


def test_a_connection_that_cannot_be_made_is_75_and_not_tried_again(send: Send, letter: Path) -> None:
    with ScriptedServer([say(b"421 4.3.2 busy\r\n"), expect_eof()], repeat_last=False) as server:
        ran = send(letter, letter, to=server)
    assert (ran.code, server.connections) == (75, 1)
    assert ran.out == f"{letter}: not sent\n  not sent  bob@example.org\n" * 2
    assert ran.err.count("421 4.3.2 busy") == 2


def test_nobody_listening_is_75(send: Send, letter: Path) -> None:
    with MailServer() as server:
        port = server.port
    assert send("--port", port, letter).code == 75


def test_a_greeting_that_sends_us_away_is_69(send: Send, letter: Path) -> None:
    with ScriptedServer([b"554 no service\r\n", "QUIT", b"221 bye\r\n"]) as server:
        assert send(letter, to=server).code == 69


def test_a_connection_lost_before_the_content_is_75_and_not_sent(send: Send, letter: Path) -> None:
    with ScriptedServer([*to_content()[:-1], drop()]) as server:
        ran = send(letter, to=server)
    assert ran.code == 75
    assert ran.out.endswith("  not sent  bob@example.org\n")


def test_a_connection_lost_after_the_content_is_74_and_unknown(send: Send, letter: Path) -> None:
    with ScriptedServer([*to_content(), expect_content(), drop()]) as server:
        ran = send(letter, to=server)
    assert ran.code == 74
    assert ran.out == f"{letter}: unknown\n  unknown   bob@example.org\n"


def test_a_timeout_is_75(send: Send, letter: Path) -> None:
    with ScriptedServer([greeting(), "EHLO", stall()]) as server:
        ran = send("--timeout", "0.05", letter, to=server)
    assert ran.code == 75
    assert "took longer than 0.05 s (EHLO)" in ran.err


def test_a_server_that_breaks_the_protocol_is_76(send: Send, letter: Path) -> None:
    with ScriptedServer([b"HTTP/1.1 400 Bad Request\r\n", expect_eof()]) as server:
        assert send(letter, to=server).code == 76


def test_a_lost_connection_is_made_again_for_the_next_message(send: Send, letter: Path) -> None:
    with ScriptedServer([*to_content()[:-1], drop()], [*accepting(), "QUIT", b"221 bye\r\n"]) as server:
        ran = send(letter, letter, to=server)
    assert (ran.code, server.connections) == (75, 2)
    assert ran.out.splitlines()[2] == f"{letter}: accepted: 250 2.0.0 queued"


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_leaves_an_account_of_every_message(
    how: signal.Signals, letter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def interrupt(conversation: Conversation) -> None:
        os.kill(os.getpid(), how)
        await conversation.gone.wait()

    script = [*to_content(), expect_content(), interrupt]
    with ScriptedServer(script) as server:
        code = main(["send", "--port", str(server.port), str(letter), str(tmp_path / "next.eml")])
    assert code == 74  # somebody has to look at it
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        f"{letter}: unknown",
        "  unknown   bob@example.org",
        f"{tmp_path / 'next.eml'}: not sent",
    ]
    assert captured.err == "aiosmtpclient: interrupted\n"


def test_an_interruption_does_not_hide_that_an_earlier_message_is_unknown(
    letter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def interrupt(conversation: Conversation) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        await conversation.gone.wait()

    with ScriptedServer([*to_content(), expect_content(), drop()], [greeting(), "EHLO", interrupt]) as server:
        assert main(["send", "--port", str(server.port), str(letter), str(letter)]) == 74
    assert [line.rpartition(": ")[2] for line in capsys.readouterr().out.splitlines()][::2] == [
        "unknown",
        "not sent",
    ]


def test_ctrl_c_is_an_error_in_json_too(letter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def interrupt(conversation: Conversation) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        await conversation.gone.wait()

    with ScriptedServer([greeting(), "EHLO", interrupt]) as server:
        assert main(["send", "--json", "--port", str(server.port), str(letter)]) == 130
    error = json.loads(capsys.readouterr().out)["error"]
    assert error == {"type": "CancelledError", "message": "interrupted", "temporary": False}


# TLS


@pytest.fixture
def ca_file(tmp_path: Path) -> Path:
    return CertificateAuthority().write_to(tmp_path).ca


@pytest.mark.parametrize("policy", ["opportunistic", "starttls", "implicit"])
def test_tls_is_used_as_asked_and_trusts_the_given_ca(
    policy: str, send: Send, letter: Path, ca_file: Path
) -> None:
    implicit = policy == "implicit"
    with MailServer(starttls=not implicit, implicit_tls=implicit) as server:
        ran = send("--tls", policy, "--ca-file", ca_file, letter, to=server)
    assert ran.code == 0
    assert server.messages[0].tls


def test_the_name_of_the_certificate_can_be_given(send: Send, letter: Path, ca_file: Path) -> None:
    context = CertificateAuthority().wrong_name_context()
    with MailServer(starttls=context) as server:
        trusting = ["--tls", "starttls", "--ca-file", ca_file, letter]
        wrong = send(*trusting, to=server)
        right = send("--server-hostname", "another-host.test", *trusting, to=server)
    assert (wrong.code, right.code) == (78, 0)
    assert "pass it as --server-hostname" in wrong.err


def test_a_certificate_that_is_not_trusted_is_78(send: Send, letter: Path) -> None:
    with MailServer(starttls=True) as server:
        ran = send("--tls", "starttls", letter, to=server)
    assert (ran.code, server.messages) == (78, [])
    assert "pass --ca-file with it or its CA in it" in ran.err


def test_a_policy_that_cannot_be_kept_is_78(send: Send, letter: Path) -> None:
    with MailServer() as server:
        ran = send("--tls", "starttls", letter, to=server)
    assert (ran.code, server.messages) == (78, [])
    assert "which --tls starttls requires" in ran.err


def test_a_missing_ca_file_is_66(send: Send, letter: Path, tmp_path: Path) -> None:
    ran = send("--ca-file", tmp_path / "none.pem", letter)
    why = f"cannot load --ca-file '{tmp_path / 'none.pem'}': No such file or directory"
    assert ran == (66, "", f"aiosmtpclient: {why}\n")


def test_a_ca_file_that_is_none_is_78(send: Send, letter: Path) -> None:
    ran = send("--ca-file", letter, letter)
    assert ran == (78, "", f"aiosmtpclient: cannot load --ca-file '{letter}': no certificates in PEM form\n")


# The password


def spellings() -> list[str]:
    """The password as it could show itself."""
    plain = f"\0ann\0{PASSWORD}".encode()
    return [PASSWORD, *(base64.b64encode(octets).decode() for octets in (PASSWORD.encode(), plain))]


def logged_in(send: Send, letter: Path, *arguments: object, mechanism: str = "PLAIN") -> None:
    """Send with a login, showing all there is to show; the password must not be in it."""
    with MailServer(users={"ann": PASSWORD}, mechanisms=[mechanism]) as server:
        ran = send("--trace", "--debug", "--user", "ann", *arguments, letter, to=server)
    assert ran.code == 0
    assert server.messages[0].user == "ann"
    assert f"C: AUTH {mechanism}" in ran.err
    assert [spelled for spelled in spellings() if spelled in ran.out + ran.err] == []


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
@pytest.mark.parametrize("end", ["", "\n", "\r\nsecond line\n"])
def test_the_password_comes_from_the_first_line_of_a_file(
    end: str, mechanism: str, send: Send, letter: Path, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_bytes((PASSWORD + end).encode())
    logged_in(send, letter, "--password-file", file, mechanism=mechanism)


def test_the_password_comes_from_the_environment(
    send: Send, letter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMTP_PASSWORD", PASSWORD)
    logged_in(send, letter)


def test_the_environment_variable_can_be_chosen(
    send: Send, letter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMTP_PASSWORD", "another one")
    monkeypatch.setenv("RELAY_PASSWORD", PASSWORD)
    logged_in(send, letter, "--password-env", "RELAY_PASSWORD")


def test_the_password_is_asked_for_on_the_terminal(
    send: Send, letter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SMTP_PASSWORD", raising=False)
    monkeypatch.setattr(getpass, "getpass", lambda prompt: PASSWORD if prompt == "Password of ann: " else "")
    logged_in(send, letter)


def netrc_of(tmp_path: Path, text: str, name: str = "netrc") -> Path:
    file = tmp_path / name
    file.write_text(text)
    file.chmod(0o600)
    return file


@pytest.mark.parametrize("machine", ["machine 127.0.0.1", "default"])
def test_user_and_password_come_from_a_netrc(
    machine: str, send: Send, letter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMTP_PASSWORD", "another one")
    text = f'machine other login bob password x\n{machine} login ann password "{PASSWORD}"\n'
    with MailServer(users={"ann": PASSWORD}) as server:
        ran = send("--trace", "--debug", "--netrc-file", netrc_of(tmp_path, text), letter, to=server)
    assert ran.code == 0, ran.err
    assert server.messages[0].user == "ann"
    assert [spelled for spelled in spellings() if spelled in ran.out + ran.err] == []


def test_the_netrc_at_home(send: Send, letter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    netrc_of(tmp_path, f'machine 127.0.0.1 login ann password "{PASSWORD}"\n', ".netrc")
    logged_in(send, letter, "--netrc")


@pytest.mark.skipif(os.name != "posix", reason="permissions as POSIX has them")
def test_a_netrc_at_home_that_everybody_can_read_is_not_used(
    send: Send, letter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    netrc_of(tmp_path, f'machine localhost login ann password "{PASSWORD}"\n', ".netrc").chmod(0o644)
    ran = send("--netrc", letter)
    assert ran.code == 78
    assert "permissions" in ran.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("machine elsewhere login ann password x\n", "no entry"),
        ("machine localhost login ann\n", "no entry"),
        ("machine localhost login bob password x\n", "not that of --user"),
        (f"machine localhost login ann password {PASSWORD}\n", "should be: line 2"),  # a blank, and no quotes
    ],
)
def test_a_netrc_of_no_use_is_78_and_is_not_shown(
    text: str, said: str, send: Send, letter: Path, tmp_path: Path
) -> None:
    ran = send("--debug", "--user", "ann", "--netrc-file", netrc_of(tmp_path, text), letter)
    assert (ran.code, ran.out) == (78, "")
    assert said in ran.err
    assert "correct" not in ran.err
    assert "horse" not in ran.err


def test_a_missing_netrc_is_66(send: Send, letter: Path, tmp_path: Path) -> None:
    assert send("--netrc-file", tmp_path / "none", letter).code == 66


def test_a_password_from_two_places_is_64(send: Send, letter: Path, tmp_path: Path) -> None:
    assert send("--netrc", "--password-file", tmp_path / "x", "--user", "ann", letter).code == 64


def test_a_token_comes_from_a_file(send: Send, letter: Path, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("ya29.no-real-token\n")
    with MailServer(tokens={"ya29.no-real-token": "ann"}) as server:
        ran = send("--trace", "--debug", "--user", "ann", "--token-file", file, letter, to=server)
        other = send("--token-file", file, "--mechanism", "plain", "--user", "ann", letter, to=server)
    assert ran.code == 0, ran.err
    assert "ya29.no-real-token" not in ran.out + ran.err
    assert other.code == 69
    assert "no mechanism in common" in other.err


def test_a_mechanism_that_needs_no_password_asks_for_none(send: Send, letter: Path) -> None:
    with MailServer(mechanisms=["ANONYMOUS"]) as server:
        ran = send("--user", "guest", "--mechanism", "anonymous", letter, to=server)
        advised = send("--user", "guest", "--password-file", os.devnull, letter, to=server)
    assert ran.code == 0, ran.err
    assert "named, by --mechanism" in advised.err


def no_terminal(prompt: str) -> str:
    warnings.warn("Can not control echo on the terminal.", getpass.GetPassWarning, stacklevel=2)
    raise AssertionError("the message would be read as the password")


def end_of_file(prompt: str) -> str:
    raise EOFError


@pytest.mark.parametrize("asking", [no_terminal, end_of_file])
def test_without_a_terminal_standard_input_is_not_read_for_the_password(
    asking: Callable[[str], str], send: Send, letter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SMTP_PASSWORD", raising=False)
    monkeypatch.setattr(getpass, "getpass", asking)
    ran = send("--user", "ann", letter)
    assert (ran.code, ran.out) == (64, "")
    assert "set SMTP_PASSWORD" in ran.err


def test_a_missing_password_file_is_66(send: Send, letter: Path, tmp_path: Path) -> None:
    assert send("--user", "ann", "--password-file", tmp_path / "none", letter).code == 66


def test_a_password_that_is_no_utf_8_is_not_shown(send: Send, letter: Path, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_bytes(b"correct\xff")
    ran = send("--debug", "--user", "ann", "--password-file", file, letter)
    assert ran.code == 78
    assert "correct" not in ran.err
    assert "xff" not in ran.err


def test_a_wrong_password_is_77_and_tried_once(
    send: Send, letter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMTP_PASSWORD", "wrong horse")
    with MailServer(users={"ann": PASSWORD}, mechanisms=["PLAIN"]) as server:
        ran = send("--user", "ann", letter, letter, to=server)
    assert (ran.code, server.messages) == (77, [])
    assert [line for line in server.commands if line.startswith("AUTH")] == ["AUTH PLAIN ***"]
    assert "wrong horse" not in ran.out + ran.err


def test_a_login_that_fails_for_now_is_75(send: Send, letter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMTP_PASSWORD", PASSWORD)
    script: list[Step] = [
        greeting(),
        ehlo("AUTH PLAIN"),
        "AUTH PLAIN",
        b"454 4.7.0 later\r\n",
        "QUIT",
        b"221 bye\r\n",
    ]
    with ScriptedServer(script) as server:
        assert send("--user", "ann", letter, to=server).code == 75


def test_a_server_that_says_the_password_back_is_not_printed(
    send: Send, letter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMTP_PASSWORD", PASSWORD)
    echo = f"535 5.7.8 {' '.join(spellings())} is wrong\r\n".encode()
    with ScriptedServer(
        [greeting(), ehlo("AUTH PLAIN"), "AUTH PLAIN", echo, "QUIT", b"221 bye\r\n"]
    ) as server:
        ran = send("--trace", "--debug", "--json", "--user", "ann", letter, to=server)
    assert ran.code == 77
    assert [spelled for spelled in spellings() if spelled in ran.out + ran.err] == []


def test_the_password_does_not_travel_in_clear_unless_that_is_asked_for(
    send: Send, letter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMTP_PASSWORD", PASSWORD)
    with MailServer(users={"ann": PASSWORD}) as server:
        careful = send("--tls", "opportunistic", "--user", "ann", letter, to=server)
        careless = send(
            *["--tls", "opportunistic", "--allow-cleartext-auth", "--user", "ann", letter], to=server
        )
    assert (careful.code, careless.code) == (78, 0)
    assert "pass --allow-cleartext-auth" in careful.err


# What is printed


def test_json_is_one_object_a_message(send: Send, letter: Path, tmp_path: Path) -> None:
    letter.write_bytes(message(to="bob@example.org, carol@example.org"))
    with MailServer(refuse={"carol@example.org": NEVER}) as server:
        ran = send("--json", letter, tmp_path / "none.eml", to=server)
    first, second = map(json.loads, ran.out.splitlines())
    queued = {"code": 250, "message": "2.0.0 Ok: queued as 4A000001", "enhanced_code": "2.0.0"}
    assert first == {
        "file": str(letter),
        "delivery": "accepted",
        "outcomes": [
            {"address": "bob@example.org", "delivery": "accepted", **queued},
            {
                "address": "carol@example.org",
                "delivery": "refused",
                "code": 550,
                "message": "5.1.1 no such user",
                "enhanced_code": "5.1.1",
            },
        ],
        "reply": queued,
        "error": None,
    }
    assert (second["delivery"], second["outcomes"], second["reply"]) == ("not sent", [], None)
    assert second["error"] == {"type": "Failure", "message": "No such file or directory", "temporary": False}


def test_json_of_a_message_that_was_not_sent_has_no_reply(send: Send, letter: Path) -> None:
    with ScriptedServer([b"421 busy\r\n", expect_eof()]) as server:
        ran = send("--json", letter, to=server)
    [outcome] = json.loads(ran.out)["outcomes"]
    assert outcome == {
        "address": "bob@example.org",
        "delivery": "not sent",
        "code": None,
        "message": None,
        "enhanced_code": None,
    }
    assert json.loads(ran.out)["error"]["temporary"] is True


def test_a_reply_without_an_enhanced_code_has_none_in_json(send: Send, letter: Path) -> None:
    with MailServer(without=["ENHANCEDSTATUSCODES"]) as server:
        ran = send("--json", letter, to=server)
    assert json.loads(ran.out)["reply"]["enhanced_code"] is None


HOSTILE = b"\x1b]0;owned\x07\x1b[2J\x9b\xc2\x9b\r \x7f\xe2\x80\xae"


@pytest.mark.parametrize("json_too", [[], ["--json"]])
def test_what_a_hostile_server_says_never_reaches_the_terminal_raw(
    json_too: list[str], send: Send, tmp_path: Path
) -> None:
    letter = tmp_path / "let\x1bter.eml"
    letter.write_bytes(message(more=b"X-Trick: \x1b[31m\r\n"))
    said = b" " + HOSTILE + b"\r\n"
    script: list[Step] = [b"220" + said, "EHLO", b"250-hi" + said + b"250 X-" + said]
    script += ["MAIL", b"250" + said, "RCPT", b"250" + said, "DATA", b"354" + said]
    script += [expect_content(), b"554 5.0.0" + said, "QUIT", b"221" + said]
    with ScriptedServer(script) as server:
        ran = send("--trace", "--debug", *json_too, letter, to=server)
    assert ran.code == 69
    assert r"S: 220 \x1b]0;owned" in ran.err
    assert r"C: X-Trick: \x1b[31m" in ran.err
    assert {c for c in ran.out + ran.err if not c.isprintable()} == {"\n"}


def test_a_trace_shows_the_conversation_with_its_content_abbreviated(send: Send, letter: Path) -> None:
    letter.write_bytes(message() + b"line\r\n" * 100)
    with MailServer() as server:
        ran = send("--trace", letter, to=server)
    lines = ran.err.splitlines()
    assert lines[0] == "S: 220 mail.test ESMTP ready for tests"
    assert "C: RCPT TO:<bob@example.org>" in lines
    assert "C: [89 more lines, 534 octets]" in lines
    assert lines[-3:] == ["S: 250 2.0.0 Ok: queued as 4A000001", "C: QUIT", "S: 221 2.0.0 Bye"]


def test_a_traceback_is_printed_only_if_asked_for(send: Send, letter: Path) -> None:
    with MailServer(refuse=NEVER) as server:
        plain = send(letter, to=server)
        debug = send("--debug", letter, to=server)
    assert "Traceback" not in plain.err
    assert "Traceback" in debug.err


def test_each_account_is_written_as_soon_as_it_is_known(
    letter: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Closed(io.StringIO):
        def flush(self) -> None:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(sys, "stdout", Closed())
    with MailServer() as server:
        assert main(["send", "--port", str(server.port), str(letter), str(letter)]) == 74
    assert len(server.messages) == 1
    assert capsys.readouterr().err == ""
