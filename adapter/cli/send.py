"""`adapter send`: commands written as JSON, encoded, put on the commands topic, and followed to their outcomes."""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime

from adapter.cli import show
from adapter.cli.bus import Client, compiled, connected, look_for
from adapter.cli.commands import FORM, Written, contents, read
from adapter.cli.complaints import complain
from adapter.cli.example import example
from adapter.cli.exits import Exit
from adapter.cli.follow import Outcomes, seconds
from adapter.core import cloudevents
from adapter.core.avro import Encoder
from adapter.core.errors import Stop
from adapter.ports import Outgoing
from adapter.settings import Bus, Offline, load
from adapter.telemetry import continued
from adapter.transport.kafka.client import Sender

_EPILOG = f"""\
{FORM}
If any command is wrong, nothing is sent.

needs ADAPTER_KAFKA__BOOTSTRAP_SERVERS and ADAPTER_REGISTRY__URL, and registered schemas.

examples:
  adapter send --example AddFaultReport > command.json
  adapter send command.json --wait
  jq '.[]' many.json | adapter send - --wait --timeout 5m
"""


def add(_name: str, parser: argparse.ArgumentParser) -> None:
    parser.epilog = _EPILOG
    parser.add_argument("files", nargs="*", metavar="FILE", help="files of commands, - for standard input")
    parser.add_argument("--example", metavar="COMMAND", help="print a command to fill in; send nothing")
    parser.add_argument("--wait", action="store_true", help="print each command's events until its outcome is final")
    parser.add_argument("--timeout", default="60s", help="how long to wait for the outcomes (%(default)s)")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> Exit:
    if arguments.example is not None:
        return _example(arguments.example)
    if not arguments.files:
        raise Stop("send: name a file, or - for standard input; see adapter send --help")
    timeout = seconds("--timeout", arguments.timeout)
    settings = load(Bus)
    known = compiled(settings)
    problems: list[str] = []
    commands = read(known, contents(arguments.files, problems), problems)
    with connected(settings, known) as bus, ExitStack() as stack:
        records = _encoded(commands, bus)
        look_for(settings, bus.topics.commands)
        # Before anything is sent: it starts where the topic ends now.
        follower = stack.enter_context(bus.following(bus.topics.events)) if arguments.wait else None
        sender = Sender(settings.kafka.client(), max_message_bytes=settings.topics.max_message_bytes)
        failed = _report(commands, sender.send(records))
        if follower is None:
            return Exit.FAILED if failed else Exit.DONE
        outcomes = Outcomes(bus, {c.command_id for c in commands} - failed)
        outcomes.follow(follower.read(time.monotonic() + timeout))
    complain(
        *(
            f"{command_id}: no final outcome within {arguments.timeout}; adapter stuck shows what waits; a "
            "commandId that was there before has no second outcome, and with other content it ends on "
            f"{bus.topics.dead_letters}"
            for command_id in sorted(outcomes.pending)
        )
    )
    if failed:
        return Exit.FAILED
    return Exit.NOT_ACCEPTED if outcomes.pending or outcomes.not_accepted else Exit.DONE


def _example(name: str) -> Exit:
    known = compiled(load(Offline))
    if name not in known.commands:
        raise Stop(f"--example {name}: no such command; there are {', '.join(known.commands)}")
    shown = example(known.commands[name], without=known.supplier.envelope, now=datetime.now(UTC))
    sys.stdout.write(json.dumps(shown, indent=2) + "\n")
    return Exit.DONE


def _encoded(commands: Sequence[Written], bus: Client) -> list[Outgoing]:
    """The records as they are written to the topic. Raises Stop if the registry lacks a schema, Unavailable."""
    topic = bus.topics.commands
    encoders = bus.encoders(topic, {c.entry.command.name: c.entry.command for c in commands}.values())
    return [_record(command, topic, encoders[command.entry.command.name]) for command in commands]


def _record(command: Written, topic: str, encoder: Encoder) -> Outgoing:
    """The record to send, with the start of a trace in its headers."""
    headers = cloudevents.headers(
        command.command_id,
        source=b"/fault-adapter/send",
        kind=encoder.schema.fullname,
        at=command.record["issuedAt"],
        traceparent=str(continued(None)),
    )
    return Outgoing(topic, command.key.encode(), encoder.encode(command.record), headers)


def _report(commands: Sequence[Written], faults: Sequence[str | None]) -> set[str]:
    """Prints one line for each command; returns the ids of those that were not stored."""
    failed = set()
    for command, fault in zip(commands, faults, strict=True):
        if fault is None:
            line = {"sent": command.entry.operation.name, "commandId": command.command_id, "key": command.key}
            show.write(show.json_line(line))
        else:
            failed.add(command.command_id)
            complain(f"{command.command_id}: not sent: {fault}")
    return failed
