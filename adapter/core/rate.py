"""No more calls a second than the supplier agreed to.

Pure: the time (seconds of a monotonic clock) is an argument.
"""

from typing import Final

TOLERANCE: Final = 0.1
"""Seconds by which calls may be early, to make up for one that was late: a loop's turn under load, and a timer."""


class RateLimit:
    """Calls follow one another at equal distances, by the generic cell rate algorithm (ITU-T I.371): in any `t` seconds
    no more than `1 + per_second * (t + TOLERANCE)` begin, whatever was left unused before.
    """

    __slots__ = ("_distance", "_next")

    def __init__(self, per_second: float) -> None:
        self._distance = 1 / per_second
        self._next = float("-inf")
        """When the next call is to begin, were all on time."""

    def due(self, ahead: int = 0) -> float:
        """When the next call may begin, or with `ahead` the one that follows so many others."""
        return self._next + ahead * self._distance - TOLERANCE

    def began(self, now: float) -> None:
        """A call begins."""
        self._next = max(self._next, now) + self._distance
