"""A plain producer and reader for the command line: send some records, follow a topic from where it ends now.

The worker has its own (consumer.py, producer.py): these know neither groups nor transactions.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast
from uuid import uuid4

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from adapter.core.errors import Stop, Unavailable


@dataclass(frozen=True, slots=True)
class Sent:
    """A record to send."""

    topic: str
    key: bytes
    value: bytes
    headers: Sequence[tuple[str, bytes]] = ()


@dataclass(frozen=True, slots=True)
class Seen:
    """A record as it was read."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()


class Sender:
    """Sends records with all in-sync replicas' acknowledgement, keys placed as Java clients place them."""

    def __init__(
        self, client: Mapping[str, str], *, max_message_bytes: int, timeout: timedelta = timedelta(seconds=15)
    ) -> None:
        """Raises Stop if librdkafka refuses a property."""
        self._timeout = timeout.total_seconds()
        self._heard = _Heard()
        try:
            self._producer = Producer(
                {
                    **client,
                    **self._heard.properties(),
                    "partitioner": "murmur2_random",
                    "enable.idempotence": True,
                    "message.max.bytes": max_message_bytes,
                    "message.timeout.ms": int(self._timeout * 1000),
                }
            )
        except KafkaException as error:
            raise _refused(error) from None

    def send(self, records: Sequence[Sent]) -> list[str | None]:
        """Send all and wait; for each record in turn why it was not stored, None if it was."""
        faults: list[str | None] = ["no answer from the cluster"] * len(records)

        def report(place: int, error: KafkaError | None) -> None:
            faults[place] = None if error is None else self._heard.text or error.str()

        for place, record in enumerate(records):
            self._produce(record, lambda error, _message, place=place: report(place, error))
        self._producer.flush(self._timeout + 1)
        return faults

    def _produce(self, record: Sent, report: Any) -> None:
        while True:
            try:
                self._producer.produce(
                    record.topic, record.value, record.key, headers=list(record.headers), on_delivery=report
                )
            except BufferError:
                self._producer.poll(0.1)
            except KafkaException as error:
                report(error.args[0], None)
                return
            else:
                self._producer.poll(0)
                return


class Follower:
    """Reads the committed records of a topic that are written from now on."""

    def __init__(self, client: Mapping[str, str], topic: str, *, timeout: timedelta = timedelta(seconds=15)) -> None:
        """Raises Stop if there is no such topic or librdkafka refuses a property, Unavailable."""
        self._heard = _Heard()
        limit = timeout.total_seconds()
        try:
            self._consumer = Consumer(
                {
                    **client,
                    **self._heard.properties(),
                    # librdkafka asks for a name; no group of it ever exists, since nothing subscribes or commits.
                    "group.id": f"fault-adapter-follower-{uuid4()}",
                    "enable.auto.commit": False,
                    "isolation.level": "read_committed",
                    "auto.offset.reset": "error",
                    "allow.auto.create.topics": False,
                }
            )
        except KafkaException as error:
            raise _refused(error) from None
        try:
            self._consumer.assign(self._ends(topic, limit))
        except KafkaException as error:
            self._consumer.close()
            raise Unavailable(f"the cluster does not answer: {self._heard.text or error.args[0].str()}") from None
        except Stop:
            self._consumer.close()
            raise

    def read(self, until: float) -> Iterator[Seen]:
        """Records as they come, till `until` (monotonic seconds). Raises Unavailable on what will not mend itself."""
        while (left := until - time.monotonic()) > 0:
            message = self._consumer.poll(min(left, 0.5))
            if message is None:
                continue
            error = message.error()
            if error is None:
                yield _seen(message)
            elif not error.retriable():
                raise Unavailable(f"the topic can't be read: {error.str()}")

    def close(self) -> None:
        self._consumer.close()

    def _ends(self, topic: str, limit: float) -> list[TopicPartition]:
        known = self._consumer.list_topics(topic, timeout=limit).topics[topic]
        if known.error is not None or not known.partitions:
            raise Stop(f"{topic}: there is no such topic, or we may not read it; see `adapter topics plan`")
        return [
            TopicPartition(
                topic, number, self._consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=limit)[1]
            )
            for number in known.partitions
        ]


class _Heard:
    """What librdkafka said last about its connections, for the one message we write."""

    def __init__(self) -> None:
        self.text = ""

    def properties(self) -> dict[str, Any]:
        return {"error_cb": self._hear, "log_level": 0}

    def _hear(self, error: KafkaError) -> None:
        self.text = error.str()


def _seen(message: Message) -> Seen:
    partition, offset = message.partition(), message.offset()
    assert partition is not None
    assert offset is not None
    headers = cast("list[tuple[str, bytes | None]] | None", message.headers())
    return Seen(partition, offset, message.key(), message.value(), tuple(headers or ()))


def _refused(error: KafkaException) -> Stop:
    return Stop(f"ADAPTER_KAFKA__PROPERTIES: {error.args[0].str()}")
