"""A short run of each target, the same in every run; and that the targets find what is to be found.

`FUZZ_EXAMPLES=5000 pytest tests/fuzz` makes it longer; `python -m tests.fuzz` is for long runs.
"""

from __future__ import annotations

import contextlib
import importlib
import ipaddress
import itertools
import os
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from aiosmtpclient import (
    addresses,
    bearer,
    commands,
    content,
    extensions,
    message_objects,
    origin,
    replies,
    scram,
    transactions,
)  # fmt: skip

from . import counter
from .__main__ import TARGETS, main
from .mutations import octets_for

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "150"))
SHORT = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=EXAMPLES,
    suppress_health_check=list(HealthCheck),
)

pytestmark = pytest.mark.tells(
    "one test logs in with many made-up secrets, which are words of other cases; each looks for its own"
)


@pytest.fixture(autouse=True)
def the_loop_is_closed() -> Iterator[None]:
    yield
    counter.close()


def target(name: str) -> ModuleType:
    return importlib.import_module(f"{__package__}.{name}")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", TARGETS)
@SHORT
@given(octets=st.binary(max_size=300))
@example(octets=b"")
@example(octets=b"\xff" * 300)
def test_octets_of_any_kind(name: str, octets: bytes) -> None:
    target(name).check(octets)


@pytest.mark.parametrize("name", TARGETS)
def test_mutated_seeds(name: str) -> None:
    room = target(name)
    for octets in itertools.islice(octets_for(room.SEEDS, 5321), len(room.SEEDS) + EXAMPLES):
        room.check(octets)


# What a target is for, it finds

_feed = replies.ReplyParser.feed


def _as_it_is(octets: Any, *rest: Any, **options: Any) -> Any:
    return octets


def _nothing(*given: Any) -> Iterator[Any]:
    yield from ()


def _split_matters(parser: replies.ReplyParser, data: bytes) -> list[replies.Reply]:
    return _feed(parser, data.replace(b"-", b" ") if len(data) == 1 else data)


def _the_first_for_all(paths: Sequence[bytes], *rest: Any, **how: Any) -> bytes:
    return commands.rcpt(paths[0], *rest, **how) * len(paths)


ANY_ADDRESS = r"(?s) *([^@<]+)@([^@>]*)|[^<]*<([^@]+)@([^@>]*)>"
ENDLESS = {"_fail": lambda self, why: True}
FAULTS: dict[str, tuple[str, str, dict[Any, dict[str, Any]]]] = {
    "a split that matters": (
        "replies",
        "the split matters|, not ",
        {replies.ReplyParser: {"feed": _split_matters}},
    ),
    "a reply without a cap": (
        "replies",
        "are held|, not ",
        {replies.ReplyParser: ENDLESS},
    ),
    "a size that is no number": (
        "hellos",
        "invalid literal",
        {extensions: {"_limit": int}},
    ),
    "a server that is believed": (
        "challenges",
        "without a proof",
        {scram: {"_take_final": lambda *given: None}},
    ),
    "a token in an error": (
        "challenges",
        "password is shown",
        {bearer: {"redacted": _as_it_is}},
    ),
    "an address that is a command": (
        "callers",
        "no command|surrogates not allowed",
        {
            addresses: {"_FORBIDDEN": "(?!)", "_MAILBOX": ANY_ADDRESS},
            commands: {"_check_odd": lambda *given: None},
        },
    ),
    "a recipient in place of another": (
        "callers",
        "b'.*' for '",
        {commands: {"rcpts": _the_first_for_all}},
    ),
    "a Bcc that leaves": (
        "callers",
        "(?i)bcc",
        {message_objects: {"_BLIND": frozenset()}},
    ),
    "two lines in a command": (
        "verbs",
        "_docmd|no command",
        {commands: {"_TEXT": r"[\r\n -~]*"}},
    ),
    "a PROXY header of any text": (
        "verbs",
        "no PROXY header",
        {origin: {"_address": ipaddress.ip_address}},
    ),
    "dots that are single": (
        "bodies",
        "single dot|no command",
        {content: {"_with_dots": _as_it_is}},
    ),
    "a bare line feed": (
        "bodies",
        "a bare LF",
        {content: {"with_crlf": _as_it_is}},
    ),
    "content behind a 250 to DATA": (
        "conversations",
        "no command|written behind",
        {transactions: {"broken": _nothing}},
    ),
}


def _run(name: str, most: int) -> None:
    check = target(name).check
    for octets in itertools.islice(octets_for(target(name).SEEDS, 1), most):
        check(octets)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_is_put_in_is_found(fault: str) -> None:
    name, words, places = FAULTS[fault]
    with contextlib.ExitStack() as put_in:
        for room, changes in places.items():
            put_in.enter_context(mock.patch.multiple(room, **changes))
        with pytest.raises((AssertionError, ValueError), match=words):
            _run(name, 6000)


def test_a_seed_repeats_the_octets() -> None:
    first = list(itertools.islice(octets_for([b"a", b"b"], 7), 200))
    assert first == list(itertools.islice(octets_for([b"a", b"b"], 7), 200))
    assert first != list(itertools.islice(octets_for([b"a", b"b"], 8), 200))


# The command line


def test_a_long_run_says_what_it_did(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hellos", "--runs", "20", "--plain"]) == 0
    assert "hellos" in (said := capsys.readouterr().out)
    assert "20 runs (by chance, seed 5321), 0 findings" in said


def test_what_was_found_can_be_shown_once_more(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with mock.patch.object(content, "_with_dots", _as_it_is):
        assert main(["bodies", "--runs", "300", "--plain"]) == 1
        [line, *_] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("found: ")]
        with pytest.raises(AssertionError):
            main(line.removeprefix("found: python -m tests.fuzz ").split())
    main(line.removeprefix("found: python -m tests.fuzz ").split())
