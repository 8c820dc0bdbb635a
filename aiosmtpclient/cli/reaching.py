"""Reaching a server: whose certificate is taken, which one is shown, and by which proxy, as options.

Rules of this room:

* The password of a proxy never stands among the arguments: with one, its URL comes from the
  environment. No message of ours repeats a URL.
* Files that cannot be read or loaded are found before anything is connected to.
"""

from __future__ import annotations

import argparse
import os
import ssl
from typing import TypedDict

from aiosmtpclient.dialling import Dialer
from aiosmtpclient.errors import SMTPTLSError
from aiosmtpclient.proxies import Proxy
from aiosmtpclient.secret import Secret
from aiosmtpclient.tls import StrPath
from aiosmtpclient.trust import CertificateFiles, Trust, trust_of

from .exits import Exit, Failure


class Reach(TypedDict):
    """What the library calls these options."""

    tls_ca: str | None
    tls_certificate: CertificateFiles | None
    tls_fingerprint: list[str] | None
    proxy: Secret | None


def add_reaching_options(group: argparse._ArgumentGroup) -> None:
    """Add certificates and proxy."""
    group.add_argument(
        "--ca-file", metavar="FILE", help="trust these CAs (PEM) instead of the system's; may be a directory"
    )
    group.add_argument(
        "--certificate", metavar="FILE", help="our own certificate (PEM), for servers that ask for one"
    )
    group.add_argument("--key", metavar="FILE", help="the key to it (PEM), if it is not in the same file")
    group.add_argument(
        "--fingerprint",
        metavar="SHA256",
        action="append",
        dest="fingerprints",
        help="the certificate that the server must have, as `check` shows it; may be given several times",
    )
    group.add_argument(
        "--proxy", metavar="URL", help="connect by way of socks5://host:port, socks4:// or http:// (CONNECT)"
    )
    group.add_argument(
        "--proxy-env",
        metavar="VARIABLE",
        help="the same, its URL in this environment variable: for one with a password",
    )


def reach_of(arguments: argparse.Namespace) -> Reach:
    """Return what was said about certificates and proxy, once it is known to make sense.

    Raises:
        Failure: it does not, or a file cannot be read or loaded.
    """
    reach: Reach = {
        "tls_ca": arguments.ca_file,
        "tls_certificate": _certificate(arguments),
        "tls_fingerprint": arguments.fingerprints,
        "proxy": _proxy(arguments),
    }
    trust_in(reach)
    dialer_in(reach)
    return reach


def trust_in(reach: Reach) -> Trust | None:
    """Return what follows for certificates.

    Raises:
        Failure: a fingerprint is none, or a file cannot be loaded.
    """
    try:
        return trust_of(None, reach["tls_ca"], reach["tls_certificate"], reach["tls_fingerprint"])
    except SMTPTLSError as error:
        cause = error.__cause__
        unread = isinstance(cause, OSError) and not isinstance(cause, ssl.SSLError)
        raise Failure(str(error), Exit.NOINPUT if unread else Exit.CONFIG) from error
    except ValueError as error:
        raise Failure(str(error), Exit.USAGE) from error


def dialer_in(reach: Reach) -> Dialer | None:
    """Return who makes the connections, if that is a proxy.

    Raises:
        Failure: the URL is none.
    """
    try:
        return Proxy(reach["proxy"]) if reach["proxy"] is not None else None
    except ValueError as error:
        raise Failure(str(error), Exit.USAGE) from None


def _certificate(arguments: argparse.Namespace) -> CertificateFiles | None:
    certificate: StrPath | None = arguments.certificate
    key: StrPath | None = arguments.key
    if key is None:
        return certificate
    if certificate is None:
        raise Failure("--key needs --certificate", Exit.USAGE)
    return certificate, key


def _proxy(arguments: argparse.Namespace) -> Secret | None:
    variable: str | None = arguments.proxy_env
    url = Secret(arguments.proxy or "")
    if variable is not None:
        if arguments.proxy is not None:
            raise Failure("--proxy and --proxy-env: only one of them", Exit.USAGE)
        if variable not in os.environ:
            raise Failure(f"--proxy-env: there is no environment variable {variable}", Exit.USAGE)
        return Secret(os.environ[variable])
    if "@" in url.reveal():
        raise Failure(
            "a password among the arguments can be read by everybody on this machine: put the proxy's "
            "URL into an environment variable, and name that with --proxy-env",
            Exit.USAGE,
        )
    return url if arguments.proxy is not None else None
