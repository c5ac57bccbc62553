"""Letting lanes go on a few at a time, and step by step."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from adapter.worker.pace import Cohort, Pace


@asynccontextmanager
async def running() -> AsyncIterator[Pace]:
    pace = Pace()
    task = asyncio.ensure_future(pace.run())
    try:
        yield pace
    finally:
        task.cancel()
        await asyncio.wait([task])


class Reading:
    """A socket that always has something to read: it comes in every turn of the loop."""

    def __init__(self, read: Callable[[], None]) -> None:
        self._read = read
        self._loop = asyncio.get_running_loop()
        self._again = self._loop.call_soon(self._turn)

    def close(self) -> None:
        self._again.cancel()

    def _turn(self) -> None:
        self._read()
        self._again = self._loop.call_soon(self._turn)


async def test_those_who_come_in_one_go_go_on_in_their_order_and_never_all_at_once() -> None:
    story: list[int | None] = []

    async def lane(number: int) -> None:
        await pace.turn()
        story.append(number)

    async with running() as pace:
        lanes = [asyncio.ensure_future(lane(number)) for number in range(200)]
        socket = Reading(lambda: story.append(None))
        await asyncio.wait(lanes)
        socket.close()
    assert [each for each in story if each is not None] == list(range(200))
    between = "".join("x" if each is not None else " " for each in story).split()
    assert max(map(len, between)) <= 32
    assert len(between) < 20  # and not one by one


async def test_who_comes_where_few_have_come_does_not_wait() -> None:
    pace = Pace()  # nothing runs that could let anybody go on
    await pace.turn()
    pace.soon(lambda: None)
    waiting = asyncio.ensure_future(pace.turn())  # but not before those who were there first
    await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()


async def test_each_turn_of_the_loop_lets_as_many_pass_without_waiting() -> None:
    pace = Pace()  # nothing runs that could let anybody go on
    for _ in range(3):
        lanes = [asyncio.ensure_future(pace.turn()) for _ in range(32)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert all(lane.done() for lane in lanes)


async def test_turns_and_acts_share_one_order() -> None:
    story: list[str] = []

    async def lane() -> None:
        await pace.turn()
        story.append("lane")

    async with running() as pace:
        pace.soon(lambda: story.append("before"))
        waiting = asyncio.ensure_future(lane())
        await waiting
        pace.soon(lambda: story.append("after"))
        await pace.turn()
    assert story == ["before", "lane", "after"]


async def test_a_lane_that_is_cancelled_meanwhile_takes_nobodys_turn() -> None:
    async with running() as pace:
        before = [asyncio.ensure_future(pace.turn()) for _ in range(32)]
        gone = asyncio.ensure_future(pace.turn())
        there = asyncio.ensure_future(pace.turn())
        await asyncio.sleep(0)
        gone.cancel()
        await there
        assert gone.cancelled()
        await asyncio.wait(before)


async def test_an_act_that_fails_is_heard_of() -> None:
    pace = Pace()

    def fail() -> None:
        raise LookupError

    pace.soon(fail)
    with pytest.raises(LookupError):
        await pace.run()


async def test_lanes_that_go_on_together_take_each_step_together() -> None:
    story: list[str] = []
    cohort = Cohort()

    async def lane(name: str) -> None:
        story.append(f"{name} reads")
        await cohort.step()
        story.append(f"{name} writes")
        await cohort.step()
        story.append(f"{name} calls")

    await asyncio.gather(lane("A"), lane("B"), lane("C"))
    assert story == [f"{name} {does}" for does in ("reads", "writes", "calls") for name in "ABC"]


async def test_who_is_between_two_steps_is_counted_until_he_goes_on_or_is_stopped() -> None:
    cohort = Cohort()
    lanes = [asyncio.ensure_future(cohort.step()) for _ in range(3)]
    await asyncio.sleep(0)
    assert cohort.waiting == 3
    lanes[0].cancel()
    await asyncio.wait(lanes)
    assert cohort.waiting == 0
