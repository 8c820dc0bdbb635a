"""A pytest plugin that writes down everything a test run lets out, into the file named by TOLD_FILE.

* every log record of every logger, with what hangs on it, and asyncio's remarks on each callback
  (in its debug mode it shows what callbacks hold; here none is too fast for a remark);
* every exception that a test catches: texts, attributes, pickle, and its tracebacks with locals,
  outside the tests' own frames;
* every audit event, and every warning.

The servers of `aiosmtpclient.testing` live in the same process and know the passwords by right:
their frames and aiosmtpd's log do not count.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import sys
import threading
import traceback
import warnings
from collections.abc import Coroutine
from typing import Any, TextIO

import pytest
import wire
from leaks import SERVERS, TESTS, chain

# What is compiled, imported or put into the environment holds the tests' own source.
_NO_EVENTS = (
    "os.putenv",
    "compile",
    "exec",
    "import",
    "marshal",
    "code.",
    "object.",
    "sys._getframe",
    "cpython.",
)
_SERVER_LOGS = ("mail.",)


class Book:
    """Where it is written down."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._lock = threading.RLock()
        self._writing = False
        self._seen: set[int] = set()
        self._kept: list[BaseException] = []

    def write(self, kind: str, text: str) -> None:
        with self._lock:
            if self._writing or self._file.closed:  # writing is an event too
                return
            self._writing = True
            try:
                self._file.write(f"{kind}: {text}\n")
            finally:
                self._writing = False

    def event(self, name: str, arguments: tuple[object, ...]) -> None:
        if _NO_EVENTS is not None and not name.startswith(_NO_EVENTS) and not self._writing:
            self.write("event", f"{name} {arguments!r}")  # at the end of the process names are None

    def error(self, error: BaseException) -> None:
        for one in chain(error):
            if id(one) in self._seen:
                continue
            self._seen.add(id(one))
            self._kept.append(one)  # or another one would get its id
            self.write("error", f"{one!s} {one!r} {vars(one)!r}")
            told = traceback.TracebackException.from_exception(one, capture_locals=True)
            for frame in told.stack:
                if not frame.filename.startswith(TESTS) and SERVERS not in frame.filename:
                    self.write("locals", f"{frame.filename}:{frame.lineno} {frame.name} {frame.locals}")
            try:
                self.write("pickle", repr(pickle.dumps(one)))
            except Exception as why:
                self.write("pickle", f"none: {why}")


class Listener(logging.Handler):
    def __init__(self, book: Book) -> None:
        super().__init__(logging.NOTSET)
        self._book = book
        self.setFormatter(logging.Formatter("%(name)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        if not record.name.startswith(_SERVER_LOGS):
            self._book.write("log", f"{self.format(record)} {vars(record)}")


def _remark_on_everything() -> None:
    begin = asyncio.BaseEventLoop.__init__

    def __init__(self: asyncio.BaseEventLoop, *arguments: Any) -> None:
        begin(self, *arguments)
        self.slow_callback_duration = 0.0

    asyncio.BaseEventLoop.__init__ = __init__  # type: ignore[method-assign]


def _watch_tests(book: Book) -> None:
    """Write down each exception that a test has caught."""
    context = type(pytest.raises(ValueError))
    leave = context.__exit__

    def __exit__(self: Any, kind: Any, error: BaseException | None, trace: Any) -> bool:
        if error is not None:
            book.error(error)
        return leave(self, kind, error, trace)

    context.__exit__ = __exit__  # type: ignore[method-assign]
    catch = wire.caught

    async def caught(awaitable: Coroutine[Any, Any, object]) -> BaseException:
        error = await catch(awaitable)
        book.error(error)
        return error

    wire.caught = caught


def pytest_configure() -> None:
    file = open(os.environ["TOLD_FILE"], "w", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
    book = Book(file)
    logging.getLogger().addHandler(Listener(book))
    logging.getLogger().setLevel(logging.DEBUG)
    sys.addaudithook(book.event)
    warnings.showwarning = lambda *arguments: book.write("warning", repr(arguments))
    _remark_on_everything()
    _watch_tests(book)
    book.write("book", "begins")
