"""Content on its way to the wire, slice by slice, from wherever it comes.

`opened` turns a path into an open file before MAIL is sent, so that a missing file leaves no
envelope open at the server, and reads a file once to learn its size. `wire_slices` then reads
the content, normalises and dot-stuffs it, and yields what is to be written (RFC 5321 sections
2.3.8 and 4.5.2), without the final dot.

Rules of this room:

* Files are opened and read in a thread: a slow disk must not stall the loop, not even if the
  send is cancelled while a thread still waits for it.
* What was announced is what leaves. A file that is not the same when it is read again is an
  error before the end of the content, so that nobody gets it.
* No more is held than what was read at once.
* What the caller's iterator raises passes through as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import stat
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
)
from io import BufferedReader
from typing import Protocol, TypeGuard, cast

from .content import SLICE, InMemory, LineNormaliser, Readable, SourceKind, Stream, octets_of

READ = 4 * SLICE
"""Octets read from a file at a time: waiting for a thread has its price."""
_TURN = 16
"""So many slices leave before others on the loop get their turn, if nothing else had to be awaited."""


class _Rereadable(Readable, Protocol):
    def tell(self) -> int: ...
    def seek(self, offset: int, whence: int = ..., /) -> int: ...


# --- Before MAIL ---


@contextlib.asynccontextmanager
async def opened(content: InMemory | Stream) -> AsyncIterator[InMemory | Stream]:
    """The content with its file, if it is a path, open for as long as the block runs.

    A path, or a file that can be read twice, is read once, to its end: then its size is known,
    and whether it has octets over 127. Where a file stood, there it stands again.

    Raises:
        OSError: it cannot be opened or read.
        ValueError: there is a NUL in it.
    """
    if isinstance(content, InMemory) or content.kind not in (SourceKind.PATH, SourceKind.FILE):
        yield content
        return
    survey = _Survey(content)
    if content.kind is SourceKind.FILE:
        yield await survey.wait(asyncio.to_thread(survey.measure, cast(Readable, content.source)))
        return
    loop = asyncio.get_running_loop()
    opening = loop.run_in_executor(None, survey.open)
    try:
        measured = await survey.wait(asyncio.shield(opening))
    except asyncio.CancelledError:
        opening.add_done_callback(_close_late)
        raise
    file = cast(BufferedReader, measured.source)
    close: Callable[[], object] = file.close
    try:
        yield measured
    except asyncio.CancelledError:
        # A thread may still be reading, and close() waits for it: in a thread too.
        close = functools.partial(loop.run_in_executor, None, file.close)
        raise
    finally:
        close()


def _close_late(opening: asyncio.Future[Stream]) -> None:
    """Close a file that nobody waits for any more."""
    if not opening.cancelled() and opening.exception() is None:
        cast(BufferedReader, opening.result().source).close()


class _Survey:
    """Reads a file to its end, in a thread, for as long as somebody wants to know."""

    def __init__(self, content: Stream) -> None:
        self._content = content
        self._wanted = True

    async def wait(self, reading: Awaitable[Stream]) -> Stream:
        try:
            return await reading
        finally:
            self._wanted = False

    def open(self) -> Stream:
        with contextlib.ExitStack() as unless_measured:
            file = unless_measured.enter_context(open(cast("os.PathLike[str]", self._content.source), "rb"))
            measured = self.measure(file)
            unless_measured.pop_all()
        return measured

    def measure(self, file: Readable) -> Stream:
        """The file with what could be learnt about it, which is nothing if that would use it up."""
        size = eightbit = None
        if _is_rereadable(file):
            start = file.tell()
            try:
                if self._content.binary:
                    size = max(0, file.seek(0, os.SEEK_END) - start)
                else:
                    size, eightbit = self._lines(file)
            finally:
                file.seek(start)
        return Stream(file, SourceKind.FILE, binary=self._content.binary, size=size, eightbit=eightbit)

    def _lines(self, file: Readable) -> tuple[int, bool]:
        lines = LineNormaliser(stuff=False)
        while self._wanted and (octets := file.read(SLICE)) != b"":
            lines.feed(octets)
        lines.finish()
        return lines.size, lines.eightbit


def _is_rereadable(file: Readable) -> TypeGuard[_Rereadable]:
    """Tell whether a file is still there when it was read: a pipe is not, and a device has no end."""
    seekable = getattr(file, "seekable", None)
    if seekable is None or not seekable():
        return False
    try:
        # What has no fileno is caught.
        return stat.S_ISREG(os.fstat(file.fileno()).st_mode)  # type: ignore[attr-defined]  # see above
    except (AttributeError, TypeError, OSError):
        return True  # a file in memory, or in an archive


# --- After DATA, or in BDAT ---


async def wire_slices(
    content: InMemory | Stream, *, seven_bit: bool, stuff: bool = True
) -> AsyncGenerator[bytes, None]:
    """Yield the content as it goes out, in slices, without the end.

    Args:
        content: a file as `opened` gave it; binary content needs BDAT.
        seven_bit: the server lacks 8BITMIME, so an octet above 127 in a stream is an error.
        stuff: double leading dots, as DATA needs and BDAT forbids.

    Raises:
        ValueError: a NUL in a stream, or a file that has changed since it was measured.
        SMTPNotSupportedError: an octet above 127 where 8BITMIME is not offered.
    """
    if isinstance(content, InMemory):
        for number, octets in enumerate(content.slices(stuff=stuff), 1):
            yield bytes(octets)
            if number % _TURN == 0:
                await asyncio.sleep(0)
        return
    if content.binary and stuff:
        raise AssertionError("binary content cannot be sent by DATA")
    lines = _AsIs() if content.binary else LineNormaliser(stuff=stuff, seven_bit=seven_bit)
    async with contextlib.aclosing(_chunks(content)) as chunks:
        async for chunk in chunks:
            for start in range(0, len(chunk), SLICE):
                octets = lines.feed(chunk[start : start + SLICE])
                _refuse_surplus(content, lines)
                if octets:
                    yield octets
    end = lines.finish()
    if content.size not in (None, lines.size):
        raise _has_changed()
    if end:
        yield end


class _AsIs:
    """What a `LineNormaliser` is to lines, for octets that are no lines."""

    def __init__(self) -> None:
        self.size = 0
        self.eightbit = False

    def feed(self, data: bytes) -> bytes:
        self.size += len(data)
        return data

    def finish(self) -> bytes:
        return b""


def _refuse_surplus(content: Stream, lines: LineNormaliser | _AsIs) -> None:
    """Raise if there is more than what was announced."""
    if (content.size is not None and lines.size > content.size) or (
        lines.eightbit and content.eightbit is False
    ):
        raise _has_changed()


def _has_changed() -> ValueError:
    return ValueError("the file changed while it was being sent")


async def _chunks(content: Stream) -> AsyncGenerator[bytes, None]:
    if content.kind is SourceKind.FILE:
        file = cast(Readable, content.source)
        # Only b"" is the end: None says that a non-blocking file has nothing yet.
        while (chunk := await asyncio.to_thread(file.read, READ)) != b"":
            yield octets_of(chunk)
    elif content.kind is SourceKind.ASYNC_ITERABLE:
        # What is awaited leaves as it comes.
        async for chunk in cast("AsyncIterable[bytes]", content.source):
            yield octets_of(chunk)
    else:
        for number, chunk in enumerate(_gathered(cast("Iterable[bytes]", content.source)), 1):
            yield chunk
            if number % _TURN == 0:
                await asyncio.sleep(0)


def _gathered(source: Iterable[bytes]) -> Iterator[bytes]:
    """Yield what is there in larger pieces, for it may be no more than lines."""
    held: list[bytes] = []
    length = 0
    for octets in map(octets_of, source):
        if held and length + len(octets) > SLICE:
            yield b"".join(held)
            held, length = [], 0
        held.append(octets)
        length += len(octets)
        if length >= SLICE:
            yield b"".join(held)
            held, length = [], 0
    if held:
        yield b"".join(held)
