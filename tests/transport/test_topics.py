"""Topics as they are wanted and as they are; the second half against a real broker."""

import secrets
import socket
import socketserver
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from cryptography.hazmat.primitives import serialization

from adapter.core.errors import Stop, Unavailable
from adapter.settings import Retention, Topics
from adapter.transport.kafka.admin import Admin, Config, Found, Wanted, Wish, differences, wanted
from adapter.transport.kafka.client import Follower
from tests.support import topics as topic_sets
from tests.support.broker import Cluster
from tests.support.certificates import Trials
from tests.support.ports import free_port
from tests.support.wait import wait_until


def unique() -> str:
    return f"test-{secrets.token_hex(4)}"


def as_wanted(want: Wanted) -> Found:
    return Found(want.partitions, want.replication_factor, {c.name: c.value for c in want.config})


def texts(want: Wanted, found: Found) -> list[str]:
    return [difference.text for difference in differences([want], {want.name: found})]


def by_name(topics: Topics) -> dict[str, Wanted]:
    return {topic.name: topic for topic in wanted(topics)}


def test_topics_of_one_key_have_the_same_partitions_and_fit_what_they_must_store() -> None:
    topics = by_name(Topics(partitions=12, prefix="p."))
    keyed = {name for name, topic in topics.items() if topic.keyed}
    assert keyed == {"p.fault.commands", "p.fault.events", "p.fault.tickets", "p.fault.journal"}
    assert {topics[name].partitions for name in keyed} == {12}
    config = {name: {c.name: c.value for c in topic.config} for name, topic in topics.items()}
    assert config["p.fault.tickets"]["cleanup.policy"] == "compact"
    assert int(config["p.fault.journal"]["retention.ms"]) >= 2 * int(config["p.fault.commands"]["retention.ms"])
    assert int(config["p.fault.dead-letters"]["max.message.bytes"]) > int(
        config["p.fault.commands"]["max.message.bytes"]
    )


@pytest.mark.parametrize(("copies", "in_sync"), [(1, "1"), (2, "1"), (3, "2")])
def test_one_copy_may_be_away(copies: int, in_sync: str) -> None:
    for topic in wanted(Topics(replication_factor=copies)):
        assert {c.name: c.value for c in topic.config}["min.insync.replicas"] == in_sync


def test_nothing_differs_from_what_is_wanted() -> None:
    wants = wanted(Topics())
    assert list(differences(wants, {want.name: as_wanted(want) for want in wants})) == []


def test_more_than_wanted_is_as_good() -> None:
    want = by_name(Topics())["fault.events"]
    more = {"retention.ms": "-1", "max.message.bytes": "99999999", "min.insync.replicas": "3"}
    found = replace(as_wanted(want), replication_factor=5, config={**(as_wanted(want).config or {}), **more})
    assert texts(want, found) == []


@pytest.mark.parametrize(
    ("topic", "name", "value"),
    [
        ("fault.events", "retention.ms", "1000"),
        ("fault.events", "max.message.bytes", "1048588"),
        ("fault.events", "min.insync.replicas", "1"),
        ("fault.tickets", "cleanup.policy", "delete"),
        ("fault.tickets", "cleanup.policy", "compact,delete"),
        ("fault.journal", "cleanup.policy", "compact"),
        ("fault.journal", "retention.bytes", "1048576"),
        ("fault.commands", "max.message.bytes", "4194304"),
        ("fault.commands", "message.timestamp.type", "CreateTime"),
    ],
)
def test_a_configuration_that_breaks_a_promise_is_told(topic: str, name: str, value: str) -> None:
    want = by_name(Topics())[topic]
    found = replace(as_wanted(want), config={**(as_wanted(want).config or {}), name: value})
    (text,) = texts(want, found)
    assert text.startswith(f"{name} is {value}, wanted is ")


def test_partitions_and_copies_are_told_with_both_numbers() -> None:
    want = by_name(Topics(partitions=8))["fault.commands"]
    found = replace(as_wanted(want), partitions=6, replication_factor=1)
    assert texts(want, found) == [
        "has 6 partitions, wanted are 8",
        "has 1 copies of each partition, wanted are 3",
    ]


def test_what_to_do_about_it_is_told_by_the_tool_that_can_do_it() -> None:
    want = by_name(Topics(partitions=8))["fault.tickets"]
    config = {**(as_wanted(want).config or {}), "cleanup.policy": "delete"}
    found = replace(as_wanted(want), partitions=6, replication_factor=1, config=config)
    partitions, copies, cleanup = (d.fix for d in differences([want], {want.name: found}))
    assert partitions.startswith("ADAPTER_TOPICS__PARTITIONS=6")
    assert "before there are commands" in partitions
    assert copies == "kafka-reassign-partitions.sh, or ADAPTER_TOPICS__REPLICATION_FACTOR=1"
    assert cleanup == (
        "kafka-configs.sh --bootstrap-server … --alter --entity-type topics "
        "--entity-name fault.tickets --add-config cleanup.policy=compact"
    )
    (missing,) = differences([want], {})
    assert missing.fix == "adapter topics create"


def test_the_promises_rest_on_a_journal_that_is_not_cut_to_a_size() -> None:
    wants = by_name(Topics())

    def vital(name: str) -> bool:
        cut = replace(as_wanted(wants[name]), config={"retention.bytes": "1048576"})
        (difference,) = differences([wants[name]], {name: cut})
        return difference.vital

    assert (vital("fault.journal"), vital("fault.events")) == (True, False)


def test_configuration_the_cluster_does_not_tell_is_not_guessed_at() -> None:
    want = by_name(Topics())["fault.events"]
    assert texts(want, replace(as_wanted(want), config={})) == []


def test_configuration_that_may_not_be_read_is_told() -> None:
    want = by_name(Topics())["fault.events"]
    (difference,) = differences([want], {want.name: replace(as_wanted(want), config=None)})
    assert difference.text == "its configuration can't be read"
    assert "DESCRIBE_CONFIGS" in difference.fix
    assert not difference.vital


def test_topics_are_created_once_and_then_as_wanted(kafka: str) -> None:
    settings = Topics(
        prefix=f"{unique()}.",
        partitions=3,
        replication_factor=1,
        retention=Retention(commands=timedelta(days=1), journal=timedelta(days=2)),
    )
    admin = Admin({"bootstrap.servers": kafka})
    wants = wanted(settings)
    names = [want.name for want in wants]
    assert [d.text for d in differences(wants, admin.find(names))] == ["is missing"] * 6
    admin.create(wants)
    wait_until(lambda: len(admin.find(names)) == 6, what="the topics")
    admin.create(wants)
    found = admin.find(names)
    assert list(differences(wants, found)) == []
    assert len(set(admin.identities(names).values())) == 6
    assert admin.partition_counts([*names, "missing"]) == dict.fromkeys(names, 3)
    assert admin.cluster_id()


def test_a_command_that_its_producer_dates_back_is_kept_as_long_as_others(
    kafka_cluster: Callable[..., Cluster],
) -> None:
    often = {"log.retention.check.interval.ms": 100, "log.initial.task.delay.ms": 0}
    client = {"bootstrap.servers": kafka_cluster(properties=often).bootstrap, "log_level": "0"}
    topics = Topics(partitions=1, replication_factor=1)
    names = topics.names()
    fleeting = Config("retention.ms", "1", Wish.EXACTLY)
    Admin(client).create((by_name(topics)[names.commands], Wanted("fleeting", 1, 1, keyed=False, config=(fleeting,))))
    producer, reader = Producer(client), Consumer({**client, "group.id": "x"})
    ended = datetime.now(UTC) - topics.retention.commands - timedelta(hours=1)
    producer.produce(names.commands, b"x", timestamp=round(ended.timestamp() * 1000))

    def deleted(number: int) -> bool:
        return reader.get_watermark_offsets(TopicPartition("fleeting", 0))[0] == number

    for number in (1, 2):  # between the two of them Kafka has looked at every topic
        producer.produce("fleeting", b"x")
        producer.flush()
        wait_until(partial(deleted, number), what="the end of a record whose time is over")
    assert reader.get_watermark_offsets(TopicPartition(names.commands, 0)) == (0, 1)
    reader.close()


def test_every_refusal_of_the_cluster_is_told(kafka: str) -> None:
    wants = wanted(Topics(prefix=f"{unique()}.", replication_factor=100))
    with pytest.raises(Stop) as stop:
        Admin({"bootstrap.servers": kafka}).create(wants)
    assert len(stop.value.problems) == 6
    assert all("; set ADAPTER_TOPICS__REPLICATION_FACTOR" in problem for problem in stop.value.problems)


@pytest.mark.usefixtures("no_collector")
def test_an_admin_that_nobody_uses_any_more_ends_with_its_client_at_once() -> None:
    admin = Admin({"bootstrap.servers": "127.0.0.1:1"}, timeout=timedelta(seconds=1))
    seen = weakref.ref(admin)
    del admin
    assert seen() is None


@pytest.mark.parametrize(
    "ask",
    [
        lambda admin: admin.find(["a"]),
        lambda admin: admin.partition_counts(["a"]),
        lambda admin: admin.create(wanted(Topics())),
    ],
)
def test_a_cluster_that_is_not_there_is_unavailable(ask: Callable[[Admin], object]) -> None:
    admin = Admin({"bootstrap.servers": "127.0.0.1:1"}, timeout=timedelta(seconds=1))
    with pytest.raises(Unavailable, match="does not answer"):
        ask(admin)


@contextmanager
def speechless() -> Iterator[str]:
    """The address of somebody who ends each connection once it has heard something, as brokers do with the protocol of
    another listener."""

    class End(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(100)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), End) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: Admin(client, timeout=timedelta(seconds=6)).brokers(),
        lambda client: Follower(client, "x", timeout=timedelta(seconds=6)),
    ],
    ids=["admin", "follower"],
)
def test_brokers_that_end_each_connection_without_a_word_point_to_the_security_protocol(
    ask: Callable[[dict[str, str]], object],
) -> None:
    with speechless() as address, pytest.raises(Unavailable, match="PROPERTIES__SECURITY_PROTOCOL"):
        ask({"bootstrap.servers": address})


@contextmanager
def mute(port: int) -> Iterator[None]:
    """Somebody takes each connection on this port and never answers, as a broker that hangs does."""
    with socket.create_server(("127.0.0.1", port), backlog=100):
        yield


def hanging(port: int) -> dict[str, str]:
    """Properties with which a client soon takes the broker on this port for one that hangs."""
    return {"bootstrap.servers": f"127.0.0.1:{port}", "api.version.request.timeout.ms": "500"}


def test_of_brokers_that_take_connections_and_do_not_answer_it_is_not_said_that_they_end_them() -> None:
    port = free_port()
    with mute(port), pytest.raises(Unavailable, match="without a word, or do not answer on them: they stop or hang"):
        Admin(hanging(port), timeout=timedelta(seconds=3)).brokers()


def test_why_a_cluster_was_away_once_is_not_said_of_the_next_time() -> None:
    port = free_port()
    admin = Admin(hanging(port), timeout=timedelta(seconds=3))
    with pytest.raises(Unavailable, match="Connection refused"):
        admin.brokers()
    with mute(port):
        with pytest.raises(Unavailable):  # its client was made, and may have been refused, while nobody was there
            admin.brokers()
        with pytest.raises(Unavailable, match="do not answer on them"):
            admin.brokers()


@pytest.mark.parametrize(
    ("properties", "cure"),
    [
        ({"security.protocol": "SASL_SSL"}, "; set ADAPTER_KAFKA__PROPERTIES__SASL_MECHANISM to what the brokers take"),
        ({"security.protocol": "SSL", "ssl.ca.location": "/nowhere/ca.pem"}, "; name a PEM file that can be read"),
    ],
)
def test_what_librdkafka_says_in_its_own_terms_comes_with_what_to_do(properties: dict[str, str], cure: str) -> None:
    with pytest.raises(Stop) as stop:
        Admin({"bootstrap.servers": "127.0.0.1:1", **properties})
    assert cure in stop.value.problems[0]


def test_a_key_with_a_password_says_where_that_goes(tmp_path: Path, trials: Trials) -> None:
    made = serialization.load_pem_private_key(trials.good.client_key.read_bytes(), None)
    key = tmp_path / "encrypted.key"
    key.write_bytes(
        made.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"password"),
        )
    )
    files = {"ssl.certificate.location": str(trials.good.client_certificate), "ssl.key.location": str(key)}
    with pytest.raises(Stop, match="ADAPTER_KAFKA__PROPERTIES_FILES__SSL_KEY_PASSWORD"):
        Admin({"bootstrap.servers": "127.0.0.1:1", "security.protocol": "SSL", **files})


def test_a_property_librdkafka_does_not_know_stops_the_start() -> None:
    with pytest.raises(Stop, match="ADAPTER_KAFKA__PROPERTIES"):
        Admin({"bootstrap.servers": "127.0.0.1:1", "no.such.thing": "1"})


_METHOD = "sasl.oauthbearer.metadata.authentication.type"


@pytest.mark.parametrize(
    ("properties", "said"),
    [
        ({"stats_cb": "x"}, "expected stats_cb"),
        ({_METHOD: "aws_iam"}, "requires 'sasl.oauthbearer.method=oidc'"),
        (
            {_METHOD: "aws_iam", "sasl.oauthbearer.method": "oidc", "sasl.oauthbearer.config": "region=r,audience=a"},
            "oauthbearer-aws",
        ),
    ],
)
def test_a_property_its_wrapper_for_python_refuses_stops_the_start(properties: dict[str, str], said: str) -> None:
    with pytest.raises(Stop) as stop:
        Admin({"bootstrap.servers": "127.0.0.1:1", **properties})
    (told,) = stop.value.args
    assert told.startswith("ADAPTER_KAFKA__PROPERTIES: ")
    assert said in told
    assert "\n" not in told


@pytest.fixture(scope="module")
def cluster(kafka_of_file: Callable[..., Cluster]) -> Cluster:
    return kafka_of_file(nodes=3)


@pytest.fixture
def three_nodes(cluster: Cluster) -> Cluster:
    """All of them running, whatever the test before has done."""
    cluster.mend()
    return cluster


def test_another_broker_is_asked_once_the_one_that_was_asked_is_gone(three_nodes: Cluster) -> None:
    topics = topic_sets.create(three_nodes.bootstrap, partitions=1)
    client = {"bootstrap.servers": three_nodes.bootstrap}
    admins = [Admin(client, timeout=timedelta(seconds=2)) for _ in range(9)]  # each asks any of them, at random

    def asked(admin: Admin) -> bool:
        try:
            return topics.events in admin.identities([topics.events])
        except Unavailable:
            return False

    for admin in admins:
        wait_until(lambda admin=admin: asked(admin), what="an answer")  # type: ignore[misc]  # called at once
    three_nodes.kill(1)
    for admin in admins:
        wait_until(lambda admin=admin: asked(admin), what="another's answer")  # type: ignore[misc]  # likewise


def test_partitions_that_nobody_can_read_or_write_are_counted(three_nodes: Cluster) -> None:
    client = {"bootstrap.servers": three_nodes.bootstrap}
    strict = (Config("min.insync.replicas", "3", Wish.EXACTLY),)
    Admin(client).create(
        (
            Wanted("single", partitions=3, replication_factor=1, keyed=False, config=()),
            Wanted("triple", partitions=3, replication_factor=3, keyed=False, config=strict),
        )
    )

    def seen() -> tuple[tuple[int, int], tuple[int, int]] | None:
        try:
            found = Admin(client, timeout=timedelta(seconds=5)).find(["single", "triple"])
        except (Stop, Unavailable):  # one is about to be gone
            return None
        if len(found) < 2:  # not every broker knows a new topic at once
            return None
        single, triple = found["single"], found["triple"]
        return (single.leaderless, single.short), (triple.leaderless, triple.short)

    wait_until(lambda: seen() == ((0, 0), (0, 0)), what="whole topics")
    three_nodes.kill(1)
    wait_until(lambda: seen() == ((1, 0), (0, 3)), what="what is missing of them")


def test_a_cluster_that_is_away_while_certificates_are_of_no_use_may_come_back(trials: Trials, tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes(trials.good.ca.read_bytes())
    client = {
        "bootstrap.servers": f"127.0.0.1:{free_port()}",
        "security.protocol": "ssl",
        "ssl.ca.location": str(ca),
    }
    admin = Admin(client, timeout=timedelta(milliseconds=200))
    ca.write_text("no certificate")
    for _ in range(2):
        with pytest.raises(Unavailable):
            admin.partition_counts(("fault.commands",))
