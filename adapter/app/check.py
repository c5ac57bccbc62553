"""What stands between an installation and going live, looked at from where it will run. Nothing is changed: what is
written is a transactional id that no worker uses.
"""

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

from adapter import catalogue
from adapter.app.server import server_tls
from adapter.app.start import base_url, load_catalogue, misnamed
from adapter.catalogue import Catalogue
from adapter.core import wording
from adapter.core.avro import SubjectStrategy
from adapter.core.errors import Stop, Unavailable
from adapter.core.partition import partition_of
from adapter.server.admission import allowed
from adapter.settings import Bus, Cluster, Projecting, Receiving, Settings, load
from adapter.suppliers import served
from adapter.transport import probe
from adapter.transport.failures import system_words
from adapter.transport.https import proxy
from adapter.transport.kafka.admin import Admin, Difference, Found, differences, wanted
from adapter.transport.kafka.client import Follower
from adapter.transport.kafka.producer import TransactionalProducer
from adapter.transport.registry import HttpRegistry, open_registry
from adapter.transport.tls import TlsFiles, client_context
from adapter.transport.way import Proxy
from adapter.worker.flow import REWRITE_AFTER

_Answer = TypeVar("_Answer")

SOON: Final = timedelta(days=30)
"""A certificate that expires within this is told."""

SKEW: Final = timedelta(seconds=5)
LIMIT: Final = 5.0
"""Seconds to wait for one answer."""
_TIMES_REWRITTEN: Final = 4
"""So often at least what waits in the journal is to be written anew before the topic lets go of it."""
_NEWEST: Final = 100
"""Offsets of each partition whose keys are looked at."""
_AGAIN: Final = 0.2
"""Seconds between two tries."""


class Role(StrEnum):
    WORKER = "worker"
    SERVER = "server"
    PROJECTOR = "projector"


class Verdict(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Line:
    """One thing looked at. `fix` says what to do, where something is to be done."""

    subject: str
    verdict: Verdict
    said: str
    fix: str = ""


_TREES: Final[Mapping[Role, type[Receiving | Projecting]]] = {
    Role.WORKER: Settings,
    Role.SERVER: Receiving,
    Role.PROJECTOR: Projecting,
}
_NEEDS: Final[Mapping[Role, Mapping[str, frozenset[str]]]] = {
    Role.WORKER: {
        "commands": frozenset({"READ"}),
        "events": frozenset({"READ", "WRITE"}),
        "tickets": frozenset({"READ"}),
        "journal": frozenset({"READ", "WRITE"}),
        "dead_letters": frozenset({"WRITE"}),
    },
    Role.SERVER: {"events": frozenset({"WRITE"}), "quarantine": frozenset({"WRITE"})},
    Role.PROJECTOR: {"events": frozenset({"READ", "WRITE"}), "tickets": frozenset({"READ", "WRITE"})},
}
"""What each role does with the topics."""


async def check(role: Role) -> AsyncGenerator[Line, None]:
    """One line after another, as it is known. Settings that are wrong are the last thing that is told, with those that
    Kafka's client alone knows to be.
    """
    try:
        settings = _settings(role)
    except Stop as stop:
        for problem in stop.problems:
            yield Line("settings", Verdict.FAILED, problem, "see adapter settings")
        for line in _properties():
            yield line
        return
    yield Line("settings", Verdict.OK, f"complete for the {role}")
    try:
        known = _compile(settings)
    except Stop as stop:
        for problem in stop.problems:
            yield Line("schemas", Verdict.FAILED, problem, "mend the schemas, or unset ADAPTER_SCHEMAS")
        return
    yield _port("telemetry port", settings.telemetry.host, settings.telemetry.port, "ADAPTER_TELEMETRY__")
    async for line in _own(settings, known):
        yield line
    async for line in _kafka(settings, role, known):
        yield line
    async for line in _registry(settings, known):
        yield line


def _settings(role: Role) -> Receiving | Projecting:
    """Raises Stop."""
    settings = load(_TREES[role])
    if isinstance(settings, Receiving) and (problems := misnamed(settings)):
        raise Stop(*problems)
    return settings


async def _own(settings: Receiving | Projecting, known: Catalogue) -> AsyncIterator[Line]:
    """What one role alone needs."""
    match settings:
        case Settings():
            async for line in _supplier(settings, known):
                yield line
            yield _store(settings.worker.store, "ADAPTER_WORKER__STORE", "none: a temporary folder is used")
        case Receiving():
            for line in _listener(settings):
                yield line
        case Projecting():
            said = "none: the tickets are read at every start"
            yield _store(settings.projector.store, "ADAPTER_PROJECTOR__STORE", said)


def _compile(settings: Receiving | Projecting) -> Catalogue:
    if isinstance(settings, Receiving):
        return load_catalogue(settings)
    return catalogue.load(served(), settings.schemas)


def _port(subject: str, host: str, port: int, section: str) -> Line:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.create_server((host, port), family=family, reuse_port=False):
            pass
    except OSError as error:
        said = f"{host}:{port}: {system_words(error) or error}"
        if error.errno == errno.EADDRINUSE:
            fix = f"fine if the role runs here already; else another {section}PORT"
            return Line(subject, Verdict.WARNING, said, fix)
        fix = f"name in {section}HOST and __PORT an address of this machine and a port that its user may take"
        return Line(subject, Verdict.FAILED, said, fix)
    return Line(subject, Verdict.OK, f"{host}:{port} is free")


# -- certificates ------------------------------------------------------------------------------------------------------


async def _supplier(settings: Settings, known: Catalogue) -> AsyncIterator[Line]:
    supplier, subject = settings.supplier, "supplier certificate"
    files = TlsFiles(supplier.tls.certificate, supplier.tls.key, supplier.tls.ca)
    try:
        context, _ = client_context(files)
    except Stop as stop:
        for line in _problems(subject, stop):
            yield line
        return
    if files.certificate is None:
        yield Line(
            subject, Verdict.WARNING, "none", "the supplier asks for one: set ADAPTER_SUPPLIER__TLS__CERTIFICATE"
        )
    else:
        for line in _file(subject, files.certificate, "client"):
            yield line
    try:
        through = proxy(supplier.proxy.url, supplier.proxy.credentials) if supplier.proxy.url else None
    except Stop as stop:
        for line in _problems("supplier", stop, "see ADAPTER_SUPPLIER__PROXY__URL and its CREDENTIALS"):
            yield line
        return
    yield await _greeted(base_url(settings, known), context, through)


async def _greeted(address: str, context: ssl.SSLContext, through: Proxy | None) -> Line:
    way = urlsplit(address)
    assert way.hostname is not None, "a web address has one"
    host = way.hostname.encode("idna").decode("ascii")
    secure = way.scheme == "https"
    port = way.port or (443 if secure else 80)
    at = f"{host}:{port}" + (f" through {through.host}" if through else "")
    try:
        greeting = await probe.greet(host, port, context if secure else None, limit=LIMIT, proxy=through)
    except Unavailable as error:
        fix = (
            "look at address, firewall, proxy and ADAPTER_SUPPLIER__TLS__CA; the supplier must know our certificate, "
            "and its issuer unless that stands behind it in the file"
        )
        return Line("supplier", Verdict.FAILED, f"{at}: {error}", fix)
    if greeting is None:
        return Line("supplier", Verdict.WARNING, f"{at}: reached, without encryption", "write https:// for production")
    said = f"{at}: {greeting.version}, {greeting.peer.subject}, until {greeting.peer.not_after:%Y-%m-%d}"
    return Line("supplier", Verdict.OK, said)


def _listener(settings: Receiving) -> Iterator[Line]:
    server, subject = settings.server, "listener certificate"
    yield _port("listener port", server.host, server.port, "ADAPTER_SERVER__")
    try:
        tls = server_tls(settings)
    except Stop as stop:
        yield from _problems(subject, stop)
    else:
        if tls is None or server.tls.certificate is None:
            fix = "only behind a proxy that ends TLS (ADAPTER_SERVER__TRUSTED_PROXIES), or for a test"
            yield Line(subject, Verdict.WARNING, "none: it listens without TLS", fix)
        else:
            yield from _file(subject, server.tls.certificate, "server")
    yield from _callers(settings)
    if server.spool.path is None:
        yield Line("spool", Verdict.OK, "none: the supplier gets 503 while Kafka is away")
        return
    try:
        is_folder = server.spool.path.is_dir()
    except OSError as error:
        yield _closed("spool", server.spool.path, error)
        return
    if is_folder:
        yield Line("spool", Verdict.FAILED, f"{server.spool.path} is a folder", "name a file in it")
    else:
        yield _writable("spool", server.spool.path.parent, "make it, for the user the process runs as")


def _callers(settings: Receiving) -> Iterator[Line]:
    server = settings.server
    try:
        allowed(server.allowed_subjects)
    except Stop as stop:
        yield from _problems("callers", stop)
        return
    if server.allowed_subjects or server.allowed_networks:
        said = f"{len(server.allowed_subjects)} subjects, {len(server.allowed_networks)} networks"
        yield Line("callers", Verdict.OK, said)
    else:
        fix = "set ADAPTER_SERVER__ALLOWED_SUBJECTS or ADAPTER_SERVER__ALLOWED_NETWORKS"
        said = "anyone at all" if server.allow_plaintext else "anyone with a certificate of the authorities"
        yield Line("callers", Verdict.WARNING, said, fix)


def _store(folder: Path | None, setting: str, without: str) -> Line:
    if folder is None:
        return Line("store", Verdict.OK, without)
    try:
        place = _existing(folder)
    except OSError as error:
        return _closed("store", folder, error)
    return _writable("store", place, f"name in {setting} a folder that the user the process runs as can make or write")


def _problems(subject: str, stop: Stop, fix: str = "") -> Iterator[Line]:
    """What was found to be wrong; a problem that ends with what to do says it itself."""
    for problem in stop.problems:
        said, _, own = problem.rpartition("; ")
        yield Line(subject, Verdict.FAILED, said or problem, own if said else fix)


def _file(subject: str, path: Path, usage: str) -> Iterator[Line]:
    """What of a usable certificate is still not as it should be."""
    seen = probe.look(path)
    left = seen.not_after - datetime.now(UTC)
    said = f"{seen.subject}, of {seen.issuer}, until {seen.not_after:%Y-%m-%d}"
    if usage not in seen.usages:
        fix = f"have one issued with the extended key usage {usage}Auth"
        yield Line(subject, Verdict.FAILED, f"{said}: is not for use as a {usage}'s", fix)
    elif not seen.whole:
        fix = "put the certificates into the file in order, each signed by the next"
        yield Line(subject, Verdict.FAILED, f"{said}: the chain is broken", fix)
    elif left < SOON:
        fix = "renew it; a new file is taken up without a restart"
        yield Line(subject, Verdict.WARNING, f"{said}: expires in {left.days} days", fix)
    elif usage == "server":
        yield Line(subject, Verdict.OK, f"{said}, for {', '.join(seen.names) or 'no host name'}")
    else:
        yield Line(subject, Verdict.OK, said)


def _closed(subject: str, path: Path, error: OSError) -> Line:
    """A place that can't even be looked at."""
    fix = "name one that the user the process runs as can reach"
    return Line(subject, Verdict.FAILED, f"{path}: {error.strerror or error}", fix)


def _writable(subject: str, folder: Path, fix: str) -> Line:
    if folder.is_dir() and os.access(folder, os.W_OK | os.X_OK):
        return Line(subject, Verdict.OK, f"{folder} can be written")
    return Line(subject, Verdict.FAILED, f"{folder} is not a folder that can be written", fix)


def _existing(folder: Path) -> Path:
    """The folder, or where it would be made. OSError if that can't be looked at."""
    for place in (folder, *folder.parents):
        with suppress(FileNotFoundError, NotADirectoryError):  # `exists` would, from Python 3.14 on, suppress them all
            place.stat()
            return place
    return folder


# -- Kafka -------------------------------------------------------------------------------------------------------------


_PROPERTIES: Final = "look at ADAPTER_KAFKA__PROPERTIES and our rights"


def _properties() -> Iterator[Line]:
    """What the client refuses of its properties, if nothing is wrong with the settings of Kafka themselves."""
    try:
        kafka = load(Cluster).kafka
    except Stop:
        return
    try:
        Admin(kafka.client())
    except Stop as stop:
        yield from _problems("Kafka", stop, _PROPERTIES)


async def _kafka(settings: Bus, role: Role, known: Catalogue) -> AsyncIterator[Line]:
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
        for line in _problems("Kafka", stop, _PROPERTIES):
            yield line
        return
    yield Line("Kafka", Verdict.OK, f"{brokers} brokers")
    unlike = list(differences(wants, found))
    for want in wants:
        lacking = needs[want.name] - rights.get(want.name, needs[want.name])
        for line in _topic(want.name, found.get(want.name), [d for d in unlike if d.topic == want.name], lacking):
            yield line
    if isinstance(settings, Settings):
        for line in _journal(found, names.commands, names.journal, _longest_doubt(settings, known)):
            yield line
        if names.commands in found and "READ" in rights.get(names.commands, {"READ"}):
            yield await _keys(client, names.commands, found[names.commands].partitions)
    if role is not Role.SERVER:
        yield await _membership(settings, role, admin)
        yield await _transaction(settings, client)


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


def _longest_doubt(settings: Settings, known: Catalogue) -> timedelta:
    limits = settings.supplier.doubt_limits
    return max(limits.get(operation.name, operation.doubt_limit) for operation in known.supplier.operations)


def _journal(found: Mapping[str, Found], commands: str, journal: str, doubt: timedelta) -> Iterator[Line]:
    """The journal must outlive every command that can still come, and what workers write anew in it: by what the topics
    have, not by the settings. It should outlive a `doubt` that nobody writes anew, since no worker runs.
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
        fix = f"kafka-configs.sh --alter --add-config retention.bytes=-1 for {journal}"
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
    """For how many milliseconds."""
    value = config.get("retention.ms")
    return None if value is None else float("inf") if value == "-1" else float(value)


async def _patiently(ask: Callable[[], _Answer]) -> _Answer:
    """Asked, on a thread, until there is an answer or the time is up: a topic made a moment ago has no leader yet, the
    first group of a cluster no coordinator. Raises what `ask` does.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + LIMIT
    while True:
        try:
            return await asyncio.to_thread(ask)
        except Unavailable:
            if loop.time() >= end:
                raise
        await asyncio.sleep(_AGAIN)


async def _keys(client: Mapping[str, str], topic: str, partitions: int) -> Line:
    """Whether the producers of commands agree with us about where a key belongs; the newest commands tell."""
    try:
        looked, astray = await _patiently(partial(_placed, client, topic, partitions))
    except (Stop, Unavailable) as error:
        fix = "look at the brokers" if isinstance(error, Unavailable) else "look at our rights"
        return Line("keys", Verdict.WARNING, f"the commands can't be read: {error}", fix)
    if astray:
        some = ", ".join(key.decode(errors="replace") for key in list(dict.fromkeys(astray))[:3])
        said = f"{len(astray)} of the newest {looked} commands are not where murmur2 puts their keys, such as {some}"
        fix = 'give every producer of commands the partitioner of Java clients, "murmur2_random" in librdkafka'
        return Line("keys", Verdict.WARNING, said, fix)
    if not looked:
        return Line("keys", Verdict.OK, "there are no commands yet")
    return Line("keys", Verdict.OK, f"the newest {looked} commands are where murmur2 puts their keys")


def _placed(client: Mapping[str, str], topic: str, partitions: int) -> tuple[int, list[bytes]]:
    """How many commands were looked at, and the keys of those that are elsewhere. Raises Stop, Unavailable."""
    looked, astray = 0, []
    with closing(Follower(client, topic, start=_NEWEST, timeout=timedelta(seconds=LIMIT))) as commands:
        for command in commands.rest():
            looked += 1
            if command.key and partition_of(command.key, partitions) != command.partition:
                astray.append(command.key)
    return looked, astray


async def _membership(settings: Bus, role: Role, admin: Admin) -> Line:
    """Whether the role may join its consumer group."""
    group, setting, topic = settings.kafka.group_id, "KAFKA__GROUP_ID", settings.topics.names().commands
    if role is Role.PROJECTOR:
        assert isinstance(settings, Projecting), "its settings"
        group, setting, topic = settings.projector.group_id, "PROJECTOR__GROUP_ID", settings.topics.names().events
    try:
        rights = await _patiently(partial(admin.group_rights, group))
        others = sorted(await _patiently(partial(admin.group_topics, group)) - {topic})
    except Unavailable as error:
        return Line("group", Verdict.FAILED, str(error), "look at the brokers: one of them coordinates the group")
    if others:
        said = f"members of {group} read {', '.join(others)}, and not {topic}"
        return Line("group", Verdict.FAILED, said, f"set ADAPTER_{setting}: each deployment needs a group of its own")
    if rights is None:
        return Line("group", Verdict.OK, f"{group}: the cluster does not tell our rights")
    if "READ" not in rights:
        fix = "kafka-acls.sh --add: read the group, for the user we log in as"
        return Line("group", Verdict.FAILED, f"no right to read {group}", fix)
    return Line("group", Verdict.OK, f"granted to {group}")


async def _transaction(settings: Bus, client: Mapping[str, str]) -> Line:
    prefix = settings.kafka.transactional_id_prefix
    producer = TransactionalProducer(
        client=client,
        commands=settings.topics.names().commands,
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


# -- the registry ------------------------------------------------------------------------------------------------------


async def _registry(settings: Bus, known: Catalogue) -> AsyncIterator[Line]:
    try:
        registry = open_registry(settings.registry)
    except Stop as stop:
        for line in _problems("registry", stop, "see adapter settings"):
            yield line
        return
    try:
        async for line in _schemas(settings, known, registry):
            yield line
    except Unavailable as error:
        yield Line("registry", Verdict.FAILED, str(error), "look at ADAPTER_REGISTRY__URL, __CREDENTIALS and __CA")
    except Stop as stop:
        for line in _problems("registry", stop, "ask whoever runs the registry"):
            yield line
    finally:
        await registry.close()


async def _schemas(settings: Bus, known: Catalogue, registry: HttpRegistry) -> AsyncIterator[Line]:
    """Raises Stop, Unavailable."""
    topics = settings.topics.names()
    strategy = settings.registry.subject_strategy
    subjects = known.subjects(strategy, asdict(topics))
    there, missing = 0, []
    for subject, schema in subjects:
        if await registry.identifier(subject, schema.text) is not None:
            there += 1
        elif await registry.compatible(subject, schema.text):
            missing.append(subject)
        else:
            fix = "somebody has registered another schema there: compare it with adapter schemas show"
            yield Line("registry", Verdict.FAILED, f"{subject}: holds versions ours does not fit", fix)
        level = await registry.compatibility(subject)
        if strategy is not SubjectStrategy.TOPIC and level not in {None, "FULL_TRANSITIVE"}:
            fix = "adapter schemas register sets FULL_TRANSITIVE"
            yield Line("registry", Verdict.WARNING, f"{subject}: compatibility is {level}", fix)
    if there == len(subjects):
        yield Line("registry", Verdict.OK, f"has our {there} schemas")
    if missing:
        said = f"{len(missing)} of {len(subjects)} schemas are not registered, such as {missing[0]}"
        yield Line("registry", Verdict.FAILED, said, "adapter schemas register")
    yield _clock(registry.time, datetime.now(UTC))


def _clock(theirs: datetime | None, ours: datetime) -> Line:
    if theirs is None:
        return Line("clock", Verdict.OK, "the registry does not tell its time")
    skew = abs(ours - theirs)
    if skew > SKEW:
        said = f"differs from the registry's by {skew.total_seconds():.0f} s"
        return Line("clock", Verdict.WARNING, said, "synchronise both (NTP): deadlines and order rest on it")
    return Line("clock", Verdict.OK, "agrees with the registry's")
