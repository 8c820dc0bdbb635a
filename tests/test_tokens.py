"""Where a token comes from, and when another one is asked for."""

from __future__ import annotations

import asyncio
import functools
import threading

import pytest
from leaks import told

from aiosmtpclient.errors import SMTPAuthenticationError
from aiosmtpclient.secret import Secret
from aiosmtpclient.tokens import Asking, sealed_token

TOKEN = "ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg"
REFUSED = SMTPAuthenticationError(535, b"no")


def plain() -> str:
    return TOKEN


def plain_secret() -> Secret:
    return Secret(TOKEN)


async def asynchronous() -> str:
    await asyncio.sleep(0)
    return TOKEN


class Provider:
    def __call__(self) -> str:
        return TOKEN


class AsyncProvider:
    async def __call__(self) -> Secret:
        return Secret(TOKEN)


@pytest.mark.parametrize(
    "provider",
    [plain, plain_secret, asynchronous, lambda: asynchronous(), Provider(), AsyncProvider(),
     functools.partial(plain), functools.partial(asynchronous), Provider().__call__],
)  # fmt: skip
async def test_any_callable_will_do(provider) -> None:
    assert await Asking(provider).token() == Secret(TOKEN)


async def test_a_token_may_be_given_as_it_is() -> None:
    token = sealed_token(TOKEN)
    asking = Asking(token)

    assert repr(token) == "Secret(***)"
    assert await asking.token() == Secret(TOKEN)
    assert not asking.refused(REFUSED), "there is no other"


async def test_a_plain_function_does_not_hold_up_the_loop() -> None:
    """Libraries that get tokens do so with blocking requests."""
    seen = []

    def provider() -> str:
        seen.append(threading.current_thread())
        return TOKEN

    await Asking(provider).token()
    assert seen != [threading.main_thread()]


async def test_a_coroutine_function_runs_on_the_loop() -> None:
    seen = []

    async def provider() -> str:
        seen.append(asyncio.get_running_loop())
        return TOKEN

    await Asking(provider).token()
    assert seen == [asyncio.get_running_loop()]


@pytest.mark.parametrize("kind", ["keyword", "any keyword", "neither"])
async def test_it_is_asked_again_once_and_for_a_fresh_one(kind) -> None:
    asked: list[object] = []
    providers = {
        "keyword": lambda force_refresh=False: asked.append(force_refresh) or f"t{len(asked)}",
        "any keyword": lambda **options: asked.append(options) or f"t{len(asked)}",
        "neither": lambda: asked.append(None) or f"t{len(asked)}",
    }
    asking = Asking(providers[kind])

    assert await asking.token() == Secret("t1")
    assert await asking.token() == Secret("t1"), "asked for once"
    assert asking.refused(REFUSED)
    assert asking.unjudged
    assert await asking.token() == Secret("t2")
    assert not asking.refused(REFUSED)
    assert not asking.unjudged
    again = {"keyword": [False, True], "any keyword": [{}, {"force_refresh": True}], "neither": [None, None]}
    assert asked == again[kind]


@pytest.mark.parametrize(("code", "oauth", "fresh"), [(535, None, True), (534, {}, True), (454, None, False)])
async def test_only_a_token_that_was_not_taken_is_renewed(code, oauth, fresh) -> None:
    asking = Asking(plain)
    await asking.token()
    error = SMTPAuthenticationError(code, b"no")
    error.oauth = oauth

    assert asking.refused(error) is fresh


async def test_what_a_provider_raises_passes_through() -> None:
    def fails() -> str:
        raise ZeroDivisionError

    async def fails_too() -> str:
        raise ZeroDivisionError

    for provider in (fails, fails_too):
        with pytest.raises(ZeroDivisionError):
            await Asking(provider).token()


@pytest.mark.parametrize("given", [TOKEN.encode(), None, [TOKEN]])
async def test_what_is_no_token_is_not_shown(given) -> None:
    async def later() -> object:
        return given

    for provider in (lambda: given, later):
        with pytest.raises(TypeError, match=type(given).__name__) as caught:
            await Asking(provider).token()
        assert TOKEN not in told(caught.value)


def test_neither_text_nor_callable() -> None:
    with pytest.raises(TypeError, match="token"):
        sealed_token(b"x")  # type: ignore[arg-type]
    assert sealed_token(None) is None
    assert sealed_token(plain) is plain
