"""The entries of the notification log: every notification the twin had to deliver, and its result."""

from dataclasses import dataclass
from enum import StrEnum

NAMED = 20
"""Number of latest attempts of a delivery that are listed with their times."""


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
    """How its answers broke the contract, each problem once."""

    end: End | None = None
    """None: not finished yet."""
