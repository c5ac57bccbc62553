"""A transaction that hangs in what a new owner of a partition has to read first: nothing starts, and that is told."""

import json
from collections.abc import AsyncIterator
from io import StringIO

import pytest
from confluent_kafka import Producer

from adapter.core.partition import partition_of
from tests.projector.conftest import Stage
from tests.projector.scribe import Scribe
from tests.support import estate as say
from tests.support.estate import Command, unique
from tests.support.rig import open_rig
from tests.support.wait import eventually


@pytest.fixture
async def stage(kafka: str) -> AsyncIterator[Stage]:
    async with open_rig(kafka, partitions=2) as rig:
        yield Stage(rig, Scribe(kafka, rig.registry.url, rig.topics))


@pytest.fixture
def hanging(stage: Stage) -> Producer:
    """A transaction in the journal and in the tickets of partition 0, open for ten minutes unless it is ended."""
    topics = stage.rig.topics
    name = {"transactional.id": f"{topics.prefix}-hangs", "transaction.timeout.ms": 600_000}
    producer = Producer({"bootstrap.servers": stage.rig.bootstrap, **name})
    producer.init_transactions()
    producer.begin_transaction()
    for topic in (topics.journal, topics.tickets):
        producer.produce(topic, b"x", key=b"x", partition=0)
    producer.flush()
    return producer


def add(partition: int) -> Command:
    return say.add(next(name for name in iter(unique, "") if partition_of(name.encode(), 2) == partition))


def told(lines: StringIO) -> list[int]:
    """The partitions of which it is said that they have not started."""
    found = map(json.loads, lines.getvalue().splitlines())
    return [line["partition"] for line in found if line["event"] == "partition not started" and line["seconds"] >= 10]


async def test_a_partition_that_does_not_start_is_counted_and_told_of_until_it_does(
    stage: Stage, hanging: Producer
) -> None:
    rig = stage.rig
    async with rig.worker() as worker, stage.projector() as projector:
        held, free = add(0), add(1)
        rig.estate.send(held)
        rig.estate.send(free)
        await rig.estate.final(free)
        await eventually(lambda: told(worker.lines) and told(projector.lines), what="what has not started is told of")
        assert set(told(worker.lines)) == set(told(projector.lines)) == {0}
        assert worker.metric("partitions_starting", flow="worker") == 1
        assert projector.metric("partitions_starting", flow="projector") == 1
        shown = worker.metrics.exposition("text/plain")[0].decode()
        assert 'frontier_lag{partition="1"} 0.0' in shown
        assert 'frontier_lag{partition="0"}' not in shown, "how many commands wait is not known"
        hanging.abort_transaction()
        await rig.estate.final(held)
        await eventually(lambda: projector.tickets() == 2, what="both tickets")
        assert worker.metric("partitions_starting", flow="worker") == 0
        assert projector.metric("partitions_starting", flow="projector") == 0
