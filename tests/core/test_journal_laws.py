"""What the mark promises, against a model of a real log: markers, aborted attempts, owners that die."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from adapter.core.journal import Entry, Extent, Kind, Source, recover
from adapter.core.offsets import Frontier

FAR = 12
"""Journal offsets after which a resident is written forward."""

ON: dict[Kind | None, list[Kind]] = {
    None: [Kind.INTENT, Kind.PARKED, Kind.SETTLED],
    Kind.INTENT: [Kind.CLEARED, Kind.HELD, Kind.SETTLED],
    Kind.CLEARED: [Kind.INTENT, Kind.SETTLED],
    Kind.HELD: [Kind.INTENT, Kind.SETTLED],
    Kind.PARKED: [Kind.INTENT, Kind.SETTLED],
}


@dataclass(slots=True)
class Work:
    """What one step adds to a transaction: a journal entry, the end of a record of the topic, or both."""

    entry: Entry | None
    finish: int | None = None
    silent: bool = False
    """It ends a command without an entry, as dead letters without an id do."""
    counted: bool = False


@dataclass(slots=True)
class Broker:
    """What outlives every owner: the records of a partition, its committed offset with the mark, the journal."""

    records: list[int] = field(default_factory=list)
    silent: set[int] = field(default_factory=set)
    """Finished without an entry, and committed so."""
    position: int = 0
    mark: int = 0
    log: list[Entry | None] = field(default_factory=list)
    """None: a transaction marker, or a record of a transaction that was aborted."""

    def read(self, start: int) -> Iterator[tuple[int, Entry]]:
        """As read_committed sees it."""
        return ((at, e) for at, e in enumerate(self.log) if e is not None and at >= start)


class Owner:
    """One assignment: recovers, steps its commands on, and commits group after group."""

    def __init__(self, broker: Broker) -> None:
        self.frontier = Frontier(broker.position)
        self.extent = Extent(len(broker.log))
        self.queue: list[Work] = []
        self.last: dict[int, Entry | None] = {}
        """Last entries of unfinished commands, by offset."""
        found = list(broker.read(broker.mark))
        known = recover((e for _, e in found), broker.position)
        for at, e in found:
            self.extent.known(at, e)
        self.last.update({e.offset: e for e in known.residents})
        passed = known.finished | {e.offset for e in known.residents}
        opened = {e.offset: e for e in known.open.values()}
        for offset in broker.records:
            if self.frontier.deliver(offset):
                if offset in passed:
                    self.queue.append(Work(None, offset))
                else:
                    self.last[offset] = opened.get(offset)

    def enter(self, offset: int, kind: Kind) -> None:
        """The next step of a command."""
        before = self.last[offset]
        resident = (before is not None and before.resident) or kind in (Kind.HELD, Kind.PARKED)
        source = Source(0, offset, 1.0, b"k", b"v", ()) if resident else None
        entry = Entry(kind, str(offset), offset, b"", at=1.0, source=source)
        passes = kind in (Kind.HELD, Kind.PARKED, Kind.SETTLED) and (before is None or not before.resident)
        self.queue.append(Work(entry, offset if passes else None))
        if kind is Kind.SETTLED:
            del self.last[offset]
        else:
            self.last[offset] = entry

    def prepare(self) -> tuple[list[Entry], int, int]:
        """The transaction with all that is queued: its entries, the position, the mark."""
        for work in self.queue:
            if not work.counted:  # an aborted transaction is sent again, the same and more
                work.counted = True
                if work.entry is not None:
                    self.extent.known(self.extent.end, work.entry)
                if work.finish is not None:
                    self.frontier.finish(work.finish)
        position = self.frontier.position
        return [work.entry for work in self.queue if work.entry is not None], position, self.extent.mark(position)


class Partition(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.broker = Broker()
        self.owner = Owner(self.broker)

    @rule(hole=st.integers(0, 2))
    def a_record_is_delivered(self, hole: int) -> None:
        offset = (self.broker.records[-1] + 1 if self.broker.records else 0) + hole
        self.broker.records.append(offset)
        assert self.owner.frontier.deliver(offset)
        self.owner.last[offset] = None

    @precondition(lambda self: self.owner.last)
    @rule(data=st.data())
    def a_command_goes_on(self, data: st.DataObject) -> None:
        offset = data.draw(st.sampled_from(sorted(self.owner.last)))
        last = self.owner.last[offset]
        self.owner.enter(offset, data.draw(st.sampled_from(ON[None if last is None else last.kind])))

    @precondition(lambda self: None in self.owner.last.values())
    @rule(data=st.data())
    def a_record_ends_without_an_entry(self, data: st.DataObject) -> None:
        offset = data.draw(st.sampled_from(sorted(o for o, last in self.owner.last.items() if last is None)))
        del self.owner.last[offset]
        self.owner.queue.append(Work(None, offset, silent=True))

    @rule()
    def stale_residents_are_written_forward(self) -> None:
        residents = {e.command_id: e for e in self.owner.last.values() if e is not None and e.resident}
        for command_id in self.owner.extent.stale(FAR, 0.0):
            if command_id in residents:  # else its end is queued
                self.owner.queue.append(Work(replace(residents[command_id])))

    @precondition(lambda self: self.owner.queue)
    @rule(data=st.data())
    def a_transaction_is_aborted(self, data: st.DataObject) -> None:
        sent = data.draw(st.integers(0, len(self.owner.prepare()[0])))
        self.broker.log += [None] * (sent + (sent > 0))

    @rule()
    def a_transaction_is_committed(self) -> None:
        owner, broker = self.owner, self.broker
        written, position, mark = owner.prepare()
        assert owner.extent.end <= len(broker.log)
        assert mark <= owner.extent.end
        if not owner.last:
            assert mark == owner.extent.end, "nothing is left that a successor needs"
        broker.log += [*written, None] if written else []
        broker.silent |= {work.finish for work in owner.queue if work.silent and work.finish is not None}
        broker.position, broker.mark = position, mark
        owner.extent.committed(len(written))
        owner.queue.clear()
        self.a_successor_reads_all_it_needs()

    def a_successor_reads_all_it_needs(self) -> None:
        broker = self.broker
        whole = recover((e for _, e in broker.read(0)), broker.position)
        found = recover((e for _, e in broker.read(broker.mark)), broker.position)
        assert (found.open, found.residents, found.finished) == (whole.open, whole.residents, whole.finished)
        assert found.settled.items() <= whole.settled.items()
        residents = {e.offset for e in found.residents}
        for offset in broker.records:
            ended = str(offset) in whole.settled or offset in broker.silent
            assert ended or offset >= broker.position or offset in residents, "lost"

    @rule()
    def the_owner_dies(self) -> None:
        self.owner = Owner(self.broker)

    @rule()
    def everything_ends(self) -> None:
        for offset in list(self.owner.last):
            self.owner.enter(offset, Kind.SETTLED)
        self.a_transaction_is_committed()
        assert self.owner.frontier.unfinished == 0
        assert self.owner.extent.mark(self.owner.frontier.position) == self.owner.extent.end


TestPartition = Partition.TestCase
TestPartition.settings = settings(deadline=None, max_examples=100, stateful_step_count=40)
