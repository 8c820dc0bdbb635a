"""How long to wait, and for what."""

from __future__ import annotations

from typing import NamedTuple, Self


class _Seconds(NamedTuple):
    connect: float | None
    reply: float | None
    write: float | None
    final: float | None


class Timeouts(_Seconds):
    """How long to wait, in seconds; None waits for ever (RFC 5321 section 4.5.3.2).

    Attributes:
        connect: for the connection, and once more for a TLS handshake.
        reply: for each reply, from the command or from the reply before it.
        write: for each slice of content, since the last octet that left.
        final: for the reply to the end of the content. A short one makes duplicates: the
            server may be delivering while we give up.
    """

    __slots__ = ()

    def __new__(
        cls,
        connect: float | None = 30.0,
        reply: float | None = 60.0,
        write: float | None = 60.0,
        final: float | None = 600.0,
    ) -> Self:
        for seconds in (connect, reply, write, final):
            if seconds is not None and not (isinstance(seconds, int | float) and seconds > 0):
                raise ValueError(
                    f"a timeout must be more than 0 seconds, not {seconds!r}; None waits for ever"
                )
        return super().__new__(cls, connect, reply, write, final)

    @classmethod
    def of(cls, value: Timeouts | float | None) -> Timeouts:
        """The timeouts themselves, or one number for all of them."""
        return value if isinstance(value, Timeouts) else cls(value, value, value, value)
