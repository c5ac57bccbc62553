"""Which offset of a partition may be committed: the frontier, the end of the contiguous finished work.

"Contiguous" refers to the records delivered: offsets have gaps (transaction markers, compaction), so only offsets that
were delivered count. The committed offset is always the next offset to be consumed (KIP-129 and the consumer's
contract). It is committed with the leader epoch of the record before it (KIP-320), by which a consumer that starts
there can tell whether the partition has lost that record since, and has others in its place.
"""

from collections import deque


class Frontier:
    """The finished work of one assignment of one partition."""

    __slots__ = ("_epochs", "_order", "_unfinished", "leader_epoch", "position")

    def __init__(self, position: int, leader_epoch: int | None = None) -> None:
        self.position = position
        """The offset to commit: everything delivered below it is finished."""
        self.leader_epoch = leader_epoch
        """Leader epoch of the last record before the position; None if unknown."""
        self._epochs: deque[tuple[int, int | None]] = deque()
        """The delivered offsets at which the leader epoch changes, with the new epoch."""
        self._order: deque[int] = deque()
        self._unfinished: set[int] = set()

    def deliver(self, offset: int, leader_epoch: int | None = None) -> bool:
        """A record was delivered. False if it lies below what was already delivered (a re-delivery to drop)."""
        last = self._order[-1] if self._order else self.position - 1
        if offset <= last:
            return False
        if leader_epoch != (self._epochs[-1][1] if self._epochs else self.leader_epoch):
            self._epochs.append((offset, leader_epoch))
        self._order.append(offset)
        self._unfinished.add(offset)
        return True

    def finish(self, offset: int) -> None:
        """The work of a delivered record is done; moves the position over all contiguous finished work.

        Raises ValueError for an offset that was not delivered or is finished already.
        """
        order, unfinished = self._order, self._unfinished
        if offset not in unfinished:
            raise ValueError(f"offset {offset} is not unfinished work")
        unfinished.discard(offset)
        while order and order[0] not in unfinished:
            self.position = order.popleft() + 1
        while self._epochs and self._epochs[0][0] < self.position:
            self.leader_epoch = self._epochs.popleft()[1]

    @property
    def span(self) -> int:
        """Records delivered at or after the position, finished or not: what a successor would be sent again."""
        return len(self._order)

    @property
    def oldest(self) -> int | None:
        """Offset of the oldest unfinished record."""
        return self._order[0] if self._order else None
