"""The composition of the projector: from settings to a running one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final

from adapter.app.page import Page
from adapter.app.process import Process
from adapter.app.start import (
    Starting,
    encoders,
    load_catalogue,
    membership,
    offset_patience,
    throttled,
    transactions,
    transactions_observer,
)
from adapter.app.topics import Partitions, Watch
from adapter.core.avro import UnknownFields
from adapter.core.avro.lookup import Decoders
from adapter.core.ticket import Policy
from adapter.core.ticket.fold import WARNING
from adapter.ports import Intake, IntakeListener
from adapter.projector import report
from adapter.projector.flow import Projector, Wiring
from adapter.projector.folding import Folding
from adapter.projector.reader import Reader
from adapter.projector.records import Records
from adapter.settings import Projecting
from adapter.telemetry import Log, Metrics
from adapter.transport.kafka.admin import Admin
from adapter.transport.kafka.consumer import KafkaIntake, introduce
from adapter.transport.kafka.identity import REMADE
from adapter.transport.kafka.tickets import KafkaTickets
from adapter.transport.registry import open_registry
from adapter.transport.store import SqliteStores

_CACHE: Final = 4 * 1024 * 1024
"""Bytes of memory for each partition's store; the rest is left to the operating system's file cache."""
_CACHES: Final = 256 * 1024 * 1024
"""Bytes of memory for all stores together, in case one projector owns all partitions."""
_LEAVE: Final = timedelta(seconds=5)
"""Time to leave the group and close the stores, once no transaction is under way."""
_PREFETCH_KIB: Final = 16 * 1024
"""KiB the client may fetch ahead."""


async def project(settings: Projecting, log: Log, process: Process) -> None:
    """Run projectors until the process is to stop. Raises the error that makes it impossible to go on."""
    metrics, page = process.metrics, process.page
    await process.run(lambda: projector(settings, log, metrics, page), leave_limit(settings), log)


@asynccontextmanager
async def projector(settings: Projecting, log: Log, metrics: Metrics, page: Page) -> AsyncIterator[Projector]:
    """A projector with everything it needs, whose intake is open; the caller runs it. Raises Stop."""
    known = await asyncio.to_thread(load_catalogue, settings)
    names, client = settings.topics.names(), settings.kafka.client()
    ours = settings.projector
    policy = Policy(ours.resolve_deadline, ours.warn_before, ours.tombstone_after)
    report.begin(metrics)
    async with AsyncExitStack() as stack:
        metrics = stack.enter_context(metrics.lent())
        registry = await stack.enter_async_context(open_registry(settings.registry))
        admin = Admin(client)
        topics = Partitions(
            count=admin.partition_counts,
            identify=admin.identities,
            keyed=(names.events, names.tickets),
            originals={names.events: REMADE, names.tickets: "The tickets are lost or wrong"},
        )
        starting = Starting("projector", log, page)
        seen = await starting.until_available("Kafka", lambda: asyncio.to_thread(topics.look))

        written = known.events[WARNING]
        ticket = known.tickets["Ticket"]
        encoding = await encoders(settings, registry, starting, {names.events: [written], names.tickets: [ticket]})
        tickets = KafkaTickets(
            client=client,
            events=names.events,
            tickets=names.tickets,
            group=ours.group_id,
            patience=offset_patience(settings.kafka, log),
        )
        stack.push_async_callback(tickets.close)
        await starting.until_available(
            "Kafka", lambda: asyncio.to_thread(introduce, client, names.events, ours.group_id)
        )
        stores = _stores(ours.store, seen.partitions, log)
        stack.push_async_callback(asyncio.to_thread, stores.close)
        transactor = await stack.enter_async_context(transactions(settings, names.events, ours.group_id, log, metrics))

        def intake(listener: IntakeListener) -> Intake:
            assert isinstance(listener, Projector)
            member = {
                "queued.max.messages.kbytes": str(_PREFETCH_KIB),
                **client,
                **membership(settings.kafka, ours.group_id, giving_back=settings.kafka.transaction_timeout),
            }
            return KafkaIntake(
                client=member,
                topic=names.events,
                listener=listener,
                at_end=listener.at_end,
                throttled=throttled("consumer", log, metrics),
            )

        flow = Projector(
            Wiring(
                intake=intake,
                transactor=transactor,
                tickets=tickets,
                stores=stores,
                folding=Folding(
                    reader=Reader(
                        Decoders(registry, tuple(known.events.values()), UnknownFields.IGNORE), seen.partitions
                    ),
                    tickets=Decoders(registry, (ticket,), UnknownFields.IGNORE),
                    records=Records(
                        events_topic=names.events,
                        tickets_topic=names.tickets,
                        ticket=encoding[ticket.name],
                        warning=encoding[written.name],
                        policy=policy,
                        largest=settings.topics.max_message_bytes,
                    ),
                    policy=policy,
                    log=log,
                ),
                # A transaction that takes longer is ended by the cluster.
                revoke_limit=settings.kafka.transaction_timeout.total_seconds(),
                observe=transactions_observer(metrics),
                log=log,
                metrics=metrics,
            )
        )
        report.watch(flow, metrics)
        watch = Watch("projector", admin, log, metrics, topics=settings.topics, names=topics.keyed)
        stack.enter_context(
            page.shown(
                "projector",
                left_out=lambda: flow.intake.left_out,
                cut_off=watch.cut_off,
                status=lambda: report.status(flow),
            )
        )
        log.info("projector starts", telemetry=page.url, topic=names.events, group=ours.group_id)
        await stack.enter_async_context(watch.running(partial(topics.check, seen), flow.failed))
        flow.open()
        stack.push_async_callback(flow.close)
        yield flow


def leave_limit(settings: Projecting) -> timedelta:
    """Time within which a projector stops once asked to."""
    return settings.kafka.transaction_timeout + _LEAVE


def _stores(folder: Path | None, partitions: int, log: Log) -> SqliteStores:
    return SqliteStores(
        folder,
        setting="ADAPTER_PROJECTOR__STORE",
        cache=min(_CACHE, _CACHES // partitions),
        damaged=lambda path: log.error("tickets on disk damaged", made_anew=str(path)),
    )
