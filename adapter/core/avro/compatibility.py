"""What a reader's schema makes of a writer's data: Avro's resolution rules ("Schema Resolution" in the Avro
specification), each breach with its path. One rule more than Avro has: a logical type must stay what it is,
since a long that turns into a time resolves without a word and means something else.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from adapter.core.avro.schema import (
    NONE,
    Array,
    Enum,
    Fixed,
    Map,
    Primitive,
    Record,
    Schema,
    Type,
    Union,
    label,
)


def compatibility(reader: Schema, writer: Schema) -> list[str]:
    """Why `reader` cannot read everything `writer` may have written; empty if it can."""
    return list(_differences(reader.record, writer.record, reader.name))


def full_transitive(versions: Sequence[Schema]) -> list[str]:
    """Breaches of FULL_TRANSITIVE among `versions` (oldest first): each must read each."""
    return [
        f"version {r + 1} cannot read version {w + 1}: {problem}"
        for r, reader in enumerate(versions)
        for w, writer in enumerate(versions)
        if r != w
        for problem in compatibility(reader, writer)
    ]


_PROMOTIONS: Final = {
    ("int", "long"),
    ("int", "float"),
    ("int", "double"),
    ("long", "float"),
    ("long", "double"),
    ("float", "double"),
    ("string", "bytes"),
    ("bytes", "string"),
}


def _differences(reader: Type, writer: Type, path: str) -> Iterator[str]:  # noqa: C901 -- a table of cases
    match reader, writer:
        case _, Union(branches):
            for branch in branches:
                yield from _differences(reader, branch, path)
        case Union(branches), _:
            found = [list(_differences(branch, writer, path)) for branch in branches]
            if all(found):
                alike = [
                    problems
                    for branch, problems in zip(branches, found, strict=True)
                    if type(branch) is type(writer) and not isinstance(branch, Primitive)
                ]
                yield from alike[0] if len(alike) == 1 else [f"{path}: {label(writer)} is none of {label(reader)}"]
        case Primitive(ours, logical), Primitive(theirs, their_logical):
            if ours != theirs and (theirs, ours) not in _PROMOTIONS:
                yield f"{path}: {label(writer)} cannot become {label(reader)}"
            elif logical != their_logical:
                yield f"{path}: {label(writer)} would be read as {label(reader)}"
        case Fixed(name, size, _), Fixed(their_name, their_size, _):
            if (_short(name), size) != (_short(their_name), their_size):
                yield f"{path}: fixed of another name or size"
        case Enum(name, symbols, default), Enum(their_name, their_symbols, _):
            if _short(name) != _short(their_name):
                yield f"{path}: {label(writer)} is not {label(reader)}"
            unknown = [symbol for symbol in their_symbols if symbol not in symbols]
            if unknown and default is None:
                yield f"{path}: no default for the symbols {', '.join(unknown)}"
        case Array(items), Array(their_items):
            yield from _differences(items, their_items, f"{path}[]")
        case Map(values), Map(their_values):
            yield from _differences(values, their_values, f"{path}{{}}")
        case Record(), Record():
            yield from _record_differences(reader, writer, path)
        case _:
            yield f"{path}: {label(writer)} cannot become {label(reader)}"


def _record_differences(reader: Record, writer: Record, path: str) -> Iterator[str]:
    if _short(reader.name) != _short(writer.name):
        yield f"{path}: {label(writer)} is not {label(reader)}"
        return
    written = {field.name: field for field in writer.fields}
    for field in reader.fields:
        theirs = next((written[name] for name in (field.name, *field.aliases) if name in written), None)
        if theirs is not None:
            yield from _differences(field.type, theirs.type, f"{path}.{field.name}")
        elif field.default is NONE:
            yield f"{path}.{field.name}: not written, and has no default"


def _short(name: str) -> str:
    return name.rpartition(".")[2]
