"""Reading the tickets topic as a new owner of a partition does, before a real broker."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from adapter.core.errors import Stop, Unavailable
from adapter.ports import Standing, TicketRecord
from adapter.transport.kafka.span import Patience
from adapter.transport.kafka.tickets import KafkaTickets
from tests.support import topics as topic_sets
from tests.support.groups import introduced
from tests.support.ports import free_port
from tests.support.topics import Topics
from tests.support.wait import eventually


@pytest.fixture
async def log(kafka: str, topics: Topics) -> AsyncIterator[KafkaTickets]:
    """Of a group that has been introduced."""
    await introduced(kafka, topics.events, topics.prefix)
    reader = tickets_of(kafka, topics)
    yield reader
    await reader.close()


def tickets_of(kafka: str, topics: Topics, **other: Any) -> KafkaTickets:
    whole: dict[str, Any] = {
        "client": {"bootstrap.servers": kafka},
        "events": topics.events,
        "tickets": topics.tickets,
        "group": topics.prefix,
        "patience": Patience(timedelta(minutes=1), lambda _, _seconds: None),
    }
    return KafkaTickets(**whole | other)


def transactional(kafka: str, topics: Topics, name: str = "a", *, timeout: int = 60_000) -> Producer:
    producer = Producer(
        {
            "bootstrap.servers": kafka,
            "transactional.id": f"{topics.prefix}-{name}",
            "transaction.timeout.ms": timeout,
            "message.timeout.ms": timeout,
            "retry.backoff.ms": 5,
            "log_level": 0,
        }
    )
    producer.init_transactions(20)
    return producer


def write(producer: Producer, topics: Topics, *names: str) -> None:
    producer.begin_transaction()
    for name in names:
        producer.produce(topics.tickets, name.upper().encode(), name.encode(), 0)


async def stand(log: KafkaTickets) -> Standing:
    """Asked again as the projector does it: leaders of topics that are new are not known everywhere at once."""

    async def standing() -> Standing | None:
        with suppress(Unavailable):
            return await log.standing(0, lambda: True)
        return None

    found = await eventually(standing, what="where the partition stands")
    assert found is not None
    return found


async def read(log: KafkaTickets, start: int, end: int) -> list[TicketRecord]:
    found: list[TicketRecord] = []

    def take(kept: Sequence[TicketRecord]) -> None:
        found.extend(kept)

    await asyncio.wait_for(log.read(0, start, end, take, lambda: True), 30)
    return found


async def test_a_group_that_has_been_introduced_stands_at_the_first_event(log: KafkaTickets) -> None:
    assert await stand(log) == Standing(0, "", 0, 0)
    assert await read(log, 0, 0) == []


async def test_a_coordinator_that_knows_of_no_offset_is_asked_again_later(kafka: str, topics: Topics) -> None:
    log = tickets_of(kafka, topics, group=f"{topics.prefix}-new")
    with pytest.raises(Unavailable, match=r"no committed offset|answer|leader"):
        await log.standing(0, lambda: True)
    await log.close()


async def test_what_was_committed_says_which_transaction_it_was(kafka: str, topics: Topics, log: KafkaTickets) -> None:
    commit(kafka, topics, "life-7")
    assert (await stand(log)).transaction == "life-7"


@pytest.mark.parametrize("made_anew", ["events", "tickets"])
async def test_an_offset_of_topics_that_were_made_anew_stops_whoever_takes_over(
    kafka: str, topics: Topics, log: KafkaTickets, made_anew: str
) -> None:
    text = f"{await log.identity()}/life-7"
    commit(kafka, topics, f"elsewhere{text}")
    assert (await stand(log)).transaction == f"elsewhere{text}"
    commit(kafka, topics, text)
    assert (await stand(log)).transaction == text
    topic_sets.remake(kafka, topics, getattr(topics, made_anew))
    commit(kafka, topics, text)
    with pytest.raises(Stop, match=rf"--group {topics.prefix} --topic {topics.events} --to-earliest --execute"):
        await stand(log)


async def test_the_leader_epoch_comes_with_the_offset_if_it_was_committed_with_it(
    kafka: str, topics: Topics, log: KafkaTickets
) -> None:
    text = f"{await log.identity()}/life-7"
    for epoch in (7, None):  # earlier releases commit none
        commit(kafka, topics, text, leader_epoch=epoch)
        assert (await stand(log)).leader_epoch == epoch
    for foreign in (f"elsewhere{text}", ""):
        commit(kafka, topics, foreign, leader_epoch=7)
        assert (await stand(log)).leader_epoch is None, "that of other topics means nothing"


def commit(kafka: str, topics: Topics, text: str, *, leader_epoch: int | None = None) -> None:
    consumer = Consumer({"bootstrap.servers": kafka, "group.id": topics.prefix})
    epoch = -1 if leader_epoch is None else leader_epoch
    consumer.commit(offsets=[TopicPartition(topics.events, 0, 0, text, epoch)], asynchronous=False)
    consumer.close()


async def test_the_committed_tickets_are_read_with_when_they_are_due_and_who_is_forgotten(
    kafka: str, topics: Topics, log: KafkaTickets
) -> None:
    producer = transactional(kafka, topics)
    producer.begin_transaction()
    producer.produce(topics.tickets, b"1", b"a", 0, headers={"due": b"1700000000000"})
    producer.produce(topics.tickets, b"2", b"b", 0)
    producer.produce(topics.tickets, None, b"b", 0)
    producer.commit_transaction(20)
    standing = await stand(log)
    assert (standing.first, standing.last) == (0, 4)  # the marker is the last of it
    assert await read(log, 0, 4) == [
        TicketRecord(b"a", b"1", 1_700_000_000_000),
        TicketRecord(b"b", b"2"),
        TicketRecord(b"b", None),
    ]
    assert await read(log, 1, 4) == [TicketRecord(b"b", b"2"), TicketRecord(b"b", None)]


@pytest.mark.parametrize("due", [b"soon", b"", b"\xff", "\u0661".encode(), b"9" * 40, b"-1"])
async def test_a_time_that_is_none_is_no_reason_to_end(
    kafka: str, topics: Topics, log: KafkaTickets, due: bytes
) -> None:
    producer = transactional(kafka, topics)
    producer.begin_transaction()
    producer.produce(topics.tickets, b"1", b"a", 0, headers={"due": due})
    producer.commit_transaction(20)
    await stand(log)
    assert await read(log, 0, 2) == [TicketRecord(b"a", b"1")]


async def test_what_was_aborted_is_not_there(kafka: str, topics: Topics, log: KafkaTickets) -> None:
    producer = transactional(kafka, topics)
    write(producer, topics, "a")
    producer.commit_transaction(20)
    write(producer, topics, "b")
    producer.abort_transaction(20)
    assert await read(log, 0, (await stand(log)).last) == [TicketRecord(b"a", b"A")]


async def test_an_open_transaction_of_a_dead_owner_is_waited_for(kafka: str, topics: Topics, log: KafkaTickets) -> None:
    """What lies behind it is committed and would be missed: the end a read_committed reader sees lies before it."""
    dead, living = transactional(kafka, topics, "dead"), transactional(kafka, topics, "living")
    write(dead, topics, "b")
    dead.flush(20)
    write(living, topics, "a")
    living.commit_transaction(20)
    standing = await stand(log)
    assert standing.last == 3
    reading = asyncio.ensure_future(read(log, 0, standing.last))
    done, _ = await asyncio.wait((reading,), timeout=1)
    assert not done
    dead.abort_transaction(20)
    assert await reading == [TicketRecord(b"a", b"A")]


async def test_reading_ends_when_it_is_not_wanted_any_more(kafka: str, topics: Topics, log: KafkaTickets) -> None:
    open_one = transactional(kafka, topics)
    write(open_one, topics, "a")
    open_one.flush(20)
    with pytest.raises(Unavailable):
        await asyncio.wait_for(log.read(0, 0, 1, lambda _: None, lambda: False), 30)
    open_one.abort_transaction(20)


async def test_the_identity_is_that_of_both_topics_and_the_group(kafka: str, topics: Topics, log: KafkaTickets) -> None:
    other = tickets_of(kafka, topics, tickets=topics.journal)
    third = tickets_of(kafka, topics, group="another")
    identities = {await each.identity() for each in (log, other, third)}
    assert len(identities) == 3
    assert await log.identity() in identities
    await other.close()
    await third.close()


async def test_a_cluster_that_does_not_answer_is_unavailable() -> None:
    log = KafkaTickets(
        client={"bootstrap.servers": f"127.0.0.1:{free_port()}", "log_level": "0"},
        events="e",
        tickets="t",
        group="g",
        patience=Patience(timedelta(), lambda _, _seconds: None),
    )
    with pytest.raises(Unavailable):
        await log.identity()
    await log.close()
