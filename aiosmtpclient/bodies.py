"""Content on its way to the wire, slice by slice, from wherever it comes.

`opened` turns a path into an open file before MAIL is sent, so that a missing file leaves no
envelope open at the server. `wire_slices` then reads the content, normalises and dot-stuffs it,
and yields what is to be written (RFC 5321 sections 2.3.8 and 4.5.2), without the final dot.

Rules of this room:

* Files are opened and read in a thread: a slow disk must not stall the loop, not even if the
  send is cancelled while a thread still waits for it.
* At most one slice is held.
* What the caller's iterator raises passes through as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
import os
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable
from typing import cast

from .content import InMemory, LineNormaliser, Readable, SourceKind, Stream

SLICE = 64 * 1024
"""Octets read and written at a time. What is written is seen to leave by as much at once."""


@contextlib.asynccontextmanager
async def opened(content: InMemory | Stream) -> AsyncIterator[InMemory | Stream]:
    """The content with its file, if it is a path, open for as long as the block runs."""
    if isinstance(content, InMemory) or content.kind is not SourceKind.PATH:
        yield content
        return
    loop = asyncio.get_running_loop()
    file = await _open(loop, cast("os.PathLike[str]", content.source))
    close: Callable[[], object] = file.close
    try:
        yield Stream.of(file)
    except asyncio.CancelledError:
        # A thread may still be reading, and close() waits for it: in a thread too.
        close = functools.partial(loop.run_in_executor, None, file.close)
        raise
    finally:
        close()


async def _open(loop: asyncio.AbstractEventLoop, path: os.PathLike[str]) -> io.BufferedReader:
    opening = loop.run_in_executor(None, _in_thread, path)
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close_late)
        raise


def _in_thread(path: os.PathLike[str]) -> io.BufferedReader:
    return open(path, "rb")


def _close_late(opening: asyncio.Future[io.BufferedReader]) -> None:
    """Close a file that nobody waits for any more."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


async def wire_slices(content: InMemory | Stream, *, seven_bit: bool) -> AsyncGenerator[bytes, None]:
    """Yield the content as it goes out, in slices, without the end.

    Args:
        seven_bit: the server lacks 8BITMIME, so an octet above 127 in a stream is an error.

    Raises:
        ValueError: a NUL in a stream.
        SMTPNotSupportedError: an octet above 127 where 8BITMIME is not offered.
    """
    if isinstance(content, InMemory):
        wire = content.stuffed()
        for start in range(0, len(wire), SLICE):
            yield wire[start : start + SLICE]
        return
    normaliser = LineNormaliser(seven_bit=seven_bit)
    # What is awaited leaves as it comes. An iterable that is there, of lines say, is gathered.
    at_once = content.kind is not SourceKind.ITERABLE
    held = bytearray()
    async with contextlib.aclosing(_chunks(content)) as chunks:
        async for chunk in chunks:
            held += normaliser.feed(chunk)
            while len(held) >= SLICE or (held and at_once):
                yield bytes(held[:SLICE])
                del held[:SLICE]
    held += normaliser.finish()
    if held:
        yield bytes(held)


async def _chunks(content: Stream) -> AsyncGenerator[bytes, None]:
    if content.kind is SourceKind.FILE:
        file = cast(Readable, content.source)
        # Only b"" is the end: None says that a non-blocking file has nothing yet.
        while (chunk := await asyncio.to_thread(file.read, SLICE)) != b"":
            yield chunk
    elif content.kind is SourceKind.ASYNC_ITERABLE:
        async for chunk in cast("AsyncIterable[bytes]", content.source):
            yield chunk
    else:
        for chunk in cast("Iterable[bytes]", content.source):
            yield chunk
