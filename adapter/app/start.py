"""What all roles have in common at their start and end: schemas, registry, waiting for what is unavailable, signals."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Protocol, TypeVar
from uuid import uuid4

from adapter import catalogue
from adapter.catalogue import Catalogue
from adapter.core.avro import Encoder, Schema
from adapter.core.errors import Stop, Unavailable
from adapter.core.retry import Backoff
from adapter.pause import pause
from adapter.settings import Bus, GroupProtocol, Kafka, Receiving, Settings, Telemetry, Translating, Vocabulary
from adapter.suppliers import served
from adapter.telemetry import Log, Metrics, Tracer, open_tracer, switch_debug
from adapter.telemetry import metrics as m
from adapter.transport.kafka.admin import require_topics
from adapter.transport.kafka.producer import TransactionalProducer
from adapter.transport.kafka.span import Patience
from adapter.transport.registry import HttpRegistry
from adapter.transport.registry import encoders as look_up

_Answer = TypeVar("_Answer")

_START_AGAIN: Final = Backoff(first=0.5, longest=10.0)
_CLOSING: Final = 2.0
"""Seconds for closing the clients once the flows' time limit is over. A client whose cluster is away would take longer.
"""
_CHECK: Final = 5.0
"""Seconds between two checks of the topics."""
_REJOIN: Final = timedelta(seconds=5)
"""Time to rejoin a group after partitions were given back, on a busy machine."""
_GROWN: Final = 'see "Partitions were added" in docs/disaster.md'
_LIMITS_LOOKED_AT: Final = timedelta(seconds=10)
"""Kafka's default interval in which a transaction coordinator aborts transactions that have exceeded their limit."""


def misnamed(settings: Receiving | Translating) -> list[str]:
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


def load_catalogue(settings: Receiving | Translating) -> Catalogue:
    """The supplier's operations, compiled from the schemas. Raises Stop with everything that does not fit."""
    if problems := misnamed(settings):
        raise Stop(*problems)
    supplier = served(
        reservation_key_rule=settings.supplier.reservation_key_rule,
        unique_references=settings.supplier.unique_references,
    )
    return catalogue.load(supplier, settings.schemas, zone=settings.supplier.time_zone)


def base_url(settings: Settings, known: Catalogue) -> str:
    supplier = settings.supplier
    if supplier.base_url is not None:
        return supplier.base_url
    assert supplier.environment is not None, "settings have one of the two"
    return known.supplier.environments[supplier.environment.value]


async def encoders(
    settings: Vocabulary, registry: HttpRegistry, log: Log, written: Mapping[str, Collection[Schema]]
) -> dict[str, Encoder]:
    """As `registry.encoders`, but waits until the registry is available. Raises Stop."""
    return await until_available("the schema registry", lambda: look_up(settings, registry, written), log)


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


@dataclass(frozen=True, slots=True)
class Seen:
    """The topics as they were at the start."""

    partitions: int
    """Number of partitions of each."""
    identities: Mapping[str, str]
    """Identities of the topics whose offsets we remember."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Partitions:
    """Co-partitioned topics: all must have the same number of partitions, so that a key has the same one in each.

    `count` returns the numbers of partitions of the topics that exist, `identify` their identities; both raise
    Unavailable.
    """

    count: Callable[[Sequence[str]], Mapping[str, int]]
    identify: Callable[[Sequence[str]], Mapping[str, str]]
    keyed: tuple[str, ...]
    others: tuple[str, ...] = ()
    """Topics that must exist as well."""
    originals: Mapping[str, str]
    """Topics whose offsets we remember, so that they must not be recreated, with the chapter of docs/disaster.md about
    that.
    """

    def look(self) -> Seen:
        """Examine the topics. Raises Stop if one is missing or their numbers of partitions differ, and Unavailable."""
        counts = self.count((*self.keyed, *self.others))
        require_topics((*self.keyed, *self.others), counts)
        if len({counts[name] for name in self.keyed}) > 1:
            found = ", ".join(f"{name} has {counts[name]}" for name in self.keyed)
            raise Stop(f"topics of one key must have the same number of partitions: {found}; {_GROWN}")
        identities = self.identify(tuple(self.originals))
        require_topics(self.originals, identities)
        return Seen(counts[self.keyed[0]], identities)

    def check(self, before: Seen) -> None:
        """Raises Stop if a topic was repartitioned or recreated since; raises Unavailable.

        A topic that a broker does not know for a moment, because it has just started, counts as unchanged.
        """
        changed = [
            f"{name} had {before.partitions} partitions and has {now}, so keys have moved; {_GROWN}"
            for name, now in self.count(self.keyed).items()
            if now not in (0, before.partitions)
        ]
        changed += [
            f'{name} was deleted and made anew while we ran: see "{self.originals[name]}" in docs/disaster.md'
            for name, now in self.identify(tuple(self.originals)).items()
            if now != before.identities[name]
        ]
        if changed:
            raise Stop(*changed)

    @asynccontextmanager
    async def watched(self, before: Seen, failed: Callable[[Exception], None]) -> AsyncIterator[None]:
        """Check the topics every few seconds within the block. `failed` is called with any error but Unavailable."""

        async def watch() -> None:
            while True:
                await asyncio.sleep(_CHECK)
                try:
                    await asyncio.to_thread(self.check, before)
                except Unavailable:
                    pass
                except Exception as error:  # noqa: BLE001 -- or the flow would go on with topics that nobody checks
                    failed(error)

        watching = asyncio.create_task(watch())
        try:
            yield
        finally:
            watching.cancel()


@asynccontextmanager
async def traced(telemetry: Telemetry) -> AsyncIterator[Tracer | None]:
    """A tracer, if tracing is on; its spans are flushed at the end. Raises Stop."""
    tracer = await asyncio.to_thread(open_tracer) if telemetry.tracing else None
    try:
        yield tracer
    finally:
        if tracer is not None:
            await asyncio.to_thread(tracer.close)


async def until_available(what: str, ask: Callable[[], Awaitable[_Answer]], log: Log) -> _Answer:
    """Call `ask` until it no longer raises Unavailable, with increasing pauses."""
    attempt = 0
    while True:
        attempt += 1
        try:
            return await ask()
        except Unavailable as error:
            log.warning("waiting", for_=what, reason=str(error), attempt=attempt)
            await pause(_START_AGAIN, attempt)


async def before(stop: asyncio.Event, starting: Awaitable[_Answer]) -> _Answer | None:
    """The result of `starting`; None, and `starting` is cancelled, if `stop` is set first."""
    asked = asyncio.ensure_future(stop.wait())
    try:
        async with asyncio.timeout(None) as limit:
            asked.add_done_callback(lambda done: None if done.cancelled() else limit.reschedule(0))
            try:
                return await starting
            finally:
                asked.cancel()
    except TimeoutError:
        if not stop.is_set():
            raise
        return None


class Member(Protocol):
    """A running member of a consumer group."""

    async def run(self) -> None:
        """Work until cancelled. Raises the error that makes it impossible to go on."""
        ...

    async def close(self) -> None:
        """Leave the group; if `run` is still running, work under way is finished first."""
        ...


async def run_until(stop: asyncio.Event, flow: Member, limit: timedelta, log: Log) -> None:
    """Run the flow until `stop` is set, then have it leave its group within the limit. Raises what `run` raises."""
    running, stopping = asyncio.ensure_future(flow.run()), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((running, stopping), return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
        try:
            async with asyncio.timeout(limit.total_seconds()):
                await flow.close()
        except TimeoutError:
            log.warning("not finished within the time limit", limit_seconds=limit.total_seconds())
    finally:
        running.cancel()
        stopping.cancel()


def stop_on_signals(log: Log, limit: timedelta) -> asyncio.Event:
    """An event that is set by the first SIGTERM, SIGINT or SIGHUP. A second SIGTERM or SIGINT ends the process at once,
    and so does the end of `limit` after the first.

    SIGUSR1 switches debug logging on and off.
    """
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def leave(reason: str) -> None:
        log.warning("leaving at once", reason=reason)
        os._exit(0)  # what is unfinished is in the topics, the journal and the spool

    def asked(name: str) -> None:
        if stop.is_set():
            leave("second signal")
        log.info("stopping", signal=name)
        loop.call_later(limit.total_seconds() + _CLOSING, leave, "time limit")
        stop.set()

    def hung_up() -> None:
        if not stop.is_set():  # when a terminal is closed, both the shell and the kernel send SIGHUP
            asked(signal.SIGHUP.name)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked, number.name)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
        loop.add_signal_handler(signal.SIGHUP, hung_up)
    loop.add_signal_handler(signal.SIGUSR1, lambda: log.warning("log level", now=switch_debug()))
    return stop


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
    )
    try:
        await transactor.open()
        yield transactor
    finally:
        await transactor.close()
