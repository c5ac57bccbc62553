"""Follows partitions of the tickets topic without owning them.

One thread reads all of them and waits until each batch is processed, so that little is in memory at a time. A second
consumer fetches single records by offset.
"""

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from functools import partial
from time import monotonic
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from adapter.core.errors import Stop, Unavailable
from adapter.ports import COMMANDS, REFERENCE, FollowedTicket, Take
from adapter.transport.kafka.admin import Admin
from adapter.transport.kafka.headers import headers
from adapter.transport.kafka.identity import identity
from adapter.transport.kafka.known import FORGOTTEN, KnownBrokers
from adapter.transport.kafka.refusal import properties_told
from adapter.transport.kafka.span import LOOK, STEP, WAKE, reader_properties

_LOG: Final = logging.getLogger("librdkafka")
_BATCH: Final = 500
_FOLLOWING: Final = {
    "queued.min.messages": 500,
    "queued.max.messages.kbytes": 1024,
    "fetch.message.max.bytes": 65536,
    "fetch.queue.backoff.ms": 20,
    "fetch.wait.max.ms": 100,
}
_FETCHING: Final = {"queued.max.messages.kbytes": 1024, "fetch.message.max.bytes": 16384, "queued.min.messages": 1}


class KafkaTicketFeed:
    """`ports.TicketFeed`. `failed` is called on the loop with the error that ends it."""

    def __init__(
        self,
        *,
        client: Mapping[str, str],
        topic: str,
        group: str,
        failed: Callable[[Exception], None],
    ) -> None:
        self._client = client
        self._topic = topic
        self._properties = reader_properties(client, group)
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._requests: queue.SimpleQueue[Callable[[Consumer], None]] = queue.SimpleQueue()
        self._takes: dict[int, Take] = {}
        self._next: dict[int, int] = {}
        """Offsets at which these partitions go on."""
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._fetching = ThreadPoolExecutor(1, thread_name_prefix="ticket-fetch")
        self._fetcher: Consumer | None = None

    async def identity(self) -> str:
        return await asyncio.to_thread(self._identity)

    def _identity(self) -> str:
        try:
            admin = Admin(self._client, timeout=timedelta(seconds=STEP))
        except Stop as refused:  # not at the start any more: files that they name were replaced by others of no use
            raise Unavailable(str(refused)) from None
        return identity(admin, self._topic)

    def follow(self, partition: int, start: int, take: Take) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="ticket-feed", daemon=True)
            self._thread.start()
        self._requests.put(partial(self._add, partition, start, take))

    def leave(self, partition: int) -> None:
        self._requests.put(partial(self._remove, partition))

    async def fetch(self, partition: int, offset: int) -> FollowedTicket | None:
        return await self._loop.run_in_executor(self._fetching, self._fetch, partition, offset)

    async def close(self) -> None:
        self._closing.set()
        if self._thread is not None:
            self._requests.put(lambda _reader: None)
            await asyncio.to_thread(self._thread.join)
        await asyncio.to_thread(self._fetching.shutdown, cancel_futures=True)
        if self._fetcher is not None:
            await asyncio.to_thread(self._fetcher.close)

    # -- the thread that follows ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                brokers = KnownBrokers()
                with properties_told():
                    reader = Consumer({**self._properties, **_FOLLOWING, **brokers.properties()})
                try:
                    self._read(reader, brokers)
                finally:
                    reader.close()
        except Exception as error:  # noqa: BLE001 -- whatever it is, the flow must hear of it
            with suppress(RuntimeError):  # the loop is closed: nobody listens any more
                self._loop.call_soon_threadsafe(self._failed, error)

    def _read(self, reader: Consumer, brokers: KnownBrokers) -> None:
        """Until we close, or the reader is of no more use."""
        if self._next:
            reader.incremental_assign([TopicPartition(self._topic, *at) for at in self._next.items()])
        wake_at = 0.0
        while not self._closing.is_set():
            if brokers.forgotten:
                _LOG.warning("%s, and is made anew", FORGOTTEN)
                return
            with suppress(queue.Empty):
                self._requests.get(timeout=LOOK if self._takes else WAKE)(reader)
            if monotonic() >= wake_at:
                reader.memberid()  # any question will do
                wake_at = monotonic() + WAKE
            if self._requests.empty() and (messages := reader.consume(_BATCH, 0)):
                self._deliver(messages)

    def _add(self, partition: int, start: int, take: Take, reader: Consumer) -> None:
        self._remove(partition, reader)
        self._takes[partition], self._next[partition] = take, start
        reader.incremental_assign([TopicPartition(self._topic, partition, start)])

    def _remove(self, partition: int, reader: Consumer) -> None:
        if self._takes.pop(partition, None) is not None:
            del self._next[partition]
            reader.incremental_unassign([TopicPartition(self._topic, partition)])

    def _deliver(self, messages: Sequence[Message]) -> None:
        records: dict[int, list[FollowedTicket]] = {}
        ends: dict[int, tuple[int, bool]] = {}
        for message in messages:
            error, partition, offset = message.error(), message.partition(), message.offset()
            if error is not None and error.code() != KafkaError._PARTITION_EOF:
                self._judge(error)
            elif partition is not None and offset is not None and partition in self._takes:
                ends[partition] = (offset, True) if error is not None else (offset + 1, False)
                if error is None:
                    records.setdefault(partition, []).append(_followed(message, offset))
        for partition, (end, ended) in ends.items():
            self._next[partition] = end
            taken = self._takes[partition](records.get(partition, ()), end, ended)
            asyncio.run_coroutine_threadsafe(taken, self._loop).result()

    def _judge(self, error: KafkaError) -> None:
        """Raises errors that librdkafka does not recover from by itself; the others it retries and logs."""
        if error.fatal() or error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            raise Stop(f"{self._topic}: {error.str()}")

    # -- the thread that fetches ---------------------------------------------------------------------------------------

    def _fetch(self, partition: int, offset: int) -> FollowedTicket | None:
        place = f"{self._topic} partition {partition}"
        try:
            if self._fetcher is None:
                self._fetcher = Consumer({**self._properties, **_FETCHING})
            self._fetcher.assign([TopicPartition(self._topic, partition, offset)])
            until = monotonic() + STEP
            while monotonic() < until and not self._closing.is_set():
                message = self._fetcher.poll(0)
                if message is None:
                    self._closing.wait(LOOK)
                    continue
                error = message.error()
                if error is None:
                    return _followed(message, offset) if message.offset() == offset else None
                if error.code() == KafkaError._PARTITION_EOF:
                    return None
                if not error.retriable():
                    raise Unavailable(f"{place}: {error.str()}")
        except KafkaException as error:
            raise Unavailable(f"{place}: {error.args[0].str()}") from error
        silent, self._fetcher = self._fetcher, None  # it may have forgotten all brokers
        silent.close()
        raise Unavailable(f"{place}: no answer")


def _followed(message: Message, offset: int) -> FollowedTicket:
    found = dict(headers(message))
    return FollowedTicket(
        message.key() or b"", offset, message.value(), found.get(REFERENCE), found.get(COMMANDS) or b""
    )
