"""`adapter send`: reading JSON, then over a real broker and a registry with a stand-in for the worker."""

import asyncio
import io
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from confluent_kafka import Consumer

from adapter.catalogue import Catalogue
from adapter.cli import main
from adapter.cli.example import example
from adapter.core.avro import Decoded, Decoder, Encoder, from_json, unframe
from adapter.ports import Outgoing
from adapter.telemetry import parse_traceparent
from adapter.transport.kafka.client import Sender
from tests.cli.conftest import Bus
from tests.support.wait import PATIENCE


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings that lead nowhere: what is wrong with the input must be found before anything is asked for."""
    monkeypatch.setenv("ADAPTER_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setenv("ADAPTER_REGISTRY__URL", "http://127.0.0.1:1")


def problems(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line.removeprefix("adapter: ") for line in capsys.readouterr().err.splitlines()]


def test_the_template_of_every_command_can_be_sent_as_it_is(
    compiled: Catalogue, capsys: pytest.CaptureFixture[str]
) -> None:
    protocol = {
        "api_version": "1.0",
        "buyer_identifier": "B",
        "sent_at": datetime.now(UTC),
        "message_id": "m",
        "correlation_id": "c",
        "reseller_id": None,
        "seller_identifier": "S",
    }
    for name, entry in compiled.operations.items():
        assert main(["send", "--example", name]) == 0
        fields = json.loads(capsys.readouterr().out)
        assert fields.pop("command") == name
        record = from_json(entry.command, fields | {"commandId": "c", "issuedAt": "2026-01-31T12:00:00Z"})
        assert entry.writer.write(record, protocol)
        assert [problem for rule in entry.operation.rules for problem in rule(record)] == []


def test_a_template_leaves_empty_what_the_adapter_fills_in(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["send", "--example", "RequestFaultReportUpdate"]) == 0
    assert json.loads(capsys.readouterr().out)["maintainerFaultReference"] == ""


def test_a_template_of_no_command_says_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["send", "--example", "AddFault"]) == 2
    assert "AddFaultReport" in capsys.readouterr().err


def test_everything_wrong_in_all_files_is_told_and_nothing_is_sent(
    nowhere: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fine = {"command": "RequestFaultReportUpdate", "buyerFaultReference": "r", "maintainerFaultReference": "m"}
    one, many, lines = (tmp_path / name for name in ("one.json", "many.json", "lines.json"))
    one.write_text('{"command": "AddFaultReport", "faultDetails": {"typ": "X", "triageComplete": "yes"}}')
    many.write_text(json.dumps([fine | {"commandId": "a"}, fine | {"commandId": "a"}, 7, {"command": "Add"}, {}]))
    lines.write_text(json.dumps(fine) + "\n\n{broken\n")
    deep = tmp_path / "deep.json"
    deep.write_text("[" * 100_000)
    assert main(["send", *map(str, (one, many, lines, deep, tmp_path / "none.json", tmp_path))]) == 2
    told = problems(capsys)
    for expected in (
        f"{one}: buyerFaultReference: is required",
        f"{one}: faultDetails.typ: unknown field, is it type?",
        f"{one}: faultDetails.triageComplete: is not true or false",
        f"{many}, item 2: commandId: another command here has the same",
        f"{many}, item 3: is not a JSON object",
        f"{deep}, line 1: is nested too deeply",
        f"{tmp_path / 'none.json'}: No such file or directory",
        f"{tmp_path}: Is a directory",
    ):
        assert expected in told
    assert sum(f'{many}, item {n}: "command" must be one of' in line for n in (4, 5) for line in told) == 2
    assert any(line.startswith(f"{lines}, line 3, column 2: is not JSON") for line in told)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{\n  "command": "AddFaultReport",\n  command\n}\n', ", line 3, column 3: is not JSON"),
        ('{\n  "command": "AddFaultReport"\n  "serviceAffected": "S"\n}\n', ", line 3, column 3: is not JSON"),
        ("{}\n" + "[" * 100_000, ", line 2: is nested too deeply"),
        (
            '{"command": "AddFaultReport", "faultDetails": {"type": null,\n"type": "X"}}',
            ", line 1: type: is there twice",
        ),
        ("{\n}\n{\n}\n", ', line 3: "command" must be one of'),
        ('{"description": "one\u2028line\u0085of text"}\n7\n', ", line 2: is not a JSON object"),
        ("\ufeff7\n", ": is not a JSON object"),
        (f'{{}}\n{{"n": {"7" * 5000}}}', ", line 2: holds a number of too many digits"),
        ('{"command": "ResolveResponse", "commandId": " ", "buyerFaultReference": "r"}', ": commandId: is blank"),
        (
            f'{{"command": "ResolveResponse", "commandId": "{"x" * 1001}", "buyerFaultReference": "r"}}',
            ": commandId: longer than 1000",
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_place_in_the_file(
    nowhere: None, text: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "command.json"
    file.write_text(text, encoding="utf-8")
    assert main(["send", str(file)]) == 2
    assert any(line.startswith(f"{file}{told}") for line in problems(capsys))


@pytest.mark.parametrize("content", ["", "[]", "\n"])
def test_no_command_at_all_is_wrong_usage(
    nowhere: None, content: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content.encode()), encoding="ascii"))
    assert main(["send", "-"]) == 2
    assert problems(capsys) == ["there is no command in the input"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{"Größe": 1}'.encode(), 'standard input: "command" must be one of'),
        ('{"Größe": 1}'.encode("latin-1"), "standard input: is not UTF-8 text"),
        (None, "standard input: is closed"),
    ],
)
def test_standard_input_is_utf_8_whatever_the_locale(
    nowhere: None, content: bytes | None, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = None if content is None else io.TextIOWrapper(io.BytesIO(content), encoding="ascii")
    monkeypatch.setattr("sys.stdin", given)
    assert main(["send", "-"]) == 2
    (line,) = problems(capsys)
    assert line.startswith(told)


def test_neither_file_nor_example_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["send"]) == 2
    assert main(["send", "x", "--timeout", "soon"]) == 2
    assert "--timeout" in capsys.readouterr().err


class StandIn:
    """Reads commands as a worker would, and publishes for each what the test wants."""

    def __init__(self, bus: Bus, compiled: Catalogue) -> None:
        topics = self._topics = bus.topics
        self._ids = bus.ids
        self._compiled = compiled
        self._client = {"bootstrap.servers": bus.kafka}
        self._consumer = Consumer(
            {**self._client, "group.id": topics.prefix, "auto.offset.reset": "earliest", "enable.auto.commit": False}
        )
        self._consumer.subscribe([topics.commands])
        self._sender = Sender(self._client, max_message_bytes=1_000_000)

    def commands(self, number: int) -> Iterator[tuple[Decoded, bytes | None, dict[str, bytes]]]:
        names = {identifier: name for name, identifier in self._ids.items()}
        deadline = time.monotonic() + PATIENCE
        while number:
            assert time.monotonic() < deadline, "the commands did not come"
            message = self._consumer.poll(0.2)
            if message is None or message.error():
                continue
            identifier, payload = unframe(message.value())
            schema = self._compiled.commands[names[identifier]]
            headers = dict(message.headers() or [])
            yield Decoder(schema.text, [schema]).decode(payload), message.key(), headers  # type: ignore[misc]  # bytes
            number -= 1

    def publish(self, name: str, command: Decoded, **fields: Any) -> None:
        record = {
            "commandId": command.record["commandId"],
            "operation": command.name,
            "occurredAt": datetime.now(UTC),
            **fields,
        }
        value = Encoder(self._compiled.events[name], self._ids[name]).encode(record)
        key = command.record["buyerFaultReference"].encode()
        assert self._sender.send([Outgoing(self._topics.events, key, value)]) == [None]

    def close(self) -> None:
        self._consumer.close()


@contextmanager
def answering(stand_in: StandIn, answers: Mapping[str, Callable[[Decoded], None]]) -> Iterator[None]:
    """Answers each command by its commandId, beside the test."""

    def work() -> None:
        for command, _, _ in stand_in.commands(len(answers)):
            answers[command.record["commandId"]](command)

    thread = Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join()
        stand_in.close()


def command(reference: str, **fields: object) -> dict[str, object]:
    return {
        "command": "RequestFaultReportUpdate",
        "buyerFaultReference": reference,
        "maintainerFaultReference": "CF-1",
        **fields,
    }


async def test_a_command_arrives_complete_framed_and_keyed(
    bus: Bus, compiled: Catalogue, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "command.json"
    file.write_text(json.dumps(command("SP-1", correlationId="case")))
    stand_in = StandIn(bus, compiled)
    assert await asyncio.to_thread(main, ["send", str(file)]) == 0
    line = json.loads(capsys.readouterr().out)
    ((decoded, key, headers),) = await asyncio.to_thread(lambda: list(stand_in.commands(1)))
    stand_in.close()
    assert key == b"SP-1"
    assert line == {"sent": "RequestFaultReportUpdate", "commandId": decoded.record["commandId"], "key": "SP-1"}
    assert decoded.record["correlationId"] == "case"
    assert (datetime.now(UTC) - decoded.record["issuedAt"]).total_seconds() < 60
    assert headers["ce_id"].decode() == decoded.record["commandId"]
    assert headers["ce_type"] == b"fault.command.RequestFaultReportUpdate"
    assert parse_traceparent(headers["traceparent"]) is not None


async def test_waiting_follows_each_command_to_its_final_outcome(
    bus: Bus, compiled: Catalogue, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "commands.json"
    file.write_text("\n".join(json.dumps(command(f"SP-{n}", commandId=n)) for n in ("good", "bad", "late")))
    stand_in = StandIn(bus, compiled)

    def late(decoded: Decoded) -> None:
        stand_in.publish("CommandOutcomeUnknown", decoded, reason="reset", doubtUntil=datetime.now(UTC))
        stand_in.publish("CommandSettled", decoded, outcome="ACCEPTED", settledBy="NOTIFICATION")

    answers = {
        "good": lambda decoded: stand_in.publish("FaultReportUpdateRequested", decoded, reply=None),
        "bad": lambda decoded: stand_in.publish("CommandRejected", decoded, rejectedBy="SUPPLIER", code="400"),
        "late": late,
    }
    with answering(stand_in, answers):
        assert await asyncio.to_thread(main, ["send", str(file), "--wait", "--timeout", "2m"]) == 4
    shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    told: dict[str, list[str]] = {}
    for line in shown[3:]:
        told.setdefault(line["commandId"], []).append(line["event"])
    assert told == {
        "good": ["FaultReportUpdateRequested"],
        "bad": ["CommandRejected"],
        "late": ["CommandOutcomeUnknown", "CommandSettled"],
    }


async def test_all_accepted_is_exit_code_0(
    bus: Bus, compiled: Catalogue, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "command.json"
    file.write_text(json.dumps(command("SP-1", commandId="good")))
    stand_in = StandIn(bus, compiled)
    accept = {"good": lambda decoded: stand_in.publish("FaultReportUpdateRequested", decoded, reply=None)}
    with answering(stand_in, accept):
        assert await asyncio.to_thread(main, ["send", str(file), "--wait", "--timeout", "2m"]) == 0


async def test_no_outcome_in_time_is_told(bus: Bus, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "command.json"
    file.write_text(json.dumps(command("SP-1", commandId="lost")))
    assert await asyncio.to_thread(main, ["send", str(file), "--wait", "--timeout", "1s"]) == 4
    (told,) = problems(capsys)
    assert told.startswith("lost: no final outcome within 1s; ")


async def test_a_command_that_is_too_long_is_not_sent_the_others_are(
    bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ADAPTER_TOPICS__MAX_MESSAGE_BYTES", "10KiB")
    file = tmp_path / "commands.json"
    long = command("SP-1", commandId="long", correlationId="x" * 20_000)
    file.write_text(json.dumps([long, command("SP-2", commandId="short")]))
    assert await asyncio.to_thread(main, ["send", str(file)]) == 1
    shown = capsys.readouterr()
    assert json.loads(shown.out)["commandId"] == "short"
    assert shown.err.startswith("adapter: long: not sent: ")


async def test_a_topic_that_is_missing_is_named(
    bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ADAPTER_TOPICS__COMMANDS", f"{bus.topics.prefix}.nowhere")
    assert await asyncio.to_thread(main, ["schemas", "register"]) == 0
    file = tmp_path / "command.json"
    file.write_text(json.dumps(command("SP-1")))
    assert await asyncio.to_thread(main, ["send", str(file)]) == 2
    (problem,) = problems(capsys)
    assert problem.startswith(
        f"{bus.topics.prefix}.nowhere: the topic is missing, or we may not see it; adapter topics"
    )


async def test_schemas_that_are_not_registered_are_named(
    bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ADAPTER_TOPICS__PREFIX", "other.")
    file = tmp_path / "command.json"
    file.write_text(json.dumps(command("SP-1")))
    assert await asyncio.to_thread(main, ["send", str(file)]) == 2
    assert "adapter schemas register" in problems(capsys)[0]


def test_an_example_leaves_out_what_send_fills_in(compiled: Catalogue) -> None:
    for schema in compiled.commands.values():
        shown = example(schema, without=compiled.supplier.envelope, now=datetime.now(UTC))
        assert not shown.keys() & compiled.supplier.envelope
