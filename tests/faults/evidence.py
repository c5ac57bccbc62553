"""What is left behind after a run: the twin's logs, and all topics as a read_committed reader sees them.

Imports nothing from `adapter`: raw bytes, read with fastavro.
"""

import io
import json
import struct
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fastavro
from confluent_kafka import Consumer, KafkaError, TopicPartition

from tests.faults.notices import Posted
from tests.faults.workload import Sent


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
    answered: int | None = None
    """HTTP status; None if there was no answer."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """A notification the twin had to deliver."""

    reference: str
    message_id: str
    acknowledged: bool


@dataclass(frozen=True, slots=True)
class Event:
    partition: int
    offset: int
    key: str
    type: str
    id: str
    record: dict[str, Any]

    @property
    def command_id(self) -> str | None:
        """Of the command it is about; None for what no command caused."""
        return self.record.get("commandId")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    partition: int
    offset: int
    """Of the record it was, in the commands topic."""
    reason: str
    command_id: str | None = None
    """If it could be read."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a process ended."""

    part: str
    asked: bool
    """By SIGTERM."""
    code: int
    output: str
    """The end of what it wrote."""


@dataclass(slots=True)
class Evidence:
    """All that is known of a run."""

    sent: Sequence[Sent] = ()
    calls: Sequence[Call] = ()
    events: Sequence[Event] = ()
    poison: frozenset[tuple[int, int]] = frozenset()
    """Places of records that are no command."""
    dead: Sequence[DeadLetter] = ()
    posted: Sequence[Posted] = ()
    webhooks: Sequence[Webhook] = ()
    quarantine: Sequence[bytes] = ()
    tickets: Mapping[str, Mapping[str, Any]] | None = None
    """None: nobody has folded them."""
    offsets: Mapping[int, int] = field(default_factory=dict)
    """Committed by the workers."""
    ends: Mapping[int, int] = field(default_factory=dict)
    """Of the commands topic."""
    peaks: Mapping[str, int] = field(default_factory=dict)
    """Most bytes of memory a life of each part has taken."""
    endings: Sequence[Ending] = ()


def calls(log: Path) -> list[Call]:
    """Every request in the twin's log; a later line of a sequence number completes the earlier one."""
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
            answered=row["answered"],
        )
        for row in _rows(log)
    ]


def webhooks(log: Path) -> list[Webhook]:
    """Every notification in the twin's log of deliveries."""
    return [Webhook(row["reference"], row["id"], row["end"] == "acknowledged") for row in _rows(log)]


def events(bootstrap: str, registry: str, topic: str) -> list[Event]:
    return Events(bootstrap, registry, topic).read()


class Events:
    """The events of a topic; `read` goes on where it was."""

    def __init__(self, bootstrap: str, registry: str, topic: str) -> None:
        self._bootstrap = bootstrap
        self._topic = topic
        self._schemas = Schemas(registry)
        self._positions: dict[int, int] = {}
        self._found: list[Event] = []

    def read(self) -> list[Event]:
        """All so far, partition by partition as far as they were read at once."""
        for message in _read(self._bootstrap, self._topic, self._positions):
            headers = dict(message.headers() or [])
            self._found.append(
                Event(
                    message.partition(),
                    message.offset(),
                    message.key().decode(),
                    self._schemas.name(message.value()),
                    headers["ce_id"].decode(),
                    self._schemas.decode(message.value()),
                )
            )
        return self._found


class Schemas:
    """Reads the registry's wire format."""

    def __init__(self, registry: str) -> None:
        self._registry = registry
        self._known: dict[int, tuple[str, Any]] = {}

    def name(self, value: bytes) -> str:
        """Of the record, without its namespace."""
        return self._of(value)[0]

    def decode(self, value: bytes) -> dict[str, Any]:
        record = fastavro.schemaless_reader(io.BytesIO(value[5:]), self._of(value)[1], None)
        assert isinstance(record, dict)
        return record

    def _of(self, value: bytes) -> tuple[str, Any]:
        magic, number = struct.unpack(">bI", value[:5])
        assert magic == 0
        if number not in self._known:
            with urllib.request.urlopen(f"{self._registry}/schemas/ids/{number}", timeout=30) as answer:
                document = json.loads(json.load(answer)["schema"])
            self._known[number] = document["name"], fastavro.parse_schema(document)
        return self._known[number]


def tickets(bootstrap: str, registry: str, topic: str) -> dict[str, dict[str, Any]]:
    """The last record of every key that is not a tombstone."""
    schemas = Schemas(registry)
    last: dict[str, bytes | None] = {}
    for message in _read(bootstrap, topic, {}):
        last[message.key().decode()] = message.value()
    return {key: schemas.decode(value) for key, value in last.items() if value is not None}


def dead_letters(bootstrap: str, topic: str) -> list[DeadLetter]:
    result = []
    for message in _read(bootstrap, topic, {}):
        headers = dict(message.headers() or [])
        result.append(
            DeadLetter(
                int(headers["dead-letter-partition"]),
                int(headers["dead-letter-offset"]),
                headers["dead-letter-reason"].decode(),
            )
        )
    return result


def bodies(bootstrap: str, topic: str) -> list[bytes]:
    """The bodies of notifications that are in quarantine, raw."""
    found = _read(bootstrap, topic, {})
    return [message.value() or b"" for message in found if "quarantine-path" in dict(message.headers() or [])]


def committed(bootstrap: str, topic: str, group: str) -> tuple[dict[int, int], dict[int, int]]:
    """Committed offsets of the group and ends of the topic, by partition. Transactions that are not decided are not
    waited for: a coordinator that was killed may have lost their ends."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "enable.auto.commit": False,
            "isolation.level": "read_uncommitted",
            "log_level": 0,
        }
    )
    try:
        partitions = list(consumer.list_topics(topic, timeout=30).topics[topic].partitions)
        offsets = consumer.committed([TopicPartition(topic, p) for p in partitions], timeout=30)
        ends = {p: consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=30)[1] for p in partitions}
        return {at.partition: at.offset for at in offsets}, ends
    finally:
        consumer.close()


def peak_memory(pid: int) -> int:
    """Most bytes the process has had resident; 0 if it has gone or the system does not tell."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    said = [line.split()[1] for line in text.splitlines() if line.startswith("VmHWM:")]
    return int(said[0]) * 1024 if said else 0


def _rows(log: Path) -> list[Mapping[str, Any]]:
    """The last line of each sequence number, in their order."""
    found: dict[int, Mapping[str, Any]] = {}
    for line in log.read_text().splitlines(keepends=True):
        if line.endswith("\n"):
            row = json.loads(line)
            found[row["sequence"]] = row
    return [row for _, row in sorted(found.items())]


def _read(bootstrap: str, topic: str, positions: dict[int, int]) -> Iterator[Any]:
    """All committed records of a topic from these positions on, partition by partition in order, waiting for open
    transactions to end. Moves the positions on."""
    common = {"bootstrap.servers": bootstrap, "group.id": "evidence", "enable.auto.commit": False, "log_level": 0}
    newest = Consumer({**common, "isolation.level": "read_uncommitted"})
    reader = Consumer({**common, "isolation.level": "read_committed", "enable.partition.eof": True})
    try:
        for partition in newest.list_topics(topic, timeout=30).topics[topic].partitions:
            _, end = newest.get_watermark_offsets(TopicPartition(topic, partition), timeout=30)
            position = positions.get(partition, 0)
            if position >= end:
                continue
            reader.assign([TopicPartition(topic, partition, position)])
            while position < end:
                message = reader.poll(30)
                if message is None:
                    decided = reader.get_watermark_offsets(TopicPartition(topic, partition), timeout=30)[1]
                    raise AssertionError(
                        f"{topic} {partition}: nothing new at {position} of {end} for 30 s, decided up to {decided}"
                    )
                error, offset = message.error(), message.offset()
                assert offset is not None
                if error is None:
                    yield message
                    position = positions[partition] = offset + 1
                else:
                    assert error.code() == KafkaError._PARTITION_EOF, error
                    position = positions[partition] = max(position, offset)
    finally:
        reader.close()
        newest.close()
