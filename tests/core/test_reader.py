"""The compiled Avro reader against fastavro: sound bytes are the same record, any others the same refusal."""

import io
import json
from datetime import datetime
from typing import Any

import fastavro
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapter.core.avro import Decoder, Schema
from adapter.core.avro.reader import Read, compile_reader
from adapter.core.errors import Undecodable
from tests import strategies
from tests.core.things import COMPLETE, FIELDS, FULL, MINIMAL, NOTE, OURS, THING, foreign, schema

# Besides what ours have: plain bytes, a null that comes second, items that may be null, maps.
OTHER = schema(
    *FIELDS,
    {"name": "raw", "type": ["bytes", "null"]},
    {"name": "sizes", "type": {"type": "array", "items": ["null", "long"]}},
    {"name": "by", "type": {"type": "map", "values": {"type": "array", "items": "string"}}},
)
SCHEMAS = {**OURS, "other": OTHER}
every_schema = pytest.mark.parametrize("name", SCHEMAS)
of_any_size = settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


AT = schema(FIELDS[1])


def compiled(schema: Schema) -> Read:
    read = compile_reader(schema)
    assert read is not None
    return read


def records(schema: Schema) -> st.SearchStrategy[dict[str, Any]]:
    return strategies.values(schema.record, st.text(st.characters(codec="utf-8"), max_size=20))


def outcome(decoder: Decoder, data: bytes) -> str:
    """As text: a difference between 1 and true, or in the order of fields, shows."""
    try:
        return repr(decoder.decode(data))
    except Undecodable as refused:
        return f"{refused.reason}: {refused.detail}"


def by_fastavro(schema: Schema, data: bytes) -> str:
    decoder = Decoder(schema.text, [schema])
    decoder._compiled = None
    return outcome(decoder, data)


@every_schema
def test_what_is_written_by_the_schema_is_read_as_fastavro_reads_it(name: str) -> None:
    schema = SCHEMAS[name]
    read = compiled(schema)

    @of_any_size
    @given(records(schema))
    def compare(record: dict[str, Any]) -> None:
        data = foreign(schema, record)
        found = read(data)
        assert found == record
        assert repr(found) == repr(fastavro.schemaless_reader(io.BytesIO(data), schema.parsed, None))

    compare()


@st.composite
def spoiled(draw: st.DrawFn, sound: st.SearchStrategy[bytes]) -> bytes:
    """Bytes with some of them lost, doubled, changed or come in between."""
    data = draw(sound)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        gone = draw(st.integers(0, 3))
        put = draw(st.sampled_from([b"", b"\x00", b"\x01", b"\x02", b"\x80", b"\xff" * 9]) | st.binary(max_size=12))
        data = data[:at] + put + data[at + gone :]
    return data


@every_schema
def test_spoiled_bytes_are_what_they_are_to_fastavro(name: str) -> None:
    schema = SCHEMAS[name]
    decoder = Decoder(schema.text, [schema])

    @of_any_size
    @given(spoiled(records(schema).map(lambda record: foreign(schema, record))) | st.binary(max_size=60))
    def compare(data: bytes) -> None:
        assert outcome(decoder, data) == by_fastavro(schema, data)

    compare()


@pytest.mark.parametrize("cut", range(len(foreign(OTHER, FULL | {"raw": b"x", "sizes": [1], "by": {"k": ["v"]}}))))
def test_bytes_cut_off_anywhere_are_left_to_fastavro(cut: int) -> None:
    data = foreign(OTHER, FULL | {"raw": b"x", "sizes": [1], "by": {"k": ["v"]}})
    assert compiled(OTHER)(data[:cut]) is None
    assert compiled(OTHER)(data + data[: cut + 1]) is None


def thing(*parts: bytes) -> bytes:
    """A Thing from its fields' bytes, the first ones given."""
    return b"".join(
        (*parts, *(b"\x021", b"\x00", b"\x00", b"\x00", b"\x00", b"\x00", b"\x00", b"\x00", b"\x00")[len(parts) :])
    )


def number(value: int) -> bytes:
    return foreign(schema({"name": "n", "type": "long"}), {"n": value})


@pytest.mark.parametrize(
    "data",
    [
        thing(b"\x01"),  # a text of -1 bytes
        thing(b"\x02\xff"),  # that is not UTF-8
        thing(b"\x80" * 20 + b"\x00"),  # whose length has more bytes than any
        thing(b"\x021", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"),  # more than 64 bits
        thing(b"\x021", number(253_402_300_800_000)),  # the year 10000
        thing(b"\x021", number(-(2**63))),
        thing(b"\x021", b"\x00", b"\x01"),  # branches that are none
        thing(b"\x021", b"\x00", b"\x04"),
        thing(b"\x021", b"\x00", b"\x82\x00"),
        thing(b"\x021", b"\x00", b"\x02" + number(2**31 - 1)),  # a date that is none
        thing(b"\x021", b"\x00", b"\x02" + number(-(2**62))),
        thing(b"\x021", b"\x00", b"\x00", b"\x00", b"\x00", b"\x02"),  # a boolean of two
        thing(b"\x021", b"\x00", b"\x00", b"\x00", b"\x00", b"\x00", b"\x02\x06"),  # symbols that are none
        thing(b"\x021", b"\x00", b"\x00", b"\x00", b"\x00", b"\x00", b"\x02\x01"),
        thing(b"\x021", b"\x00", b"\x00", b"\x00", b"\x00", b"\x00", b"\x00", b"\x01\x08\x021\x00\x00"),  # sized blocks
        thing(b"\x021", b"\x00", b"\x00", b"\x00", b"\x00", b"\x00", b"\x00", number(2**62) + b"\x021\x00"),  # endless
        thing(b"\x021", b"\x00", b"\x00", b"\x00", b"\x00", b"\x00", b"\x00", number(2**63 - 1)),
        thing(number(2**62)),
    ],
)
def test_what_a_sound_writer_does_not_write_is_left_to_fastavro(data: bytes) -> None:
    assert compiled(THING)(data) is None
    assert outcome(Decoder(THING.text, [THING]), data) == by_fastavro(THING, data)


@pytest.mark.parametrize(
    "data",
    [
        thing(),
        thing(b"\x021", number(2**42), b"\x00", number(-(2**31)), b"\x02" + number(-(2**63))),
        thing(b"\x021", b"\x80\x00"),  # longer than it need be
        thing(b"\x021", number(-62_135_596_800_000)),  # the first moment of the year 1
        thing(b"\x021", number(253_402_300_799_999)),  # the last of 9999
        thing(
            b"\x021", b"\x00", b"\x00", b"\x00", b"\x00", b"\x00", b"\x00", b"\x02\x021\x00\x04\x022\x00\x023\x00\x00"
        ),
    ],
)
def test_what_is_rare_and_sound_is_read(data: bytes) -> None:
    assert compiled(THING)(data) is not None
    assert outcome(Decoder(THING.text, [THING]), data) == by_fastavro(THING, data)


@settings(max_examples=300)
@given(strategies.times)
def test_times_are_exact_to_the_millisecond(moment: datetime) -> None:
    assert compiled(AT)(foreign(AT, {"at": moment})) == {"at": moment}


def test_long_texts_and_lists_have_long_counts() -> None:
    record = FULL | {"id": "é" * 5000, "notes": [{"text": "x", "by": None}] * 3000}
    assert compiled(THING)(foreign(THING, record)) == record


def as_java_has_it(kind: Any) -> Any:
    """Without documentation, the parts in another order, each text told to be a String of Java's."""
    match kind:
        case "string":
            return {"type": "string", "avro.java.string": "String"}
        case list():
            return [as_java_has_it(each) for each in kind]
        case dict():
            inner = {"type", "items", "values"}
            parts = {name: as_java_has_it(part) if name in inner else part for name, part in kind.items()}
            if "fields" in kind:
                parts["fields"] = [as_java_has_it(field) for field in kind["fields"]]
            return {name: part for name, part in reversed(parts.items()) if name != "doc"}
        case _:
            return kind


@pytest.mark.parametrize("name", OURS)
def test_a_schema_that_only_looks_like_another_needs_no_resolution(name: str) -> None:
    ours = OURS[name]
    decoder = Decoder(json.dumps(as_java_has_it(json.loads(ours.text))), [ours])
    assert decoder._compiled is not None

    @settings(of_any_size, max_examples=3)
    @given(records(ours))
    def compare(record: dict[str, Any]) -> None:
        assert decoder.decode(foreign(ours, record)).record == record

    compare()


def test_another_schema_is_resolved() -> None:
    older = schema(*FIELDS[:2])
    renamed = schema(*FIELDS[:-1], {"name": "first", "type": ["null", {**NOTE, "name": "Remark"}], "default": None})
    for writer in (older, renamed):
        decoder = Decoder(writer.text, [THING])
        assert decoder._compiled is None
        assert decoder.decode(foreign(writer, MINIMAL)).record == COMPLETE


@pytest.mark.parametrize("kind", ["double", ["null", "string", "long"], {"type": "fixed", "name": "f", "size": 2}])
def test_types_that_are_not_worth_one_have_no_reader(kind: Any) -> None:
    assert compile_reader(schema({"name": "a", "type": kind})) is None
