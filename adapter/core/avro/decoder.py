"""Decodes records, resolving the writer's schema into our record of the same name."""

import io
import json
from collections.abc import Callable, Iterable
from datetime import date, datetime, timedelta
from enum import StrEnum
from functools import cached_property
from itertools import repeat
from math import isclose
from typing import Any, Final

import fastavro

from adapter.core.avro.bulk import Bulk, Excess
from adapter.core.avro.check import Check, Misfit, bounds, checker
from adapter.core.avro.compatibility import compatibility
from adapter.core.avro.reader import compile_reader
from adapter.core.avro.schema import Array, Field, Map, Primitive, Record, Schema, Type, Union, optional
from adapter.core.errors import Undecodable
from adapter.core.immutable import immutable
from adapter.core.instant import EPOCH

REASONS: Final = frozenset(
    {
        "null-value",  # a tombstone
        "empty",  # no bytes
        "unframed",  # not the Confluent wire format
        "truncated",  # ends within the five bytes of the frame
        "bad-schema",  # the writer's schema is invalid, or beyond our limits
        "unknown-record",  # the writer's schema is of another record than those we read
        "malformed",  # the bytes do not match the writer's schema, or there are more of them
        "unresolvable",  # the writer's data does not fit our schema, or our limits
    }
)
"""What Undecodable.reason may be."""
VALUE_LIMIT: Final = 500_000
"""Most values in the arrays and maps of a record. The longest document a supplier may send makes 340,000 of them."""


@immutable
class Decoded:
    name: str
    """The record's name without namespace."""

    record: dict[str, Any]
    unknown: tuple[str, ...]
    """Paths of fields that our schema lacks and that carry something other than their default; each once."""


class UnknownFields(StrEnum):
    """What to do with a field of a newer producer that our schema lacks."""

    REJECT = "reject"
    IGNORE = "ignore"


class Decoder:
    """Decodes records written with one schema of the registry into our record of the same name."""

    def __init__(
        self,
        writer_json: str,
        own_schemas: Iterable[Schema],
        *,
        unknown_fields: UnknownFields = UnknownFields.REJECT,
        most: int = VALUE_LIMIT,
    ) -> None:
        """Raises Undecodable: "bad-schema" or "unknown-record". `own_schemas` are the records we take, which may hold
        `most` values in arrays and maps.
        """
        own = {schema.fullname: schema for schema in own_schemas}
        same = next((schema for schema in own.values() if schema.text == writer_json), None)
        try:
            writer = same or Schema.parse(writer_json)
        except ValueError as error:
            raise Undecodable("bad-schema", str(error)) from None
        if writer.fullname not in own:
            raise Undecodable("unknown-record", f"{writer.fullname[:200]} is none of {', '.join(own)}")
        ours = own[writer.fullname]
        self.name = ours.name
        self._written = writer
        self._writer = writer.parsed
        self._bulk = Bulk(writer, most)
        self._harmless = self._bulk.harmless
        alike = writer.record == ours.record  # nothing to resolve: at most defaults and documentation differ
        self._reader = None if alike else ours.parsed
        self._compiled = compile_reader(ours) if alike else None
        breaches = [] if self._reader is None else compatibility(ours, writer)
        self._why = "; ".join(breaches)[:_DETAIL_LIMIT] or "the writer's data has no place in our schema"
        self._fit = _fitter(ours.record, writer.record) if breaches else None
        self._bounds = bounds(ours.record)
        rejects = unknown_fields is UnknownFields.REJECT and self._reader is not None
        self._collect_unknown = _unknown_fields(ours.record, writer.record) if rejects else None

    def decode(self, payload: bytes) -> Decoded:
        """Raises Undecodable: "malformed" or "unresolvable"."""
        if len(payload) > self._harmless:
            self._measure(payload)
        if self._compiled is not None and (record := self._compiled(payload)) is not None:
            return Decoded(self.name, record, ())
        unknown: list[str] = []
        if self._collect_unknown is not None:  # first, so that two copies of a long record never exist at once
            self._collect_unknown(self._read(payload, self._bare.parsed), "", unknown)
        try:
            record = self._read(payload, self._writer, self._reader)
            if self._fit is not None:
                record = self._fit(record)
        except Misfit as misfit:
            raise Undecodable("unresolvable", misfit.where(self.name)) from None
        except _RESOLUTION:
            raise Undecodable("unresolvable", self._why) from None
        if self._bounds is not None:
            try:
                self._bounds(record)
            except Misfit as misfit:
                raise Undecodable("malformed", misfit.where(self.name)) from None
        return Decoded(self.name, record, tuple(unknown))

    def _measure(self, payload: bytes) -> None:
        """Check the limits before decoding: a record of two megabytes may take hundreds in memory, or minutes."""
        try:
            self._bulk.check(payload)
        except Excess as excess:
            raise Undecodable("unresolvable", f"{self.name}.{excess}"[:_DETAIL_LIMIT]) from None
        except (IndexError, ValueError) as error:
            raise Undecodable("malformed", f"not what its schema says ({type(error).__name__})") from None

    def _read(self, payload: bytes, writer: Any, reader: Any = None) -> dict[str, Any]:
        source = io.BytesIO(payload)
        try:
            record = fastavro.schemaless_reader(source, writer, reader)
        except _RESOLUTION:
            raise
        except Exception as error:  # noqa: BLE001 -- fastavro documents none: IndexError, OverflowError, Unicode…
            raise Undecodable("malformed", self._fault(payload, error)) from None
        if source.tell() != len(payload):
            raise Undecodable("malformed", f"{len(payload) - source.tell()} bytes too many")
        assert isinstance(record, dict)
        return record

    def _fault(self, payload: bytes, error: Exception) -> str:
        """What is wrong. For a time beyond the calendar or a text that is not UTF-8 it names the path, which fastavro
        does not tell: it is found by decoding once more, with times as plain numbers and texts of any bytes.
        """
        if isinstance(error, OverflowError | ValueError) and self._fit_bare is not None:
            source, writer = io.BytesIO(payload), self._bare.parsed
            try:
                self._fit_bare(fastavro.schemaless_reader(source, writer, handle_unicode_errors="surrogateescape"))
            except Misfit as misfit:
                return misfit.where(self.name)[:_DETAIL_LIMIT]
            except Exception:  # noqa: BLE001, S110 -- broken bytes behind it
                pass
        if isinstance(error, OverflowError):
            return "a time or date beyond the years 1 to 9999"
        if isinstance(error, EOFError):
            return "not what its schema says: it ends within a value"
        return f"not what its schema says ({type(error).__name__})"

    @cached_property
    def _bare(self) -> Schema:
        """The writer's schema without logical types, so that values are read as they were written."""
        bare = json.loads(self._written.text, object_hook=_without_logical_types)
        return Schema.parse(json.dumps(bare, separators=(",", ":"), ensure_ascii=False))  # no longer than it was

    @cached_property
    def _fit_bare(self) -> "_Fit | None":
        """A function that applies the logical types to a record without; None if the schema has types that none of ours
        has.
        """
        try:
            return _fitter(self._written.record, self._bare.record)
        except ValueError:
            return None


def _without_logical_types(schema: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in schema.items() if name != "logicalType"}


_RESOLUTION: Final = fastavro.read.SchemaResolutionError
_DETAIL_LIMIT: Final = 500
"""Characters: a foreign schema may differ in much."""

_Collect = Callable[[Any, str, list[str]], None]
"""Adds the paths of unknown fields in a value, which is at that path, to the list."""


def _unknown_fields(ours: Type, theirs: Type) -> _Collect | None:
    """Collects fields of `theirs` that `ours` lacks and that carry a value; None if `theirs` has no such field."""
    ours, _ = optional(ours)
    theirs, _ = optional(theirs)
    match ours, theirs:
        case Record(), Record():
            return _unknown_in_records(ours, theirs)
        case (Array(our_item), Array(their_item)) | (Map(our_item), Map(their_item)):
            inner = _unknown_fields(our_item, their_item)
            return inner and _in_each(inner)
        case _:
            return None


def _unknown_in_records(ours: Record, theirs: Record) -> _Collect | None:
    known = {name: field for field in ours.fields for name in (field.name, *field.aliases)}
    unknown_here = [field for field in theirs.fields if field.name not in known]
    deeper = [
        (field.name, found)
        for field in theirs.fields
        if field.name in known and (found := _unknown_fields(known[field.name].type, field.type))
    ]
    if not unknown_here and not deeper:
        return None

    def collect(record: Any, path: str, unknown: list[str]) -> None:
        if not isinstance(record, dict):  # a null where null is allowed
            return
        unknown.extend(path + field.name for field in unknown_here if _carries(record.get(field.name), field))
        for name, found in deeper:
            found(record.get(name), f"{path}{name}.", unknown)

    return collect


def _in_each(inner: _Collect) -> _Collect:
    """Names a field by the first item that has it: a record may hold hundreds of thousands."""

    def collect(values: Any, path: str, unknown: list[str]) -> None:
        first: dict[str, str] = {}
        each = enumerate(values) if isinstance(values, list) else (values or {}).items()
        for place, value in each:
            found: list[str] = []
            inner(value, "", found)
            for name in found:
                first.setdefault(name, f"{path[:-1]}[{place}].{name}")
        unknown.extend(first.values())

    return collect


def _carries(value: Any, field: Field) -> bool:
    """Whether a value says anything. Null, an empty collection, the default, and a record of these alone do not."""
    if value is None or value in ([], {}) or _is_default(value, field.type, field.default):
        return False
    kind, _ = optional(field.type)
    return not isinstance(kind, Record) or any(_carries(value.get(inner.name), inner) for inner in kind.fields)


def _is_default(value: Any, kind: Type, default: Any) -> bool:
    """Whether a value without its logical type is what a schema's JSON gives as its default (Avro specification,
    "Complex Types"): bytes as text, of a record perhaps only some of its fields.
    """
    match kind, value, default:
        case Union(branches), _, _:
            return any(_is_default(value, branch, default) for branch in branches)
        case Record(), dict(), dict():
            return all(
                _is_default(value.get(field.name), field.type, default.get(field.name, field.default))
                for field in kind.fields
            )
        case Array(items), list(), list():
            return len(value) == len(default) and all(map(_is_default, value, repeat(items), default))
        case Map(values), dict(), dict():
            return value.keys() == default.keys() and all(
                _is_default(each, values, default[key]) for key, each in value.items()
            )
        case _, bytes(), _:
            return bool(value.decode("latin-1") == default)
        case Primitive("float"), float(), float():
            return isclose(value, default, rel_tol=2**-23)  # which has half the digits of JSON's
        case _:
            return bool(value == default)


_Fit = Callable[[Any], Any]


def _fitter(ours: Type, theirs: Type) -> _Fit:
    """A function that makes a value of our type of one that was written with other logical types. fastavro applies the
    writer's; by the specification ("Schema Resolution") a long without one is what the reader's schema says. The
    function raises Misfit for a value that our type does not have.
    """
    ours, nullable = optional(ours)
    theirs, _ = optional(theirs)
    match ours, theirs:
        case Record(), Record():
            fit = _fit_fields(ours, theirs)
        case Array(items), Array(their_items):
            fit = _fit_items(_fitter(items, their_items))
        case Primitive("long", "timestamp-millis"), Primitive("long", None):
            fit = _fit_time
        case Primitive("int", "date"), Primitive("int", None):
            fit = _fit_date
        case _:
            fit = _fit_checked(checker(ours))
    return _fit_or_null(fit) if nullable else fit


def _fit_fields(ours: Record, theirs: Record) -> _Fit:
    written = {field.name: field.type for field in theirs.fields}
    fits = [
        (field.name, _fitter(field.type, written[name]))
        for field in ours.fields
        for name in (field.name, *field.aliases)
        if name in written
    ]

    def fit(record: Any) -> Any:
        for name, each in fits:
            try:
                record[name] = each(record[name])
            except Misfit as misfit:
                misfit.path.append(name)
                raise
        return record

    return fit


def _fit_items(item: _Fit) -> _Fit:
    def fit(values: Any) -> Any:
        for place, value in enumerate(values):
            try:
                values[place] = item(value)
            except Misfit as misfit:
                misfit.path.append(f"[{place}]")
                raise
        return values

    return fit


def _fit_or_null(inner: _Fit) -> _Fit:
    return lambda value: None if value is None else inner(value)


def _fit_checked(check: Check) -> _Fit:
    def fit(value: Any) -> Any:
        check(value)
        return value

    return fit


def _fit_time(milliseconds: Any) -> datetime:
    try:
        return EPOCH + timedelta(milliseconds=milliseconds)
    except OverflowError:
        raise Misfit("is a time beyond the years 1 to 9999") from None


def _fit_date(days: Any) -> date:
    try:
        return EPOCH.date() + timedelta(days)
    except OverflowError:
        raise Misfit("is a date beyond the years 1 to 9999") from None
