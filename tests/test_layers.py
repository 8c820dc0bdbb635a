"""The house rules that no single room can keep alone: who may import whom, and what is public.

A room imports only from lower floors. Floors 0 to 5 never wait, so they import nothing that
could. Each rule is first shown to bite on a source made up for it, then held against every
file of the package.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import aiosmtpclient

PACKAGE = "aiosmtpclient"
HOUSE = Path(aiosmtpclient.__file__).parent

# A package counts as one room, named by its first part. A room that does not exist yet is fine.
FLOORS = {
    **dict.fromkeys(("domains", "errors", "exchange", "replies", "secret", "timeouts", "rates", "slots"), 0),
    **dict.fromkeys(("resumption", "xtext"), 0),
    **dict.fromkeys(("addresses", "commands", "content", "extensions", "serialiser", "tls"), 1),
    **dict.fromkeys(("bearer", "negotiation", "scram", "urls"), 1),
    **dict.fromkeys(("origin", "recipients"), 1),
    **dict.fromkeys(("message_objects", "parameters", "sasl", "steps", "trust"), 2),
    **dict.fromkeys(("message", "delivery", "session", "dialogues", "chunking", "retrying"), 3),
    **dict.fromkeys(("envelopes", "plain"), 4),
    **dict.fromkeys(("transactions", "parts"), 5),
    **dict.fromkeys(
        ("protocol", "bodies", "preparing", "dialling", "turn", "bulk", "tokens", "environment", "proxies"), 6
    ),
    **dict.fromkeys(("driver", "parcels", "plans", "reading"), 7),
    **dict.fromkeys(("connection", "mailing"), 8),
    **dict.fromkeys(("opening", "express"), 9),
    "verbs": 10,
    "by_hand": 11,
    "sending": 12,
    "client": 13,
    **dict.fromkeys(("once", "pooled", "runner", "classic", "attributes", "debug"), 14),
    **dict.fromkeys(("lending", "vocabulary"), 15),
    **dict.fromkeys(("flow", "sync"), 16),
    "pool": 17,
    **dict.fromkeys(("__init__", "testing", "contrib"), 18),
    **dict.fromkeys(("__main__", "cli"), 19),
}
SANS_IO = 5
"""The highest floor that knows nothing of loops, sockets, threads and clocks."""
WAITING = {"asyncio", "socket", "selectors", "threading", "time"}
NAMELESS = {"utils", "base", "core", "helpers", "types"}
"""Names that say nothing about what lives in a room."""
HOUSEHOLDS = {"cli": "cli", "__main__": "cli", "testing": "testing"}
"""Whose members may import one another; `python -m aiosmtpclient` is the front door of cli/."""


@dataclass(frozen=True)
class Import:
    """One imported module: `room` inside the package, or `outside` of it."""

    line: int
    typing_only: bool
    room: str = ""
    outside: str = ""


def room_of(path: Path) -> str:
    """`testing/server.py` → `testing.server`; a package is named like its folder."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "__init__"


def files() -> list[Path]:
    return sorted(path.relative_to(HOUSE) for path in HOUSE.rglob("*.py"))


def is_type_checking(test: ast.expr) -> bool:
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", "")
    return name == "TYPE_CHECKING"


def statements(node: ast.AST, typing_only: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    """Every node below this one, in functions and classes too, and whether only type checkers see it."""
    guarded = isinstance(node, ast.If) and is_type_checking(node.test)
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                hidden = typing_only or (guarded and name == "body")
                yield child, hidden
                yield from statements(child, hidden)


def names_of(node: ast.AST, folder: tuple[str, ...], rooms: set[str]) -> Iterator[str]:
    """The absolute names of the modules that this node imports."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        here = (PACKAGE, *folder)
        base = here[: len(here) - node.level + 1] if node.level else ()
        start = ".".join([*base, *filter(None, [node.module])])
        for alias in node.names:
            # A name that is imported from a package may be a module of it.
            whole = f"{start}.{alias.name}"
            yield whole if whole.removeprefix(PACKAGE + ".") in rooms else start
    elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        called = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if called in ("import_module", "__import__"):
            yield str(node.args[0].value)


def imports_of(path: Path, source: str, rooms: set[str]) -> Iterator[Import]:
    folder = path.parts[:-1]
    for node, typing_only in statements(ast.parse(source)):
        line = getattr(node, "lineno", 0)
        for name in names_of(node, folder, rooms):
            if name == PACKAGE:
                yield Import(line, typing_only, room="__init__")
            elif name.startswith(PACKAGE + "."):
                yield Import(line, typing_only, room=name.removeprefix(PACKAGE + "."))
            else:
                yield Import(line, typing_only, outside=name)


def first(room: str) -> str:
    return room.split(".")[0]


def broken_by(one: Import, here: str, floor: int) -> str | None:
    """What is wrong with one import by a room on that floor, if anything is."""
    if one.outside:
        waits = one.outside.split(".")[0] in WAITING and floor <= SANS_IO
        return f"floor {floor} imports {one.outside}" if waits else None
    there = FLOORS.get(first(one.room))
    if NAMELESS & set(one.room.split(".")):
        return f"{one.room} is no name for a room"
    if there is None:
        return f"imports {one.room}, which is on no floor"
    house = HOUSEHOLDS.get(first(one.room))
    if house is not None and house == HOUSEHOLDS.get(here):
        return None
    if there > floor or (there == floor and not one.typing_only):
        return f"floor {floor} imports {one.room} of floor {there}"
    return None


def broken_rules(path: Path, source: str, rooms: set[str]) -> list[str]:
    """Each rule that this file breaks, as a sentence that starts with the line."""
    here = first(room_of(path))
    if NAMELESS & set(room_of(path).split(".")):
        return [f"{path} is no name for a room"]
    if here not in FLOORS:
        return [f"{path} is on no floor"]
    found = ((one.line, broken_by(one, here, FLOORS[here])) for one in imports_of(path, source, rooms))
    return [f"line {line}: {rule}" for line, rule in sorted(set(found), key=str) if rule is not None]


# The rules bite


ROOMS = {*FLOORS, "testing.server", "testing.loopback", "cli.send", "contrib.django"}


def judged(path: str, source: str) -> list[str]:
    return broken_rules(Path(path), source, ROOMS)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("session.py", "from .replies import Reply"),
        ("session.py", "from . import replies, commands"),
        ("session.py", "import aiosmtpclient.replies as said"),
        ("session.py", "from aiosmtpclient import replies"),
        ("session.py", "import re, enum\nfrom collections.abc import Iterator"),
        ("sasl.py", "from types import MappingProxyType"),
        ("message.py", "import timeit\nimport email.base64mime\nfrom email import utils"),
        ("errors.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .replies import Reply"),
        ("errors.py", "import typing\nif typing.TYPE_CHECKING:\n    from .replies import Reply"),
        ("session.py", "if TYPE_CHECKING:\n    from .replies import Reply"),
        ("protocol.py", "import asyncio, time\nfrom .session import Session"),
        ("client.py", "def late():\n    from . import connection"),
        ("__init__.py", "from .client import AsyncSMTP\nfrom .sync import SMTP"),
        ("__main__.py", "from .cli.send import main"),
        ("cli/demo.py", "from .. import __version__\nfrom ..testing import server"),
        ("cli/send.py", "from . import send\nfrom ..client import AsyncSMTP\nfrom .. import sync"),
        ("testing/__init__.py", "from .server import MailServer\nfrom ..errors import SMTPException"),
        ("testing/server.py", "from aiosmtpclient.testing.loopback import X\nfrom . import loopback"),
        ("contrib/django.py", "import django.core.mail\nfrom ..sync import SMTP"),
    ],
)
def test_a_room_may_import_this(path: str, source: str) -> None:
    assert judged(path, source) == []


@pytest.mark.parametrize(
    "source",
    [
        "from .session import Session",
        "from .session import *",
        "from . import session",
        "from . import session as s",
        "import aiosmtpclient.session",
        "import aiosmtpclient.session as s",
        "from aiosmtpclient import session",
        "from aiosmtpclient.session import Session",
        "importlib.import_module('aiosmtpclient.session')",
        "__import__('aiosmtpclient.session')",
        # A room higher up is out of sight for type checkers too.
        "if TYPE_CHECKING: from .session import Session",
    ],
)
def test_a_room_may_not_import_from_a_higher_floor_in_any_spelling(source: str) -> None:
    assert judged("replies.py", source) == ["line 1: floor 0 imports session of floor 3"]


@pytest.mark.parametrize(
    "source",
    [
        "def f():\n    from . import pool",
        "class A:\n    async def f(self): from . import pool",
        "try: pass\nexcept E: from . import pool",
        "with a:\n    from . import pool",
        "if a: pass\nelse: from . import pool",
        "match a:\n    case 1: from . import pool",
        "if TYPE_CHECKING: pass\nelse: from . import pool",
        "if not TYPE_CHECKING:\n    from . import pool",
    ],
)
def test_an_import_is_found_wherever_it_hides(source: str) -> None:
    assert judged("runner.py", source)[0].endswith("floor 14 imports pool of floor 17")


@pytest.mark.parametrize(
    ("path", "source", "broken"),
    [
        ("errors.py", "from .replies import Reply", "floor 0 imports replies of floor 0"),
        ("lending.py", "from . import pool", "floor 15 imports pool of floor 17"),
        ("dialogues.py", "from .session import Session", "floor 3 imports session of floor 3"),
        ("contrib/django.py", "from .. import testing", "floor 18 imports testing of floor 18"),
        ("testing/server.py", "from ..cli import send", "floor 18 imports cli.send of floor 19"),
        ("client.py", "from .testing import server", "floor 13 imports testing.server of floor 18"),
        ("client.py", "from aiosmtpclient import AsyncSMTP", "floor 13 imports __init__ of floor 18"),
        ("client.py", "from . import __version__", "floor 13 imports __init__ of floor 18"),
        ("client.py", "import aiosmtpclient", "floor 13 imports __init__ of floor 18"),
        ("client.py", "from .attic import X", "imports attic, which is on no floor"),
        ("client.py", "from .helpers import X", "helpers is no name for a room"),
        ("client.py", "from .testing.utils import X", "testing.utils is no name for a room"),
    ],
)
def test_a_room_may_not_import_this(path: str, source: str, broken: str) -> None:
    assert judged(path, source) == [f"line 1: {broken}"]


@pytest.mark.parametrize("path", ["replies.py", "tls.py", "delivery.py", "transactions.py"])
@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("import asyncio", "asyncio"),
        ("import socket as s", "socket"),
        ("import re, time", "time"),
        ("from time import monotonic as now", "time"),
        ("import asyncio.events", "asyncio.events"),
        ("from asyncio.locks import Lock", "asyncio.locks"),
        ("from threading import *", "threading"),
        ("__import__('selectors')", "selectors"),
        ("if TYPE_CHECKING: import asyncio", "asyncio"),
        ("def f(): import asyncio", "asyncio"),
    ],
)
def test_floors_0_to_5_import_nothing_that_could_wait(path: str, source: str, named: str) -> None:
    [broken] = judged(path, source)
    assert broken == f"line 1: floor {FLOORS[room_of(Path(path))]} imports {named}"
    assert judged("protocol.py", source) == []


@pytest.mark.parametrize(
    ("path", "broken"),
    [
        ("attic.py", "attic.py is on no floor"),
        ("attic/__init__.py", "attic/__init__.py is on no floor"),
        ("types.py", "types.py is no name for a room"),
        ("cli/base.py", "cli/base.py is no name for a room"),
    ],
)
def test_a_room_that_nobody_knows_is_named(path: str, broken: str) -> None:
    assert judged(path, "") == [broken]


def test_every_broken_rule_of_a_file_is_named() -> None:
    source = (
        "import asyncio\nfrom .client import A, B\nfrom .replies import Reply\nfrom .dialogues import C\n"
    )
    assert judged("session.py", source) == [
        "line 1: floor 3 imports asyncio",
        "line 2: floor 3 imports client of floor 13",
        "line 4: floor 3 imports dialogues of floor 3",
    ]


def test_rooms_are_named_by_their_path() -> None:
    paths = ["errors.py", "__init__.py", "__main__.py", "testing/__init__.py", "testing/server.py"]
    rooms = [room_of(Path(path)) for path in paths]
    assert rooms == ["errors", "__init__", "__main__", "testing", "testing.server"]


# The rules are kept


def test_the_house_is_found() -> None:
    assert {Path("__init__.py"), Path("errors.py"), Path("replies.py")} <= set(files())


@pytest.mark.parametrize("path", files(), ids=str)
def test_this_room_keeps_the_rules(path: Path) -> None:
    rooms = {room_of(each) for each in files()}
    source = (HOUSE / path).read_text(encoding="utf-8")
    assert broken_rules(path, source, rooms) == []


# What is public

PUBLIC = [
    "AsyncLMTP",
    "AsyncSMTP",
    "CRLF",
    "DeliverBy",
    "Delivery",
    "EnhancedCode",
    "Envelope",
    "Extensions",
    "Journal",
    "LMTP",
    "LMTP_PORT",
    "MailOptions",
    "Outcome",
    "PoolStats",
    "ProxyHeader",
    "RateLimit",
    "Recipient",
    "RecipientOutcome",
    "Reply",
    "Retries",
    "SMTP",
    "SMTPAuthenticationError",
    "SMTPConnectError",
    "SMTPConnectionRefusedError",
    "SMTPDataError",
    "SMTPException",
    "SMTPHeloError",
    "SMTPNotSupportedError",
    "SMTPPool",
    "SMTPPoolError",
    "SMTPProtocolError",
    "SMTPRecipientsRefused",
    "SMTPResponseException",
    "SMTPSenderRefused",
    "SMTPServerDisconnected",
    "SMTPTLSError",
    "SMTPTimeoutError",
    "SMTP_PORT",
    "SMTP_SSL",
    "SMTP_SSL_PORT",
    "SendResult",
    "TLSPolicy",
    "Timeouts",
    "quoteaddr",
    "quotedata",
    "run_sync",
    "send",
]


def test_the_public_names_are_these_and_no_others() -> None:
    assert sorted(aiosmtpclient.__all__) == PUBLIC


def test_every_public_name_is_there() -> None:
    assert [name for name in PUBLIC if not hasattr(aiosmtpclient, name)] == []
