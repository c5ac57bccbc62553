"""What a ticket says about one of its commands that is in doubt. Whatever settles the doubt first counts, in the order
of the events topic: a notification of the supplier or an operator's decision.

The supplier's notifications name no command. So one settles the doubt only if its kind fits the operation, if it was
received after the call, and if there were more such notifications than earlier commands of the operation could have
caused; else one that comes late would be taken for the next command's.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from adapter.core.command import Again, Settled, Settlement, Settler
from adapter.core.operation import Operation
from adapter.core.ticket import Command, Decision, Notified, Outcome, Ruling, Ticket

WHY_LIMIT: Final = 1000
"""Characters of who has decided and why, as they are passed on."""

_RULINGS: Final = {Ruling.ACCEPTED: Settlement.ACCEPTED, Ruling.REJECTED: Settlement.REJECTED}


def settlement(
    operation: Operation, command_id: str, *, attempts: int, sent_at: float, ticket: Ticket
) -> Settled | Again | None:
    """What `ticket` says about a command in doubt after `attempts` calls, the last of them made at `sent_at` (seconds
    since the epoch) or later; None while it says nothing.
    """
    decision = _decision(ticket, command_id, attempts)
    earlier = sum(_caused(command, operation, command_id) for command in ticket.commands)
    kind = _telling(operation, sent_at, ticket.heard if decision is None else decision.heard, earlier)
    if kind is not None:
        end = Settlement.REJECTED if kind in operation.refused_by else Settlement.ACCEPTED
        return Settled(end, Settler.NOTIFICATION, f"the supplier has sent: {kind}")
    if decision is None:
        return None
    text = f"{decision.who}: {decision.why}"[:WHY_LIMIT]
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
    """Whether a notification that fits this operation may have been caused by that other command."""
    return (
        command.operation == operation.name
        and command.command_id != command_id
        and command.outcome not in (Outcome.REJECTED, Outcome.IN_DOUBT)
    )


def _telling(operation: Operation, sent_at: float, heard: Mapping[str, Notified], earlier: int) -> str | None:
    """The kind of the first notification that settles the doubt."""
    after = datetime.fromtimestamp(sent_at, UTC)
    kinds = operation.confirmed_by | operation.refused_by
    fitting = {kind: notified for kind, notified in heard.items() if kind in kinds}
    told = [(notified.at, kind) for kind, notified in fitting.items() if notified.at > after]
    if sum(notified.times for notified in fitting.values()) <= earlier:
        return None
    return min(told)[1] if told else None
