"""What the worker knows of tickets, question by question, over a feed and a store in memory."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final

import pytest

from adapter.core.avro import UnknownFields
from adapter.core.avro.lookup import Decoders
from adapter.core.errors import Stop, Unavailable
from adapter.core.ticket import Origin, Ticket
from adapter.ports import Checkpoint, FollowedTicket, TicketRecord
from adapter.worker.tickets import Tickets
from tests.support.bus import Bus, Feed, Schemas, Shelf, Shelves
from tests.support.known import known
from tests.support.plant import Lines, Plant
from tests.support.wait import PATIENCE

NOW: Final = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


def ticket(theirs: str | None = "CF-1") -> Ticket:
    return Ticket("T-1", Origin.BUYER, NOW, NOW, maintainer_reference=theirs)


class Desk:
    """Tickets as a worker has them, on a disk that may be that of another worker before it."""

    def __init__(self, plant: Plant, shelves: Shelves, feed: Feed) -> None:
        self.feed = feed
        self.shelves = shelves
        self.lines = Lines()
        self.failures: list[Exception] = []
        self.tickets = Tickets(
            feed=self.feed,
            stores=shelves,
            decoders=Decoders(plant.registry, tuple(known().tickets.values()), UnknownFields.IGNORE),
            partitions=len(plant.bus.tickets),
            linger=30.0,
            failed=self.failures.append,
            log=self.lines,
        )


@asynccontextmanager
async def desk(plant: Plant, shelves: Shelves | None = None, feed: Feed | None = None) -> AsyncIterator[Desk]:
    opened = Desk(plant, shelves or Shelves(), feed or Feed(plant.bus))
    try:
        yield opened
    finally:
        await opened.tickets.close()


async def test_a_ticket_is_as_its_newest_record_says(plant: Plant) -> None:
    async with desk(plant) as ours:
        assert await ours.tickets.ticket(b"T-1") is None
        assert await ours.tickets.reference(b"T-1") is None
        for theirs in (None, "CF-1", "CF-2"):
            await plant.tell(ticket(theirs))
        await plant.until(lambda: _kept(ours) == 3)
        assert await ours.tickets.ticket(b"T-1") == ticket("CF-2")
        assert await ours.tickets.reference(b"T-1") == "CF-2"


def _kept(ours: Desk) -> int:
    """Up to where what was told is kept."""
    return max((store.checkpoint.tickets for store in ours.shelves.stores.values() if store.checkpoint), default=0) - 1


async def test_a_ticket_that_was_forgotten_is_none(plant: Plant) -> None:
    await plant.tell(ticket())
    await plant.tell(None, key=b"T-1")
    async with desk(plant) as ours:
        assert await ours.tickets.ticket(b"T-1") is None
        assert await ours.tickets.reference(b"T-1") is None


async def test_who_watches_hears_the_ticket_as_it_is_and_every_later_state(plant: Plant) -> None:
    await plant.tell(ticket(None))
    async with desk(plant) as ours:
        with ours.tickets.watch(b"T-1") as one, ours.tickets.watch(b"T-1") as other:
            assert await one.changed() == ticket(None)
            await plant.tell(ticket("CF-1"))
            assert await one.changed() == ticket("CF-1")
            assert await other.changed() == ticket("CF-1"), "only the newest counts"
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await one.changed()


async def test_a_ticket_that_is_kept_from_before_is_told_to_who_watches(plant: Plant) -> None:
    shelves = Shelves()
    await plant.tell(ticket())
    async with desk(plant, shelves) as before:
        await before.tickets.reference(b"T-1")
    async with desk(plant, shelves) as ours:
        with ours.tickets.watch(b"T-1") as watch:
            assert await watch.changed() == ticket()
        assert [start for _, start in ours.feed.asked] == [2], "from where the other has left"


class Late(Feed):
    """Its fetches take until they are let go."""

    def __init__(self, bus: Bus) -> None:
        super().__init__(bus)
        self.asking = asyncio.Event()
        self.go = asyncio.Event()

    async def fetch(self, partition: int, offset: int) -> FollowedTicket | None:
        found = await super().fetch(partition, offset)
        self.asking.set()
        await self.go.wait()
        return found


async def test_a_record_that_is_fetched_late_does_not_hide_a_newer_one(plant: Plant) -> None:
    shelves = Shelves()
    await plant.tell(ticket("CF-1"))
    async with desk(plant, shelves) as before:
        await before.tickets.reference(b"T-1")
    late = Late(plant.bus)
    async with desk(plant, shelves, late) as ours:
        with ours.tickets.watch(b"T-1") as watch:
            await late.asking.wait()
            await plant.tell(ticket("CF-2"))
            assert await watch.changed() == ticket("CF-2")
            late.go.set()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await watch.changed()


async def test_who_watches_hears_a_ticket_of_a_topic_that_was_made_anew(plant: Plant) -> None:
    for theirs in (None, "CF-1", "CF-2"):
        await plant.tell(ticket(theirs))
    async with desk(plant) as ours:
        with ours.tickets.watch(b"T-1") as watch:
            assert await watch.changed() == ticket("CF-2")
            plant.bus.make_tickets_anew()
            for theirs in ("CF-3", "CF-4"):
                await plant.tell(ticket(theirs))
                async with asyncio.timeout(PATIENCE):
                    assert await watch.changed() == ticket(theirs)
        assert await ours.tickets.reference(b"T-1") == "CF-4"


async def test_the_registry_may_be_away_when_a_ticket_tells(plant: Plant) -> None:
    await plant.tell(ticket("CF-1"))
    async with desk(plant) as ours:
        plant.registry.away = True
        with ours.tickets.watch(b"T-1") as watch:
            hearing = asyncio.ensure_future(watch.changed())
            await plant.until(lambda: ours.lines.named("registry not available"))
            await plant.tell(ticket("CF-2"))
            plant.registry.away = False
            assert await hearing == ticket("CF-2")


class Slow(Schemas):
    """Its answers take until they are let go."""

    def __init__(self, texts: dict[int, str]) -> None:
        super().__init__(texts)
        self.asked = asyncio.Event()
        self.go = asyncio.Event()

    async def schema(self, identifier: int) -> str | None:
        self.asked.set()
        await self.go.wait()
        return await super().schema(identifier)


async def test_what_comes_while_a_ticket_is_decoded_is_told_after_it(plant: Plant) -> None:
    plant.registry = slow = Slow(plant.registry.texts)
    await plant.tell(ticket("CF-1"))
    async with desk(plant) as ours:
        with ours.tickets.watch(b"T-1") as watch:
            hearing = asyncio.ensure_future(watch.changed())
            await slow.asked.wait()
            await plant.tell(ticket("CF-2"))
            await plant.until(lambda: _kept(ours) == 2)
            slow.go.set()
            assert await hearing == ticket("CF-1")
            async with asyncio.timeout(PATIENCE):
                assert await watch.changed() == ticket("CF-2")


async def test_bytes_that_are_no_ticket_tell_nothing(plant: Plant) -> None:
    async with desk(plant) as ours:
        with ours.tickets.watch(b"T-1") as watch:
            hearing = asyncio.ensure_future(watch.changed())
            await plant.tell(ticket(), value=b"\1")
            await plant.until(lambda: ours.lines.named("ticket not readable"))
            await plant.tell(ticket())
            assert await hearing == ticket()


async def test_a_topic_that_cannot_be_identified_yet_is_asked_again(plant: Plant) -> None:
    class Away(Feed):
        answers = [Unavailable("no answer")]

        async def identity(self) -> str:
            if self.answers:
                raise self.answers.pop()
            return await super().identity()

    await plant.tell(ticket())
    async with desk(plant, feed=Away(plant.bus)) as ours:
        assert await ours.tickets.reference(b"T-1") == "CF-1"
        assert ours.lines.named("tickets not readable")


class SickShelf(Shelf):
    """A store on a disk that takes nothing while it is `full`."""

    full = True

    async def save(self, tickets: Sequence[TicketRecord], checkpoint: Checkpoint) -> None:
        if self.full:
            raise Unavailable("ADAPTER_WORKER__STORE: the disk is full")
        await super().save(tickets, checkpoint)

    async def find(self, keys: Collection[bytes]) -> Mapping[bytes, bytes]:
        if self.full:
            raise Unavailable("ADAPTER_WORKER__STORE: the disk is full")
        return await super().find(keys)


class SickShelves(Shelves):
    """Of several partitions one store, and none while it is full."""

    def __init__(self) -> None:
        super().__init__()
        self.shelf = SickShelf()

    async def open(self, partition: int, identity: str) -> Shelf:  # noqa: ARG002 -- the protocol's
        if self.shelf.full:
            raise Unavailable("ADAPTER_WORKER__STORE: the disk is full")
        return self.shelf


async def test_a_disk_that_is_full_from_the_beginning_is_tried_again_until_it_has_room(plant: Plant) -> None:
    shelves = SickShelves()
    await plant.tell(ticket())
    async with desk(plant, shelves) as ours:
        asking = asyncio.ensure_future(ours.tickets.reference(b"T-1"))
        await plant.until(lambda: ours.lines.named("tickets not readable"))
        shelves.shelf.full = False
        assert await asking == "CF-1"
        assert not ours.failures


async def test_while_the_disk_is_full_who_watches_hears_a_ticket_and_who_asks_waits_for_the_newest(
    plant: Plant,
) -> None:
    shelves = SickShelves()
    shelves.shelf.full = False
    await plant.tell(ticket(None))
    async with desk(plant, shelves) as ours:
        assert await ours.tickets.reference(b"T-1") is None
        shelves.shelf.full = True
        with ours.tickets.watch(b"T-1") as watch:
            await plant.tell(ticket())
            async with asyncio.timeout(PATIENCE):
                while await watch.changed() != ticket():
                    pass
        asking = asyncio.ensure_future(ours.tickets.reference(b"T-1"))
        await plant.until(lambda: len(ours.lines.named("tickets not readable")) > 1)
        assert not asking.done()
        shelves.shelf.full = False
        assert await asking == "CF-1"
        assert not ours.failures


async def test_a_worker_can_leave_while_the_disk_is_full(plant: Plant) -> None:
    shelves = SickShelves()
    shelves.shelf.full = False
    await plant.tell(ticket(None))
    async with desk(plant, shelves) as ours:
        assert await ours.tickets.reference(b"T-1") is None
        shelves.shelf.full = True
        await plant.tell(ticket())
        await plant.until(lambda: ours.lines.named("tickets not readable"))
    assert not ours.failures


async def test_a_store_that_is_damaged_ends_the_worker(plant: Plant) -> None:
    class Damaged(Shelf):
        async def save(self, tickets: object, checkpoint: Checkpoint) -> None:  # noqa: ARG002 -- the protocol's
            raise Stop("it is damaged; start again")

    class DamagedShelves(Shelves):
        async def open(self, partition: int, identity: str) -> Shelf:  # noqa: ARG002 -- the protocol's
            return Damaged()

    async with desk(plant, DamagedShelves()) as ours:
        asking = asyncio.ensure_future(ours.tickets.reference(b"T-1"))
        await plant.tell(ticket())
        await plant.until(lambda: ours.failures)
        asking.cancel()
    assert [str(error) for error in ours.failures] == ["it is damaged; start again"]
