"""`Attributes`: smtplib's attributes, and whose connection this is.

The blocking classes have `smtplib`'s attributes as plain ones: as of the end of the last call,
and what the caller writes into them counts at the next.

Rules of this room:

* The two ways, `_tell` before a call and `_learn` after it, are walked on the event loop, so that
  threads that share a client cannot meet there. What was told last is kept, for only what differs
  from that was written by the caller.
* Nothing here waits, `__del__` least of all: it warns, and asks the loop to close the socket.
"""

from __future__ import annotations

import warnings
from smtplib import SMTP_PORT
from typing import TYPE_CHECKING

from . import commands
from .secret import Secret

if TYPE_CHECKING:
    from .classic import ClassicSMTP, SocketView


class Attributes:
    """What a blocking client knows of its connection.

    Args:
        client: does the work, on the event loop.

    Attributes:
        debuglevel: 1 prints the conversation to stderr, 2 with the time of day.
        sock: a look at the socket; None if not connected.
        helo_resp: the text of the reply to HELO, if there was one.
        ehlo_resp: the text of the reply to EHLO or LHLO, if there was one.
        does_esmtp: EHLO or LHLO was answered with 250.
        esmtp_features: what the server offers, keyword in lower case → parameters. It may be
            edited: what is taken out counts as not offered.
        command_encoding: how `send` encodes text; "utf-8" in a transaction with SMTPUTF8.
    """

    debuglevel: int = 0
    sock: SocketView | None = None
    helo_resp: bytes | None = None
    ehlo_msg: str = "ehlo"
    ehlo_resp: bytes | None = None
    does_esmtp: bool = False
    default_port: int = SMTP_PORT

    def __init__(self, client: ClassicSMTP) -> None:
        self.esmtp_features: dict[str, str] = {}
        self.command_encoding = "ascii"
        self._client = client
        self._offered: dict[str, str] = {}
        self._greeted = False

    def _tell(self) -> None:
        """Let the client know what the caller wrote into the attributes."""
        if self.esmtp_features != self._offered:
            self._client.offer(self.esmtp_features)
            self._offered = self._client.esmtp_features
        if self._greeted and self.ehlo_resp is None and self.helo_resp is None:
            self._client.forget_hello()

    def _learn(self) -> None:
        """Bring the attributes up to date."""
        client = self._client
        self.sock = client.view()
        self.helo_resp, self.ehlo_resp = client.helo_resp, client.ehlo_resp
        self.does_esmtp = client.does_esmtp
        self._greeted = not (self.ehlo_resp is None and self.helo_resp is None)
        if client.esmtp_features != self._offered:
            self._offered = client.esmtp_features
            self.esmtp_features = dict(self._offered)

    def __del__(self) -> None:
        client = self.__dict__.get("_client")  # a constructor may fail before there is one
        if client is None or not client.is_connected:
            return
        try:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
        finally:
            client.let_go()

    def __repr__(self) -> str:
        client = self.__dict__.get("_client")
        known = repr(client).partition(" ")[2] if client is not None else "not connected>"
        return f"<{type(self).__name__} {known}"

    @property
    def local_hostname(self) -> str:
        """What EHLO is said with."""
        return self._client.local_hostname

    @local_hostname.setter
    def local_hostname(self, name: str) -> None:
        commands.hello("EHLO", name)
        self._client.set_local_hostname(name)

    @property
    def user(self) -> str:
        """The user name of the newest login; `auth_plain` and the others answer with it."""
        return self._client.user

    @user.setter
    def user(self, user: str) -> None:
        self._client.set_credentials(user, Secret(self.password))

    @property
    def password(self) -> str:
        """The password that goes with it."""
        return self._client.password

    @password.setter
    def password(self, password: str) -> None:
        secret, password = Secret(password), ""  # what fails below must not show it
        self._client.set_credentials(self.user, secret)

    def set_debuglevel(self, debuglevel: int) -> None:
        """Print the conversation to stderr, secrets masked: 1, with the time of day: 2, not at all: 0."""
        self.debuglevel = debuglevel

    def has_extn(self, opt: str) -> bool:
        """True if the server offers this extension."""
        return opt.lower() in self.esmtp_features

    def auth_cram_md5(self, challenge: bytes | None = None) -> str | None:
        """Authobject for CRAM-MD5 (RFC 2195): nothing before the challenge, then the proof."""
        return self._client.auth_cram_md5(challenge)

    def auth_plain(self, challenge: bytes | None = None) -> str:
        """Authobject for PLAIN (RFC 4616), from `user` and `password`."""
        return self._client.auth_plain(challenge)

    def auth_login(self, challenge: bytes | None = None) -> str:
        """Authobject for LOGIN: the user name first, then the password."""
        return self._client.auth_login(challenge)
