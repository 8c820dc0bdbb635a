"""The cases whose errors are shown: every class of our tree, and what is wrong input.

Rules of this room:

* A case is what a user may meet, in his words, not a branch of the code.
* Who adds a class of error, or a phase in which it can come, adds a case: a test looks for it.
"""

from __future__ import annotations

import asyncio
import base64
import errno
import socket
import ssl
import threading
from email.message import EmailMessage
from typing import Any
from unittest import mock

from aiosmtpclient import AsyncSMTP, Recipient, SMTPPool, proxies, run_sync, runner

from .behaviours import CLOSE, RIGHT, STOP, Instead, Raw
from .messages import ANN, BOB, BODY, CAT, SENDER, Case

PASSWORD = {"username": "me", "password": "s3cret", "allow_cleartext_auth": True}
TOKEN = {"username": "me", "token": "ya29", "allow_cleartext_auth": True}
IMPLICIT = {"tls": "implicit"}
STARTTLS = {"tls": "starttls"}
TLS = ("STARTTLS",)
ONE = {"max_connections": 1}
SAID = base64.b64encode(b'{"status":"401","schemes":"bearer","scope":"https://mail.test/"}')


def _unverified(code: int, message: str) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed")
    error.verify_code, error.verify_message = code, message
    return error


def _broken_off(reason: str, text: str) -> ssl.SSLError:
    error = ssl.SSLError(1, f"[SSL: {reason}] {text}")
    error.reason = reason
    return error


# -- what callers do -------------------------------------------------------------------------


async def _starttls(smtp: AsyncSMTP) -> object:
    return await smtp.starttls()


async def _login(smtp: AsyncSMTP) -> object:
    return await smtp.login("me", "s3cret", mechanisms=["PLAIN"])


async def _mail(smtp: Any) -> object:
    return await smtp.sendmail(SENDER, ANN, BODY)


async def _after_quit(smtp: AsyncSMTP) -> object:
    await smtp.quit()
    return await _mail(smtp)


async def _closed_meanwhile(smtp: AsyncSMTP) -> object:
    sending = asyncio.create_task(_mail(smtp))
    await asyncio.sleep(0)
    smtp.close()
    return await sending


async def _closed_while_it_connects(smtp: AsyncSMTP) -> object:
    connecting = asyncio.create_task(smtp.connect())
    for _ in range(3):
        await asyncio.sleep(0)
    smtp.close()
    return await connecting


async def _in_a_child(smtp: AsyncSMTP) -> object:
    connection = smtp._connection
    assert connection is not None
    protocol = connection.protocol
    try:
        connection.leave_to_parent()  # as after os.fork()
        return await smtp.noop()
    finally:
        protocol.abort()


async def _elsewhere(smtp: AsyncSMTP) -> object:
    raised: list[BaseException] = []

    def other_loop() -> None:
        try:
            asyncio.run(smtp.noop())
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=other_loop)
    thread.start()
    thread.join()
    raise raised[0]


async def _dot_missing(smtp: AsyncSMTP) -> object:
    await smtp.mail(SENDER)
    await smtp.rcpt(ANN)
    await smtp.docmd("DATA")
    return await smtp.noop()


async def _with_require_tls(smtp: AsyncSMTP) -> object:
    return await smtp.sendmail(SENDER, ANN, BODY, require_tls=True)


async def _with_notify(smtp: AsyncSMTP) -> object:
    return await smtp.sendmail(SENDER, Recipient(ANN, notify="never"), BODY)


async def _takes_too_long(smtp: AsyncSMTP) -> object:
    return await asyncio.get_running_loop().run_in_executor(None, run_sync, asyncio.sleep(60), 0.01)


async def _in_its_own_thread(smtp: AsyncSMTP) -> object:
    raise RuntimeError(runner._OWN_THREAD)


async def _all_are_lent(pool: SMTPPool) -> object:
    async with pool.connection():
        return await _mail(pool)


async def _too_many_wait(pool: SMTPPool) -> object:
    async with pool.connection():
        waiting = asyncio.create_task(_mail(pool))
        await asyncio.sleep(0)
        try:
            return await _mail(pool)
        finally:
            waiting.cancel()
            await asyncio.wait([waiting])


async def _closed_pool(pool: SMTPPool) -> object:
    await pool.close()
    return await _mail(pool)


async def _closed_while_one_waits(pool: SMTPPool) -> object:
    async with pool.connection():
        waiting = asyncio.create_task(_mail(pool))
        await asyncio.sleep(0)
        await pool.close(0)
        return await waiting


async def _pool_closed_while_it_connects(pool: SMTPPool) -> object:
    sending = asyncio.create_task(_mail(pool))
    await asyncio.sleep(0)
    await pool.close(0)
    return await sending


async def _pool_elsewhere(pool: SMTPPool) -> object:
    await _mail(pool)
    raised: list[BaseException] = []

    def other_loop() -> None:
        try:
            asyncio.run(_mail(pool))  # type: ignore[arg-type]
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=other_loop)
    thread.start()
    thread.join()
    raise raised[0]


async def _by_a_dead_proxy(smtp: AsyncSMTP) -> object:
    refusal = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
    with mock.patch.object(proxies, "_connected", mock.AsyncMock(side_effect=refusal)):
        return await smtp.connect()


async def _by_a_strict_proxy(smtp: AsyncSMTP) -> object:
    ours, theirs = socket.socketpair()
    with (
        ours,
        theirs,
        mock.patch.object(proxies, "_connected", mock.AsyncMock(return_value=ours)),
        mock.patch.object(asyncio.get_running_loop(), "sock_sendall", mock.AsyncMock(), create=True),
        mock.patch.object(
            proxies, "_status", mock.AsyncMock(return_value=b"HTTP/1.1 407 Proxy Authentication Required")
        ),
    ):
        return await smtp.connect()


def _wrong(*arguments: Any, **options: Any) -> Any:
    async def call(smtp: AsyncSMTP) -> object:
        return await smtp.sendmail(*arguments, **options)

    return call


def _client(**options: Any) -> Any:
    async def call(smtp: AsyncSMTP) -> object:
        return AsyncSMTP("mail.test", **options)

    return call


def _headers(**headers: str) -> Any:
    message = EmailMessage()
    message["Subject"] = "no sender"
    for name, value in headers.items():
        message[name] = value
    message.set_content("Hello.\n")

    async def call(smtp: AsyncSMTP) -> object:
        return await smtp.send_message(message)

    return call


# -- what goes wrong -------------------------------------------------------------------------

PROXY = {"proxy": "http://me:s3cret@proxy.test:3128"}
SECTIONS: dict[str, list[Case]] = {
    "Connecting": [
        Case("nobody listens", dialling=ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")),
        Case("there is no such name", dialling=socket.gaierror(-2, "Name or service not known")),
        Case("the network is not there", dialling=OSError(errno.ENETUNREACH, "Network is unreachable")),
        Case("nobody answers at all", dialling=TimeoutError()),
        Case("the greeting says no", (Instead(code=554), CLOSE), 0),
        Case("the server has too many connections", (Instead(code=421), CLOSE), 0),
        Case("no greeting comes", (STOP,), 0),
        Case("closed before a greeting", (CLOSE,), 0),
        Case("it is not a mail server", (Raw(octets=b"HTTP/1.1 400 Bad Request\r\n"),), 0),
        Case("EHLO is refused", (Instead(code=450),), 1),
        Case("nothing listens at the proxy", call=_by_a_dead_proxy, options=PROXY, connected=False),
        Case("the proxy wants a password", call=_by_a_strict_proxy, options=PROXY, connected=False),
        Case("closed by another task meanwhile", call=_closed_while_it_connects, connected=False),
    ],
    "TLS": [
        Case("STARTTLS is required, and not offered", options=STARTTLS),
        Case("STARTTLS is required, and refused", (Instead(code=454),), 2, offers=TLS, options=STARTTLS),
        Case("`starttls()`, and it is not offered", call=_starttls),
        Case("`starttls()` is refused", (Instead(code=454),), 2, offers=TLS, call=_starttls),
        Case(
            "the certificate is self-signed",
            dialling=_unverified(18, "self-signed certificate"),
            options=IMPLICIT,
        ),
        Case(
            "the certificate has expired",
            (Instead(code=220),),
            2,
            offers=TLS,
            options=STARTTLS,
            handshake=_unverified(10, "certificate has expired"),
        ),
        Case(
            "the certificate is for another name",
            (Instead(code=220),),
            2,
            offers=TLS,
            options=STARTTLS,
            handshake=_unverified(62, "Hostname mismatch, certificate is not valid for 'mail.test'"),
        ),
        Case(
            "TLS from the first octet, and the server speaks in clear",
            dialling=_broken_off("WRONG_VERSION_NUMBER", "wrong version number"),
            options=IMPLICIT,
        ),
        Case("closed in the middle of the handshake", dialling=ConnectionResetError(), options=IMPLICIT),
        Case(
            "the handshake takes too long",
            (Instead(code=220),),
            2,
            offers=TLS,
            options=STARTTLS,
            handshake=TimeoutError(),
        ),
    ],
    "Logging in": [
        Case("the password is wrong", (Instead(code=535),), 2, offers=("AUTH PLAIN",), options=PASSWORD),
        Case(
            "the login is refused for now", (Instead(code=454),), 2, offers=("AUTH PLAIN",), options=PASSWORD
        ),
        Case(
            "the access token is not taken",
            lines=(
                b"220 mail.test\r\n",
                b"250-mail.test\r\n250 AUTH XOAUTH2\r\n",
                b"334 " + SAID + b"\r\n",
                b"535 5.7.8 Error: authentication failed\r\n",
            ),
            options=TOKEN,
        ),
        Case("no login is offered", options=PASSWORD),
        Case("a login is offered perhaps after STARTTLS", offers=TLS, options=PASSWORD),
        Case("no mechanism in common", offers=("AUTH NTLM",), options=PASSWORD),
        Case("a token, and the server wants passwords", offers=("AUTH PLAIN LOGIN",), options=TOKEN),
        Case("the password would travel in clear", offers=("AUTH PLAIN",), call=_login),
    ],
    "Sending": [
        Case("8-bit content, and no 8BITMIME", body=b"Subject: m1\r\n\r\n\xc3\xa9\r\n"),
        Case("an address needs SMTPUTF8", recipients=("bücher@m1.test",)),
        Case("an option that the server lacks", call=_with_notify),
        Case("`require_tls=True` in clear", offers=("REQUIRETLS",), call=_with_require_tls),
        Case("too large", body=b"x" * 2000),
        Case("MAIL is refused for good", (Instead(code=550),), 2),
        Case("MAIL is refused for now", (Instead(code=451),), 2),
        Case("nobody is accepted", recipients=(BOB,)),
        Case("421 instead of an answer to RCPT", (Instead(code=421), CLOSE), 3),
        Case("DATA is refused", (Instead(code=451),), 4),
        Case("the content is refused", refused=True),
        Case("closed before DATA was answered", (CLOSE,), 4),
        Case("closed before the content was answered", (CLOSE,), 5),
        Case("a farewell, and closed", (Instead(code=421), CLOSE), 5),
        Case("silence instead of an answer to RCPT", (STOP,), 3),
        Case("silence behind the content", (STOP,), 5),
        Case("what is no reply, in answer to MAIL", (Raw(octets=b"2500 \x1b[2Jok\r\n"),), 2),
        Case("a 2yz to DATA", (Instead(code=250),), 4),
        Case("a 3yz to the content", (Instead(code=354),), 5),
        Case("LMTP: closed between two answers", (RIGHT, CLOSE), 6, recipients=(ANN, CAT), lmtp=True),
        Case("closed by another task meanwhile", call=_closed_meanwhile),
        Case("not connected any more", call=_after_quit),
        Case("after `os.fork()`, in the child", call=_in_a_child),
    ],
    "The pool": [
        Case(
            "every connection is lent for too long", call=_all_are_lent, pool=ONE | {"acquire_timeout": 2.0}
        ),
        Case("more wait than may", call=_too_many_wait, pool=ONE | {"max_waiting": 1}),
        Case("the pool is closed", call=_closed_pool, pool=ONE),
        Case("the pool is closed while one waits", call=_closed_while_one_waits, pool=ONE),
        Case("the pool is closed while it connects", call=_pool_closed_while_it_connects, pool=ONE),
        Case(
            "no connection can be opened",
            dialling=ConnectionRefusedError(errno.ECONNREFUSED, "refused"),
            call=_mail,
            pool=ONE,
        ),
        Case("`run_sync(..., timeout=)` is over", call=_takes_too_long, connected=False),
    ],
    "Wrong input, and wrong use": [
        Case("a line break in an address", call=_wrong(SENDER, "ann\r\nDATA\r\n@m1.test", BODY)),
        Case("nobody to send to", call=_wrong(SENDER, [], BODY)),
        Case("a parameter that is two", call=_wrong(SENDER, ANN, BODY, ["RET=FULL X=Y"])),
        Case("a NUL in the content", call=_wrong(SENDER, ANN, b"a\0b")),
        Case("text beyond ASCII as `str`", call=_wrong(SENDER, ANN, "é")),
        Case("a message without a sender", call=_headers(To=ANN)),
        Case("a user without a password", call=_client(username="me")),
        Case("an unknown mechanism", call=_client(username="me", password="x", mechanisms=["PLAN"])),
        Case("an unknown policy", call=_client(tls="ssl")),
        Case("a timeout of nothing", call=_client(timeout=0)),
        Case("a fingerprint that is none", call=_client(tls_fingerprint="abc")),
        Case("a client in a second event loop", call=_elsewhere),
        Case("a pool in a second event loop", call=_pool_elsewhere, pool=ONE),
        Case("a blocking call in the loop's own thread", call=_in_its_own_thread),
        Case("a command in the middle of content by hand", offers=(), call=_dot_missing),
    ],
}
CASES = [case for cases in SECTIONS.values() for case in cases]
