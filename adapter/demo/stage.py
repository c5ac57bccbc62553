"""Starts everything the story needs: Kafka, a registry, the product's three flows, and the twin, with mutual TLS in
both directions.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

from adapter import app
from adapter.catalogue import Catalogue
from adapter.core.avro import Encoder
from adapter.core.errors import Unavailable
from adapter.demo import registry as built_in
from adapter.projector.flow import Projector
from adapter.settings import Cluster, Receiving, Settings, load
from adapter.telemetry import Metrics, start_logging
from adapter.transport.kafka.admin import Admin, wanted
from adapter.transport.kafka.mock import PARTITIONS, MockCluster
from adapter.transport.registry import HttpRegistry, open_registry, register
from adapter.twin import Answered, Letters, Notify, Rules, TlsFiles, Twin, TwinSettings, notify
from adapter.twin.certificates import Certificates
from adapter.twin.certificates import make as make_certificates
from adapter.worker.flow import Worker

BUYER = "SPDEMO"
SUPPLIER = "gateway.supplier.example"
"""Common name of the twin's client certificate, the only one our listener admits."""

LOG = "adapter.log"

ANSWER_WITHIN = 3.0
"""Seconds from Resolved to the warning that the deadline approaches: about 48 hours before it, so that one sees it."""

_TOPICS_WITHIN = 60.0
"""Seconds until a cluster's brokers know of topics that were just made."""

_LOOK_AGAIN = 0.02

_JOINED_WITHIN = 60.0
"""Seconds for the first rebalance; a new group takes about three of them by default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What runs. The tasks of `running` end only if a flow fails."""

    settings: Settings
    known: Catalogue
    encoders: Mapping[str, Encoder]
    """Of the commands, by record name."""

    registry: HttpRegistry
    twin: Twin
    worker: Worker
    running: frozenset["asyncio.Task[None]"]
    mock: bool
    own_registry: bool
    listener: str
    """Where the supplier notifies."""

    as_supplier: TlsFiles
    """The client certificate that the listener admits."""

    telemetry: str

    def place_of(self, message_id: str) -> int:
        """Which of a ticket's notifications has that id, from 1, repeats not counted; 0 for none."""
        told = self.twin.deliveries
        reference = next((each.reference for each in told if each.id == message_id), None)
        own = [each.id for each in told if each.reference == reference and each.repeat_of is None]
        return own.index(message_id) + 1 if reference is not None else 0

    async def post(self, body: bytes) -> int:
        """Posts to the listener as the supplier does; the status of the answer. Raises Unavailable if there is none."""
        letters = Letters([("", body)], self.listener, "text/xml", "", self.as_supplier)
        async for posted in notify(letters):
            if isinstance(posted.answer, Answered):
                return posted.answer.status
        raise Unavailable("the listener does not answer")


@asynccontextmanager
async def stage(*, kafka: str | None, registry: str | None, keep: bool, folder: Path) -> AsyncIterator[Stage]:
    """Starts all of it and ends it in order; `keep` leaves the topics on a real cluster. `folder` takes certificates
    and the adapter's log (LOG). Raises Stop, Unavailable.
    """
    async with AsyncExitStack() as stack:
        ours = make_certificates(folder / "at-the-supplier", client=BUYER)
        theirs = make_certificates(folder / "at-the-buyer", client=SUPPLIER)
        registry_url = registry
        if registry_url is None:
            served = await built_in.serve()
            stack.push_async_callback(served.close)
            registry_url = served.url
        bootstrap = kafka
        mock = None
        if bootstrap is None:
            mock = await asyncio.to_thread(MockCluster)
            stack.callback(mock.close)
            bootstrap = mock.bootstrap
        variables = await asyncio.to_thread(
            _variables, bootstrap=bootstrap, registry=registry_url, ours=ours, theirs=theirs, mock=mock is not None
        )
        receiving = load(Receiving, variables)
        names = [topic.name for topic in wanted(receiving.topics)]
        if mock is None:
            admin = Admin(receiving.kafka.client())
            if not keep:
                stack.push_async_callback(asyncio.to_thread, admin.delete, names)
            await asyncio.to_thread(admin.create, wanted(receiving.topics))
            await _known_everywhere(admin, names)
        else:
            await asyncio.to_thread(mock.create, names)
        client = await stack.enter_async_context(open_registry(receiving.registry))
        known = app.load_catalogue(receiving)
        encoders = await _register(known, receiving, client)
        log_file = stack.enter_context((folder / LOG).open("w", encoding="utf-8"))
        log = start_logging(level="info", form="console", stream=log_file)
        metrics = Metrics()
        page = await stack.enter_async_context(
            app.open_page(receiving.telemetry, metrics, log, ("server", "worker", "projector"))
        )
        # The listener comes first, since the twin has to know where it is, and the twin before who calls it.
        listening = await stack.enter_async_context(app.server(receiving, log.bind(flow="server"), metrics, page))
        url = f"https://127.0.0.1:{listening.listener.port}"
        as_supplier = TlsFiles(theirs.client_certificate, theirs.client_key, theirs.ca)
        twin = await stack.enter_async_context(_twin(ours, Notify(url, as_supplier)))
        variables["ADAPTER_SUPPLIER__BASE_URL"] = twin.url
        settings = load(Settings, variables)
        worker = await stack.enter_async_context(app.worker(settings, log.bind(flow="worker"), metrics, page))
        projector = await stack.enter_async_context(app.projector(settings, log.bind(flow="projector"), metrics, page))
        running = frozenset({asyncio.create_task(worker.run()), asyncio.create_task(projector.run())})
        stack.push_async_callback(_stop, (worker, projector), running)
        await _joined(worker, projector, running)
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
            listener=url,
            as_supplier=as_supplier,
            telemetry=page.url,
        )


def _twin(certificates: Certificates, notify: Notify) -> Twin:
    files = TlsFiles(certificates.server_certificate, certificates.server_key, certificates.ca)
    # So slow that nothing happens by itself: the story says what happens.
    rules = Rules(reserved_keys_only=True, speed=0.001)
    return Twin(TwinSettings(tls=files, buyer=BUYER, rules=rules, notify=notify))


def _variables(
    *, bootstrap: str, registry: str, ours: Certificates, theirs: Certificates, mock: bool
) -> dict[str, str]:
    """The settings of all flows but where the supplier is, written as they would be for any deployment."""
    warn_before = timedelta(hours=48) - timedelta(seconds=ANSWER_WITHIN)
    variables = {
        "KAFKA__BOOTSTRAP_SERVERS": bootstrap,
        "REGISTRY__URL": registry,
        "SUPPLIER__BUYER_IDENTIFIER": BUYER,
        "SUPPLIER__TLS__CERTIFICATE": str(ours.client_certificate),
        "SUPPLIER__TLS__KEY": str(ours.client_key),
        "SUPPLIER__TLS__CA": str(ours.ca),
        "SUPPLIER__DOUBT_LIMITS__AddFaultReport": "5s",
        "SERVER__HOST": "127.0.0.1",
        "SERVER__PORT": "0",
        "SERVER__TLS__CERTIFICATE": str(theirs.server_certificate),
        "SERVER__TLS__KEY": str(theirs.server_key),
        "SERVER__TLS__CA": str(theirs.ca),
        "SERVER__ALLOWED_SUBJECTS": f"CN={SUPPLIER}",
        "PROJECTOR__WARN_BEFORE": f"{warn_before.total_seconds():.0f}s",
        "WORKER__RETRY_FIRST": "200ms",
        "TELEMETRY__HOST": "127.0.0.1",
        "TELEMETRY__PORT": "0",
        "TOPICS__PARTITIONS": str(PARTITIONS),
        "TOPICS__REPLICATION_FACTOR": "1",
    }
    if mock:
        # It answers a waiting consumer only at the end of this time, by default half a second. Producers get the
        # property as well, and would log a warning about it.
        variables |= {"KAFKA__PROPERTIES__FETCH_WAIT_MAX_MS": "10", "KAFKA__PROPERTIES__LOG_LEVEL": "0"}
    else:
        # Others work on a real cluster: topics, subjects and groups of this run have names of their own.
        prefix = f"demo-{uuid4().hex[:8]}."
        cluster = load(Cluster, {"ADAPTER_KAFKA__BOOTSTRAP_SERVERS": bootstrap})
        brokers = Admin(cluster.kafka.client(), timeout=timedelta(seconds=5)).brokers()
        variables |= {
            "KAFKA__GROUP_ID": f"{prefix}worker",
            "PROJECTOR__GROUP_ID": f"{prefix}projector",
            "TOPICS__PREFIX": prefix,
            "TOPICS__REPLICATION_FACTOR": str(min(len(brokers), 3)),
        }
    return {f"ADAPTER_{name}": value for name, value in variables.items()}


async def _known_everywhere(admin: Admin, names: list[str]) -> None:
    async def known() -> bool:
        return len(await asyncio.to_thread(admin.partition_counts, names)) == len(names)

    if not await wait_until(known, within=_TOPICS_WITHIN):
        raise Unavailable(f"the topics were made and are not seen after {_TOPICS_WITHIN:.0f} s")


async def _register(known: Catalogue, settings: Receiving, registry: HttpRegistry) -> dict[str, Encoder]:
    """Registers all schemas; encoders of the commands."""
    identifiers = {schema.fullname: number async for _, schema, number in register(settings, registry, known)}
    return {name: Encoder(schema, identifiers[schema.fullname]) for name, schema in known.commands.items()}


async def _joined(worker: Worker, projector: Projector, running: Iterable["asyncio.Task[None]"]) -> None:
    """Waits until the groups have given each flow all partitions. Raises what made one fail, Unavailable."""

    async def joined() -> bool:
        for task in running:
            if task.done():
                await task
        return len(worker.assignments) == len(projector.partitions) == PARTITIONS

    if not await wait_until(joined, within=_JOINED_WITHIN):
        raise Unavailable(f"the flows got no partitions within {_JOINED_WITHIN:.0f} s")


async def wait_until(condition: Callable[[], Awaitable[bool]], *, within: float) -> bool:
    """Whether the condition came to hold in that many seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(within):
            while True:
                if await condition():
                    return True
                await asyncio.sleep(_LOOK_AGAIN)
    return False


async def _stop(flows: Iterable[Worker | Projector], running: Iterable["asyncio.Task[None]"]) -> None:
    """Gives the partitions back while the flows can still commit, as at a SIGTERM."""
    if not any(task.done() for task in running):
        for flow in flows:
            await flow.close()
    for task in running:
        task.cancel()
        with suppress(asyncio.CancelledError, Exception):  # what failed has been told where it was awaited
            await task
