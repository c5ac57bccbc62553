"""Fixtures of all tests. Those that need a real service get it from the first place that has one; where there is none
they skip the test, or fail it when CI is set."""

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.support import broker, certificates, downloads, registry
from tests.support import topics as topic_sets
from tests.support.broker import Cluster
from tests.support.certificates import Trials
from tests.support.downloads import NEEDED
from tests.support.processes import Processes
from tests.support.topics import Topics

KAFKA_FIXTURES = {"kafka", "kafka_cluster"}
Opener = Callable[[Path], AbstractContextManager[str]]
KAFKA = pytest.StashKey[Opener | str]()
"""How to open the broker, or why there is none."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "apicurio: needs the Apicurio registry")


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses by marker
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if fixtures & KAFKA_FIXTURES:
            item.add_marker("kafka")
        if "apicurio" in fixtures:
            item.add_marker("apicurio")


def pytest_collection_finish(session: pytest.Session) -> None:
    # Here and not in the fixtures: what must be downloaded first may take longer than a test may.
    if session.config.option.collectonly:
        return
    if any(item.get_closest_marker("kafka") for item in session.items):
        session.config.stash[KAFKA] = _find_kafka()
    if any(item.get_closest_marker("apicurio") for item in session.items):
        _prefetch_apicurio()


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
    found = request.config.stash.get(KAFKA, None) or _find_kafka()
    if isinstance(found, str):
        _unavailable(found)
    with found(tmp_path_factory.mktemp("kafka")) as bootstrap:
        yield bootstrap


@pytest.fixture
def kafka_cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    """Starts a cluster of the test's own, which it may kill: `kafka_cluster(nodes=3, properties={...})`; the arguments
    are those of Cluster."""
    clusters: list[Cluster] = []

    def start(**how: Any) -> Cluster:
        folder = tmp_path / f"kafka-{len(clusters) + 1}"
        folder.mkdir()
        try:
            cluster = Cluster(folder, **how)
        except downloads.Missing as missing:
            why = f"no Kafka that may be killed: {NEEDED} ({missing})"
            found = request.config.stash.get(KAFKA, why)
            _unavailable(found if isinstance(found, str) else why)
        clusters.append(cluster)
        cluster.start()
        return cluster

    yield start
    for cluster in clusters:
        cluster.close()


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
def apicurio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Base URL of a running Apicurio registry."""
    try:
        with registry.registry(tmp_path_factory.mktemp("apicurio")) as url:
            yield url
    except downloads.Missing as missing:
        _unavailable(f"{registry.HOW} ({missing})")


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


def _prefetch_apicurio() -> None:
    try:
        registry.prefetch()
    except downloads.Missing:
        return  # the fixture says so


def _unavailable(how: str) -> NoReturn:
    if os.environ.get("CI", "").lower() in {"true", "1"}:
        pytest.fail(how, pytrace=False)
    pytest.skip(how)
