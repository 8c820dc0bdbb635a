"""What arrived: the messages in a server's mailboxes or spool, in whatever form it keeps them.

Every message of these tests begins with a field of its own, `X-Interop`, so that what servers
put in front of it (trace fields, mostly) is told from what was sent. Line ends are the server's
own; they are compared as LF.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

MARK = b"X-Interop: "


class Stored(NamedTuple):
    """One message, or one recipient's copy of it.

    Attributes:
        key: which of our messages it is.
        content: from our first field on, with LF.
        recipients: for whom it was kept, if the server writes that down.
    """

    key: str
    content: bytes
    recipients: tuple[str, ...] = ()


def stored(octets: bytes, recipients: tuple[str, ...] = ()) -> Iterator[Stored]:
    """One message out of one file; none if it is not of ours."""
    start = octets.find(MARK)
    if start >= 0:
        content = octets[start:].replace(b"\r\n", b"\n")
        yield Stored(content[len(MARK) : content.index(b"\n")].decode(), content, recipients)


def in_maildir(folder: Path, whose: str = "", taken_as: re.Pattern[bytes] | None = None) -> Iterator[Stored]:
    """The messages of a maildir.

    Args:
        folder: the maildir.
        whose: for whom it is, if the messages do not say so.
        taken_as: finds what the server called a message; what it delivered twice counts once.
    """
    seen = set()
    for file in sorted(folder.glob("new/*")) + sorted(folder.glob("cur/*")):
        octets = file.read_bytes()
        named = re.search(rb"^Delivered-To: (\S+)$", octets, re.MULTILINE)
        if taken_as is not None and (called := taken_as.search(octets)) is not None:
            again = (called[1], named and named[1])
            if again in seen:
                continue
            seen.add(again)
        yield from stored(octets, (named[1].decode(),) if named is not None else (whose,))


def in_envelopes(folder: Path) -> Iterator[Stored]:
    """Files that begin with a line of JSON, the recipients: how the servers of our own making keep mail."""
    for file in sorted(folder.glob("*.eml")):
        first, _, octets = file.read_bytes().partition(b"\n")
        yield from stored(octets, tuple(json.loads(first)))
