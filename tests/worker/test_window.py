"""The bounded window: who is paused, who flows again, and what does not count."""

from adapter.core.journal import Source
from adapter.worker.assignment import Assignment, Item
from adapter.worker.window import Bounds, Window
from tests.support.bus import Bus
from tests.support.estate import Command, add, query
from tests.support.plant import Bounded, Plant, accepted, answer, later, silent


def item(offset: int, size: int = 1) -> Item:
    return Item(Source(0, offset, 1.0, b"k", b"x" * size, ()), 0.0)


def held(window: Window, assignment: Assignment, items: list[Item]) -> None:
    for each in items:
        assert assignment.frontier.deliver(each.source.offset)
        assignment.items[each.source.offset] = each
        window.add(each)


def ended(window: Window, assignment: Assignment, each: Item) -> None:
    assignment.frontier.finish(each.source.offset)
    window.remove(assignment.items.pop(each.source.offset))


async def test_a_partition_pauses_at_its_share_of_records_and_resumes_well_below() -> None:
    member = Bus(2).member()
    member.owned = {0: 1, 1: 2}
    window, full, idle = Window(Bounds(200, 10**9, 10**6), member), Assignment(0, 1), Assignment(1, 2)
    items = [item(n) for n in range(100)]
    held(window, full, items[:99])
    window.throttle([full, idle])
    assert member.paused == set()
    held(window, full, items[99:])
    window.throttle([full, idle])
    assert member.paused == {0}
    for each in items[:40]:
        ended(window, full, each)
    window.throttle([full, idle])
    assert member.paused == {0}
    ended(window, full, items[40])
    window.throttle([full, idle])
    assert member.paused == set()


async def test_a_few_records_are_granted_to_each_of_many_partitions() -> None:
    member = Bus(1).member()
    member.owned = {0: 1}
    window, one = Window(Bounds(10, 10**9, 10**6), member), Assignment(0, 1)
    held(window, one, [item(n) for n in range(63)])
    window.throttle([one])
    assert member.paused == set()


async def test_bytes_pause_whoever_holds_any() -> None:
    member = Bus(2).member()
    member.owned = {0: 1, 1: 2}
    window, one, idle = Window(Bounds(10**6, 1000, 10**6), member), Assignment(0, 1), Assignment(1, 2)
    large = item(0, 1000)
    held(window, one, [large])
    window.throttle([one, idle])
    assert member.paused == {0}
    ended(window, one, large)
    window.throttle([one, idle])
    assert member.paused == set()


async def test_an_old_unfinished_record_pauses_its_partition_by_what_lies_behind_it() -> None:
    member = Bus(1).member()
    member.owned = {0: 1}
    window, one = Window(Bounds(10**6, 10**9, 10), member), Assignment(0, 1)
    items = [item(n) for n in range(10)]
    held(window, one, items)
    for each in items[1:]:
        ended(window, one, each)
    window.throttle([one])
    assert member.paused == {0}
    ended(window, one, items[0])
    window.throttle([one])
    assert member.paused == set()


async def test_polling_goes_on_for_others_while_one_partition_is_paused(plant: Plant) -> None:
    hand = plant.hire(0, 1, limits=Bounded(window=Bounds(10_000, 10**8, 8)))
    hand.member.batch = 4
    plant.desk.answers = lambda call: (
        later(call) if call.operation == "QueryAppointmentAvailability" else accepted(call)
    )
    slow, other = [query(f"K-{n}") for n in range(12)], add("T-1")
    plant.send(*slow)
    await plant.until(lambda: hand.member.paused == {0})
    plant.send(other, partition=1)
    await plant.final(other)
    assert hand.member.paused == {0}
    plant.desk.answers = accepted
    for call in [call for call in plant.desk.calls if call.waits]:
        answer(call)
    await plant.final(*slow)
    await plant.caught_up()


def weighing(key: str, size: int) -> Command:
    return query(key, correlationId="x" * size)


async def test_a_partition_that_is_paused_flows_on_when_the_bytes_of_another_are_worked_off(plant: Plant) -> None:
    hand = plant.hire(0, 1, limits=Bounded(window=Bounds(10_000, 10_000, 10_000)))
    plant.desk.answers = later
    slow, first, second = weighing("K-1", 5000), weighing("K-2", 3500), weighing("K-3", 2000)
    plant.send(slow, first, second)
    await plant.until(lambda: hand.member.paused == {0})
    answer(await plant.called(second))
    await plant.final(second)
    other = weighing("L-1", 1000)
    plant.send(other, partition=1)
    called = await plant.called(other)
    answer(await plant.called(first))
    await plant.final(first)
    assert hand.member.paused == {0}
    answer(called)
    await plant.until(lambda: hand.member.paused == set())


async def test_a_partition_that_is_paused_flows_on_when_another_is_lost(plant: Plant) -> None:
    hand = plant.hire(0, 1, limits=Bounded(window=Bounds(10_000, 10_000, 10_000)))
    plant.desk.answers = later
    slow, large = weighing("K-1", 5000), weighing("L-1", 6000)
    plant.send(slow)
    await plant.called(slow)
    plant.send(large, partition=1)
    await plant.until(lambda: hand.member.paused == {0, 1})
    hand.member.lose(1)
    await plant.until(lambda: hand.member.paused == set())
    assert hand.member.told_held == 1


async def test_residents_do_not_count(plant: Plant) -> None:
    hand = plant.hire(0, limits=Bounded(window=Bounds(64, 10**8, 64), parked_after=0.01))
    plant.desk.answers = lambda call: silent(call) if b"T-held" in call.body else accepted(call)
    commands = [add("T-held") for _ in range(90)]
    plant.send(*commands)
    await plant.caught_up()
    await plant.until(lambda: hand.flow.window.records == 0)  # the lanes hear of it some turns later
    other = add("T-1")
    plant.send(other)
    await plant.final(other)


async def test_a_partition_paused_by_residents_that_came_again_flows_on(plant: Plant) -> None:
    first = plant.hire(0, limits=Bounded(parked_after=0.01))
    plant.desk.answers = lambda call: later(call) if b"K-slow" in call.body else silent(call)
    slow, behind = query("K-slow"), [add("T-1") for _ in range(20)]
    plant.send(slow, *behind)
    await plant.until(lambda: plant.kinds(behind[-1]))
    await first.kill()
    plant.desk.answers = accepted
    second = plant.hire(limits=Bounded(window=Bounds(10_000, 10**8, 4)))
    second.member.batch = 3
    after = query("K-2")
    plant.send(after)
    second.member.assign(0)
    await plant.final(slow, after)
    await plant.caught_up()
