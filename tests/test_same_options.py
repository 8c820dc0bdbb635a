"""What `AsyncSMTP` can do, everybody can: the same options in every class, in URLs and on the command line.

Each keyword of `AsyncSMTP` is accepted everywhere, or stands in a table here with the reason. An
entry that is not needed any more fails too.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from aiosmtpclient import LMTP, SMTP, SMTP_SSL, AsyncLMTP, AsyncSMTP, SMTPPool, send, urls
from aiosmtpclient.__main__ import parser
from aiosmtpclient.client import Options

KEYWORDS = [
    name
    for name, one in inspect.signature(AsyncSMTP).parameters.items()
    if one.kind is inspect.Parameter.KEYWORD_ONLY
]

BY_LOGIN = "in login(), as there"
BY_STARTTLS = "in starttls(), where smtplib has the context"
LIKE_SMTPLIB = "smtplib's manners: "

BLOCKING: dict[str, str] = {
    "tls": LIKE_SMTPLIB + "TLS comes with SMTP_SSL, or when starttls() is called",
    "username": BY_LOGIN,
    "password": BY_LOGIN,
    "token": BY_LOGIN,
    "mechanisms": BY_LOGIN,
    "sock": "dialer= makes one for each connect()",
    "allow_cleartext_auth": LIKE_SMTPLIB + "who calls login() outside TLS means it",
    "trace": LIKE_SMTPLIB + "set_debuglevel()",
    "tls_context": "context=, in smtplib's words",
}
IN_CLEAR_AT_FIRST = {
    **BLOCKING,
    **dict.fromkeys(("tls_ca", "tls_certificate", "tls_fingerprint", "server_hostname"), BY_STARTTLS),
}
CODE_ONLY = "it is an object, or weakens what a URL may not weaken"
URL = {
    "username": "before the @",
    "password": "before the @",
    **dict.fromkeys(
        ("tls_context", "token", "sock", "allow_cleartext_auth", "trace", "proxy_header", "dialer"), CODE_ONLY
    ),
}
BY_CODE = "for programs"
COMMANDS: dict[str, dict[str, str]] = {
    "send": {"sock": BY_CODE, "tls_context": BY_CODE, "dialer": BY_CODE, "proxy_header": BY_CODE},
}
COMMANDS["send"]["chunking"] = "many messages are bulk's"
COMMANDS["bulk"] = {name: why for name, why in COMMANDS["send"].items() if name != "chunking"}
COMMANDS["check"] = {**COMMANDS["send"], "pipelining": "tried, not chosen", "chunking": "tried, not chosen"}
SPELLED = {
    "tls_ca": "--ca-file",
    "tls_certificate": "--certificate",
    "tls_fingerprint": "--fingerprint",
    "username": "--user",
    "password": "--password-file",
    "token": "--token-file",
    "mechanisms": "--mechanism",
}


def taken_by(function: Callable[..., object]) -> set[str]:
    """The names of everything it takes, those of its typed `**options` included."""
    names = set()
    for name, one in inspect.signature(function).parameters.items():
        if one.kind is inspect.Parameter.VAR_KEYWORD:
            [options] = typing.get_args(typing.get_type_hints(function)[name])
            names |= set(options.__annotations__)
        else:
            names.add(name)
    return names


def check(taken: set[str], reasons: Mapping[str, str], names: Mapping[str, str] | None = None) -> None:
    missing = {name for name in KEYWORDS if (names or {}).get(name, name) not in taken}
    assert missing == set(reasons)


def test_there_is_much_to_compare() -> None:
    assert len(KEYWORDS) > 15


def test_what_may_be_passed_on_is_everything() -> None:
    assert list(Options.__annotations__) == KEYWORDS


@pytest.mark.parametrize(
    "function",
    [
        AsyncLMTP.__init__,
        SMTPPool.__init__,
        send,
        AsyncSMTP.from_url,
        AsyncSMTP.from_env,
        AsyncLMTP.from_url,
        SMTPPool.from_url,
        SMTPPool.from_env,
    ],
    ids=lambda one: one.__qualname__,
)
def test_everything_asynchronous_takes_every_option(function: Callable[..., object]) -> None:
    check(taken_by(function), {})


@pytest.mark.parametrize(
    ("blocking", "reasons"), [(SMTP, IN_CLEAR_AT_FIRST), (LMTP, IN_CLEAR_AT_FIRST), (SMTP_SSL, BLOCKING)]
)
def test_the_blocking_classes_take_what_smtplib_has_no_other_place_for(
    blocking: type[SMTP], reasons: dict[str, str]
) -> None:
    check(taken_by(blocking.__init__), reasons)


def test_what_the_blocking_constructors_do_not_take_is_where_the_table_says() -> None:
    places: dict[str, Callable[..., object]] = {BY_LOGIN: SMTP.login, BY_STARTTLS: SMTP.starttls}
    spelled = {"username": "user"}
    for name, why in IN_CLEAR_AT_FIRST.items():
        if why in places:
            assert spelled.get(name, name) in taken_by(places[why]), name
    assert "context" in taken_by(SMTP.starttls) & taken_by(SMTP_SSL.__init__)


def test_urls_have_every_option_that_is_no_object() -> None:
    check(set(urls.OPTIONS), URL)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_line_has_every_option_that_is_no_object(command: str) -> None:
    actions: list[Any] = parser()._subparsers._group_actions  # type: ignore[union-attr]
    known = set(actions[0].choices[command]._option_string_actions)
    check(known, COMMANDS[command], {name: "--" + name.replace("_", "-") for name in KEYWORDS} | SPELLED)
