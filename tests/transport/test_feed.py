"""Following the tickets topic, as one who owns none of it, before a real broker."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from confluent_kafka import Producer

from adapter.core.errors import Unavailable
from adapter.ports import FollowedTicket
from adapter.transport.kafka.feed import KafkaTicketFeed
from adapter.transport.kafka.known import FORGOTTEN
from tests.support.kafka_door import kafka_door
from tests.support.ports import free_port
from tests.support.topics import Topics
from tests.support.wait import PATIENCE, eventually


@dataclass(slots=True)
class Taker:
    """What was handed over of one partition."""

    records: list[FollowedTicket] = field(default_factory=list)
    ends: list[tuple[int, bool]] = field(default_factory=list)

    async def take(self, records: Sequence[FollowedTicket], end: int, ended: bool) -> None:  # noqa: FBT001 -- the port's
        await asyncio.sleep(0)
        self.records += records
        self.ends.append((end, ended))

    @property
    def values(self) -> list[bytes | None]:
        return [record.value for record in self.records]

    @property
    def current(self) -> bool:
        return bool(self.ends) and self.ends[-1][1]


@pytest.fixture
async def feed(kafka: str, topics: Topics) -> AsyncIterator[KafkaTicketFeed]:
    opened = open_feed(kafka, topics)
    yield opened
    await opened.close()


def open_feed(bootstrap: str, topics: Topics, **more: str) -> KafkaTicketFeed:
    def failed(error: Exception) -> None:
        raise error

    client = {"bootstrap.servers": bootstrap, "log_level": "0", **more}
    return KafkaTicketFeed(client=client, topic=topics.tickets, group=topics.prefix, failed=failed)


def producer(kafka: str, **more: str) -> Producer:
    return Producer({"bootstrap.servers": kafka, "linger.ms": 0, "log_level": 0, **more})


def write(kafka: str, topics: Topics, *values: bytes | None, partition: int = 0, theirs: bytes | None = None) -> None:
    client = producer(kafka)
    headers: dict[str, str | bytes | None] = {} if theirs is None else {"reference": theirs, "commands": b"12345678"}
    for value in values:
        client.produce(topics.tickets, value, b"SP-1", partition, headers=headers)
    assert client.flush(PATIENCE) == 0


async def test_a_partition_is_followed_from_where_it_is_asked_for(
    kafka: str, topics: Topics, feed: KafkaTicketFeed
) -> None:
    write(kafka, topics, b"0", b"1", b"2", theirs=b"CF-1")
    whole, rest, other = Taker(), Taker(), Taker()
    feed.follow(0, 0, whole.take)
    feed.follow(1, 0, other.take)
    await eventually(lambda: whole.current and other.current, what="the ends")
    assert whole.records == [FollowedTicket(b"SP-1", n, str(n).encode(), b"CF-1", b"12345678") for n in range(3)]
    assert whole.ends[-1] == (3, True)
    assert (other.records, other.ends[-1]) == ([], (0, True))
    feed.follow(0, 2, rest.take)
    await eventually(lambda: rest.current, what="the end")
    assert rest.values == [b"2"]
    write(kafka, topics, b"3", None)
    await eventually(lambda: rest.values == [b"2", b"3", None], what="what is new")
    assert rest.records[-1].reference is None
    assert whole.values == [b"0", b"1", b"2"]


async def test_a_feed_that_has_forgotten_all_brokers_goes_on_where_it_was(
    kafka: str, topics: Topics, caplog: pytest.LogCaptureFixture
) -> None:
    async with kafka_door(kafka) as door:
        feed = open_feed(door.bootstrap, topics, **{"topic.metadata.refresh.interval.ms": "200"})
        taker, empty = Taker(), Taker()
        write(kafka, topics, b"0")
        feed.follow(0, 0, taker.take)
        feed.follow(1, 0, empty.take)
        await eventually(lambda: taker.current and empty.current, what="the ends")
        await door.fence_until(lambda: FORGOTTEN in caplog.text)
        write(kafka, topics, b"1")
        await eventually(lambda: taker.values == [b"0", b"1"], what="what is new, once")
        assert await feed.fetch(0, 1) is not None
        await feed.close()


async def test_what_was_left_is_not_followed(kafka: str, topics: Topics, feed: KafkaTicketFeed) -> None:
    left, followed = Taker(), Taker()
    feed.follow(0, 0, left.take)
    feed.follow(1, 0, followed.take)
    await eventually(lambda: left.current and followed.current, what="the ends")
    feed.leave(0)
    feed.follow(2, 0, (after := Taker()).take)
    await eventually(lambda: after.current, what="that it has heard of both")
    write(kafka, topics, b"0")
    write(kafka, topics, b"1", partition=1)
    await eventually(lambda: followed.values == [b"1"], what="the other partition's record")
    assert left.values == []


async def test_nothing_aborted_or_undecided_is_handed_over(kafka: str, topics: Topics, feed: KafkaTicketFeed) -> None:
    aborted, undecided = (producer(kafka, **{"transactional.id": f"{topics.prefix}-{n}"}) for n in range(2))
    for each in (aborted, undecided):
        await asyncio.to_thread(each.init_transactions, 20)
        each.begin_transaction()
        each.produce(topics.tickets, b"no", b"SP-1", 0)
        each.flush(PATIENCE)
    await asyncio.to_thread(aborted.abort_transaction, 20)
    taker = Taker()
    feed.follow(0, 0, taker.take)
    await eventually(lambda: taker.current, what="the end")
    assert taker.values == []
    await asyncio.to_thread(undecided.commit_transaction, 20)
    await eventually(lambda: taker.values == [b"no"], what="what is decided now")


async def test_a_start_that_the_topic_no_longer_has_is_its_first_record(
    kafka: str, topics: Topics, feed: KafkaTicketFeed
) -> None:
    write(kafka, topics, b"0")
    taker = Taker()
    feed.follow(0, 99, taker.take)
    await eventually(lambda: taker.values == [b"0"], what="the first record")


async def test_one_record_is_fetched_by_its_offset(kafka: str, topics: Topics, feed: KafkaTicketFeed) -> None:
    write(kafka, topics, b"0", b"1" * 100_000, b"2", theirs=b"CF-1")
    for offset, value in ((1, b"1" * 100_000), (0, b"0"), (2, b"2")):
        assert await feed.fetch(0, offset) == FollowedTicket(b"SP-1", offset, value, b"CF-1", b"12345678")


async def test_what_is_not_there_is_not_fetched(kafka: str, topics: Topics, feed: KafkaTicketFeed) -> None:
    client = producer(kafka, **{"transactional.id": topics.prefix})
    await asyncio.to_thread(client.init_transactions, 20)
    for _ in range(2):
        client.begin_transaction()
        client.produce(topics.tickets, b"0", b"SP-1", 0)
        await asyncio.to_thread(client.commit_transaction, 20)
    assert await feed.fetch(0, 1) is None, "a marker lies there"
    assert await feed.fetch(0, 4) is None, "the end"


async def test_a_broker_that_is_away_is_unavailable_and_closing_does_not_wait_for_it(topics: Topics) -> None:
    feed = open_feed(f"127.0.0.1:{free_port()}", topics)
    feed.follow(0, 0, Taker().take)
    for question in (feed.identity(), feed.fetch(0, 0)):
        with pytest.raises(Unavailable):
            await question
    async with asyncio.timeout(20):
        await feed.close()


async def test_a_topic_made_anew_has_another_identity(kafka: str, topics: Topics, feed: KafkaTicketFeed) -> None:
    assert await feed.identity() == await feed.identity()
    other = KafkaTicketFeed(client={"bootstrap.servers": kafka}, topic=topics.events, group="g", failed=print)
    assert await other.identity() != await feed.identity()
    await other.close()


async def test_a_feed_whose_certificates_were_replaced_by_others_of_no_use_is_not_silent(tmp_path: Path) -> None:
    failures: list[Exception] = []
    ca = tmp_path / "ca.pem"
    client = {"bootstrap.servers": "127.0.0.1:1", "security.protocol": "ssl", "ssl.ca.location": str(ca)}
    feed = KafkaTicketFeed(client=client, topic="tickets", group="any", failed=failures.append)
    with pytest.raises(Unavailable, match=r"ssl\.ca\.location"):
        await feed.identity()
    feed.follow(0, 0, Taker().take)
    await eventually(lambda: failures, what="its failure")
    await feed.close()
    assert "ssl.ca.location" in str(failures)
