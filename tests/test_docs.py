"""Every example in the README and the docs runs, against a real server on loopback.

A block is run as a script of its own. Host names and ports of the examples are put in place of
the servers that run here, and a function that the block defines but does not use is called. A web
application is served instead: its lifespan runs, and each of its routes is asked, as ASGI says.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from token_endpoint import TokenEndpoint
from way_through import ProxyServer, in_a_thread

from aiosmtpclient.testing import CertificateAuthority, MailServer
from aiosmtpclient.testing.certificates import _authority, certificate_of

ME = "me@example.org"
MECHANISMS = ["CRAM-MD5", "PLAIN", "LOGIN", "XOAUTH2", "EXTERNAL"]
ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# What a function of an example is called with, by the names of its parameters.
_ARGUMENTS = {
    "address": '"you@example.org"',
    "addresses": '["you@example.org"]',
    "recipients": '["you@example.org", "refuses@example.org"]',
    "content": r'b"Subject: example\r\n\r\nHello.\r\n"',
    "message": "_message()",
    "messages": "[_message(), _message()]",
    "path": '__import__("pathlib").Path(_path)',
    "diary_path": '__import__("pathlib").Path(_path + ".diary")',
    "authority": "_authority",
    "certificate": "_certificate",
    "key": "_certificate",
    "server_certificate": "_server_certificate",
    "proxy_url": "_proxy_url",
}
_PRELUDE = """
import email.message as _m
def _message():
    message = _m.EmailMessage()
    message["From"] = "me@example.org"
    message["To"] = "you@example.org"
    message.set_content("example")
    return message
"""
# Serves an application: what a request for each of these addresses is answered with.
_SERVE = """
import asyncio as _a
async def _serve():
    to_app, from_app = _a.Queue(), _a.Queue()
    scope = {"asgi": {"version": "3.0"}, "state": {}}
    life = _a.create_task(app({**scope, "type": "lifespan"}, to_app.get, from_app.put))
    async def live(word):
        await to_app.put({"type": f"lifespan.{word}"})
        said = await from_app.get()
        assert said["type"] == f"lifespan.{word}.complete", said
    async def status(path):
        said = []
        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}
        async def send(message):
            said.append(message)
        request = {"method": "POST", "path": path, "raw_path": path.encode(), "query_string": b""}
        request |= {"type": "http", "http_version": "1.1", "scheme": "http", "headers": []}
        await app({**scope, **request}, receive, send)
        return said[0]["status"]
    await live("startup")
    for address, expected in (("you@example.org", 200), ("refuses@example.org", 503)):
        got = [await status(route.format(address=address)) for route in _routes]
        assert got == [expected] * len(_routes) != [], got
    await live("shutdown")
    await life
_a.run(_serve())
"""


def blocks() -> Iterator[pytest.ParameterSet]:
    for page in PAGES:
        for number, match in enumerate(_BLOCK.finditer(page.read_text("utf-8")), 1):
            yield pytest.param(match[1], id=f"{page.stem}-{number}")


@dataclass
class Servers:
    plain: MailServer
    submission: MailServer
    implicit: MailServer
    lmtp: MailServer
    authority: Path
    certificate: Path
    server_certificate: Path
    endpoint: TokenEndpoint
    proxy: ProxyServer

    @property
    def messages(self) -> int:
        return sum(len(s.messages) for s in (self.plain, self.submission, self.implicit, self.lmtp))


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    folder = tmp_path_factory.mktemp("docs")
    authority = CertificateAuthority()
    pem = folder / "ca.pem"
    pem.write_bytes(authority.ca_pem)
    certificate = folder / "me.pem"
    certificate.write_bytes(
        _authority("trusted").issue_cert("me.test", common_name=ME).private_key_and_cert_chain_pem.bytes()
    )
    tls = authority.server_context(client_certificates=True)
    (folder / "server.pem").write_text(certificate_of(tls) or "")
    tokens = {"fresh": ME, "ya29.a0Af-an-access-token": ME}
    users = {"me@example.org": "s3cret", "hello@example.org": "s3cret"}
    refuse = {"refuses@example.org": "550 5.1.1 no such user"}
    with (
        MailServer(refuse=refuse) as plain,
        MailServer(
            refuse=refuse,
            starttls=tls,
            users=users,
            tokens=tokens,
            mechanisms=MECHANISMS,
            auth_requires_tls=True,
        ) as submission,
        MailServer(refuse=refuse, implicit_tls=tls, users=users) as implicit,
        MailServer(lmtp=True, unix_path=str(folder / "lmtp")) as lmtp,
        TokenEndpoint(authority.server_context()) as endpoint,
        in_a_thread(ProxyServer("http")) as proxy,
    ):
        yield Servers(
            plain, submission, implicit, lmtp, pem, certificate, folder / "server.pem", endpoint, proxy
        )


def _in_place(code: str, servers: Servers, path: Path) -> str:
    """The example with the servers of this test, and with its functions called."""
    for host, port, server in (
        ("smtp.example.org", 587, servers.submission),
        ("smtp.gmail.com", 587, servers.submission),
        ("smtp.office365.com", 587, servers.submission),
        ("smtp.example.org", 465, servers.implicit),
        ("localhost", 25, servers.plain),
    ):
        code = code.replace(f'"{host}", {port}', f'"localhost", {server.port}, tls={_policy(port)}')
        code = code.replace(
            f'host="{host}", port={port}', f'host="localhost", port={server.port}, tls={_policy(port)}'
        )
    code = code.replace('("localhost")', f'("localhost", {servers.plain.port})')
    code = code.replace('("localhost", trace', f'("localhost", {servers.plain.port}, trace')
    code = code.replace('host="localhost",\n', f'host="localhost", port={servers.plain.port},\n')
    code = code.replace("@smtp.example.org?", f"@localhost:{servers.submission.port}?")
    code = code.replace("/run/dovecot/lmtp", str(servers.lmtp.unix_path))
    code = servers.endpoint.in_place(code)
    # The blocking classes take no policy: they do what smtplib does.
    code = re.sub(r'\bSMTP\("localhost", (\d+), tls=[^)]*\)', r'SMTP("localhost", \1)', code)
    names = f"_path = {str(path)!r}\n_authority = {str(servers.authority)!r}\n"
    names += f"_certificate = {str(servers.certificate)!r}\n"
    names += f"_proxy_url = {servers.proxy.url()!r}\n"
    names += f"_server_certificate = {str(servers.server_certificate)!r}\n"
    if "FastAPI(" in code:
        routes = re.findall(r'^@app\.post\("(.*)"\)$', code, re.MULTILINE)
        return f"{names}_routes = {routes!r}\n{code}{_SERVE}"
    return names + _PRELUDE + code + _calls(code)


def _policy(port: int) -> str:
    return {587: '"starttls"', 465: '"implicit"', 25: '"none"'}[port]


def _calls(code: str) -> str:
    tree = ast.parse(code)
    used = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    lines = ["\nimport asyncio as _a\n"]
    for node in tree.body:
        if isinstance(node, ast.AsyncFunctionDef) and node.name not in used:
            arguments = ", ".join(_ARGUMENTS[argument.arg] for argument in node.args.args)
            lines.append(f"print(_a.run({node.name}({arguments})))\n")
    return "".join(lines)


@pytest.mark.parametrize("code", list(blocks()))
def test_an_example_of_the_documentation_runs(code: str, servers: Servers, tmp_path: Path) -> None:
    if "import FastAPI" in code:
        pytest.importorskip("fastapi")
    content = tmp_path / "message.eml"
    content.write_bytes(b"Subject: a file\r\n\r\nHello.\r\n")
    before = servers.messages
    servers.endpoint.write_files(tmp_path)

    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _in_place(code, servers, content)],
        capture_output=True,
        text=True,
        timeout=20,
        cwd=tmp_path,
        env={
            **os.environ,
            "SSL_CERT_FILE": str(servers.authority),
            "REQUESTS_CA_BUNDLE": str(servers.authority),
            "NO_PROXY": "localhost",
            "PYTHONPATH": str(ROOT),
        },
    )

    assert done.returncode == 0, done.stderr
    assert "not sent" not in done.stdout
    if "Server(" not in code:
        assert servers.messages > before, "the example delivered nothing"
    if servers.endpoint.is_asked_by(code):
        assert servers.endpoint.given == ["stale", "fresh"], "the token was not renewed"


def test_the_readme_shows_the_three_uses() -> None:
    text = PAGES[0].read_text("utf-8")
    assert all(f"## {use}" in text for use in ("A web backend", "Many messages", "A blocking script"))


def test_every_link_between_the_pages_leads_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_extra_is_in_the_table_with_what_it_asks_for() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    page = (ROOT / "docs" / "getting-started.md").read_text("utf-8").partition("## Extras")[2]
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| (.*) \| [\d.]+ \|$", page, re.M))
    assert rows.keys() == extras.keys() - {"recipes", "fuzz", "bench", "dev"}
    for extra, packages in rows.items():
        wanted = [re.split(r"[>=;]", requirement)[0] for requirement in extras[extra]]
        assert [name for name in wanted if name not in packages.split(", ")] == [], extra
