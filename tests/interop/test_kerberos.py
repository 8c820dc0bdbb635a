"""AUTH GSSAPI against servers that ask a real Kerberos, in a realm of its own on loopback."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from leaks import told

from aiosmtpclient import AsyncSMTP, SMTPAuthenticationError, SMTPException, sasl

from . import letters
from .kerberos import Realm, python_packages
from .packages import NotToBeHad
from .servers.kerberized import KerberizedCyrus, KerberizedDovecot
from .servers.real import PASSWORD, USER

pytestmark = pytest.mark.timeout(1800)  # INTEROP_COMPILE=1 compiles what pyspnego needs
Kerberized = KerberizedDovecot | KerberizedCyrus
KINDS = (KerberizedDovecot, KerberizedCyrus)


@pytest.fixture(scope="module", autouse=True)
def client_side() -> Iterator[None]:
    """What pyspnego needs to speak Kerberos."""
    pytest.importorskip("spnego")
    with pytest.MonkeyPatch.context() as patch:
        if not sasl.available("GSSAPI"):
            try:
                patch.syspath_prepend(str(python_packages()))
            except NotToBeHad as why:
                pytest.skip(f"pyspnego[kerberos]: {why}")
            for name in [name for name in sys.modules if name.startswith("spnego")]:
                del sys.modules[name]  # it looks for them once, when it is imported
        yield


@pytest.fixture(scope="module")
def realm() -> Iterator[Realm]:
    try:
        one = Realm(*(kind.service for kind in KINDS))
    except NotToBeHad as why:
        pytest.skip(f"Kerberos: {why}")
    try:
        yield one
    finally:
        one.stop()


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.name)
def kerberized(request: pytest.FixtureRequest, realm: Realm) -> Iterator[Kerberized]:
    kind: type[Kerberized] = request.param
    try:
        server = kind(realm)
    except NotToBeHad as why:
        pytest.skip(f"{kind.name}: {why}")
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(autouse=True)
def in_the_realm(realm: Realm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kerberos' library finds this realm, and no ticket of anybody."""
    for name, value in realm.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("KRB5CCNAME", f"FILE:{realm.folder}/nobody")


def connected(server: Kerberized, **options: object) -> AsyncSMTP:
    """A client for it, not logged in."""
    options = {"server_hostname": server.hostname, **options}
    return server.client(username=None, password=None, **options)


async def send(server: Kerberized, smtp: AsyncSMTP) -> None:
    name = letters.key("kerberos")
    await smtp.sendmail(letters.SENDER, letters.RECIPIENT, letters.plain(name))
    assert [one.key for one in server.stored(name)] == [name]


async def test_a_password_gets_a_ticket_and_that_logs_in(kerberized: Kerberized) -> None:
    async with connected(kerberized) as smtp:
        assert "GSSAPI" in smtp.extensions.auth_mechanisms
        assert (await smtp.login(USER, PASSWORD, mechanisms=["GSSAPI"])).code == 235
        await send(kerberized, smtp)


async def test_a_ticket_that_is_there_logs_in_without_a_password(
    kerberized: Kerberized, realm: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in realm.ticket().items():
        monkeypatch.setenv(name, value)
    options = {"server_hostname": kerberized.hostname, "mechanisms": ["GSSAPI"]}
    async with kerberized.client(username=None, password=None, **options) as smtp:
        await send(kerberized, smtp)


async def test_without_a_ticket_or_a_password_that_is_said(kerberized: Kerberized) -> None:
    async with connected(kerberized) as smtp:
        with pytest.raises(SMTPAuthenticationError, match="GSSAPI") as caught:
            await smtp.login("", mechanisms=["GSSAPI"])
        assert caught.value.smtp_code != 235
        assert (await smtp.noop()).code == 250


async def test_a_wrong_password_is_an_error_that_does_not_show_it(kerberized: Kerberized) -> None:
    async with connected(kerberized) as smtp:
        with pytest.raises(SMTPAuthenticationError) as caught:
            await smtp.login(USER, "not-the-password", mechanisms=["GSSAPI"])
    assert "not-the-password" not in told(caught.value)


async def test_a_server_of_another_name_is_not_logged_in_to(kerberized: Kerberized) -> None:
    """The name of the service is what the ticket is for: another server cannot make use of it."""
    async with connected(kerberized, server_hostname="other.test") as smtp:
        with pytest.raises(SMTPException, match="GSSAPI"):
            await smtp.login(USER, PASSWORD, mechanisms=["GSSAPI"])


async def test_whom_to_act_as_is_said(kerberized: Kerberized) -> None:
    async with connected(kerberized) as smtp:
        await smtp.login(USER, PASSWORD, mechanisms=["GSSAPI"], authorization_id=USER)
        await send(kerberized, smtp)
    async with connected(kerberized) as smtp:
        asked = smtp.login(USER, PASSWORD, mechanisms=["GSSAPI"], authorization_id="ok1")
        if kerberized.lets_act_for_others:
            assert (await asked).code == 235
        else:
            with pytest.raises(SMTPAuthenticationError):
                await asked
