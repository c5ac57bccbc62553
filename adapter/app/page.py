"""The one telemetry endpoint of a process, on which each of its flows shows itself."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from adapter.settings import Telemetry
from adapter.telemetry import Log, Metrics
from adapter.transport import web


class Page:
    """`show` adds a flow: why it is not ready, and what a person wants to know of it."""

    def __init__(self) -> None:
        self.url = ""
        self._unready: list[Callable[[], Sequence[str]]] = []
        self._status: list[Callable[[], Mapping[str, Any]]] = []

    def show(self, *, unready: Callable[[], Sequence[str]], status: Callable[[], Mapping[str, Any]]) -> None:
        self._unready.append(unready)
        self._status.append(status)

    def unready(self) -> list[str]:
        return [why for flow in self._unready for why in flow()]

    def status(self) -> dict[str, Any]:
        return {name: value for flow in self._status for name, value in flow().items()}


@asynccontextmanager
async def open_page(settings: Telemetry, metrics: Metrics, log: Log) -> AsyncIterator[Page]:
    """Serve a page while the context lasts. Raises Stop if its port can't be had."""
    page = Page()
    endpoint = await web.serve(
        settings.host, settings.port, metrics=metrics, log=log, unready=page.unready, status=page.status
    )
    try:
        page.url = endpoint.url
        yield page
    finally:
        await endpoint.close()
