"""The command line reaches servers as the library does: by which certificates, and by which proxy."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from way_through import ProxyServer, in_a_thread

from aiosmtpclient.__main__ import main
from aiosmtpclient.cli.options import in_options
from aiosmtpclient.testing import CertificateAuthority, MailServer
from aiosmtpclient.testing.certificates import _authority, certificate_of

CA = CertificateAuthority()
PASSWORD = "correct horse battery"
COMMANDS = ["send", "bulk", "check"]


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture(params=COMMANDS)
def run(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run each command on a server."""
    letter = tmp_path / "letter.eml"
    letter.write_bytes(b"From: ann@example.org\r\nTo: bob@example.org\r\n\r\nhello\r\n")
    command: str = request.param

    def run(where: tuple[str, int], *arguments: object) -> Ran:
        host, port = where
        place = (
            [f"{host}:{port}"] if command == "check" else ["--host", host, "--port", str(port), str(letter)]
        )
        if command == "bulk":
            place += ["--retries", "2"]  # else it waits for twenty seconds where nothing can be reached
        return Ran(main([command, *place, *map(str, arguments)]), *capsys.readouterr())

    return run


@pytest.fixture
def server() -> Iterator[MailServer]:
    with MailServer() as running:
        yield running


def pin_of(context: ssl.SSLContext) -> str:
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate_of(context) or "")).hexdigest()


@pytest.mark.parametrize("policy", [[], ["--tls", "starttls"]])
def test_the_pinned_certificate_is_taken(policy: list[str], run: Run) -> None:
    context = CA.untrusted_context()
    with MailServer(starttls=context) as server:
        ran = run(
            ("localhost", server.port), *policy, "--fingerprint", "00" * 32, "--fingerprint", pin_of(context)
        )
        assert (ran.code, ran.err) == (0, "")
        assert any(command == "STARTTLS" for command in server.commands)


@pytest.mark.parametrize("policy", ["starttls", "implicit"])
def test_a_certificate_that_is_not_the_pinned_one_is_78(policy: str, run: Run) -> None:
    context = CA.server_context()
    implicit = policy == "implicit"
    with MailServer(starttls=not implicit and context, implicit_tls=implicit and context) as server:
        ran = run(("localhost", server.port), "--tls", policy, "--fingerprint", "00" * 32)
        assert ran.code == 78
        said = ran.out + ran.err  # bulk says it where it accounts for the message
        assert "is none that --fingerprint names" in said
        octets = bytes.fromhex(pin_of(context)).hex(":").upper()
        assert f"pass --fingerprint {octets}" in said
        assert server.messages == []


def test_check_shows_a_certificate_that_is_not_the_pinned_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    context = CA.server_context()
    with MailServer(starttls=context) as server:
        code = main(["check", f"localhost:{server.port}", "--fingerprint", "00" * 32])
    out = capsys.readouterr().out
    assert code == 78
    assert f"  certificate  NOT ACCEPTED\n    sha256     {pin_of(context)}\n" in out
    assert "    names      localhost" in out


def test_check_says_that_a_pin_needs_tls(capsys: pytest.CaptureFixture[str], server: MailServer) -> None:
    code = main(["check", f"localhost:{server.port}", "--fingerprint", "00" * 32])
    assert code == 78
    assert "does not offer STARTTLS" in capsys.readouterr().err


@pytest.mark.parametrize("files", [["both.pem"], ["cert.pem", "key.pem"]], ids=len)
def test_our_certificate_is_shown(files: list[str], run: Run, tmp_path: Path) -> None:
    leaf = _authority("trusted").issue_cert("user.test", common_name="me")
    (tmp_path / "both.pem").write_bytes(leaf.private_key_and_cert_chain_pem.bytes())
    (tmp_path / "cert.pem").write_bytes(b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
    (tmp_path / "key.pem").write_bytes(leaf.private_key_pem.bytes())
    ours = zip(["--certificate", "--key"], [tmp_path / name for name in files], strict=False)
    context = CA.server_context(client_certificates=True)
    with MailServer(implicit_tls=context) as server:
        trust = ["--tls", "implicit", "--ca-file", CA.write_to(tmp_path).ca]
        ran = run(("localhost", server.port), *trust, *(word for pair in ours for word in pair))
    assert (ran.code, ran.err) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--key", "key.pem"], 64, "--key needs --certificate"),
        (
            ["--certificate", "nothing.pem"],
            66,
            "cannot load the client certificate 'nothing.pem': No such file",
        ),
        (["--fingerprint", "abc"], 64, "--fingerprint takes the SHA-256 of a certificate"),
        (["--ca-file", "nothing.pem"], 66, "cannot load --ca-file 'nothing.pem': No such file"),
        (["--proxy", "gopher://there:70"], 64, "the URL of a proxy looks like"),
        (["--proxy", "http://there:70", "--proxy-env", "X"], 64, "--proxy and --proxy-env: only one of them"),
        (["--proxy-env", "NOBODY_SET_THIS"], 64, "there is no environment variable NOBODY_SET_THIS"),
    ],
)
def test_what_makes_no_sense_is_said_before_anything_is_connected_to(
    arguments: list[str], code: int, said: str, run: Run, server: MailServer
) -> None:
    ran = run((server.host, server.port), *arguments)
    assert (ran.code, ran.out) == (code, "")
    assert said in ran.err
    assert server.commands == []


def test_the_server_is_reached_by_the_proxy(run: Run, server: MailServer) -> None:
    with in_a_thread(ProxyServer("http")) as proxy:
        ran = run((server.host, server.port), "--proxy", proxy.url(), "--tls", "none")
    assert (ran.code, ran.err) == (0, "")
    assert {*proxy.asked} == {(server.host, server.port)}


def test_the_url_of_a_proxy_with_a_password_comes_from_the_environment(
    run: Run, server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with in_a_thread(ProxyServer("http", users={"ann": PASSWORD})) as proxy:
        monkeypatch.setenv("OUR_PROXY", proxy.url(f"ann:{PASSWORD.replace(' ', '%20')}@"))
        ran = run((server.host, server.port), "--proxy-env", "OUR_PROXY", "--tls", "none")
    assert (ran.code, ran.err) == (0, "")
    assert proxy.asked


def test_a_proxy_that_does_not_know_the_password_is_named_without_it(
    run: Run, server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with in_a_thread(ProxyServer("http", users={"ann": "another"})) as proxy:
        monkeypatch.setenv("OUR_PROXY", proxy.url(f"ann:{PASSWORD.replace(' ', '%20')}@"))
        ran = run((server.host, server.port), "--proxy-env", "OUR_PROXY", "--tls", "none", "--debug")
    assert ran.code != 0
    assert f"the proxy http://127.0.0.1:{proxy.port} made no connection" in ran.err
    assert "battery" not in ran.out + ran.err


def test_a_password_of_a_proxy_among_the_arguments_is_refused_and_not_repeated(
    run: Run, server: MailServer
) -> None:
    ran = run((server.host, server.port), "--proxy", "http://ann:battery@127.0.0.1:3128")
    assert ran.code == 64
    assert "--proxy-env" in ran.err
    assert "battery" not in ran.out + ran.err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "pass tls_certificate=, or a tls_context= that has loaded a client certificate (x)",
            "pass --certificate (x)",
        ),
        ("pass tls_certificate=, or a tls_context= with other ciphers (x)", "pass --certificate (x)"),
        (
            "with tls='none' there is no certificate that tls_fingerprint= could mean",
            "with --tls none there is no certificate that --fingerprint could mean",
        ),
        ("this machine: neither proxy= nor dialer= leads to it", "this machine: no --proxy leads to it"),
    ],
)
def test_advice_is_given_in_options_of_the_command(text: str, expected: str) -> None:
    assert in_options(text) == expected
