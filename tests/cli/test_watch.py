"""`adapter watch`, over a real broker and a registry."""

import asyncio
import json
import os
import re
import signal
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web

from adapter import listen
from adapter.catalogue import Catalogue
from adapter.cli import main, show
from adapter.cli.show import ENVELOPE
from adapter.core.avro import Encoder, frame
from tests.cli.conftest import Bus, notification
from tests.support.processes import Processes


def test_a_line_of_json_is_what_it_says_and_no_terminals_master(capsys: pytest.CaptureFixture[str]) -> None:
    content = {"description": 'no\u00a0break\u202e\u2028\x9b31m\U000e0041, a family \U0001f469\u200d\U0001f466, "é"'}
    show.write(show.json_line(content))
    line = capsys.readouterr().out.removesuffix("\n")
    assert json.loads(line) == content
    assert line.isprintable()
    assert "é" in line


def rejected(reference: str, **fields: Any) -> dict[str, Any]:
    return {
        "commandId": "c-1",
        "operation": "AddFaultReport",
        "buyerFaultReference": reference,
        "occurredAt": datetime.now(UTC),
        "rejectedBy": "SUPPLIER",
        "code": "409",
        **fields,
    }


@pytest.fixture
def history(bus: Bus, compiled: Catalogue) -> Bus:
    """Three events of two tickets, and what is no event."""
    updated, refused = compiled.events["FaultReportUpdated"], compiled.events["CommandRejected"]
    bus.event(updated, "SP-1", notification(compiled, "SP-1"))
    bus.event(updated, "SP-1", notification(compiled, "SP-1", kind="RESOLVED", status="RESOLVED"))
    bus.event(refused, "SP-2", rejected("SP-2"))
    bus.write(bus.topics.events, "SP-3", b"no Avro")
    return bus


async def watched(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    assert await asyncio.to_thread(main, ["watch", "--since", "beginning", "--until-now", *arguments]) == 0
    return capsys.readouterr().out.splitlines()


async def test_an_event_of_a_subject_that_holds_a_union_of_records_is_shown(
    bus: Bus, compiled: Catalogue, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = list(compiled.events)
    union = json.dumps([json.loads(compiled.events[name].text) for name in names])

    async def schema(_: web.Request) -> web.Response:
        return web.json_response({"schema": union})

    app = web.Application()
    app.router.add_get("/schemas/ids/1", schema)
    place, event = names.index("CommandRejected"), compiled.events["CommandRejected"]
    payload = Encoder(event, 1).encode(rejected("SP-1"))[5:]
    bus.write(bus.topics.events, "SP-1", frame(1, bytes([2 * place]) + payload))
    async with AsyncExitStack() as stack:
        monkeypatch.setenv("ADAPTER_REGISTRY__URL", await listen.serve(stack, app, "127.0.0.1", 0))
        assert told(await watched(capsys)) == {("SP-1", "CommandRejected")}


def told(lines: list[str]) -> set[tuple[str, str]]:
    shown = [json.loads(line) for line in lines]
    return {(line["key"], line.get("kind") or line.get("event") or line["unreadable"]) for line in shown}


async def test_in_a_pipe_every_record_is_a_json_line(history: Bus, capsys: pytest.CaptureFixture[str]) -> None:
    lines = await watched(capsys)
    assert told(lines) == {
        ("SP-1", "APPOINTMENT_COMPLETED"),
        ("SP-1", "RESOLVED"),
        ("SP-2", "CommandRejected"),
        ("SP-3", "unframed"),
    }
    refused = next(shown for line in lines if (shown := json.loads(line)).get("event") == "CommandRejected")
    assert tuple(refused)[: len(ENVELOPE)] == ENVELOPE
    assert refused["id"] == "id-SP-2"
    assert refused["code"] == "409"
    assert datetime.now(UTC) - datetime.fromisoformat(refused["at"]) < timedelta(minutes=1)


async def test_as_text_every_record_is_a_readable_line(history: Bus, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [re.split(r"\s{2,}", line) for line in await watched(capsys, "--text")]
    assert {tuple(cells[1:3]) for cells in lines} == {
        ("SP-1", "FaultReportUpdated: appointment completed"),
        ("SP-1", "FaultReportUpdated: resolved"),
        ("SP-2", "CommandRejected by supplier: 409"),
        ("SP-3", "unreadable: unframed"),
    }
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ", cells[0]) for cells in lines)


async def test_filters_choose(history: Bus, capsys: pytest.CaptureFixture[str]) -> None:
    completed, resolved = ("SP-1", "APPOINTMENT_COMPLETED"), ("SP-1", "RESOLVED")
    refused, strange = ("SP-2", "CommandRejected"), ("SP-3", "unframed")
    for filters, expected in (
        (["--reference", " SP-2 "], {refused}),
        (["--reference", "SP-2", "--reference", "SP-3"], {refused, strange}),
        (["--kind", "resolved"], {resolved}),
        (["--kind", "appointment-completed", "--kind", "commandRejected"], {completed, refused}),
        (["--kind", "RESOLVED", "--reference", "SP-2"], set[tuple[str, str]]()),
        (["--since", "1h", "--kind", "Resolved"], {resolved}),
        (["--since", "2100-01-01T00:00:00Z"], set[tuple[str, str]]()),
    ):
        assert told(await watched(capsys, *filters)) == expected, filters


async def test_a_hostile_text_cannot_take_the_terminal_over(
    bus: Bus, compiled: Catalogue, capsys: pytest.CaptureFixture[str]
) -> None:
    bus.event(compiled.events["CommandRejected"], "SP-1\x1b[2J", rejected("SP-1", code="\x1b]0;x\x07", text="a\nb"))
    (line,) = await watched(capsys, "--text")
    assert line.isprintable()


async def test_without_an_end_it_follows_until_it_is_interrupted(
    bus: Bus, compiled: Catalogue, processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {name: value for name, value in os.environ.items() if name.startswith("ADAPTER_")}
    bus.event(compiled.events["CommandRejected"], "SP-1", rejected("SP-1"))
    watching = processes.adapter("watch", "--since", "beginning", env=settings)
    await watching.ready(lambda process: "SP-1" in process.output)
    bus.event(compiled.events["CommandRejected"], "SP-2", rejected("SP-2"))
    await watching.ready(lambda process: "SP-2" in process.output)
    watching.send(signal.SIGINT)
    assert await watching.ended() == 130
    assert "Traceback" not in watching.output


@pytest.mark.parametrize("since", ["yesterday", "2026-01-31T12:00:00", "9999999d", ""])
def test_a_start_that_is_none_is_told(
    since: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["watch", "--since", since]) == 2
    assert "--since" in capsys.readouterr().err


def test_a_kind_that_is_none_is_told_with_all_there_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ADAPTER_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setenv("ADAPTER_REGISTRY__URL", "http://127.0.0.1:1")
    assert main(["watch", "--kind", "solved"]) == 2
    told = capsys.readouterr().err
    assert "--kind solved" in told
    assert "RESOLVED" in told
    assert "CommandRejected" in told


def test_no_event_has_a_field_with_the_name_of_the_envelope(compiled: Catalogue) -> None:
    for schema in compiled.events.values():
        assert not schema.fields().keys() & set(ENVELOPE), schema.name
