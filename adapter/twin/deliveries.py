"""The notification log: every notification the twin had to deliver, and what became of it.

In memory it is a list of `Delivery`. In a file it is JSON lines, flushed one by one: a line whenever something has
happened to a notification; of those with the same `sequence` the later line holds.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from adapter.twin.lines import Lines

NAMED = 20
"""How many of a delivery's latest attempts are listed with their times."""


class End(StrEnum):
    ACKNOWLEDGED = "acknowledged"
    GIVEN_UP = "given up"


@dataclass(frozen=True, slots=True)
class Delivery:
    """One notification, or the repeat of one."""

    sequence: int
    id: str
    """The messageId it was given."""

    reference: str
    """buyerFaultReference."""

    kind: str
    """What had happened to the ticket."""

    status: str
    """The ticket's status after it."""

    sent_at: str
    """The time in the message, ISO 8601 in UTC, before any dialect."""

    dialects: tuple[str, ...] = ()
    repeat_of: int | None = None
    late: bool = False
    """It was held back on purpose, and the next of its ticket went first."""

    attempts: int = 0
    times: tuple[str, ...] = ()
    """When the latest attempts began: wall clock, ISO 8601 in UTC."""

    seconds: float | None = None
    """How long the latest attempt took."""

    answered: int | None = None
    """HTTP status of the latest answer; None if the latest attempt had none."""

    failure: str | None = None
    """Why the latest attempt had no answer."""

    problems: tuple[str, ...] = ()
    """What its answers had against the contract, each once."""

    end: End | None = None
    """None: the twin is still at it."""


class DeliveryLog:
    """The deliveries of one twin, oldest first."""

    def __init__(self, path: Path | None = None, *, keep: int = 200_000) -> None:
        self._entries: dict[int, Delivery] = {}
        self._keep = keep
        self._last = 0
        self._lines = Lines(path)

    def __iter__(self) -> Iterator[Delivery]:
        return iter(list(self._entries.values()))

    def number(self) -> int:
        """The next sequence number."""
        self._last += 1
        return self._last

    def since(self, sequence: int) -> list[Delivery]:
        """The deliveries after that sequence number, as they stand now."""
        return [entry for number, entry in self._entries.items() if number > sequence]

    def enter(self, entry: Delivery) -> None:
        """Puts it in the place of what was known of it."""
        if entry.sequence not in self._entries and len(self._entries) >= self._keep:
            del self._entries[next(iter(self._entries))]
        self._entries[entry.sequence] = entry
        self._lines.append(line(entry))

    def close(self) -> None:
        self._lines.close()


def line(entry: Delivery) -> str:
    """One JSON line."""
    return json.dumps(asdict(entry), separators=(",", ":")) + "\n"
