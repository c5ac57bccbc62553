"""The composition of the server: from settings to a running listener for notifications."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from adapter.app.certificates import Certificates
from adapter.app.descriptors import connections
from adapter.app.page import Page
from adapter.app.process import Process
from adapter.app.start import (
    Starting,
    encoders,
    load_catalogue,
    throttled,
    traced,
)
from adapter.app.stop import before
from adapter.app.topics import Watch
from adapter.catalogue import Catalogue
from adapter.core import cloudevents
from adapter.core.avro import Encoder, Schema
from adapter.core.errors import Stop
from adapter.core.notification import LIMITS, Delivery, Readable, Refusal
from adapter.ports import Arrival, Outgoing
from adapter.server.admission import Admission, allowed
from adapter.server.flow import Deployment, Server, begin
from adapter.server.records import Records
from adapter.settings import Reading, Receiving
from adapter.telemetry import Log, Metrics
from adapter.telemetry import metrics as m
from adapter.transport.incoming import CallerLimits
from adapter.transport.kafka.admin import Admin, require_topics
from adapter.transport.kafka.publisher import KafkaPublisher
from adapter.transport.listener import Listener
from adapter.transport.registry import open_registry
from adapter.transport.server_tls import ServerTls
from adapter.transport.spool import SqliteSpool
from adapter.transport.tls import TlsFiles

_SETTLING: Final = 2.0
"""Seconds after which a restarted broker knows its topics."""


@dataclass(frozen=True, slots=True)
class Listening:
    """A running server."""

    flow: Server
    listener: Listener
    publisher: KafkaPublisher
    watch: Watch
    publishing: "asyncio.Task[None]"
    """Publishes what the spool holds. Raises Stop if nothing can be published."""


async def receive(settings: Receiving, log: Log, process: Process) -> None:
    """Run a server until the process is to stop."""
    stop = process.stop
    async with AsyncExitStack() as stack:
        opening = stack.enter_async_context(server(settings, log, process.metrics, process.page))
        if running := await before(stop, opening):
            watching = asyncio.ensure_future(_watch_kafka(running, process))
            stack.push_async_callback(_cancelled, watching)
            await before(stop, asyncio.shield(running.publishing))  # which goes on while the spool is emptied
            await stop.wait()


@asynccontextmanager
async def server(settings: Receiving, log: Log, metrics: Metrics, page: Page) -> AsyncIterator[Listening]:
    """A server that listens until the context is left; then requests under way are answered. Raises Stop.

    If there is a spool it starts to listen even while Kafka or the registry is unavailable, after one publish timeout.
    """
    tls = server_tls(settings)
    limits = settings.server
    subjects = allowed(limits.allowed_subjects)
    known = load_catalogue(settings)
    client = settings.kafka.client()
    begin(metrics)
    async with AsyncExitStack() as stack:
        spool = _spool(settings, log, metrics)
        if spool is not None:
            stack.push_async_callback(spool.close)
        finding = asyncio.ensure_future(_find(settings, known.notification.event, Starting("server", log, page)))
        stack.push_async_callback(_cancelled, finding)
        await asyncio.wait((finding,), timeout=None if spool is None else limits.publish_timeout.total_seconds())
        if finding.done():
            finding.result()
        publisher = KafkaPublisher(
            client=client,
            timeout=limits.publish_timeout,
            max_message_bytes=settings.topics.max_message_bytes,
            report=lambda why: log.debug("record not acknowledged", reason=why),
            throttled=throttled("producer", log, metrics),
        )
        stack.push_async_callback(publisher.close)
        flow = Server(
            admission=Admission(
                subjects=subjects,
                networks=limits.allowed_networks,
                proxies=limits.trusted_proxies,
                certificate_header=limits.certificate_header.lower(),
                address_header=limits.address_header.lower(),
            ),
            read=_reading(settings, known),
            answers=known.notification.answers,
            publisher=publisher,
            spool=spool,
            deployment=Deployment(
                api_version=settings.supplier.api_version,
                buyer=settings.supplier.buyer_identifier,
                own_message_id=limits.own_message_id,
                max_body_bytes=limits.max_body_bytes,
                publish_limit=limits.publish_timeout.total_seconds(),
                remembered=limits.remembered_notifications,
                scheme="http" if tls is None else "https",
            ),
            log=log,
            metrics=metrics,
            tracer=await stack.enter_async_context(traced(settings.telemetry)),
        )
        stack.callback(flow.close)

        async def publish() -> None:
            flow.start_publishing(_records(settings, known, await finding))
            if spool is not None:
                await flow.keeper.drain()

        clock = asyncio.get_running_loop().time

        def down() -> bool:
            return flow.keeper.down(clock()) or not finding.done()

        publishing = asyncio.ensure_future(publish())
        stack.push_async_callback(_cancelled, publishing)
        certificates = Certificates("listener", tls, log, metrics)
        await stack.enter_async_context(certificates.watched())
        listener = Listener(
            flow,
            limits=CallerLimits(
                body_bytes=limits.max_body_bytes,
                bytes_in_flight=limits.max_bytes_in_flight,
                connections=connections(limits.max_connections, log),
                idle=limits.idle_timeout.total_seconds(),
                body=limits.body_timeout.total_seconds(),
            ),
            tls=tls,
            log=log,
        )
        _watch(listener, spool, metrics)
        metrics.watch(m.KAFKA_DOWN, lambda: float(down()))
        names = settings.topics.names()
        used = (names.events, names.quarantine)
        watch = Watch("server", Admin(client), log, metrics, topics=settings.topics, names=used)

        def cut_off() -> str:
            """Not for what only the watch has found: an unready server gets no notification that could be written."""
            return watch.cut_off() if spool is None and flow.keeper.down(clock()) else ""

        stack.enter_context(
            page.shown(
                "server",
                cut_off=cut_off,
                status=lambda: {
                    "connections": listener.connections,
                    "kafka_down": down(),
                    **({} if spool is None else {"spool": {"depth": spool.depth, "bytes": spool.size}}),
                    **certificates.status(),
                },
            )
        )
        await listener.open(limits.host, limits.port)
        stack.push_async_callback(_leave, flow, listener, limits.stop_timeout.total_seconds(), log)
        log.info(
            "server starts",
            port=listener.port,
            plaintext=tls is None,
            telemetry=page.url,
            spool=spool is not None,
        )
        if tls is None:
            log.warning("listening without TLS", proxies=len(limits.trusted_proxies))
        if not (limits.allowed_subjects or limits.allowed_networks):
            log.warning("no list of callers")
        yield Listening(flow, listener, publisher, watch, publishing)


def reread(settings: Reading, known: Catalogue, encoder: Encoder) -> Callable[[Arrival], Outgoing | Refusal]:
    """A function that turns a notification that was kept raw into the event that a server with these settings would
    publish, or into the reason why there is none.
    """
    records, read = _records(settings, known, encoder), _reading(settings, known)

    def event(arrival: Arrival) -> Outgoing | Refusal:
        found = read(arrival.delivery)
        return found if isinstance(found, Refusal) else records.event(found, arrival)

    return event


def _records(settings: Reading, known: Catalogue, encoder: Encoder) -> Records:
    names = settings.topics.names()
    return Records(
        events_topic=names.events,
        quarantine_topic=names.quarantine,
        source=cloudevents.source(known.supplier.name, settings.supplier.buyer_identifier),
        encoder=encoder,
        largest=settings.topics.max_message_bytes,
    )


def _reading(settings: Reading, known: Catalogue) -> Callable[[Delivery], Readable | Refusal]:
    """The notification's reader with the buyers that are ours and the limits of a deployment."""
    buyers = settings.server.accepted_buyers or frozenset({settings.supplier.buyer_identifier})
    limits = replace(LIMITS, size=settings.server.max_body_bytes)
    return partial(known.notification.reader.read, buyers=buyers, limits=limits)


async def _leave(flow: Server, listener: Listener, limit: float, log: Log) -> None:
    """Answer the requests under way, then publish what the spool holds, all within `limit` seconds."""
    loop = asyncio.get_running_loop()
    end = loop.time() + limit
    await listener.close(limit)
    if left := await flow.keeper.finish(end - loop.time()):
        log.warning("spool not empty", depth=left)


def server_tls(settings: Receiving) -> ServerTls | None:
    """The listener's TLS; None if it is to listen in plain text. Raises Stop."""
    files = settings.server.tls
    if settings.server.allow_plaintext:
        if files.certificate is not None:
            raise Stop("ADAPTER_SERVER__ALLOW_PLAINTEXT: is set together with a certificate; keep one of the two")
        return None
    missing = [
        f"ADAPTER_SERVER__TLS__{name.upper()}: is missing: the listener needs it for mutual TLS; for a plain one, "
        "behind a proxy or in a test, set ADAPTER_SERVER__ALLOW_PLAINTEXT=true"
        for name in ("certificate", "key", "ca")
        if getattr(files, name) is None
    ]
    if missing:
        raise Stop(*missing)
    return ServerTls(TlsFiles(files.certificate, files.key, files.ca))


async def _find(settings: Receiving, event: Schema, starting: Starting) -> Encoder:
    """The encoder of the event, after waiting for Kafka and registry. Raises Stop if they lack topics or schema."""
    names = settings.topics.names()
    needed = (names.events, names.quarantine)

    async def count() -> dict[str, int]:
        admin = Admin(settings.kafka.client())  # each time with the password and the certificates of that time
        return await asyncio.to_thread(admin.partition_counts, needed)

    began = time.monotonic()
    found = await starting.until_available("Kafka", count)
    if not found.keys() >= set(needed) and time.monotonic() - began > _SETTLING:
        await asyncio.sleep(_SETTLING)  # it was away: a broker that has just started does not know its topics yet
        found = await starting.until_available("Kafka", count)
    require_topics(needed, found)
    async with open_registry(settings.registry) as registry:
        return (await encoders(settings, registry, starting, {names.events: [event]}))[event.name]


def _spool(settings: Receiving, log: Log, metrics: Metrics) -> SqliteSpool | None:
    asked = settings.server.spool
    if asked.path is None:
        return None
    lost: list[Path | int] = []

    def damaged(path: Path, saved: int) -> None:
        lost.append(path)
        log.error("spool damaged", set_aside=str(path), saved=saved)

    def unreadable(number: int, reason: str) -> None:
        lost.append(number)
        log.error("spooled notification not readable", number=number, reason=reason)

    spool = SqliteSpool(asked.path, max_bytes=asked.max_bytes, damaged=damaged, unreadable=unreadable)
    metrics.watch(m.SPOOL_DAMAGED, lambda: float(bool(lost)))
    return spool


def _watch(listener: Listener, spool: SqliteSpool | None, metrics: Metrics) -> None:
    metrics.watch(m.CONNECTIONS, lambda: float(listener.connections))
    metrics.watch(m.BYTES_IN_FLIGHT, lambda: float(listener.bytes_in_flight))
    if spool is not None:
        metrics.watch(m.SPOOL_DEPTH, lambda: float(spool.depth))
        metrics.watch(m.SPOOL_BYTES, lambda: float(spool.size))
        metrics.watch(m.SPOOL_OLDEST, spool.oldest)


async def _watch_kafka(running: Listening, process: Process) -> None:
    """Watch the topics, and go on with new clients at each renewal of Kafka's credentials, until cancelled."""
    async with running.watch.running():
        while True:
            client = await process.credentials.renewal()
            with suppress(Stop):  # the files have changed once more, and are tried again
                running.publisher.renew(client)
                running.watch.renew(Admin(client))


async def _cancelled(task: "asyncio.Task[Any]") -> None:
    task.cancel()
    await asyncio.wait((task,))
