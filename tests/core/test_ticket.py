"""The fold of a ticket's events, example by example, and what time alone does to a ticket."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from adapter.core.ticket import (
    Clock,
    Drop,
    Event,
    Folded,
    Notified,
    Origin,
    Outcome,
    Policy,
    Status,
    Ticket,
    Transition,
    Verdict,
    Warn,
    due,
    fire,
    fold,
    mark,
    ticket,
)
from adapter.core.ticket.fold import APPOINTMENTS, COMMANDS, REMEMBERED
from tests.support.happenings import POLICY, T0, answered, appointment, doubted, minutes, notified, settled


def told(*events: Event, policy: Policy = POLICY) -> list[Folded]:
    """What each event made of the ticket, one after the other."""
    state: Ticket | None = None
    steps = []
    for event in events:
        steps.append(fold(state, "SP-1", event, policy))
        state = steps[-1].ticket
    return steps


def state(*events: Event, policy: Policy = POLICY) -> Ticket:
    return told(*events, policy=policy)[-1].ticket


def test_what_a_ticket_keeps_of_ids_is_what_it_was_in_earlier_releases() -> None:
    """An event that it has counted would else count again, and a command that it has seen be called again."""
    assert state(replace(notified("ACCEPTED", minutes(1)), id="e-1")).seen.hex() == "317386494bf10d9f"
    assert mark("c-1").hex() == "756147115e4dcc72"


# -- the status, and the clocks that hang on it ------------------------------------------------------------------------


def test_the_life_of_a_ticket() -> None:
    steps = told(
        answered("C-1", at=minutes(0), reply={"status": "Pending"}),
        notified("ACCEPTED", minutes(1), maintainer="CF-1"),
        notified("IN_PROGRESS", minutes(3)),
        notified("ON_HOLD", minutes(7)),
        notified("IN_PROGRESS", minutes(15)),
        notified("RESOLVED", minutes(31)),
        notified("RE_OPENED", minutes(40)),
        notified("IN_PROGRESS", minutes(41)),
        notified("RESOLVED", minutes(50)),
        notified("CLOSED", minutes(60)),
    )
    assert [step.verdict for step in steps] == [Verdict.FOLDED] * 10
    assert [step.illegal for step in steps] == [None] * 10
    assert [(s.ticket.status, s.ticket.clock) for s in steps] == [
        (Status.PENDING, Clock.NOT_STARTED),
        (Status.ACCEPTED, Clock.RUNNING),
        (Status.IN_PROGRESS, Clock.RUNNING),
        (Status.ON_HOLD, Clock.PAUSED),
        (Status.IN_PROGRESS, Clock.RUNNING),
        (Status.RESOLVED, Clock.STOPPED),
        (Status.RE_OPENED, Clock.RUNNING),
        (Status.IN_PROGRESS, Clock.RUNNING),
        (Status.RESOLVED, Clock.STOPPED),
        (Status.CLOSED, Clock.STOPPED),
    ]
    last = steps[-1].ticket
    assert last.maintainer_reference == "CF-1"
    assert last.ran == timedelta(minutes=(7 - 1) + (31 - 15) + (50 - 40))
    assert last.paused == timedelta(minutes=15 - 7)
    assert (last.status_since, last.clock_since) == (minutes(60), minutes(50))
    assert last.events == 10


@pytest.mark.parametrize(
    ("status", "after", "legal"),
    [
        ("PENDING", "ACCEPTED", True),
        ("PENDING", "REJECTED", True),
        ("PENDING", "ON_HOLD", True),
        ("PENDING", "IN_PROGRESS", False),
        ("REJECTED", "PENDING", True),
        ("REJECTED", "ACCEPTED", False),
        ("ACCEPTED", "RESOLVED", True),
        ("ACCEPTED", "PENDING", False),
        ("IN_PROGRESS", "RE_OPENED", False),
        ("RESOLVED", "CLOSED", True),
        ("RESOLVED", "IN_PROGRESS", False),
        ("RE_OPENED", "IN_PROGRESS", True),
        ("CLOSED", "RE_OPENED", False),
        ("CLOSED", "IN_PROGRESS", False),
    ],
)
def test_a_transition_the_contract_does_not_have_is_carried_out_and_kept_visible(
    status: str, after: str, *, legal: bool
) -> None:
    *_, step = told(notified(status, minutes(1)), notified(after, minutes(2)))
    assert step.ticket.status == Status(after)
    assert step.ticket.illegal == (0 if legal else 1)
    expected = None if legal else Transition(Status(status), Status(after), minutes(2))
    assert step.illegal == step.ticket.last_illegal == expected


def test_the_kind_tells_the_status_of_a_report_without_one() -> None:
    assert state(notified(None, minutes(1), kind="RESOLVED")).status is Status.RESOLVED
    assert state(notified("UNKNOWN", minutes(1), kind="RE_OPENED")).status is Status.RE_OPENED


def test_a_report_that_tells_no_status_leaves_it_as_it_is() -> None:
    known = state(notified("ON_HOLD", minutes(1)), notified(None, minutes(2), kind="UPDATED", note="more"))
    assert (known.status, known.status_since) == (Status.ON_HOLD, minutes(1))
    assert known.report is not None
    assert known.report["note"] == "more"


def test_a_ticket_shows_its_latest_report_and_counts_from_when_the_supplier_sent_it() -> None:
    known = state(
        notified("IN_PROGRESS", minutes(1), note="on it"),
        notified("RESOLVED", minutes(10), kind="COMPLETED", received=minutes(25), note="done"),
    )
    assert (known.kind, known.sent_at, known.received_at) == ("COMPLETED", minutes(10), minutes(25))
    assert known.report == {"note": "done"}
    assert (known.status_since, known.ran) == (minutes(10), timedelta(minutes=9))
    assert known.deadline == minutes(10) + POLICY.resolve_deadline


def test_times_of_two_clocks_that_cross_make_no_negative_duration() -> None:
    known = state(
        answered("C-1", at=minutes(10), reply={"status": "Pending"}),  # by our clock
        notified("ACCEPTED", minutes(2)),  # by theirs
        notified("RESOLVED", minutes(3)),
    )
    assert (known.ran, known.paused) == (timedelta(0), timedelta(0))
    assert known.status_since == minutes(10)


# -- late, repeated, without time ------------------------------------------------------------------------------------


def test_an_older_notification_that_comes_late_changes_no_state_and_is_counted() -> None:
    now = state(notified("IN_PROGRESS", minutes(5), maintainer="CF-1"))
    late = fold(now, "SP-1", notified("ACCEPTED", minutes(2), received=minutes(9), maintainer="CF-0"), POLICY)
    assert late.verdict is Verdict.LATE
    counted = replace(
        now,
        events=2,
        late=1,
        seen=late.ticket.seen,
        updated_at=late.ticket.updated_at,
        heard={**now.heard, "ACCEPTED": Notified(minutes(9), 1)},
    )
    assert late.ticket == counted


def test_a_late_notification_tells_the_suppliers_reference_if_nobody_has_yet() -> None:
    known = state(notified("IN_PROGRESS", minutes(5)), notified("ACCEPTED", minutes(2), maintainer="CF-1"))
    assert (known.maintainer_reference, known.status) == ("CF-1", Status.IN_PROGRESS)


def test_notifications_of_one_time_are_ordered_by_their_arrival() -> None:
    first = notified("ACCEPTED", minutes(1), received=minutes(2))
    second = notified("IN_PROGRESS", minutes(1), received=minutes(3))
    assert state(first, second).status is Status.IN_PROGRESS
    assert state(second, first).status is Status.IN_PROGRESS


def test_notifications_without_a_time_are_ordered_by_their_arrival() -> None:
    first = notified("ACCEPTED", None, received=minutes(2))
    second = notified("IN_PROGRESS", None, received=minutes(3))
    same_moment = notified("ON_HOLD", None, received=minutes(3))
    assert state(first, second).status is Status.IN_PROGRESS
    assert state(second, first).status is Status.IN_PROGRESS
    assert state(second, same_moment).status is Status.ON_HOLD
    assert state(same_moment, second).status is Status.IN_PROGRESS


def test_a_notification_without_a_time_does_not_let_an_older_one_pass() -> None:
    known = told(
        notified("IN_PROGRESS", minutes(5)),
        notified("ON_HOLD", None, received=minutes(6)),
        notified("ACCEPTED", minutes(2), received=minutes(7)),
    )
    assert known[-1].verdict is Verdict.LATE
    assert known[-1].ticket.status is Status.ON_HOLD


def test_a_time_in_the_future_is_not_believed() -> None:
    """Else one message from the future would make all that follow it late."""
    steps = told(
        notified("ACCEPTED", minutes(60 * 24), received=minutes(1)),
        notified("IN_PROGRESS", minutes(5), received=minutes(5)),
    )
    assert (steps[0].ticket.sent_at, steps[0].ticket.status_since) == (None, minutes(1))
    assert steps[1].ticket.status is Status.IN_PROGRESS


@pytest.mark.parametrize(
    "unset", [datetime(1, 1, 1, tzinfo=UTC), datetime(1, 1, 1, 0, 1, 15, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC)]
)
def test_a_time_that_nobody_has_set_is_not_believed(unset: datetime) -> None:
    """Else what comes with it were late for ever, or Resolved with a deadline in the year 1."""
    now = state(
        notified("ACCEPTED", minutes(1)),
        notified("RESOLVED", unset, received=minutes(5)),
        notified("RESOLVED", unset, received=minutes(7)),
    )
    assert (now.status, now.status_since) == (Status.RESOLVED, minutes(5))
    assert now.deadline == minutes(5) + POLICY.resolve_deadline
    assert (now.late, now.sent_at, now.newest_sent_at) == (0, None, minutes(1))


def test_an_event_of_an_id_that_was_seen_changes_nothing() -> None:
    first = notified("ACCEPTED", minutes(1))
    now = state(first, notified("IN_PROGRESS", minutes(2)))
    again = fold(now, "SP-1", replace(first, arrived=minutes(30)), POLICY)
    assert again == Folded(now, Verdict.REPEATED)


def test_the_latest_ids_are_remembered() -> None:
    events = [notified("IN_PROGRESS", minutes(number)) for number in range(REMEMBERED + 1)]
    now = state(*events)
    assert fold(now, "SP-1", events[1], POLICY).verdict is Verdict.REPEATED
    assert fold(now, "SP-1", events[0], POLICY).verdict is Verdict.LATE
    assert len(now.seen) == 8 * REMEMBERED


def test_when_a_kind_was_heard_of_last_and_how_often_is_known_also_of_late_ones() -> None:
    known = state(
        notified("IN_PROGRESS", minutes(5), received=minutes(6)),
        notified("AMENDED", minutes(2), kind="AMENDED", received=minutes(9)),
    )
    assert known.heard == {"IN_PROGRESS": Notified(minutes(6), 1), "AMENDED": Notified(minutes(9), 1)}
    again = fold(known, "SP-1", notified("IN_PROGRESS", minutes(1)), POLICY).ticket
    assert again.heard == {**known.heard, "IN_PROGRESS": Notified(minutes(6), 2)}


def test_an_event_that_only_a_later_release_knows_is_counted_and_changes_nothing() -> None:
    known = state(notified("IN_PROGRESS", minutes(1)))
    step = fold(known, "SP-1", Event("TicketMerged", "e-9", {"buyerFaultReference": "SP-1"}, minutes(2)), POLICY)
    assert step == Folded(replace(known, events=2, seen=step.ticket.seen, updated_at=minutes(2)), Verdict.FOLDED)


def test_an_id_is_told_by_a_whole_digest_not_by_the_end_of_one_and_the_start_of_the_next() -> None:
    event = notified("IN_PROGRESS", minutes(1))
    digest = state(event).seen
    known = replace(state(notified("ACCEPTED", minutes(0))), seen=b"\0" * 3 + digest + b"\0" * 5)
    assert fold(known, "SP-1", event, POLICY).verdict is Verdict.FOLDED
    assert fold(replace(known, seen=known.seen + digest), "SP-1", event, POLICY).verdict is Verdict.REPEATED


# -- commands ----------------------------------------------------------------------------------------------------------


def test_a_notification_can_overtake_the_outcome_of_the_command_that_caused_it() -> None:
    known = state(
        notified("ACCEPTED", minutes(2), maintainer="CF-1"),
        answered("C-1", at=minutes(3), reply={"status": "Pending"}),
    )
    assert known.origin is Origin.BUYER
    assert (known.status, known.maintainer_reference) == (Status.ACCEPTED, "CF-1")
    assert [c.outcome for c in known.commands] == [Outcome.ACCEPTED]


def test_who_opened_a_ticket() -> None:
    assert state(notified("ACCEPTED", minutes(1))).origin is Origin.SUPPLIER
    assert state(answered("C-1", at=minutes(1))).origin is Origin.BUYER
    rejected = answered("C-1", "CommandRejected", at=minutes(2), code="duplicate")
    assert state(notified("ACCEPTED", minutes(1)), rejected).origin is Origin.SUPPLIER
    amended = answered("C-1", "FaultReportAmended", operation="AmendFaultReport", at=minutes(2))
    assert state(notified("ACCEPTED", minutes(1)), amended).origin is Origin.SUPPLIER
    assert state(amended, notified("ACCEPTED", minutes(3))).origin is Origin.BUYER


@pytest.mark.parametrize("word", ["Pending", "pending", None, "Wait and see"])
def test_an_accepted_report_is_pending_whatever_the_reply_spells(word: str | None) -> None:
    assert state(answered("C-1", at=minutes(1), reply={"status": word})).status is Status.PENDING


def test_an_accepted_report_is_what_the_reply_says() -> None:
    assert state(answered("C-1", at=minutes(1), reply={"status": "in-progress"})).status is Status.IN_PROGRESS


def test_a_rejected_report_is_rejected_and_may_be_sent_in_again() -> None:
    rejected = answered("C-1", "CommandRejected", at=minutes(1), code="400")
    steps = told(rejected, answered("C-2", at=minutes(5), reply={"status": "Pending"}))
    assert (steps[0].ticket.status, steps[0].ticket.commands[0].code) == (Status.REJECTED, "400")
    assert (steps[1].ticket.status, steps[1].illegal) == (Status.PENDING, None)


def test_another_command_that_is_rejected_says_nothing_of_the_ticket() -> None:
    known = state(
        answered("C-1", at=minutes(1), reply={"status": "Pending"}),
        answered("C-2", "CommandRejected", operation="AmendFaultReport", at=minutes(2), code="400"),
    )
    assert known.status is Status.PENDING
    assert [c.outcome for c in known.commands] == [Outcome.ACCEPTED, Outcome.REJECTED]


@pytest.mark.parametrize("name", ["FaultReportAmended", "CommandRejected"])
def test_only_a_report_makes_a_ticket_pending_or_rejected(name: str) -> None:
    assert state(answered("C-1", name, operation="AmendFaultReport", at=minutes(1))).status is None


def test_a_second_report_under_the_same_reference_that_is_rejected_leaves_the_first() -> None:
    first = answered("C-1", at=minutes(1), reply={"status": "Pending"})
    assert state(first, answered("C-2", "CommandRejected", at=minutes(2), code="400")).status is Status.PENDING


@pytest.mark.parametrize(
    ("outcome", "status"), [("ACCEPTED", Status.PENDING), ("REJECTED", Status.REJECTED), ("UNDETERMINED", None)]
)
def test_a_doubt_is_provisional_and_its_end_counts(outcome: str, status: Status | None) -> None:
    doubt, end = told(doubted("C-1", at=minutes(1)), settled("C-1", outcome, at=minutes(9)))
    assert (doubt.ticket.status, doubt.ticket.commands[0].outcome) == (None, Outcome.IN_DOUBT)
    assert doubt.ticket.commands[0].doubt_until is not None
    assert (end.ticket.status, [c.outcome for c in end.ticket.commands]) == (status, [Outcome(outcome)])


def test_the_first_final_outcome_of_a_command_stays() -> None:
    known = state(answered("C-1", at=minutes(1)), answered("C-1", "CommandRejected", at=minutes(2), code="x"))
    assert [c.outcome for c in known.commands] == [Outcome.ACCEPTED]
    assert state(answered("C-1", at=minutes(1)), doubted("C-1", at=minutes(2))).commands[0].outcome is Outcome.ACCEPTED


def test_the_latest_commands_are_kept() -> None:
    known = state(*(answered(f"C-{n}", operation="AmendFaultReport", at=minutes(n)) for n in range(COMMANDS + 5)))
    assert [c.command_id for c in known.commands] == [f"C-{n}" for n in range(5, COMMANDS + 5)]


def test_a_command_in_doubt_is_kept_however_many_come_after_it() -> None:
    later = (answered(f"C-{n}", "CommandRejected", at=minutes(n), code="blocked") for n in range(COMMANDS + 5))
    known = state(doubted("C-X", at=minutes(0)), *later)
    assert known.commands[0].command_id == "C-X"
    assert len(known.commands) == COMMANDS


# -- appointments ------------------------------------------------------------------------------------------------------


def test_appointments_are_kept_by_their_reservation_key() -> None:
    first, second = appointment("CAMS-1"), appointment("CAMS-2")
    confirmed = appointment("CAMS-1", appointmentConfirmationStatus="Confirmed")
    known = state(
        notified("IN_PROGRESS", minutes(1), appointments=[first]),
        notified("IN_PROGRESS", minutes(2), appointments=[first, second]),
        notified("IN_PROGRESS", minutes(3), appointments=[confirmed]),
        notified("IN_PROGRESS", minutes(4), appointments=[confirmed]),
    )
    assert known.appointments == ({**second, "changedAt": minutes(2)}, {**confirmed, "changedAt": minutes(3)})


def test_an_appointment_without_a_key_is_told_by_its_time() -> None:
    morning = appointment(None)
    other_day = appointment(None, appointmentDate=date(2026, 3, 6))
    cancelled = appointment("  ", appointmentCancelled=True)
    known = state(
        notified("IN_PROGRESS", minutes(1), appointments=[morning, other_day]),
        notified("IN_PROGRESS", minutes(2), appointments=[cancelled]),
    )
    assert [a["appointmentCancelled"] for a in known.appointments] == [None, True]


def test_the_latest_appointments_are_kept() -> None:
    visits = [appointment(f"CAMS-{n}") for n in range(APPOINTMENTS + 3)]
    known = state(notified("IN_PROGRESS", minutes(1), appointments=visits))
    assert known.appointments[0]["appointmentReservationKey"] == "CAMS-3"


# -- what time alone does ----------------------------------------------------------------------------------------------

RESOLVED = minutes(10)
DEADLINE = RESOLVED + POLICY.resolve_deadline
WARN_AT = DEADLINE - POLICY.warn_before


def test_a_resolved_ticket_has_a_deadline_and_is_warned_of_it_once() -> None:
    known = state(notified("RESOLVED", RESOLVED, maintainer="CF-1"))
    assert known.deadline == DEADLINE
    assert due(known, POLICY) == WARN_AT
    assert fire(known, POLICY, WARN_AT - timedelta(seconds=1)) is None
    warn = fire(known, POLICY, WARN_AT)
    assert isinstance(warn, Warn)
    assert warn.record == {
        "buyerFaultReference": "SP-1",
        "maintainerFaultReference": "CF-1",
        "resolvedAt": RESOLVED,
        "deadline": DEADLINE,
        "occurredAt": WARN_AT,
    }
    assert warn.ticket == replace(known, warned=True)
    assert due(warn.ticket, POLICY) is None


def test_a_deadline_that_passed_while_no_projector_ran_is_told_of_all_the_same() -> None:
    assert isinstance(fire(state(notified("RESOLVED", RESOLVED)), POLICY, DEADLINE + timedelta(days=3)), Warn)


def test_the_warning_comes_back_as_an_event_and_changes_nothing_but_the_count() -> None:
    known = state(notified("RESOLVED", RESOLVED))
    warn = fire(known, POLICY, WARN_AT)
    assert isinstance(warn, Warn)
    back = fold(warn.ticket, "SP-1", Event("ResolveDeadlineApproaching", warn.id, warn.record, WARN_AT), POLICY).ticket
    assert back == replace(warn.ticket, events=2, seen=back.seen, updated_at=WARN_AT)


def test_a_fold_from_the_beginning_learns_from_the_event_that_it_was_warned() -> None:
    known = state(notified("RESOLVED", RESOLVED))
    warn = fire(known, POLICY, WARN_AT)
    assert isinstance(warn, Warn)
    anew = fold(known, "SP-1", Event("ResolveDeadlineApproaching", warn.id, warn.record, WARN_AT), POLICY).ticket
    assert anew.warned


def test_each_resolved_period_has_a_warning_of_its_own() -> None:
    known = state(notified("RESOLVED", RESOLVED))
    first = fire(known, POLICY, DEADLINE)
    assert isinstance(first, Warn)
    opened = fold(first.ticket, "SP-1", notified("RE_OPENED", RESOLVED + timedelta(minutes=1)), POLICY).ticket
    assert (opened.deadline, due(opened, POLICY)) == (None, None)
    again = fold(opened, "SP-1", notified("RESOLVED", RESOLVED + timedelta(hours=1)), POLICY).ticket
    second = fire(again, POLICY, DEADLINE + timedelta(days=1))
    assert isinstance(second, Warn)
    assert second.id != first.id
    assert fire(known, POLICY, WARN_AT) == replace(first, record=first.record | {"occurredAt": WARN_AT})


def test_a_warning_that_comes_back_late_says_nothing_of_the_next_resolved_period() -> None:
    known = state(notified("RESOLVED", RESOLVED))
    first = fire(known, POLICY, WARN_AT)
    assert isinstance(first, Warn)
    late = Event("ResolveDeadlineApproaching", first.id, first.record, WARN_AT)
    opened = fold(first.ticket, "SP-1", notified("RE_OPENED", minutes(60)), POLICY).ticket
    again = fold(opened, "SP-1", notified("RESOLVED", minutes(90)), POLICY).ticket
    for ticket_now, warned in ((opened, False), (again, False), (replace(again, warned=True), True)):
        step = fold(ticket_now, "SP-1", late, POLICY)
        assert (step.ticket.warned, step.verdict) == (warned, Verdict.FOLDED)


def test_another_report_while_resolved_does_not_move_the_deadline() -> None:
    known = state(notified("RESOLVED", RESOLVED), notified("RESOLVED", RESOLVED + timedelta(hours=5)))
    assert known.deadline == DEADLINE


@pytest.mark.parametrize(
    "answer",
    [
        answered("C-1", "ResolveResponseDelivered", operation="ResolveResponse", at=minutes(20)),
        settled("C-1", "ACCEPTED", operation="ResolveResponse", at=minutes(20)),
    ],
    ids=["delivered", "settled as taken"],
)
def test_a_resolution_that_was_answered_is_not_warned_of(answer: Event) -> None:
    known = state(notified("RESOLVED", RESOLVED), answer, notified("RESOLVED", minutes(30)))
    assert (known.status, known.deadline, due(known, POLICY)) == (Status.RESOLVED, None, None)


@pytest.mark.parametrize(
    "no_answer",
    [
        answered("C-1", "CommandRejected", operation="ResolveResponse", at=minutes(20), code="409"),
        settled("C-1", "UNDETERMINED", operation="ResolveResponse", at=minutes(20)),
        answered("C-1", "FaultReportAmended", operation="AmendFaultReport", at=minutes(20)),
    ],
    ids=["refused", "undetermined", "another command"],
)
def test_a_resolution_whose_answer_was_not_taken_is_warned_of_all_the_same(no_answer: Event) -> None:
    assert due(state(notified("RESOLVED", RESOLVED), no_answer), POLICY) == WARN_AT


def test_an_answer_counts_for_its_own_resolved_period_alone() -> None:
    known = state(
        notified("RESOLVED", RESOLVED),
        answered("C-1", "ResolveResponseDelivered", operation="ResolveResponse", at=minutes(20)),
        notified("RE_OPENED", minutes(30)),
        notified("RESOLVED", minutes(40)),
    )
    assert known.deadline == minutes(40) + POLICY.resolve_deadline


def test_a_warning_that_an_answer_overtook_changes_nothing_but_the_count() -> None:
    known = state(notified("RESOLVED", RESOLVED))
    warn = fire(known, POLICY, WARN_AT)
    assert isinstance(warn, Warn)
    answer = answered("C-1", "ResolveResponseDelivered", operation="ResolveResponse", at=WARN_AT)
    back = Event("ResolveDeadlineApproaching", warn.id, warn.record, WARN_AT)
    for before in (known, warn.ticket):
        after = fold(fold(before, "SP-1", answer, POLICY).ticket, "SP-1", back, POLICY).ticket
        assert (after.deadline, after.warned) == (None, False)


@pytest.mark.parametrize(
    "last",
    [
        notified("CLOSED", minutes(10), received=minutes(10)),
        notified("REJECTED", minutes(10), received=minutes(10)),
        answered("C-1", "CommandRejected", operation="AmendFaultReport", at=minutes(10), code="400"),
    ],
    ids=["closed", "rejected", "never heard of"],
)
def test_what_has_ended_is_forgotten_after_a_while(last: Event) -> None:
    known = state(answered("C-0", operation="ResolveResponse", at=minutes(1)), last)
    assert known.updated_at == minutes(10)
    at = known.updated_at + POLICY.tombstone_after
    assert due(known, POLICY) == at
    assert fire(known, POLICY, at - timedelta(seconds=1)) is None
    assert fire(known, POLICY, at) == Drop()


def test_an_open_ticket_is_never_forgotten() -> None:
    assert due(state(notified("IN_PROGRESS", minutes(1))), POLICY) is None


# -- as a record -------------------------------------------------------------------------------------------------------


def test_a_ticket_is_the_same_after_it_was_a_record() -> None:
    known = state(
        answered("C-1", at=minutes(0)),
        doubted("C-2", at=minutes(1)),
        notified("CLOSED", minutes(2), maintainer="CF-1", appointments=[appointment("CAMS-1")]),
        notified("ON_HOLD", minutes(3)),
        notified("RESOLVED", minutes(4)),
        notified("ACCEPTED", minutes(1)),
    )
    assert ticket(known.record()) == known


def test_words_of_a_later_release_read_as_unknown() -> None:
    record: dict[str, Any] = state(notified("ON_HOLD", minutes(1))).record()
    record |= {"status": "UNKNOWN", "slaClock": "UNKNOWN", "origin": "UNKNOWN"}
    record["lastIllegalTransition"] = {"from": "UNKNOWN", "to": "CLOSED", "at": T0}
    known = ticket(record)
    assert (known.status, known.clock, known.origin, known.last_illegal) == (None, Clock.UNKNOWN, Origin.UNKNOWN, None)


def test_arrival_and_last_change_are_those_of_the_topic() -> None:
    arrived: list[datetime] = [minutes(5), minutes(9), minutes(7)]
    events = [replace(notified("IN_PROGRESS", minutes(n)), arrived=at) for n, at in enumerate(arrived)]
    known = state(*events)
    assert (known.opened_at, known.updated_at) == (minutes(5), minutes(9))
