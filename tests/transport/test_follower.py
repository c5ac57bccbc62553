"""Reading a topic with no group: from an edge or a time, of one key, to its end or as it grows."""

import asyncio
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from confluent_kafka import Producer

from adapter.core.errors import Stop, Unavailable
from adapter.core.partition import partition_of
from adapter.ports import Outgoing, size
from adapter.transport.kafka.client import Edge, Follower, Seen, Sender
from adapter.transport.kafka.mock import MockCluster
from tests.support import foreign
from tests.support import topics as topic_sets
from tests.support.broker import Cluster
from tests.support.kafka_door import kafka_door
from tests.support.topics import Topics
from tests.support.wait import PATIENCE, wait_until

SHORT = timedelta(seconds=1)


@pytest.fixture
def client(kafka: str) -> dict[str, str]:
    return {"bootstrap.servers": kafka}


def put(client: dict[str, str], topic: str, *keys: str) -> None:
    sender = Sender(client, max_message_bytes=1_000_000)
    records = [Outgoing(topic, key.encode(), key.encode(), [("name", key.encode())]) for key in keys]
    assert sender.send(records) == [None] * len(keys)


def read(client: dict[str, str], topic: str, start: datetime | Edge, key: bytes | None = None) -> list[Seen]:
    follower = Follower(client, topic, start=start, keys=None if key is None else [key])
    try:
        return list(follower.rest())
    finally:
        follower.close()


def keys(records: list[Seen]) -> set[str]:
    return {(seen.key or b"").decode() for seen in records}


def test_from_the_beginning_all_is_read_to_the_end(client: dict[str, str], topics: Topics) -> None:
    names = [f"SP-{number}" for number in range(50)]
    before = datetime.now(UTC)
    put(client, topics.events, *names)
    found = read(client, topics.events, Edge.FIRST)
    assert sorted(keys(found)) == sorted(names)
    assert len(found) == len(names)
    assert all(seen.header("name").encode() == seen.key for seen in found)
    assert all(abs(seen.at - before) < timedelta(minutes=1) for seen in found)
    assert read(client, topics.events, Edge.END) == []


def test_a_start_behind_the_end_is_the_end(client: dict[str, str], topics: Topics) -> None:
    """Asked for what is out of range, librdkafka may wait for itself when it is closed."""
    put(client, topics.events, "SP-1")
    follower = Follower(client, topics.events, start={partition_of(b"SP-1", topics.partitions): 99})
    assert list(follower.rest()) == []
    put(client, topics.events, "SP-1")
    seen = next(iter(follower.read(time.monotonic() + PATIENCE)))
    assert (seen.key, seen.offset) == (b"SP-1", 1)
    follower.close()


def test_a_record_with_a_header_whose_name_is_not_text_is_read_without_headers(
    client: dict[str, str], topics: Topics
) -> None:
    many = ["SP-1"] * 50  # Python calls otherwise what it has called often
    put(client, topics.events, *many)
    partition = partition_of(b"SP-1", topics.partitions)
    bootstrap = client["bootstrap.servers"]
    foreign.put(bootstrap, topics.events, partition, key=b"SP-1", value=b"odd", header=(b"na\xffme", b"SP-1"))
    put(client, topics.events, *many)
    found = read(client, topics.events, Edge.FIRST)
    assert [seen.value for seen in found if not seen.headers] == [b"odd"]
    assert len(found) == 101


def test_of_one_key_only_its_partition_is_read(client: dict[str, str], topics: Topics) -> None:
    names = [f"SP-{number}" for number in range(20)]
    put(client, topics.events, *names)
    found = read(client, topics.events, Edge.FIRST, b"SP-7")
    there = {name for name in names if partition_of(name.encode(), 4) == partition_of(b"SP-7", 4)}
    assert "SP-7" in there
    assert keys(found) == there


def test_from_a_time_on_nothing_older_is_read(client: dict[str, str], topics: Topics) -> None:
    producer = Producer({**client, "partitioner": "murmur2_random"})
    noon = datetime(2026, 1, 31, 12, tzinfo=UTC)
    for minutes, key in enumerate(["a", "b", "c", "d"]):
        at = int((noon + timedelta(minutes=minutes)).timestamp() * 1000)
        producer.produce(topics.events, key.encode(), key.encode(), timestamp=at)
    assert producer.flush(PATIENCE) == 0
    assert keys(read(client, topics.events, noon + timedelta(minutes=2))) == {"c", "d"}
    assert read(client, topics.events, noon + timedelta(days=1)) == []
    assert len(read(client, topics.events, datetime(1, 1, 2, tzinfo=UTC))) == 4


def test_an_aborted_record_is_not_seen_and_an_open_transaction_ends_the_topic(
    client: dict[str, str], topics: Topics
) -> None:
    put(client, topics.events, "first")
    producer = Producer({**client, "transactional.id": topics.prefix, "partitioner": "murmur2_random"})
    producer.init_transactions(PATIENCE)
    producer.begin_transaction()
    producer.produce(topics.events, b"x", b"first")
    producer.flush(PATIENCE)
    producer.abort_transaction(PATIENCE)
    producer.begin_transaction()
    producer.produce(topics.events, b"x", b"first")
    producer.flush(PATIENCE)
    try:
        assert [seen.value for seen in read(client, topics.events, Edge.FIRST)] == [b"first"]
    finally:
        producer.commit_transaction(PATIENCE)
    assert [seen.value for seen in read(client, topics.events, Edge.FIRST)] == [b"first", b"x"]


def test_what_is_written_after_the_opening_is_followed_and_not_part_of_the_rest(
    client: dict[str, str], topics: Topics
) -> None:
    put(client, topics.events, "old")
    follower = Follower(client, topics.events, start=Edge.FIRST)
    try:
        put(client, topics.events, "new", "newer")
        assert keys(list(follower.rest())) == {"old"}
    finally:
        follower.close()
    follower = Follower(client, topics.events)
    try:
        put(client, topics.events, "newest")
        assert next(follower.read(time.monotonic() + PATIENCE)).key == b"newest"
        assert list(follower.read(time.monotonic() + 0.2)) == []
    finally:
        follower.close()


async def test_who_reads_on_is_told_that_librdkafka_has_forgotten_all_brokers(kafka: str, topics: Topics) -> None:
    async with kafka_door(kafka) as door:
        client = {"bootstrap.servers": door.bootstrap, "topic.metadata.refresh.interval.ms": "200"}
        follower = await asyncio.to_thread(Follower, client, topics.events)
        reading = asyncio.ensure_future(asyncio.to_thread(list, follower.read(time.monotonic() + PATIENCE)))
        await door.fence_until(reading.done)
        with pytest.raises(Unavailable, match=r"forgotten all brokers.*; start again"):
            await reading
        await asyncio.to_thread(follower.close)


def test_a_topic_that_is_not_there_is_named(client: dict[str, str]) -> None:
    with pytest.raises(Stop, match="absent-topic: the topic is missing"):
        Follower(client, "absent-topic")


def test_a_cluster_that_is_not_there_is_told_in_time() -> None:
    with pytest.raises(Unavailable, match="does not answer"):
        Follower({"bootstrap.servers": "127.0.0.1:1"}, "x", timeout=SHORT)


def test_a_time_beyond_the_calendar_is_its_end() -> None:
    cluster = MockCluster()  # a broker of today takes no time that is far ahead, those before Kafka 4 take any
    cluster.create(["x"])
    client = {"bootstrap.servers": cluster.bootstrap}
    producer = Producer(client)
    for milliseconds in (1, 2**62):
        producer.produce("x", b"v", b"k", timestamp=milliseconds)
    assert producer.flush(PATIENCE) == 0
    assert [seen.at.year for seen in read(client, "x", Edge.FIRST)] == [1970, 9999]
    cluster.close()


def test_why_a_record_is_not_stored_is_its_own_reason_and_of_one_that_nobody_took_what_was_heard_last() -> None:
    cluster = MockCluster()
    cluster.create(["x"])
    sender = Sender({"bootstrap.servers": cluster.bootstrap}, max_message_bytes=1000, timeout=SHORT)
    wait_until(lambda: sender.send([Outgoing("x", b"k", b"v")]) == [None], what="that it is stored")
    cluster.close()
    wait_until(lambda: sender._producer.poll(0.1) or sender._heard.text, what="that no broker answers")
    refused, waited = sender.send([Outgoing("x", b"k", b"v" * 2000), Outgoing("x", b"k", b"v")])
    assert refused is not None
    assert "size too large" in refused
    assert waited == sender._heard.text


def test_a_record_of_the_size_that_a_topic_takes_is_stored(kafka: str) -> None:
    largest = 10_000
    events = topic_sets.create(kafka, partitions=1, largest=largest).events
    headers = [[("name", b"value")] * count for count in (0, 1, 50)]
    bare = [Outgoing(events, b"k", b"", each) for each in headers]
    records = [replace(each, value=random.randbytes(largest - size(each))) for each in bare]
    assert {size(each) for each in records} == {largest}
    sender = Sender({"bootstrap.servers": kafka}, max_message_bytes=largest)
    assert [sender.send([each]) for each in records] == [[None]] * len(records)


def test_a_cluster_that_goes_away_is_told_once() -> None:
    told: list[str] = []
    cluster = MockCluster()
    cluster.create(["x"])
    follower = Follower({"bootstrap.servers": cluster.bootstrap}, "x", down=told.append)
    try:
        assert list(follower.read(time.monotonic() + 0.2)) == []
        assert told == []
        cluster.close()
        wait_until(lambda: list(follower.read(time.monotonic() + 0.1)) or told, what="that no broker answers")
        assert list(follower.read(time.monotonic() + 1.5)) == []
        assert len(told) == 1
    finally:
        follower.close()


def test_the_end_is_not_waited_for_where_a_broker_is_silent_while_another_one_has_much_to_tell(
    kafka_cluster: Callable[..., Cluster],
) -> None:
    cluster = kafka_cluster(nodes=2)
    first, second = ({"bootstrap.servers": address} for address in cluster.bootstrap.split(","))
    topic = topic_sets.create(cluster.bootstrap, partitions=4, replicas=1).events
    leaders = Producer(first).list_topics(topic, timeout=10).topics[topic].partitions
    loud, silent = (next(n for n, at in leaders.items() if at.leader == node) for node in cluster.nodes)
    with written(second, topic, silent):
        pass

    def given_up() -> bool:
        """Whether it was; if all was on its way when the broker fell silent, it was not."""
        follower = Follower(first, topic, start=Edge.FIRST, timeout=timedelta(seconds=3))
        cluster.freeze(2)
        try:
            with written(first, topic, loud):
                list(follower.rest())
        except Unavailable as why:
            return "does not answer" in str(why)
        finally:
            cluster.thaw(2)
            follower.close()
        return False

    wait_until(given_up, what="giving up")


@contextmanager
def written(client: dict[str, str], topic: str, partition: int) -> Iterator[None]:
    """From when there is a record in that partition, more and more are."""
    producer, some, enough = Producer(client), threading.Event(), threading.Event()

    def write() -> None:
        while not enough.wait(0.05):
            producer.produce(topic, b"1", partition=partition, on_delivery=lambda *_: some.set())
            producer.poll(0)
        producer.flush(10)

    writing = threading.Thread(target=write)
    writing.start()
    try:
        assert some.wait(30)
        yield
    finally:
        enough.set()
        writing.join()
