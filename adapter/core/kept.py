"""What is told of a record that can't be read: the headers of a dead letter, and of a body in the quarantine.

Each fact has a header of its own, unless it is None.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import ClassVar, Final, Self

Headers = list[tuple[str, bytes | None]]

_NOT_OURS: Final = {"content-type", "traceparent"}
"""Headers whose names others have given; those of all others begin with our prefix."""
_LONGEST: Final = 2000
"""Characters of a fact: the supplier writes some of them."""


@dataclass(frozen=True)
class _Facts:
    _prefix: ClassVar[str]

    def headers(self) -> Headers:
        told = ((header, getattr(self, name)) for name, header in self._names())
        return [(header, text[:_LONGEST].encode(errors="replace")) for header, text in told if text is not None]

    @classmethod
    def of(cls, headers: Iterable[tuple[str, bytes | None]]) -> Self:
        """What the headers of a record tell."""
        texts = {header: (value or b"").decode(errors="replace") for header, value in headers}
        return cls(**{name: texts.get(header) for name, header in cls._names()})

    @classmethod
    def _names(cls) -> Iterator[tuple[str, str]]:
        """(fact, header) of each."""
        for fact in fields(cls):
            name = fact.name.replace("_", "-")
            yield fact.name, name if name in _NOT_OURS else f"{cls._prefix}{name}"


@dataclass(frozen=True, kw_only=True)
class DeadLetter(_Facts):
    """Where a record of the commands came from, and why it can't become a command."""

    _prefix = "dead-letter-"

    reason: str | None
    detail: str | None
    topic: str | None
    partition: str | None
    offset: str | None
    timestamp: str | None
    """When the record was written there, in milliseconds since the epoch."""
    at: str | None
    """When it became a dead letter."""

    @classmethod
    def own(cls, headers: Iterable[tuple[str, bytes | None]]) -> Headers:
        """The headers that a record brought with it, without those of a dead letter."""
        return [header for header in headers if not header[0].startswith(cls._prefix)]


@dataclass(frozen=True, kw_only=True)
class Quarantined(_Facts):
    """How a body came from the supplier, and why it can't be read. It is a notification, or a reply to a command."""

    _prefix = "quarantine-"

    reason: str | None
    detail: str | None
    address: str | None = None
    """Of who has sent the notification, as `subject`."""
    subject: str | None = None
    operation: str | None = None
    """Of the command that was replied to, as `command_id`."""
    command_id: str | None = None
    received_at: str | None
    at: str | None = None
    path: str | None = None
    soap_action: str | None = None
    content_type: str | None
    traceparent: str | None
