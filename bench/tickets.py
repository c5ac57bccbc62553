"""The projector with a million tickets: how long until it has them, how fast it folds, what it takes in memory.

    T   tickets: on an empty disk, again on the same one, a backlog of events folded, and again after kill -9

The backlog is also a proof: every ticket that had events counts them all, each once.
"""

import asyncio
import random
import secrets
import time
import uuid
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from confluent_kafka import Consumer, Producer, TopicPartition

from adapter import catalogue
from adapter.core.avro import Decoder, Encoder, SubjectStrategy, subject
from adapter.core.ticket import Event, Policy, fold
from adapter.suppliers import served
from adapter.transport.registry import HttpRegistry
from bench.measurement import Measurement, taken, yardstick
from bench.stage import Stage, cpu, memory
from tests.support.processes import Process
from tests.support.topics import Topics
from tests.support.wait import wait_until

_POLICY: Final = Policy(timedelta(hours=48), timedelta(hours=6), timedelta(days=90))
_AT: Final = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Conditions:
    tickets: int = 1_000_000
    events: int = 60_000
    partitions: int = 8


def projector(stage: Stage, conditions: Conditions) -> Measurement:
    before = yardstick()
    topics = stage.topics(conditions.partitions)
    settings = stage.settings(topics) | {
        "ADAPTER_PROJECTOR__GROUP_ID": f"{topics.prefix}-projectors",
        "ADAPTER_PROJECTOR__STORE": str(stage.folder / topics.prefix),
    }
    stage.register(settings)
    fill = _Filling(stage.bootstrap, stage.registry, topics)
    fill.tickets(conditions.tickets)
    empty, process = _started(stage, settings, conditions)
    figures: dict[str, Any] = {"start_on_empty_disk_s": empty, "peak_memory_mib": round(memory(process.pid)[1], 1)}
    asyncio.run(process.stop(within=60))
    figures["start_on_same_disk_s"], process = _started(stage, settings, conditions)
    figures["memory_mib"] = round(memory(process.pid)[0], 1)
    used, began = cpu(process.pid), time.monotonic()
    counts = fill.events(conditions.tickets, conditions.events)
    group = settings["ADAPTER_PROJECTOR__GROUP_ID"]
    wait_until(lambda: fill.caught_up(group), within=300, what="the backlog folded")
    took = time.monotonic() - began
    figures |= {
        "events_per_s": round(conditions.events / took),
        "cpu_ms_per_event": round((cpu(process.pid) - used) / conditions.events * 1000, 3),
        "folding_memory_mib": round(memory(process.pid)[0], 1),
    }
    process.kill()
    figures["start_after_kill_s"], process = _started(stage, settings, conditions)
    asyncio.run(process.stop(within=60))
    if (seen := fill.counted(counts)) != counts:
        raise RuntimeError(f"{len(seen.items() ^ counts.items())} tickets do not count their events")
    return taken("T", asdict(conditions), figures, before=before)


def _started(stage: Stage, settings: dict[str, str], conditions: Conditions) -> tuple[float, Process]:
    """A projector, and the seconds from its start until every partition flows."""
    began = time.monotonic()
    process = stage.processes.adapter("projector", env=settings)
    process.wait_ready(lambda p: p.output.count('"partition started"') == conditions.partitions, within=300)
    return round(time.monotonic() - began, 2), process


class _Filling:
    """What others have written: tickets of an earlier projector, events of servers."""

    def __init__(self, bootstrap: str, registry: str, topics: Topics) -> None:
        self._bootstrap = bootstrap
        self._topics = topics
        known = catalogue.load(served())
        self._event, self._ticket = known.events["FaultReportUpdated"], known.tickets["Ticket"]
        self._encode_event, self._encode_ticket = asyncio.run(self._encoders(registry))
        self._producer = Producer(
            {"bootstrap.servers": bootstrap, "partitioner": "murmur2_random", "linger.ms": 50, "log_level": 0}
        )

    def tickets(self, count: int) -> None:
        record = Decoder(self._event.text, [self._event]).decode(self._notification("SP-00000000")[5:]).record
        ticket = fold(None, "SP-00000000", Event("FaultReportUpdated", "first", record, _AT), _POLICY).ticket
        value = self._encode_ticket.encode(ticket.record())
        for number in range(count):
            reference = f"SP-{number:08}".encode()
            self._put(self._topics.tickets, value.replace(b"SP-00000000", reference), reference, {})
        self._producer.flush(120)

    def events(self, tickets: int, count: int) -> Counter[str]:
        """Writes notifications of tickets at random; how many events each of these tickets has now."""
        chance, counts = random.Random(1), Counter[str]()
        for _ in range(count):
            reference = f"SP-{chance.randrange(tickets):08}"
            counts[reference] += 1
            value = self._notification(reference)
            self._put(self._topics.events, value, reference.encode(), {"ce_id": str(uuid.uuid4())})
        self._producer.flush(120)
        return counts + Counter(counts.keys())

    def caught_up(self, group: str) -> bool:
        at = [TopicPartition(self._topics.events, n) for n in range(self._topics.partitions)]
        consumer = Consumer({"bootstrap.servers": self._bootstrap, "group.id": group, "log_level": 0})
        try:
            ends = sum(consumer.get_watermark_offsets(each, timeout=20)[1] for each in at)
            return sum(max(0, each.offset) for each in consumer.committed(at, timeout=20)) == ends
        finally:
            consumer.close()

    def counted(self, of: Counter[str]) -> Counter[str]:
        """The events that the last record of each of these tickets counts."""
        decoder, found = Decoder(self._ticket.text, [self._ticket]), Counter[str]()
        consumer = Consumer(
            {"bootstrap.servers": self._bootstrap, "group.id": str(uuid.uuid4()), "enable.partition.eof": True}
        )
        consumer.assign([TopicPartition(self._topics.tickets, n, 0) for n in range(self._topics.partitions)])
        ended: set[int | None] = set()
        while len(ended) < self._topics.partitions:
            for message in consumer.consume(5000, 5):
                value, reference = message.value(), (message.key() or b"").decode()
                if message.error() is not None:
                    ended.add(message.partition())
                elif value is not None and reference in of:
                    found[reference] = decoder.decode(value[5:]).record["events"]
        consumer.close()
        return found

    def _notification(self, reference: str) -> bytes:
        update = {"description": secrets.token_hex(40), "updatedBy": "noc", "updatedTime": "2026-03-02 09:00"}
        return self._encode_event.encode(
            {
                "buyerFaultReference": reference,
                "maintainerFaultReference": "CF-00001",
                "kind": "IN_PROGRESS",
                "status": "IN_PROGRESS",
                "supplierSentAt": datetime.now(UTC),
                "receivedAt": datetime.now(UTC),
                "report": {
                    "buyerFaultReference": reference,
                    "faultDetails": {"type": "Impaired Service", "description": secrets.token_hex(100)},
                    "updates": [update] * 6,
                },
            }
        )

    def _put(self, topic: str, value: bytes, key: bytes, headers: dict[str, str | bytes | None]) -> None:
        while True:
            try:
                self._producer.produce(topic, value, key, headers=headers)
            except BufferError:
                self._producer.poll(0.1)
            else:
                self._producer.poll(0)
                return

    async def _encoders(self, url: str) -> tuple[Encoder, Encoder]:
        encoders = []
        async with HttpRegistry(url) as registry:
            for topic, schema in ((self._topics.events, self._event), (self._topics.tickets, self._ticket)):
                name = subject(SubjectStrategy.TOPIC_RECORD, topic, schema)
                identifier = await registry.identifier(name, schema.text)
                assert identifier is not None, name
                encoders.append(Encoder(schema, identifier))
        return encoders[0], encoders[1]
