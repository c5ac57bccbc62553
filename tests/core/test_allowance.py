"""The limit that long replies share: its laws, for any order of requests and releases."""

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from adapter.core.allowance import Allowance, Share

SIZE = 100

acts = st.one_of(
    st.tuples(st.just("ask"), st.integers(1, 150)),
    st.tuples(st.just("shrink"), st.integers(0, 50)),
    st.tuples(st.just("release"), st.integers(0, 50)),
)
"""What is done; how many bytes are asked for, or which one it is done to."""


@dataclass(eq=False)
class Asker:
    size: int
    told: list["Asker"]
    share: Share = field(init=False)

    def ask(self, allowance: Allowance) -> None:
        self.share = allowance.request(self.size, lambda: self.told.append(self))
        if self.share.granted:
            self.told.append(self)


@given(st.lists(acts, max_size=60))
def test_no_more_than_the_limit_is_granted_in_the_order_of_requests_and_nobody_waits_for_what_is_left(
    story: list[tuple[str, int]],
) -> None:
    allowance = Allowance(SIZE)
    told: list[Asker] = []
    askers: list[Asker] = []
    over: list[Asker] = []
    for act, number in story:
        if act == "ask":
            askers.append(Asker(number, told))
            askers[-1].ask(allowance)
        elif askers and act == "shrink":
            asker = askers[number % len(askers)]
            if asker.share.granted:
                asker.share.shrink(number)
        elif askers:
            asker = askers[number % len(askers)]
            asker.share.release()
            asker.share.release()
            over.append(asker)
        granted = sum(asker.share.size for asker in askers if asker.share.granted)
        assert 0 <= granted <= SIZE
        assert allowance.left == SIZE - granted
        waiting = [asker for asker in askers if not asker.share.granted and asker not in over]
        assert not waiting or min(waiting[0].size, SIZE) > allowance.left
    assert told == [asker for asker in askers if asker in told]
    assert len(set(told)) == len(told)
    for asker in askers:
        asker.share.release()
    assert allowance.left == SIZE
    assert set(told) | set(over) | {asker for asker in askers if not asker.share.granted} == set(askers)


def test_all_requests_are_granted_one_after_another() -> None:
    allowance = Allowance(SIZE)
    told: list[Asker] = []
    askers = [Asker(size, told) for size in (60, 1000, 1, 60, 60, 40)]
    for asker in askers:
        asker.ask(allowance)
    done = 0
    while done < len(told):
        told[done].share.release()
        done += 1
    assert told == askers
