"""The compiled Avro writer against fastavro and against the strict checks."""

import re
from datetime import datetime
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapter.core.avro import Encoder, frame
from adapter.core.avro.check import Misfit, checker
from adapter.core.avro.writer import compile_writer
from tests import strategies
from tests.core.things import COMPLETE, FULL, MINIMAL, MOMENT, OURS, THING, foreign, schema


class Moment(datetime):
    pass


# What a field may hold that should not: of another type, beyond its range, without zone.
NAIVE = MOMENT.replace(tzinfo=None)
STRANGE: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, 1, 1.5, 2**31, 2**63, "", "\ud800", "GREEN", "PINK", b"x", MOMENT, NAIVE, MOMENT.date(), [], {}, ()]
) | st.sampled_from([Moment.fromisoformat(MOMENT.isoformat()), MappingProxyType({"text": "a"}), {"text": "a"}])


@pytest.mark.parametrize("name", OURS)
def test_every_schema_of_ours_is_written_as_fastavro_writes_it(name: str) -> None:
    schema = OURS[name]
    write = compile_writer(schema)

    @settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
    @given(strategies.values(schema.record, st.text(st.characters(codec="utf-8"), max_size=20)))
    def compare(record: dict[str, Any]) -> None:
        assert write(record, b"") == foreign(schema, record)

    compare()


def test_long_texts_and_lists_have_long_counts() -> None:
    record = FULL | {"id": "é" * 5000, "notes": [{"text": "x", "by": None}] * 3000}
    assert compile_writer(THING)(record, b"p") == b"p" + foreign(THING, record)


def test_numbers_of_every_length_are_written_as_fastavro_writes_them() -> None:
    schema = OURS["JournalEntries"]
    entry = {"commandId": "", "kind": "SETTLED", "digest": b"", "at": 0, "attempt": 0} | dict.fromkeys(
        ("unclearSince", "until", "doubted", "command")
    )
    edges = {edge + near for bits in range(63) for edge in (1 << bits, -1 << bits) for near in (-1, 0, 1)}
    record = {"entries": [{**entry, "offset": number} for number in sorted(edges)]}
    assert compile_writer(schema)(record, b"") == foreign(schema, record)


def test_what_is_missing_has_its_default() -> None:
    assert compile_writer(THING)(MINIMAL, b"") == foreign(THING, COMPLETE)


@settings(max_examples=500)
@given(st.dictionaries(st.sampled_from([*FULL, "stranger"]), STRANGE, max_size=4))
def test_what_the_strict_checks_take_is_written_and_what_they_refuse_is_told(changes: dict[str, Any]) -> None:
    record = FULL | changes
    try:
        checker(THING.record)(record)
    except Misfit as misfit:
        with pytest.raises(ValueError, match=f"^{re.escape(misfit.where('Thing'))}$"):
            Encoder(THING, 1).encode(record)
    else:
        assert Encoder(THING, 1).encode(record) == frame(1, foreign(THING, record))


def test_a_map_is_written_as_fastavro_writes_it_and_its_keys_are_checked() -> None:
    counts = schema({"name": "counts", "type": {"type": "map", "values": "int"}})
    record = {"counts": {"a": 1, "é": 2}}
    assert compile_writer(counts)(record, b"") == foreign(counts, record)
    for wrong in ({1: 1}, {"\ud800": 1}, {"a": "b"}, MappingProxyType({"a": 1})):
        with pytest.raises(ValueError, match=r"^Thing.counts: is not "):
            Encoder(counts, 1).encode({"counts": wrong})


def test_types_that_no_record_of_ours_has_have_no_writer() -> None:
    with pytest.raises(ValueError, match="double is not written"):
        Encoder(schema({"name": "d", "type": "double"}), 1)
