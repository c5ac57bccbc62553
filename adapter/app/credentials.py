"""What Kafka's clients identify themselves with, and its renewal while the process runs.

librdkafka reads passwords and TLS files when a client is made. So once their files have changed, and Kafka accepts what
they hold now, all clients are made anew: worker and projector leave their group and start again, the server exchanges
its producer.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import blake2b
from pathlib import Path
from typing import Final

from adapter.core.errors import Stop, Unavailable
from adapter.core.instant import utc
from adapter.settings import Kafka
from adapter.telemetry import Log, Metrics
from adapter.telemetry import metrics as m
from adapter.transport.kafka.admin import Admin
from adapter.transport.tls import LOOK, NotAfter, Stamp, check, stamp

_FILE: Final = ".location"
"""How librdkafka names the properties that hold the path of a file."""


class Credentials:
    """Kafka's credentials in use."""

    def __init__(self, kafka: Kafka, log: Log, metrics: Metrics) -> None:
        self._kafka = kafka
        self._log = log
        self._named = {n: Path(value) for n, value in kafka.properties.items() if n.endswith(_FILE)}
        self._paths = (*self._named.values(), *kafka.properties_files.values())
        self._seen = stamp(self._paths)
        """Of the files whose contents are in use."""
        self._used = self._contents()
        self._refused = ""
        """Why changed files are not in use."""
        self._next = _future()
        if self._paths:
            metrics.watch(m.CERTIFICATES_REFUSED, lambda: {"kafka": float(bool(self._refused))})
        self._not_after = self._ends()
        metrics.watch(
            m.CERTIFICATE_NOT_AFTER,
            lambda: {f"kafka-{kind}": end.timestamp() for kind, end in self._not_after.items()},
        )

    async def renewal(self) -> Mapping[str, str]:
        """Wait for the next renewal. Returns the clients' new properties."""
        return await asyncio.shield(self._next)

    async def watch(self, *, interval: float = LOOK) -> None:
        """Look for changed files, and renew the clients once Kafka accepts them, until cancelled."""
        while self._paths:
            await asyncio.sleep(interval)
            seen = stamp(self._paths)
            if seen != self._seen:
                await self._try(seen)

    async def _try(self, seen: Stamp) -> None:
        found = self._contents()
        if found == self._used:  # written again, as by whoever copies a secret every few minutes, or taken back
            self._seen, self._refused = seen, ""
            return
        try:
            client = self._kafka.client()
            await asyncio.to_thread(lambda: Admin(client).brokers())
        except (Stop, Unavailable) as error:
            if str(error) != self._refused:
                self._refused = str(error)
                self._log.error("new Kafka credentials are not used", reason=self._refused)
            return
        self._seen, self._used, self._refused, self._not_after = seen, found, "", self._ends()
        ends = {kind: utc(end) for kind, end in self._not_after.items()}
        self._log.info("new Kafka credentials in use", not_after=ends)
        renewed, self._next = self._next, _future()
        renewed.set_result(client)

    def _contents(self) -> tuple[object, ...]:
        return tuple(map(_content, self._paths))

    def _ends(self) -> Mapping[str, datetime]:
        ignored: list[str] = []  # librdkafka itself says what it can't use
        found: dict[str, Sequence[datetime]] = {}
        for kind in ("certificate", "ca"):
            path = self._named.get(f"ssl.{kind}{_FILE}")
            if path is not None and (ends := check(path, ignored, own=kind == "certificate")):
                found[kind] = ends
        return NotAfter(found)


def _content(path: Path) -> object:
    """A digest of what the file holds; of what can't be read as one, such as a folder of authorities, its stamp."""
    try:
        return blake2b(path.read_bytes()).digest()
    except OSError:
        return stamp((path,))


def _future() -> "asyncio.Future[Mapping[str, str]]":
    return asyncio.get_running_loop().create_future()
