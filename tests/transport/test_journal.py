"""Reading the journal as a new owner of a partition does, before a real broker."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import timedelta

import pytest
from confluent_kafka import Producer

from adapter.core.errors import Unavailable
from adapter.ports import JournalTail
from adapter.transport.kafka.journal import KafkaJournal
from adapter.transport.kafka.span import Patience
from tests.support import topics as topic_sets
from tests.support.groups import introduced
from tests.support.topics import Topics

HANGING = 4
"""Partitions of the journal, the first ones, that a transaction holds."""


@pytest.fixture
def topics(kafka: str) -> Iterator[Topics]:
    made = topic_sets.create(kafka, partitions=HANGING + 1)
    producer = Producer({"bootstrap.servers": kafka, "transactional.id": f"{made.prefix}-hangs", "log_level": 0})
    producer.init_transactions(20)
    producer.begin_transaction()
    for partition in range(HANGING):
        producer.produce(made.journal, b"x", partition=partition)
    producer.flush()
    yield made
    producer.abort_transaction()
    topic_sets.delete(kafka, made)


@pytest.fixture
async def journal(kafka: str, topics: Topics) -> AsyncIterator[KafkaJournal]:
    await introduced(kafka, topics.commands, topics.prefix)
    reader = KafkaJournal(
        client={"bootstrap.servers": kafka},
        commands=topics.commands,
        journal=topics.journal,
        group=topics.prefix,
        memory=True,
        patience=Patience(timedelta(minutes=1), lambda _, _seconds: None),
    )
    yield reader
    await reader.close()


async def test_partitions_that_were_given_up_while_a_transaction_held_them_hold_no_other(journal: KafkaJournal) -> None:
    assert (await _tail(journal, HANGING)).records == []
    reading = [asyncio.ensure_future(journal.tail(partition)) for partition in range(HANGING)]
    held, _ = await asyncio.wait(reading, timeout=2)
    assert not held
    for task in reading:
        task.cancel()
    async with asyncio.timeout(20):
        assert (await _tail(journal, HANGING)).records == []


async def _tail(journal: KafkaJournal, partition: int) -> JournalTail:
    """Asked again as the worker does it: leaders of topics that are new are not known everywhere at once."""
    while True:
        with suppress(Unavailable):
            return await journal.tail(partition)
