import io
import json
from datetime import UTC, datetime

from adapter.app.certificates import CertificateReport
from adapter.telemetry import Metrics, start_logging


def test_the_page_and_the_metric_tell_when_certificates_end() -> None:
    end = datetime(2027, 1, 1, tzinfo=UTC)
    metrics = Metrics()
    report = CertificateReport("listener", start_logging(stream=io.StringIO()), metrics)
    assert report.status() == {}
    report.watch(lambda: {"certificate": end})
    assert json.loads(json.dumps(report.status())) == {
        "listener_certificates": {"certificate": "2027-01-01T00:00:00.000Z"}
    }
    exposed = metrics.exposition("")[0].decode()
    (line,) = [line for line in exposed.splitlines() if 'certificate="listener-certificate"' in line]
    assert float(line.split()[-1]) == end.timestamp()
