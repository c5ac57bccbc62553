"""A quota of the cluster that holds our clients back: log and metric say so, and the work gets done all the same."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest

from adapter.ports import Outgoing
from adapter.transport.kafka.publisher import KafkaPublisher
from tests.projector.conftest import Stage
from tests.projector.scribe import Scribe, notified
from tests.support import estate as say
from tests.support.broker import Cluster
from tests.support.estate import unique
from tests.support.rig import open_rig
from tests.support.wait import PATIENCE

HELD_BACK = "held-back"
"""The `client.id` with a quota."""
SLOW_TO_WRITE = "slow-to-write"
"""One that may read as fast as it can."""


@pytest.fixture(scope="module")
def grudging_kafka(kafka_of_file: Callable[..., Cluster]) -> str:
    """Takes and gives 4 KiB a second, once more than ten seconds' worth have come."""
    cluster = kafka_of_file()
    cluster.hold_back(HELD_BACK, producer_byte_rate=4096, consumer_byte_rate=4096)
    cluster.hold_back(SLOW_TO_WRITE, producer_byte_rate=4096)
    return cluster.bootstrap


async def test_a_worker_tells_that_a_quota_holds_its_consumer_and_its_producer_back(grudging_kafka: str) -> None:
    async with (
        open_rig(grudging_kafka, partitions=1) as rig,
        rig.worker(KAFKA__PROPERTIES__CLIENT_ID=HELD_BACK) as worker,
    ):

        def told() -> set[str]:
            lines = [line for line in worker.lines.getvalue().splitlines() if "Kafka throttles us" in line]
            return {client for client in ("consumer", "producer") for line in lines if f'"client":"{client}"' in line}

        while told() != {"consumer", "producer"}:  # one that is idle hears of it with its next transaction
            commands = [
                say.add(unique(), faultDetails={"type": "IMPAIRED_SERVICE", "description": "x" * 400}) for _ in "x" * 80
            ]
            rig.estate.put_all([(rig.estate.encode(command), command.key.encode()) for command in commands])
            await rig.estate.all_final(commands, within=3 * PATIENCE)
        assert worker.metric("kafka_throttled_seconds_total") > 0


async def test_a_projector_folds_what_a_quota_lets_through_in_time_though_not_at_once(grudging_kafka: str) -> None:
    async with open_rig(grudging_kafka) as rig:
        stage = Stage(rig, Scribe(grudging_kafka, rig.registry.url, rig.topics))
        details = {"description": "x" * 800}
        await stage.write(*(notified(f"SP-{number}", faultDetails=details) for number in range(100)))
        more = {"KAFKA__PROPERTIES__CLIENT_ID": SLOW_TO_WRITE, "KAFKA__TRANSACTION_TIMEOUT": "2s"}
        async with stage.projector(**more) as running:
            tickets = await stage.folded(within=3 * PATIENCE)
            assert running.logged("transaction not committed")
    assert [ticket["events"] for ticket in tickets.values()] == [1] * 100


async def test_a_publisher_tells_that_a_quota_holds_it_back(grudging_kafka: str) -> None:
    async with open_rig(grudging_kafka, partitions=1) as rig:
        told: list[float] = []
        publisher = KafkaPublisher(
            client={"bootstrap.servers": grudging_kafka, "client.id": HELD_BACK},
            timeout=timedelta(seconds=PATIENCE),
            max_message_bytes=1_000_000,
            report=lambda _: None,
            throttled=told.append,
        )
        record = Outgoing(rig.topics.events, b"key", b"x" * 4096)
        while not told:
            await asyncio.wait((publisher.publish(record, limit=PATIENCE, late=lambda: None),))
        assert told[0] > 0
        await publisher.close()
