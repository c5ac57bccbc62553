"""The bus in memory: what the flows ask of Kafka and the registry, answered as the real ones do.

A `Bus` outlives every worker: commands, transactions, the journal with its markers, committed offsets. A `Member` is
one worker's connection: it can be told of assignments, lose them, be fenced, be killed with a transaction open.
"""

import asyncio
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final

from adapter.core.avro.lookup import Lookup
from adapter.core.errors import Unavailable
from adapter.core.journal import Source, read_mark
from adapter.ports import (
    Checkpoint,
    Claim,
    FollowedTicket,
    Intake,
    IntakeListener,
    JournalReader,
    JournalTail,
    Outgoing,
    Position,
    Take,
    TicketFeed,
    TicketRecord,
    TicketStore,
    TicketStores,
    Transactor,
)

EVENTS: Final = "events"
DEAD_LETTERS: Final = "dead-letters"
QUARANTINE: Final = "quarantine"
JOURNAL: Final = "journal"
IDENTITY: Final = "cluster/topic"
"""Of the journal."""
_REIGN: Final = 3
"""Commands of one leader epoch."""


@dataclass(frozen=True, slots=True)
class Transaction:
    records: tuple[Outgoing, ...]
    positions: tuple[Position, ...]

    def to(self, topic: str) -> list[Outgoing]:
        return [record for record in self.records if record.topic == topic]


@dataclass(frozen=True, slots=True)
class Membership:
    """What the broker looks at: the generation, and what its taker owned."""

    generation: int
    partitions: frozenset[int]


class Bus:
    """Topics, committed offsets, and the generation of the group."""

    def __init__(self, partitions: int = 1) -> None:
        self.commands: dict[int, list[Source]] = {number: [] for number in range(partitions)}
        self.journal: dict[int, list[bytes | None]] = {number: [] for number in range(partitions)}
        """By offset; None is a marker, or a record of an aborted transaction."""
        self.committed: dict[int, Position] = {}
        self.transactions: list[Transaction] = []
        self.generation = 0
        self.largest = 10**9
        """Bytes of the largest record that is taken."""
        self.tickets: dict[int, list[FollowedTicket]] = {number: [] for number in range(partitions)}
        self.written = 0
        """Tickets written, ever: the offset of the next, less one."""
        self.tickets_away = False
        """Nobody can read the tickets."""
        self.grown = asyncio.Condition()
        """Told when the tickets have."""
        self._members: list[Member] = []
        self._decided = asyncio.Event()

    def member(self) -> "Member":
        member = Member(self)
        self._members.append(member)
        self.rebalanced()
        return member

    def put(self, key: bytes | None, value: bytes | None, *, partition: int = 0, gap: int = 0, at: float = 1.0) -> int:
        """A record of the commands topic; its offset, `gap` behind the next one."""
        log = self.commands[partition]
        offset = (log[-1].offset + 1 if log else 0) + gap
        log.append(Source(partition, offset, at, key, value, (), leader_epoch=offset // _REIGN))
        for member in self._members:
            member.wake()
        return offset

    def rebalanced(self) -> None:
        """A new generation: memberships taken before are refused, those of expelled members for ever."""
        self.generation += 1
        for member in self._members:
            if not member.expelled:
                member.generation = self.generation

    def make_tickets_anew(self) -> None:
        """The topic was deleted and created again: its offsets begin anew."""
        for log in self.tickets.values():
            log.clear()
        self.written = 0

    def to(self, topic: str) -> list[Outgoing]:
        """What a read_committed reader of that topic has seen, in order."""
        return [record for transaction in self.transactions for record in transaction.to(topic)]

    def abort(self, transaction: Transaction, written: int | None = None) -> None:
        """The first `written` records lie in the log for ever, and nobody sees them."""
        partitions = [record.partition for record in transaction.to(JOURNAL)][:written]
        self._mark(partitions, [None] * len(partitions))

    def commit(self, transaction: Transaction) -> None:
        for position in transaction.positions:
            before = self.committed.get(position.partition)
            assert before is None or before.offset <= position.offset, "an offset went back"
            assert len(position.metadata) < 4096
            assert position.leader_epoch == self.leader_epoch(position.partition, position.offset)
            self.committed[position.partition] = position
        entries = transaction.to(JOURNAL)
        fenced = {position.partition for position in transaction.positions}
        assert {entry.partition for entry in entries} <= fenced, "an entry without an offset of its partition"
        self._mark([entry.partition for entry in entries], [entry.value for entry in entries])
        self.transactions.append(transaction)

    def leader_epoch(self, partition: int, offset: int) -> int | None:
        """That of the last command before the offset."""
        return next((c.leader_epoch for c in reversed(self.commands[partition]) if c.offset < offset), None)

    def entries(self, partition: int, start: int) -> list[tuple[int, bytes]]:
        return [(at, v) for at, v in enumerate(self.journal[partition]) if v is not None and at >= start]

    async def tail(self, partition: int) -> JournalTail:
        """As a new owner reads it, which waits for transactions that are open."""
        while any(member.touches(partition) for member in self._members):
            self._decided.clear()
            await self._decided.wait()
        position = self.committed.get(partition)
        mark = None if position is None else read_mark(position.metadata, IDENTITY)
        commands = self.commands[partition]
        first, end = (commands[0].offset, commands[-1].offset + 1) if commands else (0, 0)
        start = 0 if mark is None else mark.memory
        return JournalTail(
            first if position is None else position.offset,
            self.entries(partition, start),
            len(self.journal[partition]),
            commands_end=end,
            leader_epoch=None if position is None else position.leader_epoch,
        )

    def decided(self) -> None:
        self._decided.set()

    def _mark(self, partitions: Sequence[int | None], values: Iterable[bytes | None]) -> None:
        for partition, value in zip(partitions, values, strict=True):
            assert partition is not None, "an entry lies beside its command"
            self.journal[partition].append(value)
        for partition in {p for p in partitions if p is not None}:
            self.journal[partition].append(None)


class Member(Intake, Transactor, JournalReader):
    """One worker's connection. A dead one answers nobody any more."""

    def __init__(self, bus: Bus) -> None:
        self.generation = 0
        self.expelled = False
        self.dead = False
        self.batch = 500
        """Records delivered at once."""
        self.refusals = 0
        """So many of the next transactions are aborted, though nothing is lost."""
        self.capacity: float = inf
        """Transactions of more records than that are aborted."""
        self.attempts: list[Transaction] = []
        """Transactions that were asked for, committed or not."""
        self.owned: dict[int, int] = {}
        self.paused: set[int] = set()
        self.told_held = 0
        """Records that are under way, as far as it was told."""
        self.next: dict[int, int] = {}
        """Offsets to deliver next, of partitions that were started."""
        self._bus = bus
        self._listener: IntakeListener | None = None
        self._epoch = 0
        self._open: Transaction | None = None
        self._free = asyncio.Event()
        self._free.set()

    # -- what a test does with it ------------------------------------------------------------------------------------

    def listened(self, listener: IntakeListener) -> Intake:
        self._listener = listener
        return self

    def assign(self, *partitions: int) -> None:
        new = {}
        for partition in partitions:
            self._epoch += 1
            self.owned[partition] = new[partition] = self._epoch
        self._bus.rebalanced()
        self._told.assigned(new)

    async def revoke(self, *partitions: int) -> None:
        await self._told.revoked(partitions)
        self._forget(partitions)
        self._bus.rebalanced()

    def lose(self, *partitions: int) -> None:
        self._forget(partitions)
        self._bus.rebalanced()
        self._told.lost(partitions)

    def expel(self) -> None:
        """The group goes on without it, which it does not know yet."""
        self.expelled = True
        self._bus.rebalanced()

    def hold(self) -> None:
        """Transactions stay open until `release`."""
        self._free.clear()

    def release(self) -> None:
        self._free.set()

    @property
    def open_transaction(self) -> Transaction | None:
        return self._open

    def kill(self, *, committed: bool = False) -> None:
        """Gone at once. A transaction under way was `committed` in the same moment, or is aborted by the broker."""
        self.dead = self.expelled = True
        if self._open is not None:
            if committed:
                self._bus.commit(self._open)
            else:
                self._bus.abort(self._open)
            self._open = None
        self._bus.rebalanced()
        self._bus.decided()

    def touches(self, partition: int) -> bool:
        """Whether an open transaction hides what is to be known of that partition."""
        return self._open is not None and any(p.partition == partition for p in self._open.positions)

    # -- intake ------------------------------------------------------------------------------------------------------

    @property
    def left_out(self) -> str:
        return ""

    def open(self) -> None:
        """Assignments are the test's to give."""

    async def close(self) -> None:
        if self.owned and not self.dead:
            await self.revoke(*self.owned)

    def membership(self, epochs: Collection[tuple[int, int]]) -> Membership | None:
        if not set(epochs) <= self.owned.items():
            return None
        return Membership(self.generation, frozenset(self.owned))

    def start(self, partition: int, epoch: int, offset: int, leader_epoch: int | None) -> None:
        if self.owned.get(partition) == epoch:
            assert leader_epoch == self._bus.leader_epoch(partition, offset)
            self.next[partition] = offset
            self.wake()

    def pause(self, partition: int, epoch: int) -> None:
        if self.owned.get(partition) == epoch:
            self.paused.add(partition)

    def resume(self, partition: int, epoch: int) -> None:
        if self.owned.get(partition) == epoch:
            self.paused.discard(partition)
            self.wake()

    def held(self, records: int) -> None:
        self.told_held = records

    def wake(self) -> None:
        asyncio.get_running_loop().call_soon(self._deliver)

    def _deliver(self) -> None:
        records: list[tuple[int, Source]] = []
        for partition, offset in self.next.items():
            if partition not in self.paused and not self.dead:
                fresh = [source for source in self._bus.commands[partition] if source.offset >= offset]
                records += [(self.owned[partition], source) for source in fresh[: self.batch - len(records)]]
        for _, source in records:
            self.next[source.partition] = source.offset + 1
        if records:
            self._told.delivered(records)
            self.wake()

    def _forget(self, partitions: Iterable[int]) -> None:
        for partition in partitions:
            self.owned.pop(partition, None)
            self.next.pop(partition, None)
            self.paused.discard(partition)

    # -- transactions and journal ------------------------------------------------------------------------------------

    async def commit(self, records: Sequence[Outgoing], positions: Sequence[Position], claim: Claim) -> bool:
        await self._alive()
        membership = claim()
        if membership is None:
            return False
        assert isinstance(membership, Membership)
        assert {p.partition for p in positions} <= membership.partitions, "an offset of a partition that is not owned"
        assert positions, "a transaction without an offset is not fenced"
        assert self._open is None, "one transaction at a time"
        transaction = self._open = Transaction(tuple(records), tuple(positions))
        self.attempts.append(transaction)
        await asyncio.sleep(0)
        await self._free.wait()
        await self._alive()
        self._open = None
        self._bus.decided()
        too_large = any(len(record.value or b"") > self._bus.largest for record in records)
        too_large = too_large or len(records) > self.capacity
        if self.refusals or membership.generation != self._bus.generation or too_large:
            self.refusals = max(0, self.refusals - 1)
            self._bus.abort(transaction, len(self.attempts) % (len(records) + 1))
            return False
        self._bus.commit(transaction)
        return True

    async def tail(self, partition: int) -> JournalTail:
        await self._alive()
        return await self._bus.tail(partition)

    async def _alive(self) -> None:
        if self.dead:
            await asyncio.get_running_loop().create_future()

    @property
    def _told(self) -> IntakeListener:
        assert self._listener is not None, "a worker listens before it is assigned anything"
        return self._listener


class Feed(TicketFeed):
    """One worker's reading of the tickets."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._following: dict[int, asyncio.Task[None]] = {}
        self.asked: list[tuple[int, int]] = []
        """(partition, start) of what was followed, ever."""

    @property
    def followed(self) -> set[int]:
        return set(self._following)

    async def identity(self) -> str:
        return "tickets"

    def follow(self, partition: int, start: int, take: Take) -> None:
        self.leave(partition)
        self.asked.append((partition, start))
        self._following[partition] = asyncio.ensure_future(self._follow(partition, start, take))

    def leave(self, partition: int) -> None:
        if (task := self._following.pop(partition, None)) is not None:
            task.cancel()

    async def fetch(self, partition: int, offset: int) -> FollowedTicket | None:
        if self._bus.tickets_away:
            raise Unavailable("no answer")
        return next((each for each in self._bus.tickets[partition] if each.offset == offset), None)

    async def close(self) -> None:
        for partition in self.followed:
            self.leave(partition)

    async def _follow(self, partition: int, start: int, take: Take) -> None:
        log, at, ended = self._bus.tickets[partition], start, False
        while True:
            at = at if at <= self._bus.written + 1 else 0  # out of range
            some = [each for each in log if each.offset >= at][:2]
            if self._bus.tickets_away or (ended and not some):
                async with self._bus.grown:
                    await self._bus.grown.wait()
                continue
            at = some[-1].offset + 1 if some else at
            ended = not any(each.offset >= at for each in log)
            await take(some, at, ended)


class Shelf(TicketStore):
    """A store in memory."""

    def __init__(self) -> None:
        self._checkpoint: Checkpoint | None = None
        self.rows: dict[bytes, TicketRecord] = {}

    @property
    def checkpoint(self) -> Checkpoint | None:
        return self._checkpoint

    def load(self, tickets: Sequence[TicketRecord]) -> None:
        for each in tickets:
            self.rows[each.key] = each
            if each.value is None:
                del self.rows[each.key]

    async def clear(self) -> None:
        self.rows.clear()
        self._checkpoint = None

    async def count(self) -> int:
        return len(self.rows)

    async def find(self, keys: Collection[bytes]) -> Mapping[bytes, bytes]:
        await asyncio.sleep(0)
        return {key: self.rows[key].value or b"" for key in keys if key in self.rows}

    async def due(self, until: int, limit: int) -> Sequence[TicketRecord]:
        found = [each for each in self.rows.values() if each.due is not None and each.due <= until]
        return sorted(found, key=lambda each: each.due or 0)[:limit]

    async def save(self, tickets: Sequence[TicketRecord], checkpoint: Checkpoint) -> None:
        await asyncio.sleep(0)
        self.load(tickets)
        self._checkpoint = checkpoint

    async def close(self) -> None: ...


class Shelves(TicketStores):
    def __init__(self) -> None:
        self.opened: list[int] = []
        self.stores: dict[int, Shelf] = {}

    async def open(self, partition: int, identity: str) -> Shelf:  # noqa: ARG002 -- the protocol's
        self.opened.append(partition)
        return self.stores.setdefault(partition, Shelf())


@dataclass(slots=True)
class Schemas(Lookup):
    """A registry that may be `away`."""

    texts: dict[int, str] = field(default_factory=dict)
    away: bool = False
    refused: int = 0
    """Questions while it was."""

    def add(self, text: str) -> int:
        """The schema's id."""
        self.texts[len(self.texts) + 1] = text
        return len(self.texts)

    def forget(self, name: str) -> tuple[int, str]:
        """Id and text of the schema of that record, which is no longer there."""
        identifier = next(number for number, text in self.texts.items() if json.loads(text)["name"] == name)
        return identifier, self.texts.pop(identifier)

    async def schema(self, identifier: int) -> str | None:
        self._answering()
        return self.texts.get(identifier)

    def _answering(self) -> None:
        if self.away:
            self.refused += 1
            raise Unavailable("the registry does not answer")
