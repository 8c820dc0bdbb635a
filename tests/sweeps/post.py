"""The server: octets in, replies out, and a memory of what it did.

Each reply says which one it is (`#17`), so that nobody can take it for another: the seventeenth
reply on a connection belongs to the seventeenth command. Each address says which message it is
in, and each message which one it is.

Rules of this room:

* What a server says decides what it does: who was told 550 is no recipient, whatever was meant.
* `Slot` is something that earns a reply, `Said` a reply. On a server that is right there is one
  for one, in order.
* `taken` is what the server took responsibility for: it had the content and its end, and said
  yes, or meant to. `wrong` is what no client may ever do to it.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from .behaviours import (
    AGAIN,
    HALF,
    HOLD,
    RIGHT,
    Act,
    Endless,
    Extra,
    Finish,
    Instead,
    Later,
    Odd,
    Raw,
    right,
)
from .cable import Fault, Line

SENDER = "sender@m{}.test"
BAD = "bob"
"""The recipient who is refused."""


def address(name: str, message: int) -> str:
    return f"{name}@m{message}.test"


def message_of(line: bytes) -> int:
    """Which message an envelope's line is about."""
    found = re.search(rb"@m(\d+)\.test", line)
    return int(found[1]) if found else 0


@dataclass
class Said:
    """A reply that left, or would have.

    Attributes:
        number: how manieth it is on this connection.
        slot: what it answers; None for what nobody asked for.
        code: its code.
        ends: where it ends in what was said.
    """

    number: int
    slot: Slot | None
    code: int
    ends: int


@dataclass
class Slot:
    """Something that earns a reply.

    Attributes:
        number: how manieth it is on this connection.
        verb: what it is.
        message: which message it belongs to; 0 for none.
        names: the recipients it decides about.
        said: what was said to it.
        complete: all of the content was there.
        taken: and the server took responsibility for it.
    """

    number: int
    verb: str
    message: int = 0
    names: tuple[str, ...] = ()
    said: list[Said] = field(default_factory=list)
    complete: bool = False
    taken: bool = False


class Post:
    """The server, on all its connections.

    Args:
        contents: what each message must look like when it arrives.
        lmtp: one reply a recipient behind the content.
        offers: the keywords behind EHLO.
        refuse_content: messages whose content is refused.

    Attributes:
        taken: (message, recipient) → how often the server took responsibility.
        wrong: what no client may do.
        connections: each conversation, in order.
    """

    def __init__(
        self,
        contents: dict[int, bytes],
        *,
        lmtp: bool = False,
        offers: Iterable[str] = ("PIPELINING", "CHUNKING", "8BITMIME", "SIZE 10000000"),
        refuse_content: Iterable[int] = (),
    ) -> None:
        self.contents = contents
        self.lmtp = lmtp
        self.offers = list(offers)
        self.refuse_content = frozenset(refuse_content)
        self.taken: Counter[tuple[int, str]] = Counter()
        self.wrong: list[str] = []
        self.connections: list[Conversation] = []


class Network:
    """Makes connections to a post.

    Args:
        acts: what the server does at `place` on its first connection, in place of the right reply.
        place: which reply that is.
        fault: how the first connection ends.
        cutting: how what is said is cut, on every connection.
    """

    def __init__(
        self,
        loop: Any,
        post: Post,
        *,
        acts: tuple[Act, ...] = right,
        place: int = -1,
        fault: Fault | None = None,
        cutting: str | int = "",
        window: int = 32 * 1024,
    ) -> None:
        self.loop = loop
        self.post = post
        self.acts, self.place, self.fault = acts, place, fault
        self.cutting, self.window = cutting, window

    def connect(self, factory: Any) -> tuple[Any, Any]:
        """A connection; the server's greeting comes in a turn of its own."""
        first = not self.post.connections
        line = Line(self.loop, self.fault if first else None, self.cutting, self.window)
        place = self.place if first else -1
        conversation = Conversation(self.post, line, self.acts, place)
        line.reader, line.balance = conversation.feed, conversation.balance
        return line.end, line.end.connect(factory, conversation.begin)


class Conversation:
    """One connection."""

    def __init__(self, post: Post, line: Any, acts: tuple[Act, ...] = right, place: int = -1) -> None:
        self.post = post
        self.line = line
        self.slots: list[Slot] = []
        self.said: list[Said] = []
        self.place = place
        self.placed = math.inf
        """When the reply at this place was due."""
        self.garbled = 0
        """Where what was said ceases to be replies; 0 if it does not."""
        self._acts = acts
        self._spoken = 0
        self._buffer = bytearray()
        self._parts: Any = None
        self._held: list[tuple[Slot, int]] = []
        self._later: list[int] = []
        self._left = False
        self._handed = 0
        self._forget()
        post.connections.append(self)

    def _forget(self) -> None:
        self._message = 0
        self._names: list[str] = []
        self._sender = self._content = False
        self._chunks = bytearray()
        self._broken = False

    # -- what is said ------------------------------------------------------------------

    def begin(self) -> None:
        self.line.begin()
        self._answer("greeting", 220)

    def balance(self) -> int:
        """Replies that the client was handed, less what earned one."""
        while self._handed < len(self.said) and self.said[self._handed].ends <= self.line.delivered:
            self._handed += 1
        return self._handed - len(self.slots)

    def unasked(self, octets: bytes) -> None:
        """Say what nobody asked for, and nobody counts."""
        self._raw(octets)

    def _raw(self, octets: bytes) -> None:
        self._spoken += len(octets)
        self.line.say(octets)

    def _reply(self, slot: Slot | None, code: int, *, half: bool = False) -> None:
        number = len(self.said)
        text = f"#{number}" + (f" m{slot.message} {slot.verb} {' '.join(slot.names)}" if slot else " extra")
        enhanced = "" if code // 100 == 3 else f"{code // 100}.0.0 "
        octets = f"{code} {enhanced}{text}\r\n".encode()
        if slot is not None and slot.verb == "EHLO" and code == 250:
            lines = [f"post.test #{number}", *self.post.offers]
            octets = b"".join(
                f"250{' ' if n == len(lines) - 1 else '-'}{text}\r\n".encode() for n, text in enumerate(lines)
            )
        if half:
            self._raw(octets[: len(octets) // 2])
            return
        said = Said(number, slot, code, self._spoken + len(octets))
        self.said.append(said)
        if slot is not None:
            slot.said.append(said)
        self._raw(octets)

    def _answer(
        self, verb: str, code: int, names: tuple[str, ...] = (), *, complete: bool = False, message: int = 0
    ) -> int:
        """Answer; returns the code that counts for what the server does next."""
        slot = Slot(len(self.slots), verb, message or self._message, names, complete=complete)
        self.slots.append(slot)
        if self._left:
            code = 421
        held, self._held = self._held, []
        if slot.number == self.place:
            self.placed = self.line.loop.time()
        acts = self._acts if slot.number == self.place else right
        for act in acts:
            code = self._act(act, slot, code)
        for other, its_code in held:
            self._reply(other, its_code)
        if code == 421:
            self._left = True
        return code

    def _act(self, act: Act, slot: Slot, code: int) -> int:
        if act is RIGHT or act is AGAIN:
            self._reply(slot, code)
        elif act is HOLD:
            self._held.append((slot, code))
        elif act is HALF:
            self._reply(slot, code, half=True)
        elif isinstance(act, Instead):
            code = act.code
            self._reply(slot, code)
        elif isinstance(act, Extra):
            self._extra(act.code, slot)
        elif isinstance(act, Later):
            self._later.append(act.code)
        elif isinstance(act, Raw):
            self.garbled = self.garbled or self._spoken + 1
            self._raw(act.octets)
        elif isinstance(act, Endless):
            self.garbled = self.garbled or self._spoken + 1
            self._say_on(act, 0)
        elif isinstance(act, Odd):
            code = 550
            said = Said(len(self.said), slot, code, self._spoken + len(act.octets))
            self.said.append(said)
            slot.said.append(said)
            self._raw(act.octets)
        elif isinstance(act, Finish):
            self.line.finish(act.kind)
        else:
            raise AssertionError(act)
        return code

    def _say_on(self, act: Endless, number: int) -> None:
        line = self.line
        if line.end.gone:
            return
        at = number % len(act.octets)
        line.say(act.octets[at : at + 1] if act.singly else act.octets)
        again = (self._say_on, act, number + 1)
        line.ticking = line.loop.call_later(act.every, *again) if act.every else line.loop.call_soon(*again)

    def _extra(self, code: int, slot: Slot | None) -> None:
        """A reply too many. Behind content, before its own reply, nobody can tell it from that."""
        number = len(self.said)
        self._reply(None, code)
        if code == 421:
            self._left = True
        if slot is not None and slot.complete and not slot.said:
            slot.said.append(self.said[number])
            if 200 <= code <= 299:
                self._take(slot)

    # -- what comes ----------------------------------------------------------------------

    def feed(self, octets: bytes) -> None:
        later, self._later = self._later, []
        for code in later:
            self._extra(code, None)
        self._buffer += octets
        while self.line.state in ("open", "silent") and self._next():
            pass

    def _next(self) -> bool:
        if self._parts is not None:
            return next(self._parts, False)
        if self._content:
            return self._read_content()
        end = self._buffer.find(b"\r\n")
        if end < 0:
            return False
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        self._command(line)
        return True

    def _command(self, line: bytes) -> None:
        verb = line.split(b" ")[0].upper().decode("latin-1")
        if verb in ("EHLO", "LHLO"):
            self._forget()
            if (verb == "LHLO") != self.post.lmtp:
                self.post.wrong.append(f"{verb} in the wrong protocol")
            self._answer("EHLO", 250)
        elif verb == "HELO":
            self._forget()
            self._answer("HELO", 250)
        elif verb == "MAIL":
            message = message_of(line)
            if self._sender and not self._left:
                self.post.wrong.append(f"MAIL for {message} inside the envelope of {self._message}")
            self._forget()
            self._message = message
            self._sender = self._answer("MAIL", 250) // 100 == 2
        elif verb == "RCPT":
            self._rcpt(line)
        elif verb == "DATA":
            self._content = self._answer("DATA", 354 if self._names else 503) // 100 == 3
        elif verb == "BDAT":
            words = line.split(b" ")
            self._parts = self._chunk(int(words[1]), words[-1].upper() == b"LAST")
        elif verb == "RSET":
            self._answer("RSET", 250)
            self._forget()
        elif verb == "NOOP":
            self._answer("NOOP", 250)
        elif verb == "QUIT":
            self._answer("QUIT", 221)
            self.line.finish("close")
        else:
            self.post.wrong.append(f"no command: {line[:60]!r}")
            self._answer("?", 500)

    def _rcpt(self, line: bytes) -> None:
        message, name = message_of(line), line.partition(b"<")[2].partition(b"@")[0].decode()
        if self._sender and message != self._message:
            self.post.wrong.append(f"a recipient of message {message} in {self._message}")
        code = 503 if not self._sender else 550 if name == BAD else 250
        if self._answer("RCPT", code, (name,), message=message) // 100 == 2 and self._sender:
            self._names.append(name)

    def _read_content(self) -> bool:
        if self._buffer.startswith(b".\r\n"):
            end, size = 0, 3
        else:
            found = self._buffer.find(b"\r\n.\r\n")
            if found < 0:
                return False
            end, size = found + 2, found + 5
        content = bytes(self._buffer[:end])
        del self._buffer[:size]
        self._content = False
        lines = content.split(b"\r\n")
        self._judge(b"\r\n".join(line[1:] if line.startswith(b".") else line for line in lines))
        return True

    def _chunk(self, size: int, last: bool) -> Iterable[bool]:
        while size:
            if not self._buffer:
                yield False
                continue
            some = min(size, len(self._buffer))
            self._chunks += self._buffer[:some]
            del self._buffer[:some]
            size -= some
        self._parts = None
        if last:
            self._judge(bytes(self._chunks))
        elif not self._names or self._broken:
            self._broken = True
            self._answer("chunk", 503)
        else:
            self._broken = self._answer("chunk", 250) // 100 != 2
        yield True

    def _judge(self, content: bytes) -> None:
        """The end of a message's content is here."""
        message, names = self._message, tuple(self._names)
        if not names or self._broken:
            # RFC 3030 section 2: read, discarded, refused.
            self._answer("end", 503, (), message=message)
            self._sender = False
            return
        if content != self.post.contents.get(message):
            self.post.wrong.append(f"the content of message {message} is not its own: {content[:80]!r}")
        verdict = 552 if message in self.post.refuse_content else 250
        self._sender = False
        self._names = []
        for decided in [(name,) for name in names] if self.post.lmtp else [names]:
            slot_number = len(self.slots)
            if self._answer("end", verdict, decided, complete=True) // 100 == 2:
                self._take(self.slots[slot_number])

    def _take(self, slot: Slot) -> None:
        if slot.taken:
            return
        slot.taken = True
        for name in slot.names:
            self.post.taken[slot.message, name] += 1


def ends_of(written: bytes, message: int) -> list[int]:
    """Where the content of this message ends in what a client wrote, each time; empty if it does not."""
    ends = []
    mail = f"MAIL FROM:<{SENDER.format(message)}>".encode()
    starts = [found.start() for found in re.finditer(re.escape(mail), written)]
    for start, stop in itertools.pairwise([*starts, len(written)]):
        chunk = re.compile(rb"BDAT (\d+) LAST\r\n").search(written, start, stop)
        dot = written.find(f"END-m{message}\r\n.\r\n".encode(), start, stop)
        if chunk is not None and written.rfind(b"MAIL FROM", start, chunk.start()) == start:
            if len(written) >= chunk.end() + int(chunk[1]):
                ends.append(chunk.end() + int(chunk[1]))
        elif dot >= 0:
            ends.append(dot)
    return ends
