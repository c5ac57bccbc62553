"""What a few bytes would become in memory is told before they are read, and nothing passes that holds more."""

import io
import json
import tracemalloc
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapter.core.avro import Decoder, Schema
from adapter.core.avro.bulk import DECIMAL_LIMIT, Bulk, Excess
from adapter.core.avro.schema import Array, Map, Record, Type, Union
from adapter.core.errors import Undecodable
from tests.core.test_reader import SCHEMAS, every_schema, number, of_any_size, records, spoiled
from tests.core.things import NOTE, TIME, changed, foreign, schema, text_of

KEYED = {"type": "record", "name": "Keyed", "fields": [{"name": "id", "type": "string"}]}
EVERYTHING = schema(
    {"name": "sums", "type": {"type": "array", "items": ["double", "float", {"type": "map", "values": "null"}]}},
    {"name": "marks", "type": {"type": "map", "values": {"type": "fixed", "name": "Mark", "size": 3}}},
    {"name": "deep", "type": {"type": "array", "items": {"type": "array", "items": {"type": "array", "items": "int"}}}},
    {"name": "kinds", "type": {"type": "array", "items": {"type": "enum", "name": "Kind", "symbols": ["A", "B"]}}},
    {"name": "parts", "type": {"type": "map", "values": ["null", KEYED, {**NOTE, "name": "Part"}]}},
    {"name": "raw", "type": {"type": "array", "items": ["bytes", "boolean", TIME]}},
)
TEXTS = st.text(max_size=5)
EVERYTHINGS = st.fixed_dictionaries(
    {
        "sums": st.lists(st.just(0.5) | st.dictionaries(TEXTS, st.none(), max_size=9), max_size=9),
        "marks": st.dictionaries(TEXTS, st.binary(min_size=3, max_size=3), max_size=9),
        "deep": st.lists(st.lists(st.lists(st.integers(-9, 999), max_size=9), max_size=4), max_size=4),
        "kinds": st.lists(st.sampled_from(["A", "B"]), max_size=9),
        "parts": st.dictionaries(
            TEXTS,
            st.none()
            | st.fixed_dictionaries({"id": TEXTS})
            | st.fixed_dictionaries({"text": TEXTS, "by": st.none() | TEXTS}),
            max_size=9,
        ),
        "raw": st.lists(st.binary(max_size=9) | st.booleans(), max_size=9),
    }
)


def held(kind: Type, value: Any) -> tuple[int, int]:
    """How many values it is without what its arrays and maps hold, and how many those hold, counted when read."""
    match kind, value:
        case Union(branches), _:
            return max((held(each, value) for each in branches if fits(each, value)), default=(1, 0))
        case Array(items), list():
            found = [held(items, each) for each in value]
            return 1, sum(map(sum, found))
        case Map(values), dict():
            found = [held(values, each) for each in value.values()]
            return 1, len(found) + sum(map(sum, found))
        case Record(_, fields, _), dict():
            found = [held(field.type, value[field.name]) for field in fields]
            return 1 + sum(own for own, _ in found), sum(inner for _, inner in found)
        case _:
            return 1, 0


def fits(kind: Type, value: Any) -> bool:
    match kind, value:
        case Record(_, fields, _), dict():
            return {field.name for field in fields} == value.keys()
        case (Record(), _) | (Array(), dict()) | (Map(), list()):
            return False
        case _:
            return True


def judged(bulk: Bulk, data: bytes) -> bool:
    """Whether a decoder would go on to read it."""
    try:
        if len(data) > bulk.harmless:
            bulk.check(data)
    except (Excess, ValueError, IndexError):
        return False
    return True


@pytest.mark.parametrize("name", [*SCHEMAS, "everything"])
def test_nothing_passes_that_fastavro_makes_more_of(name: str) -> None:
    written = EVERYTHING if name == "everything" else SCHEMAS[name]
    sound = (EVERYTHINGS if name == "everything" else records(written)).map(lambda each: foreign(written, each))

    @of_any_size
    @given(sound | spoiled(sound), st.integers(0, 200))
    def compare(data: bytes, most: int) -> None:
        if not judged(Bulk(written, most), data):
            return
        source = io.BytesIO(data)
        try:
            record = fastavro.schemaless_reader(source, written.parsed, None)
        except Exception:  # noqa: BLE001 -- fastavro documents none
            return
        assert held(written.record, record)[1] <= most

    compare()


@every_schema
def test_what_is_sound_and_holds_little_passes(name: str) -> None:
    written = SCHEMAS[name]
    bulk = Bulk(written, 10_000)

    @of_any_size
    @given(records(written))
    def compare(record: dict[str, Any]) -> None:
        bulk.check(foreign(written, record))

    compare()


@given(EVERYTHINGS)
def test_every_type_is_walked_over(record: dict[str, Any]) -> None:
    data = foreign(EVERYTHING, record)
    bulk = Bulk(EVERYTHING, 10_000)
    bulk.check(data)
    with pytest.raises(IndexError):  # its last byte ends the last array
        bulk.check(data[:-1])


def listed(kind: Any) -> Schema:
    return schema({"name": "a", "type": {"type": "array", "items": kind}})


def refused(written: Schema, data: bytes, *, most: int = 1000) -> str:
    """How `data` is refused, though the schema of the same name has no such field; little memory is taken."""
    decoder = Decoder(written.text, [schema({"name": "z", "type": "int", "default": 0})], most=most)
    tracemalloc.start()
    try:
        with pytest.raises(Undecodable) as why:
            decoder.decode(data)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
    return f"{why.value.reason}: {why.value.detail}"


TOO_MANY = "too many items, a record may hold 1000 values in arrays and maps"
NULLS = [{"name": f"n{place}", "type": "null"} for place in range(5000)]


@pytest.mark.parametrize(
    ("kind", "item", "count", "where"),
    [
        ({"type": "array", "items": "boolean"}, b"\x00", 1001, "a"),
        ({"type": "array", "items": {**KEYED, "fields": [*KEYED["fields"], *NULLS]}}, b"\x00", 1, "a"),
        ({"type": "array", "items": ["null", {**KEYED, "fields": NULLS}]}, b"\x02", 1, "a"),
        ({"type": "map", "values": "null"}, b"\x00", 501, "a"),
        ({"type": "map", "values": {**KEYED, "fields": NULLS}}, b"\x00", 1, "a"),
        ({"type": "array", "items": {"type": "array", "items": "int"}}, number(10) + b"\x00" * 11, 100, "a[]"),
        ({"type": "array", "items": {"type": "map", "values": "int"}}, number(10) + b"\x00" * 21, 50, "a[]"),
        ({"type": "array", "items": ["int", {"type": "array", "items": "int"}]}, b"\x02\x14" + b"\0" * 11, 100, "a[]"),
        ({"type": "map", "values": {"type": "array", "items": "int"}}, b"\x00\x14" + b"\0" * 11, 90, "a{}"),
    ],
)
@pytest.mark.parametrize("sized", [False, True])
def test_more_than_a_record_may_hold_is_refused_by_its_field(
    kind: Any, item: bytes, count: int, where: str, *, sized: bool
) -> None:
    begin = number(-count) + number(len(item) * count) if sized else number(count)
    data = begin + item * count + b"\x00"
    assert refused(schema({"name": "a", "type": kind}), data) == f"unresolvable: Thing.{where}: {TOO_MANY}"


def test_a_list_in_many_blocks_is_counted_as_one() -> None:
    data = (number(2) + b"\x00\x00") * 501 + b"\x00"
    assert refused(listed("boolean"), data) == f"unresolvable: Thing.a: {TOO_MANY}"


def test_lists_beside_one_another_are_counted_together() -> None:
    both = [{"name": name, "type": {"type": "array", "items": "boolean"}} for name in "ab"]
    assert refused(schema(*both), (number(600) + b"\x00" * 601) * 2) == f"unresolvable: Thing.b: {TOO_MANY}"


@pytest.mark.parametrize(
    "data",
    [
        number(2**60) + b"\x00" * 3000,
        number(-(2**63)) + b"\x00" * 3000,
        b"\xff" * 3000,
        number(1) + number(-1) + b"\x00" * 3000,
        number(1) + number(2) + b"\x00" * 3000,
        number(1) + number(0) + number(-5) + b"\x00" * 3000,
        number(1) + number(0) + number(9000) + b"\x00" * 3000,
    ],
    ids=["endless", "endless with its size", "no number", "branch -1", "branch of none", "text of -5", "text beyond"],
)
def test_long_bytes_that_are_none_of_the_schema_are_malformed(data: bytes) -> None:
    assert refused(listed(["string", "int"]), data).startswith("malformed: not what its schema says")


def test_a_long_text_is_not_much() -> None:
    written = changed("count", type="int")
    long = {"id": "x" * 200_000, "at": 0}
    record = Decoder(written.text, [written], most=1000).decode(foreign(written, long)).record
    assert record["id"] == long["id"]


FIXED = {"type": "fixed", "name": "Sum", "size": DECIMAL_LIMIT + 1}
DECIMAL = {"logicalType": "decimal", "precision": 4}


@pytest.mark.parametrize(
    ("kind", "begin"), [({"type": "bytes", **DECIMAL}, number(DECIMAL_LIMIT + 1)), ({**FIXED, **DECIMAL}, b"")]
)
def test_a_decimal_of_many_bytes_is_refused_by_its_field(kind: Any, begin: bytes) -> None:
    data = begin + b"\x7f" * (DECIMAL_LIMIT + 1)
    detail = f"a decimal of more than {DECIMAL_LIMIT} bytes"
    assert refused(schema({"name": "sum", "type": kind}), data) == f"unresolvable: Thing.sum: {detail}"


def test_a_decimal_of_few_bytes_is_a_number() -> None:
    written = schema({"name": "sum", "type": {"type": "bytes", **DECIMAL, "precision": 700}})
    data = number(DECIMAL_LIMIT) + b"\x7f" * DECIMAL_LIMIT
    assert Decoder(written.text, [schema({"name": "z", "type": "int", "default": 0})]).decode(data).unknown == ("sum",)


def test_of_a_logical_type_that_is_given_twice_the_last_is_taken() -> None:
    text = text_of({"name": "a", "type": {"type": "bytes", "precision": 4, "logicalType": "decimal", "twice": 0}})
    parsed = Schema.parse(text.replace('"twice": 0', '"logicalType": "uuid"')).parsed
    assert "logicalType" not in json.dumps(parsed)
