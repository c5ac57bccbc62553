"""Notifications and tickets: what got 200 is there, once by its id, and a ticket is the fold of its events.

The fold here is written from the documentation, not from the adapter's.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from tests.faults.evidence import Event, Evidence

UPDATE: Final = "FaultReportUpdated"
DECISION: Final = "DoubtDecided"
OFF_TICKET: Final = frozenset({"QueryAppointmentAvailability", "ReserveAppointment"})
"""Operations whose key is an address."""
STATUSES: Final = frozenset(
    {"PENDING", "REJECTED", "ACCEPTED", "IN_PROGRESS", "ON_HOLD", "RESOLVED", "RE_OPENED", "CLOSED"}
)
AHEAD: Final = timedelta(minutes=10)
"""A supplier's time that is further ahead of ours is not believed."""
EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
"""Nor is one before it."""

Name = tuple[str, str]
"""Reference and message id of a notification."""


def promise(evidence: Evidence) -> Iterator[str | None]:
    there = {_name(event) for event in _updates(evidence)}
    for name in _acknowledged(evidence):
        yield None if name in there else f"{name} got 200 and is not there"


def one_id(evidence: Evidence) -> Iterator[str | None]:
    ids: defaultdict[Name, set[str]] = defaultdict(set)
    names: defaultdict[str, set[Name]] = defaultdict(set)
    for event in _updates(evidence):
        ids[_name(event)].add(event.id)
        names[event.id].add(_name(event))
    for name, found in ids.items():
        yield None if len(found) == 1 else f"{name} has {len(found)} ids"
    for identifier, sharing in names.items():
        if len(sharing) > 1:
            yield f"{identifier} is the id of {sorted(sharing)}"


def nothing_made_up(evidence: Evidence) -> Iterator[str | None]:
    known = {(posted.reference, posted.message_id) for posted in evidence.posted}
    known |= {(webhook.reference, webhook.message_id) for webhook in evidence.webhooks}
    for event in _updates(evidence):
        name = _name(event)
        yield None if name in known and event.key == name[0] else f"{name} under {event.key} was never sent"


def quarantine(evidence: Evidence) -> Iterator[str | None]:
    kept = set(evidence.quarantine)
    wanted = {posted.body: posted for posted in evidence.posted if not posted.readable and posted.acknowledged}
    for body, posted in wanted.items():
        yield None if body in kept else f"{posted.message_id}, which can't be read, is not in quarantine"
    for body in kept - wanted.keys() - {posted.body for posted in evidence.posted if not posted.readable}:
        yield f"in quarantine without reason: {body[:60]!r}"


def newest_counts(evidence: Evidence) -> Iterator[str | None]:
    if evidence.tickets is None:
        return
    sent: defaultdict[Name, set[datetime]] = defaultdict(set)
    for posted in evidence.posted:
        if posted.readable and posted.acknowledged:
            sent[posted.reference, posted.message_id].add(posted.sent_at)
    last: dict[str, set[datetime]] = {}
    for (reference, _), times in sent.items():
        last[reference] = max(times, last.get(reference, times), key=min)
    for reference, times in last.items():
        shown = evidence.tickets.get(reference, {}).get("reportSentAt")
        yield None if shown in times else f"{reference} shows {shown}, not one of {sorted(times)}"


def fold(evidence: Evidence) -> Iterator[str | None]:
    if evidence.tickets is None:
        return
    off_ticket = {command.key for command in evidence.sent if command.operation in OFF_TICKET}
    folded: defaultdict[str, _Ticket] = defaultdict(_Ticket)
    for event in evidence.events:
        if event.key not in off_ticket:
            folded[event.key].take(event)
    for reference, ticket in folded.items():
        wanted, found = ticket.shows(), evidence.tickets.get(reference)
        if found is None:
            yield f"{reference} is missing"
            continue
        shown = {
            **{name: found[name] for name in wanted if name != "commands"},
            "commands": {each["commandId"]: each["outcome"] for each in found["commands"]},
        }
        wrong = {name: (shown[name], value) for name, value in wanted.items() if shown[name] != value}
        yield f"{reference}: {wrong} (shown, folded)" if wrong else None
    for reference in evidence.tickets.keys() - folded.keys():
        yield f"{reference} has no events"


@dataclass(slots=True)
class _Ticket:
    seen: set[str] = field(default_factory=set)
    late: int = 0
    status: str | None = None
    newest: Mapping[str, Any] | None = None
    sent_at: datetime | None = None
    clock: datetime | None = None
    """The supplier's, as far as it was seen."""
    maintainer: str | None = None
    commands: dict[str, str] = field(default_factory=dict)

    def shows(self) -> dict[str, Any]:
        newest = self.newest or {}
        return {
            "events": len(self.seen),
            "lateEvents": self.late,
            "status": self.status,
            "lastKind": newest.get("kind"),
            "reportSentAt": self.sent_at,
            "reportReceivedAt": newest.get("receivedAt"),
            "maintainerFaultReference": self.maintainer,
            "commands": self.commands,
        }

    def take(self, event: Event) -> None:
        if event.id in self.seen:
            return
        self.seen.add(event.id)
        if event.type == UPDATE:
            self._notified(event.record)
        elif event.command_id is not None and event.type != DECISION:
            self._answered(event)

    def _notified(self, record: Mapping[str, Any]) -> None:
        sent_at = record["supplierSentAt"]
        if sent_at is not None and (sent_at < EARLIEST or sent_at - record["receivedAt"] > AHEAD):
            sent_at = None
        theirs, clock = record["maintainerFaultReference"], self.clock
        self.clock = max((at for at in (sent_at, clock) if at is not None), default=None)
        if self.newest is not None:
            if sent_at is not None and clock is not None and sent_at != clock:
                late = sent_at < clock
            else:
                late = record["receivedAt"] < self.newest["receivedAt"]
            if late:
                self.late += 1
                self.maintainer = self.maintainer or theirs
                return
        self.newest, self.sent_at = record, sent_at
        self.maintainer = theirs or self.maintainer
        told = next((word for word in (record["status"], record["kind"]) if word in STATUSES), None)
        self.status = told or self.status

    def _answered(self, event: Event) -> None:
        record = event.record
        match event.type:
            case "CommandRejected":
                outcome = "REJECTED"
            case "CommandOutcomeUnknown":
                outcome = "IN_DOUBT"
            case "CommandSettled":
                outcome = record["outcome"]
            case _:
                outcome = "ACCEPTED"
        if self.commands.get(record["commandId"], "IN_DOUBT") == "IN_DOUBT":
            self.commands[record["commandId"]] = outcome
        if record["operation"] != "AddFaultReport" or self.newest is not None:
            return
        if outcome == "ACCEPTED":
            said = ((record.get("reply") or {}).get("status") or "").upper().replace(" ", "_").replace("-", "_")
            self.status = said if said in STATUSES else "PENDING"
        elif outcome == "REJECTED" and self.status is None:
            self.status = "REJECTED"


def _updates(evidence: Evidence) -> Iterator[Event]:
    return (event for event in evidence.events if event.type == UPDATE)


def _name(event: Event) -> Name:
    return event.record["buyerFaultReference"], event.record["report"]["messageId"]


def _acknowledged(evidence: Evidence) -> Iterator[Name]:
    for posted in evidence.posted:
        if posted.readable and posted.acknowledged:
            yield posted.reference, posted.message_id
    for webhook in evidence.webhooks:
        if webhook.acknowledged:
            yield webhook.reference, webhook.message_id
