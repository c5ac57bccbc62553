"""How far a partition of the events has come, as its records are delivered, taken and given back."""

import time

from adapter.core.journal import Source
from adapter.projector.partition import Partition


def source(offset: int, *, at: float = 1.0, value: bytes | None = b"12345", leader_epoch: int = 3) -> Source:
    return Source(0, offset, at, b"T-1", value, (), leader_epoch=leader_epoch)


def started(position: int = 10) -> Partition:
    partition = Partition(0, 1)
    partition.begin(position, 2)
    return partition


def offsets(partition: Partition) -> list[int]:
    return [each.offset for each in partition.queue]


def test_a_record_is_queued_once_and_none_from_before_the_position() -> None:
    partition = started(10)
    for offset in (9, 10, 11, 10, 11, 14):
        partition.deliver(source(offset))
    assert offsets(partition) == [10, 11, 14]


def test_nothing_is_queued_while_the_partition_is_being_given_back() -> None:
    partition = started()
    partition.closing = True
    partition.deliver(source(10))
    assert not partition.queue


def test_what_was_taken_and_could_not_be_folded_comes_first_again() -> None:
    partition = started()
    for offset in range(10, 14):
        partition.deliver(source(offset, value=None if offset == 13 else b"x" * offset))
    taken = partition.take(2)
    assert ([each.offset for each in taken], offsets(partition), partition.size) == ([10, 11], [12, 13], 12)
    partition.put_back(taken)
    assert (offsets(partition), partition.size) == ([10, 11, 12, 13], 33)
    partition.take(100)
    assert (offsets(partition), partition.size) == ([], 0)


def test_all_is_finished_up_to_the_end_once_nothing_waits_before_it() -> None:
    partition = started(10)
    assert partition.finished == (10, 2)
    partition.deliver(source(10))
    partition.reached_end(12, 4)
    assert partition.finished == (10, 2), "one still waits"
    partition.take(1)
    assert partition.finished == (12, 4)
    partition.deliver(source(12, leader_epoch=5))
    partition.take(1)
    assert partition.finished == (10, 2), "more may come behind it"


def test_an_end_before_what_was_delivered_changes_nothing() -> None:
    partition = started(10)
    partition.deliver(source(10, leader_epoch=5))
    partition.reached_end(11, 4)
    partition.take(1)
    assert partition.finished == (11, 5)


def test_the_clock_stands_at_the_newest_event_that_was_read_until_the_end_is_reached() -> None:
    partition = started()
    assert partition.clock() == 0
    for offset, at in ((10, 50.0), (11, 100.0), (12, 200.0)):
        partition.deliver(source(offset, at=at))
    partition.take(2)
    assert partition.clock() == 100
    partition.take(1)
    assert partition.clock() == 200
    partition.put_back([source(12, at=200)])
    partition.reached_end(13, 3)
    assert partition.clock() == 200, "one still waits"
    partition.take(1)
    assert partition.clock() >= time.time() - 60


def test_the_clock_goes_back_to_events_that_are_put_back() -> None:
    """Else a deadline is warned of before the answer is read that ends it."""
    partition = started()
    for offset, at in ((10, 50.0), (11, 100.0), (12, 200.0)):
        partition.deliver(source(offset, at=at))
    partition.put_back(partition.take(3))
    partition.take(1)
    assert partition.clock() == 50
    partition.put_back([])
    assert partition.clock() == 50


def test_the_clock_is_never_ahead_of_ours_nor_goes_back() -> None:
    partition = started()
    partition.deliver(source(10, at=time.time() + 3600))
    partition.take(1)
    assert partition.clock() <= time.time()
    partition.deliver(source(11, at=5.0))
    partition.take(1)
    assert partition.clock() >= time.time() - 60


def test_a_partition_is_behind_by_the_age_of_its_oldest_event() -> None:
    partition = started()
    assert partition.behind == 0
    partition.deliver(source(10, at=time.time() - 100))
    partition.deliver(source(11, at=time.time()))
    assert 100 <= partition.behind < 160
    partition.take(1)
    assert partition.behind < 60
