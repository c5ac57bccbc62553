"""What a notification holds in memory while its write waits for an acknowledgement."""

import asyncio
import io
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

from adapter.core.avro import Encoder
from adapter.core.notification import Delivery
from adapter.ports import Arrival, Caller, Outgoing
from adapter.server.admission import Admission
from adapter.server.flow import Deployment, Server
from adapter.server.records import Records
from adapter.telemetry import Metrics, start_logging
from tests.server.conftest import SAMPLE
from tests.support.alone import alone
from tests.support.known import known

MIB = 1024**2
END = b"</notifyFaultReportUpdate>"


class Silent:
    """A publisher that never gets an acknowledgement."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    def publish(self, record: Outgoing, *, limit: float, late: Callable[[], None]) -> "asyncio.Future[None]":  # noqa: ARG002
        self.asked.set()
        return asyncio.get_running_loop().create_future()


async def _held() -> float:
    notification, bus = known().notification, Silent()
    server = Server(
        admission=Admission(frozenset(), frozenset(), frozenset(), "", ""),
        read=partial(notification.reader.read, buyers=frozenset({"SPDEV1"})),
        answers=notification.answers,
        publisher=bus,
        spool=None,
        deployment=Deployment("1.0", "SPDEV1", False, 4 * MIB, 60.0, 100, "http"),  # noqa: FBT003
        log=start_logging(level="error", form="json", stream=io.StringIO()),
        metrics=Metrics(),
    )
    server.start_publishing(Records("events", "quarantine", "/x", Encoder(notification.event, 1), 8 * MIB))
    body = SAMPLE.replace(END, f"<note>\N{GRINNING FACE}{'x' * MIB}</note>".encode() + END)
    tracemalloc.start()
    waiting = asyncio.ensure_future(
        server.receive(Arrival(Delivery(body, datetime.now(UTC)), Caller("192.0.2.7", None)))
    )
    await bus.asked.wait()
    held = tracemalloc.get_traced_memory()[0] / MIB
    waiting.cancel()
    server.close()
    return held


def _measured() -> float:
    return asyncio.run(_held())


def test_of_a_notification_whose_write_waits_nothing_is_held_but_its_event() -> None:
    assert alone(_measured) < 2  # the event has 1 MiB; its text with an emoji took four more
