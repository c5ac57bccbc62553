"""What the schema folders and the supplier's declaration make together, and how they fail together."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapter import catalogue
from adapter.catalogue import GROUPS, Catalogue
from adapter.core.avro import SubjectStrategy
from adapter.core.errors import Stop
from adapter.suppliers import served

TOPICS = {group: f"fault.{group}" for group in GROUPS}


@pytest.fixture(scope="module")
def loaded() -> Catalogue:
    return catalogue.load(served())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the schemas to break."""
    return shutil.copytree(catalogue.schema_root(), tmp_path / "schemas")


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    schema = json.loads(path.read_text())
    change(schema)
    path.write_text(json.dumps(schema))


def stops(folder: Path) -> list[str]:
    with pytest.raises(Stop) as stop:
        catalogue.load(served(), folder)
    return list(stop.value.problems)


def test_every_operation_of_the_supplier_is_ready(loaded: Catalogue) -> None:
    for operation in loaded.supplier.operations:
        entry = loaded.operations[operation.name]
        assert entry.command is loaded.commands[operation.name]
        assert entry.accepted is loaded.events[operation.accepted]
        assert operation.reply.endswith(entry.reader.element)


def test_a_command_of_no_operation_is_told(folder: Path, loaded: Catalogue) -> None:
    commands = folder / "avro" / "commands"
    schema = json.loads((commands / f"{loaded.supplier.operations[0].name}.avsc").read_text())
    (commands / "NoSuchCommand.avsc").write_text(json.dumps({**schema, "name": "NoSuchCommand"}))
    assert stops(folder) == [f"commands/NoSuchCommand.avsc: {loaded.supplier.name} has no operation of that name"]


@pytest.mark.parametrize("group", GROUPS)
def test_subjects_follow_the_strategy(loaded: Catalogue, group: str) -> None:
    schemas = {schema.fullname for schema in getattr(loaded, group).values()}
    expected = {
        SubjectStrategy.TOPIC_RECORD: {f"{TOPICS[group]}-{name}" for name in schemas},
        SubjectStrategy.RECORD: schemas,
        SubjectStrategy.TOPIC: {f"{TOPICS[group]}-value"},
    }
    for strategy, subjects in expected.items():
        assert schemas
        assert subjects == {name for name, schema in loaded.subjects(strategy, TOPICS) if schema.fullname in schemas}


def test_faults_of_all_files_are_told_at_once(folder: Path, loaded: Catalogue) -> None:
    first, second, *_ = loaded.supplier.operations
    edit(
        folder / f"avro/commands/{first.name}.avsc",
        lambda schema: schema["fields"].append({"name": "x", "type": "int"}),
    )
    (folder / f"avro/events/{second.accepted}.avsc").unlink()
    (folder / "avro/events/Broken.avsc").write_text("{")
    found = stops(folder)
    assert any(problem.endswith("not in the XSD") and ": x: " in problem for problem in found)
    assert f"{second.accepted}: no such record in avro/events" in found
    assert "events/Broken.avsc: not a JSON document of reasonable depth" in found


def test_a_file_named_for_another_record(folder: Path, loaded: Catalogue) -> None:
    name = loaded.supplier.operations[0].name
    shutil.copy(folder / f"avro/commands/{name}.avsc", folder / "avro/commands/Other.avsc")
    assert f"commands/Other.avsc: holds the record {name}" in stops(folder)


def test_a_time_with_a_default_is_refused(folder: Path, loaded: Catalogue) -> None:
    def give_default(schema: dict[str, Any]) -> None:
        kind = {"type": "long", "logicalType": "timestamp-millis"}
        schema["fields"].append({"name": "since", "type": kind, "default": 0})

    name = next(iter(loaded.events))
    edit(folder / f"avro/events/{name}.avsc", give_default)
    assert stops(folder) == [f"events/{name}.avsc: since: a timestamp-millis can have no default but null"]


def test_a_type_that_an_encoder_does_not_write_is_refused(folder: Path, loaded: Catalogue) -> None:
    name = next(iter(loaded.events))
    edit(
        folder / f"avro/events/{name}.avsc",
        lambda schema: schema["fields"].append({"name": "share", "type": "double", "default": 0.0}),
    )
    assert f"events/{name}.avsc: double is not written by an encoder" in stops(folder)


def test_a_command_without_the_fields_of_every_command(folder: Path, loaded: Catalogue) -> None:
    operation = loaded.supplier.operations[0]

    def drop(schema: dict[str, Any]) -> None:
        schema["fields"] = [field for field in schema["fields"] if field["name"] not in {"commandId", operation.key}]

    edit(folder / f"avro/commands/{operation.name}.avsc", drop)
    found = stops(folder)
    assert f"{operation.name}.commandId: every command has it, this one has not" in found
    assert f"{operation.name}.{operation.key}: the key field is missing" in found


@pytest.mark.parametrize("missing", ["attempts", "unknownElements"])
def test_an_accepted_record_without_what_every_one_has(folder: Path, loaded: Catalogue, missing: str) -> None:
    name = loaded.supplier.operations[0].accepted

    def drop(schema: dict[str, Any]) -> None:
        schema["fields"] = [field for field in schema["fields"] if field["name"] != missing]

    edit(folder / f"avro/events/{name}.avsc", drop)
    assert stops(folder) == [f"{name}.{missing}: every accepted record has it, this one has not"]


def test_a_reply_that_could_not_say_no(folder: Path, loaded: Catalogue) -> None:
    operation = loaded.supplier.operations[0]

    def reword(schema: dict[str, Any]) -> None:
        (reply,) = (field["type"][1] for field in schema["fields"] if field["name"] == "reply")
        reply["fields"] = [field for field in reply["fields"] if field["name"] not in {"responseCode", "status"}]
        (said,) = (field for field in reply["fields"] if field["name"] == "errorMessage")
        said["type"] = ["null", "int"]

    edit(folder / f"avro/events/{operation.accepted}.avsc", reword)
    found = stops(folder)
    where = f"{operation.accepted}.reply"
    assert f"{where}: has neither responseCode nor status, by which alone an answer says no" in found
    assert f"{where}.errorMessage: is no string, as which an answer is judged" in found


def test_what_an_operation_finds_is_a_list_of_its_reply(folder: Path, loaded: Catalogue) -> None:
    first, *others = loaded.supplier.operations
    lost = replace(loaded.supplier, operations=(replace(first, finds="status"), *others))
    with pytest.raises(Stop, match=f"{first.accepted}.reply.status: no list of records, but what {first.name} finds"):
        catalogue.load(lost, folder)


@pytest.mark.parametrize("by", ["confirmed_by", "refused_by"])
def test_what_ends_a_doubt_is_a_kind_of_notification(folder: Path, loaded: Catalogue, by: str) -> None:
    first, *others = loaded.supplier.operations
    waiting: Any = {by: frozenset({"CLOSED", "NO_SUCH_KIND"})}
    changed = replace(loaded.supplier, operations=(replace(first, **waiting), *others))
    with pytest.raises(Stop, match=f"{first.name}: ends a doubt by NO_SUCH_KIND, but"):
        catalogue.load(changed, folder)


def test_no_folder_at_all(tmp_path: Path) -> None:
    assert all(schema in " ".join(stops(tmp_path)) for schema in (path.rpartition("/")[2] for path in served().schemas))
