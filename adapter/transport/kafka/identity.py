"""Whether a topic is still the one it was: a name says nothing, topics are deleted and made anew."""

from collections.abc import Mapping

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from adapter.core.errors import Unavailable
from adapter.transport.kafka.mock import is_mock
from adapter.transport.kafka.span import STEP


def identity(client: Mapping[str, str], *topics: str) -> str:
    """Of the cluster and these topics. Blocks. Raises Unavailable."""
    admin = AdminClient({**client, "log_level": 0})  # what goes wrong is raised
    try:
        cluster = admin.list_topics(timeout=STEP).cluster_id or ""
        if is_mock(cluster):  # serves no topic ids, but its topics live and die with the cluster
            return "/".join((cluster, *topics))
        asked = admin.describe_topics(TopicCollection(list(topics)), request_timeout=STEP)
        return "/".join((cluster, *(str(asked[name].result().topic_id) for name in topics)))
    except KafkaException as error:
        raise Unavailable(f"{', '.join(topics)}: {error.args[0].str()}") from error
