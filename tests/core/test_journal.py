import io
import json
from collections.abc import Sized
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapter.core import journal
from adapter.core.command import Held, Intended, Past, Untouched
from adapter.core.errors import Undecodable
from adapter.core.journal import Entry, Extent, Kind, Mark, Recovered, Source, commands_of, read_mark, recover

SCHEMA = json.loads(Path(__file__).parents[2].joinpath("schemas/avro/journal/JournalEntries.avsc").read_text("utf-8"))
RESIDENT = Source(3, 0, 1.0, b"key", b"value", ())

times = st.integers(0, 10**13).map(lambda millis: millis / 1000)
sources = st.builds(
    Source,
    partition=st.integers(0, 2**31 - 1),
    offset=st.just(0),
    timestamp=times,
    key=st.none() | st.binary(),
    value=st.none() | st.binary(),
    headers=st.lists(st.tuples(st.text(), st.none() | st.binary())).map(tuple),
)
entries = st.builds(
    Entry,
    kind=st.sampled_from(Kind),
    command_id=st.text(),
    offset=st.integers(0, 2**63 - 1),
    digest=st.binary(),
    at=times,
    attempt=st.integers(0, 2**31 - 1),
    unclear_since=st.none() | times,
    until=st.none() | times,
    doubted=st.none() | st.text(),
    source=st.none() | sources,
).map(lambda e: e if e.source is None else replace(e, source=replace(e.source, offset=e.offset)))


def made(kind: Kind, command_id: str = "a", offset: int = 0, *, resident: bool = False) -> Entry:
    """An entry as the worker makes it: residents carry their record."""
    source = replace(RESIDENT, offset=offset) if resident else None
    return Entry(kind, command_id, offset, command_id.encode(), at=5.0, source=source)


# -- entries -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "past"),
    [
        (Kind.INTENT, Intended(2, 5.0, 4.0)),
        (Kind.CLEARED, Untouched(2, 4.0)),
        (Kind.HELD, Held(2, 9.0, 4.0)),
        (Kind.PARKED, Untouched(2, 4.0)),
    ],
)
def test_what_the_last_entry_of_a_command_means_to_a_successor(kind: Kind, past: Past) -> None:
    assert Entry(kind, "a", 7, b"", at=5.0, attempt=2, unclear_since=4.0, until=9.0).past() == past


def test_a_command_that_is_sent_again_after_a_doubt_says_so_to_a_successor() -> None:
    entry = Entry(Kind.CLEARED, "a", 7, b"", at=5.0, attempt=2, doubted="Joe: again")
    assert entry.past() == Untouched(2, None, "Joe: again")


def test_a_doubt_without_a_time_limit_ends_at_once() -> None:
    assert Entry(Kind.HELD, "a", 7, b"", at=5.0).past() == Held(0, 5.0, 5.0)


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("resident", [True, False])
def test_an_unfinished_command_whose_record_is_in_the_journal_is_a_resident(kind: Kind, *, resident: bool) -> None:
    assert made(kind, resident=resident).resident == (resident and kind is not Kind.SETTLED)


@given(several=st.lists(entries, max_size=3))
def test_entries_come_back_from_avro_as_they_were(several: list[Entry]) -> None:
    assert journal.entries(_read(_written(several))) == several


def test_times_come_back_to_the_millisecond() -> None:
    (back,) = journal.entries({"entries": [Entry(Kind.INTENT, "a", 7, b"", at=1_700_000_000.123_456_7).record()]})
    assert back.at == 1_700_000_000.123


def test_an_entry_of_a_kind_that_a_later_release_has_added_is_not_passed_over() -> None:
    """It may be an intent, or the only place where a command still is."""
    newer = json.loads(json.dumps(SCHEMA))
    (kind,) = (field for field in newer["fields"][0]["type"]["items"]["fields"] if field["name"] == "kind")
    kind["type"]["symbols"].append("TELEPORTED")
    out = io.BytesIO()
    records = [made(Kind.HELD).record(), made(Kind.INTENT).record() | {"kind": "TELEPORTED"}]
    fastavro.schemaless_writer(out, newer, {"entries": records}, strict=True)
    with pytest.raises(Undecodable, match="kind that this release does not know"):
        journal.entries(_read(out.getvalue(), newer))


def _written(entries: list[Entry]) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, SCHEMA, {"entries": [entry.record() for entry in entries]}, strict=True)
    return out.getvalue()


def _read(data: bytes, writer: Any = SCHEMA) -> dict[str, Any]:
    return cast("dict[str, Any]", fastavro.schemaless_reader(io.BytesIO(data), writer, SCHEMA))


# -- recover -----------------------------------------------------------------------------------------------------------


def test_dead_letters_are_known_by_offset_from_the_committed_one_on() -> None:
    letters = [Entry(Kind.SETTLED, "", offset, bytes([offset]), 0.0) for offset in (3, 7, 9)]
    recovered = recover(letters, 7)
    assert recovered.letters == {7: b"\x07", 9: b"\x09"}
    assert (recovered.settled, recovered.finished) == ({}, {})


def test_a_dead_letter_has_the_digest_it_had_in_earlier_releases() -> None:
    """One that is delivered again after an upgrade would else be written again."""
    assert RESIDENT.digest().hex() == "7b4eda4e1f1a9a8c0d663b4e"


def test_an_empty_journal_knows_nothing() -> None:
    assert recover([], 0) == Recovered(settled={}, open={}, residents=(), finished={}, letters={})


def test_the_last_entry_of_a_command_is_its_state() -> None:
    story = [
        made(Kind.INTENT, "done", 10),
        made(Kind.INTENT, "again", 11),
        made(Kind.CLEARED, "again", 11),
        made(Kind.INTENT, "called", 12),
        made(Kind.INTENT, "doubt", 13),
        made(Kind.SETTLED, "done", 10),
        made(Kind.HELD, "doubt", 13, resident=True),
        made(Kind.PARKED, "behind", 9, resident=True),
    ]
    known = recover(story, 10)
    assert known.settled == {"done": b"done"}
    assert known.open == {"again": story[2], "called": story[3]}
    assert known.residents == (story[6], story[7])
    assert known.finished == {10: "done"}
    assert known.counts() == {"settled": 1, "intent": 1, "held": 1, "parked": 1}


def test_a_parked_command_that_is_called_is_not_lost_when_the_worker_dies() -> None:
    """The frontier has passed it: only its entries can bring it back."""
    called = made(Kind.INTENT, "a", 3, resident=True)
    assert recover([made(Kind.PARKED, "a", 3, resident=True), called], 50).residents == (called,)


def test_a_resident_that_is_called_before_the_frontier_has_passed_it_is_told_once() -> None:
    called = made(Kind.INTENT, "a", 3, resident=True)
    known = recover([called], 2)
    assert (known.residents, known.open) == ((called,), {})
    assert known.counts() == {"settled": 0, "intent": 1, "held": 0, "parked": 0}


def test_an_open_command_below_the_committed_offset_may_come_again_under_another_one() -> None:
    """In a topic that was mirrored. Here it was finished without an end of its own, as a dead letter is."""
    intent = made(Kind.INTENT, "a", 3)
    assert recover([intent], 4).open == {"a": intent}


@given(
    story=st.lists(
        st.builds(made, st.sampled_from(Kind), st.sampled_from("abcd"), st.integers(0, 9), resident=st.booleans()),
        max_size=30,
    ),
    position=st.integers(0, 10),
)
def test_recovering_agrees_with_looking_every_command_up(story: list[Entry], position: int) -> None:
    known = recover(story, position)
    last = [e for n, e in enumerate(story) if e.command_id not in {later.command_id for later in story[n + 1 :]}]
    settled = [e for e in last if e.kind is Kind.SETTLED]
    residents = [e for e in last if e.kind is not Kind.SETTLED and e.source is not None]
    opened = [e for e in last if e.kind in (Kind.INTENT, Kind.CLEARED) and e.source is None]
    assert list(known.settled.items()) == [(e.command_id, e.digest) for e in settled]
    assert known.finished == {e.offset: e.command_id for e in settled if e.offset >= position}
    assert known.open == {e.command_id: e for e in opened}
    assert sorted(known.residents, key=lambda e: e.command_id) == sorted(residents, key=lambda e: e.command_id)
    order = [(e.kind is Kind.PARKED, e.offset) for e in known.residents]
    assert order == sorted(order)


# -- the mark ----------------------------------------------------------------------------------------------------------


def test_the_mark_of_an_assignment_without_entries_is_the_end() -> None:
    assert Extent(7).mark(0) == 7


def test_the_mark_stays_at_the_entries_of_unfinished_work_and_moves_on_when_it_is_finished() -> None:
    extent = Extent(7)
    extent.known(made(Kind.INTENT, "a", 100), 1.0)
    extent.committed(1)
    assert extent.end == 8
    extent.known(made(Kind.SETTLED, "b", 101), 1.0)
    extent.committed(1)
    assert (extent.mark(100), extent.needed) == (7, True)
    assert (extent.mark(101), extent.needed) == (8, True)
    assert (extent.mark(102), extent.needed) == (10, False)


def test_the_end_of_a_command_holds_the_mark_until_the_frontier_has_passed_the_last_record_of_its_id() -> None:
    """Whichever of its records had its turn last."""
    extent = Extent(7)
    assert extent.known(made(Kind.SETTLED, "a", 3), 1.0).offset == 3
    extent.committed(1)
    assert extent.known(made(Kind.SETTLED, "a", 1), 1.0) == made(Kind.SETTLED, "a", 3)
    extent.committed(1)
    assert [extent.mark(position) for position in (2, 3, 4)] == [8, 8, 10]


@pytest.mark.parametrize(
    ("kind", "offset", "held"),
    [
        (Kind.SETTLED, 3, 3),
        (Kind.SETTLED, 7, 7),
        (Kind.SETTLED, 900, 7),
        (Kind.INTENT, 3, 7),
        (Kind.INTENT, 7, 7),
        (Kind.INTENT, 900, 7),
    ],
)
def test_what_is_found_of_an_unfinished_command_may_be_of_any_record_there_is(
    kind: Kind, offset: int, held: int
) -> None:
    """The commands were mirrored, perhaps: so it holds the mark until the frontier has passed all of the eight."""
    extent = Extent(5)
    extent.recovered(4, made(kind, "a", offset), 8, unfinished=kind is Kind.INTENT)
    assert [extent.mark(position) for position in (held, held + 1)] == [4, 5]


def test_an_end_is_written_with_no_offset_that_may_be_of_another_command() -> None:
    for kind in (Kind.INTENT, Kind.SETTLED):
        extent = Extent(5)
        extent.recovered(4, made(kind, "a", 900), 8, unfinished=kind is Kind.INTENT)
        assert extent.known(made(Kind.SETTLED, "a", 3), 1.0).offset == 3


def test_of_two_ends_that_are_found_the_later_record_holds_the_mark() -> None:
    extent = Extent(5)
    extent.recovered(3, made(Kind.SETTLED, "a", 4), 8, unfinished=False)
    extent.recovered(4, made(Kind.SETTLED, "a", 2), 8, unfinished=False)
    assert [extent.mark(position) for position in (3, 4, 5)] == [4, 4, 5]


def test_each_dead_letter_holds_the_mark_until_the_frontier_has_passed_it() -> None:
    extent = Extent(0)
    for command_id, offset in (("", 3), ("", 5), ("", 4), ("5", 6)):
        extent.known(made(Kind.SETTLED, command_id, offset), 1.0)
        extent.committed(1)
    assert [extent.mark(position) for position in range(3, 8)] == [0, 1, 1, 5, 7]


def test_the_mark_of_a_doubt_is_not_behind_it_although_the_marker_of_its_intent_is() -> None:
    """A commit is acknowledged before its markers are written, and the next transaction is another producer's."""
    extent = Extent(0)
    extent.known(made(Kind.INTENT, "a", 0), 1.0)
    extent.committed(1)
    extent.known(made(Kind.HELD, "a", 0, resident=True), 1.0)
    assert extent.mark(1) == 1


def test_a_transaction_without_entries_adds_nothing_to_the_journal() -> None:
    extent = Extent(7)
    for _ in range(2):
        extent.committed(0)
    assert extent.end == 7


def test_a_resident_holds_the_mark_until_it_has_ended_or_was_written_forward() -> None:
    extent = Extent(0)
    for held in "ab":
        extent.known(made(Kind.HELD, held, 100, resident=True), 1.0)
        extent.committed(1)
    assert extent.mark(500) == 0
    extent.known(made(Kind.HELD, "a", 100, resident=True), 1.0)
    extent.committed(1)
    assert extent.mark(500) == 1
    extent.known(made(Kind.SETTLED, "b", 100), 1.0)
    assert (extent.mark(500), extent.needed) == (3, True)
    extent.known(made(Kind.SETTLED, "a", 100), 1.0)
    extent.committed(2)
    assert extent.mark(500) == extent.end == 8
    assert not extent.needed


def test_a_call_that_is_found_and_held_holds_the_mark_as_a_resident_alone() -> None:
    """However much lies behind it in the topic, what was finished since is behind the mark."""
    extent = Extent(1)
    extent.recovered(0, made(Kind.INTENT, "a", 0), 1000, unfinished=True)
    extent.known(made(Kind.HELD, "a", 0, resident=True), 1.0)
    extent.committed(1)
    assert extent.mark(1) == 1
    for offset in range(1, 10):
        extent.known(made(Kind.SETTLED, str(offset), offset), 1.0)
        extent.committed(1)
    extent.known(made(Kind.HELD, "a", 0, resident=True), 1.0)
    assert extent.mark(10) == 20


def test_nothing_is_kept_of_what_the_frontier_has_passed() -> None:
    extent = Extent(0)
    for offset in range(0, 300, 3):
        for entry in (
            made(Kind.INTENT, f"a{offset}", offset),
            made(Kind.SETTLED, f"a{offset}", offset),
            made(Kind.SETTLED, "", offset + 1),
            made(Kind.HELD, f"b{offset}", offset + 2, resident=True),
            made(Kind.SETTLED, f"b{offset}", offset + 2),
        ):
            extent.known(entry, 1.0)
            extent.committed(1)
        extent.mark(offset + 3)
    assert [name for name in Extent.__slots__ if isinstance(part := getattr(extent, name), Sized) and len(part)] == []


def test_little_is_kept_of_what_a_successor_is_to_remember() -> None:
    extent = Extent(0, 1000)
    for offset in range(5000):
        extent.known(made(Kind.SETTLED, str(offset), offset), 1.0)
        extent.committed(1)
        extent.mark(offset + 1)
    assert sum(len(part) for name in Extent.__slots__ if isinstance(part := getattr(extent, name), Sized)) < 50


def test_residents_far_behind_the_end_are_stale() -> None:
    extent = Extent(0)
    extent.known(made(Kind.PARKED, "a", 1, resident=True), 1.0)
    extent.committed(3)
    extent.known(made(Kind.PARKED, "b", 2, resident=True), 1.0)
    extent.committed(8)
    assert [extent.stale(distance, 0.0) for distance in (12, 11, 9, 8)] == [(), ("a",), ("a",), ("a", "b")]


def test_a_resident_that_was_written_long_ago_is_to_be_written_forward_though_nothing_lies_behind_it() -> None:
    extent = Extent(0)
    recovered, fresh = made(Kind.PARKED, "a", 1, resident=True), made(Kind.PARKED, "b", 2, resident=True)
    extent.recovered(0, recovered, 3, unfinished=False)
    extent.known(fresh, fresh.at + 60)
    assert extent.stale(1000, recovered.at) == ()
    assert extent.stale(1000, recovered.at + 1) == ("a",)
    extent.known(recovered, recovered.at + 120)
    assert extent.stale(1000, recovered.at + 61) == ("b",)
    extent.known(made(Kind.SETTLED, "b", 2), fresh.at + 120)
    assert extent.stale(1000, recovered.at + 61) == ()


def test_a_mark_is_read_back_by_whoever_uses_the_same_journal() -> None:
    mark = Mark(12, 7, "cluster/topic", "cluster/commands", "transaction-1")
    metadata = mark.text()
    assert read_mark(metadata, "cluster/topic") == mark
    assert read_mark(metadata, "cluster/topic-made-anew") is None
    assert commands_of(metadata) == "cluster/commands"
    assert len(metadata.encode()) < 4096


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        "",
        "NULL",
        "null",
        "7",
        '"mark"',
        "[]",
        "[" * 4000,
        "{}",
        '{"mark":7}',
        '{"mark":7,"journal":"j","transaction":"t"}',
        '{"journal":"j"}',
        '{"mark":7,"memory":7,"journal":"other"}',
        '{"mark":-1,"memory":7,"journal":"j"}',
        '{"mark":7.0,"memory":7,"journal":"j"}',
        '{"mark":true,"memory":7,"journal":"j"}',
        '{"mark":null,"memory":7,"journal":"j"}',
        '{"mark":"7","memory":7,"journal":"j"}',
        '{"mark":7,"memory":-1,"journal":"j"}',
        '{"mark":7,"memory":"7","journal":"j"}',
        '{"mark":7,"journal":"j"',
    ],
)
def test_without_a_readable_mark_of_this_journal_all_of_it_is_read(metadata: str | None) -> None:
    assert read_mark(metadata, "j") is None
    assert commands_of(metadata) == ""


@given(
    metadata=st.text(),
    offset=st.integers(0, 2**63 - 1),
    name=st.text(min_size=1),
    transaction=st.text(),
    needed=st.booleans(),
)
@settings(deadline=None)
def test_marks_come_back_and_anything_else_does_not(
    metadata: str, offset: int, name: str, transaction: str, *, needed: bool
) -> None:
    mark = Mark(offset, offset // 2, name, transaction[::-1], transaction, needed)
    assert read_mark(mark.text(), name) == mark
    assert read_mark(metadata, name) is None


@given(
    transactions=st.lists(st.integers(0, 40), max_size=60),
    remembered=st.integers(0, 100),
    known=st.integers(0, 30),
)
def test_a_successor_reads_as_many_entries_as_are_to_be_remembered_and_few_more(
    transactions: list[int], remembered: int, known: int
) -> None:
    """The frontier has passed them all. `known` were read at the start, the others committed group by group."""
    extent = Extent(known, remembered)
    places = list(range(known))
    for at in places:
        extent.recovered(at, made(Kind.SETTLED, str(at), at), known, unfinished=False)
    for count in transactions:
        for _ in range(count):
            extent.known(made(Kind.SETTLED, str(len(places)), len(places)), 1.0)
            places.append(extent.end)
        extent.committed(min(count, 1))
    memory = extent.memory(extent.mark(len(places)))
    read = sum(at >= memory for at in places)
    assert read >= min(remembered, len(places))
    assert read <= remembered + remembered // 32 + 1 + max((known > 0, *transactions), default=0)


def test_only_the_last_entry_of_a_command_holds_the_mark() -> None:
    extent = Extent(100)
    for attempt in range(1, 4):
        extent.known(Entry(Kind.INTENT, "A", 7, b"", 0.0, attempt=attempt), 1.0)
        extent.committed(1)
    assert extent.mark(7) == 103
