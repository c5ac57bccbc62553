"""The changes that time alone brings: the warning before a resolve deadline, and the removal of ended tickets."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid5

from adapter.core.ticket.fold import Policy
from adapter.core.ticket.state import Status, Ticket

NAMESPACE: Final = UUID("7d1f0c3a-9b1e-5a64-8f0e-2f1d5c8e4b70")
"""Root of the ids of warnings: that of one Resolved period always has the same."""

_ENDED: Final = frozenset({Status.CLOSED, Status.REJECTED, None})
"""None: nothing but commands has named the ticket, and they came to nothing."""


@dataclass(frozen=True, slots=True)
class Warn:
    """Publish the event; the ticket is then this one."""

    ticket: Ticket
    id: str
    record: dict[str, Any]
    """Of the Avro schema `fault.event.ResolveDeadlineApproaching`."""


@dataclass(frozen=True, slots=True)
class Drop:
    """The ticket ended long enough ago: forget it."""


def due(ticket: Ticket, policy: Policy) -> datetime | None:
    """When `fire` will have something to do, unless another event comes first."""
    if ticket.deadline is not None and not ticket.warned:
        return ticket.deadline - policy.warn_before
    if ticket.status in _ENDED:
        return ticket.updated_at + policy.tombstone_after
    return None


def fire(ticket: Ticket, policy: Policy, now: datetime) -> Warn | Drop | None:
    """What is to be done now. A warning is also published for a deadline that has passed: once per Resolved period."""
    at = due(ticket, policy)
    if at is None or now < at:
        return None
    if ticket.deadline is None:
        return Drop()
    return Warn(
        replace(ticket, warned=True),
        str(uuid5(NAMESPACE, f"{ticket.reference}/{ticket.deadline.isoformat()}")),
        {
            "buyerFaultReference": ticket.reference,
            "maintainerFaultReference": ticket.maintainer_reference,
            "resolvedAt": ticket.status_since,
            "deadline": ticket.deadline,
            "occurredAt": now,
        },
    )
