"""The worker: commands from Kafka become calls to the supplier, outcomes become events.

One event loop owns all state. Records queue in lanes, one per key and partition; each lane with work has one task.
What has to be durable goes through the ledger.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

from adapter.core import journal
from adapter.core.avro.lookup import LOST, Decoders
from adapter.core.errors import Foreign, Stop, Unavailable, Undecodable
from adapter.core.journal import Entry, Extent, Kind, Source
from adapter.core.offsets import Frontier
from adapter.core.partition import partition_of
from adapter.pause import until_answered
from adapter.ports import Intake, IntakeListener, JournalReader, JournalTail
from adapter.telemetry import Log, Metrics
from adapter.telemetry import metrics as m
from adapter.worker.assignment import Assignment, Item
from adapter.worker.conductor import Conductor
from adapter.worker.gate import Gate
from adapter.worker.ledger import Ledger, Work
from adapter.worker.memory import Memory
from adapter.worker.pace import Cohort, Pace
from adapter.worker.room import AHEAD, LONG, Room
from adapter.worker.window import Bounds, Window

_REWRITE: Final = 20_000
"""Journal entries that may lie behind a resident's before it is written forward."""
REWRITE_AFTER: Final = 6 * 3600.0
"""Seconds after which it is written forward though nothing lies behind it: the journal must be kept well longer."""
_TICK: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """The parts of a worker; `app.worker` puts them together.

    Three of them are made by callables because they need each other: an intake calls its listener, the worker; the
    ledger asks the intake; the conductor, which runs the lanes, asks for the worker's partitions.
    """

    intake: Callable[[IntakeListener], Intake]
    ledger: Callable[[Intake, Pace, Callable[[], bool]], Ledger]
    conductor: Callable[["Worker"], Conductor]
    journal: JournalReader
    entries: Decoders
    """Of the journal's records."""
    gate: Gate
    bounds: Bounds
    memory: Memory
    partitions: int
    """Of the commands topic."""
    call_limit: float
    """Seconds to wait for calls under way when their partition is revoked."""
    commit_limit: float
    """Seconds to wait for their commit then: the cluster ends a transaction that takes longer."""
    log: Log
    metrics: Metrics
    ahead: int = AHEAD
    long_asleep: float = LONG


class Worker(IntakeListener):
    """One member of the consumer group."""

    def __init__(self, wiring: Wiring) -> None:
        self._w = wiring
        self._log = wiring.log
        self.assignments: dict[int, Assignment] = {}
        self.intake = wiring.intake(self)
        self.commits, self.replies, self.cohort = Pace(), Pace(), Cohort()
        self.ledger = wiring.ledger(self.intake, self.commits, self._busy)
        self.window = Window(wiring.bounds, self.intake)
        self.room = Room(
            gate=wiring.gate,
            cohort=self.cohort,
            ahead=wiring.ahead,
            long_asleep=wiring.long_asleep,
            start=self._start,
            wakes_in=lambda assignment, lane: self.conductor.wakes_in(assignment, lane),  # noqa: PLW0108 -- made below
        )
        self.conductor = wiring.conductor(self)
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._easing = False

    def _busy(self) -> bool:
        """Whether lanes have something to do before they wait again."""
        return bool(self.commits.waiting or self.replies.waiting or self.cohort.waiting)

    def open(self) -> None:
        """Join the group; `run` has to follow."""
        self.intake.open()

    async def close(self) -> None:
        """Leave the group. While `run` runs, what is under way is finished first."""
        await self.intake.close()

    async def run(self) -> None:
        """Work until cancelled. Raises what makes it impossible to go on; where it can it leaves the group before."""
        runners = (self.ledger.run, self.commits.run, self.replies.run, self.room.run, self._keep)
        tasks = {asyncio.create_task(work()) for work in runners}
        try:
            done, _ = await asyncio.wait({*tasks, self._failure}, return_when=asyncio.FIRST_COMPLETED)
            if done == {self._failure}:  # commits still work, so nothing under way has to end in doubt
                self._log.error("stopping", reason=str(self._failure.exception()))
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._w.call_limit + self._w.commit_limit):
                        await self.close()
            for ended in done:
                ended.result()
        finally:
            for task in tasks:
                task.cancel()
            for assignment in list(self.assignments.values()):  # nothing can be committed any more
                assignment.close()
                self._drop(assignment)

    def finished(self, assignment: Assignment, item: Item) -> None:
        """A record is done and committed."""
        if assignment.items.pop(item.source.offset, None) is not None:
            self.window.remove(item)
            self._ease()
            if not self.window.records:
                self.intake.held(0)

    # -- callbacks of the intake -------------------------------------------------------------------------------------

    def assigned(self, epochs: Mapping[int, int]) -> None:
        for partition, epoch in epochs.items():
            assignment = self.assignments[partition] = Assignment(partition, epoch)
            self._supervise(assignment.start(None, self._take_over(assignment)))
        self._log.info("partitions assigned", partitions=sorted(epochs), owned=sorted(self.assignments))

    async def revoked(self, partitions: Sequence[int]) -> None:
        began = time.monotonic()
        leaving = [a for p in partitions if (a := self.assignments.get(p)) is not None]
        ending = [task for assignment in leaving for task in assignment.close()]
        if ending:
            await asyncio.wait(ending, timeout=self._w.call_limit)
        # If the journal was not read, nothing was begun, and it is not known what to commit.
        flushes = [asyncio.ensure_future(self.ledger.flush(a)) for a in leaving if a.recovered is not None]
        if flushes:
            await asyncio.wait(flushes, timeout=self._w.commit_limit)
        for flush in flushes:
            flush.cancel()
        for assignment in leaving:
            self._drop(assignment)
        self._log.info(
            "partitions given back", partitions=sorted(partitions), seconds=round(time.monotonic() - began, 3)
        )

    def lost(self, partitions: Sequence[int]) -> None:
        for partition in partitions:
            assignment = self.assignments.get(partition)
            if assignment is not None:
                assignment.close()
                self._drop(assignment)
        self._log.warning("partitions lost", partitions=sorted(partitions))

    def delivered(self, records: Sequence[tuple[int, Source]]) -> None:
        now = time.monotonic()
        for epoch, source in records:
            assignment = self.assignments.get(source.partition)
            if assignment is None or assignment.epoch != epoch or assignment.closing:
                continue
            if not assignment.frontier.deliver(source.offset, source.leader_epoch):
                continue
            if assignment.passed(source):
                self.ledger.enter(Work(assignment, finish=source.offset, then=self._ease))
                continue
            item = Item(source, now)
            assignment.items[source.offset] = item
            self.window.add(item)
            self._queue(assignment, item)
        self.window.throttle(self.assignments.values())
        self.intake.held(self.window.records)

    def failed(self, error: Exception) -> None:
        if not self._failure.done():
            self._failure.set_exception(error)

    # -- partitions --------------------------------------------------------------------------------------------------

    async def _take_over(self, assignment: Assignment) -> None:
        """Read the journal, take up the commands that are only there, then start delivery of the partition."""
        number = assignment.partition
        tail, entries = await until_answered(
            partial(self._read_journal, number), partial(self._log.warning, "journal not readable", partition=number)
        )
        recovered = assignment.recovered = journal.recover((entry for _, entry in entries), tail.position)
        ended = [entry.at for _, entry in entries if entry.kind is Kind.SETTLED] or [time.time()]
        self._w.memory.learn(recovered.settled, since=0.0 if tail.new else ended[0], at=ended[-1])
        assignment.open = dict(recovered.open)
        assignment.frontier = Frontier(tail.position, tail.leader_epoch)
        assignment.extent = Extent(tail.end, self._w.memory.capacity // self._w.partitions)
        for at, entry in entries:
            unfinished = recovered.open.get(entry.command_id) is entry
            assignment.extent.recovered(at, entry, tail.commands_end, unfinished=unfinished)
        for entry in recovered.residents:
            if entry.source is not None:
                assignment.unfinished[entry.command_id] = entry.digest
                assignment.residents[entry.command_id] = entry
                self._queue(assignment, Item(entry.source, time.monotonic(), entry))
        for state, count in recovered.counts().items():
            self._w.metrics.count(m.JOURNAL_RECOVERED, state, by=count)
        self._log.info(
            "partition started",
            partition=assignment.partition,
            offset=tail.position,
            journal_entries=len(entries),
            **recovered.counts(),
        )
        self.intake.start(assignment.partition, assignment.epoch, tail.position, tail.leader_epoch)

    async def _read_journal(self, partition: int) -> tuple[JournalTail, list[tuple[int, Entry]]]:
        """Raises Unavailable, Stop."""
        tail = await self._w.journal.tail(partition)
        return tail, [(at, entry) for at, value in tail.records for entry in await self._entries(at, value)]

    async def _entries(self, at: int, value: bytes) -> list[Entry]:
        """The entries of a journal record; none for bytes that no release of ours has written.

        To skip an intent would be to call again. So this raises Stop for a record, or an entry of a kind, that only a
        later release knows, and Unavailable for all else that can't be decoded.
        """
        try:
            return journal.entries((await self._w.entries.decode(value)).record)
        except Foreign as why:
            self._log.error("journal entry not readable", reason=why.reason)
            return []
        except Undecodable as why:
            if why.reason == "unknown-record":
                raise Stop(
                    f"the journal has records that this release can't read, {why.detail}: start the later one, "
                    f"or if the registry gives old ids to other schemas, see {LOST}"
                ) from None
            raise Unavailable(f"the record at offset {at}, {why}") from None

    def _queue(self, assignment: Assignment, item: Item) -> None:
        lane = item.source.key or b""
        if assignment.lanes.put(lane, item):
            if lane and partition_of(lane, self._w.partitions) != assignment.partition:
                self._w.metrics.count(m.KEYS_MISPLACED)
            if item.resident is None:
                self.room.add(assignment, lane)
            else:
                self._start(assignment, lane)

    def _start(self, assignment: Assignment, lane: bytes) -> None:
        self._supervise(assignment.start(lane, self.conductor.run(assignment, lane)))

    def _ease(self) -> None:
        """Records are done: look at the window again, once for all of them in this turn of the loop."""
        if self.window.pausing and not self._easing:
            self._easing = True
            asyncio.get_running_loop().call_soon(self._throttle)

    def _throttle(self) -> None:
        self._easing = False
        self.window.throttle(self.assignments.values())

    def _supervise(self, task: "asyncio.Task[None]") -> None:
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            self.failed(error)

    def _drop(self, assignment: Assignment) -> None:
        assignment.alive = False
        for item in assignment.items.values():
            self.window.remove(item)
        assignment.items.clear()
        self.room.forget(assignment)
        if self.assignments.get(assignment.partition) is assignment:
            del self.assignments[assignment.partition]
        self._ease()
        self.intake.held(self.window.records)

    async def _keep(self) -> None:
        """Every second, report partitions that take long to start, and write residents forward."""
        while True:
            await asyncio.sleep(_TICK)
            for number, assignment in self.assignments.items():
                if assignment.recovered is None and (seconds := assignment.starting.due(time.monotonic())):
                    self._log.warning("partition not started", partition=number, seconds=round(seconds, 1))
                self._write_forward(assignment)

    def _write_forward(self, assignment: Assignment) -> None:
        """Write residents once more that hold the mark back, or that retention would reach some day."""
        forward = assignment.forward
        for command_id in assignment.extent.stale(_REWRITE, time.time() - REWRITE_AFTER):
            entry = assignment.residents.get(command_id)
            if entry is not None and command_id not in forward:
                forward.add(command_id)
                self.ledger.enter(Work(assignment, entry=entry, then=partial(forward.discard, command_id)))
