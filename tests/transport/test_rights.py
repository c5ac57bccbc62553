"""Where Kafka refuses us: rights that are missing, at the start and later on."""

import asyncio
import time
from contextlib import closing
from datetime import timedelta

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin._acl import AclOperation
from confluent_kafka.admin._resource import ResourceType

from adapter.core.errors import Stop, Unavailable
from adapter.ports import Outgoing, Position
from adapter.transport.kafka.admin import Admin
from adapter.transport.kafka.client import Edge, Follower, Sender
from adapter.transport.kafka.producer import TransactionalProducer
from adapter.transport.kafka.publisher import KafkaPublisher
from tests.support import topics as topic_sets
from tests.support.groups import introduced
from tests.support.rights import denied, writing_nothing
from tests.support.topics import Topics
from tests.support.wait import PATIENCE


@pytest.fixture
def ruled(kafka_with_rules: str) -> Topics:
    return topic_sets.create(kafka_with_rules, partitions=1)


@pytest.mark.parametrize(
    ("resource", "operation"),
    [
        (ResourceType.TOPIC, AclOperation.WRITE),
        (ResourceType.TOPIC, AclOperation.ALL),
        (ResourceType.GROUP, AclOperation.READ),
    ],
)
async def test_a_transaction_that_is_refused_can_be_tried_again_until_the_right_is_granted(
    kafka_with_rules: str, ruled: Topics, resource: ResourceType, operation: AclOperation
) -> None:
    kafka, told = kafka_with_rules, list[str]()
    group = Consumer({"bootstrap.servers": kafka, "group.id": ruled.prefix, "log_level": 0})
    await introduced(kafka, ruled.commands, ruled.prefix)
    ours = TransactionalProducer(
        client={"bootstrap.servers": kafka},
        topic=ruled.commands,
        group=ruled.prefix,
        transactional_id=ruled.prefix,
        timeout=timedelta(seconds=60),
        max_message_bytes=1_000_000,
        report=told.append,
        waits=lambda _, _seconds: None,
    )
    of_topic = resource is ResourceType.TOPIC
    refused, name = ("Topic", ruled.dead_letters) if of_topic else ("Group", "")
    records = [Outgoing(topic, b"key", b"value", (), 0) for topic in (ruled.journal, ruled.dead_letters)]

    async def commit() -> bool:
        return await asyncio.wait_for(
            ours.commit(records, [Position(0, 0, "ours")], group.consumer_group_metadata), timeout=PATIENCE
        )

    try:
        await ours.open()
        with denied(kafka, resource, name or ruled.prefix, operation):
            while len([why for why in told if f"{refused} authorization failed" in why and name in why]) < 2:
                assert await commit() is False
        async with asyncio.timeout(PATIENCE):
            while not await commit():
                pass
    finally:
        await ours.close()
        await asyncio.to_thread(group.close)


def test_a_topic_whose_configuration_may_not_be_read_is_told(kafka_with_rules: str, ruled: Topics) -> None:
    admin = Admin({"bootstrap.servers": kafka_with_rules})
    names = [ruled.journal, ruled.events]
    with denied(kafka_with_rules, ResourceType.TOPIC, ruled.journal, AclOperation.DESCRIBE_CONFIGS):
        found = admin.find(names)
    assert [name for name in names if found[name].config is None] == [ruled.journal]


def test_every_topic_that_may_not_be_seen_is_told_by_the_right_that_is_missing(
    kafka_with_rules: str, ruled: Topics
) -> None:
    admin, hidden = Admin({"bootstrap.servers": kafka_with_rules}), (ruled.journal, ruled.events)
    with (
        denied(kafka_with_rules, ResourceType.TOPIC, hidden[0], AclOperation.DESCRIBE),
        denied(kafka_with_rules, ResourceType.TOPIC, hidden[1], AclOperation.DESCRIBE),
        pytest.raises(Stop) as stop,
    ):
        admin.find([*hidden, ruled.commands])
    told = [f"{name}: no right to see whether it exists; grant DESCRIBE on it (kafka-acls.sh)" for name in hidden]
    assert sorted(stop.value.problems) == sorted(told)


@pytest.mark.parametrize("operation", [AclOperation.ALL, AclOperation.READ])
async def test_a_group_that_we_may_not_join_stops_the_start(
    kafka_with_rules: str, ruled: Topics, operation: AclOperation
) -> None:
    with (
        denied(kafka_with_rules, ResourceType.GROUP, ruled.prefix, operation),
        pytest.raises(Stop, match=f"{ruled.prefix}: no right to read this consumer group"),
    ):
        await introduced(kafka_with_rules, ruled.commands, ruled.prefix)


async def test_a_topic_that_the_group_may_not_read_stops_the_start(kafka_with_rules: str, ruled: Topics) -> None:
    with (
        denied(kafka_with_rules, ResourceType.TOPIC, ruled.commands, AclOperation.READ),
        pytest.raises(Stop, match=f"{ruled.commands}: no right to read it"),
    ):
        await introduced(kafka_with_rules, ruled.commands, ruled.prefix)


def test_a_topic_is_followed_without_a_right_to_any_group(kafka_with_rules: str, ruled: Topics) -> None:
    client = {"bootstrap.servers": kafka_with_rules}
    producer = Producer({**client, "log_level": 0})
    producer.produce(ruled.events, b"first")
    assert producer.flush(PATIENCE) == 0
    with (
        denied(kafka_with_rules, ResourceType.GROUP, "*", AclOperation.ALL),
        closing(Follower(client, ruled.events, start=Edge.FIRST)) as follower,
    ):
        assert [seen.value for seen in follower.rest()] == [b"first"]
        producer.produce(ruled.events, b"later")
        assert producer.flush(PATIENCE) == 0
        assert next(follower.read(time.monotonic() + PATIENCE)).value == b"later"


async def test_a_publisher_that_might_write_nowhere_publishes_once_it_may(kafka_with_rules: str, ruled: Topics) -> None:
    told = list[str]()

    async def published() -> bool:
        record = Outgoing(ruled.events, b"key", b"value", (), None)
        try:
            await publisher.publish(record, limit=5, late=lambda: None)
        except Unavailable as unavailable:
            told.append(str(unavailable))
            return False
        return True

    with writing_nothing(kafka_with_rules):
        # Not before: it would ask for an id at once, and might get one.
        publisher = KafkaPublisher(
            client={"bootstrap.servers": kafka_with_rules},
            timeout=timedelta(seconds=20),
            max_message_bytes=1_000_000,
            report=told.append,
        )
        while not any("Cluster authorization failed" in why for why in told):
            assert not await published()
    async with asyncio.timeout(PATIENCE):
        while not await published():
            pass
    await publisher.close()


def test_a_sender_that_may_write_nowhere_says_so(kafka_with_rules: str, ruled: Topics) -> None:
    with writing_nothing(kafka_with_rules):
        sender = Sender({"bootstrap.servers": kafka_with_rules}, max_message_bytes=1_000_000)
        (fault,) = sender.send([Outgoing(ruled.events, b"key", b"value")])
    assert "authorization failed" in (fault or "")
