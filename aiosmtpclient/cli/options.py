"""Options: what the commands understand in common, and what becomes of it.

Rules of this room:

* A password never stands among the arguments, where every user of the machine can read it, nor
  in any message of ours: `--password` is known only to be refused, without its value.
* Nothing is abbreviated: `--pass` must never be guessed to be something else.
* What is wrong with an argument ends with `Exit.USAGE`, before anything is connected to.
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import netrc
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from aiosmtpclient.client import AsyncLMTP, AsyncSMTP, Options
from aiosmtpclient.errors import SMTPException
from aiosmtpclient.plans import split_port
from aiosmtpclient.sasl import need_no_password
from aiosmtpclient.secret import Secret
from aiosmtpclient.session import Trace
from aiosmtpclient.timeouts import Timeouts
from aiosmtpclient.tls import TLSPolicy

from .exits import EPILOG, Exit, Failure
from .printing import complain
from .reaching import add_reaching_options, reach_of

PASSWORD_VARIABLE = "SMTP_PASSWORD"

_BRACKETED = re.compile(r"\[([^\[\]]*)\](?::([0-9]{1,5}))?")


class Parser(argparse.ArgumentParser):
    """An argument parser that complains in one line, with the exit code of sysexits.h."""

    def error(self, message: str) -> NoReturn:
        """End the command for wrong arguments."""
        command = self.prog.partition(" ")[2]
        complain(f"{command}: {message} (--help tells more)".removeprefix(": "))
        self.exit(Exit.USAGE)


class _Refused(argparse.Action):
    """`--password`: refused, and its value is not repeated."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> NoReturn:
        parser.error(
            "a password among the arguments can be read by everybody on this machine: "
            f"use --password-file, --netrc, the environment variable {PASSWORD_VARIABLE}, or the prompt"
        )


def port_number(text: str) -> int:
    """Read a TCP port.

    Raises:
        ValueError: it is none.
    """
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise ValueError(f"no port number: {text!r}")
    return int(text)


# What argparse calls it in "invalid port value: 'x'".
port_number.__name__ = "port"


# What the library's errors advise → the option that does it.
_ADVICE = (
    (re.compile(r"(?<!\w)tls='(\w+)'( or )'(\w+)'"), r"--tls \1\2\3"),
    (re.compile(r"(?<!\w)tls='(\w+)'"), r"--tls \1"),
    (
        re.compile(r"\btls_ca= or a tls_context= \(.*?\) with it or its CA"),
        "--ca-file with it or its CA in it",
    ),
    (re.compile(r"\btls_ca= from"), "--ca-file"),
    (re.compile(r"\btls_certificate=, or a tls_context= [a-z ]+(?= \()"), "--certificate"),
    (re.compile(r" \(which needs a tls_context=\)"), ""),
    (re.compile(r"\btls_fingerprint= (could|names|takes)"), r"--fingerprint \1"),
    (re.compile(r"\btls_fingerprint='([0-9A-F:]+)'"), r"--fingerprint \1"),
    (re.compile(r"\bneither proxy= nor dialer= (can|leads)"), r"no --proxy \1"),
    (re.compile(r"\bserver_hostname="), "--server-hostname"),
    (re.compile(r"\ballow_cleartext_auth=True"), "--allow-cleartext-auth"),
    (re.compile(r"\bin mechanisms="), "by --mechanism"),
    (re.compile(r"\btoken="), "--token-file"),
    (re.compile(r"`timeout` argument"), "--timeout option"),
)


def in_options(text: str) -> str:
    """Return an error's text with the arguments it advises turned into options of the command."""
    for advice, option in _ADVICE:
        text = advice.sub(option, text)
    return text


def add_command(
    commands: argparse._SubParsersAction[Parser],
    name: str,
    run: Callable[[argparse.Namespace], Exit],
    *,
    help: str,
    description: str,
) -> Parser:
    """Add a command with the options that every command has."""
    parser = commands.add_parser(
        name,
        help=help,
        description=description,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def add_connection_options(parser: Parser) -> None:
    """Add what it takes to reach a server and to talk to it."""
    group = parser.add_argument_group("connection")
    group.add_argument("--lmtp", action="store_true", help="speak LMTP, not SMTP")
    group.add_argument(
        "--tls",
        choices=[policy.value for policy in TLSPolicy],
        help="when TLS is used; left out, it depends on port and host",
    )
    add_reaching_options(group)
    group.add_argument("--server-hostname", metavar="NAME", help="the name the certificate must have")
    group.add_argument("--local-hostname", metavar="NAME", help="what to say EHLO with")
    group.add_argument(
        "--timeout",
        type=float,
        metavar="SECONDS",
        help="how long each wait may take, also that for the final reply: a short one makes duplicates",
    )
    group.add_argument("--json", action="store_true", help="print JSON to standard output")
    group.add_argument("--trace", action="store_true", help="print the conversation to standard error")


def add_server_options(parser: Parser) -> argparse._ArgumentGroup:
    """Add where the server is; returns the group, for more."""
    group = parser.add_argument_group("server")
    group.add_argument(
        "--host",
        default="localhost",
        help="name, address, host:port, or the path of a Unix socket (default: %(default)s)",
    )
    group.add_argument(
        "--port", type=port_number, default=0, help="TCP port (default: 25, 465 or 2003 by protocol)"
    )
    return group


def add_login_options(parser: Parser) -> None:
    """Add what it takes to log in."""
    group = parser.add_argument_group("login")
    group.add_argument("--user", metavar="NAME", help="log in as this user")
    group.add_argument("--password-file", metavar="FILE", help="the password is this file's first line")
    group.add_argument(
        "--password-env",
        metavar="VARIABLE",
        default=PASSWORD_VARIABLE,
        help="the password is in this environment variable (default: %(default)s)",
    )
    group.add_argument(
        "--netrc", action="store_true", help="user and password are those of this host in ~/.netrc"
    )
    # Two options, as curl has them: an optional value would swallow the message's file name.
    group.add_argument("--netrc-file", metavar="FILE", help="the same, from this file")
    group.add_argument("--token-file", metavar="FILE", help="an OAuth access token is this file's first line")
    group.add_argument(
        "--mechanism",
        metavar="NAME",
        action="append",
        dest="mechanisms",
        help="log in this way only; may be given several times",
    )
    group.add_argument("--password", action=_Refused, nargs="?", help=argparse.SUPPRESS)
    group.add_argument(
        "--allow-cleartext-auth", action="store_true", help="let the password travel without TLS"
    )


def place(text: str) -> tuple[str, int]:
    """Take an IPv6 address out of its brackets, with the port behind it; 0 if there is none.

    Anything else is returned as it is: `"host:port"` is understood further down.
    """
    match = _BRACKETED.fullmatch(text)
    if match is None:
        return text, 0
    return match[1], port_number(match[2]) if match[2] else 0


def timeouts_of(arguments: argparse.Namespace) -> Timeouts:
    """Return how long to wait."""
    return Timeouts() if arguments.timeout is None else Timeouts.of(arguments.timeout)


def unreadable(name: str, error: OSError) -> Failure:
    """Return the failure of a file that cannot be read."""
    return Failure(f"{name}: {error.strerror or error}", Exit.NOINPUT)


def login_of(arguments: argparse.Namespace) -> tuple[str | None, Secret | None]:
    """Find user and password: in the file, else in a netrc, else in the environment, else by asking.

    Raises:
        Failure: there is no password, or two places to take it from.
    """
    with_netrc = arguments.netrc or arguments.netrc_file is not None
    if with_netrc + (arguments.password_file is not None) + (arguments.token_file is not None) > 1:
        raise Failure("--password-file, --netrc and --token-file: only one of them", Exit.USAGE)
    if with_netrc:
        return _entry(arguments)
    if arguments.token_file is not None:
        return arguments.user, None
    if not arguments.user:
        if arguments.password_file is not None:
            raise Failure("--password-file needs --user", Exit.USAGE)
        return None, None
    if arguments.password_file is not None:
        return arguments.user, _first_line(arguments.password_file)
    with sensible():
        if need_no_password(arguments.mechanisms):
            return arguments.user, None
    if arguments.password_env in os.environ:
        return arguments.user, Secret(os.environ[arguments.password_env])
    return arguments.user, _asked(arguments.user, arguments.password_env)


def _entry(arguments: argparse.Namespace) -> tuple[str, Secret]:
    """The entry of this host, or the default one."""
    host = split_port(place(arguments.host)[0], 0)[0] or "localhost"
    name = arguments.netrc_file
    shown = name or "~/.netrc"
    user, password = _looked_up(name, shown, host)
    if user is None or password is None:
        raise Failure(f"{shown}: no entry with login and password for {host}", Exit.CONFIG)
    if arguments.user and arguments.user != user:
        raise Failure(f"{shown}: the entry for {host} is not that of --user", Exit.CONFIG)
    return user, password


def _looked_up(name: str | None, shown: str, host: str) -> tuple[str | None, Secret | None]:
    # No name for what was read: a netrc's repr is the whole file. Nor is it told what could not be
    # understood: with a quote missing that is the password.
    why = ""
    try:
        return _sealed_entry(netrc.netrc(name).authenticators(host))
    except netrc.NetrcParseError as error:
        line = f"line {error.lineno}" if error.lineno else "its owner or its permissions"
        why = f"{shown}: not as a netrc should be: {line}"
    except UnicodeDecodeError:
        why = f"{shown}: not UTF-8"
    except OSError as error:
        raise unreadable(shown, error) from error
    raise Failure(why, Exit.CONFIG)


def _sealed_entry(entry: Sequence[str | None] | None) -> tuple[str | None, Secret | None]:
    return (entry[0] or None, Secret(entry[2]) if entry[2] else None) if entry else (None, None)


def _first_line(name: str) -> Secret:
    try:
        with open(name, "rb") as file:
            return Secret(file.readline().rstrip(b"\r\n").decode())
    except OSError as error:
        raise unreadable(name, error) from error
    except UnicodeDecodeError:
        pass  # its text and its fields show the password: it must not become the context of ours
    raise Failure(f"{name}: the password is not UTF-8", Exit.CONFIG)


def _asked(user: str, variable: str) -> Secret:
    try:
        with warnings.catch_warnings():
            # Without a terminal getpass would read the message from standard input, and show it.
            warnings.simplefilter("error", getpass.GetPassWarning)
            return Secret(getpass.getpass(f"Password of {user}: "))
    except (getpass.GetPassWarning, EOFError):
        raise Failure(
            f"no password for --user: pass --password-file or set {variable}; there is no terminal to ask on",
            Exit.USAGE,
        ) from None


def client_of(arguments: argparse.Namespace, trace: Trace | None) -> AsyncSMTP:
    """Make the client that the arguments describe; it is not connected.

    Raises:
        Failure: an argument makes no sense.
    """
    options = client_options(arguments, trace)
    with sensible():
        client: type[AsyncSMTP] = AsyncLMTP if arguments.lmtp else AsyncSMTP
        host, port = server_of(arguments)
        timeouts = timeouts_of(arguments)
        return client(host, port, arguments.local_hostname, timeout=timeouts, **options)


def client_options(arguments: argparse.Namespace, trace: Trace | None) -> Options:
    """Return the options of a client that the arguments describe.

    Raises:
        Failure: there is no password, or a file of certificates that cannot be read or loaded.
    """
    reach, (user, password) = reach_of(arguments), login_of(arguments)
    return {
        "tls": arguments.tls,
        "tls_ca": reach["tls_ca"],
        "tls_certificate": reach["tls_certificate"],
        "tls_fingerprint": reach["tls_fingerprint"],
        "proxy": reach["proxy"],
        "server_hostname": arguments.server_hostname,
        "username": user,
        "password": password,
        "token": _first_line(arguments.token_file) if arguments.token_file is not None else None,
        "mechanisms": arguments.mechanisms,
        "pipelining": arguments.pipelining,
        "allow_cleartext_auth": arguments.allow_cleartext_auth,
        "trace": trace,
    }


def server_of(arguments: argparse.Namespace) -> tuple[str, int]:
    """Return host and port; 0 for the one of the protocol.

    Raises:
        ValueError: a port that is none.
    """
    host, port = place(arguments.host)
    return host, arguments.port or port


@contextlib.contextmanager
def sensible() -> Iterator[None]:
    """Turn what the library says about an argument into a `Failure`, before anything is connected to."""
    try:
        yield
    except (ValueError, SMTPException) as error:
        raise Failure(str(error), Exit.USAGE) from error
