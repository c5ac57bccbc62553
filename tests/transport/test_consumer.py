"""The member of a group on its thread, before a real broker. What it delivers is proved by all tests of worker and
projector; here is how it ends."""

import asyncio
import threading
import time
from collections.abc import Mapping, Sequence

from adapter.core.journal import Source
from adapter.transport.kafka.consumer import CommandConsumer
from tests.support.groups import introduced
from tests.support.topics import Topics
from tests.support.wait import wait_until


class Clinging:
    """Gives nothing back."""

    def __init__(self) -> None:
        self.owns = asyncio.Event()

    def assigned(self, epochs: Mapping[int, int]) -> None:
        assert epochs
        self.owns.set()

    async def revoked(self, partitions: Sequence[int]) -> None:
        assert partitions
        await asyncio.Event().wait()

    def lost(self, partitions: Sequence[int]) -> None:
        raise AssertionError(partitions)

    def delivered(self, records: Sequence[tuple[int, Source]]) -> None:
        raise AssertionError(records)

    def failed(self, error: Exception) -> None:
        raise AssertionError(error)


def test_a_close_that_is_given_up_keeps_nobody(kafka: str, topics: Topics) -> None:
    async def give_up() -> float:
        await introduced(kafka, topics.commands, topics.prefix)
        listener = Clinging()
        member = {
            "bootstrap.servers": kafka,
            "group.id": topics.prefix,
            "partition.assignment.strategy": "cooperative-sticky",
        }
        consumer = CommandConsumer(
            client=member, topic=topics.commands, listener=listener, loop=asyncio.get_running_loop()
        )
        consumer.open()
        async with asyncio.timeout(60):
            await listener.owns.wait()
        try:
            async with asyncio.timeout(0.5):
                await consumer.close()
        except TimeoutError:
            return time.monotonic()
        raise AssertionError("it gave back what is clung to")

    given_up_at = asyncio.run(give_up())  # which waits for its executor's threads
    assert time.monotonic() - given_up_at < 10
    wait_until(
        lambda: all(thread.name != "intake" for thread in threading.enumerate()), within=30, what="its thread's end"
    )
