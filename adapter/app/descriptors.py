"""File descriptors: each connection takes one, and a process is often limited to 1,024."""

import resource
from contextlib import suppress
from typing import Final

from adapter.telemetry import Log

_RESERVE: Final = 256
"""Descriptors kept free of callers: for brokers, the registry, requests for metrics and health, and files. At most half
of the limit.
"""


def raise_limit() -> None:
    """Raise the soft limit of open files of this process to its hard limit."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # a kernel with a bound of its own, below what it says
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def connections(asked: int, log: Log) -> int:
    """How many callers may be connected at once."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return asked
    allowed = limit - min(_RESERVE, limit // 2)
    if asked <= allowed:
        return asked
    log.warning("fewer connections than set", limit=asked, allowed=allowed, descriptors=limit)
    return allowed
