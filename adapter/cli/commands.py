"""Reads commands written as JSON from files, and reports everything that is wrong in them, with its position."""

import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from adapter.catalogue import Catalogue, CompiledOperation
from adapter.cli.complaints import complain
from adapter.core.avro import from_json
from adapter.core.command import COMMAND_ID_LIMIT, Wait
from adapter.core.errors import Refused, Stop, Undecodable
from adapter.core.instant import utc
from adapter.core.operation import Problem

FORM: Final = """\
A file holds one JSON object, an array of objects, or several objects in a row. "command" names the record; the other
fields are the record's own. commandId and issuedAt are filled in where they are missing. Leave out what you do not fill
in of an example: an optional record without content goes to the supplier as an empty element."""


@dataclass(frozen=True, slots=True)
class Written:
    """A command as it is written to the topic."""

    entry: CompiledOperation
    record: dict[str, Any]

    @property
    def command_id(self) -> str:
        return str(self.record["commandId"])

    @property
    def key(self) -> str:
        return str(self.record[self.entry.operation.key])


def contents(files: Sequence[str], problems: list[str]) -> Iterator[tuple[str, bytes]]:
    """The bytes of each file with its name for messages; adds those that can't be read to `problems`."""
    for file in files:
        name = "standard input" if file == "-" else file
        if file == "-" and sys.stdin is None:
            problems.append(f"{name}: is closed")
            continue
        try:
            yield name, sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        except OSError as error:
            problems.append(f"{name}: {error.strerror}")


def read(known: Catalogue, sources: Iterable[tuple[str, bytes]], problems: list[str]) -> list[Written]:
    """All commands of all `sources`. Raises Stop with everything that is wrong with them, and the `problems`."""
    commands: list[Written] = []
    seen: set[str] = set()
    given = False
    for source, content in sources:
        given = True
        for where, value in _objects(source, content, problems):
            command = _command(known, where, value, problems)
            if command is None:
                continue
            if command.command_id in seen:
                problems.append(f"{where}: commandId: another command here has the same")
            seen.add(command.command_id)
            commands.append(command)
    if given and not commands and not problems:
        problems.append("there is no command in the input")
    if problems:
        raise Stop(*problems)
    return commands


def complain_of_refusal(command: Written, refused: Refused | Undecodable) -> None:
    """Print why no request can be made of it."""
    problems = refused.problems if isinstance(refused, Refused) else (refused.detail,)
    complain(*(f"{command.command_id}: refused: {problem}" for problem in problems))


def complain_of_warnings(command: Written, warnings: Iterable[Problem]) -> None:
    """Print why the supplier may refuse it."""
    complain(*(f"{command.command_id}: warning: {warning}" for warning in warnings))


def complain_of_wait(command: Written, wait: Wait) -> None:
    """Print that it has no outcome yet."""
    complain(f"{command.command_id}: no event yet: a worker would try again ({wait.reason})")


def _objects(name: str, content: bytes, problems: list[str]) -> Iterator[tuple[str, Any]]:
    """Each JSON value of a file with its position."""
    try:
        text = content.decode()
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
    """The JSON values one after the other, each with the line where it begins, up to the first that is invalid."""
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
        except ValueError:  # an integer of more digits than Python converts
            problems.append(f"{name}, line {line}: holds a number of too many digits")
            return
        except RecursionError:
            problems.append(f"{name}, line {line}: is nested too deeply")
            return
        yield line, value
        line += text.count("\n", at, end)
        at = end


class _Twice(Exception):  # noqa: N818 -- named for what it says
    """An object has the same name twice, of which only one value could be sent."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, value in pairs:
        if name in made:
            raise _Twice(f"{name[:100]}: is there twice")
        made[name] = value
    return made


_JSON: Final = json.JSONDecoder(object_pairs_hook=_once)
_SOMETHING: Final = re.compile(r"[^ \t\r\n]")


def _command(known: Catalogue, where: str, content: Any, problems: list[str]) -> Written | None:
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
    fields.setdefault("issuedAt", utc(datetime.now(UTC)))
    try:
        record = from_json(entry.command, fields)
    except Refused as refused:
        problems += [f"{where}: {problem}" for problem in refused.problems]
        return None
    if not record["commandId"].strip():
        problems.append(f"{where}: commandId: is blank")
    if len(record["commandId"]) > COMMAND_ID_LIMIT:
        problems.append(f"{where}: commandId: longer than {COMMAND_ID_LIMIT}")
    return Written(entry, record)
