"""Which driver drives which client. Each is imported only when it is asked for.

A client that has no pool of its own gets one connection after another from here, each of them a
client of its own: see `several`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import cast

from .job import Client, Job, NotAvailable
from .several import Several

_MODULES = {
    "aiosmtpclient": "ours",
    "aiosmtplib": "peer_aiosmtplib",
    "smtplib": "peer_smtplib",
    "limit": "limit",
}


def factory(job: Job) -> Callable[[Job], Client]:
    """What makes clients for such jobs.

    Raises:
        NotAvailable: the client is not installed.
    """
    pooled = job.way.endswith("-pool")
    name = "our_pool" if pooled else _MODULES[job.client]
    try:
        module = importlib.import_module(f".{name}", __package__)
    except ModuleNotFoundError as error:
        raise NotAvailable(f"{error.name} is not installed") from error
    make = cast("Callable[[Job], Client]", module.make)
    if pooled or job.connections == 1:
        return make
    return lambda each: Several(each, make)
