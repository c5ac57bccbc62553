"""The one telemetry endpoint of a process, shared by its flows."""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
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
        self._held_up: dict[str, str] = {}
        self._left_out: dict[str, Callable[[], str]] = {}
        self._cut_off: dict[str, Callable[[], str]] = {}
        self._status: dict[str, Callable[[], Mapping[str, Any]]] = {}

    @contextmanager
    def shown(
        self,
        flow: str,
        *,
        left_out: Callable[[], str] = lambda: "",
        cut_off: Callable[[], str],
        status: Callable[[], Mapping[str, Any]],
    ) -> Iterator[None]:
        """While the flow runs. `left_out` returns why its group has not taken it in yet, `cut_off` why it can't reach
        Kafka and can do nothing without; both an empty text otherwise. A process is unready for the latter only if it
        concerns all its flows, or a spool would get no notifications. `status` returns its part of the status page.
        """
        self._starting.discard(flow)
        self._left_out[flow], self._cut_off[flow], self._status[flow] = left_out, cut_off, status
        try:
            yield
        finally:
            del self._left_out[flow], self._cut_off[flow], self._status[flow]
            self._starting.add(flow)

    def held_up(self, flow: str, why: str) -> None:
        """Why the flow has not started yet; an empty text once that is over."""
        self._held_up[flow] = f": {why}" if why else ""

    def unready(self) -> list[str]:
        starting = [f"the {flow} is starting{self._held_up.get(flow, '')}" for flow in sorted(self._starting)]
        left_out = [why for flow in self._left_out.values() if (why := flow())]
        cut_off = [flow() for flow in self._cut_off.values()]
        return starting + left_out + (cut_off if all(cut_off) else [])

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
