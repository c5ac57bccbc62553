"""The one telemetry endpoint of a process, shared by its flows."""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from adapter.settings import Telemetry
from adapter.telemetry import Log, Metrics
from adapter.transport import web


class Page:
    """Combines readiness and status of the flows. The process is not ready before each of `flows` is `shown`."""

    def __init__(self, flows: Iterable[str]) -> None:
        self.url = ""
        self._starting = set(flows)
        self._unready: dict[str, Callable[[], Sequence[str]]] = {}
        self._cut_off: dict[str, Callable[[], Sequence[str]]] = {}
        self._status: dict[str, Callable[[], Mapping[str, Any]]] = {}

    @contextmanager
    def shown(
        self,
        flow: str,
        *,
        unready: Callable[[], Sequence[str]],
        cut_off: Callable[[], Sequence[str]],
        status: Callable[[], Mapping[str, Any]],
    ) -> Iterator[None]:
        """While the flow runs. `unready` returns the reasons why it can't work at the moment, `status` its part of the
        status page. `cut_off` returns why it can't work without Kafka: a process is unready for that only if none of
        its flows can, or a spool would get no notifications.
        """
        self._starting.discard(flow)
        self._unready[flow], self._cut_off[flow], self._status[flow] = unready, cut_off, status
        try:
            yield
        finally:
            del self._unready[flow], self._cut_off[flow], self._status[flow]
            self._starting.add(flow)

    def unready(self) -> list[str]:
        starting = [f"the {flow} is starting" for flow in sorted(self._starting)]
        cut_off = [flow() for flow in self._cut_off.values()]
        reasons = [flow() for flow in self._unready.values()] + (cut_off if all(cut_off) else [])
        return starting + [why for found in reasons for why in found]

    def status(self) -> dict[str, Any]:
        return {name: value for flow in self._status.values() for name, value in flow().items()}


@asynccontextmanager
async def open_page(settings: Telemetry, metrics: Metrics, log: Log, flows: Iterable[str]) -> AsyncIterator[Page]:
    """Serve the page of these flows while the context lasts. Raises Stop if its port is not free."""
    page = Page(flows)
    async with web.served(
        settings.host, settings.port, metrics=metrics, log=log, unready=page.unready, status=page.status
    ) as url:
        page.url = url
        yield page
