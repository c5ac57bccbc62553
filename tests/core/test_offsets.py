import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from adapter.core.offsets import Frontier


def delivered(position: int, *offsets: int) -> Frontier:
    frontier = Frontier(position)
    assert all(frontier.deliver(offset) for offset in offsets)
    return frontier


def test_nothing_delivered_leaves_the_position_where_it_was() -> None:
    frontier = Frontier(7)
    assert (frontier.position, frontier.span, frontier.oldest) == (7, 0, None)


def test_work_finished_in_order_moves_the_position_past_each() -> None:
    frontier = delivered(0, 0, 1, 2)
    positions = []
    for offset in range(3):
        frontier.finish(offset)
        positions.append(frontier.position)
    assert positions == [1, 2, 3]


def test_work_finished_ahead_of_older_work_waits_for_it() -> None:
    frontier = delivered(0, 0, 1, 2)
    frontier.finish(2)
    frontier.finish(1)
    assert (frontier.position, frontier.span, frontier.oldest) == (0, 3, 0)
    frontier.finish(0)
    assert (frontier.position, frontier.span, frontier.oldest) == (3, 0, None)


def test_holes_in_the_offsets_hold_nothing_back() -> None:
    frontier = delivered(10, 12, 13, 20)
    frontier.finish(12)
    assert frontier.position == 13
    frontier.finish(20)
    assert frontier.position == 13
    frontier.finish(13)
    assert frontier.position == 21


def test_the_leader_epoch_is_that_of_the_last_record_before_the_position() -> None:
    frontier = Frontier(10, 3)
    for offset, leader_epoch in ((10, 3), (12, 5), (13, 5), (14, 8)):
        assert frontier.deliver(offset, leader_epoch)
    committed = [(frontier.position, frontier.leader_epoch)]
    for offset in (10, 13, 12, 14):
        frontier.finish(offset)
        committed.append((frontier.position, frontier.leader_epoch))
    assert committed == [(10, 3), (11, 3), (11, 3), (14, 5), (15, 8)]


def test_a_delivery_below_what_was_seen_is_told_and_changes_nothing() -> None:
    frontier = delivered(5, 6, 9)
    assert [frontier.deliver(offset) for offset in (4, 5, 6, 8, 9)] == [False] * 5
    assert frontier.span == 2
    frontier.finish(6)
    frontier.finish(9)
    assert not frontier.deliver(9)
    assert frontier.deliver(10)


@pytest.mark.parametrize(
    "offset",
    [
        pytest.param(5, id="never-delivered-and-below-the-position"),
        pytest.param(6, id="finished-and-passed"),
        pytest.param(8, id="a-hole"),
        pytest.param(9, id="finished-behind-older-work"),
        pytest.param(11, id="above-all-deliveries"),
    ],
)
def test_finishing_what_is_not_unfinished_work_is_an_error_and_changes_nothing(offset: int) -> None:
    frontier = delivered(5, 6, 7, 9, 10)
    frontier.finish(6)
    frontier.finish(9)
    with pytest.raises(ValueError, match=str(offset)):
        frontier.finish(offset)
    assert (frontier.position, frontier.span, frontier.oldest) == (7, 3, 7)


def test_finishing_before_any_delivery_is_an_error() -> None:
    with pytest.raises(ValueError, match="0"):
        Frontier(0).finish(0)


class Deliveries(RuleBasedStateMachine):
    """The frontier against the plain list of what was delivered and the plain set of what was finished."""

    @initialize(start=st.integers(0, 50))
    def assign(self, start: int) -> None:
        self.start = start
        self.frontier = Frontier(start, 0)
        self.seen: list[int] = []
        self.epochs = {start - 1: 0}
        self.done: set[int] = set()

    @rule(hole=st.integers(0, 3), elections=st.integers(0, 1))
    def deliver_the_next(self, hole: int, elections: int) -> None:
        before = self.seen[-1] if self.seen else self.start - 1
        offset = before + 1 + hole
        self.epochs[offset] = self.epochs[before] + elections
        assert self.frontier.deliver(offset, self.epochs[offset])
        self.seen.append(offset)

    @rule(back=st.integers(0, 60))
    def deliver_again(self, back: int) -> None:
        last = self.seen[-1] if self.seen else self.start - 1
        assert not self.frontier.deliver(last - back)

    @precondition(lambda self: set(self.seen) - self.done)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        offset = data.draw(st.sampled_from(sorted(set(self.seen) - self.done)))
        self.frontier.finish(offset)
        self.done.add(offset)

    @rule(offset=st.integers(0, 120))
    def finish_something_else(self, offset: int) -> None:
        if offset in set(self.seen) - self.done:
            return
        with pytest.raises(ValueError, match="unfinished"):
            self.frontier.finish(offset)

    @invariant()
    def agrees_with_the_model(self) -> None:
        unfinished = [offset for offset in self.seen if offset not in self.done]
        finished_before = [offset for offset in self.seen if offset < unfinished[0]] if unfinished else self.seen
        position = finished_before[-1] + 1 if finished_before else self.start
        frontier = self.frontier
        assert frontier.position == position
        assert frontier.leader_epoch == self.epochs[position - 1]
        assert all(offset in self.done for offset in self.seen if offset < frontier.position)
        assert frontier.oldest == (unfinished[0] if unfinished else None)
        assert frontier.span == sum(offset >= position for offset in self.seen)


TestDeliveries = Deliveries.TestCase
TestDeliveries.settings = settings(deadline=None, max_examples=60, stateful_step_count=40)
