"""Bounds the number of values in a record from its bytes, before it is decoded: an empty text in a list takes one byte
encoded and dozens in memory, an item that holds only nulls takes none and hundreds, and the time to decode a decimal
grows with the square of its length.
"""

from collections.abc import Callable, Iterator
from typing import Final

from adapter.core.avro.reader import number
from adapter.core.avro.schema import Array, Enum, Fixed, Map, Primitive, Record, Schema, Type, Union, least

DECIMAL_LIMIT: Final = 256
"""Bytes of a decimal: six hundred digits."""


class Excess(Exception):  # noqa: N818 -- named for what it says
    """The record exceeds a limit; the message has the path and no value."""


class Bulk:
    """The check for records written with `schema`, which may hold `most` values in arrays and maps: every item counts
    with all that is in it, a union as its largest branch.
    """

    def __init__(self, schema: Schema, most: int) -> None:
        self.harmless = min(_harmless(schema.record, most), default=_ANY)
        """A record of at most so many bytes can't exceed a limit, and need not be checked."""
        self._most = most
        self._walk = _walker(schema.record, "")

    def check(self, payload: bytes) -> None:
        """Raises Excess, and IndexError or ValueError for bytes that are no such record."""
        self._walk(payload, 0, _Room(self._most))


_ANY: Final = 2**63


class _Room:
    __slots__ = ("left", "most")

    def __init__(self, most: int) -> None:
        self.left = self.most = most


_Walk = Callable[[bytes, int, _Room], int]
"""Takes the position where a value begins, returns the one where it ends: beyond the last byte if bytes are missing."""


def _harmless(kind: Type, most: int) -> Iterator[int]:
    """For each limit, the most bytes of a record that certainly does not exceed it."""
    match kind:
        case Primitive(_, "decimal") | Fixed(_, _, "decimal"):
            yield DECIMAL_LIMIT
        case Array(items):
            yield most * least(items) // _values(items)
            yield from _harmless(items, most)
        case Map(values):
            yield most * (1 + least(values)) // (1 + _values(values))
            yield from _harmless(values, most)
        case Record(_, fields, _):
            for field in fields:
                yield from _harmless(field.type, most)
        case Union(branches):
            for branch in branches:
                yield from _harmless(branch, most)
        case _:
            pass


def _values(kind: Type) -> int:
    """How many values one of that type is, without what its own arrays and maps hold."""
    match kind:
        case Record(_, fields, _):
            return 1 + sum(_values(field.type) for field in fields)
        case Union(branches):
            return max(_values(branch) for branch in branches)
        case _:
            return 1


def _walker(kind: Type, path: str) -> _Walk:  # noqa: C901 -- a table of cases
    match kind:
        case Primitive("null", _):
            return _over(0)
        case Primitive("boolean", _):
            return _over(1)
        case Primitive("float", _):
            return _over(4)
        case Primitive("double", _):
            return _over(8)
        case Primitive("int" | "long", _) | Enum():
            return _number
        case Primitive("bytes", "decimal"):
            return _decimal(path)
        case Primitive():
            return _text
        case Fixed(_, size, logical):
            return _excess(path) if logical == "decimal" and size > DECIMAL_LIMIT else _over(size)
        case Array(items):
            return _blocks(_walker(items, f"{path}[]"), least(items), _values(items), path)
        case Map(values):
            entry = _each([_text, _walker(values, f"{path}{{}}")])
            return _blocks(entry, 1 + least(values), 1 + _values(values), path)
        case Union(branches):
            return _branch([_walker(branch, path) for branch in branches])
        case Record(_, fields, _):
            return _each([_walker(field.type, f"{path}.{field.name}" if path else field.name) for field in fields])


def _over(size: int) -> _Walk:
    return lambda _, at, __: at + size


def _number(data: bytes, at: int, _: _Room) -> int:
    return number(data, at)[1]


def _text(data: bytes, at: int, _: _Room) -> int:
    size, at = number(data, at)
    if size < 0:
        raise ValueError
    return at + size


def _decimal(path: str) -> _Walk:
    too_long = _excess(path)

    def walk(data: bytes, at: int, room: _Room) -> int:
        size, begin = number(data, at)
        return _text(data, at, room) if size <= DECIMAL_LIMIT else too_long(data, begin, room)

    return walk


def _excess(path: str) -> _Walk:
    def walk(_: bytes, __: int, ___: _Room) -> int:
        raise Excess(f"{path}: a decimal of more than {DECIMAL_LIMIT} bytes")

    return walk


def _blocks(item: _Walk, size: int, values: int, path: str) -> _Walk:
    """Walks the blocks of an array or map whose items have at least `size` bytes and count as `values` values each."""

    def walk(data: bytes, at: int, room: _Room) -> int:
        while True:
            count, at = number(data, at)
            if not count:
                return at
            if count < 0:
                count = -count
                at = number(data, at)[1]  # how long the block is
            if count * size > len(data) - at:
                raise ValueError
            room.left -= count * values
            if room.left < 0:
                raise Excess(f"{path}: too many items, a record may hold {room.most} values in arrays and maps")
            for _ in range(count):
                at = item(data, at, room)

    return walk


def _branch(branches: list[_Walk]) -> _Walk:
    def walk(data: bytes, at: int, room: _Room) -> int:
        chosen, at = number(data, at)
        if chosen < 0:
            raise ValueError
        return branches[chosen](data, at, room)

    return walk


def _each(parts: list[_Walk]) -> _Walk:
    def walk(data: bytes, at: int, room: _Room) -> int:
        for part in parts:
            at = part(data, at, room)
        return at

    return walk
