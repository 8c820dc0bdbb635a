"""JSON lines: one message a line, its envelope in it and its content in a file or in it too.

::

    {"from": "news@example.org", "to": ["ann@example.net"], "file": "letters/ann.eml"}
    {"from": "", "to": "bob@example.net", "content": "Subject: hi\\n\\nhello\\n"}

Rules of this room:

* `from` and `to` may be left out, and are then what the headers say, or `--from` and `--to`.
* A key that is not known is an error: a misspelt `from` must not send from somebody else.
* The file that was read last is kept: a newsletter is one file and many lines.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TypeGuard

from .options import unreadable

_KEYS = frozenset({"from", "to", "file", "content"})


@dataclass(frozen=True, slots=True)
class Line:
    """What one line asks for.

    Attributes:
        sender: the reverse-path; None for what the headers say.
        recipients: the forward-paths; None for those in the headers.
        octets: the content.
    """

    sender: str | None
    recipients: tuple[str, ...] | None
    octets: bytes


class Reader:
    """Reads lines.

    Args:
        folder: where relative names of files start.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._last: tuple[object, bytes] = (None, b"")

    def read(self, line: bytes) -> Line:
        """Read a line, and the file that it names.

        Raises:
            ValueError: the line makes no sense.
            Failure: the file cannot be read (see `exits`).
        """
        fields = _fields(line)
        sender, recipients = fields.get("from"), fields.get("to")
        if sender is not None and not isinstance(sender, str):
            raise ValueError(f'"from" is one address, or "" for none, not {sender!r}')
        if isinstance(recipients, str):
            recipients = [recipients]
        if recipients is not None and not _are_texts(recipients):
            raise ValueError(f'"to" is a list of addresses, not {recipients!r}')
        file, content = fields.get("file"), fields.get("content")
        if (file is None) == (content is None):
            raise ValueError('either "file" or "content" says what to send')
        if content is not None:
            octets = _text("content", content).encode()
        else:
            octets = self._octets_of(_text("file", file))
        return Line(sender, tuple(recipients) if recipients is not None else None, octets)

    def _octets_of(self, name: str) -> bytes:
        path = os.path.join(self._folder, name)
        try:
            with open(path, "rb") as file:
                about = os.fstat(file.fileno())
                version = (path, about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns)
                if self._last[0] != version:
                    self._last = version, file.read()
        except OSError as error:
            raise unreadable(name, error) from error
        return self._last[1]


def _fields(line: bytes) -> dict[str, object]:
    try:
        fields = json.loads(line, object_pairs_hook=_each_once)
    except RecursionError:
        raise ValueError("no JSON that anybody meant") from None
    except UnicodeDecodeError:
        raise ValueError("no JSON: it is not UTF-8") from None
    except ValueError as error:
        raise ValueError(f"no JSON: {error}") from None
    if not isinstance(fields, dict):
        raise ValueError(f"a line is a JSON object, not {type(fields).__name__}")
    if unknown := sorted(fields.keys() - _KEYS):
        raise ValueError(f"unknown: {', '.join(unknown)}; a line has from, to, and file or content")
    return fields


def _each_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) < len(pairs):  # of two "to" one would be forgotten
        raise ValueError("a key stands there twice")
    return fields


def _text(key: str, value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f'"{key}" is a text, not {value!r}')
    return value


def _are_texts(values: object) -> TypeGuard[list[str]]:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)
