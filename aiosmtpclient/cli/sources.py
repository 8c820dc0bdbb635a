"""Sources: what a bulk run reads its messages from, one at a time.

Files (`.eml`), folders of them, Maildirs, mbox files and JSON lines, in the order of the
arguments; within a folder or Maildir by name.

Rules of this room:

* One message at a time is in memory. Of a folder or a Maildir the names are.
* What cannot be read is a message that cannot be sent, with its reason; what follows is read.
* A *place* names a message across runs: the absolute path, and where in the file. One that an
  earlier argument has named already is another message, and so another place.
* All of this runs in a thread of its own: a slow disk, or a pipe, holds up no conversation.
"""

from __future__ import annotations

import mailbox
import os
import select
import stat
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import BinaryIO, cast

from . import jsonlines, mboxes
from .exits import Exit, Failure
from .options import unreadable

STANDARD_INPUT = "-"
FORMATS = ("eml", "mbox", "jsonl")

_BY_SUFFIX = {
    ".eml": "eml",
    ".mbox": "mbox",
    ".mbx": "mbox",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
_PATIENCE = 0.2
"""Seconds until a reader of standard input looks whether it is still wanted."""


@dataclass(frozen=True, slots=True)
class Found:
    """A message as it was found.

    Attributes:
        place: what names it across runs.
        label: what names it to the user.
        octets: its content.
        sender: the reverse-path, if the source says one.
        recipients: the forward-paths, likewise.
        problem: why it cannot be sent; there are no octets then.
    """

    place: str
    label: str
    octets: bytes = b""
    sender: str | None = None
    recipients: tuple[str, ...] | None = None
    problem: Exception | None = None


class Sources:
    """The messages of all arguments; iterated once.

    Args:
        arguments: names of files and folders; "-" is standard input.
        format: what files are; None to tell it by their names and their first octets.
        mbox_kind: one of `mboxes.KINDS`.
        stop: set when no more is wanted.

    Attributes:
        share: how much was read, from 0 to 1; None where that cannot be told.
    """

    def __init__(
        self, arguments: Sequence[str], format: str | None, mbox_kind: str, stop: threading.Event
    ) -> None:
        self.share: float | None = 0.0
        self._arguments = arguments
        self._format = format
        self._mbox_kind = mbox_kind
        self._stop = stop
        self._part: float | None = 0.0

    def __iter__(self) -> Iterator[Found]:
        # With one argument no place comes twice, and nothing needs to be remembered.
        known: Counter[str] | None = Counter() if len(self._arguments) > 1 else None
        for position, argument in enumerate(self._arguments):
            self._part = 0.0
            for found in self._of(argument):
                if self._stop.is_set():
                    return
                part = self._part
                self.share = (position + part) / len(self._arguments) if part is not None else None
                yield _told_apart(found, known)
        self.share = 1.0

    def _of(self, argument: str) -> Iterator[Found]:
        place = argument if argument == STANDARD_INPUT else os.path.abspath(argument)
        whole = Found(place, argument)
        try:
            if argument != STANDARD_INPUT and os.path.isdir(argument):
                is_maildir = all(os.path.isdir(os.path.join(argument, name)) for name in ("cur", "new"))
                yield from self._maildir(whole) if is_maildir else self._folder(whole)
                return
            format = self._format or _format_of(argument)
            if format == "eml":
                with self._opened(argument) as file:
                    yield replace(whole, octets=file.read())
            elif format == "mbox":
                yield from self._mbox(whole)
            else:
                yield from self._lines(whole)
        except OSError as error:
            yield replace(whole, problem=unreadable(argument, error))

    # -- the kinds ---------------------------------------------------------------------

    def _folder(self, whole: Found) -> Iterator[Found]:
        with os.scandir(whole.label) as entries:
            names = sorted(entry.name for entry in entries if entry.name.endswith(".eml"))
        for number, name in enumerate(names):
            self._part = number / len(names)
            label = os.path.join(whole.label, name)
            found = Found(os.path.join(whole.place, name), label)
            try:
                with open(label, "rb") as file:
                    yield replace(found, octets=file.read())
            except OSError as error:
                yield replace(found, problem=unreadable(label, error))

    def _maildir(self, whole: Found) -> Iterator[Found]:
        # A reader moves a message from new/ to cur/ and sets its flags: its key stays.
        messages = mailbox.Maildir(whole.label, factory=None, create=False)
        keys = sorted(key for key in messages.iterkeys() if not key.startswith("."))
        for number, key in enumerate(keys):
            self._part = number / len(keys)
            found = Found(os.path.join(whole.place, key), os.path.join(whole.label, key))
            try:
                yield replace(found, octets=messages.get_bytes(key))
            except KeyError:
                gone = Failure(f"{found.label}: it is there no more", Exit.NOINPUT)
                yield replace(found, problem=gone)
            except OSError as error:
                yield replace(found, problem=unreadable(found.label, error))

    def _mbox(self, whole: Found) -> Iterator[Found]:
        with self._opened(whole.label) as file:
            share = _Share(file)
            for number, message in enumerate(mboxes.messages(file, self._mbox_kind), 1):
                self._part = share.read
                found = Found(f"{whole.place}#{number}", f"{whole.label}#{number}")
                if isinstance(message, ValueError):
                    yield replace(found, problem=message)
                else:
                    yield replace(found, octets=message)

    def _lines(self, whole: Found) -> Iterator[Found]:
        with self._opened(whole.label) as file:
            share, number = _Share(file), 0
            reader = jsonlines.Reader("" if whole.place == STANDARD_INPUT else os.path.dirname(whole.place))
            while line := file.readline():
                number += 1
                if line.isspace():
                    continue
                self._part = share.read
                found = Found(f"{whole.place}:{number}", f"{whole.label}:{number}")
                try:
                    read = reader.read(line)
                except (ValueError, Failure) as error:
                    yield replace(found, problem=error)
                else:
                    yield replace(found, octets=read.octets, sender=read.sender, recipients=read.recipients)

    def _opened(self, argument: str) -> AbstractContextManager[BinaryIO]:
        if argument != STANDARD_INPUT:
            return open(argument, "rb")
        return nullcontext(cast(BinaryIO, StandardInput(self._stop)))


def _told_apart(found: Found, known: Counter[str] | None) -> Found:
    if known is None:
        return found
    known[found.place] += 1
    times = known[found.place]
    return found if times == 1 else replace(found, place=f"{found.place} ({times})")


def _format_of(argument: str) -> str:
    """What a file is, by its name, else by how it begins."""
    if argument == STANDARD_INPUT:
        return "jsonl"
    by_name = _BY_SUFFIX.get(os.path.splitext(argument)[1].lower())
    if by_name is not None:
        return by_name
    if not stat.S_ISREG(os.stat(argument).st_mode):
        return "eml"  # what is read from a pipe is gone
    with open(argument, "rb") as file:
        return "mbox" if file.read(5) == b"From " else "eml"


class _Share:
    """How much of a file was read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        try:
            about = os.fstat(file.fileno())
            self._size = about.st_size if stat.S_ISREG(about.st_mode) else 0
        except OSError:  # it is none
            self._size = 0

    @property
    def read(self) -> float | None:
        return min(self._file.tell() / self._size, 1.0) if self._size else None


class StandardInput:
    """Standard input, read in pieces, so that whoever waits for more of it can be stopped.

    A thread that sits in `read()` when the process ends is more than the interpreter can take.
    """

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._rest = b""
        self._over = False

    def fileno(self) -> int:
        """There is none whose size would tell anything."""
        raise OSError("standard input")

    def readline(self) -> bytes:
        """Return the next line with its end; nothing at the end, or when stopped."""
        searched = 0
        while (end := self._rest.find(b"\n", searched)) < 0:
            searched = len(self._rest)
            if not self._more():
                break
        return self._cut(end + 1 or len(self._rest))

    def read(self, size: int = -1) -> bytes:
        """Return that many octets; fewer only at the end, or when stopped."""
        while (size < 0 or len(self._rest) < size) and self._more():
            pass
        return self._cut(len(self._rest) if size < 0 else size)

    def _cut(self, size: int) -> bytes:
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece

    def _more(self) -> bool:
        """Wait for more; False if there is none."""
        if self._over or not self._waited():
            return False
        piece = self._piece()
        self._over = not piece
        self._rest += piece
        return not self._over

    def _waited(self) -> bool:
        if sys.platform == "win32":
            return True
        try:
            descriptor = sys.stdin.fileno()
        except (OSError, ValueError):  # some other object in its place
            return True
        while not select.select([descriptor], [], [], _PATIENCE)[0]:
            if self._stop.is_set():
                return False
        return True

    def _piece(self) -> bytes:
        try:
            return os.read(sys.stdin.fileno(), 65536)
        except ValueError:
            return sys.stdin.buffer.read()
