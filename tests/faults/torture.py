"""The whole product under load while everything around it breaks, by a seeded plan, and the verdict over what is left.

    python -m tests.faults.torture --minutes 20 --seed 7 --report torture.json

Real processes: Apache Kafka, a registry, the twin with its webhooks, workers, servers and projectors, behind wires of
their own. The same seed gives the same plan; the machine adds its own chance.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import subprocess
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from confluent_kafka import KafkaException

from tests.faults import evidence, laws, ticket_laws
from tests.faults.evidence import Events, Evidence
from tests.faults.notices import Notices
from tests.faults.parts import Broker, Part, Supplier, Victim
from tests.faults.plan import Act, Cast, Mood, Step, seeded
from tests.faults.report import Report, Strike
from tests.faults.stage import OpenCalls, all_ended, late, open_registry, register, settings_of, workers
from tests.faults.wire import Trouble, Wire, Wires
from tests.faults.workload import Workload
from tests.support import topics as topic_sets
from tests.support.broker import Cluster
from tests.support.ports import free_port
from tests.support.processes import Process, Processes
from tests.support.topics import Topics
from tests.support.wait import eventually

LATENCY: Final = 1.5
"""Seconds the supplier takes for an answer, more or less: so a moderate load has many calls under way."""
IN_FLIGHT: Final = 50
"""Calls that should be under way when something is killed."""
WANTED: Final = 90
"""Calls the load keeps under way."""
BACKLOG: Final = 600
"""Commands that may wait, beyond which the load holds back."""
GATHERING: Final = 30.0
"""Seconds a kill waits for so many calls."""
PARTITIONS: Final = 8
PROJECTORS: Final = "fault-projectors"
BROKER: Final[Mapping[str, object]] = {
    "num.network.threads": 1,
}
MOODS: Final[Mapping[Mood, Mapping[str, Any]]] = {
    Mood.UNAVAILABLE: {"kind": "status", "status": 503},
    Mood.BUSY: {"kind": "status", "status": 429, "retry_after": 1, "probability": 0.5},
    Mood.RESET_BEFORE: {"kind": "reset", "taken": False, "probability": 0.2},
    Mood.RESET_AFTER: {"kind": "reset", "taken": True, "probability": 0.2},
    Mood.SILENCE: {"kind": "silence", "probability": 0.2},
    Mood.BROKEN: {"kind": "truncated", "probability": 0.2},
    Mood.ERROR: {"kind": "soap-fault", "code": "Server", "probability": 0.2},
    Mood.SLOW: {"kind": "delay", "seconds": 1.5},
}
LIVELY: Final = (
    *("--speed", "60", "--resolve-after", "600"),
    *("--repeats", "0.05", "--disorder", "0.05", "--notify-retry", "0.3", "--dialect-chance", "0.2"),
    *("--dialect", "child-order", "--dialect", "prefixes", "--dialect", "times", "--dialect", "status-spelling"),
    *("--dialect", "unknown-elements", "--dialect", "multi-line", "--dialect", "utf-16", "--dialect", "no-sent-at"),
)
"""A twin that has much to tell, in many ways."""


class Stage:
    """All that takes part, up and registered."""

    def __init__(self, folder: Path, processes: Processes, wires: Wires, cluster: Cluster, topics: Topics) -> None:
        self.folder = folder
        self.processes = processes
        self.cluster = cluster
        self.topics = topics
        self.log = folder / "calls.jsonl"
        self.deliveries = folder / "deliveries.jsonl"
        self.parts: dict[str, Part] = {}
        self.wires: dict[str, Wire] = {}
        self.disks: dict[str, Path] = {}
        self.registry = ""
        self.front = ""
        self.control = ""
        self._wires = wires
        self._twin: Process

    async def open(self, doors: Mapping[str, Wire], *, protocol: str, disks: bool) -> None:
        registry = await open_registry(self.processes)
        self.registry = registry
        ports = {name: free_port() for name in doors if name.startswith("server")}
        self._lay("front", *ports.values())
        self.front = f"http://{self.wires['front'].address}"
        twin = self.processes.adapter(
            *("twin", "--port", "0", "--control-port", "0", "--calls", str(self.log), "--fault", late(LATENCY)),
            *("--notify-url", self.front, "--notifications", str(self.deliveries), *LIVELY),
            cwd=self.folder,
        )
        self._twin = await twin.ready(lambda p: "control:" in p.output)
        said = dict(line.split(": ", 1) for line in twin.output.splitlines() if ": " in line)
        self.control = said["control"]
        supplier = int(said["twin"].rpartition(":")[2])
        common = settings_of(self.cluster.bootstrap, self.topics, registry, said["twin"]) | {
            "ADAPTER_KAFKA__GROUP_PROTOCOL": protocol,
            "ADAPTER_SUPPLIER__READ_TIMEOUT": "8s",  # far above what a busy machine adds to the latency
            "ADAPTER_SUPPLIER__TOTAL_TIMEOUT": "8s",
            "ADAPTER_WORKER__STOP_TIMEOUT": "20s",
            "ADAPTER_WORKER__BREAKER_PROBE": "300ms",
            "ADAPTER_WORKER__RETRY_FIRST": "100ms",
            "ADAPTER_WORKER__RETRY_MAX": "2s",
            "ADAPTER_SERVER__HOST": "127.0.0.1",
            "ADAPTER_SERVER__ALLOW_PLAINTEXT": "true",
            "ADAPTER_SERVER__PUBLISH_TIMEOUT": "3s",
            "ADAPTER_PROJECTOR__GROUP_ID": PROJECTORS,
        }
        await register(self.processes, common)
        for name, door in doors.items():
            self.wires[f"{name} - kafka"] = door
            own = {"ADAPTER_KAFKA__BOOTSTRAP_SERVERS": door.address}
            match name.partition(" ")[0]:
                case "worker":
                    wire = self._lay(f"{name} - supplier", supplier)
                    own |= {"ADAPTER_SUPPLIER__BASE_URL": f"http://{wire.address}"}
                case "server":
                    disk = self.folder / name.replace(" ", "-")
                    disk.mkdir()
                    if disks:
                        self.disks[name] = disk
                    own |= {
                        "ADAPTER_SERVER__PORT": str(ports[name]),
                        "ADAPTER_SERVER__SPOOL__PATH": str(disk / "spool.db"),
                    }
                case _:
                    own |= {"ADAPTER_PROJECTOR__STORE": str(self.folder / name.replace(" ", "-"))}
            self.parts[name] = Part(name, self._starter(name.partition(" ")[0], common | own))

    def cast(self, protocol: str) -> Cast:
        # Apache Kafka 4.3.1 may fail to load a KIP-848 group once its broker was killed under transactions: "Failed to
        # load metadata … Group … is not a consumer group", "The state machine of the coordinator … is out of sync".
        broker = ("broker",) if protocol == "classic" else ()
        return Cast((*self.parts, *broker, "twin"), tuple(self.wires), tuple(self.disks))

    def mood(self, *faults: Mapping[str, Any]) -> None:
        """What the supplier does from now on, beside being as slow as ever."""
        whole = [*({"times": None, **fault} for fault in faults), json.loads(late(LATENCY))]
        for method, data in (("DELETE", None), ("POST", json.dumps(whole).encode())):
            asked = urllib.request.Request(f"{self.control}faults", data=data, method=method)
            with urllib.request.urlopen(asked, timeout=10):
                pass

    def supplier(self) -> Supplier:
        return Supplier(self._twin)

    def end_supplier(self) -> None:
        self._twin.kill()

    def _lay(self, name: str, *ports: int) -> Wire:
        self.wires[name] = self._wires.lay(*ports)
        return self.wires[name]

    def _starter(self, role: str, settings: Mapping[str, str]) -> Callable[[], Process]:
        return lambda: self.processes.adapter(role, env=settings)


class Run:
    """One run on a stage."""

    def __init__(self, stage: Stage, seed: int) -> None:
        self.report = Report(seed)
        self._stage = stage
        self._opened = OpenCalls(stage.log)
        self._workload = Workload(stage.cluster.bootstrap, stage.registry, stage.topics.commands, seed)
        self._notices = Notices(stage.front, seed)
        self._broker = Broker(stage.cluster)
        self._victims: dict[str, Victim] = {**stage.parts, "broker": self._broker, "twin": stage.supplier()}
        self._turns = {name: asyncio.Lock() for name in (*stage.wires, *stage.disks)}
        self._mood = asyncio.Lock()
        self._began = 0.0

    async def play(self, steps: Iterable[Step], *, seconds: float) -> None:
        """The steps under load, until there are no more or the time is over; healed when this returns."""
        for part in self._stage.parts.values():
            part.start()
        await eventually(lambda: all(part.ready for part in self._stage.parts.values()), what="everybody being up")
        self._began = time.monotonic()
        feeding = asyncio.ensure_future(self._feed())
        posting = asyncio.ensure_future(self._notices.run(16, pause=0.5))
        async with asyncio.TaskGroup() as faults:
            for step in steps:
                if feeding.done() or time.monotonic() - self._began > seconds:
                    break
                await asyncio.sleep(step.pause)
                if step.act is Act.KILL:
                    with contextlib.suppress(AssertionError):
                        await eventually(lambda: self._opened.count() > IN_FLIGHT, within=GATHERING)
                strike = Strike(time.monotonic() - self._began, step, self._opened.count())
                self.report.strikes.append(strike)
                print(f"{strike.at:7.1f} s  {step}, {strike.in_flight} calls under way", flush=True)
                faults.create_task(self._strike(step))
        self.report.seconds = time.monotonic() - self._began
        self._notices.stop()
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)
        if not feeding.cancelled():
            feeding.result()
        for part in self._stage.parts.values():
            part.look()
        async with asyncio.timeout(180):
            await posting

    async def settle(self) -> Evidence:
        """Waits until all is finished, ends everybody, and gathers what is left."""
        stage = self._stage
        bootstrap, topics, parts = stage.cluster.bootstrap, stage.topics, stage.parts
        await asyncio.to_thread(self._workload.flush, 120)
        events = Events(bootstrap, stage.registry, topics.events)

        def finished() -> bool:
            return all_ended(bootstrap, topics, events)

        with contextlib.suppress(AssertionError):  # what is not finished is a violation, and told as one
            await _aside(finished, within=120)
        stage.end_supplier()
        found = Evidence(
            sent=self._workload.sent,
            calls=evidence.calls(stage.log),
            poison=frozenset(self._workload.poison),
            posted=self._notices.posted,
            webhooks=evidence.webhooks(stage.deliveries),
        )

        def published() -> bool:
            found.events = events.read()
            return not any(ticket_laws.promise(found))

        with contextlib.suppress(AssertionError):
            await _aside(published, within=120)
        folds = [part for name, part in parts.items() if name.startswith("projector")]
        others = [part for part in parts.values() if part not in folds]
        await asyncio.gather(*(part.stop() for part in others))
        found.events = await asyncio.to_thread(events.read)

        def folded() -> bool:
            offsets, _ = evidence.committed(bootstrap, topics.events, PROJECTORS)
            last = {event.partition: event.offset for event in found.events}
            return all(offsets[partition] > offset for partition, offset in last.items())

        if folds:
            with contextlib.suppress(AssertionError):
                await _aside(folded, within=120)
        await asyncio.gather(*(part.stop() for part in folds))
        if folds:
            found.events = await asyncio.to_thread(events.read)
            found.tickets = await asyncio.to_thread(evidence.tickets, bootstrap, stage.registry, topics.tickets)
        found.dead = evidence.dead_letters(bootstrap, topics.dead_letters)
        found.quarantine = evidence.bodies(bootstrap, topics.quarantine)
        found.offsets, found.ends = evidence.committed(bootstrap, topics.commands, workers(topics))
        found.peaks = {name: part.peak for name, part in parts.items()}
        found.endings = [ending for part in parts.values() for ending in part.endings]
        return found

    def judge(self, found: Evidence) -> Report:
        kinds = Counter(event.type for event in found.events)
        self.report.counts = {
            "commands": len(found.sent),
            "calls": len(found.calls),
            "notifications": self._notices.acknowledged,
            "webhooks": sum(webhook.acknowledged for webhook in found.webhooks),
            "events": len(found.events),
            "doubts": kinds["CommandOutcomeUnknown"],
            "tickets": len(found.tickets or {}),
        }
        self.report.findings = laws.findings(found)
        return self.report

    async def _feed(self) -> None:
        while True:
            under_way = self._opened.count()
            waiting = len(self._workload.sent) - len(self._opened.messages)
            if under_way < WANTED and waiting < BACKLOG:
                self._workload.mix(keys=8, per_key=3)
            for part in self._stage.parts.values():
                if not part.turn.locked():
                    part.look()
            await asyncio.sleep(0.1)

    async def _strike(self, step: Step) -> None:
        match step.act:
            case Act.WIRE:
                async with self._turns[step.target]:
                    wire = self._stage.wires[step.target]
                    wire.begin(Trouble(step.how))
                    await asyncio.sleep(step.seconds)
                    wire.heal()
            case Act.SUPPLIER:
                async with self._mood:
                    await asyncio.to_thread(self._stage.mood, MOODS[Mood(step.how)])
                    await asyncio.sleep(step.seconds)
                    await asyncio.to_thread(self._stage.mood)
            case Act.DISK:
                async with self._turns[step.target]:
                    ballast = self._stage.disks[step.target] / "ballast"
                    _fill(ballast)
                    await asyncio.sleep(step.seconds)
                    ballast.unlink()
            case _:
                victim = self._victims[step.target]
                async with victim.turn:
                    await self._befall(victim, step)

    async def _befall(self, victim: Victim, step: Step) -> None:
        if step.act is Act.FREEZE:
            victim.freeze()
            await asyncio.sleep(step.seconds)
            victim.thaw()
            return
        if step.act is Act.STOP:
            assert isinstance(victim, Part)
            await victim.stop()
        else:
            victim.kill()
        await asyncio.sleep(step.seconds)
        victim.start()


async def _aside(condition: Callable[[], bool], *, within: float) -> None:
    """`eventually`, with a condition that blocks, and that a broker may be too busy for: it has just been killed."""
    deadline = time.monotonic() + within
    while True:
        with contextlib.suppress(KafkaException):
            if await asyncio.to_thread(condition):
                return
        assert time.monotonic() < deadline, f"{condition.__name__} did not hold within {within:g} s"
        await asyncio.sleep(0.5)


def _mount(disk: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], check=True)


def _fill(ballast: Path) -> None:
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


async def torture(
    folder: Path,
    start: Callable[..., Cluster],
    *,
    seed: int,
    seconds: float = 600.0,
    plan: Iterable[Step] | None = None,
    cast: tuple[int, int, int] = (2, 2, 2),
    disks: bool = False,
) -> Report:
    """A run with so many workers, servers and projectors, by the seed's plan for so many seconds or by another one.

    The cluster that `start` gives is the caller's to close. With `disks` the spools are on small file systems of their
    own (needs root).
    """
    names = [
        f"{role} {number + 1}"
        for role, count in zip(("worker", "server", "projector"), cast, strict=True)
        for number in range(count)
    ]
    with ExitStack() as stack:
        wires = stack.enter_context(Wires())
        bound = {name: free_port() for name in names}
        doors = {name: wires.lay(port) for name, port in bound.items()}
        cluster = start(
            properties=BROKER,
            doors={name.replace(" ", "").upper(): (bound[name], doors[name].port) for name in names},
        )
        topics = topic_sets.create(cluster.bootstrap, partitions=PARTITIONS)
        processes = stack.enter_context(Processes(folder, quiet=True))
        stage = Stage(folder, processes, wires, cluster, topics)
        protocol = random.Random(seed).choice(("classic", "consumer"))
        print(f"seed {seed}, {protocol} groups", flush=True)
        await stage.open(doors, protocol=protocol, disks=disks)
        for disk in stage.disks.values():
            await asyncio.to_thread(_mount, disk)
            stack.callback(subprocess.run, ["umount", "-l", str(disk)], check=True)
        run = Run(stage, seed)
        await run.play(seeded(seed, stage.cast(protocol)) if plan is None else plan, seconds=seconds)
        return run.judge(await run.settle())


def main() -> int:
    parser = argparse.ArgumentParser(prog="make torture", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--report", type=Path, help="where to write the verdict as JSON")
    parser.add_argument("--keep", type=Path, help="folder for logs and evidence, kept")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(10_000) if given.seed is None else given.seed
    with ExitStack() as stack:
        folder = given.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="torture-")))
        folder.mkdir(parents=True, exist_ok=True)

        def start(**how: Any) -> Cluster:
            home = folder / "kafka"
            home.mkdir()
            cluster = Cluster(home, **how)
            stack.callback(cluster.close)
            cluster.start()
            return cluster

        report = asyncio.run(torture(folder, start, seed=seed, seconds=given.minutes * 60, disks=os.geteuid() == 0))
    print(f"\n{report.text()}")
    if given.report:
        given.report.write_text(report.json() + "\n")
    return 0 if report.clean else 1


if __name__ == "__main__":
    raise SystemExit(main())
