"""`adapter schemas`, offline and against a registry."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from adapter.catalogue import schema_root
from adapter.cli import main
from adapter.demo import registry
from adapter.suppliers import served
from adapter.transport.registry import HttpRegistry


@pytest.fixture
async def url(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """A registry without any schema, set up as ours."""
    running = await registry.serve()
    monkeypatch.setenv("ADAPTER_REGISTRY__URL", running.url)
    yield running.url
    await running.close()


@pytest.fixture
def schemas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the schemas, to be spoilt."""
    folder = tmp_path / "schemas"
    shutil.copytree(schema_root(), folder)
    monkeypatch.setenv("ADAPTER_SCHEMAS", str(folder))
    return folder


async def run(*words: str) -> int:
    return await asyncio.to_thread(main, list(words))


def change(path: Path, field: str, **entries: object) -> None:
    schema = json.loads(path.read_text(encoding="utf-8"))
    next(each for each in schema["fields"] if each["name"] == field).update(entries)
    path.write_text(json.dumps(schema), encoding="utf-8")


def test_our_schemas_fit(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schemas", "check"]) == 0
    assert capsys.readouterr().out.startswith(f"{len(served().operations)} operations and ")


def test_the_schemas_of_a_folder_are_checked_instead(schemas: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(schemas / "avro/events/CommandRejected.avsc", "attempts", type="string", default="")
    assert main(["schemas", "check"]) == 3
    shown = capsys.readouterr().out
    assert "events/CommandRejected: version 2 cannot read version 1: CommandRejected.attempts" in shown


def test_a_released_record_must_stay(schemas: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (schemas / "avro/events/CommandSettled.avsc").unlink()
    assert main(["schemas", "check"]) == 3
    assert "events/CommandSettled: was released and is gone" in capsys.readouterr().out


def test_a_field_on_one_side_only_is_told_with_its_path(schemas: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(schemas / "avro/commands/ResolveResponse.avsc", "rejectedReason", name="reason")
    assert main(["schemas", "check"]) == 2
    assert "rejectedReason" in capsys.readouterr().err


def test_the_list_and_one_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schemas", "show"]) == 0
    assert "fault.event.CommandRejected" in capsys.readouterr().out
    assert main(["schemas", "show", "AddFaultReport"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "AddFaultReport"
    assert main(["schemas", "show", "AddFault"]) == 2
    assert "adapter schemas show" in capsys.readouterr().err


@pytest.mark.apicurio
async def test_the_schema_that_a_pipe_gets_is_the_one_the_registry_finds(
    apicurio: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ADAPTER_REGISTRY__URL", apicurio)
    monkeypatch.setenv("ADAPTER_TOPICS__PREFIX", f"{uuid4()}.")
    assert await run("schemas", "register") == 0
    subject, _, _ = capsys.readouterr().out.partition(": id ")
    assert await run("schemas", "show", subject.rpartition(".")[2]) == 0
    async with HttpRegistry(apicurio) as client:
        assert await client.identifier(subject, capsys.readouterr().out) is not None


async def test_an_empty_registry_is_told_and_then_filled(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert await run("schemas", "check", "--registry") == 3
    assert "fault.commands-fault.command.AddFaultReport: not registered" in capsys.readouterr().out
    assert await run("schemas", "register") == 0
    first = capsys.readouterr().out
    assert "fault.journal-fault.journal.JournalEntries: id " in first
    assert await run("schemas", "register") == 0
    assert capsys.readouterr().out == first
    assert await run("schemas", "check", "--registry") == 0


async def test_what_is_registered_forbids_a_breaking_change(
    url: str, schemas: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await run("schemas", "register") == 0
    change(schemas / "avro/events/CommandRejected.avsc", "attempts", type="string", default="")
    capsys.readouterr()
    assert await run("schemas", "check", "--registry") == 3
    assert "fault.event.CommandRejected: the registry holds versions it does not fit" in capsys.readouterr().out
    assert await run("schemas", "register") == 2
    assert "fault.events-fault.event.CommandRejected: the registry refuses" in capsys.readouterr().err


async def test_prefix_and_strategy_make_the_subject(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ADAPTER_TOPICS__PREFIX", "staging.")
    assert await run("schemas", "register") == 0
    assert "staging.fault.events-fault.event.CommandRejected: id" in capsys.readouterr().out
    monkeypatch.setenv("ADAPTER_REGISTRY__SUBJECT_STRATEGY", "record")
    assert await run("schemas", "register") == 0
    assert "\nfault.event.CommandRejected: id" in capsys.readouterr().out


def test_a_registry_that_is_not_there_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ADAPTER_REGISTRY__URL", "http://127.0.0.1:1")
    assert main(["schemas", "register"]) == 1
    assert "127.0.0.1:1" in capsys.readouterr().err
