"""The load of the fault tests: commands written with fastavro alone, and the list of what was sent.

Imports nothing from `adapter`: what is under test must not also write the questions.
"""

import io
import json
import random
import struct
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final

import fastavro
from confluent_kafka import KafkaError, Message, Producer

from tests.support.wait import PATIENCE

SCHEMAS: Final = Path(__file__).parents[2] / "schemas" / "avro" / "commands"

SAFE: Final = frozenset({"RequestFaultReportUpdate", "QueryAppointmentAvailability"})
KEYED: Final = frozenset({"ResolveResponse"})
NEVER: Final = frozenset({"AddFaultReport", "AmendFaultReport", "ReserveAppointment"})


@dataclass(frozen=True, slots=True)
class Sent:
    """One command as it was produced; `number` counts those of a key, in order."""

    command_id: str
    operation: str
    key: str
    number: int


class Workload:
    """Produces seeded mixes of commands and remembers them in `sent`."""

    def __init__(self, bootstrap: str, registry: str, topic: str, seed: int) -> None:
        self.sent: list[Sent] = []
        self.poison: set[tuple[int, int]] = set()
        """Places (partition, offset) of the records that are no command."""
        self._registry = registry
        self._topic = topic
        self._random = random.Random(seed)
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "partitioner": "murmur2_random",
                "enable.idempotence": True,
                "log_level": 0,
            }
        )
        self._schemas = {name: self._schema(name) for name in SAFE | KEYED | NEVER}
        self._numbers: dict[str, int] = {}

    def send(self, tickets: int, per_ticket: int) -> None:
        """New tickets, each with an AddFaultReport and what a buyer asks for after it; tickets are interleaved. Returns
        when all is stored."""
        self.offer([self._ticket(per_ticket) for _ in range(tickets)])
        self.flush()

    def mix(self, keys: int, per_key: int) -> None:
        """Tickets, and for every tenth key an address with its appointments; seldom a record that is no command.
        Returns at once."""
        kinds = (self._address if self._random.random() < 0.1 else self._ticket for _ in range(keys))
        self.offer([kind(per_key) for kind in kinds])
        if self._random.random() < 0.05:
            self._producer.produce(self._topic, b"no command", "poison", on_delivery=self._poisoned)

    def offer(self, rows: Sequence[Iterator[tuple[str, str, dict[str, Any]]]]) -> None:
        for step in zip(*rows, strict=True):
            for operation, key, record in step:
                self._produce(operation, key, record)
        self._producer.poll(0)

    def flush(self, within: float = PATIENCE) -> None:
        assert self._producer.flush(within) == 0, "the load generator could not write its commands"

    def _poisoned(self, error: KafkaError | None, message: Message) -> None:
        assert error is None, error
        partition, offset = message.partition(), message.offset()
        assert partition is not None
        assert offset is not None
        self.poison.add((partition, offset))

    def _address(self, steps: int) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Slots are asked for and taken, the same one again and again: it is gone after the first time."""
        key = f"A-{self._random.getrandbits(48):012x}"
        for step in range(steps):
            operation = "ReserveAppointment" if step % 2 else "QueryAppointmentAvailability"
            yield operation, key, _VISITS[operation](key)

    def _ticket(self, steps: int) -> Iterator[tuple[str, str, dict[str, Any]]]:
        reference = f"T-{self._random.getrandbits(48):012x}"
        yield "AddFaultReport", reference, _add(reference)
        for _ in range(steps - 1):
            operation = self._random.choice(("AmendFaultReport", "RequestFaultReportUpdate", "ResolveResponse"))
            yield operation, reference, _LATER[operation](reference)

    def _produce(self, operation: str, key: str, record: dict[str, Any]) -> None:
        number = self._numbers[key] = self._numbers.get(key, 0) + 1
        command_id = f"{key}-{number:04d}"
        schema_id, schema = self._schemas[operation]
        out = io.BytesIO()
        out.write(struct.pack(">bI", 0, schema_id))
        common = {"commandId": command_id, "issuedAt": datetime.now(UTC), "notAfter": None, "correlationId": None}
        fastavro.schemaless_writer(out, schema, {**common, **record})
        self._producer.produce(self._topic, out.getvalue(), key, on_delivery=_stored)
        self.sent.append(Sent(command_id, operation, key, number))

    def _schema(self, name: str) -> tuple[int, Any]:
        text = (SCHEMAS / f"{name}.avsc").read_text()
        subject = f"{self._topic}-fault.command.{name}"
        request = urllib.request.Request(
            f"{self._registry}/subjects/{subject}/versions",
            data=json.dumps({"schema": text}).encode(),
            headers={"Content-Type": "application/vnd.schemaregistry.v1+json"},
        )
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)["id"], fastavro.parse_schema(json.loads(text))


def _stored(error: KafkaError | None, _: Message) -> None:
    assert error is None, error


def _add(reference: str) -> dict[str, Any]:
    contact = {"name": "A", "phone": "1", "email": "a@example.com"}
    return {
        "buyerFaultReference": reference,
        "serviceAffected": "S1",
        "reporterContactDetails": contact,
        "endUserContactDetails": contact,
        "faultDetails": {"type": "IMPAIRED_SERVICE", "description": "no light"},
    }


_LATER: Final = {
    "AmendFaultReport": lambda reference: {"buyerFaultReference": reference},
    "RequestFaultReportUpdate": lambda reference: {
        "buyerFaultReference": reference,
        "maintainerFaultReference": "M-1",
    },
    "ResolveResponse": lambda reference: {"buyerFaultReference": reference, "resolveAccepted": True},
}
_DAY: Final = date(2026, 3, 2)
_VISIT: Final = {"appointmentType": "Repair", "productName": "ftthl2r"}
_VISITS: Final = {
    "QueryAppointmentAvailability": lambda key: {"addressKey": key, "appointmentsFrom": _DAY, **_VISIT},
    "ReserveAppointment": lambda key: {
        "addressKey": key,
        "appointmentSlot": {
            "appointmentDate": _DAY,
            "appointmentStartTime": "08:00",
            "appointmentEndTime": "13:00",
        },
        **_VISIT,
    },
}
