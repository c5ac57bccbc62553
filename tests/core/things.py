"""What the tests of Avro read and write: a record with a field of most types, its schema and values, and our own
schemas."""

import io
import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import fastavro

from adapter.core.avro import Schema

TIME = {"type": "long", "logicalType": "timestamp-millis"}
COLOUR = {"type": "enum", "name": "Colour", "symbols": ["RED", "GREEN", "UNKNOWN"], "default": "UNKNOWN"}
NOTE = {
    "type": "record",
    "name": "Note",
    "fields": [
        {"name": "text", "type": "string"},
        {"name": "by", "type": ["null", "string"], "default": None},
    ],
}
FIELDS: list[dict[str, Any]] = [
    {"name": "id", "type": "string"},
    {"name": "at", "type": TIME},
    {"name": "day", "type": ["null", {"type": "int", "logicalType": "date"}], "default": None},
    {"name": "count", "type": "int", "default": 0},
    {"name": "size", "type": ["null", "long"], "default": None},
    {"name": "done", "type": "boolean", "default": False},
    {"name": "colour", "type": ["null", COLOUR], "default": None},
    {"name": "notes", "type": {"type": "array", "items": NOTE}, "default": []},
    {"name": "first", "type": ["null", "Note"], "default": None},
]
MOMENT = datetime(2026, 1, 31, 12, 0, 0, 5000, tzinfo=UTC)
MINIMAL: dict[str, Any] = {"id": "1", "at": MOMENT}
FULL: dict[str, Any] = {
    "id": "é\U0001f600",
    "at": MOMENT,
    "day": date(2026, 2, 28),
    "count": -5,
    "size": 2**40,
    "done": True,
    "colour": "GREEN",
    "notes": [{"text": "a", "by": None}, {"text": "b", "by": "me"}],
    "first": {"text": "c", "by": "you"},
}
COMPLETE = {
    "id": "1",
    "at": MOMENT,
    "day": None,
    "count": 0,
    "size": None,
    "done": False,
    "colour": None,
    "notes": [],
    "first": None,
}


def text_of(*fields: dict[str, Any], name: str = "x.Thing") -> str:
    return json.dumps({"type": "record", "name": name, "fields": list(fields)})


def schema(*fields: dict[str, Any], name: str = "x.Thing") -> Schema:
    return Schema.parse(text_of(*fields, name=name))


THING = schema(*FIELDS)


def changed(name: str, **changes: Any) -> Schema:
    return schema(*({**field, **changes} if field["name"] == name else field for field in FIELDS))


def foreign(schema: Schema, record: dict[str, Any]) -> bytes:
    """As another producer writes it: by the schema alone, without our strictness."""
    sink = io.BytesIO()
    fastavro.schemaless_writer(sink, schema.parsed, record)
    return sink.getvalue()


OURS = {
    path.stem: Schema.parse(path.read_text(encoding="utf-8"))
    for path in sorted((Path(__file__).parents[2] / "schemas/avro").glob("*/*.avsc"))
}
"""The schemas of the repository, by record."""
