"""A digest of a record's content, by Python source generated once per schema: a third of the time of a generic one.

Records with the same values have the same digest, whatever schema they were written with; others have another one.
Nulls, the default of a field that can't be null, and the order of fields do not count, so that a digest stays the same
when a later release adds a field.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from hashlib import blake2b
from itertools import count
from typing import Any

from adapter.core.avro.schema import Array, Enum, Primitive, Record, Schema, Type, optional
from adapter.core.generated import function
from adapter.core.instant import EPOCH, MILLISECOND

Digest = Callable[[Mapping[str, Any]], bytes]


def compile_digest(schema: Schema, aside: frozenset[str]) -> Digest:
    """A function for the digest, twelve bytes, of a record without its fields `aside`."""
    known = {"EPOCH": EPOCH, "MILLISECOND": MILLISECOND}
    content: Callable[[Mapping[str, Any]], list[str]] = function(
        source(schema, aside), name="content", title=f"content of {schema.fullname}", known=known
    )

    def digest(record: Mapping[str, Any]) -> bytes:
        parts = content(record)
        text = "\0".join(parts)
        if text.count("\0") >= len(parts):
            text = repr(parts)  # one of the texts has the separator in it; here it is escaped
        return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).digest()

    return digest


def source(schema: Schema, aside: frozenset[str]) -> str:
    """Python source of a function that lists a record's content as texts, unlike those of any other content: each value
    follows its field's name, its type determines how many texts it has, and an empty text, which is no name, ends a
    record.
    """
    fields = tuple(field for field in schema.record.fields if field.name not in aside)
    body = [f"    {line}" for line in _record(replace(schema.record, fields=fields), "record", count())]
    return "\n".join(["def content(record):", f"    parts = [{schema.name!r}]", *body, "    return parts", ""])


def _record(record: Record, name: str, numbers: Iterator[int]) -> Iterator[str]:
    for field in sorted(record.fields, key=lambda field: field.name):
        value = f"v{next(numbers)}"
        kind, nullable = optional(field.type)
        unsaid = "" if nullable or not _plain(field.default) else f" and {value} != {field.default!r}"
        yield f"{value} = {name}.get({field.name!r})"
        yield f"if {value} is not None{unsaid}:"
        yield f"    parts.append({field.name!r})"
        yield from (f"    {line}" for line in _value(kind, value, numbers))
    yield 'parts.append("")'


def _plain(default: Any) -> bool:
    """Whether the default is the same in the schema's JSON as in a record."""
    return isinstance(default, str | int | float) or default == []


def _value(kind: Type, name: str, numbers: Iterator[int]) -> Iterator[str]:
    match kind:
        case Primitive("string", None) | Enum():
            yield f"parts.append({name})"
        case Primitive("boolean", None):
            yield f'parts.append("true" if {name} else "false")'
        case Primitive("long", "timestamp-millis"):
            yield f"parts.append(str(({name} - EPOCH) // MILLISECOND))"
        case Primitive("int", "date"):
            yield f"parts.append(str({name}.toordinal()))"
        case Array(items):
            item = f"v{next(numbers)}"
            yield f"parts.append(str(len({name})))"
            yield f"for {item} in {name}:"
            yield from (f"    {line}" for line in _value(items, item, numbers))
        case Record():
            yield from _record(kind, name, numbers)
        case _:
            yield f"parts.append(repr({name}))"
