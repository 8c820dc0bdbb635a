"""The serialiser: from a message object to octets, in one walk over its parts.

The standard library's `BytesGenerator` writes line by line and folds every header anew. This
walk hands over what is plainly simple as it is: text in one replacement, a header that needs no
folding as one line. Everything else goes to the standard library, header by header or part by
part, so the octets are the same as if it had written them all.

Rules of this room:

* No object is changed: not the message, not its parts. A boundary that is missing is made up
  for the octets only. What the standard library may write on is a copy that shares only texts.
* Simple is what is proven simple here, under all supported versions. Whatever is unknown (a class
  that overrides what a generator asks for, a policy of somebody's own, a text that is no text)
  is the standard library's.
* A line break in a header's name or value is an error, in every part (RFC 5322 section 2.2).
"""

from __future__ import annotations

import copy
import functools
import io
import operator
import random
import re
import sys
from collections.abc import Iterable, Sequence
from email._header_value_parser import TokenList
from email.generator import BytesGenerator
from email.headerregistry import (
    BaseHeader,
    ContentTransferEncodingHeader,
    DateHeader,
    MessageIDHeader,
    MIMEVersionHeader,
    ParameterizedMIMEHeader,
    UnstructuredHeader,
)
from email.message import Message
from email.policy import Compat32, EmailPolicy, Policy
from typing import Any, NamedTuple, TypeAlias

Field: TypeAlias = tuple[str, Any]
"""A header's name, and the value that the message object keeps for it."""
Piece: TypeAlias = bytes | str

# RFC 5322 section 2.2: a field name is printable ASCII without the colon.
_NAME = re.compile(r"[!-9;-~]+")
_OPEN_LINE = re.compile(r"(?>\r\n|\r|\n)(?![ \t])")
_ONE_LINE = re.compile(r"[\t -~]*+")
# A line that ends in a blank, or is nothing but blanks, is not left alone by every policy.
_FOLDED = re.compile(r"[\t -~]*[!-~](?:\r?\n[\t ][\t -~]*[!-~])+")
_TYPE = re.compile(r"([A-Za-z0-9.+-]+)/([A-Za-z0-9.+-]+)(?=;|$(?!\n))")
_BARE_MULTIPART = re.compile(r"multipart/[a-z0-9.+-]+")
# Longer than any line, also for `Compat32`, which takes "no limit" for a million.
_NO_LIMIT = 1_000_000
_TEXT_OR_NONE = (str, type(None))
_SLICE = 1 << 16
# All that a generator asks of a part. The answers are known only where these are as they were.
_ASKED = (
    *("get_content_type", "get_content_maintype", "get_content_subtype", "get_default_type"),
    *("get_boundary", "set_boundary", "get_param", "get_params", "get_payload", "is_multipart"),
    *("raw_items", "get", "__contains__"),
)
_answers = operator.attrgetter(*_ASKED)
_USUAL_ANSWERS = _answers(Message)
# The headers whose text is, by the way they are parsed, the text of their parse tree.
_ECHOING = frozenset(
    kind.parse.__func__  # type: ignore[attr-defined]  # a class method at run time
    for kind in (
        *(ContentTransferEncodingHeader, DateHeader, MessageIDHeader, MIMEVersionHeader),
        *(ParameterizedMIMEHeader, UnstructuredHeader),
    )
)
# How most nodes of a parse tree are made a text: it is that of their children.
_JOINED: Any = TokenList.__str__


class Written(NamedTuple):
    """A message as octets, but for its long texts.

    Attributes:
        pieces: what the standard library would write, but for the line ends if they are not clean.
            The first one starts with the whole header block. A text is ASCII, without CR, and
            each LF in it stands for CRLF.
        clean: True if it is certain that every line ends in CRLF, the last one too.
    """

    pieces: list[bytes | str]
    clean: bool


def write(message: Message, policy: Policy[Message], fields: Sequence[Field] | None = None) -> Written:
    """Write a message object.

    Long texts, the most of a message with attachments, are handed over as they are: making octets
    of megabytes takes fresh memory, which costs more than all that is done with it.

    Args:
        message: it is not changed.
        policy: the policy for it and for all its parts; its line end is CRLF.
        fields: what to write as the header of the message, instead of its own.

    Raises:
        ValueError: a header would break the header block.
        Exception: whatever the standard library raises for an object that it cannot write.
    """
    walk = _Walk()
    pieces = walk.part(message, policy, fields)
    last = pieces[-1]
    if walk.clean and not (last.endswith("\n") if isinstance(last, str) else last.endswith(b"\r\n")):
        pieces.append(b"\r\n")
    return Written(pieces, walk.clean)


class _Walk:
    """One walk over a message. What it returns are pieces to be joined, none of them empty."""

    def __init__(self) -> None:
        self.clean = True

    def part(self, part: Message, policy: Policy[Message], fields: Sequence[Field] | None) -> list[Piece]:
        if not (_is_usual(policy) and _is_plain(part)):
            return self._by_library(part, policy, fields)
        fields = list(part.raw_items()) if fields is None else fields
        main, sub = _content_type(part, policy, fields)
        payload = part.__dict__["_payload"]
        if main == "multipart":
            if payload is None or _are_messages(payload):
                return self._multipart(part, policy, fields, sub == "signed")
        elif main == "message":
            if sub not in ("delivery-status", "delivery_status") and payload and _are_messages(payload):
                return [self._header(fields, policy), *self.part(payload[0], policy, None)]
        # A generator finds its ways by these names, with either sign.
        elif not ("_" in main or "-" in main):
            if payload is None:
                return [self._header(fields, policy)]
            if isinstance(payload, str) and (policy.cte_type == "8bit" or payload.isascii()):
                return [self._header(fields, policy), *self._text(payload)]
        return self._by_library(part, policy, fields)

    def _header(self, fields: Iterable[Field], policy: Policy[Message]) -> bytes:
        block: list[str] = []
        limit = policy.max_line_length or _NO_LIMIT
        for name, value in fields:
            simple = _simple_field(name, value, policy, limit)
            if not simple:
                refuse_broken_field(name, value)
                octets = _folded(name, value, policy)
                # What stands there as octets over 127 keeps the line ends that it was parsed with.
                self.clean = self.clean and octets.replace(b"\r", b"").replace(b"\n", b"\r\n") == octets
                simple = octets.decode("latin-1")
            block.append(simple)
        block.append("\r\n")
        return "".join(block).encode("latin-1")

    def _text(self, text: str) -> list[Piece]:
        if len(text) > _SLICE and text.isascii() and "\r" not in text:
            return [text]
        pieces: list[Piece] = []
        start = 0
        while start < len(text):
            end = text.find("\n", start + _SLICE) + 1 or len(text)
            octets = text[start:end].encode("ascii", "surrogateescape")
            if b"\r" in octets:
                self.clean = False
            else:
                octets = octets.replace(b"\n", b"\r\n")
            pieces.append(octets)
            start = end
        return pieces

    def _multipart(
        self, part: Message, policy: Policy[Message], fields: Sequence[Field], signed: bool
    ) -> list[Piece]:
        # RFC 1847 section 2.1: what is signed must not be folded anew.
        inner = policy.clone(max_line_length=0) if signed else policy
        bodies = [self.part(each, inner, None) for each in part.__dict__["_payload"] or ()]
        typed = _typed(policy, fields)
        boundary = typed.get_boundary()
        if not boundary:
            boundary = _new_boundary(bodies)
            fields = _with_boundary(fields, policy, typed, boundary)
        delimiter = self._text("--" + boundary)
        pieces: list[Piece] = [self._header(fields, policy)]
        if part.preamble is not None:
            pieces += [*self._text(part.preamble), b"\r\n"]
        pieces += [*delimiter, b"\r\n"]
        for number, body in enumerate(bodies):
            pieces += [b"\r\n", *delimiter, b"\r\n", *body] if number else body
        pieces += [b"\r\n", *delimiter, b"--\r\n"]
        return pieces if part.epilogue is None else [*pieces, *self._text(part.epilogue)]

    def _by_library(
        self, part: Message, policy: Policy[Message], fields: Sequence[Field] | None
    ) -> list[Piece]:
        self.clean = False
        twin = _deep_twin(part, fields)
        return [_flattened(twin, policy)]


def _flattened(message: Message, policy: Policy[Message]) -> bytes:
    buffer = io.BytesIO()
    BytesGenerator(buffer, policy=policy).flatten(message)
    return buffer.getvalue()


# --- What is simple ---


def _is_usual(policy: Policy[Message]) -> bool:
    return type(policy) in (EmailPolicy, Compat32) and policy.linesep == "\r\n" and not policy.mangle_from_


def _is_plain(part: Message) -> bool:
    """Tell whether this part answers a generator as any message does."""
    own = part.__dict__
    return (
        _answers(type(part)) == _USUAL_ANSWERS
        and not hasattr(part, "_write_headers")
        and own.keys().isdisjoint(_ASKED)
        and "_payload" in own
        and isinstance(own.get("preamble"), _TEXT_OR_NONE)
        and isinstance(own.get("epilogue"), _TEXT_OR_NONE)
    )


def _are_messages(payload: object) -> bool:
    return isinstance(payload, list) and all(isinstance(each, Message) for each in payload)


def _content_type(part: Message, policy: Policy[Message], fields: Iterable[Field]) -> tuple[str, str]:
    for name, value in fields:
        if name.lower() == "content-type":
            simple = _TYPE.match(value) if isinstance(value, str) else None
            if simple is None:
                typed = _typed(policy, fields)
                return typed.get_content_maintype(), typed.get_content_subtype()
            return simple[1].lower(), simple[2].lower()
    main, _, sub = part.get_default_type().partition("/")
    return main, sub


def _typed(policy: Policy[Message], fields: Iterable[Field]) -> Message:
    """Return a message that has the Content-Type of these fields, and nothing else."""
    typed = Message(policy)
    # Parsed here once, and not for each question again.
    typed._headers = [  # type: ignore[attr-defined]  # no setter takes them unparsed
        (name, policy.header_fetch_parse(name, value))
        for name, value in fields
        if name.lower() == "content-type"
    ]
    return typed


# --- Boundaries ---


def _new_boundary(bodies: Iterable[Sequence[Piece]]) -> str:
    """Make up a boundary that stands in none of the parts, as the standard library would."""
    while True:
        boundary = f"{'=' * 15}{random.randrange(sys.maxsize):019d}=="
        if not any(_stands_in(piece, f"--{boundary}") for body in bodies for piece in body):
            return boundary


def _stands_in(piece: Piece, delimiter: str) -> bool:
    if isinstance(piece, bytes):
        return delimiter.encode("ascii") in piece
    # Slice by slice, so that other threads get their turn.
    return any(
        piece.find(delimiter, start, start + _SLICE + len(delimiter)) >= 0
        for start in range(0, len(piece), _SLICE)
    )


def _with_boundary(
    fields: Iterable[Field], policy: Policy[Message], typed: Message, boundary: str
) -> list[Field]:
    """Return the fields with the boundary as a parameter of the Content-Type."""
    [(name, value), *more] = typed.raw_items()
    limit = policy.max_line_length or _NO_LIMIT
    if not more and (simple := _simple_boundary(name, value, boundary, limit)):
        rewritten = iter([(name, simple)])
    else:
        typed.set_boundary(boundary)
        rewritten = typed.raw_items()
    return [next(rewritten) if name.lower() == "content-type" else (name, value) for name, value in fields]


def _simple_boundary(name: str, value: object, boundary: str, limit: int) -> str:
    """Return a type that had no parameters with its boundary, folded as every policy does; else nothing."""
    if isinstance(value, str) and _BARE_MULTIPART.fullmatch(value):
        first, second = value + ";", f' boundary="{boundary}"'
        room = limit - len(name) - 2 - len(first)
        if len(second) <= room:
            return first + second
        if room >= 0 and len(second) < limit:
            return first + "\r\n" + second
    return ""


# --- Headers ---


def refuse_broken_field(name: str, value: object) -> None:
    """Raise unless this is a header's name, and a value that stays in that header."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!a} cannot be the name of a header")
    if isinstance(value, str) and _OPEN_LINE.search(value):
        raise ValueError(f"the header {name!a} has a line break in its value")


def _folded(name: str, value: object, policy: Policy[Message]) -> bytes:
    """Return the field as the standard library writes it, with the checks that its version makes."""
    alone = _HeaderAlone(policy)
    alone._headers = [(name, value)]  # type: ignore[attr-defined]  # a setter would parse it
    return _flattened(alone, policy).removesuffix(b"\r\n")


class _HeaderAlone(Message):
    def get_content_type(self) -> str:
        # Whatever its header says, there is no body to be written in a particular way.
        return "text/plain"


def _simple_field(name: str, value: object, policy: Policy[Message], limit: int) -> str:
    """Return the field if the policy would write it like this; nothing if that must be asked."""
    if not (isinstance(value, str) and _is_name(name)):
        return ""
    if isinstance(policy, EmailPolicy):
        if type(value) is not str and hasattr(value, "name"):
            line = _header_line(value)
            return line + "\r\n" if line and len(line) <= limit and _is_line(line) else ""
        if policy.refold_source not in ("long", "none"):
            return ""
    if _is_line(value):
        return f"{name}: {value}\r\n" if len(name) + 2 + len(value) <= limit else ""
    if not _FOLDED.fullmatch(value):
        return ""
    lines = f"{name}: {value}".splitlines()
    return "\r\n".join([*lines, ""]) if max(map(len, lines)) <= limit else ""


@functools.lru_cache(maxsize=256)
def _is_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def _is_line(text: str) -> bool:
    # Nearly all have no tab, and need no regular expression.
    return (text.isascii() and text.isprintable()) or _ONE_LINE.fullmatch(text) is not None


def _header_line(header: Any) -> str:
    """Return the line that a header object folds if it is too long; nothing if that is not certain."""
    kind = type(header)
    try:
        tree, fold, parse = header._parse_tree, kind.fold, kind.parse.__func__
    except AttributeError:
        return ""
    if not tree or fold is not BaseHeader.fold or not header.isascii():
        return ""
    return f"{header.name}: {header if parse in _ECHOING else _text_of(tree)}"


def _text_of(node: Any) -> str:
    """Return `str(node)`, which goes through a generator for each node of a parse tree."""
    while type(node).__str__ is _JOINED:
        if len(node) != 1:
            return "".join([_text_of(child) for child in node])
        node = node[0]
    return str(node)


# --- Copies ---


def twin_of(part: Message, fields: Iterable[Field] | None = None) -> Message:
    """Return a copy of one node of a message: its header can be changed, its payload is shared."""
    twin = copy.copy(part)
    raw = part.raw_items() if fields is None else fields
    twin._headers = list(raw)  # type: ignore[attr-defined]  # a setter would parse them
    return twin


def _deep_twin(part: Message, fields: Iterable[Field] | None = None) -> Message:
    twin = twin_of(part, fields)
    for name, value in twin.raw_items():
        refuse_broken_field(name, value)
    payload = getattr(part, "_payload", None)
    if isinstance(payload, list):
        twin.set_payload([_deep_twin(inner) for inner in payload])
    elif isinstance(payload, Message):
        twin.set_payload(_deep_twin(payload))
    return twin
