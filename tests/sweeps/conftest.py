"""The figures of the sweeps, one line each, at the end of the run; from every process of it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator

import pytest

from .figures import ONE_IN, SEED, TORTURE, line_of


@pytest.fixture(autouse=True)
def nobody_looks_on(request: pytest.FixtureRequest) -> Iterator[None]:
    """What goes over the wire is not logged, as in production: that is another way through the code.

    Behind STARTTLS it is, as everywhere else where a test has a password.
    """
    params = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    logger = logging.getLogger("aiosmtpclient.session")
    level = logger.level
    if params.get("security") != "starttls":
        logger.setLevel(logging.WARNING)
    yield
    logger.setLevel(level)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    sums: dict[str, Counter[str]] = {}
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for name, value in report.user_properties:
                if name == "sweep":
                    counts = dict(value)
                    sums.setdefault(str(counts.pop("sweep")), Counter()).update(counts)
    if not sums:
        return
    places = "every place" if ONE_IN == 1 else f"one place in {ONE_IN} (seed {SEED})"
    terminalreporter.section(f"sweeps, {places}" if TORTURE else f"sweeps, a sample (seed {SEED})")
    for sweep, counts in sorted(sums.items()):
        terminalreporter.write_line(line_of(sweep, counts))
