import asyncio
import io
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

from adapter.app.certificates import CertificateReport, watch_kafka
from adapter.telemetry import Metrics, start_logging
from tests.support.certificates import Trials
from tests.support.wait import eventually


def test_the_page_and_the_metric_tell_when_certificates_end() -> None:
    end = datetime(2027, 1, 1, tzinfo=UTC)
    metrics = Metrics()
    report = CertificateReport("listener", start_logging(stream=io.StringIO()), metrics)
    assert report.status() == {}
    report.watch(lambda: {"certificate": end})
    assert json.loads(json.dumps(report.status())) == {"listener_certificates": {"certificate": end.isoformat()}}
    exposed = metrics.exposition("")[0].decode()
    (line,) = [line for line in exposed.splitlines() if 'certificate="listener-certificate"' in line]
    assert float(line.split()[-1]) == end.timestamp()


async def test_it_is_told_when_kafkas_certificates_end_and_that_their_files_have_changed(
    trials: Trials, tmp_path: Path
) -> None:
    certificate, ca = tmp_path / "certificate.pem", tmp_path / "ca.pem"
    shutil.copy(trials.good.client_certificate, certificate)
    shutil.copy(trials.good.ca, ca)
    metrics, lines = Metrics(), io.StringIO()
    properties = {"ssl.certificate.location": str(certificate), "ssl.ca.location": str(ca)}
    log = start_logging(form="json", stream=lines)
    watching = asyncio.ensure_future(watch_kafka(properties, log, metrics, interval=0.01))
    try:
        exposed = await eventually(lambda: _kafkas(metrics))
        assert exposed == {"kafka-certificate", "kafka-ca"}
        assert not lines.getvalue()
        new = tmp_path / "new.pem"
        shutil.copy(trials.good.server_certificate, new)
        new.replace(certificate)
        await eventually(lambda: "kafka certificates changed" in lines.getvalue())
    finally:
        watching.cancel()


def _kafkas(metrics: Metrics) -> set[str]:
    """Certificates of Kafka's that the metric tells the end of."""
    exposed = metrics.exposition("")[0].decode()
    return {f"kafka-{kind}" for kind in ("certificate", "ca") if f'certificate="kafka-{kind}"' in exposed}
