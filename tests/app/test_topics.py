"""The topics of a role, at its start and while it runs."""

import pytest

from adapter.app.topics import Partitions, Seen
from adapter.core.errors import Stop


def topics(counts: dict[str, int], ids: str = "12") -> Partitions:
    """Of a cluster that has these topics; an id for each."""
    identities = dict(zip(counts, ids, strict=False))
    return Partitions(
        count=lambda names: {n: c for n, c in counts.items() if n in names},
        identify=lambda names: {n: i for n, i in identities.items() if n in names},
        keyed=("a", "b"),
        others=("c",),
        originals={"b": "A chapter"},
    )


BEFORE = Seen(3, {"b": "2"})


def test_topics_of_one_key_have_one_number_of_partitions() -> None:
    assert topics({"a": 3, "b": 3, "c": 1}).look() == BEFORE


@pytest.mark.parametrize(
    ("counts", "says"),
    [
        ({"a": 3}, ["b: the topic is missing", "c: the topic is missing"]),
        ({"a": 3, "b": 4, "c": 1}, ["the same number of partitions: a has 3, b has 4"]),
    ],
)
def test_a_start_without_them_stops_and_says_what_to_do(counts: dict[str, int], says: list[str]) -> None:
    with pytest.raises(Stop) as stopped:
        topics(counts).look()
    assert all(each in str(stopped.value) for each in says)


@pytest.mark.parametrize("counts", [{}, {"a": 3}, {"a": 0, "b": 3}, {"a": 3, "b": 3}])
def test_a_topic_that_a_broker_does_not_know_for_a_moment_has_not_changed(counts: dict[str, int]) -> None:
    topics(counts).check(BEFORE)


def test_a_topic_whose_partitions_change_while_running_stops_the_intake() -> None:
    with pytest.raises(Stop, match=r'b had 3 partitions and has 4.*; see "Partitions were added" in docs/disaster.md'):
        topics({"a": 3, "b": 4}).check(BEFORE)


def test_a_topic_that_is_made_anew_while_running_stops_the_intake() -> None:
    with pytest.raises(Stop, match=r'b was deleted and made anew while we ran: see "A chapter" in docs/disaster.md'):
        topics({"a": 3, "b": 3}, "19").check(BEFORE)
