"""CPython's own tests of smtplib as the yardstick for the blocking classes.

The module is taken from the standard library of the interpreter that runs, with the name
`smtplib` in it meaning our classes. Where it puts a mock in place of the socket module, a server
is put in place of the mock: what is asked of a client there is the same.

Two tables say what is left out and why; a test in `DIFFERENT` that passes is a failure, so that
the tables stay true.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import io
import smtplib
import socket
import sys
import types
import unittest
import warnings
import weakref
from collections.abc import Iterator

import pytest

import aiosmtpclient
from aiosmtpclient import run_sync
from aiosmtpclient.testing import Conversation, ScriptedServer

pytestmark = pytest.mark.timeout(60)

DIFFERENT = {
    "BadHELOServerTests.testFailingHELO": "199 is no reply, so SMTPProtocolError",
    "DebuggingServerTests.test_issue43124_escape_localhostname": "the constructor refuses it",
    "DebuggingServerTests.test_issue43124_escape_options": "a ValueError too, in our own words",
    "DebuggingServerTests.test_issue43124_putcmd_escapes_newline": "a ValueError too, in our own words",
    "DefaultArgumentsTests.testSendMessage": "sending calls no replaceable method",
    "DefaultArgumentsTests.testSendMessageWithMailOptions": "sending calls no replaceable method",
    "LMTPGeneralTests.testBasic2": "fails with smtplib too, without its mock",
    "SMTPSimTests.testAUTH_BUGGY": "left with `*`; a 334 to that breaks the protocol",
    "SMTPSimTests.test_421_from_rcpt_cmd": "nobody got the message, so all are refused",
    "SMTPSimTests.test_lowercase_mail_from_rcpt_to": "commands are written in upper case",
    "SMTPSimTests.test_send_unicode_without_SMTPUTF8": "SMTPNotSupportedError, not UnicodeEncodeError",
    "SMTPSimTests.test_with_statement_QUIT_failure": "a refused QUIT is no error there",
}
NOT_RUN = {
    "LMTPGeneralTests.testSourceAddress": "connects from a fixed port, which may be taken",
    "SMTPGeneralTests.testSourceAddress": "connects from a fixed port, which may be taken",
    "LMTPGeneralTests.testUnixDomainSocketTimeoutDefault": "connects to a path at the root",
}


# Loading


class Yardstick:
    """The loaded module, and every client that its tests made."""

    def __init__(self) -> None:
        self.clients: weakref.WeakSet[aiosmtpclient.SMTP] = weakref.WeakSet()
        self.module = self._load()

    def _load(self) -> types.ModuleType:
        spec = importlib.util.find_spec("test.test_smtplib")
        if spec is None or spec.loader is None:
            raise ModuleNotFoundError("test.test_smtplib")
        module = importlib.util.module_from_spec(spec)
        sys.modules["smtplib"] = self._stand_in()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # it imports asyncore and smtpd
                spec.loader.exec_module(module)
        finally:
            sys.modules["smtplib"] = smtplib
        return module

    def _stand_in(self) -> types.ModuleType:
        """A module with smtplib's names: ours where we have one, else its constants."""
        stand_in = types.ModuleType("smtplib")
        for name, value in vars(smtplib).items():
            if not name.startswith("__"):
                setattr(stand_in, name, getattr(aiosmtpclient, name, value))
        clients = self.clients

        class Kept:
            def __init__(self, *args: object, **options: object) -> None:
                super().__init__(*args, **options)
                clients.add(self)  # type: ignore[arg-type]

        for name in ("SMTP", "LMTP"):
            setattr(stand_in, name, type(name, (Kept, getattr(aiosmtpclient, name)), {}))
        return stand_in

    def case(self, name: str) -> unittest.TestCase:
        """One of its tests."""
        class_name, method = name.split(".")
        case = getattr(self.module, class_name)(method)
        assert isinstance(case, unittest.TestCase)
        return case

    def names(self) -> list[str]:
        """All of its tests."""
        loader = unittest.TestLoader()
        classes = [one for one in vars(self.module).values() if isinstance(one, type)]
        return [
            f"{one.__name__}.{method}"
            for one in classes
            if issubclass(one, unittest.TestCase)
            for method in loader.getTestCaseNames(one)
        ]


def load() -> Yardstick | None:
    try:
        return Yardstick()
    except (ImportError, unittest.SkipTest):
        return None


YARDSTICK = load()
NAMES = YARDSTICK.names() if YARDSTICK is not None else []
MOCKED = ("SMTPGeneralTests.", "LMTPGeneralTests.", "BadHELOServerTests.")

if YARDSTICK is None:
    pytest.skip("the standard library's tests are not installed here", allow_module_level=True)


# Running


class SocketStandIn(types.ModuleType):
    """What these tests take for their mock of the socket module: a server that says one line."""

    def __init__(self) -> None:
        super().__init__("mock_socket")
        self.line = b""

    def reply_with(self, line: bytes) -> None:
        self.line = line

    def setdefaulttimeout(self, seconds: float | None) -> None:
        socket.setdefaulttimeout(seconds)

    def getdefaulttimeout(self) -> float | None:
        return socket.getdefaulttimeout()

    async def greet(self, conversation: Conversation) -> None:
        await conversation.say(self.line + b"\r\n")
        await conversation.read_all()


@contextlib.contextmanager
def server_for(name: str, case: unittest.TestCase, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if not name.startswith(MOCKED):
        yield
        return
    assert YARDSTICK is not None
    stand_in = SocketStandIn()
    set_up = case.setUp
    with ScriptedServer(stand_in.greet) as server:

        def set_up_for_server() -> None:
            set_up()
            case.port = server.port  # type: ignore[attr-defined]

        monkeypatch.setattr(case, "setUp", set_up_for_server)
        monkeypatch.setattr(YARDSTICK.module, "mock_socket", stand_in)
        yield


@pytest.fixture(scope="module", autouse=True)
def warm() -> None:
    """The tests count threads: those that stay are started before."""

    async def resolve() -> None:
        await asyncio.get_running_loop().getaddrinfo("localhost", 0)
        await asyncio.to_thread(len, "")

    run_sync(resolve())


def run(name: str, monkeypatch: pytest.MonkeyPatch) -> unittest.TestResult:
    assert YARDSTICK is not None
    case, result = YARDSTICK.case(name), unittest.TestResult()
    with server_for(name, case, monkeypatch):
        with contextlib.redirect_stderr(io.StringIO()):
            case.run(result)
        for client in list(YARDSTICK.clients):
            client.close()
    if result.skipped:
        pytest.skip(result.skipped[0][1])
    return result


@pytest.mark.parametrize("name", [name for name in NAMES if name not in DIFFERENT and name not in NOT_RUN])
def test_ours_passes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(name, monkeypatch)
    assert [text for _, text in result.failures + result.errors] == []


@pytest.mark.parametrize("name", [name for name in NAMES if name in DIFFERENT])
def test_ours_differs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(name, monkeypatch)
    assert not result.wasSuccessful(), f"it passes, and may leave the table: {DIFFERENT[name]}"


def test_the_tables_name_tests_that_exist() -> None:
    newer = {"SMTPSimTests.test_lowercase_mail_from_rcpt_to"}  # since 3.13
    assert (DIFFERENT.keys() | NOT_RUN.keys()) - newer <= set(NAMES)


def test_the_yardstick_is_a_long_one() -> None:
    assert len(NAMES) > 60
