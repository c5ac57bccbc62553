"""Where a partition stands for a group, and reading a stretch of it to a known end, past open transactions."""

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
"""Seconds one question to a broker may take."""

LOOK: Final = 0.01
"""Seconds between two looks for records. librdkafka would wait for them by the system's clock: see consumer.py."""
WAKE: Final = 1.0
"""Seconds between two questions that librdkafka's own thread has to answer, which waits by that clock as well."""

_SILENT: Final = 15.0
"""Seconds without a record after which a reader asks whether there is any: its thread is one of few."""

_AHEAD_KIB: Final = 4 * 1024
"""What the client may read ahead of us."""


def bounds(consumer: Consumer, at: TopicPartition) -> tuple[int, int]:
    """Where the partition begins and ends, as `consumer` (read_uncommitted or not) sees it. Raises Unavailable."""
    found = consumer.get_watermark_offsets(at, STEP)
    if found is None:
        raise Unavailable(f"{at.topic} partition {at.partition}: no answer")
    return found


@dataclass(frozen=True, slots=True)
class Patience:
    """With a coordinator that keeps a committed offset back."""

    limit: timedelta
    """Longer than any transaction lives."""
    told: Callable[[int, float], None]
    """Hears of which partition, and for how many seconds so far."""


def committed(
    reader: Consumer, newest: Consumer, at: TopicPartition, patience: Patience, going: Callable[[], bool]
) -> TopicPartition:
    """The offset that the group has committed, every transaction of an earlier owner decided.

    A coordinator that keeps it back beyond our patience, while it answers `newest`, which does not ask for decided
    ones, has lost the end of a transaction: Apache Kafka 4.3.1 was seen to do so after it was killed, until it was
    started again. Then it is the last offset before: an older one than may have been committed, which whoever reads
    what was written with it can bear.

    Raises Unavailable once `going` says no, KafkaException.
    """
    since: float | None = None
    while True:
        try:
            (found,) = reader.committed([at], STEP)
        except KafkaException as error:
            if error.args[0].code() != KafkaError._TIMED_OUT:  # noqa: SLF001 -- its public name
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
    """Of a consumer that `read` can work with; the group is only asked for its offsets."""
    return {
        **client,
        "logger": logging.getLogger("librdkafka"),  # without one the library writes to standard error by itself
        "group.id": group,
        "enable.auto.commit": False,
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
        "auto.offset.reset": "earliest",
        "fetch.wait.max.ms": 50,
        "queued.max.messages.kbytes": _AHEAD_KIB,
        "fetch.queue.backoff.ms": 5,  # unless told, the client rests for a second whenever so much waits
    }


def undecided_properties(client: Mapping[str, str], group: str) -> dict[str, str | bool | int | logging.Logger]:
    """Of a consumer that is told the newest there is, though a transaction may still undo it. It reads nothing."""
    return {
        **client,
        "logger": logging.getLogger("librdkafka"),
        "group.id": group,
        "enable.auto.commit": False,
        "isolation.level": "read_uncommitted",
    }


@contextmanager
def opened(what: str, *properties: Mapping[str, str | bool | int | logging.Logger]) -> Iterator[tuple[Consumer, ...]]:
    """Consumers with these properties, closed at the end. What Kafka refuses them meanwhile is raised as Unavailable;
    `what` they are used for stands in front.
    """
    consumers = tuple(Consumer(dict(each)) for each in properties)
    try:
        yield consumers
    except KafkaException as error:
        raise Unavailable(f"{what}: {error.args[0].str()}") from error
    finally:
        for consumer in consumers:
            consumer.close()


def read(reader: Consumer, start: TopicPartition, end: int, going: Callable[[], bool]) -> Iterator[list[Message]]:
    """All committed records from `start` on and before `end`, in batches, each transaction among them decided.

    Raises Unavailable once `going` says no, and where a transaction stays open; KafkaException.
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
                heard = monotonic()  # many were aborted, and it has to get past them
            sleep(LOOK)
        for message in messages:
            error, offset = message.error(), message.offset()
            if error is not None and error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 -- its public name
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
