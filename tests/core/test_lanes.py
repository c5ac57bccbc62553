import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from adapter.core.lanes import Lanes

KEYS = [b"", b"a", b"b", b"c"]


def test_the_first_item_of_a_lane_starts_it_and_the_next_ones_do_not() -> None:
    lanes = Lanes[str]()
    assert [lanes.put(b"a", "one"), lanes.put(b"a", "two"), lanes.put(b"b", "one")] == [True, False, True]
    assert (len(lanes), list(lanes)) == (2, [b"a", b"b"])


def test_items_of_a_lane_take_their_turns_in_order() -> None:
    lanes = Lanes[str]()
    for item in ("one", "two", "three"):
        lanes.put(b"a", item)
    assert (lanes.head(b"a"), lanes.behind(b"a")) == ("one", ("two", "three"))
    assert (lanes.done(b"a"), lanes.head(b"a"), lanes.behind(b"a")) == ("two", "two", ("three",))
    assert (lanes.done(b"a"), lanes.done(b"a")) == ("three", None)


def test_a_lane_without_work_is_gone_and_the_next_item_starts_it_again() -> None:
    lanes = Lanes[str]()
    lanes.put(b"a", "one")
    assert lanes.done(b"a") is None
    assert (lanes.head(b"a"), lanes.behind(b"a"), len(lanes), list(lanes)) == (None, (), 0, [])
    with pytest.raises(KeyError):
        lanes.done(b"a")
    assert lanes.put(b"a", "two")


def test_the_head_is_not_behind_itself() -> None:
    lanes = Lanes[str]()
    lanes.put(b"a", "one")
    assert lanes.behind(b"a") == ()


def test_what_is_done_before_its_turn_leaves_the_lane_and_the_others_stay_in_order() -> None:
    lanes = Lanes[int]()
    for item in range(6):
        lanes.put(b"a", item)
    lanes.strike(b"a", {1, 3, 4})
    assert (lanes.head(b"a"), lanes.behind(b"a")) == (0, (2, 5))


class Queues(RuleBasedStateMachine):
    """The lanes against plain lists, run by somebody who starts a lane only when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.lanes = Lanes[int]()
        self.waiting: dict[bytes, list[int]] = {}
        self.running: set[bytes] = set()
        self.items = 0

    @rule(key=st.sampled_from(KEYS))
    def put(self, key: bytes) -> None:
        self.items += 1
        started = self.lanes.put(key, self.items)
        assert started == (key not in self.running), "started exactly once while it holds work"
        self.running.add(key)
        self.waiting.setdefault(key, []).append(self.items)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.running)))
        ended = self.waiting[key].pop(0)
        following = self.lanes.done(key)
        if following is None:
            assert self.waiting.pop(key) == []
            self.running.discard(key)
        else:
            assert following == self.waiting[key][0]
            assert following > ended

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def strike(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.running)))
        head, *behind = self.waiting[key]
        struck = data.draw(st.sets(st.sampled_from(behind))) if behind else set()
        self.lanes.strike(key, struck)
        self.waiting[key] = [head, *(item for item in behind if item not in struck)]

    @invariant()
    def agrees_with_the_model(self) -> None:
        assert set(self.lanes) == self.running
        assert len(self.lanes) == len(self.running)
        for key in KEYS:
            queue = self.waiting.get(key, [])
            assert self.lanes.head(key) == (queue[0] if queue else None)
            assert self.lanes.behind(key) == tuple(queue[1:])


TestQueues = Queues.TestCase
TestQueues.settings = settings(deadline=None, max_examples=60, stateful_step_count=40)
