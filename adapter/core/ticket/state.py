"""The state of a ticket, and its form as a record of the Avro schema `fault.ticket.Ticket`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import blake2b
from typing import Any, Final

from adapter.core.instant import MILLISECOND

MARK: Final = 8
"""Bytes of a mark: among the few hundred ids of one ticket two never share one by chance."""


def mark(identifier: str) -> bytes:
    """A short digest of the id of a command or event, by which a ticket recognises it."""
    return blake2b(identifier.encode("utf-8", "surrogatepass"), digest_size=MARK).digest()


def among(marks: bytes, one: bytes) -> bool:
    """Whether a mark is one of the concatenated `marks`, and not just the end of one and the beginning of the next."""
    at = marks.find(one)
    while at > 0 and at % MARK:
        at = marks.find(one, at + 1)
    return at >= 0


class Origin(StrEnum):
    BUYER = "BUYER"
    """A command named it."""
    SUPPLIER = "SUPPLIER"
    """No command named it: the supplier spoke of it first, and no report of ours turned up since."""
    UNKNOWN = "UNKNOWN"


class Status(StrEnum):
    """Contract, section 4.1."""

    PENDING = "PENDING"
    REJECTED = "REJECTED"
    ACCEPTED = "ACCEPTED"
    IN_PROGRESS = "IN_PROGRESS"
    ON_HOLD = "ON_HOLD"
    RESOLVED = "RESOLVED"
    RE_OPENED = "RE_OPENED"
    CLOSED = "CLOSED"


class Clock(StrEnum):
    """The supplier's service level clock."""

    NOT_STARTED = "NOT_STARTED"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    STOPPED = "STOPPED"
    UNKNOWN = "UNKNOWN"


class Outcome(StrEnum):
    """Of a command."""

    ACCEPTED = "ACCEPTED"
    REJECTED = "REJECTED"
    IN_DOUBT = "IN_DOUBT"
    """Provisional: another follows."""
    UNDETERMINED = "UNDETERMINED"
    UNKNOWN = "UNKNOWN"


class Ruling(StrEnum):
    """An operator's decision about a command in doubt."""

    ACCEPTED = "ACCEPTED"
    REJECTED = "REJECTED"
    REPEAT = "REPEAT"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, slots=True)
class Notified:
    """Of the notifications of one kind."""

    at: datetime
    """When the last was received."""
    times: int
    """How many were, late ones among them."""


@dataclass(frozen=True, slots=True)
class Decision:
    """An operator's, about a command in doubt."""

    ruling: Ruling
    why: str
    who: str
    heard: Mapping[str, Notified]
    """`Ticket.heard` when the decision came: a notification that came before it counts more."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command about the ticket and what became of it."""

    command_id: str
    operation: str
    outcome: Outcome
    at: datetime
    code: str | None = None
    """Of a rejection."""
    doubt_until: datetime | None = None
    attempts: int = 0
    """Calls made, or maybe made. Each doubt of a command has a number of its own."""
    decision: Decision | None = None
    """IN_DOUBT: the first one about this doubt."""


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of status that the contract does not have."""

    before: Status
    after: Status
    at: datetime


@dataclass(frozen=True, slots=True)
class Ticket:
    reference: str
    origin: Origin
    opened_at: datetime
    """When its first event arrived."""
    updated_at: datetime
    """When its latest event arrived."""
    maintainer_reference: str | None = None
    status: Status | None = None
    """None until one is known."""
    status_since: datetime | None = None
    clock: Clock = Clock.NOT_STARTED
    clock_since: datetime | None = None
    """When the clock came into this state."""
    ran: timedelta = timedelta(0)
    """How long it ran up to `clock_since`."""
    paused: timedelta = timedelta(0)
    """How long it was paused up to `clock_since`."""
    deadline: datetime | None = None
    """While Resolved: when the supplier takes silence for acceptance."""
    warned: bool = False
    """That this deadline approaches was published."""
    kind: str | None = None
    """Of the notification the report is from."""
    sent_at: datetime | None = None
    received_at: datetime | None = None
    """When the supplier sent that notification, as far as it is believed, and when we received it."""
    newest_sent_at: datetime | None = None
    """The newest believed time of sending of all notifications: one that was sent before it is late."""
    report: Mapping[str, Any] | None = None
    appointments: tuple[Mapping[str, Any], ...] = ()
    """One for each reservation key, the one that changed last at the end."""
    commands: tuple[Command, ...] = ()
    heard: Mapping[str, Notified] = field(default_factory=dict)
    """By kind of notification."""
    events: int = 0
    late: int = 0
    """Notifications among them that came after a newer one."""
    illegal: int = 0
    last_illegal: Transition | None = None
    seen: bytes = b""
    """Marks of the latest events, concatenated."""

    def clocked(self, at: datetime) -> tuple[timedelta, timedelta]:
        """How long the clock ran and how long it was paused, up to `at`."""
        since = at - (self.clock_since or at)
        ran = self.ran + since if self.clock is Clock.RUNNING else self.ran
        return ran, self.paused + since if self.clock is Clock.PAUSED else self.paused

    def record(self) -> dict[str, Any]:
        illegal = self.last_illegal
        return {
            "buyerFaultReference": self.reference,
            "maintainerFaultReference": self.maintainer_reference,
            "origin": self.origin.value,
            "status": None if self.status is None else self.status.value,
            "statusSince": self.status_since,
            "openedAt": self.opened_at,
            "updatedAt": self.updated_at,
            "slaClock": self.clock.value,
            "slaClockSince": self.clock_since,
            "slaRunMillis": self.ran // MILLISECOND,
            "slaPausedMillis": self.paused // MILLISECOND,
            "resolveDeadline": self.deadline,
            "resolveDeadlineWarned": self.warned,
            "lastKind": self.kind,
            "reportSentAt": self.sent_at,
            "reportReceivedAt": self.received_at,
            "newestSentAt": self.newest_sent_at,
            "report": self.report,
            "appointments": list(self.appointments),
            "commands": [
                {
                    "commandId": c.command_id,
                    "operation": c.operation,
                    "outcome": c.outcome.value,
                    "at": c.at,
                    "code": c.code,
                    "doubtUntil": c.doubt_until,
                    "attempts": c.attempts,
                    "decision": None
                    if c.decision is None
                    else {
                        "decision": c.decision.ruling.value,
                        "why": c.decision.why,
                        "who": c.decision.who,
                        **_heard_record(c.decision.heard),
                    },
                }
                for c in self.commands
            ],
            **_heard_record(self.heard),
            "events": self.events,
            "lateEvents": self.late,
            "illegalTransitions": self.illegal,
            "lastIllegalTransition": None
            if illegal is None
            else {"from": illegal.before.value, "to": illegal.after.value, "at": illegal.at},
            "seen": self.seen,
        }


def ticket(record: Mapping[str, Any]) -> Ticket:
    """The ticket of a `Ticket` record. A word of a newer release reads as UNKNOWN, a status as none."""
    illegal = record["lastIllegalTransition"]
    return Ticket(
        reference=record["buyerFaultReference"],
        origin=Origin(record["origin"]),
        opened_at=record["openedAt"],
        updated_at=record["updatedAt"],
        maintainer_reference=record["maintainerFaultReference"],
        status=status(record["status"]),
        status_since=record["statusSince"],
        clock=Clock(record["slaClock"]),
        clock_since=record["slaClockSince"],
        ran=record["slaRunMillis"] * MILLISECOND,
        paused=record["slaPausedMillis"] * MILLISECOND,
        deadline=record["resolveDeadline"],
        warned=record["resolveDeadlineWarned"],
        kind=record["lastKind"],
        sent_at=record["reportSentAt"],
        received_at=record["reportReceivedAt"],
        newest_sent_at=record["newestSentAt"],
        report=record["report"],
        appointments=tuple(record["appointments"]),
        commands=tuple(map(_command, record["commands"])),
        heard=_heard(record),
        events=record["events"],
        late=record["lateEvents"],
        illegal=record["illegalTransitions"],
        last_illegal=_transition(illegal),
        seen=record["seen"],
    )


def _heard_record(heard: Mapping[str, Notified]) -> dict[str, Any]:
    return {
        "notifiedAt": {kind: notified.at for kind, notified in heard.items()},
        "notifications": {kind: notified.times for kind, notified in heard.items()},
    }


def _heard(record: Mapping[str, Any]) -> dict[str, Notified]:
    times = record["notifications"]
    return {kind: Notified(at, times.get(kind, 0)) for kind, at in record["notifiedAt"].items()}


def _command(record: Mapping[str, Any]) -> Command:
    decision = record["decision"]
    return Command(
        record["commandId"],
        record["operation"],
        Outcome(record["outcome"]),
        record["at"],
        record["code"],
        record["doubtUntil"],
        record["attempts"],
        None
        if decision is None
        else Decision(Ruling(decision["decision"]), decision["why"], decision["who"], _heard(decision)),
    )


def status(symbol: str | None) -> Status | None:
    """The status of that symbol; None for none, and for one that says nothing (UNKNOWN)."""
    return Status(symbol) if symbol is not None and symbol in Status.__members__ else None


def _transition(record: Mapping[str, Any] | None) -> Transition | None:
    if record is None:
        return None
    before, after = status(record["from"]), status(record["to"])
    return None if before is None or after is None else Transition(before, after, record["at"])
