"""The load: commands as the estate's producers write them, with fastavro alone."""

import io
import json
import struct
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import fastavro
import httpx
from confluent_kafka import Producer

SCHEMAS: Final = Path(__file__).parents[1] / "schemas" / "avro" / "commands"

_CONTACT: Final = {"name": "Zoe Angstrom", "phone": "+44 7700 900123", "email": "zoe@example.com"}
_ADD: Final = {
    "reportDateTime": datetime(2026, 3, 2, 9, 15, 17, tzinfo=UTC),
    "reporterContactDetails": _CONTACT,
    "endUserContactDetails": _CONTACT,
    "serviceAffected": "S18650",
    "parentFaultReference": "SP-456XYZ",
    "faultDetails": {
        "description": "No light on the ONT since this morning & the router was restarted twice; neighbours on the "
        "same street have service, the customer works from home and depends on it",
        "type": "IMPAIRED_SERVICE",
        "faultStartTime": datetime(2026, 3, 1, 22, 4, 5, 678000, tzinfo=UTC),
        "faultLocation": "500 Avebury Boulevard, Milton Keynes MK1 3XX",
        "siteAccessDetails": "Access 24/7, call 0771234123.",
        "siteAccessContactDetails": {"phone": "12345"},
        "triageComplete": True,
        "triageFindings": "ONT down, CFM down ISP; optical power at the last reading -31.2 dBm",
    },
    "attachments": [
        {"name": "ont.jpg", "contentType": "image/jpeg", "description": "Lights of the ONT"},
        {"name": "speedtest.pdf"},
    ],
}
_UPDATE: Final = {"maintainerFaultReference": "FR-00012345"}

OPERATIONS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "add": ("AddFaultReport", _ADD),
    "update": ("RequestFaultReportUpdate", _UPDATE),
}
"""`add` is the dearest: never repeated blindly, so two transactions a command. `update` is the cheapest."""


@dataclass(frozen=True, slots=True)
class Command:
    key: str
    command_id: str
    value: bytes


class Writer:
    """Encodes commands of one topic's subjects. Raises httpx.HTTPError while the schemas are not registered."""

    def __init__(self, registry: str, topic: str) -> None:
        self._schemas: dict[str, tuple[int, Any]] = {}
        for name, _ in OPERATIONS.values():
            text = (SCHEMAS / f"{name}.avsc").read_text(encoding="utf-8")
            found = httpx.post(
                f"{registry}/subjects/{topic}-fault.command.{name}", json={"schema": text}, trust_env=False
            ).raise_for_status()
            schema = fastavro.schema.parse_schema(json.loads(text))
            self._schemas[name] = found.json()["id"], schema

    def command(self, operation: str, key: str, number: int, *, padding: int = 0) -> Command:
        """The `number`-th command of a key; `padding` characters make its description longer."""
        name, content = OPERATIONS[operation]
        identifier, schema = self._schemas[name]
        if padding:
            size = min(padding, 50_000)
            content = {**content, "attachments": [{"name": "log.txt", "description": "x" * size}] * (padding // size)}
        return Command(key, _command_id(key, number), encoded(schema, identifier, content, key, number))


def encoded(schema: Any, identifier: int, content: Mapping[str, Any], key: str, number: int) -> bytes:
    """The record's value in the Confluent wire format."""
    out = io.BytesIO()
    out.write(struct.pack(">BI", 0, identifier))
    common = {"commandId": _command_id(key, number), "issuedAt": datetime.now(UTC), "buyerFaultReference": key}
    fastavro.schemaless_writer(out, schema, {**common, **content})
    return out.getvalue()


def _command_id(key: str, number: int) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{key}/{number}"))


def spread(count: int, keys: int, *, skewed: bool = False) -> Iterator[tuple[str, int]]:
    """(key, number of its command), round robin; `skewed`: every fifth command is of one key."""
    numbers: dict[str, int] = {}
    for place in range(count):
        key = "K-HOT" if skewed and place % 5 == 0 else f"K-{place % keys:06d}"
        numbers[key] = number = numbers.get(key, -1) + 1
        yield key, number


class Sender:
    """Puts commands on the topic, partitioned as Java clients do."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._topic = topic
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "partitioner": "murmur2_random",
                "enable.idempotence": True,
                "linger.ms": 0,  # a latency counts from here
                "queue.buffering.max.messages": 200_000,
                "message.max.bytes": 4 * 1024**2,
            }
        )

    def send(self, command: Command) -> None:
        while True:
            try:
                self._producer.produce(self._topic, command.value, command.key)
            except BufferError:
                self._producer.poll(0.05)
            else:
                self._producer.poll(0)
                return

    def flush(self) -> None:
        if self._producer.flush(120):
            raise RuntimeError("Kafka does not take the commands")
