"""The page about extensions tells the truth: each test that it names is there, no option is missing."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from aiosmtpclient import MailOptions, Recipient

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
