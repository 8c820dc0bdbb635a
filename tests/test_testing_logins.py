"""The logins of the `MailServer`: what it offers, whom it lets in, and what it answers to nonsense."""

from __future__ import annotations

import base64

import pytest

from aiosmtpclient import AsyncLMTP, AsyncSMTP, SMTPAuthenticationError, send
from aiosmtpclient.testing import CertificateAuthority, MailServer
from aiosmtpclient.testing import server as server_room

USERS = {"alice": "correct horse"}
TOKENS = {"good": "alice"}


def b64(octets: bytes) -> str:
    return base64.b64encode(octets).decode()


def xoauth2(token: str) -> str:
    return b64(b"user=alice\x01auth=Bearer " + token.encode() + b"\x01\x01")


@pytest.mark.parametrize(
    ("options", "offered"),
    [
        ({}, None),
        ({"users": USERS}, ("CRAM-MD5", "PLAIN", "LOGIN")),
        ({"tokens": TOKENS}, ("OAUTHBEARER", "XOAUTH2")),
        ({"users": USERS, "tokens": TOKENS}, ("CRAM-MD5", "PLAIN", "LOGIN", "OAUTHBEARER", "XOAUTH2")),
        ({"mechanisms": ["anonymous"]}, ("ANONYMOUS",)),
    ],
)
async def test_what_is_offered_follows_from_what_is_known(options, offered) -> None:
    async with MailServer(**options) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            assert smtp.has_extn("auth") is (offered is not None)
            assert smtp.extensions.auth_mechanisms == (offered or ())


async def test_what_binds_is_offered_inside_tls_only() -> None:
    authority = CertificateAuthority()
    mechanisms = ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"]
    async with MailServer(users=USERS, mechanisms=mechanisms, starttls=authority.server_context()) as server:
        async with AsyncSMTP("localhost", server.port, tls_context=authority.client_context()) as smtp:
            assert smtp.extensions.auth_mechanisms == ("SCRAM-SHA-256",)
            assert (await smtp.docmd("AUTH", "SCRAM-SHA-256-PLUS")).code == 504
            await smtp.starttls()
            await smtp.ehlo()
            assert smtp.extensions.auth_mechanisms == tuple(mechanisms)


@pytest.mark.parametrize("credentials", [("alice", "wrong"), ("bob", "correct horse")])
@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-1", "SCRAM-SHA-256", "CRAM-MD5"])
async def test_a_wrong_login_is_refused_and_the_connection_is_good(mechanism, credentials) -> None:
    async with MailServer(users=USERS, mechanisms=[mechanism]) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            with pytest.raises(SMTPAuthenticationError) as caught:
                await smtp.login(*credentials)
            assert caught.value.smtp_code == 535
            await smtp.login("alice", "correct horse")


@pytest.mark.parametrize(
    ("mechanism", "lines", "code"),
    [
        ("XOAUTH2", [xoauth2("good")], 235),
        ("XOAUTH2", ["", xoauth2("good")], 235),
        ("XOAUTH2", [xoauth2("bad"), ""], 535),
        ("XOAUTH2", [xoauth2("bad"), b64(b"\x01")], 501),
        ("XOAUTH2", [xoauth2("bad"), "*"], 501),
        ("XOAUTH2", [b64(b"user=bob\x01auth=Bearer good\x01\x01"), ""], 535),
        ("XOAUTH2", [b64(b"rubbish"), ""], 535),
        ("XOAUTH2", ["%%%"], 501),
        ("OAUTHBEARER", [b64(b"n,,\x01auth=Bearer good\x01\x01")], 235),
        ("OAUTHBEARER", [b64(b"n,a=alice,\x01host=x\x01port=1\x01auth=Bearer good\x01\x01")], 235),
        ("OAUTHBEARER", [b64(b"n,a=bob,\x01auth=Bearer good\x01\x01"), b64(b"\x01")], 535),
        ("OAUTHBEARER", [b64(b"n,,\x01auth=Bearer bad\x01\x01"), ""], 501),
        ("CRAM-MD5", [b64(b"alice")], 501),
        ("SCRAM-SHA-256", [b64(b"rubbish")], 535),
        ("SCRAM-SHA-256", ["", "*"], 501),
        ("EXTERNAL", ["="], 535),
        ("ANONYMOUS", ["="], 235),
        ("ANONYMOUS", ["", b64(b"trace")], 235),
        ("DIGEST-MD5", [""], 504),
    ],
)
async def test_an_exchange_by_hand(mechanism, lines, code) -> None:
    known = ["XOAUTH2", "OAUTHBEARER", "CRAM-MD5", "SCRAM-SHA-256", "EXTERNAL", "ANONYMOUS"]
    async with MailServer(users=USERS, tokens=TOKENS, mechanisms=known) as server:
        async with AsyncSMTP(server.host, server.port) as smtp:
            reply = await smtp.docmd("AUTH", f"{mechanism} {lines[0]}".rstrip())
            for line in lines[1:]:
                assert reply.code == 334
                reply = await smtp.docmd(line)
            assert reply.code == code
            assert (await smtp.noop()).code == 250
        assert not [line for line in server.commands if "good" in line or lines[-1] in line.split()[2:]]


async def test_tokens_may_change_while_the_server_runs() -> None:
    async with MailServer(tokens=TOKENS, lmtp=True) as server:
        async with AsyncLMTP(server.host, server.port) as smtp:
            server.tokens.clear()
            with pytest.raises(SMTPAuthenticationError):
                await smtp.login("alice", token="good")


async def test_send_takes_a_token_too() -> None:
    async with MailServer(tokens=TOKENS) as server:
        await send(
            b"Subject: Hi\r\n\r\nHi\r\n",
            sender="a@from.test",
            recipients="b@to.test",
            host=server.host,
            port=server.port,
            username="alice",
            token="good",
        )
        assert server.messages[0].user == "alice"


def test_without_scramp_the_server_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_room, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"aiosmtpclient\[scram\]"):
        MailServer(users=USERS, mechanisms=["SCRAM-SHA-256"])
