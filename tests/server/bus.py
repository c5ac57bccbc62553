"""What is in a topic, read by a client of its own."""

from dataclasses import dataclass
from uuid import uuid4

from confluent_kafka import Consumer, TopicPartition

from tests.support.wait import PATIENCE


@dataclass(frozen=True, slots=True)
class Record:
    key: bytes | None
    value: bytes
    headers: dict[str, str]

    @property
    def id(self) -> str:
        return self.headers["ce_id"]


def records(bootstrap: str, topic: str) -> list[Record]:
    """All of them, partition by partition."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": str(uuid4()), "enable.auto.commit": False, "log_level": 0}
    )
    found: list[Record] = []
    try:
        for number in consumer.list_topics(topic, timeout=PATIENCE).topics[topic].partitions:
            first, end = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=PATIENCE)
            consumer.assign([TopicPartition(topic, number, first)])
            while first < end:
                message = consumer.poll(PATIENCE)
                assert message is not None, "the topic can't be read to its end"
                assert message.error() is None, message.error()
                headers = {name: (text or b"").decode() for name, text in message.headers() or []}  # type: ignore[str-unpack, union-attr]  # a list of pairs
                assert len(headers) == len(message.headers() or []), "one header twice"
                found.append(Record(message.key(), message.value() or b"", headers))
                first = (message.offset() or 0) + 1
    finally:
        consumer.close()
    return found
