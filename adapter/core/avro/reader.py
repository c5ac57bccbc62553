"""A reader of one schema as Python source, made once: less than half the time of fastavro, which asks the schema about
every value and reads every byte through a file.

It reads what writers usually write. If it finds anything else (bytes missing or too many, a union branch that does not
exist, a number beyond its type, a time beyond the calendar, blocks with their size in front…) it returns None, and
fastavro decides what that is.
"""

from collections.abc import Callable, Iterator
from datetime import date, datetime
from itertools import count
from typing import Any, Final

from adapter.core.avro.schema import RANGES, Array, Enum, Map, Primitive, Record, Schema, Type, Union, is_null
from adapter.core.generated import function
from adapter.core.instant import EPOCH, MILLISECOND

Read = Callable[[bytes], dict[str, Any] | None]
"""The record in the bytes, which must be all of it; None: ask fastavro. Never allocates more than the bytes warrant."""


def compile_reader(schema: Schema) -> Read | None:
    """The reader; None if the schema has types that are not worth one (unions of several types, floats…)."""
    try:
        text = source(schema)
    except _Unread:
        return None
    known = {"number": number, "length": _length, "moment": _moment, "day": _day}
    read: Read = function(text, name="read", title=f"reader of {schema.fullname}", known=known)
    return read


def source(schema: Schema) -> str:
    """The reader's Python source. It need not ask whether bytes are left: a slice beyond the end is shorter, but `at`
    is beyond the end from then on, and every other look there an IndexError.
    """
    body = [f"        {line}" for line in _plain(schema.record, "record", count())]
    return "\n".join(
        [
            "def read(data):",
            "    at = 0",
            "    try:",
            *body,
            "    except (IndexError, ValueError, OverflowError): return None",
            "    return record if at == len(data) else None",
            "",
        ]
    )


class _Unread(Exception):  # noqa: N818 -- never leaves this module
    pass


_EPOCH_DAY: Final = EPOCH.toordinal()


def number(data: bytes, at: int) -> tuple[int, int]:
    """The number at `at` (Avro specification, "Binary encoding") and where it ends. Raises IndexError, and ValueError
    if it has more than 64 bits.
    """
    left = shift = 0
    while (byte := data[at]) > 127:
        left |= (byte & 127) << shift
        shift += 7
        at += 1
        if shift > 63:
            raise ValueError
    left |= byte << shift
    if left >> 64:
        raise ValueError
    return (left >> 1) ^ -(left & 1), at + 1


def _length(data: bytes, at: int) -> tuple[int, int]:
    """Twice the length or count at `at`, and where it ends. Raises as `number`, and ValueError if it is negative."""
    found, at = number(data, at)
    if found < 0:
        raise ValueError
    return found << 1, at


def _moment(data: bytes, at: int) -> tuple[datetime, int]:
    """Raises as `number`, and OverflowError beyond the calendar."""
    if len(data) - at > 5:
        a, b, c, d, e, f = data[at : at + 6]
        if a & b & c & d & e > 127 >= f and not a & 1:  # what six bytes have: the years 1970 to 2039
            left = a & 127 | (b & 127) << 7 | (c & 127) << 14 | (d & 127) << 21 | (e & 127) << 28 | f << 35
            return EPOCH + MILLISECOND * (left >> 1), at + 6
    found, at = number(data, at)
    return EPOCH + MILLISECOND * found, at


def _day(data: bytes, at: int) -> tuple[date, int]:
    """Raises as `number`, and OverflowError or ValueError beyond the calendar."""
    found, at = number(data, at)
    return date.fromordinal(_EPOCH_DAY + found), at


def _value(kind: Type, name: str, numbers: Iterator[int]) -> Iterator[str]:
    match kind:
        case Union((first, second)) if is_null(first):
            plain, null, branch = second, 0, 2
        case Union((first, second)) if is_null(second):
            plain, null, branch = first, 2, 0
        case _:
            yield from _plain(kind, name, numbers)
            return
    yield "branch = data[at]"
    yield "at += 1"
    yield f"if branch == {null}: {name} = None"
    yield f"elif branch == {branch}:"
    yield from (f"    {line}" for line in _plain(plain, name, numbers))
    yield "else: return None"


def _plain(kind: Type, name: str, numbers: Iterator[int]) -> Iterator[str]:  # noqa: C901 -- a table of cases
    match kind:
        case Primitive("string", None):
            yield from _slice(name, ".decode()")
        case Primitive("bytes", None):
            yield from _slice(name, "")
        case Primitive("boolean", None):
            yield "byte = data[at]"
            yield "at += 1"
            yield "if byte > 1: return None"
            yield f"{name} = byte == 1"
        case Primitive("int", None):
            yield f"{name}, at = number(data, at)"
            lowest, highest = RANGES["int"]
            yield f"if not {lowest} <= {name} <= {highest}: return None"
        case Primitive("long", None):
            yield f"{name}, at = number(data, at)"
        case Primitive("long", "timestamp-millis"):
            yield f"{name}, at = moment(data, at)"
        case Primitive("int", "date"):
            yield f"{name}, at = day(data, at)"
        case Enum(_, symbols, _):
            yield from _size()
            yield f"{name} = {symbols!r}[size >> 1]"
        case Array(items):
            item = f"v{next(numbers)}"
            yield f"{name} = []"
            yield from _blocks([*_value(items, item, numbers), f"{name}.append({item})"])
        case Map(values):
            key, value = f"v{next(numbers)}", f"v{next(numbers)}"
            yield f"{name} = {{}}"
            each = [*_slice(key, ".decode()"), *_value(values, value, numbers), f"{name}[{key}] = {value}"]
            yield from _blocks(each)
        case Record(_, fields, _):
            parts = [(field, f"v{next(numbers)}") for field in fields]
            for field, value in parts:
                yield from _value(field.type, value, numbers)
            yield f"{name} = {{{', '.join(f'{field.name!r}: {value}' for field, value in parts)}}}"
        case _:
            raise _Unread


def _size() -> Iterator[str]:
    """Lines that read a size that is not negative, doubled as Avro's zig-zag code has it. A byte with neither its first
    nor its last bit set is the whole number.
    """
    yield "size = data[at]"
    yield "if size & 129: size, at = length(data, at)"
    yield "else: at += 1"


def _slice(name: str, decoded: str) -> Iterator[str]:
    yield from _size()
    yield "end = at + (size >> 1)"
    yield f"{name} = data[at:end]{decoded}"
    yield "at = end"


def _blocks(item: list[str]) -> Iterator[str]:
    yield "while True:"
    yield from (f"    {line}" for line in _size())
    yield "    if not size: break"
    yield "    for _ in range(size >> 1):"
    yield from (f"        {line}" for line in item)
