"""Permits and places before the supplier: how many, whose turn, and what the breaker says to it."""

import asyncio
import time
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from adapter.core.command import Accepted, By, Forbidden, Misdirected, Rejected, Unavailable, Unclear, Verdict
from adapter.core.operation import Repeat
from adapter.core.rate import TOLERANCE, RateLimit
from adapter.core.retry import Backoff, Breaker, BreakerState
from adapter.worker.gate import Gate, Permit
from tests.support.wait import eventually

PROBE = 0.03
YES = Accepted(None)


def gate(
    *,
    places: int = 2,
    rate: float | None = None,
    threshold: int = 3,
    probe: float = PROBE,
    told: list[BreakerState] | None = None,
) -> Gate:
    heard = [] if told is None else told
    return Gate(
        places=places,
        rate=None if rate is None else RateLimit(rate),
        breaker=Breaker(threshold=threshold, backoff=Backoff(probe, probe)),
        changed=lambda state, *_: heard.append(state),
    )


def keys(passed: list[Permit]) -> list[bytes]:
    return [permit.key for permit in passed]


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def waiter(at: Gate, key: bytes, passed: list[Permit], repeat: Repeat = Repeat.NEVER) -> "asyncio.Task[None]":
    async def enter() -> None:
        passed.append(await at.enter(key, repeat))

    return asyncio.ensure_future(enter())


def probe_is_due(at: Gate) -> None:
    """The time of the next probe has come, which was set too late for any test: all who wait for it are there."""
    at.breaker.retry_at = 0.0
    at._pump()


async def test_no_more_calls_than_permits_and_first_come_first_served() -> None:
    at, passed = gate(), list[Permit]()
    tasks = [waiter(at, key, passed) for key in (b"a", b"b", b"c", b"d")]
    await turns()
    assert keys(passed) == [b"a", b"b"]
    assert [at.begin(permit) for permit in passed] == [None, None]
    assert (at.in_flight, at.waiting) == (2, 2)
    at.leave(passed[0], YES)
    await turns()
    assert keys(passed) == [b"a", b"b", b"c"]
    at.leave(passed[1], YES)
    await asyncio.gather(*tasks)
    assert [at.begin(permit) for permit in passed[2:]] == [None, None]
    assert at.in_flight == 2


async def test_who_comes_while_others_wait_queues_behind_them() -> None:
    at, passed = gate(places=1), list[Permit]()
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
    at, passed = gate(places=1), list[Permit]()
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
    at, passed = gate(places=1), list[Permit]()
    a = await at.enter(b"a")
    gone, stays = waiter(at, b"b", passed), waiter(at, b"c", passed)
    await turns()
    at.leave(a, YES)
    gone.cancel()
    await stays
    assert keys(passed) == [b"c"]
    assert at.begin(passed[0]) is None
    assert at.in_flight == 1
    at.leave(passed[0], YES)
    assert (await at.enter(b"d")).key == b"d"


async def test_a_permit_that_comes_free_just_after_a_waiter_was_cancelled_goes_to_the_next() -> None:
    at, passed = gate(places=1), list[Permit]()
    a = await at.enter(b"a")
    gone, stays = waiter(at, b"b", passed), waiter(at, b"c", passed)
    await turns()
    gone.cancel()
    at.leave(a, YES)  # before the cancelled one could run
    await stays
    assert keys(passed) == [b"c"]
    assert gone.cancelled()
    assert at.begin(passed[0]) is None
    assert (at.in_flight, at.waiting) == (1, 0)


async def test_a_probe_is_not_given_to_a_waiter_that_was_just_cancelled() -> None:
    at, passed = gate(threshold=1, probe=60), list[Permit]()
    at.leave(await at.enter(b"a"), Unavailable("http-503"))
    waiters = [waiter(at, key, passed) for key in (b"b", b"a")]
    await turns()
    waiters[0].cancel()
    probe_is_due(at)
    await waiters[1]
    assert keys(passed) == [b"a"]
    assert at.breaker.state is BreakerState.PROBING


async def test_the_breaker_opens_after_failures_in_a_row_and_holds_calls() -> None:
    told: list[BreakerState] = []
    at, passed = gate(places=9, probe=60, told=told), list[Permit]()
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


@pytest.mark.parametrize("verdict", [Forbidden("http-403"), Misdirected("http-404")])
async def test_one_refusal_that_every_call_would_get_opens_the_breaker_at_once(verdict: Verdict) -> None:
    at = gate(threshold=3)
    at.leave(await at.enter(b"a"), verdict)
    assert at.breaker.state is BreakerState.OPEN


async def test_it_is_told_what_was_wrong_with_the_call_that_opened_the_breaker() -> None:
    told: list[tuple[BreakerState, str, str | None]] = []
    breaker = Breaker(threshold=1, backoff=Backoff(PROBE, PROBE))
    at = Gate(places=1, rate=None, breaker=breaker, changed=lambda *change: told.append(change))
    at.leave(await at.enter(b"a"), Unavailable("tls", detail="certificate has expired"))
    assert told == [(BreakerState.OPEN, "tls", "certificate has expired")]


async def test_one_probe_at_a_time_and_a_good_one_lets_everybody_through() -> None:
    told: list[BreakerState] = []
    at, passed = gate(places=9, threshold=1, told=told), list[Permit]()
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
    at, passed = gate(threshold=1, probe=60), list[Permit]()
    at.leave(await at.enter(b"a"), Misdirected("http-404"))
    tasks = [waiter(at, key, passed) for key in (b"a", b"b")]
    await turns()
    probe_is_due(at)
    await turns()
    assert keys(passed) == [b"b"]
    for task in tasks:
        task.cancel()


async def test_the_probe_prefers_a_key_that_has_not_failed_since_the_last_good_answer() -> None:
    at, passed = gate(threshold=1, probe=60), list[Permit]()
    both = [await at.enter(b"a"), await at.enter(b"b")]
    for permit in both:
        at.leave(permit, Forbidden("http-403"))
    tasks = [waiter(at, key, passed) for key in (b"a", b"b", b"c")]
    await turns()
    probe_is_due(at)
    await turns()
    assert keys(passed) == [b"c"]
    for task in tasks:
        task.cancel()


REPEATS = {b"a": Repeat.NEVER, b"b": Repeat.NEVER, b"keyed": Repeat.KEYED, b"safe": Repeat.SAFE, b"more": Repeat.SAFE}


async def probes(at: Gate, verdict: Verdict, times: int) -> list[bytes]:
    """The keys of so many probes with this verdict; each queues again."""
    passed, order = list[Permit](), []
    tasks = [waiter(at, key, passed, repeat) for key, repeat in REPEATS.items()]
    for _ in range(times):
        await turns()
        probe_is_due(at)
        await turns()
        permit = passed.pop()
        order.append(permit.key)
        at.leave(permit, verdict)
        tasks.append(waiter(at, permit.key, passed, permit.repeat))
    for task in tasks:
        task.cancel()
    return order


async def test_a_supplier_that_hangs_is_probed_with_others_than_queries_only_every_tenth_time() -> None:
    at = gate(threshold=1, probe=60)
    at.leave(await at.enter(b"a"), Unclear("read-timeout"))
    order = await probes(at, Unclear("read-timeout"), 21)
    assert order == [*(b"safe", b"more") * 4, b"safe", b"keyed", *(b"more", b"safe") * 4, b"more", b"b", b"safe"]


async def test_queries_that_hang_alone_leave_the_probe_to_a_key_that_has_not_failed() -> None:
    at = gate(threshold=1, probe=60)
    at.leave(await at.enter(b"safe", Repeat.SAFE), Unclear("read-timeout"))
    assert await probes(at, Unclear("read-timeout"), 3) == [b"more", b"keyed", b"a"]


async def test_a_supplier_that_takes_no_calls_is_probed_with_a_key_that_has_not_failed() -> None:
    at = gate(threshold=1, probe=60)
    at.leave(await at.enter(b"safe", Repeat.SAFE), Unavailable("connect"))
    assert await probes(at, Unavailable("connect"), 4) == [b"more", b"keyed", b"a", b"b"]


async def test_a_good_answer_makes_an_outage_forgotten_in_which_commands_came_into_doubt() -> None:
    at, passed = gate(threshold=1, probe=60), list[Permit]()
    at.leave(await at.enter(b"a"), Unclear("read-timeout"))
    only = waiter(at, b"a", passed)
    await turns()
    probe_is_due(at)
    await only
    at.leave(passed[0], YES)
    at.leave(await at.enter(b"safe", Repeat.SAFE), Unclear("read-timeout"))
    assert await probes(at, Unclear("read-timeout"), 2) == [b"more", b"keyed"]


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


async def test_a_breaker_that_opens_again_is_probed_when_it_says_and_not_when_it_said_before() -> None:
    at, passed = gate(places=9, threshold=1), list[Permit]()
    old, unlucky = [await at.enter(key) for key in (b"old", b"unlucky")]
    at.leave(await at.enter(b"a"), Unavailable("http-503", retry_after=3600.0))
    tasks = [waiter(at, b"%d" % number, passed) for number in range(10)]
    await turns()
    assert passed == []
    at.leave(old, YES)
    await turns()
    assert len(passed) == 8
    at.leave(unlucky, Unclear("read-timeout"))
    for permit in passed:
        at.leave(permit, None)
    assert at.breaker.state is not BreakerState.CLOSED
    await eventually(lambda: len(passed) == 9)
    at.leave(passed[8], YES)
    await asyncio.gather(*tasks)


async def test_a_probe_that_is_abandoned_lets_the_next_one_probe_at_once() -> None:
    at, passed = gate(threshold=1), list[Permit]()
    at.leave(await at.enter(b"a"), Unavailable("http-503"))
    tasks = [waiter(at, key, passed) for key in (b"b", b"c")]
    await eventually(lambda: passed)
    at.leave(passed[0], None)
    await asyncio.gather(*tasks)
    assert keys(passed) == [b"b", b"c"]


async def test_a_probe_that_is_abandoned_is_not_told_as_an_answer() -> None:
    told: list[tuple[BreakerState, str]] = []
    breaker = Breaker(threshold=1, backoff=Backoff(PROBE, PROBE))
    at = Gate(places=2, rate=None, breaker=breaker, changed=lambda state, why, _: told.append((state, why)))
    at.leave(await at.enter(b"a"), Unavailable("http-503"))
    at.leave(await at.enter(b"b"), None)
    assert told[-2:] == [(BreakerState.PROBING, "probe"), (BreakerState.OPEN, "abandoned")]


async def test_a_call_that_was_not_made_is_no_end_of_another_ones_probe() -> None:
    at, passed = gate(places=9, threshold=1), list[Permit]()
    old = await at.enter(b"old")
    at.leave(await at.enter(b"a"), Unavailable("http-503"))
    tasks = [waiter(at, key, passed) for key in (b"b", b"c")]
    await eventually(lambda: passed)
    at.leave(old, None)
    await turns()
    assert keys(passed) == [b"b"]
    at.leave(passed[0], YES)
    await asyncio.gather(*tasks)


# -- places ------------------------------------------------------------------------------------------------------------


async def call(at: Gate, key: bytes) -> Permit:
    permit = await at.enter(key)
    assert at.begin(permit) is None
    assert permit.calling
    return permit


async def taught(at: Gate, ended: int) -> None:
    """So many calls ended while somebody was committing."""
    calls = [await call(at, b"pupil") for _ in range(ended)]
    preparing = await at.enter(b"teacher")
    for permit in calls:
        at.leave(permit, YES)
    assert at.begin(preparing) is None
    at.leave(preparing, YES)


async def test_as_many_prepare_beyond_the_places_as_calls_ended_during_a_commit() -> None:
    at, passed = gate(places=3), list[Permit]()
    await taught(at, 2)
    inside = [await at.enter(b"in") for _ in range(5)]
    assert at.in_flight == 0
    outside = waiter(at, b"out", passed)
    await turns()
    assert passed == []
    waits = [at.begin(permit) for permit in inside]
    assert [turn is None for turn in waits] == [True, True, True, False, False]
    assert at.in_flight == 3
    at.leave(inside[0], YES)
    assert [permit.calling for permit in inside[3:]] == [True, False]
    assert at.in_flight == 3
    await outside


async def test_nobody_prepares_beyond_the_places_where_no_call_ends_meanwhile() -> None:
    at, passed = gate(places=3), list[Permit]()
    await taught(at, 2)
    for _ in range(1000):  # a supplier that takes its time
        at.leave(await call(at, b"alone"), YES)
    inside = [await at.enter(b"in") for _ in range(3)]
    outside = waiter(at, b"out", passed)
    await turns()
    assert len(inside) == 3
    assert passed == []
    outside.cancel()


async def test_each_that_finds_no_place_makes_one_less_be_let_in_ahead() -> None:
    at, passed = gate(places=3), list[Permit]()
    await taught(at, 2)
    inside = [await at.enter(b"in") for _ in range(5)]
    turn = [at.begin(permit) for permit in inside][-1]
    assert turn is not None
    turn.cancel()
    at.leave(inside[-1], None)
    outside = waiter(at, b"out", passed)
    await turns()
    assert passed == []
    outside.cancel()


async def test_one_that_is_ready_and_gives_up_leaks_no_place() -> None:
    at = gate(places=2)
    await taught(at, 1)
    first, second, third = [await at.enter(key) for key in (b"a", b"b", b"c")]
    assert at.begin(first) is at.begin(second) is None
    turn = at.begin(third)
    assert turn is not None
    turn.cancel()
    at.leave(third, None)
    at.leave(first, YES)
    assert at.in_flight == 1
    at.leave(second, YES)
    assert at.in_flight == 0
    assert [(await call(at, key)).key for key in (b"d", b"e")] == [b"d", b"e"]


async def test_who_is_ready_hears_at_once_that_the_breaker_stops_calls() -> None:
    at, passed = gate(places=2, threshold=1), list[Permit]()
    await taught(at, 1)
    first, second, third = [await at.enter(key) for key in (b"a", b"b", b"c")]
    assert at.begin(first) is at.begin(second) is None
    turn = at.begin(third)
    assert turn is not None
    probe = waiter(at, b"d", passed)
    at.leave(first, Misdirected("http-404"))
    assert turn.done()
    assert not third.calling
    at.leave(third, None)
    await probe
    assert passed[0].probe
    assert at.begin(passed[0]) is None
    assert passed[0].calling


async def test_who_has_prepared_while_the_breaker_opened_does_not_call() -> None:
    at = gate(places=2, threshold=1)
    first, second = await call(at, b"a"), await at.enter(b"b")
    at.leave(first, Misdirected("http-404"))
    assert at.begin(second) is None
    assert not second.calling


async def test_nobody_is_let_in_ahead_to_probe() -> None:
    at, passed = gate(places=2, threshold=1), list[Permit]()
    await taught(at, 1)
    stalled, failing, last = [await at.enter(key) for key in (b"a", b"b", b"c")]
    assert at.begin(stalled) is at.begin(failing) is None
    at.leave(failing, Unclear("reset"))
    at.breaker.retry_at = 0.0
    probe = waiter(at, b"d", passed)
    await turns()
    assert passed == []
    at.leave(last, None)
    await probe
    assert passed[0].probe


async def test_a_probe_that_is_due_and_finds_no_room_does_not_keep_the_loop_busy() -> None:
    at, passed, pumped = gate(places=2, threshold=1), list[Permit](), list[None]()
    await taught(at, 1)
    failing, *committing = [await at.enter(key) for key in (b"a", b"b", b"c")]
    at.leave(failing, Unclear("reset"))
    at.breaker.retry_at = 0.0
    at.eased = lambda: pumped.append(None)
    probe = waiter(at, b"d", passed)
    await turns()
    assert len(pumped) == 1
    at.leave(committing[0], None)
    await probe


async def test_who_comes_in_the_moment_before_a_probe_is_due_waits_for_it() -> None:
    """uvloop rings up to half a millisecond early, and what is set then has no time of its own."""
    for _ in range(10):
        at, passed = gate(places=300, threshold=1), list[Permit]()
        calls = [await at.enter(b"%d" % number) for number in range(300)]
        for call in calls:
            at.begin(call)
        at.leave(calls.pop(), Unclear("reset"))
        probe = waiter(at, b"p", passed)
        while not passed:
            await asyncio.sleep(0)
            if calls and at.breaker.retry_at - asyncio.get_running_loop().time() < 0.001:
                at.leave(calls.pop(), Unclear("read-timeout"))
        await probe
        assert passed[0].probe


async def calls(at: Gate, key: bytes, begun: list[float]) -> None:
    """Make one call that ends at once."""
    permit = await at.enter(key)
    turn = at.begin(permit)
    if turn is not None:
        await turn
    assert permit.calling
    begun.append(asyncio.get_running_loop().time())
    at.leave(permit, YES)


async def test_calls_begin_no_faster_than_the_limit_however_many_want_to() -> None:
    at, begun = gate(places=50, rate=100), list[float]()
    await asyncio.gather(*(calls(at, b"%d" % n, begun) for n in range(40)))
    assert begun[-1] - begun[0] >= 39 / 100 - TOLERANCE - 0.001  # a timer's resolution
    assert (at.in_flight, at.waiting) == (0, 0)


async def test_a_permit_comes_shortly_before_its_call_may_begin() -> None:
    at, passed, loop = gate(places=9, rate=2), list[Permit](), asyncio.get_running_loop()
    first = await at.enter(b"a")
    assert at.begin(first) is None
    began = loop.time()
    waiting = waiter(at, b"b", passed)
    await turns()
    assert passed == []  # what it committed now could be stale when its time comes
    await waiting
    assert loop.time() - began >= 0.3
    turn = at.begin(passed[0])
    if turn is not None:
        await turn
    assert passed[0].calling
    assert loop.time() - began >= 0.39


async def test_who_gives_up_before_its_time_leaves_it_to_the_next() -> None:
    at, begun, loop = gate(places=9, rate=5), list[float](), asyncio.get_running_loop()
    first, gone = await at.enter(b"a"), await at.enter(b"b")
    assert at.begin(first) is None
    began = loop.time()
    turn = at.begin(gone)
    assert turn is not None
    stays = asyncio.ensure_future(calls(at, b"c", begun))
    await turns()
    turn.cancel()
    at.leave(gone, None)
    await stays
    assert begun[0] - began >= 0.09


async def test_who_is_ready_before_its_time_begins_when_it_has_come() -> None:
    at, loop = gate(places=9, rate=5), asyncio.get_running_loop()
    first, second = await at.enter(b"a"), await at.enter(b"b")
    assert at.begin(first) is None
    began = loop.time()
    turn = at.begin(second)
    assert turn is not None
    await turn
    assert second.calling
    assert loop.time() - began >= 0.09


async def test_who_comes_when_the_time_has_come_goes_behind_who_waited_for_it_though_the_loop_was_late() -> None:
    at, passed = gate(places=4, rate=5), list[Permit]()
    a, b, c = [await at.enter(key) for key in (b"a", b"b", b"c")]
    assert at.begin(a) is None
    waits = at.begin(b)
    first = waiter(at, b"d", passed)
    await turns()
    assert (b.calling, passed) == (False, [])
    time.sleep(0.5)  # noqa: ASYNC251 -- the loop is late: it has not rung yet
    behind = at.begin(c)
    last = waiter(at, b"e", passed)
    assert waits is not None
    assert behind is not None
    await waits
    assert not c.calling
    await turns()
    assert keys(passed) == [b"d"]
    for task in (first, last):
        task.cancel()


async def test_a_probe_keeps_to_the_limit_too() -> None:
    at, passed, loop = gate(places=9, rate=2, threshold=1, probe=0.01), list[Permit](), asyncio.get_running_loop()
    first = await at.enter(b"a")
    assert at.begin(first) is None
    began = loop.time()
    at.leave(first, Unavailable("http-503"))
    await waiter(at, b"b", passed)
    assert passed[0].probe
    assert loop.time() - began >= 0.3


async def test_it_tells_what_holds_calls_back() -> None:
    at = gate(places=2, rate=0.1, threshold=1, probe=60)
    assert (at.holds_back, at.probe_in) == ("", 0)
    first, second = await at.enter(b"a"), await at.enter(b"b")
    assert at.holds_back == "places"
    at.leave(second, None)
    assert at.begin(first) is None
    assert at.holds_back == "rate"
    at.leave(first, Unavailable("http-503"))
    assert at.holds_back == "breaker"
    assert 25 < at.probe_in <= 60


class Callers:
    """Who passes the gate as a lane does: it waits for its place, and gives both up at once."""

    def __init__(self, places: int, rate: float | None) -> None:
        self.gate = gate(places=places, rate=rate, threshold=3)
        self.inside: list[Permit] = []
        self._entering: list[asyncio.Task[None]] = []
        self._turns: dict[int, asyncio.Future[None]] = {}

    def enter(self, number: int) -> None:
        self._entering.append(waiter(self.gate, b"%d" % number, self.inside))

    def give_up(self, number: int) -> None:
        if self._entering:
            self._entering[number % len(self._entering)].cancel()

    def begin(self, number: int) -> None:
        idle = [permit for permit in self.inside if not permit.tried]
        if idle:
            permit = idle[number % len(idle)]
            turn = self.gate.begin(permit)
            if turn is not None:
                self._turns[id(permit)] = turn

    def leave(self, number: int) -> None:
        if self.inside:
            permit = self.inside.pop(number % len(self.inside))
            turn = self._turns.pop(id(permit), None)
            if turn is not None:
                turn.cancel()
            self.gate.leave(permit, (YES, Unclear("reset"), None)[number % 3] if permit.calling else None)


STEPS = [Callers.enter, Callers.begin, Callers.leave, Callers.give_up]


@example(2, None, [(step, 0) for step in (*STEPS[:1] * 3, *STEPS[1:3], Callers.begin, Callers.enter, *STEPS[1:2] * 2)])
@given(
    st.integers(1, 4),
    st.sampled_from([None, 20.0, 500.0, 1e5]),
    st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 9))),
)
def test_there_are_never_more_calls_than_places_and_all_come_free(
    places: int, rate: float | None, steps: list[tuple[Callable[[Callers, int], None], int]]
) -> None:
    async def walk() -> None:
        callers = Callers(places, rate)
        at, inside = callers.gate, callers.inside
        for step, number in steps:
            step(callers, number)
            await asyncio.sleep(0)
            assert at.in_flight == sum(permit.calling for permit in inside) <= places
        at.breaker.succeeded()
        while at.waiting or inside:
            at._pump()
            await asyncio.sleep(0 if rate is None else 0.001)
            while inside:
                callers.leave(-1)
        assert at.in_flight == 0

    asyncio.run(walk())
