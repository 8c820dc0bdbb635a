"""Replies: what the server says, from octets to values (RFC 5321 section 4.2).

`ReplyParser` takes octets in pieces of any size and gives back whole replies. It is the one
place with caps on what a server may make us hold. `Reply` is a tuple `(code, message)` as in
smtplib, with the rest as properties.

Rules of this room:

* The grammar is strict where looseness would hide a server that lost its place: a code is
  `[2-5]` digit digit, followed by a space, a hyphen or the line's end, and the same in every
  line of a reply. It is loose where servers are known to differ: a line may end in a bare LF,
  and a final line may have no text, with or without the space.
* What does not fit stops the parser for good: `error` says why, and everything before it is
  still given back, so the outcome never depends on how the octets were split.
* Memory is bounded whatever the server streams: one line by `max_line`, one reply by
  `MAX_REPLY`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple, TypeAlias, TypeVar

MAX_LINE = 8 * 1024
"""Octets a reply line may have (RFC 5321 section 4.5.3.1.5 says 512; servers exceed it)."""
MAX_CHALLENGE_LINE = 16 * 1024
"""The same while a SASL challenge is owed (RFC 4954 section 4 allows 12288 octets of base64)."""
MAX_REPLY = 64 * 1024
"""Octets a whole reply may have."""


class EnhancedCode(NamedTuple):
    """An enhanced status code, class.subject.detail (RFC 3463)."""

    class_: int
    subject: int
    detail: int

    def __str__(self) -> str:
        return f"{self.class_}.{self.subject}.{self.detail}"


# RFC 2034 section 4: status-code = class "." subject "." detail, the latter two 1 to 3 digits.
_ENHANCED = rb"([245])\.([0-9]{1,3})\.([0-9]{1,3})(?=[ \t\n]|$)"


def printable(octets: bytes) -> str:
    """The octets as text that is safe to print: UTF-8 where it is UTF-8, everything else escaped."""
    text = octets.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


class Reply(NamedTuple):
    """One reply of the server.

    Attributes:
        code: three digits, 200 to 599.
        message: the text as octets, without codes, lines joined by LF, as smtplib gives it.
    """

    code: int
    message: bytes

    @property
    def lines(self) -> tuple[str, ...]:
        """The text, one string a line; control characters and undecodable octets are escaped."""
        return tuple(printable(line) for line in self.message.split(b"\n"))

    @property
    def text(self) -> str:
        """The text, lines joined by LF; control characters and undecodable octets are escaped."""
        return "\n".join(self.lines)

    @property
    def display(self) -> str:
        """Code and text in one printable line, for error messages and logs."""
        return f"{self.code} {' / '.join(self.lines)}".rstrip()

    @property
    def enhanced_code(self) -> EnhancedCode | None:
        """The enhanced status code (RFC 2034), if there is one of the same class as the reply."""
        match = re.match(_ENHANCED, self.message)
        if match is None or int(match[1]) != self.code // 100:
            return None
        return EnhancedCode(int(match[1]), int(match[2]), int(match[3]))

    @property
    def positive(self) -> bool:
        """2yz: done."""
        return 200 <= self.code <= 299

    @property
    def intermediate(self) -> bool:
        """3yz: go on."""
        return 300 <= self.code <= 399

    @property
    def temporary(self) -> bool:
        """4yz: not now."""
        return 400 <= self.code <= 499

    @property
    def permanent(self) -> bool:
        """5yz: never like this."""
        return 500 <= self.code <= 599


# Grammar: code = [2-5] digit digit; then "-" (more lines follow), " " or nothing (last line).
_CODES = {b"%d" % code: code for code in range(200, 600)}
_BEHIND_CODE = (b" ", b"-", b"")
_ENDS = (b" ", b"")
_new_reply: Callable[[type[Reply], tuple[int, bytes]], Reply] = tuple.__new__
# Lines that servers say again and again, whichever connection they are on: how many are known by
# heart, and how long one is at most.
_KNOWN, _SHORT = 256, 80
ODD = frozenset({334, 421})
"""Codes that mean more than an answer: a challenge, which may echo a secret, and the end of the session."""
_USUAL = (250, 354)
_BLANK = b" \t\r"
_SINGLE = {b"%d" % code: code for code in range(200, 600) if code not in ODD}
Answers: TypeAlias = tuple[tuple[Reply, ...], bool, int]
"""Replies, at least one; whether all of them but the last are positive; the code of that."""
_known: dict[bytes, Reply] = {}
_answers: dict[bytes, Answers] = {}
_groups: dict[bytes, tuple[tuple[Reply, ...], bool]] = {}
_NONE: tuple[tuple[Reply, ...], bool] = ((), True)
_T = TypeVar("_T")


def _remember(data: bytes, known: dict[bytes, _T], what: _T) -> _T:
    if len(data) <= _SHORT * 4:
        if len(known) >= _KNOWN:
            known.clear()
        known[data] = what
    return what


def at_once(data: bytes) -> Answers | None:
    """The replies in what was read, if they are whole, of one line each, and no more than answers.

    That is what mostly comes, and `ReplyParser` says the same of it. Of anything else nothing is said.
    """
    known = _answers.get(data)
    if known is not None:
        return known
    whole, _, rest = data.rpartition(b"\n")
    if rest or len(whole) > MAX_LINE:
        return None
    # What answers an envelope is the same each time, and is remembered; what answers content is not.
    before, several, line = whole.rpartition(b"\n")
    group = _groups.get(before) or _group(before) if several else _NONE
    digits, _, text = line.partition(b" ")
    code = _SINGLE.get(digits)
    if code is None or group is None:
        return None
    replies, positive = group
    reply = _new_reply(Reply, (code, text.strip(_BLANK)))
    answers = ((*replies, reply) if replies else (reply,)), positive, code
    return _remember(data, _answers, answers) if code >= 300 else answers


def _group(octets: bytes) -> tuple[tuple[Reply, ...], bool] | None:
    """Replies of one line each that answer commands, with LF between them; whether all are positive."""
    lines = octets.split(b"\n")
    group = [_known.get(line) or _learnt(line) for line in lines]
    replies = tuple([reply for reply in group if reply is not None and reply[0] not in ODD])
    if len(replies) != len(lines):
        return None
    return _remember(octets, _groups, (replies, max(replies)[0] < 300))


def _learnt(line: bytes) -> Reply | None:
    """A reply of one line, without its end, if this is one beyond doubt. It may come again soon."""
    code = _CODES.get(line[:3])
    if code is None or line[3:4] not in _ENDS:
        return None
    reply = _new_reply(Reply, (code, line[4:].strip(_BLANK)))
    if code in _USUAL and len(line) <= _SHORT:
        if len(_known) >= _KNOWN:
            _known.clear()
        _known[line] = reply
    return reply


class ReplyParser:
    """Octets in, replies out.

    Args:
        shown: what `error` may show of a line that is no reply; the line itself if left out.

    Attributes:
        max_line: the cap on a line, in octets without its end; raised while a challenge is owed.
        error: why nothing more is read, once something came that is not a reply.
        pending: octets of an unfinished reply are held.
    """

    __slots__ = ("_buffer", "_code", "_octets", "_shown", "_text", "error", "max_line", "pending")

    def __init__(self, shown: Callable[[bytes], bytes] = bytes) -> None:
        self._shown = shown
        self.max_line = MAX_LINE
        self.error: str | None = None
        self._buffer = b""
        self._code: bytes | None = None
        self._text = bytearray()
        self._octets = 0
        self.pending = False

    def begins(self, code: bytes) -> bool:
        """True if what is held of an unfinished reply may become one with this code."""
        return code.startswith(self._code or self._buffer[:3])

    def feed(self, data: bytes) -> list[Reply]:
        """Take what was read, return the replies it completes; look at `error` afterwards."""
        if self.error is not None:
            return []
        replies: list[Reply] = []
        lines = (self._buffer + data if self._buffer else data).split(b"\n")
        self._buffer = rest = lines.pop()
        for line in lines:
            # Nearly every reply is one line; the strict way would say the same of it, slower.
            if self._code is None and (reply := _known.get(line) or self._short(line)):
                replies.append(reply)
            elif not self._line(line.removesuffix(b"\r"), replies):
                break
        # One more: the CR of the line's end may already be here.
        if rest and len(rest) > self.max_line + 1:
            self._fail(f"a reply line of more than {self.max_line} octets")
        self.pending = bool(self._buffer) or self._code is not None
        return replies

    def _short(self, line: bytes) -> Reply | None:
        return _learnt(line) if len(line) <= self.max_line else None

    def _fail(self, why: str) -> bool:
        self.error, self._buffer = self.error or why, b""
        self._text.clear()
        return False

    def _line(self, line: bytes, replies: list[Reply]) -> bool:
        """Read a line, append the reply that it ends, if it does; False if it is no line of a reply."""
        code, separator, text = line[:3], line[3:4], line[4:]
        self._octets += len(line)
        if len(line) > self.max_line:
            return self._fail(f"a reply line of more than {self.max_line} octets")
        if code not in _CODES or separator not in _BEHIND_CODE:
            return self._fail(f"a line that is no reply: {printable(self._shown(line)[:80])!r}")
        if self._code is not None and code != self._code:
            return self._fail(f"the code {code.decode()} inside a reply with code {self._code.decode()}")
        if self._octets > MAX_REPLY:
            return self._fail(f"a reply of more than {MAX_REPLY} octets")
        if self._code is not None:
            self._text += b"\n"
        self._text += text.strip(_BLANK)  # not a list of lines: short ones would weigh ten times as much
        if separator == b"-":
            self._code = code
            return True
        replies.append(Reply(_CODES[code], bytes(self._text)))
        self._code, self._octets = None, 0
        self._text.clear()
        return True
