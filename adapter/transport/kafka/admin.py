"""Topics as the adapter needs them and as they are: what is missing or differs, and creating what is missing.

Existing topics are never reconfigured: a change of the partition count moves keys, a shorter retention deletes records.
"""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._metadata import ClusterMetadata
from confluent_kafka.admin._resource import ResourceType
from confluent_kafka.admin._topic import TopicDescription
from confluent_kafka.cimpl import NewTopic

from adapter.core.errors import Stop, Unavailable
from adapter.settings import Topics
from adapter.transport.kafka.heard import UNANSWERED, Heard
from adapter.transport.kafka.mock import is_mock
from adapter.transport.kafka.refusal import properties_told

_SETTING: Final = "ADAPTER_TOPICS__"
_SETTINGS: Final = {"retention.ms": "RETENTION__…", "max.message.bytes": "MAX_MESSAGE_BYTES"}
"""The setting from which the adapter derives a topic's configuration, by that configuration's name."""


class Wish(StrEnum):
    """How an actual value is compared with the wanted one."""

    EXACTLY = "exactly"
    AT_LEAST = "at least"
    AT_MOST = "at most"


@dataclass(frozen=True, slots=True)
class Config:
    """One configuration entry of a topic. Numbers are compared as numbers; a retention of -1 means for ever."""

    name: str
    value: str
    wish: Wish
    vital: bool = False
    """Whether a delivery guarantee depends on it."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A topic as the adapter needs it. `keyed`: it is co-partitioned with the commands."""

    name: str
    partitions: int
    replication_factor: int
    keyed: bool
    config: tuple[Config, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """A topic as it is. `config` is None if we have no right to read it, and lacks what the cluster does not tell."""

    partitions: int
    replication_factor: int
    config: Mapping[str, str] | None
    leaderless: int = 0
    """Number of partitions that can't be read or written: the brokers that have them are down."""
    short: int = 0
    """Number of partitions that can't be written: fewer replicas are in sync than `min.insync.replicas`."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One way in which a topic is not as wanted. `fix`: what to do about it. `vital`: until that is done, a guarantee
    does not hold, or the adapter does not start.
    """

    topic: str
    text: str
    fix: str
    vital: bool

    def __str__(self) -> str:
        return f"{self.topic}: {self.text}"


def wanted(topics: Topics) -> tuple[Wanted, ...]:
    """All topics of a deployment.

    The commands topic takes records half as long as the others: a command must fit, with headers, into the dead letters
    and the journal. Its records are dated on arrival: producers may date them back, as Kafka Streams does with what it
    makes of old records, and Kafka would delete them before anybody has read them.
    """
    names, keep = topics.names(), topics.retention
    large = topics.max_message_bytes

    def topic(name: str, *config: Config, keyed: bool = True, longest: int = large) -> Wanted:
        size_wish = Wish.AT_LEAST if longest == large else Wish.AT_MOST
        in_sync = max(1, topics.replication_factor - 1)
        return Wanted(
            name,
            topics.partitions,
            topics.replication_factor,
            keyed,
            (
                *config,
                Config("max.message.bytes", str(longest), size_wish, vital=True),
                Config("min.insync.replicas", str(in_sync), Wish.AT_LEAST),
            ),
        )

    return (
        topic(
            names.commands,
            *_kept(keep.commands),
            Config("message.timestamp.type", "LogAppendTime", Wish.EXACTLY),
            longest=large // 2,
        ),
        topic(names.events, *_kept(keep.events)),
        topic(names.tickets, Config("cleanup.policy", "compact", Wish.EXACTLY, vital=True)),
        topic(names.journal, *_kept(keep.journal, vital=True)),
        topic(names.dead_letters, *_kept(keep.dead_letters), keyed=False),
        topic(names.quarantine, *_kept(keep.quarantine), keyed=False),
    )


def differences(wants: Iterable[Wanted], found: Mapping[str, Found]) -> Iterator[Difference]:
    """The differences between wanted and existing topics; none if all is well."""
    for want in wants:
        have = found.get(want.name)
        if have is None:
            yield _missing(want)
            continue
        if want.keyed and have.partitions != want.partitions:
            text = f"has {have.partitions} partitions, wanted are {want.partitions}"
            fix = (
                f"{_SETTING}PARTITIONS={have.partitions}, or a new topic before there are commands: later it moves keys"
            )
            yield Difference(want.name, text, fix, vital=True)
        if have.replication_factor < want.replication_factor:
            text = f"has {have.replication_factor} copies of each partition, wanted are {want.replication_factor}"
            fix = f"kafka-reassign-partitions.sh, or {_SETTING}REPLICATION_FACTOR={have.replication_factor}"
            yield Difference(want.name, text, fix, vital=False)
        if have.config is None:
            text, fix = "its configuration can't be read", "grant DESCRIBE_CONFIGS on it (kafka-acls.sh --add)"
            yield Difference(want.name, text, fix, vital=False)
            continue
        yield from _misconfigured(want, have.config)


class Admin:
    """Reads and creates the cluster's topics. Every method blocks: call it on another thread than the loop's."""

    def __init__(self, client: Mapping[str, str], *, timeout: timedelta = timedelta(seconds=10)) -> None:
        """`client`: librdkafka's properties. Raises Stop if it refuses one of them."""
        self._timeout = timeout.total_seconds()
        self._properties = dict(client)
        self._cluster = ""
        """Id of the cluster, once known. Kept, since the answer that holds it lists all topics."""
        with properties_told():
            self._client, self._heard = self._connected()

    def cluster_id(self) -> str:
        """Raises Unavailable."""
        return self._metadata().cluster_id or ""

    def brokers(self) -> list[tuple[str, int]]:
        """Host and port of each broker, as the cluster tells them to its clients. Raises Unavailable."""
        return [(str(broker.host), broker.port) for broker in self._metadata().brokers.values()]

    def partition_counts(self, names: Sequence[str]) -> dict[str, int]:
        """The numbers of partitions of those topics that exist. Raises Unavailable."""
        topics = self._metadata().topics
        return {name: len(topics[name].partitions) for name in names if name in topics}

    def identities(self, names: Sequence[str]) -> dict[str, str]:
        """For each of the topics that exists, "cluster id/topic id". Unlike its name, that tells a topic from one that
        was deleted and created again. Raises Unavailable.
        """
        cluster = self._cluster = self._cluster or self.cluster_id()
        if is_mock(cluster):  # serves no topic ids, but its topics live and die with the cluster
            return {name: f"{cluster}/{name}" for name in names}
        client = self._client  # which ends its answers if nobody knows of it any more
        asked = client.describe_topics(TopicCollection(list(names)), request_timeout=self._timeout)
        found: dict[str, str] = {}
        for name, answer in asked.items():
            try:
                found[name] = f"{cluster}/{self._wait(answer).topic_id}"
            except KafkaException as error:
                if _code(error) != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise Unavailable(f"{name}: {_text(error)}") from None
        return found

    def misconfigured(self, wants: Sequence[Wanted]) -> list[Difference]:
        """The topics that are missing, and the vital differences in the configuration of the others, as far as we have
        the right to read it. Raises Stop with a refusal, Unavailable.
        """
        found = self._config([want.name for want in wants])
        missing = [_missing(want) for want in wants if want.name not in found]
        unlike = (each for want in wants for each in _misconfigured(want, found.get(want.name) or {}))
        return missing + [each for each in unlike if each.vital]

    def find(self, names: Sequence[str]) -> dict[str, Found]:
        """The topics of these names that exist. Raises Stop with every refusal, Unavailable."""
        existing = self._existing(names)
        config = self._config(list(existing)) if existing else {}
        return {name: _found(topic, config.get(name)) for name, topic in existing.items()}

    def rights(self, names: Sequence[str]) -> dict[str, frozenset[str]]:
        """Our rights on those of the topics that exist, as far as the cluster tells them: "READ", "WRITE" and so on.
        All rights if it has no access rules. Raises Unavailable.
        """
        asked = self._client.describe_topics(
            TopicCollection(list(names)), request_timeout=self._timeout, include_authorized_operations=True
        )
        found: dict[str, frozenset[str]] = {}
        for name, answer in asked.items():
            try:
                operations = self._wait(answer).authorized_operations
            except KafkaException as error:
                if _code(error) == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                    found[name] = frozenset()
                continue
            if operations is not None:
                found[name] = frozenset(operation.name for operation in operations)
        return found

    def group_rights(self, group: str) -> frozenset[str] | None:
        """Our rights on a group, which need not exist, or None if the cluster does not tell. Raises Unavailable."""
        asked = self._client.describe_consumer_groups(
            [group], request_timeout=self._timeout, include_authorized_operations=True
        )
        try:
            operations = self._wait(asked[group]).authorized_operations
        except KafkaException as error:
            if _code(error) in NO_COORDINATOR:
                raise Unavailable(f"{group}: {_text(error)}") from None
            return frozenset() if _code(error) == KafkaError.GROUP_AUTHORIZATION_FAILED else None
        return None if operations is None else frozenset(operation.name for operation in operations)

    def group_topics(self, group: str) -> frozenset[str]:
        """The topics that members of a consumer group read at the moment. Empty if the cluster does not tell."""
        asked = self._client.describe_consumer_groups([group], request_timeout=self._timeout)
        try:
            members = self._wait(asked[group]).members
        except KafkaException:
            return frozenset()
        return frozenset(at.topic for member in members for at in member.assignment.topic_partitions)

    def create(self, topics: Iterable[Wanted]) -> None:
        """Create these topics; one that exists by now is left alone. Raises Stop with every refusal, Unavailable."""
        orders = [
            NewTopic(
                t.name,
                num_partitions=t.partitions,
                replication_factor=t.replication_factor,
                config={c.name: c.value for c in t.config},
            )
            for t in topics
        ]
        if not orders:
            return
        faults: list[str] = []
        for name, done in self._client.create_topics(orders, request_timeout=self._timeout).items():
            try:
                self._wait(done)
            except KafkaException as error:
                if _code(error) != KafkaError.TOPIC_ALREADY_EXISTS:
                    faults.append(f"{name}: {_text(error)}{_CURES.get(_code(error), '')}")
        if faults:
            raise Stop(*faults)

    def delete(self, names: Sequence[str]) -> None:
        """Delete these topics and their records. One that does not exist is no fault. Raises Stop, Unavailable."""
        faults: list[str] = []
        for name, done in self._client.delete_topics(list(names), request_timeout=self._timeout).items():
            try:
                self._wait(done)
            except KafkaException as error:
                if _code(error) != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    faults.append(f"{name}: {_text(error)}")
        if faults:
            raise Stop(*faults)

    def _metadata(self) -> ClusterMetadata:
        # Asks for all topics: asking for one by name creates it if the cluster has auto.create.topics.enable.
        try:
            return self._client.list_topics(timeout=self._timeout)
        except KafkaException as error:
            raise self._unavailable(error) from None

    def _existing(self, names: Sequence[str]) -> dict[str, TopicDescription]:
        existing: dict[str, TopicDescription] = {}
        faults: list[str] = []
        client = self._client  # which ends its answers if nobody knows of it any more
        asked = client.describe_topics(TopicCollection(list(names)), request_timeout=self._timeout)
        for name, answer in asked.items():
            try:
                existing[name] = self._wait(answer)
            except KafkaException as error:
                if _code(error) == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                    faults.append(f"{name}: no right to see whether it exists; grant DESCRIBE on it (kafka-acls.sh)")
                elif _code(error) != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    faults.append(f"{name}: {_text(error)}")
        if faults:
            raise Stop(*faults)
        return existing

    def _config(self, names: Sequence[str]) -> dict[str, Mapping[str, str] | None]:
        """Of those topics that exist; None without the right to read it."""
        asked = self._client.describe_configs(
            [ConfigResource(ResourceType.TOPIC, name) for name in names], request_timeout=self._timeout
        )
        config: dict[str, Mapping[str, str] | None] = {}
        for resource, answer in asked.items():
            try:
                entries = self._wait(answer)
            except KafkaException as error:
                if _code(error) == KafkaError.UNKNOWN_TOPIC_OR_PART:
                    continue
                if _code(error) == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                    config[resource.name] = None
                    continue
                if _code(error) == KafkaError._UNSUPPORTED_FEATURE:
                    config[resource.name] = {}
                    continue
                raise Stop(f"{resource.name}: {_text(error)}") from None
            config[resource.name] = {name: entry.value for name, entry in entries.items() if entry.value is not None}
        return config

    def _wait(self, answer: "Future[Any]") -> Any:
        try:
            return answer.result(self._timeout + 1)
        except TimeoutError:
            raise Unavailable("the cluster does not answer") from None
        except KafkaException as error:
            if _code(error) in UNANSWERED:
                raise self._unavailable(error) from None
            raise

    def _connected(self) -> tuple[AdminClient, Heard]:
        """A new client, and what is heard of its connections: what was heard of another's may be long over."""
        # Not `self`: a callback that knew it would be a cycle, and an unused admin should end at once with its client.
        heard = Heard()
        return AdminClient({**self._properties, **heard.properties()}), heard

    def _unavailable(self, error: KafkaException) -> Unavailable:
        self._client.poll(0)  # delivers to `_heard` what librdkafka knows of the connections
        why = self._heard.why(error.args[0])
        # A client whose broker is gone tries it in a busy loop until the time is up, and again with the next request.
        with suppress(KafkaException):  # the files of its certificates may be of no use at present
            self._client, self._heard = self._connected()
        return Unavailable(f"the cluster does not answer: {why}")


_CURES: Final = {
    KafkaError.INVALID_REPLICATION_FACTOR: "; set ADAPTER_TOPICS__REPLICATION_FACTOR to what the cluster has",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "; grant the right to create it (kafka-acls.sh)",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "; grant the right to create it (kafka-acls.sh)",
}
"""What to do about a refusal, where it is known."""
NO_COORDINATOR: Final = frozenset(
    {KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.NOT_COORDINATOR}
)
"""Errors about a group whose coordinator has just started, or is about to."""


def require_topics(needed: Iterable[str], found: Container[str]) -> None:
    """Raises Stop with the topics of `needed` that are not among those the cluster listed. It leaves out topics that we
    have no right to describe.
    """
    cure = "adapter topics create makes it, or says which right is missing"
    if missing := [name for name in needed if name not in found]:
        raise Stop(*(f"{name}: the topic is missing, or we may not see it; {cure}" for name in missing))


def _found(topic: TopicDescription, config: Mapping[str, str] | None) -> Found:
    led = [partition for partition in topic.partitions if partition.leader is not None]
    needed = int((config or {}).get("min.insync.replicas", 1))
    return Found(
        partitions=len(topic.partitions),
        replication_factor=min((len(partition.replicas) for partition in topic.partitions), default=0),
        config=config,
        leaderless=len(topic.partitions) - len(led),
        short=sum(len(partition.isr) < min(needed, len(partition.replicas)) for partition in led),
    )


def configuring(topic: str, name: str, value: str) -> str:
    """The command that sets this of the topic's configuration, but for the address of the cluster."""
    return (
        "kafka-configs.sh --bootstrap-server … --alter --entity-type topics "
        f"--entity-name {topic} --add-config {name}={value}"
    )


def resetting(group: str, topic: str, to: str) -> str:
    """The command that sets the group's offsets in the topic, or in one of its partitions (`topic:1`), but for the
    address of the cluster.
    """
    return (
        f"kafka-consumer-groups.sh --bootstrap-server … --reset-offsets --group {group} --topic {topic} "
        f"--to-{to} --execute"
    )


def _missing(want: Wanted) -> Difference:
    return Difference(want.name, "is missing", "adapter topics create", vital=True)


def _misconfigured(want: Wanted, have: Mapping[str, str]) -> Iterator[Difference]:
    for config in want.config:
        value = have.get(config.name)
        if value is not None and not _granted(config, value):
            text = f"{config.name} is {value}, wanted is {config.wish} {config.value}".replace("exactly ", "")
            fix = configuring(want.name, config.name, config.value)
            if config.name in _SETTINGS:
                fix += f", or {_SETTING}{_SETTINGS[config.name]}"
            yield Difference(want.name, text, fix, config.vital)


def _kept(retention: timedelta, *, vital: bool = False) -> tuple[Config, ...]:
    """Records are kept for that time, whatever their size. `vital`: a guarantee depends on the latter."""
    milliseconds = retention // timedelta(milliseconds=1)
    return (
        Config("cleanup.policy", "delete", Wish.EXACTLY, vital=True),
        Config("retention.ms", str(milliseconds), Wish.AT_LEAST),
        Config("retention.bytes", "-1", Wish.EXACTLY, vital),
    )


def _granted(config: Config, value: str) -> bool:
    compare: Callable[[float, float], bool]
    match config.wish:
        case Wish.EXACTLY:
            return set(value.split(",")) == set(config.value.split(","))
        case Wish.AT_LEAST:
            compare = float.__ge__
        case Wish.AT_MOST:
            compare = float.__le__
    have = float("inf") if value == "-1" else float(value)
    return compare(have, float(config.value))


def _code(error: KafkaException) -> int:
    return int(error.args[0].code())


def _text(error: KafkaException) -> str:
    return str(error.args[0].str())
