"""`adapter check` against a real broker and its access rules."""

import asyncio
import json
import os
import re
from collections.abc import Callable
from dataclasses import asdict

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclBinding, AclOperation, AclPermissionType
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType

from adapter.app.check import Line, Role, Verdict, check
from adapter.cli import main
from adapter.core.avro import SubjectStrategy
from adapter.demo import registry as registries
from tests.support import estate as say
from tests.support import topics as topic_sets
from tests.support.broker import Cluster
from tests.support.estate import unique
from tests.support.kafka_door import Api, kafka_door
from tests.support.known import known
from tests.support.ports import free_port
from tests.support.rig import open_rig
from tests.support.topics import Topics
from tests.support.wait import PATIENCE, wait_until

RULES = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "true",
    "transaction.max.timeout.ms": "60000",
}


_PARTITIONERS = ("murmur2_random", "consistent_random")


def _verdicts(capsys: pytest.CaptureFixture[str], role: str) -> dict[str, list[str]]:
    main(["check", role, "--json"])
    found: dict[str, list[str]] = {}
    for line in json.loads(capsys.readouterr().out):
        found.setdefault(line["subject"], []).append(f"{line['verdict']}: {line['said']}")
    return found


Start = Callable[[dict[str, str]], Cluster]


@pytest.fixture
def start(kafka_cluster: Callable[..., Cluster], monkeypatch: pytest.MonkeyPatch) -> Start:
    """Starts a cluster with those properties, which the settings then name."""

    def started(properties: dict[str, str]) -> Cluster:
        cluster = kafka_cluster(properties=properties)
        _named(cluster.bootstrap, monkeypatch)
        return cluster

    return started


@pytest.fixture
def cluster(start: Start) -> Cluster:
    return start(RULES)


def _named(bootstrap: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("ADAPTER_")]:
        monkeypatch.delenv(name)
    for name, value in {
        "KAFKA__BOOTSTRAP_SERVERS": bootstrap,
        "REGISTRY__URL": f"http://127.0.0.1:{free_port()}",
        "SUPPLIER__BUYER_IDENTIFIER": "SPDEV1",
        "SUPPLIER__BASE_URL": "https://localhost:1",
        "TOPICS__REPLICATION_FACTOR": "1",
        "TELEMETRY__PORT": str(free_port()),
    }.items():
        monkeypatch.setenv(f"ADAPTER_{name}", value)


def _deny(admin: AdminClient, kind: ResourceType, name: str, operation: AclOperation) -> None:
    rule = AclBinding(
        kind, name, ResourcePatternType.PREFIXED, "User:ANONYMOUS", "*", operation, AclPermissionType.DENY
    )
    known = AclBinding(
        kind, name, ResourcePatternType.PREFIXED, "User:ANONYMOUS", "*", AclOperation.DESCRIBE, AclPermissionType.ALLOW
    )
    for done in admin.create_acls([rule, known]).values():
        done.result(PATIENCE)


def test_topics_rights_and_partitions_are_told(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _verdicts(capsys, "worker")["fault.journal"] == ["failed: is missing"]

    assert main(["topics", "create"]) == 0
    capsys.readouterr()
    found = _verdicts(capsys, "worker")
    assert found["fault.journal"] == ["ok: 8 partitions, 1 copies"]
    assert found["transactions"] == ["ok: granted to fault-adapter…"]

    topic_sets.configure(cluster.bootstrap, "fault.commands", "message.timestamp.type", "CreateTime")
    assert main(["topics", "plan"]) == main(["topics", "create"]) == 0, "it is for the operator to decide"
    topic_sets.configure(cluster.bootstrap, "fault.commands", "cleanup.policy", "compact")
    assert main(["topics", "plan"]) == main(["topics", "create"]) == 3
    topic_sets.configure(cluster.bootstrap, "fault.commands", "cleanup.policy", "delete")
    capsys.readouterr()

    assert found["keys"] == ["ok: there are no commands yet"]

    right, wrong = (Producer({"bootstrap.servers": cluster.bootstrap, "partitioner": p}) for p in _PARTITIONERS)
    for number in range(30):
        right.produce("fault.commands", b"x", f"R-{number}".encode())
    assert right.flush(PATIENCE) == 0
    assert _verdicts(capsys, "worker")["keys"] == ["ok: the newest 30 commands are where murmur2 puts their keys"]
    for number in range(30):
        wrong.produce("fault.commands", b"x", f"W-{number}".encode())
    assert wrong.flush(PATIENCE) == 0
    (said,) = _verdicts(capsys, "worker")["keys"]
    assert re.fullmatch(
        r"warning: 2\d of the newest 60 commands are not where murmur2 puts their keys, such as W-\d+, W-\d+, W-\d+",
        said,
    )

    assert found["buyer"] == ["ok: there are no events yet"]
    for source in ("cityfibre/SPDEV1", "cityfibre/SPDEV1", "projector", "cityfibre/OTHER%2F1"):
        right.produce("fault.events", b"x", b"R", headers={"ce_source": f"/fault-adapter/{source}"})
    assert right.flush(PATIENCE) == 0
    assert _verdicts(capsys, "worker")["buyer"] == [
        "warning: 1 of the newest 4 events are of another buyer identifier: OTHER/1"
    ]

    monkeypatch.setenv("ADAPTER_KAFKA__TRANSACTION_TIMEOUT", "2m")
    (said,) = _verdicts(capsys, "worker")["transactions"]
    assert said.startswith("failed: ADAPTER_KAFKA__TRANSACTION_TIMEOUT: is longer than the brokers allow")
    monkeypatch.delenv("ADAPTER_KAFKA__TRANSACTION_TIMEOUT")
    monkeypatch.setenv("ADAPTER_KAFKA__PROPERTIES__RETRIES", "0")
    (said,) = _verdicts(capsys, "worker")["transactions"]
    assert said.startswith("failed: ADAPTER_KAFKA__PROPERTIES: ")
    assert "retries" in said
    monkeypatch.delenv("ADAPTER_KAFKA__PROPERTIES__RETRIES")

    monkeypatch.setenv("ADAPTER_TOPICS__PARTITIONS", "12")
    monkeypatch.setenv("ADAPTER_TOPICS__RETENTION__EVENTS", "800d")
    found = _verdicts(capsys, "projector")
    assert found["fault.tickets"] == ["failed: has 8 partitions, wanted are 12"]
    assert found["fault.events"][0] == "failed: has 8 partitions, wanted are 12"
    assert found["fault.events"][1].startswith("warning: retention.ms")

    assert found["group"] == ["ok: granted to fault-adapter-projector"]
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
    _deny(admin, ResourceType.GROUP, "fault-adapter-worker", AclOperation.READ)
    assert _verdicts(capsys, "worker")["group"] == ["failed: no right to read fault-adapter-worker"]
    _deny(admin, ResourceType.TOPIC, "fault.quarantine", AclOperation.WRITE)
    _deny(admin, ResourceType.TRANSACTIONAL_ID, "fault-adapter", AclOperation.WRITE)
    assert _verdicts(capsys, "server")["fault.quarantine"] == [
        "warning: its configuration can't be read",
        "failed: no right to write",
    ]
    (said,) = _verdicts(capsys, "worker")["transactions"]
    assert said.startswith("failed: ")
    assert "authoriz" in said.lower()


async def test_ids_that_the_registry_has_given_to_other_schemas_are_told(
    kafka: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def found(registry: str) -> list[Line]:
        for name, value in rig.environment(REGISTRY__URL=registry).items():
            monkeypatch.setenv(name, value)
        return [line async for line in check(Role.WORKER) if line.subject == "records"]

    async with open_rig(kafka, partitions=2) as rig:
        async with rig.worker():
            command = say.add(unique())
            rig.estate.send(command)
            await rig.estate.final(command)
        assert [line.verdict for line in await found(rig.registry.url)] == [Verdict.OK]
        subjects = known().subjects(SubjectStrategy.TOPIC_RECORD, asdict(rig.topics))
        emptied = await registries.serve(holding=reversed(subjects))
        try:
            of_events, of_journal = await found(emptied.url)
        finally:
            await emptied.close()
    assert of_events.verdict is Verdict.WARNING
    assert of_events.said.startswith(f"1 of the newest 1 in {rig.topics.events} can't be read, such as one with ")
    assert of_journal.verdict is Verdict.FAILED
    assert "fault.journal.JournalEntries" in of_journal.said
    assert "The registry is lost" in of_journal.fix


@pytest.mark.parametrize("role", ["worker", "projector"])
def test_a_group_that_another_deployment_has_is_told(
    kafka: str, topics: Topics, role: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _named(kafka, monkeypatch)
    monkeypatch.setenv(f"ADAPTER_{'KAFKA' if role == 'worker' else 'PROJECTOR'}__GROUP_ID", topics.prefix)
    theirs = Consumer({"bootstrap.servers": kafka, "group.id": topics.prefix})
    theirs.subscribe([topics.quarantine])
    wait_until(lambda: theirs.poll(0.1) is None and theirs.assignment(), what="a member")
    ours = "fault.commands" if role == "worker" else "fault.events"
    said = f"failed: members of {topics.prefix} read {topics.quarantine}, and not {ours}"
    wait_until(lambda: _verdicts(capsys, role)["group"] == [said], what="being told of the other deployment")
    theirs.close()
    assert _verdicts(capsys, role)["group"] == [f"ok: granted to {topics.prefix}"]


def test_a_group_protocol_that_the_brokers_do_not_offer_is_told(
    start: Start, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    start({"group.coordinator.rebalance.protocols": "classic"})
    assert main(["topics", "create"]) == 0
    capsys.readouterr()
    monkeypatch.setenv("ADAPTER_KAFKA__GROUP_PROTOCOL", "consumer")
    refused = r"failed: .* takes in no member with the group protocol consumer: .*API version not supported.*"
    # Asked again: the first group of a cluster has no coordinator at once.
    wait_until(lambda: re.fullmatch(refused, _verdicts(capsys, "projector")["group"][0]), what="the verdict")


async def test_a_group_that_does_not_answer_a_member_is_told(
    kafka: str, topics: Topics, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As librdkafka does not where a broker before Kafka 4.0 is asked for KIP-848."""
    async with kafka_door(kafka) as door:
        _named(door.bootstrap, monkeypatch)
        for name, value in topics.settings.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("ADAPTER_KAFKA__GROUP_ID", topics.prefix)
        monkeypatch.setenv("ADAPTER_KAFKA__GROUP_PROTOCOL", "consumer")
        door.hold_requests(Api.CONSUMER_GROUP_HEARTBEAT)
        found = await asyncio.to_thread(_verdicts, capsys, "worker")
        said = f"{topics.prefix} takes in no member with the group protocol consumer: no answer within 5 s"
        assert found["group"] == [f"failed: {said}"]
        door.release()
        found = await asyncio.to_thread(_verdicts, capsys, "worker")
        assert found["group"] == [f"ok: granted to {topics.prefix}"]


def test_transactions_that_no_broker_coordinates_are_no_matter_of_rights(
    start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    start({"transaction.state.log.replication.factor": "3"})  # as many as there are not
    assert main(["topics", "create"]) == 0
    capsys.readouterr()
    main(["check", "worker", "--json"])
    (line,) = [line for line in json.loads(capsys.readouterr().out) if line["subject"] == "transactions"]
    assert line["verdict"] == "failed"
    assert "look at the brokers" in line["fix"]


def test_partitions_that_nobody_can_read_are_told_while_a_broker_is_away(
    kafka_cluster: Callable[..., Cluster], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = kafka_cluster(nodes=3)
    _named(cluster.bootstrap, monkeypatch)
    monkeypatch.setenv("ADAPTER_TOPICS__PARTITIONS", "3")
    assert main(["topics", "create"]) == 0
    cluster.kill(3)
    capsys.readouterr()
    said = "failed: 1 of 3 partitions have no leader: nobody can read or write them"
    wait_until(lambda: said in _verdicts(capsys, "server").get("fault.events", ()), what="the verdict")


def _refused(capsys: pytest.CaptureFixture[str], broker: str) -> bool:
    """Whether check says so."""
    said = f"failed: no connection to the broker {broker}: Connection refused"
    return any(told.startswith(said) for told in _verdicts(capsys, "server")["Kafka"])


def test_a_broker_that_is_down_is_told_though_too_few_controllers_are_left_to_notice(
    kafka_cluster: Callable[..., Cluster], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = kafka_cluster(nodes=2)
    _named(cluster.bootstrap, monkeypatch)
    assert main(["topics", "create"]) == 0
    cluster.kill(2)
    capsys.readouterr()
    _, down = cluster.bootstrap.split(",")
    wait_until(lambda: _refused(capsys, down), what="the verdict")
