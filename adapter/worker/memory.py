"""What a worker remembers of commands that have ended, whatever their partition."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

_SKEW: Final = 10.0
"""Seconds by which the clock of a producer of commands may be ahead of ours."""


class Memory:
    """The last `capacity` commands that have ended: a repeat of one is neither called nor answered again."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._ends: OrderedDict[str, tuple[bytes, float]] = OrderedDict()
        self._since = 0.0
        """Every command that ended later is remembered; seconds since the epoch."""

    def reaches(self, issued_at: float) -> bool:
        """Whether the end of a command that was issued then would be remembered, had it ended."""
        return issued_at - _SKEW > self._since

    def digest(self, command_id: str) -> bytes | None:
        end = self._ends.get(command_id)
        return None if end is None else end[0]

    def settle(self, command_id: str, digest: bytes, at: float) -> None:
        self._ends[command_id] = (digest, at)
        self._ends.move_to_end(command_id)
        if len(self._ends) > self.capacity:
            self._since = max(self._since, self._ends.popitem(last=False)[1][1])

    def learn(self, settled: Mapping[str, bytes], *, since: float, at: float) -> None:
        """Remember commands that the journal of a partition has as settled: all that ended after `since`, none after
        `at`.
        """
        self._since = max(self._since, since)
        for command_id, digest in settled.items():
            self.settle(command_id, digest, at)
