"""One connection's memory: what is owed, where it stands, what was said.

Theory of operation. Everything written is announced here first (`send`), everything read goes
through here (`receive_data`). The session keeps the FIFO of steps that still earn replies. A
reply belongs to the oldest of them: pairing is by count, never by code or text, for the count
is the only thing that cannot be forged by what a server happens to say. Where transactions are
pipelined behind one another, the phase is that of what was written last.

::

    GREETING ──220──▶ READY ──MAIL──▶ MAIL ──354──▶ CONTENT ──final reply──▶ READY
        any of them ──421, give_up()──▶ CLOSING ──▶ CLOSED ◀── broken reply, EOF, deadline

Rules of this room:

* When no reply is owed, nothing may arrive. A 421 is remembered as the reason of the close
  that follows; anything else, be it half a line, breaks the connection. That is also what
  stops octets injected behind the answer to STARTTLS (RFC 3207 section 4.2).
* A 421 ends the step it answers at once: the replies behind it will not come.
* `failure` once set stays: the connection is of no further use, and says why.
* A step that was given up half-way condemns the connection: nothing more is written, but what
  is owed to the steps before it may still come, for they belong to others.
* This is the only place that masks. Logs and traces see what `_tell` gives them: steps by their
  masked form, replies with every registered secret cut out.
"""

from __future__ import annotations

import copy
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from .errors import SMTPException, SMTPProtocolError, SMTPServerDisconnected, spoken_of
from .extensions import Extensions
from .replies import MAX_CHALLENGE_LINE, MAX_LINE, ODD, Reply, ReplyParser, printable
from .steps import Phase, Step

logger = logging.getLogger(__name__)

_DEBUG = logging.DEBUG
# Set and asked for each message, and CPython 3.11 is slow to find a member of an enumeration.
_READY, _CONTENT = Phase.READY, Phase.CONTENT
Trace = Callable[[str, bytes], None]
"""Called with ("send" | "content" | "reply", octets) for everything on the wire, secrets masked."""

OVER = (Phase.CLOSING, Phase.CLOSED)
"""Phases in which nothing may be written any more."""
MASK = b"***"
GREETED = Step(b"", "greeting", during=Phase.GREETING)
"""What stands in for the greeting's step once somebody waits for that."""
MAX_UNCLAIMED = 1000
"""Replies kept for a caller who writes raw octets before he reads; beyond it the server babbles."""


class Challenge(Reply):
    """A 334, which a server may echo a secret in: a traceback with locals must not show it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"Reply(code={self.code}, message=***)"


class Session:
    """What one connection knows.

    Args:
        peer: how messages name the server, "localhost:25" say.
        trace: told everything that goes over the wire.

    Attributes:
        phase: where the conversation stands.
        greeting: the step that the server's greeting answers; it is owed before the transport exists.
        extensions: what the newest EHLO or LHLO said.
        last_reply: the newest reply, of whatever kind.
        failure: why this connection is of no further use.
        encrypted: TLS is up.
        authenticated: a login succeeded on this connection.
        condemned: the step that was given up, if replies before it are still awaited.
        unclaimed: replies kept for `getreply()`; None unless the caller writes raw octets himself.
        unanswered: the caller wrote raw octets, and no reply came since.
        replies_read: how many replies came so far.
        told: somebody looks on: what goes over the wire is traced or logged.
    """

    def __init__(self, peer: str = "the server", trace: Trace | None = None) -> None:
        self.peer = peer
        self.phase = Phase.GREETING
        self.greeting = Step(b"", "greeting", during=Phase.GREETING)
        self.extensions = Extensions()
        self.last_reply: Reply | None = None
        self.failure: SMTPException | None = None
        self.condemned: Step | None = None
        self.encrypted = False
        self.authenticated = False
        self.unclaimed: deque[Reply] | None = None
        self.unanswered = False
        self.replies_read = 0
        self.told = trace is not None or logger.isEnabledFor(logging.DEBUG)
        self._trace = trace
        self._parser = ReplyParser(self._mask)
        self._owing = [self.greeting]  # no deque: one of those takes 600 octets, and this stays short
        self._chunk: Step | None = None
        self._secrets: Sequence[bytes] = ()

    # -- what is owed ------------------------------------------------------------------

    @property
    def owing(self) -> Step | None:
        """The oldest step that still earns a reply."""
        return self._owing[0] if self._owing else None

    @property
    def in_flight(self) -> int:
        """How many steps still earn replies."""
        return len(self._owing)

    def owed_to_others(self, step: Step | None) -> bool:
        """True if replies are owed, but none to this step."""
        return bool(self._owing) and step not in self._owing

    @property
    def in_step(self) -> bool:
        """True if nothing is owed and nothing is half read: what is written next gets its own reply."""
        return not self._owing and not self._parser.pending and self.failure is None

    @property
    def reusable(self) -> bool:
        """True if a new transaction may start here."""
        # As `in_step`, without asking it: this is asked several times a message.
        ready = self.phase is Phase.READY and not self._owing
        return ready and not self._parser.pending and self.failure is None

    @property
    def closing(self) -> bool:
        """True if nothing may be written here any more."""
        return self.failure is not None or self.condemned is not None or self.phase in OVER

    @property
    def unsettled(self) -> bool:
        """A chunk was refused, or one in flight may be: RSET must come first (RFC 3030 section 2)."""
        chunk = self._chunk
        if chunk is None:
            return False
        for code, _ in chunk.received[chunk.lines :]:
            if code < 300:
                self._chunk = None
                return False
        return True

    @property
    def _uninvited(self) -> bool:
        """A part of a reply is here, and nobody asked for one."""
        return self._parser.pending and not self._owing and self.unclaimed is None

    # -- the way out -------------------------------------------------------------------

    def send(self, step: Step) -> bytes:
        """Announce a step; return the octets to hand to the transport.

        Raises:
            SMTPException: the connection is of no further use.
        """
        parser = self._parser
        if parser.pending or self.failure is not None or self.condemned is not None or self.phase in OVER:
            self.check()
        masked = step.masked
        if masked is not None:
            self._keep_payload(step.data)
        self.told = told = self._trace is not None or logger.isEnabledFor(_DEBUG)
        if told and step.data:
            self._tell("send", step.data if masked is None else masked)  # a trace may forbid it
        if not step.owed:
            self.phase = step.then
            return step.data
        self.phase = step.during
        # Only what answers AUTH may be long (RFC 4954 section 4).
        parser.max_line = MAX_LINE if masked is None else MAX_CHALLENGE_LINE
        self._owing.append(step)
        if step.chunked:
            self._chunk = step
        elif self._chunk is not None and step.verb == "RSET":
            self._chunk = None
        return step.data

    @property
    def free(self) -> bool:
        """True if a plain message may `begin` here: it is reusable, settled, and nobody looks on."""
        return (
            self.phase is _READY
            and not self._owing
            and not self._parser.pending
            and self.condemned is None
            and self.unclaimed is None
            and (self._chunk is None or not self.unsettled)
            and self._trace is None
            and not logger.isEnabledFor(_DEBUG)
        )

    def still_free(self) -> bool:
        """As `free`, where it was that, and since then a plain message was accepted."""
        return self.phase is _READY and not logger.isEnabledFor(_DEBUG)

    def begin(self) -> None:
        """A plain message is begun: until it is accepted, or its steps are announced, nothing else is."""
        self.phase = _CONTENT

    def accepted(self, final: Reply) -> None:
        """A plain message was accepted, and so it is as if nothing had been."""
        self.phase, self.last_reply = _READY, final

    def unfold(self, step: Step, last: Reply | None) -> None:
        """Announce what is owed the rest of its replies.

        Args:
            step: it was written.
            last: the newest reply, if one came.
        """
        self.phase = step.during
        self._owing.append(step)
        self._parser.max_line = MAX_LINE
        self.last_reply = last or self.last_reply
        if step.chunked:
            self._chunk = step

    @property
    def secrets(self) -> Sequence[bytes]:
        """What is cut out of everything that is logged or raised."""
        return self._secrets

    def check(self) -> None:
        """Raise if nothing may be written."""
        if self.failure is None and self.phase not in OVER and self._uninvited:
            self._break("octets that nobody asked for")
        if self.closing:
            raise self.why()

    def condemn(self, step: Step) -> bool:
        """Give this step up, but not those before it; False if there are none to wait for."""
        if self.closing or step not in self._owing or self._owing[0] is step:
            return False
        self.condemned = step
        return True

    def release(self, step: Step) -> None:
        """All of this step is written, and others may write behind it before its replies are in."""
        if self.phase is step.during:
            self.phase = step.then

    def sent_line(self, line: bytes) -> None:
        """Note a command that announces a part of the content."""
        self._tell("send", line)

    def sent_content(self, octets: bytes | memoryview) -> None:
        """Note content that is handed to the transport."""
        if self._trace is not None:
            self._trace("content", bytes(octets))

    def expect_anything(self) -> None:
        """From now on keep replies that nobody waits for: the caller writes raw octets himself."""
        if self.unclaimed is None:
            self.unclaimed = deque()

    def sent_raw(self, octets: bytes) -> None:
        """Note octets that the caller writes himself; an AUTH exchange among them is not shown."""
        challenged = self.last_reply is not None and self.last_reply.code == 334
        self.told = self._trace is not None or logger.isEnabledFor(logging.DEBUG)
        self._tell("send", MASK + b"\r\n" if challenged or octets[:4].upper() == b"AUTH" else octets)
        self.unanswered = True

    def _keep_payload(self, line: bytes) -> None:
        """What travels in base64 in an AUTH exchange is a secret of its own."""
        words = line.split()
        if len(words) in (1, 3) and len(words[-1]) > 3:  # "=" is an empty response
            self.keep_secret(words[-1:])

    def keep_secret(self, secrets: Iterable[bytes]) -> None:
        """Cut these out of everything that is logged or raised from now on."""
        # The longest first: one that is a part of another must not leave the rest of that standing.
        self._secrets = sorted({*self._secrets, *filter(None, secrets)}, key=len, reverse=True)

    def forget(self) -> None:
        """TLS is up: nothing learnt in clear counts any more (RFC 3207 section 4.2)."""
        self.encrypted = True
        self.authenticated = False
        self.extensions = Extensions()

    # -- the way back ------------------------------------------------------------------

    def receive_data(self, data: bytes) -> list[Step]:
        """Take what was read; return the steps that are complete now."""
        complete: list[Step] = []
        parser = self._parser
        replies = parser.feed(data)
        if self.failure is not None or self.phase in OVER:
            return complete
        if replies:
            self.unanswered = False
            if self.told or (self._secrets and self._repeats_secret(replies)):
                rest = replies
            else:
                rest = self._hand_out(replies, complete)
            for reply in rest:
                self._receive(reply, complete)
        if parser.pending or parser.error is not None:
            self._look_at_rest(parser)
        return complete

    def _look_at_rest(self, parser: ReplyParser) -> None:
        if self.failure is not None or self.phase in OVER:
            return
        if parser.error is not None:
            self._break(parser.error)
        elif self._uninvited and not parser.begins(b"421"):
            # A 421 may come in pieces. Until it is whole nothing is written, see `send`.
            self._break("octets that nobody asked for")

    def _hand_out(self, replies: list[Reply], complete: list[Step]) -> list[Reply]:
        """Give the steps what is theirs, as long as nothing is odd; return what has to be looked at."""
        for code, _ in replies:
            if code in ODD:
                return replies
        owing, position, came = self._owing, 0, len(replies)
        while owing and position < came and owing[0].count is None:
            step = owing[0]
            received = step.received
            missing = step.owed - len(received)
            if missing > came - position:
                received += replies[position:]
                position = came
                break
            received += replies if came == missing else replies[position : position + missing]
            position += missing
            del owing[0]
            complete.append(step)
            if step.content is not None and not step.ended:
                self._completed(step, received[-1])
                break
            if not owing:
                self.phase = step.then
        if position:
            self.replies_read += position
            self.last_reply = replies[position - 1]
        return replies[position:] if position < came else []

    def _receive(self, reply: Reply, complete: list[Step]) -> None:
        if self.failure is not None or self.phase in OVER:
            return
        step = self._owing[0] if self._owing else None
        reply = self._censor(reply, step)
        self.last_reply = Reply(334, MASK) if type(reply) is Challenge else reply
        self.replies_read += 1
        if reply.code == 421:
            self.phase = Phase.CLOSING
        if step is None:
            self._unexpected(reply)
            return
        step.received.append(reply)
        cut_short = False
        if step.count is not None:
            before, step.owed = step.owed, step.count(step.received)
            cut_short = len(step.received) == step.owed < before
        if len(step.received) == step.owed or reply.code == 421:
            complete.append(self._owing.pop(0))
            self._completed(step, reply, cut_short)

    def _completed(self, step: Step, last: Reply, cut_short: bool = False) -> None:
        if step.content is not None and not step.ended:
            self.phase = Phase.CLOSING  # the server is still reading: a command would be content
        elif cut_short:
            text = f"{self.peer} answered so that nobody knows whom its next reply is for"
            self.fail(SMTPServerDisconnected(text, last_reply=self.last_reply))
        elif last.code != 421 and not self._owing:
            self.phase = step.then

    def _unexpected(self, reply: Reply) -> None:
        if self.unclaimed is not None and len(self.unclaimed) < MAX_UNCLAIMED:
            self.unclaimed.append(reply)
        elif reply.code != 421:
            self._break(f"a reply that nobody asked for: {reply.display}")

    def _censor(self, reply: Reply, step: Step | None) -> Reply:
        if _is_challenge(reply, step):
            self._tell("reply", b"334 " + MASK + b"\r\n")  # needed as it is, shown to nobody
            return Challenge(*reply)
        message = self._mask(reply.message)
        # What EHLO offers is read by us, not shown: a password that spells SIZE must not take it away.
        hello = reply.code == 250 and step is not None and step.verb in ("EHLO", "LHLO")
        if self._trace is not None or logger.isEnabledFor(logging.DEBUG):
            *heads, tail = message.split(b"\n")
            lines = [b"%d-%s\r\n" % (reply.code, head) for head in heads]
            self._tell("reply", b"".join(lines) + b"%d %s\r\n" % (reply.code, tail))
        return reply if hello or message is reply.message else Reply(reply.code, message)

    def _repeats_secret(self, replies: list[Reply]) -> bool:
        return any(secret in message for _, message in replies for secret in self._secrets)

    def _mask(self, octets: bytes) -> bytes:
        for secret in self._secrets:
            octets = octets.replace(secret, MASK)
        return octets

    def lost(self, error: Exception | None = None) -> None:
        """The connection is gone."""
        if self.failure is None:
            text = f"{self.peer} closed the connection" + (f" ({error})" if error else "")
            verb = self._owing[0].verb if self._owing else ""
            if verb:
                owed = "its greeting" if verb == "greeting" else f"its reply to {spoken_of(verb)}"
                text += f" while {owed} was owed"
            self.failure = SMTPServerDisconnected(text, last_reply=self.last_reply)
            self.failure.__cause__ = error
        self._close()

    def closed_here(self) -> SMTPException:
        """Why nothing comes any more if it was this side that closed."""
        text = (
            f"the connection to {self.peer} was closed on this side, "
            "by close() or because what was under way there ended half-way"
        )
        return SMTPServerDisconnected(text, last_reply=self.last_reply)

    def refuse_early(self, step: Step, complete: list[Step]) -> None:
        """A reply was there before what it would answer: it answers nothing, least of all with a yes.

        Args:
            step: it was not written yet.
            complete: those that have all their replies; from this one on they have not.
        """
        if step.received[0].code == 421:
            self.lost()  # the session ended before the message began: nobody refused it
        text = f"it sent a reply that nobody asked for: {step.received[0].display}"
        error = SMTPProtocolError(-1, text.encode(), command=step.verb)
        error.host = self.peer
        self.fail(error)
        step.received.clear()
        if step in complete:
            del complete[complete.index(step) :]

    def fail(self, error: SMTPException) -> None:
        """Nothing that comes later can be trusted: remember why."""
        if self.failure is None:
            self.failure = error
        self._close()

    def _close(self) -> None:
        self.phase = Phase.CLOSED
        self._owing.clear()  # what is owed will not come

    def why(self) -> SMTPException:
        """A fresh error that says why this connection cannot be used."""
        if self.failure is None:
            state = f"not connected to {self.peer}"
            if self.condemned is not None:
                state = f"the connection to {self.peer} ends: what was under way there was given up half-way"
            return SMTPServerDisconnected(state, last_reply=self.last_reply)
        error = copy.copy(self.failure)
        error.__cause__ = self.failure.__cause__
        return error

    def _break(self, text: str) -> None:
        verb = self._owing[0].verb if self._owing else ""
        error = SMTPProtocolError(-1, f"it sent {text}".encode(), command=verb)
        error.host = self.peer
        self.fail(error)

    def _tell(self, event: str, octets: bytes) -> None:
        if self._trace is not None:
            self._trace(event, octets)
        if logger.isEnabledFor(logging.DEBUG):
            side = "S" if event == "reply" else "C"
            for line in octets.splitlines():
                logger.debug("%s %s: %s", self.peer, side, printable(line))


def _is_challenge(reply: Reply, step: Step | None) -> bool:
    """True for what is asked in an AUTH exchange (RFC 4954 section 4)."""
    return reply.code == 334 and step is not None and step.masked is not None
