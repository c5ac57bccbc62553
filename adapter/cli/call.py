"""`adapter call`: sends one command to the supplier by hand, and shows what it answers."""

import argparse
import asyncio
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from adapter.cli import show
from adapter.cli.commands import (
    FORM,
    Written,
    complain_of_refusal,
    complain_of_wait,
    complain_of_warnings,
    contents,
    read,
)
from adapter.cli.complaints import complain
from adapter.cli.exits import Exit
from adapter.core.command import Wait
from adapter.core.errors import Refused, Stop, Undecodable
from adapter.core.operation import Repeat
from adapter.ports import NotSent
from adapter.settings import Calling, load
from adapter.telemetry import start_logging

if TYPE_CHECKING:
    from adapter.app.call import Called
    from adapter.app.translate import Translator

_EPILOG = f"""\
For the first contact with a supplier: makes one call with a worker's settings, certificates and code, and prints the
request, the answer as it came and, as the last line, the event that a worker would publish then. Neither Kafka nor the
registry is needed.

A command that only asks is sent at once. One that changes something at the supplier needs --yes, since nobody but you
will know of it: it is in no journal, no event tells of it, and no worker recognises its repeat.

{FORM}

needs the settings of a worker, but for ADAPTER_KAFKA__… and ADAPTER_REGISTRY__….

examples:
  adapter send --example QueryAppointmentAvailability > query.json
  adapter call query.json
  adapter call query.json --save reply.xml
  adapter translate query.json --reply reply.xml           the event again, without another call
  adapter call report.json --yes                           opens a ticket
"""


def add(_name: str, parser: argparse.ArgumentParser) -> None:
    parser.epilog = _EPILOG
    parser.add_argument("files", nargs=1, metavar="FILE", help="the command, - for standard input")
    parser.add_argument("--yes", action="store_true", help="send it even if it changes something at the supplier")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the body of the answer there, byte for byte")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> Exit:
    from adapter.app.translate import Translator  # noqa: PLC0415 -- see adapter.cli

    settings = load(Calling)
    translator = Translator(settings, start_logging(level="error"))
    problems: list[str] = []
    commands = read(translator.known, contents(arguments.files, problems), problems)
    if len(commands) > 1:
        raise Stop(f"there are {len(commands)} commands in the input; one is sent at a time")
    (command,) = commands
    operation = command.entry.operation
    if operation.repeat is not Repeat.SAFE and not arguments.yes:
        raise Stop(f"{operation.name} changes something at the supplier, and nobody but you will know; add --yes")
    with _opened(arguments.save) as saved:  # before the call, which can't be made again if it can't be opened
        try:
            called = asyncio.run(_call(settings, translator, command))
        except (Refused, Undecodable) as refused:
            complain_of_refusal(command, refused)
            return Exit.NOT_ACCEPTED
        code = _show(called, command)
        if saved is not None and called.exchange.reply is not None:
            saved.write(called.exchange.reply.body)
    return code


def _opened(path: Path | None) -> AbstractContextManager[BinaryIO | None]:
    try:
        return nullcontext() if path is None else path.open("wb")
    except OSError as error:
        raise Stop(f"--save {path}: {error.strerror}") from None


async def _call(settings: Calling, translator: "Translator", command: Written) -> "Called":
    from adapter.app.call import call  # noqa: PLC0415 -- see adapter.cli

    request = await translator.request(command.entry, command.record)
    complain_of_warnings(command, request.warnings)
    return await call(settings, translator, command.entry, command.record)


def _show(called: "Called", command: Written) -> Exit:
    exchange, outcome = called.exchange, called.outcome
    _head(f"POST {called.url}", exchange.headers)
    show.document(exchange.body)
    show.write("")
    if (reply := exchange.reply) is not None:
        _head(f"{reply.status} after {exchange.seconds:.3f} s", reply.headers)
        for line in reply.body.decode(errors="replace").splitlines():
            show.write(line)
        show.write("")
    if (failure := exchange.failure) is not None:
        what = "not sent" if isinstance(failure, NotSent) else "sent, but no whole answer came"
        complain(f"{command.command_id}: {what}: {failure}; adapter check worker looks at the connection alone")
    if isinstance(outcome, Wait):
        complain_of_wait(command, outcome)
        return Exit.NOT_ACCEPTED if failure is None else Exit.FAILED
    show.published(outcome)
    return Exit.DONE if outcome.schema is command.entry.accepted else Exit.NOT_ACCEPTED


def _head(first: str, headers: Mapping[str, str]) -> None:
    show.write(first)
    for name, value in headers.items():
        show.write(f"{name}: {value}")
    show.write("")
