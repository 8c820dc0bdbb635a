"""The page about extensions tells the truth: each test that it names is there, no option is missing."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

import aiosmtpclient
from aiosmtpclient import AsyncSMTP, MailOptions, Recipient, SMTPPool
from aiosmtpclient.recipients import _RFC

HERE = Path(__file__).parent
PAGE = (HERE.parent / "docs" / "extensions.md").read_text("utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith("| extension")
]


def all_tests() -> set[str]:
    """The names of all tests, whatever module they are in."""
    return {
        node.name
        for path in HERE.glob("test_*.py")
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_the_table_is_found() -> None:
    assert len(ROWS) > 20
    assert all(len(row) == 4 and all(row) for row in ROWS)


def test_every_test_that_the_page_names_exists() -> None:
    named = {name for row in ROWS for name in re.findall(r"`(\w+)`", row[3])}
    assert len(named) == len(ROWS)
    assert named - all_tests() == set()


@pytest.mark.parametrize("option", [*MailOptions.__annotations__, *Recipient.__slots__])
def test_every_option_is_in_the_table(option: str) -> None:
    options = {word for row in ROWS for word in re.findall(r"\w+", row[2])}
    assert option in options


@pytest.mark.parametrize("keyword", _RFC)
def test_every_extension_that_an_error_names_is_in_the_table_with_the_same_rfc(keyword: str) -> None:
    """An error about what a server does not offer says the RFC too."""
    rfcs = {row[1].split()[0] for row in ROWS if row[0] == keyword}
    assert rfcs
    assert rfcs <= {_RFC[keyword].removeprefix("RFC "), "6533"}  # DSN's, for international addresses


@pytest.mark.parametrize(
    "verb", ["starttls", "login", "vrfy", "verify", "expn", "help", "etrn", "xclient", "xforward"]
)
def test_every_verb_that_an_extension_brings_is_in_the_table(verb: str) -> None:
    assert f"`{verb}()`" in " ".join(row[2] for row in ROWS)


def test_everything_that_the_table_offers_exists() -> None:
    keywords = set(inspect.signature(AsyncSMTP).parameters) | set(inspect.signature(SMTPPool).parameters)
    known = {"idna"} | (
        keywords | set(MailOptions.__annotations__) | set(Recipient.__slots__) | set(aiosmtpclient.__all__)
    )
    for row in ROWS:
        for code in re.findall(r"`([^`]+)`", row[2]):
            if code.endswith("()"):
                assert callable(getattr(AsyncSMTP, code[:-2])), row
            elif not code.startswith("Reply."):
                words = re.sub(r"(=\"[^\"]*\")|=", " ", code)
                assert set(re.findall(r"[a-zA-Z_]\w*", words)) <= known, row


def test_every_rfc_is_a_number() -> None:
    others = {row[1] for row in ROWS if not re.match(r"\d{4}\b", row[1])}
    assert others == {"Postfix", "HAProxy, 1 and 2"}
