"""A pytest plugin that listens to every test, and fails the one that lets a secret out.

A secret is every password and token that the package was given credentials with, or a proxy's
URL, in that test, and what its module calls PASSWORD, TOKEN or FRESH; from six octets on, for
less is found everywhere. What is listened to from then on:

* standard output and error, also where the test or a process that it started has taken them;
* every log record, those of this package from DEBUG on;
* every exception that the test catches: its chain's texts and attributes, and local variables
  outside the tests' own frames;
* warnings, and this package's own audit events.

Searched for are the secret itself and its base64 at each alignment. `@pytest.mark.tells(why)` is
for a test whose business it is that a secret is seen. What asyncio's debug mode, other audit
events and pickles show is looked at for the login tests, in a run of their own: see
`test_secrets_everywhere.py`.
"""

from __future__ import annotations

import asyncio.subprocess
import logging
import subprocess
import sys
from collections.abc import Callable, Coroutine, Generator
from typing import Any

import pytest
import wire
from leaks import chain, leaks, told

from aiosmtpclient import secret
from aiosmtpclient.proxies import Proxy
from aiosmtpclient.secret import Secret

LEAST = 6
"""Octets that a secret needs to be recognised."""
CONSTANTS = ("PASSWORD", "TOKEN", "FRESH")
OURS = logging.getLogger("aiosmtpclient")
_SERVER_LOGS = ("mail.",)


class Ear:
    """What is heard in one test.

    Attributes:
        secrets: that must not be.
        heard: texts, each with where it came from.
    """

    def __init__(self) -> None:
        self.secrets: set[str] = set()
        self.heard: list[tuple[str, str]] = []
        self._level: int | None = None

    def learn(self, text: object) -> None:
        """From now on this must not be heard."""
        if isinstance(text, str) and len(text.encode("utf-8", "replace")) >= LEAST:
            self.secrets.add(text)
            if self._level is None:
                self._level = OURS.level
                OURS.setLevel(logging.DEBUG)

    def hear(self, where: str, text: object) -> None:
        """Somebody said something."""
        if self.secrets and text:
            self.heard.append(
                (where, text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text))
            )

    def catch(self, error: BaseException | None) -> None:
        """A test has caught this."""
        if not self.secrets or error is None:
            return
        try:
            self.hear("an exception", told(error))
        except Exception:  # the repr of something in there failed
            self.hear("an exception", "\n".join(f"{one} {one!r}" for one in chain(error)))

    def found(self) -> list[str]:
        """What was let out: where, and the line."""
        said = "\n".join(f"{where}: {line}" for where, text in self.heard for line in text.splitlines())
        return leaks(said, self.secrets)

    def forget(self) -> None:
        """Another test begins."""
        if self._level is not None:
            OURS.setLevel(self._level)
        self.__init__()  # type: ignore[misc]


EAR = Ear()


class _Listener(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if EAR.secrets and not record.name.startswith(_SERVER_LOGS):
            EAR.hear("a log", f"{self.format(record)} {record.args!r}")


def _instead(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Put something in the place of a function, that knows it."""
    setattr(owner, name, make(getattr(owner, name)))


def _learning_credentials(check: Any) -> Any:
    # Here, and not around `Credentials`: a frame of ours there would hold the password in clear.
    def _check(what: str, text: Secret) -> None:
        if what == "password":
            EAR.learn(text.reveal())
        check(what, text)

    return _check


def _learning_proxies(begin: Any) -> Any:
    def __init__(self: Proxy, *arguments: Any, **more: Any) -> None:
        begin(self, *arguments, **more)
        EAR.learn(self._password.reveal())

    return __init__


def _catching(leave: Any) -> Any:
    def __exit__(self: Any, kind: Any, error: BaseException | None, trace: Any) -> Any:
        EAR.catch(error)
        return leave(self, kind, error, trace)

    return __exit__


def _caught(catch: Any) -> Any:
    async def caught(awaitable: Coroutine[Any, Any, object]) -> BaseException:
        error: BaseException = await catch(awaitable)
        EAR.catch(error)
        return error

    return caught


def _warned(leave: Any) -> Any:
    def __exit__(self: Any, *error: Any) -> Any:
        for one in self.list:
            EAR.hear("a warning", one.message)
        return leave(self, *error)

    return __exit__


def _read_out(read: Any) -> Any:
    def readouterr(self: Any) -> Any:
        taken = read(self)
        for text in taken:
            EAR.hear("what was printed", text)
        return taken

    return readouterr


def _communicated(communicate: Any) -> Any:
    def heard(self: Any, *arguments: Any, **more: Any) -> Any:
        said = communicate(self, *arguments, **more)
        for text in said:
            EAR.hear("another process", text)
        return said

    return heard


def _communicated_later(communicate: Any) -> Any:
    async def heard(self: Any, *arguments: Any, **more: Any) -> Any:
        said = await communicate(self, *arguments, **more)
        for text in said:
            EAR.hear("another process", text)
        return said

    return heard


def _event(name: str, arguments: tuple[object, ...]) -> None:
    if EAR.secrets and name.startswith("smtplib."):
        EAR.hear("an audit event", repr(arguments))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "tells(why): a secret is seen in this test, on purpose")
    logging.getLogger().addHandler(_Listener(logging.NOTSET))
    sys.addaudithook(_event)
    _instead(secret, "_check", _learning_credentials)
    _instead(Proxy, "__init__", _learning_proxies)
    _instead(type(pytest.raises(ValueError)), "__exit__", _catching)
    _instead(wire, "caught", _caught)
    _instead(pytest.WarningsRecorder, "__exit__", _warned)
    _instead(pytest.CaptureFixture, "readouterr", _read_out)
    _instead(subprocess.Popen, "communicate", _communicated)
    _instead(asyncio.subprocess.Process, "communicate", _communicated_later)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    EAR.forget()
    module = getattr(item, "module", None)
    for name in CONSTANTS:
        EAR.learn(getattr(module, name, None))
    try:
        return (yield)
    finally:
        EAR.forget()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if call.when == "teardown" and EAR.secrets and item.get_closest_marker("tells") is None:
        for name, text in report.sections:
            EAR.hear(name, text)
        found = EAR.found()
        if found and report.outcome != "failed":
            report.outcome = "failed"
            report.longrepr = "this test let a secret out:\n" + "\n".join(dict.fromkeys(found))
    return report
