"""The limit of calls a second, as a law over whatever callers do."""

from hypothesis import given
from hypothesis import strategies as st

from adapter.core.rate import TOLERANCE, RateLimit

RATES = st.floats(0.1, 5000)
WAITS = st.lists(st.floats(0, 3), min_size=1, max_size=60)


def beginnings(limit: RateLimit, waits: list[float]) -> list[float]:
    """When calls begin that are wanted so long after one another, each as soon as it may."""
    now, begun = 1000.0, []
    for wait in waits:
        now = max(now + wait, limit.due())
        limit.began(now)
        begun.append(now)
    return begun


@given(RATES, WAITS)
def test_in_no_span_of_time_do_more_calls_begin_than_the_limit_has(rate: float, waits: list[float]) -> None:
    begun = beginnings(RateLimit(rate), waits)
    for first, start in enumerate(begun):
        for last, end in enumerate(begun[first:], start=1):
            assert last <= 1 + rate * (end - start + TOLERANCE) + 1e-6


@given(RATES, st.integers(2, 200))
def test_who_always_has_a_call_to_make_makes_as_many_as_the_limit_has(rate: float, calls: int) -> None:
    begun = beginnings(RateLimit(rate), [0.0] * calls)
    assert begun[-1] - begun[0] <= (calls - 1) / rate + 1e-6


@given(RATES, WAITS, st.integers(1, 20))
def test_a_call_behind_others_is_due_when_they_have_begun(rate: float, waits: list[float], ahead: int) -> None:
    limit = RateLimit(rate)
    beginnings(limit, waits)
    promised = limit.due(ahead)
    for _ in range(ahead):
        limit.began(limit.due())
    assert abs(limit.due() - promised) < 1e-6


def test_the_first_call_is_due_at_once() -> None:
    assert RateLimit(0.001).due() < 0
