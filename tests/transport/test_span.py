"""Where a partition stands for a group, before a real broker, while a transaction keeps that back."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from adapter.core.errors import Unavailable
from adapter.transport.kafka.consumer import introduce
from adapter.transport.kafka.span import Patience, committed, opened
from tests.support.groups import introduced
from tests.support.topics import Topics
from tests.support.wait import PATIENCE, eventually

SECONDS = 2.0
"""Patience of these tests: a question of `committed` alone takes five."""


@asynccontextmanager
async def keeping_back(kafka: str, topics: Topics) -> AsyncIterator[Producer]:
    """Offset 7 of the first partition is committed, and 9 within a transaction that is undecided."""
    await introduced(kafka, topics.commands, topics.prefix)
    group = Consumer({"bootstrap.servers": kafka, "group.id": topics.prefix, "log_level": 0})
    group.commit(offsets=[TopicPartition(topics.commands, 0, 7, "seven")], asynchronous=False)
    undecided = Producer(
        {"bootstrap.servers": kafka, "transactional.id": topics.prefix, "retry.backoff.ms": 5, "log_level": 0}
    )
    await asyncio.to_thread(undecided.init_transactions, 20)
    undecided.begin_transaction()
    offsets = [TopicPartition(topics.commands, 0, 9, "nine")]
    await asyncio.to_thread(undecided.send_offsets_to_transaction, offsets, group.consumer_group_metadata(), 20)
    yield undecided
    await asyncio.to_thread(group.close)


async def ask(
    kafka: str, topics: Topics, patience: float, told: list[float], going: Callable[[], bool] = lambda: True
) -> tuple[int, str]:
    client = {"bootstrap.servers": kafka, "group.id": topics.prefix, "log_level": 0}
    reader, newest = (
        Consumer({**client, "isolation.level": f"read_{which}"}) for which in ("committed", "uncommitted")
    )
    try:
        found = await asyncio.to_thread(
            committed,
            reader,
            newest,
            TopicPartition(topics.commands, 0),
            Patience(timedelta(seconds=patience), lambda _, seconds: told.append(seconds)),
            going,
        )
        return found.offset, found.metadata or ""
    finally:
        reader.close()
        newest.close()


async def test_an_undecided_transaction_is_waited_for(kafka: str, topics: Topics) -> None:
    told: list[float] = []
    async with keeping_back(kafka, topics) as undecided:
        asked = asyncio.ensure_future(ask(kafka, topics, 60, told))
        await eventually(lambda: told, what="being told that the offset is kept back")
        assert not asked.done()
        await asyncio.to_thread(undecided.commit_transaction, 20)
        assert await asyncio.wait_for(asked, PATIENCE) == (9, "nine")


async def test_what_is_kept_back_for_longer_than_a_transaction_lives_is_the_offset_before(
    kafka: str, topics: Topics
) -> None:
    told: list[float] = []
    async with keeping_back(kafka, topics) as undecided:
        assert await asyncio.wait_for(ask(kafka, topics, SECONDS, told), 50) == (7, "seven")
        assert told[-1] >= SECONDS
        assert told == sorted(told)
        await asyncio.to_thread(undecided.abort_transaction, 20)


async def test_who_stops_does_not_wait_for_it(kafka: str, topics: Topics) -> None:
    async with keeping_back(kafka, topics) as undecided:
        with pytest.raises(Unavailable):
            await asyncio.wait_for(ask(kafka, topics, 600, [], going=lambda: False), PATIENCE)
        await asyncio.to_thread(undecided.abort_transaction, 20)


async def test_a_member_starts_while_the_offset_of_a_partition_is_kept_back(kafka: str, topics: Topics) -> None:
    async with keeping_back(kafka, topics) as undecided:
        await asyncio.to_thread(introduce, {"bootstrap.servers": kafka}, topics.commands, topics.prefix)
        await asyncio.to_thread(undecided.commit_transaction, 20)
    assert await ask(kafka, topics, 60, []) == (9, "nine")


def test_a_client_whose_certificates_were_replaced_by_others_of_no_use_is_unavailable(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    good: dict[str, str | bool | int] = {"bootstrap.servers": "127.0.0.1:1", "group.id": "any", "log_level": 0}
    bad = {**good, "security.protocol": "ssl", "ssl.ca.location": str(ca)}
    with (
        pytest.raises(Unavailable, match=r"^journal partition 3: .*ssl\.ca\.location"),
        opened("journal partition 3", good, bad),
    ):
        pass
