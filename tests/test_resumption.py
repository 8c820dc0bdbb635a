"""Resumption, in memory: which session is offered to whom, how often, and what of it is kept."""

from __future__ import annotations

import contextlib
import ssl
from types import SimpleNamespace

import pytest
import trustme

from aiosmtpclient.resumption import NAMES, SESSIONS, Resuming, Sessions, resuming

NAME, OTHER = "mail.test", "other.test"
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(NAME, OTHER).configure_cert(context)
    return context


def client_of(ca: trustme.CA, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ca.configure_trust(context)
    context.minimum_version = context.maximum_version = version
    return resuming(context)


def connection(
    client: ssl.SSLContext, server: ssl.SSLContext, name: str | None = NAME, *, greets: bool = True
) -> Resuming:
    """Shake hands; with `greets` the server says something, behind which its tickets came."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server, server_hostname=name)
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    for side in (ours, theirs, ours, theirs, ours):
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    if greets:
        theirs.write(b"220 hello\r\n")
        assert ours.read() == b"220 hello\r\n"
    assert isinstance(ours, Resuming)
    return ours


@pytest.mark.parametrize("version", VERSIONS)
def test_the_next_connection_to_the_same_name_resumes(
    ca: trustme.CA, server: ssl.SSLContext, version: ssl.TLSVersion
) -> None:
    client = client_of(ca, version)
    first = connection(client, server)
    assert not first.session_reused
    first.keep()
    assert connection(client, server).session_reused


@pytest.mark.parametrize("version", VERSIONS)
def test_a_session_is_offered_once_and_one_at_a_time(
    ca: trustme.CA, server: ssl.SSLContext, version: ssl.TLSVersion
) -> None:
    client = client_of(ca, version)
    for one in [connection(client, server), connection(client, server)]:
        one.keep()
    assert [connection(client, server).session_reused for _ in range(3)] == [True, True, False]


def test_a_session_is_for_its_name_alone(ca: trustme.CA, server: ssl.SSLContext) -> None:
    client = client_of(ca)
    connection(client, server).keep()
    assert not connection(client, server, OTHER).session_reused
    assert connection(client, server).session_reused


def test_a_session_is_for_its_context_alone(ca: trustme.CA, server: ssl.SSLContext) -> None:
    client, another = client_of(ca), client_of(ca)
    connection(client, server).keep()
    assert not connection(another, server).session_reused
    assert connection(client, server).session_reused


def test_without_a_name_to_verify_the_place_of_the_name_is_empty(
    ca: trustme.CA, server: ssl.SSLContext
) -> None:
    client = client_of(ca)
    client.check_hostname = False
    nameless = connection(client, server, None)
    nameless.keep()
    assert nameless.sessions.take("") is not None
    nameless.keep()
    assert connection(client, server, None).session_reused


@pytest.mark.parametrize(("version", "resumes"), [(VERSIONS[0], True), (VERSIONS[1], False)])
def test_in_tls_1_3_nothing_can_be_kept_before_the_server_has_spoken(
    ca: trustme.CA, server: ssl.SSLContext, version: ssl.TLSVersion, resumes: bool
) -> None:
    client = client_of(ca, version)
    connection(client, server, greets=False).keep()
    assert connection(client, server).session_reused is resumes


@pytest.mark.parametrize(("version", "kept"), [(VERSIONS[0], True), (VERSIONS[1], False)])
def test_without_a_ticket_a_session_is_kept_where_it_has_an_id(
    ca: trustme.CA, server: ssl.SSLContext, version: ssl.TLSVersion, kept: bool
) -> None:
    server.options |= ssl.OP_NO_TICKET
    server.num_tickets = 0
    client = client_of(ca, version)
    one = connection(client, server)
    one.keep()
    assert one.session is not None
    assert not one.session.has_ticket
    assert (one.sessions.take(NAME) is not None) is kept


@pytest.mark.parametrize(("version", "kept"), [("TLSv1.2", True), ("TLSv1.3", False)])
def test_an_id_without_a_ticket_resumes_nothing_in_tls_1_3(version: str, kept: bool) -> None:
    sessions = Sessions()
    session = SimpleNamespace(has_ticket=False, id=b"made up by the client")
    one = SimpleNamespace(session=session, sessions=sessions, server_hostname=NAME, version=lambda: version)
    Resuming.keep(one)  # type: ignore[arg-type]
    assert (sessions.take(NAME) is not None) is kept


def test_nothing_is_kept_before_the_handshake(ca: trustme.CA) -> None:
    ours = client_of(ca).wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=NAME)
    assert isinstance(ours, Resuming)
    ours.keep()
    assert ours.sessions.take(NAME) is None


def test_the_newest_sessions_are_kept_for_a_name() -> None:
    sessions = Sessions()
    for number in range(SESSIONS + 1):
        sessions.keep(NAME, number)  # type: ignore[arg-type]
    assert [sessions.take(NAME) for _ in range(SESSIONS + 1)] == [*range(SESSIONS, 0, -1), None]


def test_the_names_used_last_are_kept() -> None:
    sessions = Sessions()
    for number in range(NAMES):
        sessions.keep(str(number), number)  # type: ignore[arg-type]
    sessions.keep("0", 0)  # type: ignore[arg-type]
    sessions.keep("new", 64)  # type: ignore[arg-type]
    assert sessions.take("1") is None
    assert [sessions.take(name) for name in ("0", "2", "new")] == [0, 2, 64]


def test_of_a_name_that_nobody_knows_there_is_nothing() -> None:
    assert Sessions().take(NAME) is None
