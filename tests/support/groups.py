"""Consumer groups as the adapter makes them."""

import asyncio
from contextlib import closing, suppress

from confluent_kafka import Consumer, TopicPartition

from adapter.core.errors import Unavailable
from adapter.transport.kafka.consumer import introduce
from tests.support.wait import PATIENCE, eventually


async def introduced(bootstrap: str, topic: str, group: str) -> None:
    """Returns when the group stands at the beginning of the topic: leaders of what is new are not known everywhere at
    once."""

    async def stands() -> bool:
        with suppress(Unavailable):
            await asyncio.to_thread(introduce, {"bootstrap.servers": bootstrap}, topic, group)
            return True
        return False

    await eventually(stands, what="a group with offsets")


async def stand(bootstrap: str, group: str, topic: str, partitions: int) -> list[TopicPartition]:
    """What the group has committed, with the metadata."""

    def committed() -> list[TopicPartition]:
        with closing(Consumer({"bootstrap.servers": bootstrap, "group.id": group})) as consumer:
            return consumer.committed([TopicPartition(topic, n) for n in range(partitions)], timeout=PATIENCE)

    return await asyncio.to_thread(committed)


async def commit(bootstrap: str, group: str, places: list[TopicPartition]) -> None:
    """As a member's last commit before it left."""
    await asyncio.to_thread(_commit, bootstrap, group, places)


async def reset_to_earliest(bootstrap: str, group: str, topic: str, partitions: int) -> None:
    """As `kafka-consumer-groups --to-earliest` does it: offsets without metadata."""
    await asyncio.to_thread(_reset, bootstrap, group, [TopicPartition(topic, n, 0) for n in range(partitions)])


async def reset_to_current(bootstrap: str, group: str, topic: str, partitions: int) -> None:
    """The same for `--to-current`: only the metadata goes."""
    await asyncio.to_thread(_reset, bootstrap, group, [TopicPartition(topic, n) for n in range(partitions)])


async def reset_to_offset(bootstrap: str, group: str, topic: str, partition: int, offset: int) -> None:
    """The same for `--to-offset`, which need not be one that the topic has."""
    await asyncio.to_thread(_reset, bootstrap, group, [TopicPartition(topic, partition, offset)])


def _commit(bootstrap: str, group: str, places: list[TopicPartition]) -> None:
    with closing(Consumer({"bootstrap.servers": bootstrap, "group.id": group})) as consumer:
        consumer.commit(offsets=places, asynchronous=False)


def _reset(bootstrap: str, group: str, places: list[TopicPartition]) -> None:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "enable.auto.commit": False})
    stand = [place if place.offset >= 0 else consumer.committed([place], timeout=PATIENCE)[0] for place in places]
    consumer.commit(offsets=[TopicPartition(at.topic, at.partition, at.offset) for at in stand], asynchronous=False)
    consumer.close()
