"""When to report something that takes too long, or that many run into. Pure: the time (seconds of a monotonic clock) is
an argument.
"""

from math import inf
from typing import Final

_FIRST: Final = 10.0
_RAREST: Final = 600.0
_QUIET: Final = 30.0
_REMEMBERED: Final = 1000


class Overdue:
    """Due after ten seconds, then whenever the time taken has doubled, at least every ten minutes."""

    __slots__ = ("_since", "_tell_at")

    def __init__(self, since: float) -> None:
        self._since = since
        self._tell_at = since + _FIRST

    def due(self, now: float) -> float | None:
        """The seconds it has taken so far if a report is due, otherwise None."""
        if now < self._tell_at:
            return None
        seconds = now - self._since
        self._tell_at = now + min(seconds, _RAREST)
        return seconds


class Recurring:
    """What many run into at the same time, each again and again: due when it is new, then every half minute. No more
    than a thousand different ones are remembered.
    """

    __slots__ = ("_told",)

    def __init__(self) -> None:
        self._told: dict[str, tuple[float, int]] = {}
        """When each was last due, and how often it has happened since."""

    def due(self, what: str, now: float) -> int:
        """How often it has happened since it was last due, this time included; 0 while it is not due."""
        due_at, times = self._told.get(what, (-inf, 0))
        if now < due_at + _QUIET:
            self._told[what] = due_at, times + 1
            return 0
        if len(self._told) >= _REMEMBERED:
            self._told.clear()
        self._told[what] = now, 0
        return times + 1
