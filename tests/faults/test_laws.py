"""The judge itself: a clean run has no violation, and every planted one is found under its law."""

from dataclasses import replace
from typing import Any

import pytest

from tests.faults import laws
from tests.faults.evidence import Call, Event
from tests.faults.workload import Sent

SENT = [
    Sent("T-0001", "AddFaultReport", "T", 1),
    Sent("T-0002", "ResolveResponse", "T", 2),
    Sent("U-0001", "AddFaultReport", "U", 1),
]


def call(sequence: int, command: Sent, received: float, **changes: Any) -> Call:
    made = Call(
        sequence,
        command.operation,
        command.key,
        f"m-{command.command_id}",
        received,
        received + 0.5,
        taken=True,
        verdict="accepted",
    )
    return replace(made, **changes)


def event(offset: int, command: Sent, kind: str, **fields: Any) -> Event:
    record = {"commandId": command.command_id, "messageId": f"m-{command.command_id}", "alreadyDone": False, **fields}
    return Event(0, offset, command.key, kind, f"id-{offset}", record)


CALLS = [call(1, SENT[0], 1.0), call(2, SENT[1], 2.0), call(3, SENT[2], 1.2)]
EVENTS = [
    event(0, SENT[0], "FaultReportAdded"),
    event(1, SENT[2], "FaultReportAdded"),
    event(2, SENT[1], "ResolveResponseDelivered"),
]


def found(calls: list[Call], events: list[Event], sent: list[Sent] | None = None) -> set[str]:
    return {violation.law for violation in laws.judge(sent or SENT, calls, events)}


def test_a_clean_run_breaks_no_law() -> None:
    assert found(CALLS, EVENTS) == set()


def test_a_command_that_ended_as_a_dead_letter_has_its_outcome() -> None:
    assert laws.judge(SENT, CALLS, EVENTS[:2], dead=["T-0002"]) == []


@pytest.mark.parametrize(
    ("law", "calls", "events"),
    [
        pytest.param("one outcome", CALLS, EVENTS[:2], id="a lost outcome"),
        pytest.param("one outcome", CALLS, [*EVENTS, replace(EVENTS[0], offset=9)], id="an outcome told twice"),
        pytest.param(
            "no stranger", CALLS, [*EVENTS, event(9, Sent("X", "", "X", 1), "FaultReportAdded")], id="foreign"
        ),
        pytest.param("no blind repeat", [*CALLS, call(4, SENT[2], 9.0)], EVENTS, id="a doubled call"),
        pytest.param("order", [CALLS[1], CALLS[0], CALLS[2]], EVENTS, id="a swapped order"),
        pytest.param(
            "never two at once", [CALLS[0], replace(CALLS[1], received=1.3), CALLS[2]], EVENTS, id="two at once"
        ),
        pytest.param("agreement", [replace(CALLS[0], verdict="refused"), *CALLS[1:]], EVENTS, id="a wrong outcome"),
        pytest.param("timeline", CALLS, [EVENTS[2], EVENTS[0], EVENTS[1]], id="outcomes swapped"),
        pytest.param("timeline", CALLS, [replace(EVENTS[0], key="Z"), *EVENTS[1:]], id="another key"),
        pytest.param(
            "one doubt", CALLS, [*EVENTS, event(9, SENT[1], "CommandOutcomeUnknown")], id="a doubt about a keyed call"
        ),
    ],
)
def test_a_planted_violation_is_found(law: str, calls: list[Call], events: list[Event]) -> None:
    assert law in found(calls, events)


def test_a_repeat_of_a_call_that_was_not_taken_is_no_blind_repeat() -> None:
    assert found([*CALLS[:2], replace(CALLS[2], taken=False), call(4, SENT[2], 9.0)], EVENTS) == set()
