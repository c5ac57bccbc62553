"""Group commit: what goes into a transaction, in which order, and what a failed one leaves behind."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from math import inf

import pytest

from adapter.core.journal import Entry, Kind, Source, read_mark
from adapter.core.offsets import Frontier
from adapter.ports import IntakeListener, Outgoing
from adapter.worker.assignment import Assignment
from adapter.worker.ledger import Ledger, Work
from adapter.worker.pace import Pace
from tests.support.bus import EVENTS, IDENTITY, JOURNAL, Bus, Member
from tests.support.wait import PATIENCE, eventually


class Owner(IntakeListener):
    """Keeps the assignments it is told of, ready to commit."""

    def __init__(self) -> None:
        self.assignments: dict[int, Assignment] = {}

    def assigned(self, epochs: Mapping[int, int]) -> None:
        for partition, epoch in epochs.items():
            self.assignments[partition] = Assignment(partition, epoch)
            self.assignments[partition].frontier = Frontier(0)

    async def revoked(self, partitions: Sequence[int]) -> None: ...

    def lost(self, partitions: Sequence[int]) -> None:
        for partition in partitions:
            self.assignments.pop(partition).alive = False

    def delivered(self, records: Sequence[tuple[int, Source]]) -> None: ...

    def failed(self, error: Exception) -> None: ...


def journaled(entries: Iterable[Entry], partition: int) -> list[Outgoing]:
    """One readable record."""
    text = ",".join(f"{entry.kind} {entry.command_id}" for entry in entries)
    return [Outgoing(JOURNAL, None, text.encode(), partition=partition)]


class Desk:
    def __init__(self) -> None:
        self.bus = Bus(2)
        self.member: Member = self.bus.member()
        self.owner = Owner()
        self.observed: list[tuple[float, int]] = []
        self.commits = Pace()
        self.busy = False
        self.ledger = Ledger(
            intake=self.member.listened(self.owner),
            transactor=self.member,
            commits=self.commits,
            busy=lambda: self.busy,
            entries=journaled,
            journal=IDENTITY,
            topic="cluster/commands",
            observe=lambda seconds, count: self.observed.append((seconds, count)),
        )
        self.done: list[str] = []

    def work(self, name: str, partition: int = 0, *, finish: int | None = None, size: int = 1) -> Work:
        """Work with one event; its name says whose end `done` tells."""
        event = Outgoing(EVENTS, name.encode(), b"x" * size)
        return Work(self.owner.assignments[partition], (event,), finish=finish, then=lambda: self.done.append(name))

    def entry(self, kind: Kind, offset: int, partition: int = 0) -> Work:
        entry = Entry(kind, str(offset), offset, b"", at=1.0)
        return Work(self.owner.assignments[partition], entry=entry)

    def keys(self) -> list[list[str]]:
        return [[(r.key or b"").decode() for r in t.to(EVENTS)] for t in self.bus.transactions]


@asynccontextmanager
async def running() -> AsyncIterator[Desk]:
    desk = Desk()
    desk.member.assign(0, 1)
    tasks = [asyncio.ensure_future(work) for work in (desk.ledger.run(), desk.commits.run())]
    try:
        yield desk
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                task.result()


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_what_is_entered_while_a_transaction_is_open_goes_into_the_next_in_one() -> None:
    async with running() as desk:
        desk.member.hold()
        desk.ledger.enter(desk.work("a"))
        await eventually(lambda: desk.member.open_transaction)
        for name in "bcd":
            desk.ledger.enter(desk.work(name, partition=1))
        await turns()
        assert desk.done == []
        desk.member.release()
        await eventually(lambda: len(desk.done) == 4)
        assert desk.keys() == [["a"], ["b", "c", "d"]]
        assert desk.done == ["a", "b", "c", "d"]
        assert [count for _, count in desk.observed] == [1, 3]
        assert all(0 < seconds < PATIENCE for seconds, _ in desk.observed)


async def test_what_a_busy_loop_is_about_to_do_comes_along() -> None:
    async with running() as desk:
        for number in range(100):  # it is waited for a few milliseconds only, which a busy machine may let pass
            names = [f"{name}{number}" for name in "abc"]
            desk.ledger.enter(desk.work(names[0]))
            await eventually(lambda: names[0] in desk.done)  # noqa: B023 -- asked at once
            desk.busy = True
            desk.ledger.enter(desk.work(names[1]))
            await turns()
            desk.ledger.enter(desk.work(names[2]))
            desk.busy = False
            await eventually(lambda: names[2] in desk.done)  # noqa: B023 -- asked at once
            if desk.keys()[-1] == names[1:]:
                return
        raise AssertionError("it never came along")


async def test_a_loop_that_is_busy_all_the_time_is_not_waited_for() -> None:
    async with running() as desk:
        desk.busy = True
        for name in "abc":
            desk.ledger.enter(desk.work(name))
            await eventually(lambda: name in desk.done)  # noqa: B023 -- asked at once
        assert desk.keys() == [["a"], ["b"], ["c"]]


async def test_where_nothing_else_is_to_do_no_work_waits_for_company() -> None:
    async with running() as desk:
        began = time.monotonic()
        for _ in range(200):  # 25 ms each, were it waited for
            await desk.ledger.flush(desk.owner.assignments[0])
        assert time.monotonic() - began < 4


async def test_an_aborted_transaction_is_sent_again_with_the_same_and_more() -> None:
    async with running() as desk:
        for offset in range(3):
            desk.owner.assignments[0].frontier.deliver(offset)
        desk.member.refusals = 1
        desk.member.hold()
        desk.ledger.enter(desk.work("a", finish=0))
        await eventually(lambda: desk.member.open_transaction)
        desk.ledger.enter(desk.work("b", finish=1))
        desk.member.release()
        await eventually(lambda: desk.done == ["a", "b"])
        assert desk.keys() == [["a", "b"]]
        assert [t.positions[0].offset for t in desk.member.attempts] == [1, 2]
        assert len({t.positions[0].metadata for t in desk.member.attempts}) == 2  # each names its own transaction


async def test_the_position_waits_for_what_lies_before() -> None:
    async with running() as desk:
        for offset in (0, 1, 5):
            desk.owner.assignments[0].frontier.deliver(offset)
        for finish in (5, 1, 0):
            desk.ledger.enter(desk.work(str(finish), finish=finish))
            await eventually(partial(desk.done.count, str(finish)))
        assert [t.positions[0].offset for t in desk.bus.transactions] == [0, 0, 6]


async def test_a_transaction_carries_an_offset_of_every_partition_it_has_work_of() -> None:
    async with running() as desk:
        desk.ledger.enter(desk.entry(Kind.INTENT, 7, 1))
        await eventually(lambda: desk.bus.transactions)
        (position,) = desk.bus.transactions[0].positions
        assert (position.partition, position.offset) == (1, 0)


async def test_the_mark_stays_at_an_entry_until_the_frontier_has_passed_its_command() -> None:
    async with running() as desk:
        for offset in (0, 1):
            desk.owner.assignments[0].frontier.deliver(offset)
        desk.ledger.enter(desk.entry(Kind.INTENT, 1))
        await eventually(lambda: len(desk.bus.transactions) == 1)
        desk.ledger.enter(desk.work("a", finish=0))
        await eventually(lambda: len(desk.bus.transactions) == 2)
        desk.ledger.enter(desk.work("b", finish=1))
        await eventually(lambda: len(desk.bus.transactions) == 3)
        marks = [read_mark(t.positions[0].metadata, IDENTITY) for t in desk.bus.transactions]
        assert [mark and mark.offset for mark in marks] == [0, 0, len(desk.bus.journal[0]) - 1]


async def test_the_entries_of_a_partition_are_one_record_and_the_mark_counts_records() -> None:
    async with running() as desk:
        for offset in range(3):
            desk.owner.assignments[0].frontier.deliver(offset)
        desk.member.refusals = 1
        desk.ledger.enter(desk.entry(Kind.INTENT, 0))
        desk.ledger.enter(desk.entry(Kind.INTENT, 5, 1))
        desk.ledger.enter(desk.entry(Kind.INTENT, 1))
        await eventually(lambda: desk.bus.transactions)
        written = [(r.partition, r.value) for r in desk.bus.transactions[0].to(JOURNAL)]
        assert written == [(0, b"INTENT 0,INTENT 1"), (1, b"INTENT 5")]
        assert desk.owner.assignments[0].extent.end == 1


async def test_work_of_a_lost_partition_is_dropped_and_who_waits_for_it_hears() -> None:
    async with running() as desk:
        desk.member.hold()
        lost = desk.work("lost")
        lost.committed = asyncio.get_running_loop().create_future()
        desk.ledger.enter(lost)
        desk.ledger.enter(desk.work("kept", partition=1))
        await eventually(lambda: desk.member.open_transaction)
        desk.member.lose(0)
        desk.member.release()
        await eventually(lambda: desk.done == ["kept"])
        assert lost.committed.cancelled()
        assert desk.keys() == [["kept"]]


async def test_a_partition_that_is_not_owned_at_this_moment_keeps_the_transaction_from_being_begun() -> None:
    async with running() as desk:
        epoch = desk.member.owned.pop(0)
        for name, partition in (("a", 0), ("b", 1), ("c", 0)):
            desk.ledger.enter(desk.work(name, partition=partition))
        await turns()
        assert desk.member.attempts == []
        desk.member.owned[0] = epoch
        await eventually(lambda: len(desk.done) == 3)
        assert desk.keys() == [["a", "b", "c"]]


async def test_while_nothing_is_owned_nothing_is_committed_and_nothing_forgotten() -> None:
    async with running() as desk:
        owned = dict(desk.member.owned)
        desk.member.owned.clear()
        desk.ledger.enter(desk.work("a"))
        await turns()
        assert desk.member.attempts == []
        desk.member.owned.update(owned)
        await eventually(lambda: desk.done == ["a"])


async def test_large_work_is_spread_over_transactions() -> None:
    async with running() as desk:
        for number in range(5):
            desk.ledger.enter(desk.work(str(number), size=3 * 1024 * 1024))
        await eventually(lambda: len(desk.done) == 5)
        assert desk.keys() == [["0", "1", "2"], ["3", "4"]]


async def test_many_records_are_spread_over_transactions() -> None:
    async with running() as desk:
        names = [str(number) for number in range(5000)]
        for name in names:
            desk.ledger.enter(desk.work(name))
        await eventually(lambda: len(desk.done) == len(names))
        written = desk.keys()
        assert max(map(len, written)) <= 4000
        assert [name for some in written for name in some] == names


async def test_what_is_too_much_for_the_cluster_at_once_is_divided_each_part_with_its_own_position_and_mark() -> None:
    async with running() as desk:
        frontier = desk.owner.assignments[0].frontier
        for offset in range(300):
            frontier.deliver(offset)
        for offset in range(300):
            desk.ledger.enter(desk.entry(Kind.INTENT, offset))
        await eventually(lambda: desk.bus.transactions)
        desk.member.capacity = 100
        for offset in range(300):
            work = desk.work(str(offset), finish=offset)
            work.entry = Entry(Kind.SETTLED, str(offset), offset, b"", at=1.0)
            desk.ledger.enter(work)
        await eventually(lambda: len(desk.done) == 300)
        ended = 0
        for transaction in desk.bus.transactions[1:]:
            ended += len(transaction.to(EVENTS))
            (position,) = transaction.positions
            mark = read_mark(position.metadata, IDENTITY)
            assert mark is not None
            assert (position.offset, mark.needed, mark.offset == 0) == (ended, ended < 300, ended < 300)
        assert ended == 300


async def test_a_cluster_that_takes_much_again_gets_ever_more_at_once() -> None:
    async with running() as desk:
        desk.member.capacity = 100
        for number in range(300):
            desk.ledger.enter(desk.work(str(number)))
        await eventually(lambda: len(desk.done) == 300)
        desk.member.capacity = inf
        small = max(map(len, desk.keys()))
        for number in range(300, 5000):
            desk.ledger.enter(desk.work(str(number)))
        await eventually(lambda: len(desk.done) == 5000)
        assert max(map(len, desk.keys())) > 3 * small


async def test_a_flush_ends_when_all_entered_before_is_committed() -> None:
    async with running() as desk:
        desk.member.hold()
        desk.ledger.enter(desk.work("a"))
        flushed = asyncio.ensure_future(desk.ledger.flush(desk.owner.assignments[0]))
        await turns()
        assert not flushed.done()
        desk.member.release()
        await flushed
        assert desk.done == ["a"]


async def test_a_flush_that_was_given_up_hinders_no_commit() -> None:
    async with running() as desk:
        desk.member.hold()
        desk.ledger.enter(desk.work("a"))
        flushed = asyncio.ensure_future(desk.ledger.flush(desk.owner.assignments[0]))
        await eventually(lambda: desk.member.open_transaction)
        flushed.cancel()
        desk.ledger.enter(desk.work("b", partition=1))
        desk.member.release()
        await eventually(lambda: desk.done == ["a", "b"])


async def test_a_flush_of_a_lost_partition_is_cancelled() -> None:
    async with running() as desk:
        assignment = desk.owner.assignments[0]
        desk.member.lose(0)
        with pytest.raises(asyncio.CancelledError):
            await desk.ledger.flush(assignment)
