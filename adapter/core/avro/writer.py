"""A writer of one schema as Python source, made once: it takes a third of the time of a writer that consults the schema
as it goes, because events consist mostly of short texts and nulls.

It accepts what the strict checks (`check`) do. If it raises Unfit, they find out why.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime
from itertools import count
from typing import Any, Final

from adapter.core.avro.schema import (
    NONE,
    RANGES,
    Array,
    Enum,
    Map,
    Primitive,
    Record,
    Schema,
    Type,
    Union,
    is_null,
    label,
)
from adapter.core.generated import function
from adapter.core.instant import EPOCH


class Unfit(Exception):  # noqa: N818 -- named for what it says
    """Not a record that the compiled writer writes."""


Write = Callable[[Mapping[str, Any], bytes], bytes]
"""The record's bytes behind a prefix. Raises Unfit."""


def compile_writer(schema: Schema) -> Write:
    """Raises ValueError for types that no record of ours has (unions of several types, floats…)."""
    known = {
        "Unfit": Unfit,
        "SHORT": _SHORT,
        "varint": _varint,
        "datetime": datetime,
        "date": date,
        "EPOCH": EPOCH,
    }
    write: Write = function(source(schema), name="write", title=f"writer of {schema.fullname}", known=known)
    return write


def source(schema: Schema) -> str:
    """The writer's Python source. Raises as `compile_writer`."""
    body = [f"    {line}" for line in _record(schema.record, "record", count())]
    return "\n".join(
        [
            "def write(record, prefix):",
            "    out = bytearray(prefix)",
            *body,
            "    return bytes(out)",
            "",
        ]
    )


def _varint(number: int) -> bytes:
    """Zig-zag, then seven bits a byte, least significant first (Avro specification, "Binary encoding")."""
    left = (number << 1) ^ (number >> 63)
    if 1 << 35 <= left < 1 << 42:  # a time of our days in milliseconds
        low, high = left & 0x1FFFFF, left >> 21
        return bytes(
            (
                low & 127 | 128,
                low >> 7 & 127 | 128,
                low >> 14 | 128,
                high & 127 | 128,
                high >> 7 & 127 | 128,
                high >> 14,
            )
        )
    out = bytearray()
    while left > 127:
        out.append(left & 127 | 128)
        left >>= 7
    out.append(left)
    return bytes(out)


_SHORT: Final = tuple(map(_varint, range(2048)))
"""Lengths, counts and small numbers, written."""


def _record(record: Record, name: str, numbers: Iterator[int]) -> Iterator[str]:
    fields = [(field, f"v{next(numbers)}") for field in record.fields]
    yield f"if type({name}) is not dict: raise Unfit"
    yield "try:"
    for field, value in fields:
        default = "" if field.default is None else f", {field.default!r}"
        found = f"[{field.name!r}]" if field.default is NONE else f".get({field.name!r}{default})"
        yield f"    {value} = {name}{found}"
    yield "except KeyError: raise Unfit from None"
    known = ", ".join(repr(field.name) for field, _ in fields)
    yield f"if len({name}) != {len(fields)} and not {{{known}}}.issuperset({name}): raise Unfit"
    for field, value in fields:
        yield from _value(field.type, value, numbers)


def _value(kind: Type, name: str, numbers: Iterator[int]) -> Iterator[str]:
    match kind:
        case Union((first, second)) if is_null(first):
            yield f'if {name} is None: out += b"\\x00"'
            plain, branch = second, "\\x02"
        case Union((first, second)) if is_null(second):
            yield f'if {name} is None: out += b"\\x02"'
            plain, branch = first, "\\x00"
        case _:
            yield from _plain(kind, name, numbers)
            return
    yield "else:"
    yield f'    out += b"{branch}"'
    yield from (f"    {line}" for line in _plain(plain, name, numbers))


def _plain(kind: Type, name: str, numbers: Iterator[int]) -> Iterator[str]:  # noqa: C901 -- a table of cases
    match kind:
        case Primitive("string", None):
            yield from _text(name)
        case Primitive("bytes", None):
            yield f"if type({name}) is not bytes: raise Unfit"
            yield f"size = len({name})"
            yield f"out += SHORT[size] if size < {len(_SHORT)} else varint(size)"
            yield f"out += {name}"
        case Primitive("boolean", None):
            yield f"if type({name}) is not bool: raise Unfit"
            yield f'out += b"\\x01" if {name} else b"\\x00"'
        case Primitive("int" | "long" as width, None):
            lowest, highest = RANGES[width]
            yield f"if type({name}) is not int or not {lowest} <= {name} <= {highest}: raise Unfit"
            yield f"out += SHORT[{name}] if 0 <= {name} < {len(_SHORT)} else varint({name})"
        case Primitive("long", "timestamp-millis"):
            yield f"if type({name}) is not datetime or {name}.tzinfo is None: raise Unfit"
            yield f"delta = {name} - EPOCH"
            yield "out += varint((delta.days * 86400 + delta.seconds) * 1000 + delta.microseconds // 1000)"
        case Primitive("int", "date"):
            yield f"if type({name}) is not date: raise Unfit"
            yield f"out += varint({name}.toordinal() - {EPOCH.toordinal()})"
        case Enum(_, symbols, _):
            places = {symbol: _varint(place) for place, symbol in enumerate(symbols)}
            yield f"if type({name}) is not str: raise Unfit"
            yield f"text = {places!r}.get({name})"
            yield "if text is None: raise Unfit"
            yield "out += text"
        case Array(items):
            item = f"v{next(numbers)}"
            yield f"if type({name}) is not list: raise Unfit"
            yield f"if {name}:"
            yield f"    out += varint(len({name}))"
            yield f"    for {item} in {name}:"
            yield from (f"        {line}" for line in _value(items, item, numbers))
            yield 'out += b"\\x00"'
        case Map(values):
            key, value = f"v{next(numbers)}", f"v{next(numbers)}"
            yield f"if type({name}) is not dict: raise Unfit"
            yield f"if {name}:"
            yield f"    out += varint(len({name}))"
            yield f"    for {key}, {value} in {name}.items():"
            yield from (f"        {line}" for line in (*_text(key), *_value(values, value, numbers)))
            yield 'out += b"\\x00"'
        case Record():
            yield from _record(kind, name, numbers)
        case _:
            raise ValueError(f"{label(kind)} is not written by an encoder")


def _text(name: str) -> Iterator[str]:
    yield f"if type({name}) is not str: raise Unfit"
    yield f"try: text = {name}.encode()"
    yield "except UnicodeEncodeError: raise Unfit from None"
    yield "size = len(text)"
    yield f"out += SHORT[size] if size < {len(_SHORT)} else varint(size)"
    yield "out += text"
