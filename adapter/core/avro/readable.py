"""Records as plain JSON that people write and read: times and dates in ISO 8601, unions without type names,
fields at their default may be left out.
"""

import difflib
import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any, Final

from adapter.core.avro.schema import (
    NONE,
    RANGES,
    Array,
    Enum,
    Field,
    Map,
    Primitive,
    Record,
    Schema,
    Type,
    label,
    optional,
)
from adapter.core.errors import Refused
from adapter.core.instant import utc
from adapter.core.operation import Problem


def from_json(schema: Schema, obj: Any) -> dict[str, Any]:
    """The record that `obj` (as json.loads gives it) describes, complete with defaults.

    Raises Refused with all problems, in dotted paths.
    """
    problems: list[Problem] = []
    record = _read(schema.record, obj, "", problems)
    if problems:
        raise Refused(*problems)
    assert isinstance(record, dict)
    return record


def to_json(schema: Schema, record: Any) -> dict[str, Any]:
    """`record` as json.dumps takes it: times as "2026-01-31T12:00:00.000Z", dates as "2026-01-31"."""
    shown = _show(schema.record, record)
    assert isinstance(shown, dict)
    return shown


def _read(kind: Type, value: Any, path: str, problems: list[Problem]) -> Any:  # noqa: C901 -- a table of cases
    kind, nullable = optional(kind)
    if value is None and nullable:
        return None
    match kind, value:
        case Record(), dict():
            return _read_record(kind, value, path, problems)
        case Array(items), list():
            return [_read(items, each, f"{path}[{place}]", problems) for place, each in enumerate(value)]
        case Map(values), dict():
            return {key: _read(values, each, f"{path}.{key}", problems) for key, each in value.items()}
        case Enum(_, symbols, default), str():
            if value in symbols:
                return value
            # The default stands for a symbol that a reader does not know; it is not meant to be written.
            problems.append(Problem(path, f"not one of {', '.join(each for each in symbols if each != default)}"))
            return None
        case Primitive("long", "timestamp-millis"), str():
            return _parsed(_time, value, path, "not a time with zone such as 2026-01-31T12:00:00Z", problems)
        case Primitive("int", "date"), str():
            return _parsed(date.fromisoformat, value, path, "not a date such as 2026-01-31", problems)
        case Primitive("int" | "long" as name, None), int() if not RANGES[name][0] <= value <= RANGES[name][1]:
            problems.append(Problem(path, f"beyond {name}"))
            return None
        case Primitive("string", None), str() if _SURROGATE.search(value):
            problems.append(Problem(path, "has half a character (a lone surrogate), which UTF-8 can't carry"))
            return None
        case Primitive(name, None), _ if type(value) is _JSON.get(name):
            return value
        case _:
            problems.append(Problem(path, "is required" if value is None else f"is not {_words(kind)}"))
            return None


_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_JSON: Final = {"boolean": bool, "int": int, "long": int, "string": str}
_WORDS: Final = {
    ("long", "timestamp-millis"): "a time such as 2026-01-31T12:00:00Z, in quotes",
    ("int", "date"): "a date such as 2026-01-31, in quotes",
    ("string", None): "a text",
    ("boolean", None): "true or false",
    ("int", None): "a whole number",
    ("long", None): "a whole number",
}


def _words(kind: Type) -> str:
    match kind:
        case Record():
            return "an object"
        case Enum(_, symbols, _):
            return f"one of {', '.join(symbols)}"
        case Primitive(name, logical):
            return _WORDS.get((name, logical), label(kind))
        case _:
            return f"an {label(kind)}" if isinstance(kind, Array) else label(kind)


def _read_record(kind: Record, value: dict[str, Any], path: str, problems: list[Problem]) -> dict[str, Any]:
    prefix = f"{path}." if path else ""
    record = {}
    for field in kind.fields:
        if field.name in value:
            record[field.name] = _read(field.type, value[field.name], prefix + field.name, problems)
        elif field.default is not NONE:
            record[field.name] = _default(field)
        else:
            problems.append(Problem(prefix + field.name, "is required"))
    for name in value:
        if name not in record and not any(field.name == name for field in kind.fields):
            near = difflib.get_close_matches(str(name), [field.name for field in kind.fields], n=1)
            problems.append(Problem(prefix + str(name)[:100], f"unknown field{f', is it {near[0]}?' if near else ''}"))
    return record


def _default(field: Field) -> Any:
    """Defaults are null, symbols, plain values and empty collections: Avro's JSON form of them is the value."""
    return list(field.default) if isinstance(field.default, list) else field.default


def _parsed(
    parse: Callable[[str], Any], value: str, path: str, fault: str, problems: list[Problem]
) -> datetime | date | None:
    try:
        parsed: datetime | date = parse(value)
    except (ValueError, OverflowError):
        problems.append(Problem(path, fault))
        return None
    return parsed


def _time(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("no zone")
    moment = moment.astimezone(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def _show(kind: Type, value: Any) -> Any:
    kind, _ = optional(kind)
    match kind, value:
        case _, None:
            return None
        case Record(_, fields, _), _:
            return {field.name: _show(field.type, value.get(field.name, _shown_default(field))) for field in fields}
        case Array(items), _:
            return [_show(items, each) for each in value]
        case Map(values), _:
            return {key: _show(values, each) for key, each in value.items()}
        case _, datetime():
            return utc(value)
        case _, date():
            return value.isoformat()
        case _:
            return value


def _shown_default(field: Field) -> Any:
    return None if field.default is NONE else field.default
