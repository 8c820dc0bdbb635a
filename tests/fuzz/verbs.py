"""Target: what a caller gives to single verbs, to a login, and for the opening.

What must hold: a verb writes its one line (XCLIENT an EHLO behind it, AUTH its responses) and
nothing else, in the grammar; a line of the caller's own is written as it was given; what cannot be
written is a ValueError, a TypeError or one of our errors, and nothing was written then; a PROXY
header is what its specification says, octet for octet.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from aiosmtpclient import AsyncLMTP, AsyncSMTP, ProxyHeader, SMTPException, SMTPTimeoutError

from .callers import FRAGMENTS, OFFERS, RAW
from .choices import Choices
from .counter import TIMEOUTS, Counter, documented, play, settle
from .strict import Strict

HERE = (
    b"AUTH PLAIN LOGIN CRAM-MD5 EXTERNAL ANONYMOUS XOAUTH2 OAUTHBEARER",
    b"ETRN",
    b"XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT",
    b"XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE",
)
COMMANDS = (
    "NOOP", "MAIL FROM:<a@a.test>", "RCPT TO:<a@a.test>", "DATA", "RSET", "AUTH PLAIN", "AUTH", "BDAT 3",
    "BDAT 0 LAST", "XPROBE", "HELP", "EHLO me", "STARTTLS", "QUIT", "TURN", "VRFY", ".", "x", "",
)  # fmt: skip
ADDRESSES = ("127.0.0.1", "::1", "192.0.2.7", "2001:db8::1", "fe80::1%eth0", "::ffff:1.2.3.4", "1.2.3", "")
SEEDS = (
    b"",
    bytes(range(150)),
    b"\0\0\0\0\0\x05" + bytes(range(40)),
    *(bytes([0, 0, 0, 0, 0, 1, number]) + b"\x03\x02\x05\x01\x09" * 12 for number in range(16)),
)


def check(octets: bytes) -> None:
    """Say some verbs."""
    choices = Choices(octets)
    offers, lmtp = (*choices.pick(OFFERS)[:4], *HERE), choices.rarely()
    header = _header(choices) if choices.rarely(5) else None
    name = _text(choices) if choices.rarely(5) else "me"
    options: dict[str, Any] = {"tls": "none", "timeout": TIMEOUTS, "allow_cleartext_auth": True}
    servers: list[Strict] = []

    def server() -> Strict:
        servers.append(Strict(offers, lmtp=lmtp))
        servers[-1].by_hand = True
        servers[-1].header = _as_specified(header) if header is not None else b""
        return servers[-1]

    counter = Counter(server)
    try:
        smtp = (AsyncLMTP if lmtp else AsyncSMTP)(
            "strict.test", 25, local_hostname=name or None, proxy_header=header, **options
        )
    except ValueError as error:
        assert documented(error), repr(error)
        return
    play(counter, _converse(smtp, choices, counter))
    assert not counter.wrong, counter.wrong


def _text(choices: Choices) -> str:
    return choices.text(FRAGMENTS, 5)


# -- the PROXY protocol --------------------------------------------------------------------------------


def _header(choices: Choices) -> ProxyHeader | None:
    def place() -> tuple[Any, Any] | None:
        address = choices.pick(ADDRESSES) + (_text(choices) if choices.rarely() else "")
        return None if choices.rarely() else (address, choices.pick((25, 0, 65535, 65536, -1, "25", 40000)))

    try:
        return ProxyHeader(place(), place(), version=choices.pick((2, 1)))
    except (ValueError, TypeError) as error:
        assert documented(error), repr(error)
        return None


def _as_specified(header: ProxyHeader) -> bytes:
    """The PROXY protocol, sections 2.1 and 2.2."""
    ends = (header.source, header.destination)
    if None in ends:
        return b"PROXY UNKNOWN\r\n" if header.version == 1 else b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"
    (one, here), (other, there) = (
        (ipaddress.ip_address(end[0].partition("%")[0]), end[1]) for end in ends if end
    )
    if header.version == 1:
        return f"PROXY TCP{one.version if one.version == 6 else 4} {one} {other} {here} {there}\r\n".encode()
    body = one.packed + other.packed + here.to_bytes(2, "big") + there.to_bytes(2, "big")
    kind = b"\x11" if one.version == 4 else b"\x21"
    return b"\r\n\r\n\0\r\nQUIT\n\x21" + kind + len(body).to_bytes(2, "big") + body


# -- the conversation -----------------------------------------------------------------------------------


async def _converse(smtp: AsyncSMTP, choices: Choices, counter: Counter) -> None:
    try:
        await smtp.connect()
    except Exception as error:
        assert documented(error), repr(error)
        said = [line for server in counter.servers for line in server.commands]
        raise AssertionError(f"{error!r} after {said}, {counter.wrong}") from error
    else:
        await settle()
        server = counter.servers[0]
        verbs = [line[:5] for line in server.commands]
        assert verbs == [b"LHLO " if server.lmtp else b"EHLO "], (
            f"{server.commands} {counter.wrong} {server.unread!r}"
        )
        by_hand = False
        for _ in range(choices.number(5)):
            say = choices.pick(VERBS)
            by_hand = by_hand or say is _docmd
            if not await _one(say, smtp, choices, server, by_hand=by_hand):
                break
        try:
            await smtp.quit()
        except (SMTPException, RuntimeError) as error:
            assert by_hand, repr(error)
    smtp.close()
    await settle()


async def _one(say: Verb, smtp: AsyncSMTP, choices: Choices, server: Strict, *, by_hand: bool) -> bool:
    """One verb; False if the connection is of no further use."""
    before = len(server.commands)
    wanted: list[bytes] = []
    try:
        await say(smtp, choices, server, wanted)
    except SMTPTimeoutError:
        # The caller has begun content by hand, and this is more of it.
        assert by_hand
        return False
    except Exception as error:
        lines = server.commands[before:]
        refused = isinstance(error, SMTPException) and lines
        misused = isinstance(error, RuntimeError) and by_hand
        assert refused or misused or documented(error), f"{say.__name__}: {error!r}"
        assert refused or not lines, f"{say.__name__}: {error!r} after {lines}"
        assert not refused or by_hand or say in (_data, _login, _auth), (
            f"{say.__name__}: {error!r} after {lines}"
        )
        return smtp.is_connected
    lines = server.commands[before:]
    if not by_hand or say is _docmd:
        assert len(lines) == len(wanted), f"{say.__name__} wrote {lines}, not {wanted}"
        assert all(line.startswith(start) for line, start in zip(lines, wanted, strict=True)), (
            f"{lines}, not {wanted}"
        )
    return smtp.is_connected


Verb = Callable[[AsyncSMTP, Choices, Strict, list[bytes]], Coroutine[Any, Any, None]]


async def _vrfy(smtp: AsyncSMTP, choices: Choices, server: Strict, wanted: list[bytes]) -> None:
    wanted.append(b"VRFY ")
    await smtp.vrfy(_text(choices))


async def _expn(smtp: AsyncSMTP, choices: Choices, server: Strict, wanted: list[bytes]) -> None:
    wanted.append(b"EXPN ")
    await smtp.expn(_text(choices))


async def _etrn(smtp: AsyncSMTP, choices: Choices, server: Strict, wanted: list[bytes]) -> None:
    wanted.append(b"ETRN ")
    await smtp.etrn(_text(choices))


async def _help(smtp: AsyncSMTP, choices: Choices, server: Strict, wanted: list[bytes]) -> None:
    wanted.append(b"HELP")
    await smtp.help(_text(choices))


async def _noop(smtp: AsyncSMTP, choices: Choices, server: Strict, wanted: list[bytes]) -> None:
    wanted.append(b"NOOP\r\n")
    await smtp.noop()


async def _rset(smtp: AsyncSMTP, choices: Choices, server: Strict, wanted: list[bytes]) -> None:
    wanted.append(b"RSET\r\n")
    await smtp.rset()


async def _docmd(smtp: AsyncSMTP, choices: Choices, server: Strict, wanted: list[bytes]) -> None:
    command = choices.pick(COMMANDS) if choices.rarely(2) else _text(choices)
    arguments = _text(choices) if choices.flag() else ""
    line = (f"{command} {arguments}" if arguments else command).encode("utf-8", "surrogatepass") + b"\r\n"
    wanted.append(line)
    server.raw.add(line)
    server.raw.update(line.split())
    count = len(server.commands)
    reply = await smtp.docmd(command, arguments)
    assert line[:-2].isascii() or b"SMTPUTF8" in server.keywords
    assert reply.code
    if len(server.commands) == count:
        wanted.clear()  # it was content, or a part of a chunk


async def _ehlo(smtp: AsyncSMTP, choices: Choices, server: Strict, wanted: list[bytes]) -> None:
    name = _text(choices)
    wanted.append((b"LHLO " if server.lmtp else b"EHLO ") + (name.encode() if name.isascii() else b""))
    await smtp.ehlo(name)


async def _mail(smtp: AsyncSMTP, choices: Choices, server: Strict, wanted: list[bytes]) -> None:
    wanted.append(b"MAIL FROM:<")
    options = _raw(choices, server)
    await smtp.mail(choices.pick(("ann@a.test", _text(choices))), options)


async def _rcpt(smtp: AsyncSMTP, choices: Choices, server: Strict, wanted: list[bytes]) -> None:
    wanted.append(b"RCPT TO:<")
    options = _raw(choices, server)
    await smtp.rcpt(choices.pick(("ann@a.test", _text(choices))), options)


def _raw(choices: Choices, server: Strict) -> list[str]:
    options = choices.several(RAW, 2) if choices.flag() else []
    server.raw.update(option.encode("utf-8", "surrogatepass") for option in options)
    return options


async def _data(smtp: AsyncSMTP, choices: Choices, server: Strict, wanted: list[bytes]) -> None:
    wanted.append(b"DATA\r\n")
    body = choices.octets(20).replace(b"\0", b"").replace(b"\x80", b"\r\n.")
    server.raw.add(b"DATA\r\n")  # whether there is an envelope, and 8BITMIME in it, is the caller's affair
    await smtp.data(bytes(octet & 0x7F for octet in body))


async def _login(smtp: AsyncSMTP, choices: Choices, server: Strict, wanted: list[bytes]) -> None:
    mechanism = choices.pick(
        ("PLAIN", "LOGIN", "CRAM-MD5", "EXTERNAL", "ANONYMOUS", "XOAUTH2", "OAUTHBEARER")
    )
    user, password, other = _text(choices), _text(choices), choices.pick(("", _text(choices)))
    token = password if mechanism in ("XOAUTH2", "OAUTHBEARER") else None
    initial = choices.flag()
    before = len(server.commands)
    await smtp.login(
        user,
        password,
        mechanisms=[mechanism],
        authorization_id=other,
        initial_response_ok=initial,
        token=token,
    )
    lines = server.commands[before:]
    wanted += [f"AUTH {mechanism}".encode(), *[b""] * (len(lines) - 1)]
    assert 1 <= len(lines) <= 3
    assert all(len(line) <= 512 for line in lines[:1])
    said = re.sub(rb"^AUTH \S+ ?", b"", lines[0]).strip() or (lines[1].strip() if len(lines) > 1 else b"")
    if mechanism == "PLAIN":
        assert base64.b64decode(said, validate=True) == "\0".join((other, user, password)).encode()


async def _auth(smtp: AsyncSMTP, choices: Choices, server: Strict, wanted: list[bytes]) -> None:
    wanted.append(b"AUTH ")
    answer = _text(choices)
    before = len(server.commands)
    await smtp.auth(choices.pick(("PLAIN", "x-y", _text(choices))), lambda challenge=None: answer)
    wanted += [b""] * (len(server.commands) - before - 1)


async def _xclient(smtp: AsyncSMTP, choices: Choices, server: Strict, wanted: list[bytes]) -> None:
    wanted += [b"XCLIENT ", b"LHLO " if server.lmtp else b"EHLO "]
    await smtp.xclient(**_attributes(choices))


async def _xforward(smtp: AsyncSMTP, choices: Choices, server: Strict, wanted: list[bytes]) -> None:
    wanted.append(b"XFORWARD ")
    await smtp.xforward(**_attributes(choices))


def _attributes(choices: Choices) -> Any:
    names = (
        "name",
        "addr",
        "port",
        "proto",
        "helo",
        "login",
        "destaddr",
        "ident",
        "source",
        "x",
        "na me",
        "ADDR",
    )
    return {name: choices.pick((_text(choices), "2001:db8::1", 25)) for name in choices.several(names, 3)}


VERBS: Sequence[Verb] = (
    _noop, _vrfy, _expn, _etrn, _help, _rset, _docmd, _ehlo, _mail, _rcpt, _data, _login, _auth, _xclient,
    _xforward, _mail, _rcpt,
)  # fmt: skip
