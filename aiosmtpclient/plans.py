"""Plans: what a client's constructor was given, and what it means for the place it connects to.

A `Plan` is made once, `Settings` for each place: a client may be told to connect elsewhere, and
what is left out then goes by that port and that host.

Rules of this room:

* Wrong arguments are found here, before anything is connected to.
* What is left out is decided by the server's own host and port, never by what is on the way to it.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from smtplib import SMTP_SSL_PORT
from typing import NamedTuple

from . import sasl
from .dialling import Dialer, Endpoint, TLSSettings
from .errors import SMTPConnectError
from .origin import ProxyHeader
from .secret import Secret
from .session import Trace
from .timeouts import Timeouts
from .tls import TLSPolicy
from .tokens import TokenProvider
from .trust import Trust


class Settings(NamedTuple):
    """Everything it takes to make a connection ready.

    Attributes:
        endpoint: where the server is.
        policy: when TLS is used.
        security: context and name for the handshake.
        timeouts: how long to wait.
        local_hostname: what to say hello with; None for this host's own name.
        lmtp: LHLO, not EHLO.
        credentials: log in with these, if any.
        allow_cleartext_auth: credentials may travel in clear.
        trace: told everything that goes over the wire.
        token: an access token, or what gives one.
        mechanisms: the only ones to log in with.
        proxy_header: written before everything else.
    """

    endpoint: Endpoint
    policy: TLSPolicy
    security: TLSSettings
    timeouts: Timeouts
    local_hostname: str | None = None
    lmtp: bool = False
    credentials: sasl.Credentials | None = None
    allow_cleartext_auth: bool = False
    trace: Trace | None = None
    token: Secret | TokenProvider | None = None
    mechanisms: Sequence[str] | None = None
    proxy_header: ProxyHeader | None = None

    @property
    def hello_verb(self) -> str:
        """EHLO, or LHLO in LMTP (RFC 2033 section 4.1)."""
        return "LHLO" if self.lmtp else "EHLO"


class Plan(NamedTuple):
    """What a client's constructor was given: makes `Settings` for wherever it is to connect.

    Attributes:
        host: "" for localhost, a name, an address, "host:port", or the path of a Unix socket.
        port: 0 for the one in `host`, else the default of the protocol and policy.
        tls: a policy, its name, or None to choose by port and place.
        default_port: the protocol's own.
    """

    host: str
    port: int
    default_port: int
    lmtp: bool
    sock: socket.socket | None
    tls: TLSPolicy | str | None
    tls_context: ssl.SSLContext | None
    server_hostname: str | None
    timeouts: Timeouts
    local_hostname: str | None
    credentials: sasl.Credentials | None
    allow_cleartext_auth: bool
    trace: Trace | None
    token: Secret | TokenProvider | None = None
    mechanisms: Sequence[str] | None = None
    proxy_header: ProxyHeader | None = None
    trust: Trust | None = None
    dialer: Dialer | None = None

    def settings(
        self, host: str = "", port: int = 0, source_address: tuple[str, int] | None = None
    ) -> Settings:
        """Where to connect and how; without host and port, where the constructor said.

        Raises:
            ValueError: a port that is no number, an unknown policy, an impossible host name.
        """
        if not host and not port:
            host, port = self.host, self.port
        host, port = split_port(host or "", port_number(port))
        if not host.isprintable() or (" " in host and not host.startswith("/")):
            raise ValueError(f"not a host: {host!r}")
        if source_address is not None:
            port_number(source_address[1])
        sock = self.sock
        host = host or ("" if sock is not None else "localhost")
        port = port or self._default_port()
        endpoint = Endpoint(host, port, source_address, sock, self.dialer)
        if self.dialer is not None:
            _check_dialled(endpoint)
        named = bool(host) and not endpoint.unix
        return Settings(
            endpoint=endpoint,
            policy=self._policy(endpoint),
            security=TLSSettings(
                self.tls_context, self.server_hostname or (host if named else "localhost"), self.trust
            ),
            timeouts=self.timeouts,
            local_hostname=self.local_hostname,
            lmtp=self.lmtp,
            credentials=self.credentials,
            allow_cleartext_auth=self.allow_cleartext_auth,
            trace=self.trace,
            token=self.token,
            mechanisms=self.mechanisms,
            proxy_header=self.proxy_header,
        )

    def _policy(self, endpoint: Endpoint) -> TLSPolicy:
        """By port and place, if nothing is said; but a pin means TLS, wherever the server is."""
        policy = TLSPolicy.of(self.tls, port=0 if endpoint.unix else endpoint.port, local=endpoint.local)
        if self.trust is None or not self.trust.pins:
            return policy
        if self.tls is None and policy in (TLSPolicy.NONE, TLSPolicy.OPPORTUNISTIC):
            return TLSPolicy.STARTTLS
        if policy is TLSPolicy.NONE:
            raise ValueError("with tls='none' there is no certificate that tls_fingerprint= could mean")
        return policy

    def _default_port(self) -> int:
        implicit = self.tls in (TLSPolicy.IMPLICIT, TLSPolicy.IMPLICIT.value)
        return SMTP_SSL_PORT if implicit and not self.lmtp else self.default_port


def _check_dialled(endpoint: Endpoint) -> None:
    """Raise for what only a connection of our own making can have."""
    if endpoint.sock is not None:
        raise ValueError("sock= is connected already: neither proxy= nor dialer= can do that")
    if endpoint.unix:
        raise ValueError("a Unix socket is on this machine: neither proxy= nor dialer= leads to it")
    if endpoint.source_address not in (None, ("", 0)):
        raise ValueError("source_address= is for connections without proxy= or dialer=")


def port_number(port: int | str) -> int:
    """The port as a number; one that came as text, from an environment variable say, is understood.

    Raises:
        SMTPConnectError: it is none (an `OSError` in smtplib too).
    """
    number = int(port) if isinstance(port, str) and port.isascii() and port.isdigit() else port
    if not isinstance(number, int) or not 0 <= number <= 65535:
        raise SMTPConnectError(-1, f"no port number: {port!r}; one is from 0 to 65535".encode())
    return number


def split_port(host: str, port: int) -> tuple[str, int]:
    """Understand "host:port" as smtplib does: only if no port is given, and never in an IPv6 address.

    Raises:
        SMTPConnectError: the port is no number (an `OSError` in smtplib too).
    """
    if port or host.startswith("/") or host.count(":") != 1:
        return host, port
    host, _, digits = host.partition(":")
    return host, port_number(digits)
