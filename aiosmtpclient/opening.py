"""From a host name to a connection that is ready for mail.

Dial, greeting, EHLO, STARTTLS as the policy says, EHLO again, login if there are credentials.
`dial` does the first two, which is all that `smtplib.SMTP.connect` does; `make_ready` the rest.

Rules of this room:

* EHLO refused for good → HELO (RFC 5321 section 3.2), but never in LMTP, never while TLS has
  yet to be brought up by policy, never where credentials wait: HELO can do neither.
* A policy that cannot be kept is an `SMTPTLSError`, and nothing of value was sent.
* Credentials travel only where the policy allows it. After a failure another mechanism is tried
  only where nobody can have forced the failure to see a weaker one.
* The name we say hello with needs no DNS: a blocking look-up would stall the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import Sequence

from . import dialogues, sasl, tls
from .connection import Connection
from .errors import (
    SMTPAuthenticationError,
    SMTPConnectError,
    SMTPException,
    SMTPHeloError,
    SMTPNotSupportedError,
    SMTPServerDisconnected,
    SMTPTLSError,
)
from .plans import Settings
from .replies import Reply
from .steps import AuthObject, Dialogue, Phase
from .tls import TLSPolicy
from .tokens import Asking

FAREWELL = 5.0
"""Seconds a server gets to answer a QUIT on whose answer nothing depends."""

_DOMAIN = r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+"


def own_name() -> str | None:
    """This host's name if it looks like a domain; None otherwise. Never asks DNS."""
    name = socket.gethostname()
    return name if re.fullmatch(_DOMAIN, name) else None


async def reach(settings: Settings) -> Connection:
    """Connect; the greeting is still to be read."""
    return await Connection.open(
        settings.endpoint,
        settings.timeouts,
        security=settings.security,
        implicit=settings.policy is TLSPolicy.IMPLICIT,
        trace=settings.trace,
        header=settings.proxy_header.encode() if settings.proxy_header is not None else b"",
    )


async def dial(settings: Settings) -> tuple[Connection, Reply]:
    """Connect and read the greeting.

    Raises:
        SMTPConnectError: no connection, or the greeting is not 220.
        SMTPTimeoutError: it took too long.
        SMTPTLSError: implicit TLS failed.
    """
    connection = await reach(settings)
    try:
        greeting = await connection.run(dialogues.greet(connection.session.greeting))
    except SMTPConnectError:
        await farewell(connection)
        raise
    return connection, greeting


async def connect(settings: Settings) -> tuple[Connection, Reply]:
    """Connect and make ready; returns the connection and its greeting.

    A server may hang up on an access token that it does not take: a fresh one is then tried on
    another connection, once.
    """
    asking = Asking(settings.token) if settings.token is not None else None
    connection, greeting = await dial(settings)
    try:
        await make_ready(connection, settings, asking)
    except (SMTPAuthenticationError, SMTPServerDisconnected):
        if asking is None or not asking.unjudged:
            raise
    else:
        return connection, greeting
    connection, greeting = await dial(settings)
    await make_ready(connection, settings, asking)
    return connection, greeting


async def farewell(connection: Connection) -> None:
    """QUIT if that is safe, then close. What the server makes of it changes nothing any more."""
    try:
        session = connection.session
        if connection.alive and session.in_step and session.phase in (Phase.READY, Phase.MAIL):
            with contextlib.suppress(SMTPException):
                await connection.run(dialogues.quit_(FAREWELL))
        await connection.finish()
    except BaseException:
        connection.drop()
        raise


async def make_ready(connection: Connection, settings: Settings, asking: Asking | None = None) -> None:
    """Say hello, bring up TLS as the policy says, log in; `asking` if tokens were asked for before."""
    wants_tls = settings.policy in (TLSPolicy.OPPORTUNISTIC, TLSPolicy.STARTTLS)
    may_fall_back = settings.policy is not TLSPolicy.STARTTLS and settings.credentials is None
    try:
        await say_hello(connection, settings, fallback=may_fall_back)
        if wants_tls:
            await _secure(connection, settings)
        if settings.credentials is not None:
            if asking is None and settings.token is not None:
                asking = Asking(settings.token)
            await login(connection, settings, settings.credentials, settings.mechanisms, asking=asking)
        connection.keep_session()
    except Exception:
        await farewell(connection)
        raise
    except BaseException:
        connection.drop()
        raise


def hello_name(connection: Connection, settings: Settings, name: str = "") -> str:
    """What to say hello with: as asked, as configured, our host's name, or our address as a literal."""
    if given := name or settings.local_hostname or own_name():
        return given
    transport = connection.protocol.transport
    address = transport.get_extra_info("sockname") if transport is not None else None
    if not isinstance(address, tuple):  # a Unix socket has no address; RFC 5321 section 4.1.4 wants one
        return "[127.0.0.1]"
    host = str(address[0]).partition("%")[0]
    return f"[IPv6:{host}]" if ":" in host else f"[{host}]"


async def say_hello(connection: Connection, settings: Settings, *, fallback: bool = True) -> Reply:
    """EHLO or LHLO, with HELO behind it where that may be; remembers what is offered.

    Raises:
        SMTPHeloError: refused.
    """
    dialogue = dialogues.hello(
        settings.hello_verb, hello_name(connection, settings), fallback=fallback and not settings.lmtp
    )
    try:
        hello = await connection.run(dialogue)
    except SMTPHeloError as error:
        connection.ehlo = error.reply
        raise
    remember(connection, hello)
    return hello.reply


def remember(connection: Connection, hello: dialogues.Hello) -> None:
    """Note a hello that was answered with 250: the newest replaces everything."""
    connection.session.extensions = hello.extensions
    connection.esmtp = hello.verb != "HELO" and hello.reply.code == 250
    connection.recipients = []
    connection.most_recipients = None
    if hello.verb == "HELO":
        connection.helo = hello.reply
    else:
        connection.ehlo = hello.reply


def forget(connection: Connection) -> None:
    """TLS is up: no hello counts any more (RFC 3207 section 4.2)."""
    connection.ehlo = connection.helo = None


async def _secure(connection: Connection, settings: Settings) -> None:
    required = settings.policy is TLSPolicy.STARTTLS
    session = connection.session
    if "starttls" not in session.extensions:
        if required:
            raise SMTPTLSError(
                f"{session.peer} does not offer STARTTLS, which tls='starttls' requires; "
                "if it speaks TLS from the first octet pass tls='implicit', "
                "to go on in clear pass tls='opportunistic'"
            )
        return
    reply = await connection.run(dialogues.starttls())
    if session.encrypted:
        forget(connection)
        await say_hello(connection, settings, fallback=settings.credentials is None)
    elif required:
        raise SMTPTLSError(f"{session.peer} refused STARTTLS, which tls='starttls' requires: {reply.display}")
    elif reply.code == 421:
        raise SMTPServerDisconnected(f"{session.peer} ended the session at STARTTLS", last_reply=reply)


async def login(
    connection: Connection,
    settings: Settings,
    credentials: sasl.Credentials,
    mechanisms: Sequence[str] | None = None,
    *,
    initial_response_ok: bool = True,
    asking: Asking | None = None,
) -> Reply:
    """Log in with the strongest mechanism that both sides have.

    Raises:
        SMTPNotSupportedError: no AUTH, or no mechanism in common.
        SMTPTLSError: the credentials would travel in clear.
        SMTPAuthenticationError: refused; the last refusal if several mechanisms were tried.
    """
    session = connection.session
    check_cleartext(connection, settings)
    if "auth" not in session.extensions:
        raise SMTPNotSupportedError(f"{session.peer} does not offer AUTH{_perhaps_after_tls(connection)}")
    offered = session.extensions.auth_mechanisms
    peer = _peer(connection, settings)
    names = sasl.choose(
        offered, mechanisms, credentials=credentials, token=asking is not None, channel=peer.channel
    )
    if not names:
        advice = sasl.advice(
            offered, mechanisms, credentials=credentials, token=asking is not None, channel=peer.channel
        )
        raise SMTPNotSupportedError(
            f"no mechanism in common with {session.peer}, which offers {' '.join(offered) or 'none'}{advice}"
        )
    session.keep_secret(sasl.secrets_of(credentials))
    if not tls.may_try_another(settings.policy, encrypted=session.encrypted, local=settings.endpoint.local):
        del names[1:]
    for name in names:
        try:
            if asking is not None and name in sasl.WITH_TOKEN:
                return await _log_in_with_token(
                    connection, name, credentials, peer, asking, initial_response_ok
                )
            return await _log_in_with(connection, name, credentials, peer, initial_response_ok)
        except SMTPAuthenticationError:
            if name == names[-1] or not session.reusable:
                raise
    raise AssertionError(names)


async def _log_in_with_token(
    connection: Connection,
    name: str,
    credentials: sasl.Credentials,
    peer: sasl.Peer,
    asking: Asking,
    initial_response_ok: bool,
) -> Reply:
    """Log in with a token, and with a fresh one if the server does not take the first."""
    while True:
        bearer = credentials.with_secret(await asking.token())
        connection.session.keep_secret(sasl.secrets_of(bearer))
        try:
            return await _log_in_with(connection, name, bearer, peer, initial_response_ok)
        except SMTPAuthenticationError as error:
            if not asking.refused(error) or not connection.session.reusable:
                raise


def _peer(connection: Connection, settings: Settings) -> sasl.Peer:
    """What a mechanism may know about the server."""
    security, endpoint = connection.security or settings.security, settings.endpoint
    return sasl.Peer(
        hostname=security.server_hostname or endpoint.host,
        port=0 if endpoint.unix else endpoint.port,
        service="lmtp" if settings.lmtp else "smtp",
        channel=_channel(connection),
        plus=any(name.endswith("-PLUS") for name in connection.session.extensions.auth_mechanisms),
    )


def _channel(connection: Connection) -> sasl.Channel | None:
    """What a login can be bound to."""
    transport = connection.protocol.transport
    layer = transport.get_extra_info("ssl_object") if transport is not None else None
    if layer is None or not connection.session.encrypted:
        return None
    # RFC 9266 section 2: tls-unique has no meaning in TLS 1.3, though OpenSSL gives octets for it.
    unique = None if layer.version() == "TLSv1.3" else layer.get_channel_binding("tls-unique")
    return sasl.Channel(unique, layer.getpeercert(True))


def _perhaps_after_tls(connection: Connection) -> str:
    tempting = not connection.session.encrypted and "starttls" in connection.session.extensions
    return "; it offers STARTTLS, and may offer AUTH after that" if tempting else ""


def check_cleartext(connection: Connection, settings: Settings) -> None:
    """Raise unless credentials may travel on this connection as it is now (RFC 4954 section 14)."""
    session = connection.session
    if not tls.may_send_credentials(
        settings.policy,
        encrypted=session.encrypted,
        local=settings.endpoint.local,
        allow_cleartext=settings.allow_cleartext_auth,
    ):
        raise SMTPTLSError(
            f"the credentials would travel in clear to {session.peer}: use tls='starttls' or 'implicit', "
            "or pass allow_cleartext_auth=True if that is really meant"
        )


async def _log_in_with(
    connection: Connection,
    name: str,
    credentials: sasl.Credentials,
    peer: sasl.Peer,
    initial_response_ok: bool,
) -> Reply:
    mechanism = sasl.MECHANISMS[name](credentials, peer)
    return await _authenticated(
        connection,
        dialogues.authenticate(
            name,
            mechanism,
            initial_response_ok=initial_response_ok,
            aside=asyncio.to_thread if name in sasl.SLOW else None,
        ),
    )


async def auth(
    connection: Connection, name: str, authobject: AuthObject, *, initial_response_ok: bool
) -> Reply:
    """Log in with responses from the caller's own authobject."""
    return await _authenticated(
        connection,
        dialogues.authenticate_with(name, authobject, initial_response_ok=initial_response_ok),
    )


async def _authenticated(connection: Connection, dialogue: Dialogue[Reply]) -> Reply:
    session = connection.session
    try:
        reply = await connection.run(dialogue)
    except SMTPAuthenticationError as error:
        # A second login on one connection: RFC 4954 section 4 says 503, and smtplib calls that success.
        if error.smtp_code == 503 and session.authenticated and error.reply is not None:
            return error.reply
        raise
    session.authenticated = True
    return reply
