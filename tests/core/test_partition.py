"""Keys and their partitions, against what librdkafka does."""

import pytest
from confluent_kafka import Producer
from hypothesis import given
from hypothesis import strategies as st

from adapter.core.partition import partition_of


@pytest.mark.parametrize(
    ("key", "hashed"),
    # org.apache.kafka.common.utils.UtilsTest.testMurmur2
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_a_key_goes_where_the_java_client_sends_it(key: bytes, hashed: int) -> None:
    assert partition_of(key, 1_000_003) == (hashed & 0x7FFFFFFF) % 1_000_003


@given(st.binary(max_size=40), st.integers(min_value=1, max_value=64))
def test_every_key_has_a_partition(key: bytes, partitions: int) -> None:
    assert 0 <= partition_of(key, partitions) < partitions


def test_librdkafka_agrees() -> None:
    producer = Producer({"test.mock.num.brokers": 1, "partitioner": "murmur2_random", "linger.ms": 0})
    partitions = len(producer.list_topics("keys", timeout=10).topics["keys"].partitions)
    placed: dict[bytes, int] = {}

    def note(_error: object, message: object) -> None:
        assert isinstance(message.partition(), int)  # type: ignore[attr-defined]  # the stub knows no message here
        placed[message.key()] = message.partition()  # type: ignore[attr-defined]  # as above

    for number in range(100):
        producer.produce("keys", b"", f"key-{number}".encode(), on_delivery=note)
    producer.flush(10)
    assert placed == {key: partition_of(key, partitions) for key in placed}
    assert len(placed) == 100
