"""A fake OAuth 2.0 token endpoint on loopback, in a thread: the first token it gives is no good any more.

It speaks what the libraries of docs/oauth.md ask: a token endpoint for every grant, and the
metadata that msal looks up first.
"""

from __future__ import annotations

import functools
import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

import trustme


@functools.cache
def _key() -> str:
    return trustme.CA(key_type=trustme.KeyType.RSA).private_key_pem.bytes().decode()


class TokenEndpoint:
    """`https://localhost:…`; `given` holds the tokens it gave since the files were written last."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.given: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://localhost:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                endpoint.given.append("fresh" if endpoint.given else "stale")
                self._say({"access_token": endpoint.given[-1], "expires_in": 3600, "token_type": "Bearer"})

            def do_GET(self) -> None:
                base = f"{endpoint.url}/tenant"
                self._say(
                    {
                        "token_endpoint": f"{endpoint.url}/token",
                        "authorization_endpoint": f"{endpoint.url}/authorize",
                        "issuer": f"{base}/v2.0",
                    }
                )

            def _say(self, what: object) -> None:
                body = json.dumps(what).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing: what is asked holds secrets."""

        return Handler

    def write_files(self, folder: Path) -> None:
        """Write what the recipes of google-auth read, and begin anew."""
        self.given.clear()
        user = {"client_id": "id", "client_secret": "secret", "refresh_token": "r", "type": "authorized_user"}
        (folder / "authorized-user.json").write_text(json.dumps(user))
        service = {"client_email": "app@example.org", "token_uri": f"{self.url}/token", "private_key": _key()}
        (folder / "service-account.json").write_text(json.dumps({**service, "type": "service_account"}))

    def in_place(self, code: str) -> str:
        """An example that asks this endpoint, where it would ask a real one."""
        code = code.replace(
            'authority="https://login.microsoftonline.com/your-tenant"',
            f'authority="{self.url}/tenant", instance_discovery=False',
        )
        code = code.replace("https://login.example.org/token", f"{self.url}/token")
        if "google.oauth2.credentials" in code:  # which knows one endpoint, whatever the file says
            code = (
                "import google.oauth2.credentials as _g\n"
                f'_g._GOOGLE_OAUTH2_TOKEN_ENDPOINT = "{self.url}/token"\n' + code
            )
        return code

    def is_asked_by(self, code: str) -> bool:
        """True for an example that gets its tokens somewhere."""
        return "google.oauth2" in code or "import msal" in code or "OAuth2Session" in code

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
