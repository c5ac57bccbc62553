"""The certificates of both directions: changed files are taken up, and expiry and unusable files reported."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from adapter.core.instant import utc
from adapter.telemetry import Log, Metrics
from adapter.telemetry import metrics as m
from adapter.transport.tls import LiveTls


class Certificates:
    """Those of one direction, "supplier" or "listener"; without `tls` it has none."""

    def __init__(self, direction: str, tls: LiveTls | None, log: Log, metrics: Metrics) -> None:
        self._direction = direction
        self._tls = tls
        self._log = log
        self._refused = False
        if tls is not None:
            metrics.watch(
                m.CERTIFICATE_NOT_AFTER,
                lambda: {f"{direction}-{kind}": end.timestamp() for kind, end in tls.not_after.items()},
            )
            metrics.watch(m.CERTIFICATES_REFUSED, lambda: {direction: float(self._refused)})

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Take up changed files within the block."""
        watching = None if self._tls is None else asyncio.create_task(self._tls.watch(self._changed))
        try:
            yield
        finally:
            if watching is not None:
                watching.cancel()
                await asyncio.wait((watching,))

    def status(self) -> dict[str, dict[str, str]]:
        """Their part of the status page: the expiry of those in use."""
        ends = self._ends()
        return {f"{self._direction}_certificates": ends} if ends else {}

    def _changed(self, problems: Sequence[str]) -> None:
        self._refused = bool(problems)
        if problems:
            self._log.error("new certificates are not used", problems=list(problems))
        else:
            self._log.info("new certificates in use", not_after=self._ends())

    def _ends(self) -> dict[str, str]:
        return {} if self._tls is None else {kind: utc(end) for kind, end in self._tls.not_after.items()}
