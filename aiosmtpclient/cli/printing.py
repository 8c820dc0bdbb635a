"""Printing: results to standard output, everything else to standard error.

Rules of this room:

* Nothing is printed as it came. A server's text, a certificate's names, a file's name may hold
  terminal escapes; whatever is not printable leaves as a backslash sequence.
* What the terminal's character set lacks is escaped too, so that no account is lost to it.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from typing import TextIO

from aiosmtpclient.replies import printable

PROGRAM = "aiosmtpclient"

CONTENT_LINES = 16
"""Lines of content that a transcript shows of each message."""
CONTENT_WIDTH = 160
"""Octets that it shows of each of them."""


def escaped(text: str) -> str:
    """Return the text in one line that is safe to print."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def say(text: str) -> None:
    """Print one line to standard output."""
    _print(text, sys.stdout)


def mention(text: str) -> None:
    """Print one line to standard error."""
    _print(text, sys.stderr)


def complain(text: str) -> None:
    """Say on standard error what went wrong, in one line that starts with the program's name."""
    mention(f"{PROGRAM}: {text}")


def trace_back(error: BaseException) -> None:
    """Print an error's traceback to standard error, for `--debug`."""
    for piece in traceback.format_exception(error):
        for line in piece.splitlines():
            mention(line)


def _print(text: str, stream: TextIO) -> None:
    stream.write(fit(text, stream) + "\n")


def fit(text: str, stream: TextIO) -> str:
    """Return the text in one line that is safe to print and that the stream can take."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return escaped(text).encode(encoding, "backslashreplace").decode(encoding)


class Transcript:
    """A trace that prints the conversation: `C: ` what we say, `S: ` what the server says.

    Of each message's content only the first lines are shown. Secrets are masked by whoever
    calls it, before it is called.

    Args:
        write: prints one line.
    """

    def __init__(self, write: Callable[[str], None] = mention) -> None:
        self._write = write
        self._begun = b""
        self._lines = self._hidden_lines = self._hidden_octets = 0

    def __call__(self, event: str, octets: bytes) -> None:
        """Take what went over the wire."""
        if event == "content":
            self._content(octets)
            return
        self.end()
        for line in octets.splitlines():
            self._write(f"{'S' if event == 'reply' else 'C'}: {printable(line)}")

    def end(self) -> None:
        """Print what is still owed about the content: how much was hidden, and a line that was cut off."""
        if self._hidden_lines:
            lines = f"{self._hidden_lines} more line{'s' * (self._hidden_lines != 1)}"
            self._write(f"C: [{lines}, {self._hidden_octets} octets]")
        if self._begun:
            self._line(self._begun)
        self._begun = b""
        self._lines = self._hidden_lines = self._hidden_octets = 0

    def _content(self, octets: bytes) -> None:
        *lines, self._begun = (self._begun + octets).split(b"\r\n")
        for line in lines:
            if self._lines < CONTENT_LINES:
                self._lines += 1
                self._line(line)
            elif line == b".":  # dots of the message are doubled here, so this is the end
                self.end()
                self._line(line)
            else:
                self._hidden_lines += 1
                self._hidden_octets += len(line) + 2

    def _line(self, line: bytes) -> None:
        rest = len(line) - CONTENT_WIDTH
        more = f" [{rest} more octets]" if rest > 0 else ""
        self._write(f"C: {printable(line[:CONTENT_WIDTH])}{more}")
