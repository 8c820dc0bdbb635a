"""Configuration by URL and environment: what each says, and that no mistake in one shows a password."""

from __future__ import annotations

import inspect
import itertools
from pathlib import Path
from urllib.parse import quote

import pytest
from leaks import told

from aiosmtpclient import AsyncLMTP, AsyncSMTP, SMTPPool, Timeouts, TLSPolicy
from aiosmtpclient.secret import Secret
from aiosmtpclient.testing import CertificateAuthority, MailServer
from aiosmtpclient.urls import OPTIONS, POOL_OPTIONS, read, read_proxy

PASSWORD = "corréct: horse/battery?st#ple@%+&="
ENCODED = quote(PASSWORD, safe="")
TELLING = ("horse", "battery", "st#ple", "ple@", ENCODED)
"""Pieces of the password, as a parser that went wrong would show them."""

AUTHORITY = CertificateAuthority()


def policy(url: str, **options: object) -> TLSPolicy:
    kind = AsyncLMTP if url.startswith("lmtp") else AsyncSMTP
    return kind.from_url(url, **options)._settings.policy


# -- the server ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("smtp://mail.example.org", "mail.example.org", 25),
        ("smtp://mail.example.org:2525", "mail.example.org", 2525),
        ("SMTP://mail.example.org:/", "mail.example.org", 25),
        ("smtps://mail.example.org", "mail.example.org", 465),
        ("submission://mail.example.org", "mail.example.org", 587),
        ("submission://mail.example.org:2587?", "mail.example.org", 2587),
        ("lmtp://192.0.2.1", "192.0.2.1", 2003),
        ("lmtp+unix:///run/dovecot/lmtp", "/run/dovecot/lmtp", 0),
        ("lmtp+unix:///run/with%20space", "/run/with space", 0),
        ("lmtp+unix:///s", "/s", 0),
        ("smtp://[::1]", "::1", 25),
        ("smtp://[2001:db8::1]:26", "2001:db8::1", 26),
        ("smtp://[fe80::1%25eth0]", "fe80::1%eth0", 25),
        ("smtp://mail.example.org:1", "mail.example.org", 1),
        ("smtp://mail.example.org:65535", "mail.example.org", 65535),
        ("smtp://b%C3%BCcher.example", "bücher.example", 25),
        ("smtp://bücher.example", "bücher.example", 25),
    ],
)
def test_a_url_names_a_server(url: str, host: str, port: int) -> None:
    target = read(Secret(url))

    assert (target.host, target.port) == (host, port)
    assert target.options == {}


@pytest.mark.parametrize("url", ["lmtp+unix:///run/with%20space", "lmtp+unix://u:p@/run/lmtp"])
def test_a_unix_socket_is_local_and_needs_no_tls(url: str) -> None:
    client = AsyncLMTP.from_url(url)

    assert client._settings.endpoint.unix
    assert client._settings.policy is TLSPolicy.NONE


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "not a URL of a mail server"),
        ("mail.example.org", "not a URL of a mail server"),
        ("mail.example.org:25", "not a URL of a mail server"),
        ("http://mail.example.org", "smtp://, smtps://, submission://, lmtp://, lmtp"),
        ("smtp:mail.example.org", "not a URL of a mail server"),
        ("smtp://mail.example.org\n", "not a URL of a mail server"),
        ("smtp://mail.example.org#top", "percent-encoded"),
        ("smtp://", "names no host"),
        ("smtp:///", "names no host"),
        ("smtp://:25", "names no host"),
        ("smtp://u:p@", "names no host"),
        ("smtp://::1", "IPv6 address needs brackets"),
        ("smtp://[mail.example.org]", "IPv6 address needs brackets"),
        ("smtp://[::1", "IPv6 address needs brackets"),
        ("smtp://[::1]x", "IPv6 address needs brackets"),
        ("smtp://mail%2Fexample", "names no host"),
        ("smtp://mail%ff", "names no host"),
        ("smtp://mail.example.org:smtp", "from 1 to 65535"),
        ("smtp://mail.example.org:0", "from 1 to 65535"),
        ("smtp://mail.example.org:65536", "from 1 to 65535"),
        ("smtp://mail.example.org:٢٥", "from 1 to 65535"),
        ("smtp://mail.example.org/INBOX", "nothing may stand behind host and port"),
        ("lmtp+unix://host/run/lmtp", "three slashes"),
        ("lmtp+unix://", "needs the path"),
        ("lmtp+unix:///", "needs the path"),
        ("lmtp+unix:///%00run", "needs the path"),
        ("lmtp+unix:///run%", "the path in the URL is not percent-encoded"),
    ],
)
def test_what_names_no_server_is_told_why(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read(Secret(url))


FORM = (
    "a URL looks like smtp://user:password@host:port/?option=value; in user, password and values write "
    "anything but letters, digits and -._~ as percent-encoded UTF-8, as %40 for @"
)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        (
            "http://h",
            "not a URL of a mail server, which begins with one of smtp://, smtps://, submission://, lmtp://, "
            f"lmtp+unix://; {FORM}",
        ),
        ("smtp://h/x", f"nothing may stand behind host and port but options; {FORM}"),
        (
            "smtp://::1",
            f"the URL names no host that could be one (an IPv6 address needs brackets); {FORM}",
        ),
        ("smtp://h:0", f"the port in the URL must be a number from 1 to 65535; {FORM}"),
        (
            "lmtp+unix://h/x",
            "lmtp+unix:// takes no host: three slashes stand before the path of the socket",
        ),
        (
            "lmtp+unix:///",
            "lmtp+unix:// needs the path of a socket, as in lmtp+unix:///run/dovecot/lmtp",
        ),
        ("smtp://%zz@h", "the user in the URL is not percent-encoded UTF-8: write a % as %25"),
        ("smtp://u:%zz@h", "the password in the URL is not percent-encoded UTF-8: write a % as %25"),
        ("lmtp+unix:///%zz", "the path in the URL is not percent-encoded UTF-8: write a % as %25"),
    ],
)
def test_an_error_says_how_such_a_url_looks(url: str, why: str) -> None:
    with pytest.raises(ValueError) as caught:
        read(Secret(url))
    assert str(caught.value) == why


@pytest.mark.parametrize("character", [*' \t"<>@:/\\?#[]%', "\x7f", "\u2028", "\u3000"])
def test_a_host_has_none_of_the_characters_that_part_a_url(character: str) -> None:
    with pytest.raises(ValueError, match="names no host"):
        read(Secret(f"smtp://a{quote(character, safe='')}b"))


def test_a_url_is_text() -> None:
    with pytest.raises(ValueError, match="not a URL"):
        AsyncSMTP.from_url(b"smtp://mail.example.org")  # type: ignore[arg-type]


def test_the_scheme_must_fit_the_class() -> None:
    with pytest.raises(ValueError, match=r"lmtp:// is for AsyncLMTP\.from_url, not for AsyncSMTP"):
        AsyncSMTP.from_url("lmtp://mail.example.org")
    with pytest.raises(ValueError, match=r"smtps:// is for AsyncSMTP\.from_url, not for AsyncLMTP"):
        AsyncLMTP.from_url("smtps://mail.example.org")


# -- TLS -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("smtp://mail.example.org", TLSPolicy.OPPORTUNISTIC),
        ("smtp://localhost", TLSPolicy.NONE),
        ("smtp://mail.example.org:465", TLSPolicy.IMPLICIT),
        ("smtp://u:p@mail.example.org", TLSPolicy.STARTTLS),
        ("smtp://u:p@localhost", TLSPolicy.STARTTLS),
        ("smtp://u:p@mail.example.org:465", TLSPolicy.IMPLICIT),
        ("smtp://u:p@mail.example.org?tls=opportunistic", TLSPolicy.OPPORTUNISTIC),
        ("smtp://u:p@mail.example.org?tls=none", TLSPolicy.NONE),
        ("smtp://mail.example.org?tls=required", TLSPolicy.STARTTLS),
        ("smtp://mail.example.org:465?tls=required", TLSPolicy.IMPLICIT),
        ("smtp://:@mail.example.org", TLSPolicy.OPPORTUNISTIC),
        ("smtps://localhost:2465", TLSPolicy.IMPLICIT),
        ("smtps://u:p@mail.example.org?tls=required", TLSPolicy.IMPLICIT),
        ("submission://localhost:2587", TLSPolicy.STARTTLS),
        ("submission://mail.example.org?tls=none", TLSPolicy.NONE),
        ("lmtp://u:p@mail.example.org", TLSPolicy.STARTTLS),
        ("lmtp://localhost", TLSPolicy.NONE),
        ("lmtp+unix://u:p@/run/lmtp?tls=required", TLSPolicy.STARTTLS),
    ],
)
def test_with_credentials_tls_is_required_unless_the_url_says_otherwise(url: str, wanted: TLSPolicy) -> None:
    assert policy(url) is wanted


@pytest.mark.parametrize(
    "options",
    [
        {"username": "u", "password": "p"},
        {"token": "t", "username": "u"},
        {"token": "t"},
        {"mechanisms": ["EXTERNAL"]},
    ],
    ids=str,
)
def test_credentials_given_in_code_require_tls_as_well(options: dict[str, object]) -> None:
    assert policy("smtp://mail.example.org", **options) is TLSPolicy.STARTTLS
    assert policy("smtp://mail.example.org", **options, tls=None) is TLSPolicy.STARTTLS
    assert policy("smtp://mail.example.org?tls=required", **options, tls="none") is TLSPolicy.NONE


@pytest.mark.parametrize("tls", ["none", "opportunistic"])
def test_smtps_without_tls_is_a_contradiction(tls: str) -> None:
    with pytest.raises(
        ValueError, match=r"^smtps:// is TLS from the first octet: the URL's tls= can only be"
    ):
        AsyncSMTP.from_url(f"smtps://mail.example.org?tls={tls}")


# -- credentials -----------------------------------------------------------------------------------


def test_user_and_password_are_percent_encoded() -> None:
    user = "mé@example.org:x"

    credentials = AsyncSMTP.from_url(f"smtps://{quote(user)}:{ENCODED}@mail.example.org")._plan.credentials

    assert credentials is not None
    assert (credentials.user, credentials.password) == (user, Secret(PASSWORD))


def test_an_address_as_user_may_keep_its_at_sign() -> None:
    options = read(Secret("smtp://me@example.org:a:b@mail.example.org")).options

    assert options == {"username": "me@example.org", "password": Secret("a:b")}


@pytest.mark.parametrize("url", ["smtp://@h", "smtp://:@h", "smtp://:p@h", "smtp://h"])
def test_an_empty_user_means_no_login(url: str) -> None:
    assert AsyncSMTP.from_url(url)._plan.credentials is None


def test_an_empty_user_in_code_means_no_login() -> None:
    assert AsyncSMTP.from_url("smtp://u:p@h", username="")._plan.credentials is None


@pytest.mark.parametrize("url", ["smtp://u@h", "smtp://u:@h"])
def test_a_forgotten_password_is_an_error(url: str) -> None:
    with pytest.raises(ValueError, match="a username needs a password, or a token"):
        AsyncSMTP.from_url(url)
    assert AsyncSMTP.from_url(url, password="p")._plan.credentials is not None
    assert AsyncSMTP.from_url(url, token="t")._plan.credentials is not None


@pytest.mark.parametrize("part", ["user", "password"])
@pytest.mark.parametrize("text", ["100%", "%zz", "%f", "%ff"])
def test_a_broken_escape_is_not_taken_for_a_percent_sign(part: str, text: str) -> None:
    url = f"smtp://{text}:p@h" if part == "user" else f"smtp://u:{text}@h"
    with pytest.raises(ValueError, match=f"the {part} in the URL is not percent-encoded UTF-8"):
        read(Secret(url))


WRONG = [
    f"smtp://user:{PASSWORD}@mail.example.org",
    f"smtp://user:{PASSWORD.replace('@', '')}@mail.example.org",
    "smtp://user:horsebattery",
    f"http://user:{ENCODED}@mail.example.org",
    f"smtp://user:{ENCODED}@mail.example.org:port",
    f"smtp://user:{ENCODED}@",
    f"smtp://user:{ENCODED}@mail.example.org/path",
    f"smtp://user:{ENCODED}@mail.example.org?unknown=1",
    f"smtp://user:{ENCODED}@mail.example.org?timeout=horse",
    f"smtp://user:{ENCODED}@mail.example.org?timeout=0",
    f"smtp://user:{ENCODED}@mail.example.org?local_hostname=a%20b",
    f"smtp://user:{ENCODED}@mail.example.org?horse/battery",
    f"smtp://user:{ENCODED}@mail.example.org?tls=none&tls=none",
    f"smtps://user:{ENCODED}@mail.example.org?tls=none",
    f"smtp://user:{ENCODED}%@mail.example.org",
    f"smtp://user:{ENCODED}%ff@mail.example.org",
    f"smtp://user:{ENCODED}%00@mail.example.org",
    "smtp://user:horse battery@mail.example.org",
    f"lmtp+unix://user:{ENCODED}@host/path",
    f"lmtp+unix://user:{ENCODED}@",
]


@pytest.mark.parametrize("url", WRONG)
@pytest.mark.parametrize("make", [AsyncSMTP.from_url, AsyncLMTP.from_url, SMTPPool.from_url])
def test_no_mistake_in_a_url_shows_the_password(make: type[AsyncSMTP], url: str) -> None:
    with pytest.raises(ValueError) as caught:
        make(url)

    assert not [piece for piece in TELLING if piece in told(caught.value)]


def test_nothing_made_of_a_url_shows_the_password() -> None:
    url = f"smtps://user:{ENCODED}@mail.example.org"

    for made in (read(Secret(url)), AsyncSMTP.from_url(url), SMTPPool.from_url(url)):
        assert "mail.example.org" in repr(made)
        assert not [piece for piece in TELLING if piece in repr(made) + repr(getattr(made, "__dict__", ""))]


# -- options ---------------------------------------------------------------------------------------


def test_options_of_a_url_are_arguments() -> None:
    client = AsyncSMTP.from_url(
        "smtp://mail.example.org?timeout=2.5&pipelining=off&chunking=eager&local_hostname=me.example"
        "&server_hostname=other.example&source_address=[::1]:25&mechanisms=PLAIN,LOGIN&&tls=required"
    )

    assert client.timeout == Timeouts(2.5, 2.5, 2.5, 2.5)
    assert (client._pipelining, client._chunking) == ("off", "eager")
    assert client.local_hostname == "me.example"
    assert client._settings.security.server_hostname == "other.example"
    assert client.source_address == ("::1", 25)
    assert client._plan.mechanisms == ("PLAIN", "LOGIN")


def test_options_of_a_pools_url_are_arguments() -> None:
    pool = SMTPPool.from_url(
        "lmtp://localhost?max_connections=3&max_messages=none&max_age=5&max_idle=none&check_after=1.5"
        "&max_waiting=7&acquire_timeout=none&rate_limit=0.5&retries=4&timeout=none"
    )

    limits = pool._limits
    assert (limits.connections, limits.messages, limits.age) == (3, float("inf"), 5.0)
    assert (limits.idle, limits.check_after) == (float("inf"), 1.5)
    assert (pool._max_waiting, pool._acquire_timeout) == (7, None)
    assert pool._rate is not None
    assert pool._rate.rate == 0.5
    assert pool._retries.not_sent == 4
    assert "localhost:2003" in repr(pool)


def test_options_in_code_come_before_those_of_the_url() -> None:
    client = AsyncSMTP.from_url("smtp://h?timeout=1&pipelining=off", timeout=9, pipelining="message")
    pool = SMTPPool.from_url("smtp://h?max_connections=1", max_connections=8, retry_unknown=True)

    assert client.timeout == Timeouts.of(9)
    assert client._pipelining == "message"
    assert pool._limits.connections == 8


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("timeot=3", r"unknown option timeot=; known are tls, timeout"),
        ("Timeout=3", "unknown option Timeout="),
        ("username=u", "unknown option username="),
        ("password=p", "unknown option password="),
        ("allow_cleartext_auth=true", "unknown option allow_cleartext_auth="),
        ("=3", "unknown option; known are"),
        ("s3cret&", "unknown option; known are"),
        ("timeout", r"timeout= of the URL takes a number of seconds, or none"),
        ("timeout=", "timeout= of the URL takes a number of seconds"),
        ("timeout=-1", "timeout= of the URL takes a number of seconds"),
        ("timeout=nan", "timeout= of the URL takes a number of seconds"),
        ("timeout=1e3", "timeout= of the URL takes a number of seconds"),
        ("timeout=%zz", "timeout= of the URL takes a number of seconds"),
        ("timeout=1&timeout=2", "timeout= stands twice"),
        ("tls=starttls", "tls= of the URL takes one of required, opportunistic, none"),
        ("tls=Required", "tls= of the URL takes one of required, opportunistic, none"),
        ("pipelining=on", "pipelining= of the URL takes one of off, message, stream"),
        ("chunking=", "chunking= of the URL takes one of off, auto, eager"),
        ("mechanisms=PLAIN,", "mechanisms= of the URL takes names with commas"),
        ("source_address=a:b", "source_address= of the URL takes an address, or address:port"),
        ("server_hostname=", "server_hostname= of the URL takes some text"),
        ("max_connections=3", r"max_connections= is a pool's: use SMTPPool\.from_url"),
    ],
)
def test_a_wrong_option_is_named_with_what_it_takes(query: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        AsyncSMTP.from_url(f"smtp://mail.example.org?{query}")


SOME_TEXT, SECONDS = "some text", "a number of seconds, or none for any time"
WHOLE, WHOLE_OR_NONE = "a whole number", "a whole number, or none for any"


@pytest.mark.parametrize(
    ("option", "values", "wrong", "takes"),
    [
        (
            "tls",
            {"required": "required", "none": "none"},
            ["x", ""],
            "one of required, opportunistic, none",
        ),
        ("pipelining", {"off": "off", "stream": "stream"}, ["x", ""], "one of off, message, stream"),
        ("chunking", {"auto": "auto", "eager": "eager"}, ["on", ""], "one of off, auto, eager"),
        (
            "timeout",
            {"0": 0.0, "1.5": 1.5, "999999999.999999999": 999999999.999999999, "none": None},
            ["", "x", "1.", ".5", "-1", "1000000000"],
            SECONDS,
        ),
        ("local_hostname", {"a%20b": "a b"}, [""], SOME_TEXT),
        ("server_hostname", {"h": "h"}, [""], SOME_TEXT),
        (
            "source_address",
            {"192.0.2.1": ("192.0.2.1", 0), "h:25": ("h", 25), "[::1]:26": ("::1", 26)},
            ["::1", "h:x", "h:65536"],
            "an address, or address:port",
        ),
        ("tls_ca", {"/a/b": "/a/b"}, [""], "the path of a file or a directory"),
        (
            "tls_certificate",
            {"a": "a", "a,b": ("a", "b")},
            ["", "a,", ",b", "a,b,c"],
            "the path of a file, or two with a comma between them",
        ),
        (
            "tls_fingerprint",
            {"a": ("a",), "a,b,c": ("a", "b", "c")},
            ["", "a,"],
            "fingerprints with commas between them",
        ),
        ("mechanisms", {"A": ("A",), "A,B": ("A", "B")}, ["", ",A"], "names with commas between them"),
        (
            "proxy",
            {"http%3A%2F%2Fh%3A1": Secret("http://h:1")},
            [""],
            "the URL of a proxy, percent-encoded once more",
        ),
        ("max_connections", {"3": 3, "999999999": 999999999}, ["none", "", "1.5", "1000000000"], WHOLE),
        ("max_messages", {"3": 3, "none": None}, ["", "x"], WHOLE_OR_NONE),
        ("max_waiting", {"0": 0, "none": None}, ["", "x"], WHOLE_OR_NONE),
        ("max_age", {"3": 3.0, "none": None}, ["", "x"], SECONDS),
        ("max_idle", {"3": 3.0, "none": None}, ["", "x"], SECONDS),
        ("check_after", {"3": 3.0, "none": None}, ["", "x"], SECONDS),
        ("acquire_timeout", {"3": 3.0, "none": None}, ["", "x"], SECONDS),
        ("rate_limit", {"0.5": 0.5}, ["none", ""], "a number of messages a second"),
        ("retries", {"2": 2}, ["none", "-1"], WHOLE),
    ],
    ids=lambda value: value if isinstance(value, str) and "_" in value else "",
)
def test_what_each_option_takes(option: str, values: dict[str, object], wrong: list[str], takes: str) -> None:
    for text, value in values.items():
        target = read(Secret(f"smtp://h?{option}={text}"), pool=True)
        said = target.tls if option == "tls" else target.options[option]
        assert said == value
        assert type(said) is type(value)
    for text in wrong:
        with pytest.raises(ValueError) as caught:
            read(Secret(f"smtp://h?{option}={text}"), pool=True)
        assert str(caught.value) == f"the option {option}= of the URL takes {takes}"


def test_an_unknown_option_is_named_unless_it_may_be_part_of_a_password() -> None:
    known = ", ".join(OPTIONS)
    for query, words in {
        "x=1": f"the URL has an unknown option x=; known are {known}",
        "x" * 31 + "=1": f"the URL has an unknown option {'x' * 31}=; known are {known}",
        "x" * 32 + "=1": f"the URL has an unknown option; known are {known}",
        "s3cret=1": f"the URL has an unknown option; known are {known}",
        "retries=1": "the option retries= is a pool's: use SMTPPool.from_url, or leave it out of the URL",
        "tls=none&tls=none": "the option tls= stands twice in the URL",
    }.items():
        with pytest.raises(ValueError) as caught:
            read(Secret(f"smtp://h?{query}"))
        assert str(caught.value) == words


# -- a proxy ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("socks5://h:1080", ("socks5", "h", 1080, None, None)),
        ("SOCKS5H://h:1080/", ("socks5", "h", 1080, None, None)),
        ("socks4://192.0.2.1:1", ("socks4", "192.0.2.1", 1, None, None)),
        ("http://[::1]:3128", ("http", "::1", 3128, None, None)),
        ("http://u%40x:p%3A%2F@h:3128", ("http", "h", 3128, Secret("u@x"), Secret("p:/"))),
        ("http://u@h:3128", ("http", "h", 3128, Secret("u"), None)),
        ("http://:p@h:3128", ("http", "h", 3128, Secret(""), Secret("p"))),
    ],
)
def test_a_url_names_a_proxy(url: str, target: tuple[object, ...]) -> None:
    assert read_proxy(Secret(url)) == target


LIKE = (
    "the URL of a proxy looks like socks5://user:password@host:port; known are socks5://, socks5h://, "
    "socks4://, http://"
)
NEEDS = "the URL of a proxy needs a host and a port, as socks5://user:password@host:port"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("h:1080", LIKE),
        ("https://h:1080", LIKE),
        ("smtp://h:1080", LIKE),
        ("http://h:1080/x", LIKE),
        ("http://h:1080?x", LIKE),
        ("http://h", NEEDS),
        ("http://:1080", NEEDS),
        ("http://h:65536", NEEDS),
        ("http://%zz@h:1", "the user of the proxy in the URL is not percent-encoded UTF-8: write a % as %25"),
        (
            "http://u:%zz@h:1",
            "the password of the proxy in the URL is not percent-encoded UTF-8: write a % as %25",
        ),
    ],
)
def test_what_names_no_proxy_is_told_why(url: str, why: str) -> None:
    with pytest.raises(ValueError) as caught:
        read_proxy(Secret(url))
    assert str(caught.value) == why


# -- options and arguments -------------------------------------------------------------------------


def test_every_option_is_an_argument() -> None:
    of_clients = inspect.signature(AsyncSMTP).parameters
    of_pools = inspect.signature(SMTPPool).parameters

    assert [key for key in OPTIONS if key not in of_clients] == []
    assert [key for key in POOL_OPTIONS if key not in of_pools] == []


# -- the environment -------------------------------------------------------------------------------


def client_of(variables: dict[str, str], patch: pytest.MonkeyPatch, **options: object) -> AsyncSMTP:
    for name, value in variables.items():
        patch.setenv(name, value)
    return AsyncSMTP.from_env(**options)


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text(PASSWORD + "\n", "utf-8")
    return path


def test_a_url_and_its_password_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, password_file: Path
) -> None:
    variables = {"SMTP_URL": "smtps://user@mail.example.org", "SMTP_PASSWORD_FILE": str(password_file)}

    credentials = client_of(variables, monkeypatch)._plan.credentials

    assert credentials is not None
    assert credentials.password == Secret(PASSWORD)


@pytest.mark.parametrize(
    ("octets", "password"),
    [(b"a", "a"), (b"a\n", "a"), (b"a\r\n", "a"), (b" a \n\n", " a \n"), (b"\xc3\xa4\n", "ä")],
)
def test_only_the_last_line_end_of_a_password_file_is_not_the_password(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, octets: bytes, password: str
) -> None:
    (tmp_path / "file").write_bytes(octets)
    variables = {"SMTP_URL": "smtps://user@mail.example.org", "SMTP_PASSWORD_FILE": str(tmp_path / "file")}

    credentials = client_of(variables, monkeypatch)._plan.credentials

    assert credentials is not None
    assert credentials.password == Secret(password)


def test_a_password_in_a_variable_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"SMTP_URL": "smtps://user:@mail.example.org", "SMTP_PASSWORD": PASSWORD}

    credentials = client_of(variables, monkeypatch)._plan.credentials

    assert credentials is not None
    assert credentials.password == Secret(PASSWORD)


@pytest.mark.parametrize(
    ("url", "options", "password"),
    [
        ("smtps://user:own@h", {}, "own"),
        ("smtps://user@h", {"password": "given"}, "given"),
        ("smtps://user:own@h", {"password": "given"}, "given"),
        ("smtps://h", {"username": "user", "password": "given"}, "given"),
    ],
)
def test_a_password_file_is_not_even_looked_at_if_there_is_a_password(
    monkeypatch: pytest.MonkeyPatch, url: str, options: dict[str, str], password: str
) -> None:
    variables = {"SMTP_URL": url, "SMTP_PASSWORD_FILE": "/does/not/exist"}

    credentials = client_of(variables, monkeypatch, **options)._plan.credentials

    assert credentials is not None
    assert credentials.password == Secret(password)


def test_without_a_user_no_password_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"SMTP_URL": "smtp://h", "SMTP_PASSWORD_FILE": "/does/not/exist", "SMTP_PASSWORD": "p"}

    assert client_of(variables, monkeypatch)._plan.credentials is None


def test_the_password_for_one_server_does_not_go_to_another(
    monkeypatch: pytest.MonkeyPatch, password_file: Path
) -> None:
    monkeypatch.setenv("SMTP_PASSWORD", "for another server")
    monkeypatch.setenv("NEWS_URL", "smtps://user@news.example.org?max_connections=2")
    with pytest.raises(ValueError, match="needs a password"):
        SMTPPool.from_env("NEWS_URL")

    monkeypatch.setenv("NEWS_PASSWORD_FILE", str(password_file))
    assert "news.example.org:465" in repr(SMTPPool.from_env("NEWS_URL"))


@pytest.mark.parametrize("make", [AsyncSMTP.from_env, AsyncLMTP.from_env, SMTPPool.from_env])
@pytest.mark.parametrize("value", [None, ""])
def test_a_variable_that_is_not_set_is_named(
    monkeypatch: pytest.MonkeyPatch, make: type[AsyncSMTP], value: str | None
) -> None:
    monkeypatch.delenv("SMTP_URL", raising=False)
    if value is not None:
        monkeypatch.setenv("SMTP_URL", value)

    with pytest.raises(ValueError, match="the environment variable SMTP_URL is not set, or empty"):
        make()


@pytest.mark.parametrize(
    ("variables", "why"),
    [
        ({"SMTP_PASSWORD_FILE": "/does/not/exist"}, "that SMTP_PASSWORD_FILE names cannot be read: No such"),
        ({"SMTP_PASSWORD_FILE": "x", "SMTP_PASSWORD": PASSWORD}, "both SMTP_PASSWORD and SMTP_PASSWORD_FILE"),
        ({"SMTP_PASSWORD_FILE": "{latin}"}, "cannot be read: not UTF-8"),
    ],
)
def test_a_password_that_cannot_be_had_is_explained_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variables: dict[str, str], why: str
) -> None:
    latin = tmp_path / "latin"
    latin.write_bytes(PASSWORD.encode("latin-1"))
    named = {name: value.replace("{latin}", str(latin)) for name, value in variables.items()}

    with pytest.raises(ValueError, match=why) as caught:
        client_of({"SMTP_URL": "smtps://user@h", **named}, monkeypatch)

    assert not [piece for piece in TELLING if piece in told(caught.value)]


# -- and mail is sent ------------------------------------------------------------------------------


@pytest.mark.each_loop
async def test_a_client_and_a_pool_of_a_url_send_mail() -> None:
    tls = AUTHORITY.server_context()
    trusting = AUTHORITY.client_context()
    async with MailServer(starttls=tls, users={"me@x": PASSWORD}, require_auth=True) as server:
        url = f"submission://me%40x:{ENCODED}@localhost:{server.port}?timeout=20"
        async with AsyncSMTP.from_url(url, tls_context=trusting) as smtp:
            await smtp.sendmail("a@b.test", "c@d.test", b"")
        async with SMTPPool.from_url(url + "&max_connections=1", tls_context=trusting) as pool:
            await pool.sendmail("a@b.test", "c@d.test", b"")
        assert len(server.messages) == 2
        assert all(message.tls for message in server.messages)


@pytest.mark.each_loop
async def test_a_unix_socket_of_a_url_takes_mail(tmp_path: Path) -> None:
    async with MailServer(lmtp=True, unix_path=tmp_path / "a socket") as server:
        url = f"lmtp+unix://{quote(str(server.unix_path))}"
        async with AsyncLMTP.from_url(url) as lmtp:
            await lmtp.sendmail("a@b.test", "c@d.test", b"")
        async with SMTPPool.from_url(url) as pool:
            await pool.sendmail("a@b.test", "c@d.test", b"")
        assert len(server.messages) == 2


def test_all_that_a_url_may_say_is_in_the_docs() -> None:
    page = (Path(__file__).parent.parent / "docs" / "configuration.md").read_text("utf-8")

    assert [key for key in itertools.chain(OPTIONS, POOL_OPTIONS) if f"| `{key}=` |" not in page] == []
