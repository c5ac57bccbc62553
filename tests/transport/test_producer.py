"""The transactional producer before a real broker, where others are in its way."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from adapter.ports import Position
from adapter.transport.kafka.producer import TransactionalProducer
from tests.support.groups import introduced
from tests.support.topics import Topics
from tests.support.wait import eventually


@asynccontextmanager
async def producer(
    kafka: str, topics: Topics, waits: Callable[[str, float], None]
) -> AsyncIterator[TransactionalProducer]:
    found = TransactionalProducer(
        client={"bootstrap.servers": kafka},
        commands=topics.commands,
        group=topics.prefix,
        transactional_id=f"{topics.prefix}-ours",
        timeout=timedelta(seconds=30),
        max_message_bytes=1_000_000,
        report=lambda _: None,
        waits=waits,
    )
    await found.open()
    try:
        yield found
    finally:
        await found.close()


def another(kafka: str, name: str) -> Producer:
    other = Producer({"bootstrap.servers": kafka, "transactional.id": name, "retry.backoff.ms": 5, "log_level": 0})
    other.init_transactions(20)
    return other


@pytest.mark.timeout(120)
async def test_a_commit_that_another_transaction_keeps_undecided_says_that_it_waits_and_ends_with_it(
    kafka: str, topics: Topics
) -> None:
    group = Consumer({"bootstrap.servers": kafka, "group.id": topics.prefix, "log_level": 0})
    told: list[tuple[str, float]] = []
    offset = [TopicPartition(topics.commands, 0, 0)]
    async with producer(kafka, topics, lambda why, seconds: told.append((why, seconds))) as ours:
        await introduced(kafka, topics.commands, topics.prefix)
        in_the_way = await asyncio.to_thread(another, kafka, f"{topics.prefix}-other")
        in_the_way.begin_transaction()
        await asyncio.to_thread(in_the_way.send_offsets_to_transaction, offset, group.consumer_group_metadata(), 20)
        # Whoever takes our id ends our transactions: only the committed offset tells what became of the last one.
        await asyncio.to_thread(another, kafka, f"{topics.prefix}-ours")

        committed = asyncio.ensure_future(ours.commit([], [Position(0, 0, "ours")], group.consumer_group_metadata))
        await eventually(lambda: told, within=60, what="being told that it waits")
        assert not committed.done()
        why, seconds = told[0]
        assert "committed offsets" in why
        assert seconds >= 10

        await asyncio.to_thread(in_the_way.abort_transaction, 20)
        assert await asyncio.wait_for(committed, 30) is False
    await asyncio.to_thread(group.close)
