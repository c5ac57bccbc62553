"""The flow before a bus in memory: partitions that can't go on, transactions that fail."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from math import inf
from typing import Final

import pytest

from adapter.core.avro import Encoder, UnknownFields
from adapter.core.avro.lookup import Decoders
from adapter.core.errors import Unavailable
from adapter.core.journal import Source
from adapter.core.partition import partition_of
from adapter.core.ticket import fold
from adapter.ports import Standing, TicketLog, TicketRecord
from adapter.projector import report
from adapter.projector.flow import Projector, Wiring
from adapter.projector.folding import Folding
from adapter.projector.reader import Reader
from adapter.projector.records import Records
from adapter.telemetry import Metrics
from tests.support.bus import Bus, Member, Schemas, Shelves
from tests.support.happenings import POLICY, T0, notified
from tests.support.known import known
from tests.support.measured import measured
from tests.support.plant import Lines
from tests.support.wait import PATIENCE, eventually

EVENT: Final = known().events["FaultReportUpdated"]
WARNING: Final = known().events["ResolveDeadlineApproaching"]
TICKET: Final = known().tickets["Ticket"]
MORE_THAN_WAIT: Final = 6000
"""Events, against those that may wait in memory."""


class Tickets(TicketLog):
    """The tickets topic: in each partition there is this one."""

    def __init__(self, *kept: TicketRecord) -> None:
        self._kept = kept
        self.undecided = False
        """A transaction keeps back where the partitions stand."""
        self.asked: set[int] = set()
        """Partitions that somebody has asked for."""

    async def identity(self) -> str:
        return "cluster/topics/group"

    async def standing(self, partition: int, going: Callable[[], bool]) -> Standing:
        self.asked.add(partition)
        while self.undecided:
            if not going():
                raise Unavailable("stopping")
            await asyncio.sleep(0.01)
        return Standing(position=0, transaction="", first=0, last=len(self._kept))

    async def read(
        self,
        partition: int,
        start: int,
        end: int,
        take: Callable[[Sequence[TicketRecord]], None],
        going: Callable[[], bool],  # noqa: ARG002 -- the protocol's
    ) -> None:
        take([kept for kept in self._kept[start:end] if partition_of(kept.key, 2) == partition])


class Stage:
    """A bus with two partitions of events; no more than one projector works on it."""

    def __init__(self) -> None:
        self.bus, self.registry, self.lines = Bus(2), Schemas(), Lines()
        self._event = Encoder(EVENT, self.registry.add(EVENT.text))
        self._former, self._records = self._writer(), self._writer()
        self._count = 0

    def _writer(self) -> Records:
        """That writes tickets with a schema of its own id."""
        ticket = Encoder(TICKET, self.registry.add(TICKET.text))
        return Records("events", "tickets", ticket, Encoder(WARNING, 99), POLICY, 1024 * 1024)

    def kept(self, reference: str) -> TicketRecord:
        """A ticket as it was written before; its schema is the first that the registry forgets."""
        return self._former.keep(fold(None, reference, notified("ACCEPTED", T0), POLICY).ticket)[0]

    def write(self, reference: str, events: int = 1, *, length: int = 0) -> None:
        """So many of that ticket, each at least of that length."""
        key, told = reference.encode(), notified("IN_PROGRESS", T0, faultDetails={"description": "x" * length})
        value = self._event.encode({**told.record, "buyerFaultReference": reference})
        partition = partition_of(key, 2)
        log = self.bus.commands[partition]
        for _ in range(events):
            self._count += 1
            headers = (("ce_id", b"%d" % self._count),)
            log.append(Source(partition, len(log), time.time(), key, value, headers))

    async def tickets(self) -> dict[str, int]:
        """How many events each ticket has counted."""
        decoders = Decoders(self.registry, [TICKET], UnknownFields.IGNORE)
        written = {record.key: record.value for record in self.bus.to("tickets")}
        records = [(await decoders.decode(value)).record for value in written.values()]
        return {record["buyerFaultReference"]: record["events"] for record in records}

    def has_folded(self, reference: str, events: int) -> bool:
        """Whether so many of that ticket's partition are, and no more."""
        found = self.bus.committed.get(partition_of(reference.encode(), 2))
        return events == (0 if found is None else found.offset)

    @asynccontextmanager
    async def projector(self, tickets: Tickets) -> AsyncIterator[tuple[Projector, Member]]:
        member = self.bus.member()
        flow = Projector(
            Wiring(
                intake=member.listened,
                transactor=member,
                tickets=tickets,
                stores=Shelves(),
                folding=Folding(
                    reader=Reader(Decoders(self.registry, [EVENT], UnknownFields.IGNORE), partitions=2),
                    tickets=Decoders(self.registry, [TICKET], UnknownFields.IGNORE),
                    records=self._records,
                    policy=POLICY,
                    log=self.lines,
                ),
                revoke_limit=1.0,
                observe=lambda _seconds, _records: None,
                log=self.lines,
                metrics=Metrics(),
            )
        )
        running = asyncio.ensure_future(flow.run())
        try:
            yield flow, member
        finally:
            await flow.close()
            running.cancel()
            await asyncio.wait([running])


def ticket(partition: int) -> str:
    """One that belongs there."""
    return next(name for name in map("SP-{}".format, range(20)) if partition_of(name.encode(), 2) == partition)


async def test_a_partition_whose_events_cannot_be_folded_does_not_keep_others_back() -> None:
    stage, stuck, sound = Stage(), ticket(0), ticket(1)
    identifier, text = stage.registry.forget("Ticket")
    stage.write(stuck, MORE_THAN_WAIT)
    async with stage.projector(Tickets(stage.kept(stuck))) as (flow, member):
        member.assign(0, 1)
        await eventually(lambda: flow.partitions[0].paused, what="events that wait")
        for number in range(1, 4):
            stage.write(sound)
            member.wake()
            await eventually(partial(stage.has_folded, sound, number), what=f"event {number} folded")
        assert stage.has_folded(stuck, 0)
        stage.registry.texts[identifier] = text
        await eventually(partial(stage.has_folded, stuck, MORE_THAN_WAIT), within=60, what="all events folded")


@pytest.mark.parametrize(("events", "length"), [(MORE_THAN_WAIT, 0), (600, 100_000)])
async def test_a_partition_is_paused_while_too_much_of_it_waits(events: int, length: int) -> None:
    """Too many events, or too many bytes."""
    stage, name = Stage(), ticket(0)
    async with stage.projector(Tickets()) as (flow, member):
        member.batch = 100
        member.hold()
        member.assign(0, 1)
        await eventually(lambda: all(p.started for p in flow.partitions.values()), what="the start")
        stage.write(name, events, length=length)
        member.wake()
        await eventually(lambda: member.paused, what="a pause")
        assert member.paused == {0}, "not where nothing waits"
        assert member.next[0] < events
        assert member.told_held == len(flow.partitions[0].queue) > events // 2
        member.release()
        await eventually(partial(stage.has_folded, name, events), what="all events folded")
        assert not member.paused
    assert await stage.tickets() == {name: events}


async def test_a_partition_is_given_back_though_a_transaction_keeps_back_where_it_stands() -> None:
    """All members of the group wait until it is."""
    stage, tickets = Stage(), Tickets()
    async with stage.projector(tickets) as (flow, member):
        tickets.undecided = True
        member.assign(0, 1)
        await eventually(lambda: tickets.asked == {0, 1}, what="both being taken over")
        async with asyncio.timeout(PATIENCE):
            await member.revoke(0)
        assert [*flow.partitions] == [1]


async def test_what_comes_late_of_an_assignment_that_was_lost_is_passed_over() -> None:
    stage, name = Stage(), ticket(1)
    stage.write(name, 2)
    async with stage.projector(Tickets()) as (flow, member):
        member.assign(1)
        await eventually(partial(stage.has_folded, name, 2), what="events folded")
        before = flow.partitions[1].epoch
        member.lose(1)
        assert not flow.partitions
        stage.write(name, 3)
        flow.delivered([(before, stage.bus.commands[1][2])])
        flow.at_end(1, before, 7, None)
        member.assign(1)
        flow.delivered([(before, stage.bus.commands[1][4])])
        await eventually(partial(stage.has_folded, name, 5), what="all events folded")
        flow.at_end(1, before, 7, None)
        stage.write(name)
        member.wake()
        await eventually(partial(stage.has_folded, name, 6), what="the last one folded")
    assert await stage.tickets() == {name: 6}


async def test_gauges_and_status_tell_of_each_partition_how_far_it_is() -> None:
    stage, stuck, sound, metrics = Stage(), ticket(0), ticket(1), Metrics()
    stage.registry.forget("Ticket")
    stage.write(stuck, 3)
    stage.write(sound, 2)
    tickets = Tickets(stage.kept(stuck))
    async with stage.projector(tickets) as (flow, member):
        report.watch(flow, metrics)
        tickets.undecided = True
        member.assign(0, 1)
        await eventually(lambda: tickets.asked == {0, 1}, what="both being taken over")
        assert measured(metrics, "partitions_starting", flow="projector") == 2
        tickets.undecided = False
        await eventually(partial(stage.has_folded, sound, 2), what="events folded")
        await eventually(lambda: flow.partitions[0].paused, what="events that wait")
        assert measured(metrics, "partitions", flow="projector") == 2
        assert measured(metrics, "partitions_starting", flow="projector") == 0
        assert [measured(metrics, "tickets", partition=number) for number in "01"] == [1, 1]
        behind = [measured(metrics, "tickets_behind_seconds", partition=number) for number in "01"]
        assert behind[0] > behind[1] == 0
        waits, goes = report.status(flow)["tickets"]
    assert waits.pop("behind_seconds") >= 0
    told = {"partition": 0, "started": True, "position": 0, "tickets": 1, "waiting": 3, "paused": True}
    assert waits == told
    told |= {"partition": 1, "position": 2, "waiting": 0, "paused": False}
    assert goes == told | {"behind_seconds": 0}


async def test_what_is_too_much_for_the_cluster_at_once_is_folded_in_smaller_parts_until_all_is_taken_again() -> None:
    stage, names = Stage(), [f"SP-{number}" for number in range(100)]
    for name in names * 2:
        stage.write(name)
    parts = {partition: len(log) for partition, log in stage.bus.commands.items()}

    def folded() -> bool:
        return {partition: position.offset for partition, position in stage.bus.committed.items()} == parts

    async with stage.projector(Tickets()) as (_, member):
        member.capacity = 10
        member.assign(0, 1)
        await eventually(folded, what="all events folded")
        assert await stage.tickets() == dict.fromkeys(names, 2)

        member.capacity = inf
        stage.bus.transactions.clear()
        for name in names * 10:
            stage.write(name)
        parts = {partition: len(log) for partition, log in stage.bus.commands.items()}
        member.wake()
        await eventually(folded, what="all events folded")
        assert await stage.tickets() == dict.fromkeys(names, 12)
    assert max(len(transaction.records) for transaction in stage.bus.transactions) > 50


async def test_a_cluster_that_takes_one_ticket_at_a_time_gets_those_of_all_partitions() -> None:
    stage = Stage()
    for name in (names := [ticket(0), ticket(1)]):
        stage.write(name, 3)
    async with stage.projector(Tickets()) as (_, member):
        member.capacity = 1
        member.assign(0, 1)
        for name in names:
            await eventually(partial(stage.has_folded, name, 3), what="all events folded")
    assert await stage.tickets() == dict.fromkeys(names, 3)
