"""What the twin writes, held against the XSD and read as the adapter reads it: every happening, in every dialect."""

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from adapter.core.notification import Delivery, Readable
from adapter.twin import Dialect, Happening, Status, Ticket, dialects, life, notices
from adapter.twin.life import Appointment, Rules
from adapter.twin.notices import Notice
from adapter.twin.tickets import Books
from tests.support.known import known

READER = known().notification.reader
SCHEMA = etree.XMLSchema(etree.parse(Path(__file__).parents[2] / "schemas" / "xsd" / "cityfibre" / "faultReport.xsd"))
SUMMER = datetime(2026, 7, 1, 12, 0, 0, 123_400, tzinfo=UTC)
"""London is an hour ahead: a time whose zone is lost would show."""

REPORT = {
    "buyerIdentifier": "SPDEV1",
    "reportDateTime": "2026-07-01T11:00:00.000Z",
    "reporterContactDetails.name": "Réka Örsi",
    "endUserContactDetails.phone": "01632 960001",
    "faultDetails.description": "no light on the ONT since this morning",
    "faultDetails.faultStartTime": "2026-07-01T10:00:00.000Z",
    "faultDetails.faultLocation": "500 Avebury Boulevard Milton Keynes",
    "faultDetails.siteAccessContactDetails.phone": "12345",
}

KINDS = {
    **{happening: happening.value.replace("-", "_").upper() for happening in Happening},
    Happening.UPDATE_REQUESTED: "APPOINTMENT_COMPLETED",  # a full report of where it stands: below, an ended visit
}
"""Of the event that each happening becomes."""

ROUTES = (
    (Happening.PENDING, Happening.AMENDED, Happening.REJECTED),
    (Happening.ACCEPTED, Happening.TRIAGED, Happening.IN_PROGRESS, Happening.APPOINTMENT_CONFIRMED),
    (Happening.ACCEPTED, Happening.TRIAGED, Happening.IN_PROGRESS, Happening.APPOINTMENT_FAILED),
    (Happening.ACCEPTED, Happening.IN_PROGRESS, Happening.APPOINTMENT_CONFIRMED, Happening.APPOINTMENT_CANCELLED),
    (Happening.ACCEPTED, Happening.IN_PROGRESS, Happening.APPOINTMENT_CONFIRMED, Happening.MISSED_APPOINTMENT),
    (Happening.ACCEPTED, Happening.IN_PROGRESS, Happening.APPOINTMENT_COMPLETED, Happening.UPDATE_REQUESTED),
    (Happening.ACCEPTED, Happening.IN_PROGRESS, Happening.ON_HOLD, Happening.RESOLVED, Happening.RE_OPENED),
    (Happening.ACCEPTED, Happening.UPDATED, Happening.IN_PROGRESS, Happening.RESOLVED, Happening.CLOSED),
)
"""Lives in which together everything happens."""


def told() -> list[Notice]:
    found = []
    for number, route in enumerate(ROUTES):
        visit = (Appointment("1234568", "2026-07-02", "08:00", "13:00"),)
        ticket = Ticket(
            f"SP-{number}", "S18650", "Impaired Service", Status.PENDING, SUMMER, report=REPORT, appointments=visit
        )
        for step, happening in enumerate(route):
            at = SUMMER + timedelta(minutes=step)
            ticket = life.after(ticket, happening, at)
            if happening is Happening.ACCEPTED:
                ticket = replace(ticket, maintainer_reference="CF-100001")
            found.append(Notice(happening, ticket, f"M-{number}-{step}", at))
    assert {notice.happening for notice in found} == set(Happening)
    return found


NOTICES = told()


def read(notice: Notice, *spoken: Dialect, seed: int = 0) -> Readable:
    written = dialects.write(notices.element(notice), frozenset(spoken), random.Random(seed))
    path = "/" if Dialect.NO_HINTS in spoken else notices.PATHS.get(notice.happening, "/")
    delivery = Delivery(written.body, notice.sent_at, path=path, content_type=written.content_type)
    found = READER.read(delivery, buyers=frozenset({"SPDEV1"}))
    assert isinstance(found, Readable), found
    return found


@pytest.mark.parametrize("notice", NOTICES, ids=lambda notice: f"{notice.ticket.reference}-{notice.happening}")
def test_every_happening_is_told_by_the_schema_and_read_as_its_kind(notice: Notice) -> None:
    SCHEMA.assertValid(notices.element(notice))
    found = read(notice)
    assert found.kind == KINDS[notice.happening]
    assert found.reference == notice.ticket.reference
    assert found.record["supplierSentAt"] == notice.sent_at.replace(microsecond=123_000)
    assert found.deviations == ()


STRAYS = {
    Dialect.NO_SENT_AT: {"sentAt"},
    Dialect.SAME_MESSAGE_ID: set[str](),
    Dialect.FAULT_TYPE: {"faultDetails.type"},
    Dialect.STATUS_SPELLING: {"faultDetails.status"},
    Dialect.MULTI_LINE: {"updates"},
    Dialect.TIMES: {"sentAt", "reportDateTime", "faultDetails.faultStartTime", "updates"},
}
"""What each dialect leaves otherwise in the report: a time may lose its fraction, a history its line breaks."""


@pytest.mark.parametrize("dialect", Dialect)
@pytest.mark.parametrize("seed", range(3))
def test_in_every_dialect_a_notification_says_the_same(dialect: Dialect, seed: int) -> None:
    changed = 0
    for notice in NOTICES:
        plain, strayed = read(notice), read(notice, dialect, seed=seed)
        assert strayed.reference == plain.reference
        assert strayed.record["status"] == plain.record["status"]
        assert strayed.record["maintainerFaultReference"] == plain.record["maintainerFaultReference"]
        if not (dialect is Dialect.NO_HINTS and notice.happening is Happening.AMENDED):
            assert strayed.kind == plain.kind, notice.happening
        report, other = content(plain), content(strayed)
        left = {path for path in report.keys() | other.keys() if report.get(path) != other.get(path)}
        assert {path for path in left if not any(path.startswith(stray) for stray in STRAYS.get(dialect, ()))} == set()
        if dialect is Dialect.MULTI_LINE:
            assert all(report[path].split() == other[path].split() for path in left)
        if dialect is Dialect.TIMES:
            assert all(abs(report[path] - other[path]) < timedelta(seconds=1) for path in left if "updates" not in path)
        elif Dialect.NO_SENT_AT is not dialect:
            assert strayed.record["supplierSentAt"] == plain.record["supplierSentAt"]
        generator = random.Random(seed)
        changed += dialects.write(notices.element(notice), frozenset({dialect}), generator) != dialects.write(
            notices.element(notice), frozenset(), generator
        )
    # The last two are the address and the numbering of who sends.
    assert changed or dialect in {Dialect.NO_HINTS, Dialect.SAME_MESSAGE_ID}


def test_any_mixture_of_dialects_is_read_as_the_same_happening() -> None:
    for seed in range(400):
        generator = random.Random(seed)
        notice = generator.choice(NOTICES)
        spoken = dialects.choose(Dialect, chance=0.4, generator=generator)
        found = read(notice, *spoken, seed=seed)
        assert found.reference == notice.ticket.reference, (seed, spoken)
        if notice.happening is not Happening.AMENDED:
            assert found.kind == KINDS[notice.happening], (seed, spoken)


def test_of_dialects_that_exclude_one_another_one_is_spoken() -> None:
    for seed in range(50):
        spoken = dialects.choose(Dialect, chance=1.0, generator=random.Random(seed))
        assert len(spoken) == len(Dialect) - len(dialects.EXCLUSIVE)


def test_a_full_life_goes_by_itself_from_pending_to_closed_with_every_ending_of_a_visit() -> None:
    seen: set[Happening | None] = set()
    for number in range(40):
        books = Books(rules=Rules(full_life=True))
        now = SUMMER
        books.add(reference=f"SP-{number}", service="S1", incident="Service Outage", reservation_key="1", now=now)
        while books.due:
            now = books.due[0][0]
            books.advance(now)
        statuses = [change.ticket.status for change in books.changes]
        assert (statuses[0], statuses[-1]) == (Status.PENDING, Status.CLOSED)
        assert Status.ON_HOLD in statuses
        assert now - SUMMER < timedelta(days=4)
        seen |= {change.happening for change in books.changes}
    by_hand = {Happening.PENDING, Happening.REJECTED, Happening.RE_OPENED, Happening.UPDATED}
    by_the_buyer = {Happening.AMENDED, Happening.UPDATE_REQUESTED}
    assert seen == set(Happening) - by_hand - by_the_buyer | {None}


def test_a_rejected_resolution_opens_the_ticket_again_and_work_goes_on() -> None:
    books = Books(rules=Rules(full_life=True))
    now = SUMMER
    books.add(reference="SP-1", service="S1", incident="Impaired Service", reservation_key=None, now=now)
    while books.tickets["SP-1"].status is not Status.RESOLVED:
        now = books.due[0][0]
        books.advance(now)
    books.resolve(reference="SP-1", maintainer_reference=None, accepted=False, now=now)
    told = len(books.changes)
    while books.due:
        now = books.due[0][0]
        books.advance(now)
    later = [change.ticket.status for change in books.changes[told:]]
    assert later == [Status.IN_PROGRESS, Status.RESOLVED, Status.CLOSED]


def content(found: Readable) -> dict[str, Any]:
    """The texts and values of the report by path; an empty part is as good as none."""
    flat: dict[str, Any] = {}

    def walk(value: Any, path: str) -> None:
        match value:
            case dict():
                for name, each in value.items():
                    walk(each, f"{path}.{name}" if path else name)
            case list():
                for place, each in enumerate(value):
                    walk(each, f"{path}[{place}]")
            case None | "":
                pass
            case _:
                flat[path] = value

    walk(found.record["report"], "")
    flat.pop("messageId", None)
    return flat
