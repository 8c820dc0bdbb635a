"""NTLM against pyspnego's own acceptor, and what SASL puts around GSSAPI's tokens."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import logging
import ssl
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import spnego
from leaks import told
from signatures import certificate_signed_with
from spnego.channel_bindings import GssChannelBindings
from spnego.exceptions import SpnegoError

from aiosmtpclient import negotiation, sasl
from aiosmtpclient.exchange import Channel, Mechanism, Peer, Unproven
from aiosmtpclient.sasl import Credentials
from aiosmtpclient.testing import CertificateAuthority

PASSWORD = "correct-horse-battery-staple"
ALICE = Credentials("TESTDOM\\alice", PASSWORD)
CERTIFICATE = ssl.PEM_cert_to_DER_cert(CertificateAuthority().ca_pem.decode())


@pytest.fixture
def acceptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[spnego.ContextProxy]:
    """A server for NTLM that knows Alice, and wants the login bound to the certificate."""
    known = tmp_path / "users"
    known.write_text(f"TESTDOM:alice:{PASSWORD}\n")
    monkeypatch.setenv("NTLM_USER_FILE", str(known))
    digest = hashlib.sha256(CERTIFICATE).digest()
    bindings = GssChannelBindings(application_data=b"tls-server-end-point:" + digest)
    return spnego.server(protocol="ntlm", channel_bindings=bindings)


def ends_with(mechanism: Mechanism, challenge: bytes | None) -> object:
    with pytest.raises(StopIteration) as over:
        mechanism.send(challenge)
    return over.value.value


def test_ntlm_logs_in_bound_to_the_certificate(acceptor) -> None:
    mechanism = negotiation.ntlm(ALICE, Peer(channel=Channel(None, CERTIFICATE)))

    acceptor.step(mechanism.send(acceptor.step(next(mechanism))))

    assert acceptor.complete
    assert ends_with(mechanism, b"more?") is None


@pytest.mark.parametrize(
    ("credentials", "channel"),
    [
        (Credentials("TESTDOM\\alice", "wrong"), Channel(None, CERTIFICATE)),
        (Credentials("TESTDOM\\bob", PASSWORD), Channel(None, CERTIFICATE)),
        (ALICE, Channel(None, ssl.PEM_cert_to_DER_cert(CertificateAuthority().ca_pem.decode())[::-1])),
    ],
    ids=["wrong password", "somebody else", "another channel"],
)
def test_the_acceptor_does_look(acceptor, credentials, channel, monkeypatch: pytest.MonkeyPatch) -> None:
    if channel.certificate != CERTIFICATE:
        other = GssChannelBindings(application_data=b"tls-server-end-point:another")
        monkeypatch.setattr(negotiation, "_bindings", lambda channel: other)
    mechanism = negotiation.ntlm(credentials, Peer(channel=channel))
    refused = False
    try:
        acceptor.step(mechanism.send(acceptor.step(next(mechanism))))
    except SpnegoError:  # not by pytest.raises(): the acceptor's own frames hold its passwords
        refused = True

    assert refused


@pytest.mark.parametrize(
    "challenge", [b"", b"rubbish", b"NTLMSSP\0\x02\0\0\0", b"NTLMSSP\0\x01\0\0\0" + bytes(20)]
)
def test_a_challenge_that_is_none_ends_the_exchange(challenge, acceptor) -> None:
    mechanism = negotiation.ntlm(ALICE, Peer())
    next(mechanism)

    assert "NTLM: " in str(ends_with(mechanism, challenge))


@pytest.mark.parametrize("level", [logging.DEBUG, logging.NOTSET])
def test_the_tokens_that_pyspnego_logs_are_not_let_through(acceptor, caplog, level) -> None:
    caplog.set_level(level)
    caplog.set_level(logging.DEBUG, "spnego")
    mechanism = negotiation.ntlm(ALICE, Peer(channel=Channel(None, CERTIFICATE)))
    first = next(mechanism)
    second = mechanism.send(challenge := acceptor.step(first))

    ours = [base64.b64encode(token).decode() for token in (second,)]
    assert not [token for token in ours if token in caplog.text]
    # Whoever uses pyspnego for something else in this process still sees what it logs.
    assert base64.b64encode(challenge).decode() in caplog.text


def test_nothing_of_pyspnego_shows_the_password() -> None:
    mechanism = negotiation.ntlm(ALICE, Peer())
    next(mechanism)

    with pytest.raises(RuntimeError) as caught:
        mechanism.throw(RuntimeError())
    assert PASSWORD not in told(caught.value)


@pytest.mark.parametrize(
    ("signed_with", "bound_with"),
    [("md5", "sha256"), ("sha1", "sha256"), ("sha256", "sha256"), ("sha384", "sha384"), ("sha512", "sha512")],
)
def test_ntlm_is_bound_by_the_hash_of_the_signature_unless_it_is_broken(
    signed_with: str, bound_with: str
) -> None:
    """RFC 5929 section 4.1."""
    certificate = certificate_signed_with(signed_with)
    bindings = negotiation._bindings(Channel(None, certificate))
    assert bindings is not None
    digest = hashlib.new(bound_with, certificate).digest()
    assert bindings.application_data == b"tls-server-end-point:" + digest


def test_a_certificate_that_cannot_be_read_binds_nothing() -> None:
    assert negotiation._bindings(None) is None
    assert negotiation._bindings(Channel(None, None)) is None
    assert negotiation._bindings(Channel(None, b"rubbish")) is None


# -- GSSAPI, with a stand-in for the context of a Kerberos that is not here


class Context:
    """Two tokens each way, then wrapped messages that say so."""

    def __init__(self) -> None:
        self.complete = False
        self.asked: dict[str, object] = {}

    def step(self, token: bytes | None) -> bytes | None:
        if token is None:
            return b"ticket"
        if token != b"proof":
            raise SpnegoError(error_code=9, context_msg="the ticket is not for this server")
        self.complete = True
        return None

    def unwrap(self, data: bytes) -> SimpleNamespace:
        if not data.startswith(b"wrapped:"):
            raise SpnegoError(error_code=6, context_msg="bad signature")
        return SimpleNamespace(data=data.removeprefix(b"wrapped:"))

    def wrap(self, data: bytes, encrypt: bool = True) -> SimpleNamespace:
        assert not encrypt
        return SimpleNamespace(data=b"wrapped:" + data)


@pytest.fixture
def kerberos(monkeypatch: pytest.MonkeyPatch) -> Context:
    context = Context()

    def client(user: str | None, password: str | None, **options: object) -> Context:
        context.asked = {"user": user, "password": password, **options}
        return context

    monkeypatch.setattr(spnego, "client", client)
    return context


def layers(mask: int) -> bytes:
    return b"wrapped:" + struct.pack(">I", mask << 24 | 65536)


def test_gssapi_is_as_rfc_4752_section_3_1_says(kerberos) -> None:
    mechanism = negotiation.gssapi(Credentials("", "", "ursel"), Peer("mail.test", 587))

    assert next(mechanism) == b"ticket"
    assert mechanism.send(b"proof") == b""
    assert mechanism.send(layers(7)) == b"wrapped:\x01\x00\x00\x00ursel"
    assert ends_with(mechanism, None) is None
    assert kerberos.asked == {
        "user": None,
        "password": None,
        "hostname": "mail.test",
        "service": "smtp",
        "channel_bindings": None,
        "protocol": "kerberos",
    }


def test_without_a_host_name_the_service_is_the_one_on_this_machine(kerberos) -> None:
    next(negotiation.gssapi(Credentials("user", "password"), Peer()))

    asked = kerberos.asked
    assert (asked["user"], asked["password"], asked["hostname"]) == ("user", "password", "localhost")


@pytest.mark.parametrize(
    ("platform", "installed", "there"),
    [
        ("linux", {"spnego", "gssapi", "krb5"}, True),
        ("linux", {"spnego", "gssapi"}, False),
        ("linux", {"spnego", "krb5"}, False),
        ("linux", {"gssapi", "krb5"}, False),
        ("win32", {"spnego"}, True),
        ("win32", set(), False),
    ],
)
def test_kerberos_is_that_of_windows_or_of_gssapi(platform, installed, there, monkeypatch) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: SimpleNamespace() if name in installed else None
    )
    negotiation.available.cache_clear()
    try:
        assert negotiation.available() is ("spnego" in installed)
        assert negotiation.kerberos_available() is there
    finally:
        negotiation.available.cache_clear()


@pytest.mark.parametrize("how_far", [[], [b"proof"]])
def test_success_without_the_servers_proof_is_not_believed(kerberos, how_far) -> None:
    mechanism = negotiation.gssapi(Credentials("", ""), Peer())
    next(mechanism)
    for challenge in how_far:
        mechanism.send(challenge)

    words = r"^the server let us in without a proof that it is the one we mean$"
    with pytest.raises(Unproven, match=words):
        mechanism.send(None)


@pytest.mark.parametrize(
    ("challenges", "said"),
    [
        ([b"another"], "not for this server"),
        ([b"proof", b"rubbish"], "bad signature"),
        ([b"proof", layers(6)], "GSSAPI: the server insists on a security layer, which we leave to TLS"),
        ([b"proof", b"wrapped:"], "GSSAPI: the server insists on a security layer, which we leave to TLS"),
    ],
)
def test_what_goes_wrong_ends_the_exchange_and_says_why(kerberos, challenges, said) -> None:
    mechanism = negotiation.gssapi(Credentials("", ""), Peer())
    next(mechanism)
    for challenge in challenges[:-1]:
        mechanism.send(challenge)

    assert said in str(ends_with(mechanism, challenges[-1]))


def test_no_ticket_is_said_before_anything_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def client(*arguments: object, **options: object) -> None:
        raise SpnegoError(error_code=7, context_msg="no ticket here")

    monkeypatch.setattr(spnego, "client", client)
    with pytest.raises(StopIteration) as over:
        next(negotiation.gssapi(Credentials("", ""), Peer()))
    assert "no ticket here" in over.value.value


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has Kerberos itself")
@pytest.mark.parametrize("missing", ["gssapi", "krb5"])
def test_half_of_what_kerberos_needs_is_not_enough(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """pyspnego asks for both, and without one of them it has no Kerberos at all."""
    monkeypatch.setattr(negotiation, "available", lambda: True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else object())

    assert not negotiation.kerberos_available()


def test_without_the_library_there_is_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(negotiation, "available", lambda: False)

    assert not negotiation.kerberos_available()
    with pytest.raises(ValueError, match=r"aiosmtpclient\[spnego\]"):
        sasl.choose(["NTLM"], ["NTLM"])
