"""A worker's whole surroundings in one process: topics on the real broker, a registry with our schemas in it, the twin,
the estate. Workers join them on this loop (`Rig.worker`) or as processes of their own (`Rig.environment`)."""

import asyncio
import io
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass

from aiohttp import web

from adapter import app
from adapter.app.page import Page
from adapter.core.avro import SubjectStrategy
from adapter.demo import registry as registries
from adapter.settings import Settings, load
from adapter.telemetry import Metrics, start_logging
from adapter.twin import Twin
from adapter.worker.flow import Worker
from tests.support import topics as topic_sets
from tests.support.estate import Estate
from tests.support.known import known
from tests.support.measured import measured
from tests.support.ports import free_port
from tests.support.topics import Topics
from tests.support.wait import PATIENCE, eventually


@dataclass(frozen=True, slots=True)
class Heard:
    """A request as the twin got it. Header names are in lower case."""

    path: str
    headers: Mapping[str, str]
    body: bytes


class ListeningTwin(Twin):
    """A twin that also keeps the requests themselves."""

    heard: list[Heard]

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.heard.append(Heard(request.path, headers, await request.read()))
        return await super()._serve(request)


@dataclass(slots=True)
class Member:
    """A worker on this loop."""

    flow: Worker
    endpoint: Page
    metrics: Metrics
    lines: io.StringIO
    running: "asyncio.Task[None]"

    def metric(self, name: str, **labels: str) -> float:
        """As `measured` has it."""
        return measured(self.metrics, name, **labels)

    async def stop(self) -> None:
        """As a SIGTERM does it."""
        await self.flow.close()
        self.running.cancel()
        await asyncio.wait((self.running,))


@dataclass(slots=True)
class Rig:
    bootstrap: str
    topics: Topics
    registry: registries.Registry
    twin: ListeningTwin
    estate: Estate

    @property
    def group(self) -> str:
        return f"{self.topics.prefix}-workers"

    def environment(self, **more: str) -> dict[str, str]:
        """Settings of a role here, quick to try again; `more` without the prefix: WORKER__PARKED_AFTER="1s"."""
        settings = {
            "KAFKA__BOOTSTRAP_SERVERS": self.bootstrap,
            "KAFKA__GROUP_ID": self.group,
            "KAFKA__SESSION_TIMEOUT": "6s",
            "PROJECTOR__GROUP_ID": f"{self.topics.prefix}-projectors",
            "REGISTRY__URL": self.registry.url,
            "REGISTRY__TIMEOUT": f"{PATIENCE:g}s",
            "SUPPLIER__BASE_URL": self.twin.url,
            "SUPPLIER__ALLOW_PLAINTEXT": "true",
            "SUPPLIER__BUYER_IDENTIFIER": "SPDEV1",
            # Far above what a busy machine adds to a call: none ends in doubt but where a test has it so.
            **{f"SUPPLIER__{limit}_TIMEOUT": "30s" for limit in ("CONNECT", "WRITE", "READ", "TOTAL")},
            "WORKER__RETRY_FIRST": "50ms",
            "WORKER__RETRY_MAX": "400ms",
            "WORKER__BREAKER_PROBE": "100ms",
            "TELEMETRY__HOST": "127.0.0.1",
            "TELEMETRY__PORT": "0",
        }
        return self.topics.settings | {f"ADAPTER_{name}": value for name, value in (settings | more).items()}

    @asynccontextmanager
    async def worker(self, **more: str) -> AsyncIterator[Member]:
        """A worker on this loop with those settings, a member of the group when this yields."""
        lines, metrics = io.StringIO(), Metrics()
        log = start_logging(form="json", stream=lines)
        settings = load(Settings, self.environment(**more))
        try:
            async with (
                app.open_page(settings.telemetry, metrics, log, ("worker",)) as page,
                app.worker(settings, log, metrics, page) as flow,
            ):
                member = Member(flow, page, metrics, lines, asyncio.ensure_future(flow.run()))
                try:
                    await eventually(lambda: member.running.done() or not flow.intake.left_out, what="joining")
                    if member.running.done():
                        member.running.result()
                    yield member
                finally:
                    await member.stop()
        finally:
            print(lines.getvalue()[-20_000:])


@asynccontextmanager
async def open_rig(
    bootstrap: str,
    *,
    partitions: int = 4,
    largest: int = topic_sets.FOUR_MIB,
    twin: ListeningTwin | None = None,
    registered: bool = True,
) -> AsyncIterator[Rig]:
    """All but the worker. The registry keeps its port and what it holds; the topics are gone at the end."""
    topics = topic_sets.create(bootstrap, partitions=partitions, largest=largest)
    async with AsyncExitStack() as stack:
        stack.callback(topic_sets.delete, bootstrap, topics)
        # What `adapter schemas register` does, which has tests of its own.
        subjects = known().subjects(SubjectStrategy.TOPIC_RECORD, asdict(topics)) if registered else ()
        registry = await registries.serve(port=free_port(), holding=subjects)
        stack.push_async_callback(registry.close)
        supplier = ListeningTwin() if twin is None else twin
        supplier.heard = []
        await stack.enter_async_context(supplier)
        estate = await stack.enter_async_context(Estate(bootstrap, registry.url, topics))
        yield Rig(bootstrap, topics, registry, supplier, estate)
