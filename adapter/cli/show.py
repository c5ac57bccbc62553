"""Standard output: events as lines for a person on a terminal, as JSON lines in a pipe; lists; XML."""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from lxml import etree

from adapter.cli.bus import Client
from adapter.core import wording
from adapter.core.avro import Schema, to_json
from adapter.core.errors import Undecodable
from adapter.core.instant import utc
from adapter.transport.kafka.client import Seen

if TYPE_CHECKING:
    from adapter.app.translate import Published

_Found = TypeVar("_Found")

ENVELOPE: Final = ("event", "key", "at", "id")
"""What an event's JSON line has in front of the record's own fields."""


def add_form(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--text", action="store_true", help="print lines for people even if the output is not a terminal"
    )


def as_text(arguments: argparse.Namespace) -> bool:
    return bool(arguments.text) or sys.stdout.isatty()


def write(line: str) -> None:
    """Print one line and flush it, without any control characters that could affect a terminal."""
    sys.stdout.write("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line) + "\n")
    sys.stdout.flush()


def listing(
    found: Sequence[_Found],
    *,
    text: bool,
    record: Callable[[_Found], Mapping[str, Any]],
    head: tuple[str, ...],
    cells: Callable[[_Found], tuple[str, ...]],
    nothing: str,
) -> None:
    """Print what was found: for a person a table below `head`, or the line `nothing`; else a JSON line for each."""
    if not text:
        for each in found:
            write(json_line(record(each)))
    elif found:
        for line in wording.columns([head, *map(cells, found)]):
            write(line)
    else:
        write(nothing)


def event(bus: Client, seen: Seen, *, text: bool) -> str:
    """The line for a record of the events topic. For a record of somebody else's, it says that it is unreadable."""
    at, key = wording.moment(seen.at), (seen.key or b"").decode(errors="replace")
    try:
        decoded = bus.decode(seen.value, bus.known.events)
    except Undecodable as undecodable:
        if text:
            place = f"partition {seen.partition}, offset {seen.offset}"
            return _aligned(at, key, f"unreadable: {undecodable.reason}", f"{place}; {undecodable.detail}")
        told = {"unreadable": undecodable.reason, "key": key, "at": utc(seen.at)}
        return json_line({**told, "partition": seen.partition, "offset": seen.offset})
    if text:
        name, record = decoded.name, decoded.record
        return _aligned(at, key, wording.headline(name, record), wording.particulars(name, record))
    schema = bus.known.events[decoded.name]
    return event_line(schema, decoded.record, key=key, at=utc(seen.at), identifier=seen.header("ce_id"))


def event_line(schema: Schema, record: Mapping[str, Any], *, key: str, at: str, identifier: str) -> str:
    """The JSON line of an event."""
    envelope = dict(zip(ENVELOPE, (schema.name, key, at, identifier), strict=True))
    return json_line(envelope | to_json(schema, record))


def published(made: "Published") -> None:
    """Print the JSON line of an event that would be published."""
    headers = made.headers
    write(event_line(made.schema, made.record, key=made.key, at=headers["ce_time"], identifier=headers["ce_id"]))


def document(content: bytes) -> None:
    """Print an XML document of ours, indented."""
    root = etree.fromstring(content)
    etree.indent(root)
    # Control characters, which could affect a terminal, are written as character references.
    text = "".join(
        c if c.isprintable() or c == "\n" else f"&#{ord(c)};" for c in etree.tostring(root, encoding="unicode")
    )
    for line in text.split("\n"):
        write(line)


def json_line(content: Mapping[str, Any]) -> str:
    """JSON without characters that `write` would replace."""
    return wording.harmless(json.dumps(content, ensure_ascii=False))


def _aligned(at: str, key: str, told: str, more: str) -> str:
    return f"{at}  {key:<12}  {told:<44}  {more}".rstrip()
