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
    counted: bool = False


@dataclass(slots=True)
class Broker:
    """What outlives every owner: the records of a partition, its committed offset with the mark, the journal."""

    records: dict[int, str] = field(default_factory=dict)
    """Command ids by offset; some come more than once."""
    finished: set[int] = field(default_factory=set)
    """Offsets of those that were, with what is committed."""
    position: int = 0
    mark: int = 0
    log: list[Entry | None] = field(default_factory=list)
    """None: a transaction marker, or a record of a transaction that was aborted."""
    unmarked: bool = False
    """Whether the marker of the last transaction is still to come."""

    def settle(self) -> None:
        if self.unmarked:
            self.log.append(None)
            self.unmarked = False

    def read(self, start: int) -> Iterator[tuple[int, Entry]]:
        """As read_committed sees it."""
        return ((at, e) for at, e in enumerate(self.log) if e is not None and at >= start)


class Owner:
    """One assignment: recovers, steps its commands on, and commits group after group."""

    def __init__(self, broker: Broker) -> None:
        broker.settle()  # nothing is read before that
        self.frontier = Frontier(broker.position)
        self.extent = Extent(len(broker.log))
        self.queue: list[Work] = []
        self.waiting: dict[int, str] = {}
        """Records whose turn has not come, by offset. Those of an id may lie in several lanes."""
        self.last: dict[str, Entry | None] = {}
        """Last entries of the commands whose turn has come."""
        found = list(broker.read(broker.mark))
        known = self.known = recover((e for _, e in found), broker.position)
        for at, e in found:
            unfinished = known.open.get(e.command_id) is e
            self.extent.recovered(at, e, max(broker.records, default=-1) + 1, unfinished=unfinished)
        self.open = dict(known.open)
        self.settled = set(recover((e for _, e in broker.read(0)), 0).settled)
        """It remembers all ends, also those that lie before the mark."""
        self.carrier = {e.command_id: e.offset for e in known.residents}
        """Offsets of the records that were the first of their ids to have a turn."""
        self.repeated: dict[str, int] = {}
        self.last.update({e.command_id: e for e in known.residents})
        for offset, command_id in broker.records.items():
            self.deliver(offset, command_id)

    def deliver(self, offset: int, command_id: str) -> None:
        if self.frontier.deliver(offset):
            if offset in self.known.letters or any(e.offset == offset for e in self.known.residents):
                self.queue.append(Work(None, offset))
            else:
                self.waiting[offset] = command_id

    @property
    def unread(self) -> list[int]:
        """Records that may turn out to be unreadable."""
        return [offset for offset, i in self.waiting.items() if i not in self.open]

    def take(self, offset: int) -> None:
        """The turn of a record comes: it is a command's first, or a repeat."""
        command_id = self.waiting.pop(offset)
        if command_id in self.settled:
            end = Entry(Kind.SETTLED, command_id, offset, b"", at=1.0)
            self.queue.append(Work(None if offset in self.known.finished else end, offset))
        elif command_id in self.last:
            self.repeated[command_id] = max(offset, self.repeated.get(command_id, 0))
            self.queue.append(Work(None, offset))
        else:
            self.carrier[command_id] = offset
            last = self.open.pop(command_id, None)
            if last is not None and last.offset != offset:
                last = replace(last, offset=offset)
                self.queue.append(Work(last))
            self.last[command_id] = last

    def letter(self, offset: int) -> None:
        """The turn of a record comes, and it is unreadable."""
        del self.waiting[offset]
        self.queue.append(Work(Entry(Kind.SETTLED, "", offset, b"", at=1.0), offset))

    def enter(self, command_id: str, kind: Kind) -> None:
        """The next step of a command."""
        before, offset = self.last[command_id], self.carrier[command_id]
        resident = (before is not None and before.resident) or kind in (Kind.HELD, Kind.PARKED)
        source = Source(0, offset, 1.0, b"k", b"v", ()) if resident else None
        seen = max(offset, self.repeated.get(command_id, 0)) if kind is Kind.SETTLED else offset
        entry = Entry(kind, command_id, seen, b"", at=1.0, source=source)
        passes = kind in (Kind.HELD, Kind.PARKED, Kind.SETTLED) and (before is None or not before.resident)
        self.queue.append(Work(entry, offset if passes else None))
        if kind is Kind.SETTLED:
            del self.last[command_id]
            self.settled.add(command_id)
        else:
            self.last[command_id] = entry

    def prepare(self) -> tuple[list[Entry], int, int]:
        """The transaction with all that is queued: its entries, the position, the mark."""
        for work in self.queue:
            if not work.counted:  # an aborted transaction is sent again, the same and more
                work.counted = True
                if work.entry is not None:
                    work.entry = self.extent.known(work.entry, 1.0)
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
        self._deliver(hole, str(len(self.broker.records)))

    @precondition(lambda self: self.broker.records)
    @rule(data=st.data(), times=st.integers(1, 3))
    def a_record_comes_again(self, data: st.DataObject, times: int) -> None:
        command_id = data.draw(st.sampled_from(list(self.broker.records.values())[-3:]))
        for _ in range(times):
            self._deliver(0, command_id)

    def _deliver(self, hole: int, command_id: str) -> None:
        offset = max(self.broker.records, default=-1) + 1 + hole
        self.broker.records[offset] = command_id
        self.owner.deliver(offset, command_id)

    @precondition(lambda self: self.owner.waiting)
    @rule(data=st.data())
    def the_turns_of_records_come(self, data: st.DataObject) -> None:
        for offset in data.draw(st.lists(st.sampled_from(sorted(self.owner.waiting)), min_size=1, unique=True)):
            self.owner.take(offset)

    @precondition(lambda self: self.owner.unread)
    @rule(data=st.data())
    def a_record_is_a_dead_letter(self, data: st.DataObject) -> None:
        self.owner.letter(data.draw(st.sampled_from(self.owner.unread)))

    @precondition(lambda self: self.owner.last)
    @rule(data=st.data())
    def a_command_goes_on(self, data: st.DataObject) -> None:
        command_id = data.draw(st.sampled_from(sorted(self.owner.last)))
        last = self.owner.last[command_id]
        self.owner.enter(command_id, data.draw(st.sampled_from(ON[None if last is None else last.kind])))

    @rule()
    def stale_residents_are_written_forward(self) -> None:
        residents = {i: e for i, e in self.owner.last.items() if e is not None and e.resident}
        for command_id in self.owner.extent.stale(FAR, 0.0):
            if command_id in residents:  # else its end is queued
                self.owner.queue.append(Work(replace(residents[command_id])))

    @precondition(lambda self: self.owner.queue)
    @rule(data=st.data())
    def a_transaction_is_aborted(self, data: st.DataObject) -> None:
        sent = data.draw(st.integers(0, len(self.owner.prepare()[0])))
        self.broker.log += [None] * (sent + (sent > 0))

    @rule(overtakes=st.booleans())
    def a_transaction_is_committed(self, *, overtakes: bool = False) -> None:
        """If it overtakes, its records are there before the marker of the one before."""
        owner, broker = self.owner, self.broker
        if not overtakes:
            broker.settle()
        written, position, mark = owner.prepare()
        assert owner.extent.end <= len(broker.log)
        assert mark <= owner.extent.end
        if not owner.last and not owner.waiting:
            assert mark == owner.extent.end, "nothing is left that a successor needs"
        broker.log += written
        broker.settle()
        broker.unmarked = bool(written)
        broker.finished |= {work.finish for work in owner.queue if work.finish is not None}
        broker.position, broker.mark = position, mark
        owner.extent.committed(len(written))
        owner.queue.clear()
        self.a_successor_reads_all_it_needs()

    def a_successor_reads_all_it_needs(self) -> None:
        broker = self.broker
        whole = recover((e for _, e in broker.read(0)), broker.position)
        found = recover((e for _, e in broker.read(broker.mark)), broker.position)
        assert (found.residents, found.finished, found.letters) == (whole.residents, whole.finished, whole.letters)
        assert found.settled.items() <= whole.settled.items()
        again = {offset: i for offset, i in broker.records.items() if offset >= broker.position}
        assert found.open.keys() & again.values() == whole.open.keys() & again.values()
        passed = {i for offset, i in again.items() if offset in broker.finished - whole.letters.keys()}
        assert found.settled.keys() & passed == whole.settled.keys() & passed
        letters = {broker.records[e.offset] for _, e in broker.read(0) if not e.command_id}
        residents = {e.command_id for e in whole.residents}
        safe = whole.settled.keys() | residents | letters | set(again.values())
        assert safe == set(broker.records.values()), "lost"

    @rule()
    def the_owner_dies(self) -> None:
        self.owner = Owner(self.broker)

    @rule()
    def everything_ends(self) -> None:
        for offset in list(self.owner.waiting):
            self.owner.take(offset)
        for command_id in list(self.owner.last):
            self.owner.enter(command_id, Kind.SETTLED)
        self.a_transaction_is_committed()
        assert self.owner.frontier.oldest is None
        assert self.owner.extent.mark(self.owner.frontier.position) == self.owner.extent.end


TestPartition = Partition.TestCase
TestPartition.settings = settings(deadline=None, max_examples=200, stateful_step_count=40)
