"""The life of one ticket at the supplier: what can happen to it, what state results, and what happens by itself. Pure:
time is an argument. Statuses and their order are those of the contract, section 4.1; what it leaves open, above all
when a visit takes place and how it ends, is the twin's own.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final


class Status(StrEnum):
    """Spelled as the contract's narrative does (section 4.1)."""

    PENDING = "Pending"
    REJECTED = "Rejected"
    ACCEPTED = "Accepted"
    IN_PROGRESS = "In Progress"
    ON_HOLD = "on-hold"
    RESOLVED = "Resolved"
    RE_OPENED = "Re-Opened"
    CLOSED = "Closed"


class Happening(StrEnum):
    """What can happen to a ticket; each is followed by a notification."""

    PENDING = "pending"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    TRIAGED = "triaged"
    IN_PROGRESS = "in-progress"
    ON_HOLD = "on-hold"
    RESOLVED = "resolved"
    RE_OPENED = "re-opened"
    CLOSED = "closed"
    AMENDED = "amended"
    UPDATED = "updated"
    """More information, in a report without a status. No table of the contract has this case."""

    UPDATE_REQUESTED = "update-requested"
    APPOINTMENT_CONFIRMED = "appointment-confirmed"
    APPOINTMENT_FAILED = "appointment-failed"
    APPOINTMENT_COMPLETED = "appointment-completed"
    APPOINTMENT_CANCELLED = "appointment-cancelled"
    MISSED_APPOINTMENT = "missed-appointment"


STATUS_AFTER: Final = {
    Happening.PENDING: Status.PENDING,
    Happening.ACCEPTED: Status.ACCEPTED,
    Happening.REJECTED: Status.REJECTED,
    Happening.IN_PROGRESS: Status.IN_PROGRESS,
    Happening.ON_HOLD: Status.ON_HOLD,
    Happening.RESOLVED: Status.RESOLVED,
    Happening.RE_OPENED: Status.RE_OPENED,
    Happening.CLOSED: Status.CLOSED,
}
"""Happenings that are a change of status."""

HAPPENING_OF: Final = {status: happening for happening, status in STATUS_AFTER.items()}
APPOINTMENTS: Final = frozenset(
    {
        Happening.APPOINTMENT_CONFIRMED,
        Happening.APPOINTMENT_FAILED,
        Happening.APPOINTMENT_COMPLETED,
        Happening.APPOINTMENT_CANCELLED,
        Happening.MISSED_APPOINTMENT,
    }
)
"""Happenings that need an appointment."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The options of the supplier's behaviour towards tickets."""

    speed: float = 1.0
    """Divides all durations, which count from the beginning of a status."""

    resolve_after: timedelta | None = None
    """None: a ticket is Resolved only when somebody says so, or after four hours of a full life."""

    full_life: bool = False
    """Work proceeds by itself: appointments are confirmed or fail, and end in one of several ways; the ticket is put on
    hold, resumed, and Resolved.
    """

    reserved_keys_only: bool = False
    """A reservation key must be one that this supplier gave out."""


@dataclass(frozen=True, slots=True)
class Update:
    """An entry of the ticket's history."""

    at: datetime
    by: str
    text: str


@dataclass(frozen=True, slots=True)
class Appointment:
    """An engineer's visit. Texts are as in the request; the times are the supplier's wall clock."""

    key: str
    date: str = ""
    start: str = ""
    end: str = ""
    confirmation: str = ""
    """Confirmed, Failed, or nothing yet."""

    closure_code: str = ""
    """Contract 6.1."""

    cancelled: bool | None = None
    missed: bool = False

    @property
    def over(self) -> bool:
        return bool(self.closure_code) or bool(self.cancelled) or self.missed or self.confirmation == "Failed"


@dataclass(frozen=True, slots=True)
class Ticket:
    reference: str
    service: str
    type: str
    status: Status
    since: datetime
    maintainer_reference: str | None = None
    reservation_key: str | None = None
    amendments: int = 0
    report: Mapping[str, str] = field(default_factory=dict)
    """The rest of what the buyer told, by dotted path: "reporterContactDetails.name"."""

    triage: str = ""
    """The findings; empty until there are some."""

    held: bool = False
    """It has been on hold."""

    updates: tuple[Update, ...] = ()
    appointments: tuple[Appointment, ...] = ()

    @property
    def open(self) -> bool:
        return self.status not in (Status.REJECTED, Status.CLOSED)


def after(ticket: Ticket, what: Happening, at: datetime, *, code: str = "FR") -> Ticket:
    """The ticket after `what` has happened to it. `code` is the closure code of a completed appointment. If the ticket
    has no appointment but needs one, one is made up.
    """
    if what in STATUS_AFTER:
        ticket = replace(ticket, status=STATUS_AFTER[what], since=at, held=ticket.held or what is Happening.ON_HOLD)
    if what is Happening.TRIAGED:
        ticket = replace(ticket, triage="Fault found on the access network")
    if what in APPOINTMENTS:
        ticket = replace(ticket, appointments=_visited(ticket, what, at, code))
    by = "buyer" if what in (Happening.AMENDED, Happening.RE_OPENED) else "supplier"
    return replace(ticket, updates=(*ticket.updates, Update(at, by, _WORDS[what])))


def next_step(ticket: Ticket, rules: Rules) -> tuple[Happening, datetime] | None:
    """What will happen next by itself, and when; None if nothing will."""
    match ticket.status:
        case Status.PENDING:
            step = Happening.ACCEPTED, _ACCEPT_AFTER
        case Status.ACCEPTED if not ticket.triage:
            step = Happening.TRIAGED, _TRIAGE_AFTER
        case Status.ACCEPTED | Status.RE_OPENED:
            step = Happening.IN_PROGRESS, _START_AFTER
        case Status.IN_PROGRESS if rules.full_life:
            step = _work(ticket, rules)
        case Status.IN_PROGRESS if rules.resolve_after is not None:
            step = Happening.RESOLVED, rules.resolve_after
        case Status.ON_HOLD if rules.full_life:
            step = Happening.IN_PROGRESS, _HELD_FOR
        case Status.RESOLVED:
            step = Happening.CLOSED, _CLOSE_AFTER
        case _:
            return None
    return step[0], ticket.since + step[1] / rules.speed


def closure_code(reference: str) -> str:
    """The closure code of the visit in a ticket's full life: usually a success."""
    return "FNR" if _fate(reference) == 3 else "FR"


_ACCEPT_AFTER: Final = timedelta(seconds=2)
_TRIAGE_AFTER: Final = timedelta(minutes=5)
_START_AFTER: Final = timedelta(minutes=15)
_CLOSE_AFTER: Final = timedelta(hours=48)
_CONFIRM_AFTER: Final = timedelta(minutes=10)
_HOLD_AFTER: Final = timedelta(hours=1)
_HELD_FOR: Final = timedelta(hours=1)
_VISIT_AFTER: Final = timedelta(hours=2)
_RESOLVE_AFTER: Final = timedelta(hours=4)
_WORDS: Final = {
    Happening.PENDING: "Fault report received",
    Happening.ACCEPTED: "Fault report accepted",
    Happening.REJECTED: "Fault report rejected",
    Happening.TRIAGED: "Triage complete",
    Happening.IN_PROGRESS: "Work in progress",
    Happening.ON_HOLD: "Waiting for information",
    Happening.RESOLVED: "Fault resolved",
    Happening.RE_OPENED: "Resolution rejected",
    Happening.CLOSED: "Fault report closed",
    Happening.AMENDED: "Amendment received",
    Happening.UPDATED: "More information",
    Happening.UPDATE_REQUESTED: "Update as requested",
    Happening.APPOINTMENT_CONFIRMED: "Appointment confirmed",
    Happening.APPOINTMENT_FAILED: "Appointment could not be confirmed",
    Happening.APPOINTMENT_COMPLETED: "Appointment completed",
    Happening.APPOINTMENT_CANCELLED: "Appointment cancelled",
    Happening.MISSED_APPOINTMENT: "Appointment missed",
}


def _work(ticket: Ticket, rules: Rules) -> tuple[Happening, timedelta]:
    """The next step of a full life while work is in progress."""
    visit = ticket.appointments[-1] if ticket.appointments else None
    fate = _fate(ticket.reference)
    if visit and not visit.confirmation and not visit.over:
        answer = Happening.APPOINTMENT_FAILED if fate == 0 else Happening.APPOINTMENT_CONFIRMED
        return answer, _CONFIRM_AFTER
    if not ticket.held:
        return Happening.ON_HOLD, _HOLD_AFTER
    if visit and not visit.over:
        endings = {1: Happening.APPOINTMENT_CANCELLED, 2: Happening.MISSED_APPOINTMENT}
        return endings.get(fate, Happening.APPOINTMENT_COMPLETED), _VISIT_AFTER
    return Happening.RESOLVED, rules.resolve_after if rules.resolve_after is not None else _RESOLVE_AFTER


def _fate(reference: str) -> int:
    """A number from 0 to 7 that depends on the reference alone, so that each ticket's life is reproducible."""
    return zlib.crc32(reference.encode("utf-8", "replace")) % 8


def _visited(ticket: Ticket, what: Happening, at: datetime, code: str) -> tuple[Appointment, ...]:
    made_up = Appointment(ticket.reservation_key or "1234568", f"{at:%Y-%m-%d}", "08:00", "13:00")
    *earlier, visit = ticket.appointments or (made_up,)
    match what:
        case Happening.APPOINTMENT_CONFIRMED:
            visit = replace(visit, confirmation="Confirmed", closure_code="", cancelled=None, missed=False)
        case Happening.APPOINTMENT_FAILED:
            visit = replace(visit, confirmation="Failed", closure_code="", cancelled=None, missed=False)
        case Happening.APPOINTMENT_COMPLETED:
            visit = replace(visit, confirmation="Confirmed", closure_code=code, cancelled=False, missed=False)
        case Happening.APPOINTMENT_CANCELLED:
            visit = replace(visit, cancelled=True)
        case _:
            visit = replace(visit, confirmation="Confirmed", closure_code="", cancelled=None, missed=True)
    return (*earlier, visit)
