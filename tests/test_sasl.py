"""Known answers, and passwords that stay unseen."""

import base64
import hmac
import pickle
import ssl
import traceback
from collections.abc import Callable

import pytest
from leaks import told

from aiosmtpclient import negotiation, sasl, scram
from aiosmtpclient.sasl import Credentials, Mechanism
from aiosmtpclient.secret import Secret
from aiosmtpclient.testing import CertificateAuthority

PASSWORD = "correct horse battery staple"


def responses(mechanism: Mechanism, *challenges: bytes) -> list[bytes | None]:
    """The initial response and the one to each challenge."""
    return [next(mechanism), *(mechanism.send(challenge) for challenge in challenges)]


def everything_told(error: BaseException) -> str:
    told = traceback.TracebackException.from_exception(error, capture_locals=True)
    return "".join(told.format())


def refuse_md5(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(key: bytes, message: bytes, digest: str) -> None:
        raise ValueError(f"[digital envelope routines] unsupported: {digest}")

    monkeypatch.setattr(hmac, "new", refuse)


# -- credentials


def test_credentials_show_no_password() -> None:
    credentials = Credentials("kurt", PASSWORD, "ursel")

    assert repr(credentials) == ("Credentials(user='kurt', password=Secret(***), authorization_id='ursel')")
    assert PASSWORD not in str(credentials)
    assert PASSWORD not in repr(credentials._asdict())


def test_credentials_are_never_pickled_in_clear() -> None:
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(Credentials("kurt", PASSWORD))


def test_credentials_are_values() -> None:
    assert Credentials("kurt", PASSWORD) == Credentials("kurt", Secret(PASSWORD), "")
    assert len({Credentials("kurt", PASSWORD), Credentials("kurt", PASSWORD)}) == 1
    with pytest.raises(AttributeError):
        Credentials("kurt", PASSWORD).user = "ursel"  # type: ignore[misc]


@pytest.mark.parametrize("bad", ["a\0b", "\0", "a\ud800b", "\udcff"])
@pytest.mark.parametrize("field", ["user", "password", "authorization_id"])
def test_nul_and_lone_surrogates_are_refused_when_the_credentials_are_made(field: str, bad: str) -> None:
    values = {"user": "kurt", "password": "x", "authorization_id": ""} | {field: bad}

    with pytest.raises(ValueError, match=field) as caught:
        Credentials(**values)

    assert not isinstance(caught.value, UnicodeError)


@pytest.mark.parametrize("field", ["user", "password", "authorization_id"])
def test_octets_are_not_text(field: str) -> None:
    values = {"user": "kurt", "password": "x", "authorization_id": ""} | {field: b"octets"}

    with pytest.raises(TypeError, match=f"{field} must be a str"):
        Credentials(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize("spoil", [lambda text: text + "\0", lambda text: text + "\ud800", str.encode])
def test_a_refused_password_is_in_no_traceback_with_locals(spoil: Callable[[str], str]) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        Credentials("kurt", spoil(PASSWORD))

    assert PASSWORD not in everything_told(caught.value)
    assert PASSWORD not in everything_told_about_the_chain(caught.value)


def everything_told_about_the_chain(error: BaseException) -> str:
    """Error reporters follow what Python itself suppresses."""
    told = ""
    while (cause := error.__cause__ or error.__context__) is not None:
        told, error = told + everything_told(cause), cause
    return told


# -- PLAIN


def test_plain_gives_the_example_of_rfc_4616_with_an_authorization_identity() -> None:
    mechanism = sasl.plain(Credentials("Kurt", "xipj3plmq", "Ursel"))

    assert responses(mechanism) == [b"Ursel\0Kurt\0xipj3plmq"]


def test_plain_gives_the_example_of_rfc_4616_without_one() -> None:
    assert responses(sasl.plain(Credentials("tim", "tanstaaftanstaaf"))) == [b"\0tim\0tanstaaftanstaaf"]


def test_a_challenge_after_plain_is_one_too_many() -> None:
    mechanism = sasl.plain(Credentials("tim", "x"))
    next(mechanism)

    with pytest.raises(StopIteration):
        mechanism.send(b"more?")


def test_passwords_travel_as_utf8() -> None:
    credentials = Credentials("jörg", "пароль€")

    assert responses(sasl.plain(credentials)) == ["\0jörg\0пароль€".encode()]
    assert responses(sasl.login(credentials), b"?") == ["jörg".encode(), "пароль€".encode()]


# -- LOGIN


@pytest.mark.parametrize("prompt", [b"Password:", b"Username:", b"", b"\xff"])
def test_login_gives_the_user_then_the_password_whatever_the_prompt(prompt: bytes) -> None:
    assert responses(sasl.login(Credentials("kurt", "x")), prompt) == [b"kurt", b"x"]


def test_login_with_an_empty_user() -> None:
    assert responses(sasl.login(Credentials("", "x")), b"") == [b"", b"x"]


def test_a_third_prompt_of_login_is_one_too_many() -> None:
    mechanism = sasl.login(Credentials("kurt", "x"))
    responses(mechanism, b"")

    with pytest.raises(StopIteration):
        mechanism.send(b"")


# -- CRAM-MD5


def test_cram_md5_gives_the_example_of_rfc_2195() -> None:
    mechanism = sasl.cram_md5(Credentials("tim", "tanstaaftanstaaf"))

    assert responses(mechanism, b"<1896.697170952@postoffice.reston.mci.net>") == [
        None,
        b"tim b913a602c7eda7a495b4e6e7334d3890",
    ]


def test_cram_md5_signs_with_a_password_in_utf8() -> None:
    mechanism = sasl.cram_md5(Credentials("jörg", "пароль"))
    digest = hmac.new("пароль".encode(), b"<1@x>", "md5").hexdigest()

    assert responses(mechanism, b"<1@x>") == [None, f"jörg {digest}".encode()]


def test_a_second_challenge_of_cram_md5_is_one_too_many() -> None:
    mechanism = sasl.cram_md5(Credentials("tim", "x"))
    responses(mechanism, b"<1@x>")

    with pytest.raises(StopIteration):
        mechanism.send(b"<2@x>")


def test_in_fips_mode_cram_md5_fails_without_showing_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    mechanism = sasl.cram_md5(Credentials("tim", PASSWORD))
    next(mechanism)
    refuse_md5(monkeypatch)

    words = r"^CRAM-MD5 needs MD5, which this Python refuses \(FIPS mode\)$"
    with pytest.raises(ValueError, match=words) as caught:
        mechanism.send(b"<1@x>")

    assert caught.value.__context__ is None
    assert PASSWORD not in everything_told(caught.value)


@pytest.mark.parametrize("name", [name for name in sasl.MECHANISMS if name != "GSSAPI"])
def test_a_caller_who_throws_into_a_mechanism_sees_no_password(name: str) -> None:
    peer = sasl.Peer(channel=sasl.Channel(unique=b"twelve octet"))
    mechanism = sasl.MECHANISMS[name](Credentials("tim", "tanstaaftanstaaf"), peer)
    next(mechanism)

    with pytest.raises(RuntimeError) as caught:
        mechanism.throw(RuntimeError())

    assert "tanstaaftanstaaf" not in told(caught.value)


@pytest.mark.parametrize("name", ["LOGIN", "CRAM-MD5", "ANONYMOUS", "NTLM", "SCRAM-SHA-256"])
def test_nobody_is_logged_in_as_another_by_a_mechanism_that_cannot_say_so(name: str) -> None:
    words = f"^{name} cannot carry an authorization identity( here)?(; PLAIN can)?$"
    with pytest.raises(ValueError, match=words):
        next(sasl.MECHANISMS[name](Credentials("kurt", "x", "ursel")))


# -- EXTERNAL and ANONYMOUS


def test_external_says_whom_to_act_as_or_nothing() -> None:
    assert responses(sasl.external(Credentials("", ""))) == [b""]
    assert responses(sasl.external(Credentials("kurt", ""))) == [b"kurt"]
    assert responses(sasl.external(Credentials("kurt", "", "ursel"))) == [b"ursel"]


def test_anonymous_leaves_a_trace_as_in_rfc_4505() -> None:
    assert responses(sasl.anonymous(Credentials("sirhc", ""))) == [b"sirhc"]


@pytest.mark.parametrize("factory", [sasl.external, sasl.anonymous])
def test_a_challenge_after_that_is_one_too_many(factory: sasl.MechanismFactory) -> None:
    mechanism = factory(Credentials("kurt", ""), sasl.Peer())
    next(mechanism)

    with pytest.raises(StopIteration):
        mechanism.send(b"")


# -- choosing


EVERYTHING = list(reversed(sasl.MECHANISMS))
UNIQUE = sasl.Channel(unique=b"twelve octet", certificate=None)


def test_the_strongest_comes_first_as_in_smtplib() -> None:
    assert sasl.choose(["LOGIN", "PLAIN", "GSSAPI", "CRAM-MD5"]) == ["CRAM-MD5", "PLAIN", "LOGIN"]


def test_by_itself_one_scram_is_tried_with_a_binding_and_one_without() -> None:
    """A wrong password tried with each of them would lock the account."""
    assert sasl.choose(EVERYTHING, channel=UNIQUE) == [
        "SCRAM-SHA-512-PLUS",
        "SCRAM-SHA-512",
        "CRAM-MD5",
        "PLAIN",
        "LOGIN",
    ]
    assert sasl.choose(["SCRAM-SHA-1", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256"], channel=UNIQUE) == [
        "SCRAM-SHA-1-PLUS",
        "SCRAM-SHA-256",
    ]


def test_without_tls_nothing_is_bound() -> None:
    assert sasl.choose(EVERYTHING)[0] == "SCRAM-SHA-512"
    assert sasl.choose(EVERYTHING, ["SCRAM-SHA-1-PLUS"]) == []
    advice = "; the -PLUS mechanisms need TLS, and a certificate to bind to"
    assert sasl.advice(EVERYTHING, ["SCRAM-SHA-1-PLUS"], token=False, channel=None) == advice
    assert (
        sasl.advice(EVERYTHING, ["scram-sha-1-plus"], token=False, channel=sasl.Channel(None, None)) == advice
    )
    assert sasl.advice(EVERYTHING, ["SCRAM-SHA-1-PLUS"], token=False, channel=UNIQUE) == ""
    assert sasl.advice(EVERYTHING, ["SCRAM-SHA-1"], token=False, channel=None) == ""
    assert sasl.advice(["PLAIN"], ["SCRAM-SHA-1-PLUS"], token=False, channel=None) == ""


def test_a_binding_that_few_servers_know_is_used_where_it_is_asked_for() -> None:
    """In TLS 1.3 servers want tls-exporter, which Python does not give."""
    channel = sasl.Channel(
        unique=None, certificate=ssl.PEM_cert_to_DER_cert(CertificateAuthority().ca_pem.decode())
    )

    assert sasl.choose(EVERYTHING, channel=channel)[0] == "SCRAM-SHA-512"
    assert sasl.choose(EVERYTHING, ["SCRAM-SHA-256-PLUS"], channel=channel) == ["SCRAM-SHA-256-PLUS"]
    assert sasl.choose(["SCRAM-SHA-1-PLUS"], channel=channel) == ["SCRAM-SHA-1-PLUS"]


def test_a_password_that_saslprep_forbids_goes_another_way() -> None:
    odd = Credentials("kurt", "\U0001f511")

    assert sasl.choose(["SCRAM-SHA-256", "PLAIN"], credentials=odd) == ["PLAIN"]
    assert sasl.choose(["SCRAM-SHA-256"], ["SCRAM-SHA-256"], credentials=odd) == ["SCRAM-SHA-256"]


def test_a_token_is_used_where_a_token_is_given_and_only_there() -> None:
    me = Credentials("me", "")

    assert sasl.choose(EVERYTHING, credentials=me, token=True) == ["OAUTHBEARER"]
    assert sasl.choose(["XOAUTH2", "PLAIN"], credentials=me, token=True) == ["XOAUTH2"]
    assert sasl.choose(["XOAUTH2", "OAUTHBEARER"], credentials=me) == []
    assert sasl.choose(["XOAUTH2"], ["XOAUTH2"], credentials=me) == []


def test_without_a_user_name_there_is_no_xoauth2() -> None:
    assert sasl.choose(["XOAUTH2"], credentials=Credentials("", ""), token=True) == []
    assert sasl.choose(["OAUTHBEARER"], credentials=Credentials("", ""), token=True) == ["OAUTHBEARER"]


def test_with_a_token_a_password_is_sent_only_if_there_is_one_and_it_is_asked_for() -> None:
    wanted = ["PLAIN", "XOAUTH2"]

    assert sasl.choose(EVERYTHING, wanted, credentials=Credentials("me", ""), token=True) == ["XOAUTH2"]
    assert sasl.choose(EVERYTHING, wanted, credentials=Credentials("me", "x"), token=True) == wanted


@pytest.mark.parametrize("name", ["EXTERNAL", "ANONYMOUS", "NTLM"])
def test_some_are_used_only_if_they_are_named(name: str) -> None:
    assert sasl.choose([name], credentials=Credentials("me", "x")) == []
    advice = f"; {name} is used only if it is named, in mechanisms="
    assert sasl.advice(["X-OTHER", name], None, token=False, channel=None) == advice
    assert sasl.choose([name], [name], credentials=Credentials("me", "x")) == [name]


def test_what_needs_a_missing_library_is_passed_over_unless_it_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scram, "available", lambda: False)

    assert sasl.choose(["SCRAM-SHA-256", "PLAIN"]) == ["PLAIN"]
    advice = '; for SCRAM-SHA-256: pip install "aiosmtpclient[scram]"'
    assert sasl.advice(["X-OTHER", "SCRAM-SHA-256"], None, token=False, channel=None) == advice
    no_token = "; none of these takes an access token"
    assert sasl.advice(["SCRAM-SHA-256"], None, token=True, channel=None) == no_token
    assert sasl.advice(["X-OTHER"], None, token=True, channel=None) == ""
    with pytest.raises(ValueError, match=r"aiosmtpclient\[scram\]"):
        sasl.choose(["SCRAM-SHA-256", "PLAIN"], ["SCRAM-SHA-256", "PLAIN"])
    assert sasl.choose(["PLAIN"], ["SCRAM-SHA-256", "PLAIN"]) == ["PLAIN"]


def test_kerberos_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(negotiation, "kerberos_available", lambda: False)

    with pytest.raises(ValueError, match=r"aiosmtpclient\[spnego\].*pyspnego\[kerberos\]"):
        sasl.choose(["GSSAPI"], ["GSSAPI"])


def test_a_server_that_takes_tokens_says_so_in_the_advice() -> None:
    advice = "; it takes access tokens: pass token="
    assert sasl.advice(["XOAUTH2"], None, token=False, channel=None) == advice
    assert sasl.advice(["X-OTHER", "OAUTHBEARER"], None, token=False, channel=None) == advice
    assert sasl.advice(["XOAUTH2"], None, token=True, channel=None) == ""
    assert sasl.advice(["DIGEST-MD5"], None, token=False, channel=None) == ""


def test_no_library_is_to_be_installed_for_what_would_not_be_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(negotiation, "available", lambda: False)

    advice = "; NTLM is used only if it is named, in mechanisms="
    assert sasl.advice(["NTLM"], None, token=False, channel=None) == advice
    refuse_md5(monkeypatch)
    assert sasl.advice(["CRAM-MD5"], None, token=False, channel=None) == ""


def test_a_library_that_is_there_is_not_to_be_installed() -> None:
    assert sasl.advice(["SCRAM-SHA-256"], None, token=False, channel=None) == ""


def test_only_what_is_offered_is_tried() -> None:
    assert sasl.choose(["LOGIN"]) == ["LOGIN"]
    assert sasl.choose(["GSSAPI"]) == []
    assert sasl.choose([]) == []


def test_the_callers_order_counts() -> None:
    offered = ["CRAM-MD5", "PLAIN", "LOGIN"]

    assert sasl.choose(offered, ["login", "PLAIN", "LOGIN"]) == ["LOGIN", "PLAIN"]
    assert sasl.choose(["PLAIN"], ["LOGIN", "PLAIN"]) == ["PLAIN"]
    assert sasl.choose(offered, []) == []


def test_a_mechanism_that_we_do_not_speak_is_an_error_not_a_silent_gap() -> None:
    with pytest.raises(ValueError, match=r"unknown mechanism 'DIGEST-MD5'; we speak GSSAPI, SCRAM"):
        sasl.choose(["DIGEST-MD5"], ["DIGEST-MD5", "PLAIN"])


def test_a_string_of_mechanisms_is_not_taken_for_one_a_letter() -> None:
    with pytest.raises(ValueError, match="pass a list"):
        sasl.choose(["PLAIN"], "PLAIN")


def test_an_authorization_identity_leaves_only_what_can_carry_it() -> None:
    other = Credentials("kurt", "x", "ursel")

    assert sasl.choose(["SCRAM-SHA-256", "CRAM-MD5", "PLAIN", "LOGIN"], credentials=other) == ["PLAIN"]
    assert sasl.choose(["LOGIN"], ["LOGIN"], credentials=other) == []
    assert sasl.choose(EVERYTHING, credentials=other, token=True) == ["OAUTHBEARER"]


@pytest.mark.parametrize("wanted", [None, ["SCRAM-SHA-256"], ["LOGIN", "SCRAM-SHA-256"]])
def test_the_advice_says_who_cannot_say_on_whose_behalf_and_who_can(wanted: list[str] | None) -> None:
    offered = ["SCRAM-SHA-256", "LOGIN"]
    said = sasl.advice(
        offered, wanted, credentials=Credentials("kurt", "x", "ursel"), token=False, channel=None
    )

    first = (wanted or offered)[0]
    assert said == (
        f"; {first} cannot carry an authorization identity (authorization_id=): "
        "GSSAPI, PLAIN, OAUTHBEARER, EXTERNAL can"
    )


def test_in_fips_mode_cram_md5_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sasl.available("CRAM-MD5")

    refuse_md5(monkeypatch)

    assert not sasl.available("CRAM-MD5")
    assert sasl.choose(["CRAM-MD5", "PLAIN"]) == ["PLAIN"]


def test_available_knows_the_others() -> None:
    assert sasl.available("PLAIN")
    assert not sasl.available("DIGEST-MD5")
    assert {name for name in sasl.MECHANISMS if not sasl.available(name)} <= {"GSSAPI"}


def test_prompts_are_what_plain_and_login_get() -> None:
    assert {"PLAIN", "LOGIN"} == sasl.PROMPT_ONLY


# -- masking


def test_every_form_of_the_password_on_the_wire_is_known_for_masking() -> None:
    credentials = Credentials("Kurt", "xipj3plmqé", "Ursel")
    secrets = sasl.secrets_of(credentials)

    assert "xipj3plmqé".encode() in secrets
    for response in (*responses(sasl.plain(credentials)), "xipj3plmqé".encode()):
        assert response is not None
        assert base64.b64encode(response) in secrets


def test_an_empty_password_masks_nothing() -> None:
    assert sasl.secrets_of(Credentials("kurt", "")) == ()
