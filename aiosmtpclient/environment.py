"""The environment: a URL from one variable, and its password from a file that another one names.

============================  ==================================================================
variable                      what it holds
============================  ==================================================================
`SMTP_URL`                    the URL
`SMTP_PASSWORD_FILE`          the path of a file with the password, where the URL has a user and none
`SMTP_PASSWORD`               that password itself
============================  ==================================================================

Rules of this room:

* The names of the other two follow that of the first (`NEWS_URL`, `NEWS_PASSWORD_FILE`): the
  password for one server never goes to another.
* A password in the URL, or given in code, comes first; the other variables are then not looked at.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from . import urls
from .secret import Secret


def url_of(name: str) -> Secret:
    """The URL in this variable, sealed.

    Raises:
        ValueError: there is none.
    """
    if not os.environ.get(name):
        raise ValueError(f"the environment variable {name} is not set, or empty")
    return Secret(os.environ[name])


def password_for(name: str, url: Secret, given: Mapping[str, object], *, pool: bool) -> Secret | None:
    """The password that goes with this variable's URL, if one is missing and can be found.

    Args:
        name: the variable that the URL comes from.
        url: that URL.
        given: options that are given in code.
        pool: a pool's options may stand in the URL.

    Raises:
        ValueError: the URL is none; both variables are set; the file cannot be read.
    """
    known = urls.read(url, pool=pool).options
    if not {**known, **given}.get("username"):
        return None
    if known.get("password") is not None or any(given.get(one) is not None for one in ("password", "token")):
        return None
    prefix = name.removesuffix("_URL")
    directly, by_file = f"{prefix}_PASSWORD", f"{prefix}_PASSWORD_FILE"
    if os.environ.get(by_file):
        if os.environ.get(directly):
            raise ValueError(f"both {directly} and {by_file} are set: set one of them")
        return _read(by_file)
    return Secret(os.environ[directly]) if os.environ.get(directly) else None


def _read(variable: str) -> Secret:
    """The text of a file without its last line end."""
    path, why = Path(os.environ[variable]), ""
    try:
        return _without_line_end(path.read_bytes())
    except OSError as error:
        why = error.strerror or type(error).__name__
    except UnicodeError:
        why = "not UTF-8"
    # Out here, so that no error is its context which holds the octets.
    raise ValueError(f"the password file {str(path)!r} that {variable} names cannot be read: {why}")


def _without_line_end(octets: bytes) -> Secret:
    return Secret(octets.decode().removesuffix("\n").removesuffix("\r"))
