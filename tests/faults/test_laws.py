"""The judge itself: a clean run has no violation, and every planted one is found under its law."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from adapter.core.operation import Repeat
from adapter.suppliers import served
from tests.faults import laws
from tests.faults.command_laws import FINAL
from tests.faults.evidence import Call, DeadLetter, Ending, Event, Evidence, Webhook
from tests.faults.notices import Posted
from tests.faults.workload import KEYED, NEVER, SAFE, Sent

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


def test_the_judge_knows_the_end_of_every_command() -> None:
    assert {operation.accepted for operation in served().operations} | {"CommandRejected", "CommandSettled"} == FINAL


def test_the_judge_knows_what_may_be_repeated() -> None:
    declared = {repeat: {o.name for o in served().operations if o.repeat is repeat} for repeat in Repeat}
    assert declared == {Repeat.SAFE: SAFE, Repeat.KEYED: KEYED, Repeat.NEVER: NEVER}


def test_a_clean_run_breaks_no_law() -> None:
    assert found(CALLS, EVENTS) == set()


def test_a_command_that_ended_as_a_dead_letter_has_its_outcome() -> None:
    assert laws.judge(SENT, CALLS, EVENTS[:2], dead=[DeadLetter(0, 7, "too old", "T-0002")]) == []


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


def test_a_repeat_of_a_call_that_was_turned_away_is_no_blind_repeat() -> None:
    turned_away = replace(CALLS[2], taken=False, verdict=None, answered=503)
    assert found([*CALLS[:2], turned_away, call(4, SENT[2], 9.0)], EVENTS) == set()


def test_a_repeat_without_an_answer_is_blind_even_if_the_call_was_not_taken() -> None:
    unclear = replace(CALLS[2], taken=False, verdict=None, answered=None)
    assert found([*CALLS[:2], unclear, call(4, SENT[2], 9.0)], EVENTS) == {"no blind repeat"}


# -- notifications, tickets and processes ------------------------------------------------------------------------------

AT = datetime(2026, 3, 2, 9, tzinfo=UTC)


def posted(number: int, **changes: Any) -> Posted:
    sent_at = AT + timedelta(minutes=number)
    return replace(Posted("N", f"N-{number}", sent_at, b"", acknowledged=True), **changes)


def update(offset: int, notice: Posted, **changes: Any) -> Event:
    record = {
        "buyerFaultReference": notice.reference,
        "maintainerFaultReference": "M-1",
        "kind": "IN_PROGRESS",
        "status": "IN_PROGRESS",
        "supplierSentAt": notice.sent_at,
        "receivedAt": notice.sent_at + timedelta(seconds=1),
        "report": {"messageId": notice.message_id},
    }
    return Event(0, offset, notice.reference, "FaultReportUpdated", f"id-{notice.message_id}", record | changes)


FIRST, SECOND = posted(1), posted(2)
BROKEN = posted(3, body=b"<", readable=False)
TICKET = {
    "events": 2,
    "lateEvents": 0,
    "status": "RESOLVED",
    "lastKind": "RESOLVED",
    "reportSentAt": SECOND.sent_at,
    "reportReceivedAt": SECOND.sent_at + timedelta(seconds=1),
    "maintainerFaultReference": "M-1",
    "commands": [],
}
WHOLE = Evidence(
    events=[update(0, FIRST), update(1, SECOND, kind="RESOLVED", status="RESOLVED")],
    posted=[FIRST, SECOND, BROKEN],
    quarantine=[b"<"],
    tickets={"N": TICKET},
    poison=frozenset({(0, 3)}),
    dead=[DeadLetter(0, 3, "unframed")],
    offsets={0: 4},
    ends={0: 4},
    peaks={"worker 1": 100_000_000},
    endings=[Ending("worker 1", asked=True, code=0, output="")],
)


def broken(**changes: Any) -> set[str]:
    return {violation.law for violation in laws.violations(replace(WHOLE, **changes))}


def test_a_whole_run_breaks_no_law() -> None:
    assert laws.violations(WHOLE) == []


def test_a_repeat_and_a_late_one_break_no_law() -> None:
    late = update(9, posted(0))
    found = [*WHOLE.events, update(8, SECOND, kind="RESOLVED", status="RESOLVED"), late]
    ticket = {**TICKET, "events": 3, "lateEvents": 1}
    assert not broken(events=found, posted=[*WHOLE.posted, posted(0)], tickets={"N": ticket})


@pytest.mark.parametrize(
    ("law", "changes"),
    [
        pytest.param("200 is a promise", {"events": WHOLE.events[1:]}, id="an acknowledged one is missing"),
        pytest.param(
            "200 is a promise", {"webhooks": [Webhook("T", "CF-1", acknowledged=True)]}, id="the twin's is missing"
        ),
        pytest.param(
            "one id", {"events": [*WHOLE.events, replace(WHOLE.events[0], id="another")]}, id="a repeat with an id"
        ),
        pytest.param(
            "one id", {"events": [WHOLE.events[0], replace(WHOLE.events[1], id="id-N-1")]}, id="an id for two"
        ),
        pytest.param("nothing made up", {"events": [*WHOLE.events, update(9, posted(7))]}, id="nobody sent it"),
        pytest.param(
            "nothing made up", {"events": [replace(WHOLE.events[0], key="Z"), WHOLE.events[1]]}, id="another key"
        ),
        pytest.param("quarantine", {"quarantine": []}, id="the unreadable one is lost"),
        pytest.param("quarantine", {"quarantine": [b"<", b"<a/>"]}, id="a readable one in quarantine"),
        pytest.param("newest counts", {"tickets": {"N": {**TICKET, "reportSentAt": FIRST.sent_at}}}, id="old news"),
        pytest.param("fold", {"tickets": {"N": {**TICKET, "events": 3}}}, id="an event counted twice"),
        pytest.param("fold", {"tickets": {"N": {**TICKET, "status": "IN_PROGRESS"}}}, id="another status"),
        pytest.param("fold", {"tickets": {}}, id="no ticket"),
        pytest.param("fold", {"tickets": {"N": TICKET, "X": TICKET}}, id="a ticket without events"),
        pytest.param("poison", {"dead": []}, id="poison without a dead letter"),
        pytest.param("poison", {"dead": [*WHOLE.dead, *WHOLE.dead]}, id="two dead letters"),
        pytest.param("poison", {"poison": frozenset[tuple[int, int]]()}, id="a dead letter of a good record"),
        pytest.param("frontier", {"offsets": {0: 3}}, id="an offset left behind"),
        pytest.param("memory", {"peaks": {"worker 1": 300_000_000}}, id="too much memory"),
        pytest.param("stands", {"endings": [Ending("server 1", asked=False, code=1, output="")]}, id="a crash"),
        pytest.param("leaves", {"endings": [Ending("server 1", asked=True, code=-9, output="")]}, id="would not go"),
    ],
)
def test_a_planted_violation_of_these_is_found(law: str, changes: dict[str, Any]) -> None:
    assert law in broken(**changes)


def test_the_outcome_of_a_command_is_part_of_the_fold() -> None:
    outcome = event(5, SENT[0], "FaultReportAdded", operation="AddFaultReport", reply={"status": "Accepted"})
    ticket = {**TICKET, "events": 1, "status": "ACCEPTED", "lastKind": None, "reportSentAt": None}
    ticket |= {"reportReceivedAt": None, "maintainerFaultReference": None}
    right = [{"commandId": SENT[0].command_id, "outcome": "ACCEPTED"}]
    for commands, wrong in ((right, set()), ([], {"fold"})):
        evidence = Evidence(
            sent=SENT[:1], calls=CALLS[:1], events=[outcome], tickets={"T": {**ticket, "commands": commands}}
        )
        assert {violation.law for violation in laws.violations(evidence)} == wrong
