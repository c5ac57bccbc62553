"""A partition that has lost its end, as by an unclean leader election, while nobody reads; and leaders that change
without any loss."""

from collections.abc import Callable

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from adapter.core.errors import Stop
from tests.support import estate as say
from tests.support.broker import Cluster
from tests.support.estate import Command, unique
from tests.support.groups import reset_to_earliest
from tests.support.rig import Rig, open_rig
from tests.support.wait import PATIENCE, eventually


async def test_new_commands_at_offsets_that_were_lost_are_carried_out_once_somebody_has_looked(
    kafka_cluster: Callable[..., Cluster],
) -> None:
    cluster = kafka_cluster()
    async with open_rig(cluster.bootstrap, partitions=1) as rig:
        old, new = [[say.add(unique()) for _ in range(number)] for number in (3, 4)]
        send(rig, *old)
        async with rig.worker():
            await rig.estate.all_final(old)
            await rig.estate.caught_up(rig.group)
        cluster.kill()
        cluster.lose_end(rig.topics.commands, 1)
        cluster.restart()
        assert send(rig, *new) == [1, 2, 3, 4], "the committed offset is 3"
        for _ in range(2):  # as an orchestrator does it, unasked
            async with rig.worker() as worker:
                await eventually(worker.running.done, what="the end of the worker")
                with pytest.raises(Stop, match=rf"has lost its end, .*--topic {rig.topics.commands}:0 --to-earliest"):
                    worker.running.result()
        await reset_to_earliest(rig.bootstrap, rig.group, rig.topics.commands, rig.topics.partitions)
        async with rig.worker():
            await rig.estate.all_final(new)
        assert [len(rig.estate.finals(command)) for command in (*old, *new)] == [1] * 7
        assert len(rig.twin.heard) == 7


async def test_leaders_that_change_and_lose_nothing_stop_nobody(kafka_cluster: Callable[..., Cluster]) -> None:
    cluster = kafka_cluster()
    async with open_rig(cluster.bootstrap, partitions=1) as rig:
        before, after = say.add(unique()), say.add(unique())
        epochs: list[int | None] = []
        for command in (before, after):
            async with rig.worker():  # the second one starts with what was committed under the leader before
                send(rig, command)
                await rig.estate.final(command)
                await rig.estate.caught_up(rig.group)
            epochs.append(committed_epoch(rig))
            cluster.kill()
            cluster.restart()
        assert epochs[0] is not None
        assert epochs[1] is not None
        assert epochs[0] < epochs[1]
        async with rig.worker() as worker:  # and nothing new
            await eventually(lambda: "partition started" in worker.lines.getvalue(), what="the start")
            await worker.stop()
            assert worker.running.cancelled()
        assert len(rig.twin.heard) == 2


def send(rig: Rig, *commands: Command) -> list[int | None]:
    """Their offsets. Each time by a producer of its own: one that goes on would miss what it has written."""
    producer, offsets = Producer({"bootstrap.servers": rig.bootstrap}), list[int | None]()
    for command in commands:
        producer.produce(
            rig.topics.commands,
            rig.estate.encode(command),
            command.key.encode(),
            on_delivery=lambda _, message: offsets.append(message.offset()),
        )
        assert producer.flush(PATIENCE) == 0  # each is a batch of its own
    return offsets


def committed_epoch(rig: Rig) -> int | None:
    consumer = Consumer({"bootstrap.servers": rig.bootstrap, "group.id": rig.group})
    (stands,) = consumer.committed([TopicPartition(rig.topics.commands, 0)], PATIENCE)
    consumer.close()
    epoch: int | None = stands.leader_epoch
    return epoch
