import json
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapter.core.avro import (
    Decoder,
    Encoder,
    Schema,
    UnknownFields,
    compatibility,
    frame,
    from_json,
    full_transitive,
    to_json,
    unframe,
)
from adapter.core.errors import Refused, Undecodable
from tests import strategies
from tests.core.things import (
    COLOUR,
    COMPLETE,
    FIELDS,
    FULL,
    MINIMAL,
    MOMENT,
    NOTE,
    THING,
    TIME,
    changed,
    foreign,
    schema,
    text_of,
)


def payload(writer: Schema, record: dict[str, Any]) -> bytes:
    return unframe(Encoder(writer, 1).encode(record))[1]


def undecodable(decoder: Decoder, data: bytes) -> str:
    with pytest.raises(Undecodable) as refused:
        decoder.decode(data)
    return refused.value.reason


# -- the frame


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "null-value"),
        (b"", "empty"),
        (b'{"json": true}', "unframed"),
        (b"\x01\x00\x00\x00\x07rest", "unframed"),
        (b"\x00", "truncated"),
        (b"\x00\x00\x00\x07", "truncated"),
        (b"\x00\xff\xff\xff\xff", "unframed"),
    ],
)
def test_values_that_are_not_framed(value: bytes | None, reason: str) -> None:
    with pytest.raises(Undecodable) as refused:
        unframe(value)
    assert refused.value.reason == reason


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (b'{"commandId": "1"}', "JSON"),
        (b'"AAAABwA="', "JSON"),
        (b"AAAABwA=", "base64 of the record"),
        (b"<addFaultReport/>", "XML"),
        (b"Obj\x01\x04", "a file of Avro"),
        (b"\xc3\x01" + bytes(8), "Avro's single-object encoding"),
        (b"\x03\x00" + bytes(16), "the framing of AWS Glue"),
        (b"\x01" + bytes(16), "a schema's GUID instead of its id"),
    ],
)
def test_what_is_not_framed_is_told_by_what_it_looks_like(value: bytes, said: str) -> None:
    with pytest.raises(Undecodable) as refused:
        unframe(value)
    assert refused.value.detail == f"the first byte is not zero; it may be {said}"


@given(st.integers(0, 2**31 - 1), st.binary())
def test_a_frame_is_taken_off_again(identifier: int, data: bytes) -> None:
    assert unframe(frame(identifier, data)) == (identifier, data)


# -- schemas


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        '"string"',
        "[]",
        "[" * 100_000,
        '{"type": "record", "name": "a"}',
        '{"type": "record", "name": "a", "fields": [{"name": "b"}]}',
        '{"type": "record", "name": "a", "fields": [{"name": "b", "type": "nowhere"}]}',
        '{"type": "record", "name": "a", "fields": [{"name": "b", "type": []}]}',
        '{"type": "record", "name": "a", "fields": [{"name": "b", "type": 7}]}',
        '{"type": "record", "name": "a", "fields": 7, "__fastavro_parsed__": true}',
        '{"type": "record", "name": 7, "fields": []}',
        '{"type": "record", "name": "not a name", "fields": []}',
        '{"type": "record", "name": "a", "fields": [{"name": "b", "type": "int", "aliases": 7, "default": "x"}]}',
        text_of({"name": "a", "type": "int"}, {"name": "a", "type": "int"}),
        text_of({"name": "next", "type": ["null", "x.Thing"]}),
        text_of({"name": "a", "type": {"type": "array", "items": "null"}}),
        text_of({"name": "a", "type": {"type": "array", "items": {"type": "fixed", "name": "f", "size": 0}}}),
        text_of({"name": "a", "type": {"type": "enum", "name": "e", "symbols": ["A"], "default": "B"}}),
        text_of({"name": "a", "type": {"type": "fixed", "name": "f", "size": 10**12}}),
        text_of({"name": "a", "type": "string", "doc": "x" * 600_000}),
    ],
    ids=lambda text: text[:60],
)
def test_schemas_that_are_not_taken(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Schema.parse(text)


def test_a_schema_that_doubles_at_every_level_is_not_taken() -> None:
    inner: Any = "int"
    for level in range(30):
        kind = inner if level == 0 else f"T{level - 1}"
        inner = {
            "type": "record",
            "name": f"T{level}",
            "fields": [{"name": "a", "type": inner}, {"name": "b", "type": kind}],
        }
    with pytest.raises(ValueError, match="too"):
        Schema.parse(text_of({"name": "a", "type": inner}))


def test_names_are_known_by_their_full_form() -> None:
    assert (THING.fullname, THING.name) == ("x.Thing", "Thing")
    assert Schema.parse(THING.text).text == THING.text


# -- encoding


@pytest.mark.parametrize(("record", "back"), [(MINIMAL, COMPLETE), (FULL, FULL)])
def test_a_record_comes_back_with_its_defaults(record: dict[str, Any], back: dict[str, Any]) -> None:
    decoded = Decoder(THING.text, [THING]).decode(payload(THING, record))
    assert (decoded.name, decoded.record, decoded.unknown) == ("Thing", back, ())


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"at": datetime(2026, 1, 31)}, "Thing.at: is a time without zone"),  # noqa: DTZ001 -- what is refused
        ({"at": 7}, "Thing.at: is not a time"),
        ({"day": MOMENT}, "Thing.day: is not int (date)"),
        ({"id": None}, "Thing.id: is not a string"),
        ({"id": "\ud800"}, "Thing.id: is not UTF-8"),
        ({"count": True}, "Thing.count: is not int"),
        ({"count": 2**31}, "Thing.count: is beyond int"),
        ({"size": 1.0}, "Thing.size: is not long"),
        ({"done": 1}, "Thing.done: is not boolean"),
        ({"colour": "PINK"}, "Thing.colour: is not a symbol of the enum"),
        ({"colour": []}, "Thing.colour: is not a symbol of the enum"),
        ({"notes": "ab"}, "Thing.notes: is not an array"),
        ({"notes": [{"text": "a"}, {"text": 7}]}, "Thing.notes[1].text: is not a string"),
        ({"first": {"by": "a"}}, "Thing.first: has no text"),
        ({"first": []}, "Thing.first: is not a record"),
        ({"secret": 7}, "Thing: has a field its schema has not"),
    ],
)
def test_what_does_not_fit_is_told_with_its_path(changes: dict[str, Any], path: str) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        Encoder(THING, 1).encode(MINIMAL | changes)
    assert str(refused.value) == path


@settings(max_examples=200)
@given(strategies.values(THING.record))
def test_every_record_is_written_and_read_back_or_refused(record: dict[str, Any]) -> None:
    try:
        data = payload(THING, record)
    except ValueError as refused:
        assert "UTF-8" in str(refused)  # noqa: PT017 -- either outcome is right
    else:
        assert Decoder(THING.text, [THING]).decode(data).record == record


# -- decoding


@settings(max_examples=300)
@given(st.binary(max_size=60))
def test_any_bytes_are_a_record_or_undecodable(data: bytes) -> None:
    try:
        Decoder(THING.text, [THING]).decode(data)
    except Undecodable as refused:
        assert refused.reason == "malformed"  # noqa: PT017 -- either outcome is right


@given(st.integers(0, 40))
def test_truncated_and_overlong_records_are_malformed(cut: int) -> None:
    data = payload(THING, FULL)
    decoder = Decoder(THING.text, [THING])
    assert undecodable(decoder, data[: cut % len(data)]) == "malformed"
    assert undecodable(decoder, data + b"\x00" * (cut + 1)) == "malformed"


def test_a_record_that_ends_too_early_is_told_as_such() -> None:
    writer = schema({"name": "text", "type": "string"})
    with pytest.raises(Undecodable) as refused:
        Decoder(writer.text, [writer]).decode(b"\x14abc")
    assert refused.value.detail == "not what its schema says: it ends within a value"


def test_a_string_longer_than_its_bytes_is_malformed() -> None:
    assert undecodable(Decoder(THING.text, [THING]), b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f") == "malformed"


@pytest.mark.parametrize(
    "count", [b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"]
)
def test_an_array_that_claims_to_be_endless_is_malformed(count: bytes) -> None:
    numbers = schema({"name": "a", "type": {"type": "array", "items": "int"}})
    assert undecodable(Decoder(numbers.text, [numbers]), count) == "malformed"


@pytest.mark.parametrize("text", ["", '"string"', '{"type": "record", "name": "x.Thing"}'])
def test_a_writer_schema_we_cannot_read_with(text: str) -> None:
    with pytest.raises(Undecodable) as refused:
        Decoder(text, [THING])
    assert refused.value.reason == "bad-schema"


@pytest.mark.parametrize("name", ["x.Other", "y.Thing", "Thing"])
def test_a_record_that_is_not_ours(name: str) -> None:
    with pytest.raises(Undecodable) as refused:
        Decoder(text_of(*FIELDS, name=name), [THING])
    assert refused.value.reason == "unknown-record"
    assert refused.value.detail == f"{name} is none of x.Thing"


def test_the_same_schema_in_another_spelling_reads_the_same() -> None:
    spelled = json.dumps(json.loads(THING.text), indent=4)
    assert Decoder(spelled, [THING]).decode(payload(THING, FULL)).record == FULL


def test_an_older_producer_is_read_with_our_defaults() -> None:
    older = schema(*FIELDS[:2])
    decoded = Decoder(older.text, [THING]).decode(payload(older, MINIMAL))
    assert (decoded.record, decoded.unknown) == (COMPLETE, ())


def test_a_symbol_of_a_newer_producer_is_the_default() -> None:
    newer = changed("colour", type=["null", COLOUR | {"symbols": ["PINK", "UNKNOWN"]}])
    decoded = Decoder(newer.text, [THING]).decode(payload(newer, MINIMAL | {"colour": "PINK"}))
    assert decoded.record["colour"] == "UNKNOWN"


NEWER_NOTE = NOTE | {"fields": [*NOTE["fields"], {"name": "mood", "type": ["null", "string"], "default": None}]}
NEWER = schema(
    *(
        {**field, "type": {"type": "array", "items": NEWER_NOTE}} if field["name"] == "notes" else field
        for field in FIELDS
    ),
    {"name": "urgent", "type": "boolean", "default": False},
    {"name": "tags", "type": {"type": "array", "items": "string"}, "default": []},
    {"name": "due", "type": ["null", TIME], "default": None},
    {"name": "origin", "type": {**NOTE, "name": "Origin", "fields": NOTE["fields"][1:]}, "default": {}},
)


@pytest.mark.parametrize(
    ("changes", "unknown"),
    [
        ({}, ()),
        ({"urgent": False, "tags": [], "due": None}, ()),
        ({"urgent": True}, ("urgent",)),
        ({"tags": ["x"], "due": MOMENT}, ("tags", "due")),
        ({"notes": [{"text": "a"}, *({"text": "b", "mood": "bad"} for _ in range(3))]}, ("notes[1].mood",)),
        ({"first": {"text": "a", "mood": "good"}}, ("first.mood",)),
        ({"origin": {"by": "me"}}, ("origin",)),
    ],
)
def test_fields_of_a_newer_producer_are_named_if_they_carry_something(
    changes: dict[str, Any], unknown: tuple[str, ...]
) -> None:
    data = payload(NEWER, MINIMAL | changes)
    decoded = Decoder(NEWER.text, [THING]).decode(data)
    assert sorted(decoded.unknown) == sorted(unknown)
    assert "urgent" not in decoded.record
    assert Decoder(NEWER.text, [THING], unknown_fields=UnknownFields.IGNORE).decode(data).unknown == ()


def logical(kind: str, name: str, **more: int) -> dict[str, Any]:
    return {"type": kind, "logicalType": name} | more


def fixed(size: int, **more: Any) -> dict[str, Any]:
    return {"type": "fixed", "name": "Bits", "size": size} | more


PLACE = {
    "type": "record",
    "name": "Place",
    "fields": [{"name": "x", "type": "int", "default": 1}, {"name": "y", "type": TIME}],
}
EPOCH_7 = datetime(1970, 1, 1, 0, 0, 0, 7000, tzinfo=UTC)
LOCAL_7, LOCAL = (moment.replace(tzinfo=None) for moment in (EPOCH_7, MOMENT))


@pytest.mark.parametrize(
    ("kind", "default", "same", "another"),
    [
        pytest.param(TIME, 86_400_005, datetime(1970, 1, 2, 0, 0, 0, 5000, tzinfo=UTC), MOMENT, id="time"),
        pytest.param(logical("int", "date"), 1, date(1970, 1, 2), MOMENT.date(), id="date"),
        pytest.param(
            logical("long", "timestamp-micros"), 7, datetime(1970, 1, 1, 0, 0, 0, 7, UTC), MOMENT, id="micros"
        ),
        pytest.param(logical("long", "local-timestamp-millis"), 7, LOCAL_7, LOCAL, id="local"),
        pytest.param(logical("long", "local-timestamp-micros"), 7_000, LOCAL_7, LOCAL, id="local micros"),
        pytest.param(logical("int", "time-millis"), 7, time(0, 0, 0, 7000), time(1), id="time of day"),
        pytest.param(logical("long", "time-micros"), 7, time(0, 0, 0, 7), time(1), id="time of day, micros"),
        pytest.param("bytes", "\xff", b"\xff", b"\xfe", id="bytes"),
        pytest.param(
            logical("bytes", "decimal", precision=4, scale=2),
            "\x01\xc8",
            Decimal("4.56"),
            Decimal("4.57"),
            id="decimal",
        ),
        pytest.param(
            fixed(2, logicalType="decimal", precision=4, scale=2),
            "\x01\xc8",
            Decimal("4.56"),
            Decimal("4.57"),
            id="fixed decimal",
        ),
        pytest.param(fixed(2), "a\xff", b"a\xff", b"a\xfe", id="fixed"),
        pytest.param(fixed(12, logicalType="duration"), "\0" * 12, bytes(12), bytes(11) + b"1", id="duration"),
        pytest.param(logical("string", "uuid"), "7-7", "7-7", "8-8", id="uuid"),
        pytest.param("float", 0.1, 0.1, 0.2, id="float"),
        pytest.param("double", 0, 0.0, 0.1, id="double"),
        pytest.param({"type": "array", "items": "bytes"}, ["\xff"], [b"\xff"], [b"\xff", b"\xff"], id="array"),
        pytest.param({"type": "map", "values": "bytes"}, {"a": "\xff"}, {"a": b"\xff"}, {"b": b"\xff"}, id="map"),
        pytest.param(
            {"type": "map", "values": "bytes"}, {"a": "\xff"}, {"a": b"\xff"}, {"a": b"\xfe"}, id="map's value"
        ),
        pytest.param(PLACE, {"x": 2, "y": 7}, {"x": 2, "y": EPOCH_7}, {"x": 2, "y": MOMENT}, id="record"),
        pytest.param(PLACE, {"y": 7}, {"x": 1, "y": EPOCH_7}, {"x": 2, "y": EPOCH_7}, id="record that says some"),
        pytest.param(["bytes", "int"], "\xff", b"\xff", 7, id="union"),
        pytest.param([TIME, "null"], 7, EPOCH_7, MOMENT, id="or null"),
        pytest.param(TIME, 7, EPOCH_7, 2**62, id="time, another beyond the calendar"),
    ],
)
def test_an_unknown_field_that_has_its_default_carries_nothing_though_a_schema_spells_it_otherwise(
    kind: Any, default: Any, same: Any, another: Any
) -> None:
    newer = schema(*FIELDS, {"name": "extra", "type": kind, "default": default})
    decoder = Decoder(newer.text, [THING])
    assert decoder.decode(foreign(newer, MINIMAL | {"extra": same})).unknown == ()
    assert decoder.decode(foreign(newer, MINIMAL | {"extra": another})).unknown == ("extra",)


def test_an_unknown_field_without_a_default_that_is_null_carries_nothing() -> None:
    newer = schema(*FIELDS, {"name": "extra", "type": ["null", "string"]})
    decoder = Decoder(newer.text, [THING])
    assert decoder.decode(payload(newer, MINIMAL | {"extra": None})).unknown == ()
    assert decoder.decode(payload(newer, MINIMAL | {"extra": ""})).unknown == ("extra",)


def test_data_without_a_place_in_our_schema_is_unresolvable() -> None:
    looser = changed("id", type=["null", "string"])
    decoder = Decoder(looser.text, [THING])
    assert decoder.decode(payload(looser, MINIMAL)).record == COMPLETE
    with pytest.raises(Undecodable) as refused:
        decoder.decode(payload(looser, MINIMAL | {"id": None}))
    assert (refused.value.reason, refused.value.detail) == ("unresolvable", "Thing.id: null cannot become string")


UUID_ID = {"type": "string", "logicalType": "uuid"}


@pytest.mark.parametrize(
    ("writer", "written", "read"),
    [
        (changed("at", type="long"), {"at": 1_769_860_800_005}, {}),
        (changed("day", type=["null", "int"]), {"at": MOMENT, "day": 20512}, {"day": date(2026, 2, 28)}),
        (changed("at", type={"type": "long", "logicalType": "timestamp-micros"}), {"at": MOMENT}, {}),
        (changed("id", type=UUID_ID), {"id": "4F7C2D1E-0000-4000-8000-00000000000A"}, {}),
        (changed("id", type=UUID_ID), {"id": "none at all"}, {}),
        (
            changed("notes", type={"type": "array", "items": {**NOTE, "fields": [{"name": "text", "type": UUID_ID}]}}),
            {"notes": [{"text": "A"}]},
            {"notes": [{"text": "A", "by": None}]},
        ),
    ],
)
def test_what_a_producer_leaves_out_of_logical_types_is_as_our_schema_says(
    writer: Schema, written: dict[str, Any], read: dict[str, Any]
) -> None:
    expected = COMPLETE | {name: value for name, value in written.items() if name == "id"} | read
    assert Decoder(writer.text, [THING]).decode(foreign(writer, MINIMAL | written)).record == expected


@pytest.mark.parametrize(
    ("writer", "written", "detail"),
    [
        (
            changed("at", type={"type": "long", "logicalType": "local-timestamp-millis"}),
            {"at": datetime(2026, 1, 31)},  # noqa: DTZ001 -- what such a producer has
            "Thing.at: is a time without zone",
        ),
        (changed("at", type="int"), {"at": 1_769_860_800}, "Thing.at: is not a time"),
        (
            changed("at", type={"type": "int", "logicalType": "date"}),
            {"at": date(2026, 1, 31)},
            "Thing.at: is not a time",
        ),
        (changed("at", type="long"), {"at": 2**63 - 1}, "Thing.at: is a time beyond the years 1 to 9999"),
        (changed("day", type=["null", "int"]), {"day": 2**31 - 1}, "Thing.day: is a date beyond the years 1 to 9999"),
        (changed("size", type=["null", TIME]), {"size": MOMENT}, "Thing.size: is not long"),
        (schema(FIELDS[0]), {}, "Thing.at: not written, and has no default"),
        (changed("id", type="int"), {"id": 5}, "Thing.id: int cannot become string"),
    ],
)
def test_what_means_something_else_to_our_schema_is_unresolvable_and_named(
    writer: Schema, written: dict[str, Any], detail: str
) -> None:
    with pytest.raises(Undecodable) as refused:
        Decoder(writer.text, [THING]).decode(foreign(writer, MINIMAL | written))
    assert (refused.value.reason, refused.value.detail) == ("unresolvable", detail)


@pytest.mark.parametrize(
    ("changes", "written", "detail"),
    [
        ({}, {"at": 1_769_860_800_005_000}, "Thing.at: is a time beyond the years 1 to 9999"),
        ({}, {"at": 0, "day": 2**31 - 1}, "Thing.day: is a date beyond the years 1 to 9999"),
        ({}, {"at": 0, "day": 20_261_203}, "Thing.day: is a date beyond the years 1 to 9999"),
        ({}, {"at": 0, "day": -800_000}, "Thing.day: is a date beyond the years 1 to 9999"),
    ],
)
def test_a_time_beyond_the_calendar_is_malformed_and_its_field_named(
    changes: dict[str, Any], written: dict[str, Any], detail: str
) -> None:
    """As of a producer that takes microseconds for milliseconds, or 20261203 for a day."""
    writer = THING
    for name, kind in changes.items():
        writer = changed(name, type=kind)
    with pytest.raises(Undecodable) as refused:
        Decoder(writer.text, [THING]).decode(foreign(writer, MINIMAL | written))
    assert (refused.value.reason, refused.value.detail) == ("malformed", detail)


def counting(kind: str, *, first: bool = False) -> Schema:
    """With numbers of that type, in the order of our own schema unless they come `first`."""
    rest = [field for field in FIELDS if field["name"] != "count"]
    counts: list[dict[str, Any]] = [
        {"name": "count", "type": kind, "default": 0},
        {"name": "counts", "type": {"type": "array", "items": {"type": "map", "values": kind}}, "default": []},
    ]
    return schema(*counts, *rest) if first else schema(*rest, *counts)


@pytest.mark.parametrize(
    ("written", "detail"),
    [
        ({"count": 2**31}, "Thing.count: is beyond int"),
        ({"count": -(2**31) - 1}, "Thing.count: is beyond int"),
        ({"counts": [{"a": 1}, {"a": 2, "b": 2**40}]}, "Thing.counts[1]: is beyond int"),
    ],
)
@pytest.mark.parametrize("first", [False, True])
def test_a_number_beyond_its_type_is_malformed_and_its_field_named(
    *, first: bool, written: dict[str, Any], detail: str
) -> None:
    """As of a producer that writes any number as an int."""
    data = payload(counting("long", first=first), MINIMAL | written)
    with pytest.raises(Undecodable) as refused:
        Decoder(counting("int", first=first).text, [counting("int")]).decode(data)
    assert (refused.value.reason, refused.value.detail) == ("malformed", detail)


@pytest.mark.parametrize("rest", [b"", b"\x01", b"\x02\xff", b"\x00" * 4 + b"\x02\x99\x01"])
def test_a_time_beyond_the_calendar_may_be_followed_by_anything(rest: bytes) -> None:
    beyond = payload(schema({"name": "n", "type": "long"}), {"n": 2**62})
    with pytest.raises(Undecodable) as refused:
        Decoder(THING.text, [THING]).decode(b"\x021" + beyond + rest)
    assert (refused.value.reason, refused.value.detail) == ("malformed", "a time or date beyond the years 1 to 9999")


@pytest.mark.parametrize(
    ("changes", "written", "detail"),
    [
        ({}, {"id": b"caf\xe9"}, "Thing.id: is not UTF-8"),
        ({}, {"first": {"text": b"\xff", "by": None}}, "Thing.first.text: is not UTF-8"),
        ({}, {"notes": [{"text": b"a", "by": b"b"}, {"text": b"c", "by": b"\xff"}]}, "Thing.notes[1].by: is not UTF-8"),
        ({"id": {"type": "string", "logicalType": "uuid"}}, {"id": b"caf\xe9"}, "Thing.id: is not UTF-8"),
    ],
)
def test_a_text_that_is_not_utf_8_is_malformed_and_its_field_named(
    changes: dict[str, Any], written: dict[str, Any], detail: str
) -> None:
    """As of a producer whose language calls any bytes a text."""
    writer = THING
    for name, kind in changes.items():
        writer = changed(name, type=kind)
    as_bytes = Schema.parse(writer.text.replace('"string"', '"bytes"'))
    with pytest.raises(Undecodable) as refused:
        Decoder(writer.text, [THING]).decode(foreign(as_bytes, {"id": b"1", "at": MOMENT} | written))
    assert (refused.value.reason, refused.value.detail) == ("malformed", detail)


# -- compatibility


@pytest.mark.parametrize(
    ("reader", "problems"),
    [
        (changed("count", type="long"), []),
        (schema(*FIELDS[:2]), []),
        (schema({"name": "renamed", "aliases": ["id"], "type": "string"}, *FIELDS[1:]), []),
        (changed("id", type=["null", "string"]), []),
        (schema(*FIELDS, {"name": "more", "type": "int"}), ["Thing.more: not written, and has no default"]),
        (changed("id", type="int"), ["Thing.id: string cannot become int"]),
        (changed("size", type="long", default=0), ["Thing.size: null cannot become long"]),
        (changed("at", type="long"), ["Thing.at: long (timestamp-millis) would be read as long"]),
        (changed("id", type={"type": "string", "logicalType": "uuid"}), []),
        (
            changed("colour", type=["null", {"type": "enum", "name": "Colour", "symbols": ["RED"]}], default=None),
            ["Thing.colour: no default for the symbols GREEN, UNKNOWN"],
        ),
        (
            changed("colour", type=["null", {key: COLOUR[key] for key in COLOUR if key != "default"}], default=None),
            [],
        ),
        (
            changed("colour", type=["null", {**COLOUR, "name": "Tint"}], default=None),
            ["Thing.colour: enum x.Colour is not enum x.Tint"],
        ),
        (
            changed("notes", type={"type": "array", "items": {**NOTE, "fields": [{"name": "x", "type": "int"}]}}),
            [f"Thing.{path}.x: not written, and has no default" for path in ("notes[]", "first")],
        ),
        (
            changed("first", type=["null", {**NOTE, "fields": [{"name": "x", "type": "int"}], "name": "y.Note"}]),
            ["Thing.first.x: not written, and has no default"],
        ),
        (schema(*FIELDS, name="x.Other"), ["Other: record x.Thing is not record x.Other"]),
    ],
)
def test_what_a_reader_makes_of_what_thing_wrote(reader: Schema, problems: list[str]) -> None:
    assert compatibility(reader, THING) == problems


@pytest.mark.parametrize(
    ("ours", "theirs", "problems"),
    [
        ({"type": "map", "values": "long"}, {"type": "map", "values": "int"}, []),
        (
            {"type": "map", "values": "int"},
            {"type": "map", "values": "long"},
            ["Thing.a{}: long cannot become int"],
        ),
        ({"type": "array", "items": "int"}, {"type": "map", "values": "int"}, ["Thing.a: map cannot become array"]),
        (
            {"type": "fixed", "name": "Mark", "size": 8},
            {"type": "fixed", "name": "y.Mark", "size": 8},
            [],
        ),
        (
            {"type": "fixed", "name": "Mark", "size": 8},
            {"type": "fixed", "name": "Mark", "size": 9},
            ["Thing.a: fixed of another name or size"],
        ),
    ],
)
def test_what_a_reader_makes_of_types_that_thing_has_not(ours: Any, theirs: Any, problems: list[str]) -> None:
    reader, writer = schema({"name": "a", "type": ours}), schema({"name": "a", "type": theirs})
    assert compatibility(reader, writer) == problems


def test_full_transitive_compares_every_pair_both_ways() -> None:
    first = schema(*FIELDS[:2])
    second = schema(*FIELDS[:2], {"name": "x", "type": "int", "default": 0})
    third = schema(*FIELDS[:2], {"name": "x", "type": "string", "default": ""})
    assert full_transitive([first, second]) == []
    assert full_transitive([first, third]) == []
    assert full_transitive([second, first, third]) == [
        "version 1 cannot read version 3: Thing.x: string cannot become int",
        "version 3 cannot read version 1: Thing.x: int cannot become string",
    ]


kinds = st.recursive(
    st.sampled_from(["int", "long", "string", "boolean", "double", COLOUR, NOTE]),
    lambda inner: st.one_of(
        inner.filter(lambda kind: not isinstance(kind, list)).map(lambda kind: ["null", kind]),
        inner.map(lambda kind: {"type": "array", "items": kind}),
    ),
    max_leaves=3,
)


@settings(max_examples=300, deadline=None)
@given(kinds, kinds, st.data())
def test_what_is_called_compatible_is_read_by_fastavro(ours: Any, theirs: Any, data: st.DataObject) -> None:
    reader, writer = schema({"name": "a", "type": ours}), schema({"name": "a", "type": theirs})
    if compatibility(reader, writer):
        return
    record = data.draw(strategies.values(writer.record, st.text()))
    assert Decoder(writer.text, [reader]).decode(foreign(writer, record)).name == "Thing"


# -- the readable form


@given(strategies.values(THING.record, st.text()))
def test_the_readable_form_is_plain_json_and_comes_back(record: dict[str, Any]) -> None:
    assert from_json(THING, json.loads(json.dumps(to_json(THING, record)))) == record


def test_the_readable_form_of_times_and_dates() -> None:
    shown = to_json(THING, FULL)
    assert (shown["at"], shown["day"]) == ("2026-01-31T12:00:00.005Z", "2026-02-28")
    there = timezone(timedelta(hours=1))
    assert to_json(THING, {"at": datetime(2026, 1, 31, 13, tzinfo=there)})["at"] == "2026-01-31T12:00:00.000Z"
    assert from_json(THING, {"id": "1", "at": "2026-01-31T13:00:00.0057+01:00"}) == COMPLETE


def test_all_that_is_wrong_is_told_at_once() -> None:
    obj = {
        "at": "yesterday",
        "day": "31/01/2026",
        "count": 2**31,
        "size": "7",
        "done": 1,
        "colour": "PINK",
        "notes": [{"text": "a"}, {"by": 7, "txt": "b"}, {"text": "\ud800"}],
        "first": "x",
    }
    with pytest.raises(Refused) as refused:
        from_json(THING, obj)
    assert [str(problem) for problem in refused.value.problems] == [
        "id: is required",
        "at: not a time with zone such as 2026-01-31T12:00:00Z",
        "day: not a date such as 2026-01-31",
        "count: beyond int",
        "size: is not a whole number",
        "done: is not true or false",
        "colour: not one of RED, GREEN",
        "notes[1].text: is required",
        "notes[1].by: is not a text",
        "notes[1].txt: unknown field, is it text?",
        "notes[2].text: has half a character (a lone surrogate), which UTF-8 can't carry",
        "first: is not an object",
    ]


@pytest.mark.parametrize("moment", ["2026-01-31", "2026-01-31T12:00:00", "9999-12-31T23:59:59-01:00"])
def test_a_time_without_zone_or_beyond_the_calendar_is_no_time(moment: str) -> None:
    with pytest.raises(Refused, match="at: not a time"):
        from_json(THING, {"id": "1", "at": moment})


@pytest.mark.parametrize("obj", [None, [], "x", 7])
def test_what_is_no_object_is_no_record(obj: Any) -> None:
    with pytest.raises(Refused):
        from_json(THING, obj)


def test_our_schemas_are_those_fastavro_reads_without_parsing_again() -> None:
    assert fastavro.parse_schema(THING.parsed) is THING.parsed
