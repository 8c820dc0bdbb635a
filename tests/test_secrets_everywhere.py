"""Nothing that the login tests let out holds a secret: logs, errors, tracebacks with locals, audit events.

The tests that log in run once more, in a process of their own, with everything switched on that
makes Python talkative; then what they let out is searched.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import test_bearer
import test_cli_send
import test_negotiation
import test_proxies
import test_scram
import test_tokens
import test_urls
import test_wire_rules_auth
import test_wire_rules_tokens
from leaks import LEAKING, leaks

TESTS = Path(__file__).parent
SECRETS = {
    test_wire_rules_auth.PASSWORD,
    test_wire_rules_tokens.PASSWORD,
    test_wire_rules_tokens.TOKEN,
    test_wire_rules_tokens.FRESH,
    test_bearer.TOKEN,
    test_tokens.TOKEN,
    test_scram.PASSWORD,
    test_negotiation.PASSWORD,
    test_cli_send.PASSWORD,
    test_proxies.PASSWORD,
    test_urls.PASSWORD,
}
RUNS = {
    "the wire": ["test_wire_rules_auth.py", "test_wire_rules_tokens.py"],
    "mechanisms": [
        "test_sasl.py",
        "test_scram.py",
        "test_bearer.py",
        "test_tokens.py",
        "test_negotiation.py",
    ],
    "the command line": ["test_cli_send.py", "-k", "password or netrc or token or login"],
    "configuration": ["test_urls.py", "test_proxies.py"],
    "blocking": ["test_sync.py", "test_testing_server.py", "-k", "login or auth or password"],
}


def let_out(folder: Path, *arguments: object) -> tuple[int, str]:
    """Run tests with everything switched on; what came of them, and all that they let out."""
    book = folder / "book"
    command = [sys.executable, "-X", "dev", "-m", "pytest", "-q", "--tb=no"]
    command += ["-p", "no:cacheprovider", "-p", "no:xdist", "-p", "everything_told"]
    command += ["-o", "timeout=60", "-o", "asyncio_debug=true"]
    done = subprocess.run(
        [*command, *map(str, arguments)],
        cwd=TESTS,
        env={
            **os.environ,
            "PYTHONASYNCIODEBUG": "1",
            "LOOPS": "asyncio",  # in debug mode
            "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]),
            "TOLD_FILE": str(book),
        },
        capture_output=True,
        text=True,
        errors="backslashreplace",
        timeout=200,
    )
    return done.returncode, book.read_text("utf-8") + done.stdout + done.stderr


@pytest.mark.timeout(240)
@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_nothing_that_the_tests_let_out_holds_a_secret(run: list[str], tmp_path: Path) -> None:
    code, text = let_out(tmp_path, *run)

    assert code == 0, text[-3000:]
    assert leaks(text, SECRETS) == []
    # The command line catches its errors itself, and prints them.
    kinds = ["log: ", "event: "] + (["error: ", "locals: "] if "test_cli_send.py" not in run else [])
    for kind in kinds:
        assert text.count("\n" + kind) > 5, f"nothing was written down as {kind!r}"


LEAKY = """
import asyncio, base64, logging, sys, traceback
import pytest
sys.path.insert(0, {folder!r})
import leaking

def secret(of):
    return "correct horse " + "battery " + of


def test_a_log():
    logging.getLogger("some.library").debug("the password is %s", secret("test_a_log"))


def test_base64():
    octets = secret("test_base64").encode()
    for before in (b"", b"x", b"xy"):
        logging.getLogger("some.library").debug("%s", base64.b64encode(before + octets))


def test_a_local_variable():
    with pytest.raises(ValueError):
        leaking.local(secret("test_a_local_variable"))


def test_an_exception():
    with pytest.raises(ValueError):
        leaking.text(secret("test_an_exception"))


def test_a_hidden_cause():
    with pytest.raises(KeyError):
        leaking.hidden(secret("test_a_hidden_cause"))


def test_an_event():
    sys.audit("some.event", secret("test_an_event"))


async def test_a_future():
    future = asyncio.get_running_loop().create_future()
    future.add_done_callback(lambda _: None)
    asyncio.get_running_loop().call_soon(future.set_result, secret("test_a_future"))
    await future


def test_printed():
    sys.__stdout__.write(chr(10) + secret("test_printed") + chr(10))  # behind pytest's dots
"""


@pytest.fixture(scope="module")
def leaked(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What tests let out that leak, each a secret of its own."""
    folder = tmp_path_factory.mktemp("leaky")
    (folder / "leaking.py").write_text(LEAKING)
    leaky = folder / "test_leaky.py"
    leaky.write_text(LEAKY.format(folder=str(folder)))

    code, text = let_out(folder, "-s", "-c", TESTS.parent / "pyproject.toml", leaky)

    assert code == 0, text[-3000:]
    return text


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("test", "kind"),
    [
        ("test_a_log", "log: "),
        ("test_base64", "log: "),
        ("test_a_local_variable", "locals: "),
        ("test_an_exception", "error: "),
        ("test_a_hidden_cause", "error: "),
        ("test_an_event", "event: "),
        ("test_a_future", "log: asyncio"),
        ("test_printed", "correct"),
    ],
)
def test_a_leak_would_be_found(test: str, kind: str, leaked: str) -> None:
    found = [line for line in leaks(leaked, [f"correct horse battery {test}"]) if line.startswith(kind)]
    assert found
    if test == "test_base64":
        assert len(found) == 3
