"""The bounded window of unfinished work: partitions that fill their share are paused, while polling goes on.

Pausing discards what librdkafka has prefetched, so a partition is resumed only well below the limit.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from adapter.ports import Intake
from adapter.worker.assignment import Assignment, Item

_RESUME_AT: Final = 0.6
_LEAST: Final = 64
"""Records every partition may hold, however many partitions there are."""


@dataclass(frozen=True, slots=True)
class Bounds:
    records: int
    size: int
    """Bytes of record values."""
    span: int
    """Records of one partition between its oldest unfinished and its newest: what a successor would be sent again."""


class Window:
    """Counts the records in memory, and pauses partitions that have their share."""

    def __init__(self, bounds: Bounds, intake: Intake) -> None:
        self.records = 0
        self.size = 0
        self.pausing = False
        """Whether a partition is paused."""
        self._bounds = bounds
        self._intake = intake

    def add(self, item: Item) -> None:
        self.records += 1
        self.size += item.size

    def remove(self, item: Item) -> None:
        self.records -= 1
        self.size -= item.size

    def throttle(self, assignments: Iterable[Assignment]) -> None:
        """Pause and resume; to be called when records came, and when records are done while a partition is paused."""
        assignments = list(assignments)
        self.pausing = False
        bounds = self._bounds
        share = max(_LEAST, bounds.records // max(1, len(assignments)))
        for a in assignments:
            fill = max(
                len(a.items) / share,
                a.frontier.span / bounds.span,
                self.size / bounds.size if a.items else 0.0,
            )
            if not a.paused and fill >= 1:
                a.paused = True
                self._intake.pause(a.partition, a.epoch)
            elif a.paused and fill < _RESUME_AT:
                a.paused = False
                self._intake.resume(a.partition, a.epoch)
            self.pausing = self.pausing or a.paused
