"""International domains: one form for every place where a name is needed, and nobody else's."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest
from wire import BODY, SENDER

from aiosmtpclient import AsyncSMTP, commands, tls
from aiosmtpclient.addresses import domain_to_ascii
from aiosmtpclient.domains import a_labels
from aiosmtpclient.testing import MailServer

# By the rules of 2003 it would be strasse.example, which may be somebody else's.
NAME, LABELS = "straße.example", "xn--strae-oqa.example"


@pytest.fixture
def _without_idna(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "idna", None)


def test_compatibility_characters_become_the_plain_ones() -> None:
    """By UTS 46, as browsers do."""
    assert a_labels("ＢÜCHER．example") == "xn--bcher-kva.example"


def test_every_place_has_the_same_name() -> None:
    assert a_labels(NAME) == LABELS
    assert domain_to_ascii(NAME) == LABELS
    assert tls.server_name(NAME) == LABELS
    assert tls.server_name(NAME + ".") == LABELS
    assert commands.hello("EHLO", NAME) == f"EHLO {LABELS}\r\n".encode()


async def test_mail_goes_to_the_server_that_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    loop = asyncio.get_running_loop()
    connect = loop.create_connection

    async def create_connection(factory: Any, host: str, port: int, **options: Any) -> Any:
        asked.append(host)
        return await connect(factory, "127.0.0.1", port, **options)

    monkeypatch.setattr(loop, "create_connection", create_connection)
    async with MailServer() as server:
        async with AsyncSMTP(NAME, server.port, tls="none") as smtp:
            await smtp.sendmail(SENDER, f"ann@{NAME}", BODY)
    assert asked == [LABELS]
    assert server.messages[0].recipients == (f"ann@{LABELS}",)


@pytest.mark.usefixtures("_without_idna")
def test_without_the_package_the_standard_library_does_what_it_can() -> None:
    assert a_labels("bücher.example") == "xn--bcher-kva.example"
    assert tls.server_name("bücher.example") == "xn--bcher-kva.example"


@pytest.mark.usefixtures("_without_idna")
@pytest.mark.parametrize("use", [a_labels, tls.server_name, lambda name: commands.hello("EHLO", name)])
def test_without_the_package_no_name_becomes_the_one_next_door(use: Any) -> None:
    with pytest.raises(ValueError, match="idna"):
        use(NAME)


@pytest.mark.usefixtures("_without_idna")
@pytest.mark.parametrize("name", ["ß", "ẞ", "ς", "a\u200cb", "a\u200db", "ß" * 101])
def test_without_the_package_an_error_names_it(name: str) -> None:
    with pytest.raises(ValueError) as caught:
        a_labels(name)
    assert str(caught.value) == f"the domain {name[:100]!a} needs the package 'idna'"
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("name", ["ü" * 300 + ".example", "a..ü", "\u2028ü.example", "ü example"])
def test_what_has_no_form_is_an_error(name: str) -> None:
    for use in (tls.server_name, domain_to_ascii, lambda text: commands.hello("EHLO", text)):
        with pytest.raises(ValueError):
            use(name)
