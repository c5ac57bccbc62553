"""Reading the journal as a new owner of a partition does, before a real broker."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from adapter.core.errors import Stop, Unavailable
from adapter.core.journal import Mark
from adapter.ports import JournalTail
from adapter.transport.kafka.admin import Admin
from adapter.transport.kafka.journal import KafkaJournal
from adapter.transport.kafka.span import Patience
from tests.support import topics as topic_sets
from tests.support.groups import introduced
from tests.support.topics import Topics
from tests.support.wait import PATIENCE

HANGING = 4
"""Partitions of the journal, the first ones, that a transaction holds."""


@pytest.fixture
def topics(kafka: str) -> Iterator[Topics]:
    made = topic_sets.create(kafka, partitions=HANGING + 1)
    name, hanging = f"{made.prefix}-hangs", {"transaction.timeout.ms": 600_000, "log_level": 0}
    producer = Producer({"bootstrap.servers": kafka, "transactional.id": name, **hanging})
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
    async with asyncio.timeout(PATIENCE):
        assert (await _tail(journal, HANGING)).records == []


async def test_partitions_that_a_transaction_holds_leave_others_their_turn_and_tell_why(journal: KafkaJournal) -> None:
    """Though they are asked for again and again, as a worker does it."""
    why: list[str] = []
    reading = [asyncio.ensure_future(_tail(journal, partition, why)) for partition in range(HANGING)]
    held, _ = await asyncio.wait(reading, timeout=2)
    assert not held
    async with asyncio.timeout(PATIENCE):
        assert (await _tail(journal, HANGING)).records == []
    assert not any(task.done() for task in reading)
    assert any("a producer has left a transaction open" in each for each in why)
    for task in reading:
        task.cancel()


async def test_a_journal_made_anew_is_read_whole_by_who_knew_the_old_one(
    kafka: str, topics: Topics, journal: KafkaJournal
) -> None:
    before = Admin({"bootstrap.servers": kafka}).identities(topics.all)
    _write(kafka, topics, 3)
    _commit(kafka, topics, Mark(2, 2, before[topics.journal], before[topics.commands], "t"))
    assert [at for at, _ in (await _tail(journal, HANGING)).records] == [2]
    topic_sets.remake(kafka, topics, topics.journal)
    _write(kafka, topics, 3)
    assert [at for at, _ in (await _tail(journal, HANGING)).records] == [0, 1, 2]


async def test_a_mark_that_lies_beyond_the_end_of_the_journal_says_nothing(
    kafka: str, topics: Topics, journal: KafkaJournal
) -> None:
    now = Admin({"bootstrap.servers": kafka}).identities(topics.all)
    _write(kafka, topics, 2)
    _commit(kafka, topics, Mark(3, 1, now[topics.journal], now[topics.commands], "t"))
    assert [at for at, _ in (await _tail(journal, HANGING)).records] == [0, 1]


@pytest.mark.parametrize(("commands", "stops"), [("", False), ("elsewhere/id", False), ("{cluster}/another", True)])
async def test_an_offset_of_a_commands_topic_that_was_made_anew_stops_whoever_takes_over(
    kafka: str, topics: Topics, journal: KafkaJournal, commands: str, *, stops: bool
) -> None:
    admin = Admin({"bootstrap.servers": kafka})
    known = admin.identities(topics.all)[topics.journal]
    _commit(kafka, topics, Mark(0, 0, known, commands.format(cluster=admin.cluster_id()), "t"), leader_epoch=7)
    if not stops:
        tail = await _tail(journal, HANGING)
        assert (tail.position, tail.leader_epoch) == (0, None), "that of another topic means nothing"
        return
    tool = r"kafka-consumer-groups\.sh --bootstrap-server … --reset-offsets"
    with pytest.raises(Stop, match=f"{tool} --group {topics.prefix} --topic {topics.commands} --to-earliest --execute"):
        await _tail(journal, HANGING)


async def test_the_leader_epoch_comes_with_the_offset_if_it_was_committed_with_it(
    kafka: str, topics: Topics, journal: KafkaJournal
) -> None:
    now = Admin({"bootstrap.servers": kafka}).identities(topics.all)
    mark = Mark(0, 0, now[topics.journal], now[topics.commands], "t")
    for epoch in (7, None):  # earlier releases commit none
        _commit(kafka, topics, mark, leader_epoch=epoch)
        assert (await _tail(journal, HANGING)).leader_epoch == epoch


def _write(kafka: str, topics: Topics, records: int) -> None:
    producer = Producer({"bootstrap.servers": kafka})
    for number in range(records):
        producer.produce(topics.journal, b"%d" % number, partition=HANGING)
    assert producer.flush(PATIENCE) == 0


def _commit(kafka: str, topics: Topics, mark: Mark, *, leader_epoch: int | None = None) -> None:
    group = Consumer({"bootstrap.servers": kafka, "group.id": topics.prefix, "enable.auto.commit": False})
    epoch = -1 if leader_epoch is None else leader_epoch
    group.commit(offsets=[TopicPartition(topics.commands, HANGING, 0, mark.text(), epoch)], asynchronous=False)
    group.close()


async def _tail(journal: KafkaJournal, partition: int, why: list[str] | None = None) -> JournalTail:
    """Asked again as the worker does it: leaders of topics that are new are not known everywhere at once. `why` hears
    why there was no answer.
    """
    while True:
        try:
            return await journal.tail(partition)
        except Unavailable as error:
            if why is not None:
                why.append(str(error))
