"""The projector: folds the events of each ticket into its current state, each event once.

A partition has one owner. The process commits one transaction after another, for all of its partitions together:
tickets, warnings and the offsets of the events they are folded from. The store of a partition is a copy of what was
committed; it is written after the transaction. The events of a transaction that failed are folded again, with half as
much in one transaction: a cluster that is slow, or holds us back by a quota, may not take it all within
`transaction.timeout.ms`.
"""

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final
from uuid import uuid4

from adapter.core.errors import Abandoned, Unavailable
from adapter.core.journal import Source
from adapter.core.retry import ASK_AGAIN, TRANSACTION_AGAIN
from adapter.pause import pause, until_answered
from adapter.ports import (
    Checkpoint,
    Intake,
    IntakeListener,
    Position,
    Standing,
    TicketLog,
    TicketRecord,
    TicketStore,
    TicketStores,
    Transactor,
)
from adapter.projector.folding import Batch, Folding
from adapter.projector.partition import Partition
from adapter.telemetry import Log, Metrics

_TICK: Final = 1.0
"""Seconds between two looks at what is due."""
_QUEUED: Final = 4000
"""Events of all partitions that may wait in memory before partitions are paused."""
_QUEUED_BYTES: Final = 32 * 1024 * 1024
_MOST: Final = 4000
"""Events of all partitions in one transaction, so that it ends well within `transaction.timeout.ms`."""
_BOUND: Final = 20_000
"""Tickets written before the end of the topic is asked for again; about so many are read again after a crash."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """The parts of a projector; `app.projector` puts them together."""

    intake: Callable[[IntakeListener], Intake]
    transactor: Transactor
    tickets: TicketLog
    stores: TicketStores
    folding: Folding
    revoke_limit: float
    """Seconds to wait for a transaction under way when a partition is revoked."""
    observe: Callable[[float, int], None]
    """Called with (seconds, records) of each transaction."""
    log: Log
    metrics: Metrics


class Projector(IntakeListener):
    """One member of the consumer group."""

    def __init__(self, wiring: Wiring) -> None:
        self._w = wiring
        self._log = wiring.log
        self.partitions: dict[int, Partition] = {}
        self.intake = wiring.intake(self)
        self._ending: dict[int, asyncio.Task[None]] = {}
        """Stores that are being closed, by partition."""
        self._turn = asyncio.Lock()
        """Held during a round, so that no store it works with is closed meanwhile."""
        self._some = asyncio.Event()
        self._tick_at = 0.0
        self._most = _MOST
        """Events that the next round may take."""
        self._identity = ""
        """Of the topics and the group; known once a partition has started."""
        self._life = uuid4().hex[:12]
        self._count = 0
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def open(self) -> None:
        """Join the group; `run` has to follow."""
        self.intake.open()

    async def close(self) -> None:
        """Leave the group. While `run` runs, the round under way is finished first."""
        await self.intake.close()
        for partition in list(self.partitions.values()):  # if the intake could no longer give them back
            self._drop(partition)
        # Shielded, since our caller may give up and call again.
        await asyncio.gather(*(asyncio.shield(ending) for ending in self._ending.values()))

    async def run(self) -> None:
        """Work until cancelled. Raises what makes it impossible to go on."""
        tasks = {asyncio.create_task(self._project()), asyncio.create_task(self._report_late())}
        try:
            done, _ = await asyncio.wait({*tasks, self._failure}, return_when=asyncio.FIRST_COMPLETED)
            for ended in done:
                ended.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    # -- callbacks of the intake -------------------------------------------------------------------------------------

    def assigned(self, epochs: Mapping[int, int]) -> None:
        for number, epoch in epochs.items():
            partition = self.partitions[number] = Partition(number, epoch)
            partition.taking_over = asyncio.get_running_loop().create_task(
                self._take_over(partition, self._ending.get(number))
            )
            partition.taking_over.add_done_callback(self._ended)
        self._log.info("partitions assigned", partitions=sorted(epochs), owned=sorted(self.partitions))

    async def revoked(self, partitions: Sequence[int]) -> None:
        began = time.monotonic()
        leaving = [p for number in partitions if (p := self.partitions.get(number)) is not None]
        for partition in leaving:
            partition.closing = True
        with suppress(TimeoutError):
            async with asyncio.timeout(self._w.revoke_limit), self._turn:
                pass  # the round under way has ended: no open transaction has anything of these partitions
        ending = [self._drop(partition) for partition in leaving]
        if not self._turn.locked():
            await asyncio.gather(*ending)
        self._log.info(
            "partitions given back", partitions=sorted(partitions), seconds=round(time.monotonic() - began, 3)
        )

    def lost(self, partitions: Sequence[int]) -> None:
        for number in partitions:
            if (partition := self.partitions.get(number)) is not None:
                self._drop(partition)
        self._log.warning("partitions lost", partitions=sorted(partitions))

    def delivered(self, records: Sequence[tuple[int, Source]]) -> None:
        for epoch, source in records:
            partition = self.partitions.get(source.partition)
            if partition is not None and partition.epoch == epoch:
                partition.deliver(source)
        self._throttle()
        self._some.set()

    def at_end(self, number: int, epoch: int, offset: int, leader_epoch: int | None) -> None:
        """There is nothing to deliver of this partition for now."""
        partition = self.partitions.get(number)
        if partition is not None and partition.epoch == epoch:
            partition.reached_end(offset, leader_epoch)

    def failed(self, error: Exception) -> None:
        if not self._failure.done():
            self._failure.set_exception(error)

    # -- partitions --------------------------------------------------------------------------------------------------

    async def _take_over(self, partition: Partition, before: "asyncio.Task[None] | None") -> None:
        """Bring its store up to date with the topic, then start delivery of its events."""
        if before is not None:
            await before
        began, number, attempt = time.monotonic(), partition.number, 0
        while not partition.closing:
            attempt += 1
            try:
                standing, read = await self._complete(partition)
            except Unavailable as error:
                if not partition.closing:
                    self._log.warning("tickets not readable", partition=number, reason=str(error), attempt=attempt)
                    await pause(ASK_AGAIN, attempt)
                continue
            partition.begin(standing.position, standing.leader_epoch)
            self._log.info(
                "partition started",
                partition=number,
                offset=standing.position,
                tickets=partition.tickets,
                read=read,
                seconds=round(time.monotonic() - began, 3),
            )
            self.intake.start(number, partition.epoch, standing.position, standing.leader_epoch)
            return

    async def _complete(self, partition: Partition) -> tuple[Standing, int]:
        """Read into the store what it lacks; where the partition stands, and how many offsets were read.

        Raises Unavailable.
        """
        number = partition.number
        self._identity = await self._w.tickets.identity()
        store = partition.store = partition.store or await self._w.stores.open(number, self._identity)
        standing = await self._w.tickets.standing(number, lambda: not partition.closing)
        start = await _start(store, standing)
        await self._w.tickets.read(number, start, standing.last, store.load, lambda: not partition.closing)
        await store.save((), Checkpoint(standing.transaction, standing.last))
        partition.bound = standing.last
        partition.tickets = await store.count()
        return standing, standing.last - start

    def _drop(self, partition: Partition) -> "asyncio.Task[None]":
        """It is no longer ours: forget it, and close its store once no round uses it."""
        partition.closing, partition.alive = True, False
        partition.queue.clear()
        if self.partitions.get(partition.number) is partition:
            del self.partitions[partition.number]
            task = asyncio.get_running_loop().create_task(self._end(partition))
            task.add_done_callback(self._ended)
            self._ending[partition.number] = task
        return self._ending[partition.number]

    async def _end(self, partition: Partition) -> None:
        if partition.taking_over is not None:
            await asyncio.wait((partition.taking_over,))
        async with self._turn:
            if partition.store is not None:
                await partition.store.close()

    def _throttle(self) -> None:
        """Pause partitions with waiting events while there are too many events in memory, and partitions whose events
        can't be read for now; the events of these do not count, so that the others go on. Polling goes on.
        """
        readable = [p for p in self.partitions.values() if not p.attempts]
        events = sum(len(p.queue) for p in readable)
        full = events > _QUEUED or sum(p.size for p in readable) > _QUEUED_BYTES
        for partition in self.partitions.values():
            if partition.queue and (full or partition.attempts) and not partition.paused:
                partition.paused = True
                self.intake.pause(partition.number, partition.epoch)
            elif not (full or partition.attempts) and partition.paused:
                partition.paused = False
                self.intake.resume(partition.number, partition.epoch)
        self.intake.held(events)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            self.failed(error)

    # -- rounds ------------------------------------------------------------------------------------------------------

    async def _project(self) -> None:
        refused = 0
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, self._tick_at - time.monotonic())):
                    await self._some.wait()
            self._some.clear()
            async with self._turn:
                refused = 0 if await self._round() else refused + 1
            if refused:
                await pause(TRANSACTION_AGAIN, refused)

    async def _round(self) -> bool:
        """One transaction for the events that have come and the timers that are due; False if it failed."""
        now = time.monotonic()
        if timers := now >= self._tick_at:
            self._tick_at = now + _TICK
        ready = [
            p
            for p in self.partitions.values()
            if p.started and not p.closing and now >= p.not_before and (p.queue or timers)
        ]
        some = random.sample(ready, min(len(ready), self._most))  # by chance, so that each has its turn
        asked = [self._fold(p, timers=timers, most=self._most // len(some)) for p in some]
        batches = [batch for batch in await asyncio.gather(*asked) if batch and batch.partition.alive]
        committed = not batches or await self._commit(batches)
        self._throttle()
        if any(p.queue and p.not_before <= now for p in self.partitions.values()):
            self._some.set()
        if any(batch.more for batch in batches):
            self._tick_at = 0.0
        return committed

    async def _fold(self, partition: Partition, *, timers: bool, most: int) -> Batch | None:
        try:
            if partition.written > _BOUND:
                standing = await self._w.tickets.standing(partition.number, lambda: not partition.closing)
                partition.bound, partition.written = standing.last, 0
            batch = await self._w.folding.fold(partition, timers=timers, most=most)
        except Abandoned:
            return None
        except Unavailable as error:
            partition.attempts += 1
            delay = ASK_AGAIN.delay(partition.attempts, random.random())  # noqa: S311 -- jitter
            partition.not_before = time.monotonic() + delay
            self._log.warning("events not readable", partition=partition.number, reason=str(error))
            return None
        partition.attempts = 0
        return batch

    async def _commit(self, batches: Sequence[Batch]) -> bool:
        """Whether the batches are committed; if not, their events are in the queues again."""
        self._count += 1
        name = f"{self._identity}/{self._life}-{self._count}"
        records = [record for batch in batches for record in batch.records]
        positions = [Position(b.partition.number, b.position, name, b.leader_epoch) for b in batches]
        claim = partial(self.intake.membership, [(b.partition.number, b.partition.epoch) for b in batches])
        began = time.monotonic()
        if not await self._w.transactor.commit(records, positions, claim):
            for batch in batches:
                batch.partition.put_back(batch.taken)
            self._most = max(1, len(records) // 2)
            return False
        self._w.observe(time.monotonic() - began, len(records))
        self._most = min(_MOST, self._most + self._most // 8 + 1)
        await asyncio.gather(*(self._committed(batch, name) for batch in batches))
        return True

    async def _committed(self, batch: Batch, name: str) -> None:
        partition = batch.partition
        partition.position, partition.leader_epoch = batch.position, batch.leader_epoch
        partition.tickets += batch.births
        partition.written += len(batch.kept)
        batch.tell(self._log, self._w.metrics)
        await self._keep_copy(partition, batch.kept, Checkpoint(name, partition.bound))

    async def _keep_copy(self, partition: Partition, kept: Sequence[TicketRecord], checkpoint: Checkpoint) -> None:
        """Write to the store what was committed. Nothing more is folded before; the next owner has the topic."""

        async def save() -> None:
            assert partition.store is not None, "a partition that was started has one"
            try:
                await partition.store.save(kept, checkpoint)
            except Unavailable:
                if not partition.closing:
                    raise

        await until_answered(save, partial(self._log.warning, "tickets not kept", partition=partition.number))

    async def _report_late(self) -> None:
        """Report partitions that take long to start."""
        while True:
            await asyncio.sleep(_TICK)
            for number, partition in self.partitions.items():
                if not partition.started and (seconds := partition.starting.due(time.monotonic())):
                    self._log.warning("partition not started", partition=number, seconds=round(seconds, 1))


async def _start(store: TicketStore, standing: Standing) -> int:
    """The offset from which the tickets topic must be read to complete the store."""
    known = store.checkpoint
    if known is not None and standing.first <= known.tickets <= standing.last:
        return standing.last if known.transaction == standing.transaction != "" else known.tickets
    await store.clear()
    return standing.first
