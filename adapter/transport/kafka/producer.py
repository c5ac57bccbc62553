"""The transactional producer, on a thread of its own: records and consumed offsets in one transaction.

librdkafka's `retry.backoff.ms` of 100 would make every transaction that carries offsets cost 100 ms (the coordinator
answers CONCURRENT_TRANSACTIONS while the last one settles); with 5 it costs about 7.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from adapter.core.errors import Stop
from adapter.ports import Outgoing, Position

_STEP: Final = 5.0
"""Seconds one step of a transaction may take before it is asked again; steps can be resumed (KIP-447)."""


class TransactionalProducer:
    """`ports.Transactor`. One transaction at a time, in the order of the calls.

    `report` hears why a transaction was not committed, as a short text without record contents.
    """

    def __init__(
        self,
        *,
        client: Mapping[str, str],
        commands: str,
        group: str,
        transactional_id: str,
        timeout: timedelta,
        max_message_bytes: int,
        report: Callable[[str], None],
    ) -> None:
        milliseconds = timeout // timedelta(milliseconds=1)
        self._conf: dict[str, str | int | bool] = {
            **client,
            "transactional.id": transactional_id,
            "transaction.timeout.ms": milliseconds,
            "message.timeout.ms": milliseconds,
            "message.max.bytes": max_message_bytes,
            "retry.backoff.ms": 5,
            "linger.ms": 0,
            "partitioner": "murmur2_random",
            "delivery.report.only.error": True,
        }
        self._commands = commands
        self._report = report
        self._group = group
        self._client = client
        self._producer: Producer | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="transactions")
        self._closed = False

    async def open(self) -> None:
        """Wait until the broker knows us; transactions of an earlier life with this id are ended by that."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._open)

    async def commit(self, records: Sequence[Outgoing], positions: Sequence[Position], membership: object) -> bool:
        return await asyncio.get_running_loop().run_in_executor(
            self._thread, self._commit, records, positions, membership
        )

    async def close(self) -> None:
        self._closed = True
        await asyncio.to_thread(self._thread.shutdown)

    # -- the thread --------------------------------------------------------------------------------------------------

    def _open(self) -> Producer:
        producer = Producer(self._conf, logger=logging.getLogger("librdkafka"))
        self._persist(lambda: producer.init_transactions(_STEP))
        self._producer = producer
        return producer

    def _commit(self, records: Sequence[Outgoing], positions: Sequence[Position], membership: object) -> bool:
        assert positions, "a transaction without an offset is not fenced"
        producer = self._producer or self._open()
        offsets = [TopicPartition(self._commands, p.partition, p.offset, p.metadata) for p in positions]
        try:
            producer.begin_transaction()
            for record in records:
                self._produce(producer, record)
            self._persist(lambda: producer.send_offsets_to_transaction(offsets, membership, _STEP))
            self._persist(lambda: producer.commit_transaction(_STEP))
        except KafkaException as failure:
            error: KafkaError = failure.args[0]
            self._report(f"{error.name()}: {error.str()}")
            return self._recover(producer, error, offsets)
        return True

    def _produce(self, producer: Producer, record: Outgoing) -> None:
        while True:
            try:
                if record.partition is None:
                    producer.produce(record.topic, record.value, record.key, headers=list(record.headers))
                else:
                    producer.produce(
                        record.topic, record.value, record.key, record.partition, headers=list(record.headers)
                    )
            except BufferError:
                producer.poll(0.1)
            else:
                return

    def _recover(self, producer: Producer, error: KafkaError, offsets: Sequence[TopicPartition]) -> bool:
        """Whether the failed transaction was committed after all; leaves a producer that can begin the next one."""
        if not error.fatal():
            try:
                self._persist(lambda: producer.abort_transaction(_STEP))
            except KafkaException as failure:
                self._report(f"abort: {failure.args[0].name()}")
            else:
                return False
        # Fenced: nobody else has this id, so the coordinator ended the transaction when its time was over. Under the
        # same id `init_transactions` waits until it is decided; then the committed offset tells how.
        self._producer = None
        self._open()
        return self._is_committed(offsets[0])

    def _is_committed(self, sent: TopicPartition) -> bool:
        """Whether this offset with this metadata (which is unique to its transaction) is the committed one."""
        reader = Consumer({**self._client, "group.id": self._group, "enable.auto.commit": False})
        try:
            found = self._persist(lambda: reader.committed([TopicPartition(sent.topic, sent.partition)], _STEP))
        finally:
            reader.close()
        return bool(found[0].offset == sent.offset and found[0].metadata == sent.metadata)

    def _persist(self, step: Callable[[], list[TopicPartition] | None]) -> list[TopicPartition]:
        """Ask until it is done or decided: a time-out of a step says nothing, it goes on when asked again."""
        while True:
            try:
                return step() or []
            except KafkaException as failure:
                error: KafkaError = failure.args[0]
                waiting = error.retriable() or error.code() == KafkaError._TIMED_OUT  # noqa: SLF001 -- its public name
                if self._closed or not waiting or error.fatal() or error.txn_requires_abort():
                    if error.code() in (
                        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
                        KafkaError.TOPIC_AUTHORIZATION_FAILED,
                        KafkaError.GROUP_AUTHORIZATION_FAILED,
                    ):
                        raise Stop(f"Kafka refuses us: {error.str()}") from failure
                    raise
