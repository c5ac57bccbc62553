from fractions import Fraction
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from adapter.core.retry import Backoff, Breaker, BreakerState

STEADY = Backoff(first=10.0, longest=10.0)
SHARES = st.floats(0, 1, exclude_max=True)


@pytest.mark.parametrize(
    ("attempt", "share", "at_least", "seconds"),
    [
        pytest.param(1, 0.0, None, 0.5, id="first-at-its-shortest"),
        pytest.param(1, 0.5, None, 0.75, id="first-in-between"),
        pytest.param(2, 0.0, None, 1.0, id="doubled"),
        pytest.param(4, 0.0, None, 4.0, id="doubled-three-times"),
        pytest.param(5, 0.0, None, 5.0, id="capped"),
        pytest.param(5_000, 0.0, None, 5.0, id="capped-far-beyond-what-a-float-can-double"),
        pytest.param(1, 0.0, 30.0, 30.0, id="asked-for-at-its-shortest"),
        pytest.param(1, 0.5, 30.0, 30.375, id="asked-for-and-spread"),
        pytest.param(1, 0.5, 0.0, 0.375, id="asked-for-now"),
    ],
)
def test_delay_of_a_backoff_of_one_second_up_to_ten(
    attempt: int, share: float, at_least: float | None, seconds: float
) -> None:
    assert Backoff(first=1.0, longest=10.0).delay(attempt, share, at_least) == seconds


@given(
    first=st.floats(0.001, 60),
    longest=st.floats(0.001, 3_600),
    attempt=st.integers(1, 10_000),
    share=SHARES,
    at_least=st.none() | st.floats(0, 86_400),
)
def test_a_delay_is_bounded_whatever_the_attempt(
    first: float, longest: float, attempt: int, share: float, at_least: float | None
) -> None:
    delay = Backoff(first=first, longest=longest).delay(attempt, share, at_least)
    whole = float(min(Fraction(longest), Fraction(first) * 2 ** (attempt - 1)))  # a float cannot hold the doubled
    if at_least is None:
        assert whole / 2 <= delay <= whole
    else:
        assert at_least <= delay <= at_least + whole


def opened(*, threshold: int = 1, at: float = 0.0) -> Breaker:
    breaker = Breaker(threshold=threshold, backoff=STEADY)
    for _ in range(threshold):
        breaker.failed(b"a", at, share=0.0)
    assert breaker.state is BreakerState.OPEN
    return breaker


def test_that_the_supplier_is_down_is_forgotten_after_ten_minutes_in_which_nobody_called() -> None:
    breaker = opened()
    assert breaker.retry_at == 5.0
    assert [breaker.known(now) for now in (0.0, 604.9, 605.0)] == [BreakerState.OPEN] * 2 + [BreakerState.CLOSED]
    assert breaker.allow(9000.0), "whoever calls then is the probe all the same"
    assert breaker.known(9000.0) is BreakerState.PROBING
    breaker.failed(b"a", 9001.0, share=0.0)
    assert breaker.known(9002.0) is BreakerState.OPEN


def test_failures_below_the_threshold_leave_it_closed() -> None:
    breaker = Breaker(threshold=3, backoff=STEADY)
    for _ in range(2):
        breaker.failed(b"a", 0.0, share=0.0)
    assert (breaker.state, breaker.allow(0.0)) == (BreakerState.CLOSED, True)


def test_as_many_failures_in_a_row_as_the_threshold_open_it() -> None:
    breaker = Breaker(threshold=3, backoff=STEADY)
    for key in (b"a", b"b", b"c"):
        breaker.failed(key, 100.0, share=0.0)
    assert (breaker.state, breaker.retry_at, breaker.failed_keys) == (BreakerState.OPEN, 105.0, {b"a", b"b", b"c"})
    assert not breaker.allow(104.9)


def test_a_good_answer_starts_the_count_anew() -> None:
    breaker = Breaker(threshold=2, backoff=STEADY)
    breaker.failed(b"a", 0.0, share=0.0)
    breaker.succeeded()
    breaker.failed(b"b", 0.0, share=0.0)
    assert (breaker.state, breaker.successes, breaker.failed_keys) == (BreakerState.CLOSED, 1, {b"b"})


def test_a_refusal_that_concerns_every_call_opens_it_at_once() -> None:
    breaker = Breaker(threshold=100, backoff=STEADY)
    breaker.failed(b"a", 0.0, share=0.0, at_once=True)
    assert (breaker.state, breaker.failed_keys) == (BreakerState.OPEN, {b"a"})


def test_one_call_that_is_refused_again_and_again_while_others_pass_stops_them_once() -> None:
    breaker = Breaker(threshold=3, backoff=STEADY)
    breaker.failed(b"a", 0.0, share=0.0, at_once=True)
    for now in (10.0, 609.9, 1209.8):
        breaker.succeeded()  # another's
        breaker.failed(b"a", now, share=0.0, at_once=True)
        assert breaker.state is BreakerState.CLOSED
    breaker.succeeded()
    breaker.failed(b"a", 1809.9, share=0.0, at_once=True)
    assert breaker.state is BreakerState.OPEN, "after ten minutes without one it may be everybody's again"


def test_many_refused_side_by_side_do_not_stop_others_whose_answers_are_still_to_come() -> None:
    breaker = Breaker(threshold=3, backoff=STEADY)
    breaker.failed(b"a", 0.0, share=0.0, at_once=True)
    breaker.succeeded()
    for _ in range(20):
        breaker.failed(b"a", 10.0, share=0.0, at_once=True)
    assert breaker.state is BreakerState.CLOSED


def test_a_few_that_alone_are_refused_for_long_stop_nobody() -> None:
    breaker = Breaker(threshold=3, backoff=STEADY)
    breaker.failed(b"a", 0.0, share=0.0, at_once=True)
    breaker.succeeded()
    for now in (10.0, 60.0):
        breaker.failed(b"a", now, share=0.0, at_once=True)
        assert breaker.state is BreakerState.CLOSED


def test_when_all_are_refused_soon_after_some_alone_were_it_opens_after_the_time_of_a_probe() -> None:
    breaker = Breaker(threshold=3, backoff=STEADY)
    breaker.failed(b"a", 0.0, share=0.0, at_once=True)
    breaker.succeeded()
    for now in (10.0, 15.0, 19.9):
        breaker.failed(b"a", now, share=0.0, at_once=True)
        assert breaker.state is BreakerState.CLOSED
    breaker.failed(b"b", 20.0, share=0.0, at_once=True)
    assert (breaker.state, breaker.failed_keys) == (BreakerState.OPEN, {b"a", b"b"})


def test_what_the_supplier_asked_for_sets_the_time_of_the_probe() -> None:
    breaker = Breaker(threshold=1, backoff=STEADY)
    breaker.failed(b"a", 100.0, share=0.0, at_least=60.0)
    assert breaker.retry_at == 160.0


def test_open_lets_one_call_probe_when_its_time_has_come() -> None:
    breaker = opened()
    assert [breaker.allow(now) for now in (4.9, 5.0, 5.0, 99.0)] == [False, True, False, False]
    assert breaker.state is BreakerState.PROBING


def test_a_probe_that_succeeds_closes_it() -> None:
    breaker = opened()
    breaker.allow(5.0)
    breaker.succeeded()
    assert (breaker.state, breaker.allow(5.0), breaker.allow(5.0)) == (BreakerState.CLOSED, True, True)


def test_probes_that_fail_open_it_again_for_longer_each_time() -> None:
    breaker = Breaker(threshold=1, backoff=Backoff(first=1.0, longest=4.0))
    breaker.failed(b"a", 0.0, share=0.0)
    waits = [breaker.retry_at]
    for _ in range(4):
        now = breaker.retry_at
        assert breaker.allow(now)
        breaker.failed(b"b", now, share=0.0)
        waits.append(breaker.retry_at - now)
    assert waits == [0.5, 1.0, 2.0, 2.0, 2.0]
    assert breaker.failed_keys == {b"a", b"b"}


def test_a_probe_that_fails_opens_it_again_however_few_calls_have_failed() -> None:
    breaker = Breaker(threshold=100, backoff=STEADY)
    breaker.failed(b"a", 0.0, share=0.0, at_once=True)
    assert breaker.allow(5.0)
    breaker.failed(b"b", 6.0, share=0.0)
    assert (breaker.state, breaker.retry_at) == (BreakerState.OPEN, 11.0)


def test_after_it_closed_the_waits_start_short_again() -> None:
    breaker = Breaker(threshold=1, backoff=Backoff(first=1.0, longest=64.0))
    for now in (0.0, 10.0, 20.0):
        breaker.allow(now)
        breaker.failed(b"a", now, share=0.0)
    breaker.succeeded()
    breaker.failed(b"a", 30.0, share=0.0)
    assert breaker.retry_at == 30.5


def test_failures_of_calls_that_started_before_it_opened_do_not_put_off_the_probe() -> None:
    breaker = opened(at=0.0)
    breaker.failed(b"late", 4.0, share=0.0, at_once=True)
    assert (breaker.retry_at, breaker.failed_keys) == (5.0, {b"a", b"late"})


def test_a_probe_that_was_abandoned_lets_another_call_probe_at_once() -> None:
    breaker = opened()
    breaker.allow(5.0)
    breaker.released(6.0)
    assert [breaker.allow(5.9), breaker.allow(6.0), breaker.allow(6.0)] == [False, True, False]


@pytest.mark.parametrize("breaker", [Breaker(threshold=1, backoff=STEADY), opened()], ids=["closed", "open"])
def test_abandoning_a_call_that_was_no_probe_changes_nothing(breaker: Breaker) -> None:
    before = (breaker.state, breaker.retry_at)
    breaker.released(3.0)
    assert (breaker.state, breaker.retry_at) == before


class Supplier(RuleBasedStateMachine):
    """Any order of calls, failures and good answers, counted on the side."""

    @initialize(threshold=st.integers(1, 4), longest=st.floats(1, 30))
    def build(self, threshold: int, longest: float) -> None:
        self.breaker = Breaker(threshold=threshold, backoff=Backoff(first=1.0, longest=longest))
        self.now = 0.0
        self.failures = 0
        self.good = 0
        self.probing = False
        self.refused = -inf
        self.failing_since = 0.0

    @rule(seconds=st.floats(0, 40) | st.just(600.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def ask(self) -> None:
        state, due = self.breaker.state, self.breaker.retry_at
        allowed = self.breaker.allow(self.now)
        if self.probing:
            assert not allowed, "one probe at a time"
        elif state is BreakerState.OPEN:
            assert allowed == (self.now >= due)
            self.probing = allowed
        else:
            assert allowed

    @rule(at_once=st.booleans(), share=SHARES, at_least=st.none() | st.floats(0, 60))
    def a_call_fails(self, *, at_once: bool, share: float, at_least: float | None) -> None:
        before, due = self.breaker.state, self.breaker.retry_at
        self.failures += 1
        if self.failures == 1:
            self.failing_since = self.now
        self.breaker.failed(b"k", self.now, share=share, at_once=at_once, at_least=at_least)
        first = at_once and self.now - self.refused >= 600
        lasting = not at_once or self.now - self.failing_since >= self.breaker.backoff.first
        self.refused = self.now if at_once else self.refused
        match before:
            case BreakerState.CLOSED:
                opens = first or (lasting and self.failures >= self.breaker.threshold)
                assert (self.breaker.state is BreakerState.OPEN) == opens
            case BreakerState.PROBING:
                assert self.breaker.state is BreakerState.OPEN
                self.probing = False
            case BreakerState.OPEN:
                assert (self.breaker.state, self.breaker.retry_at) == (before, due)
                return
        if self.breaker.state is BreakerState.OPEN:
            assert self.breaker.retry_at >= self.now + (at_least or 0.0)
            assert self.breaker.retry_at <= self.now + (at_least or 0.0) + self.breaker.backoff.longest

    @rule()
    def a_call_succeeds(self) -> None:
        self.breaker.succeeded()
        self.failures, self.probing = 0, False
        self.good += 1
        assert self.breaker.state is BreakerState.CLOSED

    @precondition(lambda self: self.probing)
    @rule()
    def the_probe_is_abandoned(self) -> None:
        self.breaker.released(self.now)
        self.probing = False
        assert self.breaker.state is BreakerState.OPEN

    @invariant()
    def counts_agree(self) -> None:
        assert self.breaker.successes == self.good
        assert (self.breaker.state is BreakerState.PROBING) == self.probing
        if self.failures == 0:
            assert self.breaker.state is BreakerState.CLOSED


TestSupplier = Supplier.TestCase
TestSupplier.settings = settings(deadline=None, max_examples=60, stateful_step_count=40)
