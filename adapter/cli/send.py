"""`adapter send`: commands written as JSON, encoded, put on the commands topic, and followed to their outcomes."""

import argparse
import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from adapter.catalogue import Catalogue, Entry
from adapter.cli import show
from adapter.cli.bus import Client, compiled, connected, look_for
from adapter.cli.example import example
from adapter.cli.exits import Exit
from adapter.cli.follow import Outcomes, seconds
from adapter.core import cloudevents
from adapter.core.avro import Encoder, from_json, subject
from adapter.core.command import COMMAND_ID_LIMIT
from adapter.core.errors import Refused, Stop
from adapter.ports import Outgoing
from adapter.settings import Bus, Offline, load
from adapter.telemetry import continued
from adapter.transport.kafka.client import Sender

_EPILOG = """\
A file holds a JSON object, an array of them, or one after the other; "command" names the record, the other fields are
its own. commandId and issuedAt are filled in where they are missing. Nothing is sent if anything is wrong anywhere.

needs ADAPTER_KAFKA__BOOTSTRAP_SERVERS and ADAPTER_REGISTRY__URL, and schemas that are registered.

examples:
  adapter send --example AddFaultReport > command.json
  adapter send command.json --wait
  jq '.[]' many.json | adapter send - --wait --timeout 5m
"""


def add(_name: str, parser: argparse.ArgumentParser) -> None:
    parser.epilog = _EPILOG
    parser.add_argument("files", nargs="*", metavar="FILE", help="files of commands, - for standard input")
    parser.add_argument("--example", metavar="COMMAND", help="print a command to fill in, and send nothing")
    parser.add_argument("--wait", action="store_true", help="print each command's events until its outcome is final")
    parser.add_argument("--timeout", default="60s", help="longest wait for the outcomes (%(default)s)")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> Exit:
    if arguments.example is not None:
        return _example(arguments.example)
    if not arguments.files:
        raise Stop("send: name a file, or - for standard input; see adapter send --help")
    timeout = seconds(arguments.timeout)
    settings = load(Bus)
    known = compiled(settings)
    commands = _commands(known, arguments.files)
    with connected(settings, known) as bus, ExitStack() as stack:
        records = bus.run(_encoded(commands, bus))
        look_for(settings, bus.topics.commands)
        # Before anything is sent: it starts where the topic ends now.
        follower = stack.enter_context(bus.following(bus.topics.events)) if arguments.wait else None
        sender = Sender(settings.kafka.client(), max_message_bytes=settings.topics.max_message_bytes)
        failed = _report(commands, sender.send(records))
        if follower is None:
            return Exit.FAILED if failed else Exit.DONE
        outcomes = Outcomes(bus, {c.command_id for c in commands} - failed)
        outcomes.follow(follower.read(time.monotonic() + timeout))
    sys.stderr.writelines(
        f"adapter: {command_id}: no final outcome within {arguments.timeout}; adapter stuck shows what waits; a "
        "commandId that was there before has no second outcome, and with other content it ends on "
        f"{bus.topics.dead_letters}\n"
        for command_id in sorted(outcomes.pending)
    )
    if failed:
        return Exit.FAILED
    return Exit.NOT_ACCEPTED if outcomes.pending or outcomes.not_accepted else Exit.DONE


@dataclass(frozen=True, slots=True)
class _Command:
    entry: Entry
    record: dict[str, Any]

    @property
    def command_id(self) -> str:
        return str(self.record["commandId"])

    @property
    def key(self) -> str:
        return str(self.record[self.entry.operation.key])


def _example(name: str) -> Exit:
    known = compiled(load(Offline))
    if name not in known.commands:
        raise Stop(f"--example {name}: no such command; there are {', '.join(known.commands)}")
    shown = example(known.commands[name], without=known.supplier.envelope, now=datetime.now(UTC))
    sys.stdout.write(json.dumps(shown, indent=2) + "\n")
    return Exit.DONE


def _commands(known: Catalogue, files: Sequence[str]) -> list[_Command]:
    """All commands of all files. Raises Stop with everything that is wrong with them."""
    commands: list[_Command] = []
    problems: list[str] = []
    seen: set[str] = set()
    for file in files:
        for where, content in _objects(file, problems):
            command = _command(known, where, content, problems)
            if command is None:
                continue
            if command.command_id in seen:
                problems.append(f"{where}: commandId: another command here has the same")
            seen.add(command.command_id)
            commands.append(command)
    if not commands and not problems:
        problems.append("send: there is no command in the input")
    if problems:
        raise Stop(*problems)
    return commands


def _objects(file: str, problems: list[str]) -> Iterator[tuple[str, Any]]:
    """Each JSON value of a file with where it is."""
    name = "standard input" if file == "-" else file
    if file == "-" and sys.stdin is None:
        problems.append(f"{name}: is closed")
        return
    try:
        text = (sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()).decode()
    except OSError as error:
        problems.append(f"{name}: {error.strerror}")
        return
    except UnicodeDecodeError:
        problems.append(f"{name}: is not UTF-8 text")
        return
    before = len(problems)
    values = list(_values(text.removeprefix("\ufeff"), name, problems))
    for line, value in values:
        where = name if len(values) == 1 and len(problems) == before else f"{name}, line {line}"
        if isinstance(value, list):
            yield from ((f"{where}, item {place}", item) for place, item in enumerate(value, 1))
        else:
            yield where, value


def _values(text: str, name: str, problems: list[str]) -> Iterator[tuple[int, Any]]:
    """One JSON value after the other, each with the line where it begins, up to what is none."""
    line, at = 1, 0
    while start := _SOMETHING.search(text, at):
        line += text.count("\n", at, start.start())
        at = start.start()
        try:
            value, end = _JSON.raw_decode(text, at)
        except json.JSONDecodeError as error:
            problems.append(f"{name}, line {error.lineno}, column {error.colno}: is not JSON ({error.msg})")
            return
        except _Twice as twice:
            problems.append(f"{name}, line {line}: {twice}")
            return
        except ValueError:  # of an integer that Python refuses to convert: it would take for ever
            problems.append(f"{name}, line {line}: holds a number of too many digits")
            return
        except RecursionError:
            problems.append(f"{name}, line {line}: is nested too deeply")
            return
        yield line, value
        line += text.count("\n", at, end)
        at = end


class _Twice(Exception):  # noqa: N818 -- named for what it says
    """An object has a name twice, and only one of the two values could be sent."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, value in pairs:
        if name in made:
            raise _Twice(f"{name[:100]}: is there twice")
        made[name] = value
    return made


_JSON: Final = json.JSONDecoder(object_pairs_hook=_once)
_SOMETHING: Final = re.compile(r"[^ \t\r\n]")


def _command(known: Catalogue, where: str, content: Any, problems: list[str]) -> _Command | None:
    if not isinstance(content, dict):
        problems.append(f"{where}: is not a JSON object")
        return None
    fields = dict(content)
    name = fields.pop("command", None)
    entry = known.operations.get(name) if isinstance(name, str) else None
    if entry is None:
        problems.append(f'{where}: "command" must be one of {", ".join(known.operations)}')
        return None
    fields.setdefault("commandId", str(uuid4()))
    fields.setdefault("issuedAt", datetime.now(UTC).isoformat(timespec="milliseconds"))
    try:
        record = from_json(entry.command, fields)
    except Refused as refused:
        problems += [f"{where}: {problem}" for problem in refused.problems]
        return None
    if not record["commandId"].strip():
        problems.append(f"{where}: commandId: is blank")
    if len(record["commandId"]) > COMMAND_ID_LIMIT:
        problems.append(f"{where}: commandId: longer than {COMMAND_ID_LIMIT}")
    return _Command(entry, record)


async def _encoded(commands: Sequence[_Command], bus: Client) -> list[Outgoing]:
    """The records as they go on the topic. Raises Stop if the registry lacks a schema, Unavailable."""
    topic = bus.topics.commands
    encoders: dict[str, Encoder] = {}
    missing: list[str] = []
    for schema in {c.entry.command.name: c.entry.command for c in commands}.values():
        name = subject(bus.settings.registry.subject_strategy, topic, schema)
        identifier = await bus.registry.identifier(name, schema.text)
        if identifier is None:
            missing.append(f"{name}: the registry has not this schema; run `adapter schemas register`")
        else:
            encoders[schema.name] = Encoder(schema, identifier)
    if missing:
        raise Stop(*missing)
    return [_record(command, topic, encoders[command.entry.command.name]) for command in commands]


def _record(command: _Command, topic: str, encoder: Encoder) -> Outgoing:
    """With the start of a trace."""
    headers = cloudevents.headers(
        command.command_id,
        source=b"/fault-adapter/send",
        kind=encoder.schema.fullname,
        at=command.record["issuedAt"],
        traceparent=str(continued(None)),
    )
    return Outgoing(topic, command.key.encode(), encoder.encode(command.record), headers)


def _report(commands: Sequence[_Command], faults: Sequence[str | None]) -> set[str]:
    """One line for each command; the ids of those that were not stored."""
    failed = set()
    for command, fault in zip(commands, faults, strict=True):
        if fault is None:
            line = {"sent": command.entry.operation.name, "commandId": command.command_id, "key": command.key}
            show.write(show.json_line(line))
        else:
            failed.add(command.command_id)
            sys.stderr.write(f"adapter: {command.command_id}: not sent: {fault}\n")
    return failed
