"""What a client's statistics say of the brokers that it knows."""

import pytest

from adapter.transport.kafka.known import KnownBrokers

LEARNED = '{"name":"rdkafka#consumer-1","brokers":{"b:9092/1":{"name":"b:9092/1","source":"learned"}}}'
CONFIGURED = LEARNED.replace("learned", "configured")
NONE = '{"name":"rdkafka#consumer-1","brokers":{"GroupCoordinator":{"name":"GroupCoordinator","source":"logical"}}}'


@pytest.mark.parametrize(
    ("told", "forgotten"),
    [
        ((), False),
        ((LEARNED, LEARNED), False),
        ((CONFIGURED, CONFIGURED), False),
        ((LEARNED, NONE, NONE), True),
        ((NONE, LEARNED, NONE), False),  # between forgetting and learning
        ((NONE, NONE, LEARNED), False),
        ((NONE.replace('":', '": '),) * 3, False),  # of another form: it may know as many as it likes
    ],
)
def test_brokers_are_forgotten_once_two_statistics_in_a_row_name_none_of_use(
    told: tuple[str, ...], *, forgotten: bool
) -> None:
    brokers = KnownBrokers()
    for statistics in told:
        brokers.properties()["stats_cb"](statistics)
    assert brokers.forgotten == forgotten
