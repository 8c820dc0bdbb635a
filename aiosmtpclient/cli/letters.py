"""Letters: what was found, with its envelope and a digest, ready to be sent.

Rules of this room:

* Without `raw` a message is parsed, as `aiosmtpclient send` does: the envelope may come from its
  headers, and Bcc does not travel. With it the octets leave as they are.
* Of the envelope, what the source says counts first, then `--from` and `--to`, then the headers.
* The digest covers the envelope and every octet of the content.
* What was parsed last is kept: a newsletter is one content and many envelopes.
"""

from __future__ import annotations

import email
import email.policy
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from email.message import EmailMessage

from aiosmtpclient.message_objects import envelope_of

from .sources import Found

# Header lines stay as they stand in the file, however long they are: somebody may have signed them.
_AS_IT_STANDS = email.policy.default.clone(refold_source="none")


@dataclass(frozen=True, slots=True)
class Letter:
    """A message that can be sent, as far as can be told without a server; or why it cannot.

    Attributes:
        place: what names it across runs.
        label: what names it to the user.
        digest: of envelope and content; empty with a problem.
        size: octets in memory, about.
        sender: the reverse-path.
        recipients: the forward-paths.
        content: the message, or its octets.
        problem: why it cannot be sent.
    """

    place: str
    label: str
    digest: bytes = b""
    size: int = 0
    sender: str = ""
    recipients: tuple[str, ...] = ()
    content: EmailMessage | bytes = b""
    problem: Exception | None = None


class Desk:
    """Makes letters of what was found.

    Args:
        sender: the reverse-path where the source says none; None for the one in the headers.
        recipients: likewise the forward-paths.
        raw: send the octets as they are.
    """

    def __init__(self, sender: str | None, recipients: Iterable[str] | None, *, raw: bool = False) -> None:
        self._sender = sender
        self._recipients = tuple(recipients) if recipients is not None else None
        self._raw = raw
        self._octets: bytes | None = None
        self._digest = b""
        self._content: EmailMessage | bytes = b""

    def letters(self, all_found: Iterable[Found]) -> Iterator[Letter]:
        """Make a letter of each."""
        return map(self.letter, all_found)

    def letter(self, found: Found) -> Letter:
        """Make a letter; what is wrong with it is its `problem`."""
        if found.problem is not None:
            return Letter(found.place, found.label, problem=found.problem)
        try:
            return self._made(found)
        except ValueError as error:
            return Letter(found.place, found.label, problem=error)

    def _made(self, found: Found) -> Letter:
        self._read(found.octets)
        sender = found.sender if found.sender is not None else self._sender
        recipients = found.recipients if found.recipients is not None else self._recipients
        if isinstance(self._content, EmailMessage):
            sender, named = envelope_of(self._content, sender, recipients)
            recipients = (named,) if isinstance(named, str) else tuple(named)
        if sender is None or recipients is None:
            raise ValueError("--raw takes no envelope from the headers: it needs --from and --to")
        if not recipients:
            raise ValueError("there are no recipients")
        envelope = json.dumps([sender, recipients, self._raw]).encode("ascii")
        digest = hashlib.blake2b(envelope + self._digest, digest_size=16).digest()
        return Letter(found.place, found.label, digest, len(found.octets), sender, recipients, self._content)

    def _read(self, octets: bytes) -> None:
        if octets is self._octets:
            return
        self._octets = None
        self._digest = hashlib.blake2b(octets, digest_size=32).digest()
        self._content = octets if self._raw else email.message_from_bytes(octets, policy=_AS_IT_STANDS)
        self._octets = octets
