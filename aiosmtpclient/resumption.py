"""Resumption: a later TLS connection to the same server goes on where an earlier one left off.

asyncio and uvloop take no session, but both make their TLS objects by `SSLContext.wrap_bio`, which
makes them of the context's `sslobject_class`. Ours offers a session right before the handshake
begins. The server takes it, or makes a full handshake; nothing else differs.

Rules of this room:

* A session is offered once (RFC 8446 appendix C.4), so one that spoils a handshake spoils no other.
* It is offered only for the name that was verified when it was made, and by the context that made
  it: nobody is trusted more because of it.
* Only contexts that this library made are changed, never a caller's.
"""

from __future__ import annotations

import contextlib
import ssl
from collections import OrderedDict, deque
from typing import ClassVar

SESSIONS = 8
"""Sessions that are kept for one name: about as many connections as a pool makes anew at a time."""
NAMES = 64
"""Names for which sessions are kept."""


class Sessions:
    """The newest sessions, by the name that was verified."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, deque[ssl.SSLSession]] = OrderedDict()

    def keep(self, name: str, session: ssl.SSLSession) -> None:
        """Keep one for later."""
        self._kept.setdefault(name, deque(maxlen=SESSIONS)).append(session)
        self._kept.move_to_end(name)
        if len(self._kept) > NAMES:
            self._kept.popitem(last=False)

    def take(self, name: str) -> ssl.SSLSession | None:
        """Take the newest one away, if there is one."""
        # Contexts may be shared by event loops in several threads: ask forgiveness, not permission.
        with contextlib.suppress(IndexError):
            return self._kept.get(name, deque()).pop()
        return None


class Resuming(ssl.SSLObject):
    """A TLS connection that offers a session of an earlier one."""

    sessions: ClassVar[Sessions]
    _begun = False

    def do_handshake(self) -> None:
        """Go on with the handshake; before its first octet, offer a session."""
        if not self._begun:
            self._begun = True
            session = self.sessions.take(self.server_hostname or "")
            if session is not None:
                self.session = session
        super().do_handshake()

    def keep(self) -> None:
        """Keep the session for the next connection, once the server has said something.

        In TLS 1.3 what can be resumed comes only after the handshake.
        """
        session = self.session
        if session is not None and (session.has_ticket or (self.version() != "TLSv1.3" and session.id)):
            self.sessions.keep(self.server_hostname or "", session)


def resuming(context: ssl.SSLContext) -> ssl.SSLContext:
    """Make the connections of a context resume one another; returns it."""
    kept = Sessions()

    class OfThisContext(Resuming):
        sessions = kept

    context.sslobject_class = OfThisContext
    return context
