"""The broker the other tests stand on does what they take for granted."""

from collections.abc import Callable

from confluent_kafka.admin import AdminClient

from tests.support.topics import Topics
from tests.support.wait import PATIENCE


def test_a_set_of_topics_is_there_with_the_partitions_asked_for(
    kafka: str, create_topics: Callable[..., Topics]
) -> None:
    topics = create_topics(partitions=8)
    known = AdminClient({"bootstrap.servers": kafka}).list_topics(timeout=PATIENCE).topics
    assert {len(known[topic].partitions) for topic in topics.all} == {8}


def test_two_sets_of_topics_share_no_name(create_topics: Callable[..., Topics]) -> None:
    assert not set(create_topics(partitions=1).all) & set(create_topics(partitions=1).all)
