"""The transactional producer before a real broker, where something is in its way."""

import asyncio
import logging
import weakref
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from types import MappingProxyType

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from adapter.core.errors import Stop
from adapter.ports import Outgoing, Position
from adapter.transport.kafka.producer import TransactionalProducer
from tests.support.broker import Cluster
from tests.support.groups import introduced
from tests.support.kafka_door import Api, kafka_door
from tests.support.topics import Topics, create
from tests.support.wait import PATIENCE, eventually


@asynccontextmanager
async def producer(
    bootstrap: str,
    topics: Topics,
    waits: Callable[[str, float], None] = lambda _, _seconds: None,
    *,
    ends: timedelta = timedelta(seconds=60),
    properties: Mapping[str, str] = MappingProxyType({}),
    report: Callable[[str], None] = lambda _: None,
) -> AsyncIterator[TransactionalProducer]:
    found = TransactionalProducer(
        client={"bootstrap.servers": bootstrap, **properties},
        topic=topics.commands,
        group=topics.prefix,
        transactional_id=f"{topics.prefix}-ours",
        timeout=ends,
        max_message_bytes=1_000_000,
        report=report,
        waits=waits,
    )
    try:
        await found.open()
        yield found
    finally:
        await found.close()


def another(kafka: str, name: str) -> Producer:
    other = Producer({"bootstrap.servers": kafka, "transactional.id": name, "retry.backoff.ms": 5, "log_level": 0})
    other.init_transactions(PATIENCE)
    return other


def values(kafka: str, topic: str, count: int) -> list[bytes | None]:
    """Of the committed records of partition 0."""
    reader = Consumer({"bootstrap.servers": kafka, "group.id": topic, "log_level": 0, "enable.auto.commit": False})
    reader.assign([TopicPartition(topic, 0, 0)])
    found = reader.consume(count, PATIENCE)
    reader.close()
    return [message.value() for message in found]


@pytest.mark.usefixtures("no_collector")
async def test_a_producer_that_is_closed_ends_at_once(kafka: str, topics: Topics) -> None:
    async with producer(kafka, topics) as ours:
        lines = [weakref.ref(line) for line in ours._lines]
    del ours
    await eventually(lambda: all(line() is None for line in lines))  # the threads that closed them let go at last


async def test_a_time_limit_that_kafka_refuses_is_told_by_its_setting(kafka: str, topics: Topics) -> None:
    with pytest.raises(Stop, match="ADAPTER_KAFKA__TRANSACTION_TIMEOUT"):
        async with producer(kafka, topics, ends=timedelta(minutes=20)):
            pass


async def test_a_property_that_librdkafka_refuses_is_told(kafka: str, topics: Topics) -> None:
    with pytest.raises(Stop, match=r"ADAPTER_KAFKA__PROPERTIES.*retries"):
        async with producer(kafka, topics, properties={"retries": "0"}):
            pass


async def test_a_step_that_kafka_does_not_answer_is_told_of_and_ends_when_it_does(kafka: str, topics: Topics) -> None:
    group = Consumer({"bootstrap.servers": kafka, "group.id": topics.prefix, "log_level": 0})
    told: list[tuple[str, float]] = []
    await introduced(kafka, topics.commands, topics.prefix)
    async with (
        kafka_door(kafka) as door,
        producer(door.bootstrap, topics, lambda why, seconds: told.append((why, seconds))) as ours,
    ):
        door.hold_answers(Api.END_TXN)
        committed = asyncio.ensure_future(ours.commit([], [Position(0, 0, "ours")], group.consumer_group_metadata))
        await eventually(lambda: told, what="being told that it waits")
        assert not committed.done()
        why, seconds = told[0]
        assert why
        assert seconds >= 10
        door.release()
        assert await asyncio.wait_for(committed, PATIENCE) is True
    await asyncio.to_thread(group.close)


async def test_an_end_of_a_transaction_that_gets_nowhere_is_left_to_another_producer(
    kafka: str, topics: Topics
) -> None:
    group = Consumer({"bootstrap.servers": kafka, "group.id": topics.prefix, "log_level": 0})
    told: list[str] = []
    record = Outgoing(topics.events, b"key", b"once", (), 0)
    await introduced(kafka, topics.commands, topics.prefix)
    async with kafka_door(kafka) as door, producer(door.bootstrap, topics, report=told.append) as ours:
        door.hold_requests(Api.END_TXN)
        lost = asyncio.ensure_future(ours.commit([record], [Position(0, 0, "lost")], group.consumer_group_metadata))
        await eventually(lambda: door.held, what="the end of the transaction")
        door.hold_requests()  # those of others pass
        assert await asyncio.wait_for(lost, PATIENCE) is False
        assert told == ["a step has not ended within 30 s; another producer takes over"]
        assert await ours.commit([record], [Position(0, 1, "again")], group.consumer_group_metadata)
    await asyncio.to_thread(group.close)
    assert await asyncio.to_thread(values, kafka, topics.events, 1) == [b"once"]


async def test_a_broker_that_was_restarted_while_nothing_was_to_do_takes_the_next_transactions(
    kafka_cluster: Callable[..., Cluster],
) -> None:
    cluster = kafka_cluster()
    topics = await asyncio.to_thread(create, cluster.bootstrap, partitions=1)
    group = Consumer({"bootstrap.servers": cluster.bootstrap, "group.id": topics.prefix, "log_level": 0})
    told: list[str] = []
    await introduced(cluster.bootstrap, topics.commands, topics.prefix)
    async with producer(cluster.bootstrap, topics, report=told.append) as ours:

        async def each_commits() -> None:
            for text in ("one", "other"):
                assert await ours.commit([], [Position(0, 0, text)], group.consumer_group_metadata)

        await each_commits()
        cluster.restart()
        await each_commits()
        assert told == []
    await asyncio.to_thread(group.close)


async def test_transactions_are_committed_in_their_order(kafka: str, topics: Topics) -> None:
    """Though several producers take turns, and one's may still be settling while the next is committed."""
    group = Consumer({"bootstrap.servers": kafka, "group.id": topics.prefix, "log_level": 0})
    await introduced(kafka, topics.commands, topics.prefix)
    async with producer(kafka, topics) as ours:
        for number in range(1, 101):
            record = Outgoing(topics.events, b"key", b"%d" % number, (), 0)
            offset = Position(0, number, str(number))
            assert await ours.commit([record], [offset], group.consumer_group_metadata)
    (stands,) = await asyncio.to_thread(group.committed, [TopicPartition(topics.commands, 0)], 20)
    assert (stands.offset, stands.metadata) == (100, "100")
    await asyncio.to_thread(group.close)
    assert await asyncio.to_thread(values, kafka, topics.events, 100) == [b"%d" % number for number in range(1, 101)]


async def test_a_transaction_that_a_rebalance_refuses_is_told_and_is_no_error(
    kafka: str, topics: Topics, caplog: pytest.LogCaptureFixture
) -> None:
    member = Consumer({"bootstrap.servers": kafka, "group.id": topics.prefix, "log_level": 0})
    outsider = member.consumer_group_metadata()
    await introduced(kafka, topics.commands, topics.prefix)
    member.subscribe([topics.commands])
    told: list[str] = []

    def joined() -> bool:
        member.poll(0)
        return bool(member.consumer_group_metadata() != outsider)

    await eventually(joined)
    membership = member.consumer_group_metadata()
    await asyncio.to_thread(member.close)
    async with producer(kafka, topics, report=told.append) as ours:
        record = Outgoing(topics.events, b"key", b"value", (), 0)
        assert not await ours.commit([record], [Position(0, 1, "1")], lambda: membership)
    (why,) = told
    assert why.startswith("UNKNOWN_MEMBER_ID: ")
    (level,) = [line.levelno for line in caplog.records if line.getMessage().startswith("TXNERR ")]
    assert level == logging.DEBUG


async def test_a_producer_whose_id_kafka_has_forgotten_meanwhile_gets_another_one_at_once(
    kafka_cluster: Callable[..., Cluster],
) -> None:
    """Kafka forgets what has been idle for transactional.id.expiration.ms, seven days as shipped."""
    forgetful = {
        "transactional.id.expiration.ms": 1000,
        "transaction.remove.expired.transaction.cleanup.interval.ms": 100,
    }
    kafka = kafka_cluster(properties=forgetful).bootstrap
    topics = create(kafka, partitions=1)
    group = Consumer({"bootstrap.servers": kafka, "group.id": topics.prefix, "log_level": 0})
    told: list[str] = []
    await introduced(kafka, topics.commands, topics.prefix)
    async with producer(kafka, topics, report=told.append) as ours:

        async def commit(number: int) -> bool:
            record = Outgoing(topics.events, b"key", b"%d" % number, (), 0)
            return await ours.commit([record], [Position(0, number, str(number))], group.consumer_group_metadata)

        assert [await commit(number) for number in range(2)] == [True, True]
        await asyncio.sleep(4)  # the idleness itself, not a wait for something
        tries = [await commit(number) for number in range(4)]  # each of the two producers learns of it once
    assert told
    assert all(why.startswith("INVALID_PRODUCER_ID_MAPPING") for why in told)
    assert tries[2:] == [True, True]
    await asyncio.to_thread(group.close)


async def test_what_became_of_a_transaction_that_others_ended_is_known_beside_an_undecided_one(
    kafka: str, topics: Topics
) -> None:
    """Another transaction may keep the offset back, and has been seen to do so until the broker was started again."""
    group = Consumer({"bootstrap.servers": kafka, "group.id": topics.prefix, "log_level": 0})
    await introduced(kafka, topics.commands, topics.prefix)
    async with producer(kafka, topics) as ours:
        in_the_way = await asyncio.to_thread(another, kafka, f"{topics.prefix}-other")
        in_the_way.begin_transaction()
        offset = [TopicPartition(topics.commands, 0, 0)]
        await asyncio.to_thread(in_the_way.send_offsets_to_transaction, offset, group.consumer_group_metadata(), 20)
        # Whoever takes our id ends our transactions: only the committed offset tells what became of the last one.
        for number in range(2):
            await asyncio.to_thread(another, kafka, f"{topics.prefix}-ours-{number}")
        asked = ours.commit([], [Position(0, 0, "ours")], group.consumer_group_metadata)
        assert await asyncio.wait_for(asked, 40) is False
        await asyncio.to_thread(in_the_way.abort_transaction, 20)
    await asyncio.to_thread(group.close)
