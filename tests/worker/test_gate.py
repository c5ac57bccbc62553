"""Permits before the supplier: how many, whose turn, and what the breaker says to it."""

import asyncio

from adapter.core.command import Accepted, By, Misdirected, Rejected, Unavailable, Unclear
from adapter.core.retry import Backoff, Breaker, BreakerState
from adapter.worker.gate import Gate, Permit
from tests.support.wait import eventually

PROBE = 0.03
YES = Accepted(None)


def gate(*, permits: int = 2, threshold: int = 3, told: list[BreakerState] | None = None) -> Gate:
    heard = [] if told is None else told
    return Gate(
        permits=permits,
        breaker=Breaker(threshold=threshold, backoff=Backoff(PROBE, PROBE)),
        changed=lambda state, _why: heard.append(state),
    )


def keys(passed: list[Permit]) -> list[bytes]:
    return [permit.key for permit in passed]


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def waiter(at: Gate, key: bytes, passed: list[Permit]) -> "asyncio.Task[None]":
    async def enter() -> None:
        passed.append(await at.enter(key))

    return asyncio.ensure_future(enter())


async def test_no_more_calls_than_permits_and_first_come_first_served() -> None:
    at, passed = gate(), list[Permit]()
    tasks = [waiter(at, key, passed) for key in (b"a", b"b", b"c", b"d")]
    await turns()
    assert keys(passed) == [b"a", b"b"]
    assert (at.in_flight, at.waiting) == (2, 2)
    at.leave(passed[0], YES)
    await turns()
    assert keys(passed) == [b"a", b"b", b"c"]
    at.leave(passed[1], YES)
    await asyncio.gather(*tasks)
    assert at.in_flight == 2


async def test_who_comes_while_others_wait_queues_behind_them() -> None:
    at, passed = gate(permits=1), list[Permit]()
    a = await at.enter(b"a")
    first = waiter(at, b"b", passed)
    await turns()
    at.leave(a, YES)
    second = waiter(at, b"c", passed)
    await turns()
    assert keys(passed) == [b"b"]
    at.leave(passed[0], YES)
    await asyncio.gather(first, second)


async def test_a_waiter_that_is_cancelled_leaks_no_permit() -> None:
    at, passed = gate(permits=1), list[Permit]()
    a = await at.enter(b"a")
    gone, stays = waiter(at, b"b", passed), waiter(at, b"c", passed)
    await turns()
    gone.cancel()
    await turns()
    at.leave(a, YES)
    await stays
    assert keys(passed) == [b"c"]
    at.leave(passed[0], YES)
    assert (at.in_flight, at.waiting) == (0, 0)


async def test_a_waiter_that_is_cancelled_in_the_moment_its_turn_comes_gives_its_permit_back() -> None:
    at, passed = gate(permits=1), list[Permit]()
    a = await at.enter(b"a")
    gone, stays = waiter(at, b"b", passed), waiter(at, b"c", passed)
    await turns()
    at.leave(a, YES)
    gone.cancel()
    await stays
    assert keys(passed) == [b"c"]
    assert at.in_flight == 1


async def test_a_permit_that_comes_free_just_after_a_waiter_was_cancelled_goes_to_the_next() -> None:
    at, passed = gate(permits=1), list[Permit]()
    a = await at.enter(b"a")
    gone, stays = waiter(at, b"b", passed), waiter(at, b"c", passed)
    await turns()
    gone.cancel()
    at.leave(a, YES)  # before the cancelled one could run
    await stays
    assert keys(passed) == [b"c"]
    assert gone.cancelled()
    assert (at.in_flight, at.waiting) == (1, 0)


async def test_a_probe_is_not_given_to_a_waiter_that_was_just_cancelled() -> None:
    at, passed = gate(threshold=1), list[Permit]()
    at.leave(await at.enter(b"a"), Unavailable("http-503"))
    waiters = [waiter(at, key, passed) for key in (b"b", b"a")]
    await turns()
    waiters[0].cancel()
    at.breaker.retry_at = 0.0
    at._pump()
    await waiters[1]
    assert keys(passed) == [b"a"]
    assert at.breaker.state is BreakerState.PROBING


async def test_the_breaker_opens_after_failures_in_a_row_and_holds_calls() -> None:
    told: list[BreakerState] = []
    at, passed = gate(permits=9, told=told), list[Permit]()
    for verdict in (Unavailable("http-503"), Rejected(By.SUPPLIER, "400"), Unclear("reset"), Unclear("reset")):
        at.leave(await at.enter(b"a"), verdict)
    assert told == []  # a refusal is an answer: the count began anew
    at.leave(await at.enter(b"a"), Unavailable("connect"))
    assert told == [BreakerState.OPEN]
    waiting = [waiter(at, key, passed) for key in (b"b", b"c")]
    await turns()
    assert passed == []
    assert at.waiting == 2
    for task in waiting:
        task.cancel()


async def test_one_probe_at_a_time_and_a_good_one_lets_everybody_through() -> None:
    told: list[BreakerState] = []
    at, passed = gate(permits=9, threshold=1, told=told), list[Permit]()
    at.leave(await at.enter(b"a"), Unavailable("http-503"))
    tasks = [waiter(at, key, passed) for key in (b"b", b"c", b"d")]
    await eventually(lambda: passed)
    await turns()
    assert keys(passed) == [b"b"]
    at.leave(passed[0], Unavailable("http-503"))
    await eventually(lambda: len(passed) == 2)
    at.leave(passed[1], YES)
    await asyncio.gather(*tasks)
    assert told == [BreakerState.OPEN, BreakerState.PROBING] * 2 + [BreakerState.CLOSED]


async def test_the_probe_prefers_another_key_than_the_one_that_opened_the_breaker() -> None:
    at, passed = gate(threshold=1), list[Permit]()
    at.leave(await at.enter(b"a"), Misdirected("http-404"))
    tasks = [waiter(at, key, passed) for key in (b"a", b"b")]
    await eventually(lambda: passed)
    assert keys(passed) == [b"b"]
    for task in tasks:
        task.cancel()


async def test_the_only_one_that_waits_probes_whatever_its_key() -> None:
    at, passed = gate(threshold=1), list[Permit]()
    at.leave(await at.enter(b"a"), Misdirected("http-404"))
    await waiter(at, b"a", passed)
    assert keys(passed) == [b"a"]


async def test_retry_after_moves_the_probe() -> None:
    at, passed = gate(threshold=1), list[Permit]()
    began = asyncio.get_running_loop().time()
    at.leave(await at.enter(b"a"), Unavailable("http-503", retry_after=3 * PROBE))
    await waiter(at, b"b", passed)
    assert asyncio.get_running_loop().time() - began >= 3 * PROBE


async def test_a_probe_that_is_abandoned_lets_the_next_one_probe_at_once() -> None:
    at, passed = gate(threshold=1), list[Permit]()
    at.leave(await at.enter(b"a"), Unavailable("http-503"))
    tasks = [waiter(at, key, passed) for key in (b"b", b"c")]
    await eventually(lambda: passed)
    at.leave(passed[0], None)
    await asyncio.gather(*tasks)
    assert keys(passed) == [b"b", b"c"]


async def test_a_call_that_was_not_made_is_no_end_of_another_ones_probe() -> None:
    at, passed = gate(permits=9, threshold=1), list[Permit]()
    old = await at.enter(b"old")
    at.leave(await at.enter(b"a"), Unavailable("http-503"))
    tasks = [waiter(at, key, passed) for key in (b"b", b"c")]
    await eventually(lambda: passed)
    at.leave(old, None)
    await turns()
    assert keys(passed) == [b"b"]
    at.leave(passed[0], YES)
    await asyncio.gather(*tasks)


# -- ahead of time -----------------------------------------------------------------------------------------------------


async def taught(at: Gate, ended: int) -> None:
    """So many calls ended while somebody was committing."""
    preparing = await at.enter(b"teacher", ahead=True)
    for permit in [await at.enter(b"pupil") for _ in range(ended)]:
        at.leave(permit, YES)
    assert at.begin(preparing) is None
    at.leave(preparing, YES)


async def test_as_many_prepare_beyond_the_permits_as_calls_ended_during_a_commit() -> None:
    at, passed = gate(permits=3), list[Permit]()
    await taught(at, 2)
    inside = [await at.enter(b"in", ahead=True) for _ in range(5)]
    assert at.in_flight == 0
    one_more = asyncio.ensure_future(at.enter(b"out", ahead=True))
    await turns()
    assert not one_more.done()
    one_more.cancel()
    waits = [at.begin(permit) for permit in inside]
    assert [turn is None for turn in waits] == [True, True, True, False, False]
    assert at.in_flight == 3
    at.leave(inside[0], YES)
    await turns()
    assert [turn is not None and turn.done() for turn in waits[3:]] == [True, False]
    assert at.in_flight == 3
    assert passed == []


async def test_nobody_prepares_beyond_the_permits_where_no_call_ends_meanwhile() -> None:
    at, passed = gate(permits=3), list[Permit]()
    await taught(at, 2)
    for _ in range(1000):  # a supplier that takes its time
        permit = await at.enter(b"alone", ahead=True)
        assert at.begin(permit) is None
        at.leave(permit, YES)
    inside = [await at.enter(b"in", ahead=True) for _ in range(3)]
    outside = waiter(at, b"out", passed)
    await turns()
    assert len(inside) == 3
    assert passed == []
    outside.cancel()


async def test_who_calls_at_once_is_not_let_in_ahead() -> None:
    at, passed = gate(permits=2), list[Permit]()
    await taught(at, 1)
    first = await at.enter(b"a", ahead=True)
    second = await at.enter(b"b", ahead=True)
    direct = waiter(at, b"c", passed)
    await turns()
    assert passed == []
    at.leave(first, None)
    await direct
    assert at.begin(second) is None
    assert at.in_flight == 2


async def test_one_that_is_ready_and_gives_up_leaks_no_permit() -> None:
    at = gate(permits=2)
    await taught(at, 1)
    first, second, third = [await at.enter(key, ahead=True) for key in (b"a", b"b", b"c")]
    assert at.begin(first) is at.begin(second) is None
    turn = at.begin(third)
    assert turn is not None
    turn.cancel()
    at.leave(third, None)
    at.leave(first, YES)
    assert at.in_flight == 1
    at.leave(second, YES)
    assert at.in_flight == 0
    assert [(await at.enter(b"d")).calling, (await at.enter(b"e")).calling] == [True, True]
