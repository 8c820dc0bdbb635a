"""Content: the same octets leave, however the caller gave them and wherever they were cut."""

from __future__ import annotations

import io
import itertools
import pathlib
import re
from collections.abc import AsyncIterator, Iterable, Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aiosmtpclient.content import (
    SLICE,
    InMemory,
    LineNormaliser,
    SourceKind,
    Stream,
    content_of,
    quotedata,
)
from aiosmtpclient.errors import SMTPNotSupportedError

BODIES = st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"x", b"\xe9"]), max_size=24).map(b"".join)


def whole(body: bytes) -> bytes:
    """The model: what a body is after normalisation, written down the slow way."""
    if not body:
        return b""
    lines = re.split(rb"\r\n|\r|\n", body)
    if lines[-1] == b"":
        lines.pop()
    return b"".join(line + b"\r\n" for line in lines)


def stuffed(body: bytes) -> bytes:
    return b"".join(
        (b"." if line.startswith(b".") else b"") + line for line in whole(body).splitlines(keepends=True)
    )


def through(normaliser: LineNormaliser, slices: Iterable[bytes]) -> bytes:
    return b"".join([*map(normaliser.feed, slices), normaliser.finish()])


def cut(body: bytes, places: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted(min(place, len(body)) for place in places), len(body)]
    return [body[start:end] for start, end in itertools.pairwise(edges)]


# The line normaliser


@given(BODIES, st.lists(st.integers(0, 48), max_size=8))
@example(b"a\r\n.\r\n", [1, 2, 3, 4, 5])
@example(b"\r\n.b", [1, 1, 2])
@example(b"\n\r.\r.\n", [1, 2, 3, 4, 5, 6])
def test_a_slice_boundary_changes_nothing_on_the_wire(body: bytes, places: list[int]) -> None:
    slices = cut(body, places)
    normaliser = LineNormaliser()
    assert through(normaliser, slices) == stuffed(body)
    assert normaliser.size == len(whole(body))
    plain = LineNormaliser(stuff=False)
    assert through(plain, slices) == whole(body)
    assert plain.size == len(whole(body))


@given(BODIES)
def test_every_single_cut_of_a_body_gives_the_same_octets(body: bytes) -> None:
    for place in range(len(body) + 1):
        assert through(LineNormaliser(), cut(body, [place])) == stuffed(body)
    assert through(LineNormaliser(), (bytes([octet]) for octet in body)) == stuffed(body)


@given(BODIES)
def test_content_in_memory_is_what_a_stream_would_be(body: bytes) -> None:
    content = InMemory.of(body)
    assert content.data == whole(body)
    assert content.stuffed() == stuffed(body)
    assert content.size == len(whole(body))
    assert content.eightbit is (b"\xe9" in body)


@pytest.mark.parametrize(
    "fake_end",
    [
        b"\n.\n",
        b"\n.\r\n",
        b"\r.\r",
        b"\r\n.\r",
        b"\r.\r\n",
        b"\r\n.\n",
        b"\r\n\0.\r\n",
        b"\r\n.\r\0\n",
        b"\r\r\n.\r\r\n",
    ],
)
def test_smuggled_end_of_data_ends_nothing(fake_end: bytes) -> None:
    body = b"a" + fake_end + b"MAIL FROM:<x@y>\r\n"
    if b"\0" in body:
        with pytest.raises(ValueError, match="NUL"):
            through(LineNormaliser(), [body])
        return
    for slices in ([body], (bytes([octet]) for octet in body)):
        wire = through(LineNormaliser(), slices)
        assert not re.search(rb"(^|\r|\n)\.(\r|\n|$)", wire)
        assert not re.search(rb"\r(?!\n)|(?<!\r)\n", wire)


def test_what_owes_nothing_is_finished_with_nothing() -> None:
    normaliser = LineNormaliser()
    assert normaliser.finish() == b""
    assert normaliser.feed(b"a\r") == b"a\r\n"
    assert normaliser.finish() == b""
    assert normaliser.feed(b"\n") == b""
    assert normaliser.feed(b"b") == b"b"
    assert normaliser.finish() == b"\r\n"
    assert normaliser.finish() == b""
    assert normaliser.size == 6


def test_an_empty_slice_does_not_part_cr_from_lf() -> None:
    assert through(LineNormaliser(), [b"a\r", b"", b"\n", b"b\r\n"]) == b"a\r\nb\r\n"


@pytest.mark.parametrize("slices", [[b"\0"], [b"abc", b"d\0e"], [b"a\r", b"\n\0"]])
def test_nul_stops_a_stream(slices: list[bytes]) -> None:
    with pytest.raises(
        ValueError, match=r"^the content has a NUL octet, which no server takes without BINARYMIME$"
    ):
        through(LineNormaliser(), slices)


def test_8_bit_octets_need_8bitmime() -> None:
    normaliser = LineNormaliser(seven_bit=True)
    assert normaliser.feed(b"plain ") == b"plain "
    with pytest.raises(
        SMTPNotSupportedError, match=r"^the content has 8-bit octets, and .* not offer 8BITMIME: encode it, "
    ):
        normaliser.feed(b"caf\xe9")
    assert LineNormaliser().feed(b"caf\xe9") == b"caf\xe9"


def test_clean_octets_are_not_copied() -> None:
    slice_ = b"clean\r\n" * 1000
    assert LineNormaliser().feed(slice_) is slice_
    assert InMemory.of(slice_).data is slice_
    assert InMemory.of(slice_).stuffed() is slice_


def test_slices_may_be_any_octets_but_not_text() -> None:
    assert LineNormaliser().feed(bytearray(b"a\r")) == b"a\r\n"
    assert LineNormaliser().feed(memoryview(b"a\n")) == b"a\r\n"
    for wrong in ("a", 5, None):
        with pytest.raises(TypeError, match="content is made of bytes, not"):
            LineNormaliser().feed(wrong)  # type: ignore[arg-type]


SHORT = [bytes(octets) for length in range(6) for octets in itertools.product(b"\r\n.\0x", repeat=length)]
"""Every body of up to five octets that are all there is to know about."""


@pytest.mark.parametrize("stuff", [True, False])
def test_every_short_body_in_all_possible_slices_is_what_it_is_in_one_piece(stuff: bool) -> None:
    for body in SHORT:
        expected = None
        if b"\0" not in body:
            content = InMemory.of(body)
            expected = content.stuffed() if stuff else content.data
        for cuts in range(2 ** max(0, len(body) - 1)):
            slices = cut(body, [place for place in range(1, len(body)) if cuts >> (place - 1) & 1])
            normaliser = LineNormaliser(stuff=stuff)
            if expected is None:
                with pytest.raises(ValueError, match="NUL"):
                    through(normaliser, slices)
            else:
                assert through(normaliser, slices) == expected
                assert normaliser.size == content.size


def test_a_slice_that_is_certainly_right_is_only_counted() -> None:
    normaliser = LineNormaliser(stuff=False)
    normaliser.count(b"a\r\n")
    assert (normaliser.size, normaliser.eightbit) == (3, False)
    normaliser.count(b"\xe9\r\n")
    assert (normaliser.size, normaliser.eightbit) == (6, True)
    with pytest.raises(ValueError, match="NUL"):
        normaliser.count(b"\0\r\n")


# In memory


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_octets_are_content(kind: type) -> None:
    content = content_of(kind(b"a\nb"))
    assert isinstance(content, InMemory)
    assert content.data == b"a\r\nb\r\n"
    assert type(content.data) is bytes


def test_empty_content_stays_empty() -> None:
    assert InMemory.of(b"").data == b""
    assert InMemory.of(b"").stuffed() == b""


def test_nul_in_memory_is_an_error() -> None:
    with pytest.raises(ValueError, match="NUL"):
        InMemory.of(b"a\0b")


def test_ascii_text_is_content_and_other_text_is_not() -> None:
    content = content_of("a\nb")
    assert isinstance(content, InMemory)
    assert content.data == b"a\r\nb\r\n"
    with pytest.raises(ValueError, match="non-ASCII"):
        content_of("café")


def test_the_content_is_not_in_the_repr() -> None:
    assert repr(InMemory.of(b"secret")) == "<InMemory 8 octets>"
    assert repr(Stream.of([b"secret"])) == "<Stream of iterable>"


def test_contents_are_equal_if_the_same_octets_leave_in_the_same_way() -> None:
    assert InMemory.of(b"a\nb") == InMemory(b"a\r\nb\r\n")
    assert InMemory.of(b"a\n") != InMemory.of(b"b\n")
    assert InMemory.of(b"a\r\n") != InMemory.as_is(b"a\r\n")
    assert InMemory.of(b"a\n") != b"a\r\n"


# In slices, as it leaves


@pytest.fixture
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices so small that every short body is a large one."""
    monkeypatch.setattr("aiosmtpclient.content.SLICE", 2)


def joined(content: InMemory, *, stuff: bool) -> bytes:
    slices = [bytes(octets) for octets in content.slices(stuff=stuff)]
    assert b"" not in slices
    return b"".join(slices)


@pytest.mark.usefixtures("small_slices")
def test_every_short_body_leaves_in_slices_as_in_one_piece() -> None:
    for body in SHORT:
        if b"\0" in body:
            with pytest.raises(ValueError, match="NUL"):
                InMemory.of(body)
            continue
        content = InMemory.of(body)
        assert joined(content, stuff=True) == content.stuffed() == stuffed(body)
        assert joined(content, stuff=False) == content.data == whole(body)
        assert content.size == len(whole(body))


@pytest.mark.usefixtures("small_slices")
@given(BODIES, st.lists(st.integers(0, 48), max_size=8))
def test_pieces_of_any_length_leave_as_the_whole_would(body: bytes, places: list[int]) -> None:
    content = InMemory.of_pieces(cut(body, places))
    assert joined(content, stuff=True) == stuffed(body)
    assert joined(content, stuff=False) == content.data == whole(body)
    assert (content.size, content.eightbit) == (len(whole(body)), b"\xe9" in body)
    right = InMemory.of_pieces(cut(whole(body), places), clean=True)
    assert joined(right, stuff=True) == stuffed(body)
    assert joined(right, stuff=False) == whole(body)
    assert (right.size, right.eightbit) == (content.size, content.eightbit)


@pytest.mark.usefixtures("small_slices")
@given(st.lists(st.text(alphabet="\n.x\udce9", max_size=8)), st.lists(BODIES))
def test_texts_among_the_pieces_have_line_feeds(texts: list[str], octets: list[bytes]) -> None:
    pieces = [piece for pair in itertools.zip_longest(octets, texts) for piece in pair if piece]
    model = b"".join(
        piece.encode("ascii", "surrogateescape").replace(b"\n", b"\r\n") if isinstance(piece, str) else piece
        for piece in pieces
    )
    content = InMemory.of_pieces(pieces)
    assert joined(content, stuff=True) == stuffed(model)
    assert joined(content, stuff=False) == content.data == whole(model)
    assert (content.size, content.eightbit) == (len(whole(model)), b"\xe9" in model)


def test_a_line_end_that_is_alone_in_a_slice_still_starts_a_line() -> None:
    # The dot stands first in its slice, and the slice before it is a single octet.
    pieces = [b"a" * (SLICE - 1) + b"\r", b"\n", b".b" + b"c" * SLICE + b"\r\n"]
    content = InMemory.of_pieces(pieces, clean=True)
    assert [len(octets) for octets in content.slices(stuff=False)] == [SLICE, 1, SLICE, 4]
    assert joined(content, stuff=True) == stuffed(b"".join(pieces))


@pytest.mark.parametrize("place", [0, 1, 2, *range(SLICE - 4, SLICE + 3), 2 * SLICE - 3])
def test_the_only_dot_of_a_large_body_is_doubled_wherever_its_line_starts(place: int) -> None:
    body = b"a" * place + b"\r\n.b" + b"c" * (2 * SLICE) + b"\r\n"
    assert joined(InMemory.of(body), stuff=True) == stuffed(body)
    assert joined(InMemory.of(body, clean=True), stuff=True) == stuffed(body)


def test_small_pieces_may_be_texts_too() -> None:
    content = InMemory.of_pieces([b"a\r\n", "b\n.\n"], clean=True)
    assert content == InMemory(b"a\r\nb\r\n.\r\n")


@pytest.mark.parametrize("end", [b"\r\n", b"\n", b"\r"])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_large_octets_of_every_kind_leave_as_the_model_says(kind: type, end: bytes) -> None:
    body = b"".join(b"%s%05d%s" % (b"." * (number % 3), number, end) for number in range(2 * SLICE // 7))
    content = content_of(kind(body))
    assert isinstance(content, InMemory)
    assert joined(content, stuff=True) == stuffed(body)
    assert joined(content, stuff=False) == whole(body)
    assert content.size == len(whole(body))
    assert max(len(octets) for octets in content.slices(stuff=True)) <= 2 * SLICE


@pytest.mark.parametrize("end", ["\r\n", "\n", "\r"])
def test_large_text_leaves_as_its_octets_would(end: str) -> None:
    text = f"some words{end}.{end}" * (SLICE // 8) + "end"
    content = content_of(text)
    assert isinstance(content, InMemory)
    assert content == InMemory.of(text.encode())
    assert content.data.endswith(b".\r\nend\r\n")


def test_octets_that_are_right_leave_uncopied() -> None:
    body = b"a line, and a dot.\r\n" * SLICE
    slices = list(InMemory.of(body).slices(stuff=True))
    assert len(slices) > 10
    assert all(isinstance(octets, memoryview) and octets.obj is body for octets in slices)
    # One leading dot is a copy of one slice.
    dotted = body[: len(body) // 2 // 20 * 20] + b"." + body
    kinds = [type(octets) for octets in InMemory.of(dotted).slices(stuff=True)]
    assert kinds.count(bytes) == 1
    assert all(type(octets) is memoryview for octets in InMemory.of(dotted).slices(stuff=False))


def test_a_missing_line_end_does_not_make_a_copy_of_it_all() -> None:
    body = b"a line\r\n" * SLICE + b"end"
    content = InMemory.of(body)
    *slices, last = content.slices(stuff=True)
    assert all(isinstance(octets, memoryview) and octets.obj is body for octets in slices)
    assert last == b"\r\n"
    assert content.size == len(body) + 2


@pytest.mark.parametrize("place", [0, SLICE - 1, SLICE, 3 * SLICE])
def test_a_nul_is_found_wherever_it_stands_in_large_octets(place: int) -> None:
    octets = bytearray(b"x" * (3 * SLICE + 1))
    octets[place] = 0
    for clean in (True, False):
        with pytest.raises(ValueError, match="NUL"):
            InMemory.of(bytes(octets), clean=clean)


@pytest.mark.parametrize("place", [0, SLICE - 1, SLICE, 3 * SLICE])
def test_an_8_bit_octet_is_found_wherever_it_stands_in_large_octets(place: int) -> None:
    octets = bytearray(b"x" * (3 * SLICE + 1))
    assert not InMemory.of(octets).eightbit
    octets[place] = 0xE9
    assert InMemory.of(octets).eightbit


@pytest.mark.parametrize("length", [3, 3 * SLICE])
def test_what_the_caller_changes_later_does_not_leave(length: int) -> None:
    octets = bytearray(b"x" * length + b"\r\n")
    contents = [InMemory.of(octets), InMemory.of(octets, clean=True), InMemory.as_is(octets)]
    octets[:] = b"y" * len(octets)
    for content in contents:
        assert content.data == b"x" * length + b"\r\n"
        assert type(content.data) is bytes


def test_octets_of_a_view_with_gaps_are_taken_as_well() -> None:
    every_other = memoryview(b"ab" * 2 * SLICE)[::2]
    assert InMemory.of(every_other).data == b"a" * 2 * SLICE + b"\r\n"


# Binary content


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("octets", [b"", b"\0\r.\n.\r\n.\n\xff", b"\0\n.\r" * SLICE])
def test_binary_content_leaves_octet_for_octet(kind: type, octets: bytes) -> None:
    content = content_of(kind(octets), binary=True)
    assert isinstance(content, InMemory)
    assert content.binary
    assert content.size == len(octets)
    assert content.data == joined(content, stuff=False) == octets
    with pytest.raises(AssertionError):
        content.slices(stuff=True)


def test_other_content_is_not_binary() -> None:
    assert not InMemory.of(b"a").binary
    assert not Stream.of([b"a"]).binary
    stream = content_of([b"a"], binary=True)
    assert isinstance(stream, Stream)
    assert stream.binary


# Streams


class AsyncFile:
    """Like the files of the usual packages: read() is a coroutine, and iterating is asynchronous."""

    async def read(self, size: int = -1) -> bytes:
        return b""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b""


def _generator() -> Iterator[bytes]:
    yield b""


async def _async_generator() -> AsyncIterator[bytes]:
    yield b""


@pytest.mark.parametrize("end", ["\r\n", "\n", "\r"])
@pytest.mark.parametrize("length", [65534, 65535, 65536, 65537])
def test_line_ends_are_made_right_wherever_large_octets_are_cut(length: int, end: str) -> None:
    octets = b"x" * length + end.encode() + b"y\r\n" * 30_000
    assert InMemory.of(octets).data == b"x" * length + b"\r\n" + b"y\r\n" * 30_000


def test_right_octets_are_not_copied() -> None:
    octets = b"a line\r\n" * 30_000
    assert InMemory.of(octets).data is octets
    assert InMemory.of(octets, clean=True).data is octets


def test_octets_that_are_known_to_be_clean_are_still_searched_for_nul() -> None:
    assert InMemory.of(b"a\r\n", clean=True) == InMemory(b"a\r\n")
    with pytest.raises(ValueError, match="NUL"):
        InMemory.of(b"a\0\r\n", clean=True)


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        (pathlib.Path("a.eml"), SourceKind.PATH),
        (io.BytesIO(b"a"), SourceKind.FILE),
        ([b"a", b"b"], SourceKind.ITERABLE),
        (_generator(), SourceKind.ITERABLE),
        (_async_generator(), SourceKind.ASYNC_ITERABLE),
        (AsyncFile(), SourceKind.ASYNC_ITERABLE),
    ],
)
def test_a_stream_says_how_it_is_read(source: object, kind: SourceKind) -> None:
    stream = content_of(source)  # type: ignore[arg-type]
    assert isinstance(stream, Stream)
    assert stream.kind is kind
    assert stream.source is source
    assert stream.size is None
    assert stream.eightbit is None


def test_a_text_file_is_no_content() -> None:
    with pytest.raises(TypeError, match="binary mode"):
        content_of(io.StringIO("a"))  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [5, None, object()])
def test_what_gives_no_octets_is_no_content(wrong: object) -> None:
    with pytest.raises(TypeError, match="content cannot be a"):
        content_of(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("", ""),
        (".", ".."),
        ("a\nb\rc\r\nd", "a\r\nb\r\nc\r\nd"),
        ("a\n\r\r\n\nb", "a\r\n\r\n\r\n\r\nb"),
        (".a\n..b\r.c.\r\n", "..a\r\n...b\r\n..c.\r\n"),
        ("ő\n", "ő\r\n"),
    ],
)
def test_quoted_text_has_right_line_ends_and_doubled_dots(text: str, quoted: str) -> None:
    assert quotedata(text) == quoted
