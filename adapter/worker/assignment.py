"""One assignment of one partition: its lanes, its frontier, its part of the journal. Dropped with the partition."""

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from adapter.core.errors import Abandoned
from adapter.core.journal import Entry, Extent, Recovered, Source
from adapter.core.lanes import Lanes
from adapter.core.offsets import Frontier
from adapter.core.overdue import Overdue


@dataclass(slots=True, eq=False)
class Item:
    """A record in a lane."""

    source: Source
    received: float
    """Monotonic seconds."""
    resident: Entry | None = None
    """Its last journal entry, if the frontier has passed it: the journal is then the only place that has the record."""

    @property
    def size(self) -> int:
        return len(self.source.value or b"")


class Assignment:
    """`alive` until the partition is gone; `closing` while it is being revoked: nothing more is started."""

    def __init__(self, partition: int, epoch: int) -> None:
        self.partition = partition
        self.epoch = epoch
        self.alive = True
        self.closing = False
        self.paused = False
        self.recovered: Recovered | None = None
        """None until the journal was read; nothing is delivered before."""
        self.starting = Overdue(time.monotonic())
        """When to report that this takes long."""
        self.frontier = Frontier(0)
        self.extent = Extent(0)
        self.lanes: Lanes[Item] = Lanes()
        self.open: dict[str, Entry] = {}
        """Entries that were recovered as open (`Recovered.open`) and whose commands have not been taken up yet."""
        self.items: dict[int, Item] = {}
        """Records delivered and not finished, by offset."""
        self.unfinished: dict[str, bytes] = {}
        """Digests of commands, by id, from when their turn comes, or they become residents, until their end is
        committed."""
        self.repeated: dict[str, int] = {}
        """The greatest offset of a repeat of those, by command id."""
        self.ending: set[str] = set()
        """Ids of commands whose end was entered in the ledger and is not committed yet."""
        self.residents: dict[str, Entry] = {}
        """Entries of commands that are held or parked, by command id."""
        self.forward: set[str] = set()
        """Ids of residents whose entry is being written forward."""
        self.calling: set[bytes] = set()
        """Lanes that are making a call or finishing one, and must not be interrupted."""
        self.placeless: set[asyncio.Future[None]] = set()
        """Futures of lanes in `calling` that still wait for a place among the calls; resolved when it is revoked."""
        self.waiting: dict[bytes, str] = {}
        """Lanes that are waiting, with the reason."""
        self.outcomes: dict[bytes, asyncio.Future[None]] = {}
        """The commit of each lane's last outcome, which has to be done before its next call starts."""
        self._tasks: dict[bytes | None, asyncio.Task[None]] = {}

    def passed(self, source: Source) -> bool:
        """Whether this record, delivered again, is in the journal as a resident or is a dead letter already."""
        if self.recovered is None:
            return False
        letter = self.recovered.letters.get(source.offset)
        if letter is not None and letter == source.digest():
            return True
        return any(e.offset == source.offset and e.source == source for e in self.recovered.residents)

    def seen(self, command_id: str) -> bytes | None:
        """Digest of the command of that id, if one is being worked on, had ended before, or will be delivered again."""
        digest = self.unfinished.get(command_id)
        if digest is None and self.recovered is not None:
            digest = self.recovered.settled.get(command_id)
        if digest is None and (entry := self.open.get(command_id)) and entry.offset >= self.frontier.position:
            digest = entry.digest
        return digest

    def last_seen(self, command_id: str, offset: int) -> int:
        """The greatest offset at which that unfinished command was seen, `offset` among them: its end is recorded
        there.
        """
        return max(offset, self.repeated.get(command_id, offset))

    def check(self, *, safe: bool) -> None:
        """Raises Abandoned if no call may be started: the partition is gone, or it is being revoked and the call is
        `safe` to leave to the next owner.
        """
        if not self.alive or (self.closing and safe):
            raise Abandoned

    def waits(self, lane: bytes, why: str) -> "_Waits":
        """A block during which `waiting` has the lane with that reason."""
        return _Waits(self.waiting, lane, why)

    def start(self, lane: bytes | None, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Run the work of a lane, or (None) of the assignment itself."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[lane] = task
        task.add_done_callback(lambda _: self._tasks.pop(lane, None) if self._tasks.get(lane) is task else None)
        return task

    def close(self) -> list["asyncio.Task[None]"]:
        """Cancel the tasks that may be interrupted, and return those that must finish."""
        self.closing = True
        for turn in self.placeless:
            if not turn.done():
                turn.set_result(None)
        rest = []
        for lane, task in list(self._tasks.items()):
            if lane in self.calling:
                rest.append(task)
            else:
                task.cancel()
        return rest


class _Waits:
    """A class, since every call passes it: a generator would take four times as long."""

    __slots__ = ("_before", "_lane", "_waiting", "_why")

    def __init__(self, waiting: dict[bytes, str], lane: bytes, why: str) -> None:
        self._waiting = waiting
        self._lane = lane
        self._why = why

    def __enter__(self) -> None:
        self._before = self._waiting.get(self._lane)
        self._waiting[self._lane] = self._why

    def __exit__(self, *_: object) -> None:
        if self._before is None:
            self._waiting.pop(self._lane, None)
        else:
            self._waiting[self._lane] = self._before
