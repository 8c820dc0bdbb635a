"""Servers to test against: a real one that takes mail, one that misbehaves on command, and certificates.

`MailServer` is an ESMTP and LMTP server on aiosmtpd; `ScriptedServer` plays one script a
connection and needs nothing installed; `CertificateAuthority` makes certificates with trustme.
All run inside the caller's event loop (``async with``), or in a thread of their own (``with``),
on the loopback interface only.

A name is imported when it is first used, so that scripts can be played without the extra.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from aiosmtpclient.testing.conversation import Conversation
from aiosmtpclient.testing.scripted import ScriptedServer

if TYPE_CHECKING:
    from aiosmtpclient.testing.certificates import CertificateAuthority
    from aiosmtpclient.testing.received import ReceivedMessage
    from aiosmtpclient.testing.server import MailServer

__all__ = ["CertificateAuthority", "Conversation", "MailServer", "ReceivedMessage", "ScriptedServer"]

_LATER = {
    "CertificateAuthority": "aiosmtpclient.testing.certificates",
    "MailServer": "aiosmtpclient.testing.server",
    "ReceivedMessage": "aiosmtpclient.testing.received",
}


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LATER[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
