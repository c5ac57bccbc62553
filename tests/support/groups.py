"""Consumer groups as the adapter makes them."""

import asyncio
from contextlib import suppress

from confluent_kafka import Consumer, TopicPartition

from adapter.core.errors import Unavailable
from adapter.transport.kafka.consumer import introduce
from tests.support.wait import eventually


async def introduced(bootstrap: str, topic: str, group: str) -> None:
    """Returns when the group stands at the beginning of the topic: leaders of what is new are not known everywhere at
    once."""

    async def stands() -> bool:
        with suppress(Unavailable):
            await asyncio.to_thread(introduce, {"bootstrap.servers": bootstrap}, topic, group)
            return True
        return False

    await eventually(stands, within=20, what="a group with offsets")


async def reset_to_earliest(bootstrap: str, group: str, topic: str, partitions: int) -> None:
    """As `kafka-consumer-groups` does it: offsets without metadata."""

    def commit() -> None:
        consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "enable.auto.commit": False})
        consumer.commit(offsets=[TopicPartition(topic, number, 0) for number in range(partitions)], asynchronous=False)
        consumer.close()

    await asyncio.to_thread(commit)
