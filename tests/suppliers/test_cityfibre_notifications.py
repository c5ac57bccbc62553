"""What a report is about: the table of kinds, case by case, and what hints may do to it."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapter.core.avro.schema import Enum, Record, optional
from adapter.core.mapping import record_of
from adapter.core.notification import REASONS
from adapter.core.xsd import Leaf
from adapter.suppliers.cityfibre_notifications import CLOSURE_CODES, HINTS, INCIDENT_TYPES, RULES, STATUSES, Facts, tell
from tests.strategies import values
from tests.support.known import known

DOCS = Path(__file__).parents[2] / "docs"
EVENT = known().notification.event
REPORT = record_of(EVENT, "report")


def symbols(field: str) -> set[str]:
    kind, _ = optional(EVENT.fields()[field].type)
    assert isinstance(kind, Enum)
    return set(kind.symbols)


def empty(record: Record) -> dict[str, Any]:
    return {field.name: [] if field.name in {"updates", "appointments"} else None for field in record.fields}


def appointment(**content: Any) -> dict[str, Any]:
    names = ("appointmentConfirmationStatus", "appointmentClosureCode", "appointmentCancelled")
    return dict.fromkeys(names) | content


CONFIRMED = appointment(appointmentConfirmationStatus="Confirmed")
FAILED = appointment(appointmentConfirmationStatus="Failed")
COMPLETED = appointment(
    appointmentConfirmationStatus="Confirmed", appointmentClosureCode="FR", appointmentCancelled=False
)
CANCELLED = appointment(appointmentConfirmationStatus="Confirmed", appointmentCancelled=True)
UPDATE = {"description": "x", "updatedBy": None, "updatedTime": None}


def report(status: str | None = None, *appointments: dict[str, Any], updates: int = 0, **fault: Any) -> dict[str, Any]:
    details = {"status": status, "type": None, "triageComplete": None, "missedAppointment": None} | fault
    return empty(REPORT) | {
        "faultDetails": details,
        "appointments": list(appointments),
        "updates": [UPDATE] * updates,
    }


def kind(found: dict[str, Any], *hints: str) -> str:
    return tell(found, hints).kind


CASES = [
    ("PENDING", report("Pending")),
    ("ACCEPTED", report("Accepted")),
    ("REJECTED", report("Rejected")),
    ("IN_PROGRESS", report("In Progress")),
    ("ON_HOLD", report("on-hold")),
    ("RESOLVED", report("Resolved")),
    ("RE_OPENED", report("Re-Opened")),
    ("CLOSED", report("Closed")),
    ("TRIAGED", report("Accepted", triageComplete=True)),
    ("TRIAGED", report(triageComplete=True)),
    ("ACCEPTED", report("Accepted", triageComplete=False)),
    ("IN_PROGRESS", report("In Progress", triageComplete=True)),
    ("APPOINTMENT_CONFIRMED", report("in-progress", CONFIRMED)),
    ("APPOINTMENT_CONFIRMED", report("in-progress", CONFIRMED | {"appointmentCancelled": False})),
    ("APPOINTMENT_FAILED", report("in-progress", FAILED)),
    ("APPOINTMENT_COMPLETED", report("in-progress", COMPLETED)),
    ("APPOINTMENT_CANCELLED", report("in-progress", CANCELLED)),
    ("APPOINTMENT_CANCELLED", report("in-progress", COMPLETED | {"appointmentCancelled": True})),
    ("APPOINTMENT_CANCELLED", report(None, CANCELLED)),
    ("APPOINTMENT_CONFIRMED", report("a word of tomorrow", CONFIRMED)),
    ("MISSED_APPOINTMENT", report("in-progress", CONFIRMED, missedAppointment="nobody at home")),
    ("MISSED_APPOINTMENT", report("in-progress", missedAppointment="true")),
    ("APPOINTMENT_COMPLETED", report("in-progress", COMPLETED, missedAppointment="nobody at home")),
    ("IN_PROGRESS", report("in-progress", missedAppointment="false")),
    ("IN_PROGRESS", report("in-progress", missedAppointment="N/A")),
    ("IN_PROGRESS", report("in-progress", missedAppointment="false None 0")),
    ("MISSED_APPOINTMENT", report("in-progress", missedAppointment="2 no access")),
    ("UPDATED", report(None, updates=1)),
    ("UNKNOWN", report(None)),
    ("UNKNOWN", report("a word of tomorrow", updates=1)),
    ("UNKNOWN", empty(REPORT)),
]


@pytest.mark.parametrize(("expected", "found"), CASES)
def test_what_a_report_is_about_is_told_from_its_content(expected: str, found: dict[str, Any]) -> None:
    assert kind(found) == expected


def test_every_kind_of_the_event_has_a_case() -> None:
    hinted = {"AMENDED"}  # no content can tell it
    assert {expected for expected, _ in CASES} | hinted == symbols("kind")


def test_the_incident_types_of_notifications_are_those_of_reports() -> None:
    content = known().xsd.element("addFaultReport").content
    for name in ("faultDetails", "type"):
        assert isinstance(content, tuple)
        content = next(child.content for child in content if child.name == name)
    assert isinstance(content, Leaf)
    assert content.values == INCIDENT_TYPES


def test_rules_and_statuses_speak_the_words_of_the_event() -> None:
    assert {rule.kind for rule in RULES} | set(HINTS.values()) == symbols("kind")
    assert {*STATUSES.values(), "UNKNOWN"} == symbols("status")


@pytest.mark.parametrize("text", ["In Progress", "in-progress", "INPROGRESS", " in_progress ", "In-Progress"])
def test_statuses_are_compared_without_case_hyphen_and_space(text: str) -> None:
    told = tell(report(text), ())
    assert (told.kind, told.status, told.problems) == ("IN_PROGRESS", "IN_PROGRESS", ())


def test_the_latest_appointment_decides() -> None:
    assert kind(report("in-progress", CANCELLED, CONFIRMED)) == "APPOINTMENT_CONFIRMED"
    assert kind(report("in-progress", CONFIRMED, CANCELLED)) == "APPOINTMENT_CANCELLED"


@pytest.mark.parametrize("status", ["Resolved", "Closed", "Re-Opened", "Rejected", "on-hold", "Accepted", "Pending"])
@pytest.mark.parametrize("past", [CANCELLED, COMPLETED, CONFIRMED, FAILED])
def test_a_past_appointment_does_not_hide_the_status(status: str, past: dict[str, Any]) -> None:
    assert kind(report(status, past)) == STATUSES[status.lower().replace("-", "")]


@pytest.mark.parametrize(("code", "meaning"), CLOSURE_CODES.items())
def test_a_closure_code_has_its_meaning(code: str, meaning: str) -> None:
    told = tell(report("Resolved", COMPLETED | {"appointmentClosureCode": f" {code.lower()} "}), ())
    assert (told.kind, told.closure_code, told.closure_meaning) == ("RESOLVED", code, meaning)
    assert told.problems == ()


def test_a_closure_code_of_tomorrow_is_kept_without_a_meaning() -> None:
    told = tell(report("in-progress", CONFIRMED, COMPLETED | {"appointmentClosureCode": "ONT"}), ())
    assert (told.kind, told.closure_code, told.closure_meaning) == ("APPOINTMENT_COMPLETED", "ONT", None)
    assert [problem.path for problem in told.problems] == ["appointments[1].appointmentClosureCode"]


def test_words_that_no_table_has_are_told_by_path() -> None:
    told = tell(report("wibble", appointment(appointmentConfirmationStatus="Perhaps"), type="Fault"), ())
    assert [problem.path for problem in told.problems] == [
        "faultDetails.status",
        "faultDetails.type",
        "appointments[0].appointmentConfirmationStatus",
    ]
    assert not any(word in str(told.problems) for word in ("wibble", "Perhaps", "'Fault'"))


@pytest.mark.parametrize("text", ["Impaired Service", "service outage", "Performance-Issue", "", None])
def test_a_documented_incident_type_is_no_deviation(text: str | None) -> None:
    assert tell(report("Accepted", type=text), ()).problems == ()


# -- hints


@pytest.mark.parametrize(
    "hint",
    [
        "/notifyAmended",
        "/a/b/notifyAmended/",
        '"notifyAmended"',
        "https://supplier.example/v1.0/notifyAmended",
        "urn:x#notifyAmended",
        "/webhooks/amendment/notifyFaultReportUpdateAmended.yaml",
        "/amendment/notifyfaultreportupdatemissedappointmentamended.yaml",
        "NOTIFY-AMENDED",
    ],
)
def test_an_amendment_is_confirmed_with_a_report_like_any_other_so_the_hint_tells_it(hint: str) -> None:
    for status in ("In Progress", "Accepted", "Pending", "on-hold"):
        assert kind(report(status, updates=1), hint) == "AMENDED"
    assert kind(report("in-progress", CONFIRMED), hint) == "AMENDED"


@pytest.mark.parametrize("hint", ["/notifyInProgress", "/notifyAmended", "/notifyTriage"])
@pytest.mark.parametrize(
    ("expected", "found"),
    [
        ("APPOINTMENT_CANCELLED", report("in-progress", CANCELLED)),
        ("APPOINTMENT_COMPLETED", report("in-progress", COMPLETED)),
        ("APPOINTMENT_FAILED", report("in-progress", FAILED)),
        ("MISSED_APPOINTMENT", report("in-progress", missedAppointment="nobody at home")),
        ("RESOLVED", report("Resolved")),
        ("CLOSED", report("Closed")),
        ("REJECTED", report("Rejected")),
        ("RE_OPENED", report("Re-Opened")),
    ],
)
def test_a_hint_never_speaks_against_the_content(hint: str, expected: str, found: dict[str, Any]) -> None:
    assert kind(found, hint) == expected


def test_a_hint_chooses_among_what_the_content_says() -> None:
    assert kind(report("in-progress", CONFIRMED), "/notifyInProgress") == "IN_PROGRESS"
    assert kind(report("in-progress", triageComplete=True), "/notifyTriaged") == "TRIAGED"
    assert kind(report("on-hold"), "/notifyInProgress") == "ON_HOLD"
    assert kind(report("Accepted"), "/notifyInProgress") == "ACCEPTED"
    assert kind(report("in-progress"), "/notifyAppointmentCancelled") == "IN_PROGRESS"


def test_a_hint_tells_what_the_content_does_not_say_at_all() -> None:
    assert kind(report(None), "/notifyInProgress") == "IN_PROGRESS"
    assert kind(report("a word of tomorrow"), "/notifyOnHold") == "ON_HOLD"
    assert kind(report(None, updates=1), "/notifyFaultReportResolved") == "RESOLVED"


def test_the_first_hint_that_says_something_counts() -> None:
    assert kind(report("In Progress"), "/hooks/cityfibre", '""', "notifyAmended") == "AMENDED"
    assert kind(report(None), "/notifyAccepted", "notifyClosed") == "ACCEPTED"


@pytest.mark.parametrize("hint", ["", "/", "///", "::", "?", ".", "/notify", "/notifyFaultReportUpdate", "x" * 9000])
def test_a_hint_that_says_nothing_changes_nothing(hint: str) -> None:
    assert kind(report("In Progress"), hint) == "IN_PROGRESS"


# -- laws


@given(values(REPORT), st.lists(st.text(max_size=40) | st.sampled_from(sorted(HINTS)), max_size=3))
def test_any_report_is_about_something_the_event_can_say(found: dict[str, Any], hints: list[str]) -> None:
    found |= {name: found[name] or [] for name in ("updates", "appointments")}
    told = tell(found, tuple(hints))
    assert told.kind in symbols("kind")
    assert told.status is None or told.status in symbols("status")
    assert told == tell(found, tuple(hints))


def test_the_rules_end_with_one_that_always_holds() -> None:
    nothing = Facts(
        status=None, cancelled=False, closure_code="", confirmation="", missed=False, triaged=False, updates=False
    )
    for status in (*symbols("status"), None):
        assert RULES[-1].holds(dataclasses.replace(nothing, status=status))


def test_the_documentation_lists_every_kind_and_the_rules_in_their_order() -> None:
    listed = re.findall(r"^\| `([A-Z_]+)` \|", (DOCS / "events.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(listed) == symbols("kind")
    assert [kind for kind in listed if kind != "AMENDED"] == [rule.kind for rule in RULES]


def test_the_documentation_lists_every_reason_of_the_quarantine() -> None:
    table = (DOCS / "events.md").read_text(encoding="utf-8").partition("| reason | meaning |")[2].partition("\n\n")[0]
    rows = [line.partition(" | ")[0] for line in table.splitlines() if line.startswith("|")]
    named = {reason for row in rows for reason in re.findall(r"`([a-z-]+)`", row)}
    assert named == REASONS
