"""Where mail comes from, as somebody in between tells it: PROXY, XCLIENT, XFORWARD.

A load balancer says in front of everything whose connection this is (PROXY protocol, versions 1 and
2). A filter tells Postfix behind it whose mail this is (XFORWARD), or stands in for that client
altogether (XCLIENT). A server takes this from those alone that it was told to trust, so it serves to
test what is behind such a one.

Rules of this room:

* Nothing reaches the wire but numbers, addresses that were read as such, and xtext.
* What the server does not say it takes is not told to it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, TypedDict

from .errors import SMTPNotSupportedError
from .xtext import xtext

if TYPE_CHECKING:
    from .extensions import Extensions

Place: TypeAlias = tuple[str, int]
"""An IPv4 or IPv6 address, and a port."""

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


class XClient(TypedDict, total=False):
    """Who we are to be taken for (XCLIENT). Each may be "[UNAVAILABLE]" or "[TEMPUNAVAIL]".

    Keys:
        name: the client's host name.
        addr: its address, IPv4 or IPv6.
        port: its port.
        proto: "SMTP" or "ESMTP".
        helo: what it said hello with.
        login: who logged in.
        destaddr: the address that it connected to.
        destport: the port that it connected to.
    """

    name: str
    addr: str
    port: int | str
    proto: str
    helo: str
    login: str
    destaddr: str
    destport: int | str


class XForward(TypedDict, total=False):
    """Whose mail this is (XFORWARD). Each may be "[UNAVAILABLE]".

    Keys:
        name: the client's host name.
        addr: its address, IPv4 or IPv6.
        port: its port.
        proto: "SMTP" or "ESMTP".
        helo: what it said hello with.
        ident: the message's queue id there.
        source: "LOCAL" or "REMOTE".
    """

    name: str
    addr: str
    port: int | str
    proto: str
    helo: str
    ident: str
    source: str


def attributes(verb: str, given: XClient | XForward, extensions: Extensions) -> str:
    """What stands behind XCLIENT or XFORWARD.

    Raises:
        SMTPNotSupportedError: the server takes none of that, or not all of it.
        ValueError: nothing was given, or something that has no form.
    """
    values: Mapping[str, object] = given
    if not values:
        raise ValueError(f"{verb} without an attribute says nothing")
    if verb not in extensions:
        raise SMTPNotSupportedError(f"the server does not offer {verb}, or not to us")
    offered = extensions[verb].upper().split()
    for name in values:
        if name.upper() not in offered:
            raise SMTPNotSupportedError(f"the server takes {verb} with {' '.join(offered)}, not with {name}=")
    return " ".join(f"{name.upper()}={_attribute(name, value)}" for name, value in values.items())


def _attribute(name: str, value: object) -> str:
    text = xtext(str(value))
    if not text:
        raise ValueError(f'{name}= is empty; what is not known is "[UNAVAILABLE]"')
    ipv6 = name in ("addr", "destaddr") and ":" in text and not text.upper().startswith("IPV6:")
    return f"IPV6:{text}" if ipv6 else text


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """What stands in front of a connection to tell whose it is (the PROXY protocol).

    Args:
        source: address and port of the client; None for a connection of the proxy's own, a health
            check say.
        destination: address and port that it connected to.
        version: 1, a line of text, or 2, in octets.

    Raises:
        ValueError: one of them is no address or port, or they are not of one kind.
    """

    source: Place | None = None
    destination: Place | None = None
    version: Literal[1, 2] = 2

    def __post_init__(self) -> None:
        if self.version not in (1, 2):
            raise ValueError(f"the PROXY protocol has versions 1 and 2, not {self.version!r}")
        self.encode()

    def encode(self) -> bytes:
        """The octets, to be written before anything else, TLS included."""
        if self.source is None or self.destination is None:
            if self.source is not None or self.destination is not None:
                raise ValueError("a source has a destination, and the other way round")
            return b"PROXY UNKNOWN\r\n" if self.version == 1 else _SIGNATURE + b"\x20\0\0\0"
        source, destination = _address(self.source[0]), _address(self.destination[0])
        if source.version != destination.version:
            raise ValueError(f"{source} and {destination}: one is IPv4 and the other IPv6")
        ports = (self.source[1], self.destination[1])
        if not all(isinstance(port, int) and 0 <= port <= 65535 for port in ports):
            raise ValueError(f"ports are from 0 to 65535, not {ports}")
        ipv4 = source.version == 4
        if self.version == 1:
            family = "TCP4" if ipv4 else "TCP6"
            return f"PROXY {family} {source} {destination} {ports[0]} {ports[1]}\r\n".encode("ascii")
        body = source.packed + destination.packed + b"".join(port.to_bytes(2, "big") for port in ports)
        return _SIGNATURE + (b"\x21\x11" if ipv4 else b"\x21\x21") + len(body).to_bytes(2, "big") + body


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    # A zone may hold any character, line ends too, and means nothing on another host (RFC 4007 section 6).
    if "%" in str(text):
        raise ValueError(f"{text!r} has a zone, for which the PROXY protocol has no form")
    return ipaddress.ip_address(text)
