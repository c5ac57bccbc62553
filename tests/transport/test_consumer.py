"""The member of a group on its thread, before a real broker. What it delivers is proved by all tests of worker and
projector; here is how it ends."""

import asyncio
import logging
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence

import pytest
from confluent_kafka import Consumer, TopicPartition

from adapter.core.errors import Stop, Unavailable
from adapter.core.journal import Source
from adapter.ports import IntakeListener
from adapter.transport.kafka.consumer import KafkaIntake, introduce
from adapter.transport.kafka.known import FORGOTTEN
from tests.support import topics as topic_sets
from tests.support.broker import Cluster
from tests.support.groups import introduced
from tests.support.kafka_door import Api, kafka_door
from tests.support.topics import Topics
from tests.support.wait import PATIENCE, eventually, wait_until


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


class Yielding(Clinging):
    """Gives all back."""

    async def revoked(self, partitions: Sequence[int]) -> None:
        assert partitions


class Losing(Yielding):
    """May lose them, too."""

    def lost(self, partitions: Sequence[int]) -> None:
        assert partitions


class Gag(logging.Handler):
    """Keeps the library from coming to its end: it tells what it does on the thread that waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.held, self.released = threading.Event(), threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if "Terminating group" in record.getMessage() and threading.current_thread().name == "intake":
            self.held.set()
            assert self.released.wait(PATIENCE), record.getMessage()


async def test_a_library_that_does_not_come_back_keeps_nobody_once_all_is_given_back(
    kafka: str, topics: Topics
) -> None:
    await introduced(kafka, topics.commands, topics.prefix)
    listener = Yielding()
    library, gag = logging.getLogger("librdkafka"), Gag()
    library.addHandler(gag)
    level = library.level
    library.setLevel(logging.DEBUG)
    try:
        consumer = KafkaIntake(
            client=_member(kafka, topics) | {"debug": "cgrp"},
            topic=topics.commands,
            listener=listener,
        )
        consumer.open()
        async with asyncio.timeout(PATIENCE):
            await listener.owns.wait()
            await consumer.close()
        assert gag.held.is_set()
    finally:
        gag.released.set()
        library.removeHandler(gag)
        library.setLevel(level)


class Failing(Clinging):
    """Hears why it ends."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

    def failed(self, error: Exception) -> None:
        self.heard.set_result(error)


async def test_a_session_that_kafka_refuses_ends_it_by_its_setting(kafka: str, topics: Topics) -> None:
    await introduced(kafka, topics.commands, topics.prefix)
    listener = Failing()
    client = _member(kafka, topics) | {"session.timeout.ms": "2000000", "max.poll.interval.ms": "2000000"}
    consumer = KafkaIntake(client=client, topic=topics.commands, listener=listener)
    consumer.open()
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(Stop, match="ADAPTER_KAFKA__SESSION_TIMEOUT"):
            raise await listener.heard
        await consumer.close()


class Refused(Failing):
    """And gives all back."""

    async def revoked(self, partitions: Sequence[int]) -> None:
        assert partitions


async def test_a_partition_that_the_library_refuses_to_take_ends_the_flow(kafka: str, topics: Topics) -> None:
    await introduced(kafka, topics.commands, topics.prefix)
    listener = Refused()
    consumer = KafkaIntake(client=_member(kafka, topics), topic=topics.commands, listener=listener)
    consumer._consumer.incremental_assign([TopicPartition(topics.commands, 0)])
    consumer.open()
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(Stop, match="already part of the current assignment"):
            raise await listener.heard
        await consumer.close()


async def test_a_property_that_a_consumer_can_not_have_is_told(kafka: str, topics: Topics) -> None:
    client = _member(kafka, topics) | {"heartbeat.interval.ms": "0"}
    with pytest.raises(Stop, match=r"ADAPTER_KAFKA__PROPERTIES.*heartbeat"):
        KafkaIntake(client=client, topic=topics.commands, listener=Clinging())
    with pytest.raises(Stop, match=r"ADAPTER_KAFKA__PROPERTIES.*heartbeat"):
        introduce(client, topics.commands, topics.prefix)


@pytest.fixture(scope="module")
def crowded_kafka(kafka_of_file: Callable[..., Cluster]) -> str:
    """Takes one member into a group."""
    return kafka_of_file(properties={"group.max.size": 1, "group.consumer.max.size": 1}).bootstrap


async def test_a_member_that_a_full_group_leaves_out_says_so_until_there_is_a_place(
    crowded_kafka: str, caplog: pytest.LogCaptureFixture
) -> None:
    topics = topic_sets.create(crowded_kafka, partitions=1)
    await introduced(crowded_kafka, topics.commands, topics.prefix)
    first, second = (_intake(_member(crowded_kafka, topics), topics, Yielding()) for _ in range(2))
    first.open()
    await eventually(lambda: not first.left_out, what="the first member")
    second.open()
    why = "JoinGroup failed: Broker: Consumer group has reached maximum size"
    told = f"not yet a member of the group {topics.prefix}: {why}"
    await eventually(lambda: second.left_out == told, what="being left out for a reason")
    assert ("librdkafka", logging.WARNING, why) in caplog.record_tuples
    await first.close()
    await eventually(lambda: not second.left_out, what="the second member")
    await second.close()


async def test_a_membership_that_the_library_gives_up_for_good_ends_the_flow(crowded_kafka: str) -> None:
    topics = topic_sets.create(crowded_kafka, partitions=1)
    await introduced(crowded_kafka, topics.commands, topics.prefix)
    listener = Refused()
    client = {"bootstrap.servers": crowded_kafka, "group.id": topics.prefix, "group.protocol": "consumer"}
    first, second = (_intake(client, topics, each) for each in (Yielding(), listener))
    first.open()
    await eventually(lambda: not first.left_out, what="the first member")
    second.open()
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(Stop, match=f"{topics.prefix}: Fatal error: Broker: Consumer group has reached maximum"):
            raise await listener.heard
        await second.close()
        await first.close()


async def test_a_member_with_an_id_of_its_own_is_left_out_until_kafka_has_answered_it(
    kafka: str, topics: Topics
) -> None:
    """KIP-848: the id is the client's. A broker that does not know the protocol is never asked, and nothing is said."""
    await introduced(kafka, topics.commands, topics.prefix)
    async with kafka_door(kafka) as door:
        door.hold_requests(Api.CONSUMER_GROUP_HEARTBEAT)
        client = {"bootstrap.servers": door.bootstrap, "group.id": topics.prefix, "group.protocol": "consumer"}
        intake = _intake(client, topics, Yielding())
        intake.open()
        await eventually(lambda: door.held, what="the request to be a member")
        assert await asyncio.to_thread(intake.membership, ()) is None
        assert intake.left_out == f"not yet a member of the group {topics.prefix}"
        door.release()
        await eventually(lambda: not intake.left_out, what="the member")
        assert await asyncio.to_thread(intake.membership, ()) is not None
        await intake.close()


@pytest.mark.parametrize(
    "member",
    [
        pytest.param(
            {"partition.assignment.strategy": "cooperative-sticky", "session.timeout.ms": "6000"}, id="classic"
        ),
        pytest.param({"group.protocol": "consumer"}, id="KIP-848"),
    ],
)
async def test_a_member_that_has_forgotten_all_brokers_comes_back_as_a_new_one(
    kafka: str, topics: Topics, caplog: pytest.LogCaptureFixture, member: Mapping[str, str]
) -> None:
    await introduced(kafka, topics.commands, topics.prefix)
    async with kafka_door(kafka) as door:
        listener = Losing()
        client = {
            "bootstrap.servers": door.bootstrap,
            "group.id": topics.prefix,
            "topic.metadata.refresh.interval.ms": "200",
            **member,
        }
        intake = _intake(client, topics, listener)
        intake.open()
        await eventually(listener.owns.is_set, what="the member")
        await door.fence_until(lambda: FORGOTTEN in caplog.text)
        await eventually(lambda: not intake.left_out, what="the new member")
        assert await asyncio.to_thread(intake.membership, ()) is not None
        await intake.close()


def _intake(client: Mapping[str, str], topics: Topics, listener: IntakeListener) -> KafkaIntake:
    return KafkaIntake(client=client, topic=topics.commands, listener=listener)


def test_a_group_whose_members_read_something_else_is_introduced_once_they_are_gone(kafka: str, topics: Topics) -> None:
    """As after partitions were added, and where a worker of another topic was killed a moment ago: whoever joined
    would have partitions without an offset and could never start them.
    """
    client = {"bootstrap.servers": kafka, "group.id": topics.prefix}
    other = Consumer(client)
    other.subscribe([topics.events])
    wait_until(lambda: other.poll(0.1) is None and other.assignment(), what="a member")

    def refused() -> str:
        with pytest.raises(Unavailable) as why:
            introduce({"bootstrap.servers": kafka}, topics.commands, topics.prefix)
        return str(why.value)

    # Asked again: leaders of topics that are new are not known everywhere at once.
    members = r"partition 0, 1, 2, 3, and none .* while it has members"
    wait_until(lambda: re.search(members, refused()), what="being told of the members")
    other.close()
    asyncio.run(introduced(kafka, topics.commands, topics.prefix))
    reader = Consumer(client)
    (found,) = reader.committed([TopicPartition(topics.commands, 0)], 10)
    reader.close()
    assert found.offset == 0


def test_a_group_whose_members_have_done_it_is_left_alone(kafka: str, topics: Topics) -> None:
    asyncio.run(introduced(kafka, topics.commands, topics.prefix))
    member = Consumer({"bootstrap.servers": kafka, "group.id": topics.prefix})
    member.subscribe([topics.commands])
    wait_until(lambda: member.poll(0.1) is None and member.assignment(), what="a member")
    introduce({"bootstrap.servers": kafka}, topics.commands, topics.prefix)
    member.close()


def _member(kafka: str, topics: Topics) -> dict[str, str]:
    return {
        "bootstrap.servers": kafka,
        "group.id": topics.prefix,
        "partition.assignment.strategy": "cooperative-sticky",
    }


def test_a_close_that_is_given_up_keeps_nobody(kafka: str, topics: Topics) -> None:
    async def give_up() -> float:
        await introduced(kafka, topics.commands, topics.prefix)
        listener = Clinging()
        consumer = KafkaIntake(client=_member(kafka, topics), topic=topics.commands, listener=listener)
        consumer.open()
        async with asyncio.timeout(PATIENCE):
            await listener.owns.wait()
        try:
            async with asyncio.timeout(0.5):
                await consumer.close()
        except TimeoutError:
            return time.monotonic()
        raise AssertionError("it gave back what is clung to")

    given_up_at = asyncio.run(give_up())  # which waits for its executor's threads
    assert time.monotonic() - given_up_at < 60
    wait_until(lambda: all(thread.name != "intake" for thread in threading.enumerate()), what="its thread's end")
