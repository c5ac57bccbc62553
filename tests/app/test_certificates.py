import io
import json

from adapter.app.certificates import Certificates
from adapter.core.instant import utc
from adapter.telemetry import Metrics, start_logging
from adapter.transport.tls import ClientTls, TlsFiles
from tests.support.certificates import Trials


def test_the_page_and_the_metric_tell_when_certificates_end(trials: Trials) -> None:
    tls = ClientTls(TlsFiles(trials.good.client_certificate, trials.good.client_key, trials.good.ca))
    metrics, log = Metrics(), start_logging(stream=io.StringIO())
    assert Certificates("supplier", None, log, metrics).status() == {}
    certificates = Certificates("listener", tls, log, metrics)
    end = tls.not_after["certificate"]
    assert json.loads(json.dumps(certificates.status()))["listener_certificates"]["certificate"] == utc(end)
    exposed = metrics.exposition("")[0].decode()
    (line,) = [line for line in exposed.splitlines() if 'certificate="listener-certificate"' in line]
    assert float(line.split()[-1]) == end.timestamp()
