"""The image as it ships, in containers as locked down as the chart's. `make image` builds it and runs these."""

import io
import json
import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import fastavro
import pytest
from confluent_kafka import Consumer, TopicPartition

from adapter import __version__
from tests.support.broker import await_nodes
from tests.support.containers import LOCKED_DOWN, Container, Failed, Group, engine, inspect
from tests.support.ports import free_port
from tests.support.wait import wait_until

IMAGE: Final = os.environ.get("FAULT_ADAPTER_IMAGE", "")
BASE: Final = os.environ.get("FAULT_ADAPTER_BASE", "python:3.13-slim")
KAFKA: Final = "apache/kafka:4.3.1"
REGISTRY: Final = "apicurio/apicurio-registry:3.0.9"
LARGEST_ADDITION: Final = 150 * 10**6
SCHEMAS: Final = Path(__file__).parents[2] / "schemas" / "avro"
PARTITIONS: Final = 4

pytestmark = pytest.mark.skipif(not IMAGE, reason="needs the built image: make image")


@pytest.fixture(scope="module")
def engine_() -> str:
    found = engine()
    assert found is not None, "no container engine answers"
    return found


def test_runs_as_nobody_from_a_read_only_file_system(engine_: str) -> None:
    with Group(engine_) as group:
        assert group.once(IMAGE, "--version") == f"fault-adapter {__version__}"
        assert "records fit" in group.once(IMAGE, "schemas", "check")
        assert "ADAPTER_KAFKA__BOOTSTRAP_SERVERS" in group.once(IMAGE, "settings")
        assert "first steps" in group.once(IMAGE)
    assert inspect(engine_, IMAGE)["Config"]["User"] == "65532:65532"


def test_does_its_work_as_any_user_that_a_platform_gives_it(engine_: str) -> None:
    """OpenShift takes one from the range of the namespace, who has no name and no home."""
    with Group(engine_) as group:
        assert "nothing lost, nothing twice" in group.once(
            IMAGE, "demo", options=("--user=1000660000:0", "--tmpfs=/tmp")
        )


def test_wrong_settings_are_told_and_end_it(engine_: str) -> None:
    with Group(engine_) as group, pytest.raises(Failed, match="ADAPTER_KAFKA__BOOTSTRAP_SERVERS: is missing"):
        group.once(IMAGE, "worker")


def test_holds_no_tool_to_build_or_install_with(engine_: str) -> None:
    look = (
        "import importlib.util as u, shutil;"
        "print([m for m in ('pip', 'ensurepip', 'setuptools', 'hatchling', 'pytest') if u.find_spec(m)],"
        "[c for c in ('cc', 'gcc', 'make', 'pip', 'pip3', 'curl', 'wget') if shutil.which(c)])"
    )
    for python in ("/opt/adapter/bin/python", "/usr/local/bin/python3"):
        with Group(engine_) as group:
            assert group.once(IMAGE, "-c", look, options=(f"--entrypoint={python}",)) == "[] []"


def test_adds_little_to_its_base(engine_: str) -> None:
    added = inspect(engine_, IMAGE)["Size"] - inspect(engine_, BASE)["Size"]
    assert added < LARGEST_ADDITION


def test_labels_say_what_it_is(engine_: str) -> None:
    labels = inspect(engine_, IMAGE)["Config"]["Labels"]
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.opencontainers.image.revision"] not in {"", "unknown"}


class Estate:
    """Kafka, registry, twin and the roles, each in its own container."""

    def __init__(self, group: Group, kafka: int, registry: int, telemetry: dict[str, int]) -> None:
        self.kafka = f"localhost:{kafka}"
        self.registry = f"http://localhost:{registry}/apis/ccompat/v7"
        self.telemetry = telemetry
        self._group = group
        self._environment = {
            "ADAPTER_KAFKA__BOOTSTRAP_SERVERS": self.kafka,
            "ADAPTER_REGISTRY__URL": self.registry,
            "ADAPTER_SUPPLIER__BASE_URL": "http://localhost:8444",
            "ADAPTER_SUPPLIER__ALLOW_PLAINTEXT": "true",
            "ADAPTER_SUPPLIER__BUYER_IDENTIFIER": "BUYER",
            "ADAPTER_SERVER__ALLOW_PLAINTEXT": "true",
            "ADAPTER_TOPICS__PARTITIONS": str(PARTITIONS),
            "ADAPTER_TOPICS__REPLICATION_FACTOR": "1",
        }
        self.roles: dict[str, Container] = {}

    def once(self, *words: str, given: str = "") -> str:
        return self._group.once(IMAGE, *words, given=given, environment=self._environment)

    def start(self, role: str, *words: str) -> None:
        environment = dict(self._environment)
        if role in self.telemetry:
            environment["ADAPTER_TELEMETRY__PORT"] = str(self.telemetry[role])
        self.roles[role] = self._group.start(IMAGE, role, *words, options=LOCKED_DOWN, environment=environment)

    def get(self, role: str, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.telemetry[role]}{path}", timeout=5) as answer:
            return str(answer.read().decode())

    def ready(self, role: str) -> bool:
        try:
            return bool(json.loads(self.get(role, "/health/ready"))["ready"])
        except OSError:
            return False


def _one_broker(port: int) -> dict[str, str]:
    return {
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_NODE_ID": "1",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_LISTENERS": f"PLAINTEXT://:{port},CONTROLLER://:9093",
        "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://localhost:{port}",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
        "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
    }


@pytest.fixture
def estate(engine_: str) -> Iterator[Estate]:
    port, registry = free_port(), free_port()
    telemetry = {role: free_port() for role in ("worker", "server", "projector")}
    with Group(engine_, ports=(port, registry, *telemetry.values())) as group:
        group.start(KAFKA, environment=_one_broker(port))
        await_nodes(f"127.0.0.1:{port}", nodes=1, within=60)
        group.start(REGISTRY, environment={"QUARKUS_HTTP_PORT": str(registry)})
        started = Estate(group, port, registry, telemetry)
        wait_until(lambda: _answers(f"{started.registry}/subjects"), within=180, what="the registry")
        yield started
        for name, role in started.roles.items():
            print(f"--- {name}\n{role.output()}")


@pytest.mark.timeout(600)
def test_a_ticket_lives_from_its_report_to_its_end_and_every_role_stops_in_order(estate: Estate) -> None:
    estate.once("topics", "create")
    estate.once("schemas", "register")
    # A day of the supplier's is under four seconds; what it has to tell goes to our server.
    estate.start("twin", "--speed", "25000", "--full-life", "--notify-url", "http://localhost:8443")
    for role in estate.telemetry:
        estate.start(role)
    for role in estate.telemetry:
        wait_until(lambda role=role: estate.ready(role), within=60, what=f"{role} ready")  # type: ignore[misc]

    outcomes = estate.once("send", "-", "--wait", given=json.dumps(REPORT))

    assert "FaultReportAdded" in outcomes
    closed = 'fault_adapter_notification_kinds_total{kind="CLOSED"} 1.0'
    wait_until(lambda: closed in estate.get("server", "/metrics"), within=60, what="the last notification")
    ticket = wait_until(lambda: _ticket(estate.kafka, "SMOKE-1", "CLOSED"), within=60, what="the ticket's end")
    assert ticket is not None
    assert ticket["maintainerFaultReference"]
    assert 'fault_adapter_outcomes_total{operation="AddFaultReport",outcome="accepted"} 1.0' in estate.get(
        "worker", "/metrics"
    )
    assert f'fault_adapter_build_info{{version="{__version__}"}} 1.0' in estate.get("server", "/metrics")
    for role in (*estate.telemetry, "twin"):
        assert estate.roles[role].stop() == 0


REPORT: Final = {
    "command": "AddFaultReport",
    "buyerFaultReference": "SMOKE-1",
    "serviceAffected": "S18650",
    "reporterContactDetails": {"name": "Service desk"},
    "endUserContactDetails": {},
    "faultDetails": {"type": "IMPAIRED_SERVICE", "description": "Slow since this morning"},
}


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


def _ticket(bootstrap: str, reference: str, status: str) -> dict[str, Any] | None:
    """The ticket's state, once it has that status."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "smoke", "isolation.level": "read_committed"})
    schema = fastavro.parse_schema(json.loads((SCHEMAS / "tickets" / "Ticket.avsc").read_text(encoding="utf-8")))
    try:
        consumer.assign([TopicPartition("fault.tickets", n, 0) for n in range(PARTITIONS)])
        for message in consumer.consume(10_000, timeout=1):
            value, key = message.value(), message.key()
            if value is None or key is None or message.error() or key != reference.encode():
                continue
            record = fastavro.schemaless_reader(io.BytesIO(bytes(value)[5:]), schema)
            if isinstance(record, dict) and record["status"] == status:
                return record
        return None
    finally:
        consumer.close()
