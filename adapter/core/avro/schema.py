"""Avro schemas as values: parsed once, named types put in place of their names, faults told with their path. Types are
equal if they have the same values in the same bytes; what is said about them besides may differ.

Schemas from a registry are as foreign as records are, so what would make a reader run away is refused here:
huge or deeply nested text, types that contain themselves, array items of no size (a count of 2^60 costs
nothing to write).
"""

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import fastavro
from fastavro.schema import SchemaParseException, UnknownType

SIZE_LIMIT: Final = 512 * 1024
"""Characters of a schema's JSON text."""

NODE_LIMIT: Final = 20_000
"""Types in a schema after every name is replaced by what it stands for."""

DEPTH_LIMIT: Final = 40


@dataclass(frozen=True, slots=True)
class Primitive:
    """null, boolean, int, long, float, double, bytes or string; `logical` is its logical type, if any."""

    name: str
    logical: str | None = None


@dataclass(frozen=True, slots=True)
class Fixed:
    name: str
    size: int
    logical: str | None = None


@dataclass(frozen=True, slots=True)
class Enum:
    name: str
    symbols: tuple[str, ...]
    default: str | None = dataclasses.field(compare=False)


@dataclass(frozen=True, slots=True)
class Array:
    items: "Type"


@dataclass(frozen=True, slots=True)
class Map:
    values: "Type"


@dataclass(frozen=True, slots=True)
class Union:
    branches: tuple["Type", ...]


@dataclass(frozen=True, slots=True)
class Field:
    name: str
    type: "Type"
    default: Any = dataclasses.field(compare=False)
    """The default as the schema's JSON has it, or NONE."""

    aliases: frozenset[str] = dataclasses.field(compare=False)
    doc: str = dataclasses.field(compare=False)


@dataclass(frozen=True, slots=True)
class Record:
    name: str
    """Full name."""

    fields: tuple[Field, ...]
    doc: str = dataclasses.field(compare=False)


Type = Primitive | Fixed | Enum | Array | Map | Union | Record

RANGES: Final = {"int": (-(2**31), 2**31 - 1), "long": (-(2**63), 2**63 - 1)}
"""The least and the greatest number of each type."""

NONE: Final = object()
"""In Field.default: there is none."""


@dataclass(frozen=True, slots=True, eq=False)
class Schema:
    """A record schema."""

    fullname: str
    text: str
    """Compact JSON, as a registry gets it."""

    record: Record
    parsed: Any
    """What fastavro made of it."""

    @property
    def name(self) -> str:
        """The record's name without namespace: "AddFaultReport"."""
        return self.fullname.rpartition(".")[2]

    @classmethod
    def parse(cls, text: str) -> "Schema":
        """Raises ValueError, which says what is wrong, never RecursionError or MemoryError."""
        if len(text) > SIZE_LIMIT:
            raise ValueError(f"longer than {SIZE_LIMIT} characters")
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            raise ValueError("not a JSON document of reasonable depth") from None
        if not isinstance(document, dict) or document.get("type") != "record":
            raise ValueError("not a record")
        record = _Reader().type(document, namespace="", path="", depth=0)
        assert isinstance(record, Record)
        try:
            plain = json.loads(text, object_pairs_hook=_without_uuid)
            parsed = fastavro.parse_schema(plain, named_schemas={}, _force=True)
        except (SchemaParseException, UnknownType, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not an Avro schema: {str(error)[:200]}") from error
        compact = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
        return cls(fullname=record.name, text=compact, record=record, parsed=parsed)

    def fields(self) -> Mapping[str, Field]:
        return {field.name: field for field in self.record.fields}


def optional(kind: Type) -> tuple[Type, bool]:
    """The type without null, and whether null was allowed. A union of several other types is left as it is."""
    if isinstance(kind, Union):
        rest = tuple(branch for branch in kind.branches if not is_null(branch))
        if len(rest) < len(kind.branches):
            return (rest[0] if len(rest) == 1 else Union(rest)), True
    return kind, False


def is_null(kind: Type) -> bool:
    return isinstance(kind, Primitive) and kind.name == "null"


def least(kind: Type) -> int:
    """Bytes that a value has at least in Avro's binary form."""
    match kind:
        case Primitive(name, _):
            return _BYTES.get(name, 1)
        case Fixed(_, size, _):
            return size
        case Record(_, fields, _):
            return sum(least(field.type) for field in fields)
        case Union(branches):
            return 1 + min(least(branch) for branch in branches)
        case _:
            return 1


_BYTES: Final = {"null": 0, "float": 4, "double": 8}


def label(kind: Type) -> str:
    """The type's name for a message: "long (timestamp-millis)", "array", "record fault.command.X"."""
    match kind:
        case Primitive(name, logical):
            return f"{name} ({logical})" if logical else name
        case Fixed(name, _, _):
            return f"fixed {name}"
        case Enum(name, _, _):
            return f"enum {name}"
        case Array():
            return "array"
        case Map():
            return "map"
        case Union(branches):
            return " or ".join(label(branch) for branch in branches)
        case Record(name, _, _):
            return f"record {name}"


_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}(?:\.[A-Za-z_][A-Za-z0-9_]{0,199}){0,20}")
"""Avro specification, "Names"; that long is ours."""

_PRIMITIVES: Final = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})


class _Reader:
    """One pass over one schema document."""

    def __init__(self) -> None:
        self._named: dict[str, Type | None] = {}  # None: still being read, so a use of it is a recursion
        self._sizes: dict[int, int] = {}
        self._nodes = 0

    def type(self, source: Any, *, namespace: str, path: str, depth: int) -> Type:
        self._nodes += 1
        if depth > DEPTH_LIMIT or self._nodes > NODE_LIMIT:
            raise ValueError(f"{path}: too deep or too large")
        match source:
            case str() if source in _PRIMITIVES:
                return Primitive(source)
            case str():
                return self._reference(source, namespace, path)
            case list():
                branches = tuple(
                    self.type(branch, namespace=namespace, path=path, depth=depth + 1) for branch in source
                )
                if not branches or any(isinstance(branch, Union) for branch in branches):
                    raise ValueError(f"{path}: a union of nothing or of unions")
                return Union(branches)
            case {"type": str(kind)}:
                return self._complex(kind, source, namespace=namespace, path=path, depth=depth)
            case {"type": dict() | list() as inner}:
                return self.type(inner, namespace=namespace, path=path, depth=depth + 1)
            case _:
                raise ValueError(f"{path}: not a type")

    def _reference(self, name: str, namespace: str, path: str) -> Type:
        for full in (fullname(name, namespace), name):
            if full in self._named:
                found = self._named[full]
                if found is None:
                    raise ValueError(f"{path}: a type that contains itself is not taken")
                self._nodes += self._sizes[id(found)]
                if self._nodes > NODE_LIMIT:
                    raise ValueError(f"{path}: too large")
                return found
        raise ValueError(f"{path}: nothing declares the type {name[:200]}")

    def _complex(self, kind: str, source: dict[str, Any], *, namespace: str, path: str, depth: int) -> Type:
        if kind in _PRIMITIVES:
            return Primitive(kind, _logical(source))
        if kind == "array":
            items = self.type(source.get("items"), namespace=namespace, path=f"{path}[]", depth=depth + 1)
            if not least(items):
                raise ValueError(f"{path}: an array of items without size is not taken")
            return Array(items)
        if kind == "map":
            return Map(self.type(source.get("values"), namespace=namespace, path=f"{path}{{}}", depth=depth + 1))
        if kind not in {"record", "enum", "fixed"}:
            return self._reference(kind, namespace, path)
        before = self._nodes
        name, inner = _declared(source, namespace, path)
        if name in self._named:
            raise ValueError(f"{path}: {name} is declared twice")
        self._named[name] = None
        made = self._named_type(kind, source, name, namespace=inner, path=path, depth=depth)
        self._named[name] = made
        self._sizes[id(made)] = self._nodes - before + 1
        return made

    def _named_type(
        self, kind: str, source: dict[str, Any], name: str, *, namespace: str, path: str, depth: int
    ) -> Type:
        match kind, source:
            case "enum", {"symbols": list(symbols)}:
                default = source.get("default")
                if not symbols or not all(isinstance(symbol, str) for symbol in symbols):
                    raise ValueError(f"{path}: symbols are not texts")
                if default is not None and default not in symbols:
                    raise ValueError(f"{path}: the default is not a symbol")
                return Enum(name, tuple(symbols), default)
            case "fixed", {"size": int(size)} if 0 <= size <= SIZE_LIMIT:
                return Fixed(name, size, _logical(source))
            case "record", {"fields": list(fields)}:
                return Record(name, tuple(self._fields(fields, namespace, path, depth)), _doc(source))
            case _:
                raise ValueError(f"{path}: not a {kind}")

    def _fields(self, fields: list[Any], namespace: str, path: str, depth: int) -> Iterator[Field]:
        seen: set[str] = set()
        for field in fields:
            match field:
                case {"name": str(name), "type": kind} if _NAME.fullmatch(name) and name not in seen:
                    seen.add(name)
                    where = f"{path}.{name}" if path else name
                    yield Field(
                        name=name,
                        type=self.type(kind, namespace=namespace, path=where, depth=depth + 1),
                        default=field.get("default", NONE),
                        aliases=_texts(field.get("aliases")),
                        doc=_doc(field),
                    )
                case _:
                    raise ValueError(f"{path}: a field without name or type, or twice")


def _declared(source: dict[str, Any], namespace: str, path: str) -> tuple[str, str]:
    """Full name and the namespace that holds inside (Avro specification, "Names")."""
    match {"namespace": namespace, **source}:
        case {"name": str(name), "namespace": str(space)} if _NAME.fullmatch(full := fullname(name, space)):
            return full, full.rpartition(".")[0]
        case _:
            raise ValueError(f"{path}: a named type without a proper name")


def fullname(name: str, namespace: str) -> str:
    """What a name says within a namespace (Avro specification, "Names")."""
    return name if "." in name or not namespace else f"{namespace}.{name}"


def _doc(source: Mapping[str, Any]) -> str:
    doc = source.get("doc", "")
    return doc if isinstance(doc, str) else ""


def _logical(source: Mapping[str, Any]) -> str | None:
    logical = source.get("logicalType")
    return logical if isinstance(logical, str) and logical != _UUID else None


_UUID: Final = "uuid"
"""A logical type we do without: fastavro would read a UUID, whose text may be another than was written."""


def _without_uuid(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    kept = dict(pairs)  # the last value of a repeated name, as json.loads has it
    if kept.get("logicalType") == _UUID:
        del kept["logicalType"]
    return kept


def _texts(source: Any) -> frozenset[str]:
    return frozenset(text for text in source if isinstance(text, str)) if isinstance(source, list) else frozenset()
