"""Reads the journal when a partition is taken over: from the mark to its real end, although transactions may be open.

The end is the high watermark that a read_uncommitted reader sees, fetched after the committed offset (which itself
waits for pending transactions). A read_committed reader that has passed that point has seen every intent that can still
lead to a call; an open transaction of a dead worker would otherwise hide the entries behind it.

Whatever ends or holds a command is written to the journal in one transaction with the committed offset. So an older
offset, which comes with an older mark, only means more to read.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from confluent_kafka import Consumer, TopicPartition

from adapter.core.errors import Stop, Unavailable
from adapter.core.journal import commands_of, read_mark
from adapter.ports import JournalTail
from adapter.transport.kafka.admin import Admin, resetting
from adapter.transport.kafka.identity import identities, still
from adapter.transport.kafka.span import (
    STEP,
    Patience,
    bounds,
    committed,
    opened,
    read,
    reader_properties,
    undecided_properties,
)


class KafkaJournal:
    """`ports.JournalReader`; several partitions are read in parallel.

    `memory`, for a worker that takes the partition over: also read as far before the mark as the mark says, so that a
    command that is repeated after a restart is still recognised. The group must have committed offsets (`introduce`).
    """

    def __init__(
        self,
        *,
        client: Mapping[str, str],
        commands: str,
        journal: str,
        group: str,
        memory: bool,
        patience: Patience,
    ) -> None:
        self._client = client
        self._commands = commands
        self._journal = journal
        self._group = group
        self._memory = memory
        self._patience = patience
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="journal")
        self._closing = threading.Event()
        self._admin = Admin(client, timeout=timedelta(seconds=STEP))

    async def tail(self, partition: int) -> JournalTail:
        given_up = threading.Event()

        def going() -> bool:
            return not (given_up.is_set() or self._closing.is_set())

        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._tail, partition, going)
        finally:  # cancelled, since the partition is gone: a transaction that hangs would keep the thread
            given_up.set()

    async def close(self) -> None:
        self._closing.set()
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)

    def _tail(self, partition: int, going: Callable[[], bool]) -> JournalTail:
        what = f"journal partition {partition}"
        client, group = self._client, self._group
        with opened(what, reader_properties(client, group), undecided_properties(client, group)) as (reader, newest):
            commands = TopicPartition(self._commands, partition)
            stands = committed(reader, newest, commands, self._patience, going)
            if self._memory and stands.offset < 0:  # every partition has one: its coordinator has just started
                raise Unavailable(f"{what}: no committed offset")
            # Asked each time: a topic that is deleted and made anew meanwhile is another one, with offsets of its own.
            now = identities(self._admin, (self._commands, self._journal))
            before = commands_of(stands.metadata)
            if self._memory:
                still(self._commands, partition, before, now[self._commands], group=self._group)
            low, high = bounds(newest, TopicPartition(self._journal, partition))
            mark = read_mark(stands.metadata, now[self._journal])
            if mark is None or mark.offset > high:  # no such entry was ever in this journal
                start = low
            else:
                if self._memory and mark.needed and mark.offset < low:
                    raise self._lost(partition, low)
                start = max(low, mark.memory if self._memory else mark.offset)
            entries = self._read(reader, partition, start, high, going) if start < high else []
            first, end = bounds(newest, commands)
            # A group that never committed starts at the beginning of what the topic still has.
            position = stands.offset if stands.offset >= 0 else first
            # That of another cluster, or beside an offset that a tool has set, says nothing here.
            leader_epoch = stands.leader_epoch if before == now[self._commands] else None
            return JournalTail(position, entries, high, end, leader_epoch)

    def _lost(self, partition: int, low: int) -> Stop:
        return Stop(
            f"{self._journal} partition {partition}: it begins at offset {low} and has lost entries of commands that "
            'were under way or held in doubt, and commands that waited behind these: see "The journal is lost, or a '
            f'part of it" in docs/disaster.md, then: '
            f"{resetting(self._group, f'{self._commands}:{partition}', 'current')}"
        )

    def _read(
        self, reader: Consumer, partition: int, start: int, end: int, going: Callable[[], bool]
    ) -> list[tuple[int, bytes]]:
        entries: list[tuple[int, bytes]] = []
        at = TopicPartition(self._journal, partition, start)
        for batch in read(reader, at, end, going):
            for message in batch:
                offset, value = message.offset(), message.value()
                if offset is not None and value is not None:
                    entries.append((offset, value))
        return entries
