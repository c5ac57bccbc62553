"""A partition that has lost its end, as by an unclean leader election, while nobody reads; and leaders that change
without any loss."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from adapter.core.errors import Stop
from tests.projector.conftest import Stage
from tests.projector.scribe import Scribe, notified
from tests.support import estate as say
from tests.support.broker import Cluster
from tests.support.estate import Command, unique
from tests.support.groups import reset_to_earliest
from tests.support.rig import Rig, open_rig
from tests.support.wait import PATIENCE, eventually


async def test_new_commands_at_offsets_that_were_lost_are_carried_out_once_somebody_has_looked(
    breakable_kafka: Cluster,
) -> None:
    cluster = breakable_kafka
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
        await refused_each_time(rig.worker, rig.topics.commands)
        await reset_to_earliest(rig.bootstrap, rig.group, rig.topics.commands, rig.topics.partitions)
        async with rig.worker():
            await rig.estate.all_final(new)
        assert [len(rig.estate.finals(command)) for command in (*old, *new)] == [1] * 7
        assert len(rig.twin.heard) == 7


async def test_leaders_that_change_and_lose_nothing_stop_nobody(breakable_kafka: Cluster) -> None:
    cluster = breakable_kafka
    async with open_rig(cluster.bootstrap, partitions=1) as rig:
        before, after = say.add(unique()), say.add(unique())
        epochs: list[int | None] = []
        for command in (before, after):
            async with rig.worker():  # the second one starts with what was committed under the leader before
                send(rig, command)
                await rig.estate.final(command)
                await rig.estate.caught_up(rig.group)
            epochs.append(committed_epoch(rig, rig.group, rig.topics.commands))
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


async def test_new_events_at_offsets_that_were_lost_are_folded_once_somebody_has_looked(
    breakable_kafka: Cluster,
) -> None:
    cluster = breakable_kafka
    async with open_rig(cluster.bootstrap, partitions=1) as rig:
        stage, (old, new) = stage_of(rig), [[notified(unique()) for _ in range(number)] for number in (3, 4)]
        for event in old:
            await stage.write(event)  # each is a batch of its own
        async with stage.projector():
            await stage.folded()
        cluster.kill()
        cluster.lose_end(rig.topics.events, 1)
        cluster.restart()
        stage = stage_of(rig)
        await stage.write(*new)
        await refused_each_time(stage.projector, rig.topics.events)
        await reset_to_earliest(rig.bootstrap, stage.group, rig.topics.events, rig.topics.partitions)
        async with stage.projector():
            assert (await stage.folded()).keys() == {event.key for event in (*old, *new)}


async def test_the_marker_of_a_transaction_under_a_later_leader_stops_no_projector(
    breakable_kafka: Cluster,
) -> None:
    cluster = breakable_kafka
    async with open_rig(cluster.bootstrap, partitions=1) as rig:
        stage, (first, second, third) = stage_of(rig), [notified(unique()) for _ in range(3)]
        await stage.write(first)
        async with stage.projector():
            await stage.folded()
        before = committed_epoch(rig, stage.group, rig.topics.events)
        writer = Producer({"bootstrap.servers": rig.bootstrap, "transactional.id": unique()})
        writer.init_transactions(PATIENCE)
        writer.begin_transaction()
        headers: dict[str, str | bytes | None] = {"ce_id": second.id.encode()}
        writer.produce(rig.topics.events, stage.scribe.value(second), second.key.encode(), 0, headers=headers)
        assert writer.flush(PATIENCE) == 0
        cluster.kill()
        cluster.restart()
        await asyncio.to_thread(writer.commit_transaction, PATIENCE)
        async with stage.projector():
            await stage.folded()
        after = committed_epoch(rig, stage.group, rig.topics.events)
        assert before is not None
        assert after is not None
        assert before < after, "the marker's, not that of the event before it"
        async with stage.projector():
            await stage_of(rig).write(third)
            assert (await stage.folded()).keys() == {first.key, second.key, third.key}


class Role(Protocol):
    """A worker or a projector."""

    @property
    def running(self) -> "asyncio.Future[None]": ...


async def refused_each_time(start: Callable[[], AbstractAsyncContextManager[Role]], topic: str) -> None:
    for _ in range(2):  # as an orchestrator does it, unasked
        with pytest.raises(Stop, match=rf"has lost its end, .*--topic {topic}:0 --to-earliest"):
            async with start() as role:
                await role.running


def stage_of(rig: Rig) -> Stage:
    """With a producer of its own, see `send`."""
    return Stage(rig, Scribe(rig.bootstrap, rig.registry.url, rig.topics))


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


def committed_epoch(rig: Rig, group: str, topic: str) -> int | None:
    consumer = Consumer({"bootstrap.servers": rig.bootstrap, "group.id": group})
    (stands,) = consumer.committed([TopicPartition(topic, 0)], PATIENCE)
    consumer.close()
    epoch: int | None = stands.leader_epoch
    return epoch
