"""Lanes that sleep before the gate: whose turn it is, and what does not wait for a turn."""

import asyncio
import gc
import weakref
from collections import Counter
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

from adapter.worker.assignment import Assignment
from adapter.worker.pace import Cohort
from adapter.worker.report import status
from adapter.worker.room import Room
from tests.support.estate import add, query, with_deadline
from tests.support.plant import Bounded, Call, Hand, Plant, accepted, answer, later
from tests.support.wait import eventually

NARROW = Bounded(permits=1, ahead=2)


def tasks(hand: Hand) -> int:
    return sum(len(a._tasks) for a in hand.flow.assignments.values())


def more_than(number: int, calls: list[Call]) -> bool:
    return len(calls) > number


async def crowd(plant: Plant) -> Hand:
    """A worker whose only permit is taken by T-0, with T-1 and T-2 before the gate and T-3 to T-9 asleep."""
    hand = plant.hire(0, limits=NARROW)
    await hand.settle()
    plant.desk.answers = later
    plant.send(*(add(f"T-{number}") for number in range(10)))
    await plant.until(lambda: plant.desk.calls)
    await hand.settle()
    return hand


async def answered(plant: Plant, calls: int, *, done: int = 0) -> list[bytes]:
    """Answer each call once it was made, but those that were done; the keys in the order of their calls."""
    for number in range(done, calls):
        await plant.until(partial(more_than, number, plant.desk.calls))
        answer(plant.desk.calls[number])
    return [call.body.split(b"buyerFaultReference>")[1][:3] for call in plant.desk.calls]


async def test_only_as_many_lanes_are_awake_as_the_gate_can_want(plant: Plant) -> None:
    hand = await crowd(plant)
    assert tasks(hand) == 3
    assert hand.gate.waiting == 2
    why = {each["key"]: each["why"] for each in status(hand.flow, hand.gate)["waiting"]}
    assert why == {"T-0": "calling"} | {f"T-{number}": "gate" for number in range(1, 10)}
    assert await answered(plant, 10) == [b"T-%d" % number for number in range(10)]
    await plant.caught_up()


async def test_a_lane_with_more_work_lies_down_behind_those_that_sleep(plant: Plant) -> None:
    plant.hire(0, limits=Bounded(permits=1, ahead=1))
    plant.desk.answers = later
    plant.send(*(add(key) for key in ("T-1", "T-1", "T-1", "T-2", "T-3", "T-4", "T-2")))
    called = await answered(plant, 7)
    assert called == [b"T-1", b"T-2", b"T-3", b"T-4", b"T-1", b"T-2", b"T-1"]
    await plant.caught_up()


async def test_what_ends_without_a_call_does_not_wait_for_a_permit(plant: Plant) -> None:
    await crowd(plant)
    refused, unwritable = add("T-refused"), add("T-unwritable", reporterContactDetails={"name": "no XML \x01"})
    plant.bus.put(b"another key", plant.encode(refused))
    plant.send(unwritable)
    plant.bus.put(b"T-x", b"\1nonsense")
    await plant.final(refused, unwritable)
    await plant.until(lambda: plant.letters == ["unframed"])
    assert plant.types(refused) == plant.types(unwritable) == ["CommandRejected"]
    assert len(plant.desk.calls) == 1


async def test_who_could_not_be_looked_at_is_looked_at_when_the_registry_is_back(plant: Plant) -> None:
    hand = await crowd(plant)
    plant.registry.away = True
    refused = [query(f"K-{number}") for number in range(3)]  # of a schema that was not asked for yet
    for command in refused:
        plant.bus.put(b"another " + command.key.encode(), plant.encode(command))
    await plant.until(lambda: hand.flow.assignments[0].frontier.span == 13)
    await plant.until(lambda: plant.registry.refused > 1)
    plant.registry.away = False
    await plant.final(*refused)
    assert len(plant.desk.calls) == 1


async def test_a_deadline_passes_for_who_sleeps_too(plant: Plant) -> None:
    await crowd(plant)
    command = with_deadline(add("T-late"), 0.3)
    plant.send(command)
    event = await plant.final(command)
    assert event.record["code"] == "expired"
    assert len(plant.desk.calls) == 1


async def test_a_deadline_passes_behind_who_cannot_be_looked_at_without_the_registry(plant: Plant) -> None:
    await crowd(plant)
    plant.registry.away = True
    plant.send(query("K-1"))  # of a schema that was not asked for yet
    await plant.until(lambda: plant.registry.refused)
    command = with_deadline(add("T-late"), 0.3)
    plant.send(command)
    event = await plant.final(command)
    assert event.record["code"] == "expired"
    assert plant.registry.away
    assert len(plant.desk.calls) == 1


async def test_what_may_have_been_called_by_a_worker_that_was_killed_is_in_doubt_at_once(plant: Plant) -> None:
    first = plant.hire(0)
    plant.desk.answers = later
    before, called = [query(f"K-{number}") for number in range(5)], add("T-1")
    plant.send(*before, called)
    await plant.called(called)
    await first.kill()
    plant.hire(0, limits=NARROW)
    await plant.until(lambda: plant.types(called) == ["CommandOutcomeUnknown"])
    plant.desk.answers = accepted
    answer(plant.desk.calls[-1])
    await plant.final(*before)


async def test_a_partition_that_goes_takes_its_sleepers_along(plant: Plant) -> None:
    hand = await crowd(plant)
    leaving = asyncio.ensure_future(hand.member.revoke(0))
    await hand.settle()
    answer(plant.desk.calls[0])
    await leaving
    assert not hand.flow.room.crowded
    assert plant.position() == 1
    hand.member.assign(0)
    assert sorted(await answered(plant, 10, done=1)) == [b"T-%d" % number for number in range(10)]
    await plant.caught_up()


class Stub:
    """A room before a gate where as many wait as can, so that lanes wake only for what `wakes_in` says."""

    def __init__(self, wakes_in: Callable[[bytes], float | None]) -> None:
        gate: Any = SimpleNamespace(waiting=1000)
        self.gate = gate
        self.woken: list[bytes] = []

        async def told(_assignment: Assignment, lane: bytes) -> float | None:
            return wakes_in(lane)

        self.room = Room(
            gate=gate,
            cohort=Cohort(),
            ahead=1000,
            long_asleep=0.05,
            start=lambda _, lane: self.woken.append(lane),
            wakes_in=told,
        )


async def test_who_need_not_be_woken_yet_sleeps_on() -> None:
    stub = Stub({b"later": 3600.0, b"now": 0.0, b"too": 0.0}.get)
    for number, lane in enumerate((b"later", b"now", b"too")):
        stub.room.add(Assignment(number, 1), lane)
    running = asyncio.ensure_future(stub.room.run())
    await eventually(lambda: stub.woken)
    assert stub.woken == [b"now", b"too"]
    running.cancel()


async def test_the_loop_has_its_turn_while_many_that_sleep_are_looked_at() -> None:
    turn, looks = 0, Counter[int]()

    def look(_lane: bytes) -> None:
        looks[turn] += 1

    stub = Stub(look)
    for number in range(120):
        stub.room.add(Assignment(0, 1), b"%d" % number)
    running = asyncio.ensure_future(stub.room.run())
    while looks.total() < 120:
        await asyncio.sleep(0)
        turn += 1
    assert sorted(looks.values()) == [20, 50, 50]
    running.cancel()


async def test_who_was_woken_is_forgotten_however_many_they_were() -> None:
    """At thousands a second for hours the room must not keep more than it has sleepers."""
    stub = Stub(lambda _: None)
    assignment = Assignment(0, 1)
    for number in range(20_000):
        stub.room.add(assignment, b"%d" % number)
    kept = weakref.ref(assignment)
    del assignment
    running = asyncio.ensure_future(stub.room.run())
    stub.gate.waiting = 0
    await eventually(lambda: len(stub.woken) == 20_000)

    def let_go() -> bool:
        gc.collect()
        return kept() is None

    await eventually(let_go, what="nothing being kept of those that were woken")
    running.cancel()
