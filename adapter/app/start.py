"""What several roles need at their start: schemas, encoders, a group, transactions, and waiting for what is
unavailable.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from math import inf
from time import monotonic
from typing import Final, TypeVar
from uuid import uuid4

from adapter import catalogue
from adapter.app.page import Page
from adapter.catalogue import Catalogue
from adapter.core.avro import Encoder, Schema
from adapter.core.errors import Stop
from adapter.core.retry import Backoff
from adapter.pause import until_answered
from adapter.settings import (
    Bus,
    Calling,
    GroupProtocol,
    Kafka,
    Offline,
    Reading,
    Telemetry,
    Vocabulary,
)
from adapter.suppliers import served
from adapter.telemetry import Log, Metrics, Tracer, open_tracer
from adapter.telemetry import metrics as m
from adapter.transport.kafka.producer import TransactionalProducer
from adapter.transport.kafka.span import Patience
from adapter.transport.registry import HttpRegistry
from adapter.transport.registry import encoders as look_up

_Answer = TypeVar("_Answer")

_START_AGAIN: Final = Backoff(first=0.5, longest=10.0)
_REJOIN: Final = timedelta(seconds=5)
"""Time to rejoin a group after partitions were given back, on a busy machine."""
_LIMITS_LOOKED_AT: Final = timedelta(seconds=10)
"""Kafka's default interval in which a transaction coordinator aborts transactions that have exceeded their limit."""

_THROTTLED_AGAIN: Final = 60.0
"""Seconds between two log lines that say that a quota holds a client back."""


@dataclass(frozen=True, slots=True)
class Starting:
    """A flow that may have to wait for something before it can start: its log and its readiness say for what."""

    flow: str
    log: Log
    page: Page

    async def until_available(self, what: str, ask: Callable[[], Awaitable[_Answer]]) -> _Answer:
        """Call `ask` until it no longer raises Unavailable, with increasing pauses."""

        def tell(reason: str, attempt: int) -> None:
            self.log.warning("waiting", for_=what, reason=reason, attempt=attempt)
            self.page.held_up(self.flow, f"it waits for {what}: {reason}")

        answer = await until_answered(ask, tell, _START_AGAIN)
        self.page.held_up(self.flow, "")
        return answer


def misnamed(settings: Reading) -> list[str]:
    """Problems of settings that need the supplier's operations: unknown names, or one operation's URL as base URL."""
    operations = served().operations
    names = [operation.name for operation in operations]
    supplier = settings.supplier
    told: Mapping[str, Iterable[str]] = {"SOAP_ACTIONS": supplier.soap_actions, "DOUBT_LIMITS": supplier.doubt_limits}
    problems = [
        f"ADAPTER_SUPPLIER__{setting}: there is no operation {name[:100]}; there are {', '.join(names)}"
        for setting, entries in told.items()
        for name in entries
        if name not in names
    ]
    url = (supplier.base_url or "").lower()
    return problems + [
        f"ADAPTER_SUPPLIER__BASE_URL: ends with {operation.path}; leave that off, each operation's is put behind it"
        for operation in operations
        if url.endswith(operation.path.lower())
    ]


def load_catalogue(settings: Offline) -> Catalogue:
    """The supplier's operations, compiled from the schemas, by the rules that the settings have for the supplier, if
    they have a section for it. Raises Stop with everything that does not fit.
    """
    if not isinstance(settings, Reading):
        return catalogue.load(served(), settings.schemas)
    if problems := misnamed(settings):
        raise Stop(*problems)
    supplier = served(
        reservation_key_rule=settings.supplier.reservation_key_rule,
        unique_references=settings.supplier.unique_references,
        time_zone=settings.supplier.time_zone,
    )
    return catalogue.load(supplier, settings.schemas)


def base_url(settings: Calling, known: Catalogue) -> str:
    supplier = settings.supplier
    if supplier.base_url is not None:
        return supplier.base_url
    assert supplier.environment is not None, "settings have one of the two"
    return known.supplier.environments[supplier.environment.value]


async def encoders(
    settings: Vocabulary, registry: HttpRegistry, starting: Starting, written: Mapping[str, Collection[Schema]]
) -> dict[str, Encoder]:
    """As `registry.encoders`, but waits until the registry is available. Raises Stop."""
    return await starting.until_available("the schema registry", lambda: look_up(settings, registry, written))


def membership(kafka: Kafka, group: str, *, giving_back: timedelta) -> dict[str, str]:
    """Client properties of a member of that consumer group, which may take up to `giving_back` to release partitions.

    That is also how long a rebalance waits for a member that does not answer because it was killed meanwhile; by
    default librdkafka makes all members wait for five minutes. (Rebalance timeout, KIP-62; KIP-848.) A member learns of
    a rebalance with its next heartbeat, and partitions move in two rebalances (KIP-429): with librdkafka's interval of
    3 s a worker that joins gets its share after 4 to 6 s, with a tenth of the session timeout after 2.
    """
    patience = max(giving_back, kafka.session_timeout) + _REJOIN
    member = {
        "group.id": group,
        "group.protocol": kafka.group_protocol.value,
        "max.poll.interval.ms": str(patience // timedelta(milliseconds=1)),
    }
    if kafka.group_protocol is GroupProtocol.CLASSIC:  # with KIP-848 the broker decides both
        member["partition.assignment.strategy"] = "cooperative-sticky"
        member["session.timeout.ms"] = str(kafka.session_timeout // timedelta(milliseconds=1))
        member["heartbeat.interval.ms"] = str((kafka.session_timeout / 10) // timedelta(milliseconds=1))
    return member


def offset_patience(kafka: Kafka, log: Log) -> Patience:
    """How long to wait for an offset that an open transaction of a lost owner may keep back: its time limit plus the
    interval in which the coordinator aborts expired ones
    (`transaction.abort.timed.out.transaction.cleanup.interval.ms`), twice over.
    """

    def told(partition: int, seconds: float) -> None:
        log.warning("committed offset kept back", partition=partition, seconds=round(seconds, 1))

    return Patience(2 * (kafka.transaction_timeout + _LIMITS_LOOKED_AT), told)


@asynccontextmanager
async def traced(telemetry: Telemetry) -> AsyncIterator[Tracer | None]:
    """A tracer, if tracing is on; its spans are flushed at the end. Raises Stop."""
    tracer = await asyncio.to_thread(open_tracer) if telemetry.tracing else None
    try:
        yield tracer
    finally:
        if tracer is not None:
            await asyncio.to_thread(tracer.close)


COMMITTED, ABORTED = "committed", "aborted"


def transactions_observer(metrics: Metrics) -> Callable[[float, int], None]:
    """Counts transactions; the returned function is to be called with (seconds, records) of each committed one."""
    metrics.begin(m.TRANSACTIONS, (COMMITTED, ABORTED))
    committed = metrics.counter(m.TRANSACTIONS, COMMITTED)
    seconds, records = metrics.histogram(m.TRANSACTION_SECONDS), metrics.histogram(m.TRANSACTION_RECORDS)

    def observe(took: float, count: int) -> None:
        committed.inc()
        seconds.observe(took)
        records.observe(count)

    return observe


def throttled(client: str, log: Log, metrics: Metrics) -> Callable[[float], None]:
    """Counts for how long a quota holds this client back; a log line now and then says so. The returned function is to
    be called with the seconds of each time. Threads may share it: a line may then come twice.
    """
    counter = metrics.counter(m.KAFKA_THROTTLED)
    told_at, untold = -inf, 0.0

    def throttle(seconds: float) -> None:
        nonlocal told_at, untold
        counter.inc(seconds)
        untold += seconds
        if monotonic() - told_at >= _THROTTLED_AGAIN:
            log.warning("Kafka throttles us", client=client, seconds=round(untold, 1))
            told_at, untold = monotonic(), 0.0

    return throttle


@asynccontextmanager
async def transactions(
    settings: Bus, topic: str, group: str, log: Log, metrics: Metrics
) -> AsyncIterator[TransactionalProducer]:
    """A producer that commits records together with the consumed offsets of `topic`. Raises Stop."""

    def not_committed(why: str) -> None:
        metrics.count(m.TRANSACTIONS, ABORTED)
        log.warning("transaction not committed", reason=why)

    transactor = TransactionalProducer(
        client=settings.kafka.client(),
        topic=topic,
        group=group,
        transactional_id=f"{settings.kafka.transactional_id_prefix}-{socket.gethostname()}-{uuid4().hex}",
        timeout=settings.kafka.transaction_timeout,
        max_message_bytes=settings.topics.max_message_bytes,
        report=not_committed,
        waits=lambda why, seconds: log.warning("transaction waits", reason=why, seconds=round(seconds, 1)),
        throttled=throttled("producer", log, metrics),
    )
    try:
        await transactor.open()
        yield transactor
    finally:
        await transactor.close()
