"""What the flows of a process share, and the life of those that are members of a consumer group."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta

from adapter.app.credentials import Credentials
from adapter.app.page import Page
from adapter.app.stop import Member, run_until
from adapter.telemetry import Log, Metrics


@dataclass(frozen=True, slots=True)
class Process:
    """What its flows are given."""

    stop: asyncio.Event
    """Set when they have to end."""
    metrics: Metrics
    page: Page
    credentials: Credentials

    async def run(self, opening: Callable[[], AbstractAsyncContextManager[Member]], limit: timedelta, log: Log) -> None:
        """Run a member until `stop` is set, and another one after each renewal of Kafka's credentials. Each leaves its
        group within `limit`. Raises what makes it impossible to go on.
        """
        while not self.stop.is_set():
            with self._end() as end:
                await run_until(end, opening(), limit, log)

    @contextmanager
    def _end(self) -> Iterator[asyncio.Event]:
        """An event that is set by the next renewal, and by `stop`."""
        end = asyncio.Event()
        reasons = asyncio.ensure_future(self.stop.wait()), asyncio.ensure_future(self.credentials.renewal())
        for reason in reasons:
            reason.add_done_callback(lambda _: end.set())
        try:
            yield end
        finally:
            for reason in reasons:
                reason.cancel()
