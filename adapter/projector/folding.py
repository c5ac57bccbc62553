"""Folds the delivered events of a partition, and the timers that are due, into what is to be committed.

The event loop is shared with everything else in the process, so longer work yields to it every few milliseconds.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from adapter.core.avro.lookup import Decoders
from adapter.core.errors import Abandoned, Foreign, Unavailable, Undecodable
from adapter.core.journal import Source
from adapter.core.ticket import Drop, Policy, Status, Ticket, Verdict, Warn, fire, fold, ticket
from adapter.ports import Outgoing, TicketRecord
from adapter.projector.partition import Partition
from adapter.projector.reader import Heard, Reader
from adapter.projector.records import Records
from adapter.telemetry import Log, Metrics
from adapter.telemetry import metrics as m

_EVENTS: Final = 512
"""The most events of a partition in one transaction."""
_AT_ONCE: Final = 64
"""Tickets read from the store at once: each may be as long as a record."""
_BYTES: Final = 4 * 1024 * 1024
"""Bytes of events and tickets after which a batch takes no more."""
_LATER: Final = 15.0
"""Seconds until timers are tried again after tickets could not be read."""
_SLICE: Final = 0.004
"""Seconds of work before the loop gets its turn."""


@dataclass(slots=True, eq=False)
class Batch:
    """What a partition adds to a transaction."""

    partition: Partition
    position: int
    """The next offset to fold once this is committed."""
    leader_epoch: int | None
    """Leader epoch of the record before it."""
    taken: list[Source] = field(default_factory=list)
    """Its events."""
    tickets: dict[bytes, Ticket | None] = field(default_factory=dict)
    """The tickets that were read, as they are after this batch; None: there is no such ticket."""
    changed: set[bytes] = field(default_factory=set)
    births: int = 0
    """By how many there are more tickets after it."""
    records: list[Outgoing] = field(default_factory=list)
    kept: list[TicketRecord] = field(default_factory=list)
    counts: Counter[tuple[m.Metric, tuple[str, ...]]] = field(default_factory=Counter)
    durations: list[tuple[m.Metric, tuple[str, ...], timedelta]] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)
    """References of tickets whose deadline approaches."""
    size: int = 0
    more: bool = False
    """Whether more timers are due than are in this batch."""
    began: float = field(default_factory=time.monotonic)

    def __bool__(self) -> bool:
        return self.position > self.partition.position or bool(self.records or self.kept)

    def count(self, metric: m.Metric, *labels: str) -> None:
        """Count it once this batch is committed."""
        self.counts[metric, labels] += 1

    def observe(self, duration: timedelta, metric: m.Metric, *labels: str) -> None:
        """Observe it once this batch is committed."""
        self.durations.append((metric, labels, duration))

    def settle(self, key: bytes, ticket: Ticket | None) -> None:
        self.births += (ticket is not None) - (self.tickets.get(key) is not None)
        self.tickets[key] = ticket
        self.changed.add(key)

    def tell(self, log: Log, metrics: Metrics) -> None:
        """It is committed."""
        for reference in self.warned:
            log.info("deadline approaches", reference=reference, partition=self.partition.number)
        for (metric, labels), number in self.counts.items():
            metrics.count(metric, *labels, by=number)
        for metric, labels, duration in self.durations:
            metrics.histogram(metric, *labels).observe(duration.total_seconds())

    async def breathe(self) -> None:
        """Yield to the loop if it is time. Raises Abandoned if the partition is gone."""
        if time.monotonic() - self.began > _SLICE:
            await asyncio.sleep(0)
            self.began = time.monotonic()
        if not self.partition.alive:
            raise Abandoned


class Folding:
    def __init__(self, *, reader: Reader, tickets: Decoders, records: Records, policy: Policy, log: Log) -> None:
        """`tickets` decodes the records in a store."""
        self._reader = reader
        self._tickets = tickets
        self._records = records
        self._policy = policy
        self._log = log

    async def fold(self, partition: Partition, *, timers: bool, most: int) -> Batch:
        """The next batch: at most `most` events, and with `timers` as many timers that are due. Raises Abandoned,
        Unavailable; the events are then in the queue again.
        """
        batch = Batch(partition, partition.position, partition.leader_epoch)
        most = min(most, _EVENTS)
        try:
            while len(batch.taken) < most and batch.size < _BYTES and partition.queue and not partition.closing:
                some = partition.take(min(_AT_ONCE, most - len(batch.taken)))
                batch.taken += some
                await self._events(batch, some)
            if timers and not partition.closing:
                position, leader_epoch = partition.finished
                if position > batch.position:
                    batch.position, batch.leader_epoch = position, leader_epoch
                if time.monotonic() >= partition.timers_after:
                    await self._timers(batch, min(_AT_ONCE, most))
            await self._write(batch)
        except Exception:
            partition.put_back(batch.taken)
            raise
        return batch

    async def _events(self, batch: Batch, sources: Sequence[Source]) -> None:
        heard: list[Heard] = []
        for source in sources:
            read = await self._reader.read(source)
            batch.size += len(source.value or b"")
            if isinstance(read, Heard):
                heard.append(read)
            else:
                batch.count(m.TICKET_EVENTS, read.result)
                if read.reason:
                    self._log.warning(
                        "event not readable", partition=source.partition, offset=source.offset, reason=read.reason
                    )
            await batch.breathe()
        keys = {each.reference.encode() for each in heard} - batch.tickets.keys()
        assert batch.partition.store is not None, "a partition that was started has one"
        await self._know(batch, await batch.partition.store.find(keys))
        for each in heard:
            key = each.reference.encode()
            folded = fold(batch.tickets.get(key), each.reference, each.event, self._policy)
            batch.count(m.TICKET_EVENTS, folded.verdict.value)
            if folded.illegal is not None:
                batch.count(m.TICKET_TRANSITIONS_ILLEGAL, folded.illegal.before.value, folded.illegal.after.value)
            if folded.left is not None:
                batch.observe(folded.left.lasted, m.TICKET_STATUS_SECONDS, folded.left.status.value)
                if folded.ticket.status is Status.RESOLVED:
                    batch.observe(folded.ticket.ran, m.TICKET_SLA_SECONDS)
            if folded.verdict is not Verdict.REPEATED:
                batch.settle(key, folded.ticket)
            await batch.breathe()
        batch.position, batch.leader_epoch = sources[-1].offset + 1, sources[-1].leader_epoch

    async def _timers(self, batch: Batch, most: int) -> None:
        partition = batch.partition
        assert partition.store is not None, "a partition that was started has one"
        due = await partition.store.due(int(partition.clock() * 1000), most)
        try:
            await self._know(batch, {each.key: each.value or b"" for each in due})
        except Unavailable as error:  # events need not wait for the timers of other tickets
            self._log.warning("tickets not readable", partition=partition.number, reason=str(error))
            partition.timers_after = time.monotonic() + _LATER
            return
        batch.more = len(due) == most
        now = datetime.now(UTC)
        for each in due:
            known = batch.tickets[each.key]
            if (
                known is None
            ):  # not a ticket of ours: nothing to fire, and its record in the topic is not ours to remove
                batch.kept.append(TicketRecord(each.key, each.value))
                continue
            match fire(known, self._policy, now):
                case Warn() as warn:
                    batch.records.append(self._records.warned(warn, partition.number))
                    batch.settle(each.key, warn.ticket)
                    batch.count(m.TICKET_WARNINGS)
                    batch.warned.append(warn.ticket.reference)
                case Drop():
                    batch.settle(each.key, None)
                    batch.count(m.TICKETS_FORGOTTEN)
                case None:  # the ticket has changed in this batch, or the settings since it was written
                    batch.settle(each.key, known)
            await batch.breathe()

    async def _know(self, batch: Batch, found: Mapping[bytes, bytes]) -> None:
        """Decode the tickets that this batch has not read yet. Bytes that no release of ours has written count as no
        ticket. Raises Unavailable for all else that can't be decoded: to take a ticket for none would be to lose it.
        """
        for key, value in found.items():
            if key in batch.tickets:
                continue
            batch.size += len(value)
            try:
                batch.tickets[key] = ticket((await self._tickets.decode(value)).record)
            except Foreign as why:
                self._log.error("ticket not readable", partition=batch.partition.number, reason=why.reason)
                batch.tickets[key] = None
            except Undecodable as why:
                raise Unavailable(f"the ticket {key.decode(errors='replace')}, {why}") from None
            await batch.breathe()

    async def _write(self, batch: Batch) -> None:
        for key in batch.changed:
            after = batch.tickets[key]
            kept, trimmed = (TicketRecord(key, None), False) if after is None else self._records.keep(after)
            if trimmed:
                batch.count(m.TICKETS_TRIMMED)
            batch.kept.append(kept)
            batch.records.append(self._records.written(kept, batch.partition.number))
            await batch.breathe()
