"""Tickets and warnings as records for the bus. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from adapter.core import cloudevents
from adapter.core.avro import Encoder
from adapter.core.ticket import Outcome, Policy, Ticket, Warn, due
from adapter.ports import DUE, REFERENCE, Kept, Outgoing

SOURCE: Final = b"/fault-adapter/projector"

_ROOM: Final = 4 * 1024
"""Bytes a record has for its headers, and for what the protocol adds."""


@dataclass(frozen=True, slots=True)
class Records:
    """Builds the records of one deployment."""

    events_topic: str
    tickets_topic: str
    ticket: Encoder
    warning: Encoder
    policy: Policy
    largest: int
    """Bytes a topic takes as one record."""

    def keep(self, ticket: Ticket) -> tuple[Kept, bool]:
        """The ticket as it is kept, and whether something had to be left out for it to fit its topic."""
        key = ticket.reference.encode()
        value = self.ticket.encode(ticket.record())
        whole = len(value)
        for lighter in _lighter(ticket):
            if len(key) + len(value) + _ROOM <= self.largest:
                break
            value = self.ticket.encode(lighter.record())
        at = due(ticket, self.policy)
        theirs = ticket.maintainer_reference
        kept = Kept(key, value, None if at is None else milliseconds(at), None if theirs is None else theirs.encode())
        return kept, len(value) < whole

    def written(self, kept: Kept, partition: int) -> Outgoing:
        """What is kept, as a record of the tickets topic; without a value a tombstone."""
        headers: list[tuple[str, bytes | None]] = []
        if kept.due is not None:
            headers.append((DUE, str(kept.due).encode()))
        if kept.reference is not None:
            headers.append((REFERENCE, kept.reference))
        return Outgoing(self.tickets_topic, kept.key, kept.value, headers, partition)

    def warned(self, warn: Warn, partition: int) -> Outgoing:
        """The event that a deadline approaches."""
        headers = cloudevents.headers(
            warn.id,
            source=SOURCE,
            kind=self.warning.schema.fullname,
            at=warn.record["occurredAt"],
            traceparent=None,
        )
        key = warn.ticket.reference.encode()
        return Outgoing(self.events_topic, key, self.warning.encode(warn.record), headers, partition)


def milliseconds(at: datetime) -> int:
    return round(at.timestamp() * 1000)


def _lighter(ticket: Ticket) -> Iterator[Ticket]:
    """The ticket with less and less of what a supplier or a producer can make long."""
    yield (ticket := replace(ticket, report=None))
    yield (ticket := replace(ticket, appointments=()))
    yield replace(ticket, commands=tuple(c for c in ticket.commands if c.outcome is Outcome.IN_DOUBT))
