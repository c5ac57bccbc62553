"""What commands need of the bus: settings, schemas, the registry, and readers that are closed at the end."""

import asyncio
from collections.abc import Collection, Coroutine, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any, TypeVar

from adapter import catalogue
from adapter.catalogue import Catalogue
from adapter.cli.complaints import complain
from adapter.core.avro import Decoded, Encoder, Schema, UnknownFields
from adapter.core.avro.lookup import Decoders
from adapter.settings import Bus, Cluster, Offline
from adapter.suppliers import served
from adapter.transport.kafka.admin import Admin, require_topics
from adapter.transport.kafka.client import Edge, Follower, Start
from adapter.transport.registry import HttpRegistry, encoders, open_registry

_T = TypeVar("_T")


class Client:
    """A connection to the bus. The registry's client runs on an event loop of its own, so that callers may block."""

    def __init__(self, settings: Bus, known: Catalogue, registry: HttpRegistry, runner: asyncio.Runner) -> None:
        self.settings = settings
        self.topics = settings.topics.names()
        self.known = known
        self.registry = registry
        self._runner = runner
        self._decoders: dict[frozenset[str], Decoders] = {}
        """By what was asked for: a command in the journal is no entry there, and yet a command."""

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        return self._runner.run(work)

    def following(
        self, topic: str, *, start: Start = Edge.END, keys: Collection[bytes] | None = None, committed: bool = True
    ) -> closing[Follower]:
        """Raises Stop if there is no such topic, Unavailable."""
        follower = Follower(
            self.settings.kafka.client(),
            topic,
            start=start,
            keys=keys,
            committed=committed,
            down=lambda why: complain(f"no broker answers, still trying: {why}"),
        )
        return closing(follower)

    def encoders(self, topic: str, schemas: Collection[Schema]) -> dict[str, Encoder]:
        """Encoders of these schemas, by record name. Raises Stop with all that the registry lacks, and Unavailable."""
        return self.run(encoders(self.settings, self.registry, {topic: schemas}))

    def encoder(self, topic: str, schema: Schema) -> Encoder:
        return self.encoders(topic, [schema])[schema.name]

    def decode(self, value: bytes | None, schemas: Mapping[str, Schema]) -> Decoded:
        """Decode a record's value as one of `schemas`. Raises Undecodable if it is none of them, and Unavailable."""
        which = frozenset(schemas)
        if which not in self._decoders:
            self._decoders[which] = Decoders(self.registry, tuple(schemas.values()), UnknownFields.REJECT)
        return self.run(self._decoders[which].decode(value))


def compiled(settings: Offline) -> Catalogue:
    """The supplier's operations, compiled from the schemas. Raises Stop with everything that does not fit."""
    return catalogue.load(served(), settings.schemas)


def look_for(settings: Cluster, *topics: str) -> Mapping[str, int]:
    """The number of partitions of each topic. Raises Stop if one is missing, and Unavailable.

    To be called before a topic is written: a cluster may create a missing one by itself, with its own defaults.
    """
    counts = Admin(settings.kafka.client()).partition_counts(topics)
    require_topics(topics, counts)
    return counts


@contextmanager
def connected(settings: Bus, known: Catalogue) -> Iterator[Client]:
    """A connection that is closed at the end. Raises Stop, Unavailable."""
    with asyncio.Runner() as runner:
        registry = open_registry(settings.registry)
        try:
            yield Client(settings, known, registry, runner)
        finally:
            runner.run(registry.close())
