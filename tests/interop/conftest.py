"""One server at a time for all tests of this folder, and the matrix of what they find out.

Every test that takes `server` runs once for each. `found("feature", "what")` fills a cell,
`found.surprise("feature", "text")` notes where a server does other than it says.

`INTEROP_ONLY` names the servers to run (a part of a name, several with commas), and
`INTEROP_LEAST` how many must take part: fewer are a failure, not a skip.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from .matrix import Matrix
from .packages import NotToBeHad
from .servers import EVERY, RealServer

_MATRIX = Matrix()
_ONLY = [part.strip().lower() for part in os.environ.get("INTEROP_ONLY", "").split(",") if part.strip()]
_CHOSEN = [kind for kind in EVERY if not _ONLY or any(part in kind.name.lower() for part in _ONLY)]
_LEAST = int(os.environ.get("INTEROP_LEAST") or (4 if os.environ.get("CI") else 0))


class Found:
    """Where a test writes down what it found out about one server."""

    def __init__(self, server: str) -> None:
        self._server = server

    def __call__(self, feature: str, what: str) -> None:
        _MATRIX.fill(self._server, feature, what)

    def surprise(self, feature: str, text: str) -> None:
        _MATRIX.surprise(self._server, feature, text)

    def offers(self, circumstance: str, words: str) -> None:
        _MATRIX.offers.setdefault(self._server, {})[circumstance] = words


@pytest.fixture(scope="session", params=_CHOSEN, ids=[kind.name for kind in _CHOSEN])
def server(request: pytest.FixtureRequest) -> Iterator[RealServer]:
    """One server after the other, each for all tests."""
    kind: type[RealServer] = request.param
    try:
        one = kind()
    except NotToBeHad as why:
        _MATRIX.absent[kind.name] = str(why)
        pytest.skip(f"{kind.name}: {why}")
    _MATRIX.servers[kind.name] = one.software.version
    try:
        yield one
    finally:
        one.stop()


@pytest.fixture
def found(server: RealServer) -> Found:
    """For what is found out about it."""
    return Found(server.name)


@pytest.fixture(autouse=True)
def it_runs(request: pytest.FixtureRequest) -> None:
    """A server that a test killed and did not bring back is brought back for the next one."""
    if "server" in request.fixturenames:
        one: RealServer = request.getfixturevalue("server")
        if one.process is None:
            one.start()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    taking_part = len(_MATRIX.servers)
    if exitstatus == pytest.ExitCode.OK and taking_part < _LEAST:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int) -> None:
    if not (_MATRIX.servers or _MATRIX.absent):
        return
    terminalreporter.section("servers")
    for line in _MATRIX.report():
        terminalreporter.write_line(line)
    if len(_MATRIX.servers) < _LEAST:
        terminalreporter.write_line(f"FAILED: at least {_LEAST} servers must take part")
    whole = len(_MATRIX.servers) == len(EVERY) and not terminalreporter.config.option.keyword
    if whole and exitstatus == 0:
        changed = _MATRIX.write()
        terminalreporter.write_line(f"docs/interop.md {'is rewritten' if changed else 'says the same'}")
    else:
        terminalreporter.write_line(
            "docs/interop.md is left as it is: somebody is missing, or not all is well"
        )
