"""Proxies: a connection to the server by way of somebody else's, SOCKS or HTTP CONNECT.

A `Proxy` is a dialer: it is called with host and port and gives a connected socket. SOCKS is
spoken by python-socks. CONNECT is spoken here: in SMTP it is the server that speaks first, its
greeting may arrive right behind the proxy's answer, and not an octet of it may be read with that.

Rules of this room:

* The proxy finds the server's address; no name is looked up here but the proxy's own.
* Nobody sees the password of a proxy: what somebody else's code had in its frames when it failed
  does not come along with the error.
* A socket that does not lead to the server is closed here.
"""

from __future__ import annotations

import asyncio
import base64
import re
import socket
from importlib.util import find_spec

from . import urls
from .errors import SMTPConnectError
from .secret import Secret, redacted

_HEAD = 16384
"""Octets that the head of a proxy's answer may have."""
_LONG = 86400.0
"""Longer than anybody waits: the connection's own deadline is the one that counts."""


class Proxy:
    """Dials by way of a proxy.

    Args:
        url: `socks5://`, `socks4://` or `http://`, perhaps with user and password, and a port.

    Raises:
        ValueError: it is none of these, or the library for it is not installed.
    """

    def __init__(self, url: Secret) -> None:
        target = urls.read_proxy(url)
        self._scheme, self._host, self._port = target.scheme, target.host, target.port
        self._user, self._password = target.user or Secret(""), target.password or Secret("")
        if self._scheme == "http":
            if ":" in self._user.reveal():
                raise ValueError(
                    "the user of an http:// proxy can have no colon in its name (RFC 7617 section 2)"
                )
        elif find_spec("python_socks") is None:
            raise ValueError('a SOCKS proxy needs python-socks: pip install "aiosmtpclient[proxy]"')
        elif not all(
            text.reveal().isascii() and len(text.reveal()) < 256 for text in (self._user, self._password)
        ):
            raise ValueError("user and password of a SOCKS proxy are up to 255 ASCII characters each")

    def __repr__(self) -> str:
        if "_port" not in self.__dict__:  # the constructor failed, and somebody shows its locals
            return "<Proxy>"
        return f"<Proxy {self._scheme}://{self._host}:{self._port}>"

    async def __call__(self, host: str, port: int, timeout: float | None = None) -> socket.socket:
        """Connect to a server.

        Args:
            host: its name, in ASCII, or its address.
            port: its port.
            timeout: does not matter: whoever calls this stops waiting by himself.

        Raises:
            SMTPConnectError: the proxy cannot be reached, or does not connect.
        """
        try:
            return await (self._http(host, port) if self._scheme == "http" else self._socks(host, port))
        except asyncio.CancelledError as cancelled:
            raise cancelled.with_traceback(None) from None
        except Exception as error:
            why = str(error) or type(error).__name__
        # Out here, so that the error has nothing of where it came from.
        why = redacted(why, [self._password, Secret(self._basic().reveal())])
        text = f"the proxy {self._scheme}://{self._host}:{self._port} made no connection: {why}"
        failure = SMTPConnectError(-1, text.encode("utf-8", "backslashreplace"))
        failure.host = f"{host}:{port}"
        raise failure

    async def _socks(self, host: str, port: int) -> socket.socket:
        from python_socks import ProxyType
        from python_socks.async_.asyncio import Proxy as SocksProxy

        return await SocksProxy(
            ProxyType.SOCKS4 if self._scheme == "socks4" else ProxyType.SOCKS5,
            self._host,
            self._port,
            self._user.reveal() or None,
            self._password.reveal() or None,
            rdns=True,
        ).connect(host, port, timeout=_LONG)

    # -- CONNECT (RFC 9110 section 9.3.6) ------------------------------------------------------

    async def _http(self, host: str, port: int) -> socket.socket:
        loop = asyncio.get_running_loop()
        sock = await _connected(loop, self._host, self._port)
        try:
            await loop.sock_sendall(sock, self._request(host, port).reveal().encode())
            status = await _status(loop, sock)
            if not re.match(rb"HTTP/1\.[01] 2[0-9][0-9]\b", status):
                raise ConnectionError(f"it said {status.decode('ascii', 'backslashreplace')!r}")
        except BaseException:
            sock.close()
            raise
        return sock

    def _request(self, host: str, port: int) -> Secret:
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        login = f"Proxy-Authorization: Basic {self._basic().reveal()}\r\n" if self._user else ""
        return Secret(f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n{login}\r\n")

    def _basic(self) -> Secret:
        """User and password as RFC 7617 wants them."""
        return Secret(base64.b64encode(f"{self._user.reveal()}:{self._password.reveal()}".encode()).decode())


async def _connected(loop: asyncio.AbstractEventLoop, host: str, port: int) -> socket.socket:
    """A socket to the first of a host's addresses that takes it."""
    failure: OSError | None = None
    for family, kind, protocol, _, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            await loop.sock_connect(sock, address)
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failure or OSError(f"{host} has no address")


async def _status(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> bytes:
    """Read the head of an answer, and not an octet more; returns its first line."""
    head = bytearray()
    while not head.endswith(b"\r\n\r\n"):
        octet = await loop.sock_recv(sock, 1)
        head += octet
        if not octet:
            raise ConnectionError("it closed the connection")
        if len(head) > _HEAD:
            raise ConnectionError("its answer does not end")
    return bytes(head.partition(b"\r\n")[0])
