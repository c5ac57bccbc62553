"""Reads the tickets topic when a partition is taken over, to its real end although transactions may be open.

The committed offset is fetched first (which waits for pending transactions), then the end offset that a
read_uncommitted reader sees: everything an earlier owner has written lies before it. A ticket records which events were
applied to it, so an older offset only means that some events are read again without effect.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from confluent_kafka import Message, TopicPartition

from adapter.core.errors import Unavailable
from adapter.ports import DUE, Standing, TicketRecord
from adapter.transport.kafka.admin import Admin
from adapter.transport.kafka.headers import headers
from adapter.transport.kafka.identity import identity, still
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


class KafkaTickets:
    """`ports.TicketLog`; several partitions are read in parallel."""

    def __init__(
        self,
        *,
        client: Mapping[str, str],
        events: str,
        tickets: str,
        group: str,
        patience: Patience,
    ) -> None:
        self._client = client
        self._events = events
        self._tickets = tickets
        self._group = group
        self._patience = patience
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="ticket-log")
        self._closing = threading.Event()
        self._admin = Admin(client, timeout=timedelta(seconds=STEP))
        self._identity: str | None = None

    async def identity(self) -> str:
        if self._identity is None:
            self._identity = await asyncio.get_running_loop().run_in_executor(self._threads, self._identify)
        return self._identity

    async def standing(self, partition: int, going: Callable[[], bool]) -> Standing:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._stand, partition, going)

    async def read(
        self,
        partition: int,
        start: int,
        end: int,
        take: Callable[[Sequence[TicketRecord]], None],
        going: Callable[[], bool],
    ) -> None:
        at = TopicPartition(self._tickets, partition, start)

        def work() -> None:
            with opened(f"tickets of partition {partition}", reader_properties(self._client, self._group)) as (reader,):
                for batch in read(reader, at, end, lambda: going() and not self._closing.is_set()):
                    take([_kept(message) for message in batch])

        if start < end:
            await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def close(self) -> None:
        self._closing.set()
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)

    def _identify(self) -> str:
        return f"{identity(self._admin, self._events, self._tickets)}/{self._group}"

    def _stand(self, partition: int, going: Callable[[], bool]) -> Standing:
        what = f"tickets of partition {partition}"
        client, group = self._client, self._group
        with opened(what, reader_properties(client, group), undecided_properties(client, group)) as (reader, newest):
            events = TopicPartition(self._events, partition)
            stands = committed(reader, newest, events, self._patience, lambda: going() and not self._closing.is_set())
            if stands.offset < 0:  # every partition has one (`introduce`): its coordinator has just started
                raise Unavailable(f"{what}: no committed offset")
            transaction = stands.metadata or ""
            before, now = transaction.rpartition("/")[0], self._identify()
            still(self._events, partition, before, now, group=group)
            first, last = bounds(newest, TopicPartition(self._tickets, partition))
            # That of another cluster, or beside an offset that a tool has set, says nothing here.
            return Standing(stands.offset, transaction, first, last, stands.leader_epoch if before == now else None)


def _kept(message: Message) -> TicketRecord:
    due = next((value for name, value in headers(message) if name == DUE), None) or b""
    # No more digits than a time in milliseconds has, and nothing that somebody else wrote here.
    return TicketRecord(message.key() or b"", message.value(), int(due) if due.isdigit() and len(due) < 16 else None)
