"""Content: the octets of a message on their way to the wire (RFC 5321 sections 2.3.8 and 4.5.2).

Content that is all here is an `InMemory`. Content that is read while it is sent is a `Stream`,
and goes slice by slice through a `LineNormaliser`. Both give the same octets.

Rules of this room:

* On the wire there is no bare CR, no bare LF and no NUL. Line ends are made right first, and
  leading dots are doubled after that: so no octets, however they were cut into slices, can look
  like the end of the content before it ends (SMTP smuggling).
* A missing final CRLF is added; empty content stays empty.
* Only binary content leaves octet for octet (BINARYMIME, RFC 3030 section 3), and never by DATA.
* Everything is done by whole-slice operations. Large content is never copied as a whole, not even
  to make it right: each slice is made right twice, once to learn the size, once as it leaves.
"""

from __future__ import annotations

import enum
import io
import os
from collections.abc import AsyncIterable, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol, TypeAlias, cast

from .errors import SMTPNotSupportedError


class Readable(Protocol):
    """A file opened for reading octets."""

    def read(self, size: int = ..., /) -> bytes:
        """Return up to `size` octets, none at the end."""
        ...


SLICE = 64 * 1024
"""Octets taken at a time: few enough to stay in the processor's cache, and to hold nobody up."""

Source: TypeAlias = os.PathLike[str] | Readable | Iterable[bytes] | AsyncIterable[bytes]
"""What a `Stream` can be read from."""

Piece: TypeAlias = bytes | str
"""Part of a message. A text has LF for line ends, no CR, and surrogates for octets over 127."""

# `octet in octets` takes a tenth of the time of `b"..." in octets`, which small messages do notice.
_NUL, _CR, _DOT = 0, 13, 46


# --- Octets ---


def octets_of(given: object) -> bytes:
    """Return octets of any type as bytes.

    Raises:
        TypeError: these are no octets.
    """
    if isinstance(given, bytes):
        return given
    if not isinstance(given, (bytearray, memoryview)):
        raise TypeError(f"content is made of bytes, not {type(given).__name__}")
    return bytes(given)


def with_crlf(octets: bytes) -> bytes:
    """Return the octets with CRLF for each bare CR and bare LF: the same object if there is none."""
    if _CR not in octets:
        return octets.replace(b"\n", b"\r\n")
    # Taking single octets out and putting them in again is several times faster than counting pairs.
    if octets.replace(b"\r", b"").replace(b"\n", b"\r\n") == octets:
        return octets
    lines = octets.splitlines()
    if octets.endswith((b"\r", b"\n")):
        lines.append(b"")
    return b"\r\n".join(lines)


def _with_dots(octets: bytes) -> bytes:
    # Twice as fast as replace(), which counts first; from the right faster still. No match, no copy.
    return b"\r\n..".join(octets.rsplit(b"\r\n.")) if _DOT in octets else octets


def stuffed(octets: bytes) -> bytes:
    """Return lines with leading dots doubled (RFC 5321 section 4.5.2), the same object if there are none."""
    octets = _with_dots(octets)
    return b"." + octets if octets.startswith(b".") else octets


def in_lines(octets: bytes, *, clean: bool = False) -> bytes:
    """Return octets whose lines all end in CRLF, the last one too: the same object if they did.

    Args:
        octets: what to send.
        clean: True if it is certain that they do.

    Raises:
        ValueError: there is a NUL in them.
    """
    if _NUL in octets:
        raise _has_nul()
    if not clean:
        octets = with_crlf(octets)
        if octets and not octets.endswith(b"\r\n"):
            octets += b"\r\n"
    return octets


def _has_nul() -> ValueError:
    return ValueError("the content has a NUL octet, which no server takes without BINARYMIME")


def needs_8bitmime() -> SMTPNotSupportedError:
    """Return the error for content with octets over 127 and a server without RFC 6152."""
    return SMTPNotSupportedError(
        "the content has 8-bit octets, and the server does not offer 8BITMIME: encode it, "
        "or pass a message object, which is encoded by itself"
    )


# --- Slices ---


class _Window(NamedTuple):
    """A slice that was not cut out yet."""

    octets: bytes
    start: int
    end: int

    def cut(self) -> bytes:
        return self.octets[self.start : self.end]

    def view(self) -> bytes | memoryview:
        if self.end - self.start == len(self.octets):
            return self.octets
        return memoryview(self.octets)[self.start : self.end]

    def stuffed(self, before: bytes) -> bytes | memoryview:
        """Double leading dots; `before` are the two octets before this slice."""
        octets, start, end = self
        # Looking for one octet takes next to nothing, and base64 has no dots.
        if octets.find(b".", start, end) < 0:
            return self.view()
        at_edge = b"\r\n." in before + octets[start : min(start + 2, end)]
        if not at_edge and octets.rfind(b"\r\n.", start, end) < 0:
            return self.view()
        return _with_dots(before + self.cut())[2:]


def _windows(pieces: Iterable[Piece]) -> Iterator[_Window]:
    """Cut large pieces, and gather small ones. No slice is empty."""
    held: list[bytes] = []
    length = 0
    for piece in pieces:
        if length + len(piece) > SLICE and length:
            yield _Window(b"".join(held), 0, length)
            held, length = [], 0
        if len(piece) > SLICE:
            yield from _text_windows(piece) if isinstance(piece, str) else _octet_windows(piece)
        else:
            held.append(_encoded(piece) if isinstance(piece, str) else piece)
            length += len(held[-1])
    if length:
        yield _Window(b"".join(held), 0, length)


def _octet_windows(octets: bytes) -> Iterator[_Window]:
    start = 0
    while start < len(octets):
        end = start + SLICE
        # A cut between CR and LF would make right line ends look wrong.
        end = min(end + (octets[end - 1 : end + 1] == b"\r\n"), len(octets))
        yield _Window(octets, start, end)
        start = end


def _pieces_of(octets: bytes | bytearray | memoryview) -> Sequence[bytes]:
    """Return what can be kept: bytes as they are, a copy of what may change; not made in one go."""
    if isinstance(octets, bytes):
        return (octets,)
    view = memoryview(octets)
    if not view.c_contiguous:
        return (bytes(view),)
    view = view.cast("B")
    return [bytes(view[start : start + SLICE]) for start in range(0, len(view), SLICE)]


def _text_windows(text: str) -> Iterator[_Window]:
    for start in range(0, len(text), SLICE):
        octets = _encoded(text[start : start + SLICE])
        yield _Window(octets, 0, len(octets))


def _encoded(text: str) -> bytes:
    return text.encode("ascii", "surrogateescape").replace(b"\n", b"\r\n")


# --- In memory ---


class InMemory:
    """Content that is all here. It does not change any more.

    Args:
        data: octets whose lines end in CRLF, the last one too.

    Attributes:
        size: octets, as SIZE counts them: without doubled dots (RFC 1870 section 4).
        eightbit: True if there are octets over 127.
        binary: True if these are no lines, and need BINARYMIME.
    """

    __slots__ = ("_clean", "_pieces", "binary", "eightbit", "size")

    def __init__(self, data: bytes) -> None:
        self._pieces: Sequence[Piece] = (data,)
        self._clean = True
        self.size = len(data)
        self.eightbit = not data.isascii()
        self.binary = False

    @classmethod
    def of(cls, octets: bytes | bytearray | memoryview, *, clean: bool = False) -> InMemory:
        """Make the lines of any octets right.

        Args:
            octets: what to send.
            clean: True if it is certain that every line in them ends in CRLF, the last one too.

        Raises:
            ValueError: there is a NUL in them.
        """
        if len(octets) > SLICE:
            return cls._surveyed(_pieces_of(octets), clean)
        data = octets if type(octets) is bytes else octets_of(octets)
        return cls(in_lines(data, clean=clean))

    @classmethod
    def of_pieces(cls, pieces: Sequence[Piece], *, clean: bool = False) -> InMemory:
        """Make the lines right in a message that comes in pieces; a large one is never joined.

        Args:
            pieces: to be sent in this order.
            clean: True if it is certain that every line ends in CRLF, the last one too; in texts in LF.

        Raises:
            ValueError: there is a NUL in them.
        """
        if sum(map(len, pieces)) > SLICE:
            return cls._surveyed(pieces, clean)
        octets = [_encoded(piece) if isinstance(piece, str) else piece for piece in pieces]
        return cls.of(b"".join(octets), clean=clean)

    @classmethod
    def as_is(cls, octets: bytes | bytearray | memoryview) -> InMemory:
        """Take octets that leave octet for octet (BINARYMIME, RFC 3030 section 3): any octets."""
        content = cls(b"")
        content._pieces = _pieces_of(octets)
        content.size = sum(map(len, content._pieces))
        content.eightbit = content.binary = True
        return content

    @classmethod
    def _surveyed(cls, pieces: Sequence[Piece], clean: bool) -> InMemory:
        """Look at every slice, and keep none."""
        content = cls(b"")
        survey = LineNormaliser(stuff=False)
        if clean:
            for window in _windows(pieces):
                survey.count(window.cut())
        else:
            clean = True
            for window in _windows(pieces):
                octets = window.cut()
                clean &= survey.feed(octets) is octets
            if (end := survey.finish()) and clean:
                pieces = (*pieces, end)
        content._pieces, content._clean = pieces, clean
        content.size, content.eightbit = survey.size, survey.eightbit
        return content

    @property
    def data(self) -> bytes:
        """All octets: lines end in CRLF, the last one too; leading dots are as they were."""
        if self._clean and len(self._pieces) == 1 and isinstance(whole := self._pieces[0], bytes):
            return whole
        return b"".join(self.slices(stuff=False))

    def stuffed(self) -> bytes:
        """Return all octets with leading dots doubled, which is `data` itself if there are none."""
        return stuffed(self.data)

    def slices(self, *, stuff: bool) -> Iterator[bytes | memoryview]:
        """Yield all octets in slices, none of them empty, or longer than two `SLICE`.

        A slice that is right as it is, is a view of the octets that were given.

        Args:
            stuff: double leading dots, as DATA needs and BDAT forbids.
        """
        if self.binary and stuff:
            raise AssertionError("binary content cannot be sent by DATA")
        return self._right(stuff) if self._clean else self._made_right(stuff)

    def _right(self, stuff: bool) -> Iterator[bytes | memoryview]:
        before = b"\r\n"  # where content starts, a line starts
        for window in _windows(self._pieces):
            yield window.stuffed(before) if stuff else window.view()
            octets, start, end = window
            before = (before + octets[max(start, end - 2) : end])[-2:]

    def _made_right(self, stuff: bool) -> Iterator[bytes]:
        normaliser = LineNormaliser(stuff=stuff)
        for window in _windows(self._pieces):
            if octets := normaliser.feed(window.cut()):
                yield octets
        if octets := normaliser.finish():
            yield octets

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, InMemory):
            return NotImplemented
        return (self.size, self.binary, self.data) == (other.size, other.binary, other.data)

    def __repr__(self) -> str:
        # Not the octets: a repr ends up in logs.
        return f"<InMemory {self.size} octets>"


# --- Read while it is sent ---


class SourceKind(enum.Enum):
    """How a `Stream` is to be read."""

    PATH = "path"
    FILE = "file"
    ITERABLE = "iterable"
    ASYNC_ITERABLE = "async iterable"


class Stream:
    """Content that is read while it is sent. Whoever sends it opens, reads and closes.

    Attributes:
        source: where the octets come from.
        kind: how to read it.
        binary: True if it leaves octet for octet, and needs BINARYMIME.
        size: octets, as SIZE counts them; None if nobody knows before the end.
        eightbit: True if there are octets over 127; None likewise.
    """

    __slots__ = ("binary", "eightbit", "kind", "size", "source")

    def __init__(
        self,
        source: Source,
        kind: SourceKind,
        *,
        binary: bool = False,
        size: int | None = None,
        eightbit: bool | None = None,
    ) -> None:
        self.source = source
        self.kind = kind
        self.binary = binary
        self.size = size
        self.eightbit = eightbit

    @classmethod
    def of(cls, source: Source, *, binary: bool = False) -> Stream:
        """Tell what kind of source this is.

        Raises:
            TypeError: none that gives octets.
        """
        return cls(source, _kind(source), binary=binary)

    def __repr__(self) -> str:
        return f"<Stream of {self.kind.value}>"


def _kind(source: object) -> SourceKind:
    if isinstance(source, io.TextIOBase):
        raise TypeError("content is made of bytes: open the file in binary mode")
    if isinstance(source, os.PathLike):
        return SourceKind.PATH
    # Before read(): what asynchronous files and stream readers have is a coroutine.
    if hasattr(source, "__aiter__"):
        return SourceKind.ASYNC_ITERABLE
    if hasattr(source, "read"):
        return SourceKind.FILE
    if hasattr(source, "__iter__"):
        return SourceKind.ITERABLE
    raise TypeError(f"content cannot be a {type(source).__name__}")


def content_of(
    given: str | bytes | bytearray | memoryview | Source, *, binary: bool = False
) -> InMemory | Stream:
    """Take content of any kind but a message object.

    Args:
        given: what to send. A `str` is always text.
        binary: it leaves octet for octet (BINARYMIME, RFC 3030 section 3).

    Raises:
        ValueError: there is a NUL in it and it is not binary, or it is text with non-ASCII characters.
        TypeError: it cannot be content.
    """
    if isinstance(given, str):
        if not given.isascii():
            raise ValueError("text with non-ASCII characters must be given as bytes, or as a message object")
        if len(given) > SLICE and "\r" not in given and not binary:
            return InMemory.of_pieces((given,))
        given = given.encode("ascii")
    take = InMemory.as_is if binary else InMemory.of
    if isinstance(given, bytes):
        return take(given)
    if isinstance(given, (bytearray, memoryview)):
        return take(cast("bytearray | memoryview", given))
    return Stream.of(given, binary=binary)


def quotedata(data: str) -> str:
    """Return the text with every line end made CRLF and leading dots doubled, as `smtplib.quotedata` does."""
    text = data.replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\r\n").replace("\r\n.", "\r\n..")
    return f".{text}" if text.startswith(".") else text


class LineNormaliser:
    """Takes content in slices of any length, and gives back the octets for the wire.

    Args:
        stuff: double leading dots, as DATA needs and BDAT forbids.
        seven_bit: refuse octets over 127, for the server does not offer 8BITMIME.

    Attributes:
        size: octets so far, as SIZE counts them: without doubled dots.
        eightbit: True if there were octets over 127.
    """

    __slots__ = ("_after_cr", "_at_line_start", "_seven_bit", "_stuff", "eightbit", "size")

    def __init__(self, *, stuff: bool = True, seven_bit: bool = False) -> None:
        self.size = 0
        self.eightbit = False
        self._stuff = stuff
        self._seven_bit = seven_bit
        self._at_line_start = True
        # The last slice ended in CR, whose line end is already written: an LF that follows belongs to it.
        self._after_cr = False

    def feed(self, data: bytes) -> bytes:
        """Return what this slice adds to the wire; the same object if it is right as it is.

        Raises:
            ValueError: there is a NUL in it. Nothing more may be sent, and not the end either.
            SMTPNotSupportedError: it has octets over 127, with `seven_bit`.
            TypeError: it is not made of octets.
        """
        octets = octets_of(data)
        self._look_at(octets)
        if not octets:
            return octets
        rest_of_line_end = self._after_cr and octets.startswith(b"\n")
        self._after_cr = octets.endswith(b"\r")
        if rest_of_line_end:
            octets = octets[1:]
        return self._lines(with_crlf(octets)) if octets else b""

    def count(self, octets: bytes) -> None:
        """Take a slice whose line ends are certainly right, and give nothing back.

        Raises:
            ValueError, SMTPNotSupportedError: as `feed`.
        """
        self._look_at(octets)
        self.size += len(octets)

    def _look_at(self, octets: bytes) -> None:
        if _NUL in octets:
            raise _has_nul()
        if not octets.isascii():
            if self._seven_bit:
                raise needs_8bitmime()
            self.eightbit = True

    def _lines(self, octets: bytes) -> bytes:
        starts_line = self._at_line_start
        self._at_line_start = octets.endswith(b"\r\n")
        self.size += len(octets)
        if not self._stuff:
            return octets
        octets = _with_dots(octets)
        return b"." + octets if starts_line and octets.startswith(b".") else octets

    def finish(self) -> bytes:
        """Return the CRLF that the content still owes; nothing if it ended in one, or was empty."""
        return b"" if self._at_line_start else self._lines(b"\r\n")
