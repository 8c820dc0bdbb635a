"""mbox files, read as a stream: many messages in one file, each behind a line that begins "From ".

There are several kinds, which differ in how a line of a message that begins "From " is told from
the line between two messages. Nothing in the file says which kind it is.

Rules of this room:

* One message at a time is in memory.
* A message is given as its writer was given it: what the kind quotes is unquoted.
* What cannot be read as a message is an error in its place, and the next one follows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Protocol

KINDS = ("mboxrd", "mboxo", "mboxcl2")
"""mboxrd quotes ">*From " with one more ">", mboxo only "From "; mboxcl2 counts octets instead."""

_SEPARATOR = b"From "
_QUOTED_RD = re.compile(rb">+From ")
_QUOTED_O = b">From "
_LENGTH = re.compile(rb"content-length[ \t]*:[ \t]*([0-9]{1,12})[ \t]*\r?\n", re.IGNORECASE)


class Lines(Protocol):
    """A file of octets that is read by lines."""

    def readline(self) -> bytes:
        """Return the next line with its end; nothing at the end of the file."""
        ...

    def read(self, size: int, /) -> bytes:
        """Return that many octets; fewer only at the end of the file."""
        ...


def messages(file: Lines, kind: str) -> Iterator[bytes | ValueError]:
    """Yield the messages of an mbox, or what is wrong with one.

    Args:
        file: the mbox.
        kind: one of `KINDS`.
    """
    return (
        _counted(file)
        if kind == "mboxcl2"
        else _quoted(file, _unquoted_rd if kind == "mboxrd" else _unquoted_o)
    )


def _unquoted_rd(line: bytes) -> bytes:
    return line[1:] if _QUOTED_RD.match(line) else line


def _unquoted_o(line: bytes) -> bytes:
    return line[1:] if line.startswith(_QUOTED_O) else line


def _is_blank(line: bytes) -> bool:
    return line in (b"\n", b"\r\n")


def _quoted(file: Lines, unquoted: Callable[[bytes], bytes]) -> Iterator[bytes | ValueError]:
    lines: list[bytes] | None = None
    blank = True
    while line := file.readline():
        # A blank line stands before each separator, so that a lost ">" cuts no message in two.
        if blank and line.startswith(_SEPARATOR):
            if lines is not None:
                yield _joined(lines)
            lines, blank = [], False
            continue
        blank = _is_blank(line)
        if lines is not None:
            lines.append(unquoted(line))
        elif not blank:
            yield _no_mbox()
            return
    if lines is not None:
        yield _joined(lines)


def _joined(lines: list[bytes]) -> bytes:
    # The blank line before the next separator belongs to the mbox, not to the message.
    if lines and _is_blank(lines[-1]):
        lines.pop()
    return b"".join(lines)


def _counted(file: Lines) -> Iterator[bytes | ValueError]:
    line = _next_line(file)
    while line:
        if not line.startswith(_SEPARATOR):
            yield _no_mbox()
            return
        head, length = _head(file)
        body = file.read(length) if length is not None else b""
        line = file.readline()
        fits = not line or _is_blank(line) or line.startswith(_SEPARATOR)
        if length is None or len(body) < length or not fits:
            yield ValueError(
                "it has no Content-Length that fits, so where it ends is unknown: is it mboxcl2?"
            )
            line = _next_separator(file, line)
        else:
            yield head + body
            line = _next_line(file) if _is_blank(line) else line


def _head(file: Lines) -> tuple[bytes, int | None]:
    """The header block with its blank line, and what it says about the length of the body."""
    lines, length = [], None
    while line := file.readline():
        lines.append(line)
        if _is_blank(line):
            break
        if match := _LENGTH.fullmatch(line):
            length = int(match[1])
    return b"".join(lines), length


def _next_line(file: Lines) -> bytes:
    while _is_blank(line := file.readline()):
        pass
    return line


def _next_separator(file: Lines, line: bytes) -> bytes:
    while line and not line.startswith(_SEPARATOR):
        line = file.readline()
    return line


def _no_mbox() -> ValueError:
    return ValueError('no mbox: it does not begin with "From "')
