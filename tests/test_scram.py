"""SCRAM: known answers, and a server that has to prove itself."""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import ssl
import subprocess
import sys

import pytest
import scramp
import scramp.core
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from leaks import told
from signatures import certificate_signed_with

from aiosmtpclient import scram
from aiosmtpclient.exchange import Channel, Mechanism, Peer, Unproven
from aiosmtpclient.sasl import Credentials
from aiosmtpclient.testing import CertificateAuthority

PASSWORD = "correct horse battery staple"
USER = Credentials("user", "pencil")
UNIQUE = Channel(unique=b"0123456789ab")
CERTIFICATE = ssl.PEM_cert_to_DER_cert(CertificateAuthority().ca_pem.decode())


@pytest.fixture
def nonce(monkeypatch: pytest.MonkeyPatch):
    """Let scramp use this nonce in place of a random one."""
    return lambda text: monkeypatch.setattr(scramp.core, "token_hex", lambda: text)


def ends_with(mechanism: Mechanism, challenge: bytes | None) -> object:
    """What the mechanism returns when it is sent this."""
    with pytest.raises(StopIteration) as over:
        mechanism.send(challenge)
    return over.value.value


RFC_5802 = (
    "SCRAM-SHA-1",
    "fyko+d2lbbFgONRv9qkxdawL",
    b"n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL",
    b"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
    b"c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
    b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
)
RFC_7677 = (
    "SCRAM-SHA-256",
    "rOprNGfwEbeRWgbNEkqO",
    b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
    b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
    b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
    b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
)


@pytest.mark.parametrize("example", [RFC_5802, RFC_7677], ids=["RFC 5802", "RFC 7677"])
def test_the_examples_of_the_rfcs(example, nonce) -> None:
    name, ours, first, server_first, final, server_final = example
    nonce(ours)
    mechanism = scram.factory(name)(USER, Peer())

    assert next(mechanism) == first
    assert mechanism.send(server_first) == final
    assert mechanism.send(server_final) == b""
    assert ends_with(mechanism, None) is None


@pytest.mark.parametrize(
    ("channel", "header", "octets"),
    [
        (UNIQUE, b"p=tls-unique,,", UNIQUE.unique),
        (
            Channel(None, CERTIFICATE),
            b"p=tls-server-end-point,,",
            hashlib.sha256(CERTIFICATE).digest(),
        ),
    ],
    ids=["tls-unique", "tls-server-end-point"],
)
def test_plus_signs_what_is_below(channel, header, octets, nonce) -> None:
    """RFC 5802 section 6: the header and the binding's octets are what `c=` says."""
    nonce("ours")
    mechanism = scram.factory("SCRAM-SHA-256-PLUS")(USER, Peer(channel=channel, plus=True))

    assert next(mechanism) == header + b"n=user,r=ours"
    final = mechanism.send(b"r=ourstheirs,s=QSXCR+Q6sek8bf92,i=4096")
    assert final.startswith(b"c=" + base64.b64encode(header + octets) + b",r=ourstheirs,p=")


def test_sha_512_proves_what_rfc_5802_section_3_says(nonce) -> None:
    nonce("ours")
    mechanism = scram.factory("SCRAM-SHA-512")(USER, Peer())
    salted = hashlib.pbkdf2_hmac("sha512", b"pencil", b"a salt of 16 oct", 5000)
    key = hmac.digest(salted, b"Client Key", "sha512")
    server_first = f"r=oursx,s={base64.b64encode(b'a salt of 16 oct').decode()},i=5000"
    signed = f"n=user,r=ours,{server_first},c=biws,r=oursx".encode()
    signature = hmac.digest(hashlib.sha512(key).digest(), signed, "sha512")
    proof = base64.b64encode(bytes(a ^ b for a, b in zip(key, signature, strict=True)))

    next(mechanism)
    assert mechanism.send(server_first.encode()) == b"c=biws,r=oursx,p=" + proof


@pytest.mark.parametrize(
    ("peer", "flag"),
    [
        (Peer(), b"n,,"),
        (Peer(channel=UNIQUE), b"y,,"),
        (Peer(channel=UNIQUE, plus=True), b"n,,"),
    ],
    ids=["no TLS", "the server cannot bind", "the server can, we were asked not to"],
)
def test_the_server_is_told_whether_we_could_have_bound(peer, flag) -> None:
    """So that nobody in the middle can strike out -PLUS unseen (RFC 5802 section 6)."""
    assert next(scram.factory("SCRAM-SHA-256")(USER, peer)).startswith(flag)


def test_commas_and_equals_signs_in_a_user_name_are_written_out() -> None:
    assert b",n=a=3Db=2Cc," in next(scram.factory("SCRAM-SHA-1")(Credentials("a=b,c", "x"), Peer()))


def test_saslprep() -> None:
    """RFC 4013 section 3: a soft hyphen goes, a compatibility letter becomes the plain one."""
    assert b",n=IX," in next(scram.factory("SCRAM-SHA-1")(Credentials("I\xadX", "x"), Peer()))
    assert b",n=a," in next(scram.factory("SCRAM-SHA-1")(Credentials("\xaa", "x"), Peer()))


@pytest.mark.parametrize(
    "credentials", [Credentials("", "x"), Credentials("user", f"{PASSWORD}\x07"), Credentials("\u06271", "x")]
)
def test_what_saslprep_forbids_is_a_valueerror_that_shows_no_password(credentials) -> None:
    assert not scram.fits(credentials)
    with pytest.raises(ValueError, match="SASLprep") as caught:
        next(scram.factory("SCRAM-SHA-1")(credentials, Peer()))

    assert PASSWORD not in told(caught.value)
    assert caught.value.__context__ is None


def test_nothing_to_bind_to() -> None:
    with pytest.raises(ValueError, match="channel binding"):
        next(scram.factory("SCRAM-SHA-1-PLUS")(USER, Peer()))


@pytest.mark.parametrize(
    "challenge",
    [
        b"\xff",
        b"",
        b"r=theirs,s=QSXCR+Q6sek8bf92,i=4096",  # not our nonce
        b"r=ours,s=QSXCR+Q6sek8bf92,i=4096",  # nothing added to it
        b"r=oursx,s=QSXCR+Q6sek8bf92,i=1",  # so few iterations that the proof gives the password away
        b"r=oursx,s=QSXCR+Q6sek8bf92,i=99999999",  # so many that it takes for ever
        b"r=oursx,s=QSXCR+Q6sek8bf92,i=2000001",
        b"r=oursx,s=%%,i=4096",
        b"m=x,r=oursx,s=QSXCR+Q6sek8bf92,i=4096",  # a mandatory extension that we do not know
        b"e=other-error",
    ],
)
def test_a_first_message_that_makes_no_sense_ends_the_exchange(challenge, nonce) -> None:
    nonce("ours")
    mechanism = scram.factory("SCRAM-SHA-256")(USER, Peer())
    next(mechanism)

    said = str(ends_with(mechanism, challenge))
    assert said.startswith(
        "the server's first message: " if challenge != b"\xff" else "the server's first message "
    )


def test_a_first_message_that_is_no_text_is_called_so(nonce) -> None:
    assert ends_with(began(nonce), b"\xff") == "the server's first message is not UTF-8"


def test_a_server_may_make_us_compute_for_so_long_and_no_longer(nonce, monkeypatch) -> None:
    monkeypatch.setattr(scram, "MOST_ITERATIONS", 5000)
    first = RFC_7677[3].removesuffix(b"4096")
    assert began(nonce).send(first + b"5000").startswith(b"c=biws,")
    assert ends_with(began(nonce), first + b"5001") == "the server's first message: more than 5000 iterations"


def began(nonce) -> Mechanism:
    nonce(RFC_7677[1])
    mechanism = scram.factory("SCRAM-SHA-256")(USER, Peer())
    next(mechanism)
    return mechanism


@pytest.mark.parametrize(
    "proof", [b"v=" + base64.b64encode(bytes(32)), b"v=", b"", b"\xff", b"v=%%%", RFC_5802[5]]
)
def test_a_wrong_proof_of_the_server_is_not_believed(proof, nonce) -> None:
    mechanism = began(nonce)
    mechanism.send(RFC_7677[3])

    with pytest.raises(Unproven, match="does not know the password"):
        mechanism.send(proof)


def test_a_refusal_in_place_of_a_proof_is_a_refusal(nonce) -> None:
    mechanism = began(nonce)
    mechanism.send(RFC_7677[3])

    assert "invalid-proof" in str(ends_with(mechanism, b"e=invalid-proof"))


@pytest.mark.parametrize("how_far", [1, 2])
def test_success_without_a_proof_is_not_believed(how_far, nonce) -> None:
    mechanism = began(nonce)
    if how_far == 2:
        mechanism.send(RFC_7677[3])

    with pytest.raises(Unproven, match="without a proof"):
        mechanism.send(None)


def test_a_challenge_after_the_proof_is_one_too_many(nonce) -> None:
    mechanism = began(nonce)
    mechanism.send(RFC_7677[3])
    mechanism.send(RFC_7677[5])

    assert ends_with(mechanism, b"more?") is None


@pytest.mark.parametrize("name", scram.NAMES)
def test_a_server_of_scramp_lets_us_in(name) -> None:
    made = scramp.ScramMechanism(name)
    binding = ("tls-unique", UNIQUE.unique)
    server = made.make_server(lambda user: made.make_auth_info("пароль"), channel_binding=binding)
    mechanism = scram.factory(name)(
        Credentials("jörg", "пароль"), Peer(channel=UNIQUE, plus=name.endswith("-PLUS"))
    )
    if not name.endswith("-PLUS"):
        server = made.make_server(lambda user: made.make_auth_info("пароль"))

    server.set_client_first(next(mechanism).decode())
    server.set_client_final(mechanism.send(server.get_server_first().encode()).decode())
    assert mechanism.send(server.get_server_final().encode()) == b""


@pytest.mark.parametrize(
    ("signed_with", "bound_with"),
    [("md5", "sha256"), ("sha1", "sha256"), ("sha256", "sha256"), ("sha384", "sha384"), ("sha512", "sha512")],
)
def test_the_hash_of_the_certificates_signature_is_used_unless_it_is_broken(
    signed_with: str, bound_with: str
) -> None:
    """RFC 5929 section 4.1."""
    certificate = certificate_signed_with(signed_with)
    end_point = hashlib.new(bound_with, certificate).digest()
    assert scram.binding(Channel(None, certificate)) == ("tls-server-end-point", end_point)


@pytest.mark.parametrize("certificate", [CERTIFICATE + b"junk", CERTIFICATE[:-1], b"junk", b"", None])
def test_what_is_no_certificate_binds_nothing(certificate: bytes | None) -> None:
    assert scram.binding(Channel(None, certificate)) is None


def test_a_certificate_that_names_no_hash_binds_nothing() -> None:
    """An Ed25519 signature has no hash of its own (RFC 5929 section 4.1 leaves it undefined)."""
    key, name = ed25519.Ed25519PrivateKey.generate(), x509.Name([])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(1))
    certificate = builder.sign(key, None)

    assert scram.binding(Channel(None, certificate.public_bytes(Encoding.DER))) is None
    assert scram.binding(Channel(None, b"rubbish")) is None
    assert scram.binding(Channel(None, None)) is None
    assert scram.binding(None) is None


def test_scramp_is_imported_when_it_is_used_and_not_before() -> None:
    code = "import sys, aiosmtpclient; sys.exit('scramp' in sys.modules or 'spnego' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=20).returncode == 0
