"""One call to the supplier by hand, by the code and settings of a worker but without Kafka: nothing is journaled
before, and nothing is published after.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from adapter.app.start import base_url
from adapter.app.translate import Published, Translator
from adapter.catalogue import CompiledOperation
from adapter.core.command import Wait
from adapter.core.errors import Refused
from adapter.core.operation import Problem
from adapter.ports import Calls, NotSent, Reply, Unclear
from adapter.settings import Calling
from adapter.transport.https import HttpsCalls


@dataclass(slots=True)
class Exchange:
    """What was sent, and what came back."""

    path: str
    """Behind the supplier's base URL."""
    headers: Mapping[str, str]
    body: bytes
    seconds: float = 0.0
    reply: Reply | None = None
    """Without its body if that broke off; None if nothing came."""
    failure: NotSent | Unclear | None = None
    """Why no reply came, or no whole one."""


@dataclass(frozen=True, slots=True)
class Called:
    url: str
    exchange: Exchange
    outcome: Published | Wait
    """What a worker would do then: publish, or wait and call again."""


async def call(
    settings: Calling, translator: Translator, entry: CompiledOperation, record: Mapping[str, Any]
) -> Called:
    """Send the command to the supplier, once.

    Raises Refused or Undecodable if the command breaks a rule or its deadline has passed, Stop if the settings can't
    work: then nothing was sent.
    """
    not_after: datetime | None = record["notAfter"]
    if not_after is not None and datetime.now(UTC) >= not_after:
        raise Refused(Problem("notAfter", "has passed; a worker sends nothing after it"))
    url = base_url(settings, translator.known)
    calls = HttpsCalls(url, settings.supplier)
    try:
        observed = _Observed(calls)
        outcome = await translator.outcome(entry, record, observed)
    finally:
        await calls.close()
    assert observed.exchange is not None, "there is no outcome without a call"
    return Called(url.rstrip("/") + observed.exchange.path, observed.exchange, outcome)


class _Observed:
    """`ports.Calls` that remember the last call."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self.exchange: Exchange | None = None

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        exchange = self.exchange = Exchange(path, headers, body)
        began = time.monotonic()
        try:
            exchange.reply = await self._calls.post(path, body, headers)
        except NotSent as failure:
            exchange.failure = failure
            raise
        except Unclear as failure:
            exchange.failure, exchange.reply = failure, failure.head
            raise
        finally:
            exchange.seconds = time.monotonic() - began
        return exchange.reply
