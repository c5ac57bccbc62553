"""`adapter stuck`: commands that do not come to an end, from the topics or from the workers themselves."""

import argparse
import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit

from adapter.cli import journal, show
from adapter.cli.bus import Client, compiled, connected
from adapter.cli.exits import Exit
from adapter.cli.follow import seconds
from adapter.cli.journal import Partition
from adapter.core import wording
from adapter.core.errors import Stop, Unavailable
from adapter.core.journal import Entry, Kind, Source
from adapter.settings import Bus, load
from adapter.transport.kafka.client import Seen, moment

_EPILOG = """\
Without --worker it reads the topics. It lists the oldest unfinished command of each partition, and all commands that
are in doubt or wait behind one in doubt.

With --worker it asks a worker, at the address where it serves /metrics, what each command is waiting for at the moment.
Only the worker knows that. No worker can read commands in a transaction that its producer has not ended, nor those
behind it on the same partition: without --worker, the first of them is listed for each partition.

needs ADAPTER_KAFKA__BOOTSTRAP_SERVERS and ADAPTER_REGISTRY__URL; with --worker, nothing.

examples:
  adapter stuck
  adapter stuck --older 10m
  adapter stuck --worker http://127.0.0.1:9464
"""

_TIMEOUT: Final = 10.0


@dataclass(frozen=True, slots=True)
class Row:
    """A command that has not ended."""

    key: str
    commandId: str  # noqa: N815 -- as the events write it
    operation: str
    partition: int
    offset: int
    seconds: float
    """Age: since the estate sent it, or, with --worker, since the worker received it."""
    why: str


def add(_name: str, parser: argparse.ArgumentParser) -> None:
    parser.epilog = _EPILOG
    parser.add_argument("--older", default="1m", metavar="TIME", help="only commands older than this (%(default)s)")
    parser.add_argument("--worker", action="append", default=[], metavar="URL", help="ask this worker; may be repeated")
    show.add_form(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> Exit:
    older = seconds("--older", arguments.older, zero=True)
    found = [row for url in arguments.worker for row in _asked(url)] if arguments.worker else _read()
    rows = sorted((row for row in found if row.seconds >= older), key=lambda row: -row.seconds)
    show.listing(
        rows,
        text=show.as_text(arguments),
        record=asdict,
        head=_HEAD,
        cells=_cells,
        nothing=f"nothing is unfinished for longer than {arguments.older}",
    )
    return Exit.DONE


_HEAD: Final = ("KEY", "SINCE", "OPERATION", "COMMAND", "PARTITION", "OFFSET", "WHY")


def _cells(row: Row) -> tuple[str, ...]:
    since = wording.span(timedelta(seconds=row.seconds))
    return (row.key, since, row.operation, row.commandId, str(row.partition), str(row.offset), row.why)


# -- from the topics ---------------------------------------------------------------------------------------------------


def _read() -> list[Row]:
    settings = load(Bus)
    with connected(settings, compiled(settings)) as bus:
        partitions = journal.partitions(bus)
        rows = [row for found in partitions for row in _residents(bus, found)]
        return rows + list(_oldest(bus, partitions))


def _residents(bus: Client, found: Partition) -> Iterator[Row]:
    """Commands that exist in the journal only."""
    for entry in found.known.residents:
        if entry.source is None:
            continue
        name, record = journal.command(bus, entry.source.value)
        why = _why(entry)
        if entry.kind is Kind.HELD and record.get(bus.known.supplier.notification.reference) is not None:
            why += "; adapter doubt settles it"  # one about an address has no ticket, and ends by itself
        sent = moment(entry.source.timestamp)
        yield _row(entry.source, command_id=entry.command_id, operation=name, sent=sent, why=why)


_OPEN: Final = "in a transaction that its producer has not ended; all behind it waits"


def _oldest(bus: Client, partitions: Sequence[Partition]) -> Iterator[Row]:
    """The first unfinished command of each partition, by its committed offset. On a partition where workers can read no
    further, it is the first command of the open transaction.
    """
    waiting = {found.number: found for found in partitions}
    with bus.following(bus.topics.commands, start={n: found.position for n, found in waiting.items()}) as follower:
        for seen in follower.rest():
            found = waiting.get(seen.partition)
            if found is None or _passed(found, seen):
                continue
            del waiting[seen.partition]
            name, command_id = _named(bus, seen)
            entry = found.known.open.get(command_id)
            why = "not tried yet, or a query that is" if entry is None else _why(entry)
            yield _row(seen, command_id=command_id, operation=name, sent=seen.at, why=why)
            if not waiting:
                return
        ends = {number: end for number, end in follower.ends.items() if number in waiting}
    with bus.following(bus.topics.commands, start=ends, committed=False) as follower:
        for seen in follower.rest():
            if seen.offset == ends[seen.partition]:
                name, command_id = _named(bus, seen)
                yield _row(seen, command_id=command_id, operation=name, sent=seen.at, why=_OPEN)


def _named(bus: Client, seen: Seen) -> tuple[str, str]:
    """Name and id of the command, as far as the record can be read."""
    name, record = journal.command(bus, seen.value)
    return name, str(record.get("commandId", ""))


def _passed(found: Partition, seen: Seen) -> bool:
    """Whether it has ended or is in the journal, though the committed offset has not passed it."""
    known = found.known
    return (
        seen.offset in known.finished
        or seen.offset in known.letters
        or any(entry.offset == seen.offset for entry in known.residents)
    )


def _why(entry: Entry) -> str:
    def told(seconds: float) -> str:
        return wording.moment(moment(seconds))

    match entry.kind:
        case Kind.HELD:
            return f"in doubt until {told(entry.ends_at)}"
        case Kind.PARKED:
            return "waits behind one that is in doubt"
        case Kind.CLEARED:
            return f"call {entry.attempt} did nothing, at {told(entry.at)}; to be called again"
        case _:
            return f"call {entry.attempt} is under way or was cut off, since {told(entry.at)}"


def _row(seen: Seen | Source, *, command_id: str, operation: str, sent: datetime, why: str) -> Row:
    return Row(
        key=(seen.key or b"").decode(errors="replace"),
        commandId=command_id,
        operation=operation or "unreadable",
        partition=seen.partition,
        offset=seen.offset,
        seconds=round((datetime.now(UTC) - sent).total_seconds(), 1),
        why=why,
    )


# -- from the workers --------------------------------------------------------------------------------------------------

_WHY: Final = {
    "ticket": "waits for its ticket to have the supplier's reference",
    "doubt": "in doubt; adapter doubt list shows until when",
    "registry": "the schema registry does not answer",
    "its turn": "its turn has come",
    "event-too-large": "halted: its event is too large for the topic; see the log",
    "dead-letter-too-large": "halted: its dead letter is too large for the topic; see the log",
    "calling": "a call, or the commit of its outcome, is under way",
    "interrupted": "a call that was cut off may still be under way",
}
"""Explanations of the reasons in a worker's status. Any other reason is the result of the command's last call."""

_GATE: Final = {
    "breaker": "the circuit breaker is open",
    "places": "as many calls are under way as its settings allow",
    "rate": "as many calls a second are made as its settings allow",
}
"""What holds back all calls of a worker."""


def _asked(url: str) -> Iterator[Row]:
    """Raises Stop, Unavailable."""
    status = _status(url)
    why_not = _WHY | {"gate": _gate(status["calls"])}
    for lane in status["waiting"]:
        why = why_not.get(lane["why"], f"to be called again after {lane['why']}")
        behind = f"; {lane['behind']} more behind it" if lane["behind"] else ""
        yield Row(lane["key"], "", "", lane["partition"], lane["offset"], lane["seconds"], why + behind)


def _gate(calls: dict[str, Any]) -> str:
    why, probe = _GATE.get(calls["held_back_by"], "other calls come first"), calls["probe_in_seconds"]
    return f"waits for the supplier: {why}" + (f"; the next probe is in {probe:.0f} s" if probe else "")


def _status(url: str) -> dict[str, Any]:
    address = f"{url.rstrip('/')}/status"
    no_address = Stop(f"--worker {url}: is not a web address; write for example http://127.0.0.1:9464")
    try:
        parts = urlsplit(address)
        good = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:  # a port beyond 65535: the resolver would take another in its place
        good = False
    if not good:
        raise no_address
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(address, timeout=_TIMEOUT) as answer:
            status = json.load(answer)
    except (http.client.InvalidURL, UnicodeEncodeError):
        raise no_address from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise Unavailable(f"{address}: {(isinstance(reason, OSError) and reason.strerror) or reason}") from None
    if not isinstance(status, dict) or "waiting" not in status:
        raise Stop(f"--worker {url}: no worker shows itself there")
    return status
