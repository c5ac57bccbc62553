"""What a ticket says of one of its commands that is in doubt: the first word that tells counts.

A notification tells that the command was taken, or refused, if it is of a kind that fits the operation and was received
after the call. An operator's decision tells whatever it says. Both come in the order of the events topic.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from adapter.core.command import Again, Settled, Settlement, Settler
from adapter.core.operation import Operation
from adapter.core.ticket import Decision, Outcome, Ruling, Ticket

TEXT_LIMIT: Final = 1000
"""Characters of who has decided and why, as they are passed on."""

_RULINGS: Final = {Ruling.ACCEPTED: Settlement.ACCEPTED, Ruling.REJECTED: Settlement.REJECTED}


def settlement(
    operation: Operation, command_id: str, *, attempts: int, sent_at: float, ticket: Ticket
) -> Settled | Again | None:
    """What `ticket` tells of a command in doubt after `attempts` calls, the last of them made at `sent_at` (seconds
    since the epoch) at the earliest. None: nothing yet.
    """
    decision = _decision(ticket, command_id, attempts)
    kind = _telling(operation, sent_at, ticket.heard if decision is None else decision.heard)
    if kind is not None:
        end = Settlement.REJECTED if kind in operation.refused_by else Settlement.ACCEPTED
        return Settled(end, Settler.NOTIFICATION, f"the supplier has sent: {kind}")
    if decision is None:
        return None
    text = f"{decision.who}: {decision.why}"[:TEXT_LIMIT]
    if decision.ruling is Ruling.REPEAT:
        return Again(text)
    return Settled(_RULINGS[decision.ruling], Settler.OPERATOR, text)


def _decision(ticket: Ticket, command_id: str, attempts: int) -> Decision | None:
    for command in ticket.commands:
        if command.command_id == command_id and command.attempts == attempts and command.outcome is Outcome.IN_DOUBT:
            known = command.decision is not None and command.decision.ruling is not Ruling.UNKNOWN
            return command.decision if known else None
    return None


def _telling(operation: Operation, sent_at: float, heard: Mapping[str, datetime]) -> str | None:
    """The kind of the notification that tells, the first of them."""
    after = datetime.fromtimestamp(sent_at, UTC)
    kinds = operation.confirmed_by | operation.refused_by
    told = [(at, kind) for kind, at in heard.items() if kind in kinds and at > after]
    return min(told)[1] if told else None
