"""The estate's side of the bus: sends commands as any service would, and reads what comes back as a read_committed
consumer sees it. Written with fastavro and the client library alone, so that the adapter does not judge its own bytes.
"""

import io
import json
import struct
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, Self, TypeVar, cast

import fastavro
import httpx
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition

from tests.support.topics import Topics
from tests.support.wait import PATIENCE, SELDOM, eventually

SCHEMAS: Final = Path(__file__).parents[2] / "schemas" / "avro"
PROVISIONAL: Final = frozenset({"CommandOutcomeUnknown", "DoubtDecided"})
"""Events of a command that are not its end."""
LARGEST: Final = 32 * 1024**2
SLOT: Final = {"appointmentDate": date(2026, 3, 2), "appointmentStartTime": "08:00", "appointmentEndTime": "13:00"}
JSON: Final = {"Content-Type": "application/vnd.schemaregistry.v1+json"}

T = TypeVar("T")
Headers = tuple[tuple[str, bytes | None], ...]


@dataclass(frozen=True, slots=True)
class Command:
    """A command to send; `key` is also the record's key unless `send` is told another one."""

    name: str
    key: str
    record: Mapping[str, Any]
    command_id: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass(frozen=True, slots=True)
class Place:
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Event:
    """A record of the events topic."""

    place: Place
    key: bytes | None
    type: str
    record: dict[str, Any]
    headers: dict[str, bytes]
    value: bytes

    @property
    def final(self) -> bool:
        return "commandId" in self.record and self.type not in PROVISIONAL


@dataclass(frozen=True, slots=True)
class Letter:
    """A record of the dead letters. `headers` in order, those of the original among them."""

    key: bytes | None
    value: bytes | None
    headers: Headers

    @property
    def reason(self) -> str:
        return (dict(self.headers)["dead-letter-reason"] or b"").decode()

    @property
    def place(self) -> Place:
        said = dict(self.headers)
        return Place(int(said["dead-letter-partition"] or -1), int(said["dead-letter-offset"] or -1))


class Estate:
    """One producer and one reader on a set of topics. `open` it on the loop that uses it."""

    def __init__(self, bootstrap: str, registry: str, topics: Topics) -> None:
        self.topics = topics
        self.events: list[Event] = []
        self.letters: list[Letter] = []
        self._bootstrap = bootstrap
        # To read the authorities for TLS, which a registry of the tests has not, takes longer than all that is asked.
        self._http = httpx.AsyncClient(base_url=registry, verify=False, trust_env=False, timeout=PATIENCE)
        self._registry = registry
        self._writers: dict[str, tuple[int, Any]] = {}
        self._readers: dict[int, Any] = {}
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "partitioner": "murmur2_random",
                "enable.idempotence": True,
                "linger.ms": 0,
                "message.max.bytes": LARGEST,
                "log_level": 0,
            }
        )
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": f"{topics.prefix}-estate",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "fetch.wait.max.ms": 50,
                "message.max.bytes": LARGEST,
                "log_level": 0,
            }
        )
        self._consumer.assign(
            [TopicPartition(topic, n, 0) for topic in (topics.events, topics.dead_letters) for n in self._numbers]
        )

    @property
    def _numbers(self) -> range:
        return range(self.topics.partitions)

    async def __aenter__(self) -> Self:
        for path in sorted((SCHEMAS / "commands").glob("*.avsc")):
            text = path.read_text(encoding="utf-8")
            self._writers[path.stem] = await self._register(f"{self.topics.commands}-fault.command.{path.stem}", text)
        for path in sorted((SCHEMAS / "events").glob("*.avsc")):
            text = path.read_text(encoding="utf-8")
            answer = await self._http.post(
                f"/subjects/{self.topics.events}-fault.event.{path.stem}", json={"schema": text}, headers=JSON
            )
            if answer.status_code == 200:
                self._readers[answer.json()["id"]] = fastavro.parse_schema(json.loads(text))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()
        self._consumer.close()
        self._producer.flush(5)

    # -- writing -----------------------------------------------------------------------------------------------------

    async def register(self, name: str, change: Any, *, subject: str | None = None) -> int:
        """The id of the schema of record `name` after `change` was applied to its JSON form."""
        document = json.loads((SCHEMAS / "commands" / f"{name}.avsc").read_text(encoding="utf-8"))
        change(document)
        identifier, _ = await self._register(
            subject or f"{self.topics.commands}-fault.command.{name}", json.dumps(document)
        )
        return identifier

    def encode(self, command: Command, *, schema: Mapping[str, Any] | None = None, identifier: int = 0) -> bytes:
        """The record's value, with the schema of this release or another one."""
        number, own = self._writers[command.name]
        common = {"commandId": command.command_id, "issuedAt": datetime.now(UTC)}
        out = io.BytesIO(struct.pack(">bI", 0, identifier or number))
        out.seek(0, io.SEEK_END)
        fastavro.schemaless_writer(
            out, own if schema is None else fastavro.parse_schema(dict(schema)), {**common, **command.record}
        )
        return out.getvalue()

    def send(self, command: Command, *, headers: Mapping[str, bytes] | None = None) -> Place:
        return self.put(self.encode(command), command.key.encode(), headers=headers)

    def put(
        self,
        value: bytes | None,
        key: bytes | None,
        *,
        headers: Mapping[str, bytes] | None = None,
        partition: int | None = None,
    ) -> Place:
        """A record as it is; returns once it is stored."""
        (place,) = self.put_all([(value, key)], headers=headers, partition=partition)
        return place

    def put_all(
        self,
        records: Sequence[tuple[bytes | None, bytes | None]],
        *,
        headers: Mapping[str, bytes] | None = None,
        partition: int | None = None,
    ) -> list[Place]:
        """Many at once, in this order."""
        stored: dict[int, Place] = {}
        errors: list[KafkaError] = []

        def told(number: int, error: KafkaError | None, message: Message) -> None:
            at, offset = message.partition(), message.offset()
            if error is not None:
                errors.append(error)
            elif at is not None and offset is not None:
                stored[number] = Place(at, offset)

        for number, (value, key) in enumerate(records):
            self._producer.produce(
                self.topics.commands,
                value,
                key,
                -1 if partition is None else partition,
                headers=list((headers or {}).items()),
                on_delivery=partial(told, number),
            )
        self._producer.flush(PATIENCE)
        assert not errors, errors
        return [stored[number] for number in range(len(records))]

    # -- reading -----------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Take in what has come."""
        for message in self._consumer.consume(1000, 0):
            assert message.error() is None, message.error()
            headers = cast("Headers", tuple(message.headers() or ()))
            if message.topic() == self.topics.events:
                self.events.append(self._event(message, headers))
            else:
                self.letters.append(Letter(message.key(), message.value(), headers))

    def of(self, command: Command) -> list[Event]:
        """Events of that command so far, in their order."""
        return [event for event in self.events if event.record.get("commandId") == command.command_id]

    def finals(self, command: Command) -> list[Event]:
        return [event for event in self.of(command) if event.final]

    async def heard(self, condition: Callable[[], T], *, within: float = PATIENCE, what: str = "") -> T:
        """The first truthy answer of `condition`, asked after each look at the topics. AssertionError in the end."""

        def looked() -> T:
            self.look()
            return condition()

        return await eventually(looked, within=within, what=what)

    async def final(self, command: Command, *, within: float = PATIENCE) -> Event:
        """Its final event; AssertionError if there is none in time."""
        what = f"the outcome of a {command.name}"
        return (await self.heard(lambda: self.finals(command), within=within, what=what))[0]

    async def all_final(self, commands: Sequence[Command], *, within: float = PATIENCE) -> None:
        wanted = {command.command_id for command in commands}

        def ended() -> bool:
            return wanted <= {event.record["commandId"] for event in self.events if event.final}

        await self.heard(ended, within=within, what=f"the outcomes of {len(commands)} commands")

    async def doubt(self, command: Command, *, within: float = PATIENCE) -> Event:
        def doubts() -> list[Event]:
            return [event for event in self.of(command) if not event.final]

        return (await self.heard(doubts, within=within, what=f"the doubt about a {command.name}"))[0]

    async def letter(self, place: Place, *, within: float = PATIENCE) -> Letter:
        """The dead letter of the record at that place."""

        def letters() -> list[Letter]:
            return [letter for letter in self.letters if letter.place == place]

        return (await self.heard(letters, within=within, what=f"the dead letter of {place}"))[0]

    def progress(self, group: str) -> tuple[dict[int, int], dict[int, int]]:
        """Committed offsets of that group and ends of the commands topic, by partition; 0 if nothing is committed."""
        reader = Consumer({"bootstrap.servers": self._bootstrap, "group.id": group, "enable.auto.commit": False})
        try:
            at = reader.committed([TopicPartition(self.topics.commands, n) for n in self._numbers], timeout=PATIENCE)
            ends = {
                n: reader.get_watermark_offsets(TopicPartition(self.topics.commands, n), timeout=PATIENCE)[1]
                for n in self._numbers
            }
        finally:
            reader.close()
        return {each.partition: max(0, each.offset) for each in at}, ends

    async def caught_up(self, group: str, *, within: float = PATIENCE) -> None:
        """Returns when the group has committed all there is."""

        def done() -> bool:
            committed, ends = self.progress(group)
            return committed == ends

        await eventually(done, within=within, what="the committed offsets at the end of the commands", every=SELDOM)

    def _event(self, message: Message, headers: Headers) -> Event:
        value, partition, offset = message.value(), message.partition(), message.offset()
        assert value is not None
        assert partition is not None
        assert offset is not None
        schema = self._readers[struct.unpack(">xI", value[:5])[0]]
        record = fastavro.schemaless_reader(io.BytesIO(value[5:]), schema, None)
        assert isinstance(record, dict)
        known = {name: said or b"" for name, said in headers}
        return Event(Place(partition, offset), message.key(), schema["name"].rpartition(".")[2], record, known, value)

    async def _register(self, subject: str, text: str) -> tuple[int, Any]:
        answer = await self._http.post(f"/subjects/{subject}/versions", json={"schema": text}, headers=JSON)
        assert answer.status_code == 200, answer.text
        return answer.json()["id"], fastavro.parse_schema(json.loads(text))


# -- commands ----------------------------------------------------------------------------------------------------------


def unique(prefix: str = "SP") -> str:
    """A reference or address key nobody else uses."""
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


def add(reference: str, **fields: Any) -> Command:
    return Command(
        "AddFaultReport",
        reference,
        {
            "buyerFaultReference": reference,
            "reporterContactDetails": {"name": "Joe"},
            "endUserContactDetails": {},
            "serviceAffected": "S18650",
            "faultDetails": {"type": "IMPAIRED_SERVICE"},
            **fields,
        },
    )


def amend(reference: str, **fields: Any) -> Command:
    return Command("AmendFaultReport", reference, {"buyerFaultReference": reference, **fields})


def ask_update(reference: str, **fields: Any) -> Command:
    return Command(
        "RequestFaultReportUpdate",
        reference,
        {"buyerFaultReference": reference, "maintainerFaultReference": "", **fields},
    )


def resolve(reference: str, **fields: Any) -> Command:
    return Command("ResolveResponse", reference, {"buyerFaultReference": reference, "resolveAccepted": True, **fields})


def query(address: str, **fields: Any) -> Command:
    return Command(
        "QueryAppointmentAvailability",
        address,
        {
            "addressKey": address,
            "appointmentsFrom": date(2026, 3, 2),
            "appointmentType": "Repair",
            "productName": "ftthl2r",
            **fields,
        },
    )


def reserve(address: str, slot: Mapping[str, Any] = SLOT, **fields: Any) -> Command:
    return Command(
        "ReserveAppointment",
        address,
        {
            "addressKey": address,
            "appointmentSlot": slot,
            "appointmentType": "Repair",
            "productName": "ftthl2r",
            **fields,
        },
    )


def with_deadline(command: Command, seconds: float) -> Command:
    """Seconds from now."""
    return replace(command, record={**command.record, "notAfter": datetime.now(UTC) + timedelta(seconds=seconds)})
