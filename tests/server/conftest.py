"""A server on this loop, before a real broker."""

import io
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from adapter import app
from adapter.app.server import Listening
from adapter.settings import Receiving, load
from adapter.telemetry import Metrics, start_logging
from tests.server.bus import Record, records
from tests.support.processes import Process
from tests.support.rig import Rig, open_rig

PLAIN = {"SERVER__ALLOW_PLAINTEXT": "true", "SERVER__HOST": "127.0.0.1", "SERVER__PORT": "0"}
SAMPLES = Path(__file__).parents[1] / "golden/cityfibre/notifications"
SAMPLE = (SAMPLES / "appointment-cancelled/notification.xml").read_bytes()


def notification(reference: str, *, message: str = "M-1") -> bytes:
    return SAMPLE.replace(b"SP-123ABC", reference.encode()).replace(b"CF-00003", message.encode())


@dataclass(slots=True)
class Serving:
    rig: Rig
    running: Listening
    metrics: Metrics
    lines: io.StringIO

    @property
    def port(self) -> int:
        return self.running.listener.port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/notify"

    async def post(self, body: bytes, **headers: str) -> tuple[int, str]:
        async with aiohttp.ClientSession() as client, client.post(self.url, data=body, headers=headers) as reply:
            return reply.status, await reply.text()

    def events(self) -> list[Record]:
        return records(self.rig.bootstrap, self.rig.topics.events)

    def quarantine(self) -> list[Record]:
        return records(self.rig.bootstrap, self.rig.topics.quarantine)


def port_of(process: Process) -> int:
    """Of a server process that listens; 0 before that."""
    found = re.search(r'"event":"server starts".*?"port":(\d+)', process.output)
    return int(found[1]) if found else 0


Serve = Callable[..., AbstractAsyncContextManager[Serving]]


@asynccontextmanager
async def serving(rig: Rig, **more: str) -> AsyncIterator[Serving]:
    lines, metrics = io.StringIO(), Metrics()
    settings = load(Receiving, rig.environment(**(PLAIN | more)))
    log = start_logging(form="json", stream=lines)
    async with (
        app.open_page(settings.telemetry, metrics, log, ("server",)) as page,
        app.server(settings, log, metrics, page) as running,
    ):
        yield Serving(rig, running, metrics, lines)
    print(lines.getvalue()[-10_000:])


@pytest.fixture
async def serve(kafka: str) -> AsyncIterator[Serve]:
    """Starts servers with these settings, all before one set of topics."""
    async with open_rig(kafka) as rig:
        yield lambda **more: serving(rig, **more)
