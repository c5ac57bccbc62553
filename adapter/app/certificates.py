"""Logs and metrics about the certificates of both directions and of Kafka's client: expiry, and unusable files."""

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

from adapter.telemetry import Log, Metrics
from adapter.telemetry import metrics as m
from adapter.transport.tls import NotAfter, Reload, TlsFiles, check, stamp


class CertificateReport:
    """The report on one direction, "supplier" or "listener". `reloaded` is called with every change of the files."""

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

    def reloaded(self, reload: Reload) -> None:
        self._refused = bool(reload.problems)
        if reload.problems:
            self._log.error("new certificates are not used", problems=list(reload.problems))
        else:
            ends = {kind: end.isoformat() for kind, end in reload.not_after.items()}
            self._log.info("new certificates in use", not_after=ends)

    def status(self) -> dict[str, dict[str, str]]:
        """Its part of the status page: the expiry of the certificates in use."""
        ends = {kind: end.isoformat() for kind, end in self._not_after().items()}
        return {f"{self._direction}_certificates": ends} if ends else {}


async def watch_kafka(properties: Mapping[str, str], log: Log, metrics: Metrics, *, interval: float = 5.0) -> None:
    """Expose the expiry of the certificates of Kafka's client and log changes of its files, until cancelled.

    librdkafka reads them once, when a client is made: the expiry is that of the files at the start.
    """
    certificate, key, ca = (
        Path(place) if (place := properties.get(f"ssl.{kind}.location")) else None
        for kind in ("certificate", "key", "ca")
    )
    files = TlsFiles(certificate, key, ca)
    before = stamp(files)
    if not before:
        return
    ignored: list[str] = []  # librdkafka itself says what it can't use
    found = {
        kind: ends
        for kind, path in (("certificate", certificate), ("ca", ca))
        if path is not None and (ends := check(path, ignored, own=kind == "certificate"))
    }
    not_after = NotAfter(found)
    metrics.watch(
        m.CERTIFICATE_NOT_AFTER, lambda: {f"kafka-{kind}": end.timestamp() for kind, end in not_after.items()}
    )
    while True:
        await asyncio.sleep(interval)
        if (now := stamp(files)) != before:
            before = now
            log.warning("kafka certificates changed")
