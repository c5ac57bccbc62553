"""Checks whether a value conforms to a type of our schemas, more strictly than fastavro does."""

from collections.abc import Callable
from datetime import date, datetime
from typing import Any

from adapter.core.avro.schema import (
    NONE,
    RANGES,
    Array,
    Enum,
    Map,
    Primitive,
    Record,
    Type,
    Union,
    label,
    optional,
)


class Misfit(Exception):  # noqa: N818 -- never leaves this package
    """What is wrong with a value; `path` is completed from the inside out while the exception propagates."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what
        self.path: list[str] = []

    def where(self, record: str) -> str:
        return f"{'.'.join((record, *reversed(self.path))).replace('.[', '[')}: {self.what}"


Check = Callable[[Any], None]


def checker(kind: Type) -> Check:  # noqa: C901 -- a table of cases
    """A check that also rejects what fastavro silently accepts: naive times, booleans as numbers, wrong names…"""
    match kind:
        case Primitive("long", "timestamp-millis"):
            return _check_time
        case Primitive("int", "date"):
            return _typed(date, kind)
        case Primitive("string", None):
            return _check_text
        case Primitive("int" | "long" as name, None):
            return _number(*RANGES[name], kind)
        case Primitive("boolean", None):
            return _typed(bool, kind)
        case Primitive("bytes", None):
            return _typed(bytes, kind)
        case Enum(_, symbols, _):
            return _one_of(frozenset(symbols))
        case Array(items):
            return _check_items(checker(items))
        case Map(values):
            return _check_values(checker(values))
        case Record():
            return _check_fields(kind)
        case Union((_, _)) if optional(kind)[1]:
            return _or_null(checker(optional(kind)[0]))
        case _:
            raise ValueError(f"{label(kind)} is not written by an encoder")


def bounds(kind: Type) -> Check | None:
    """A check of the numbers in a value alone, which fastavro reads whatever their size; None if there can be none."""
    kind, nullable = optional(kind)
    match kind:
        case Primitive("int" | "long", None):
            check: Check | None = checker(kind)
        case Array(items):
            check = (inner := bounds(items)) and _check_items(inner)
        case Map(values):
            check = (inner := bounds(values)) and _check_values(inner)
        case Record(_, fields, _):
            numbers = tuple((field.name, inner) for field in fields if (inner := bounds(field.type)))
            check = _check_some(numbers) if numbers else None
        case _:
            check = None
    return check and (_or_null(check) if nullable else check)


def _check_time(value: Any) -> None:
    if type(value) is not datetime:
        raise Misfit("is not a time")
    if value.tzinfo is None:  # fastavro would take it for UTC
        raise Misfit("is a time without zone")


def _check_text(value: Any) -> None:
    if type(value) is not str:
        raise Misfit("is not a string")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Misfit("is not UTF-8") from None


def _typed(python: type, kind: Type) -> Check:
    def check(value: Any) -> None:
        if type(value) is not python:  # exact: True is not 1, a datetime is not a date
            raise Misfit(f"is not {label(kind)}")

    return check


def _number(lowest: int, highest: int, kind: Type) -> Check:
    def check(value: Any) -> None:
        if type(value) is not int:
            raise Misfit(f"is not {label(kind)}")
        if not lowest <= value <= highest:
            raise Misfit(f"is beyond {label(kind)}")

    return check


def _one_of(symbols: frozenset[str]) -> Check:
    def check(value: Any) -> None:
        if type(value) is not str or value not in symbols:
            raise Misfit("is not a symbol of the enum")

    return check


def _check_items(item: Check) -> Check:
    def check(value: Any) -> None:
        if type(value) is not list:
            raise Misfit("is not an array")
        for place, each in enumerate(value):
            try:
                item(each)
            except Misfit as misfit:
                misfit.path.append(f"[{place}]")
                raise

    return check


def _check_values(inner: Check) -> Check:
    def check(value: Any) -> None:
        if type(value) is not dict:
            raise Misfit("is not a map")
        for key, each in value.items():
            _check_text(key)
            inner(each)

    return check


def _check_fields(record: Record) -> Check:
    checks = tuple((field.name, field.default is not NONE, checker(field.type)) for field in record.fields)
    names = frozenset(name for name, _, _ in checks)

    def check(value: Any) -> None:
        if type(value) is not dict:
            raise Misfit("is not a record")
        for name, may_miss, inner in checks:
            if name in value:
                try:
                    inner(value[name])
                except Misfit as misfit:
                    misfit.path.append(name)
                    raise
            elif not may_miss:
                raise Misfit(f"has no {name}")
        if not names.issuperset(value):
            raise Misfit("has a field its schema has not")

    return check


def _check_some(checks: tuple[tuple[str, Check], ...]) -> Check:
    def check(value: Any) -> None:
        for name, inner in checks:
            try:
                inner(value[name])
            except Misfit as misfit:
                misfit.path.append(name)
                raise

    return check


def _or_null(inner: Check) -> Check:
    def check(value: Any) -> None:
        if value is not None:
            inner(value)

    return check
