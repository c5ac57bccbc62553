"""Events and times in words."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapter.core.wording import appointment, columns, headline, moment, particulars, span

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
VISIT = {
    "appointmentReservationKey": "1000001",
    "appointmentDate": date(2026, 2, 2),
    "appointmentStartTime": "08:00",
    "appointmentEndTime": "13:00",
    "appointmentConfirmationStatus": None,
    "appointmentClosureCode": None,
    "appointmentCancelled": None,
}


def notified(kind: str, **fields: Any) -> dict[str, Any]:
    known: dict[str, Any] = {
        "maintainerFaultReference": "CF-1",
        "status": kind,
        "closureMeaning": None,
        "deviations": [],
    }
    return {"kind": kind, "report": {"appointments": [VISIT]}, **known, **fields}


def outcome(**fields: Any) -> dict[str, Any]:
    return {"operation": "AddFaultReport", "attempts": 1, "reply": None, **fields}


@pytest.mark.parametrize(
    ("name", "record", "told"),
    [
        ("FaultReportAdded", outcome(reply={"status": "Pending"}), "FaultReportAdded: Pending"),
        ("FaultReportAdded", outcome(attempts=3), "FaultReportAdded, 3 tries"),
        (
            "AppointmentAvailabilityFound",
            outcome(reply={"appointmentSlots": [1, 2]}),
            "AppointmentAvailabilityFound: 2 slots",
        ),
        (
            "CommandRejected",
            outcome(rejectedBy="SUPPLIER", code="409", attempts=2),
            "CommandRejected by supplier: 409, 2 tries",
        ),
        ("CommandOutcomeUnknown", outcome(reason="reset"), "CommandOutcomeUnknown: reset"),
        ("CommandSettled", outcome(outcome="UNDETERMINED"), "CommandSettled: undetermined"),
        ("DoubtDecided", {"decision": "REPEAT", "attempts": 2}, "DoubtDecided: repeat"),
        ("FaultReportUpdated", notified("IN_PROGRESS"), "FaultReportUpdated: in progress"),
        ("ResolveDeadlineApproaching", {"deadline": NOON}, "ResolveDeadlineApproaching"),
        ("OfALaterRelease", {}, "OfALaterRelease"),
    ],
)
def test_a_headline_has_what_matters_most(name: str, record: dict[str, Any], told: str) -> None:
    assert headline(name, record) == told


@pytest.mark.parametrize(
    ("name", "record", "told"),
    [
        (
            "CommandRejected",
            outcome(problems=[{"path": "a.b", "text": "is required"}], text=None),
            "AddFaultReport; a.b is required",
        ),
        ("CommandRejected", outcome(problems=[], text="in use"), "AddFaultReport; in use"),
        ("CommandOutcomeUnknown", outcome(doubtUntil=NOON), "AddFaultReport; held until 2026-01-31 12:00:00Z"),
        (
            "CommandOutcomeUnknown",
            outcome(doubtUntil=NOON, text="F-9; down"),
            "AddFaultReport; held until 2026-01-31 12:00:00Z; F-9; down",
        ),
        ("CommandSettled", outcome(settledBy="TIME_LIMIT", text=None), "AddFaultReport; by time limit"),
        (
            "DoubtDecided",
            {"decision": "REPEAT", "why": "the portal has no such ticket"},
            "the portal has no such ticket",
        ),
        (
            "CommandRejected",
            outcome(problems=[], text="no", unknownElements=[1]),
            "AddFaultReport; no; 1 unknown element",
        ),
        ("AppointmentReserved", outcome(reply={"appointmentReservationKey": "7"}), "key 7"),
        ("AppointmentReserved", outcome(reply={}, unknownElements=[1, 2]), "2 unknown elements"),
        (
            "ResolveDeadlineApproaching",
            {"deadline": NOON},
            "answer with ResolveResponse before 2026-01-31 12:00:00Z",
        ),
        ("FaultReportUpdated", notified("RESOLVED", deviations=[1, 2]), "CF-1; 2 deviations"),
        ("FaultReportUpdated", notified("UPDATED", status=None, report=None), "CF-1"),
        (
            "FaultReportUpdated",
            notified("APPOINTMENT_COMPLETED", status="IN_PROGRESS", closureMeaning="Fault Resolved"),
            "CF-1; status in progress; 2026-02-02 08:00-13:00, key 1000001; Fault Resolved",
        ),
        ("OfALaterRelease", {}, ""),
    ],
)
def test_particulars_say_what_else_one_would_like_to_know(name: str, record: dict[str, Any], told: str) -> None:
    assert particulars(name, record) == told


def test_an_appointment_is_told_with_what_became_of_it() -> None:
    ended = VISIT | {"appointmentConfirmationStatus": "Confirmed", "appointmentClosureCode": "FR"}
    assert appointment(ended) == "2026-02-02 08:00-13:00, key 1000001, confirmed, closed with FR"
    assert appointment(dict.fromkeys(VISIT) | {"appointmentCancelled": True}) == "cancelled"


def test_a_moment_is_told_in_utc() -> None:
    assert moment(datetime.fromisoformat("2026-07-01T01:00:00+01:00")) == "2026-07-01 00:00:00Z"


@pytest.mark.parametrize(
    ("length", "told"),
    [
        (timedelta(seconds=-1), "0s"),
        (timedelta(0), "0s"),
        (timedelta(seconds=59.9), "59s"),
        (timedelta(hours=1), "1h 0m"),
        (timedelta(hours=47, minutes=59, seconds=59), "1d 23h"),
    ],
)
def test_a_span_has_its_two_largest_units(length: timedelta, told: str) -> None:
    assert span(length) == told


def test_a_very_long_cell_moves_its_own_line_alone() -> None:
    assert columns([["a", "b"], ["x" * 1000, "y"]]) == [f"{'a':60}  b", f"{'x' * 1000}  y"]


@given(st.lists(st.lists(st.text("ab", max_size=5), min_size=3, max_size=3), min_size=1, max_size=5))
def test_cells_of_a_column_begin_below_each_other(rows: list[list[str]]) -> None:
    lines = columns([["x" * 6, "y" * 6, "z"], *rows])
    for row, text in zip(rows, lines[1:], strict=True):
        assert text.ljust(17)[16:].strip() == row[2]
        assert text[8:14].strip() == row[1]
