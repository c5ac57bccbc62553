"""The server's producer: whether the cluster answers it."""

from datetime import timedelta

import pytest

from adapter.core.errors import Unavailable
from adapter.transport.kafka.publisher import KafkaPublisher
from tests.support.ports import free_port


def publisher(bootstrap: str) -> KafkaPublisher:
    client = {"bootstrap.servers": bootstrap, "log_level": "0"}
    return KafkaPublisher(client=client, timeout=timedelta(seconds=1), max_message_bytes=10**6, report=lambda _: None)


async def test_a_cluster_that_is_there_answers(kafka: str) -> None:
    asking = publisher(kafka)
    await asking.answers()
    await asking.close()


async def test_one_that_is_not_there_is_unavailable() -> None:
    asking = publisher(f"127.0.0.1:{free_port()}")
    with pytest.raises(Unavailable):
        await asking.answers()
    await asking.close()
