"""What becomes of a batch while tickets can't be read; without a broker."""

import time
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest

from adapter.core.avro import Encoder, UnknownFields
from adapter.core.avro.lookup import Decoders
from adapter.core.errors import Unavailable
from adapter.core.journal import Source
from adapter.core.ticket import fold
from adapter.ports import Checkpoint, TicketRecord
from adapter.projector.folding import Folding
from adapter.projector.partition import Partition
from adapter.projector.reader import Reader
from adapter.projector.records import Records
from adapter.telemetry import Metrics
from tests.support.bus import Schemas, Shelf
from tests.support.happenings import POLICY, T0, notified
from tests.support.known import known
from tests.support.plant import Lines

EVENT: Final = known().events["FaultReportUpdated"]
WARNING: Final = known().events["ResolveDeadlineApproaching"]
TICKET: Final = known().tickets["Ticket"]


class Desk:
    """One partition with its store. Schemas of events and those of stored tickets are asked of two registries."""

    def __init__(self) -> None:
        self.events, self.tickets, self.lines = Schemas(), Schemas(), Lines()
        self.event = Encoder(EVENT, self.events.add(EVENT.text))
        encoder = Encoder(TICKET, self.tickets.add(TICKET.text))
        self.records = Records("events", "tickets", encoder, Encoder(WARNING, 2), POLICY, 1024 * 1024)
        self.folding = Folding(
            reader=Reader(Decoders(self.events, [EVENT], UnknownFields.IGNORE), partitions=1),
            tickets=Decoders(self.tickets, [TICKET], UnknownFields.IGNORE),
            records=self.records,
            policy=POLICY,
            log=self.lines,
        )
        self.partition = Partition(0, 1)
        self.partition.store = Shelf()
        self.partition.begin(0, None)

    async def keep_one_that_is_due(self) -> None:
        """SP-1 is Resolved, and its deadline is long past."""
        resolved = fold(None, "SP-1", notified("RESOLVED", datetime.now(UTC) - timedelta(hours=60)), POLICY).ticket
        assert self.partition.store is not None
        await self.partition.store.save([self.records.keep(resolved)[0]], Checkpoint("", 1))

    def deliver(self, *references: str) -> None:
        for offset, reference in enumerate(references):
            told = notified("IN_PROGRESS", T0)
            value = self.event.encode({**told.record, "buyerFaultReference": reference})
            headers = (("ce_id", told.id.encode()),)
            self.partition.deliver(Source(0, offset, time.time(), reference.encode(), value, headers, leader_epoch=3))
        self.partition.reached_end(len(references) + 1, 4)


async def test_events_do_not_wait_for_tickets_that_are_due_and_cannot_be_read() -> None:
    desk = Desk()
    await desk.keep_one_that_is_due()
    desk.tickets.away = True
    desk.deliver("SP-2", "SP-3")
    batch = await desk.folding.fold(desk.partition, timers=True, most=100)
    assert [(record.topic, record.key) for record in sorted(batch.records, key=lambda each: each.key or b"")] == [
        ("tickets", b"SP-2"),
        ("tickets", b"SP-3"),
    ]
    assert (batch.position, batch.leader_epoch) == (3, 4), "behind the last event and the marker of its transaction"
    assert not batch.more, "it is not looked again at once"
    assert len(desk.lines.named("tickets not readable")) == 1

    again = await desk.folding.fold(desk.partition, timers=True, most=100)
    assert not again.records
    assert desk.tickets.refused == 1, "the registry is left alone for a while"

    desk.tickets.away = False
    desk.partition.timers_after = 0.0  # its time has come
    later = await desk.folding.fold(desk.partition, timers=True, most=100)
    assert [(record.topic, record.key) for record in later.records] == [("events", b"SP-1"), ("tickets", b"SP-1")]


async def test_a_deadline_is_logged_once_its_warning_is_committed() -> None:
    desk = Desk()
    await desk.keep_one_that_is_due()
    desk.deliver()
    batch = await desk.folding.fold(desk.partition, timers=True, most=100)
    assert "events" in {record.topic for record in batch.records}
    assert not desk.lines.named("deadline approaches")
    batch.tell(desk.lines, Metrics())
    assert desk.lines.named("deadline approaches") == [{"reference": "SP-1", "partition": 0}]


async def test_events_of_a_ticket_that_cannot_be_read_stay_in_the_queue() -> None:
    desk = Desk()
    await desk.keep_one_that_is_due()
    desk.tickets.away = True
    desk.deliver("SP-2", "SP-1")
    size = desk.partition.size
    with pytest.raises(Unavailable):
        await desk.folding.fold(desk.partition, timers=False, most=100)
    assert [source.offset for source in desk.partition.queue] == [0, 1]
    assert desk.partition.size == size
    assert desk.partition.finished == (0, None), "nothing is folded"

    desk.tickets.away = False
    batch = await desk.folding.fold(desk.partition, timers=False, most=100)
    assert (batch.position, batch.leader_epoch) == (2, 3)
    folded = {key: known.events for key, known in batch.tickets.items() if known is not None}
    assert folded == {b"SP-1": 2, b"SP-2": 1}


async def test_tickets_wait_for_their_schema_that_the_registry_does_not_have() -> None:
    desk = Desk()
    await desk.keep_one_that_is_due()
    schema_id, text = desk.tickets.forget("Ticket")
    desk.partition.reached_end(0, None)
    batch = await desk.folding.fold(desk.partition, timers=True, most=100)
    assert not batch, "nothing is to be written"
    reason = f"the ticket SP-1, unknown-schema: the registry has no schema {schema_id}"
    assert desk.lines.named("tickets not readable") == [{"partition": 0, "reason": reason}]

    desk.deliver("SP-2", "SP-1")
    with pytest.raises(Unavailable, match=reason):
        await desk.folding.fold(desk.partition, timers=False, most=100)
    assert [source.offset for source in desk.partition.queue] == [0, 1]

    desk.tickets.texts[schema_id] = text
    desk.partition.timers_after = 0.0  # its time has come
    batch = await desk.folding.fold(desk.partition, timers=True, most=100)
    folded = {key: known.events for key, known in batch.tickets.items() if known is not None}
    assert folded == {b"SP-1": 2, b"SP-2": 1}


async def test_foreign_bytes_that_are_due_stay_in_the_topic_and_are_looked_at_once() -> None:
    desk = Desk()
    store = Shelf()
    desk.partition.store = store
    store.load([TicketRecord(b"SP-1", b"something else", due=1)])
    desk.partition.reached_end(0, None)
    batch = await desk.folding.fold(desk.partition, timers=True, most=100)
    assert batch, "it is to be committed, so that the store hears of it"
    assert not batch.records
    await store.save(batch.kept, Checkpoint("", 1))
    assert store.rows[b"SP-1"].value == b"something else"

    assert not await desk.folding.fold(desk.partition, timers=True, most=100)
    assert desk.lines.named("ticket not readable") == [{"partition": 0, "reason": "unframed"}]
    desk.deliver("SP-1")
    batch = await desk.folding.fold(desk.partition, timers=False, most=100)
    assert [record.key for record in batch.records] == [b"SP-1"], "an event begins the ticket anew"
