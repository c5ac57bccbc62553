"""The steps of both paths, one by one: what a command or a notification costs in CPU, and where.

Each step is run on the product's own parts with a command of real size (bench/load.py). Times are CPU time of this
process, so a busy machine disturbs them little; the ratio to the yardstick disturbs them less.
"""

import asyncio
import gc
import io
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any, Final, TextIO

import uvloop

from adapter.core.avro import Encoder, UnknownFields
from adapter.core.command import Accepted, Command, Policy, Untouched
from adapter.core.document import DocumentLimits, admit
from adapter.core.journal import Entry, Extent, Kind, Source
from adapter.core.lanes import Lanes
from adapter.core.notification import Delivery, Readable
from adapter.core.offsets import Frontier
from adapter.core.outcome import Judge
from adapter.core.retry import Backoff
from adapter.core.soap import Version, wrap
from adapter.ports import Arrival, Caller
from adapter.server.records import Records
from adapter.settings import tree
from adapter.telemetry import Metrics, start_logging
from adapter.telemetry import metrics as m
from adapter.transport.https import HttpsCalls
from adapter.twin import answers, certificates
from adapter.worker.events import Events, Subject, message_id
from adapter.worker.reader import Reader, Task
from bench import load
from bench.callers import Post
from bench.measurement import yardstick
from tests.support.bus import Schemas
from tests.support.known import known

_OPERATION: Final = "AddFaultReport"
_BUYERS: Final = frozenset({"SPDEV1"})
_ROUNDS: Final = 5


@dataclass(frozen=True, slots=True)
class Step:
    name: str
    path: str
    """command or notification."""
    prepare: Callable[[], Callable[[int], None]]
    """Makes what is run so many times."""
    batch: int = 500


@dataclass(frozen=True, slots=True)
class Cost:
    name: str
    path: str
    microseconds: float
    ratio: float
    """To the yardstick of the same moment: parts per million of it."""


def measured(step: Step, rounds: int = _ROUNDS) -> Cost:
    """The best of some rounds, the yardstick taken around each."""
    run = step.prepare()
    run(step.batch // 5)
    best, ratio = float("inf"), float("inf")
    for _ in range(rounds):
        before = yardstick(2)
        with _without_collection():
            began = time.process_time()
            run(step.batch)
            seconds = (time.process_time() - began) / step.batch
        against = min(before, yardstick(2))
        best, ratio = min(best, seconds), min(ratio, seconds / against)
    return Cost(step.name, step.path, round(best * 1e6, 2), round(ratio * 1e6, 1))


@contextmanager
def _without_collection() -> Iterator[None]:
    """What a step leaves behind is not collected in some other step's time."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@cache
def _schemas() -> tuple[Schemas, dict[str, int]]:
    registry = Schemas()
    everything = {**known().commands, **known().events, **known().journal}
    return registry, {name: registry.add(schema.text) for name, schema in everything.items()}


@cache
def _encoders() -> dict[str, Encoder]:
    _, ids = _schemas()
    return {name: Encoder(schema, ids[name]) for name, schema in (*known().events.items(), *known().journal.items())}


@cache
def _events() -> Events:
    return Events(
        events_topic="events",
        dead_letters_topic="letters",
        quarantine_topic="quarantine",
        journal_topic="journal",
        source="/bench",
        encoders=_encoders(),
    )


@cache
def _source() -> Source:
    _, ids = _schemas()
    value = load.encoded(known().commands[_OPERATION].parsed, ids[_OPERATION], load.OPERATIONS["add"][1], "K-000001", 1)
    return Source(0, 1, 1_772_443_200.0, b"K-000001", value, ())


@cache
def _reader() -> Reader:
    registry, _ = _schemas()
    return Reader(known(), registry, UnknownFields.REJECT)


@cache
def _task() -> Task:
    task: Task = _now(_reader().read(_source()))
    return task


@cache
def _request() -> bytes:
    return wrap(known().operations[_OPERATION].writer.write(_task().record, _protocol()))


@cache
def _reply() -> bytes:
    letterhead = answers.Letterhead("LEAN", message_id("1"), datetime(2026, 3, 2, tzinfo=UTC), None)
    inner = answers.elements(status="Pending", responseCode="200")
    return answers.document(answers.reply("addFaultReport", letterhead, inner), Version.SOAP_1_1)


def _protocol() -> dict[str, Any]:
    return {
        "api_version": "1.0",
        "buyer_identifier": "SPDEV1",
        "sent_at": datetime.now(UTC),
        "message_id": "5d7e0f5e-6a0f-5c0e-9d6b-1f1a7c0d2b43",
        "correlation_id": "5d7e0f5e-6a0f-5c0e-9d6b-1f1a7c0d2b43",
    }


def _now(read: Awaitable[Any]) -> Any:
    """The result of a coroutine that has nothing to wait for."""
    try:
        read.__await__().__next__()
    except StopIteration as end:
        return end.value
    raise AssertionError("it waits")


def _each(act: Callable[[], object]) -> Callable[[int], None]:
    def run(times: int) -> None:
        for _ in range(times):
            act()

    return run


# -- the command path ------------------------------------------------------------------------------------------------


def _decode() -> Callable[[int], None]:
    reader, source = _reader(), _source()
    _task()
    return _each(lambda: _now(reader.read(source)))


def _write() -> Callable[[int], None]:
    writer, record = known().operations[_OPERATION].writer, _task().record
    return _each(lambda: wrap(writer.write(record, _protocol())))


def _judge() -> Callable[[int], None]:
    headers = {"content-type": "text/xml; charset=utf-8"}
    entry = known().operations[_OPERATION]
    judge = Judge(replies=known().supplier.replies, accepted_codes=frozenset({200}), limits=DocumentLimits())
    read = partial(
        judge.verdict,
        status=200,
        headers=headers,
        body=_reply(),
        operation=entry.operation,
        reader=entry.reader,
        reference=None,
        now=datetime.now(UTC),
    )
    assert isinstance(read(), Accepted)
    return _each(read)


def _event() -> Callable[[int], None]:
    reader = known().operations[_OPERATION].reader
    reply = reader.read(admit(_reply())[0][0]).record
    subject: Subject = _task().subject
    accepted = Accepted(reply)
    return _each(lambda: _events().outcome(subject, accepted, attempts=1, at=datetime.now(UTC)))


def _entry() -> Callable[[int], None]:
    """As they come from a partition under load: a record of twenty."""
    digest, command_id = _task().digest, _task().subject.command_id

    def run(times: int) -> None:
        for _ in range(times // 20):
            entries = [Entry(Kind.INTENT, command_id, 1, digest, time.time(), attempt=1) for _ in range(20)]
            _events().entries(entries, 0)

    return run


def _state() -> Callable[[int], None]:
    operation = _task().subject.operation
    policy = Policy(Backoff(0.2, 5.0), 50.0, {}, lambda: 0.5, 60.0)
    accepted = Accepted({})

    def live() -> None:
        command = Command(operation, policy, not_after=None)
        command.begin(1.0, Untouched())
        command.intended(1.0)
        command.answered(2.0, accepted)
        command.published()

    return _each(live)


def _bookkeeping() -> Callable[[int], None]:
    entry = Entry(Kind.INTENT, _task().subject.command_id, 1, b"", 1.0)

    def run(times: int) -> None:
        lanes: Lanes[int] = Lanes()
        frontier, extent = Frontier(0), Extent(0)
        for offset in range(times):
            frontier.deliver(offset)
            lanes.put(b"K", offset)
        for offset in range(times):
            lanes.head(b"K")
            extent.known(entry, 1.0)
            extent.known(entry, 1.0)
            frontier.finish(offset)
            extent.mark(frontier.position)
            extent.committed(2)
            lanes.done(b"K")

    return run


def _metrics() -> Callable[[int], None]:
    metrics = Metrics()

    def tell() -> None:
        meter = metrics.operation(_OPERATION)
        meter.received.inc()
        meter.call_seconds.observe(0.1)
        metrics.count(m.CALLS, _OPERATION, "accepted")
        metrics.count(m.OUTCOMES, _OPERATION, "accepted")
        meter.command_seconds.observe(0.12)

    return _each(tell)


def _log_line() -> Callable[[int], None]:
    sink: TextIO = io.StringIO()
    log = start_logging(form="json", stream=sink).bind(flow="worker")

    def tell() -> None:
        log.info(
            "outcome",
            outcome="accepted",
            attempts=1,
            seconds=0.1203,
            operation=_OPERATION,
            command_id="5d7e0f5e-6a0f-5c0e-9d6b-1f1a7c0d2b43",
            reference="K-000001",
            partition=3,
            offset=123_456,
        )

    return _each(tell)


class _Caller:
    """Calls a lean twin in a process of its own, 64 at a time."""

    def __init__(self, *, tls: bool) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="fault-adapter-bench-")
        files = certificates.make(Path(self._folder.name))
        pair = ("--certificate", str(files.server_certificate), "--key", str(files.server_key), "--ca", str(files.ca))
        self._twin = subprocess.Popen(
            (sys.executable, "-m", "adapter", "twin", "--lean", "--port", "0", "--control-port", "0")
            + (pair if tls else ()),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._twin.stdout is not None
        said = self._twin.stdout.readline()
        found = re.search(r"twin: (\S+)", said)
        assert found is not None, said
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        ours = tree.Tls(certificate=files.client_certificate, key=files.client_key, ca=files.ca) if tls else tree.Tls()
        self._supplier = tree.Supplier(buyer_identifier="SPDEV1", tls=ours)
        self._url = found[1]
        self._calls = self._runner.run(self._open())

    async def _open(self) -> HttpsCalls:
        return HttpsCalls(self._url, self._supplier)

    def __call__(self, times: int) -> None:
        self._runner.run(self._many(times))

    async def _many(self, times: int) -> None:
        body = _request()
        headers = {"content-type": "text/xml; charset=utf-8", "soapaction": '""', "traceparent": "00-1-1-00"}

        async def lane() -> None:
            for _ in range(times // 64):
                reply = await self._calls.post("/addFaultReport", body, headers)
                assert reply.status == 200

        await asyncio.gather(*(lane() for _ in range(64)))

    def __del__(self) -> None:
        self._runner.run(self._calls.close())
        self._runner.close()
        self._twin.kill()
        self._twin.wait()
        if self._twin.stdout is not None:
            self._twin.stdout.close()
        self._folder.cleanup()


# -- the notification path -------------------------------------------------------------------------------------------


@cache
def _arrival() -> Arrival:
    body = Post("bench", tickets=1).next().partition(b"\r\n\r\n")[2]
    delivery = Delivery(body, datetime.now(UTC), path="/notify", content_type="text/xml; charset=utf-8")
    return Arrival(delivery, Caller("192.0.2.7", None))


@cache
def _readable() -> Readable:
    readable = known().notification.reader.read(_arrival().delivery, buyers=_BUYERS)
    assert isinstance(readable, Readable), readable
    return readable


def _notification() -> Callable[[int], None]:
    reader, delivery = known().notification.reader, _arrival().delivery
    _readable()
    return _each(lambda: reader.read(delivery, buyers=_BUYERS))


def _notified() -> Callable[[int], None]:
    encoder = _encoders()[known().notification.event.name]
    records = Records(
        events_topic="events", quarantine_topic="quarantine", source="/bench", encoder=encoder, largest=2**22
    )
    return _each(lambda: records.event(_readable(), _arrival()))


def _answered() -> Callable[[int], None]:
    answers_, readable = known().notification.answers, _readable()
    return _each(
        lambda: answers_.accepted(readable, api_version="1.0", buyer="SPDEV1", at=datetime.now(UTC), own_id=False)
    )


def _notification_metrics() -> Callable[[int], None]:
    metrics, readable = Metrics(), _readable()
    seconds = metrics.histogram(m.NOTIFICATION_SECONDS)

    def tell() -> None:
        metrics.count(m.NOTIFICATIONS, "published")
        metrics.count(m.NOTIFICATION_KINDS, readable.kind)
        for path in readable.strayed:
            metrics.count(m.NOTIFICATION_DEVIATIONS, path)
        seconds.observe(0.01)

    return _each(tell)


STEPS: Final = (
    Step("decode and check the command", "command", _decode),
    Step("write and validate the request", "command", _write),
    Step("call over HTTP", "command", partial(_Caller, tls=False), batch=64 * 20),
    Step("call over mutual TLS", "command", partial(_Caller, tls=True), batch=64 * 20),
    Step("read and judge the reply", "command", _judge),
    Step("encode the event", "command", _event),
    Step("encode a journal entry", "command", _entry),
    Step("state machine", "command", _state),
    Step("lanes, frontier and journal marks", "command", _bookkeeping),
    Step("metrics", "command", _metrics),
    Step("log line", "command", _log_line),
    Step("read a notification", "notification", _notification),
    Step("event of a notification", "notification", _notified),
    Step("answer to a notification", "notification", _answered),
    Step("metrics of a notification", "notification", _notification_metrics),
)
