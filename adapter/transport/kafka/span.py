"""Bounds and committed offset of a partition, and reading a range of it to its end, past open transactions."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic, sleep
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from adapter.core.errors import Unavailable

STEP: Final = 5.0
"""Time limit in seconds of one request to a broker."""

LOOK: Final = 0.01
"""Seconds between two polls for records. We never wait in librdkafka, whose waits go by the system's clock: see
consumer.py.
"""
WAKE: Final = 1.0
"""Seconds between two requests that only wake librdkafka's own thread, whose waits go by that clock too."""

_SILENT: Final = 15.0
"""Seconds without a record after which a reader looks for an open transaction, so as not to wait for ever."""

_AHEAD_KIB: Final = 4 * 1024
"""KiB the client may fetch ahead."""


def bounds(consumer: Consumer, at: TopicPartition) -> tuple[int, int]:
    """First and end offset of the partition, as `consumer` (read_uncommitted or not) sees them. Raises Unavailable."""
    found = consumer.get_watermark_offsets(at, STEP)
    if found is None:
        raise Unavailable(f"{at.topic} partition {at.partition}: no answer")
    return found


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for a committed offset that the coordinator does not tell because of an open transaction."""

    limit: timedelta
    """Longer than any transaction can stay open."""
    told: Callable[[int, float], None]
    """Called with the partition and the seconds waited so far."""


def committed(
    reader: Consumer, newest: Consumer, at: TopicPartition, patience: Patience, going: Callable[[], bool]
) -> TopicPartition:
    """The offset the group has committed, once every transaction of an earlier owner is committed or aborted.

    If the coordinator does not tell it within our patience, but does answer `newest`, which does not wait for open
    transactions, it has lost the end of a transaction: Apache Kafka 4.3.1 was seen to do so after it was killed, until
    it was restarted. Then the result is the offset before that transaction, perhaps an older one than was committed;
    callers can cope with that, since they also read what was written together with the offsets.

    Raises Unavailable once `going` returns False, and KafkaException.
    """
    since: float | None = None
    while True:
        try:
            (found,) = reader.committed([at], STEP)
        except KafkaException as error:
            if error.args[0].code() != KafkaError._TIMED_OUT:
                raise
            (found,) = newest.committed([at], STEP)
            since = monotonic() if since is None else since
            seconds = monotonic() - since
            patience.told(at.partition, seconds)
            if seconds < patience.limit.total_seconds():
                if going():
                    continue
                raise Unavailable("stopping") from error
        return found


def reader_properties(client: Mapping[str, str], group: str) -> dict[str, str | bool | int | logging.Logger]:
    """Properties of a consumer for `read`; the group is only used to ask for its offsets."""
    return {
        **undecided_properties(client, group),
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
        "auto.offset.reset": "earliest",
        "fetch.wait.max.ms": 50,
        "queued.max.messages.kbytes": _AHEAD_KIB,
        "fetch.queue.backoff.ms": 5,  # unless told, the client rests for a second whenever so much waits
    }


def undecided_properties(client: Mapping[str, str], group: str) -> dict[str, str | bool | int | logging.Logger]:
    """Properties of a consumer that sees the newest offsets, even of open transactions. It reads no records."""
    return {
        **client,
        "logger": logging.getLogger("librdkafka"),  # without one, librdkafka writes to standard error
        "group.id": group,
        "enable.auto.commit": False,
        "isolation.level": "read_uncommitted",
    }


@contextmanager
def opened(what: str, *properties: Mapping[str, str | bool | int | logging.Logger]) -> Iterator[tuple[Consumer, ...]]:
    """Consumers with these properties, closed at the end. Errors of Kafka meanwhile are raised as Unavailable, with
    their purpose, `what`, in front; so is what keeps them from being made, such as certificate files that have been
    replaced by others of no use.
    """
    consumers: list[Consumer] = []
    try:
        consumers.extend(Consumer(dict(each)) for each in properties)
        yield tuple(consumers)
    except KafkaException as error:
        raise Unavailable(f"{what}: {error.args[0].str()}") from error
    finally:
        for consumer in consumers:
            consumer.close()


def read(reader: Consumer, start: TopicPartition, end: int, going: Callable[[], bool]) -> Iterator[list[Message]]:
    """All committed records from `start` to before `end`, in batches, once every transaction among them has ended.

    Raises Unavailable once `going` returns False, or if a transaction stays open, and KafkaException.
    """
    reader.assign([start])
    heard = monotonic()
    while going():
        batch: list[Message] = []
        ended = False
        messages = reader.consume(1000, 0)
        if not messages:
            if monotonic() - heard > _SILENT:
                _, decided = bounds(reader, start)
                if decided < end:
                    place = f"{start.topic} partition {start.partition}, offset {decided}"
                    raise Unavailable(f"{place}: a producer has left a transaction open")
                heard = monotonic()  # only aborted records for a while: keep waiting
            sleep(LOOK)
        for message in messages:
            error, offset = message.error(), message.offset()
            if error is not None and error.code() != KafkaError._PARTITION_EOF:
                raise KafkaException(error)
            assert offset is not None, "a record has a place, and so has the end"
            if error is None:
                batch.append(message)
                ended = ended or offset + 1 >= end
            else:  # nothing but markers and aborted records behind the last one
                ended = ended or offset >= end
        if batch:
            yield batch
            heard = monotonic()
        if ended:
            return
    raise Unavailable("stopping")
