"""A command to fill in, made from its schema: what is required has a sample, the rest is null, empty or its default."""

from collections.abc import Collection
from datetime import datetime
from typing import Any

from adapter.core.avro import Schema
from adapter.core.avro.schema import NONE, Array, Enum, Field, Primitive, Record, Type, optional
from adapter.core.instant import utc


def example(schema: Schema, *, without: Collection[str], now: datetime) -> dict[str, Any]:
    """A record of `schema` in readable JSON, except for some fields of the envelope that `adapter send` fills in."""
    return {
        "command": schema.name,
        **{field.name: _of(field, now) for field in schema.record.fields if field.name not in without},
    }


def _of(field: Field, now: datetime) -> Any:
    kind, nullable = optional(field.type)
    if isinstance(kind, Array):
        return []
    if nullable and (not isinstance(kind, Record) or _demands(kind)):
        return None
    if isinstance(kind, Primitive) and field.default is not NONE:
        return field.default
    return _sample(kind, now)


def _demands(record: Record) -> bool:
    """Whether an optional part has required content, so that it can't be given empty."""
    return any(not optional(field.type)[1] for field in record.fields)


def _sample(kind: Type, now: datetime) -> Any:
    match kind:
        case Record(_, fields, _):
            return {field.name: _of(field, now) for field in fields}
        case Enum(_, symbols, default):
            return next(symbol for symbol in symbols if symbol != default)
        case Primitive("long", "timestamp-millis"):
            return utc(now)
        case Primitive("int", "date"):
            return now.date().isoformat()
        case Primitive("boolean"):
            return False
        case Primitive("int" | "long"):
            return 1
        case _:
            return "text"
