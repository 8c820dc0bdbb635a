"""Content on its way out: the same octets from every kind of source, closed in time, never cut short."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from aiosmtpclient import bodies
from aiosmtpclient.bodies import READ, opened, wire_slices
from aiosmtpclient.content import SLICE, InMemory, SourceKind, Stream
from aiosmtpclient.errors import SMTPNotSupportedError

BODY = b"Subject: dots\n\n.\n..two\rlast"
WIRE = b"Subject: dots\r\n\r\n..\r\n...two\r\nlast\r\n"
LONG = b"".join(b".%07d\r\n" % number for number in range(SLICE // 4))
"""Longer than one slice, with a leading dot in every line."""


class File:
    """A file that only reads, and says how much was asked for, and in which thread."""

    def __init__(self, *chunks: object) -> None:
        self.chunks = list(chunks)
        self.asked: list[int] = []
        self.threads: set[int] = set()

    def read(self, size: int = -1, /) -> bytes:
        self.asked.append(size)
        self.threads.add(threading.get_ident())
        return self.chunks.pop(0) if self.chunks else b""  # type: ignore[return-value]


async def pieces(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def sent(content: InMemory | Stream, *, seven_bit: bool = False, stuff: bool = True) -> list[bytes]:
    """Everything that would be written, slice by slice."""
    async with opened(content) as ready:
        return [piece async for piece in wire_slices(ready, seven_bit=seven_bit, stuff=stuff)]


def sources(body: bytes, folder: Path) -> dict[str, Callable[[], InMemory | Stream]]:
    path = folder / "message.eml"
    path.write_bytes(body)
    octets = [body[i : i + 1] for i in range(len(body))]
    return {
        "memory": lambda: InMemory.of(body),
        "path": lambda: Stream.of(path),
        "file": lambda: Stream.of(io.BytesIO(body)),
        "list": lambda: Stream.of([body[:7], b"", body[7:]]),
        "generator": lambda: Stream.of(octet for octet in octets),
        "async generator": lambda: Stream.of(pieces(*octets)),
    }


KINDS = ["memory", "path", "file", "list", "generator", "async generator"]


# The octets


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("body", "wire"),
    [(BODY, WIRE), (b"", b""), (b".", b"..\r\n"), (b"\r\n.\r\n", b"\r\n..\r\n"), (b"a\r\n", b"a\r\n")],
    ids=["lines", "empty", "a dot", "a fake end", "clean"],
)
async def test_every_kind_of_source_gives_the_same_octets(
    kind: str, body: bytes, wire: bytes, tmp_path: Path
) -> None:
    assert b"".join(await sent(sources(body, tmp_path)[kind]())) == wire
    plain = b"".join(await sent(sources(body, tmp_path)[kind](), stuff=False))
    assert plain == InMemory.of(body).data


@pytest.mark.parametrize("kind", KINDS)
async def test_long_content_leaves_in_slices(kind: str, tmp_path: Path) -> None:
    slices = await sent(sources(LONG, tmp_path)[kind]())
    assert len(slices) > 1
    # What is doubled comes on top of what was taken.
    assert max(map(len, slices)) <= 2 * SLICE
    assert b"".join(slices) == LONG.replace(b".", b"..")
    plain = await sent(sources(LONG, tmp_path)[kind](), stuff=False)
    assert max(map(len, plain)) <= SLICE + 1
    assert b"".join(plain) == LONG


@pytest.mark.parametrize("kind", KINDS)
async def test_no_slice_is_empty_for_that_would_look_like_progress(kind: str, tmp_path: Path) -> None:
    assert b"" not in await sent(sources(BODY, tmp_path)[kind]())


async def test_a_file_is_read_piece_by_piece_in_a_thread() -> None:
    file = File(b"a\r\n" * 10, b"b")
    assert await sent(Stream.of(file)) == [b"a\r\n" * 10, b"b", b"\r\n"]
    assert file.asked == [READ, READ, READ]
    assert threading.get_ident() not in file.threads


async def test_lines_of_an_iterable_do_not_leave_one_by_one() -> None:
    lines = [b"%07d\r\n" % number for number in range(SLICE // 3)]
    slices = await sent(Stream.of(iter(lines)))
    assert b"".join(slices) == b"".join(lines)
    assert all(SLICE - 9 < len(one) <= SLICE for one in slices[:-1])


async def test_no_more_than_a_slice_is_taken_from_an_iterable_before_it_is_asked_for() -> None:
    taken = []

    def source() -> Iterator[bytes]:
        for number in range(3):
            taken.append(number)
            yield b"x" * SLICE

    async with contextlib.aclosing(wire_slices(Stream.of(source()), seven_bit=False)) as slices:
        await anext(slices)
        assert taken == [0]


async def test_others_on_the_loop_get_their_turn_while_content_leaves_that_is_all_here() -> None:
    turns = []

    async def other() -> None:
        while True:
            turns.append(None)
            await asyncio.sleep(0)

    for content in (InMemory.of(b"x" * 40 * SLICE), Stream.of([b"x" * SLICE] * 40)):
        waiting = asyncio.create_task(other())
        turns.clear()
        assert len(await sent(content)) >= 40
        waiting.cancel()
        assert len(turns) >= 2


async def test_what_is_awaited_leaves_as_it_comes() -> None:
    source = pieces(b"0\r\n", b"1\r\n")
    async with contextlib.aclosing(wire_slices(Stream.of(source), seven_bit=False)) as slices:
        assert await anext(slices) == b"0\r\n"
    await source.aclose()  # type: ignore[attr-defined]


# What must not leave


@pytest.mark.parametrize("kind", KINDS[1:])
async def test_an_octet_above_127_stops_a_stream_where_8bitmime_is_not_offered(
    kind: str, tmp_path: Path
) -> None:
    body = b"caf\xc3\xa9\r\n"
    assert b"".join(await sent(sources(body, tmp_path)[kind]())) == body
    with pytest.raises(SMTPNotSupportedError):
        await sent(sources(body, tmp_path)[kind](), seven_bit=True)


@pytest.mark.parametrize("kind", KINDS[1:])
async def test_a_nul_in_a_stream_stops_it(kind: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="NUL"):
        await sent(sources(b"a\0b", tmp_path)[kind]())


@pytest.mark.parametrize("wrong", [None, "", "text"])
async def test_a_file_that_has_nothing_yet_does_not_cut_the_message_short(wrong: object) -> None:
    with pytest.raises(TypeError, match="made of bytes"):
        await sent(Stream.of(File(b"first\r\n", wrong, b"second\r\n")))


# Paths


async def test_a_missing_file_is_noticed_when_it_is_opened(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        async with opened(Stream.of(tmp_path / "none")):
            pytest.fail("there is nothing to send")


async def test_content_that_is_no_file_is_left_as_it_is() -> None:
    for content in (InMemory.of(BODY), Stream.of([BODY]), Stream.of(pieces(BODY))):
        async with opened(content) as ready:
            assert ready is content


async def test_a_callers_file_stays_open() -> None:
    file = io.BytesIO(BODY)
    assert b"".join(await sent(Stream.of(file))) == WIRE
    assert not file.closed


@pytest.mark.parametrize("error", [None, OSError, ValueError, asyncio.CancelledError])
async def test_the_file_behind_a_path_is_closed_whatever_happens(
    error: type[BaseException] | None, tmp_path: Path
) -> None:
    path = tmp_path / "message.eml"
    path.write_bytes(BODY)
    with contextlib.suppress(OSError, ValueError, asyncio.CancelledError):
        async with opened(Stream.of(path)) as ready:
            assert isinstance(ready, Stream)
            assert ready.kind is SourceKind.FILE
            file = ready.source
            assert isinstance(file, io.BufferedReader)
            if error is not None:
                raise error
    await asyncio.get_running_loop().shutdown_default_executor()
    assert file.closed


def waiting_in(pipe: int) -> int:
    """Octets that nobody has read yet."""
    import fcntl
    import termios

    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, b"\0\0\0\0"), sys.byteorder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a file that makes its reader wait")
async def test_a_cancelled_send_does_not_wait_for_a_disk_that_is_still_reading(tmp_path: Path) -> None:
    path = tmp_path / "slow"
    os.mkfifo(path)
    slow_disk = os.open(path, os.O_RDWR)
    try:
        async with opened(Stream.of(path)) as ready:
            slices = wire_slices(ready, seven_bit=False)
            reading = asyncio.ensure_future(anext(slices))
            os.write(slow_disk, b"a little")
            while await asyncio.to_thread(waiting_in, slow_disk):  # until the thread has it, and wants more
                pass
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            assert isinstance(ready, Stream)
            file = ready.source
            assert isinstance(file, io.BufferedReader)
            raise asyncio.CancelledError
    except asyncio.CancelledError:
        assert not file.closed  # the thread has it; the loop was not held up
    finally:
        os.write(slow_disk, b"x" * SLICE)  # the disk answers at last
        os.close(slow_disk)
    await asyncio.get_running_loop().shutdown_default_executor()
    assert file.closed


class SlowlyOpened:
    """Stands in for `open`, and takes until it is told to go on."""

    def __init__(self, error: OSError | None = None) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.error = error
        self.file = io.BytesIO()

    def __call__(self, path: object, mode: str) -> io.BytesIO:
        self.begun.set()
        self.go_on.wait()
        if self.error is not None:
            raise self.error
        return self.file


@pytest.mark.parametrize("error", [None, PermissionError()])
async def test_a_file_that_opens_after_the_cancellation_is_not_left_open(
    error: OSError | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slowly = SlowlyOpened(error)
    monkeypatch.setattr(bodies, "open", slowly, raising=False)
    sending = asyncio.create_task(sent(Stream.of(tmp_path)))
    await asyncio.to_thread(slowly.begun.wait)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    slowly.go_on.set()
    await asyncio.get_running_loop().shutdown_default_executor()
    await asyncio.sleep(0)
    assert slowly.file.closed is (error is None)


# What is known before MAIL


class Unseekable(io.BytesIO):
    def seekable(self) -> bool:
        return False


@pytest.mark.parametrize(
    ("body", "size", "eightbit"),
    [
        (b"", 0, False),
        (b"a\r\nb\r\n", 6, False),
        (b"a\nb\n", 6, False),
        (b"a\rb\r", 6, False),
        (b"a\r\nb", 6, False),
        (b".\n..a\n", 8, False),
        (b"caf\xe9\n", 6, True),
        (b"x" * (SLICE - 1) + b"\r\n", SLICE + 1, False),
        (b"x" * SLICE + b"\n\xe9", SLICE + 5, True),
    ],
    ids=["empty", "CRLF", "LF", "CR", "no end", "dots", "8 bit", "CRLF on the edge", "8 bit behind the edge"],
)
@pytest.mark.parametrize("kind", ["path", "file"])
async def test_a_file_s_size_is_known_before_it_is_sent(
    kind: str, body: bytes, size: int, eightbit: bool, tmp_path: Path
) -> None:
    async with opened(sources(body, tmp_path)[kind]()) as ready:
        assert (ready.size, ready.eightbit) == (size, eightbit)
        plain = [piece async for piece in wire_slices(ready, seven_bit=False, stuff=False)]
        assert b"".join(plain) == InMemory.of(body).data
        assert len(b"".join(plain)) == size


async def test_a_file_is_sent_from_where_it_stands_and_measured_from_there() -> None:
    file = io.BytesIO(b"skipped\n" + BODY)
    file.seek(8)
    async with opened(Stream.of(file)) as ready:
        assert ready.size == InMemory.of(BODY).size
        assert file.tell() == 8
        assert b"".join([piece async for piece in wire_slices(ready, seven_bit=False)]) == WIRE


async def test_a_file_is_measured_in_a_thread() -> None:
    threads = set()

    class Watched(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            threads.add(threading.get_ident())
            return super().read(size)

    async with opened(Stream.of(Watched(BODY))) as ready:
        assert ready.size is not None
    assert len(threads) == 1
    assert threading.get_ident() not in threads


@pytest.mark.parametrize("source", [Unseekable(BODY), File(BODY)])
async def test_what_can_be_read_only_once_is_not_measured(source: io.BytesIO) -> None:
    async with opened(Stream.of(source)) as ready:
        assert (ready.size, ready.eightbit) == (None, None)
        assert b"".join([piece async for piece in wire_slices(ready, seven_bit=False)]) == WIRE


async def test_a_pipe_is_not_measured() -> None:
    reading, writing = os.pipe()
    with open(reading, "rb") as file:
        with open(writing, "wb") as other_end:
            other_end.write(BODY)
        assert b"".join(await sent(Stream.of(file))) == WIRE


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs a file without an end")
async def test_a_device_that_never_ends_is_not_measured() -> None:
    async with opened(Stream.of(Path("/dev/zero"))) as ready:
        assert ready.size is None


@pytest.mark.parametrize("kind", ["path", "file"])
async def test_a_nul_in_a_file_is_found_before_it_is_sent(kind: str, tmp_path: Path) -> None:
    content = sources(b"x" * SLICE + b"\0", tmp_path)[kind]()
    with pytest.raises(ValueError, match="NUL"):
        async with opened(content):
            pytest.fail("it would have been sent")
    if kind == "file":
        assert isinstance(content, Stream)
        assert isinstance(content.source, io.BytesIO)
        assert content.source.tell() == 0


@pytest.mark.parametrize("now", [b"a\r\nbb\r\n", b"a\r\n", b"", b"a\r\nb\n\n", b"caf\xe9\n"])
async def test_a_file_that_changes_before_it_is_sent_has_no_end(now: bytes, tmp_path: Path) -> None:
    path = tmp_path / "message.eml"
    path.write_bytes(b"a\r\nb\r\n")
    async with opened(Stream.of(path)) as ready:
        path.write_bytes(now)
        with pytest.raises(ValueError, match="changed while it was being sent"):
            async for _ in wire_slices(ready, seven_bit=False):
                pass


async def test_a_file_that_grows_without_end_is_left_when_it_is_larger_than_it_was() -> None:
    class Growing(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(size) or (b"x" * 10 if self.grows else b"")

        grows = False

    file = Growing(b"a\r\n" * 10)
    async with opened(Stream.of(file)) as ready:
        file.grows = True
        slices = wire_slices(ready, seven_bit=False)
        assert await anext(slices) == b"a\r\n" * 10
        with pytest.raises(ValueError, match="changed"):
            await anext(slices)


async def test_a_cancelled_send_does_not_wait_until_a_file_is_measured() -> None:
    begun, go_on = threading.Event(), threading.Event()
    reads = []

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            reads.append(size)
            begun.set()
            go_on.wait()
            return b"x"  # for ever

    file = Slow(BODY)
    sending = asyncio.create_task(sent(Stream.of(file)))
    await asyncio.to_thread(begun.wait)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    go_on.set()
    await asyncio.get_running_loop().shutdown_default_executor()
    assert len(reads) == 1
    assert file.tell() == 0


# Binary content


@pytest.mark.parametrize("kind", ["path", "file", "list", "generator", "async generator"])
async def test_binary_content_leaves_octet_for_octet(kind: str, tmp_path: Path) -> None:
    body = b"\0\r.\n.\r\n.\xff" * SLICE
    short = body if kind in ("path", "file", "list") else body[:1000]
    stream = sources(short, tmp_path)[kind]()
    assert isinstance(stream, Stream)
    async with opened(Stream.of(stream.source, binary=True)) as ready:
        assert ready.binary
        assert ready.size == (len(body) if kind in ("path", "file") else None)
        slices = [piece async for piece in wire_slices(ready, seven_bit=True, stuff=False)]
    assert b"".join(slices) == short
    assert max(map(len, slices)) <= SLICE


async def test_binary_content_never_goes_by_data() -> None:
    for content in (InMemory.as_is(b"\0"), Stream.of([b"\0"], binary=True)):
        with pytest.raises(AssertionError):
            await sent(content)


async def test_a_binary_file_that_changes_before_it_is_sent_has_no_end(tmp_path: Path) -> None:
    path = tmp_path / "message"
    path.write_bytes(b"\0\0")
    async with opened(Stream.of(path, binary=True)) as ready:
        path.write_bytes(b"\0")
        with pytest.raises(ValueError, match="changed"):
            async for _ in wire_slices(ready, seven_bit=False, stuff=False):
                pass


# What the caller's own code raises


class Broken(Exception):
    """An error of the caller's."""


def breaks() -> Iterator[bytes]:
    yield b"begun\r\n"
    raise Broken


async def breaks_async() -> AsyncIterator[bytes]:
    yield b"begun\r\n"
    raise Broken


class BrokenFile(File):
    def read(self, size: int = -1, /) -> bytes:
        if self.asked:
            raise Broken
        return super().read(size)


@pytest.mark.parametrize("source", [breaks, breaks_async, lambda: BrokenFile(b"begun\r\n")])
async def test_what_the_callers_source_raises_passes_through(source: Callable[[], object]) -> None:
    with pytest.raises(Broken):
        await sent(Stream.of(source()))  # type: ignore[arg-type]
