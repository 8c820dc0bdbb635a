"""The page about security tells the truth: each test that it names is there, and each threat has one."""

from __future__ import annotations

import re
from pathlib import Path

from test_extensions_page import all_tests

PAGE = (Path(__file__).parent.parent / "docs" / "security.md").read_text("utf-8")
THREATS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.partition("## TLS\n")[0].splitlines()
    if line.startswith("| ") and not line.startswith("| somebody who")
]


def test_every_threat_has_an_answer_and_a_test_but_the_one_that_has_none() -> None:
    assert len(THREATS) > 12
    assert all(len(row) == 4 and row[1] and row[2] for row in THREATS)
    assert [row[1:3] for row in THREATS if not row[3]] == [["everything", "nothing"]]


def test_every_test_that_the_page_names_exists() -> None:
    named = [name for row in THREATS for name in re.findall(r"`(test_\w+)`", row[3])]
    assert len(named) == len(set(named)) == len(THREATS) - 1
    assert set(named) - all_tests() == set()
