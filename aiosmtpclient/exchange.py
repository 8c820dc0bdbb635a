"""What a SASL exchange is made of: the words that mechanisms and dialogues share (RFC 4422).

A mechanism is a generator. The first thing it yields is the initial response, or None if the
server speaks first; each `send(challenge)` then gives the next response.

============================  ===============================================================
it yields octets              the response
it yields a `Complaint`       the challenge was a refusal with reasons; this answers it
it returns a text, or None    the challenge makes no sense, which the text says; None: one too many
it raises `Unproven`          the server is not who it says it is: nothing more may be sent to it
it raises `ValueError`        these credentials cannot go this way
============================  ===============================================================

A mechanism in which the server proves itself too is sent None when the server says that the
login succeeded: it returns None if the proof was given, and raises `Unproven` if not.

Rules of this room:

* A mechanism knows no socket and no TLS: what it needs of them is handed in, as octets.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from .secret import Credentials


class Channel(NamedTuple):
    """What a login can be bound to in the TLS below it (RFC 5056, RFC 5929).

    Attributes:
        unique: the octets of tls-unique; None from TLS 1.3 on, where it means nothing (RFC 9266).
        certificate: the server's certificate, DER.
    """

    unique: bytes | None = None
    certificate: bytes | None = None


class Peer(NamedTuple):
    """What is known about the other side of an exchange.

    Attributes:
        hostname: its name; empty if it has none.
        port: its TCP port; 0 if it has none.
        service: the GSSAPI name of the service.
        channel: the TLS below, if there is any.
        plus: it offers a mechanism that binds to the channel.
    """

    hostname: str = ""
    port: int = 0
    service: str = "smtp"
    channel: Channel | None = None
    plus: bool = False


NOBODY = Peer()


class Complaint(NamedTuple):
    """A refusal that came as a challenge (RFC 7628 section 3.2.2).

    Attributes:
        response: what the server has to be sent before it says its 535.
        details: what it said, secrets cut out.
    """

    response: bytes
    details: Mapping[str, str]


class Unproven(Exception):
    """The server did not prove that it knows the password, where the mechanism asks for that."""


Mechanism: TypeAlias = "Generator[bytes | Complaint | None, bytes | None, str | None]"
MechanismFactory: TypeAlias = "Callable[[Credentials, Peer], Mechanism]"
