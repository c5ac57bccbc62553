"""What roles have in common at their start."""

from datetime import timedelta

import pytest

from adapter.app.start import membership
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
