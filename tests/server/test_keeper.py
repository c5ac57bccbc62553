"""Order and outages, step by step: a real spool, and a publisher whose acknowledgements the test gives."""

import asyncio
import io
import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from adapter.core.errors import Unavailable
from adapter.core.notification import Delivery
from adapter.ports import Arrival, Caller, Outgoing, Spool, Spooled
from adapter.server.keeper import Keeper, Stored
from adapter.telemetry import start_logging
from adapter.transport.spool import SqliteSpool
from tests.support.wait import eventually


class Disk(Spool):
    """A spool in memory, of one notification per ticket. While it is `broken`, its disk can't be read."""

    def __init__(self) -> None:
        self.broken = False
        self.looks = 0
        """How often it was asked for the oldest."""
        self._held: list[Spooled] = []

    @property
    def depth(self) -> int:
        return len(self._held)

    def holds(self, key: bytes) -> bool:
        return any(each.key == key for each in self._held)

    async def put(self, key: bytes, arrival: Arrival) -> None:
        self._held.append(Spooled(self.depth, key, arrival))

    async def heads(self, limit: int) -> Sequence[Spooled]:
        self.looks += 1
        await asyncio.sleep(0)
        if self.broken:
            raise Unavailable("disk I/O error")
        return self._held[:limit]

    async def drop(self, numbers: Sequence[int]) -> None:
        self._held = [each for each in self._held if each.number not in numbers]


class Bus:
    """`ports.Publisher`; `broken` fails writes at once, else they wait for `acknowledge`."""

    def __init__(self) -> None:
        self.broken = False
        self.refusing: set[str] = set()
        """Topics that fail writes at once."""
        self.writes: list[tuple[bytes, asyncio.Future[None]]] = []
        self.late: list[Callable[[], None]] = []
        self.limits: list[float] = []

    def publish(self, record: Outgoing, *, limit: float, late: Callable[[], None]) -> "asyncio.Future[None]":
        self.late.append(late)
        self.limits.append(limit)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        assert record.value is not None
        if self.broken or record.topic in self.refusing:
            future.set_exception(Unavailable("down"))
        else:
            self.writes.append((record.value, future))
        return future

    def acknowledge(self) -> None:
        for _, future in self.writes:
            if not future.done():
                future.set_result(None)

    @property
    def written(self) -> list[bytes]:
        return [value for value, _ in self.writes]


def arrival(body: bytes) -> Arrival:
    return Arrival(Delivery(body, datetime.now(UTC)), Caller("192.0.2.7", None))


def record(body: bytes) -> Outgoing:
    return Outgoing("events", b"T", body)


async def remade(spooled: Arrival) -> Outgoing:
    return record(spooled.delivery.body)


@pytest.fixture
async def spool(tmp_path: Path) -> AsyncIterator[SqliteSpool]:
    opened = SqliteSpool(
        tmp_path / "spool.db", max_bytes=1024**2, damaged=lambda _, __: None, unreadable=lambda _, __: None
    )
    yield opened
    await opened.close()


def junk(body: bytes) -> Outgoing:
    return Outgoing("quarantine", None, body)


async def remade_by_body(spooled: Arrival) -> Outgoing:
    body = spooled.delivery.body
    return junk(body) if body.startswith(b"junk") else record(body)


def down(keeping: Keeper, *, later: float = 0.0) -> bool:
    """What is known of Kafka so many seconds from now."""
    return keeping.down(asyncio.get_running_loop().time() + later)


def keeper(
    bus: Bus,
    spool: Spool | None,
    *,
    limit: float = 5.0,
    record: Callable[[Arrival], Awaitable[Outgoing]] = remade,
    log: io.StringIO | None = None,
) -> Keeper:
    said = start_logging(stream=io.StringIO() if log is None else log)
    return Keeper(publisher=bus, spool=spool, limit=limit, record=record, drained=lambda: None, log=said)


async def test_while_one_of_a_ticket_is_spooled_the_next_goes_behind_it_even_if_kafka_is_back(
    spool: SqliteSpool,
) -> None:
    bus = Bus()
    keeping = keeper(bus, spool)
    other = asyncio.ensure_future(keeping.keep(b"U", record(b"u"), arrival(b"u")))
    await eventually(lambda: bus.written == [b"u"])
    bus.broken = True
    assert await keeping.keep(b"T", record(b"1"), arrival(b"1")) is Stored.SPOOLED
    bus.broken = False
    bus.acknowledge()
    assert await other is Stored.PUBLISHED
    assert not down(keeping)
    bus.writes.clear()
    assert await keeping.keep(b"T", record(b"2"), arrival(b"2")) is Stored.SPOOLED
    assert bus.written == []
    drain = asyncio.ensure_future(keeping.drain())
    await eventually(lambda: bus.written == [b"1"])
    bus.acknowledge()
    await eventually(lambda: bus.written == [b"1", b"2"])
    bus.acknowledge()
    await eventually(lambda: spool.depth == 0)
    drain.cancel()


async def test_what_has_no_ticket_goes_behind_nothing_that_is_spooled(spool: SqliteSpool) -> None:
    bus = Bus()
    keeping = keeper(bus, spool)
    first = asyncio.ensure_future(keeping.keep(None, junk(b"1"), arrival(b"1")))
    await eventually(lambda: bus.written == [b"1"])
    bus.broken = True
    assert await keeping.keep(None, junk(b"2"), arrival(b"2")) is Stored.SPOOLED
    bus.broken = False
    bus.acknowledge()
    assert await first is Stored.PUBLISHED
    third = asyncio.ensure_future(keeping.keep(None, junk(b"3"), arrival(b"3")))
    await eventually(lambda: bus.written == [b"1", b"3"])
    bus.acknowledge()
    assert await third is Stored.PUBLISHED


async def test_a_spool_that_takes_nothing_while_kafka_is_away_is_told_once(spool: SqliteSpool, tmp_path: Path) -> None:
    bus, log = Bus(), io.StringIO()
    bus.broken = True
    keeping = keeper(bus, spool, log=log)
    shutil.rmtree(tmp_path)
    for number in (1, 2):
        with pytest.raises(Unavailable, match="spool"):
            await keeping.keep(b"T", record(b"1"), arrival(b"%d" % number))
    await asyncio.to_thread(tmp_path.mkdir)
    assert await keeping.keep(b"T", record(b"3"), arrival(b"3")) is Stored.SPOOLED
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["Kafka does not acknowledge", "spool not usable"]
    assert "No such file or directory" in lines[1]["reason"]


async def test_what_a_failing_disk_keeps_back_keeps_no_other_ticket_from_kafka_that_is_back(
    spool: SqliteSpool,
) -> None:
    bus = Bus()
    bus.broken = True
    keeping = keeper(bus, spool)
    assert await keeping.keep(b"T", record(b"1"), arrival(b"1")) is Stored.SPOOLED
    await spool.close()
    with pytest.raises(Unavailable):
        await keeping.keep(b"U", record(b"u"), arrival(b"u"))
    bus.broken = False
    first = asyncio.ensure_future(keeping.keep(b"U", record(b"2"), arrival(b"2")))
    await eventually(lambda: bus.written == [b"2"])
    with pytest.raises(Unavailable):  # one tries
        await keeping.keep(b"V", record(b"3"), arrival(b"3"))
    bus.acknowledge()
    assert await first is Stored.PUBLISHED
    after = asyncio.ensure_future(keeping.keep(b"V", record(b"4"), arrival(b"4")))
    await eventually(lambda: bus.written == [b"2", b"4"])
    bus.acknowledge()
    assert await after is Stored.PUBLISHED
    with pytest.raises(Unavailable):  # its turn comes after the one that is kept back
        await keeping.keep(b"T", record(b"5"), arrival(b"5"))


async def test_a_topic_that_refuses_what_has_no_ticket_says_nothing_of_kafka(spool: SqliteSpool) -> None:
    bus, log = Bus(), io.StringIO()
    keeping = keeper(bus, spool, record=remade_by_body, log=log)
    bus.refusing.add("quarantine")
    assert await keeping.keep(None, junk(b"junk"), arrival(b"junk")) is Stored.SPOOLED
    drain = asyncio.ensure_future(keeping.drain())
    await eventually(lambda: len(bus.late) > 1, what="a second try")
    kept = asyncio.ensure_future(keeping.keep(b"T", record(b"1"), arrival(b"1")))
    await eventually(lambda: bus.written == [b"1"])
    bus.acknowledge()
    assert await kept is Stored.PUBLISHED
    assert not down(keeping)
    drain.cancel()
    (line,) = [json.loads(line) for line in log.getvalue().splitlines()]
    assert (line["event"], line["topic"]) == ("Kafka does not acknowledge", "quarantine")


async def test_what_has_no_ticket_and_is_refused_does_not_delay_the_tickets_in_the_spool(spool: SqliteSpool) -> None:
    bus = Bus()
    keeping = keeper(bus, spool, record=remade_by_body)
    bus.broken = True
    bodies = [b"%d" % number for number in range(10)]
    await keeping.keep(None, junk(b"junk"), arrival(b"junk"))
    for body in bodies:
        await keeping.keep(b"T", record(body), arrival(body))
    bus.broken, bus.refusing = False, {"quarantine"}
    drain = asyncio.ensure_future(keeping.drain())

    def drained() -> bool:
        bus.acknowledge()
        return spool.depth == 1

    await eventually(drained, within=15)  # waiting for longer after each round takes half a minute
    assert bus.written == bodies
    assert not down(keeping)
    bus.refusing.clear()
    await eventually(lambda: bus.written == [*bodies, b"junk"])
    drain.cancel()


async def test_what_was_not_acknowledged_stays_in_the_spool_though_others_of_its_round_are_gone(
    spool: SqliteSpool,
) -> None:
    bus = Bus()
    keeping = keeper(bus, spool)
    bus.broken = True
    for body in (b"1", b"2"):
        assert await keeping.keep(body, record(body), arrival(body)) is Stored.SPOOLED
    bus.broken = False
    drain = asyncio.ensure_future(keeping.drain())
    await eventually(lambda: bus.written == [b"1", b"2"])
    (_, first), (_, second) = bus.writes
    first.set_exception(Unavailable("down"))
    second.set_result(None)
    await eventually(lambda: bus.written == [b"1", b"2", b"1"])
    assert spool.depth == 1
    bus.acknowledge()
    await eventually(lambda: spool.depth == 0)
    drain.cancel()


async def test_whatever_is_spooled_after_the_spool_was_empty_is_drained_too_and_an_end_waits_for_it(
    spool: SqliteSpool,
) -> None:
    bus = Bus()
    keeping = keeper(bus, spool)
    drain = asyncio.ensure_future(keeping.drain())
    for body in (b"1", b"2"):
        bus.broken = True
        assert await keeping.keep(b"T", record(body), arrival(body)) is Stored.SPOOLED
        finishing = asyncio.ensure_future(keeping.finish(3600))
        bus.broken = False
        await eventually(lambda: bus.written[-1:] == [body])  # noqa: B023 -- asked at once
        assert not finishing.done()
        bus.acknowledge()
        assert await asyncio.wait_for(finishing, 60) == 0
    drain.cancel()


@pytest.mark.parametrize("fault", ["bus", "disk"])
async def test_after_a_round_that_failed_the_next_one_waits(fault: str) -> None:
    """A spool that cannot be published must not keep the loop busy."""
    bus, disk, loop = Bus(), Disk(), asyncio.get_running_loop()
    keeping = keeper(bus, disk)
    bus.broken = True
    await keeping.keep(b"T", record(b"1"), arrival(b"1"))
    bus.broken, disk.broken = fault == "bus", fault == "disk"
    began = loop.time()
    drain = asyncio.ensure_future(keeping.drain())
    for _ in range(1000):
        await asyncio.sleep(0)
    assert 1 <= disk.looks <= 1 + (loop.time() - began) / 0.1
    drain.cancel()


async def test_what_could_not_be_read_is_published_once_the_disk_answers_again() -> None:
    bus, disk, log = Bus(), Disk(), io.StringIO()
    keeping = keeper(bus, disk, log=log)
    bus.broken = True
    await keeping.keep(b"T", record(b"1"), arrival(b"1"))
    bus.broken, disk.broken = False, True
    drain = asyncio.ensure_future(keeping.drain())
    await eventually(lambda: "spool not usable" in log.getvalue())
    assert not bus.written
    disk.broken = False
    await eventually(lambda: bus.written == [b"1"])
    bus.acknowledge()
    assert await keeping.finish(3600) == 0
    drain.cancel()


async def test_an_end_that_can_wait_no_longer_says_how_many_are_left() -> None:
    bus, disk = Bus(), Disk()
    keeping = keeper(bus, disk)
    bus.broken = True
    for body in (b"1", b"2"):
        await keeping.keep(body, record(body), arrival(body))
    drain = asyncio.ensure_future(keeping.drain())
    await eventually(lambda: disk.looks > 0)
    assert await asyncio.wait_for(keeping.finish(0.01), 60) == 2
    drain.cancel()


async def test_an_end_does_not_wait_for_a_spool_that_nobody_drains() -> None:
    bus, disk = Bus(), Disk()
    keeping = keeper(bus, disk)
    bus.broken = True
    await keeping.keep(b"T", record(b"1"), arrival(b"1"))
    assert await asyncio.wait_for(keeping.finish(3600), 60) == 1


async def test_while_kafka_is_down_only_one_waits_for_it_and_none_once_something_is_spooled(spool: SqliteSpool) -> None:
    bus = Bus()
    keeping = keeper(bus, spool)
    first = asyncio.ensure_future(keeping.keep(b"A", record(b"a"), arrival(b"a")))
    await eventually(lambda: bus.written == [b"a"])
    bus.writes[0][1].set_exception(Unavailable("down"))
    assert await first is Stored.SPOOLED
    assert await keeping.keep(b"B", record(b"b"), arrival(b"b")) is Stored.SPOOLED
    await spool.drop([1, 2])
    trying = asyncio.ensure_future(keeping.keep(b"C", record(b"c"), arrival(b"c")))
    await eventually(lambda: bus.written == [b"a", b"c"])
    assert await keeping.keep(b"D", record(b"d"), arrival(b"d")) is Stored.SPOOLED
    assert bus.written == [b"a", b"c"]
    bus.acknowledge()
    assert await trying is Stored.PUBLISHED


async def test_the_second_of_a_ticket_waits_for_the_first_other_tickets_do_not() -> None:
    bus = Bus()
    keeping = keeper(bus, None)
    first = asyncio.ensure_future(keeping.keep(b"T", record(b"1"), arrival(b"1")))
    second = asyncio.ensure_future(keeping.keep(b"T", record(b"2"), arrival(b"2")))
    other = asyncio.ensure_future(keeping.keep(b"U", record(b"u"), arrival(b"u")))
    await eventually(lambda: bus.written == [b"1", b"u"])
    bus.acknowledge()
    await eventually(lambda: bus.written == [b"1", b"u", b"2"])
    third = asyncio.ensure_future(keeping.keep(b"T", record(b"3"), arrival(b"3")))
    last = asyncio.ensure_future(keeping.keep(b"V", record(b"v"), arrival(b"v")))
    await eventually(lambda: bus.written == [b"1", b"u", b"2", b"v"])
    bus.acknowledge()
    await eventually(lambda: bus.written == [b"1", b"u", b"2", b"v", b"3"])
    bus.acknowledge()
    assert {*await asyncio.gather(first, second, other, third, last)} == {Stored.PUBLISHED}
    assert not keeping._turns, "tickets come and go"


async def test_kafka_counts_as_down_for_ten_minutes_after_the_last_write_that_failed() -> None:
    bus, log = Bus(), io.StringIO()
    keeping = keeper(bus, None, log=log)
    assert not down(keeping)
    bus.broken = True
    for number in range(2):
        with pytest.raises(Unavailable):
            await keeping.keep(b"A", record(b"%d" % number), arrival(b"%d" % number))
        assert [down(keeping, later=later) for later in (0, 599, 601)] == [True, True, False]
    bus.broken = False
    again = asyncio.ensure_future(keeping.keep(b"A", record(b"2"), arrival(b"2")))
    await eventually(lambda: bus.written == [b"2"])
    assert down(keeping), "nothing is acknowledged yet"
    bus.acknowledge()
    assert await again is Stored.PUBLISHED
    assert not down(keeping)
    lines = [json.loads(line)["event"] for line in log.getvalue().splitlines()]
    assert lines == ["Kafka does not acknowledge", "Kafka acknowledges again"]


async def test_while_no_record_can_be_made_only_the_spool_takes_notifications_and_kafka_counts_as_down(
    spool: SqliteSpool,
) -> None:
    without, bus = keeper(Bus(), None), Bus()
    with pytest.raises(Unavailable, match="not been found yet"):
        await without.keep(b"T", None, arrival(b"1"))
    keeping = keeper(bus, spool)
    assert await keeping.keep(b"T", None, arrival(b"1")) is Stored.SPOOLED
    assert [down(without), down(keeping)] == [True, True]
    drain = asyncio.ensure_future(keeping.drain())  # now one can
    await eventually(lambda: bus.written == [b"1"])
    bus.acknowledge()
    await eventually(lambda: not down(keeping))
    drain.cancel()


async def test_what_waited_for_the_one_before_it_has_only_the_rest_of_its_time() -> None:
    bus, loop = Bus(), asyncio.get_running_loop()
    keeping = keeper(bus, None, limit=5.0)
    began = loop.time()
    first = asyncio.ensure_future(keeping.keep(b"T", record(b"1"), arrival(b"1")))
    second = asyncio.ensure_future(keeping.keep(b"T", record(b"2"), arrival(b"2")))
    await eventually(lambda: bus.written == [b"1"])
    await eventually(lambda: loop.time() - began > 0.1)
    bus.acknowledge()
    await eventually(lambda: bus.written == [b"1", b"2"])
    assert 0 < bus.limits[1] < 4.95
    bus.acknowledge()
    assert {await first, await second} == {Stored.PUBLISHED}


async def test_what_has_no_time_left_is_not_written() -> None:
    bus = Bus()
    with pytest.raises(Unavailable, match="no time is left"):
        await keeper(bus, None, limit=0).keep(b"T", record(b"1"), arrival(b"1"))
    assert bus.limits == []


async def test_down_without_a_spool_one_tries_and_the_others_are_refused_at_once() -> None:
    bus = Bus()
    keeping = keeper(bus, None)
    bus.broken = True
    with pytest.raises(Unavailable):
        await keeping.keep(b"A", record(b"a"), arrival(b"a"))
    bus.broken = False
    trying = asyncio.ensure_future(keeping.keep(b"B", record(b"b"), arrival(b"b")))
    await eventually(lambda: bus.written == [b"b"])
    with pytest.raises(Unavailable):
        await keeping.keep(b"C", record(b"c"), arrival(b"c"))
    bus.acknowledge()
    assert await trying is Stored.PUBLISHED
    assert not down(keeping)


async def test_a_topic_that_was_down_is_tried_though_another_one_always_has_writes_under_way() -> None:
    bus = Bus()
    keeping = keeper(bus, None)
    bus.refusing.add("quarantine")
    with pytest.raises(Unavailable):
        await keeping.keep(None, junk(b"1"), arrival(b"1"))
    bus.refusing.clear()
    other = asyncio.ensure_future(keeping.keep(b"T", record(b"t"), arrival(b"t")))
    await eventually(lambda: bus.written == [b"t"])
    trying = asyncio.ensure_future(keeping.keep(None, junk(b"2"), arrival(b"2")))
    await eventually(lambda: trying.done() or bus.written == [b"t", b"2"])
    bus.acknowledge()
    assert {await other, await trying} == {Stored.PUBLISHED}


async def test_a_write_that_succeeds_after_its_time_is_told() -> None:
    bus = Bus()
    late: list[bool] = []
    bus.broken = True
    with pytest.raises(Unavailable, match="down"):
        await keeper(bus, None).keep(b"T", record(b"1"), arrival(b"1"), late=lambda: late.append(True))
    assert not late
    bus.late[0]()
    assert late
