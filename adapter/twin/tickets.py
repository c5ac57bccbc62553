"""The supplier's books: tickets with their life cycle, appointment slots and reservations. Pure: time comes as
an argument, nothing waits. Every change of a ticket is kept as a `Change`, in order, which is what notifications
are made from.

The rules are those of the contract, section 4: unique `buyerFaultReference`, the reservation-key rule, the
statuses and their transitions, 48 hours from Resolved to Closed. What the contract leaves open is decided the
way that refuses more, since a stand-in that is stricter than the supplier finds more faults.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from enum import StrEnum


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


@dataclass(frozen=True, slots=True)
class Rules:
    """What the supplier does with tickets. Durations are real ones; `speed` divides them."""

    speed: float = 1.0
    accept_after: timedelta = timedelta(seconds=2)
    start_after: timedelta = timedelta(minutes=15)
    resolve_after: timedelta | None = None
    """None: a ticket is Resolved only when somebody says so."""

    close_after: timedelta = timedelta(hours=48)
    reserved_keys_only: bool = False
    """A reservation key must be one that this supplier gave out."""

    unknown_service: str = "UNKNOWN"
    """A serviceAffected that begins so is no service of ours."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A business refusal: the code and the words of the answer."""

    code: int
    text: str


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

    @property
    def open(self) -> bool:
        return self.status not in (Status.REJECTED, Status.CLOSED)


@dataclass(frozen=True, slots=True)
class Change:
    """One step in the life of a ticket; `ticket` is its state after the step."""

    sequence: int
    at: datetime
    cause: str
    ticket: Ticket


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

    reservations: set[str] = field(default_factory=set)
    due: list[tuple[datetime, int, str, Status]] = field(default_factory=list)
    """Heap of what time alone will bring: when, number of the change that planned it, reference, next status.
    An entry holds only if it is still the ticket's next step when its time comes."""

    def add(
        self, *, reference: str, service: str, incident: str, reservation_key: str | None, now: datetime
    ) -> Ticket | Refusal:
        """A new fault report. It starts Pending; its maintainer reference comes with Accepted."""
        self.advance(now)
        if reference in self.tickets:
            return Refusal(409, "buyerFaultReference is already in use")
        if service.startswith(self.rules.unknown_service):
            return Refusal(404, "serviceAffected is not a known service")
        if refusal := self._reservation(incident, reservation_key):
            return refusal
        ticket = Ticket(reference, service, incident, Status.PENDING, now, reservation_key=reservation_key)
        return self._record(ticket, cause="added", now=now)

    def amend(
        self,
        *,
        reference: str,
        maintainer_reference: str | None,
        incident: str | None,
        reservation_key: str | None,
        now: datetime,
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
        after = replace(found, type=incident, reservation_key=key, amendments=found.amendments + 1)
        return self._record(after, cause="amended", now=now)

    def request_update(self, *, reference: str, maintainer_reference: str | None, now: datetime) -> Ticket | Refusal:
        """The buyer asks how things stand. Changes nothing but is followed by a notification."""
        found = self._find(reference, maintainer_reference, now)
        return found if isinstance(found, Refusal) else self._record(found, cause="update requested", now=now)

    def resolve(
        self, *, reference: str, maintainer_reference: str | None, accepted: bool, now: datetime
    ) -> Ticket | Refusal:
        """The buyer's answer to Resolved: accepted closes the ticket, rejected opens it again."""
        found = self._find(reference, maintainer_reference, now)
        match found:
            case Refusal():
                return found
            case Ticket(status=Status.RESOLVED):
                status = Status.CLOSED if accepted else Status.RE_OPENED
                cause = "resolution accepted" if accepted else "resolution rejected"
                return self._record(replace(found, status=status, since=now), cause=cause, now=now)
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
        self.reservations.add(key)
        return key

    def put(self, reference: str, status: Status, *, now: datetime) -> Ticket | Refusal:
        """Sets the status by hand, as an engineer of the supplier would."""
        self.advance(now)
        ticket = self.tickets.get(reference)
        if ticket is None:
            return Refusal(404, "no fault report with this buyerFaultReference")
        return self._record(self._in_status(ticket, status, now), cause="set by hand", now=now)

    def advance(self, now: datetime) -> None:
        """Carries out every transition that time alone has brought up to `now`, each at its own moment."""
        while self.due and self.due[0][0] <= now:
            at, _, reference, status = heapq.heappop(self.due)
            ticket = self.tickets[reference]
            step = self._next(ticket)
            if step == (status, at):  # else something else happened to the ticket first
                self._record(self._in_status(ticket, status, at), cause="time", now=at)

    def _next(self, ticket: Ticket) -> tuple[Status, datetime] | None:
        match ticket.status:
            case Status.PENDING:
                status, after = Status.ACCEPTED, self.rules.accept_after
            case Status.ACCEPTED | Status.RE_OPENED:
                status, after = Status.IN_PROGRESS, self.rules.start_after
            case Status.IN_PROGRESS if self.rules.resolve_after is not None:
                status, after = Status.RESOLVED, self.rules.resolve_after
            case Status.RESOLVED:
                status, after = Status.CLOSED, self.rules.close_after
            case _:
                return None
        return status, ticket.since + after / self.rules.speed

    def _in_status(self, ticket: Ticket, status: Status, at: datetime) -> Ticket:
        reference = ticket.maintainer_reference
        if reference is None and status not in (Status.PENDING, Status.REJECTED):
            reference = f"CF-{100_000 + len(self.changes)}"
        return replace(ticket, status=status, since=at, maintainer_reference=reference)

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

    def _record(self, ticket: Ticket, *, cause: str, now: datetime) -> Ticket:
        before = self.tickets.get(ticket.reference)
        self.tickets[ticket.reference] = ticket
        self.changes.append(Change(len(self.changes) + 1, now, cause, ticket))
        moved = before is None or (before.status, before.since) != (ticket.status, ticket.since)
        if moved and (step := self._next(ticket)):
            heapq.heappush(self.due, (step[1], len(self.changes), ticket.reference, step[0]))
        return ticket


def _calendar(first: date, *, days: int) -> Iterator[Slot]:
    for day in (first + timedelta(days=n) for n in range(days)):
        if day.weekday() < 5:
            yield Slot(day, "08:00", "13:00")
            yield Slot(day, "13:00", "18:00")
