"""`adapter quarantine` and `adapter dead-letters`: list, show and reprocess records that could not be read."""

import argparse
import json
import re
import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Final

from adapter.cli import show
from adapter.cli.bus import compiled, connected, look_for
from adapter.cli.complaints import complain
from adapter.cli.exits import Exit
from adapter.cli.follow import since
from adapter.core.avro import to_json
from adapter.core.errors import Stop, Undecodable
from adapter.core.instant import utc
from adapter.core.kept import DeadLetter, Quarantined
from adapter.core.notification import Refusal
from adapter.core.wording import harmless
from adapter.ports import Outgoing
from adapter.server.records import quarantined_arrival
from adapter.settings import Bus, Cluster, Receiving, load
from adapter.transport.kafka.client import Edge, Follower, Seen, Sender, Start

_QUARANTINE: Final = """\
Bodies from the supplier that could not be read, each with the reason, the sender and the time: notifications that were
answered with 400, and replies to commands that said neither yes nor no.

`again` reads notifications with the current settings and schemas and publishes those that have become readable, just as
the server would have: under the same id, with the time at which they were received. Publishing one twice does no harm.
Those that are still unreadable stay, and so do replies: a command in doubt is settled with `adapter doubt`.

list and show need ADAPTER_KAFKA__BOOTSTRAP_SERVERS; again needs what `adapter server` needs. All need the right to read
the topic.

examples:
  adapter quarantine list --since 1d
  adapter quarantine show 0/17 > body.xml
  adapter quarantine again 0/17
  adapter translate command.json --reply body.xml         the event that a reply leads to now
  adapter quarantine again --since 2h        after correcting ADAPTER_SERVER__ACCEPTED_BUYERS
"""
_DEAD_LETTERS: Final = """\
Records of the commands topic that could not become commands. Fix the cause first, for example a schema missing from the
registry; then `again` writes them back to the commands topic unchanged, with key and headers, and a worker judges them
anew. If the command itself is wrong, for example an id that another one had, correct its JSON and send it.

needs ADAPTER_KAFKA__BOOTSTRAP_SERVERS, and the right to read the topic; show --json also needs ADAPTER_REGISTRY__URL.

examples:
  adapter dead-letters list --since 1d
  adapter dead-letters show 3/4711 > record.bin
  adapter dead-letters again 3/4711
  adapter dead-letters show 3/4711 --json > command.json        edit it, then: adapter send command.json
"""
_PLACE: Final = re.compile(r"([0-9]{1,9})/([0-9]{1,18})")
_AT_ONCE: Final = 4 * 1024 * 1024
"""Bytes of records that are sent together, unless one record alone is larger. Bounds the memory, since the pod in which
this runs is sized for its role alone.
"""

Place = tuple[int, int]
"""Partition and offset."""


def add(name: str, parser: argparse.ArgumentParser) -> None:
    quarantine = name == "quarantine"
    parser.epilog = _QUARANTINE if quarantine else _DEAD_LETTERS
    ways = parser.add_subparsers(title="what to do", metavar="list | show | again", required=True)
    listing = ways.add_parser("list", help="list where each is, its age, reason and sender; oldest first")
    show.add_form(listing)
    listing.set_defaults(run=_list)
    one = ways.add_parser("show", help="print the bytes of one, which may hold personal data")
    one.add_argument("place", metavar="PARTITION/OFFSET", help="which one, as shown by list")
    one.set_defaults(run=_show)
    if not quarantine:
        one.add_argument(
            "--json", action="store_true", help="print it as adapter send takes it, if its schema is known"
        )
    one.set_defaults(json=False)
    again = ways.add_parser(
        "again", help="publish those that have become readable" if quarantine else "send them again"
    )
    again.add_argument("places", nargs="*", metavar="PARTITION/OFFSET", help="which ones, as shown by list")
    again.set_defaults(run=_reread if quarantine else _resend)
    for way in (listing, again):
        way.add_argument("--since", metavar="WHEN", help="all since then: 2h, 2026-01-31T12:00:00Z or beginning")
    parser.set_defaults(quarantine=quarantine)


# -- look --------------------------------------------------------------------------------------------------------------


def _list(arguments: argparse.Namespace) -> Exit:
    start = Edge.FIRST if arguments.since is None else since(arguments.since, datetime.now(UTC))
    settings, told = load(Cluster), _quarantined if arguments.quarantine else _dead
    rows = sorted((told(seen) for seen in _kept(settings, arguments, start)), key=lambda row: row.at)
    show.listing(
        rows,
        text=show.as_text(arguments),
        record=asdict,
        head=_HEAD,
        cells=_cells,
        nothing="there is nothing",
    )
    return Exit.DONE


@dataclass(frozen=True, slots=True)
class Row:
    """A record as listed, without its content."""

    place: str
    at: str
    """When it arrived."""
    bytes: int | None
    reason: str
    detail: str
    origin: str


_HEAD: Final = ("PLACE", "AT", "BYTES", "WHY", "FROM")


def _cells(row: Row) -> tuple[str, ...]:
    size = "none" if row.bytes is None else str(row.bytes)
    return (row.place, row.at, size, f"{row.reason}: {row.detail}" if row.detail else row.reason, row.origin)


def _quarantined(seen: Seen) -> Row:
    told = Quarantined.of(seen.headers)
    sender = " ".join(filter(None, (told.address, told.subject)))
    if told.operation:
        sender = f"reply to {told.operation} {told.command_id}"
    return _row(seen, told, told.received_at, sender)


def _dead(seen: Seen) -> Row:
    told = DeadLetter.of(seen.headers)
    key = "no key" if seen.key is None else f"key {seen.key.decode(errors='replace')}"
    # Without a place it is somebody else's.
    place = f"{told.topic} {told.partition}/{told.offset}, " if told.topic else ""
    return _row(seen, told, told.at, f"{place}{key}")


def _row(seen: Seen, told: DeadLetter | Quarantined, at: str | None, origin: str) -> Row:
    return Row(
        place=f"{seen.partition}/{seen.offset}",
        at=at or utc(seen.at),
        bytes=None if seen.value is None else len(seen.value),
        reason=told.reason or "",
        detail=told.detail or "",
        origin=origin,
    )


def _show(arguments: argparse.Namespace) -> Exit:
    place = _place(arguments.place)
    if arguments.json:
        return _show_command(arguments, place)
    (seen,) = _named(load(Cluster), arguments, [place])
    value = seen.value or b""
    if sys.stdout.isatty():
        for line in value.decode(errors="replace").splitlines():
            show.write(line)
    else:
        sys.stdout.buffer.write(value)
    return Exit.DONE


def _show_command(arguments: argparse.Namespace, place: Place) -> Exit:
    settings = load(Bus)
    known = compiled(settings)
    (seen,) = _named(settings, arguments, [place])
    with connected(settings, known) as bus:
        try:
            found = bus.decode(seen.value, known.commands)
        except Undecodable as why:
            complain(f"{arguments.place}: {why.reason}: {why.detail}")
            return Exit.NOT_ACCEPTED
    complain(*(f"{path}: left out: no such field here" for path in found.unknown))
    content = {"command": found.name, **to_json(known.commands[found.name], found.record)}
    for line in json.dumps(content, indent=2, ensure_ascii=False).splitlines():
        show.write(harmless(line))
    return Exit.DONE


# -- take again --------------------------------------------------------------------------------------------------------


def _reread(arguments: argparse.Namespace) -> Exit:
    from adapter.app.server import reread  # noqa: PLC0415 -- see adapter.cli
    from adapter.app.start import load_catalogue  # noqa: PLC0415 -- see adapter.cli

    wanted, settings = _wanted(arguments), load(Receiving)
    known = load_catalogue(settings)
    with connected(settings, known) as bus:
        look_for(settings, bus.topics.events)
        event = reread(settings, known, bus.encoder(bus.topics.events, known.notification.event))

        def made(seen: Seen) -> Outgoing | str:
            told = Quarantined.of(seen.headers)
            if told.operation:
                return "it is a reply to a command"
            try:
                arrival = quarantined_arrival(told, seen.value or b"")
            except ValueError:
                return "no server has put it there"
            found = event(arrival)
            return f"{found.reason}: {found.detail}" if isinstance(found, Refusal) else found

        return _take(settings, arguments, wanted, made)


def _resend(arguments: argparse.Namespace) -> Exit:
    wanted, settings = _wanted(arguments), load(Cluster)
    topic = settings.topics.names().commands
    look_for(settings, topic)

    def made(seen: Seen) -> Outgoing | str:
        return Outgoing(topic, seen.key, seen.value, DeadLetter.own(seen.headers))

    return _take(settings, arguments, wanted, made)


def _wanted(arguments: argparse.Namespace) -> list[Place] | datetime | Edge:
    """The places of the records to take again, or from when on all are. Raises Stop."""
    if bool(arguments.places) == (arguments.since is not None):
        raise Stop("again: name records as the list has them, PARTITION/OFFSET, or all with --since")
    if arguments.places:
        return [_place(text) for text in arguments.places]
    return since(arguments.since, datetime.now(UTC))


def _take(
    settings: Cluster,
    arguments: argparse.Namespace,
    wanted: list[Place] | datetime | Edge,
    made: Callable[[Seen], Outgoing | str],
) -> Exit:
    """Send what `made` makes of each of these records, or report why it makes none."""
    chosen: Iterable[Seen]
    chosen = _named(settings, arguments, wanted) if isinstance(wanted, list) else _kept(settings, arguments, wanted)
    sender = Sender(settings.kafka.client(), max_message_bytes=settings.topics.max_message_bytes)
    code, waiting, size = Exit.DONE, list[tuple[str, Outgoing]](), 0
    for seen in chosen:
        place, record = f"{seen.partition}/{seen.offset}", made(seen)
        if isinstance(record, str):
            complain(f"{place}: stays: {record}")
            code = code or Exit.NOT_ACCEPTED
            continue
        waiting.append((place, record))
        size += len(record.value or b"")
        if size > _AT_ONCE:
            code = _sent(sender, waiting) or code
            waiting, size = [], 0
    return _sent(sender, waiting) or code


def _sent(sender: Sender, waiting: Sequence[tuple[str, Outgoing]]) -> Exit:
    code = Exit.DONE
    faults = sender.send([record for _, record in waiting])
    for (place, record), fault in zip(waiting, faults, strict=True):
        if fault is None:
            key = None if record.key is None else record.key.decode(errors="replace")
            show.write(show.json_line({"again": place, "topic": record.topic, "key": key}))
        else:
            complain(f"{place}: not written: {fault}")
            code = Exit.FAILED
    return code


# -- the topic ---------------------------------------------------------------------------------------------------------


def _kept(settings: Cluster, arguments: argparse.Namespace, start: Start) -> Generator[Seen]:
    """Raises Stop if there is no such topic, Unavailable."""
    names = settings.topics.names()
    topic = names.quarantine if arguments.quarantine else names.dead_letters
    with closing(Follower(settings.kafka.client(), topic, start=start)) as follower:
        yield from follower.rest()


def _named(settings: Cluster, arguments: argparse.Namespace, places: Sequence[Place]) -> list[Seen]:
    """Raises Stop if one of them is not there, Unavailable."""
    start: dict[int, int] = {}
    for number, offset in places:
        start[number] = min(offset, start.get(number, offset))
    left, found = set(places), list[Seen]()
    with closing(_kept(settings, arguments, start)) as kept:
        for seen in kept:
            if (seen.partition, seen.offset) in left:
                left.discard((seen.partition, seen.offset))
                found.append(seen)
                if not left:
                    break
    if left:
        raise Stop(*(f"{number}/{offset}: there is no such record" for number, offset in sorted(left)))
    return found


def _place(text: str) -> Place:
    """Raises Stop."""
    found = _PLACE.fullmatch(text)
    if found is None:
        raise Stop(f"{text[:100]}: is no place; write PARTITION/OFFSET as the list has it, such as 0/17")
    return int(found[1]), int(found[2])
