"""What is left behind after a run: the twin's call log, and all topics as a read_committed reader sees them.

Imports nothing from `adapter`: raw bytes, read with fastavro.
"""

import io
import json
import struct
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fastavro
from confluent_kafka import Consumer, KafkaError, TopicPartition


@dataclass(frozen=True, slots=True)
class Call:
    """A request the twin received. Times are of its monotonic clock; `finished` is None if it never ended."""

    sequence: int
    operation: str
    key: str
    message_id: str
    received: float
    finished: float | None
    taken: bool
    verdict: str | None


@dataclass(frozen=True, slots=True)
class Event:
    partition: int
    offset: int
    key: str
    type: str
    id: str
    record: dict[str, Any]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    partition: int
    offset: int
    """Of the record it was, in the commands topic."""
    reason: str


def calls(log: Path) -> list[Call]:
    """Every request in the twin's log; a later line of a sequence number completes the earlier one."""
    found: dict[int, dict[str, Any]] = {}
    for line in log.read_text().splitlines():
        row = json.loads(line)
        found[row["sequence"]] = row
    return [
        Call(
            sequence=row["sequence"],
            operation=row["operation"],
            key=row["key"],
            message_id=row["message_id"],
            received=row["received"],
            finished=row["finished"],
            taken=row["taken"],
            verdict=row["verdict"],
        )
        for _, row in sorted(found.items())
    ]


def events(bootstrap: str, registry: str, topic: str) -> list[Event]:
    schemas: dict[int, Any] = {}
    result = []
    for message in _read(bootstrap, topic):
        value, key = message.value(), message.key()
        assert value is not None
        assert key is not None
        _, schema_id = struct.unpack(">bI", value[:5])
        if schema_id not in schemas:
            with urllib.request.urlopen(f"{registry}/schemas/ids/{schema_id}", timeout=10) as answer:
                schemas[schema_id] = fastavro.parse_schema(json.loads(json.load(answer)["schema"]))
        record = fastavro.schemaless_reader(io.BytesIO(value[5:]), schemas[schema_id], None)
        assert isinstance(record, dict)
        headers = dict(message.headers() or [])
        result.append(
            Event(
                message.partition(),
                message.offset(),
                key.decode(),
                headers["ce_type"].decode().rpartition(".")[2],
                headers["ce_id"].decode(),
                record,
            )
        )
    return result


def dead_letters(bootstrap: str, topic: str) -> list[DeadLetter]:
    result = []
    for message in _read(bootstrap, topic):
        headers = dict(message.headers() or [])
        result.append(
            DeadLetter(
                int(headers["dead-letter-partition"]),
                int(headers["dead-letter-offset"]),
                headers["dead-letter-reason"].decode(),
            )
        )
    return result


def committed(bootstrap: str, topic: str, group: str) -> tuple[dict[int, int], dict[int, int]]:
    """Committed offsets of the group and ends of the topic, by partition."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "enable.auto.commit": False})
    try:
        partitions = list(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
        offsets = consumer.committed([TopicPartition(topic, p) for p in partitions], timeout=30)
        ends = {p: consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=10)[1] for p in partitions}
        return {at.partition: at.offset for at in offsets}, ends
    finally:
        consumer.close()


def _read(bootstrap: str, topic: str) -> Iterator[Any]:
    """All committed records of a topic, partition by partition in order, waiting for open transactions to end."""
    common = {"bootstrap.servers": bootstrap, "group.id": "evidence", "enable.auto.commit": False}
    newest = Consumer({**common, "isolation.level": "read_uncommitted"})
    reader = Consumer({**common, "isolation.level": "read_committed", "enable.partition.eof": True})
    try:
        for partition in newest.list_topics(topic, timeout=10).topics[topic].partitions:
            _, end = newest.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)
            reader.assign([TopicPartition(topic, partition, 0)])
            position = 0
            while position < end:
                message = reader.poll(30)
                assert message is not None, f"{topic} {partition}: nothing new at {position} of {end} for 30 s"
                error, offset = message.error(), message.offset()
                assert offset is not None
                if error is None:
                    yield message
                    position = offset + 1
                else:
                    assert error.code() == KafkaError._PARTITION_EOF, error
                    position = max(position, offset)
    finally:
        reader.close()
        newest.close()
