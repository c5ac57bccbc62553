"""librdkafka's mock cluster: one broker inside this process that any client on this machine can talk to.

For the demo only. It keeps records in memory, forgets offsets that were committed in a transaction, shows records of
aborted transactions, creates topics on first use with four partitions and knows neither their ids nor their
configuration. Nothing seen on it proves anything about Kafka.
"""

from collections.abc import Iterable
from typing import Final

from confluent_kafka import KafkaException, Producer

from adapter.core.errors import Unavailable

PARTITIONS: Final = 4
"""Of every topic."""

_LIMIT: Final = 5.0


class MockCluster:
    """Runs from the constructor to `close`. Raises Unavailable if it does not start."""

    def __init__(self) -> None:
        # A client with this property brings the cluster along and ends it when it is freed.
        self._client: Producer | None = Producer({"test.mock.num.brokers": 1, "log_level": 0})
        try:
            brokers = self._client.list_topics(timeout=_LIMIT).brokers.values()
        except KafkaException as error:
            raise Unavailable(f"the mock cluster does not start: {error.args[0].str()}") from None
        self.bootstrap = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)

    def create(self, topics: Iterable[str]) -> None:
        """Create these topics. A consumer that subscribes before its topic exists would wait for seconds."""
        assert self._client is not None, "closed"
        for topic in topics:
            self._client.list_topics(topic, timeout=_LIMIT)

    def close(self) -> None:
        self._client = None


def is_mock(cluster_id: str) -> bool:
    """Whether a cluster with this id is a mock one; the ids of real ones are 16 random bytes in base64."""
    return cluster_id.startswith("mockCluster")
