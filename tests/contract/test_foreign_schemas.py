"""Commands written by other schemas than ours: whatever a producer makes of a field, its command is sent, refused or a
dead letter, and breaks neither reading nor writing.
"""

import io
import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import fastavro
import pytest

from adapter.core.avro import Decoder
from adapter.core.avro.readable import from_json
from adapter.core.errors import Refused, Undecodable
from tests.contract.test_mapping import GOLDEN, VALUES, every_operation
from tests.support.known import known

MOMENT = datetime(2026, 1, 31, 12, tzinfo=UTC)
OTHERS: list[tuple[Any, Any]] = [
    ("long", 1_769_860_800_005),
    ("long", 2**62),
    ("int", 20_000),
    ("double", 0.5),
    ("boolean", True),
    ("bytes", b"\xff"),
    ({"type": "string", "logicalType": "uuid"}, "none"),
    ({"type": "long", "logicalType": "timestamp-micros"}, MOMENT),
    ({"type": "long", "logicalType": "timestamp-nanos"}, 1_769_860_800_005_000_000),
    ({"type": "long", "logicalType": "local-timestamp-millis"}, MOMENT.replace(tzinfo=None)),
    ({"type": "int", "logicalType": "date"}, date(2026, 1, 31)),
    ({"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}, Decimal("1.50")),
    ({"type": "array", "items": "string"}, ["x"]),
]


def leaves(schema: dict[str, Any], record: dict[str, Any]) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Every field that is no record, with the parts of the command that have it: one type may be in several places."""
    for field in schema["fields"]:
        kinds = field["type"] if isinstance(field["type"], list) else [field["type"]]
        inner = next((kind for kind in kinds if isinstance(kind, dict) and kind["type"] == "record"), None)
        if inner is None:
            if places := list(parts(record, {each["name"] for each in schema["fields"]})):
                yield field, places
        else:
            yield from leaves(inner, record)


def parts(value: Any, names: set[str]) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if value.keys() == names:
            yield value
        for each in value.values():
            yield from parts(each, names)


@every_operation
@pytest.mark.parametrize("nullable", [False, True])
def test_a_field_of_another_type_breaks_nothing(name: str, *, nullable: bool) -> None:
    made = known().operations[name]
    theirs: dict[str, Any] = json.loads(made.command.text)
    full = GOLDEN / name / "full" / "command.json"
    record = from_json(made.command, json.loads(full.read_text(encoding="utf-8")))
    sent = 0
    for field, places in leaves(theirs, record):
        ours, value = field.copy(), places[0][field["name"]]
        for kind, written in OTHERS:
            field.pop("default", None)
            field["type"] = ["null", kind] if nullable else kind
            for place in places:
                place[field["name"]] = written
            out = io.BytesIO()
            fastavro.schemaless_writer(out, fastavro.parse_schema(theirs, named_schemas={}, _force=True), record)
            with suppress(Undecodable, Refused):
                decoded = Decoder(json.dumps(theirs), [made.command]).decode(out.getvalue())
                made.writer.write(decoded.record, VALUES)
                sent += 1
        field.update(ours)
        for place in places:
            place[field["name"]] = value
    assert sent
