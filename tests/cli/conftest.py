"""The command line without settings of whoever runs the tests, and a bus for it to look at."""

import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from adapter.catalogue import Catalogue
from adapter.core.avro import Encoder, Schema, SubjectStrategy, from_json
from adapter.demo import registry
from adapter.ports import Outgoing
from adapter.transport.kafka.client import Sender
from tests.support.known import known
from tests.support.topics import Topics
from tests.support.wait import PATIENCE

GOLDEN = Path(__file__).parents[1] / "golden" / "cityfibre" / "notifications" / "appointment-completed" / "event.json"


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("ADAPTER_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="package")
def compiled() -> Catalogue:
    return known()


@dataclass(frozen=True, slots=True)
class Bus:
    """Topics and registered schemas, as the settings have them."""

    kafka: str
    topics: Topics
    ids: Mapping[str, int]
    """The registry's ids by record name."""

    sender: Sender

    def write(self, topic: str, key: str, value: bytes | None, headers: Sequence[tuple[str, bytes]] = ()) -> None:
        assert self.sender.send([Outgoing(topic, key.encode(), value, headers)]) == [None]

    def event(self, schema: Schema, key: str, record: Mapping[str, Any]) -> None:
        """As the flows write it: ce_type ends with the kind of a notification."""
        kind = f".{record['kind']}" if "kind" in record else ""
        headers = [("ce_id", f"id-{key}".encode()), ("ce_type", f"{schema.fullname}{kind}".encode())]
        self.write(self.topics.events, key, Encoder(schema, self.ids[schema.name]).encode(record), headers)

    def ticket(self, schema: Schema, key: str, record: Mapping[str, Any] | None) -> None:
        value = None if record is None else Encoder(schema, self.ids[schema.name]).encode(record)
        self.write(self.topics.tickets, key, value)


@pytest.fixture
async def bus(kafka: str, topics: Topics, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bus]:
    subjects = known().subjects(SubjectStrategy.TOPIC_RECORD, asdict(topics))
    served = await registry.serve(holding=subjects)
    own = {
        "ADAPTER_KAFKA__BOOTSTRAP_SERVERS": kafka,
        "ADAPTER_REGISTRY__URL": served.url,
        "ADAPTER_REGISTRY__TIMEOUT": f"{PATIENCE:g}s",
    }
    for name, value in (own | topics.settings).items():
        monkeypatch.setenv(name, value)
    ids = {schema.name: number for number, (_, schema) in enumerate(subjects, 1)}  # as it gives them
    yield Bus(kafka, topics, ids, Sender({"bootstrap.servers": kafka}, max_message_bytes=1_000_000))
    await served.close()


def notification(compiled: Catalogue, reference: str, **fields: Any) -> dict[str, Any]:
    shown = json.loads(GOLDEN.read_text())["FaultReportUpdated"] | {"buyerFaultReference": reference} | fields
    return from_json(compiled.events["FaultReportUpdated"], shown)
