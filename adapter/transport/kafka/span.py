"""Reading a stretch of one partition to a known end, past open transactions."""

from collections.abc import Callable, Iterator, Mapping
from time import sleep
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from adapter.core.errors import Unavailable

STEP: Final = 5.0
"""Seconds one question to a broker may take."""

LOOK: Final = 0.01
"""Seconds between two looks for records. librdkafka would wait for them by the system's clock: see consumer.py."""
WAKE: Final = 1.0
"""Seconds between two questions that librdkafka's own thread has to answer, which waits by that clock as well."""

_AHEAD_KIB: Final = 4 * 1024
"""What the client may read ahead of us."""


def bounds(consumer: Consumer, at: TopicPartition) -> tuple[int, int]:
    """Where the partition begins and ends, as `consumer` (read_uncommitted or not) sees it. Raises Unavailable."""
    found = consumer.get_watermark_offsets(at, STEP)
    if found is None:
        raise Unavailable(f"{at.topic} partition {at.partition}: no answer")
    return found


def reader_properties(client: Mapping[str, str], group: str) -> dict[str, str | bool | int]:
    """Of a consumer that `read` can work with; the group is only asked for its offsets."""
    return {
        **client,
        "group.id": group,
        "enable.auto.commit": False,
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
        "auto.offset.reset": "earliest",
        "fetch.wait.max.ms": 50,
        "queued.max.messages.kbytes": _AHEAD_KIB,
        "fetch.queue.backoff.ms": 5,  # unless told, the client rests for a second whenever so much waits
    }


def read(reader: Consumer, start: TopicPartition, end: int, going: Callable[[], bool]) -> Iterator[list[Message]]:
    """All committed records from `start` on and before `end`, in batches, each transaction among them decided.

    Raises Unavailable once `going` says no, KafkaException.
    """
    reader.assign([start])
    while going():
        batch: list[Message] = []
        ended = False
        messages = reader.consume(1000, 0)
        if not messages:
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
        if ended:
            return
    raise Unavailable("stopping")
