"""Content: the octets of a message on their way to the wire (RFC 5321 sections 2.3.8 and 4.5.2).

Content that is all here is an `InMemory`. Content that is read while it is sent is a `Stream`,
and goes slice by slice through a `LineNormaliser`. Both give the same octets.

Rules of this room:

* On the wire there is no bare CR, no bare LF and no NUL. Line ends are made right first, and
  leading dots are doubled after that: so no octets, however they were cut into slices, can look
  like the end of the content before it ends (SMTP smuggling).
* A missing final CRLF is added; empty content stays empty.
* Everything is done by whole-slice operations, and clean octets are not copied.
"""

from __future__ import annotations

import enum
import io
import os
from collections.abc import AsyncIterable, Iterable
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from .errors import SMTPNotSupportedError


class Readable(Protocol):
    """A file opened for reading octets."""

    def read(self, size: int = ..., /) -> bytes:
        """Return up to `size` octets, none at the end."""
        ...


_SLICE = 1 << 16

Source: TypeAlias = os.PathLike[str] | Readable | Iterable[bytes] | AsyncIterable[bytes]
"""What a `Stream` can be read from."""


def _has_right_line_ends(octets: bytes) -> bool:
    start = 0
    # Slice by slice: a copy of it all would be made in slow memory.
    while piece := octets[start : start + _SLICE]:
        if piece.endswith(b"\r"):
            piece = octets[start : start + _SLICE + 1]
        # Taking single octets out and putting them in again is several times faster than counting pairs.
        if piece.replace(b"\r", b"").replace(b"\n", b"\r\n") != piece:
            return False
        start += len(piece)
    return True


def _with_crlf(octets: bytes) -> bytes:
    if _has_right_line_ends(octets):
        return octets
    if b"\r" not in octets:
        return octets.replace(b"\n", b"\r\n")
    return octets.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")


def _checked(octets: object) -> bytes:
    if not isinstance(octets, bytes):
        if not isinstance(octets, (bytearray, memoryview)):
            raise TypeError(f"content is made of bytes, not {type(octets).__name__}")
        octets = bytes(octets)
    if b"\0" in octets:
        raise ValueError("the content has a NUL octet, which no server takes without BINARYMIME")
    return octets


def needs_8bitmime() -> SMTPNotSupportedError:
    """Return the error for content with octets over 127 and a server without RFC 6152."""
    return SMTPNotSupportedError("the content has 8-bit octets, and the server does not offer 8BITMIME")


@dataclass(frozen=True, slots=True)
class InMemory:
    """Content that is all here.

    Attributes:
        data: lines end in CRLF, the last one too; leading dots are as they were.
    """

    data: bytes = field(repr=False)

    @classmethod
    def of(cls, octets: bytes | bytearray | memoryview, *, clean: bool = False) -> InMemory:
        """Make the lines of any octets right.

        Args:
            octets: what to send.
            clean: True if it is certain that every line in them ends in CRLF, the last one too.

        Raises:
            ValueError: there is a NUL in them.
        """
        if clean:
            return cls(_checked(octets))
        data = _with_crlf(_checked(octets))
        return cls(data if not data or data.endswith(b"\r\n") else data + b"\r\n")

    @property
    def size(self) -> int:
        """Octets, as SIZE counts them: without doubled dots (RFC 1870 section 4)."""
        return len(self.data)

    @property
    def eightbit(self) -> bool:
        """True if there are octets over 127."""
        return not self.data.isascii()

    def stuffed(self) -> bytes:
        """Return the octets with leading dots doubled, which is `data` itself if there are none."""
        data = self.data.replace(b"\r\n.", b"\r\n..")
        return b"." + data if data.startswith(b".") else data


class SourceKind(enum.Enum):
    """How a `Stream` is to be read."""

    PATH = "path"
    FILE = "file"
    ITERABLE = "iterable"
    ASYNC_ITERABLE = "async iterable"


@dataclass(frozen=True, slots=True)
class Stream:
    """Content that is read while it is sent. Whoever sends it opens, reads and closes.

    Attributes:
        source: where the octets come from.
        kind: how to read it.
        size: None, for nobody knows before the end.
        eightbit: None, likewise.
    """

    source: Source
    kind: SourceKind
    size: None = field(default=None, init=False, repr=False)
    eightbit: None = field(default=None, init=False, repr=False)

    @classmethod
    def of(cls, source: Source) -> Stream:
        """Tell what kind of source this is.

        Raises:
            TypeError: none that gives octets.
        """
        return cls(source, _kind(source))


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


def content_of(given: str | bytes | bytearray | memoryview | Source) -> InMemory | Stream:
    """Take content of any kind but a message object.

    Raises:
        ValueError: there is a NUL in it, or it is text with non-ASCII characters.
        TypeError: it cannot be content.
    """
    if isinstance(given, str):
        if not given.isascii():
            raise ValueError("text with non-ASCII characters must be given as bytes, or as a message object")
        return InMemory.of(given.encode("ascii"))
    if isinstance(given, (bytes, bytearray, memoryview)):
        return InMemory.of(bytes(given))
    return Stream.of(given)


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
    """

    __slots__ = ("_after_cr", "_at_line_start", "_seven_bit", "_stuff", "size")

    def __init__(self, *, stuff: bool = True, seven_bit: bool = False) -> None:
        self.size = 0
        self._stuff = stuff
        self._seven_bit = seven_bit
        self._at_line_start = True
        # The last slice ended in CR, whose line end is already written: an LF that follows belongs to it.
        self._after_cr = False

    def feed(self, data: bytes) -> bytes:
        """Return what this slice adds to the wire.

        Raises:
            ValueError: there is a NUL in it. Nothing more may be sent, and not the end either.
            SMTPNotSupportedError: it has octets over 127, with `seven_bit`.
            TypeError: it is not made of octets.
        """
        octets = _checked(data)
        if self._seven_bit and not octets.isascii():
            raise needs_8bitmime()
        if not octets:
            return b""
        rest_of_line_end = self._after_cr and octets.startswith(b"\n")
        self._after_cr = octets.endswith(b"\r")
        if rest_of_line_end:
            octets = octets[1:]
        return self._lines(_with_crlf(octets)) if octets else b""

    def _lines(self, octets: bytes) -> bytes:
        starts_line = self._at_line_start
        self._at_line_start = octets.endswith(b"\r\n")
        self.size += len(octets)
        if not self._stuff:
            return octets
        octets = octets.replace(b"\r\n.", b"\r\n..")
        return b"." + octets if starts_line and octets.startswith(b".") else octets

    def finish(self) -> bytes:
        """Return the CRLF that the content still owes; nothing if it ended in one, or was empty."""
        return b"" if self._at_line_start else self._lines(b"\r\n")
