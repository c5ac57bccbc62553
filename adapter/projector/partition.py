"""One assignment of one partition: its events that are not folded yet, its store, how far it has come."""

import asyncio
import time
from collections import deque
from collections.abc import Sequence

from adapter.core.journal import Source
from adapter.core.overdue import Overdue
from adapter.ports import TicketStore


class Partition:
    """`alive` until the partition is gone; `closing` while it is being revoked: nothing more is begun."""

    def __init__(self, number: int, epoch: int) -> None:
        self.number = number
        self.epoch = epoch
        self.alive = True
        self.closing = False
        self.paused = False
        self.store: TicketStore | None = None
        self.started = False
        """Whether its store is complete; nothing is delivered before."""
        self.starting = Overdue(time.monotonic())
        """When to report that this takes long."""
        self.position = 0
        """The next offset to fold; all before it is committed."""
        self.leader_epoch: int | None = None
        """Leader epoch of the record or marker before it; None: not known."""
        self.at_end = False
        """Whether the end of the topic was reached by the last delivery."""
        self.bound = 0
        """End offset of the tickets' partition at a moment when the store was complete."""
        self.written = 0
        """Tickets written since then."""
        self.tickets = 0
        """How many there are."""
        self.queue: deque[Source] = deque()
        self.size = 0
        """Bytes in the queue."""
        self.attempts = 0
        """Times in a row that its events could not be read."""
        self.not_before = 0.0
        """Time (monotonic) before which its events are not tried again."""
        self.timers_after = 0.0
        """Time (monotonic) before which its timers are not looked at."""
        self.taking_over: asyncio.Task[None] | None = None
        self._next = 0
        self._next_epoch: int | None = None
        self._read = 0.0

    def begin(self, position: int, leader_epoch: int | None) -> None:
        self.position = self._next = position
        self.leader_epoch = self._next_epoch = leader_epoch
        self.started = True

    def deliver(self, source: Source) -> None:
        """Queue a record, unless it was delivered before."""
        if source.offset < self._next or self.closing:
            return
        self._next, self._next_epoch = source.offset + 1, source.leader_epoch
        self.at_end = False
        self.queue.append(source)
        self.size += len(source.value or b"")

    def reached_end(self, offset: int, leader_epoch: int | None) -> None:
        """There is nothing to deliver before this offset: after the last event come the markers of transactions. If a
        later leader has written them than that event, the event's own epoch ends before them.
        """
        self.at_end = True
        if offset > self._next:
            self._next, self._next_epoch = offset, leader_epoch

    def take(self, limit: int) -> list[Source]:
        """The oldest records of the queue, no longer in it."""
        taken = [self.queue.popleft() for _ in range(min(limit, len(self.queue)))]
        self.size -= sum(len(source.value or b"") for source in taken)
        if taken:
            self._read = max(self._read, taken[-1].timestamp)
        return taken

    def put_back(self, taken: Sequence[Source]) -> None:
        """Put events that could not be folded now in front of those that wait: less has been read than it seemed."""
        self.queue.extendleft(reversed(taken))
        self.size += sum(len(source.value or b"") for source in taken)
        if taken:
            self._read = min(self._read, taken[0].timestamp)

    @property
    def finished(self) -> tuple[int, int | None]:
        """The offset up to which all is folded once the events taken are, and the leader epoch of what lies before."""
        if self.at_end and not self.queue:
            return self._next, self._next_epoch
        return self.position, self.leader_epoch

    def clock(self) -> float:
        """The time (seconds since the epoch) up to which all events of this partition have been read."""
        return time.time() if self.at_end and not self.queue else min(self._read, time.time())

    @property
    def behind(self) -> float:
        """Age in seconds of the oldest record that is not folded."""
        return max(0.0, time.time() - self.queue[0].timestamp) if self.queue else 0.0
