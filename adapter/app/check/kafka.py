"""What a role needs of Kafka: topics as they should be, rights, its group and transactions."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from datetime import timedelta
from functools import partial
from typing import Final, TypeVar
from urllib.parse import unquote
from uuid import uuid4

from adapter.app.check.lines import LIMIT, Line, Verdict, problems
from adapter.app.check.role import Role
from adapter.app.start import membership
from adapter.catalogue import Catalogue
from adapter.core import cloudevents, wording
from adapter.core.avro import UnknownFields
from adapter.core.avro.lookup import LOST, Decoders
from adapter.core.errors import Foreign, Stop, Unavailable, Undecodable
from adapter.core.journal import Source
from adapter.core.partition import partition_of
from adapter.pause import patiently
from adapter.settings import Bus, Cluster, GroupProtocol, Kafka, Projecting, Settings, load
from adapter.transport import probe
from adapter.transport.kafka.admin import Admin, Difference, Found, Wanted, configuring, differences, wanted
from adapter.transport.kafka.client import Follower, Seen
from adapter.transport.kafka.consumer import KafkaIntake
from adapter.transport.kafka.producer import TransactionalProducer
from adapter.transport.registry import open_registry
from adapter.worker.flow import REWRITE_AFTER

_Answer = TypeVar("_Answer")

_TIMES_REWRITTEN: Final = 4
"""The journal's retention must be at least this many times the interval in which workers rewrite waiting entries."""
_NEWEST: Final = 100
"""Number of newest records of each partition that are examined."""
_LOOK: Final = 0.2
"""Seconds between two looks whether the group has taken us in."""
_NEEDS: Final[Mapping[Role, Mapping[str, frozenset[str]]]] = {
    Role.WORKER: {
        "commands": frozenset({"READ"}),
        "events": frozenset({"READ", "WRITE"}),
        "tickets": frozenset({"READ"}),
        "journal": frozenset({"READ", "WRITE"}),
        "dead_letters": frozenset({"WRITE"}),
        "quarantine": frozenset({"WRITE"}),
    },
    Role.SERVER: {"events": frozenset({"WRITE"}), "quarantine": frozenset({"WRITE"})},
    Role.PROJECTOR: {"events": frozenset({"READ", "WRITE"}), "tickets": frozenset({"READ", "WRITE"})},
}
"""The rights each role needs on the topics."""
_SINCE_3_6: Final = "message.timestamp.after.max.ms"
_PROTOCOL: Final = (
    "set ADAPTER_KAFKA__GROUP_PROTOCOL=classic; consumer needs Kafka 4.0 or later, with its feature group.version at 1 "
    "and consumer among group.coordinator.rebalance.protocols"
)
_PROPERTIES: Final = "look at ADAPTER_KAFKA__PROPERTIES and our rights"


def refused_properties() -> Iterator[Line]:
    """The client properties that Kafka's client refuses, if the settings for Kafka can be read at all."""
    try:
        kafka = load(Cluster).kafka
    except Stop:
        return
    try:
        Admin(kafka.client())
    except Stop as stop:
        yield from problems("Kafka", stop, _PROPERTIES)


async def kafka_lines(settings: Bus, role: Role, known: Catalogue) -> AsyncIterator[Line]:
    names = settings.topics.names()
    needs = {getattr(names, topic): rights for topic, rights in _NEEDS[role].items()}
    wants = [want for want in wanted(settings.topics) if want.name in needs]
    try:
        client = settings.kafka.client()
        admin = Admin(client, timeout=timedelta(seconds=LIMIT))
        brokers = await asyncio.to_thread(admin.brokers)
        found = await asyncio.to_thread(admin.find, [want.name for want in wants])
        rights = await asyncio.to_thread(admin.rights, list(found)) if found else {}
    except Unavailable as error:
        fix = "look at ADAPTER_KAFKA__BOOTSTRAP_SERVERS, the network, and TLS and SASL in ADAPTER_KAFKA__PROPERTIES"
        yield Line("Kafka", Verdict.FAILED, str(error), fix)
        return
    except Stop as stop:
        for line in problems("Kafka", stop, _PROPERTIES):
            yield line
        return
    of_topics = _topics(wants, found, needs, rights)
    for line in (broker_line(len(brokers), found), *await _unreached(brokers), *of_topics):
        yield line
    if isinstance(settings, Settings):
        for line in journal_lines(found, names.commands, names.journal, _longest_doubt(settings, known)):
            yield line
        readable = {name for name in found if "READ" in rights.get(name, {"READ"})}
        async for line in _newest(settings, known, client, found, readable):
            yield line
    if isinstance(settings, Projecting):  # a worker's are too
        yield await _membership(settings, admin)
        yield await _transaction(settings, client)


async def _newest(
    settings: Settings,
    known: Catalogue,
    client: Mapping[str, str],
    found: Mapping[str, Found],
    readable: Collection[str],
) -> AsyncIterator[Line]:
    """What the newest records tell."""
    names = settings.topics.names()
    if names.commands in readable:
        yield await _keys(client, names.commands, found[names.commands].partitions)
    if names.events in readable:
        yield await _buyer(client, names.events, known.supplier.name, settings.supplier.buyer_identifier)
    with suppress(Stop, Unavailable):  # the lines about the registry tell
        async for line in _ids(settings, known, client, readable):
            yield line


async def _read(client: Mapping[str, str], topic: str) -> list[Seen]:
    """The newest records of each partition. Raises Stop, Unavailable."""

    def read() -> list[Seen]:
        with closing(Follower(client, topic, start=_NEWEST, timeout=timedelta(seconds=LIMIT))) as records:
            return list(records.rest())

    return await _patiently(read)


def _topics(
    wants: Sequence[Wanted],
    found: Mapping[str, Found],
    needs: Mapping[str, frozenset[str]],
    rights: Mapping[str, frozenset[str]],
) -> Iterator[Line]:
    unlike = list(differences(wants, found))
    for want in wants:
        lacking = needs[want.name] - rights.get(want.name, needs[want.name])
        yield from _topic(want.name, found.get(want.name), [d for d in unlike if d.topic == want.name], lacking)


def _topic(name: str, have: Found | None, unlike: Sequence[Difference], lacking: frozenset[str]) -> Iterator[Line]:
    for difference in unlike:
        verdict = Verdict.FAILED if difference.vital else Verdict.WARNING
        yield Line(name, verdict, difference.text, difference.fix)
    if lacking:
        said = f"no right to {' and '.join(sorted(lacking)).lower()}"
        yield Line(name, Verdict.FAILED, said, "kafka-acls.sh --add for the user we log in as")
    if have is None:
        return
    if have.leaderless:
        said = f"{have.leaderless} of {have.partitions} partitions have no leader: nobody can read or write them"
        fix = "start the brokers that have them (kafka-topics.sh --describe --unavailable-partitions)"
        yield Line(name, Verdict.FAILED, said, fix)
    elif have.short:
        said = f"{have.short} of {have.partitions} partitions have too few copies in sync: nobody can write them"
        fix = "start the brokers that have the others (kafka-topics.sh --describe --under-min-isr-partitions)"
        yield Line(name, Verdict.FAILED, said, fix)
    elif not unlike and not lacking:
        yield Line(name, Verdict.OK, f"{have.partitions} partitions, {have.replication_factor} copies")


async def _unreached(brokers: Iterable[tuple[str, int]]) -> list[Line]:
    """A line for each broker that takes no connection. The cluster goes on listing one that is down, as leader of its
    partitions, while too few controllers are left to notice.
    """

    async def reach(host: str, port: int) -> Line | None:
        try:
            await probe.greet(host, port, None, limit=LIMIT)
        except Unavailable as error:
            fix = "start it, or open the way to it from here: a role talks to each of the brokers"
            return Line("Kafka", Verdict.FAILED, f"no connection to the broker {host}:{port}: {error}", fix)
        return None

    return [line for line in await asyncio.gather(*(reach(*broker) for broker in brokers)) if line is not None]


def broker_line(brokers: int, found: Mapping[str, Found]) -> Line:
    """Brokers before Kafka 3.6 take a record whose transaction was aborted before it arrived (KIP-890). No API of the
    client tells how old they are, but the configuration of a topic has an entry since then (KIP-937).
    """
    known = [topic.config for topic in found.values() if topic.config]
    if known and not any(_SINCE_3_6 in config for config in known):
        said = "seems older than 3.6: a record that comes after its transaction was aborted ends up in the next one"
        return Line("Kafka", Verdict.WARNING, said, 'upgrade it; see "Kafka before 3.6" in docs/guarantees.md')
    return Line("Kafka", Verdict.OK, f"{brokers} brokers")


def _longest_doubt(settings: Settings, known: Catalogue) -> timedelta:
    limits = settings.supplier.doubt_limits
    return max(limits.get(operation.name, operation.doubt_limit) for operation in known.supplier.operations)


def journal_lines(found: Mapping[str, Found], commands: str, journal: str, doubt: timedelta) -> Iterator[Line]:
    """The journal must be kept longer than any command that can still arrive, and than the interval in which workers
    write its waiting entries anew; the topics' own configuration counts, not our settings. It should also outlast a
    `doubt` while no worker runs to write it anew.
    """
    if commands not in found or journal not in found:
        return
    of_commands, of_journal = found[commands].config, found[journal].config
    if of_commands is None or of_journal is None:
        fix = f"grant DESCRIBE_CONFIGS on {commands} and {journal} (kafka-acls.sh --add)"
        yield Line("journal", Verdict.WARNING, "for how long it is kept can't be read", fix)
        return
    commands_kept, journal_kept = _kept(of_commands), _kept(of_journal)
    if commands_kept is None or journal_kept is None:
        return
    fix = f"raise retention.ms of {journal}"
    most = of_journal.get("retention.bytes", "-1")
    if most != "-1":
        fix = configuring(journal, "retention.bytes", "-1")
        said = f"keeps only the newest {most} bytes of a partition, however short a time they last"
        yield Line("journal", Verdict.FAILED, said, fix)
    elif journal_kept < 2 * commands_kept:
        fix += f", or lower that of {commands}"
        yield Line("journal", Verdict.FAILED, "is kept for less than twice as long as the commands", fix)
    elif journal_kept < _TIMES_REWRITTEN * REWRITE_AFTER * 1000:
        anew = f"{_TIMES_REWRITTEN} times the {REWRITE_AFTER / 3600:g} h"
        yield Line("journal", Verdict.FAILED, f"is kept for less than {anew} after which it is written anew", fix)
    elif journal_kept < doubt / timedelta(milliseconds=1):
        said = f"is kept for less than a doubt may last, {wording.span(doubt)}: with no worker for so long it is lost"
        yield Line("journal", Verdict.WARNING, said, fix)
    else:
        yield Line("journal", Verdict.OK, "is kept for at least twice as long as the commands")


def _kept(config: Mapping[str, str]) -> float | None:
    """The retention in milliseconds."""
    value = config.get("retention.ms")
    return None if value is None else float("inf") if value == "-1" else float(value)


async def _patiently(ask: Callable[[], _Answer]) -> _Answer:
    """Call `ask` on a thread until it gives an answer or the time is up: a topic just created has no leader yet, the
    first group of a cluster no coordinator. Raises what `ask` raises.
    """
    return await patiently(partial(asyncio.to_thread, ask), LIMIT)


async def _keys(client: Mapping[str, str], topic: str, partitions: int) -> Line:
    """Whether the producers of commands place keys as we do, examined on the newest commands."""
    try:
        commands = await _read(client, topic)
    except (Stop, Unavailable) as error:
        return _unread("keys", "commands", error)
    looked = len(commands)
    astray = [each.key for each in commands if each.key and partition_of(each.key, partitions) != each.partition]
    if astray:
        some = ", ".join(key.decode(errors="replace") for key in list(dict.fromkeys(astray))[:3])
        said = f"{len(astray)} of the newest {looked} commands are not where murmur2 puts their keys, such as {some}"
        fix = 'give every producer of commands the partitioner of Java clients, "murmur2_random" in librdkafka'
        return Line("keys", Verdict.WARNING, said, fix)
    if not looked:
        return Line("keys", Verdict.OK, "there are no commands yet")
    return Line("keys", Verdict.OK, f"the newest {looked} commands are where murmur2 puts their keys")


async def _buyer(client: Mapping[str, str], topic: str, supplier: str, buyer: str) -> Line:
    """Whether only this buyer's deployment writes to our topics, examined on the newest events."""
    try:
        sources = [event.header("ce_source") for event in await _read(client, topic)]
    except (Stop, Unavailable) as error:
        return _unread("buyer", "events", error)
    of_supplier, ours = cloudevents.source(supplier, ""), cloudevents.source(supplier, buyer)
    others = [each for each in sources if each.startswith(of_supplier) and each != ours]
    if others:
        some = ", ".join(sorted({unquote(each.removeprefix(of_supplier)) for each in others}))
        said = f"{len(others)} of the newest {len(sources)} events are of another buyer identifier: {some}"
        fix = (
            "give each deployment topics and groups of its own: workers that share them send each other's commands. "
            "Ignore this if ADAPTER_SUPPLIER__BUYER_IDENTIFIER has changed"
        )
        return Line("buyer", Verdict.WARNING, said, fix)
    if not sources:
        return Line("buyer", Verdict.OK, "there are no events yet")
    return Line("buyer", Verdict.OK, f"the newest {len(sources)} events are of no other buyer identifier")


async def _ids(
    settings: Settings, known: Catalogue, client: Mapping[str, str], readable: Collection[str]
) -> AsyncIterator[Line]:
    """Whether the newest records that we have written are what the registry's schemas of their ids say: one that was
    lost may have given these ids to others. Raises Stop and Unavailable if it can't be asked.
    """
    looked, well = 0, True
    async with open_registry(settings.registry) as registry:
        for group in ("events", "tickets", "journal"):
            topic = getattr(settings.topics.names(), group)
            if topic not in readable:
                continue
            try:
                records = await _read(client, topic)
            except (Stop, Unavailable) as error:
                yield _unread("records", group, error)
                return
            decoders = Decoders(registry, tuple(known.groups[group].values()), UnknownFields.IGNORE)
            looked += len(records)
            if why := [problem for each in records if (problem := await _problem(decoders, each.value))]:
                well = False
                said = f"{len(why)} of the newest {len(records)} in {topic} can't be read, such as one with {why[0]}"
                fix = f"unless a later release or a stranger wrote them, the registry has lost their ids: see {LOST}"
                # The projector passes over events that it can't read; tickets and journal hold up who reads them.
                yield Line("records", Verdict.WARNING if group == "events" else Verdict.FAILED, said, fix)
    if well:
        yield Line("records", Verdict.OK, f"the registry has the schemas of the newest {looked} that we wrote")


async def _problem(decoders: Decoders, value: bytes | None) -> str:
    """Why a record of ours can't be read; empty if it can, or is none of ours. Raises Unavailable."""
    try:
        await decoders.decode(value)
    except Foreign:
        pass
    except Undecodable as why:
        return str(why)
    return ""


def _unread(subject: str, what: str, error: Stop | Unavailable) -> Line:
    fix = "look at the brokers" if isinstance(error, Unavailable) else "look at our rights"
    return Line(subject, Verdict.WARNING, f"the {what} can't be read: {error}", fix)


async def _membership(settings: Projecting, admin: Admin) -> Line:
    """Whether the role may join its consumer group, and can with the group protocol that Kafka learned last. Only a
    group without members is joined to find out: others would share their partitions with us for a moment.
    """
    topics = settings.topics.names()
    group, setting, topic = settings.projector.group_id, "PROJECTOR__GROUP_ID", topics.events
    if isinstance(settings, Settings):
        group, setting, topic = settings.kafka.group_id, "KAFKA__GROUP_ID", topics.commands
    try:
        rights = await _patiently(partial(admin.group_rights, group))
        reading = await _patiently(partial(admin.group_topics, group))
    except Unavailable as error:
        return Line("group", Verdict.FAILED, str(error), "look at the brokers: one of them coordinates the group")
    if others := sorted(reading - {topic}):
        said = f"members of {group} read {', '.join(others)}, and not {topic}"
        return Line("group", Verdict.FAILED, said, f"set ADAPTER_{setting}: each deployment needs a group of its own")
    if rights is not None and "READ" not in rights:
        fix = "kafka-acls.sh --add: read the group, for the user we log in as"
        return Line("group", Verdict.FAILED, f"no right to read {group}", fix)
    if settings.kafka.group_protocol is GroupProtocol.CONSUMER and not reading:
        try:
            await _be_member(settings.kafka, group, topic)
        except (Stop, Unavailable) as error:
            said = f"{group} takes in no member with the group protocol consumer: {error}"
            return Line("group", Verdict.FAILED, said, _PROTOCOL)
    if rights is None:
        return Line("group", Verdict.OK, f"{group}: the cluster does not tell our rights")
    return Line("group", Verdict.OK, f"granted to {group}")


class _Guest:
    """Is a member of a group, and starts none of its partitions."""

    def __init__(self) -> None:
        self.refused: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def assigned(self, epochs: Mapping[int, int]) -> None:
        pass

    async def revoked(self, partitions: Sequence[int]) -> None:
        pass

    def lost(self, partitions: Sequence[int]) -> None:
        pass

    def delivered(self, records: Sequence[tuple[int, Source]]) -> None:
        pass

    def failed(self, error: Exception) -> None:
        self.refused.set_exception(error)


async def _be_member(kafka: Kafka, group: str, topic: str) -> None:
    """Be a member of the group for a moment. Raises Stop with Kafka's refusal, Unavailable if it says nothing, as
    librdkafka does too where the brokers do not know the protocol.
    """
    guest = _Guest()
    client = {**kafka.client(), **membership(kafka, group, giving_back=timedelta())}
    intake = KafkaIntake(client=client, topic=topic, listener=guest)
    intake.open()
    try:
        async with asyncio.timeout(LIMIT):
            left_out = True
            while left_out:
                left_out = bool(intake.left_out)  # looked at before the wait: a refusal for good may come just behind
                await asyncio.wait({guest.refused}, timeout=_LOOK)
                if guest.refused.done():
                    guest.refused.result()
    except TimeoutError:
        raise Unavailable(f"no answer within {LIMIT:g} s") from None
    finally:
        await intake.close()


async def _transaction(settings: Bus, client: Mapping[str, str]) -> Line:
    prefix = settings.kafka.transactional_id_prefix
    producer = TransactionalProducer(
        client=client,
        topic=settings.topics.names().commands,
        group=settings.kafka.group_id,
        transactional_id=f"{prefix}-check-{uuid4().hex}",
        timeout=settings.kafka.transaction_timeout,
        max_message_bytes=settings.topics.max_message_bytes,
        report=lambda _: None,
        waits=lambda _, _seconds: None,
    )
    try:
        async with asyncio.timeout(LIMIT):
            await producer.open()
    except (TimeoutError, Unavailable) as error:
        fix = (
            "look at the brokers: one of them coordinates it, and enough copies of __transaction_state must be in sync"
        )
        return Line("transactions", Verdict.FAILED, str(error) or f"no answer within {LIMIT:g} s", fix)
    except Stop as stop:
        said = "; ".join(stop.problems)
        fix = f"kafka-acls.sh: write and describe transactional ids that begin with {prefix}"
        if said.startswith("ADAPTER_"):
            fix = "see adapter settings"
        return Line("transactions", Verdict.FAILED, said, fix)
    finally:
        await producer.close()
    return Line("transactions", Verdict.OK, f"granted to {prefix}…")
