import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from adapter.core.operation import Mode, Operation, Problem, Repeat, Supplier
from adapter.settings.tree import Environment
from adapter.suppliers import cityfibre
from adapter.suppliers.cityfibre_notifications import KINDS

KEY = "appointment.appointmentReservationKey"
SCHEMAS = Path(__file__).parents[2] / "schemas"


def named(name: str, supplier: Supplier) -> Operation:
    return next(operation for operation in supplier.operations if operation.name == name)


def problems(operation: Operation, command: dict[str, Any]) -> list[Problem]:
    return [problem for rule in operation.rules for problem in rule(command)]


def report(kind: str | None, key: str | None = None, *, appointment: bool = True) -> dict[str, Any]:
    booked = {"appointmentDate": None, "appointmentReservationKey": key} if appointment else None
    return {"faultDetails": {"type": kind}, "appointment": booked}


def resolution(*, accepted: bool | None, reason: str | None) -> dict[str, Any]:
    return {"resolveAccepted": accepted, "rejectedReason": reason}


def test_what_may_be_repeated_and_how_long_doubt_lasts_is_data() -> None:
    declared = {o.name: (o.repeat, o.doubt_limit) for o in cityfibre.supplier().operations}
    assert declared == {
        "AddFaultReport": (Repeat.NEVER, timedelta(hours=48)),
        "AmendFaultReport": (Repeat.NEVER, timedelta(hours=48)),
        "RequestFaultReportUpdate": (Repeat.SAFE, timedelta(hours=1)),
        "ResolveResponse": (Repeat.KEYED, timedelta(hours=24)),
        "QueryAppointmentAvailability": (Repeat.SAFE, timedelta(hours=1)),
        "ReserveAppointment": (Repeat.NEVER, timedelta(seconds=60)),
    }


@pytest.mark.parametrize("unique", [False, True])
def test_of_a_report_and_of_every_keyed_operation_it_is_known_what_already_done_reads_like(*, unique: bool) -> None:
    operations = cityfibre.supplier(unique_references=unique).operations
    known = {operation.name for operation in operations if operation.already_done is not None}
    assert known == {o.name for o in operations if o.repeat is Repeat.KEYED} | {"AddFaultReport"}


def test_a_supplier_that_enforces_unique_references_lets_a_report_be_sent_again() -> None:
    add = named("AddFaultReport", cityfibre.supplier(unique_references=True))
    assert add.repeat is Repeat.KEYED


def test_every_declared_file_and_record_exists() -> None:
    supplier = cityfibre.supplier()
    assert all((SCHEMAS / "xsd" / name).is_file() for name in supplier.schemas)
    for operation in supplier.operations:
        assert (SCHEMAS / "avro" / "commands" / f"{operation.name}.avsc").is_file()
        assert (SCHEMAS / "avro" / "events" / f"{operation.accepted}.avsc").is_file()


def test_the_environments_that_can_be_set_are_those_that_are_declared() -> None:
    assert cityfibre.supplier().environments.keys() == {environment.value for environment in Environment}


def test_every_declared_element_exists() -> None:
    supplier = cityfibre.supplier()
    roots = {
        element.get("name")
        for name in supplier.schemas
        for element in etree.parse(SCHEMAS / "xsd" / name).getroot().iterchildren("{*}element")
    }
    assert roots >= {name for o in supplier.operations for name in (o.request, o.reply)}


@pytest.mark.parametrize(
    ("kind", "key", "allowed"),
    [
        ("SERVICE_OUTAGE", "1234568", True),
        ("SERVICE_OUTAGE", None, False),
        ("SERVICE_OUTAGE", "  ", False),
        ("IMPAIRED_SERVICE", None, True),
        ("IMPAIRED_SERVICE", "1234568", False),
        ("PERFORMANCE_ISSUE", None, True),
        ("PERFORMANCE_ISSUE", "1234568", False),
        (None, None, True),
        (None, "1234568", True),
        # an unknown word is refused by the mapping; a second complaint about it would only mislead
        ("UNKNOWN", None, True),
        ("UNKNOWN", "1234568", True),
    ],
)
def test_only_a_service_outage_has_a_reservation_key_and_it_must_have_one(
    kind: str | None, key: str | None, *, allowed: bool
) -> None:
    add = named("AddFaultReport", cityfibre.supplier())
    found = problems(add, report(kind, key))
    assert [p.path for p in found] == ([] if allowed else [KEY])
    assert not any(p.warning for p in found)


def test_a_service_outage_without_any_appointment_has_no_reservation_key() -> None:
    add = named("AddFaultReport", cityfibre.supplier())
    assert [p.path for p in problems(add, report("SERVICE_OUTAGE", appointment=False))] == [KEY]
    assert not problems(add, report("IMPAIRED_SERVICE", appointment=False))


def test_the_reservation_key_rule_can_warn_or_be_off() -> None:
    broken = report("SERVICE_OUTAGE")
    warning = named("AddFaultReport", cityfibre.supplier(reservation_key_rule=Mode.WARN))
    off = named("AddFaultReport", cityfibre.supplier(reservation_key_rule=Mode.OFF))
    assert [(p.path, p.warning) for p in problems(warning, broken)] == [(KEY, True)]
    assert problems(off, broken) == []


def test_an_amendment_may_carry_a_new_key_without_repeating_the_type() -> None:
    amend = named("AmendFaultReport", cityfibre.supplier())
    assert problems(amend, {"faultDetails": None, "appointment": {"appointmentReservationKey": "77"}}) == []


@pytest.mark.parametrize(
    ("accepted", "reason", "allowed"),
    [
        (True, None, True),
        (None, None, True),
        (False, "still no light", True),
        (False, None, False),
        (False, " \n", False),
    ],
)
def test_who_rejects_a_resolution_says_why(*, accepted: bool | None, reason: str | None, allowed: bool) -> None:
    resolve = named("ResolveResponse", cityfibre.supplier())
    found = problems(resolve, resolution(accepted=accepted, reason=reason))
    assert [p.path for p in found] == ([] if allowed else ["rejectedReason"])


def test_news_of_a_ticket_needs_the_suppliers_reference_and_nothing_else_does() -> None:
    needy = [operation.name for operation in cityfibre.supplier().operations if operation.needs_reference]
    assert needy == ["RequestFaultReportUpdate"]


def test_one_operation_alone_may_be_answered_with_nothing() -> None:
    assert [o.name for o in cityfibre.supplier().operations if o.silent] == ["RequestFaultReportUpdate"]


def test_one_operation_that_can_be_asked_again_finds_a_list() -> None:
    found = [(o.name, o.finds, o.repeat) for o in cityfibre.supplier().operations if o.finds]
    assert found == [("QueryAppointmentAvailability", "appointmentSlots", Repeat.SAFE)]


def test_what_notifications_tell_of_a_call_in_doubt_is_data() -> None:
    operations = cityfibre.supplier().operations
    confirmed = {o.name: o.confirmed_by for o in operations if o.confirmed_by}
    assert confirmed == {"AddFaultReport": KINDS - {"REJECTED"}, "AmendFaultReport": frozenset({"AMENDED"})}
    assert {o.name: o.refused_by for o in operations if o.refused_by} == {"AddFaultReport": frozenset({"REJECTED"})}


@pytest.mark.parametrize(
    ("text", "done"),
    [
        ("409 Resolution already answered", True),
        ("400 The response was already received, the ticket is closed", True),
        ("400 Duplicate message", True),
        ("400 Ticket is not Resolved any more", True),
        ("400 Ticket is not in status 'Resolved' anymore", True),
        ("400 ticket is no longer in state Resolved", True),
        ("400 Ticket is already closed", False),
        ("400 Ticket has already been closed", False),
        ("400 Ticket is already in status Closed", False),
        ("400 Ticket already has status 'Closed'", False),
        ("400 Fault was already set to Closed", False),
        ("400 SP-1 was already auto-closed after 48 hours", False),
        ("400 Ticket was closed already", False),
        ("400 Ticket is not Resolved", False),
        ("400 Unknown buyerFaultReference", False),
        ("400 rejectedReason missing", False),
    ],
)
def test_which_refusals_of_a_repeated_resolution_mean_that_the_first_one_arrived(text: str, *, done: bool) -> None:
    assert means_done(named("ResolveResponse", cityfibre.supplier()), text) is done


@pytest.mark.parametrize(
    ("text", "done"),
    [
        ("Rejected buyerFaultReference must be unique", True),
        ("409 Duplicate buyer fault reference", True),
        ("400 a fault with this buyerFaultReference already exists", True),
        ("400 messageId already processed", True),
        ("400 An incident is already open on this service", False),
        ("400 Duplicate incident on this service", False),
        ("400 Service ID is not valid", False),
    ],
)
def test_which_refusals_of_a_repeated_report_mean_that_the_first_one_arrived(text: str, *, done: bool) -> None:
    add = named("AddFaultReport", cityfibre.supplier(unique_references=True))
    assert means_done(add, text) is done


@pytest.mark.timeout(60)
@pytest.mark.parametrize("word", ["messageId ", "not ", "resolved ", "not resolved ", "already ", "no longer "])
def test_a_long_refusal_is_read_in_time(word: str) -> None:
    supplier = cityfibre.supplier(unique_references=True)
    text = word.replace("already ", "already closed ") * 50_000
    for name in ("AddFaultReport", "ResolveResponse"):
        assert not means_done(named(name, supplier), text)


def means_done(operation: Operation, text: str) -> bool:
    assert operation.already_done is not None
    return re.search(operation.already_done, text, re.IGNORECASE) is not None
