"""What every role does at its start."""

from datetime import timedelta

import pytest

from adapter.app.start import Partitions, Seen, membership
from adapter.core.errors import Stop
from adapter.settings import GroupProtocol, Kafka


@pytest.mark.parametrize("protocol", GroupProtocol)
@pytest.mark.parametrize(("giving_back", "waits"), [(2, 15_000), (55, 60_000)])
def test_a_rebalance_waits_for_a_silent_member_as_long_as_one_may_take_to_give_its_partitions_back(
    protocol: GroupProtocol, giving_back: int, waits: int
) -> None:
    kafka = Kafka(bootstrap_servers="kafka:9092", group_protocol=protocol, session_timeout=timedelta(seconds=10))
    member = membership(kafka, "workers", giving_back=timedelta(seconds=giving_back))
    assert member["max.poll.interval.ms"] == str(waits)


def test_a_member_hears_of_a_rebalance_within_a_tenth_of_its_session() -> None:
    kafka = Kafka(bootstrap_servers="kafka:9092", session_timeout=timedelta(seconds=10))
    member = membership(kafka, "workers", giving_back=timedelta(seconds=2))
    assert member["heartbeat.interval.ms"] == "1000"


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
