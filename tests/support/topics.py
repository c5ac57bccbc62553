"""The topics of one test: a set of its own on the shared broker."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._listoffsets import LatestSpec, OffsetSpec
from confluent_kafka.admin._resource import ResourceType
from confluent_kafka.cimpl import NewPartitions, NewTopic

from tests.support.wait import PATIENCE, wait_until

FOUR_MIB = 4 * 1024**2


@dataclass(frozen=True, slots=True)
class Topics:
    """Names, all beginning with `prefix`, which is unique and so also fit for groups and transactional ids."""

    prefix: str
    partitions: int
    commands: str
    events: str
    tickets: str
    journal: str
    dead_letters: str
    quarantine: str

    @property
    def all(self) -> tuple[str, ...]:
        return (
            self.commands,
            self.events,
            self.tickets,
            self.journal,
            self.dead_letters,
            self.quarantine,
        )

    @property
    def settings(self) -> dict[str, str]:
        """What every role has to be told of them."""
        names = ("commands", "events", "tickets", "journal", "dead_letters", "quarantine", "partitions")
        return {f"ADAPTER_TOPICS__{name.upper()}": str(getattr(self, name)) for name in names}


def create(bootstrap: str, *, partitions: int, replicas: int = -1, largest: int = FOUR_MIB) -> Topics:
    """A new set, every topic with that many partitions, as the design's table of topics has them; `largest` is that of
    a record in bytes, a command's being half. Returns when clients can see them all."""
    prefix = f"test-{secrets.token_hex(4)}"
    names = ("commands", "events", "tickets", "journal", "dead-letters", "quarantine")
    topics = Topics(prefix, partitions, *(f"{prefix}.{name}" for name in names))
    make(bootstrap, topics, topics.all, replicas=replicas, largest=largest)
    return topics


def remake(bootstrap: str, topics: Topics, *names: str) -> None:
    """Delete these of the topics and make them anew."""
    remove(bootstrap, *names)
    make(bootstrap, topics, names)


def remove(bootstrap: str, *names: str) -> None:
    """Delete these topics. Returns when clients see them no more."""
    client = AdminClient({"bootstrap.servers": bootstrap})
    for done in client.delete_topics(list(names)).values():
        done.result(PATIENCE)
    wait_until(lambda: not client.list_topics(timeout=PATIENCE).topics.keys() & {*names}, what="their end")


def make(bootstrap: str, topics: Topics, names: Sequence[str], *, replicas: int = -1, largest: int = FOUR_MIB) -> None:
    """Make these of the topics, which are not there. Returns when clients can see all of them."""
    client = AdminClient({"bootstrap.servers": bootstrap})
    asked = client.create_topics(
        [
            NewTopic(
                topic,
                num_partitions=topics.partitions,
                replication_factor=replicas,
                config={
                    "cleanup.policy": "compact" if topic == topics.tickets else "delete",
                    "max.message.bytes": str(largest // 2 if topic == topics.commands else largest),
                },
            )
            for topic in names
        ]
    )
    for done in asked.values():
        done.result(PATIENCE)
    wait_until(lambda: _led(client, topics) and _known(client, topics), what="a leader for every partition")


def configure(bootstrap: str, topic: str, name: str, value: str) -> None:
    """Set this of the topic's configuration, and leave the rest."""
    entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    client = AdminClient({"bootstrap.servers": bootstrap})
    client.incremental_alter_configs([resource])[resource].result(PATIENCE)


def widen(bootstrap: str, topic: str, partitions: int) -> None:
    """Give the topic so many partitions. Returns when clients see them."""
    client = AdminClient({"bootstrap.servers": bootstrap})
    client.create_partitions([NewPartitions(topic, partitions)])[topic].result(PATIENCE)
    wait_until(lambda: len(client.list_topics(topic).topics[topic].partitions) == partitions)


def delete(bootstrap: str, topics: Topics) -> None:
    """Asks again where a broker that was frozen is only about to come back."""
    for number in range(3):
        first, last = number == 0, number == 2
        client = AdminClient({"bootstrap.servers": bootstrap})
        try:
            for done in client.delete_topics(list(topics.all), request_timeout=20).values():
                done.result(timeout=25)
        except TimeoutError:
            if last:
                raise
        except KafkaException as error:
            if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART and not first:  # the one before had done it
                return
            if last:
                raise
        else:
            return


def _led(client: AdminClient, topics: Topics) -> bool:
    known = client.list_topics(timeout=PATIENCE).topics
    return all(
        topic in known
        and len(known[topic].partitions) == topics.partitions
        and all(partition.leader >= 0 for partition in known[topic].partitions.values())
        for topic in topics.all
    )


def _known(client: AdminClient, topics: Topics) -> bool:
    """Whether they know of it themselves: they are named before that."""
    end: OffsetSpec = LatestSpec()  # type: ignore[no-untyped-call]  # as the library has it
    ends = {TopicPartition(topic, number): end for topic in topics.all for number in range(topics.partitions)}
    try:
        for asked in client.list_offsets(ends).values():
            asked.result(PATIENCE)
    except KafkaException:
        return False
    return True
