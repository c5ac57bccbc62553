"""What settles a doubt, and which word comes first, told through the fold of a ticket's events."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from adapter.core.command import Again, Settled, Settlement, Settler
from adapter.core.doubt import WHY_LIMIT, settlement
from adapter.core.operation import Operation
from adapter.core.ticket import Event, Policy, Ticket, fold, ticket
from adapter.suppliers import cityfibre
from adapter.suppliers.cityfibre_notifications import KINDS

OPERATIONS: Final = {operation.name: operation for operation in cityfibre.supplier().operations}
ADD, AMEND, RESERVE = (OPERATIONS[name] for name in ("AddFaultReport", "AmendFaultReport", "ReserveAppointment"))
CALLED: Final = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
POLICY: Final = Policy(timedelta(hours=48), timedelta(hours=6), timedelta(days=90))


def at(seconds: float) -> datetime:
    """So many seconds after the call."""
    return CALLED + timedelta(seconds=seconds)


def event(name: str, number: float, **fields: Any) -> Event:
    return Event(name, f"{name}/{number}/{fields}", fields, at(number))


def doubt(number: float, operation: Operation = AMEND, *, attempts: int = 1) -> Event:
    return event(
        "CommandOutcomeUnknown",
        number,
        commandId="c-1",
        operation=operation.name,
        occurredAt=at(number),
        attempts=attempts,
        doubtUntil=at(3600),
    )


def end(number: float, name: str = "CommandSettled", **fields: Any) -> Event:
    return event(name, number, commandId="c-1", operation=AMEND.name, occurredAt=at(number), attempts=1, **fields)


def notice(number: float, kind: str = "AMENDED") -> Event:
    return event(
        "FaultReportUpdated",
        number,
        kind=kind,
        status=None,
        receivedAt=at(number),
        supplierSentAt=at(number),
        maintainerFaultReference="CF-1",
        report=None,
    )


def decision(number: float, ruling: str = "REJECTED", *, attempts: int = 1, why: str = "asked them") -> Event:
    return event(
        "DoubtDecided",
        number,
        commandId="c-1",
        attempts=attempts,
        decision=ruling,
        why=why,
        who="joe",
        decidedAt=at(number),
    )


def folded(*events: Event) -> Ticket:
    """The ticket, read again from its record after each event."""
    state: Ticket | None = None
    for each in events:
        state = fold(state, "SP-1", each, POLICY).ticket
        state = ticket(state.record())
    assert state is not None
    return state


def told(*events: Event, operation: Operation = AMEND, attempts: int = 1) -> Settled | Again | None:
    return settlement(operation, "c-1", attempts=attempts, sent_at=CALLED.timestamp(), ticket=folded(*events))


def by_notification(kind: str = "AMENDED") -> Settled:
    return Settled(Settlement.ACCEPTED, Settler.NOTIFICATION, f"the supplier has sent: {kind}")


REJECTED: Final = Settled(Settlement.REJECTED, Settler.OPERATOR, "joe: asked them")


def test_nothing_was_heard_and_nothing_decided() -> None:
    assert told(doubt(1)) is None


@pytest.mark.parametrize(
    ("operation", "kind", "fits"),
    [
        *((ADD, kind, True) for kind in sorted(KINDS - {"REJECTED"})),
        *((AMEND, kind, kind == "AMENDED") for kind in sorted(KINDS)),
        *((RESERVE, kind, False) for kind in sorted(KINDS)),
    ],
)
def test_what_notification_tells_what_became_of_a_call(operation: Operation, kind: str, *, fits: bool) -> None:
    expected = by_notification(kind) if fits else None
    assert told(doubt(1, operation), notice(2, kind), operation=operation) == expected


def test_a_report_whose_ticket_the_supplier_calls_rejected_was_refused() -> None:
    refused = Settled(Settlement.REJECTED, Settler.NOTIFICATION, "the supplier has sent: REJECTED")
    assert told(doubt(1, ADD), notice(2, "REJECTED"), operation=ADD) == refused
    assert told(doubt(1, ADD), notice(2, "REJECTED"), notice(3, "ACCEPTED"), operation=ADD) == refused


def test_a_notification_may_come_before_the_doubt_is_published() -> None:
    assert told(notice(0.5), doubt(1)) == by_notification()


@pytest.mark.parametrize("operation", [ADD, AMEND])
def test_a_notification_from_before_the_call_tells_nothing(operation: Operation) -> None:
    assert told(notice(-1), notice(0), doubt(1), operation=operation) is None


def test_a_notification_of_another_kind_does_not_hide_the_one_that_fits() -> None:
    assert told(doubt(1), notice(2), notice(3, "IN_PROGRESS")) == by_notification()


def test_the_first_notification_that_tells_is_named() -> None:
    assert told(doubt(1, ADD), notice(2, "ACCEPTED"), notice(3, "TRIAGED"), operation=ADD) == by_notification(
        "ACCEPTED"
    )


def earlier(number: float, name: str = "FaultReportAmended", **fields: Any) -> Event:
    """The end of another amendment, whose call was made before ours."""
    return event(name, number, commandId="c-0", operation=AMEND.name, occurredAt=at(number), attempts=1, **fields)


def test_a_notification_that_an_earlier_command_can_have_caused_tells_nothing_of_the_next() -> None:
    assert told(earlier(-1), doubt(1), notice(2)) is None
    assert told(earlier(-1), doubt(1), notice(2), notice(3)) == by_notification()
    assert told(earlier(-2), notice(-1), doubt(1), notice(2)) == by_notification()


def test_nor_does_the_second_of_two_while_two_earlier_ones_may_have_caused_them() -> None:
    undetermined = event(
        "CommandSettled",
        -1,
        commandId="c-2",
        operation=AMEND.name,
        occurredAt=at(-1),
        attempts=1,
        outcome="UNDETERMINED",
    )
    assert told(earlier(-2), undetermined, doubt(1), notice(2), notice(3)) is None


def test_an_earlier_command_that_was_refused_or_was_of_another_kind_has_caused_none() -> None:
    refused = earlier(-1, "CommandRejected", code="409")
    other = event("FaultReportAdded", -2, commandId="c-9", operation=ADD.name, occurredAt=at(-2), attempts=1, reply={})
    assert told(other, refused, doubt(1), notice(2)) == by_notification()


def test_a_decision_counts_though_a_notification_came_before_it_that_tells_nothing() -> None:
    assert told(earlier(-1), doubt(1), notice(2), decision(3), notice(4)) == REJECTED


def test_a_late_notification_tells_as_much() -> None:
    overtaken = notice(3)
    overtaken = Event(overtaken.name, "late", {**overtaken.record, "supplierSentAt": at(-60)}, at(3))
    assert told(doubt(1), notice(2, "IN_PROGRESS"), overtaken) == by_notification()


@pytest.mark.parametrize(
    ("ruling", "expected"),
    [
        ("ACCEPTED", Settled(Settlement.ACCEPTED, Settler.OPERATOR, "joe: asked them")),
        ("REJECTED", REJECTED),
        ("REPEAT", Again("joe: asked them")),
        ("UNKNOWN", None),
    ],
)
def test_an_operator_decides(ruling: str, expected: Settled | Again | None) -> None:
    assert told(doubt(1), decision(2, ruling)) == expected


def test_a_repeat_gets_the_suppliers_reference_that_the_ticket_has_by_then() -> None:
    assert told(doubt(1), decision(2, "REPEAT"), notice(3, "IN_PROGRESS")) == Again("joe: asked them", "CF-1")


def test_a_decision_about_another_command_of_the_ticket_decides_nothing() -> None:
    known = folded(doubt(1), decision(2))
    assert settlement(AMEND, "c-2", attempts=1, sent_at=CALLED.timestamp(), ticket=known) is None


def test_a_decision_after_the_notification_that_tells_is_moot() -> None:
    assert told(doubt(1), notice(2), decision(3)) == by_notification()


def test_a_notification_after_the_decision_is_moot() -> None:
    assert told(doubt(1), decision(2), notice(3)) == REJECTED


def test_a_notification_that_tells_nothing_does_not_come_before_a_decision() -> None:
    assert told(doubt(1), notice(2, "IN_PROGRESS"), decision(3)) == REJECTED


def test_a_decision_nobody_understands_leaves_the_word_to_the_supplier() -> None:
    assert told(doubt(1), decision(2, "UNKNOWN"), notice(3)) == by_notification()


def test_the_first_of_two_decisions_counts() -> None:
    assert told(doubt(1), decision(2), decision(3, "ACCEPTED")) == REJECTED


def test_a_decision_about_a_command_that_is_not_in_doubt_is_kept_nowhere() -> None:
    before = folded(doubt(1), end(2, outcome="REJECTED"))
    after = folded(doubt(1), end(2, outcome="REJECTED"), decision(3, "ACCEPTED"))
    assert after.commands == before.commands
    assert folded(decision(1)).commands == ()


def test_a_decision_is_about_one_doubt_of_its_command_and_not_about_the_next() -> None:
    again = doubt(3, attempts=2)
    assert told(doubt(1), decision(2, "REPEAT"), attempts=2) is None, "the next doubt is not folded yet"
    assert told(doubt(1), decision(2, "REPEAT"), again, attempts=2) is None
    assert told(doubt(1), decision(2, "REPEAT"), again, decision(4, attempts=1), attempts=2) is None
    assert told(doubt(1), decision(2, "REPEAT"), again, decision(4, attempts=2), attempts=2) == REJECTED


def test_a_settled_command_has_no_decision_any_more() -> None:
    (command,) = folded(doubt(1), decision(2), end(3, outcome="REJECTED")).commands
    assert (command.outcome, command.decision) == ("REJECTED", None)


def test_a_long_reason_is_cut() -> None:
    settled = told(doubt(1), decision(2, why="x" * 5000))
    assert isinstance(settled, Settled)
    assert len(settled.text or "") == WHY_LIMIT


def test_every_kind_of_the_events_schema_tells_of_a_report() -> None:
    schema = json.loads((Path(__file__).parents[2] / "schemas/avro/events/FaultReportUpdated.avsc").read_text())
    (kind,) = (f["type"] for f in schema["fields"] if f["name"] == "kind")
    assert set(kind["symbols"]) == ADD.confirmed_by | ADD.refused_by
