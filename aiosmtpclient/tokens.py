"""Access tokens: where they come from, and when to ask for another.

A token is given as it is, or by a provider: any callable, plain or asynchronous, that returns
one. Libraries that get tokens keep them too and know when they expire, so a provider is asked at
each login; if the server does not take what it gave, it is asked once more, for a fresh one.

Rules of this room:

* A provider is called without arguments, and with `force_refresh=True` the second time if it
  takes that.
* A plain function may block, so it is called in a thread; a coroutine function on the loop.
* What a provider raises is the caller's own, and passes through as it is.
* A token is sealed where it comes in: no local variable and no future of ours shows it.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TypeAlias, cast

from .errors import SMTPAuthenticationError
from .secret import Secret

TokenProvider: TypeAlias = Callable[..., str | Secret | Awaitable[str | Secret]]
"""Called for an access token; may be asynchronous."""
Token: TypeAlias = str | Secret | TokenProvider
"""An access token, or what gives one."""


def sealed_token(token: Token | None) -> Secret | TokenProvider | None:
    """The token in a wrapper that no traceback with locals shows; a provider as it is.

    Raises:
        TypeError: it is neither a text nor callable.
    """
    if token is None or isinstance(token, Secret) or callable(token):
        return token
    return _sealed(token)


class Asking:
    """One login's asking for tokens: at most twice.

    Args:
        token: what was given as `token`.
    """

    def __init__(self, token: Secret | TokenProvider) -> None:
        self._token = token
        self._asked = 0
        self._refused = 0
        self._current: Secret | None = None

    async def token(self) -> Secret:
        """The token to try now."""
        if isinstance(self._token, Secret):
            return self._token
        if self._current is None:
            self._asked += 1
            self._current = await _asked(self._token, fresh=self._asked > 1)
        return self._current

    def refused(self, error: SMTPAuthenticationError) -> bool:
        """The server did not take it. True if a fresh one may be better."""
        if isinstance(self._token, Secret) or not (error.smtp_code == 535 or error.oauth is not None):
            return False
        self._refused += 1
        if self._asked > 1:
            return False
        self._current = None
        return True

    @property
    def unjudged(self) -> bool:
        """A token was refused, and the server has not yet judged the fresh one."""
        return self._refused == 1 and not isinstance(self._token, Secret)


async def _asked(provider: TokenProvider, *, fresh: bool) -> Secret:
    options = {"force_refresh": True} if fresh and _takes_force_refresh(provider) else {}
    if inspect.iscoroutinefunction(provider) or inspect.iscoroutinefunction(
        getattr(provider, "__call__", None)  # noqa: B004  # an object whose call is a coroutine function
    ):
        return _sealed(await cast("Awaitable[object]", provider(**options)))
    given = await asyncio.to_thread(_called, provider, options)
    return given if isinstance(given, Secret) else _sealed(await given)


def _called(provider: TokenProvider, options: dict[str, bool]) -> Secret | Awaitable[object]:
    return _sealed_or_awaitable(provider(**options))


def _sealed_or_awaitable(given: object) -> Secret | Awaitable[object]:
    if inspect.isawaitable(given):
        return given
    given = given if isinstance(given, Secret) else Secret(cast(str, given))
    return _sealed(given)


def _sealed(given: object) -> Secret:
    secret = given if isinstance(given, Secret) else Secret(cast(str, given))
    given = None  # what fails below must not show it
    if not isinstance(secret.reveal(), str):
        raise TypeError(f"a token is a str, not {type(secret.reveal()).__name__}")
    return secret


def _takes_force_refresh(provider: TokenProvider) -> bool:
    try:
        parameters = inspect.signature(provider).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(one.name == "force_refresh" or one.kind is one.VAR_KEYWORD for one in parameters)
