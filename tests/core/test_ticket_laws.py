"""Laws of the fold that hold for any events in any order."""

import random
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from adapter.catalogue import schema_root
from adapter.core.avro import Decoder, Encoder, Schema
from adapter.core.ticket import Drop, Event, Status, Ticket, Verdict, Warn, due, fire, fold, ticket
from adapter.core.ticket.fold import AHEAD, APPOINTMENTS, COMMANDS, EARLIEST
from tests.support.happenings import POLICY, T0, answered, appointment, doubted, minutes, notified, settled

STATUSES = [status.value for status in Status]
SCHEMA = Schema.parse((schema_root() / "avro/tickets/Ticket.avsc").read_text(encoding="utf-8"))

times = st.integers(0, 200_000_000).map(lambda n: T0 + timedelta(milliseconds=n))
wild_times = st.integers(-62_135_500_000, 253_402_200_000).map(lambda n: datetime.fromtimestamp(n, UTC))
appointments = st.lists(
    st.builds(
        appointment,
        st.sampled_from(["CAMS-1", "CAMS-2", "", None]),
        appointmentCancelled=st.sampled_from([True, None]),
    ),
    max_size=3,
)
reports = st.builds(
    notified,
    st.sampled_from([*STATUSES, "UNKNOWN", None]),
    st.one_of(st.none(), times, wild_times),
    kind=st.sampled_from([*STATUSES, "UPDATED", "UNKNOWN", "AMENDED"]),
    received=times,
    maintainer=st.sampled_from(["CF-1", None]),
    appointments=appointments,
)
command_ids = st.sampled_from(["C-1", "C-2", "C-3"])
operations = st.sampled_from(["AddFaultReport", "AmendFaultReport", "ResolveResponse"])
outcomes = st.one_of(
    st.builds(
        answered,
        command_ids,
        operation=operations,
        at=times,
        reply=st.fixed_dictionaries({"status": st.sampled_from([None, "Pending", "on-hold", "?"])}),
    ),
    st.builds(answered, command_ids, st.just("CommandRejected"), operation=operations, at=times, code=st.just("400")),
    st.builds(doubted, command_ids, operation=operations, at=times),
    st.builds(settled, command_ids, st.sampled_from(["ACCEPTED", "REJECTED", "UNDETERMINED", "UNKNOWN"]), at=times),
)
chances = st.integers(0, 2**32).map(random.Random)
stories = st.lists(st.one_of(reports, outcomes), min_size=1, max_size=12)


def told(events: list[Event], known: Ticket | None = None) -> Ticket:
    for event in events:
        known = fold(known, "SP-1", event, POLICY).ticket
    assert known is not None
    return known


@given(stories, chances)
def test_repeats_change_nothing(story: list[Event], chance: random.Random) -> None:
    repeated: list[Event] = []
    for event in story:
        repeated.append(event)
        while chance.random() < 0.4:
            again = chance.choice(repeated)
            repeated.append(replace(again, arrived=again.arrived + timedelta(hours=1)))
    assert told(repeated) == told(story)


@given(
    st.lists(
        st.tuples(st.sampled_from(STATUSES), st.integers(0, 500)), min_size=1, max_size=12, unique_by=lambda x: x[1]
    ),
    chances,
)
def test_any_order_of_arrival_ends_in_the_same_state_where_the_suppliers_times_differ(
    told_of: list[tuple[str, int]], chance: random.Random
) -> None:
    """What the newest one says. How long clocks ran depends on what was seen in between; a late one can't mend that."""
    story = [
        notified(status, minutes(at), received=minutes(at), maintainer="CF-1", number=at) for status, at in told_of
    ]
    shuffled = [
        replace(event, record={**event.record, "receivedAt": minutes(1000 + place)})
        for place, event in enumerate(chance.sample(story, len(story)))
    ]
    ordered, other = told(sorted(story, key=_sent)), told(shuffled)
    for known in (ordered, other):
        assert known.report == max(story, key=_sent).record["report"]
        assert known.status == Status(max(told_of, key=lambda x: x[1])[0])
    assert ordered.late == 0
    for same in ("report", "kind", "status", "sent_at", "newest_sent_at", "maintainer_reference", "events", "origin"):
        assert getattr(ordered, same) == getattr(other, same)
    assert ordered.heard.keys() == other.heard.keys()


@given(stories)
def test_durations_are_never_negative_and_never_more_than_the_time_that_passed(story: list[Event]) -> None:
    known: Ticket | None = None
    first: datetime | None = None
    for event in story:
        before = known
        known = fold(known, "SP-1", event, POLICY).ticket
        first = first or known.clock_since
        assert known.ran >= timedelta(0)
        assert known.paused >= timedelta(0)
        if known.clock_since is not None and first is not None:
            assert known.ran + known.paused <= known.clock_since - first
        if before is not None and before.status_since is not None:
            assert known.status_since is not None
            assert known.status_since >= before.status_since
        assert known.deadline is None or known.status is Status.RESOLVED


@given(stories)
def test_every_event_counts_once_and_nothing_grows_without_bound(story: list[Event]) -> None:
    known, verdicts = None, Counter[Verdict]()
    for event in story:
        step = fold(known, "SP-1", event, POLICY)
        known = step.ticket
        verdicts[step.verdict] += 1
    assert known is not None
    assert known.events == len({event.id for event in story}) == len(story)
    assert known.late + known.illegal <= known.events
    assert verdicts == Counter({Verdict.FOLDED: known.events - known.late, Verdict.LATE: known.late})
    assert len(known.commands) <= COMMANDS
    assert len(known.appointments) <= APPOINTMENTS
    assert (known.illegal == 0) == (known.last_illegal is None)
    newest = max((e.record["supplierSentAt"] for e in story if _believed(e.record)), default=None)
    assert known.newest_sent_at == newest


@given(stories)
def test_a_ticket_survives_the_bus(story: list[Event]) -> None:
    known = replace(told(story), report=None)
    value = Encoder(SCHEMA, 7).encode(known.record())
    assert ticket(Decoder(SCHEMA.text, [SCHEMA]).decode(value[5:]).record) == known


@given(stories, chances)
def test_each_resolved_period_is_warned_of_at_most_once(story: list[Event], chance: random.Random) -> None:
    known: Ticket | None = None
    warned: list[datetime] = []
    for event in story:
        before = known
        known = fold(known, "SP-1", event, POLICY).ticket
        if before is not None and before.status is Status.RESOLVED and known.status is not Status.RESOLVED:
            warned.clear()
        for _ in range(3):
            now = T0 + timedelta(hours=chance.uniform(0, 200))
            fired = fire(known, POLICY, now)
            if isinstance(fired, Warn):
                assert known.deadline is not None
                assert now >= known.deadline - POLICY.warn_before
                warned.append(known.deadline)
                known = fired.ticket
                if chance.random() < 0.5:  # it comes back from the topic
                    back = Event("ResolveDeadlineApproaching", fired.id, fired.record, now)
                    known = fold(known, "SP-1", back, POLICY).ticket
        assert len(warned) <= 1


@given(stories, st.integers(0, 200))
def test_what_is_due_is_what_fires(story: list[Event], days: int) -> None:
    known = told(story)
    at, now = due(known, POLICY), T0 + timedelta(days=days)
    fired = fire(known, POLICY, now)
    assert (fired is not None) == (at is not None and at <= now)
    if isinstance(fired, Drop):
        assert known.status in {None, Status.CLOSED, Status.REJECTED}


def _sent(event: Event) -> datetime:
    sent: datetime = event.record["supplierSentAt"]
    return sent


def _believed(record: Any) -> bool:
    sent = record.get("supplierSentAt")
    return sent is not None and sent >= EARLIEST and sent - record["receivedAt"] <= AHEAD
