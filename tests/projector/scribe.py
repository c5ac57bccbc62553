"""Writes events as a server or a worker would, and reads what a projector makes of them, as a read_committed consumer.
Written with fastavro and the client library alone."""

import io
import json
import struct
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import fastavro
import httpx
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from adapter.core.ticket import Event as Told
from tests.support.estate import JSON, SCHEMAS
from tests.support.topics import Topics
from tests.support.wait import PATIENCE

T0: Final = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Event:
    name: str
    key: str
    record: dict[str, Any]
    id: str = field(default_factory=lambda: str(uuid.uuid4()))


def notified(
    reference: str,
    status: str | None = "IN_PROGRESS",
    *,
    kind: str | None = None,
    sent: datetime | None = T0,
    received: datetime | None = None,
    maintainer: str | None = None,
    **report: Any,
) -> Event:
    """A notification, received a second after it was sent unless told."""
    return Event(
        "FaultReportUpdated",
        reference,
        {
            "buyerFaultReference": reference,
            "maintainerFaultReference": maintainer,
            "kind": kind or status or "UPDATED",
            "status": status,
            "supplierSentAt": sent,
            "receivedAt": received or (sent or T0) + timedelta(seconds=1),
            "report": report,
        },
    )


def answered(
    reference: str | None,
    name: str = "FaultReportAdded",
    *,
    key: str | None = None,
    operation: str = "AddFaultReport",
    command: str = "",
    at: datetime = T0,
    **more: Any,
) -> Event:
    """The outcome of a command."""
    return Event(
        name,
        key or reference or "",
        {
            "commandId": command or str(uuid.uuid4()),
            "operation": operation,
            "buyerFaultReference": reference,
            "occurredAt": at,
            **more,
        },
    )


@dataclass(frozen=True, slots=True)
class Stored:
    """A record of the tickets topic; no ticket: a tombstone."""

    partition: int
    key: bytes
    ticket: dict[str, Any] | None
    headers: dict[str, bytes]


class Scribe:
    def __init__(self, bootstrap: str, registry: str, topics: Topics) -> None:
        self._bootstrap = bootstrap
        self._registry = registry
        self._topics = topics
        self._schemas: dict[str, tuple[int, Any]] = {}
        self._producer = Producer(
            {"bootstrap.servers": bootstrap, "partitioner": "murmur2_random", "linger.ms": 5, "log_level": 0}
        )

    def write(self, events: Iterable[Event]) -> None:
        """In this order; returns once they are stored."""
        failed: list[Any] = []
        for event in events:
            self.put(self.value(event), event.key.encode(), event.id.encode(), failed=failed)
        assert self._producer.flush(PATIENCE) == 0
        assert not failed, failed

    def forget(self, reference: str) -> None:
        """A tombstone on the tickets topic, as an operator writes it; returns once it is stored."""
        self._producer.produce(self._topics.tickets, None, reference.encode())
        assert self._producer.flush(PATIENCE) == 0

    def put(
        self,
        value: bytes | None,
        key: bytes | None,
        identifier: bytes | None,
        *,
        partition: int = -1,
        failed: list[Any],
    ) -> None:
        def told(error: Any, _: Any) -> None:
            if error is not None:
                failed.append(error)

        headers: dict[str, str | bytes | None] = {} if identifier is None else {"ce_id": identifier}
        self._producer.produce(self._topics.events, value, key, partition, headers=headers, on_delivery=told)
        self._producer.poll(0)

    def value(self, event: Event) -> bytes:
        number, schema = self._schema(self._topics.events, "events", f"fault.event.{event.name}")
        out = io.BytesIO()
        out.write(struct.pack(">bI", 0, number))
        fastavro.schemaless_writer(out, schema, event.record)
        return out.getvalue()

    def tickets(self) -> dict[str, dict[str, Any]]:
        """Every ticket as the topic has it now."""
        last = {record.key.decode(): record.ticket for record in self.history()}
        return {key: ticket for key, ticket in last.items() if ticket is not None}

    def history(self) -> list[Stored]:
        """All that is committed in the tickets topic, partition by partition."""
        _, schema = self._schema(self._topics.tickets, "tickets", "fault.ticket.Ticket")
        found: list[Stored] = []
        for message in self._messages(self._topics.tickets):
            value = message.value()
            ticket = None if value is None else fastavro.schemaless_reader(io.BytesIO(value[5:]), schema, None)
            assert ticket is None or isinstance(ticket, dict)
            found.append(Stored(message.partition(), message.key(), ticket, dict(message.headers() or ())))
        return found

    def events(self) -> list[tuple[bytes, Told]]:
        """All events that are committed, with their keys, partition by partition."""
        names = sorted(path.stem for path in (SCHEMAS / "events").glob("*.avsc"))
        schemas = dict(self._schema(self._topics.events, "events", f"fault.event.{name}") for name in names)
        found = []
        for message in self._messages(self._topics.events):
            value = message.value()
            schema = schemas[struct.unpack(">xI", value[:5])[0]]
            record = fastavro.schemaless_reader(io.BytesIO(value[5:]), schema, None)
            assert isinstance(record, dict)
            arrived = datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC)
            identifier = dict(message.headers() or ())["ce_id"].decode()
            found.append((message.key(), Told(schema["name"].rpartition(".")[2], identifier, record, arrived)))
        return found

    def warnings(self) -> list[dict[str, Any]]:
        """Every ResolveDeadlineApproaching that is committed, with the headers of its id and type."""
        number, schema = self._schema(self._topics.events, "events", "fault.event.ResolveDeadlineApproaching")
        found: list[dict[str, Any]] = []
        for message in self._messages(self._topics.events):
            value = message.value()
            if value is not None and value[:5] == struct.pack(">bI", 0, number):
                record = fastavro.schemaless_reader(io.BytesIO(value[5:]), schema, None)
                assert isinstance(record, dict)
                headers = {name: said.decode() for name, said in message.headers() or ()}
                found.append(record | {"id": headers["ce_id"], "ce_type": headers["ce_type"]})
        return found

    def progress(self, group: str) -> tuple[int, int]:
        """How many events the group has committed, and how many there are, over all partitions."""
        consumer = self._consumer(group)
        try:
            at = [TopicPartition(self._topics.events, n) for n in range(self._topics.partitions)]
            ends = [consumer.get_watermark_offsets(each, timeout=PATIENCE)[1] for each in at]
            return sum(max(0, each.offset) for each in consumer.committed(at, timeout=PATIENCE)), sum(ends)
        finally:
            consumer.close()

    def _messages(self, topic: str) -> Sequence[Any]:
        consumer, found = self._consumer(str(uuid.uuid4())), []
        try:
            for number in range(self._topics.partitions):
                at = TopicPartition(topic, number, 0)
                _, end = consumer.get_watermark_offsets(at, timeout=PATIENCE)
                consumer.assign([at])
                reached = 0
                while reached < end:
                    message = consumer.poll(PATIENCE)
                    assert message is not None, "the topic can't be read to its end"
                    error = message.error()
                    assert error is None or error.code() == KafkaError._PARTITION_EOF, error
                    reached = (message.offset() or 0) + (error is None)
                    if error is None:
                        found.append(message)
        finally:
            consumer.close()
        return found

    def _consumer(self, group: str) -> Consumer:
        return Consumer(
            {
                "bootstrap.servers": self._bootstrap,
                "group.id": group,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 20,
                "log_level": 0,
            }
        )

    def _schema(self, topic: str, folder: str, name: str) -> tuple[int, Any]:
        if name not in self._schemas:
            text = (SCHEMAS / folder / f"{name.rpartition('.')[2]}.avsc").read_text(encoding="utf-8")
            answer = httpx.post(
                f"{self._registry}/subjects/{topic}-{name}",
                json={"schema": text},
                headers=JSON,
                trust_env=False,
                timeout=PATIENCE,
            )
            assert answer.status_code == 200, answer.text
            self._schemas[name] = answer.json()["id"], fastavro.parse_schema(json.loads(text))
        return self._schemas[name]
