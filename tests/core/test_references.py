"""Schemas whose types were registered one by one, as estates do that keep each type in a file of its own."""

import json
from pathlib import Path
from typing import Any

import pytest

from adapter.core.avro import Schema
from adapter.core.avro.references import inlined

COMMANDS = sorted((Path(__file__).parents[2] / "schemas" / "avro" / "commands").glob("*.avsc"))


def declared(name: str, *fields: tuple[str, Any], **more: Any) -> dict[str, Any]:
    fields_ = [{"name": field, "type": kind} for field, kind in fields]
    return {"type": "record", "name": name, "fields": fields_, **more}


def parsed(main: dict[str, Any], *others: Any) -> Schema:
    return Schema.parse(inlined(json.dumps(main), [json.dumps(other) for other in others]))


def apart(schema: Any, namespace: str, files: list[str]) -> Any:
    """The schema with names in place of the types declared in it, each of which becomes a file."""
    if isinstance(schema, list):
        return [apart(each, namespace, files) for each in schema]
    if not isinstance(schema, dict):
        return schema
    inner = schema.get("namespace", namespace)
    split = {key: apart(value, inner, files) for key, value in schema.items() if key not in {"symbols", "default"}}
    split = schema | split
    if "name" not in schema or not {"fields", "symbols", "size"} & {*schema}:
        return split
    files.append(json.dumps(split | {"namespace": inner}))
    return f"{inner}.{schema['name']}"


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.stem)
@pytest.mark.parametrize("step", [1, -1], ids=["leaves first", "leaves last"])
def test_a_command_kept_in_a_file_per_type_is_the_command(path: Path, step: int) -> None:
    whole, files = path.read_text(), list[str]()
    apart(json.loads(whole), "", files)
    main = files.pop()
    found = Schema.parse(inlined(main, files[::step]))
    assert found.record == Schema.parse(whole).record


KIND = {"type": "enum", "name": "Kind", "namespace": "x", "symbols": ["A", "B"]}


@pytest.mark.parametrize(
    "others",
    [
        pytest.param([declared("y.Holder", ("kind", KIND))], id="within another type, which is not used"),
        pytest.param([declared("x.Holder", ("kind", KIND)), KIND], id="twice"),
        pytest.param(
            [["null", {"type": "array", "items": {"type": "map", "values": KIND}}]], id="in a type without name"
        ),
        pytest.param([{"type": "enum", "name": "x.Kind", "symbols": ["A", "B"]}], id="under its full name"),
    ],
)
@pytest.mark.parametrize("name", ["x.Kind", "Kind"], ids=["full", "short"])
def test_a_type_is_found_wherever_it_is_declared(name: str, others: list[Any]) -> None:
    assert parsed(declared("x.Main", ("one", name), ("more", {"type": "array", "items": name})), *others).record == (
        Schema.parse(json.dumps(declared("x.Main", ("one", KIND), ("more", {"type": "array", "items": "Kind"})))).record
    )


def test_a_type_used_before_the_one_that_holds_its_declaration_is_declared_once() -> None:
    holder = declared("x.Holder", ("kind", KIND))
    found = parsed(declared("x.Main", ("kind", "Kind"), ("holder", "Holder")), holder)
    assert [field.name for field in found.record.fields] == ["kind", "holder"]


def test_a_type_without_namespace_stays_one() -> None:
    found = parsed(declared("x.Main", ("one", "Part")), declared("Part", ("kind", "int")))
    assert (
        found.record
        == Schema.parse(json.dumps(declared("x.Main", ("one", declared("Part", ("kind", "int"), namespace=""))))).record
    )


def test_of_two_versions_of_a_type_the_first_counts() -> None:
    first, second = (declared("x.Part", (name, "int")) for name in ("a", "b"))
    assert (
        parsed(declared("x.Main", ("part", "Part")), first, second).record
        == Schema.parse(json.dumps(declared("x.Main", ("part", first)))).record
    )


@pytest.mark.parametrize(
    ("others", "why"),
    [
        pytest.param([], "part: nothing declares the type x.Part", id="not there"),
        pytest.param([{"type": "record", "name": 7}], "nothing declares", id="no type"),
        pytest.param([declared("x.Part", ("part", "Part"))], "contains itself", id="within itself"),
        pytest.param([declared("x.Part", ("main", "x.Main"))], "contains itself", id="in a circle"),
        pytest.param([declared("x.Part", doc="d" * 600_000)], "nothing declares", id="too long"),
    ],
)
def test_a_type_that_can_not_be_put_in_is_told_by_the_parser(others: list[Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parsed(declared("x.Main", ("part", "x.Part")), *others)


@pytest.mark.parametrize("text", ["", "nonsense", "7", "[" * 100_000, '{"type": "record", "fields": [7]}'])
@pytest.mark.parametrize("other", ["", declared("x.Part")], ids=["refers to no schema", "refers to one"])
def test_what_is_no_schema_is_left_to_the_parser(text: str, other: Any) -> None:
    with pytest.raises(ValueError, match=r"not a|without"):
        Schema.parse(inlined(text, [other if isinstance(other, str) else json.dumps(other)]))
