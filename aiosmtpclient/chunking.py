"""CHUNKING on trial: which servers read a chunk that they refuse, and which would run it.

BDAT in one write with its envelope (RFC 3030 section 4.2) is safe only where the server reads
and discards a chunk it refuses. Where it does not, or where BDAT is offered and not known, the
body of a message runs as commands. So it is tried once for each destination, outside any
transaction, with a chunk that does no harm: eight octets that are no command, then RSET. A
server that got it right refuses the chunk, resets, and says nothing else.

Rules of this room:

* The trial costs one round trip. Who fails it has most likely lost its place, or waits for
  something: that connection is given up.
* What came of it is remembered here, for as long as this process lives, by host and port. A
  server behind a socket that was given has no name, so nothing is remembered about it.
"""

from __future__ import annotations

from collections import OrderedDict

from .replies import Reply
from .steps import Dialogue, Phase, Step, give_up

PROBE = b"BDAT 8 LAST\r\nXPROBE\r\nRSET\r\n"
PATIENCE = 10.0
"""Seconds for each of the two replies. Servers are known that wait for more content instead."""
REMEMBERED = 1024
"""Destinations whose verdict is kept."""


class Verdicts:
    """What is known about destinations, the newest so many of them."""

    def __init__(self, most: int = REMEMBERED) -> None:
        self._most = most
        self._known: OrderedDict[str, bool] = OrderedDict()

    def of(self, destination: str) -> bool | None:
        """True: it may be used. False: it may not. None: nobody tried."""
        return self._known.get(destination)

    def remember(self, destination: str, verdict: bool) -> None:
        """Keep what came of a trial, or of BDAT itself; nothing is kept about the nameless."""
        if destination:
            self._known[destination] = verdict
            self._known.move_to_end(destination)
            if len(self._known) > self._most:
                self._known.popitem(last=False)

    def forget(self) -> None:
        """Forget everything: each destination is tried anew."""
        self._known.clear()


VERDICTS = Verdicts()
"""What this process knows."""


def prove() -> Dialogue[bool | None]:
    """Try it, outside any transaction; None if the server ends the session instead of answering.

    Whatever else goes wrong, a timeout or a close, is raised, and means no as well.
    """
    step = Step(PROBE, "BDAT", "RSET", owed=2, during=Phase.MAIL, patience=PATIENCE)
    replies = yield step
    if replies[-1].code == 421:
        return None
    if _are_right(replies):
        return True
    yield give_up()
    return False


def _are_right(replies: list[Reply]) -> bool:
    if len(replies) < 2:  # it went after the first
        return False
    chunk, reset = replies
    return chunk.code >= 400 and reset.positive
