"""Logs and metrics about the certificates of both directions: expiry, and unusable files."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from adapter.core.instant import utc
from adapter.telemetry import Log, Metrics
from adapter.telemetry import metrics as m


class CertificateReport:
    """The report on one direction, "supplier" or "listener". `reloaded` is called with the problems of every change of
    the files.
    """

    def __init__(self, direction: str, log: Log, metrics: Metrics) -> None:
        self._direction = direction
        self._log = log
        self._metrics = metrics
        self._refused = False
        self._not_after: Callable[[], Mapping[str, datetime]] = dict

    def watch(self, not_after: Callable[[], Mapping[str, datetime]]) -> None:
        """`not_after` returns the times of expiry of the certificates in use, by kind of file."""
        self._not_after = not_after
        self._metrics.watch(
            m.CERTIFICATE_NOT_AFTER,
            lambda: {f"{self._direction}-{kind}": end.timestamp() for kind, end in not_after().items()},
        )
        self._metrics.watch(m.CERTIFICATES_REFUSED, lambda: {self._direction: float(self._refused)})

    def reloaded(self, problems: Sequence[str]) -> None:
        self._refused = bool(problems)
        if problems:
            self._log.error("new certificates are not used", problems=list(problems))
        else:
            self._log.info("new certificates in use", not_after=self._ends())

    def status(self) -> dict[str, dict[str, str]]:
        """Its part of the status page: the expiry of the certificates in use."""
        ends = self._ends()
        return {f"{self._direction}_certificates": ends} if ends else {}

    def _ends(self) -> dict[str, str]:
        return {kind: utc(end) for kind, end in self._not_after().items()}
