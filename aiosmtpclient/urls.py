"""URLs: a server and its options in one line of configuration.

::

    smtp://host                      port 25
    smtps://user:password@host       port 465, TLS from the first octet
    submission://user:password@host  port 587, STARTTLS
    lmtp://host                      port 2003
    lmtp+unix:///run/dovecot/lmtp    a Unix socket

Behind it options may stand, `?tls=required&timeout=10`; `OPTIONS` and `POOL_OPTIONS` say which.
User and password are percent-encoded (RFC 3986 section 2.1).

Rules of this room:

* The whole URL is sealed where it comes in, and what may be secret in it stays so: no text of it
  is in an error or in a local variable of a function that raises. Errors name the option and
  what it takes, never what was there.
* Nothing is guessed: an option that is unknown, written twice or contradicts the scheme is an error.
* With credentials TLS is required unless somebody says otherwise.
* What weakens more than `tls=` does can be said in code only.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from smtplib import LMTP_PORT, SMTP_PORT, SMTP_SSL_PORT
from typing import NamedTuple, TypeAlias
from urllib.parse import unquote_to_bytes

from .secret import Secret

SUBMISSION_PORT = 587

_PORTS = {
    "smtp": SMTP_PORT,
    "smtps": SMTP_SSL_PORT,
    "submission": SUBMISSION_PORT,
    "lmtp": LMTP_PORT,
    "lmtp+unix": 0,
}
_URL = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?:(?P<user>[^/?#]*)@)?"
    r"(?P<place>[^/?#@]*)(?P<path>/[^?#@]*)?(?:\?(?P<query>[^#@]*))?"
)
_PLACE = re.compile(r"(?:\[(?P<literal>[^\[\]]+)\]|(?P<host>[^:\[\]]*))(?::(?P<port>[^:\[\]]*))?")
_FORM = (
    "a URL looks like smtp://user:password@host:port/?option=value; in user, password and values write "
    "anything but letters, digits and -._~ as percent-encoded UTF-8, as %40 for @"
)

Value: TypeAlias = "str | int | float | tuple[str, ...] | tuple[str, int] | Secret | None"


class Target(NamedTuple):
    """What a URL says.

    Attributes:
        scheme: in lower case.
        host: a name, an address without brackets, or the path of a Unix socket.
        port: the one given, or the scheme's.
        tls: "required", "opportunistic", "none", or None if the URL does not say.
        options: what else it says, by the names of the constructor's arguments.
    """

    scheme: str
    host: str
    port: int
    tls: str | None
    options: dict[str, Value]

    @property
    def lmtp(self) -> bool:
        """Speak LMTP."""
        return self.scheme.startswith("lmtp")

    def with_options(self, given: Mapping[str, object]) -> dict[str, object]:
        """All options, those given in code before those of the URL, and the TLS policy that follows.

        Raises:
            ValueError: the URL contradicts itself.
        """
        options: dict[str, object] = {**self.options, **given}
        policy = self._policy(any(options.get(name) for name in ("username", "token", "mechanisms")))
        if options.get("tls") is None and policy is not None:
            options["tls"] = policy
        return options

    def _policy(self, credentials: bool) -> str | None:
        """The name of a `TLSPolicy`, or None to go by port and place."""
        if self.scheme == "smtps":
            if self.tls not in (None, "required"):
                raise ValueError("smtps:// is TLS from the first octet: the URL's tls= can only be required")
            return "implicit"
        wanted = self.tls
        if wanted is None and (self.scheme == "submission" or (credentials and self.scheme != "lmtp+unix")):
            wanted = "required"
        if wanted == "required":
            return "implicit" if self.port == SMTP_SSL_PORT and not self.lmtp else "starttls"
        return wanted


def sealed(url: str | Secret) -> Secret:
    """The URL in a wrapper that nothing shows."""
    return url if isinstance(url, Secret) else Secret(url)


def read(url: Secret, *, pool: bool = False) -> Target:
    """Understand a URL.

    Args:
        url: sealed.
        pool: a pool's options may stand in it.

    Raises:
        ValueError: it is none of ours. Nothing of the URL is in the text but names of options.
    """
    parts = _parts(url)
    if parts is None or parts.scheme not in _PORTS:
        schemes = ", ".join(f"{scheme}://" for scheme in _PORTS)
        raise ValueError(f"not a URL of a mail server, which begins with one of {schemes}; {_FORM}")
    host, port = _unix_path(parts) if parts.scheme == "lmtp+unix" else _host_and_port(parts)
    options: dict[str, Value] = {}
    if parts.user is not None:
        options["username"] = _text(parts.user, "the user").reveal()
    if parts.password:
        options["password"] = _text(parts.password, "the password")
    options |= _options(parts.query, pool)
    tls = options.pop("tls", None)
    return Target(parts.scheme, host, port or _PORTS[parts.scheme], str(tls) if tls else None, options)


class _Parts(NamedTuple):
    scheme: str
    user: Secret | None
    password: Secret | None
    place: Secret
    path: Secret
    query: Secret


def _parts(url: Secret) -> _Parts | None:
    """The parts of a URL, still encoded; None if it is none. It raises nothing, so nobody sees its locals."""
    if not isinstance(url.reveal(), str) or re.search(r"[\0-\x20\x7f]", url.reveal()):
        return None
    match = _URL.fullmatch(url.reveal())
    if match is None:
        return None
    user, _, password = (match["user"] or "").partition(":")
    return _Parts(
        match["scheme"].lower(),
        Secret(user) if match["user"] is not None else None,
        Secret(password) if password else None,
        Secret(match["place"]),
        Secret(match["path"] or ""),
        Secret(match["query"] or ""),
    )


def _decoded(text: Secret) -> Secret | None:
    """Percent-decoded; None if an escape is broken, or the octets are not UTF-8. Raises nothing."""
    if re.search(r"%(?![0-9A-Fa-f]{2})", text.reveal()):
        return None
    try:
        return Secret(unquote_to_bytes(text.reveal()).decode())
    except UnicodeError:
        return None


def _text(part: Secret, what: str) -> Secret:
    decoded = _decoded(part)
    if decoded is None:
        raise ValueError(f"{what} in the URL is not percent-encoded UTF-8: write a % as %25")
    return decoded


# -- the server --------------------------------------------------------------------------------


def _unix_path(parts: _Parts) -> tuple[str, int]:
    if parts.place:
        raise ValueError("lmtp+unix:// takes no host: three slashes stand before the path of the socket")
    path = _text(parts.path, "the path").reveal()
    if len(path) < 2 or "\0" in path:
        raise ValueError("lmtp+unix:// needs the path of a socket, as in lmtp+unix:///run/dovecot/lmtp")
    return path, 0


def _host_and_port(parts: _Parts) -> tuple[str, int]:
    if parts.path.reveal() not in ("", "/"):
        raise ValueError(f"nothing may stand behind host and port but options; {_FORM}")
    host, port = _place(parts.place)
    if host is None:
        raise ValueError(f"the URL names no host that could be one (an IPv6 address needs brackets); {_FORM}")
    if port is None:
        raise ValueError(f"the port in the URL must be a number from 1 to 65535; {_FORM}")
    return host, port


def _place(place: Secret) -> tuple[str | None, int | None]:
    """Host and port, 0 for none; None for what makes no sense, which may be secret: raises nothing."""
    match = _PLACE.fullmatch(place.reveal())
    if match is None:
        return None, 0
    port = _port(match["port"] or "")
    decoded = _decoded(Secret(match["literal"] or match["host"]))
    host = decoded.reveal() if decoded is not None else ""
    if match["literal"] is not None:
        return (host if _is_ipv6(host) else None), port
    fits = host and host.isprintable() and re.search(r"[\s/\\@:?#\[\]%<>\"]", host) is None
    return (host if fits else None), port


def _port(digits: str) -> int | None:
    if not re.fullmatch(r"[0-9]{0,5}", digits) or (digits and not 1 <= int(digits) <= 65535):
        return None
    return int(digits or 0)


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


# -- a proxy -----------------------------------------------------------------------------------

PROXIES = ("socks5", "socks5h", "socks4", "http")


class ProxyTarget(NamedTuple):
    """What the URL of a proxy says."""

    scheme: str
    host: str
    port: int
    user: Secret | None
    password: Secret | None


def read_proxy(url: Secret) -> ProxyTarget:
    """Understand the URL of a proxy; `socks5h` is another word for `socks5`.

    Raises:
        ValueError: it is none of ours. Nothing of the URL is in the text.
    """
    parts = _parts(url)
    if parts is None or parts.scheme not in PROXIES or parts.path.reveal() not in ("", "/") or parts.query:
        schemes = ", ".join(f"{scheme}://" for scheme in PROXIES)
        raise ValueError(
            f"the URL of a proxy looks like socks5://user:password@host:port; known are {schemes}"
        )
    host, port = _place(parts.place)
    if host is None or not port:
        raise ValueError("the URL of a proxy needs a host and a port, as socks5://user:password@host:port")
    return ProxyTarget(
        parts.scheme.removesuffix("h"),
        host,
        port,
        _text(parts.user, "the user of the proxy") if parts.user is not None else None,
        _text(parts.password, "the password of the proxy") if parts.password is not None else None,
    )


# -- the options -------------------------------------------------------------------------------


class _Unfit:
    """What a reader returns for what it cannot read."""


UNFIT = _Unfit()
Reader: TypeAlias = "Callable[[str], Value | _Unfit]"


def _one_of(*names: str) -> tuple[Reader, str]:
    return lambda text: text if text in names else UNFIT, "one of " + ", ".join(names)


def _number(text: str) -> float | _Unfit:
    return float(text) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text) else UNFIT


def _number_or_none(text: str) -> float | _Unfit | None:
    return None if text == "none" else _number(text)


def _whole(text: str) -> int | _Unfit:
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else UNFIT


def _whole_or_none(text: str) -> int | _Unfit | None:
    return None if text == "none" else _whole(text)


def _words(text: str) -> tuple[str, ...] | _Unfit:
    return tuple(text.split(",")) if all(text.split(",")) else UNFIT


def _local_address(text: str) -> tuple[str, int] | _Unfit:
    match = _PLACE.fullmatch(text)
    port = _port(match["port"] or "") if match is not None else None
    if match is None or port is None:
        return UNFIT
    return match["literal"] or match["host"], port


def _anything(text: str) -> str | _Unfit:
    return text or UNFIT


def _one_or_two(text: str) -> str | tuple[str, ...] | _Unfit:
    words = text.split(",")
    return UNFIT if not all(words) or len(words) > 2 else (text if len(words) == 1 else tuple(words))


def _sealed(text: str) -> Secret | _Unfit:
    return Secret(text) if text else UNFIT


_TEXT = (_anything, "some text")
_SECONDS = (_number_or_none, "a number of seconds, or none for any time")
_COUNT_OR_NONE = (_whole_or_none, "a whole number, or none for any")

OPTIONS: Mapping[str, tuple[Reader, str]] = {
    "tls": _one_of("required", "opportunistic", "none"),
    "timeout": _SECONDS,
    "pipelining": _one_of("off", "message", "stream"),
    "chunking": _one_of("off", "auto", "eager"),
    "local_hostname": _TEXT,
    "source_address": (_local_address, "an address, or address:port"),
    "server_hostname": _TEXT,
    "tls_ca": (_anything, "the path of a file or a directory"),
    "tls_certificate": (_one_or_two, "the path of a file, or two with a comma between them"),
    "tls_fingerprint": (_words, "fingerprints with commas between them"),
    "proxy": (_sealed, "the URL of a proxy, percent-encoded once more"),
    "mechanisms": (_words, "names with commas between them"),
}
"""Each option that may stand in any URL: what reads it, and what it takes."""

POOL_OPTIONS: Mapping[str, tuple[Reader, str]] = {
    "max_connections": (_whole, "a whole number"),
    "max_messages": _COUNT_OR_NONE,
    "max_age": _SECONDS,
    "max_idle": _SECONDS,
    "check_after": _SECONDS,
    "max_waiting": _COUNT_OR_NONE,
    "acquire_timeout": _SECONDS,
    "rate_limit": (_number, "a number of messages a second"),
    "retries": (_whole, "a whole number"),
}
"""Those that may stand in the URL of a pool."""


def _options(query: Secret, pool: bool) -> dict[str, Value]:
    known = {**OPTIONS, **POOL_OPTIONS} if pool else OPTIONS
    options: dict[str, Value] = {}
    for key, text in _pairs(query):
        if key not in known:
            raise ValueError(_unknown(key, known))
        if key in options:
            raise ValueError(f"the option {key}= stands twice in the URL")
        reader, takes = known[key]
        value: Value | _Unfit = UNFIT if text is None else reader(text.reveal())
        if isinstance(value, _Unfit):
            raise ValueError(f"the option {key}= of the URL takes {takes}")
        options[key] = value
    return options


def _pairs(query: Secret) -> Iterator[tuple[str, Secret | None]]:
    """Names and values; None for a value that is missing or broken.

    A name that looks like none is left out: perhaps it got there by mistake, out of a password.
    """
    for pair in filter(None, query.reveal().split("&")):
        key, equals, text = pair.partition("=")
        name = key if re.fullmatch(r"[A-Za-z][A-Za-z_]{0,30}", key) else ""
        yield name, _decoded(Secret(text)) if equals else None


def _unknown(key: str, known: Mapping[str, object]) -> str:
    if key in POOL_OPTIONS:
        return f"the option {key}= is a pool's: use SMTPPool.from_url, or leave it out of the URL"
    named = f" {key}=" if key else ""
    return f"the URL has an unknown option{named}; known are {', '.join(known)}"
