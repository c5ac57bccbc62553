"""What a ticket says of one of its commands that is in doubt: the first word that tells counts.

A notification tells that the command was taken, or refused, if it is of a kind that fits the operation and was received
after the call, and if there are more of them than earlier commands of the operation could have caused: the supplier
names no command, so one that comes late must not be taken for the next. An operator's decision tells whatever it says.
Both come in the order of the events topic.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from adapter.core.command import Again, Settled, Settlement, Settler
from adapter.core.operation import Operation
from adapter.core.ticket import Command, Decision, Notified, Outcome, Ruling, Ticket

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
    earlier = sum(_caused(command, operation, command_id) for command in ticket.commands)
    kind = _telling(operation, sent_at, ticket.heard if decision is None else decision.heard, earlier)
    if kind is not None:
        end = Settlement.REJECTED if kind in operation.refused_by else Settlement.ACCEPTED
        return Settled(end, Settler.NOTIFICATION, f"the supplier has sent: {kind}")
    if decision is None:
        return None
    text = f"{decision.who}: {decision.why}"[:TEXT_LIMIT]
    if decision.ruling is Ruling.REPEAT:
        return Again(text, ticket.maintainer_reference)
    return Settled(_RULINGS[decision.ruling], Settler.OPERATOR, text)


def _decision(ticket: Ticket, command_id: str, attempts: int) -> Decision | None:
    for command in ticket.commands:
        if command.command_id == command_id and command.attempts == attempts and command.outcome is Outcome.IN_DOUBT:
            known = command.decision is not None and command.decision.ruling is not Ruling.UNKNOWN
            return command.decision if known else None
    return None


def _caused(command: Command, operation: Operation, command_id: str) -> bool:
    """Whether a notification about this operation may have been about that other command."""
    return (
        command.operation == operation.name
        and command.command_id != command_id
        and command.outcome not in (Outcome.REJECTED, Outcome.IN_DOUBT)
    )


def _telling(operation: Operation, sent_at: float, heard: Mapping[str, Notified], earlier: int) -> str | None:
    """The kind of the notification that tells, the first of them."""
    after = datetime.fromtimestamp(sent_at, UTC)
    kinds = operation.confirmed_by | operation.refused_by
    fitting = {kind: notified for kind, notified in heard.items() if kind in kinds}
    told = [(notified.at, kind) for kind, notified in fitting.items() if notified.at > after]
    if sum(notified.times for notified in fitting.values()) <= earlier:
        return None
    return min(told)[1] if told else None
