"""The compiled Avro writer against fastavro and against the strict checks."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapter.core.avro import Encoder, Schema
from adapter.core.avro.writer import Unfit, Write, compile_writer
from tests import strategies
from tests.core.things import FULL, MINIMAL, MOMENT, OURS, THING, foreign

# What a field may hold that should not: of another type, beyond its range, without zone.
NAIVE = MOMENT.replace(tzinfo=None)
STRANGE: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, 1, 1.5, 2**31, 2**63, "", "\ud800", "GREEN", "PINK", b"x", MOMENT, NAIVE, MOMENT.date(), [], {}, ()]
)


def compiled(schema: Schema) -> Write:
    write = compile_writer(schema)
    assert write is not None
    return write


@pytest.mark.parametrize("name", OURS)
def test_every_schema_of_ours_is_written_as_fastavro_writes_it(name: str) -> None:
    schema = OURS[name]
    write = compiled(schema)

    @settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
    @given(strategies.values(schema.record, st.text(st.characters(codec="utf-8"), max_size=20)))
    def compare(record: dict[str, Any]) -> None:
        assert write(record, b"") == foreign(schema, record)

    compare()


def test_long_texts_and_lists_have_long_counts() -> None:
    record = FULL | {"id": "é" * 5000, "notes": [{"text": "x", "by": None}] * 3000}
    assert compiled(THING)(record, b"p") == b"p" + foreign(THING, record)


def test_numbers_of_every_length_are_written_as_fastavro_writes_them() -> None:
    schema = OURS["JournalEntries"]
    entry = {"commandId": "", "kind": "SETTLED", "digest": b"", "at": 0, "attempt": 0} | dict.fromkeys(
        ("unclearSince", "until", "doubted", "command")
    )
    edges = {edge + near for bits in range(63) for edge in (1 << bits, -1 << bits) for near in (-1, 0, 1)}
    record = {"entries": [{**entry, "offset": number} for number in sorted(edges)]}
    assert compiled(schema)(record, b"") == foreign(schema, record)


def test_what_is_missing_and_null_by_default_needs_no_entry() -> None:
    record = {name: value for name, value in FULL.items() if name not in {"day", "size", "first", "colour"}}
    assert compiled(THING)(record, b"") == foreign(THING, record)


@settings(max_examples=500)
@given(st.dictionaries(st.sampled_from([*FULL, "stranger"]), STRANGE, max_size=4))
def test_nothing_is_written_that_the_strict_checks_refuse(changes: dict[str, Any]) -> None:
    record = FULL | changes
    encoder = Encoder(THING, 1)
    try:
        written = compiled(THING)(record, b"")
    except Unfit:
        encoder._write = None  # the checks and fastavro alone
        try:
            encoder.encode(record)
        except ValueError:
            return
        assert any(type(value) is tuple for value in record.values()), "only what is rare is left to fastavro"
    else:
        encoder._check(record)
        assert written == foreign(THING, record)


def test_a_field_without_default_that_is_missing_is_left_to_the_checks() -> None:
    with pytest.raises(Unfit):
        compiled(THING)({"id": "1"}, b"")
    assert Encoder(THING, 1).encode(MINIMAL)


def test_types_that_are_not_worth_it_have_no_writer() -> None:
    fields = '{"name":"d","type":"double"}'
    assert compile_writer(Schema.parse(f'{{"type":"record","name":"M","fields":[{fields}]}}')) is None
