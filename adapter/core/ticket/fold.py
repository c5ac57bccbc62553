"""The fold: from a ticket's state and one more event to its next state.

Notifications are ordered by the supplier's time of sending, those with equal times (or without one) by the time we
received them. One that is older than the one the state is from is counted and changes nothing else. A change of status
that the contract does not have is applied all the same, counted and kept visible.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from adapter.core.document import plain
from adapter.core.ticket.state import (
    MARK,
    Clock,
    Command,
    Decision,
    Notified,
    Origin,
    Outcome,
    Ruling,
    Status,
    Ticket,
    Transition,
    among,
    mark,
    status,
)

NOTIFICATION: Final = "FaultReportUpdated"
WARNING: Final = "ResolveDeadlineApproaching"
DECISION: Final = "DoubtDecided"
OPENING: Final = "AddFaultReport"
"""The operation that makes a ticket the buyer's."""
ANSWER: Final = "ResolveResponse"
"""The operation that answers a resolution."""

REMEMBERED: Final = 512
"""Ids of its latest events that a ticket remembers, so that each counts once."""
COMMANDS: Final = 200
APPOINTMENTS: Final = 50
"""How many of each a ticket keeps: the latest."""
AHEAD: Final = timedelta(minutes=10)
"""How far the supplier's clock may be ahead of ours. A time of sending beyond it is not believed: one message from the
future would make all that follow it late."""
EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
"""A time of sending before it is not believed either: programs write the year 1 (.NET) or 1970 where they have none,
and what comes with it would be late for ever.
"""

TRANSITIONS: Final[Mapping[Status, frozenset[Status]]] = {
    Status.PENDING: frozenset({Status.ACCEPTED, Status.REJECTED, Status.ON_HOLD, Status.RESOLVED}),
    Status.REJECTED: frozenset({Status.PENDING}),
    Status.ACCEPTED: frozenset({Status.IN_PROGRESS, Status.ON_HOLD, Status.RESOLVED}),
    Status.IN_PROGRESS: frozenset({Status.ON_HOLD, Status.RESOLVED}),
    Status.ON_HOLD: frozenset({Status.IN_PROGRESS, Status.RESOLVED}),
    Status.RESOLVED: frozenset({Status.RE_OPENED, Status.CLOSED}),
    Status.RE_OPENED: frozenset({Status.IN_PROGRESS, Status.ON_HOLD, Status.RESOLVED}),
    Status.CLOSED: frozenset(),
}
"""Contract, section 4.1, where "open" is all but Rejected, Resolved and Closed; a refused report may be sent in again
under its reference. Any status may be the first."""

CLOCKS: Final[Mapping[Status, Clock]] = {
    Status.PENDING: Clock.NOT_STARTED,
    Status.REJECTED: Clock.STOPPED,
    Status.ACCEPTED: Clock.RUNNING,
    Status.IN_PROGRESS: Clock.RUNNING,
    Status.ON_HOLD: Clock.PAUSED,
    Status.RESOLVED: Clock.STOPPED,
    Status.RE_OPENED: Clock.RUNNING,
    Status.CLOSED: Clock.STOPPED,
}
"""The clock pauses on hold and restarts after it (contract, section 4.1). That it starts when the supplier accepts, and
stands still from Resolved on, is our reading."""


@dataclass(frozen=True, slots=True)
class Policy:
    resolve_deadline: timedelta
    """From Resolved on: after it the supplier takes silence for acceptance (contract, section 4.2)."""
    warn_before: timedelta
    tombstone_after: timedelta
    """How long an ended ticket is kept after its last event."""


@dataclass(frozen=True, slots=True)
class Event:
    name: str
    """Of its record."""
    id: str
    record: Mapping[str, Any]
    arrived: datetime
    """When it was written to the topic."""


class Verdict(StrEnum):
    FOLDED = "folded"
    LATE = "late"
    """A notification older than the one the state is from: counted."""
    REPEATED = "repeated"
    """Its id was seen before: nothing changes."""


@dataclass(frozen=True, slots=True)
class Left:
    """A status that the event has ended."""

    status: Status
    lasted: timedelta


@dataclass(frozen=True, slots=True)
class Folded:
    ticket: Ticket
    verdict: Verdict
    illegal: Transition | None = None
    left: Left | None = None


def fold(ticket: Ticket | None, reference: str, event: Event, policy: Policy) -> Folded:
    """The ticket after one more event. None stands for a ticket without any event so far; `reference` is its name."""
    seen = mark(event.id)
    if ticket is None:
        origin = Origin.BUYER if "commandId" in event.record else Origin.SUPPLIER
        ticket = Ticket(reference, origin, opened_at=event.arrived, updated_at=event.arrived)
    elif among(ticket.seen, seen):
        return Folded(ticket, Verdict.REPEATED)
    counted = replace(
        ticket,
        events=ticket.events + 1,
        updated_at=max(ticket.updated_at, event.arrived),
        seen=(ticket.seen + seen)[-REMEMBERED * MARK :],
    )
    if event.name == NOTIFICATION:
        return _notified(counted, event.record, policy)
    if event.name == WARNING:
        warned = counted.warned or counted.deadline == event.record["deadline"]
        return Folded(replace(counted, warned=warned), Verdict.FOLDED)
    if event.name == DECISION:
        return Folded(replace(counted, commands=_decided(counted, event.record)), Verdict.FOLDED)
    if "commandId" in event.record:
        return _answered(counted, event, policy)
    return Folded(counted, Verdict.FOLDED)


# -- notifications -----------------------------------------------------------------------------------------------------


def _notified(ticket: Ticket, record: Mapping[str, Any], policy: Policy) -> Folded:
    kind: str = record["kind"]
    received: datetime = record["receivedAt"]
    sent: datetime | None = record["supplierSentAt"]
    if sent is not None and (sent < EARLIEST or sent - received > AHEAD):
        sent = None
    theirs: str | None = record["maintainerFaultReference"]
    late = _is_late(ticket, sent, received)
    before = ticket.heard.get(kind, Notified(received, 0))
    ticket = replace(
        ticket,
        heard={**ticket.heard, kind: Notified(max(received, before.at), before.times + 1)},
        newest_sent_at=max((at for at in (sent, ticket.newest_sent_at) if at is not None), default=None),
    )
    if late:  # it says how things were; only the supplier's reference never changes
        known = ticket.maintainer_reference or theirs
        return Folded(replace(ticket, late=ticket.late + 1, maintainer_reference=known), Verdict.LATE)
    report = record["report"]
    at = sent or received
    ticket = replace(
        ticket,
        kind=kind,
        sent_at=sent,
        received_at=received,
        report=report,
        maintainer_reference=theirs or ticket.maintainer_reference,
        appointments=_appointments(ticket.appointments, report or {}, at),
    )
    # For a report without a known status the kind, which hints may have decided, can name one.
    return _moved(ticket, status(record["status"]) or status(kind), at, policy)


def _is_late(ticket: Ticket, sent: datetime | None, received: datetime) -> bool:
    if ticket.received_at is None:
        return False
    if sent is not None and ticket.newest_sent_at is not None and sent != ticket.newest_sent_at:
        return sent < ticket.newest_sent_at
    return received < ticket.received_at


def _appointments(
    known: tuple[Mapping[str, Any], ...], report: Mapping[str, Any], at: datetime
) -> tuple[Mapping[str, Any], ...]:
    """The known appointments, updated by the report's. One that the report leaves out stays: it names current ones."""
    merged = {_reservation(each): each for each in known}
    for each in report.get("appointments", ()):
        key = _reservation(each)
        before = merged.get(key)
        if before is None or any(before.get(name) != value for name, value in each.items()):
            merged.pop(key, None)
            merged[key] = {**each, "changedAt": at}
    return tuple(merged.values())[-APPOINTMENTS:]


def _reservation(appointment: Mapping[str, Any]) -> str:
    """What identifies an appointment: its reservation key, or its time if it has none."""
    key = (appointment["appointmentReservationKey"] or "").strip()
    return key or f"{appointment['appointmentDate']} {appointment['appointmentStartTime']}"


# -- outcomes of commands ----------------------------------------------------------------------------------------------


def _answered(ticket: Ticket, event: Event, policy: Policy) -> Folded:
    record = event.record
    outcome = _outcome(event)
    at: datetime = record["occurredAt"]
    command = Command(
        record["commandId"],
        record["operation"],
        outcome,
        at,
        record.get("code"),
        record.get("doubtUntil"),
        record["attempts"],
    )
    ticket = replace(ticket, commands=_commands(ticket.commands, command))
    if command.operation == ANSWER and outcome is Outcome.ACCEPTED:
        ticket = replace(ticket, deadline=None, warned=False)  # no silence to be taken for anything
    if command.operation != OPENING:
        return Folded(ticket, Verdict.FOLDED)
    if outcome is not Outcome.REJECTED:
        ticket = replace(ticket, origin=Origin.BUYER)
    if ticket.received_at is not None:  # a notification has overtaken this outcome, and counts more
        return Folded(ticket, Verdict.FOLDED)
    if outcome is Outcome.ACCEPTED:
        reply = record.get("reply") or {}
        return _moved(ticket, _SPELLED.get(plain(reply.get("status") or "")) or Status.PENDING, at, policy)
    if outcome is Outcome.REJECTED and ticket.status is None:
        return _moved(ticket, Status.REJECTED, at, policy)
    return Folded(ticket, Verdict.FOLDED)


def _outcome(event: Event) -> Outcome:
    match event.name:
        case "CommandRejected":
            return Outcome.REJECTED
        case "CommandOutcomeUnknown":
            return Outcome.IN_DOUBT
        case "CommandSettled":
            return Outcome(event.record["outcome"])
        case _:
            return Outcome.ACCEPTED  # each operation has an event of its own for that


def _commands(known: tuple[Command, ...], command: Command) -> tuple[Command, ...]:
    """The first final outcome of a command stays. The oldest are dropped, except those in doubt: a worker waits."""
    merged = {each.command_id: each for each in known}
    before = merged.get(command.command_id)
    if before is None or before.outcome is Outcome.IN_DOUBT:
        merged[command.command_id] = command
    ended = [each.command_id for each in merged.values() if each.outcome is not Outcome.IN_DOUBT]
    for command_id in ended[: max(0, len(merged) - COMMANDS)]:
        del merged[command_id]
    return tuple(merged.values())


def _decided(ticket: Ticket, record: Mapping[str, Any]) -> tuple[Command, ...]:
    """The first decision about a doubt stays; one about no doubt, or about an earlier one of its command, is moot."""

    def decided(command: Command) -> Command:
        asked = (command.command_id, command.attempts) == (record["commandId"], record["attempts"])
        if not asked or command.outcome is not Outcome.IN_DOUBT or command.decision is not None:
            return command
        ruling = Ruling(record["decision"])
        return replace(command, decision=Decision(ruling, record["why"], record["who"], ticket.heard))

    return tuple(map(decided, ticket.commands))


_SPELLED: Final = {plain(status): status for status in Status}
"""Statuses as replies spell them."""


# -- status ------------------------------------------------------------------------------------------------------------


def _moved(ticket: Ticket, after: Status | None, at: datetime, policy: Policy) -> Folded:
    before = ticket.status
    if after is None or after is before:
        return Folded(ticket, Verdict.FOLDED)
    # The times are of different clocks and may cross; no duration may become negative.
    at = max(at, ticket.status_since or at)
    left, illegal = None, None
    if before is not None:
        left = Left(before, at - (ticket.status_since or at))
        if after not in TRANSITIONS[before]:
            illegal = Transition(before, after, at)
            ticket = replace(ticket, illegal=ticket.illegal + 1, last_illegal=illegal)
    resolved = after is Status.RESOLVED
    ticket = replace(
        _clocked(ticket, CLOCKS[after], at),
        status=after,
        status_since=at,
        deadline=at + policy.resolve_deadline if resolved else None,
        warned=False,
    )
    return Folded(ticket, Verdict.FOLDED, illegal, left)


def _clocked(ticket: Ticket, clock: Clock, at: datetime) -> Ticket:
    if clock is ticket.clock:
        return ticket
    ran, paused = ticket.clocked(at)
    return replace(ticket, clock=clock, clock_since=at, ran=ran, paused=paused)
