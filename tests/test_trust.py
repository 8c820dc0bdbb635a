"""Certificates: what is trusted by simple arguments, what is pinned, what is resumed, and every fault."""

from __future__ import annotations

import asyncio
import datetime
import gc
import hashlib
import ssl
import warnings
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from wire import BODY, SENDER, TO, bye, caught, each_loop, hello, read_all, send, take

import aiosmtpclient
from aiosmtpclient import AsyncSMTP, Delivery, SMTPPool, SMTPTLSError, TLSPolicy, tls
from aiosmtpclient.resumption import NAMES, SESSIONS, Resuming, Sessions, resuming
from aiosmtpclient.testing import CertificateAuthority, MailServer, ScriptedServer
from aiosmtpclient.testing.scripted import starttls
from aiosmtpclient.tls import at_least_1_2
from aiosmtpclient.trust import Trust

AUTHORITY = CertificateAuthority()
POLICIES = ("implicit", "starttls")


def pin_of(context: ssl.SSLContext) -> str:
    """The fingerprint of a server's certificate, as `openssl x509 -fingerprint -sha256` shows it."""
    from aiosmtpclient.testing.certificates import certificate_of

    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate_of(context))).hexdigest().upper()


def with_colons(pin: str) -> str:
    return bytes.fromhex(pin).hex(":")


def server(policy: str, context: ssl.SSLContext, **options: object) -> MailServer:
    return MailServer(**{"implicit_tls" if policy == "implicit" else "starttls": context}, **options)


def layer_of(smtp: AsyncSMTP) -> ssl.SSLObject:
    return smtp._connection.protocol.transport.get_extra_info("ssl_object")


@pytest.fixture(scope="module", autouse=True)
def system_authorities_are_few() -> Iterator[None]:
    """Reading the system's CAs takes long; no test here depends on them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("aiosmtpclient.tls.default_context", lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        patch.setattr("aiosmtpclient.dialling._default_context", None)
        yield


# -- authorities -----------------------------------------------------------------------------------


@each_loop
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("form", ["path", "str", "octets", "directory"])
async def test_a_private_authority_is_trusted(policy, form, tmp_path):
    (tmp_path / "ca.pem").write_bytes(AUTHORITY.ca_pem)
    forms = {"path": tmp_path / "ca.pem", "str": str(tmp_path / "ca.pem"), "octets": AUTHORITY.ca_pem}
    if form == "directory":
        cryptography = pytest.importorskip("cryptography.x509")
        (tmp_path / f"{_subject_hash(cryptography)}.0").write_bytes(AUTHORITY.ca_pem)
    async with server(policy, AUTHORITY.server_context()) as there:
        async with AsyncSMTP(there.host, there.port, tls=policy, tls_ca=forms.get(form, tmp_path)) as smtp:
            await send(smtp)
        assert there.messages[0].tls


def _subject_hash(x509) -> str:
    """What OpenSSL looks for in a directory: the SHA-1 of the canonical subject, little-endian."""
    subject = x509.load_pem_x509_certificate(AUTHORITY.ca_pem).subject
    canonical = b""
    for attribute in subject:
        name = bytes.fromhex("06") + _der(_oid(attribute.oid.dotted_string))
        text = b"\x0c" + _der(" ".join(attribute.value.lower().split()).encode())
        canonical += b"\x31" + _der(b"\x30" + _der(name + text))
    digest = hashlib.sha1(canonical, usedforsecurity=False).digest()
    return f"{int.from_bytes(digest[:4], 'little'):08x}"


def _der(content: bytes) -> bytes:
    assert len(content) < 128
    return bytes([len(content)]) + content


def _oid(dotted: str) -> bytes:
    first, second, *others = map(int, dotted.split("."))
    assert all(number < 128 for number in others)
    return bytes([first * 40 + second, *others])


async def test_with_a_private_authority_the_systems_are_not_trusted():
    other = trustme.CA()
    async with server("implicit", AUTHORITY.server_context()) as there:
        smtp = AsyncSMTP(there.host, there.port, tls="implicit", tls_ca=other.cert_pem.bytes())
        error = await caught(smtp.connect())
    assert isinstance(error, SMTPTLSError)
    assert "not trusted here; to trust it, pass tls_ca= or a tls_context=" in str(error)


@pytest.mark.parametrize(
    ("made_of", "why"),
    [
        ("missing", r"cannot load tls_ca= from '.*missing': No such file"),
        ("junk", r"cannot load tls_ca= from '.*junk': no certificates in PEM form"),
        (b"junk", r"cannot load tls_ca= from the given octets: no certificates in PEM form"),
        (b"\xff", r"cannot load tls_ca= from the given octets: no certificates in PEM form"),
    ],
)
def test_authorities_that_cannot_be_loaded_are_found_at_once(tmp_path, made_of, why):
    (tmp_path / "junk").write_text("junk")
    with pytest.raises(SMTPTLSError, match=why):
        AsyncSMTP("mail.test", tls_ca=made_of if isinstance(made_of, bytes) else tmp_path / made_of)


@pytest.mark.parametrize("nothing", ["", b""])
def test_no_authority_at_all_is_not_taken_for_those_of_the_system(nothing):
    with pytest.raises(
        ValueError, match=r"^tls_ca= is empty: leave it out to trust the system's authorities$"
    ):
        AsyncSMTP("mail.test", tls_ca=nothing)


@pytest.mark.parametrize("given", [{"tls_ca": b"x"}, {"tls_certificate": "x"}])
@pytest.mark.parametrize("kind", [AsyncSMTP, SMTPPool])
def test_a_context_and_what_goes_into_one_exclude_each_other(given, kind):
    with pytest.raises(ValueError, match="tls_ca= and tls_certificate= go into the context that is given"):
        kind("mail.test", tls_context=AUTHORITY.client_context(), **given)


# -- our own certificate ---------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path):
    """A certificate of ours, in one file and in two."""
    from aiosmtpclient.testing.certificates import _authority

    leaf = _authority("trusted").issue_cert("user.test", common_name="me")
    (tmp_path / "both.pem").write_bytes(leaf.private_key_and_cert_chain_pem.bytes())
    (tmp_path / "cert.pem").write_bytes(b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
    (tmp_path / "key.pem").write_bytes(leaf.private_key_pem.bytes())
    return tmp_path


@each_loop
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("files", [["both.pem"], ["cert.pem", "key.pem"]], ids=len)
@pytest.mark.parametrize("verified_by", ["tls_ca", "tls_fingerprint", "system"])
async def test_our_certificate_is_shown_and_logs_in(policy, files, verified_by, own, monkeypatch):
    paths = tuple(own / name for name in files)
    context = AUTHORITY.server_context(client_certificates=True)
    options = {
        "tls_ca": {"tls_ca": AUTHORITY.ca_pem},
        "tls_fingerprint": {"tls_fingerprint": pin_of(context)},
    }
    monkeypatch.setattr("aiosmtpclient.tls.default_context", AUTHORITY.client_context)
    async with server(policy, context, users={"me": "p"}, mechanisms=["EXTERNAL"]) as there:
        async with AsyncSMTP(
            "localhost",
            there.port,
            tls=policy,
            tls_certificate=paths[0] if len(paths) == 1 else paths,
            mechanisms=["EXTERNAL"],
            **options.get(verified_by, {}),
        ) as smtp:
            await send(smtp)
        assert there.messages[0].user == "me"


@pytest.mark.parametrize("files", ["missing.pem", "key.pem", "cert.pem"])
def test_a_certificate_that_cannot_be_loaded_is_found_at_once(own, files):
    with pytest.raises(SMTPTLSError, match=f"cannot load the client certificate '.*{files}'"):
        AsyncSMTP("mail.test", tls_certificate=own / files)


# -- pins ------------------------------------------------------------------------------------------


@each_loop
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("how", ["upper", "lower", "colons", "several"])
async def test_the_pinned_certificate_is_all_that_is_asked_for(policy, how):
    """Neither who issued it, nor its name, nor its dates."""
    for context in (
        AUTHORITY.untrusted_context(),
        AUTHORITY.wrong_name_context(),
        AUTHORITY.expired_context(),
    ):
        pin = pin_of(context)
        forms = {"lower": pin.lower(), "colons": with_colons(pin), "several": ["00" * 32, pin]}
        async with server(policy, context) as there:
            async with AsyncSMTP(
                there.host, there.port, tls=policy, tls_fingerprint=forms.get(how, pin)
            ) as smtp:
                await send(smtp)
            assert there.messages[0].tls


@each_loop
@pytest.mark.parametrize("policy", [*POLICIES, "opportunistic"])
@pytest.mark.parametrize("verified", [False, True])
async def test_another_certificate_than_the_pinned_one_gets_nothing_from_us(policy, verified):
    context = AUTHORITY.server_context()
    trusted = {"tls_ca": AUTHORITY.ca_pem} if verified else {}
    async with server(policy, context, users={"u": "p"}) as there:
        options = {"tls": policy, "tls_fingerprint": "ab" * 32, "username": "u", "password": "p", **trusted}
        error = await caught(
            aiosmtpclient.send(
                BODY, sender=SENDER, recipients=TO, host=there.host, port=there.port, **options
            )
        )
        assert isinstance(error, SMTPTLSError)
        assert error.delivery is Delivery.NOT_SENT
        assert "its certificate is none that tls_fingerprint= names" in str(error)
        assert f"pass tls_fingerprint='{with_colons(pin_of(context)).upper()}'" in str(error)
        assert there.commands == ([] if policy == "implicit" else [there.commands[0], "STARTTLS"])


@each_loop
async def test_not_one_octet_follows_the_handshake_with_a_wrong_certificate():
    """In STARTTLS: no EHLO, and no QUIT."""
    script = [*hello("STARTTLS"), "STARTTLS", b"220 go\r\n", starttls(AUTHORITY.server_context()), read_all()]
    async with ScriptedServer(script) as there:
        smtp = AsyncSMTP(there.host, there.port, tls="starttls", tls_fingerprint="00" * 32)
        assert isinstance(await caught(smtp.connect()), SMTPTLSError)
        assert not smtp.is_connected
        await there.conversations[0].gone.wait()
        assert there.received[0].endswith(b"STARTTLS\r\n")


async def test_with_an_authority_the_certificate_must_verify_and_be_the_pinned_one():
    context = AUTHORITY.expired_context()
    async with server("implicit", context) as there:
        options = {"tls": "implicit", "tls_fingerprint": pin_of(context)}
        error = await caught(AsyncSMTP(there.host, there.port, tls_ca=AUTHORITY.ca_pem, **options).connect())
        assert "has expired" in str(error)
        error = await caught(
            AsyncSMTP(there.host, there.port, tls_context=AUTHORITY.client_context(), **options).connect()
        )
        assert "has expired" in str(error)


async def test_a_pin_goes_with_a_context():
    context = AUTHORITY.server_context()
    async with server("implicit", context) as there:
        options = {"tls": "implicit", "tls_context": AUTHORITY.client_context()}
        async with AsyncSMTP(there.host, there.port, tls_fingerprint=pin_of(context), **options) as smtp:
            await send(smtp)
        error = await caught(
            AsyncSMTP(there.host, there.port, tls_fingerprint="00" * 32, **options).connect()
        )
        assert "tls_fingerprint=" in str(error)


@each_loop
@pytest.mark.parametrize("context", [None, AUTHORITY.client_context()], ids=["ours", "given"])
async def test_starttls_by_hand_keeps_to_the_pin(context):
    script = [*hello(), "EHLO", b"250-mail.test\r\n250 STARTTLS\r\n", "STARTTLS", b"220 go\r\n"]
    async with ScriptedServer([*script, starttls(AUTHORITY.server_context()), read_all()]) as there:
        smtp = AsyncSMTP(there.host, there.port, tls="opportunistic", tls_fingerprint="00" * 32)
        await smtp.connect()
        await smtp.ehlo()
        error = await caught(smtp.starttls(context=context, server_hostname="localhost"))
        assert isinstance(error, SMTPTLSError)
        assert "tls_fingerprint=" in str(error)
        assert not smtp.is_connected


@pytest.mark.parametrize(
    ("host", "port", "given", "policy"),
    [
        ("localhost", 25, None, TLSPolicy.STARTTLS),
        ("mail.test", 25, None, TLSPolicy.STARTTLS),
        ("mail.test", 465, None, TLSPolicy.IMPLICIT),
        ("mail.test", 25, "opportunistic", TLSPolicy.OPPORTUNISTIC),
    ],
)
def test_a_pin_means_tls(host, port, given, policy):
    assert AsyncSMTP(host, port, tls=given, tls_fingerprint="00" * 32)._settings.policy is policy


def test_a_pin_without_tls_is_a_contradiction():
    with pytest.raises(ValueError, match=r"with tls='none' there is no certificate that tls_fingerprint="):
        AsyncSMTP("mail.test", tls="none", tls_fingerprint="00" * 32)


@pytest.mark.parametrize(
    "pin", ["", "00", "0" * 40, "0" * 63, "0" * 65, "g" * 64, "00:" * 32, ":".join(["0000"] * 16), b"0" * 64]
)
def test_what_is_no_fingerprint_is_told_what_one_is(pin):
    with pytest.raises(ValueError) as told:
        AsyncSMTP("mail.test", tls_fingerprint=[pin])
    assert str(told.value) == (
        "tls_fingerprint= takes the SHA-256 of a certificate, 64 hexadecimal digits with or without colons, "
        f"or several of them, not {pin!r}"
    )


def test_no_fingerprint_at_all_is_not_taken_for_a_pin():
    with pytest.raises(
        ValueError, match=r"^tls_fingerprint= names no certificate: leave it out, or pass at least one$"
    ):
        AsyncSMTP("mail.test", tls_fingerprint=[])


def test_the_systems_authorities_are_read_only_when_they_are_needed(own, monkeypatch):
    made = []

    def default_context() -> ssl.SSLContext:
        made.append(1)
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    monkeypatch.setattr(tls, "default_context", default_context)
    for trust in (Trust(), Trust(certificate=own / "both.pem")):
        assert made == []
        assert trust.context() is trust.context()
        assert made.pop() == 1
    Trust(fingerprint="00" * 32).context()
    Trust(AUTHORITY.ca_pem, own / "both.pem", "00" * 32).context()
    assert made == []


def test_a_server_without_a_certificate_has_not_the_pinned_one():
    assert isinstance(Trust(fingerprint="00" * 32).mismatch(None, "mail.test"), SMTPTLSError)


# -- in a URL --------------------------------------------------------------------------------------


@each_loop
async def test_authorities_certificates_and_pins_may_stand_in_a_url(own):
    (own / "ca.pem").write_bytes(AUTHORITY.ca_pem)
    context = AUTHORITY.server_context(client_certificates=True)
    async with server("implicit", context, users={"me": "p"}, mechanisms=["EXTERNAL"]) as there:
        query = f"tls_ca={own}/ca.pem&tls_certificate={own}/cert.pem,{own}/key.pem&mechanisms=EXTERNAL"
        query += f"&tls_fingerprint={'00' * 32},{with_colons(pin_of(context))}"
        async with AsyncSMTP.from_url(f"smtps://localhost:{there.port}?{query}") as smtp:
            await send(smtp)
        assert there.messages[0].user == "me"


def test_a_url_takes_a_certificate_of_one_file_or_two(own):
    AsyncSMTP.from_url(f"smtps://mail.test?tls_certificate={own}/both.pem")
    with pytest.raises(ValueError, match="tls_certificate= of the URL takes the path"):
        AsyncSMTP.from_url("smtps://mail.test?tls_certificate=a,b,c")


# -- faults ----------------------------------------------------------------------------------------


def _dated(since: int, until: int) -> ssl.SSLContext:
    from aiosmtpclient.testing.certificates import _authority

    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _authority("trusted").issue_cert(
        "localhost", "127.0.0.1", not_before=now + since * day, not_after=now + until * day
    ).configure_cert(context)
    return context


def _self_signed(folder: Path) -> ssl.SSLContext:
    alone = trustme.CA()
    pem = folder / "alone.pem"
    alone.private_key_pem.write_to_path(pem)
    alone.cert_pem.write_to_path(pem, append=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


FAULTS = {
    "self-signed": (None, "localhost", "is self-signed", "tls_ca="),
    "unknown CA": (AUTHORITY.untrusted_context(), "localhost", "CA that is not trusted here", "tls_ca="),
    "wrong name": (
        AUTHORITY.server_context("a.test"),
        "b.test",
        "is for another name",
        "server_hostname=",
    ),
    "expired": (_dated(-20, -10), "localhost", "has expired", "this machine's clock"),
    "not yet valid": (_dated(10, 20), "localhost", "is not valid yet", "this machine's clock"),
    "address": (
        AUTHORITY.server_context("localhost"),
        "127.0.0.1",
        "is for another address",
        "server_hostname=",
    ),
    "address in brackets": (
        AUTHORITY.server_context("localhost"),
        "[::1]",
        "is for another address",
        "server_hostname=",
    ),
    "international name": (
        AUTHORITY.server_context("xn--bcher-kva.example"),
        "bûcher.example",
        "is for another name",
        "server_hostname=",
    ),
    "final dot": (
        AUTHORITY.server_context("a.test"),
        "b.test.",
        "is for another name",
        "server_hostname=",
    ),
}


@each_loop
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("fault", FAULTS)
async def test_every_fault_of_a_certificate_is_named_with_the_knob(fault, policy, tmp_path):
    context, name, reason, knob = FAULTS[fault]
    async with server(policy, context or _self_signed(tmp_path)) as there:
        host = name if name == "localhost" else there.host
        smtp = AsyncSMTP(host, there.port, tls=policy, tls_ca=AUTHORITY.ca_pem, server_hostname=name)
        error = await caught(smtp.connect())
        assert isinstance(error, SMTPTLSError)
        assert isinstance(error.__cause__, ssl.SSLCertVerificationError)
        assert reason in str(error)
        assert knob in str(error)
        assert tls.server_name(name) in str(error)
        assert not smtp.is_connected


@each_loop
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    ("inside", "name"),
    [
        ("a.test", "a.test."),
        ("xn--bcher-kva.example", "bücher.example"),
        ("xn--bcher-kva.example", "BÜCHER.example."),
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "[::1]"),
    ],
)
async def test_a_certificate_fits_however_its_name_is_spelled(policy, inside, name):
    async with server(policy, AUTHORITY.server_context(inside)) as there:
        async with AsyncSMTP(
            there.host, there.port, tls=policy, tls_ca=AUTHORITY.ca_pem, server_hostname=name
        ) as smtp:
            await send(smtp)
        assert there.messages[0].tls


@pytest.mark.parametrize(
    "options",
    [{"tls_ca": AUTHORITY.ca_pem}, {"tls_fingerprint": "00" * 32}],
    ids=["authority", "pin"],
)
def test_what_is_made_of_simple_arguments_wants_tls_1_2(options):
    context = AsyncSMTP("mail.test", **options)._settings.security.trust.context()

    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


@pytest.fixture(scope="module")
def tls_1_1():
    """A server's context that knows nothing newer, and a client's that takes that."""
    old, lenient = AUTHORITY.server_context(), AUTHORITY.client_context()
    for context in (old, lenient):
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    return old, lenient


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("trusted_by", ["authority", "pin", "system"])
async def test_a_server_that_speaks_no_more_than_tls_1_1_is_not_spoken_to(
    policy, trusted_by, tls_1_1, monkeypatch
):
    old, lenient = tls_1_1
    ours = at_least_1_2(AUTHORITY.client_context())
    monkeypatch.setattr("aiosmtpclient.tls.default_context", lambda: ours)
    monkeypatch.setattr("aiosmtpclient.dialling._default_context", None)
    options = {
        "authority": {"tls_ca": AUTHORITY.ca_pem},
        "pin": {"tls_fingerprint": pin_of(old)},
        "system": {},
    }[trusted_by]
    async with server(policy, old) as there:
        try:
            async with AsyncSMTP("localhost", there.port, tls=policy, tls_context=lenient) as smtp:
                assert layer_of(smtp).version() == "TLSv1.1"
        except SMTPTLSError as error:
            pytest.skip(f"{ssl.OPENSSL_VERSION} speaks no TLS 1.1: {error}")
        smtp = AsyncSMTP("localhost", there.port, tls=policy, **options)
        trust = smtp._settings.security.trust
        context = trust.context() if trust is not None else ours
        context.set_ciphers("ALL:@SECLEVEL=0")  # so that nothing but the version stands against it
        assert isinstance(await caught(smtp.connect()), SMTPTLSError)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = ssl.TLSVersion.TLSv1_1
        await smtp.connect()
        await smtp.quit()


def test_verification_is_on_unless_there_is_a_pin():
    assert Trust(ca=AUTHORITY.ca_pem).context().verify_mode is ssl.CERT_REQUIRED
    assert Trust(ca=AUTHORITY.ca_pem, fingerprint="00" * 32).context().check_hostname
    assert Trust(fingerprint="00" * 32).context().verify_mode is ssl.CERT_NONE


# -- resumption ------------------------------------------------------------------------------------


@each_loop
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda v: v.name)
async def test_a_pool_resumes_when_it_connects_anew(policy, version):
    context = AUTHORITY.server_context()
    context.maximum_version = version
    options = {"tls": policy, "tls_ca": AUTHORITY.ca_pem, "max_messages": 1, "max_connections": 1}
    resumed = []
    async with server(policy, context) as there:
        async with SMTPPool(there.host, there.port, **options) as pool:
            for _ in range(3):
                async with pool.connection() as smtp:
                    resumed.append(layer_of(smtp).session_reused)
                    await send(smtp)
        assert len(there.messages) == 3
    assert resumed == [False, True, True]


async def test_those_who_bring_no_context_resume_as_well(monkeypatch):
    monkeypatch.setattr("aiosmtpclient.tls.default_context", AUTHORITY.client_context)
    monkeypatch.setattr("aiosmtpclient.dialling._default_context", None)
    resumed = []
    async with server("implicit", AUTHORITY.server_context()) as there:
        for _ in range(2):
            async with AsyncSMTP(there.host, there.port, tls="implicit") as smtp:
                resumed.append(layer_of(smtp).session_reused)
    assert resumed == [False, True]


async def test_a_callers_context_is_left_as_it_is():
    context = AUTHORITY.client_context()
    async with server("implicit", AUTHORITY.server_context()) as there:
        for _ in range(2):
            async with AsyncSMTP(there.host, there.port, tls="implicit", tls_context=context) as smtp:
                assert type(layer_of(smtp)) is ssl.SSLObject
    assert context.sslobject_class is ssl.SSLObject


async def test_a_session_is_not_offered_for_another_name():
    """What was verified for one name says nothing about another."""
    trust = {"tls": "implicit", "tls_ca": AUTHORITY.ca_pem}
    async with server("implicit", AUTHORITY.server_context("a.test")) as there:
        smtp = AsyncSMTP(there.host, there.port, server_hostname="a.test", **trust)
        async with smtp:
            pass
        other = smtp._settings.security._replace(server_hostname="b.test")
        smtp._settings = smtp._settings._replace(security=other)
        error = await caught(smtp.connect())
        assert isinstance(error, SMTPTLSError)
        assert "is for another name" in str(error)


@each_loop
async def test_a_server_that_forgot_the_session_makes_a_full_handshake():
    """Another server with the same name: it cannot read the ticket of the first."""
    trust = {"tls": "implicit", "tls_ca": AUTHORITY.ca_pem}
    async with server("implicit", AUTHORITY.server_context()) as one:
        smtp = AsyncSMTP(one.host, one.port, **trust)
        async with smtp:
            await send(smtp)
    async with server("implicit", AUTHORITY.server_context()) as two:
        await smtp.connect(two.host, two.port)
        assert not layer_of(smtp).session_reused
        await send(smtp)
        await smtp.quit()
        assert two.messages[0].tls


@each_loop
async def test_a_pin_is_looked_at_in_a_resumed_connection_as_well():
    context = AUTHORITY.server_context()
    async with server("implicit", context) as there:
        smtp = AsyncSMTP(there.host, there.port, tls="implicit", tls_fingerprint=pin_of(context))
        async with smtp:
            pass
        smtp._settings.security.trust.pins = (b"\0" * 32,)
        assert "tls_fingerprint=" in str(await caught(smtp.connect()))


@each_loop
async def test_a_session_is_offered_once():
    """One that spoils a handshake must not spoil the next one too."""
    script = [*hello(), *take(TO), *bye()]
    async with ScriptedServer(script, implicit_tls=AUTHORITY.server_context()) as there:
        smtp = AsyncSMTP(there.host, there.port, tls="implicit", tls_ca=AUTHORITY.ca_pem)
        async with smtp:
            sessions = layer_of(smtp).sessions
            await send(smtp)
        [kept] = sessions._kept.values()
        assert len(kept) == 1
    async with ScriptedServer([]) as gone:
        assert await caught(smtp.connect(gone.host, gone.port)) is not None
    assert len(kept) == 0


def test_only_the_newest_sessions_of_the_newest_names_are_kept():
    sessions = Sessions()
    for number in range(SESSIONS + 1):
        sessions.keep("a.test", number)
    assert [sessions.take("a.test") for _ in range(SESSIONS + 1)] == [*range(SESSIONS, 0, -1), None]

    for number in range(NAMES):
        sessions.keep(f"{number}.test", number)
    assert sessions.take("a.test") is None
    assert sessions.take("0.test") == 0


async def test_a_context_goes_with_the_client_that_made_it():
    """Sessions hold their context: that must not keep it for ever."""
    async with server("implicit", AUTHORITY.server_context()) as there:
        smtp = AsyncSMTP(there.host, there.port, tls="implicit", tls_ca=AUTHORITY.ca_pem)
        async with smtp:
            assert isinstance(layer_of(smtp), Resuming)
        gone = weakref.ref(smtp._settings.security.trust.context())
        del smtp
        await asyncio.sleep(0)
        for _ in range(3):  # what has finalizers goes first, and only then what that held
            gc.collect()
        assert gone() is None


def test_a_context_of_ours_says_what_it_makes():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    assert resuming(context) is context
    assert issubclass(context.sslobject_class, Resuming)
