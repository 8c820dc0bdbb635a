"""`aiosmtpclient check`: what a server offers, and a certificate whether accepted or not."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from aiosmtpclient.__main__ import main
from aiosmtpclient.cli import check as command
from aiosmtpclient.cli.certificates import Certificate
from aiosmtpclient.cli.check import settings_of
from aiosmtpclient.cli.options import Parser
from aiosmtpclient.testing import CertificateAuthority, MailServer, ScriptedServer
from aiosmtpclient.testing.scripted import Step, ehlo, expect_eof, greeting, read_all, starttls
from aiosmtpclient.tls import TLSPolicy

CA = CertificateAuthority()
BYE: list[Step] = ["QUIT", b"221 bye\r\n"]


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Check = Callable[..., Ran]


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str]) -> Check:
    """Run the command on a server."""

    def run(server: MailServer | ScriptedServer, *arguments: object) -> Ran:
        where = f"localhost:{server.port}" if server.port else server.host
        code = main(["check", where, *map(str, arguments)])
        return Ran(code, *capsys.readouterr())

    return run


@pytest.fixture
def ca_file(tmp_path: Path) -> Path:
    return CA.write_to(tmp_path).ca


def test_a_server_in_clear_shows_greeting_extensions_and_mechanisms(check: Check) -> None:
    with MailServer(users={"ann": "x"}, without=["CHUNKING", "VRFY", "EXPN", "HELP", "DSN"]) as server:
        ran = check(server)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines() == [
        f"localhost:{server.port}",
        "  greeting     220 mail.test ESMTP ready for tests",
        "  in clear     PIPELINING, 8BITMIME, SMTPUTF8, ENHANCEDSTATUSCODES, SIZE 0",
        "    login      CRAM-MD5 PLAIN LOGIN",
        "  TLS          none",
    ]


def test_starttls_shows_both_sides_of_it_and_the_certificate(check: Check, ca_file: Path) -> None:
    with MailServer(starttls=True, users={"ann": "x"}, auth_requires_tls=True) as server:
        ran = check(server, "--ca-file", ca_file)
    lines = ran.out.splitlines()
    assert (ran.code, ran.err) == (0, "")
    assert lines[2].startswith("  before TLS   PIPELINING, ")
    assert lines[2].endswith("STARTTLS")
    assert lines[3] == "    login      none"
    assert lines[4].startswith("  TLS          TLSv1.")
    assert lines[4].endswith(" bits")
    assert lines[5] == "  certificate  accepted"
    assert "organizationName=trustme" in lines[7]
    assert "organizationName=aiosmtpclient tests (trusted)" in lines[8]
    assert lines[9].startswith("    names      localhost, 127.0.0.1, ")
    assert lines[10] == "    valid      2000-01-01T00:00:00Z to 3000-01-01T00:00:00Z"
    assert lines[11].startswith("  inside TLS   PIPELINING, ")
    assert "STARTTLS" not in lines[11]
    assert lines[12] == "    login      CRAM-MD5 PLAIN LOGIN"


@pytest.mark.parametrize("arguments", [["--tls", "none"], []])
def test_tls_is_used_if_offered_unless_that_is_forbidden(
    arguments: list[str], check: Check, ca_file: Path
) -> None:
    with MailServer(starttls=True) as server:
        ran = check(server, "--ca-file", ca_file, *arguments)
    assert ran.code == 0
    assert ("  TLS          none" in ran.out) is bool(arguments)


def test_implicit_tls_has_no_before(check: Check, ca_file: Path) -> None:
    with MailServer(implicit_tls=True) as server:
        ran = check(server, "--tls", "implicit", "--ca-file", ca_file)
    assert ran.code == 0
    assert "before TLS" not in ran.out
    assert "inside TLS" in ran.out


def test_lmtp_on_a_unix_socket(check: Check, tmp_path: Path) -> None:
    with MailServer(lmtp=True, unix_path=tmp_path / "lmtp") as server:
        ran = check(server, "--lmtp")
    assert ran.code == 0
    assert ran.out.startswith(f"{tmp_path / 'lmtp'}\n  greeting     220 mail.test LMTP")


def test_a_server_before_esmtp_offers_nothing(check: Check) -> None:
    with MailServer(hello_only=True) as server:
        ran = check(server)
    assert ran.code == 0
    assert "  in clear     no extensions\n    login      none\n" in ran.out


@pytest.mark.parametrize(
    ("context", "why"),
    [
        (CA.untrusted_context(), "not trusted here"),
        (CA.expired_context(), "has expired"),
        (CA.wrong_name_context(), "is for another name"),
    ],
    ids=["untrusted", "expired", "wrong name"],
)
@pytest.mark.parametrize("policy", ["starttls", "implicit"])
def test_a_certificate_that_is_not_accepted_is_shown_all_the_same(
    policy: str, context: ssl.SSLContext, why: str, check: Check, ca_file: Path
) -> None:
    implicit = policy == "implicit"
    with MailServer(starttls=not implicit and context, implicit_tls=implicit and context) as server:
        ran = check(server, "--tls", policy, "--ca-file", ca_file)
    assert ran.code == 78
    assert why in ran.err
    assert ran.err.count("\n") == 1
    assert "  certificate  NOT ACCEPTED\n    sha256     " in ran.out
    assert "    issuer     organizationName=aiosmtpclient tests" in ran.out
    assert "\n  inside TLS   PIPELINING" in ran.out
    assert {line.split()[0] for line in server.commands} <= {"EHLO", "STARTTLS", "QUIT"}


def test_the_problem_has_a_traceback_if_asked_for(check: Check) -> None:
    with MailServer(starttls=True) as server:
        ran = check(server, "--debug")
    assert ran.code == 78
    assert "Traceback" in ran.err


def test_a_password_in_the_environment_is_never_sent(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMTP_PASSWORD", "hunter2")
    with MailServer(starttls=True, users={"ann": "hunter2"}) as server:
        ran = check(server, "--trace")
    assert not [line for line in server.commands if line.startswith("AUTH")]
    assert "hunter2" not in ran.out + ran.err


def test_json_tells_everything(check: Check, ca_file: Path) -> None:
    with MailServer(starttls=True, users={"ann": "x"}, auth_requires_tls=True) as server:
        ran = check(server, "--json", "--ca-file", ca_file)
    found = json.loads(ran.out)
    assert found["server"] == f"localhost:{server.port}"
    assert found["greeting"]["code"] == 220
    assert found["before_tls"]["auth"] == []
    assert found["before_tls"]["extensions"]["starttls"] == ""
    assert found["inside_tls"]["auth"] == ["CRAM-MD5", "PLAIN", "LOGIN"]
    assert found["tls"]["version"].startswith("TLSv1.")
    assert found["certificate"]["names"][0] == "localhost"
    assert found["certificate"]["not_before"] == "2000-01-01T00:00:00Z"
    assert len(found["certificate"]["sha256"]) == 64
    assert found["problem"] is None


def test_json_without_tls_has_nulls(check: Check) -> None:
    with MailServer() as server:
        found = json.loads(check(server, "--json").out)
    assert (found["tls"], found["certificate"], found["inside_tls"]) == (None, None, None)


def test_json_says_why_a_certificate_was_not_accepted(check: Check) -> None:
    with MailServer(implicit_tls=True) as server:
        ran = check(server, "--json", "--tls", "implicit")
    assert ran.code == 78
    assert "not trusted here" in json.loads(ran.out)["problem"]


def test_a_trace_shows_the_conversation(check: Check) -> None:
    with MailServer() as server:
        ran = check(server, "--trace", "--local-hostname", "client.example.org")
    lines = ran.err.splitlines()
    assert lines[0] == "S: 220 mail.test ESMTP ready for tests"
    assert lines[1] == "C: EHLO client.example.org"
    assert lines[-1] == "S: 221 2.0.0 Bye"


def test_what_a_hostile_server_says_never_reaches_the_terminal_raw(check: Check) -> None:
    hostile = b"\x1b]0;owned\x07\x9b\x7f"
    script: list[Step] = [
        b"220 " + hostile + b"\r\n",
        "EHLO",
        b"250-hi\r\n250-X " + hostile + b"\r\n250 AUTH PLAIN\r\n",
    ]
    for arguments in (["--trace", "--debug"], ["--json"]):
        with ScriptedServer([*script, "EHLO", b"250 " + hostile + b"\r\n", *BYE]) as server:
            ran = check(server, *arguments)
        assert ran.code == 0
        assert {c for c in ran.out + ran.err if not c.isprintable()} == {"\n"}


# What goes wrong


def test_starttls_that_is_required_and_missing_is_78(check: Check) -> None:
    with MailServer() as server:
        ran = check(server, "--tls", "starttls")
    assert (ran.code, ran.out) == (78, "")
    assert "does not offer STARTTLS" in ran.err


def test_implicit_tls_to_a_server_in_clear_is_78(check: Check) -> None:
    with ScriptedServer([greeting(), read_all()]) as server:
        ran = check(server, "--tls", "implicit")
    assert (ran.code, ran.out) == (78, "")


def test_a_server_that_is_none_is_76(check: Check) -> None:
    with ScriptedServer([b"HTTP/1.1 400 Bad Request\r\n", expect_eof()]) as server:
        assert check(server).code == 76


def test_a_server_that_refuses_ehlo_and_helo_is_69(check: Check) -> None:
    with ScriptedServer([greeting(), "EHLO", b"554 no\r\n", "HELO", b"554 no\r\n", *BYE]) as server:
        assert check(server).code == 69


def test_nobody_listening_is_75(check: Check) -> None:
    with MailServer() as server:
        pass
    ran = check(server)
    assert (ran.code, ran.out) == (75, "")
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--local-hostname", "two words"],
        ["--timeout", "0"],
        ["--tls", "starttls", "--server-hostname", "a b"],
    ],
)
def test_arguments_that_make_no_sense_are_64(arguments: list[str], check: Check) -> None:
    with MailServer(starttls=True) as server:
        ran = check(server, *arguments)
    assert (ran.code, ran.out) == (64, "")
    assert ran.err.count("\n") == 1


def tls_visit(*inside: Step) -> list[Step]:
    """A script up to the handshake, and what comes inside TLS."""
    bring_up, hello = starttls(CA.untrusted_context()), ehlo("STARTTLS")
    return [greeting(), hello, hello, "STARTTLS", b"220 go\r\n", bring_up, *inside]


def test_the_first_problem_is_told_if_there_is_no_second_look(check: Check) -> None:
    with ScriptedServer(tls_visit(), [b"421 one is enough\r\n", expect_eof()]) as server:
        ran = check(server)
    assert (ran.code, ran.out) == (78, "")
    assert "not trusted here" in ran.err


def test_without_a_third_look_there_is_a_fingerprint(check: Check) -> None:
    enough: list[Step] = [b"421 two are enough\r\n", expect_eof()]
    scripts = [tls_visit(), tls_visit(ehlo("SIZE"), *BYE), enough]
    with ScriptedServer(*scripts) as server:
        text = check(server)
    with ScriptedServer(*scripts) as server:
        found = json.loads(check(server, "--json").out)
    assert text.code == 78
    assert "    sha256     " in text.out
    assert "subject" not in text.out
    assert (found["certificate"]["subject"], found["certificate"]["not_after"]) == (None, None)


def test_a_second_look_without_tls_shows_no_certificate(check: Check) -> None:
    refusing: list[Step] = [
        greeting(),
        ehlo("STARTTLS"),
        ehlo("STARTTLS"),
        "STARTTLS",
        b"454 not now\r\n",
        *BYE,
    ]
    with ScriptedServer(tls_visit(), refusing) as server:
        ran = check(server)
    assert ran.code == 78
    assert "sha256" not in ran.out


class Anonymous:
    """A connection whose other side has no certificate, as with an anonymous cipher."""

    def getpeercert(self, binary_form: bool = False) -> None:
        return None


def test_a_server_may_have_no_certificate() -> None:
    assert Certificate.of(Anonymous()) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "port", "policy"),
    [
        (["mail.test"], 25, TLSPolicy.OPPORTUNISTIC),
        (["mail.test:2525"], 2525, TLSPolicy.OPPORTUNISTIC),
        (["mail.test:587"], 587, TLSPolicy.STARTTLS),
        (["mail.test:465"], 465, TLSPolicy.IMPLICIT),
        (["[::1]:465"], 465, TLSPolicy.IMPLICIT),
        (["localhost", "--tls", "implicit"], 465, TLSPolicy.IMPLICIT),
        (["localhost", "--lmtp"], 2003, TLSPolicy.OPPORTUNISTIC),
        (["/run/smtp.sock", "--tls", "implicit"], 465, TLSPolicy.IMPLICIT),
        (["/run/smtp.sock"], 25, TLSPolicy.OPPORTUNISTIC),
    ],
)
def test_port_and_policy_follow_from_the_arguments(
    arguments: list[str], port: int, policy: TLSPolicy
) -> None:
    parser = Parser()
    command.add_to(parser.add_subparsers())
    settings = settings_of(parser.parse_args(["check", *arguments]), None)
    assert (settings.endpoint.port, settings.policy) == (port, policy)
    assert settings.credentials is None
