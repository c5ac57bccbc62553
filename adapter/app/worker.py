"""The composition of the worker: from settings to a running one."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Final

from adapter.app.certificates import Certificates
from adapter.app.page import Page
from adapter.app.process import Process
from adapter.app.start import (
    Starting,
    base_url,
    encoders,
    load_catalogue,
    membership,
    offset_patience,
    throttled,
    traced,
    transactions,
    transactions_observer,
)
from adapter.app.topics import Partitions, Watch
from adapter.catalogue import Catalogue
from adapter.core import cloudevents
from adapter.core.allowance import Allowance
from adapter.core.avro import Encoder, UnknownFields
from adapter.core.avro.lookup import Decoders
from adapter.core.command import Policy
from adapter.core.document import DocumentLimits
from adapter.core.outcome import Judge
from adapter.core.rate import RateLimit
from adapter.core.retry import Backoff, Breaker, BreakerState
from adapter.ports import Intake, IntakeListener
from adapter.settings import Settings, Translating
from adapter.telemetry import Log, Metrics
from adapter.telemetry import metrics as m
from adapter.transport.https import HttpsCalls
from adapter.transport.kafka.admin import Admin
from adapter.transport.kafka.consumer import KafkaIntake, introduce
from adapter.transport.kafka.feed import KafkaTicketFeed
from adapter.transport.kafka.identity import REMADE
from adapter.transport.kafka.journal import KafkaJournal
from adapter.transport.registry import open_registry
from adapter.transport.store import SqliteStores
from adapter.worker import report
from adapter.worker.case import Cases
from adapter.worker.conductor import INTENT_LIFE, Conductor
from adapter.worker.doubt import Doubts
from adapter.worker.events import Events, written
from adapter.worker.flow import Wiring, Worker
from adapter.worker.gate import Gate
from adapter.worker.ledger import Ledger
from adapter.worker.memory import Memory
from adapter.worker.reader import Reader
from adapter.worker.request import Requests, Terms
from adapter.worker.tickets import Tickets
from adapter.worker.window import Bounds

_CACHE: Final = 1024 * 1024
"""Bytes of memory for each partition's index of tickets."""
_LINGER: Final = 300.0
"""Seconds for which a partition of the tickets is still followed after its last look-up."""


async def work(settings: Settings, log: Log, process: Process) -> None:
    """Run workers until the process is to stop. Raises the error that makes it impossible to go on."""
    metrics, page = process.metrics, process.page
    await process.run(lambda: worker(settings, log, metrics, page), settings.worker.stop_timeout, log)


@asynccontextmanager
async def worker(settings: Settings, log: Log, metrics: Metrics, page: Page) -> AsyncIterator[Worker]:
    """A worker with everything it needs, whose intake is open; the caller runs it. Raises Stop."""
    known = load_catalogue(settings)
    url = base_url(settings, known)
    names = settings.topics.names()
    client = settings.kafka.client()
    report.begin(known.operations, metrics)
    async with AsyncExitStack() as stack:
        metrics = stack.enter_context(metrics.lent())
        calls = HttpsCalls(url, settings.supplier)
        stack.push_async_callback(calls.close)
        certificates = Certificates("supplier", calls.tls, log, metrics)
        await stack.enter_async_context(certificates.watched())
        registry = await stack.enter_async_context(open_registry(settings.registry))
        tracer = await stack.enter_async_context(traced(settings.telemetry))
        admin = Admin(client)
        topics = Partitions(
            count=admin.partition_counts,
            identify=admin.identities,
            keyed=(names.commands, names.events, names.tickets, names.journal),
            others=(names.dead_letters, names.quarantine),
            originals={names.commands: REMADE, names.journal: "The journal is lost, or a part of it"},
        )
        starting = Starting("worker", log, page)
        seen = await starting.until_available("Kafka", lambda: asyncio.to_thread(topics.look))

        encoding = await encoders(
            settings, registry, starting, {names.events: written(known), names.journal: known.journal.values()}
        )
        group = settings.kafka.group_id
        journal = KafkaJournal(
            client=client,
            commands=names.commands,
            journal=names.journal,
            group=group,
            memory=True,
            patience=offset_patience(settings.kafka, log),
        )
        stack.push_async_callback(journal.close)
        await starting.until_available("Kafka", lambda: asyncio.to_thread(introduce, client, names.commands, group))
        transactor = await stack.enter_async_context(transactions(settings, names.commands, group, log, metrics))
        gate = _gate(settings, log)
        rules = policy(settings)
        events = records(settings, known, encoding)
        memory = Memory(settings.worker.remembered_commands)
        observe = transactions_observer(metrics)

        def failed(error: Exception) -> None:
            flow.failed(error)

        decoders = Decoders(registry, tuple(known.tickets.values()), UnknownFields.IGNORE)
        tickets = await stack.enter_async_context(_tickets(settings, decoders, seen.partitions, failed, log))
        metrics.watch(m.TICKETS_FOLLOWED, tickets.followed)

        def conductor(flow: Worker) -> Conductor:
            cases = Cases(
                reader=Reader(known, registry, settings.registry.unknown_fields),
                ledger=flow.ledger,
                events=events,
                policy=rules,
                memory=memory,
                tickets=tickets,
                commands_topic=names.commands,
                largest_record=settings.topics.max_message_bytes,
                assignments=flow.assignments.values,
                finished=flow.finished,
                log=log,
                metrics=metrics,
            )
            return Conductor(
                cases=cases,
                doubts=Doubts(
                    cases=cases,
                    parked_after=settings.worker.parked_after.total_seconds(),
                    parked=settings.worker.parked_per_ticket,
                ),
                requests=Requests(
                    supplier=known.supplier,
                    calls=calls,
                    terms=terms(settings, url),
                    judge=judge(settings, known),
                    log=log,
                    metrics=metrics,
                    tracer=tracer,
                ),
                gate=gate,
                room=flow.room,
                replies=flow.replies,
                cohort=flow.cohort,
                allowance=Allowance(settings.worker.window_bytes),
            )

        def intake(listener: IntakeListener) -> Intake:
            giving_back = timedelta(seconds=rules.call_limit) + settings.kafka.transaction_timeout
            member = {**client, **membership(settings.kafka, group, giving_back=giving_back)}
            return KafkaIntake(
                client=member,
                topic=names.commands,
                listener=listener,
                throttled=throttled("consumer", log, metrics),
            )

        flow = Worker(
            Wiring(
                intake=intake,
                ledger=lambda asked, commits, busy: Ledger(
                    intake=asked,
                    transactor=transactor,
                    commits=commits,
                    busy=busy,
                    entries=events.entries,
                    journal=seen.identities[names.journal],
                    topic=seen.identities[names.commands],
                    observe=observe,
                ),
                conductor=conductor,
                journal=journal,
                entries=Decoders(registry, tuple(known.journal.values()), UnknownFields.IGNORE),
                gate=gate,
                bounds=Bounds(
                    settings.worker.window_records, settings.worker.window_bytes, settings.worker.partition_span
                ),
                memory=memory,
                partitions=seen.partitions,
                call_limit=rules.call_limit,
                commit_limit=settings.kafka.transaction_timeout.total_seconds(),
                log=log,
                metrics=metrics,
            )
        )
        report.watch(flow, gate, metrics)
        watch = Watch("worker", admin, log, metrics, topics=settings.topics, names=(*topics.keyed, *topics.others))
        stack.enter_context(
            page.shown(
                "worker",
                left_out=lambda: flow.intake.left_out,
                cut_off=watch.cut_off,
                status=lambda: {**report.status(flow, gate), **certificates.status()},
            )
        )
        log.info("worker starts", telemetry=page.url, topic=names.commands, group=group, supplier=url)
        await stack.enter_async_context(watch.running(partial(topics.check, seen), flow.failed))
        flow.open()
        stack.push_async_callback(flow.close)
        yield flow


@asynccontextmanager
async def _tickets(
    settings: Settings, decoders: Decoders, partitions: int, failed: Callable[[Exception], None], log: Log
) -> AsyncIterator[Tickets]:
    """Raises Stop if their folder can't be had."""
    stores = SqliteStores(
        settings.worker.store,
        setting="ADAPTER_WORKER__STORE",
        cache=_CACHE,
        damaged=lambda path: log.error("tickets on disk damaged", made_anew=str(path)),
    )
    feed = KafkaTicketFeed(
        client=settings.kafka.client(),
        topic=settings.topics.names().tickets,
        group=settings.kafka.group_id,
        failed=failed,
    )
    tickets = Tickets(
        feed=feed, stores=stores, decoders=decoders, partitions=partitions, linger=_LINGER, failed=failed, log=log
    )
    try:
        yield tickets
    finally:
        await tickets.close()
        await asyncio.to_thread(stores.close)


def _gate(settings: Settings, log: Log) -> Gate:
    limits, supplier = settings.worker, settings.supplier
    probe = limits.breaker_probe.total_seconds()
    breaker = Breaker(threshold=limits.breaker_failures, backoff=Backoff(first=probe, longest=6 * probe))

    def changed(state: BreakerState, why: str, detail: str | None) -> None:
        tell = log.warning if state is BreakerState.OPEN else log.info
        tell("circuit breaker", state=state.value, reason=why, **({} if detail is None else {"detail": detail}))

    rate = None if supplier.max_calls_per_second is None else RateLimit(supplier.max_calls_per_second)
    return Gate(places=supplier.max_in_flight, rate=rate, breaker=breaker, changed=changed)


def policy(settings: Translating) -> Policy:
    limits = settings.worker
    return Policy(
        backoff=Backoff(first=limits.retry_first.total_seconds(), longest=limits.retry_max.total_seconds()),
        call_limit=settings.supplier.total_timeout.total_seconds() + INTENT_LIFE,
        doubt_limits={name: limit.total_seconds() for name, limit in settings.supplier.doubt_limits.items()},
        share=random.random,
        reference_wait=limits.reference_wait.total_seconds(),
    )


def records(settings: Translating, known: Catalogue, encoders: Mapping[str, Encoder]) -> Events:
    names = settings.topics.names()
    return Events(
        events_topic=names.events,
        dead_letters_topic=names.dead_letters,
        quarantine_topic=names.quarantine,
        journal_topic=names.journal,
        source=cloudevents.source(known.supplier.name, settings.supplier.buyer_identifier),
        encoders=encoders,
    )


def terms(settings: Translating, url: str) -> Terms:
    supplier = settings.supplier
    return Terms(
        protocol={
            "api_version": supplier.api_version,
            "buyer_identifier": supplier.buyer_identifier,
            "seller_identifier": supplier.seller_identifier,
            "reseller_id": supplier.reseller_id,
        },
        content_type=supplier.content_type,
        soap_actions=supplier.soap_actions,
        base_url=url,
    )


def judge(settings: Translating, known: Catalogue) -> Judge:
    return Judge(
        replies=known.supplier.replies,
        accepted_codes=settings.supplier.accepted_codes,
        limits=DocumentLimits(size=settings.supplier.max_reply_bytes),
    )
