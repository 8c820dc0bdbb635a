"""Preparing a message without holding up the loop.

To prepare a message is to look at every octet of it, and a large one takes many milliseconds,
or, where the standard library has to write it, seconds. So a message that looks heavy is prepared
in a thread. Most are light, and are prepared at once: a thread has its price too.

Rules of this room:

* Weighing is cheaper than preparing, and never fails: what is wrong with a message is found when
  it is prepared, and raised as it is.
* A cancelled caller does not wait for the thread. It ends by itself, and nobody gets its result.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from email.message import Message
from typing import TypeAlias

from .message import Body, Prepared

Make: TypeAlias = Callable[[bool, bool], Prepared]
"""Prepares a message for a server that offers, or does not offer, 8BITMIME and SMTPUTF8."""

LIGHT = 256 * 1024
"""What weighs no more, in octets more or less, is prepared on the loop."""
# What a part, or a header that fits on a line, weighs in any case.
_LEAST = 256
_LINE = 78
# To fold an octet of a header takes the standard library longer than anybody takes to write one.
_FOLD, _FOLD_AND_ENCODE = 128, 1024


async def prepared(make: Make, content: Body, *, eightbitmime: bool, smtputf8: bool) -> Prepared:
    """Prepare a message: in a thread, if it is large.

    Args:
        make: prepares it.
        content: what it will prepare.
        eightbitmime: handed on.
        smtputf8: handed on.

    Raises:
        Exception: whatever `make` raises.
    """
    if is_light(content):
        return make(eightbitmime, smtputf8)
    return await asyncio.to_thread(make, eightbitmime, smtputf8)


def is_light(content: Body) -> bool:
    """Tell whether preparing this takes no time worth mentioning."""
    if isinstance(content, Message):
        return _message_is_light(content)
    if isinstance(content, memoryview):
        return content.nbytes <= LIGHT
    # Anything else is read while it is sent: that takes its time in other places.
    return not isinstance(content, (bytes, bytearray, str)) or len(content) <= LIGHT


def _message_is_light(message: Message) -> bool:
    """Walk over the parts until they are too heavy; one that contains itself soon is."""
    weight = 0
    parts: list[object] = [message]
    while parts and weight <= LIGHT:
        part = parts.pop()
        weight += _LEAST
        if isinstance(part, Message):
            weight += sum([_weight(value) for _, value in part.raw_items()])
            parts.append(getattr(part, "_payload", None))
        elif isinstance(part, list):
            parts += part
        elif isinstance(part, str):
            weight += len(part)
    return weight <= LIGHT


def _weight(value: object) -> int:
    """How much a header's value weighs; of what is no text nobody knows, so it is as good as long."""
    if not isinstance(value, str):
        return _LINE * _FOLD
    if len(value) <= _LINE:
        return 0
    return len(value) * (_FOLD if value.isascii() else _FOLD_AND_ENCODE)
