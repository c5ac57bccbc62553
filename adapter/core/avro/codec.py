"""Records to and from bytes: the Confluent wire format, decoding with resolution, strict encoding."""

import io
import json
import struct
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from functools import cached_property
from typing import Any, Final

import fastavro

from adapter.core.avro.bulk import Bulk, Excess
from adapter.core.avro.compatibility import compatibility
from adapter.core.avro.reader import compile_reader
from adapter.core.avro.schema import (
    NONE,
    Array,
    Enum,
    Field,
    Fixed,
    Map,
    Primitive,
    Record,
    Schema,
    Type,
    Union,
    label,
    optional,
)
from adapter.core.avro.writer import Unfit, compile_writer
from adapter.core.errors import Undecodable
from adapter.core.immutable import immutable

REASONS: Final = frozenset(
    {
        "null-value",  # a tombstone
        "empty",  # no bytes
        "unframed",  # not the Confluent wire format
        "truncated",  # ends within the five bytes of the frame
        "bad-schema",  # the writer's schema is none we would read with
        "unknown-record",  # the writer's schema is of a record we do not take
        "malformed",  # bytes that are not what the writer's schema says, or more of them
        "unresolvable",  # the writer's data has no place in our schema, or is more than we take
    }
)
"""What Undecodable.reason may be."""
VALUE_LIMIT: Final = 500_000
"""Values in the arrays and maps of a record. The longest document a supplier may send makes 340,000 of a ticket."""
NOT_OURS: Final = frozenset({"null-value", "empty", "unframed", "truncated"})
"""Those that tell of bytes no release of ours has written. Whatever else can't be read in a topic of our own may be
ours: it is then the registry that has not, or no longer, what was written with.
"""

_MARKS: Final = {
    b"{": "JSON",
    b"<": "XML",
    b"Obj\x01": "a file of Avro",
    b"\xc3\x01": "Avro's single-object encoding",
    b"\x03": "the framing of AWS Glue",
    b"\x01": "a schema's GUID instead of its id",
}
"""How what others write begins."""


def unframe(value: bytes | None) -> tuple[int, bytes]:
    """Schema id and payload of a record value in the Confluent wire format (zero byte, four bytes of id)."""
    if value is None:
        raise Undecodable("null-value", "a record without a value")
    if not value:
        raise Undecodable("empty", "a value of no bytes")
    if value[0] != 0:
        looks = next((f"; it may be {what}" for mark, what in _MARKS.items() if value.startswith(mark)), "")
        raise Undecodable("unframed", f"the first byte is not zero{looks}")
    if len(value) < _FRAME.size:
        raise Undecodable("truncated", f"{len(value)} bytes, the frame alone has {_FRAME.size}")
    identifier = _FRAME.unpack_from(value)[1]
    if identifier < 0:  # a registry that is asked for such a one answers as if it were not there
        raise Undecodable("unframed", "an id of a schema is not negative")
    return identifier, value[_FRAME.size :]


def frame(schema_id: int, payload: bytes) -> bytes:
    return _FRAME.pack(0, schema_id) + payload


@immutable
class Decoded:
    name: str
    """The record's name without namespace."""

    record: dict[str, Any]
    unknown: tuple[str, ...]
    """Paths of fields that the writer has, we have not, and that carry something else than their default; each once."""


class UnknownFields(StrEnum):
    """What is done with a field of a newer producer that we do not know."""

    REJECT = "reject"
    IGNORE = "ignore"


class Decoder:
    """Decodes what was written with one schema of the registry into the record of ours that has its name."""

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
        alike = writer.record == ours.record  # nothing to resolve, as with most schemas that only look like others
        self._reader = None if alike else ours.parsed
        self._compiled = compile_reader(ours) if alike else None
        breaches = [] if self._reader is None else compatibility(ours, writer)
        self._why = "; ".join(breaches)[:_DETAIL_LIMIT] or "the writer's data has no place in our schema"
        self._fit = _fitter(ours.record, writer.record) if breaches else None
        strangers = unknown_fields is UnknownFields.REJECT and self._reader is not None
        self._strangers = _strangers(ours.record, writer.record) if strangers else None

    def decode(self, payload: bytes) -> Decoded:
        """Raises Undecodable: "malformed" or "unresolvable"."""
        if len(payload) > self._harmless:
            self._measure(payload)
        if self._compiled is not None and (record := self._compiled(payload)) is not None:
            return Decoded(self.name, record, ())
        unknown: list[str] = []
        if self._strangers is not None:  # first, so that never two copies of a long record are there at once
            self._strangers(self._read(payload, None), "", unknown)
        try:
            record = self._read(payload, self._reader)
            if self._fit is not None:
                record = self._fit(record)
        except _Misfit as misfit:
            raise Undecodable("unresolvable", misfit.where(self.name)) from None
        except _RESOLUTION:
            raise Undecodable("unresolvable", self._why) from None
        return Decoded(self.name, record, tuple(unknown))

    def _measure(self, payload: bytes) -> None:
        """Before anything is made of it: a record of two megabytes may take hundreds in memory, or minutes."""
        try:
            self._bulk.check(payload)
        except Excess as excess:
            raise Undecodable("unresolvable", f"{self.name}.{excess}"[:_DETAIL_LIMIT]) from None
        except (IndexError, ValueError) as error:
            raise Undecodable("malformed", f"not what its schema says ({type(error).__name__})") from None

    def _read(self, payload: bytes, reader: Any) -> dict[str, Any]:
        source = io.BytesIO(payload)
        try:
            record = fastavro.schemaless_reader(source, self._writer, reader)
        except _RESOLUTION:
            raise
        except Exception as error:  # noqa: BLE001 -- fastavro documents none: IndexError, OverflowError, Unicode…
            raise Undecodable("malformed", self._fault(payload, error)) from None
        if source.tell() != len(payload):
            raise Undecodable("malformed", f"{len(payload) - source.tell()} bytes too many")
        assert isinstance(record, dict)
        return record

    def _fault(self, payload: bytes, error: Exception) -> str:
        """What is wrong, with the path of a time that no calendar has or a text that is not UTF-8, which fastavro does
        not tell: found by reading bare numbers and any bytes.
        """
        if isinstance(error, OverflowError | ValueError) and self._bare is not None:
            bare, fit = self._bare
            try:
                fit(fastavro.schemaless_reader(io.BytesIO(payload), bare, handle_unicode_errors="surrogateescape"))
            except _Misfit as misfit:
                return misfit.where(self.name)[:_DETAIL_LIMIT]
            except Exception:  # noqa: BLE001, S110 -- broken bytes behind it
                pass
        if isinstance(error, OverflowError):
            return "a time or date beyond the years 1 to 9999"
        if isinstance(error, EOFError):
            return "not what its schema says: it ends within a value"
        return f"not what its schema says ({type(error).__name__})"

    @cached_property
    def _bare(self) -> "tuple[Any, _Fit] | None":
        """The writer's schema without logical types, and what puts them on again; None if it has types that none of
        our schemas has.
        """
        try:
            bare = Schema.parse(json.dumps(json.loads(self._written.text, object_hook=_without_logical_types)))
            return bare.parsed, _fitter(self._written.record, bare.record)
        except ValueError:
            return None


def _without_logical_types(schema: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in schema.items() if name != "logicalType"}


class Encoder:
    """Writes records of one schema. Missing fields take their default; nothing else is forgiven."""

    def __init__(self, schema: Schema, schema_id: int) -> None:
        self.schema = schema
        self._parsed = schema.parsed
        self._prefix = frame(schema_id, b"")
        self._check = _checker(schema.record)
        self._write = compile_writer(schema)

    def encode(self, record: Mapping[str, Any]) -> bytes:
        """Raises ValueError with the path of what does not fit; the value itself is never in the text."""
        if self._write is not None:
            try:
                return self._write(record, self._prefix)
            except Unfit:
                pass  # what is wrong, if anything is, says the check
        try:
            self._check(record)
        except _Misfit as misfit:
            raise ValueError(misfit.where(self.schema.name)) from None
        sink = io.BytesIO()
        sink.write(self._prefix)
        try:
            fastavro.schemaless_writer(sink, self._parsed, record)
        except (ValueError, TypeError, OverflowError) as error:
            raise ValueError(f"{self.schema.name}: cannot be written ({type(error).__name__})") from None
        return sink.getvalue()


_FRAME: Final = struct.Struct(">Bi")
_RESOLUTION: Final = fastavro.read.SchemaResolutionError
_DETAIL_LIMIT: Final = 500
"""Characters: a foreign schema may differ in much."""

_Strangers = Callable[[Any, str, list[str]], None]


def _strangers(ours: Type, theirs: Type) -> _Strangers | None:
    """Collects the paths of fields in `theirs` that `ours` lacks and that carry a value; None if there is none."""
    ours, _ = optional(ours)
    theirs, _ = optional(theirs)
    match ours, theirs:
        case Record(), Record():
            return _strange_fields(ours, theirs)
        case (Array(our_item), Array(their_item)) | (Map(our_item), Map(their_item)):
            inner = _strangers(our_item, their_item)
            return inner and _in_each(inner)
        case _:
            return None


def _strange_fields(ours: Record, theirs: Record) -> _Strangers | None:
    known = {name: field for field in ours.fields for name in (field.name, *field.aliases)}
    strange = [field for field in theirs.fields if field.name not in known]
    deeper = [
        (field.name, found)
        for field in theirs.fields
        if field.name in known and (found := _strangers(known[field.name].type, field.type))
    ]
    if not strange and not deeper:
        return None

    def collect(record: Any, path: str, unknown: list[str]) -> None:
        if not isinstance(record, dict):  # a null where null is allowed
            return
        unknown.extend(path + field.name for field in strange if _carries(record.get(field.name), field))
        for name, found in deeper:
            found(record.get(name), f"{path}{name}.", unknown)

    return collect


def _in_each(inner: _Strangers) -> _Strangers:
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
    """Nothing, an empty collection, the declared default and a record of nothing else carry nothing."""
    if value is None or value in ([], {}):
        return False
    kind, _ = optional(field.type)
    if isinstance(kind, Record):
        return any(_carries(value.get(inner.name), inner) for inner in kind.fields)
    return field.default is NONE or value != field.default


class _Misfit(Exception):  # noqa: N818 -- never leaves this module
    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what
        self.path: list[str] = []

    def where(self, record: str) -> str:
        return f"{'.'.join((record, *reversed(self.path))).replace('.[', '[')}: {self.what}"


_Check = Callable[[Any], None]

_Fit = Callable[[Any], Any]


def _fitter(ours: Type, theirs: Type) -> _Fit:
    """Makes ours of what was written under other logical types, which fastavro goes by: a long without one is what our
    schema says (Avro specification, "Schema Resolution"). Raises _Misfit for what is nothing of ours.
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
            fit = _fit_checked(_checker(ours))
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
            except _Misfit as misfit:
                misfit.path.append(name)
                raise
        return record

    return fit


def _fit_items(item: _Fit) -> _Fit:
    def fit(values: Any) -> Any:
        for place, value in enumerate(values):
            try:
                values[place] = item(value)
            except _Misfit as misfit:
                misfit.path.append(f"[{place}]")
                raise
        return values

    return fit


def _fit_or_null(inner: _Fit) -> _Fit:
    return lambda value: None if value is None else inner(value)


def _fit_checked(check: _Check) -> _Fit:
    def fit(value: Any) -> Any:
        check(value)
        return value

    return fit


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _fit_time(milliseconds: Any) -> datetime:
    try:
        return _EPOCH + timedelta(milliseconds=milliseconds)
    except OverflowError:
        raise _Misfit("is a time beyond the years 1 to 9999") from None


def _fit_date(days: Any) -> date:
    try:
        return _EPOCH.date() + timedelta(days)
    except OverflowError:
        raise _Misfit("is a date beyond the years 1 to 9999") from None


_PYTHON: Final = {
    "null": type(None),
    "boolean": bool,
    "float": float,
    "double": float,
    "bytes": bytes,
    "string": str,
}


def _checker(kind: Type) -> _Check:  # noqa: C901 -- a table of cases
    """What fastavro would take silently and should not: naive times, booleans as numbers, wrong names…"""
    match kind:
        case Primitive("long", "timestamp-millis" | "timestamp-micros"):
            return _check_time
        case Primitive("int", "date"):
            return _typed(date, kind)
        case Primitive("string", None):
            return _check_text
        case Primitive("int", None):
            return _number(-(2**31), 2**31 - 1, kind)
        case Primitive("long", None):
            return _number(-(2**63), 2**63 - 1, kind)
        case Primitive(name, None):
            return _typed(_PYTHON[name], kind)
        case Enum(_, symbols, _):
            return _one_of(frozenset(symbols))
        case Array(items):
            return _check_items(_checker(items))
        case Map(values):
            return _check_values(_checker(values))
        case Record():
            return _check_fields(kind)
        case Union(branches):
            rest, nullable = optional(kind)
            if nullable and not isinstance(rest, Union):
                return _or_null(_checker(rest))
            return _any_of(tuple(_checker(branch) for branch in branches), label(kind))
        case Fixed() | Primitive():
            raise ValueError(f"{label(kind)} is not written by this encoder")


def _check_time(value: Any) -> None:
    if not isinstance(value, datetime):
        raise _Misfit("is not a time")
    if value.tzinfo is None:  # fastavro would take it for UTC
        raise _Misfit("is a time without zone")


def _check_text(value: Any) -> None:
    if type(value) is not str:
        raise _Misfit("is not a string")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _Misfit("is not UTF-8") from None


def _typed(python: type, kind: Type) -> _Check:
    def check(value: Any) -> None:
        if type(value) is not python:  # exact: True is not 1, a datetime is not a date
            raise _Misfit(f"is not {label(kind)}")

    return check


def _number(lowest: int, highest: int, kind: Type) -> _Check:
    def check(value: Any) -> None:
        if type(value) is not int:
            raise _Misfit(f"is not {label(kind)}")
        if not lowest <= value <= highest:
            raise _Misfit(f"is beyond {label(kind)}")

    return check


def _one_of(symbols: frozenset[str]) -> _Check:
    def check(value: Any) -> None:
        if type(value) is not str or value not in symbols:
            raise _Misfit("is not a symbol of the enum")

    return check


def _check_items(item: _Check) -> _Check:
    def check(value: Any) -> None:
        if not isinstance(value, list | tuple):
            raise _Misfit("is not an array")
        for place, each in enumerate(value):
            try:
                item(each)
            except _Misfit as misfit:
                misfit.path.append(f"[{place}]")
                raise

    return check


def _check_values(inner: _Check) -> _Check:
    def check(value: Any) -> None:
        if not isinstance(value, Mapping) or not all(type(key) is str for key in value):
            raise _Misfit("is not a map")
        for each in value.values():
            inner(each)

    return check


def _check_fields(record: Record) -> _Check:
    checks = tuple((field.name, field.default is not NONE, _checker(field.type)) for field in record.fields)
    names = frozenset(name for name, _, _ in checks)

    def check(value: Any) -> None:
        if not isinstance(value, Mapping):
            raise _Misfit("is not a record")
        for name, may_miss, inner in checks:
            if name in value:
                try:
                    inner(value[name])
                except _Misfit as misfit:
                    misfit.path.append(name)
                    raise
            elif not may_miss:
                raise _Misfit(f"has no {name}")
        if not names.issuperset(value):
            raise _Misfit("has a field its schema has not")

    return check


def _or_null(inner: _Check) -> _Check:
    def check(value: Any) -> None:
        if value is not None:
            inner(value)

    return check


def _any_of(checks: tuple[_Check, ...], what: str) -> _Check:
    def check(value: Any) -> None:
        for each in checks:
            try:
                each(value)
            except _Misfit:
                continue
            return
        raise _Misfit(f"is not {what}")

    return check
