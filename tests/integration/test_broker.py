"""The broker the other tests stand on does what they take for granted."""

from collections.abc import Callable

from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient

from tests.support.broker import Cluster
from tests.support.topics import Topics
from tests.support.wait import PATIENCE, wait_until


def test_a_set_of_topics_is_there_with_the_partitions_asked_for(
    kafka: str, create_topics: Callable[..., Topics]
) -> None:
    topics = create_topics(partitions=8)
    known = AdminClient({"bootstrap.servers": kafka}).list_topics(timeout=PATIENCE).topics
    assert {len(known[topic].partitions) for topic in topics.all} == {8}


def test_two_sets_of_topics_share_no_name(create_topics: Callable[..., Topics]) -> None:
    assert not set(create_topics(partitions=1).all) & set(create_topics(partitions=1).all)


def test_an_acknowledged_record_survives_the_death_of_the_broker(
    kafka_cluster: Callable[..., Cluster],
) -> None:
    cluster = kafka_cluster(properties={"auto.create.topics.enable": "true"})
    _produce(cluster.bootstrap, b"before")
    cluster.kill()
    cluster.restart()
    _produce(cluster.bootstrap, b"after")
    assert _consume(cluster.bootstrap, count=2) == [b"before", b"after"]


def test_three_nodes_go_on_without_one(kafka_cluster: Callable[..., Cluster]) -> None:
    cluster = kafka_cluster(nodes=3, properties={"auto.create.topics.enable": "true"})
    _produce(cluster.bootstrap, b"before")
    cluster.kill(2)
    _produce(cluster.bootstrap, b"after")
    cluster.restart(2)
    assert _consume(cluster.bootstrap, count=2) == [b"before", b"after"]


def _produce(bootstrap: str, value: bytes) -> None:
    acknowledged: list[object] = []
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "log_level": 0})
    producer.produce("records", value, on_delivery=lambda error, _: acknowledged.append(error))
    assert producer.flush(PATIENCE) == 0
    assert acknowledged == [None]


def _consume(bootstrap: str, *, count: int) -> list[bytes | None]:
    values: list[bytes | None] = []
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "readers",
            "auto.offset.reset": "earliest",
            "log_level": 0,
        }
    )
    consumer.subscribe(["records"])

    def enough() -> bool:
        values.extend(record.value() for record in consumer.consume(10, timeout=0.5) if not record.error())
        return len(values) >= count

    wait_until(enough, what=f"{count} records")
    consumer.close()
    return values
