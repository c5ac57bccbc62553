"""A projector on this loop, before a real broker."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from adapter import app
from adapter.projector.flow import Projector
from adapter.settings import Projecting, load
from adapter.telemetry import Metrics, start_logging
from tests.projector.scribe import Event, Scribe
from tests.support.measured import measured
from tests.support.rig import Rig, open_rig
from tests.support.wait import PATIENCE, eventually


@dataclass(slots=True)
class Stage:
    """Topics, a registry and a scribe; projectors are started on it."""

    rig: Rig
    scribe: Scribe

    @property
    def group(self) -> str:
        return f"{self.rig.topics.prefix}-projectors"

    def projector(self, **more: str) -> AbstractAsyncContextManager["Running"]:
        return projecting(self.rig, **more)

    async def write(self, *events: Event) -> None:
        await asyncio.to_thread(self.scribe.write, events)

    async def folded(self, *, within: float = PATIENCE) -> dict[str, dict[str, Any]]:
        """The tickets, once the projectors have committed all events there are."""

        async def done() -> bool:
            committed, written = await asyncio.to_thread(self.scribe.progress, self.group)
            return committed == written

        await eventually(done, within=within, what="all events folded")
        return await asyncio.to_thread(self.scribe.tickets)

    async def more(self, events: int) -> None:
        """Returns when the projectors have committed so many more."""
        before, _ = await asyncio.to_thread(self.scribe.progress, self.group)

        async def done() -> bool:
            committed, _ = await asyncio.to_thread(self.scribe.progress, self.group)
            return committed >= before + events

        await eventually(done, what="more events folded")


@dataclass(slots=True)
class Running:
    flow: Projector
    metrics: Metrics
    lines: io.StringIO
    running: "asyncio.Task[None]"

    def metric(self, name: str, **labels: str) -> float:
        """As `measured` has it."""
        return measured(self.metrics, name, **labels)

    def tickets(self) -> int:
        return sum(partition.tickets for partition in self.flow.partitions.values())

    def logged(self, event: str) -> list[dict[str, Any]]:
        lines: Iterable[dict[str, Any]] = map(json.loads, self.lines.getvalue().splitlines())
        return [line for line in lines if line["event"] == event]


@asynccontextmanager
async def projecting(rig: Rig, **more: str) -> AsyncIterator[Running]:
    lines, metrics = io.StringIO(), Metrics()
    settings = load(Projecting, rig.environment(**more))
    log = start_logging(form="json", stream=lines)
    try:
        async with (
            app.open_page(settings.telemetry, metrics, log, ("projector",)) as page,
            app.projector(settings, log, metrics, page) as flow,
        ):
            running = asyncio.ensure_future(flow.run())
            try:
                yield Running(flow, metrics, lines, running)
            finally:
                if not running.done():
                    await flow.close()
                running.cancel()
                await asyncio.wait((running,))
    finally:
        print(lines.getvalue()[-20_000:])


@pytest.fixture
async def stage(kafka: str) -> AsyncIterator[Stage]:
    async with open_rig(kafka) as rig:
        yield Stage(rig, Scribe(kafka, rig.registry.url, rig.topics))
