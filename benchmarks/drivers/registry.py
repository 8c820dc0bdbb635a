"""Which driver drives which client. Each is imported only when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import cast

from .job import Client, Job, NotAvailable

_MODULES = {
    "aiosmtpclient": "ours",
    "aiosmtplib": "peer_aiosmtplib",
    "smtplib": "peer_smtplib",
    "limit": "limit",
}


def factory(job: Job) -> Callable[[], Client]:
    """What makes clients for this job.

    Raises:
        NotAvailable: the client is not installed.
    """
    name = _MODULES[job.client]
    try:
        module = importlib.import_module(f".{name}", __package__)
    except ModuleNotFoundError as error:
        raise NotAvailable(f"{error.name} is not installed") from error
    make = cast("Callable[[Job], Client]", module.make)
    return lambda: make(job)
