"""Hostile XML, both directions: ten thousand bodies, each read or refused, quickly, with nothing else touched."""

import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from adapter.core.document import DocumentLimits
from adapter.core.notification import Delivery, Readable, Refusal
from adapter.core.outcome import Judge
from tests.faults import hostile
from tests.support.alone import alone, resident
from tests.support.known import known

GOLDEN: Final = Path(__file__).parents[1] / "golden/cityfibre"
MOST: Final = 1.0
"""Seconds of work one body may cost: several times what the slowest does, and little beside what is not linear."""
CANARY: Final = "this-is-the-content-of-a-file"
AT: Final = datetime(2026, 3, 2, tzinfo=UTC)

Reader = Callable[[bytes], str]
"""What became of a body, in text; all that a reader has taken from it among it."""


@pytest.fixture
def tripwire() -> Iterator[tuple[str, list[object]]]:
    """A URL, and who has come to it."""
    visits: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def wait() -> None:
            while True:
                try:
                    visitor, address = server.accept()
                except OSError:
                    return
                visits.append(address)
                visitor.close()

        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/x", visits
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


@pytest.mark.parametrize("direction", ["notification", "reply"])
def test_ten_thousand_hostile_bodies_are_read_or_refused_and_nothing_else_happens(
    direction: str, tripwire: tuple[str, list[object]], tmp_path: Path
) -> None:
    url, visits = tripwire
    secret = tmp_path / "secret"
    secret.write_text(CANARY)
    os.utime(secret, (0, 1))  # long ago, so that a reading would show whatever the file system's way with such times
    trial = alone(_tried, direction, secret.as_uri(), url)
    assert trial.number == hostile.SIZE
    assert trial.slowest < MOST
    assert trial.grown < 8 * 1024**2
    assert not visits
    assert secret.stat().st_atime == 0
    assert len(trial.results) > 5, "the bodies are refused for too few reasons to be a trial"
    print(trial.results)


class _Trial(NamedTuple):
    number: int
    """Of bodies that were read or refused."""
    slowest: float
    """Seconds of work of one."""
    grown: int
    """Bytes of memory that stayed taken."""
    results: Counter[str]


def _tried(direction: str, secret: str, url: str) -> _Trial:
    valid, read = _notification() if direction == "notification" else _reply()
    read(valid)  # what is made ready at the first one
    results: Counter[str] = Counter()
    slowest, number, before = 0.0, 0, 0
    for number, body in enumerate(hostile.bodies(valid, file=secret, url=url), 1):
        began = time.thread_time()
        result = read(body)
        slowest = max(slowest, time.thread_time() - began)
        assert CANARY not in result
        results[result.partition(" ")[0]] += 1
        if number == 2500:  # the largest are behind us: what is needed for a time has been needed
            before = resident()
    return _Trial(number, slowest, resident() - before, results)


def _notification() -> tuple[bytes, Reader]:
    limits = DocumentLimits(size=hostile.LARGEST)

    def read(body: bytes) -> str:
        found = known().notification.reader.read(Delivery(body, AT), buyers=frozenset({"SPDEV1"}), limits=limits)
        match found:
            case Readable():
                return f"readable {found.record}"
            case Refusal():
                return f"{found.reason} {found.detail}"

    return (GOLDEN / "notifications/appointment-cancelled/notification.xml").read_bytes(), read


def _reply() -> tuple[bytes, Reader]:
    entry = known().operations["AddFaultReport"]
    judge = Judge(
        replies=known().supplier.replies,
        accepted_codes=frozenset({200}),
        limits=DocumentLimits(size=hostile.LARGEST),
    )

    def read(body: bytes) -> str:
        verdict = judge.verdict(
            status=200,
            headers={},
            body=body,
            operation=entry.operation,
            reader=entry.reader,
            reference=None,
            now=AT,
        )
        return f"{type(verdict).__name__}-{getattr(verdict, 'reason', '')} {verdict}"

    return (GOLDEN / "AddFaultReport/full/reply.xml").read_bytes(), read
