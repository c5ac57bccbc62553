"""A plain producer and a plain reader for the command line: send some records, follow a topic.

They know neither groups nor transactions; the worker's own do (consumer.py, producer.py).
"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Final
from uuid import uuid4

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from adapter.core.errors import Stop, Unavailable
from adapter.core.partition import partition_of
from adapter.ports import Outgoing
from adapter.transport.kafka.admin import require_topics
from adapter.transport.kafka.headers import headers
from adapter.transport.kafka.heard import Heard
from adapter.transport.kafka.known import FORGOTTEN, KnownBrokers
from adapter.transport.kafka.mock import is_mock
from adapter.transport.kafka.refusal import properties_told

_MOVING: Final = frozenset(
    {KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE, KafkaError.UNKNOWN_TOPIC_OR_PART}
)
"""Errors of a partition that is new or whose leader is changing: a broker will answer in a moment."""
_PASSING: Final = frozenset({KafkaError._PARTITION_EOF, KafkaError.GROUP_AUTHORIZATION_FAILED})
"""Errors to ignore while reading: the end of a partition, and missing rights on the group that librdkafka wants named.
"""
_ASK_AGAIN: Final = 0.1
_LATEST: Final = datetime(9999, 12, 31, tzinfo=UTC).timestamp()


@dataclass(frozen=True, slots=True)
class Seen:
    """A record that was read."""

    partition: int
    offset: int
    at: datetime
    """When it was written, by the clock of its producer or of the broker, depending on the topic."""
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()

    def header(self, name: str) -> str:
        """The text of a header, empty if there is none of that name."""
        value = next((value for each, value in self.headers if each == name), None)
        return (value or b"").decode(errors="replace")


class Edge(Enum):
    """Where reading a topic starts, unless at a time."""

    FIRST = "the oldest record it still has"
    END = "where it ends now"


Start = datetime | Edge | Mapping[int, int] | int
"""Where to begin: at a record's time, at an edge, at an offset per partition (others are not read), or so many offsets
before each partition's end.
"""


class Sender:
    """Sends records, acknowledged by all in-sync replicas and partitioned by key as Java clients do."""

    def __init__(
        self, client: Mapping[str, str], *, max_message_bytes: int, timeout: timedelta = timedelta(seconds=15)
    ) -> None:
        """Raises Stop if librdkafka refuses a property."""
        self._timeout = timeout.total_seconds()
        self._heard = Heard()
        with properties_told():
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

    def send(self, records: Sequence[Outgoing]) -> list[str | None]:
        """Send all and wait; returns for each record why it was not stored, None if it was."""
        faults: list[str | None] = ["no answer from the cluster"] * len(records)

        def report(place: int, error: KafkaError | None) -> None:
            faults[place] = None if error is None else self._heard.why(error)

        try:
            for place, record in enumerate(records):
                self._produce(record, lambda error, _message, place=place: report(place, error))
            # Not `flush`: after a fatal error it goes on serving callbacks while the error's exception is already set
            # in the interpreter, so that they fail, or the exception is lost. `poll` raises it.
            end = time.monotonic() + self._timeout + 1
            while len(self._producer) and time.monotonic() < end:
                self._producer.poll(0.1)
        except KafkaException as failure:  # a fatal error, such as no right to write to any topic
            return [fault and failure.args[0].str() for fault in faults]
        return faults

    def _produce(self, record: Outgoing, report: Any) -> None:
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
    """Reads the records of a topic, in order per partition; only committed ones unless told otherwise."""

    def __init__(
        self,
        client: Mapping[str, str],
        topic: str,
        *,
        start: Start = Edge.END,
        keys: Collection[bytes] | None = None,
        committed: bool = True,
        timeout: timedelta = timedelta(seconds=15),
        down: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`keys`: read only the partitions on which Java clients and the adapter put them. `committed=False`: also read
        the records of open and aborted transactions. `down` is called with the reason when no broker answers any more,
        once until the next record; the reader itself goes on waiting.

        Raises Stop if the topic is missing or librdkafka refuses a property, and Unavailable.
        """
        self._topic = topic
        self._timeout = timeout.total_seconds()
        self._heard, self._brokers = Heard(), KnownBrokers()
        self._oldest = datetime.min.replace(tzinfo=UTC)
        """Older records are skipped."""
        with properties_told():
            self._consumer = Consumer(
                {
                    **client,
                    **self._heard.properties(),
                    **self._brokers.properties(),
                    # librdkafka demands a name, but nothing subscribes or commits, so the group never exists.
                    "group.id": f"fault-adapter-follower-{uuid4()}",
                    "enable.auto.commit": False,
                    "isolation.level": "read_committed" if committed else "read_uncommitted",
                    "enable.partition.eof": True,
                    "auto.offset.reset": "error",
                    "allow.auto.create.topics": False,
                }
            )
        try:
            self._open(start, keys)
        except KafkaException as error:
            self._consumer.close()
            raise Unavailable(f"the cluster does not answer: {self._heard.why(error.args[0])}") from None
        except (Stop, Unavailable):
            self._consumer.close()
            raise
        self._heard.down = down

    @property
    def ends(self) -> dict[int, int]:
        """The end offset of each partition when this was opened. A transaction that was open then lies behind it."""
        return {number: end for number, (_, end) in self._spans.items()}

    def read(self, until: float) -> Iterator[Seen]:
        """Records as they arrive, until `until` (monotonic seconds). Raises Unavailable on a permanent error."""
        while (left := until - time.monotonic()) > 0:
            if self._brokers.forgotten:
                raise Unavailable(f"{self._topic}: {FORGOTTEN}; start again")
            message = self._consumer.poll(min(left, 0.5))
            if message is not None and self._is_record(message) and (seen := _seen(message)).at >= self._oldest:
                yield seen

    def rest(self) -> Iterator[Seen]:
        """All records from the start to the topic's end when this was opened. Raises Unavailable."""
        left = {number for number, (start, end) in self._spans.items() if start < end}
        heard = time.monotonic()
        while left:
            for message in self._consumer.consume(1000, 0.2):
                record, number, offset = self._is_record(message), message.partition(), message.offset()
                if number is None or offset is None:  # an error of the client as a whole
                    continue
                if number in left:  # others go on growing
                    heard = time.monotonic()
                end = self._spans[number][1]
                if record and offset < end:
                    if (seen := _seen(message)).at >= self._oldest:
                        yield seen
                    offset += 1
                if offset >= end:  # perhaps without a record: markers and aborted records may follow the last one
                    left.discard(number)
            if time.monotonic() - heard > self._timeout:
                raise Unavailable(f"{self._topic}: the cluster does not answer: {self._heard.text or 'nothing comes'}")

    def close(self) -> None:
        self._consumer.close()

    def _open(self, start: Start, keys: Collection[bytes] | None) -> None:
        cluster = self._consumer.list_topics(self._topic, timeout=self._timeout)
        known = cluster.topics[self._topic]
        if known.error is not None or not known.partitions:
            require_topics([self._topic], found=())
        count = len(known.partitions)
        numbers = known.partitions if keys is None else {partition_of(key, count) for key in keys}
        bounds = {number: self._bounds(number) for number in numbers}
        match start:
            case Edge.FIRST:
                self._spans = bounds
            case Edge.END:
                self._spans = {number: (end, end) for number, (_, end) in bounds.items()}
            case datetime() if is_mock(cluster.cluster_id or ""):  # finds no offset for a time
                self._spans, self._oldest = bounds, start
            case datetime():
                self._spans = self._since(start, bounds)
            case int():
                self._spans = {n: (max(low, end - start), end) for n, (low, end) in bounds.items()}
            case _:
                self._spans = {n: (min(max(start[n], low), end), end) for n, (low, end) in bounds.items() if n in start}
        self._consumer.assign([TopicPartition(self._topic, number, at) for number, (at, _) in self._spans.items()])

    def _since(self, start: datetime, bounds: Mapping[int, tuple[int, int]]) -> dict[int, tuple[int, int]]:
        """The bounds, beginning with the first record of that time or later."""
        milliseconds = max(0, int(start.timestamp() * 1000))
        asked = [TopicPartition(self._topic, number, milliseconds) for number in bounds]
        spans = {}
        for found in self._consumer.offsets_for_times(asked, timeout=self._timeout):
            if found.error is not None:
                raise KafkaException(found.error)
            end = bounds[found.partition][1]
            spans[found.partition] = (found.offset if found.offset >= 0 else end, end)
        return spans

    def _bounds(self, number: int) -> tuple[int, int]:
        until = time.monotonic() + self._timeout
        while True:
            try:
                found = self._consumer.get_watermark_offsets(TopicPartition(self._topic, number), timeout=self._timeout)
            except KafkaException as error:
                if error.args[0].code() not in _MOVING or time.monotonic() > until:
                    raise
                time.sleep(_ASK_AGAIN)
                continue
            if found is None:
                raise Unavailable(f"{self._topic} partition {number}: no answer")
            return found

    def _is_record(self, message: Message) -> bool:
        """Whether it is a record, and not a transient error or the end of the partition. Raises Unavailable."""
        error = message.error()
        if error is None:
            self._heard.told = False
            return True
        if error.code() in _PASSING or error.retriable():
            return False
        raise Unavailable(f"{self._topic}: can't be read: {error.str()}")


def moment(seconds: float) -> datetime:
    """The time of a record, limited to what the calendar can express: a producer may write any number."""
    return datetime.fromtimestamp(min(max(0.0, seconds), _LATEST), UTC)


def _seen(message: Message) -> Seen:
    number, offset = message.partition(), message.offset()
    assert number is not None
    assert offset is not None
    return Seen(number, offset, moment(message.timestamp()[1] / 1000), message.key(), message.value(), headers(message))
