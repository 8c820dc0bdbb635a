"""What the blocking classes show of a conversation: audit events, and smtplib's debug output.

`Watcher` is a client's `trace`: it is told everything on the wire, secrets masked, in the thread
of the event loop. Every write is an audit event `smtplib.send`; while the owner's `debuglevel`
asks for it, everything is printed to `sys.stderr` as `smtplib` prints it, command by command
however they were grouped on the wire.

Rules of this room:

* The owner is held weakly: an unclosed client must stay collectable.
* Nothing here decides anything, but what an audit hook raises passes through, before the octets
  have left: that is how a hook forbids.
"""

from __future__ import annotations

import datetime
import sys
import weakref
from collections import deque
from typing import Protocol

_END = b"\r\n.\r\n"


class Debugged(Protocol):
    """Whose conversation is watched.

    Attributes:
        debuglevel: 0 prints nothing, 1 everything, 2 with the time of day.
    """

    debuglevel: int


def show(level: int, *words: object) -> None:
    """Print words to stderr if the debug level asks for it, with the time of day from level 2 on."""
    if level > 1:
        print(datetime.datetime.now().time(), *words, file=sys.stderr)
    elif level > 0:
        print(*words, file=sys.stderr)


class Watcher:
    """Audits and prints what goes over the wire.

    Args:
        owner: the blocking client.
    """

    def __init__(self, owner: Debugged) -> None:
        self._owner = weakref.ref(owner)
        self.begin()

    def begin(self) -> None:
        """A new connection: nothing is owed."""
        self._asked: deque[str] = deque()
        self._tail = b"\r\n"

    def __call__(self, event: str, octets: bytes) -> None:
        owner = self._owner()
        if owner is None:
            return
        if event != "reply":
            sys.audit("smtplib.send", owner, octets)
        if owner.debuglevel > 0:
            {"send": self._commands, "content": self._content, "reply": self._reply}[event](
                owner.debuglevel, octets
            )

    def _commands(self, level: int, octets: bytes) -> None:
        for command in octets.splitlines(keepends=True):
            line = command.decode("utf-8", "backslashreplace")
            show(level, "send:", repr(line))
            self._asked.append(line.split(" ")[0].strip().upper())

    def _content(self, level: int, octets: bytes) -> None:
        show(level, "send:", repr(octets))
        # The end may be in two pieces; within the content every such dot is doubled.
        self._tail = (self._tail + octets)[-len(_END) :]
        if self._tail == _END:
            self._tail = b"\r\n"
            self._asked.append("DATA")

    def _reply(self, level: int, octets: bytes) -> None:
        lines = octets.splitlines(keepends=True)
        for line in lines:
            show(level, "reply:", repr(line))
        code, message = int(octets[:3]), b"\n".join(line[4:].strip(b" \t\r\n") for line in lines)
        show(level, f"reply: retcode ({code}); Msg: {message!a}")
        if self._asked and self._asked.popleft() == "DATA":
            show(level, "data:", (code, message))
