"""When TLS is used, what counts as local, and what a failed handshake says."""

import contextlib
import datetime
import itertools
import ssl
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from aiosmtpclient import tls
from aiosmtpclient.errors import Delivery, SMTPTLSError
from aiosmtpclient.tls import TLSPolicy

HOST = "mail.example.com"


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


def server_context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def client_context(ca: trustme.CA) -> ssl.SSLContext:
    context = tls.default_context()
    ca.configure_trust(context)
    return context


def handshake(client: ssl.SSLContext, server: ssl.SSLContext, name: str = HOST) -> ssl.SSLObject:
    """Shake hands in memory; what goes wrong on the client's side is raised."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server, server_hostname=tls.server_name(name))
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(5):
        try:
            ours.do_handshake()
        except ssl.SSLWantReadError:
            pass
        else:
            return ours
        with contextlib.suppress(ssl.SSLError):  # either more is wanted, or its alert is on the way
            theirs.do_handshake()
    raise AssertionError("the handshake does not end")


def failed(client: ssl.SSLContext, server: ssl.SSLContext, name: str = HOST) -> SMTPTLSError:
    with pytest.raises(ssl.SSLError) as caught:
        handshake(client, server, name)
    return tls.failure(caught.value, name)


# -- policies


@pytest.mark.parametrize(
    ("port", "local", "policy"),
    [
        (465, False, TLSPolicy.IMPLICIT),
        (465, True, TLSPolicy.IMPLICIT),
        (587, False, TLSPolicy.STARTTLS),
        (587, True, TLSPolicy.STARTTLS),
        (25, True, TLSPolicy.NONE),
        (25, False, TLSPolicy.OPPORTUNISTIC),
        (2525, False, TLSPolicy.OPPORTUNISTIC),
        (0, True, TLSPolicy.NONE),
    ],
)
def test_left_out_the_policy_follows_port_and_place(port: int, local: bool, policy: TLSPolicy) -> None:
    assert TLSPolicy.of(None, port=port, local=local) is policy


@pytest.mark.parametrize("policy", TLSPolicy)
def test_a_policy_or_its_name_wins_over_port_and_place(policy: TLSPolicy) -> None:
    for port, local in itertools.product((25, 465, 587), (False, True)):
        assert TLSPolicy.of(policy, port=port, local=local) is policy
        assert TLSPolicy.of(policy.value, port=port, local=local) is policy


@pytest.mark.parametrize("value", ["ssl", "", "start_tls", "STARTTLS", True, False, 1])
def test_an_unknown_policy_is_told_the_names(value: str) -> None:
    with pytest.raises(ValueError, match="'none', 'opportunistic', 'starttls', 'implicit', not"):
        TLSPolicy.of(value, port=25, local=False)


CLEAR_TO_LOCAL = (TLSPolicy.NONE, True)


@pytest.mark.parametrize("policy", TLSPolicy)
@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("allow", [False, True])
def test_inside_tls_credentials_always_travel(policy: TLSPolicy, local: bool, allow: bool) -> None:
    assert tls.may_send_credentials(policy, encrypted=True, local=local, allow_cleartext=allow)
    assert tls.may_try_another(policy, encrypted=True, local=local)


@pytest.mark.parametrize("policy", TLSPolicy)
@pytest.mark.parametrize("local", [False, True])
def test_in_clear_credentials_travel_only_to_a_local_server_without_tls(
    policy: TLSPolicy, local: bool
) -> None:
    may = tls.may_send_credentials(policy, encrypted=False, local=local, allow_cleartext=False)

    assert may is ((policy, local) == CLEAR_TO_LOCAL)


@pytest.mark.parametrize("policy", TLSPolicy)
@pytest.mark.parametrize("local", [False, True])
def test_a_caller_who_allows_cleartext_gets_it_but_no_fallback_to_a_weaker_mechanism(
    policy: TLSPolicy, local: bool
) -> None:
    assert tls.may_send_credentials(policy, encrypted=False, local=local, allow_cleartext=True)
    assert tls.may_try_another(policy, encrypted=False, local=local) is ((policy, local) == CLEAR_TO_LOCAL)


# -- local


@pytest.mark.parametrize(
    "host",
    [
        "/run/dovecot/lmtp",
        "localhost",
        "LocalHost",
        "localhost.",
        "mail.localhost",
        "a.b.LOCALHOST.",
        "127.0.0.1",
        "127.255.255.254",
        "::1",
        "0:0:0:0:0:0:0:1",
        "[::1]",
        "[127.0.0.1]",
    ],
)
def test_these_hosts_are_local(host: str) -> None:
    assert tls.is_local(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        ".",
        "mail.example.com",
        "localhost.example.com",
        "notlocalhost",
        ".localhost",
        "localhost..",
        "localhost.localdomain",
        "run/socket",
        "10.0.0.1",
        "128.0.0.1",
        "127.1",
        "127.0.0.1.",
        "127.0.0.1.example.com",
        "0.0.0.0",
        "::",
        "::2",
        "::ffff:127.0.0.1",
        "[localhost]",
        "[]",
        "[127.0.0.10",
        "1127.0.0.1]",
        "ｌocalhost",
        "localhost\0.example.com",
    ],
)
def test_these_hosts_are_not_local(host: str) -> None:
    assert not tls.is_local(host)


@pytest.mark.parametrize(
    "peername",
    [
        "/run/dovecot/lmtp",
        "",
        b"\0abstract",
        ("127.0.0.1", 25),
        ("127.9.9.9", 25),
        ("::1", 25, 0, 0),
        ("::ffff:127.0.0.1", 25, 0, 0),
    ],
)
def test_these_peers_are_local(peername: object) -> None:
    assert tls.is_local_peer(peername)


@pytest.mark.parametrize(
    "peername",
    [
        None,
        (),
        ("192.0.2.1", 25),
        ("::ffff:192.0.2.1", 25, 0, 0),
        ("2001:db8::1", 25, 0, 0),
        ("localhost", 25),
        (2, 25),
        (b"127.0.0.1", 25),
        (b"\x7f\0\0\1", 25),
        (0x7F000001, 25),
        25,
    ],
)
def test_these_peers_are_not_local(peername: object) -> None:
    assert not tls.is_local_peer(peername)


# -- the name to verify


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("mail.example.com", "mail.example.com"),
        ("Mail.Example.COM", "Mail.Example.COM"),
        ("mail.example.com.", "mail.example.com"),
        ("my_host", "my_host"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("bücher.example.", "xn--bcher-kva.example"),
        ("192.0.2.1", "192.0.2.1"),
        ("[::1]", "::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
    ],
)
def test_the_name_to_verify_is_bare_and_in_a_labels(host: str, name: str) -> None:
    assert tls.server_name(host) == name


@pytest.mark.parametrize(
    "host", ["", ".", "a..b", ".example.com", "a b", "a\0b", "x" * 64, "bü\u00a0cher", "a:25", "\ud800"]
)
def test_what_is_no_host_name_is_a_value_error_and_no_unicode_error(host: str) -> None:
    with pytest.raises(ValueError) as caught:
        tls.server_name(host)

    assert str(caught.value) == f"not a host name: {host!r}"

    assert not isinstance(caught.value, UnicodeError)


# -- contexts


def test_the_default_context_verifies_and_wants_tls_1_2() -> None:
    context = tls.default_context()

    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize(
    ("system", "ours"),
    [
        (ssl.TLSVersion.MINIMUM_SUPPORTED, ssl.TLSVersion.TLSv1_2),
        (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_3),
    ],
)
def test_the_systems_own_minimum_is_raised_never_lowered(
    monkeypatch: pytest.MonkeyPatch, system: ssl.TLSVersion, ours: ssl.TLSVersion
) -> None:
    made = ssl.create_default_context()
    made.minimum_version = system
    monkeypatch.setattr(ssl, "create_default_context", lambda: made)

    assert tls.default_context().minimum_version is ours


def test_a_context_that_the_caller_changes_is_nobody_elses() -> None:
    assert tls.default_context() is not tls.default_context()


def test_smtplibs_certfile_is_loaded_into_a_context_that_still_verifies(
    ca: trustme.CA, tmp_path: Path
) -> None:
    certificate, chain, key = (
        ca.issue_cert("client.example.com"),
        tmp_path / "chain.pem",
        tmp_path / "key.pem",
    )
    certificate.cert_chain_pems[0].write_to_path(chain)
    certificate.private_key_pem.write_to_path(key)
    server = server_context(ca.issue_cert(HOST))
    server.verify_mode = ssl.CERT_REQUIRED
    ca.configure_trust(server)

    context = tls.legacy_context(chain, str(key))

    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    ca.configure_trust(context)
    assert handshake(context, server).version() == "TLSv1.3"


def test_smtplibs_arguments_are_a_context_or_files_but_not_both(ca: trustme.CA, tmp_path: Path) -> None:
    both, context = tmp_path / "both.pem", tls.default_context()
    ca.issue_cert("client.example.com").private_key_and_cert_chain_pem.write_to_path(both)

    assert tls.given_context(None, None, context) is context
    assert tls.given_context(None, None, None) is None
    for files in ((None, both), (both, None), (both, both)):
        with pytest.raises(ValueError, match=r"^keyfile and certfile go into the context that is given$"):
            tls.given_context(*files, context)


@pytest.fixture
def files(ca: trustme.CA, tmp_path: Path) -> tuple[str, str]:
    """A key and its certificate, each in a file, in smtplib's order."""
    certificate, chain, key = ca.issue_cert("a.test"), tmp_path / "chain.pem", tmp_path / "key.pem"
    certificate.cert_chain_pems[0].write_to_path(chain)
    certificate.private_key_pem.write_to_path(key)
    return str(key), str(chain)


def test_files_in_place_of_a_context_are_deprecated_and_loaded(
    ca: trustme.CA, files: tuple[str, str]
) -> None:
    with pytest.warns(DeprecationWarning, match=r"^keyfile and certfile are deprecated: pass a context$"):
        context = tls.given_context(*files, None)
    server = server_context(ca.issue_cert(HOST))
    server.verify_mode = ssl.CERT_REQUIRED
    ca.configure_trust(server)
    ca.configure_trust(context)
    assert handshake(context, server).version() == "TLSv1.3"


def test_files_in_place_of_a_context_are_deprecated_where_they_are_passed(files: tuple[str, str]) -> None:
    def method() -> ssl.SSLContext:
        return tls.given_context(*files, None)

    with pytest.warns(DeprecationWarning, match="pass a context") as warned:
        method()
    assert warned[0].filename == __file__
    assert warned[0].lineno == method.__code__.co_firstlineno + 4


def test_without_files_the_legacy_context_is_the_default_one() -> None:
    assert tls.legacy_context(None, None).verify_mode is ssl.CERT_REQUIRED


def test_a_key_without_a_certificate_is_a_value_error() -> None:
    with pytest.raises(ValueError, match=r"^keyfile needs a certfile$"):
        tls.legacy_context(None, "key.pem")


def test_files_that_cannot_be_loaded_are_no_bare_os_error(tmp_path: Path) -> None:
    (tmp_path / "junk.pem").write_text("junk")

    with pytest.raises(SMTPTLSError, match=r"missing\.pem'?: No such file") as caught:
        tls.legacy_context(tmp_path / "missing.pem", None)
    assert isinstance(caught.value.__cause__, FileNotFoundError)
    with pytest.raises(SMTPTLSError, match=r"junk\.pem'?: no PEM"):
        tls.legacy_context(tmp_path / "junk.pem", None)


@pytest.mark.timeout(10)
def test_an_encrypted_key_does_not_ask_for_its_passphrase_on_the_terminal(tmp_path: Path) -> None:
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    certificate = trustme.CA().issue_cert(HOST)
    key = serialization.load_pem_private_key(certificate.private_key_pem.bytes(), None)
    (tmp_path / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"passphrase"),
        )
    )
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "chain.pem")

    with pytest.raises(SMTPTLSError, match="passphrase"):
        tls.legacy_context(tmp_path / "chain.pem", tmp_path / "key.pem")


# -- handshakes that fail


def test_a_right_certificate_is_accepted(ca: trustme.CA) -> None:
    assert handshake(client_context(ca), server_context(ca.issue_cert(HOST))).version() == "TLSv1.3"


@pytest.mark.parametrize("host", ["bücher.example.", "[::1]"])
def test_the_name_to_verify_is_the_one_in_the_certificate(ca: trustme.CA, host: str) -> None:
    server = server_context(ca.issue_cert("xn--bcher-kva.example", "::1"))

    assert handshake(client_context(ca), server, host).version() == "TLSv1.3"


def test_an_unknown_ca_is_named_with_the_knob_to_turn(ca: trustme.CA) -> None:
    error = failed(tls.default_context(), server_context(ca.issue_cert(HOST)))

    assert str(error).startswith(f"TLS with {HOST} failed: its certificate was issued by a")
    assert "not trusted here" in str(error)
    assert "pass tls_ca= or a tls_context=" in str(error)
    assert isinstance(error, ssl.SSLError)
    assert error.delivery is Delivery.NOT_SENT


def test_a_self_signed_certificate_is_named(tmp_path: Path) -> None:
    alone = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pem = tmp_path / "alone.pem"
    alone.private_key_pem.write_to_path(pem)
    alone.cert_pem.write_to_path(pem, append=True)
    server.load_cert_chain(pem)

    error = failed(tls.default_context(), server)

    assert "its certificate is self-signed; to trust it, pass tls_ca= or a tls_context=" in str(error)


def test_a_wrong_name_is_named_with_the_name_that_was_asked_for(ca: trustme.CA) -> None:
    error = failed(client_context(ca), server_context(ca.issue_cert("other.example.com")))

    assert "its certificate is for another name; if that name is right, pass it as server_hostname=" in str(
        error
    )
    assert f"not valid for '{HOST}'" in str(error)


def test_a_wrong_address_is_named(ca: trustme.CA) -> None:
    error = failed(client_context(ca), server_context(ca.issue_cert("192.0.2.1")), "192.0.2.2")

    assert "its certificate is for another address" in str(error)
    assert "server_hostname=" in str(error)


@pytest.mark.parametrize(
    ("since", "until", "said"), [(-20, -10, "has expired"), (10, 20, "is not valid yet")]
)
def test_an_expired_or_future_certificate_is_named(ca: trustme.CA, since: int, until: int, said: str) -> None:
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    certificate = ca.issue_cert(HOST, not_before=now + since * day, not_after=now + until * day)

    error = failed(client_context(ca), server_context(certificate))

    assert f"its certificate {said}; check this machine's clock" in str(error)


def test_no_version_in_common_is_named(ca: trustme.CA) -> None:
    client, server = client_context(ca), server_context(ca.issue_cert(HOST))
    client.minimum_version = ssl.TLSVersion.TLSv1_3
    server.maximum_version = ssl.TLSVersion.TLSv1_2

    assert "no version of TLS in common; pass a tls_context=" in str(failed(client, server))


def old_fashioned(ca: trustme.CA) -> ssl.SSLContext:
    """A server that speaks TLS 1.1 and nothing newer, where OpenSSL still has that."""
    server = server_context(ca.issue_cert(HOST))
    lenient = client_context(ca)
    for context in (server, lenient):
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = ssl.TLSVersion.TLSv1_1
            context.maximum_version = ssl.TLSVersion.TLSv1_1
    try:
        assert handshake(lenient, server).version() == "TLSv1.1"
    except ssl.SSLError as error:
        pytest.skip(f"{ssl.OPENSSL_VERSION} speaks no TLS 1.1: {error}")
    return server


def test_a_server_that_speaks_no_more_than_tls_1_1_is_not_spoken_to(ca: trustme.CA) -> None:
    client, server = tls.default_context(), old_fashioned(ca)
    ca.configure_trust(client)
    client.set_ciphers("ALL:@SECLEVEL=0")  # so that nothing but the version stands against it

    assert "no version of TLS in common" in str(failed(client, server))


def test_a_server_that_wants_a_client_certificate_is_named(ca: trustme.CA) -> None:
    server = server_context(ca.issue_cert(HOST))
    server.maximum_version = ssl.TLSVersion.TLSv1_2
    server.verify_mode = ssl.CERT_REQUIRED

    assert "wants a client certificate; pass tls_certificate=, or a tls_context=" in str(
        failed(client_context(ca), server)
    )


def test_a_server_that_greets_in_clear_on_an_implicit_port_is_named() -> None:
    incoming = ssl.MemoryBIO()
    ours = tls.default_context().wrap_bio(incoming, ssl.MemoryBIO(), server_hostname=HOST)
    incoming.write(b"220 mail.example.com ESMTP ready\r\n")

    with pytest.raises(ssl.SSLError) as caught:
        ours.do_handshake()

    assert "what it sent is not TLS; on a port that starts in clear, pass tls='starttls'" in str(
        tls.failure(caught.value, HOST)
    )


def at_eof() -> Exception:
    incoming = ssl.MemoryBIO()
    incoming.write_eof()
    ours = tls.default_context().wrap_bio(incoming, ssl.MemoryBIO(), server_hostname=HOST)
    with pytest.raises(ssl.SSLError) as caught:
        ours.do_handshake()
    return caught.value


@pytest.mark.parametrize(
    "make", [at_eof, lambda: ConnectionResetError(104, "reset by peer"), ConnectionAbortedError, EOFError]
)
def test_a_connection_lost_in_the_handshake_is_named(make: Callable[[], Exception]) -> None:
    error = make()

    said = str(tls.failure(error, HOST))

    assert "closed in the middle of the handshake" in said
    assert (str(error).rstrip(".") or type(error).__name__) in said


def test_what_ssl_said_stands_at_the_end_without_its_full_stop() -> None:
    known = ssl.SSLCertVerificationError(1, "long words")
    known.verify_code, known.verify_message = 10, "certificate has expired..."
    said = str(tls.failure(known, HOST))
    assert said.startswith(
        f"TLS with {HOST} failed: its certificate has expired; check this machine's clock; "
    )
    assert said.endswith(" a tls_context= of your own can accept it (certificate has expired)")
    unknown = ConnectionResetError(" reset ")
    what = "the connection was closed in the middle of the handshake; on a port that starts in clear, pass"
    said = f"TLS with {HOST} failed: {what} tls='starttls' instead of 'implicit' ( reset )"
    assert str(tls.failure(unknown, HOST)) == said
    assert str(tls.failure(EOFError(), HOST)).endswith("'implicit' (EOFError)")


def test_a_certificate_refused_for_another_reason_still_names_the_knob() -> None:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")

    assert "its certificate was not accepted; to trust it, pass tls_ca= or a tls_context=" in str(
        tls.failure(error, HOST)
    )


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "wants one; pass tls_certificate=, or a tls_context="),
        ("TLSV1_ALERT_UNKNOWN_CA", "did not accept our certificate"),
        ("PACKET_LENGTH_TOO_LONG", "not TLS"),
        ("DH_KEY_TOO_SMALL", "the handshake failed; pass a tls_context="),
        (None, "the handshake failed; pass a tls_context="),
    ],
)
def test_openssls_reason_decides_what_is_said(reason: str | None, said: str) -> None:
    error = ssl.SSLError(1, "handshake trouble")
    if reason is not None:
        error.reason = reason

    assert said in str(tls.failure(error, HOST))
    assert "handshake trouble" in str(tls.failure(error, HOST))
