"""File descriptors: each connection is one, and a process often may have no more than 1,024."""

import resource
from contextlib import suppress
from typing import Final

from adapter.telemetry import Log

_RESERVE: Final = 256
"""For everything but callers: brokers, the registry, who asks for metrics and health, files. Half of what there is at
the most."""


def raise_limit() -> None:
    """May this process have as many as its parent may allow it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # a kernel with a bound of its own, below what it says
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def connections(asked: int, log: Log) -> int:
    """How many callers can be connected at once."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return asked
    allowed = limit - min(_RESERVE, limit // 2)
    if asked <= allowed:
        return asked
    log.warning("fewer connections than set", limit=asked, allowed=allowed, descriptors=limit)
    return allowed
