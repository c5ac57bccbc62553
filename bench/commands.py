"""The command path as a whole: from a command's record to its event, everything on as shipped.

    A   throughput: 100 ms supplier, 1,000 keys, 8 partitions, commands waiting in the topic
    B   throughput with a quick supplier: 5 ms, 100 keys
    S   skew: every fifth command is of one key, which can use one call at a time
    L   latency at a steady rate: 100/s, and 70 % of what A reaches at that moment
    R   restart with a backlog: time to the first call
    M   memory: with 10,000 unfinished commands, and under load for MINUTES
    G   growth: one condition at a time, over keys, calls in flight, partitions, size, workers

Every run of A, B, S and G is also a proof: the twin saw each command once, in its key's order, never two of a key
at once, and a read_committed reader finds one final event for each. A run that fails this has no figures.
"""

import json
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, Final, Self

from confluent_kafka import Consumer, TopicPartition

from adapter.worker.events import message_id
from bench import load
from bench.measurement import Measurement, taken, yardstick
from bench.stage import Stage, Twin, cpu, machine_busy, memory
from tests.support.processes import Process
from tests.support.topics import Topics
from tests.support.wait import wait_until

_LOOK: Final = 0.1
_LIMIT: Final = 400.0
"""Seconds a run may take."""


@dataclass(frozen=True, slots=True)
class Conditions:
    operation: str = "add"
    commands: int = 60_000
    keys: int = 1000
    latency_ms: float = 100
    partitions: int = 8
    in_flight: int = 512
    workers: int = 1
    padding: int = 0
    """Characters of attachments in every command."""
    skewed: bool = False
    tls: bool = False


CASES: Final = {
    "A": Conditions(),
    "B": Conditions(latency_ms=5, keys=100),
    "S": Conditions(skewed=True, commands=20_000, latency_ms=5),
}

GROWTH: Final[dict[str, Sequence[Any]]] = {
    "keys": (10, 100, 1000, 10_000, 100_000),
    "in_flight": (1, 8, 64, 256, 512, 1024, 4096),
    "partitions": (1, 4, 8, 16, 64),
    "padding": (0, 4_000, 16_000, 64_000, 250_000),
    "workers": (1, 2, 3, 4),
}


def throughput(stage: Stage, case: str, conditions: Conditions) -> Measurement:
    """Commands waiting in the topic are worked off; figures are of the time from the first call to the last."""
    before = yardstick()
    with _Run(stage, conditions) as run:
        sent = run.fill()
        workers = [run.start() for _ in range(conditions.workers)]
        first, half, last = run.marks(workers, len(sent))
        peak = max(memory(worker.pid)[1] for worker in workers)
        run.committed(workers, len(sent))
        run.prove(sent)
    return taken(
        case,
        asdict(conditions),
        {
            "rate_per_s": round((last.calls - first.calls) / max(last.at - first.at, _LOOK), 1),
            "rate_second_half_per_s": round((last.calls - half.calls) / max(last.at - half.at, _LOOK), 1),
            "cpu_ms_per_command": round((last.cpu - first.cpu) / (last.calls - first.calls) * 1000, 4),
            "cpu_ms_per_command_second_half": round((last.cpu - half.cpu) / max(last.calls - half.calls, 1) * 1000, 4),
            "twin_cpu_ms_per_command": round((last.twin - first.twin) / (last.calls - first.calls) * 1000, 4),
            "worker_cores": round((last.cpu - first.cpu) / (last.at - first.at), 2),
            "machine_cores": round((last.busy - first.busy) / (last.at - first.at), 2),
            "start_to_first_call_s": round(first.at - run.started, 2),
            "peak_memory_mib": round(peak, 1),
        },
        before=before,
    )


def growth(stage: Stage, *, tls: bool, only: str | None, commands: int) -> Iterator[Measurement]:
    base = Conditions(tls=tls, latency_ms=20)
    for name, values in GROWTH.items():
        for value in values if only in (None, name) else ():
            changed = replace(base, **{name: value}, commands=_enough(name, value, commands))
            if name == "keys" and value > 1000:
                changed = replace(changed, commands=max(commands, value))
            yield throughput(stage, f"G {name}", changed)


def _enough(name: str, value: float, most: int) -> int:
    """Commands that take some seconds, however slow the condition makes them."""
    if name in ("keys", "in_flight") and value < 100:
        return min(most, int(value * 250))
    return min(most, 3000) if name == "padding" and value > 10_000 else most


def busy(stage: Stage, conditions: Conditions) -> float:
    """70 % of the commands per second that a worker reaches now, to the next hundred."""
    found = throughput(stage, "A", replace(conditions, commands=20_000)).figures["rate_per_s"]
    assert isinstance(found, float)
    return round(found * 0.7, -2)


def latency(stage: Stage, conditions: Conditions, *, rate: float, seconds: float) -> Measurement:
    """What the adapter adds to the supplier's own time when commands come one by one."""
    before = yardstick()
    with _Run(stage, conditions) as run:
        worker = run.start()
        reader = run.reader()
        warm = [run.command(f"WARM-{number}", 0) for number in range(200)]
        for command in warm:
            run.sender.send(command)
            time.sleep(0.01)
        seen = _Arrivals(reader)
        wait_until(lambda: seen.look() >= len(warm), within=60, what="the first events")
        # Written before: on the cores that all share, making the load would be told as the adapter's wait.
        ready = [
            run.command(f"L-{number % conditions.keys:06d}", number // conditions.keys)
            for number in range(int(rate * seconds))
        ]
        cpu_before, began = cpu(worker.pid), time.monotonic()
        sent: dict[str, float] = {}
        while len(sent) < len(ready):
            due = int((time.monotonic() - began) * rate) + 1
            for command in ready[len(sent) : due]:
                sent[command.command_id] = time.monotonic()
                run.sender.send(command)
            seen.look(0.002)
        busy = time.monotonic() - began
        wait_until(lambda: seen.look() >= len(warm) + len(sent), within=60, what="all events")
        used = cpu(worker.pid) - cpu_before
        calls = {call["message_id"]: call for call in run.twin.calls()}
    to_request, to_event, whole = [], [], []
    for command_id, at in sent.items():
        call, arrived = calls[message_id(command_id)], seen.at[command_id]
        to_request.append(call["received"] - at)
        to_event.append(arrived - call["finished"])
        whole.append(arrived - at - (call["finished"] - call["received"]))
    figures = {"sent_per_s": round(len(sent) / busy, 1), "cpu_ms_per_command": round(used / len(sent) * 1000, 4)}
    for name, values in (("to_request", to_request), ("to_event", to_event), ("added", whole)):
        values.sort()
        for share in (50, 99):
            figures[f"{name}_p{share}_ms"] = round(values[len(values) * share // 100] * 1000, 2)
    return taken("L", asdict(conditions) | {"rate_per_s": rate}, figures, before=before)


def restart(stage: Stage, conditions: Conditions) -> Measurement:
    """A worker starts with everything still to do: until the first call, and its memory with a full window."""
    before = yardstick()
    with _Run(stage, conditions) as run:
        run.fill()
        worker = run.start()
        first = run.first_call([worker])
        time.sleep(5)
        assigned = _logged(worker, "partitions assigned")
        figures = {
            "start_to_first_call_s": round(first - run.started, 2),
            "assignment_to_first_call_s": None if assigned is None else round(first - assigned, 2),
            "memory_mib": round(memory(worker.pid)[0], 1),
        }
    return taken("R", asdict(conditions), figures, before=before)


def unfinished(stage: Stage, conditions: Conditions) -> Measurement:
    """Memory with a full window: calls are under way and do not end."""
    before = yardstick()
    with _Run(stage, conditions) as run:
        # Calls that do not end as long as we look.
        run.settings |= {"ADAPTER_SUPPLIER__READ_TIMEOUT": "600s", "ADAPTER_SUPPLIER__TOTAL_TIMEOUT": "600s"}
        run.settings |= {"ADAPTER_SUPPLIER__CONNECT_TIMEOUT": "60s", "ADAPTER_WORKER__STOP_TIMEOUT": "700s"}
        worker = run.start()
        wait_until(lambda: run.lives(worker) and "partition started" in worker.output, within=180, what="a partition")
        time.sleep(3)
        idle, began = cpu(worker.pid), time.monotonic()
        time.sleep(10)
        idle_share = (cpu(worker.pid) - idle) / (time.monotonic() - began)
        empty = memory(worker.pid)[0]
        run.fill()
        wait_until(
            lambda: run.lives(worker) and run.twin.summary()["most_at_once"] >= conditions.in_flight,
            within=180,
            what="calls",
        )
        time.sleep(5)
        figures = {
            "memory_idle_mib": round(empty, 1),
            "memory_full_mib": round(memory(worker.pid)[1], 1),
            "idle_cpu_percent": round(idle_share * 100, 2),
        }
    return taken("M full", asdict(conditions), figures, before=before)


def endurance(stage: Stage, conditions: Conditions, *, minutes: float) -> Measurement:
    """Memory under load for so long: at a tenth of the time and at its end."""
    before = yardstick()
    with _Run(stage, conditions) as run:
        worker = run.start()
        rounds, readings = 0, []
        end = time.monotonic() + minutes * 60
        while time.monotonic() < end:
            for key, number in load.spread(2000, conditions.keys):
                run.sender.send(run.command(key, rounds * 2000 + number))
            rounds += 1
            wanted = rounds * 2000
            wait_until(lambda: run.twin.summary()["requests"] >= wanted - 1000, within=60, what="the calls")  # noqa: B023 -- waited for at once
            readings.append((time.monotonic(), memory(worker.pid)[0]))
    early = readings[len(readings) // 10][1]
    figures = {
        "commands": rounds * 2000,
        "memory_early_mib": round(early, 1),
        "memory_end_mib": round(readings[-1][1], 1),
    }
    return taken("M load", asdict(conditions) | {"minutes": minutes}, figures, before=before)


@dataclass(frozen=True, slots=True)
class _Mark:
    at: float
    calls: float
    cpu: float
    twin: float
    busy: float


class _Run:
    """Topics, twin and workers of one measurement; gone at its end."""

    def __init__(self, stage: Stage, conditions: Conditions) -> None:
        self.stage = stage
        self.conditions = conditions
        self.topics: Topics = stage.topics(conditions.partitions)
        self.twin: Twin = stage.twin(latency=conditions.latency_ms / 1000, tls=conditions.tls)
        self.settings = stage.settings(self.topics) | stage.supplier(self.twin)
        self.settings["ADAPTER_SUPPLIER__MAX_IN_FLIGHT"] = str(conditions.in_flight)
        stage.register(self.settings)
        self.writer = load.Writer(stage.registry, self.topics.commands)
        self.sender = load.Sender(stage.bootstrap, self.topics.commands)
        self.started = 0.0
        self._workers: list[Process] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in (*self._workers, self.twin.process):
            process.close(grace=10)

    def command(self, key: str, number: int) -> load.Command:
        return self.writer.command(self.conditions.operation, key, number, padding=self.conditions.padding)

    def fill(self) -> list[tuple[str, str]]:
        """Put the commands on the topic; their keys and ids, in order."""
        sent = []
        for key, number in load.spread(self.conditions.commands, self.conditions.keys, skewed=self.conditions.skewed):
            command = self.command(key, number)
            self.sender.send(command)
            sent.append((key, command.command_id))
        self.sender.flush()
        return sent

    def start(self) -> Process:
        self.started = time.monotonic()
        self._workers.append(self.stage.worker(self.settings))
        return self._workers[-1]

    def first_call(self, workers: Sequence[Process]) -> float:
        wait_until(lambda: self.lives(*workers) and self.twin.summary()["requests"], within=60, what="the first call")
        return float(self.twin.calls()[0]["received"])

    def marks(self, workers: Sequence[Process], wanted: int) -> tuple[_Mark, _Mark, _Mark]:
        """Readings at the first call, half-way, and when all were made."""
        first, half, last = (self._mark(workers, at_least) for at_least in (1, wanted / 2, wanted))
        return first, half, last

    def _mark(self, workers: Sequence[Process], at_least: float) -> _Mark:
        deadline = time.monotonic() + _LIMIT
        while (calls := self.twin.summary()["requests"]) < at_least:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{calls} calls after {_LIMIT} s:\n{workers[0].tail()}")
            self.lives(*workers)
            time.sleep(_LOOK)
        used = sum(cpu(worker.pid) for worker in workers)
        return _Mark(time.monotonic(), calls, used, cpu(self.twin.process.pid), machine_busy())

    def committed(self, workers: Sequence[Process], wanted: int) -> None:
        """Wait until every command's offset is committed: its event and its end are in the same transaction."""

        def done() -> bool:
            self.lives(*workers)
            return self._committed() >= wanted

        wait_until(done, within=60, what="every command being committed")

    def prove(self, sent: Sequence[tuple[str, str]]) -> None:
        """Raises RuntimeError unless every command was called once, in order, and has one final event."""
        wanted: dict[str, list[str]] = {}
        for key, command_id in sent:
            wanted.setdefault(key, []).append(message_id(command_id))
        called: dict[str, list[str]] = {}
        for call in self.twin.calls():
            called.setdefault(call["key"], []).append(call["message_id"])
        if called != wanted:
            raise RuntimeError("the calls are not the commands in their order")
        if overlaps := self.twin.summary()["overlaps"]:
            raise RuntimeError(f"{overlaps} calls of one key at the same time")
        seen = _Arrivals(self.reader())
        wait_until(lambda: seen.look() >= len(sent), within=60, what="every event")
        seen.look(1.0)
        if seen.count != len(sent) or seen.at.keys() != {command_id for _, command_id in sent}:
            raise RuntimeError(f"{seen.count} events for {len(sent)} commands")

    def reader(self) -> Consumer:
        consumer = Consumer(
            {
                "bootstrap.servers": self.stage.bootstrap,
                "group.id": f"bench-{uuid.uuid4().hex}",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
            }
        )
        consumer.assign([TopicPartition(self.topics.events, number, 0) for number in range(self.topics.partitions)])
        return consumer

    def _committed(self) -> int:
        consumer = Consumer({"bootstrap.servers": self.stage.bootstrap, "group.id": self.topics.prefix})
        try:
            asked = [TopicPartition(self.topics.commands, number) for number in range(self.topics.partitions)]
            return sum(max(0, at.offset) for at in consumer.committed(asked, timeout=10))
        finally:
            consumer.close()

    def lives(self, *workers: Process) -> bool:
        """True; RuntimeError with its last lines if one has ended."""
        for worker in workers:
            if worker.exit_code is not None:
                raise RuntimeError(f"the worker ended with {worker.exit_code}:\n{worker.tail()}")
        return True


class _Arrivals:
    """When each command's event was first seen."""

    def __init__(self, reader: Consumer) -> None:
        self.at: dict[str, float] = {}
        self.count = 0
        self._reader = reader

    def look(self, seconds: float = 0.05) -> int:
        """Take what is there, or comes within so long; how many came so far."""
        for message in self._reader.consume(500, seconds):
            if message.error() is None:
                self.count += 1
                value = message.value() or b""
                self.at[value[6:42].decode()] = time.monotonic()  # commandId comes first: 5 bytes of frame, its length
        return self.count


def _logged(worker: Process, event: str) -> float | None:
    """Monotonic seconds at which the worker wrote that line first."""
    for text in worker.output.splitlines():
        if f'"{event}"' in text:
            at: str = json.loads(text)["time"]
            return datetime.fromisoformat(at).timestamp() - time.time() + time.monotonic()
    return None
