"""Kafka's certificate files, replaced by others of no use while producers are at work: those that are made then."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer

from adapter.core.errors import Unavailable
from adapter.ports import Outgoing, Position
from adapter.transport.kafka.producer import TransactionalProducer
from adapter.transport.kafka.publisher import KafkaPublisher
from tests.support import topics as topic_sets
from tests.support.broker import Cluster
from tests.support.certificates import Trials, keystore
from tests.support.groups import introduced
from tests.support.ports import free_port
from tests.support.rights import AUTHORIZER, writing_nothing
from tests.support.wait import PATIENCE, eventually


@dataclass(frozen=True, slots=True)
class Guarded:
    bootstrap: str
    """Without TLS."""
    client: dict[str, str]
    """Properties of a client with TLS."""
    ca: Path
    """The file that these name."""


@pytest.fixture(scope="module")
def doors(kafka_of_file: Callable[..., Cluster], trials: Trials) -> tuple[str, int]:
    """Bootstrap address without TLS, and a port with it."""
    pair, door = trials.authority.server("kafka"), free_port()
    cluster = kafka_of_file(
        doors={"TLS": (door, door)},
        properties={
            **AUTHORIZER,
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,TLS:SSL",
            **keystore("tls", pair),
        },
    )
    return cluster.bootstrap, door


@pytest.fixture
def guarded(doors: tuple[str, int], trials: Trials, tmp_path: Path) -> Guarded:
    (bootstrap, door), ca = doors, tmp_path / "ca.pem"
    ca.write_bytes(trials.good.ca.read_bytes())
    client = {"bootstrap.servers": f"127.0.0.1:{door}", "security.protocol": "ssl", "ssl.ca.location": str(ca)}
    return Guarded(bootstrap, client, ca)


async def test_a_transaction_whose_producer_is_fenced_then_waits_for_better_files(guarded: Guarded) -> None:
    topics, told = topic_sets.create(guarded.bootstrap, partitions=1), list[str]()
    group = Consumer({"bootstrap.servers": guarded.bootstrap, "group.id": topics.prefix, "log_level": 0})
    await introduced(guarded.bootstrap, topics.commands, topics.prefix)
    ours = TransactionalProducer(
        client=guarded.client,
        topic=topics.commands,
        group=topics.prefix,
        transactional_id=topics.prefix,
        timeout=timedelta(seconds=60),
        max_message_bytes=1_000_000,
        report=print,
        waits=lambda why, _seconds: told.append(why),
    )
    await ours.open()
    for number in range(2):
        other = Producer({"bootstrap.servers": guarded.bootstrap, "transactional.id": f"{topics.prefix}-{number}"})
        await asyncio.to_thread(other.init_transactions, PATIENCE)
    good = guarded.ca.read_bytes()
    guarded.ca.write_text("no certificate")
    fenced = asyncio.ensure_future(ours.commit([], [Position(0, 0, "fenced")], group.consumer_group_metadata))
    await eventually(lambda: fenced.done() or told, what="being told that it waits")
    assert not fenced.done()
    assert "ssl.ca.location failed" in told[-1]
    guarded.ca.write_bytes(good)
    async with asyncio.timeout(PATIENCE):
        assert await fenced is False
        while not await ours.commit([], [Position(0, 0, "again")], group.consumer_group_metadata):
            pass
    await ours.close()
    await asyncio.to_thread(group.close)


async def test_a_record_whose_producer_has_ended_then_fails_until_there_are_better_files(guarded: Guarded) -> None:
    topics, told = topic_sets.create(guarded.bootstrap, partitions=1), list[str]()

    async def publish() -> None:
        await publisher.publish(Outgoing(topics.events, b"key", b"value", (), None), limit=5, late=lambda: None)

    async def published() -> bool:
        try:
            await publish()
        except Unavailable:
            return False
        return True

    with writing_nothing(guarded.bootstrap):
        publisher = KafkaPublisher(
            client=guarded.client, timeout=timedelta(seconds=20), max_message_bytes=1_000_000, report=told.append
        )
        while not any("Cluster authorization failed" in why for why in told):
            assert not await published()
    good = guarded.ca.read_bytes()
    guarded.ca.write_text("no certificate")
    for _ in range(2):
        with pytest.raises(Unavailable, match=r"ssl\.ca\.location failed"):
            await publish()
    guarded.ca.write_bytes(good)
    async with asyncio.timeout(PATIENCE):
        while not await published():
            pass
    await publisher.close()
