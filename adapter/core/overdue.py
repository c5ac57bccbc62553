"""When to report something that takes too long, or that many run into. Pure: the time (seconds of a monotonic clock) is
an argument.
"""

from typing import Final

_FIRST: Final = 10.0
_RAREST: Final = 600.0
_QUIET: Final = 30.0


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
    """What many run into at the same time, each again and again: due when it is new, then every half minute."""

    __slots__ = ("_told",)

    def __init__(self) -> None:
        self._told: dict[str, float] = {}

    def due(self, what: str, now: float) -> bool:
        if what in self._told and now < self._told[what] + _QUIET:
            return False
        self._told = {other: at for other, at in self._told.items() if now < at + _QUIET}
        self._told[what] = now
        return True
