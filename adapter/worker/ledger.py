"""Group commit: outcomes, journal entries and offsets of many commands in one transaction after another.

Work is committed in the order in which it was entered. A transaction begins only if all its work belongs to partitions
that are ours at that moment; work of partitions that were lost is dropped. A transaction that fails while they are
still ours is sent again.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic, time
from typing import Final
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
    counted: bool = False
    """Whether frontier and extent know of it."""

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
            if batch := self._take():
                began = monotonic()
                positions = self._positions(batch)
                journal = self._journaled(batch)
                records = [record for work in batch for record in work.records]
                records += (record for written in journal.values() for record in written)
                owners = {work.assignment for work in batch}
                claim = partial(self._intake.membership, [(owner.partition, owner.epoch) for owner in owners])
                if await self._transactor.commit(records, positions, claim):
                    for assignment, written in journal.items():
                        assignment.extent.committed(len(written))
                    for work in batch:
                        self._commits.soon(work.tell)
                    self._observe(monotonic() - began, len(records))
                    refused = 0
                else:
                    self._queue.extendleft(reversed(batch))
                    refused += 1
                    await pause(TRANSACTION_AGAIN, refused)
            if not self._queue:
                self._some.clear()

    def _take(self) -> list[Work]:
        """The next batch; work of ended assignments is dropped."""
        batch: list[Work] = []
        records = size = 0
        queue = self._queue
        while queue and records < _MOST_RECORDS and size < _MOST_BYTES:
            work = queue.popleft()
            if work.assignment.alive:
                batch.append(work)
                records += len(work.records) + 1
                size += work.size
            elif work.committed is not None:
                work.committed.cancel()
        return batch

    def _journaled(self, batch: Sequence[Work]) -> dict[Assignment, list[Outgoing]]:
        """The journal records of the batch: each partition's entries, in order."""
        entries: dict[Assignment, list[Entry]] = {}
        for work in batch:
            if work.entry is not None:
                entries.setdefault(work.assignment, []).append(work.entry)
        return {assignment: self._entries(some, assignment.partition) for assignment, some in entries.items()}

    def _positions(self, batch: Sequence[Work]) -> list[Position]:
        """What is committed for each partition of the batch: its frontier once this work is done, and the mark."""
        self._count += 1
        touched: dict[int, Assignment] = {}
        for work in batch:
            assignment = work.assignment
            touched[assignment.partition] = assignment
            if not work.counted:  # a batch that is sent again was counted the first time
                work.counted = True
                if work.entry is not None:
                    work.entry = assignment.extent.known(work.entry, time())
                if work.finish is not None:
                    assignment.frontier.finish(work.finish)
        number = f"{self._life}-{self._count}"
        positions = []
        for partition, assignment in touched.items():
            frontier, extent = assignment.frontier, assignment.extent
            mark = extent.mark(frontier.position)
            told = Mark(mark, extent.memory(mark), self._journal, self._topic, number, extent.needed)
            positions.append(Position(partition, frontier.position, told.text(), frontier.leader_epoch))
        return positions
