"""`adapter tickets`: the state of the tickets, or one ticket with all its events."""

import argparse
import heapq
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from adapter.cli import show
from adapter.cli.bus import Client, compiled, connected
from adapter.cli.complaints import complain
from adapter.cli.exits import Exit
from adapter.cli.follow import timeline
from adapter.core import wording
from adapter.core.avro import Decoded, to_json
from adapter.core.document import trimmed
from adapter.core.errors import Undecodable
from adapter.core.ticket import Clock, Status, Ticket, ticket
from adapter.settings import Bus, load
from adapter.transport.kafka.client import Edge, Seen

_EPILOG = """\
Reads the tickets topic, which the projector writes, and for a single ticket also its events. Without a reference,
Closed and Rejected tickets are left out. In a pipe it prints the records as JSON lines; for a single ticket its events
follow.

needs ADAPTER_KAFKA__BOOTSTRAP_SERVERS and ADAPTER_REGISTRY__URL.

examples:
  adapter tickets                      a table, with the nearest deadline first
  adapter tickets SP-1001              its state, clock and deadline, and its timeline
  adapter tickets | jq -r 'select(.status == "RESOLVED") | [.resolveDeadline, .buyerFaultReference] | @tsv' | sort
"""

_MOST: Final = 1000
"""Most rows of the table, which is held in memory."""
_ENDED: Final = frozenset({Status.CLOSED, Status.REJECTED})


def add(_name: str, parser: argparse.ArgumentParser) -> None:
    parser.epilog = _EPILOG
    parser.add_argument("reference", nargs="?", metavar="REFERENCE", help="the buyer's reference of one ticket")
    parser.add_argument("--all", action="store_true", help="include Closed and Rejected tickets")
    show.add_form(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> Exit:
    settings = load(Bus)
    text = show.as_text(arguments)
    with connected(settings, compiled(settings)) as bus:
        if arguments.reference is not None:
            return _one(bus, trimmed(arguments.reference), text=text)
        return _table(bus, everything=arguments.all) if text else _lines(bus, everything=arguments.all)


# -- all of them -------------------------------------------------------------------------------------------------------


def _table(bus: Client, *, everything: bool) -> Exit:
    now = datetime.now(UTC)
    open_, ended = 0, 0

    def wanted() -> Iterator[Ticket]:
        nonlocal open_, ended
        for _, found in _newest(bus):
            if found.status in _ENDED and not everything:
                ended += 1
            else:
                open_ += 1
                yield found

    first = heapq.nsmallest(_MOST, wanted(), key=lambda found: (found.deadline or _NEVER, found.updated_at))
    if first:
        for line in wording.columns([_HEAD, *(_row(found, now) for found in first)]):
            show.write(line)
    elif not ended:
        show.write("no tickets; adapter projector makes them from the events")
    if open_ > len(first):
        show.write(f"{open_ - len(first)} more: a pipe has all of them")
    if ended:
        show.write(f"{ended} more are Closed or Rejected: --all shows them")
    return Exit.DONE


def _lines(bus: Client, *, everything: bool) -> Exit:
    for record, found in _newest(bus):
        if everything or found.status not in _ENDED:
            show.write(_json(bus, record))
    return Exit.DONE


def _newest(bus: Client) -> Iterator[tuple[Decoded, Ticket]]:
    """The current state of every ticket, with its record.

    The topic is read twice, first for the offsets alone. Even a compacted topic has several records of one key, and the
    newest ones of all keys may not fit in memory.
    """
    newest: dict[bytes | None, int] = {}
    with bus.following(bus.topics.tickets, start=Edge.FIRST) as follower:
        for seen in follower.rest():
            newest[seen.key] = seen.offset
    with bus.following(bus.topics.tickets, start=Edge.FIRST) as follower:
        for seen in follower.rest():
            at = newest.get(seen.key)
            if at is None or seen.offset < at:
                continue
            del newest[seen.key]
            record = _decoded(bus, seen)
            if record is not None:
                yield record, ticket(record.record)


_HEAD: Final = ("REFERENCE", "STATUS", "SINCE", "SLA CLOCK", "ANSWER BEFORE", "SUPPLIER'S", "EVENTS")
_NEVER: Final = datetime.max.replace(tzinfo=UTC)


def _row(found: Ticket, now: datetime) -> tuple[str, ...]:
    return (
        found.reference,
        _status(found),
        wording.moment(found.status_since) if found.status_since else "",
        _clock(found, now),
        f"{wording.moment(found.deadline)} {_left(found.deadline, now)}" if found.deadline else "",
        found.maintainer_reference or "",
        str(found.events),
    )


# -- one of them -------------------------------------------------------------------------------------------------------


def _one(bus: Client, reference: str, *, text: bool) -> Exit:
    key = reference.encode()
    latest: Seen | None = None
    with bus.following(bus.topics.tickets, start=Edge.FIRST, keys=[key]) as follower:
        for seen in follower.rest():
            if seen.key == key:
                latest = seen
    record = _decoded(bus, latest) if latest else None
    found = ticket(record.record) if record else None
    if record and found:
        for line in _portrait(found, datetime.now(UTC)) if text else [_json(bus, record)]:
            show.write(line)
    elif text:
        show.write(
            f"{reference}: not in {bus.topics.tickets}: unknown, forgotten, or no projector has run; its events:"
        )
    events, newer = 0, 0
    for seen in timeline(bus, {key}, found.opened_at if found else Edge.FIRST):
        show.write(show.event(bus, seen, text=text))
        events += 1
        newer += found is not None and seen.at > found.updated_at
    if newer:
        complain(f"{reference}: {newer} events are newer than this state; is a projector running?")
    if found is None and not events:
        complain(f"{reference}: no such ticket")
        return Exit.FAILED
    return Exit.DONE


def _portrait(found: Ticket, now: datetime) -> Iterator[str]:
    yield found.reference
    facts = [
        ("status", f"{_status(found)}{f' since {wording.moment(found.status_since)}' if found.status_since else ''}")
    ]
    if found.maintainer_reference:
        facts.append(("supplier's", found.maintainer_reference))
    facts.append(("opened", f"{wording.moment(found.opened_at)} by the {found.origin.value.lower()}"))
    facts.append(("SLA clock", _clock(found, now)))
    if found.deadline:
        facts.append(
            ("answer", f"with ResolveResponse before {wording.moment(found.deadline)} {_left(found.deadline, now)}")
        )
    facts += [("appointment", wording.appointment(visit)) for visit in found.appointments]
    for command in found.commands:
        code = f" {command.code}" if command.code else ""
        facts.append(
            ("command", f"{command.operation} {wording.word(command.outcome)}{code}, {wording.moment(command.at)}")
        )
    counts = f"{found.events}, {found.late} came late"
    if found.last_illegal:
        before, after = found.last_illegal.before, found.last_illegal.after
        counts += f"; {found.illegal} changes of status the contract does not have, the last {before} to {after}"
    facts.append(("events", counts))
    for line in wording.columns(facts):
        yield f"  {line}"
    yield ""


# -- words -------------------------------------------------------------------------------------------------------------


def _decoded(bus: Client, seen: Seen) -> Decoded | None:
    """The ticket in a record; None for a tombstone, and for a record that is no ticket, which a message reports."""
    if seen.value is None:
        return None
    try:
        return bus.decode(seen.value, bus.known.tickets)
    except Undecodable as undecodable:
        place = f"{bus.topics.tickets} partition {seen.partition} offset {seen.offset}"
        complain(f"{place}: not a ticket: {undecodable}")
        return None


def _json(bus: Client, record: Decoded) -> str:
    shown = to_json(bus.known.tickets[record.name], record.record)
    del shown["seen"]  # the projector's own, and no text
    return show.json_line(shown)


def _status(found: Ticket) -> str:
    return found.status.value if found.status else "no word yet"


def _clock(found: Ticket, now: datetime) -> str:
    if found.clock is Clock.NOT_STARTED:
        return "not started"
    ran, paused = found.clocked(now)
    return f"{wording.word(found.clock)}, ran {wording.span(ran)}{f', paused {wording.span(paused)}' if paused else ''}"


def _left(deadline: datetime, now: datetime) -> str:
    return f"(in {wording.span(deadline - now)})" if deadline > now else f"({wording.span(now - deadline)} ago)"
