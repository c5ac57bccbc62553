"""Everything the story needs, running: Kafka, a registry, the twin behind mutual TLS, and the product's own worker."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

from adapter import app, catalogue
from adapter.catalogue import GROUPS, Catalogue, SubjectStrategy
from adapter.core.avro import Encoder
from adapter.core.errors import Stop, Unavailable
from adapter.demo import registry as built_in
from adapter.settings import Settings, load
from adapter.telemetry import Metrics, start_logging
from adapter.transport.kafka.admin import Admin, wanted
from adapter.transport.kafka.mock import PARTITIONS, MockCluster
from adapter.transport.registry import HttpRegistry
from adapter.twin import TlsFiles, Twin, TwinSettings
from adapter.twin.certificates import Certificates
from adapter.twin.certificates import make as make_certificates
from adapter.worker.flow import Worker

BUYER = "SPDEMO"
LOG = "worker.log"

_TOPICS_WITHIN = 10.0
"""Seconds until a cluster's brokers know of topics that were just made."""

_LOOK_AGAIN = 0.02

_JOINED_WITHIN = 30.0
"""Seconds for the first rebalance; a new group takes about three of them by default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What runs. `running` ends only if the worker fails."""

    settings: Settings
    known: Catalogue
    encoders: Mapping[str, Encoder]
    """Of the commands, by record name."""

    registry: HttpRegistry
    twin: Twin
    worker: Worker
    running: "asyncio.Task[None]"
    mock: bool
    own_registry: bool
    telemetry: str


@asynccontextmanager
async def stage(*, kafka: str | None, registry: str | None, keep: bool, folder: Path) -> AsyncIterator[Stage]:
    """Starts all of it and ends it in order; `keep` leaves the topics on a real cluster. `folder` takes certificates
    and the worker's log (LOG). Raises Stop, Unavailable.
    """
    async with AsyncExitStack() as stack:
        certificates = make_certificates(folder / "certificates", client=BUYER)
        registry_url = registry
        if registry_url is None:
            served = await built_in.serve()
            stack.push_async_callback(served.close)
            registry_url = served.url
        twin = await stack.enter_async_context(_twin(certificates))
        bootstrap = kafka
        mock = None
        if bootstrap is None:
            mock = await asyncio.to_thread(MockCluster)
            stack.callback(mock.close)
            bootstrap = mock.bootstrap
        settings = await asyncio.to_thread(
            _settings,
            bootstrap=bootstrap,
            registry=registry_url,
            twin=twin.url,
            certificates=certificates,
            mock=mock is not None,
        )
        names = [topic.name for topic in wanted(settings.topics)]
        if mock is None:
            admin = Admin(settings.kafka.client())
            if not keep:
                stack.push_async_callback(asyncio.to_thread, admin.delete, names)
            await asyncio.to_thread(admin.create, wanted(settings.topics))
            await _known_everywhere(admin, names)
        else:
            await asyncio.to_thread(mock.create, names)
        client = HttpRegistry(settings.registry.url, timeout=settings.registry.timeout)
        stack.push_async_callback(client.close)
        known = app.load_catalogue(settings)
        encoders = await _register(known, settings, client)
        log_file = stack.enter_context((folder / LOG).open("w", encoding="utf-8"))
        log = start_logging(level="info", form="console", stream=log_file, flow="worker")
        worker, endpoint = await stack.enter_async_context(app.worker(settings, log, Metrics()))
        running = asyncio.create_task(worker.run())
        stack.push_async_callback(_stop, worker, running)
        await _joined(worker, running)
        yield Stage(
            settings=settings,
            known=known,
            encoders=encoders,
            registry=client,
            twin=twin,
            worker=worker,
            running=running,
            mock=mock is not None,
            own_registry=registry is None,
            telemetry=endpoint.url,
        )


def _twin(certificates: Certificates) -> Twin:
    files = TlsFiles(certificates.server_certificate, certificates.server_key, certificates.ca)
    return Twin(TwinSettings(tls=files, buyer=BUYER, reserved_keys_only=True))


def _settings(*, bootstrap: str, registry: str, twin: str, certificates: Certificates, mock: bool) -> Settings:
    """The worker's settings, written as they would be for any deployment."""
    variables = {
        "KAFKA__BOOTSTRAP_SERVERS": bootstrap,
        "REGISTRY__URL": registry,
        "SUPPLIER__BASE_URL": twin,
        "SUPPLIER__BUYER_IDENTIFIER": BUYER,
        "SUPPLIER__TLS__CERTIFICATE": str(certificates.client_certificate),
        "SUPPLIER__TLS__KEY": str(certificates.client_key),
        "SUPPLIER__TLS__CA": str(certificates.ca),
        "SUPPLIER__DOUBT_LIMITS__AddFaultReport": "1500ms",
        "WORKER__RETRY_FIRST": "200ms",
        "TELEMETRY__HOST": "127.0.0.1",
        "TELEMETRY__PORT": "0",
        "TOPICS__PARTITIONS": str(PARTITIONS),
        "TOPICS__REPLICATION_FACTOR": "1",
    }
    if not mock:
        # Others work on a real cluster: topics, subjects and group of this run have names of their own.
        prefix = f"demo-{uuid4().hex[:8]}."
        brokers = Admin({"bootstrap.servers": bootstrap}, timeout=timedelta(seconds=5)).brokers()
        variables |= {
            "KAFKA__GROUP_ID": f"{prefix}worker",
            "TOPICS__PREFIX": prefix,
            "TOPICS__REPLICATION_FACTOR": str(min(brokers, 3)),
        }
    settings = load(Settings, {f"ADAPTER_{name}": value for name, value in variables.items()})
    if mock:
        # It answers a waiting consumer only at the end of this time, half a second unless told; producers, which get
        # all properties too, would warn of one that is not theirs.
        quick = settings.kafka.model_copy(update={"properties": {"fetch.wait.max.ms": "10", "log_level": "0"}})
        settings = settings.model_copy(update={"kafka": quick})
    return settings


async def _known_everywhere(admin: Admin, names: list[str]) -> None:
    async def known() -> bool:
        return len(await asyncio.to_thread(admin.partition_counts, names)) == len(names)

    if not await wait_until(known, within=_TOPICS_WITHIN):
        raise Unavailable(f"the topics were made and are not seen after {_TOPICS_WITHIN:.0f} s")


async def _register(known: Catalogue, settings: Settings, registry: HttpRegistry) -> dict[str, Encoder]:
    """Registers all schemas as `adapter schemas register` does; encoders of the commands."""
    strategy = SubjectStrategy(settings.registry.subject_strategy)
    topics = settings.topics.names()
    names = {group: getattr(topics, group) for group in GROUPS}
    for subject, schema in known.subjects(strategy, names):
        await registry.set_compatibility(subject, "FULL_TRANSITIVE")
        await registry.register(subject, schema.text)
    encoders = {}
    for name, schema in known.commands.items():
        identifier = await registry.identifier(catalogue.subject(strategy, topics.commands, schema), schema.text)
        if identifier is None:
            raise Stop(f"{name}: the registry has lost the schema it was given")
        encoders[name] = Encoder(schema, identifier)
    return encoders


async def _joined(worker: Worker, running: "asyncio.Task[None]") -> None:
    """Waits until the group has given the worker all partitions. Raises what made it fail, Unavailable."""

    async def joined() -> bool:
        if running.done():
            await running
        return len(worker.assignments) == PARTITIONS

    if not await wait_until(joined, within=_JOINED_WITHIN):
        raise Unavailable(f"the worker got no partitions within {_JOINED_WITHIN:.0f} s")


async def wait_until(condition: Callable[[], Awaitable[bool]], *, within: float) -> bool:
    """Whether the condition came to hold in that many seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(within):
            while True:
                if await condition():
                    return True
                await asyncio.sleep(_LOOK_AGAIN)
    return False


async def _stop(worker: Worker, running: "asyncio.Task[None]") -> None:
    """Gives the partitions back while the worker can still commit, as at a SIGTERM."""
    if not running.done():
        await worker.close()
    running.cancel()
    with suppress(asyncio.CancelledError, Exception):  # what failed has been told where it was awaited
        await running
