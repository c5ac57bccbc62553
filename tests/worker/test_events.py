"""Records for the bus: derived ids, CloudEvents headers, dead letters with their origin."""

import io
import uuid
from dataclasses import replace
from datetime import UTC, datetime

import fastavro
import pytest

from adapter.core import journal
from adapter.core.avro import Encoder
from adapter.core.command import Accepted, By, Event, InDoubt, Rejected, Settled, Settlement, Settler
from adapter.core.errors import Undecodable
from adapter.core.journal import Entry, Kind, Source
from adapter.core.operation import Problem
from adapter.ports import Outgoing
from adapter.telemetry import parse_traceparent
from adapter.worker.events import KINDS, TEXT_LIMIT, Events, Subject, kind, message_id
from tests.support.known import known

NOW = datetime(2026, 3, 2, 9, 30, 0, 412_000, tzinfo=UTC)
SCHEMAS = {**known().events, **known().journal}
SUBJECT = Subject(
    operation=known().operations["AddFaultReport"].operation,
    command_id="c-1",
    correlation_id="corr",
    reference="T-1",
    key=b"T-1",
    trace=parse_traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    message_id=message_id("c-1"),
)


@pytest.fixture
def events() -> Events:
    return Events(
        events_topic="events",
        dead_letters_topic="dead",
        quarantine_topic="quarantine",
        journal_topic="journal",
        source="/us",
        encoders={name: Encoder(schema, 7) for name, schema in SCHEMAS.items()},
    )


def read(record: Outgoing, name: str) -> dict[str, object]:
    assert record.value is not None
    found = fastavro.schemaless_reader(io.BytesIO(record.value[5:]), SCHEMAS[name].parsed, None)
    assert isinstance(found, dict)
    return found


OUTCOMES: list[tuple[Event, str, str]] = [
    (Accepted({}), "FaultReportAdded", "accepted"),
    (Accepted(None, already_done=True), "FaultReportAdded", "accepted"),
    (Rejected(By.SUPPLIER, "400"), "CommandRejected", "rejected-by-supplier"),
    (Rejected(By.ADAPTER, "invalid"), "CommandRejected", "rejected-by-adapter"),
    (Settled(Settlement.UNDETERMINED, Settler.TIME_LIMIT), "CommandSettled", "settled-undetermined"),
    (InDoubt("reset", 1.0, 2.0), "CommandOutcomeUnknown", "in-doubt"),
]


@pytest.mark.parametrize(("event", "name", "label"), OUTCOMES, ids=[label for *_, label in OUTCOMES])
def test_every_outcome_is_a_cloud_event_of_its_type(events: Events, event: Event, name: str, label: str) -> None:
    record = events.outcome(SUBJECT, event, attempts=2, at=NOW)
    assert (record.topic, record.key, record.partition) == ("events", b"T-1", None)
    headers = dict(record.headers)
    assert headers["ce_type"] == f"fault.event.{name}".encode()
    assert headers["ce_time"] == b"2026-03-02T09:30:00.412Z"
    assert headers["traceparent"] == (SUBJECT.traceparent or "").encode()
    content = read(record, name)
    assert (content["commandId"], content["correlationId"], content["attempts"]) == ("c-1", "corr", 2)
    assert content["messageId"] == message_id("c-1")
    assert kind(event) == label
    assert label in KINDS


def test_ids_are_derived_so_that_another_process_gives_the_same(events: Events) -> None:
    def identifier(event: Event, *, attempts: int = 1) -> str:
        record = events.outcome(SUBJECT, event, attempts=attempts, at=datetime.now(UTC))
        return (dict(record.headers)["ce_id"] or b"").decode()

    assert identifier(Accepted(None)) == identifier(Accepted({}))
    assert identifier(Accepted(None)) != identifier(InDoubt("reset", None, 2.0))
    assert uuid.UUID(identifier(Accepted(None))).version == 5
    assert identifier(Accepted(None)) == identifier(Accepted(None), attempts=2)
    assert identifier(InDoubt("reset", None, 2.0)) != identifier(InDoubt("reset", None, 2.0), attempts=2)
    assert len(message_id("c-1")) == 36
    # And another release: under another message id the supplier takes a repeat for a request of its own.
    assert message_id("c-1") == "d8626533-da65-5920-a44f-f8e8907fe60e"
    assert identifier(Accepted(None)) == "eaaf0680-13ba-5dea-94cf-0d5743984154"


def test_what_was_never_tried_has_no_message_id_and_tells_its_problems(events: Events) -> None:
    rejected = Rejected(By.ADAPTER, "invalid", None, (Problem("faultDetails.type", "not a known value"),))
    content = read(events.outcome(SUBJECT, rejected, attempts=0, at=NOW), "CommandRejected")
    assert content["messageId"] is None
    assert content["problems"] == [{"path": "faultDetails.type", "text": "not a known value"}]


def test_a_doubt_tells_what_the_answer_said(events: Events) -> None:
    record = events.outcome(SUBJECT, InDoubt("fault", 1.0, 2.0, "F-9; down"), attempts=1, at=NOW)
    assert read(record, "CommandOutcomeUnknown")["text"] == "F-9; down"


def test_a_supplier_s_long_text_is_cut(events: Events) -> None:
    rejected = Rejected(By.SUPPLIER, "400", "x" * 10 * TEXT_LIMIT)
    content = read(events.outcome(SUBJECT, rejected, attempts=1, at=NOW), "CommandRejected")
    assert content["text"] == "x" * TEXT_LIMIT


@pytest.mark.parametrize(
    ("event", "name"),
    [
        (Accepted({}, aside=(("reservationKey", "C-1"), ("", "x"))), "FaultReportAdded"),
        (Rejected(By.SUPPLIER, "400", aside=(("reservationKey", "C-1"), ("", "x"))), "CommandRejected"),
    ],
)
def test_what_no_field_was_found_for_is_in_the_event(events: Events, event: Event, name: str) -> None:
    content = read(events.outcome(SUBJECT, event, attempts=1, at=NOW), name)
    assert content["unknownElements"] == [{"path": "reservationKey", "text": "C-1"}, {"path": "", "text": "x"}]


def test_a_dead_letter_is_the_record_as_it_came_and_where_it_came_from(events: Events) -> None:
    source = Source(3, 41, 1.5, b"\xff", b"\0raw", (("traceparent", b"t"), ("odd", None)))
    letter = events.dead_letter(source, "commands", Undecodable("malformed", "too short"), at=NOW)
    assert (letter.topic, letter.key, letter.value) == ("dead", b"\xff", b"\0raw")
    assert list(letter.headers[:2]) == [("traceparent", b"t"), ("odd", None)]
    assert dict(letter.headers[2:]) == {
        "dead-letter-reason": b"malformed",
        "dead-letter-detail": b"too short",
        "dead-letter-topic": b"commands",
        "dead-letter-partition": b"3",
        "dead-letter-offset": b"41",
        "dead-letter-timestamp": b"1500",
        "dead-letter-at": b"2026-03-02T09:30:00.412Z",
    }


def test_a_dead_letter_has_only_our_own_reasons_whatever_the_record_brought(events: Events) -> None:
    headers = (("dead-letter-reason", b"made up"), ("odd", b"1"), ("dead-letter-at", b"2020"), ("dead-letter-by", b"x"))
    source = Source(3, 41, 1.5, b"k", b"raw", headers)
    letter = events.dead_letter(source, "commands", Undecodable("malformed", "too short"), at=NOW)
    names = [name for name, _ in letter.headers]
    assert len(set(names)) == len(names)
    assert (names[0], "dead-letter-by" in names) == ("odd", False)
    assert dict(letter.headers)["dead-letter-reason"] == b"malformed"


def test_journal_entries_lie_together_beside_their_commands(events: Events) -> None:
    entries = [Entry(Kind.INTENT, f"c-{number}", number, b"d", 1.0, attempt=1) for number in range(3)]
    (record,) = events.entries(entries, 3)
    assert (record.topic, record.key, record.partition) == ("journal", None, 3)
    assert journal.entries(read(record, "JournalEntries")) == entries
    assert events.entries([], 3) == []


def test_entries_that_carry_long_commands_are_spread_over_records(events: Events) -> None:
    sources = [Source(3, number, 1.0, b"k", b"x" * 30_000, (("a", b"b"), ("n", None))) for number in range(5)]
    for long in (0, 2):
        sources[long] = replace(sources[long], value=b"x" * 500_000)
    entries = [Entry(Kind.HELD, f"c-{s.offset}", s.offset, b"d", 1.0, source=s) for s in sources]
    records = events.entries(entries, 3)
    found = [journal.entries(read(record, "JournalEntries")) for record in records]
    assert [[e.offset for e in some] for some in found] == [[0], [1], [2], [3, 4]]
    assert [e for some in found for e in some] == entries
