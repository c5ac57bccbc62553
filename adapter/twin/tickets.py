"""The supplier's books: tickets with their life cycle, appointment slots and reservations. Pure: time comes as
an argument, nothing waits. Every change of a ticket is kept as a `Change`, in order, which is what notifications
are made from.

The rules are those of the contract, section 4: unique `buyerFaultReference`, the reservation-key rule, the
statuses and their transitions, 48 hours from Resolved to Closed. What the contract leaves open is decided the
way that refuses more, since a stand-in that is stricter than the supplier finds more faults.
"""

import heapq
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import Final

from adapter.twin import life
from adapter.twin.dialects import Manner
from adapter.twin.life import HAPPENING_OF, Appointment, Happening, Rules, Status, Ticket

_AS_IT_COMES: Final = Manner()
_UNKNOWN_SERVICE: Final = "UNKNOWN"
"""A serviceAffected that begins so is no service of ours."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A business refusal: the code and the words of the answer."""

    code: int
    text: str


@dataclass(frozen=True, slots=True)
class Change:
    """One step in the life of a ticket; `ticket` is its state after the step."""

    sequence: int
    at: datetime
    cause: str
    ticket: Ticket
    happening: Happening | None
    """What there is to notify; None for a new ticket, whose status is in the reply."""

    manner: Manner


@dataclass(frozen=True, slots=True, order=True)
class Slot:
    """An appointment on offer. Times are the supplier's wall clock, "08:00"."""

    day: date
    start: str
    end: str


@dataclass(slots=True)
class Books:
    """All that the supplier knows. One owner, no locks."""

    rules: Rules = field(default_factory=Rules)
    tickets: dict[str, Ticket] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    taken: dict[tuple[str, Slot], str] = field(default_factory=dict)
    """Address key and slot to the reservation key."""

    reservations: dict[str, Slot] = field(default_factory=dict)
    due: list[tuple[datetime, int, str, Happening]] = field(default_factory=list)
    """A heap of what will happen by itself: when, number of the change that planned it, reference, what. An entry
    counts only if it is still the ticket's next step when its time comes.
    """

    listener: Callable[[Change], None] = field(default=lambda _: None)
    """Called with every change as it is entered."""

    def add(
        self,
        *,
        reference: str,
        service: str,
        incident: str,
        reservation_key: str | None,
        now: datetime,
        report: Mapping[str, str] | None = None,
    ) -> Ticket | Refusal:
        """A new fault report. It starts Pending; its maintainer reference comes with Accepted."""
        self.advance(now)
        if reference in self.tickets:
            return Refusal(409, "buyerFaultReference is already in use")
        if service.startswith(_UNKNOWN_SERVICE):
            return Refusal(404, "serviceAffected is not a known service")
        if refusal := self._reservation(incident, reservation_key):
            return refusal
        told = report or {}
        ticket = Ticket(
            reference,
            service,
            incident,
            Status.PENDING,
            now,
            reservation_key=reservation_key,
            report=told,
            appointments=(self._appointment(reservation_key, told),) if reservation_key else (),
        )
        return self._record(ticket, cause="added", now=now)

    def amend(
        self,
        *,
        reference: str,
        maintainer_reference: str | None,
        incident: str | None,
        reservation_key: str | None,
        now: datetime,
        report: Mapping[str, str] | None = None,
    ) -> Ticket | Refusal:
        """New information on an open ticket; a new reservation key replaces the old one (re-appointment)."""
        found = self._find(reference, maintainer_reference, now)
        if isinstance(found, Refusal):
            return found
        if not found.open:
            return Refusal(409, f"the fault report is {found.status}")
        incident = incident or found.type
        key = reservation_key or (found.reservation_key if incident == "Service Outage" else None)
        if refusal := self._reservation(incident, key):
            return refusal
        told = report or {}
        visits = found.appointments
        if reservation_key and not (visits and visits[-1].key == reservation_key):
            visits = (*visits, self._appointment(reservation_key, told))
        ticket = replace(
            found,
            service=told.get("serviceAffected") or found.service,
            type=incident,
            reservation_key=key,
            amendments=found.amendments + 1,
            report={**found.report, **told},
            appointments=visits,
        )
        return self._happen(ticket, Happening.AMENDED, cause="amended", now=now)

    def request_update(self, *, reference: str, maintainer_reference: str | None, now: datetime) -> Ticket | Refusal:
        """The buyer asks how things stand. Changes nothing but is followed by a notification."""
        found = self._find(reference, maintainer_reference, now)
        if isinstance(found, Refusal):
            return found
        return self._happen(found, Happening.UPDATE_REQUESTED, cause="update requested", now=now)

    def resolve(
        self, *, reference: str, maintainer_reference: str | None, accepted: bool, now: datetime
    ) -> Ticket | Refusal:
        """The buyer's answer to Resolved: accepted closes the ticket, rejected opens it again."""
        found = self._find(reference, maintainer_reference, now)
        match found:
            case Refusal():
                return found
            case Ticket(status=Status.RESOLVED):
                what = Happening.CLOSED if accepted else Happening.RE_OPENED
                cause = "resolution accepted" if accepted else "resolution rejected"
                return self._happen(found, what, cause=cause, now=now)
            case Ticket(status=Status.CLOSED | Status.RE_OPENED):
                return Refusal(409, f"the fault report is not Resolved any more: {found.status}")
            case Ticket():
                return Refusal(409, f"the fault report is not Resolved: {found.status}")

    def slots(self, *, address: str, first: date) -> tuple[Slot, ...]:
        """What is still free for that address in the ten days from `first`; week days only (contract, 7)."""
        return tuple(s for s in _calendar(first, days=10) if (address, s) not in self.taken)

    def reserve(self, *, address: str, slot: Slot) -> str | Refusal:
        """Takes the slot for that address and gives the reservation key."""
        if slot not in _calendar(slot.day, days=1):
            return Refusal(404, "there is no such appointment slot")
        if (address, slot) in self.taken:
            return Refusal(409, "the appointment slot is already taken")
        key = str(1_000_001 + len(self.taken))
        self.taken[address, slot] = key
        self.reservations[key] = slot
        return key

    def put(self, reference: str, status: Status, *, now: datetime) -> Ticket | Refusal:
        """Sets the status by hand, as an engineer of the supplier would."""
        return self.happen(reference, HAPPENING_OF[status], now=now)

    def happen(
        self, reference: str, what: Happening, *, now: datetime, code: str = "FR", manner: Manner = _AS_IT_COMES
    ) -> Ticket | Refusal:
        """Makes something happen to a ticket, even out of order. `code` is the closure code of a completed appointment,
        `manner` is that of the notification.
        """
        self.advance(now)
        ticket = self.tickets.get(reference)
        if ticket is None:
            return Refusal(404, "no fault report with this buyerFaultReference")
        return self._happen(ticket, what, cause="set by hand", now=now, code=code, manner=manner)

    def advance(self, now: datetime) -> None:
        """Carries out everything that was due by itself up to `now`, each at its own time."""
        while self.due and self.due[0][0] <= now:
            at, _, reference, what = heapq.heappop(self.due)
            ticket = self.tickets[reference]
            if life.next_step(ticket, self.rules) != (what, at):
                continue  # something else happened to the ticket first
            # What was due before the latest change (a new appointment of a status that began long ago) comes now.
            moment = max(at, self.changes[-1].at)
            self._happen(ticket, what, cause="time", now=moment, code=life.closure_code(reference))

    def _happen(
        self,
        ticket: Ticket,
        what: Happening,
        *,
        cause: str,
        now: datetime,
        code: str = "FR",
        manner: Manner = _AS_IT_COMES,
    ) -> Ticket:
        after = life.after(ticket, what, now, code=code)
        if after.maintainer_reference is None and after.status not in (Status.PENDING, Status.REJECTED):
            after = replace(after, maintainer_reference=f"CF-{100_000 + len(self.changes)}")
        return self._record(after, cause=cause, now=now, happening=what, manner=manner)

    def _appointment(self, key: str, report: Mapping[str, str]) -> Appointment:
        """The appointment of that key, at the time the report tells or else the one that was reserved."""
        slot = self.reservations.get(key)
        day, start, end = (slot.day.isoformat(), slot.start, slot.end) if slot else ("", "", "")
        return Appointment(
            key=key,
            date=report.get("appointment.appointmentDate") or day,
            start=report.get("appointment.appointmentStartTime") or start,
            end=report.get("appointment.appointmentEndTime") or end,
        )

    def _find(self, reference: str, maintainer_reference: str | None, now: datetime) -> Ticket | Refusal:
        self.advance(now)
        ticket = self.tickets.get(reference)
        if ticket is None:
            return Refusal(404, "no fault report with this buyerFaultReference")
        if maintainer_reference and maintainer_reference != ticket.maintainer_reference:
            return Refusal(404, "maintainerFaultReference does not belong to this buyerFaultReference")
        return ticket

    def _reservation(self, incident: str, key: str | None) -> Refusal | None:
        """Contract 4.2: a total loss of service needs a reservation key, nothing else may have one."""
        if incident == "Service Outage" and not key:
            return Refusal(422, "a Service Outage needs an appointmentReservationKey")
        if incident != "Service Outage" and key:
            return Refusal(422, "only a Service Outage may have an appointmentReservationKey")
        if key and self.rules.reserved_keys_only and key not in self.reservations:
            return Refusal(404, "appointmentReservationKey is not a known reservation")
        return None

    def _record(
        self,
        ticket: Ticket,
        *,
        cause: str,
        now: datetime,
        happening: Happening | None = None,
        manner: Manner = _AS_IT_COMES,
    ) -> Ticket:
        before = self.tickets.get(ticket.reference)
        self.tickets[ticket.reference] = ticket
        change = Change(len(self.changes) + 1, now, cause, ticket, happening, manner)
        self.changes.append(change)
        step = life.next_step(ticket, self.rules)
        if step and (before is None or life.next_step(before, self.rules) != step):
            heapq.heappush(self.due, (step[1], change.sequence, ticket.reference, step[0]))
        self.listener(change)
        return ticket


def _calendar(first: date, *, days: int) -> Iterator[Slot]:
    for day in (first + timedelta(days=n) for n in range(days)):
        if day.weekday() < 5:
            yield Slot(day, "08:00", "13:00")
            yield Slot(day, "13:00", "18:00")
