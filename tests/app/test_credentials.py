"""Kafka's credentials, in files that change: what Kafka accepts is used, everything else is told."""

import asyncio
import io
import shutil
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from adapter.app.credentials import Credentials
from adapter.settings import Kafka
from adapter.telemetry import Metrics, start_logging
from adapter.telemetry.metrics import CERTIFICATE_NOT_AFTER, CERTIFICATES_REFUSED
from adapter.transport.kafka.mock import MockCluster
from adapter.twin.certificates import DAY
from tests.support.certificates import Trials
from tests.support.measured import measured
from tests.support.wait import eventually


@pytest.fixture
def bootstrap() -> Iterator[str]:
    cluster = MockCluster()
    yield cluster.bootstrap
    cluster.close()


@dataclass(frozen=True, slots=True)
class Watched:
    """Credentials of one secret, whose file is watched."""

    secret: Path
    lines: io.StringIO
    metrics: Metrics
    renewal: "asyncio.Task[Mapping[str, str]]"

    def refused(self) -> bool:
        return measured(self.metrics, CERTIFICATES_REFUSED.name, direction="kafka") == 1


@pytest_asyncio.fixture
async def watched(bootstrap: str, tmp_path: Path) -> AsyncIterator[Watched]:
    secret = tmp_path / "secret"
    secret.write_text("1000")
    kafka = Kafka(bootstrap_servers=bootstrap, properties_files={"socket.timeout.ms": secret})
    lines, metrics = io.StringIO(), Metrics()
    credentials = Credentials(kafka, start_logging(form="json", stream=lines), metrics)
    watching = asyncio.ensure_future(credentials.watch(interval=0.01))
    renewal = asyncio.ensure_future(credentials.renewal())
    yield Watched(secret, lines, metrics, renewal)
    watching.cancel()
    renewal.cancel()


async def test_changed_files_are_used_once_kafka_accepts_them_and_not_before(watched: Watched) -> None:
    secret, lines, renewal = watched.secret, watched.lines, watched.renewal
    secret.write_text("none")
    await eventually(lambda: "new Kafka credentials are not used" in lines.getvalue())
    assert watched.refused()
    assert not renewal.done()
    secret.unlink()
    await eventually(lambda: "can't be read" in lines.getvalue())
    assert not renewal.done()
    secret.write_text("2000")
    assert (await renewal)["socket.timeout.ms"] == "2000"
    assert not watched.refused()
    assert lines.getvalue().count("new Kafka credentials in use") == 1


async def test_files_that_are_written_again_or_taken_back_are_no_new_ones(watched: Watched) -> None:
    watched.secret.write_text("none")
    await eventually(watched.refused)
    again = watched.secret.with_name("again")
    again.write_text("1000")
    again.replace(watched.secret)
    await eventually(lambda: not watched.refused())
    assert "new Kafka credentials in use" not in watched.lines.getvalue()
    assert not watched.renewal.done()


async def test_it_is_told_when_the_certificates_in_use_end(bootstrap: str, trials: Trials, tmp_path: Path) -> None:
    certificate = tmp_path / "certificate.pem"
    shutil.copy(trials.good.client_certificate, certificate)
    files = {"ssl.certificate.location": str(certificate), "ssl.ca.location": str(trials.good.ca)}
    kafka, metrics = Kafka(bootstrap_servers=bootstrap, properties=files), Metrics()
    credentials = Credentials(kafka, start_logging(stream=io.StringIO()), metrics)

    def told() -> tuple[float, float]:
        kinds = ("kafka-certificate", "kafka-ca")
        certificate, ca = (measured(metrics, CERTIFICATE_NOT_AFTER.name, certificate=kind) for kind in kinds)
        return certificate, ca

    watching = asyncio.ensure_future(credentials.watch(interval=0.01))
    try:
        first = told()
        new = tmp_path / "new.pem"
        shutil.copy(trials.authority.client("later", valid_for=2 * DAY).certificate, new)
        new.replace(certificate)
        await credentials.renewal()
        assert told()[0] > first[0]
        assert told()[1] == first[1]
    finally:
        watching.cancel()
