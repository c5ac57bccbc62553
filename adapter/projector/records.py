"""Tickets and warnings as records for the bus. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from adapter.core import cloudevents
from adapter.core.avro import Encoder
from adapter.core.ticket import Outcome, Policy, Ticket, Warn, due, mark
from adapter.ports import COMMANDS, DUE, REFERENCE, Outgoing, TicketRecord, size

SOURCE: Final = b"/fault-adapter/projector"


@dataclass(frozen=True, slots=True)
class Records:
    """Builds the records of one deployment."""

    events_topic: str
    tickets_topic: str
    ticket: Encoder
    warning: Encoder
    policy: Policy
    largest: int
    """Bytes that a record may have in a topic, headers included."""

    def keep(self, ticket: Ticket) -> tuple[TicketRecord, bool]:
        """The ticket as it is kept, and whether something had to be left out for it to fit its topic."""
        kept = whole = self._kept(ticket)
        for lighter in _lighter(ticket):
            if size(self.written(kept, 0)) <= self.largest:
                break
            kept = self._kept(lighter)
        return kept, kept is not whole

    def written(self, kept: TicketRecord, partition: int) -> Outgoing:
        """What is kept, as a record of the tickets topic; without a value a tombstone."""
        headers: list[tuple[str, bytes | None]] = []
        if kept.due is not None:
            headers.append((DUE, str(kept.due).encode()))
        if kept.reference is not None:
            headers.append((REFERENCE, kept.reference))
        if kept.commands:
            headers.append((COMMANDS, kept.commands))
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

    def _kept(self, ticket: Ticket) -> TicketRecord:
        at, theirs = due(ticket, self.policy), ticket.maintainer_reference
        return TicketRecord(
            ticket.reference.encode(),
            self.ticket.encode(ticket.record()),
            None if at is None else milliseconds(at),
            None if theirs is None else theirs.encode(),
            b"".join(mark(command.command_id) for command in ticket.commands),
        )


def milliseconds(at: datetime) -> int:
    return round(at.timestamp() * 1000)


def _lighter(ticket: Ticket) -> Iterator[Ticket]:
    """The ticket with less and less of what a supplier or a producer can make long."""
    yield (ticket := replace(ticket, report=None))
    yield (ticket := replace(ticket, appointments=()))
    yield (ticket := replace(ticket, commands=tuple(c for c in ticket.commands if c.outcome is Outcome.IN_DOUBT)))
    yield replace(ticket, maintainer_reference=None, commands=())
