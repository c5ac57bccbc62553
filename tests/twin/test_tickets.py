"""The supplier's books: the documented life of a ticket, slots and reservations, by a clock that is an argument."""

from datetime import UTC, date, datetime, timedelta

import pytest

from adapter.twin.life import Rules, Status, Ticket
from adapter.twin.tickets import Books, Refusal, Slot

NOW = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
MONDAY = date(2026, 3, 2)
MORNING = Slot(MONDAY, "08:00", "13:00")


def add(
    books: Books, reference: str = "SP-1", *, incident: str = "Impaired Service", key: str | None = None
) -> Ticket | Refusal:
    return books.add(reference=reference, service="S1", incident=incident, reservation_key=key, now=NOW)


def resolve(books: Books, *, accepted: bool, now: datetime = NOW, reference: str = "SP-1") -> Ticket | Refusal:
    return books.resolve(reference=reference, maintainer_reference=None, accepted=accepted, now=now)


def amend(
    books: Books, *, incident: str | None = None, key: str | None = None, reference: str = "SP-1"
) -> Ticket | Refusal:
    return books.amend(reference=reference, maintainer_reference=None, incident=incident, reservation_key=key, now=NOW)


def status(books: Books) -> Status:
    return books.tickets["SP-1"].status


def refused(answer: object) -> str:
    assert isinstance(answer, Refusal)
    return answer.text


def accepted(answer: object) -> Ticket:
    assert isinstance(answer, Ticket)
    return answer


def test_a_new_report_is_pending_and_gets_its_maintainer_reference_with_accepted() -> None:
    books = Books()
    assert accepted(add(books)).maintainer_reference is None
    books.advance(NOW + timedelta(seconds=2))
    ticket = books.tickets["SP-1"]
    assert (ticket.status, ticket.since) == (Status.ACCEPTED, NOW + timedelta(seconds=2))
    assert ticket.maintainer_reference


def test_maintainer_references_are_unique() -> None:
    books = Books()
    for number in range(50):
        add(books, f"SP-{number}")
    books.advance(NOW + timedelta(hours=1))
    assert len({t.maintainer_reference for t in books.tickets.values()}) == 50


def test_time_takes_a_ticket_through_all_its_statuses_each_at_its_own_moment() -> None:
    books = Books(Rules(resolve_after=timedelta(hours=4)))
    add(books)
    books.advance(NOW + timedelta(days=30))
    steps = [(c.ticket.status, c.at - NOW) for c in books.changes]
    start = timedelta(minutes=15, seconds=2)
    assert steps == [
        (Status.PENDING, timedelta()),
        (Status.ACCEPTED, timedelta(seconds=2)),
        (Status.ACCEPTED, timedelta(minutes=5, seconds=2)),
        (Status.IN_PROGRESS, start),
        (Status.RESOLVED, start + timedelta(hours=4)),
        (Status.CLOSED, start + timedelta(hours=52)),
    ]
    assert [c.sequence for c in books.changes] == [1, 2, 3, 4, 5, 6]


def test_speed_divides_every_duration() -> None:
    books = Books(Rules(speed=1000))
    add(books)
    books.advance(NOW + timedelta(seconds=1))
    assert books.tickets["SP-1"].status == Status.IN_PROGRESS


def test_a_step_that_somebody_forestalled_does_not_happen() -> None:
    books = Books()
    add(books)
    books.put("SP-1", Status.ON_HOLD, now=NOW + timedelta(seconds=1))
    books.advance(NOW + timedelta(days=30))
    assert books.tickets["SP-1"].status == Status.ON_HOLD


def test_a_ticket_set_back_to_accepted_starts_from_then() -> None:
    books = Books()
    add(books)
    books.put("SP-1", Status.ACCEPTED, now=NOW + timedelta(seconds=1))
    books.advance(NOW + timedelta(minutes=15, seconds=0.5))
    assert status(books) == Status.ACCEPTED
    books.advance(NOW + timedelta(minutes=15, seconds=1))
    assert status(books) == Status.IN_PROGRESS


def test_a_reference_is_unique_and_a_refused_report_does_not_use_it_up() -> None:
    books = Books()
    assert "appointmentReservationKey" in refused(add(books, incident="Service Outage"))
    accepted(add(books))
    assert "already in use" in refused(add(books))


def test_an_unknown_service_is_refused() -> None:
    answer = Books().add(
        reference="SP-1", service="UNKNOWN-7", incident="Impaired Service", reservation_key=None, now=NOW
    )
    assert "serviceAffected" in refused(answer)


@pytest.mark.parametrize(
    ("incident", "key", "taken"),
    [
        ("Service Outage", None, False),
        ("Service Outage", "7", True),
        ("Impaired Service", None, True),
        ("Impaired Service", "7", False),
        ("Performance Issue", "7", False),
        ("", None, True),
    ],
)
def test_the_reservation_key_rule(incident: str, key: str | None, *, taken: bool) -> None:
    assert isinstance(add(Books(), incident=incident, key=key), Ticket) == taken


def test_a_key_that_was_not_given_out_is_refused_where_that_is_asked_for() -> None:
    books = Books(Rules(reserved_keys_only=True))
    assert "not a known reservation" in refused(add(books, incident="Service Outage", key="7"))
    key = books.reserve(address="A", slot=MORNING)
    assert isinstance(key, str)
    accepted(add(books, incident="Service Outage", key=key))


def test_re_appointment_replaces_the_reservation_key() -> None:
    books = Books()
    add(books, incident="Service Outage", key="7")
    assert accepted(amend(books, key="8")).reservation_key == "8"


def test_an_amendment_that_makes_it_no_outage_gives_the_key_back() -> None:
    books = Books()
    add(books, incident="Service Outage", key="7")
    assert accepted(amend(books, incident="Performance Issue")).reservation_key is None
    assert "needs" in refused(amend(books, incident="Service Outage"))


def test_an_amendment_does_not_delay_what_time_brings() -> None:
    books = Books()
    add(books)
    amend(books)
    books.advance(NOW + timedelta(seconds=2))
    assert books.tickets["SP-1"].status == Status.ACCEPTED
    assert books.tickets["SP-1"].amendments == 1


def test_nothing_can_be_done_with_an_unknown_ticket() -> None:
    books = Books()
    add(books)
    for answer in (
        amend(books, reference="SP-2"),
        resolve(books, accepted=True, reference="SP-2"),
        books.request_update(reference="SP-2", maintainer_reference=None, now=NOW),
        books.put("SP-2", Status.RESOLVED, now=NOW),
        books.request_update(reference="SP-1", maintainer_reference="CF-0", now=NOW),
    ):
        assert isinstance(answer, Refusal)
        assert answer.code == 404


def test_a_closed_ticket_is_not_amended() -> None:
    books = Books()
    add(books)
    books.put("SP-1", Status.CLOSED, now=NOW)
    assert "Closed" in refused(amend(books))


@pytest.mark.parametrize(("verdict", "then"), [(True, Status.CLOSED), (False, Status.RE_OPENED)])
def test_a_resolution_is_answered_once(then: Status, *, verdict: bool) -> None:
    books = Books()
    add(books)
    assert "is not Resolved:" in refused(resolve(books, accepted=verdict))
    books.put("SP-1", Status.RESOLVED, now=NOW)
    assert accepted(resolve(books, accepted=verdict)).status == then
    assert "not Resolved any more" in refused(resolve(books, accepted=verdict))


def test_a_resolution_nobody_answers_is_closed_after_48_hours() -> None:
    books = Books()
    add(books)
    books.put("SP-1", Status.RESOLVED, now=NOW)
    late = resolve(books, accepted=False, now=NOW + timedelta(hours=48))
    assert "not Resolved any more: Closed" in refused(late)


def test_slots_are_on_week_days_and_a_reserved_one_is_gone_for_that_address() -> None:
    books = Books()
    offered = books.slots(address="A", first=MONDAY)
    assert MORNING in offered
    assert {s.day.weekday() for s in offered} == {0, 1, 2, 3, 4}
    key = books.reserve(address="A", slot=MORNING)
    assert isinstance(key, str)
    assert MORNING not in books.slots(address="A", first=MONDAY)
    assert MORNING in books.slots(address="B", first=MONDAY)
    assert "already taken" in refused(books.reserve(address="A", slot=MORNING))
    assert books.reserve(address="B", slot=MORNING) not in (key, None)


@pytest.mark.parametrize(
    "slot", [Slot(MONDAY, "09:00", "13:00"), Slot(date(2026, 3, 7), "08:00", "13:00")], ids=["hours", "Saturday"]
)
def test_a_slot_that_was_never_offered_is_refused(slot: Slot) -> None:
    assert "no such" in refused(Books().reserve(address="A", slot=slot))
