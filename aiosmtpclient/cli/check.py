"""`aiosmtpclient check`: what a server offers, before TLS and inside it, and whether that is true.

Rules of this room:

* A look at a server takes no credentials, so it can send none: not even to one whose certificate
  is not accepted, of which everything is still shown. It is greeting, EHLO, STARTTLS, EHLO, QUIT.
* Trials come after it, and only where the certificate was accepted. Only they log in, if they are
  to; the one of BDAT leaves nothing behind at the server, the one of streams three messages.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, replace

from aiosmtpclient import addresses, opening, plans
from aiosmtpclient.client import Options
from aiosmtpclient.commands import hello
from aiosmtpclient.connection import Connection
from aiosmtpclient.dialling import Endpoint, TLSSettings
from aiosmtpclient.errors import SMTPException, SMTPTLSError
from aiosmtpclient.extensions import Extensions
from aiosmtpclient.plans import Settings
from aiosmtpclient.replies import Reply
from aiosmtpclient.session import Trace
from aiosmtpclient.tls import TLSPolicy

from .account import reply_as_json
from .certificates import Certificate, pinned, unverified
from .exits import Exit, Failure, exit_of
from .options import (
    Parser,
    add_command,
    add_connection_options,
    add_login_options,
    client_options,
    in_options,
    place,
    timeouts_of,
)
from .printing import Transcript, complain, say, trace_back
from .reaching import dialer_in, reach_of, trust_in
from .trials import (
    Streamed,
    bdat_line,
    client_for,
    prove_bdat,
    stream_as_json,
    stream_line,
    try_stream,
)

_DESCRIPTION = """\
Show what a server offers: its greeting, its extensions and login mechanisms before TLS
and inside it, and its certificate, also where that is not accepted (exit code 78).
Without --tls, TLS is used from the first octet on port 465, required on port 587, and
anywhere else used if it is offered. Where BDAT is offered (CHUNKING), it is shown whether the
server reads and discards a chunk that it refuses; that changes nothing there. No message is sent
but with --stream: three small ones to the address that --to names, one right behind the other, to
see whether the server takes pipelining="stream". With --user the trials log in first.
"""


def add_to(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add the command."""
    parser = add_command(commands, "check", run, help="show what a server offers", description=_DESCRIPTION)
    parser.add_argument(
        "host", metavar="HOST[:PORT]", help="name, address, or the path of a Unix socket; port 25 if none"
    )
    group = parser.add_argument_group("trials")
    group.add_argument("--stream", action="store_true", help="send three messages to --to in a stream")
    group.add_argument("--to", metavar="ADDRESS", help="who gets them")
    group.add_argument("--from", dest="sender", metavar="ADDRESS", help="who sends them; left out, --to")
    add_login_options(parser)
    add_connection_options(parser)
    parser.set_defaults(pipelining="stream")


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found out about a server.

    Attributes:
        server: where it is.
        greeting: what it greeted with.
        before: what it offers in clear; None if TLS comes first.
        inside: what it offers inside TLS; None without TLS.
        cipher: version of TLS, cipher and its bits.
        certificate: what it shows.
        problem: why its certificate was not accepted.
        bdat: it discards a chunk that it refuses; None if that is not known.
        streamed: what came of a stream, if one was asked for.
    """

    server: str
    greeting: Reply
    before: Extensions | None = None
    inside: Extensions | None = None
    cipher: tuple[str, str, int] | None = None
    certificate: Certificate | None = None
    problem: SMTPTLSError | None = None
    bdat: bool | None = None
    streamed: Streamed | None = None

    @property
    def offered(self) -> Extensions:
        """What counts: inside TLS, if there is TLS."""
        return self.inside if self.inside is not None else self.before or Extensions()


def run(arguments: argparse.Namespace) -> Exit:
    """Carry the command out; returns what to exit with."""
    transcript = Transcript()
    try:
        trace = transcript if arguments.trace else None
        settings = settings_of(arguments, trace)
        findings = asyncio.run(_find_out(settings, _options_of(arguments, trace), arguments))
    except ValueError as error:
        raise Failure(str(error), Exit.USAGE) from error
    finally:
        transcript.end()
    if arguments.json:
        say(json.dumps(as_json(findings)))
    else:
        for line in lines(findings):
            say(line)
    if findings.problem is None:
        return _exit_of(findings.streamed)
    if arguments.debug:
        trace_back(findings.problem)
    complain(in_options(str(findings.problem)))
    return exit_of(findings.problem)


def _options_of(arguments: argparse.Namespace, trace: Trace | None) -> Options:
    """What the trials take besides, and whether the arguments go together."""
    if arguments.stream != bool(arguments.to):
        raise Failure("--stream needs --to ADDRESS, and --to needs --stream", Exit.USAGE)
    if arguments.stream:
        addresses.recipient(arguments.to)
        addresses.sender(arguments.sender or arguments.to)
    return client_options(arguments, trace)


async def _find_out(settings: Settings, options: Options, arguments: argparse.Namespace) -> Findings:
    """Look, then try what may be tried."""
    client_for(settings, options)  # complains before anything is connected to
    findings = await look_at(settings)
    if findings.problem is not None:
        return findings
    if "chunking" in findings.offered:
        findings = replace(findings, bdat=await prove_bdat(client_for(settings, options)))
    if arguments.stream:
        sender = arguments.sender or arguments.to
        streamed = await try_stream(client_for(settings, options), sender, arguments.to)
        findings = replace(findings, streamed=streamed)
    return findings


def _exit_of(streamed: Streamed | None) -> Exit:
    """A verdict is what was asked for, whatever it is; that there is none has a reason."""
    if streamed is None or streamed.taken is not None or streamed.error is None:
        return Exit.OK
    return exit_of(streamed.error)


def settings_of(arguments: argparse.Namespace, trace: Trace | None) -> Settings:
    """Make settings without credentials of the arguments.

    Raises:
        ValueError: an argument makes no sense.
        SMTPConnectError: the port is no number.
    """
    host, port = place(arguments.host)
    host, port = plans.split_port(host, port)
    if arguments.local_hostname is not None:
        hello("EHLO", arguments.local_hostname)
    port = port or (465 if arguments.tls == "implicit" else 2003 if arguments.lmtp else 25)
    reach = reach_of(arguments)
    endpoint = Endpoint(host or "localhost", port, dialer=dialer_in(reach))
    trust = trust_in(reach)
    policy = TLSPolicy.of(arguments.tls, port=0 if endpoint.unix else port, local=False)
    if trust is not None and trust.pins and arguments.tls is None and policy is TLSPolicy.OPPORTUNISTIC:
        policy = TLSPolicy.STARTTLS
    name = arguments.server_hostname or ("localhost" if endpoint.unix else endpoint.host)
    return Settings(
        endpoint=endpoint,
        policy=policy,
        security=TLSSettings(None, name, trust),
        timeouts=timeouts_of(arguments),
        local_hostname=arguments.local_hostname,
        lmtp=arguments.lmtp,
        trace=trace,
    )


async def look_at(settings: Settings) -> Findings:
    """Find out everything, with a second and a third look where the certificate is not accepted.

    Raises:
        SMTPException: there is nothing to be found out.
    """
    try:
        return await _visit(settings)
    except SMTPTLSError as error:
        trust = settings.security.trust
        pinned_to_another = trust is not None and bool(trust.pins)
        if not pinned_to_another and not isinstance(error.__cause__, ssl.SSLCertVerificationError):
            raise
        problem = error
    try:
        findings = await _visit(_with(settings, unverified()))
    except SMTPException:
        raise problem from problem.__cause__
    return replace(findings, problem=problem, certificate=await _readable(findings.certificate, settings))


async def _readable(certificate: Certificate | None, settings: Settings) -> Certificate | None:
    """The same certificate with its fields, where they can be had."""
    if certificate is None:
        return None
    try:
        return (await _visit(_with(settings, pinned(certificate.octets)))).certificate
    except (SMTPException, ssl.SSLError):
        return certificate


def _with(settings: Settings, context: ssl.SSLContext) -> Settings:
    return settings._replace(security=settings.security._replace(context=context, trust=None))


async def _visit(settings: Settings) -> Findings:
    """What one connection shows."""
    connection, greeting = await opening.dial(settings)
    try:
        before = None
        if settings.policy is not TLSPolicy.IMPLICIT:
            await opening.say_hello(connection, settings)
            before = connection.session.extensions
        if settings.policy is not TLSPolicy.NONE:
            await opening.make_ready(connection, settings)
        return _inside_tls(connection, Findings(settings.endpoint.name, greeting, before))
    finally:
        await opening.farewell(connection)


def _inside_tls(connection: Connection, findings: Findings) -> Findings:
    transport = connection.protocol.transport
    inside = transport.get_extra_info("ssl_object") if transport is not None else None
    if not isinstance(inside, ssl.SSLObject):
        return findings
    name, _, bits = inside.cipher() or ("", "", 0)
    return replace(
        findings,
        inside=connection.session.extensions,
        cipher=(inside.version() or "", name, bits),
        certificate=Certificate.of(inside),
    )


# -- what is printed -----------------------------------------------------------------------


def lines(findings: Findings) -> Iterator[str]:
    """What was found, for people."""
    yield findings.server
    yield f"  greeting     {findings.greeting.display}"
    if findings.before is not None:
        yield from _offered("before TLS" if findings.cipher else "in clear", findings.before)
    if findings.cipher is None:
        yield "  TLS          none"
    else:
        version, cipher, bits = findings.cipher
        yield f"  TLS          {version}, {cipher}, {bits} bits"
    if findings.certificate is not None:
        yield from _shown(findings.certificate, findings.problem)
    if findings.inside is not None:
        yield from _offered("inside TLS", findings.inside)
    if findings.problem is None and "chunking" in findings.offered:
        yield bdat_line(findings.bdat)
    if findings.streamed is not None:
        yield stream_line(findings.streamed)


def _offered(where: str, extensions: Extensions) -> Iterator[str]:
    words = [f"{word.upper()} {extensions[word]}".strip() for word in extensions if word != "auth"]
    yield f"  {where:<11}  {', '.join(words) or 'no extensions'}"
    yield f"    login      {' '.join(extensions.auth_mechanisms) or 'none'}"


def _shown(certificate: Certificate, problem: SMTPTLSError | None) -> Iterator[str]:
    yield f"  certificate  {'accepted' if problem is None else 'NOT ACCEPTED'}"
    yield f"    sha256     {certificate.sha256}"
    if certificate.not_before:
        yield f"    subject    {certificate.subject}"
        yield f"    issuer     {certificate.issuer}"
        yield f"    names      {', '.join(certificate.names) or 'none'}"
        yield f"    valid      {certificate.not_before} to {certificate.not_after}"


def as_json(findings: Findings) -> dict[str, object]:
    """What was found, for programs."""
    cipher = findings.cipher
    return {
        "server": findings.server,
        "greeting": reply_as_json(findings.greeting),
        "before_tls": _extensions_as_json(findings.before),
        "tls": dict(zip(("version", "cipher", "bits"), cipher, strict=True)) if cipher else None,
        "certificate": _certificate_as_json(findings.certificate),
        "inside_tls": _extensions_as_json(findings.inside),
        "bdat_proven": findings.bdat,
        "stream": stream_as_json(findings.streamed),
        "problem": str(findings.problem) if findings.problem is not None else None,
    }


def _extensions_as_json(extensions: Extensions | None) -> dict[str, object] | None:
    if extensions is None:
        return None
    return {"extensions": dict(extensions), "auth": list(extensions.auth_mechanisms)}


def _certificate_as_json(certificate: Certificate | None) -> dict[str, object] | None:
    if certificate is None:
        return None
    return {
        "sha256": certificate.sha256,
        "subject": certificate.subject or None,
        "issuer": certificate.issuer or None,
        "names": list(certificate.names),
        "not_before": certificate.not_before or None,
        "not_after": certificate.not_after or None,
    }
