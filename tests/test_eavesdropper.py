"""The eavesdropper hears: a test that lets a secret out fails, in each way in which it could."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from leaks import LEAKING

pytest_plugins = "pytester"
TESTS = Path(__file__).parent

LEAKY = """
import base64, logging, subprocess, sys, warnings
import pytest
import leaking
from aiosmtpclient import AsyncSMTP
from aiosmtpclient.proxies import Proxy
from aiosmtpclient.secret import Credentials, Secret

SECRET = "open" + "sesame"


@pytest.fixture(autouse=True)
def known():
    Credentials("user", Secret(SECRET))


def test_printed(): print(SECRET)


def test_printed_to_stderr(): sys.stderr.write(SECRET)


def test_printed_and_taken(capsys):
    print(SECRET)
    capsys.readouterr()


def test_printed_by_another_process():
    subprocess.run([sys.executable, "-c", f"print({SECRET!r})"], capture_output=True)


def test_a_log(): logging.getLogger("some.library").warning("the password is %s", SECRET)


def test_a_log_of_ours_that_nobody_asked_for(): logging.getLogger("aiosmtpclient.x").debug("%s", SECRET)


@pytest.mark.parametrize("before", [b"", b"x", b"xy"])
def test_base64(before): print(base64.b64encode(before + SECRET.encode()))


def test_an_exception():
    with pytest.raises(ValueError):
        raise ValueError(SECRET)


def test_a_local_variable():
    with pytest.raises(ValueError):
        leaking.local(SECRET)


def test_a_hidden_cause():
    with pytest.raises(KeyError):
        leaking.hidden(SECRET)


def test_a_warning():
    with pytest.warns(UserWarning):
        warnings.warn(SECRET)


def test_an_event(): sys.audit("smtplib.send", None, SECRET.encode())


def test_a_password_of_a_proxy():
    Proxy(Secret("http://user:another%20one@host:3128"))
    print("another one")


def test_a_password_that_was_refused():
    with pytest.raises(ValueError):
        Credentials("user", Secret("refused" + chr(0)))
    print("refused" + chr(0))


def test_a_password_of_a_client():
    AsyncSMTP("host", username="user", password="hunter-two")
    print("hunter-two")
"""
DISCREET = """
import logging, sys
import pytest
from aiosmtpclient.secret import Credentials, Secret

SECRET = "open" + "sesame"


def test_nobody_used_it(): print(SECRET)


def test_it_does_not_show():
    Credentials("user", Secret(SECRET))
    print("***")
    assert logging.getLogger("aiosmtpclient").isEnabledFor(logging.DEBUG)


def test_the_next_test_is_another(): print(SECRET)


def test_the_level_is_as_before():
    assert not logging.getLogger("aiosmtpclient").isEnabledFor(logging.DEBUG)


def test_it_is_too_short():
    Credentials("user", Secret("short"))
    print("short")


@pytest.mark.tells("on purpose")
def test_it_may():
    Credentials("user", Secret(SECRET))
    print(SECRET)
"""
CONSTANT = """
PASSWORD = "open" + "sesame"


def test_a_constant_of_the_module(): print(PASSWORD)
"""


def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, source: str) -> pytest.RunResult:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS.parent), str(TESTS), str(pytester.path)]))
    pytester.makepyfile(leaking=LEAKING, test_it=source)
    return pytester.runpytest_subprocess("-p", "eavesdropper", "-p", "no:cacheprovider", "-p", "no:xdist")


@pytest.mark.timeout(60)
def test_every_way_out_is_listened_to(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(pytester, monkeypatch, LEAKY)

    tests = len(re.findall(r"^def test", LEAKY, re.M)) + 2  # one of them thrice
    result.assert_outcomes(passed=tests, errors=tests)
    result.stdout.fnmatch_lines("this test let a secret out:")


@pytest.mark.timeout(60)
def test_what_a_module_calls_its_password_is_a_secret_too(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(pytester, monkeypatch, CONSTANT).assert_outcomes(passed=1, errors=1)


@pytest.mark.timeout(60)
def test_nobody_is_blamed_for_what_is_no_leak(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    tests = len(re.findall(r"^def test", DISCREET, re.M))
    run(pytester, monkeypatch, DISCREET).assert_outcomes(passed=tests)


def test_it_listens_here(pytestconfig: pytest.Config) -> None:
    assert pytestconfig.pluginmanager.has_plugin("eavesdropper")
