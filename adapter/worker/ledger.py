"""Group commit: outcomes, journal entries and offsets of many commands in one transaction after another.

Work is committed in the order in which it was entered. A transaction begins only if all its work belongs to partitions
that are ours at that moment; work of partitions that were lost is dropped. What a transaction that failed while they
are still ours held is sent again, with half as much in one transaction: a cluster that is slow, or holds us back by a
quota, may not take it all within `transaction.timeout.ms`, and what it had taken by then was in vain.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic, time
from typing import Final, NamedTuple
from uuid import uuid4

from adapter.core.journal import Entry, Mark
from adapter.core.retry import TRANSACTION_AGAIN
from adapter.pause import pause
from adapter.ports import Intake, Outgoing, Position, Transactor
from adapter.worker.assignment import Assignment
from adapter.worker.pace import Pace

_MOST_RECORDS: Final = 4000
_MOST_BYTES: Final = 8 * 1024 * 1024
"""Limits of one transaction, so that it ends well within `transaction.timeout.ms`."""
_LOT_RECORDS: Final = 64
_LOT_BYTES: Final = 32 * 1024
"""A lot is complete with so much: what even a slow cluster takes within `transaction.timeout.ms`."""
_COMPANY: Final = 0.025
"""The least seconds between the starts of two transactions while the loop has more to do, so that its results go into
the next one. A transaction's thread needs the interpreter a dozen times; while a thread waits for it, the loop wakes it
up in vain with every system call.
"""
_LOOK: Final = 0.002
_TURNS: Final = 4
"""Turns of the loop that a lane needs from an outcome to its next intent: both go into one transaction."""


@dataclass(slots=True, eq=False)
class Work:
    """What one step of a command adds to a transaction."""

    assignment: Assignment
    records: tuple[Outgoing, ...] = ()
    entry: Entry | None = None
    """Goes into the journal, in the form that the assignment's `Extent` returns."""
    finish: int | None = None
    """Offset of the record that is finished with this commit."""
    committed: "asyncio.Future[None] | None" = None
    """Resolved by the commit; cancelled when the partition is lost."""
    then: Callable[[], None] | None = None
    """Called after the commit."""

    def tell(self) -> None:
        """It is committed."""
        if self.committed is not None and not self.committed.done():
            self.committed.set_result(None)
        if self.then is not None:
            self.then()

    @property
    def size(self) -> int:
        size = 0 if self.entry is None else self.entry.size
        for record in self.records:
            size += len(record.value or b"") + len(record.key or b"") + 200
        return size


class _Stand(NamedTuple):
    """What is committed for a partition, whatever transaction does it."""

    position: int
    leader_epoch: int | None
    mark: int
    memory: int
    needed: bool


@dataclass(slots=True, eq=False)
class _Lot:
    """Work that is never divided. Frontier and extent learn of it once, so a transaction can end with any lot."""

    work: list[Work]
    stands: dict[Assignment, _Stand]
    """Of every partition of this work, once it and all lots before are committed."""
    count: int
    """Records, roughly."""
    size: int
    """Bytes, roughly."""


class Ledger:
    """Lanes `enter` their work, `run` commits it. `observe` is called with (seconds, records) of each transaction."""

    def __init__(
        self,
        *,
        intake: Intake,
        transactor: Transactor,
        commits: Pace,
        busy: Callable[[], bool],
        entries: Callable[[Iterable[Entry], int], list[Outgoing]],
        journal: str,
        topic: str,
        observe: Callable[[float, int], None],
    ) -> None:
        """`commits` resumes the lanes whose work is committed; `busy` says whether lanes have more to do before they
        wait; `entries` makes a partition's journal records; `journal` is the identity of the journal's topic, `topic`
        that of the commands'.
        """
        self._intake = intake
        self._transactor = transactor
        self._commits = commits
        self._busy = busy
        self._entries = entries
        self._journal = journal
        self._topic = topic
        self._observe = observe
        self._queue: deque[Work] = deque()
        self._refused: deque[_Lot] = deque()
        """Sent in vain before; they go before the queue."""
        self._most = _MOST_RECORDS
        """Records at which no further lot is added to a transaction."""
        self._some = asyncio.Event()
        self._life = uuid4().hex[:12]
        self._count = 0

    def enter(self, work: Work) -> None:
        self._queue.append(work)
        self._some.set()

    async def flush(self, assignment: Assignment) -> None:
        """Wait until all work entered for this assignment is committed; CancelledError if the partition is lost."""
        committed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.enter(Work(assignment, committed=committed))
        await committed

    async def run(self) -> None:
        """Commit for ever."""
        refused = 0
        began = 0.0
        while True:
            await self._some.wait()
            for _ in range(_TURNS):
                if not self._busy():
                    break
                await asyncio.sleep(0)
            while self._busy() and monotonic() < began + _COMPANY:  # noqa: ASYNC110 -- it changes with every lane
                await asyncio.sleep(_LOOK)
            if lots := self._take():
                began = monotonic()
                batch = [work for lot in lots for work in lot.work]
                stands = {owner: stand for lot in lots for owner, stand in lot.stands.items() if owner.alive}
                journal = self._journaled(batch)
                records = [record for work in batch for record in work.records]
                records += (record for written in journal.values() for record in written)
                claim = partial(self._intake.membership, [(owner.partition, owner.epoch) for owner in stands])
                if await self._transactor.commit(records, self._positions(stands), claim):
                    for assignment, written in journal.items():
                        assignment.extent.committed(len(written))
                    for work in batch:
                        self._commits.soon(work.tell)
                    self._observe(monotonic() - began, len(records))
                    self._most = min(_MOST_RECORDS, self._most + self._most // 8)
                    refused = 0
                else:
                    self._refused.extendleft(reversed(lots))
                    self._most = max(_LOT_RECORDS, sum(lot.count for lot in lots) // 2)
                    refused += 1
                    await pause(TRANSACTION_AGAIN, refused)
            if not self._queue and not self._refused:
                self._some.clear()

    def _take(self) -> list[_Lot]:
        """The next lots; work of ended assignments is dropped."""
        lots: list[_Lot] = []
        records = size = 0
        while records < self._most and size < _MOST_BYTES:
            lot = self._again() if self._refused else self._next()
            if not lot.work:
                break
            lots.append(lot)
            records += lot.count
            size += lot.size
        return lots

    def _again(self) -> _Lot:
        lot = self._refused.popleft()
        lot.work = [work for work in lot.work if _alive(work)]
        return lot

    def _next(self) -> _Lot:
        """A lot of what the queue holds, which frontier and extent count."""
        lot = _Lot([], {}, count=0, size=0)
        touched: dict[Assignment, None] = {}
        queue = self._queue
        while queue and lot.count < _LOT_RECORDS and lot.size < _LOT_BYTES:
            work = queue.popleft()
            if not _alive(work):
                continue
            lot.work.append(work)
            lot.count += len(work.records) + 1
            lot.size += work.size
            assignment = work.assignment
            touched[assignment] = None
            if work.entry is not None:
                work.entry = assignment.extent.known(work.entry, time())
            if work.finish is not None:
                assignment.frontier.finish(work.finish)
        lot.stands = {assignment: _stand(assignment) for assignment in touched}
        return lot

    def _positions(self, stands: Mapping[Assignment, _Stand]) -> list[Position]:
        self._count += 1
        number = f"{self._life}-{self._count}"
        positions = []
        for owner, (position, leader_epoch, mark, memory, needed) in stands.items():
            told = Mark(mark, memory, self._journal, self._topic, number, needed)
            positions.append(Position(owner.partition, position, told.text(), leader_epoch))
        return positions

    def _journaled(self, batch: Sequence[Work]) -> dict[Assignment, list[Outgoing]]:
        """The journal records of the batch: each partition's entries, in order."""
        entries: dict[Assignment, list[Entry]] = {}
        for work in batch:
            if work.entry is not None:
                entries.setdefault(work.assignment, []).append(work.entry)
        return {assignment: self._entries(some, assignment.partition) for assignment, some in entries.items()}


def _alive(work: Work) -> bool:
    """Whether its partition is still ours; if not, who waits for it hears so."""
    if not work.assignment.alive and work.committed is not None:
        work.committed.cancel()
    return work.assignment.alive


def _stand(assignment: Assignment) -> _Stand:
    frontier, extent = assignment.frontier, assignment.extent
    mark = extent.mark(frontier.position)
    return _Stand(frontier.position, frontier.leader_epoch, mark, extent.memory(mark), extent.needed)
