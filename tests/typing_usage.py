"""What a user's application looks like to mypy and pyright: every public call, each result with its type.

Nothing here is run; it is checked, as strictly as a user may check his own code.
"""

from __future__ import annotations

import asyncio
import smtplib
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage, Message
from io import BytesIO
from pathlib import Path

import aiosmtpclient
from aiosmtpclient import (
    LMTP,
    SMTP,
    SMTP_SSL,
    AsyncLMTP,
    AsyncSMTP,
    DeliverBy,
    Delivery,
    EnhancedCode,
    Envelope,
    Extensions,
    MailOptions,
    Outcome,
    ProxyHeader,
    Recipient,
    RecipientOutcome,
    Reply,
    SendResult,
    SMTPAuthenticationError,
    SMTPConnectError,
    SMTPDataError,
    SMTPException,
    SMTPHeloError,
    SMTPNotSupportedError,
    SMTPPool,
    SMTPProtocolError,
    SMTPRecipientsRefused,
    SMTPResponseException,
    SMTPSenderRefused,
    SMTPServerDisconnected,
    SMTPTimeoutError,
    SMTPTLSError,
    Timeouts,
    TLSPolicy,
    quoteaddr,
    quotedata,
    run_sync,
)

VERSION: str = aiosmtpclient.__version__
PORTS: tuple[int, int, int] = (
    aiosmtpclient.SMTP_PORT,
    aiosmtpclient.SMTP_SSL_PORT,
    aiosmtpclient.LMTP_PORT,
)


# -- making a client -------------------------------------------------------------------------


def plain_token() -> str:
    return "token"


async def async_token(*, force_refresh: bool = False) -> str:
    return "fresh" if force_refresh else "token"


def clients(context: ssl.SSLContext, connected: socket.socket) -> list[AsyncSMTP]:
    def trace(event: str, octets: bytes) -> None:
        print(event, octets)

    return [
        AsyncSMTP(),
        AsyncSMTP("mail.example:587"),
        AsyncSMTP("mail.example", 465, "me.example", 30.0, ("192.0.2.1", 0)),
        AsyncSMTP("mail.example", timeout=None),
        AsyncSMTP("mail.example", timeout=Timeouts(connect=10, reply=20, write=30.5, final=None)),
        AsyncSMTP("mail.example", tls=TLSPolicy.STARTTLS, tls_context=context, server_hostname="mx.example"),
        AsyncSMTP("mail.example", tls="implicit", username="user", password="secret", trace=trace),
        AsyncSMTP("mail.example", username=None, password=None, allow_cleartext_auth=True),
        AsyncSMTP("mail.example", username="user", token="token"),
        AsyncSMTP("mail.example", username="user", token=plain_token, mechanisms=["XOAUTH2"]),
        AsyncSMTP("mail.example", token=async_token),
        AsyncSMTP(sock=connected, pipelining="off"),
        AsyncLMTP("/run/lmtp.sock"),
        AsyncLMTP("localhost", 24, "me.example", ("127.0.0.1", 0), 60, pipelining="message", tls="none"),
    ]


# -- a web application -----------------------------------------------------------------------


async def welcome(address: str) -> SendResult:
    message = EmailMessage()
    message["From"] = "shop@example.org"
    message["To"] = address
    message.set_content("Welcome!")
    async with AsyncSMTP("mail.example") as smtp:
        result: SendResult = await smtp.send_message(message)
    refused: dict[str, Reply] = result
    accepted: tuple[str, ...] = result.accepted
    queue_id: str = result.reply.text
    envelope: Envelope = result.envelope
    outcomes: tuple[RecipientOutcome, ...] = result.outcomes
    for who, delivery, reply in outcomes:
        shown: tuple[str, Delivery, Reply | None] = who, delivery, reply
        print(shown)
    print(refused, accepted, queue_id, envelope.sender, envelope.recipients, envelope.content)
    return result


async def every_content(smtp: AsyncSMTP, folder: Path, old: Message) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"piece"

    def lines() -> Iterator[bytes]:
        yield b"line\r\n"

    results: list[SendResult] = [
        await smtp.sendmail("a@example.org", "b@example.org", b"bytes"),
        await smtp.sendmail("a@example.org", ["b@example.org"], bytearray(b"bytes")),
        await smtp.sendmail("a@example.org", ("b@example.org",), memoryview(b"bytes")),
        await smtp.sendmail("a@example.org", {"b@example.org"}, "text"),
        await smtp.sendmail("a@example.org", (one for one in ["b@example.org"]), folder / "message.eml"),
        await smtp.sendmail("a@example.org", "b@example.org", BytesIO(b"octets")),
        await smtp.sendmail("a@example.org", "b@example.org", [b"one", b"two"]),
        await smtp.sendmail("a@example.org", "b@example.org", lines()),
        await smtp.sendmail("a@example.org", "b@example.org", pieces()),
        await smtp.sendmail("a@example.org", "b@example.org", old),
        await smtp.sendmail("a@example.org", "b@example.org", EmailMessage()),
        await smtp.sendmail(
            "", ["b@example.org"], b"", ["BODY=8BITMIME"], ("NOTIFY=NEVER",), all_or_nothing=True
        ),
        await smtp.send_message(old, "a@example.org", ["b@example.org"], ["RET=HDRS"], ["NOTIFY=NEVER"]),
        await smtp.send_message(old, from_addr=None, to_addrs="b@example.org", all_or_nothing=True),
    ]
    with (folder / "message.eml").open("rb") as file:
        results.append(await smtp.sendmail("a@example.org", "b@example.org", file))


async def one_message(message: EmailMessage, context: ssl.SSLContext) -> None:
    first: SendResult = await aiosmtpclient.send(message, host="mail.example")
    second: SendResult = await aiosmtpclient.send(
        b"Subject: hello\r\n\r\n",
        sender="a@example.org",
        recipients=["b@example.org"],
        host="mail.example",
        port=587,
        local_hostname="me.example",
        timeout=Timeouts(),
        source_address=("192.0.2.1", 0),
        tls="starttls",
        tls_context=context,
        username="user",
        password="secret",
    )
    print(first, second)


# -- what the extensions offer -----------------------------------------------------------------


async def every_option(smtp: AsyncSMTP, message: EmailMessage) -> None:
    ann = Recipient("ann@example.org", notify=["failure", "delay"], orcpt="rfc822;ann@old.example")
    bob = Recipient("bob@example.org", rrvs=datetime(2024, 5, 1, tzinfo=UTC), rrvs_else="reject")
    text: str = ann
    options: MailOptions = {"ret": "hdrs", "envid": "order-7", "notify": "failure", "priority": 3}
    results: list[SendResult] = [
        await smtp.sendmail("a@example.org", [ann, bob, "c@example.org"], b"octets", **options),
        await smtp.sendmail("a@example.org", bob, b"octets", size=6, body="8bitmime", smtputf8=True, auth=""),
        await smtp.send_message(message, deliver_by=DeliverBy(timedelta(hours=1), "notify", trace=True)),
        await smtp.send_message(message, hold_for=60, require_tls=True),
        await aiosmtpclient.send(
            message, host="mail.example", hold_until=datetime(2030, 1, 1, tzinfo=UTC), tls="starttls"
        ),
    ]
    envelope = Envelope("a@example.org", [ann], b"octets", body="binarymime", hold_for=timedelta(days=1))
    replies: list[Reply] = [
        await smtp.etrn("example.org"),
        await smtp.xclient(name="spike.example", addr="192.0.2.7", port=4711),
        await smtp.xforward(name="spike.example", source="LOCAL"),
    ]
    header = ProxyHeader(("192.0.2.7", 4711), ("198.51.100.1", 25), version=1)
    client = AsyncSMTP("mail.example", proxy_header=header)
    print(text, results, envelope, replies, client)


# -- a bulk sender ---------------------------------------------------------------------------


async def newsletter(smtp: AsyncSMTP, readers: list[str]) -> dict[Delivery, int]:
    count = dict.fromkeys(Delivery, 0)

    async def envelopes() -> AsyncIterator[Envelope]:
        for reader in readers:
            yield Envelope(
                "news@example.org", [reader], b"Subject: news\r\n\r\n", rcpt_options=["NOTIFY=NEVER"]
            )

    def messages() -> Iterator[EmailMessage]:
        yield EmailMessage()

    async for outcome in smtp.send_messages(envelopes(), ordered=True):
        one: Outcome = outcome
        count[one.delivery] += 1
        index: int = one.index
        result: SendResult | None = one.result
        error: BaseException | None = one.error
        attempts: int = one.attempts
        connection: int | None = one.connection
        if isinstance(one.message, Envelope):
            print(one.message.all_or_nothing)
        print(index, result, error, attempts, connection, [outcome.delivery for outcome in one.outcomes])
    async for outcome in smtp.send_messages(messages()):
        count[outcome.delivery] += 1
    async for outcome in smtp.send_messages([Envelope("", "b@example.org", "text"), EmailMessage()]):
        count[outcome.delivery] += 1
    return count


# -- smtplib's vocabulary, awaitable ---------------------------------------------------------


async def by_hand(smtp: AsyncSMTP, context: ssl.SSLContext) -> None:
    greeting: Reply = await smtp.connect("mail.example", 25, ("192.0.2.1", 0))
    code, message = await smtp.noop()
    status: int = code
    octets: bytes = message
    hello: Reply = await smtp.ehlo("me.example")
    await smtp.helo()
    await smtp.ehlo_or_helo_if_needed()
    if smtp.has_extn("starttls"):
        ready: Reply = await smtp.starttls(context=context, server_hostname="mail.example")
        print(ready)
    logged_in: Reply = await smtp.login(
        "user", "secret", initial_response_ok=False, mechanisms=["PLAIN"], authorization_id="boss"
    )
    by_token: Reply = await smtp.login("user", token=async_token)
    print(by_token)
    replies: list[Reply] = [
        await smtp.mail("a@example.org", ["SIZE=100"]),
        await smtp.rcpt("b@example.org", ("NOTIFY=NEVER",)),
        await smtp.data(b"Subject: hello\r\n\r\n"),
        await smtp.rset(),
        await smtp.verify("b@example.org"),
        await smtp.vrfy("b@example.org"),
        await smtp.expn("list"),
        await smtp.docmd("XYZZY", "plugh"),
        await smtp.quit(),
    ]
    help_text: bytes = await smtp.help("MAIL")
    smtp.close()
    print(greeting, status, octets, hello, logged_in, replies, help_text)


async def authobjects(smtp: AsyncSMTP) -> None:
    def plain(challenge: bytes | None = None) -> str | None:
        return "response"

    async def token(challenge: bytes | None = None) -> bytes:
        return b"response"

    replies: list[Reply] = [
        await smtp.auth("PLAIN", smtp.auth_plain),
        await smtp.auth("LOGIN", smtp.auth_login, initial_response_ok=False),
        await smtp.auth("CRAM-MD5", smtp.auth_cram_md5),
        await smtp.auth("XAMPLE", plain),
        await smtp.auth("XOAUTH2", token),
    ]
    print(replies)


def what_is_known(smtp: AsyncSMTP) -> None:
    connected: bool = smtp.is_connected
    extensions: Extensions = smtp.extensions
    limit: int | None = extensions.size_limit
    mechanisms: tuple[str, ...] = extensions.auth_mechanisms
    offered: bool = "pipelining" in extensions
    size: str | None = extensions.get("size")
    features: dict[str, str] = smtp.esmtp_features
    esmtp: bool = smtp.does_esmtp
    hellos: tuple[bytes | None, bytes | None] = smtp.ehlo_resp, smtp.helo_resp
    name: str = smtp.local_hostname
    timeouts: Timeouts = smtp.timeout
    final: float | None = timeouts.final
    source: tuple[str, int] | None = smtp.source_address
    credentials: tuple[str, str] = smtp.user, smtp.password
    print(
        connected, limit, mechanisms, offered, size, features, esmtp, hellos, name, final, source, credentials
    )


def what_was_said(reply: Reply) -> None:
    code: int = reply.code
    text: str = reply.text
    lines: tuple[str, ...] = reply.lines
    enhanced: EnhancedCode | None = reply.enhanced_code
    judged: tuple[bool, bool, bool] = reply.positive, reply.temporary, reply.permanent
    if enhanced is not None:
        parts: tuple[int, int, int] = enhanced
        print(parts)
    print(code, text, lines, judged)


# -- errors ----------------------------------------------------------------------------------


async def send_carefully(smtp: AsyncSMTP, message: EmailMessage) -> bool:
    """True if it is settled, False if it may be tried again."""
    try:
        await smtp.send_message(message)
    except SMTPRecipientsRefused as error:
        refused: dict[str, Reply] = error.recipients
        print(refused)
    except SMTPSenderRefused as error:
        sender: str = error.sender
        print(sender)
    except (SMTPDataError, SMTPAuthenticationError, SMTPHeloError, SMTPConnectError) as error:
        code: int = error.smtp_code
        said: bytes = error.smtp_error
        reply: Reply | None = error.reply
        print(code, said, reply, error.command)
    except SMTPProtocolError as error:
        response: SMTPResponseException = error
        print(response)
    except SMTPServerDisconnected as error:
        last: Reply | None = error.last_reply
        lost: ConnectionError = error
        print(last, lost)
    except SMTPTimeoutError as error:
        phase: str = error.phase
        late: TimeoutError = error
        print(phase, late)
    except SMTPTLSError as error:
        tls: ssl.SSLError = error
        print(tls)
    except SMTPNotSupportedError as error:
        print(error)
    except SMTPException as error:
        delivery: Delivery = error.delivery
        outcomes: tuple[RecipientOutcome, ...] = error.outcomes
        for outcome in outcomes:
            print(outcome.address, outcome.delivery, outcome.reply)
        return delivery is not Delivery.NOT_SENT or error.permanent or not error.temporary
    return True


async def written_for_smtplib(smtp: AsyncSMTP) -> None:
    try:
        await smtp.sendmail("a@example.org", "b@example.org", b"")
    except smtplib.SMTPRecipientsRefused as error:
        print(error.recipients)
    except smtplib.SMTPResponseException as error:
        print(error.smtp_code, error.smtp_error)
    except smtplib.SMTPException as error:
        print(error)


# -- configuration ----------------------------------------------------------------------------


def configured(context: ssl.SSLContext) -> None:
    smtp: AsyncSMTP = AsyncSMTP.from_url("smtps://me:secret@mail.example", timeout=5, tls_context=context)
    lmtp: AsyncLMTP = AsyncLMTP.from_env("LMTP_URL", local_hostname="me.example")
    pool: SMTPPool = SMTPPool.from_env(
        max_connections=3, rate_limit=(10, 5), username="me", password="secret"
    )
    other: SMTPPool = SMTPPool.from_url("lmtp+unix:///run/lmtp", retries=3)
    print(smtp, lmtp, pool, other)


# -- a blocking script -----------------------------------------------------------------------


def blocking(message: EmailMessage, context: ssl.SSLContext) -> None:
    with SMTP("mail.example", 587, "me.example", 30, ("192.0.2.1", 0)) as smtp:
        started: tuple[int, bytes] = smtp.starttls(context=context)
        logged_in: tuple[int, bytes] = smtp.login("user", "secret", initial_response_ok=True)
        logged_in = smtp.login("user", "", token=plain_token)
        code, said = smtp.noop()
        refused: dict[str, Reply] = smtp.send_message(message)
        result: SendResult = smtp.sendmail(
            "a@example.org", ["b@example.org"], b"", ["SIZE=1"], ["NOTIFY=NEVER"]
        )
        replies: list[Reply] = [
            smtp.ehlo(),
            smtp.helo("me.example"),
            smtp.mail("a@example.org"),
            smtp.rcpt("b@example.org"),
            smtp.data("text"),
            smtp.rset(),
            smtp.verify("b@example.org"),
            smtp.vrfy("b@example.org"),
            smtp.expn("list"),
            smtp.docmd("XYZZY"),
            smtp.auth("PLAIN", smtp.auth_plain),
        ]
        help_text: bytes = smtp.help()
        smtp.ehlo_or_helo_if_needed()
        smtp.putcmd("NOOP")
        answer: Reply = smtp.getreply()
        smtp.set_debuglevel(1)
        smtp.quit()
        smtp.close()
    print(started, logged_in, code, said, refused, result, replies, help_text, answer)
    with SMTP_SSL("mail.example", 465, context=context, timeout=10) as smtp_ssl:
        smtp_ssl.send_message(message)
    with LMTP("/run/lmtp.sock") as lmtp:
        lmtp.send_message(message)

    def dial(host: str, port: int, seconds: float | None) -> socket.socket:
        return socket.create_connection((host, port), seconds)

    async def dial_later(host: str, port: int, seconds: float | None) -> socket.socket:
        return dial(host, port, seconds)

    with SMTP("mail.example", proxy="http://proxy.example:3128", chunking="eager") as smtp:
        smtp.starttls(tls_ca="ca.pem", tls_certificate=("cert.pem", "key.pem"), tls_fingerprint="00" * 32)
    with SMTP_SSL(
        "mail.example", tls_ca=Path("ca.pem"), server_hostname="mx.example", dialer=dial
    ) as ssl_too:
        ssl_too.noop()
    with LMTP("mail.example", dialer=dial_later, proxy_header=ProxyHeader()) as lmtp:
        lmtp.noop()
    once: SendResult = run_sync(aiosmtpclient.send(message, host="mail.example"), timeout=60)
    address: str = quoteaddr("Bob <bob@example.org>")
    print(once, address, quotedata("."))


def main() -> None:
    result: SendResult = asyncio.run(welcome("reader@example.org"))
    print(result)
