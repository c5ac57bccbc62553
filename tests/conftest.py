"""Fixtures of all tests. Those that need a real service get it from the first place that has one; where there is none
they skip the test, or fail it when CI is set.

With `-n` (pytest-xdist; `make test` has it) the tests of a file stay together in one of several processes, which share
one broker and one registry: the process that was started opens them and tells the others where they are.
"""

import faulthandler
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import HealthCheck, settings

from tests.support import broker, certificates, downloads, registry, rights
from tests.support import topics as topic_sets
from tests.support.broker import Cluster
from tests.support.certificates import Trials
from tests.support.downloads import NEEDED
from tests.support.processes import Processes
from tests.support.topics import Topics

KAFKA_FIXTURES = {"kafka", "kafka_cluster", "kafka_of_file"}
LONG = {*KAFKA_FIXTURES, "processes"}
"""Tests with one of these fixtures may take long, most others hardly anything."""
Opener = Callable[[Path], AbstractContextManager[str]]
KAFKA = pytest.StashKey[Opener | str]()
"""How to open the broker, or why there is none."""
APICURIO = pytest.StashKey[Opener | str]()
"""Likewise the registry."""
SHARED = pytest.StashKey[dict[str, tuple[bool, str]]]()
"""By service: whether it is there; its address, or why it is not."""
STDERR = pytest.StashKey[int]()
"""The standard error as it was before pytest began to capture it."""
GRACE = 180
"""Seconds to fail a test that hangs, and to clear up after any."""


settings.register_profile("patient", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
"""A law is not broken by a machine that has other work to do."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "apicurio: needs the Apicurio registry")
    # A shell has its background jobs ignore it, and with them all that they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    assert sys.__stderr__ is not None
    config.stash[STDERR] = os.dup(sys.__stderr__.fileno())
    told: dict[str, tuple[bool, str]] = getattr(config, "workerinput", {}).get("services", {})
    for key, service in ((KAFKA, "kafka"), (APICURIO, "apicurio")):
        if service in told:
            there, text = told[service]
            config.stash[key] = partial(_given, text) if there else text


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """What `-n auto` means. Most tests mostly wait, for processes and for time limits to pass."""
    return 2 * (os.cpu_count() or 1)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config: pytest.Config) -> None:
    stack = ExitStack()
    config.add_cleanup(stack.close)
    config.stash[SHARED] = {}
    for service, find in (("kafka", _find_kafka), ("apicurio", _find_apicurio)):
        found = find()
        if isinstance(found, str):
            config.stash[SHARED][service] = (False, found)
            continue
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix=f"{service}-"))
        config.stash[SHARED][service] = (True, stack.enter_context(found(Path(folder))))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:  # which xdist has no types for
    node.workerinput["services"] = node.config.stash[SHARED]


@pytest.hookimpl(wrapper=True, tryfirst=True)  # before `-m` chooses by marker, and after the order was made random
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Generator[None]:
    for item in items:
        fixtures = _fixtures(item)
        if fixtures & KAFKA_FIXTURES:
            item.add_marker("kafka")
        if "apicurio" in fixtures:
            item.add_marker("apicurio")
    yield
    if hasattr(config, "workerinput"):  # the long ones first: at the end nobody waits for a last one
        items.sort(key=lambda item: not _fixtures(item) & LONG)


def pytest_collection_finish(session: pytest.Session) -> None:
    # Here and not in the fixtures: what must be downloaded first may take longer than a test may.
    if session.config.option.collectonly:
        return
    for key, marker, find in ((KAFKA, "kafka", _find_kafka), (APICURIO, "apicurio", _find_apicurio)):
        if key not in session.config.stash and any(item.get_closest_marker(marker) for item in session.items):
            session.config.stash[key] = find()


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> None:
    """pytest-timeout fails a test by an exception out of a signal, which uvloop takes for one of a callback, and goes
    on."""
    _end_in(settings.timeout + GRACE, item.config)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    """A test that has failed is watched no more, and its loop waits without end for the threads that it has left."""
    _end_in(GRACE, item.config)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def _end_in(seconds: float, config: pytest.Config) -> None:
    """Unless it is stopped, this process then says where each of its threads is, and ends. With `-n` another one takes
    its place."""
    faulthandler.dump_traceback_later(seconds, file=config.stash[STDERR], exit=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    # The summary folds skips of one place and reason into one line; the place of these is where they are decided.
    if report.skipped and isinstance(report.longrepr, tuple) and NEEDED in report.longrepr[2]:
        report.longrepr = (__file__, _unavailable.__code__.co_firstlineno, report.longrepr[2])
    return report


@pytest.fixture(scope="session")
def kafka(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Bootstrap address of the one broker of this run."""
    with _open(request.config.stash.get(KAFKA, None) or _find_kafka(), tmp_path_factory.mktemp("kafka")) as bootstrap:
        yield bootstrap


@pytest.fixture
def kafka_cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    """Starts a cluster of the test's own, which it may kill: `kafka_cluster(nodes=3, properties={...})`; the arguments
    are those of Cluster."""
    with ExitStack() as stack:
        yield lambda **how: stack.enter_context(_cluster(request.config, tmp_path, **how))


@pytest.fixture(scope="module")
def kafka_of_file(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Cluster]]:
    """As `kafka_cluster`, for all tests of a file: each leaves it as the next one needs it."""
    with ExitStack() as stack:
        yield lambda **how: stack.enter_context(_cluster(request.config, tmp_path_factory.mktemp("kafka"), **how))


@pytest.fixture(scope="module")
def kafka_node(kafka_of_file: Callable[..., Cluster]) -> Cluster:
    """A cluster of one node for the tests of a file, which they may stop, kill and freeze."""
    return kafka_of_file()


@pytest.fixture(scope="module")
def kafka_with_rules(kafka_of_file: Callable[..., Cluster]) -> str:
    """Bootstrap address of a broker for the tests of a file that may be told who may do what (tests/support/rights)."""
    return kafka_of_file(properties=rights.AUTHORIZER).bootstrap


@pytest.fixture
def breakable_kafka(kafka_node: Cluster) -> Iterator[Cluster]:
    """The node of this file, running; whatever the test does to it, it runs for the next one."""
    yield kafka_node
    kafka_node.mend()


@pytest.fixture
def create_topics(kafka: str) -> Iterator[Callable[..., Topics]]:
    """Makes sets of topics: `create_topics(partitions=8)`."""
    made: list[Topics] = []

    def create(*, partitions: int) -> Topics:
        made.append(topic_sets.create(kafka, partitions=partitions))
        return made[-1]

    yield create
    for topics in made:
        topic_sets.delete(kafka, topics)


@pytest.fixture
def topics(create_topics: Callable[..., Topics]) -> Topics:
    """This test's own topics, with four partitions each."""
    return create_topics(partitions=4)


@pytest.fixture(scope="session")
def apicurio(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Base URL of the one Apicurio registry of this run."""
    with _open(
        request.config.stash.get(APICURIO, None) or _find_apicurio(), tmp_path_factory.mktemp("apicurio")
    ) as url:
        yield url


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Starts real processes that end with the test."""
    with Processes(tmp_path) as started:
        yield started


@pytest.fixture(scope="session")
def trials(tmp_path_factory: pytest.TempPathFactory) -> Trials:
    """Certificates, good ones and each kind of bad."""
    return certificates.trials(tmp_path_factory.mktemp("certificates"))


def _find_kafka() -> Opener | str:
    if os.environ.get("TEST_KAFKA_BOOTSTRAP"):
        return lambda _: broker.external()
    if broker.engine_offers_kafka():
        return lambda _: broker.container()
    try:
        downloads.java()
        downloads.kafka_jars()
    except downloads.Missing as missing:
        return f"{broker.HOW} ({missing})"
    return broker.under_java


def _find_apicurio() -> Opener | str:
    try:
        registry.prefetch()
    except downloads.Missing as missing:
        return f"{registry.HOW} ({missing})"
    return registry.registry


def _open(found: Opener | str, folder: Path) -> AbstractContextManager[str]:
    return _unavailable(found) if isinstance(found, str) else found(folder)


@contextmanager
def _cluster(config: pytest.Config, parent: Path, **how: Any) -> Iterator[Cluster]:
    try:
        cluster = Cluster(Path(tempfile.mkdtemp(prefix="kafka-", dir=parent)), **how)
    except downloads.Missing as missing:
        why = f"no Kafka that may be killed: {NEEDED} ({missing})"
        found = config.stash.get(KAFKA, why)
        _unavailable(found if isinstance(found, str) else why)
    with cluster:
        yield cluster


def _given(address: str, _: Path) -> AbstractContextManager[str]:
    return nullcontext(address)


def _fixtures(item: pytest.Item) -> set[str]:
    return set(getattr(item, "fixturenames", ()))


def _unavailable(how: str) -> NoReturn:
    if os.environ.get("CI", "").lower() in {"true", "1"}:
        pytest.fail(how, pytrace=False)
    pytest.skip(how)
