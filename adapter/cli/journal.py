"""Reads from the workers' journal which commands have not ended, just as a new owner of a partition does."""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Final

from adapter.cli.bus import Client, look_for
from adapter.cli.complaints import complain
from adapter.core import journal
from adapter.core.errors import Foreign, Stop, Unavailable, Undecodable
from adapter.core.journal import Entry, Kind, Recovered, recover
from adapter.core.operation import Operation
from adapter.pause import patiently
from adapter.ports import JournalTail
from adapter.transport.kafka.admin import Admin
from adapter.transport.kafka.journal import KafkaJournal
from adapter.transport.kafka.span import Patience

_PATIENCE: Final = 15.0
"""Seconds for which a partition that does not answer is asked again: its leader may be moving, or it may be new."""


@dataclass(frozen=True, slots=True)
class Partition:
    number: int
    position: int
    """Committed offset of the commands."""
    known: Recovered


@dataclass(frozen=True, slots=True)
class Held:
    """A command in doubt."""

    entry: Entry
    operation: Operation
    reference: str | None
    """Of its ticket; None for a command about an address."""
    parked: int
    """Number of commands that wait behind it in the journal."""

    @property
    def key(self) -> str:
        assert self.entry.source is not None, "the journal has the record of what it holds"
        return (self.entry.source.key or b"").decode(errors="replace")


def partitions(bus: Client) -> list[Partition]:
    """Raises Stop if a topic is missing or the workers' group may not be seen, Unavailable."""
    topics, kafka = bus.topics, bus.settings.kafka
    counts = look_for(bus.settings, topics.commands, topics.journal)
    with suppress(Unavailable):  # its coordinator may have just started: `_tails` has the patience for that
        # Asked for offsets, librdkafka looks for the coordinator of a group that it may not see and says nothing.
        if Admin(kafka.client()).group_rights(kafka.group_id) == frozenset():
            raise Stop(f"{kafka.group_id}: no right to see this consumer group; grant DESCRIBE on it")
    found = []
    for number, tail in enumerate(bus.run(_tails(bus, counts[topics.commands]))):
        places = ((f"partition {number}, offset {at}", value) for at, value in tail.records)
        entries = [entry for place, value in places for entry in _entries(bus, value, place)]
        found.append(Partition(number, tail.position, recover(entries, tail.position)))
    return found


def _entries(bus: Client, value: bytes, place: str) -> list[Entry]:
    """The entries of one record. A record that can't be ours is skipped, as workers do. An unreadable one that may be
    ours makes a worker wait; here a message says that something may be missing.
    """
    try:
        return journal.entries(bus.decode(value, bus.known.journal).record)
    except Foreign:
        return []
    except Undecodable as why:
        complain(f"journal {place}: not readable, what it tells is missing: {why}")
        return []


async def _tails(bus: Client, count: int) -> list[JournalTail]:
    topics, settings = bus.topics, bus.settings.kafka
    # Not shown: that one broker does not answer while others do. If none does, that is raised.
    logging.getLogger("librdkafka").addHandler(logging.NullHandler())
    reader = KafkaJournal(
        client=settings.client(),
        commands=topics.commands,
        journal=topics.journal,
        group=settings.group_id,
        memory=False,
        patience=Patience(timedelta(), lambda _, _seconds: None),
    )
    try:
        return await asyncio.gather(*(patiently(partial(reader.tail, number), _PATIENCE) for number in range(count)))
    finally:
        await reader.close()


def held(bus: Client, found: Partition) -> Iterator[Held]:
    """Its commands in doubt, in the order of the calls."""
    sources = [(entry, entry.source) for entry in found.known.residents if entry.source is not None]
    behind = Counter(source.key for entry, source in sources if entry.kind is Kind.PARKED)
    for entry, source in sources:
        if entry.kind is Kind.HELD:
            name, record = command(bus, source.value)
            if name in bus.known.operations:
                operation = bus.known.operations[name].operation
                reference = record.get(bus.known.supplier.notification.reference)
                yield Held(entry, operation, reference, behind[source.key])


def command(bus: Client, value: bytes | None) -> tuple[str, dict[str, Any]]:
    """Name and record of a command; no name for what is none."""
    try:
        decoded = bus.decode(value, bus.known.commands)
    except Undecodable:
        return "", {}
    return decoded.name, decoded.record
